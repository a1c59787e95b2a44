//! Addresses of apps: resolved, and checked against the egress policy. Only the addresses that the
//! policy allowed are connected to, so a DNS answer that changes between check and connection makes
//! no difference.

use crate::{
    dns::{Resolver, UnknownName},
    domain::egress::{EgressError, Policy, Purpose},
};
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};
use tokio::{
    net::{TcpStream, UnixStream},
    time::timeout,
};
use url::{Host, Url};

/// What to connect to, already allowed by the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// The addresses of the name that the policy allows; at least one.
    Tcp(Vec<SocketAddr>),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// Why an address cannot be used; nothing was connected to.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The policy refuses it, or it is not a valid address.
    #[error(transparent)]
    Refused(#[from] EgressError),
    /// The DNS lookup failed, timed out or found nothing.
    #[error(transparent)]
    Name(#[from] UnknownName),
}

/// Resolves a URL and checks it against the policy. Fails if none of its addresses is allowed.
pub async fn resolve(
    url: &Url,
    policy: &Policy,
    names: &Resolver,
) -> Result<Endpoint, ResolveError> {
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
    for address in names.lookup(name).await?.iter() {
        match policy.check_ip(name, port, *address) {
            Ok(()) => allowed.push(SocketAddr::new(*address, port)),
            Err(why) => refused = Some(why),
        }
    }
    if allowed.is_empty() {
        Err(refused.map_or(UnknownName.into(), ResolveError::Refused))
    } else {
        Ok(Endpoint::Tcp(allowed))
    }
}

/// Deadline of one health check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether a process accepts a TCP or Unix connection within `CHECK_TIMEOUT`. Nothing is sent.
pub async fn is_up(address: &str, policy: &Policy, names: &Resolver) -> bool {
    let check = async {
        let endpoint = resolve(&Url::parse(address).ok()?, policy, names)
            .await
            .ok()?;
        match endpoint {
            Endpoint::Tcp(sockets) => TcpStream::connect(sockets.as_slice()).await.map(drop).ok(),
            Endpoint::Unix(path) => UnixStream::connect(path).await.map(drop).ok(),
        }
    };
    timeout(CHECK_TIMEOUT, check).await.ok().flatten().is_some()
}
