//! Presence: which viewers have a request, event stream or WebSocket open at which process of which
//! item, and since when. The leak alarm compares it with token uses.
//!
//! Kept in memory; the database learns for all nodes who came and who left. In between, a viewer is
//! there for as long as the node sends heartbeats: a tab that stays open costs no writes.

use crate::{
    domain::{
        Id, Timestamp,
        content::{Content, ProcessId},
        leak::Visit,
        person::Person,
    },
    service::{cluster::node::Nodes, core::Core, error::Error},
    store::{
        bookkeeping::{self, MAX_ROWS, Stay},
        leaks,
    },
};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

/// A viewer who was not seen for this long, and has nothing open, has left.
const LEFT_AFTER: Duration = Duration::from_secs(60);
/// How long after its last sighting an entry stays in memory.
const MEMORY_RETENTION: Duration = Duration::from_secs(3600);

/// One viewer at one process of an item. Times are in milliseconds since 1970, 0 for never.
#[derive(Default)]
pub struct Presence {
    last_seen: AtomicI64,
    /// When the viewer came.
    since: AtomicI64,
    /// Whether the database says that the viewer is there.
    is_recorded: AtomicBool,
    /// Open requests, event streams and WebSockets.
    open_count: AtomicUsize,
}

impl Presence {
    fn note_seen(&self, now: Timestamp) {
        let before = self.last_seen.swap(now.0, Ordering::Relaxed);
        if now.since(Timestamp(before)) >= LEFT_AFTER {
            self.since.store(now.0, Ordering::Relaxed);
        }
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

    /// Who came or left since the last call of [`Self::mark_recorded`]. Also drops entries that were
    /// not seen for an hour and that nothing refers to.
    fn changed_stays(&self, now: Timestamp) -> Vec<(Stay, Arc<Presence>)> {
        let mut changed = Vec::new();
        self.0.lock().retain(|(item, process, person), presence| {
            let is_open = presence.open_count.load(Ordering::Relaxed) > 0;
            if is_open {
                presence.note_seen(now);
            }
            let seen_at = Timestamp(presence.last_seen.load(Ordering::Relaxed));
            let is_here = is_open || now.since(seen_at) < LEFT_AFTER;
            if is_here != presence.is_recorded.load(Ordering::Relaxed) {
                let stay = Stay {
                    content: *item,
                    process: *process,
                    person: *person,
                    is_here,
                    since: Timestamp(presence.since.load(Ordering::Relaxed)),
                    seen_at,
                };
                changed.push((stay, Arc::clone(presence)));
            }
            now.since(seen_at) < MEMORY_RETENTION
                || Arc::strong_count(presence) > 1
                || presence.is_recorded.load(Ordering::Relaxed)
        });
        changed
    }

    /// Notes that these stays are in the database.
    fn mark_recorded(stays: &[(Stay, Arc<Presence>)]) {
        for (stay, presence) in stays {
            presence.is_recorded.store(stay.is_here, Ordering::Relaxed);
        }
    }
}

/// Who is at which content, as this node saw it.
pub struct PresenceBoard {
    core: Arc<Core>,
    nodes: Arc<Nodes>,
    presences: Arc<Presences>,
}

impl PresenceBoard {
    pub(in crate::service) fn new(core: Arc<Core>, nodes: Arc<Nodes>) -> Self {
        Self {
            core,
            nodes,
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

    /// Forgets what the other nodes knew: the next [`Self::share_presence`] writes who is there.
    pub fn forget_recorded(&self) {
        for presence in self.presences.0.lock().values() {
            presence.is_recorded.store(false, Ordering::Relaxed);
        }
    }

    /// Writes who came and who left to the database, for all nodes. Called every ten seconds and at
    /// a stop.
    pub async fn share_presence(&self) -> Result<(), Error> {
        let changed = self.presences.changed_stays(self.core.now());
        for part in changed.chunks(MAX_ROWS) {
            let stays: Vec<Stay> = part.iter().map(|(stay, _)| *stay).collect();
            let node = self.nodes.name();
            self.core
                .store
                .write_bookkeeping(move |db| {
                    Ok::<_, Error>(bookkeeping::record_stays(db, &node, &stays)?)
                })
                .await?;
            Presences::mark_recorded(part);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stay_is_written_when_it_begins_and_when_it_ends() {
        let presences = Presences::default();
        let (item, person, at) = (Id::random(), Id::random(), |seconds: i64| {
            Timestamp(seconds * 1000)
        });
        let presence = presences.of(item, ProcessId::ONLY, person);
        let written = |changed: Vec<(Stay, Arc<Presence>)>| {
            Presences::mark_recorded(&changed);
            changed
                .iter()
                .map(|(stay, _)| (stay.is_here, stay.since, stay.seen_at))
                .collect::<Vec<_>>()
        };
        assert!(presences.changed_stays(at(5000)).is_empty(), "never seen");
        presence.note_seen(at(10_000));
        assert_eq!(
            presences.changed_stays(at(10_001)).len(),
            1,
            "not written down"
        );
        assert_eq!(
            written(presences.changed_stays(at(10_002))),
            [(true, at(10_000), at(10_000))]
        );
        presence.note_seen(at(10_030));
        presence.open_count.fetch_add(1, Ordering::Relaxed);
        let here = PresenceGuard(Arc::clone(&presence));
        for later in [10_031, 10_085, 10_140, 10_195] {
            assert!(
                presences.changed_stays(at(later)).is_empty(),
                "an open tab costs no writes"
            );
        }
        drop(here);
        assert!(presences.changed_stays(at(10_200)).is_empty());
        assert_eq!(
            written(presences.changed_stays(at(10_300))),
            [(false, at(10_000), at(10_195))]
        );
        presence.note_seen(at(11_000));
        assert_eq!(
            written(presences.changed_stays(at(11_000))),
            [(true, at(11_000), at(11_000))],
            "came back"
        );
        drop(presence);
        assert_eq!(written(presences.changed_stays(at(20_000))).len(), 1);
        assert!(presences.changed_stays(at(20_001)).is_empty());
        assert!(presences.0.lock().is_empty(), "forgotten");
    }
}
