//! `valetkey keys …`: lists, adds, rotates, retires and verifies the keys that seal stored secrets.
//! The work is in `service::cluster::keyring`, except for `add`, which only changes the keyring
//! (`vault::keyring`). Sessions and session tokens do not depend on these keys, so
//! rotating or retiring one signs nobody out.

use super::{Common, progress};
use crate::{
    server::{clock::SystemClock, installation},
    vault::keyring::Keyring,
};
use clap::Subcommand;
use secrecy::ExposeSecret as _;
use std::{sync::Arc, time::Instant};

// Arguments of `valetkey keys`.
#[derive(Subcommand)]
pub enum Keys {
    /// Lists the keys of the keyring: which one seals new values, and how many values each has
    /// sealed.
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Adds a new key to the keyring. It opens values from now on, and seals new ones after `keys
    /// rotate`.
    Add {
        #[command(flatten)]
        common: Common,
    },
    /// Seals with the newest key from now on, and re-seals the values of older keys. Servers keep
    /// running. May be interrupted and run again.
    Rotate {
        /// Use this key instead of the newest.
        #[arg(long)]
        to: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Replaces the secret behind cookies and session tokens: signs everybody out. Stop all servers
    /// first.
    RotateRoot {
        #[command(flatten)]
        common: Common,
    },
    /// Removes a key from the keyring. Refuses while values need it.
    Retire {
        id: String,
        #[command(flatten)]
        common: Common,
    },
    /// Opens every sealed value, and reports those that do not open.
    Verify {
        #[command(flatten)]
        common: Common,
    },
}

/// Runs the command. The error is a sentence for the user.
pub async fn run(command: Keys) -> Result<(), String> {
    // Every subcommand has `common`.
    let (Keys::List { common }
    | Keys::Add { common }
    | Keys::Rotate { common, .. }
    | Keys::RotateRoot { common }
    | Keys::Retire { common, .. }
    | Keys::Verify { common }) = &command;
    let services = installation::open_existing(common.settings()?, Arc::new(SystemClock)).await?;
    let explain = |problem: crate::service::cluster::keyring::KeyCommandError| problem.to_string();
    match command {
        Keys::List { .. } => {
            for key in services.keyring.keys_of_ring().await.map_err(explain)? {
                println!(
                    "{}  {} value(s){}",
                    key.id,
                    key.values,
                    if key.seals { "  seals new values" } else { "" }
                );
            }
        }
        Keys::Add { .. } => {
            let added =
                Keyring::add(&services.core.settings.keyring).map_err(|error| error.to_string())?;
            if added.written_to_file {
                println!(
                    "Added the key {} to the keyring. Back the keyring up, put it on every node, then run: valetkey keys rotate",
                    added.id
                );
            } else {
                eprintln!(
                    "Add this line at the end of the keyring on every node, then run: valetkey keys rotate"
                );
                println!("{}", added.line.expose_secret());
            }
        }
        Keys::Rotate { to, .. } => {
            let started = Instant::now();
            let bar = progress("re-sealing");
            let report = services
                .keyring
                .rotate_keys(to, |step| bar.step(step))
                .await
                .map_err(explain)?;
            bar.end();
            println!(
                "Re-sealed {} value(s) in {:.1} s. The key {} seals now.",
                report.resealed,
                started.elapsed().as_secs_f64(),
                services.core.vault.sealing_key_id()
            );
            for line in &report.damaged {
                println!("{line}");
            }
            if !report.damaged.is_empty() {
                return Err(format!(
                    "{} value(s) do not open and were left as they are: their people sign in at the provider again, or an administrator enters the secret again",
                    report.damaged.len()
                ));
            }
        }
        Keys::RotateRoot { .. } => {
            services
                .keyring
                .rotate_session_root()
                .await
                .map_err(explain)?;
            println!(
                "Replaced the secret behind cookies and session tokens. Start the servers: everybody signs in again. The audit log and the journal of endings keep their own."
            );
        }
        Keys::Retire { id, .. } => {
            let removed_from_file = services.keyring.retire_key(&id).await.map_err(explain)?;
            if removed_from_file {
                println!(
                    "Took the key {id} out of the keyring. Backups made before need it: keep a copy with them."
                );
            } else {
                println!(
                    "Nothing needs the key {id} any more. Take its line out of the keyring on every node."
                );
            }
        }
        Keys::Verify { .. } => {
            let bar = progress("opening");
            let verified = services
                .keyring
                .verify_keys(|step| bar.step(step))
                .await
                .map_err(explain)?;
            bar.end();
            for line in &verified.damaged {
                println!("{line}");
            }
            if !verified.damaged.is_empty() {
                return Err(format!(
                    "{} value(s) do not open; {} do",
                    verified.damaged.len(),
                    verified.opened
                ));
            }
            println!("All {} sealed value(s) open.", verified.opened);
        }
    }
    Ok(())
}
