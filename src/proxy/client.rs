//! HTTP/1.1 to apps (RFC 9112): one request, one answer, bodies streamed both ways at once,
//! connections used again.
//!
//! Everything runs in the worker's own task: no channel, no second task. What an app says is read
//! strictly: an answer whose end cannot be told for sure is refused, and one that ends early ends
//! with an error, never as a short success.

use super::{upstream::Target, wire::Wire};
use crate::domain::content::Proxying;
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
    collections::VecDeque,
    future::{Future as _, poll_fn},
    io,
    mem::MaybeUninit,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};
use tokio::{
    io::AsyncWrite as _,
    time::{Sleep, sleep, timeout},
};

const LARGEST_HEAD: usize = 64 * 1024;
const LARGEST_TRAILERS: usize = 16 * 1024;
const LONGEST_CHUNK_LINE: usize = 4 * 1024;
const MOST_FIELDS: usize = 128;
const READ_AT_ONCE: usize = 16 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// Nothing was sent.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("the connection broke: {0}")]
    Broke(io::Error),
    #[error("no answer in time")]
    Slow,
    /// The browser's upload rested for too long, or broke off.
    #[error("the upload stopped")]
    Upload,
    #[error("not HTTP/1.1: {0}")]
    Nonsense(&'static str),
}

pub type Fields = Vec<(HeaderName, HeaderValue)>;

/// A connection with what was read from it and not used yet.
pub struct Connection {
    pub wire: Wire,
    pub buffer: BytesMut,
    rested_since: Instant,
}

impl Connection {
    async fn open(target: &Target, limits: &Proxying) -> Result<Self, Failed> {
        let slow = || Failed::Connect(io::ErrorKind::TimedOut.into());
        let wire = timeout(limits.connect(), Wire::open(target))
            .await
            .map_err(|_| slow())?
            .map_err(Failed::Connect)?;
        Ok(Self {
            wire,
            buffer: BytesMut::new(),
            rested_since: Instant::now(),
        })
    }

    /// Reads more; `Ok(0)` at the end.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.buffer.reserve(READ_AT_ONCE);
        tokio_util::io::poll_read_buf(Pin::new(&mut self.wire), context, &mut self.buffer)
    }

    fn poll_head(
        &mut self,
        context: &mut Context<'_>,
        to_head: bool,
    ) -> Poll<Result<Head, Failed>> {
        loop {
            if let Some(head) = Head::parse(&mut self.buffer, to_head)? {
                // Interim answers should pass (RFC 9110 section 15.2), but actix cannot send them;
                // only the change of protocols is an end.
                if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS
                {
                    continue;
                }
                return Poll::Ready(Ok(head));
            }
            if ready!(self.poll_fill(context)).map_err(Failed::Broke)? == 0 {
                return Poll::Ready(Err(Failed::Broke(io::ErrorKind::UnexpectedEof.into())));
            }
        }
    }
}

/// Connections that rest, the last one used first. One pool for each endpoint and worker.
#[derive(Default)]
pub struct Pool(std::cell::RefCell<VecDeque<Connection>>);

impl Pool {
    const MOST: usize = 128;
    const LONGEST_REST: Duration = Duration::from_secs(30);
    /// A request that must not be sent twice gets no connection that may be closing right now.
    const SHORT_REST: Duration = Duration::from_secs(1);

    fn take(&self, repeatable: bool) -> Option<Connection> {
        let longest = if repeatable {
            Self::LONGEST_REST
        } else {
            Self::SHORT_REST
        };
        let mut resting = self.0.borrow_mut();
        while let Some(connection) = resting.pop_back() {
            if connection.rested_since.elapsed() < longest && !connection.wire.is_over() {
                return Some(connection);
            }
        }
        None
    }

    /// Closes what rested for too long, or was closed by its app.
    pub fn sweep(&self) {
        self.0.borrow_mut().retain(|connection| {
            connection.rested_since.elapsed() < Self::LONGEST_REST && !connection.wire.is_over()
        });
    }

    fn put(&self, mut connection: Connection) {
        let mut resting = self.0.borrow_mut();
        if resting.len() < Self::MOST {
            connection.rested_since = Instant::now();
            // What is left of a large buffer is not worth keeping.
            connection.buffer = BytesMut::new();
            resting.push_back(connection);
        }
    }
}

/// A request's body on its way.
pub struct Upload {
    body: LocalBoxStream<'static, Result<Bytes, PayloadError>>,
    /// What is still to come of the length that the head names; without one the body is chunked.
    /// HTTP/2 lets a body end before it is as long as it says: sent on like that, it would take the
    /// next request on the connection for its rest.
    left: Option<u64>,
    pending: VecDeque<Bytes>,
    ended: bool,
    /// How many bytes the app has taken.
    taken: u64,
}

