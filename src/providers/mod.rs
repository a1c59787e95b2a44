//! Templates: what the portal knows about each kind of integration, as data and pure functions, one
//! file per template. A template holds the settings to ask for, the endpoints, the default scopes
//! and the provider's quirks. No network, no database.

mod anthropic;
mod atlassian;
pub mod aws;
pub mod azure;
mod azure_openai;
mod bigquery;
mod bitbucket;
mod connect;
pub mod custom;
pub mod databricks;
mod drive;
mod github;
mod gitlab;
pub mod google;
mod hubspot;
mod linkedin;
mod microsoft;
mod model_key;
mod msgraph;
mod openai;
mod parts;
pub mod pasted;
pub mod profile;
mod salesforce;
pub mod service_grant;
mod sharepoint;
mod sheets;
mod slack;
mod snowflake;
mod vault;
mod vertex_ai;

pub use profile::{Profile, Rotation};
pub use service_grant::{ServiceGrant, WorkloadFiles};

use crate::domain::{
    egress::{Policy, Purpose},
    form::FieldError,
    integration::{AuthType, Config, Integration},
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
    /// A change means that tokens come from somewhere else: connections end, and the secret has to
    /// be entered again.
    pub changes_token_source: bool,
    pub default: &'static str,
    /// A regular expression for clients that validate before sending; empty for none. The server
    /// checks `shape`.
    pub pattern: &'static str,
    pub shape: ValueKind,
    /// The only type of integration that needs it; `None`: all.
    pub only: Option<AuthType>,
}

impl Field {
    /// Whether an integration of this type needs it.
    pub fn applies(&self, auth_type: AuthType) -> bool {
        self.only.is_none_or(|only| only == auth_type)
    }
}

/// The type of a setting's value, checked by `check_value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    Text,
    Uuid,
    /// A UUID or a verified domain name, as Microsoft accepts for a tenant.
    Tenant,
    Scopes,
    /// A URL of the identity provider that the egress policy allows.
    Address,
    /// A whole number from 1 to 100,000.
    Number,
}

/// A setting chosen from a list. With an empty `default` it is optional.
#[derive(Debug)]
pub struct Choice {
    pub name: &'static str,
    pub label: &'static str,
    pub hint: &'static str,
    /// The API value and the label of each entry.
    pub values: &'static [(&'static str, &'static str)],
    pub default: &'static str,
    /// Stored as a JSON boolean.
    pub is_bool: bool,
    /// See [`Field::changes_token_source`].
    pub changes_token_source: bool,
    /// See [`Field::only`].
    pub only: Option<AuthType>,
}

impl Choice {
    /// Whether an integration of this type needs it.
    pub fn applies(&self, auth_type: AuthType) -> bool {
        self.only.is_none_or(|only| only == auth_type)
    }
}

/// Under which heading a template stands where one is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::VariantArray)]
pub enum Group {
    DataPlatforms,
    Microsoft,
    Google,
    DeveloperTools,
    Other,
}

impl Group {
    /// The heading.
    pub fn title(self) -> &'static str {
        match self {
            Self::DataPlatforms => "Data platforms",
            Self::Microsoft => "Microsoft",
            Self::Google => "Google",
            Self::DeveloperTools => "Developer tools",
            Self::Other => "Other",
        }
    }
}

