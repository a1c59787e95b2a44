//! Template for Microsoft Graph: mail, calendar, files, people.

use super::{Field, Template, microsoft};

/// The template `msgraph`.
pub static TEMPLATE: Template = Template {
    key: "msgraph",
    title: "Microsoft Graph",
    short_title: "Microsoft Graph",
    summary: "Mail, calendars, files and people in Microsoft 365, as the person who looks at the content.",
    monogram: "MG",
    keywords: "entra office 365 outlook teams onedrive mail calendar",
    fields: &[
        microsoft::TENANT,
        microsoft::CLIENT_ID,
        microsoft::CLIENT_SECRET,
        Field {
            default: "https://graph.microsoft.com/.default offline_access",
            ..microsoft::SCOPES
        },
        microsoft::AUTHORITY,
    ],
    steps: super::Steps {
        allow: (
            "Give it only the permissions that content needs",
            "API permissions → Add a permission → Microsoft Graph → Delegated: such as User.Read or Files.Read. Some need an administrator's consent. Then Certificates & secrets → New client secret.",
        ),
        ..microsoft::BASE.steps
    },
    names: |_| microsoft::names("Microsoft Graph", "MG"),
    capability,
    ..microsoft::BASE
};

fn capability(scope: &str) -> Option<&'static str> {
    // Scopes of Graph may be given without its address.
    let scope = scope
        .strip_prefix("https://graph.microsoft.com/")
        .unwrap_or(scope);
    match scope {
        ".default" => Some(
            "Do in Microsoft 365 what your organisation allowed this application: that may include your mail and files",
        ),
        "User.Read" => Some("See your profile in Microsoft 365"),
        "Mail.Read" => Some("Read your mail"),
        "Mail.Send" => Some("Send mail as you"),
        "Calendars.Read" => Some("Read your calendars"),
        "Files.Read" | "Files.Read.All" => Some("Read the files that you may read"),
        "Files.ReadWrite" | "Files.ReadWrite.All" => {
            Some("Read, change and delete the files that you may change")
        }
        "Sites.Read.All" => Some("Read the SharePoint sites that you may read"),
        _ => None,
    }
}
