//! Secrets at rest: the keyring, sealed values, password hashes, API keys, session tokens and the
//! spool. To *seal* a value is to encrypt and authenticate it. Never sees a database or a page.
//!
//! Clear secrets are `secrecy::SecretString`; it needs no wrapper of our own.

pub mod api_key;
pub mod audit_key;
pub mod journal;
pub mod keyring;
pub mod labels;
pub mod password;
pub mod proof;
pub mod random;
pub mod session_token;
pub mod spool;
pub mod visitor_key;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as B64};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use keyring::{Keyring, Source};
use parking_lot::RwLock;
use secrecy::{ExposeSecret, SecretString};
use std::sync::Arc;
use zeroize::Zeroizing;

/// A value under authenticated encryption, as stored: `v1.<key id>.<nonce and ciphertext in
/// base64url>`. `store` and `service` share this type, so that sealed and clear values cannot be
/// mixed up; to the store it is opaque text.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(pub String);

impl Sealed {
    /// The prefix of every value that this key sealed, for queries.
    pub fn prefix(id: &str) -> String {
        format!("v1.{id}.")
    }
    /// Id of the key that sealed the value; empty if the format is wrong.
    pub fn key(&self) -> &str {
        self.0.split('.').nth(1).unwrap_or("")
    }
}

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealed")
    }
}

/// The table, column and row of a sealed value. They are the associated data of the encryption, so
/// that a value copied to another row or column does not open.
#[derive(Clone, Copy, Debug)]
pub struct SealContext<'a> {
    pub table: &'a str,
    pub column: &'a str,
    /// The row's identity: its GUID, with the ids of its owners where it has any (see
    /// `store::sealed`).
    pub row: &'a str,
}

/// Why a value was not sealed or opened, or a keyring not loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the stored value is not in the sealed format")]
    Format,
    #[error("the key {0} is not in the keyring")]
    MissingKey(String),
    #[error("the stored value was altered, moved, or sealed under another key")]
    Refused,
    #[error("keyring: {0}")]
    Keyring(String),
}

/// Seals and opens values with XChaCha20-Poly1305 and random 192-bit nonces. The keyring can be
/// reloaded while the server runs.
pub struct Vault {
    source: Source,
    ring: RwLock<Ring>,
}

struct Ring {
    keyring: Arc<Keyring>,
    /// Id of the key that seals new values.
    sealing: String,
}

/// The root secret from which the keys of cookies and session tokens are derived. It is stored
/// sealed in the database instead of being taken from the keyring, so that rotating or retiring
/// keys signs nobody out.
pub struct Root(Zeroizing<[u8; 32]>);

impl Root {
    /// 32 random bytes in base64url, to be sealed and stored.
    pub fn generate() -> SecretString {
        SecretString::from(B64.encode(random::bytes::<32>()))
    }
    /// `None` unless the text is 32 bytes in base64url.
    pub fn parse(text: &SecretString) -> Option<Self> {
        let bytes = Zeroizing::new(B64.decode(text.expose_secret()).ok()?);
        bytes
            .as_slice()
            .try_into()
            .ok()
            .map(|bytes| Self(Zeroizing::new(bytes)))
    }
    /// A key for one purpose: HMAC-SHA-256 of the purpose's name under the root secret.
    pub fn derive(&self, purpose: &str) -> Zeroizing<Vec<u8>> {
        let mac = ring::hmac::sign(
            &ring::hmac::Key::new(ring::hmac::HMAC_SHA256, self.0.as_slice()),
            purpose.as_bytes(),
        );
        Zeroizing::new(mac.as_ref().to_vec())
    }
}

impl Vault {
    /// Loads the keyring. `may_create` allows a missing file to be created.
    pub fn open_ring(source: Source, may_create: bool) -> Result<Self, Error> {
        let keyring = Keyring::load(&source, may_create)?;
        Ok(Self::new(source, keyring))
    }

    /// A vault over a loaded keyring. Its first key seals until [`Vault::set_sealing_key`] selects
    /// another.
    pub fn new(source: Source, keyring: Keyring) -> Self {
        let sealing = keyring.first().to_owned();
        Self {
            source,
            ring: RwLock::new(Ring {
                keyring: Arc::new(keyring),
                sealing,
            }),
        }
    }

    /// Where the keyring was loaded from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The keyring as last loaded.
    pub fn keyring(&self) -> Arc<Keyring> {
        Arc::clone(&self.ring.read().keyring)
    }

    /// The id of the key that seals new values.
    pub fn sealing_key_id(&self) -> String {
        self.ring.read().sealing.clone()
    }

    /// Selects the key that seals from now on. `false`, without a change, if it is not in the ring.
    pub fn set_sealing_key(&self, id: &str) -> bool {
        let mut ring = self.ring.write();
        let known = ring.keyring.get(id).is_some();
        if known && ring.sealing != id {
            ring.sealing = id.to_owned();
        }
        known
    }

