//! Builds: from an uploaded archive to a folder that can be started. Everything is made in a folder
//! of its own and put into place with one rename, so a failed or interrupted build leaves nothing
//! and changes nothing.
//!
//! uv installs the packages, in a sandbox whose only network is the portal's proxy. What it downloads
//! goes into one cache that all items share, and no code of a package runs while that cache can be
//! written: wheels only, and nothing is compiled. Packages that must be built from source run their
//! code, so they are built in a second step with a cache of their own. Compiling is a third step,
//! after the deploy (`compile`).
//!
//! Code of packages writes the environment and nothing else: what the portal itself reads or writes
//! afterwards lies outside of what any sandbox may write, or is opened without following links.

use super::{
    Context,
    folders::{self, blocking},
    interpreters::{self, Interpreter},
    logs::{Log, copy_lines},
    manifest,
    modes::{self, LAUNCH, SERVERS},
    process::{self, open_uplink},
    requirements::{self, Lines, Wanted},
    sandbox::{Launched, Spec},
};
use crate::{
    archive, disk,
    domain::{
        Id,
        bundle::{AppMode, Manifest, Task},
        content::Content,
    },
};
use parking_lot::Mutex;
use secrecy::SecretString;
use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

/// Memory of a build in MiB.
const BUILD_MEMORY_MIB: u64 = 4096;
/// Processes and threads of a build.
const BUILD_TASKS: u64 = 512;
/// Bytes of a build's output after which its log is rotated; at most twice as much is kept.
const MAX_BUILD_LOG: u64 = 512 * 1024;
/// Largest page of a notebook, in bytes.
const MAX_PAGE: u64 = 256 << 20;
/// How often it is looked whether the disk has room.
const ROOM_INTERVAL: Duration = Duration::from_millis(200);
/// How often it is looked how much a build has written.
const SIZE_INTERVAL: Duration = Duration::from_secs(2);
/// How long the list of interpreters is kept.
const INTERPRETERS_TTL: Duration = Duration::from_secs(600);
/// The file of a built bundle that says which version of Python it was built for.
const VERSION: &str = "python-version";
/// Where builds and uv's cache are seen inside.
const STORE: &str = "/store";

/// The interpreters that were found, and when.
#[derive(Default)]
pub struct KnownInterpreters(Mutex<Option<(Instant, Arc<Vec<Interpreter>>)>>);

impl KnownInterpreters {
    /// Those of this machine.
    pub async fn get(&self, listed: &[PathBuf], uv: &Path) -> Arc<Vec<Interpreter>> {
        if let Some((at, known)) = &*self.0.lock()
            && at.elapsed() < INTERPRETERS_TTL
        {
            return Arc::clone(known);
        }
        let found = Arc::new(interpreters::find(listed, uv).await);
        *self.0.lock() = Some((Instant::now(), Arc::clone(&found)));
        found
    }
}

/// The output of one deploy.
#[derive(Clone)]
pub struct TaskLog(Arc<Mutex<Log>>);

impl TaskLog {
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(Arc::new(Mutex::new(Log::open(
            path,
            MAX_BUILD_LOG,
            Vec::new(),
        )?))))
    }
    pub fn say(&self, line: &str) {
        line.lines()
            .for_each(|line| self.0.lock().line(line.as_bytes()));
    }
    /// Forgets the last lines: what follows is the output of a tool.
    fn begin_output(&self) {
        self.0.lock().forget_tail();
    }
    /// The last lines.
    fn tail(&self) -> String {
        self.0.lock().tail()
    }
}

