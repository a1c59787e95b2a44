//! The runner: builds what publishers deploy, and starts, watches and stops the processes of
//! deployed content. Works on a thread and a runtime of its own: what apps do there takes nothing
//! from the portal's workers, and Linux ends the processes when that thread ends.
//!
//! One round ([`Rounds::round`]) compares what should run with what runs. The proxy says who is
//! wanted and reads what is ready (`service::running::board`); neither knows the other.
//!
//! - [`builds`]: an archive becomes a folder that can be started.
//! - [`modes`]: how each kind of app is started.
//! - [`process`]: the life of one process. [`sandbox`]: its walls. [`uplink`]: its way out.
//!   [`inside`]: the program within the walls.

mod builds;
mod compile;
mod folders;
pub mod inside;
mod interpreters;
pub mod limits;
mod logs;
mod manifest;
mod modes;
mod process;
mod requirements;
mod sandbox;
mod tokens;
mod uplink;
mod usage;

use crate::{
    config::{
        Settings,
        run::{Confinement, Run},
    },
    disk,
    domain::{
        Id, Timestamp,
        bundle::{Activated, AppMode, Task},
        content::Content,
        egress::Policy,
    },
    service::{
        Services,
        running::{
            board::{Phase, RunKey, RunningProcess},
            bundles::Bundles,
            files::Files,
        },
    },
};
use builds::{KnownInterpreters, TaskLog};
use limits::Cgroups;
use parking_lot::Mutex;
use sandbox::{Launcher, Machine, Sandbox, Unconfined};
use std::{
    collections::{HashMap, HashSet},
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinHandle,
};
use uplink::{Portal, Reach};

/// How often a round is made while something runs or is built.
const ROUND_INTERVAL: Duration = Duration::from_millis(500);
/// How often a round is made while nothing does. Whatever is ordered or visited wakes the runner.
const IDLE_INTERVAL: Duration = Duration::from_secs(10);
/// How often processes are measured.
const MEASURE_INTERVAL: Duration = Duration::from_secs(5);
/// How often the folders of deleted content are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
/// Characters that are kept of why a deploy failed.
const MAX_SENTENCE: usize = 4000;
/// Builds at the same time.
const MAX_BUILDS: u32 = 2;
/// Processes that start at the same time: more would only slow one another down.
const MAX_STARTS: usize = 8;
/// Free bytes of the disk below which packages are not kept for later builds: twice what uploads and
/// builds leave.
const NEARLY_FULL: u64 = 512 << 20;
/// How long a bundle still counts as tried after it became active: longer than a round.
const TRIED_AFTER_SUCCESS: Duration = Duration::from_secs(10);
/// How long a drained process may go on with its last connections.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3600);

/// What builds and processes need.
pub struct Context {
    services: Arc<Services>,
    bundles: Arc<Bundles>,
    launcher: Box<dyn Launcher>,
    uv: PathBuf,
    launch_program: PathBuf,
    interpreters: KnownInterpreters,
    reach: Reach,
    /// What builds reach: also where packages come from.
    build_reach: Reach,
    /// Host and port of the portal's public address.
    portal: (String, u16),
    /// Running processes by name, with their process ids.
    watched: Mutex<HashMap<String, (u32, Arc<RunningProcess>)>>,
    /// How to stop each process, by its name.
    stops: Mutex<HashMap<String, watch::Sender<bool>>>,
    /// Bundles of which a deploy tries a process before viewers get them.
    trying: Mutex<HashMap<RunKey, Id<Task>>>,
}

impl Context {
    fn files(&self) -> &Files {
        self.bundles.files()
    }
    fn settings(&self) -> &Run {
        &self.services.core.settings.run
    }
    /// Where viewers see a bundle of an item: begins and ends with a slash.
    fn prefix(&self, item: &Content, bundle: i64, is_draft: bool) -> String {
        let place = self
            .services
            .core
            .settings
            .origins
            .location(item.id, &item.slug);
        let base = place.map_or_else(|| "/".to_owned(), |place| place.base);
        if is_draft {
            format!("{base}_bundle{bundle}/")
        } else {
            base
        }
    }
}

