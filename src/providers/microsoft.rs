//! What the templates for Microsoft Entra ID share (version 2 endpoints): the clouds, the settings,
//! the usual mistakes in the form. Sources: Microsoft's documentation of the authorization code and
//! client credentials flows, and of workload identity federation.

use super::{
    Choice, Company, Config, Endpoints, Field, Names, Preset, Profile, Reach, Rotation,
    ServiceGrant, Steps, Template, ValueKind, WorkloadFiles, looks_like_uuid,
    parts::{self, CHOICE, FIELD, text},
    profile::{RefreshTokenLife, UnstatedLifetime},
};
use crate::domain::{
    form::FieldError,
    integration::{AuthType, Integration},
};
use std::time::Duration;
use url::Url;

/// Sign-in host of the public Azure cloud.
const PUBLIC_CLOUD: &str = "https://login.microsoftonline.com";

/// Sign-in hosts of the Azure clouds, with labels. Any other authority was typed in by an
/// administrator.
pub const CLOUDS: [(&str, &str); 3] = [
    (PUBLIC_CLOUD, "Azure (public cloud)"),
    ("https://login.microsoftonline.us", "Azure US Government"),
    (
        "https://login.partner.microsoftonline.cn",
        "Azure China (21Vianet)",
    ),
];

/// The audience that Entra ID expects in the token of another issuer (workload identity federation).
const FEDERATION_AUDIENCE: &str = "api://AzureADTokenExchange";

pub const TENANT: Field = Field {
    name: "tenant_id",
    label: "Directory (tenant) ID",
    hint: "Overview page of the application.",
    pattern: r"^([0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}|[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+)$",
    shape: ValueKind::Tenant,
    ..FIELD
};
pub const CLIENT_ID: Field = Field {
    label: "Application (client) ID",
    hint: "Overview page of the application, above the directory ID.",
    shape: ValueKind::Uuid,
    ..parts::CLIENT_ID
};
pub const CLIENT_SECRET: Field = Field {
    hint: "The Value, not the Secret ID. With a certificate: the private key and the certificate, as text (PEM). Stored encrypted, never shown again.",
    ..parts::CLIENT_SECRET
};
pub const SCOPES: Field = Field {
    hint: "Separated by blanks. offline_access keeps people connected while they are away.",
    ..parts::SCOPES
};
pub const AUTHORITY: Field = Field {
    name: "authority_host",
    label: "Authority address",
    hint: "Only for private clouds and tests; replaces the cloud's sign-in address.",
    required: false,
    pattern: "",
    ..parts::ADDRESS
};
/// How the client proves itself.
pub const CLIENT_TYPE: Choice = Choice {
    name: "auth_mode",
    label: "Client type",
    hint: "Confidential clients prove themselves with a secret, with a private key and its certificate, or without any: then Entra ID is told to trust this portal (federated credential).",
    values: &[
        ("Confidential", "Confidential"),
        ("Certificate", "Confidential, with a certificate"),
        ("Federated", "Confidential, by a federated credential"),
        ("Public", "Public"),
    ],
    default: "Confidential",
    ..CHOICE
};
pub const CLOUD: Preset = Preset {
    name: "cloud",
    label: "Cloud",
    fills: "authority_host",
    values: &CLOUDS,
    problem: "Choose one of the clouds.",
};

