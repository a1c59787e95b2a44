//! What we know of each outside service: templates as data and pure functions, one file each. No
//! network, no database.

pub mod azure;
pub mod custom;

use crate::domain::{
    egress::{Policy, Purpose},
    integration::{Config, Integration},
};
use serde_json::Value;
use std::time::Duration;
use url::Url;

/// A setting that an administrator types.
#[derive(Debug)]
pub struct Field {
    pub name: &'static str,
    pub label: &'static str,
    pub hint: &'static str,
    pub required: bool,
    pub secret: bool,
    /// A change means that tokens come from elsewhere: connections end and the secret is asked for
    /// again.
    pub moves_tokens: bool,
    pub default: &'static str,
    /// A regular expression for clients that check before they send.
    pub pattern: &'static str,
    pub shape: Shape,
}

/// What a setting may hold; the check is in [`check_value`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Text,
    Uuid,
    /// A UUID or a verified domain name, as Microsoft accepts for a tenant.
    Tenant,
    Scopes,
    /// An address of the identity provider.
    Address,
    /// A whole number from 1.
    Number,
}

/// A setting chosen from a list.
#[derive(Debug)]
pub struct Choice {
    pub name: &'static str,
    pub label: &'static str,
    pub hint: &'static str,
    pub values: &'static [(&'static str, &'static str)],
    pub default: &'static str,
    pub is_bool: bool,
    pub moves_tokens: bool,
}

/// How refresh tokens of a provider behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// A new one at each use; the old one keeps working (Microsoft Entra ID).
    KeepsOld,
    /// May be dead after one use: assume the worst.
    SingleUse,
    /// The same one for as long as the person's sign-in lasts.
    Never,
}

/// One kind of integration.
pub struct Template {
    pub key: &'static str,
    /// The tile's title on "Add integration".
    pub title: &'static str,
    pub summary: &'static str,
    pub monogram: &'static str,
    pub fields: &'static [Field],
    pub choices: &'static [Choice],
    /// How its refresh tokens behave, unless an administrator says otherwise; ask [`rotation`].
    pub rotation: Rotation,
    /// Words by which the provider refuses a refresh token, beside `invalid_grant`.
    pub refusals: &'static [&'static str],
    /// Whether refresh requests name the scopes. Without them the granted ones stay (RFC 6749
    /// section 6); servers that granted less than was asked refuse the whole list. Microsoft wants
    /// it.
    pub names_scopes_at_refresh: bool,
    /// Days until the provider asks for the person again if the connection is not used, where that
    /// is known.
    pub lapses_after_days: Option<u64>,
    endpoints: fn(&Config) -> Option<Endpoints>,
    names: fn(&Config) -> Names,
    /// Checks that span several settings; adds to `problems`.
    check: fn(&Config, &mut Vec<Problem>),
}

/// What to call the parts of an integration on pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The third-party service: "Azure Databricks".
    pub service: String,
    /// Who signs people in, short: "Microsoft".
    pub provider: String,
    pub monogram: &'static str,
}

/// Where the OAuth protocol happens for one integration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    pub authorize: Url,
    pub token: Url,
    /// RFC 7009, where the provider has it.
    pub revoke: Option<Url>,
    /// The hosts come from this program, not from a form: such integrations may share one callback
    /// address.
    pub fixed_hosts: bool,
}

/// A setting that is not right, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub key: String,
    pub message: String,
}

impl Problem {
    pub fn new(key: &str, message: impl Into<String>) -> Self {
        Self {
            key: key.to_owned(),
            message: message.into(),
        }
    }
}

pub const TEMPLATES: [&Template; 2] = [&azure::TEMPLATE, &custom::TEMPLATE];

pub fn template(key: &str) -> Option<&'static Template> {
    TEMPLATES.into_iter().find(|template| template.key == key)
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.key)
    }
}

