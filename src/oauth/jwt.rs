//! JSON Web Tokens signed with RSA (RFC 7515, RFC 7518): by `ring`, whose private-key operations take
//! the same time whatever the key, unlike those of the `rsa` crate (RUSTSEC-2023-0071), which only
//! makes keys here.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    rsa::{KeyPair, PublicKeyComponents},
    signature::{
        RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding,
        UnparsedPublicKey,
    },
};
use rsa::pkcs8::EncodePrivateKey as _;
use serde::Serialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// How a token is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signature {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PSS with SHA-256.
    Ps256,
}

/// An RSA private key of at least 2,048 bits. `Debug` prints no part of it.
pub struct RsaKey(KeyPair);

impl std::fmt::Debug for RsaKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RsaKey")
    }
}

impl RsaKey {
    /// Makes a key of 2,048 bits, as PKCS #8. Takes a second: not on a thread that serves.
    pub fn generate() -> Option<Zeroizing<Vec<u8>>> {
        let key = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048).ok()?;
        let document = key.to_pkcs8_der().ok()?;
        Some(Zeroizing::new(document.as_bytes().to_vec()))
    }

    /// Reads a key in PKCS #8 or PKCS #1 form; `None` if it is neither, or too short.
    pub fn from_der(der: &[u8]) -> Option<Self> {
        KeyPair::from_pkcs8(der)
            .or_else(|_| KeyPair::from_der(der))
            .ok()
            .map(Self)
    }

    /// A signed token. `header` is an object; its `alg` is set here.
    pub fn sign(
        &self,
        signature: Signature,
        mut header: Value,
        claims: &impl Serialize,
    ) -> Option<String> {
        let (name, scheme): (_, &dyn RsaEncoding) = match signature {
            Signature::Rs256 => ("RS256", &RSA_PKCS1_SHA256),
            Signature::Ps256 => ("PS256", &RSA_PSS_SHA256),
        };
        header["typ"] = json!("JWT");
        header["alg"] = json!(name);
        let part = |bytes: Vec<u8>| URL_SAFE_NO_PAD.encode(bytes);
        let head = part(serde_json::to_vec(&header).ok()?);
        let body = part(serde_json::to_vec(claims).ok()?);
        let signed = format!("{head}.{body}");
        let mut bytes = vec![0; self.0.public().modulus_len()];
        self.0
            .sign(scheme, &SystemRandom::new(), signed.as_bytes(), &mut bytes)
            .ok()?;
        Some(format!("{signed}.{}", part(bytes)))
    }

    /// The public key as a JSON Web Key for verifying RS256 (RFC 7517).
    pub fn public_jwk(&self, key_id: &str) -> Value {
        let components = PublicKeyComponents::<Vec<u8>>::from(self.0.public());
        json!({
            "kty": "RSA",
            "use": "sig",
            "alg": "RS256",
            "kid": key_id,
            "n": URL_SAFE_NO_PAD.encode(components.n),
            "e": URL_SAFE_NO_PAD.encode(components.e),
        })
    }

    /// The claims of a token that this key signed with RS256; `None` for any other. Its times are not
    /// checked.
    pub fn verify(&self, token: &str) -> Option<Value> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (head, body) = signed.split_once('.')?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
        let header: Value = serde_json::from_slice(&decode(head)?).ok()?;
        if header.get("alg") != Some(&json!("RS256")) {
            return None;
        }
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, self.0.public())
            .verify(signed.as_bytes(), &decode(signature)?)
            .ok()?;
        serde_json::from_slice(&decode(body)?).ok()
    }
}

/// The `kid` of a token's header, before anything is verified.
pub fn key_id(token: &str) -> Option<String> {
    let head = URL_SAFE_NO_PAD.decode(token.split('.').next()?).ok()?;
    let header: Value = serde_json::from_slice(&head).ok()?;
    Some(header.get("kid")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_key_signs_and_verifies_and_another_implementation_agrees() {
        let key = RsaKey::from_der(&RsaKey::generate().unwrap()).unwrap();
        let claims = json!({"iss": "https://portal", "aud": "x", "exp": 4_000_000_000_u64});
        let token = key
            .sign(Signature::Rs256, json!({"kid": "1"}), &claims)
            .unwrap();
        assert_eq!(key.verify(&token), Some(claims));
        assert_eq!(key_id(&token).as_deref(), Some("1"));
        let jwk: jsonwebtoken::jwk::Jwk = serde_json::from_value(key.public_jwk("1")).unwrap();
        let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::RS256);
        rules.set_audience(&["x"]);
        let decoding = jsonwebtoken::DecodingKey::from_jwk(&jwk).unwrap();
        jsonwebtoken::decode::<Value>(&token, &decoding, &rules).unwrap();
        // Neither another body nor another algorithm passes.
        let mut parts: Vec<&str> = token.split('.').collect();
        let other = URL_SAFE_NO_PAD.encode(r#"{"iss":"evil"}"#);
        parts[1] = &other;
        assert_eq!(key.verify(&parts.join(".")), None);
        let pss = key.sign(Signature::Ps256, json!({}), &json!({})).unwrap();
        assert_eq!(key.verify(&pss), None);
    }
}
