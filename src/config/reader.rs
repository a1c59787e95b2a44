//! Reads the settings as given: a TOML file, overridden by the environment. Checks names and types;
//! what values mean together is checked in [`super::Settings`].

use super::{
    SettingsError,
    declared::{self, Kind, Setting},
};
use secrecy::SecretString;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use toml::Value as Toml;

/// Prefix of every environment variable.
const PREFIX: &str = "VALETKEY_";
/// Variables with that prefix which are no settings: the settings file, and for tests
/// (`crate::faults`) the steps at which the process stops and the speed of its time limits.
const OTHER_VARIABLES: [&str; 5] = [
    "VALETKEY_CONFIG",
    "VALETKEY_CRASH_AT",
    "VALETKEY_STOP_AT",
    "VALETKEY_PANIC_AT",
    "VALETKEY_HURRY",
];

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    File(PathBuf),
    /// The variable.
    Environment(String),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Environment(name) => f.write_str(name),
        }
    }
}

/// A value of the right type for its setting.
enum Value {
    Text(String),
    Number(u64),
    Bool(bool),
    List(Vec<String>),
    Secret(SecretString),
}

/// The settings that were given, by name.
#[derive(Default)]
pub struct Given(BTreeMap<&'static str, (Value, Origin)>);

/// Whether Kubernetes sets this variable by itself, in pods beside a service named `valetkey`.
fn is_of_kubernetes(name: &str) -> bool {
    ["SERVICE_HOST", "SERVICE_PORT", "PORT"].iter().any(|word| {
        let rest = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.strip_prefix(word));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
    })
}

impl std::fmt::Debug for Given {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Given")
    }
}

fn error(text: String) -> SettingsError {
    SettingsError(text)
}

/// `did you mean …?`, if a known name is close.
fn suggestion<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let close = known
        .map(|other| (strsim::damerau_levenshtein(name, other), other))
        .min()
        .filter(|(distance, _)| *distance <= 3.max(name.len() / 4));
    close.map_or_else(String::new, |(_, other)| format!(": did you mean {other}?"))
}

impl Given {
    /// Reads `file`, if given, then the variables; the environment wins. An empty variable counts
    /// as not set. The first problem is returned.
    pub fn read(
        file: Option<&Path>,
        variables: &[(String, String)],
    ) -> Result<Self, SettingsError> {
        let mut given = Self::default();
        if let Some(path) = file {
            given.read_file(path)?;
        }
        for (name, value) in variables {
            if !name.starts_with(PREFIX)
                || OTHER_VARIABLES.contains(&name.as_str())
                || is_of_kubernetes(name)
            {
                continue;
            }
            let Some(setting) = declared::all().find(|setting| setting.variable() == *name) else {
                let known: Vec<String> = declared::all().map(Setting::variable).collect();
                let meant = suggestion(name, known.iter().map(String::as_str));
                return Err(error(format!("there is no setting {name}{meant}")));
            };
            if value.trim().is_empty() {
                continue;
            }
            let value = of_variable(setting, name, value)?;
            let origin = Origin::Environment(name.clone());
            given.0.insert(setting.name, (value, origin));
        }
        Ok(given)
    }

