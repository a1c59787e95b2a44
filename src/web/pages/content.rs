//! Content items: `/content` (list), `/content/new`, and `/content-settings/{guid}` with everything
//! below it (settings, integration, processes, access list, content key, consents, leak warnings).
//! Below `/content/{guid}/` everything belongs to the app.

use crate::{
    domain::{
        Id, Timestamp, access, addresses,
        content::{AccessType, Content, ContentRole, Process, ProcessId, Proxying},
        form::FieldError,
        group::Principal,
        integration::Integration,
        leak::Visit,
        person::Role,
    },
    http::{endpoint::is_up, errors::WebError, redirect::see_other},
    providers,
    service::{
        Services,
        catalog::content::{ContentInput, ProxyingInput, VisibleContent},
    },
    web::{
        confirmation::Confirmed,
        forms::{Choice, Field, FieldKind, FormValues, refill},
        pages::{
            ConfirmPage, FormPage, Group, form_status, id, page, page_with, principal,
            principal_field, problems_of,
        },
        shown_once::{self, SecretToShow},
        view::{Chrome, Moment, Status, count_noun},
        visitor::{Posted, SignedIn},
    },
};
use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;
use std::collections::HashSet;

struct Row {
    title: String,
    description: String,
    owner: String,
    href: String,
    settings: String,
    uses: String,
    changed: Moment,
    may_open: bool,
    may_edit: bool,
    has_upstream: bool,
}

#[derive(Template)]
#[template(path = "pages/content.html")]
struct ListPage {
    chrome: Chrome,
    rows: Vec<Row>,
    may_add: bool,
}

/// `GET /content`: the items that the person may see, their own first.
pub async fn list(me: SignedIn) -> Result<HttpResponse, WebError> {
    let (service, now) = (me.service(), me.service().core.now());
    let mut seen = service.contents.contents(&me.actor).await?;
    // A publisher's own items come first.
    seen.sort_by_key(|item| {
        (
            std::cmp::Reverse(item.standing),
            item.content.display_title().to_lowercase(),
        )
    });
    let mut rows = Vec::new();
    for item in seen {
        let attached = service
            .contents
            .associations(&me.actor, item.content.id)
            .await?;
        let names: Vec<String> = attached
            .iter()
            .map(|(_, integration)| providers::names(integration).service)
            .collect();
        rows.push(Row {
            title: item.content.display_title().to_owned(),
            description: item.content.description.clone(),
            owner: item.owner.display_name(),
            href: addresses::app(item.content.id),
            settings: addresses::content_settings(item.content.id),
            uses: names.join(", "),
            changed: Moment::new(item.content.updated_at, now),
            may_open: access::may_open(item.standing),
            may_edit: item.may_edit,
            has_upstream: item.content.upstream().is_some(),
        });
    }
    page(&ListPage {
        chrome: me.visitor.chrome("content", "Content"),
        rows,
        may_add: access::may_create_content(me.actor.role),
    })
}

/// The fields that every item has.
fn fields() -> Vec<Field> {
    vec![
        Field::text("title", "Title").hint("What people see in the list and on the consent page."),
        Field::new(FieldKind::Textarea, "description", "Description").hint("One or two sentences."),
        Field::new(FieldKind::Textarea, "upstream_url", "Address of the running app")
            .hint("Where this server reaches the app, such as http://10.0.0.5:8501. Private addresses must be allowed by the operator. For an app of several processes, one address a line.")
            .mono(),
        Field::new(FieldKind::Radio, "access_type", "Who may open it").value("acl").options(vec![
            Choice::new("logged_in", "Everyone who is signed in", ""),
            Choice::new("acl", "Only people and groups on the list", "You add them on the settings page."),
        ]),
    ]
}

/// The optional settings of the item's proxy; empty means the default.
fn proxy_fields() -> Vec<Field> {
    let seconds = |name: &str, label: &str, hint: String| Field::text(name, label).hint(hint);
    vec![
        Field::new(FieldKind::Select, "keep_prefix", "What the app gets of the path")
            .hint("Where items share a host, an app stands below /content/… there. Most apps want to see only what comes behind it.")
            .options(vec![Choice::new("", "Only what stands behind its place", ""), Choice::new("yes", "The whole path, with its place", "")]),
        Field::new(FieldKind::Select, "reconnect_bar", "Reconnect bar")
            .hint("When an open page of the app needs its viewer, a small bar of the portal's offers to connect again. It is added to the app's pages.")
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
    ]
}

