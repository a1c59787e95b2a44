//! Which integration an address belongs to: what an administrator pastes from the browser, as the key
//! of a template and the settings that the address itself tells. What has to be asked for over the
//! network is named as a [`Lookup`]; `service::catalog::pasted` asks.

use super::{azure_openai, microsoft::CLOUDS};
use url::Url;

/// What an address tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recognised {
    /// The key of the template.
    pub template: &'static str,
    pub settings: Vec<(&'static str, String)>,
    pub lookup: Option<Lookup>,
}

/// What is worth asking for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The tenant of an Azure Databricks workspace: the address to which its sign-in redirects, as
    /// the Databricks SDK finds it.
    DatabricksTenant(Url),
    /// The ID of a Microsoft tenant, by one of its domain names.
    MicrosoftTenant(String),
    /// Databricks' own metadata below `/oidc`.
    Databricks(Url),
    /// The metadata of an OpenID issuer.
    OpenId(Url),
}

/// Recognises an address, or the name of a role or tenant. `None` if it is none.
pub fn recognise(text: &str) -> Option<Recognised> {
    let text = text.trim();
    if text.starts_with("arn:aws") && text.contains(":role/") {
        return Some(of("aws").with("role_arn", text));
    }
    let with_scheme = if text.contains("://") {
        text.to_owned()
    } else {
        format!("https://{text}")
    };
    let url = Url::parse(&with_scheme).ok()?;
    let host = url.host_str()?.to_ascii_lowercase();
    if !host.contains('.') && host != "localhost" {
        return None;
    }
    let origin = url.origin().ascii_serialization();
    Some(
        microsoft(&url, &host, &origin)
            .or_else(|| google(&url, &host))
            .or_else(|| data_platform(&url, &host, &origin))
            .or_else(|| tool(&host, &origin))
            .unwrap_or_else(|| Recognised {
                lookup: Some(Lookup::OpenId(url.clone())),
                ..of("custom")
            }),
    )
}

fn of(template: &'static str) -> Recognised {
    Recognised {
        template,
        settings: Vec::new(),
        lookup: None,
    }
}

impl Recognised {
    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.settings.push((name, value.into()));
        self
    }
    fn asking(self, lookup: Lookup) -> Self {
        Self {
            lookup: Some(lookup),
            ..self
        }
    }
}

/// Whether a host is this domain or below it.
fn is_below(host: &str, domain: &str) -> bool {
    host == domain
        || host
            .strip_suffix(domain)
            .is_some_and(|rest| rest.ends_with('.'))
}

fn first_label(host: &str) -> &str {
    host.split('.').next().unwrap_or("")
}

/// The cloud's sign-in host that goes with a domain of its services.
fn cloud_of(host: &str) -> &'static str {
    if host.ends_with(".us") {
        CLOUDS[1].0
    } else if host.ends_with(".cn") {
        CLOUDS[2].0
    } else {
        ""
    }
}

fn microsoft(url: &Url, host: &str, origin: &str) -> Option<Recognised> {
    let cloud = |found: Recognised| match cloud_of(host) {
        "" => found,
        other => found.with("authority_host", other),
    };
    for domain in [
        "azuredatabricks.net",
        "databricks.azure.us",
        "databricks.azure.cn",
    ] {
        if is_below(host, domain) {
            let found = of("azure").with("workspace_url", origin);
            return Some(cloud(found.asking(Lookup::DatabricksTenant(url.clone()))));
        }
    }
    if let Some((authority, _)) = CLOUDS.iter().find(|(known, _)| *known == origin) {
        let tenant = url.path_segments()?.next().unwrap_or("");
        let found = if matches!(tenant, "" | "common" | "organizations" | "consumers") {
            of("azure")
        } else {
            of("azure").with("tenant_id", tenant)
        };
        let is_usual = *authority == CLOUDS[0].0;
        return Some(if is_usual {
            found
        } else {
            found.with("authority_host", *authority)
        });
    }
    if is_below(host, "onmicrosoft.com") {
        return Some(of("azure").asking(Lookup::MicrosoftTenant(host.to_owned())));
    }
    for domain in ["sharepoint.com", "sharepoint.us", "sharepoint.cn"] {
        if is_below(host, domain) {
            // contoso-my and contoso-admin are other faces of contoso.
            let tenant = first_label(host);
            let tenant = tenant
                .strip_suffix("-my")
                .or_else(|| tenant.strip_suffix("-admin"))
                .unwrap_or(tenant);
            let found = of("sharepoint").with(
                "scopes",
                format!("https://{tenant}.{domain}/.default offline_access"),
            );
            let name = format!("{tenant}.onmicrosoft.com");
            return Some(cloud(found.asking(Lookup::MicrosoftTenant(name))));
        }
    }
    let key = if is_below(host, "openai.azure.com")
        || is_below(host, "cognitiveservices.azure.com")
        || is_below(host, "services.ai.azure.com")
    {
        azure_openai::TEMPLATE.key
    } else if is_below(host, "graph.microsoft.com")
        || is_below(host, "office.com")
        || is_below(host, "outlook.office365.com")
    {
        "msgraph"
    } else if host == "portal.azure.com" || host == "entra.microsoft.com" {
        "azure"
    } else {
        return None;
    };
    Some(of(key))
}

