//! Template for any other OAuth 2.0 server (RFC 6749): an administrator types its addresses.
//! Nothing is known about the server, so each integration gets its own callback address, PKCE is on
//! by default, and refresh tokens are taken to work once.

use super::{
    Choice, Config, Endpoints, Field, Names, Profile, Reach, Rotation, ServiceGrant, Steps,
    Template, ValueKind,
    parts::{
        ADDRESS, CHOICE, CLIENT_ID, CLIENT_SECRET, CLIENT_TYPE, FIELD, FOR_VIEWERS_OR_ITSELF,
        SCOPES,
    },
    profile::{Meaning, Refusal, UnstatedLifetime},
};
use crate::domain::{
    form::FieldError,
    integration::{AuthType, Integration},
};
use url::Url;

pub const AUTHORIZATION_ADDRESS: Field = Field {
    name: "authorization_uri",
    label: "Authorization address",
    hint: "Where people sign in and agree. In the provider's documentation: authorization endpoint.",
    only: Some(AuthType::Viewer),
    ..ADDRESS
};
pub const TOKEN_ADDRESS: Field = Field {
    name: "token_uri",
    label: "Token address",
    hint: "Where this server gets tokens: token endpoint.",
    ..ADDRESS
};

/// How the client proves itself at the token address.
pub const HOW_SECRET_IS_SENT: Choice = Choice {
    name: "token_endpoint_auth_method",
    label: "How the secret is sent",
    hint: "If in doubt, in the body.",
    values: &[
        ("client_secret_post", "In the body (client_secret_post)"),
        ("client_secret_basic", "In a header (client_secret_basic)"),
        (
            "private_key_jwt",
            "Not sent: it is a private key that signs (private_key_jwt)",
        ),
    ],
    default: "client_secret_post",
    ..CHOICE
};

/// Whether sign-ins carry a PKCE challenge.
pub const USE_PKCE: Choice = Choice {
    name: "use_pkce",
    label: "Use PKCE",
    hint: "Protects the code on its way back (RFC 7636). Switch off only for servers that reject it.",
    values: &[("true", "Yes"), ("false", "No")],
    default: "true",
    is_bool: true,
    only: Some(AuthType::Viewer),
    ..CHOICE
};

