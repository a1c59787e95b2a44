//! The token exchange (RFC 8693): an app trades a viewer's session token for the viewer's access
//! token. Runs for every data call of an app, so a valid token is answered from memory.
//!
//! Checks everything on each call and counts uses in memory. Parsing the form and the error numbers
//! that clients see belong to `web/api/exchange.rs`. There are no service accounts, so no other
//! token is handed out when the viewer's is missing.

use super::{
    Error, Service,
    admission::{Admission, IntegrationAccess},
    broker::{FreshToken, NoToken, is_usable},
    keys::Caller,
};
use crate::{
    domain::{
        Id, Timestamp, access, addresses,
        audit::{Action, Origin},
        connection::{Cause, State},
        consent::Consent,
        content::{Content, ProcessId},
        integration::Integration,
        person::Person,
        return_path::ReturnPath,
    },
    oauth::token_exchange as words,
    providers,
    store::{
        audit::{ExchangeCount, add_exchanges},
        connections, content, leaks,
    },
    vault::session_token::{Claims, InvalidToken},
};
use secrecy::SecretString;
use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// An hour, in milliseconds.
const HOUR_MS: i64 = 3_600_000;

/// The form parameters as sent (RFC 8693 section 2.1).
#[derive(Default)]
pub struct Request<'a> {
    pub grant_type: Option<Cow<'a, str>>,
    pub subject_token_type: Option<Cow<'a, str>>,
    pub subject_token: Option<Cow<'a, str>>,
    pub requested_token_type: Option<Cow<'a, str>>,
    pub audience: Option<Cow<'a, str>>,
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
}

impl From<Error> for ExchangeError {
    fn from(error: Error) -> Self {
        ExchangeError::Service(error)
    }
}

/// Exchanges counted in memory and not yet written to the database.
#[derive(Default)]
pub(super) struct UsageCounters(Mutex<HashMap<UsageKey, UsageCount>>);

/// What uses are counted by: a consent, the process that used it, and the hour.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct UsageKey {
    consent: Id<Consent>,
    process: ProcessId,
    /// Hours since 1970 (UTC).
    hour: i64,
}

/// A count of exchanges, with what its database rows need.
#[derive(Clone, Copy)]
struct UsageCount {
    times: i64,
    last: Timestamp,
    person: Id<Person>,
    content: Id<Content>,
    integration: Id<Integration>,
}