/// The runner's thread.
pub struct Runner {
    stop: watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Runner {
    /// Starts the runner, unless content does not run on this portal. `listener`: where the portal
    /// listens.
    pub fn start(services: &Arc<Services>, listener: SocketAddr) -> Self {
        let (stop, stopping) = watch::channel(false);
        let board = &services.runs;
        if services.core.settings.run.confinement == Confinement::Off {
            board.set_unavailable(Some("Content does not run on this portal (setting run_content). Run the app elsewhere and add its address.".into()));
            return Self { stop, thread: None };
        }
        board.set_starting();
        let services = Arc::clone(services);
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            match runtime {
                Ok(runtime) => runtime.block_on(work(services, listener, stopping)),
                Err(error) => tracing::error!(%error, "the runner has no runtime"),
            }
        };
        let thread = std::thread::Builder::new()
            .name("runner".into())
            .spawn(work);
        let thread = thread
            .inspect_err(|error| tracing::error!(%error, "the runner has no thread"))
            .ok();
        Self { stop, thread }
    }

    /// Stops all processes, and waits for that.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            drop(tokio::task::spawn_blocking(|| thread.join()).await);
        }
    }
}

/// Finds what is needed, then works until the stop.
async fn work(services: Arc<Services>, listener: SocketAddr, mut stopping: watch::Receiver<bool>) {
    let context = match prepare(&services, listener).await {
        Ok(context) => Arc::new(context),
        Err(reason) => {
            tracing::warn!(reason, "content does not run on this portal");
            services.runs.set_unavailable(Some(format!("Content does not run on this portal: {reason} An app that runs elsewhere can be added by its address.")));
            drop(stopping.wait_for(|stop| *stop).await);
            return;
        }
    };
    tracing::info!(
        isolation = context.launcher.isolation().as_str(),
        limited_by = context.launcher.limited_by(),
        "content runs on this portal"
    );
    services.runs.set_unavailable(None);
    services
        .runs
        .set_isolation(context.launcher.isolation(), context.launcher.limited_by());
    let finding = Arc::clone(&context);
    tokio::spawn(async move {
        let found = finding
            .interpreters
            .get(&finding.settings().python, &finding.uv)
            .await;
        let versions = found.iter().map(|one| one.version.clone()).collect();
        finding.services.runs.set_interpreters(versions);
    });
    let mut rounds = Rounds::new(context);
    loop {
        rounds.round().await;
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => break,
            () = services.runs.wanted() => {}
            () = tokio::time::sleep(rounds.pause()) => {}
        }
    }
    rounds.stop().await;
}

