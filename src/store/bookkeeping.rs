//! Bookkeeping: counts of exchanges, presence, held tokens, times of last use. Collected in memory
//! and written every few seconds, many rows with one statement. Run these functions with
//! [`super::Store::write_bookkeeping`]: no decision depends on reading and writing them together.
//!
//! Diesel's combined connection compiles neither batch inserts nor `ON CONFLICT`. Both databases
//! understand the statements here as text: `INSERT … VALUES … ON CONFLICT DO UPDATE`, and `UPDATE …
//! FROM (VALUES …)`, whose columns both call `column1`, `column2`, …

use super::{Db, Error, short_lived::AppSession};
use crate::domain::{
    Id, Timestamp,
    activity::{Activity, ActivityCount},
    consent::Consent,
    content::{Content, ProcessId},
    integration::Integration,
    person::{Person, Session},
};
use diesel::{RunQueryDsl as _, sql_query};
use std::fmt::Write as _;

/// Rows of one statement, at most.
pub const MAX_ROWS: usize = 1000;

/// The text of rows of values: `('a', 1), ('b', 2)`.
#[derive(Default)]
struct Rows(String);

impl Rows {
    /// Starts a row.
    fn row(&mut self) -> RowText<'_> {
        self.0.push_str(if self.0.is_empty() { "(" } else { ", (" });
        RowText {
            text: &mut self.0,
            is_first: true,
        }
    }
}

/// One row that is being written; dropping it ends the row.
struct RowText<'a> {
    text: &'a mut String,
    is_first: bool,
}

impl RowText<'_> {
    fn separate(&mut self) {
        if !std::mem::take(&mut self.is_first) {
            self.text.push_str(", ");
        }
    }

    /// Adds a text. Quotes are doubled; NUL, which PostgreSQL cannot store, is replaced.
    fn text(mut self, value: impl std::fmt::Display) -> Self {
        self.separate();
        let value = value.to_string();
        let value = value.replace('\'', "''").replace('\0', "\u{fffd}");
        // Writing into a `String` cannot fail.
        let _ = write!(self.text, "'{value}'");
        self
    }

    fn number(mut self, value: i64) -> Self {
        self.separate();
        let _ = write!(self.text, "{value}");
        self
    }

    fn truth(mut self, value: bool) -> Self {
        self.separate();
        self.text.push_str(if value { "TRUE" } else { "FALSE" });
        self
    }
}

impl Drop for RowText<'_> {
    fn drop(&mut self) {
        self.text.push(')');
    }
}