enum UploadFailed {
    /// The sender stopped.
    Sender,
    /// The app reads no more; it may answer all the same.
    App,
}

impl Upload {
    pub fn new(
        body: LocalBoxStream<'static, Result<Bytes, PayloadError>>,
        length: Option<u64>,
    ) -> Self {
        Self {
            body,
            left: length,
            pending: VecDeque::new(),
            ended: false,
            taken: 0,
        }
    }

    fn poll(
        &mut self,
        wire: &mut Wire,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), UploadFailed>> {
        loop {
            while let Some(front) = self.pending.front_mut() {
                if front.is_empty() {
                    self.pending.pop_front();
                    continue;
                }
                let written = ready!(Pin::new(&mut *wire).poll_write(context, front))
                    .map_err(|_| UploadFailed::App)?;
                front.advance(written);
                self.taken += written as u64;
            }
            if self.ended {
                return Pin::new(&mut *wire)
                    .poll_flush(context)
                    .map_err(|_| UploadFailed::App);
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
                        None => return Poll::Ready(Err(UploadFailed::Sender)),
                    },
                },
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(UploadFailed::Sender)),
                Poll::Ready(None) => match self.left {
                    Some(1..) => return Poll::Ready(Err(UploadFailed::Sender)),
                    Some(0) => self.ended = true,
                    None => {
                        self.ended = true;
                        self.pending.push_back(Bytes::from_static(b"0\r\n\r\n"));
                    }
                },
                Poll::Pending => {
                    // What was taken so far is to arrive, over TLS, too.
                    let _ = Pin::new(&mut *wire).poll_flush(context);
                    return Poll::Pending;
                }
            }
        }
    }
}

/// The head of an app's answer.
pub struct Head {
    pub status: StatusCode,
    pub fields: Fields,
    framing: Framing,
    persistent: bool,
}

/// Where a body ends (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Empty,
    Length(u64),
    Chunked(Chunk),
    UntilClose,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunk {
    Line,
    Data(u64),
    End,
    Trailers,
}

