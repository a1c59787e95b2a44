//! What a pasted address belongs to: the template, its settings, and what can be learnt by asking the
//! service itself. Every request goes through the client for identity providers, with its rules about
//! addresses. A service that does not answer within some seconds costs only what it would have told.

use crate::{
    domain::integration::Config,
    oauth::http::ProviderHttp,
    providers::{
        self, Template,
        pasted::{Lookup, Recognised, recognise},
    },
    service::{
        core::{Actor, Core, must_manage_integrations},
        error::Error,
    },
};
use serde_json::Value;
use std::{sync::Arc, time::Duration};
use url::Url;

/// How long to ask, in all: a page waits for it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Where Microsoft tells a tenant's ID by one of its names.
const MICROSOFT: &str = "https://login.microsoftonline.com";

/// What was found.
pub struct Found {
    pub template: &'static Template,
    pub settings: Config,
    /// What was found and what was not, as sentences.
    pub said: Vec<String>,
}

/// Looks pasted addresses up.
pub struct PastedAddresses {
    core: Arc<Core>,
}

impl PastedAddresses {
    pub(in crate::service) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// What this address belongs to; `None` if it is no address.
    pub async fn find(&self, actor: &Actor, pasted: &str) -> Result<Option<Found>, Error> {
        must_manage_integrations(actor)?;
        let Some(recognised) = recognise(pasted) else {
            return Ok(None);
        };
        let Recognised {
            template,
            settings,
            lookup,
        } = recognised;
        let template = providers::template(template).ok_or(Error::NotFound)?;
        let mut found = Found {
            template,
            settings: Config::new(),
            said: vec![format!("This belongs to: {}.", template.title)],
        };
        for (name, value) in settings {
            found.fill(name, value);
        }
        if let Some(lookup) = lookup {
            let asking = ask(&self.core.http, &lookup);
            let learnt = tokio::time::timeout(PATIENCE, asking).await;
            match learnt.ok().flatten() {
                Some(learnt) => {
                    for (name, value) in learnt {
                        found.fill(name, value);
                    }
                }
                None => found.said.push(
                    "The service itself could not be asked, or did not say more. Enter the rest by hand."
                        .to_owned(),
                ),
            }
        }
        let missing: Vec<&str> = template
            .fields
            .iter()
            .filter(|field| field.required && field.default.is_empty())
            .filter(|field| field.applies(template.auth_types[0]))
            .filter(|field| !found.settings.contains_key(field.name))
            .map(|field| field.label)
            .collect();
        if !missing.is_empty() {
            found
                .said
                .push(format!("Still to be entered: {}.", missing.join(", ")));
        }
        Ok(Some(found))
    }
}

impl Found {
    /// Fills a setting in, if the template has it, and says so.
    fn fill(&mut self, name: &str, value: String) {
        let Some(field) = self.template.field(name) else {
            return;
        };
        self.said.push(format!("{}: {value}.", field.label));
        self.settings.insert(name.to_owned(), Value::String(value));
    }
}

/// What a service tells about itself.
async fn ask(http: &ProviderHttp, lookup: &Lookup) -> Option<Vec<(&'static str, String)>> {
    match lookup {
        Lookup::DatabricksTenant(workspace) => {
            let sign_in = workspace.join("/aad/auth").ok()?;
            let address = redirect_of(http, &sign_in).await?;
            let tenant = address.path_segments()?.next()?.to_owned();
            if matches!(tenant.as_str(), "" | "common" | "organizations") {
                return None;
            }
            let authority = address.origin().ascii_serialization();
            let mut learnt = vec![("tenant_id", tenant)];
            if authority != MICROSOFT {
                learnt.push(("authority_host", authority));
            }
            Some(learnt)
        }
        Lookup::MicrosoftTenant(name) => {
            let address = Url::parse(&format!(
                "{MICROSOFT}/{name}/v2.0/.well-known/openid-configuration"
            ));
            let metadata = json_of(http, &address.ok()?).await?;
            let issuer = Url::parse(metadata.get("issuer")?.as_str()?).ok()?;
            let tenant = issuer.path_segments()?.next()?.to_owned();
            Some(vec![("tenant_id", tenant)])
        }
        Lookup::Databricks(workspace) => {
            let address = workspace
                .join("/oidc/.well-known/oauth-authorization-server")
                .ok()?;
            let metadata = json_of(http, &address).await?;
            let authorize = Url::parse(metadata.get("authorization_endpoint")?.as_str()?).ok()?;
            let host = authorize.origin().ascii_serialization();
            Some(vec![("databricks_host", host)])
        }
        Lookup::OpenId(page) => openid(http, page).await,
    }
}

/// The endpoints of an OpenID issuer at this address or above it.
async fn openid(http: &ProviderHttp, page: &Url) -> Option<Vec<(&'static str, String)>> {
    let mut path = page.path().trim_end_matches('/').to_owned();
    let origin = page.origin().ascii_serialization();
    let suffix = "/.well-known/openid-configuration";
    if let Some(above) = path.strip_suffix(suffix) {
        path = above.to_owned();
    }
    // The page itself, and what is above it: five requests at most.
    for _ in 0..5 {
        let address = Url::parse(&format!("{origin}{path}{suffix}")).ok()?;
        if let Some(metadata) = json_of(http, &address).await {
            let text = |key: &str| metadata.get(key).and_then(Value::as_str).map(str::to_owned);
            let mut learnt = vec![
                ("authorization_uri", text("authorization_endpoint")?),
                ("token_uri", text("token_endpoint")?),
            ];
            if let Some(revoke) = text("revocation_endpoint") {
                learnt.push(("revocation_uri", revoke));
            }
            let scopes = metadata.get("scopes_supported").and_then(Value::as_array);
            let knows = |scope: &str| {
                scopes.is_some_and(|known| known.iter().any(|one| one.as_str() == Some(scope)))
            };
            let usual = ["openid", "profile", "email", "offline_access"];
            let asked: Vec<&str> = usual.into_iter().filter(|scope| knows(scope)).collect();
            if !asked.is_empty() {
                learnt.push(("scopes", asked.join(" ")));
            }
            return Some(learnt);
        }
        if path.is_empty() {
            return None;
        }
        path = path
            .rsplit_once('/')
            .map_or("", |(above, _)| above)
            .to_owned();
    }
    None
}

async fn json_of(http: &ProviderHttp, address: &Url) -> Option<serde_json::Map<String, Value>> {
    let request = ::http::Request::get(address.as_str())
        .header("accept", "application/json")
        .body(Vec::new())
        .ok()?;
    let answer = http.send_plainly(request).await.ok()?;
    if !answer.status().is_success() {
        return None;
    }
    serde_json::from_slice(answer.body()).ok()
}

/// Where an address redirects to.
async fn redirect_of(http: &ProviderHttp, address: &Url) -> Option<Url> {
    let request = ::http::Request::get(address.as_str())
        .body(Vec::new())
        .ok()?;
    let answer = http.send_plainly(request).await.ok()?;
    let location = answer.headers().get(::http::header::LOCATION)?;
    address.join(location.to_str().ok()?).ok()
}
