//! `valetkey dev`: the portal in front of an app on a developer's machine, with the demo's identity
//! provider and the same proxy, consent and exchange as in production. Starts the app's command or
//! uses an app that runs already. Keeps no data.

use crate::{
    config::LogFormat,
    demo::{self, Dev},
};
use std::{
    net::{SocketAddr, TcpListener},
    process::Stdio,
    time::Duration,
};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::sleep,
};

/// Environment variables from which frameworks read the port to listen on.
const PORT_VARIABLES: [&str; 6] = [
    "PORT",
    "STREAMLIT_SERVER_PORT",
    "SHINY_PORT",
    "UVICORN_PORT",
    "GRADIO_SERVER_PORT",
    "FLASK_RUN_PORT",
];
/// Deadline for the app to listen on its port.
const START_TIMEOUT: Duration = Duration::from_secs(120);

// Arguments of `valetkey dev`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Address of the running app, such as http://127.0.0.1:8501.
    #[arg(long, required_unless_present = "command", conflicts_with = "command")]
    upstream: Option<String>,
    /// Where the portal listens; port 0 takes any free one.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Sends the app the whole path, including /content/{guid}/.
    #[arg(long)]
    keep_path_prefix: bool,
    /// Prints one JSON line instead of the lines for people.
    #[arg(long)]
    json: bool,
    /// The command that starts the app, after `--`. A free port is passed in PORT and in the
    /// variables of common frameworks; {port} and {guid} in the command are replaced.
    #[arg(last = true)]
    command: Vec<String>,
}

/// Runs until stopped, then deletes the data.
pub async fn run(arguments: Arguments) -> Result<(), String> {
    let filter = std::env::var("VALETKEY_LOG").unwrap_or_else(|_| "warn".into());
    crate::telemetry::start(&filter, LogFormat::Text, None)?;
    let data_dir = std::env::temp_dir().join(format!("valetkey-dev-{}", uuid::Uuid::new_v4()));
    let result = develop(&arguments, data_dir.clone()).await;
    // The temporary folder of this run. A failure leaves only clutter, so it is ignored.
    drop(std::fs::remove_dir_all(data_dir));
    result
}

async fn develop(arguments: &Arguments, data_dir: std::path::PathBuf) -> Result<(), String> {
    let (upstream, port) = match &arguments.upstream {
        Some(upstream) => (upstream.clone(), None),
        None => {
            // The port is free now and released here; another process could take it before the app
            // does.
            let free = TcpListener::bind("127.0.0.1:0")
                .and_then(|listener| listener.local_addr())
                .map_err(|error| error.to_string())?;
            (
                format!("http://127.0.0.1:{}", free.port()),
                Some(free.port()),
            )
        }
    };
    let options = demo::Options {
        listen: arguments.listen,
        data_dir,
        dev: Some(Dev {
            upstream: upstream.clone(),
            keep_prefix: arguments.keep_path_prefix,
        }),
        ..demo::Options::default()
    };
    let running = demo::start(options).await?;
    let environment = running.dev_environment().ok_or("the app has no place")?;
    let _app = match port {
        Some(port) => Some(start(arguments, port, &environment).await?),
        None => None,
    };
    if arguments.json {
        println!("{}", running.summary());
    } else {
        println!("{}", running.dev_introduction(&upstream, port.is_none()));
    }
    running.serve(super::stop_on_signal).await
}

/// Starts the app and waits until it accepts connections. The app is killed when `Child` is
/// dropped.
async fn start(
    arguments: &Arguments,
    port: u16,
    environment: &[(String, String)],
) -> Result<Child, String> {
    let guid = environment
        .iter()
        .find(|(name, _)| name == "CONNECT_CONTENT_GUID")
        .map_or("", |(_, guid)| guid.as_str());
    let words: Vec<String> = arguments
        .command
        .iter()
        .map(|word| {
            word.replace("{port}", &port.to_string())
                .replace("{guid}", guid)
        })
        .collect();
    let [program, rest @ ..] = words.as_slice() else {
        return Err("no command".into());
    };
    let mut command = Command::new(program);
    command
        .args(rest)
        .stdin(Stdio::null())
        .envs(environment.iter().cloned())
        .envs(PORT_VARIABLES.map(|name| (name, port.to_string())));
    command
        .env("STREAMLIT_SERVER_HEADLESS", "true")
        .env("STREAMLIT_BROWSER_GATHER_USAGE_STATS", "false");
    let mut child = command
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("cannot start {program}: {error}"))?;
    let started = std::time::Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            return Err(format!(
                "{program} ended ({status}) before it listened on port {port}"
            ));
        }
        if started.elapsed() > START_TIMEOUT {
            return Err(format!(
                "{program} does not listen on port {port}: put {{port}} into its command where it takes one"
            ));
        }
        sleep(Duration::from_millis(100)).await;
    }
    Ok(child)
}
