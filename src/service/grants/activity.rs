//! Counts of refused exchanges, of the steps to a consent and of refreshes, by hour, content item and
//! integration. They are kept in memory and written together every few seconds, like the counts of
//! exchanges (`usage`): no event costs a database write of its own.

use crate::{
    domain::{
        Id, Timestamp,
        activity::{Activity, ActivityCount, FUNNEL},
        consent::Consent,
        content::{Content, ProcessId},
        integration::Integration,
    },
    measures,
    service::{
        core::{Actor, Core, must_manage_integrations},
        error::Error,
        grants::{
            admission::{Admission, IntegrationAccess},
            usage::Usage,
        },
    },
    store::{
        activity::{self, About, ActivitySum},
        bookkeeping::{self, MAX_ROWS},
        connections,
    },
};
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// What a count is about: the hour, the kind of event, the content item and the integration.
type Key = (
    Timestamp,
    Activity,
    Option<Id<Content>>,
    Option<Id<Integration>>,
);

/// Counts what happens.
pub struct ActivityCounts {
    core: Arc<Core>,
    usage: Arc<Usage>,
    counts: Mutex<HashMap<Key, (i64, Timestamp)>>,
}

impl ActivityCounts {
    pub(in crate::service) fn new(core: Arc<Core>, usage: Arc<Usage>) -> Self {
        Self {
            core,
            usage,
            counts: Mutex::default(),
        }
    }

    /// Counts one.
    pub fn count(
        &self,
        kind: Activity,
        content: Option<Id<Content>>,
        integration: Option<Id<Integration>>,
    ) {
        if FUNNEL.contains(&kind) {
            measures::consent(kind.into());
        }
        let now = self.core.now();
        let key = (now.start_of(HOUR), kind, content, integration);
        let mut counts = self.counts.lock();
        let (times, last) = counts.entry(key).or_insert((0, now));
        *times += 1;
        *last = now;
    }

    /// Counts an exchange that handed out a token, which also counts as a use of the consent.
    pub(in crate::service) fn count_exchange(
        &self,
        consent: Id<Consent>,
        process: ProcessId,
        admission: &Admission,
        link: &IntegrationAccess,
        now: Timestamp,
    ) {
        self.usage.count_use(consent, process, admission, link, now);
    }

    /// Writes the counts to the database. Called every ten seconds, before a page shows the counts,
    /// and when the server stops. Counts that cannot be written are kept for the next call.
    pub async fn flush(self: &Arc<Self>) {
        let counted: Vec<_> = self.counts.lock().drain().collect();
        if counted.is_empty() {
            return;
        }
        let activity = Arc::clone(self);
        let writing = async move { activity.write(counted).await };
        if let Err(error) = self.core.run_to_end(writing).await {
            error.log("counting activity");
        }
    }

    async fn write(&self, counted: Vec<(Key, (i64, Timestamp))>) {
        for part in counted.chunks(MAX_ROWS) {
            let rows: Vec<ActivityCount> = part
                .iter()
                .map(
                    |((hour, kind, content, integration), (times, last_at))| ActivityCount {
                        hour: *hour,
                        kind: *kind,
                        content: *content,
                        integration: *integration,
                        times: *times,
                        last_at: *last_at,
                    },
                )
                .collect();
            let written = self
                .core
                .store
                .write_bookkeeping(move |db| Ok::<_, Error>(bookkeeping::add_activity(db, &rows)?))
                .await;
            if let Err(error) = written {
                error.log("counting activity; it is counted again in the next round");
                let mut counts = self.counts.lock();
                for (key, (times, last)) in part {
                    let known = counts.entry(*key).or_insert((0, *last));
                    known.0 += times;
                    known.1 = known.1.max(*last);
                }
            }
        }
    }

    /// The sums about one item or integration in steps of `step` since `since`, those in memory
    /// included. The caller has checked who may see them.
    pub(in crate::service) async fn sums(
        self: &Arc<Self>,
        about: About,
        since: Timestamp,
        step: Duration,
    ) -> Result<Vec<ActivitySum>, Error> {
        self.flush().await;
        self.usage
            .flush_uses_of(|uses| match about {
                About::Content(id) => uses.content == id,
                About::Integration(id) => uses.integration == id,
            })
            .await;
        self.core
            .store
            .read(move |db| Ok(activity::sums(db, about, since, step)?))
            .await
    }

    /// The sums about an integration; for administrators.
    pub async fn of_integration(
        self: &Arc<Self>,
        actor: &Actor,
        id: Id<Integration>,
        since: Timestamp,
        step: Duration,
    ) -> Result<Vec<ActivitySum>, Error> {
        must_manage_integrations(actor)?;
        self.sums(About::Integration(id), since, step).await
    }

    /// Records how many people are connected to each integration today. For the leader.
    pub async fn record_levels(&self) -> Result<(), Error> {
        let now = self.core.now();
        let today = now.start_of(DAY);
        let connected = self
            .core
            .store
            .read(|db| Ok::<_, Error>(connections::count_active(db)?))
            .await?;
        let levels: Vec<ActivityCount> = connected
            .into_iter()
            .map(|(integration, people)| ActivityCount {
                hour: today,
                kind: Activity::PeopleConnected,
                content: None,
                integration: Some(integration),
                times: people,
                last_at: now,
            })
            .collect();
        for part in levels.chunks(MAX_ROWS) {
            let part = part.to_vec();
            self.core
                .store
                .write_bookkeeping(move |db| Ok::<_, Error>(bookkeeping::set_levels(db, &part)?))
                .await?;
        }
        Ok(())
    }
}
