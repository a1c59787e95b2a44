//! Work without a request. Each node watches what the others write, writes its own counts down and
//! says that it is there; one of them, the leader, refreshes ahead, tells providers, warns, and
//! forgets what is over.

use crate::{
    domain::connection::Cause,
    service::{
        Error, Service,
        broker::{EARLIEST, is_due_ahead},
        leaks::Alarm,
        limiter,
        node::ALIVE_EVERY,
    },
    store::{
        self, audit, connections, handovers, identities, leaks, leases, moments, revocations,
        sessions,
    },
};
use futures_util::StreamExt as _;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

/// Counts of exchanges are kept this long. The record itself is kept for good.
const USES_KEPT: Duration = Duration::from_secs(400 * 86_400);
/// What ended is shown to its person for so long.
const ENDS_KEPT: Duration = Duration::from_secs(30 * 86_400);
/// Every sixtieth round: ten minutes.
const PURGE: u32 = 60;
/// Who was where is of no use after that.
const PRESENCE_KEPT: Duration = Duration::from_secs(2 * 86_400);
const LEADERS_WORK: &str = "jobs";
/// The leader asks again every round; three missed ones, and another node leads.
const LEADS_FOR: Duration = Duration::from_secs(35);
/// Connections that were used within this time are kept fresh.
const IN_USE: Duration = Duration::from_secs(3600);
const AHEAD_AT_ONCE: usize = 8;
const MOST_AHEAD: i64 = 500;

/// Starts the jobs; ends them when the handle is aborted.
pub fn start(service: &Arc<Service>) -> JoinHandle<()> {
    let service = Arc::clone(service);
    tokio::spawn(async move {
        let (watched, led, leads) = (
            Arc::clone(&service),
            Arc::clone(&service),
            Arc::new(AtomicBool::new(false)),
        );
        let _watching = AbortOnDropHandle::new(tokio::spawn(async move { watch(&watched).await }));
        let told = Arc::clone(&leads);
        let _leading = AbortOnDropHandle::new(tokio::spawn(async move { lead(&led, &told).await }));
        loop {
            tokio::time::sleep(ALIVE_EVERY).await;
            if service.share_presence().await.is_err() {
                tracing::warn!("could not write down who is where; the next round tries again");
            }
            service.flush_uses().await;
            // Before the other nodes hear which keys are held here.
            if let Err(reason) = service.follow_keyring(true).await {
                tracing::error!(reason, "the keyring");
            }
            if service.share_held().await.is_err() || service.say_alive().await.is_err() {
                tracing::warn!("could not tell the other nodes what is open here");
            }
            leads.store(
                service.leads(LEADERS_WORK, LEADS_FOR).await,
                Ordering::Relaxed,
            );
        }
    })
}

/// The work of the one that leads. In a task of its own: a provider that hangs must not keep a node
/// from saying that it lives.
async fn lead(service: &Arc<Service>, leads: &AtomicBool) {
    let mut rounds: u32 = 0;
    let mut alarm = Alarm::default();
    loop {
        tokio::time::sleep(ALIVE_EVERY).await;
        if !leads.load(Ordering::Relaxed) {
            continue;
        }
        let (looked, ..) = tokio::join!(
            service.look_for_leaks(&mut alarm),
            ahead(service),
            service.tell_providers()
        );
        if looked.is_err() {
            tracing::warn!("could not look for shared tokens; the next round tries again");
        }
        rounds = rounds.wrapping_add(1);
        if rounds.is_multiple_of(PURGE) {
            purge(service).await;
            lapse(service).await;
        }
        if rounds % PURGE == 1 && service.warn_of_secrets().await.is_err() {
            tracing::warn!(
                "could not look for client secrets that end soon; the next round tries again"
            );
        }
    }
}

/// Learns what other processes write, several times a second.
async fn watch(service: &Service) {
    let mut known = 0;
    loop {
        tokio::time::sleep(store::LOOK_EVERY).await;
        if let Err(error) = service.store.look().await {
            tracing::warn!(reason = %error, "the database does not answer: nothing remembered counts");
            continue;
        }
        let epoch = service.store.epoch();
        // Another key may seal since.
        if epoch != known && service.follow_keyring(false).await.is_ok() {
            known = epoch;
        }
    }
}

/// Refreshes connections in use before an exchange has to wait for it.
async fn ahead(service: &Arc<Service>) {
    let now = service.now();
    let (from, to, used_since) = (now.minus(EARLIEST), now.plus(EARLIEST), now.minus(IN_USE));
    let ending = service
        .store
        .read(move |db| Ok::<_, Error>(connections::ending(db, from, to, used_since, MOST_AHEAD)?))
        .await;
    let Ok(ending) = ending else { return };
    let due = ending
        .into_iter()
        .filter(|connection| is_due_ahead(connection, now))
        .map(|connection| connection.id);
    futures_util::stream::iter(due)
        .for_each_concurrent(AHEAD_AT_ONCE, |connection| async move {
            // What fails now is asked for again by the next round, or by whoever needs it.
            drop(service.refresh(connection).await);
        })
        .await;
}

/// Lets connections go that nothing used for longer than the operator allows.
async fn lapse(service: &Arc<Service>) {
    let Some(idle) = service.settings.connection_idle else {
        return;
    };
    let since = service.now().minus(idle);
    let unused = service
        .store
        .read(move |db| Ok::<_, Error>(connections::unused(db, since, MOST_AHEAD)?))
        .await;
    for connection in unused.unwrap_or_default() {
        if service
            .let_lapse(connection.id, Cause::Unused)
            .await
            .is_err()
        {
            tracing::warn!(connection = %connection.id, "could not let an unused connection go; the next round tries again");
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
            leases::purge(db, now.minus(Duration::from_secs(86_400)))?;
            moments::purge(db, now, now.minus(limiter::WINDOW), before)?;
            revocations::purge(db, now.minus(ENDS_KEPT))?;
            leaks::purge(db, now.minus(PRESENCE_KEPT))?;
            Ok::<_, Error>(())
        })
        .await;
    if purged.is_err() {
        tracing::warn!("could not purge what is over; the next round tries again");
    }
}
