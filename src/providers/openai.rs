//! Template for OpenAI: one key for all content that uses it. Deployed content finds it in its
//! environment; other content exchanges its own session token for it.

use super::{
    Field, Names, ServiceGrant, Steps, Template,
    parts::{self, CLIENT_SECRET, FOR_ITSELF},
};
use crate::domain::integration::AuthType;

/// The template `openai`.
pub static TEMPLATE: Template = Template {
    key: "openai",
    title: "OpenAI API key",
    short_title: "OpenAI",
    summary: "One key for models of OpenAI, given to content without being in its code. Everybody who looks uses the same.",
    monogram: "OA",
    keywords: "llm model gpt api key",
    auth_types: &[AuthType::ServiceAccount],
    fields: &[Field {
        label: "API key",
        hint: "Begins with sk-. Stored encrypted, never shown again. Content that uses it can read it.",
        ..CLIENT_SECRET
    }],
    choices: &[FOR_ITSELF],
    details: &[],
    steps: Steps {
        register: (
            "Make a key for this portal alone",
            "In the console of OpenAI, in a project or workspace with a limit on spending. So it can be ended without ending others.",
        ),
        allow: (
            "Nothing else is needed",
            "Deployed content finds the key as OPENAI_API_KEY.",
        ),
        paste: "Paste the key",
        shared_redirect: None,
        pkce: "not used: nobody signs in.",
    },
    service_grant: |_| Some(ServiceGrant::StaticSecret),
    secret_variable: "OPENAI_API_KEY",
    names: |_| Names {
        ..parts::same_names("OpenAI", "OA")
    },
    secret_problem: |secret| {
        (!secret.starts_with("sk-"))
            .then_some("This does not look like a key of OpenAI: those begin with sk-.")
    },
    ..super::BASE
};