/// One address a line, as the form shows processes.
fn addresses_text(processes: &[Process]) -> String {
    processes
        .iter()
        .map(|process| process.url.as_str())
        .collect::<Vec<_>>()
        .join("\n")
}

fn number(seconds: Option<u32>) -> String {
    seconds
        .map(|seconds| seconds.to_string())
        .unwrap_or_default()
}

fn tick(on: bool) -> String {
    if on { "yes".into() } else { String::new() }
}

/// The processes of the form, one address a line. An address that was in the list before keeps its
/// draining state.
fn processes(typed: &FormValues, before: &[Process]) -> Vec<Process> {
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
fn proxying(typed: &FormValues, problems: &mut Vec<FieldError>) -> ProxyingInput {
    let mut seconds = |key: &str| -> Option<Option<u32>> {
        typed.get(key)?;
        let Some(text) = typed.non_empty(key) else {
            return Some(None);
        };
        match text.parse() {
            Ok(number) => Some(Some(number)),
            Err(_) => {
                problems.push(FieldError::new(
                    key,
                    "Enter a number of seconds from 1 to 86,400, or leave it empty.",
                ));
                None
            }
        }
    };
    ProxyingInput {
        connect_seconds: seconds("connection_timeout"),
        first_byte_seconds: seconds("init_timeout"),
        idle_seconds: seconds("read_timeout"),
        keep_prefix: typed.get("keep_prefix").map(|value| value == "yes"),
        reconnect_bar: typed.get("reconnect_bar").map(|value| value == "yes"),
        ca: typed
            .get("upstream_ca")
            .map(|_| typed.non_empty("upstream_ca").map(str::to_owned)),
    }
}

/// The posted settings, or the errors of the form itself.
fn input(typed: &FormValues, before: &[Process]) -> Result<ContentInput, Vec<FieldError>> {
    let mut problems = Vec::new();
    let title = typed.text("title").to_owned();
    if title.is_empty() {
        problems.push(FieldError::new("title", "Enter a title."));
    }
    let access = match typed.text("access_type") {
        // The form does not offer “anyone”, which only the API can set: without a choice the stored
        // value visits.
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
        title: Some(Some(title)),
        description: Some(typed.text("description").to_owned()),
        access,
        processes: Some(processes(typed, before)),
        proxying: proxying(typed, &mut problems),
        owner: None,
    };
    if problems.is_empty() {
        Ok(input)
    } else {
        Err(problems)
    }
}

fn draw_new(
    me: &SignedIn,
    typed: Option<&FormValues>,
    errors: Vec<FieldError>,
) -> Result<HttpResponse, WebError> {
    if !access::may_create_content(me.actor.role) {
        return Err(crate::service::Error::Forbidden(
            "Only publishers and administrators add content.",
        )
        .into());
    }
    let mut fields = fields();
    refill(&mut fields, typed, &errors);
    page_with(
        form_status(&errors),
        &FormPage {
            chrome: me.visitor.chrome("content", "Add content"),
            intro: "An app that is running somewhere. People open it through this portal.".into(),
            errors,
            fields,
            action: "/content/new".into(),
            submit: "Add content".into(),
            cancel: "/content".into(),
        },
    )
}

/// `GET /content/new`.
pub async fn new_page(me: SignedIn) -> Result<HttpResponse, WebError> {
    draw_new(&me, None, Vec::new())
}

/// `POST /content/new`.
pub async fn create(me: SignedIn, Posted(typed): Posted) -> Result<HttpResponse, WebError> {
    let created = match input(&typed, &[]) {
        Ok(input) => me.service().contents.create_content(&me.actor, input).await,
        Err(problems) => {
            // The service was not asked: check the addresses here, so that all errors are reported
            // together.
            return draw_new(
                &me,
                Some(&typed),
                with_address_problem(&me, &typed, problems),
            );
        }
    };
    match created {
        Ok(seen) => {
            let message = format!(
                "Added {}. Pick an integration, and add the people who may open it.",
                seen.content.display_title()
            );
            Ok(me.done(&addresses::content_settings(seen.content.id), message))
        }
        Err(error) => draw_new(&me, Some(&typed), problems_of(error)?),
    }
}

fn with_address_problem(
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

struct Attached {
    service: String,
    provider: String,
    capabilities: Vec<String>,
    offline: bool,
}

/// An integration that can be chosen.
struct IntegrationChoice {
    guid: String,
    name: String,
    service: String,
    description: String,
    /// Attached, but no longer available to this reader: once another one is saved, it cannot be
    /// chosen again.
    kept_only: bool,
}

struct ConsentRow {
    person: String,
    integration: String,
    allowed: Moment,
    used: Option<Moment>,
    uses: String,
}

struct Listed {
    number: i64,
    person: String,
    role: &'static str,
}

#[derive(Template)]
#[template(path = "pages/content_settings.html")]
struct SettingsPage {
    chrome: Chrome,
    errors: Vec<FieldError>,
    base: String,
    title: String,
    owner: String,
    description: String,
    may_open: bool,
    open: String,
    choices: Vec<IntegrationChoice>,
    selected: String,
    attached: Vec<Attached>,
    attached_names: String,
    several: bool,
    environment: String,
    key_made: Option<Moment>,
    may_end_consents: bool,
    consenting: Vec<ConsentRow>,
    access: &'static str,
    listed: Vec<Listed>,
    permit_fields: Vec<Field>,
    fields: Vec<Field>,
    proxy_fields: Vec<Field>,
    /// The proxy settings are unfolded, since a field in them has an error.
    proxy_open: bool,
    /// See [`viewers_at_removed_processes`].
    unplaced: Option<String>,
    processes: Vec<ProcessRow>,
    several_processes: bool,
    leaks: Vec<LeakRow>,
}

/// A viewer whose session token was used while they were absent.
struct LeakRow {
    person: String,
    words: &'static str,
    first: Moment,
    last: Moment,
    times: String,
}

/// A process, with the health that this node has observed.
struct ProcessRow {
    position: usize,
    url: String,
    state: Status,
    /// When the state last changed, if that is known.
    since: Option<Moment>,
    draining: bool,
    /// Number of viewers seen recently; unknown for items that are open to anyone.
    people: String,
    /// Open WebSockets from this node.
    open: usize,
}

/// A viewer counts as present for this long. Presence is written once a minute.
const PRESENT_WITHIN: std::time::Duration = std::time::Duration::from_secs(120);

/// Number of distinct people among the recent visits that pass `is_meant`.
fn people_of(visits: &[Visit], now: Timestamp, is_meant: impl Fn(&Visit) -> bool) -> usize {
    let meant = visits
        .iter()
        .filter(|visit| now.since(visit.seen_at) < PRESENT_WITHIN && is_meant(visit));
    meant
        .map(|visit| visit.person)
        .collect::<HashSet<_>>()
        .len()
}

/// How many viewers are still at a process that is no longer in the list; `None` if there are none,
/// or if the item has one process only.
fn viewers_at_removed_processes(
    item: &Content,
    visits: &[Visit],
    now: Timestamp,
) -> Option<String> {
    let is_nowhere = |visit: &Visit| {
        !item
            .processes
            .iter()
            .any(|process| ProcessId::of(process) == visit.process)
    };
    let there = people_of(visits, now, is_nowhere);
    (item.processes.len() > 1 && there > 0)
        .then(|| count_noun(i64::try_from(there).unwrap_or(i64::MAX), "person", "people"))
}

/// The processes of an item, with health and number of viewers. Probes run concurrently.
async fn process_rows(
    service: &Services,
    item: &Content,
    visits: &[Visit],
    now: Timestamp,
) -> Vec<ProcessRow> {
    let rows = item
        .processes
        .iter()
        .enumerate()
        .map(|(position, process)| async move {
            let known = service.process_health.health(&process.url);
            // Health checks run only for items with several processes; a single process is probed
            // now.
            let is_up = if known.since.is_some() && item.processes.len() > 1 {
                !known.is_down
            } else {
                is_up(&process.url, &service.core.policy).await
            };
            let is_here = |visit: &Visit| {
                item.processes.len() == 1 || visit.process == ProcessId::of(process)
            };
            let people = people_of(visits, now, is_here);
            ProcessRow {
                position,
                url: process.url.clone(),
                state: if is_up {
                    Status::positive("accepts connections")
                } else {
                    Status::negative("does not answer")
                },
                since: known
                    .since
                    .filter(|_| known.is_down != is_up)
                    .map(|at| Moment::new(at, now)),
                draining: process.draining,
                people: if item.access == AccessType::All {
                    "not known".into()
                } else {
                    people.to_string()
                },
                open: known.open_sockets,
            }
        });
    futures_util::future::join_all(rows).await
}

/// The environment variables that an app needs to exchange tokens, with `{key}` as the placeholder
/// for the content key.
pub fn environment(base: &str, content: Id<Content>) -> String {
    format!(
        "CONNECT_SERVER={base}\nCONNECT_API_KEY={{key}}\nCONNECT_CONTENT_GUID={content}\nPOSIT_PRODUCT=CONNECT\nRSTUDIO_PRODUCT=CONNECT"
    )
}

/// The settings page, with the posted values and errors if there are any.
async fn draw_settings(
    me: &SignedIn,
    seen: VisibleContent,
    typed: Option<&FormValues>,
    errors: Vec<FieldError>,
) -> Result<HttpResponse, WebError> {
    let (service, now) = (me.service(), me.service().core.now());
    let item = &seen.content;
    let visits = service.presence.visits(item.id).await?;
    let choices = if access::may_see_integrations(me.actor.role) {
        service.integrations.integrations(&me.actor).await?
    } else {
        Vec::new()
    };
    let attached = service.contents.associations(&me.actor, item.id).await?;
    let keys = service.api_keys.content_keys(item.id).await?;
    let consenting = service
        .contents
        .consenting_people(&me.actor, item.id)
        .await?;
    let listed = service
        .contents
        .permissions_with_names(&me.actor, item.id)
        .await?;
    let (mut fields, mut proxy_fields) = (fields(), proxy_fields());
    let stored = FormValues(vec![
        (
            "title".into(),
            item.title.clone().unwrap_or_else(|| item.name.clone()),
        ),
        ("description".into(), item.description.clone()),
        ("upstream_url".into(), addresses_text(&item.processes)),
        (
            "connection_timeout".into(),
            number(item.proxying.connect_seconds),
        ),
        (
            "init_timeout".into(),
            number(item.proxying.first_byte_seconds),
        ),
        ("read_timeout".into(), number(item.proxying.idle_seconds)),
        ("keep_prefix".into(), tick(item.proxying.keep_prefix)),
        ("reconnect_bar".into(), tick(item.proxying.reconnect_bar)),
        (
            "upstream_ca".into(),
            item.proxying.ca.clone().unwrap_or_default(),
        ),
        ("access_type".into(), item.access.as_str().into()),
    ]);
    refill(&mut fields, Some(typed.unwrap_or(&stored)), &errors);
    refill(&mut proxy_fields, Some(typed.unwrap_or(&stored)), &errors);
    let known: Vec<Principal> = listed
        .iter()
        .map(|(entry, _)| entry.principal)
        .chain([Principal::Person(item.owner)])
        .collect();
    let mut permit_fields = vec![
        principal_field(me, "Person or group", &known).await?,
        Field::new(FieldKind::Select, "role", "May").options(vec![
            Choice::new("viewer", "open it", ""),
            Choice::new("owner", "open and edit it (publishers)", ""),
        ]),
    ];
    refill(&mut permit_fields, None, &errors);
    let describe = |integration: &Integration| {
        let names = providers::names(integration);
        Attached {
            service: names.service,
            provider: names.provider,
            capabilities: providers::capabilities(integration),
            offline: providers::asks_for_refresh_token(integration),
        }
    };
    let base = addresses::content_settings(item.id);
    let view = SettingsPage {
        chrome: me.visitor.chrome("content", item.display_title()),
        title: item.display_title().to_owned(),
        owner: seen.owner.display_name(),
        description: item.description.clone(),
        may_open: access::may_open(seen.standing) && item.upstream().is_some(),
        open: addresses::app(item.id),
        choices: choices
            .iter()
            // An attached integration stays in the list, even if nobody may choose it any more.
            .chain(
                attached
                    .iter()
                    .map(|(_, integration)| integration)
                    .filter(|kept| !choices.iter().any(|choice| choice.id == kept.id)),
            )
            .map(|integration| IntegrationChoice {
                guid: integration.id.to_string(),
                name: integration.display_name().to_owned(),
                service: providers::names(integration).service,
                description: integration.description.clone().unwrap_or_default(),
                kept_only: !choices.iter().any(|choice| choice.id == integration.id),
            })
            .collect(),
        selected: attached
            .first()
            .map(|(_, integration)| integration.id.to_string())
            .unwrap_or_default(),
        attached_names: attached
            .iter()
            .map(|(_, integration)| integration.display_name().to_owned())
            .collect::<Vec<_>>()
            .join(", "),
        several: attached.len() > 1,
        attached: attached
            .iter()
            .map(|(_, integration)| describe(integration))
            .collect(),
        environment: environment(service.core.addresses.base(), item.id)
            .replace("{key}", "<the content key>"),
        may_end_consents: me.actor.role == Role::Administrator,
        key_made: keys.first().map(|key| Moment::new(key.created_at, now)),
        consenting: consenting
            .iter()
            .map(|(consent, person, integration)| ConsentRow {
                person: person.display_name(),
                integration: integration.display_name().to_owned(),
                allowed: Moment::new(consent.created_at, now),
                used: consent.last_used_at.map(|at| Moment::new(at, now)),
                uses: count_noun(consent.uses, "time", "times"),
            })
            .collect(),
        access: match item.access {
            AccessType::All => "Anyone, even without signing in.",
            AccessType::LoggedIn => {
                "Everyone who is signed in. Whoever is on the list may do more if it says so."
            }
            AccessType::Acl => "Only the owner and the people and groups on this list.",
        },
        listed: listed
            .iter()
            .map(|(permission, name)| Listed {
                number: permission.number,
                person: match permission.principal {
                    Principal::Person(_) => name.clone(),
                    Principal::Group(_) => format!("Group {name}"),
                },
                role: if permission.role == ContentRole::Viewer {
                    "open it"
                } else {
                    "open and edit it"
                },
            })
            .collect(),
        permit_fields,
        fields,
        proxy_open: proxy_fields.iter().any(|field| field.error.is_some()),
        proxy_fields,
        unplaced: viewers_at_removed_processes(item, &visits, now),
        processes: process_rows(service, item, &visits, now).await,
        several_processes: item.processes.len() > 1,
        leaks: service
            .leaks
            .leaks(&me.actor, item.id)
            .await?
            .into_iter()
            .map(|(leak, person)| LeakRow {
                person: person.display_name(),
                words: leak.kind.words(),
                first: Moment::new(leak.first_at, now),
                last: Moment::new(leak.last_at, now),
                times: count_noun(leak.times, "time", "times"),
            })
            .collect(),
        base,
        errors,
    };
    page_with(form_status(&view.errors), &view)
}

/// `GET /content-settings/{guid}`.
pub async fn settings_page(
    me: SignedIn,
    path: web::Path<String>,
) -> Result<HttpResponse, WebError> {
    let seen = me
        .service()
        .contents
        .editable_content(&me.actor, id(&path)?)
        .await?;
    draw_settings(&me, seen, None, Vec::new()).await
}

/// `POST /content-settings/{guid}`. Needs confirmation only if the processes change.
pub async fn save_settings(
    me: SignedIn,
    request: HttpRequest,
    path: web::Path<String>,
    Posted(mut typed): Posted,
) -> Result<HttpResponse, WebError> {
    let guid = id(&path)?;
    let seen = me
        .service()
        .contents
        .editable_content(&me.actor, guid)
        .await?;
    if processes(&typed, &seen.content.processes) != seen.content.processes {
        // Viewers' session tokens are sent to these addresses.
        Confirmed(typed) = Confirmed::check(&me, &request, typed).await?;
    }
    let input = match input(&typed, &seen.content.processes) {
        Ok(input) => input,
        Err(problems) => {
            let problems = with_address_problem(&me, &typed, problems);
            return draw_settings(&me, seen, Some(&typed), problems).await;
        }
    };
    match me
        .service()
        .contents
        .update_content(&me.actor, guid, input)
        .await
    {
        Ok(seen) => Ok(me.done(
            &addresses::content_settings(guid),
            format!("Saved {}.", seen.content.display_title()),
        )),
        Err(error) => draw_settings(&me, seen, Some(&typed), problems_of(error)?).await,
    }
}

/// `POST /content-settings/{guid}/mended`: the publisher states that the app no longer shares
/// tokens between viewers, which clears the warnings.
pub async fn clear_leaks(
    me: SignedIn,
    path: web::Path<String>,
    _: Posted,
) -> Result<HttpResponse, WebError> {
    let guid = id(&path)?;
    me.service().leaks.forget_leaks(&me.actor, guid).await?;
    Ok(me.done(
        &addresses::content_settings(guid),
        "Warning put away. It comes back if a token is used without its viewer again.",
    ))
}

/// `POST /content-settings/{guid}/processes/{position}/drain`: stops sending new viewers to a
/// process (`drain=yes`), or starts again.
pub async fn drain(
    me: SignedIn,
    path: web::Path<(String, usize)>,
    Posted(typed): Posted,
) -> Result<HttpResponse, WebError> {
    let guid = id(&path.0)?;
    let mut processes = me
        .service()
        .contents
        .editable_content(&me.actor, guid)
        .await?
        .content
        .processes;
    // The list may have changed since the page was rendered, so the address must match, too.
    let named = processes
        .get_mut(path.1)
        .filter(|process| process.url == typed.text("url"));
    let process = named.ok_or(crate::service::Error::NotFound)?;
    process.draining = typed.text("drain") == "yes";
    let message = if process.draining {
        format!(
            "Draining {}. Whoever is there stays; nobody new comes.",
            process.url
        )
    } else {
        format!("{} takes new viewers again.", process.url)
    };
    me.service()
        .contents
        .update_content(
            &me.actor,
            guid,
            ContentInput {
                processes: Some(processes),
                ..ContentInput::default()
            },
        )
        .await?;
    Ok(me.done(&addresses::content_settings(guid), message))
}

/// `POST /content-settings/{guid}/integration`: attaches one integration, or none.
pub async fn save_integration(
    me: SignedIn,
    path: web::Path<String>,
    Posted(typed): Posted,
) -> Result<HttpResponse, WebError> {
    let guid = id(&path)?;
    let seen = me
        .service()
        .contents
        .editable_content(&me.actor, guid)
        .await?;
    let wanted = match typed.text("integration") {
        "" => Vec::new(),
        text => match text.parse() {
            Ok(integration) => vec![integration],
            Err(_) => {
                return draw_settings(
                    &me,
                    seen,
                    None,
                    vec![FieldError::new(
                        "integration",
                        "Choose one of the integrations.",
                    )],
                )
                .await;
            }
        },
    };
    let none = wanted.is_empty();
    match me
        .service()
        .contents
        .set_associations(&me.actor, guid, wanted)
        .await
    {
        Ok(()) => {
            let message = if none {
                "Saved. This content uses no integration now."
            } else {
                "Saved. Viewers are asked for their consent when they open this content."
            };
            Ok(me.done(&addresses::content_settings(guid), message))
        }
        Err(error) => {
            let problems = problems_of(error)?
                .into_iter()
                .map(|problem| FieldError::new("integration", problem.message))
                .collect();
            draw_settings(&me, seen, None, problems).await
        }
    }
}

/// `POST /content-settings/{guid}/people`: adds a person or group to the access list.
pub async fn permit(
    me: SignedIn,
    path: web::Path<String>,
    Posted(typed): Posted,
) -> Result<HttpResponse, WebError> {
    let guid = id(&path)?;
    let seen = me
        .service()
        .contents
        .editable_content(&me.actor, guid)
        .await?;
    let (Some(principal), Some(role)) = (
        principal(typed.text("person")),
        ContentRole::parse(typed.text("role")),
    ) else {
        return draw_settings(
            &me,
            seen,
            None,
            vec![FieldError::new("person", "Choose a person or a group.")],
        )
        .await;
    };
    match me
        .service()
        .contents
        .set_permission(&me.actor, guid, principal, role)
        .await
    {
        Ok(_) => Ok(me.done(&addresses::content_settings(guid), "Added to the list.")),
        Err(error) => {
            let problems = problems_of(error)?
                .into_iter()
                .map(|problem| FieldError::new("person", problem.message))
                .collect();
            draw_settings(&me, seen, None, problems).await
        }
    }
}

/// `POST /content-settings/{guid}/people/{number}/remove`.
pub async fn unpermit(
    me: SignedIn,
    path: web::Path<(String, i64)>,
    _: Posted,
) -> Result<HttpResponse, WebError> {
    let guid = id(&path.0)?;
    me.service()
        .contents
        .remove_permission(&me.actor, guid, path.1)
        .await?;
    Ok(me.done(&addresses::content_settings(guid), "Removed from the list."))
}

/// `POST /content-settings/{guid}/key`: creates a content key, which replaces the old one, and
/// redirects to the page that shows it once.
pub async fn make_key(
    me: SignedIn,
    path: web::Path<String>,
    _: Confirmed,
) -> Result<HttpResponse, WebError> {
    let guid = id(&path)?;
    let (content, secret) = me
        .service()
        .api_keys
        .create_content_key(&me.actor, guid)
        .await?;
    let shown = SecretToShow {
        title: format!("Content key of {}", content.display_title()),
        intro: "Put it into the app's environment. It can exchange session tokens of this content and nothing else.".into(),
        label: "Content key".into(),
        secret,
        environment: environment(me.service().core.addresses.base(), guid),
        done: addresses::content_settings(guid),
    };
    Ok(see_other(
        &shown_once::store(me.service(), me.actor.person.id, shown).await?,
    ))
}

/// `GET /content-settings/{guid}/consents/end`.
pub async fn end_consents_page(
    me: SignedIn,
    path: web::Path<String>,
) -> Result<HttpResponse, WebError> {
    let item = me
        .service()
        .contents
        .editable_content(&me.actor, id(&path)?)
        .await?
        .content;
    let consents = me
        .service()
        .contents
        .consenting_people(&me.actor, item.id)
        .await?;
    let people: Vec<String> = consents
        .iter()
        .map(|(_, person, _)| person.display_name())
        .collect();
    page(&ConfirmPage {
        chrome: me.visitor.chrome(
            "content",
            &format!("End every consent for {}?", item.display_title()),
        ),
        errors: Vec::new(),
        groups: vec![
            Group::new(
                "Who",
                &["For these people the content stops acting at once, in open windows, too:"],
                people,
            ),
            Group::new(
                "What does not happen",
                &[
                    "Their connections visit, and other content goes on using them. The next time they open this content they are asked again.",
                ],
                Vec::new(),
            ),
        ],
        link: None,
        action: format!("{}/consents/end", addresses::content_settings(item.id)),
        fields: Vec::new(),
        submit: "End every consent".into(),
        cancel: addresses::content_settings(item.id),
    })
}

/// `POST /content-settings/{guid}/consents/end`: ends every viewer's consent for this item.
pub async fn end_consents(
    me: SignedIn,
    path: web::Path<String>,
    _: Confirmed,
) -> Result<HttpResponse, WebError> {
    let guid = id(&path)?;
    let ended = me
        .service()
        .revocations
        .revoke_consents_of_content(&me.actor, guid)
        .await?;
    let message = format!(
        "Ended {}.",
        count_noun(i64::try_from(ended).unwrap_or(0), "consent", "consents")
    );
    Ok(me.done(&addresses::content_settings(guid), message))
}

/// `GET /content-settings/{guid}/delete`.
pub async fn delete_page(me: SignedIn, path: web::Path<String>) -> Result<HttpResponse, WebError> {
    let seen = me
        .service()
        .contents
        .editable_content(&me.actor, id(&path)?)
        .await?;
    let item = &seen.content;
    let consents = me
        .service()
        .contents
        .consenting_people(&me.actor, item.id)
        .await?;
    let people: Vec<String> = consents
        .iter()
        .map(|(_, person, _)| person.display_name())
        .collect();
    let mut groups = vec![Group::new(
        "",
        &["Its address stops working for everyone. The app itself goes on running where it is."],
        Vec::new(),
    )];
    if !people.is_empty() {
        groups.push(Group::new(
            "These people let it act for them; their consent ends",
            &[],
            people,
        ));
    }
    page(&ConfirmPage {
        chrome: me
            .visitor
            .chrome("content", &format!("Delete {}?", item.display_title())),
        errors: Vec::new(),
        groups,
        link: None,
        action: format!("{}/delete", addresses::content_settings(item.id)),
        fields: Vec::new(),
        submit: format!("Delete {}", item.display_title()),
        cancel: addresses::content_settings(item.id),
    })
}

/// `POST /content-settings/{guid}/delete`.
pub async fn delete(
    me: SignedIn,
    path: web::Path<String>,
    _: Posted,
) -> Result<HttpResponse, WebError> {
    let item = me
        .service()
        .contents
        .delete_content(&me.actor, id(&path)?)
        .await?;
    Ok(me.done("/content", format!("Deleted {}.", item.display_title())))
}
