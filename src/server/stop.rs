//! Start and stop: joining the cluster before the first request, the background work while the
//! server runs, and a graceful end within [`STOP_TIMEOUT`].

use super::{application::Shared, service_manager};
#[cfg(target_os = "linux")]
use crate::runner::Runner;
use crate::{jobs, proxy::health_checks, service::Services};
use actix_server::{GracefulShutdownSignal, Server};
use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

/// Deadline of a graceful stop; requests and token refreshes share it.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Makes this process a node: takes the data directory's identity, stores tokens that an earlier
/// life left in the spool, and tells the other nodes. The error is a message for the operator.
pub async fn join_cluster(services: &Services) -> Result<(), String> {
    services.nodes.claim_node()?;
    services.new_connections.drain_spool().await?;
    services.broker.drain_spool().await?;
    let written = services.nodes.write_heartbeat().await;
    written.map(drop).map_err(|error| error.to_string())
}

/// Tells probes and the service manager that the graceful stop has begun; once.
fn announce_stop(services: &Services, stopped_at: &OnceLock<Instant>) {
    if stopped_at.set(Instant::now()).is_ok() {
        services.health.drain();
        service_manager::stopping();
    }
}

/// Work beside the requests, ended when this is dropped.
pub struct Background {
    services: Arc<Services>,
    jobs: JoinHandle<()>,
    tasks: Vec<AbortOnDropHandle<()>>,
    #[cfg(target_os = "linux")]
    runner: Runner,
    /// When the graceful stop began.
    stopped_at: Arc<OnceLock<Instant>>,
}

impl Background {
    /// Starts jobs, the runner, health checks, the watches of sockets and certificate. `address`:
    /// where the server listens.
    pub fn start(shared: &Shared, address: SocketAddr, stopping: GracefulShutdownSignal) -> Self {
        let services = Arc::clone(&shared.services);
        let stopped_at = Arc::new(OnceLock::new());
        let (stopping_since, sockets) = (Arc::clone(&stopped_at), Arc::clone(&shared.sockets));
        let stopped = Arc::clone(&services);
        let mut tasks = vec![
            tokio::spawn(health_checks::watch(Arc::clone(&services))),
            tokio::spawn(service_manager::feed_watchdog(Arc::clone(&services))),
            tokio::spawn(Arc::clone(&shared.sockets).watch(Arc::clone(&services))),
            tokio::spawn(async move {
                stopping.notified().await;
                announce_stop(&stopped, &stopping_since);
                // Clients reconnect, to a node that keeps running.
                sockets.close_all();
            }),
        ];
        let certificate = shared.certificate.clone();
        tasks.extend(certificate.map(|certificate| tokio::spawn(certificate.watch())));
        Self {
            #[cfg(target_os = "linux")]
            runner: Runner::start(&services, address),
            jobs: jobs::start(&services),
            services,
            tasks: tasks.into_iter().map(AbortOnDropHandle::new).collect(),
            stopped_at,
        }
    }

    /// Waits until the server has stopped, then for refreshes in flight: the provider's response
    /// may carry the only valid token. Writes down at the end what only this node knows.
    pub async fn until_stopped(self, server: Server) -> Result<(), String> {
        let result = server.await.map_err(|error| error.to_string());
        // A server without connections stops at once, before the task that waits for the signal.
        announce_stop(&self.services, &self.stopped_at);
        #[cfg(target_os = "linux")]
        self.runner.stop().await;
        self.jobs.abort();
        drop(self.tasks);
        let services = self.services;
        let tasks = &services.core.tasks;
        tasks.close();
        let since = self.stopped_at.get().map(Instant::elapsed);
        let left = STOP_TIMEOUT.saturating_sub(since.unwrap_or_default());
        if tokio::time::timeout(left, tasks.wait()).await.is_err() {
            tracing::warn!("stopped while a provider had not answered yet");
        }
        if services.presence.share_presence().await.is_err() {
            tracing::warn!("could not write down who was where at the end");
        }
        services.usage.flush_uses().await;
        services.activity.flush().await;
        services.sessions.flush_last_uses().await;
        services.api_keys.flush_last_uses().await;
        services.audit.flush_refusals().await;
        services.app_sessions.flush().await;
        services.journal.follow().await;
        services.limiter.share().await;
        services.nodes.delete_heartbeat().await;
        result
    }
}
