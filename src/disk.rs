//! Room on the disk that holds the data. The database, the journals and what publishers upload share
//! it, so uploads and builds leave some of it free.

use std::{
    fs, io,
    os::unix::fs::{DirEntryExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

/// What uploads and builds leave free, in bytes: for the database and what else the portal itself
/// writes.
const KEPT_FREE: u64 = 256 << 20;

/// Files that can still be made when uploads and builds stop.
const KEPT_FREE_FILES: u64 = 10_000;

/// How often [`Writing`] looks, in bytes.
const LOOK_EVERY: u64 = 8 << 20;

/// A disk, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Space {
    pub free: u64,
    /// At least 1.
    pub all: u64,
    /// How many more files it can hold.
    pub free_files: u64,
}

/// The disk of a folder; `None` if the system does not tell.
#[cfg(target_os = "linux")]
pub fn space(folder: &Path) -> Option<Space> {
    let found = rustix::fs::statvfs(folder).ok()?;
    Some(Space {
        free: found.f_bavail.saturating_mul(found.f_frsize),
        all: found.f_blocks.saturating_mul(found.f_frsize).max(1),
        // Some file systems count none.
        free_files: match found.f_files {
            0 => u64::MAX,
            _ => found.f_favail,
        },
    })
}

/// The disk of a folder; `None` if the system does not tell.
#[cfg(not(target_os = "linux"))]
pub fn space(_folder: &Path) -> Option<Space> {
    None
}

/// [`io::ErrorKind::StorageFull`] if the disk of a folder has too little room for more than what the
/// portal itself writes.
pub fn check_room(folder: &Path) -> io::Result<()> {
    match space(folder) {
        Some(space) if space.free < KEPT_FREE || space.free_files < KEPT_FREE_FILES => {
            Err(io::ErrorKind::StorageFull.into())
        }
        _ => Ok(()),
    }
}

/// Bytes that are written below a folder, one part after the other. Looks from time to time whether
/// the disk has room for more.
pub struct Writing<'a> {
    folder: &'a Path,
    bytes: u64,
}

impl<'a> Writing<'a> {
    /// Nothing is written yet.
    pub const fn new(folder: &'a Path) -> Self {
        Self { folder, bytes: 0 }
    }

    /// Counts a part before it is written; all bytes so far. The error is that of [`check_room`].
    pub fn add(&mut self, part: usize) -> io::Result<u64> {
        let before = self.bytes;
        self.bytes += part as u64;
        if self.bytes / LOOK_EVERY > before / LOOK_EVERY {
            check_room(self.folder)?;
        }
        Ok(self.bytes)
    }
}

/// Whether something cannot be written for lack of room.
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Bytes on the disk of everything below these folders, which may change at the same time. A file
/// with several names counts once; links are not followed.
pub fn size(folders: Vec<PathBuf>) -> u64 {
    let (mut bytes, mut open) = (0, folders);
    let mut counted = std::collections::HashSet::new();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.is_dir() {
                open.push(entry.path());
            } else if metadata.nlink() == 1 || counted.insert(entry.ino()) {
                bytes += metadata.blocks() * 512;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_count_once_and_links_are_not_followed() {
        let folder = std::env::temp_dir().join(crate::vault::random::label());
        fs::create_dir_all(folder.join("below")).unwrap();
        fs::write(folder.join("below/file"), vec![1; 100_000]).unwrap();
        fs::hard_link(folder.join("below/file"), folder.join("again")).unwrap();
        std::os::unix::fs::symlink("/usr", folder.join("link")).unwrap();
        let found = size(vec![folder.clone()]);
        fs::remove_dir_all(folder).unwrap();
        assert!((100_000..200_000).contains(&found), "{found}");
    }
}
