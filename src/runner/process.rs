//! The life of one process of deployed content: prepared → started → answering → stopped, or ended
//! by itself.

use super::{
    Context,
    logs::{Log, copy_lines},
    manifest,
    modes::{self, Start},
    sandbox::{Launched, Spec},
    tokens,
    uplink::{self, Control, Reach},
};
use crate::{
    domain::{
        bundle::{AppMode, Isolation},
        content::Content,
    },
    measures,
    service::{
        people::api_keys::ProcessKey,
        running::board::{Phase, RunKey, RunningProcess},
    },
};
use parking_lot::Mutex;
use secrecy::SecretString;
use std::{
    ffi::OsString,
    fs, io,
    os::unix::net::UnixListener as StdUnixListener,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::watch,
    task::AbortHandle,
    time::Instant,
};

/// Bytes of a process's output after which its log is rotated; at most twice as much is kept.
const MAX_LOG: u64 = 5 << 20;
/// Log files that are kept of an item.
const MAX_LOG_FILES: usize = 40;
/// How often a starting app is asked whether it answers.
const PROBE_INTERVAL: Duration = Duration::from_millis(50);
/// How long one such question waits.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a process may take to stop, beyond the time that the app has.
const KILL_AFTER: Duration = Duration::from_secs(super::inside::STOP_GRACE.as_secs() + 2);

/// The uplink of one process. Dropping it ends the process's connections to the outside.
pub struct Uplink {
    path: PathBuf,
    stop: watch::Sender<bool>,
    listens: watch::Receiver<bool>,
    serving: AbortHandle,
}

impl Uplink {
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// Resolves once the app listens on its port.
    async fn listens(&mut self) {
        drop(self.listens.wait_for(|listens| *listens).await);
    }
    /// Tells the process to end.
    fn stop(&self) {
        self.stop.send_replace(true);
    }
}

impl Drop for Uplink {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        self.serving.abort();
        drop(fs::remove_file(&self.path));
    }
}

/// Opens the uplink of a process, by which it gets its variables.
pub fn open_uplink(
    context: &Context,
    name: &str,
    reach: Reach,
    variables: Vec<(String, SecretString)>,
) -> io::Result<Uplink> {
    let path = context.files().run().join(format!("{name}.up"));
    let listener = UnixListener::bind(&path)?;
    let (stop, stopped) = watch::channel(false);
    let (said, listens) = watch::channel(false);
    let control = Control {
        variables,
        listens: said,
        stop: stopped,
    };
    let serving = tokio::spawn(uplink::serve(listener, reach, control)).abort_handle();
    Ok(Uplink {
        path,
        stop,
        listens,
        serving,
    })
}

/// Adds the interpreter's folder to the mounts, unless each sandbox sees it.
pub fn mount_interpreter(mounts: &mut Vec<(PathBuf, PathBuf, bool)>, prefix: &Path) {
    if !prefix.starts_with("/usr") {
        mounts.push((prefix.to_owned(), prefix.to_owned(), false));
    }
}

/// What is needed to start a process of a bundle.
pub struct Prepared {
    pub mounts: Vec<(PathBuf, PathBuf, bool)>,
    pub variables: Vec<(String, SecretString)>,
    /// The folder of the app, inside.
    pub folder: PathBuf,
    /// The interpreter of the environment, inside.
    pub python: String,
    pub memory_mib: u64,
    key: ProcessKey,
    secrets: Vec<SecretString>,
}