/// One kind of integration.
pub struct Template {
    pub key: &'static str,
    /// The tile's title on "Add integration".
    pub title: &'static str,
    /// The short form of the title: heading of the form, and the name that it proposes.
    pub short_title: &'static str,
    /// Whether a new integration is named like the template.
    pub proposes_name: bool,
    pub summary: &'static str,
    /// Two characters, shown as an icon.
    pub monogram: &'static str,
    pub group: Group,
    /// Other words by which it is searched.
    pub keywords: &'static str,
    /// The types of integration, the usual one first. With several, the choice `auth_type` decides.
    pub auth_types: &'static [AuthType],
    pub fields: &'static [Field],
    pub choices: &'static [Choice],
    /// Other names that programs may use for a setting, and its own name.
    aliases: &'static [(&'static str, &'static str)],
    /// Settings that the form shows under *Set for you by the template*, not in its main list.
    pub details: &'static [&'static str],
    /// Lists in the form whose choice fills in another setting.
    pub presets: &'static [Preset],
    /// What the administrator does at the provider, in the provider's own terms.
    pub steps: Steps,
    /// How the secret is sent, where the form does not ask: in a header, else in the body.
    pub sends_secret_in_header: bool,
    /// What goes wrong often, and what to do: shown beside the form.
    pub mistakes: &'static [(&'static str, &'static str)],
    /// How the provider behaves, with these settings; use [`profile()`].
    profile: fn(&Config) -> Profile,
    /// How a service account gets a token; use [`service_grant()`].
    service_grant: fn(&Integration) -> Option<ServiceGrant>,
    /// The audience of this portal's own token, where it proves itself with one; use
    /// [`audience()`].
    audience: fn(&Integration) -> String,
    /// How SDKs in a process of deployed content find a token of this portal by themselves; use
    /// [`workload_files()`].
    workload_files: fn(&Integration) -> Option<WorkloadFiles>,
    /// The environment variable in which deployed content finds the secret itself; empty: it does
    /// not get it.
    pub secret_variable: &'static str,
    /// Where the tokens of such an integration may open something.
    reach: Reach,
    endpoints: fn(&Config) -> Option<Endpoints>,
    names: fn(&Config) -> Names,
    /// Validates combinations of settings; adds to `problems`.
    check: fn(&Config, &mut Vec<FieldError>),
    /// Recognises something else that was pasted as the client secret; returns what to do.
    pub secret_problem: fn(&str) -> Option<&'static str>,
    /// The issuer that an authorization response may name (RFC 9207), if it is known without being
    /// configured.
    issuer: fn(&Integration) -> Option<String>,
    /// What a scope allows, as a sentence for viewers; `None` for the general sentence.
    capability: fn(scope: &str) -> Option<&'static str>,
    /// The token endpoint that belongs to an OpenID issuer of this provider. A refresh token of the
    /// organisation's sign-in there, for the same client, brings a connection as well.
    token_endpoint_of: fn(issuer: &str) -> Option<String>,
    /// Where a person withdraws what they agreed to at the provider: address and link text.
    consents_link: Option<(&'static str, &'static str)>,
    /// How an administrator of the organisation approves the application, as the end of "Please
    /// approve the application … for … ".
    pub approval: &'static str,
}

/// Where the tokens of an integration may open something, as far as its template tells.
#[derive(Clone, Copy, Debug)]
enum Reach {
    /// At the service that the template is named after.
    OwnService,
    /// At any service of these companies: which one, its scopes decide.
    Companies(&'static [Company]),
    /// Wherever its administrator wanted.
    Anywhere,
}

/// A company with several services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Company {
    Databricks,
    Google,
    Microsoft,
}

/// A list in the form whose choice fills in another setting; that setting, typed, wins.
#[derive(Debug)]
pub struct Preset {
    pub name: &'static str,
    pub label: &'static str,
    /// The setting that it fills in.
    pub fills: &'static str,
    /// Value and label of each entry. The first is the default, and leaves the setting empty.
    pub values: &'static [(&'static str, &'static str)],
    /// What is wrong with any other value.
    pub problem: &'static str,
}

/// The steps of the form: title and text of the first two, title of the third, whose content is the
/// form.
#[derive(Debug)]
pub struct Steps {
    pub register: (&'static str, &'static str),
    pub allow: (&'static str, &'static str),
    pub paste: &'static str,
    /// The form shows the redirect URI that integrations share; the value introduces the case in
    /// which the integration's own is needed. `None`: always the integration's own.
    pub shared_redirect: Option<&'static str>,
    /// How PKCE is used.
    pub pkce: &'static str,
}

