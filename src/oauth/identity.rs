//! Whose tokens they are, where the tokens do not say: one GET with the access token to the API that
//! the template names.

use super::{
    http::ProviderHttp,
    token_response::{ProviderTokenResponse, printable},
};
use crate::{
    domain::connection::Account,
    providers::{
        Endpoints, Profile,
        profile::{IdentityAddress, IdentityRequest},
    },
};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use std::time::Duration;
use url::Url;

/// How long the provider is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// The account behind new tokens.
pub struct Identified {
    pub account: Account,
    /// The provider was asked and did not say: the account is what the tokens name, if they do.
    pub is_silent: bool,
}

/// The account behind new tokens. Where only an API of the provider names it, that is asked.
pub async fn identify(
    http: &ProviderHttp,
    answer: &ProviderTokenResponse,
    profile: &Profile,
    endpoints: &Endpoints,
) -> Identified {
    let named = answer.account(profile);
    let Some(request) = answer.identity_request(profile) else {
        return Identified {
            account: named,
            is_silent: false,
        };
    };
    let token = answer.access();
    let asking = ask(http, &request, endpoints, &token);
    let told = tokio::time::timeout(PATIENCE, asking).await.ok().flatten();
    Identified {
        is_silent: told.is_none(),
        account: told.unwrap_or(named),
    }
}

/// The account behind an access token; `None` if the provider does not say.
async fn ask(
    http: &ProviderHttp,
    request: &IdentityRequest,
    endpoints: &Endpoints,
    access_token: &SecretString,
) -> Option<Account> {
    let address = address(request.address, endpoints)?;
    let sent = ::http::Request::get(address.as_str())
        .header(
            "authorization",
            format!("Bearer {}", access_token.expose_secret()),
        )
        .body(Vec::new())
        .ok()?;
    let answer = http.send(sent).await.ok()?;
    if !answer.status().is_success() {
        return None;
    }
    read(request, &serde_json::from_slice(answer.body()).ok()?)
}

/// The account in the API's answer: needs an id, else it could not be told from another one.
fn read(request: &IdentityRequest, body: &Value) -> Option<Account> {
    let text = |name: &str| match body.get(name)? {
        Value::String(text) if !text.is_empty() => Some(printable(text)),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    Some(Account {
        subject: Some(format!("api:{}", text(request.subject)?)),
        label: request.labels.iter().find_map(|name| text(name)),
        tenant: None,
    })
}

/// The address to ask. On a host that an administrator typed, the usual host's path is asked there.
fn address(address: IdentityAddress, endpoints: &Endpoints) -> Option<Url> {
    let own = |path: &str| {
        let mut url = endpoints.token.clone();
        url.set_query(None);
        url.join(path).ok()
    };
    match (address, endpoints.has_known_host) {
        (IdentityAddress::Fixed(usual), true) => Url::parse(usual).ok(),
        (IdentityAddress::Fixed(usual), false) => own(Url::parse(usual).ok()?.path()),
        (IdentityAddress::OnTokenHost(path), _) => own(path),
        (IdentityAddress::Github(path), true) => {
            Url::parse(&format!("https://api.github.com{path}")).ok()
        }
        (IdentityAddress::Github(path), false) => own(&format!("/api/v3{path}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const GITHUB: IdentityRequest = IdentityRequest {
        address: IdentityAddress::Github("/user"),
        subject: "id",
        labels: &["login"],
    };

    #[test]
    fn an_account_needs_an_id_and_may_lack_a_name() {
        let account = read(&GITHUB, &json!({"id": 7, "login": "ann"})).unwrap();
        assert_eq!(account.subject.as_deref(), Some("api:7"));
        assert_eq!(account.label.as_deref(), Some("ann"));
        assert!(read(&GITHUB, &json!({"login": "ann"})).is_none());
        assert!(read(&GITHUB, &json!({"id": "7"})).unwrap().label.is_none());
    }

    #[test]
    fn a_server_of_ones_own_is_asked_itself() {
        let endpoints = |has_known_host| Endpoints {
            authorize: Url::parse("https://git.example.org/a").unwrap(),
            token: Url::parse("https://git.example.org/login/oauth/access_token").unwrap(),
            revoke: None,
            has_known_host,
        };
        let asked = |known| {
            address(GITHUB.address, &endpoints(known))
                .unwrap()
                .to_string()
        };
        assert_eq!(asked(true), "https://api.github.com/user");
        assert_eq!(asked(false), "https://git.example.org/api/v3/user");
        let fixed = IdentityAddress::Fixed("https://api.example.com/me");
        let found = address(fixed, &endpoints(false)).unwrap();
        assert_eq!(found.as_str(), "https://git.example.org/me");
    }
}
