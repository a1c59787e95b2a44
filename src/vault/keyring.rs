//! The keys that seal everything else. A text file, one `<id> <key in base64>` a line, outside the database; the first
//! line seals, every line opens.

use super::{Error, random};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::{io::Write as _, path::Path};
use zeroize::Zeroizing;

struct Key {
    id: String,
    bytes: Zeroizing<[u8; 32]>,
}

pub struct Keyring {
    first: Key,
    others: Vec<Key>,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keyring")
    }
}

impl Keyring {
    /// A ring with one new key.
    pub fn generate() -> Self {
        let id = random::bytes::<4>().iter().map(|byte| format!("{byte:02x}")).collect();
        Self { first: Key { id, bytes: Zeroizing::new(random::bytes()) }, others: Vec::new() }
    }

    /// Reads the ring from `path`; makes it, readable by its owner only, when `may_create` and the file is not there.
    pub fn load(path: &Path, may_create: bool) -> Result<Self, Error> {
        let explain = |what: &str, error: std::io::Error| Error::Keyring(format!("cannot {what} {}: {error}", path.display()));
        match std::fs::read_to_string(path) {
            Ok(text) => {
                check_mode(path)?;
                Self::parse(&Zeroizing::new(text)).map_err(|why| Error::Keyring(format!("{}: {why}", path.display())))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && may_create => {
                let ring = Self::generate();
                let mut options = std::fs::OpenOptions::new();
                options.write(true).create_new(true);
                #[cfg(unix)]
                std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
                let mut file = options.open(path).map_err(|error| explain("create", error))?;
                let line = Zeroizing::new(format!("{} {}\n", ring.first.id, STANDARD.encode(*ring.first.bytes)));
                file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).map_err(|error| explain("write", error))?;
                Ok(ring)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::Keyring(format!(
                "{} is missing, but the database exists. Put the keyring back from its backup: without it nothing in the database opens. Nothing was changed.",
                path.display()
            ))),
            Err(error) => Err(explain("read", error)),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut keys = Vec::new();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#')) {
            let wrong = || format!("line {} is not \"<id> <32 bytes in base64>\"", number + 1);
            let (id, key) = line.trim().split_once(' ').ok_or_else(wrong)?;
            let bytes: [u8; 32] = STANDARD.decode(key.trim()).ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(wrong)?;
            if id.is_empty() || id.contains('.') || keys.iter().any(|known: &Key| known.id == id) {
                return Err(format!("line {}: key ids are unique and hold no dot", number + 1));
            }
            keys.push(Key { id: id.to_owned(), bytes: Zeroizing::new(bytes) });
        }
        if keys.is_empty() {
            return Err("holds no key".into());
        }
        let first = keys.remove(0);
        Ok(Self { first, others: keys })
    }

    /// The key that seals new values.
    pub fn current(&self) -> (&str, &[u8; 32]) {
        (&self.first.id, &self.first.bytes)
    }

    pub fn get(&self, id: &str) -> Option<&[u8; 32]> {
        std::iter::once(&self.first).chain(&self.others).find(|key| key.id == id).map(|key| &*key.bytes)
    }

    pub fn ids(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.first).chain(&self.others).map(|key| key.id.as_str())
    }

    /// A key for another purpose, derived from a key of this ring (HMAC-SHA-256 over the purpose's name).
    pub fn derive(&self, id: &str, purpose: &str) -> Option<Zeroizing<[u8; 32]>> {
        let mac = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, self.get(id)?), purpose.as_bytes());
        mac.as_ref().try_into().ok().map(Zeroizing::new)
    }
}

#[cfg(unix)]
fn check_mode(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(path).map_err(|error| Error::Keyring(error.to_string()))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(Error::Keyring(format!(
            "{} can be read by other users of this machine; run: chmod 600 {}",
            path.display(),
            path.display()
        )));
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_mode(_: &Path) -> Result<(), Error> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_key_seals_and_all_open() {
        let line = |id: &str, byte: u8| format!("{id} {}\n", STANDARD.encode([byte; 32]));
        let ring = Keyring::parse(&format!("# new\n{}{}", line("b", 2), line("a", 1))).unwrap();
        assert_eq!(ring.current(), ("b", &[2; 32]));
        assert_eq!(ring.get("a"), Some(&[1; 32]));
        assert!(ring.get("c").is_none());
        assert!(Keyring::parse("").is_err());
        assert!(Keyring::parse("a c2hvcnQ=").is_err());
        assert!(Keyring::parse(&format!("{}{}", line("a", 1), line("a", 2))).is_err());
    }
}
