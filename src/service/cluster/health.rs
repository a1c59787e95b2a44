//! Readiness: whether this node can serve, in one word for each thing that it needs. Answered without
//! a write: whether writes work is known from the heartbeat, which every node writes all the time.

use crate::{
    disk::{self, Space},
    domain::Timestamp,
    service::{core::Core, error::Error},
    store::{self, Store, changes::Tick},
    vault::labels,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

/// A node whose last write is older cannot write: three heartbeats are missing.
const WRITES_WITHIN: Duration = Duration::from_secs(35);
/// Difference between this machine's clock and the database's that is worth a word.
const CLOCK_DIFFERENCE: Duration = Duration::from_secs(30);
/// Share of the disk that has to be free, in percent, below which it is low.
const DISK_LOW: u64 = 10;
/// Free space below which nothing can be relied on to be stored, in bytes.
const DISK_FULL: u64 = 64 << 20;

/// The state of one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    Ok,
    /// Worth a look; the node serves.
    Odd(&'static str),
    /// The node cannot serve.
    Bad(&'static str),
}

impl Word {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Odd(word) | Self::Bad(word) => word,
        }
    }
}

/// What this node knows of its own readiness.
pub struct Health {
    core: Arc<Core>,
    started: Timestamp,
    /// Of the last successful write, in milliseconds; 0 before the first.
    written_at: AtomicI64,
    draining: AtomicBool,
}

impl Health {
    pub(in crate::service) fn new(core: Arc<Core>) -> Self {
        Self {
            started: core.now(),
            core,
            written_at: AtomicI64::new(0),
            draining: AtomicBool::new(false),
        }
    }

    /// The node stops: it finishes what it has and takes nothing new.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// A heartbeat was written.
    pub fn has_written(&self) {
        self.written_at.store(self.core.now().0, Ordering::Relaxed);
    }

    /// Everything that is looked at, in a fixed order.
    pub async fn report(&self) -> Vec<(&'static str, Word)> {
        let read = self
            .core
            .store
            .read(|db| {
                Store::ping(db)?;
                Ok::<_, Error>(store::database_clock(db)?)
            })
            .await;
        let now = self.core.now();
        let (reads, clock) = match read {
            Ok(clock) => (Word::Ok, clock),
            Err(error) => {
                error.log("the health check");
                (Word::Bad("fails"), None)
            }
        };
        let differs = clock
            .is_some_and(|clock| clock.abs_diff(now.unix_seconds()) > CLOCK_DIFFERENCE.as_secs());
        let last = match self.written_at.load(Ordering::Relaxed) {
            0 => self.started,
            at => Timestamp(at),
        };
        let seal = self.core.vault.seal(labels::meta("health"), &"x".into());
        vec![
            ("reads", reads),
            (
                "writes",
                if now.since(last) < WRITES_WITHIN {
                    Word::Ok
                } else {
                    Word::Bad("fails")
                },
            ),
            (
                "keyring",
                if seal.is_ok() {
                    Word::Ok
                } else {
                    Word::Bad("fails")
                },
            ),
            (
                "clock",
                if differs {
                    Word::Odd("differs")
                } else {
                    Word::Ok
                },
            ),
            (
                "changes",
                if self.core.store.changes().now() == Tick::default() {
                    // Nothing is cached meanwhile: slower, and right.
                    Word::Odd("unsure")
                } else {
                    Word::Ok
                },
            ),
            ("disk", self.disk()),
            (
                "stopping",
                if self.draining.load(Ordering::Relaxed) {
                    Word::Bad("yes")
                } else {
                    Word::Ok
                },
            ),
        ]
    }

    /// Whether a node with this report can serve.
    pub fn is_ready(report: &[(&'static str, Word)]) -> bool {
        !report.iter().any(|(_, word)| matches!(word, Word::Bad(_)))
    }

    fn disk(&self) -> Word {
        match self.disk_space() {
            Some(Space { free, .. }) if free < DISK_FULL => Word::Bad("full"),
            Some(Space { free, all, .. }) if free.saturating_mul(100) / all < DISK_LOW => {
                Word::Odd("low")
            }
            Some(_) => Word::Ok,
            None => Word::Odd("unknown"),
        }
    }

    /// Whether too little of the disk is free.
    pub fn is_disk_low(&self) -> bool {
        matches!(self.disk(), Word::Odd("low") | Word::Bad(_))
    }

    /// The free share of the disk that holds the data; `None` if it is not known.
    pub fn disk_free(&self) -> Option<f64> {
        let Space { free, all, .. } = self.disk_space()?;
        // In 65,536ths: a `u16` becomes an `f64` without loss.
        let share = u16::try_from((u128::from(free) << 16) / u128::from(all)).unwrap_or(u16::MAX);
        Some(f64::from(share) / 65_536.0)
    }

    fn disk_space(&self) -> Option<Space> {
        disk::space(&self.core.settings.data_dir)
    }
}
