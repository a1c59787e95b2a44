//! Tokens for content itself, of accounts that belong to no person: from the provider by the
//! integration's own credentials, or by federation, where the provider trusts this portal and no
//! secret is stored. Also the temporary AWS keys of a viewer.
//!
//! Tokens are kept in memory until shortly before their end, under one lock for each integration: a
//! provider that does not answer holds up its own callers only. Which content may have a token is
//! decided in `exchange`.

use super::{
    broker::NoToken,
    issuer::{Issuer, PortalToken},
    token_times::FreshToken,
};
use crate::{
    domain::{Id, Timestamp, connection::Connection, integration::Integration},
    measures,
    oauth::{
        errors::{self, Failure, FailureClass},
        service_account::{self, Life, OwnToken},
    },
    providers::{self, ServiceGrant, aws, google, service_grant::AwsRole},
    service::{core::Core, error::Error, grants::clients::OauthClients},
    store::integrations::{self, Secrets},
    vault::labels,
};
use quick_cache::sync::Cache;
use secrecy::SecretString;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Mutex;

/// Tokens that are kept, of all integrations and viewers.
const CAPACITY: usize = 10_000;
/// How long a caller waits for a provider, waiting for another caller included.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest time that a token is kept, whatever its lifetime.
const KEPT_AT_MOST: Duration = Duration::from_secs(3600);
/// How long a failure is answered without asking again.
const PAUSE: Duration = Duration::from_secs(5);
/// The name of the session in AWS' own logs begins with it.
const AWS_SESSION: &str = "valetkey";

/// What the last request brought.
#[derive(Clone)]
enum Kept {
    Token { token: FreshToken, until: Timestamp },
    Failed { failure: Failure, until: Timestamp },
}

/// One integration's, or one viewer's, place for a token.
type Place = Arc<Mutex<Option<Kept>>>;

/// Tokens for content itself.
pub struct ServiceAccounts {
    core: Arc<Core>,
    clients: Arc<OauthClients>,
    issuer: Arc<Issuer>,
    places: Cache<String, Place>,
}

impl ServiceAccounts {
    pub(in crate::service) fn new(
        core: Arc<Core>,
        clients: Arc<OauthClients>,
        issuer: Arc<Issuer>,
    ) -> Self {
        Self {
            core,
            clients,
            issuer,
            places: Cache::new(CAPACITY),
        }
    }

    /// Who signs this portal's tokens.
    pub(in crate::service) fn issuer(&self) -> Arc<Issuer> {
        Arc::clone(&self.issuer)
    }

    /// The token of a service account.
    pub(in crate::service) async fn token(
        &self,
        integration: &Integration,
    ) -> Result<FreshToken, NoToken> {
        // Of another version of the settings there is another token.
        let name = format!("{}/{}", integration.id, integration.updated_at.0);
        let asking = async {
            let secrets = self.secrets(integration.id).await?;
            let answer = self.fetch(integration, secrets).await;
            self.note_secret(integration, &answer).await;
            answer
        };
        self.kept_or(name, asking).await
    }

    /// A token that is asked for now and not kept: for a check, which writes nothing. Tries the
    /// current client secret only.
    pub(in crate::service) async fn fetch_once(
        &self,
        integration: &Integration,
    ) -> Result<OwnToken, Failure> {
        let asking = async {
            let mut secrets = self.secrets(integration.id).await?;
            secrets.previous = None;
            self.fetch(integration, secrets).await
        };
        tokio::time::timeout(PATIENCE, asking)
            .await
            .unwrap_or_else(|_| Err(Failure::wait("The service did not answer in time.")))
    }

    /// Temporary AWS keys for a viewer, by the ID token of this connection. AWS' own logs show `label`.
    /// They are kept for the connection as it is: never for a name, which may go to somebody else.
    pub(in crate::service) async fn aws_keys(
        &self,
        integration: &Integration,
        connection: &Connection,
        label: &str,
        id_token: &FreshToken,
    ) -> Result<FreshToken, NoToken> {
        let Some(role) = aws::role(integration) else {
            return Err(damaged());
        };
        let name = format!(
            "{}/{}/{}/{}",
            integration.id, integration.updated_at.0, connection.id, connection.connected_at.0
        );
        let asking = self.assume_role(&role, label, &id_token.token);
        self.kept_or(name, asking).await
    }

    /// The kept token under this name, or what `asking` brings. One caller asks at a time.
    async fn kept_or(
        &self,
        name: String,
        asking: impl Future<Output = Result<OwnToken, Failure>>,
    ) -> Result<FreshToken, NoToken> {
        let place = self
            .places
            .get_or_insert_with(
                &name,
                || Ok::<_, std::convert::Infallible>(Place::default()),
            )
            .unwrap_or_default();
        let looking = async {
            let mut kept = place.lock().await;
            let now = self.core.now();
            match &*kept {
                Some(Kept::Token { token, until }) if now < *until => return Ok(token.clone()),
                Some(Kept::Failed { failure, until }) if now < *until => {
                    return Err(no_token(failure.clone()));
                }
                _ => {}
            }
            match asking.await {
                Ok(own) => {
                    let (token, until) = fresh(own, now);
                    *kept = Some(Kept::Token {
                        token: token.clone(),
                        until,
                    });
                    Ok(token)
                }
                Err(failure) => {
                    *kept = Some(Kept::Failed {
                        failure: failure.clone(),
                        until: now.plus(PAUSE),
                    });
                    Err(no_token(failure))
                }
            }
        };
        tokio::time::timeout(PATIENCE, looking)
            .await
            .unwrap_or_else(|_| {
                Err(no_token(Failure::wait(
                    "The service is slow. Ask again in a moment.",
                )))
            })
    }

