//! The node: this process among those that share a database. Owns its name, its heartbeat, the lock
//! on its data directory, and the rules for leases, which let one process at a time do a piece of
//! work.
//!
//! A lease is abandoned once **this** process's monotonic clock has seen it unrenewed for its whole
//! lifetime: wall clocks of machines differ and jump. Its `until` is for people to read. A lease
//! held by an earlier process of the same node is abandoned at once: the lock on the node's file
//! proves that that process is gone.
//!
//! The lock proves it only for this file. A copied data directory (a cloned machine, a copied
//! volume) has the same identity in another file. So the file also holds a fingerprint of the
//! machine's boot and of the file itself; where it differs, the node takes a new identity. After a
//! restart of the machine, too: then leases of its earlier life are abandoned as those of any other
//! node that is gone. (Looking whether the original still sends heartbeats would not do: a copy that
//! starts at the same time, or whose clock differs, would not see them.)

use crate::{
    domain::{Id, Timestamp},
    service::{core::Core, error::Error},
    store::{
        leases::{self, Lease},
        short_lived::{self, Node as Seen},
    },
    vault::{api_key::digest, spool::Spool},
};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    fs::File,
    path::Path,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

/// Interval of the heartbeat; [`crate::jobs`] keeps it.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);
/// A node without a heartbeat for this long counts as gone.
pub(in crate::service) const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(35);
/// Watched leases beyond which old entries are dropped.
const MAX_WATCHED_LEASES: usize = 10_000;

/// Whether a server is running on this data directory: it holds the lock on the file `node`. The
/// error is a sentence for the operator.
pub fn is_served(folder: &Path) -> Result<bool, String> {
    let path = folder.join("node");
    if !path.exists() {
        return Ok(false);
    }
    let file =
        File::open(&path).map_err(|error| format!("cannot use {}: {error}", path.display()))?;
    Ok(file.try_lock().is_err())
}

/// The identity in a data directory, without claiming it; `None` before its first server.
pub fn identity(folder: &Path) -> Option<String> {
    let text = std::fs::read_to_string(folder.join("node")).ok()?;
    let id = text.lines().next()?.trim();
    (!id.is_empty()).then(|| id.to_owned())
}

/// The state of this process as a node.
pub(in crate::service) struct Node {
    /// Random, new at each start.
    boot_id: String,
    claimed: OnceLock<Claimed>,
    /// Leases of other processes, by name: owner and beat as last seen, and since when they are
    /// unchanged.
    watched: Mutex<HashMap<String, (String, i64, Instant)>>,
}

/// The result of claiming a data directory.
#[derive(Debug, PartialEq, Eq)]
enum Claim {
    Ours,
    /// Another process of this machine serves from the directory.
    Served,
}

/// A value that differs for a copy of the node's file, and after a restart of the machine.
fn fingerprint(file: &File) -> String {
    #[cfg(unix)]
    let place = file.metadata().map_or_else(
        |_| String::new(),
        |data| {
            use std::os::unix::fs::MetadataExt as _;
            format!("{}:{}", data.dev(), data.ino())
        },
    );
    #[cfg(not(unix))]
    let place = String::new();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    digest(&format!("{place}\n{boot}"))
}

/// The node of a data directory, held by one process at a time.
struct Claimed {
    id: String,
    _lock: File,
    spool: Option<Spool>,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            boot_id: Id::<Node>::random().to_string(),
            claimed: OnceLock::new(),
            watched: Mutex::default(),
        }
    }
}

impl Node {
    /// The name of this process in leases: `<node id>/<boot id>`, or `-/<boot id>` without a node.
    pub(in crate::service) fn name(&self) -> String {
        match self.claimed.get() {
            Some(claimed) => format!("{}/{}", claimed.id, self.boot_id),
            None => format!("-/{}", self.boot_id),
        }
    }

