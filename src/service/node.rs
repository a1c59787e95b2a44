//! This process among those that work on the same database: its name, and the leases by which one
//! of them does what only one may do at a time.
//!
//! A lease is abandoned when it was seen to stand still for its whole life by **this** process's
//! steady clock: clocks of machines differ and jump. A lease of this very node's earlier life is
//! known to be dead at once: the node's file is locked.

use super::{Error, Service};
use crate::{
    domain::{Id, Timestamp},
    store::{
        leases::{self, Lease},
        moments::{self, Node as Seen},
    },
    vault::spool::Spool,
};
use std::{
    collections::HashMap,
    fs::File,
    path::Path,
    sync::{Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

/// A node says that it is there this often; [`crate::jobs`] keeps the time.
pub const ALIVE_EVERY: Duration = Duration::from_secs(10);
/// A node not heard of for so long is gone.
const GONE_AFTER: Duration = Duration::from_secs(35);
const MOST_SEEN: usize = 10_000;

/// Whether a server works on this data directory now: it holds the lock of the directory's node.
pub fn is_served(folder: &Path) -> Result<bool, String> {
    let path = folder.join("node");
    if !path.exists() {
        return Ok(false);
    }
    let file =
        File::open(&path).map_err(|error| format!("cannot use {}: {error}", path.display()))?;
    Ok(file.try_lock().is_err())
}

/// This process.
pub(super) struct Node {
    /// Random, for each start.
    boot: String,
    claimed: OnceLock<Claimed>,
    /// Leases of others: owner and beat, and since when they stand still.
    seen: Mutex<HashMap<String, (String, i64, Instant)>>,
}

/// The node of a data directory: one process at a time has it.
struct Claimed {
    id: String,
    _lock: File,
    spool: Option<Spool>,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            boot: Id::<Node>::random().to_string(),
            claimed: OnceLock::new(),
            seen: Mutex::default(),
        }
    }
}

impl Node {
    /// The name of this process in leases: its node, and its life.
    pub(super) fn name(&self) -> String {
        match self.claimed.get() {
            Some(claimed) => format!("{}/{}", claimed.id, self.boot),
            None => format!("-/{}", self.boot),
        }
    }

    pub(super) fn spool(&self) -> Option<&Spool> {
        self.claimed.get()?.spool.as_ref()
    }

