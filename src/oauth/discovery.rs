//! What an authorization server says about itself (RFC 8414, OpenID Connect Discovery), found from
//! its typed addresses. Used only to learn the issuer, so that the answers of another server can be
//! refused (RFC 9207); the addresses stay those that an administrator typed.

use super::http::ProviderHttp;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use serde::Deserialize;
use std::time::Duration;
use tokio::time::timeout;
use url::Url;

/// How long to look, in all: a save waits for it.
const PATIENCE: Duration = Duration::from_secs(4);
/// Parts of the authorization address's path that may name the issuer, at most.
const MAX_PARTS: usize = 4;
/// Longest issuer, in bytes.
const MAX_ISSUER: usize = 500;

/// The part of a metadata document that is read.
#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

/// The server behind two addresses.
#[derive(Debug, PartialEq, Eq)]
pub struct FoundIssuer {
    pub issuer: String,
    /// Its authorization responses name it (`iss`, RFC 9207).
    pub is_sent: bool,
}

/// Where the metadata of the server with this authorization address may be: below each part of its
/// path, in both forms.
fn candidates(authorize: &Url) -> Vec<Url> {
    let origin = authorize.origin().ascii_serialization();
    let mut path = authorize.path().trim_end_matches('/');
    let mut found = Vec::new();
    for _ in 0..MAX_PARTS {
        path = path.rsplit_once('/').map_or("", |(front, _)| front);
        for text in [
            format!("{origin}{path}/.well-known/openid-configuration"),
            format!("{origin}/.well-known/oauth-authorization-server{path}"),
        ] {
            found.extend(Url::parse(&text));
        }
        if path.is_empty() {
            break;
        }
    }
    found
}

/// The issuer of the server with these addresses; `None` if it publishes no metadata that names
/// both, or does not answer within four seconds.
pub async fn find_issuer(http: &ProviderHttp, authorize: &Url, token: &Url) -> Option<FoundIssuer> {
    let fetch = async |url: Url| {
        let request = http::Request::get(url.as_str()).body(Vec::new()).ok()?;
        let answer = http.send(request).await.ok()?;
        let metadata: Metadata = serde_json::from_slice(answer.body()).ok()?;
        let names = |text: &str, url: &Url| Url::parse(text).is_ok_and(|found| found == *url);
        let is_it = names(&metadata.authorization_endpoint, authorize)
            && names(&metadata.token_endpoint, token)
            && !metadata.issuer.is_empty()
            && metadata.issuer.len() <= MAX_ISSUER;
        is_it.then_some(FoundIssuer {
            issuer: metadata.issuer,
            is_sent: metadata.authorization_response_iss_parameter_supported,
        })
    };
    let looking = async {
        let mut fetches: FuturesUnordered<_> =
            candidates(authorize).into_iter().map(fetch).collect();
        while let Some(found) = fetches.next().await {
            if found.is_some() {
                return found;
            }
        }
        None
    };
    timeout(PATIENCE, looking).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_looked_for_below_each_part_of_the_path() {
        let url = Url::parse("https://idp.example/realms/one/protocol/auth").unwrap();
        let found: Vec<String> = candidates(&url).iter().map(Url::to_string).collect();
        assert!(
            found.contains(
                &"https://idp.example/realms/one/.well-known/openid-configuration".into()
            )
        );
        assert!(found.contains(
            &"https://idp.example/.well-known/oauth-authorization-server/realms/one".into()
        ));
        assert!(found.contains(&"https://idp.example/.well-known/openid-configuration".into()));
        assert_eq!(found.len(), 8);
    }
}
