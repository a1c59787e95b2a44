//! The response of an app on its way to the browser: its headers are filtered and rewritten, its
//! body is streamed, its trailers are passed on (RFC 9110 section 6.5).
//!
//! Event streams are registered like WebSockets (`sockets.rs`): a revoke cuts them, and a graceful
//! stop does not wait for them.

use crate::{
    domain::{
        Id,
        content::{Content, Process},
        origins::ContentLocation,
    },
    http::{
        body::LengthOnly,
        errors::{FromContent, WebError},
        open_counts::OpenGuard,
        trailers::Trailers,
    },
    proxy::{
        bar,
        candidate::Candidate,
        client::{Body, Fields, Response},
        gate::Pass,
        handover, headers,
        pool::InFlight,
        sockets::Close,
        state::Proxy,
        upstream::Target,
    },
    service::{
        Services, cluster::presence::PresenceGuard, grants::session_tokens::HeldToken,
        running::board::ConnectionCount,
    },
};
use actix_http::{
    ConnectionType,
    body::{BodySize, MessageBody},
};
use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder,
    cookie::Cookie,
    dev::RequestHead,
    http::{
        Method, StatusCode, Version,
        header::{self, HeaderName, HeaderValue},
    },
    web,
};
use bytes::Bytes;
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

/// Builds the browser's response from an app's. `with_bar`: append the reconnect bar if the
/// response is an uncompressed HTML page with status 200.
pub fn to_browser(
    request: &HttpRequest,
    proxy: &web::Data<Proxy>,
    pass: &Pass,
    place: &ContentLocation,
    next: Candidate<'_>,
    answer: Response,
    with_bar: bool,
) -> HttpResponse {
    let Response { head, mut body } = answer;
    let mut response = HttpResponse::build(head.status);
    let kind = head
        .get(&header::CONTENT_TYPE)
        .map(HeaderValue::as_bytes)
        .unwrap_or_default();
    let is_events = headers::is_event_stream(kind);
    let bar = (with_bar
        && head.status == StatusCode::OK
        && kind.starts_with(b"text/html")
        && head.get(&header::CONTENT_ENCODING).is_none())
    .then(|| bar::tag(place));
    each_field(&head.fields, &next.target, place, |name, value| {
        // The app's validators describe the page without the bar.
        if bar.is_none() || !bar::VALIDATORS.contains(name) {
            append(&mut response, name, value);
        }
    });
    if let Some(policy) = frame_ancestors(&head.fields, &pass.content().proxying.allowed_origins) {
        response.append_header((header::CONTENT_SECURITY_POLICY, policy));
    }
    let bodiless = request.method() == Method::HEAD
        || matches!(
            head.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
    let said: Option<u64> = head
        .get(&header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let mut response = match (bodiless, said) {
        // The length that the body would have; actix sends a length without a body only for HEAD.
        (true, Some(length)) if request.method() == Method::HEAD => response.body(LengthOnly(
            length + bar.as_ref().map_or(0, |bar| bar.len() as u64),
        )),
        (true, _) => response.finish(),
        _ => match body.take_whole() {
            Some(bytes) if bar.is_none() => response.body(bytes),
            whole => {
                let open = is_events.then(|| EventStream::new(proxy, pass, &next));
                let length = body
                    .length()
                    .map(|length| length + whole.as_ref().map_or(0, |bytes| bytes.len() as u64));
                // Trailers go only to clients that sent `TE: trailers` (RFC 9110 section 6.5.1).
                let goes_on = headers::takes_trailers(request.headers())
                    && body.is_chunked()
                    && bar.is_none();
                let trailers = match request.version() {
                    Version::HTTP_11 if goes_on => {
                        response.insert_header((header::TRANSFER_ENCODING, "chunked"));
                        TrailerMode::Chunks
                    }
                    Version::HTTP_2 if goes_on => {
                        let trailers = Trailers::default();
                        response.extensions_mut().insert(trailers.clone());
                        TrailerMode::Frame(trailers)
                    }
                    _ => TrailerMode::Nothing,
                };
                if let Some(names) = head.get(&header::TRAILER).filter(|_| goes_on) {
                    response.insert_header((header::TRAILER, names.clone()));
                }
                let length =
                    length.map(|length| length + bar.as_ref().map_or(0, |bar| bar.len() as u64));
                // HTTP/1.0 has no chunked coding: a body of unknown length ends with its
                // connection.
                let until_close = length.is_none() && request.version() == Version::HTTP_10;
                let is_raw = matches!(trailers, TrailerMode::Chunks) || until_close;
                let body = StreamedBody {
                    first: whole,
                    body,
                    last: bar,
                    length,
                    trailers,
                    content: place.content,
                    is_done: false,
                    open,
                    _held: (next.here, next.in_flight, next.open, next.run),
                };
                let mut response = response.body(body);
                response.head_mut().no_chunking(is_raw);
                if until_close {
                    response
                        .head_mut()
                        .set_connection_type(ConnectionType::Close);
                }
                response
            }
        },
    };
    if request.headers().contains_key(header::UPGRADE) {
        // Only WebSockets are upgraded to; without this, actix would answer `Connection: upgrade`.
        response
            .head_mut()
            .set_connection_type(ConnectionType::Close);
    }
    response.extensions_mut().insert(FromContent);
    response
}

fn append(response: &mut HttpResponseBuilder, name: &HeaderName, value: &HeaderValue) {
    response.append_header((name.clone(), value.clone()));
}

/// How the trailers of a body are passed on.
enum TrailerMode {
    /// Not at all.
    Nothing,
    /// HTTP/1.1: the chunked coding is written by this module, since actix sends no trailers.
    Chunks,
    /// HTTP/2: sent as a HEADERS frame by `server/http2.rs`.
    Frame(Trailers),
}

/// An app's body on its way to the browser.
struct StreamedBody {
    /// The whole body, if it came together with the head.
    first: Option<Bytes>,
    body: Body,
    /// The reconnect bar, sent after the body.
    last: Option<Bytes>,
    /// Length in bytes with the bar, if known.
    length: Option<u64>,
    trailers: TrailerMode,
    content: Id<Content>,
    /// The body has ended or was cut.
    is_done: bool,
    /// Set for event streams.
    open: Option<EventStream>,
    /// Guards that are dropped when the body has been sent: the viewer's presence, the request in
    /// flight, and the counts of the client's network and of a process that runs here.
    _held: (
        Option<PresenceGuard>,
        Option<InFlight>,
        Option<OpenGuard>,
        Option<ConnectionCount>,
    ),
}

/// An open event stream. Like a WebSocket it keeps its session token exchangeable, and is cut when
/// its viewer may not stay. The browser then reconnects by itself and gets the reason as a
/// response.
struct EventStream {
    closed: Pin<Box<dyn Future<Output = Close>>>,
    _held: Option<HeldToken>,
}

impl EventStream {
    fn new(proxy: &web::Data<Proxy>, pass: &Pass, next: &Candidate<'_>) -> Self {
        let mut registered = proxy.sockets.register(pass.ticket());
        Self {
            closed: Box::pin(async move { registered.closed().await }),
            _held: next.hold_token(&proxy.service),
        }
    }
}

impl MessageBody for StreamedBody {
    type Error = io::Error;
    fn size(&self) -> BodySize {
        self.length.map_or(BodySize::Stream, BodySize::Sized)
    }
    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Bytes>>> {
        if self.is_done {
            return Poll::Ready(None);
        }
        if let Some(open) = &mut self.open
            && open.closed.as_mut().poll(context).is_ready()
        {
            self.is_done = true;
            tracing::debug!(content = %self.content, "an event stream was cut: what let its viewer in is over, or the portal stops");
            return Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into())));
        }
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        match ready!(self.body.poll_data(context)) {
            Some(Ok(bytes)) if matches!(self.trailers, TrailerMode::Chunks) => {
                let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
                chunk.extend_from_slice(&bytes);
                chunk.extend_from_slice(b"\r\n");
                Poll::Ready(Some(Ok(chunk.into())))
            }
            Some(Ok(bytes)) => Poll::Ready(Some(Ok(bytes))),
            Some(Err(error)) => {
                tracing::warn!(content = %self.content, reason = %error, "an app broke its answer off");
                Poll::Ready(Some(Err(error)))
            }
            None => {
                self.is_done = true;
                let fields = self.body.take_trailers();
                let fields = fields
                    .iter()
                    .filter(|(name, _)| headers::trailer_passes(name.as_str()));
                match &self.trailers {
                    TrailerMode::Nothing => {}
                    TrailerMode::Chunks => {
                        let mut end = b"0\r\n".to_vec();
                        fields.for_each(|(name, value)| {
                            headers::append_line(&mut end, name, value.as_bytes())
                        });
                        end.extend_from_slice(b"\r\n");
                        return Poll::Ready(Some(Ok(end.into())));
                    }
                    TrailerMode::Frame(trailers) => trailers.0.borrow_mut().extend(fields.cloned()),
                }
                Poll::Ready(self.last.take().map(Ok))
            }
        }
    }
}

