//! Template for keys of Anthropic.

use super::{Field, Steps, Template, model_key, parts};

/// The template `anthropic`.
pub static TEMPLATE: Template = Template {
    key: "anthropic",
    title: "Anthropic API key",
    short_title: "Anthropic",
    summary: "One key for models of Anthropic, given to content without being in its code. Everybody who looks uses the same.",
    monogram: "AN",
    keywords: "llm model claude api key",
    fields: &[Field {
        hint: "Begins with sk-ant-. Stored encrypted, never shown again. Content that uses it can read it.",
        ..model_key::KEY
    }],
    steps: Steps {
        register: (
            model_key::BASE.steps.register.0,
            "In the console of Anthropic, in a project or workspace with a limit on spending. So it can be ended without ending others.",
        ),
        allow: (
            model_key::BASE.steps.allow.0,
            "Deployed content finds the key as ANTHROPIC_API_KEY.",
        ),
        ..model_key::BASE.steps
    },
    secret_variable: "ANTHROPIC_API_KEY",
    names: |_| parts::same_names("Anthropic", "AN"),
    secret_problem: |secret| {
        (!secret.starts_with("sk-ant-"))
            .then_some("This does not look like a key of Anthropic: those begin with sk-ant-.")
    },
    ..model_key::BASE
};