impl Head {
    /// Takes a head from the buffer; `None` while it is not whole.
    fn parse(buffer: &mut BytesMut, to_head: bool) -> Result<Option<Self>, Failed> {
        if buffer.is_empty() {
            return Ok(None);
        }
        // Not cleared first: that would cost more than reading a head.
        let mut found = [const { MaybeUninit::uninit() }; MOST_FIELDS];
        let mut answer = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut answer,
            buffer,
            &mut found,
        );
        let length = match parsed {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if buffer.len() < LARGEST_HEAD => return Ok(None),
            Ok(httparse::Status::Partial) => return Err(Failed::Nonsense("the head is too large")),
            Err(_) => return Err(Failed::Nonsense("the head cannot be read")),
        };
        let status = answer
            .code
            .and_then(|code| StatusCode::from_u16(code).ok())
            .ok_or(Failed::Nonsense("no status"))?;
        let newest = answer.version == Some(1);
        // Names are made here, values share the buffer's memory: their places in it are kept until
        // it is frozen.
        let start = buffer.as_ptr() as usize;
        let mut places = Vec::with_capacity(answer.headers.len());
        for field in answer.headers.iter() {
            let name = HeaderName::from_bytes(field.name.as_bytes())
                .map_err(|_| Failed::Nonsense("the name of a field"))?;
            let at = field.value.as_ptr() as usize - start;
            places.push((name, at..at + field.value.len()));
        }
        let bytes = buffer.split_to(length).freeze();
        let mut fields = Vec::with_capacity(places.len());
        for (name, place) in places {
            // An empty value may point anywhere.
            let value = if place.is_empty() {
                Bytes::new()
            } else {
                bytes.slice(place)
            };
            fields.push((
                name,
                HeaderValue::from_maybe_shared(value)
                    .map_err(|_| Failed::Nonsense("the value of a field"))?,
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

    pub fn get(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.fields
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value)
    }
}

fn framing(status: StatusCode, fields: &Fields, to_head: bool) -> Result<Framing, Failed> {
    let all = |wanted: HeaderName| {
        fields
            .iter()
            .filter(move |(name, _)| *name == wanted)
            .map(|(_, value)| value.as_bytes())
    };
    let mut length = None;
    for line in all(header::CONTENT_LENGTH) {
        // Lists of the same number count as one (RFC 9110 section 8.6).
        for part in line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            let digits = !part.is_empty() && part.iter().all(u8::is_ascii_digit);
            let number = digits
                .then(|| std::str::from_utf8(part).ok()?.parse::<u64>().ok())
                .flatten();
            let number = number.ok_or(Failed::Nonsense("content-length"))?;
            if length.is_some_and(|before| before != number) {
                return Err(Failed::Nonsense("two lengths"));
            }
            length = Some(number);
        }
    }
    let mut codings = all(header::TRANSFER_ENCODING);
    let chunked = match (codings.next(), codings.next()) {
        (None, _) => false,
        (Some(coding), None) if coding.trim_ascii().eq_ignore_ascii_case(b"chunked") => true,
        // Another coding would have to be undone: nobody sends one.
        _ => return Err(Failed::Nonsense("transfer-encoding")),
    };
    if to_head
        || status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
    {
        return Ok(Framing::Empty);
    }
    match (chunked, length) {
        (true, Some(_)) => Err(Failed::Nonsense("transfer-encoding and content-length")),
        (true, None) => Ok(Framing::Chunked(Chunk::Line)),
        (false, Some(0)) => Ok(Framing::Empty),
        (false, Some(length)) => Ok(Framing::Length(length)),
        (false, None) => Ok(Framing::UntilClose),
    }
}

/// An answer, its body still to come.
pub struct Answer {
    pub head: Head,
    pub body: Body,
}

/// A connection for one request. `repeatable`: the request has no body, and sending it twice does
/// no harm.
pub async fn connect(
    target: &Target,
    limits: &Proxying,
    repeatable: bool,
) -> Result<Ready, Failed> {
    match target.pool.take(repeatable) {
        Some(connection) => Ok(Ready {
            connection,
            again: repeatable,
        }),
        None => Ok(Ready {
            connection: Connection::open(target, limits).await?,
            again: false,
        }),
    }
}

/// A connection that nothing was sent on yet.
pub struct Ready {
    connection: Connection,
    /// It rested before and may be closing right now: then the request goes over a new one, once.
    again: bool,
}

/// Sends a request's head and body and waits for the head of the answer.
pub async fn send(
    ready: Ready,
    target: &Target,
    limits: &Proxying,
    head: &[u8],
    mut upload: Option<Upload>,
    to_head: bool,
) -> Result<Answer, Failed> {
    let Ready {
        mut connection,
        mut again,
    } = ready;
    loop {
        let found = match await_head(&mut connection, limits, head, &mut upload, to_head).await {
            // Nothing was heard from it, not even half a head.
            Err(Failed::Broke(_)) if again && upload.is_none() && connection.buffer.is_empty() => {
                connection = Connection::open(target, limits).await?;
                again = false;
                continue;
            }
            other => other?,
        };
        let framing = found.framing;
        let mut body = Body {
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
            body.finish_if_sent();
        }
        return Ok(Answer { head: found, body });
    }
}

async fn await_head(
    connection: &mut Connection,
    limits: &Proxying,
    head: &[u8],
    upload: &mut Option<Upload>,
    to_head: bool,
) -> Result<Head, Failed> {
    let mut sent = 0;
    let mut flushed = false;
    let (mut taken, mut uploading) = (0, upload.is_some());
    loop {
        let waiting = poll_fn(|context| {
            while let Some(rest) = head.get(sent..).filter(|rest| !rest.is_empty()) {
                sent += ready!(Pin::new(&mut connection.wire).poll_write(context, rest))
                    .map_err(Failed::Broke)?;
            }
            if !flushed {
                ready!(Pin::new(&mut connection.wire).poll_flush(context))
                    .map_err(Failed::Broke)?;
                flushed = true;
            }
            if let Some(under_way) = upload {
                match under_way.poll(&mut connection.wire, context) {
                    Poll::Ready(Ok(())) => *upload = None,
                    Poll::Ready(Err(UploadFailed::Sender)) => {
                        return Poll::Ready(Err(Failed::Upload));
                    }
                    // Its answer may say why.
                    Poll::Ready(Err(UploadFailed::App)) => {
                        under_way.body = futures_util::stream::pending().boxed_local()
                    }
                    Poll::Pending => {}
                }
            }
            connection.poll_head(context, to_head)
        });
        match timeout(limits.first_byte(), waiting).await {
            Ok(found) => return found,
            // An upload takes as long as it takes, while the app goes on reading it; a sender that
            // rests has a clock of its own.
            Err(_) => match upload {
                Some(upload)
                    if !upload.ended && (upload.taken > taken || upload.pending.is_empty()) =>
                {
                    taken = upload.taken
                }
                // It ended meanwhile: now the app may think.
                None if uploading => uploading = false,
                _ => return Err(Failed::Slow),
            },
        }
    }
}

/// The body of an answer; what is left of the request's body is sent meanwhile.
pub struct Body {
    connection: Option<Connection>,
    framing: Framing,
    persistent: bool,
    upload: Option<Upload>,
    pool: Rc<Pool>,
    idle: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// Fields behind the body (RFC 9112 section 7.1.2), once it has ended.
    pub trailers: Fields,
}

impl Body {
    /// Its length, where the head says so.
    pub fn length(&self) -> Option<u64> {
        match self.framing {
            Framing::Empty => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked(_) | Framing::UntilClose => None,
        }
    }

