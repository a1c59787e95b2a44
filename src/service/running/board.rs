//! Which processes of deployed content run on this node, and who waits for one. The runner writes
//! it, the proxy and the pages read it; the two do not know each other.
//!
//! Owns no process and no file. All of it is forgotten when the program ends, as are the processes.

use crate::{
    domain::{
        Id, Timestamp,
        bundle::Isolation,
        content::{Content, Process},
    },
    service::running::files::PROCESS_SCHEME,
};
use parking_lot::Mutex;
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// What runs together: one bundle of an item, for viewers or as a draft for its publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RunKey {
    pub content: Id<Content>,
    pub bundle: i64,
    pub is_draft: bool,
}

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Starting,
    Ready,
    /// Gets no new viewers; ends when its last connection does.
    Draining,
}

/// One running process.
pub struct RunningProcess {
    /// Its name: the file name of its log, and a part of its address.
    pub name: String,
    pub key: RunKey,
    pub started_at: Timestamp,
    started: Instant,
    connections: AtomicUsize,
    state: Mutex<ProcessState>,
}

#[derive(Clone, Debug)]
struct ProcessState {
    phase: Phase,
    /// Without a connection since then.
    idle_since: Instant,
    /// From start to the first answer.
    start_time: Option<Duration>,
    usage: ResourceUse,
    /// The last samples, oldest first.
    history: VecDeque<ResourceUse>,
    /// To be replaced by a new one.
    is_outdated: bool,
    /// Since when it gets no new viewers.
    draining_since: Option<Instant>,
}

/// What a process and its children use.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ResourceUse {
    /// Resident memory in bytes.
    pub memory: u64,
    /// CPU, in cores.
    pub cpu: f32,
}

impl RunningProcess {
    /// A process that has just been started.
    pub fn new(name: String, key: RunKey, now: Timestamp) -> Self {
        Self {
            name,
            key,
            started_at: now,
            started: Instant::now(),
            connections: AtomicUsize::new(0),
            state: Mutex::new(ProcessState {
                phase: Phase::Starting,
                idle_since: Instant::now(),
                start_time: None,
                usage: ResourceUse::default(),
                history: VecDeque::new(),
                is_outdated: false,
                draining_since: None,
            }),
        }
    }
    /// Its address for the proxy.
    pub fn address(&self) -> String {
        format!("{PROCESS_SCHEME}{}", self.name)
    }
    pub fn phase(&self) -> Phase {
        self.state.lock().phase
    }
    /// Open requests and WebSockets.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
    /// How long it has been without a connection; zero while it has one.
    pub fn idle(&self) -> Duration {
        if self.connections() > 0 {
            return Duration::ZERO;
        }
        self.state.lock().idle_since.elapsed()
    }
    /// For how long it has got no new viewers.
    pub fn drained_for(&self) -> Duration {
        let since = self.state.lock().draining_since;
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }
    /// From start to the first answer.
    pub fn start_time(&self) -> Option<Duration> {
        self.state.lock().start_time
    }
    /// Whether a new process is to take its place.
    pub fn is_outdated(&self) -> bool {
        self.state.lock().is_outdated
    }
    pub fn usage(&self) -> ResourceUse {
        self.state.lock().usage
    }
    pub fn set_usage(&self, usage: ResourceUse) {
        let mut state = self.state.lock();
        state.usage = usage;
        if state.history.len() == KEPT_SAMPLES {
            state.history.pop_front();
        }
        state.history.push_back(usage);
    }
    /// The last samples of what it used, oldest first.
    pub fn history(&self) -> Vec<ResourceUse> {
        self.state.lock().history.iter().copied().collect()
    }
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Counts one open request or WebSocket of a process until it is dropped.
pub struct ConnectionCount(Arc<RunningProcess>);

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        if self.0.connections.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.state.lock().idle_since = Instant::now();
        }
    }
}

/// Why a bundle has no process.
#[derive(Clone, Debug)]
pub struct Failure {
    pub at: Timestamp,
    /// A sentence for the publisher.
    pub reason: String,
    /// The end of the process's output.
    pub output: String,
    /// When another try is due; `None` if the portal has given up.
    retry_at: Option<Instant>,
    /// Failures in a row.
    count: u32,
}

impl Failure {
    /// Whether the portal does not try again by itself.
    pub fn is_final(&self) -> bool {
        self.retry_at.is_none()
    }
}

/// Failures in a row after which the portal does not try again by itself.
const MAX_FAILURES: u32 = 5;
/// A process that ran for this long is not counted as failed when it ends.
const STABLE_AFTER: Duration = Duration::from_secs(600);
/// Samples that are kept of what a process uses.
const KEPT_SAMPLES: usize = 60;
/// How long a visit keeps a bundle wanted.
const WANTED_FOR: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Group {
    processes: Vec<Arc<RunningProcess>>,
    /// The ready ones, for the proxy.
    ready: Arc<Vec<Process>>,
    failure: Option<Failure>,
    wanted_at: Option<Instant>,
}

