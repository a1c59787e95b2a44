//! People: accounts, roles, passwords, sign-in by password, one-time links, browser sessions. At
//! least one unlocked administrator always remains after a change here. Sign-in at the
//! organisation's identity provider is in `service::sign_in`.

use super::{Actor, Error, Service, event, invalid, record, revocations::EndReason};
use crate::{
    domain::{
        Id, Timestamp, access,
        audit::{Action, Event, Origin, Outcome},
        person::{Person, Role, Session, is_invisible},
    },
    providers::FieldError,
    store::{people, sessions},
    vault::{api_key::digest, password, random},
};
use secrecy::{ExposeSecret, SecretString};
use std::{sync::Arc, time::Duration};

/// For the first administrator, and for links made at the command line.
const SETUP_LINK_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// For links that an administrator makes for a person.
const INVITATION_LIFETIME: Duration = Duration::from_secs(3 * 24 * 3600);

/// For whom a one-time link was made.
pub enum LinkHolder {
    FirstAdministrator,
    Person(Box<Person>),
}

/// The typed values of a person. `None` keeps a value, or takes the default for a new person.
#[derive(Clone, Debug, Default)]
pub struct PersonInput {
    pub username: Option<String>,
    pub email: Option<String>,
    pub first_name: Option<String>,
    pub last_name: Option<String>,
    pub role: Option<Role>,
    pub password: Option<SecretString>,
}

impl Service {
    /// Checks user name and password. `Ok(None)` for a wrong password, an unknown name or a locked
    /// account, each after the same work. `TooMany`, before any work, if there were too many tries.
    /// Sign-ins and refusals are recorded.
    pub async fn sign_in(
        &self,
        username: &str,
        password: SecretString,
        origin: &Origin,
    ) -> Result<Option<Person>, Error> {
        let now = self.now();
        let name: String = username.trim().chars().take(200).collect();
        self.count_try(&name, &origin.address).await?;
        let wanted = name.clone();
        let found = self
            .store
            .read(move |db| Ok::<_, Error>(people::by_username(db, &wanted)?))
            .await?;
        let (person, hash) = found.map_or((None, None), |(person, hash)| (Some(person), hash));
        let usable = password.expose_secret().len() <= password::MAX_BYTES;
        let (fits, better) = self
            .hashing
            .run(move || {
                let checked = if usable {
                    password
                } else {
                    SecretString::from("")
                };
                let fits = password::verify(&checked, hash.as_deref());
                let better = hash
                    .filter(|hash| fits && password::is_outdated(hash))
                    .and_then(|_| password::hash(&checked));
                (fits, better)
            })
            .await?;
        let accepted = person.filter(|person| fits && !person.locked);
        if accepted.is_some() {
            self.try_succeeded(&name, &origin.address).await;
        }
        let action = if accepted.is_some() {
            Action::SignIn
        } else {
            Action::SignInRefused
        };
        let mut line = Event {
            actor: accepted.as_ref().map(|person| person.id),
            actor_name: accepted
                .as_ref()
                .map_or_else(String::new, |person| person.username.clone()),
            address: origin.address.clone(),
            correlation: origin.correlation.clone(),
            ..Event::by_portal(
                now,
                action,
                if accepted.is_some() {
                    String::new()
                } else {
                    name
                },
                "",
            )
        };
        line.subject.retain(|letter| !is_invisible(letter));
        let id = accepted.as_ref().map(|person| person.id);
        self.store
            .write(move |db| {
                if let Some(id) = id {
                    people::set_active(db, id, now)?;
                    if let Some(hash) = better {
                        people::set_password(db, id, &hash)?;
                    }
                }
                record(db, &line)
            })
            .await?;
        Ok(accepted)
    }

    /// Writes the audit record of a sign-out.
    pub async fn record_sign_out(&self, actor: &Actor) -> Result<(), Error> {
        let line = event(actor, self.now(), Action::SignOut, "", "");
        self.store
            .write_untracked(move |db| record(db, &line))
            .await
    }

    /// All people, for publishers and administrators, who choose people for content.
    pub async fn people(&self, actor: &Actor) -> Result<Vec<Person>, Error> {
        if actor.role < Role::Publisher {
            return Err(Error::Forbidden(
                "Only publishers and administrators see the list of people.",
            ));
        }
        self.store.read(|db| Ok(people::list(db)?)).await
    }

