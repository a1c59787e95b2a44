//! Looks host names up, for apps and for identity providers.
//!
//! The resolver is asynchronous: a DNS server that does not answer occupies no thread, and delays
//! only lookups of its own names. A name that the system's `hosts` file lists has exactly the
//! addresses there; all others are asked of the servers in `resolv.conf`. Both files are read again
//! when they change. Other sources of the name service switch (`nsswitch.conf`) are not asked.
//!
//! One lookup per name at a time. If it takes longer than [`STALE_WAIT`], or fails, the last address
//! that was found is used, for [`STALE_LIFE`]: an outage of the DNS server does not take apps away
//! that were reachable. The answer that there is no such name ends that at once. Decides nothing
//! about an address: the egress policy does.

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Either, Shared, select},
};
use hickory_resolver::{
    Hosts, TokioResolver,
    config::{ResolveHosts, ResolverConfig},
    lookup::Lookup as Records,
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::Query,
        rr::{Name, RecordType},
    },
};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tokio::{runtime::Handle, time::timeout};

/// Deadline of a lookup.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Deadline of one question to one server.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an answer of the one address family waits for the other.
const FAMILY_WAIT: Duration = Duration::from_millis(300);
/// How long a lookup is waited for where an older address is known.
const STALE_WAIT: Duration = Duration::from_millis(500);
/// How often the system's files are looked at for changes.
const CHECK_FILES_EVERY: Duration = Duration::from_secs(5);
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

/// Why a lookup found nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// The DNS says that there is no such name, or no address of it.
    NoSuchName,
    /// No answer, or none that can be used.
    NoAnswer,
}

type Addresses = Arc<[IpAddr]>;
type Lookup = Shared<BoxFuture<'static, Result<Addresses, Failure>>>;

/// What is known of one name.
#[derive(Default)]
struct Known {
    addresses: Option<(Addresses, Instant)>,
    failed_at: Option<Instant>,
    pending: Option<Lookup>,
}

/// The system's two files, as they were read.
struct System {
    hosts: Hosts,
    /// `None` if no server is known.
    dns: Option<TokioResolver>,
    /// When the files were last written.
    written_at: [Option<SystemTime>; 2],
}

impl System {
    const FILES: [&str; 2] = ["/etc/hosts", "/etc/resolv.conf"];

    fn written_at() -> [Option<SystemTime>; 2] {
        Self::FILES.map(|file| {
            Path::new(file)
                .metadata()
                .and_then(|data| data.modified())
                .ok()
        })
    }

    fn read() -> Self {
        let written_at = Self::written_at();
        let mut builder = TokioResolver::builder_tokio().unwrap_or_else(|error| {
            tracing::warn!(%error, "the system's DNS configuration cannot be read: only the hosts file is used");
            let nowhere = ResolverConfig::default();
            TokioResolver::builder_with_config(nowhere, TokioRuntimeProvider::default())
        });
        let options = builder.options_mut();
        // Asked here, before the DNS.
        options.use_hosts_file = ResolveHosts::Never;
        options.timeout = QUERY_TIMEOUT;
        // This module remembers names by its own rules.
        options.negative_max_ttl = Some(FAILURE_LIFE);
        options.positive_max_ttl = Some(FRESH_LIFE);
        let dns = builder.build().inspect_err(
            |error| tracing::error!(%error, "names cannot be looked up; addresses work"),
        );
        Self {
            hosts: Hosts::from_system().unwrap_or_default(),
            dns: dns.ok(),
            written_at,
        }
    }

    /// The addresses in the hosts file; empty if it does not list the name.
    fn listed(&self, name: &str) -> Vec<IpAddr> {
        let Ok(name) = Name::from_utf8(name) else {
            return Vec::new();
        };
        [RecordType::A, RecordType::AAAA]
            .into_iter()
            .filter_map(|kind| {
                self.hosts
                    .lookup_static_host(&Query::query(name.clone(), kind))
            })
            .flat_map(|records| addresses_of(&records))
            .collect()
    }

    async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, Failure> {
        let listed = self.listed(name);
        if !listed.is_empty() {
            return Ok(listed);
        }
        let dns = self.dns.as_ref().ok_or(Failure::NoAnswer)?;
        // IPv4 and IPv6 at the same time. A server that drops one kind of question must not hide
        // the answer to the other.
        let (four, six) = (
            Box::pin(dns.ipv4_lookup(name)),
            Box::pin(dns.ipv6_lookup(name)),
        );
        let (four, six) = match select(four, six).await {
            Either::Left((four, six)) => {
                let wait = family_wait(&four);
                (Some(four), timeout(wait, six).await.ok())
            }
            Either::Right((six, four)) => {
                let wait = family_wait(&six);
                (timeout(wait, four).await.ok(), Some(six))
            }
        };
        let answers = [four, six];
        let found: Vec<IpAddr> = answers
            .iter()
            .flatten()
            .flatten()
            .flat_map(addresses_of)
            .collect();
        if !found.is_empty() {
            return Ok(found);
        }
        let is_nothing = |answer: &Option<Result<Records, NetError>>| match answer {
            Some(Ok(_)) => true,
            Some(Err(error)) => {
                tracing::debug!(name, %error, "a name could not be looked up");
                error.is_no_records_found()
            }
            None => false,
        };
        // Both questions must be answered: one alone says nothing about the other.
        if answers.iter().all(is_nothing) {
            Err(Failure::NoSuchName)
        } else {
            Err(Failure::NoAnswer)
        }
    }
}