/// The template `custom`. Refresh tokens are taken to work once unless the administrator knows
/// better.
pub static TEMPLATE: Template = Template {
    key: "custom",
    title: "Custom OAuth 2.0",
    short_title: "Custom OAuth 2.0",
    proposes_name: false,
    summary: "Any service with an OAuth 2.0 server: you type its addresses.",
    monogram: "O2",
    keywords: "oauth openid oidc generic keycloak okta auth0",
    auth_types: &[AuthType::Viewer, AuthType::ServiceAccount],
    reach: Reach::Anywhere,
    fields: &[
        AUTHORIZATION_ADDRESS,
        TOKEN_ADDRESS,
        Field {
            name: "revocation_uri",
            label: "Revocation address",
            hint: "Optional (RFC 7009). With it, disconnecting also ends the tokens at the provider.",
            required: false,
            ..ADDRESS
        },
        CLIENT_ID,
        Field {
            hint: "Or the private key as text (PEM), where it signs. Stored encrypted, never shown again.",
            ..CLIENT_SECRET
        },
        Field {
            name: "issuer",
            label: "Issuer",
            hint: "Optional. For providers that name themselves in their answers (RFC 9207): other answers are refused.",
            required: false,
            changes_token_source: false,
            ..FIELD
        },
        Field {
            name: "session_hours",
            label: "A sign-in lasts at most (hours)",
            hint: "Optional. Where the provider ends a sign-in however often it is used: people are then told when they are needed again.",
            required: false,
            changes_token_source: false,
            shape: ValueKind::Number,
            pattern: "^[0-9]*$",
            ..FIELD
        },
        Field {
            hint: "Separated by blanks. Add the provider's scope for refresh tokens (often offline_access), or people are asked again every hour.",
            required: false,
            ..SCOPES
        },
    ],
    choices: &[
        Choice {
            values: &[
                ("Confidential", "Confidential (with a client secret)"),
                ("Public", "Public (without a secret)"),
            ],
            ..CLIENT_TYPE
        },
        FOR_VIEWERS_OR_ITSELF,
        HOW_SECRET_IS_SENT,
        USE_PKCE,
        Choice {
            name: "refresh_tokens",
            label: "How refresh tokens behave",
            hint: "If in doubt, not known: then each is taken to work once.",
            values: &[
                ("", "Not known"),
                (
                    "single_use",
                    "A new one at each use, and the old one is dead",
                ),
                (
                    "keeps_old",
                    "A new one at each use, and the old one keeps working",
                ),
                ("never", "Always the same one"),
            ],
            default: "",
            only: Some(AuthType::Viewer),
            ..CHOICE
        },
        Choice {
            name: "access_tokens",
            label: "How access tokens behave",
            hint: "Only where the provider's documentation says so.",
            values: &[
                ("", "A refresh leaves the one before valid until its end"),
                ("ended_by_refresh", "A refresh ends the one before at once"),
                ("unlimited", "They have no end"),
            ],
            default: "",
            only: Some(AuthType::Viewer),
            ..CHOICE
        },
    ],
    details: &[],
    steps: Steps {
        register: (
            "Register an application at the provider",
            "As its redirect URI (callback address), enter exactly:",
        ),
        allow: (
            "Allow the authorization code flow",
            "With refresh tokens, so that people are not asked every hour. PKCE (S256) is used unless you switch it off.",
        ),
        paste: "Enter what the provider shows you",
        shared_redirect: None,
        pkce: "as chosen above, with S256.",
    },
    profile,
    service_grant: |integration: &Integration| {
        (integration.auth_type == AuthType::ServiceAccount)
            .then_some(ServiceGrant::ClientCredentials)
    },
    endpoints,
    names,
    check,
    approval: "at the identity provider",
    ..super::BASE
};

/// What is seen at services that people enter here.
const REFUSALS: &[Refusal] = &[
    // Databricks. The same code is used for malformed requests.
    Refusal {
        code: "invalid_request",
        subtype: "",
        about: "refresh token",
        meaning: Meaning::TokenRefused,
    },
    Refusal::by_code("bad_refresh_token", Meaning::TokenRefused),
];

fn profile(config: &Config) -> Profile {
    let chosen = |key: &str| config.get(key).and_then(|value| value.as_str());
    let tokens = chosen("access_tokens");
    Profile {
        rotation: match chosen("refresh_tokens") {
            Some("keeps_old") => Rotation::KeepsOld,
            Some("never") => Rotation::Never,
            _ => Rotation::SingleUse,
        },
        refresh_ends_access_token: tokens == Some("ended_by_refresh"),
        unstated_lifetime: match tokens {
            Some("unlimited") => UnstatedLifetime::Unlimited,
            _ => Profile::STANDARD.unstated_lifetime,
        },
        refusals: REFUSALS,
        ..Profile::STANDARD
    }
}

pub fn endpoints(config: &Config) -> Option<Endpoints> {
    let address = |key: &str| {
        config
            .get(key)
            .and_then(|value| value.as_str())
            .and_then(|text| Url::parse(text).ok())
    };
    Some(Endpoints {
        // A service account sends nobody there.
        authorize: address("authorization_uri").or_else(|| address("token_uri"))?,
        token: address("token_uri")?,
        revoke: address("revocation_uri"),
        has_known_host: false,
    })
}

fn names(config: &Config) -> Names {
    let host = endpoints(config)
        .and_then(|found| found.authorize.host_str().map(str::to_owned))
        .unwrap_or_else(|| "the provider".into());
    Names {
        service: host.clone(),
        provider: host.clone(),
        provider_full: host,
        monogram: "O2",
    }
}

