//! Circuit breakers, one per integration: after a failure the provider is left alone for a while,
//! then one request probes it. In memory of this process only.

use crate::{
    domain::{Id, Timestamp, integration::Integration},
    service::core::Core,
};
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};

/// Circuit breaker of one integration: open until `until`, then half-open while one request probes.
#[derive(Clone)]
pub(in crate::service) struct Breaker {
    /// `from` and `until` are wall-clock times: a clock set back to before `from` ends the pause.
    pub(in crate::service) from: Timestamp,
    pub(in crate::service) until: Timestamp,
    pub(in crate::service) failures: u32,
    pub(in crate::service) sentence: String,
    /// Whether an administrator must repair the integration; otherwise the failure is temporary.
    pub(in crate::service) needs_administrator: bool,
    /// Half-open: one request is trying the provider.
    pub(in crate::service) probing: bool,
}

/// The breakers of all integrations that failed lately.
pub struct Breakers {
    core: Arc<Core>,
    breakers: Mutex<HashMap<Id<Integration>, Breaker>>,
}

impl Breakers {
    pub(in crate::service) fn new(core: Arc<Core>) -> Self {
        Self {
            core,
            breakers: Mutex::default(),
        }
    }

    /// The integration's breaker while it is open. `None` lets the request through: there is no
    /// breaker, or this request probes (half-open).
    pub(in crate::service) fn open_breaker_of(
        &self,
        integration: Id<Integration>,
    ) -> Option<Breaker> {
        let mut breakers = self.breakers.lock();
        let breaker = breakers.get_mut(&integration)?;
        let now = self.core.now();
        if (breaker.until > now && now >= breaker.from) || breaker.probing {
            return Some(breaker.clone());
        }
        breaker.probing = true;
        None
    }

    /// Closes the breaker: the next refresh asks the provider.
    pub(in crate::service) fn close_breaker(&self, integration: Id<Integration>) {
        self.breakers.lock().remove(&integration);
    }

    /// Opens the breaker for as long as the provider asked, else with exponential backoff from 1 s
    /// to 30 s. Returns the pause, at least 1 s.
    pub(in crate::service) fn open_breaker(
        &self,
        integration: Id<Integration>,
        asked: Option<Duration>,
        sentence: &str,
        broken: bool,
    ) -> Duration {
        let mut breakers = self.breakers.lock();
        let failures = breakers
            .get(&integration)
            .map_or(0, |breaker| breaker.failures)
            + 1;
        let pause = asked.unwrap_or_else(|| {
            Duration::from_secs(1 << (failures - 1).min(5)).min(Duration::from_secs(30))
        });
        let from = self.core.now();
        let until = from.plus(pause);
        breakers.insert(
            integration,
            Breaker {
                from,
                until,
                failures,
                sentence: sentence.to_owned(),
                needs_administrator: broken,
                probing: false,
            },
        );
        pause.max(Duration::from_secs(1))
    }
}
