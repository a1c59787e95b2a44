//! The demo's provider as an OpenID provider: discovery, JWKS and ID tokens in Entra's shape
//! (`tid`, `oid`, `preferred_username`, app roles and groups). [`IdTokenFault`] lists the ways in
//! which a token can be made invalid for tests.

use super::{CLIENT_ID, TENANT};
use crate::vault::random;
use actix_web::HttpResponse;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

/// What is wrong with an ID token; tests choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IdTokenFault {
    #[default]
    Nothing,
    AlgNone,
    Audience,
    Issuer,
    Nonce,
    Subject,
    /// Signed with the right key under a `kid` that is not published.
    Key,
    /// Signed by HMAC with the client secret.
    Symmetric,
    /// All times are shifted by this many seconds; positive is in the future.
    Clock(i64),
    /// No ID token at all.
    Missing,
    /// Roles are left out, and groups are too many to be in the token.
    SilentClaims,
}

/// What an ID token says about a person.
pub struct IdTokenSubject<'a> {
    /// User principal name.
    pub upn: &'a str,
    pub name: &'a str,
    /// Object id in the directory.
    pub oid: &'a str,
    pub roles: &'a [String],
    pub groups: &'a [String],
    pub nonce: &'a str,
}

/// The issuer identifier of the provider at base URL `own`.
fn issuer(own: &str) -> String {
    format!("{own}/{TENANT}/v2.0")
}

/// `GET /{tenant}/v2.0/.well-known/openid-configuration`: the discovery document.
pub fn discovery(own: &str) -> HttpResponse {
    HttpResponse::Ok().json(json!({
        "issuer": issuer(own),
        "authorization_endpoint": format!("{own}/{TENANT}/oauth2/v2.0/authorize"),
        "token_endpoint": format!("{own}/{TENANT}/oauth2/v2.0/token"),
        "jwks_uri": format!("{own}/{TENANT}/discovery/v2.0/keys"),
        "response_types_supported": ["code"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["ES256"],
    }))
}

/// `GET /{tenant}/discovery/v2.0/keys`: the JWKS with every published key.
pub fn keys(keys: &[(String, Vec<u8>)]) -> HttpResponse {
    let keys: Vec<Value> = keys
        .iter()
        .map(|(id, point)| {
            let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..65]));
            json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": id, "x": x, "y": y})
        })
        .collect();
    HttpResponse::Ok().json(json!({"keys": keys}))
}

/// An ID token, valid or with one defect. `now` is in Unix seconds; `key` signs, under the name
/// `key_id`. `None` for [`IdTokenFault::Missing`] or if signing fails.
pub fn id_token(
    own: &str,
    now: i64,
    about: &IdTokenSubject<'_>,
    wrong: IdTokenFault,
    key: &EncodingKey,
    key_id: &str,
    client_secret: &str,
) -> Option<String> {
    let now = if let IdTokenFault::Clock(seconds) = wrong {
        now + seconds
    } else {
        now
    };
    let mut claims = json!({
        "iss": if wrong == IdTokenFault::Issuer { "https://login.example.org/v2.0".to_owned() } else { issuer(own) },
        "aud": if wrong == IdTokenFault::Audience { "another-application" } else { CLIENT_ID },
        // Pairwise like Entra's: differs from the object id.
        "sub": if wrong == IdTokenFault::Subject { String::new() } else { format!("pairwise-{}", about.oid) },
        "tid": TENANT,
        "oid": about.oid,
        "preferred_username": about.upn,
        "name": about.name,
        "roles": about.roles,
        "groups": about.groups,
        "nonce": if wrong == IdTokenFault::Nonce { "another" } else { about.nonce },
        "iat": now,
        "nbf": now,
        "exp": now + 3600,
        "auth_time": now,
        "ver": "2.0",
    });
    if wrong == IdTokenFault::SilentClaims
        && let Some(claims) = claims.as_object_mut()
    {
        claims.remove("roles");
        claims.remove("groups");
        claims.insert("_claim_names".into(), json!({"groups": "src1"}));
    }
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    match wrong {
        IdTokenFault::Missing => None,
        IdTokenFault::AlgNone => Some(format!(
            "{}.{}.",
            part(&json!({"alg": "none", "typ": "JWT"})),
            part(&claims)
        )),
        IdTokenFault::Symmetric => {
            let header = Header {
                kid: Some(key_id.to_owned()),
                ..Header::new(Algorithm::HS256)
            };
            jsonwebtoken::encode(
                &header,
                &claims,
                &EncodingKey::from_secret(client_secret.as_bytes()),
            )
            .ok()
        }
        _ => {
            let id = if wrong == IdTokenFault::Key {
                random::label()
            } else {
                key_id.to_owned()
            };
            let header = Header {
                kid: Some(id),
                ..Header::new(Algorithm::ES256)
            };
            jsonwebtoken::encode(&header, &claims, key).ok()
        }
    }
}
