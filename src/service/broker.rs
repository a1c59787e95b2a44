//! "A fresh access token for this connection." The only place that refreshes.
//!
//! One refresh at a time for each connection: in this process everybody who waits shares one call,
//! which runs in a task of its own and is cancelled by nobody; between processes a lease decides.
//! An attempt is written down before it is sent, and the new tokens are committed before anyone
//! sees them. A failure of the provider never ends a connection; only its refusal of the refresh
//! token does.

use super::{
    Error, Service,
    admission::{token_place, token_row},
    revocations::{Ended, Known, Why},
};
use crate::{
    domain::{
        Id, Timestamp,
        audit::{Action, Event, Outcome},
        connection::{Cause, Connection, State},
        integration::{Integration, SecretHealth},
    },
    faults,
    oauth::{Granted, answer::TokenAnswer, errors::Class},
    providers::{self, Rotation},
    store::{
        connections::{self, Refreshed, Tokens},
        integrations::{self, Secrets},
        leases::{self, Lease},
        people,
    },
    vault::Sealed,
};
use futures_util::{FutureExt as _, future::BoxFuture, future::Shared};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// A token handed out has at least this much life left, unless the provider's tokens are
/// shorter-lived than twice that.
const MARGIN: Duration = Duration::from_secs(120);
/// What may be handed out while no better one can be had.
const LEAST: Duration = Duration::from_secs(30);
/// Nobody waits longer for a refresh; it goes on without them.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a process that waits for another one's refresh looks.
const LOOK_EVERY: Duration = Duration::from_millis(150);
/// A lease lives for so long, and is renewed at a third of it: always longer than a request may
/// take to be sent.
const LEASE: Duration = Duration::from_secs(75);
/// Where a refresh token works once, a node that fell silent is given so long to come back with its
/// answer.
const LEASE_OF_SINGLE_USE: Duration = Duration::from_secs(180);
/// From taking the lease on, the request leaves within this time or never.
const SEND_WITHIN: Duration = Duration::from_secs(20);
/// How long an answer is waited for, counted while this process runs: it may carry the only valid
/// token. The lease is held meanwhile.
const ANSWER_WITHIN: Duration = Duration::from_secs(110);
/// How long an integration that an administrator must repair is left alone; other nodes notice the
/// repair after that.
const BROKEN_FOR: Duration = Duration::from_secs(15);
/// Tries to commit before the tokens are also written to the spool.
const TRIES_BEFORE_SPOOL: u32 = 3;

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
    Unavailable {
        retry_after: Duration,
        sentence: String,
    },
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

/// A circuit breaker: open until `until`, then half open while one request tries.
#[derive(Clone)]
struct Rest {
    /// By the wall clock, and counted only while that has not been put back.
    from: Timestamp,
    until: Timestamp,
    failures: u32,
    sentence: String,
    /// Who can end it: an administrator, or nobody.
    broken: bool,
    probing: bool,
}

/// A connection with what a refresh needs to know.
struct Loaded {
    connection: Connection,
    tokens: Tokens,
    integration: Integration,
    secrets: Secrets,
    lease: Option<Lease>,
}

/// A refresh that this process may make.
struct Ours {
    loaded: Loaded,
    owner: String,
    refresh_token: SecretString,
    /// A refresh of the same tokens was sent before, and nobody knows what came of it.
    unknown: bool,
    taken: Instant,
}

/// Where a refresh begins.
enum Begin {
    /// It is not needed, or not possible: this is the result.
    Done(Result<Fresh, NoToken>),
    Ours(Box<Ours>),
    /// Another process is at it.
    Taken,
}

/// Whether a stored access token may still be handed out.
pub fn is_usable(issued_at: Timestamp, expires_at: Timestamp, now: Timestamp) -> bool {
    let margin = MARGIN.min(expires_at.since(issued_at) / 2);
    now >= issued_at.minus(Duration::from_secs(300)) && now.plus(margin) < expires_at
}

/// Whether it may be handed out for want of a better one.
fn is_bearable(issued_at: Timestamp, expires_at: Timestamp, now: Timestamp) -> bool {
    let margin = LEAST.min(expires_at.since(issued_at) / 8);
    now >= issued_at.minus(Duration::from_secs(300)) && now.plus(margin) < expires_at
}