/// The text of the rows that `write` makes of `values`.
fn rows_of<T>(values: &[T], write: impl Fn(RowText<'_>, &T)) -> String {
    let mut rows = Rows::default();
    for value in values {
        write(rows.row(), value);
    }
    rows.0
}

/// Runs a statement that contains rows; does nothing without rows.
fn run(db: &mut Db<'_>, rows: &str, statement: String) -> Result<(), Error> {
    if !rows.is_empty() {
        sql_query(statement).execute(db.0)?;
    }
    Ok(())
}

/// SQL for the later of a column and a value.
fn later(column: &str, value: &str) -> String {
    format!("CASE WHEN {column} > {value} THEN {column} ELSE {value} END")
}

/// Exchanges with one consent through one process within one hour.
#[derive(Clone, Copy, Debug)]
pub struct ConsentUses {
    pub consent: Id<Consent>,
    pub person: Id<Person>,
    pub content: Id<Content>,
    pub integration: Id<Integration>,
    pub process: ProcessId,
    /// The start of the hour.
    pub hour: Timestamp,
    pub times: i64,
    pub last: Timestamp,
}

/// The values with the same key added up: `add` adds the second to the first. Both databases refuse
/// to write one row twice in a statement.
fn combined<K: Ord, V: Copy>(
    values: &[V],
    key: impl Fn(&V) -> K,
    add: impl Fn(&mut V, &V),
) -> Vec<V> {
    let mut found: std::collections::BTreeMap<K, V> = std::collections::BTreeMap::new();
    for value in values {
        found
            .entry(key(value))
            .and_modify(|known| add(known, value))
            .or_insert(*value);
    }
    found.into_values().collect()
}

/// Adds to the counts of consents and hours, and moves the times of last use of connections and of
/// tokens at their processes. At most [`MAX_ROWS`] uses.
pub fn add_uses(db: &mut Db<'_>, uses: &[ConsentUses]) -> Result<(), Error> {
    let add = |known: &mut ConsentUses, more: &ConsentUses| {
        known.times += more.times;
        known.last = known.last.max(more.last);
    };
    let by_consent = combined(uses, |uses| uses.consent.as_u128(), add);
    let rows = rows_of(&by_consent, |row, uses| {
        drop(
            row.text(uses.consent)
                .number(uses.times)
                .number(uses.last.0),
        );
    });
    let last = later("consents.last_used_at", "v.column3");
    run(
        db,
        &rows,
        format!(
            "UPDATE consents SET uses = consents.uses + v.column2, last_used_at = {last} \
             FROM (VALUES {rows}) AS v WHERE consents.guid = v.column1"
        ),
    )?;
    let by_connection = combined(
        uses,
        |uses| (uses.person.as_u128(), uses.integration.as_u128()),
        add,
    );
    let rows = rows_of(&by_connection, |row, uses| {
        drop(
            row.text(uses.person)
                .text(uses.integration)
                .number(uses.last.0),
        );
    });
    let last = later("connections.used_at", "v.column3");
    run(
        db,
        &rows,
        format!(
            "UPDATE connections SET used_at = {last} FROM (VALUES {rows}) AS v \
             WHERE connections.person = v.column1 AND connections.integration = v.column2"
        ),
    )?;
    // Not by consent: it may have been revoked and given again within the hour.
    let by_hour = combined(
        uses,
        |uses| {
            (
                uses.hour,
                uses.person.as_u128(),
                uses.content.as_u128(),
                uses.integration.as_u128(),
            )
        },
        add,
    );
    let rows = rows_of(&by_hour, |row, uses| {
        drop(
            row.number(uses.hour.0)
                .text(uses.person)
                .text(uses.content)
                .text(uses.integration)
                .number(uses.times)
                .number(uses.last.0),
        );
    });
    let last = later("exchange_hours.last_at", "excluded.last_at");
    run(
        db,
        &rows,
        format!(
            "INSERT INTO exchange_hours (hour, person, content, integration, exchanges, last_at) VALUES {rows} \
             ON CONFLICT (hour, person, content, integration) DO UPDATE \
             SET exchanges = exchange_hours.exchanges + excluded.exchanges, last_at = {last}"
        ),
    )?;
    let exchanged: Vec<ActivityCount> = by_hour
        .iter()
        .map(|uses| ActivityCount {
            hour: uses.hour,
            kind: Activity::Exchanged,
            content: Some(uses.content),
            integration: Some(uses.integration),
            times: uses.times,
            last_at: uses.last,
        })
        .collect();
    add_activity(db, &exchanged)?;
    let by_process = combined(
        uses,
        |uses| {
            (
                uses.content.as_u128(),
                uses.person.as_u128(),
                uses.process.to_string(),
            )
        },
        add,
    );
    let rows = rows_of(&by_process, |row, uses| {
        drop(
            row.text(uses.content)
                .text(uses.process)
                .text(uses.person)
                .number(uses.last.0),
        );
    });
    let last = later("token_uses.used_at", "excluded.used_at");
    run(
        db,
        &rows,
        format!(
            "INSERT INTO token_uses (content, process, person, used_at) VALUES {rows} \
             ON CONFLICT (content, process, person) DO UPDATE SET used_at = {last}"
        ),
    )
}

/// The rows of `activity_hours` for these counts, those of one key added up.
fn activity_rows(counts: &[ActivityCount]) -> String {
    let counts = combined(
        counts,
        |count| {
            (
                count.hour,
                count.kind,
                count.content.map(|id| id.as_u128()),
                count.integration.map(|id| id.as_u128()),
            )
        },
        |known, more| {
            known.times += more.times;
            known.last_at = known.last_at.max(more.last_at);
        },
    );
    rows_of(&counts, |row, count| {
        let text = |id: Option<String>| id.unwrap_or_default();
        drop(
            row.number(count.hour.0)
                .text(count.kind.as_str())
                .text(text(count.content.map(|id| id.to_string())))
                .text(text(count.integration.map(|id| id.to_string())))
                .number(count.times)
                .number(count.last_at.0),
        );
    })
}

/// Adds to the counts of hours. At most [`MAX_ROWS`].
pub fn add_activity(db: &mut Db<'_>, counts: &[ActivityCount]) -> Result<(), Error> {
    let rows = activity_rows(counts);
    let last = later("activity_hours.last_at", "excluded.last_at");
    run(
        db,
        &rows,
        format!(
            "INSERT INTO activity_hours (hour, kind, content, integration, times, last_at) VALUES {rows} \
             ON CONFLICT (hour, kind, content, integration) DO UPDATE \
             SET times = activity_hours.times + excluded.times, last_at = {last}"
        ),
    )
}

/// Sets the levels of a day, such as the people who are connected. At most [`MAX_ROWS`].
pub fn set_levels(db: &mut Db<'_>, levels: &[ActivityCount]) -> Result<(), Error> {
    let rows = activity_rows(levels);
    run(
        db,
        &rows,
        format!(
            "INSERT INTO activity_hours (hour, kind, content, integration, times, last_at) VALUES {rows} \
             ON CONFLICT (hour, kind, content, integration) DO UPDATE \
             SET times = excluded.times, last_at = excluded.last_at"
        ),
    )
}

/// What a node knows of one viewer at one process of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stay {
    pub content: Id<Content>,
    pub process: ProcessId,
    pub person: Id<Person>,
    /// Whether the viewer is there now.
    pub is_here: bool,
    /// When the viewer came.
    pub since: Timestamp,
    /// When the viewer was last seen.
    pub seen_at: Timestamp,
}

