//! What the page of an item says first; see [`crate::web::health`].

use crate::{
    domain::{
        content::Content,
        integration::{Association, Integration},
    },
    http::errors::WebError,
    service::running::board::RunKey,
    web::{
        health::{HealthLine, exchange_lines, integration_trouble, sort},
        pages::content::processes::ProcessRow,
        plot::Range,
        view::{Moment, Status},
        visitor::SignedIn,
    },
};

/// Whether the processes of an app that runs here start.
fn run_health(me: &SignedIn, item: &Content) -> Option<HealthLine> {
    let (service, bundle) = (me.service(), item.bundle?);
    if let Some(reason) = service.runs.unavailable() {
        let line = HealthLine::new(Status::negative("Does not run"), reason);
        return Some(line);
    }
    let key = RunKey {
        content: item.id,
        bundle,
        is_draft: false,
    };
    let failure = service.runs.failure(key)?;
    let line = HealthLine::new(Status::negative("Does not start"), failure.reason.clone());
    Some(
        line.at(Moment::new(failure.at, me.now()))
            .advice("See Runs and Logs."),
    )
}

/// Whether an item works: its app, its integrations, its exchanges of the last 24 hours.
pub(super) async fn content_health(
    me: &SignedIn,
    item: &Content,
    associations: &[(Association, Integration)],
    processes: &[ProcessRow],
) -> Result<Vec<HealthLine>, WebError> {
    let (service, now) = (me.service(), me.now());
    let mut lines = Vec::new();
    if item.bundle.is_some() {
        lines.extend(run_health(me, item));
    } else if processes.is_empty() {
        let line = HealthLine::new(Status::neutral("No app yet"), "Nothing can be opened.");
        lines.push(line.advice("Enter the address of the running app under Settings below."));
    }
    let down = processes
        .iter()
        .filter(|process| item.bundle.is_none() && process.state.tone == "negative")
        .count();
    if down > 0 {
        let text = if down == processes.len() {
            "The app does not answer at its address.".to_owned()
        } else {
            format!("{down} of {} processes do not answer.", processes.len())
        };
        lines.push(
            HealthLine::new(Status::negative("Not reachable"), text)
                .advice("Start the app, or correct its address under Settings below."),
        );
    }
    if associations.is_empty() {
        let text = "This content acts for nobody: it uses no integration.";
        lines.push(HealthLine::new(Status::neutral("No integration"), text));
    }
    for (_, integration) in associations {
        if let Some(mut line) = integration_trouble(service, integration, now) {
            line.text = format!("{}: {}", integration.display_name(), line.text);
            lines.push(line);
        }
    }
    if !associations.is_empty() {
        let range = Range::Day;
        let sums = service
            .contents
            .activity(&me.actor, item.id, range.since(*now), range.step())
            .await?;
        lines.extend(exchange_lines(&sums, now));
    }
    sort(&mut lines);
    Ok(lines)
}
