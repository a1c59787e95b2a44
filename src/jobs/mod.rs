//! Background jobs. Every node follows the changes of other processes and the keyring, writes its
//! counters and its presence, and renews its record as a live node. One node, the leader (holder of
//! a lease), also refreshes connections ahead of need, sends pending revocations to providers, looks
//! for leaks, warns of client secrets that expire, and purges old rows.
//!
//! Jobs only schedule: the decisions are in `service`.

pub mod purge;

use crate::{
    providers::profile,
    service::{
        Error, Services,
        auditing::leaks::Alarm,
        cluster::{cache::Validity, keyring::Reload, node::HEARTBEAT_INTERVAL},
        grants::token_times::{MAX_LEAD_BEFORE_EXPIRY, is_due_ahead},
    },
    store::{
        Store,
        changes::{self, Subject},
        connections, integrations,
    },
};
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture};
use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

/// How often the leader purges.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(600);
/// Name of the leader's lease.
const LEADER_LEASE: &str = "jobs";
/// Life of the leader's lease. It is renewed each round; after three missed renewals another node
/// takes over.
const LEADER_LEASE_LIFE: Duration = Duration::from_secs(35);
/// How often the leader sends notices.
const DELIVERY_INTERVAL: Duration = Duration::from_secs(2);
/// How often a node looks at conditions.
const CONDITIONS_INTERVAL: Duration = Duration::from_secs(60);
/// How often the leader seals audit records.
const SEAL_INTERVAL: Duration = Duration::from_secs(1);
/// How often refusals and wrong passwords are written.
const FLUSH_INTERVAL: Duration = Duration::from_secs(2);
/// How often the owners of app sessions are written.
const APP_SESSIONS_INTERVAL: Duration = Duration::from_millis(500);
/// How often endings are copied into the journal.
const JOURNAL_INTERVAL: Duration = Duration::from_secs(1);
/// Only connections used within this time are refreshed ahead of need.
const REFRESH_IF_USED_WITHIN: Duration = Duration::from_secs(3600);
/// Maximum concurrent refreshes ahead of need.
const MAX_CONCURRENT_REFRESHES: usize = 8;
/// Maximum connections per round of [`refresh_ahead`].
const MAX_CONNECTIONS_PER_ROUND: i64 = 5000;

/// Starts the jobs; aborting the handle stops them all.
pub fn start(service: &Arc<Services>) -> JoinHandle<()> {
    let service = Arc::clone(service);
    if let Err(error) = service.core.store.follow_changes() {
        tracing::error!(%error, "cannot follow the changes of other processes: nothing is cached");
    }
    tokio::spawn(async move {
        let is_leader = Arc::new(AtomicBool::new(false));
        let spawn = |work: BoxFuture<'static, ()>| AbortOnDropHandle::new(tokio::spawn(work));
        let _jobs = [
            spawn(flush(Arc::clone(&service)).boxed()),
            spawn(flush_app_sessions(Arc::clone(&service)).boxed()),
            spawn(follow_endings(Arc::clone(&service)).boxed()),
            spawn(supervise(service.core.store.clone()).boxed()),
            spawn(follow_keyring(Arc::clone(&service)).boxed()),
            spawn(lead(Arc::clone(&service), Arc::clone(&is_leader)).boxed()),
            spawn(seal(Arc::clone(&service), Arc::clone(&is_leader)).boxed()),
            spawn(keep_house(Arc::clone(&service), Arc::clone(&is_leader)).boxed()),
            spawn(deliver(Arc::clone(&service), Arc::clone(&is_leader)).boxed()),
            spawn(look_at_node(Arc::clone(&service)).boxed()),
        ];
        // The first node leads at once.
        let leader = service.nodes.try_lead(LEADER_LEASE, LEADER_LEASE_LIFE);
        is_leader.store(leader.await, Ordering::Relaxed);
        loop {
            tokio::time::sleep(HEARTBEAT_INTERVAL).await;
            if let Err(error) = service.presence.share_presence().await {
                tracing::warn!(reason = %error, "could not write the presence records; the next round tries again");
            }
            service.usage.flush_uses().await;
            service.activity.flush().await;
            service.sessions.flush_last_uses().await;
            service.api_keys.flush_last_uses().await;
            // Reload the keyring before `write_heartbeat` tells the other nodes which keys this one
            // holds.
            if let Err(reason) = service.keyring.sync_keyring(Reload::Always).await {
                tracing::error!(reason, "the keyring");
            }
            if let Err(error) = service.session_tokens.share_held_tokens().await {
                tracing::warn!(reason = %error, "could not write the held tokens; the next round tries again");
            }
            let written = service.nodes.write_heartbeat().await;
            if written.is_ok() {
                service.health.has_written();
            }
            match written {
                Ok(false) => {}
                // The next round shares all of it again.
                Ok(true) => {
                    service.session_tokens.forget_shared();
                    service.presence.forget_recorded();
                }
                Err(error) => tracing::warn!(reason = %error, "could not write the heartbeat"),
            }
            is_leader.store(
                service
                    .nodes
                    .try_lead(LEADER_LEASE, LEADER_LEASE_LIFE)
                    .await,
                Ordering::Relaxed,
            );
        }
    })
}

