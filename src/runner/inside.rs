//! `valetkey inside`: the first program in the sandbox of an app's process. It starts the app and
//! connects it with the portal outside.
//!
//! - The app listens on a port of the sandbox's own loopback. What arrives at the socket that the
//!   portal listens on (standard input of this program) is passed to that port: so only the portal
//!   can connect to the app.
//! - The app reaches the portal, and through it the outside, by ports of the same loopback. What it
//!   sends there goes to one socket file, the uplink, with a letter in front that says what it is
//!   for. See [`super::uplink`].
//! - By a connection for control, this program gets the app's variables (it has none itself), and says
//!   when the app listens. When that connection ends, the app is told to stop
//!   (SIGTERM), and killed [`STOP_GRACE`] later.
//!
//! Runs without privileges and trusts nothing more than the app does.

use super::uplink::{CONTROL, EGRESS, LISTENS, PORTAL};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process_group, setrlimit};
use std::{
    ffi::OsString,
    io,
    os::{
        fd::AsFd as _, unix::net::UnixListener as StdUnixListener,
        unix::process::ExitStatusExt as _,
    },
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    process::Command,
};

/// How long an app may take to end after SIGTERM.
pub const STOP_GRACE: Duration = Duration::from_secs(5);

/// How often it is tried whether the app listens.
const LISTEN_INTERVAL: Duration = Duration::from_millis(25);
/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What to start, and how it is connected.
#[derive(Debug, Default, clap::Args)]
pub struct Inside {
    /// The socket that leads to the portal.
    #[arg(long)]
    uplink: PathBuf,
    /// The port on which the app listens.
    #[arg(long)]
    port: Option<u16>,
    /// The port on which the portal is reached.
    #[arg(long)]
    portal_port: Option<u16>,
    /// The port of the proxy to the outside.
    #[arg(long)]
    egress_port: Option<u16>,
    /// Memory in MiB, where no cgroup limits it.
    #[arg(long)]
    memory_mib: Option<u64>,
    /// Processes and threads.
    #[arg(long)]
    tasks: Option<u64>,
    /// Largest file in MiB.
    #[arg(long)]
    file_mib: Option<u64>,
    /// Ends with the process that started it, where no sandbox does that.
    #[arg(long)]
    die_with_parent: bool,
    /// The program and its arguments.
    #[arg(trailing_var_arg = true, required = true)]
    command: Vec<OsString>,
}

/// Runs the app to its end. The exit code is the app's, or 128 and the number of its signal.
pub fn run(arguments: &Inside) -> ExitCode {
    if arguments.die_with_parent
        && let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
    {
        eprintln!("valetkey: {error}");
        return ExitCode::from(125);
    }
    limit(arguments);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let code = runtime.and_then(|runtime| runtime.block_on(run_app(arguments)));
    match code {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!(
                "valetkey: {} cannot be started: {error}",
                arguments.command[0].display()
            );
            ExitCode::from(126)
        }
    }
}

/// Sets the limits that hold for this program and all that it starts.
fn limit(arguments: &Inside) {
    // The portal and its database go first. Without a group of its own for CPU time, a session has
    // its own niceness beside that of its processes (sched(7), autogroups).
    let _ = rustix::process::nice(10);
    drop(std::fs::write("/proc/self/autogroup", "10"));
    let set = |resource, most: Option<u64>| {
        if most.is_some() {
            let limit = Rlimit {
                current: most,
                maximum: most,
            };
            // An own lower limit stays.
            let _ = setrlimit(resource, limit);
        }
    };
    set(Resource::Core, Some(0));
    set(Resource::Nofile, Some(4096));
    set(Resource::Nproc, arguments.tasks);
    set(Resource::Fsize, arguments.file_mib.map(|mib| mib << 20));
    // Private writable memory; the address space is larger by what libraries only reserve.
    set(Resource::Data, arguments.memory_mib.map(|mib| mib << 20));
}

