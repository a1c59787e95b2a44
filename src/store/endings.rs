//! What ended ([`Ending`]): recorded in the transaction that ends it, copied from here into the
//! journals of all nodes, and done once more after a restore.

use super::{Db, Error, schema::endings};
use crate::domain::{
    Timestamp,
    connection::{Cause, State},
    ending::{Ending, NumberedEnding},
};
use diesel::{dsl::sql, prelude::*, sql_query};
use std::collections::HashSet;

/// Records an ending.
pub(super) fn record(db: &mut Db<'_>, ending: &Ending) -> Result<(), Error> {
    diesel::insert_into(endings::table)
        .values(endings::ending.eq(to_text(ending)?))
        .execute(db.0)?;
    Ok(())
}

fn to_text(ending: &Ending) -> Result<String, Error> {
    serde_json::to_string(ending).map_err(|error| Error::Other(error.to_string()))
}

/// At most `most` endings with a number above `after`, in order.
pub fn after(db: &mut Db<'_>, after: i64, most: i64) -> Result<Vec<NumberedEnding>, Error> {
    let rows: Vec<(i64, String)> = endings::table
        .filter(endings::number.gt(after))
        .order(endings::number)
        .limit(most)
        .select((endings::number, endings::ending))
        .load(db.0)?;
    rows.into_iter()
        .map(|(number, text)| {
            let ending = serde_json::from_str(&text)
                .map_err(|error| Error::Other(format!("damaged row: ending {number}: {error}")))?;
            Ok(NumberedEnding { number, ending })
        })
        .collect()
}

/// Since when all endings are in the table: [`Timestamp`] 0 if none was purged yet.
pub fn kept_since(db: &mut Db<'_>) -> Result<Timestamp, Error> {
    let oldest: Option<(i64, i64)> = endings::table
        .order(endings::number)
        .select((endings::number, endings::at))
        .first(db.0)
        .optional()?;
    Ok(match oldest {
        None | Some((..=1, _)) => Timestamp(0),
        Some((_, at)) => Timestamp(at),
    })
}

/// The numbers of all endings in the table.
pub fn numbers(db: &mut Db<'_>) -> Result<HashSet<i64>, Error> {
    let rows: Vec<i64> = endings::table.select(endings::number).load(db.0)?;
    Ok(rows.into_iter().collect())
}

/// Ends once more what a backup still has, and records it under its old number; returns how many
/// rows that changed.
pub fn repeat(db: &mut Db<'_>, numbered: &NumberedEnding, now: Timestamp) -> Result<usize, Error> {
    diesel::insert_into(endings::table)
        .values((
            endings::number.eq(numbered.number),
            endings::at.eq(now.0),
            endings::ending.eq(to_text(&numbered.ending)?),
        ))
        .execute(db.0)?;
    let delete = |db: &mut Db<'_>, table: &str, condition: &str| {
        sql_query(format!("DELETE FROM {table} WHERE {condition}")).execute(db.0)
    };
    // Ids and numbers only: nothing in these texts can leave its quotes.
    let changed = match &numbered.ending {
        Ending::Consents { ids } => {
            let mut changed = 0;
            for id in ids {
                changed += delete(db, "consents", &format!("guid = '{id}'"))?;
            }
            changed
        }
        Ending::ConsentsOfContent { content, kept } => {
            let kept: Vec<String> = kept.iter().map(|id| format!("'{id}'")).collect();
            let mut condition = format!("content = '{content}'");
            if !kept.is_empty() {
                condition.push_str(&format!(" AND integration NOT IN ({})", kept.join(", ")));
            }
            delete(db, "consents", &condition)?
        }
        Ending::ConsentsOfConnection {
            person,
            integration,
        } => delete(
            db,
            "consents",
            &format!("person = '{person}' AND integration = '{integration}'"),
        )?,
        Ending::Connection { id } => end_connections(db, &format!("guid = '{id}'"), now)?,
        Ending::ConnectionsOfPerson { person } => {
            end_connections(db, &format!("person = '{person}'"), now)?
        }
        Ending::ConnectionsOfIntegration { integration } => {
            end_connections(db, &format!("integration = '{integration}'"), now)?
        }
        Ending::ApiKey { number } => delete(db, "api_keys", &format!("number = {number}"))?,
        Ending::ApiKeysOfPerson { person } => {
            delete(db, "api_keys", &format!("person = '{person}'"))?
        }
        Ending::ApiKeysOfContent { content } => {
            delete(db, "api_keys", &format!("content = '{content}'"))?
        }
        Ending::Locked { person, locked } => {
            let locked = if *locked { "TRUE" } else { "FALSE" };
            let set = format!("locked = {locked}");
            update_person(db, &person.to_string(), &set)?
        }
        Ending::Role { person, role } => {
            let set = format!("role = '{}'", role.as_str());
            update_person(db, &person.to_string(), &set)?
        }
        Ending::Password { person } => {
            update_person(db, &person.to_string(), "password_hash = NULL")?
        }
    };
    Ok(changed)
}

fn update_person(db: &mut Db<'_>, person: &str, set: &str) -> Result<usize, Error> {
    let statement = format!("UPDATE people SET {set} WHERE guid = '{person}'");
    Ok(sql_query(statement).execute(db.0)?)
}

/// The tokens that a backup brought back: their viewers sign in again.
fn end_connections(db: &mut Db<'_>, condition: &str, now: Timestamp) -> Result<usize, Error> {
    let (word, cause) = State::NeedsLogin(Cause::Expired).columns();
    let statement = format!(
        "UPDATE connections SET state = '{word}', cause = '{}', state_at = {now}, updated_at = {now}, \
         generation = generation + 1, access_token = NULL, refresh_token = NULL, access_expires_at = NULL \
         WHERE {condition} AND state <> '{word}'",
        cause.unwrap_or_default(),
        now = now.0,
    );
    Ok(sql_query(statement).execute(db.0)?)
}

/// Deletes all consents; returns how many: after a restore of which it is not known what ended since.
pub fn end_all_consents(db: &mut Db<'_>) -> Result<usize, Error> {
    Ok(sql_query("DELETE FROM consents").execute(db.0)?)
}

/// Moves the counter past the numbers that were written by [`repeat`]: PostgreSQL does not do so by
/// itself.
pub fn advance_counter(db: &mut Db<'_>) -> Result<(), Error> {
    let is_sqlite = matches!(db.0, super::backend::AnyConnection::Sqlite(_));
    if !is_sqlite {
        diesel::select(sql::<diesel::sql_types::BigInt>(
            "setval(pg_get_serial_sequence('endings', 'number'), (SELECT coalesce(max(number), 0) + 1 FROM endings), false)",
        ))
        .get_result::<i64>(db.0)?;
    }
    Ok(())
}
