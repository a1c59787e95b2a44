//! Accounts: creating, changing and locking people. At least one unlocked administrator always
//! remains after a change here.

use crate::{
    domain::{
        Id, Timestamp, access,
        audit::{Action, Event, Outcome},
        form::FieldError,
        person::{Person, Role, is_invisible},
    },
    service::{
        core::{Actor, Core, event, record, require},
        error::{Error, invalid, name_taken},
        grants::{end_reason::EndReason, revocations::Revocations},
        people::passwords::{Passwords, check_password},
    },
    store::{Db, connections::EndingOf, people, sessions},
};
use secrecy::SecretString;
use std::sync::Arc;

/// What a person is told whose user name exists already.
const NAME_TAKEN: &str = "Somebody has this user name already. Choose another one.";

/// Longest notice, in characters.
const MAX_NOTICE: usize = 2000;

/// The typed values of a person. `None` keeps a value, or takes the default for a new person.
#[derive(Clone, Debug, Default)]
pub struct PersonInput {
    pub username: Option<String>,
    pub email: Option<String>,
    pub first_name: Option<String>,
    pub last_name: Option<String>,
    pub role: Option<Role>,
    pub password: Option<SecretString>,
    /// The version on which a change is based ([`Person::updated_at`]): refused with
    /// [`Error::ChangedMeanwhile`] if it has changed since. `None`: not checked.
    pub based_on: Option<Timestamp>,
}

/// Accounts of people.
pub struct People {
    core: Arc<Core>,
    passwords: Arc<Passwords>,
    revocations: Arc<Revocations>,
}

impl People {
    pub(in crate::service) fn new(
        core: Arc<Core>,
        passwords: Arc<Passwords>,
        revocations: Arc<Revocations>,
    ) -> Self {
        Self {
            core,
            passwords,
            revocations,
        }
    }

    /// All people, for publishers and administrators, who choose people for content.
    pub async fn people(&self, actor: &Actor) -> Result<Vec<Person>, Error> {
        require(
            access::may_see_people(actor.role),
            "Only publishers and administrators see the list of people.",
        )?;
        self.core.store.read(|db| Ok(people::list(db)?)).await
    }

    /// One person: the actor, or for publishers and administrators anyone.
    pub async fn person(&self, actor: &Actor, person: Id<Person>) -> Result<Person, Error> {
        if !access::may_see_people(actor.role) && actor.person.id != person {
            return Err(Error::NotFound);
        }
        self.core
            .store
            .read(move |db| people::find(db, person)?.ok_or(Error::NotFound))
            .await
    }

    /// Creates a person; administrators only.
    pub async fn create_person(&self, actor: &Actor, input: PersonInput) -> Result<Person, Error> {
        require(
            access::may_manage_people(actor.role),
            "Only administrators add people.",
        )?;
        let actor = actor.clone();
        self.insert_person(input, Some(actor)).await
    }

    /// Creates many people without passwords in one transaction, all or none; returns their number.
    /// `only_try`: nothing is stored. The problems of [`Error::Invalid`] have the position in `inputs`
    /// as their key. Administrators only.
    pub async fn create_people(
        &self,
        actor: &Actor,
        inputs: Vec<PersonInput>,
        only_try: bool,
    ) -> Result<usize, Error> {
        require(
            access::may_manage_people(actor.role),
            "Only administrators add people.",
        )?;
        let (now, actor) = (self.core.now(), actor.clone());
        let mut made = Vec::new();
        let mut problems = Vec::new();
        for (at, input) in inputs.iter().enumerate() {
            let mut person = Person::new(now);
            let found = apply(&mut person, input);
            let is_nameless = person.username.is_empty() && found.is_empty();
            let missing = is_nameless.then(|| FieldError::new("", "Enter a user name."));
            problems.extend(
                found
                    .into_iter()
                    .chain(missing)
                    .map(|problem| FieldError::new(&at.to_string(), problem.message)),
            );
            made.push(person);
        }
        let keys: Vec<String> = made
            .iter()
            .map(|person| people::username_key(&person.username))
            .collect();
        let taken = self
            .core
            .store
            .read(move |db| Ok::<_, Error>(people::taken_names(db, &keys)?))
            .await?;
        for (at, person) in made.iter().enumerate() {
            if taken.contains(&people::username_key(&person.username)) {
                problems.push(FieldError::new(&at.to_string(), NAME_TAKEN));
            }
        }
        if !problems.is_empty() {
            return Err(Error::Invalid(problems));
        }
        if only_try {
            return Ok(made.len());
        }
        self.core
            .store
            .write(move |db| {
                for person in &made {
                    people::insert(db, person, None).map_err(name_taken(NAME_TAKEN))?;
                    let detail = format!("role {}, imported", person.role.as_str());
                    let name = person.username.clone();
                    record(db, &event(&actor, now, Action::PersonCreated, name, detail))?;
                }
                Ok(made.len())
            })
            .await
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
            .ok_or(Error::Internal("a new person was refused as a guest"))
    }

    /// Creates the first person; `None` if anybody has an account already.
    pub(in crate::service) async fn insert_first(
        &self,
        input: PersonInput,
    ) -> Result<Option<Person>, Error> {
        self.insert(input, None, true).await
    }

