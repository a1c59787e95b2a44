//! Template for Azure OpenAI and other Azure AI services, behind Microsoft Entra ID.

use super::{Field, Template, microsoft};

/// The template `azure-openai`.
pub static TEMPLATE: Template = Template {
    key: "azure-openai",
    title: "Azure OpenAI (Microsoft Entra ID)",
    short_title: "Azure OpenAI",
    summary: "Content asks models in Azure AI as the person who looks at it, or as an account of its own.",
    monogram: "AI",
    keywords: "entra azure gpt cognitive services foundry llm model",
    fields: &[
        microsoft::TENANT,
        microsoft::CLIENT_ID,
        microsoft::CLIENT_SECRET,
        Field {
            default: "https://cognitiveservices.azure.com/.default offline_access",
            ..microsoft::SCOPES
        },
        microsoft::AUTHORITY,
    ],
    steps: super::Steps {
        allow: (
            "Give it the permission Microsoft Cognitive Services / user_impersonation",
            "API permissions → Add a permission → APIs my organization uses → Microsoft Cognitive Services → Delegated. People need the role Cognitive Services OpenAI User at the resource. Then Certificates & secrets → New client secret.",
        ),
        ..microsoft::BASE.steps
    },
    names: |_| microsoft::names("Azure OpenAI", "AI"),
    capability: |scope| {
        scope
            .starts_with("https://cognitiveservices.azure.com/")
            .then_some("Ask the models that you may ask in Azure; what it asks counts as yours")
    },
    ..microsoft::BASE
};
