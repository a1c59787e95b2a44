//! Which HTTP/1.1 connections are between two requests, so that the head of each request has a
//! deadline and a largest size.
//!
//! actix has a deadline for the head of a connection's first request, and ends its keep-alive timer
//! with the first byte of the next one; a head that then stops half-way would stay for ever. And it
//! panics at a field name of more than 65,535 bytes. Here the service in front of the application
//! counts the requests that are being answered, until their last byte is written, and [`HeadWatch`]
//! watches the rest of the time. Never parses anything.

use actix_http::{
    Request, Response,
    body::{BodySize, BoxBody, MessageBody},
};
use actix_service::{Service as _, ServiceFactory, apply_fn_factory};
use actix_web::http::header::{CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING};
use bytes::Bytes;
use std::{
    cell::Cell,
    future::Future as _,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep_until};

/// Keep-alive: how long a connection may be idle between two requests.
pub const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// Deadline for the head of every request after a connection's first, counted from its first byte;
/// also for the rest of a body that the response did not wait for.
const NEXT_HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest head, in bytes: with a longer one, a field name could be longer than actix can hold.
const MAX_HEAD_BYTES: usize = 65_535;

/// The requests of one connection.
#[derive(Default)]
pub struct Requests {
    /// Being answered now. One, since HTTP/1.1 answers in order.
    open: Cell<usize>,
    /// A request has arrived on this connection.
    has_begun: Cell<bool>,
    /// The last request has a chunked body, and its response has not begun.
    awaits_chunks: Cell<bool>,
    /// The last request had a body: a part of it may still come after its response.
    had_body: Cell<bool>,
}

impl Requests {
    /// The connection no longer carries HTTP: it never waits for a head again.
    pub fn upgraded(&self) {
        self.open.set(self.open.get() + 1);
    }

    /// Whether the last request has a chunked body, and its response has not begun. actix takes a
    /// malformed chunk for a broken connection and drops it without a response.
    pub fn awaits_chunks(&self) -> bool {
        self.awaits_chunks.get()
    }

    fn begin(self: &Rc<Self>, headers: &HeaderMap) -> OpenRequest {
        let is_chunked = headers.contains_key(TRANSFER_ENCODING);
        self.awaits_chunks.set(is_chunked);
        self.had_body
            .set(is_chunked || headers.contains_key(CONTENT_LENGTH));
        self.has_begun.set(true);
        self.open.set(self.open.get() + 1);
        OpenRequest(Rc::clone(self))
    }

    /// Whether what is read can only be a head.
    fn is_head(&self) -> bool {
        self.open.get() == 0 && !self.had_body.get()
    }

    /// Whether the last response is complete and the next head is not. Before the first request
    /// actix's own deadline applies.
    fn is_between(&self) -> bool {
        self.has_begun.get() && self.open.get() == 0
    }
}

/// A request that is being answered, until it is dropped.
struct OpenRequest(Rc<Requests>);

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
    }
}

/// A response body that ends its request when it is dropped.
pub struct CountedBody {
    body: BoxBody,
    _open: Option<OpenRequest>,
}

impl MessageBody for CountedBody {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(context)
    }
}

/// Counts the requests that `app` answers, for connections that carry [`Requests`].
pub fn counted<A, R>(
    app: A,
) -> impl ServiceFactory<
    Request,
    Config = (),
    Response = Response<CountedBody>,
    Error = A::Error,
    InitError = A::InitError,
>
where
    A: ServiceFactory<Request, Config = (), Response = R>,
    R: Into<Response<BoxBody>>,
{
    apply_fn_factory(app, |request: Request, app: &A::Service| {
        let requests = request.conn_data::<Rc<Requests>>();
        let open = requests.map(|requests| requests.begin(request.head().headers()));
        let answering = app.call(request);
        async move {
            let answer = answering.await;
            if let Some(open) = &open {
                open.0.awaits_chunks.set(false);
            }
            let response: Response<BoxBody> = answer?.into();
            Ok(response.map_body(|_, body| CountedBody { body, _open: open }))
        }
    })
}

/// Watches the heads on one connection: their deadline and their size.
pub struct HeadWatch {
    requests: Rc<Requests>,
    /// Bytes that were read since the last request began.
    bytes: usize,
    /// The last read filled its buffer: before the next one, actix parses what it has.
    has_more: bool,
    /// The deadline, and whether it is that of a head whose first byte has arrived.
    due: Option<(Instant, bool)>,
    /// Wakes the connection at the deadline or earlier: moving it for each request would cost more
    /// than waking now and then for nothing.
    timer: Option<Pin<Box<Sleep>>>,
}

impl HeadWatch {
    /// No request has arrived yet.
    pub fn new(requests: Rc<Requests>) -> Self {
        Self {
            requests,
            bytes: 0,
            has_more: false,
            due: None,
            timer: None,
        }
    }

    /// The counter, for the service and for upgrades.
    pub fn requests(&self) -> &Rc<Requests> {
        &self.requests
    }

    /// How many bytes the next read may bring: while a head is awaited, no more than it may have.
    /// 0: the head is too long.
    pub fn room(&self) -> usize {
        if self.requests.is_head() {
            MAX_HEAD_BYTES - self.bytes
        } else {
            usize::MAX
        }
    }

    /// Counts what a read brought. `is_full`: more may be there.
    pub fn count(&mut self, bytes: usize, is_full: bool) {
        if self.requests.is_head() {
            self.bytes = (self.bytes + bytes).min(MAX_HEAD_BYTES);
            self.has_more = is_full;
        } else {
            self.bytes = 0;
        }
    }

    /// Whether a read is to wait until actix has parsed what it has: only so it is seen where a
    /// head ends. The caller wakes itself.
    pub fn takes_turn(&mut self) -> bool {
        std::mem::take(&mut self.has_more) && self.requests.is_head()
    }

    /// Whether a head is late. Call it after each read; `has_read`: it brought bytes.
    pub fn is_missed(&mut self, context: &mut Context<'_>, has_read: bool) -> bool {
        if !self.requests.is_between() {
            self.due = None;
            return false;
        }
        let now = Instant::now();
        let due = match self.due {
            Some((due, has_begun)) if has_begun || !has_read => due,
            _ => {
                // A part of the head may have arrived during the last request: without a read the
                // deadline is a little longer than actix's keep-alive.
                let pause = if has_read { Duration::ZERO } else { KEEP_ALIVE };
                let due = now + pause + NEXT_HEAD_TIMEOUT;
                self.due = Some((due, has_read));
                due
            }
        };
        if due <= now {
            return true;
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() > due || timer.deadline() <= now {
            timer.as_mut().reset(due);
        }
        // Registers the waker; it cannot be ready.
        timer.as_mut().poll(context).is_ready()
    }
}
