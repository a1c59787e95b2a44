//! Which HTTP/1.1 connections are between two requests, so that the head of each request has a
//! deadline and a largest size.
//!
//! actix has a deadline for the head of a connection's first request, and ends its keep-alive timer
//! with the first byte of the next one; a head that then stops half-way would stay for ever. And it
//! panics at a field name of more than 65,535 bytes. Here the service in front of the application
//! counts the requests that are being answered, until their last byte is written, and [`HeadWatch`]
//! watches the rest of the time. Never parses anything.
//!
//! hyper below the same application would have such a deadline. It was not taken, since actix can be
//! given one: hyper would replace this file and [`super::http2`], some 600 lines, and ask for about as
//! many that turn each request, body and upgrade into actix's types and back, at a cost for each
//! request.

use actix_http::{
    Request, Response,
    body::{BodySize, BoxBody, MessageBody},
};
use actix_service::{Service as _, ServiceFactory, apply_fn_factory};
use actix_web::http::header::{CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING};
use bytes::Bytes;
use futures_util::FutureExt as _;
use std::{
    cell::Cell,
    future::Future as _,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep};

/// Keep-alive: how long a connection may be idle between two requests.
pub const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// How often a connection between two requests is looked at. The head of every request after the
/// first must be complete within two looks, counted from its first byte; so must the rest of a body
/// that the response did not wait for.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// Looks without a byte after which the connection ends. A little longer than keep-alive, which
/// actix does not apply to a connection on which the next head has begun during the last response.
const MAX_IDLE_LOOKS: u32 = 7;
/// Largest head, in bytes: with a longer one, a field name could be longer than actix can hold.
const MAX_HEAD_BYTES: usize = 65_535;

/// The requests of one connection.
#[derive(Default)]
pub struct Requests {
    /// Being answered now. One, since HTTP/1.1 answers in order.
    open: Cell<usize>,
    /// Number of requests that have arrived on this connection.
    begun: Cell<u64>,
    /// Bytes that were read since the last request began.
    bytes: Cell<usize>,
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
        self.begun.set(self.begun.get() + 1);
        self.bytes.set(0);
        self.open.set(self.open.get() + 1);
        OpenRequest(Rc::clone(self))
    }

    /// Whether what is read can only be a head.
    fn is_head(&self) -> bool {
        self.open.get() == 0 && !self.had_body.get()
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
        // Not an `async` block: that would hold the application's large future twice, and it is moved.
        app.call(request).map(move |answer| {
            if let Some(open) = &open {
                open.0.awaits_chunks.set(false);
            }
            let response: Response<BoxBody> = answer?.into();
            Ok(response.map_body(|_, body| CountedBody { body, _open: open }))
        })
    })
}

/// Watches the heads on one connection: their deadline and their size.
///
/// The deadline is coarse on purpose: asking for the time at each request would cost more than all
/// the rest of this.
pub struct HeadWatch {
    requests: Rc<Requests>,
    /// The last read filled its buffer: before the next one, actix parses what it has.
    has_more: bool,
    /// Fires at the next look. Set at the end of the first request.
    timer: Option<Pin<Box<Sleep>>>,
    /// What the last look saw: the number of requests before the head that had begun then.
    head_after: Option<u64>,
    /// Looks in a row that saw no head, after the same number of requests.
    idle_looks: (u64, u32),
}

impl HeadWatch {
    /// No request has arrived yet.
    pub fn new(requests: Rc<Requests>) -> Self {
        Self {
            requests,
            has_more: false,
            timer: None,
            head_after: None,
            idle_looks: (0, 0),
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
            MAX_HEAD_BYTES - self.requests.bytes.get()
        } else {
            usize::MAX
        }
    }

    /// Counts what a read brought. `is_full`: more may be there.
    pub fn count(&mut self, bytes: usize, is_full: bool) {
        if self.requests.open.get() == 0 {
            let before = self.requests.bytes.get();
            self.requests
                .bytes
                .set((before + bytes).min(MAX_HEAD_BYTES));
            self.has_more = is_full;
        }
    }

    /// Whether a read is to wait until actix has parsed what it has: only so it is seen where a
    /// head ends. The caller wakes itself.
    pub fn takes_turn(&mut self) -> bool {
        std::mem::take(&mut self.has_more) && self.requests.is_head()
    }

    /// Whether a head is late. Call it when a read is pending.
    pub fn is_missed(&mut self, context: &mut Context<'_>) -> bool {
        // Before the first request actix's own deadline applies.
        if self.requests.begun.get() == 0 {
            return false;
        }
        match &mut self.timer {
            Some(timer) if !timer.is_elapsed() => return false,
            Some(timer) => timer.as_mut().reset(Instant::now() + LOOK_INTERVAL),
            timer => *timer = Some(Box::pin(sleep(LOOK_INTERVAL))),
        }
        // Registers the waker, which stays the same: a connection is a task of its own.
        let timer = self.timer.as_mut();
        let _ = timer.is_some_and(|timer| timer.as_mut().poll(context).is_ready());
        self.look()
    }

    /// Whether the same head, or the same silence, has lasted too long.
    fn look(&mut self) -> bool {
        let begun = self.requests.begun.get();
        if self.requests.open.get() > 0 {
            (self.head_after, self.idle_looks) = (None, (begun, 0));
            return false;
        }
        if self.requests.bytes.get() > 0 {
            return self.head_after.replace(begun) == Some(begun);
        }
        self.idle_looks = match self.idle_looks {
            (same, looks) if same == begun => (begun, looks + 1),
            _ => (begun, 1),
        };
        self.idle_looks.1 >= MAX_IDLE_LOOKS
    }
}
