//! The record.

use super::{Db, Error, id, schema::audit};
use crate::domain::{
    Id, Timestamp,
    audit::{Action, Event},
    person::Person,
};
use diesel::prelude::*;

/// Appends an event; `event.number` is ignored.
pub fn insert(db: &mut Db<'_>, event: &Event) -> Result<(), Error> {
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
        ))
        .execute(db.0)?;
    Ok(())
}

/// What to show of the record.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub action: Option<Action>,
    pub actor: Option<Id<Person>>,
    /// Part of the actor's name, the subject or the detail.
    pub text: Option<String>,
    /// Only events older than this one.
    pub before: Option<i64>,
}

/// The newest events that pass the filter.
pub fn list(db: &mut Db<'_>, filter: &Filter, limit: i64) -> Result<Vec<Event>, Error> {
    let mut query = audit::table.order(audit::number.desc()).limit(limit).into_boxed();
    if let Some(action) = filter.action {
        query = query.filter(audit::action.eq(action.as_str()));
    }
    if let Some(actor) = filter.actor {
        query = query.filter(audit::actor.eq(actor.to_string()));
    }
    if let Some(before) = filter.before {
        query = query.filter(audit::number.lt(before));
    }
    if let Some(text) = filter.text.as_deref().filter(|text| !text.is_empty()) {
        let pattern = format!("%{}%", text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_"));
        query = query.filter(
            audit::actor_name
                .like(pattern.clone())
                .escape('\\')
                .or(audit::subject.like(pattern.clone()).escape('\\'))
                .or(audit::detail.like(pattern.clone()).escape('\\'))
                .or(audit::correlation.like(pattern).escape('\\')),
        );
    }
    type Row = (i64, i64, String, Option<String>, String, String, String, String, String);
    let rows: Vec<Row> = query.load(db.0)?;
    rows.into_iter()
        .map(|(number, at, action, actor, actor_name, subject, detail, address, correlation)| {
            Ok(Event {
                number,
                at: Timestamp(at),
                action: Action::parse(&action).ok_or_else(|| super::damaged("action"))?,
                actor: actor.as_deref().map(id).transpose()?,
                actor_name,
                subject,
                detail,
                address,
                correlation,
            })
        })
        .collect()
}
