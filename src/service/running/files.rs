//! Where deployed content lies on disk, below `content/` in the data folder. Owns the names only.
//!
//! ```text
//! content/
//!   {guid}/bundles/{number}.tar.gz     as uploaded; also the download
//!   {guid}/bundles/{number}/app/       unpacked; read-only to the app
//!   {guid}/bundles/{number}/env/       the Python environment; read-only to the app
//!   {guid}/bundles/{number}/pycache/   compiled Python; written by the app's processes
//!   {guid}/bundles/{number}/built      exists once the build has succeeded
//!   {guid}/tasks/{guid}.log            output of a deploy
//!   {guid}/logs/{process}.log          output of a process; `.log.1` is the older half
//!   .incoming/{uuid}/                  uploads under way; emptied at start
//!   .builds/store/cache/               what uv downloaded; never written by code of a package
//!   .builds/store/{guid}/              environments that are being made; emptied at start
//!   .builds/{guid}/                    builds under way; emptied at start
//!   .runner/                           the portal's own programs; no sandbox writes it
//!   .run/{process}.app, .up            sockets of running processes; emptied at start
//! ```

use crate::domain::{Id, bundle::Task, content::Content};
use std::{
    io,
    path::{Path, PathBuf},
};

/// The scheme of the addresses of processes that run here: `deployed:{process}`. Publishers cannot
/// type it: the egress policy refuses it.
pub const PROCESS_SCHEME: &str = "deployed:";

/// The layout below one data folder.
#[derive(Clone, Debug)]
pub struct Files {
    root: PathBuf,
}

impl Files {
    /// `data_dir` may be relative to the working directory.
    pub fn new(data_dir: &Path) -> Self {
        let root = data_dir.join("content");
        Self {
            root: std::path::absolute(&root).unwrap_or(root),
        }
    }

    /// The folder of everything.
    pub fn root(&self) -> &Path {
        &self.root
    }
    /// An item's own folder.
    pub fn item(&self, item: Id<Content>) -> PathBuf {
        self.root.join(item.to_string())
    }
    /// The uploaded archive of a bundle.
    pub fn archive(&self, item: Id<Content>, bundle: i64) -> PathBuf {
        self.item(item)
            .join("bundles")
            .join(format!("{bundle}.tar.gz"))
    }
    /// The folder of an unpacked bundle.
    pub fn bundle(&self, item: Id<Content>, bundle: i64) -> PathBuf {
        self.item(item).join("bundles").join(bundle.to_string())
    }
    /// The app's files.
    pub fn app(&self, item: Id<Content>, bundle: i64) -> PathBuf {
        self.bundle(item, bundle).join("app")
    }
    /// Exists once a bundle is built.
    pub fn built(&self, item: Id<Content>, bundle: i64) -> PathBuf {
        self.bundle(item, bundle).join("built")
    }
    /// The page of a rendered notebook.
    pub fn rendered(&self, item: Id<Content>, bundle: i64) -> PathBuf {
        self.bundle(item, bundle).join("rendered.html")
    }
    /// The output of a deploy.
    pub fn task_log(&self, item: Id<Content>, task: Id<Task>) -> PathBuf {
        self.item(item).join("tasks").join(format!("{task}.log"))
    }
    /// The folder of the output of an item's processes.
    pub fn logs(&self, item: Id<Content>) -> PathBuf {
        self.item(item).join("logs")
    }
    /// Uploads under way.
    pub fn incoming(&self) -> PathBuf {
        self.root.join(".incoming")
    }
    /// Builds under way.
    pub fn builds(&self) -> PathBuf {
        self.root.join(".builds")
    }
    /// What uv may write: its cache and the environments that are being made. One folder, since it
    /// links files from one to the other.
    pub fn store(&self) -> PathBuf {
        self.builds().join("store")
    }
    /// The portal's own programs for sandboxes.
    pub fn runner(&self) -> PathBuf {
        self.root.join(".runner")
    }
    /// Sockets of running processes.
    pub fn run(&self) -> PathBuf {
        self.root.join(".run")
    }
    /// The socket behind an address that begins with [`PROCESS_SCHEME`]; `None` for any other
    /// address.
    pub fn socket_of(&self, address: &str) -> Option<PathBuf> {
        let process = address.strip_prefix(PROCESS_SCHEME)?;
        let plain = process.bytes().all(|byte| byte.is_ascii_alphanumeric());
        plain.then(|| self.run().join(format!("{process}.app")))
    }
}

/// The last `most` bytes of a file as text, from a line's beginning on; empty if there is none.
/// Bytes that are not UTF-8 are replaced.
pub fn tail(path: &Path, most: u64) -> io::Result<String> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = match std::fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        file => file?,
    };
    let length = file.metadata()?.len();
    let from = length.saturating_sub(most);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(match text.split_once('\n') {
        Some((_, rest)) if from > 0 => rest.to_owned(),
        _ => text,
    })
}
