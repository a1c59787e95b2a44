//! Short-lived rows: password attempts, session tokens that stay valid beyond their hour, secrets
//! that are shown once, owners of app sessions, and live nodes.
//!
//! Secrets shown once have a table of their own instead of a place in the browser session's row.
//! App sessions are recorded because a Streamlit client resumes one by its id alone (the third
//! WebSocket subprotocol): the proxy refuses an id that was given to another viewer.

use super::{
    Db, Error, id,
    schema::{app_sessions, held_tokens, nodes, shown_once, sign_in_tries},
};
use crate::{
    domain::{Id, Timestamp, content::Content, person::Person},
    vault::Sealed,
};
use diesel::{dsl::exists, prelude::*};

/// Times of the password attempts of `who` since `since`, oldest first. `who` is a hash of name and
/// address.
pub fn password_attempts(
    db: &mut Db<'_>,
    who: &str,
    since: Timestamp,
) -> Result<Vec<Timestamp>, Error> {
    let rows: Vec<i64> = sign_in_tries::table
        .filter(sign_in_tries::who.eq(who))
        .filter(sign_in_tries::at.gt(since.0))
        .order(sign_in_tries::at)
        .select(sign_in_tries::at)
        .load(db.0)?;
    Ok(rows.into_iter().map(Timestamp).collect())
}

/// Deletes the attempts of `who`, after a correct password.
pub fn delete_password_attempts(db: &mut Db<'_>, who: &str) -> Result<(), Error> {
    diesel::delete(sign_in_tries::table.filter(sign_in_tries::who.eq(who))).execute(db.0)?;
    Ok(())
}

/// Whether a node with a heartbeat since `alive_since` holds the session token
/// ([`super::bookkeeping::hold_tokens`]).
pub fn is_token_held(
    db: &mut Db<'_>,
    token_hash: &str,
    alive_since: Timestamp,
) -> Result<bool, Error> {
    let held = held_tokens::table
        .inner_join(nodes::table.on(nodes::node.eq(held_tokens::node)))
        .filter(held_tokens::token_hash.eq(token_hash))
        .filter(nodes::seen_at.gt(alive_since.0));
    Ok(diesel::select(exists(held)).get_result(db.0)?)
}

/// Stores a sealed text for [`take_shown_once`].
pub fn put_shown_once(
    db: &mut Db<'_>,
    name_hash: &str,
    person: Id<Person>,
    shown: &Sealed,
    expires_at: Timestamp,
) -> Result<(), Error> {
    diesel::insert_into(shown_once::table)
        .values((
            shown_once::name_hash.eq(name_hash),
            shown_once::person.eq(person.to_string()),
            shown_once::shown.eq(&shown.0),
            shown_once::expires_at.eq(expires_at.0),
        ))
        .execute(db.0)?;
    Ok(())
}

/// Returns and deletes the text of this name, if it belongs to this person and has not expired.
pub fn take_shown_once(
    db: &mut Db<'_>,
    name_hash: &str,
    person: Id<Person>,
    now: Timestamp,
) -> Result<Option<Sealed>, Error> {
    let row = || {
        shown_once::table
            .filter(shown_once::name_hash.eq(name_hash))
            .filter(shown_once::person.eq(person.to_string()))
            .filter(shown_once::expires_at.gt(now.0))
    };
    let found: Option<String> = row().select(shown_once::shown).first(db.0).optional()?;
    diesel::delete(row()).execute(db.0)?;
    Ok(found.map(Sealed))
}

/// To whom an app gave an app session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppSessionOwner {
    pub item: Id<Content>,
    /// `None`: a viewer who is not signed in.
    pub viewer: Option<Id<Person>>,
}

/// An app session, for [`super::bookkeeping::record_app_sessions`].
#[derive(Clone, Debug)]
pub struct AppSession {
    pub id_hash: String,
    pub owner: AppSessionOwner,
    pub since: Timestamp,
}

/// The owner of an app session, by the hash of its id.
pub fn app_session_owner(db: &mut Db<'_>, id_hash: &str) -> Result<Option<AppSessionOwner>, Error> {
    let row: Option<(String, String)> = app_sessions::table
        .find(id_hash)
        .select((app_sessions::content, app_sessions::person))
        .first(db.0)
        .optional()?;
    row.map(|(content, person)| {
        // A viewer who is not signed in is the empty text.
        let viewer = (!person.is_empty()).then(|| id(&person)).transpose()?;
        Ok(AppSessionOwner {
            item: id(&content)?,
            viewer,
        })
    })
    .transpose()
}

/// A portal process that serves.
#[derive(Clone, Debug)]
pub struct Node {
    /// Node id and a random id of the process run: see `service::node`.
    pub node: String,
    pub version: String,
    /// The ids of the keys in its keyring.
    pub keys: Vec<String>,
    /// Time of its last heartbeat.
    pub seen_at: Timestamp,
}

/// Records a node's heartbeat; `true` if it is the first, or the others have forgotten the node.
pub fn record_heartbeat(db: &mut Db<'_>, node: &Node) -> Result<bool, Error> {
    let known = diesel::delete(nodes::table.find(&node.node)).execute(db.0)?;
    diesel::insert_into(nodes::table)
        .values((
            nodes::node.eq(&node.node),
            nodes::version.eq(&node.version),
            nodes::keys.eq(node.keys.join(" ")),
            nodes::seen_at.eq(node.seen_at.0),
        ))
        .execute(db.0)?;
    Ok(known == 0)
}

/// Removes a node that stops or has ended, with what it kept for others: held tokens, and who was
/// there.
pub fn delete_node(db: &mut Db<'_>, node: &str) -> Result<(), Error> {
    let heartbeat: Option<i64> = nodes::table
        .find(node)
        .select(nodes::seen_at)
        .first(db.0)
        .optional()?;
    super::leaks::end_stays(db, node, Timestamp(heartbeat.unwrap_or_default()))?;
    diesel::delete(held_tokens::table.filter(held_tokens::node.eq(node))).execute(db.0)?;
    diesel::delete(nodes::table.find(node)).execute(db.0)?;
    Ok(())
}

/// The nodes with a heartbeat since `since`.
pub fn nodes(db: &mut Db<'_>, since: Timestamp) -> Result<Vec<Node>, Error> {
    let rows: Vec<(String, String, String, i64)> = nodes::table
        .filter(nodes::seen_at.gt(since.0))
        .order(nodes::node)
        .load(db.0)?;
    Ok(rows
        .into_iter()
        .map(|(node, version, keys, seen_at)| Node {
            node,
            version,
            keys: keys.split(' ').map(str::to_owned).collect(),
            seen_at: Timestamp(seen_at),
        })
        .collect())
}

/// The nodes whose last heartbeat was before `before`.
pub fn nodes_before(db: &mut Db<'_>, before: Timestamp) -> Result<Vec<String>, Error> {
    Ok(nodes::table
        .filter(nodes::seen_at.lt(before.0))
        .select(nodes::node)
        .load(db.0)?)
}