/// Writes who came and who left, as this node saw it. At most [`MAX_ROWS`], no two of the same
/// viewer at the same process.
pub fn record_stays(db: &mut Db<'_>, node: &str, stays: &[Stay]) -> Result<(), Error> {
    let rows = rows_of(stays, |row, stay| {
        drop(
            row.text(stay.content)
                .text(stay.process)
                .text(stay.person)
                .text(node)
                .truth(stay.is_here)
                .number(stay.since.0)
                .number(stay.seen_at.0),
        );
    });
    run(
        db,
        &rows,
        format!(
            "INSERT INTO visits (content, process, person, node, here, since, seen_at) VALUES {rows} \
             ON CONFLICT (content, process, person, node) DO UPDATE \
             SET here = excluded.here, since = excluded.since, seen_at = excluded.seen_at"
        ),
    )
}

/// Keeps session tokens exchangeable on every node while `node` is alive. At most [`MAX_ROWS`].
pub fn hold_tokens(db: &mut Db<'_>, node: &str, hashes: &[String]) -> Result<(), Error> {
    let rows = rows_of(hashes, |row, hash| drop(row.text(node).text(hash)));
    run(
        db,
        &rows,
        format!("INSERT INTO held_tokens (node, token_hash) VALUES {rows} ON CONFLICT DO NOTHING"),
    )
}

/// Ends what [`hold_tokens`] started. At most [`MAX_ROWS`].
pub fn release_tokens(db: &mut Db<'_>, node: &str, hashes: &[String]) -> Result<(), Error> {
    let rows = rows_of(hashes, |row, hash| drop(row.text(node).text(hash)));
    run(
        db,
        &rows,
        format!("DELETE FROM held_tokens WHERE (node, token_hash) IN (VALUES {rows})"),
    )
}

/// Moves browser sessions' times of last use. At most [`MAX_ROWS`].
pub fn touch_sessions(db: &mut Db<'_>, uses: &[(Id<Session>, Timestamp)]) -> Result<(), Error> {
    let rows = rows_of(uses, |row, (session, at)| {
        drop(row.text(session).number(at.0));
    });
    let seen = later("sessions.seen_at", "v.column2");
    run(
        db,
        &rows,
        format!(
            "UPDATE sessions SET seen_at = {seen} FROM (VALUES {rows}) AS v WHERE sessions.guid = v.column1"
        ),
    )
}

/// Moves API keys' times of last use. At most [`MAX_ROWS`].
pub fn touch_keys(db: &mut Db<'_>, uses: &[(i64, Timestamp)]) -> Result<(), Error> {
    let rows = rows_of(uses, |row, (key, at)| {
        drop(row.number(*key).number(at.0));
    });
    let active = later("api_keys.active_at", "v.column2");
    run(
        db,
        &rows,
        format!(
            "UPDATE api_keys SET active_at = {active} FROM (VALUES {rows}) AS v WHERE api_keys.number = v.column1"
        ),
    )
}

/// Records password attempts. At most [`MAX_ROWS`].
pub fn add_password_attempts(
    db: &mut Db<'_>,
    attempts: &[(String, Timestamp)],
) -> Result<(), Error> {
    let rows = rows_of(attempts, |row, (who, at)| {
        drop(row.text(who).number(at.0));
    });
    run(
        db,
        &rows,
        format!("INSERT INTO sign_in_tries (who, at) VALUES {rows}"),
    )
}

/// Records the owners of app sessions. The first record wins. At most [`MAX_ROWS`].
pub fn record_app_sessions(db: &mut Db<'_>, sessions: &[AppSession]) -> Result<(), Error> {
    let rows = rows_of(sessions, |row, session| {
        let viewer = session.owner.viewer.map(|viewer| viewer.to_string());
        drop(
            row.text(&session.id_hash)
                .text(session.owner.item)
                .text(viewer.unwrap_or_default())
                .number(session.since.0),
        );
    });
    run(
        db,
        &rows,
        format!(
            "INSERT INTO app_sessions (id_hash, content, person, seen_at) VALUES {rows} ON CONFLICT DO NOTHING"
        ),
    )
}

/// Deletes consents. At most [`MAX_ROWS`].
pub(super) fn delete_consents(db: &mut Db<'_>, ended: &[Consent]) -> Result<(), Error> {
    let rows = rows_of(ended, |row, consent| drop(row.text(consent.id)));
    run(
        db,
        &rows,
        format!("DELETE FROM consents WHERE guid IN (VALUES {rows})"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cannot_leave_their_quotes() {
        let rows = rows_of(&["a'); DROP TABLE people; --", "b\0"], |row, text| {
            drop(row.text(text).number(-1).truth(true));
        });
        assert_eq!(
            rows,
            "('a''); DROP TABLE people; --', -1, TRUE), ('b\u{fffd}', -1, TRUE)"
        );
    }

    #[test]
    fn equal_keys_become_one_row() {
        let sums = combined(
            &[(1, 10), (2, 5), (1, 7)],
            |value| value.0,
            |known, more| known.1 += more.1,
        );
        assert_eq!(sums, [(1, 17), (2, 5)]);
    }
}
