//! Revocations: how connections and consents end. One transaction deletes the tokens and consents
//! and writes a tombstone (a [`Revocation`], with the sealed request to the provider), so that no
//! exchange succeeds on any node from the commit on. Afterwards the provider's revocation endpoint
//! is called (RFC 7009), with retries.
//!
//! Local deletion never depends on the provider: some offer no revocation (Microsoft Entra ID), and
//! it may be down.

use crate::{
    domain::{
        Id, Timestamp, access,
        audit::{Action, Event},
        connection::{Cause, Connection, State},
        consent::Consent,
        content::Content,
        integration::Integration,
        person::Person,
        revocation::{ProviderNotice, Revocation},
    },
    measures,
    oauth::{
        RevocationRequest, RevokedTokens,
        errors::{self, ErrorCode},
    },
    providers,
    service::{
        core::{Actor, Core, record, require},
        error::Error,
        grants::{clients::OauthClients, end_reason::EndReason},
    },
    store::{
        Db,
        connections::{self, EndingOf, Tokens},
        content,
        integrations::{self, Secrets},
        people, revocations,
    },
    vault::{Sealed, Vault, labels},
};
use secrecy::SecretString;
use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// Base of the exponential backoff: the pause after the n-th failed try is 2^n times this.
const BACKOFF_BASE: Duration = Duration::from_secs(10);
/// Upper limit of the backoff.
const MAX_BACKOFF: Duration = Duration::from_secs(3600);
/// Tries before giving up: 8 pauses of 20 s to 43 min, then one try an hour, about 32 h in all.
const MAX_TRIES: i64 = 40;
/// How long a claimed row is reserved for the node that claimed it.
const CLAIM_LIFETIME: Duration = Duration::from_secs(180);
/// Rows claimed, and provider calls made, at the same time.
const MAX_CONCURRENT_REVOCATIONS: usize = 20;
/// Those of one integration.
const MAX_CONCURRENT_PER_INTEGRATION: usize = 5;
/// Deadline of one provider call.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections ended in one transaction.
const MAX_ENDS_PER_TRANSACTION: u16 = 100;
/// After this time the leader ends what was marked and is still there.
const INTERRUPTED_AFTER: Duration = Duration::from_secs(60);

/// Tries to write the audit records of ended consents.
const MAX_RECORD_TRIES: u32 = 5;

/// The tokens to revoke when a connection ends.
enum KnownTokens {
    /// One of them at least.
    Some {
        access: Option<SecretString>,
        refresh: Option<SecretString>,
    },
    /// There is no token.
    None,
    /// The stored tokens do not decrypt.
    Unreadable,
}

/// The tombstone of a connection, ready to be stored: with the sealed request to the provider, if
/// one can be made.
struct Tombstone {
    revocation: Revocation,
    request: Option<Sealed>,
}

impl Tombstone {
    /// Prepares the tombstone. `tokens` are those that the provider is to revoke.
    pub fn new(
        core: &Core,
        clients: &OauthClients,
        connection: &Connection,
        integration: &Integration,
        secrets: &Secrets,
        tokens: &KnownTokens,
        why: &EndReason,
    ) -> Result<Self, Error> {
        let id = Id::random();
        let registration = clients.registration(integration, secrets);
        let request = match (&registration, tokens) {
            (Ok(registration), KnownTokens::Some { access, refresh }) => {
                registration.revocation(&RevokedTokens {
                    access: access.as_ref(),
                    refresh: refresh.as_ref(),
                })
            }
            _ => None,
        };
        // There was a token, but no request to revoke it can be made.
        let token_is_lost = matches!(tokens, KnownTokens::Unreadable)
            || (matches!(tokens, KnownTokens::Some { .. }) && registration.is_err());
        let row = id.to_string();
        let sealed = request
            .map(|request| {
                core.vault
                    .seal(labels::revocation_request(&row), &request.to_text())
            })
            .transpose()?;
        let offers_revocation =
            providers::endpoints(integration).is_some_and(|endpoints| endpoints.revoke.is_some());
        let revocation = Revocation {
            id,
            person: connection.person,
            // `record` fills it in: it has the database.
            person_name: String::new(),
            integration: integration.id,
            integration_name: integration.display_name().to_owned(),
            provider: providers::names(integration).provider,
            account: connection.account.label.clone(),
            correlation: why.correlation.clone(),
            notice: match (&sealed, offers_revocation) {
                (Some(_), _) => ProviderNotice::Waiting,
                (None, true) if token_is_lost => ProviderNotice::GivenUp,
                // There was no token: nothing to tell.
                (None, true) => ProviderNotice::Told,
                (None, false) => ProviderNotice::NotOffered,
            },
            tries: 0,
            next_at: why.now,
            ended_at: why.now,
            told_at: None,
        };
        Ok(Self {
            revocation,
            request: sealed,
        })
    }