/// Builds the bundle of a deploy, unless it is built. Returns its manifest; the error is a sentence
/// for the publisher.
pub async fn build(context: &Arc<Context>, task: &Task, log: &TaskLog) -> Result<Manifest, String> {
    let files = context.files();
    let (item, bundle) = (task.content, task.bundle);
    if files.built(item, bundle).exists() {
        log.say("The bundle is built already.");
        return manifest::read(&files.app(item, bundle));
    }
    let folder = files.builds().join(task.id.to_string());
    let store = store_of(context, task);
    let both = [folder.clone(), store.clone()];
    blocking(move || both.iter().try_for_each(|folder| folders::clear(folder)))
        .await
        .map_err(|error| cannot_write(&error))?;
    let made = make(context, task, &folder, log).await;
    let place = files.bundle(item, bundle);
    let is_made = made.is_ok();
    let put = move || -> io::Result<()> {
        drop(folders::remove(&store));
        if !is_made {
            return folders::remove(&folder);
        }
        File::create_new(folder.join("built"))?;
        folders::remove(&place)?;
        fs::rename(&folder, &place)?;
        if let Some(parent) = place.parent() {
            File::open(parent)?.sync_all()?;
        }
        Ok(())
    };
    match (made, blocking(put).await) {
        (Ok(manifest), Ok(())) => Ok(manifest),
        (Ok(_), Err(error)) => Err(cannot_write(&error)),
        (Err(why), _) => Err(why),
    }
}

/// The version of Python for which a bundle was built; `None` if it needs none.
pub fn python_of(context: &Context, item: Id<Content>, bundle: i64) -> Option<String> {
    fs::read_to_string(context.files().bundle(item, bundle).join(VERSION)).ok()
}

/// Where the environment of a deploy is made.
fn store_of(context: &Context, task: &Task) -> PathBuf {
    context.files().store().join(task.id.to_string())
}

fn cannot_write(error: &io::Error) -> String {
    if disk::is_full(error) {
        "The portal's disk is full. The operator has to make room; then deploy again.".into()
    } else {
        format!("The portal cannot write the bundle's files: {error}.")
    }
}

async fn make(
    context: &Arc<Context>,
    task: &Task,
    folder: &Path,
    log: &TaskLog,
) -> Result<Manifest, String> {
    let archive = context.files().archive(task.content, task.bundle);
    let (app, limits) = (folder.join("app"), context.bundles.limits());
    log.say("Unpacking the bundle.");
    let into = app.clone();
    let checksums = tokio::task::spawn_blocking(move || archive::unpack(&archive, &into, limits))
        .await
        .map_err(|_| "Unpacking the bundle failed inside the portal. The operator finds the reason in the log.".to_owned())??;
    let manifest = manifest::read(&app)?;
    for (name, expected) in &manifest.checksums {
        match checksums.get(name) {
            Some(found) if found.eq_ignore_ascii_case(expected) => {}
            Some(_) => {
                return Err(format!(
                    "{name} differs from its checksum in manifest.json. Write the manifest anew and deploy again."
                ));
            }
            None => {
                return Err(format!(
                    "{name} is listed in manifest.json and missing in the bundle. Write the manifest anew and deploy again."
                ));
            }
        }
    }
    check_entry(&manifest, &app)?;
    if manifest.mode.needs_python() {
        let interpreter = choose_interpreter(context, &manifest, log).await?;
        install(context, task, folder, &manifest, &interpreter, log).await?;
        fs::write(
            folder.join("python"),
            interpreter.prefix.as_os_str().as_encoded_bytes(),
        )
        .and_then(|()| fs::write(folder.join(VERSION), &interpreter.version))
        .map_err(|error| cannot_write(&error))?;
    }
    if manifest.mode == AppMode::Notebook {
        render(context, task, folder, &manifest, log).await?;
    }
    Ok(manifest)
}

/// Whether the entry point can be there at all: the file of a kind of app that names one.
fn check_entry(manifest: &Manifest, app: &Path) -> Result<(), String> {
    let entry = &manifest.entrypoint;
    let module = entry.split(':').next().unwrap_or(entry);
    let is_there = match manifest.mode {
        AppMode::Notebook | AppMode::Static => app.join(entry).is_file(),
        // Without one, all notebooks are offered.
        AppMode::Voila => entry.is_empty() || app.join(entry).is_file(),
        // Shiny Express names a file in another way.
        AppMode::Shiny if module == "shiny.express.app" => true,
        AppMode::Wsgi | AppMode::Asgi | AppMode::Dash | AppMode::Shiny => {
            modes::entry_file(app, entry).is_some() || app.join(module.replace('.', "/")).is_dir()
        }
        AppMode::Streamlit | AppMode::Gradio | AppMode::Bokeh | AppMode::Panel => {
            modes::entry_file(app, entry).is_some()
        }
    };
    if is_there {
        Ok(())
    } else {
        Err(format!(
            "The entry point “{entry}” of manifest.json is not in the bundle: there is no file {module} and no {}.py. Name it with --entrypoint and deploy again.",
            module.replace('.', "/")
        ))
    }
}

