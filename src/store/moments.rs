//! What lives for minutes: wrong passwords, session tokens held beyond their hour, secrets shown
//! once, sessions of apps, and the nodes that serve.

use super::{
    Db, Error, id,
    schema::{app_sessions, held_tokens, nodes, shown_once, sign_in_tries},
};
use crate::{
    domain::{Id, Timestamp, content::Content, person::Person},
    vault::Sealed,
};
use diesel::prelude::*;

/// When `who` tried since then, the oldest first.
pub fn tries(db: &mut Db<'_>, who: &str, since: Timestamp) -> Result<Vec<Timestamp>, Error> {
    let rows: Vec<i64> = sign_in_tries::table
        .filter(sign_in_tries::who.eq(who))
        .filter(sign_in_tries::at.gt(since.0))
        .order(sign_in_tries::at)
        .select(sign_in_tries::at)
        .load(db.0)?;
    Ok(rows.into_iter().map(Timestamp).collect())
}

pub fn add_try(db: &mut Db<'_>, who: &str, now: Timestamp) -> Result<(), Error> {
    diesel::insert_into(sign_in_tries::table)
        .values((sign_in_tries::who.eq(who), sign_in_tries::at.eq(now.0)))
        .execute(db.0)?;
    Ok(())
}

pub fn forget_tries(db: &mut Db<'_>, who: &str) -> Result<(), Error> {
    diesel::delete(sign_in_tries::table.filter(sign_in_tries::who.eq(who))).execute(db.0)?;
    Ok(())
}

/// Keeps a token exchangeable until then, on every node.
pub fn hold(db: &mut Db<'_>, token_hash: &str, until: Timestamp) -> Result<(), Error> {
    diesel::delete(held_tokens::table.find(token_hash)).execute(db.0)?;
    diesel::insert_into(held_tokens::table)
        .values((
            held_tokens::token_hash.eq(token_hash),
            held_tokens::until.eq(until.0),
        ))
        .execute(db.0)?;
    Ok(())
}

pub fn let_go(db: &mut Db<'_>, token_hash: &str) -> Result<(), Error> {
    diesel::delete(held_tokens::table.find(token_hash)).execute(db.0)?;
    Ok(())
}

pub fn is_held(db: &mut Db<'_>, token_hash: &str, now: Timestamp) -> Result<bool, Error> {
    let count: i64 = held_tokens::table
        .find(token_hash)
        .filter(held_tokens::until.gt(now.0))
        .count()
        .get_result(db.0)?;
    Ok(count > 0)
}

pub fn keep_shown(
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

/// What is kept under this name for this person, once.
pub fn take_shown(
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

/// Whose session of an app's own this is: `None` if nobody was seen to get it, `Some(None)` if
/// somebody who is not signed in was.
pub fn app_session(
    db: &mut Db<'_>,
    id_hash: &str,
    item: Id<Content>,
) -> Result<Option<Option<Id<Person>>>, Error> {
    let row = app_sessions::table
        .find(id_hash)
        .filter(app_sessions::content.eq(item.to_string()));
    let person: Option<String> = row.select(app_sessions::person).first(db.0).optional()?;
    person
        .map(|person| {
            if person.is_empty() {
                Ok(None)
            } else {
                id(&person).map(Some)
            }
        })
        .transpose()
}

/// Remembers whose session of an app's own this is. The first one counts: whoever repeats somebody
/// else's id gains nothing.
pub fn keep_app_session(
    db: &mut Db<'_>,
    id_hash: &str,
    item: Id<Content>,
    person: Option<Id<Person>>,
    now: Timestamp,
) -> Result<(), Error> {
    let known: i64 = app_sessions::table.find(id_hash).count().get_result(db.0)?;
    if known == 0 {
        diesel::insert_into(app_sessions::table)
            .values((
                app_sessions::id_hash.eq(id_hash),
                app_sessions::content.eq(item.to_string()),
                app_sessions::person
                    .eq(person.map(|person| person.to_string()).unwrap_or_default()),
                app_sessions::seen_at.eq(now.0),
            ))
            .execute(db.0)?;
    }
    Ok(())
}

/// A process that serves.
#[derive(Clone, Debug)]
pub struct Node {
    pub node: String,
    pub version: String,
    /// The ids of the keys it holds.
    pub keys: Vec<String>,
    pub seen_at: Timestamp,
}

pub fn put_node(db: &mut Db<'_>, node: &Node) -> Result<(), Error> {
    diesel::delete(nodes::table.find(&node.node)).execute(db.0)?;
    diesel::insert_into(nodes::table)
        .values((
            nodes::node.eq(&node.node),
            nodes::version.eq(&node.version),
            nodes::keys.eq(node.keys.join(" ")),
            nodes::seen_at.eq(node.seen_at.0),
        ))
        .execute(db.0)?;
    Ok(())
}

pub fn delete_node(db: &mut Db<'_>, node: &str) -> Result<(), Error> {
    diesel::delete(nodes::table.find(node)).execute(db.0)?;
    Ok(())
}

/// The nodes seen since then.
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

/// Forgets what is over.
pub fn purge(
    db: &mut Db<'_>,
    now: Timestamp,
    tries_before: Timestamp,
    nodes_before: Timestamp,
) -> Result<(), Error> {
    diesel::delete(sign_in_tries::table.filter(sign_in_tries::at.lt(tries_before.0)))
        .execute(db.0)?;
    diesel::delete(held_tokens::table.filter(held_tokens::until.le(now.0))).execute(db.0)?;
    diesel::delete(shown_once::table.filter(shown_once::expires_at.le(now.0))).execute(db.0)?;
    diesel::delete(nodes::table.filter(nodes::seen_at.lt(nodes_before.0))).execute(db.0)?;
    // Apps forget theirs within minutes; a tab that was asleep for a week begins anew.
    let week = now.minus(std::time::Duration::from_secs(7 * 86_400));
    diesel::delete(app_sessions::table.filter(app_sessions::seen_at.lt(week.0))).execute(db.0)?;
    Ok(())
}
