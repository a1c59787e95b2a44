//! `valetkey config`: prints every setting with its value in effect and where it came from.

use super::{Common, environment};
use crate::config::{
    Settings,
    declared::{self, Setting},
    reader::Given,
};
use std::io::Write as _;

// Arguments of `valetkey config`.
#[derive(clap::Args)]
pub struct Config {
    #[command(flatten)]
    common: Common,
    /// Prints the handbook's page of all settings instead.
    #[arg(long)]
    markdown: bool,
}

/// Prints the settings; an invalid one is an error, as for the server.
pub fn run(arguments: &Config) -> Result<(), String> {
    if arguments.markdown {
        print!("{}", declared::handbook());
        return Ok(());
    }
    let explain = |problem: crate::config::SettingsError| problem.to_string();
    let given = Given::read(arguments.common.config.as_deref(), &environment()).map_err(explain)?;
    let settings = Settings::check(&given).map_err(explain)?;
    let mut out = String::new();
    for section in declared::SECTIONS {
        out.push_str(&format!("# {}\n", section.title));
        for setting in section.settings {
            let value = given
                .shown(setting.name)
                .unwrap_or_else(|| default(setting, &settings));
            let line = format!("{} = {value}", setting.name);
            out.push_str(&format!("{line:<60} # {}\n", given.origin(setting.name)));
        }
        out.push('\n');
    }
    // A reader such as `head` may close the pipe.
    let _ = std::io::stdout().write_all(out.as_bytes());
    Ok(())
}

/// The default in effect; computed where it depends on something else.
fn default(setting: &Setting, settings: &Settings) -> String {
    match setting.name {
        "public_url" => settings.base().to_owned(),
        "keyring_file" => settings.data_dir.join("keyring").display().to_string(),
        "workers" => settings.workers.to_string(),
        "sign_in_name" => settings
            .sign_in
            .as_ref()
            .map_or_else(|| "(none)".to_owned(), |sign_in| sign_in.name.clone()),
        _ => setting.default.to_owned(),
    }
}
