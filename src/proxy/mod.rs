//! The reverse proxy in front of content: who may pass, which headers, streaming both ways, WebSockets as they are.

mod entrance;
pub mod headers;
mod upstream;
mod websocket;

pub use upstream::Upstreams;

use crate::{
    domain::{
        Id, access, addresses,
        audit::Action,
        content::{AccessType, Content},
        person::Session as BrowserSession,
        return_path::ReturnPath,
        wall::{Host, Place},
    },
    service::{
        Error, Service,
        admission::{Admission, Link},
    },
    web::{
        body::impatient,
        pages::content::nothing_behind,
        problems::{FromContent, WebError},
        sessions::Sessions,
        visitor::{asked_host, is_navigation, origin, peer, see_other},
    },
};
use actix_http::body::{BodyStream, SizedStream};
use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder,
    http::{
        Method, StatusCode, Uri,
        header::{self, HeaderMap, HeaderName, HeaderValue},
    },
    web,
};
use futures_util::StreamExt as _;
use serde_json::json;
use std::{cell::Cell, rc::Rc, sync::Arc};
use upstream::Target;

/// Somebody who may pass, with what goes into the request.
struct Pass {
    content: Passed,
    session: Option<Id<BrowserSession>>,
    token: Option<HeaderValue>,
}

/// The content item, for a viewer whose standing was looked up, or for anyone.
enum Passed {
    Viewer(Arc<Admission>),
    Anyone(Box<Content>),
}

impl Pass {
    fn content(&self) -> &Content {
        match &self.content {
            Passed::Viewer(admission) => &admission.content,
            Passed::Anyone(content) => content,
        }
    }
}

/// What to ask again while a socket stays open.
#[derive(Clone, Copy)]
struct Ticket {
    content: Id<Content>,
    session: Option<Id<BrowserSession>>,
}

impl Ticket {
    /// Whether what let this viewer in is still true.
    async fn holds(self, service: &Service) -> bool {
        let Some(session) = self.session else { return true };
        let Ok(Some(person)) = service.session_person(session).await else { return false };
        // A connection that needs its viewer again leaves what is open open; a consent taken back does not.
        service.admission(self.content, person.id).await.is_ok_and(|admission| {
            access::may_open(admission.standing)
                && (admission.content.access == AccessType::All || admission.links.iter().all(|link| link.consent.is_some()))
        })
    }
}

/// The item of a path below `/content/{guid}/`.
fn item_of(path: &str) -> Option<Id<Content>> {
    path.strip_prefix("/content/")?.split_once('/')?.0.parse().ok()
}

/// The place that a request was sent to; `None` on a host of content's where no item stands.
async fn place_of(request: &HttpRequest, service: &Service) -> Result<Option<Place>, Error> {
    let wall = &service.settings.wall;
    let (item, slug) = match wall.host(asked_host(request.head())) {
        Host::Item(slug) => (service.by_slug(slug).await?, slug),
        Host::Content | Host::Portal => (item_of(request.uri().path()), ""),
        Host::Unknown => (None, ""),
    };
    Ok(item.and_then(|item| wall.place(item, slug)))
}

/// Everything on content's own hosts, or below `/content/{guid}/` where content shares the portal's origin.
pub async fn serve(
    request: HttpRequest,
    payload: web::Payload,
    service: web::Data<Service>,
    sessions: web::Data<Sessions>,
    upstreams: web::Data<Upstreams>,
) -> Result<HttpResponse, WebError> {
    if !service.settings.wall.is_same_origin()
        && let Some(own) = request.uri().path().strip_prefix(entrance::RESERVED)
    {
        return entrance::serve(&request, own, &service, &sessions).await;
    }
    let Some(place) = place_of(&request, &service).await? else { return entrance::nowhere(&request, &service) };
    let id = place.content;
    if request.headers().get_all(header::VIA).any(|via| via == upstreams.via()) {
        return Err(WebError::Page(
            StatusCode::LOOP_DETECTED,
            "This content leads back to itself".into(),
            "The address of its app is an address of this portal. Its publisher can enter the app's own address.".into(),
        ));
    }
    let Some(rest) = place.rest(request.uri().path()).filter(|rest| is_plain(rest)) else {
        return Err(WebError::Page(
            StatusCode::BAD_REQUEST,
            "This address is not in plain form".into(),
            "Leave out dot segments and backslashes.".into(),
        ));
    };
    if !matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::PATCH | Method::DELETE | Method::OPTIONS
    ) {
        return Err(WebError::Page(
            StatusCode::METHOD_NOT_ALLOWED,
            "This method is not allowed".into(),
            "Apps here take GET, HEAD, POST, PUT, PATCH, DELETE and OPTIONS.".into(),
        ));
    }
    let pass = match admit(&request, &service, &sessions, &place, rest).await? {
        Ok(pass) => pass,
        Err(answer) => return Ok(answer),
    };
    let Some(address) = pass.content().upstream.as_deref() else {
        let mine = matches!(&pass.content, Passed::Viewer(admission) if admission.person.id == admission.content.owner);
        return Err(nothing_behind(mine));
    };
    let Ok(target) = upstreams.target(address, &service.policy).await else {
        return Err(not_reached(&service, &pass).await);
    };
    let uri = target.uri(rest, request.uri().query()).ok_or(Error::Internal)?;
    let mut head = HeaderMap::with_capacity(32);
    add_ours(&mut head, &request, &service, &pass, &place);
    head.insert(header::VIA, upstreams.via().clone());
    if request.headers().contains_key(header::UPGRADE) {
        let ticket = Ticket { content: id, session: pass.session };
        return websocket::tunnel(&request, payload, &service, &upstreams, &target, &uri, &head, ticket, &place).await;
    }
    forward(&request, payload, &service, &upstreams, &target, uri, head, &pass, &place).await
}

