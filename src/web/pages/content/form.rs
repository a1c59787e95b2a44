//! The fields of an item: its own, and how it is proxied.

use crate::{
    config::Settings,
    domain::{
        change::Change,
        content::{AccessType, Process, Proxying},
        form::FieldError,
    },
    service::catalog::content::{ContentInput, ProxyingInput},
    web::{
        forms::{Choice, Field, FieldKind, FormValues},
        pages::versions::based_on,
        visitor::SignedIn,
    },
};

/// An address that would be accepted here.
fn example(settings: &Settings) -> String {
    let host = settings
        .private_hosts
        .iter()
        .find(|host| !host.contains(['*', '/', ':']));
    match host {
        Some(host) => format!("http://{host}:8501"),
        None => "https://app.example.org".to_owned(),
    }
}

fn title() -> Field {
    Field::text("title", "Title").hint("What people see in the list and on the consent page.")
}

fn access() -> Field {
    Field::new(FieldKind::Radio, "access_type", "Who may open it")
        .value("acl")
        .options(vec![
            Choice::new("logged_in", "Everyone who is signed in", ""),
            Choice::new(
                "acl",
                "Only people and groups on the list",
                "You add them on the settings page.",
            ),
        ])
}

fn description() -> Field {
    Field::new(FieldKind::Textarea, "description", "Description").hint("One or two sentences.")
}

/// The fields of an item whose app runs elsewhere.
pub(super) fn elsewhere_fields(settings: &Settings) -> Vec<Field> {
    let example = example(settings);
    vec![
        title(),
        description(),
        Field::new(FieldKind::Textarea, "upstream_url", "Address of the running app")
            .hint(format!("Where this server reaches the app, such as {example}. Hosts of a private network must be allowed by the operator (private_hosts). For an app of several processes, one address a line."))
            .mono(),
        access(),
    ]
}

/// The fields of an item whose app runs here.
pub(super) fn deployed_fields() -> Vec<Field> {
    vec![title(), description(), access()]
}

/// The fields of an item that is uploaded.
pub(super) fn upload_fields() -> Vec<Field> {
    vec![title(), access()]
}

/// The optional settings of the item's proxy; empty means the default.
pub(super) fn proxy_fields() -> Vec<Field> {
    let seconds = |name: &str, label: &str, hint: String| Field::text(name, label).hint(hint);
    vec![
        Field::new(FieldKind::Select, "keep_prefix", "What the app gets of the path")
            .hint("Where items share a host, an app stands below /content/… there. Most apps want to see only what comes behind it.")
            .options(vec![Choice::new("", "Only what stands behind its place", ""), Choice::new("yes", "The whole path, with its place", "")]),
        Field::new(FieldKind::Select, "reconnect_bar", "Reconnect bar")
            .hint("When an open page of the app needs its viewer, a small bar of the portal's offers to connect again. It is added to the app's pages.")
            .options(vec![Choice::new("", "Off", ""), Choice::new("yes", "On", "")]),
        Field::new(FieldKind::Select, "portal_link", "Link to the portal")
            .hint("A small link in a corner of the app's pages, back to the portal and to what the viewer allowed the app.")
            .options(vec![Choice::new("", "Off", ""), Choice::new("yes", "On", "")]),
        seconds(
            "connection_timeout",
            "Seconds to connect",
            format!("How long a process may take to accept a connection. Empty: {}.", Proxying::DEFAULT_CONNECT_SECONDS),
        ),
        seconds(
            "init_timeout",
            "Seconds to the first byte",
            format!("How long the app may compute before it answers. Empty: {}.", Proxying::DEFAULT_FIRST_BYTE_SECONDS),
        ),
        seconds(
            "read_timeout",
            "Seconds without a byte",
            format!("How long an answer or a WebSocket may rest. Empty: {} for answers, and no limit for WebSockets.", Proxying::DEFAULT_IDLE_SECONDS),
        ),
        Field::new(FieldKind::Textarea, "upstream_ca", "Certificates to trust for https")
            .hint("For an app whose certificate comes from an authority of your own: the authority's certificates, in PEM form. Empty: the public authorities.")
            .mono(),
        Field::new(FieldKind::Textarea, "allowed_origins", "Other sites that may use the app")
            .hint("Pages of other sites, and of other content here, cannot send requests to this app or show it in a frame, since it would act as their viewer. List the origins that may, one a line, such as https://intranet.example.org.")
            .mono(),
        Field::new(FieldKind::Textarea, "pass_headers", "Request headers to pass on")
            .hint("Headers whose names say that they may carry an identity, such as X-User-Id, are left out, since apps often believe them and anybody can send them. Name those that the app needs, one a line.")
            .mono(),
    ]
}

