//! The processes of an item: health, viewers, and draining one (`POST
//! …/processes/{position}/drain`).

use crate::{
    domain::{
        Timestamp, addresses,
        content::{AccessType, Content, ProcessId},
        leak::Visit,
    },
    http::{endpoint::is_up, errors::WebError},
    service::{Services, catalog::content::ContentInput},
    web::{
        pages::id,
        view::{Moment, Now, Status, count_noun},
        visitor::{Posted, SignedIn},
    },
};
use actix_web::{HttpResponse, web};
use std::collections::HashSet;

/// A process, with the health that this node has observed.
pub(super) struct ProcessRow {
    pub(super) position: usize,
    pub(super) url: String,
    pub(super) state: Status,
    /// When the state last changed, if that is known.
    pub(super) since: Option<Moment>,
    pub(super) draining: bool,
    /// Number of viewers seen recently; unknown for items that are open to anyone.
    pub(super) people: String,
    /// Open WebSockets from this node.
    pub(super) open: usize,
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
pub(super) fn viewers_at_removed_processes(
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
    (item.processes.len() > 1 && there > 0).then(|| count_noun(there, "person", "people"))
}

/// The processes of an item, with health and number of viewers. Probes run concurrently.
pub(super) async fn process_rows(
    service: &Services,
    item: &Content,
    visits: &[Visit],
    now: Now,
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
                is_up(&process.url, &service.core.policy, &service.core.names).await
            };
            let is_here = |visit: &Visit| {
                item.processes.len() == 1 || visit.process == ProcessId::of(process)
            };
            let people = people_of(visits, *now, is_here);
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