impl Group {
    fn refresh(&mut self) {
        let ready = self
            .processes
            .iter()
            .filter(|process| process.phase() == Phase::Ready);
        self.ready = Arc::new(
            ready
                .map(|process| Process {
                    url: process.address(),
                    draining: false,
                })
                .collect(),
        );
    }
}

/// What a visitor finds.
pub enum Found {
    /// These processes answer; at least one.
    Ready(Arc<Vec<Process>>),
    /// One is starting or will be started.
    Starting,
    Failed(Failure),
    /// Content does not run on this portal: the reason, for people.
    Unavailable(String),
}

/// The processes of this node.
#[derive(Default)]
pub struct RunBoard {
    groups: Mutex<HashMap<RunKey, Group>>,
    /// Why nothing runs here; `None` while the runner works.
    unavailable: Mutex<Option<String>>,
    is_starting: Mutex<bool>,
    /// How processes are kept apart, and by what they are limited.
    isolation: Mutex<Option<(Isolation, &'static str)>>,
    /// The versions of Python that apps may use.
    interpreters: Mutex<Vec<String>>,
    /// Wakes the runner.
    wanted: Notify,
    /// Wakes those who wait for a process.
    changed: Notify,
}

impl RunBoard {
    /// Says that the runner begins: what is ordered now is carried out soon.
    pub fn set_starting(&self) {
        self.set_unavailable(Some(
            "The portal is starting. Try again in a moment.".into(),
        ));
        *self.is_starting.lock() = true;
    }
    /// Whether the runner begins.
    pub fn is_starting(&self) -> bool {
        *self.is_starting.lock()
    }
    /// Says that content cannot run here, and why; `None` withdraws it.
    pub fn set_unavailable(&self, reason: Option<String>) {
        *self.is_starting.lock() = false;
        let mut known = self.unavailable.lock();
        if *known == reason {
            return;
        }
        *known = reason;
        drop(known);
        self.changed.notify_waiters();
    }
    /// Why content cannot run here.
    pub fn unavailable(&self) -> Option<String> {
        self.unavailable.lock().clone()
    }

    /// Says how processes are kept apart, and by what they are limited.
    pub fn set_isolation(&self, isolation: Isolation, limited_by: &'static str) {
        *self.isolation.lock() = Some((isolation, limited_by));
    }
    /// How processes are kept apart, and by what they are limited; `None` while nothing can run.
    pub fn isolation(&self) -> Option<(Isolation, &'static str)> {
        *self.isolation.lock()
    }

    /// Says which versions of Python apps may use.
    pub fn set_interpreters(&self, versions: Vec<String>) {
        *self.interpreters.lock() = versions;
    }
    /// The versions of Python that apps may use, newest first.
    pub fn interpreters(&self) -> Vec<String> {
        self.interpreters.lock().clone()
    }

    /// What a visitor finds now. Notes the visit, so that a process is started if there is none.
    pub fn visit(&self, key: RunKey) -> Found {
        let mut groups = self.groups.lock();
        let group = groups.entry(key).or_default();
        let is_new = group
            .wanted_at
            .is_none_or(|at| at.elapsed() > WANTED_FOR / 4);
        if is_new {
            group.wanted_at = Some(Instant::now());
        }
        if !group.ready.is_empty() {
            return Found::Ready(Arc::clone(&group.ready));
        }
        group.wanted_at = Some(Instant::now());
        let failure = group.failure.clone();
        let is_starting = !group.processes.is_empty();
        drop(groups);
        if let Some(reason) = self.unavailable().filter(|_| !self.is_starting()) {
            return Found::Unavailable(reason);
        }
        self.wanted.notify_one();
        match failure {
            Some(failure) if failure.is_final() && !is_starting => Found::Failed(failure),
            _ => Found::Starting,
        }
    }