    /// `None` only if `only_first` is set and anybody has an account already.
    async fn insert(
        &self,
        input: PersonInput,
        actor: Option<Actor>,
        only_first: bool,
    ) -> Result<Option<Person>, Error> {
        let now = self.core.now();
        let mut person = Person::new(now);
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
            Some(password) => Some(self.passwords.hash(password).await?),
            None => None,
        };
        let created = person.clone();
        self.core
            .store
            .write(move |db| {
                let created = created.clone();
                if only_first && people::count(db)? > 0 {
                    return Ok(None);
                }
                people::insert(db, &person, hash.as_deref()).map_err(name_taken(NAME_TAKEN))?;
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

    /// Changes a person: for administrators anyone; for others the actor's own first and last name.
    /// User name and e-mail address are what the account at a provider is compared with
    /// ([`IdentityCheck::Require`]), so their owner cannot change them.
    ///
    /// [`IdentityCheck::Require`]: crate::domain::integration::IdentityCheck::Require
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
        let (now, actor) = (self.core.now(), actor.clone());
        self.core
            .store
            .write(move |db| {
                let mut person = people::find(db, id)?.ok_or(Error::NotFound)?;
                let before = person.clone();
                if input
                    .based_on
                    .is_some_and(|known| known != before.updated_at)
                {
                    return Err(Error::ChangedMeanwhile("person"));
                }
                let problems = apply(&mut person, &input);
                if !problems.is_empty() {
                    return Err(Error::Invalid(problems));
                }
                let is_renamed = before.username != person.username || before.email != person.email;
                require(
                    administrator || !is_renamed,
                    "Only administrators change user names and e-mail addresses.",
                )?;
                person.updated_at = now;
                people::update(db, &person).map_err(name_taken(NAME_TAKEN))?;
                keep_one_administrator(db)?;
                let changes = [
                    ("role", before.role.as_str(), person.role.as_str()),
                    ("user name", &before.username, &person.username),
                    ("e-mail address", &before.email, &person.email),
                ];
                let detail: Vec<String> = changes
                    .into_iter()
                    .filter(|(_, old, new)| old != new)
                    .map(|(what, old, new)| format!("{what} {old} to {new}"))
                    .collect();
                let detail = detail.join("; ");
                if actor.person.id != person.id && !detail.is_empty() {
                    // Their account at a provider is compared with it: they have to know.
                    let line = format!(
                        "On {} {} changed about your account: {detail}.",
                        now.absolute(),
                        actor.person.display_name()
                    );
                    let notice = match &before.notice {
                        Some(older) => format!("{older} {line}"),
                        None => line,
                    };
                    let notice: String = notice.chars().take(MAX_NOTICE).collect();
                    people::set_notice(db, person.id, Some(&notice))?;
                }
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

    /// Sets the time zone in which pages tell times to the actor, by its IANA name; `None` for UTC.
    pub async fn set_time_zone(&self, actor: &Actor, zone: Option<&str>) -> Result<(), Error> {
        let zone = match zone.map(str::parse::<chrono_tz::Tz>) {
            None => None,
            Some(Ok(zone)) => Some(zone.name()),
            Some(Err(_)) => {
                return Err(invalid(
                    "time_zone",
                    "There is no time zone of this name. Enter one such as Europe/Berlin or America/New_York, or leave it empty for UTC.",
                ));
            }
        };
        let person = actor.person.id;
        self.core
            .store
            .write(move |db| Ok(people::set_time_zone(db, person, zone)?))
            .await
    }

    /// Ends the notice on the actor's pages.
    pub async fn dismiss_notice(&self, actor: &Actor) -> Result<(), Error> {
        let person = actor.person.id;
        self.core
            .store
            .write(move |db| Ok(people::set_notice(db, person, None)?))
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
        require(
            access::may_manage_people(actor.role),
            "Only administrators lock people.",
        )?;
        if actor.person.id == id && locked {
            return Err(invalid("locked", "You cannot lock yourself."));
        }
        let (now, actor, service) = (self.core.now(), actor.clone(), Arc::clone(self));
        let why = EndReason::of(&actor, now, "the account was locked");
        if locked {
            let lock = move |db: &mut Db<'_>| {
                people::set_locked(db, id, true)?;
                keep_one_administrator(db)
            };
            let all = EndingOf::Person(id);
            self.revocations.end_many(all, &why, lock).await?;
        }
        self.core
            .store
            .write(move |db| {
                let person = people::find(db, id)?.ok_or(Error::NotFound)?;
                people::set_locked(db, id, locked)?;
                if locked {
                    sessions::delete_all_of_person(db, id, None)?;
                    let all = EndingOf::Person(id);
                    service.revocations.end_all(db, all, &why)?;
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
        self.revocations.spawn_revocations();
        Ok(())
    }
}

/// Fails if no unlocked administrator is left. Call it in the transaction, after the change.
fn keep_one_administrator(db: &mut Db<'_>) -> Result<(), Error> {
    if people::count_administrators(db)? == 0 {
        return Err(invalid(
            "role",
            "Somebody must remain administrator. Make another person administrator first.",
        ));
    }
    Ok(())
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

/// An audit record with the command line as actor.
pub fn by_command_line(now: Timestamp, action: Action, subject: String, detail: String) -> Event {
    Event {
        actor_name: "command line".into(),
        outcome: Outcome::Done,
        ..Event::by_portal(now, action, subject, detail)
    }
}
