//! The command line, one file for each command. Commands work on the data directory and database
//! directly, not through a running server.
//!
//! Doc comments on clap types are the help text that users read; notes for readers of the code use
//! `//`.

mod admin;
mod apply;
mod audit;
mod backup;
mod config;
mod demo;
mod dev;
mod doctor;
mod end_everything;
mod files;
mod keys;
mod serve;

use crate::{config::Settings, service::cluster::keyring::Progress};
use clap::{Parser, Subcommand};
use std::{path::PathBuf, process::ExitCode};

/// Lets the data apps a team hosts act at outside services as the person looking at them.
#[derive(Parser)]
#[command(name = "valetkey", version = crate::version::VERSION)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the portal.
    #[command(after_long_help = crate::config::declared::help())]
    Serve(Serve),
    /// Prints the settings in effect and where each came from. Secrets are hidden.
    Config(config::Config),
    /// Runs the portal with an identity provider, a workspace and a sample app to try it out. Keeps
    /// no data.
    Demo(demo::Demo),
    /// Runs the portal in front of an app on this machine, with the demo's identity provider: what
    /// works here works in production.
    Dev(dev::Arguments),
    /// Looks at everything that an installation depends on, and says what to mend. Changes nothing.
    Doctor(doctor::Doctor),
    /// Prints what belongs around the program: a unit for systemd, proxies, containers, alerts, a
    /// dashboard. Writes manual pages and shell completions.
    Files(files::Files),
    /// Brings groups, integrations, lists and content of a portal to the state that a file describes.
    Apply(apply::Apply),
    /// Writes groups, integrations, lists and content of a portal as a file for `apply`.
    Export(apply::Export),
    /// Manages accounts from the machine itself.
    #[command(subcommand)]
    Admin(admin::Admin),
    /// Checks the audit log.
    #[command(subcommand)]
    Audit(audit::Audit),
    /// The emergency brake: signs everybody out, deletes all API keys, ends all connections.
    EndEverything(end_everything::EndEverything),
    /// Manages the keys that seal stored secrets.
    #[command(subcommand)]
    Keys(keys::Keys),
    /// Writes a consistent copy of the database, while servers run.
    Backup(backup::Backup),
    /// Restores a backup into a new database.
    Restore(backup::Restore),
    /// Moves an SQLite installation to PostgreSQL.
    MigrateDatabase(backup::MigrateDatabase),
    // The first program in the sandbox of an app's process: see `runner::inside`.
    #[cfg(target_os = "linux")]
    #[command(hide = true)]
    Inside(crate::runner::inside::Inside),
    // Enters control groups and becomes another program: see `runner::limits`.
    #[cfg(target_os = "linux")]
    #[command(hide = true)]
    Enter(Enter),
}

// Arguments of `valetkey enter`.
#[cfg(target_os = "linux")]
#[derive(clap::Args)]
struct Enter {
    groups: Vec<PathBuf>,
    #[arg(last = true, required = true)]
    command: Vec<std::ffi::OsString>,
}

#[cfg(target_os = "linux")]
impl Enter {
    fn run(&self) -> ExitCode {
        use std::os::unix::process::CommandExt as _;
        if let Err(error) = crate::runner::limits::enter(&self.groups) {
            return fail(&format!("the control group cannot be entered: {error}"));
        }
        let Some((program, arguments)) = self.command.split_first() else {
            return ExitCode::FAILURE;
        };
        // Returns only if it fails.
        let error = std::process::Command::new(program).args(arguments).exec();
        fail(&format!("{} cannot be started: {error}", program.display()))
    }
}

// Arguments of `valetkey serve`: the settings that are typed most often.
#[derive(clap::Args)]
struct Serve {
    #[command(flatten)]
    common: Common,
    /// Address and port to listen on; wins over the settings.
    #[arg(long)]
    listen: Option<String>,
    /// Folder of the data; wins over the settings.
    #[arg(long)]
    data_dir: Option<String>,
    /// What browsers type; wins over the settings.
    #[arg(long)]
    public_url: Option<String>,
}

impl Serve {
    /// The settings, as if those given here stood in the environment.
    fn settings(self) -> Result<Settings, String> {
        let typed = [
            ("VALETKEY_LISTEN", self.listen),
            ("VALETKEY_DATA_DIR", self.data_dir),
            ("VALETKEY_PUBLIC_URL", self.public_url),
        ];
        let mut environment = environment();
        for (name, value) in typed {
            if let Some(value) = value {
                environment.retain(|(known, _)| known != name);
                environment.push((name.to_owned(), value));
            }
        }
        self.common.settings_with(&environment)
    }
}

