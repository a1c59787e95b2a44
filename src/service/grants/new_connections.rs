//! New connections on their way to the database: the tokens of an authorization that succeeded.
//!
//! The code is used up, so its tokens must not be lost because the database is busy: the commit is
//! tried until it succeeds, in a task of its own, and after three failures the sealed tokens are in
//! the spool (`vault::spool`), from where the next start takes them. Whether the person may have the
//! connection is decided in the transaction that stores it.

use crate::{
    domain::{
        Id,
        audit::{Action, Origin},
        connection::{Connection, State},
        content::Content,
        integration::Integration,
    },
    oauth::RevokedTokens,
    service::{
        cluster::node::Nodes,
        core::{Actor, Core, event, record},
        error::Error,
        grants::{consents::give_consent, revocations::Revocations},
    },
    store::{
        Db,
        connections::{self, Tokens},
        emergency,
        integrations::{self, Secrets},
        people,
    },
    vault::{Sealed, Vault, labels},
};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use tokio::time::{sleep, timeout};

/// How long the browser waits for the commit, which goes on without it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Failed commits before the tokens are also written to the spool.
const TRIES_BEFORE_SPOOL: u32 = 3;
/// Longest pause between two tries.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// The names of entries in the spool begin with it.
const ENTRY_PREFIX: &str = "new ";

/// Whether an entry of the spool is a new connection.
pub(in crate::service) fn is_entry(name: &str) -> bool {
    name.starts_with(ENTRY_PREFIX)
}

/// What the database said of the person's connection there when the new one was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::service) enum Seen {
    /// There was none.
    Nothing,
    /// It is the one that is replaced.
    Connection,
    /// The database did not answer.
    NotAsked,
}

/// A connection that is not stored yet. The spool holds it as JSON.
#[derive(Clone, Serialize, Deserialize)]
pub(in crate::service) struct NewConnection {
    pub connection: Connection,
    /// Sealed.
    pub access_token: Option<String>,
    /// Sealed.
    pub refresh_token: Option<String>,
    /// The item that asked: its consent is stored with the connection.
    pub content: Option<Id<Content>>,
    /// Of the integration when the browser was sent away.
    pub endpoint_version: i64,
    pub seen: Seen,
    /// For the audit record.
    pub address: String,
    pub correlation: String,
}

impl NewConnection {
    pub fn new(
        actor: &Actor,
        connection: Connection,
        tokens: Tokens,
        content: Option<Id<Content>>,
        endpoint_version: i64,
        seen: Seen,
    ) -> Self {
        Self {
            connection,
            access_token: tokens.access.map(|sealed| sealed.0),
            refresh_token: tokens.refresh.map(|sealed| sealed.0),
            content,
            endpoint_version,
            seen,
            address: actor.origin.address.clone(),
            correlation: actor.origin.correlation.clone(),
        }
    }
}

/// The provider and the tokens to revoke there, if the connection may not be stored.
pub(in crate::service) struct Issued {
    pub integration: Integration,
    pub secrets: Secrets,
    pub access: SecretString,
    pub refresh: Option<SecretString>,
}

/// Stores new connections.
pub struct NewConnections {
    core: Arc<Core>,
    nodes: Arc<Nodes>,
    revocations: Arc<Revocations>,
}

impl NewConnections {
    pub(in crate::service) fn new(
        core: Arc<Core>,
        nodes: Arc<Nodes>,
        revocations: Arc<Revocations>,
    ) -> Self {
        Self {
            core,
            nodes,
            revocations,
        }
    }

    /// Stores a new connection with its consent; `false` if the database does not take it within
    /// ten seconds: then it is stored later. `NotFound` if the person was locked, the integration
    /// changed or the connection that it replaces ended, since the browser was sent away, or if it
    /// would silently replace one of another account: then the tokens are revoked.
    pub(in crate::service) async fn store(
        self: &Arc<Self>,
        new: NewConnection,
        issued: Issued,
    ) -> Result<bool, Error> {
        let this = Arc::clone(self);
        let storing = async move { this.store_until_done(&new, &issued).await };
        let task = self.core.tasks.spawn_on(storing, &self.core.runtime);
        match timeout(PATIENCE, task).await {
            Ok(Ok(outcome)) => outcome.map(|()| true),
            Ok(Err(_)) => Err(Error::Internal("a background task ended early")),
            Err(_) => Ok(false),
        }
    }

