//! WebSockets (RFC 6455): checks and rewrites the handshake, then copies bytes in both directions.
//!
//! Frames are not parsed into messages and never changed, so extensions work and large messages are
//! streamed. Only frame boundaries are tracked, so that the portal can insert a close frame of its
//! own between two frames of the app's. Messages are not read, except that `app_sessions`
//! searches the first bytes from an app for ids of app sessions.

use crate::{
    domain::{
        audit::{Action, Origin},
        origins::ContentLocation,
        person::SignedIn,
    },
    http::{
        client_address::client_ip,
        correlation::{Correlation, request_span},
        open_counts::OpenGuard,
        presented_key::{PresentedKey, presented_key},
        sessions::has_too_many_cookies,
    },
    proxy::{
        app_sessions::{ResumeId, Sniffer},
        candidate::{Tried, next_process},
        client, deployed,
        gate::{Decision, GateError, Pass, Rejection, admit, audit_refusal, check_request, locate},
        handover::RESERVED_PREFIX,
        headers,
        pool::Connection,
        request::{add_portal_headers, request_line},
        response::{each_field, sticky_cookie},
        sockets::{Close, Registered},
        state::Proxy,
    },
    service::{Services, cluster::app_sessions::AppSessionOwner, running::board::ConnectionCount},
    traces,
};
use actix_codec::Framed;
use actix_http::{Request, h1};
use actix_web::{
    dev::RequestHead,
    http::{
        Method, StatusCode,
        header::{self, HeaderName},
    },
    web,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::BytesMut;
use serde_json::json;
use std::{
    cell::RefCell,
    convert::Infallible,
    future::poll_fn,
    io,
    pin::Pin,
    sync::atomic::Ordering,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    time::{Instant, sleep, timeout},
};
use tracing::Instrument as _;

/// Deadline for the last writes to a peer: an error response, a close frame, the shutdown.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// After one side has half-closed, the other may send for this long.
const HALF_CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// The start of every response that opens a WebSocket.
const ACCEPTED: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n";
/// Size of the read buffer in bytes.
const READ_BUFFER_BYTES: usize = 64 * 1024;
/// Maximum number of reads in one direction before the other gets its turn. Both directions
/// together stay below tokio's cooperative budget for a task.
const MAX_READS_PER_TURN: usize = 16;

thread_local! {
    /// The read buffer, shared by all sockets of a worker, so that idle sockets hold none.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BUFFER_BYTES].into_boxed_slice());
}

/// Takes over a connection whose request has `Upgrade: websocket` or is a `CONNECT`; the latter is
/// always refused. Returns when the connection has ended.
pub async fn upgrade<T>(
    request: Request,
    framed: Framed<T, h1::Codec>,
    proxy: web::Data<Proxy>,
) -> Result<(), Infallible>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let parts = framed.into_parts();
    let mut io = parts.io;
    // Responses to earlier requests on this connection that actix has not sent yet.
    if !parts.write_buf.is_empty()
        && !matches!(
            timeout(CLOSE_TIMEOUT, io.write_all(&parts.write_buf)).await,
            Ok(Ok(()))
        )
    {
        return Ok(());
    }
    // The handshake is boxed and freed before bytes are carried: this future lives as long as the
    // socket and must stay small.
    let correlation = Correlation::of(&request.head().headers);
    let span = request_span(correlation.text(), &request.head().headers);
    let handshake = handshake(request, &proxy, &correlation).instrument(span.clone());
    let opened = Box::pin(handshake).await;
    let status = match &opened {
        Err(NotOpened::Http(status, _)) => *status,
        Ok(_) | Err(NotOpened::CloseFrame(..)) => StatusCode::SWITCHING_PROTOCOLS,
    };
    let route = || Some("content".to_owned());
    traces::end_request(&span, "GET", route, status.as_u16());
    // What is recorded is the handshake: a span is sent when it ends.
    drop(span);
    match opened {
        Ok(open) => {
            let OpenSocket {
                accepted,
                connection,
                registered,
                socket_count,
                held_token,
                presence,
                open,
                run,
                sniffer,
                idle,
            } = *open;
            // Guards, kept until the socket ends.
            let _kept = (socket_count, held_token, presence, open, run);
            if matches!(
                timeout(CLOSE_TIMEOUT, io.write_all(&accepted)).await,
                Ok(Ok(()))
            ) {
                let Connection { wire, buffer, .. } = connection;
                relay(io, parts.read_buf, wire, buffer, registered, sniffer, idle).await;
            }
        }
        Err(NotOpened::Http(_, answer)) => {
            drop(timeout(CLOSE_TIMEOUT, send_and_close(&mut io, &answer)).await)
        }
        Err(NotOpened::CloseFrame(accepted, close)) => {
            let answer = [accepted, close.frame()].concat();
            drop(timeout(CLOSE_TIMEOUT, send_and_close(&mut io, &answer)).await);
        }
    }
    Ok(())
}

