//! The handover from the portal's origin to content's: single-use codes, and the content sessions
//! that they are redeemed for. Codes, nonces and keys are stored only as hashes.

use super::{
    Db, Error, id,
    schema::{content_sessions, handovers},
};
use crate::domain::{
    Id, Timestamp,
    content::Content,
    person::{Person, Session},
};
use diesel::prelude::*;

/// Whom and what a code or a content session stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentSessionOwner {
    /// The browser session on the portal that it depends on.
    pub session: Id<Session>,
    pub person: Id<Person>,
    pub content: Id<Content>,
}

/// Stores a code, bound to the hash of the nonce that the browser holds on content's origin.
pub fn insert(
    db: &mut Db<'_>,
    code_hash: &str,
    nonce_hash: &str,
    bearer: ContentSessionOwner,
    expires_at: Timestamp,
) -> Result<(), Error> {
    diesel::insert_into(handovers::table)
        .values((
            handovers::code_hash.eq(code_hash),
            handovers::nonce_hash.eq(nonce_hash),
            handovers::session.eq(bearer.session.to_string()),
            handovers::person.eq(bearer.person.to_string()),
            handovers::content.eq(bearer.content.to_string()),
            handovers::expires_at.eq(expires_at.0),
        ))
        .execute(db.0)?;
    Ok(())
}

fn bearer(
    (session, person, content): (String, String, String),
) -> Result<ContentSessionOwner, Error> {
    Ok(ContentSessionOwner {
        session: id(&session)?,
        person: id(&person)?,
        content: id(&content)?,
    })
}

/// Deletes a code and returns what it stands for, with the hash of its nonce; `None` if it does not
/// exist or has expired. The caller compares the nonce: a wrong one uses the code up, too.
pub fn redeem(
    db: &mut Db<'_>,
    code_hash: &str,
    now: Timestamp,
) -> Result<Option<(ContentSessionOwner, String)>, Error> {
    type Row = (String, String, String, String, i64);
    let row: Option<Row> = handovers::table
        .find(code_hash)
        .select((
            handovers::session,
            handovers::person,
            handovers::content,
            handovers::nonce_hash,
            handovers::expires_at,
        ))
        .first(db.0)
        .optional()?;
    let Some((session, person, content, nonce_hash, expires_at)) = row else {
        return Ok(None);
    };
    let taken = diesel::delete(handovers::table.find(code_hash)).execute(db.0)?;
    if taken != 1 || expires_at <= now.0 {
        return Ok(None);
    }
    Ok(Some((bearer((session, person, content))?, nonce_hash)))
}

/// Whether there is a code with this hash.
pub fn is_known(db: &mut Db<'_>, code_hash: &str) -> Result<bool, Error> {
    let row = handovers::table.find(code_hash);
    Ok(diesel::select(diesel::dsl::exists(row)).get_result(db.0)?)
}

/// Adds a content session.
pub fn insert_session(
    db: &mut Db<'_>,
    key_hash: &str,
    bearer: ContentSessionOwner,
    now: Timestamp,
) -> Result<(), Error> {
    diesel::insert_into(content_sessions::table)
        .values((
            content_sessions::key_hash.eq(key_hash),
            content_sessions::session.eq(bearer.session.to_string()),
            content_sessions::person.eq(bearer.person.to_string()),
            content_sessions::content.eq(bearer.content.to_string()),
            content_sessions::created_at.eq(now.0),
        ))
        .execute(db.0)?;
    Ok(())
}

/// What a content session stands for. Does not check whether the browser session on the portal is
/// still live.
pub fn session(db: &mut Db<'_>, key_hash: &str) -> Result<Option<ContentSessionOwner>, Error> {
    let row = content_sessions::table
        .find(key_hash)
        .select((
            content_sessions::session,
            content_sessions::person,
            content_sessions::content,
        ))
        .first(db.0)
        .optional()?;
    row.map(bearer).transpose()
}
