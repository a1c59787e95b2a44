//! The gate: which item a request is for, who asks, and whether they may pass. Every request and
//! every WebSocket handshake goes through [`admit`]; nothing of a request reaches an app before.
//! Access rules are in `domain::access`; this module only turns the outcome into an answer.

use crate::{
    domain::{
        Id, access, addresses,
        audit::{Action, Origin},
        bundle::AppMode,
        content::{AccessType, Content, Process, ProcessId},
        origins::{ContentLocation, HostKind},
        person::{Person, Session as BrowserSession, SignedIn},
        return_path::ReturnPath,
    },
    http::{
        client_address::{audit_origin, client_ip},
        codes::Code,
        errors::WebError,
        host::requested_host,
        navigation::{SEC_FETCH_DEST, SEC_FETCH_MODE, SEC_FETCH_SITE, is_navigation},
        open_counts::OpenGuard,
        presented_key::{PresentedKey, presented_key},
        redirect::see_other,
    },
    proxy::{handover, sockets::Ticket, starting, state::Proxy},
    service::{
        Error, Services,
        cluster::presence::PresenceGuard,
        grants::admission::{Admission, IntegrationAccess},
        running::board::RunKey,
    },
};
use actix_web::{
    HttpRequest, HttpResponse,
    dev::RequestHead,
    http::{
        Method, StatusCode,
        header::{self, HeaderName},
    },
};
use serde_json::json;
use std::{
    borrow::Cow,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

/// A request that was admitted: its item, and its browser session or key.
pub struct Pass {
    pub(super) content: Audience,
    pub(super) session: Option<SignedIn>,
    /// What the app is told of the viewer: the value of `RStudio-Connect-Credentials`.
    pub(super) identity: Option<Arc<str>>,
    /// The client's address, through trusted proxies.
    pub(super) client: Option<IpAddr>,
    /// Set if the app runs here.
    run: Option<RunsHere>,
}

/// What serves an item whose app runs here.
struct RunsHere {
    key: RunKey,
    processes: Arc<Vec<Process>>,
    /// Whether the app gets the whole path: a draft may be of another kind than what viewers get.
    keeps_prefix: bool,
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

    /// The app runs here, by these processes. `draft`: the kind of app of a draft.
    pub(super) fn run_by(
        &mut self,
        key: RunKey,
        processes: Arc<Vec<Process>>,
        draft: Option<AppMode>,
    ) {
        let keeps_prefix = match draft {
            Some(mode) => mode.keeps_prefix(),
            None => self.content().proxying.keep_prefix,
        };
        self.run = Some(RunsHere {
            key,
            processes,
            keeps_prefix,
        });
    }
    /// What runs here for the item; `None` if its app runs elsewhere.
    pub(super) fn run_key(&self) -> Option<RunKey> {
        self.run.as_ref().map(|run| run.key)
    }
    /// The processes of the app.
    pub(super) fn processes(&self) -> &[Process] {
        match &self.run {
            Some(run) => &run.processes,
            None => &self.content().processes,
        }
    }
    /// Whether the app gets the whole path, with the prefix of the item.
    pub(super) fn keeps_prefix(&self) -> bool {
        match &self.run {
            Some(run) => run.keeps_prefix,
            None => self.content().proxying.keep_prefix,
        }
    }
    /// The identifier of one of them.
    pub(super) fn process_id(&self, process: &Process) -> ProcessId {
        match self.run {
            // Which of them is the only one changes by itself.
            Some(_) => ProcessId::of(process),
            None => ProcessId::among(self.processes(), process),
        }
    }
    /// The process named by the browser's cookie, if the app still has it among several. `place`: as
    /// the cookie was set, in a draft the draft's.
    pub(super) fn stays_at(
        &self,
        head: &RequestHead,
        proxy: &Proxy,
        place: &ContentLocation,
    ) -> Option<ProcessId> {
        let processes = self.processes();
        if processes.len() < 2 {
            return None;
        }
        let name = proxy.sessions.process_cookie(place.content, &place.base);
        let named: ProcessId = proxy.sessions.cookie(head, &name)?.parse().ok()?;
        let still = processes
            .iter()
            .any(|process| ProcessId::of(process) == named);
        still.then_some(named)
    }
    /// Whether the request came with an API key instead of a browser session.
    pub(super) fn is_by_key(&self) -> bool {
        matches!(self.session, Some(SignedIn::Key(_)))
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
            let process = self.process_id(process);
            let open = service.presence.open_count(&admission.presence, process);
            open > service.core.settings.open_per_viewer
        })
    }

    /// Counts one more request or WebSocket of the client's network; `None` if it has too much open.
    /// Who is not signed in shares the limit of one viewer with their network.
    pub(super) fn open_from_client(&self, proxy: &Proxy) -> Option<OpenGuard> {
        let settings = &proxy.service.core.settings;
        let most = match &self.content {
            Audience::Viewer(_) => settings.open_per_address,
            Audience::Anyone(_) => settings.open_per_viewer,
        };
        let ip = self.client.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        proxy.open.open(ip, most)
    }

    /// Records the viewer as present at a process until the guard is dropped; `None` for an
    /// anonymous viewer.
    pub(super) fn arrive(&self, service: &Services, process: &Process) -> Option<PresenceGuard> {
        self.viewer().map(|admission| {
            service
                .presence
                .arrive(&admission.presence, self.process_id(process))
        })
    }
}