    /// Stores the tombstone; [`Revocations::send_due_revocations`] sends the request.
    pub fn record(&self, db: &mut Db<'_>) -> Result<(), Error> {
        let mut revocation = self.revocation.clone();
        if let Some(person) = people::find(db, revocation.person)? {
            revocation.person_name = person.username;
        }
        Ok(revocations::insert(db, &revocation, self.request.as_ref())?)
    }
}

/// Ends connections and tells their providers.
pub struct Revocations {
    core: Arc<Core>,
    clients: Arc<OauthClients>,
    /// How often the sending of due requests was asked for and not yet done.
    wanted: AtomicUsize,
}

impl Revocations {
    pub(in crate::service) fn new(core: Arc<Core>, clients: Arc<OauthClients>) -> Self {
        Self {
            core,
            clients,
            wanted: AtomicUsize::new(0),
        }
    }

    /// The tokens to revoke. Those that do not decrypt cannot be revoked; they are deleted all the
    /// same.
    fn tokens_to_revoke(&self, connection: &Connection, tokens: &Tokens) -> KnownTokens {
        let row = labels::connection_row(connection.id, connection.person, connection.integration);
        let open = |column: &str, sealed: &Option<Sealed>| {
            let label = labels::connection_token(column, &row);
            let vault = &self.core.vault;
            sealed
                .as_ref()
                .and_then(|sealed| vault.open(label, sealed).ok())
        };
        if tokens.access.is_none() && tokens.refresh.is_none() {
            return KnownTokens::None;
        }
        let refresh = open("refresh_token", &tokens.refresh);
        // An access token alone would not end what a refresh token keeps alive.
        if tokens.refresh.is_some() && refresh.is_none() {
            return KnownTokens::Unreadable;
        }
        match (open("access_token", &tokens.access), refresh) {
            (None, None) => KnownTokens::Unreadable,
            (access, refresh) => KnownTokens::Some { access, refresh },
        }
    }

    /// Ends one connection inside the caller's transaction: deletes tokens and consents, stores the
    /// tombstone, writes the audit record. Call [`Self::spawn_revocations`] after the commit.
    pub(in crate::service) fn end_connection(
        &self,
        db: &mut Db<'_>,
        connection: &Connection,
        tokens: &Tokens,
        why: &EndReason,
    ) -> Result<(), Error> {
        let integration = integrations::find(db, connection.integration)?.ok_or(Error::NotFound)?;
        let secrets = integrations::secrets(db, integration.id)?;
        let token = self.tokens_to_revoke(connection, tokens);
        let owner = people::find(db, connection.person)?
            .map(|person| person.username)
            .unwrap_or_default();
        let consents =
            connections::delete_consents_of_connection(db, connection.person, integration.id)?;
        connections::delete(db, connection.id)?;
        Tombstone::new(
            &self.core,
            &self.clients,
            connection,
            &integration,
            &secrets,
            &token,
            why,
        )?
        .record(db)?;
        let own = why.actor == Some(connection.person);
        let whose = if own {
            String::new()
        } else {
            format!("of {owner}; ")
        };
        let reason = if why.reason.is_empty() {
            String::new()
        } else {
            format!("; {}", why.reason)
        };
        let detail = format!("{whose}{consents} consent(s) ended{reason}");
        record(
            db,
            &why.event(Action::Disconnected, integration.display_name(), detail),
        )
    }

