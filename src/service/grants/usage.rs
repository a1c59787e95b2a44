//! Counts of exchanges: who used which consent, when and through which process. Counted in memory
//! and written every few seconds, so that an exchange costs no write.

use crate::{
    domain::{
        Id, Timestamp, access,
        consent::Consent,
        content::{Content, ProcessId},
        integration::Integration,
        person::Person,
    },
    service::{
        auditing::audit::PAGE_SIZE,
        core::{Actor, Core, require},
        error::Error,
        grants::admission::{Admission, IntegrationAccess},
    },
    store::{
        audit::{self, ExchangeCount, ExchangeFilter, ExchangeTotals},
        bookkeeping::{self, ConsentUses, MAX_ROWS},
        content, integrations, people,
    },
};
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};

/// Exchanges counted in memory and not yet written to the database.
#[derive(Default)]
pub(in crate::service) struct UsageCounters(Mutex<HashMap<UsageKey, UsageCount>>);

/// What uses are counted by: a consent, the process that used it, and the hour.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct UsageKey {
    consent: Id<Consent>,
    process: ProcessId,
    /// The start of the hour (UTC).
    hour: Timestamp,
}

/// A count of exchanges, with what its database rows need.
#[derive(Clone, Copy)]
pub(in crate::service) struct UsageCount {
    times: i64,
    last: Timestamp,
    pub person: Id<Person>,
    pub content: Id<Content>,
    pub integration: Id<Integration>,
}

