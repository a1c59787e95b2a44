//! The gate: which item a request is for, who asks, and whether they may pass. Every request and
//! every WebSocket handshake goes through [`admit`]; nothing of a request reaches an app before.
//! Access rules are in `domain::access`; this module only turns the outcome into an answer.

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
        client_address::{audit_origin, client_ip},
        codes::Code,
        errors::WebError,
        host::requested_host,
        navigation::is_navigation,
        open_counts::OpenGuard,
        redirect::see_other,
        sessions::Sessions,
    },
    proxy::{handover, sockets::Ticket, state::Proxy},
    service::{
        Error, Services,
        cluster::presence::PresenceGuard,
        grants::admission::{Admission, IntegrationAccess},
    },
};
use actix_web::{
    HttpRequest, HttpResponse,
    dev::RequestHead,
    http::{Method, StatusCode, header},
};
use serde_json::json;
use std::{net::Ipv4Addr, sync::Arc};

/// A request that was admitted: its item, its browser session, and the process named by its cookie.
pub struct Pass {
    pub(super) content: Audience,
    pub(super) session: Option<Id<BrowserSession>>,
    pub(super) stays_at: Option<ProcessId>,
}

/// The content item: with the admission of a signed-in viewer, or as public content for an
/// anonymous one.
pub(super) enum Audience {
    Viewer(Arc<Admission>),
    Anyone(Arc<Content>),
}

impl Pass {
    /// What an open WebSocket or event stream of this viewer depends on.
    pub(super) fn ticket(&self) -> Ticket {
        Ticket {
            content: self.content().id,
            session: self.session,
        }
    }

    pub(super) fn content(&self) -> &Content {
        match &self.content {
            Audience::Viewer(admission) => &admission.content,
            Audience::Anyone(content) => content,
        }
    }
    pub(super) fn viewer(&self) -> Option<&Admission> {
        match &self.content {
            Audience::Viewer(admission) => Some(admission),
            Audience::Anyone(_) => None,
        }
    }
    pub(super) fn person(&self) -> Option<Id<Person>> {
        self.viewer().map(|admission| admission.person.id)
    }
    /// Whether the viewer has so much open at a process, with what [`Self::arrive`] counted last,
    /// that others could suffer.
    pub(super) fn has_too_much_open(&self, service: &Services, process: &Process) -> bool {
        self.viewer().is_some_and(|admission| {
            let process = admission.content.process_id(process);
            let open = service.presence.open_count(&admission.presence, process);
            open > service.core.settings.open_per_viewer
        })
    }

    /// Counts one more request or WebSocket of the client's network; `None` if it has too much open.
    /// Who is not signed in shares the limit of one viewer with their network.
    pub(super) fn open_from(&self, head: &RequestHead, proxy: &Proxy) -> Option<OpenGuard> {
        let settings = &proxy.service.core.settings;
        let most = match &self.content {
            Audience::Viewer(_) => settings.open_per_address,
            Audience::Anyone(_) => settings.open_per_viewer,
        };
        let ip = client_ip(head, &proxy.service).unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        proxy.open.open(ip, most)
    }

    /// Records the viewer as present at a process until the guard is dropped; `None` for an
    /// anonymous viewer.
    pub(super) fn arrive(&self, service: &Services, process: &Process) -> Option<PresenceGuard> {
        self.viewer().map(|admission| {
            service
                .presence
                .arrive(&admission.presence, admission.content.process_id(process))
        })
    }
}

