//! The token exchange (RFC 8693): an app trades a viewer's session token for the viewer's access
//! token. Runs for every data call of an app, so a valid token is answered from memory.
//!
//! Checks everything on each call and counts uses in memory. Parsing the form and the error numbers
//! that clients see belong to `web/api/exchange.rs`. Content may also exchange a token of its own for
//! one of a service account; no token of another identity is ever handed out in place of one that is
//! missing.

use crate::{
    domain::{
        Id, Timestamp, access,
        activity::Activity,
        addresses,
        audit::{Action, Origin},
        connection::{Cause, Connection, State},
        consent::Consent,
        content::{Content, ProcessId},
        integration::{AuthType, Integration},
        person::{Role, Session, SignedIn},
        return_path::ReturnPath,
    },
    measures,
    oauth::token_exchange as words,
    providers::{self, aws},
    service::{
        auditing::audit::Audit,
        cluster::cache::LoadStart,
        core::Core,
        error::Error,
        grants::{
            activity::ActivityCounts,
            admission::{Admission, Admissions, Facts, IntegrationAccess},
            broker::{Broker, NoToken},
            issuer::{self, InvalidContentToken, Issuer, PortalToken},
            service_accounts::ServiceAccounts,
            session_tokens::{ClaimsError, SessionTokens},
            token_times::{FreshToken, is_usable},
        },
        people::{
            api_keys::Caller,
            browser_sessions::{self, BrowserSessions},
        },
    },
    store::content,
    vault::{
        session_token::{Claims, InvalidToken},
        visitor_key::{self, VisitorKeySigner},
    },
};
use secrecy::SecretString;
use std::{borrow::Cow, collections::BTreeMap, sync::Arc, time::Duration};

/// The form parameters as sent (RFC 8693 section 2.1).
#[derive(Default)]
pub struct Request<'a> {
    pub grant_type: Option<Cow<'a, str>>,
    pub subject_token_type: Option<Cow<'a, str>>,
    pub subject_token: Option<Cow<'a, str>>,
    pub requested_token_type: Option<Cow<'a, str>>,
    pub audience: Option<Cow<'a, str>>,
}

/// Whose token the subject token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SubjectKind {
    Viewer,
    Content,
}

/// What an app asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    AccessToken,
    /// A new session token.
    SessionToken,
    AwsCredentials,
    /// A key for this portal's own API.
    ApiKey,
    /// A token of this portal for a service that trusts it.
    IdToken,
}

impl Request<'_> {
    /// The kinds of tokens that are sent and asked for.
    fn kinds(&self) -> Result<(SubjectKind, Wanted), ExchangeError> {
        if self.grant_type.as_deref() != Some(words::GRANT_TYPE) {
            return Err(ExchangeError::GrantType);
        }
        let subject = match self.subject_token_type.as_deref() {
            Some(words::USER_SESSION_TOKEN) => SubjectKind::Viewer,
            Some(words::CONTENT_SESSION_TOKEN) => SubjectKind::Content,
            _ => return Err(ExchangeError::SubjectTokenType),
        };
        let wanted = match self.requested_token_type.as_deref() {
            None | Some("" | words::ACCESS_TOKEN) => Wanted::AccessToken,
            Some(words::USER_SESSION_TOKEN) if subject == SubjectKind::Viewer => {
                Wanted::SessionToken
            }
            Some(words::AWS_CREDENTIALS) => Wanted::AwsCredentials,
            Some(words::API_KEY) if subject == SubjectKind::Viewer => Wanted::ApiKey,
            Some(words::ID_TOKEN) if subject == SubjectKind::Content => Wanted::IdToken,
            Some(other) => {
                let known = words::OTHER_TOKEN_TYPES
                    .into_iter()
                    .find(|known| *known == other)
                    .unwrap_or("an unknown type");
                return Err(ExchangeError::RequestedTokenType(known.to_owned()));
            }
        };
        Ok((subject, wanted))
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
    /// Token type URI (RFC 8693 section 3).
    pub issued_token_type: &'static str,
    /// The token's remaining lifetime; `None` if it has no end.
    pub expires_in: Option<Duration>,
    /// What the provider sent besides, such as the address of its API.
    pub extra_fields: BTreeMap<String, String>,
}

impl Exchanged {
    fn new(fresh: FreshToken, issued_token_type: &'static str, now: Timestamp) -> Self {
        Self {
            expires_in: fresh.usable_until.map(|end| end.since(now)),
            token: fresh.token,
            issued_token_type,
            extra_fields: fresh.extra_fields,
        }
    }
}

