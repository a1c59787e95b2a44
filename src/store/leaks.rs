//! Data of the leak alarm: when each viewer was last seen at each process of an item, when their
//! token was last used there, and the leaks found. The rules are in `domain::leak`.

use super::{
    Db, Error, damaged_row, id,
    schema::{leaks, visits},
};
use crate::domain::{
    Id, Timestamp,
    content::{Content, ProcessId},
    leak::{Leak, LeakKind, Visit},
    person::Person,
};
use diesel::prelude::*;

/// Records that a viewer was seen at a process.
pub fn record_visit(db: &mut Db<'_>, item: Id<Content>, visit: Visit) -> Result<(), Error> {
    let key = Key::new(item, visit.process, visit.person);
    let at = Some(visit.seen_at.0);
    if diesel::update(visits::table.find(key.columns()))
        .set(visits::seen_at.eq(at))
        .execute(db.0)?
        == 0
    {
        insert(db, &key, at, None)?;
    }
    Ok(())
}

/// Records that a process used a viewer's token. Ignored if the known use, or the last [`clear`],
/// is as recent.
pub fn record_token_use(
    db: &mut Db<'_>,
    item: Id<Content>,
    process: ProcessId,
    person: Id<Person>,
    at: Timestamp,
) -> Result<(), Error> {
    let key = Key::new(item, process, person);
    let row = visits::table.find(key.columns());
    let known: Option<(Option<i64>, Option<i64>)> = row
        .select((visits::used_at, visits::cleared_at))
        .first(db.0)
        .optional()?;
    match known {
        Some((used, cleared)) if used.max(cleared).is_none_or(|known| at.0 > known) => {
            diesel::update(row)
                .set(visits::used_at.eq(Some(at.0)))
                .execute(db.0)?;
        }
        Some(_) => {}
        None => insert(db, &key, None, Some(at.0))?,
    }
    Ok(())
}

/// The primary key of `visits`, as text.
struct Key {
    item: String,
    process: String,
    person: String,
}

impl Key {
    fn new(item: Id<Content>, process: ProcessId, person: Id<Person>) -> Self {
        Self {
            item: item.to_string(),
            process: process.to_string(),
            person: person.to_string(),
        }
    }

    fn columns(&self) -> (&str, &str, &str) {
        (&self.item, &self.process, &self.person)
    }
}

fn insert(
    db: &mut Db<'_>,
    key: &Key,
    seen_at: Option<i64>,
    used_at: Option<i64>,
) -> Result<(), Error> {
    diesel::insert_into(visits::table)
        .values((
            visits::content.eq(&key.item),
            visits::process.eq(&key.process),
            visits::person.eq(&key.person),
            visits::seen_at.eq(seen_at),
            visits::used_at.eq(used_at),
        ))
        .execute(db.0)?;
    Ok(())
}

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

/// The last uses after `since`, up to and including `until`.
pub fn used_between(
    db: &mut Db<'_>,
    since: Timestamp,
    until: Timestamp,
) -> Result<Vec<TokenUse>, Error> {
    let rows: Vec<(String, String, String, Option<i64>)> = visits::table
        .filter(visits::used_at.gt(since.0).and(visits::used_at.le(until.0)))
        .select((
            visits::content,
            visits::process,
            visits::person,
            visits::used_at,
        ))
        .load(db.0)?;
    rows.into_iter()
        .map(|(item, process, person, at)| {
            Ok(TokenUse {
                content: id(&item)?,
                process: parse_process_id(&process)?,
                person: id(&person)?,
                at: Timestamp(at.ok_or_else(|| damaged_row("use of a token"))?),
            })
        })
        .collect()
}

/// When each viewer was last at each process of an item.
pub fn visits(db: &mut Db<'_>, item: Id<Content>) -> Result<Vec<Visit>, Error> {
    let rows: Vec<(String, String, Option<i64>)> = visits::table
        .filter(visits::content.eq(item.to_string()))
        .select((visits::person, visits::process, visits::seen_at))
        .load(db.0)?;
    rows.into_iter()
        .filter_map(|(person, process, at)| Some((person, process, at?)))
        .map(|(person, process, at)| {
            Ok(Visit {
                person: id(&person)?,
                process: parse_process_id(&process)?,
                seen_at: Timestamp(at),
            })
        })
        .collect()
}

/// Deletes presence and uses from before `before`.
pub fn purge(db: &mut Db<'_>, before: Timestamp) -> Result<(), Error> {
    diesel::delete(
        visits::table
            .filter(visits::seen_at.is_null().or(visits::seen_at.lt(before.0)))
            .filter(visits::used_at.is_null().or(visits::used_at.lt(before.0)))
            .filter(
                visits::cleared_at
                    .is_null()
                    .or(visits::cleared_at.lt(before.0)),
            ),
    )
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
    let key = Key::new(used.content, used.process, used.person);
    let (item, person, at) = (&key.item, &key.person, used.at);
    let last: Option<Option<i64>> = visits::table
        .find(key.columns())
        .select(visits::used_at)
        .first(db.0)
        .optional()?;
    if last.flatten().is_none_or(|last| last < at.0) {
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

/// Clears an item's leaks and uses; returns the number of leaks. `cleared_at` makes a late report
/// of an earlier use be ignored.
pub fn clear(db: &mut Db<'_>, item: Id<Content>, now: Timestamp) -> Result<usize, Error> {
    diesel::update(visits::table.filter(visits::content.eq(item.to_string())))
        .set((
            visits::used_at.eq(None::<i64>),
            visits::cleared_at.eq(Some(now.0)),
        ))
        .execute(db.0)?;
    Ok(diesel::delete(leaks::table.filter(leaks::content.eq(item.to_string()))).execute(db.0)?)
}
