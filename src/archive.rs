//! Archives of deployed content: reading the manifest, unpacking safely, packing. Archives come
//! from publishers and are not trusted: nothing is written outside the folder that is unpacked
//! into, and size and number of entries are limited by what is read, not by what a header says.
//!
//! Unpacking opens every path part by part below the handle of the target folder, and follows no
//! link.
//! Errors are sentences for the publisher and name the entry.

use crate::disk;
use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
use md5::{Digest as _, Md5};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Seek as _, SeekFrom, Write},
    path::{Component, Path, PathBuf},
};

/// What an archive may unpack to.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of all files together.
    pub bytes: u64,
    /// Files and folders.
    pub entries: usize,
}

/// Largest `manifest.json`, in bytes.
pub const MAX_MANIFEST: u64 = 8 << 20;
/// Largest header of an entry that says more about the next one (long names, pax records), in bytes.
const MAX_EXTENSION: u64 = 64 * 1024;
/// Bytes of the directory of a zip archive.
const MAX_DIRECTORY: u32 = 16 << 20;
/// Longest path that a message repeats, in characters.
const MAX_SHOWN: usize = 200;
/// Deepest path, in components.
const MAX_DEPTH: usize = 40;

fn cannot_read(error: &io::Error) -> String {
    format!(
        "The archive cannot be read: {error}. It must be a tar archive compressed with gzip; upload it again."
    )
}

/// A path for a message: cut, and without control characters.
fn shown(path: &Path) -> String {
    let text = path.to_string_lossy();
    text.chars()
        .filter(|letter| !letter.is_control())
        .take(MAX_SHOWN)
        .collect()
}

/// Looks through all headers before anything is kept in memory: the library reads long names and
/// pax records as a whole.
fn check_headers(archive: &Path, limits: Limits) -> Result<(), String> {
    let mut tar = open(archive, limits)?;
    let entries = tar
        .entries()
        .map_err(|error| cannot_read(&error))?
        .raw(true);
    for (count, entry) in entries.enumerate() {
        let entry = entry.map_err(|error| cannot_read(&error))?;
        // Each may have two headers more.
        if count > limits.entries.saturating_mul(3) {
            return Err(too_many(limits));
        }
        let kind = entry.header().entry_type();
        let is_extension = kind.is_gnu_longname()
            || kind.is_gnu_longlink()
            || kind.is_pax_local_extensions()
            || kind.is_pax_global_extensions();
        if is_extension
            && entry
                .header()
                .size()
                .map_or(true, |size| size > MAX_EXTENSION)
        {
            return Err("The archive holds a name of more than 64 KiB. Pack it anew.".into());
        }
        if entry.header().size().is_ok_and(|size| size > limits.bytes) {
            return Err(too_large(limits));
        }
    }
    Ok(())
}

/// Opens an archive. Twice the limit of bytes, for headers and padding.
fn open(archive: &Path, limits: Limits) -> Result<tar::Archive<impl Read>, String> {
    let file = File::open(archive).map_err(|error| cannot_read(&error))?;
    let bounded = MultiGzDecoder::new(BufReader::new(file)).take(limits.bytes.saturating_mul(2));
    Ok(tar::Archive::new(bounded))
}

/// The path of an entry, relative, without `.` components; an error for an absolute one or one with
/// `..`.
fn plain_path(path: &Path) -> Result<PathBuf, String> {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::Normal(part) => plain.push(part),
            Component::RootDir | Component::ParentDir | Component::Prefix(_) => {
                return Err(format!(
                    "The archive holds the path “{}”, which leaves its folder. Pack it anew with relative paths.",
                    shown(path)
                ));
            }
        }
    }
    if plain.components().count() > MAX_DEPTH {
        return Err(format!("The path “{}” has too many folders.", shown(path)));
    }
    Ok(plain)
}