fn google(url: &Url, host: &str) -> Option<Recognised> {
    if !is_below(host, "google.com") && !is_below(host, "googleapis.com") {
        return None;
    }
    let path = url.path();
    Some(of(
        if path.contains("/spreadsheets") || host.starts_with("sheets.") {
            "sheets"
        } else if host.starts_with("drive.") || host.starts_with("docs.") {
            "drive"
        } else if path.starts_with("/vertex-ai") || host.contains("aiplatform") {
            "vertex-ai"
        } else {
            "bigquery"
        },
    ))
}

fn data_platform(url: &Url, host: &str, origin: &str) -> Option<Recognised> {
    if is_below(host, "databricks.com") {
        let mut found = of("databricks").with("databricks_host", origin);
        // The account console names its account in the address.
        let account = url.query_pairs().find(|(key, _)| key == "account_id");
        if let Some((_, account)) = account {
            found = found.with("account_id", account);
        }
        return Some(found.asking(Lookup::Databricks(url.clone())));
    }
    if is_below(host, "snowflakecomputing.com") || is_below(host, "snowflakecomputing.cn") {
        return Some(of("snowflake").with("account_url", origin));
    }
    if host == "app.snowflake.com" {
        let mut parts = url.path_segments()?;
        return Some(match (parts.next(), parts.next()) {
            (Some(organisation), Some(account)) if !account.is_empty() => {
                let name = format!("{organisation}-{account}").to_ascii_lowercase();
                of("snowflake").with(
                    "account_url",
                    format!("https://{name}.snowflakecomputing.com"),
                )
            }
            _ => of("snowflake"),
        });
    }
    if is_below(host, "my.salesforce.com") {
        return Some(of("salesforce").with("sf_host_domain", origin));
    }
    if let Some(name) = host.strip_suffix(".lightning.force.com") {
        return Some(of("salesforce").with(
            "sf_host_domain",
            format!("https://{name}.my.salesforce.com"),
        ));
    }
    if is_below(host, "salesforce.com") || is_below(host, "force.com") {
        return Some(of("salesforce"));
    }
    if is_below(host, "amazonaws.com") || is_below(host, "aws.amazon.com") {
        let region = url.query_pairs().find(|(key, _)| key == "region");
        return Some(match region {
            Some((_, region)) => of("aws").with("sts_region", region),
            None => of("aws"),
        });
    }
    None
}

