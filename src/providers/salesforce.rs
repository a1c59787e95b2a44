//! Template for Salesforce: a connected app or external client app of one org. Token responses have
//! no `expires_in`; apps need the `instance_url` beside the token. Source: Salesforce's help on the web
//! server, refresh token and client credentials flows.

use super::{
    Config, Endpoints, Field, Group, Profile, Rotation, ServiceGrant, Steps, Template,
    parts::{
        self, ADDRESS, CLIENT_ID, CLIENT_SECRET, CLIENT_TYPE, FOR_VIEWERS_OR_ITSELF, SCOPES, text,
    },
    profile::{Identity, IdentityAddress, IdentityRequest, Meaning, Refusal, UnstatedLifetime},
};
use crate::domain::{form::FieldError, integration::AuthType};
use std::time::Duration;
use url::Url;

/// The template `salesforce`.
pub static TEMPLATE: Template = Template {
    key: "salesforce",
    title: "Salesforce",
    short_title: "Salesforce",
    summary: "Accounts, contacts and reports in Salesforce, as the person who looks at the content.",
    monogram: "SF",
    group: Group::DataPlatforms,
    keywords: "crm soql",
    auth_types: &[AuthType::Viewer, AuthType::ServiceAccount],
    fields: &[
        Field {
            name: "sf_host_domain",
            label: "My Domain address",
            hint: "Setup → My Domain: https://example.my.salesforce.com, or https://example--uat.sandbox.my.salesforce.com for a sandbox.",
            ..ADDRESS
        },
        Field {
            label: "Consumer key",
            hint: "Manage consumer details.",
            ..CLIENT_ID
        },
        Field {
            label: "Consumer secret",
            ..CLIENT_SECRET
        },
        Field {
            hint: "Separated by blanks. refresh_token keeps people connected while they are away.",
            default: "refresh_token offline_access api web",
            only: Some(AuthType::Viewer),
            ..SCOPES
        },
    ],
    choices: &[CLIENT_TYPE, FOR_VIEWERS_OR_ITSELF],
    steps: Steps {
        register: (
            "Create an external client app in Salesforce",
            "Setup → External Client Apps → New → Enable OAuth. As its callback URL, enter exactly:",
        ),
        allow: (
            "Choose its scopes",
            "Manage user data via APIs (api), web, and Perform requests at any time (refresh_token, offline_access). Require PKCE. Under Policies, let the refresh token stay valid until revoked.",
        ),
        paste: "Paste what Salesforce shows you",
        shared_redirect: None,
        pkce: "always, with S256.",
    },
    mistakes: &[
        (
            "Sandboxes refuse the client",
            "A sandbox has its own address and its own app. The address above is the one of the org in which the app was made.",
        ),
        (
            "Connections end after some hours",
            "The app's policy ends refresh tokens. Set it to: valid until revoked.",
        ),
    ],
    profile: |_| PROFILE,
    service_grant: |integration| {
        (integration.auth_type == AuthType::ServiceAccount)
            .then_some(ServiceGrant::ClientCredentials)
    },
    endpoints,
    names: |_| parts::same_names("Salesforce", "SF"),
    check,
    capability,
    approval: "in Salesforce (Setup → Connected Apps OAuth Usage)",
    ..super::BASE
};

const PROFILE: Profile = Profile {
    rotation: Rotation::SingleUse,
    // As long as the org's session policy says, which no response does: two hours by default.
    unstated_lifetime: UnstatedLifetime::Assumed(Duration::from_secs(3600)),
    refusals: &[
        Refusal::by_code("invalid_client_id", Meaning::ClientRefused),
        Refusal::by_code("inactive_user", Meaning::Policy),
        Refusal::by_code("inactive_org", Meaning::Misconfigured),
        Refusal::by_code("redirect_uri_mismatch", Meaning::Misconfigured),
        Refusal::by_code("rate_limit_exceeded", Meaning::Retry),
    ],
    extra_fields: &["instance_url"],
    identity: Identity::Request(IdentityRequest {
        address: IdentityAddress::OnTokenHost("/services/oauth2/userinfo"),
        subject: "user_id",
        labels: &["preferred_username", "email"],
    }),
    ..Profile::STANDARD
};

fn endpoints(config: &Config) -> Option<Endpoints> {
    parts::endpoints_below(
        text(config, "sf_host_domain"),
        "/services/oauth2/authorize",
        "/services/oauth2/token",
        Some("/services/oauth2/revoke"),
    )
}

/// Finds the address that people see in the browser instead of My Domain.
fn check(config: &Config, problems: &mut Vec<FieldError>) {
    let host = Url::parse(text(config, "sf_host_domain")).ok();
    let host = host.as_ref().and_then(|url| url.host_str()).unwrap_or("");
    if host.ends_with(".lightning.force.com") {
        problems.push(FieldError::new(
            "sf_host_domain",
            "This is the address of the pages. Enter the one that ends in .my.salesforce.com.",
        ));
    }
}

fn capability(scope: &str) -> Option<&'static str> {
    match scope {
        "api" => Some("Read and change the records in Salesforce that you may read and change"),
        "web" => Some("Open Salesforce's pages as you"),
        "full" => Some("Do in Salesforce what you may do there"),
        "id" => Some("Learn which account you signed in with"),
        _ => None,
    }
}
