//! Password hashes: Argon2id (RFC 9106). Slow on purpose: call from a blocking thread, never from
//! an async one.

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use secrecy::{ExposeSecret, SecretString};
use std::sync::LazyLock;

/// RFC 9106's second recommended choice for memory (64 MiB) and passes (3); one lane, since this
/// implementation gains nothing from more.
const PARAMETERS: (u32, u32, u32) = (64 * 1024, 3, 1);
/// Longer passwords are refused before any work is done.
pub const LONGEST: usize = 1024;
pub const SHORTEST: usize = 8;

/// Checked for unknown names, so that they take the time of known ones.
static DUMMY: LazyLock<String> =
    LazyLock::new(|| hash(&SecretString::from("nobody has this password")).unwrap_or_default());

fn hasher() -> Option<Argon2<'static>> {
    let (memory, passes, lanes) = PARAMETERS;
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

/// Whether the password fits. Without a stored hash the same work is done for nothing.
pub fn verify(password: &SecretString, stored: Option<&str>) -> bool {
    let hash = stored.unwrap_or(&DUMMY);
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

/// Whether a stored hash was made with weaker parameters than today's.
pub fn is_outdated(stored: &str) -> bool {
    let (memory, passes, lanes) = PARAMETERS;
    !stored.starts_with(&format!("$argon2id$v=19$m={memory},t={passes},p={lanes}$"))
}

/// Makes the first verification as fast as the others.
pub fn warm_up() {
    LazyLock::force(&DUMMY);
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
