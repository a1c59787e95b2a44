//! "A fresh access token for this connection." The only place that refreshes.
//!
//! One refresh at a time for each connection: everybody who waits shares one call, which runs in a task of its own and is
//! cancelled by nobody. The rotated refresh token is committed before anyone sees the access token. A failure of the
//! provider never ends a connection; only its refusal of the refresh token does.

use super::{
    Error, Service,
    admission::{token_place, token_row},
};
use crate::{
    domain::{
        Id, Timestamp,
        audit::{Action, Event, Outcome},
        connection::{Cause, Connection, State},
        integration::{Integration, SecretHealth},
    },
    oauth::{answer::TokenAnswer, errors::Class},
    providers,
    store::{connections, integrations, people},
};
use futures_util::{FutureExt as _, future::BoxFuture, future::Shared};
use secrecy::SecretString;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// A token handed out has at least this much life left, unless the provider's tokens are shorter-lived than twice that.
const MARGIN: Duration = Duration::from_secs(120);
/// Nobody waits longer for a refresh; it goes on without them.
const PATIENCE: Duration = Duration::from_secs(10);
const COMMIT_ATTEMPTS: u32 = 20;

/// An access token, ready to be handed out.
#[derive(Clone, Debug)]
pub struct Fresh {
    pub token: Arc<SecretString>,
    pub expires_at: Timestamp,
}

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoToken {
    /// The viewer must sign in at the provider again.
    NeedsLogin(Cause),
    /// An administrator must repair the integration.
    Broken { sentence: String },
    /// It will pass.
    Unavailable { retry_after: Duration, sentence: String },
    /// The connection is gone.
    Gone,
}

type Refreshing = Shared<BoxFuture<'static, Result<Fresh, NoToken>>>;

/// Refreshes in flight, and providers to leave alone for a while.
#[derive(Default)]
pub struct Broker {
    in_flight: Mutex<HashMap<Id<Connection>, Refreshing>>,
    resting: Mutex<HashMap<Id<Integration>, Rest>>,
}

#[derive(Clone)]
struct Rest {
    until: Timestamp,
    failures: u32,
    sentence: String,
}

/// Whether a stored access token may still be handed out.
pub fn is_usable(issued_at: Timestamp, expires_at: Timestamp, now: Timestamp) -> bool {
    let margin = MARGIN.min(expires_at.since(issued_at) / 2);
    now >= issued_at.minus(Duration::from_secs(300)) && now.plus(margin) < expires_at
}

impl Service {
    /// Refreshes a connection, or waits for the refresh under way, ten seconds at most.
    pub async fn refresh(self: &Arc<Self>, connection: Id<Connection>) -> Result<Fresh, NoToken> {
        let refreshing = {
            let mut in_flight = self.broker.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
            match in_flight.get(&connection) {
                Some(refreshing) => refreshing.clone(),
                None => {
                    let service = Arc::clone(self);
                    let task = self.tasks.spawn_on(
                        async move {
                            let result = service.refresh_now(connection).await;
                            service.broker.in_flight.lock().unwrap_or_else(PoisonError::into_inner).remove(&connection);
                            result
                        },
                        &self.runtime,
                    );
                    let refreshing =
                        task.map(|ended| ended.unwrap_or_else(|_| Err(unavailable("The refresh ended early.")))).boxed().shared();
                    in_flight.insert(connection, refreshing.clone());
                    refreshing
                }
            }
        };
        tokio::time::timeout(PATIENCE, refreshing)
            .await
            .unwrap_or_else(|_| Err(unavailable("The identity provider is slow. The answer is still awaited.")))
    }