// Options of every command that opens an installation.
#[derive(clap::Args)]
struct Common {
    /// Settings file (TOML). The environment (VALETKEY_…) wins over it.
    #[arg(long, env = "VALETKEY_CONFIG")]
    config: Option<PathBuf>,
}

impl Common {
    /// Reads the settings and starts logging. The error is a sentence for the user.
    fn settings(&self) -> Result<Settings, String> {
        self.settings_with(&environment())
    }
    fn settings_with(&self, environment: &[(String, String)]) -> Result<Settings, String> {
        let settings = Settings::load(self.config.as_deref(), environment)
            .map_err(|problem| problem.to_string())?;
        let traces = settings.traces.as_ref();
        let traces = traces.map(|traces| (traces, &settings.trust));
        crate::telemetry::start(&settings.log, settings.log_format, traces)?;
        Ok(settings)
    }
}

/// The environment; variables that are not valid Unicode cannot be settings.
fn environment() -> Vec<(String, String)> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}

/// Parses the arguments and runs the command. Errors go to standard error, with exit code 1.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Without the runtime of the others: each process of an app has one of these.
    #[cfg(target_os = "linux")]
    match &arguments.command {
        Command::Inside(inside) => return crate::runner::inside::run(inside),
        Command::Enter(enter) => return enter.run(),
        _ => {}
    }
    // The only TLS provider in this program. It fails only if one is installed already.
    drop(rustls::crypto::ring::default_provider().install_default());
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.to_string()),
    };
    let result = runtime.block_on(async {
        match arguments.command {
            Command::Config(arguments) => config::run(&arguments),
            Command::Serve(arguments) => serve::run(arguments.settings()?).await,
            Command::Demo(demo) => demo::run(demo).await,
            Command::Dev(arguments) => dev::run(arguments).await,
            Command::Doctor(doctor) => doctor::run(doctor).await,
            Command::Apply(arguments) => apply::run(arguments).await,
            Command::Export(arguments) => apply::export(arguments).await,
            Command::Files(arguments) => files::run(&arguments),
            Command::Admin(admin) => admin::run(admin).await,
            Command::Audit(audit) => audit::run(audit).await,
            Command::EndEverything(arguments) => end_everything::run(arguments).await,
            Command::Keys(keys) => keys::run(keys).await,
            Command::Backup(arguments) => backup::backup(arguments).await,
            Command::Restore(arguments) => backup::restore(arguments).await,
            Command::MigrateDatabase(arguments) => backup::migrate_database(arguments).await,
            #[cfg(target_os = "linux")]
            Command::Inside(_) | Command::Enter(_) => Ok(()),
        }
    });
    crate::traces::shutdown();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => fail(&why),
    }
}

/// A progress bar on a terminal; elsewhere one line of output for every tenth.
struct Bar {
    bar: indicatif::ProgressBar,
    what: &'static str,
    last_tenth: std::cell::Cell<u64>,
}

/// A bar labelled `what`, whose total is not known yet.
fn progress(what: &'static str) -> Bar {
    let bar = indicatif::ProgressBar::new(0);
    let style = indicatif::ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}");
    bar.set_style(style.unwrap_or_else(|_| indicatif::ProgressStyle::default_bar()));
    bar.set_message(what);
    Bar {
        bar,
        what,
        last_tenth: std::cell::Cell::new(0),
    }
}

impl Bar {
    fn step(&self, step: Progress) {
        match step {
            Progress::Total(total) => self.bar.set_length(total),
            Progress::Done(more) => self.bar.inc(more),
        }
        let (position, length) = (self.bar.position(), self.bar.length().unwrap_or(0));
        let tenth = (position * 10).checked_div(length).unwrap_or(0);
        if self.bar.is_hidden() && tenth > self.last_tenth.get() {
            self.last_tenth.set(tenth);
            eprintln!("{}: {position} of {length}", self.what);
        }
    }
    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

fn fail(why: &str) -> ExitCode {
    eprintln!("valetkey: {why}");
    ExitCode::FAILURE
}

/// Waits for Ctrl-C or SIGTERM.
async fn stop_signal() {
    #[cfg(unix)]
    {
        let Ok(mut terminate) =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        else {
            return;
        };
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
    }
    #[cfg(not(unix))]
    drop(tokio::signal::ctrl_c().await);
}

/// Stops a server gracefully at the first signal; a second signal ends the process at once (exit
/// code 130).
fn stop_on_signal(handle: actix_web::dev::ServerHandle) {
    tokio::spawn(async move {
        stop_signal().await;
        tracing::info!("stopping; requests under way may finish");
        tokio::spawn(async {
            stop_signal().await;
            std::process::exit(130);
        });
        handle.stop(true).await;
    });
}
