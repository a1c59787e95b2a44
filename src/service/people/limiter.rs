//! Rate limits on password guesses. Counted in memory before the password is checked; a right
//! password, or one that could not be checked, is then taken back. The tries that were wrong are
//! stored for the other nodes ([`PasswordLimiter::share`]). So what is refused here costs no write,
//! and writes are limited by how fast passwords can be checked.
//!
//! - Per name **and** address: ten tries within five minutes, then `TooMany` until the oldest try is
//!   five minutes old. By both, so that nobody can lock another user out; unknown names count like
//!   known ones.
//! - Per network (an IPv4 address, an IPv6 /64): sixty wrong tries.
//! - Per name, over all addresses: a soft limit. After a hundred tries the name is tried at most
//!   every two seconds.
//!
//! Whoever guesses from many networks takes all of a name's turns, and a neighbour behind the same
//! address all of a network's. So only the first of these limits is for a name and an address that
//! are welcome: from where the right password came before, or where the person is signed in.

use crate::{
    domain::Timestamp,
    service::{core::Core, error::Error},
    store::{
        bookkeeping::{self, MAX_ROWS},
        short_lived,
    },
    vault::api_key::digest,
};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

/// Tries per name and address within [`WINDOW`].
const MAX_TRIES: usize = 10;
/// Tries per network within [`WINDOW`].
const MAX_TRIES_PER_NETWORK: usize = 60;
/// Tries per name within [`WINDOW`] after which the name is slowed down.
const SOFT_TRIES_PER_NAME: usize = 100;
/// Least time between two tries of a name that is slowed down.
const SLOW_INTERVAL: Duration = Duration::from_secs(2);
/// How long a try counts.
pub const WINDOW: Duration = Duration::from_secs(300);
/// Keys that are counted at the same time; old ones are dropped beyond it.
const MAX_KEYS: usize = 50_000;
/// Names and addresses that are remembered as welcome.
const MAX_WELCOME: usize = 50_000;

/// The key that tries are counted by. A hash: users sometimes type a password into the name field,
/// and it must not be stored.
fn try_key(name: &str, address: &str) -> String {
    digest(&format!(
        "{}:{}\n{address}",
        name.len(),
        name.to_lowercase()
    ))
}

/// What counts as one network: an IPv4 address, the first 64 bits of an IPv6 address, else the text.
pub fn network(address: &str) -> String {
    match address.parse::<IpAddr>() {
        Ok(IpAddr::V6(v6)) => match v6.to_ipv4_mapped() {
            Some(v4) => v4.to_string(),
            None => format!("{:x?}/64", &v6.segments()[..4]),
        },
        _ => address.to_owned(),
    }
}

/// How long to wait after these tries (oldest first); `None` if another one is allowed.
fn time_to_wait(tries: &[Timestamp], most: usize, now: Timestamp) -> Option<Duration> {
    let recent: Vec<_> = tries
        .iter()
        .filter(|at| now >= **at && now.since(**at) < WINDOW)
        .collect();
    let oldest = recent
        .len()
        .checked_sub(most)
        .and_then(|first| recent.get(first))?;
    Some(
        WINDOW
            .saturating_sub(now.since(**oldest))
            .max(Duration::from_secs(1)),
    )
}

/// Times of tries, oldest first, by key.
#[derive(Default)]
struct Tries(HashMap<String, Vec<Timestamp>>);

impl Tries {
    fn add(&mut self, key: String, now: Timestamp) {
        if self.0.len() >= MAX_KEYS {
            self.0.retain(|_, tries| {
                let last = tries.last();
                last.is_some_and(|at| now >= *at && now.since(*at) < WINDOW)
            });
        }
        if self.0.len() < MAX_KEYS || self.0.contains_key(&key) {
            let tries = self.0.entry(key).or_default();
            tries.retain(|at| now >= *at && now.since(*at) < WINDOW);
            tries.push(now);
        }
    }

    /// Takes the newest try back.
    fn undo(&mut self, key: &str) {
        if let Some(tries) = self.0.get_mut(key) {
            tries.pop();
            if tries.is_empty() {
                self.0.remove(key);
            }
        }
    }

    fn of(&self, key: &str) -> &[Timestamp] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }
}

#[derive(Default)]
struct Counted {
    /// By name and address.
    own: Tries,
    /// Those of `own` that are not stored yet.
    unshared: Vec<(String, Timestamp)>,
    by_network: Tries,
    by_name: Tries,
}

/// Counts password tries.
pub struct PasswordLimiter {
    core: Arc<Core>,
    counted: Mutex<Counted>,
    /// By name and address.
    welcome: Cache<String, ()>,
}

impl PasswordLimiter {
    pub(in crate::service) fn new(core: Arc<Core>) -> Self {
        Self {
            core,
            counted: Mutex::default(),
            welcome: Cache::new(MAX_WELCOME),
        }
    }

    /// This person is signed in at this address: what others try does not keep them out.
    pub(in crate::service) fn welcome(&self, name: &str, address: &str) {
        self.welcome.insert(try_key(name, address), ());
    }

