//! The token exchange (RFC 8693): an app trades a viewer's session token for the viewer's access
//! token. Runs for every data call of an app, so a valid token is answered from memory.
//!
//! Checks everything on each call and counts uses in memory. Parsing the form and the error numbers
//! that clients see belong to `web/api/exchange.rs`. There are no service accounts, so no other
//! token is handed out when the viewer's is missing.

use crate::{
    domain::{
        Id, access,
        activity::Activity,
        addresses,
        audit::{Action, Origin},
        connection::{Cause, Connection, State},
        consent::Consent,
        content::Content,
        integration::Integration,
        person::{Session, SignedIn},
        return_path::ReturnPath,
    },
    oauth::token_exchange as words,
    providers,
    service::{
        auditing::audit::Audit,
        cluster::cache::LoadStart,
        core::Core,
        error::Error,
        grants::{
            activity::ActivityCounts,
            admission::{Admission, Admissions, Facts, IntegrationAccess},
            broker::{Broker, FreshToken, NoToken, is_usable},
            session_tokens::{ClaimsError, SessionTokens},
        },
        people::{
            api_keys::Caller,
            browser_sessions::{self, BrowserSessions},
        },
    },
    store::content,
    vault::session_token::{Claims, InvalidToken},
};
use secrecy::SecretString;
use std::{borrow::Cow, sync::Arc, time::Duration};

/// The form parameters as sent (RFC 8693 section 2.1).
#[derive(Default)]
pub struct Request<'a> {
    pub grant_type: Option<Cow<'a, str>>,
    pub subject_token_type: Option<Cow<'a, str>>,
    pub subject_token: Option<Cow<'a, str>>,
    pub requested_token_type: Option<Cow<'a, str>>,
    pub audience: Option<Cow<'a, str>>,
}

impl Request<'_> {
    /// Checks the types of tokens; true if the app asks for a new session token instead of an
    /// access token.
    fn asks_for_session_token(&self) -> Result<bool, ExchangeError> {
        if self.grant_type.as_deref() != Some(words::GRANT_TYPE) {
            return Err(ExchangeError::GrantType);
        }
        match self.subject_token_type.as_deref() {
            Some(words::USER_SESSION_TOKEN) => {}
            Some(words::CONTENT_SESSION_TOKEN) => return Err(ExchangeError::ContentToken),
            _ => return Err(ExchangeError::SubjectTokenType),
        }
        match self.requested_token_type.as_deref() {
            None | Some("" | words::ACCESS_TOKEN) => Ok(false),
            Some(words::USER_SESSION_TOKEN) => Ok(true),
            Some(other) => {
                let known = words::UNSUPPORTED_TOKEN_TYPES
                    .into_iter()
                    .find(|known| *known == other)
                    .unwrap_or("an unknown type");
                Err(ExchangeError::RequestedTokenType(known.to_owned()))
            }
        }
    }
}

impl std::fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("exchange::Request")
    }
}

/// An issued token.
#[derive(Debug)]
pub struct Exchanged {
    pub token: Arc<SecretString>,
    /// Token type URI (RFC 8693 section 3): an access token, or a renewed session token.
    pub issued_token_type: &'static str,
    /// The token's remaining lifetime.
    pub expires_in: Duration,
}

/// Why an exchange is refused. The error codes and texts that clients see are in
/// `web/api/exchange.rs`.
#[derive(Debug)]
pub enum ExchangeError {
    GrantType,
    SubjectTokenType,
    /// A content session token was sent: it stands for a service account, which this portal does
    /// not offer.
    ContentToken,
    RequestedTokenType(String),
    SubjectToken(InvalidToken),
    SessionEnded,
    NotYourContent,
    ViewerMayNot,
    NoAssociation,
    WrongAudience,
    AmbiguousAudience,
    /// An administrator paused the integration.
    Paused {
        service: String,
    },
    NotConsented {
        login_url: String,
        service: String,
    },
    NotConnected {
        login_url: String,
        service: String,
    },
    /// The integration requires the viewer's own account, and the connection's is another one.
    NotTheirAccount {
        login_url: String,
        service: String,
    },
    NeedsLogin {
        cause: Cause,
        login_url: String,
        service: String,
    },
    Broken {
        sentence: String,
    },
    Unavailable {
        retry_after: Duration,
        sentence: String,
    },
    Service(Error),
}