/// Sends `last`, half-closes, and reads until the peer closes. The caller limits the time.
async fn send_and_close(
    io: &mut (impl AsyncRead + AsyncWrite + Unpin),
    last: &[u8],
) -> io::Result<()> {
    io.write_all(last).await?;
    io.flush().await?;
    io.shutdown().await?;
    // Closing a TCP socket with unread input sends RST, which may discard what was just sent.
    let mut rest = [0; 1024];
    while tokio::io::AsyncReadExt::read(io, &mut rest).await? > 0 {}
    Ok(())
}

/// A WebSocket that the app has accepted, with the guards that must live as long as it.
struct OpenSocket {
    /// The head of the 101 response to the browser.
    accepted: Vec<u8>,
    connection: Connection,
    registered: Registered,
    socket_count: crate::service::cluster::process_health::SocketCount,
    held_token: Option<crate::service::grants::session_tokens::HeldToken>,
    presence: Option<crate::service::cluster::presence::PresenceGuard>,
    open: Option<OpenGuard>,
    run: Option<ConnectionCount>,
    sniffer: Option<Sniffer>,
    idle: Option<Duration>,
}

/// Why a WebSocket is not opened.
enum NotOpened {
    /// A complete HTTP error response.
    Http(StatusCode, Vec<u8>),
    /// A 101 response, followed at once by a close frame: scripts can read a close code, but not
    /// the status of a failed handshake.
    CloseFrame(Vec<u8>, Close),
}

/// A JSON error response.
fn http_error(status: StatusCode, sentence: &str) -> NotOpened {
    let body =
        json!({"code": i64::from(status.as_u16()), "error": sentence, "payload": null}).to_string();
    let reason = status.canonical_reason().unwrap_or("");
    let head = format!(
        "HTTP/1.1 {} {reason}\r\ncontent-type: application/json\r\ncontent-length: {}\r\ncache-control: no-store\r\nx-content-type-options: nosniff\r\n\
         content-security-policy: default-src 'none'; frame-ancestors 'none'\r\nreferrer-policy: same-origin\r\ncross-origin-opener-policy: same-origin\r\nconnection: close\r\n\r\n{body}",
        status.as_u16(),
        body.len(),
    );
    NotOpened::Http(status, head.into_bytes())
}

/// A header's value; empty if it is missing or not ASCII.
fn text<'a>(head: &'a RequestHead, name: &HeaderName) -> &'a str {
    head.headers()
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("")
}

/// Accepts the handshake without the app, only to send a close code and reason.
fn refuse_with_close(head: &RequestHead, close: Close) -> NotOpened {
    let key = text(head, &header::SEC_WEBSOCKET_KEY);
    if key.is_empty() {
        return http_error(
            StatusCode::BAD_REQUEST,
            "This is no handshake of a WebSocket: Sec-WebSocket-Key is missing.",
        );
    }
    // SHA-1 is prescribed by RFC 6455 section 4.2.2; nothing here depends on its strength.
    let hash = ring::digest::digest(
        &ring::digest::SHA1_FOR_LEGACY_USE_ONLY,
        format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes(),
    );
    let mut accepted = ACCEPTED.to_vec();
    headers::append_line(
        &mut accepted,
        &header::SEC_WEBSOCKET_ACCEPT,
        STANDARD.encode(hash).as_bytes(),
    );
    // Browsers fail the handshake if they offered subprotocols and none is chosen.
    if let Some(protocol) = protocols(head).first() {
        headers::append_line(
            &mut accepted,
            &header::SEC_WEBSOCKET_PROTOCOL,
            protocol.as_bytes(),
        );
    }
    accepted.extend_from_slice(b"\r\n");
    NotOpened::CloseFrame(accepted, close)
}

