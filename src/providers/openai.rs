//! Template for keys of OpenAI.

use super::{Field, Steps, Template, model_key, parts};

/// The template `openai`.
pub static TEMPLATE: Template = Template {
    key: "openai",
    title: "OpenAI API key",
    short_title: "OpenAI",
    summary: "One key for models of OpenAI, given to content without being in its code. Everybody who looks uses the same.",
    monogram: "OA",
    keywords: "llm model gpt api key",
    fields: &[Field {
        hint: "Begins with sk-. Stored encrypted, never shown again. Content that uses it can read it.",
        ..model_key::KEY
    }],
    steps: Steps {
        register: (
            model_key::BASE.steps.register.0,
            "In the console of OpenAI, in a project or workspace with a limit on spending. So it can be ended without ending others.",
        ),
        allow: (
            model_key::BASE.steps.allow.0,
            "Deployed content finds the key as OPENAI_API_KEY.",
        ),
        ..model_key::BASE.steps
    },
    secret_variable: "OPENAI_API_KEY",
    names: |_| parts::same_names("OpenAI", "OA"),
    secret_problem: |secret| {
        (!secret.starts_with("sk-"))
            .then_some("This does not look like a key of OpenAI: those begin with sk-.")
    },
    ..model_key::BASE
};
