//! The portal's end of a process's uplink: the one socket through which an app in its sandbox
//! reaches anything outside. The first byte of a connection says what it is for.
//!
//! - [`CONTROL`]: the portal sends the process's variables, then the connection stays open while the
//!   process may run. The variables are sent and not inherited, so that none of them (`LD_PRELOAD`)
//!   acts on a program outside the sandbox.
//! - [`PORTAL`]: the bytes go to the portal's own address, whatever the app asks for in them.
//! - [`EGRESS`]: an HTTP proxy (`CONNECT`, RFC 9110 section 9.3.6, and absolute-form requests to
//!   plain http). Each address is checked against the egress policy, after name resolution, as for
//!   providers: private networks, the portal itself and metadata services are not reached. An app
//!   cannot go around it, since its sandbox has no other network.

use crate::{
    dns::Resolver,
    domain::egress::Policy,
    http::endpoint::{Endpoint, ResolveError, connect, resolve},
};
use secrecy::{ExposeSecret as _, SecretString};
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpStream, UnixListener, UnixStream},
    sync::{Semaphore, watch},
};
use url::Url;
use zeroize::Zeroizing;

/// First byte of the connection for control.
pub const CONTROL: u8 = b'C';
/// First byte of a connection to the portal.
pub const PORTAL: u8 = b'P';
/// First byte of a connection to the outside.
pub const EGRESS: u8 = b'E';

/// What the first program in a sandbox says when the app listens.
pub const LISTENS: u8 = b'L';

/// Connections that one process may have open to the outside and to the portal.
const MAX_CONNECTIONS: usize = 256;
/// Largest head of a request to the proxy, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a connection to the outside may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Where a process may connect to.
#[derive(Clone)]
pub struct Reach {
    /// The portal's own addresses.
    pub portal: Portal,
    /// `None`: the process reaches nothing but the portal.
    pub outside: Option<(Arc<Policy>, Resolver)>,
}

/// How the portal is reached from its own machine.
#[derive(Clone, Debug)]
pub enum Portal {
    /// By its listener.
    Listener(SocketAddr),
    /// By its public host and port, where something else terminates TLS.
    Public(String, u16),
}

/// What the first program in a sandbox gets by the connection for control.
pub struct Control {
    /// The app's variables.
    pub variables: Vec<(String, SecretString)>,
    /// Set once the app listens on its port.
    pub listens: watch::Sender<bool>,
    /// True ends the connection, which tells the process to end.
    pub stop: watch::Receiver<bool>,
}

impl Control {
    /// Sends the variables, then waits until the process is to end.
    async fn hold(&self, app: &mut UnixStream) -> io::Result<()> {
        let pairs: Vec<(&str, &str)> = self
            .variables
            .iter()
            .map(|(name, value)| (name.as_str(), value.expose_secret()))
            .collect();
        let text = Zeroizing::new(serde_json::to_vec(&pairs)?);
        app.write_u32(u32::try_from(text.len()).unwrap_or(0))
            .await?;
        app.write_all(&text).await?;
        let mut stop = self.stop.clone();
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
            said = app.read_u8() => {
                if said? == LISTENS {
                    self.listens.send_replace(true);
                }
            }
        }
        drop(stop.wait_for(|stop| *stop).await);
        Ok(())
    }
}

/// Serves the uplink of one process until it is dropped.
pub async fn serve(listener: UnixListener, reach: Reach, control: Control) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let control = Arc::new(control);
    loop {
        let Ok((app, _)) = listener.accept().await else {
            // No descriptor is left, for a moment.
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            continue;
        };
        let (reach, control) = (reach.clone(), Arc::clone(&control));
        tokio::spawn(async move {
            let _permit = permit;
            let mut app = app;
            let kind = tokio::time::timeout(CONNECT_TIMEOUT, app.read_u8()).await;
            match kind {
                Ok(Ok(CONTROL)) => drop(control.hold(&mut app).await),
                Ok(Ok(PORTAL)) => to_portal(app, &reach).await,
                Ok(Ok(EGRESS)) => to_outside(app, &reach).await,
                _ => {}
            }
        });
    }
}

async fn to_portal(mut app: UnixStream, reach: &Reach) {
    let connected = match &reach.portal {
        Portal::Listener(address) => TcpStream::connect(address).await,
        Portal::Public(host, port) => TcpStream::connect((host.as_str(), *port)).await,
    };
    match connected {
        Ok(mut portal) => {
            drop(portal.set_nodelay(true));
            drop(copy_bidirectional(&mut app, &mut portal).await);
        }
        Err(error) => tracing::warn!(%error, "an app cannot be connected to the portal"),
    }
}

/// Answers a request to the proxy with an error that the app's HTTP library shows.
async fn refuse(app: &mut UnixStream, status: &str, sentence: &str) {
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{sentence}",
        sentence.len()
    );
    drop(app.write_all(answer.as_bytes()).await);
    drop(app.shutdown().await);
}

