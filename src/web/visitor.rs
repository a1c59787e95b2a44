//! Extractors for browser requests: [`Visitor`] (signed in or not), [`SignedIn`] (signed in),
//! [`Posted`] (a form that passed the forgery check).

use crate::{
    domain::{
        Id,
        audit::Origin,
        origins::HostKind,
        person::{Person, Session as BrowserSession},
    },
    http::{
        assets::assets,
        body,
        client_address::audit_origin,
        client_words::client_words,
        errors::WebError,
        host::requested_host,
        navigation::{SEC_FETCH_DEST, SEC_FETCH_MODE, SEC_FETCH_SITE, return_path_of},
        redirect::see_other,
        sessions::{
            ADDRESS, CLIENT, CONFIRMED_AT, CSRF, FLASH, PERSON, SESSION_ID, Sessions,
            keep_ascii_cookies,
        },
    },
    service::{Actor, Error, Services},
    vault::random,
    web::{
        forms::FormValues,
        listing::Asked,
        view::{Chrome, Now, SignedInPerson},
    },
};
use actix_multipart::{Multipart, MultipartError};
use actix_session::{Session, SessionExt as _};
use actix_web::{
    FromRequest, HttpRequest, HttpResponse, ResponseError as _,
    body::{BoxBody, MessageBody},
    dev::{Payload, ServiceRequest, ServiceResponse},
    http::{
        Method, StatusCode,
        header::{self, HeaderName},
    },
    middleware::Next,
    web,
};
use futures_util::{StreamExt as _, future::LocalBoxFuture};
use std::sync::Arc;
use subtle::ConstantTimeEq as _;
use tokio::time::timeout;

/// Cookie with the chosen colour theme. It starts with `valetkey` like every cookie of the portal,
/// so the proxy neither forwards it to apps nor lets apps set it.
pub const THEME: &str = "valetkey-theme";
/// The one page that the portal's own script asks: `web::pages::choices`.
pub const CHOICES: &str = "/choices";
/// Limit for a posted form, in bytes.
const MAX_FORM_BYTES: usize = 64 * 1024;
/// The form that takes a table, and its limit.
const TABLE_FORM: (&str, usize) = ("/people/import", 2 * 1024 * 1024);

/// Middleware: serves pages to top-level navigations on the portal's host only, so that content on
/// the portal's own origin cannot read them by script or frame. Browsers set `Sec-Fetch-*` and
/// scripts cannot forge them; clients other than browsers send none and pass.
pub async fn navigations_only(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let mark = |name: HeaderName| {
        request
            .headers()
            .get(name)
            .map(|value| value.as_bytes().to_owned())
    };
    let service = request
        .app_data::<web::Data<Services>>()
        .ok_or(Error::Internal("the request has no services"))
        .map_err(WebError::from)?;
    if service
        .core
        .settings
        .origins
        .host(requested_host(request.head()))
        != HostKind::Portal
    {
        let why = WebError::Page(
            StatusCode::BAD_REQUEST,
            "The portal has another address".into(),
            format!(
                "It answers at {} only. If that is where you went, the proxy in front of it must pass Host on.",
                service.core.addresses.base()
            ),
        );
        return Ok(request.into_response(why.error_response()));
    }
    let by_script = mark(SEC_FETCH_MODE).is_some_and(|mode| mode != b"navigate");
    let framed = mark(SEC_FETCH_DEST).is_some_and(|dest| dest != b"document");
    // Its forgery check keeps out all scripts but the portal's own.
    let is_lookup = request.path() == CHOICES;
    if (by_script || framed) && !is_lookup {
        let why = WebError::Page(
            StatusCode::FORBIDDEN,
            "This page opens only in a window of its own".into(),
            "A script or a frame asked for it. Open the address in the browser.".into(),
        );
        return Ok(request.into_response(why.error_response()));
    }
    Ok(next.call(request).await?.map_into_boxed_body())
}

/// The colour theme that a browser chose, `light` or `dark`; empty for that of the system.
pub fn theme_of(request: &HttpRequest) -> String {
    request
        .cookie(THEME)
        .map(|cookie| cookie.value().to_owned())
        .filter(|theme| theme == "light" || theme == "dark")
        .unwrap_or_default()
}

/// Middleware of the pages, before the session is read: cookies that any script of a sibling host can
/// set must not make the session unreadable.
pub async fn readable_cookies(
    mut request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    keep_ascii_cookies(request.headers_mut());
    next.call(request).await
}

/// A browser session, signed in or not.
pub struct Visitor {
    pub session: Session,
    /// The signed-in person; `None` if anonymous.
    pub actor: Option<Actor>,
    pub service: Arc<Services>,
    pub origin: Origin,
    /// The query of the address: what a list or a picker on the page is asked for.
    pub asked: Asked,
    theme: String,
    /// The browser and system, in words.
    client: Option<String>,
}