async fn run_app(arguments: &Inside) -> io::Result<u8> {
    let (program, rest) = arguments
        .command
        .split_first()
        .ok_or(io::ErrorKind::InvalidInput)?;
    let inherited = match arguments.port {
        Some(_) => {
            let listener = StdUnixListener::from(io::stdin().as_fd().try_clone_to_owned()?);
            listener.set_nonblocking(true)?;
            Some(UnixListener::from_std(listener)?)
        }
        None => None,
    };
    let mut control = UnixStream::connect(&arguments.uplink).await?;
    control.write_all(&[CONTROL]).await?;
    let variables = read_variables(&mut control).await?;
    let (mut control, mut report) = control.into_split();
    let mut child = Command::new(program)
        .args(rest)
        .env_clear()
        .envs(variables)
        .stdin(std::process::Stdio::null())
        .process_group(0)
        .spawn()?;
    let group = child
        .id()
        .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    if let (Some(listener), Some(port)) = (inherited, arguments.port) {
        tokio::spawn(async move {
            loop {
                let Ok((outside, _)) = listener.accept().await else {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                };
                tokio::spawn(async move {
                    if let Ok(app) = connect_to_app(port).await {
                        drop(app.set_nodelay(true));
                        join(outside, app).await;
                    }
                });
            }
        });
    }
    if let Some(port) = arguments.port {
        tokio::spawn(async move {
            while connect_to_app(port).await.is_err() {
                tokio::time::sleep(LISTEN_INTERVAL).await;
            }
            let _ = report.write_all(&[LISTENS]).await;
            // Dropping it would end the connection.
            std::future::pending::<()>().await;
        });
    }
    for (port, kind) in [
        (arguments.portal_port, PORTAL),
        (arguments.egress_port, EGRESS),
    ] {
        if let Some(port) = port {
            let listener = TcpListener::bind(("127.0.0.1", port)).await?;
            tokio::spawn(pass_on(listener, arguments.uplink.clone(), kind));
        }
    }
    tokio::select! {
        ended = child.wait() => return Ok(exit_code(ended?)),
        // The portal says that the process must end, or is gone.
        _ = control.read_u8() => {}
    }
    if let Some(group) = group {
        let _ = kill_process_group(group, Signal::TERM);
    }
    let ended = tokio::time::timeout(STOP_GRACE, child.wait()).await;
    if let Some(group) = group {
        let _ = kill_process_group(group, Signal::KILL);
    }
    match ended {
        Ok(ended) => Ok(exit_code(ended?)),
        Err(_) => Ok(exit_code(child.wait().await?)),
    }
}

/// Connects to the app. Where nothing listens on a port that the kernel also gives to outgoing
/// connections, it may in the end connect a socket with itself: that is no app.
async fn connect_to_app(port: u16) -> io::Result<TcpStream> {
    let app = TcpStream::connect(("127.0.0.1", port)).await?;
    if app.local_addr()? == app.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(app)
}

/// The app's variables, as [`super::uplink`] sends them.
async fn read_variables(control: &mut UnixStream) -> io::Result<Vec<(String, String)>> {
    let length = control.read_u32().await?;
    let mut text = vec![0; length as usize];
    control.read_exact(&mut text).await?;
    Ok(serde_json::from_slice(&text)?)
}

fn exit_code(status: std::process::ExitStatus) -> u8 {
    let signal = status.signal().and_then(|signal| u8::try_from(signal).ok());
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.or(signal.map(|signal| signal.saturating_add(128)))
        .unwrap_or(255)
}

/// Passes connections of a port on to the uplink.
async fn pass_on(listener: TcpListener, uplink: PathBuf, kind: u8) {
    loop {
        let Ok((app, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let uplink = uplink.clone();
        tokio::spawn(async move {
            let Ok(mut outside) = UnixStream::connect(uplink).await else {
                return;
            };
            drop(app.set_nodelay(true));
            if outside.write_all(&[kind]).await.is_ok() {
                join(outside, app).await;
            }
        });
    }
}

/// Copies both ways until both have ended.
async fn join(mut outside: UnixStream, mut app: TcpStream) {
    // An error ends the connection, which both sides notice.
    drop(copy_bidirectional(&mut outside, &mut app).await);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_is_connected_with_itself_is_no_app() {
        // Even: of those for outgoing connections the kernel takes the even ones first.
        let mut port = 40_000;
        while std::net::TcpListener::bind(("127.0.0.1", port)).is_err() {
            port += 2;
        }
        // The kernel tries each of its ports in this many attempts.
        for _ in 0..40_000 {
            assert!(connect_to_app(port).await.is_err());
        }
    }
}
