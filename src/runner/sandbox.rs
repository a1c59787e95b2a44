//! How a process of deployed content is started: the [`Launcher`], and its implementations on one
//! Linux machine.
//!
//! [`Sandbox`] uses bubblewrap (`bwrap`): namespaces of their own for users, processes, files, IPC,
//! host name and network; nothing of the machine is visible but system libraries, the interpreter
//! and the item's own files, all read-only; no privileges can be gained. Memory and the number of
//! processes are limited by cgroups where the portal may make some ([`super::limits`]), else by
//! resource limits. [`Unconfined`] starts ordinary processes, for development.
//!
//! A second implementation (containers through the Docker API, Kubernetes) must provide:
//!
//! - a process that ends with the portal, at the latest when the portal starts again;
//! - the files of a [`Spec`], read-only, at the paths that [`Launcher::place`] told before;
//! - no network but the uplink ([`super::uplink`]): one connection to the portal for each purpose;
//! - a socket or address at which only the portal reaches the app;
//! - standard output and error as streams, the exit code, and the end of the whole process tree when
//!   [`Launched`] is dropped;
//! - the limits of the [`Spec`].

use super::limits::{Cgroup, Cgroups};
use crate::domain::bundle::Isolation;
use std::{
    ffi::OsString,
    fs, io,
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::process::{Child, Command};

/// The port on which an app listens in its sandbox. None of those that the kernel gives to outgoing
/// connections (32,768 and above): an app's own connections never take it.
const APP_PORT: u16 = 29_000;
/// The port of the proxy to the outside, in the sandbox.
const EGRESS_PORT: u16 = 29_001;
/// Size of the memory file systems for temporary files, in bytes.
const TEMPORARY_BYTES: u64 = 512 << 20;
/// Largest file that a process writes, in MiB.
const FILE_MIB: u64 = 2048;

/// A process to start. Paths in `command` are those inside: see [`Launcher::place`]. Its variables
/// come by its uplink.
pub struct Spec {
    /// For the names of its cgroup and files.
    pub name: String,
    pub command: Vec<OsString>,
    /// The working directory, inside.
    pub folder: PathBuf,
    /// Files and folders that it sees: outside, inside, and whether it may write them.
    pub mounts: Vec<(PathBuf, PathBuf, bool)>,
    /// The socket file of its uplink.
    pub uplink: PathBuf,
    /// The port on which the app is to listen, as [`Launcher::port`] chose it.
    pub port: u16,
    /// The socket at which the portal reaches the app.
    pub listener: Option<UnixListener>,
    pub memory_mib: u64,
    /// Processes and threads.
    pub tasks: u64,
}

/// A started process. Dropping it kills the whole tree.
pub struct Launched {
    pub child: Child,
    _cgroup: Option<Cgroup>,
}

/// Starts processes.
pub trait Launcher: Send + Sync {
    /// How well processes are kept apart.
    fn isolation(&self) -> Isolation;
    /// By what memory and processes are limited, for people.
    fn limited_by(&self) -> &'static str;
    /// Where a process sees a file or folder of the machine.
    fn place(&self, outside: &Path, inside: &str) -> PathBuf;
    /// The port on which the next app is to listen.
    fn port(&self) -> io::Result<u16>;
    /// Starts a process. Must be called on a thread that lives as long as the process may: Linux
    /// ends it with that thread.
    fn launch(&self, spec: Spec) -> io::Result<Launched>;
    /// The address of the proxy to the outside, inside; `None` if the process connects directly.
    fn proxy(&self) -> Option<String>;
}

/// What both launchers need.
#[derive(Clone, Debug)]
pub struct Machine {
    /// This program, which is also the first one in a sandbox.
    pub program: PathBuf,
    /// Host and port of the portal's public address.
    pub portal: (String, u16),
}

/// Bubblewrap.
pub struct Sandbox {
    pub machine: Machine,
    pub bwrap: PathBuf,
    pub cgroups: Option<Cgroups>,
    /// Folder with the small files of `/etc` that each sandbox sees.
    pub etc: PathBuf,
}

impl Sandbox {
    /// Writes the files of `/etc`, and starts an empty sandbox. The error is a sentence for the
    /// operator.
    pub async fn check(&self) -> Result<(), String> {
        self.write_etc()
            .map_err(|error| format!("{} cannot be written: {error}", self.etc.display()))?;
        let mut command = Command::new(&self.bwrap);
        command
            .args(self.walls())
            .args(["--", "/usr/bin/env", "true"]);
        let output = command.env_clear().stdin(Stdio::null()).output().await.map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                format!("{} is not installed. Install bubblewrap (Debian: apt install bubblewrap), or set run_bubblewrap to its path.", self.bwrap.display())
            } else {
                format!("{} cannot be started: {error}", self.bwrap.display())
            }
        })?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!(
            "bubblewrap cannot make a sandbox on this machine: {}. It needs user namespaces (sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns).",
            said.trim()
        ))
    }

    fn write_etc(&self) -> io::Result<()> {
        fs::create_dir_all(&self.etc)?;
        fs::write(
            self.etc.join("passwd"),
            "app:x:1000:1000:app:/home/app:/bin/sh\nroot:x:0:0:root:/:/bin/sh\n",
        )?;
        fs::write(self.etc.join("group"), "app:x:1000:\nroot:x:0:\n")?;
        fs::write(
            self.etc.join("nsswitch.conf"),
            "passwd: files\ngroup: files\nhosts: files dns\n",
        )?;
        let (host, _) = &self.machine.portal;
        // The portal is reached through the uplink, whatever its name resolves to outside.
        let own = if host.parse::<std::net::IpAddr>().is_ok() || host == "localhost" {
            String::new()
        } else {
            format!("127.0.0.1 {host}\n")
        };
        fs::write(
            self.etc.join("hosts"),
            format!("127.0.0.1 localhost\n::1 localhost\n{own}"),
        )
    }

    /// The arguments that every sandbox has: namespaces, system libraries, an empty home.
    fn walls(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = [
            "--unshare-user",
            "--unshare-pid",
            "--unshare-ipc",
            "--unshare-uts",
            "--unshare-cgroup-try",
            "--disable-userns",
            "--uid",
            "1000",
            "--gid",
            "1000",
            "--hostname",
            "app",
            "--die-with-parent",
            "--new-session",
            "--cap-drop",
            "ALL",
        ]
        .map(OsString::from)
        .to_vec();
        let mut add = |words: &[&str]| arguments.extend(words.iter().map(OsString::from));
        add(&["--unshare-net"]);
        if self.machine.portal.1 < 1024 {
            add(&["--cap-add", "CAP_NET_BIND_SERVICE"]);
        }
        add(&["--ro-bind", "/usr", "/usr"]);
        for name in ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"] {
            match fs::read_link(name) {
                Ok(target) => add(&["--symlink", &target.to_string_lossy(), name]),
                Err(_) => add(&["--ro-bind-try", name, name]),
            }
        }
        for name in [
            // Not what else is in these folders: the machine's private keys.
            "/etc/ssl/certs",
            "/etc/ssl/openssl.cnf",
            "/etc/ca-certificates",
            "/etc/pki/tls/certs",
            "/etc/pki/ca-trust",
            "/etc/ld.so.cache",
            "/etc/ld.so.conf",
            "/etc/ld.so.conf.d",
            "/etc/alternatives",
            "/etc/localtime",
            "/etc/fonts",
            "/etc/mime.types",
        ] {
            add(&["--ro-bind-try", name, name]);
        }
        for name in ["passwd", "group", "nsswitch.conf", "hosts"] {
            add(&[
                "--ro-bind",
                &self.etc.join(name).to_string_lossy(),
                &format!("/etc/{name}"),
            ]);
        }
        let size = TEMPORARY_BYTES.to_string();
        add(&["--proc", "/proc"]);
        // Settings of the kernel, which the machine's root may write in any namespace.
        for name in ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus"] {
            add(&["--ro-bind-try", name, name]);
        }
        add(&["--dev", "/dev"]);
        for folder in ["/dev/shm", "/tmp", "/home"] {
            add(&["--size", &size, "--tmpfs", folder]);
        }
        add(&["--dir", "/home/app"]);
        arguments
    }
}

