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
        audit::{self, ChainStatus, ExchangeCount, ExchangeFilter, RecordFilter},
        content, integrations, people,
    },
};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Rows per page.
pub const PAGE_SIZE: i64 = 50;
/// Records per read of an export.
const EXPORT_BATCH: i64 = 1000;
/// Least time between two records of the same refusal of the same caller.
const REFUSAL_INTERVAL: Duration = Duration::from_secs(60);
/// Pairs of caller and reason that are remembered.
const MAX_TRACKED_REFUSALS: usize = 10_000;

/// The caller (person id or address) and the reason.
type RefusalKey = (String, &'static str);

/// Refusals recorded lately: when, and how many have been suppressed since.
#[derive(Default)]
pub(super) struct Refusals(Mutex<HashMap<RefusalKey, (Timestamp, u64)>>);

impl Refusals {
    /// `Some` if a refusal is to be recorded now, with the number suppressed since the last record.
    fn should_record(&self, who: &str, why: &'static str, now: Timestamp) -> Option<u64> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_TRACKED_REFUSALS {
            known.retain(|_, (at, _)| now.since(*at) < REFUSAL_INTERVAL);
        }
        let full = known.len() >= MAX_TRACKED_REFUSALS;
        match known.get_mut(&(who.to_owned(), why)) {
            Some((at, more)) if now >= *at && now.since(*at) < REFUSAL_INTERVAL => {
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
pub struct HourlyUse {
    pub hour: ExchangeCount,
    pub person: Option<Person>,
    pub content: Option<Content>,
    pub integration: Option<Integration>,
}

impl Service {
    /// Records that match the filter, one more than [`PAGE_SIZE`] if there are more. Administrators
    /// only.
    pub async fn audit_events(
        &self,
        actor: &Actor,
        filter: RecordFilter,
    ) -> Result<Vec<Event>, Error> {
        self.audit_page(actor, filter, PAGE_SIZE + 1).await
    }

    /// Records that match the filter, at most `most`. Administrators only.
    pub async fn audit_page(
        &self,
        actor: &Actor,
        filter: RecordFilter,
        most: i64,
    ) -> Result<Vec<Event>, Error> {
        require_audit_reader(actor)?;
        self.store
            .read(move |db| Ok(audit::list(db, &filter, most)?))
            .await
    }

    /// Records that the actor exports the audit log.
    pub async fn note_export(&self, actor: &Actor) -> Result<(), Error> {
        require_audit_reader(actor)?;
        let line = event(actor, self.now(), Action::RecordExported, "", "");
        self.store
            .write_untracked(move |db| record(db, &line))
            .await
    }

    /// The next records of an export after number `after`, oldest first; empty at the end.
    pub async fn export_batch(
        &self,
        actor: &Actor,
        filter: &RecordFilter,
        after: i64,
    ) -> Result<Vec<Event>, Error> {
        self.audit_page(
            actor,
            RecordFilter {
                after: Some(after),
                oldest_first: true,
                ..filter.clone()
            },
            EXPORT_BATCH,
        )
        .await
    }

    /// Verifies the hash chain of the audit log.
    pub async fn verify_audit_log(&self) -> Result<ChainStatus, Error> {
        self.store.read(|db| Ok(audit::verify(db)?)).await
    }

    /// Exchanges by hour, person, item and integration; one more than [`PAGE_SIZE`] if there are
    /// more. Administrators only.
    pub async fn hourly_uses(
        &self,
        actor: &Actor,
        wanted: ExchangeFilter,
    ) -> Result<Vec<HourlyUse>, Error> {
        require_audit_reader(actor)?;
        self.flush_uses().await;
        self.store
            .read(move |db| {
                audit::exchanges(db, &wanted, PAGE_SIZE + 1)?
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
        let Some(more) = self.refusals.should_record(&caller, why, now) else {
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
        if self
            .store
            .write_untracked(move |db| record(db, &line))
            .await
            .is_err()
        {
            tracing::warn!(why, "a refusal could not be written down");
        }
    }
}

fn require_audit_reader(actor: &Actor) -> Result<(), Error> {
    if access::may_read_audit(actor.role) {
        Ok(())
    } else {
        Err(Error::Forbidden("Only administrators read the record."))
    }
}

/// Looks up the names of an hour's person, item and integration.
fn named(db: &mut Db<'_>, hour: ExchangeCount) -> Result<HourlyUse, Error> {
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
    Ok(HourlyUse {
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
        assert_eq!(refusals.should_record("a", "x", at(0)), Some(0));
        assert_eq!(refusals.should_record("a", "x", at(1)), None);
        assert_eq!(refusals.should_record("a", "x", at(59)), None);
        assert_eq!(refusals.should_record("b", "x", at(2)), Some(0));
        assert_eq!(refusals.should_record("a", "y", at(2)), Some(0));
        assert_eq!(refusals.should_record("a", "x", at(60)), Some(2));
        assert_eq!(
            refusals.should_record("a", "x", at(30)),
            Some(0),
            "a clock that jumped back silences nobody"
        );
        for caller in 0..20_000 {
            refusals.should_record(&caller.to_string(), "x", at(61));
        }
        assert!(refusals.0.lock().unwrap().len() <= MAX_TRACKED_REFUSALS);
    }
}