/// Whether it is time to refresh ahead of need: a while before the token stops being handed out,
/// not for all at once.
pub fn is_due_ahead(connection: &Connection, now: Timestamp) -> bool {
    let Some(expires_at) = connection.access_expires_at else {
        return false;
    };
    let life = expires_at.since(connection.updated_at);
    let lead = (life / 4).min(AHEAD);
    // By the connection's own number, so that those of one morning do not all fall due together.
    let jitter = lead
        .mul_f64(f64::from(u32::try_from(connection.number.rem_euclid(97)).unwrap_or(0)) / 194.0);
    now.plus(MARGIN.min(life / 2) + lead).minus(jitter) >= expires_at
}

/// No token is refreshed longer than this before it stops being handed out.
pub const AHEAD: Duration = Duration::from_secs(300);
/// The earliest that a refresh ahead of need can be due before a token's end.
pub const EARLIEST: Duration = Duration::from_secs(MARGIN.as_secs() + AHEAD.as_secs());

impl Service {
    /// Refreshes a connection, or waits for the refresh under way, ten seconds at most. Whoever
    /// waits in vain gets the stored token, if it is still good for a while.
    pub async fn refresh(self: &Arc<Self>, connection: Id<Connection>) -> Result<Fresh, NoToken> {
        let refreshing = {
            let mut in_flight = self
                .broker
                .in_flight
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            match in_flight.get(&connection) {
                Some(refreshing) => refreshing.clone(),
                None => {
                    let service = Arc::clone(self);
                    let task = self.tasks.spawn_on(
                        async move {
                            let result = service.refresh_now(connection).await;
                            service
                                .broker
                                .in_flight
                                .lock()
                                .unwrap_or_else(PoisonError::into_inner)
                                .remove(&connection);
                            result
                        },
                        &self.runtime,
                    );
                    let refreshing = task
                        .map(|ended| {
                            ended.unwrap_or_else(|_| Err(unavailable("The refresh ended early.")))
                        })
                        .boxed()
                        .shared();
                    in_flight.insert(connection, refreshing.clone());
                    refreshing
                }
            }
        };
        match tokio::time::timeout(PATIENCE, refreshing).await {
            Ok(result) => result,
            Err(_) => {
                let loaded = self.load(connection).await.ok().flatten();
                let stored =
                    loaded.and_then(|loaded| self.stored(&loaded, is_bearable).ok().flatten());
                stored.ok_or_else(|| {
                    unavailable("The identity provider is slow. The answer is still awaited.")
                })
            }
        }
    }

    async fn refresh_now(self: &Arc<Self>, id: Id<Connection>) -> Result<Fresh, NoToken> {
        let started = Instant::now();
        loop {
            match self.begin_refresh(id).await? {
                Begin::Done(result) => return result,
                Begin::Ours(ours) => return self.refresh_ours(*ours).await,
                Begin::Taken if started.elapsed() < PATIENCE => {
                    tokio::time::sleep(LOOK_EVERY).await
                }
                Begin::Taken => {
                    let loaded = self
                        .load(id)
                        .await
                        .map_err(|_| unavailable("The portal's database is busy."))?;
                    let stored =
                        loaded.and_then(|loaded| self.stored(&loaded, is_bearable).ok().flatten());
                    return stored
                        .ok_or_else(|| unavailable("Another node is refreshing this connection."));
                }
            }
        }
    }

    async fn load(&self, id: Id<Connection>) -> Result<Option<Loaded>, Error> {
        self.store
            .read(move |db| {
                let Some((connection, tokens)) = connections::find(db, id)? else {
                    return Ok(None);
                };
                let integration =
                    integrations::find(db, connection.integration)?.ok_or(Error::Internal)?;
                let secrets = integrations::secrets(db, integration.id)?;
                let lease = leases::find(db, &leases::of_connection(id))?;
                Ok(Some(Loaded {
                    connection,
                    tokens,
                    integration,
                    secrets,
                    lease,
                }))
            })
            .await
    }

    fn open_token(
        &self,
        connection: &Connection,
        column: &str,
        sealed: &Sealed,
    ) -> Result<SecretString, NoToken> {
        let row = token_row(connection.id, connection.person, connection.integration);
        self.vault.open(token_place(column, &row), sealed).map_err(|error| {
            tracing::error!(connection = %connection.id, reason = %error, "a stored token does not open");
            NoToken::Broken { sentence: "A stored token cannot be opened. The operator finds the reason in the log.".into() }
        })
    }

