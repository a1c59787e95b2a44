//! Template for GitLab, at gitlab.com or on a server of one's own. A refresh ends both tokens before
//! it, and repeats the redirect URI, as GitLab's documentation of its OAuth 2.0 provider says.

use super::{
    Config, Endpoints, Field, Group, Profile, Rotation, Steps, Template,
    parts::{self, ADDRESS, CLIENT_ID, CLIENT_SECRET, CLIENT_TYPE, FOR_VIEWERS, SCOPES, text},
    profile::{Identity, IdentityAddress, IdentityRequest, UnstatedLifetime},
};
use std::time::Duration;

/// The template `gitlab`.
pub static TEMPLATE: Template = Template {
    key: "gitlab",
    title: "GitLab",
    short_title: "GitLab",
    summary: "Projects, issues and pipelines on GitLab, as the person who looks at the content.",
    monogram: "GL",
    group: Group::DeveloperTools,
    keywords: "git repository",
    fields: &[
        Field {
            label: "Application ID",
            hint: "As GitLab shows it after the application was saved.",
            ..CLIENT_ID
        },
        Field {
            label: "Secret",
            hint: "Begins with gloas-. Stored encrypted, never shown again.",
            ..CLIENT_SECRET
        },
        Field {
            hint: "Separated by blanks, as ticked at the application: read_api, or api to change things.",
            default: "read_api",
            ..SCOPES
        },
        Field {
            name: "gitlab_host",
            label: "GitLab address",
            hint: "Only for a server of your own: https://gitlab.example.org.",
            required: false,
            pattern: "",
            ..ADDRESS
        },
    ],
    choices: &[CLIENT_TYPE, FOR_VIEWERS],
    details: &["auth_mode"],
    steps: Steps {
        register: (
            "Add an application in GitLab",
            "Your group → Settings → Applications (or Admin → Applications). As its redirect URI, enter exactly:",
        ),
        allow: (
            "Tick its scopes",
            "Tick Confidential, and those scopes that content needs.",
        ),
        paste: "Paste what GitLab shows you",
        shared_redirect: Some("With an address of your own GitLab"),
        pkce: "always, with S256.",
    },
    mistakes: &[(
        "The requested scope is invalid",
        "Only scopes that are ticked at the application may be asked for. Tick it there, or leave it out here.",
    )],
    profile: |_| PROFILE,
    endpoints,
    names: |_| parts::same_names("GitLab", "GL"),
    capability,
    consents_link: Some((
        "https://gitlab.com/-/user_settings/applications",
        "Open GitLab's list of authorised applications",
    )),
    approval: "in GitLab (Admin → Applications)",
    ..super::BASE
};

const PROFILE: Profile = Profile {
    rotation: Rotation::SingleUse,
    refresh_ends_access_token: true,
    unstated_lifetime: UnstatedLifetime::Assumed(Duration::from_secs(7200)),
    sends_redirect_uri_at_refresh: true,
    identity: Identity::Request(IdentityRequest {
        address: IdentityAddress::OnTokenHost("/api/v4/user"),
        subject: "id",
        labels: &["username", "email"],
    }),
    ..Profile::STANDARD
};

fn endpoints(config: &Config) -> Option<Endpoints> {
    parts::endpoints_at(
        text(config, "gitlab_host"),
        ["https://gitlab.com", "/oauth/authorize"],
        ["https://gitlab.com", "/oauth/token"],
        Some(["https://gitlab.com", "/oauth/revoke"]),
    )
}

fn capability(scope: &str) -> Option<&'static str> {
    match scope {
        "api" => Some("Read and change all that you can reach in GitLab"),
        "read_api" => Some("Read all that you can reach in GitLab"),
        "read_user" => Some("See your profile in GitLab"),
        "read_repository" => Some("Read the repositories that you can reach"),
        "write_repository" => Some("Change the repositories that you may change"),
        _ => None,
    }
}
