//! When viewers were at an item last, and which items traded tokens of viewers who were elsewhere.

use super::{
    Db, Error, damaged, id,
    schema::{consents, leaks, presences},
};
use crate::domain::{
    Id, Timestamp,
    content::Content,
    leak::{Kind, Leak},
    person::Person,
};
use diesel::prelude::*;

/// Writes down that somebody was there; an older time than the one that is known changes nothing.
pub fn note_presence(db: &mut Db<'_>, item: Id<Content>, person: Id<Person>, at: Timestamp) -> Result<(), Error> {
    let (item, person) = (item.to_string(), person.to_string());
    let known: Option<i64> = presences::table.find((&item, &person)).select(presences::seen_at).first(db.0).optional()?;
    match known {
        None => {
            diesel::insert_into(presences::table)
                .values((presences::content.eq(&item), presences::person.eq(&person), presences::seen_at.eq(at.0)))
                .execute(db.0)?;
        }
        Some(known) if known < at.0 => {
            diesel::update(presences::table.find((&item, &person))).set(presences::seen_at.eq(at.0)).execute(db.0)?;
        }
        Some(_) => {}
    }
    Ok(())
}

/// The last use of a viewer's token by an item.
pub struct Use {
    pub content: Id<Content>,
    pub person: Id<Person>,
    pub at: Timestamp,
}

/// What was used since a moment.
pub fn used_since(db: &mut Db<'_>, since: Timestamp) -> Result<Vec<Use>, Error> {
    let rows: Vec<(String, String, Option<i64>)> = consents::table
        .filter(consents::last_used_at.gt(since.0))
        .select((consents::content, consents::person, consents::last_used_at))
        .load(db.0)?;
    rows.into_iter()
        .map(|(item, person, at)| Ok(Use { content: id(&item)?, person: id(&person)?, at: Timestamp(at.unwrap_or(0)) }))
        .collect()
}

/// Who was at an item, and when last.
pub fn presences(db: &mut Db<'_>, item: Id<Content>) -> Result<Vec<(Id<Person>, Timestamp)>, Error> {
    let rows: Vec<(String, i64)> =
        presences::table.filter(presences::content.eq(item.to_string())).select((presences::person, presences::seen_at)).load(db.0)?;
    rows.into_iter().map(|(person, at)| Ok((id(&person)?, Timestamp(at)))).collect()
}

pub fn purge(db: &mut Db<'_>, before: Timestamp) -> Result<(), Error> {
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