    /// Reads the keyring again, after keys were added or removed. The sealing key stays;
    /// [`Error::MissingKey`], without a change, if it is no longer in the ring.
    pub fn reload(&self) -> Result<(), Error> {
        let keyring = Keyring::load(&self.source, false)?;
        let mut ring = self.ring.write();
        if keyring.get(&ring.sealing).is_none() {
            return Err(Error::MissingKey(ring.sealing.clone()));
        }
        ring.keyring = Arc::new(keyring);
        Ok(())
    }

    /// Seals a secret for one place, with the current sealing key.
    pub fn seal(&self, place: SealContext<'_>, secret: &SecretString) -> Result<Sealed, Error> {
        let (id, keyring) = {
            let ring = self.ring.read();
            (ring.sealing.clone(), Arc::clone(&ring.keyring))
        };
        let key = keyring
            .get(&id)
            .ok_or_else(|| Error::MissingKey(id.clone()))?;
        let nonce = random::bytes::<24>();
        let cipher = XChaCha20Poly1305::new(key.into());
        let text = cipher
            .encrypt(
                &XNonce::from(nonce),
                Payload {
                    msg: secret.expose_secret().as_bytes(),
                    aad: associated_data(place, &id).as_bytes(),
                },
            )
            .map_err(|_| Error::Refused)?;
        let mut bytes = nonce.to_vec();
        bytes.extend_from_slice(&text);
        Ok(Sealed(format!("v1.{id}.{}", B64.encode(bytes))))
    }

    /// Opens a value that was sealed for this place. [`Error::Refused`] if it was altered or moved.
    pub fn open(&self, place: SealContext<'_>, sealed: &Sealed) -> Result<SecretString, Error> {
        let mut parts = sealed.0.split('.');
        let (Some("v1"), Some(id), Some(body), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Error::Format);
        };
        let keyring = self.keyring();
        let key = keyring
            .get(id)
            .ok_or_else(|| Error::MissingKey(id.to_owned()))?;
        let bytes = B64.decode(body).map_err(|_| Error::Format)?;
        let (nonce, text) = bytes.split_first_chunk::<24>().ok_or(Error::Format)?;
        let clear = XChaCha20Poly1305::new(key.into())
            .decrypt(
                &XNonce::from(*nonce),
                Payload {
                    msg: text,
                    aad: associated_data(place, id).as_bytes(),
                },
            )
            .map_err(|_| Error::Refused)?;
        String::from_utf8(clear)
            .map(SecretString::from)
            .map_err(|_| Error::Format)
    }
}

/// Each part is preceded by its length, so that two different places never yield the same bytes.
fn associated_data(place: SealContext<'_>, key_id: &str) -> String {
    [place.table, place.column, place.row, key_id]
        .iter()
        .map(|part| format!("{}:{part}|", part.len()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: SealContext<'static> = SealContext {
        table: "integrations",
        column: "client_secret",
        row: "a",
    };

    fn new_vault() -> Vault {
        Vault::new(Source::Text("".into()), Keyring::generate())
    }

    #[test]
    fn a_sealed_value_opens_only_in_its_place() {
        let vault = new_vault();
        let sealed = vault.seal(PLACE, &"hunter2".into()).unwrap();
        assert!(!sealed.0.contains("hunter2"));
        assert_eq!(
            vault.open(PLACE, &sealed).unwrap().expose_secret(),
            "hunter2"
        );
        for place in [
            SealContext { row: "b", ..PLACE },
            SealContext {
                column: "x",
                ..PLACE
            },
            SealContext {
                table: "y",
                ..PLACE
            },
        ] {
            assert!(matches!(vault.open(place, &sealed), Err(Error::Refused)));
        }
    }
    #[test]
    fn an_altered_value_or_another_key_is_refused() {
        let vault = new_vault();
        let sealed = vault.seal(PLACE, &"hunter2".into()).unwrap();
        let mut altered = sealed.0.clone();
        let last = if altered.ends_with('A') { 'B' } else { 'A' };
        altered.replace_range(40..41, &last.to_string());
        assert!(
            vault.open(PLACE, &Sealed(altered)).is_err() || last.to_string() == sealed.0[40..41]
        );
        assert!(matches!(
            new_vault().open(PLACE, &sealed),
            Err(Error::MissingKey(_))
        ));
        assert!(matches!(
            vault.open(PLACE, &Sealed("v0.x.y".into())),
            Err(Error::Format)
        ));
    }
    #[test]
    fn debug_shows_no_ciphertext() {
        assert_eq!(format!("{:?}", Sealed("v1.k.abc".into())), "Sealed");
    }
}