/// No dot segments, backslashes or control bytes, however they are written.
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

async fn admit(
    request: &HttpRequest,
    service: &web::Data<Service>,
    sessions: &Sessions,
    place: &Place,
    rest: &str,
) -> Result<Result<Pass, HttpResponse>, WebError> {
    let id = place.content;
    let same_origin = service.settings.wall.is_same_origin();
    // Back to the portal's own address of this page: it leads here from wherever the viewer ends up.
    let back = || {
        let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
        let asked = ReturnPath::parse(&format!("{}{rest}{query}", addresses::app(id)));
        asked.filter(|_| request.method() == Method::GET).or_else(|| ReturnPath::parse(&addresses::app(id)))
    };
    let found = if same_origin { sessions.whose(request).await? } else { sessions.whose_of_content(request, id).await? };
    let Some((session, person)) = found else {
        if let Some(content) = service.public_content(id).await? {
            return Ok(Ok(Pass { content: Passed::Anyone(Box::new(content)), session: None, token: None }));
        }
        if !same_origin && is_navigation(request) {
            return Ok(Err(entrance::ask_portal(request, service, sessions, id, rest)));
        }
        return Err(WebError::SignIn(back()));
    };
    let admission = service.admission(id, person.id).await?;
    if !access::may_open(admission.standing) {
        if !same_origin {
            let title = admission.content.display_title().to_owned();
            let from = origin(request, service);
            service.note_refusal(Action::AccessRefused, Some(&admission.person), &from, "may not open this content", title).await;
        }
        return Err(WebError::Page(
            StatusCode::FORBIDDEN,
            "You may not open this content".into(),
            "Its publisher decides who may. Ask them, or the administrator of this portal, to add you to its list.".into(),
        ));
    }
    if admission.content.access != AccessType::All && admission.links.iter().any(Link::needs_viewer) {
        if is_navigation(request) {
            let page = addresses::consent(id, &back().ok_or(Error::Internal)?);
            return Ok(Err(see_other(&service.addresses.absolute(&page))));
        }
        let reason = if admission.links.iter().any(|link| link.consent.is_none()) { "not_consented" } else { "needs_reauthorization" };
        let text = "The viewer has to be asked first. Open login_url in the browser's window.";
        return Ok(Err(HttpResponse::Unauthorized().json(json!({
            "code": 220, "error": text, "error_code": 220, "error_message": text,
            "payload": {"reason": reason, "login_url": service.login_url(id)},
        }))));
    }
    let token = upstream::session_token(service, person.id, id, session).ok_or(Error::Internal)?;
    Ok(Ok(Pass { content: Passed::Viewer(admission), session: Some(session), token: Some(token) }))
}

/// What we add, and nobody else: exactly one session token, and where the request came from.
fn add_ours(head: &mut HeaderMap, request: &HttpRequest, service: &Service, pass: &Pass, place: &Place) {
    let mut add = |name: HeaderName, value: web::Bytes| {
        if let Ok(value) = HeaderValue::from_maybe_shared(value) {
            head.insert(name, value);
        }
    };
    if let Some(peer) = peer(request, service) {
        add(headers::FORWARDED_FOR, peer.to_string().into());
    }
    // The path asked for begins with the item's place: one text, and two parts of it.
    let path = request.uri().path_and_query().map_or(place.base.as_str(), |path| path.as_str());
    let (start, end) = (place.origin.len(), place.origin.len() + place.base.len() - 1);
    let mut asked = String::with_capacity(start + path.len());
    asked.push_str(&place.origin);
    asked.push_str(path);
    let asked = web::Bytes::from(asked);
    if end > start {
        add(headers::FORWARDED_PREFIX, asked.slice(start..end));
    }
    add(headers::APP_BASE_URL, asked.slice(..end));
    add(headers::REQUEST_URL, asked);
    head.insert(headers::FORWARDED_PROTO, HeaderValue::from_static(if service.settings.is_https() { "https" } else { "http" }));
    // The viewer's Host: apps compare it with Origin.
    if let Some(host) = request.headers().get(header::HOST) {
        head.insert(headers::FORWARDED_HOST, host.clone());
        head.insert(header::HOST, host.clone());
    }
    if let Some(token) = &pass.token {
        head.insert(headers::SESSION_TOKEN, token.clone());
    }
}

