//! API keys: format, generation and hash. A key is `vk_`, 43 random characters and a 6-character
//! checksum. It is shown once; the database holds only its SHA-256.

use super::random;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

const PREFIX: &str = "vk_";

/// SHA-256 of a high-entropy secret, as 64 hex digits. Tables store this instead of API keys, OAuth
/// states and session keys.
pub fn digest(secret: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(secret.as_bytes()) {
        text.push(char::from(HEX[usize::from(byte >> 4)]));
        text.push(char::from(HEX[usize::from(byte & 15)]));
    }
    text
}

/// A new key in clear text. Store its [`hash`]; show the key once.
pub fn generate() -> SecretString {
    let body = random::token();
    SecretString::from(format!("{PREFIX}{body}{}", checksum(&body)))
}

/// The hash by which to look up a presented key. `None` if prefix, length or checksum is wrong,
/// which spares a query.
pub fn lookup(presented: &str) -> Option<String> {
    let body = presented.strip_prefix(PREFIX)?;
    let at = body
        .len()
        .checked_sub(6)
        .filter(|at| body.is_char_boundary(*at))?;
    let (secret, sum) = body.split_at(at);
    (secret.len() == 43 && checksum(secret) == sum).then(|| digest(presented))
}

/// The hash to store for a key made by [`generate`].
pub fn hash(key: &SecretString) -> String {
    digest(key.expose_secret())
}

/// Detects mistyped keys; not a security measure.
fn checksum(body: &str) -> String {
    digest(body)[..6].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_key_is_rejected_without_a_query() {
        let key = generate();
        assert_eq!(lookup(key.expose_secret()), Some(hash(&key)));
        for wrong in [
            "",
            "vk_",
            "vk_abc",
            "Key",
            &key.expose_secret()[..40],
            &format!("{}x", key.expose_secret()),
            "vk_äöü€äöü€",
        ] {
            assert_eq!(lookup(wrong), None);
        }
    }
}
