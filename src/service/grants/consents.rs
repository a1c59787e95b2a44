//! Consents and connections: how their viewer lists, gives, confirms and ends them.
//!
//! A consent is one viewer's permission for one content item to use one connection. Ending a
//! consent keeps the connection; ending a connection ends its consents.

use crate::{
    domain::{
        Id, Timestamp, access,
        audit::Action,
        connection::{Account, Connection, IdentityVerdict, State},
        consent::{Consent, sorted_scopes},
        content::Content,
        integration::{AuthType, Integration},
        notice::{Kind, Notice},
        person::Person,
    },
    service::{
        core::{Actor, Core, event, record, require},
        error::Error,
        grants::{end_reason::EndReason, revocations::Revocations, usage::Usage},
        notifying::notices::notify,
    },
    store::{Db, connections, content, integrations, people},
};
use std::{collections::BTreeMap, sync::Arc};

/// A connection, its integration, and the consents on it.
#[derive(Clone, Debug)]
pub struct Overview {
    pub connection: Connection,
    pub integration: Integration,
    pub consents: Vec<ConsentedContent>,
}

/// A consent with its content item and the item's owner.
#[derive(Clone, Debug)]
pub struct ConsentedContent {
    pub consent: Consent,
    pub content: Content,
    pub owner: Person,
}

/// What a viewer's consent led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    Given,
    /// There is no active connection whose account is accepted.
    NeedsSignIn,
    /// The integration no longer asks for what the viewer was shown.
    AskAgain,
}

/// Consents and connections of a viewer.
pub struct Consents {
    core: Arc<Core>,
    usage: Arc<Usage>,
    revocations: Arc<Revocations>,
}

impl Consents {
    pub(in crate::service) fn new(
        core: Arc<Core>,
        usage: Arc<Usage>,
        revocations: Arc<Revocations>,
    ) -> Self {
        Self {
            core,
            usage,
            revocations,
        }
    }

    /// The actor's connections and consents.
    pub async fn consents(&self, actor: &Actor) -> Result<Vec<Overview>, Error> {
        let person = actor.person.id;
        self.usage.flush_uses_of(|uses| uses.person == person).await;
        self.core.store.read(move |db| overview(db, person)).await
    }

    /// One of the actor's own consents; `NotFound` for anybody else's.
    pub async fn consent(
        &self,
        actor: &Actor,
        id: Id<Consent>,
    ) -> Result<(ConsentedContent, Integration), Error> {
        let person = actor.person.id;
        self.core
            .store
            .read(move |db| {
                let consent = connections::consent(db, id)?
                    .filter(|consent| consent.person == person)
                    .ok_or(Error::NotFound)?;
                let integration =
                    integrations::find(db, consent.integration)?.ok_or(Error::NotFound)?;
                Ok((
                    consented_content(db, consent)?.ok_or(Error::NotFound)?,
                    integration,
                ))
            })
            .await
    }

    /// Ends the consent of one content item. The connection stays.
    pub async fn revoke_consent(
        &self,
        actor: &Actor,
        id: Id<Consent>,
    ) -> Result<(ConsentedContent, Integration), Error> {
        let found = self.consent(actor, id).await?;
        let (now, actor) = (self.core.now(), actor.clone());
        let (title, name) = (
            found.0.content.display_title().to_owned(),
            found.1.display_name().to_owned(),
        );
        self.core
            .store
            .write(move |db| {
                let name = name.clone();
                let title = title.clone();
                if !connections::delete_consent(db, id)? {
                    return Err(Error::NotFound);
                }
                record(db, &event(&actor, now, Action::ConsentRevoked, title, name))
            })
            .await?;
        Ok(found)
    }

    /// Ends several of the actor's own consents; returns how many. Consents that have ended already
    /// and those of other people are skipped.
    pub async fn revoke_many(&self, actor: &Actor, ids: Vec<Id<Consent>>) -> Result<usize, Error> {
        self.end_many(actor, ids, true).await
    }

