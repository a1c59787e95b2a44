//! What the service manager is told (systemd, `Type=notify`; sd_notify(3)): ready, alive, stopping.
//! Elsewhere nothing happens.
//!
//! The watchdog is fed only while the node can read its database and its event loop turns: a node that
//! hangs is restarted, one whose database is away is not, since a restart would not help it.

use crate::service::Services;
use sd_notify::NotifyState;
use std::sync::Arc;

fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}

/// The listeners are bound and requests are answered.
pub fn ready() {
    tell(NotifyState::Ready);
}

/// A stop has begun.
pub fn stopping() {
    tell(NotifyState::Stopping);
}

/// Feeds the watchdog twice in its time, if the service manager has one for this process.
pub async fn feed_watchdog(services: Arc<Services>) {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return;
    };
    loop {
        // An answer, whatever it says: a read that fails does not hang.
        services.health.report().await;
        tell(NotifyState::Watchdog);
        tokio::time::sleep(limit / 2).await;
    }
}
