//! The leak alarm: detects items that exchange a viewer's token while that viewer is absent. Such a
//! use suggests that the app shares one connection between its viewers (a module global, a shared
//! cache): one viewer then sees rows of another, and nothing at the provider shows it.
//!
//! Compares uses with presence (`service/cluster/presence.rs`), each per process: a session token names the
//! process that got it. [`crate::domain::leak`] judges. Only the leader runs it. It never blocks an
//! exchange.

use crate::{
    domain::{
        Id, Timestamp, addresses,
        audit::{Action, Event},
        content::{Content, ProcessId},
        leak::{Leak, LeakKind, Visit, absence, judge},
        notice::{self, Notice},
        person::Person,
    },
    measures,
    service::{
        catalog::content::Contents,
        core::{Actor, Core, event, record},
        error::Error,
        notifying::notices::notify,
    },
    store::{Db, content, leaks, people},
};
use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

/// How far before the previous look uses are read again: each node writes its uses every ten
/// seconds, so some arrive late.
const LOOKBACK: Duration = Duration::from_secs(30);
/// How long a suspicion waits before it is checked again and recorded: by then every node has
/// written the presence it had seen before.
const CONFIRM_AFTER: Duration = Duration::from_secs(25);

/// The leader's state between two looks.
#[derive(Default)]
pub struct Alarm {
    last_look_at: Option<Timestamp>,
    /// Suspicious uses, and when each was first noticed.
    suspicions: Vec<(leaks::TokenUse, LeakKind, Timestamp)>,
}

/// Runs `ask` on each use with the visits to its item, and keeps the uses with an answer. Loads the
/// visits once per item.
fn map_uses<T>(
    db: &mut Db<'_>,
    uses: Vec<leaks::TokenUse>,
    ask: impl Fn(&leaks::TokenUse, &[Visit]) -> Option<T>,
) -> Result<Vec<(leaks::TokenUse, T)>, Error> {
    let mut known: HashMap<Id<Content>, Vec<Visit>> = HashMap::new();
    let mut found = Vec::new();
    for used in uses {
        let visits = match known.entry(used.content) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(leaks::visits(db, used.content)?),
        };
        found.extend(ask(&used, visits).map(|answer| (used, answer)));
    }
    Ok(found)
}

/// Looks for tokens that are used without their viewers.
pub struct LeakAlarm {
    core: Arc<Core>,
    contents: Arc<Contents>,
}

impl LeakAlarm {
    pub(in crate::service) fn new(core: Arc<Core>, contents: Arc<Contents>) -> Self {
        Self { core, contents }
    }

    /// Looks for tokens that were recently used without their viewers. Records a suspicion once it
    /// is older than 25 s and the viewer was still absent.
    pub async fn look_for_leaks(&self, alarm: &mut Alarm) -> Result<(), Error> {
        let now = self.core.now();
        let since = alarm.last_look_at.unwrap_or(now).minus(LOOKBACK);
        let is_due = |since: Timestamp| now.since(since) >= CONFIRM_AFTER;
        let due: Vec<(leaks::TokenUse, LeakKind)> = alarm
            .suspicions
            .iter()
            .filter(|(_, _, since)| is_due(*since))
            .map(|(used, kind, _)| (*used, *kind))
            .collect();
        let asked = due.iter().map(|(used, _)| *used).collect();
        let (fresh, still) = self
            .core
            .store
            .read(move |db| {
                let fresh = leaks::used_between(db, since, now)?;
                let fresh = map_uses(db, fresh, |used, visits| {
                    judge(used.person, used.process, used.at, visits)
                })?;
                Ok::<_, Error>((
                    fresh,
                    map_uses(db, asked, |used, visits| {
                        absence(used.person, used.process, used.at, visits)
                    })?,
                ))
            })
            .await?;
        alarm.last_look_at = Some(now);
        alarm.suspicions.retain(|(_, _, since)| !is_due(*since));
        for (used, kind) in fresh {
            let same = |known: &leaks::TokenUse| {
                (known.content, known.process, known.person)
                    == (used.content, used.process, used.person)
            };
            if !alarm.suspicions.iter().any(|(known, ..)| same(known)) {
                alarm.suspicions.push((used, kind, now));
            }
        }
        let mut said = Ok(());
        for (used, kind) in due {
            if still.iter().any(|(away, _)| *away == used)
                && let Err(error) = self.record_leak(used, kind).await
            {
                // Recorded at the next look.
                alarm
                    .suspicions
                    .push((used, kind, now.minus(CONFIRM_AFTER)));
                said = Err(error);
            }
        }
        said
    }

    /// Stores a leak. The first one of a viewer at an item also gets an audit record and a log
    /// line.
    async fn record_leak(&self, used: leaks::TokenUse, kind: LeakKind) -> Result<(), Error> {
        self.core.store
            .write(move |db| {
                // The item or the person may be gone by now.
                let (Some(item), Some(person)) = (content::find(db, used.content)?, people::find(db, used.person)?) else { return Ok(()) };
                if !leaks::record_leak(db, used, kind)? {
                    return Ok(());
                }
                measures::leak();
                tracing::warn!(content = %item.id, "a viewer's token was used without its viewer");
                let process = item.processes.iter().find(|process| ProcessId::among(&item.processes, process) == used.process);
                let at = process.filter(|_| !used.process.is_only()).map(|process| format!(" by {}", process.url)).unwrap_or_default();
                let detail = format!(
                    "token of {} used{at} {}; the app may share a connection between its viewers (a module global, @st.cache_resource): \
                     its publisher makes the client inside the request or session",
                    person.username,
                    kind.words()
                );
                for (kind, person) in [
                    (notice::Kind::LeakSuspected, None),
                    (notice::Kind::ContentLeaks, Some(item.owner)),
                ] {
                    let notice = Notice {
                        kind,
                        person,
                        title: format!("{} used a viewer's token without that viewer", item.display_title()),
                        body: "The app may share a connection between its viewers, so that one sees what only another may. Its publisher makes the client inside the request or session; the page says whose token it was, and when.".into(),
                        path: addresses::content_settings(item.id),
                        once: Some(format!("{} {}", kind.as_str(), item.id)),
                    };
                    notify(db, &notice, used.at)?;
                }
                record(db, &Event::by_portal(used.at, Action::LeakSuspected, item.display_title(), detail))
            })
            .await
    }

    /// The leaks of an item with their viewers, for those who may edit it.
    pub async fn leaks(
        &self,
        actor: &Actor,
        id: Id<Content>,
    ) -> Result<Vec<(Leak, Person)>, Error> {
        self.contents.editable_content(actor, id).await?;
        self.core
            .store
            .read(move |db| {
                let mut rows = Vec::new();
                for leak in leaks::of_content(db, id)? {
                    if let Some(person) = people::find(db, leak.person)? {
                        rows.push((leak, person));
                    }
                }
                Ok(rows)
            })
            .await
    }

    /// Deletes the leaks of an item after the publisher has fixed the app. Uses up to now no longer
    /// count.
    pub async fn forget_leaks(&self, actor: &Actor, id: Id<Content>) -> Result<(), Error> {
        let item = self.contents.editable_content(actor, id).await?.content;
        let (now, actor) = (self.core.now(), actor.clone());
        self.core
            .store
            .write(move |db| {
                if leaks::clear(db, id, now)? > 0 {
                    record(
                        db,
                        &event(&actor, now, Action::LeaksCleared, item.display_title(), ""),
                    )?;
                }
                Ok(())
            })
            .await
    }
}
