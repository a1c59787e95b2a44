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
        Db,
        audit::{self, ExchangeCount, ExchangeFilter, add_exchanges},
        connections, content, integrations, leaks, people,
    },
};
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc};

/// Exchanges counted in memory and not yet written to the database.
#[derive(Default)]
pub(in crate::service) struct UsageCounters(Mutex<HashMap<UsageKey, UsageCount>>);

/// What uses are counted by: a consent, the process that used it, and the hour.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct UsageKey {
    consent: Id<Consent>,
    process: ProcessId,
    /// Hours since 1970 (UTC).
    hour: i64,
}

/// A count of exchanges, with what its database rows need.
#[derive(Clone, Copy)]
struct UsageCount {
    times: i64,
    last: Timestamp,
    person: Id<Person>,
    content: Id<Content>,
    integration: Id<Integration>,
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

/// Rows per transaction: others write, too.
const MAX_ROWS_PER_TRANSACTION: usize = 200;
/// Milliseconds in an hour.
const HOUR_MS: i64 = 3_600_000;

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
            hour: now.0.div_euclid(HOUR_MS),
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

    /// Writes the counted uses to the database: every ten seconds, at a stop, and before a page
    /// shows them. So an exchange writes no row. Counts that cannot be written are kept for the
    /// next call.
    pub async fn flush_uses(&self) {
        let counted = std::mem::take(&mut *self.counters.0.lock());
        if counted.is_empty() {
            return;
        }
        let mut rows: Vec<(UsageKey, UsageCount)> =
            counted.iter().map(|(key, uses)| (*key, *uses)).collect();
        // All nodes write in the same order, so that none waits for another in a circle. Several
        // processes may use one consent: write the newest use last.
        rows.sort_by_key(|(_, uses)| {
            (uses.person.as_u128(), uses.integration.as_u128(), uses.last)
        });
        for rows in rows.chunks(MAX_ROWS_PER_TRANSACTION) {
            self.write_uses(rows.to_vec()).await;
        }
    }

    /// Writes counted uses in one transaction; takes them back if it fails.
    async fn write_uses(&self, rows: Vec<(UsageKey, UsageCount)>) {
        let counted = rows.clone();
        let written = self
            .core
            .store
            .write(move |db| {
                for (counted, uses) in &rows {
                    leaks::record_token_use(
                        db,
                        uses.content,
                        counted.process,
                        uses.person,
                        uses.last,
                    )?;
                    connections::add_uses(db, counted.consent, uses.times, uses.last)?;
                    connections::touch(db, uses.person, uses.integration, uses.last)?;
                    let hour = ExchangeCount {
                        hour: Timestamp(counted.hour * HOUR_MS),
                        person: uses.person.to_string(),
                        content: uses.content.to_string(),
                        integration: uses.integration.to_string(),
                        exchanges: uses.times,
                        last_at: uses.last,
                    };
                    add_exchanges(db, &hour)?;
                }
                Ok::<_, Error>(())
            })
            .await;
        if let Err(error) = written {
            error.log("counting token uses; they are counted again in the next round");
            let mut counters = self.counters.0.lock();
            for (key, lost) in counted {
                let uses = counters
                    .entry(key)
                    .or_insert(UsageCount { times: 0, ..lost });
                uses.times += lost.times;
                uses.last = uses.last.max(lost.last);
            }
        }
    }

    /// Exchanges by hour, person, item and integration; one more than [`PAGE_SIZE`] if there are
    /// more. Administrators only.
    pub async fn hourly_uses(
        &self,
        actor: &Actor,
        wanted: ExchangeFilter,
    ) -> Result<Vec<HourlyUse>, Error> {
        require(access::may_read_audit(actor.role), READERS)?;
        self.flush_uses().await;
        self.core
            .store
            .read(move |db| {
                audit::exchanges(db, &wanted, PAGE_SIZE + 1)?
                    .into_iter()
                    .map(|hour| named(db, hour))
                    .collect()
            })
            .await
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
