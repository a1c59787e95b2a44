//! What this machine has: settings, files, keyring, database, nodes, providers, and what runs apps.

use super::{Report, outside};
use crate::{
    cli::{Common, environment},
    config::{Settings, run::Confinement},
    domain::check::Finding,
    server::{clock::SystemClock, installation},
    service::{
        Services,
        cluster::{health::Word, node},
    },
    store::short_lived::Node,
    vault::keyring::Source,
};
use std::{path::Path, process::Stdio, sync::Arc, time::Duration};
use tokio::process::Command;

const OPERATOR: &str = "Operator";
const SETTINGS: &str = "Settings";
const PROVIDERS: &str = "Providers";
/// A backup may be so old, in hours.
const BACKUP_HOURS: u64 = 48;

/// Looks at everything; stops where nothing further can be known.
pub async fn look(report: &mut Report, common: &Common) {
    let settings = match Settings::load(common.config.as_deref(), &environment()) {
        Ok(settings) => settings,
        Err(problem) => {
            let fix = "The command valetkey config lists all settings and where each came from.";
            let found = Finding::bad("settings", format!("{problem}."), fix);
            return report.add("settings", SETTINGS, found);
        }
    };
    let from = common.config.as_ref().map_or_else(
        || "the environment only".to_owned(),
        |path| format!("{} and the environment", path.display()),
    );
    let text = format!("Read from {from}; every name is known.");
    report.add("settings", SETTINGS, Finding::good("settings", text));
    let folder = &settings.data_dir;
    look_at_mode(report, "folder of the data", "data_dir", folder);
    if let Source::File(path) = &settings.keyring {
        look_at_mode(report, "keyring", "keyring_file", path);
    }
    let opened = installation::open_existing(settings.clone(), Arc::new(SystemClock)).await;
    match opened {
        Ok(services) => {
            let text = "It opens, is of this version, and the keyring fits it.";
            report.add("database", OPERATOR, Finding::good("database", text));
            look_at_installation(report, &services).await;
        }
        Err(sentence) => {
            let mut letters = sentence.chars();
            let first = letters
                .next()
                .map(|letter| letter.to_uppercase().to_string());
            let text = format!("{}{}", first.unwrap_or_default(), letters.as_str());
            let fix = "Nothing behind the database was looked at.";
            report.add("database", OPERATOR, Finding::bad("database", text, fix));
        }
    }
    look_at_runner(report, &settings).await;
}

/// Whether only the portal's own user reads a file or folder.
fn look_at_mode(report: &mut Report, at: &str, setting: &str, path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let shown = path.display();
    let found = match std::fs::metadata(path) {
        Err(error) => Finding::bad(
            "missing",
            format!("{shown} cannot be read: {error}."),
            "Run this command as the portal's user, with the server's settings.",
        ),
        Ok(data) if data.permissions().mode() & 0o077 != 0 => Finding::warning(
            "open_to_others",
            format!("Other users of this machine can open {shown}."),
            format!("chmod go= {shown}"),
        ),
        Ok(_) => Finding::good("mode", format!("{shown}, for its owner only.")),
    };
    report.add(at, OPERATOR, found.of(setting));
}

/// Whether the identity in this data directory is in use, but not from here.
fn duplicate_identity(data_dir: &Path, running: &[Node]) -> Option<Finding> {
    let own = node::identity(data_dir)?;
    let runs = |seen: &Node| seen.node.split_once('/').is_some_and(|(id, _)| id == own);
    let is_elsewhere = running.iter().any(runs) && !node::is_served(data_dir).unwrap_or(true);
    Some(if is_elsewhere {
        Finding::warning(
            "duplicate_identity",
            "A server with the identity of this data directory runs, but not from this directory: one of the two is a copy. (Or it ended less than 35 seconds ago.) A server that starts here takes a new identity.",
            "Give each node a data directory of its own, and copy none.",
        )
    } else {
        Finding::good(
            "identity",
            "No other server has this data directory's identity.",
        )
    })
}

