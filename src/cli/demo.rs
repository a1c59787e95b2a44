//! `valetkey demo`

use crate::{config::LogFormat, demo, domain::person::Role};
use std::{net::SocketAddr, path::PathBuf};

#[derive(clap::Args)]
pub struct Demo {
    /// Prints one JSON line instead of the six lines for people.
    #[arg(long)]
    json: bool,
    /// Where the portal listens; port 0 takes any free one.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Keeps the data here instead of in a folder that is deleted at the end.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Where content runs, as the setting content_url; {port} stands for the portal's port.
    /// Default: the other loopback name.
    #[arg(long)]
    content_url: Option<String>,
    /// Also offers to sign in with the demo's identity provider, as an organisation would (OpenID
    /// Connect).
    #[arg(long)]
    organisation: bool,
}

pub async fn run(arguments: Demo) -> Result<(), String> {
    let filter = std::env::var("VALETKEY_LOG")
        .unwrap_or_else(|_| if arguments.json { "info" } else { "warn" }.into());
    crate::telemetry::start(&filter, LogFormat::Text);
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
        ..demo::Options::default()
    })
    .await;
    let result = match running {
        Ok(running) => {
            if arguments.json {
                println!("{}", running.summary());
            } else {
                println!("{}", running.introduction());
            }
            running.serve(super::stop_on_signal).await
        }
        Err(why) => Err(why),
    };
    if temporary {
        // A folder of ours, made above; what is left of it is only clutter.
        drop(std::fs::remove_dir_all(&data_dir));
    }
    result
}
