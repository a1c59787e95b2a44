//! One-time links: for the first administrator, for an invitation, and for a person whose sign-in
//! does not work. A link works once and for a limited time; only its hash is stored.

use crate::{
    domain::{
        Id, Timestamp, access,
        audit::{Action, Origin},
        person::{Person, Role},
    },
    service::{
        core::{Actor, Core, event, must_manage_people, record, require},
        error::Error,
        people::{
            accounts::{People, PersonInput, by_command_line},
            passwords::{Passwords, check_password},
        },
    },
    store::{people, sessions},
    vault::{api_key::digest, random},
};
use secrecy::SecretString;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// For the first administrator, and for links made at the command line.
const SETUP_LINK_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// For links that an administrator makes for a person.
const INVITATION_LIFETIME: Duration = Duration::from_secs(3 * 24 * 3600);

/// For whom a one-time link was made.
pub enum LinkHolder {
    FirstAdministrator,
    /// A person, and how many API keys they have.
    Person(Box<Person>, usize),
}

/// One-time links.
pub struct Invitations {
    core: Arc<Core>,
    people: Arc<People>,
    passwords: Arc<Passwords>,
    /// Somebody has an account: that never ends.
    has_people: AtomicBool,
}

impl Invitations {
    pub(in crate::service) fn new(
        core: Arc<Core>,
        people: Arc<People>,
        passwords: Arc<Passwords>,
    ) -> Self {
        Self {
            core,
            people,
            passwords,
            has_people: AtomicBool::default(),
        }
    }

    /// A new one-time link for the first administrator, which replaces an older one; `None` if
    /// anybody has an account. Returns the link's token, not its address.
    pub async fn setup_link(&self) -> Result<Option<SecretString>, Error> {
        let token = random::token();
        let (hash, expires_at) = (digest(&token), self.core.now().plus(SETUP_LINK_LIFETIME));
        let fresh = self
            .core
            .store
            .write(move |db| {
                let fresh = people::count(db)? == 0;
                if fresh {
                    people::set_setup_link(db, None, &hash, expires_at)?;
                }
                Ok::<_, Error>(fresh)
            })
            .await?;
        Ok(fresh.then(|| SecretString::from(token)))
    }

    /// A new one-time link by which a person sets a password; it replaces an older one. Returns the
    /// link's token, not its address.
    pub async fn invite(
        &self,
        actor: &Actor,
        id: Id<Person>,
    ) -> Result<(Person, SecretString), Error> {
        require(
            access::may_manage_people(actor.role),
            "Only administrators invite people.",
        )?;
        let token = random::token();
        let (hash, now, actor) = (digest(&token), self.core.now(), actor.clone());
        let person = self
            .core
            .store
            .write(move |db| {
                let person = people::find(db, id)?.ok_or(Error::NotFound)?;
                people::set_setup_link(db, Some(id), &hash, now.plus(INVITATION_LIFETIME))?;
                record(
                    db,
                    &event(
                        &actor,
                        now,
                        Action::OneTimeLinkCreated,
                        person.username.clone(),
                        "",
                    ),
                )?;
                Ok::<_, Error>(person)
            })
            .await?;
        Ok((person, SecretString::from(token)))
    }

    /// When each person's one-time link ends or ended; people without one are missing.
    /// Administrators only.
    pub async fn links(&self, actor: &Actor) -> Result<HashMap<Id<Person>, Timestamp>, Error> {
        must_manage_people(actor)?;
        self.core
            .store
            .read(|db| Ok(people::setup_links(db)?))
            .await
    }

    /// When the one-time link of a person ends or ended; `None` without one.
    pub async fn link_of(
        &self,
        actor: &Actor,
        person: Id<Person>,
    ) -> Result<Option<Timestamp>, Error> {
        Ok(self.links(actor).await?.get(&person).copied())
    }

    /// Whether nobody has an account yet. Asks the database only until somebody has.
    pub async fn is_empty(&self) -> Result<bool, Error> {
        if self.has_people.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let count = self
            .core
            .store
            .read(|db| Ok::<_, Error>(people::count(db)?));
        let is_empty = count.await? == 0;
        self.has_people.store(!is_empty, Ordering::Relaxed);
        Ok(is_empty)
    }

