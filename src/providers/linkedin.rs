//! Template for LinkedIn. Tokens last two months, and only approved applications get refresh tokens,
//! whose life does not move when they are used.

use super::{
    Field, Profile, Rotation, Steps, Template,
    parts::{
        self, CLIENT_ID, CLIENT_SECRET, CONFIDENTIAL, FOR_VIEWERS, OTHER_ADDRESS, SCOPES, text,
    },
    profile::{RefreshTokenLife, UnstatedLifetime},
};
use std::time::Duration;

/// The template `linkedin`.
pub static TEMPLATE: Template = Template {
    key: "linkedin",
    title: "LinkedIn",
    short_title: "LinkedIn",
    summary: "Profiles, pages and posts at LinkedIn, as the person who looks at the content.",
    monogram: "LI",
    keywords: "social network marketing",
    fields: &[
        CLIENT_ID,
        Field {
            label: "Primary client secret",
            ..CLIENT_SECRET
        },
        Field {
            hint: "Separated by blanks, as the app's products allow.",
            default: "openid profile email",
            ..SCOPES
        },
        Field {
            name: "linkedin_host",
            label: "LinkedIn's address",
            ..OTHER_ADDRESS
        },
    ],
    choices: &[CONFIDENTIAL, FOR_VIEWERS],
    details: &["linkedin_host"],
    steps: Steps {
        register: (
            "Create an app at LinkedIn",
            "developer.linkedin.com → My apps → Auth → Authorized redirect URLs. Enter exactly:",
        ),
        allow: (
            "Request its products",
            "Products → Sign In with LinkedIn using OpenID Connect, and those that content needs.",
        ),
        paste: "Paste what LinkedIn shows you",
        shared_redirect: Some("With an address of your own in place of LinkedIn's"),
        pkce: "not with LinkedIn, which does not know it for this kind of app.",
    },
    mistakes: &[(
        "People are asked again every two months",
        "LinkedIn gives refresh tokens to approved applications only. Nothing is wrong.",
    )],
    profile: |_| Profile {
        rotation: Rotation::Never,
        unstated_lifetime: UnstatedLifetime::Assumed(Duration::from_secs(3600)),
        refresh_token_life: RefreshTokenLife::Stated("refresh_token_expires_in"),
        uses_pkce: false,
        confidential_only: true,
        ..Profile::STANDARD
    },
    endpoints: |config| {
        parts::endpoints_at(
            text(config, "linkedin_host"),
            ["https://www.linkedin.com", "/oauth/v2/authorization"],
            ["https://www.linkedin.com", "/oauth/v2/accessToken"],
            None,
        )
    },
    names: |_| parts::same_names("LinkedIn", "LI"),
    capability: |scope| match scope {
        "w_member_social" => Some("Post, comment and react as you"),
        "r_organization_social" => Some("Read the pages of your organisation"),
        _ => None,
    },
    consents_link: Some((
        "https://www.linkedin.com/psettings/permitted-services",
        "Open LinkedIn's list of permitted services",
    )),
    approval: "at LinkedIn (the app's page → Products)",
    ..super::BASE
};