impl ExchangeError {
    /// The reason for the audit record; `None` for malformed requests and for failures of the
    /// provider or the portal.
    pub fn audit_reason(&self) -> Option<&'static str> {
        Some(match self {
            ExchangeError::SubjectToken(InvalidToken::Expired) => "session token expired",
            ExchangeError::SubjectToken(_) => "session token not genuine",
            ExchangeError::SessionEnded => "viewer's session ended",
            ExchangeError::NotYourContent => "key may not act for this content",
            ExchangeError::ViewerMayNot => "viewer may not open this content",
            ExchangeError::NoAssociation => "no integration attached",
            ExchangeError::WrongAudience => "integration not attached",
            ExchangeError::NotConsented { .. } => "viewer has not consented",
            ExchangeError::NotConnected { .. } => "viewer is not connected",
            ExchangeError::NotTheirAccount { .. } => "another account than the viewer's",
            ExchangeError::NeedsLogin { .. } => "connection needs its viewer",
            _ => return None,
        })
    }

    /// What it is counted as; `None` for malformed requests and for failures of the portal.
    fn activity(&self) -> Option<Activity> {
        Some(match self {
            ExchangeError::SubjectToken(InvalidToken::Expired) => Activity::TokenExpired,
            ExchangeError::SubjectToken(_) => Activity::TokenInvalid,
            ExchangeError::SessionEnded => Activity::SessionEnded,
            ExchangeError::NotYourContent => Activity::KeyNotAllowed,
            ExchangeError::ViewerMayNot => Activity::ViewerNotAllowed,
            ExchangeError::NoAssociation => Activity::NoIntegration,
            ExchangeError::WrongAudience | ExchangeError::AmbiguousAudience => {
                Activity::WrongAudience
            }
            ExchangeError::Paused { .. } => Activity::IntegrationPaused,
            ExchangeError::NotConsented { .. } => Activity::NotConsented,
            ExchangeError::NotConnected { .. } => Activity::NotConnected,
            ExchangeError::NotTheirAccount { .. } => Activity::OtherAccount,
            ExchangeError::NeedsLogin { .. } => Activity::ConnectionEnded,
            ExchangeError::Broken { .. } => Activity::IntegrationBroken,
            ExchangeError::Unavailable { .. } => Activity::ProviderUnavailable,
            ExchangeError::GrantType
            | ExchangeError::SubjectTokenType
            | ExchangeError::ContentToken
            | ExchangeError::RequestedTokenType(_)
            | ExchangeError::Service(_) => return None,
        })
    }
}

impl From<ClaimsError> for ExchangeError {
    fn from(error: ClaimsError) -> Self {
        match error {
            ClaimsError::Invalid(why) => ExchangeError::SubjectToken(why),
            ClaimsError::Service(error) => ExchangeError::Service(error),
        }
    }
}

impl From<Error> for ExchangeError {
    fn from(error: Error) -> Self {
        ExchangeError::Service(error)
    }
}

/// The token exchange.
pub struct Exchange {
    core: Arc<Core>,
    sessions: Arc<BrowserSessions>,
    admissions: Arc<Admissions>,
    session_tokens: Arc<SessionTokens>,
    broker: Arc<Broker>,
    activity: Arc<ActivityCounts>,
    audit: Arc<Audit>,
}

impl Exchange {
    pub(in crate::service) fn new(
        core: Arc<Core>,
        sessions: Arc<BrowserSessions>,
        admissions: Arc<Admissions>,
        session_tokens: Arc<SessionTokens>,
        broker: Arc<Broker>,
        activity: Arc<ActivityCounts>,
        audit: Arc<Audit>,
    ) -> Self {
        Self {
            core,
            sessions,
            admissions,
            session_tokens,
            broker,
            activity,
            audit,
        }
    }

