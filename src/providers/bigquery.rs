//! Template for Google BigQuery.

use super::{Field, Template, google, parts::SCOPES};

/// The template `bigquery`.
pub static TEMPLATE: Template = Template {
    key: "bigquery",
    title: "Google BigQuery",
    short_title: "Google BigQuery",
    summary: "Queries in BigQuery as the person who looks at the content, with that person's permissions.",
    monogram: "BQ",
    keywords: "google cloud gcp sql warehouse",
    fields: &[
        google::CLIENT_ID,
        google::CLIENT_SECRET,
        Field {
            default: "https://www.googleapis.com/auth/bigquery https://www.googleapis.com/auth/bigquery.insertdata openid email",
            ..SCOPES
        },
        google::PROVIDER,
        google::SERVICE_ACCOUNT,
        google::HOST,
    ],
    names: |_| google::names("Google BigQuery", "BQ"),
    capability: google::capability,
    ..google::BASE
};
