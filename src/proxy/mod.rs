//! The reverse proxy in front of content items.
//!
//! This file finds the item of a request, admits the viewer, picks a process and sends the request;
//! `headers.rs` filters, `client.rs` speaks HTTP/1.1 to apps, `answer.rs` returns the response,
//! `websocket.rs` carries WebSockets. A request to an app carries exactly one session token, the
//! portal's, and none for anonymous viewers. Bodies are streamed in both directions.

mod app_sessions;
mod bar;
pub mod client;
mod handover;
pub mod headers;
pub mod processes;
mod response;
pub mod sockets;
mod upstream;
pub mod websocket;
mod wire;

pub use response::Trailers;
pub use upstream::Upstreams;
pub use wire::set_tcp_keepalive;

use crate::{
    domain::{
        Id, access, addresses,
        audit::{Action, Origin},
        content::{AccessType, Content, Process, ProcessId},
        origins::{ContentLocation, HostKind},
        person::{Person, Session as BrowserSession},
        return_path::ReturnPath,
    },
    http::{
        body::with_idle_timeout,
        client_address::{audit_origin, client_ip, forwarded_hops},
        errors::WebError,
        host::requested_host,
        navigation::is_navigation,
        redirect::see_other,
        sessions::Sessions,
    },
    proxy::{
        client::{ClientError, Upload},
        processes::Processes,
        sockets::Sockets,
        upstream::Target,
    },
    service::{
        Error, Services,
        cluster::presence::PresenceGuard,
        grants::{
            admission::{Admission, IntegrationAccess},
            session_tokens::HeldToken,
        },
    },
};
use actix_web::{
    HttpMessage as _, HttpRequest, HttpResponse,
    cookie::Cookie,
    dev::RequestHead,
    http::{
        Method, StatusCode,
        header::{self, HeaderName, HeaderValue},
    },
    web,
};
use futures_util::StreamExt as _;
use serde_json::json;
use std::{cell::Cell, io::Write as _, net::IpAddr, rc::Rc, sync::Arc};

/// The proxy's state in one worker. `upstreams` belongs to the worker, the rest is shared.
pub struct Proxy {
    /// Access decisions, session tokens, settings.
    pub service: web::Data<Services>,
    /// Reads the cookies of the portal and of content.
    pub sessions: web::Data<Sessions>,
    /// Resolved upstream addresses and their connection pools.
    pub upstreams: Upstreams,
    /// Health of the processes.
    pub processes: Arc<Processes>,
    /// Open WebSockets and event streams.
    pub sockets: Arc<Sockets>,
}

/// A request that was admitted: its item, its browser session, and the process named by its cookie.
pub struct Pass {
    content: Audience,
    session: Option<Id<BrowserSession>>,
    stays_at: Option<ProcessId>,
}

/// The content item: with the admission of a signed-in viewer, or as public content for an
/// anonymous one.
enum Audience {
    Viewer(Arc<Admission>),
    Anyone(Box<Content>),
}

impl Pass {
    fn content(&self) -> &Content {
        match &self.content {
            Audience::Viewer(admission) => &admission.content,
            Audience::Anyone(content) => content,
        }
    }
    fn viewer(&self) -> Option<&Admission> {
        match &self.content {
            Audience::Viewer(admission) => Some(admission),
            Audience::Anyone(_) => None,
        }
    }
    fn person(&self) -> Option<Id<Person>> {
        self.viewer().map(|admission| admission.person.id)
    }
    /// Records the viewer as present at a process until the guard is dropped; `None` for an
    /// anonymous viewer.
    fn arrive(&self, service: &Services, process: &Process) -> Option<PresenceGuard> {
        self.viewer().map(|admission| {
            service
                .presence
                .arrive(&admission.presence, admission.content.process_id(process))
        })
    }
}