    /// Ends several consents of anybody; returns how many. Administrators only.
    pub async fn end_consents_of_others(
        &self,
        actor: &Actor,
        ids: Vec<Id<Consent>>,
    ) -> Result<usize, Error> {
        require(
            access::may_end_connections(actor.role),
            "Only administrators end the consents of others.",
        )?;
        self.end_many(actor, ids, false).await
    }

    async fn end_many(
        &self,
        actor: &Actor,
        ids: Vec<Id<Consent>>,
        only_own: bool,
    ) -> Result<usize, Error> {
        let (now, actor) = (self.core.now(), actor.clone());
        self.core
            .store
            .write(move |db| {
                let mut ended = 0;
                for id in &ids {
                    let meant = connections::consent(db, *id)?
                        .filter(|consent| !only_own || consent.person == actor.person.id);
                    let Some(consent) = meant else { continue };
                    let title = content::find(db, consent.content)?
                        .map(|item| item.display_title().to_owned())
                        .unwrap_or_default();
                    let mut detail = integrations::find(db, consent.integration)?
                        .map(|found| found.display_name().to_owned())
                        .unwrap_or_default();
                    if consent.person != actor.person.id
                        && let Some(person) = people::find(db, consent.person)?
                    {
                        detail = format!("{detail}, of {}", person.username);
                    }
                    if connections::delete_consent(db, *id)? {
                        ended += 1;
                        let action = Action::ConsentRevoked;
                        record(db, &event(&actor, now, action, title, detail))?;
                    }
                }
                Ok(ended)
            })
            .await
    }

    /// One of the actor's own connections, with the consents on it.
    pub async fn connection(&self, actor: &Actor, id: Id<Connection>) -> Result<Overview, Error> {
        let all = self.consents(actor).await?;
        all.into_iter()
            .find(|overview| overview.connection.id == id)
            .ok_or(Error::NotFound)
    }

    /// Ends a connection and every consent on it; its viewer or an administrator may. From the
    /// commit of the tombstone on no exchange succeeds. The provider is told afterwards, if it
    /// offers revocation.
    pub async fn disconnect(
        self: &Arc<Self>,
        actor: &Actor,
        id: Id<Connection>,
    ) -> Result<Integration, Error> {
        let (actor, service) = (actor.clone(), Arc::clone(self));
        let why = EndReason::of(&actor, self.core.now(), "");
        let integration = self
            .core
            .store
            .write(move |db| {
                let (connection, tokens) = connections::find(db, id)?.ok_or(Error::NotFound)?;
                if connection.person != actor.person.id && !access::may_end_connections(actor.role)
                {
                    return Err(Error::NotFound);
                }
                let integration =
                    integrations::find(db, connection.integration)?.ok_or(Error::NotFound)?;
                service
                    .revocations
                    .end_connection(db, &connection, &tokens, &why)?;
                Ok(integration)
            })
            .await?;
        self.revocations.spawn_revocations();
        Ok(integration)
    }

    /// Connections, for the API: the actor's own, or with `all` everybody's (administrators only,
    /// else `Forbidden`).
    pub async fn connections_for_api(
        &self,
        actor: &Actor,
        all: bool,
    ) -> Result<Vec<Connection>, Error> {
        require(
            !all || access::may_end_connections(actor.role),
            "Only administrators list the sessions of others.",
        )?;
        let person = actor.person.id;
        self.core
            .store
            .read(move |db| {
                Ok(if all {
                    connections::all(db)?
                } else {
                    connections::of_person(db, person)?
                })
            })
            .await
    }

    /// One connection, for the API, which calls it a session. `NotFound` unless the actor owns it
    /// or is an administrator.
    pub async fn connection_for_api(
        &self,
        actor: &Actor,
        id: Id<Connection>,
    ) -> Result<Connection, Error> {
        let (person, administrator) = (actor.person.id, access::may_end_connections(actor.role));
        self.core
            .store
            .read(move |db| {
                let found = connections::find(db, id)?.map(|(connection, _)| connection);
                found
                    .filter(|connection| administrator || connection.person == person)
                    .ok_or(Error::NotFound)
            })
            .await
    }

