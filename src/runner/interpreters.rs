//! The Python interpreters of this machine: which one an app gets.

use serde::Deserialize;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::process::Command;

/// An installed interpreter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interpreter {
    /// Such as `3.11.7`.
    pub version: String,
    /// The program, links resolved.
    pub program: PathBuf,
    /// The folder that it needs: its library and itself.
    pub prefix: PathBuf,
}

impl Interpreter {
    /// Major and minor version.
    fn minor(&self) -> (u32, u32) {
        minor_of(&self.version)
    }

    /// Such as `3.11`: what compiled files are good for.
    pub fn short_version(&self) -> String {
        let (major, minor) = self.minor();
        format!("{major}.{minor}")
    }
}

fn minor_of(version: &str) -> (u32, u32) {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// Time for one interpreter to say what it is.
const ASK_TIMEOUT: Duration = Duration::from_secs(20);

/// Finds interpreters: those of the setting, else those that uv finds.
pub async fn find(listed: &[PathBuf], uv: &Path) -> Vec<Interpreter> {
    let candidates = if listed.is_empty() {
        from_uv(uv).await
    } else {
        listed.to_vec()
    };
    let mut found: Vec<Interpreter> = Vec::new();
    for program in candidates {
        if let Some(interpreter) = ask(&program).await
            && !found
                .iter()
                .any(|known| known.version == interpreter.version)
        {
            found.push(interpreter);
        }
    }
    found.sort_by_key(|interpreter| std::cmp::Reverse(interpreter.minor()));
    found
}

/// The programs that `uv python list` names.
async fn from_uv(uv: &Path) -> Vec<PathBuf> {
    #[derive(Deserialize)]
    struct Listed {
        path: Option<PathBuf>,
    }
    let mut command = Command::new(uv);
    command.args([
        "python",
        "list",
        "--only-installed",
        "--no-python-downloads",
        "--output-format",
        "json",
    ]);
    let Ok(Ok(output)) =
        tokio::time::timeout(ASK_TIMEOUT, command.kill_on_drop(true).output()).await
    else {
        return Vec::new();
    };
    let listed: Vec<Listed> = serde_json::from_slice(&output.stdout).unwrap_or_default();
    listed.into_iter().filter_map(|entry| entry.path).collect()
}

/// What an interpreter says of itself; `None` if it does not work.
async fn ask(program: &Path) -> Option<Interpreter> {
    const QUESTION: &str = "import os, sys, venv; print('%d.%d.%d' % sys.version_info[:3]); print(os.path.realpath(sys.executable)); print(os.path.realpath(sys.base_prefix))";
    let mut command = Command::new(program);
    command.args(["-I", "-c", QUESTION]).kill_on_drop(true);
    let output = tokio::time::timeout(ASK_TIMEOUT, command.output())
        .await
        .ok()?
        .ok()?;
    let said = String::from_utf8(output.stdout).ok()?;
    let mut lines = said.lines();
    Some(Interpreter {
        version: lines.next()?.to_owned(),
        program: lines.next()?.into(),
        prefix: lines.next()?.into(),
    })
}

/// The interpreter for an app, and a sentence if it is another one than asked for. `wanted`: the
/// version of the manifest; `requires`: a range (PEP 440), which is stronger. The error is a
/// sentence for the publisher.
pub fn choose<'a>(
    installed: &'a [Interpreter],
    wanted: Option<&str>,
    requires: Option<&str>,
) -> Result<(&'a Interpreter, Option<String>), String> {
    let versions: Vec<&str> = installed.iter().map(|one| one.version.as_str()).collect();
    let versions = versions.join(", ");
    if installed.is_empty() {
        return Err(
            "No Python is installed on the portal's machine. The operator has to install one."
                .into(),
        );
    }
    let allowed: Vec<&Interpreter> = installed
        .iter()
        .filter(|one| requires.is_none_or(|range| is_in_range(&one.version, range)))
        .collect();
    if allowed.is_empty() {
        return Err(format!(
            "The app requires Python {}, and the portal has {versions}. Change the range (environment.python.requires in manifest.json), or ask the operator to install that version.",
            requires.unwrap_or_default()
        ));
    }
    let newest = |all: Vec<&'a Interpreter>| all.into_iter().max_by_key(|one| one.minor());
    let Some(wanted) = wanted.filter(|text| !text.is_empty()) else {
        let chosen = newest(allowed).ok_or("no interpreter")?;
        return Ok((chosen, None));
    };
    if let Some(exact) = allowed.iter().find(|one| one.version == wanted) {
        return Ok((exact, None));
    }
    if let Some(same) = allowed.iter().find(|one| one.minor() == minor_of(wanted)) {
        return Ok((
            same,
            Some(format!(
                "Python {wanted} is not installed; using {}, which differs in the last number only.",
                same.version
            )),
        ));
    }
    // The nearest, a newer one before an older one.
    let (major, minor) = minor_of(wanted);
    let distance = |one: &&Interpreter| {
        let (own_major, own_minor) = one.minor();
        (
            own_major.abs_diff(major),
            own_minor.abs_diff(minor),
            own_minor < minor,
        )
    };
    let nearest = allowed
        .into_iter()
        .min_by_key(distance)
        .ok_or("no interpreter")?;
    Ok((
        nearest,
        Some(format!(
            "Python {wanted} is not installed (installed: {versions}); using {}, the nearest.",
            nearest.version
        )),
    ))
}

