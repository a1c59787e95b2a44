//! `valetkey demo`: the portal with everything needed to try it, in one process; see `crate::demo`.

use crate::{
    config::{LogFormat, run::Run},
    demo,
    domain::person::Role,
};
use std::{net::SocketAddr, path::PathBuf};

// Arguments of `valetkey demo`.
#[derive(clap::Args)]
pub struct Demo {
    /// Prints one JSON line instead of the six lines for people.
    #[arg(long)]
    json: bool,
    /// Where the portal listens; port 0 takes any free one.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Keeps the data in this folder instead of a temporary one that is deleted at the end.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Where content runs, as in the setting content_url; {port} stands for the portal's port.
    /// Default: the other loopback name.
    #[arg(long)]
    content_url: Option<String>,
    /// Also offers sign-in with the demo's identity provider, as for an organisation (OpenID
    /// Connect).
    #[arg(long)]
    organisation: bool,
    /// Also plays other providers than Microsoft's, with an integration of each kind; without --json
    /// it always does.
    #[arg(long)]
    providers: bool,
    /// Where /metrics is served, for Prometheus; nowhere without it.
    #[arg(long)]
    metrics_listen: Option<SocketAddr>,
}

/// Runs until stopped, then deletes the data unless `--data-dir` was given.
pub async fn run(arguments: Demo) -> Result<(), String> {
    let filter = std::env::var("VALETKEY_LOG")
        .unwrap_or_else(|_| if arguments.json { "info" } else { "warn" }.into());
    crate::telemetry::start(&filter, LogFormat::Text, None)?;
    let temporary = arguments.data_dir.is_none();
    let data_dir = arguments.data_dir.unwrap_or_else(|| {
        std::env::temp_dir().join(format!("valetkey-demo-{}", uuid::Uuid::new_v4()))
    });
    let organisation = arguments.organisation.then(|| demo::Organisation {
        default_role: Some(Role::Viewer),
        ..demo::Organisation::default()
    });
    let running = demo::start(demo::Options {
        listen: arguments.listen,
        data_dir: data_dir.clone(),
        content_url: arguments.content_url,
        organisation,
        metrics_listen: arguments.metrics_listen,
        // Scripts mostly add what they need themselves.
        doubles: !arguments.json || arguments.providers,
        run: Run::from_environment(&super::environment()).map_err(|problem| problem.to_string())?,
        ..demo::Options::default()
    })
    .await;
    let result = match running {
        Ok(running) => {
            running.add_doubles().await?;
            if arguments.json {
                println!("{}", running.summary());
            } else {
                println!("{}", running.introduction());
                let deployed = running.deploy_sample();
                tokio::spawn(async move { println!("{}", deployed.await) });
            }
            running.serve(super::stop_on_signal).await
        }
        Err(why) => Err(why),
    };
    if temporary {
        // The temporary folder made above. A failure leaves only clutter, so it is ignored.
        drop(std::fs::remove_dir_all(&data_dir));
    }
    result
}