async fn choose_interpreter(
    context: &Context,
    manifest: &Manifest,
    log: &TaskLog,
) -> Result<Interpreter, String> {
    let installed = context
        .interpreters
        .get(&context.settings().python, &context.uv)
        .await;
    let (chosen, note) = interpreters::choose(
        &installed,
        manifest.python.as_deref(),
        manifest.requires.as_deref(),
    )?;
    match note {
        Some(note) => log.say(&note),
        None => log.say(&format!("Using Python {}.", chosen.version)),
    }
    Ok(chosen.clone())
}

/// Variables of the portal's own environment that uv needs: where packages come from, and how they are
/// reached. No others: some have uv run code of packages (`UV_COMPILE_BYTECODE`).
fn uv_variables() -> Vec<(String, SecretString)> {
    let passes = |name: &str| {
        name.starts_with("UV_INDEX")
            || matches!(
                name,
                "UV_DEFAULT_INDEX"
                    | "UV_EXTRA_INDEX_URL"
                    | "UV_FIND_LINKS"
                    | "UV_INSECURE_HOST"
                    | "UV_NATIVE_TLS"
                    | "UV_SYSTEM_CERTS"
                    | "UV_HTTP_TIMEOUT"
                    | "UV_HTTP_RETRIES"
                    | "UV_CONCURRENT_DOWNLOADS"
                    | "UV_EXCLUDE_NEWER"
                    | "UV_PRERELEASE"
                    | "UV_RESOLUTION"
                    | "SSL_CERT_FILE"
                    | "SSL_CERT_DIR"
            )
    };
    std::env::vars()
        .filter(|(name, _)| passes(name))
        .map(|(name, value)| (name, value.into()))
        .collect()
}

/// Creates the environment of a bundle.
async fn install(
    context: &Arc<Context>,
    task: &Task,
    folder: &Path,
    manifest: &Manifest,
    interpreter: &Interpreter,
    log: &TaskLog,
) -> Result<(), String> {
    let uv = Uv {
        context,
        task,
        folder,
        interpreter,
        log,
    };
    let is_served = matches!(
        manifest.mode,
        AppMode::Wsgi | AppMode::Asgi | AppMode::Dash | AppMode::Shiny | AppMode::Gradio
    );
    if is_served && !context.files().runner().join("servers").exists() {
        uv.install_servers().await?;
    }
    let Some(name) = &manifest.package_file else {
        uv.make_environment(Step::Wheels).await?;
        log.say("The bundle asks for no packages.");
        return uv.keep_environment();
    };
    let app = folder.join("app");
    let text = requirements::read(&app, Path::new(name))?;
    if let Some(earlier) = same_packages(context, task, &text, name, interpreter) {
        log.say("The packages are those of an earlier bundle, version by version: using its environment.");
        let env = folder.join("env");
        // The files of an environment are never changed.
        let copied =
            blocking(move || folders::copy(&earlier, &env, |from, to| fs::hard_link(from, to)));
        return copied.await.map_err(|_| {
            "The environment of the earlier bundle cannot be used. Deploy again.".to_owned()
        });
    }
    uv.make_environment(Step::Wheels).await?;
    let wanted = requirements::wanted(&app, name)?;
    log.say(&format!("Installing the packages of {name}."));
    let mut built = Err(Failed::NeedsBuild);
    if let Wanted::Plain(lines) = wanted {
        built = uv.install_wheels(&lines).await;
    }
    if matches!(built, Err(Failed::NeedsBuild)) {
        if !context.settings().build_from_source {
            return Err(uv.failed(
                "A package has to be built from source, which the operator does not allow (setting run_build_from_source).",
                Failed::NeedsBuild,
            ));
        }
        log.say("A package has to be built from source: with a cache of its own.");
        uv.make_environment(Step::Source).await?;
        built = uv.install_from_source(name).await;
    }
    match built {
        Ok(()) => {}
        Err(failed) => return Err(uv.failed("The packages cannot be installed.", failed)),
    }
    let leftovers = ["source", "cache"].map(|name| folder.join(name));
    drop(
        blocking(move || {
            leftovers
                .iter()
                .try_for_each(|leftover| folders::remove(leftover))
        })
        .await,
    );
    uv.keep_environment()
}