/// Prepares everything that processes of a bundle have in common: files, variables, key, uplink.
/// `folder`: the unpacked bundle. The error is a sentence for the publisher.
pub async fn prepare(
    context: &Arc<Context>,
    item: &Content,
    folder: &Path,
) -> Result<Prepared, String> {
    let inner = |_| "The portal's database does not answer. Try again.".to_owned();
    if context.bundles.owner(item).await.map_err(inner)?.is_none() {
        return Err(
            "The owner of this content is locked or no longer a publisher, so it does not run."
                .into(),
        );
    }
    let launcher = &context.launcher;
    let place = |outside: PathBuf, inside: &str| {
        let seen = launcher.place(&outside, inside);
        (outside, seen, false)
    };
    let app = place(folder.join("app"), "/app");
    let env = place(folder.join("env"), "/env");
    let launch = place(context.launch_program.clone(), "/run/valetkey/launch.py");
    let mut mounts = vec![app.clone(), launch.clone()];
    let has_environment = env.0.exists();
    let python = if has_environment {
        let prefix = fs::read(folder.join("python"))
            .map_err(|_| "The bundle's files are damaged. Deploy it again.".to_owned())?;
        // Written by the build from a path of this machine.
        let prefix = PathBuf::from(String::from_utf8_lossy(&prefix).into_owned());
        mount_interpreter(&mut mounts, &prefix);
        mounts.push(env.clone());
        env.1.join("bin/python").to_string_lossy().into_owned()
    } else {
        String::new()
    };
    let servers = place(
        context.files().runner().join("servers"),
        "/run/valetkey/servers",
    );
    if servers.0.exists() {
        mounts.push(servers.clone());
    }
    let key = context.services.api_keys.add_process_key(item.id);
    let secret = key.secret().clone();
    let own = context.bundles.variables(item.id).await.map_err(inner)?;
    let mut secrets: Vec<SecretString> = own.iter().map(|(_, value)| value.clone()).collect();
    secrets.push(secret.clone());
    let home = if launcher.isolation() == Isolation::Sandbox {
        "/home/app"
    } else {
        "/tmp"
    };
    let mut variables = own;
    let mut set = |name: &str, value: String| {
        variables.retain(|(known, _)| known != name);
        variables.push((name.to_owned(), value.into()));
    };
    set(
        "CONNECT_SERVER",
        format!("{}/", context.services.core.settings.base()),
    );
    set("CONNECT_CONTENT_GUID", item.id.to_string());
    set("RSTUDIO_PRODUCT", "CONNECT".into());
    set("POSIT_PRODUCT", "CONNECT".into());
    set(
        "PATH",
        format!(
            "{}:/usr/local/bin:/usr/bin:/bin",
            env.1.join("bin").display()
        ),
    );
    set("HOME", home.into());
    set("TMPDIR", "/tmp".into());
    set("LANG", "C.UTF-8".into());
    set("PYTHONUNBUFFERED", "1".into());
    set("PYTHONDONTWRITEBYTECODE", "1".into());
    set("LAUNCH_PATH", servers.1.to_string_lossy().into_owned());
    if let Some(proxy) = launcher.proxy() {
        let (host, _) = &context.portal;
        for name in ["HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"] {
            set(name, proxy.clone());
        }
        for name in ["NO_PROXY", "no_proxy"] {
            set(name, format!("localhost,127.0.0.1,::1,{host}"));
        }
    }
    variables.retain(|(known, _)| known != "CONNECT_API_KEY");
    variables.push(("CONNECT_API_KEY".into(), secret));
    let most = context.settings().memory_mib;
    Ok(Prepared {
        mounts,
        variables,
        folder: app.1,
        python,
        memory_mib: item.running.memory_mib.map_or(most, u64::from).min(most),
        key,
        secrets,
    })
}

impl Prepared {
    /// What must not stand in a log.
    pub fn secrets(&self) -> Vec<SecretString> {
        self.secrets.clone()
    }

    /// The process to start, its uplink and its key, which must live as long as the process.
    pub fn finish(
        self,
        context: &Context,
        name: &str,
        command: Vec<OsString>,
        listener: Option<(StdUnixListener, u16)>,
    ) -> io::Result<(Spec, Uplink, ProcessKey)> {
        let uplink = open_uplink(context, name, context.reach.clone(), self.variables)?;
        let (listener, port) = listener.unzip();
        let spec = Spec {
            name: name.to_owned(),
            command,
            folder: self.folder,
            mounts: self.mounts,
            uplink: uplink.path().to_owned(),
            listener,
            port: port.unwrap_or(0),
            memory_mib: self.memory_mib,
            tasks: context.settings().tasks,
        };
        Ok((spec, uplink, self.key))
    }
}

/// Runs a process to its end. It stops when `stop` turns true.
pub async fn run(context: Arc<Context>, process: Arc<RunningProcess>, stop: watch::Receiver<bool>) {
    let board = &context.services.runs;
    let ended = live(&context, &process, stop).await;
    if let Some((reason, _)) = &ended {
        tracing::warn!(content = %process.key.content, bundle = process.key.bundle, process = process.name, reason, "a process of deployed content failed");
    }
    board.remove(&process, ended, context.bundles.now());
}

