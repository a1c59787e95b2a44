//! Template for Databricks' own OAuth (user-to-machine): an OAuth application registered in the
//! Databricks account console, without Microsoft Entra ID. Works for workspaces on every cloud.
//!
//! Endpoints and scopes as in Databricks' documentation of OAuth user-to-machine; refresh tokens of
//! such applications may work once, so each is taken to.

use super::{
    Choice, ClientAuthentication, Company, Config, Endpoints, Field, Group, Names, Profile, Reach,
    ServiceGrant, Steps, Template, ValueKind, WorkloadFiles,
    parts::{self, ADDRESS, CLIENT_ID, CLIENT_SECRET, FIELD, FOR_VIEWERS_OR_ITSELF, SCOPES, text},
    profile::{Identity, IdentityAddress, IdentityRequest, Meaning, Refusal},
};
use crate::domain::{
    form::FieldError,
    integration::{AuthType, Integration},
};
use url::Url;

/// The template `databricks`.
pub static TEMPLATE: Template = Template {
    key: "databricks",
    title: "Databricks (own OAuth)",
    short_title: "Databricks",
    summary: "Signs people in at Databricks itself, on AWS, Google Cloud or Azure, so that content queries it as the person who looks at it.",
    monogram: "DB",
    group: Group::DataPlatforms,
    keywords: "spark sql warehouse lakehouse unity",
    auth_types: &[AuthType::Viewer, AuthType::ServiceAccount],
    reach: Reach::Companies(&[Company::Databricks]),
    fields: &[
        Field {
            name: "databricks_host",
            label: "Workspace address",
            hint: "As in the browser's address bar, such as https://dbc-a1b2c3d4-e5f6.cloud.databricks.com. For all workspaces of an account: the account console's address.",
            ..ADDRESS
        },
        Field {
            name: "account_id",
            label: "Account ID",
            hint: "Only with the account console's address. It stands in the console's menu, top right.",
            required: false,
            shape: ValueKind::Uuid,
            ..FIELD
        },
        Field {
            hint: "Account console → Settings → App connections, in the row of your application. For a service account: the service principal's application ID; nothing, if a federation policy of the whole account decides.",
            required: false,
            ..CLIENT_ID
        },
        Field {
            hint: "Databricks shows it once, right after the application was added. Stored encrypted, never shown again.",
            ..CLIENT_SECRET
        },
        Field {
            hint: "Separated by blanks. all-apis allows what the person may do; offline_access keeps people connected while they are away.",
            default: "all-apis offline_access",
            ..SCOPES
        },
    ],
    choices: &[
        Choice {
            hint: "Confidential clients prove themselves with a secret. By federation Databricks is told to trust this portal, and no secret is stored.",
            values: &[
                ("Confidential", "Confidential"),
                (
                    "Federated",
                    "By a federation policy (service accounts only)",
                ),
                ("Public", "Public"),
            ],
            only: None,
            ..parts::CLIENT_TYPE
        },
        FOR_VIEWERS_OR_ITSELF,
    ],
    // Connect has not published its name for it.
    aliases: &[
        ("host", "databricks_host"),
        ("workspace_url", "databricks_host"),
    ],
    details: &["account_id", "scopes", "auth_mode"],
    steps: Steps {
        register: (
            "Add an application in the Databricks account console",
            "Settings → App connections → Add connection. As its redirect URL, enter exactly:",
        ),
        allow: (
            "Give it access",
            "Access scopes: All APIs, or SQL for queries only. Generate a client secret. An account administrator has to do this.",
        ),
        paste: "Paste what Databricks shows you",
        shared_redirect: None,
        pkce: "always, with S256.",
    },
    mistakes: &[
        (
            "invalid_scope",
            "Only scopes that were chosen for the application may be asked for.",
        ),
        (
            "Connections end sooner than expected",
            "The application's refresh tokens have a life of their own: App connections → Edit.",
        ),
    ],
    profile: |_| PROFILE,
    service_grant,
    // As the Databricks SDK reads them (`file-oidc`).
    workload_files: |integration| {
        let mut variables = vec![
            (
                "DATABRICKS_HOST",
                integration.setting("databricks_host").to_owned(),
            ),
            ("DATABRICKS_AUTH_TYPE", "file-oidc".to_owned()),
        ];
        // Without it an account-wide policy decides.
        if !integration.setting("client_id").is_empty() {
            let client = integration.setting("client_id").to_owned();
            variables.push(("DATABRICKS_CLIENT_ID", client));
        }
        Some(WorkloadFiles {
            path_variable: "DATABRICKS_OIDC_TOKEN_FILEPATH",
            variables,
        })
    },
    endpoints,
    names,
    check,
    secret_problem,
    capability,
    approval: "in the Databricks account console (Settings → App connections)",
    ..super::BASE
};

const PROFILE: Profile = Profile {
    // The same code is also used for malformed requests.
    refusals: &[Refusal {
        code: "invalid_request",
        subtype: "",
        about: "refresh token",
        meaning: Meaning::TokenRefused,
    }],
    identity: Identity::Request(IdentityRequest {
        address: IdentityAddress::OnTokenHost("/api/2.0/preview/scim/v2/Me"),
        subject: "id",
        labels: &["userName"],
    }),
    ..Profile::STANDARD
};