    async fn refresh_now(&self, id: Id<Connection>) -> Result<Fresh, NoToken> {
        let loaded = self
            .store
            .read(move |db| {
                let Some((connection, tokens)) = connections::find(db, id)? else { return Ok(None) };
                let integration = integrations::find(db, connection.integration)?.ok_or(Error::Internal)?;
                let secret = integrations::secret(db, integration.id)?;
                Ok::<_, Error>(Some((connection, tokens, integration, secret)))
            })
            .await
            .map_err(|_| unavailable("The portal's database is busy."))?;
        let Some((connection, tokens, integration, secret)) = loaded else { return Err(NoToken::Gone) };
        match connection.state {
            State::Active => {}
            State::NeedsLogin(cause) => return Err(NoToken::NeedsLogin(cause)),
            State::Unconfirmed => return Err(NoToken::Gone),
        }
        let row = token_row(connection.id, connection.person, connection.integration);
        let open = |column: &str, sealed: &crate::vault::Sealed| {
            self.vault.open(token_place(column, &row), sealed).map_err(|error| {
                tracing::error!(connection = %id, reason = %error, "a stored token does not open");
                NoToken::Broken { sentence: "A stored token cannot be opened. The operator finds the reason in the log.".into() }
            })
        };
        // Somebody else may have refreshed between the caller's look and now.
        let stored = match (&tokens.access, connection.access_expires_at) {
            (Some(sealed), Some(expires_at)) if expires_at > self.now() => {
                Some(Fresh { token: Arc::new(open("access_token", sealed)?), expires_at })
            }
            _ => None,
        };
        if let Some(fresh) = stored.clone().filter(|fresh| is_usable(connection.updated_at, fresh.expires_at, self.now())) {
            return Ok(fresh);
        }
        let Some(refresh_token) = &tokens.refresh else {
            if let Some(fresh) = stored {
                // Nothing better will come: the rest of its life is still good.
                return Ok(fresh);
            }
            self.end(&connection, &integration, Cause::Expired, "no refresh token").await;
            return Err(NoToken::NeedsLogin(Cause::Expired));
        };
        if let Some(rest) = self.rest_of(integration.id) {
            return stored.ok_or(NoToken::Unavailable { retry_after: rest.until.since(self.now()), sentence: rest.sentence });
        }
        let refresh_token = open("refresh_token", refresh_token)?;
        let registration = self.registration(&integration, secret.as_ref()).map_err(|_| NoToken::Broken {
            sentence: "The integration's settings cannot be read. The operator finds the reason in the log.".into(),
        })?;
        let asked_at = self.now();
        tracing::debug!(connection = %id, "refreshing");
        match registration.refresh(&self.http, refresh_token).await {
            Ok(answer) => {
                self.wake(integration.id);
                if answer.account().is_another_than(&connection.account) {
                    self.end(&connection, &integration, Cause::AccountChanged, "another account answered").await;
                    return Err(NoToken::NeedsLogin(Cause::AccountChanged));
                }
                let fresh = self.keep(&connection, &integration, &answer, asked_at).await?;
                self.note_health(&integration, SecretHealth::Works { at: asked_at }).await;
                Ok(fresh)
            }
            Err(failure) => {
                tracing::warn!(connection = %id, integration = %integration.id, word = failure.word, aadsts = failure.aadsts, "refresh failed");
                match failure.class {
                    Class::Person(cause) => {
                        self.end(&connection, &integration, cause, failure.word).await;
                        Err(NoToken::NeedsLogin(cause))
                    }
                    Class::Administrator => {
                        let health = SecretHealth::Rejected { at: asked_at, cause: failure.sentence.clone() };
                        self.note_health(&integration, health).await;
                        stored.ok_or(NoToken::Broken { sentence: failure.sentence })
                    }
                    Class::Wait { retry_after } => {
                        let rest = self.rest(integration.id, retry_after, &failure.sentence);
                        stored.ok_or(NoToken::Unavailable { retry_after: rest, sentence: failure.sentence })
                    }
                }
            }
        }
    }

    /// Commits new tokens. Nothing that can fail for a reason of ours stands between the answer and here.
    async fn keep(
        &self,
        connection: &Connection,
        integration: &Integration,
        answer: &TokenAnswer,
        asked_at: Timestamp,
    ) -> Result<Fresh, NoToken> {
        let row = token_row(connection.id, connection.person, connection.integration);
        let seal = |column: &str, token: &SecretString| {
            self.vault.seal(token_place(column, &row), token).map_err(|_| unavailable("The new token could not be stored."))
        };
        let token = answer.access();
        let access = seal("access_token", &token)?;
        let refresh = answer.refresh().map(|token| seal("refresh_token", &token)).transpose()?;
        let expires_at = asked_at.plus(answer.lifetime());
        let lapses_at = lapses_at(integration, asked_at);
        let (id, generation) = (connection.id, connection.generation);
        for attempt in 0..COMMIT_ATTEMPTS {
            let (access, refresh) = (access.clone(), refresh.clone());
            let written = self
                .store
                .write(move |db| {
                    let new = connections::Refreshed {
                        access: &access,
                        refresh: refresh.as_ref(),
                        access_expires_at: expires_at,
                        lapses_at,
                        now: asked_at,
                    };
                    connections::store_refreshed(db, id, generation, &new)
                })
                .await;
            match written {
                Ok(true) => return Ok(Fresh { token: Arc::new(token), expires_at }),
                // Revoked or replaced while the provider was answering: the answer is worthless here.
                Ok(false) => return Err(NoToken::Gone),
                Err(error) => {
                    tracing::error!(connection = %id, attempt, reason = %error, "new tokens could not be stored; trying again");
                    tokio::time::sleep(Duration::from_millis(100 << attempt.min(5))).await;
                }
            }
        }
        Err(unavailable("The portal could not store a new token."))
    }

