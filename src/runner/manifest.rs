//! The manifest of a bundle that is unpacked.

use crate::{archive, domain::bundle::Manifest};
use std::{fs::File, io::Read as _, path::Path};

/// Reads the manifest of an unpacked bundle.
pub fn read(app: &Path) -> Result<Manifest, String> {
    let mut text = Vec::new();
    File::open(app.join("manifest.json"))
        .and_then(|file| file.take(archive::MAX_MANIFEST).read_to_end(&mut text))
        .map_err(|_| "The bundle has no manifest.json at its root.".to_owned())?;
    Manifest::parse(&text)
}
