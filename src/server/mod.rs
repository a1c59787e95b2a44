//! The server: binds the listener, serves, and stops gracefully. [`installation`] opens what it
//! serves, [`application`] is the actix application of each worker, [`listen`] accepts connections,
//! [`stop`] runs the background work and ends it, [`metrics`] tells Prometheus, [`service_manager`] tells
//! systemd. It builds everything and owns no state of its own.

pub mod application;
pub mod clock;
pub mod connection;
mod http2;
pub mod installation;
mod listen;
mod metrics;
mod requests;
mod service_manager;
mod stop;
mod tls;

use crate::{config::Settings, service::Services};
use actix_web::dev::ServerHandle;
use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
};
use tokio_util::task::AbortOnDropHandle;

/// A server whose listener is bound and which does not serve yet.
pub struct Server {
    /// Shared by all workers and jobs.
    pub services: Arc<Services>,
    listener: TcpListener,
}

impl Server {
    /// Combines the services with a listener that is already bound.
    pub fn new(services: Arc<Services>, listener: TcpListener) -> Self {
        Self { services, listener }
    }

    /// Binds to the configured address.
    pub fn bind(settings: &Settings) -> Result<TcpListener, String> {
        TcpListener::bind(settings.listen)
            .map_err(|error| format!("cannot listen on {}: {error}", settings.listen))
    }

    /// The bound address; with port 0 in the settings, it has the real port.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// Serves until the handle given to `started` stops the server, then waits up to 30 s for
    /// requests and refreshes to finish. The error is a message for the operator.
    pub async fn serve(self, started: impl FnOnce(ServerHandle)) -> Result<(), String> {
        raise_file_limit();
        stop::join_cluster(&self.services).await?;
        let shared = Arc::new(application::Shared::new(&self.services)?);
        let address = self
            .listener
            .local_addr()
            .map_err(|error| error.to_string())?;
        let _metrics = match self.services.core.settings.metrics_listen {
            Some(address) => Some(AbortOnDropHandle::new(metrics::start(&shared, address)?)),
            None => None,
        };
        let (server, stopping) = listen::listen(self.listener, &shared)?;
        let background = stop::Background::start(&shared, address, stopping);
        started(server.handle());
        service_manager::ready();
        background.until_stopped(server).await
    }
}

/// Raises the soft limit on open files to the hard limit: every connection needs a descriptor, and
/// the usual soft limit of 1024 is one that a single client can use up.
#[cfg(target_os = "linux")]
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let before = limit.current;
    limit.current = limit.maximum;
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => tracing::info!(?before, now = ?limit.current, "limit of open files"),
        Err(error) => tracing::warn!(%error, ?before, "the limit of open files stays as it is"),
    }
}
#[cfg(not(target_os = "linux"))]
fn raise_file_limit() {}
