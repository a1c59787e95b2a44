//! What the templates for Google share: endpoints, and how Google treats refresh tokens. Source:
//! Google's documentation of OAuth 2.0 for web server applications and its discovery document.
//!
//! A refresh token comes only with `access_type=offline`, and again only with `prompt=consent`. It
//! stays the same; per account and client there are a hundred, and the oldest dies without a word.

use super::{
    Company, Config, Endpoints, Field, Group, Names, Profile, Reach, Rotation, ServiceGrant, Steps,
    Template,
    parts::{self, FIELD, text},
    profile::{Meaning, RefreshTokenLife, Refusal, UnstatedLifetime},
};
use crate::domain::{
    form::FieldError,
    integration::{AuthType, Integration},
};
use std::time::Duration;
use url::Url;

pub const CLIENT_ID: Field = Field {
    hint: "Ends in .apps.googleusercontent.com.",
    only: Some(AuthType::Viewer),
    ..parts::CLIENT_ID
};
pub const CLIENT_SECRET: Field = Field {
    hint: "Begins with GOCSPX-. Stored encrypted, never shown again.",
    only: Some(AuthType::Viewer),
    ..parts::CLIENT_SECRET
};
/// For private endpoints and tests.
pub const HOST: Field = Field {
    name: "google_host",
    label: "Google's address",
    hint: "Only for tests and proxies of your own; replaces Google's addresses.",
    ..parts::OTHER_ADDRESS
};
pub const PROVIDER: Field = Field {
    name: "workload_provider",
    label: "Workload identity provider",
    hint: "//iam.googleapis.com/projects/…/locations/global/workloadIdentityPools/…/providers/…: the provider in which this portal is the issuer.",
    only: Some(AuthType::ServiceAccount),
    ..FIELD
};
pub const SERVICE_ACCOUNT: Field = Field {
    name: "service_account",
    label: "Service account",
    hint: "Optional. The e-mail address of the one to act as; without it the workload identity itself has to have access.",
    required: false,
    only: Some(AuthType::ServiceAccount),
    ..FIELD
};

/// A template for one of Google's services (struct update syntax).
pub const BASE: Template = Template {
    group: Group::Google,
    auth_types: &[AuthType::Viewer, AuthType::ServiceAccount],
    choices: &[parts::CONFIDENTIAL, parts::FOR_VIEWERS_OR_ITSELF],
    reach: Reach::Companies(&[Company::Google]),
    details: &[
        "scopes",
        "google_host",
        "workload_provider",
        "service_account",
    ],
    steps: Steps {
        register: (
            "Create an OAuth client in the Google Cloud console",
            "APIs & Services → Credentials → Create credentials → OAuth client ID → Web application. As its authorised redirect URI, enter exactly:",
        ),
        allow: (
            "Enable the API and fill in the consent screen",
            "APIs & Services → Library: enable the API. OAuth consent screen: Internal for your own organisation; otherwise publish it.",
        ),
        paste: "Paste what Google shows you",
        shared_redirect: Some("With an address of your own in place of Google's"),
        pkce: "always, with S256.",
    },
    mistakes: &[
        (
            "People are asked again every seven days",
            "The consent screen is in status Testing. Publish the app, or make it Internal.",
        ),
        (
            "Error 400: redirect_uri_mismatch",
            "Enter the address above under Authorised redirect URIs, letter by letter. It takes some minutes.",
        ),
        (
            "A person with many connections loses the oldest",
            "Google keeps a hundred refresh tokens of one account and client. Use a client of its own for each portal.",
        ),
    ],
    profile: |_| PROFILE,
    service_grant,
    audience: |integration| format!("https:{}", integration.setting("workload_provider")),
    endpoints,
    check,
    secret_problem: |secret| {
        secret
            .ends_with(".apps.googleusercontent.com")
            .then_some("This is the client ID. The secret begins with GOCSPX-.")
    },
    issuer: |_| Some("https://accounts.google.com".into()),
    consents_link: Some((
        "https://myaccount.google.com/connections",
        "Open Google's list of connected apps",
    )),
    approval: "in the Google Workspace admin console (Security → API controls → App access control)",
    ..super::BASE
};

