//! The keys that seal everything else: lines of `<id> <key in base64>`, from a file, the
//! environment or a command, never from the database. Every key opens; which one seals is written
//! in the database, and is the first one until then.

use super::{Error, random};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret as _, SecretString};
use std::{
    io::Write as _,
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// Where the keys come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file that only its owner can read.
    File(PathBuf),
    /// The lines themselves, from the environment.
    Text(SecretString),
    /// A command that prints the lines: the way to a key service.
    Command(String),
}

struct Key {
    id: String,
    bytes: Zeroizing<[u8; 32]>,
}

impl Key {
    fn generate() -> Self {
        let id = random::bytes::<4>()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Self {
            id,
            bytes: Zeroizing::new(random::bytes()),
        }
    }
    fn line(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{} {}\n", self.id, STANDARD.encode(*self.bytes)))
    }
}

/// Never empty.
pub struct Keyring(Vec<Key>);

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keyring")
    }
}

/// A key that was just made: its id, and its line for a ring that this program cannot write.
pub struct Added {
    pub id: String,
    pub line: SecretString,
    /// Whether the line was written to the ring's file.
    pub written: bool,
}

impl Keyring {
    /// A ring with one new key.
    pub fn generate() -> Self {
        Self(vec![Key::generate()])
    }

    /// Reads the ring; makes its file, readable by its owner only, when `may_create` and the file
    /// is not there.
    pub fn load(source: &Source, may_create: bool) -> Result<Self, Error> {
        match source {
            Source::File(path) => Self::load_file(path, may_create),
            Source::Text(text) => Self::parse(text.expose_secret())
                .map_err(|why| Error::Keyring(format!("the keyring in the environment: {why}"))),
            Source::Command(command) => {
                let failed = |why: String| Error::Keyring(format!("the keyring command: {why}"));
                let output = std::process::Command::new("sh")
                    .args(["-c", command])
                    .stdin(std::process::Stdio::null())
                    .stderr(std::process::Stdio::inherit())
                    .output()
                    .map_err(|error| failed(error.to_string()))?;
                let text = Zeroizing::new(
                    String::from_utf8(output.stdout)
                        .map_err(|_| failed("prints no text".into()))?,
                );
                if !output.status.success() {
                    return Err(failed(format!("ended with {}", output.status)));
                }
                Self::parse(&text).map_err(failed)
            }
        }
    }

