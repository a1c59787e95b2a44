//! Whose tokens they are, where the tokens do not say: one GET with the access token to the API that
//! the template names.

use super::{http::ProviderHttp, token_response::printable};
use crate::{
    domain::connection::Account,
    providers::{
        Endpoints,
        profile::{IdentityAddress, IdentityRequest},
    },
};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use url::Url;

/// The account behind an access token; `None` if the provider does not say.
pub async fn ask(
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
