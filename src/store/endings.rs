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
    ending::{Ending, Epochs, NumberedEnding},
};
use diesel::prelude::*;

/// The name in `meta` of the [`Epochs`].
const EPOCHS: &str = "epochs";
/// Consents that one ending names at most, where many end at once.
const IDS_OF_AN_ENDING: usize = 500;

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

/// The epochs of this database.
pub fn epochs(db: &mut Db<'_>) -> Result<Epochs, Error> {
    let text = super::Store::meta(db, EPOCHS)?;
    let read = |text: String| serde_json::from_str(&text);
    let epochs = text.map(read).transpose();
    epochs
        .map(Option::unwrap_or_default)
        .map_err(|error| Error::Other(format!("damaged row: {EPOCHS}: {error}")))
}

/// Begins the first epoch, unless another node has; returns all.
pub fn first_epoch(db: &mut Db<'_>) -> Result<Epochs, Error> {
    let epochs = epochs(db)?;
    match epochs.current() {
        Some(_) => Ok(epochs),
        None => begin_epoch(db),
    }
}

/// Begins another epoch; returns all.
pub fn begin_epoch(db: &mut Db<'_>) -> Result<Epochs, Error> {
    let mut epochs = epochs(db)?;
    epochs.begin();
    let text = serde_json::to_string(&epochs).map_err(|error| Error::Other(error.to_string()))?;
    super::Store::write_meta(db, EPOCHS, &text)?;
    Ok(epochs)
}

/// Ends once more what a backup still has, and records it; returns how many rows that changed.
pub fn repeat(db: &mut Db<'_>, ending: &Ending, now: Timestamp) -> Result<usize, Error> {
    record(db, ending)?;
    let changed = match ending {
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
    let all: Vec<String> = consents::table.select(consents::guid).load(db.0)?;
    for some in all.chunks(IDS_OF_AN_ENDING) {
        let ids = some.iter().map(|id| super::id(id));
        let ids = ids.collect::<Result<_, _>>()?;
        record(db, &Ending::Consents { ids })?;
    }
    Ok(diesel::delete(consents::table).execute(db.0)?)
}
