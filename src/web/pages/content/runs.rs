//! `/content-settings/{guid}/runs`: an item whose app runs here, or could: deploys, processes,
//! bundles, variables and limits.

use crate::{
    domain::{
        Id, addresses,
        bundle::{AppMode, Bundle, Task},
        content::Content,
        form::FieldError,
        running::Running,
    },
    http::errors::WebError,
    service::{
        Error,
        running::board::{Failure, Phase, ResourceUse, RunKey, RunningProcess},
    },
    web::{
        confirmation::Confirmed,
        forms::{Choice, Field, FieldKind, FormValues, refill},
        pages::{
            Question, ask_first,
            content::tabs::{RUNS, content_tabs},
            form_status, id, is_sure, page_with, problems_of,
        },
        view::{Chrome, Moment, Now, Status, Tab, count_noun},
        visitor::{Posted, SignedIn},
    },
};
use actix_web::{HttpRequest, HttpResponse, http::header, web};
use askama::Template;
use std::time::Duration;

/// Lines of a deploy's output that the page shows.
const SHOWN_LINES: usize = 40;

/// A running process.
struct ProcessRow {
    name: String,
    state: Status,
    draft: bool,
    since: Moment,
    connections: usize,
    memory: String,
    cpu: String,
    start: String,
    /// Points of the plot of memory, for an SVG of 60 by 20; empty for none yet.
    plot: String,
}

/// A bundle.
struct BundleRow {
    number: i64,
    at: Moment,
    by: String,
    size: String,
    kind: &'static str,
    is_active: bool,
}

/// The latest deploy.
struct TaskView {
    status: Status,
    at: Moment,
    what: String,
    error: String,
    output: String,
    is_open: bool,
}

#[derive(Template)]
#[template(path = "pages/content/runs.html")]
struct RunsPage {
    chrome: Chrome,
    base: String,
    title: String,
    tabs: Vec<Tab>,
    errors: Vec<FieldError>,
    /// Why nothing can be deployed; empty if it can.
    unavailable: String,
    /// How processes are kept apart.
    isolation: String,
    open: String,
    is_deployed: bool,
    /// The app runs elsewhere, at this address.
    elsewhere: String,
    task: Option<TaskView>,
    failure: Option<(Failure, Moment)>,
    has_processes: bool,
    processes: Vec<ProcessRow>,
    bundles: Vec<BundleRow>,
    commands: Vec<(&'static str, &'static str, String)>,
    kinds: Field,
    entry: Field,
    variables: Vec<String>,
    variable_fields: Vec<Field>,
    limits: Vec<Field>,
    limits_open: bool,
}

/// The three commands that deploy from a command line.
pub(super) fn commands(portal: &str) -> Vec<(&'static str, &'static str, String)> {
    vec![
        (
            "install",
            "Install the client, once",
            "pip install rsconnect-python".into(),
        ),
        (
            "add",
            "Tell it this portal, once; the key is one of yours, under Account",
            format!("rsconnect add --name valetkey --server {portal} --api-key YOUR-API-KEY"),
        ),
        (
            "deploy",
            "Deploy the folder that you are in",
            "rsconnect deploy streamlit --name valetkey .".into(),
        ),
    ]
}

/// The choice of the kind of app, for an upload without a manifest.
pub(super) fn kind_fields() -> [Field; 2] {
    use strum::IntoEnumIterator as _;
    let kinds = std::iter::once(Choice::new("", "Found out from the files", ""))
        .chain(AppMode::iter().map(|mode| Choice::new(mode.as_str(), mode.title(), "")))
        .collect();
    [
        Field::new(FieldKind::Select, "app_mode", "Kind of app")
            .hint("Used where the upload has no manifest.json.")
            .options(kinds),
        Field::text("entrypoint", "Entry point")
            .hint("The file or module that starts the app, such as app.py. Only together with a kind.")
            .mono(),
    ]
}

