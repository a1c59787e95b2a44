//! `valetkey backup`, `valetkey restore` and `valetkey migrate-database`. The work itself is in
//! `store::copy`; this module checks first that nothing can be lost. Sealed values are copied
//! sealed: the keyring is never part of a backup.

use super::{Common, progress};
use crate::{
    domain::{
        Timestamp,
        audit::Action,
        ending::{Ending, Epochs},
        time::Clock as _,
    },
    server::{clock::SystemClock, installation},
    service::{
        cluster::{
            journal,
            keyring::{self as keys, Progress},
            node,
        },
        people::accounts::by_command_line,
    },
    store::{
        self, DatabaseUrl, Db, Store,
        copy::{self, Summary},
        endings,
    },
    vault::{
        Root, Vault,
        audit_key::AuditKey,
        journal::{Journal, JournalKey},
    },
};
use secrecy::SecretString;
use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

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
        copy::backup(&settings.database, &arguments.file, SystemClock.now())?;
        let whole = copy::check(&arguments.file)?;
        // Only a reminder on a page depends on it.
        if let Err(error) = copy::note_backup(&settings.database, SystemClock.now()) {
            eprintln!("The backup is good, but that it was made could not be recorded: {error}");
        }
        Ok(whole)
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
    /// Another folder with a journal of endings, beside those that the settings name. May be given
    /// more than once.
    #[arg(long)]
    journal: Vec<PathBuf>,
    /// Restores the backup as it is: consents, API keys and locks that ended after it was made work
    /// again. Without this option and without a journal of endings, all consents are ended.
    #[arg(long)]
    trust_backup: bool,
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
    let backup = check_keyring(&arguments.file, &keyring).await?;
    let folders = [journal::folders(&settings), arguments.journal.clone()].concat();
    let since = read_journals(&folders, &backup)?;
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
    let plan = Plan::new(since, arguments.trust_backup);
    let (file, audit_key) = (arguments.file, AuditKey::new(&backup.root));
    // Everybody signs in again anyway: a secret that was replaced after the backup must not come back.
    let session_root = keys::new_session_root(&keyring).map_err(|error| error.to_string())?;
    let (whole, done) = blocking(move || {
        let done = std::cell::RefCell::default();
        let whole = copy::restore(&file, &place, now, &audit_key, |db| {
            *done.borrow_mut() = plan.carry_out(db, now)?;
            keys::put_session_root(db, &session_root)
        })?;
        Ok((whole, done.into_inner()))
    })
    .await?;
    println!("{}", table(&whole));
    if let Some(aside) = aside {
        println!("The database that was there is now {aside}.");
    }
    println!("{done}");
    println!(
        "Restored. Everybody signs in again; people whose tokens were renewed after the backup sign in at their providers once more. Settings, people, access lists and content are those of the backup."
    );
    Ok(())
}

/// What the journals know of the time since the backup.
struct SinceBackup {
    /// By number; also those that the backup has.
    endings: BTreeMap<i64, Ending>,
    until: Timestamp,
    /// They are numbered as in the backup.
    is_same_epoch: bool,
}

/// How much later than its last word a journal may have gone on: it says at most once a minute that
/// nothing more has ended.
const JOURNAL_LAG: Duration = Duration::from_secs(120);

/// Reads the journals in these folders. `None` if none has all endings since the backup was made;
/// why is printed. Where they tell of several epochs, as after another restore of this backup, the one
/// that reaches furthest is what the installation has been.
fn read_journals(folders: &[PathBuf], backup: &BackupFacts) -> Result<Option<SinceBackup>, String> {
    let key = JournalKey::new(&backup.root);
    let mut parts = Vec::new();
    for folder in folders.iter().filter(|folder| folder.exists()) {
        let found = Journal::read(folder, &key)
            .map_err(|error| format!("cannot read {}: {error}", folder.display()))?;
        for problem in &found.problems {
            println!("{problem}");
        }
        for part in found.of_epochs {
            let (Some((since, until)), Some(made_at)) = (part.covers, backup.made_at) else {
                continue;
            };
            if !part.epochs.continues(&backup.epochs) {
                continue;
            }
            if since > made_at || until.plus(JOURNAL_LAG) < made_at {
                println!(
                    "The journal in {} has what ended from {} to {}, and the backup is of {}.",
                    folder.display(),
                    since.rfc3339(),
                    until.rfc3339(),
                    made_at.rfc3339()
                );
                continue;
            }
            parts.push((until, part));
        }
    }
    let Some((until, epochs)) = parts
        .iter()
        .max_by_key(|(until, _)| *until)
        .map(|(until, part)| (*until, part.epochs.clone()))
    else {
        return Ok(None);
    };
    let of_epoch = parts
        .into_iter()
        .filter(|(_, part)| part.epochs.current() == epochs.current());
    let endings: BTreeMap<i64, Ending> = of_epoch
        .flat_map(|(_, part)| part.endings)
        .map(|one| (one.number, one.ending))
        .collect();
    Ok(Some(SinceBackup {
        endings,
        until,
        is_same_epoch: epochs.current() == backup.epochs.current(),
    }))
}