    async fn store_until_done(
        self: &Arc<Self>,
        new: &NewConnection,
        issued: &Issued,
    ) -> Result<(), Error> {
        let name = format!("{ENTRY_PREFIX}{}", new.connection.id);
        let mut tries = 0;
        let outcome = loop {
            match self.try_to_store(new).await {
                Err(error) if error.is_busy() => {
                    tries += 1;
                    tracing::warn!(tries, reason = %error, "a new connection could not be stored; trying again");
                    if tries == TRIES_BEFORE_SPOOL {
                        self.spool(&name, new);
                    }
                    sleep(MAX_PAUSE.min(Duration::from_millis(100 << tries.min(10)))).await;
                }
                outcome => break outcome,
            }
        };
        if tries >= TRIES_BEFORE_SPOOL
            && let Some(Err(error)) = self.nodes.spool().map(|spool| spool.remove(&name))
        {
            tracing::warn!(%error, "the spool could not be cleared; the next start does it");
        }
        if matches!(outcome, Err(Error::NotFound)) {
            self.revocations
                .revoke_orphan(
                    &new.connection,
                    &issued.integration,
                    &issued.secrets,
                    RevokedTokens {
                        access: Some(&issued.access),
                        refresh: issued.refresh.as_ref(),
                    },
                )
                .await;
        }
        outcome
    }

    async fn try_to_store(&self, new: &NewConnection) -> Result<(), Error> {
        let (new, core) = (new.clone(), Arc::clone(&self.core));
        self.core
            .store
            .write(move |db| put(db, &core.vault, &new))
            .await
    }

    fn spool(&self, name: &str, new: &NewConnection) {
        let text = serde_json::to_string(new).unwrap_or_default();
        match self.nodes.spool().map(|spool| spool.put(name, &text)) {
            Some(Ok(true)) => tracing::warn!(
                "the tokens of a new connection are kept in the spool until the database takes them"
            ),
            Some(Ok(false)) | None => tracing::error!(
                "the spool has no room: the tokens of a new connection are in memory only"
            ),
            Some(Err(error)) => {
                tracing::error!(%error, "the spool failed: the tokens of a new connection are in memory only");
            }
        }
    }

    /// Stores the connections that an earlier process of this node left in the spool. Called before
    /// serving. The error is a sentence for the operator.
    pub async fn drain_spool(&self) -> Result<(), String> {
        let Some(spool) = self.nodes.spool() else {
            return Ok(());
        };
        let entries = spool
            .entries()
            .map_err(|error| format!("cannot read the spool: {error}"))?;
        for (name, text) in entries.into_iter().filter(|(name, _)| is_entry(name)) {
            match serde_json::from_str::<NewConnection>(&text) {
                Ok(new) if self.opens(&new) => match self.try_to_store(&new).await {
                    Err(error) if error.is_busy() => {
                        return Err(format!("cannot store what the spool holds: {error}"));
                    }
                    Err(error) => {
                        tracing::warn!(reason = %error, "a new connection from the spool cannot be stored, and is dropped");
                        self.revoke_dropped(&new).await;
                    }
                    Ok(()) => tracing::warn!("stored a new connection from the spool"),
                },
                _ => tracing::warn!("an entry of the spool cannot be read, and is dropped"),
            }
            spool
                .remove(&name)
                .map_err(|error| format!("cannot clear the spool: {error}"))?;
        }
        Ok(())
    }

    /// Has the provider told that tokens from the spool are not kept. A failure is only logged.
    async fn revoke_dropped(&self, new: &NewConnection) {
        let id = new.connection.integration;
        let found = self.core.store.read(move |db| {
            let secrets = integrations::secrets(db, id)?;
            Ok::<_, Error>(integrations::find(db, id)?.map(|found| (found, secrets)))
        });
        let opened = |column, sealed: &Option<String>| {
            let opened = open(&self.core.vault, &new.connection, column, sealed.clone()?);
            opened.ok()
        };
        let access = opened("access_token", &new.access_token);
        let refresh = opened("refresh_token", &new.refresh_token);
        match found.await {
            Ok(Some((integration, secrets))) => {
                let tokens = RevokedTokens {
                    access: access.as_ref(),
                    refresh: refresh.as_ref(),
                };
                self.revocations
                    .revoke_orphan(&new.connection, &integration, &secrets, tokens)
                    .await;
            }
            Ok(None) => {}
            Err(error) => error.log("the provider of tokens that are not kept"),
        }
    }

