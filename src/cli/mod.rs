//! The command line: one file a command.

mod admin;
mod audit;
mod demo;
mod serve;

use crate::config::Settings;
use clap::{Parser, Subcommand};
use std::{path::PathBuf, process::ExitCode};

/// Lets the data apps a team hosts act at outside services as the person looking at them.
#[derive(Parser)]
#[command(name = "valetkey", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the portal.
    Serve(Common),
    /// Runs the portal with an identity provider, a workspace and an app to try it with. Keeps nothing.
    Demo(demo::Demo),
    /// Manages accounts from the machine itself.
    #[command(subcommand)]
    Admin(admin::Admin),
    /// Checks the record.
    #[command(subcommand)]
    Audit(audit::Audit),
}

#[derive(clap::Args)]
struct Common {
    /// Settings file (TOML). The environment (VALETKEY_…) wins over it.
    #[arg(long, env = "VALETKEY_CONFIG")]
    config: Option<PathBuf>,
}

impl Common {
    fn settings(&self) -> Result<Settings, String> {
        let settings = Settings::load(self.config.as_deref(), &|name| std::env::var(name).ok()).map_err(|problem| problem.to_string())?;
        crate::telemetry::start(&settings.log, settings.log_format);
        Ok(settings)
    }
}

pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // The only TLS provider in this program; a second call would find it there.
    drop(rustls::crypto::ring::default_provider().install_default());
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.to_string()),
    };
    let result = runtime.block_on(async {
        match arguments.command {
            Command::Serve(common) => serve::run(common.settings()?).await,
            Command::Demo(demo) => demo::run(demo).await,
            Command::Admin(admin) => admin::run(admin).await,
            Command::Audit(audit) => audit::run(audit).await,
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => fail(&why),
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
        let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) else { return };
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
    }
    #[cfg(not(unix))]
    drop(tokio::signal::ctrl_c().await);
}

/// Stops a server at the first signal; the second one ends the process at once.
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
