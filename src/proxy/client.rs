//! An HTTP/1.1 client for apps (RFC 9112): sends a request, streams both bodies at the same time,
//! and pools the connections.
//!
//! It is written on `httparse` instead of awc or hyper: their channels, copies and second task cost
//! a third of the CPU of a proxied request, and neither lets the caller decide which requests may
//! be sent twice. Everything here runs in the worker's own task.
//! Responses are parsed strictly: one whose body length is ambiguous is refused, and a body that
//! ends early ends with an error, never as a short success.

use crate::{
    domain::content::Proxying,
    proxy::{
        pool::{Connection, Pool},
        upstream::Target,
        wire::Transport,
    },
};
use actix_web::{
    error::PayloadError,
    http::{
        StatusCode,
        header::{self, HeaderName, HeaderValue},
    },
};
use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::{StreamExt as _, stream::LocalBoxStream};
use std::{
    cell::RefCell,
    collections::VecDeque,
    future::{Future as _, poll_fn},
    io,
    mem::MaybeUninit,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::AsyncWrite as _,
    task::JoinHandle,
    time::{Sleep, sleep, timeout},
};

/// Maximum sizes in bytes of what an app sends.
const MAX_HEAD_BYTES: usize = 64 * 1024;
const MAX_TRAILER_BYTES: usize = 16 * 1024;
const MAX_CHUNK_LINE_BYTES: usize = 4 * 1024;
/// Maximum number of header fields, and of trailer fields.
const MAX_FIELDS: usize = 128;

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection could be opened.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// The connection broke after a part of the request may have been sent.
    #[error("the connection broke: {0}")]
    Io(io::Error),
    /// The head of the response did not arrive within the item's first-byte limit.
    #[error("no answer in time")]
    FirstByteTimeout,
    /// The browser's upload stalled, broke off, was malformed, or did not match its
    /// `Content-Length`.
    #[error("the upload stopped")]
    Upload,
    /// The response violates HTTP/1.1.
    #[error("not HTTP/1.1: {0}")]
    Protocol(&'static str),
}

impl ClientError {
    /// Whether this machine is the cause: no file descriptor or port is left. Says nothing about
    /// the app.
    pub(super) fn is_local(&self) -> bool {
        // EMFILE and ENFILE have no kind of their own.
        const NO_DESCRIPTOR: [i32; 2] = [24, 23];
        match self {
            ClientError::Connect(error) => {
                error.kind() == io::ErrorKind::AddrNotAvailable
                    || error
                        .raw_os_error()
                        .is_some_and(|code| NO_DESCRIPTOR.contains(&code))
            }
            _ => false,
        }
    }
}

/// Header or trailer fields in the order in which they arrived; names may repeat.
pub type Fields = Vec<(HeaderName, HeaderValue)>;

/// A request body that is being sent.
pub struct Upload {
    body: LocalBoxStream<'static, Result<Bytes, PayloadError>>,
    /// Bytes still to come of the announced `Content-Length`; `None` for a chunked body. The length
    /// is checked because an HTTP/2 body may end early: the app would then take the next request on
    /// this connection for the rest of the body (request smuggling).
    left: Option<u64>,
    /// Pieces that were read from the browser and not yet written.
    pending: VecDeque<Bytes>,
    /// The whole body was read from the browser.
    ended: bool,
    /// Number of bytes written to the app, chunk framing included.
    written: u64,
}

/// Why an upload failed.
enum UploadError {
    /// The browser stopped sending, or sent a body that does not match its length.
    Sender,
    /// The app no longer reads; it may still respond.
    App,
}

impl Upload {
    /// `length`: the announced `Content-Length`; without one the body is sent chunked.
    pub fn new(
        body: LocalBoxStream<'static, Result<Bytes, PayloadError>>,
        length: Option<u64>,
    ) -> Self {
        Self {
            body,
            left: length,
            pending: VecDeque::new(),
            ended: false,
            written: 0,
        }
    }