/// The text of the archive's `manifest.json`; `None` if it has none at its root.
pub fn read_manifest(archive: &Path, limits: Limits) -> Result<Option<Vec<u8>>, String> {
    check_headers(archive, limits)?;
    let mut tar = open(archive, limits)?;
    for (count, entry) in tar
        .entries()
        .map_err(|error| cannot_read(&error))?
        .enumerate()
    {
        if count > limits.entries {
            return Err(too_many(limits));
        }
        let mut entry = entry.map_err(|error| cannot_read(&error))?;
        let path = entry
            .path()
            .map_err(|error| cannot_read(&error))?
            .into_owned();
        if plain_path(&path)? == Path::new("manifest.json") {
            let mut text = Vec::new();
            entry
                .by_ref()
                .take(MAX_MANIFEST)
                .read_to_end(&mut text)
                .map_err(|error| cannot_read(&error))?;
            return Ok(Some(text));
        }
    }
    Ok(None)
}

fn too_many(limits: Limits) -> String {
    format!(
        "The archive holds more than {} files and folders. Leave out what the app does not need, such as virtual environments.",
        limits.entries
    )
}

fn too_large(limits: Limits) -> String {
    format!(
        "The archive unpacks to more than {} MiB. Leave out what the app does not need.",
        limits.bytes >> 20
    )
}

/// A folder that is being filled, within limits.
struct Target<'a> {
    folder: &'a Path,
    limits: Limits,
    written: disk::Writing<'a>,
    entries: usize,
    checksums: BTreeMap<String, String>,
}

impl<'a> Target<'a> {
    /// Creates the folder, which must not exist.
    fn new(folder: &'a Path, limits: Limits) -> Result<Self, String> {
        fs::create_dir(folder).map_err(|error| cannot_write(folder, &error))?;
        Ok(Self {
            folder,
            limits,
            written: disk::Writing::new(folder),
            entries: 0,
            checksums: BTreeMap::new(),
        })
    }

    fn count(&mut self) -> Result<(), String> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(too_many(self.limits));
        }
        disk::check_room(self.folder).map_err(|error| cannot_write(self.folder, &error))
    }

    fn add_folder(&mut self, path: &Path) -> Result<(), String> {
        self.count()?;
        below::create_folders(self.folder, path).map_err(|error| cannot_write(path, &error))
    }

    /// Writes a file and notes its checksum.
    fn add_file(&mut self, path: &Path, mut content: impl Read) -> Result<(), String> {
        self.count()?;
        let name = path
            .to_str()
            .ok_or_else(|| format!("The file name “{}” is not valid UTF-8.", shown(path)))?;
        if let Some(parent) = path.parent().filter(|parent| *parent != Path::new("")) {
            below::create_folders(self.folder, parent)
                .map_err(|error| cannot_write(path, &error))?;
        }
        let file =
            below::create_file(self.folder, path).map_err(|error| cannot_write(path, &error))?;
        let mut file = BufWriter::new(file);
        let mut digest = Md5::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = content
                .read(&mut buffer)
                .map_err(|error| cannot_read(&error))?;
            let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else {
                break;
            };
            let written = self.written.add(read);
            if written.map_err(|error| cannot_write(path, &error))? > self.limits.bytes {
                return Err(too_large(self.limits));
            }
            digest.update(part);
            file.write_all(part)
                .map_err(|error| cannot_write(path, &error))?;
        }
        file.flush().map_err(|error| cannot_write(path, &error))?;
        let digest: String = digest
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        self.checksums.insert(name.to_owned(), digest);
        Ok(())
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> String {
    match error.kind() {
        _ if disk::is_full(error) => {
            "The portal's disk is full. The operator has to make room; then deploy again.".into()
        }
        io::ErrorKind::AlreadyExists => {
            format!("The archive holds “{}” twice.", shown(path))
        }
        _ => format!("“{}” cannot be written: {error}.", shown(path)),
    }
}