    /// The stored access token, if it passes.
    fn stored(
        &self,
        loaded: &Loaded,
        passes: fn(Timestamp, Timestamp, Timestamp) -> bool,
    ) -> Result<Option<Fresh>, NoToken> {
        let connection = &loaded.connection;
        match (&loaded.tokens.access, connection.access_expires_at) {
            (Some(sealed), Some(expires_at))
                if connection.state == State::Active
                    && passes(connection.updated_at, expires_at, self.now()) =>
            {
                Ok(Some(Fresh {
                    token: Arc::new(self.open_token(connection, "access_token", sealed)?),
                    expires_at,
                }))
            }
            _ => Ok(None),
        }
    }

    /// Looks whether a refresh is needed and possible; if so takes the lease and writes the attempt
    /// down, in one transaction.
    async fn begin_refresh(self: &Arc<Self>, id: Id<Connection>) -> Result<Begin, NoToken> {
        let busy = |_| unavailable("The portal's database is busy.");
        let Some(loaded) = self.load(id).await.map_err(busy)? else {
            return Err(NoToken::Gone);
        };
        match loaded.connection.state {
            State::Active => {}
            State::NeedsLogin(cause) => return Err(NoToken::NeedsLogin(cause)),
            State::Unconfirmed => return Err(NoToken::Gone),
        }
        // Somebody else may have refreshed between the caller's look and now; only a refresh ahead
        // of need goes on.
        let usable = self.stored(&loaded, is_usable)?;
        if let Some(fresh) = usable.filter(|_| !is_due_ahead(&loaded.connection, self.now())) {
            return Ok(Begin::Done(Ok(fresh)));
        }
        let bearable = self.stored(&loaded, is_bearable)?;
        let Some(refresh_token) = &loaded.tokens.refresh else {
            // Nothing better will come: the rest of its life is still good.
            let rest = self.stored(&loaded, |_, expires_at, now| now < expires_at)?;
            if rest.is_none() {
                self.end(&loaded, Cause::Expired, "no refresh token", None)
                    .await;
            }
            return Ok(Begin::Done(rest.ok_or(NoToken::NeedsLogin(Cause::Expired))));
        };
        let life = match providers::rotation(&loaded.integration) {
            Rotation::SingleUse => faults::hurried(LEASE_OF_SINGLE_USE),
            Rotation::KeepsOld | Rotation::Never => faults::hurried(LEASE),
        };
        if loaded
            .lease
            .as_ref()
            .is_some_and(|lease| !self.node.is_abandoned(lease, life))
        {
            return Ok(Begin::Taken);
        }
        if let Some(rest) = self.rest_of(loaded.integration.id) {
            let retry_after = rest.until.since(self.now()).max(Duration::from_secs(1));
            return Ok(Begin::Done(bearable.ok_or(if rest.broken {
                NoToken::Broken {
                    sentence: rest.sentence,
                }
            } else {
                NoToken::Unavailable {
                    retry_after,
                    sentence: rest.sentence,
                }
            })));
        }
        let refresh_token =
            match self.open_token(&loaded.connection, "refresh_token", refresh_token) {
                Ok(token) => token,
                Err(why) => {
                    self.wake(loaded.integration.id);
                    return Err(why);
                }
            };
        let (now, generation) = (self.now(), loaded.connection.generation);
        let lease = self.new_lease(
            leases::of_connection(id),
            self.node.name(),
            generation,
            now.plus(LEASE),
        );
        let (owner, before, taken) = (lease.owner.clone(), loaded.lease.clone(), Instant::now());
        let begun = self
            .store
            .note(move |db| {
                let current = connections::find(db, id)?;
                let same = current.is_some_and(|(found, _)| {
                    found.generation == generation && found.state == State::Active
                });
                if !same || !leases::take(db, &lease, before.as_ref())? {
                    return Ok(None);
                }
                Ok::<_, Error>(Some(leases::begin_attempt(
                    db,
                    id,
                    generation,
                    &lease.owner,
                    now,
                )?))
            })
            .await;
        match begun {
            Ok(Some(unknown)) => {
                faults::mark("attempt_written");
                Ok(Begin::Ours(Box::new(Ours {
                    loaded,
                    owner,
                    refresh_token,
                    unknown,
                    taken,
                })))
            }
            // Somebody was faster: look again.
            Ok(None) => {
                self.wake(loaded.integration.id);
                Ok(Begin::Taken)
            }
            Err(_) => {
                self.wake(loaded.integration.id);
                Ok(Begin::Done(bearable.ok_or_else(|| {
                    unavailable("The portal's database is busy.")
                })))
            }
        }
    }

