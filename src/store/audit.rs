//! The audit log, and the hourly counts of exchanges.
//!
//! Audit records form a hash chain: each hash covers the previous one and all fields of the record.
//! The last number and hash are also stored in `audit_head`, so that cutting off the newest records
//! is detected too. Records are never changed or deleted here.

use super::{
    Db, Error, damaged_row, id,
    schema::{audit, audit_head, exchange_hours},
};
use crate::{
    domain::{
        Id, Timestamp,
        audit::{Action, Event, Outcome},
        content::Content,
        person::Person,
    },
    vault::api_key::digest,
};
use diesel::prelude::*;

#[diesel::declare_sql_function]
extern "SQL" {
    /// Lower case; in SQLite for ASCII letters only.
    fn lower(text: diesel::sql_types::Text) -> diesel::sql_types::Text;
}

/// Appends a record to the chain; `event.number` and `event.hash` are ignored.
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
    let (last, hash) = chain_head(db)?.unwrap_or_default();
    let number = last + 1;
    let hash = record_hash(
        &hash,
        &Event {
            number,
            ..event.clone()
        },
    );
    diesel::insert_into(audit::table)
        .values((
            audit::number.eq(number),
            audit::at.eq(event.at.0),
            audit::action.eq(event.action.as_str()),
            audit::actor.eq(event.actor.map(|actor| actor.to_string())),
            audit::actor_name.eq(&event.actor_name),
            audit::subject.eq(&event.subject),
            audit::detail.eq(&event.detail),
            audit::address.eq(&event.address),
            audit::correlation.eq(&event.correlation),
            audit::outcome.eq(event.outcome.as_str()),
            audit::hash.eq(&hash),
        ))
        .execute(db.0)?;
    diesel::delete(audit_head::table).execute(db.0)?;
    diesel::insert_into(audit_head::table)
        .values((audit_head::number.eq(number), audit_head::hash.eq(&hash)))
        .execute(db.0)?;
    Ok(())
}

/// Number and hash of the newest record. Before the first chained record: the highest number, and
/// an empty hash.
fn chain_head(db: &mut Db<'_>) -> Result<Option<(i64, String)>, Error> {
    let head: Option<(i64, String)> = audit_head::table
        .select((audit_head::number, audit_head::hash))
        .first(db.0)
        .optional()?;
    if head.is_some() {
        return Ok(head);
    }
    let newest: Option<i64> = audit::table
        .select(diesel::dsl::max(audit::number))
        .first(db.0)?;
    Ok(newest.map(|number| (number, String::new())))
}

/// A record's hash. Each field is prefixed with its length, so that moving text between fields
/// changes the hash.
fn record_hash(before: &str, event: &Event) -> String {
    let mut text = String::new();
    let actor = event
        .actor
        .map(|actor| actor.to_string())
        .unwrap_or_default();
    let (number, at) = (event.number.to_string(), event.at.0.to_string());
    for field in [
        before,
        &number,
        &at,
        event.action.as_str(),
        &actor,
        &event.actor_name,
        &event.subject,
        &event.detail,
        &event.address,
        &event.correlation,
        event.outcome.as_str(),
    ] {
        text.push_str(&format!("{}:{field},", field.len()));
    }
    digest(&text)
}

/// The result of [`verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainStatus {
    /// This many records, all intact.
    Intact { records: i64 },
    /// The number of the first record that was changed or is missing.
    Broken { number: i64 },
}

/// Recomputes the whole chain.
pub fn verify(db: &mut Db<'_>) -> Result<ChainStatus, Error> {
    let (mut records, mut last, mut hash) = (0, 0, String::new());
    loop {
        let rows: Vec<Row> = audit::table
            .filter(audit::number.gt(last))
            .order(audit::number)
            .limit(1000)
            .select(Row::as_select())
            .load(db.0)?;
        if rows.is_empty() {
            break;
        }
        for row in rows {
            let (number, kept) = (row.number, row.hash.clone());
            let gap = records > 0 && number != last + 1;
            let Ok(event) = row.event() else {
                return Ok(ChainStatus::Broken { number });
            };
            hash = record_hash(&hash, &event);
            if gap || hash != kept {
                return Ok(ChainStatus::Broken {
                    number: if gap { last + 1 } else { number },
                });
            }
            (records, last) = (records + 1, number);
        }
    }
    match chain_head(db)? {
        Some((number, kept)) if records > 0 && (number != last || kept != hash) => {
            Ok(ChainStatus::Broken { number: last + 1 })
        }
        Some((number, kept)) if records == 0 && !kept.is_empty() => {
            Ok(ChainStatus::Broken { number })
        }
        _ => Ok(ChainStatus::Intact { records }),
    }
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
    hash: String,
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
            hash: self.hash,
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