impl Visitor {
    async fn of(request: HttpRequest) -> Result<Self, WebError> {
        let service = request
            .app_data::<web::Data<Services>>()
            .map(|data| data.clone().into_inner())
            .ok_or(Error::Internal("the request has no services"))?;
        let session = request.get_session();
        let origin = audit_origin(&request, &service);
        let actor = signed_in(&session, &service, &origin).await?;
        Ok(Self {
            session,
            actor,
            service,
            origin,
            asked: Asked::parse(request.query_string()),
            client: request
                .headers()
                .get(header::USER_AGENT)
                .and_then(|agent| agent.to_str().ok())
                .and_then(client_words),
            theme: theme_of(&request),
        })
    }

    /// The session's anti-forgery token; created if there is none yet.
    pub fn csrf(&self) -> Result<String, WebError> {
        if let Ok(Some(token)) = self.session.get::<String>(CSRF) {
            return Ok(token);
        }
        let token = random::token();
        self.session
            .insert(CSRF, &token)
            .map_err(|_| Error::Internal("the browser session cannot be read or written"))?;
        Ok(token)
    }

    /// Stores a message for the next page.
    pub fn flash(&self, text: impl Into<String>) {
        // Losing the message is harmless, so a failure is ignored.
        drop(self.session.insert(FLASH, text.into()));
    }

    /// The page frame for this visitor; consumes the flash message.
    pub fn chrome(&self, area: &'static str, title: &str) -> Chrome {
        let actor = self.actor.as_ref();
        let person = actor.map(|actor| SignedInPerson::new(&actor.person, actor.role));
        let flash = self.session.get::<String>(FLASH).ok().flatten();
        if flash.is_some() {
            self.session.remove(FLASH);
        }
        Chrome {
            title: title.to_owned(),
            area,
            person,
            csrf: self
                .session
                .get::<String>(CSRF)
                .ok()
                .flatten()
                .unwrap_or_default(),
            flash,
            theme: self.theme.clone(),
            home: String::new(),
            contact: self
                .service
                .core
                .settings
                .contact
                .clone()
                .unwrap_or_default(),
            shares_portal_origin: self.service.core.settings.origins.is_same_origin(),
            assets: assets(),
        }
    }

    /// Signs a person in. Nothing of the old session is carried over: new session key (against
    /// session fixation), new session id, new anti-forgery token. Returns the new session's id.
    pub fn sign_in(&self, person: &Person) -> Result<Id<BrowserSession>, WebError> {
        self.session.clear();
        self.session.renew();
        let put = |key: &str, value: String| {
            self.session.insert(key, value).map_err(|_| {
                WebError::from(Error::Internal(
                    "the browser session cannot be read or written",
                ))
            })
        };
        let id = Id::random();
        put(SESSION_ID, id.to_string())?;
        put(PERSON, person.id.to_string())?;
        put(CSRF, random::token())?;
        put(ADDRESS, self.origin.address.clone())?;
        if let Some(client) = &self.client {
            put(CLIENT, client.clone())?;
        }
        self.note_confirmed()?;
        Ok(id)
    }

    /// Records that the person has just proved who they are; see `web::confirmation`.
    pub fn note_confirmed(&self) -> Result<(), WebError> {
        self.session
            .insert(CONFIRMED_AT, self.service.core.now().0.to_string())
            .map_err(|_| Error::Internal("the browser session cannot be read or written").into())
    }
}

/// The signed-in person of a portal request, for audit records; `None` also if the lookup fails.
pub async fn person_of_request(request: &HttpRequest) -> Option<Person> {
    let sessions = request.app_data::<web::Data<Sessions>>()?;
    sessions
        .session_of(request.head())
        .await
        .ok()
        .flatten()
        .map(|(_, person)| (*person).clone())
}

/// The actor of a session; `None` if it is anonymous or has ended.
pub async fn signed_in(
    session: &Session,
    service: &Services,
    origin: &Origin,
) -> Result<Option<Actor>, WebError> {
    let id = |name: &str| session.get::<String>(name).ok().flatten();
    let Some(session_id) = id(SESSION_ID).and_then(|text| text.parse().ok()) else {
        return Ok(None);
    };
    let Some(person) = service.sessions.session_person(session_id).await? else {
        return Ok(None);
    };
    Ok(Some(Actor {
        role: person.role,
        person: (*person).clone(),
        session: Some(session_id),
        origin: origin.clone(),
    }))
}

impl FromRequest for Visitor {
    type Error = WebError;
    type Future = LocalBoxFuture<'static, Result<Self, WebError>>;
    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        Box::pin(Self::of(request.clone()))
    }
}

/// A signed-in person. Anonymous visitors are sent to sign in and, after a GET, back to the page.
pub struct SignedIn {
    pub visitor: Visitor,
    pub actor: Actor,
}

