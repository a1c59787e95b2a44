//! Template for Slack, with tokens of people (not of bots): asked for with `user_scope`, and answered
//! within `authed_user`. Refusals come with status 200 and `ok: false`. Source: Slack's documentation
//! of OAuth and token rotation; what is not confirmed is named in the handbook.

use super::{
    Config, Endpoints, Field, Profile, Rotation, Steps, Template,
    parts::{
        self, CLIENT_ID, CLIENT_SECRET, CONFIDENTIAL, FOR_VIEWERS, OTHER_ADDRESS, SCOPES, text,
    },
    profile::{Identity, IdentityAddress, IdentityRequest, Meaning, Refusal, UnstatedLifetime},
};

/// The template `slack`.
pub static TEMPLATE: Template = Template {
    key: "slack",
    title: "Slack",
    short_title: "Slack",
    summary: "Channels and messages in Slack, as the person who looks at the content.",
    monogram: "SL",
    keywords: "chat messages",
    fields: &[
        CLIENT_ID,
        CLIENT_SECRET,
        Field {
            hint: "User token scopes, separated by blanks, as added to the app.",
            default: "channels:read users:read",
            ..SCOPES
        },
        Field {
            name: "slack_host",
            label: "Slack's address",
            ..OTHER_ADDRESS
        },
    ],
    choices: &[CONFIDENTIAL, FOR_VIEWERS],
    details: &["slack_host"],
    steps: Steps {
        register: (
            "Create an app at api.slack.com/apps",
            "OAuth & Permissions → Redirect URLs. Slack takes only https. Enter exactly:",
        ),
        allow: (
            "Add user token scopes",
            "OAuth & Permissions → User Token Scopes: those that content needs. Bot scopes are not used. Then Basic Information → App Credentials.",
        ),
        paste: "Paste what Slack shows you",
        shared_redirect: Some("With an address of your own in place of Slack's"),
        pkce: "not with Slack, which does not know it.",
    },
    mistakes: &[(
        "bad_redirect_uri",
        "Enter the address above under Redirect URLs and save them there.",
    )],
    profile: |_| PROFILE,
    endpoints,
    names: |_| parts::same_names("Slack", "SL"),
    capability,
    approval: "in Slack (Administration → Manage apps)",
    ..super::BASE
};

const PROFILE: Profile = Profile {
    scope_parameter: "user_scope",
    scope_separator: ',',
    rotation: Rotation::SingleUse,
    unstated_lifetime: UnstatedLifetime::Unlimited,
    tokens_within: "authed_user",
    refusals: &[
        Refusal::by_code("invalid_refresh_token", Meaning::TokenRefused),
        Refusal::by_code("token_revoked", Meaning::TokenRefused),
        Refusal::by_code("invalid_code", Meaning::TokenRefused),
        Refusal::by_code("code_already_used", Meaning::TokenRefused),
        Refusal::by_code("bad_client_secret", Meaning::ClientRefused),
        Refusal::by_code("invalid_client_id", Meaning::ClientRefused),
        Refusal::by_code("bad_redirect_uri", Meaning::Misconfigured),
        Refusal::by_code("ratelimited", Meaning::Retry),
    ],
    identity: Identity::Request(IdentityRequest {
        address: IdentityAddress::Fixed("https://slack.com/api/auth.test"),
        subject: "user_id",
        labels: &["user"],
    }),
    uses_pkce: false,
    confidential_only: true,
    ..Profile::STANDARD
};

fn endpoints(config: &Config) -> Option<Endpoints> {
    parts::endpoints_at(
        text(config, "slack_host"),
        ["https://slack.com", "/oauth/v2/authorize"],
        ["https://slack.com", "/api/oauth.v2.access"],
        None,
    )
}

fn capability(scope: &str) -> Option<&'static str> {
    match scope {
        "channels:read" => Some("See the public channels of your workspace"),
        "channels:history" => Some("Read the public channels that you are in"),
        "chat:write" => Some("Write messages as you"),
        "users:read" => Some("See who is in your workspace"),
        "files:read" => Some("Read the files that you can see in Slack"),
        _ => None,
    }
}
