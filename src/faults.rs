//! Fault injection for tests: named steps at which the process is stopped or killed, time limits
//! that tests shorten, and password hashes that cost next to nothing.
//!
//! Compiled to nothing unless the cargo feature `faults` is on.

#[cfg(feature = "faults")]
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Sends SIGKILL to the own process if `VALETKEY_CRASH_AT` names this step, and SIGSTOP if
/// `VALETKEY_STOP_AT` does. Panics, the first time only, if `VALETKEY_PANIC_AT` does.
#[cfg(feature = "faults")]
pub fn checkpoint(step: &str) {
    use rustix::process::{Signal, getpid, kill_process};
    let is_named = |variable: &str| std::env::var(variable).is_ok_and(|wanted| wanted == step);
    if is_named("VALETKEY_CRASH_AT") {
        let _ = kill_process(getpid(), Signal::KILL);
        std::thread::sleep(Duration::from_secs(60));
    }
    if is_named("VALETKEY_STOP_AT") {
        let _ = kill_process(getpid(), Signal::STOP);
        // Another thread may receive the signal first; this one must not run on meanwhile.
        std::thread::sleep(Duration::from_millis(300));
    }
    static HAS_PANICKED: AtomicBool = AtomicBool::new(false);
    if is_named("VALETKEY_PANIC_AT") && !HAS_PANICKED.swap(true, Ordering::SeqCst) {
        panic!("as VALETKEY_PANIC_AT says");
    }
}

/// Does nothing without the feature `faults`.
#[cfg(not(feature = "faults"))]
#[inline]
pub fn checkpoint(_: &str) {}

/// `limit` divided by the integer in `VALETKEY_HURRY`; unchanged if that is unset or invalid.
#[cfg(feature = "faults")]
pub fn shortened(limit: Duration) -> Duration {
    std::env::var("VALETKEY_HURRY")
        .ok()
        .and_then(|text| text.parse::<u32>().ok())
        .map_or(limit, |hurry| limit / hurry)
}

/// Returns `limit` unchanged without the feature `faults`.
#[cfg(not(feature = "faults"))]
#[inline]
pub const fn shortened(limit: Duration) -> Duration {
    limit
}

#[cfg(feature = "faults")]
static CHEAP_HASHES: AtomicBool = AtomicBool::new(false);
#[cfg(feature = "faults")]
static AT_FULL_COST: AtomicUsize = AtomicUsize::new(0);

/// From now on this process hashes passwords at next to no cost. Only for tests that start a portal
/// within their own process: half of their time went into hashes.
#[cfg(feature = "faults")]
pub fn hash_cheaply() {
    CHEAP_HASHES.store(true, Ordering::Relaxed);
}

/// Hashes cost what they cost in the real program while this exists.
#[cfg(feature = "faults")]
pub struct FullCost(());

#[cfg(feature = "faults")]
impl FullCost {
    /// For a test whose subject is the cost.
    #[expect(clippy::new_without_default, reason = "a guard")]
    pub fn new() -> Self {
        AT_FULL_COST.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

#[cfg(feature = "faults")]
impl Drop for FullCost {
    fn drop(&mut self) {
        AT_FULL_COST.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether hashes are to cost next to nothing; see [`hash_cheaply`].
#[cfg(feature = "faults")]
pub fn hashes_cheaply() -> bool {
    use Ordering::Relaxed;
    CHEAP_HASHES.load(Relaxed) && AT_FULL_COST.load(Relaxed) == 0
}

/// Never without the feature `faults`.
#[cfg(not(feature = "faults"))]
#[inline]
pub const fn hashes_cheaply() -> bool {
    false
}