impl Template {
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }
    pub fn choice(&self, name: &str) -> Option<&'static Choice> {
        self.choices.iter().find(|choice| choice.name == name)
    }
    /// Whether a change of this setting means that tokens come from elsewhere.
    pub fn moves_tokens(&self, name: &str) -> bool {
        self.field(name).is_some_and(|field| field.moves_tokens)
            || self.choice(name).is_some_and(|choice| choice.moves_tokens)
    }

    /// Checks a whole configuration (without the secret) and fills in defaults. All problems at
    /// once.
    pub fn complete(&self, given: &Config, policy: &Policy) -> Result<Config, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut config = Config::new();
        for (key, value) in given {
            if value.is_null() {
                continue;
            }
            if let Some(field) = self.field(key) {
                match check_value(field, value, policy) {
                    Ok(Some(text)) => drop(config.insert(key.clone(), Value::String(text))),
                    Ok(None) => {}
                    Err(message) => problems.push(Problem::new(key, message)),
                }
            } else if let Some(choice) = self.choice(key) {
                if choice.default.is_empty() && value.as_str() == Some("") {
                    continue;
                }
                match check_choice(choice, value) {
                    Ok(value) => drop(config.insert(key.clone(), value)),
                    Err(message) => problems.push(Problem::new(key, message)),
                }
            } else {
                problems.push(Problem::new(
                    key,
                    format!(
                        "The template “{}” has no setting “{}”.",
                        self.key,
                        shorten(key)
                    ),
                ));
            }
        }
        for field in self.fields.iter().filter(|field| !field.secret) {
            if !config.contains_key(field.name)
                && !problems.iter().any(|problem| problem.key == field.name)
            {
                if !field.default.is_empty() {
                    config.insert(field.name.to_owned(), field.default.into());
                } else if field.required {
                    problems.push(Problem::new(
                        field.name,
                        format!("Enter the {}.", lower_first(field.label)),
                    ));
                }
            }
        }
        for choice in self.choices {
            if !config.contains_key(choice.name) && !choice.default.is_empty() {
                let value = if choice.is_bool {
                    Value::Bool(choice.default == "true")
                } else {
                    choice.default.into()
                };
                config.insert(choice.name.to_owned(), value);
            }
        }
        (self.check)(&config, &mut problems);
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(problems)
        }
    }
}

/// The names of an integration's parts.
pub fn names(integration: &Integration) -> Names {
    match template(&integration.template) {
        Some(template) => (template.names)(&integration.config),
        None => Names {
            service: integration.display_name().to_owned(),
            provider: "the identity provider".into(),
            monogram: "?",
        },
    }
}

/// Where the protocol happens for this integration; `None` if its configuration is damaged.
pub fn endpoints(integration: &Integration) -> Option<Endpoints> {
    (template(&integration.template)?.endpoints)(&integration.config)
}

/// Whether an answer may come from who it says it comes from (RFC 9207). A typed-in issuer must be
/// named; Microsoft does not name itself today, and is compared if it does.
pub fn may_answer(integration: &Integration, named: Option<&str>) -> bool {
    match (integration.setting("issuer"), named) {
        ("", Some(named)) => azure::issuer(integration).is_none_or(|issuer| issuer == named),
        ("", None) => true,
        (typed, named) => named == Some(typed),
    }
}

/// How the provider's refresh tokens behave for this integration.
pub fn rotation(integration: &Integration) -> Rotation {
    match integration.setting("refresh_tokens") {
        "keeps_old" => Rotation::KeepsOld,
        "never" => Rotation::Never,
        "single_use" => Rotation::SingleUse,
        _ => template(&integration.template)
            .map_or(Rotation::SingleUse, |template| template.rotation),
    }
}

/// How long a sign-in lasts at the provider however often it is refreshed, where that is known.
pub fn longest_connection(integration: &Integration) -> Option<Duration> {
    let hours: u64 = integration.setting("session_hours").parse().ok()?;
    Some(Duration::from_secs(hours * 3600))
}

/// How the client authenticates at the token endpoint (RFC 6749 section 2.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ClientAuthentication {
    /// A public client: no secret.
    None,
    Body,
    Basic,
    /// A private key signs each request (`private_key_jwt`).
    PrivateKey,
}

pub fn client_authentication(integration: &Integration) -> ClientAuthentication {
    match (
        integration.setting("auth_mode"),
        integration.setting("token_endpoint_auth_method"),
    ) {
        ("Public", _) => ClientAuthentication::None,
        ("Certificate", _) | (_, "private_key_jwt") => ClientAuthentication::PrivateKey,
        (_, "client_secret_basic") => ClientAuthentication::Basic,
        _ => ClientAuthentication::Body,
    }
}

/// Whether authorization requests carry a PKCE challenge (RFC 7636): always, unless an
/// administrator switched it off.
pub fn uses_pkce(integration: &Integration) -> bool {
    integration
        .config
        .get("use_pkce")
        .and_then(Value::as_bool)
        .unwrap_or(true)
}

/// Whether the scopes ask for a refresh token.
pub fn asks_for_refresh_token(integration: &Integration) -> bool {
    integration
        .scopes()
        .iter()
        .any(|scope| matches!(*scope, "offline_access" | "refresh_token"))
}

