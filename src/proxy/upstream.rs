//! Connections to apps, one pool per worker; addresses checked at each connection; session tokens kept for some minutes.

use crate::{
    domain::{
        Id,
        content::Content,
        egress::{Policy, Purpose, Refused},
        person::{Person, Session},
    },
    service::Service,
};
use std::{
    cell::RefCell,
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};
use url::{Host, Url};

const CONNECT: Duration = Duration::from_secs(5);
/// Until the first byte of an answer: apps compute.
const FIRST_BYTE: Duration = Duration::from_secs(300);
const NAME_TRUSTED_FOR: Duration = Duration::from_secs(10);

/// What a worker needs to reach apps.
pub struct Upstreams {
    client: awc::Client,
    names: RefCell<HashMap<(String, u16), (SocketAddr, Instant)>>,
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
    pub fn new() -> Self {
        let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let tls = Arc::new(rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth());
        let connector = awc::Connector::new().limit(0).timeout(CONNECT).conn_keep_alive(Duration::from_secs(30));
        let client = awc::Client::builder().connector(connector).timeout(FIRST_BYTE).no_default_headers().disable_redirects().finish();
        Self { client, names: RefCell::default(), tls }
    }

    pub fn client(&self) -> &awc::Client {
        &self.client
    }

    /// The address to connect to, after the policy looked at it.
    pub async fn resolve(&self, target: &Url, policy: &Policy) -> Result<SocketAddr, NotReached> {
        policy.check(target, Purpose::Upstream)?;
        let port = target.port_or_known_default().ok_or(Refused::NotAnAddress)?;
        let name = match target.host().ok_or(Refused::NotAnAddress)? {
            Host::Ipv4(ip) => return Ok(SocketAddr::new(IpAddr::V4(ip), port)),
            Host::Ipv6(ip) => return Ok(SocketAddr::new(IpAddr::V6(ip), port)),
            Host::Domain(name) => name.to_owned(),
        };
        let key = (name, port);
        if let Some((address, at)) = self.names.borrow().get(&key)
            && at.elapsed() < NAME_TRUSTED_FOR
        {
            return Ok(*address);
        }
        let found: Vec<SocketAddr> = tokio::net::lookup_host((key.0.as_str(), port)).await.map_err(|_| NotReached::Name)?.collect();
        let mut refused = None;
        for address in found {
            match policy.check_ip(&key.0, port, address.ip()) {
                Ok(()) => {
                    self.names.borrow_mut().insert(key, (address, Instant::now()));
                    return Ok(address);
                }
                Err(why) => refused = Some(why),
            }
        }
        Err(refused.map_or(NotReached::Name, NotReached::Refused))
    }
}

impl Default for Upstreams {
    fn default() -> Self {
        Self::new()
    }
}

/// Session tokens by portal session and content, with the time of their making.
type Minted = HashMap<(Id<Session>, Id<Content>), (String, Instant)>;

thread_local! {
    static TOKENS: RefCell<Minted> = RefCell::default();
}

/// A session token; minted anew after a twelfth of its life, so that each request carries one with most of it left.
pub fn session_token(service: &Service, person: Id<Person>, content: Id<Content>, session: Id<Session>) -> Option<String> {
    let fresh_for = service.settings.session_token_lifetime / 12;
    TOKENS.with_borrow_mut(|tokens| {
        if let Some((token, at)) = tokens.get(&(session, content))
            && at.elapsed() < fresh_for
        {
            return Some(token.clone());
        }
        if tokens.len() > 10_000 {
            tokens.retain(|_, (_, at)| at.elapsed() < fresh_for);
        }
        let token = service.session_token(person, content, session)?;
        tokens.insert((session, content), (token.clone(), Instant::now()));
        Some(token)
    })
}
