//! `valetkey files`: prints what belongs around the program — a unit for systemd, proxies, alerts, a
//! dashboard, containers — and makes the manual pages and shell completions from the command line's own
//! declarations. The files themselves are in `templates/operation`.

use clap::CommandFactory as _;
use clap_complete::Shell;
use std::{fs, path::Path};

// Arguments of `valetkey files`.
#[derive(clap::Args)]
pub struct Files {
    /// The file to print; without a name, all are listed.
    name: Option<String>,
    /// Writes all of them into this folder, with manual pages (man/) and shell completions
    /// (completions/).
    #[arg(long, value_name = "FOLDER", conflicts_with = "name")]
    into: Option<std::path::PathBuf>,
}

/// A file: its name, its text, and what it is for.
struct File {
    name: &'static str,
    text: &'static str,
    purpose: &'static str,
}

macro_rules! file {
    ($name:literal, $purpose:literal) => {
        File {
            name: $name,
            text: include_str!(concat!("../../templates/operation/", $name)),
            purpose: $purpose,
        }
    };
}

static FILES: &[File] = &[
    file!("valetkey.toml", "settings to begin with"),
    file!("valetkey.service", "a unit for systemd"),
    file!("nginx.conf", "nginx in front of the portal"),
    file!("Caddyfile", "Caddy in front of the portal"),
    file!("traefik.yml", "Traefik in front of the portal"),
    file!("Containerfile", "an image"),
    file!(
        "dockerignore",
        "what stays out of the image's build, as .dockerignore"
    ),
    file!("compose.yml", "portal, PostgreSQL and Caddy in containers"),
    file!("alerts.yml", "alert rules for Prometheus"),
    file!("dashboard.json", "a dashboard for Grafana"),
];

/// Runs the command. The error is a sentence for the user.
pub fn run(arguments: &Files) -> Result<(), String> {
    if let Some(folder) = &arguments.into {
        return write_all(folder).map_err(|error| format!("{}: {error}", folder.display()));
    }
    match &arguments.name {
        None => {
            for file in FILES {
                println!("{:<18} {}", file.name, file.purpose);
            }
        }
        Some(name) => {
            let found = FILES.iter().find(|file| file.name == name);
            let file = found
                .ok_or_else(|| format!("there is no file {name}: `valetkey files` lists them"))?;
            print!("{}", file.text);
        }
    }
    Ok(())
}

fn write_all(folder: &Path) -> std::io::Result<()> {
    let (manual, completions) = (folder.join("man"), folder.join("completions"));
    fs::create_dir_all(&manual)?;
    fs::create_dir_all(&completions)?;
    for file in FILES {
        fs::write(folder.join(file.name), file.text)?;
    }
    let mut command = super::Arguments::command();
    clap_mangen::generate_to(command.clone(), &manual)?;
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        clap_complete::generate_to(shell, &mut command, "valetkey", &completions)?;
    }
    Ok(())
}
