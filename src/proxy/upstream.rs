//! Upstream addresses of apps, resolved and allowed, each with a connection pool; one set per
//! worker.

use crate::{
    dns::Resolver,
    domain::egress::{EgressError, Policy},
    http::endpoint::{Endpoint, ResolveError, resolve},
    proxy::pool::Pool,
    service::running::files::Files,
    trust,
    vault::api_key::digest,
};
use actix_web::http::header::HeaderValue;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};
use url::Url;

/// How long a resolved address, and the policy's decision on it, are cached.
const RESOLVE_TTL: Duration = Duration::from_secs(10);

/// Pause between two sweeps of the pools for dead connections.
const SWEEP_INTERVAL: Duration = Duration::from_secs(15);
/// The cache is emptied when it holds so many targets.
const MAX_TARGETS: usize = 10_000;

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
    /// Where deployed content is.
    files: Files,
    /// This portal's entry in `Via`.
    via: HeaderValue,
    tls: Arc<ClientConfig>,
}

impl Upstreams {
    /// Must be called in a worker, since it spawns a local task. `portal` is the portal's public
    /// URL, from which its `Via` entry is derived. `tls`: for apps without certificates of their own.
    pub fn new(portal: &str, files: Files, tls: Arc<ClientConfig>) -> Self {
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
        Self {
            targets,
            files,
            via,
            tls,
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
        names: &Resolver,
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
        let endpoint = match self.files.socket_of(address) {
            Some(socket) => Endpoint::Unix(socket),
            None => resolve(&url, policy, names).await?,
        };
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
        // The PEM was checked when it was saved. If it cannot be read, no certificate is accepted.
        let roots = trust::authorities(text.as_bytes()).unwrap_or_else(RootCertStore::empty);
        Arc::new(trust::client_config(Arc::new(roots)))
    }
}
