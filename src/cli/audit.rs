//! `valetkey audit verify`: checks the seals of the audit log.

use super::Common;
use crate::{
    server::{clock::SystemClock, installation},
    store::audit::SealStatus,
};
use clap::Subcommand;
use std::sync::Arc;

// Arguments of `valetkey audit`.
#[derive(Subcommand)]
pub enum Audit {
    /// Recomputes the seals of the audit log, and reports a block of which a line was changed or
    /// removed.
    Verify {
        #[command(flatten)]
        common: Common,
    },
}

/// Runs the command. A broken seal is an error.
pub async fn run(command: Audit) -> Result<(), String> {
    let Audit::Verify { common } = command;
    let service = installation::open_existing(common.settings()?, Arc::new(SystemClock)).await?;
    match service
        .audit
        .verify_audit_log()
        .await
        .map_err(|error| error.to_string())?
    {
        SealStatus::Intact { sealed, unsealed } => {
            println!("The record is whole: {sealed} line(s) sealed, {unsealed} not sealed yet.");
            Ok(())
        }
        SealStatus::Broken { block, first, last } => Err(format!(
            "the record was changed: line {first} to {last} (block {block}) are not what was written, or one is missing. The blocks before are as they were."
        )),
    }
}