/// Why an exchange is refused. The error codes and texts that clients see are in
/// `web/api/exchange.rs`.
#[derive(Debug)]
pub enum ExchangeError {
    GrantType,
    SubjectTokenType,
    ContentToken(InvalidContentToken),
    /// The integration acts for others than the subject token stands for: its name, and as whom it
    /// acts.
    AuthType {
        name: String,
        acts_as: AuthType,
    },
    /// Content asked as itself for a service at which it acts for viewers, and its owner has not
    /// allowed both.
    BesideViewers {
        service: String,
    },
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
    /// The reason for the audit record; `None` for requests that do not fit, a paused integration, and
    /// failures of the provider or the portal.
    pub fn audit_reason(&self) -> Option<&'static str> {
        Some(match self {
            ExchangeError::SubjectToken(InvalidToken::Expired) => "session token expired",
            ExchangeError::SubjectToken(_) => "session token not genuine",
            ExchangeError::SessionEnded => "viewer's session ended",
            ExchangeError::NotYourContent => "key may not act for this content",
            ExchangeError::ViewerMayNot => "viewer may not open this content",
            ExchangeError::ContentToken(_) => "content session token not valid",
            ExchangeError::BesideViewers { .. } => "as itself where it acts for viewers",
            ExchangeError::NoAssociation => "no integration attached",
            ExchangeError::WrongAudience => "integration not attached",
            ExchangeError::NotConsented { .. } => "viewer has not consented",
            ExchangeError::NotConnected { .. } => "viewer is not connected",
            ExchangeError::NotTheirAccount { .. } => "another account than the viewer's",
            ExchangeError::NeedsLogin { .. } => "connection needs its viewer",
            ExchangeError::GrantType
            | ExchangeError::SubjectTokenType
            | ExchangeError::RequestedTokenType(_)
            | ExchangeError::AuthType { .. }
            | ExchangeError::AmbiguousAudience
            | ExchangeError::Paused { .. }
            | ExchangeError::Broken { .. }
            | ExchangeError::Unavailable { .. }
            | ExchangeError::Service(_) => return None,
        })
    }

    /// What it is counted as; `None` for requests that do not fit or come from content itself, and for
    /// failures of the portal.
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
            | ExchangeError::ContentToken(_)
            | ExchangeError::AuthType { .. }
            | ExchangeError::BesideViewers { .. }
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

/// Where the tokens come from that are taken and handed out.
pub(in crate::service) struct TokenSources {
    pub session_tokens: Arc<SessionTokens>,
    pub broker: Arc<Broker>,
    pub service_accounts: Arc<ServiceAccounts>,
}

/// The token exchange.
pub struct Exchange {
    core: Arc<Core>,
    sessions: Arc<BrowserSessions>,
    admissions: Arc<Admissions>,
    session_tokens: Arc<SessionTokens>,
    broker: Arc<Broker>,
    service_accounts: Arc<ServiceAccounts>,
    issuer: Arc<Issuer>,
    visitor_keys: VisitorKeySigner,
    activity: Arc<ActivityCounts>,
    audit: Arc<Audit>,
}