/// The subprotocols that the client offers, in its order.
fn protocols(head: &RequestHead) -> Vec<&str> {
    let lines = head
        .headers()
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .filter_map(|line| line.to_str().ok());
    lines
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .filter(|protocol| !protocol.is_empty())
        .collect()
}

/// The origin of a handshake for an audit record. Handshakes bypass the middleware that computes it
/// for other requests.
fn origin_of(head: &RequestHead, service: &Services, correlation: &Correlation) -> Origin {
    let address = client_ip(head, service)
        .map(|ip| ip.to_string())
        .unwrap_or_default();
    Origin {
        address,
        correlation: correlation.text().to_owned(),
    }
}

/// Checks and authorizes a handshake, then opens the WebSocket at the app.
async fn handshake(
    request: Request,
    proxy: &web::Data<Proxy>,
    correlation: &Correlation,
) -> Result<Box<OpenSocket>, NotOpened> {
    let head = request.head();
    let service = &proxy.service;
    let busy = |error: crate::service::Error| {
        error.log("opening a WebSocket");
        http_error(
            StatusCode::SERVICE_UNAVAILABLE,
            "The portal is busy. Try again in a moment.",
        )
    };
    if head.method != Method::GET || !text(head, &header::UPGRADE).eq_ignore_ascii_case("websocket")
    {
        return Err(http_error(
            StatusCode::METHOD_NOT_ALLOWED,
            "Only WebSockets can be upgraded to.",
        ));
    }
    if has_too_many_cookies(&head.headers) {
        return Err(http_error(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "The browser sends more cookies for this site than fit.",
        ));
    }
    let place = locate(head, service).await.map_err(busy)?;
    let mut place = place.ok_or_else(|| {
        http_error(
            StatusCode::NOT_FOUND,
            "There is no content at this address.",
        )
    })?;
    // Against cross-site WebSocket hijacking: many apps accept any Origin, so the portal compares
    // it. A missing Origin is refused, too.
    // A program with an API key has no origin, and no browser sends a key for another site.
    let is_by_key = matches!(presented_key(&head.headers), PresentedKey::Key(_));
    if !is_by_key && text(head, &header::ORIGIN) != place.origin {
        let (from, place) = (origin_of(head, service, correlation), place.address(""));
        service.audit.note_refusal(
            Action::AccessRefused,
            None,
            &from,
            "WebSocket from elsewhere",
            place,
        );
        return Err(http_error(
            StatusCode::FORBIDDEN,
            "Another site may not open this: a WebSocket opens only from the pages of its own app.",
        ));
    }
    let rest = check_request(head, proxy, &place).map_err(|stop| {
        let Rejection(status, title, _) = stop;
        http_error(status, title)
    })?;
    if rest.starts_with(&RESERVED_PREFIX[1..]) {
        return Err(http_error(
            StatusCode::NOT_FOUND,
            "This address is the portal's own.",
        ));
    }
    let mut pass = match admit(head, proxy, &place).await.map_err(busy)? {
        Decision::Admitted(pass) => pass,
        Decision::Refused(GateError::SignIn | GateError::BadKey) => {
            return Err(refuse_with_close(head, Close::SignedOut));
        }
        Decision::Refused(GateError::MayNot(admission)) => {
            audit_refusal(service, &admission, &origin_of(head, service, correlation));
            return Err(refuse_with_close(head, Close::AccessEnded));
        }
        Decision::Refused(GateError::NeedsViewer(_)) => {
            return Err(refuse_with_close(head, Close::NeedsViewer));
        }
    };
    proxy
        .sessions
        .touch(pass.session.and_then(SignedIn::browser));
    let entered = deployed::enter_draft(&pass, &mut place, rest);
    let (draft, rest) = entered.map_err(|_| {
        http_error(
            StatusCode::NOT_FOUND,
            "There is no content at this address.",
        )
    })?;
    if !deployed::wait_for_process(proxy, &mut pass, draft).await {
        return Err(refuse_with_close(head, Close::AppGone));
    }
    open(head, proxy, &place, rest, &pass).await
}

