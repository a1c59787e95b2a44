//! The broker: provides a fresh access token for a connection. The only module that refreshes
//! tokens (RFC 6749 section 6).
//!
//! One refresh at a time per connection: within a process all callers share one task, which no
//! caller can cancel; between processes a lease decides. An attempt is recorded before its request
//! is sent, and new tokens are committed before any caller sees them. A provider failure never ends
//! a connection; a refused refresh token does, and so does an answer for another account.
//!
//! After a refusal the previous refresh token is not tried: with reuse detection that would end the
//! grant.

use crate::{
    domain::{
        Id, Timestamp,
        activity::Activity,
        audit::{Action, Event, Outcome},
        connection::{Cause, Connection, State},
        integration::Integration,
        notice::{Kind, Notice},
        person::Person,
    },
    faults, measures,
    oauth::{
        Granted, RevokedTokens,
        errors::{self, ErrorCode, Failure, FailureClass},
        token_response::ProviderTokenResponse,
    },
    providers::{self, Profile, Rotation, profile::RefreshTokenLife},
    service::{
        cluster::node::Nodes,
        core::{Core, record},
        error::Error,
        grants::{
            activity::ActivityCounts,
            backoff::{AfterFailure, Backoff},
            clients::OauthClients,
            new_connections,
            revocations::Revocations,
            token_times::{
                FreshToken, is_due_ahead, is_usable, is_usable_as_fallback, usable_until,
            },
        },
        notifying::notices::notify,
    },
    store::{
        connections::{self, RefreshedTokens, Tokens},
        integrations::{self, Secrets},
        leases::{self, Lease},
        people,
    },
    traces,
    vault::{Sealed, labels},
};
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use parking_lot::Mutex;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};
use tracing::Instrument as _;

/// How long a caller waits for a refresh. The refresh goes on without the caller.
const CALLER_TIMEOUT: Duration = Duration::from_secs(10);
/// Polling interval while another process refreshes the connection.
const LEASE_POLL_INTERVAL: Duration = Duration::from_millis(150);
/// Lifetime of a lease, renewed at a third of it. Longer than a request may take to be sent.
const LEASE_LIFETIME: Duration = Duration::from_secs(75);
/// Lease lifetime where a refresh token works once: a silent node has this long to return with the
/// answer before another node tries.
const SINGLE_USE_LEASE_LIFETIME: Duration = Duration::from_secs(180);
/// Deadline for sending the request, counted from taking the lease: the body checks it when it is
/// written. So a suspended node cannot send a token that another node has used meanwhile.
const SEND_TIMEOUT: Duration = Duration::from_secs(20);
/// Timeout for the answer, counted only while this process runs. Long, since the answer may carry
/// the only valid refresh token: with 60 s, a provider that took 70 s would cost the grant. The
/// lease is renewed meanwhile, without a limit: losing it would let another node replay the token.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(110);
/// Failed commits before the tokens are also written to the spool.
const TRIES_BEFORE_SPOOL: u32 = 3;

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoToken {
    /// The viewer must sign in at the provider again.
    NeedsLogin(Cause),
    /// An administrator must repair the integration.
    Broken { sentence: String },
    /// A temporary failure.
    Unavailable {
        retry_after: Duration,
        sentence: String,
    },
    /// There is no usable connection: it was deleted or replaced, or its account is unconfirmed.
    Gone,
}

/// A refresh in flight, awaited by all its callers.
type SharedRefresh = Shared<BoxFuture<'static, Result<FreshToken, NoToken>>>;

/// A connection with everything that a refresh needs.
struct LoadedConnection {
    connection: Connection,
    tokens: Tokens,
    integration: Integration,
    secrets: Secrets,
    lease: Option<Lease>,
}

/// A refresh whose lease this process holds.
struct OwnedRefresh {
    loaded: LoadedConnection,
    owner: String,
    refresh_token: SecretString,
    /// An earlier refresh with the same tokens was sent, and its outcome is unknown.
    earlier_outcome_unknown: bool,
    /// When the lease was taken.
    lease_taken_at: Instant,
}