/// A template for one resource behind Entra ID (struct update syntax).
pub const BASE: Template = Template {
    group: super::Group::Microsoft,
    auth_types: &[AuthType::Viewer, AuthType::ServiceAccount],
    choices: &[CLIENT_TYPE, parts::FOR_VIEWERS_OR_ITSELF],
    details: &["scopes", "authority_host", "auth_mode"],
    presets: &[CLOUD],
    reach: Reach::Companies(&[Company::Microsoft]),
    steps: Steps {
        register: (
            "Register an application in Microsoft Entra ID",
            "As its Web redirect URI, enter exactly:",
        ),
        allow: (
            "Give it permissions",
            "API permissions → Add a permission → Delegated. Then Certificates & secrets → New client secret.",
        ),
        paste: "Paste what Entra ID shows you",
        shared_redirect: Some("With an authority address of your own"),
        pkce: "always, with S256.",
    },
    mistakes: &[
        (
            "AADSTS50011: the redirect URI does not match",
            "Register the address above under Authentication → Add a platform → Web, letter by letter.",
        ),
        (
            "AADSTS700084: a single-page app",
            "The address is registered under Single-page application. Remove it there and add it under Web.",
        ),
        (
            "AADSTS7000215: an invalid secret",
            "The Secret ID was entered. Make a new secret and copy its Value.",
        ),
        (
            "AADSTS65001: no consent",
            "API permissions → Grant admin consent, or let people consent themselves.",
        ),
    ],
    profile: |_| PROFILE,
    service_grant,
    audience: |_| FEDERATION_AUDIENCE.to_owned(),
    // As the Azure SDKs read them (WorkloadIdentityCredential).
    workload_files: |integration| {
        Some(WorkloadFiles {
            path_variable: "AZURE_FEDERATED_TOKEN_FILE",
            variables: vec![
                (
                    "AZURE_TENANT_ID",
                    integration.setting("tenant_id").to_owned(),
                ),
                (
                    "AZURE_CLIENT_ID",
                    integration.setting("client_id").to_owned(),
                ),
            ],
        })
    },
    endpoints,
    check,
    secret_problem,
    issuer,
    token_endpoint_of,
    consents_link: Some((
        "https://myapps.microsoft.com",
        "Open Microsoft's list (My Apps)",
    )),
    approval: "in Microsoft Entra ID (Enterprise applications → Permissions → Grant admin consent)",
    ..super::BASE
};

/// Entra ID: refreshes leave the old tokens valid, and name the scopes again.
pub const PROFILE: Profile = Profile {
    // A `form_post` response would arrive without the SameSite=Lax cookie.
    authorize_parameters: &[("response_mode", "query")],
    rotation: Rotation::KeepsOld,
    unstated_lifetime: UnstatedLifetime::Assumed(Duration::from_secs(3599)),
    refresh_token_life: RefreshTokenLife::Sliding(90),
    sends_scopes_at_refresh: true,
    ..Profile::STANDARD
};

fn service_grant(integration: &Integration) -> Option<ServiceGrant> {
    (integration.auth_type == AuthType::ServiceAccount).then_some(ServiceGrant::ClientCredentials)
}

/// The names of a service behind Entra ID.
pub fn names(service: &str, monogram: &'static str) -> Names {
    Names {
        service: service.to_owned(),
        provider: "Microsoft".into(),
        provider_full: "Microsoft Entra ID".into(),
        monogram,
    }
}

/// The token endpoint of an issuer. The refresh token of a sign-in gets tokens for other services
/// there: Entra ID binds it to person and application, not to a resource.
fn token_endpoint_of(issuer: &str) -> Option<String> {
    let tenant = issuer.strip_suffix("/v2.0")?;
    Some(format!("{tenant}/oauth2/v2.0/token"))
}

fn authority(config: &Config) -> &str {
    match text(config, "authority_host") {
        "" => PUBLIC_CLOUD,
        typed => typed,
    }
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

/// Finds an application ID that was entered as tenant ID, too (both fields equal), more than one
/// `.default` scope, and a public client without a person.
pub fn check(config: &Config, problems: &mut Vec<FieldError>) {
    let (tenant, client) = (text(config, "tenant_id"), text(config, "client_id"));
    if !tenant.is_empty() && tenant.eq_ignore_ascii_case(client) {
        problems.push(FieldError::new(
            "tenant_id",
            "This is the application ID you entered below. The directory ID stands under it on the same page.",
        ));
    }
    let defaults = text(config, "scopes").split_whitespace();
    if defaults
        .filter(|scope| scope.ends_with("/.default"))
        .count()
        > 1
    {
        problems.push(FieldError::new(
            "scopes",
            "Microsoft accepts only one scope that ends in /.default. Make one integration for each service.",
        ));
    }
    if text(config, "auth_type") == AuthType::ServiceAccount.as_str()
        && text(config, "auth_mode") == "Public"
    {
        problems.push(FieldError::new(
            "auth_mode",
            "A service account has to prove itself: choose a secret, a certificate or a federated credential.",
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
