//! Template for HubSpot. Its error responses carry the code in `status` instead of `error`. Source:
//! HubSpot's documentation of OAuth; what is not confirmed is named in the handbook.

use super::{
    Config, Endpoints, Field, Profile, Rotation, Steps, Template,
    parts::{
        self, CLIENT_ID, CLIENT_SECRET, CONFIDENTIAL, FOR_VIEWERS, OTHER_ADDRESS, SCOPES, text,
    },
    profile::{Meaning, Refusal, UnstatedLifetime},
};
use std::time::Duration;

/// The template `hubspot`.
pub static TEMPLATE: Template = Template {
    key: "hubspot",
    title: "HubSpot",
    short_title: "HubSpot",
    summary: "Contacts, companies and deals in HubSpot, as the person who looks at the content.",
    monogram: "HS",
    keywords: "crm marketing contacts",
    fields: &[
        CLIENT_ID,
        CLIENT_SECRET,
        Field {
            hint: "Separated by blanks, and exactly those that the app requires.",
            default: "oauth crm.objects.contacts.read",
            ..SCOPES
        },
        Field {
            name: "hubspot_host",
            label: "HubSpot's address",
            ..OTHER_ADDRESS
        },
    ],
    choices: &[CONFIDENTIAL, FOR_VIEWERS],
    details: &["hubspot_host"],
    steps: Steps {
        register: (
            "Create an app in a HubSpot developer account",
            "Apps → Create app → Auth → Redirect URLs. Enter exactly:",
        ),
        allow: (
            "Choose its scopes",
            "Auth → Scopes: the same ones as below; oauth is always among them.",
        ),
        paste: "Paste what HubSpot shows you",
        shared_redirect: Some("With an address of your own in place of HubSpot's"),
        pkce: "not with HubSpot, which does not know it.",
    },
    mistakes: &[(
        "The scopes are missing or do not match",
        "The scopes below and those of the app have to be the same.",
    )],
    profile: |_| PROFILE,
    endpoints,
    names: |_| parts::same_names("HubSpot", "HS"),
    capability: |scope| match scope {
        "crm.objects.contacts.read" => Some("Read the contacts that you can see"),
        "crm.objects.contacts.write" => Some("Create and change contacts"),
        "crm.objects.companies.read" => Some("Read the companies that you can see"),
        "crm.objects.deals.read" => Some("Read the deals that you can see"),
        "oauth" => Some("Learn which HubSpot account is yours"),
        _ => None,
    },
    approval: "in HubSpot (Settings → Integrations → Connected apps)",
    ..super::BASE
};

const PROFILE: Profile = Profile {
    rotation: Rotation::Never,
    unstated_lifetime: UnstatedLifetime::Assumed(Duration::from_secs(1800)),
    error_field: "status",
    refusals: &[
        Refusal::by_code("BAD_REFRESH_TOKEN", Meaning::TokenRefused),
        Refusal::by_code("BAD_AUTH_CODE", Meaning::TokenRefused),
        Refusal::by_code("BAD_CLIENT_ID", Meaning::ClientRefused),
        Refusal::by_code("BAD_CLIENT_SECRET", Meaning::ClientRefused),
        Refusal::by_code("MISMATCH_REDIRECT_URI_AUTH_CODE", Meaning::Misconfigured),
        Refusal::by_code("RATE_LIMIT", Meaning::Retry),
    ],
    uses_pkce: false,
    confidential_only: true,
    ..Profile::STANDARD
};

fn endpoints(config: &Config) -> Option<Endpoints> {
    parts::endpoints_at(
        text(config, "hubspot_host"),
        ["https://app.hubspot.com", "/oauth/authorize"],
        ["https://api.hubapi.com", "/oauth/v1/token"],
        None,
    )
}
