//! Presence: which viewers have a request, event stream or WebSocket open at which process of which
//! item, and when each was last seen. The leak alarm compares it with token uses.
//!
//! Kept in memory and written to the database for all nodes, at most once a minute per viewer and
//! process.

use crate::{
    domain::{
        Id, Timestamp,
        content::{Content, ProcessId},
        leak::Visit,
        person::Person,
    },
    service::{core::Core, error::Error},
    store::leaks,
};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

/// Least time between two writes of the same presence.
const WRITE_INTERVAL: Duration = Duration::from_secs(60);
/// How long after its last sighting an entry stays in memory.
const MEMORY_RETENTION: Duration = Duration::from_secs(3600);
/// Rows per transaction: others write, too.
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

/// A viewer at an item. Looked up once per admission, so that a request to an item with one process
/// takes no lock.
pub struct ViewerAt {
    item: Id<Content>,
    person: Id<Person>,
    /// The presence at the item's only process. Not used for an item with several.
    single: Arc<Presence>,
}

type Key = (Id<Content>, ProcessId, Id<Person>);

/// The presences that this node has seen.
#[derive(Default)]
pub(in crate::service) struct Presences(Mutex<HashMap<Key, Arc<Presence>>>);

impl Presences {
    /// The presence of a person at a process; made if there is none.
    pub(in crate::service) fn of(
        &self,
        item: Id<Content>,
        process: ProcessId,
        person: Id<Person>,
    ) -> Arc<Presence> {
        Arc::clone(self.0.lock().entry((item, process, person)).or_default())
    }

    /// The sightings to write to the database now. Also drops entries that were not seen for an
    /// hour and that nothing refers to.
    fn due_sightings(&self, now: Timestamp) -> Vec<(Id<Content>, Visit, Arc<Presence>)> {
        let mut news = Vec::new();
        self.0.lock().retain(|(item, process, person), presence| {
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
        // All nodes write in the same order, so that none waits for another in a circle.
        news.sort_by_key(|(item, visit, _)| (item.as_u128(), visit.person.as_u128()));
        news
    }
}

/// Who is at which content, as this node saw it.
pub struct PresenceBoard {
    core: Arc<Core>,
    presences: Arc<Presences>,
}

impl PresenceBoard {
    pub(in crate::service) fn new(core: Arc<Core>) -> Self {
        Self {
            core,
            presences: Arc::default(),
        }
    }

    /// The entry of a viewer at an item.
    pub(in crate::service) fn viewer(&self, item: Id<Content>, person: Id<Person>) -> ViewerAt {
        ViewerAt {
            item,
            person,
            single: self.presences.of(item, ProcessId::ONLY, person),
        }
    }

    fn presence(&self, viewer: &ViewerAt, process: ProcessId) -> Arc<Presence> {
        if process.is_only() {
            Arc::clone(&viewer.single)
        } else {
            self.presences.of(viewer.item, process, viewer.person)
        }
    }

    /// Registers that the person has something open at a process, until the guard is dropped.
    pub fn arrive(&self, viewer: &ViewerAt, process: ProcessId) -> PresenceGuard {
        let presence = self.presence(viewer, process);
        presence.note_seen(self.core.now());
        presence.open_count.fetch_add(1, Ordering::Relaxed);
        PresenceGuard(presence)
    }

    /// What the person has open at a process: requests, event streams and WebSockets.
    pub fn open_count(&self, viewer: &ViewerAt, process: ProcessId) -> usize {
        self.presence(viewer, process)
            .open_count
            .load(Ordering::Relaxed)
    }

    /// Records that the person was seen at a process just now.
    pub fn note_seen(&self, viewer: &ViewerAt, process: ProcessId) {
        self.presence(viewer, process).note_seen(self.core.now());
    }

    /// The recorded visits to an item, with the time of the last sighting.
    pub async fn visits(&self, item: Id<Content>) -> Result<Vec<Visit>, Error> {
        self.core
            .store
            .read(move |db| Ok(leaks::visits(db, item)?))
            .await
    }

    /// Writes sightings to the database, for all nodes. Called every ten seconds and at a stop.
    pub async fn share_presence(&self) -> Result<(), Error> {
        for part in self
            .presences
            .due_sightings(self.core.now())
            .chunks(MAX_ROWS_PER_TRANSACTION)
        {
            let seen: Vec<_> = part
                .iter()
                .map(|(item, visit, _)| (*item, *visit))
                .collect();
            self.core
                .store
                .write(move |db| {
                    let seen = seen.clone();
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
        assert!(presences.0.lock().is_empty(), "forgotten");
    }
}