    /// Gives a content item consent to use an existing connection: one click, no redirect.
    /// `shown_scopes` are those that the viewer was shown ([`sorted_scopes`]).
    pub async fn allow_content(
        &self,
        actor: &Actor,
        item: Id<Content>,
        integration: Id<Integration>,
        shown_scopes: &str,
    ) -> Result<Allowed, Error> {
        let shown_scopes = shown_scopes.to_owned();
        let (now, actor) = (self.core.now(), actor.clone());
        self.core
            .store
            .write(move |db| {
                let asked = integrations::find(db, integration)?.ok_or(Error::NotFound)?;
                if sorted_scopes(&asked) != shown_scopes {
                    return Ok(Allowed::AskAgain);
                }
                if asked.auth_type == AuthType::VisitorApiKey {
                    connect_to_this_portal(db, &actor, &asked, now)?;
                }
                let check = asked.identity_check;
                let live = connections::find_of(db, actor.person.id, integration)?.is_some_and(
                    |(connection, _)| {
                        connection.state == State::Active
                            && connection.account.verdict(&actor.person, check)
                                != IdentityVerdict::Refuse
                    },
                );
                if !live {
                    return Ok(Allowed::NeedsSignIn);
                }
                give_consent(db, &actor, item, integration, now)?;
                Ok(Allowed::Given)
            })
            .await
    }

    /// The viewer's decision on an unconfirmed connection: `keep` activates it and gives `item`
    /// consent, otherwise it is ended. `Forbidden` if the integration now requires the viewer's own
    /// account and this is another.
    pub async fn confirm_account(
        self: &Arc<Self>,
        actor: &Actor,
        id: Id<Connection>,
        keep: bool,
        item: Option<Id<Content>>,
    ) -> Result<Connection, Error> {
        let (now, actor, service) = (self.core.now(), actor.clone(), Arc::clone(self));
        let why = EndReason::of(&actor, now, "another account");
        let confirmed = self
            .core
            .store
            .write(move |db| {
                let found = connections::find(db, id)?;
                let (connection, tokens) = found
                    .filter(|(found, _)| {
                        found.person == actor.person.id && found.state == State::Unconfirmed
                    })
                    .ok_or(Error::NotFound)?;
                if !keep {
                    service
                        .revocations
                        .end_connection(db, &connection, &tokens, &why)?;
                    return Ok(connection);
                }
                let integration =
                    integrations::find(db, connection.integration)?.ok_or(Error::NotFound)?;
                if connection
                    .account
                    .verdict(&actor.person, integration.identity_check)
                    == IdentityVerdict::Refuse
                {
                    return Err(Error::Forbidden(
                        "This integration takes only your own account. Choose the other one.",
                    ));
                }
                let connection = connection.confirm(now).ok_or(Error::NotFound)?;
                connections::save_state(db, &connection)?;
                if let Some(item) = item {
                    give_consent(db, &actor, item, connection.integration, now)?;
                }
                let account = connection.account.label.clone().unwrap_or_default();
                record(
                    db,
                    &event(
                        &actor,
                        now,
                        Action::Connected,
                        integration.display_name(),
                        format!("as {account}, confirmed"),
                    ),
                )?;
                Ok(connection)
            })
            .await?;
        self.revocations.spawn_revocations();
        Ok(confirmed)
    }

    /// One of the actor's connections whose account is unconfirmed.
    pub async fn unconfirmed_connection(
        &self,
        actor: &Actor,
        id: Id<Connection>,
    ) -> Result<(Connection, Integration), Error> {
        let person = actor.person.id;
        self.core
            .store
            .read(move |db| {
                let found = connections::find(db, id)?.map(|(connection, _)| connection);
                let connection = found
                    .filter(|found| found.person == person && found.state == State::Unconfirmed)
                    .ok_or(Error::NotFound)?;
                let integration =
                    integrations::find(db, connection.integration)?.ok_or(Error::NotFound)?;
                Ok((connection, integration))
            })
            .await
    }
}

