//! Passwords: sign-in, changes, and confirmation of one's own. Every check counts as a try first
//! (see [`PasswordLimiter`]) and runs on the pool for hashes.

use crate::{
    domain::{
        Id, access,
        audit::{Action, Event, Origin},
        form::FieldError,
        person::{Person, is_invisible},
    },
    service::{
        auditing::audit::Audit,
        core::{Actor, Core, event, record, require},
        error::{Error, invalid},
        people::{
            hashing::Hashing,
            limiter::{PasswordLimiter, network},
        },
    },
    store::{people, sessions},
    vault::password,
};
use secrecy::{ExposeSecret as _, SecretString};
use std::sync::Arc;

/// Checks and changes passwords. Owns the hashing pool.
pub struct Passwords {
    core: Arc<Core>,
    limiter: Arc<PasswordLimiter>,
    audit: Arc<Audit>,
    hashing: Hashing,
}

impl Passwords {
    pub(in crate::service) fn new(
        core: Arc<Core>,
        limiter: Arc<PasswordLimiter>,
        audit: Arc<Audit>,
    ) -> Result<Self, String> {
        Ok(Self {
            core,
            limiter,
            audit,
            hashing: Hashing::new().map_err(|error| format!("cannot start threads: {error}"))?,
        })
    }

    /// Passwords that are checked or wait for it.
    pub fn being_checked(&self) -> usize {
        self.hashing.callers()
    }

    /// Hashes a new password on the pool.
    pub(in crate::service) async fn hash(&self, new: SecretString) -> Result<String, Error> {
        self.hashing
            .run(None, move || password::hash(&new))
            .await?
            .ok_or(Error::Internal("a password could not be hashed"))
    }

    /// Checks user name and password. `Ok(None)` for a wrong password, an unknown name or a locked
    /// account, each after the same work. `TooMany`, before any work, if there were too many tries.
    /// Sign-ins and refusals are recorded; a refusal within a few seconds.
    pub async fn sign_in(
        &self,
        username: &str,
        password: SecretString,
        origin: &Origin,
    ) -> Result<Option<Person>, Error> {
        let now = self.core.now();
        let name: String = username.trim().chars().take(200).collect();
        self.limiter.count_try(&name, &origin.address).await?;
        let wanted = name.clone();
        let found = self
            .core
            .store
            .read(move |db| Ok::<_, Error>(people::by_username(db, &wanted)?))
            .await?;
        let (person, hash) = found.map_or((None, None), |(person, hash)| (Some(person), hash));
        let usable = password.expose_secret().len() <= password::MAX_BYTES;
        let (fits, better) = self
            .hashing
            .run(Some(&network(&origin.address)), move || {
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
            .await
            .inspect_err(|_| self.limiter.undo_try(&name, &origin.address))?;
        let accepted = person.filter(|person| fits && !person.locked);
        if accepted.is_some() {
            self.limiter.try_succeeded(&name, &origin.address).await;
        }
        let line = |action, subject: String| Event {
            actor: accepted.as_ref().map(|person| person.id),
            actor_name: accepted
                .as_ref()
                .map_or_else(String::new, |person| person.username.clone()),
            address: origin.address.clone(),
            correlation: origin.correlation.clone(),
            ..Event::by_portal(now, action, subject, "")
        };
        let Some(person) = accepted.as_ref().map(|person| person.id) else {
            let mut name = name;
            name.retain(|letter| !is_invisible(letter));
            self.audit.note_later(line(Action::SignInRefused, name));
            // The next try may reach another node.
            self.limiter.share().await;
            return Ok(None);
        };
        let line = line(Action::SignIn, String::new());
        self.core
            .store
            .write(move |db| {
                let better = better.clone();
                people::set_active(db, person, now)?;
                if let Some(hash) = better {
                    people::replace_hash(db, person, &hash)?;
                }
                record(db, &line)
            })
            .await?;
        Ok(accepted)
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
        self.limiter.welcome(&username, &actor.origin.address);
        self.limiter
            .count_try(&username, &actor.origin.address)
            .await?;
        let found = self
            .core
            .store
            .read(move |db| Ok::<_, Error>(people::by_username(db, &username)?))
            .await?;
        let stored = found.and_then(|(_, hash)| hash);
        let hash = self
            .hashing
            .run(None, move || {
                password::verify(&old, stored.as_deref()).then(|| password::hash(&new))
            })
            .await
            .inspect_err(|_| {
                self.limiter
                    .undo_try(&actor.person.username, &actor.origin.address);
            })?;
        let Some(hash) = hash else {
            return Err(invalid(
                "old_password",
                "This is not your current password.",
            ));
        };
        let hash = hash.ok_or(Error::Internal("a password cannot be hashed"))?;
        self.limiter
            .try_succeeded(&actor.person.username, &actor.origin.address)
            .await;
        let (now, actor) = (self.core.now(), actor.clone());
        self.core
            .store
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
        require(
            access::may_manage_people(actor.role),
            "Only administrators set passwords of others.",
        )?;
        let problems: Vec<FieldError> = check_password(&new).into_iter().collect();
        if !problems.is_empty() {
            return Err(Error::Invalid(problems));
        }
        let hash = self
            .hashing
            .run(None, move || password::hash(&new))
            .await?
            .ok_or(Error::Internal("a password cannot be hashed"))?;
        let (now, actor) = (self.core.now(), actor.clone());
        self.core
            .store
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
        let (username, now) = (actor.person.username.clone(), self.core.now());
        self.limiter.welcome(&username, &actor.origin.address);
        self.limiter
            .count_try(&username, &actor.origin.address)
            .await?;
        let fits = given.expose_secret().len() <= password::MAX_BYTES && {
            let wanted = username.clone();
            let stored = self
                .core
                .store
                .read(move |db| Ok::<_, Error>(people::by_username(db, &wanted)?))
                .await?
                .and_then(|(_, hash)| hash);
            self.hashing
                .run(None, move || password::verify(&given, stored.as_deref()))
                .await
                .inspect_err(|_| self.limiter.undo_try(&username, &actor.origin.address))?
        };
        if fits {
            self.limiter
                .try_succeeded(&username, &actor.origin.address)
                .await;
        }
        let action = if fits {
            Action::Confirmed
        } else {
            Action::ConfirmRefused
        };
        let line = event(actor, now, action, username, "");
        self.core.store.write(move |db| record(db, &line)).await?;
        Ok(fits)
    }

    /// Whether the person can sign in by password.
    pub async fn has_password(&self, person: Id<Person>) -> Result<bool, Error> {
        self.core
            .store
            .read(move |db| Ok(people::has_password(db, person)?))
            .await
    }
}

/// What is wrong with a new password: only its length is checked.
pub(in crate::service) fn check_password(password: &SecretString) -> Option<FieldError> {
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
