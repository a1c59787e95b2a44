//! Upstream addresses of apps: parsed, resolved, and checked against the egress policy, each with a
//! connection pool; one set per worker.
//!
//! Only the addresses that the policy allowed are connected to, so a DNS answer that changes
//! between check and connection makes no difference. Also caches the session tokens that requests
//! carry.

use crate::{
    domain::{
        Id, Timestamp,
        content::{Content, ProcessId},
        egress::{EgressError, Policy, Purpose},
        person::{Person, Session},
    },
    proxy::client::Pool,
    service::Services,
    vault::api_key::digest,
};
use actix_web::http::header::HeaderValue;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use std::{
    cell::RefCell,
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};
use url::{Host, Url};

/// How long a resolved address, and the policy's decision on it, are cached.
const RESOLVE_TTL: Duration = Duration::from_secs(10);
/// Deadline of a DNS lookup.
const DNS_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause between two sweeps of the pools for dead connections.
const SWEEP_INTERVAL: Duration = Duration::from_secs(15);
/// The cache is emptied when it holds so many targets.
const MAX_TARGETS: usize = 10_000;

/// What to connect to, already allowed by the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// The addresses of the name that the policy allows; at least one.
    Tcp(Vec<SocketAddr>),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// One process's URL: parsed, resolved and allowed by the policy.
pub struct Target {
    /// Scheme, host and port.
    pub origin: String,
    /// The URL's path, prepended to every request path; no slash at its end.
    pub prefix: String,
    /// Where to connect.
    pub endpoint: Endpoint,
    /// For https: the name that the app's certificate must be for, and the accepted root
    /// certificates.
    pub tls: Option<(ServerName<'static>, Arc<ClientConfig>)>,
    /// Idle connections to this endpoint; kept when the name resolves to the same addresses again.
    pub pool: Rc<Pool>,
    /// The item's certificates (PEM) that `tls` was built from, to notice a change.
    ca: Option<String>,
    /// When it was resolved.
    resolved_at: Instant,
}

/// One worker's cache of targets.
pub struct Upstreams {
    /// By URL.
    targets: Rc<RefCell<HashMap<String, Rc<Target>>>>,
    /// This portal's entry in `Via`.
    via: HeaderValue,
    tls: Arc<ClientConfig>,
}

/// Why an address cannot be used; nothing was connected to.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The policy refuses it, or it is not a valid address.
    #[error(transparent)]
    Refused(#[from] EgressError),
    /// The DNS lookup failed, timed out or found nothing.
    #[error("the name is not known")]
    Name,
}

/// A TLS client configuration that accepts certificates of these roots.
fn client_config(roots: RootCertStore) -> Arc<ClientConfig> {
    Arc::new(
        ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth(),
    )
}

impl Upstreams {
    /// Must be called in a worker, since it spawns a local task. `portal` is the portal's public
    /// URL, from which its `Via` entry is derived.
    pub fn new(portal: &str) -> Self {
        // A pseudonym (RFC 9110 section 7.6.3), the same for every node of one portal.
        let via = HeaderValue::try_from(format!("1.1 valetkey-{}", &digest(portal)[..8]))
            .unwrap_or(HeaderValue::from_static("1.1 valetkey"));
        let targets: Rc<RefCell<HashMap<String, Rc<Target>>>> = Rc::default();
        let swept = Rc::downgrade(&targets);
        // Ends when the worker drops `targets`.
        actix_web::rt::spawn(async move {
            while let Some(targets) = swept.upgrade() {
                targets
                    .borrow()
                    .values()
                    .for_each(|target| target.pool.sweep());
                drop(targets);
                tokio::time::sleep(SWEEP_INTERVAL).await;
            }
        });
        let public = RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        };
        Self {
            targets,
            via,
            tls: client_config(public),
        }
    }

    /// The portal's `Via` entry on requests to apps. A request that arrives with it is a loop.
    pub fn via(&self) -> &HeaderValue {
        &self.via
    }

