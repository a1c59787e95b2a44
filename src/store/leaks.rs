//! Data of the leak alarm: when each viewer was last seen at each process of an item, when their
//! token was last used there, and the leaks found. The rules are in `domain::leak`.

use super::{
    Db, Error, damaged_row, id,
    schema::{content, leaks, nodes, token_uses, visits},
};
use crate::domain::{
    Id, Timestamp,
    content::{Content, ProcessId},
    leak::{Leak, LeakKind, Visit},
    person::Person,
};
use diesel::prelude::*;

/// The last use of a viewer's token by a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenUse {
    pub content: Id<Content>,
    pub process: ProcessId,
    pub person: Id<Person>,
    pub at: Timestamp,
}

fn parse_process_id(text: &str) -> Result<ProcessId, Error> {
    text.parse().map_err(|_| damaged_row("mark of a process"))
}

/// The last uses after `since`, up to and including `until`, that were not cleared ([`clear`]).
pub fn used_between(
    db: &mut Db<'_>,
    since: Timestamp,
    until: Timestamp,
) -> Result<Vec<TokenUse>, Error> {
    let is_counted = content::leaks_cleared_at
        .is_null()
        .or(token_uses::used_at.nullable().gt(content::leaks_cleared_at));
    let rows: Vec<(String, String, String, i64)> = token_uses::table
        .inner_join(content::table.on(content::guid.eq(token_uses::content)))
        .filter(token_uses::used_at.gt(since.0))
        .filter(token_uses::used_at.le(until.0))
        .filter(is_counted.assume_not_null())
        .select((
            token_uses::content,
            token_uses::process,
            token_uses::person,
            token_uses::used_at,
        ))
        .load(db.0)?;
    rows.into_iter()
        .map(|(item, process, person, at)| {
            Ok(TokenUse {
                content: id(&item)?,
                process: parse_process_id(&process)?,
                person: id(&person)?,
                at: Timestamp(at),
            })
        })
        .collect()
}

/// When each viewer was last at each process of an item. Who is there now was seen at the last
/// heartbeat of their node.
pub fn visits(db: &mut Db<'_>, item: Id<Content>) -> Result<Vec<Visit>, Error> {
    let rows: Vec<(String, String, bool, i64, i64, Option<i64>)> = visits::table
        .left_join(nodes::table.on(nodes::node.eq(visits::node)))
        .filter(visits::content.eq(item.to_string()))
        .select((
            visits::person,
            visits::process,
            visits::here,
            visits::since,
            visits::seen_at,
            nodes::seen_at.nullable(),
        ))
        .load(db.0)?;
    rows.into_iter()
        .map(|(person, process, is_here, since, seen_at, heartbeat)| {
            let heartbeat = heartbeat.filter(|_| is_here).unwrap_or(seen_at);
            Ok(Visit {
                person: id(&person)?,
                process: parse_process_id(&process)?,
                since: Timestamp(since),
                seen_at: Timestamp(seen_at.max(heartbeat)),
            })
        })
        .collect()
}

/// Ends the stays at a node that ends, or has ended: their viewers were last seen at its last
/// heartbeat.
pub fn end_stays(db: &mut Db<'_>, node: &str, heartbeat: Timestamp) -> Result<(), Error> {
    let here = || {
        visits::table
            .filter(visits::node.eq(node))
            .filter(visits::here)
    };
    diesel::update(here().filter(visits::seen_at.lt(heartbeat.0)))
        .set(visits::seen_at.eq(heartbeat.0))
        .execute(db.0)?;
    diesel::update(here())
        .set(visits::here.eq(false))
        .execute(db.0)?;
    Ok(())
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = leaks)]
struct Row {
    content: String,
    person: String,
    kind: String,
    first_at: i64,
    last_at: i64,
    times: i64,
}

/// Adds a use to the leaks; `true` if it is the first for this viewer and item. Ignored if
/// [`clear`] cleared the use meanwhile.
pub fn record_leak(db: &mut Db<'_>, used: TokenUse, kind: LeakKind) -> Result<bool, Error> {
    let (item, person, at) = (&used.content.to_string(), &used.person.to_string(), used.at);
    let last: Option<i64> = token_uses::table
        .find((item, used.process.to_string(), person))
        .select(token_uses::used_at)
        .first(db.0)
        .optional()?;
    if last.is_none_or(|last| last < at.0) {
        return Ok(false);
    }
    let known: i64 = leaks::table.find((item, person)).count().get_result(db.0)?;
    // The same use may be judged more than once: `last_at` makes this idempotent.
    diesel::update(
        leaks::table
            .find((item, person))
            .filter(leaks::last_at.lt(at.0)),
    )
    .set((
        leaks::last_at.eq(at.0),
        leaks::kind.eq(kind.as_str()),
        leaks::times.eq(leaks::times + 1),
    ))
    .execute(db.0)?;
    if known == 0 {
        diesel::insert_into(leaks::table)
            .values((
                leaks::content.eq(item),
                leaks::person.eq(person),
                leaks::kind.eq(kind.as_str()),
                leaks::first_at.eq(at.0),
                leaks::last_at.eq(at.0),
                leaks::times.eq(1),
            ))
            .execute(db.0)?;
    }
    Ok(known == 0)
}

/// The leaks of an item, oldest first.
pub fn of_content(db: &mut Db<'_>, item: Id<Content>) -> Result<Vec<Leak>, Error> {
    let rows = leaks::table
        .filter(leaks::content.eq(item.to_string()))
        .order(leaks::first_at)
        .select(Row::as_select())
        .load(db.0)?;
    rows.into_iter()
        .map(|row: Row| {
            Ok(Leak {
                content: id(&row.content)?,
                person: id(&row.person)?,
                kind: LeakKind::parse(&row.kind).ok_or_else(|| damaged_row("kind of a leak"))?,
                first_at: Timestamp(row.first_at),
                last_at: Timestamp(row.last_at),
                times: row.times,
            })
        })
        .collect()
}

/// Clears an item's leaks and uses; returns the number of leaks. Uses up to now that are reported
/// late do not count either.
pub fn clear(db: &mut Db<'_>, item: Id<Content>, now: Timestamp) -> Result<usize, Error> {
    let item = item.to_string();
    diesel::delete(token_uses::table.filter(token_uses::content.eq(&item))).execute(db.0)?;
    diesel::update(content::table.filter(content::guid.eq(&item)))
        .set(content::leaks_cleared_at.eq(now.0))
        .execute(db.0)?;
    Ok(diesel::delete(leaks::table.filter(leaks::content.eq(&item))).execute(db.0)?)
}
