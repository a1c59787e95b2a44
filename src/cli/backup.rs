//! `valetkey backup`, `valetkey restore` and `valetkey migrate-database`. The work itself is in
//! `store::copy`; this module checks first that nothing can be lost. Sealed values are copied
//! sealed: the keyring is never part of a backup.

use super::{Common, progress};
use crate::{
    domain::time::Clock as _,
    server::{clock::SystemClock, installation},
    service::cluster::{keyring::Progress, node},
    store::{
        self, DatabaseUrl, Store,
        copy::{self, Summary},
    },
    vault::Vault,
};
use secrecy::SecretString;
use std::{path::PathBuf, sync::Arc, time::Instant};

// Arguments of `valetkey backup`.
#[derive(clap::Args)]
pub struct Backup {
    /// The file to create: an SQLite database, whichever database this installation uses.
    file: PathBuf,
    #[command(flatten)]
    common: Common,
}

/// Writes and verifies a backup. Works while servers run. Sealed values stay sealed: the keyring
/// must be backed up separately.
pub async fn backup(arguments: Backup) -> Result<(), String> {
    let settings = arguments.common.settings()?;
    if store::is_new(&settings.database).map_err(|error| error.to_string())? {
        return Err("there is no database yet: nothing to back up".into());
    }
    let started = Instant::now();
    let file = arguments.file.clone();
    let whole = blocking(move || {
        copy::backup(&settings.database, &arguments.file)?;
        copy::check(&arguments.file)
    })
    .await?;
    let rows: u64 = whole.iter().map(|table| table.rows).sum();
    println!(
        "Wrote and checked {}: {rows} rows in {:.1} s.",
        file.display(),
        started.elapsed().as_secs_f64()
    );
    println!("It opens only with the keyring. Keep a copy of that in another place.");
    Ok(())
}

// Arguments of `valetkey restore`.
#[derive(clap::Args)]
pub struct Restore {
    /// A file that `valetkey backup` made.
    file: PathBuf,
    /// Renames an existing SQLite database instead of refusing. Stop the server first.
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    common: Common,
}

/// Restores a backup into the database that the settings name, which must be new.
pub async fn restore(arguments: Restore) -> Result<(), String> {
    let settings = arguments.common.settings()?;
    let place = settings.database.clone();
    installation::make_private_folder(&settings.data_dir)?;
    // Check the keyring before anything else: a backup that it cannot open is useless here.
    let keyring =
        Vault::open_ring(settings.keyring.clone(), false).map_err(|error| error.to_string())?;
    let copied = DatabaseUrl::Sqlite(arguments.file.clone());
    if store::is_new(&copied).map_err(|error| error.to_string())? {
        return Err(format!("there is no file {}", arguments.file.display()));
    }
    check_keyring(&copied, &keyring).await?;
    let now = SystemClock.now();
    let mut aside = None;
    if !store::is_new(&place).map_err(|error| error.to_string())? {
        if node::is_served(&settings.data_dir)? {
            return Err(
                "a server runs on this data directory: stop it first, or what it writes meanwhile is lost. Nothing was changed.".into()
            );
        }
        match (&place, arguments.replace) {
            (DatabaseUrl::Sqlite(file), true) => aside = Some(copy::replaced_name(file, now)),
            (DatabaseUrl::Sqlite(file), false) => {
                return Err(format!(
                    "{} is there already. Stop the server and add --replace to put it aside. Nothing was changed.",
                    file.display()
                ));
            }
            // A PostgreSQL database with tables but without people counts as empty; `copy::restore`
            // refuses any other.
            (DatabaseUrl::Postgresql(_), _) => {}
        }
    }
    let file = arguments.file;
    let whole = blocking(move || copy::restore(&file, &place, now)).await?;
    println!("{}", table(&whole));
    if let Some(aside) = aside {
        println!("The database that was there is now {aside}.");
    }
    println!(
        "Restored. Whoever's tokens were renewed after the backup is asked to sign in once more."
    );
    Ok(())
}

/// Fails if the keyring does not open the backup's values. Checks a temporary copy, since opening
/// runs migrations and the backup must stay unchanged.
async fn check_keyring(backup: &DatabaseUrl, keyring: &Vault) -> Result<(), String> {
    let DatabaseUrl::Sqlite(file) = backup else {
        return Ok(());
    };
    let beside = file.with_extension("checking");
    drop(std::fs::remove_file(&beside));
    let copied = DatabaseUrl::Sqlite(beside.clone());
    std::fs::copy(file, &beside)
        .map_err(|error| format!("cannot write {}: {error}", beside.display()))?;
    let result = match Store::open(&copied) {
        Ok(store) => crate::service::cluster::keyring::check(&store, keyring)
            .await
            .map(drop),
        Err(error) => Err(error.to_string()),
    };
    for end in ["checking", "checking-wal", "checking-shm"] {
        drop(std::fs::remove_file(file.with_extension(end)));
    }
    result
}

// Arguments of `valetkey migrate-database`.
#[derive(clap::Args)]
pub struct MigrateDatabase {
    /// A file that holds the address of an empty PostgreSQL database:
    /// postgres://user:password@host/database. Without it the address is read from standard input,
    /// so that the password does not appear in the process list.
    #[arg(long)]
    to_file: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

/// Moves an SQLite installation to PostgreSQL. Stop the server first. The SQLite file stays
/// unchanged.
pub async fn migrate_database(arguments: MigrateDatabase) -> Result<(), String> {
    let settings = arguments.common.settings()?;
    let DatabaseUrl::Sqlite(file) = settings.database.clone() else {
        return Err("this installation is on PostgreSQL already: leave database_url out to name the SQLite one to move".into());
    };
    if !file.exists() {
        return Err(format!("there is no database {}", file.display()));
    }
    let text = match &arguments.to_file {
        Some(path) => std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?,
        None => std::io::read_to_string(std::io::stdin()).map_err(|error| error.to_string())?,
    };
    let address = text.trim().to_owned();
    if !address.starts_with("postgres://") && !address.starts_with("postgresql://") {
        return Err("the address must start with postgres://".into());
    }
    // Runs pending migrations and checks that the keyring fits.
    let service = installation::open(settings, Arc::new(SystemClock)).await?;
    let nodes = service
        .nodes
        .nodes()
        .await
        .map_err(|error| error.to_string())?;
    if !nodes.is_empty() {
        return Err("a server runs on this database: stop it first, or what it writes meanwhile is lost. Nothing was changed.".into());
    }
    let (from, to) = (
        DatabaseUrl::Sqlite(file),
        DatabaseUrl::Postgresql(SecretString::from(address)),
    );
    let started = Instant::now();
    let copied = blocking(move || {
        let mut snapshot = copy::Snapshot::open(&from)?;
        let bar = progress("copying");
        bar.step(Progress::Total(snapshot.rows()?));
        let copied = copy::copy(&mut snapshot, &to, |rows| bar.step(Progress::Done(rows)))?;
        bar.end();
        Ok(copied)
    })
    .await?;
    println!("{}", table(&copied));
    println!(
        "Moved in {:.1} s; every table was compared. Set database_url and start the servers.",
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

/// One line per table that has rows: their number, and its name.
fn table(summaries: &[Summary]) -> String {
    let lines = summaries
        .iter()
        .filter(|summary| summary.rows > 0)
        .map(|summary| format!("{:>10}  {}", summary.rows, summary.table));
    lines.collect::<Vec<_>>().join("\n")
}

/// Runs database work on a blocking thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, store::Error> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())
}