    /// The target of a process's URL, from the cache or resolved and checked anew. `ca`: root
    /// certificates (PEM) to accept instead of the public ones.
    pub async fn target(
        &self,
        address: &str,
        ca: Option<&String>,
        policy: &Policy,
    ) -> Result<Rc<Target>, ResolveError> {
        let known = self
            .targets
            .borrow()
            .get(address)
            .filter(|target| target.ca.as_ref() == ca)
            .map(Rc::clone);
        if let Some(target) = &known
            && target.resolved_at.elapsed() < RESOLVE_TTL
        {
            return Ok(Rc::clone(target));
        }
        let url = Url::parse(address).map_err(|_| EgressError::NotAnAddress)?;
        let endpoint = resolve(&url, policy).await?;
        let tls = match (&known, url.scheme()) {
            (Some(known), _) => known.tls.clone(),
            (None, "https") => {
                let name = url.host_str().and_then(|host| {
                    ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).ok()
                });
                Some((name.ok_or(EgressError::NotAnAddress)?, self.tls_config(ca)))
            }
            _ => None,
        };
        let is_socket = matches!(endpoint, Endpoint::Unix(_));
        let target = Rc::new(Target {
            // Idle connections stay in use while the addresses are the same.
            pool: known
                .filter(|known| known.endpoint == endpoint)
                .map_or_else(Rc::default, |known| Rc::clone(&known.pool)),
            origin: url.origin().ascii_serialization(),
            prefix: if is_socket {
                String::new()
            } else {
                url.path().trim_end_matches('/').to_owned()
            },
            endpoint,
            tls,
            ca: ca.cloned(),
            resolved_at: Instant::now(),
        });
        let mut targets = self.targets.borrow_mut();
        if targets.len() >= MAX_TARGETS {
            targets.clear();
        }
        targets.insert(address.to_owned(), Rc::clone(&target));
        Ok(target)
    }

    /// The TLS configuration for an item's own roots, or for the public ones.
    fn tls_config(&self, ca: Option<&String>) -> Arc<ClientConfig> {
        let Some(text) = ca else {
            return Arc::clone(&self.tls);
        };
        let mut roots = RootCertStore::empty();
        // The PEM was checked when it was saved. If it cannot be read, the store stays empty and
        // accepts no certificate.
        roots.add_parsable_certificates(
            CertificateDer::pem_slice_iter(text.as_bytes()).filter_map(Result::ok),
        );
        client_config(roots)
    }
}

/// Resolves a URL and checks it against the policy. Fails if none of its addresses is allowed.
pub async fn resolve(url: &Url, policy: &Policy) -> Result<Endpoint, ResolveError> {
    policy.check(url, Purpose::Upstream)?;
    if url.scheme() == "unix" {
        return Ok(Endpoint::Unix(policy.socket(url)?));
    }
    let port = url
        .port_or_known_default()
        .ok_or(EgressError::NotAnAddress)?;
    let name = match url.host().ok_or(EgressError::NotAnAddress)? {
        Host::Ipv4(ip) => return Ok(Endpoint::Tcp(vec![SocketAddr::new(IpAddr::V4(ip), port)])),
        Host::Ipv6(ip) => return Ok(Endpoint::Tcp(vec![SocketAddr::new(IpAddr::V6(ip), port)])),
        Host::Domain(name) => name,
    };
    let mut refused = None;
    let mut allowed = Vec::new();
    let found = tokio::time::timeout(DNS_TIMEOUT, tokio::net::lookup_host((name, port)))
        .await
        .map_err(|_| ResolveError::Name)?;
    for address in found.map_err(|_| ResolveError::Name)? {
        match policy.check_ip(name, port, address.ip()) {
            Ok(()) => allowed.push(address),
            Err(why) => refused = Some(why),
        }
    }
    if allowed.is_empty() {
        Err(refused.map_or(ResolveError::Name, ResolveError::Refused))
    } else {
        Ok(Endpoint::Tcp(allowed))
    }
}

/// Session tokens by browser session, item and process, with the time at which each was minted.
type TokenCache = HashMap<(Id<Session>, Id<Content>, ProcessId), (HeaderValue, Timestamp)>;

thread_local! {
    static TOKENS: RefCell<TokenCache> = RefCell::default();
}

/// The session token for a request, cached per worker. It is minted anew after a twelfth of its
/// lifetime, so that each request carries one that is valid for most of it. It names the process
/// that gets it, so that the leak alarm knows which process of an item used it. `None` if no token
/// can be minted.
pub fn session_token(
    service: &Services,
    person: Id<Person>,
    content: Id<Content>,
    session: Id<Session>,
    process: ProcessId,
) -> Option<HeaderValue> {
    let fresh_for = service.core.settings.session_token_lifetime / 12;
    let now = service.core.now();
    let fresh = |at: &Timestamp| now >= *at && now.since(*at) < fresh_for;
    TOKENS.with_borrow_mut(|tokens| {
        if let Some((token, at)) = tokens.get(&(session, content, process))
            && fresh(at)
        {
            return Some(token.clone());
        }
        if tokens.len() > 10_000 {
            tokens.retain(|_, (_, at)| fresh(at));
        }
        let token = HeaderValue::try_from(
            service
                .session_tokens
                .session_token(person, content, session, process)?,
        )
        .ok()?;
        tokens.insert((session, content, process), (token.clone(), now));
        Some(token)
    })
}