    /// Waits until a process answers or the start has failed, for `patience` at most.
    pub async fn wait(&self, key: RunKey, patience: Duration) -> Found {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                match self.visit(key) {
                    Found::Starting => {}
                    found => return found,
                }
                let _ = tokio::time::timeout(WANTED_FOR / 4, changed).await;
            }
        };
        tokio::time::timeout(patience, wait)
            .await
            .unwrap_or(Found::Starting)
    }

    /// Resolves when there may be something to do for the runner.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }
    /// Wakes the runner.
    pub fn wake(&self) {
        self.wanted.notify_one();
    }

    /// Counts one more connection of the process behind an address, unless it has `most` already.
    /// `Ok(None)` for an address of no process of this node.
    pub fn connect(
        &self,
        key: RunKey,
        address: &str,
        most: usize,
    ) -> Result<Option<ConnectionCount>, Full> {
        let Some(name) = address.strip_prefix(PROCESS_SCHEME) else {
            return Ok(None);
        };
        let groups = self.groups.lock();
        let process = groups
            .get(&key)
            .and_then(|group| group.processes.iter().find(|process| process.name == name));
        let Some(process) = process else {
            return Ok(None);
        };
        if process.connections.fetch_add(1, Ordering::Relaxed) >= most {
            process.connections.fetch_sub(1, Ordering::Relaxed);
            return Err(Full);
        }
        Ok(Some(ConnectionCount(Arc::clone(process))))
    }

    /// The addresses of ready processes, the one with the fewest connections first.
    pub fn by_load(&self, key: RunKey) -> Vec<String> {
        let groups = self.groups.lock();
        let Some(group) = groups.get(&key) else {
            return Vec::new();
        };
        let mut ready: Vec<_> = group
            .processes
            .iter()
            .filter(|process| process.phase() == Phase::Ready)
            .map(|process| (process.connections(), process.address()))
            .collect();
        ready.sort();
        ready.into_iter().map(|(_, address)| address).collect()
    }

    /// All bundles with processes or a visitor, for the runner.
    pub fn keys(&self) -> Vec<RunKey> {
        self.groups.lock().keys().copied().collect()
    }
    /// Whether somebody visited lately.
    pub fn is_wanted(&self, key: RunKey) -> bool {
        let groups = self.groups.lock();
        groups
            .get(&key)
            .and_then(|group| group.wanted_at)
            .is_some_and(|at| at.elapsed() < WANTED_FOR)
    }
    /// Whether a start may be tried now: not in the pause after a failure.
    pub fn may_start(&self, key: RunKey) -> bool {
        let groups = self.groups.lock();
        groups.get(&key).is_none_or(|group| {
            group
                .failure
                .as_ref()
                .is_none_or(|failure| failure.retry_at.is_some_and(|at| at <= Instant::now()))
        })
    }
    /// A bundle's processes, oldest first.
    pub fn processes(&self, key: RunKey) -> Vec<Arc<RunningProcess>> {
        let groups = self.groups.lock();
        groups
            .get(&key)
            .map(|group| group.processes.clone())
            .unwrap_or_default()
    }
    /// All processes of an item, oldest first.
    pub fn processes_of(&self, item: Id<Content>) -> Vec<Arc<RunningProcess>> {
        let groups = self.groups.lock();
        let mut found: Vec<_> = groups
            .iter()
            .filter(|(key, _)| key.content == item)
            .flat_map(|(_, group)| group.processes.iter().map(Arc::clone))
            .collect();
        found.sort_by_key(|process| process.started_at);
        found
    }
    /// Number of all processes that do not answer yet.
    pub fn starting(&self) -> usize {
        let groups = self.groups.lock();
        let all = groups.values().flat_map(|group| &group.processes);
        all.filter(|process| process.phase() == Phase::Starting)
            .count()
    }
    /// Number of all processes.
    pub fn count(&self) -> usize {
        self.groups
            .lock()
            .values()
            .map(|group| group.processes.len())
            .sum()
    }
    /// The last failure of a bundle, until a process is ready or [`Self::forgive`].
    pub fn failure(&self, key: RunKey) -> Option<Failure> {
        self.groups
            .lock()
            .get(&key)
            .and_then(|group| group.failure.clone())
    }

    /// Adds a process that has just been started.
    pub fn add(&self, process: &Arc<RunningProcess>) {
        let mut groups = self.groups.lock();
        let group = groups.entry(process.key).or_default();
        group.processes.push(Arc::clone(process));
    }
    /// Changes a process's phase.
    pub fn set_phase(&self, process: &RunningProcess, phase: Phase) {
        let mut groups = self.groups.lock();
        {
            let mut state = process.state.lock();
            state.phase = phase;
            if phase == Phase::Draining {
                state.draining_since.get_or_insert_with(Instant::now);
            }
            if phase == Phase::Ready {
                state.start_time = Some(process.started.elapsed());
                state.idle_since = Instant::now();
            }
        }
        if let Some(group) = groups.get_mut(&process.key) {
            if phase == Phase::Ready {
                group.failure = group.failure.take().filter(|failure| failure.count > 1);
                if let Some(failure) = &mut group.failure {
                    failure.retry_at = Some(Instant::now());
                }
            }
            group.refresh();
        }
        drop(groups);
        self.changed.notify_waiters();
    }
    /// Removes a process that has ended. `failure`: why, if it was not stopped by the portal, and
    /// the end of its output.
    pub fn remove(
        &self,
        process: &RunningProcess,
        failure: Option<(String, String)>,
        now: Timestamp,
    ) {
        let mut groups = self.groups.lock();
        if let Some(group) = groups.get_mut(&process.key) {
            group.processes.retain(|other| other.name != process.name);
            if let Some((reason, output)) = failure {
                let before = group.failure.as_ref().map_or(0, |failure| failure.count);
                let count = if process.age() > STABLE_AFTER {
                    1
                } else {
                    before + 1
                };
                let pause = Duration::from_secs(1 << count.min(6));
                group.failure = Some(Failure {
                    at: now,
                    reason,
                    output,
                    retry_at: (count < MAX_FAILURES).then(|| Instant::now() + pause),
                    count,
                });
            }
            group.refresh();
        }
        drop(groups);
        self.changed.notify_waiters();
        self.wanted.notify_one();
    }
    /// Forgets a failure, so that a start is tried again at once.
    pub fn forgive(&self, item: Id<Content>) {
        let mut groups = self.groups.lock();
        for (key, group) in groups.iter_mut() {
            if key.content == item {
                group.failure = None;
            }
        }
        drop(groups);
        self.wanted.notify_one();
    }
    /// Has the processes of an item replaced by new ones, without interruption.
    pub fn renew(&self, item: Id<Content>) {
        for process in self.processes_of(item) {
            process.state.lock().is_outdated = true;
        }
        self.forgive(item);
    }
    /// Takes the processes of an item out of use: they get no new viewers.
    pub fn drain(&self, item: Id<Content>, except: Option<RunKey>) {
        let mut affected = Vec::new();
        for (key, group) in self.groups.lock().iter_mut() {
            if key.content == item && Some(*key) != except {
                // Not wanted any more, until somebody visits it again.
                group.wanted_at = None;
                affected.extend(group.processes.iter().map(Arc::clone));
            }
        }
        for process in affected {
            self.set_phase(&process, Phase::Draining);
        }
        self.wanted.notify_one();
    }
    /// Drops what nobody needs to know any more: bundles without processes that nobody visits.
    pub fn forget_unused(&self, is_known: impl Fn(RunKey) -> bool) {
        self.groups.lock().retain(|key, group| {
            !group.processes.is_empty()
                || group.wanted_at.is_some_and(|at| at.elapsed() < WANTED_FOR)
                || (group.failure.is_some() && is_known(*key))
        });
    }
}