/// Writes refusals and wrong passwords every two seconds.
async fn flush(service: Arc<Services>) {
    loop {
        tokio::time::sleep(FLUSH_INTERVAL).await;
        service.audit.flush_refusals().await;
        service.limiter.share().await;
    }
}

/// Writes the owners of app sessions twice a second.
async fn flush_app_sessions(service: Arc<Services>) {
    loop {
        tokio::time::sleep(APP_SESSIONS_INTERVAL).await;
        service.app_sessions.flush().await;
    }
}

/// Copies endings into the journal every second.
async fn follow_endings(service: Arc<Services>) {
    loop {
        service.journal.follow().await;
        tokio::time::sleep(JOURNAL_INTERVAL).await;
    }
}

/// Replaces a connection that follows changes and hangs.
async fn supervise(store: Store) {
    loop {
        tokio::time::sleep(changes::POLL_INTERVAL).await;
        store.supervise_followers();
    }
}

/// Seals audit records every second, while this node is the leader.
async fn seal(service: Arc<Services>, is_leader: Arc<AtomicBool>) {
    loop {
        tokio::time::sleep(SEAL_INTERVAL).await;
        if is_leader.load(Ordering::Relaxed)
            && let Err(error) = service.audit.seal_records().await
        {
            tracing::debug!(reason = %error, "could not seal audit records; the next round tries again");
        }
    }
}

/// The span of one run of a job.
fn job(name: &'static str) -> tracing::Span {
    tracing::info_span!("job", name)
}

/// The leader's rounds. A task of its own, so that a provider that hangs does not delay this node's
/// heartbeat.
async fn lead(service: Arc<Services>, is_leader: Arc<AtomicBool>) {
    let mut alarm = Alarm::default();
    loop {
        tokio::time::sleep(HEARTBEAT_INTERVAL).await;
        if !is_leader.load(Ordering::Relaxed) {
            continue;
        }
        let (looked, ..) = tokio::join!(
            service
                .leaks
                .look_for_leaks(&mut alarm)
                .instrument(job("look for leaks")),
            refresh_ahead(&service).instrument(job("refresh ahead")),
        );
        service.revocations.spawn_revocations();
        if let Err(error) = service.revocations.finish_interrupted_endings().await {
            error.log("finishing interrupted endings");
        }
        if let Err(error) = looked {
            tracing::warn!(reason = %error, "could not look for leaked tokens; the next round tries again");
        }
    }
}