    /// Sends what there is; `Ready(Ok)` once the whole body is written and flushed.
    fn poll(
        &mut self,
        wire: &mut Transport,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), UploadError>> {
        loop {
            while let Some(front) = self.pending.front_mut() {
                if front.is_empty() {
                    self.pending.pop_front();
                    continue;
                }
                let written = ready!(Pin::new(&mut *wire).poll_write(context, front))
                    .map_err(|_| UploadError::App)?;
                front.advance(written);
                self.written += written as u64;
            }
            if self.ended {
                return Pin::new(&mut *wire)
                    .poll_flush(context)
                    .map_err(|_| UploadError::App);
            }
            match self.body.poll_next_unpin(context) {
                Poll::Ready(Some(Ok(bytes))) if bytes.is_empty() => {}
                Poll::Ready(Some(Ok(bytes))) => match &mut self.left {
                    None => self.pending.extend([
                        format!("{:x}\r\n", bytes.len()).into(),
                        bytes,
                        Bytes::from_static(b"\r\n"),
                    ]),
                    Some(left) => match left.checked_sub(bytes.len() as u64) {
                        Some(rest) => {
                            *left = rest;
                            self.pending.push_back(bytes);
                        }
                        None => return Poll::Ready(Err(UploadError::Sender)),
                    },
                },
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(UploadError::Sender)),
                Poll::Ready(None) => match self.left {
                    Some(1..) => return Poll::Ready(Err(UploadError::Sender)),
                    Some(0) => self.ended = true,
                    None => {
                        self.ended = true;
                        self.pending.push_back(Bytes::from_static(b"0\r\n\r\n"));
                    }
                },
                Poll::Pending => {
                    // Flush, since TLS buffers what was written.
                    let _ = Pin::new(&mut *wire).poll_flush(context);
                    return Poll::Pending;
                }
            }
        }
    }
}

/// The head of an app's response.
pub struct Head {
    /// A final status, or 101.
    pub status: StatusCode,
    /// The header fields as received.
    pub fields: Fields,
    framing: Framing,
    /// The connection can be reused after this response (RFC 9112 section 9.3).
    persistent: bool,
}

/// How the end of a body is found (RFC 9112 section 6.3), and how much is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// No body, or its end was reached.
    Empty,
    /// Bytes that are left.
    Length(u64),
    Chunked(Chunk),
    UntilClose,
}

/// The part of a chunked body that comes next (RFC 9112 section 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunk {
    /// A chunk's size line.
    Line,
    /// A chunk's data; bytes that are left.
    Data(u64),
    /// The CRLF after a chunk's data.
    End,
    Trailers,
}

impl Head {
    /// Removes one head from the buffer; `None` while it is incomplete. `to_head`: the request was
    /// a HEAD.
    fn parse(buffer: &mut BytesMut, to_head: bool) -> Result<Option<Self>, ClientError> {
        if buffer.is_empty() {
            return Ok(None);
        }
        // Uninitialized: clearing 128 fields would cost more than parsing a head.
        let mut found = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut answer = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut answer,
            buffer,
            &mut found,
        );
        let length = match parsed {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if buffer.len() < MAX_HEAD_BYTES => return Ok(None),
            Ok(httparse::Status::Partial) => {
                return Err(ClientError::Protocol("the head is too large"));
            }
            Err(_) => return Err(ClientError::Protocol("the head cannot be read")),
        };
        let status = answer
            .code
            .and_then(|code| StatusCode::from_u16(code).ok())
            .ok_or(ClientError::Protocol("no status"))?;
        let newest = answer.version == Some(1);
        // Values share the buffer's memory: remember their ranges until the buffer is frozen.
        let start = buffer.as_ptr() as usize;
        let mut places = Vec::with_capacity(answer.headers.len());
        for field in answer.headers.iter() {
            let name = HeaderName::from_bytes(field.name.as_bytes())
                .map_err(|_| ClientError::Protocol("the name of a field"))?;
            let at = field.value.as_ptr() as usize - start;
            places.push((name, at..at + field.value.len()));
        }
        let bytes = buffer.split_to(length).freeze();
        let mut fields = Vec::with_capacity(places.len());
        for (name, place) in places {
            // The range of an empty value may lie outside the buffer.
            let value = if place.is_empty() {
                Bytes::new()
            } else {
                bytes.slice(place)
            };
            fields.push((
                name,
                HeaderValue::from_maybe_shared(value)
                    .map_err(|_| ClientError::Protocol("the value of a field"))?,
            ));
        }
        let framing = framing(status, &fields, to_head)?;
        let says = |word: &str| {
            let lines = fields
                .iter()
                .filter(|(name, _)| *name == header::CONNECTION)
                .filter_map(|(_, value)| value.to_str().ok());
            lines
                .flat_map(|line| line.split(','))
                .any(|part| part.trim().eq_ignore_ascii_case(word))
        };
        let persistent = framing != Framing::UntilClose
            && if newest {
                !says("close")
            } else {
                says("keep-alive")
            };
        Ok(Some(Self {
            status,
            fields,
            framing,
            persistent,
        }))
    }

    /// The first field with this name.
    pub fn get(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.fields
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value)
    }
}