/// The result of trying to start a refresh.
enum StartOutcome {
    /// A refresh is not needed or not possible: this is the result.
    Done(Result<FreshToken, NoToken>),
    Ours(Box<OwnedRefresh>),
    /// Another process holds the lease, or just changed the tokens.
    Taken,
}

/// Refreshes access tokens. Owns the refreshes in flight in this process.
pub struct Broker {
    core: Arc<Core>,
    clients: Arc<OauthClients>,
    backoff: Arc<Backoff>,
    revocations: Arc<Revocations>,
    nodes: Arc<Nodes>,
    activity: Arc<ActivityCounts>,
    in_flight: Mutex<HashMap<Id<Connection>, SharedRefresh>>,
}

impl Broker {
    pub(in crate::service) fn new(
        core: Arc<Core>,
        clients: Arc<OauthClients>,
        backoff: Arc<Backoff>,
        revocations: Arc<Revocations>,
        nodes: Arc<Nodes>,
        activity: Arc<ActivityCounts>,
    ) -> Self {
        Self {
            core,
            clients,
            backoff,
            revocations,
            nodes,
            activity,
            in_flight: Mutex::default(),
        }
    }

    /// Refreshes under way in this process.
    pub fn in_flight(&self) -> usize {
        self.in_flight.lock().len()
    }

