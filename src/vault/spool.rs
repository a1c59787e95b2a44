//! The spool: the last resort for new tokens that the database does not accept. A file of 64 slots
//! of 32 KiB, written in full beforehand, so that a full disk does not matter. The next start moves
//! the entries into the database.
//!
//! Callers store sealed values only; this module never looks into them.

use parking_lot::Mutex;
use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
};

/// Number of entries.
const SLOTS: usize = 64;
/// Bytes per entry, including its name and padding.
const SLOT_BYTES: usize = 32 * 1024;

/// Text entries, each under a name.
pub struct Spool(Mutex<Inner>);

struct Inner {
    file: File,
    names: Vec<Option<String>>,
}

impl Spool {
    /// Opens the file, or creates it (mode 0600) at its full size.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let mut options = File::options();
        options.create(true).read(true).write(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path)?;
        if file.metadata()?.len() < (SLOTS * SLOT_BYTES) as u64 {
            // Write zeros instead of extending the file: a sparse file would need disk space later.
            file.seek(SeekFrom::End(0))?;
            let missing = SLOTS * SLOT_BYTES - usize::try_from(file.metadata()?.len()).unwrap_or(0);
            file.write_all(&vec![0; missing])?;
            file.sync_all()?;
        }
        let mut inner = Inner {
            file,
            names: vec![None; SLOTS],
        };
        for position in 0..SLOTS {
            let name = inner.read(position)?.map(|(name, _)| name);
            if let Some(place) = inner.names.get_mut(position) {
                *place = name;
            }
        }
        Ok(Self(Mutex::new(inner)))
    }

    /// Stores a text under a name (without line breaks), replaces an earlier one, and syncs.
    /// `Ok(false)` if no slot is free or the entry is too long.
    pub fn put(&self, name: &str, text: &str) -> std::io::Result<bool> {
        let mut inner = self.0.lock();
        let known = inner
            .names
            .iter()
            .position(|known| known.as_deref() == Some(name));
        let Some(position) = known.or_else(|| inner.names.iter().position(Option::is_none)) else {
            return Ok(false);
        };
        let entry = format!("{name}\n{text}\n");
        if entry.len() >= SLOT_BYTES {
            return Ok(false);
        }
        let mut bytes = entry.into_bytes();
        bytes.resize(SLOT_BYTES, 0);
        inner.write(position, &bytes)?;
        if let Some(place) = inner.names.get_mut(position) {
            *place = Some(name.to_owned());
        }
        Ok(true)
    }

    /// Clears the entry of this name, if there is one.
    pub fn remove(&self, name: &str) -> std::io::Result<()> {
        let mut inner = self.0.lock();
        let Some(position) = inner
            .names
            .iter()
            .position(|known| known.as_deref() == Some(name))
        else {
            return Ok(());
        };
        inner.write(position, &vec![0; SLOT_BYTES])?;
        if let Some(place) = inner.names.get_mut(position) {
            *place = None;
        }
        Ok(())
    }

    /// The names and texts of all entries.
    pub fn entries(&self) -> std::io::Result<Vec<(String, String)>> {
        let mut inner = self.0.lock();
        let mut entries = Vec::new();
        for position in 0..SLOTS {
            entries.extend(inner.read(position)?);
        }
        Ok(entries)
    }
}

impl Inner {
    fn write(&mut self, position: usize, bytes: &[u8]) -> std::io::Result<()> {
        self.file
            .seek(SeekFrom::Start((position * SLOT_BYTES) as u64))?;
        self.file.write_all(bytes)?;
        self.file.sync_data()
    }

    /// The entry's name and text; `None` if the slot is empty or a crash left it partly written.
    fn read(&mut self, position: usize) -> std::io::Result<Option<(String, String)>> {
        let mut bytes = vec![0; SLOT_BYTES];
        self.file
            .seek(SeekFrom::Start((position * SLOT_BYTES) as u64))?;
        self.file.read_exact(&mut bytes)?;
        let text = std::str::from_utf8(bytes.split(|byte| *byte == 0).next().unwrap_or_default())
            .unwrap_or("");
        let whole = text
            .strip_suffix('\n')
            .and_then(|text| text.split_once('\n'));
        Ok(whole.map(|(name, text)| (name.to_owned(), text.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_survive_a_reopen_and_the_number_of_slots_is_fixed() {
        let path = std::env::temp_dir().join(format!("valetkey-spool-{}", uuid::Uuid::new_v4()));
        let spool = Spool::open(&path).unwrap();
        for number in 0..SLOTS {
            assert!(spool.put(&format!("n{number}"), "text").unwrap());
        }
        assert!(!spool.put("more", "text").unwrap());
        assert!(
            spool.put("n1", "newer").unwrap(),
            "what is there is replaced"
        );
        assert!(!spool.put("n2", &"x".repeat(SLOT_BYTES)).unwrap());
        let before = std::fs::metadata(&path).unwrap().len();
        drop(spool);
        let spool = Spool::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), before);
        assert_eq!(spool.entries().unwrap().len(), SLOTS);
        assert!(
            spool
                .entries()
                .unwrap()
                .contains(&("n1".into(), "newer".into()))
        );
        spool.remove("n1").unwrap();
        assert_eq!(
            Spool::open(&path).unwrap().entries().unwrap().len(),
            SLOTS - 1
        );
        std::fs::remove_file(path).unwrap();
    }
}