fn addresses_of(records: &Records) -> Vec<IpAddr> {
    let answers = records.answers().iter();
    answers.filter_map(|record| record.data.ip_addr()).collect()
}

/// How long to wait for the other address family after this answer.
fn family_wait(answer: &Result<Records, NetError>) -> Duration {
    match answer {
        Ok(records) if !addresses_of(records).is_empty() => FAMILY_WAIT,
        _ => LOOKUP_TIMEOUT,
    }
}

/// Looks names up and remembers them. Cheap to clone.
#[derive(Clone)]
pub struct Resolver {
    /// The system's files, and when they were last looked at.
    system: Arc<Mutex<(Arc<System>, Instant)>>,
    names: Arc<Mutex<HashMap<String, Known>>>,
    runtime: Handle,
}

impl Resolver {
    /// Reads the system's configuration. Must be called inside the runtime that lookups are to run
    /// on.
    pub fn new() -> Self {
        Self {
            system: Arc::new(Mutex::new((Arc::new(System::read()), Instant::now()))),
            names: Arc::default(),
            runtime: Handle::current(),
        }
    }

    /// The system's files, read again if they changed.
    fn system(&self) -> Arc<System> {
        let mut known = self.system.lock();
        if known.1.elapsed() >= CHECK_FILES_EVERY {
            if known.0.written_at != System::written_at() {
                known.0 = Arc::new(System::read());
            }
            known.1 = Instant::now();
        }
        Arc::clone(&known.0)
    }

    /// The addresses of a name. At once, if they were found within the last seconds; else after a
    /// lookup, which all callers share.
    pub async fn lookup(&self, name: &str) -> Result<Addresses, UnknownName> {
        let (lookup, stale) = {
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
            (lookup, stale)
        };
        let Some(stale) = stale else {
            return lookup.await.map_err(|_| UnknownName);
        };
        match timeout(STALE_WAIT, lookup).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(Failure::NoSuchName)) => Err(UnknownName),
            Ok(Err(Failure::NoAnswer)) | Err(_) => Ok(stale),
        }
    }

    /// Starts a lookup in a task of its own: it goes on without its callers.
    fn start(&self, name: &str) -> Lookup {
        let (resolver, name) = (self.clone(), name.to_owned());
        let task = self.runtime.spawn(async move {
            let system = resolver.system();
            let found = timeout(LOOKUP_TIMEOUT, system.lookup(&name)).await;
            let found = found.unwrap_or(Err(Failure::NoAnswer)).map(Addresses::from);
            let mut names = resolver.names.lock();
            let known = names.entry(name).or_default();
            known.pending = None;
            known.failed_at = found.is_err().then(Instant::now);
            match &found {
                Ok(addresses) => known.addresses = Some((Arc::clone(addresses), Instant::now())),
                Err(Failure::NoSuchName) => known.addresses = None,
                Err(Failure::NoAnswer) => {}
            }
            found
        });
        task.map(|ended| ended.unwrap_or(Err(Failure::NoAnswer)))
            .boxed()
            .shared()
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
    use hickory_resolver::config::{ConnectionConfig, NameServerConfig};
    use tokio::net::UdpSocket;

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

    /// A resolver that asks this socket, and knows an address of `name` from a while ago.
    fn resolver(server: &UdpSocket, name: &str, address: &Addresses) -> Resolver {
        let place = server.local_addr().unwrap();
        let mut connection = ConnectionConfig::udp();
        connection.port = place.port();
        let mut server = NameServerConfig::udp(place.ip());
        server.connections = vec![connection];
        let config = ResolverConfig::from_parts(None, vec![], vec![server]);
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let system = System {
            hosts: Hosts::default(),
            dns: builder.build().ok(),
            written_at: System::written_at(),
        };
        let resolver = Resolver {
            system: Arc::new(Mutex::new((Arc::new(system), Instant::now()))),
            ..Resolver::new()
        };
        let past = Instant::now().checked_sub(FRESH_LIFE * 2);
        let known = Known {
            addresses: past.map(|past| (Arc::clone(address), past)),
            ..Known::default()
        };
        resolver.names.lock().insert(name.into(), known);
        resolver
    }

    #[tokio::test]
    async fn a_known_address_is_used_while_the_server_does_not_answer() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address: Addresses = ["192.0.2.1".parse().unwrap()].into();
        let resolver = resolver(&server, "app.example", &address);
        for _ in 0..2 {
            let found = timeout(Duration::from_secs(3), resolver.lookup("app.example")).await;
            assert_eq!(found.unwrap().as_ref(), Ok(&address));
        }
    }

    #[tokio::test]
    async fn a_name_that_is_gone_loses_its_address_at_once() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address: Addresses = ["192.0.2.1".parse().unwrap()].into();
        let resolver = resolver(&server, "app.example", &address);
        let answering = tokio::spawn(async move {
            let mut packet = [0; 512];
            loop {
                let (length, from) = server.recv_from(&mut packet).await.unwrap();
                // QR, RD and RA; NXDOMAIN.
                (packet[2], packet[3]) = (0x81, 0x83);
                server.send_to(&packet[..length], from).await.unwrap();
            }
        });
        assert_eq!(resolver.lookup("app.example").await, Err(UnknownName));
        answering.abort();
    }
}