/// Checks the tools and the folders. The error is a sentence for people.
async fn prepare(services: &Arc<Services>, mut listener: SocketAddr) -> Result<Context, String> {
    let settings = &services.core.settings;
    let bundles = Arc::clone(&services.bundles);
    let files = bundles.files();
    clear(files).map_err(|error| {
        format!(
            "the folder {} cannot be prepared: {error}.",
            files.root().display()
        )
    })?;
    // The address of a Unix socket has 108 bytes.
    if files.run().as_os_str().len() > 80 {
        return Err(format!(
            "the path {} is too long for sockets: choose a shorter data_dir.",
            files.run().display()
        ));
    }
    let uv = find_program(&settings.run.uv).ok_or_else(|| {
        format!(
            "{} is not installed. Install uv (PyPI: pip install uv), or set run_uv to its path.",
            settings.run.uv.display()
        )
    })?;
    let program = std::env::current_exe()
        .map_err(|error| format!("this program does not find itself: {error}."))?;
    let url = &settings.public_url;
    let portal = (
        url.host_str()
            .unwrap_or("localhost")
            .trim_matches(['[', ']'])
            .to_owned(),
        url.port_or_known_default().unwrap_or(80),
    );
    let machine = Machine {
        program,
        portal: portal.clone(),
    };
    let launcher: Box<dyn Launcher> = match settings.run.confinement {
        Confinement::None => Box::new(Unconfined { machine }),
        Confinement::Sandbox | Confinement::Off => {
            let bwrap = find_program(&settings.run.bubblewrap)
                .unwrap_or_else(|| settings.run.bubblewrap.clone());
            let cgroups = Cgroups::find(&settings.data_dir);
            if let Some(cgroups) = &cgroups {
                cgroups.sweep();
            }
            let sandbox = Sandbox {
                machine,
                bwrap,
                cgroups,
                etc: files.runner().join("etc"),
            };
            sandbox.check().await?;
            Box::new(sandbox)
        }
    };
    let launch_program = builds::write_launcher(&files.runner())
        .map_err(|error| format!("{} cannot be written: {error}.", files.runner().display()))?;
    if listener.ip().is_unspecified() {
        listener.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    let own_listener = settings.tls.is_some() || url.scheme() == "http";
    let own_address = if own_listener {
        Portal::Listener(listener)
    } else {
        Portal::Public(portal.0.clone(), portal.1)
    };
    let reach_with = |listed: &[String]| Reach {
        portal: own_address.clone(),
        outside: Some((policy(settings, listed), services.core.names.clone())),
    };
    let mut reach = reach_with(&settings.run.private_hosts);
    if !settings.run.reaches_outside {
        reach.outside = None;
    }
    let mut package_hosts = settings.run.private_hosts.clone();
    package_hosts.extend(index_hosts());
    let build_reach = reach_with(&package_hosts);
    Ok(Context {
        services: Arc::clone(services),
        bundles,
        launcher,
        uv,
        launch_program,
        interpreters: KnownInterpreters::default(),
        reach,
        build_reach,
        portal,
        watched: Mutex::default(),
        stops: Mutex::default(),
        trying: Mutex::default(),
    })
}

/// What content may connect to: the web, and these hosts on private networks; never the portal.
fn policy(settings: &Settings, listed: &[String]) -> Arc<Policy> {
    let mut own = settings.origins.own_hosts();
    own.push(settings.listen.to_string());
    Arc::new(Policy::new(listed, &own).with_listener(settings.listen))
}

/// The hosts that packages come from: those of uv's own variables, and PyPI's.
fn index_hosts() -> Vec<String> {
    let names = [
        "UV_DEFAULT_INDEX",
        "UV_INDEX",
        "UV_INDEX_URL",
        "UV_EXTRA_INDEX_URL",
        "UV_FIND_LINKS",
    ];
    let given = names
        .into_iter()
        .filter_map(|name| std::env::var(name).ok())
        .collect::<Vec<_>>()
        .join(" ");
    let hosts = given.split([' ', ',']).filter_map(|word| {
        // An index may have a name: `name=https://…`.
        let url = word.split_once('=').map_or(
            word,
            |(name, url)| if name.contains("://") { word } else { url },
        );
        Some(url::Url::parse(url).ok()?.host_str()?.to_owned())
    });
    hosts
        .chain(["pypi.org", "files.pythonhosted.org"].map(str::to_owned))
        .collect()
}

/// A program by its path, or the first of this name on `PATH`. Scripts are left out: in a sandbox
/// they would not find what they call.
fn find_program(name: &Path) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| {
        use std::io::Read as _;
        let mut magic = [0; 4];
        fs::File::open(path)
            .and_then(|mut file| file.read_exact(&mut magic))
            .is_ok()
            && &magic == b"\x7fELF"
    };
    let candidates: Vec<PathBuf> = if name.components().count() > 1 {
        vec![name.to_owned()]
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .map(|folder| folder.join(name))
            .collect()
    };
    candidates
        .into_iter()
        .filter_map(|path| fs::canonicalize(path).ok())
        .find(is_program)
}

