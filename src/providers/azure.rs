//! Template for Microsoft Entra ID, mainly for Azure Databricks: knows the application ID of
//! Databricks. All that is Microsoft's is in `microsoft`.

use super::{
    Company, Config, Field, Names, Reach, Template, ValueKind, microsoft,
    parts::{ADDRESS, text},
};
use crate::domain::form::FieldError;

/// The application ID of Azure Databricks, the same in every Azure cloud.
pub const DATABRICKS_RESOURCE: &str = "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d";
/// Default scopes: the registered Databricks permissions, and a refresh token.
pub const DATABRICKS_SCOPES: &str = "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d/.default offline_access";

/// The template `azure`.
pub static TEMPLATE: Template = Template {
    key: "azure",
    title: "Azure Databricks (Microsoft Entra ID)",
    short_title: "Azure Databricks",
    summary: "Signs people in with Microsoft Entra ID, so that content queries Databricks as the person who looks at it.",
    monogram: "DB",
    group: super::Group::DataPlatforms,
    keywords: "entra azure ad microsoft databricks spark sql warehouse",
    fields: &[
        microsoft::TENANT,
        microsoft::CLIENT_ID,
        microsoft::CLIENT_SECRET,
        Field {
            default: DATABRICKS_SCOPES,
            ..microsoft::SCOPES
        },
        microsoft::AUTHORITY,
        Field {
            name: "workspace_url",
            label: "Databricks workspace",
            hint: "Shown to viewers on the consent page. Looks like https://adb-1234567890123456.7.azuredatabricks.net.",
            required: false,
            changes_token_source: false,
            pattern: "",
            shape: ValueKind::Address,
            ..ADDRESS
        },
    ],
    steps: super::Steps {
        allow: (
            "Give it the permission AzureDatabricks / user_impersonation",
            "API permissions → Add a permission → APIs my organization uses → AzureDatabricks → Delegated. Then Certificates & secrets → New client secret.",
        ),
        ..microsoft::BASE.steps
    },
    names,
    check,
    capability,
    reach: Reach::Companies(&[Company::Microsoft, Company::Databricks]),
    ..microsoft::BASE
};

fn capability(scope: &str) -> Option<&'static str> {
    is_databricks_scope(scope)
        .then_some("Read and change what you can reach in Azure Databricks: it runs queries with your permissions, and with no others")
}

/// Whether a scope gives access to Azure Databricks.
fn is_databricks_scope(scope: &str) -> bool {
    scope
        .strip_prefix(DATABRICKS_RESOURCE)
        .is_some_and(|rest| rest.starts_with('/'))
}

fn names(config: &Config) -> Names {
    let mut scopes = text(config, "scopes").split_whitespace();
    if scopes.any(is_databricks_scope) {
        microsoft::names("Azure Databricks", "DB")
    } else {
        microsoft::names("Microsoft Azure", "AZ")
    }
}

/// Finds the ID of Databricks itself in place of the registered application's.
fn check(config: &Config, problems: &mut Vec<FieldError>) {
    microsoft::check(config, problems);
    for key in ["client_id", "tenant_id"] {
        if text(config, key) == DATABRICKS_RESOURCE {
            problems.push(FieldError::new(key, "This is the ID of Azure Databricks itself. Enter the one of the application you registered."));
        }
    }
}
