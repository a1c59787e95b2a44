//! The audit log, and the hourly counts of exchanges.
//!
//! Records are inserted without looking at each other, so that writers do not wait for one another.
//! Once a second the leader seals the new ones in a block: a keyed hash over the seal of the block
//! before and all fields of the records, in the order of their numbers. A record that becomes
//! visible late, with a lower number, is in a later block. Records are never changed or deleted
//! here.

use super::{
    Db, Error, damaged_row, id,
    schema::{audit, audit_blocks, exchange_hours},
};
use crate::{
    domain::{
        Id, Timestamp,
        audit::{Action, Event, Outcome},
        content::Content,
        person::Person,
    },
    vault::audit_key::AuditKey,
};
use diesel::prelude::*;

#[diesel::declare_sql_function]
extern "SQL" {
    /// Lower case; in SQLite for ASCII letters only.
    fn lower(text: diesel::sql_types::Text) -> diesel::sql_types::Text;
}

/// Appends a record; `event.number` and `event.block` are ignored.
pub fn insert(db: &mut Db<'_>, event: &Event) -> Result<(), Error> {
    // PostgreSQL cannot store NUL in text.
    let clean = |text: &str| text.replace('\0', "\u{fffd}");
    let (actor_name, subject, detail) = (
        clean(&event.actor_name),
        clean(&event.subject),
        clean(&event.detail),
    );
    let event = &Event {
        actor_name,
        subject,
        detail,
        ..event.clone()
    };
    diesel::insert_into(audit::table)
        .values((
            audit::at.eq(event.at.0),
            audit::action.eq(event.action.as_str()),
            audit::actor.eq(event.actor.map(|actor| actor.to_string())),
            audit::actor_name.eq(&event.actor_name),
            audit::subject.eq(&event.subject),
            audit::detail.eq(&event.detail),
            audit::address.eq(&event.address),
            audit::correlation.eq(&event.correlation),
            audit::outcome.eq(event.outcome.as_str()),
        ))
        .execute(db.0)?;
    Ok(())
}

/// Records in one block, at most.
const MAX_BLOCK: i64 = 5000;

/// The seal of a block over these rows.
fn seal_of(key: &AuditKey, block: i64, before: &str, rows: &[Row]) -> String {
    let mut seal = key.block();
    seal.add(&block.to_string());
    seal.add(before);
    seal.add(&rows.len().to_string());
    for row in rows {
        for field in [
            &row.number.to_string(),
            &row.at.to_string(),
            &row.action,
            row.actor.as_deref().unwrap_or(""),
            &row.actor_name,
            &row.subject,
            &row.detail,
            &row.address,
            &row.correlation,
            &row.outcome,
        ] {
            seal.add(field);
        }
    }
    seal.seal()
}

/// Number and seal of the newest block; 0 and the empty text if there is none.
fn newest_block(db: &mut Db<'_>) -> Result<(i64, String), Error> {
    let newest = audit_blocks::table
        .order(audit_blocks::number.desc())
        .select((audit_blocks::number, audit_blocks::seal))
        .first(db.0)
        .optional()?;
    Ok(newest.unwrap_or_default())
}

/// Whether there are records that no block seals.
pub fn has_unsealed(db: &mut Db<'_>) -> Result<bool, Error> {
    let open = audit::table.filter(audit::block.is_null());
    Ok(diesel::select(diesel::dsl::exists(open)).get_result(db.0)?)
}

/// Seals the records that are not sealed yet in a new block; returns how many. If two processes
/// try at once, one fails with [`Error::Taken`] or [`Error::Conflict`].
pub fn seal_block(db: &mut Db<'_>, key: &AuditKey, now: Timestamp) -> Result<usize, Error> {
    let rows: Vec<Row> = audit::table
        .filter(audit::block.is_null())
        .order(audit::number)
        .limit(MAX_BLOCK)
        .select(Row::as_select())
        .load(db.0)?;
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
        return Ok(0);
    };
    let (newest, before) = newest_block(db)?;
    let block = newest + 1;
    diesel::insert_into(audit_blocks::table)
        .values((
            audit_blocks::number.eq(block),
            audit_blocks::lines.eq(i64::try_from(rows.len()).unwrap_or(MAX_BLOCK)),
            audit_blocks::seal.eq(seal_of(key, block, &before, &rows)),
            audit_blocks::sealed_at.eq(now.0),
        ))
        .execute(db.0)?;
    let open = audit::table
        .filter(audit::block.is_null())
        .filter(audit::number.between(first.number, last.number));
    let sealed = diesel::update(open)
        .set(audit::block.eq(block))
        .execute(db.0)?;
    if sealed != rows.len() {
        // A record with a number in between became visible meanwhile: try again.
        return Err(Error::Conflict);
    }
    Ok(sealed)
}

