//! Pauses after failed refreshes. In memory of this process only.
//!
//! A failed refresh pauses **its connection**: an error about one person, or a rate limit that one
//! connection met, delays nobody else. A circuit breaker pauses **the integration** only after a
//! failure that concerns all of its connections ([`Failure::concerns_integration`]) was met by
//! [`DISTINCT_CONNECTIONS`] different ones; so does a refusal of an unknown kind, which then is not
//! about a person: a gateway in front of the provider, for instance. Once its time is over, one request probes the provider,
//! whichever connection it belongs to.

use crate::{
    domain::{Id, Timestamp, connection::Connection, integration::Integration},
    oauth::errors::{Failure, FailureClass},
    service::core::Core,
};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// Connections that must fail before the breaker of their integration opens.
const DISTINCT_CONNECTIONS: usize = 3;
/// Failures older than this do not count towards opening a breaker.
const FAILURE_WINDOW: Duration = Duration::from_secs(300);
/// The pause when an administrator must repair the integration. Saving the integration ends it on
/// that node; other nodes notice the repair after this time.
const BROKEN_PAUSE: Duration = Duration::from_secs(15);
/// Longest pause that grows by itself.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// Pauses after refusals that nobody knows. After one more the connection needs its viewer.
const UNKNOWN_PAUSES: [Duration; 2] = [Duration::from_secs(20), Duration::from_secs(300)];
/// Longest pause of an integration that its provider asks for.
const MAX_BREAKER_PAUSE: Duration = Duration::from_secs(300);
/// A probe that reports nothing for this long counts as ended.
const MAX_PROBE: Duration = Duration::from_secs(150);
/// Paused connections beyond which those whose pause is over are forgotten.
const MAX_PAUSED: usize = 10_000;

/// Why a connection may not be refreshed now.
#[derive(Clone, Debug)]
pub(in crate::service) struct Pause {
    /// Wall-clock times: a clock that is put back to before `from` ends the pause.
    from: Timestamp,
    until: Timestamp,
    failures: u32,
    /// Refusals of an unknown kind in a row.
    unknown: u32,
    pub(in crate::service) sentence: String,
    /// Whether an administrator must repair something; otherwise the failure is temporary.
    pub(in crate::service) needs_administrator: bool,
}

impl Pause {
    fn is_on(&self, now: Timestamp) -> bool {
        self.until > now && now >= self.from
    }

    /// How long to wait, at least a second.
    pub(in crate::service) fn rest(&self, now: Timestamp) -> Duration {
        self.until.since(now).max(Duration::from_secs(1))
    }
}

/// The circuit breaker of one integration.
#[derive(Default)]
struct Breaker {
    /// The connections that failed lately.
    failing: HashMap<Id<Connection>, Timestamp>,
    /// Set while the breaker is open or half-open.
    pause: Option<Pause>,
    /// Since when it is, without a success in between.
    broken_since: Option<Timestamp>,
    /// Half-open: since when one request tries the provider.
    probing: Option<Instant>,
}

/// What a failure leads to.
pub(in crate::service) enum AfterFailure {
    /// Try again after this time.
    Wait(Duration),
    /// The provider refused too often, for a reason that this portal does not know.
    GiveUp,
}

#[derive(Default)]
struct State {
    connections: HashMap<Id<Connection>, (Id<Integration>, Pause)>,
    integrations: HashMap<Id<Integration>, Breaker>,
}

/// The pauses of connections and the circuit breakers of integrations.
pub struct Backoff {
    core: Arc<Core>,
    state: Mutex<State>,
}

impl Backoff {
    pub(in crate::service) fn new(core: Arc<Core>) -> Self {
        Self {
            core,
            state: Mutex::default(),
        }
    }

    /// The pause that keeps a connection from being refreshed. `None` lets the request through; if
    /// the breaker is half-open, it is the probe, and must end with one of the other functions.
    pub(in crate::service) fn pause_of(
        &self,
        connection: Id<Connection>,
        integration: Id<Integration>,
    ) -> Option<Pause> {
        let (mut state, now) = (self.state.lock(), self.core.now());
        if let Some((_, pause)) = state.connections.get(&connection)
            && pause.is_on(now)
        {
            return Some(pause.clone());
        }
        let breaker = state.integrations.get_mut(&integration)?;
        let pause = breaker.pause.as_ref()?;
        let probing = breaker
            .probing
            .is_some_and(|since| since.elapsed() < MAX_PROBE);
        if pause.is_on(now) || probing {
            return Some(pause.clone());
        }
        breaker.probing = Some(Instant::now());
        None
    }

    /// Why this node asks the provider of an integration for nothing at the moment; `None` if it
    /// asks.
    pub fn pause_of_provider(&self, integration: Id<Integration>) -> Option<String> {
        let state = self.state.lock();
        let pause = state.integrations.get(&integration)?.pause.as_ref()?;
        pause.is_on(self.core.now()).then(|| pause.sentence.clone())
    }