/// The framing of a response body. Refuses what different parsers could read differently: unequal
/// lengths, a length beside a transfer coding, any coding but `chunked`.
fn framing(status: StatusCode, fields: &Fields, to_head: bool) -> Result<Framing, ClientError> {
    let all = |wanted: HeaderName| {
        fields
            .iter()
            .filter(move |(name, _)| *name == wanted)
            .map(|(_, value)| value.as_bytes())
    };
    let mut length = None;
    for line in all(header::CONTENT_LENGTH) {
        // A list of equal numbers counts as one number (RFC 9110 section 8.6).
        for part in line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            let digits = !part.is_empty() && part.iter().all(u8::is_ascii_digit);
            let number = digits
                .then(|| std::str::from_utf8(part).ok()?.parse::<u64>().ok())
                .flatten();
            let number = number.ok_or(ClientError::Protocol("content-length"))?;
            if length.is_some_and(|before| before != number) {
                return Err(ClientError::Protocol("two lengths"));
            }
            length = Some(number);
        }
    }
    let mut codings = all(header::TRANSFER_ENCODING);
    let chunked = match (codings.next(), codings.next()) {
        (None, _) => false,
        (Some(coding), None) if coding.trim_ascii().eq_ignore_ascii_case(b"chunked") => true,
        // Other transfer codings would have to be decoded here; apps do not use them.
        _ => return Err(ClientError::Protocol("transfer-encoding")),
    };
    if to_head
        || status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
    {
        return Ok(Framing::Empty);
    }
    match (chunked, length) {
        (true, Some(_)) => Err(ClientError::Protocol(
            "transfer-encoding and content-length",
        )),
        (true, None) => Ok(Framing::Chunked(Chunk::Line)),
        (false, Some(0)) => Ok(Framing::Empty),
        (false, Some(length)) => Ok(Framing::Length(length)),
        (false, None) => Ok(Framing::UntilClose),
    }
}

/// A response whose body is still to be read.
pub struct Response {
    /// Status and headers.
    pub head: Head,
    /// The body, and the connection that it is read from.
    pub body: Body,
}

/// Opens a new connection within the item's connect limit.
async fn open(target: &Target, limits: &Proxying) -> Result<Connection, ClientError> {
    let slow = || ClientError::Connect(io::ErrorKind::TimedOut.into());
    let wire = timeout(
        limits.connect(),
        Transport::open(&target.endpoint, target.tls.as_ref()),
    )
    .await
    .map_err(|_| slow())?
    .map_err(ClientError::Connect)?;
    Ok(Connection::new(wire))
}

/// Reads until a final response head, or a 101, is complete. `to_head`: the request was a HEAD.
fn poll_head(
    connection: &mut Connection,
    context: &mut Context<'_>,
    to_head: bool,
) -> Poll<Result<Head, ClientError>> {
    loop {
        if let Some(head) = Head::parse(&mut connection.buffer, to_head)? {
            // Interim responses (103) should be forwarded (RFC 9110 section 15.2), but actix
            // cannot send them. A 101 is final.
            if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
                continue;
            }
            return Poll::Ready(Ok(head));
        }
        if ready!(connection.poll_fill(context)).map_err(ClientError::Io)? == 0 {
            return Poll::Ready(Err(ClientError::Io(io::ErrorKind::UnexpectedEof.into())));
        }
    }
}