    /// One person: the actor, or for publishers and administrators anyone.
    pub async fn person(&self, actor: &Actor, person: Id<Person>) -> Result<Person, Error> {
        if actor.role < Role::Publisher && actor.person.id != person {
            return Err(Error::NotFound);
        }
        self.store
            .read(move |db| people::find(db, person)?.ok_or(Error::NotFound))
            .await
    }

    /// Creates a person; administrators only.
    pub async fn create_person(&self, actor: &Actor, input: PersonInput) -> Result<Person, Error> {
        if !access::may_manage_people(actor.role) {
            return Err(Error::Forbidden("Only administrators add people."));
        }
        let actor = actor.clone();
        self.insert_person(input, Some(actor)).await
    }

    /// Creates a person without an access check, for the command line. Without an `actor` the audit
    /// record names the command line.
    pub async fn insert_person(
        &self,
        input: PersonInput,
        actor: Option<Actor>,
    ) -> Result<Person, Error> {
        self.insert(input, actor, false)
            .await?
            .ok_or(Error::Internal)
    }

    /// Creates the first person; `None` if anybody has an account already.
    pub(super) async fn insert_first(&self, input: PersonInput) -> Result<Option<Person>, Error> {
        self.insert(input, None, true).await
    }

    /// `None` only if `only_first` is set and anybody has an account already.
    async fn insert(
        &self,
        input: PersonInput,
        actor: Option<Actor>,
        only_first: bool,
    ) -> Result<Option<Person>, Error> {
        let now = self.now();
        let mut person = Person {
            id: Id::random(),
            username: String::new(),
            email: String::new(),
            first_name: String::new(),
            last_name: String::new(),
            role: Role::Viewer,
            locked: false,
            created_at: now,
            updated_at: now,
            active_at: None,
        };
        let mut problems = apply(&mut person, &input);
        if person.username.is_empty() && !problems.iter().any(|problem| problem.key == "username") {
            problems.push(FieldError::new("username", "Enter a user name."));
        }
        problems.extend(input.password.as_ref().and_then(check_password));
        if !problems.is_empty() {
            return Err(Error::Invalid(problems));
        }
        // A person without a password signs in by a one-time link or at the identity provider.
        let hash = match input.password {
            Some(password) => Some(
                self.hashing
                    .run(move || password::hash(&password))
                    .await?
                    .ok_or(Error::Internal)?,
            ),
            None => None,
        };
        let created = person.clone();
        self.store
            .write(move |db| {
                if only_first && people::count(db)? > 0 {
                    return Ok(None);
                }
                people::insert(db, &person, hash.as_deref()).map_err(name_taken)?;
                let subject = person.username.clone();
                let detail = format!("role {}", person.role.as_str());
                let line = match &actor {
                    Some(actor) => event(actor, now, Action::PersonCreated, subject, detail),
                    None => by_command_line(now, Action::PersonCreated, subject, detail),
                };
                record(db, &line)?;
                Ok(Some(created))
            })
            .await
    }

    /// Changes a person: the actor (not the role), or for administrators anyone.
    pub async fn update_person(
        &self,
        actor: &Actor,
        id: Id<Person>,
        input: PersonInput,
    ) -> Result<Person, Error> {
        let administrator = access::may_manage_people(actor.role);
        if !administrator
            && (actor.person.id != id || input.role.is_some_and(|role| role != actor.person.role))
        {
            return Err(Error::Forbidden(
                "Only administrators change other people and roles.",
            ));
        }
        let (now, actor) = (self.now(), actor.clone());
        self.store
            .write(move |db| {
                let mut person = people::find(db, id)?.ok_or(Error::NotFound)?;
                let before = person.clone();
                let problems = apply(&mut person, &input);
                if !problems.is_empty() {
                    return Err(Error::Invalid(problems));
                }
                person.updated_at = now;
                people::update(db, &person).map_err(name_taken)?;
                keep_one_administrator(db)?;
                let detail = if before.role == person.role {
                    String::new()
                } else {
                    format!("role {} to {}", before.role.as_str(), person.role.as_str())
                };
                if before.role != person.role {
                    // A changed role requires new browser sessions (promise 1), so the old ones
                    // end, except the one that made the change.
                    let keep = actor.session.filter(|_| actor.person.id == person.id);
                    sessions::delete_all_of_person(db, person.id, keep)?;
                }
                record(
                    db,
                    &event(
                        &actor,
                        now,
                        Action::PersonChanged,
                        person.username.clone(),
                        detail,
                    ),
                )?;
                Ok(person)
            })
            .await
    }