impl Exchange {
    pub(in crate::service) fn new(
        core: Arc<Core>,
        sessions: Arc<BrowserSessions>,
        admissions: Arc<Admissions>,
        tokens: TokenSources,
        activity: Arc<ActivityCounts>,
        audit: Arc<Audit>,
    ) -> Self {
        let visitor_keys =
            VisitorKeySigner::new(&core.session_root, core.settings.base().to_owned());
        let TokenSources {
            session_tokens,
            broker,
            service_accounts,
        } = tokens;
        Self {
            issuer: service_accounts.issuer(),
            core,
            sessions,
            admissions,
            session_tokens,
            broker,
            service_accounts,
            visitor_keys,
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
        let Err(refused) = &exchanged else {
            measures::exchanged();
            return exchanged;
        };
        let kind = refused.activity();
        measures::exchange_refused(kind.map_or("bad_request", Activity::as_str));
        if let Some(kind) = kind {
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
        if caller.is_visitor {
            return Err(ExchangeError::NotYourContent);
        }
        let (subject, wanted) = request.kinds()?;
        if subject == SubjectKind::Content {
            return self
                .exchange_as_content(caller, request, wanted, integration)
                .await;
        }
        let now = self.core.now();
        let token = request.subject_token.as_deref().unwrap_or("");
        let claims = self.session_tokens.session_claims(token).await?;
        let admission = self.viewer_admission(&claims).await?;
        self.check_caller(caller, &claims, &admission).await?;
        if !access::may_open(admission.standing) {
            return Err(ExchangeError::ViewerMayNot);
        }
        if wanted == Wanted::SessionToken {
            // Renewal grants nothing new: consent and connection are checked when the new token is
            // exchanged.
            let token = self
                .session_tokens
                .session_token(claims.sub, claims.content, claims.sid, claims.process)
                .ok_or(Error::Internal("a session token cannot be signed"))?;
            return Ok(Exchanged {
                token: Arc::new(token.into()),
                issued_token_type: words::USER_SESSION_TOKEN,
                expires_in: Some(self.core.settings.session_token_lifetime),
                extra_fields: BTreeMap::new(),
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
        check_kinds(&link.integration, subject, wanted)?;
        refuse_paused(&link.integration)?;
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
        let fresh = match (connection.state, &link.access_token) {
            (State::Active, _) if wanted == Wanted::ApiKey => Ok(self.visitor_key(&claims, link)?),
            (State::Active, Some(token))
                if is_usable(connection.updated_at, connection.access_expires_at, now) =>
            {
                Ok(FreshToken::stored(
                    connection,
                    &link.integration,
                    Arc::clone(token),
                ))
            }
            (State::Active, _) => {
                self.refresh_and_check_again(&claims, &admission, link, consent, connection.id)
                    .await?
            }
            (State::NeedsLogin(cause), _) => Err(NoToken::NeedsLogin(cause)),
            (State::Unconfirmed, _) => Err(NoToken::Gone),
        };
        let fresh = match (fresh, wanted) {
            (Ok(id_token), Wanted::AwsCredentials) => {
                let label = admission.person.username.as_str();
                let keys =
                    self.service_accounts
                        .aws_keys(&link.integration, connection, label, &id_token);
                Box::pin(keys).await
            }
            (fresh, _) => fresh,
        };
        match fresh {
            Ok(fresh) => {
                self.activity
                    .count_exchange(consent, claims.process, &admission, link, now);
                Ok(Exchanged::new(fresh, issued_type(wanted), self.core.now()))
            }
            Err(why) => Err(self.no_token_error(why, admission.content.id, &link.integration)),
        }
    }

    /// Exchanges a content session token: content acts as itself. Never falls back to another
    /// identity: where the item acts for viewers at the same service, its owner must have allowed
    /// this, too.
    async fn exchange_as_content(
        &self,
        caller: &Caller,
        request: &Request<'_>,
        wanted: Wanted,
        integration: &mut Option<Id<Integration>>,
    ) -> Result<Exchanged, ExchangeError> {
        let token = request.subject_token.as_deref().unwrap_or("");
        let item = self.issuer.verify_content_token(token).await?;
        let item = item.map_err(ExchangeError::ContentToken)?;
        let own = self.admission_of_caller(caller, item).await?;
        let audience = request.audience.as_deref().filter(|text| !text.is_empty());
        let link = choose_link(&own.integrations, audience)?;
        *integration = Some(link.integration.id);
        check_kinds(&link.integration, SubjectKind::Content, wanted)?;
        refuse_paused(&link.integration)?;
        let attached = own.integrations.iter().map(|link| &link.integration);
        if !link.beside_viewers && providers::may_act_for_viewers_there(attached, &link.integration)
        {
            let service = providers::names(&link.integration).service;
            return Err(ExchangeError::BesideViewers { service });
        }
        let fresh = if wanted == Wanted::IdToken {
            self.id_token(&own.content, &link.integration).await?
        } else {
            // Boxed: else the future of every exchange would have room for this one, ten times the
            // rest, and it is moved several times before it runs.
            let fresh = Box::pin(self.service_accounts.token(&link.integration)).await;
            fresh.map_err(|why| self.no_token_error(why, own.content.id, &link.integration))?
        };
        self.activity.count(
            Activity::Exchanged,
            Some(own.content.id),
            Some(link.integration.id),
        );
        Ok(Exchanged::new(fresh, issued_type(wanted), self.core.now()))
    }

    /// A token of this portal for the service of an integration, which content presents itself.
    async fn id_token(
        &self,
        item: &Content,
        integration: &Integration,
    ) -> Result<FreshToken, ExchangeError> {
        let token = self
            .issuer
            .token(&PortalToken::for_content(integration, item))
            .await?;
        Ok(FreshToken {
            token: Arc::new(token),
            usable_until: Some(self.core.now().plus(issuer::FOR_CONTENT)),
            extra_fields: BTreeMap::new(),
        })
    }

    /// A key for this portal's own API that acts as the viewer.
    fn visitor_key(
        &self,
        claims: &Claims,
        link: &IntegrationAccess,
    ) -> Result<FreshToken, ExchangeError> {
        let now = self.core.now();
        let key = self
            .visitor_keys
            .mint(
                claims.sub,
                claims.content,
                link.integration.id,
                claims.sid,
                now,
            )
            .ok_or(Error::Internal("a visitor key cannot be signed"))?;
        Ok(FreshToken {
            token: Arc::new(key),
            usable_until: Some(now.plus(visitor_key::LIFETIME)),
            extra_fields: BTreeMap::new(),
        })
    }

    /// Resolves a presented visitor key; `None` unless its browser session lives, and its viewer may
    /// still open the item and still allows it to act for them here.
    pub async fn visitor(&self, presented: &str) -> Result<Option<Arc<Caller>>, Error> {
        let now = self.core.now();
        let Some(key) = self.visitor_keys.verify(presented, now) else {
            return Ok(None);
        };
        let session = Claims {
            iss: key.iss.clone(),
            sub: key.sub,
            content: key.content,
            sid: key.sid,
            process: ProcessId::ONLY,
            iat: now.unix_seconds(),
            exp: key.exp,
        };
        let admission = match self.viewer_admission(&session).await {
            Ok(admission) if access::may_open(admission.standing) => admission,
            Err(ExchangeError::Service(error)) => return Err(error),
            _ => return Ok(None),
        };
        let link = admission.integrations.iter().find(|link| {
            link.integration.id == key.integration
                && link.integration.auth_type == AuthType::VisitorApiKey
                && link.integration.paused_at.is_none()
                && !link.needs_viewer()
        });
        let cap = match link.map(|link| link.integration.setting("max_role")) {
            None => return Ok(None),
            Some("Admin") => Role::Administrator,
            Some("Publisher") => Role::Publisher,
            Some(_) => Role::Viewer,
        };
        let end = Timestamp(key.exp.saturating_mul(1000));
        Ok(Some(Arc::new(Caller::visitor(
            admission.person.clone(),
            cap,
            end,
        ))))
    }

    /// Whether the caller runs the content that the session token was made for. Whether the viewer
    /// may open it is another question.
    async fn check_caller(
        &self,
        caller: &Caller,
        claims: &Claims,
        admission: &Admission,
    ) -> Result<(), ExchangeError> {
        if caller.person.id != admission.person.id {
            self.admission_of_caller(caller, claims.content).await?;
        } else if !may_act(caller, admission) {
            return Err(ExchangeError::NotYourContent);
        }
        Ok(())
    }

    /// The admission of the caller to an item that the caller runs.
    async fn admission_of_caller(
        &self,
        caller: &Caller,
        item: Id<Content>,
    ) -> Result<Arc<Admission>, ExchangeError> {
        let found = self
            .admissions
            .admission_for(item, caller.person.id, |own| may_act(caller, own))
            .await;
        match found {
            Ok(own) if may_act(caller, &own) => Ok(own),
            Ok(_) | Err(Error::NotFound) => Err(ExchangeError::NotYourContent),
            Err(error) => Err(error.into()),
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
        refuse_paused(&still.integration)?;
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

/// Whether the caller may exchange tokens for the item of this admission, which is the caller's own.
fn may_act(caller: &Caller, own: &Admission) -> bool {
    access::may_exchange(
        &caller.person,
        caller.role,
        own.standing,
        caller.content,
        &own.content,
    )
}

fn refuse_paused(integration: &Integration) -> Result<(), ExchangeError> {
    if integration.paused_at.is_some() {
        let service = providers::names(integration).service;
        return Err(ExchangeError::Paused { service });
    }
    Ok(())
}

/// Whether the kinds of tokens fit the integration.
fn check_kinds(
    integration: &Integration,
    subject: SubjectKind,
    wanted: Wanted,
) -> Result<(), ExchangeError> {
    let acts_as = integration.auth_type;
    let fits = match acts_as {
        AuthType::Viewer | AuthType::VisitorApiKey => subject == SubjectKind::Viewer,
        AuthType::ServiceAccount => subject == SubjectKind::Content,
    };
    if !fits {
        return Err(ExchangeError::AuthType {
            name: integration.display_name().to_owned(),
            acts_as,
        });
    }
    let is_aws = integration.template == aws::TEMPLATE.key;
    let possible = match wanted {
        Wanted::SessionToken => true,
        Wanted::ApiKey => acts_as == AuthType::VisitorApiKey,
        Wanted::AwsCredentials => is_aws,
        Wanted::AccessToken => acts_as != AuthType::VisitorApiKey && !is_aws,
        Wanted::IdToken => acts_as == AuthType::ServiceAccount,
    };
    if possible {
        Ok(())
    } else {
        Err(ExchangeError::RequestedTokenType(
            issued_type(wanted).to_owned(),
        ))
    }
}

/// The token type that an answer names.
fn issued_type(wanted: Wanted) -> &'static str {
    match wanted {
        Wanted::AccessToken => words::ACCESS_TOKEN,
        Wanted::SessionToken => words::USER_SESSION_TOKEN,
        Wanted::AwsCredentials => words::AWS_CREDENTIALS,
        Wanted::ApiKey => words::API_KEY,
        Wanted::IdToken => words::ID_TOKEN,
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
