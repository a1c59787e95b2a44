//! Data of the leak alarm: when each viewer was last seen at each process of an item, when their
//! token was last used there, and the leaks found. The rules are in `domain::leak`.

use super::{
    Db, Error, damaged, id,
    schema::{leaks, presences, stays},
};
use crate::domain::{
    Id, Timestamp,
    content::{Content, Mark},
    leak::{Kind, Leak, Stay},
    person::Person,
};
use diesel::prelude::*;

/// Records that a viewer was seen at a process. Also writes `presences`, the table that nodes of
/// the previous version read.
pub fn note_seen(db: &mut Db<'_>, item: Id<Content>, stay: Stay) -> Result<(), Error> {
    let (item, process, person, at) = (
        item.to_string(),
        stay.process.to_string(),
        stay.person.to_string(),
        stay.seen_at.0,
    );
    let row = stays::table.find((&item, &process, &person));
    if diesel::update(row)
        .set(stays::seen_at.eq(at))
        .execute(db.0)?
        == 0
    {
        insert(db, [&item, &process, &person], at, 0)?;
    }
    if diesel::update(presences::table.find((&item, &person)))
        .set(presences::seen_at.eq(at))
        .execute(db.0)?
        == 0
    {
        diesel::insert_into(presences::table)
            .values((
                presences::content.eq(&item),
                presences::person.eq(&person),
                presences::seen_at.eq(at),
            ))
            .execute(db.0)?;
    }
    Ok(())
}

/// Records that a process used a viewer's token. Ignored if the known use, or the last [`forget`],
/// is as recent.
pub fn note_used(
    db: &mut Db<'_>,
    item: Id<Content>,
    process: Mark,
    person: Id<Person>,
    at: Timestamp,
) -> Result<(), Error> {
    let (item, process, person) = (item.to_string(), process.to_string(), person.to_string());
    let row = stays::table.find((&item, &process, &person));
    match row.select(stays::used_at).first::<i64>(db.0).optional()? {
        Some(known) if at.0 > known.abs() => {
            diesel::update(row)
                .set(stays::used_at.eq(at.0))
                .execute(db.0)?;
        }
        Some(_) => {}
        None => insert(db, [&item, &process, &person], 0, at.0)?,
    }
    Ok(())
}

/// Adds a row to `stays`; 0 means never.
fn insert(
    db: &mut Db<'_>,
    [item, process, person]: [&str; 3],
    seen_at: i64,
    used_at: i64,
) -> Result<(), Error> {
    diesel::insert_into(stays::table)
        .values((
            stays::content.eq(item),
            stays::process.eq(process),
            stays::person.eq(person),
            stays::seen_at.eq(seen_at),
            stays::used_at.eq(used_at),
        ))
        .execute(db.0)?;
    Ok(())
}

/// The last use of a viewer's token by a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    pub content: Id<Content>,
    pub process: Mark,
    pub person: Id<Person>,
    pub at: Timestamp,
}

fn mark(text: &str) -> Result<Mark, Error> {
    text.parse().map_err(|_| damaged("mark of a process"))
}

/// The last uses after `since`, up to and including `until`.
pub fn used_between(
    db: &mut Db<'_>,
    since: Timestamp,
    until: Timestamp,
) -> Result<Vec<Use>, Error> {
    let rows: Vec<(String, String, String, i64)> = stays::table
        .filter(stays::used_at.gt(since.0).and(stays::used_at.le(until.0)))
        .select((
            stays::content,
            stays::process,
            stays::person,
            stays::used_at,
        ))
        .load(db.0)?;
    rows.into_iter()
        .map(|(item, process, person, at)| {
            Ok(Use {
                content: id(&item)?,
                process: mark(&process)?,
                person: id(&person)?,
                at: Timestamp(at),
            })
        })
        .collect()
}

/// When each viewer was last at each process of an item.
pub fn stays(db: &mut Db<'_>, item: Id<Content>) -> Result<Vec<Stay>, Error> {
    let rows: Vec<(String, String, i64)> = stays::table
        .filter(
            stays::content
                .eq(item.to_string())
                .and(stays::seen_at.gt(0)),
        )
        .select((stays::person, stays::process, stays::seen_at))
        .load(db.0)?;
    let mut found = rows
        .into_iter()
        .map(|(person, process, at)| {
            Ok(Stay {
                person: id(&person)?,
                process: mark(&process)?,
                seen_at: Timestamp(at),
            })
        })
        .collect::<Result<Vec<_>, Error>>()?;
    // Viewers whom a node of the previous version saw more recently: it does not record the
    // process.
    let before: Vec<(String, i64)> = presences::table
        .filter(presences::content.eq(item.to_string()))
        .select((presences::person, presences::seen_at))
        .load(db.0)?;
    let mut last = std::collections::HashMap::new();
    for stay in &found {
        let known = last.entry(stay.person).or_insert(stay.seen_at);
        *known = (*known).max(stay.seen_at);
    }
    for (person, at) in before {
        let (person, seen_at) = (id(&person)?, Timestamp(at));
        if last.get(&person).is_none_or(|last| seen_at > *last) {
            found.push(Stay {
                person,
                process: Mark::ONLY,
                seen_at,
            });
        }
    }
    Ok(found)
}

/// Deletes presence and uses from before `before`.
pub fn purge(db: &mut Db<'_>, before: Timestamp) -> Result<(), Error> {
    diesel::delete(
        stays::table.filter(stays::seen_at.lt(before.0).and(stays::used_at.lt(before.0))),
    )
    .execute(db.0)?;
    diesel::delete(presences::table.filter(presences::seen_at.lt(before.0))).execute(db.0)?;
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
/// [`forget`] cleared the use meanwhile.
pub fn add(db: &mut Db<'_>, used: Use, kind: Kind) -> Result<bool, Error> {
    let (item, process, person, at) = (
        used.content.to_string(),
        used.process.to_string(),
        used.person.to_string(),
        used.at,
    );
    let row = stays::table
        .find((&item, &process, &person))
        .select(stays::used_at);
    if row
        .first::<i64>(db.0)
        .optional()?
        .is_none_or(|last| last < at.0)
    {
        return Ok(false);
    }
    let known: i64 = leaks::table
        .find((&item, &person))
        .count()
        .get_result(db.0)?;
    // The same use may be judged more than once: `last_at` makes this idempotent.
    diesel::update(
        leaks::table
            .find((&item, &person))
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
                leaks::content.eq(&item),
                leaks::person.eq(&person),
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
                kind: Kind::parse(&row.kind).ok_or_else(|| damaged("kind of a leak"))?,
                first_at: Timestamp(row.first_at),
                last_at: Timestamp(row.last_at),
                times: row.times,
            })
        })
        .collect()
}

/// Clears an item's leaks and uses; returns the number of leaks. A negative `used_at` records when
/// they were cleared, so that a late report of an earlier use is ignored.
pub fn forget(db: &mut Db<'_>, item: Id<Content>, now: Timestamp) -> Result<usize, Error> {
    diesel::update(stays::table.filter(stays::content.eq(item.to_string())))
        .set(stays::used_at.eq(-now.0))
        .execute(db.0)?;
    Ok(diesel::delete(leaks::table.filter(leaks::content.eq(item.to_string()))).execute(db.0)?)
}
