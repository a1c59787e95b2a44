//! Deletes everything by which anybody is let in. See `service::people::emergency`.

use super::{
    Db, Error, Store,
    changes::Subject,
    endings, people,
    schema::{
        api_keys, attempts, content_sessions, handovers, held_tokens, sessions, setup_links,
        shown_once, sign_in_grants,
    },
};
use crate::domain::{Timestamp, ending::Ending};
use diesel::RunQueryDsl as _;

/// The named value that holds when everything was ended last.
const ENDED_AT: &str = "everything_ended_at";

/// When everything was ended last; `None`: never.
pub fn ended_at(db: &mut Db<'_>) -> Result<Option<Timestamp>, Error> {
    let text = Store::meta(db, ENDED_AT)?;
    Ok(text.and_then(|text| text.parse().ok()).map(Timestamp))
}

/// Deletes sessions, links, keys and what waits to become one; returns how many sessions and keys.
/// The keys of running processes are nowhere stored: they end by the moment that is written.
pub fn end_sessions_and_keys(db: &mut Db<'_>, now: Timestamp) -> Result<(usize, usize), Error> {
    db.changed(Subject::Everything);
    Store::write_meta(db, ENDED_AT, &now.0.to_string())?;
    for person in people::list(db)? {
        endings::record(db, &Ending::ApiKeysOfPerson { person: person.id })?;
    }
    let keys = diesel::delete(api_keys::table).execute(db.0)?;
    let sessions = diesel::delete(sessions::table).execute(db.0)?;
    diesel::delete(content_sessions::table).execute(db.0)?;
    diesel::delete(handovers::table).execute(db.0)?;
    diesel::delete(setup_links::table).execute(db.0)?;
    diesel::delete(shown_once::table).execute(db.0)?;
    diesel::delete(attempts::table).execute(db.0)?;
    diesel::delete(sign_in_grants::table).execute(db.0)?;
    diesel::delete(held_tokens::table).execute(db.0)?;
    Ok((sessions, keys))
}