/// Display names for the parts of an integration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The third-party service: "Azure Databricks".
    pub service: String,
    /// The identity provider, short: "Microsoft".
    pub provider: String,
    /// The identity provider's full name: "Microsoft Entra ID".
    pub provider_full: String,
    pub monogram: &'static str,
}

/// The provider's OAuth endpoints for one integration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    pub authorize: Url,
    pub token: Url,
    /// The revocation endpoint (RFC 7009), if the provider has one.
    pub revoke: Option<Url>,
    /// The host comes from this program, not from a form that an administrator filled in. Such
    /// integrations may share one callback address; others get their own.
    pub has_known_host: bool,
}

/// Whether the refresh token of a sign-in at `issuer` with `client_id` belongs to this
/// integration's own OAuth client, and so brings a connection.
pub fn sign_in_suffices(integration: &Integration, issuer: &str, client_id: &str) -> bool {
    let tokens_at =
        template(&integration.template).and_then(|template| (template.token_endpoint_of)(issuer));
    let endpoints = endpoints(integration);
    client_id == integration.setting("client_id")
        && tokens_at.is_some_and(|address| {
            endpoints.is_some_and(|endpoints| endpoints.token.as_str() == address)
        })
}

/// The template of an API request that names none: its settings stand at the top level, in the
/// first shape that Connect published, which had Azure only.
pub const UNNAMED: &str = azure::TEMPLATE.key;

/// All templates, in the order in which they are listed below their headings.
pub const TEMPLATES: [&Template; 24] = [
    &azure::TEMPLATE,
    &databricks::TEMPLATE,
    &snowflake::TEMPLATE,
    &salesforce::TEMPLATE,
    &aws::TEMPLATE,
    &azure_openai::TEMPLATE,
    &msgraph::TEMPLATE,
    &sharepoint::TEMPLATE,
    &bigquery::TEMPLATE,
    &drive::TEMPLATE,
    &sheets::TEMPLATE,
    &vertex_ai::TEMPLATE,
    &github::TEMPLATE,
    &gitlab::TEMPLATE,
    &bitbucket::TEMPLATE,
    &atlassian::TEMPLATE,
    &vault::TEMPLATE,
    &slack::TEMPLATE,
    &hubspot::TEMPLATE,
    &linkedin::TEMPLATE,
    &anthropic::TEMPLATE,
    &openai::TEMPLATE,
    &connect::TEMPLATE,
    &custom::TEMPLATE,
];

/// What a template says unless it says something else (struct update syntax).
const BASE: Template = Template {
    key: "",
    title: "",
    short_title: "",
    proposes_name: true,
    summary: "",
    monogram: "",
    group: Group::Other,
    keywords: "",
    auth_types: &[AuthType::Viewer],
    fields: &[],
    choices: &[],
    aliases: &[],
    details: &["scopes", "auth_mode"],
    presets: &[],
    steps: Steps {
        register: ("", ""),
        allow: ("", ""),
        paste: "",
        shared_redirect: None,
        pkce: "always, with S256.",
    },
    sends_secret_in_header: false,
    mistakes: &[],
    profile: |_| Profile::STANDARD,
    service_grant: |_| None,
    audience: |integration| {
        endpoints(integration).map_or_else(String::new, |found| found.token.to_string())
    },
    workload_files: |_| None,
    secret_variable: "",
    reach: Reach::OwnService,
    endpoints: |_| None,
    names: |_| Names {
        service: String::new(),
        provider: String::new(),
        provider_full: String::new(),
        monogram: "",
    },
    check: |_, _| {},
    secret_problem: |_| None,
    issuer: |_| None,
    capability: |_| None,
    token_endpoint_of: |_| None,
    consents_link: None,
    approval: "at the provider",
};

/// The template with this key.
pub fn template(key: &str) -> Option<&'static Template> {
    TEMPLATES.into_iter().find(|template| template.key == key)
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.key)
    }
}

