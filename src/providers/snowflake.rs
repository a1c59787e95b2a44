//! Template for Snowflake's own OAuth: a security integration of type custom client. Sources:
//! Snowflake's documentation of OAuth for custom clients and of single-use refresh tokens, and its
//! Python connector.
//!
//! The refresh token ends a fixed time after the sign-in. Without single-use tokens it stays the same;
//! with them each refresh ends all tokens before it.

use super::{
    Choice, Config, Endpoints, Field, Group, Profile, Rotation, Steps, Template,
    parts::{self, ADDRESS, CHOICE, CLIENT_ID, CLIENT_SECRET, CONFIDENTIAL, SCOPES, text},
    profile::{RefreshTokenLife, UnstatedLifetime},
};
use crate::domain::form::FieldError;
use std::time::Duration;
use url::Url;

/// The template `snowflake`.
pub static TEMPLATE: Template = Template {
    key: "snowflake",
    title: "Snowflake",
    short_title: "Snowflake",
    summary: "Queries in Snowflake as the person who looks at the content, with that person's role.",
    monogram: "SN",
    group: Group::DataPlatforms,
    keywords: "sql warehouse data cloud",
    fields: &[
        Field {
            name: "account_url",
            label: "Account address",
            hint: "https://ORGANISATION-ACCOUNT.snowflakecomputing.com",
            ..ADDRESS
        },
        Field {
            hint: "OAUTH_CLIENT_ID.",
            ..CLIENT_ID
        },
        Field {
            hint: "OAUTH_CLIENT_SECRET. Stored encrypted, never shown again.",
            ..CLIENT_SECRET
        },
        Field {
            hint: "Separated by blanks. refresh_token keeps people connected; session:role:ANALYST asks for one role.",
            default: "refresh_token",
            ..SCOPES
        },
    ],
    choices: &[
        CONFIDENTIAL,
        Choice {
            name: "refresh_tokens",
            label: "Refresh tokens",
            hint: "As the security integration says: OAUTH_SINGLE_USE_REFRESH_TOKENS_REQUIRED.",
            values: &[
                ("never", "Always the same one"),
                (
                    "single_use",
                    "Single-use: each refresh ends the tokens before it",
                ),
            ],
            default: "never",
            ..CHOICE
        },
    ],
    details: &["scopes", "refresh_tokens"],
    sends_secret_in_header: true,
    steps: Steps {
        register: (
            "Create a security integration in Snowflake",
            "As ACCOUNTADMIN: CREATE SECURITY INTEGRATION valetkey TYPE = OAUTH ENABLED = TRUE OAUTH_CLIENT = CUSTOM OAUTH_CLIENT_TYPE = 'CONFIDENTIAL' OAUTH_ISSUE_REFRESH_TOKENS = TRUE OAUTH_REFRESH_TOKEN_VALIDITY = 7776000 OAUTH_REDIRECT_URI = '…', with exactly:",
        ),
        allow: (
            "Read its client ID and secret",
            "SELECT SYSTEM$SHOW_OAUTH_CLIENT_SECRETS('VALETKEY'). The roles ACCOUNTADMIN and SECURITYADMIN cannot be used through it.",
        ),
        paste: "Paste what Snowflake shows you",
        shared_redirect: None,
        pkce: "always, with S256.",
    },
    mistakes: &[
        (
            "invalid_scope",
            "Snowflake's own OAuth does not know offline_access: the scope is refresh_token.",
        ),
        (
            "Blocked roles",
            "Accountadmins sign in with another default role, or ask with session:role:… for one.",
        ),
    ],
    profile,
    endpoints,
    names: |_| parts::same_names("Snowflake", "SN"),
    check,
    capability: |scope| {
        scope.starts_with("session:role").then_some(
            "Query Snowflake with one of your roles: it sees and changes what that role may",
        )
    },
    approval: "in Snowflake (the security integration)",
    ..super::BASE
};

fn profile(config: &Config) -> Profile {
    let single_use = text(config, "refresh_tokens") == "single_use";
    Profile {
        rotation: if single_use {
            Rotation::SingleUse
        } else {
            Rotation::Never
        },
        refresh_ends_access_token: single_use,
        unstated_lifetime: UnstatedLifetime::Assumed(Duration::from_secs(600)),
        refresh_token_life: if single_use {
            RefreshTokenLife::Sliding(90)
        } else {
            RefreshTokenLife::Fixed(90)
        },
        account_field: "username",
        confidential_only: true,
        ..Profile::STANDARD
    }
}

fn endpoints(config: &Config) -> Option<Endpoints> {
    parts::endpoints_below(
        text(config, "account_url"),
        "/oauth/authorize",
        "/oauth/token-request",
        None,
    )
}

/// Finds the address of the pages, and a scope that Snowflake refuses.
fn check(config: &Config, problems: &mut Vec<FieldError>) {
    let host = Url::parse(text(config, "account_url")).ok();
    let host = host.as_ref().and_then(|url| url.host_str()).unwrap_or("");
    if host == "app.snowflake.com" {
        problems.push(FieldError::new(
            "account_url",
            "This is the address of Snowsight. Enter the account's own, which ends in .snowflakecomputing.com (Account → View account details).",
        ));
    }
    let mut scopes = text(config, "scopes").split_whitespace();
    if scopes.any(|scope| scope == "offline_access") {
        problems.push(FieldError::new(
            "scopes",
            "Snowflake does not know offline_access. Enter refresh_token.",
        ));
    }
}