    /// Exchanges a session token. Checks on every call: key, content item, viewer's session and
    /// access, association, consent and connection. Counts the outcome.
    pub async fn exchange(
        self: &Arc<Self>,
        caller: &Caller,
        request: &Request<'_>,
    ) -> Result<Exchanged, ExchangeError> {
        let mut integration = None;
        let exchanged = self.check_and_exchange(caller, request, &mut integration);
        let exchanged = exchanged.await;
        if let Err(kind) = exchanged.as_ref().map_err(ExchangeError::activity)
            && let Some(kind) = kind
        {
            self.count_refusal(
                kind,
                request.subject_token.as_deref().unwrap_or(""),
                integration,
            );
        }
        exchanged
    }

    /// Counts a refused exchange, if the session token is genuine: it names the content item, even
    /// if it has expired.
    pub fn count_refusal(
        &self,
        kind: Activity,
        session_token: &str,
        integration: Option<Id<Integration>>,
    ) {
        if let Some(claims) = self.session_tokens.claims_of_any_age(session_token) {
            self.activity.count(kind, Some(claims.content), integration);
        }
    }

    /// `integration` is set once it is known which one is asked for.
    async fn check_and_exchange(
        self: &Arc<Self>,
        caller: &Caller,
        request: &Request<'_>,
        integration: &mut Option<Id<Integration>>,
    ) -> Result<Exchanged, ExchangeError> {
        let renews = request.asks_for_session_token()?;
        let now = self.core.now();
        let token = request.subject_token.as_deref().unwrap_or("");
        let claims = self.session_tokens.session_claims(token).await?;
        let admission = self.viewer_admission(&claims).await?;
        self.check_caller(caller, &claims, &admission).await?;
        if !access::may_open(admission.standing) {
            return Err(ExchangeError::ViewerMayNot);
        }
        if renews {
            // Renewal grants nothing new: consent and connection are checked when the new token is
            // exchanged.
            let token = self
                .session_tokens
                .session_token(claims.sub, claims.content, claims.sid, claims.process)
                .ok_or(Error::Internal("a session token cannot be signed"))?;
            let expires_in = self.core.settings.session_token_lifetime;
            return Ok(Exchanged {
                token: Arc::new(token.into()),
                issued_token_type: words::USER_SESSION_TOKEN,
                expires_in,
            });
        }
        let link = choose_link(
            &admission.integrations,
            request
                .audience
                .as_deref()
                .filter(|audience| !audience.is_empty()),
        )?;
        *integration = Some(link.integration.id);
        if link.integration.paused_at.is_some() {
            let service = providers::names(&link.integration).service;
            return Err(ExchangeError::Paused { service });
        }
        let Some(consent) = link.consent else {
            return Err(self.not_connected_error(
                admission.content.id,
                &link.integration,
                link.connection.is_some(),
            ));
        };
        let Some(connection) = &link.connection else {
            return Err(self.not_connected_error(admission.content.id, &link.integration, false));
        };
        if link.is_other_account {
            let (login_url, service) = (
                self.login_url(admission.content.id),
                providers::names(&link.integration).service,
            );
            return Err(ExchangeError::NotTheirAccount { login_url, service });
        }
        let fresh = match (
            connection.state,
            &link.access_token,
            connection.access_expires_at,
        ) {
            (State::Active, Some(token), Some(expires_at))
                if is_usable(connection.updated_at, expires_at, now) =>
            {
                Ok(FreshToken {
                    token: Arc::clone(token),
                    expires_at,
                })
            }
            (State::Active, _, _) => {
                self.refresh_and_check_again(&claims, &admission, link, consent, connection.id)
                    .await?
            }
            (State::NeedsLogin(cause), _, _) => Err(NoToken::NeedsLogin(cause)),
            (State::Unconfirmed, _, _) => Err(NoToken::Gone),
        };
        match fresh {
            Ok(fresh) => {
                self.activity
                    .count_exchange(consent, claims.process, &admission, link, now);
                Ok(Exchanged {
                    expires_in: fresh.expires_at.since(self.core.now()),
                    token: fresh.token,
                    issued_token_type: words::ACCESS_TOKEN,
                })
            }
            Err(why) => Err(self.no_token_error(why, admission.content.id, &link.integration)),
        }
    }

