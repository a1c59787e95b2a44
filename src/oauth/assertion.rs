//! Client authentication with a private key instead of a secret (`private_key_jwt`: RFC 7523,
//! OpenID Connect Core section 9), in the form that Microsoft Entra ID requires for certificates.
//! RSA keys only.

use super::jwt::{RsaKey, Signature};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// The value of `client_assertion_type`.
pub const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// In seconds. Short, since an assertion is used at once.
const LIFETIME: u64 = 300;

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    jti: String,
    iat: u64,
    nbf: u64,
    exp: u64,
}

/// A signed assertion for one request to `audience`. `pem` holds the RSA private key, and its
/// certificate if the provider knows the client by one. The error is a phrase for a sentence.
pub fn sign(client_id: &str, audience: &str, pem: &SecretString) -> Result<String, &'static str> {
    let key = private_key(pem.expose_secret())
        .and_then(|der| RsaKey::from_der(&der))
        .ok_or(NO_KEY)?;
    // Entra ID requires PSS with the certificate's thumbprint. A key without a certificate is
    // verified with the public key that its provider was given.
    let (signature, header) = match certificate(pem.expose_secret()) {
        Some(der) => {
            let thumbprint = URL_SAFE_NO_PAD.encode(Sha256::digest(der));
            (Signature::Ps256, json!({"x5t#S256": thumbprint}))
        }
        None => (Signature::Rs256, json!({})),
    };
    let now = jsonwebtoken::get_current_timestamp();
    let claims = Claims {
        iss: client_id,
        sub: client_id,
        aud: audience,
        jti: uuid::Uuid::new_v4().to_string(),
        iat: now,
        nbf: now,
        exp: now + LIFETIME,
    };
    key.sign(signature, header, &claims)
        .ok_or("it does not sign")
}

const NO_KEY: &str = "there is no RSA private key of at least 2,048 bits in it";

/// What is wrong with a pasted key, as sentences for the form; `None` if it is usable.
pub fn key_problem(pem: &str) -> Option<&'static str> {
    if pem.contains("ENCRYPTED") {
        return Some(
            "This key is protected by a password. Enter it without one: openssl rsa -in key.pem -out plain.pem.",
        );
    }
    let Some(key) = private_key(pem) else {
        return Some(
            "Enter the private key as text that begins with -----BEGIN PRIVATE KEY-----, and the certificate below it.",
        );
    };
    RsaKey::from_der(&key).is_none().then_some(
        "This is not an RSA private key of at least 2,048 bits. Enter the whole text of its file.",
    )
}

/// The first PEM block whose label ends in `expiring`: its label, and its body without line breaks.
/// Also reads text that lost its line breaks in a one-line field.
fn block(pem: &str, ending: &str) -> Option<(String, String)> {
    pem.split("-----BEGIN ").skip(1).find_map(|part| {
        let (label, rest) = part.split_once("-----")?;
        let (body, _) = rest.split_once("-----END ")?;
        label
            .ends_with(ending)
            .then(|| (label.to_owned(), body.split_whitespace().collect()))
    })
}

/// The private key, as DER.
fn private_key(pem: &str) -> Option<Zeroizing<Vec<u8>>> {
    let (_, body) = block(pem, "PRIVATE KEY")?;
    STANDARD
        .decode(Zeroizing::new(body).as_bytes())
        .ok()
        .map(Zeroizing::new)
}

/// The first certificate, as DER.
fn certificate(pem: &str) -> Option<Vec<u8>> {
    STANDARD.decode(block(pem, "CERTIFICATE")?.1).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::Algorithm;

    #[test]
    fn unusable_pasted_keys_are_rejected() {
        for wrong in [
            "",
            "hunter2",
            "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----",
            "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----",
        ] {
            assert!(key_problem(wrong).is_some(), "{wrong}");
        }
        assert!(
            key_problem("-----BEGIN ENCRYPTED PRIVATE KEY-----")
                .is_some_and(|text| text.contains("password"))
        );
    }
    #[test]
    fn a_key_with_its_certificate_signs_as_entra_requires_even_without_line_breaks() {
        let pem = include_str!("../../tests/it/data/client.pem");
        for text in [
            pem.to_owned(),
            pem.replace('\n', ""),
            pem.replace('\n', "\r\n"),
        ] {
            assert_eq!(key_problem(&text), None);
            let assertion =
                sign("a-client", "https://idp.example.org/token", &text.into()).unwrap();
            let header = jsonwebtoken::decode_header(&assertion).unwrap();
            assert_eq!(header.alg, Algorithm::PS256);
            assert_eq!(
                header.x5t_s256.as_deref(),
                Some("oDknzJsrd5Pey9Jzwn9uZI-MwRUytReu3yooPRfsyco")
            );
        }
        let key_alone = pem.split("-----BEGIN CERTIFICATE").next().unwrap();
        let header =
            jsonwebtoken::decode_header(sign("c", "https://x", &key_alone.into()).unwrap())
                .unwrap();
        assert_eq!((header.alg, header.x5t_s256), (Algorithm::RS256, None));
    }
}