impl Launcher for Sandbox {
    fn isolation(&self) -> Isolation {
        Isolation::Sandbox
    }
    fn limited_by(&self) -> &'static str {
        if self.cgroups.is_some() {
            "cgroups"
        } else if rustix::process::geteuid().is_root() {
            "resource limits, without a limit on the number of processes: run the portal as another user than root, or let it make cgroups"
        } else {
            "resource limits"
        }
    }
    fn place(&self, _: &Path, inside: &str) -> PathBuf {
        PathBuf::from(inside)
    }
    fn port(&self) -> io::Result<u16> {
        // Each sandbox has ports of its own. The portal's is one of them.
        Ok(if self.machine.portal.1 == APP_PORT {
            APP_PORT + 2
        } else {
            APP_PORT
        })
    }
    fn proxy(&self) -> Option<String> {
        Some(format!("http://127.0.0.1:{EGRESS_PORT}"))
    }

    fn launch(&self, spec: Spec) -> io::Result<Launched> {
        let mut arguments = self.walls();
        for (outside, inside, writable) in &spec.mounts {
            arguments.push(if *writable { "--bind" } else { "--ro-bind" }.into());
            arguments.push(outside.into());
            arguments.push(inside.into());
        }
        let mut bind = |outside: &Path, inside: &str| {
            arguments.extend(["--ro-bind".into(), outside.into(), inside.into()]);
        };
        bind(&self.machine.program, "/run/valetkey/inside");
        bind(&spec.uplink, "/run/valetkey/uplink");
        // What is left of the memory file systems that bubblewrap made.
        for folder in ["/dev", "/"] {
            arguments.extend(["--remount-ro".into(), folder.into()]);
        }
        arguments.extend([
            "--chdir".into(),
            spec.folder.clone().into(),
            "--".into(),
            "/run/valetkey/inside".into(),
            "inside".into(),
        ]);
        let mut inside = Within::new(&spec, self.cgroups.is_none());
        inside.add("--uplink", "/run/valetkey/uplink");
        inside.add("--portal-port", self.machine.portal.1);
        inside.add("--egress-port", EGRESS_PORT);
        if spec.listener.is_some() {
            inside.add("--port", spec.port);
        }
        arguments.extend(inside.finish(&spec.command));
        let cgroup = match &self.cgroups {
            Some(cgroups) => Some(cgroups.create(&spec.name, spec.memory_mib, spec.tasks)?),
            None => None,
        };
        // The program enters its cgroup before it becomes bubblewrap, so that nothing escapes it.
        let mut command = match &cgroup {
            Some(cgroup) => {
                let mut command = Command::new(&self.machine.program);
                command
                    .arg("enter")
                    .args(cgroup.entries())
                    .arg("--")
                    .arg(&self.bwrap);
                command
            }
            None => Command::new(&self.bwrap),
        };
        command.args(arguments);
        start(command, spec, cgroup)
    }
}

