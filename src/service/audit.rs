//! The audit log: reading, exporting and verifying it, and recording refusals. Records of other
//! actions are written by the functions that perform them, in the same transaction.
//!
//! A refusal is recorded once a minute per caller and reason, with a count: a loop in an app must
//! not fill the log or the disk.

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

/// Rows per page.
pub const PAGE: i64 = 50;
/// Records per read of an export.
const BATCH: i64 = 1000;
/// Least time between two records of the same refusal of the same caller.
const REFUSALS_EVERY: Duration = Duration::from_secs(60);
/// Pairs of caller and reason that are remembered.
const MOST_REFUSALS: usize = 10_000;

/// The caller (person id or address) and the reason.
type Refused = (String, &'static str);

/// Refusals recorded lately: when, and how many have been suppressed since.
#[derive(Default)]
pub(super) struct Refusals(Mutex<HashMap<Refused, (Timestamp, u64)>>);

impl Refusals {
    /// `Some` if a refusal is to be recorded now, with the number suppressed since the last record.
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
            // Full of recent entries, as in an attack from many addresses: the records so far are
            // enough.
            None if full => None,
            found => {
                let more = found.map_or(0, |(_, more)| *more);
                known.insert((who.to_owned(), why), (now, 0));
                Some(more)
            }
        }
    }
}

/// The exchanges of one hour, with person, item and integration where they still exist.
pub struct Use {
    pub hour: Hour,
    pub person: Option<Person>,
    pub content: Option<Content>,
    pub integration: Option<Integration>,
}

impl Service {
    /// Records that match the filter, one more than [`PAGE`] if there are more. Administrators
    /// only.
    pub async fn audit_events(&self, actor: &Actor, filter: Filter) -> Result<Vec<Event>, Error> {
        self.audit_page(actor, filter, PAGE + 1).await
    }

    /// Records that match the filter, at most `most`. Administrators only.
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

    /// Records that the actor exports the audit log.
    pub async fn note_export(&self, actor: &Actor) -> Result<(), Error> {
        must_read(actor)?;
        let line = event(actor, self.now(), Action::RecordExported, "", "");
        self.store.note(move |db| record(db, &line)).await
    }

    /// The next records of an export after number `after`, oldest first; empty at the end.
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

    /// Verifies the hash chain of the audit log.
    pub async fn verify_record(&self) -> Result<Verdict, Error> {
        self.store.read(|db| Ok(audit::verify(db)?)).await
    }

    /// Exchanges by hour, person, item and integration; one more than [`PAGE`] if there are more.
    /// Administrators only.
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

    /// Records a refusal, once a minute per caller and reason. A caller is a person, or an address
    /// if nobody is signed in.
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

/// Looks up the names of an hour's person, item and integration.
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
