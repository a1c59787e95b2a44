//! Template for this portal itself: content gets a short-lived API key of its viewer, with at most the
//! chosen role. Its configuration has exactly one key, which clients of Posit Connect test for.

use super::{Choice, Group, Names, Steps, Template, parts::CHOICE};
use crate::domain::integration::AuthType;

/// The template `connect`.
pub static TEMPLATE: Template = Template {
    key: "connect",
    title: "This portal (visitor API key)",
    short_title: "This portal",
    summary: "Content calls this portal's own API as the person who looks at it, with at most the role that you choose.",
    monogram: "VK",
    group: Group::Other,
    keywords: "posit connect visitor api key valetkey",
    auth_types: &[AuthType::VisitorApiKey],
    choices: &[Choice {
        name: "max_role",
        label: "At most the role",
        hint: "Content never gets more than the person has.",
        values: &[
            ("Viewer", "Viewer"),
            ("Publisher", "Publisher"),
            ("Admin", "Administrator"),
        ],
        default: "Viewer",
        ..CHOICE
    }],
    details: &[],
    steps: Steps {
        register: (
            "Nothing has to be registered",
            "This portal is the provider.",
        ),
        allow: (
            "People are still asked",
            "Each viewer agrees before content acts for them here, and can take it back under Consents.",
        ),
        paste: "Choose how much content may do",
        shared_redirect: None,
        pkce: "not used: nobody leaves this portal.",
    },
    names: |_| Names {
        service: "this portal".into(),
        provider: "this portal".into(),
        provider_full: "this portal".into(),
        monogram: "VK",
    },
    ..super::BASE
};
