//! What ended ([`Ending`]): recorded in the transaction that ends it, copied from here into the
//! journals of all nodes, and done once more after a restore.

use super::{
    Db, Error,
    connections::{EndingOf, Rows},
    schema::{api_keys, connections, consents, endings, people},
};
use crate::domain::{
    Timestamp,
    connection::{Cause, State},
    ending::{Ending, NumberedEnding},
};
use diesel::{dsl::sql, prelude::*};
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
    let changed = match &numbered.ending {
        Ending::Consents { ids } => {
            let ids = ids.iter().map(ToString::to_string);
            let rows = consents::table.filter(consents::guid.eq_any(ids));
            diesel::delete(rows).execute(db.0)?
        }
        Ending::ConsentsOfContent { content, kept } => {
            let kept = kept.iter().map(ToString::to_string);
            let rows = consents::table
                .filter(consents::content.eq(content.to_string()))
                .filter(consents::integration.ne_all(kept));
            diesel::delete(rows).execute(db.0)?
        }
        Ending::ConsentsOfConnection {
            person,
            integration,
        } => {
            let rows = consents::table
                .filter(consents::person.eq(person.to_string()))
                .filter(consents::integration.eq(integration.to_string()));
            diesel::delete(rows).execute(db.0)?
        }
        Ending::Connection { id } => {
            end_connections(db, Box::new(connections::guid.eq(id.to_string())), now)?
        }
        Ending::ConnectionsOfPerson { person } => {
            end_connections(db, EndingOf::Person(*person).rows(), now)?
        }
        Ending::ConnectionsOfIntegration { integration } => {
            end_connections(db, EndingOf::Integration(*integration).rows(), now)?
        }
        Ending::ApiKey { number } => diesel::delete(api_keys::table.find(*number)).execute(db.0)?,
        Ending::ApiKeysOfPerson { person } => {
            let rows = api_keys::table.filter(api_keys::person.eq(person.to_string()));
            diesel::delete(rows).execute(db.0)?
        }
        Ending::ApiKeysOfContent { content } => {
            let rows = api_keys::table.filter(api_keys::content.eq(content.to_string()));
            diesel::delete(rows).execute(db.0)?
        }
        Ending::Locked { person, locked } => {
            let row = people::table.filter(people::guid.eq(person.to_string()));
            let set = people::locked.eq(*locked);
            diesel::update(row).set(set).execute(db.0)?
        }
        Ending::Role { person, role } => {
            let row = people::table.filter(people::guid.eq(person.to_string()));
            let set = people::role.eq(role.as_str());
            diesel::update(row).set(set).execute(db.0)?
        }
        Ending::Password { person } => {
            let row = people::table.filter(people::guid.eq(person.to_string()));
            let set = people::password_hash.eq(None::<String>);
            diesel::update(row).set(set).execute(db.0)?
        }
    };
    Ok(changed)
}

/// The tokens that a backup brought back: their viewers sign in again.
fn end_connections(db: &mut Db<'_>, rows: Rows, now: Timestamp) -> Result<usize, Error> {
    let (word, cause) = State::NeedsLogin(Cause::Expired).columns();
    let rows = connections::table
        .filter(rows)
        .filter(connections::state.ne(word));
    Ok(diesel::update(rows)
        .set((
            connections::state.eq(word),
            connections::cause.eq(cause),
            connections::state_at.eq(now.0),
            connections::updated_at.eq(now.0),
            connections::generation.eq(connections::generation + 1),
            connections::access_token.eq(None::<String>),
            connections::refresh_token.eq(None::<String>),
            connections::access_expires_at.eq(None::<i64>),
        ))
        .execute(db.0)?)
}

/// Deletes all consents; returns how many: after a restore of which it is not known what ended since.
pub fn end_all_consents(db: &mut Db<'_>) -> Result<usize, Error> {
    Ok(diesel::delete(consents::table).execute(db.0)?)
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
