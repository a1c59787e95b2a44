//! Template for one SharePoint tenant. Its scope holds the tenant's own address, so there is no
//! default.

use super::{Config, Field, Template, microsoft, parts::text};
use crate::domain::form::FieldError;

/// The template `sharepoint`.
pub static TEMPLATE: Template = Template {
    key: "sharepoint",
    title: "SharePoint",
    short_title: "SharePoint",
    summary: "Sites, lists and documents, as the person who looks at the content.",
    monogram: "SP",
    keywords: "entra office 365 onedrive documents lists",
    fields: &[
        microsoft::TENANT,
        microsoft::CLIENT_ID,
        microsoft::CLIENT_SECRET,
        Field {
            hint: "Your tenant's address, /.default and offline_access: https://contoso.sharepoint.com/.default offline_access",
            ..microsoft::SCOPES
        },
        microsoft::AUTHORITY,
    ],
    details: &["authority_host", "auth_mode"],
    steps: super::Steps {
        allow: (
            "Give it the permission SharePoint / AllSites.Read",
            "API permissions → Add a permission → SharePoint → Delegated: AllSites.Read, or AllSites.Write. Then Certificates & secrets → New client secret.",
        ),
        ..microsoft::BASE.steps
    },
    names: |_| microsoft::names("SharePoint", "SP"),
    check,
    capability: |scope| {
        scope.contains(".sharepoint.").then_some(
            "Read, and if your organisation allowed it change, what you can reach in SharePoint",
        )
    },
    ..microsoft::BASE
};

/// Finds scopes without a SharePoint address.
fn check(config: &Config, problems: &mut Vec<FieldError>) {
    microsoft::check(config, problems);
    let mut scopes = text(config, "scopes").split_whitespace();
    if scopes.clone().next().is_some() && !scopes.any(|scope| scope.starts_with("https://")) {
        problems.push(FieldError::new(
            "scopes",
            "Name your SharePoint: https://contoso.sharepoint.com/.default offline_access, with your tenant's name.",
        ));
    }
}