    /// Makes the call and settles what comes of it, while the lease is renewed.
    async fn refresh_ours(self: &Arc<Self>, ours: Ours) -> Result<Fresh, NoToken> {
        let service = Arc::clone(self);
        let (name, owner) = (
            leases::of_connection(ours.loaded.connection.id),
            ours.owner.clone(),
        );
        let _renewing = tokio_util::task::AbortOnDropHandle::new(self.runtime.spawn(async move {
            loop {
                tokio::time::sleep(faults::hurried(LEASE) / 3).await;
                let (name, owner, until) = (name.clone(), owner.clone(), service.now().plus(LEASE));
                let renewed = service
                    .store
                    .note(move |db| Ok::<_, Error>(leases::renew(db, &name, &owner, until)?))
                    .await;
                if matches!(renewed, Ok(false)) {
                    // Somebody took it for abandoned. The answer is still worth storing, if it
                    // comes first.
                    tracing::warn!("the lease of a refresh was taken over by another node");
                    return;
                }
            }
        }));
        self.call(&ours).await
    }

    async fn call(self: &Arc<Self>, ours: &Ours) -> Result<Fresh, NoToken> {
        let Loaded {
            connection,
            integration,
            secrets,
            ..
        } = &ours.loaded;
        let id = connection.id;
        let Ok(registration) = self.registration(integration, secrets) else {
            self.wake(integration.id);
            self.settle(ours, true).await;
            return Err(NoToken::Broken {
                sentence: "The integration's settings cannot be read. The operator finds the reason in the log.".into(),
            });
        };
        let asked_at = self.now();
        tracing::debug!(connection = %id, unknown = ours.unknown, "refreshing");
        let limit = ours.taken + faults::hurried(SEND_WITHIN);
        let answer = while_running(
            ANSWER_WITHIN,
            registration.refresh(&self.http, ours.refresh_token.clone(), limit),
        )
        .await;
        faults::mark("answered");
        let failure = match answer {
            Some(Ok(Granted {
                answer,
                by_previous_secret,
            })) => {
                self.wake(integration.id);
                if answer.account().is_another_than(&connection.account) {
                    self.end(
                        &ours.loaded,
                        Cause::AccountChanged,
                        "another account answered",
                        Some(&ours.owner),
                    )
                    .await;
                    return Err(NoToken::NeedsLogin(Cause::AccountChanged));
                }
                let fresh = self.keep(ours, &answer, asked_at).await?;
                faults::mark("committed");
                self.note_worked(integration, by_previous_secret, asked_at)
                    .await;
                return Ok(fresh);
            }
            Some(Err(failure)) => failure,
            None => {
                crate::oauth::errors::Failure::wait("The identity provider did not answer in time.")
            }
        };
        tracing::warn!(connection = %id, integration = %integration.id, word = failure.word, aadsts = failure.aadsts, "refresh failed");
        let stored = self.stored(&ours.loaded, is_bearable).ok().flatten();
        match failure.class {
            Class::Person(cause) => {
                self.wake(integration.id);
                // Refused after an answer that never reached us: the token was used up, and its
                // successor got lost.
                let cause = if ours.unknown && cause == Cause::Expired {
                    Cause::RotationLost
                } else {
                    cause
                };
                self.end(&ours.loaded, cause, failure.word, Some(&ours.owner))
                    .await;
                Err(NoToken::NeedsLogin(cause))
            }
            Class::Administrator => {
                // Asking again at each exchange mends nothing; saving the integration ends the
                // pause.
                self.rest(integration.id, Some(BROKEN_FOR), &failure.sentence, true);
                self.settle(ours, true).await;
                let health = SecretHealth::Rejected {
                    at: asked_at,
                    cause: failure.sentence.clone(),
                };
                self.note_health(integration, health, false).await;
                stored.ok_or(NoToken::Broken {
                    sentence: failure.sentence,
                })
            }
            Class::Wait { retry_after } => {
                let rest = self.rest(integration.id, retry_after, &failure.sentence, false);
                self.settle(ours, !failure.may_have_acted).await;
                stored.ok_or(NoToken::Unavailable {
                    retry_after: rest,
                    sentence: failure.sentence,
                })
            }
        }
    }

