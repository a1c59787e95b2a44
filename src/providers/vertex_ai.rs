//! Template for Vertex AI.

use super::{Field, Template, google, parts::SCOPES};

/// The template `vertex-ai`.
pub static TEMPLATE: Template = Template {
    key: "vertex-ai",
    title: "Google Vertex AI",
    short_title: "Google Vertex AI",
    summary: "Models in Vertex AI, as the person who looks at the content or as an account of its own.",
    monogram: "VX",
    keywords: "google cloud gcp gemini llm model",
    fields: &[
        google::CLIENT_ID,
        google::CLIENT_SECRET,
        Field {
            default: "https://www.googleapis.com/auth/cloud-platform openid email",
            ..SCOPES
        },
        google::PROVIDER,
        google::SERVICE_ACCOUNT,
        google::HOST,
    ],
    names: |_| google::names("Google Vertex AI", "VX"),
    capability: google::capability,
    ..google::BASE
};
