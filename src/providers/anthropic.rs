//! Template for Anthropic: one key for all content that uses it. Deployed content finds it in its
//! environment; other content exchanges its own session token for it.

use super::{
    Field, Names, ServiceGrant, Steps, Template,
    parts::{self, CLIENT_SECRET, FOR_ITSELF},
};
use crate::domain::integration::AuthType;

/// The template `anthropic`.
pub static TEMPLATE: Template = Template {
    key: "anthropic",
    title: "Anthropic API key",
    short_title: "Anthropic",
    summary: "One key for models of Anthropic, given to content without being in its code. Everybody who looks uses the same.",
    monogram: "AN",
    keywords: "llm model claude api key",
    auth_types: &[AuthType::ServiceAccount],
    fields: &[Field {
        label: "API key",
        hint: "Begins with sk-ant-. Stored encrypted, never shown again. Content that uses it can read it.",
        ..CLIENT_SECRET
    }],
    choices: &[FOR_ITSELF],
    details: &[],
    steps: Steps {
        register: (
            "Make a key for this portal alone",
            "In the console of Anthropic, in a project or workspace with a limit on spending. So it can be ended without ending others.",
        ),
        allow: (
            "Nothing else is needed",
            "Deployed content finds the key as ANTHROPIC_API_KEY.",
        ),
        paste: "Paste the key",
        shared_redirect: None,
        pkce: "not used: nobody signs in.",
    },
    service_grant: |_| Some(ServiceGrant::StaticSecret),
    secret_variable: "ANTHROPIC_API_KEY",
    names: |_| Names {
        ..parts::same_names("Anthropic", "AN")
    },
    secret_problem: |secret| {
        (!secret.starts_with("sk-ant-"))
            .then_some("This does not look like a key of Anthropic: those begin with sk-ant-.")
    },
    ..super::BASE
};
