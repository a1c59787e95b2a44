//! Folders of builds: deleted, emptied, copied.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Does work on many files on a thread of its own: the runner's thread also carries what apps send and
/// receive.
pub async fn blocking(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(io::Error::other("the work broke off")))
}

/// Deletes a folder, if it is there.
pub fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes an empty folder, in place of whatever is there.
pub fn clear(folder: &Path) -> io::Result<()> {
    remove(folder)?;
    fs::create_dir_all(folder)
}

/// Copies a folder into a new one. `copy` makes each file: a copy of it, or another link to it.
/// Symbolic links are made anew and never followed.
pub fn copy(
    from: &Path,
    to: &Path,
    copy: impl Fn(&Path, &Path) -> io::Result<()>,
) -> io::Result<()> {
    let mut open = vec![PathBuf::new()];
    while let Some(part) = open.pop() {
        fs::create_dir(to.join(&part))?;
        for entry in fs::read_dir(from.join(&part))? {
            let entry = entry?;
            let name = part.join(entry.file_name());
            let kind = entry.file_type()?;
            if kind.is_dir() {
                open.push(name);
            } else if kind.is_symlink() {
                std::os::unix::fs::symlink(fs::read_link(entry.path())?, to.join(name))?;
            } else {
                copy(&entry.path(), &to.join(name))?;
            }
        }
    }
    Ok(())
}