/// Why a request is not admitted.
pub(super) enum GateError {
    /// No live browser session, and the item is not public.
    SignIn,
    /// The API key is unknown, has expired, or is no person's.
    BadKey,
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
        HostKind::Portal => return locate_for_key(head, service).await,
        HostKind::Unknown => (None, ""),
    };
    Ok(item.and_then(|item| origins.location(item, slug)))
}

/// The location for a program that asks the portal's own host, with an API key: clients drop the
/// key where they are redirected to another host.
async fn locate_for_key(
    head: &RequestHead,
    service: &Services,
) -> Result<Option<ContentLocation>, Error> {
    let Some(item) = item_of(head.uri.path()) else {
        return Ok(None);
    };
    let found = service.bundles.item(item).await?;
    let origins = &service.core.settings.origins;
    Ok(found.and_then(|item| origins.location(item.id, &item.slug)))
}

/// The path in front of the app's own one, as it was sent: the item's base, or `/content/{guid}/`
/// at the portal's own host.
fn sent_base<'a>(
    head: &RequestHead,
    service: &Services,
    place: &'a ContentLocation,
) -> Cow<'a, str> {
    let origins = &service.core.settings.origins;
    match origins.host(requested_host(head)) {
        HostKind::Portal if !origins.is_same_origin() => addresses::app(place.content).into(),
        _ => place.base.as_str().into(),
    }
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
    let base = sent_base(head, &proxy.service, place);
    let plain = head.uri.path().strip_prefix(&*base);
    let plain = plain.filter(|rest| is_plain(rest));
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
    let text = |name: HeaderName| {
        let value = head.headers().get(name);
        value.map(|value| value.to_str().unwrap_or("unreadable"))
    };
    let is_elsewhere = match text(SEC_FETCH_SITE) {
        Some("same-origin" | "none") => false,
        Some(_) => true,
        None => text(header::ORIGIN).is_some_and(|origin| origin != place.origin),
    };
    if !is_elsewhere {
        return false;
    }
    let allowed = &item.proxying.allowed_origins;
    let is_read = matches!(head.method, Method::GET | Method::HEAD);
    let navigates_to =
        text(SEC_FETCH_DEST).filter(|_| is_read && text(SEC_FETCH_MODE) == Some("navigate"));
    match navigates_to {
        Some("document") => false,
        // The response says so, too (`response::frame_ancestors`), but only after the app has seen the
        // request. A frame's navigation names its site in `Referer` alone.
        Some("iframe" | "frame") => {
            let site = text(header::REFERER).and_then(|text| url::Url::parse(text).ok());
            let site = site.map(|url| url.origin().ascii_serialization());
            !site.is_some_and(|site| allowed.contains(&site))
        }
        _ => {
            let origin = text(header::ORIGIN);
            !origin.is_some_and(|origin| allowed.iter().any(|known| known == origin))
        }
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
    let found = match presented_key(&head.headers) {
        // A key is sent on purpose, so it decides, whatever cookies come along.
        PresentedKey::Key(key) => match key_holder(service, key).await? {
            Some(found) => Some(found),
            None => return Ok(Decision::Refused(GateError::BadKey)),
        },
        _ if same_origin => browser(sessions.session_of(head).await?),
        _ => browser(sessions.content_session_of(head, id).await?),
    };
    let Some((session, person)) = found else {
        return Ok(match service.contents.public_content(id).await? {
            Some(content) => Decision::Admitted(Pass {
                content: Audience::Anyone(content),
                session: None,
                identity: None,
                client: client_ip(head, service),
                run: None,
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
    let identity = if admission.content.access == AccessType::All {
        None
    } else {
        Some(service.admissions.identity_header(&admission).await?)
    };
    Ok(Decision::Admitted(Pass {
        content: Audience::Viewer(admission),
        session: Some(session),
        identity,
        client: client_ip(head, service),
        run: None,
    }))
}

/// The session and person of a browser.
fn browser(found: Option<(Id<BrowserSession>, Arc<Person>)>) -> Option<(SignedIn, Arc<Person>)> {
    found.map(|(session, person)| (SignedIn::Browser(session), person))
}

/// The person of an API key, unless it is a content key: that acts for an app.
async fn key_holder(
    service: &Services,
    key: &str,
) -> Result<Option<(SignedIn, Arc<Person>)>, Error> {
    let caller = service.api_keys.caller(key).await?;
    let Some(caller) = caller.filter(|caller| caller.content.is_none()) else {
        return Ok(None);
    };
    Ok(Some((
        SignedIn::Key(caller.key),
        Arc::new(caller.person.clone()),
    )))
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
    if is_framed(request) && matches!(refusal, GateError::SignIn | GateError::NeedsViewer(_)) {
        return Ok(starting::open_in_new_window(service, id));
    }
    let back = asked
        .filter(|_| request.method() == Method::GET)
        .or_else(|| ReturnPath::parse(&addresses::app(id)));
    match refusal {
        GateError::SignIn if !same_origin && is_navigation(request) => Ok(
            handover::redirect_to_portal(request, service, &proxy.sessions, id, rest),
        ),
        GateError::SignIn => Err(WebError::SignIn(back)),
        GateError::BadKey => {
            let text = "The API key is unknown or has expired.";
            Ok(HttpResponse::Unauthorized().json(json!({
                "code": Code::UnknownKey, "error": text,
                "error_code": Code::UnknownKey, "error_message": text, "payload": null,
            })))
        }
        GateError::MayNot(admission) => {
            if !same_origin {
                audit_refusal(service, &admission, &audit_origin(request, service));
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

/// Whether a browser loads a frame of a page of another site.
fn is_framed(request: &HttpRequest) -> bool {
    let is = |name: HeaderName, words: &[&str]| {
        let value = request
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok());
        value.is_some_and(|value| words.contains(&value))
    };
    is(SEC_FETCH_MODE, &["navigate"])
        && is(SEC_FETCH_DEST, &["iframe", "frame"])
        && !is(SEC_FETCH_SITE, &["same-origin"])
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
pub(super) fn audit_refusal(service: &Services, admission: &Admission, from: &Origin) {
    let title = admission.content.display_title().to_owned();
    service.audit.note_refusal(
        Action::AccessRefused,
        Some(&admission.person),
        from,
        "may not open this content",
        title,
    );
}
