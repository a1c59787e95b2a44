//! When viewers were at an item last, and which items traded tokens of viewers who were elsewhere.

use super::{
    Db, Error, damaged, id,
    schema::{leaks, stays},
};
use crate::domain::{
    Id, Timestamp,
    content::{Content, Mark},
    leak::{Kind, Leak, Stay},
    person::Person,
};
use diesel::prelude::*;

/// Writes down when somebody was seen at a process, or their token used by it. Older times than those that are known change nothing.
pub fn note(db: &mut Db<'_>, item: Id<Content>, stay: Stay, used_at: Option<Timestamp>) -> Result<(), Error> {
    let (item, process, person) = (item.to_string(), stay.process.to_string(), stay.person.to_string());
    let row = stays::table.find((&item, &process, &person));
    let known: Option<(i64, i64)> = row.select((stays::seen_at, stays::used_at)).first(db.0).optional()?;
    let (seen_at, used_at) = (stay.seen_at.0, used_at.map_or(0, |at| at.0));
    match known {
        None => {
            diesel::insert_into(stays::table)
                .values((
                    stays::content.eq(&item),
                    stays::process.eq(&process),
                    stays::person.eq(&person),
                    stays::seen_at.eq(seen_at),
                    stays::used_at.eq(used_at),
                ))
                .execute(db.0)?;
        }
        Some((seen, used)) if seen < seen_at || used < used_at => {
            diesel::update(row).set((stays::seen_at.eq(seen.max(seen_at)), stays::used_at.eq(used.max(used_at)))).execute(db.0)?;
        }
        Some(_) => {}
    }
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

/// What was used since a moment.
pub fn used_since(db: &mut Db<'_>, since: Timestamp) -> Result<Vec<Use>, Error> {
    let rows: Vec<(String, String, String, i64)> = stays::table
        .filter(stays::used_at.gt(since.0))
        .select((stays::content, stays::process, stays::person, stays::used_at))
        .load(db.0)?;
    rows.into_iter()
        .map(|(item, process, person, at)| {
            Ok(Use { content: id(&item)?, process: mark(&process)?, person: id(&person)?, at: Timestamp(at) })
        })
        .collect()
}

/// Who was at an item, and when last. Somebody of whom only uses are known is not among them.
pub fn stays(db: &mut Db<'_>, item: Id<Content>) -> Result<Vec<Stay>, Error> {
    let rows: Vec<(String, String, i64)> = stays::table
        .filter(stays::content.eq(item.to_string()).and(stays::seen_at.gt(0)))
        .select((stays::person, stays::process, stays::seen_at))
        .load(db.0)?;
    rows.into_iter()
        .map(|(person, process, at)| Ok(Stay { person: id(&person)?, process: mark(&process)?, seen_at: Timestamp(at) }))
        .collect()
}

pub fn purge(db: &mut Db<'_>, before: Timestamp) -> Result<(), Error> {
    diesel::delete(stays::table.filter(stays::seen_at.lt(before.0).and(stays::used_at.lt(before.0)))).execute(db.0)?;
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

/// Adds to what is known of one viewer's token; `true` if nothing was known.
pub fn add(db: &mut Db<'_>, item: Id<Content>, person: Id<Person>, kind: Kind, at: Timestamp) -> Result<bool, Error> {
    let (item, person) = (item.to_string(), person.to_string());
    let known: i64 = leaks::table.find((&item, &person)).count().get_result(db.0)?;
    // The same use may be looked at more than once.
    diesel::update(leaks::table.find((&item, &person)).filter(leaks::last_at.lt(at.0)))
        .set((leaks::last_at.eq(at.0), leaks::times.eq(leaks::times + 1)))
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

pub fn of_content(db: &mut Db<'_>, item: Id<Content>) -> Result<Vec<Leak>, Error> {
    let rows = leaks::table.filter(leaks::content.eq(item.to_string())).order(leaks::first_at).select(Row::as_select()).load(db.0)?;
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

/// Forgets what was seen of an item; how many viewers it was about.
pub fn forget(db: &mut Db<'_>, item: Id<Content>) -> Result<usize, Error> {
    Ok(diesel::delete(leaks::table.filter(leaks::content.eq(item.to_string()))).execute(db.0)?)
}