/// `1.5 MiB`.
pub(super) fn bytes_text(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..1_048_576 => format!("{} KiB", bytes >> 10),
        _ => {
            let tenths = (bytes * 10) >> 20;
            format!("{}.{} MiB", tenths / 10, tenths % 10)
        }
    }
}

fn seconds_text(time: Duration) -> String {
    format!("{}.{} s", time.as_secs(), time.subsec_millis() / 100)
}

/// A line through the samples, newest at the right, in a box of 60 by 20.
fn plot(history: &[ResourceUse]) -> String {
    let most = history
        .iter()
        .map(|sample| sample.memory)
        .max()
        .unwrap_or(0)
        .max(1);
    let points: Vec<String> = history
        .iter()
        .enumerate()
        .map(|(at, sample)| format!("{at},{}", 19 - sample.memory * 18 / most))
        .collect();
    if points.len() < 2 {
        String::new()
    } else {
        points.join(" ")
    }
}

fn process_row(process: &RunningProcess, now: Now) -> ProcessRow {
    let usage = process.usage();
    ProcessRow {
        name: process.name.clone(),
        state: match process.phase() {
            Phase::Starting => Status::neutral("Starting"),
            Phase::Ready => Status::positive("Answers"),
            Phase::Draining => Status::neutral("Draining"),
        },
        draft: process.key.is_draft,
        since: Moment::new(process.started_at, now),
        connections: process.connections(),
        memory: bytes_text(usage.memory),
        cpu: format!("{:.0} %", usage.cpu * 100.0),
        start: process.start_time().map(seconds_text).unwrap_or_default(),
        plot: plot(&process.history()),
    }
}

/// The page, with posted values and errors if there are any.
pub(super) async fn draw_runs(
    me: &SignedIn,
    item: &Content,
    typed: Option<&FormValues>,
    errors: Vec<FieldError>,
) -> Result<HttpResponse, WebError> {
    let (service, now) = (me.service(), me.now());
    let unavailable = service.bundles.unavailable().await?.unwrap_or_default();
    let bundles = service.bundles.list(&me.actor, item.id).await?;
    let tasks = service.bundles.tasks_of(&me.actor, item.id).await?;
    let variables = service.bundles.variable_names(&me.actor, item.id).await?;
    let task = match tasks.first() {
        Some(task) => Some(task_view(me, task).await?),
        None => None,
    };
    let mut limits = limit_fields(&item.running);
    let mut variable_fields = variable_fields();
    refill(&mut limits, typed, &errors);
    refill(&mut variable_fields, None, &errors);
    let [mut kinds, mut entry] = kind_fields();
    for field in [&mut kinds, &mut entry] {
        refill(std::slice::from_mut(field), typed, &errors);
    }
    let key = item.bundle.map(|bundle| RunKey {
        content: item.id,
        bundle,
        is_draft: false,
    });
    let base = addresses::content_settings(item.id);
    let is_open = task.as_ref().is_some_and(|task| task.is_open);
    let view = RunsPage {
        chrome: me
            .visitor
            .chrome("content", &format!("Runs of {}", item.display_title())),
        title: item.display_title().to_owned(),
        tabs: content_tabs(item.id, RUNS),
        isolation: isolation_text(service.runs.isolation()),
        unavailable,
        open: addresses::app(item.id),
        is_deployed: item.bundle.is_some(),
        elsewhere: item.upstream().unwrap_or_default().to_owned(),
        task,
        failure: key
            .and_then(|key| service.runs.failure(key))
            .map(|failure| (failure.clone(), Moment::new(failure.at, now))),
        has_processes: item
            .app_mode
            .parse::<AppMode>()
            .is_ok_and(|mode| !mode.is_files()),
        processes: service
            .runs
            .processes_of(item.id)
            .iter()
            .map(|process| process_row(process, now))
            .collect(),
        bundles: bundle_rows(me, &bundles, item.bundle).await?,
        commands: commands(service.core.addresses.base()),
        kinds,
        entry,
        variables,
        variable_fields,
        limits_open: limits.iter().any(|field| field.error.is_some()),
        limits,
        base,
        errors,
    };
    let mut response = page_with(form_status(&view.errors), &view)?;
    if is_open && view.errors.is_empty() {
        // The page follows a deploy without script, too.
        response
            .headers_mut()
            .insert(header::REFRESH, header::HeaderValue::from_static("2"));
    }
    Ok(response)
}

