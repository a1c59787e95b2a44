//! Work without a request: writes counted uses down, forgets what is over.

use crate::{
    service::{Error, Service},
    store::{self, audit, connections, handovers, identities, sessions},
};
use std::{sync::Arc, time::Duration};
use tokio::task::JoinHandle;

const EVERY: Duration = Duration::from_secs(10);
/// Counts of exchanges are kept this long. The record itself is kept for good.
const USES_KEPT: Duration = Duration::from_secs(400 * 86_400);
/// Every sixtieth round: ten minutes.
const PURGE: u32 = 60;

/// Starts the jobs; ends them when the handle is aborted.
pub fn start(service: &Arc<Service>) -> JoinHandle<()> {
    let service = Arc::clone(service);
    tokio::spawn(async move {
        let watched = Arc::clone(&service);
        let _watching = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async move { watch(&watched).await }));
        let mut rounds: u32 = 0;
        loop {
            tokio::time::sleep(EVERY).await;
            service.flush_uses().await;
            rounds = rounds.wrapping_add(1);
            if rounds.is_multiple_of(PURGE) {
                purge(&service).await;
            }
        }
    })
}

/// Learns what other processes write, several times a second.
async fn watch(service: &Service) {
    loop {
        tokio::time::sleep(store::LOOK_EVERY).await;
        if let Err(error) = service.store.look().await {
            tracing::warn!(reason = %error, "the database does not answer: nothing remembered counts");
        }
    }
}

async fn purge(service: &Service) {
    let (now, idle_since) = (service.now(), service.idle_since());
    // Attempts stay an hour longer, so that a late answer is told from a foreign one.
    let before = now.minus(Duration::from_secs(3600));
    let purged = service
        .store
        .note(move |db| {
            sessions::purge(db, now, idle_since)?;
            connections::purge_attempts(db, before)?;
            handovers::purge(db, now)?;
            identities::purge(db)?;
            audit::purge_exchanges(db, now.minus(USES_KEPT))?;
            Ok::<_, Error>(())
        })
        .await;
    if purged.is_err() {
        tracing::warn!("could not purge what is over; the next round tries again");
    }
}
