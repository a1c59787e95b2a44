//! People, their password hashes, API keys (as hashes) and one-time set-up links (as hashes).

use super::{
    Db, Error,
    changes::Subject,
    damaged_row, id,
    schema::{
        api_keys, app_sessions, consents, content, deliveries, integrations, people, revocations,
        setup_links, token_uses, visits,
    },
};
use crate::domain::{
    Id, Timestamp,
    api_key::ApiKey,
    content::Content,
    ending::Ending,
    person::{Person, Role},
};
use diesel::prelude::*;
use std::collections::{HashMap, HashSet};

/// A row of the table `people`, without the password hash.
#[derive(Queryable, Selectable)]
#[diesel(table_name = people)]
pub(super) struct PersonRow {
    guid: String,
    username: String,
    email: String,
    first_name: String,
    last_name: String,
    role: String,
    locked: bool,
    created_at: i64,
    updated_at: i64,
    active_at: Option<i64>,
    organisation_label: Option<String>,
    organisation_subject: Option<String>,
    notice: Option<String>,
    time_zone: Option<String>,
    mail_off: bool,
}

impl PersonRow {
    /// Converts the row; [`Error::Other`] if a column is damaged.
    pub(super) fn person(self) -> Result<Person, Error> {
        Ok(Person {
            id: id(&self.guid)?,
            role: Role::parse(&self.role).ok_or_else(|| damaged_row("role"))?,
            username: self.username,
            email: self.email,
            first_name: self.first_name,
            last_name: self.last_name,
            locked: self.locked,
            created_at: Timestamp(self.created_at),
            updated_at: Timestamp(self.updated_at),
            active_at: self.active_at.map(Timestamp),
            organisation_label: self.organisation_label,
            organisation_subject: self.organisation_subject,
            notice: self.notice,
            time_zone: self.time_zone,
            mail_off: self.mail_off,
        })
    }
}

/// The form in which user names are compared: trimmed, in lower case.
pub fn username_key(username: &str) -> String {
    // PostgreSQL cannot store NUL in text.
    username.trim().to_lowercase().replace('\0', "\u{fffd}")
}

/// Adds a person. [`Error::Taken`] if the user name exists.
pub fn insert(db: &mut Db<'_>, person: &Person, password_hash: Option<&str>) -> Result<(), Error> {
    diesel::insert_into(people::table)
        .values((
            people::guid.eq(person.id.to_string()),
            people::username.eq(&person.username),
            people::username_key.eq(username_key(&person.username)),
            people::email.eq(&person.email),
            people::first_name.eq(&person.first_name),
            people::last_name.eq(&person.last_name),
            people::role.eq(person.role.as_str()),
            people::password_hash.eq(password_hash),
            people::locked.eq(person.locked),
            people::created_at.eq(person.created_at.0),
            people::updated_at.eq(person.updated_at.0),
            people::active_at.eq(person.active_at.map(|at| at.0)),
            people::organisation_label.eq(&person.organisation_label),
            people::organisation_subject.eq(&person.organisation_subject),
        ))
        .execute(db.0)?;
    Ok(())
}

/// Writes everything that can change except the lock, the password, `active_at`, the notice and the
/// account at the organisation.
pub fn update(db: &mut Db<'_>, person: &Person) -> Result<(), Error> {
    db.changed(Subject::Person(person.id));
    let row = || people::table.filter(people::guid.eq(person.id.to_string()));
    let before: Option<String> = row().select(people::role).first(db.0).optional()?;
    if before.is_some_and(|before| before != person.role.as_str()) {
        db.ended(&Ending::Role {
            person: person.id,
            role: person.role,
        })?;
    }
    diesel::update(row())
        .set((
            people::username.eq(&person.username),
            people::username_key.eq(username_key(&person.username)),
            people::email.eq(&person.email),
            people::first_name.eq(&person.first_name),
            people::last_name.eq(&person.last_name),
            people::role.eq(person.role.as_str()),
            people::updated_at.eq(person.updated_at.0),
        ))
        .execute(db.0)?;
    Ok(())
}

/// Locks or unlocks. Changes no other column, not even `updated_at`: API clients compare
/// `updated_time`.
pub fn set_locked(db: &mut Db<'_>, person: Id<Person>, locked: bool) -> Result<(), Error> {
    db.changed(Subject::Person(person));
    db.ended(&Ending::Locked { person, locked })?;
    diesel::update(people::table.filter(people::guid.eq(person.to_string())))
        .set(people::locked.eq(locked))
        .execute(db.0)?;
    Ok(())
}