/// Unpacks a tar archive compressed with gzip into `folder`, which must not exist. Returns the MD5
/// of each file by its path. Links, devices and other special entries are refused.
pub fn unpack(
    archive: &Path,
    folder: &Path,
    limits: Limits,
) -> Result<BTreeMap<String, String>, String> {
    check_headers(archive, limits)?;
    let mut tar = open(archive, limits)?;
    let mut target = Target::new(folder, limits)?;
    for entry in tar.entries().map_err(|error| cannot_read(&error))? {
        let entry = entry.map_err(|error| cannot_read(&error))?;
        let path = entry
            .path()
            .map_err(|error| cannot_read(&error))?
            .into_owned();
        let plain = plain_path(&path)?;
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            if plain != Path::new("") {
                target.add_folder(&plain)?;
            }
        } else if kind.is_file() {
            target.add_file(&plain, entry)?;
        } else if !kind.is_pax_global_extensions() {
            return Err(format!(
                "“{}” in the archive is a link or a special file. A bundle holds only files and folders.",
                shown(&path)
            ));
        }
    }
    Ok(target.checksums)
}

/// Whether the directory of a zip archive is larger than a bundle needs: all of it is held in memory
/// when the archive is opened. Looks at each place that may be the directory's end record.
fn has_large_directory(file: &mut File) -> io::Result<bool> {
    let length = file.seek(SeekFrom::End(0))?;
    // The end record (22 bytes) and the longest comment.
    let start = length.saturating_sub(22 + 0xffff + 20);
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    file.take(length - start).read_to_end(&mut tail)?;
    file.rewind()?;
    let size_at = |at: usize| {
        let bytes = tail.get(at + 12..at + 16)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    // Before it stands the locator of a larger one, in the form for very large archives.
    let is_zip64 = |at: usize| at >= 20 && tail[at - 20..].starts_with(b"PK\x06\x07");
    Ok(tail.windows(4).enumerate().any(|(at, word)| {
        word == b"PK\x05\x06"
            && (is_zip64(at) || size_at(at).is_some_and(|size| size > MAX_DIRECTORY))
    }))
}

/// Unpacks a zip archive into `folder`, which must not exist.
pub fn unzip(archive: &Path, folder: &Path, limits: Limits) -> Result<(), String> {
    let broken = |error: zip::result::ZipError| {
        format!("The zip archive cannot be read: {error}. Pack it again.")
    };
    let mut file = File::open(archive).map_err(|error| cannot_read(&error))?;
    if has_large_directory(&mut file).map_err(|error| cannot_read(&error))? {
        return Err("The zip archive has too many files, or the form of very large archives (Zip64). Leave out what the app does not need, such as virtual environments.".into());
    }
    let mut zip = zip::ZipArchive::new(BufReader::new(file)).map_err(broken)?;
    let mut target = Target::new(folder, limits)?;
    for index in 0..zip.len() {
        let entry = zip.by_index(index).map_err(broken)?;
        let name = entry.name().map_err(broken)?.into_owned();
        let plain = plain_path(Path::new(&name))?;
        if plain == Path::new("") {
            continue;
        }
        if entry.is_symlink() {
            return Err(format!(
                "“{name}” in the archive is a link. A bundle holds only files and folders."
            ));
        }
        if entry.is_dir() {
            target.add_folder(&plain)?;
        } else {
            target.add_file(&plain, entry)?;
        }
    }
    Ok(())
}

/// Packs a folder as a tar archive compressed with gzip, into the new file `archive`.
pub fn pack(folder: &Path, archive: &Path) -> io::Result<()> {
    let file = File::create_new(archive)?;
    let mut tar = tar::Builder::new(GzEncoder::new(BufWriter::new(file), Compression::fast()));
    tar.follow_symlinks(false);
    tar.mode(tar::HeaderMode::Deterministic);
    tar.append_dir_all("", folder)?;
    tar.into_inner()?.finish()?.into_inner()?.sync_all()
}

/// Opens a regular file below a folder, without following any link.
pub fn open_below(folder: &Path, path: &Path) -> io::Result<File> {
    let file = below::open_file(folder, path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::ErrorKind::InvalidInput.into())
    }
}

