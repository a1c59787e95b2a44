//! The wire to browsers: TCP or TLS over it, HTTP/1.1 as actix speaks it, HTTP/2 in `http2.rs`.

pub mod http2;
pub mod tls;

use std::{
    cell::Cell,
    io,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::Semaphore,
    time::{Instant, Sleep, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::either::Either;

/// How long a browser's connection may rest between two requests.
pub const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// A connection's first request, or a handshake, is here within this time, or its sender is gone.
pub const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// Whoever has said that they will say no more gets an answer that comes within this time, and goes
/// on while it does. Most of them have closed their tab: an answer that nobody reads would keep its
/// app at work, and its token in use, for hours.
const LAST_WORD: Duration = Duration::from_secs(10);
/// Whoever reads nothing of what is there for them for so long is gone, too.
pub const UNREAD: Duration = Duration::from_secs(120);
/// Handshakes that a worker makes at once.
const HANDSHAKES: usize = 256;

/// Greets browsers over TLS, one for each worker.
pub struct Greeter {
    acceptor: TlsAcceptor,
    at_once: Semaphore,
}

impl Greeter {
    pub fn new(acceptor: TlsAcceptor) -> Self {
        Self {
            acceptor,
            at_once: Semaphore::new(HANDSHAKES),
        }
    }
    async fn greet(&self, tcp: TcpStream) -> Option<Box<TlsStream<TcpStream>>> {
        // Whoever says nothing takes no turn.
        tcp.readable().await.ok()?;
        let _turn = self.at_once.acquire().await.ok()?;
        self.acceptor.accept(tcp).await.ok().map(Box::new)
    }
}

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

/// A browser's connection.
pub struct Browser {
    wire: Either<TcpStream, Box<TlsStream<TcpStream>>>,
    /// The other side has ended its part.
    half: bool,
    /// There while the other side has to do something soon, or is gone: to read, and for the last
    /// time.
    patience: Option<Pin<Box<Sleep>>>,
    /// How many pieces came, for whoever wants to know whether the other side lives.
    heard: Option<Rc<Cell<u64>>>,
}

impl Browser {
    /// A connection that was accepted, after its handshake. `None` if that did not succeed: there
    /// is nobody to tell.
    pub async fn greet(
        tcp: TcpStream,
        tls: Option<&Greeter>,
    ) -> Option<(Self, Protocol, Option<SocketAddr>)> {
        let peer = tcp.peer_addr().ok();
        // Small frames must not wait for more.
        drop(tcp.set_nodelay(true));
        let (wire, protocol) = match tls {
            None => (Either::Left(tcp), Protocol::Http1),
            Some(tls) => {
                let stream = timeout(HEAD_WITHIN, Box::pin(tls.greet(tcp)))
                    .await
                    .ok()??;
                let is_http2 = stream.get_ref().1.alpn_protocol() == Some(tls::HTTP_2);
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
                half: false,
                patience: None,
                heard: None,
            },
            protocol,
            peer,
        ))
    }

    /// Counts from now on what comes.
    fn count(&mut self) -> Rc<Cell<u64>> {
        Rc::clone(self.heard.get_or_insert_default())
    }

    /// Whether the time of whoever has to do something is over.
    fn is_gone(&mut self, context: &mut Context<'_>) -> bool {
        self.patience
            .as_mut()
            .is_some_and(|patience| patience.as_mut().poll(context).is_ready())
    }

    /// What a write or a flush came to, which waits only as long as there is patience.
    fn limited<T>(
        &mut self,
        context: &mut Context<'_>,
        came: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if matches!(came, Poll::Ready(Ok(_))) && !self.half {
            self.patience = None;
        } else if came.is_pending() {
            self.patience.get_or_insert_with(|| Box::pin(sleep(UNREAD)));
            if self.is_gone(context) {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        came
    }
    fn written(
        &mut self,
        context: &mut Context<'_>,
        came: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let (Poll::Ready(Ok(_)), true, Some(patience)) = (&came, self.half, &mut self.patience) {
            patience.as_mut().reset(Instant::now() + LAST_WORD);
        }
        self.limited(context, came)
    }
}

impl AsyncRead for Browser {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.wire).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            if let Some(heard) = &self.heard {
                heard.set(heard.get() + 1);
            }
        } else if buffer.remaining() > 0 && !self.half {
            self.half = true;
            self.patience = Some(Box::pin(sleep(LAST_WORD)));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Browser {
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
        ready!(self.limited(context, came))?;
        // actix flushes whenever it looks, with nothing to write, too.
        if self.half && self.is_gone(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(context)
    }
}