/// Connects to the first process that accepts a connection and sends it the handshake. Only a
/// failed connect moves on to the next process; a broken handshake or any response but 101 is a
/// refusal.
async fn open(
    head: &RequestHead,
    proxy: &web::Data<Proxy>,
    place: &ContentLocation,
    rest: &str,
    pass: &Pass,
) -> Result<Box<OpenSocket>, NotOpened> {
    let (service, item) = (&proxy.service, pass.content());
    // An app session that the client wants to resume (Streamlit) must be this viewer's; otherwise
    // its id is removed from the handshake.
    let offered = protocols(head);
    let resumes = ResumeId::from_protocols(&offered);
    let owner = AppSessionOwner {
        item: item.id,
        viewer: pass.person(),
    };
    let allowed = match &resumes {
        Some(resumes) => service.app_sessions.belongs_to(resumes.hash(), owner).await,
        None => false,
    };
    let offered = if resumes.is_some() && !allowed {
        // The id is the third subprotocol.
        offered.into_iter().take(2).collect()
    } else {
        offered
    };
    // No compression for Streamlit: the ids of its app sessions must be readable in the stream, or
    // no viewer could resume theirs.
    let left_out: &[HeaderName] = match offered.as_slice() {
        ["streamlit", ..] => &[
            header::SEC_WEBSOCKET_PROTOCOL,
            header::SEC_WEBSOCKET_EXTENSIONS,
        ],
        _ => &[header::SEC_WEBSOCKET_PROTOCOL],
    };
    let mut tried = Tried::default();
    let (answer, next) = loop {
        let Some(mut next) = next_process(head, proxy, pass, place, &mut tried).await else {
            return Err(refuse_with_close(head, Close::AppGone));
        };
        let mut out = Vec::with_capacity(2048);
        request_line(
            &mut out,
            &head.method,
            &next.target,
            pass,
            place,
            rest,
            head.uri.query(),
        );
        out.extend_from_slice(b"connection: Upgrade\r\nupgrade: websocket\r\n");
        add_portal_headers(
            &mut out,
            head,
            proxy,
            pass,
            place,
            rest,
            next.token.as_ref(),
        );
        headers::append_request_headers(
            &head.headers,
            &mut out,
            left_out,
            &item.proxying.pass_headers,
            traces::traceparent().as_deref(),
        );
        if !offered.is_empty() {
            headers::append_line(
                &mut out,
                &header::SEC_WEBSOCKET_PROTOCOL,
                offered.join(", ").as_bytes(),
            );
        }
        out.extend_from_slice(b"\r\n");
        next.here = pass.arrive(service, next.process);
        next.open = pass.open_from_client(proxy);
        if pass.has_too_much_open(service, next.process) || next.open.is_none() {
            return Err(refuse_with_close(head, Close::TooMuchOpen));
        }
        let connected = match client::connect(&next.target, &item.proxying, false).await {
            Ok(connected) => connected,
            Err(error) if error.is_local() => {
                tracing::error!(reason = %error, "this machine has no connection left for apps");
                return Err(refuse_with_close(head, Close::TooMuchOpen));
            }
            Err(error) => {
                tracing::warn!(content = %item.id, reason = %error, "app not reached");
                proxy.service.process_health.note_health(
                    &next.process.url,
                    false,
                    service.core.now(),
                );
                continue;
            }
        };
        match client::send(connected, &next.target, &item.proxying, &out, None, false).await {
            Ok(answer) => break (answer, next),
            Err(error) => {
                tracing::warn!(content = %item.id, reason = %error, "an app broke a WebSocket's handshake off");
                return Err(refuse_with_close(head, Close::AppGone));
            }
        }
    };
    let (answer, body) = (answer.head, answer.body);
    if answer.status != StatusCode::SWITCHING_PROTOCOLS {
        tracing::warn!(content = %item.id, status = answer.status.as_u16(), "an app refused a WebSocket");
        let status = if answer.status.is_client_error() || answer.status.is_server_error() {
            answer.status
        } else {
            StatusCode::BAD_GATEWAY
        };
        return Err(http_error(status, "The app refused this WebSocket."));
    }
    let mut accepted = ACCEPTED.to_vec();
    each_field(&answer.fields, &next.target, place, |name, value| {
        headers::append_line(&mut accepted, name, value.as_bytes())
    });
    if let Some(cookie) = sticky_cookie(head, proxy, pass, place, next.process) {
        headers::append_line(
            &mut accepted,
            &header::SET_COOKIE,
            cookie.to_string().as_bytes(),
        );
    }
    accepted.extend_from_slice(b"\r\n");
    // Two subprotocols suggest Streamlit, whose reconnect sends an app session's id as the third.
    let sniffer = (offered.len() > 1).then(|| Sniffer::new(service.clone().into_inner(), owner));
    let connection = body
        .into_connection()
        .ok_or_else(|| refuse_with_close(head, Close::AppGone))?;
    Ok(Box::new(OpenSocket {
        accepted,
        connection,
        held_token: next.hold_token(service),
        presence: next.here,
        open: next.open,
        run: next.run,
        registered: proxy.sockets.register(pass.ticket()),
        socket_count: proxy.service.process_health.count_socket(&next.process.url),
        sniffer,
        idle: item.proxying.socket_idle(),
    }))
}