/// The result of [`verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealStatus {
    /// All sealed records are as they were written.
    Intact {
        sealed: i64,
        /// Records of the last second, which no block covers yet.
        unsealed: i64,
    },
    /// The first block that is not what was sealed, and the numbers of its first and last record;
    /// 0 if it has none.
    Broken { block: i64, first: i64, last: i64 },
}

/// Recomputes all seals. Run it on one snapshot ([`super::Store::read_snapshot`]).
pub fn verify(db: &mut Db<'_>, key: &AuditKey) -> Result<SealStatus, Error> {
    let (mut sealed, mut last_block, mut before) = (0, 0, String::new());
    loop {
        let blocks: Vec<(i64, i64, String)> = audit_blocks::table
            .filter(audit_blocks::number.gt(last_block))
            .order(audit_blocks::number)
            .limit(200)
            .select((
                audit_blocks::number,
                audit_blocks::lines,
                audit_blocks::seal,
            ))
            .load(db.0)?;
        if blocks.is_empty() {
            break;
        }
        for (block, lines, seal) in blocks {
            let rows: Vec<Row> = audit::table
                .filter(audit::block.eq(block))
                .order(audit::number)
                .select(Row::as_select())
                .load(db.0)?;
            let count = i64::try_from(rows.len()).unwrap_or(i64::MAX);
            let whole = block == last_block + 1
                && count == lines
                && seal_of(key, block, &before, &rows) == seal;
            if !whole {
                return Ok(SealStatus::Broken {
                    block: last_block + 1,
                    first: rows.first().map_or(0, |row| row.number),
                    last: rows.last().map_or(0, |row| row.number),
                });
            }
            (sealed, last_block, before) = (sealed + lines, block, seal);
        }
    }
    // A record that names a block without a row: the newest blocks were cut off.
    let beyond: Option<i64> = audit::table
        .filter(audit::block.gt(last_block))
        .select(diesel::dsl::min(audit::number))
        .first(db.0)?;
    if let Some(first) = beyond {
        return Ok(SealStatus::Broken {
            block: last_block + 1,
            first,
            last: first,
        });
    }
    let unsealed = audit::table
        .filter(audit::block.is_null())
        .count()
        .get_result(db.0)?;
    Ok(SealStatus::Intact { sealed, unsealed })
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = audit)]
struct Row {
    number: i64,
    at: i64,
    action: String,
    actor: Option<String>,
    actor_name: String,
    subject: String,
    detail: String,
    address: String,
    correlation: String,
    outcome: String,
    block: Option<i64>,
}

impl Row {
    fn event(self) -> Result<Event, Error> {
        Ok(Event {
            number: self.number,
            at: Timestamp(self.at),
            action: Action::parse(&self.action).ok_or_else(|| damaged_row("action"))?,
            actor: self.actor.as_deref().map(id).transpose()?,
            actor_name: self.actor_name,
            subject: self.subject,
            detail: self.detail,
            address: self.address,
            correlation: self.correlation,
            outcome: Outcome::parse(&self.outcome).ok_or_else(|| damaged_row("outcome"))?,
            block: self.block,
        })
    }
}

/// Which audit records to list.
#[derive(Clone, Debug, Default)]
pub struct RecordFilter {
    pub action: Option<Action>,
    pub actor: Option<Id<Person>>,
    pub outcome: Option<Outcome>,
    /// Substring of the actor's name, the subject, the detail or the correlation, without regard to
    /// case.
    pub text: Option<String>,
    /// Only records with a smaller number.
    pub before: Option<i64>,
    /// Only records with a greater number.
    pub after: Option<i64>,
    pub oldest_first: bool,
}