/// Sets the account at the organisation's provider: its name, and `oid:…` if it has an object id.
pub fn set_organisation_account(
    db: &mut Db<'_>,
    person: Id<Person>,
    label: Option<&str>,
    subject: Option<&str>,
) -> Result<(), Error> {
    db.changed(Subject::Person(person));
    diesel::update(people::table.filter(people::guid.eq(person.to_string())))
        .set((
            people::organisation_label.eq(label),
            people::organisation_subject.eq(subject),
        ))
        .execute(db.0)?;
    Ok(())
}

/// Sets what the person is told on every page; `None` ends it.
pub fn set_notice(db: &mut Db<'_>, person: Id<Person>, notice: Option<&str>) -> Result<(), Error> {
    db.changed(Subject::Person(person));
    diesel::update(people::table.filter(people::guid.eq(person.to_string())))
        .set(people::notice.eq(notice))
        .execute(db.0)?;
    Ok(())
}

/// Sets the time zone in which the person's pages tell times.
pub fn set_time_zone(db: &mut Db<'_>, person: Id<Person>, zone: Option<&str>) -> Result<(), Error> {
    db.changed(Subject::Person(person));
    diesel::update(people::table.filter(people::guid.eq(person.to_string())))
        .set(people::time_zone.eq(zone))
        .execute(db.0)?;
    Ok(())
}

/// Sets another password, by its hash: the old one has ended.
pub fn set_password(db: &mut Db<'_>, person: Id<Person>, hash: &str) -> Result<(), Error> {
    db.ended(&Ending::Password { person })?;
    replace_hash(db, person, hash)
}

/// Replaces the hash by another one of the same password.
pub fn replace_hash(db: &mut Db<'_>, person: Id<Person>, hash: &str) -> Result<(), Error> {
    diesel::update(people::table.filter(people::guid.eq(person.to_string())))
        .set(people::password_hash.eq(hash))
        .execute(db.0)?;
    Ok(())
}

/// Whether the person has a password.
pub fn has_password(db: &mut Db<'_>, person: Id<Person>) -> Result<bool, Error> {
    let hash: Option<Option<String>> = people::table
        .filter(people::guid.eq(person.to_string()))
        .select(people::password_hash)
        .first(db.0)
        .optional()?;
    Ok(hash.flatten().is_some())
}

/// Sets the time of the last sign-in.
pub fn set_active(db: &mut Db<'_>, person: Id<Person>, at: Timestamp) -> Result<(), Error> {
    diesel::update(people::table.filter(people::guid.eq(person.to_string())))
        .set(people::active_at.eq(at.0))
        .execute(db.0)?;
    Ok(())
}

/// The person with this id.
pub fn find(db: &mut Db<'_>, person: Id<Person>) -> Result<Option<Person>, Error> {
    let row = people::table
        .filter(people::guid.eq(person.to_string()))
        .select(PersonRow::as_select())
        .first(db.0)
        .optional()?;
    row.map(PersonRow::person).transpose()
}

/// The person with this user name, and the password hash.
pub fn by_username(
    db: &mut Db<'_>,
    username: &str,
) -> Result<Option<(Person, Option<String>)>, Error> {
    let row: Option<(PersonRow, Option<String>)> = people::table
        .filter(people::username_key.eq(username_key(username)))
        .select((PersonRow::as_select(), people::password_hash))
        .first(db.0)
        .optional()?;
    row.map(|(row, hash)| Ok((row.person()?, hash))).transpose()
}

/// All people by their ids.
pub fn by_id(db: &mut Db<'_>) -> Result<HashMap<Id<Person>, Person>, Error> {
    let all = list(db)?.into_iter();
    Ok(all.map(|person| (person.id, person)).collect())
}

/// All people, in the API's order: first name, last name, user name.
pub fn list(db: &mut Db<'_>) -> Result<Vec<Person>, Error> {
    let rows = people::table
        .order((people::first_name, people::last_name, people::username_key))
        .select(PersonRow::as_select())
        .load(db.0)?;
    rows.into_iter().map(PersonRow::person).collect()
}

/// Which of these names ([`username_key`]) exist.
pub fn taken_names(db: &mut Db<'_>, keys: &[String]) -> Result<HashSet<String>, Error> {
    let all: Vec<String> = people::table.select(people::username_key).load(db.0)?;
    let all: HashSet<String> = all.into_iter().collect();
    Ok(keys
        .iter()
        .filter(|key| all.contains(*key))
        .cloned()
        .collect())
}