/// Purges old rows and warns of client secrets that expire, every ten minutes, while this node is
/// the leader. A task of its own: it may take long.
async fn keep_house(service: Arc<Services>, is_leader: Arc<AtomicBool>) {
    tokio::time::sleep(HEARTBEAT_INTERVAL).await;
    loop {
        if is_leader.load(Ordering::Relaxed) {
            if let Err(error) = service.integrations.warn_of_secrets().await {
                tracing::warn!(reason = %error, "could not look for client secrets that end soon; the next round tries again");
            }
            let is_whole = service.audit.check_daily().await.unwrap_or_else(|error| {
                error.log("verifying the audit log");
                None
            });
            if let Err(error) = service.conditions.look_at_installation(is_whole).await {
                error.log("looking for what somebody must be told");
                if is_whole == Some(false) {
                    service.audit.check_again();
                }
            }
            if let Err(error) = service.api_keys.apply_policy().await {
                error.log("letting old API keys end");
            }
            if let Err(error) = service.deletion.finish().await {
                error.log("taking the names of deleted people out of the audit log");
            }
            if let Err(error) = service.activity.record_levels().await {
                error.log("counting who is connected");
            }
            purge::run(&service).instrument(job("purge")).await;
        }
        service.journal.delete_old_files().await;
        tokio::time::sleep(HOUSEKEEPING_INTERVAL).await;
    }
}

/// Sends notices, while this node is the leader.
async fn deliver(service: Arc<Services>, is_leader: Arc<AtomicBool>) {
    loop {
        tokio::time::sleep(DELIVERY_INTERVAL).await;
        if is_leader.load(Ordering::Relaxed)
            && let Err(error) = service.deliveries.round().instrument(job("deliver")).await
        {
            error.log("sending notices; the next round tries again");
        }
    }
}

/// Makes notices of what this node itself knows (a full disk, an integration that fails), once a
/// minute.
async fn look_at_node(service: Arc<Services>) {
    loop {
        tokio::time::sleep(CONDITIONS_INTERVAL).await;
        if let Err(error) = service.conditions.look_at_node(&service.health).await {
            error.log("looking for what somebody must be told");
        }
    }
}

/// Follows a change of the sealing key.
async fn follow_keyring(service: Arc<Services>) {
    let mut followed: Option<Validity> = None;
    loop {
        tokio::time::sleep(changes::POLL_INTERVAL).await;
        let store = &service.core.store;
        if followed
            .as_ref()
            .is_some_and(|known| known.is_unchanged(store))
        {
            continue;
        }
        let validity = Validity::new(service.core.load_start(), [Subject::Keyring]);
        if service
            .keyring
            .sync_keyring(Reload::IfKeyIsMissing)
            .await
            .is_ok()
        {
            followed = Some(validity);
        }
    }
}

/// Refreshes connections in use ahead of need, so that no exchange has to wait for it.
async fn refresh_ahead(service: &Arc<Services>) {
    let now = service.core.now();
    let (from, to, used_since) = (
        now.minus(MAX_LEAD_BEFORE_EXPIRY),
        now.plus(MAX_LEAD_BEFORE_EXPIRY),
        now.minus(REFRESH_IF_USED_WITHIN),
    );
    let ending = service
        .core
        .store
        .read(move |db| {
            let ending =
                connections::expiring(db, from, to, used_since, MAX_CONNECTIONS_PER_ROUND)?;
            // Where a refresh ends the token before it, that would take it from under the apps
            // that hold it.
            let mut never_ahead = HashSet::new();
            for id in ending
                .iter()
                .map(|one| one.integration)
                .collect::<HashSet<_>>()
            {
                let found = integrations::find(db, id)?;
                if found.is_some_and(|found| profile(&found).refresh_ends_access_token) {
                    never_ahead.insert(id);
                }
            }
            Ok::<_, Error>((ending, never_ahead))
        })
        .await;
    let (ending, never_ahead) = match ending {
        Ok(found) => found,
        Err(error) => return error.log("finding connections to refresh ahead"),
    };
    let due = ending
        .into_iter()
        .filter(|connection| !never_ahead.contains(&connection.integration))
        .filter(|connection| is_due_ahead(connection, now))
        .map(|connection| connection.id);
    futures_util::stream::iter(due)
        .for_each_concurrent(MAX_CONCURRENT_REFRESHES, |connection| async move {
            // A failed refresh is repeated by the next round or by the next exchange.
            drop(service.broker.refresh(connection).await);
        })
        .await;
}