    /// Like [`Self::invite`], without an access check: the way in for an operator when every
    /// other one fails.
    pub async fn invite_from_command_line(&self, username: &str) -> Result<SecretString, Error> {
        let token = random::token();
        let (hash, now, username) = (digest(&token), self.core.now(), username.to_owned());
        self.core
            .store
            .write(move |db| {
                let (person, _) = people::by_username(db, &username)?.ok_or(Error::NotFound)?;
                people::set_setup_link(db, Some(person.id), &hash, now.plus(SETUP_LINK_LIFETIME))?;
                record(
                    db,
                    &by_command_line(
                        now,
                        Action::OneTimeLinkCreated,
                        person.username,
                        String::new(),
                    ),
                )
            })
            .await?;
        Ok(SecretString::from(token))
    }

    /// For whom a one-time link was made; `NotFound` if it is unknown, used or expired.
    pub async fn link_holder(&self, token: &str) -> Result<LinkHolder, Error> {
        let (hash, now) = (digest(token), self.core.now());
        self.core
            .store
            .read(move |db| match people::setup_link(db, &hash, now)? {
                None => Err(Error::NotFound),
                Some(people::SetupLink::FirstAdministrator) => Ok(LinkHolder::FirstAdministrator),
                Some(people::SetupLink::Person(person)) => {
                    let keys = people::keys(db, person)?.len();
                    let person = people::find(db, person)?.filter(|person| !person.locked);
                    person
                        .map(|person| LinkHolder::Person(Box::new(person), keys))
                        .ok_or(Error::NotFound)
                }
            })
            .await
    }

    /// Creates the first administrator and consumes the link.
    pub async fn complete_setup(&self, token: &str, input: PersonInput) -> Result<Person, Error> {
        if !matches!(
            self.link_holder(token).await?,
            LinkHolder::FirstAdministrator
        ) {
            return Err(Error::NotFound);
        }
        let person = self
            .people
            .insert_first(PersonInput {
                role: Some(Role::Administrator),
                ..input
            })
            .await?
            .ok_or(Error::NotFound)?;
        self.consume_link(token).await?;
        Ok(person)
    }

    /// Sets the password of the link's person and consumes the link; the person's browser sessions
    /// end, and with `end_keys` their API keys.
    pub async fn accept_invitation(
        &self,
        token: &str,
        new: SecretString,
        end_keys: bool,
        origin: &Origin,
    ) -> Result<Person, Error> {
        let LinkHolder::Person(person, _) = self.link_holder(token).await? else {
            return Err(Error::NotFound);
        };
        if let Some(problem) = check_password(&new) {
            return Err(Error::Invalid(vec![problem]));
        }
        let hash = self.passwords.hash(new).await?;
        let link = digest(token);
        let now = self.core.now();
        let actor = Actor {
            role: person.role,
            person: *person,
            session: None,
            origin: origin.clone(),
        };
        self.core
            .store
            .write(move |db| {
                // In the same transaction: a failure must not use the link up.
                if !people::redeem_setup_link(db, &link, now)? {
                    return Err(Error::NotFound);
                }
                let actor = actor.clone();
                people::set_password(db, actor.person.id, &hash)?;
                people::set_active(db, actor.person.id, now)?;
                sessions::delete_all_of_person(db, actor.person.id, None)?;
                let mut detail = "by a one-time link".to_owned();
                if end_keys {
                    let ended = people::delete_keys_of(db, actor.person.id)?;
                    detail = format!("{detail}; {ended} API key(s) deleted");
                }
                record(
                    db,
                    &event(
                        &actor,
                        now,
                        Action::PasswordChanged,
                        actor.person.username.clone(),
                        detail,
                    ),
                )?;
                Ok(actor.person)
            })
            .await
    }

    /// Consumes the link atomically: of two concurrent requests one gets `NotFound`.
    async fn consume_link(&self, token: &str) -> Result<(), Error> {
        let (hash, now) = (digest(token), self.core.now());
        let taken = self
            .core
            .store
            .write(move |db| Ok::<_, Error>(people::redeem_setup_link(db, &hash, now)?))
            .await?;
        if taken { Ok(()) } else { Err(Error::NotFound) }
    }
}
