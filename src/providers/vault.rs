//! Template for HashiCorp Vault: content signs in with a token of this portal (JWT auth method) and
//! gets a client token of Vault. Audience `vault`, as Posit Connect's documentation has it.

use super::{
    Config, Field, Group, ServiceGrant, Steps, Template,
    parts::{self, ADDRESS, FIELD, FOR_ITSELF, text},
};
use crate::domain::{
    form::FieldError,
    integration::{AuthType, Integration},
};
use url::Url;

/// The template `vault`.
pub static TEMPLATE: Template = Template {
    key: "vault",
    title: "HashiCorp Vault",
    short_title: "Vault",
    summary: "Secrets in Vault, read by content itself: it signs in with a token of this portal, and no secret is stored.",
    monogram: "VA",
    group: Group::DeveloperTools,
    keywords: "hashicorp openbao secrets jwt",
    auth_types: &[AuthType::ServiceAccount],
    fields: &[
        Field {
            name: "vault_address",
            label: "Vault address",
            hint: "https://vault.example.org:8200",
            ..ADDRESS
        },
        Field {
            name: "vault_mount",
            label: "Mount of the JWT auth method",
            hint: "Usually jwt.",
            default: "jwt",
            ..FIELD
        },
        Field {
            name: "vault_role",
            label: "Role",
            hint: "The one that binds this portal's audience and subject.",
            ..FIELD
        },
    ],
    choices: &[FOR_ITSELF],
    details: &[],
    steps: Steps {
        register: (
            "Let Vault trust this portal",
            "vault auth enable jwt; vault write auth/jwt/config oidc_discovery_url=… with this portal's address. Vault has to reach it.",
        ),
        allow: (
            "Make a role",
            "vault write auth/jwt/role/content role_type=jwt user_claim=sub bound_audiences=vault token_policies=…",
        ),
        paste: "Enter where Vault is",
        shared_redirect: None,
        pkce: "not used: nobody signs in.",
    },
    mistakes: &[(
        "error checking oidc discovery URL",
        "Vault cannot reach this portal's /.well-known/openid-configuration.",
    )],
    service_grant,
    audience: |_| "vault".to_owned(),
    names: |_| parts::same_names("Vault", "VA"),
    check,
    ..super::BASE
};

fn service_grant(integration: &Integration) -> Option<ServiceGrant> {
    let mount = integration.setting("vault_mount").trim_matches('/');
    let address = Url::parse(integration.setting("vault_address")).ok()?;
    Some(ServiceGrant::VaultLogin {
        address: address.join(&format!("/v1/auth/{mount}/login")).ok()?,
        role: integration.setting("vault_role").to_owned(),
    })
}

/// Finds a mount that is no path.
fn check(config: &Config, problems: &mut Vec<FieldError>) {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'/');
    if !text(config, "vault_mount").bytes().all(fits) {
        problems.push(FieldError::new(
            "vault_mount",
            "Use letters, digits, hyphens and slashes, as in vault auth list.",
        ));
    }
}
