//! Who is at which content, at which of its processes: while a request, a stream or a socket of
//! theirs is open, and when last.

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

/// How often presence is written down while somebody stays.
const NOTED_EVERY: Duration = Duration::from_secs(60);
/// How long this node remembers who was there.
const KEPT: Duration = Duration::from_secs(3600);
/// So many are written down at once: others want to write, too.
const AT_ONCE: usize = 200;

/// One viewer at one process. Times are in milliseconds since 1970, 0 for never.
#[derive(Default)]
pub struct Presence {
    seen: AtomicI64,
    noted: AtomicI64,
    /// Requests, streams and sockets.
    open: AtomicUsize,
}

impl Presence {
    fn see(&self, now: Timestamp) {
        self.seen.store(now.0, Ordering::Relaxed);
    }
}

/// Somebody who is there, until this is dropped.
pub struct Here(Arc<Presence>);

impl Drop for Here {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

type Key = (Id<Content>, Mark, Id<Person>);

#[derive(Default)]
pub(super) struct Presences(Mutex<HashMap<Key, Arc<Presence>>>);

impl Presences {
    pub(super) fn of(&self, item: Id<Content>, process: Mark, person: Id<Person>) -> Arc<Presence> {
        Arc::clone(
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry((item, process, person))
                .or_default(),
        )
    }

    /// Who was seen where, and is not written down yet.
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

    /// Somebody comes to a process, and stays until what is returned is dropped.
    pub fn arrive(&self, admission: &Admission, process: Mark) -> Here {
        let presence = self.presence(admission, process);
        presence.see(self.now());
        presence.open.fetch_add(1, Ordering::Relaxed);
        Here(presence)
    }

    /// Somebody was there a moment ago.
    pub fn see(&self, admission: &Admission, process: Mark) {
        self.presence(admission, process).see(self.now());
    }

    /// Who was at an item lately, and when last.
    pub async fn stays(&self, item: Id<Content>) -> Result<Vec<Stay>, Error> {
        self.store.read(move |db| Ok(leaks::stays(db, item)?)).await
    }

    /// Writes down who is where, for all nodes.
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
    fn whoever_has_something_open_is_there_and_news_is_told_once_a_minute() {
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