/// Tracks frame boundaries in one direction of a WebSocket (RFC 6455 section 5.2).
#[derive(Default)]
struct FrameTracker {
    /// The header of the current frame, of which `head_len` bytes have arrived.
    head: [u8; 14],
    head_len: usize,
    /// Bytes still to come of the current frame's payload.
    left: u64,
    /// A close frame has arrived.
    saw_close: bool,
    /// A data frame has arrived, not only a ping or a pong, which browsers send by themselves.
    saw_data: bool,
}

impl FrameTracker {
    /// Whether the stream is at a frame boundary.
    fn is_at_boundary(&self) -> bool {
        self.head_len == 0 && self.left == 0
    }
    /// Advances over the next bytes of the stream.
    fn feed(&mut self, mut bytes: &[u8]) {
        while let Some(first) = bytes.first() {
            if self.left > 0 {
                let skipped = usize::try_from(self.left)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                self.left -= skipped as u64;
                bytes = bytes.get(skipped..).unwrap_or_default();
                continue;
            }
            if let Some(slot) = self.head.get_mut(self.head_len) {
                *slot = *first;
            }
            self.head_len += 1;
            bytes = bytes.get(1..).unwrap_or_default();
            // `length` is of an earlier frame until its byte has arrived; the sum below is at least
            // 2.
            let [opcode, length, ..] = self.head;
            let extended = match length & 0x7f {
                126 => 2,
                127 => 8,
                _ => 0,
            };
            let masked = if length & 0x80 == 0 { 0 } else { 4 };
            if self.head_len == 2 + extended + masked {
                let number = self
                    .head
                    .iter()
                    .skip(2)
                    .take(extended)
                    .fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
                self.left = if extended == 0 {
                    u64::from(length & 0x7f)
                } else {
                    number
                };
                self.saw_close |= opcode & 0x0f == 8;
                self.saw_data |= opcode & 0x0f < 8;
                self.head_len = 0;
            }
        }
    }
}

/// One direction of a WebSocket.
#[derive(Default)]
struct Direction {
    /// Bytes that were read and not yet written.
    pending: BytesMut,
    /// The source has half-closed.
    is_eof: bool,
    /// The half-close was passed on to the destination.
    is_shut_down: bool,
    /// Bytes were written and not yet flushed (TLS buffers them).
    unflushed: bool,
}