/// The environment of an earlier bundle of the item with the same packages, all of them named with
/// their versions.
fn same_packages(
    context: &Context,
    task: &Task,
    text: &str,
    package_file: &str,
    interpreter: &Interpreter,
) -> Option<PathBuf> {
    let mut lines = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or(line).trim())
        .filter(|line| !line.is_empty());
    if !lines.all(|line| line.contains("==") && !line.starts_with('-')) {
        return None;
    }
    let bundles = context.files().item(task.content).join("bundles");
    let earlier = fs::read_dir(bundles).ok()?.flatten();
    let mut earlier = earlier
        .map(|entry| entry.path())
        .filter(|path| path.join("built").exists());
    earlier.find_map(|path| {
        let same = requirements::read(&path.join("app"), Path::new(package_file)).ok()? == text
            && fs::read(path.join("python")).ok()?
                == interpreter.prefix.as_os_str().as_encoded_bytes();
        same.then(|| path.join("env"))
    })
}

/// uv's command that installs packages; the environment follows.
const INSTALL: [&str; 4] = ["pip", "install", "--strict", "--python"];

/// How far packages are trusted in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// No code of a package runs: the shared cache may be written.
    Wheels,
    /// Packages are built: with a cache of their own.
    Source,
}

#[derive(Debug)]
pub(super) enum Failed {
    NeedsBuild,
    /// The portal ended it; why, as a sentence for the publisher.
    Ended(String),
    /// Its output says why.
    Other,
}

/// What one run in a sandbox may see and write.
pub(super) struct Tool {
    pub name: &'static str,
    /// The working directory, inside.
    pub folder: PathBuf,
    pub command: Vec<OsString>,
    /// Outside, inside, and whether it may be written.
    pub mounts: Vec<(PathBuf, PathBuf, bool)>,
    pub variables: Vec<(String, SecretString)>,
}

/// uv, for one build.
struct Uv<'a> {
    context: &'a Arc<Context>,
    task: &'a Task,
    folder: &'a Path,
    interpreter: &'a Interpreter,
    log: &'a TaskLog,
}

