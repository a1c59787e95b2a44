//! The wire to browsers: TCP or TLS over it, HTTP/1.1 as actix speaks it, HTTP/2 in `http2.rs`.

pub mod http2;
pub mod tls;

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::either::Either;

/// How long a browser's connection may rest between two requests.
pub const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// A request's head, or a handshake, is here within this time, or its sender is gone.
pub const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// Whoever has said that they will say no more gets an answer that comes within this time, and goes on while it does. Most of
/// them have closed their tab: an answer that nobody reads would keep its app at work, and its token in use, for hours.
const LAST_WORD: Duration = Duration::from_secs(10);

/// A browser's connection.
pub struct Browser {
    wire: Either<TcpStream, Box<TlsStream<TcpStream>>>,
    /// There from the moment on at which the other side has ended its part; begins anew with each byte that it takes.
    patience: Option<Pin<Box<Sleep>>>,
}

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

impl Browser {
    /// A connection that was accepted, after its handshake. `None` if that did not succeed: there is nobody to tell.
    pub async fn greet(tcp: TcpStream, tls: Option<&TlsAcceptor>) -> Option<(Self, Protocol, Option<SocketAddr>)> {
        let peer = tcp.peer_addr().ok();
        // Small frames must not wait for more.
        drop(tcp.set_nodelay(true));
        let (wire, protocol) = match tls {
            None => (Either::Left(tcp), Protocol::Http1),
            Some(tls) => {
                let stream = timeout(HEAD_WITHIN, Box::pin(tls.accept(tcp))).await.ok()?.ok()?;
                let is_http2 = stream.get_ref().1.alpn_protocol() == Some(tls::HTTP_2);
                (Either::Right(Box::new(stream)), if is_http2 { Protocol::Http2 } else { Protocol::Http1 })
            }
        };
        Some((Self { wire, patience: None }, protocol, peer))
    }
}

impl AsyncRead for Browser {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.wire).poll_read(context, buffer))?;
        if buffer.filled().len() == before && buffer.remaining() > 0 && self.patience.is_none() {
            self.patience = Some(Box::pin(sleep(LAST_WORD)));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Browser {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.wire).poll_write(context, bytes))?;
        if let Some(patience) = &mut self.patience {
            patience.as_mut().reset(Instant::now() + LAST_WORD);
        }
        Poll::Ready(Ok(written))
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.wire).poll_flush(context))?;
        // Whoever drives the connection flushes it each time it looks, with nothing to write, too.
        if let Some(patience) = &mut self.patience
            && patience.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(context)
    }
}
