//! HTTP/2 (RFC 9113) with the `h2` crate, in front of actix's services.
//!
//! actix's own dispatcher neither drains its connections at a graceful stop, nor cancels a request
//! whose stream the browser resets, nor sends trailers. This module converts requests and
//! responses between the two libraries' types. Its behaviour on the wire is tested frame by frame
//! in `tests/it/http2.rs`, after the cases of h2spec.

use super::{
    connection::{BrowserConnection, HEAD_TIMEOUT, WRITE_TIMEOUT},
    requests::KEEP_ALIVE,
};
use crate::http::trailers::Trailers;
use actix_http::{
    Payload, Request, Response,
    body::{BodySize, BoxBody, MessageBody},
    error::PayloadError,
};
use actix_service::Service;
use actix_web::http::{
    Method, Uri, Version,
    header::{self, HeaderName, HeaderValue},
};
use bytes::Bytes;
use futures_util::stream;
use h2::{
    Ping, Reason, RecvStream,
    server::{Builder, SendResponse},
};
use std::{
    cell::Cell,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::pin,
    rc::Rc,
    task::ready,
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout};

/// Flow-control windows for uploads, in bytes.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// Maximum number of concurrent streams per connection.
const MAX_STREAMS: u32 = 128;
/// Maximum number of buffered response bytes per stream that the browser has not read.
const SEND_BUFFER: usize = 64 * 1024;
/// Maximum size of a request's header list, in bytes.
const MAX_HEAD_BYTES: u32 = 128 * 1024;
/// How much capacity is reserved for one DATA frame, in bytes.
const DATA_FRAME_BYTES: usize = 16 * 1024;
/// Deadline for a connection's first request.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// After GOAWAY, a connection without open streams that the peer has not closed is closed after
/// this time.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of streams that a browser may reset before the end of their response, between two
/// checks ("rapid reset"): each costs the server more than the client.
const MAX_RESETS: u32 = 1000;

/// Serves one connection until it closes. Once `stop` resolves it accepts no new stream (GOAWAY)
/// and closes with the last open one. `date` gives the value of the `Date` header.
///
/// A timer checks the connection (first after `FIRST_REQUEST_TIMEOUT`, then every [`KEEP_ALIVE`])
/// and sends a PING: a peer from which nothing was read since the last PING counts as gone.
pub async fn serve<S>(
    mut io: BrowserConnection,
    peer: Option<SocketAddr>,
    service: Rc<S>,
    stop: impl Future<Output = ()>,
    date: fn() -> HeaderValue,
) where
    S: Service<Request> + 'static,
    S::Response: Into<Response<BoxBody>>,
    S::Error: Into<Response<BoxBody>>,
{
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MAX_STREAMS)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(MAX_HEAD_BYTES);
    let heard = io.count_reads();
    let Ok(Ok(mut connection)) = timeout(HEAD_TIMEOUT, builder.handshake::<_, Bytes>(io)).await
    else {
        return;
    };
    let Some(mut pings) = connection.ping_pong() else {
        return;
    };
    let given_up = Rc::new(Cell::new(0));
    let (mut look, mut stop) = (pin!(sleep(FIRST_REQUEST_TIMEOUT)), pin!(stop));
    let (mut ending, mut used, mut asked) = (false, false, None);
    loop {
        let mut end = false;
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, mut sender))) => {
                    used = true;
                    let (service, counted) = (Rc::clone(&service), Rc::clone(&given_up));
                    actix_web::rt::spawn(async move {
                        let to_head = request.method() == http::Method::HEAD;
                        let is_reset = match respond(request, &mut sender, peer, service).await {
                            Some(response) => send(response, sender, to_head, date).await,
                            None => true,
                        };
                        if is_reset {
                            counted.set(counted.get() + 1);
                        }
                    });
                    if given_up.get() > MAX_RESETS {
                        connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                    }
                }
                Some(Err(_)) | None => return,
            },
            () = &mut stop, if !ending => end = true,
            pong = poll_fn(|context| pings.poll_pong(context)), if asked.is_some() => match pong {
                Ok(_) => asked = None,
                Err(_) => return,
            },
            () = &mut look => {
                // The peer vanished without closing, or does not react to GOAWAY.
                if asked == Some(heard.get()) || (ending && !connection.has_streams()) {
                    return;
                }
                given_up.set(0);
                end = !std::mem::take(&mut used) && !connection.has_streams() && !ending;
                look.as_mut().reset(Instant::now() + KEEP_ALIVE);
                if asked.is_some() || pings.send_ping(Ping::opaque()).is_ok() {
                    asked = Some(heard.get());
                }
            }
        }
        if end {
            ending = true;
            connection.graceful_shutdown();
            look.as_mut().reset(Instant::now() + DRAIN_TIMEOUT);
        }
    }
}

