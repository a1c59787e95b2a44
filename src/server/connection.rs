//! Connections from browsers: TCP, or TLS over it, with the deadlines that end dead ones.
//!
//! A [`BrowserConnection`] wraps the stream for HTTP/1.1 (spoken by actix) and HTTP/2
//! ([`super::http2`]) and enforces three deadlines: one while a write is blocked, one after the
//! browser half-closed, and one for the head of each HTTP/1.1 request after the first. It never
//! parses what it carries.

use super::{
    requests::{HeadWatch, Requests},
    tls::HTTP_2,
};
use crate::{
    http::open_counts::{OpenCounts, OpenGuard},
    service::Services,
};
use rustls::server::Acceptor;
use std::{
    cell::Cell,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::Semaphore,
    time::{Instant, Sleep, sleep, timeout},
};
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor, server::TlsStream};
use tokio_util::either::Either;

/// Deadline for a TLS handshake, for the HTTP/2 preface and for the head of a connection's first
/// HTTP/1.1 request.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// After the browser half-closes, each write of the response must follow the last one within this
/// time. Most such browsers have closed the tab; without this deadline a response that is not read
/// would keep its app busy, and its session token in use, for hours.
const HALF_CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a write may be blocked by a browser that does not read, before it counts as gone.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(120);
/// File descriptors for the database, providers and the operator; an eighth, where there are few.
const RESERVED_FILES: usize = 2048;
/// Maximum number of concurrent TLS handshakes per worker.
const MAX_HANDSHAKES: usize = 4096;
/// Maximum number of concurrent TLS handshakes of one network.
const MAX_HANDSHAKES_PER_NETWORK: usize = 128;
/// A connection without traffic is probed after this time, so that a browser that vanished is
/// noticed.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);
/// Interval, and number, of unanswered probes after which the connection ends.
const TCP_PROBE_INTERVAL: Duration = Duration::from_secs(15);
const TCP_PROBES: u32 = 4;
/// Bytes that the browser's machine does not acknowledge for this long end the connection.
const TCP_USER_TIMEOUT: Duration = WRITE_TIMEOUT;

/// The response to a request with a field name that is too long.
const HEAD_TOO_LARGE: &[u8] =
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
/// The response to a request whose chunks are malformed.
const BAD_REQUEST: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Limits of what one network, and all together, may have open at the listener. A trusted proxy is
/// limited only in total: it speaks for many.
pub struct ConnectionCounts {
    services: Arc<Services>,
    connections: OpenCounts,
    handshakes: OpenCounts,
    /// Most connections of one network.
    most: usize,
    /// Most connections. What it leaves of the file descriptors is for the database, for providers
    /// and apps, and for connections from this machine: health checks and the operator.
    most_in_total: usize,
    open: Arc<AtomicUsize>,
}

/// The counts of one connection, until it is dropped.
struct CountedConnection {
    _of_network: OpenGuard,
    open: Arc<AtomicUsize>,
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::AcqRel);
    }
}

impl ConnectionCounts {
    /// At most as many connections of one network as the setting says, and as leave half of the room to
    /// others. In all as many as leave room for as many connections to apps, and for the database,
    /// providers and the operator.
    pub fn new(services: Arc<Services>) -> Self {
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let files = files.and_then(|files| usize::try_from(files).ok());
        let in_total = files.map_or(usize::MAX, |files| {
            (files - RESERVED_FILES.min(files / 8)) / 2
        });
        Self {
            most: services.core.settings.open_per_address.min(in_total / 2),
            most_in_total: in_total,
            services,
            connections: OpenCounts::default(),
            handshakes: OpenCounts::default(),
            open: Arc::default(),
        }
    }

    fn limit(&self, ip: IpAddr, most: usize) -> usize {
        if self.services.core.settings.is_trusted_proxy(ip) {
            usize::MAX
        } else {
            most
        }
    }

    /// Counts a connection; `None` if its network has too many, or all together.
    fn connect(&self, peer: SocketAddr) -> Option<CountedConnection> {
        let ip = peer.ip().to_canonical();
        let counted = CountedConnection {
            _of_network: self.connections.open(ip, self.limit(ip, self.most))?,
            open: Arc::clone(&self.open),
        };
        let before = self.open.fetch_add(1, Ordering::AcqRel);
        let is_own = ip.is_loopback() && !self.services.core.settings.is_trusted_proxy(ip);
        (before < self.most_in_total || is_own).then_some(counted)
    }

    /// Counts a TLS handshake; `None` if its network has too many.
    fn greet(&self, peer: SocketAddr) -> Option<OpenGuard> {
        let ip = peer.ip().to_canonical();
        self.handshakes
            .open(ip, self.limit(ip, MAX_HANDSHAKES_PER_NETWORK))
    }
}

