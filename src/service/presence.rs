//! Presence: which viewers have a request, event stream or WebSocket open at which process of which
//! item, and when each was last seen. The leak alarm compares it with token uses.
//!
//! Kept in memory and written to the database for all nodes, at most once a minute per viewer and
//! process.

use super::{Error, Service, admission::Admission};
use crate::{
    domain::{
        Id, Timestamp,
        content::{Content, Mark},
        leak::Stay,
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
const NOTED_EVERY: Duration = Duration::from_secs(60);
/// How long after its last sighting an entry stays in memory.
const KEPT: Duration = Duration::from_secs(3600);
/// Rows per transaction: others need the database's only writer, too.
const AT_ONCE: usize = 200;

/// One viewer at one process of an item. Times are in milliseconds since 1970, 0 for never.
#[derive(Default)]
pub struct Presence {
    seen: AtomicI64,
    /// The value of `seen` that was last written to the database.
    noted: AtomicI64,
    /// Open requests, event streams and WebSockets.
    open: AtomicUsize,
}

impl Presence {
    fn see(&self, now: Timestamp) {
        self.seen.store(now.0, Ordering::Relaxed);
    }
}

/// Guard of one open request, stream or WebSocket: the viewer is present until it is dropped.
pub struct Here(Arc<Presence>);

impl Drop for Here {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

type Key = (Id<Content>, Mark, Id<Person>);

/// The presences that this node has seen.
#[derive(Default)]
pub(super) struct Presences(Mutex<HashMap<Key, Arc<Presence>>>);

impl Presences {
    /// The presence of a person at a process; made if there is none.
    pub(super) fn of(&self, item: Id<Content>, process: Mark, person: Id<Person>) -> Arc<Presence> {
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
    fn news(&self, now: Timestamp) -> Vec<(Id<Content>, Stay, Arc<Presence>)> {
        let mut news = Vec::new();
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|(item, process, person), presence| {
                if presence.open.load(Ordering::Relaxed) > 0 {
                    presence.see(now);
                }
                let (seen, noted) = (
                    presence.seen.load(Ordering::Relaxed),
                    presence.noted.load(Ordering::Relaxed),
                );
                if seen > 0 && Timestamp(seen).since(Timestamp(noted)) >= NOTED_EVERY {
                    let stay = Stay {
                        person: *person,
                        process: *process,
                        seen_at: Timestamp(seen),
                    };
                    news.push((*item, stay, Arc::clone(presence)));
                }
                now.since(Timestamp(seen)) < KEPT || Arc::strong_count(presence) > 1
            });
        news
    }
}

impl Service {
    fn presence(&self, admission: &Admission, process: Mark) -> Arc<Presence> {
        if process.is_only() {
            Arc::clone(&admission.presence)
        } else {
            self.presences
                .of(admission.content.id, process, admission.person.id)
        }
    }

    /// Registers that the person has something open at a process, until the guard is dropped.
    pub fn arrive(&self, admission: &Admission, process: Mark) -> Here {
        let presence = self.presence(admission, process);
        presence.see(self.now());
        presence.open.fetch_add(1, Ordering::Relaxed);
        Here(presence)
    }

    /// Records that the person was seen at a process just now.
    pub fn see(&self, admission: &Admission, process: Mark) {
        self.presence(admission, process).see(self.now());
    }

    /// The recorded visits to an item, with the time of the last sighting.
    pub async fn stays(&self, item: Id<Content>) -> Result<Vec<Stay>, Error> {
        self.store.read(move |db| Ok(leaks::stays(db, item)?)).await
    }

    /// Writes sightings to the database, for all nodes. Called every ten seconds and at a stop.
    pub async fn share_presence(&self) -> Result<(), Error> {
        for part in self.presences.news(self.now()).chunks(AT_ONCE) {
            let seen: Vec<_> = part.iter().map(|(item, stay, _)| (*item, *stay)).collect();
            self.store
                .note(move |db| {
                    seen.into_iter().try_for_each(|(item, stay)| {
                        Ok::<_, Error>(leaks::note_seen(db, item, stay)?)
                    })
                })
                .await?;
            for (_, stay, presence) in part {
                presence.noted.store(stay.seen_at.0, Ordering::Relaxed);
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
        let presence = presences.of(item, Mark::ONLY, person);
        let written = |news: Vec<(Id<Content>, Stay, Arc<Presence>)>| {
            news.iter().for_each(|(_, stay, presence)| {
                presence.noted.store(stay.seen_at.0, Ordering::Relaxed)
            });
            news.iter()
                .map(|(_, stay, _)| stay.seen_at)
                .collect::<Vec<_>>()
        };
        assert!(presences.news(at(5000)).is_empty(), "never seen");
        presence.see(at(10_000));
        assert_eq!(presences.news(at(10_001)).len(), 1, "not written down");
        assert_eq!(written(presences.news(at(10_002))), [at(10_000)]);
        presence.see(at(10_030));
        assert!(presences.news(at(10_031)).is_empty(), "not a minute later");
        presence.open.fetch_add(1, Ordering::Relaxed);
        let here = Here(Arc::clone(&presence));
        assert_eq!(
            written(presences.news(at(10_200))),
            [at(10_200)],
            "a long request"
        );
        drop((here, presence));
        assert!(presences.news(at(20_000)).is_empty());
        assert!(presences.0.lock().unwrap().is_empty(), "forgotten");
    }
}