    /// Counts a try before the password is checked, so that concurrent tries are limited too.
    /// `TooMany` with the time to wait if there were too many.
    pub(in crate::service) async fn count_try(
        &self,
        name: &str,
        address: &str,
    ) -> Result<(), Error> {
        let (who, now) = (try_key(name, address), self.core.now());
        let (network, name) = (network(address), try_key(name, ""));
        let refuse = |pause| Err(Error::TooMany(pause));
        let is_welcome = self.welcome.get(&who).is_some();
        {
            let mut counted = self.counted.lock();
            if let Some(pause) = time_to_wait(counted.own.of(&who), MAX_TRIES, now) {
                return refuse(pause);
            }
            let tries = counted.by_network.of(&network);
            if let Some(pause) = time_to_wait(tries, MAX_TRIES_PER_NETWORK, now)
                && !is_welcome
            {
                return refuse(pause);
            }
            let tries = counted.by_name.of(&name);
            let slowed = time_to_wait(tries, SOFT_TRIES_PER_NAME, now).is_some()
                && tries
                    .last()
                    .is_some_and(|at| now.since(*at) < SLOW_INTERVAL);
            if slowed && !is_welcome {
                return refuse(SLOW_INTERVAL);
            }
            // The try counts at once, before the database is asked.
            counted.by_network.add(network, now);
            counted.by_name.add(name, now);
            counted.own.add(who.clone(), now);
            counted.unshared.push((who.clone(), now));
        }
        let wanted = who.clone();
        let mut tries = self
            .core
            .store
            .read(move |db| {
                Ok::<_, Error>(short_lived::password_attempts(
                    db,
                    &wanted,
                    now.minus(WINDOW),
                )?)
            })
            .await?;
        let own = self.counted.lock().own.of(&who).to_vec();
        for at in &own {
            // Most of them are stored, too.
            if let Some(same) = tries.iter().position(|stored| stored == at) {
                tries.swap_remove(same);
            }
        }
        tries.extend(own);
        tries.sort();
        // The newest one is this try itself.
        match time_to_wait(&tries[..tries.len().saturating_sub(1)], MAX_TRIES, now) {
            Some(pause) => refuse(pause),
            None => Ok(()),
        }
    }

    /// Takes back a try whose password could not be checked.
    pub(in crate::service) fn undo_try(&self, name: &str, address: &str) {
        let who = try_key(name, address);
        let mut counted = self.counted.lock();
        counted.own.undo(&who);
        if let Some(newest) = counted.unshared.iter().rposition(|(of, _)| *of == who) {
            counted.unshared.remove(newest);
        }
        counted.by_network.undo(&network(address));
        counted.by_name.undo(&try_key(name, ""));
    }

    /// Forgets the tries of this name and address after a correct password, and takes that one back
    /// for the network and the name.
    pub(in crate::service) async fn try_succeeded(&self, name: &str, address: &str) {
        let who = try_key(name, address);
        self.welcome.insert(who.clone(), ());
        {
            let mut counted = self.counted.lock();
            counted.own.0.remove(&who);
            counted.unshared.retain(|(of, _)| *of != who);
            counted.by_network.undo(&network(address));
            counted.by_name.undo(&try_key(name, ""));
        }
        let forgotten = async {
            let (wanted, since) = (who.clone(), self.core.now().minus(WINDOW));
            let stored = self
                .core
                .store
                .read(move |db| Ok::<_, Error>(short_lived::password_attempts(db, &wanted, since)?))
                .await?;
            if stored.is_empty() {
                return Ok::<_, Error>(());
            }
            self.core
                .store
                .write(move |db| Ok(short_lived::delete_password_attempts(db, &who)?))
                .await
        };
        if let Err(error) = forgotten.await {
            tracing::debug!(reason = %error, "could not forget wrong passwords");
        }
    }

    /// Stores the tries that are not stored yet, for the other nodes.
    pub async fn share(self: &Arc<Self>) {
        let limiter = Arc::clone(self);
        let sharing = async move { limiter.store_tries().await };
        if let Err(error) = self.core.run_to_end(sharing).await {
            error.log("sharing wrong passwords");
        }
    }

    async fn store_tries(&self) {
        let unshared = std::mem::take(&mut self.counted.lock().unshared);
        for rows in unshared.chunks(MAX_ROWS) {
            let written = rows.to_vec();
            let stored = self
                .core
                .store
                .write_bookkeeping(move |db| {
                    Ok::<_, Error>(bookkeeping::add_password_attempts(db, &written)?)
                })
                .await;
            if let Err(error) = stored {
                tracing::debug!(reason = %error, "could not share wrong passwords; the next round tries again");
                let now = self.core.now();
                let recent = rows.iter().filter(|(_, at)| now.since(*at) < WINDOW);
                self.counted.lock().unshared.extend(recent.cloned());
            }
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
        assert_eq!(time_to_wait(&tries[1..], MAX_TRIES, now), None);
        assert_eq!(
            time_to_wait(&tries, MAX_TRIES, now.plus(Duration::from_secs(60))),
            Some(Duration::from_secs(240))
        );
        assert_eq!(
            time_to_wait(&tries, MAX_TRIES, now.plus(WINDOW)),
            None,
            "never for good"
        );
        assert_eq!(try_key("Vera", "192.0.2.1"), try_key("vera", "192.0.2.1"));
        assert_ne!(try_key("vera", "192.0.2.1"), try_key("vera", "192.0.2.2"));
    }
    #[test]
    fn a_network_is_an_address_or_an_ipv6_prefix() {
        assert_eq!(network("192.0.2.1"), "192.0.2.1");
        assert_eq!(network("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:1"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
    }
}
