//! The threads on which database work runs: a fixed number, apart from those of DNS, files and
//! passwords, so that none of these can take them. Work that finds all of them busy waits in a
//! queue, without occupying a thread, for a limited time.

use super::Error;
use crate::measures;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::Semaphore,
};

/// How long work waits for a thread.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);

/// A fixed number of threads with a queue.
pub(super) struct Threads {
    /// `None` only while it is dropped.
    pool: Option<Runtime>,
    free: Arc<Semaphore>,
}

impl Threads {
    pub(super) fn new(name: &str, count: u32) -> Result<Self, Error> {
        let count = usize::try_from(count).unwrap_or(1);
        let pool = Builder::new_current_thread()
            .max_blocking_threads(count)
            .thread_name(name)
            .build()
            .map_err(|error| Error::Other(format!("cannot start threads: {error}")))?;
        Ok(Self {
            pool: Some(pool),
            free: Arc::new(Semaphore::new(count)),
        })
    }

    /// Runs `work` on one of the threads. [`Error::Busy`] if none became free in time;
    /// [`Error::Other`] if `work` panics.
    pub(super) async fn run<T, E>(
        &self,
        work: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let asked = Instant::now();
        let waiting = tokio::time::timeout(QUEUE_TIMEOUT, Arc::clone(&self.free).acquire_owned());
        let Ok(Ok(thread)) = waiting.await else {
            // Waits that were given up are the longest ones.
            measures::database_wait(asked.elapsed());
            return Err(Error::Busy("all database threads are busy".into()).into());
        };
        measures::database_wait(asked.elapsed());
        let Some(pool) = &self.pool else {
            return Err(Error::Other("the database threads are gone".into()).into());
        };
        let ran = pool.spawn_blocking(move || {
            let result = work();
            drop(thread);
            result
        });
        match ran.await {
            Ok(result) => result,
            Err(error) => Err(Error::Other(format!("a database task ended early: {error}")).into()),
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Dropping a runtime blocks, which is not allowed inside another runtime.
        if let Some(pool) = self.pool.take() {
            pool.shutdown_background();
        }
    }
}
