//! Threads of their own for password hashes: few, and below everything else, so that people who
//! sign in do not slow those who work.

use super::Error;
use tokio::runtime::{Builder, Runtime};

/// A pool of threads that do nothing else.
pub(super) struct Hashing(Option<Runtime>);

impl Hashing {
    pub(super) fn new() -> std::io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        // Each hash takes 64 MiB: more at once than half the cores would only fight over the
        // memory.
        let threads = (cores / 2).max(1);
        let pool = Builder::new_current_thread()
            .max_blocking_threads(threads)
            .thread_name("hashing")
            .on_thread_start(step_back)
            .build()?;
        Ok(Self(Some(pool)))
    }

    /// Runs `work` when its turn comes.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let pool = self.0.as_ref().ok_or(Error::Internal)?;
        pool.spawn_blocking(work).await.map_err(|_| Error::Internal)
    }
}

impl Drop for Hashing {
    fn drop(&mut self) {
        // A runtime may not be waited for inside another one.
        if let Some(pool) = self.0.take() {
            pool.shutdown_background();
        }
    }
}

/// The lowest priority for this thread alone: on Linux niceness belongs to threads, elsewhere to
/// the whole process.
#[cfg(target_os = "linux")]
fn step_back() {
    if let Err(error) = rustix::process::setpriority_process(None, 19) {
        tracing::debug!(%error, "password hashing keeps its priority");
    }
}
#[cfg(not(target_os = "linux"))]
fn step_back() {}
