//! Single sign-on: which person an identity of the sign-in provider (issuer and subject) is, and
//! the sealed refresh token that a sign-in left for its browser session.

use super::{
    Db, Error, id,
    schema::{identities, sign_in_grants},
};
use crate::{
    domain::{
        Id, Timestamp,
        person::{Person, Session},
    },
    vault::Sealed,
};
use diesel::prelude::*;

/// Links an identity to a person. [`Error::Taken`] if the identity is linked already.
pub fn insert(
    db: &mut Db<'_>,
    issuer: &str,
    subject: &str,
    person: Id<Person>,
    now: Timestamp,
) -> Result<(), Error> {
    diesel::insert_into(identities::table)
        .values((
            identities::issuer.eq(issuer),
            identities::subject.eq(subject),
            identities::person.eq(person.to_string()),
            identities::created_at.eq(now.0),
        ))
        .execute(db.0)?;
    Ok(())
}

/// The person of an identity.
pub fn person(db: &mut Db<'_>, issuer: &str, subject: &str) -> Result<Option<Id<Person>>, Error> {
    let guid: Option<String> = identities::table
        .find((issuer, subject))
        .select(identities::person)
        .first(db.0)
        .optional()?;
    guid.as_deref().map(id).transpose()
}

/// Whether the person has an identity at this issuer.
pub fn is_known_at(db: &mut Db<'_>, issuer: &str, person: Id<Person>) -> Result<bool, Error> {
    let count: i64 = identities::table
        .filter(identities::issuer.eq(issuer))
        .filter(identities::person.eq(person.to_string()))
        .count()
        .get_result(db.0)?;
    Ok(count > 0)
}

/// Stores the refresh token of a browser session's sign-in.
pub fn put_sign_in_refresh_token(
    db: &mut Db<'_>,
    session: Id<Session>,
    token: &Sealed,
) -> Result<(), Error> {
    diesel::delete(sign_in_grants::table.find(session.to_string())).execute(db.0)?;
    diesel::insert_into(sign_in_grants::table)
        .values((
            sign_in_grants::session.eq(session.to_string()),
            sign_in_grants::refresh_token.eq(&token.0),
        ))
        .execute(db.0)?;
    Ok(())
}

/// The refresh token of a browser session's sign-in.
pub fn sign_in_refresh_token(
    db: &mut Db<'_>,
    session: Id<Session>,
) -> Result<Option<Sealed>, Error> {
    let token: Option<String> = sign_in_grants::table
        .find(session.to_string())
        .select(sign_in_grants::refresh_token)
        .first(db.0)
        .optional()?;
    Ok(token.map(Sealed))
}