impl UsageCount {
    fn row(&self, key: UsageKey) -> ConsentUses {
        ConsentUses {
            consent: key.consent,
            person: self.person,
            content: self.content,
            integration: self.integration,
            process: key.process,
            hour: key.hour,
            times: self.times,
            last: self.last,
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

/// Who may read the counts.
const READERS: &str = "Only administrators read the record.";

/// Rows of a download, at most.
pub const EXPORT_ROWS: i64 = 200_000;
const HOUR: Duration = Duration::from_secs(3600);

/// Exchanges counted and not yet written.
pub struct Usage {
    core: Arc<Core>,
    counters: UsageCounters,
}

impl Usage {
    pub(in crate::service) fn new(core: Arc<Core>) -> Self {
        Self {
            core,
            counters: UsageCounters::default(),
        }
    }

    /// Counts one exchange in memory.
    pub(in crate::service) fn count_use(
        &self,
        consent: Id<Consent>,
        process: ProcessId,
        admission: &Admission,
        link: &IntegrationAccess,
        now: Timestamp,
    ) {
        let counted = UsageKey {
            consent,
            process,
            hour: now.start_of(HOUR),
        };
        let mut counters = self.counters.0.lock();
        let uses = counters.entry(counted).or_insert(UsageCount {
            times: 0,
            last: now,
            person: admission.person.id,
            content: admission.content.id,
            integration: link.integration.id,
        });
        uses.times += 1;
        uses.last = now;
    }

    /// Writes the counted uses to the database: every ten seconds and at a stop. So an exchange
    /// writes no row. Counts that cannot be written are kept for the next call.
    pub async fn flush_uses(self: &Arc<Self>) {
        self.flush_uses_of(|_| true).await;
    }

    /// Like [`Self::flush_uses`], for the uses that `is_meant` accepts: a page calls it before it
    /// shows them.
    pub(in crate::service) async fn flush_uses_of(
        self: &Arc<Self>,
        is_meant: impl Fn(&UsageCount) -> bool,
    ) {
        let counted: Vec<_> = self
            .counters
            .0
            .lock()
            .extract_if(|_, uses| is_meant(uses))
            .collect();
        if counted.is_empty() {
            return;
        }
        let usage = Arc::clone(self);
        let writing = async move { usage.write_uses(counted).await };
        if let Err(error) = self.core.run_to_end(writing).await {
            error.log("counting token uses");
        }
    }

    /// Writes counted uses; takes back those that it could not write.
    async fn write_uses(&self, counted: Vec<(UsageKey, UsageCount)>) {
        for part in counted.chunks(MAX_ROWS) {
            let rows: Vec<ConsentUses> = part.iter().map(|(key, uses)| uses.row(*key)).collect();
            let written = self
                .core
                .store
                .write_bookkeeping(move |db| Ok::<_, Error>(bookkeeping::add_uses(db, &rows)?))
                .await;
            if let Err(error) = written {
                error.log("counting token uses; they are counted again in the next round");
                let mut counters = self.counters.0.lock();
                for (key, lost) in part {
                    let uses = counters
                        .entry(*key)
                        .or_insert(UsageCount { times: 0, ..*lost });
                    uses.times += lost.times;
                    uses.last = uses.last.max(lost.last);
                }
            }
        }
    }

    /// Exchanges by hour, person, item and integration; one more than [`PAGE_SIZE`] if there are
    /// more. Administrators only.
    pub async fn hourly_uses(
        self: &Arc<Self>,
        actor: &Actor,
        wanted: ExchangeFilter,
    ) -> Result<Vec<HourlyUse>, Error> {
        self.uses(actor, wanted, PAGE_SIZE + 1).await
    }

    /// All counts of a filter for a download, up to [`EXPORT_ROWS`]; the last used first.
    pub async fn exported_uses(
        self: &Arc<Self>,
        actor: &Actor,
        wanted: ExchangeFilter,
    ) -> Result<Vec<HourlyUse>, Error> {
        self.uses(actor, wanted, EXPORT_ROWS).await
    }

    async fn uses(
        self: &Arc<Self>,
        actor: &Actor,
        wanted: ExchangeFilter,
        most: i64,
    ) -> Result<Vec<HourlyUse>, Error> {
        require(access::may_read_audit(actor.role), READERS)?;
        self.flush_wanted(&wanted).await;
        self.core
            .store
            .read(move |db| {
                let hours = audit::exchanges(db, &wanted, most)?;
                let people = people::by_id(db)?;
                let contents: HashMap<_, _> = content::list(db)?
                    .into_iter()
                    .map(|item| (item.id, item))
                    .collect();
                let integrations = integrations::by_id(db)?;
                let named = |hour: ExchangeCount| HourlyUse {
                    person: find(&people, &hour.person),
                    content: find(&contents, &hour.content),
                    integration: find(&integrations, &hour.integration),
                    hour,
                };
                Ok(hours.into_iter().map(named).collect())
            })
            .await
    }

    /// What the counts of a filter amount to. Administrators only.
    pub async fn totals(
        self: &Arc<Self>,
        actor: &Actor,
        wanted: ExchangeFilter,
    ) -> Result<ExchangeTotals, Error> {
        require(access::may_read_audit(actor.role), READERS)?;
        self.core
            .store
            .read(move |db| Ok(audit::exchange_totals(db, &wanted)?))
            .await
    }

    async fn flush_wanted(self: &Arc<Self>, wanted: &ExchangeFilter) {
        let (person, item) = (wanted.person, wanted.content);
        self.flush_uses_of(|uses| {
            person.is_none_or(|person| person == uses.person)
                && item.is_none_or(|item| item == uses.content)
        })
        .await;
    }

    /// The uses of one of the actor's own consents by hour, since `since`.
    pub async fn uses_of_consent(
        self: &Arc<Self>,
        actor: &Actor,
        consent: &Consent,
        since: Timestamp,
    ) -> Result<Vec<(Timestamp, i64)>, Error> {
        require(
            consent.person == actor.person.id,
            "Only its person sees the uses of a consent.",
        )?;
        let (person, item, integration) = (consent.person, consent.content, consent.integration);
        self.flush_uses_of(|uses| uses.person == person).await;
        self.core
            .store
            .read(move |db| Ok(audit::uses_of(db, person, item, integration, since)?))
            .await
    }
}

/// What a GUID in the counts names, if it still exists.
fn find<T: Clone>(known: &HashMap<Id<T>, T>, guid: &str) -> Option<T> {
    let id: Id<T> = guid.parse().ok()?;
    known.get(&id).cloned()
}