/// A process has as many connections as it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> RunKey {
        RunKey {
            content: Id::random(),
            bundle: 1,
            is_draft: false,
        }
    }

    fn started(board: &RunBoard, key: RunKey, name: &str) -> Arc<RunningProcess> {
        let process = Arc::new(RunningProcess::new(name.into(), key, Timestamp(0)));
        board.add(&process);
        process
    }

    #[test]
    fn a_process_is_found_once_it_is_ready_and_takes_no_more_than_it_may() {
        let (board, key) = (RunBoard::default(), key());
        let process = started(&board, key, "a");
        assert!(matches!(board.visit(key), Found::Starting));
        board.set_phase(&process, Phase::Ready);
        assert!(matches!(board.visit(key), Found::Ready(ready) if ready[0].url == "deployed:a"));
        let first = board.connect(key, "deployed:a", 1).unwrap().unwrap();
        assert!(board.connect(key, "deployed:a", 1).is_err());
        assert!(board.connect(key, "http://elsewhere", 1).unwrap().is_none());
        drop(first);
        assert_eq!(process.connections(), 0);
        assert!(board.connect(key, "deployed:a", 1).is_ok());
    }

    #[test]
    fn after_five_failures_the_portal_waits_for_the_publisher() {
        let (board, key) = (RunBoard::default(), key());
        for number in 0..MAX_FAILURES {
            assert!(
                !board.failure(key).is_some_and(|failure| failure.is_final()),
                "{number}"
            );
            let process = started(&board, key, "a");
            board.remove(
                &process,
                Some(("it ended".into(), String::new())),
                Timestamp(1),
            );
            assert!(!board.may_start(key), "a pause follows");
        }
        assert!(board.failure(key).unwrap().is_final());
        assert!(matches!(board.visit(key), Found::Failed(_)));
        board.forgive(key.content);
        assert!(board.may_start(key) && matches!(board.visit(key), Found::Starting));
    }

    #[test]
    fn what_is_drained_is_not_wanted_any_more() {
        let (board, key) = (RunBoard::default(), key());
        let process = started(&board, key, "a");
        board.set_phase(&process, Phase::Ready);
        drop(board.visit(key));
        assert!(board.is_wanted(key));
        board.drain(key.content, None);
        assert!(!board.is_wanted(key) && process.phase() == Phase::Draining);
        assert!(board.by_load(key).is_empty());
    }
}
