//! Addresses of apps: resolved, and checked against the egress policy. Only the addresses that the
//! policy allowed are connected to, so a DNS answer that changes between check and connection makes
//! no difference.

use crate::{
    dns::{Resolver, UnknownName},
    domain::egress::{EgressError, Policy, Purpose},
};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};
use tokio::{
    net::{TcpStream, UnixStream},
    time::{sleep, timeout},
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

/// How long one address is tried alone, before the next one is tried beside it (RFC 8305 section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Opens a TCP connection to the first address that accepts one ("Happy Eyeballs", RFC 8305). The
/// families take turns, so that an app with two addresses of which one does not answer is reached
/// after [`ATTEMPT_DELAY`]. The caller limits the time. The error is that of the last address.
pub async fn connect(sockets: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut left = in_turns(sockets).into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut last_error = io::ErrorKind::AddrNotAvailable.into();
    let mut next = left.next();
    loop {
        if let Some(socket) = next {
            attempts.push(TcpStream::connect(socket));
        } else if attempts.is_empty() {
            return Err(last_error);
        }
        next = tokio::select! {
            biased;
            Some(outcome) = attempts.next() => match outcome {
                Ok(stream) => return Ok(stream),
                Err(error) => {
                    last_error = error;
                    left.next()
                }
            },
            () = sleep(ATTEMPT_DELAY) => left.next(),
        };
    }
}

/// The addresses with their families in turn, that of the first one first.
fn in_turns(sockets: &[SocketAddr]) -> Vec<SocketAddr> {
    let prefers_ipv6 = sockets.first().is_some_and(SocketAddr::is_ipv6);
    let (first, others): (Vec<_>, Vec<_>) = sockets
        .iter()
        .copied()
        .partition(|socket| socket.is_ipv6() == prefers_ipv6);
    let longest = first.len().max(others.len());
    (0..longest)
        .flat_map(|turn| [first.get(turn).copied(), others.get(turn).copied()])
        .flatten()
        .collect()
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
            Endpoint::Tcp(sockets) => connect(&sockets).await.map(drop).ok(),
            Endpoint::Unix(path) => UnixStream::connect(path).await.map(drop).ok(),
        }
    };
    timeout(CHECK_TIMEOUT, check).await.ok().flatten().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn an_address_that_refuses_or_hangs_does_not_hide_the_others() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        let refusing = {
            let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
            gone.local_addr().unwrap()
        };
        assert!(connect(&[refusing, good]).await.is_ok());
        assert!(connect(&[refusing]).await.is_err());
        assert!(connect(&[]).await.is_err());
        // A listener whose queue is full answers no further SYN.
        let full = tokio::net::TcpSocket::new_v6().unwrap();
        full.bind("[::1]:0".parse().unwrap()).unwrap();
        let full = full.listen(0).unwrap();
        let hanging = full.local_addr().unwrap();
        let filling: Vec<_> = (0..3).map(|_| TcpStream::connect(hanging)).collect();
        let filling = filling.into_iter().map(|one| timeout(ATTEMPT_DELAY, one));
        let _held = futures_util::future::join_all(filling).await;
        let started = Instant::now();
        assert!(connect(&[hanging, hanging, good]).await.is_ok());
        assert!(started.elapsed() < ATTEMPT_DELAY * 4, "{started:?}");
    }
}