#[expect(clippy::too_many_arguments, reason = "one call, from the handler above")]
async fn forward(
    request: &HttpRequest,
    payload: web::Payload,
    service: &web::Data<Service>,
    upstreams: &Upstreams,
    target: &Target,
    uri: Uri,
    ours: HeaderMap,
    pass: &Pass,
    place: &Place,
) -> Result<HttpResponse, WebError> {
    let mut outgoing = upstreams.client().request(request.method().clone(), uri).address(target.socket).no_decompress();
    let incoming = request.headers();
    *outgoing.headers_mut() = ours;
    headers::for_app(incoming, outgoing.headers_mut());
    let length: Option<u64> = incoming.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let chunked = incoming.contains_key(header::TRANSFER_ENCODING);
    let stalled = Rc::new(Cell::new(false));
    let sent = match (length, chunked) {
        (Some(length), _) => outgoing.send_body(SizedStream::new(length, impatient(payload, Rc::clone(&stalled)))).await,
        (None, true) => outgoing.send_body(BodyStream::new(impatient(payload, Rc::clone(&stalled)))).await,
        (None, false) => outgoing.send().await,
    };
    let answer = match sent {
        Ok(answer) => answer,
        Err(_) if stalled.get() => return Err(WebError::Slow),
        Err(error) => {
            tracing::warn!(content = %pass.content().id, reason = %error, "app not reached");
            return Err(match error {
                awc::error::SendRequestError::Timeout => app_problem(service, pass, StatusCode::GATEWAY_TIMEOUT, "does not answer").await,
                _ => not_reached(service, pass).await,
            });
        }
    };
    let mut response = HttpResponse::build(answer.status());
    copy_answer(&mut response, answer.headers(), target, place);
    let length: Option<u64> = answer.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let bodiless = request.method() == Method::HEAD || matches!(answer.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let is_events = answer.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    let held = pass.token.as_ref().filter(|_| is_events).and_then(|token| token.to_str().ok()).map(|token| service.hold_token(token));
    let stream = answer.map(move |chunk| {
        // For as long as the stream is open.
        let _ = &held;
        chunk.map_err(|error| std::io::Error::other(error.to_string()))
    });
    let mut response = match length {
        Some(length) if bodiless => {
            response.body(SizedStream::new(length, futures_util::stream::empty::<Result<web::Bytes, std::io::Error>>()))
        }
        None if bodiless => response.finish(),
        Some(length) => response.body(SizedStream::new(length, stream)),
        None => response.body(BodyStream::new(stream)),
    };
    response.extensions_mut().insert(FromContent);
    Ok(response)
}

fn copy_answer(response: &mut HttpResponseBuilder, from: &HeaderMap, target: &Target, place: &Place) {
    let listed = headers::connection_names(from);
    for (name, value) in from {
        if headers::response_passes(name.as_str(), &listed) {
            response.append_header((name.clone(), value.clone()));
        }
    }
    for cookie in from.get_all(header::SET_COOKIE) {
        if let Some(cookie) = cookie.to_str().ok().and_then(|text| headers::cookie_from_app(text, &place.base)) {
            response.append_header((header::SET_COOKIE, cookie));
        }
    }
    if let Some(location) = from.get(header::LOCATION).and_then(|value| value.to_str().ok()) {
        let location = headers::location_from_app(location, &target.origin, &target.prefix, &place.base, &place.origin);
        response.insert_header((header::LOCATION, location));
    }
}

async fn not_reached(service: &Service, pass: &Pass) -> WebError {
    app_problem(service, pass, StatusCode::BAD_GATEWAY, "is not running").await
}

/// Says whose app it is, and who can mend it.
async fn app_problem(service: &Service, pass: &Pass, status: StatusCode, what: &str) -> WebError {
    let owner = service.owner_name(pass.content().owner).await.unwrap_or_else(|| "its publisher".into());
    WebError::Page(
        status,
        format!("“{}” {what}", pass.content().display_title()),
        format!("The portal works, but the app behind this address cannot be reached. {owner} publishes it and can start it again."),
    )
}