impl Template {
    /// How a client with these settings authenticates, complete settings or as typed.
    pub fn client_authentication(&self, config: &Config) -> ClientAuthentication {
        let text = |key: &str| {
            let typed = config.get(key).and_then(Value::as_str);
            typed.unwrap_or_else(|| self.choice(key).map_or("", |choice| choice.default))
        };
        if self.field("client_secret").is_none() {
            return ClientAuthentication::None;
        }
        // Some services have no OAuth client at their service accounts.
        if !self
            .field("client_secret")
            .is_some_and(|field| field.applies(self.auth_type(config)))
        {
            return ClientAuthentication::Federated;
        }
        match (text("auth_mode"), text("token_endpoint_auth_method")) {
            ("Public", _) => ClientAuthentication::None,
            ("Federated", _) => ClientAuthentication::Federated,
            ("Certificate", _) | (_, "private_key_jwt") => ClientAuthentication::PrivateKey,
            (_, "client_secret_basic") => ClientAuthentication::Basic,
            (_, "") if self.sends_secret_in_header => ClientAuthentication::Basic,
            _ => ClientAuthentication::Body,
        }
    }
    /// The environment variable for the secret itself, if there is one.
    pub fn own_variable(&self) -> Option<&'static str> {
        Some(self.secret_variable).filter(|name| !name.is_empty())
    }
    /// A setting's own name, for one of its names.
    fn own_name<'a>(&self, name: &'a str) -> &'a str {
        let alias = self.aliases.iter().find(|(other, _)| *other == name);
        alias.map_or(name, |(_, own)| own)
    }
    /// The typed setting with this name, including the secret.
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }
    /// The choice with this name.
    pub fn choice(&self, name: &str) -> Option<&'static Choice> {
        self.choices.iter().find(|choice| choice.name == name)
    }
    /// Whether a change of this setting means that tokens come from somewhere else.
    pub fn moves_tokens(&self, name: &str) -> bool {
        self.field(name)
            .is_some_and(|field| field.changes_token_source)
            || self
                .choice(name)
                .is_some_and(|choice| choice.changes_token_source)
    }

    /// The type of an integration with these settings, complete or as typed.
    pub fn auth_type(&self, config: &Config) -> AuthType {
        let typed = config.get("auth_type").and_then(Value::as_str);
        typed
            .and_then(|typed| typed.parse().ok())
            .filter(|kind| self.auth_types.contains(kind))
            .unwrap_or(self.auth_types[0])
    }

    /// Whether an integration of this type sends people to a provider, and so has a redirect URI.
    pub fn has_redirect(&self, auth_type: AuthType) -> bool {
        auth_type == AuthType::Viewer
    }

    /// Whether an administrator types the addresses of the endpoints; else they follow from other
    /// settings.
    pub fn types_addresses(&self) -> bool {
        self.field("token_uri").is_some()
    }

    /// Validates a whole configuration (without the secret) and fills in defaults. Errors: all
    /// invalid settings at once.
    pub fn validate(&self, given: &Config, policy: &Policy) -> Result<Config, Vec<FieldError>> {
        let mut problems = Vec::new();
        let mut config = Config::new();
        for (key, value) in given {
            if value.is_null() {
                continue;
            }
            let key = self.own_name(key);
            if let Some(field) = self.field(key) {
                match check_value(field, value, policy) {
                    Ok(Some(text)) => drop(config.insert(key.to_owned(), Value::String(text))),
                    Ok(None) => {}
                    Err(message) => problems.push(FieldError::new(key, message)),
                }
            } else if let Some(choice) = self.choice(key) {
                if choice.default.is_empty() && value.as_str() == Some("") {
                    continue;
                }
                match check_choice(choice, value) {
                    Ok(value) => drop(config.insert(key.to_owned(), value)),
                    Err(message) => problems.push(FieldError::new(key, message)),
                }
            } else {
                problems.push(FieldError::new(
                    key,
                    format!(
                        "The template “{}” has no setting “{}”.",
                        self.key,
                        shorten(key)
                    ),
                ));
            }
        }
        let auth_type = self.auth_type(&config);
        let needed = |field: &&Field| !field.secret && field.applies(auth_type);
        for field in self.fields.iter().filter(needed) {
            if !config.contains_key(field.name)
                && !problems.iter().any(|problem| problem.key == field.name)
            {
                if !field.default.is_empty() {
                    config.insert(field.name.to_owned(), field.default.into());
                } else if field.required {
                    problems.push(FieldError::new(
                        field.name,
                        format!("Enter the {}.", lower_first(field.label)),
                    ));
                }
            }
        }
        for choice in self
            .choices
            .iter()
            .filter(|choice| choice.applies(auth_type))
        {
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

/// Display names for the parts of an integration; generic ones if its template is unknown.
pub fn names(integration: &Integration) -> Names {
    match template(&integration.template) {
        Some(template) => (template.names)(&integration.config),
        None => Names {
            service: integration.display_name().to_owned(),
            provider: "the identity provider".into(),
            provider_full: "the identity provider".into(),
            monogram: "?",
        },
    }
}

/// The endpoints of this integration; `None` if its configuration is damaged.
pub fn endpoints(integration: &Integration) -> Option<Endpoints> {
    (template(&integration.template)?.endpoints)(&integration.config)
}

/// Where a person withdraws what they agreed to at the provider: address and link text. `None` if it
/// has no such page, or if it is a server of one's own, whose pages are not known.
pub fn consents_link(integration: &Integration) -> Option<(&'static str, &'static str)> {
    let has_known_host = endpoints(integration)?.has_known_host;
    let link = template(&integration.template)?.consents_link;
    link.filter(|_| has_known_host)
}

/// Whether an authorization response with this issuer (`iss`, RFC 9207) may belong to the
/// integration. A configured issuer must be present and equal. One that the template knows must be
/// equal if the provider names it: Microsoft does not today.
pub fn issuer_matches(integration: &Integration, named: Option<&str>) -> bool {
    match (integration.setting("issuer"), named) {
        ("", Some(named)) => template(&integration.template)
            .and_then(|template| (template.issuer)(integration))
            .is_none_or(|issuer| issuer == named),
        ("", None) => true,
        (typed, named) => named == Some(typed),
    }
}

/// How the provider of this integration behaves; the standard, if its template is unknown.
pub fn profile(integration: &Integration) -> Profile {
    template(&integration.template).map_or(Profile::STANDARD, |template| {
        (template.profile)(&integration.config)
    })
}

/// How this integration, a service account, gets a token; `None` for one that acts for viewers.
pub fn service_grant(integration: &Integration) -> Option<ServiceGrant> {
    (template(&integration.template)?.service_grant)(integration)
}

/// The audience of this portal's own token, where it proves itself to the provider with one.
pub fn audience(integration: &Integration) -> String {
    template(&integration.template)
        .map_or_else(String::new, |template| (template.audience)(integration))
}

/// How SDKs in a process of deployed content find a token of this portal by themselves; `None` if the
/// service takes none, or the integration has a secret.
pub fn workload_files(integration: &Integration) -> Option<WorkloadFiles> {
    let template = template(&integration.template)?;
    let federated = client_authentication(integration) == ClientAuthentication::Federated;
    (integration.auth_type == AuthType::ServiceAccount && federated)
        .then(|| (template.workload_files)(integration))
        .flatten()
}

/// The environment variables that a process of deployed content with this integration gets, as far
/// as the settings decide.
pub fn environment_variables(integration: &Integration) -> Vec<&'static str> {
    let template = template(&integration.template);
    let mut names: Vec<&str> = template
        .and_then(Template::own_variable)
        .into_iter()
        .collect();
    if let Some(files) = workload_files(integration) {
        names.push(files.path_variable);
        names.extend(files.variables.iter().map(|(name, _)| *name));
    }
    names
}

/// How long a sign-in lasts at the provider regardless of refreshes, if configured.
pub fn max_sign_in_lifetime(integration: &Integration) -> Option<Duration> {
    let hours: u64 = integration.setting("session_hours").parse().ok()?;
    Some(Duration::from_secs(hours * 3600))
}

/// How the client authenticates at the token endpoint (RFC 6749 section 2.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ClientAuthentication {
    /// A public client: no secret.
    None,
    /// In the request body (`client_secret_post`).
    Body,
    /// In the `Authorization` header (`client_secret_basic`).
    Basic,
    /// A private key signs each request (`private_key_jwt`).
    PrivateKey,
    /// This portal signs each request with its own key, which the provider trusts (RFC 7523, workload
    /// identity federation): there is no secret.
    Federated,
}