/// Deletes a person with everything that is theirs; content must have another owner. Where only a name
/// is left, the pseudonym takes its place.
pub fn delete(db: &mut Db<'_>, person: Id<Person>, pseudonym: &str) -> Result<(), Error> {
    let Some(found) = find(db, person)? else {
        return Ok(());
    };
    db.changed(Subject::Person(person));
    let guid = person.to_string();
    let names = [found.display_name(), found.username];
    diesel::update(integrations::table.filter(integrations::secret_set_by.eq_any(names)))
        .set(integrations::secret_set_by.eq(pseudonym))
        .execute(db.0)?;
    diesel::update(revocations::table.filter(revocations::person.eq(&guid)))
        .set((
            revocations::person_name.eq(pseudonym),
            revocations::account.eq(None::<String>),
        ))
        .execute(db.0)?;
    if !found.email.is_empty() {
        let mail = deliveries::table.filter(deliveries::address.eq(&found.email));
        diesel::delete(mail).execute(db.0)?;
    }
    diesel::delete(visits::table.filter(visits::person.eq(&guid))).execute(db.0)?;
    diesel::delete(token_uses::table.filter(token_uses::person.eq(&guid))).execute(db.0)?;
    diesel::delete(app_sessions::table.filter(app_sessions::person.eq(&guid))).execute(db.0)?;
    diesel::delete(people::table.filter(people::guid.eq(&guid))).execute(db.0)?;
    Ok(())
}

/// When the first account was made; `None` if there is none.
pub fn first_created(db: &mut Db<'_>) -> Result<Option<Timestamp>, Error> {
    let first: Option<i64> = people::table
        .select(diesel::dsl::min(people::created_at))
        .first(db.0)?;
    Ok(first.map(Timestamp))
}

/// The administrators who are not locked.
pub fn administrators(db: &mut Db<'_>) -> Result<Vec<Person>, Error> {
    let rows = people::table
        .filter(people::role.eq(Role::Administrator.as_str()))
        .filter(people::locked.eq(false))
        .select(PersonRow::as_select())
        .load(db.0)?;
    rows.into_iter().map(PersonRow::person).collect()
}

/// The number of administrators who are not locked.
pub fn count_administrators(db: &mut Db<'_>) -> Result<i64, Error> {
    Ok(people::table
        .filter(people::role.eq(Role::Administrator.as_str()))
        .filter(people::locked.eq(false))
        .count()
        .get_result(db.0)?)
}

/// The number of people.
pub fn count(db: &mut Db<'_>) -> Result<i64, Error> {
    Ok(people::table.count().get_result(db.0)?)
}

/// Replaces a person's one-time link; `None`: the link for creating the first administrator.
pub fn set_setup_link(
    db: &mut Db<'_>,
    person: Option<Id<Person>>,
    token_hash: &str,
    expires_at: Timestamp,
) -> Result<(), Error> {
    let person = person.map(|person| person.to_string());
    match &person {
        Some(person) => diesel::delete(setup_links::table.filter(setup_links::person.eq(person)))
            .execute(db.0)?,
        None => diesel::delete(setup_links::table.filter(setup_links::person.is_null()))
            .execute(db.0)?,
    };
    diesel::insert_into(setup_links::table)
        .values((
            setup_links::token_hash.eq(token_hash),
            setup_links::expires_at.eq(expires_at.0),
            setup_links::person.eq(person),
        ))
        .execute(db.0)?;
    Ok(())
}

/// When the one-time links of people end or ended.
pub fn setup_links(db: &mut Db<'_>) -> Result<HashMap<Id<Person>, Timestamp>, Error> {
    let rows: Vec<(Option<String>, i64)> = setup_links::table
        .filter(setup_links::person.is_not_null())
        .select((setup_links::person, setup_links::expires_at))
        .load(db.0)?;
    rows.into_iter()
        .filter_map(|(person, end)| Some((person?, end)))
        .map(|(person, end)| Ok((id(&person)?, Timestamp(end))))
        .collect()
}

/// Whom a one-time link is for.
pub enum SetupLink {
    /// The first administrator, who does not exist yet.
    FirstAdministrator,
    Person(Id<Person>),
}