/// Finds one address entered twice, and query parameters that the portal sets itself.
fn check(config: &Config, problems: &mut Vec<FieldError>) {
    let text = |key: &str| {
        config
            .get(key)
            .and_then(|value| value.as_str())
            .unwrap_or("")
    };
    if !text("authorization_uri").is_empty() && text("authorization_uri") == text("token_uri") {
        problems.push(FieldError::new(
            "token_uri",
            "This is the authorization address. The token address is another one.",
        ));
    }
    for reserved in [
        "client_id",
        "state",
        "redirect_uri",
        "response_type",
        "code_challenge",
        "scope",
    ] {
        if Url::parse(text("authorization_uri"))
            .is_ok_and(|url| url.query_pairs().any(|(key, _)| key == reserved))
        {
            problems.push(FieldError::new(
                "authorization_uri",
                format!(
                    "Leave “{reserved}” out of the address: this server adds it to each request."
                ),
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::egress::Policy;
    use crate::providers::{azure, custom};
    use serde_json::json;

    fn config(value: serde_json::Value) -> crate::domain::integration::Config {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn a_minimal_custom_configuration_gets_the_defaults() {
        let given = config(
            json!({"client_id": "c", "authorization_uri": "https://example.com/a", "token_uri": "https://example.com/t", "scopes": "a  b c", "use_pkce": "TRUE"}),
        );
        let full = custom::TEMPLATE
            .validate(&given, &Policy::default())
            .unwrap();
        assert_eq!(
            serde_json::Value::Object(full),
            json!({"auth_mode": "Confidential", "auth_type": "Viewer", "authorization_uri": "https://example.com/a", "client_id": "c",
                   "scopes": "a b c", "token_endpoint_auth_method": "client_secret_post", "token_uri": "https://example.com/t", "use_pkce": true})
        );
    }
    #[test]
    fn all_invalid_settings_are_reported_at_once() {
        let given = config(
            json!({"client_id": 5, "authorization_uri": "http://10.0.0.1/", "use_pkce": "maybe", "colour": "red"}),
        );
        let problems = custom::TEMPLATE
            .validate(&given, &Policy::default())
            .unwrap_err();
        let mut keys: Vec<&str> = problems
            .iter()
            .map(|problem| problem.key.as_str())
            .collect();
        keys.sort_unstable();
        assert_eq!(
            keys,
            [
                "authorization_uri",
                "client_id",
                "colour",
                "token_uri",
                "use_pkce"
            ]
        );
    }
    #[test]
    fn common_mistakes_with_microsoft_ids_get_specific_messages() {
        let id = "3f0c2a51-7e0b-4c7e-9b1e-0a5f7f3d2c11";
        let problems = azure::TEMPLATE
            .validate(
                &config(json!({"tenant_id": id, "client_id": id})),
                &Policy::default(),
            )
            .unwrap_err();
        assert!(
            problems[0]
                .message
                .contains("application ID you entered below")
        );
        let problems = azure::TEMPLATE
            .validate(
                &config(json!({"tenant_id": "https://portal.azure.com", "client_id": id})),
                &Policy::default(),
            )
            .unwrap_err();
        assert!(problems[0].message.starts_with("This is an address."));
        assert!((azure::TEMPLATE.secret_problem)(id).is_some());
        assert!((azure::TEMPLATE.secret_problem)("abc8Q~realvalue").is_none());
    }
    #[test]
    fn granted_scopes_may_come_in_another_order_case_or_form() {
        let missing =
            |issued: &str| crate::providers::not_issued("read:user Files.Read openid", issued);
        assert!(missing("https://graph.example/files.read READ:USER").is_empty());
        assert_eq!(missing("Files.Read"), ["read:user"]);
    }
    #[test]
    fn only_fixed_hosts_share_the_callback() {
        let integration = |authority: &str| {
            config(json!({"tenant_id": "t.example", "client_id": "c", "authority_host": authority}))
        };
        let fixed = |authority: &str| {
            (azure::TEMPLATE.endpoints)(&integration(authority))
                .unwrap()
                .has_known_host
        };
        assert!(fixed(""));
        assert!(fixed("https://login.microsoftonline.us"));
        assert!(!fixed("https://login.example.org"));
    }
}
