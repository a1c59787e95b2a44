//! What the templates for keys of model services share: one key for all content that uses it. Deployed
//! content finds it in its environment; other content exchanges its own session token for it.

use super::{
    Field, ServiceGrant, Steps, Template,
    parts::{CLIENT_SECRET, FOR_ITSELF},
};
use crate::domain::integration::AuthType;

/// The key (struct update syntax).
pub const KEY: Field = Field {
    label: "API key",
    ..CLIENT_SECRET
};

/// A template for one service's keys (struct update syntax).
pub const BASE: Template = Template {
    auth_types: &[AuthType::ServiceAccount],
    choices: &[FOR_ITSELF],
    details: &[],
    steps: Steps {
        register: ("Make a key for this portal alone", ""),
        allow: ("Nothing else is needed", ""),
        paste: "Paste the key",
        shared_redirect: None,
        pkce: "not used: nobody signs in.",
    },
    service_grant: |_| Some(ServiceGrant::StaticSecret),
    ..super::BASE
};
