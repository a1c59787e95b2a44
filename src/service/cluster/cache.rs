//! The rule by which any cache of decisions is valid: an entry holds the store's epoch and the time
//! at which it was loaded. The epoch is a number in the database that grows with every write that
//! can change a decision, by any process; each process reads it four times a second. So an ended
//! consent counts at once on its own node and within a quarter of a second on others, without a
//! query per request.
//!
//! Owns no entries: each part has its own [`DecisionCache`]. Refusals must not be served from a
//! cache: another node may have granted access a moment ago.

use crate::domain::Timestamp;
use quick_cache::sync::Cache;
use std::{hash::Hash, time::Duration};

/// Maximum age of an entry: browser sessions also expire by time, without a write.
const MAX_CACHE_AGE: Duration = Duration::from_secs(10);

/// A cached value, with the store's epoch and the time at which it was loaded.
#[derive(Clone)]
pub struct Cached<T> {
    value: T,
    epoch: u64,
    at: Timestamp,
}

impl<T: Clone> Cached<T> {
    /// `epoch` and `at` must have been read before the value was loaded.
    pub fn new(value: T, epoch: u64, at: Timestamp) -> Self {
        Self { value, epoch, at }
    }

    /// The value, if no process has made a deciding write since it was loaded and it is younger
    /// than ten seconds. `None` at epoch 0, which means unknown: see
    /// [`crate::store::Store::epoch`].
    pub fn fresh(&self, epoch: u64, now: Timestamp) -> Option<T> {
        let counts = epoch != 0
            && self.epoch == epoch
            && now >= self.at
            && now.since(self.at) < MAX_CACHE_AGE;
        counts.then(|| self.value.clone())
    }
}

/// A bounded cache of [`Cached`] values.
pub(in crate::service) struct DecisionCache<K, V>(Cache<K, Cached<V>>);

impl<K: Eq + Hash + Clone, V: Clone> DecisionCache<K, V> {
    /// Holds at most `capacity` entries.
    pub(in crate::service) fn new(capacity: usize) -> Self {
        Self(Cache::new(capacity))
    }

    /// See [`Cached::fresh`].
    pub(in crate::service) fn fresh<Q>(&self, key: &Q, epoch: u64, now: Timestamp) -> Option<V>
    where
        Q: Hash + quick_cache::Equivalent<K> + ?Sized,
    {
        self.0.get(key)?.fresh(epoch, now)
    }

    /// See [`Cached::new`].
    pub(in crate::service) fn insert(&self, key: K, value: V, epoch: u64, at: Timestamp) {
        self.0.insert(key, Cached::new(value, epoch, at));
    }

    /// Makes the next look-up load anew.
    pub(in crate::service) fn remove(&self, key: &K) {
        self.0.remove(key);
    }
}