/// A connection for one request, from the pool or new. `repeatable`: the request is idempotent and
/// has no body, so it may be sent twice. The only error is [`ClientError::Connect`].
pub async fn connect(
    target: &Target,
    limits: &Proxying,
    repeatable: bool,
) -> Result<Prepared, ClientError> {
    match target.pool.take(repeatable) {
        Some(connection) => Ok(Prepared {
            connection,
            may_retry: repeatable,
        }),
        None => Ok(Prepared {
            connection: Box::pin(open(target, limits)).await?,
            may_retry: false,
        }),
    }
}

/// A connection for a request that is not sent yet.
pub struct Prepared {
    connection: Connection,
    /// A pooled connection that the app may be closing at this moment: if it breaks, the request is
    /// sent once more, on a new connection.
    may_retry: bool,
}

/// Sends a request's head and body, and waits for the head of the response; the upload may go on
/// while the response's body is read. `to_head`: the request is a HEAD.
pub async fn send(
    ready: Prepared,
    target: &Target,
    limits: &Proxying,
    head: &[u8],
    mut upload: Option<Upload>,
    to_head: bool,
) -> Result<Response, ClientError> {
    let Prepared {
        mut connection,
        mut may_retry,
    } = ready;
    loop {
        let found = match await_head(&mut connection, limits, head, &mut upload, to_head).await {
            // The app has sent nothing on it, not even a part of a head: safe to retry.
            Err(ClientError::Io(_))
                if may_retry && upload.is_none() && connection.buffer.is_empty() =>
            {
                connection = Box::pin(open(target, limits)).await?;
                may_retry = false;
                continue;
            }
            other => other?,
        };
        let framing = found.framing;
        let mut body = Inner {
            persistent: found.persistent,
            connection: Some(connection),
            framing,
            upload,
            pool: Rc::clone(&target.pool),
            idle: limits.idle(),
            timer: None,
            trailers: Fields::new(),
        };
        if framing == Framing::Empty && found.status != StatusCode::SWITCHING_PROTOCOLS {
            body.release_if_sent();
        }
        return Ok(Response {
            head: found,
            body: Body::new(body),
        });
    }
}

/// Writes the request and returns the head of the response. The first-byte limit applies while the
/// app neither reads the upload nor responds.
async fn await_head(
    connection: &mut Connection,
    limits: &Proxying,
    head: &[u8],
    upload: &mut Option<Upload>,
    to_head: bool,
) -> Result<Head, ClientError> {
    let mut sent = 0;
    let mut flushed = false;
    let (mut taken, mut uploading) = (0, upload.is_some());
    loop {
        let waiting = poll_fn(|context| {
            while let Some(rest) = head.get(sent..).filter(|rest| !rest.is_empty()) {
                sent += ready!(Pin::new(&mut connection.wire).poll_write(context, rest))
                    .map_err(ClientError::Io)?;
            }
            if !flushed {
                ready!(Pin::new(&mut connection.wire).poll_flush(context))
                    .map_err(ClientError::Io)?;
                flushed = true;
            }
            if let Some(under_way) = upload {
                match under_way.poll(&mut connection.wire, context) {
                    Poll::Ready(Ok(())) => *upload = None,
                    Poll::Ready(Err(UploadError::Sender)) => {
                        return Poll::Ready(Err(ClientError::Upload));
                    }
                    // The app closed its reading side: stop the upload, but read its response,
                    // which may say why.
                    Poll::Ready(Err(UploadError::App)) => {
                        under_way.body = futures_util::stream::pending().boxed_local()
                    }
                    Poll::Pending => {}
                }
            }
            poll_head(connection, context, to_head)
        });
        match timeout(limits.first_byte(), waiting).await {
            Ok(found) => return found,
            // An upload has no limit in total: go on while the app reads it, or while the portal
            // waits for the browser, which has a deadline of its own
            // (`http::body::UPLOAD_IDLE_TIMEOUT`).
            Err(_) => match upload {
                Some(upload)
                    if !upload.ended && (upload.written > taken || upload.pending.is_empty()) =>
                {
                    taken = upload.written
                }
                // The upload ended meanwhile: the first-byte limit starts now.
                None if uploading => uploading = false,
                _ => return Err(ClientError::FirstByteTimeout),
            },
        }
    }
}