    /// Whether the caller runs the content that the session token was made for. Whether the viewer
    /// may open it is another question.
    async fn check_caller(
        &self,
        caller: &Caller,
        claims: &Claims,
        admission: &Admission,
    ) -> Result<(), ExchangeError> {
        let may_act = |own: &Admission| {
            access::may_exchange(
                &caller.person,
                caller.role,
                own.standing,
                caller.content,
                &own.content,
            )
        };
        let standing = if caller.person.id == admission.person.id {
            admission.standing
        } else {
            match self
                .admissions
                .admission_for(claims.content, caller.person.id, may_act)
                .await
            {
                Ok(own) => own.standing,
                Err(Error::NotFound) => return Err(ExchangeError::NotYourContent),
                Err(error) => return Err(error.into()),
            }
        };
        let allowed = access::may_exchange(
            &caller.person,
            caller.role,
            standing,
            caller.content,
            &admission.content,
        );
        if allowed {
            Ok(())
        } else {
            Err(ExchangeError::NotYourContent)
        }
    }

    /// Refreshes the connection. A refresh may take seconds: checks access and consent again
    /// before the token is handed out.
    async fn refresh_and_check_again(
        &self,
        claims: &Claims,
        admission: &Admission,
        link: &IntegrationAccess,
        consent: Id<Consent>,
        connection: Id<Connection>,
    ) -> Result<Result<FreshToken, NoToken>, ExchangeError> {
        let fresh = self.broker.refresh(connection).await;
        let again = self.viewer_admission(claims).await?;
        if !access::may_open(again.standing) {
            return Err(ExchangeError::ViewerMayNot);
        }
        let still = again
            .integrations
            .iter()
            .find(|again| again.integration.id == link.integration.id)
            .ok_or(ExchangeError::WrongAudience)?;
        if still.integration.paused_at.is_some() {
            let service = providers::names(&link.integration).service;
            return Err(ExchangeError::Paused { service });
        }
        if still.consent != Some(consent) {
            return Err(self.not_connected_error(
                admission.content.id,
                &link.integration,
                still.connection.is_some(),
            ));
        }
        self.admissions
            .invalidate_admission(claims.content, claims.sub);
        Ok(fresh)
    }

    fn no_token_error(
        &self,
        why: NoToken,
        content: Id<Content>,
        integration: &Integration,
    ) -> ExchangeError {
        match why {
            NoToken::NeedsLogin(cause) => ExchangeError::NeedsLogin {
                cause,
                login_url: self.login_url(content),
                service: providers::names(integration).service,
            },
            NoToken::Gone => self.not_connected_error(content, integration, false),
            NoToken::Broken { sentence } => ExchangeError::Broken { sentence },
            NoToken::Unavailable {
                retry_after,
                sentence,
            } => ExchangeError::Unavailable {
                retry_after,
                sentence,
            },
        }
    }

    /// The admission of a session token's viewer to its content item, if the browser session still
    /// lives.
    async fn viewer_admission(&self, claims: &Claims) -> Result<Arc<Admission>, ExchangeError> {
        let start = self.core.load_start();
        let viewer = match claims.sid {
            SignedIn::Browser(session) => match self.sessions.cached_person(session, start) {
                Some(viewer) => viewer,
                None => return self.load_viewer(claims, session, start).await,
            },
            SignedIn::Key(number) => self
                .sessions
                .key_holder(number)
                .await?
                .ok_or(ExchangeError::SessionEnded)?,
        };
        if viewer.id != claims.sub {
            return Err(ExchangeError::SessionEnded);
        }
        match self.admissions.admission(claims.content, viewer.id).await {
            Err(Error::NotFound) => Err(ExchangeError::NotYourContent),
            other => Ok(other?),
        }
    }