async fn to_outside(mut app: UnixStream, reach: &Reach) {
    let head = tokio::time::timeout(CONNECT_TIMEOUT, read_head(&mut app)).await;
    let Ok(Ok((head, rest))) = head else {
        return;
    };
    let Some(asked) = Asked::parse(&head) else {
        refuse(
            &mut app,
            "400 Bad Request",
            "This proxy takes CONNECT, and requests to http:// addresses.",
        )
        .await;
        return;
    };
    let Some((policy, names)) = &reach.outside else {
        refuse(
            &mut app,
            "403 Forbidden",
            "The operator lets content reach nothing outside the portal (setting run_network).",
        )
        .await;
        return;
    };
    let connected = tokio::time::timeout(
        CONNECT_TIMEOUT,
        open(&asked.host, asked.port, policy, names),
    )
    .await;
    let mut outside = match connected {
        Ok(Ok(outside)) => outside,
        Ok(Err(OpenError::Refused(sentence))) => {
            refuse(&mut app, "403 Forbidden", &sentence).await;
            return;
        }
        Ok(Err(OpenError::Failed)) => {
            refuse(
                &mut app,
                "502 Bad Gateway",
                &format!("{} cannot be reached.", asked.host),
            )
            .await;
            return;
        }
        Err(_) => {
            refuse(
                &mut app,
                "504 Gateway Timeout",
                &format!("{} does not answer.", asked.host),
            )
            .await;
            return;
        }
    };
    drop(outside.set_nodelay(true));
    let begun = match &asked.forward {
        None => {
            app.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
                .await
        }
        Some(head) => outside.write_all(head).await,
    };
    if begun.is_err() || outside.write_all(&rest).await.is_err() {
        return;
    }
    drop(copy_bidirectional(&mut app, &mut outside).await);
}

/// Reads up to the empty line; returns the head and what was read beyond it.
async fn read_head(app: &mut UnixStream) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut read = Vec::new();
    loop {
        if let Some(end) = read.windows(4).position(|part| part == b"\r\n\r\n") {
            let rest = read.split_off(end + 4);
            return Ok((read, rest));
        }
        if read.len() > MAX_HEAD || app.read_buf(&mut read).await? == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

/// A request to the proxy.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    host: String,
    port: u16,
    /// For a request to plain http: the head to send on. It asks the server to close the connection
    /// after its response, since the next request may be for another host.
    forward: Option<Vec<u8>>,
}

impl Asked {
    fn parse(head: &[u8]) -> Option<Self> {
        let mut headers = [httparse::EMPTY_HEADER; 100];
        let mut request = httparse::Request::new(&mut headers);
        if !request.parse(head).ok()?.is_complete() {
            return None;
        }
        let (method, target) = (request.method?, request.path?);
        if method == "CONNECT" {
            let (host, port) = target.rsplit_once(':')?;
            return Some(Self {
                host: host.trim_matches(['[', ']']).to_ascii_lowercase(),
                port: port.parse().ok()?,
                forward: None,
            });
        }
        let url = Url::parse(target)
            .ok()
            .filter(|url| url.scheme() == "http")?;
        let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
        let port = url.port_or_known_default()?;
        let query = url
            .query()
            .map(|query| format!("?{query}"))
            .unwrap_or_default();
        let mut forward = format!("{method} {}{query} HTTP/1.1\r\n", url.path()).into_bytes();
        for header in request.headers.iter() {
            let name = header.name.to_ascii_lowercase();
            if !matches!(
                name.as_str(),
                "connection" | "proxy-connection" | "proxy-authorization" | "keep-alive"
            ) {
                forward.extend_from_slice(header.name.as_bytes());
                forward.extend_from_slice(b": ");
                forward.extend_from_slice(header.value);
                forward.extend_from_slice(b"\r\n");
            }
        }
        forward.extend_from_slice(b"Connection: close\r\n\r\n");
        Some(Self {
            host,
            port,
            forward: Some(forward),
        })
    }
}

enum OpenError {
    /// The policy refuses the address; a sentence.
    Refused(String),
    Failed,
}

/// Connects to a host if the policy allows one of its addresses.
async fn open(
    host: &str,
    port: u16,
    policy: &Policy,
    names: &Resolver,
) -> Result<TcpStream, OpenError> {
    let shown = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    let scheme = if port == 443 { "https" } else { "http" };
    let url = Url::parse(&format!("{scheme}://{shown}:{port}/"));
    let url = url.map_err(|_| OpenError::Failed)?;
    if port < 1024 && !matches!(port, 80 | 443) && !policy.is_listed(host, port) {
        let why = format!("port {port} is for no web server, and not allowed by run_private_hosts");
        return Err(OpenError::Refused(why));
    }
    // The policy also refuses the portal's own hosts, and private addresses in any notation.
    match resolve(&url, policy, names).await {
        Ok(Endpoint::Tcp(allowed)) => connect(&allowed).await.map_err(|_| OpenError::Failed),
        Err(ResolveError::Refused(why)) => Err(OpenError::Refused(why.to_string())),
        Ok(Endpoint::Unix(_)) | Err(ResolveError::Name(_)) => Err(OpenError::Failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_to_the_proxy_are_read() {
        let connect = Asked::parse(
            b"CONNECT adb.example.org:443 HTTP/1.1\r\nHost: adb.example.org:443\r\n\r\n",
        )
        .unwrap();
        assert_eq!(
            (connect.host.as_str(), connect.port, connect.forward),
            ("adb.example.org", 443, None)
        );
        let plain = Asked::parse(
            b"GET http://h.example:8080/a?b=c HTTP/1.1\r\nHost: h.example:8080\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\n\r\n",
        )
        .unwrap();
        assert_eq!((plain.host.as_str(), plain.port), ("h.example", 8080));
        let forward = String::from_utf8(plain.forward.unwrap()).unwrap();
        assert_eq!(
            forward,
            "GET /a?b=c HTTP/1.1\r\nHost: h.example:8080\r\nConnection: close\r\n\r\n"
        );
        for bad in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET https://x/ HTTP/1.1\r\n\r\n",
            "CONNECT x HTTP/1.1\r\n\r\n",
            "x\r\n\r\n",
        ] {
            assert_eq!(Asked::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