impl ClientAuthentication {
    /// Whether a secret or a private key has to be entered.
    pub fn needs_secret(self) -> bool {
        !matches!(self, Self::None | Self::Federated)
    }
}

/// The client authentication that is configured for this integration.
pub fn client_authentication(integration: &Integration) -> ClientAuthentication {
    template(&integration.template).map_or(ClientAuthentication::Body, |template| {
        template.client_authentication(&integration.config)
    })
}

/// Whether authorization requests carry a PKCE challenge (RFC 7636): always, unless the provider does
/// not know it or an administrator switched it off.
pub fn uses_pkce(integration: &Integration) -> bool {
    let chosen = integration.config.get("use_pkce").and_then(Value::as_bool);
    chosen.unwrap_or_else(|| profile(integration).uses_pkce)
}

/// Whether the scopes ask for a refresh token.
pub fn asks_for_refresh_token(integration: &Integration) -> bool {
    integration
        .scopes()
        .iter()
        .any(|scope| matches!(*scope, "offline_access" | "refresh_token"))
}

/// Scopes that only a person can grant.
const ABOUT_PEOPLE: [&str; 5] = [
    "offline_access",
    "refresh_token",
    "openid",
    "profile",
    "email",
];

/// The scopes that a service account asks for: those that are not about people.
pub fn scopes_of_its_own<'a>(scopes: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let is_its_own = |scope: &&str| !ABOUT_PEOPLE.contains(scope);
    scopes.into_iter().filter(is_its_own).collect()
}