/// One address a line, as the form shows processes.
pub(super) fn addresses_text(processes: &[Process]) -> String {
    processes
        .iter()
        .map(|process| process.url.as_str())
        .collect::<Vec<_>>()
        .join("\n")
}

pub(super) fn number(seconds: Option<u32>) -> String {
    seconds
        .map(|seconds| seconds.to_string())
        .unwrap_or_default()
}

pub(super) fn checkbox_value(on: bool) -> String {
    if on { "yes".into() } else { String::new() }
}

/// The processes of the form, one address a line. An address that was in the list before keeps its
/// draining state.
pub(super) fn processes(typed: &FormValues, before: &[Process]) -> Vec<Process> {
    let lines = typed
        .text("upstream_url")
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty());
    lines
        .map(|url| Process {
            url: url.to_owned(),
            draining: before
                .iter()
                .any(|process| process.url == url && process.draining),
        })
        .collect()
}

/// The proxy settings of the form. A field that is missing from the form leaves its value
/// unchanged; an empty one restores the default.
pub(super) fn proxying(typed: &FormValues, problems: &mut Vec<FieldError>) -> ProxyingInput {
    let mut seconds = |key: &str| -> Change<u32> {
        if typed.get(key).is_none() {
            return Change::Keep;
        }
        let Some(text) = typed.non_empty(key) else {
            return Change::Clear;
        };
        match text.parse() {
            Ok(number) => Change::Set(number),
            Err(_) => {
                problems.push(FieldError::new(
                    key,
                    "Enter a number of seconds from 1 to 86,400, or leave it empty.",
                ));
                Change::Keep
            }
        }
    };
    ProxyingInput {
        connect_seconds: seconds("connection_timeout"),
        first_byte_seconds: seconds("init_timeout"),
        idle_seconds: seconds("read_timeout"),
        keep_prefix: typed.get("keep_prefix").map(|value| value == "yes"),
        reconnect_bar: typed.get("reconnect_bar").map(|value| value == "yes"),
        portal_link: typed.get("portal_link").map(|value| value == "yes"),
        ca: match typed.get("upstream_ca") {
            None => Change::Keep,
            Some(_) => Change::to(typed.non_empty("upstream_ca").map(str::to_owned)),
        },
        allowed_origins: lines(typed, "allowed_origins"),
        pass_headers: lines(typed, "pass_headers"),
    }
}

/// The lines of a field; `None` if it is missing from the form.
fn lines(typed: &FormValues, key: &str) -> Option<Vec<String>> {
    let text = typed.get(key)?;
    Some(text.lines().map(str::to_owned).collect())
}

/// The posted settings, or the errors found without the service.
pub(super) fn input(
    typed: &FormValues,
    before: &[Process],
) -> Result<ContentInput, Vec<FieldError>> {
    let mut problems = Vec::new();
    let title = typed.text("title").to_owned();
    if title.is_empty() {
        problems.push(FieldError::new("title", "Enter a title."));
    }
    let access = match typed.text("access_type") {
        // The form does not offer “anyone”, which only the API can set: without a choice the stored
        // value stays.
        "" => None,
        word => match AccessType::parse(word) {
            Some(access) => Some(access),
            None => {
                problems.push(FieldError::new("access_type", "Choose who may open it."));
                None
            }
        },
    };
    let input = ContentInput {
        name: None,
        title: Change::Set(title),
        description: Some(typed.text("description").to_owned()),
        access,
        // The form of an app that runs here has no addresses.
        processes: typed.get("upstream_url").map(|_| processes(typed, before)),
        proxying: proxying(typed, &mut problems),
        owner: None,
        based_on: based_on(typed),
    };
    if problems.is_empty() {
        Ok(input)
    } else {
        Err(problems)
    }
}

pub(super) fn with_address_problem(
    me: &SignedIn,
    typed: &FormValues,
    mut problems: Vec<FieldError>,
) -> Vec<FieldError> {
    if let Err(problem) = me
        .service()
        .contents
        .check_processes(&processes(typed, &[]))
    {
        problems.push(problem);
    }
    problems
}
