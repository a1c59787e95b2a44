//! Marked steps at which tests kill the process. Nothing at all unless built with the feature `faults`.

/// Ends the process without a word, as `kill -9` does, if `VALETKEY_CRASH_AT` names this step.
#[cfg(feature = "faults")]
pub fn mark(step: &str) {
    if std::env::var("VALETKEY_CRASH_AT").is_ok_and(|wanted| wanted == step) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        std::thread::sleep(std::time::Duration::from_secs(60));
    }
}

#[cfg(not(feature = "faults"))]
#[inline]
pub fn mark(_: &str) {}
