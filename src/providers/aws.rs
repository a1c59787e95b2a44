//! Template for AWS: temporary keys of a role, from the AWS Security Token Service
//! (`AssumeRoleWithWebIdentity`). For viewers with the ID token of the organisation's own identity
//! provider, for content itself with a token of this portal. Neither needs a key of AWS.

use super::{
    Choice, Config, Field, Group, Profile, ServiceGrant, Steps, Template, ValueKind, WorkloadFiles,
    custom,
    parts::{CLIENT_ID, CLIENT_SECRET, CLIENT_TYPE, FIELD, FOR_VIEWERS_OR_ITSELF, SCOPES, text},
    service_grant::AwsRole,
};
use crate::domain::{
    form::FieldError,
    integration::{AuthType, Integration},
};
use url::Url;

/// The audience that AWS' libraries and documentation use.
const AUDIENCE: &str = "sts.amazonaws.com";

const VIEWER: Option<AuthType> = Some(AuthType::Viewer);

/// The template `aws`.
pub static TEMPLATE: Template = Template {
    key: "aws",
    title: "AWS",
    short_title: "AWS",
    summary: "Temporary AWS keys of a role, for the person who looks at the content or for the content itself.",
    monogram: "AW",
    group: Group::DataPlatforms,
    keywords: "amazon s3 redshift athena bedrock sts iam role",
    auth_types: &[AuthType::Viewer, AuthType::ServiceAccount],
    fields: &[
        Field {
            name: "role_arn",
            label: "Role ARN",
            hint: "arn:aws:iam::123456789012:role/content",
            pattern: "^arn:aws[a-z-]*:iam::[0-9]{12}:role/.+",
            ..FIELD
        },
        Field {
            name: "sts_region",
            label: "Region",
            hint: "Of the token service, such as eu-central-1.",
            default: "us-east-1",
            pattern: "^[a-z0-9-]+$",
            ..FIELD
        },
        Field {
            name: "session_duration",
            label: "Lifetime of the keys (seconds)",
            hint: "900 to 43,200, and at most what the role allows.",
            changes_token_source: false,
            default: "3600",
            shape: ValueKind::Number,
            ..FIELD
        },
        Field {
            only: VIEWER,
            ..custom::AUTHORIZATION_ADDRESS
        },
        Field {
            only: VIEWER,
            ..custom::TOKEN_ADDRESS
        },
        Field {
            only: VIEWER,
            hint: "Of the client at your organisation's identity provider.",
            ..CLIENT_ID
        },
        Field {
            only: VIEWER,
            ..CLIENT_SECRET
        },
        Field {
            only: VIEWER,
            hint: "Separated by blanks. openid is needed: AWS takes the ID token.",
            default: "offline_access openid profile email",
            ..SCOPES
        },
        Field {
            name: "sts_address",
            label: "Address of the token service",
            hint: "Only for private endpoints and tests; replaces the region's.",
            required: false,
            shape: ValueKind::Address,
            ..FIELD
        },
    ],
    choices: &[
        CLIENT_TYPE,
        FOR_VIEWERS_OR_ITSELF,
        Choice {
            only: VIEWER,
            ..custom::HOW_SECRET_IS_SENT
        },
        custom::USE_PKCE,
    ],
    details: &[
        "session_duration",
        "sts_address",
        "scopes",
        "auth_mode",
        "token_endpoint_auth_method",
        "use_pkce",
    ],
    steps: Steps {
        register: (
            "Register an application at your organisation's identity provider",
            "Only for viewers: a service account needs none. As its redirect URI, enter exactly:",
        ),
        allow: (
            "Let AWS trust the issuer",
            "IAM → Identity providers → Add provider → OpenID Connect: your provider's issuer with the client ID as audience; for a service account this portal's address with sts.amazonaws.com as audience. Then a role whose trust policy names it.",
        ),
        paste: "Enter the role, and what the provider shows you",
        shared_redirect: None,
        pkce: "always, with S256.",
    },
    mistakes: &[
        (
            "AccessDenied: not authorized to perform sts:AssumeRoleWithWebIdentity",
            "The role's trust policy does not match. Compare the provider, and the conditions on aud and sub.",
        ),
        (
            "InvalidIdentityToken: couldn't retrieve verification key",
            "AWS has to reach the issuer's discovery document from the internet.",
        ),
    ],
    profile: |config| Profile {
        keeps_id_token: true,
        ..(custom::TEMPLATE.profile)(config)
    },
    service_grant,
    audience: |_| AUDIENCE.to_owned(),
    // As the AWS SDKs read them.
    workload_files: |integration| {
        Some(WorkloadFiles {
            path_variable: "AWS_WEB_IDENTITY_TOKEN_FILE",
            variables: vec![
                ("AWS_ROLE_ARN", integration.setting("role_arn").to_owned()),
                ("AWS_REGION", integration.setting("sts_region").to_owned()),
                ("AWS_ROLE_SESSION_NAME", "valetkey".to_owned()),
            ],
        })
    },
    endpoints: custom::endpoints,
    names,
    check,
    capability: |_| None,
    approval: "at your organisation's identity provider",
    ..super::BASE
};

/// The role that keys are asked for; `None` if a setting is damaged.
pub fn role(integration: &Integration) -> Option<AwsRole> {
    let region = integration.setting("sts_region");
    let china = if region.starts_with("cn-") { ".cn" } else { "" };
    let sts = match integration.setting("sts_address") {
        "" => Url::parse(&format!("https://sts.{region}.amazonaws.com{china}/")),
        typed => Url::parse(typed),
    };
    Some(AwsRole {
        role_arn: integration.setting("role_arn").to_owned(),
        sts: sts.ok()?,
        duration: integration.setting("session_duration").parse().ok()?,
    })
}

fn service_grant(integration: &Integration) -> Option<ServiceGrant> {
    let is_own = integration.auth_type == AuthType::ServiceAccount;
    is_own
        .then(|| role(integration).map(ServiceGrant::AwsWebIdentity))
        .flatten()
}

fn names(config: &Config) -> super::Names {
    let host = custom::endpoints(config)
        .and_then(|found| found.authorize.host_str().map(str::to_owned))
        .unwrap_or_else(|| "AWS".into());
    super::Names {
        service: "AWS".into(),
        provider: host.clone(),
        provider_full: host,
        monogram: "AW",
    }
}

/// Finds a malformed role or lifetime, and scopes without an ID token.
fn check(config: &Config, problems: &mut Vec<FieldError>) {
    let role = text(config, "role_arn");
    let is_role = role.starts_with("arn:aws") && role.contains(":role/");
    if !role.is_empty() && !is_role {
        problems.push(FieldError::new(
            "role_arn",
            "Enter the role's ARN. It looks like arn:aws:iam::123456789012:role/content.",
        ));
    }
    let region = text(config, "sts_region");
    if !region
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    {
        problems.push(FieldError::new(
            "sts_region",
            "Enter the region's code, such as eu-central-1.",
        ));
    }
    let duration: u32 = text(config, "session_duration").parse().unwrap_or(3600);
    if !(900..=43_200).contains(&duration) {
        problems.push(FieldError::new(
            "session_duration",
            "AWS gives keys for 900 to 43,200 seconds.",
        ));
    }
    let viewer = text(config, "auth_type") != AuthType::ServiceAccount.as_str();
    let mut scopes = text(config, "scopes").split_whitespace();
    if viewer && scopes.clone().next().is_some() && !scopes.any(|scope| scope == "openid") {
        problems.push(FieldError::new(
            "scopes",
            "Add openid: AWS takes the ID token, which comes only with it.",
        ));
    }
}