    /// Whether the keyring still has the key that sealed the tokens.
    fn opens(&self, new: &NewConnection) -> bool {
        let sealed = new.access_token.clone();
        sealed.is_some_and(|sealed| {
            open(&self.core.vault, &new.connection, "access_token", sealed).is_ok()
        })
    }
}

/// Opens a token that was sealed for this connection.
fn open(
    vault: &Vault,
    connection: &Connection,
    column: &str,
    sealed: String,
) -> Result<SecretString, Error> {
    let row = labels::connection_row(connection.id, connection.person, connection.integration);
    Ok(vault.open(labels::connection_token(column, &row), &Sealed(sealed))?)
}

/// The tokens, sealed for the connection in which they are stored.
fn tokens_for(
    vault: &Vault,
    connection: &Connection,
    new: &NewConnection,
) -> Result<Tokens, Error> {
    let row = labels::connection_row(connection.id, connection.person, connection.integration);
    let moved = |column, sealed: &Option<String>| {
        let Some(sealed) = sealed.clone() else {
            return Ok(None);
        };
        if connection.id == new.connection.id {
            return Ok(Some(Sealed(sealed)));
        }
        let token = open(vault, &new.connection, column, sealed)?;
        let sealed = vault.seal(labels::connection_token(column, &row), &token)?;
        Ok::<_, Error>(Some(sealed))
    };
    Ok(Tokens {
        access: moved("access_token", &new.access_token)?,
        refresh: moved("refresh_token", &new.refresh_token)?,
    })
}

/// Stores a connection and its tokens; and, unless the viewer must confirm the account first, the
/// consent that was asked for.
fn put(db: &mut Db<'_>, vault: &Vault, new: &NewConnection) -> Result<(), Error> {
    let wanted = &new.connection;
    // An administrator may have locked the person, or changed the integration's addresses or scopes,
    // during the provider call.
    let person = people::find(db, wanted.person)?.ok_or(Error::NotFound)?;
    let integration = integrations::find(db, wanted.integration)?.ok_or(Error::NotFound)?;
    if person.locked || integration.endpoint_version != new.endpoint_version {
        return Err(Error::NotFound);
    }
    if emergency::ended_at(db)?.is_some_and(|end| wanted.connected_at <= end) {
        return Err(Error::NotFound);
    }
    let known = connections::find_of(db, wanted.person, wanted.integration)?;
    let known = known.map(|(known, _)| known);
    if let Some(known) = &known {
        if known.connected_at > wanted.connected_at {
            // The viewer has connected once more since these tokens went into the spool.
            return Ok(());
        }
        // Tokens of another account never replace a connection silently; the database did not answer
        // when that was to be found out.
        if new.seen == Seen::NotAsked
            && known.state != State::Unconfirmed
            && wanted.account.certainly_differs_from(&known.account)
        {
            return Err(Error::NotFound);
        }
    } else if new.seen == Seen::Connection {
        // What these tokens were to renew was ended since.
        return Err(Error::NotFound);
    }
    // A refresh may have committed since the connection was read: its tokens must not be taken for
    // these.
    let generation = known.as_ref().map_or(0, |known| known.generation) + 1;
    let (id, created_at) = known.map_or((wanted.id, wanted.created_at), |known| {
        (known.id, known.created_at)
    });
    let connection = Connection {
        id,
        created_at,
        generation: generation.max(wanted.generation),
        ..wanted.clone()
    };
    let tokens = tokens_for(vault, &connection, new)?;
    connections::put(db, &connection, &tokens)?;
    if connection.state == State::Unconfirmed {
        return Ok(());
    }
    let actor = Actor {
        role: person.role,
        person,
        session: None,
        origin: Origin {
            address: new.address.clone(),
            correlation: new.correlation.clone(),
        },
    };
    let now = connection.connected_at;
    let detail = format!("as {}", connection.account.name());
    let name = integration.display_name();
    record(db, &event(&actor, now, Action::Connected, name, detail))?;
    let Some(item) = new.content else {
        return Ok(());
    };
    match give_consent(db, &actor, item, connection.integration, now) {
        // The item is gone or no longer open to the viewer: keep the connection, without a consent.
        Ok(()) | Err(Error::NotFound) => Ok(()),
        Err(error) => Err(error),
    }
}