/// Stores a consent with its audit record. `NotFound` unless the person may open the item and the
/// item uses the integration now. An existing consent for the same scopes stays as it is.
pub(in crate::service) fn give_consent(
    db: &mut Db<'_>,
    actor: &Actor,
    item: Id<Content>,
    integration: Id<Integration>,
    now: Timestamp,
) -> Result<(), Error> {
    let found = content::find(db, item)?.ok_or(Error::NotFound)?;
    let standing = access::standing(
        &found,
        &actor.person,
        content::role_of(db, item, actor.person.id)?,
    );
    let attached = integrations::associations_of_content(db, item)?
        .iter()
        .any(|entry| entry.integration == integration);
    if !access::may_open(standing) || !attached {
        return Err(Error::NotFound);
    }
    let asked = integrations::find(db, integration)?.ok_or(Error::NotFound)?;
    let consent = Consent {
        id: Id::random(),
        person: actor.person.id,
        content: item,
        integration,
        scopes: sorted_scopes(&asked),
        created_at: now,
        last_used_at: None,
        uses: 0,
    };
    if connections::give_consent(db, &consent)? {
        let name = asked.display_name();
        let notice = Notice {
            kind: Kind::ConsentGiven,
            person: Some(actor.person.id),
            title: format!("You let {} act for you at {name}", found.display_title()),
            body: "Whenever you have it open, it may use your account there, within your own rights. You can take that back at any time. If it was not you who agreed, take it back and tell your administrator.".into(),
            path: "/consents".into(),
            once: None,
        };
        notify(db, &notice, now)?;
        record(
            db,
            &event(
                actor,
                now,
                Action::ConsentGiven,
                found.display_title(),
                name,
            ),
        )?;
    }
    Ok(())
}

/// A connection of a person to this portal itself: without tokens, so that it is listed and ended like
/// any other.
fn connect_to_this_portal(
    db: &mut Db<'_>,
    actor: &Actor,
    integration: &Integration,
    now: Timestamp,
) -> Result<(), Error> {
    let known = connections::find_of(db, actor.person.id, integration.id)?;
    if known.is_some_and(|(known, _)| known.state == State::Active) {
        return Ok(());
    }
    let connection = Connection {
        number: 0,
        id: Id::random(),
        person: actor.person.id,
        integration: integration.id,
        state: State::Active,
        account: Account {
            label: Some(actor.person.username.clone()),
            ..Account::default()
        },
        scopes: String::new(),
        extra_fields: BTreeMap::new(),
        has_refresh_token: false,
        access_expires_at: None,
        lapses_at: None,
        generation: 1,
        connected_at: now,
        created_at: now,
        updated_at: now,
        state_at: now,
        used_at: Some(now),
    };
    connections::put(db, &connection, &connections::Tokens::default())?;
    let name = integration.display_name();
    record(
        db,
        &event(actor, now, Action::Connected, name, "as oneself"),
    )
}

/// `None` if the content item no longer exists.
fn consented_content(db: &mut Db<'_>, consent: Consent) -> Result<Option<ConsentedContent>, Error> {
    let Some(content) = content::find(db, consent.content)? else {
        return Ok(None);
    };
    let owner = people::find(db, content.owner)?
        .ok_or(Error::Internal("a row that another row names is missing"))?;
    Ok(Some(ConsentedContent {
        consent,
        content,
        owner,
    }))
}

/// A person's connections with the consents on them.
fn overview(db: &mut Db<'_>, person: Id<Person>) -> Result<Vec<Overview>, Error> {
    let consents = connections::consents_of_person(db, person)?;
    let mut rows = Vec::new();
    let held = connections::of_person(db, person)?;
    for connection in held {
        let Some(integration) = integrations::find(db, connection.integration)? else {
            continue;
        };
        let mut uses = Vec::new();
        for consent in consents
            .iter()
            .filter(|consent| consent.integration == integration.id)
        {
            uses.extend(consented_content(db, consent.clone())?);
        }
        rows.push(Overview {
            connection,
            integration,
            consents: uses,
        });
    }
    Ok(rows)
}