/// Whether a version is in a range of comma-separated clauses: `>=3.9`, `<3.13`, `==3.11.*`,
/// `~=3.10`, `!=3.9.7` (PEP 440). A clause that cannot be read excludes nothing.
fn is_in_range(version: &str, range: &str) -> bool {
    let numbers = |text: &str| -> Vec<u32> {
        text.trim()
            .trim_end_matches(".*")
            .split('.')
            .map_while(|part| part.parse().ok())
            .collect()
    };
    let own = numbers(version);
    range
        .split(',')
        .map(str::trim)
        .filter(|clause| !clause.is_empty())
        .all(|clause| {
            let at = clause
                .find(|letter: char| letter.is_ascii_digit())
                .unwrap_or(clause.len());
            let (operator, text) = clause.split_at(at);
            let other = numbers(text);
            let shortened: Vec<u32> = own.iter().copied().take(other.len()).collect();
            let padded = |mut list: Vec<u32>| {
                list.resize(4, 0);
                list
            };
            let (left, right) = (padded(own.clone()), padded(other.clone()));
            match operator.trim() {
                ">=" => left >= right,
                ">" => left > right,
                "<=" => left <= right || shortened == other,
                "<" => left < right,
                "==" | "===" | "" => shortened == other,
                "!=" => shortened != other,
                "~=" => {
                    left >= right
                        && own.get(..other.len().saturating_sub(1))
                            == other.get(..other.len().saturating_sub(1))
                }
                _ => true,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installed() -> Vec<Interpreter> {
        ["3.13.0", "3.11.7", "3.9.18"]
            .map(|version| Interpreter {
                version: version.into(),
                program: "/usr/bin/python3".into(),
                prefix: "/usr".into(),
            })
            .to_vec()
    }

    #[test]
    fn the_nearest_permitted_interpreter_is_chosen_and_said() {
        let all = installed();
        let choice = |wanted, requires| {
            let (one, note) = choose(&all, wanted, requires).unwrap();
            (one.version.clone(), note.is_some())
        };
        assert_eq!(choice(Some("3.11.7"), None), ("3.11.7".into(), false));
        assert_eq!(choice(Some("3.11.2"), None), ("3.11.7".into(), true));
        assert_eq!(choice(Some("3.12.1"), None), ("3.13.0".into(), true));
        assert_eq!(
            choice(Some("3.12.1"), Some("<3.13")),
            ("3.11.7".into(), true)
        );
        assert_eq!(choice(None, None), ("3.13.0".into(), false));
        assert_eq!(choice(None, Some("~=3.9.0")), ("3.9.18".into(), false));
        assert!(
            choose(&all, None, Some(">=3.14"))
                .unwrap_err()
                .contains("3.13.0, 3.11.7")
        );
        assert!(choose(&[], None, None).is_err());
    }

    #[test]
    fn ranges_are_compared_by_number() {
        for (version, range, expected) in [
            ("3.11.7", ">=3.9,<3.12", true),
            ("3.9.18", ">=3.10", false),
            ("3.11.7", "==3.11.*", true),
            ("3.11.7", "!=3.11.7", false),
            ("3.11.7", "~=3.10", true),
            ("3.11.7", "<=3.11", true),
            ("3.12.0", "<=3.11", false),
            ("3.11.7", "", true),
        ] {
            assert_eq!(is_in_range(version, range), expected, "{version} {range}");
        }
    }
}
