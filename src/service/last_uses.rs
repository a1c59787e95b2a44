//! Times of last use, collected in memory and written every few seconds as a few statements: a
//! request that uses a browser session or an API key writes nothing by itself.

use super::{core::Core, error::Error};
use crate::{
    domain::Timestamp,
    store::{self, Db, Store, bookkeeping::MAX_ROWS},
};
use parking_lot::Mutex;
use std::{collections::HashMap, hash::Hash, sync::Arc};

/// A function of [`store::bookkeeping`] that writes times of last use.
type WriteUses<K> = fn(&mut Db<'_>, &[(K, Timestamp)]) -> Result<(), store::Error>;

/// Times of last use that are not written yet.
pub(in crate::service) struct LastUses<K>(Mutex<HashMap<K, Timestamp>>);

impl<K> Default for LastUses<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Copy + Eq + Hash + Send + Sync + 'static> LastUses<K> {
    /// Notes a use.
    pub fn note(&self, key: K, at: Timestamp) {
        self.0.lock().insert(key, at);
    }

    /// The use that is not written yet.
    pub fn pending(&self, key: &K) -> Option<Timestamp> {
        self.0.lock().get(key).copied()
    }

    /// Writes the noted uses with `write`, one transaction for each [`MAX_ROWS`]. Those that cannot
    /// be written wait for the next call.
    pub async fn flush(self: &Arc<Self>, core: &Core, what: &'static str, write: WriteUses<K>) {
        let (uses, store) = (Arc::clone(self), core.store.clone());
        let writing = async move { uses.write(&store, what, write).await };
        if let Err(error) = core.run_to_end(writing).await {
            error.log(what);
        }
    }

    async fn write(&self, store: &Store, what: &'static str, write: WriteUses<K>) {
        let noted: Vec<(K, Timestamp)> = std::mem::take(&mut *self.0.lock()).into_iter().collect();
        for rows in noted.chunks(MAX_ROWS) {
            let written = rows.to_vec();
            let result = store
                .write_bookkeeping(move |db| Ok::<_, Error>(write(db, &written)?))
                .await;
            if let Err(error) = result {
                error.log(what);
                let mut pending = self.0.lock();
                for (key, at) in rows {
                    pending.entry(*key).or_insert(*at);
                }
            }
        }
    }
}