/// Makes the folders, and empties those whose content belongs to an earlier life.
fn clear(files: &Files) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::create_dir_all(files.root())?;
    fs::set_permissions(files.root(), fs::Permissions::from_mode(0o700))?;
    folders::clear(&files.run())?;
    folders::clear(&files.incoming())?;
    fs::create_dir_all(files.builds())?;
    fs::create_dir_all(files.store())?;
    for folder in [files.builds(), files.store()] {
        for entry in fs::read_dir(folder)?.flatten() {
            let name = entry.file_name();
            if name
                .to_str()
                .is_some_and(|name| name.parse::<Id<Task>>().is_ok())
            {
                folders::remove(&entry.path())?;
            }
        }
    }
    Ok(())
}

/// What the runner remembers from round to round.
struct Rounds {
    context: Arc<Context>,
    /// Deploys under way.
    building: Arc<Mutex<HashSet<Id<Content>>>>,
    builds: Arc<Semaphore>,
    sampler: usage::Sampler,
    measured: Option<tokio::time::Instant>,
    swept: Option<tokio::time::Instant>,
    /// When everything was ended last, as this node knows it.
    ended_at: Option<Timestamp>,
}

impl Rounds {
    fn new(context: Arc<Context>) -> Self {
        Self {
            context,
            building: Arc::default(),
            builds: Arc::new(Semaphore::new(MAX_BUILDS as usize)),
            sampler: usage::Sampler::default(),
            measured: None,
            swept: None,
            ended_at: None,
        }
    }

    /// Compares what should run with what runs.
    async fn round(&mut self) {
        let services = Arc::clone(&self.context.services);
        let several = match services.bundles.several_nodes().await {
            Ok(reason) => reason,
            Err(error) => {
                error.log("whether content may run here");
                return;
            }
        };
        services.runs.set_unavailable(several.clone());
        if several.is_none() {
            self.start_builds().await;
        }
        let active: HashMap<Id<Content>, Content> = match services.bundles.active().await {
            Ok(active) => active.into_iter().map(|item| (item.id, item)).collect(),
            Err(error) => {
                error.log("which content runs here");
                return;
            }
        };
        let mut keys: HashSet<RunKey> = services.runs.keys().into_iter().collect();
        match services.emergency.ended_at().await {
            // What processes were given has ended, and their successors get new keys.
            Ok(ended_at) if ended_at != self.ended_at => {
                self.ended_at = ended_at;
                keys.iter().for_each(|key| services.runs.renew(key.content));
            }
            Ok(_) => {}
            Err(error) => error.log("whether everything was ended"),
        }
        keys.extend(active.values().filter_map(|item| {
            Some(RunKey {
                content: item.id,
                bundle: item.bundle?,
                is_draft: false,
            })
        }));
        let is_active = |key: &RunKey| {
            let item = active.get(&key.content);
            item.is_some_and(|item| item.bundle == Some(key.bundle))
        };
        for key in keys {
            let is_tried = self.context.trying.lock().contains_key(&key);
            let is_current = key.is_draft || is_tried || is_active(&key);
            let known = active.get(&key.content);
            self.tend(key, known, is_current && several.is_none()).await;
        }
        self.context
            .stops
            .lock()
            .retain(|_, stop| !stop.is_closed());
        services.runs.forget_unused(|key| {
            key.is_draft || is_active(&key) || self.context.trying.lock().contains_key(&key)
        });
        self.measure();
        self.sweep(&active).await;
    }

    /// How long until the next round.
    fn pause(&self) -> Duration {
        let is_idle =
            self.context.services.runs.keys().is_empty() && self.building.lock().is_empty();
        if is_idle {
            IDLE_INTERVAL
        } else {
            ROUND_INTERVAL
        }
    }

