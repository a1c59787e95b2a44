//! Template for Google Drive.

use super::{Field, Template, google, parts::SCOPES};

/// The template `drive`.
pub static TEMPLATE: Template = Template {
    key: "drive",
    title: "Google Drive",
    short_title: "Google Drive",
    summary: "Files in Google Drive, as the person who looks at the content.",
    monogram: "GD",
    keywords: "google workspace files documents",
    fields: &[
        google::CLIENT_ID,
        google::CLIENT_SECRET,
        Field {
            default: "https://www.googleapis.com/auth/drive openid email",
            ..SCOPES
        },
        google::PROVIDER,
        google::SERVICE_ACCOUNT,
        google::HOST,
    ],
    names: |_| google::names("Google Drive", "GD"),
    capability: google::capability,
    check: google::check_with_account,
    ..google::BASE
};