    /// Refreshes a connection, or joins the refresh in flight. Waits 10 s at most; then returns the
    /// stored token if that still lasts a while, else [`NoToken::Unavailable`].
    pub async fn refresh(
        self: &Arc<Self>,
        connection: Id<Connection>,
    ) -> Result<FreshToken, NoToken> {
        let refreshing = {
            let mut in_flight = self.in_flight.lock();
            match in_flight.get(&connection) {
                // A task that ended without removing its entry, by a panic, is not joined.
                Some(refreshing) if refreshing.peek().is_none() => refreshing.clone(),
                _ => {
                    let service = Arc::clone(self);
                    // Not within the request's own span: others may wait for it, too, and the log
                    // would name this one request only.
                    let span = tracing::info_span!(parent: None, "refresh", %connection);
                    traces::set_trace_parent(&span);
                    let task = self.core.tasks.spawn_on(
                        async move {
                            let result = service.refresh_now(connection).await;
                            service.in_flight.lock().remove(&connection);
                            result
                        }
                        .instrument(span),
                        &self.core.runtime,
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
        match tokio::time::timeout(CALLER_TIMEOUT, refreshing).await {
            Ok(result) => result,
            Err(_) => {
                let loaded = self
                    .load(connection)
                    .await
                    .inspect_err(|error| error.log("the stored token of a slow refresh"))
                    .ok()
                    .flatten();
                let stored =
                    loaded.and_then(|loaded| self.stored_token_if(&loaded, is_usable_as_fallback));
                stored.ok_or_else(|| {
                    unavailable("The identity provider is slow. The answer is still awaited.")
                })
            }
        }
    }

    /// The refresh task: starts a refresh, or polls until the process that holds the lease is done.
    async fn refresh_now(self: &Arc<Self>, id: Id<Connection>) -> Result<FreshToken, NoToken> {
        let started = Instant::now();
        loop {
            match self.start_refresh(id).await? {
                StartOutcome::Done(result) => return result,
                StartOutcome::Ours(ours) => {
                    measures::lease_wait(started.elapsed());
                    return self.run_owned_refresh(*ours).await;
                }
                StartOutcome::Taken if started.elapsed() < CALLER_TIMEOUT => {
                    tokio::time::sleep(LEASE_POLL_INTERVAL).await
                }
                StartOutcome::Taken => {
                    let loaded = self
                        .load(id)
                        .await
                        .inspect_err(|error| error.log("the token that another node refreshed"))
                        .map_err(|_| unavailable("The portal's database is busy."))?;
                    let stored = loaded
                        .and_then(|loaded| self.stored_token_if(&loaded, is_usable_as_fallback));
                    return stored
                        .ok_or_else(|| unavailable("Another node is refreshing this connection."));
                }
            }
        }
    }

    /// `None` if the connection does not exist.
    async fn load(&self, id: Id<Connection>) -> Result<Option<LoadedConnection>, Error> {
        self.core
            .store
            .read(move |db| {
                let Some((connection, tokens)) = connections::find(db, id)? else {
                    return Ok(None);
                };
                let integration = integrations::find(db, connection.integration)?
                    .ok_or(Error::Internal("a row that another row names is missing"))?;
                let secrets = integrations::secrets(db, integration.id)?;
                let lease = leases::find(db, &leases::connection_lease_name(id))?;
                Ok(Some(LoadedConnection {
                    connection,
                    tokens,
                    integration,
                    secrets,
                    lease,
                }))
            })
            .await
    }

    /// Decrypts a stored token. [`NoToken::Broken`] if it does not decrypt.
    fn open_token(
        &self,
        connection: &Connection,
        column: &str,
        sealed: &Sealed,
    ) -> Result<SecretString, NoToken> {
        let row = labels::connection_row(connection.id, connection.person, connection.integration);
        self.core.vault.open(labels::connection_token(column, &row), sealed).map_err(|error| {
            tracing::error!(connection = %connection.id, reason = %error, "a stored token does not open");
            NoToken::Broken { sentence: "A stored token cannot be opened. The operator finds the reason in the log.".into() }
        })
    }

    /// The stored access token, decrypted, if the connection is active and `passes` accepts its
    /// times (issued, expires, now). One that does not decrypt is logged and counts as none: a
    /// refresh replaces it.
    fn stored_token_if(
        &self,
        loaded: &LoadedConnection,
        passes: fn(Timestamp, Option<Timestamp>, Timestamp) -> bool,
    ) -> Option<FreshToken> {
        let connection = &loaded.connection;
        let (issued_at, expires_at) = (connection.updated_at, connection.access_expires_at);
        let sealed = loaded.tokens.access.as_ref()?;
        if connection.state != State::Active || !passes(issued_at, expires_at, self.core.now()) {
            return None;
        }
        let token = self.open_token(connection, "access_token", sealed).ok()?;
        Some(FreshToken::stored(
            connection,
            &loaded.integration,
            Arc::new(token),
        ))
    }

    /// Checks whether a refresh is needed and possible. If so, takes the lease and records the
    /// attempt in one transaction.
    async fn start_refresh(self: &Arc<Self>, id: Id<Connection>) -> Result<StartOutcome, NoToken> {
        let busy = |error: Error| {
            error.log("loading a connection");
            unavailable("The portal's database is busy.")
        };
        let Some(loaded) = self.load(id).await.map_err(busy)? else {
            return Err(NoToken::Gone);
        };
        match loaded.connection.state {
            State::Active => {}
            State::NeedsLogin(cause) => return Err(NoToken::NeedsLogin(cause)),
            State::Unconfirmed => return Err(NoToken::Gone),
        }
        // Another refresh may have finished since the caller looked. A token that is still usable
        // is refreshed only if a background refresh is due.
        let usable = self.stored_token_if(&loaded, is_usable);
        // Where a refresh ends the token before it, that would take it from under the apps that
        // hold it.
        let ahead = !providers::profile(&loaded.integration).refresh_ends_access_token
            && is_due_ahead(&loaded.connection, self.core.now());
        if let Some(fresh) = usable.filter(|_| !ahead) {
            return Ok(StartOutcome::Done(Ok(fresh)));
        }
        let bearable = self.stored_token_if(&loaded, is_usable_as_fallback);
        let Some(refresh_token) = &loaded.tokens.refresh else {
            // No fresher token can be had: use this one until it expires.
            let rest = self.stored_token_if(&loaded, |_, expires_at, now| {
                expires_at.is_none_or(|expires_at| now < expires_at)
            });
            if rest.is_none() {
                self.mark_needs_login(&loaded, Cause::Expired, "no refresh token", None)
                    .await;
            }
            return Ok(StartOutcome::Done(
                rest.ok_or(NoToken::NeedsLogin(Cause::Expired)),
            ));
        };
        let life = match providers::profile(&loaded.integration).rotation {
            Rotation::SingleUse => faults::shortened(SINGLE_USE_LEASE_LIFETIME),
            Rotation::KeepsOld | Rotation::Never => faults::shortened(LEASE_LIFETIME),
        };
        if loaded
            .lease
            .as_ref()
            .is_some_and(|lease| !self.nodes.is_abandoned(lease, life))
        {
            return Ok(StartOutcome::Taken);
        }
        if let Some(pause) = self.backoff.pause_of(id, loaded.integration.id) {
            let retry_after = pause.rest(self.core.now());
            return Ok(StartOutcome::Done(bearable.ok_or(
                if pause.needs_administrator {
                    NoToken::Broken {
                        sentence: pause.sentence,
                    }
                } else {
                    NoToken::Unavailable {
                        retry_after,
                        sentence: pause.sentence,
                    }
                },
            )));
        }
        let refresh_token =
            match self.open_token(&loaded.connection, "refresh_token", refresh_token) {
                Ok(token) => token,
                Err(why) => {
                    self.backoff.not_sent(loaded.integration.id);
                    return Err(why);
                }
            };
        let (now, generation) = (self.core.now(), loaded.connection.generation);
        let lease = self.nodes.new_lease(
            leases::connection_lease_name(id),
            self.nodes.name(),
            generation,
            now.plus(LEASE_LIFETIME),
        );
        let (owner, before, taken) = (lease.owner.clone(), loaded.lease.clone(), Instant::now());
        let begun = self
            .core
            .store
            .write(move |db| {
                let current = connections::find(db, id)?;
                let same = current.is_some_and(|(found, _)| {
                    found.generation == generation && found.state == State::Active
                });
                if !same || !leases::acquire(db, &lease, before.as_ref())? {
                    return Ok(None);
                }
                Ok::<_, Error>(Some(leases::record_refresh_attempt(
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
                faults::checkpoint("attempt_written");
                Ok(StartOutcome::Ours(Box::new(OwnedRefresh {
                    loaded,
                    owner,
                    refresh_token,
                    earlier_outcome_unknown: unknown,
                    lease_taken_at: taken,
                })))
            }
            // The tokens or the lease changed meanwhile: look again.
            Ok(None) => {
                self.backoff.not_sent(loaded.integration.id);
                Ok(StartOutcome::Taken)
            }
            Err(error) => {
                error.log("starting a refresh");
                self.backoff.not_sent(loaded.integration.id);
                Ok(StartOutcome::Done(bearable.ok_or_else(|| {
                    unavailable("The portal's database is busy.")
                })))
            }
        }
    }

    /// Calls the provider and handles the answer while a task renews the lease.
    async fn run_owned_refresh(
        self: &Arc<Self>,
        ours: OwnedRefresh,
    ) -> Result<FreshToken, NoToken> {
        let service = Arc::clone(self);
        let (name, owner) = (
            leases::connection_lease_name(ours.loaded.connection.id),
            ours.owner.clone(),
        );
        let _renewing =
            tokio_util::task::AbortOnDropHandle::new(self.core.runtime.spawn(async move {
                loop {
                    tokio::time::sleep(faults::shortened(LEASE_LIFETIME) / 3).await;
                    let (name, owner, until) = (
                        name.clone(),
                        owner.clone(),
                        service.core.now().plus(LEASE_LIFETIME),
                    );
                    let renewed = service
                        .core
                        .store
                        .write(move |db| Ok::<_, Error>(leases::renew(db, &name, &owner, until)?))
                        .await;
                    if matches!(renewed, Ok(false)) {
                        // Another node judged the lease abandoned. The answer is still worth
                        // storing if it is committed first.
                        tracing::warn!("the lease of a refresh was taken over by another node");
                        return;
                    }
                }
            }));
        self.call_provider(&ours).await
    }

    /// Calls the provider, then commits the tokens, ends the connection, or pauses it.
    async fn call_provider(self: &Arc<Self>, ours: &OwnedRefresh) -> Result<FreshToken, NoToken> {
        let LoadedConnection {
            connection,
            integration,
            secrets,
            ..
        } = &ours.loaded;
        let id = connection.id;
        self.clients.ready(integration).await;
        let registration = match self.clients.registration(integration, secrets) {
            Ok(registration) => registration,
            Err(error) => {
                error.log("the client secret of an integration");
                self.backoff.not_sent(integration.id);
                self.release_lease(ours, true).await;
                return Err(NoToken::Broken {
                    sentence: "The integration's settings cannot be read. The operator finds the reason in the log.".into(),
                });
            }
        };
        let asked_at = self.core.now();
        tracing::debug!(connection = %id, unknown = ours.earlier_outcome_unknown, "refreshing");
        let limit = ours.lease_taken_at + faults::shortened(SEND_TIMEOUT);
        let asked = Instant::now();
        let answer = while_running(
            RESPONSE_TIMEOUT,
            registration.refresh(&self.core.http, ours.refresh_token.clone(), limit),
        )
        .await;
        faults::checkpoint("answered");
        let how = answer.as_ref().map_or("wait", errors::outcome);
        measures::provider_request(&integration.id, "refresh", how, asked.elapsed());
        let failure = match answer {
            Some(Ok(granted)) if !granted.answer.is_bearer() => Failure {
                may_have_acted: true,
                ..Failure::administrator(
                    ErrorCode::Other,
                    "The identity provider issued a kind of token that this portal cannot use.",
                )
            },
            Some(Ok(Granted {
                answer,
                by_previous_secret,
            })) => {
                self.backoff.succeeded(id, integration.id);
                self.activity
                    .count(Activity::Refreshed, None, Some(integration.id));
                let account = answer.account(&registration.profile);
                if account.certainly_differs_from(&connection.account) {
                    self.mark_needs_login(
                        &ours.loaded,
                        Cause::AccountChanged,
                        "another account answered",
                        Some(&ours.owner),
                    )
                    .await;
                    return Err(NoToken::NeedsLogin(Cause::AccountChanged));
                }
                let profile = &registration.profile;
                // A refresh response may omit the ID token (OpenID Connect Core section 12.2). The
                // old refresh token may be spent.
                if answer.token(profile).is_none() {
                    self.mark_needs_login(
                        &ours.loaded,
                        Cause::Expired,
                        "the provider issued no ID token at the refresh",
                        Some(&ours.owner),
                    )
                    .await;
                    return Err(NoToken::NeedsLogin(Cause::Expired));
                }
                let fresh = self.commit_tokens(ours, &answer, profile, asked_at).await?;
                faults::checkpoint("committed");
                self.clients
                    .record_accepted_secret(integration, by_previous_secret, asked_at)
                    .await;
                return Ok(fresh);
            }
            Some(Err(failure)) => failure,
            None => Failure::wait("The identity provider did not answer in time."),
        };
        tracing::warn!(connection = %id, integration = %integration.id, error_code = %failure.error_code, aadsts = failure.aadsts, "refresh failed");
        let kind = match failure.class {
            FailureClass::Viewer(_) => Activity::RefreshRefused,
            _ => Activity::RefreshFailed,
        };
        self.activity.count(kind, None, Some(integration.id));
        let stored = self.stored_token_if(&ours.loaded, is_usable_as_fallback);
        match failure.class {
            FailureClass::Viewer(cause) => {
                self.backoff.ended(id, integration.id);
                // An earlier answer never reached this portal: that request used the token up, and
                // its successor was lost.
                let cause = if ours.earlier_outcome_unknown && cause == Cause::Expired {
                    measures::grant_lost();
                    Cause::RotationLost
                } else {
                    cause
                };
                self.mark_needs_login(&ours.loaded, cause, failure.error_code, Some(&ours.owner))
                    .await;
                Err(NoToken::NeedsLogin(cause))
            }
            FailureClass::Administrator => {
                // Retrying at each exchange repairs nothing. Saving the integration ends the pause.
                self.backoff.failed(id, integration.id, &failure);
                self.release_lease(ours, true).await;
                if failure.concerns_integration() {
                    self.clients
                        .record_refused_client(integration, &failure, asked_at)
                        .await;
                }
                stored.ok_or(NoToken::Broken {
                    sentence: failure.sentence,
                })
            }
            FailureClass::Temporary { .. } | FailureClass::Unknown => {
                match self.backoff.failed(id, integration.id, &failure) {
                    AfterFailure::Wait(retry_after) => {
                        self.release_lease(ours, !failure.may_have_acted).await;
                        stored.ok_or(NoToken::Unavailable {
                            retry_after,
                            sentence: failure.sentence,
                        })
                    }
                    AfterFailure::GiveUp => {
                        let cause = Cause::Refused;
                        self.mark_needs_login(
                            &ours.loaded,
                            cause,
                            &failure.sentence,
                            Some(&ours.owner),
                        )
                        .await;
                        Err(NoToken::NeedsLogin(cause))
                    }
                }
            }
        }
    }

    /// Releases the lease after a refresh without new tokens. The attempt is deleted only if its
    /// outcome, and that of an earlier one, is known.
    async fn release_lease(&self, ours: &OwnedRefresh, known: bool) {
        let (id, owner, forget) = (
            ours.loaded.connection.id,
            ours.owner.clone(),
            known && !ours.earlier_outcome_unknown,
        );
        let settled = self
            .core
            .store
            .write(move |db| {
                if forget {
                    leases::delete_refresh_attempt(db, id)?;
                }
                Ok::<_, Error>(leases::release(
                    db,
                    &leases::connection_lease_name(id),
                    &owner,
                )?)
            })
            .await;
        if let Err(error) = settled {
            tracing::warn!(reason = %error, connection = %id, "could not let the lease of a refresh go; it ends by itself");
        }
    }

    /// Commits new tokens, retrying without end: an answer must not be lost to a local failure.
    /// After three failures the tokens are also in the spool, for the next start.
    async fn commit_tokens(
        self: &Arc<Self>,
        ours: &OwnedRefresh,
        answer: &ProviderTokenResponse,
        profile: &Profile,
        asked_at: Timestamp,
    ) -> Result<FreshToken, NoToken> {
        let LoadedConnection {
            connection,
            integration,
            ..
        } = &ours.loaded;
        let row = labels::connection_row(connection.id, connection.person, connection.integration);
        let seal = |column: &str, token: &SecretString| {
            self.core
                .vault
                .seal(labels::connection_token(column, &row), token)
                .map_err(|_| unavailable("The new token could not be stored."))
        };
        let token = answer
            .token(profile)
            .ok_or_else(|| unavailable("The new token is not the kind that content needs."))?;
        let refresh_token = answer.refresh();
        let expires_at = answer
            .lifetime(profile, true)
            .map(|life| asked_at.plus(life));
        let extra_fields = answer.extra_fields(profile);
        let kept = SealedTokens {
            connection: connection.id,
            generation: connection.generation,
            access: seal("access_token", &token)?.0,
            // Without a new one the stored one stays.
            refresh: refresh_token
                .as_ref()
                .map(|token| seal("refresh_token", token))
                .transpose()?
                .map(|sealed| sealed.0),
            access_expires_at: expires_at,
            lapses_at: match (answer.refresh_token_lifetime(profile), &refresh_token) {
                (Some(life), Some(_)) => Some(asked_at.plus(life)),
                // The stored refresh token stays, and so does its end.
                (None, None) if has_stated_end(profile) => connection.lapses_at,
                _ => lapses_at(integration, connection.connected_at, asked_at),
            },
            extra_fields: (!extra_fields.is_empty()).then_some(extra_fields),
            asked_at,
        };
        let name = connection.id.to_string();
        let mut tries = 0;
        let stored = loop {
            match self.store_sealed_tokens(&kept, Some(&ours.owner)).await {
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
            return Ok(FreshToken {
                token: Arc::new(token),
                usable_until: usable_until(integration, asked_at, expires_at),
                extra_fields: kept
                    .extra_fields
                    .unwrap_or_else(|| connection.extra_fields.clone()),
            });
        }
        // The connection ended or was replaced during the call: its tokens must not be used.
        let current = match self.load(connection.id).await {
            Ok(current) => current,
            // The connection may still exist, so its tokens must not be revoked at the provider.
            Err(error) => {
                error.log("loading a connection after a refresh");
                return Err(unavailable("The portal's database is busy."));
            }
        };
        let usable = current
            .as_ref()
            .and_then(|loaded| self.stored_token_if(loaded, is_usable));
        let is_active = |loaded: &LoadedConnection| loaded.connection.state == State::Active;
        if !current.as_ref().is_some_and(is_active)
            && let Some(orphan) = refresh_token
        {
            self.revocations
                .revoke_orphan(
                    &ours.loaded.connection,
                    integration,
                    &ours.loaded.secrets,
                    RevokedTokens {
                        access: Some(&answer.access()),
                        refresh: Some(&orphan),
                    },
                )
                .await;
        }
        usable.ok_or(NoToken::Gone)
    }

    /// Compare-and-swap on the generation; `false` if the generation or the state has changed.
    async fn store_sealed_tokens(
        &self,
        kept: &SealedTokens,
        owner: Option<&str>,
    ) -> Result<bool, Error> {
        let (kept, owner) = (kept.clone(), owner.map(str::to_owned));
        // Changes no subject: no cached decision depends on the token itself, and an exchange that
        // finds its cached token expired asks the broker.
        self.core
            .store
            .write(move |db| {
                let kept = kept.clone();
                let owner = owner.clone();
                let (access, refresh) = (Sealed(kept.access), kept.refresh.map(Sealed));
                let new = RefreshedTokens {
                    access: &access,
                    refresh: refresh.as_ref(),
                    access_expires_at: kept.access_expires_at,
                    lapses_at: kept.lapses_at,
                    extra_fields: kept.extra_fields.as_ref(),
                    now: kept.asked_at,
                };
                let stored =
                    connections::store_refreshed(db, kept.connection, kept.generation, &new)?;
                if stored {
                    leases::delete_refresh_attempt(db, kept.connection)?;
                }
                if let Some(owner) = owner {
                    leases::release(db, &leases::connection_lease_name(kept.connection), &owner)?;
                }
                Ok(stored)
            })
            .await
    }

    /// Writes the sealed tokens to the spool, so that they survive a restart.
    fn spool(&self, name: &str, kept: &SealedTokens) {
        let text = serde_json::to_string(kept).unwrap_or_default();
        match self.nodes.spool().map(|spool| spool.put(name, &text)) {
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

    /// Deletes the tokens from the spool after they were committed.
    fn unspool(&self, name: &str) {
        if let Some(Err(error)) = self.nodes.spool().map(|spool| spool.remove(name)) {
            tracing::warn!(connection = name, %error, "the spool could not be cleared; the next start does it");
        }
    }

    /// Commits tokens that an earlier process of this node left in the spool. Called before
    /// serving. The error is a sentence for the operator.
    pub async fn drain_spool(&self) -> Result<(), String> {
        let Some(spool) = self.nodes.spool() else {
            return Ok(());
        };
        for (name, text) in spool
            .entries()
            .map_err(|error| format!("cannot read the spool: {error}"))?
        {
            // Those of new connections: `new_connections`.
            if new_connections::is_entry(&name) {
                continue;
            }
            // One that cannot be read is dropped.
            if let Ok(kept) = serde_json::from_str(&text) {
                self.store_spooled(&name, kept).await?;
            }
            spool
                .remove(&name)
                .map_err(|error| format!("cannot clear the spool: {error}"))?;
        }
        Ok(())
    }

    /// Commits the tokens of one entry of the spool, unless they are of no use any more.
    async fn store_spooled(&self, name: &str, kept: SealedTokens) -> Result<(), String> {
        let loaded = self
            .load(kept.connection)
            .await
            .map_err(|error| format!("cannot look at what the spool is for: {error}"))?;
        // Ended, or replaced by newer tokens, since they were put into the spool.
        let current = loaded.filter(|loaded| loaded.connection.generation == kept.generation);
        let Some(loaded) = current else {
            return Ok(());
        };
        let sealed = Sealed(kept.access.clone());
        if self
            .open_token(&loaded.connection, "access_token", &sealed)
            .is_err()
        {
            // The key that sealed these tokens was retired while this node was down.
            let why = "the spool's key is gone";
            self.mark_needs_login(&loaded, Cause::RotationLost, why, None)
                .await;
            return Ok(());
        }
        let stored = self
            .store_sealed_tokens(&kept, None)
            .await
            .map_err(|error| format!("cannot store what the spool holds: {error}"))?;
        tracing::warn!(connection = name, stored, "tokens from the spool");
        Ok(())
    }

    /// Moves a connection to [`State::NeedsLogin`], with its audit record, and releases the lease.
    /// Does nothing to a connection whose generation or state has changed.
    async fn mark_needs_login(
        &self,
        loaded: &LoadedConnection,
        cause: Cause,
        why: impl std::fmt::Display,
        owner: Option<&str>,
    ) {
        let LoadedConnection {
            connection,
            integration,
            ..
        } = loaded;
        let (id, generation, person, now) = (
            connection.id,
            connection.generation,
            connection.person,
            self.core.now(),
        );
        let (subject, detail) = (
            integration.display_name().to_owned(),
            format!("{}: {why}", cause.as_str()),
        );
        let owner = owner.map(str::to_owned);
        let ended = self
            .core
            .store
            .write(move |db| {
                let detail = detail.clone();
                let owner = owner.clone();
                let subject = subject.clone();
                let integration_name = subject.clone();
                if let Some(owner) = owner {
                    leases::release(db, &leases::connection_lease_name(id), &owner)?;
                }
                let current = connections::find(db, id)?.map(|(current, _)| current);
                let Some(current) = current.filter(|current| {
                    current.generation == generation && current.state == State::Active
                }) else {
                    return Ok(());
                };
                leases::delete_refresh_attempt(db, id)?;
                connections::save_state(db, &current.require_login(cause, now))?;
                let name = people::find(db, person)?
                    .map(|person| person.username)
                    .unwrap_or_default();
                notify(db, &needs_viewer(&integration_name, person, id, now), now)?;
                let action = if cause == Cause::AccountChanged {
                    Action::AccountChanged
                } else {
                    Action::ConnectionNeedsLogin
                };
                let line = Event::by_portal(now, action, subject, detail);
                record(
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
        if let Err(error) = ended {
            tracing::error!(reason = %error, connection = %id, "could not mark a connection as needing its viewer");
        }
    }
}

/// The notice to a viewer that content cannot act for them any more; once a day.
fn needs_viewer(
    integration: &str,
    person: Id<Person>,
    connection: Id<Connection>,
    now: Timestamp,
) -> Notice {
    Notice {
        kind: Kind::ConnectionNeedsViewer,
        person: Some(person),
        title: format!("{integration} asks you to sign in again"),
        body: format!(
            "Content that acts for you at {integration} cannot do so until you sign in there again: open the content, or the page below."
        ),
        path: "/consents".into(),
        once: Some(format!(
            "connection_needs_viewer {connection} {}",
            now.day()
        )),
    }
}

/// New tokens, sealed, on their way to the database. The spool holds them as JSON.
#[derive(Clone, Serialize, Deserialize)]
struct SealedTokens {
    connection: Id<Connection>,
    /// The generation of the tokens that these replace.
    generation: i64,
    access: String,
    refresh: Option<String>,
    access_expires_at: Option<Timestamp>,
    lapses_at: Option<Timestamp>,
    #[serde(default)]
    extra_fields: Option<BTreeMap<String, String>>,
    asked_at: Timestamp,
}

/// Awaits `work` with a timeout that counts only time in which this process runs: a suspended
/// process still receives the answer when it resumes. `None` on timeout.
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

/// A temporary failure, to be retried after 5 s.
fn unavailable(sentence: &str) -> NoToken {
    NoToken::Unavailable {
        retry_after: Duration::from_secs(5),
        sentence: sentence.into(),
    }
}

/// Whether responses say when their refresh token ends.
fn has_stated_end(profile: &Profile) -> bool {
    matches!(profile.refresh_token_life, RefreshTokenLife::Stated(_))
}

/// When the provider will ask the viewer to sign in again, as far as that is known: the earlier of
/// its limit on disuse and its limit on the age of a connection.
pub(in crate::service) fn lapses_at(
    integration: &Integration,
    connected_at: Timestamp,
    now: Timestamp,
) -> Option<Timestamp> {
    let days = |days: u64| Duration::from_secs(days * 86_400);
    let unused = match providers::profile(integration).refresh_token_life {
        RefreshTokenLife::Sliding(sliding) => Some(now.plus(days(sliding))),
        RefreshTokenLife::Fixed(fixed) => Some(connected_at.plus(days(fixed))),
        RefreshTokenLife::Unknown | RefreshTokenLife::Stated(_) => None,
    };
    let latest = providers::max_sign_in_lifetime(integration).map(|life| connected_at.plus(life));
    unused.into_iter().chain(latest).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_in_time_is_returned_and_a_late_one_times_out() {
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
