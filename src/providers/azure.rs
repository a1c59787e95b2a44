//! Template for Microsoft Entra ID (version 2 endpoints), mainly for Azure Databricks. Knows the
//! application ID of Databricks, the clouds' sign-in hosts and the usual mistakes in the form.

use super::{
    Choice, Config, Endpoints, Field, Names, Preset, Rotation, Steps, Template, ValueKind,
    looks_like_uuid,
};
use crate::domain::{form::FieldError, integration::Integration};
use url::Url;

/// The application ID of Azure Databricks, the same in every Azure cloud.
pub const DATABRICKS_RESOURCE: &str = "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d";
/// Default scopes: the registered Databricks permissions, and a refresh token.
pub const DATABRICKS_SCOPES: &str = "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d/.default offline_access";
/// Sign-in host of the public Azure cloud.
const PUBLIC_CLOUD: &str = "https://login.microsoftonline.com";

/// Sign-in hosts of the Azure clouds, with labels. Any other authority was typed in by an
/// administrator.
const CLOUDS: [(&str, &str); 3] = [
    (PUBLIC_CLOUD, "Azure (public cloud)"),
    ("https://login.microsoftonline.us", "Azure US Government"),
    (
        "https://login.partner.microsoftonline.cn",
        "Azure China (21Vianet)",
    ),
];

