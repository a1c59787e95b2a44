//! Template for Atlassian Cloud: Jira and Confluence. Source: Atlassian's documentation of OAuth 2.0
//! (3LO). A wrong client secret is answered with `access_denied`, a dead refresh token with status
//! 403.

use super::{
    Config, Endpoints, Field, Group, Profile, Rotation, Steps, Template,
    parts::{
        self, CLIENT_ID, CLIENT_SECRET, CONFIDENTIAL, FOR_VIEWERS, OTHER_ADDRESS, SCOPES, text,
    },
    profile::{Identity, IdentityAddress, IdentityRequest, Meaning, RefreshTokenLife, Refusal},
};

/// The template `atlassian`.
pub static TEMPLATE: Template = Template {
    key: "atlassian",
    title: "Atlassian (Jira, Confluence)",
    short_title: "Atlassian",
    summary: "Issues and pages in Jira and Confluence Cloud, as the person who looks at the content.",
    monogram: "AT",
    group: Group::DeveloperTools,
    keywords: "jira confluence tickets wiki",
    fields: &[
        CLIENT_ID,
        Field {
            label: "Secret",
            hint: "Settings of the app. Stored encrypted, never shown again.",
            ..CLIENT_SECRET
        },
        Field {
            hint: "Separated by blanks, as chosen at the app. offline_access keeps people connected while they are away.",
            default: "read:jira-work read:me offline_access",
            ..SCOPES
        },
        Field {
            name: "atlassian_host",
            label: "Atlassian's address",
            ..OTHER_ADDRESS
        },
    ],
    choices: &[CONFIDENTIAL, FOR_VIEWERS],
    details: &["atlassian_host"],
    steps: Steps {
        register: (
            "Create an OAuth 2.0 app in Atlassian's developer console",
            "developer.atlassian.com → My apps → Create → OAuth 2.0 integration → Authorization. As its callback URL, enter exactly:",
        ),
        allow: (
            "Choose its permissions",
            "Permissions → Jira API or Confluence API → Configure, and User identity API with read:me. Distribution → Sharing, so that others than yourself can agree.",
        ),
        paste: "Paste what Atlassian shows you",
        shared_redirect: Some("With an address of your own in place of Atlassian's"),
        pkce: "always, with S256.",
    },
    mistakes: &[
        (
            "Only you can connect",
            "The app is not shared. Distribution → Edit → Sharing.",
        ),
        (
            "Content gets 401 from your site's address",
            "With OAuth, calls go to https://api.atlassian.com/ex/jira/… with the site's ID, not to the site itself.",
        ),
    ],
    profile: |_| PROFILE,
    endpoints,
    names: |_| parts::same_names("Atlassian", "AT"),
    capability,
    consents_link: Some((
        "https://id.atlassian.com/manage-profile/apps",
        "Open Atlassian's list of connected apps",
    )),
    approval: "in Atlassian's administration (Connected apps)",
    ..super::BASE
};

const PROFILE: Profile = Profile {
    authorize_parameters: &[("audience", "api.atlassian.com"), ("prompt", "consent")],
    rotation: Rotation::SingleUse,
    refresh_token_life: RefreshTokenLife::Sliding(90),
    refusals: &[
        Refusal::by_code("access_denied", Meaning::ClientRefused),
        Refusal {
            code: "unauthorized_client",
            subtype: "",
            about: "refresh token",
            meaning: Meaning::TokenRefused,
        },
    ],
    identity: Identity::Request(IdentityRequest {
        address: IdentityAddress::Fixed("https://api.atlassian.com/me"),
        subject: "account_id",
        labels: &["email", "name"],
    }),
    confidential_only: true,
    ..Profile::STANDARD
};

fn endpoints(config: &Config) -> Option<Endpoints> {
    parts::endpoints_at(
        text(config, "atlassian_host"),
        ["https://auth.atlassian.com", "/authorize"],
        ["https://auth.atlassian.com", "/oauth/token"],
        None,
    )
}

fn capability(scope: &str) -> Option<&'static str> {
    match scope {
        "read:jira-work" => Some("Read the Jira issues and projects that you can reach"),
        "write:jira-work" => Some("Create and change Jira issues as you"),
        "read:jira-user" => Some("See who works in Jira"),
        "read:me" => Some("See your name and e-mail address at Atlassian"),
        scope if scope.starts_with("read:") && scope.contains("confluence") => {
            Some("Read what you can reach in Confluence")
        }
        scope if scope.starts_with("write:") && scope.contains("confluence") => {
            Some("Create and change pages in Confluence as you")
        }
        _ => None,
    }
}