    /// Ends connections if there are more than [`MAX_ENDS_PER_TRANSACTION`]; returns how many, 0 if
    /// the caller is to end them in its own transaction.
    ///
    /// One transaction runs `check`, which may refuse, and makes all connections unusable with one
    /// statement: after it no exchange succeeds on any node. Then they are ended in batches, so that
    /// no other write waits for long. Run it in [`Core::run_for`]: it takes a while, and is not to
    /// stop with its caller. After a crash the leader finishes it
    /// ([`Self::finish_interrupted_endings`]).
    pub(in crate::service) async fn end_many(
        self: &Arc<Self>,
        which: EndingOf,
        why: &EndReason,
        check: impl Fn(&mut Db<'_>) -> Result<(), Error> + Send + 'static,
    ) -> Result<usize, Error> {
        let now = why.now;
        let marked = self
            .core
            .store
            .write(move |db| {
                if connections::count(db, which)? <= i64::from(MAX_ENDS_PER_TRANSACTION) {
                    return Ok(0);
                }
                check(db)?;
                let cause = Cause::RevokedByAdministrator;
                Ok::<_, Error>(connections::mark_ending(db, which, cause, now)?)
            })
            .await?;
        if marked > 0 {
            self.end_marked(which, why).await?;
        }
        Ok(marked)
    }

    /// Ends the connections that are marked, in batches.
    async fn end_marked(self: &Arc<Self>, which: EndingOf, why: &EndReason) -> Result<(), Error> {
        loop {
            let batch = self
                .core
                .store
                .read(move |db| {
                    let most = i64::from(MAX_ENDS_PER_TRANSACTION);
                    Ok::<_, Error>(connections::ending(db, which, most)?)
                })
                .await?;
            if batch.is_empty() {
                return Ok(());
            }
            let (service, why) = (Arc::clone(self), why.clone());
            self.core
                .store
                .write(move |db| {
                    for id in &batch {
                        if let Some((connection, tokens)) = connections::find(db, *id)?
                            && connections::is_ending(db, *id)?
                        {
                            service.end_connection(db, &connection, &tokens, &why)?;
                        }
                    }
                    Ok::<_, Error>(())
                })
                .await?;
        }
    }

    /// How many connections of an integration are unusable and still to be deleted.
    pub async fn connections_ending(&self, id: Id<Integration>) -> Result<i64, Error> {
        self.core
            .store
            .read(move |db| Ok(connections::count_ending(db, EndingOf::Integration(id))?))
            .await
    }

    /// Ends the connections that a process left marked when it ended.
    pub async fn finish_interrupted_endings(self: &Arc<Self>) -> Result<(), Error> {
        let now = self.core.now();
        let left = self
            .core
            .store
            .read(move |db| {
                let before = now.minus(INTERRUPTED_AFTER);
                Ok::<_, Error>(connections::integrations_ending(db, before)?)
            })
            .await?;
        for integration in left {
            let why = EndReason::of_portal(now, "an ending that was interrupted");
            self.end_marked(EndingOf::Integration(integration), &why)
                .await?;
            self.spawn_revocations();
        }
        Ok(())
    }

    /// Ends these connections in the caller's transaction; returns how many. Call
    /// [`Self::end_many`] before: it ends many in batches.
    pub(in crate::service) fn end_all(
        &self,
        db: &mut Db<'_>,
        which: EndingOf,
        why: &EndReason,
    ) -> Result<usize, Error> {
        let all = connections::ids(db, which)?;
        for id in &all {
            if let Some((connection, tokens)) = connections::find(db, *id)? {
                self.end_connection(db, &connection, &tokens, why)?;
            }
        }
        Ok(all.len())
    }

    /// Queues the revocation, at the provider, of a token whose connection ended, or could not be
    /// made, before the token arrived.
    pub(in crate::service) async fn revoke_orphan(
        self: &Arc<Self>,
        connection: &Connection,
        integration: &Integration,
        secrets: &Secrets,
        tokens: RevokedTokens<'_>,
    ) {
        let why = EndReason::of_portal(self.core.now(), "a token that arrived after the end");
        let Ok(ended) = Tombstone::new(
            &self.core,
            &self.clients,
            connection,
            integration,
            secrets,
            &KnownTokens::Some {
                access: tokens.access.cloned(),
                refresh: tokens.refresh.cloned(),
            },
            &why,
        ) else {
            return;
        };
        let written = self.core.store.write(move |db| ended.record(db)).await;
        match written {
            Ok(()) => self.spawn_revocations(),
            Err(error) => {
                tracing::error!(reason = %error, "a token that arrived too late could not be ended at its provider");
            }
        }
    }

    /// Ends the tokens of a connection that was not used since `since`: deletes and revokes them and
    /// moves the connection to [`State::NeedsLogin`], so that its viewer must sign in at the next
    /// use. Consents stay.
    pub async fn expire_unused(
        self: &Arc<Self>,
        id: Id<Connection>,
        since: Timestamp,
    ) -> Result<(), Error> {
        let cause = Cause::Unused;
        let (service, why) = (
            Arc::clone(self),
            EndReason::of_portal(self.core.now(), cause.as_str()),
        );
        self.core
            .store
            .write(move |db| {
                // It may have been used, or connected again, since it was found.
                let Some((connection, tokens)) = connections::find(db, id)?.filter(|(found, _)| {
                    let used_at = found.used_at.unwrap_or(found.connected_at);
                    found.state == State::Active && used_at < since
                }) else {
                    return Ok(());
                };
                let integration =
                    integrations::find(db, connection.integration)?.ok_or(Error::NotFound)?;
                let secrets = integrations::secrets(db, integration.id)?;
                let token = service.tokens_to_revoke(&connection, &tokens);
                connections::save_state(db, &connection.clone().require_login(cause, why.now))?;
                Tombstone::new(
                    &service.core,
                    &service.clients,
                    &connection,
                    &integration,
                    &secrets,
                    &token,
                    &why,
                )?
                .record(db)?;
                let owner = people::find(db, connection.person)?
                    .map(|person| person.username)
                    .unwrap_or_default();
                let detail = format!("{}: of {owner}", cause.as_str());
                record(
                    db,
                    &why.event(
                        Action::ConnectionNeedsLogin,
                        integration.display_name(),
                        detail,
                    ),
                )
            })
            .await?;
        self.spawn_revocations();
        Ok(())
    }

    /// Ends a connection whose account has been unconfirmed since before `since`.
    pub async fn end_unconfirmed(
        self: &Arc<Self>,
        id: Id<Connection>,
        since: Timestamp,
    ) -> Result<(), Error> {
        let (service, why) = (
            Arc::clone(self),
            EndReason::of_portal(self.core.now(), "its account was never confirmed"),
        );
        self.core
            .store
            .write(move |db| {
                let is_due = |connection: &Connection| {
                    connection.state == State::Unconfirmed && connection.state_at < since
                };
                match connections::find(db, id)? {
                    Some((connection, tokens)) if is_due(&connection) => {
                        service.end_connection(db, &connection, &tokens, &why)
                    }
                    _ => Ok(()),
                }
            })
            .await?;
        self.spawn_revocations();
        Ok(())
    }

    /// Ends one connection, all of a person, or all of an integration; returns how many, `None` if
    /// that takes longer than `patience` and goes on in the background. Administrators only. `reason` is free text for the audit
    /// record, cut to 200 characters.
    pub async fn disconnect_all(
        self: &Arc<Self>,
        actor: &Actor,
        scope: EndScope,
        reason: &str,
        patience: Duration,
    ) -> Result<Option<usize>, Error> {
        require(
            access::may_end_connections(actor.role),
            "Only administrators end the connections of others.",
        )?;
        let reason: String = reason
            .trim()
            .chars()
            .filter(|letter| !letter.is_control())
            .take(200)
            .collect();
        let reason = if reason.is_empty() {
            "by an administrator".to_owned()
        } else {
            format!("by an administrator: {reason}")
        };
        let (service, why) = (
            Arc::clone(self),
            EndReason::of(actor, self.core.now(), reason),
        );
        let ending = async move { service.disconnect(scope, why).await };
        self.core.run_for(patience, ending).await
    }

    async fn disconnect(self: &Arc<Self>, scope: EndScope, why: EndReason) -> Result<usize, Error> {
        let many = match scope.all() {
            Some(which) => self.end_many(which, &why, |_| Ok(())).await?,
            None => 0,
        };
        let service = Arc::clone(self);
        let ended = self
            .core
            .store
            .write(move |db| match scope {
                EndScope::One(id) => {
                    let (connection, tokens) = connections::find(db, id)?.ok_or(Error::NotFound)?;
                    service.end_connection(db, &connection, &tokens, &why)?;
                    Ok(1)
                }
                EndScope::Person(id) => {
                    people::find(db, id)?.ok_or(Error::NotFound)?;
                    service.end_all(db, EndingOf::Person(id), &why)
                }
                EndScope::Integration(id) => {
                    integrations::find(db, id)?.ok_or(Error::NotFound)?;
                    service.end_all(db, EndingOf::Integration(id), &why)
                }
            })
            .await?;
        self.spawn_revocations();
        Ok(many + ended)
    }

    /// Ends all connections of an integration, whoever asks; returns how many.
    pub(in crate::service) async fn end_of_integration(
        self: &Arc<Self>,
        id: Id<Integration>,
        why: EndReason,
    ) -> Result<usize, Error> {
        self.disconnect(EndScope::Integration(id), why).await
    }

    /// A person's connections. Administrators only.
    pub async fn connections_of(
        &self,
        actor: &Actor,
        id: Id<Person>,
    ) -> Result<Vec<(Connection, Integration)>, Error> {
        must_see_connections(actor)?;
        self.core
            .store
            .read(move |db| {
                let mut rows = Vec::new();
                for connection in connections::of_person(db, id)? {
                    if let Some(integration) = integrations::find(db, connection.integration)? {
                        rows.push((connection, integration));
                    }
                }
                Ok(rows)
            })
            .await
    }

    /// The connections through an integration, with their people. Administrators only.
    pub async fn connections_through(
        &self,
        actor: &Actor,
        id: Id<Integration>,
    ) -> Result<Vec<(Connection, Person)>, Error> {
        must_see_connections(actor)?;
        self.core
            .store
            .read(move |db| {
                let mut people = people::by_id(db)?;
                let rows = connections::of_integration(db, id)?
                    .into_iter()
                    .filter_map(|connection| {
                        // One connection a person.
                        let person = people.remove(&connection.person)?;
                        Some((connection, person))
                    })
                    .collect();
                Ok(rows)
            })
            .await
    }

    /// Ends every viewer's consent for a content item; returns how many. Connections stay.
    /// Administrators only.
    pub async fn revoke_consents_of_content(
        &self,
        actor: &Actor,
        id: Id<Content>,
    ) -> Result<usize, Error> {
        require(
            access::may_end_connections(actor.role),
            "Only administrators end the consents of others.",
        )?;
        let why = EndReason::of(actor, self.core.now(), "by an administrator");
        self.core
            .store
            .write(move |db| {
                let item = content::find(db, id)?.ok_or(Error::NotFound)?;
                end_consents_of_content(db, &item, &[], &why)
            })
            .await
            .map(|ended| {
                let count = ended.count();
                ended.record_in_background(&self.core);
                count
            })
    }

    /// The actor's ten most recently ended connections.
    pub async fn recent_revocations(&self, actor: &Actor) -> Result<Vec<Revocation>, Error> {
        let person = actor.person.id;
        self.core
            .store
            .read(move |db| Ok(revocations::of_person(db, person, 10)?))
            .await
    }

    /// Starts [`Self::send_due_revocations`] in a task, unless it runs already on this node: then it
    /// looks once more.
    pub fn spawn_revocations(self: &Arc<Self>) {
        if self.wanted.fetch_add(1, Ordering::AcqRel) > 0 {
            return;
        }
        let service = Arc::clone(self);
        let sending = async move {
            loop {
                let wanted = service.wanted.load(Ordering::Acquire);
                service.send_due_revocations().await;
                // Asked again meanwhile?
                if service.wanted.fetch_sub(wanted, Ordering::AcqRel) == wanted {
                    return;
                }
            }
        };
        self.core.tasks.spawn_on(sending, &self.core.runtime);
    }

    /// Sends the revocation requests that are due. Safe on several nodes at once: a row is claimed
    /// before it is sent. One provider that hangs takes few places, and is asked again later.
    async fn send_due_revocations(self: &Arc<Self>) {
        loop {
            let now = self.core.now();
            let due = self
                .core
                .store
                .write(move |db| {
                    Ok::<_, Error>(revocations::claim_due(
                        db,
                        now,
                        now.plus(CLAIM_LIFETIME),
                        MAX_CONCURRENT_REVOCATIONS,
                        MAX_CONCURRENT_PER_INTEGRATION,
                    )?)
                })
                .await;
            let due = match due {
                Ok(due) => due,
                Err(error) => return error.log("finding revocations that are due"),
            };
            if due.is_empty() {
                return;
            }
            let telling = due.into_iter().map(async |(revocation, request)| {
                let integration = revocation.integration;
                let is_told = self.send_revocation(revocation, request).await;
                (integration, is_told)
            });
            let told = futures_util::future::join_all(telling).await;
            let failed = told.iter().filter(|(_, is_told)| !is_told);
            for integration in failed.map(|(id, _)| *id).collect::<HashSet<_>>() {
                self.postpone_revocations(integration).await;
            }
        }
    }

    /// Postpones the requests to a provider that just failed.
    async fn postpone_revocations(&self, integration: Id<Integration>) {
        let now = self.core.now();
        let postponed = self
            .core
            .store
            .write(move |db| {
                let until = now.plus(BACKOFF_BASE * 2);
                Ok::<_, Error>(revocations::postpone(db, integration, now, until)?)
            })
            .await;
        if let Err(error) = postponed {
            error.log("postponing revocations");
        }
    }

    /// Whether the person has a new connection there, whose tokens belong to the same grant at the
    /// provider. In doubt they have.
    async fn has_connected_again(&self, ended: &Revocation) -> bool {
        let (person, integration) = (ended.person, ended.integration);
        let found = self
            .core
            .store
            .read(move |db| Ok::<_, Error>(connections::find_of(db, person, integration)?))
            .await;
        found.map_or(true, |found| found.is_some())
    }

    /// Sends one revocation request and stores the outcome, or when to try again. A request that
    /// does not decrypt is given up.
    ///
    /// `true` unless the provider is to be asked again.
    async fn send_revocation(&self, mut revocation: Revocation, request: Option<Sealed>) -> bool {
        let outcome = match request
            .and_then(|sealed| open_request(&self.core.vault, &revocation, &sealed))
        {
            Some(mut request) => {
                if request.ends_whole_grant() && self.has_connected_again(&revocation).await {
                    request.spare_other_tokens();
                }
                let asked = Instant::now();
                let sending = tokio::time::timeout(REQUEST_TIMEOUT, request.send(&self.core.http));
                let sent = sending.await;
                let how = sent.as_ref().map_or("wait", errors::outcome);
                let integration = &revocation.integration;
                measures::provider_request(integration, "revoke", how, asked.elapsed());
                match sent {
                    Ok(sent) => sent.map_err(|failure| failure.error_code),
                    Err(_) => Err(ErrorCode::TemporarilyUnavailable),
                }
            }
            None => Err(ErrorCode::Unreadable),
        };
        let now = self.core.now();
        revocation.tries += 1;
        let tries = revocation.tries;
        let failure = match outcome {
            Ok(()) => {
                (revocation.notice, revocation.told_at) = (ProviderNotice::Told, Some(now));
                String::new()
            }
            Err(error_code) => {
                let pause = BACKOFF_BASE
                    .saturating_mul(1 << revocation.tries.clamp(0, 20))
                    .min(MAX_BACKOFF);
                revocation.next_at = now.plus(pause);
                let hopeless = error_code == ErrorCode::Unreadable || revocation.tries >= MAX_TRIES;
                revocation.notice = if hopeless {
                    ProviderNotice::GivenUp
                } else {
                    ProviderNotice::Waiting
                };
                tracing::warn!(
                    %error_code,
                    tries,
                    "a provider could not be told of an end; the tokens are deleted here all the same"
                );
                format!("; {error_code}; try {tries}")
            }
        };
        let action = if revocation.notice == ProviderNotice::Told {
            Action::ProviderTold
        } else {
            Action::ProviderNotTold
        };
        let detail = format!("connection of {}{failure}", revocation.person_name);
        let event = Event {
            correlation: revocation.correlation.clone(),
            ..Event::by_portal(now, action, revocation.integration_name.clone(), detail)
        };
        let is_settled = revocation.notice != ProviderNotice::Waiting;
        // Only the first failure and the final outcome get an audit record: one per retry would
        // flood it.
        let worth_it = revocation.notice != ProviderNotice::Waiting || revocation.tries == 1;
        let written = self
            .core
            .store
            .write(move |db| {
                revocations::update(db, &revocation)?;
                if worth_it { record(db, &event) } else { Ok(()) }
            })
            .await;
        if let Err(error) = written {
            tracing::warn!(reason = %error, "could not write down what a provider was told; it is told again");
        }
        is_settled
    }
}

/// Consents that were ended together.
#[must_use = "record the rest after the commit"]
pub(in crate::service) struct EndedConsents {
    count: usize,
    /// Those without an audit record of their own yet.
    unrecorded: Vec<(Consent, Content)>,
    why: EndReason,
}

impl EndedConsents {
    pub(in crate::service) fn count(&self) -> usize {
        self.count
    }