impl Uv<'_> {
    /// The environment while it is made.
    fn env(&self) -> PathBuf {
        store_of(self.context, self.task).join("env")
    }

    /// Where a step sees the environment.
    fn env_inside(&self, step: Step) -> PathBuf {
        let inside = match step {
            Step::Wheels => format!("{STORE}/{}/env", self.task.id),
            Step::Source => "/env".into(),
        };
        self.context.launcher.place(&self.env(), &inside)
    }

    /// Why the portal ended uv; otherwise `sentence` with the end of uv's output.
    fn failed(&self, sentence: &str, failed: Failed) -> String {
        if let Failed::Ended(why) = failed {
            return why;
        }
        let tail = self.log.tail();
        let lines: Vec<&str> = tail.lines().collect();
        let last = lines
            .get(lines.len().saturating_sub(12)..)
            .unwrap_or(&lines);
        format!("{sentence} {}", last.join(" ").trim())
    }

    /// Creates an empty environment.
    async fn make_environment(&self, step: Step) -> Result<(), String> {
        let env = self.env();
        blocking(move || folders::clear(&env))
            .await
            .map_err(|error| cannot_write(&error))?;
        let words = [
            "venv",
            "--quiet",
            "--relocatable",
            "--no-project",
            "--allow-existing",
            "--python",
        ];
        let rest = [
            self.interpreter.program.as_os_str().to_owned(),
            self.env_inside(step).into_os_string(),
        ];
        let made = self.run(&words, &rest, step).await;
        made.map_err(|failed| self.failed("The environment cannot be created.", failed))
    }

    /// Installs wheels into the environment. uv sees nothing of the bundle.
    async fn install_wheels(&self, lines: &Lines) -> Result<(), Failed> {
        let mut rest = vec![self.env_inside(Step::Wheels).into_os_string()];
        for (option, name, text) in [
            ("-r", "requirements.txt", &lines.requirements),
            ("-c", "constraints.txt", &lines.constraints),
        ] {
            if option == "-c" && text.is_empty() {
                continue;
            }
            if let Err(error) = fs::write(store_of(self.context, self.task).join(name), text) {
                self.log.say(&cannot_write(&error));
                return Err(Failed::Other);
            }
            rest.push(option.into());
            rest.push(self.store_inside().join(name).into_os_string());
        }
        self.run(&INSTALL, &rest, Step::Wheels).await
    }

    /// Installs from the bundle's own package file, and builds packages of which there is no wheel.
    async fn install_from_source(&self, name: &str) -> Result<(), Failed> {
        let app = self.folder.join("app");
        let rest = [
            self.env_inside(Step::Source).into_os_string(),
            "-r".into(),
            self.context
                .launcher
                .place(&app, "/app")
                .join(name)
                .into_os_string(),
        ];
        self.run(&INSTALL, &rest, Step::Source).await
    }

    /// Where the step that installs wheels sees the folder of this task.
    fn store_inside(&self) -> PathBuf {
        let store = store_of(self.context, self.task);
        let inside = format!("{STORE}/{}", self.task.id);
        self.context.launcher.place(&store, &inside)
    }

    /// Puts the environment into the bundle's folder.
    fn keep_environment(&self) -> Result<(), String> {
        fs::rename(self.env(), self.folder.join("env")).map_err(|error| cannot_write(&error))
    }

    async fn install_servers(&self) -> Result<(), String> {
        self.log.say("Installing the portal's own servers.");
        let target = store_of(self.context, self.task).join("servers");
        let inside = format!("{STORE}/{}/servers", self.task.id);
        let inside = self.context.launcher.place(&target, &inside);
        let mut rest: Vec<OsString> = vec![inside.into_os_string()];
        rest.extend(SERVERS.iter().map(OsString::from));
        let program = self.interpreter.program.to_string_lossy();
        let words = [
            "pip", "install", "--quiet", "--python", &program, "--target",
        ];
        let installed = self.run(&words, &rest, Step::Wheels).await;
        installed.map_err(|failed| {
            self.failed("The portal's own servers cannot be installed.", failed)
        })?;
        // Another build may have been faster.
        drop(fs::rename(
            &target,
            self.context.files().runner().join("servers"),
        ));
        Ok(())
    }

    async fn run(&self, words: &[&str], rest: &[OsString], step: Step) -> Result<(), Failed> {
        let (context, launcher) = (self.context, &self.context.launcher);
        let store = context.files().store();
        let cache = match step {
            Step::Wheels => store.join("cache"),
            Step::Source => self.folder.join("cache"),
        };
        let made = fs::create_dir_all(&cache)
            .and_then(|()| fs::create_dir_all(store_of(context, self.task)));
        if let Err(error) = made {
            self.log.say(&cannot_write(&error));
            return Err(Failed::Other);
        }
        let mut mounts = Vec::new();
        let (cache_inside, working) = match step {
            Step::Wheels => {
                // The cache and the environment in one mount, or files cannot be linked. No file of the
                // bundle is mounted: all content runs what is written here.
                mounts.push((store.clone(), launcher.place(&store, STORE), true));
                let inside = launcher.place(&cache, &format!("{STORE}/cache"));
                (inside, self.store_inside())
            }
            Step::Source => {
                // Builds write beside their sources: into a copy.
                let (app, source) = (self.folder.join("app"), self.folder.join("source"));
                if !source.exists() {
                    let (from, to) = (app.clone(), source.clone());
                    let copied = |from: &Path, to: &Path| fs::copy(from, to).map(drop);
                    if let Err(error) = blocking(move || folders::copy(&from, &to, copied)).await {
                        self.log.say(&cannot_write(&error));
                        return Err(Failed::Other);
                    }
                }
                let app_inside = launcher.place(&app, "/app");
                mounts.push((source, app_inside.clone(), true));
                let inside = launcher.place(&cache, "/cache");
                mounts.push((self.env(), self.env_inside(step), true));
                mounts.push((cache, inside.clone(), true));
                // Local packages are named relative to it.
                (inside, app_inside)
            }
        };
        process::mount_interpreter(&mut mounts, &self.interpreter.prefix);
        let uv = launcher.place(&context.uv, "/run/valetkey/uv");
        mounts.push((context.uv.clone(), uv.clone(), false));
        let mut command: Vec<OsString> = vec![uv.into()];
        command.extend(words.iter().map(OsString::from));
        command.extend(rest.iter().cloned());
        if step == Step::Wheels && words.first() == Some(&"pip") {
            command.push("--no-build".into());
        }
        for name in ["SSL_CERT_FILE", "SSL_CERT_DIR"] {
            if let Some(path) = std::env::var_os(name).map(PathBuf::from)
                && path.is_absolute()
                && path.exists()
            {
                mounts.push((path.clone(), path, false));
            }
        }
        let mut variables = uv_variables();
        variables.extend(base_variables());
        let mut set =
            |name: &str, value: &str| variables.push((name.into(), value.to_owned().into()));
        set("UV_CACHE_DIR", &cache_inside.to_string_lossy());
        set(
            "UV_LINK_MODE",
            if step == Step::Wheels {
                "hardlink"
            } else {
                "copy"
            },
        );
        set("UV_COMPILE_BYTECODE", "0");
        set("UV_PYTHON_DOWNLOADS", "never");
        set("UV_NO_PROGRESS", "1");
        set("UV_NO_CONFIG", "1");
        if let Some(proxy) = launcher.proxy() {
            set("HTTPS_PROXY", &proxy);
            set("HTTP_PROXY", &proxy);
        }
        let tool = Tool {
            name: "build",
            folder: working,
            command,
            mounts,
            variables,
        };
        let written = [self.folder.to_owned(), store_of(context, self.task)];
        let ended = run_tool(context, self.log, tool, &written).await;
        let tail = self.log.tail();
        let says_so = [
            "no usable wheels",
            "ource distributions",
            "--no-build",
            "is disabled",
        ];
        match ended {
            Err(Failed::Other)
                if step == Step::Wheels && says_so.iter().any(|words| tail.contains(words)) =>
            {
                Err(Failed::NeedsBuild)
            }
            ended => ended,
        }
    }
}

