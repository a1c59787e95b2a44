//! Settings that many templates ask for.

use super::{Choice, Config, Endpoints, Field, Names, ValueKind};
use crate::domain::integration::AuthType;
use url::Url;

/// A required text (struct update syntax).
pub const FIELD: Field = Field {
    name: "",
    label: "",
    hint: "",
    required: true,
    secret: false,
    changes_token_source: true,
    default: "",
    pattern: "",
    shape: ValueKind::Text,
    only: None,
};

/// A required address of the provider.
pub const ADDRESS: Field = Field {
    pattern: "^https?://.+",
    shape: ValueKind::Address,
    ..FIELD
};

/// An address that takes the place of the provider's own hosts (struct update syntax).
pub const OTHER_ADDRESS: Field = Field {
    hint: "Only for tests and proxies of your own.",
    required: false,
    pattern: "",
    ..ADDRESS
};

pub const CLIENT_ID: Field = Field {
    name: "client_id",
    label: "Client ID",
    hint: "As the provider shows it.",
    ..FIELD
};

pub const CLIENT_SECRET: Field = Field {
    name: "client_secret",
    label: "Client secret",
    hint: "Stored encrypted, never shown again.",
    secret: true,
    changes_token_source: false,
    ..FIELD
};

pub const SCOPES: Field = Field {
    name: "scopes",
    label: "Scopes",
    hint: "Separated by blanks.",
    changes_token_source: false,
    shape: ValueKind::Scopes,
    ..FIELD
};

/// A choice between texts (struct update syntax).
pub const CHOICE: Choice = Choice {
    name: "",
    label: "",
    hint: "",
    values: &[],
    default: "",
    is_bool: false,
    changes_token_source: false,
    only: None,
};

/// Whether the client has a secret.
pub const CLIENT_TYPE: Choice = Choice {
    name: "auth_mode",
    label: "Client type",
    hint: "Confidential clients prove themselves with a secret.",
    values: &[("Confidential", "Confidential"), ("Public", "Public")],
    default: "Confidential",
    only: Some(AuthType::Viewer),
    ..CHOICE
};

/// The client always has a secret.
pub const CONFIDENTIAL: Choice = Choice {
    values: &[("Confidential", "Confidential")],
    ..CLIENT_TYPE
};

/// Content acts for viewers only.
pub const FOR_VIEWERS: Choice = Choice {
    name: "auth_type",
    label: "Content acts as",
    hint: "",
    values: &[("Viewer", "The person who looks at it")],
    default: "Viewer",
    changes_token_source: true,
    ..CHOICE
};

/// Content acts for viewers, or as an account of its own.
pub const FOR_VIEWERS_OR_ITSELF: Choice = Choice {
    hint: "With a service account everybody sees the same, and nobody is asked.",
    values: &[
        ("Viewer", "The person who looks at it"),
        ("Service Account", "A service account of its own"),
    ],
    ..FOR_VIEWERS
};

/// Content acts as an account of its own.
pub const FOR_ITSELF: Choice = Choice {
    values: &[("Service Account", "A service account of its own")],
    default: "Service Account",
    ..FOR_VIEWERS
};

/// A text setting, or the empty string.
pub fn text<'a>(config: &'a Config, key: &str) -> &'a str {
    config
        .get(key)
        .and_then(|value| value.as_str())
        .unwrap_or("")
}

/// Endpoints on hosts that this program knows.
pub fn fixed_endpoints(authorize: &str, token: &str, revoke: Option<&str>) -> Option<Endpoints> {
    Some(Endpoints {
        authorize: Url::parse(authorize).ok()?,
        token: Url::parse(token).ok()?,
        revoke: revoke.and_then(|address| Url::parse(address).ok()),
        has_known_host: true,
    })
}

/// Endpoints, each as host and path: on these hosts, or all below `address` if an administrator typed
/// one.
pub fn endpoints_at(
    address: &str,
    authorize: [&str; 2],
    token: [&str; 2],
    revoke: Option<[&str; 2]>,
) -> Option<Endpoints> {
    if address.is_empty() {
        let revoke = revoke.map(|parts| parts.concat());
        return fixed_endpoints(&authorize.concat(), &token.concat(), revoke.as_deref());
    }
    let revoke = revoke.map(|[_, path]| path);
    endpoints_below(address, authorize[1], token[1], revoke)
}

/// Endpoints below an address that an administrator typed.
pub fn endpoints_below(
    address: &str,
    authorize: &str,
    token: &str,
    revoke: Option<&str>,
) -> Option<Endpoints> {
    let host = Url::parse(address).ok()?;
    Some(Endpoints {
        authorize: host.join(authorize).ok()?,
        token: host.join(token).ok()?,
        revoke: revoke.and_then(|path| host.join(path).ok()),
        has_known_host: false,
    })
}

/// A service that is its own identity provider.
pub fn same_names(service: &str, monogram: &'static str) -> Names {
    Names {
        service: service.to_owned(),
        provider: service.to_owned(),
        provider_full: service.to_owned(),
        monogram,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_at_the_usual_hosts_or_all_below_the_typed_address() {
        let at = |address: &str| {
            let found = endpoints_at(
                address,
                ["https://app.example.com", "/authorize"],
                ["https://api.example.com", "/v1/token"],
                Some(["https://api.example.com", "/v1/revoke"]),
            )
            .unwrap();
            let revoke = found.revoke.unwrap();
            let all = [found.authorize, found.token, revoke].map(String::from);
            (all, found.has_known_host)
        };
        let usual = [
            "https://app.example.com/authorize",
            "https://api.example.com/v1/token",
            "https://api.example.com/v1/revoke",
        ];
        assert_eq!(at(""), (usual.map(str::to_owned), true));
        let own = [
            "http://own.example/authorize",
            "http://own.example/v1/token",
            "http://own.example/v1/revoke",
        ];
        assert_eq!(at("http://own.example"), (own.map(str::to_owned), false));
        assert!(endpoints_at("no address", ["", ""], ["", ""], None).is_none());
    }
}