async fn look_at_installation(report: &mut Report, services: &Services) {
    for (name, word) in services.health.report().await {
        // The others are states of a running server; its own readiness is asked for below.
        let (at, fix) = match name {
            "clock" => (
                "clock",
                "Set this machine's clock, or the database's, by NTP.",
            ),
            "disk" => ("disk", "Make room: without it nothing is stored."),
            _ => continue,
        };
        let found = match word {
            Word::Ok => Finding::good(name, "As it should be."),
            Word::Odd(word) => Finding::warning(name, format!("It is {word}."), fix),
            Word::Bad(word) => Finding::bad(name, format!("It is {word}."), fix),
        };
        report.add(at, OPERATOR, found);
    }
    let nodes = match services.nodes.nodes().await {
        Ok(nodes) if !nodes.is_empty() => {
            if let Some(found) = duplicate_identity(&services.core.settings.data_dir, &nodes) {
                report.add("identity", OPERATOR, found.of("data_dir"));
            }
            Finding::good("nodes", format!("{} run(s) on this database.", nodes.len()))
        }
        Ok(_) => Finding::warning(
            "no_node",
            "None has shown itself in the last 35 seconds.",
            "Start the server: valetkey serve.",
        ),
        Err(error) => Finding::bad("nodes", format!("{error}."), "Look at the database."),
    };
    report.add("servers", OPERATOR, nodes);
    look_at_backup(report, services).await;
    outside::look(report, services).await;
    look_at_receivers(report, services).await;
    match services.checks.look_at_all().await {
        Ok(all) => {
            for (integration, findings) in all {
                let at = format!("integration “{}”", integration.display_name());
                if integration.paused_at.is_some() {
                    let text = "An administrator has paused it.";
                    report.add(at.clone(), PROVIDERS, Finding::good("paused", text));
                }
                for found in findings {
                    report.add(at.clone(), PROVIDERS, found);
                }
            }
        }
        Err(error) => {
            let found = Finding::bad("integrations", format!("{error}."), "Look at the database.");
            report.add("integrations", PROVIDERS, found);
        }
    }
}

/// How old the last backup is.
async fn look_at_backup(report: &mut Report, services: &Services) {
    let fix = "Call valetkey backup every day, and keep what it writes elsewhere.";
    let found = match services.core.backed_up_at().await {
        Ok(Some(at)) => {
            let hours = services.core.now().since(at).as_secs() / 3600;
            let text = format!("The last one was written {hours} hour(s) ago.");
            if hours < BACKUP_HOURS {
                Finding::good("backup", text)
            } else {
                Finding::warning("backup", text, fix)
            }
        }
        Ok(None) => Finding::warning("backup", "None was written yet.", fix),
        Err(error) => Finding::bad("backup", format!("{error}."), "Look at the database."),
    };
    report.add("backup", OPERATOR, found);
}

/// The mail server, and how the last call of each webhook ended.
async fn look_at_receivers(report: &mut Report, services: &Services) {
    let found = match services.deliveries.mailer() {
        None => Finding::good("no_mail", "No mail is sent, as the settings say."),
        Some(mailer) => match mailer.check().await {
            Ok(()) => Finding::good("mail", "The mail server takes the connection and the account."),
            Err(why) => Finding::bad(
                "mail",
                format!("The mail server refuses, or cannot be reached: {why}."),
                "Look at smtp_host, smtp_port, smtp_tls and ca_file; and at smtp_user and its password if it refuses those.",
            )
            .of("smtp_host"),
        },
    };
    report.add("mail", OPERATOR, found);
    let calls = match services.deliveries.last_calls().await {
        Ok(calls) => calls,
        Err(error) => {
            let found = Finding::bad("webhook", format!("{error}."), "Look at the database.");
            return report.add("webhooks", OPERATOR, found);
        }
    };
    for (webhook, last) in calls {
        let found = match last {
            None => Finding::good("webhook", "It was not called yet."),
            Some(last) => match last.error {
                None => Finding::good("webhook", "The last call was taken."),
                Some(why) => Finding::bad(
                    "webhook",
                    format!("The last call failed: {why}."),
                    "Its Test on the page Notifications calls it again.",
                ),
            },
        };
        report.add(format!("webhook “{}”", webhook.name), OPERATOR, found);
    }
}

/// Whether deployed content can run here.
async fn look_at_runner(report: &mut Report, settings: &Settings) {
    let run = &settings.run;
    let at = "deployed content";
    if run.confinement == Confinement::Off {
        let found = Finding::good("run_content", "It does not run here, as the settings say.");
        return report.add(at, OPERATOR, found);
    }
    if run.confinement == Confinement::Sandbox {
        let walls = ["--unshare-all", "--ro-bind", "/", "/", "true"];
        let found = match tried(Command::new(&run.bubblewrap).args(walls)).await {
            Ok(_) => Finding::good("sandbox", "Bubblewrap makes a sandbox."),
            Err(why) => Finding::bad(
                "sandbox",
                format!("Bubblewrap makes no sandbox: {why}."),
                "Install bubblewrap, and allow user namespaces (sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns).",
            ),
        };
        report.add(at, OPERATOR, found.of("run_bubblewrap"));
    }
    let found = match tried(Command::new(&run.uv).arg("--version")).await {
        Ok(version) => Finding::good("uv", format!("{} installs packages.", version.trim())),
        Err(why) => Finding::bad("uv", format!("uv does not start: {why}."), "Install uv."),
    };
    report.add(at, OPERATOR, found.of("run_uv"));
}

/// What a command prints, within ten seconds.
async fn tried(command: &mut Command) -> Result<String, String> {
    let command = command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(10), command.output())
        .await
        .map_err(|_| "it does not end".to_owned())?
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(said.lines().next().unwrap_or("no reason given").to_owned())
}
