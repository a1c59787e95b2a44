//! The audit log: reading, exporting and verifying it, and recording refusals. Records of other
//! actions are written by the functions that perform them, in the same transaction.
//!
//! A refusal is recorded once a minute per caller and reason, with a count: a loop in an app must
//! not fill the log or the disk.

use crate::{
    domain::{
        Timestamp, access,
        audit::{Action, Event, Origin},
        person::Person,
    },
    service::{
        core::{Actor, Core, event, record, require},
        error::Error,
    },
    store::audit::{self, RecordFilter, SealStatus, SealedBlock},
};
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};

/// Who may read the audit log.
const READERS: &str = "Only administrators read the record.";
/// Rows per page.
pub const PAGE_SIZE: i64 = 50;
/// Records per read of an export.
const EXPORT_BATCH: i64 = 1000;
/// Least time between two records of the same refusal of the same caller.
const REFUSAL_INTERVAL: Duration = Duration::from_secs(60);
/// Refusals that wait to be written.
const MAX_WAITING: usize = 10_000;
/// Pairs of caller and reason that are remembered.
const MAX_TRACKED_REFUSALS: usize = 10_000;

/// The caller (person id or address) and the reason.
type RefusalKey = (String, &'static str);

/// Refusals recorded lately: when, and how many have been suppressed since.
#[derive(Default)]
pub(in crate::service) struct Refusals(Mutex<HashMap<RefusalKey, (Timestamp, u64)>>);

impl Refusals {
    /// `Some` if a refusal is to be recorded now, with the number suppressed since the last record.
    fn should_record(&self, who: &str, why: &'static str, now: Timestamp) -> Option<u64> {
        let mut known = self.0.lock();
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

/// How often the leader verifies the whole log.
const CHECK_INTERVAL: Duration = Duration::from_secs(86_400);

/// Reads and verifies the audit log. Owns the refusals recorded lately.
pub struct Audit {
    core: Arc<Core>,
    refusals: Refusals,
    /// Records of refusals that wait for [`Audit::flush_refusals`]: a refused request must not cost
    /// a write of its own.
    waiting: Mutex<Vec<Event>>,
    /// The block that this process sealed last: if the log no longer holds it, somebody changed it.
    last_sealed: Mutex<Option<SealedBlock>>,
    /// What the last look at the whole log found, and when; only on the node that looks.
    checked: Mutex<Option<(Timestamp, bool)>>,
}

/// Transactions of one call of [`Audit::cut_old_records`], and what each deletes at most.
const MAX_CUTS: u32 = 60;
const BLOCKS_PER_CUT: u32 = 100;
const RECORDS_PER_CUT: usize = 1000;

impl Audit {
    pub(in crate::service) fn new(core: Arc<Core>) -> Self {
        Self {
            core,
            refusals: Refusals::default(),
            waiting: Mutex::default(),
            last_sealed: Mutex::default(),
            checked: Mutex::default(),
        }
    }

    /// Records a refusal within the next seconds. Beyond [`MAX_WAITING`] it is only logged.
    pub(in crate::service) fn note_later(&self, line: Event) {
        let mut waiting = self.waiting.lock();
        if waiting.len() < MAX_WAITING {
            waiting.push(line);
        } else {
            tracing::warn!(action = line.action.as_str(), address = %line.address, "a refusal could not be recorded: too many wait");
        }
    }

    /// Writes the refusals that wait, in one transaction. A failure keeps them.
    pub async fn flush_refusals(self: &Arc<Self>) {
        let audit = Arc::clone(self);
        let writing = async move { audit.write_refusals().await };
        if let Err(error) = self.core.run_to_end(writing).await {
            error.log("recording refusals");
        }
    }

    async fn write_refusals(&self) {
        let lines = std::mem::take(&mut *self.waiting.lock());
        if lines.is_empty() {
            return;
        }
        let again = lines.clone();
        let written = self
            .core
            .store
            .write(move |db| lines.iter().try_for_each(|line| record(db, line)))
            .await;
        if let Err(error) = written {
            error.log("recording refusals");
            let mut waiting = self.waiting.lock();
            waiting.splice(0..0, again);
            waiting.truncate(MAX_WAITING);
        }
    }

    /// Records that match the filter, one more than [`PAGE_SIZE`] if there are more. Administrators
    /// only.
    pub async fn audit_events(
        self: &Arc<Self>,
        actor: &Actor,
        filter: RecordFilter,
    ) -> Result<Vec<Event>, Error> {
        self.audit_page(actor, filter, PAGE_SIZE + 1).await
    }

    /// Records that match the filter, at most `most`. Administrators only.
    pub async fn audit_page(
        self: &Arc<Self>,
        actor: &Actor,
        filter: RecordFilter,
        most: i64,
    ) -> Result<Vec<Event>, Error> {
        require(access::may_read_audit(actor.role), READERS)?;
        self.flush_refusals().await;
        self.core
            .store
            .read(move |db| Ok(audit::list(db, &filter, most)?))
            .await
    }

    /// Records that the actor exports the audit log.
    pub async fn note_export(&self, actor: &Actor) -> Result<(), Error> {
        require(access::may_read_audit(actor.role), READERS)?;
        let line = event(actor, self.core.now(), Action::RecordExported, "", "");
        self.core.store.write(move |db| record(db, &line)).await
    }

    /// The next records of an export after number `after`, oldest first; empty at the end.
    pub async fn export_batch(
        self: &Arc<Self>,
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

    /// Verifies the seals of the audit log, on one snapshot.
    pub async fn verify_audit_log(&self) -> Result<SealStatus, Error> {
        self.core
            .store
            .read_snapshot(|db| Ok(audit::verify(db)?))
            .await
    }

    /// Verifies the seals once a day. For the leader. `Some` after a look: whether the log is whole.
    pub async fn check_daily(&self) -> Result<Option<bool>, Error> {
        let (now, last) = (self.core.now(), *self.checked.lock());
        if last.is_some_and(|(at, _)| now >= at && now.since(at) < CHECK_INTERVAL) {
            return Ok(None);
        }
        let status = self.verify_audit_log().await?;
        let is_whole = matches!(status, SealStatus::Intact { .. });
        if let SealStatus::Broken { block, first, last } = status {
            tracing::error!(block, first, last, "the audit log was changed");
        }
        *self.checked.lock() = Some((now, is_whole));
        Ok(Some(is_whole))
    }

    /// What [`Self::check_daily`] found could not be told: the next round looks again.
    pub fn check_again(&self) {
        *self.checked.lock() = None;
    }

    /// What the last look of this process at the whole log found; `None` on other nodes than the
    /// one that looks.
    pub fn is_whole(&self) -> Option<bool> {
        let now = self.core.now();
        let last = *self.checked.lock();
        // A node that leads no more does not go on telling.
        last.filter(|(at, _)| now.since(*at) < CHECK_INTERVAL.saturating_mul(2))
            .map(|(_, is_whole)| is_whole)
    }

    /// Seals the records of the last second. For the leader; if two try at once, one fails.
    pub async fn seal_records(&self) -> Result<(), Error> {
        let unsealed = self
            .core
            .store
            .read(|db| Ok::<_, Error>(audit::has_unsealed(db)?))
            .await?;
        if !unsealed {
            return Ok(());
        }
        let (known, now) = (self.last_sealed.lock().clone(), self.core.now());
        let sealed = self
            .core
            .store
            .write(move |db| Ok::<_, Error>(audit::seal_block(db, known.as_ref(), now)?))
            .await?;
        if sealed.is_some() {
            *self.last_sealed.lock() = sealed;
        }
        Ok(())
    }

    /// Deletes the blocks that are older than the operator keeps them; the same transaction records
    /// how many records that were. A long backlog is left to the next calls.
    pub async fn cut_old_records(&self) -> Result<(), Error> {
        let Some(kept) = self.core.settings.retention.audit else {
            return Ok(());
        };
        let now = self.core.now();
        let before = now.minus(kept);
        for _ in 0..MAX_CUTS {
            let deleted = self
                .core
                .store
                .write(move |db| {
                    let (mut blocks, mut records) = (0, 0);
                    while blocks < BLOCKS_PER_CUT
                        && records < RECORDS_PER_CUT
                        && let Some(deleted) = audit::cut(db, before)?
                    {
                        blocks += 1;
                        records += deleted;
                    }
                    if blocks > 0 {
                        let subject = format!("records before {}", before.rfc3339());
                        let detail = format!("{records} deleted");
                        record(
                            db,
                            &Event::by_portal(now, Action::RecordCut, subject, detail),
                        )?;
                    }
                    Ok::<_, Error>(blocks)
                })
                .await?;
            if deleted < BLOCKS_PER_CUT {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Records a refusal, once a minute per caller and reason. A caller is a person, or an address
    /// if nobody is signed in.
    pub fn note_refusal(
        &self,
        action: Action,
        who: Option<&Person>,
        origin: &Origin,
        why: &'static str,
        subject: String,
    ) {
        let now = self.core.now();
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
        self.note_later(line);
    }
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
        assert!(refusals.0.lock().len() <= MAX_TRACKED_REFUSALS);
    }
}