/// The body of a response. At its end the connection returns to the pool, if it can be reused.
///
/// The rest of the request's body is sent by a separate task, not when this body is polled: a browser
/// that reads no response before it has sent everything would stop both.
pub struct Body(BodyState);

#[expect(
    clippy::large_enum_variant,
    reason = "nearly every response is of the large variant: a box would cost each an allocation"
)]
enum BodyState {
    Own(Inner),
    /// Beside an upload, with the task that sends it.
    Shared(Rc<RefCell<Inner>>, JoinHandle<()>),
}

impl Drop for Body {
    fn drop(&mut self) {
        if let BodyState::Shared(_, upload) = &self.0 {
            upload.abort();
        }
    }
}

impl Body {
    fn new(inner: Inner) -> Self {
        if inner.upload.is_none() {
            return Self(BodyState::Own(inner));
        }
        let inner = Rc::new(RefCell::new(inner));
        let sending = Rc::clone(&inner);
        let upload =
            async move { poll_fn(|context| sending.borrow_mut().poll_upload(context)).await };
        Self(BodyState::Shared(inner, actix_web::rt::spawn(upload)))
    }

    fn with<T>(&mut self, work: impl FnOnce(&mut Inner) -> T) -> T {
        match &mut self.0 {
            BodyState::Own(inner) => work(inner),
            BodyState::Shared(inner, _) => work(&mut inner.borrow_mut()),
        }
    }

    /// Number of bytes that are left to read, if known.
    pub fn length(&mut self) -> Option<u64> {
        self.with(|inner| match inner.framing {
            Framing::Empty => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked(_) | Framing::UntilClose => None,
        })
    }

    /// Whether the body is chunked, and so may have trailers.
    pub fn is_chunked(&mut self) -> bool {
        self.with(|inner| matches!(inner.framing, Framing::Chunked(_)))
    }

    /// Takes the whole body, if it arrived together with the head and has a known length. The
    /// connection then returns to the pool.
    pub fn take_whole(&mut self) -> Option<Bytes> {
        self.with(Inner::take_whole)
    }

    /// The bare connection, after a 101 (Switching Protocols).
    pub fn into_connection(mut self) -> Option<Connection> {
        self.with(|inner| inner.connection.take())
    }

    /// The next piece of the body; `None` at its end. Errors: the app broke off before the end,
    /// sent invalid chunks, or sent nothing for longer than the item's idle limit.
    pub fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        self.with(|inner| inner.poll_data(context))
    }

    /// The trailer fields (RFC 9112 section 7.1.2); complete once the body has ended.
    pub fn take_trailers(&mut self) -> Fields {
        self.with(|inner| std::mem::take(&mut inner.trailers))
    }
}

/// The state of a [`Body`].
struct Inner {
    connection: Option<Connection>,
    framing: Framing,
    persistent: bool,
    upload: Option<Upload>,
    pool: Rc<Pool>,
    idle: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    trailers: Fields,
}

impl Inner {
    fn take_whole(&mut self) -> Option<Bytes> {
        let connection = self.connection.as_mut()?;
        let Framing::Length(length) = self.framing else {
            return None;
        };
        let length = usize::try_from(length)
            .ok()
            .filter(|length| connection.buffer.len() >= *length && self.upload.is_none())?;
        let bytes = connection.buffer.split_to(length).freeze();
        self.framing = Framing::Empty;
        self.release_if_sent();
        Some(bytes)
    }