/// Runs a tool to its end, with its output in the log. `written`: the folders that it may fill.
pub(super) async fn run_tool(
    context: &Context,
    log: &TaskLog,
    tool: Tool,
    written: &[PathBuf],
) -> Result<(), Failed> {
    log.begin_output();
    let name = format!("{}{}", tool.name, crate::vault::random::label());
    let uplink = open_uplink(context, &name, context.build_reach.clone(), tool.variables);
    let uplink = uplink.map_err(|error| {
        log.say(&format!("The portal cannot make a socket: {error}."));
        Failed::Other
    })?;
    let spec = Spec {
        name,
        command: tool.command,
        folder: tool.folder,
        mounts: tool.mounts,
        uplink: uplink.path().to_owned(),
        listener: None,
        port: 0,
        memory_mib: BUILD_MEMORY_MIB,
        tasks: BUILD_TASKS,
    };
    let launched = context.launcher.launch(spec).map_err(|error| {
        log.say(&format!("The tool cannot be started: {error}."));
        Failed::Other
    })?;
    match follow_within_limits(context, launched, log, written).await {
        Err(why) => Err(Failed::Ended(why)),
        Ok(true) => Ok(()),
        Ok(false) => Err(Failed::Other),
    }
}

/// Like [`follow`]; ends the process if it takes too long, or more of the disk than it may. The
/// error says so to the publisher.
async fn follow_within_limits(
    context: &Context,
    launched: Launched,
    log: &TaskLog,
    written: &[PathBuf],
) -> Result<bool, String> {
    let (settings, store) = (context.settings(), context.files().store());
    tokio::select! {
        ended = follow(launched, log) => Ok(ended),
        () = tokio::time::sleep(settings.build_timeout) => Err(format!(
            "The build took more than {} minutes (setting run_build_minutes).",
            settings.build_timeout.as_secs() / 60
        )),
        () = until_no_room(&store) => {
            Err(cannot_write(&io::ErrorKind::StorageFull.into()))
        }
        () = until_larger(written, settings.max_build_bytes) => Err(format!(
            "The build wrote more than {} MiB (setting run_build_mib). Ask for fewer or smaller packages.",
            settings.max_build_bytes >> 20
        )),
    }
}