    pub fn is_chunked(&self) -> bool {
        matches!(self.framing, Framing::Chunked(_))
    }

    /// All of it, if it came together with the head.
    pub fn whole(&mut self) -> Option<Bytes> {
        let connection = self.connection.as_mut()?;
        let Framing::Length(length) = self.framing else {
            return None;
        };
        let length = usize::try_from(length)
            .ok()
            .filter(|length| connection.buffer.len() >= *length && self.upload.is_none())?;
        let bytes = connection.buffer.split_to(length).freeze();
        self.framing = Framing::Empty;
        self.finish_if_sent();
        Some(bytes)
    }

    /// The bare connection, after a change of protocols.
    pub fn into_connection(mut self) -> Option<Connection> {
        self.connection.take()
    }

    fn finish_if_sent(&mut self) {
        if self.upload.is_none()
            && let Some(connection) = self.connection.take()
            && self.persistent
            && connection.buffer.is_empty()
        {
            self.pool.put(connection);
        }
    }

    /// The next piece; `None` at the end, and an error where an app broke off before it.
    pub fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
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
            if let Some(upload) = &mut self.upload {
                match upload.poll(&mut connection.wire, context) {
                    Poll::Ready(Ok(())) => self.upload = None,
                    Poll::Ready(Err(_)) => {
                        self.persistent = false;
                        self.upload = None;
                    }
                    Poll::Pending => {}
                }
            }
            let buffer = &mut connection.buffer;
            match &mut self.framing {
                Framing::Empty => {
                    // An upload that the app did not wait for ends with its answer.
                    self.persistent &= self.upload.is_none();
                    self.upload = None;
                    self.finish_if_sent();
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
                    Ok(Step::Over) => {
                        self.framing = Framing::Empty;
                        continue;
                    }
                    Ok(Step::More) => {}
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

enum Step {
    Data(Bytes),
    More,
    Over,
}

/// One step through a chunked body (RFC 9112 section 7.1). Bare line feeds and lines that are no
/// numbers are refused.
fn next_chunk(
    chunk: &mut Chunk,
    buffer: &mut BytesMut,
    trailers: &mut Fields,
) -> Result<Step, &'static str> {
    loop {
        match chunk {
            Chunk::Line => {
                let Some(end) = buffer.iter().position(|byte| *byte == b'\n') else {
                    return if buffer.len() > LONGEST_CHUNK_LINE {
                        Err("a chunk's line is too long")
                    } else {
                        Ok(Step::More)
                    };
                };
                let line = buffer.split_to(end + 1);
                let line = line
                    .strip_suffix(b"\r\n")
                    .ok_or("a chunk's line ends with a bare line feed")?;
                let size = line
                    .split(|byte| *byte == b';')
                    .next()
                    .unwrap_or_default()
                    .trim_ascii();
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
                    return Ok(Step::More);
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
                    return Ok(Step::More);
                }
                if buffer.split_to(2) != b"\r\n"[..] {
                    return Err("a chunk is longer than it says");
                }
                *chunk = Chunk::Line;
            }
            Chunk::Trailers => {
                let mut found = [httparse::EMPTY_HEADER; MOST_FIELDS];
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
                    Ok(httparse::Status::Partial) if buffer.len() < LARGEST_TRAILERS => {
                        return Ok(Step::More);
                    }
                    _ => return Err("the trailers"),
                };
                drop(buffer.split_to(length));
                return Ok(Step::Over);
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
    fn where_a_body_ends_is_told_for_sure_or_refused() {
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
    async fn a_body_that_is_not_as_long_as_it_says_is_never_taken_for_whole() {
        for (length, pieces, good) in [
            (Some(5), vec!["hello"], true),
            (Some(5), vec![], false),
            (Some(5), vec!["hell"], false),
            (Some(5), vec!["hello", "!"], false),
            (None, vec!["x"], true),
        ] {
            let (near, _far) = tokio::net::UnixStream::pair().unwrap();
            let mut wire = Wire::Unix(near);
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
    fn chunks_are_read_strictly_however_they_arrive() {
        let read = |text: &str, at_once: usize| -> Result<(String, Fields), String> {
            let (mut chunk, mut buffer, mut trailers, mut body) =
                (Chunk::Line, BytesMut::new(), Fields::new(), Vec::new());
            let mut pieces = text.as_bytes().chunks(at_once);
            loop {
                match next_chunk(&mut chunk, &mut buffer, &mut trailers)? {
                    Step::Data(bytes) => body.extend_from_slice(&bytes),
                    Step::Over => return Ok((String::from_utf8(body).unwrap(), trailers)),
                    Step::More => buffer.extend_from_slice(pieces.next().ok_or("short")?),
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