/// Why a request is not admitted.
enum GateError {
    /// No live browser session, and the item is not public.
    SignIn,
    /// The viewer is not on the item's access list.
    MayNot(Arc<Admission>),
    /// The viewer must consent or sign in at the provider first; the value is the `reason` of the
    /// JSON response.
    NeedsViewer(&'static str),
}

/// Request extension: an HTTP/2 request that has a body, which no header has to announce.
pub struct HasBody;

/// A request that no app gets, whoever sends it: status, title and sentence of the error page.
struct Rejection(StatusCode, &'static str, &'static str);

/// The item id in a path of the form `/content/{guid}/…`.
fn item_of(path: &str) -> Option<Id<Content>> {
    path.strip_prefix("/content/")?
        .split_once('/')?
        .0
        .parse()
        .ok()
}

/// The content location that a request addresses, by host and path; `None` if there is no item.
async fn locate(head: &RequestHead, service: &Services) -> Result<Option<ContentLocation>, Error> {
    let origins = &service.core.settings.origins;
    let (item, slug) = match origins.host(requested_host(head)) {
        HostKind::Item(slug) => (service.handover.item_by_slug(slug).await?, slug),
        HostKind::Content => (item_of(head.uri.path()), ""),
        HostKind::Portal if origins.is_same_origin() => (item_of(head.uri.path()), ""),
        HostKind::Portal | HostKind::Unknown => (None, ""),
    };
    Ok(item.and_then(|item| origins.location(item, slug)))
}

/// Checks that apps may get this request (no loop, plain path, known method), and returns its path
/// below the item.
fn check_request<'a>(
    head: &'a RequestHead,
    proxy: &Proxy,
    place: &ContentLocation,
) -> Result<&'a str, Rejection> {
    let ours = proxy.upstreams.via().as_bytes();
    if head.headers().get_all(header::VIA).any(|via| {
        via.as_bytes()
            .split(|byte| *byte == b',')
            .any(|hop| hop.trim_ascii() == ours)
    }) {
        return Err(Rejection(
            StatusCode::LOOP_DETECTED,
            "This content leads back to itself",
            "The address of its app is an address of this portal. Its publisher can enter the app's own address.",
        ));
    }
    let plain = place
        .strip_base(head.uri.path())
        .filter(|rest| is_plain(rest));
    let rest = plain.ok_or(Rejection(
        StatusCode::BAD_REQUEST,
        "This address is not in plain form",
        "Leave out dot segments and backslashes.",
    ))?;
    if !matches!(
        head.method,
        Method::GET
            | Method::HEAD
            | Method::POST
            | Method::PUT
            | Method::PATCH
            | Method::DELETE
            | Method::OPTIONS
    ) {
        return Err(Rejection(
            StatusCode::METHOD_NOT_ALLOWED,
            "This method is not allowed",
            "Apps here take GET, HEAD, POST, PUT, PATCH, DELETE and OPTIONS.",
        ));
    }
    Ok(rest)
}

/// Handler of every request on a content host, and of `/content/{guid}/…` where content shares the
/// portal's origin.
pub async fn serve(
    request: HttpRequest,
    payload: web::Payload,
    proxy: web::Data<Proxy>,
) -> Result<HttpResponse, WebError> {
    let (service, sessions, head) = (&proxy.service, &proxy.sessions, request.head());
    if !service.core.settings.origins.is_same_origin()
        && let Some(own) = head.uri.path().strip_prefix(handover::RESERVED_PREFIX)
        && let Some(answer) = handover::serve(&request, own, service, sessions).await?
    {
        return Ok(answer);
    }
    let Some(place) = locate(head, service).await? else {
        return handover::no_item(&request, service);
    };
    let rest = check_request(head, &proxy, &place).map_err(|Rejection(status, title, line)| {
        WebError::Page(status, title.into(), line.into())
    })?;
    if let Some(own) = rest.strip_prefix(&handover::RESERVED_PREFIX[1..]) {
        return bar::serve(&request, &proxy, &place, rest, own).await;
    }
    match admit(head, &proxy, &place).await? {
        Ok(pass) => {
            proxy.sessions.touch(pass.session);
            forward(&request, payload, &proxy, &pass, &place, rest).await
        }
        Err(refusal) => refuse(&request, &proxy, &place, rest, refusal).await,
    }
}