/// Why a request is not admitted.
pub(super) enum GateError {
    /// No live browser session, and the item is not public.
    SignIn,
    /// The viewer is not on the item's access list.
    MayNot(Arc<Admission>),
    /// The viewer must consent or sign in at the provider first; the value is the `reason` of the
    /// JSON response.
    NeedsViewer(&'static str),
}

/// A request that no app gets, whoever sends it: status, title and sentence of the error page.
pub(super) struct Rejection(
    pub(super) StatusCode,
    pub(super) &'static str,
    pub(super) &'static str,
);

/// The item id in a path of the form `/content/{guid}/…`.
fn item_of(path: &str) -> Option<Id<Content>> {
    path.strip_prefix("/content/")?
        .split_once('/')?
        .0
        .parse()
        .ok()
}

/// The content location that a request addresses, by host and path; `None` if there is no item.
pub(super) async fn locate(
    head: &RequestHead,
    service: &Services,
) -> Result<Option<ContentLocation>, Error> {
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
pub(super) fn check_request<'a>(
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

/// Whether a page of another origin sends the request, and the item does not allow that. All content
/// hosts are one site to a browser, so it sends their cookies along; and `Origin` alone is missing
/// from many requests. Decided by Fetch Metadata (`Sec-Fetch-Site`), or by `Origin` where that is
/// missing. A viewer who follows a link comes from elsewhere, too: a top-level GET navigation passes.
pub(super) fn is_from_elsewhere(
    head: &RequestHead,
    place: &ContentLocation,
    item: &Content,
) -> bool {
    let text = |name: &str| {
        head.headers()
            .get(name)
            .map(|value| value.to_str().unwrap_or("unreadable"))
    };
    let origin = text("origin");
    let is_elsewhere = match text("sec-fetch-site") {
        Some("same-origin" | "none") => false,
        Some(_) => true,
        None => origin.is_some_and(|origin| origin != place.origin),
    };
    if !is_elsewhere {
        return false;
    }
    let allowed = &item.proxying.allowed_origins;
    let is_read = matches!(head.method, Method::GET | Method::HEAD);
    let navigates_to =
        text("sec-fetch-dest").filter(|_| is_read && text("sec-fetch-mode") == Some("navigate"));
    match navigates_to {
        Some("document") => false,
        // Which sites may frame the app is said by the response: see `response::frame_ancestors`.
        Some("iframe" | "frame") if !allowed.is_empty() => false,
        _ => !origin.is_some_and(|origin| allowed.iter().any(|known| known == origin)),
    }
}

/// Whether a path has no dot segments, backslashes or NUL, plain or percent-encoded, also more than
/// once, and no dot segment with a path parameter (`..;`), which some servers cut off.
pub fn is_plain(path: &str) -> bool {
    let is_dots = |part: &str| matches!(part.split(';').next(), Some("." | ".."));
    let no_dots = |path: &str| !path.split('/').any(is_dots);
    if !path.bytes().any(|byte| byte == b'%' || byte == b'\\') {
        return no_dots(path);
    }
    let mut text = path.to_ascii_lowercase();
    // As often as a chain of servers may decode it.
    for _ in 0..MAX_DECODINGS {
        if !no_dots(&text) || text.contains('\\') || text.contains("%00") {
            return false;
        }
        let decoded = text
            .replace("%2e", ".")
            .replace("%2f", "/")
            .replace("%3b", ";")
            .replace("%5c", "\\")
            .replace("%25", "%");
        if decoded == text {
            return true;
        }
        text = decoded;
    }
    // Encoded that often on purpose.
    false
}

/// Layers of percent-encoding that [`is_plain`] looks through.
const MAX_DECODINGS: usize = 5;

/// Whether a request may pass.
pub(super) enum Decision {
    Admitted(Pass),
    Refused(GateError),
}

/// Authorizes a request. The error is a failure to decide.
pub(super) async fn admit(
    head: &RequestHead,
    proxy: &Proxy,
    place: &ContentLocation,
) -> Result<Decision, Error> {
    let (service, sessions, id) = (&proxy.service, &proxy.sessions, place.content);
    let same_origin = service.core.settings.origins.is_same_origin();
    let found = if same_origin {
        sessions.session_of(head).await?
    } else {
        sessions.content_session_of(head, id).await?
    };
    let Some((session, person)) = found else {
        return Ok(match service.contents.public_content(id).await? {
            Some(content) => Decision::Admitted(Pass {
                stays_at: stays_at(head, proxy, &content),
                content: Audience::Anyone(content),
                session: None,
            }),
            None => Decision::Refused(GateError::SignIn),
        });
    };
    let admission = service.admissions.admission(id, person.id).await?;
    if !access::may_open(admission.standing) {
        return Ok(Decision::Refused(GateError::MayNot(admission)));
    }
    if admission.content.access != AccessType::All
        && admission
            .integrations
            .iter()
            .any(IntegrationAccess::needs_viewer)
    {
        let is_asked = admission
            .integrations
            .iter()
            .any(|link| link.consent.is_none());
        return Ok(Decision::Refused(GateError::NeedsViewer(if is_asked {
            "not_consented"
        } else {
            "needs_reauthorization"
        })));
    }
    let stays_at = stays_at(head, proxy, &admission.content);
    Ok(Decision::Admitted(Pass {
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
        .cookie(head, &Sessions::process_cookie(item.id))?
        .parse()
        .ok()?;
    item.processes
        .iter()
        .any(|process| ProcessId::of(process) == said)
        .then_some(said)
}

/// The response to a request that was not admitted: a redirect for a browser's navigation, JSON or
/// an error page otherwise.
pub(super) async fn refuse(
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
            Err(WebError::MayNotOpen(id))
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
                "code": Code::NotConnected, "error": text,
                "error_code": Code::NotConnected, "error_message": text,
                "payload": {"reason": reason, "login_url": service.exchange.login_url(id)},
            })))
        }
    }
}

/// Writes an audit record: another site sent a request as this viewer.
pub(super) fn audit_foreign_request(
    service: &Services,
    pass: &Pass,
    request: &HttpRequest,
    place: &ContentLocation,
) {
    service.audit.note_refusal(
        Action::AccessRefused,
        pass.viewer().map(|admission| &admission.person),
        &audit_origin(request, service),
        "request of another site",
        place.address(""),
    );
}

/// Writes an audit record: a viewer asked for content that they may not open.
pub(super) async fn audit_refusal(service: &Services, admission: &Admission, from: &Origin) {
    let title = admission.content.display_title().to_owned();
    service.audit.note_refusal(
        Action::AccessRefused,
        Some(&admission.person),
        from,
        "may not open this content",
        title,
    );
}