    /// The spool of this node; `None` if the node is not claimed or the spool cannot be opened.
    pub(in crate::service) fn spool(&self) -> Option<&Spool> {
        self.claimed.get()?.spool.as_ref()
    }

    /// Makes this process the node of the data directory. Opens the spool.
    fn claim(&self, folder: &Path) -> Result<Claim, String> {
        let path = folder.join("node");
        let explain = |error: std::io::Error| format!("cannot use {}: {error}", path.display());
        let mut options = File::options();
        options.create(true).read(true).append(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut lock = options.open(&path).map_err(explain)?;
        if lock.try_lock().is_err() {
            return Ok(Claim::Served);
        }
        use std::io::{Read as _, Write as _};
        let mut text = String::new();
        lock.read_to_string(&mut text).map_err(explain)?;
        let mut lines = text.lines().map(str::trim);
        let known = lines.next().filter(|id| !id.is_empty()).map(str::to_owned);
        let (same_file, here) = (lines.next().map(str::to_owned), fingerprint(&lock));
        let id = match known {
            Some(id) if same_file.as_ref() == Some(&here) => id,
            Some(earlier) => {
                tracing::warn!(
                    identity = earlier,
                    "the machine was restarted, or this data directory is a copy of another node's: this node takes a new identity"
                );
                Id::<Node>::random().to_string()
            }
            None => Id::<Node>::random().to_string(),
        };
        lock.set_len(0)
            .and_then(|()| lock.write_all(format!("{id}\n{here}\n").as_bytes()))
            .and_then(|()| lock.sync_all())
            .map_err(explain)?;
        let spool = match Spool::open(&folder.join("spool")) {
            Ok(spool) => Some(spool),
            Err(error) => {
                tracing::warn!(%error, "no room is kept for tokens that the database would not take");
                None
            }
        };
        drop(self.claimed.set(Claimed {
            id,
            _lock: lock,
            spool,
        }));
        Ok(Claim::Ours)
    }

    /// Whether the holder of a lease is gone. Call it repeatedly: the first call only starts the
    /// clock.
    pub(in crate::service) fn is_abandoned(&self, lease: &Lease, life: Duration) -> bool {
        let (node, boot) = lease.node.split_once('/').unwrap_or(("", ""));
        // This process asks only about leases that it does not hold at the moment, and an earlier
        // process of this node is gone.
        let ours = self.claimed.get().is_some_and(|claimed| claimed.id == node);
        if ours || boot == self.boot_id {
            return true;
        }
        let mut seen = self.watched.lock();
        if seen.len() > MAX_WATCHED_LEASES {
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

/// This node, and what it knows of the others.
pub struct Nodes {
    core: Arc<Core>,
    node: Node,
}

impl Nodes {
    pub(in crate::service) fn new(core: Arc<Core>) -> Self {
        Self {
            core,
            node: Node::default(),
        }
    }

    /// See [`Node::name`].
    pub(in crate::service) fn name(&self) -> String {
        self.node.name()
    }

    /// See [`Node::spool`].
    pub fn spool(&self) -> Option<&Spool> {
        self.node.spool()
    }

    /// See [`Node::is_abandoned`].
    pub(in crate::service) fn is_abandoned(&self, lease: &Lease, life: Duration) -> bool {
        self.node.is_abandoned(lease, life)
    }

    /// Makes this process the node of its data directory. Logs a warning if another process has the
    /// directory; the error is a sentence for the operator.
    pub fn claim_node(&self) -> Result<(), String> {
        if self.node.claim(&self.core.settings.data_dir)? == Claim::Served {
            tracing::warn!(
                "another process serves from the same data directory: after a crash its refreshes are taken up later"
            );
        }
        Ok(())
    }

    /// Writes this node's heartbeat, with its version and the ids of its keys. `true` if it is the
    /// first, or the other nodes have forgotten this one: then they know nothing of what it shared.
    pub async fn write_heartbeat(&self) -> Result<bool, Error> {
        let node = Seen {
            node: self.node.name(),
            version: env!("CARGO_PKG_VERSION").into(),
            keys: self.core.vault.keyring().ids().map(str::to_owned).collect(),
            seen_at: self.core.now(),
        };
        self.core
            .store
            .write(move |db| Ok::<_, Error>(short_lived::record_heartbeat(db, &node)?))
            .await
    }

    /// Deletes this node's heartbeat at a stop, so that it counts as gone at once.
    pub async fn delete_heartbeat(&self) {
        let name = self.node.name();
        let gone = self
            .core
            .store
            .write(move |db| Ok::<_, Error>(short_lived::delete_node(db, &name)?))
            .await;
        if let Err(error) = gone {
            tracing::debug!(reason = %error, "could not say goodbye");
        }
    }

    /// The nodes with a current heartbeat.
    pub async fn nodes(&self) -> Result<Vec<Seen>, Error> {
        let since = self.core.now().minus(HEARTBEAT_TIMEOUT);
        self.core
            .store
            .read(move |db| Ok(short_lived::nodes(db, since)?))
            .await
    }

    /// Whether this process is the leader for `work`: takes the lease if it is free or abandoned,
    /// and renews it if it is held here. Call it again within `life`. `false` if the database
    /// fails.
    pub async fn try_lead(&self, work: &'static str, life: Duration) -> bool {
        let (node, now) = (self.node.name(), self.core.now());
        let led = async {
            let found = self
                .core
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
            self.core
                .store
                .write(move |db| match (ours, found.clone()) {
                    (true, Some(lease)) => {
                        Ok(leases::renew(db, work, &lease.owner, now.plus(life))?)
                    }
                    (_, found) => Ok::<_, Error>(leases::acquire(db, &lease, found.as_ref())?),
                })
                .await
        };
        led.await.unwrap_or(false)
    }

    /// A lease with a new random owner. `until` is informative only.
    pub(in crate::service) fn new_lease(
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
            taken_at: self.core.now().0,
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
    fn a_lease_is_abandoned_only_after_its_lifetime_without_renewal() {
        let node = Node::default();
        let life = Duration::from_millis(300);
        assert!(!node.is_abandoned(&lease("a/b", 1), life));
        std::thread::sleep(life);
        let renewed = Instant::now();
        assert!(
            !node.is_abandoned(&lease("a/b", 2), life),
            "it was renewed meanwhile"
        );
        std::thread::sleep(life / 3);
        let is_abandoned = node.is_abandoned(&lease("a/b", 2), life);
        // On a busy machine its life may be over by now.
        assert!(!is_abandoned || renewed.elapsed() >= life);
        std::thread::sleep(life);
        assert!(node.is_abandoned(&lease("a/b", 2), life));
    }
    #[test]
    fn a_lease_of_an_earlier_process_of_this_node_is_abandoned() {
        let folder = std::env::temp_dir().join(format!("valetkey-node-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&folder).unwrap();
        let (first, second) = (Node::default(), Node::default());
        assert_eq!(first.claim(&folder).unwrap(), Claim::Ours);
        let second_claim = second.claim(&folder).unwrap();
        assert_eq!(second_claim, Claim::Served, "one process at a time");
        let name = first.name();
        drop(first);
        assert_eq!(second.claim(&folder).unwrap(), Claim::Ours);
        assert!(second.is_abandoned(&lease(&name, 1), Duration::from_secs(60)));
        assert!(!second.is_abandoned(&lease("another/life", 1), Duration::from_secs(60)));
        // A copy of the folder is not taken for the node itself.
        let copy = folder.join("copy");
        std::fs::create_dir_all(&copy).unwrap();
        std::fs::copy(folder.join("node"), copy.join("node")).unwrap();
        let third = Node::default();
        assert_eq!(third.claim(&copy).unwrap(), Claim::Ours);
        assert_ne!(third.name().split('/').next(), name.split('/').next());
        assert!(!third.is_abandoned(&lease(&name, 1), Duration::from_secs(60)));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