    /// Lets the lease go after a refresh that brought nothing. An attempt whose outcome is not
    /// known stays written down.
    async fn settle(&self, ours: &Ours, known: bool) {
        let (id, owner, forget) = (
            ours.loaded.connection.id,
            ours.owner.clone(),
            known && !ours.unknown,
        );
        let settled = self
            .store
            .note(move |db| {
                if forget {
                    leases::settle_attempt(db, id)?;
                }
                Ok::<_, Error>(leases::release(db, &leases::of_connection(id), &owner)?)
            })
            .await;
        if settled.is_err() {
            tracing::warn!(connection = %id, "could not let the lease of a refresh go; it ends by itself");
        }
    }

    /// Commits new tokens. Nothing that can fail for a reason of ours stands between the answer and
    /// here, and nothing ends the trying: after a while the tokens also lie in the spool, for the
    /// next start.
    async fn keep(
        self: &Arc<Self>,
        ours: &Ours,
        answer: &TokenAnswer,
        asked_at: Timestamp,
    ) -> Result<Fresh, NoToken> {
        let Loaded {
            connection,
            integration,
            ..
        } = &ours.loaded;
        let row = token_row(connection.id, connection.person, connection.integration);
        let seal = |column: &str, token: &SecretString| {
            self.vault
                .seal(token_place(column, &row), token)
                .map_err(|_| unavailable("The new token could not be stored."))
        };
        let (token, refresh_token) = (answer.access(), answer.refresh());
        let expires_at = asked_at.plus(answer.lifetime());
        let kept = Kept {
            connection: connection.id,
            generation: connection.generation,
            access: seal("access_token", &token)?.0,
            refresh: refresh_token
                .as_ref()
                .map(|token| seal("refresh_token", token))
                .transpose()?
                .map(|sealed| sealed.0),
            access_expires_at: expires_at,
            lapses_at: lapses_at(integration, connection.connected_at, asked_at),
            asked_at,
        };
        let name = connection.id.to_string();
        let mut tries = 0;
        let stored = loop {
            match self.store_kept(&kept, Some(&ours.owner)).await {
                Ok(stored) => break stored,
                Err(error) => {
                    tries += 1;
                    tracing::error!(connection = %connection.id, tries, reason = %error, "new tokens could not be stored; trying again");
                    if tries == TRIES_BEFORE_SPOOL {
                        self.spool(&name, &kept);
                    }
                    tokio::time::sleep(Duration::from_millis(100 << tries.min(5))).await;
                }
            }
        };
        if tries >= TRIES_BEFORE_SPOOL {
            self.unspool(&name);
        }
        if stored {
            return Ok(Fresh {
                token: Arc::new(token),
                expires_at,
            });
        }
        // Ended or replaced while the provider was answering: nobody here may have what it brought.
        let Ok(current) = self.load(connection.id).await else {
            // Nothing is known: a connection that may well be there must not lose its tokens at the
            // provider.
            return Err(unavailable("The portal's database is busy."));
        };
        let usable = current
            .as_ref()
            .and_then(|loaded| self.stored(loaded, is_usable).ok().flatten());
        if current.is_none()
            && let Some(orphan) = refresh_token
        {
            self.revoke_orphan(
                &ours.loaded.connection,
                integration,
                &ours.loaded.secrets,
                &orphan,
            )
            .await;
        }
        usable.ok_or(NoToken::Gone)
    }

    /// Compares and swaps on the generation; `false` if another one came first.
    async fn store_kept(&self, kept: &Kept, owner: Option<&str>) -> Result<bool, Error> {
        let (kept, owner) = (kept.clone(), owner.map(str::to_owned));
        // No decision depends on which token it is: whoever finds the old one ended asks here
        // again. So the hourly refreshes of ten thousand people make no cache of any node forget.
        self.store
            .note(move |db| {
                let (access, refresh) = (Sealed(kept.access), kept.refresh.map(Sealed));
                let new = Refreshed {
                    access: &access,
                    refresh: refresh.as_ref(),
                    access_expires_at: kept.access_expires_at,
                    lapses_at: kept.lapses_at,
                    now: kept.asked_at,
                };
                let stored =
                    connections::store_refreshed(db, kept.connection, kept.generation, &new)?;
                if stored {
                    leases::settle_attempt(db, kept.connection)?;
                }
                if let Some(owner) = owner {
                    leases::release(db, &leases::of_connection(kept.connection), &owner)?;
                }
                Ok(stored)
            })
            .await
    }