/// The process's life. Returns why it failed and the end of its output; `None` if it was stopped.
async fn live(
    context: &Arc<Context>,
    process: &Arc<RunningProcess>,
    mut stop: watch::Receiver<bool>,
) -> Option<(String, String)> {
    let RunKey {
        content,
        bundle,
        is_draft,
    } = process.key;
    let fail = |reason: String| Some((reason, String::new()));
    let item = match context.bundles.item(content).await {
        Ok(Some(item)) => item,
        Ok(None) => return None,
        Err(_) => return fail("The portal's database does not answer.".into()),
    };
    let folder = context.files().bundle(content, bundle);
    let manifest = match manifest::read(&folder.join("app")) {
        Ok(manifest) => manifest,
        Err(sentence) => return fail(sentence),
    };
    let mut prepared = match prepare(context, &item, &folder).await {
        Ok(prepared) => prepared,
        Err(sentence) => return fail(sentence),
    };
    // Deleted when the process has ended.
    let _tokens = match tokens::hand_out(context, &item, &process.name).await {
        Ok(None) => None,
        Ok(Some(handed)) => {
            prepared.mounts.push(handed.mount);
            for (_, value) in &handed.secrets {
                prepared.secrets.push(value.clone());
            }
            let plain = handed.plain.into_iter();
            let plain = plain.map(|(name, value)| (name, value.into()));
            for (name, value) in plain.chain(handed.secrets) {
                prepared.variables.retain(|(known, _)| *known != name);
                prepared.variables.push((name, value));
            }
            Some(handed.files)
        }
        Err(sentence) => return fail(sentence),
    };
    let port = match context.launcher.port() {
        Ok(port) => port,
        Err(error) => return fail(format!("No port is free: {error}.")),
    };
    let prefix = context.prefix(&item, bundle, is_draft);
    let launch = context
        .launcher
        .place(&context.launch_program, "/run/valetkey/launch.py");
    let file = modes::entry_file(&folder.join("app"), &manifest.entrypoint).unwrap_or_default();
    let start = Start {
        manifest: &manifest,
        file: &file,
        python: &prepared.python,
        launch: &launch.to_string_lossy(),
        port,
        prefix: &prefix,
    };
    let command = modes::command(&start)?;
    for (name, value) in command.variables {
        prepared.variables.push((name.to_owned(), value.into()));
    }
    let port_text: SecretString = port.to_string().into();
    prepared.variables.push(("PORT".into(), port_text));
    let socket = context.files().socket_of(&process.address())?;
    let listener = match StdUnixListener::bind(&socket) {
        Ok(listener) => (listener, port),
        Err(error) => return fail(format!("The portal cannot make a socket: {error}.")),
    };
    let _socket = RemoveFile(socket.clone());
    prune_logs(&context.files().logs(content));
    let log_path = context
        .files()
        .logs(content)
        .join(format!("{}.log", process.name));
    let log = match Log::open(&log_path, MAX_LOG, std::mem::take(&mut prepared.secrets)) {
        Ok(log) => Arc::new(Mutex::new(log)),
        Err(error) => return fail(format!("The process's log cannot be written: {error}.")),
    };
    let finished = prepared.finish(context, &process.name, command.words, Some(listener));
    let (spec, mut uplink, _key) = match finished {
        Ok(finished) => finished,
        Err(error) => return fail(format!("The portal cannot make a socket: {error}.")),
    };
    let mut launched = match context.launcher.launch(spec) {
        Ok(launched) => launched,
        Err(error) => return fail(format!("The process cannot be started: {error}.")),
    };
    if let Some(id) = launched.child.id() {
        context
            .watched
            .lock()
            .insert(process.name.clone(), (id, Arc::clone(process)));
    }
    let reading = read_output(&mut launched, &log);
    let outcome = tokio::select! {
        outcome = serve(context, process, (&mut launched, &mut uplink), &socket, manifest.mode, &prefix, item.running.start()) => outcome,
        _ = stop.wait_for(|stop| *stop) => Outcome::Stopped,
    };
    if process.phase() == Phase::Starting && !matches!(outcome, Outcome::Stopped) {
        measures::process_start(None);
    }
    let outcome = match outcome {
        Outcome::Ended(status) => Some(how_it_ended(status)),
        Outcome::TooSlow => {
            terminate(&uplink, &mut launched).await;
            Some(format!(
                "The app did not answer within {} s of its start. It must listen on the port that the portal tells it, or it needs more time (start timeout).",
                item.running.start().as_secs()
            ))
        }
        Outcome::Stopped => {
            board_drained(context, process);
            terminate(&uplink, &mut launched).await;
            None
        }
    };
    context.watched.lock().remove(&process.name);
    drop(launched);
    // The pipes end with the process.
    drop(tokio::time::timeout(Duration::from_secs(5), reading).await);
    let output = log.lock().tail();
    outcome.map(|reason| (with_own_words(reason, &output), output))
}

