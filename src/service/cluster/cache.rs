//! Caches of decisions. An entry names the subjects that it depends on and is valid while none of
//! them changed since it was loaded (`store::changes`): an ended consent counts at once on its own
//! node and within a fraction of a second on others, without a query per request, and the activity
//! of one person leaves the entries of others alone.
//!
//! Owns no entries: each part has its own [`DecisionCache`]. Refusals must not be served from a
//! cache: another node may have granted access a moment ago.

use crate::{
    domain::Timestamp,
    store::{
        Store,
        changes::{Slot, Subject, Tick},
    },
};
use quick_cache::sync::Cache;
use std::{hash::Hash, sync::Arc, time::Duration};

/// Maximum age of an entry. What expires by time, without a write, may be used for this much longer
/// ([`DecisionCache::with_max_age`]).
const MAX_CACHE_AGE: Duration = Duration::from_secs(150);

/// The moment before a value is loaded. Take it before the first query.
#[derive(Clone, Copy)]
pub struct LoadStart {
    tick: Tick,
    at: Timestamp,
}

impl LoadStart {
    /// `now` is the clock's time.
    pub fn new(store: &Store, now: Timestamp) -> Self {
        Self {
            tick: store.changes().now(),
            at: now,
        }
    }
}

/// What a value depends on, and when it was loaded. Cheap to clone.
#[derive(Clone)]
pub struct Validity {
    start: LoadStart,
    slots: Arc<[Slot]>,
}

impl Validity {
    /// `subjects`: everything that the value depends on.
    pub fn new(start: LoadStart, subjects: impl IntoIterator<Item = Subject>) -> Self {
        Self {
            start,
            slots: subjects.into_iter().map(Subject::slot).collect(),
        }
    }

    /// Whether nothing that the value depends on has changed, however old the value is.
    pub fn is_unchanged(&self, store: &Store) -> bool {
        let log = store.changes();
        log.is_valid(self.start.tick, log.now(), &self.slots)
    }

    /// Whether the value may be used: unchanged, and younger than `max_age`.
    fn is_fresh(&self, store: &Store, now: LoadStart, max_age: Duration) -> bool {
        now.at >= self.start.at
            && now.at.since(self.start.at) < max_age
            && store
                .changes()
                .is_valid(self.start.tick, now.tick, &self.slots)
    }
}

/// A bounded cache of decisions.
pub struct DecisionCache<K, V> {
    entries: Cache<K, (V, Validity)>,
    max_age: Duration,
}

impl<K: Eq + Hash + Clone, V: Clone> DecisionCache<K, V> {
    /// Holds at most `capacity` entries.
    pub fn new(capacity: usize) -> Self {
        Self::with_max_age(capacity, MAX_CACHE_AGE)
    }

    /// Like [`Self::new`], for values that expire by time: none is used when it is older than
    /// `max_age`, or 150 s.
    pub fn with_max_age(capacity: usize, max_age: Duration) -> Self {
        Self {
            entries: Cache::new(capacity),
            max_age: max_age.min(MAX_CACHE_AGE),
        }
    }

    /// The value, if it is valid at `now`; else the caller loads it.
    pub fn fresh<Q>(&self, key: &Q, store: &Store, now: LoadStart) -> Option<V>
    where
        Q: Hash + quick_cache::Equivalent<K> + ?Sized,
    {
        let (value, validity) = self.entries.get(key)?;
        validity.is_fresh(store, now, self.max_age).then_some(value)
    }

    /// Keeps a value that was loaded after the start of `validity`.
    pub fn insert(&self, key: K, value: V, validity: Validity) {
        self.entries.insert(key, (value, validity));
    }

    /// Makes the next look-up load anew.
    pub(in crate::service) fn remove(&self, key: &K) {
        self.entries.remove(key);
    }
}