/// Whom an unexpired one-time link is for.
pub fn setup_link(
    db: &mut Db<'_>,
    token_hash: &str,
    now: Timestamp,
) -> Result<Option<SetupLink>, Error> {
    let found: Option<Option<String>> = setup_links::table
        .find(token_hash)
        .filter(setup_links::expires_at.gt(now.0))
        .select(setup_links::person)
        .first(db.0)
        .optional()?;
    Ok(match found {
        None => None,
        Some(None) => Some(SetupLink::FirstAdministrator),
        Some(Some(person)) => Some(SetupLink::Person(id(&person)?)),
    })
}

/// Deletes an unexpired one-time link; `false` if there is none.
pub fn redeem_setup_link(db: &mut Db<'_>, token_hash: &str, now: Timestamp) -> Result<bool, Error> {
    let taken = diesel::delete(
        setup_links::table
            .find(token_hash)
            .filter(setup_links::expires_at.gt(now.0)),
    )
    .execute(db.0)?;
    Ok(taken == 1)
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = api_keys)]
struct KeyRow {
    number: i64,
    person: String,
    name: String,
    role: String,
    content: Option<String>,
    created_at: i64,
    active_at: Option<i64>,
    expires_at: Option<i64>,
}

impl KeyRow {
    fn key(self) -> Result<ApiKey, Error> {
        Ok(ApiKey {
            number: self.number,
            person: id(&self.person)?,
            name: self.name,
            role: Role::parse(&self.role).ok_or_else(|| damaged_row("role of a key"))?,
            content: self.content.as_deref().map(id).transpose()?,
            created_at: Timestamp(self.created_at),
            active_at: self.active_at.map(Timestamp),
            expires_at: self.expires_at.map(Timestamp),
        })
    }
}

/// Adds a key and returns its number; `key.number` is ignored.
pub fn insert_key(db: &mut Db<'_>, key: &ApiKey, key_hash: &str) -> Result<i64, Error> {
    Ok(diesel::insert_into(api_keys::table)
        .values((
            api_keys::person.eq(key.person.to_string()),
            api_keys::name.eq(&key.name),
            api_keys::role.eq(key.role.as_str()),
            api_keys::key_hash.eq(key_hash),
            api_keys::content.eq(key.content.map(|content| content.to_string())),
            api_keys::created_at.eq(key.created_at.0),
            api_keys::expires_at.eq(key.expires_at.map(|at| at.0)),
        ))
        .returning(api_keys::number)
        .get_result(db.0)?)
}

/// A person's keys, oldest first.
pub fn keys(db: &mut Db<'_>, person: Id<Person>) -> Result<Vec<ApiKey>, Error> {
    let rows = api_keys::table
        .filter(api_keys::person.eq(person.to_string()))
        .order(api_keys::number)
        .select(KeyRow::as_select())
        .load(db.0)?;
    rows.into_iter().map(KeyRow::key).collect()
}

/// Everybody who owns a content item.
pub fn owners_of_content(db: &mut Db<'_>) -> Result<HashMap<Id<Person>, Person>, Error> {
    let owners = content::table.select(content::owner);
    let rows = people::table
        .filter(people::guid.eq_any(owners))
        .select(PersonRow::as_select())
        .load(db.0)?;
    rows.into_iter()
        .map(|row: PersonRow| row.person().map(|person| (person.id, person)))
        .collect()
}

/// Deletes all keys of a person; returns their number.
pub fn delete_keys_of(db: &mut Db<'_>, person: Id<Person>) -> Result<usize, Error> {
    db.changed(Subject::Person(person));
    db.ended(&Ending::ApiKeysOfPerson { person })?;
    let rows = api_keys::table.filter(api_keys::person.eq(person.to_string()));
    Ok(diesel::delete(rows).execute(db.0)?)
}

/// Keys of people that do not end, or end later than `life` after they were made; with the time at
/// which they are to end. At most a thousand.
pub fn keys_that_outlive(
    db: &mut Db<'_>,
    life: std::time::Duration,
) -> Result<Vec<(i64, Timestamp)>, Error> {
    let life_millis = i64::try_from(life.as_millis()).unwrap_or(i64::MAX);
    let rows: Vec<(i64, i64)> = api_keys::table
        .filter(api_keys::content.is_null())
        .filter(
            api_keys::expires_at
                .is_null()
                .or(api_keys::expires_at.gt((api_keys::created_at + life_millis).nullable())),
        )
        .limit(1000)
        .select((api_keys::number, api_keys::created_at))
        .load(db.0)?;
    let end = |made: i64| Timestamp(made).plus(life);
    Ok(rows
        .into_iter()
        .map(|(number, made)| (number, end(made)))
        .collect())
}

