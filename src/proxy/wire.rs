//! The transport of a connection to an app: TCP, TLS over TCP, or a Unix socket.
//!
//! It opens connections and moves bytes; it knows nothing of HTTP, limits or pooling.

use crate::http::endpoint::{Endpoint, connect};
use rustls::{ClientConfig, pki_types::ServerName};
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::client::TlsStream;

/// An open connection to an app.
pub enum Transport {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

impl Transport {
    /// Opens a connection, with the TLS handshake where `tls` names the app and its roots. The
    /// caller limits the time.
    pub async fn open(
        endpoint: &Endpoint,
        tls: Option<&(ServerName<'static>, Arc<ClientConfig>)>,
    ) -> io::Result<Self> {
        let sockets = match endpoint {
            Endpoint::Unix(path) => return UnixStream::connect(path).await.map(Transport::Unix),
            Endpoint::Tcp(sockets) => sockets,
        };
        let tcp = connect(sockets).await?;
        // Small WebSocket frames must not wait for more data (Nagle's algorithm). TCP keep-alive
        // detects within minutes a peer that vanished without closing.
        tcp.set_nodelay(true)?;
        set_tcp_keepalive(&tcp);
        match tls {
            None => Ok(Transport::Tcp(tcp)),
            Some((name, config)) => {
                let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
                connector
                    .connect(name.clone(), tcp)
                    .await
                    .map(|tls| Transport::Tls(Box::new(tls)))
            }
        }
    }

    /// Whether an idle connection can no longer be used: the app closed it, or sent bytes that
    /// nothing asked for.
    pub fn is_readable_or_closed(&self) -> bool {
        let mut context = Context::from_waker(futures_util::task::noop_waker_ref());
        let ready = match self {
            Transport::Tcp(tcp) => tcp.poll_read_ready(&mut context),
            Transport::Tls(tls) => tls.get_ref().0.poll_read_ready(&mut context),
            Transport::Unix(unix) => unix.poll_read_ready(&mut context),
        };
        ready.is_ready()
    }
}

/// Enables TCP keep-alive: first probe after 60 s of silence, then one every 20 s.
pub fn set_tcp_keepalive(tcp: &TcpStream) {
    let often = socket2::TcpKeepalive::new()
        .with_time(std::time::Duration::from_secs(60))
        .with_interval(std::time::Duration::from_secs(20));
    // If this fails, a dead connection ends only at the idle limit.
    drop(socket2::SockRef::from(tcp).set_tcp_keepalive(&often));
}

/// Runs an expression on the stream of whichever variant it is.
macro_rules! each {
    ($wire:expr, $inner:ident => $what:expr) => {
        match $wire.get_mut() {
            Transport::Tcp($inner) => $what,
            Transport::Tls($inner) => $what,
            Transport::Unix($inner) => $what,
        }
    };
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_read(context, buffer))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, inner => Pin::new(inner).poll_write(context, bytes))
    }
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_flush(context))
    }
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_shutdown(context))
    }
}
