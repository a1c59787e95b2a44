//! Connections to apps, one pool per worker; addresses checked at each connection; session tokens kept for some minutes.

use crate::{
    domain::{
        Id, Timestamp,
        content::Content,
        egress::{Policy, Purpose, Refused},
        person::{Person, Session},
    },
    service::Service,
    vault::api_key::digest,
};
use actix_web::http::{Uri, header::HeaderValue, uri};
use std::{
    cell::RefCell,
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};
use url::{Host, Url};

const CONNECT: Duration = Duration::from_secs(5);
/// Until the first byte of an answer: apps compute.
const FIRST_BYTE: Duration = Duration::from_secs(300);
/// How long a name's address, and the policy's word on it, may be used.
const TRUSTED_FOR: Duration = Duration::from_secs(10);
const MOST_TARGETS: usize = 10_000;

/// Where an app runs: its address taken apart, resolved and found allowed.
pub struct Target {
    pub url: Url,
    /// Scheme, host and port.
    pub origin: String,
    /// The path that stands before every path of the app, without a slash at its end.
    pub prefix: String,
    pub socket: SocketAddr,
    scheme: uri::Scheme,
    authority: uri::Authority,
    at: Instant,
}

impl Target {
    /// The address of a path of the app; `rest` and `query` as the browser sent them, still encoded.
    pub fn uri(&self, rest: &str, query: Option<&str>) -> Option<Uri> {
        let mut path = String::with_capacity(self.prefix.len() + rest.len() + query.map_or(0, str::len) + 2);
        path.push_str(&self.prefix);
        path.push('/');
        path.push_str(rest);
        if let Some(query) = query {
            path.push('?');
            path.push_str(query);
        }
        let path = uri::PathAndQuery::from_maybe_shared(path).ok()?;
        Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone()).path_and_query(path).build().ok()
    }
}

/// What a worker needs to reach apps.
pub struct Upstreams {
    client: awc::Client,
    targets: RefCell<HashMap<String, Rc<Target>>>,
    via: HeaderValue,
    pub(super) tls: Arc<rustls::ClientConfig>,
}

#[derive(Debug, thiserror::Error)]
pub enum NotReached {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("the name is not known")]
    Name,
}

impl Upstreams {
    /// `portal`: our public address, by which we know requests that came through us already.
    pub fn new(portal: &str) -> Self {
        let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let tls = Arc::new(rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth());
        let connector = awc::Connector::new().limit(0).timeout(CONNECT).conn_keep_alive(Duration::from_secs(30));
        let client = awc::Client::builder().connector(connector).timeout(FIRST_BYTE).no_default_headers().disable_redirects().finish();
        // RFC 9110 section 7.6.3: a pseudonym, the same for every node of one portal.
        let via =
            HeaderValue::try_from(format!("1.1 valetkey-{}", &digest(portal)[..8])).unwrap_or(HeaderValue::from_static("1.1 valetkey"));
        Self { client, targets: RefCell::default(), via, tls }
    }

    /// Our mark on requests to apps. One that comes back has gone in a circle.
    pub fn via(&self) -> &HeaderValue {
        &self.via
    }

    pub fn client(&self) -> &awc::Client {
        &self.client
    }

    /// Where to connect for an app's address, after the policy looked at it.
    pub async fn target(&self, address: &str, policy: &Policy) -> Result<Rc<Target>, NotReached> {
        if let Some(target) = self.targets.borrow().get(address)
            && target.at.elapsed() < TRUSTED_FOR
        {
            return Ok(Rc::clone(target));
        }
        let url = Url::parse(address).map_err(|_| Refused::NotAnAddress)?;
        let socket = resolve(&url, policy).await?;
        let authority = url.authority().parse().map_err(|_| Refused::NotAnAddress)?;
        let scheme = url.scheme().parse().map_err(|_| Refused::NotAnAddress)?;
        let target = Rc::new(Target {
            origin: url.origin().ascii_serialization(),
            prefix: url.path().trim_end_matches('/').to_owned(),
            socket,
            scheme,
            authority,
            url,
            at: Instant::now(),
        });
        let mut targets = self.targets.borrow_mut();
        if targets.len() >= MOST_TARGETS {
            targets.clear();
        }
        targets.insert(address.to_owned(), Rc::clone(&target));
        Ok(target)
    }
}

/// The address to connect to, after the policy looked at it.
async fn resolve(url: &Url, policy: &Policy) -> Result<SocketAddr, NotReached> {
    policy.check(url, Purpose::Upstream)?;
    let port = url.port_or_known_default().ok_or(Refused::NotAnAddress)?;
    let name = match url.host().ok_or(Refused::NotAnAddress)? {
        Host::Ipv4(ip) => return Ok(SocketAddr::new(IpAddr::V4(ip), port)),
        Host::Ipv6(ip) => return Ok(SocketAddr::new(IpAddr::V6(ip), port)),
        Host::Domain(name) => name,
    };
    let mut refused = None;
    for address in tokio::net::lookup_host((name, port)).await.map_err(|_| NotReached::Name)? {
        match policy.check_ip(name, port, address.ip()) {
            Ok(()) => return Ok(address),
            Err(why) => refused = Some(why),
        }
    }
    Err(refused.map_or(NotReached::Name, NotReached::Refused))
}

/// Session tokens by portal session and content, with the time of their making.
type Minted = HashMap<(Id<Session>, Id<Content>), (HeaderValue, Timestamp)>;

thread_local! {
    static TOKENS: RefCell<Minted> = RefCell::default();
}

/// A session token; minted anew after a twelfth of its life, so that each request carries one with most of it left.
pub fn session_token(service: &Service, person: Id<Person>, content: Id<Content>, session: Id<Session>) -> Option<HeaderValue> {
    let fresh_for = service.settings.session_token_lifetime / 12;
    let now = service.now();
    let fresh = |at: &Timestamp| now >= *at && now.since(*at) < fresh_for;
    TOKENS.with_borrow_mut(|tokens| {
        if let Some((token, at)) = tokens.get(&(session, content))
            && fresh(at)
        {
            return Some(token.clone());
        }
        if tokens.len() > 10_000 {
            tokens.retain(|_, (_, at)| fresh(at));
        }
        let token = HeaderValue::try_from(service.session_token(person, content, session)?).ok()?;
        tokens.insert((session, content), (token.clone(), now));
        Some(token)
    })
}
