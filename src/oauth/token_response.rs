//! Token responses (RFC 6749 section 5.1), parsed leniently: a malformed optional member must not
//! cost the new refresh token, which may be the only valid one.

use crate::domain::{connection::Account, person::is_invisible};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use oauth2::{AccessToken, RefreshToken, Scope, basic::BasicTokenType};
use secrecy::SecretString;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::time::Duration;

/// Access token lifetime if the response has no usable `expires_in`.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(300);
/// Upper bound of the access token lifetime, whatever `expires_in` says.
const MAX_LIFETIME: Duration = Duration::from_secs(28 * 3600);

/// A token response. `Debug` prints no token.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProviderTokenResponse {
    #[serde(deserialize_with = "access_token")]
    access_token: AccessToken,
    #[serde(default = "bearer", deserialize_with = "token_type")]
    token_type: BasicTokenType,
    #[serde(default, deserialize_with = "seconds")]
    expires_in: Option<u64>,
    #[serde(default, deserialize_with = "refresh_token")]
    refresh_token: Option<RefreshToken>,
    #[serde(default, deserialize_with = "scopes")]
    scope: Option<Vec<Scope>>,
    #[serde(default, skip_serializing, deserialize_with = "id_token")]
    id_token: Option<AccessToken>,
}

/// RFC 6749 appendix A.12: printable ASCII. Anything else could not be sent in a header.
fn access_token<'de, D: Deserializer<'de>>(deserializer: D) -> Result<AccessToken, D::Error> {
    let text = String::deserialize(deserializer)?;
    match !text.is_empty() && text.bytes().all(|byte| matches!(byte, 0x20..=0x7e)) {
        true => Ok(AccessToken::new(text)),
        false => Err(serde::de::Error::custom("access_token is not a token")),
    }
}
fn bearer() -> BasicTokenType {
    BasicTokenType::Bearer
}
/// Compared without case; a value that is not a string counts as Bearer.
fn token_type<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BasicTokenType, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) if !text.eq_ignore_ascii_case("bearer") => {
            BasicTokenType::Extension(text)
        }
        _ => BasicTokenType::Bearer,
    })
}
/// A number or a string of digits; `None` for anything else.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Number(number) => number.as_u64().or_else(|| {
            number
                .as_f64()
                .filter(|value| *value >= 0.0)
                .map(|value| value as u64)
        }),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    })
}
fn refresh_token<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<RefreshToken>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) if !text.is_empty() => Some(RefreshToken::new(text)),
        _ => None,
    })
}
/// The ID token, in a type that `Debug` redacts.
fn id_token<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<AccessToken>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => Some(AccessToken::new(text)),
        _ => None,
    })
}
/// Scopes separated by blanks or commas, without those that hold other than printable ASCII.
fn scopes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Scope>>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => Some(
            text.split([' ', ','])
                .filter(|scope| {
                    !scope.is_empty() && scope.bytes().all(|byte| byte.is_ascii_graphic())
                })
                .map(|scope| Scope::new(scope.to_owned()))
                .collect(),
        ),
        _ => None,
    })
}

impl oauth2::TokenResponse for ProviderTokenResponse {
    type TokenType = BasicTokenType;
    fn access_token(&self) -> &AccessToken {
        &self.access_token
    }
    fn token_type(&self) -> &BasicTokenType {
        &self.token_type
    }
    fn expires_in(&self) -> Option<Duration> {
        self.expires_in.map(Duration::from_secs)
    }
    fn refresh_token(&self) -> Option<&RefreshToken> {
        self.refresh_token.as_ref()
    }
    fn scopes(&self) -> Option<&Vec<Scope>> {
        self.scope.as_ref()
    }
}