/// Whether a path has no dot segments, backslashes or NUL, plain or percent-encoded. A
/// double-encoded dot (`%252e`) is refused, too.
pub fn is_plain(path: &str) -> bool {
    let no_dots = |path: &str| !path.split('/').any(|part| part == "." || part == "..");
    if !path.bytes().any(|byte| byte == b'%' || byte == b'\\') {
        return no_dots(path);
    }
    let lower = path.to_ascii_lowercase();
    no_dots(&lower.replace("%2e", ".").replace("%2f", "/"))
        && !lower.contains('\\')
        && !lower.contains("%5c")
        && !lower.contains("%00")
        && !lower.contains("%252e")
}

/// Authorizes a request: the outer `Result` is a failure to decide, the inner one the decision.
async fn admit(
    head: &RequestHead,
    proxy: &Proxy,
    place: &ContentLocation,
) -> Result<Result<Pass, GateError>, Error> {
    let (service, sessions, id) = (&proxy.service, &proxy.sessions, place.content);
    let same_origin = service.core.settings.origins.is_same_origin();
    let found = if same_origin {
        sessions.session_of(head).await?
    } else {
        sessions.content_session_of(head, id).await?
    };
    let Some((session, person)) = found else {
        return Ok(match service.contents.public_content(id).await? {
            Some(content) => Ok(Pass {
                stays_at: stays_at(head, proxy, &content),
                content: Audience::Anyone(Box::new(content)),
                session: None,
            }),
            None => Err(GateError::SignIn),
        });
    };
    let admission = service.admissions.admission(id, person.id).await?;
    if !access::may_open(admission.standing) {
        return Ok(Err(GateError::MayNot(admission)));
    }
    if admission.content.access != AccessType::All
        && admission.links.iter().any(IntegrationAccess::needs_viewer)
    {
        let is_asked = admission.links.iter().any(|link| link.consent.is_none());
        return Ok(Err(GateError::NeedsViewer(if is_asked {
            "not_consented"
        } else {
            "needs_reauthorization"
        })));
    }
    let stays_at = stays_at(head, proxy, &admission.content);
    Ok(Ok(Pass {
        content: Audience::Viewer(admission),
        session: Some(session),
        stays_at,
    }))
}

/// The process named by the browser's cookie, if the item has several and still has that one.
fn stays_at(head: &RequestHead, proxy: &Proxy, item: &Content) -> Option<ProcessId> {
    if item.processes.len() < 2 {
        return None;
    }
    let said: ProcessId = proxy
        .sessions
        .cookie(head, &proxy.sessions.process_cookie(item.id))?
        .parse()
        .ok()?;
    item.processes
        .iter()
        .any(|process| ProcessId::of(process) == said)
        .then_some(said)
}

/// The response to a request that was not admitted: a redirect for a browser's navigation, JSON or
/// an error page otherwise.
async fn refuse(
    request: &HttpRequest,
    proxy: &Proxy,
    place: &ContentLocation,
    rest: &str,
    refusal: GateError,
) -> Result<HttpResponse, WebError> {
    let (service, id) = (&proxy.service, place.content);
    let same_origin = service.core.settings.origins.is_same_origin();
    // The return path is the portal's own address of this page, which redirects to the item
    // wherever that is served.
    let query = request
        .uri()
        .query()
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    let asked = ReturnPath::parse(&format!("{}{rest}{query}", addresses::app(id)));
    let back = asked
        .filter(|_| request.method() == Method::GET)
        .or_else(|| ReturnPath::parse(&addresses::app(id)));
    match refusal {
        GateError::SignIn if !same_origin && is_navigation(request) => Ok(
            handover::redirect_to_portal(request, service, &proxy.sessions, id, rest),
        ),
        GateError::SignIn => Err(WebError::SignIn(back)),
        GateError::MayNot(admission) => {
            if !same_origin {
                audit_refusal(service, &admission, &audit_origin(request, service)).await;
            }
            Err(WebError::may_not_open())
        }
        GateError::NeedsViewer(_) if is_navigation(request) => {
            let page = addresses::consent(
                id,
                &back.ok_or(Error::Internal("an address that cannot be returned to"))?,
            );
            Ok(see_other(&service.core.addresses.absolute(&page)))
        }
        GateError::NeedsViewer(reason) => {
            let text = "The viewer has to be asked first. Open login_url in the browser's window.";
            Ok(HttpResponse::Unauthorized().json(json!({
                "code": 220, "error": text, "error_code": 220, "error_message": text,
                "payload": {"reason": reason, "login_url": service.exchange.login_url(id)},
            })))
        }
    }
}