impl Service {
    /// Exchanges a session token. Checks on every call: key, content item, viewer's session and
    /// access, association, consent and connection.
    pub async fn exchange(
        self: &Arc<Self>,
        caller: &Caller,
        request: &Request<'_>,
    ) -> Result<Exchanged, ExchangeError> {
        if request.grant_type.as_deref() != Some(words::GRANT_TYPE) {
            return Err(ExchangeError::GrantType);
        }
        match request.subject_token_type.as_deref() {
            Some(words::USER_SESSION_TOKEN) => {}
            Some(words::CONTENT_SESSION_TOKEN) => return Err(ExchangeError::ContentToken),
            _ => return Err(ExchangeError::SubjectTokenType),
        }
        let wanted = request
            .requested_token_type
            .as_deref()
            .filter(|wanted| !wanted.is_empty() && *wanted != words::ACCESS_TOKEN);
        let renews = wanted == Some(words::USER_SESSION_TOKEN);
        if let Some(wanted) = wanted.filter(|_| !renews) {
            let known = words::UNSUPPORTED_TOKEN_TYPES
                .into_iter()
                .find(|known| *known == wanted)
                .unwrap_or("an unknown type");
            return Err(ExchangeError::RequestedTokenType(known.to_owned()));
        }
        let now = self.now();
        let token = request.subject_token.as_deref().unwrap_or("");
        let claims = self.session_claims(token).await?;
        let admission = self.viewer_admission(&claims).await?;
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
                .admission_for(claims.content, caller.person.id, may_act)
                .await
            {
                Ok(own) => own.standing,
                Err(Error::NotFound) => return Err(ExchangeError::NotYourContent),
                Err(error) => return Err(error.into()),
            }
        };
        if !access::may_exchange(
            &caller.person,
            caller.role,
            standing,
            caller.content,
            &admission.content,
        ) {
            return Err(ExchangeError::NotYourContent);
        }
        if !access::may_open(admission.standing) {
            return Err(ExchangeError::ViewerMayNot);
        }
        if renews {
            // Renewal grants nothing new: consent and connection are checked when the new token is
            // exchanged.
            let token = self
                .session_token(claims.sub, claims.content, claims.sid, claims.process)
                .ok_or(Error::Internal)?;
            let expires_in = self.settings.session_token_lifetime;
            return Ok(Exchanged {
                token: Arc::new(token.into()),
                issued_token_type: words::USER_SESSION_TOKEN,
                expires_in,
            });
        }
        let link = choose_link(
            &admission.links,
            request
                .audience
                .as_deref()
                .filter(|audience| !audience.is_empty()),
        )?;
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
                let fresh = self.refresh(connection.id).await;
                // A refresh may take seconds: check access and consent again.
                let again = self.viewer_admission(&claims).await?;
                if !access::may_open(again.standing) {
                    return Err(ExchangeError::ViewerMayNot);
                }
                let still = again
                    .links
                    .iter()
                    .find(|again| again.integration.id == link.integration.id);
                let still = still.ok_or(ExchangeError::WrongAudience)?;
                if still.consent != Some(consent) {
                    return Err(self.not_connected_error(
                        admission.content.id,
                        &link.integration,
                        still.connection.is_some(),
                    ));
                }
                self.invalidate_admission(claims.content, claims.sub);
                fresh
            }
            (State::NeedsLogin(cause), _, _) => Err(NoToken::NeedsLogin(cause)),
            (State::Unconfirmed, _, _) => Err(NoToken::Gone),
        };
        match fresh {
            Ok(fresh) => {
                self.count(consent, claims.process, &admission, link, now);
                Ok(Exchanged {
                    expires_in: fresh.expires_at.since(self.now()),
                    token: fresh.token,
                    issued_token_type: words::ACCESS_TOKEN,
                })
            }
            Err(NoToken::NeedsLogin(cause)) => Err(ExchangeError::NeedsLogin {
                cause,
                login_url: self.login_url(admission.content.id),
                service: providers::names(&link.integration).service,
            }),
            Err(NoToken::Gone) => {
                Err(self.not_connected_error(admission.content.id, &link.integration, false))
            }
            Err(NoToken::Broken { sentence }) => Err(ExchangeError::Broken { sentence }),
            Err(NoToken::Unavailable {
                retry_after,
                sentence,
            }) => Err(ExchangeError::Unavailable {
                retry_after,
                sentence,
            }),
        }
    }

    /// The admission of a session token's viewer to its content item, if the browser session still
    /// lives.
    async fn viewer_admission(&self, claims: &Claims) -> Result<Arc<Admission>, ExchangeError> {
        let viewer = self
            .session_person(claims.sid)
            .await?
            .filter(|person| person.id == claims.sub)
            .ok_or(ExchangeError::SessionEnded)?;
        match self.admission(claims.content, viewer.id).await {
            Err(Error::NotFound) => Err(ExchangeError::NotYourContent),
            other => Ok(other?),
        }
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
            .read_any_age(token)
            .ok()
            .map(|claims| claims.content);
        let title = match item {
            Some(item) => {
                let found = self
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
        self.note_refusal(
            Action::ExchangeRefused,
            Some(&caller.person),
            origin,
            why,
            title,
        )
        .await;
    }

    /// The page on which the viewer gives a missing consent or connects.
    pub fn login_url(&self, content: Id<Content>) -> String {
        match ReturnPath::parse(&addresses::app(content)) {
            Some(back) => self.addresses.absolute(&addresses::consent(content, &back)),
            None => self.addresses.absolute(&addresses::app(content)),
        }
    }

    /// The refusal for a missing consent (`store_granted_tokens`) or a missing connection.
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

    /// Counts one exchange in memory.
    fn count(
        &self,
        consent: Id<Consent>,
        process: ProcessId,
        admission: &Admission,
        link: &IntegrationAccess,
        now: Timestamp,
    ) {
        let counted = UsageKey {
            consent,
            process,
            hour: now.0.div_euclid(HOUR_MS),
        };
        let mut counters = self.usage.0.lock().unwrap_or_else(PoisonError::into_inner);
        let uses = counters.entry(counted).or_insert(UsageCount {
            times: 0,
            last: now,
            person: admission.person.id,
            content: admission.content.id,
            integration: link.integration.id,
        });
        uses.times += 1;
        uses.last = now;
    }

    /// Writes the counted uses to the database: every ten seconds, at a stop, and before a page
    /// shows them. So an exchange writes no row. Counts that cannot be written are kept for the
    /// next call.
    pub async fn flush_uses(&self) {
        let counted =
            std::mem::take(&mut *self.usage.0.lock().unwrap_or_else(PoisonError::into_inner));
        if counted.is_empty() {
            return;
        }
        let mut rows: Vec<(UsageKey, UsageCount)> =
            counted.iter().map(|(key, uses)| (*key, *uses)).collect();
        // Several processes may use one consent: write the newest use last.
        rows.sort_by_key(|(_, uses)| uses.last);
        let written = self
            .store
            .write_untracked(move |db| {
                for (counted, uses) in rows {
                    leaks::record_token_use(
                        db,
                        uses.content,
                        counted.process,
                        uses.person,
                        uses.last,
                    )?;
                    connections::add_uses(db, counted.consent, uses.times, uses.last)?;
                    connections::touch(db, uses.person, uses.integration, uses.last)?;
                    let hour = ExchangeCount {
                        hour: Timestamp(counted.hour * HOUR_MS),
                        person: uses.person.to_string(),
                        content: uses.content.to_string(),
                        integration: uses.integration.to_string(),
                        exchanges: uses.times,
                        last_at: uses.last,
                    };
                    add_exchanges(db, &hour)?;
                }
                Ok::<_, Error>(())
            })
            .await;
        if written.is_err() {
            let mut counters = self.usage.0.lock().unwrap_or_else(PoisonError::into_inner);
            for (key, lost) in counted {
                let uses = counters
                    .entry(key)
                    .or_insert(UsageCount { times: 0, ..lost });
                uses.times += lost.times;
                uses.last = uses.last.max(lost.last);
            }
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