    /// Locks or unlocks an account. Locking ends all browser sessions and connections; API keys and
    /// session tokens of a locked person are refused.
    pub async fn set_locked(
        self: &Arc<Self>,
        actor: &Actor,
        id: Id<Person>,
        locked: bool,
    ) -> Result<(), Error> {
        if !access::may_manage_people(actor.role) {
            return Err(Error::Forbidden("Only administrators lock people."));
        }
        if actor.person.id == id && locked {
            return Err(invalid("locked", "You cannot lock yourself."));
        }
        let (now, actor, service) = (self.now(), actor.clone(), Arc::clone(self));
        let why = EndReason::of(&actor, now, "the account was locked");
        self.store
            .write(move |db| {
                let person = people::find(db, id)?.ok_or(Error::NotFound)?;
                people::set_locked(db, id, locked)?;
                if locked {
                    sessions::delete_all_of_person(db, id, None)?;
                    service.end_connections_of_person(db, id, &why)?;
                }
                keep_one_administrator(db)?;
                let action = if locked {
                    Action::PersonLocked
                } else {
                    Action::PersonUnlocked
                };
                record(db, &event(&actor, now, action, person.username, ""))
            })
            .await?;
        self.spawn_revocations();
        Ok(())
    }

    /// Changes the actor's password; all other browser sessions of the actor end.
    pub async fn change_password(
        &self,
        actor: &Actor,
        old: SecretString,
        new: SecretString,
    ) -> Result<(), Error> {
        let problems: Vec<FieldError> = check_password(&new)
            .into_iter()
            .map(|problem| FieldError::new("new_password", problem.message))
            .collect();
        if !problems.is_empty() {
            return Err(Error::Invalid(problems));
        }
        let username = actor.person.username.clone();
        self.count_try(&username, &actor.origin.address).await?;
        let found = self
            .store
            .read(move |db| Ok::<_, Error>(people::by_username(db, &username)?))
            .await?;
        let stored = found.and_then(|(_, hash)| hash);
        let hash = self
            .hashing
            .run(move || password::verify(&old, stored.as_deref()).then(|| password::hash(&new)))
            .await?;
        let Some(hash) = hash else {
            return Err(invalid(
                "old_password",
                "This is not your current password.",
            ));
        };
        let hash = hash.ok_or(Error::Internal)?;
        self.try_succeeded(&actor.person.username, &actor.origin.address)
            .await;
        let (now, actor) = (self.now(), actor.clone());
        self.store
            .write(move |db| {
                people::set_password(db, actor.person.id, &hash)?;
                sessions::delete_all_of_person(db, actor.person.id, actor.session)?;
                record(
                    db,
                    &event(
                        &actor,
                        now,
                        Action::PasswordChanged,
                        actor.person.username.clone(),
                        "by its owner",
                    ),
                )
            })
            .await
    }

    /// Sets a person's password as an administrator; the person's browser sessions end.
    pub async fn reset_password(
        &self,
        actor: &Actor,
        id: Id<Person>,
        new: SecretString,
    ) -> Result<(), Error> {
        if !access::may_manage_people(actor.role) {
            return Err(Error::Forbidden(
                "Only administrators set passwords of others.",
            ));
        }
        let problems: Vec<FieldError> = check_password(&new).into_iter().collect();
        if !problems.is_empty() {
            return Err(Error::Invalid(problems));
        }
        let hash = self
            .hashing
            .run(move || password::hash(&new))
            .await?
            .ok_or(Error::Internal)?;
        let (now, actor) = (self.now(), actor.clone());
        self.store
            .write(move |db| {
                let person = people::find(db, id)?.ok_or(Error::NotFound)?;
                people::set_password(db, id, &hash)?;
                sessions::delete_all_of_person(db, id, actor.session)?;
                record(
                    db,
                    &event(
                        &actor,
                        now,
                        Action::PasswordChanged,
                        person.username,
                        "by an administrator",
                    ),
                )
            })
            .await
    }

