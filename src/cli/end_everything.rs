//! `valetkey end-everything`: the emergency brake.

use super::Common;
use crate::server::{clock::SystemClock, installation};
use std::{sync::Arc, time::Duration};

/// How long the command waits for providers.
const PATIENCE: Duration = Duration::from_secs(60);

// Arguments of `valetkey end-everything`.
#[derive(clap::Args)]
pub struct EndEverything {
    /// Does it. Without this, the command only says what it would do.
    #[arg(long)]
    yes: bool,
    /// Why, for the audit log.
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    common: Common,
}

/// Runs the command. The error is a sentence for the user.
pub async fn run(arguments: EndEverything) -> Result<(), String> {
    let settings = arguments.common.settings()?;
    let services = installation::open_existing(settings, Arc::new(SystemClock)).await?;
    if !arguments.yes {
        return Err("this signs everybody out, deletes all API keys and one-time links, and ends every connection to every provider: viewers are asked again, programs need new keys. Settings, content and people stay. Run it with --yes. Nothing was changed.".into());
    }
    let ended = services
        .emergency
        .end_everything(&arguments.reason)
        .await
        .map_err(|error| error.to_string())?;
    println!(
        "Ended {} browser session(s), {} API key(s) and {} connection(s).",
        ended.sessions, ended.keys, ended.connections
    );
    if ended.failed > 0 {
        return Err(format!(
            "the connections of {} integration(s) could not be ended: the log says why. Run it once more",
            ended.failed
        ));
    }
    let told = tokio::time::timeout(PATIENCE, services.emergency.wait_for_providers()).await;
    println!(
        "Providers that can be told {}. The servers go on telling those that did not answer.",
        if told.is_ok() {
            "were asked"
        } else {
            "are being asked"
        }
    );
    println!(
        "If the data folder or the database may have been read, also run: valetkey keys add, keys rotate, keys rotate-root; and replace the client secrets at the providers."
    );
    Ok(())
}