    /// Takes the data directory's node for this process; `false` if another process has it.
    fn claim(&self, folder: &Path) -> Result<bool, String> {
        let path = folder.join("node");
        let explain = |error: std::io::Error| format!("cannot use {}: {error}", path.display());
        let mut options = File::options();
        options.create(true).read(true).append(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut lock = options.open(&path).map_err(explain)?;
        if lock.try_lock().is_err() {
            return Ok(false);
        }
        use std::io::{Read as _, Write as _};
        let mut id = String::new();
        lock.read_to_string(&mut id).map_err(explain)?;
        if id.trim().is_empty() {
            id = Id::<Node>::random().to_string();
            lock.write_all(id.as_bytes())
                .and_then(|()| lock.sync_all())
                .map_err(explain)?;
        }
        let spool = match Spool::open(&folder.join("spool")) {
            Ok(spool) => Some(spool),
            Err(error) => {
                tracing::warn!(%error, "no room is kept for tokens that the database would not take");
                None
            }
        };
        drop(self.claimed.set(Claimed {
            id: id.trim().to_owned(),
            _lock: lock,
            spool,
        }));
        Ok(true)
    }

    /// Whether nobody stands behind this lease any more. Look again and again: the first look only
    /// starts the clock.
    pub(super) fn is_abandoned(&self, lease: &Lease, life: Duration) -> bool {
        let (node, boot) = lease.node.split_once('/').unwrap_or(("", ""));
        // This process asks only when it does not hold the lease itself; an earlier life of this
        // node is over.
        let ours = self.claimed.get().is_some_and(|claimed| claimed.id == node);
        if ours || boot == self.boot {
            return true;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() > MOST_SEEN {
            seen.retain(|_, (_, _, since)| since.elapsed() < Duration::from_secs(600));
        }
        match seen.get(&lease.name) {
            Some((owner, beat, since)) if *owner == lease.owner && *beat == lease.beat => {
                since.elapsed() > life
            }
            _ => {
                seen.insert(
                    lease.name.clone(),
                    (lease.owner.clone(), lease.beat, Instant::now()),
                );
                false
            }
        }
    }
}

impl Service {
    /// Makes this process the node of its data directory.
    pub fn claim_node(&self) -> Result<(), String> {
        if !self.node.claim(&self.settings.data_dir)? {
            tracing::warn!(
                "another process serves from the same data directory: after a crash its refreshes are taken up later"
            );
        }
        Ok(())
    }

    /// Says that this node is there, and with which keys.
    pub async fn say_alive(&self) -> Result<(), Error> {
        let node = Seen {
            node: self.node.name(),
            version: env!("CARGO_PKG_VERSION").into(),
            keys: self.vault.keyring().ids().map(str::to_owned).collect(),
            seen_at: self.now(),
        };
        self.store
            .note(move |db| Ok::<_, Error>(moments::put_node(db, &node)?))
            .await
    }

    /// Says goodbye, so that nobody waits for this node.
    pub async fn say_goodbye(&self) {
        let name = self.node.name();
        let gone = self
            .store
            .note(move |db| Ok::<_, Error>(moments::delete_node(db, &name)?))
            .await;
        if gone.is_err() {
            tracing::debug!("could not say goodbye");
        }
    }

    /// The nodes that serve now.
    pub async fn nodes(&self) -> Result<Vec<Seen>, Error> {
        let since = self.now().minus(GONE_AFTER);
        self.store
            .read(move |db| Ok(moments::nodes(db, since)?))
            .await
    }

    /// Whether this process leads in this work now: takes the lease if nobody has it, and keeps it
    /// by asking again within its life.
    pub async fn leads(&self, work: &'static str, life: Duration) -> bool {
        let (node, now) = (self.node.name(), self.now());
        let led = async {
            let found = self
                .store
                .read(move |db| Ok::<_, Error>(leases::find(db, work)?))
                .await?;
            let ours = found.as_ref().is_some_and(|lease| lease.node == node);
            if let Some(lease) = found.as_ref().filter(|_| !ours)
                && !self.node.is_abandoned(lease, life)
            {
                return Ok(false);
            }
            let lease = self.new_lease(work.to_owned(), node.clone(), 0, now.plus(life));
            self.store
                .note(move |db| match (ours, found) {
                    (true, Some(lease)) => {
                        Ok(leases::renew(db, work, &lease.owner, now.plus(life))?)
                    }
                    (_, found) => Ok::<_, Error>(leases::take(db, &lease, found.as_ref())?),
                })
                .await
        };
        led.await.unwrap_or(false)
    }

    pub(super) fn new_lease(
        &self,
        name: String,
        node: String,
        generation: i64,
        until: Timestamp,
    ) -> Lease {
        Lease {
            name,
            owner: Id::<Lease>::random().to_string(),
            node,
            generation,
            beat: 0,
            taken_at: self.now().0,
            until: until.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(node: &str, beat: i64) -> Lease {
        Lease {
            name: "x".into(),
            owner: "o".into(),
            node: node.into(),
            generation: 1,
            beat,
            taken_at: 0,
            until: 0,
        }
    }

    #[test]
    fn a_lease_is_abandoned_only_after_it_stood_still_for_its_life() {
        let node = Node::default();
        let life = Duration::from_millis(30);
        assert!(!node.is_abandoned(&lease("a/b", 1), life));
        std::thread::sleep(Duration::from_millis(20));
        assert!(
            !node.is_abandoned(&lease("a/b", 2), life),
            "it was renewed meanwhile"
        );
        std::thread::sleep(Duration::from_millis(20));
        assert!(!node.is_abandoned(&lease("a/b", 2), life));
        std::thread::sleep(Duration::from_millis(20));
        assert!(node.is_abandoned(&lease("a/b", 2), life));
    }
    #[test]
    fn an_earlier_life_of_this_node_is_over() {
        let folder = std::env::temp_dir().join(format!("valetkey-node-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&folder).unwrap();
        let (first, second) = (Node::default(), Node::default());
        assert!(first.claim(&folder).unwrap());
        assert!(!second.claim(&folder).unwrap(), "one process at a time");
        let name = first.name();
        drop(first);
        assert!(second.claim(&folder).unwrap());
        assert!(second.is_abandoned(&lease(&name, 1), Duration::from_secs(60)));
        assert!(!second.is_abandoned(&lease("another/life", 1), Duration::from_secs(60)));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