impl ProviderTokenResponse {
    /// Whether the token type is Bearer (RFC 6750).
    pub fn is_bearer(&self) -> bool {
        self.token_type == BasicTokenType::Bearer
    }
    /// The access token.
    pub fn access(&self) -> SecretString {
        SecretString::from(self.access_token.secret().clone())
    }
    /// The refresh token, if the response has one.
    pub fn refresh(&self) -> Option<SecretString> {
        self.refresh_token
            .as_ref()
            .map(|token| SecretString::from(token.secret().clone()))
    }
    /// Lifetime of the access token, counted from the time of the request.
    pub fn lifetime(&self) -> Duration {
        self.expires_in
            .map_or(DEFAULT_LIFETIME, Duration::from_secs)
            .min(MAX_LIFETIME)
    }
    /// The granted scopes, separated by blanks, if the response names them.
    pub fn issued_scopes(&self) -> Option<String> {
        let scopes = self.scope.as_ref()?;
        Some(
            scopes
                .iter()
                .map(|scope| scope.as_str())
                .collect::<Vec<_>>()
                .join(" "),
        )
    }
    /// The account that the tokens belong to, for display and comparison. Read from the ID token,
    /// or else from a JWT access token. Both came straight from the token endpoint over TLS (OpenID
    /// Connect Core section 3.1.3.7), so no signature is checked. The subject is prefixed with its
    /// origin: `oid:`, `id:` or `access:`.
    pub fn account(&self) -> Account {
        let said = self
            .id_token
            .as_ref()
            .and_then(|token| unverified_claims(token.secret()))
            .map(|claims| ("id", claims));
        let said = said.or_else(|| {
            unverified_claims(self.access_token.secret()).map(|claims| ("access", claims))
        });
        let (kind, claims) = said.unwrap_or_default();
        let text = |keys: &[&str]| {
            let found = keys
                .iter()
                .find_map(|key| claims.get(*key).and_then(Value::as_str));
            found.map(|text| {
                text.chars()
                    .filter(|letter| !is_invisible(*letter))
                    .take(200)
                    .collect::<String>()
            })
        };
        Account {
            label: text(&["upn", "unique_name", "preferred_username", "email", "sub"]),
            subject: text(&["oid"])
                .map(|oid| format!("oid:{oid}"))
                .or_else(|| text(&["sub"]).map(|sub| format!("{kind}:{sub}"))),
            tenant: text(&["tid"]),
        }
    }
}

/// The payload of a JWT, without a signature check; `None` if it is not a JWT.
fn unverified_claims(token: &str) -> Option<serde_json::Map<String, Value>> {
    let mut parts = token.split('.');
    let (_, body, _) = (parts.next()?, parts.next()?, parts.next()?);
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> ProviderTokenResponse {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn malformed_lifetimes_neither_panic_nor_lose_the_refresh_token() {
        for (expires, seconds) in [
            ("3600", 3600),
            ("\"3600\"", 3600),
            ("-1", 300),
            ("null", 300),
            ("1e30", 28 * 3600),
            ("1000000000000000000", 28 * 3600),
            ("{}", 300),
        ] {
            let answer = parse(&format!(
                r#"{{"access_token":"a","token_type":"bearer","refresh_token":"r","expires_in":{expires}}}"#
            ));
            assert_eq!(answer.lifetime().as_secs(), seconds, "{expires}");
            assert!(answer.refresh().is_some());
        }
        assert!(
            parse(r#"{"access_token":"a","token_type":"Bearer","scope":5,"refresh_token":null}"#)
                .refresh()
                .is_none()
        );
        for unusable in ["", "a\\r\\nX: 1", "\u{e4}"] {
            assert!(
                serde_json::from_str::<ProviderTokenResponse>(&format!(
                    r#"{{"access_token":"{unusable}"}}"#
                ))
                .is_err()
            );
        }
        assert!(
            serde_json::from_str::<ProviderTokenResponse>(r#"{"token_type":"Bearer"}"#).is_err()
        );
        assert!(!parse(r#"{"access_token":"a","token_type":"mac"}"#).is_bearer());
    }
    #[test]
    fn the_account_is_read_from_a_token_that_is_a_jwt() {
        let body = URL_SAFE_NO_PAD.encode(r#"{"upn":"ann@example.org","oid":"o","tid":"t"}"#);
        let account = parse(&format!(
            r#"{{"access_token":"x.{body}.y","token_type":"Bearer"}}"#
        ))
        .account();
        assert_eq!(account.label.as_deref(), Some("ann@example.org"));
        assert_eq!(
            parse(r#"{"access_token":"opaque","token_type":"Bearer"}"#).account(),
            Account::default()
        );
    }
    #[test]
    fn debug_prints_no_token() {
        let printed = format!(
            "{:?}",
            parse(
                r#"{"access_token":"sekrit1","refresh_token":"sekrit2","id_token":"sekrit3","token_type":"Bearer"}"#
            )
        );
        assert!(!printed.contains("sekrit"), "{printed}");
    }
}