/// A process that is told to stop gets no new viewers.
fn board_drained(context: &Context, process: &RunningProcess) {
    if process.phase() != Phase::Draining {
        context.services.runs.set_phase(process, Phase::Draining);
    }
}

enum Outcome {
    Ended(io::Result<std::process::ExitStatus>),
    TooSlow,
    Stopped,
}

/// Waits until the app answers, then until it ends.
async fn serve(
    context: &Context,
    process: &RunningProcess,
    (launched, uplink): (&mut Launched, &mut Uplink),
    socket: &Path,
    mode: AppMode,
    prefix: &str,
    patience: Duration,
) -> Outcome {
    let deadline = Instant::now() + patience;
    let probe = modes::probe(mode, prefix);
    tokio::select! {
        ended = launched.child.wait() => return Outcome::Ended(ended),
        () = tokio::time::sleep_until(deadline) => return Outcome::TooSlow,
        () = uplink.listens() => {}
    }
    while let Some(path) = &probe {
        tokio::select! {
            biased;
            ended = launched.child.wait() => return Outcome::Ended(ended),
            answered = tokio::time::timeout(PROBE_TIMEOUT, answers(socket, path)) => {
                if answered.unwrap_or(false) {
                    break;
                }
            }
        }
        if Instant::now() > deadline {
            return Outcome::TooSlow;
        }
        tokio::time::sleep(PROBE_INTERVAL).await;
    }
    tracing::info!(content = %process.key.content, bundle = process.key.bundle, process = process.name, after = ?process.age(), "a process of deployed content answers");
    context.services.runs.set_phase(process, Phase::Ready);
    measures::process_start(Some(process.age()));
    Outcome::Ended(launched.child.wait().await)
}

/// Whether the app answers a request with HTTP, whatever the status.
async fn answers(socket: &Path, path: &str) -> bool {
    let ask = async {
        let mut stream = UnixStream::connect(socket).await?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    ask.await.is_ok_and(|answer| &answer == b"HTTP/")
}

/// Asks the app to end, and kills the whole tree if it does not.
async fn terminate(uplink: &Uplink, launched: &mut Launched) {
    uplink.stop();
    if tokio::time::timeout(KILL_AFTER, launched.child.wait())
        .await
        .is_err()
    {
        drop(launched.child.kill().await);
    }
}

/// Adds what the launcher program (`launch.py`) said about a start that failed.
fn with_own_words(reason: String, output: &str) -> String {
    let said = output
        .lines()
        .rev()
        .find(|line| line.starts_with("Could not start the app: "));
    match said {
        Some(line) => format!("{reason} {line}"),
        None => reason,
    }
}

/// A sentence for the publisher.
fn how_it_ended(status: io::Result<std::process::ExitStatus>) -> String {
    let code = status.ok().and_then(|status| status.code());
    match code {
        Some(0) => "The app ended by itself (exit code 0). An app must keep running.".into(),
        Some(137) => "The app was killed. It may have used more memory than it may.".into(),
        Some(code @ 129..=192) => format!("The app was ended by signal {}.", code - 128),
        Some(code) => format!("The app ended with exit code {code}."),
        None => "The app was killed.".into(),
    }
}

/// Copies the output of a process into its log, in a task of its own.
fn read_output(launched: &mut Launched, log: &Arc<Mutex<Log>>) -> impl Future<Output = ()> + use<> {
    let out = launched.child.stdout.take();
    let err = launched.child.stderr.take();
    let (first, second) = (Arc::clone(log), Arc::clone(log));
    let reading = tokio::spawn(async move {
        tokio::join!(copy_lines(out, &first), copy_lines(err, &second));
    });
    async move { drop(reading.await) }
}

/// Deletes the oldest logs of an item, so that an app that crashes again and again does not fill the
/// disk.
fn prune_logs(folder: &Path) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    found.sort();
    let surplus = found.len().saturating_sub(MAX_LOG_FILES);
    for (_, path) in found.iter().take(surplus) {
        drop(fs::remove_file(path));
    }
}

/// A file that is deleted when this is dropped.
struct RemoveFile(PathBuf);

impl Drop for RemoveFile {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}