/// Whether a refresh token can be expected with these scopes: they ask for one, or the provider gives
/// one without a scope, or its tokens have no end.
pub fn scopes_bring_refresh_token(integration: &Integration) -> bool {
    let names_one = |template: &Template| {
        let usual = template.field("scopes").map_or("", |field| field.default);
        usual.contains("offline_access") || usual.contains("refresh_token")
    };
    asks_for_refresh_token(integration) || !template(&integration.template).is_some_and(names_one)
}

/// Scopes that were requested and not issued. Ignores `.default` and the OpenID scopes, which
/// providers return under other names.
pub fn missing_scopes(integration: &Integration, issued: &str) -> Vec<String> {
    not_issued(integration.setting("scopes"), issued)
}

/// The scopes of `asked` that are not in `issued`, in whatever order, case or long form.
fn not_issued(asked: &str, issued: &str) -> Vec<String> {
    let usual = [
        "openid",
        "profile",
        "email",
        "offline_access",
        "refresh_token",
    ];
    let is_issued = |scope: &str| {
        issued.split_whitespace().any(|given| {
            let last = given.rsplit('/').next().unwrap_or(given);
            given.eq_ignore_ascii_case(scope) || last.eq_ignore_ascii_case(scope)
        })
    };
    asked
        .split_whitespace()
        .filter(|scope| !usual.contains(scope) && !scope.ends_with("/.default"))
        .filter(|scope| !is_issued(scope))
        .map(str::to_owned)
        .collect()
}

/// Whether one of these integrations may act for viewers at the service of `own`, a service account:
/// there content acts as itself only if its owner allowed both. In doubt it may: a workspace of Azure
/// Databricks is opened by tokens of Microsoft and of Databricks, and an own OAuth server may serve
/// anything.
pub fn may_act_for_viewers_there<'a>(
    mut attached: impl Iterator<Item = &'a Integration>,
    own: &Integration,
) -> bool {
    attached.any(|one| one.auth_type == AuthType::Viewer && may_open_the_same(one, own))
}