/// With a secret the client's own credentials, else an exchange that a federation policy allows.
fn service_grant(integration: &Integration) -> Option<ServiceGrant> {
    if integration.auth_type != AuthType::ServiceAccount {
        return None;
    }
    let federated = super::client_authentication(integration) == ClientAuthentication::Federated;
    Some(if federated {
        ServiceGrant::TokenExchange
    } else {
        ServiceGrant::ClientCredentials
    })
}

fn endpoints(config: &Config) -> Option<Endpoints> {
    let host = Url::parse(text(config, "databricks_host")).ok()?;
    let base = match text(config, "account_id") {
        "" => "/oidc/v1".to_owned(),
        account => format!("/oidc/accounts/{account}/v1"),
    };
    let address = |last: &str| host.join(&format!("{base}/{last}")).ok();
    Some(Endpoints {
        authorize: address("authorize")?,
        token: address("token")?,
        // Not in Databricks' discovery document.
        revoke: None,
        has_known_host: false,
    })
}

fn names(_: &Config) -> Names {
    Names {
        service: "Databricks".into(),
        provider: "Databricks".into(),
        provider_full: "Databricks".into(),
        monogram: "DB",
    }
}

fn capability(scope: &str) -> Option<&'static str> {
    match scope {
        "all-apis" => Some("Do in Databricks what you may do there, including changes"),
        "sql" => Some("Run queries with your permissions: it sees what you may see, and no more"),
        _ => None,
    }
}

/// Finds an account console without its account, and an account at a workspace's address.
fn check(config: &Config, problems: &mut Vec<FieldError>) {
    let for_itself = text(config, "auth_type") == AuthType::ServiceAccount.as_str();
    match (text(config, "auth_mode"), for_itself) {
        ("Federated", false) => problems.push(FieldError::new(
            "auth_mode",
            "Federation policies are for service accounts. Enter a client secret for viewers.",
        )),
        ("Public", true) => problems.push(FieldError::new(
            "auth_mode",
            "A service account has to prove itself: choose a secret or a federation policy.",
        )),
        _ => {}
    }
    // A federation policy of the whole account names the service principal itself.
    if text(config, "client_id").is_empty() && text(config, "auth_mode") != "Federated" {
        problems.push(FieldError::new("client_id", "Enter the client ID."));
    }
    let host = Url::parse(text(config, "databricks_host")).ok();
    let is_console = host
        .as_ref()
        .and_then(|url| url.host_str())
        .is_some_and(|host| host.starts_with("accounts."));
    match (is_console, text(config, "account_id").is_empty()) {
        (true, true) => problems.push(FieldError::new(
            "account_id",
            "This is the account console's address: enter the account ID too, or a workspace's address.",
        )),
        (false, false) if host.is_some() => problems.push(FieldError::new(
            "account_id",
            "Leave this empty with a workspace's address: it belongs to the account console.",
        )),
        _ => {}
    }
}

/// Recognises a personal access token.
fn secret_problem(secret: &str) -> Option<&'static str> {
    (secret.starts_with("dapi") && secret.len() > 30).then_some(
        "This looks like a personal access token. Enter the client secret of the application: it is made in the account console.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::egress::Policy;
    use serde_json::json;

    fn config(value: serde_json::Value) -> Config {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn a_workspace_and_an_account_have_their_own_endpoints() {
        let workspace = config(
            json!({"databricks_host": "https://dbc-1.cloud.databricks.com/?o=12", "client_id": "c"}),
        );
        let full = TEMPLATE.validate(&workspace, &Policy::default()).unwrap();
        let found = endpoints(&full).unwrap();
        assert_eq!(
            [found.authorize.as_str(), found.token.as_str()],
            [
                "https://dbc-1.cloud.databricks.com/oidc/v1/authorize",
                "https://dbc-1.cloud.databricks.com/oidc/v1/token"
            ]
        );
        assert!(
            !found.has_known_host,
            "each integration has its own callback"
        );
        let account = "3f0c2a51-7e0b-4c7e-9b1e-0a5f7f3d2c11";
        let console = config(
            json!({"databricks_host": "https://accounts.cloud.databricks.com", "client_id": "c", "account_id": account}),
        );
        let full = TEMPLATE.validate(&console, &Policy::default()).unwrap();
        assert_eq!(
            endpoints(&full).unwrap().token.as_str(),
            format!("https://accounts.cloud.databricks.com/oidc/accounts/{account}/v1/token")
        );
    }

    #[test]
    fn an_account_console_needs_its_account_and_a_workspace_none() {
        let problem = |host: &str, account: &str| {
            let given =
                config(json!({"databricks_host": host, "client_id": "c", "account_id": account}));
            let problems = TEMPLATE.validate(&given, &Policy::default());
            problems.err().map(|problems| problems[0].key.clone())
        };
        let account = "3f0c2a51-7e0b-4c7e-9b1e-0a5f7f3d2c11";
        assert_eq!(
            problem("https://accounts.cloud.databricks.com", ""),
            Some("account_id".into())
        );
        assert_eq!(
            problem("https://dbc-1.cloud.databricks.com", account),
            Some("account_id".into())
        );
        assert_eq!(problem("https://dbc-1.cloud.databricks.com", ""), None);
        assert!(secret_problem("dapi0123456789abcdef0123456789abcdef").is_some());
        assert!(secret_problem("dose0123456789abcdef0123456789abcdef").is_none());
    }
}