    /// Sends the rest of the request's body. `Ready` when all of it is sent, or the connection to the
    /// app no longer takes it.
    fn poll_upload(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let (Some(connection), Some(upload)) = (&mut self.connection, &mut self.upload) else {
            return Poll::Ready(());
        };
        let sent = ready!(upload.poll(&mut connection.wire, context));
        self.persistent &= sent.is_ok();
        self.upload = None;
        Poll::Ready(())
    }

    /// Gives up the connection if the request's body was sent: to the pool if it is persistent and
    /// the app has sent nothing more, otherwise it is closed.
    fn release_if_sent(&mut self) {
        if self.upload.is_none()
            && let Some(connection) = self.connection.take()
            && self.persistent
            && connection.buffer.is_empty()
        {
            self.pool.put(connection);
        }
    }

    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let broken = |why: &str| {
            Poll::Ready(Some(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                why.to_owned(),
            ))))
        };
        loop {
            let Some(connection) = &mut self.connection else {
                return Poll::Ready(None);
            };
            let buffer = &mut connection.buffer;
            match &mut self.framing {
                Framing::Empty => {
                    // The app responded without reading the whole upload: the upload stops, and the
                    // connection is not reused.
                    self.persistent &= self.upload.is_none();
                    self.upload = None;
                    self.release_if_sent();
                    return Poll::Ready(None);
                }
                Framing::Length(left) if !buffer.is_empty() => {
                    let most = usize::try_from(*left)
                        .unwrap_or(usize::MAX)
                        .min(buffer.len());
                    let bytes = buffer.split_to(most).freeze();
                    *left -= bytes.len() as u64;
                    if *left == 0 {
                        self.framing = Framing::Empty;
                    }
                    return Poll::Ready(Some(Ok(bytes)));
                }
                Framing::UntilClose if !buffer.is_empty() => {
                    return Poll::Ready(Some(Ok(buffer.split().freeze())));
                }
                Framing::Chunked(chunk) => match next_chunk(chunk, buffer, &mut self.trailers) {
                    Ok(Step::Data(bytes)) => return Poll::Ready(Some(Ok(bytes))),
                    Ok(Step::End) => {
                        self.framing = Framing::Empty;
                        continue;
                    }
                    Ok(Step::NeedMore) => {}
                    Err(why) => return broken(why),
                },
                Framing::Length(_) | Framing::UntilClose => {}
            }
            match connection.poll_fill(context) {
                Poll::Ready(Ok(0)) if self.framing == Framing::UntilClose => {
                    self.framing = Framing::Empty
                }
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
                }
                Poll::Ready(Ok(_)) => self.timer = None,
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error))),
                Poll::Pending => {
                    let idle = self.idle;
                    let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(idle)));
                    ready!(timer.as_mut().poll(context));
                    return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
                }
            }
        }
    }
}

/// Status and body of a final response to a GET that is whole in memory, or `None` if it is not
/// valid or breaks off. For tests, with the parsers of a live connection.
#[doc(hidden)]
pub fn parse_whole(bytes: &[u8]) -> Option<(StatusCode, Vec<u8>)> {
    let mut buffer = BytesMut::from(bytes);
    let head = Head::parse(&mut buffer, false).ok()??;
    let body = match head.framing {
        _ if head.status.is_informational() => return None,
        Framing::Empty => Vec::new(),
        Framing::UntilClose => buffer.to_vec(),
        Framing::Length(length) => buffer.get(..usize::try_from(length).ok()?)?.to_vec(),
        Framing::Chunked(mut chunk) => {
            let (mut body, mut trailers) = (Vec::new(), Fields::new());
            loop {
                match next_chunk(&mut chunk, &mut buffer, &mut trailers).ok()? {
                    Step::Data(bytes) => body.extend_from_slice(&bytes),
                    Step::NeedMore => return None,
                    Step::End => break body,
                }
            }
        }
    };
    Some((head.status, body))
}

/// What [`next_chunk`] found.
enum Step {
    Data(Bytes),
    /// More input is needed.
    NeedMore,
    /// The body has ended, trailers included.
    End,
}