/// Which sites may show the app in a frame, where the app does not say so itself
/// (`X-Frame-Options`, or `frame-ancestors` of CSP level 3): its own pages and the item's allowed
/// origins.
///
/// Only for types that browsers render in a frame, and for responses without a type, which they guess.
fn frame_ancestors(fields: &Fields, allowed: &[String]) -> Option<HeaderValue> {
    let kind = fields
        .iter()
        .find(|(name, _)| *name == header::CONTENT_TYPE)
        .map(|(_, value)| value.as_bytes());
    let is_document = [
        &b"text/html"[..],
        b"text/xml",
        b"application/xml",
        b"application/xhtml",
        b"image/svg",
        b"application/pdf",
    ]
    .iter()
    .any(|known| {
        kind.and_then(|kind| kind.get(..known.len()))
            .is_some_and(|start| start.eq_ignore_ascii_case(known))
    });
    let is_empty = fields
        .iter()
        .any(|(name, value)| *name == header::CONTENT_LENGTH && value == "0");
    if !is_document && (kind.is_some() || is_empty) {
        return None;
    }
    let says_so = fields.iter().any(|(name, value)| {
        *name == header::X_FRAME_OPTIONS
            || (*name == header::CONTENT_SECURITY_POLICY
                && value
                    .as_bytes()
                    .to_ascii_lowercase()
                    .windows(FRAME_ANCESTORS.len())
                    .any(|part| part == FRAME_ANCESTORS))
    });
    if says_so {
        return None;
    }
    if allowed.is_empty() {
        return Some(HeaderValue::from_static("frame-ancestors 'self'"));
    }
    HeaderValue::try_from(format!("frame-ancestors 'self' {}", allowed.join(" "))).ok()
}

