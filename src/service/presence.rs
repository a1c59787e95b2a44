//! Presence: which viewers have a request, event stream or WebSocket open at which process of which
//! item, and when each was last seen. The leak alarm compares it with token uses.
//!
//! Kept in memory and written to the database for all nodes, at most once a minute per viewer and
//! process.

use super::{Error, Service, admission::Admission};
use crate::{
    domain::{
        Id, Timestamp,
        content::{Content, ProcessId},
        leak::Visit,
        person::Person,
    },
    store::leaks,
};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

/// Least time between two writes of the same presence.
const WRITE_INTERVAL: Duration = Duration::from_secs(60);
/// How long after its last sighting an entry stays in memory.
const MEMORY_RETENTION: Duration = Duration::from_secs(3600);
/// Rows per transaction: others need the database's only writer, too.
const MAX_ROWS_PER_TRANSACTION: usize = 200;

/// One viewer at one process of an item. Times are in milliseconds since 1970, 0 for never.
#[derive(Default)]
pub struct Presence {
    last_seen: AtomicI64,
    /// The value of `last_seen` that was last written to the database.
    written: AtomicI64,
    /// Open requests, event streams and WebSockets.
    open_count: AtomicUsize,
}

impl Presence {
    fn note_seen(&self, now: Timestamp) {
        self.last_seen.store(now.0, Ordering::Relaxed);
    }
}

/// Guard of one open request, stream or WebSocket: the viewer is present until it is dropped.
pub struct PresenceGuard(Arc<Presence>);

impl Drop for PresenceGuard {
    fn drop(&mut self) {
        self.0.open_count.fetch_sub(1, Ordering::Relaxed);
    }
}

type Key = (Id<Content>, ProcessId, Id<Person>);

/// The presences that this node has seen.
#[derive(Default)]
pub(super) struct Presences(Mutex<HashMap<Key, Arc<Presence>>>);

impl Presences {
    /// The presence of a person at a process; made if there is none.
    pub(super) fn of(
        &self,
        item: Id<Content>,
        process: ProcessId,
        person: Id<Person>,
    ) -> Arc<Presence> {
        Arc::clone(
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry((item, process, person))
                .or_default(),
        )
    }

    /// The sightings to write to the database now. Also drops entries that were not seen for an
    /// hour and that nothing refers to.
    fn due_sightings(&self, now: Timestamp) -> Vec<(Id<Content>, Visit, Arc<Presence>)> {
        let mut news = Vec::new();
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|(item, process, person), presence| {
                if presence.open_count.load(Ordering::Relaxed) > 0 {
                    presence.note_seen(now);
                }
                let (seen, noted) = (
                    presence.last_seen.load(Ordering::Relaxed),
                    presence.written.load(Ordering::Relaxed),
                );
                if seen > 0 && Timestamp(seen).since(Timestamp(noted)) >= WRITE_INTERVAL {
                    let visit = Visit {
                        person: *person,
                        process: *process,
                        seen_at: Timestamp(seen),
                    };
                    news.push((*item, visit, Arc::clone(presence)));
                }
                now.since(Timestamp(seen)) < MEMORY_RETENTION || Arc::strong_count(presence) > 1
            });
        news
    }
}

impl Service {
    fn presence(&self, admission: &Admission, process: ProcessId) -> Arc<Presence> {
        if process.is_only() {
            Arc::clone(&admission.presence)
        } else {
            self.presences
                .of(admission.content.id, process, admission.person.id)
        }
    }

    /// Registers that the person has something open at a process, until the guard is dropped.
    pub fn arrive(&self, admission: &Admission, process: ProcessId) -> PresenceGuard {
        let presence = self.presence(admission, process);
        presence.note_seen(self.now());
        presence.open_count.fetch_add(1, Ordering::Relaxed);
        PresenceGuard(presence)
    }

    /// Records that the person was seen at a process just now.
    pub fn note_seen(&self, admission: &Admission, process: ProcessId) {
        self.presence(admission, process).note_seen(self.now());
    }

    /// The recorded visits to an item, with the time of the last sighting.
    pub async fn visits(&self, item: Id<Content>) -> Result<Vec<Visit>, Error> {
        self.store
            .read(move |db| Ok(leaks::visits(db, item)?))
            .await
    }

    /// Writes sightings to the database, for all nodes. Called every ten seconds and at a stop.
    pub async fn share_presence(&self) -> Result<(), Error> {
        for part in self
            .presences
            .due_sightings(self.now())
            .chunks(MAX_ROWS_PER_TRANSACTION)
        {
            let seen: Vec<_> = part
                .iter()
                .map(|(item, visit, _)| (*item, *visit))
                .collect();
            self.store
                .write_untracked(move |db| {
                    seen.into_iter().try_for_each(|(item, visit)| {
                        Ok::<_, Error>(leaks::record_visit(db, item, visit)?)
                    })
                })
                .await?;
            for (_, visit, presence) in part {
                presence.written.store(visit.seen_at.0, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_request_counts_as_presence_and_is_written_once_a_minute() {
        let presences = Presences::default();
        let (item, person, at) = (Id::random(), Id::random(), |seconds: i64| {
            Timestamp(seconds * 1000)
        });
        let presence = presences.of(item, ProcessId::ONLY, person);
        let written = |news: Vec<(Id<Content>, Visit, Arc<Presence>)>| {
            news.iter().for_each(|(_, visit, presence)| {
                presence.written.store(visit.seen_at.0, Ordering::Relaxed)
            });
            news.iter()
                .map(|(_, visit, _)| visit.seen_at)
                .collect::<Vec<_>>()
        };
        assert!(presences.due_sightings(at(5000)).is_empty(), "never seen");
        presence.note_seen(at(10_000));
        assert_eq!(
            presences.due_sightings(at(10_001)).len(),
            1,
            "not written down"
        );
        assert_eq!(written(presences.due_sightings(at(10_002))), [at(10_000)]);
        presence.note_seen(at(10_030));
        assert!(
            presences.due_sightings(at(10_031)).is_empty(),
            "not a minute later"
        );
        presence.open_count.fetch_add(1, Ordering::Relaxed);
        let here = PresenceGuard(Arc::clone(&presence));
        assert_eq!(
            written(presences.due_sightings(at(10_200))),
            [at(10_200)],
            "a long request"
        );
        drop((here, presence));
        assert!(presences.due_sightings(at(20_000)).is_empty());
        assert!(presences.0.lock().unwrap().is_empty(), "forgotten");
    }
}
