//! Guessing passwords is slowed down: ten tries for one name from one address within five minutes, then a pause.
//!
//! Counted by name **and** address, so that nobody can lock somebody else out; invented names count like real ones.

use crate::domain::Timestamp;
use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};

const MOST_TRIES: usize = 10;
const WINDOW: Duration = Duration::from_secs(300);
const SWEEP_ABOVE: usize = 1000;

type Tries = HashMap<(String, String), VecDeque<Timestamp>>;

/// Tries that did not succeed. Each costs its sender a password hash, which bounds how many there are.
#[derive(Default)]
pub struct Limiter(Mutex<Tries>);

impl Limiter {
    /// Counts a try before its password is looked at, so that many at once are counted, too. `Err`: how long to wait.
    pub fn begin(&self, name: &str, address: &str, now: Timestamp) -> Result<(), Duration> {
        let mut tries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = |at: &Timestamp| now >= *at && now.since(*at) < WINDOW;
        if tries.len() > SWEEP_ABOVE {
            tries.retain(|_, times| times.iter().any(recent));
        }
        let times = tries.entry((name.to_lowercase(), address.to_owned())).or_default();
        times.retain(recent);
        if times.len() >= MOST_TRIES {
            let oldest = times.front().copied().unwrap_or(now);
            return Err(WINDOW.saturating_sub(now.since(oldest)).max(Duration::from_secs(1)));
        }
        times.push_back(now);
        Ok(())
    }

    /// The password was right: what went before is forgotten.
    pub fn succeeded(&self, name: &str, address: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&(name.to_lowercase(), address.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_eleventh_try_waits_and_nobody_else_does() {
        let limiter = Limiter::default();
        let now = Timestamp(1_000_000_000);
        for _ in 0..MOST_TRIES {
            assert_eq!(limiter.begin("Vera", "192.0.2.1", now), Ok(()));
        }
        assert_eq!(limiter.begin("vera", "192.0.2.1", now.plus(Duration::from_secs(60))), Err(Duration::from_secs(240)));
        assert_eq!(limiter.begin("vera", "192.0.2.2", now), Ok(()), "the person herself, from elsewhere");
        assert_eq!(limiter.begin("viktor", "192.0.2.1", now), Ok(()));
        assert_eq!(limiter.begin("vera", "192.0.2.1", now.plus(WINDOW)), Ok(()), "never for good");
    }
    #[test]
    fn a_right_password_forgets_the_wrong_ones() {
        let limiter = Limiter::default();
        let now = Timestamp(1_000_000_000);
        for _ in 0..50 {
            assert_eq!(limiter.begin("vera", "192.0.2.1", now), Ok(()));
            limiter.succeeded("Vera", "192.0.2.1");
        }
    }
}