/// The directive's name, in lower case.
const FRAME_ANCESTORS: &[u8] = b"frame-ancestors";

/// Calls `give` for each header of an app's response that the browser gets, with cookies and
/// locations rewritten. Also used for the response to a WebSocket handshake.
pub fn each_field(
    fields: &Fields,
    target: &Target,
    place: &ContentLocation,
    mut give: impl FnMut(&HeaderName, &HeaderValue),
) {
    let listed = headers::connection_names(
        fields
            .iter()
            .filter(|(name, _)| *name == header::CONNECTION)
            .map(|(_, value)| value),
    );
    for (name, value) in fields {
        if headers::response_passes(name.as_str(), &listed) {
            give(name, value);
        } else if *name == header::SET_COOKIE {
            let cookie =
                headers::cookie_from_app(&headers::to_latin1(value), &target.prefix, &place.base);
            if let Some(cookie) = cookie.and_then(|cookie| headers::from_latin1(&cookie)) {
                give(name, &cookie);
            }
        } else if *name == header::LOCATION || *name == header::CONTENT_LOCATION {
            let location = headers::to_latin1(value);
            let location = headers::location_from_app(
                &location,
                &target.origin,
                &target.prefix,
                &place.base,
                &place.origin,
            );
            if let Some(location) = headers::from_latin1(&location) {
                give(name, &location);
            }
        }
    }
}

/// The sticky cookie that names the browser's process; `None` if the item has one process, or if
/// the browser has this cookie already.
pub(super) fn sticky_cookie(
    head: &RequestHead,
    proxy: &Proxy,
    pass: &Pass,
    place: &ContentLocation,
    process: &Process,
) -> Option<Cookie<'static>> {
    let item = pass.content();
    let mark = pass.process_id(process);
    if mark.is_only() || pass.stays_at(head, proxy, place) == Some(mark) {
        return None;
    }
    let name = proxy.sessions.process_cookie(item.id, &place.base);
    let mut cookie = handover::cookie(name, mark.to_string(), &proxy.service);
    // Only this item needs it, where several share a host.
    cookie.set_path(place.base.clone());
    Some(cookie)
}

pub(super) async fn not_reached(service: &Services, pass: &Pass) -> WebError {
    app_error(service, pass, StatusCode::BAD_GATEWAY, "is not running").await
}

/// The error page for an app that fails: names the item and its owner, who can restart it.
pub(super) async fn app_error(
    service: &Services,
    pass: &Pass,
    status: StatusCode,
    what: &str,
) -> WebError {
    let owner = service
        .contents
        .owner_name(pass.content().owner)
        .await
        .unwrap_or_else(|| "its publisher".into());
    WebError::Page(
        status,
        format!("“{}” {what}", pass.content().display_title()),
        format!(
            "The portal works, but the app behind this address cannot be reached. {owner} publishes it and can start it again."
        ),
    )
}
