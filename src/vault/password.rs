//! Password hashes: Argon2id (RFC 9106). Hashing takes 64 MiB and much CPU time on purpose: call it
//! on a blocking thread (`service::hashing`), never on an async one.

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use secrecy::{ExposeSecret, SecretString};
use std::sync::OnceLock;

/// Memory in KiB, passes, lanes: RFC 9106's second recommended option (64 MiB, 3 passes), but with
/// one lane, since this implementation gains nothing from more.
const PARAMETERS: (u32, u32, u32) = (64 * 1024, 3, 1);
/// Maximum length in bytes; a longer password is refused.
pub const MAX_BYTES: usize = 1024;
/// Minimum length in characters.
pub const MIN_CHARS: usize = 8;

/// Verified against when the user name is unknown, so that the response time does not tell which
/// names exist.
fn dummy_hash() -> &'static str {
    // One for each cost: tests change it while they run.
    static USUAL: OnceLock<String> = OnceLock::new();
    static CHEAP: OnceLock<String> = OnceLock::new();
    let kept = if crate::faults::hashes_cheaply() {
        &CHEAP
    } else {
        &USUAL
    };
    kept.get_or_init(|| hash(&"nobody has this password".into()).unwrap_or_default())
}

fn parameters() -> (u32, u32, u32) {
    if crate::faults::hashes_cheaply() {
        return (64, 1, 1);
    }
    PARAMETERS
}

fn hasher() -> Option<Argon2<'static>> {
    let (memory, passes, lanes) = parameters();
    Some(Argon2::new(
        Algorithm::Argon2id,
        Version::V0x13,
        Params::new(memory, passes, lanes, None).ok()?,
    ))
}

/// The PHC string to store; `None` only if the library refuses its own parameters.
pub fn hash(password: &SecretString) -> Option<String> {
    hasher()?
        .hash_password(password.expose_secret().as_bytes())
        .ok()
        .map(|hash| hash.to_string())
}

/// Whether the password matches. Without a stored hash it does the same work and returns `false`.
pub fn verify(password: &SecretString, stored: Option<&str>) -> bool {
    let hash = stored.unwrap_or_else(|| dummy_hash());
    let Ok(parsed) = PasswordHash::new(hash) else {
        return false;
    };
    let fits = hasher().is_some_and(|hasher| {
        hasher
            .verify_password(password.expose_secret().as_bytes(), &parsed)
            .is_ok()
    });
    fits && stored.is_some()
}

/// Whether a stored hash has other parameters than today's and should be replaced.
pub fn is_outdated(stored: &str) -> bool {
    let (memory, passes, lanes) = parameters();
    !stored.starts_with(&format!("$argon2id$v=19$m={memory},t={passes},p={lanes}$"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_password_fits() {
        let stored = hash(&"correct horse".into()).unwrap();
        assert!(verify(&"correct horse".into(), Some(&stored)));
        assert!(!verify(&"correct horsf".into(), Some(&stored)));
        assert!(!verify(&"nobody has this password".into(), None));
        assert!(!is_outdated(&stored), "{stored}");
        assert!(is_outdated("$argon2id$v=19$m=19456,t=2,p=1$x$y"));
    }
}
