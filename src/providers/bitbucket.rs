//! Template for Bitbucket Cloud. Its scopes are those of the consumer; none are asked for.

use super::{
    Field, Group, Profile, Rotation, Steps, Template,
    parts::{self, CLIENT_ID, CLIENT_SECRET, CONFIDENTIAL, FOR_VIEWERS, OTHER_ADDRESS, text},
    profile::{Identity, IdentityAddress, IdentityRequest, UnstatedLifetime},
};
use std::time::Duration;

/// The template `bitbucket`.
pub static TEMPLATE: Template = Template {
    key: "bitbucket",
    title: "Bitbucket",
    short_title: "Bitbucket",
    summary: "Repositories and pull requests in Bitbucket Cloud, as the person who looks at the content.",
    monogram: "BB",
    group: Group::DeveloperTools,
    keywords: "git repository atlassian",
    fields: &[
        Field {
            label: "Key",
            hint: "Of the consumer.",
            ..CLIENT_ID
        },
        Field {
            label: "Secret",
            ..CLIENT_SECRET
        },
        Field {
            name: "bitbucket_host",
            label: "Bitbucket's address",
            ..OTHER_ADDRESS
        },
    ],
    choices: &[CONFIDENTIAL, FOR_VIEWERS],
    details: &["bitbucket_host"],
    sends_secret_in_header: true,
    steps: Steps {
        register: (
            "Add an OAuth consumer in Bitbucket",
            "Workspace settings → OAuth consumers → Add consumer. As its callback URL, enter exactly:",
        ),
        allow: (
            "Tick its permissions",
            "Account: Read, so that the account can be named, and those that content needs. Everybody gives all of them.",
        ),
        paste: "Paste what Bitbucket shows you",
        shared_redirect: Some("With an address of your own in place of Bitbucket's"),
        pkce: "always, with S256.",
    },
    profile: |_| Profile {
        rotation: Rotation::SingleUse,
        unstated_lifetime: UnstatedLifetime::Assumed(Duration::from_secs(7200)),
        identity: Identity::Request(IdentityRequest {
            address: IdentityAddress::Fixed("https://api.bitbucket.org/2.0/user"),
            subject: "account_id",
            labels: &["nickname", "username", "display_name"],
        }),
        confidential_only: true,
        ..Profile::STANDARD
    },
    endpoints: |config| {
        parts::endpoints_at(
            text(config, "bitbucket_host"),
            ["https://bitbucket.org", "/site/oauth2/authorize"],
            ["https://bitbucket.org", "/site/oauth2/access_token"],
            None,
        )
    },
    names: |_| parts::same_names("Bitbucket", "BB"),
    consents_link: Some((
        "https://bitbucket.org/account/settings/app-authorizations/",
        "Open Bitbucket's list of authorised apps",
    )),
    approval: "in Bitbucket (Workspace settings → OAuth consumers)",
    ..super::BASE
};
