//! `valetkey doctor`: looks at everything that an installation depends on, in the order in which one
//! thing needs the other, and prints what it tried, what it found and what to do. It creates, migrates
//! and stores nothing.
//!
//! `here` looks at this machine: settings, files, database, providers, what runs apps. `outside` looks at
//! the public addresses as a browser reaches them.

mod here;
mod outside;

use super::Common;
use crate::domain::check::{Finding, Verdict};
use serde_json::json;

// Arguments of `valetkey doctor`.
#[derive(clap::Args)]
pub struct Doctor {
    #[command(flatten)]
    common: Common,
    /// Prints a JSON array instead.
    #[arg(long)]
    json: bool,
    /// Looks only at the portal at this address, from a machine without its installation.
    #[arg(long, value_name = "URL")]
    as_outsider: Option<url::Url>,
}

/// One line of the report: the place that was looked at, the finding there, and the handbook's page.
struct Looked {
    at: String,
    finding: Finding,
    page: &'static str,
}

/// Everything that was looked at so far. Each is printed at once: some take seconds.
struct Report {
    as_json: bool,
    looked: Vec<Looked>,
}

impl Report {
    fn add(&mut self, at: impl Into<String>, page: &'static str, finding: Finding) {
        let looked = Looked {
            at: at.into(),
            finding,
            page,
        };
        if !self.as_json {
            println!("{}", looked.lines());
        }
        self.looked.push(looked);
    }
}

impl Looked {
    fn lines(&self) -> String {
        let Finding {
            verdict,
            text,
            fix,
            setting,
            ..
        } = &self.finding;
        let sign = match verdict {
            Verdict::Good => '✓',
            Verdict::Warning => '!',
            Verdict::Bad => '✗',
        };
        let mut lines = format!("{sign} {}: {text}", self.at);
        if *verdict != Verdict::Good {
            lines.push_str(&format!("\n    {fix}"));
            if let Some(setting) = setting {
                lines.push_str(&format!(" Setting: {setting}."));
            }
            lines.push_str(&format!(" Handbook: {}.", self.page));
        }
        lines
    }
}

/// Runs the command. Anything that does not work is an error.
pub async fn run(arguments: Doctor) -> Result<(), String> {
    let mut report = Report {
        as_json: arguments.json,
        looked: Vec::new(),
    };
    match &arguments.as_outsider {
        Some(address) => outside::look_as_stranger(&mut report, address).await,
        None => here::look(&mut report, &arguments.common).await,
    }
    let count = |verdict| {
        let found = report.looked.iter();
        found.filter(|one| one.finding.verdict == verdict).count()
    };
    let (bad, odd) = (count(Verdict::Bad), count(Verdict::Warning));
    if report.as_json {
        let all: Vec<_> = report
            .looked
            .iter()
            .map(|one| {
                let mut line = json!(one.finding);
                line["at"] = json!(one.at);
                line["handbook"] = json!(one.page);
                line
            })
            .collect();
        println!("{}", json!(all));
    } else {
        println!(
            "\n{} looked at: {bad} not working, {odd} worth a look.",
            report.looked.len()
        );
    }
    if bad > 0 {
        return Err(format!("{bad} of them do not work"));
    }
    Ok(())
}
