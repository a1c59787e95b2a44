//! A thread pool for password hashes: few threads with the lowest priority, so that sign-ins do not
//! slow down other requests.
//!
//! The queue is short, and fair between networks: callers of one network wait for each other first,
//! so a client that sends passwords as fast as it can delays others by little more than one hash. A
//! caller that goes away gives its place up.

use crate::service::error::Error;
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{
    runtime::{Builder, Runtime},
    sync::Semaphore,
};

/// Callers, at most, waiting or running.
const MAX_CALLERS: usize = 512;
/// Callers beyond which a network gets no second place.
const BUSY_CALLERS: usize = 128;
/// Callers of one network, at most, waiting or running.
const MAX_PER_NETWORK: usize = 32;
/// When to come back if the queue is full.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// The pool.
pub(super) struct Hashing {
    /// `None` only while it is dropped.
    pool: Option<Runtime>,
    threads: Arc<Semaphore>,
    /// Threads that one network may use at the same time.
    per_network: usize,
    queue: Arc<Mutex<Queue>>,
}

#[derive(Default)]
struct Queue {
    callers: usize,
    by_network: HashMap<String, NetworkQueue>,
}

struct NetworkQueue {
    callers: usize,
    turns: Arc<Semaphore>,
}

/// A caller's place in the queue, given up when dropped.
struct Place {
    queue: Arc<Mutex<Queue>>,
    network: Option<(String, Arc<Semaphore>)>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut queue = self.queue.lock();
        queue.callers -= 1;
        if let Some((network, _)) = self.network.take()
            && let Some(own) = queue.by_network.get_mut(&network)
        {
            own.callers -= 1;
            if own.callers == 0 {
                queue.by_network.remove(&network);
            }
        }
    }
}

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
        Ok(Self {
            pool: Some(pool),
            threads: Arc::new(Semaphore::new(threads)),
            per_network: threads.div_ceil(2),
            queue: Arc::default(),
        })
    }

    /// Callers that wait or run.
    pub(super) fn callers(&self) -> usize {
        self.queue.lock().callers
    }

    /// Takes a place in the queue. `network` limits how many places one client has; `None` for a
    /// person who is signed in.
    fn queue_up(&self, network: Option<&str>) -> Result<Place, Error> {
        let mut queue = self.queue.lock();
        let held = network.and_then(|network| queue.by_network.get(network));
        // Few networks must not fill the queue: one that has no place yet still gets one.
        let most = if held.is_none() {
            MAX_CALLERS
        } else {
            BUSY_CALLERS
        };
        if queue.callers >= most || held.is_some_and(|own| own.callers >= MAX_PER_NETWORK) {
            return Err(Error::Overloaded(RETRY_AFTER));
        }
        queue.callers += 1;
        let network = network.map(|network| {
            let own = queue
                .by_network
                .entry(network.to_owned())
                .or_insert_with(|| NetworkQueue {
                    callers: 0,
                    turns: Arc::new(Semaphore::new(self.per_network)),
                });
            own.callers += 1;
            (network.to_owned(), Arc::clone(&own.turns))
        });
        Ok(Place {
            queue: Arc::clone(&self.queue),
            network,
        })
    }

    /// Runs `work` on the pool, after work that was queued before. `Overloaded` if the queue is
    /// full; `Internal` if `work` panics. Work that has not begun is dropped with the caller.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        network: Option<&str>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let place = self.queue_up(network)?;
        let missing = || Error::Internal("the threads for passwords are missing");
        let turn = match &place.network {
            Some((_, turns)) => {
                let turn = Arc::clone(turns).acquire_owned().await;
                Some(turn.map_err(|_| missing())?)
            }
            None => None,
        };
        let thread = Arc::clone(&self.threads).acquire_owned().await;
        let thread = thread.map_err(|_| missing())?;
        let pool = self.pool.as_ref().ok_or_else(missing)?;
        pool.spawn_blocking(move || {
            // Held until the hash is done, whether or not its caller still waits.
            let _held = (thread, turn, place);
            work()
        })
        .await
        .map_err(|_| Error::Internal("a background task ended early"))
    }
}

impl Drop for Hashing {
    fn drop(&mut self) {
        // Dropping a runtime blocks, which is not allowed inside another runtime.
        if let Some(pool) = self.pool.take() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_network_leaves_room_for_others_and_a_caller_that_goes_frees_its_place() {
        let hashing = Hashing::new().unwrap();
        let held: Vec<_> = (0..MAX_PER_NETWORK)
            .map(|_| hashing.queue_up(Some("a")).unwrap())
            .collect();
        assert!(matches!(
            hashing.queue_up(Some("a")),
            Err(Error::Overloaded(_))
        ));
        assert_eq!(hashing.run(Some("b"), || 7).await.unwrap(), 7);
        drop(held);
        assert!(hashing.queue_up(Some("a")).is_ok());
        let full: Vec<_> = (0..MAX_CALLERS)
            .map(|number| hashing.queue_up(Some(&number.to_string())).unwrap())
            .collect();
        assert!(matches!(hashing.queue_up(None), Err(Error::Overloaded(_))));
        drop(full);
        assert!(hashing.queue_up(None).is_ok());
    }
}