/// The template `azure`.
pub static TEMPLATE: Template = Template {
    key: "azure",
    title: "Azure Databricks (Microsoft Entra ID)",
    short_title: "Azure Databricks",
    proposes_name: true,
    summary: "Signs people in with Microsoft Entra ID, so that content queries Databricks as the person who looks at it.",
    monogram: "DB",
    rotation: Rotation::KeepsOld,
    refresh_refusal_codes: &[],
    sends_scopes_at_refresh: true,
    refresh_token_idle_days: Some(90),
    fields: &[
        Field {
            name: "tenant_id",
            label: "Directory (tenant) ID",
            hint: "Overview page of the application.",
            required: true,
            secret: false,
            changes_token_source: true,
            default: "",
            pattern: r"^([0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}|[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+)$",
            shape: ValueKind::Tenant,
        },
        Field {
            name: "client_id",
            label: "Application (client) ID",
            hint: "Overview page of the application, above the directory ID.",
            required: true,
            secret: false,
            changes_token_source: true,
            default: "",
            pattern: "",
            shape: ValueKind::Uuid,
        },
        Field {
            name: "client_secret",
            label: "Client secret",
            hint: "The Value, not the Secret ID. With a certificate: the private key and the certificate, as text (PEM). Stored encrypted, never shown again.",
            required: true,
            secret: true,
            changes_token_source: false,
            default: "",
            pattern: "",
            shape: ValueKind::Text,
        },
        Field {
            name: "scopes",
            label: "Scopes",
            hint: "Separated by blanks. offline_access keeps people connected while they are away.",
            required: true,
            secret: false,
            changes_token_source: false,
            default: DATABRICKS_SCOPES,
            pattern: "",
            shape: ValueKind::Scopes,
        },
        Field {
            name: "authority_host",
            label: "Authority address",
            hint: "Only for private clouds and tests; replaces the cloud's sign-in address.",
            required: false,
            secret: false,
            changes_token_source: true,
            default: "",
            pattern: "",
            shape: ValueKind::Address,
        },
        Field {
            name: "workspace_url",
            label: "Databricks workspace",
            hint: "Shown to viewers on the consent page. Looks like https://adb-1234567890123456.7.azuredatabricks.net.",
            required: false,
            secret: false,
            changes_token_source: false,
            default: "",
            pattern: "",
            shape: ValueKind::Address,
        },
    ],
    choices: &[
        Choice {
            name: "auth_mode",
            label: "Client type",
            hint: "Confidential clients prove themselves with a secret, or with a private key and its certificate.",
            values: &[
                ("Confidential", "Confidential"),
                ("Certificate", "Confidential, with a certificate"),
                ("Public", "Public"),
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
    ],
    details: &["scopes", "authority_host", "auth_mode"],
    presets: &[Preset {
        name: "cloud",
        label: "Cloud",
        fills: "authority_host",
        values: &CLOUDS,
        problem: "Choose one of the clouds.",
    }],
    steps: Steps {
        register: (
            "Register an application in Microsoft Entra ID",
            "As its Web redirect URI, enter exactly:",
        ),
        allow: (
            "Give it the permission AzureDatabricks / user_impersonation",
            "API permissions → Add a permission → APIs my organization uses → AzureDatabricks → Delegated. Then Certificates & secrets → New client secret.",
        ),
        paste: "Paste what Entra ID shows you",
        shared_redirect: Some("With an authority address of your own"),
        pkce: "always, with S256.",
    },
    endpoints,
    names,
    check,
    secret_problem,
    issuer,
    capability,
    token_endpoint_of,
    consents_link: Some((
        "https://myapps.microsoft.com",
        "Open Microsoft's list (My Apps)",
    )),
    approval: "in Microsoft Entra ID (Enterprise applications → Permissions → Grant admin consent)",
};

fn capability(scope: &str) -> Option<&'static str> {
    is_databricks_scope(scope)
        .then_some("Read and change what you can reach in Azure Databricks: it runs queries with your permissions, and with no others")
}

/// The token endpoint of an issuer. The refresh token of a sign-in gets tokens for Databricks
/// there: Entra ID binds it to person and application, not to a resource.
fn token_endpoint_of(issuer: &str) -> Option<String> {
    let tenant = issuer.strip_suffix("/v2.0")?;
    Some(format!("{tenant}/oauth2/v2.0/token"))
}

/// Whether a scope gives access to Azure Databricks.
fn is_databricks_scope(scope: &str) -> bool {
    scope
        .strip_prefix(DATABRICKS_RESOURCE)
        .is_some_and(|rest| rest.starts_with('/'))
}

fn authority(config: &Config) -> &str {
    config
        .get("authority_host")
        .and_then(|value| value.as_str())
        .filter(|host| !host.is_empty())
        .unwrap_or(PUBLIC_CLOUD)
}

fn endpoints(config: &Config) -> Option<Endpoints> {
    let tenant = config.get("tenant_id")?.as_str()?;
    let authority = authority(config).trim_end_matches('/');
    let address = |last: &str| Url::parse(&format!("{authority}/{tenant}/oauth2/v2.0/{last}")).ok();
    Some(Endpoints {
        authorize: address("authorize")?,
        token: address("token")?,
        // Entra ID has no revocation endpoint.
        revoke: None,
        has_known_host: CLOUDS.iter().any(|(host, _)| *host == authority),
    })
}

/// The issuer of this integration's tenant, if the tenant is given by its ID and not by a domain
/// name.
fn issuer(integration: &Integration) -> Option<String> {
    let tenant = integration.setting("tenant_id");
    let authority = endpoints(&integration.config)?
        .authorize
        .origin()
        .ascii_serialization();
    looks_like_uuid(tenant).then(|| format!("{authority}/{tenant}/v2.0"))
}

fn names(config: &Config) -> Names {
    let scopes = config
        .get("scopes")
        .and_then(|value| value.as_str())
        .unwrap_or("");
    let databricks = scopes.split_whitespace().any(is_databricks_scope);
    Names {
        service: if databricks {
            "Azure Databricks".into()
        } else {
            "Microsoft Azure".into()
        },
        provider: "Microsoft".into(),
        provider_full: "Microsoft Entra ID".into(),
        monogram: if databricks { "DB" } else { "AZ" },
    }
}

/// Finds an application ID that was entered as tenant ID, too (both fields equal), the ID of
/// Databricks itself, and more than one `.default` scope.
fn check(config: &Config, problems: &mut Vec<FieldError>) {
    let text = |key: &str| {
        config
            .get(key)
            .and_then(|value| value.as_str())
            .unwrap_or("")
    };
    let (tenant, client) = (text("tenant_id"), text("client_id"));
    if !tenant.is_empty() && tenant.eq_ignore_ascii_case(client) {
        problems.push(FieldError::new(
            "tenant_id",
            "This is the application ID you entered below. The directory ID stands under it on the same page.",
        ));
    }
    if tenant == DATABRICKS_RESOURCE || client == DATABRICKS_RESOURCE {
        let key = if client == DATABRICKS_RESOURCE {
            "client_id"
        } else {
            "tenant_id"
        };
        problems.push(FieldError::new(key, "This is the ID of Azure Databricks itself. Enter the one of the application you registered."));
    }
    if text("scopes")
        .split_whitespace()
        .filter(|scope| scope.ends_with("/.default"))
        .count()
        > 1
    {
        problems.push(FieldError::new(
            "scopes",
            "Microsoft accepts only one scope that ends in /.default. Make one integration for each service.",
        ));
    }
}

/// Recognises a Secret ID or a masked Value pasted as client secret; returns what to do.
fn secret_problem(secret: &str) -> Option<&'static str> {
    if looks_like_uuid(secret) {
        return Some(
            "This looks like the Secret ID. Copy the Value: it stands left of the Secret ID and is shown only right after the secret was made.",
        );
    }
    if secret.contains("***") || secret.contains("•••") {
        return Some(
            "This is the masked Value. Microsoft shows it only right after the secret was made: make a new one and copy its Value.",
        );
    }
    None
}