/// Parses the next part of a chunked body (RFC 9112 section 7.1). Refuses bare line feeds and size
/// lines that are not hexadecimal numbers. Chunk extensions are ignored.
fn next_chunk(
    chunk: &mut Chunk,
    buffer: &mut BytesMut,
    trailers: &mut Fields,
) -> Result<Step, &'static str> {
    loop {
        match chunk {
            Chunk::Line => {
                let Some(end) = buffer.iter().position(|byte| *byte == b'\n') else {
                    return if buffer.len() > MAX_CHUNK_LINE_BYTES {
                        Err("a chunk's line is too long")
                    } else {
                        Ok(Step::NeedMore)
                    };
                };
                let line = buffer.split_to(end + 1);
                let line = line
                    .strip_suffix(b"\r\n")
                    .filter(|line| !line.contains(&b'\r'))
                    .ok_or("a chunk's line ends with a bare line feed")?;
                let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
                // Blanks may follow the number, but not precede it.
                let end = size
                    .iter()
                    .rposition(|byte| !matches!(byte, b' ' | b'\t'))
                    .map_or(0, |last| last + 1);
                let size = size.get(..end).unwrap_or_default();
                let size = std::str::from_utf8(size)
                    .ok()
                    .filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()));
                let size = size
                    .and_then(|text| u64::from_str_radix(text, 16).ok())
                    .ok_or("a chunk's length")?;
                *chunk = if size == 0 {
                    Chunk::Trailers
                } else {
                    Chunk::Data(size)
                };
            }
            Chunk::Data(left) => {
                if buffer.is_empty() {
                    return Ok(Step::NeedMore);
                }
                let most = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(buffer.len());
                let bytes = buffer.split_to(most).freeze();
                *left -= bytes.len() as u64;
                if *left == 0 {
                    *chunk = Chunk::End;
                }
                return Ok(Step::Data(bytes));
            }
            Chunk::End => {
                if buffer.len() < 2 {
                    return Ok(Step::NeedMore);
                }
                if buffer.split_to(2) != b"\r\n"[..] {
                    return Err("a chunk is longer than it says");
                }
                *chunk = Chunk::Line;
            }
            Chunk::Trailers => {
                let mut found = [httparse::EMPTY_HEADER; MAX_FIELDS];
                let length = match httparse::parse_headers(buffer, &mut found) {
                    Ok(httparse::Status::Complete((length, fields))) => {
                        for field in fields {
                            let name = HeaderName::from_bytes(field.name.as_bytes())
                                .map_err(|_| "a trailer")?;
                            trailers.push((
                                name,
                                HeaderValue::from_bytes(field.value).map_err(|_| "a trailer")?,
                            ));
                        }
                        length
                    }
                    Ok(httparse::Status::Partial) if buffer.len() < MAX_TRAILER_BYTES => {
                        return Ok(Step::NeedMore);
                    }
                    _ => return Err("the trailers"),
                };
                let block = buffer.split_to(length);
                let mut lines = <[u8]>::split(&block, |byte| *byte == b'\n').rev().skip(1);
                if lines.any(|line| !line.ends_with(b"\r")) {
                    return Err("a trailer ends with a bare line feed");
                }
                return Ok(Step::End);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str, to_head: bool) -> Result<(Head, String), String> {
        let mut buffer = BytesMut::from(text);
        match Head::parse(&mut buffer, to_head) {
            Ok(Some(head)) => Ok((head, String::from_utf8(buffer.to_vec()).unwrap())),
            Ok(None) => Err("partial".into()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn the_framing_of_a_response_is_unambiguous_or_refused() {
        let end = |fields: &str| {
            head(&format!("HTTP/1.1 200 OK\r\n{fields}\r\nrest"), false)
                .map(|(head, _)| (head.framing, head.persistent))
        };
        assert_eq!(end("Content-Length: 5\r\n"), Ok((Framing::Length(5), true)));
        assert_eq!(
            end("Content-Length: 5\r\nContent-Length: 5\r\n"),
            Ok((Framing::Length(5), true))
        );
        assert_eq!(
            end("Content-Length: 5, 5\r\nConnection: close\r\n"),
            Ok((Framing::Length(5), false))
        );
        assert_eq!(
            end("Transfer-Encoding: Chunked\r\n"),
            Ok((Framing::Chunked(Chunk::Line), true))
        );
        assert_eq!(end(""), Ok((Framing::UntilClose, false)));
        for wrong in [
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length: \r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "X: a\r\n b\r\n",
            "X y: a\r\n",
        ] {
            assert!(end(wrong).is_err(), "{wrong:?}: {:?}", end(wrong));
        }
        assert_eq!(
            head("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true)
                .unwrap()
                .0
                .framing,
            Framing::Empty
        );
        for bodiless in ["204 No Content", "304 Not Modified"] {
            assert_eq!(
                head(
                    &format!("HTTP/1.1 {bodiless}\r\nContent-Length: 5\r\n\r\n"),
                    false
                )
                .unwrap()
                .0
                .framing,
                Framing::Empty
            );
        }
        assert!(
            !head("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", false)
                .unwrap()
                .0
                .persistent
        );
        assert!(
            head(
                "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: Keep-Alive\r\n\r\n",
                false
            )
            .unwrap()
            .0
            .persistent
        );
        assert_eq!(
            head("HTTP/1.1 200 OK\r\nContent-Le", false).map(|_| ()),
            Err("partial".into())
        );
        assert_eq!(
            head(
                "HTTP/1.1 200 OK\r\nX-Empty:\r\nContent-Length: 0\r\n\r\nrest",
                false
            )
            .unwrap()
            .1,
            "rest"
        );
    }

    #[tokio::test]
    async fn an_upload_that_does_not_match_its_length_fails() {
        for (length, pieces, good) in [
            (Some(5), vec!["hello"], true),
            (Some(5), vec![], false),
            (Some(5), vec!["hell"], false),
            (Some(5), vec!["hello", "!"], false),
            (None, vec!["x"], true),
        ] {
            let (near, _far) = tokio::net::UnixStream::pair().unwrap();
            let mut wire = Transport::Unix(near);
            let pieces: Vec<Result<Bytes, PayloadError>> = pieces
                .into_iter()
                .map(|piece| Ok(Bytes::from_static(piece.as_bytes())))
                .collect();
            let mut upload = Upload::new(futures_util::stream::iter(pieces).boxed_local(), length);
            let sent = poll_fn(|context| upload.poll(&mut wire, context)).await;
            assert_eq!(sent.is_ok(), good, "{length:?}");
        }
    }

    #[test]
    fn chunks_are_parsed_strictly_however_the_input_is_split() {
        let read = |text: &str, at_once: usize| -> Result<(String, Fields), String> {
            let (mut chunk, mut buffer, mut trailers, mut body) =
                (Chunk::Line, BytesMut::new(), Fields::new(), Vec::new());
            let mut pieces = text.as_bytes().chunks(at_once);
            loop {
                match next_chunk(&mut chunk, &mut buffer, &mut trailers)? {
                    Step::Data(bytes) => body.extend_from_slice(&bytes),
                    Step::End => return Ok((String::from_utf8(body).unwrap(), trailers)),
                    Step::NeedMore => buffer.extend_from_slice(pieces.next().ok_or("short")?),
                }
            }
        };
        let good = "5\r\nhello\r\n6;name=\"v\"\r\n world\r\n0\r\nX-Sum: abc\r\nX-More: d\r\n\r\n";
        for at_once in [1, 2, 3, 7, 1000] {
            let (body, trailers) = read(good, at_once).unwrap();
            assert_eq!(
                (body.as_str(), trailers.len()),
                ("hello world", 2),
                "{at_once}"
            );
        }
        for wrong in [
            "5\nhello\r\n0\r\n\r\n",
            "5\r\nhelloo\r\n0\r\n\r\n",
            "-5\r\n",
            "5 5\r\n",
            "\r\n",
            "x\r\n",
            "+5\r\nhello\r\n0\r\n\r\n",
            "11111111111111111\r\n",
            "5\r\nhel",
        ] {
            assert!(read(wrong, 1000).is_err(), "{wrong:?}");
        }
    }
}