/// Ordinary processes of the portal's user.
pub struct Unconfined {
    pub machine: Machine,
}

impl Launcher for Unconfined {
    fn isolation(&self) -> Isolation {
        Isolation::None
    }
    fn limited_by(&self) -> &'static str {
        "resource limits"
    }
    fn place(&self, outside: &Path, _: &str) -> PathBuf {
        outside.to_owned()
    }
    fn port(&self) -> io::Result<u16> {
        Ok(std::net::TcpListener::bind("127.0.0.1:0")?
            .local_addr()?
            .port())
    }
    fn proxy(&self) -> Option<String> {
        None
    }
    fn launch(&self, spec: Spec) -> io::Result<Launched> {
        let mut inside = Within::new(&spec, true);
        inside.flag("--die-with-parent");
        inside.add("--uplink", spec.uplink.as_os_str());
        if spec.listener.is_some() {
            inside.add("--port", spec.port);
        }
        let mut command = Command::new(&self.machine.program);
        command
            .arg("inside")
            .args(inside.finish(&spec.command))
            .current_dir(&spec.folder);
        start(command, spec, None)
    }
}

/// The arguments of `valetkey inside`.
struct Within(Vec<OsString>);

impl Within {
    fn new(spec: &Spec, with_limits: bool) -> Self {
        let mut within = Self(Vec::new());
        if with_limits {
            within.add("--memory-mib", spec.memory_mib);
            within.add("--tasks", spec.tasks);
        }
        within.add("--file-mib", FILE_MIB);
        within
    }
    fn flag(&mut self, name: &str) {
        self.0.push(name.into());
    }
    fn add(&mut self, name: &str, value: impl ToArgument) {
        self.0.push(name.into());
        self.0.push(value.to_argument());
    }
    fn finish(mut self, command: &[OsString]) -> Vec<OsString> {
        self.0.push("--".into());
        self.0.extend(command.iter().cloned());
        self.0
    }
}

trait ToArgument {
    fn to_argument(&self) -> OsString;
}
impl ToArgument for &str {
    fn to_argument(&self) -> OsString {
        self.into()
    }
}
impl ToArgument for &std::ffi::OsStr {
    fn to_argument(&self) -> OsString {
        self.into()
    }
}
impl ToArgument for u16 {
    fn to_argument(&self) -> OsString {
        self.to_string().into()
    }
}
impl ToArgument for u64 {
    fn to_argument(&self) -> OsString {
        self.to_string().into()
    }
}

/// Starts the command with nothing of the portal's environment.
fn start(mut command: Command, spec: Spec, cgroup: Option<Cgroup>) -> io::Result<Launched> {
    command.env_clear();
    let input = match spec.listener {
        Some(listener) => Stdio::from(OwnedFd::from(listener)),
        None => Stdio::null(),
    };
    let child = command
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    Ok(Launched {
        child,
        _cgroup: cgroup,
    })
}