impl SignedIn {
    async fn of(request: HttpRequest) -> Result<Self, WebError> {
        let back = (request.method() == Method::GET)
            .then(|| return_path_of(&request))
            .flatten();
        let visitor = Visitor::of(request).await?;
        match visitor.actor.clone() {
            Some(actor) => Ok(Self { visitor, actor }),
            None => Err(WebError::SignIn(back)),
        }
    }
    /// The service behind this request.
    pub fn service(&self) -> &Arc<Services> {
        &self.visitor.service
    }
    /// The present, in the person's time zone.
    pub fn now(&self) -> Now {
        let zone = self.actor.person.time_zone.as_deref();
        Now::in_zone(self.service().core.now(), zone)
    }
    /// Redirects after a successful POST, with a message on the next page.
    pub fn done(&self, path: &str, message: impl Into<String>) -> HttpResponse {
        self.visitor.flash(message);
        see_other(path)
    }
}

impl FromRequest for SignedIn {
    type Error = WebError;
    type Future = LocalBoxFuture<'static, Result<Self, WebError>>;
    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        Box::pin(Self::of(request.clone()))
    }
}

/// Longest anti-forgery token that is read, in bytes.
const MAX_TOKEN_BYTES: usize = 256;

/// A posted form whose sender (`Sec-Fetch-Site`, or else `Origin`) and anti-forgery token were
/// checked. At most 64 KiB, within [`body::BODY_TIMEOUT`].
pub struct Posted(pub FormValues);

impl Posted {
    async fn of(request: HttpRequest, mut payload: Payload) -> Result<Self, WebError> {
        check_sender(&request)?;
        let most = match TABLE_FORM {
            (path, most) if request.path() == path => most,
            _ => MAX_FORM_BYTES,
        };
        let body = timeout(body::BODY_TIMEOUT, read(&mut payload, most))
            .await
            .map_err(|_| WebError::BodyTimeout)??;
        let typed = FormValues::parse(&body);
        check_token(&request, typed.get("csrf").unwrap_or(""))?;
        Ok(Self(typed))
    }
}

/// Refuses a form that another site sent (`Sec-Fetch-Site`, or else `Origin`).
fn check_sender(request: &HttpRequest) -> Result<(), WebError> {
    let service = request
        .app_data::<web::Data<Services>>()
        .ok_or(Error::Internal("the request has no services"))?;
    let text = |name: HeaderName| {
        request
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let own = || {
        let url = &service.core.settings.public_url;
        url.origin().ascii_serialization()
    };
    let same_origin = match (text(SEC_FETCH_SITE), text(header::ORIGIN)) {
        (Some(site), _) => site == "same-origin",
        (None, Some(origin)) => origin == own(),
        (None, None) => true,
    };
    if same_origin {
        Ok(())
    } else {
        Err(WebError::Forgery)
    }
}

/// Refuses a form without the session's anti-forgery token.
fn check_token(request: &HttpRequest, given: &str) -> Result<(), WebError> {
    let expected = request
        .get_session()
        .get::<String>(CSRF)
        .ok()
        .flatten()
        .unwrap_or_default();
    if expected.is_empty() || !bool::from(expected.as_bytes().ct_eq(given.as_bytes())) {
        return Err(WebError::Forgery);
    }
    Ok(())
}

/// A posted form with files, whose sender and anti-forgery token were checked: the token is its
/// first field. Yields the fields after it.
pub struct UploadForm(Multipart);

impl UploadForm {
    async fn of(request: HttpRequest, payload: Payload) -> Result<Self, WebError> {
        check_sender(&request)?;
        let mut form = Multipart::new(request.headers(), payload);
        let mut given = Vec::new();
        let first = form.next().await.and_then(Result::ok);
        if let Some(mut field) = first.filter(|field| field.name() == Some("csrf")) {
            while let Some(Ok(part)) = field.next().await {
                given.extend_from_slice(&part);
                if given.len() > MAX_TOKEN_BYTES {
                    return Err(WebError::Forgery);
                }
            }
        }
        check_token(&request, std::str::from_utf8(&given).unwrap_or(""))?;
        Ok(Self(form))
    }

    /// The next field; `None` after the last one.
    pub async fn next(&mut self) -> Option<Result<actix_multipart::Field, MultipartError>> {
        self.0.next().await
    }
}

impl FromRequest for UploadForm {
    type Error = WebError;
    type Future = LocalBoxFuture<'static, Result<Self, WebError>>;
    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        Box::pin(Self::of(request.clone(), payload.take()))
    }
}

/// Reads the whole body, up to `most` bytes.
async fn read(payload: &mut Payload, most: usize) -> Result<Vec<u8>, WebError> {
    let mut body = Vec::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| {
            WebError::Page(
                StatusCode::BAD_REQUEST,
                "The form broke off".into(),
                "Send it again.".into(),
            )
        })?;
        if body.len() + chunk.len() > most {
            return Err(WebError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

impl FromRequest for Posted {
    type Error = WebError;
    type Future = LocalBoxFuture<'static, Result<Self, WebError>>;
    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        Box::pin(Self::of(request.clone(), payload.take()))
    }
}
