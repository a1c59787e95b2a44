//! The record: reading it, checking it, and noting what was refused.

use super::{Actor, Error, Service, event, record};
use crate::{
    domain::{
        Id, Timestamp, access,
        audit::{Action, Event, Origin},
        content::Content,
        integration::Integration,
        person::Person,
    },
    store::{
        Db,
        audit::{self, Filter, Hour, Verdict, Wanted},
        content, integrations, people,
    },
};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

pub const PAGE: i64 = 50;
/// So many lines are read at once for an export.
const BATCH: i64 = 1000;
/// The same refusal of the same caller is written down once in this time: nobody fills the record
/// by asking in vain.
const REFUSALS_EVERY: Duration = Duration::from_secs(60);
const MOST_REFUSALS: usize = 10_000;

/// Who was refused, and why.
type Refused = (String, &'static str);

/// Refusals written down lately: since when, and how many more there were.
#[derive(Default)]
pub(super) struct Refusals(Mutex<HashMap<Refused, (Timestamp, u64)>>);

impl Refusals {
    /// Whether to write one more down now, with how many were passed over since the last.
    fn due(&self, who: &str, why: &'static str, now: Timestamp) -> Option<u64> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_REFUSALS {
            known.retain(|_, (at, _)| now.since(*at) < REFUSALS_EVERY);
        }
        let full = known.len() >= MOST_REFUSALS;
        match known.get_mut(&(who.to_owned(), why)) {
            Some((at, more)) if now >= *at && now.since(*at) < REFUSALS_EVERY => {
                *more += 1;
                None
            }
            // Full of fresh ones: an attack from many places. What is known of it is enough.
            None if full => None,
            found => {
                let more = found.map_or(0, |(_, more)| *more);
                known.insert((who.to_owned(), why), (now, 0));
                Some(more)
            }
        }
    }
}

/// Counted exchanges of one hour, with names where they are still known.
pub struct Use {
    pub hour: Hour,
    pub person: Option<Person>,
    pub content: Option<Content>,
    pub integration: Option<Integration>,
}

impl Service {
    /// Events that pass the filter, one more than a page if there are more.
    pub async fn audit_events(&self, actor: &Actor, filter: Filter) -> Result<Vec<Event>, Error> {
        self.audit_page(actor, filter, PAGE + 1).await
    }

    /// Events that pass the filter, as many as asked for.
    pub async fn audit_page(
        &self,
        actor: &Actor,
        filter: Filter,
        most: i64,
    ) -> Result<Vec<Event>, Error> {
        must_read(actor)?;
        self.store
            .read(move |db| Ok(audit::list(db, &filter, most)?))
            .await
    }

    /// Writes down that somebody takes a copy of the record away.
    pub async fn note_export(&self, actor: &Actor) -> Result<(), Error> {
        must_read(actor)?;
        let line = event(actor, self.now(), Action::RecordExported, "", "");
        self.store.note(move |db| record(db, &line)).await
    }

    /// The next lines of an export, oldest first; none at its end.
    pub async fn export(
        &self,
        actor: &Actor,
        filter: &Filter,
        after: i64,
    ) -> Result<Vec<Event>, Error> {
        self.audit_page(
            actor,
            Filter {
                after: Some(after),
                oldest_first: true,
                ..filter.clone()
            },
            BATCH,
        )
        .await
    }

    /// Computes the chain of the record anew.
    pub async fn verify_record(&self) -> Result<Verdict, Error> {
        self.store.read(|db| Ok(audit::verify(db)?)).await
    }

    /// Who used whose access, in which content, when and how often; one more than a page if there
    /// are more.
    pub async fn uses(&self, actor: &Actor, wanted: Wanted) -> Result<Vec<Use>, Error> {
        must_read(actor)?;
        self.flush_uses().await;
        self.store
            .read(move |db| {
                audit::exchanges(db, &wanted, PAGE + 1)?
                    .into_iter()
                    .map(|hour| named(db, hour))
                    .collect()
            })
            .await
    }

    /// Writes a refusal down, once a minute for each caller and reason.
    pub async fn note_refusal(
        &self,
        action: Action,
        who: Option<&Person>,
        origin: &Origin,
        why: &'static str,
        subject: String,
    ) {
        let now = self.now();
        let caller = who.map_or_else(|| origin.address.clone(), |person| person.id.to_string());
        let Some(more) = self.refusals.due(&caller, why, now) else {
            return;
        };
        let detail = if more == 0 {
            why.to_owned()
        } else {
            format!("{why}; {more} more before")
        };
        let line = Event {
            actor: who.map(|person| person.id),
            actor_name: who
                .map(|person| person.username.clone())
                .unwrap_or_default(),
            address: origin.address.clone(),
            correlation: origin.correlation.clone(),
            ..Event::by_portal(now, action, subject, detail)
        };
        if self.store.note(move |db| record(db, &line)).await.is_err() {
            tracing::warn!(why, "a refusal could not be written down");
        }
    }
}

fn must_read(actor: &Actor) -> Result<(), Error> {
    if access::may_read_audit(actor.role) {
        Ok(())
    } else {
        Err(Error::Forbidden("Only administrators read the record."))
    }
}

fn named(db: &mut Db<'_>, hour: Hour) -> Result<Use, Error> {
    let person = hour
        .person
        .parse()
        .ok()
        .map(|id: Id<Person>| people::find(db, id))
        .transpose()?
        .flatten();
    let content = hour
        .content
        .parse()
        .ok()
        .map(|id: Id<Content>| content::find(db, id))
        .transpose()?
        .flatten();
    let integration = hour
        .integration
        .parse()
        .ok()
        .map(|id: Id<Integration>| integrations::find(db, id))
        .transpose()?
        .flatten();
    Ok(Use {
        hour,
        person,
        content,
        integration,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_refusal_is_written_once_a_minute_with_a_count() {
        let refusals = Refusals::default();
        let at = |seconds: i64| Timestamp(seconds * 1000);
        assert_eq!(refusals.due("a", "x", at(0)), Some(0));
        assert_eq!(refusals.due("a", "x", at(1)), None);
        assert_eq!(refusals.due("a", "x", at(59)), None);
        assert_eq!(refusals.due("b", "x", at(2)), Some(0));
        assert_eq!(refusals.due("a", "y", at(2)), Some(0));
        assert_eq!(refusals.due("a", "x", at(60)), Some(2));
        assert_eq!(
            refusals.due("a", "x", at(30)),
            Some(0),
            "a clock that jumped back silences nobody"
        );
        for caller in 0..20_000 {
            refusals.due(&caller.to_string(), "x", at(61));
        }
        assert!(refusals.0.lock().unwrap().len() <= MOST_REFUSALS);
    }
}
