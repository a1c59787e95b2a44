//! Marked steps at which tests stop or kill the process, and time limits that tests shorten.
//! Nothing at all unless built with the feature `faults`.

use std::time::Duration;

/// Ends the process without a word, as `kill -9` does, if `VALETKEY_CRASH_AT` names this step;
/// stops it, as `kill -STOP` does, if `VALETKEY_STOP_AT` does.
#[cfg(feature = "faults")]
pub fn mark(step: &str) {
    use rustix::process::{Signal, getpid, kill_process};
    let is_named = |variable: &str| std::env::var(variable).is_ok_and(|wanted| wanted == step);
    if is_named("VALETKEY_CRASH_AT") {
        let _ = kill_process(getpid(), Signal::KILL);
        std::thread::sleep(Duration::from_secs(60));
    }
    if is_named("VALETKEY_STOP_AT") {
        let _ = kill_process(getpid(), Signal::STOP);
        // Another thread may be the one that takes the signal; this one must not get any further
        // meanwhile.
        std::thread::sleep(Duration::from_millis(300));
    }
}

#[cfg(not(feature = "faults"))]
#[inline]
pub fn mark(_: &str) {}

/// A time limit, divided by `VALETKEY_HURRY`.
#[cfg(feature = "faults")]
pub fn hurried(limit: Duration) -> Duration {
    std::env::var("VALETKEY_HURRY")
        .ok()
        .and_then(|text| text.parse::<u32>().ok())
        .map_or(limit, |hurry| limit / hurry)
}

#[cfg(not(feature = "faults"))]
#[inline]
pub const fn hurried(limit: Duration) -> Duration {
    limit
}