    /// Starts and stops processes of one bundle. `known`: the item, if it is active. `is_current`:
    /// viewers get the bundle, or it is a draft, or it is tried.
    async fn tend(&mut self, key: RunKey, known: Option<&Content>, is_current: bool) {
        let board = &self.context.services.runs;
        let processes = board.processes(key);
        let current: Vec<_> = processes
            .iter()
            .filter(|process| process.phase() != Phase::Draining)
            .collect();
        let item = match known {
            _ if !is_current => None,
            Some(item) => Some(item.clone()),
            // A draft, or the first bundle of an item.
            None if board.is_wanted(key) || !current.is_empty() => {
                self.context.bundles.item(key.content).await.ok().flatten()
            }
            None => None,
        };
        let Some(item) = item else {
            // Not in use any more. What still has viewers is given time; the deleted has none.
            for process in &processes {
                if process.phase() != Phase::Draining && !(is_current && key.is_draft) {
                    self.context
                        .services
                        .runs
                        .set_phase(process, Phase::Draining);
                }
            }
            self.stop_drained(&processes);
            self.stop_idle(&processes, Duration::from_secs(60), 0);
            return;
        };
        let limits = &item.running;
        // What is outdated serves on until its successor answers.
        let (outdated, current): (Vec<_>, Vec<_>) = current
            .into_iter()
            .partition(|process| process.is_outdated());
        let is_replaced = current
            .iter()
            .any(|process| process.phase() == Phase::Ready);
        // A draft is started again by its next visit.
        if is_replaced || key.is_draft {
            for process in &outdated {
                self.context
                    .services
                    .runs
                    .set_phase(process, Phase::Draining);
            }
        }
        let board = &self.context.services.runs;
        let replaces = !key.is_draft && !outdated.is_empty() && current.is_empty();
        let least = if key.is_draft {
            0
        } else {
            limits.min_processes()
        };
        let starting = current
            .iter()
            .filter(|process| process.phase() == Phase::Starting)
            .count();
        let ready = current
            .iter()
            .filter(|process| process.phase() == Phase::Ready);
        let is_full = ready
            .clone()
            .all(|process| process.connections() >= limits.connections_before_another());
        let wants_more = starting == 0
            && current.len() < limits.max_processes()
            && is_full
            && (board.is_wanted(key) || replaces);
        if (wants_more || current.len() < least)
            && board.may_start(key)
            && self.starting() < MAX_STARTS
        {
            let mode = item.app_mode.parse::<AppMode>();
            let is_files = mode.is_ok_and(AppMode::is_files);
            if (!is_files || key.is_draft)
                && self.context.files().built(key.content, key.bundle).exists()
            {
                start_process(&self.context, key);
            }
        }
        self.stop_drained(&processes);
        self.stop_idle(&processes, limits.idle(), least);
    }

    fn starting(&self) -> usize {
        self.context.services.runs.starting()
    }

    /// Stops drained processes that have no connections left.
    fn stop_drained(&self, processes: &[Arc<RunningProcess>]) {
        for process in processes
            .iter()
            .filter(|process| process.phase() == Phase::Draining)
        {
            if process.connections() == 0 || process.drained_for() > DRAIN_TIMEOUT {
                self.stop_process(process);
            }
        }
    }

    /// Stops processes that had no connection for `idle`, and keeps `least`.
    fn stop_idle(&self, processes: &[Arc<RunningProcess>], idle: Duration, least: usize) {
        let ready: Vec<_> = processes
            .iter()
            .filter(|process| process.phase() == Phase::Ready)
            .collect();
        let surplus = ready.len().saturating_sub(least);
        for process in ready
            .iter()
            .filter(|process| process.idle() > idle)
            .take(surplus)
        {
            self.stop_process(process);
        }
    }

    fn stop_process(&self, process: &RunningProcess) {
        if let Some(stop) = self.context.stops.lock().get(&process.name) {
            stop.send_replace(true);
        }
    }

    /// Begins the deploys that wait, one at a time for each item.
    async fn start_builds(&self) {
        let waiting = match self.context.bundles.open_tasks().await {
            Ok(waiting) => waiting,
            Err(error) => {
                error.log("the deploys that wait");
                return;
            }
        };
        for task in waiting {
            if !self.building.lock().insert(task.content) {
                continue;
            }
            let (context, building, permits) = (
                Arc::clone(&self.context),
                Arc::clone(&self.building),
                Arc::clone(&self.builds),
            );
            tokio::spawn(async move {
                let (item, runs) = (task.content, Arc::clone(&context.services));
                // A task of its own: should it panic, the item is free for the next deploy.
                let deploying = tokio::spawn(async move {
                    if let Ok(_permit) = permits.acquire_owned().await
                        // It may have ended since the list was read.
                        && context.bundles.is_waiting(&task).await
                    {
                        deploy(&context, &task).await;
                    }
                });
                drop(deploying.await);
                building.lock().remove(&item);
                runs.runs.wake();
            });
        }
    }

