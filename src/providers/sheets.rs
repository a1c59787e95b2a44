//! Template for Google Sheets. Listing spreadsheets needs the scope of Drive, too.

use super::{Field, Template, google, parts::SCOPES};

/// The template `sheets`.
pub static TEMPLATE: Template = Template {
    key: "sheets",
    title: "Google Sheets",
    short_title: "Google Sheets",
    summary: "Spreadsheets in Google Sheets, as the person who looks at the content.",
    monogram: "GS",
    keywords: "google workspace spreadsheet",
    fields: &[
        google::CLIENT_ID,
        google::CLIENT_SECRET,
        Field {
            default: "https://www.googleapis.com/auth/spreadsheets https://www.googleapis.com/auth/drive openid email",
            ..SCOPES
        },
        google::PROVIDER,
        google::SERVICE_ACCOUNT,
        google::HOST,
    ],
    names: |_| google::names("Google Sheets", "GS"),
    capability: google::capability,
    check: google::check_with_account,
    ..google::BASE
};