/// Lets a key end at this time.
pub fn end_key_at(db: &mut Db<'_>, number: i64, end: Timestamp) -> Result<(), Error> {
    db.changed(Subject::ApiKey(number));
    diesel::update(api_keys::table.find(number))
        .set(api_keys::expires_at.eq(end.0))
        .execute(db.0)?;
    Ok(())
}

/// An item's content keys, oldest first.
pub fn content_keys(db: &mut Db<'_>, content: Id<Content>) -> Result<Vec<ApiKey>, Error> {
    let rows = api_keys::table
        .filter(api_keys::content.eq(content.to_string()))
        .order(api_keys::number)
        .select(KeyRow::as_select())
        .load(db.0)?;
    rows.into_iter().map(KeyRow::key).collect()
}

/// A key and its person, by the hash of the presented key. Checks neither expiry nor lock.
pub fn by_key(db: &mut Db<'_>, key_hash: &str) -> Result<Option<(ApiKey, Person)>, Error> {
    let row = api_keys::table
        .inner_join(people::table.on(people::guid.eq(api_keys::person)))
        .filter(api_keys::key_hash.eq(key_hash))
        .select((KeyRow::as_select(), PersonRow::as_select()))
        .first::<(KeyRow, PersonRow)>(db.0)
        .optional()?;
    row.map(|(key, person)| Ok((key.key()?, person.person()?)))
        .transpose()
}

/// A key and its person, by the key's number. Checks neither expiry nor lock.
pub fn by_key_number(db: &mut Db<'_>, number: i64) -> Result<Option<(ApiKey, Person)>, Error> {
    let row = api_keys::table
        .inner_join(people::table.on(people::guid.eq(api_keys::person)))
        .filter(api_keys::number.eq(number))
        .select((KeyRow::as_select(), PersonRow::as_select()))
        .first::<(KeyRow, PersonRow)>(db.0)
        .optional()?;
    row.map(|(key, person)| Ok((key.key()?, person.person()?)))
        .transpose()
}

/// Everybody with a consent for this item.
pub fn who_consented(
    db: &mut Db<'_>,
    item: Id<Content>,
) -> Result<HashMap<Id<Person>, Person>, Error> {
    let consented = consents::table
        .filter(consents::content.eq(item.to_string()))
        .select(consents::person);
    let rows = people::table
        .filter(people::guid.eq_any(consented))
        .select(PersonRow::as_select())
        .load(db.0)?;
    rows.into_iter()
        .map(|row: PersonRow| row.person().map(|person| (person.id, person)))
        .collect()
}

/// Deletes a key of this person; `false` if there is none.
pub fn delete_key(db: &mut Db<'_>, person: Id<Person>, number: i64) -> Result<bool, Error> {
    db.changed(Subject::ApiKey(number));
    db.ended(&Ending::ApiKey { number })?;
    let gone = diesel::delete(
        api_keys::table
            .find(number)
            .filter(api_keys::person.eq(person.to_string())),
    )
    .execute(db.0)?;
    Ok(gone == 1)
}

/// Lets an item's content keys end at `end`, unless they end before; deletes those that have ended.
pub fn end_content_keys(
    db: &mut Db<'_>,
    content: Id<Content>,
    now: Timestamp,
    end: Timestamp,
) -> Result<(), Error> {
    for key in content_keys(db, content)? {
        db.changed(Subject::ApiKey(key.number));
        let row = api_keys::table.find(key.number);
        match key.expires_at {
            Some(at) if at <= now => {
                db.ended(&Ending::ApiKey { number: key.number })?;
                diesel::delete(row).execute(db.0)?;
            }
            Some(at) if at <= end => {}
            _ => {
                diesel::update(row)
                    .set(api_keys::expires_at.eq(end.0))
                    .execute(db.0)?;
            }
        }
    }
    Ok(())
}

/// Deletes an item's content keys; returns their number.
pub fn delete_content_keys(db: &mut Db<'_>, content: Id<Content>) -> Result<usize, Error> {
    for key in content_keys(db, content)? {
        db.changed(Subject::ApiKey(key.number));
    }
    db.ended(&Ending::ApiKeysOfContent { content })?;
    Ok(
        diesel::delete(api_keys::table.filter(api_keys::content.eq(content.to_string())))
            .execute(db.0)?,
    )
}