    fn spool(&self, name: &str, kept: &Kept) {
        let text = serde_json::to_string(kept).unwrap_or_default();
        match self.node.spool().map(|spool| spool.put(name, &text)) {
            Some(Ok(true)) => tracing::warn!(
                connection = name,
                "new tokens are kept in the spool until the database takes them"
            ),
            Some(Ok(false)) | None => tracing::error!(
                connection = name,
                "the spool has no room: new tokens are in memory only"
            ),
            Some(Err(error)) => {
                tracing::error!(connection = name, %error, "the spool failed: new tokens are in memory only")
            }
        }
    }

    fn unspool(&self, name: &str) {
        if let Some(Err(error)) = self.node.spool().map(|spool| spool.remove(name)) {
            tracing::warn!(connection = name, %error, "the spool could not be cleared; the next start does it");
        }
    }

    /// Stores what an earlier life of this node could not. Called before serving.
    pub async fn drain_spool(&self) -> Result<(), String> {
        let Some(spool) = self.node.spool() else {
            return Ok(());
        };
        for (name, text) in spool
            .entries()
            .map_err(|error| format!("cannot read the spool: {error}"))?
        {
            if let Ok(kept) = serde_json::from_str::<Kept>(&text) {
                let loaded = self
                    .load(kept.connection)
                    .await
                    .map_err(|error| format!("cannot look at what the spool is for: {error}"))?;
                let Some(loaded) = loaded else {
                    spool
                        .remove(&name)
                        .map_err(|error| format!("cannot clear the spool: {error}"))?;
                    continue;
                };
                // Its key may have been retired while this node was down.
                if self
                    .open_token(
                        &loaded.connection,
                        "access_token",
                        &Sealed(kept.access.clone()),
                    )
                    .is_err()
                {
                    self.end(
                        &loaded,
                        Cause::RotationLost,
                        "the spool's key is gone",
                        None,
                    )
                    .await;
                    spool
                        .remove(&name)
                        .map_err(|error| format!("cannot clear the spool: {error}"))?;
                    continue;
                }
                let stored = self
                    .store_kept(&kept, None)
                    .await
                    .map_err(|error| format!("cannot store what the spool holds: {error}"))?;
                tracing::warn!(connection = name, stored, "tokens from the spool");
            }
            spool
                .remove(&name)
                .map_err(|error| format!("cannot clear the spool: {error}"))?;
        }
        Ok(())
    }

    /// The provider no longer accepts the refresh token: the viewer is needed, and nobody else's
    /// tokens are touched.
    async fn end(&self, loaded: &Loaded, cause: Cause, word: &str, owner: Option<&str>) {
        let Loaded {
            connection,
            integration,
            ..
        } = loaded;
        let (id, generation, person, now) = (
            connection.id,
            connection.generation,
            connection.person,
            self.now(),
        );
        let (subject, detail) = (
            integration.display_name().to_owned(),
            format!("{}: {word}", cause.as_str()),
        );
        let owner = owner.map(str::to_owned);
        let ended = self
            .store
            .write(move |db| {
                if let Some(owner) = owner {
                    leases::release(db, &leases::of_connection(id), &owner)?;
                }
                let current = connections::find(db, id)?;
                if current.is_none_or(|(current, _)| {
                    current.generation != generation || current.state != State::Active
                }) {
                    return Ok(());
                }
                leases::settle_attempt(db, id)?;
                connections::set_state(db, id, State::NeedsLogin(cause), now)?;
                let name = people::find(db, person)?
                    .map(|person| person.username)
                    .unwrap_or_default();
                let action = if cause == Cause::AccountChanged {
                    Action::AccountChanged
                } else {
                    Action::ConnectionNeedsLogin
                };
                let line = Event::by_portal(now, action, subject, detail);
                super::record(
                    db,
                    &Event {
                        actor: Some(person),
                        actor_name: name,
                        outcome: Outcome::Failed,
                        ..line
                    },
                )
            })
            .await;
        if ended.is_err() {
            tracing::error!(connection = %id, "could not mark a connection as needing its viewer");
        }
    }