/// Writes an audit record: a viewer asked for content that they may not open.
async fn audit_refusal(service: &Services, admission: &Admission, from: &Origin) {
    let title = admission.content.display_title().to_owned();
    service
        .audit
        .note_refusal(
            Action::AccessRefused,
            Some(&admission.person),
            from,
            "may not open this content",
            title,
        )
        .await;
}

/// The next process to try.
struct Candidate<'a> {
    process: &'a Process,
    target: Rc<Target>,
    /// The session token for this process; `None` for an anonymous viewer.
    token: Option<HeaderValue>,
    /// The viewer's presence; set once the process has accepted the connection.
    here: Option<PresenceGuard>,
}

impl Candidate<'_> {
    /// Keeps the session token exchangeable past its expiry, until the guard is dropped: for a
    /// WebSocket or event stream that stays open. All other checks of an exchange stay.
    fn hold_token(&self, service: &Arc<Services>) -> Option<HeldToken> {
        self.token
            .as_ref()?
            .to_str()
            .ok()
            .map(|token| service.session_tokens.hold_token(token))
    }
}

/// The next process to try for a viewer, best first; its URL is added to `tried`. Skips processes
/// whose address cannot be resolved or is not allowed. `None` when all were tried.
async fn next_process<'a>(
    head: &RequestHead,
    proxy: &Proxy,
    pass: &'a Pass,
    tried: &mut Vec<&'a str>,
) -> Option<Candidate<'a>> {
    let (service, item) = (&proxy.service, pass.content());
    let viewer = match (item.processes.len() > 1, pass.person()) {
        (false, _) => String::new(),
        (true, Some(person)) => person.to_string(),
        (true, None) => client_ip(head, service)
            .map(|ip| ip.to_string())
            .unwrap_or_default(),
    };
    for process in proxy.processes.order(item, &viewer, pass.stays_at) {
        if tried.contains(&process.url.as_str()) {
            continue;
        }
        tried.push(&process.url);
        match proxy
            .upstreams
            .target(
                &process.url,
                item.proxying.ca.as_ref(),
                &service.core.policy,
            )
            .await
        {
            Ok(target) => {
                let mark = item.process_id(process);
                let token = match (pass.person(), pass.session) {
                    (Some(person), Some(session)) => Some(upstream::session_token(
                        service, person, item.id, session, mark,
                    )?),
                    _ => None,
                };
                return Some(Candidate {
                    process,
                    target,
                    token,
                    here: None,
                });
            }
            Err(reason) => {
                tracing::warn!(content = %item.id, %reason, "a process has no address that may be used")
            }
        }
    }
    None
}