fn may_open_the_same(viewers: &Integration, own: &Integration) -> bool {
    if viewers.template == own.template {
        return true;
    }
    let reach = |integration: &Integration| {
        template(&integration.template).map_or(Reach::Anywhere, |template| template.reach)
    };
    match (reach(viewers), reach(own)) {
        (Reach::Companies(theirs), Reach::Companies(ours)) => {
            theirs.iter().any(|company| ours.contains(company))
        }
        // The key of a company's API, which no viewer's token opens.
        (Reach::Anywhere, _) => !matches!(service_grant(own), Some(ServiceGrant::StaticSecret)),
        (_, Reach::Anywhere) => true,
        (Reach::OwnService, _) | (_, Reach::OwnService) => false,
    }
}

/// What the scopes allow, as sentences for viewers.
pub fn capabilities(integration: &Integration) -> Vec<String> {
    let names = names(integration);
    if integration.auth_type == AuthType::VisitorApiKey {
        let role = match integration.setting("max_role") {
            "Admin" => "whatever role you have",
            "Publisher" => "at most the role of a publisher",
            _ => "at most the role of a viewer",
        };
        return vec![format!("Call this portal's own API as you, with {role}")];
    }
    let known = |scope: &str| (template(&integration.template)?.capability)(scope);
    let mut words = Vec::new();
    for scope in integration.scopes() {
        let sentence = match scope {
            "offline_access" | "refresh_token" => continue,
            "openid" => "Learn which account you signed in with".to_owned(),
            "profile" => "See your name".to_owned(),
            "email" => "See your e-mail address".to_owned(),
            scope => match known(scope) {
                Some(sentence) => sentence.to_owned(),
                None => format!(
                    "Use “{}” in {} with your permissions",
                    shorten(scope),
                    names.service
                ),
            },
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

/// Validates and normalises one setting; `Ok(None)` if it is empty. The error is a sentence for the
/// form.
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
        ValueKind::Text => Ok(Some(text.to_owned())),
        ValueKind::Uuid => match without_braces(text) {
            uuid if looks_like_uuid(uuid) => Ok(Some(uuid.to_ascii_lowercase())),
            _ => Err(uuid_message(field, text)),
        },
        ValueKind::Tenant => {
            let text = without_braces(text);
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
        ValueKind::Scopes => {
            let scopes: Vec<&str> = text.split_whitespace().collect();
            // RFC 6749 section 3.3: printable ASCII without quote and backslash.
            if scopes.iter().any(|scope| {
                !scope
                    .bytes()
                    .all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
            }) {
                return Err("Scopes are separated by blanks and hold no quotes, commas as separators or letters outside ASCII.".into());
            }
            Ok(Some(scopes.join(" ")))
        }
        ValueKind::Number => match text.parse::<u64>() {
            Ok(number) if (1..=100_000).contains(&number) => Ok(Some(number.to_string())),
            _ => Err(format!("{} must be a whole number from 1.", field.label)),
        },
        ValueKind::Address => {
            let url = policy
                .parse(text, Purpose::Provider)
                .map_err(|refused| format!("{}: {refused}", field.label))?;
            Ok(Some(url.as_str().to_owned()))
        }
    }
}

/// A UUID as Windows writes it, without its braces.
fn without_braces(text: &str) -> &str {
    let inner = text
        .strip_prefix('{')
        .and_then(|text| text.strip_suffix('}'));
    inner.unwrap_or(text)
}

/// Validates one choice. The error is a sentence for the form.
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

/// Whether this is a UUID in the hyphenated form that Microsoft shows.
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

/// A client's text, safe to repeat in a message: at most 80 characters, no control characters.
fn shorten(text: &str) -> String {
    text.chars()
        .filter(|letter| !letter.is_control())
        .take(80)
        .collect()
}