    fn read_file(&mut self, path: &Path) -> Result<(), SettingsError> {
        let shown = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|problem| error(format!("cannot read {shown}: {problem}")))?;
        // The parser's own message quotes the line, which may hold a secret put there by mistake.
        let table: toml::Table = toml::from_str(&text).map_err(|problem| {
            let line = problem
                .span()
                .map_or(0, |span| text[..span.start].matches('\n').count() + 1);
            error(format!("{shown}, line {line}: {}", problem.message()))
        })?;
        for (name, value) in table {
            let Some(setting) = declared::find(&name) else {
                let meant = suggestion(&name, declared::all().map(|setting| setting.name));
                return Err(error(format!("{shown}: there is no setting {name}{meant}")));
            };
            let value = of_file(setting, value).map_err(|why| error(format!("{shown}: {why}")))?;
            self.0
                .insert(setting.name, (value, Origin::File(path.to_owned())));
        }
        Ok(())
    }

    /// Where the value of a setting came from.
    pub fn origin(&self, name: &str) -> Origin {
        self.0
            .get(name)
            .map_or(Origin::Default, |(_, origin)| origin.clone())
    }

    /// The value as given, for `valetkey config`; secrets are hidden.
    pub fn shown(&self, name: &str) -> Option<String> {
        Some(match &self.0.get(name)?.0 {
            Value::Text(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            Value::List(entries) => entries.join(", "),
            Value::Secret(_) => "(set, hidden)".into(),
        })
    }

    /// The value in effect of a setting whose default is a fixed value.
    fn or_default(&self, name: &str) -> String {
        self.shown(name)
            .or_else(|| Some(declared::find(name)?.default.to_owned()))
            .unwrap_or_default()
    }

    /// A text, a path or a word, if given.
    pub fn text(&self, name: &str) -> Option<String> {
        match &self.0.get(name)?.0 {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        }
    }

    /// A text or word, or its fixed default.
    pub fn text_or_default(&self, name: &str) -> String {
        self.or_default(name)
    }

    /// A path, if given.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.text(name).map(PathBuf::from)
    }

    /// A number, if given.
    pub fn number(&self, name: &str) -> Option<u64> {
        match &self.0.get(name)?.0 {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// A number, or its fixed default.
    pub fn number_or_default(&self, name: &str) -> u64 {
        self.or_default(name).parse().unwrap_or_default()
    }

    /// A flag, or its default.
    pub fn flag(&self, name: &str) -> bool {
        self.or_default(name) == "true"
    }

    /// A list; empty if not given.
    pub fn list(&self, name: &str) -> Vec<String> {
        match self.0.get(name) {
            Some((Value::List(entries), _)) => entries.clone(),
            _ => Vec::new(),
        }
    }

    /// A secret that has no file of its own by that rule.
    pub fn lines(&self, name: &str) -> Option<SecretString> {
        match &self.0.get(name)?.0 {
            Value::Secret(secret) => Some(secret.clone()),
            _ => None,
        }
    }

    /// A secret from the environment or, failing that, from the file that `{name}_file` names,
    /// trimmed.
    pub fn secret(&self, name: &str) -> Result<Option<SecretString>, SettingsError> {
        if let Some((Value::Secret(secret), _)) = self.0.get(name) {
            return Ok(Some(secret.clone()));
        }
        let Some(path) = self.path(&format!("{name}_file")) else {
            return Ok(None);
        };
        let text = std::fs::read_to_string(&path)
            .map_err(|problem| error(format!("cannot read {}: {problem}", path.display())))?;
        Ok(Some(SecretString::from(text.trim())))
    }
}

/// Checks a number against its limits.
fn number(setting: &Setting, value: u64) -> Result<Value, String> {
    match setting.kind {
        Kind::Number(least, most) if !(least..=most).contains(&value) => Err(format!(
            "{} must lie between {least} and {most}, not {value}",
            setting.name
        )),
        _ => Ok(Value::Number(value)),
    }
}

/// Checks a word against those allowed.
fn word(setting: &Setting, text: String) -> Result<Value, String> {
    match setting.kind {
        Kind::Word(words) if !words.contains(&text.as_str()) => Err(format!(
            "{} must be one of {}, not {text:?}",
            setting.name,
            words.join(", ")
        )),
        _ => Ok(Value::Text(text)),
    }
}

fn of_file(setting: &Setting, value: Toml) -> Result<Value, String> {
    let name = setting.name;
    match (setting.kind, value) {
        (Kind::Secret, _) => Err(format!(
            "{name} is a secret and does not belong into the settings file: set {}{}",
            setting.variable(),
            declared::find(&format!("{name}_file"))
                .map_or_else(String::new, |file| format!(", or {}", file.name))
        )),
        (Kind::Text | Kind::Path | Kind::Word(_), Toml::String(text)) => word(setting, text),
        (Kind::Number(..), Toml::Integer(value)) => {
            let value = u64::try_from(value).map_err(|_| format!("{name} must not be negative"))?;
            number(setting, value)
        }
        (Kind::Bool, Toml::Boolean(flag)) => Ok(Value::Bool(flag)),
        (Kind::List | Kind::CommaList, Toml::Array(entries)) => entries
            .into_iter()
            .map(|entry| match entry {
                Toml::String(text) => Ok(text),
                _ => Err(format!("{name} must be a list of texts")),
            })
            .collect::<Result<_, _>>()
            .map(Value::List),
        (kind, _) => Err(format!(
            "{name} must be {}",
            match kind {
                Kind::Number(..) => "a whole number",
                Kind::Bool => "true or false",
                Kind::List | Kind::CommaList => "a list of texts",
                _ => "a text",
            }
        )),
    }
}

fn of_variable(setting: &Setting, variable: &str, text: &str) -> Result<Value, SettingsError> {
    let list = |separators: &[char]| {
        let parts = text.split(separators).map(str::trim);
        let parts = parts.filter(|part| !part.is_empty());
        Value::List(parts.map(str::to_owned).collect())
    };
    let named = |why: String| error(format!("{variable}: {why}"));
    match setting.kind {
        Kind::Text | Kind::Path | Kind::Word(_) => word(setting, text.to_owned()).map_err(named),
        Kind::Secret => Ok(Value::Secret(text.into())),
        Kind::Bool => match text.trim() {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            other => Err(named(format!("must be true or false, not {other:?}"))),
        },
        Kind::Number(..) => match text.trim().parse() {
            Ok(value) => number(setting, value).map_err(named),
            Err(_) => Err(named(format!("must be a whole number, not {text:?}"))),
        },
        Kind::List => Ok(list(&[',', ' '])),
        Kind::CommaList => Ok(list(&[','])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn unknown_names_are_refused_with_the_one_that_was_meant() {
        let problem = Given::read(None, &variables(&[("VALETKEY_LISSTEN", "x")])).unwrap_err();
        assert!(
            problem
                .to_string()
                .ends_with("did you mean VALETKEY_LISTEN?"),
            "{problem}"
        );
        let problem = Given::read(None, &variables(&[("VALETKEY_ZZZZZZZZZZ", "x")])).unwrap_err();
        assert!(!problem.to_string().contains("did you mean"), "{problem}");
        for other in ["VALETKEY_CONFIG", "PATH"] {
            assert!(Given::read(None, &variables(&[(other, "x")])).is_ok());
        }
    }

    #[test]
    fn secrets_are_hidden_and_origins_are_told() {
        let secret = ("VALETKEY_DATABASE_URL", "postgres://u:hunter2@h/d");
        let given = Given::read(None, &variables(&[secret, ("VALETKEY_WORKERS", "3")])).unwrap();
        assert_eq!(
            given.shown("database_url").as_deref(),
            Some("(set, hidden)")
        );
        assert_eq!(given.number("workers"), Some(3));
        assert_eq!(given.origin("workers").to_string(), "VALETKEY_WORKERS");
        assert_eq!(given.origin("listen"), Origin::Default);
        assert!(!format!("{given:?}").contains("hunter2"));
    }
}