    fn measure(&mut self) {
        if self
            .measured
            .is_some_and(|at| at.elapsed() < MEASURE_INTERVAL)
        {
            return;
        }
        self.measured = Some(tokio::time::Instant::now());
        let watched: Vec<_> = self.context.watched.lock().values().cloned().collect();
        let roots: Vec<u32> = watched.iter().map(|(id, _)| *id).collect();
        let used = self.sampler.sample(&roots);
        for (id, process) in watched {
            process.set_usage(used.get(&id).copied().unwrap_or_default());
        }
    }

    /// Deletes the packages that are kept for later builds, if the disk is nearly full and no build
    /// uses them. Environments have files of their own, or other links to the same.
    async fn make_room(&self) {
        let store = self.context.files().store();
        let is_nearly_full = disk::space(&store).is_some_and(|space| space.free < NEARLY_FULL);
        let Ok(_no_build) = self.builds.try_acquire_many(MAX_BUILDS) else {
            return;
        };
        if is_nearly_full && store.join("cache").exists() {
            tracing::warn!(
                "the disk is nearly full: deleting the packages that are kept for builds"
            );
            let both = ["cache", "compiled"].map(|name| store.join(name));
            let removed = folders::blocking(move || {
                both.iter().try_for_each(|folder| folders::remove(folder))
            });
            if let Err(error) = removed.await {
                tracing::warn!(%error, "the packages that are kept for builds cannot be deleted");
            }
        }
    }

    /// Deletes the folders of content that is gone.
    async fn sweep(&mut self, active: &HashMap<Id<Content>, Content>) {
        if self.swept.is_some_and(|at| at.elapsed() < SWEEP_INTERVAL) {
            return;
        }
        self.swept = Some(tokio::time::Instant::now());
        self.make_room().await;
        let Ok(entries) = fs::read_dir(self.context.files().root()) else {
            return;
        };
        for entry in entries.flatten() {
            let Some(item) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<Id<Content>>().ok())
            else {
                continue;
            };
            let is_used = active.contains_key(&item)
                || !self.context.services.runs.processes_of(item).is_empty();
            if !is_used && matches!(self.context.bundles.item(item).await, Ok(None)) {
                drop(folders::blocking(move || folders::remove(&entry.path())).await);
            }
        }
    }

    /// Stops all processes and waits for them; builds are broken off and begin again at the next
    /// start.
    async fn stop(self) {
        for stop in self.context.stops.lock().values() {
            stop.send_replace(true);
        }
        let ended = async {
            while self.context.services.runs.count() > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        drop(tokio::time::timeout(Duration::from_secs(10), ended).await);
    }
}

/// Starts one process; the board knows it from now on.
fn start_process(context: &Arc<Context>, key: RunKey) -> (Arc<RunningProcess>, JoinHandle<()>) {
    let name = crate::vault::random::label();
    let now = context.bundles.now();
    let process = Arc::new(RunningProcess::new(name.clone(), key, now));
    let (stop, stopped) = watch::channel(false);
    context.services.runs.add(&process);
    context.stops.lock().insert(name, stop);
    let running = process::run(Arc::clone(context), Arc::clone(&process), stopped);
    (process, tokio::spawn(running))
}

/// What a deploy makes viewers get.
fn key_of(task: &Task) -> RunKey {
    RunKey {
        content: task.content,
        bundle: task.bundle,
        is_draft: false,
    }
}