    /// Whether this is the actor's password. Asked before secrets, keys, roles and addresses
    /// change; rate-limited and recorded like a sign-in.
    pub async fn confirm_password(
        &self,
        actor: &Actor,
        given: SecretString,
    ) -> Result<bool, Error> {
        let (username, now) = (actor.person.username.clone(), self.now());
        self.count_try(&username, &actor.origin.address).await?;
        let fits = given.expose_secret().len() <= password::MAX_BYTES && {
            let wanted = username.clone();
            let stored = self
                .store
                .read(move |db| Ok::<_, Error>(people::by_username(db, &wanted)?))
                .await?
                .and_then(|(_, hash)| hash);
            self.hashing
                .run(move || password::verify(&given, stored.as_deref()))
                .await?
        };
        if fits {
            self.try_succeeded(&username, &actor.origin.address).await;
        }
        let action = if fits {
            Action::Confirmed
        } else {
            Action::ConfirmRefused
        };
        let line = event(actor, now, action, username, "");
        self.store
            .write_untracked(move |db| record(db, &line))
            .await?;
        Ok(fits)
    }

    /// Whether the person can sign in by password.
    pub async fn has_password(&self, person: Id<Person>) -> Result<bool, Error> {
        self.store
            .read(move |db| Ok(people::has_password(db, person)?))
            .await
    }

    /// The browser sessions of a person: the actor's own, or for administrators anyone's.
    pub async fn sessions_of(
        &self,
        actor: &Actor,
        person: Id<Person>,
    ) -> Result<Vec<Session>, Error> {
        must_be_own_or_managed(actor, person)?;
        let (now, idle_since) = (self.now(), self.idle_since());
        self.store
            .read(move |db| Ok(sessions::of_person(db, person, now, idle_since)?))
            .await
    }

    /// Ends the session `only`, or all but the actor's current one; returns how many.
    pub async fn end_sessions(
        &self,
        actor: &Actor,
        person: Id<Person>,
        only: Option<Id<Session>>,
    ) -> Result<usize, Error> {
        must_be_own_or_managed(actor, person)?;
        let (now, actor) = (self.now(), actor.clone());
        self.store
            .write(move |db| {
                let who = people::find(db, person)?.ok_or(Error::NotFound)?;
                let ended = match only {
                    Some(session) => sessions::delete_of_person(db, person, session)?,
                    None => sessions::delete_all_of_person(db, person, actor.session)?,
                };
                record(
                    db,
                    &event(
                        &actor,
                        now,
                        Action::SessionsEnded,
                        who.username,
                        format!("{ended} ended"),
                    ),
                )?;
                Ok(ended)
            })
            .await
    }