    fn load_file(path: &Path, may_create: bool) -> Result<Self, Error> {
        let explain = |what: &str, error: std::io::Error| {
            Error::Keyring(format!("cannot {what} {}: {error}", path.display()))
        };
        match std::fs::read_to_string(path) {
            Ok(text) => {
                check_mode(path)?;
                Self::parse(&Zeroizing::new(text))
                    .map_err(|why| Error::Keyring(format!("{}: {why}", path.display())))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && may_create => {
                let ring = Self::generate();
                write_private(path, &ring.lines()).map_err(|error| explain("write", error))?;
                Ok(ring)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(Error::Keyring(format!(
                    "{} is missing, but the database exists. Put the keyring back from its backup: without it nothing in the database opens. Nothing was changed.",
                    path.display()
                )))
            }
            Err(error) => Err(explain("read", error)),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut keys = Vec::new();
        for (number, line) in text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'))
        {
            let wrong = || format!("line {} is not \"<id> <32 bytes in base64>\"", number + 1);
            let (id, key) = line.trim().split_once(' ').ok_or_else(wrong)?;
            let bytes: [u8; 32] = STANDARD
                .decode(key.trim())
                .ok()
                .and_then(|bytes| bytes.try_into().ok())
                .ok_or_else(wrong)?;
            // Ids stand in patterns of queries, too.
            let legal = !id.is_empty()
                && id
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            if !legal || keys.iter().any(|known: &Key| known.id == id) {
                return Err(format!(
                    "line {}: key ids are unique and made of letters, digits and hyphens",
                    number + 1
                ));
            }
            keys.push(Key {
                id: id.to_owned(),
                bytes: Zeroizing::new(bytes),
            });
        }
        if keys.is_empty() {
            Err("holds no key".into())
        } else {
            Ok(Self(keys))
        }
    }

    fn lines(&self) -> Zeroizing<String> {
        self.0
            .iter()
            .fold(Zeroizing::new(String::new()), |mut text, key| {
                text.push_str(&key.line());
                text
            })
    }

    /// A new key at the end of the ring. In a file it is written; elsewhere the caller puts its
    /// line there.
    pub fn add(source: &Source) -> Result<Added, Error> {
        let mut ring = Self::load(source, false)?;
        let key = Key::generate();
        let (id, line) = (key.id.clone(), SecretString::from(key.line().trim_end()));
        ring.0.push(key);
        let written = ring.save(source)?;
        Ok(Added { id, line, written })
    }

    /// Takes a key out of the ring. `false` where its line has to be removed by hand.
    pub fn remove(source: &Source, id: &str) -> Result<bool, Error> {
        let mut ring = Self::load(source, false)?;
        ring.0.retain(|key| key.id != id);
        if ring.0.is_empty() {
            return Err(Error::Keyring("the last key cannot be taken out".into()));
        }
        ring.save(source)
    }

    /// Writes the ring to its file: beside it first, so that it is never there in part.
    fn save(&self, source: &Source) -> Result<bool, Error> {
        let Source::File(path) = source else {
            return Ok(false);
        };
        let explain = |error: std::io::Error| {
            Error::Keyring(format!("cannot write {}: {error}", path.display()))
        };
        let beside = path.with_extension("new");
        drop(std::fs::remove_file(&beside));
        write_private(&beside, &self.lines()).map_err(explain)?;
        std::fs::rename(&beside, path).map_err(explain)?;
        // The new name must survive power loss, too.
        if let Some(folder) = path
            .parent()
            .and_then(|folder| std::fs::File::open(folder).ok())
        {
            folder.sync_all().map_err(explain)?;
        }
        Ok(true)
    }

    /// The key that seals while the database names none.
    pub fn first(&self) -> &str {
        self.0.first().map_or("", |key| &key.id)
    }

    pub fn get(&self, id: &str) -> Option<&[u8; 32]> {
        self.0
            .iter()
            .find(|key| key.id == id)
            .map(|key| &*key.bytes)
    }

    /// In the order of the ring.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|key| key.id.as_str())
    }
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(unix)]
fn check_mode(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(path)
        .map_err(|error| Error::Keyring(error.to_string()))?
        .permissions()
        .mode();
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
    fn all_keys_open_and_the_first_one_seals_at_first() {
        let line = |id: &str, byte: u8| format!("{id} {}\n", STANDARD.encode([byte; 32]));
        let ring = Keyring::parse(&format!("# new\n{}{}", line("b", 2), line("a", 1))).unwrap();
        assert_eq!(ring.first(), "b");
        assert_eq!(ring.get("a"), Some(&[1; 32]));
        assert!(ring.get("c").is_none());
        assert!(Keyring::parse("").is_err());
        assert!(Keyring::parse("a c2hvcnQ=").is_err());
        assert!(Keyring::parse(&format!("{}{}", line("a", 1), line("a", 2))).is_err());
        assert!(Keyring::parse(&line("a%", 1)).is_err());
    }
    #[test]
    fn keys_come_from_a_command_too() {
        let line = format!("k {}", STANDARD.encode([7; 32]));
        let ring = Keyring::load(&Source::Command(format!("echo '{line}'")), false).unwrap();
        assert_eq!(ring.get("k"), Some(&[7; 32]));
        assert!(Keyring::load(&Source::Command("false".into()), false).is_err());
        assert!(!Keyring::add(&Source::Text(line.into())).unwrap().written);
    }
    #[test]
    fn a_ring_in_a_file_grows_and_shrinks_and_stays_private() {
        let path = std::env::temp_dir().join(format!("valetkey-ring-{}", uuid::Uuid::new_v4()));
        let source = Source::File(path.clone());
        let first = Keyring::load(&source, true).unwrap().first().to_owned();
        let added = Keyring::add(&source).unwrap();
        assert!(added.written);
        let ring = Keyring::load(&source, false).unwrap();
        assert_eq!(ring.ids().collect::<Vec<_>>(), [first.as_str(), &added.id]);
        assert!(Keyring::remove(&source, &first).unwrap());
        assert!(
            Keyring::remove(&source, &added.id).is_err(),
            "the last one stays"
        );
        assert_eq!(Keyring::load(&source, false).unwrap().first(), added.id);
        std::fs::remove_file(path).unwrap();
    }
}
