//! Template for any other OAuth 2.0 server (RFC 6749): an administrator types its addresses.
//! Nothing is known about the server, so each integration gets its own callback address, PKCE is on
//! by default, and refresh tokens are taken to work once.

use super::{Choice, Config, Endpoints, Field, Names, Rotation, Steps, Template, ValueKind};
use crate::domain::form::FieldError;
use url::Url;

/// Base of the fields below (struct update syntax).
const ADDRESS: Field = Field {
    name: "",
    label: "",
    hint: "",
    required: true,
    secret: false,
    changes_token_source: true,
    default: "",
    pattern: "^https?://.+",
    shape: ValueKind::Address,
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
    rotation: Rotation::SingleUse,
    // Databricks responds with this to a refresh token that it does not accept.
    refresh_refusal_codes: &["invalid_request"],
    sends_scopes_at_refresh: false,
    refresh_token_idle_days: None,
    fields: &[
        Field {
            name: "authorization_uri",
            label: "Authorization address",
            hint: "Where people sign in and agree. In the provider's documentation: authorization endpoint.",
            ..ADDRESS
        },
        Field {
            name: "token_uri",
            label: "Token address",
            hint: "Where this server gets tokens: token endpoint.",
            ..ADDRESS
        },
        Field {
            name: "revocation_uri",
            label: "Revocation address",
            hint: "Optional (RFC 7009). With it, disconnecting also ends the tokens at the provider.",
            required: false,
            ..ADDRESS
        },
        Field {
            name: "client_id",
            label: "Client ID",
            hint: "As the provider shows it.",
            shape: ValueKind::Text,
            pattern: "",
            ..ADDRESS
        },
        Field {
            name: "client_secret",
            label: "Client secret",
            hint: "Or the private key as text (PEM), where it signs. Stored encrypted, never shown again.",
            secret: true,
            changes_token_source: false,
            shape: ValueKind::Text,
            pattern: "",
            ..ADDRESS
        },
        Field {
            name: "issuer",
            label: "Issuer",
            hint: "Optional. For providers that name themselves in their answers (RFC 9207): other answers are refused.",
            required: false,
            changes_token_source: false,
            shape: ValueKind::Text,
            pattern: "",
            ..ADDRESS
        },
        Field {
            name: "session_hours",
            label: "A sign-in lasts at most (hours)",
            hint: "Optional. Where the provider ends a sign-in however often it is used: people are then told when they are needed again.",
            required: false,
            changes_token_source: false,
            shape: ValueKind::Number,
            pattern: "^[0-9]*$",
            ..ADDRESS
        },
        Field {
            name: "scopes",
            label: "Scopes",
            hint: "Separated by blanks. Add the provider's scope for refresh tokens (often offline_access), or people are asked again every hour.",
            required: false,
            changes_token_source: false,
            shape: ValueKind::Scopes,
            pattern: "",
            ..ADDRESS
        },
    ],
    choices: &[
        Choice {
            name: "auth_mode",
            label: "Client type",
            hint: "Confidential clients prove themselves with a secret.",
            values: &[
                ("Confidential", "Confidential (with a client secret)"),
                ("Public", "Public (without a secret)"),
            ],
            default: "Confidential",
            is_bool: false,
            changes_token_source: false,
        },
        Choice {
            name: "auth_type",
            label: "Authentication type",
            hint: "Viewer: content acts as the person looking at it.",
            values: &[("Viewer", "Viewer")],
            default: "Viewer",
            is_bool: false,
            changes_token_source: false,
        },
        Choice {
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
            is_bool: false,
            changes_token_source: false,
        },
        Choice {
            name: "use_pkce",
            label: "Use PKCE",
            hint: "Protects the code on its way back (RFC 7636). Switch off only for servers that reject it.",
            values: &[("true", "Yes"), ("false", "No")],
            default: "true",
            is_bool: true,
            changes_token_source: false,
        },
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
            is_bool: false,
            changes_token_source: false,
        },
    ],
    details: &[],
    presets: &[],
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
    endpoints,
    names,
    check,
    secret_problem: |_| None,
    issuer: |_| None,
    capability: |_| None,
    token_endpoint_of: |_| None,
    consents_link: None,
    approval: "at the identity provider",
};

fn endpoints(config: &Config) -> Option<Endpoints> {
    let address = |key: &str| {
        config
            .get(key)
            .and_then(|value| value.as_str())
            .and_then(|text| Url::parse(text).ok())
    };
    Some(Endpoints {
        authorize: address("authorization_uri")?,
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