const PROFILE: Profile = Profile {
    authorize_parameters: &[("access_type", "offline"), ("prompt", "consent")],
    rotation: Rotation::Never,
    unstated_lifetime: UnstatedLifetime::Assumed(Duration::from_secs(3600)),
    // Only with time-based access.
    refresh_token_life: RefreshTokenLife::Stated("refresh_token_expires_in"),
    refusals: &[
        Refusal {
            code: "invalid_grant",
            subtype: "invalid_rapt",
            about: "",
            meaning: Meaning::Policy,
        },
        Refusal {
            code: "invalid_grant",
            subtype: "rapt_required",
            about: "",
            meaning: Meaning::Policy,
        },
        Refusal::by_code("admin_policy_enforced", Meaning::Misconfigured),
    ],
    confidential_only: true,
    ..Profile::STANDARD
};

fn service_grant(integration: &Integration) -> Option<ServiceGrant> {
    let account = integration.setting("service_account");
    (integration.auth_type == AuthType::ServiceAccount).then(|| ServiceGrant::GoogleWorkload {
        provider: integration.setting("workload_provider").to_owned(),
        service_account: (!account.is_empty()).then(|| account.to_owned()),
    })
}

fn endpoints(config: &Config) -> Option<Endpoints> {
    parts::endpoints_at(
        text(config, "google_host"),
        ["https://accounts.google.com", "/o/oauth2/v2/auth"],
        ["https://oauth2.googleapis.com", "/token"],
        Some(["https://oauth2.googleapis.com", "/revoke"]),
    )
}

/// Google's Security Token Service, and the API that brings a service account's tokens: below the
/// address that replaces Google's, if there is one.
pub fn workload_addresses(integration: &Integration) -> Option<(Url, Url)> {
    let (sts, credentials) = match integration.setting("google_host") {
        "" => (
            Url::parse("https://sts.googleapis.com/").ok()?,
            Url::parse("https://iamcredentials.googleapis.com/").ok()?,
        ),
        host => (Url::parse(host).ok()?, Url::parse(host).ok()?),
    };
    Some((sts.join("/v1/token").ok()?, credentials))
}

/// The names of one of Google's services.
pub fn names(service: &str, monogram: &'static str) -> Names {
    Names {
        service: service.to_owned(),
        provider: "Google".into(),
        provider_full: "Google".into(),
        monogram,
    }
}

/// Finds another form of the provider's name.
fn check(config: &Config, problems: &mut Vec<FieldError>) {
    let provider = text(config, "workload_provider");
    if !provider.is_empty() && !provider.starts_with("//iam.googleapis.com/projects/") {
        problems.push(FieldError::new(
            "workload_provider",
            "Enter the provider's full name. It begins with //iam.googleapis.com/projects/.",
        ));
    }
}

/// For services outside Google Cloud, which know service accounts but no workload identities.
pub fn check_with_account(config: &Config, problems: &mut Vec<FieldError>) {
    check(config, problems);
    let for_itself = text(config, "auth_type") == AuthType::ServiceAccount.as_str();
    if for_itself && text(config, "service_account").is_empty() {
        problems.push(FieldError::new(
            "service_account",
            "Enter a service account: this service does not take the workload identity itself.",
        ));
    }
}

/// What Google's scopes allow, for all of its templates.
pub fn capability(scope: &str) -> Option<&'static str> {
    Some(
        match scope.strip_prefix("https://www.googleapis.com/auth/")? {
            "bigquery" => "Read, change and delete the BigQuery data that you can reach",
            "bigquery.readonly" => "Read the BigQuery data that you can reach",
            "bigquery.insertdata" => "Add rows to the BigQuery tables that you may add to",
            "cloud-platform" => "Do in Google Cloud what you may do there, including changes",
            "drive" => "See, change and delete all your files in Google Drive",
            "drive.readonly" => "See all your files in Google Drive",
            "drive.file" => "Use the files in Google Drive that you choose for it",
            "spreadsheets" => "See, change and delete all your spreadsheets",
            "spreadsheets.readonly" => "See all your spreadsheets",
            "userinfo.email" => "See your e-mail address",
            "userinfo.profile" => "See your name",
            _ => return None,
        },
    )
}
