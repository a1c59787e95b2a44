//! Looks host names up, for apps and for identity providers.
//!
//! The resolver is asynchronous: a DNS server that does not answer occupies no thread, and delays
//! only lookups of its own names. It reads the system's `resolv.conf` and `hosts` file; other
//! sources of the name service switch (`nsswitch.conf`) are not asked.
//!
//! One lookup per name at a time. An address that was found stays in use while it is looked up
//! again, and while that fails, for [`STALE_LIFE`]; so an outage of the DNS server does not take
//! apps away that were reachable. Decides nothing about an address: the egress policy does.

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use hickory_resolver::{TokioResolver, config::ResolverConfig, net::runtime::TokioRuntimeProvider};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::runtime::Handle;

/// Deadline of a lookup.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long found addresses are used without looking again.
const FRESH_LIFE: Duration = Duration::from_secs(10);
/// How long found addresses are used while a new lookup is pending or fails.
const STALE_LIFE: Duration = Duration::from_secs(3600);
/// How long a failed lookup is not repeated.
const FAILURE_LIFE: Duration = Duration::from_secs(3);
/// Names that are remembered; old ones are dropped beyond it.
const MAX_NAMES: usize = 10_000;

/// The name has no address, or could not be looked up in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name is not known")]
pub struct UnknownName;

type Lookup = Shared<BoxFuture<'static, Result<Arc<[IpAddr]>, UnknownName>>>;

/// What is known of one name.
#[derive(Default)]
struct Known {
    addresses: Option<(Arc<[IpAddr]>, Instant)>,
    failed_at: Option<Instant>,
    pending: Option<Lookup>,
}

/// Looks names up and remembers them. Cheap to clone.
#[derive(Clone)]
pub struct Resolver {
    inner: Option<Arc<TokioResolver>>,
    names: Arc<Mutex<HashMap<String, Known>>>,
    runtime: Handle,
}

impl Resolver {
    /// Reads the system's configuration. Must be called inside the runtime that lookups are to run
    /// on.
    pub fn new() -> Self {
        let builder = TokioResolver::builder_tokio().unwrap_or_else(|error| {
            tracing::warn!(%error, "the system's DNS configuration cannot be read: only the hosts file is used");
            let nowhere = ResolverConfig::default();
            TokioResolver::builder_with_config(nowhere, TokioRuntimeProvider::default())
        });
        let inner = builder.build().inspect_err(
            |error| tracing::error!(%error, "names cannot be looked up; addresses work"),
        );
        Self {
            inner: inner.ok().map(Arc::new),
            names: Arc::default(),
            runtime: Handle::current(),
        }
    }

    /// The addresses of a name. At once, if they are known; else after the lookup, which all
    /// callers share.
    pub async fn lookup(&self, name: &str) -> Result<Arc<[IpAddr]>, UnknownName> {
        let lookup = {
            let mut names = self.names.lock();
            if names.len() >= MAX_NAMES {
                names.retain(|_, known| known.pending.is_some());
            }
            let known = names.entry(name.to_owned()).or_default();
            let found = known.addresses.clone();
            if let Some((addresses, at)) = &found
                && at.elapsed() < FRESH_LIFE
            {
                return Ok(Arc::clone(addresses));
            }
            let failed = known
                .failed_at
                .is_some_and(|at| at.elapsed() < FAILURE_LIFE);
            let stale = found
                .filter(|(_, at)| at.elapsed() < STALE_LIFE)
                .map(|(addresses, _)| addresses);
            if failed {
                return stale.ok_or(UnknownName);
            }
            let lookup = match &known.pending {
                // A task that ended without a word, such as by a panic, is started again.
                Some(pending) if pending.peek().is_none() => pending.clone(),
                _ => {
                    let pending = self.start(name);
                    known.pending = Some(pending.clone());
                    pending
                }
            };
            if let Some(addresses) = stale {
                return Ok(addresses);
            }
            lookup
        };
        lookup.await
    }

    /// Starts a lookup in a task of its own: it goes on without its callers.
    fn start(&self, name: &str) -> Lookup {
        let (resolver, name) = (self.clone(), name.to_owned());
        let task = self.runtime.spawn(async move {
            let found = resolver.ask(&name).await;
            let mut names = resolver.names.lock();
            let known = names.entry(name).or_default();
            known.pending = None;
            match &found {
                Ok(addresses) => {
                    known.addresses = Some((Arc::clone(addresses), Instant::now()));
                    known.failed_at = None;
                }
                Err(UnknownName) => known.failed_at = Some(Instant::now()),
            }
            found
        });
        task.map(|ended| ended.unwrap_or(Err(UnknownName)))
            .boxed()
            .shared()
    }

    async fn ask(&self, name: &str) -> Result<Arc<[IpAddr]>, UnknownName> {
        let inner = self.inner.as_ref().ok_or(UnknownName)?;
        let asked = tokio::time::timeout(LOOKUP_TIMEOUT, inner.lookup_ip(name)).await;
        match asked {
            Ok(Ok(found)) => {
                let addresses: Arc<[IpAddr]> = found.iter().collect();
                if addresses.is_empty() {
                    Err(UnknownName)
                } else {
                    Ok(addresses)
                }
            }
            Ok(Err(error)) => {
                tracing::debug!(name, %error, "a name could not be looked up");
                Err(UnknownName)
            }
            Err(_) => {
                tracing::debug!(name, "a name was not looked up in time");
                Err(UnknownName)
            }
        }
    }
}

impl Default for Resolver {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_hosts_file_is_read_and_an_unknown_name_fails() {
        let resolver = Resolver::new();
        let found = resolver.lookup("localhost").await.unwrap();
        assert!(found.iter().all(IpAddr::is_loopback), "{found:?}");
        assert_eq!(
            resolver.lookup("no-such-name.invalid").await,
            Err(UnknownName)
        );
    }
    #[tokio::test]
    async fn a_known_address_is_used_while_the_name_is_looked_up_again() {
        let resolver = Resolver::new();
        let address: Arc<[IpAddr]> = ["192.0.2.1".parse().unwrap()].into_iter().collect();
        let past = Instant::now().checked_sub(FRESH_LIFE * 2);
        let known = Known {
            addresses: past.map(|past| (Arc::clone(&address), past)),
            ..Known::default()
        };
        let name = "gone.invalid";
        resolver.names.lock().insert(name.into(), known);
        for _ in 0..3 {
            assert_eq!(resolver.lookup(name).await.as_ref(), Ok(&address));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
