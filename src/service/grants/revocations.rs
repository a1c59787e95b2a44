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
    oauth::{RevocationRequest, errors::ErrorCode},
    providers,
    service::{
        core::{Actor, Core, record, require},
        error::Error,
        grants::{clients::OauthClients, end_reason::EndReason},
    },
    store::{
        Db,
        connections::{self, Tokens},
        content,
        integrations::{self, Secrets},
        people, revocations,
    },
    vault::{Sealed, Vault, labels},
};
use secrecy::SecretString;
use std::{sync::Arc, time::Duration};

/// Base of the exponential backoff: the pause after the n-th failed try is 2^n times this.
const BACKOFF_BASE: Duration = Duration::from_secs(10);
/// Upper limit of the backoff.
const MAX_BACKOFF: Duration = Duration::from_secs(3600);
/// Tries before giving up: 8 pauses of 20 s to 43 min, then one try an hour, about 32 h in all.
const MAX_TRIES: i64 = 40;
/// How long a claimed row is reserved for the node that claimed it.
const CLAIM_LIFETIME: Duration = Duration::from_secs(180);
/// Rows claimed, and provider calls made, at the same time.
const MAX_CONCURRENT_REVOCATIONS: i64 = 20;
/// Connections ended in one transaction.
const MAX_ENDS_PER_TRANSACTION: usize = 100;

/// The token to revoke when a connection ends.
pub(in crate::service) enum KnownTokens {
    Token(SecretString),
    /// There is no token.
    None,
    /// The stored token does not decrypt.
    Unreadable,
}

/// The tombstone of a connection, ready to be stored: with the sealed request to the provider, if
/// one can be made.
pub(in crate::service) struct Tombstone {
    revocation: Revocation,
    request: Option<Sealed>,
}

impl Tombstone {
    /// Prepares the tombstone. `token` is the one that the provider is to revoke.
    pub fn new(
        core: &Core,
        clients: &OauthClients,
        connection: &Connection,
        integration: &Integration,
        secrets: &Secrets,
        token: &KnownTokens,
        why: &EndReason,
    ) -> Result<Self, Error> {
        let id = Id::random();
        let registration = clients.registration(integration, secrets);
        let request = match (&registration, token) {
            (Ok(registration), KnownTokens::Token(token)) => registration.revocation(token),
            _ => None,
        };
        // There was a token, but no request to revoke it can be made.
        let token_is_lost = matches!(token, KnownTokens::Unreadable)
            || (matches!(token, KnownTokens::Token(_)) && registration.is_err());
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
}

impl Revocations {
    pub(in crate::service) fn new(core: Arc<Core>, clients: Arc<OauthClients>) -> Self {
        Self { core, clients }
    }

