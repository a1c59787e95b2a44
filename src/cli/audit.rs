//! `valetkey audit verify`: checks the hash chain of the audit log.

use super::Common;
use crate::{
    server::{clock::SystemClock, installation},
    store::audit::ChainStatus,
};
use clap::Subcommand;
use std::sync::Arc;

// Arguments of `valetkey audit`.
#[derive(Subcommand)]
pub enum Audit {
    /// Recomputes the hash chain of the audit log, and reports a line that was changed, removed or
    /// cut off.
    Verify {
        #[command(flatten)]
        common: Common,
    },
}

/// Runs the command. A broken chain is an error.
pub async fn run(command: Audit) -> Result<(), String> {
    let Audit::Verify { common } = command;
    let service = installation::open(common.settings()?, Arc::new(SystemClock)).await?;
    match service
        .audit
        .verify_audit_log()
        .await
        .map_err(|error| error.to_string())?
    {
        ChainStatus::Intact { records } => {
            println!("The record is whole: {records} line(s) in the chain.");
            Ok(())
        }
        ChainStatus::Broken { number } => Err(format!(
            "the record was changed: line {number} is not what was written, or is missing. Lines before it are as they were."
        )),
    }
}
