//! Where apps run: addresses taken apart, checked at each connection, with a pool for each worker;
//! session tokens kept for some minutes.

use super::client::Pool;
use crate::{
    domain::{
        Id, Timestamp,
        content::{Content, Mark},
        egress::{Policy, Purpose, Refused},
        person::{Person, Session},
    },
    service::Service,
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

/// How long a name's address, and the policy's word on it, may be used.
const TRUSTED_FOR: Duration = Duration::from_secs(10);
const LOOKED_UP_WITHIN: Duration = Duration::from_secs(5);
const SWEEP_EVERY: Duration = Duration::from_secs(15);
const MOST_TARGETS: usize = 10_000;

/// What to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// All that the policy allows of a name's addresses.
    Tcp(Vec<SocketAddr>),
    Unix(PathBuf),
}

/// Where an app runs: its address taken apart, resolved and found allowed.
pub struct Target {
    /// Scheme, host and port.
    pub origin: String,
    /// The path that stands before every path of the app, without a slash at its end.
    pub prefix: String,
    pub endpoint: Endpoint,
    /// The name that the app's certificate must be for, and whom it must lead to.
    pub tls: Option<(ServerName<'static>, Arc<ClientConfig>)>,
    pub pool: Rc<Pool>,
    /// As configured, to notice a change.
    ca: Option<String>,
    at: Instant,
}

/// What a worker needs to reach apps.
pub struct Upstreams {
    targets: Rc<RefCell<HashMap<String, Rc<Target>>>>,
    /// The mark of this portal in `Via`.
    via: HeaderValue,
    tls: Arc<ClientConfig>,
}

#[derive(Debug, thiserror::Error)]
pub enum NotReached {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("the name is not known")]
    Name,
}

fn trusting(roots: RootCertStore) -> Arc<ClientConfig> {
    Arc::new(
        ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth(),
    )
}

impl Upstreams {
    /// To be called in a worker. `portal`: our public address, by which we know requests that came
    /// through us already.
    pub fn new(portal: &str) -> Self {
        // RFC 9110 section 7.6.3: a pseudonym, the same for every node of one portal.
        let via = HeaderValue::try_from(format!("1.1 valetkey-{}", &digest(portal)[..8]))
            .unwrap_or(HeaderValue::from_static("1.1 valetkey"));
        let targets: Rc<RefCell<HashMap<String, Rc<Target>>>> = Rc::default();
        let swept = Rc::downgrade(&targets);
        // Ends with the worker.
        actix_web::rt::spawn(async move {
            while let Some(targets) = swept.upgrade() {
                targets
                    .borrow()
                    .values()
                    .for_each(|target| target.pool.sweep());
                drop(targets);
                tokio::time::sleep(SWEEP_EVERY).await;
            }
        });
        let public = RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        };
        Self {
            targets,
            via,
            tls: trusting(public),
        }
    }

    /// Our mark on requests to apps. One that comes back has gone in a circle.
    pub fn via(&self) -> &HeaderValue {
        &self.via
    }

    /// Where to connect for an app's address, after the policy looked at it. `ca`: instead of the
    /// public certificates.
    pub async fn target(
        &self,
        address: &str,
        ca: Option<&String>,
        policy: &Policy,
    ) -> Result<Rc<Target>, NotReached> {
        let known = self
            .targets
            .borrow()
            .get(address)
            .filter(|target| target.ca.as_ref() == ca)
            .map(Rc::clone);
        if let Some(target) = &known
            && target.at.elapsed() < TRUSTED_FOR
        {
            return Ok(Rc::clone(target));
        }
        let url = Url::parse(address).map_err(|_| Refused::NotAnAddress)?;
        let endpoint = resolve(&url, policy).await?;
        let tls = match (&known, url.scheme()) {
            (Some(known), _) => known.tls.clone(),
            (None, "https") => {
                let name = url.host_str().and_then(|host| {
                    ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).ok()
                });
                Some((name.ok_or(Refused::NotAnAddress)?, self.trust(ca)))
            }
            _ => None,
        };
        let is_socket = matches!(endpoint, Endpoint::Unix(_));
        let target = Rc::new(Target {
            // What rests goes on being used while it leads to the same place.
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
            at: Instant::now(),
        });
        let mut targets = self.targets.borrow_mut();
        if targets.len() >= MOST_TARGETS {
            targets.clear();
        }
        targets.insert(address.to_owned(), Rc::clone(&target));
        Ok(target)
    }

    fn trust(&self, ca: Option<&String>) -> Arc<ClientConfig> {
        let Some(text) = ca else {
            return Arc::clone(&self.tls);
        };
        let mut roots = RootCertStore::empty();
        // Checked when it was saved; what cannot be read leads to an empty store, which trusts
        // nobody.
        roots.add_parsable_certificates(
            CertificateDer::pem_slice_iter(text.as_bytes()).filter_map(Result::ok),
        );
        trusting(roots)
    }
}

/// What to connect to, after the policy looked at it.
pub async fn resolve(url: &Url, policy: &Policy) -> Result<Endpoint, NotReached> {
    policy.check(url, Purpose::Upstream)?;
    if url.scheme() == "unix" {
        return Ok(Endpoint::Unix(policy.socket(url)?));
    }
    let port = url.port_or_known_default().ok_or(Refused::NotAnAddress)?;
    let name = match url.host().ok_or(Refused::NotAnAddress)? {
        Host::Ipv4(ip) => return Ok(Endpoint::Tcp(vec![SocketAddr::new(IpAddr::V4(ip), port)])),
        Host::Ipv6(ip) => return Ok(Endpoint::Tcp(vec![SocketAddr::new(IpAddr::V6(ip), port)])),
        Host::Domain(name) => name,
    };
    let mut refused = None;
    let mut allowed = Vec::new();
    let found = tokio::time::timeout(LOOKED_UP_WITHIN, tokio::net::lookup_host((name, port)))
        .await
        .map_err(|_| NotReached::Name)?;
    for address in found.map_err(|_| NotReached::Name)? {
        match policy.check_ip(name, port, address.ip()) {
            Ok(()) => allowed.push(address),
            Err(why) => refused = Some(why),
        }
    }
    if allowed.is_empty() {
        Err(refused.map_or(NotReached::Name, NotReached::Refused))
    } else {
        Ok(Endpoint::Tcp(allowed))
    }
}

/// Session tokens by portal session, content and process, with the time of their making.
type Minted = HashMap<(Id<Session>, Id<Content>, Mark), (HeaderValue, Timestamp)>;

thread_local! {
    static TOKENS: RefCell<Minted> = RefCell::default();
}

/// A session token; minted anew after a twelfth of its life, so that each request carries one with
/// most of it left.
pub fn session_token(
    service: &Service,
    person: Id<Person>,
    content: Id<Content>,
    session: Id<Session>,
    process: Mark,
) -> Option<HeaderValue> {
    let fresh_for = service.settings.session_token_lifetime / 12;
    let now = service.now();
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
        let token =
            HeaderValue::try_from(service.session_token(person, content, session, process)?)
                .ok()?;
        tokens.insert((session, content, process), (token.clone(), now));
        Some(token)
    })
}