impl Direction {
    /// `early`: bytes that were read together with the handshake.
    fn start(early: BytesMut) -> Self {
        Self {
            pending: early,
            ..Self::default()
        }
    }

    /// Copies what there is from one side to the other. `Ready(Ok)` after the source has
    /// half-closed and the destination was told; `Err` if the destination is gone. Sets `moved` if
    /// anything was read, and calls `seen` with each piece.
    fn poll<R, W>(
        &mut self,
        context: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        moved: &mut bool,
        mut seen: impl FnMut(&[u8]),
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        for _ in 0..MAX_READS_PER_TURN {
            while !self.pending.is_empty() {
                match Pin::new(&mut *to).poll_write(context, &self.pending)? {
                    Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(written) => {
                        drop(self.pending.split_to(written));
                        self.unflushed = true;
                    }
                    Poll::Pending => return Poll::Pending,
                }
            }
            if self.pending.capacity() > 0 {
                self.pending = BytesMut::new();
            }
            if self.is_eof {
                if !self.is_shut_down {
                    match Pin::new(&mut *to).poll_shutdown(context) {
                        Poll::Ready(_) => self.is_shut_down = true,
                        Poll::Pending => return Poll::Pending,
                    }
                }
                return Poll::Ready(Ok(()));
            }
            let read = BUFFER.with_borrow_mut(|scratch| {
                let mut buffer = ReadBuf::new(scratch);
                match Pin::new(&mut *from).poll_read(context, &mut buffer)? {
                    Poll::Pending => Ok::<_, io::Error>(None),
                    Poll::Ready(()) => {
                        let bytes = buffer.filled();
                        seen(bytes);
                        // Usually the destination accepts all of it at once, and nothing is copied.
                        let written = if bytes.is_empty() {
                            0
                        } else {
                            match Pin::new(&mut *to).poll_write(context, bytes) {
                                Poll::Ready(written) => written?,
                                Poll::Pending => 0,
                            }
                        };
                        self.pending
                            .extend_from_slice(bytes.get(written..).unwrap_or_default());
                        Ok(Some(bytes.len()))
                    }
                }
            });
            match read {
                Ok(None) => {
                    if self.unflushed && Pin::new(&mut *to).poll_flush(context)?.is_ready() {
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
                Ok(Some(0)) | Err(_) => self.is_eof = true,
                Ok(Some(_)) => {
                    self.unflushed = true;
                    *moved = true;
                }
            }
        }
        // Yield, so that the other direction and the close signal are polled.
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Copies bytes both ways until both sides have ended, one is gone, the idle limit (`idle`) passes,
/// or the portal wants the socket closed.
async fn relay<B, A>(
    mut browser: B,
    from_browser: BytesMut,
    mut app: A,
    from_app: BytesMut,
    mut registered: Registered,
    mut sniffer: Option<Sniffer>,
    idle: Option<Duration>,
) where
    B: AsyncRead + AsyncWrite + Unpin,
    A: AsyncRead + AsyncWrite + Unpin,
{
    let mut app_frames = FrameTracker::default();
    app_frames.feed(&from_app);
    if let Some(sniffer) = &mut sniffer {
        sniffer.feed(&from_app);
    }
    let (use_flag, mut browser_frames) = (registered.used(), FrameTracker::default());
    browser_frames.feed(&from_browser);
    let (mut app_to_browser, mut browser_to_app) =
        (Direction::start(from_app), Direction::start(from_browser));
    let mut closing: Option<Close> = None;
    let close_request = registered.closed();
    let mut close_request = std::pin::pin!(close_request);
    // The deadline that applies now: idle limit, half-close or close. Without an idle limit no
    // timer runs before that: most sockets are idle for days.
    let mut limit = idle.map(|idle| Box::pin(sleep(idle)));
    let mut halved = false;
    poll_fn(|context| {
        if closing.is_none()
            && let Poll::Ready(close) = close_request.as_mut().poll(context)
        {
            closing = Some(close);
            limit = Some(Box::pin(sleep(CLOSE_TIMEOUT)));
        }
        let mut moved = false;
        // Once the socket is to be closed, the app's bytes are passed on until the next frame
        // boundary, or until the deadline.
        let down_poll = if closing.is_some()
            && app_frames.is_at_boundary()
            && app_to_browser.pending.is_empty()
        {
            return Poll::Ready(());
        } else {
            app_to_browser.poll(context, &mut app, &mut browser, &mut moved, |bytes| {
                app_frames.feed(bytes);
                if let Some(sniffing) = &mut sniffer
                    && !sniffing.feed(bytes)
                {
                    sniffer = None;
                }
            })
        };
        let up_poll = if closing.is_some() {
            Poll::Pending
        } else {
            browser_to_app.poll(context, &mut browser, &mut app, &mut moved, |bytes| {
                browser_frames.feed(bytes);
                if std::mem::take(&mut browser_frames.saw_data) {
                    use_flag.store(true, Ordering::Relaxed);
                }
            })
        };
        match (&down_poll, &up_poll) {
            (Poll::Ready(Err(_)), _)
            | (_, Poll::Ready(Err(_)))
            | (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(()),
            _ => {}
        }
        if closing.is_some() && app_frames.is_at_boundary() && app_to_browser.pending.is_empty() {
            return Poll::Ready(());
        }
        if (app_to_browser.is_eof || browser_to_app.is_eof) && !halved && closing.is_none() {
            halved = true;
            limit = Some(Box::pin(sleep(HALF_CLOSE_TIMEOUT)));
        }
        if let Some(timer) = &mut limit
            && moved
            && !halved
            && closing.is_none()
            && let Some(idle) = idle
        {
            timer.as_mut().reset(Instant::now() + idle);
        }
        // A new or reset timer must be polled once to register the waker.
        match limit.as_mut().map(|timer| timer.as_mut().poll(context)) {
            Some(Poll::Ready(())) => {
                // What ran out is the idle limit, unless a half-close or a close came first.
                if !halved {
                    closing = closing.or(Some(Close::Idle));
                }
                Poll::Ready(())
            }
            _ => Poll::Pending,
        }
    })
    .await;
    // The portal's close frame may be sent only at a frame boundary, and not after the app's own
    // close frame.
    let fits = app_frames.is_at_boundary()
        && app_to_browser.pending.is_empty()
        && !app_frames.saw_close
        && !app_to_browser.is_eof;
    if let Some(close) = closing.filter(|_| fits) {
        drop(timeout(CLOSE_TIMEOUT, send_and_close(&mut browser, &close.frame())).await);
    } else {
        drop(timeout(CLOSE_TIMEOUT, browser.shutdown()).await);
    }
    drop(timeout(CLOSE_TIMEOUT, app.shutdown()).await);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_boundaries_are_found_however_the_stream_is_split() {
        let mut stream = Vec::new();
        for (length, masked, opcode) in [
            (0_u64, false, 1),
            (125, true, 2),
            (126, false, 2),
            (70_000, true, 0),
            (65_536, false, 9),
            (5, false, 8),
        ] {
            let mask = if masked { 0x80 } else { 0 };
            stream.push(0x80 | opcode);
            match length {
                0..=125 => stream.push(mask | u8::try_from(length).unwrap()),
                126..=0xffff => {
                    stream.push(mask | 126);
                    stream.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
                }
                _ => {
                    stream.push(mask | 127);
                    stream.extend_from_slice(&length.to_be_bytes());
                }
            }
            stream.extend(std::iter::repeat_n(
                0xff,
                if masked { 4 } else { 0 } + usize::try_from(length).unwrap(),
            ));
        }
        for at_once in [1, 2, 3, 10, 1000, 1 << 20] {
            let mut app_frames = FrameTracker::default();
            for piece in stream.chunks(at_once) {
                app_frames.feed(piece);
            }
            assert!(
                app_frames.is_at_boundary() && app_frames.saw_close,
                "{at_once}"
            );
            app_frames.feed(&[0x81]);
            assert!(!app_frames.is_at_boundary());
            app_frames.feed(&[3, b'a', b'b']);
            assert!(!app_frames.is_at_boundary());
            app_frames.feed(b"c");
            assert!(app_frames.is_at_boundary());
        }
    }
}