/// Carries out one deploy.
async fn deploy(context: &Arc<Context>, task: &Task) {
    let path = context.files().task_log(task.content, task.id);
    let log = match TaskLog::open(&path) {
        Ok(log) => log,
        Err(error) => {
            tracing::error!(%error, "the log of a deploy cannot be written");
            finish(
                context,
                task,
                Some("The portal's disk is full or cannot be written.".into()),
                None,
            )
            .await;
            return;
        }
    };
    let outcome = carry_out(context, task, &log).await;
    let has_succeeded = outcome.is_ok();
    match outcome {
        Ok(activated) => {
            log.say(if task.activate {
                "Deployed."
            } else {
                "Built as a draft."
            });
            finish(context, task, None, task.activate.then_some(activated)).await;
            tokio::spawn(compile::after_deploy(
                Arc::clone(context),
                task.content,
                task.bundle,
            ));
            if task.activate {
                context.services.runs.forgive(task.content);
                let kept = Some(key_of(task));
                context.services.runs.drain(task.content, kept);
            }
        }
        Err(sentence) => {
            log.say(&sentence);
            finish(context, task, Some(sentence), None).await;
        }
    }
    // After a success the bundle is active by now; but a round may be under way that read before which
    // one is.
    let pause = if has_succeeded && task.activate {
        TRIED_AFTER_SUCCESS
    } else {
        Duration::ZERO
    };
    let (context, task) = (Arc::clone(context), task.clone());
    tokio::spawn(async move {
        tokio::time::sleep(pause).await;
        let mut trying = context.trying.lock();
        // Another deploy may try the same bundle by now.
        if trying.get(&key_of(&task)) == Some(&task.id) {
            trying.remove(&key_of(&task));
        }
    });
}

/// Builds, and tries a process before viewers get it.
async fn carry_out(
    context: &Arc<Context>,
    task: &Task,
    log: &TaskLog,
) -> Result<Activated, String> {
    let busy = |_| "The portal's database does not answer. Deploy again.".to_owned();
    let Some(actor) = context.bundles.actor_of(task).await.map_err(busy)? else {
        return Err("Who deployed this may no longer change the content.".into());
    };
    if !context
        .bundles
        .exists(task.content, task.bundle)
        .await
        .map_err(busy)?
    {
        return Err("The bundle was deleted.".into());
    }
    let manifest = builds::build(context, task, log).await?;
    if task.activate {
        for line in context
            .services
            .contents
            .attach_requested(&actor, task.content, &manifest.integration_requests)
            .await
        {
            log.say(&line);
        }
        // A process must answer before viewers get the bundle.
        if !manifest.mode.is_files() {
            try_start(context, task, log).await?;
        }
    }
    Ok(Activated {
        mode: manifest.mode,
        keep_prefix: manifest.mode.keeps_prefix(),
        python: builds::python_of(context, task.content, task.bundle),
    })
}

/// Starts a process of the new bundle and waits until it answers.
async fn try_start(context: &Arc<Context>, task: &Task, log: &TaskLog) -> Result<(), String> {
    log.say("Starting the app.");
    let key = key_of(task);
    context.trying.lock().insert(key, task.id);
    let runs = &context.services.runs;
    let answers =
        |process: &Arc<RunningProcess>| process.phase() == Phase::Ready && !process.is_outdated();
    if runs.processes(key).iter().any(answers) {
        return Ok(());
    }
    let (process, running) = start_process(context, key);
    loop {
        if process.phase() == Phase::Ready {
            return Ok(());
        }
        if running.is_finished() {
            let failure = context.services.runs.failure(key);
            let (reason, output) = failure.map_or_else(
                || ("The app did not start.".to_owned(), String::new()),
                |failure| (failure.reason, failure.output),
            );
            output.lines().for_each(|line| log.say(line));
            return Err(reason);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Ends a deploy in the database, however long that takes.
async fn finish(
    context: &Context,
    task: &Task,
    error: Option<String>,
    activated: Option<Activated>,
) {
    let error = error.map(|sentence| sentence.chars().take(MAX_SENTENCE).collect::<String>());
    while let Err(failure) = context
        .bundles
        .finish(task, error.clone(), activated.clone())
        .await
    {
        failure.log("the end of a deploy");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
