//! Rate limit on password guesses: ten tries per name and address within five minutes, then
//! `TooMany` until the oldest try is five minutes old.
//!
//! Counted by name **and** address, so that nobody can lock another user out; unknown names count
//! like known ones. Counted in the database, since the next try may reach another node.

use crate::{
    domain::Timestamp,
    service::{core::Core, error::Error},
    store::short_lived,
    vault::api_key::digest,
};
use std::{sync::Arc, time::Duration};

/// Tries per name and address within [`WINDOW`].
const MAX_TRIES: usize = 10;
/// How long a try counts.
pub const WINDOW: Duration = Duration::from_secs(300);

/// The key that tries are counted by. A hash: users sometimes type a password into the name field,
/// and it must not be stored.
fn try_key(name: &str, address: &str) -> String {
    digest(&format!(
        "{}:{}\n{address}",
        name.len(),
        name.to_lowercase()
    ))
}

/// How long to wait after these tries (oldest first); `None` if another one is allowed.
fn time_to_wait(tries: &[Timestamp], now: Timestamp) -> Option<Duration> {
    let recent: Vec<_> = tries
        .iter()
        .filter(|at| now >= **at && now.since(**at) < WINDOW)
        .collect();
    let oldest = recent.first().filter(|_| recent.len() >= MAX_TRIES)?;
    Some(
        WINDOW
            .saturating_sub(now.since(**oldest))
            .max(Duration::from_secs(1)),
    )
}

/// Counts password tries.
pub struct PasswordLimiter {
    core: Arc<Core>,
}

impl PasswordLimiter {
    pub(in crate::service) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// Counts a try before the password is checked, so that concurrent tries are limited too.
    /// `TooMany` with the time to wait if there were too many.
    pub(in crate::service) async fn count_try(
        &self,
        name: &str,
        address: &str,
    ) -> Result<(), Error> {
        let (who, now) = (try_key(name, address), self.core.now());
        self.core
            .store
            .write_untracked(move |db| {
                let tries = short_lived::password_attempts(db, &who, now.minus(WINDOW))?;
                match time_to_wait(&tries, now) {
                    Some(pause) => Err(Error::TooMany(pause)),
                    None => Ok(short_lived::add_password_attempt(db, &who, now)?),
                }
            })
            .await
    }

    /// Deletes the counted tries after a correct password.
    pub(in crate::service) async fn try_succeeded(&self, name: &str, address: &str) {
        let who = try_key(name, address);
        if self
            .core
            .store
            .write_untracked(move |db| {
                Ok::<_, Error>(short_lived::delete_password_attempts(db, &who)?)
            })
            .await
            .is_err()
        {
            tracing::debug!("could not forget wrong passwords");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_eleventh_try_must_wait_and_other_addresses_need_not() {
        let now = Timestamp(1_000_000_000);
        let tries = [now; MAX_TRIES];
        assert_eq!(time_to_wait(&tries[1..], now), None);
        assert_eq!(
            time_to_wait(&tries, now.plus(Duration::from_secs(60))),
            Some(Duration::from_secs(240))
        );
        assert_eq!(
            time_to_wait(&tries, now.plus(WINDOW)),
            None,
            "never for good"
        );
        assert_eq!(try_key("Vera", "192.0.2.1"), try_key("vera", "192.0.2.1"));
        assert_ne!(try_key("vera", "192.0.2.1"), try_key("vera", "192.0.2.2"));
    }
}