/// Converts a request into actix's type; `None` if actix's types cannot hold its URI, its method or
/// one of its header fields.
fn to_actix(request: http::Request<RecvStream>, peer: Option<SocketAddr>) -> Option<Request> {
    let (parts, mut body) = request.into_parts();
    let payload = if body.is_end_stream() {
        Payload::None
    } else {
        let pieces = stream::poll_fn(move |context| {
            std::task::Poll::Ready(match ready!(body.poll_data(context)) {
                Some(Ok(bytes)) => {
                    let released = body.flow_control().release_capacity(bytes.len());
                    Some(released.map(|()| bytes).map_err(broken))
                }
                Some(Err(error)) => Some(Err(broken(error))),
                None => None,
            })
        });
        Payload::Stream {
            payload: Box::pin(pieces) as actix_http::BoxedPayloadStream,
        }
    };
    let has_body = matches!(payload, Payload::Stream { .. });
    let mut taken = Request::with_payload(payload);
    let head = taken.head_mut();
    head.version = Version::HTTP_2;
    head.peer_addr = peer;
    head.method = Method::from_bytes(parts.method.as_str().as_bytes()).ok()?;
    head.uri = Uri::try_from(parts.uri.to_string()).ok()?;
    for (name, value) in &parts.headers {
        let name = HeaderName::from_bytes(name.as_str().as_bytes()).ok()?;
        head.headers
            .append(name, HeaderValue::from_bytes(value.as_bytes()).ok()?);
    }
    // A body whose length HTTP/2 does not announce is what HTTP/1.1 calls chunked: say so, for
    // handlers that ask whether there is one. No HTTP/2 request carries this field (RFC 9113
    // section 8.2.2).
    if has_body && !head.headers.contains_key(header::CONTENT_LENGTH) {
        head.headers.insert(
            header::TRANSFER_ENCODING,
            HeaderValue::from_static("chunked"),
        );
    }
    Some(taken)
}

fn broken(error: h2::Error) -> PayloadError {
    PayloadError::Io(io::Error::other(error))
}