/// Files and folders below the handle of a folder: opened part by part, and no part may be a link.
/// (`openat2` would do it in one step. systemd's `RestrictSUIDSGID=` forbids it.)
mod below {
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
    use std::{
        ffi::OsStr,
        fs::File,
        io,
        os::fd::OwnedFd,
        path::{Component, Path},
    };

    const FOLDER: OFlags = OFlags::DIRECTORY
        .union(OFlags::RDONLY)
        .union(OFlags::NOFOLLOW)
        .union(OFlags::CLOEXEC);

    /// What to do with folders that are missing.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Missing {
        Create,
        Fail,
    }

    /// Opens `folder`, which may be reached through links, and the folders of `path` below it.
    fn open(folder: &Path, path: &Path, missing: Missing) -> io::Result<OwnedFd> {
        let mut handle = openat(
            CWD,
            folder,
            FOLDER.difference(OFlags::NOFOLLOW),
            Mode::empty(),
        )?;
        for part in path.components() {
            let part = name(part)?;
            if missing == Missing::Create {
                match mkdirat(&handle, part, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            handle = openat(&handle, part, FOLDER, Mode::empty())?;
        }
        Ok(handle)
    }

    fn name(part: Component<'_>) -> io::Result<&OsStr> {
        match part {
            Component::Normal(name) => Ok(name),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Opens a file in a folder below `folder`, itself no link.
    fn open_last(folder: &Path, path: &Path, flags: OFlags, mode: Mode) -> io::Result<File> {
        let (Some(last), Some(parent)) = (path.components().next_back(), path.parent()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let handle = open(folder, parent, Missing::Fail)?;
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(openat(&handle, name(last)?, flags, mode)?))
    }

    /// Creates a folder and those above it, where they are missing.
    pub(super) fn create_folders(folder: &Path, path: &Path) -> io::Result<()> {
        open(folder, path, Missing::Create).map(drop)
    }

    /// Opens a file for reading; never waits for the other end of a pipe.
    pub(super) fn open_file(folder: &Path, path: &Path) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        open_last(folder, path, flags, Mode::empty())
    }

    /// Creates a file; it must not exist.
    pub(super) fn create_file(folder: &Path, path: &Path) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        open_last(folder, path, flags, Mode::from_raw_mode(0o644))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        bytes: 1 << 20,
        entries: 50,
    };

    /// A folder that is deleted at the end.
    struct Folder(PathBuf);
    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir()
                .join(format!("valetkey-archive-{name}-{}", std::process::id()));
            drop(fs::remove_dir_all(&path));
            fs::create_dir(&path).unwrap();
            Self(path)
        }
        /// Writes an archive with these raw entries.
        fn archive(&self, entries: &[(&str, tar::EntryType, &[u8])]) -> PathBuf {
            let path = self.0.join("archive.tar.gz");
            let mut tar = tar::Builder::new(GzEncoder::new(
                File::create(&path).unwrap(),
                Compression::fast(),
            ));
            for (name, kind, content) in entries {
                let mut header = tar::Header::new_gnu();
                // `set_path` refuses what an attacker would write.
                let field = &mut header.as_old_mut().name;
                field[..name.len()].copy_from_slice(name.as_bytes());
                header.set_entry_type(*kind);
                header.set_mode(0o644);
                header.set_size(content.len() as u64);
                if kind.is_symlink() {
                    header.set_link_name("/etc").unwrap();
                }
                header.set_cksum();
                tar.append(&header, *content).unwrap();
            }
            tar.into_inner().unwrap().finish().unwrap();
            path
        }
        fn unpack(
            &self,
            entries: &[(&str, tar::EntryType, &[u8])],
        ) -> Result<BTreeMap<String, String>, String> {
            unpack(&self.archive(entries), &self.0.join("out"), LIMITS)
        }
    }
    impl Drop for Folder {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    use tar::EntryType::{Char, Directory, Link, Regular, Symlink};

    #[test]
    fn files_are_unpacked_with_their_checksums_and_packed_again() {
        let folder = Folder::new("plain");
        let sums = folder
            .unpack(&[
                ("a", Directory, b""),
                ("./a/b.txt", Regular, b"hello"),
                ("manifest.json", Regular, b"{}"),
            ])
            .unwrap();
        assert_eq!(sums["a/b.txt"], "5d41402abc4b2a76b9719d911017c592");
        assert_eq!(fs::read(folder.0.join("out/a/b.txt")).unwrap(), b"hello");
        let again = folder.0.join("again.tar.gz");
        pack(&folder.0.join("out"), &again).unwrap();
        assert_eq!(read_manifest(&again, LIMITS).unwrap().unwrap(), b"{}");
        assert_eq!(
            unpack(&again, &folder.0.join("out2"), LIMITS).unwrap(),
            sums
        );
    }

    #[test]
    fn nothing_leaves_the_folder() {
        for (case, entries) in [
            ("up", vec![("../x", Regular, b"x" as &[u8])]),
            ("root", vec![("/tmp/x", Regular, b"x")]),
            ("deep", vec![("a/../../x", Regular, b"x")]),
            ("link", vec![("l", Symlink, b""), ("l/x", Regular, b"x")]),
            ("hard", vec![("l", Link, b"")]),
            ("device", vec![("d", Char, b"")]),
            ("twice", vec![("x", Regular, b"1"), ("x", Regular, b"2")]),
        ] {
            let folder = Folder::new(case);
            assert!(folder.unpack(&entries).is_err(), "{case}");
        }
    }

    #[test]
    fn no_part_of_a_path_below_a_folder_may_be_a_link() {
        let work = Folder::new("links");
        let (outside, inside) = (work.0.join("outside"), work.0.join("inside"));
        fs::create_dir_all(outside.join("deeper")).unwrap();
        fs::create_dir(&inside).unwrap();
        fs::write(outside.join("secret"), "s3cret").unwrap();
        fs::write(inside.join("own"), "own").unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("folder")).unwrap();
        std::os::unix::fs::symlink("../outside/secret", inside.join("file")).unwrap();
        assert!(open_below(&inside, Path::new("own")).is_ok());
        for path in [
            "file",
            "folder/secret",
            "../outside/secret",
            "/etc/passwd",
            "folder",
            "",
        ] {
            assert!(open_below(&inside, Path::new(path)).is_err(), "{path}");
            assert!(
                below::create_file(&inside, Path::new(path)).is_err(),
                "{path}"
            );
        }
        for path in ["folder/new", "../outside/new", "/tmp"] {
            assert!(
                below::create_folders(&inside, Path::new(path)).is_err(),
                "{path}"
            );
        }
        assert!(!outside.join("new").exists());
    }

    #[test]
    fn size_and_number_of_entries_are_limited() {
        let folder = Folder::new("large");
        let zeros = vec![0; 2 << 20];
        assert!(
            folder
                .unpack(&[("x", Regular, &zeros)])
                .unwrap_err()
                .contains("MiB")
        );
        let folder = Folder::new("many");
        let names: Vec<String> = (0..60).map(|number| format!("f{number}")).collect();
        let entries: Vec<_> = names
            .iter()
            .map(|name| (name.as_str(), Regular, b"" as &[u8]))
            .collect();
        assert!(
            folder
                .unpack(&entries)
                .unwrap_err()
                .contains("more than 50")
        );
    }

    #[test]
    fn what_is_no_archive_is_said_so() {
        let folder = Folder::new("broken");
        let path = folder.0.join("broken.tar.gz");
        fs::write(&path, b"no gzip at all").unwrap();
        assert!(read_manifest(&path, LIMITS).unwrap_err().contains("gzip"));
        let whole = fs::read(folder.archive(&[("manifest.json", Regular, &[b'x'; 5000])])).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(unpack(&path, &folder.0.join("half"), LIMITS).is_err());
    }
}