    /// The token to revoke: the refresh token, else the access token.
    fn token_to_revoke(&self, connection: &Connection, tokens: &Tokens) -> KnownTokens {
        let row = labels::connection_row(connection.id, connection.person, connection.integration);
        let (column, sealed) = match (&tokens.refresh, &tokens.access) {
            (Some(sealed), _) => ("refresh_token", sealed),
            (None, Some(sealed)) => ("access_token", sealed),
            (None, None) => return KnownTokens::None,
        };
        // A token that does not decrypt cannot be revoked; it is deleted all the same.
        self.core
            .vault
            .open(labels::connection_token(column, &row), sealed)
            .map_or(KnownTokens::Unreadable, KnownTokens::Token)
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
        let token = self.token_to_revoke(connection, tokens);
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

    /// Up to 100 connections: does nothing and returns 0; the caller ends them in its own
    /// transaction. More: ends all of them, 100 a transaction so that a writer is never held for
    /// long, and returns how many. Call it before that transaction.
    ///
    /// The connections of an integration are first made unusable in one statement, after which no
    /// exchange succeeds on any node; after a crash the rest stay so, and end when the action is
    /// repeated.
    pub(in crate::service) async fn end_large_batch(
        self: &Arc<Self>,
        scope: EndScope,
        why: &EndReason,
    ) -> Result<usize, Error> {
        let now = why.now;
        let all = self
            .core
            .store
            .read(move |db| Ok::<_, Error>(scope.connections(db)?))
            .await?;
        if all.len() <= MAX_ENDS_PER_TRANSACTION {
            return Ok(0);
        }
        self.core
            .store
            .write(move |db| Ok::<_, Error>(scope.make_unusable(db, now)?))
            .await?;
        for batch in all.chunks(MAX_ENDS_PER_TRANSACTION) {
            let (batch, service, why) = (
                batch
                    .iter()
                    .map(|connection| connection.id)
                    .collect::<Vec<_>>(),
                Arc::clone(self),
                why.clone(),
            );
            self.core
                .store
                .write(move |db| {
                    let batch = batch.clone();
                    for id in batch {
                        if let Some((connection, tokens)) = connections::find(db, id)? {
                            service.end_connection(db, &connection, &tokens, &why)?;
                        }
                    }
                    Ok::<_, Error>(())
                })
                .await?;
        }
        Ok(all.len())
    }

    /// Ends all connections of an integration; returns how many.
    pub(in crate::service) fn end_connections_of_integration(
        &self,
        db: &mut Db<'_>,
        id: Id<Integration>,
        why: &EndReason,
    ) -> Result<usize, Error> {
        let all = connections::of_integration(db, id)?;
        for connection in &all {
            if let Some((connection, tokens)) = connections::find(db, connection.id)? {
                self.end_connection(db, &connection, &tokens, why)?;
            }
        }
        Ok(all.len())
    }

    /// Ends all connections of a person; returns how many.
    pub(in crate::service) fn end_connections_of_person(
        &self,
        db: &mut Db<'_>,
        id: Id<Person>,
        why: &EndReason,
    ) -> Result<usize, Error> {
        let all = connections::of_person(db, id)?;
        for connection in &all {
            if let Some((connection, tokens)) = connections::find(db, connection.id)? {
                self.end_connection(db, &connection, &tokens, why)?;
            }
        }
        Ok(all.len())
    }

    /// Ends a connection's tokens by a rule, such as disuse: deletes and revokes them and moves the
    /// connection to [`State::NeedsLogin`], so that its viewer must sign in at the next use.
    /// Consents stay.
    pub async fn expire_connection(
        self: &Arc<Self>,
        id: Id<Connection>,
        cause: Cause,
    ) -> Result<(), Error> {
        let (service, why) = (
            Arc::clone(self),
            EndReason::of_portal(self.core.now(), cause.as_str()),
        );
        self.core
            .store
            .write(move |db| {
                let Some((connection, tokens)) = connections::find(db, id)? else {
                    return Ok(());
                };
                let integration =
                    integrations::find(db, connection.integration)?.ok_or(Error::NotFound)?;
                let secrets = integrations::secrets(db, integration.id)?;
                let token = service.token_to_revoke(&connection, &tokens);
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

    /// Ends one connection, all of a person, or all of an integration; returns how many.
    /// Administrators only. `reason` is free text for the audit record, cut to 200 characters.
    pub async fn disconnect_all(
        self: &Arc<Self>,
        actor: &Actor,
        scope: EndScope,
        reason: &str,
    ) -> Result<usize, Error> {
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
        let many = self.end_large_batch(scope, &why).await?;
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
                    service.end_connections_of_person(db, id, &why)
                }
                EndScope::Integration(id) => {
                    integrations::find(db, id)?.ok_or(Error::NotFound)?;
                    service.end_connections_of_integration(db, id, &why)
                }
            })
            .await?;
        self.spawn_revocations();
        Ok(many + ended)
    }

    /// A person's connections. Administrators only.
    pub async fn connections_of(
        &self,
        actor: &Actor,
        id: Id<Person>,
    ) -> Result<Vec<(Connection, Integration)>, Error> {
        require(
            access::may_end_connections(actor.role),
            "Only administrators see the connections of others.",
        )?;
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
        let recorded = why.clone();
        self.core
            .store
            .write(move |db| {
                let item = content::find(db, id)?.ok_or(Error::NotFound)?;
                let ended = end_consents_of_content(db, &item, &[], &why)?;
                Ok((ended, item))
            })
            .await
            .map(|(ended, item)| {
                let count = ended.count();
                ended.record_in_background(&self.core, &item, &recorded);
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

    /// Starts [`Self::send_due_revocations`] in a separate task.
    pub(in crate::service) fn spawn_revocations(self: &Arc<Self>) {
        let service = Arc::clone(self);
        self.core.tasks.spawn_on(
            async move { service.send_due_revocations().await },
            &self.core.runtime,
        );
    }

    /// Sends the revocation requests that are due. Safe on several nodes at once: a row is claimed
    /// before it is sent.
    pub async fn send_due_revocations(self: &Arc<Self>) {
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
                    )?)
                })
                .await;
            let due = match due {
                Ok(due) => due,
                Err(error) => return error.log("finding revocations that are due"),
            };
            let last =
                due.len() < usize::try_from(MAX_CONCURRENT_REVOCATIONS).unwrap_or(usize::MAX);
            let telling = due
                .into_iter()
                .map(|(revocation, request)| self.send_revocation(revocation, request));
            futures_util::future::join_all(telling).await;
            if last {
                return;
            }
        }
    }