/// Runs the service for one request. `None` if the browser reset the stream before the response, or
/// if the request was invalid and the stream has been reset.
async fn respond<S>(
    request: http::Request<RecvStream>,
    sender: &mut SendResponse<Bytes>,
    peer: Option<SocketAddr>,
    service: Rc<S>,
) -> Option<Response<BoxBody>>
where
    S: Service<Request>,
    S::Response: Into<Response<BoxBody>>,
    S::Error: Into<Response<BoxBody>>,
{
    // 100 (Continue) is sent immediately, as actix does over HTTP/1.1 (RFC 9110 section 10.1.1).
    if request
        .headers()
        .get(http::header::EXPECT)
        .is_some_and(|asked| asked.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    {
        let mut go_on = http::Response::new(());
        *go_on.status_mut() = http::StatusCode::CONTINUE;
        drop(sender.send_informational(go_on));
    }
    let Some(request) = to_actix(request, peer) else {
        sender.send_reset(Reason::PROTOCOL_ERROR);
        return None;
    };
    tokio::select! {
        biased;
        answer = service.call(request) => Some(answer.map_or_else(Into::into, Into::into)),
        // The browser reset the stream or is gone: dropping the call cancels the request to the
        // app.
        _ = poll_fn(|context| sender.poll_reset(context)) => None,
    }
}

/// Sends a response with its body and trailers; stops early if the browser resets the stream or
/// reads nothing for [`WRITE_TIMEOUT`]. `true` if the browser reset it.
async fn send(
    answer: Response<BoxBody>,
    mut respond: SendResponse<Bytes>,
    to_head: bool,
    date: fn() -> HeaderValue,
) -> bool {
    let trailers = answer.extensions().get::<Trailers>().cloned();
    let (answer, body) = answer.into_parts();
    let mut body = pin!(body);
    let size = body.size();
    let ended = to_head || size.is_eof();
    let Some(head) = response_head(&answer, size, date) else {
        respond.send_reset(Reason::INTERNAL_ERROR);
        return false;
    };
    let Ok(mut stream) = respond.send_response(head, ended) else {
        return true;
    };
    if ended {
        return false;
    }
    loop {
        let piece = tokio::select! {
            biased;
            piece = poll_fn(|context| body.as_mut().poll_next(context)) => piece,
            _ = poll_fn(|context| stream.poll_reset(context)) => return true,
        };
        let mut bytes = match piece {
            Some(Ok(bytes)) => bytes,
            // Dropping the stream resets it after the data sent so far, so that the browser does
            // not take the body for complete.
            Some(Err(_)) => return false,
            None => break,
        };
        while !bytes.is_empty() {
            stream.reserve_capacity(bytes.len().min(DATA_FRAME_BYTES));
            let room = match stream.capacity() {
                // A deadline per stream: other streams go on while the browser does not read this
                // one, so no write to the connection is blocked and its deadline is not armed.
                0 => {
                    match timeout(
                        WRITE_TIMEOUT,
                        poll_fn(|context| stream.poll_capacity(context)),
                    )
                    .await
                    {
                        Ok(Some(Ok(room))) => room,
                        Err(_) => return false,
                        Ok(_) => return true,
                    }
                }
                room => room,
            };
            if stream
                .send_data(bytes.split_to(room.min(bytes.len())), false)
                .is_err()
            {
                return true;
            }
        }
    }
    let fields = trailers
        .map(|trailers| trailers.0.take())
        .unwrap_or_default();
    let fields: http::HeaderMap = fields
        .iter()
        .filter_map(|(name, value)| from_actix(name, value))
        .collect();
    // Fails only if the browser is already gone.
    drop(if fields.is_empty() {
        stream.send_data(Bytes::new(), true)
    } else {
        stream.send_trailers(fields)
    });
    false
}

/// Converts one header field from actix's types to those of `h2`.
fn from_actix(
    name: &HeaderName,
    value: &HeaderValue,
) -> Option<(http::HeaderName, http::HeaderValue)> {
    let name = http::HeaderName::from_bytes(name.as_str().as_bytes()).ok()?;
    Some((name, http::HeaderValue::from_bytes(value.as_bytes()).ok()?))
}

/// The head of a response, without connection-specific fields (RFC 9113 section 8.2.2).
fn response_head(
    answer: &Response<()>,
    size: BodySize,
    date: fn() -> HeaderValue,
) -> Option<http::Response<()>> {
    let mut head = http::Response::new(());
    *head.status_mut() = http::StatusCode::from_u16(answer.status().as_u16()).ok()?;
    let fields = head.headers_mut();
    let bodiless = matches!(answer.status().as_u16(), 204 | 304);
    for (name, value) in answer.headers() {
        let of_http1 = matches!(
            *name,
            header::CONNECTION
                | header::TRANSFER_ENCODING
                | header::UPGRADE
                | header::CONTENT_LENGTH
        ) || matches!(name.as_str(), "keep-alive" | "proxy-connection");
        if !of_http1 {
            let (name, value) = from_actix(name, value)?;
            fields.append(name, value);
        }
    }
    if let BodySize::Sized(length) = size
        && !bodiless
    {
        fields.insert(http::header::CONTENT_LENGTH, length.into());
    }
    if !fields.contains_key(http::header::DATE) {
        let (name, value) = from_actix(&header::DATE, &date())?;
        fields.insert(name, value);
    }
    Some(head)
}
