//! `valetkey admin create NAME` and `valetkey admin link NAME`: accounts, managed by someone with
//! access to the machine. Works beside a running server.

use super::Common;
use crate::{
    config::read_secret_line,
    domain::{audit::Origin, person::Role},
    server::{clock::SystemClock, installation},
    service::{Actor, Error, people::accounts::PersonInput},
};
use clap::Subcommand;
use secrecy::ExposeSecret as _;
use std::sync::Arc;

// Arguments of `valetkey admin`.
#[derive(Subcommand)]
pub enum Admin {
    /// Creates an administrator. Works while the server runs.
    Create {
        /// User name.
        name: String,
        /// Reads the password from standard input (one line).
        #[arg(long, required = true)]
        password_stdin: bool,
        /// Also makes an API key and prints it, alone, on standard output.
        #[arg(long)]
        api_key: bool,
        /// E-mail address, as the identity provider knows this person.
        #[arg(long)]
        email: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Prints a one-time link for setting a password and signing in: for a forgotten password, or
    /// when the organisation's sign-in fails. Works while the server runs, and while passwords are
    /// disabled.
    Link {
        /// User name.
        name: String,
        #[command(flatten)]
        common: Common,
    },
}

/// Runs the command. The error is a sentence for the user.
pub async fn run(command: Admin) -> Result<(), String> {
    let (name, api_key, email, common) = match command {
        Admin::Create {
            name,
            password_stdin: _,
            api_key,
            email,
            common,
        } => (name, api_key, email, common),
        Admin::Link { name, common } => return link(&name, &common).await,
    };
    let service = installation::open(common.settings()?, Arc::new(SystemClock)).await?;
    let password =
        read_secret_line().map_err(|error| format!("cannot read the password: {error}"))?;
    let input = PersonInput {
        username: Some(name),
        email,
        role: Some(Role::Administrator),
        password: Some(password),
        ..PersonInput::default()
    };
    let person = service
        .people
        .insert_person(input, None)
        .await
        .map_err(explain)?;
    eprintln!("Created administrator {}.", person.username);
    if api_key {
        let origin = Origin {
            address: "command line".into(),
            correlation: String::new(),
        };
        let actor = Actor {
            role: person.role,
            person,
            session: None,
            origin,
        };
        let (_, secret) = service
            .api_keys
            .create_key(&actor, "made on the command line", None, None)
            .await
            .map_err(explain)?;
        println!("{}", secret.expose_secret());
    }
    Ok(())
}

async fn link(name: &str, common: &Common) -> Result<(), String> {
    let service = installation::open_existing(common.settings()?, Arc::new(SystemClock)).await?;
    let token = service
        .invitations
        .invite_from_command_line(name)
        .await
        .map_err(|error| match error {
            Error::NotFound => format!("nobody has the user name {name}"),
            other => explain(other),
        })?;
    eprintln!("Works once, for a day:");
    println!(
        "{}",
        service
            .core
            .addresses
            .absolute(&format!("/setup/{}", token.expose_secret()))
    );
    Ok(())
}

fn explain(error: Error) -> String {
    match error {
        Error::Invalid(problems) => problems
            .iter()
            .map(|problem| format!("{}: {}", problem.key, problem.message))
            .collect::<Vec<_>>()
            .join("\n"),
        other => other.to_string(),
    }
}