/// Lets the kernel notice that the browser is gone.
fn set_keepalive(tcp: &TcpStream) -> rustix::io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(tcp, true)?;
    sockopt::set_tcp_keepidle(tcp, TCP_KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(tcp, TCP_PROBE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(tcp, TCP_PROBES)?;
    let limit = u32::try_from(TCP_USER_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(tcp, limit)
}

/// Performs TLS handshakes with browsers; one per worker.
pub struct TlsGreeter {
    acceptor: TlsAcceptor,
    handshakes: Semaphore,
}

impl TlsGreeter {
    /// A greeter for one worker.
    pub fn new(acceptor: TlsAcceptor) -> Self {
        Self {
            acceptor,
            handshakes: Semaphore::new(MAX_HANDSHAKES),
        }
    }
    /// One TLS handshake; `None` if it fails. The caller limits the time.
    async fn accept(&self, tcp: TcpStream) -> Option<Box<TlsStream<TcpStream>>> {
        // Only a complete ClientHello gets a permit: until then the client costs nothing.
        let hello = LazyConfigAcceptor::new(Acceptor::default(), tcp)
            .await
            .ok()?;
        let _turn = self.handshakes.acquire().await.ok()?;
        let config = Arc::clone(self.acceptor.config());
        hello.into_stream(config).await.ok().map(Box::new)
    }
}

/// The HTTP version of a connection; negotiated by ALPN, HTTP/1.1 without TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

/// A connection from a browser, with its deadlines.
pub struct BrowserConnection {
    wire: Either<TcpStream, Box<TlsStream<TcpStream>>>,
    /// The browser has half-closed: its stream has ended, and it may still read.
    is_half_closed: bool,
    /// Deadline, armed while a write is blocked or after a half-close.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Number of non-empty reads, where they are counted (HTTP/2) as a sign of life.
    reads: Option<Rc<Cell<u64>>>,
    /// Deadline and size of heads; HTTP/1.1 only.
    heads: Option<HeadWatch>,
    /// The counts of connections.
    _counted: Option<CountedConnection>,
}

impl BrowserConnection {
    /// Performs the TLS handshake, if `tls` is given, on an accepted TCP connection. `None` if it
    /// fails or takes longer than [`HEAD_TIMEOUT`]: no response can be sent then. The address is
    /// the peer's.
    pub async fn accept(
        tcp: TcpStream,
        tls: Option<&TlsGreeter>,
        counts: &ConnectionCounts,
    ) -> Option<(Self, Protocol, Option<SocketAddr>)> {
        let peer = tcp.peer_addr().ok();
        let counted = match peer {
            Some(peer) => Some(counts.connect(peer)?),
            None => None,
        };
        if let Err(error) = set_keepalive(&tcp) {
            tracing::debug!(%error, "no keep-alive for a connection");
        }
        // Small WebSocket and HTTP/2 frames must not wait for more data (Nagle's algorithm).
        drop(tcp.set_nodelay(true));
        let (wire, protocol) = match tls {
            None => (Either::Left(tcp), Protocol::Http1),
            Some(tls) => {
                let _greeted = match peer {
                    Some(peer) => Some(counts.greet(peer)?),
                    None => None,
                };
                let stream = timeout(HEAD_TIMEOUT, Box::pin(tls.accept(tcp)))
                    .await
                    .ok()??;
                let is_http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP_2);
                (
                    Either::Right(stream),
                    if is_http2 {
                        Protocol::Http2
                    } else {
                        Protocol::Http1
                    },
                )
            }
        };
        Some((
            Self {
                wire,
                is_half_closed: false,
                deadline: None,
                reads: None,
                heads: (protocol == Protocol::Http1).then(|| HeadWatch::new(Rc::default())),
                _counted: counted,
            },
            protocol,
            peer,
        ))
    }

    /// The requests on an HTTP/1.1 connection.
    pub(super) fn requests(&self) -> Option<&Rc<Requests>> {
        self.heads.as_ref().map(HeadWatch::requests)
    }

    /// Starts counting non-empty reads, and returns the counter.
    pub(super) fn count_reads(&mut self) -> Rc<Cell<u64>> {
        Rc::clone(self.reads.get_or_insert_default())
    }

    /// Whether the deadline is armed and has passed.
    fn is_past_deadline(&mut self, context: &mut Context<'_>) -> bool {
        self.deadline
            .as_mut()
            .is_some_and(|patience| patience.as_mut().poll(context).is_ready())
    }

    /// Makes actix say that a head is too large (431): instead of what the browser sends, it gets
    /// more of the field that it has begun.
    fn make_head_too_large(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) {
        // Read and dropped: closing a socket with unread input sends RST, and that may discard the
        // response.
        let _ = Pin::new(&mut self.wire).poll_read(context, buffer);
        buffer.initialize_unfilled();
        buffer.set_filled(buffer.capacity());
        buffer.filled_mut().fill(b'x');
    }

    /// Applies the deadline to the result of a write or a flush: armed while that is pending,
    /// disarmed once it succeeds, unless the browser has half-closed.
    fn with_deadline<T>(
        &mut self,
        context: &mut Context<'_>,
        came: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if matches!(came, Poll::Ready(Ok(_))) && !self.is_half_closed {
            self.deadline = None;
        } else if came.is_pending() {
            self.deadline
                .get_or_insert_with(|| Box::pin(sleep(WRITE_TIMEOUT)));
            if self.is_past_deadline(context) {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        came
    }
    /// As [`Self::with_deadline`]; after a half-close each successful write moves the deadline.
    fn written(
        &mut self,
        context: &mut Context<'_>,
        came: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let (Poll::Ready(Ok(_)), true, Some(patience)) =
            (&came, self.is_half_closed, &mut self.deadline)
        {
            patience.as_mut().reset(Instant::now() + HALF_CLOSE_TIMEOUT);
        }
        self.with_deadline(context, came)
    }
}

impl Drop for BrowserConnection {
    /// Answers a malformed chunk: see [`Requests::awaits_chunks`]. And a head at which actix panics: it
    /// does so at a field name that is longer than the http library takes, where the size of a head is
    /// not watched since a body may come before it.
    fn drop(&mut self) {
        let is_owed = self
            .requests()
            .is_some_and(|requests| requests.awaits_chunks());
        let answer = if std::thread::panicking() {
            HEAD_TOO_LARGE
        } else if is_owed {
            BAD_REQUEST
        } else {
            return;
        };
        if !self.is_half_closed {
            let mut context = Context::from_waker(futures_util::task::noop_waker_ref());
            // What cannot be sent at once is not sent.
            let _ = Pin::new(&mut self.wire).poll_write(&mut context, answer);
            let _ = Pin::new(&mut self.wire).poll_flush(&mut context);
        }
    }
}

impl AsyncRead for BrowserConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(heads) = &mut self.heads
            && heads.takes_turn()
        {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let room = self.heads.as_ref().map_or(usize::MAX, HeadWatch::room);
        let before = buffer.filled().len();
        let read = if room >= buffer.remaining() {
            Pin::new(&mut self.wire).poll_read(context, buffer)
        } else if room > 0 {
            let mut part = ReadBuf::new(buffer.initialize_unfilled_to(room));
            let read = Pin::new(&mut self.wire).poll_read(context, &mut part);
            let bytes = part.filled().len();
            buffer.advance(bytes);
            read
        } else {
            self.make_head_too_large(context, buffer);
            return Poll::Ready(Ok(()));
        };
        let bytes = buffer.filled().len() - before;
        let has_read = bytes > 0;
        if let Some(heads) = &mut self.heads {
            if has_read {
                heads.count(bytes, bytes == room || buffer.remaining() == 0);
            } else if read.is_pending() && heads.is_missed(context) {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        ready!(read)?;
        if has_read {
            if let Some(heard) = &self.reads {
                heard.set(heard.get() + 1);
            }
        } else if buffer.remaining() > 0 && !self.is_half_closed {
            self.is_half_closed = true;
            self.deadline = Some(Box::pin(sleep(HALF_CLOSE_TIMEOUT)));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for BrowserConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.wire).poll_write(context, bytes);
        self.written(context, written)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.wire).poll_write_vectored(context, pieces);
        self.written(context, written)
    }
    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let came = Pin::new(&mut self.wire).poll_flush(context);
        ready!(self.with_deadline(context, came))?;
        // actix also flushes with nothing to write, each time it polls: this is where the deadline
        // after a half-close is noticed while the app is still silent.
        if self.is_half_closed && self.is_past_deadline(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        pki_types::{PrivateKeyDer, ServerName},
    };
    use tokio::net::TcpListener;
    use tokio_rustls::TlsConnector;

    #[tokio::test]
    async fn clients_that_say_nothing_hold_up_no_handshake() {
        drop(rustls::crypto::ring::default_provider().install_default());
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        // Room for a single handshake.
        let greeter = TlsGreeter {
            acceptor: Arc::new(config).into(),
            handshakes: Semaphore::new(1),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut silent = Vec::new();
        for beginning in [&b""[..], &[22, 3, 1, 2, 0, 1]] {
            let mut client = TcpStream::connect(address).await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut client, beginning)
                .await
                .unwrap();
            let (accepted, _) = listener.accept().await.unwrap();
            silent.push((client, Box::pin(greeter.accept(accepted))));
        }
        for (_, accepting) in &mut silent {
            let waited = timeout(Duration::from_millis(100), accepting).await;
            assert!(waited.is_err(), "it waits for a ClientHello");
        }
        let client = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tcp = TcpStream::connect(address).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let greeting = TlsConnector::from(Arc::new(client));
        let both = async { tokio::join!(greeting.connect(name, tcp), greeter.accept(accepted)) };
        let (connected, greeted) = timeout(Duration::from_secs(5), both).await.unwrap();
        assert!(connected.is_ok() && greeted.is_some());
    }
}
