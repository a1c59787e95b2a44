//! Deletes old rows and ends connections that are kept no longer. The leader runs it every ten
//! minutes. Each table is purged in batches, and one that fails does not stop the others.

use crate::{
    domain::connection::Connection,
    service::{Error, Services, people::limiter},
    store::{
        connections,
        purge::{self, BATCH, Cutoffs, FORGET_NODE_AFTER, Purge},
    },
};
use std::{sync::Arc, time::Duration};

/// Attempts are kept for an hour after they expire, so that a late callback can be distinguished
/// from an unknown one.
const ATTEMPT_RETENTION: Duration = Duration::from_secs(3600);
/// Retention of leases that are no longer renewed: those of connections that are not in use.
const LEASE_RETENTION: Duration = Duration::from_secs(86_400);
/// Apps drop their sessions within minutes of a disconnect. After a week, a browser tab starts a new
/// one.
const APP_SESSION_RETENTION: Duration = Duration::from_secs(7 * 86_400);
/// Retention of presence and of uses of tokens.
const PRESENCE_RETENTION: Duration = Duration::from_secs(2 * 86_400);
/// Retention of endings in the database: a node that was away for less finds all of them for its
/// journal.
const ENDING_RETENTION: Duration = Duration::from_secs(90 * 86_400);
/// Retention of ended connections, which their people can still see.
const REVOCATION_RETENTION: Duration = Duration::from_secs(30 * 86_400);
/// Retention of notices and their deliveries.
const NOTICE_RETENTION: Duration = Duration::from_secs(30 * 86_400);
/// A browser that was not used for so long counts as new.
const DEVICE_RETENTION: Duration = Duration::from_secs(180 * 86_400);
/// Pause between two batches: other writes come first.
const PAUSE: Duration = Duration::from_millis(20);
/// Connections that one round ends, at most.
const MAX_CONNECTIONS_PER_ROUND: i64 = 500;

/// Runs all purges once.
pub async fn run(service: &Arc<Services>) {
    let core = &service.core;
    let (now, retention) = (core.now(), core.settings.retention);
    let cutoffs = Cutoffs {
        now,
        idle_sessions: core.idle_since(),
        content_sessions: now.minus(core.settings.session_lifetime),
        password_attempts: now.minus(limiter::WINDOW),
        attempts: now.minus(ATTEMPT_RETENTION),
        leases: now.minus(LEASE_RETENTION),
        app_sessions: now.minus(APP_SESSION_RETENTION),
        presence: now.minus(PRESENCE_RETENTION),
        revocations: now.minus(REVOCATION_RETENTION),
        endings: now.minus(ENDING_RETENTION),
        exchange_counts: now.minus(retention.exchange_counts),
        leaks: now.minus(retention.leaks),
        notices: now.minus(NOTICE_RETENTION),
        devices: now.minus(DEVICE_RETENTION),
        setup_links: now.minus(retention.setup_links),
    };
    let forgotten = now.minus(FORGET_NODE_AFTER);
    let ended = core
        .store
        .write_bookkeeping(move |db| Ok::<_, Error>(purge::forget_nodes(db, forgotten)?))
        .await;
    if let Err(error) = ended {
        error.log("forgetting nodes that have ended");
    }
    for rule in purge::rules(&cutoffs) {
        purge_table(service, rule).await;
    }
    if let Err(error) = service.audit.cut_old_records().await {
        error.log("deleting old audit records");
    }
    if let Some(idle) = core.settings.connection_idle {
        end_old_connections(service, Old::Unused, idle).await;
    }
    let unconfirmed = retention.unconfirmed_connections;
    end_old_connections(service, Old::Unconfirmed, unconfirmed).await;
}

/// Runs one rule until it finds nothing more; a failure is logged.
async fn purge_table(service: &Services, rule: Purge) {
    loop {
        let batch = rule.clone();
        let deleted = service
            .core
            .store
            .write_bookkeeping(move |db| Ok::<_, Error>(batch.run(db)?))
            .await;
        match deleted {
            Ok(deleted) if deleted < BATCH => return,
            Ok(_) => tokio::time::sleep(PAUSE).await,
            Err(error) => {
                tracing::warn!(reason = %error, table = rule.table, "could not purge old rows; the next round tries again");
                return;
            }
        }
    }
}

/// Connections that are kept no longer.
#[derive(Clone, Copy, Debug)]
enum Old {
    /// Not used for longer than the operator allows. Their consents stay.
    Unused,
    /// Their viewer never confirmed the account.
    Unconfirmed,
}

/// Ends old connections, one after the other.
async fn end_old_connections(service: &Arc<Services>, which: Old, retention: Duration) {
    let since = service.core.now().minus(retention);
    let found = service.core.store.read(move |db| match which {
        Old::Unused => connections::unused(db, since, MAX_CONNECTIONS_PER_ROUND),
        Old::Unconfirmed => connections::unconfirmed(db, since, MAX_CONNECTIONS_PER_ROUND),
    });
    let found = match found.await {
        Ok(found) => found,
        Err(error) => return Error::from(error).log("finding connections to end"),
    };
    for Connection { id, .. } in found {
        let ended = match which {
            Old::Unused => service.revocations.expire_unused(id, since).await,
            Old::Unconfirmed => service.revocations.end_unconfirmed(id, since).await,
        };
        if let Err(error) = ended {
            tracing::warn!(connection = %id, ?which, reason = %error, "could not end a connection; the next round tries again");
        }
    }
}