/// What a restore does about what ended since the backup.
enum Plan {
    Repeat(SinceBackup),
    /// It is not known: all viewers are asked again.
    EndConsents,
    /// The operator says that nothing has ended since, or that it does not matter.
    Trust,
}

impl Plan {
    fn new(since: Option<SinceBackup>, trusts_backup: bool) -> Self {
        match since {
            _ if trusts_backup => Plan::Trust,
            Some(since) => Plan::Repeat(since),
            None => Plan::EndConsents,
        }
    }

    /// Does what the plan says and writes an audit record of it. Returns a sentence for the operator.
    fn carry_out(&self, db: &mut Db<'_>, now: Timestamp) -> Result<String, store::Error> {
        let (detail, told) = match self {
            Plan::Repeat(since) => {
                let known = endings::after(db, 0, i64::MAX)?;
                let known: HashMap<i64, Ending> = known
                    .into_iter()
                    .map(|one| (one.number, one.ending))
                    .collect();
                // Those that the database no longer had when the backup was made are older than all
                // that it had.
                let oldest = known.keys().min().copied();
                let first = oldest.filter(|_| since.is_same_epoch).unwrap_or(0);
                let (mut repeated, mut changed) = (0, 0);
                for (number, ending) in since.endings.range(first..) {
                    if known.get(number) != Some(ending) {
                        changed += endings::repeat(db, ending, now)?;
                        repeated += 1;
                    }
                }
                let until = since.until.rfc3339();
                (
                    format!("{repeated} endings repeated from the journal, up to {until}"),
                    format!(
                        "Ended once more what ended after the backup, up to {until}: {repeated} ending(s) from the journal, which changed {changed} row(s). People who changed their password since need a new link: valetkey admin link NAME"
                    ),
                )
            }
            Plan::EndConsents => {
                let ended = endings::end_all_consents(db)?;
                (
                    format!("no journal of endings: {ended} consents ended"),
                    format!(
                        "There is no journal of what ended after the backup, so all viewers are asked for their consent again ({ended} ended). People who were locked, and API keys that were deleted, after the backup work again: check them."
                    ),
                )
            }
            Plan::Trust => (
                "the backup was trusted: what ended after it works again".to_owned(),
                "The backup was restored as it is: consents, API keys and locks that ended after it work again.".to_owned(),
            ),
        };
        let line = by_command_line(now, Action::Restored, String::new(), detail);
        store::audit::insert(db, &line)?;
        endings::begin_epoch(db)?;
        Ok(told)
    }
}

/// What a backup says of itself.
struct BackupFacts {
    root: Root,
    made_at: Option<Timestamp>,
    epochs: Epochs,
}

/// Reads [`BackupFacts`]. Fails if the keyring does not open the backup's values. Looks into a temporary
/// copy, since opening runs migrations and the backup must stay unchanged.
async fn check_keyring(file: &Path, keyring: &Vault) -> Result<BackupFacts, String> {
    let beside = file.with_extension("checking");
    drop(std::fs::remove_file(&beside));
    let copied = DatabaseUrl::Sqlite(beside.clone());
    std::fs::copy(file, &beside)
        .map_err(|error| format!("cannot write {}: {error}", beside.display()))?;
    let result = match Store::open(&copied) {
        Ok(store) => look_into(&store, keyring).await,
        Err(error) => Err(error.to_string()),
    };
    for end in ["checking", "checking-wal", "checking-shm"] {
        drop(std::fs::remove_file(file.with_extension(end)));
    }
    result
}

async fn look_into(store: &Store, keyring: &Vault) -> Result<BackupFacts, String> {
    let root = keys::check(store, keyring).await?;
    let said =
        store.read(|db| Ok::<_, store::Error>((copy::backup_time(db)?, endings::epochs(db)?)));
    let (made_at, epochs) = said.await.map_err(|error| error.to_string())?;
    Ok(BackupFacts {
        root,
        made_at,
        epochs,
    })
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