    /// A new one-time link for the first administrator, which replaces an older one; `None` if
    /// anybody has an account. Returns the link's token, not its address.
    pub async fn setup_link(&self) -> Result<Option<SecretString>, Error> {
        let token = random::token();
        let (hash, expires_at) = (digest(&token), self.now().plus(SETUP_LINK_LIFETIME));
        let fresh = self
            .store
            .write_untracked(move |db| {
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
        if !access::may_manage_people(actor.role) {
            return Err(Error::Forbidden("Only administrators invite people."));
        }
        let token = random::token();
        let (hash, now, actor) = (digest(&token), self.now(), actor.clone());
        let person = self
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

    /// Like [`Service::invite`], without an access check: the way in for an operator when every
    /// other one fails.
    pub async fn invite_from_command_line(&self, username: &str) -> Result<SecretString, Error> {
        let token = random::token();
        let (hash, now, username) = (digest(&token), self.now(), username.to_owned());
        self.store
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
        let (hash, now) = (digest(token), self.now());
        self.store
            .read(move |db| match people::setup_link(db, &hash, now)? {
                None => Err(Error::NotFound),
                Some(None) => Ok(LinkHolder::FirstAdministrator),
                Some(Some(person)) => {
                    let person = people::find(db, person)?.filter(|person| !person.locked);
                    person
                        .map(|person| LinkHolder::Person(Box::new(person)))
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
    /// end.
    pub async fn accept_invitation(
        &self,
        token: &str,
        new: SecretString,
        origin: &Origin,
    ) -> Result<Person, Error> {
        let LinkHolder::Person(person) = self.link_holder(token).await? else {
            return Err(Error::NotFound);
        };
        if let Some(problem) = check_password(&new) {
            return Err(Error::Invalid(vec![problem]));
        }
        let hash = self
            .hashing
            .run(move || password::hash(&new))
            .await?
            .ok_or(Error::Internal)?;
        self.consume_link(token).await?;
        let now = self.now();
        let actor = Actor {
            role: person.role,
            person: *person,
            session: None,
            origin: origin.clone(),
        };
        self.store
            .write(move |db| {
                people::set_password(db, actor.person.id, &hash)?;
                people::set_active(db, actor.person.id, now)?;
                sessions::delete_all_of_person(db, actor.person.id, None)?;
                record(
                    db,
                    &event(
                        &actor,
                        now,
                        Action::PasswordChanged,
                        actor.person.username.clone(),
                        "by a one-time link",
                    ),
                )?;
                Ok(actor.person)
            })
            .await
    }

    /// Consumes the link atomically: of two concurrent requests one gets `NotFound`.
    async fn consume_link(&self, token: &str) -> Result<(), Error> {
        let (hash, now) = (digest(token), self.now());
        let taken = self
            .store
            .write(move |db| Ok::<_, Error>(people::redeem_setup_link(db, &hash, now)?))
            .await?;
        if taken { Ok(()) } else { Err(Error::NotFound) }
    }
}

/// An audit record with the command line as actor.
fn by_command_line(now: Timestamp, action: Action, subject: String, detail: String) -> Event {
    Event {
        actor_name: "command line".into(),
        outcome: Outcome::Done,
        ..Event::by_portal(now, action, subject, detail)
    }
}

/// `NotFound` unless the actor is this person or manages people.
fn must_be_own_or_managed(actor: &Actor, person: Id<Person>) -> Result<(), Error> {
    if actor.person.id == person || access::may_manage_people(actor.role) {
        Ok(())
    } else {
        Err(Error::NotFound)
    }
}

/// Turns the unique constraint on user names into a sentence.
fn name_taken(error: crate::store::Error) -> Error {
    match error {
        crate::store::Error::Taken => {
            Error::Conflict("Somebody has this user name already. Choose another one.".into())
        }
        other => other.into(),
    }
}

/// Fails if no unlocked administrator is left. Call it in the transaction, after the change.
fn keep_one_administrator(db: &mut crate::store::Db<'_>) -> Result<(), Error> {
    if people::count_administrators(db)? == 0 {
        return Err(invalid(
            "role",
            "Somebody must remain administrator. Make another person administrator first.",
        ));
    }
    Ok(())
}

/// What is wrong with a new password: only its length is checked.
fn check_password(password: &SecretString) -> Option<FieldError> {
    let letters = password.expose_secret().chars().count();
    if letters < password::MIN_CHARS {
        return Some(FieldError::new(
            "password",
            format!("Use at least {} characters.", password::MIN_CHARS),
        ));
    }
    (password.expose_secret().len() > password::MAX_BYTES)
        .then(|| FieldError::new("password", "Use at most 1,024 bytes."))
}

/// Applies typed values to `person`; returns all problems at once.
fn apply(person: &mut Person, input: &PersonInput) -> Vec<FieldError> {
    let mut problems = Vec::new();
    let clean = |text: &str| text.trim().to_owned();
    if let Some(username) = input.username.as_deref().map(clean) {
        let legal = username.chars().all(|letter| {
            letter.is_alphanumeric() || matches!(letter, '.' | '-' | '_' | '@' | '+')
        });
        if username.is_empty() {
            problems.push(FieldError::new("username", "Enter a user name."));
        } else if !legal || username.chars().count() > 64 {
            problems.push(FieldError::new(
                "username",
                "Use up to 64 letters, digits and . - _ @ + in a user name.",
            ));
        } else {
            person.username = username;
        }
    }
    if let Some(email) = input.email.as_deref().map(clean) {
        let parts: Vec<&str> = email.split('@').collect();
        let legal = parts.len() == 2
            && parts.iter().all(|part| !part.is_empty())
            && !email
                .chars()
                .any(|letter| letter.is_whitespace() || letter.is_control());
        if !email.is_empty() && (!legal || email.len() > 254) {
            problems.push(FieldError::new(
                "email",
                "Enter an e-mail address such as ann@example.org, or leave it empty.",
            ));
        } else {
            person.email = email;
        }
    }
    for (key, typed, target) in [
        ("first_name", &input.first_name, &mut person.first_name),
        ("last_name", &input.last_name, &mut person.last_name),
    ] {
        if let Some(name) = typed.as_deref().map(clean) {
            if name.chars().count() > 100 || name.chars().any(is_invisible) {
                problems.push(FieldError::new(
                    key,
                    "Use at most 100 characters, without line breaks and invisible ones.",
                ));
            } else {
                *target = name;
            }
        }
    }
    if let Some(role) = input.role {
        person.role = role;
    }
    problems
}