/// Appends the request line (`GET /path?query HTTP/1.1`). The path is passed on as the browser sent
/// it, still percent-encoded.
fn request_line(
    out: &mut Vec<u8>,
    method: &Method,
    target: &Target,
    pass: &Pass,
    place: &ContentLocation,
    rest: &str,
    query: Option<&str>,
) {
    let base = if pass.content().proxying.keep_prefix {
        place.base.as_str()
    } else {
        "/"
    };
    for part in [method.as_str(), " ", &target.prefix, base, rest] {
        out.extend_from_slice(part.as_bytes());
    }
    if let Some(query) = query {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

/// Appends the headers that only the portal sets: the session token, `HostKind`, `Via`, and those
/// that describe the original request. Clients' copies of these never pass
/// (`headers::request_passes`).
fn add_portal_headers(
    out: &mut Vec<u8>,
    head: &RequestHead,
    proxy: &Proxy,
    place: &ContentLocation,
    token: Option<&HeaderValue>,
) {
    let service = &proxy.service;
    let mut add = |name: &HeaderName, value: &[u8]| headers::append_line(out, name, value);
    // The Host that the browser sent: apps compare it with Origin.
    let host = requested_host(head);
    let proto = if service.core.settings.is_https() {
        "https"
    } else {
        "http"
    };
    add(&header::HOST, host.as_bytes());
    add(&headers::FORWARDED_HOST, host.as_bytes());
    add(&headers::FORWARDED_PROTO, proto.as_bytes());
    add_forwarded(&mut add, head, service, host, proto);
    // The requested path begins with the item's base, so the base URL and the prefix are slices of
    // the full URL.
    let path = head
        .uri
        .path_and_query()
        .map_or(place.base.as_str(), |path| path.as_str());
    let (start, end) = (
        place.origin.len(),
        place.origin.len() + place.base.len() - 1,
    );
    let mut asked = String::with_capacity(start + path.len());
    asked.push_str(&place.origin);
    asked.push_str(path);
    let asked = asked.as_bytes();
    if end > start {
        add(
            &headers::FORWARDED_PREFIX,
            asked.get(start..end).unwrap_or_default(),
        );
    }
    add(&headers::APP_BASE_URL, asked.get(..end).unwrap_or_default());
    add(&headers::REQUEST_URL, asked);
    add(&header::VIA, proxy.upstreams.via().as_bytes());
    if let Some(token) = token {
        add(&headers::SESSION_TOKEN, token.as_bytes());
    }
}

/// Appends the chain of client addresses, as `X-Forwarded-For` and as `Forwarded` (RFC 7239).
///
/// Only the chain of a trusted outer proxy is kept (`X-Forwarded-For`, or `Forwarded` without one).
/// Host and scheme are never taken from a proxy: the settings say what browsers see, common proxies
/// pass on what clients put into `X-Forwarded-Host` and `-Proto`, and a chain of two often says
/// `http` for a page on https. The same holds for `X-RSC-Request`.
fn add_forwarded(
    add: &mut impl FnMut(&HeaderName, &[u8]),
    head: &RequestHead,
    service: &Services,
    host: &str,
    proto: &str,
) {
    let Some(on_the_wire) = head.peer_addr.map(|address| address.ip().to_canonical()) else {
        return;
    };
    let mut chain = Vec::new();
    if service.core.settings.is_trusted_proxy(on_the_wire) {
        for before in head.headers().get_all(headers::FORWARDED_FOR) {
            chain.extend_from_slice(before.as_bytes());
            chain.extend_from_slice(b", ");
        }
        if chain.is_empty() {
            // The outer proxy sends only `Forwarded`: use its hops up to the first that is not an
            // IP address, nearest first.
            let before: Vec<IpAddr> = forwarded_hops(head)
                .into_iter()
                .map_while(|hop| hop)
                .collect();
            for ip in before.iter().rev() {
                let _ = write!(chain, "{ip}, ");
            }
        }
    }
    let _ = write!(chain, "{on_the_wire}");
    add(&headers::FORWARDED_FOR, &chain);
    chain.clear();
    // IPv6 addresses need brackets and quotes (RFC 7239 section 6).
    let _ = match client_ip(head, service).unwrap_or(on_the_wire) {
        IpAddr::V4(ip) => write!(chain, "for={ip}"),
        IpAddr::V6(ip) => write!(chain, "for=\"[{ip}]\""),
    };
    let _ = write!(chain, ";host=\"{host}\";proto={proto}");
    add(&header::FORWARDED, &chain);
}

/// Sends an admitted request to a process and returns its response. If a process does not accept
/// the connection, the next one is tried; after that the request is never sent to another process.
async fn forward(
    request: &HttpRequest,
    payload: web::Payload,
    proxy: &web::Data<Proxy>,
    pass: &Pass,
    place: &ContentLocation,
    rest: &str,
) -> Result<HttpResponse, WebError> {
    let (service, item, head) = (&proxy.service, pass.content(), request.head());
    if item.processes.is_empty() {
        let mine = matches!(&pass.content, Audience::Viewer(admission) if admission.person.id == admission.content.owner);
        return Err(WebError::no_app_yet(mine));
    }
    let incoming = head.headers();
    // The response of a page that gets the bar must be uncompressed and complete.
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let with_bar = item.proxying.reconnect_bar && is_read && is_navigation(request);
    let length: Option<u64> = incoming
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let has_body = length.is_some()
        || incoming.contains_key(header::TRANSFER_ENCODING)
        || request.extensions().contains::<HasBody>();
    let stalled = Rc::new(Cell::new(false));
    let mut body = has_body.then_some(payload);
    let idempotent = matches!(
        head.method,
        Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS
    );
    let mut tried = Vec::new();
    let (answer, next) = loop {
        let Some(mut next) = next_process(head, proxy, pass, &mut tried).await else {
            return Err(not_reached(service, pass).await);
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
        add_portal_headers(&mut out, head, proxy, place, next.token.as_ref());
        headers::append_request_headers(
            incoming,
            &mut out,
            if with_bar {
                &bar::DROPPED_REQUEST_HEADERS
            } else {
                &[]
            },
        );
        if let Some(length) = length {
            headers::append_line(
                &mut out,
                &header::CONTENT_LENGTH,
                length.to_string().as_bytes(),
            );
        } else if has_body {
            headers::append_line(&mut out, &header::TRANSFER_ENCODING, b"chunked");
        }
        out.extend_from_slice(b"\r\n");
        // The body is not read before the connection is established, so it is still complete for
        // the next process.
        let connected =
            client::connect(&next.target, &item.proxying, idempotent && !has_body).await;
        let connected = match connected {
            Ok(connected) => connected,
            Err(error) => {
                tracing::warn!(content = %item.id, reason = %error, "app not reached");
                proxy
                    .processes
                    .note_health(&next.process.url, false, service.core.now());
                continue;
            }
        };
        next.here = pass.arrive(service, next.process);
        let upload = body.take().map(|payload| {
            Upload::new(
                with_idle_timeout(payload, Rc::clone(&stalled)).boxed_local(),
                length,
            )
        });
        match client::send(
            connected,
            &next.target,
            &item.proxying,
            &out,
            upload,
            head.method == Method::HEAD,
        )
        .await
        {
            // The request had no `Upgrade` header.
            Ok(answer) if answer.head.status == StatusCode::SWITCHING_PROTOCOLS => {
                return Err(app_error(service, pass, StatusCode::BAD_GATEWAY, "broke off").await);
            }
            Ok(answer) => break (answer, next),
            Err(ClientError::Upload) if stalled.get() => return Err(WebError::BodyTimeout),
            Err(error) => {
                tracing::warn!(content = %item.id, reason = %error, "an app did not answer");
                return Err(match error {
                    ClientError::FirstByteTimeout => {
                        app_error(
                            service,
                            pass,
                            StatusCode::GATEWAY_TIMEOUT,
                            "does not answer",
                        )
                        .await
                    }
                    ClientError::Protocol(_) | ClientError::Io(_) => {
                        app_error(service, pass, StatusCode::BAD_GATEWAY, "broke off").await
                    }
                    ClientError::Connect(_) | ClientError::Upload => {
                        not_reached(service, pass).await
                    }
                });
            }
        }
    };
    let process = next.process;
    let mut response = response::to_browser(request, proxy, pass, place, next, answer, with_bar);
    if let Some(cookie) = sticky_cookie(proxy, pass, process) {
        // Cannot fail: the cookie has only letters and digits.
        drop(response.add_cookie(&cookie));
    }
    Ok(response)
}

/// The sticky cookie that names the browser's process; `None` if the item has one process, or if
/// the browser has this cookie already.
fn sticky_cookie(proxy: &Proxy, pass: &Pass, process: &Process) -> Option<Cookie<'static>> {
    let item = pass.content();
    let mark = item.process_id(process);
    if mark.is_only() || pass.stays_at == Some(mark) {
        return None;
    }
    Some(handover::cookie(
        proxy.sessions.process_cookie(item.id),
        mark.to_string(),
        &proxy.service,
    ))
}

async fn not_reached(service: &Services, pass: &Pass) -> WebError {
    app_error(service, pass, StatusCode::BAD_GATEWAY, "is not running").await
}

/// The error page for an app that fails: names the item and its owner, who can restart it.
async fn app_error(service: &Services, pass: &Pass, status: StatusCode, what: &str) -> WebError {
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