    /// Loads the viewer of a session token and their admission together: a trip to a database thread
    /// and back costs more than a query.
    async fn load_viewer(
        &self,
        claims: &Claims,
        session: Id<Session>,
        start: LoadStart,
    ) -> Result<Arc<Admission>, ExchangeError> {
        let (viewer, item) = (claims.sub, claims.content);
        let (now, idle_since) = (self.core.now(), self.core.idle_since());
        let loaded = self
            .core
            .store
            .read(move |db| {
                let person = browser_sessions::load_person(db, session, now, idle_since)?;
                let Some(person) = person.filter(|person| person.id == viewer) else {
                    return Ok(None);
                };
                let facts = Facts::load(db, item, viewer)?;
                Ok::<_, Error>(Some((person, facts)))
            })
            .await?;
        let (person, facts) = loaded.ok_or(ExchangeError::SessionEnded)?;
        self.sessions.remember_person(session, person, start);
        let facts = facts.ok_or(ExchangeError::NotYourContent)?;
        Ok(self.admissions.remember(facts, start))
    }

    /// Writes an audit record of a refused exchange, if the refusal is one to record. The session
    /// token may be expired.
    pub async fn note_refused_exchange(
        &self,
        caller: &Caller,
        token: &str,
        refusal: &ExchangeError,
        origin: &Origin,
    ) {
        let Some(why) = refusal.audit_reason() else {
            return;
        };
        // The token may be expired, but if it is genuine, it still names the content item.
        let item = self
            .session_tokens
            .claims_of_any_age(token)
            .map(|claims| claims.content);
        let title = match item {
            Some(item) => {
                let found = self
                    .core
                    .store
                    .read(move |db| Ok::<_, Error>(content::find(db, item)?))
                    .await;
                found
                    .ok()
                    .flatten()
                    .map(|item| item.display_title().to_owned())
                    .unwrap_or_default()
            }
            None => String::new(),
        };
        self.audit.note_refusal(
            Action::ExchangeRefused,
            Some(&caller.person),
            origin,
            why,
            title,
        );
    }

    /// The page on which the viewer gives a missing consent or connects.
    pub fn login_url(&self, content: Id<Content>) -> String {
        match ReturnPath::parse(&addresses::app(content)) {
            Some(back) => self
                .core
                .addresses
                .absolute(&addresses::consent(content, &back)),
            None => self.core.addresses.absolute(&addresses::app(content)),
        }
    }

    /// The refusal for a missing consent (`connected`) or a missing connection.
    fn not_connected_error(
        &self,
        content: Id<Content>,
        integration: &Integration,
        connected: bool,
    ) -> ExchangeError {
        let (login_url, service) = (
            self.login_url(content),
            providers::names(integration).service,
        );
        if connected {
            ExchangeError::NotConsented { login_url, service }
        } else {
            ExchangeError::NotConnected { login_url, service }
        }
    }
}

/// The link that `audience` (an integration's GUID) names, or the only one. `links` are the item's
/// integrations.
fn choose_link<'a>(
    links: &'a [IntegrationAccess],
    audience: Option<&str>,
) -> Result<&'a IntegrationAccess, ExchangeError> {
    match (links, audience) {
        ([], _) => Err(ExchangeError::NoAssociation),
        (_, Some(audience)) => {
            let wanted: Option<Id<Integration>> = audience.trim().to_ascii_lowercase().parse().ok();
            links
                .iter()
                .find(|link| Some(link.integration.id) == wanted)
                .ok_or(ExchangeError::WrongAudience)
        }
        ([only], None) => Ok(only),
        (_, None) => Err(ExchangeError::AmbiguousAudience),
    }
}