    async fn secrets(&self, id: Id<Integration>) -> Result<Secrets, Failure> {
        let reading = self
            .core
            .store
            .read(move |db| Ok::<_, Error>(integrations::secrets(db, id)?));
        reading.await.map_err(inside)
    }

    async fn fetch(
        &self,
        integration: &Integration,
        secrets: Secrets,
    ) -> Result<OwnToken, Failure> {
        let asked = Instant::now();
        let answer = self.ask(integration, secrets).await;
        let how = errors::outcome(&answer);
        measures::provider_request(&integration.id, "service_account", how, asked.elapsed());
        answer
    }

    async fn ask(&self, integration: &Integration, secrets: Secrets) -> Result<OwnToken, Failure> {
        let Some(grant) = providers::service_grant(integration) else {
            return Err(misconfigured());
        };
        let http = &self.core.http;
        let portal_token = async || {
            self.issuer
                .token(&PortalToken::of(integration))
                .await
                .map_err(inside)
        };
        let registration = async || {
            self.clients.ready(integration).await;
            let found = self.clients.registration(integration, &secrets);
            found.map_err(inside)
        };
        match grant {
            ServiceGrant::ClientCredentials => {
                let registration = registration().await?;
                let granted = registration.client_credentials(http).await?;
                Ok(OwnToken {
                    by_previous_secret: granted.by_previous_secret,
                    ..OwnToken::from_response(&granted.answer, &registration)
                })
            }
            ServiceGrant::TokenExchange => {
                let registration = registration().await?;
                service_account::token_exchange(http, &registration, &portal_token().await?).await
            }
            ServiceGrant::AwsWebIdentity(role) => {
                let label = integration.id.to_string();
                self.assume_role(&role, &label, &portal_token().await?)
                    .await
            }
            ServiceGrant::GoogleWorkload {
                provider,
                service_account,
            } => {
                let Some((sts, credentials)) = google::workload_addresses(integration) else {
                    return Err(misconfigured());
                };
                let identity = (provider.as_str(), service_account.as_deref());
                let scopes = providers::scopes_of_its_own(integration.scopes());
                let token = portal_token().await?;
                service_account::google(http, (&sts, &credentials), identity, &scopes, &token).await
            }
            ServiceGrant::VaultLogin { address, role } => {
                service_account::vault(http, &address, &role, &portal_token().await?).await
            }
            ServiceGrant::StaticSecret => {
                let row = integration.id.to_string();
                let sealed = secrets.current.ok_or_else(misconfigured)?;
                let opened = self.core.vault.open(labels::client_secret(&row), &sealed);
                let opened = opened.map_err(|error| inside(error.into()))?;
                Ok(OwnToken::new(opened, Life::Unknown))
            }
        }
    }

    /// Records what an answer shows about the client secret, as for viewers.
    async fn note_secret(&self, integration: &Integration, answer: &Result<OwnToken, Failure>) {
        if providers::service_grant(integration) != Some(ServiceGrant::ClientCredentials) {
            return;
        }
        let at = self.core.now();
        match answer {
            Ok(own) => {
                self.clients
                    .record_accepted_secret(integration, own.by_previous_secret, at)
                    .await;
            }
            Err(failure)
                if failure.class == FailureClass::Administrator
                    && failure.concerns_integration() =>
            {
                self.clients
                    .record_refused_client(integration, failure, at)
                    .await;
            }
            Err(_) => {}
        }
    }

    async fn assume_role(
        &self,
        role: &AwsRole,
        label: &str,
        token: &SecretString,
    ) -> Result<OwnToken, Failure> {
        // AWS takes letters, digits and =,.@-_ in at most 64 characters.
        let fits = |letter: &char| letter.is_ascii_alphanumeric() || "=,.@-_".contains(*letter);
        let label: String = label.chars().filter(fits).collect();
        let session: String = format!("{AWS_SESSION}-{label}").chars().take(64).collect();
        service_account::assume_role(&self.core.http, role, &session, token).await
    }
}

/// A token as it is handed out, until shortly before its end, and until when it is kept.
fn fresh(own: OwnToken, now: Timestamp) -> (FreshToken, Timestamp) {
    let usable = own.life.left(now).map(|life| {
        let margin = (life / 10).min(Duration::from_secs(60));
        (life - margin).min(KEPT_AT_MOST)
    });
    let token = FreshToken {
        token: Arc::new(own.token),
        usable_until: usable.map(|usable| now.plus(usable)),
        extra_fields: own.extra_fields,
    };
    (token, now.plus(usable.unwrap_or(KEPT_AT_MOST)))
}

/// A failure of the portal itself.
fn inside(error: Error) -> Failure {
    error.log("the token of a service account");
    Failure::wait("This portal could not ask. The operator finds the reason in the log.")
}

fn damaged() -> NoToken {
    no_token(misconfigured())
}

fn misconfigured() -> Failure {
    Failure::administrator(
        errors::ErrorCode::Configuration,
        "The settings of this integration are damaged. Save them again.",
    )
}

/// What content is told about a failure.
fn no_token(failure: Failure) -> NoToken {
    if service_account::needs_administrator(&failure) {
        return NoToken::Broken {
            sentence: failure.sentence,
        };
    }
    let retry_after = match failure.class {
        FailureClass::Temporary {
            retry_after: Some(wait),
        } => wait,
        _ => PAUSE,
    };
    NoToken::Unavailable {
        retry_after,
        sentence: failure.sentence,
    }
}