/// Waits until a build has filled the disk.
async fn until_no_room(folder: &Path) {
    while disk::check_room(folder).is_ok() {
        tokio::time::sleep(ROOM_INTERVAL).await;
    }
}

/// Waits until these folders hold more than `most` bytes.
async fn until_larger(folders: &[PathBuf], most: u64) {
    loop {
        tokio::time::sleep(SIZE_INTERVAL).await;
        let folders = folders.to_vec();
        let size = tokio::task::spawn_blocking(move || disk::size(folders)).await;
        if size.is_ok_and(|size| size > most) {
            return;
        }
    }
}

/// Variables of every tool.
pub(super) fn base_variables() -> Vec<(String, SecretString)> {
    [
        ("PATH", "/usr/local/bin:/usr/bin:/bin"),
        ("HOME", "/tmp"),
        ("LANG", "C.UTF-8"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned().into()))
    .to_vec()
}

/// Copies the output of a process into the log until it ends; whether it succeeded.
async fn follow(mut launched: Launched, log: &TaskLog) -> bool {
    let (out, err) = (launched.child.stdout.take(), launched.child.stderr.take());
    let reading = async {
        tokio::join!(copy_lines(out, &log.0), copy_lines(err, &log.0));
    };
    let (status, ()) = tokio::join!(launched.child.wait(), reading);
    status.is_ok_and(|status| status.success())
}

/// Executes a notebook and keeps the page.
async fn render(
    context: &Arc<Context>,
    task: &Task,
    folder: &Path,
    manifest: &Manifest,
    log: &TaskLog,
) -> Result<(), String> {
    log.say("Executing the notebook.");
    let out = folder.join("out");
    fs::create_dir(&out).map_err(|error| cannot_write(&error))?;
    let Some(item) = context.bundles.item(task.content).await.ok().flatten() else {
        return Err("The content was deleted.".into());
    };
    let mut prepared = process::prepare(context, &item, folder).await?;
    let out_inside = context.launcher.place(&out, "/out");
    prepared
        .mounts
        .push((out.clone(), out_inside.clone(), true));
    let command = modes::render_command(manifest, &prepared.python, &out_inside.to_string_lossy());
    let name = format!("render{}", crate::vault::random::label());
    let cannot = |error: io::Error| format!("The notebook cannot be executed: {error}.");
    log.0.lock().hide(prepared.secrets());
    let (spec, _uplink, _key) = prepared
        .finish(context, &name, command, None)
        .map_err(cannot)?;
    let launched = context.launcher.launch(spec).map_err(cannot)?;
    let written = std::slice::from_ref(&out);
    if !follow_within_limits(context, launched, log, written).await? {
        let tail = log.tail();
        let lines: Vec<&str> = tail.lines().collect();
        let last = lines.get(lines.len().saturating_sub(3)..).unwrap_or(&lines);
        return Err(format!("The notebook failed. {}", last.join(" ")));
    }
    // The notebook wrote the folder: what lies there may be anything.
    let copied = archive::open_below(&out, Path::new("output.html")).and_then(|page| {
        let mut kept = File::create_new(folder.join("rendered.html"))?;
        io::copy(&mut page.take(MAX_PAGE), &mut kept)
    });
    copied.map_err(|_| {
        "The notebook gave no page: add nbconvert and ipykernel to requirements.txt.".to_owned()
    })?;
    drop(blocking(move || folders::remove(&out)).await);
    Ok(())
}

/// Writes the launcher program to the folder of the portal's own programs.
pub(super) fn write_launcher(runner: &Path) -> io::Result<PathBuf> {
    fs::create_dir_all(runner)?;
    let path = runner.join("launch.py");
    fs::write(&path, LAUNCH)?;
    Ok(path)
}