    /// A token that arrived for a connection that had ended meanwhile is ended at the provider,
    /// too.
    async fn revoke_orphan(
        self: &Arc<Self>,
        connection: &Connection,
        integration: &Integration,
        secrets: &Secrets,
        token: &SecretString,
    ) {
        let why = Why::of_portal(self.now(), "a token that arrived after the end");
        let Ok(ended) = Ended::new(
            self,
            connection,
            integration,
            secrets,
            &Known::Token(token.clone()),
            &why,
        ) else {
            return;
        };
        let written = self.store.note(move |db| ended.record(db)).await;
        match written {
            Ok(()) => self.tell_providers_soon(),
            Err(_) => {
                tracing::error!("a token that arrived too late could not be ended at its provider")
            }
        }
    }

    /// The break that an integration is in; `None` lets one request through.
    fn rest_of(&self, integration: Id<Integration>) -> Option<Rest> {
        let mut resting = self
            .broker
            .resting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let rest = resting.get_mut(&integration)?;
        let now = self.now();
        if (rest.until > now && now >= rest.from) || rest.probing {
            return Some(rest.clone());
        }
        rest.probing = true;
        None
    }

    /// Ends a pause: at the next need the provider is asked again.
    pub(super) fn wake(&self, integration: Id<Integration>) {
        self.broker
            .resting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&integration);
    }

    /// Leaves a failing provider alone: as long as it asks, else one second, then two, up to
    /// thirty.
    fn rest(
        &self,
        integration: Id<Integration>,
        asked: Option<Duration>,
        sentence: &str,
        broken: bool,
    ) -> Duration {
        let mut resting = self
            .broker
            .resting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let failures = resting.get(&integration).map_or(0, |rest| rest.failures) + 1;
        let pause = asked.unwrap_or_else(|| {
            Duration::from_secs(1 << (failures - 1).min(5)).min(Duration::from_secs(30))
        });
        let from = self.now();
        let until = from.plus(pause);
        resting.insert(
            integration,
            Rest {
                from,
                until,
                failures,
                sentence: sentence.to_owned(),
                broken,
                probing: false,
            },
        );
        pause.max(Duration::from_secs(1))
    }
}

/// New tokens, sealed, on their way to the database; the form in which the spool holds them.
#[derive(Clone, Serialize, Deserialize)]
struct Kept {
    connection: Id<Connection>,
    /// Of the tokens that these replace.
    generation: i64,
    access: String,
    refresh: Option<String>,
    access_expires_at: Timestamp,
    lapses_at: Option<Timestamp>,
    asked_at: Timestamp,
}

/// Waits for `work`, as long as this process ran for less than `limit` meanwhile: one that was
/// stopped finds its answer when it goes on.
async fn while_running<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    const STEP: Duration = Duration::from_secs(1);
    let mut work = std::pin::pin!(work);
    let mut left = limit;
    loop {
        tokio::select! {
            biased;
            done = &mut work => return Some(done),
            () = tokio::time::sleep(STEP) => left = left.saturating_sub(STEP),
        }
        if left.is_zero() {
            return None;
        }
    }
}

fn unavailable(sentence: &str) -> NoToken {
    NoToken::Unavailable {
        retry_after: Duration::from_secs(5),
        sentence: sentence.into(),
    }
}

/// When the provider will ask for the person again if nothing happens, and at the latest, as far as
/// that is known.
pub(super) fn lapses_at(
    integration: &Integration,
    connected_at: Timestamp,
    now: Timestamp,
) -> Option<Timestamp> {
    let days =
        providers::template(&integration.template).and_then(|template| template.lapses_after_days);
    let unused = days.map(|days| now.plus(Duration::from_secs(days * 86_400)));
    let latest = providers::longest_connection(integration).map(|life| connected_at.plus(life));
    unused.into_iter().chain(latest).min()
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
        // For want of a better one, more will do.
        assert!(is_bearable(at(0), at(3600), at(3560)) && !is_bearable(at(0), at(3600), at(3580)));
    }

    #[tokio::test]
    async fn an_answer_in_time_is_taken_and_nobody_waits_for_ever() {
        assert_eq!(
            while_running(Duration::from_secs(2), std::future::ready(1)).await,
            Some(1)
        );
        assert_eq!(
            while_running(Duration::from_secs(1), std::future::pending::<()>()).await,
            None
        );
    }
}