/// The records that match, newest first unless `oldest_first` is set.
pub fn list(db: &mut Db<'_>, filter: &RecordFilter, limit: i64) -> Result<Vec<Event>, Error> {
    let mut query = audit::table.limit(limit).into_boxed();
    query = if filter.oldest_first {
        query.order(audit::number.asc())
    } else {
        query.order(audit::number.desc())
    };
    if let Some(after) = filter.after {
        query = query.filter(audit::number.gt(after));
    }
    if let Some(action) = filter.action {
        query = query.filter(audit::action.eq(action.as_str()));
    }
    if let Some(actor) = filter.actor {
        query = query.filter(audit::actor.eq(actor.to_string()));
    }
    if let Some(outcome) = filter.outcome {
        query = query.filter(audit::outcome.eq(outcome.as_str()));
    }
    if let Some(before) = filter.before {
        query = query.filter(audit::number.lt(before));
    }
    if let Some(text) = filter
        .text
        .as_deref()
        .filter(|text| !text.is_empty() && !text.contains('\0'))
    {
        let text = text
            .to_lowercase()
            .replace('\\', "\\\\")
            .replace('%', "\\%")
            .replace('_', "\\_");
        let pattern = format!("%{text}%");
        query = query.filter(
            lower(audit::actor_name)
                .like(pattern.clone())
                .escape('\\')
                .or(lower(audit::subject).like(pattern.clone()).escape('\\'))
                .or(lower(audit::detail).like(pattern.clone()).escape('\\'))
                .or(lower(audit::correlation).like(pattern).escape('\\')),
        );
    }
    let rows = query.select(Row::as_select()).load(db.0)?;
    rows.into_iter().map(Row::event).collect()
}

/// Exchanges of one viewer, content item and integration within one hour.
pub struct ExchangeCount {
    /// The start of the hour.
    pub hour: Timestamp,
    pub person: String,
    pub content: String,
    pub integration: String,
    pub exchanges: i64,
    pub last_at: Timestamp,
}

/// Adds to an hour's count.
pub fn add_exchanges(db: &mut Db<'_>, counted: &ExchangeCount) -> Result<(), Error> {
    let row = || {
        exchange_hours::table.find((
            counted.hour.0,
            &counted.person,
            &counted.content,
            &counted.integration,
        ))
    };
    let changed = diesel::update(row())
        .set((
            exchange_hours::exchanges.eq(exchange_hours::exchanges + counted.exchanges),
            exchange_hours::last_at.eq(counted.last_at.0),
        ))
        .execute(db.0)?;
    if changed == 0 {
        diesel::insert_into(exchange_hours::table)
            .values((
                exchange_hours::hour.eq(counted.hour.0),
                exchange_hours::person.eq(&counted.person),
                exchange_hours::content.eq(&counted.content),
                exchange_hours::integration.eq(&counted.integration),
                exchange_hours::exchanges.eq(counted.exchanges),
                exchange_hours::last_at.eq(counted.last_at.0),
            ))
            .execute(db.0)?;
    }
    Ok(())
}

/// Which counts to list.
#[derive(Clone, Debug, Default)]
pub struct ExchangeFilter {
    pub person: Option<Id<Person>>,
    pub content: Option<Id<Content>>,
    /// Only hours whose last exchange was before this time.
    pub before: Option<Timestamp>,
}

/// The counts, last exchange first.
pub fn exchanges(
    db: &mut Db<'_>,
    wanted: &ExchangeFilter,
    limit: i64,
) -> Result<Vec<ExchangeCount>, Error> {
    let mut query = exchange_hours::table
        .order(exchange_hours::last_at.desc())
        .limit(limit)
        .into_boxed();
    if let Some(before) = wanted.before {
        query = query.filter(exchange_hours::last_at.lt(before.0));
    }
    if let Some(person) = wanted.person {
        query = query.filter(exchange_hours::person.eq(person.to_string()));
    }
    if let Some(content) = wanted.content {
        query = query.filter(exchange_hours::content.eq(content.to_string()));
    }
    let rows: Vec<(i64, String, String, String, i64, i64)> = query.load(db.0)?;
    Ok(rows
        .into_iter()
        .map(
            |(hour, person, content, integration, exchanges, last_at)| ExchangeCount {
                hour: Timestamp(hour),
                person,
                content,
                integration,
                exchanges,
                last_at: Timestamp(last_at),
            },
        )
        .collect())
}

/// Deletes the counts of hours before `before`.
pub fn purge_exchanges(db: &mut Db<'_>, before: Timestamp) -> Result<(), Error> {
    diesel::delete(exchange_hours::table.filter(exchange_hours::hour.lt(before.0)))
        .execute(db.0)?;
    Ok(())
}
