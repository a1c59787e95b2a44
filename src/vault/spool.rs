//! The last resort for tokens that the database would not take: a file with room kept free
//! beforehand, so that a full disk does not matter. What is in it is sealed; the next start puts it
//! into the database.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
    sync::{Mutex, PoisonError},
};

const SLOTS: usize = 64;
const SLOT: usize = 32 * 1024;

/// Slots of text, each found by a name.
pub struct Spool(Mutex<Inner>);

struct Inner {
    file: File,
    names: Vec<Option<String>>,
}

impl Spool {
    /// Opens the file, or makes it with all its room.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let mut options = File::options();
        options.create(true).read(true).write(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path)?;
        if file.metadata()?.len() < (SLOTS * SLOT) as u64 {
            // Written, not only declared: a hole would need the disk later.
            file.seek(SeekFrom::End(0))?;
            let missing = SLOTS * SLOT - usize::try_from(file.metadata()?.len()).unwrap_or(0);
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

    /// Keeps a text through power loss; the name holds no line break. `false` if there is no room
    /// for it.
    pub fn put(&self, name: &str, text: &str) -> std::io::Result<bool> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = inner
            .names
            .iter()
            .position(|known| known.as_deref() == Some(name));
        let Some(position) = known.or_else(|| inner.names.iter().position(Option::is_none)) else {
            return Ok(false);
        };
        let entry = format!("{name}\n{text}\n");
        if entry.len() >= SLOT {
            return Ok(false);
        }
        let mut bytes = entry.into_bytes();
        bytes.resize(SLOT, 0);
        inner.write(position, &bytes)?;
        if let Some(place) = inner.names.get_mut(position) {
            *place = Some(name.to_owned());
        }
        Ok(true)
    }

    /// Forgets what is kept under this name.
    pub fn remove(&self, name: &str) -> std::io::Result<()> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(position) = inner
            .names
            .iter()
            .position(|known| known.as_deref() == Some(name))
        else {
            return Ok(());
        };
        inner.write(position, &vec![0; SLOT])?;
        if let Some(place) = inner.names.get_mut(position) {
            *place = None;
        }
        Ok(())
    }

    /// Everything that is kept: names and texts.
    pub fn entries(&self) -> std::io::Result<Vec<(String, String)>> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entries = Vec::new();
        for position in 0..SLOTS {
            entries.extend(inner.read(position)?);
        }
        Ok(entries)
    }
}

impl Inner {
    fn write(&mut self, position: usize, bytes: &[u8]) -> std::io::Result<()> {
        self.file.seek(SeekFrom::Start((position * SLOT) as u64))?;
        self.file.write_all(bytes)?;
        self.file.sync_data()
    }

    /// A slot that was written in part, by a crash, is none.
    fn read(&mut self, position: usize) -> std::io::Result<Option<(String, String)>> {
        let mut bytes = vec![0; SLOT];
        self.file.seek(SeekFrom::Start((position * SLOT) as u64))?;
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
    fn what_is_kept_survives_and_room_is_limited() {
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
        assert!(!spool.put("n2", &"x".repeat(SLOT)).unwrap());
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