fn tool(host: &str, origin: &str) -> Option<Recognised> {
    if is_below(host, "github.com") {
        return Some(of("github"));
    }
    if is_below(host, "gitlab.com") {
        return Some(of("gitlab"));
    }
    if is_below(host, "bitbucket.org") {
        return Some(of("bitbucket"));
    }
    if is_below(host, "atlassian.net") || is_below(host, "atlassian.com") {
        return Some(of("atlassian"));
    }
    let known = [
        ("slack.com", "slack"),
        ("hubspot.com", "hubspot"),
        ("linkedin.com", "linkedin"),
        ("anthropic.com", "anthropic"),
        ("claude.com", "anthropic"),
        ("openai.com", "openai"),
    ];
    if let Some((_, key)) = known.iter().find(|(domain, _)| is_below(host, domain)) {
        return Some(of(key));
    }
    // Servers of one's own are recognised by their names.
    match first_label(host) {
        "github" | "ghe" => Some(of("github").with("github_host", origin)),
        "gitlab" => Some(of("gitlab").with("gitlab_host", origin)),
        "vault" => Some(of("vault").with("vault_address", origin)),
        _ if origin.ends_with(":8200") => Some(of("vault").with("vault_address", origin)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> &'static str {
        recognise(text).map_or("", |found| found.template)
    }
    fn setting(text: &str, name: &str) -> String {
        let found = recognise(text).unwrap();
        let value = found.settings.into_iter().find(|(known, _)| *known == name);
        value.map(|(_, value)| value).unwrap_or_default()
    }

    #[test]
    fn addresses_from_the_browser_choose_their_template() {
        for (pasted, expected) in [
            (
                "https://adb-1234567890123456.7.azuredatabricks.net/?o=1#job",
                "azure",
            ),
            ("adb-12.7.databricks.azure.us", "azure"),
            ("contoso.onmicrosoft.com", "azure"),
            ("https://login.microsoftonline.com/common/", "azure"),
            ("https://contoso.sharepoint.com/sites/x", "sharepoint"),
            ("https://models.openai.azure.com/", "azure-openai"),
            ("https://graph.microsoft.com/v1.0/me", "msgraph"),
            ("https://dbc-1.cloud.databricks.com/sql", "databricks"),
            ("https://accounts.gcp.databricks.com/", "databricks"),
            ("https://myorg-acc.snowflakecomputing.com", "snowflake"),
            ("https://app.snowflake.com/myorg/acc/#/", "snowflake"),
            ("https://x.my.salesforce.com", "salesforce"),
            ("https://docs.google.com/spreadsheets/d/1", "sheets"),
            ("https://drive.google.com/drive", "drive"),
            ("https://console.cloud.google.com/vertex-ai/x", "vertex-ai"),
            ("https://console.cloud.google.com/bigquery", "bigquery"),
            ("arn:aws:iam::123456789012:role/content", "aws"),
            (
                "https://eu-central-1.console.aws.amazon.com/s3?region=eu-central-1",
                "aws",
            ),
            ("https://github.example.org", "github"),
            ("https://gitlab.com/group/project", "gitlab"),
            ("https://example.atlassian.net/jira", "atlassian"),
            ("https://vault.example.org:8200/ui", "vault"),
            ("https://app.hubspot.com/x", "hubspot"),
            ("https://login.example.org/realms/main", "custom"),
            ("no address", ""),
            ("", ""),
        ] {
            assert_eq!(key(pasted), expected, "{pasted}");
        }
        // A name that only ends like a known one is another host.
        assert_eq!(key("https://evilgithub.com"), "custom");
    }

    #[test]
    fn what_the_address_tells_is_filled_in() {
        let console = "https://app.snowflake.com/MyOrg/Acc/#/homepage";
        assert_eq!(
            setting(console, "account_url"),
            "https://myorg-acc.snowflakecomputing.com"
        );
        assert_eq!(
            setting(
                "https://x--uat.sandbox.lightning.force.com/a",
                "sf_host_domain"
            ),
            "https://x--uat.sandbox.my.salesforce.com"
        );
        let us = "https://adb-12.7.databricks.azure.us/";
        assert_eq!(
            setting(us, "authority_host"),
            "https://login.microsoftonline.us"
        );
        assert_eq!(
            setting("https://contoso-my.sharepoint.com/personal", "scopes"),
            "https://contoso.sharepoint.com/.default offline_access"
        );
        let tenant = "3f0c2a51-7e0b-4c7e-9b1e-0a5f7f3d2c11";
        let page = format!("https://login.microsoftonline.com/{tenant}/oauth2/v2.0/authorize");
        assert_eq!(setting(&page, "tenant_id"), tenant);
    }
}