fn isolation_text(isolation: Option<(crate::domain::bundle::Isolation, &'static str)>) -> String {
    use crate::domain::bundle::Isolation;
    match isolation {
        None => String::new(),
        Some((Isolation::Sandbox, limited_by)) => format!(
            "Each process runs in a sandbox: it sees only this content's files, and nothing of the portal or of other content. Memory and processes are limited by {limited_by}."
        ),
        Some((Isolation::None, _)) => {
            "No isolation: processes run as the portal's own user and can read its data (setting run_content = none). For development only.".into()
        }
    }
}

async fn bundle_rows(
    me: &SignedIn,
    bundles: &[Bundle],
    active: Option<i64>,
) -> Result<Vec<BundleRow>, WebError> {
    let mut rows = Vec::new();
    for bundle in bundles {
        let by = match bundle.created_by {
            Some(person) => me.service().contents.owner_name(person).await,
            None => None,
        };
        rows.push(BundleRow {
            number: bundle.number,
            at: Moment::new(bundle.created_at, me.now()),
            by: by.unwrap_or_else(|| "somebody whose account is gone".into()),
            size: bytes_text(u64::try_from(bundle.size).unwrap_or(0)),
            kind: bundle
                .app_mode
                .parse::<AppMode>()
                .map_or("unknown", AppMode::title),
            is_active: active == Some(bundle.number),
        });
    }
    Ok(rows)
}

async fn task_view(me: &SignedIn, task: &Task) -> Result<TaskView, WebError> {
    let output = me
        .service()
        .bundles
        .task(&me.actor, task.id, 0, Duration::ZERO)
        .await?;
    let lines = &output.lines;
    let shown = lines
        .get(lines.len().saturating_sub(SHOWN_LINES)..)
        .unwrap_or(lines);
    let what = if task.activate { "Deploy" } else { "Draft" };
    Ok(TaskView {
        status: match &output.task.outcome {
            None => Status::neutral("Under way"),
            Some(outcome) if outcome.error.is_none() => Status::positive("Done"),
            Some(_) => Status::negative("Failed"),
        },
        at: Moment::new(task.created_at, me.now()),
        what: format!("{what} of bundle {}", task.bundle),
        error: output
            .task
            .outcome
            .as_ref()
            .and_then(|outcome| outcome.error.clone())
            .unwrap_or_default(),
        output: shown.join("\n"),
        is_open: output.task.outcome.is_none(),
    })
}

/// An item of the path that the reader may edit.
pub(super) async fn editable(me: &SignedIn, text: &str) -> Result<Content, WebError> {
    let seen = me
        .service()
        .contents
        .editable_content(&me.actor, id(text)?)
        .await?;
    Ok(seen.content)
}

fn runs_address(item: Id<Content>) -> String {
    addresses::content_runs(item)
}

/// `GET /content-settings/{guid}/runs`.
pub async fn runs(me: SignedIn, path: web::Path<String>) -> Result<HttpResponse, WebError> {
    let item = editable(&me, &path).await?;
    draw_runs(&me, &item, None, Vec::new()).await
}

/// `POST /content-settings/{guid}/restart`: new processes, without interruption.
pub async fn restart(
    me: SignedIn,
    path: web::Path<String>,
    _: Posted,
) -> Result<HttpResponse, WebError> {
    let item = editable(&me, &path).await?;
    match me.service().bundles.restart(&me.actor, item.id).await {
        Ok(()) => Ok(me.done(
            &runs_address(item.id),
            "Starting new processes. The old ones serve until those answer.",
        )),
        Err(error) => draw_runs(&me, &item, None, problems_of(error)?).await,
    }
}

/// `POST /content-settings/{guid}/bundles/{number}/deploy`: makes a bundle the one that viewers get.
pub async fn deploy(
    me: SignedIn,
    path: web::Path<(String, i64)>,
    _: Posted,
) -> Result<HttpResponse, WebError> {
    let item = editable(&me, &path.0).await?;
    match me
        .service()
        .bundles
        .deploy(&me.actor, item.id, Some(path.1), true)
        .await
    {
        Ok(_) => Ok(me.done(
            &runs_address(item.id),
            format!("Deploying bundle {}.", path.1),
        )),
        Err(error) => draw_runs(&me, &item, None, problems_of(error)?).await,
    }
}

/// `POST /content-settings/{guid}/bundles/{number}/delete`; asks first.
pub async fn delete_bundle(
    me: SignedIn,
    path: web::Path<(String, i64)>,
    Posted(typed): Posted,
) -> Result<HttpResponse, WebError> {
    let item = editable(&me, &path.0).await?;
    if !is_sure(&typed) {
        return ask_first(
            &me,
            Question {
                area: "content",
                title: format!("Delete bundle {}?", path.1),
                consequences: &[
                    "Its files are deleted and it cannot be deployed again. Viewers notice nothing: they get another bundle.",
                ],
                action: format!(
                    "{}/bundles/{}/delete",
                    addresses::content_settings(item.id),
                    path.1
                ),
                fields: Vec::new(),
                submit: "Delete bundle",
                cancel: runs_address(item.id),
            },
        );
    }
    match me
        .service()
        .bundles
        .delete(&me.actor, item.id, path.1)
        .await
    {
        Ok(()) => Ok(me.done(
            &runs_address(item.id),
            format!("Deleted bundle {}.", path.1),
        )),
        Err(error) => draw_runs(&me, &item, None, problems_of(error)?).await,
    }
}

/// `GET /content-settings/{guid}/bundles/{number}`: the archive.
pub async fn download(
    me: SignedIn,
    request: HttpRequest,
    path: web::Path<(String, i64)>,
) -> Result<HttpResponse, WebError> {
    let item = editable(&me, &path.0).await?;
    let found = me
        .service()
        .bundles
        .bundle(&me.actor, item.id, path.1)
        .await?;
    let archive = me.service().bundles.files().archive(item.id, found.number);
    let file = actix_files::NamedFile::open_async(archive)
        .await
        .map_err(|_| Error::NotFound)?;
    Ok(file.into_response(&request))
}

fn variable_fields() -> Vec<Field> {
    vec![
        Field::text("name", "Name")
            .hint("Letters, digits and _, such as DATABRICKS_HOST.")
            .mono(),
        Field::new(FieldKind::Secret, "value", "Value")
            .hint("Stored encrypted, given to the processes, never shown again."),
    ]
}

/// `POST /content-settings/{guid}/variables`: sets one, or removes one (`remove`).
pub async fn set_variable(
    me: SignedIn,
    path: web::Path<String>,
    Confirmed(typed): Confirmed,
) -> Result<HttpResponse, WebError> {
    let item = editable(&me, &path).await?;
    let (name, value) = match typed.non_empty("remove") {
        Some(name) => (name.to_owned(), None),
        None => (
            typed.text("name").to_owned(),
            Some(typed.get("value").unwrap_or("").to_owned().into()),
        ),
    };
    let removed = value.is_none();
    let set = me
        .service()
        .bundles
        .set_variables(&me.actor, item.id, vec![(name.clone(), value)], false)
        .await;
    match set {
        Ok(_) => {
            let verb = if removed { "Removed" } else { "Set" };
            Ok(me.done(
                &runs_address(item.id),
                format!("{verb} {name}. New processes take over as soon as they answer."),
            ))
        }
        Err(error) => draw_runs(&me, &item, Some(&typed), problems_of(error)?).await,
    }
}

/// The limits of processes: field, label, hint, and what is stored.
fn limit_fields(running: &Running) -> Vec<Field> {
    let number = |value: Option<u32>| value.map(|value| value.to_string()).unwrap_or_default();
    [
        (
            "min_processes",
            "Processes that always run",
            "Empty: 0, the first visit starts one.".to_owned(),
            running.min_processes,
        ),
        (
            "max_processes",
            "Processes at most",
            "Empty: 3.".into(),
            running.max_processes,
        ),
        (
            "max_conns_per_process",
            "Open requests and WebSockets of a process",
            "Empty: 20. Beyond it viewers are told that the app is busy.".into(),
            running.max_conns_per_process,
        ),
        (
            "load_factor",
            "Start another process when one is this full, in per cent",
            "Empty: 50.".into(),
            running.load_factor,
        ),
        (
            "idle_timeout",
            "Stop a process after so many seconds without a connection",
            "Empty: 300.".into(),
            running.idle_timeout,
        ),
        (
            "start_timeout",
            "Seconds within which a process must answer",
            "Empty: 60.".into(),
            running.start_timeout,
        ),
        (
            "memory_mib",
            "Memory of a process, in MiB",
            "Empty: as the operator allows.".into(),
            running.memory_mib,
        ),
    ]
    .into_iter()
    .map(|(name, label, hint, value)| Field::text(name, label).hint(hint).value(number(value)))
    .collect()
}

/// `POST /content-settings/{guid}/limits`.
pub async fn set_limits(
    me: SignedIn,
    path: web::Path<String>,
    Posted(typed): Posted,
) -> Result<HttpResponse, WebError> {
    let item = editable(&me, &path).await?;
    let mut problems = Vec::new();
    let mut number = |key: &str| -> Option<u32> {
        let text = typed.non_empty(key)?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            problems.push(FieldError::new(
                key,
                "Enter a whole number, or leave it empty.",
            ));
        }
        parsed
    };
    let running = Running {
        min_processes: number("min_processes"),
        max_processes: number("max_processes"),
        max_conns_per_process: number("max_conns_per_process"),
        load_factor: number("load_factor"),
        idle_timeout: number("idle_timeout"),
        start_timeout: number("start_timeout"),
        memory_mib: number("memory_mib"),
    };
    if problems.is_empty() {
        match me
            .service()
            .bundles
            .set_running(&me.actor, item.id, running)
            .await
        {
            Ok(()) => return Ok(me.done(&runs_address(item.id), "Saved the limits of processes.")),
            Err(error) => problems = problems_of(error)?,
        }
    }
    draw_runs(&me, &item, Some(&typed), problems).await
}

/// `POST /content-settings/{guid}/elsewhere`: the app runs elsewhere from now on; asks first.
pub async fn run_elsewhere(
    me: SignedIn,
    path: web::Path<String>,
    Posted(typed): Posted,
) -> Result<HttpResponse, WebError> {
    let item = editable(&me, &path).await?;
    if !is_sure(&typed) {
        let running = me.service().runs.processes_of(item.id).len();
        let stopped = format!(
            "{} stopped, and viewers are sent to the address under Settings.",
            count_noun(running, "process is", "processes are")
        );
        return ask_first(
            &me,
            Question {
                area: "content",
                title: "Run this app elsewhere?".into(),
                consequences: &[
                    &stopped,
                    "The bundles are kept: you can deploy one of them again.",
                ],
                action: format!("{}/elsewhere", addresses::content_settings(item.id)),
                fields: Vec::new(),
                submit: "Stop running it here",
                cancel: runs_address(item.id),
            },
        );
    }
    me.service()
        .bundles
        .stop_running(&me.actor, item.id)
        .await?;
    Ok(me.done(
        &addresses::content_settings(item.id),
        "The app no longer runs here. Enter the address at which it runs.",
    ))
}
