//! Random bytes from the operating system: the only source of randomness in this program. It is not
//! passed in as an argument, since no test depends on its values.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// `N` random bytes. Panics if the operating system provides none.
#[expect(
    clippy::expect_used,
    reason = "there is no safe way to go on without randomness"
)]
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives no random bytes");
    bytes
}

/// Eight lower-case letters and digits that make a name unique. Not a secret.
pub fn label() -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    bytes::<8>()
        .iter()
        .map(|byte| char::from(LETTERS[usize::from(byte % 32)]))
        .collect()
}

/// 128 random bits as 22 URL-safe characters, for a secret of which a browser sends many at once.
pub fn short_token() -> String {
    URL_SAFE_NO_PAD.encode(bytes::<16>())
}

/// 256 random bits as 43 URL-safe characters: OAuth states, PKCE verifiers (RFC 7636 section 4.1),
/// session keys.
pub fn token() -> String {
    URL_SAFE_NO_PAD.encode(bytes::<32>())
}
