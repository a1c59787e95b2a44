//! A thread pool for password hashes: few threads with the lowest priority, so that sign-ins do not
//! slow down other requests.

use crate::service::error::Error;
use tokio::runtime::{Builder, Runtime};

/// The pool; `None` only while it is dropped.
pub(super) struct Hashing(Option<Runtime>);

impl Hashing {
    /// A pool with half as many threads as cores, at least one.
    pub(super) fn new() -> std::io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        // Each hash takes 64 MiB: more at once than half the cores would only compete for memory.
        let threads = (cores / 2).max(1);
        let pool = Builder::new_current_thread()
            .max_blocking_threads(threads)
            .thread_name("hashing")
            .on_thread_start(lower_priority)
            .build()?;
        Ok(Self(Some(pool)))
    }

    /// Runs `work` on the pool, after work that was queued before. `Internal` if it panics.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let pool = self
            .0
            .as_ref()
            .ok_or(Error::Internal("the threads for passwords are missing"))?;
        pool.spawn_blocking(work)
            .await
            .map_err(|_| Error::Internal("a background task ended early"))
    }
}

impl Drop for Hashing {
    fn drop(&mut self) {
        // Dropping a runtime blocks, which is not allowed inside another runtime.
        if let Some(pool) = self.0.take() {
            pool.shutdown_background();
        }
    }
}

/// Gives this thread the lowest priority. Linux only: elsewhere niceness belongs to the whole
/// process.
#[cfg(target_os = "linux")]
fn lower_priority() {
    if let Err(error) = rustix::process::setpriority_process(None, 19) {
        tracing::debug!(%error, "password hashing keeps its priority");
    }
}
#[cfg(not(target_os = "linux"))]
fn lower_priority() {}