    /// The integrations whose provider has not worked for so long, as this node sees it, and what it
    /// answered last.
    pub(in crate::service) fn broken_for(&self, least: Duration) -> Vec<(Id<Integration>, String)> {
        let now = self.core.now();
        let state = self.state.lock();
        let broken = state.integrations.iter().filter_map(|(id, breaker)| {
            let since = breaker
                .broken_since
                .filter(|since| now.since(*since) >= least)?;
            let pause = breaker.pause.as_ref()?;
            // A breaker that nobody asks since says nothing.
            (now.since(pause.until) < FAILURE_WINDOW && since < now)
                .then(|| (*id, pause.sentence.clone()))
        });
        broken.collect()
    }

    /// The provider gave tokens.
    pub(in crate::service) fn succeeded(
        &self,
        connection: Id<Connection>,
        integration: Id<Integration>,
    ) {
        let mut state = self.state.lock();
        state.connections.remove(&connection);
        state.integrations.remove(&integration);
    }

    /// The provider refused this connection for good: the connection is no longer refreshed, and
    /// the provider works.
    pub(in crate::service) fn ended(
        &self,
        connection: Id<Connection>,
        integration: Id<Integration>,
    ) {
        self.succeeded(connection, integration);
    }

    /// The request was not sent, for a reason of our own: says nothing about the provider.
    pub(in crate::service) fn not_sent(&self, integration: Id<Integration>) {
        if let Some(breaker) = self.state.lock().integrations.get_mut(&integration) {
            breaker.probing = None;
        }
    }

    /// An administrator saved the integration: everything is tried again.
    pub(in crate::service) fn forget(&self, integration: Id<Integration>) {
        let mut state = self.state.lock();
        state.integrations.remove(&integration);
        state.connections.retain(|_, (of, _)| *of != integration);
    }

    /// Pauses the connection, and the integration if enough of its connections failed.
    pub(in crate::service) fn failed(
        &self,
        connection: Id<Connection>,
        integration: Id<Integration>,
        failure: &Failure,
    ) -> AfterFailure {
        let (mut state, now) = (self.state.lock(), self.core.now());
        if state.connections.len() > MAX_PAUSED {
            state.connections.retain(|_, (_, pause)| pause.is_on(now));
        }
        let known = state.connections.get(&connection).map(|(_, pause)| pause);
        let pause = pause_after(failure, known, now);
        let unknown = |(id, (of, pause)): (&Id<Connection>, &(Id<Integration>, Pause))| {
            *of == integration && *id != connection && pause.unknown > 0
        };
        let is_widespread = failure.class == FailureClass::Unknown
            && state
                .connections
                .iter()
                .filter(|entry| unknown(*entry))
                .count()
                + 1
                >= DISTINCT_CONNECTIONS;
        let is_last = usize::try_from(pause.unknown).unwrap_or(0) > UNKNOWN_PAUSES.len();
        if is_last && !is_widespread {
            state.connections.remove(&connection);
            state.integrations.entry(integration).or_default().probing = None;
            return AfterFailure::GiveUp;
        }
        let rest = pause.rest(now);
        state
            .connections
            .insert(connection, (integration, pause.clone()));
        let breaker = state.integrations.entry(integration).or_default();
        breaker.probing = None;
        if !failure.concerns_integration() && !is_widespread {
            // The provider answered, and about this connection alone.
            breaker.pause = None;
            breaker.broken_since = None;
            breaker.failing.clear();
        } else {
            breaker
                .failing
                .retain(|_, at| now >= *at && now.since(*at) < FAILURE_WINDOW);
            breaker.failing.insert(connection, now);
            if breaker.failing.len() >= DISTINCT_CONNECTIONS || breaker.pause.is_some() {
                let mut pause = pause_after(failure, breaker.pause.as_ref(), now);
                pause.until = pause.until.min(now.plus(MAX_BREAKER_PAUSE));
                breaker.pause = Some(pause);
                breaker.broken_since.get_or_insert(now);
            }
        }
        AfterFailure::Wait(rest)
    }
}

/// The next pause: as long as the provider asks, else growing from 1 s to [`MAX_PAUSE`].
fn pause_after(failure: &Failure, before: Option<&Pause>, now: Timestamp) -> Pause {
    let failures = before.map_or(0, |pause| pause.failures) + 1;
    let growing = Duration::from_secs(1 << (failures - 1).min(5)).min(MAX_PAUSE);
    let (length, unknown) = match &failure.class {
        FailureClass::Administrator => (BROKEN_PAUSE, 0),
        FailureClass::Unknown => {
            let unknown = before.map_or(0, |pause| pause.unknown) + 1;
            let number = usize::try_from(unknown - 1).unwrap_or(usize::MAX);
            let length = UNKNOWN_PAUSES.get(number).unwrap_or(&UNKNOWN_PAUSES[1]);
            (*length, unknown)
        }
        // `Retry-After: 0` does not mean that a failure may be repeated without end.
        FailureClass::Temporary { retry_after } => {
            (retry_after.map_or(growing, |asked| asked.max(growing)), 0)
        }
        FailureClass::Viewer(_) => (growing, 0),
    };
    Pause {
        from: now,
        until: now.plus(length),
        failures,
        unknown,
        sentence: failure.sentence.clone(),
        needs_administrator: failure.class == FailureClass::Administrator,
    }
}