    /// Sends one revocation request and stores the outcome, or when to try again. A request that
    /// does not decrypt is given up.
    async fn send_revocation(&self, mut revocation: Revocation, request: Option<Sealed>) {
        let outcome =
            match request.and_then(|sealed| open_request(&self.core.vault, &revocation, &sealed)) {
                Some(request) => request
                    .send(&self.core.http)
                    .await
                    .map_err(|failure| failure.error_code),
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
    }
}

/// Consents that were ended together.
pub(in crate::service) struct EndedConsents {
    count: usize,
    /// Those without an audit record of their own yet.
    unrecorded: Vec<Consent>,
}

impl EndedConsents {
    pub(in crate::service) fn count(&self) -> usize {
        self.count
    }

    /// Writes the missing audit records, a few at a time, so that nobody else waits for them.
    pub(in crate::service) fn record_in_background(
        self,
        core: &Arc<Core>,
        item: &Content,
        why: &EndReason,
    ) {
        if self.unrecorded.is_empty() {
            return;
        }
        let (core, item, why) = (Arc::clone(core), item.clone(), why.clone());
        let (tasks, runtime) = (core.tasks.clone(), core.runtime.clone());
        let recording = async move {
            for batch in self.unrecorded.chunks(MAX_ENDS_PER_TRANSACTION) {
                let (batch, item, why) = (batch.to_vec(), item.clone(), why.clone());
                let written = core
                    .store
                    .write(move |db| {
                        batch
                            .iter()
                            .try_for_each(|consent| record_end(db, consent, &item, &why))
                    })
                    .await;
                if let Err(error) = written {
                    error.log("recording ended consents");
                }
            }
        };
        tasks.spawn_on(recording, &runtime);
    }
}

/// Ends the consents for an item, except those for the integrations `kept`. Takes effect with one
/// statement for each integration. Of more than [`MAX_ENDS_PER_TRANSACTION`], one record counts
/// them here, and [`EndedConsents::record_in_background`] names them one by one after the commit.
pub(in crate::service) fn end_consents_of_content(
    db: &mut Db<'_>,
    item: &Content,
    kept: &[Id<Integration>],
    why: &EndReason,
) -> Result<EndedConsents, Error> {
    let ended = connections::delete_consents_of_content(db, item.id, kept)?;
    let count = ended.len();
    if count <= MAX_ENDS_PER_TRANSACTION {
        for consent in &ended {
            record_end(db, consent, item, why)?;
        }
        return Ok(EndedConsents {
            count,
            unrecorded: Vec::new(),
        });
    }
    let detail = format!("{count} consents; {}", why.reason);
    record(
        db,
        &why.event(Action::ConsentRevoked, item.display_title(), detail),
    )?;
    Ok(EndedConsents {
        count,
        unrecorded: ended,
    })
}

/// Ends one consent, with its audit record.
fn end_consent(
    db: &mut Db<'_>,
    consent: &Consent,
    item: &Content,
    why: &EndReason,
) -> Result<(), Error> {
    connections::delete_consent(db, consent.id)?;
    record_end(db, consent, item, why)
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

/// Ends those of `consents` whose person may no longer open the item; returns how many. Call it
/// wherever access is taken away.
pub(in crate::service) fn end_lost_consents(
    db: &mut Db<'_>,
    consents: Vec<Consent>,
    why: &EndReason,
) -> Result<usize, Error> {
    let mut ended = 0;
    for consent in consents {
        let (Some(item), Some(person)) = (
            content::find(db, consent.content)?,
            people::find(db, consent.person)?,
        ) else {
            continue;
        };
        let standing = access::standing(&item, &person, content::role_of(db, item.id, person.id)?);
        if access::may_open(standing) {
            continue;
        }
        end_consent(db, &consent, &item, why)?;
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
    fn connections(self, db: &mut Db<'_>) -> Result<Vec<Connection>, crate::store::Error> {
        match self {
            EndScope::One(id) => Ok(connections::find(db, id)?
                .map(|(connection, _)| connection)
                .into_iter()
                .collect()),
            EndScope::Person(id) => connections::of_person(db, id),
            EndScope::Integration(id) => connections::of_integration(db, id),
        }
    }
    /// Makes the connections unusable in one statement; their tokens stay until each is ended.
    fn make_unusable(self, db: &mut Db<'_>, now: Timestamp) -> Result<(), crate::store::Error> {
        match self {
            // A person has too few connections to need a mark.
            EndScope::One(_) | EndScope::Person(_) => Ok(()),
            EndScope::Integration(id) => connections::set_state_of_integration(
                db,
                id,
                State::NeedsLogin(Cause::RevokedByAdministrator),
                now,
            ),
        }
    }
}
