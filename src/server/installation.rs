//! Opens an installation (data directory, keyring, database), for the server and for commands.

use crate::{
    config::Settings,
    domain::time::Clock,
    service::{Parts, Services, cluster::keyring as keys},
    store::{self, Store},
    vault::Vault,
};
use std::sync::Arc;

/// Opens the data directory, keyring and database, for the server and for commands. The error is a
/// message for the operator.
pub async fn open(settings: Settings, clock: Arc<dyn Clock>) -> Result<Arc<Services>, String> {
    make_private_folder(&settings.data_dir)?;
    // A new keyring is created only together with a new database: no new key could open the
    // secrets that an existing database holds.
    let fresh = store::is_new(&settings.database).map_err(|error| error.to_string())?;
    let vault =
        Vault::open_ring(settings.keyring.clone(), fresh).map_err(|error| error.to_string())?;
    let store = Store::open(&settings.database).map_err(|error| error.to_string())?;
    let is_half_restored = store
        .read(store::copy::is_half_restored)
        .await
        .map_err(|error| error.to_string())?;
    if is_half_restored {
        return Err("a restore into this database stopped half-way, so what ended after its backup would work again: empty the database, and restore once more. Nothing was changed.".into());
    }
    let root = keys::check(&store, &vault).await?;
    let session_root = keys::session_root(&store, &vault).await?;
    Services::new(Parts {
        settings,
        store,
        vault,
        root,
        session_root,
        clock,
    })
    .map(Arc::new)
}

/// Opens an installation for a command that only reads it. Creates and migrates nothing: an error if
/// there is none, or if it is of an older version.
pub async fn open_existing(
    settings: Settings,
    clock: Arc<dyn Clock>,
) -> Result<Arc<Services>, String> {
    let is_new = store::is_new(&settings.database).map_err(|error| error.to_string())?;
    if is_new {
        return Err(format!(
            "there is no installation here: the database is empty or missing, and data_dir is {}. Name the right one with VALETKEY_DATA_DIR, VALETKEY_DATABASE_URL or --config. Nothing was made.",
            settings.data_dir.display()
        ));
    }
    if !settings.data_dir.is_dir() {
        return Err(format!(
            "there is no folder {}: name the data directory of a server of this installation with VALETKEY_DATA_DIR or --config. Nothing was made.",
            settings.data_dir.display()
        ));
    }
    if store::needs_migration(&settings.database).map_err(|error| error.to_string())? {
        return Err("the database is of an older version of this program: start the server once, which brings it up to date. Nothing was changed.".into());
    }
    open(settings, clock).await
}

/// Creates the folder and its parents with mode 0700 if they do not exist; the mode of an existing
/// folder is left alone.
pub fn make_private_folder(path: &std::path::Path) -> Result<(), String> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
        .create(path)
        .map_err(|error| format!("cannot create {}: {error}", path.display()))
}
