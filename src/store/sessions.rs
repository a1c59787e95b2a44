//! Browser sessions. The session key is stored only as a hash.
//!
//! The state is not cached: the next request may reach another node.

use super::{Db, Error, changes::Subject, id, schema::people, schema::sessions};
use crate::domain::{
    Id, Timestamp,
    person::{Person, Session},
};
use diesel::prelude::*;

/// The columns that the caller writes.
pub struct SessionRow<'a> {
    pub key_hash: &'a str,
    /// The id that session tokens carry; `None` before sign-in.
    pub guid: Option<&'a str>,
    pub person: Option<&'a str>,
    /// The state, as JSON.
    pub state: &'a str,
    /// The network address at sign-in.
    pub address: &'a str,
    /// The browser and system at sign-in, in words.
    pub client: Option<&'a str>,
}

/// Adds a session.
pub fn insert(
    db: &mut Db<'_>,
    row: &SessionRow<'_>,
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<(), Error> {
    diesel::insert_into(sessions::table)
        .values((
            sessions::key_hash.eq(row.key_hash),
            sessions::guid.eq(row.guid),
            sessions::person.eq(row.person),
            sessions::state.eq(row.state),
            sessions::address.eq(row.address),
            sessions::client.eq(row.client),
            sessions::created_at.eq(now.0),
            sessions::seen_at.eq(now.0),
            sessions::expires_at.eq(expires_at.0),
        ))
        .execute(db.0)?;
    Ok(())
}

/// Writes the state of an existing session; `false` if it ended meanwhile.
pub fn update(db: &mut Db<'_>, row: &SessionRow<'_>) -> Result<bool, Error> {
    let changed = diesel::update(sessions::table.find(row.key_hash))
        .set(sessions::state.eq(row.state))
        .execute(db.0)?;
    Ok(changed == 1)
}

/// A stored session.
pub struct StoredSession {
    /// `None` before sign-in.
    pub id: Option<Id<Session>>,
    pub state: String,
    pub seen_at: Timestamp,
    pub expires_at: Timestamp,
}

/// The session with this key, expired ones included.
pub fn load(db: &mut Db<'_>, key_hash: &str) -> Result<Option<StoredSession>, Error> {
    let row: Option<(Option<String>, String, i64, i64)> = sessions::table
        .find(key_hash)
        .select((
            sessions::guid,
            sessions::state,
            sessions::seen_at,
            sessions::expires_at,
        ))
        .first(db.0)
        .optional()?;
    row.map(|(guid, state, seen, expires)| {
        Ok(StoredSession {
            id: guid.as_deref().map(id).transpose()?,
            state,
            seen_at: Timestamp(seen),
            expires_at: Timestamp(expires),
        })
    })
    .transpose()
}

/// Deletes a session.
pub fn delete(db: &mut Db<'_>, key_hash: &str) -> Result<(), Error> {
    let row = || sessions::table.find(key_hash);
    let guid: Option<Option<String>> = row().select(sessions::guid).first(db.0).optional()?;
    if let Some(guid) = guid.flatten() {
        db.changed(Subject::Session(id(&guid)?));
    }
    diesel::delete(row()).execute(db.0)?;
    Ok(())
}

/// The person of a live session, by the id that session tokens carry. `None` if it expired or was
/// last used before `idle_since`.
pub fn find_live_person(
    db: &mut Db<'_>,
    session: Id<Session>,
    now: Timestamp,
    idle_since: Timestamp,
) -> Result<Option<Person>, Error> {
    let row = sessions::table
        .inner_join(people::table.on(people::guid.nullable().eq(sessions::person)))
        .filter(sessions::guid.eq(session.to_string()))
        .filter(sessions::expires_at.gt(now.0))
        .filter(sessions::seen_at.gt(idle_since.0))
        .select(super::people::PersonRow::as_select())
        .first(db.0)
        .optional()?;
    row.map(super::people::PersonRow::person).transpose()
}

/// Id, times of creation and last use, address and client.
type ListRow = (Option<String>, i64, i64, String, Option<String>);

/// A person's live sessions, last used first.
pub fn of_person(
    db: &mut Db<'_>,
    person: Id<Person>,
    now: Timestamp,
    idle_since: Timestamp,
) -> Result<Vec<Session>, Error> {
    let rows: Vec<ListRow> = sessions::table
        .filter(sessions::person.eq(person.to_string()))
        .filter(sessions::expires_at.gt(now.0))
        .filter(sessions::seen_at.gt(idle_since.0))
        .order(sessions::seen_at.desc())
        .select((
            sessions::guid,
            sessions::created_at,
            sessions::seen_at,
            sessions::address,
            sessions::client,
        ))
        .load(db.0)?;
    rows.into_iter()
        .filter_map(|(guid, created, seen, address, client)| {
            let guid = guid?;
            Some(id(&guid).map(|id| Session {
                id,
                person,
                created_at: Timestamp(created),
                seen_at: Timestamp(seen),
                address,
                client,
            }))
        })
        .collect()
}

/// Deletes one of a person's sessions; returns the number of deleted rows.
pub fn delete_of_person(
    db: &mut Db<'_>,
    person: Id<Person>,
    session: Id<Session>,
) -> Result<usize, Error> {
    db.changed(Subject::Person(person));
    let row = sessions::table
        .filter(sessions::person.eq(person.to_string()))
        .filter(sessions::guid.eq(session.to_string()));
    Ok(diesel::delete(row).execute(db.0)?)
}

/// Deletes a person's sessions except one; returns their number.
pub fn delete_all_of_person(
    db: &mut Db<'_>,
    person: Id<Person>,
    except: Option<Id<Session>>,
) -> Result<usize, Error> {
    db.changed(Subject::Person(person));
    let except = except.map(|id| id.to_string()).unwrap_or_default();
    Ok(diesel::delete(
        sessions::table
            .filter(sessions::person.eq(person.to_string()))
            .filter(sessions::guid.ne(except)),
    )
    .execute(db.0)?)
}