    /// The provider no longer accepts the refresh token: the viewer is needed, and nobody else's tokens are touched.
    async fn end(&self, connection: &Connection, integration: &Integration, cause: Cause, word: &str) {
        let (id, generation, person, now) = (connection.id, connection.generation, connection.person, self.now());
        let (subject, detail) = (integration.display_name().to_owned(), format!("{}: {word}", cause.as_str()));
        let ended = self
            .store
            .write(move |db| {
                let current = connections::find(db, id)?;
                if current.is_none_or(|(current, _)| current.generation != generation || current.state != State::Active) {
                    return Ok(());
                }
                connections::set_state(db, id, State::NeedsLogin(cause), now)?;
                let name = people::find(db, person)?.map(|person| person.username).unwrap_or_default();
                super::record(
                    db,
                    &Event {
                        number: 0,
                        at: now,
                        action: if cause == Cause::AccountChanged { Action::AccountChanged } else { Action::ConnectionNeedsLogin },
                        actor: Some(person),
                        actor_name: name,
                        subject,
                        detail,
                        address: String::new(),
                        correlation: String::new(),
                        outcome: Outcome::Failed,
                        hash: String::new(),
                    },
                )
            })
            .await;
        if ended.is_err() {
            tracing::error!(connection = %id, "could not mark a connection as needing its viewer");
        }
    }

    fn rest_of(&self, integration: Id<Integration>) -> Option<Rest> {
        let resting = self.broker.resting.lock().unwrap_or_else(PoisonError::into_inner);
        resting.get(&integration).filter(|rest| rest.until > self.now()).cloned()
    }

    fn wake(&self, integration: Id<Integration>) {
        self.broker.resting.lock().unwrap_or_else(PoisonError::into_inner).remove(&integration);
    }

    /// Leaves a failing provider alone: as long as it asks, else one second, then two, up to thirty.
    fn rest(&self, integration: Id<Integration>, asked: Option<Duration>, sentence: &str) -> Duration {
        let mut resting = self.broker.resting.lock().unwrap_or_else(PoisonError::into_inner);
        let failures = resting.get(&integration).map_or(0, |rest| rest.failures) + 1;
        let pause = asked.unwrap_or_else(|| Duration::from_secs(1 << (failures - 1).min(5)).min(Duration::from_secs(30)));
        resting.insert(integration, Rest { until: self.now().plus(pause), failures, sentence: sentence.to_owned() });
        pause.max(Duration::from_secs(1))
    }
}

fn unavailable(sentence: &str) -> NoToken {
    NoToken::Unavailable { retry_after: Duration::from_secs(5), sentence: sentence.into() }
}

/// When the provider will ask for the person again if nothing happens.
pub(super) fn lapses_at(integration: &Integration, now: Timestamp) -> Option<Timestamp> {
    let days = providers::template(&integration.template)?.lapses_after_days?;
    Some(now.plus(Duration::from_secs(days * 86_400)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_about_to_end_is_not_handed_out() {
        let at = |seconds: i64| Timestamp(seconds * 1000);
        assert!(is_usable(at(0), at(3600), at(3400)));
        assert!(!is_usable(at(0), at(3600), at(3490)));
        // Short-lived tokens are used for the first half of their life.
        assert!(is_usable(at(0), at(20), at(9)));
        assert!(!is_usable(at(0), at(20), at(10)));
        // A clock that jumped back does not make an old token young.
        assert!(!is_usable(at(1000), at(4600), at(0)));
    }
}
