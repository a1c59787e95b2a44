//! Token responses (RFC 6749 section 5.1), parsed leniently: a malformed optional member must not
//! cost the new refresh token, which may be the only valid one.

use crate::{
    domain::{connection::Account, person::is_invisible},
    providers::{
        Profile,
        profile::{Identity, IdentityRequest, RefreshTokenLife, UnstatedLifetime},
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use oauth2::{AccessToken, RefreshToken, Scope, basic::BasicTokenType};
use secrecy::SecretString;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};

/// Longest value of another field that is kept, in bytes.
const MAX_EXTRA: usize = 2000;
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
    /// All other fields.
    #[serde(flatten, skip_serializing)]
    others: Others,
}

/// Fields whose meaning only the provider's template knows. `Debug` prints none: they may hold
/// secrets.
#[derive(Clone, Default, Deserialize)]
struct Others(serde_json::Map<String, Value>);

impl std::fmt::Debug for Others {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Others")
    }
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
    /// The token that content needs: the access token, or the ID token where the template says so.
    /// `None` if that one is not there; another never takes its place.
    pub fn token(&self, profile: &Profile) -> Option<SecretString> {
        let kept = if profile.keeps_id_token {
            self.id_token.as_ref()?
        } else {
            &self.access_token
        };
        Some(SecretString::from(kept.secret().clone()))
    }
    /// The access token itself.
    pub fn access(&self) -> SecretString {
        SecretString::from(self.access_token.secret().clone())
    }
    /// Whether the response has an ID token.
    pub fn has_id_token(&self) -> bool {
        self.id_token.is_some()
    }
    /// The refresh token, if the response has one.
    pub fn refresh(&self) -> Option<SecretString> {
        self.refresh_token
            .as_ref()
            .map(|token| SecretString::from(token.secret().clone()))
    }
    /// Lifetime of [`Self::token`], counted from the time of the request; `None` if it has no end.
    /// `refreshable`: there is a refresh token, from this response or an earlier one.
    pub fn lifetime(&self, profile: &Profile, refreshable: bool) -> Option<Duration> {
        let stated = self.expires_in.map(Duration::from_secs);
        let id_token = self.id_token.as_ref().filter(|_| profile.keeps_id_token);
        let stated = id_token
            .and_then(|token| lifetime_of_jwt(token.secret()))
            .or(stated);
        match (stated, profile.unstated_lifetime) {
            (Some(stated), _) => Some(stated.min(MAX_LIFETIME)),
            (None, UnstatedLifetime::Assumed(life)) if refreshable => Some(life),
            (None, _) => None,
        }
    }
    /// How long the refresh token lives, if the response says so.
    pub fn refresh_token_lifetime(&self, profile: &Profile) -> Option<Duration> {
        let RefreshTokenLife::Stated(field) = profile.refresh_token_life else {
            return None;
        };
        let value = self.others.0.get(field)?;
        let seconds = value.as_u64().or_else(|| value.as_str()?.parse().ok())?;
        Some(Duration::from_secs(seconds.min(10 * 365 * 86_400)))
    }
    /// The fields that content needs besides the token.
    pub fn extra_fields(&self, profile: &Profile) -> BTreeMap<String, String> {
        let text = |name: &&str| {
            let value = self.others.0.get(*name)?.as_str()?;
            let fits = value.len() <= MAX_EXTRA && !value.chars().any(char::is_control);
            fits.then(|| ((*name).to_owned(), value.to_owned()))
        };
        profile.extra_fields.iter().filter_map(text).collect()
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
    /// What to ask whose account it is. `None` if the response says so: in an ID token, or by an e-mail
    /// address. A subject alone tells nobody whose account it is.
    pub fn identity_request(&self, profile: &Profile) -> Option<IdentityRequest> {
        let Identity::Request(request) = profile.identity else {
            return None;
        };
        let label = self.account(profile).label;
        let is_told = self.has_id_token() || label.is_some_and(|label| label.contains('@'));
        (!is_told).then_some(request)
    }
    /// The account that the tokens belong to, for display and comparison. Read from the ID token,
    /// or else from a JWT access token. Both came straight from the token endpoint over TLS (OpenID
    /// Connect Core section 3.1.3.7), so no signature is checked. The subject is prefixed with its
    /// origin: `oid:`, `id:` or `access:`.
    pub fn account(&self, profile: &Profile) -> Account {
        if !profile.account_field.is_empty()
            && let Some(name) = self.others.0.get(profile.account_field)
            && let Some(name) = name.as_str()
        {
            return Account {
                label: Some(printable(name)),
                subject: Some(format!("name:{}", printable(name))),
                tenant: None,
            };
        }
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
            found.map(printable)
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

/// A name that a provider sent, fit to be shown: at most 200 characters.
pub fn printable(text: &str) -> String {
    let visible = text.chars().filter(|letter| !is_invisible(*letter));
    visible.take(200).collect()
}

/// How long a JWT still lives by its own claims `iat` and `exp`, whatever the clock here says.
fn lifetime_of_jwt(token: &str) -> Option<Duration> {
    let claims = unverified_claims(token)?;
    let time = |claim: &str| claims.get(claim).and_then(Value::as_u64);
    Some(Duration::from_secs(
        time("exp")?.saturating_sub(time("iat")?),
    ))
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
            ("0", 0),
            ("-1", 3600),
            ("null", 3600),
            ("1e30", 28 * 3600),
            ("1000000000000000000", 28 * 3600),
            ("{}", 3600),
        ] {
            let answer = parse(&format!(
                r#"{{"access_token":"a","token_type":"bearer","refresh_token":"r","expires_in":{expires}}}"#
            ));
            let life = answer.lifetime(&Profile::STANDARD, true);
            assert_eq!(life.map(|life| life.as_secs()), Some(seconds), "{expires}");
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
        .account(&Profile::STANDARD);
        assert_eq!(account.label.as_deref(), Some("ann@example.org"));
        assert_eq!(
            parse(r#"{"access_token":"opaque","token_type":"Bearer"}"#).account(&Profile::STANDARD),
            Account::default()
        );
    }
    #[test]
    fn a_token_without_a_stated_end_is_not_asked_for_every_few_minutes() {
        let answer = parse(r#"{"access_token":"a","token_type":"bearer"}"#);
        assert_eq!(answer.lifetime(&Profile::STANDARD, false), None);
        let unlimited = Profile {
            unstated_lifetime: UnstatedLifetime::Unlimited,
            ..Profile::STANDARD
        };
        assert_eq!(answer.lifetime(&unlimited, true), None);
    }
    #[test]
    fn the_template_says_which_other_fields_count() {
        let profile = Profile {
            extra_fields: &["instance_url"],
            refresh_token_life: RefreshTokenLife::Stated("refresh_token_expires_in"),
            account_field: "username",
            ..Profile::STANDARD
        };
        let answer = parse(
            r#"{"access_token":"a","instance_url":"https://a.example","refresh_token_expires_in":"60","username":"ANN","signature":"x"}"#,
        );
        let extra = answer.extra_fields(&profile);
        assert_eq!(extra.len(), 1);
        assert_eq!(extra["instance_url"], "https://a.example");
        let life = answer.refresh_token_lifetime(&profile);
        assert_eq!(life, Some(Duration::from_secs(60)));
        assert_eq!(answer.account(&profile).label.as_deref(), Some("ANN"));
        assert!(!format!("{answer:?}").contains("signature"));
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