    /// Writes the missing audit records, a few at a time, so that nobody else waits for them. Call
    /// it after the commit.
    pub(in crate::service) fn record_in_background(self, core: &Arc<Core>) {
        if self.unrecorded.is_empty() {
            return;
        }
        let (tasks, runtime) = (core.tasks.clone(), core.runtime.clone());
        let core = Arc::clone(core);
        let recording = async move {
            for batch in self.unrecorded.chunks(MAX_ENDS_PER_TRANSACTION.into()) {
                for tries in 1..=MAX_RECORD_TRIES {
                    let (batch, why) = (batch.to_vec(), self.why.clone());
                    let written = core
                        .store
                        .write(move |db| {
                            batch
                                .iter()
                                .try_for_each(|(consent, item)| record_end(db, consent, item, &why))
                        })
                        .await;
                    match written {
                        Ok(()) => break,
                        Err(error) => error.log("recording ended consents"),
                    }
                    tokio::time::sleep(Duration::from_secs(1) * tries).await;
                }
            }
        };
        tasks.spawn_on(recording, &runtime);
    }
}

/// Ends the consents for an item, except those for the integrations `kept`. Takes effect with one
/// statement for each integration.
pub(in crate::service) fn end_consents_of_content(
    db: &mut Db<'_>,
    item: &Content,
    kept: &[Id<Integration>],
    why: &EndReason,
) -> Result<EndedConsents, Error> {
    let ended = connections::delete_consents_of_content(db, item.id, kept)?;
    let ended = ended
        .into_iter()
        .map(|consent| (consent, item.clone()))
        .collect();
    record_or_count(db, ended, why)
}

/// Refuses unless the actor may see, and so end, the connections of others.
fn must_see_connections(actor: &Actor) -> Result<(), Error> {
    require(
        access::may_end_connections(actor.role),
        "Only administrators see the connections of others.",
    )
}

/// Records the end of consents: of up to [`MAX_ENDS_PER_TRANSACTION`] one by one; of more, one
/// record counts them, and [`EndedConsents::record_in_background`] names them after the commit.
fn record_or_count(
    db: &mut Db<'_>,
    ended: Vec<(Consent, Content)>,
    why: &EndReason,
) -> Result<EndedConsents, Error> {
    let mut all = EndedConsents {
        count: ended.len(),
        unrecorded: Vec::new(),
        why: why.clone(),
    };
    if ended.len() <= usize::from(MAX_ENDS_PER_TRANSACTION) {
        for (consent, item) in &ended {
            record_end(db, consent, item, why)?;
        }
        return Ok(all);
    }
    let detail = format!("{} consents; {}", all.count, why.reason);
    let items: HashSet<Id<Content>> = ended.iter().map(|(_, item)| item.id).collect();
    let subject = match (ended.first(), items.len()) {
        (Some((_, item)), 1) => item.display_title().to_owned(),
        (_, number) => format!("{number} content items"),
    };
    record(db, &why.event(Action::ConsentRevoked, &subject, detail))?;
    all.unrecorded = ended;
    Ok(all)
}

/// The audit record of one ended consent.
fn record_end(
    db: &mut Db<'_>,
    consent: &Consent,
    item: &Content,
    why: &EndReason,
) -> Result<(), Error> {
    let owner = people::find(db, consent.person)?
        .map(|person| person.username)
        .unwrap_or_default();
    record(
        db,
        &why.event(
            Action::ConsentRevoked,
            item.display_title(),
            format!("of {owner}; {}", why.reason),
        ),
    )
}

/// Ends the consents for these items of people who may no longer open them. Call it wherever access
/// is taken from many people. It reads and deletes with a few statements for each item, however many
/// people consented.
pub(in crate::service) fn end_lost_consents(
    db: &mut Db<'_>,
    items: &[Id<Content>],
    why: &EndReason,
) -> Result<EndedConsents, Error> {
    let mut all = Vec::new();
    for id in items {
        let Some(item) = content::find(db, *id)? else {
            continue;
        };
        let (people, roles) = (people::who_consented(db, *id)?, content::roles_at(db, *id)?);
        let mut lost = connections::consents_of_content(db, *id)?;
        lost.retain(|consent| {
            let may_open = people.get(&consent.person).is_some_and(|person| {
                let role = roles.get(&person.id).copied();
                access::may_open(access::standing(&item, person, role))
            });
            !may_open
        });
        connections::delete_consents(db, *id, &lost)?;
        all.extend(lost.into_iter().map(|consent| (consent, item.clone())));
    }
    record_or_count(db, all, why)
}

/// Ends a person's consents for items that the person may no longer open; returns how many. Call it
/// wherever access is taken from one person.
pub(in crate::service) fn end_lost_consents_of(
    db: &mut Db<'_>,
    person: &Person,
    why: &EndReason,
) -> Result<usize, Error> {
    let mut ended = 0;
    for consent in connections::consents_of_person(db, person.id)? {
        let Some(item) = content::find(db, consent.content)? else {
            continue;
        };
        let standing = access::standing(&item, person, content::role_of(db, item.id, person.id)?);
        if access::may_open(standing) {
            continue;
        }
        connections::delete_consent(db, consent.id)?;
        record_end(db, &consent, &item, why)?;
        ended += 1;
    }
    Ok(ended)
}

/// The decrypted request; `None` if it does not decrypt or parse.
fn open_request(
    vault: &Vault,
    revocation: &Revocation,
    sealed: &Sealed,
) -> Option<RevocationRequest> {
    let row = revocation.id.to_string();
    let text = vault
        .open(labels::revocation_request(&row), sealed)
        .inspect_err(|error| tracing::error!(reason = %error, "sealed value"))
        .ok()?;
    RevocationRequest::from_text(&text)
}

/// The connections that one action ends.
#[derive(Clone, Copy, Debug)]
pub enum EndScope {
    One(Id<Connection>),
    Person(Id<Person>),
    Integration(Id<Integration>),
}

impl EndScope {
    /// All connections of somebody or something; `None` for one connection.
    fn all(self) -> Option<EndingOf> {
        match self {
            EndScope::One(_) => None,
            EndScope::Person(id) => Some(EndingOf::Person(id)),
            EndScope::Integration(id) => Some(EndingOf::Integration(id)),
        }
    }
}
