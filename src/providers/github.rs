//! Template for GitHub: GitHub Apps, whose tokens last eight hours and are refreshed, and OAuth Apps,
//! whose tokens have no end. Source: GitHub's documentation of both; refusals as in the threads that
//! the handbook names.
//!
//! A refresh ends the access token before it at once, and a dead refresh token is answered with
//! status 200 and `bad_refresh_token`.

use super::{
    Config, Endpoints, Field, Group, Profile, Rotation, Steps, Template,
    parts::{self, ADDRESS, CLIENT_ID, CLIENT_SECRET, CONFIDENTIAL, FOR_VIEWERS, SCOPES, text},
    profile::{
        Identity, IdentityAddress, IdentityRequest, Meaning, RefreshTokenLife, Refusal,
        RevocationKind, UnstatedLifetime,
    },
};

/// The template `github`.
pub static TEMPLATE: Template = Template {
    key: "github",
    title: "GitHub",
    short_title: "GitHub",
    summary: "Repositories, issues and pull requests on GitHub or GitHub Enterprise, as the person who looks at the content.",
    monogram: "GH",
    group: Group::DeveloperTools,
    keywords: "git repository enterprise",
    fields: &[
        Field {
            hint: "Of a GitHub App (begins with Iv) or of an OAuth App.",
            ..CLIENT_ID
        },
        Field {
            hint: "Client secrets → Generate a new client secret. Stored encrypted, never shown again.",
            ..CLIENT_SECRET
        },
        Field {
            hint: "Only for an OAuth App: a GitHub App has permissions instead. Such as repo or read:org.",
            required: false,
            ..SCOPES
        },
        Field {
            name: "github_host",
            label: "GitHub Enterprise address",
            hint: "Only for a server of your own: https://github.example.org.",
            required: false,
            pattern: "",
            ..ADDRESS
        },
    ],
    choices: &[CONFIDENTIAL, FOR_VIEWERS],
    details: &["scopes"],
    steps: Steps {
        register: (
            "Register a GitHub App",
            "Settings → Developer settings → GitHub Apps → New GitHub App. As its callback URL, enter exactly:",
        ),
        allow: (
            "Choose its permissions",
            "Only those that content needs. Keep “Expire user authorization tokens” ticked, switch the webhook off, and install the app where the repositories are.",
        ),
        paste: "Paste what GitHub shows you",
        shared_redirect: Some("With an address of GitHub Enterprise"),
        pkce: "always, with S256.",
    },
    mistakes: &[
        (
            "The redirect_uri is not associated with this application",
            "Enter the address above as callback URL. A GitHub App may have ten of them.",
        ),
        (
            "Content sees no private repositories",
            "The app is not installed there. Install App → choose the organisation and its repositories.",
        ),
    ],
    profile: |_| PROFILE,
    endpoints,
    names: |_| parts::same_names("GitHub", "GH"),
    capability,
    consents_link: Some((
        "https://github.com/settings/apps/authorizations",
        "Open GitHub's list of authorised apps",
    )),
    approval: "in the organisation's settings (Third-party access)",
    ..super::BASE
};

const PROFILE: Profile = Profile {
    rotation: Rotation::SingleUse,
    refresh_ends_access_token: true,
    unstated_lifetime: UnstatedLifetime::Unlimited,
    refresh_token_life: RefreshTokenLife::Stated("refresh_token_expires_in"),
    refusals: &[
        Refusal::by_code("bad_refresh_token", Meaning::TokenRefused),
        Refusal::by_code("bad_verification_code", Meaning::TokenRefused),
        Refusal::by_code("incorrect_client_credentials", Meaning::ClientRefused),
        Refusal::by_code("redirect_uri_mismatch", Meaning::Misconfigured),
        Refusal::by_code("unverified_user_email", Meaning::Policy),
    ],
    revocation: RevocationKind::GithubGrant,
    identity: Identity::Request(IdentityRequest {
        address: IdentityAddress::Github("/user"),
        subject: "id",
        labels: &["login"],
    }),
    confidential_only: true,
    ..Profile::STANDARD
};

fn endpoints(config: &Config) -> Option<Endpoints> {
    let client = text(config, "client_id");
    match text(config, "github_host") {
        "" => parts::fixed_endpoints(
            "https://github.com/login/oauth/authorize",
            "https://github.com/login/oauth/access_token",
            Some(&format!(
                "https://api.github.com/applications/{client}/grant"
            )),
        ),
        host => parts::endpoints_below(
            host,
            "/login/oauth/authorize",
            "/login/oauth/access_token",
            Some(&format!("/api/v3/applications/{client}/grant")),
        ),
    }
}

fn capability(scope: &str) -> Option<&'static str> {
    match scope {
        "repo" => {
            Some("Read and change all repositories that you can reach, private ones included")
        }
        "public_repo" => Some("Read and change the public repositories that you can reach"),
        "read:org" => Some("See your organisations and teams"),
        "read:user" | "user" => Some("See your profile on GitHub"),
        "gist" => Some("Write gists as you"),
        _ => None,
    }
}