/// What the scopes allow, in words a viewer understands.
pub fn capabilities(integration: &Integration) -> Vec<String> {
    let names = names(integration);
    let mut words = Vec::new();
    for scope in integration.scopes() {
        let sentence = match scope {
            "offline_access" | "refresh_token" => continue,
            "openid" => "Learn which account you signed in with".to_owned(),
            "profile" => "See your name".to_owned(),
            "email" => "See your e-mail address".to_owned(),
            scope if azure::is_databricks_scope(scope) => {
                "Run queries with your permissions: it sees what you may see, and no more"
                    .to_owned()
            }
            scope => format!(
                "Use “{}” in {} with your permissions",
                shorten(scope),
                names.service
            ),
        };
        if !words.contains(&sentence) {
            words.push(sentence);
        }
    }
    if words.is_empty() {
        words.push(format!("Use {} with your permissions", names.service));
    }
    words
}

fn check_value(field: &Field, value: &Value, policy: &Policy) -> Result<Option<String>, String> {
    let Some(text) = value.as_str() else {
        return Err(format!("{} must be a text.", field.label));
    };
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    if text.chars().count() > 2000 {
        return Err(format!(
            "{} is too long: at most 2,000 characters.",
            field.label
        ));
    }
    if text.chars().any(char::is_control) {
        return Err(format!(
            "{} holds a line break or another invisible character. Paste it again.",
            field.label
        ));
    }
    match field.shape {
        Shape::Text => Ok(Some(text.to_owned())),
        Shape::Uuid => match looks_like_uuid(text) {
            true => Ok(Some(text.to_ascii_lowercase())),
            false => Err(uuid_message(field, text)),
        },
        Shape::Tenant => {
            let domain = text.contains('.')
                && !text.contains("..")
                && !text.starts_with(['.', '-'])
                && !text.ends_with('.')
                && text
                    .chars()
                    .all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-'));
            match looks_like_uuid(text) || domain {
                true => Ok(Some(text.to_ascii_lowercase())),
                false => Err(uuid_message(field, text)),
            }
        }
        Shape::Scopes => {
            let scopes: Vec<&str> = text.split_whitespace().collect();
            // RFC 6749 section 3.3: printable, without quote and backslash.
            if scopes.iter().any(|scope| {
                !scope
                    .bytes()
                    .all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
            }) {
                return Err("Scopes are separated by blanks and hold no quotes, commas as separators or letters outside ASCII.".into());
            }
            Ok(Some(scopes.join(" ")))
        }
        Shape::Number => match text.parse::<u64>() {
            Ok(number) if (1..=100_000).contains(&number) => Ok(Some(number.to_string())),
            _ => Err(format!("{} must be a whole number from 1.", field.label)),
        },
        Shape::Address => {
            let url = policy
                .parse(text, Purpose::Provider)
                .map_err(|refused| format!("{}: {refused}", field.label))?;
            Ok(Some(url.as_str().to_owned()))
        }
    }
}

fn check_choice(choice: &Choice, value: &Value) -> Result<Value, String> {
    let text = match value {
        Value::Bool(given) => given.to_string(),
        // The command line client sends every value as a string.
        Value::String(text) if choice.is_bool => text.to_ascii_lowercase(),
        Value::String(text) => text.clone(),
        _ => String::new(),
    };
    if choice.is_bool {
        return match text.as_str() {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err(format!("{} must be true or false.", choice.label)),
        };
    }
    match choice.values.iter().find(|(known, _)| *known == text) {
        Some((known, _)) => Ok(Value::String((*known).to_owned())),
        None => {
            let known: Vec<&str> = choice.values.iter().map(|(known, _)| *known).collect();
            Err(format!(
                "{} must be one of: {}.",
                choice.label,
                known.join(", ")
            ))
        }
    }
}

/// The hyphenated form that Microsoft shows.
pub fn looks_like_uuid(text: &str) -> bool {
    text.len() == 36 && uuid::Uuid::try_parse(text).is_ok()
}

fn uuid_message(field: &Field, text: &str) -> String {
    let what = lower_first(field.label);
    if text.contains("://") {
        return format!(
            "This is an address. Enter the {what} alone. It looks like 1b2c3d4e-0000-4000-8000-1a2b3c4d5e6f."
        );
    }
    format!("Enter the {what}. It looks like 1b2c3d4e-0000-4000-8000-1a2b3c4d5e6f.")
}

fn lower_first(label: &str) -> String {
    let mut letters = label.chars();
    letters
        .next()
        .map(|first| first.to_lowercase().chain(letters).collect())
        .unwrap_or_default()
}

fn shorten(text: &str) -> String {
    text.chars()
        .filter(|letter| !letter.is_control())
        .take(80)
        .collect()
}
