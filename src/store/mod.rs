//! Rows in and out. The only place that knows diesel; never sees a clear secret, decides nothing.
//!
//! One writer at a time (`BEGIN IMMEDIATE`), a few readers, WAL, `synchronous=FULL`: an acknowledged write survives power
//! loss. Every write that can change a decision moves [`Store::epoch`], by which caches know that they are old.

pub mod audit;
pub mod connections;
pub mod content;
pub mod groups;
pub mod handovers;
pub mod identities;
pub mod integrations;
pub mod people;
mod schema;
pub mod sessions;

use diesel::{
    Connection as _, RunQueryDsl as _, SqliteConnection,
    connection::SimpleConnection as _,
    r2d2::{ConnectionManager, CustomizeConnection, Pool},
    result::{DatabaseErrorKind, Error as DieselError},
};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness as _, embed_migrations};
use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/sqlite");
const READERS: u32 = 4;

/// A database connection inside [`Store::read`] or [`Store::write`].
pub struct Db<'a>(&'a mut SqliteConnection);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process holds the database, or the disk is full: worth trying again.
    #[error("the database is busy: {0}")]
    Busy(String),
    #[error("a row with this value exists")]
    Taken,
    #[error("no such row")]
    NotFound,
    #[error("database: {0}")]
    Other(String),
}

impl From<DieselError> for Error {
    fn from(error: DieselError) -> Self {
        match error {
            DieselError::NotFound => Error::NotFound,
            DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, _) => Error::Taken,
            DieselError::DatabaseError(_, info) => {
                let text = info.message().to_owned();
                let passes = ["locked", "busy", "full", "disk I/O"].iter().any(|word| text.contains(word));
                if passes { Error::Busy(text) } else { Error::Other(text) }
            }
            other => Error::Other(other.to_string()),
        }
    }
}

#[derive(Debug)]
struct EachConnection;

impl CustomizeConnection<SqliteConnection, diesel::r2d2::Error> for EachConnection {
    fn on_acquire(&self, connection: &mut SqliteConnection) -> Result<(), diesel::r2d2::Error> {
        prepare(connection).map_err(diesel::r2d2::Error::QueryError)
    }
}

fn prepare(connection: &mut SqliteConnection) -> Result<(), DieselError> {
    connection.batch_execute("PRAGMA busy_timeout = 5000; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")
}

struct Inner {
    readers: Pool<ConnectionManager<SqliteConnection>>,
    writer: Mutex<SqliteConnection>,
    epoch: AtomicU64,
}

/// The database.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

/// Makes the file, if it is not there, for its owner only; SQLite gives its companions the same rights.
fn make_private(file: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(file).map(drop)
}

impl Store {
    /// Opens the database file, makes it if need be, and brings its tables up to date.
    pub fn open(file: &Path) -> Result<Self, Error> {
        let address = file.to_str().ok_or_else(|| Error::Other("the path of the database is not UTF-8".into()))?;
        let explain = |error: &dyn std::fmt::Display| Error::Other(format!("cannot open {}: {error}", file.display()));
        make_private(file).map_err(|error| explain(&error))?;
        let mut writer = SqliteConnection::establish(address).map_err(|error| explain(&error))?;
        // On one connection before the pool exists: the switch to WAL is not covered by the busy timeout.
        prepare(&mut writer).and_then(|()| writer.batch_execute("PRAGMA journal_mode = WAL;")).map_err(|error| explain(&error))?;
        writer.run_pending_migrations(MIGRATIONS).map_err(|error| Error::Other(format!("migration failed: {error}")))?;
        let readers = Pool::builder()
            .max_size(READERS)
            .min_idle(Some(1))
            .connection_timeout(Duration::from_secs(5))
            .connection_customizer(Box::new(EachConnection))
            .build(ConnectionManager::new(address))
            .map_err(|error| explain(&error))?;
        Ok(Self(Arc::new(Inner { readers, writer: Mutex::new(writer), epoch: AtomicU64::new(1) })))
    }

    /// Moves with every write that can change a decision. Read it before loading what is to be cached.
    pub fn epoch(&self) -> u64 {
        self.0.epoch.load(Ordering::Acquire)
    }

    /// Runs `work` on a reader's connection, on a blocking thread.
    pub async fn read<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&mut Db<'_>) -> Result<T, E> + Send + 'static,
    {
        let inner = Arc::clone(&self.0);
        blocking(move || {
            let mut connection = inner.readers.get().map_err(|error| Error::Busy(error.to_string()))?;
            work(&mut Db(&mut connection))
        })
        .await
    }

    /// Runs `work` in one transaction, on a blocking thread; it commits when `work` succeeds. Makes caches forget.
    pub async fn write<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&mut Db<'_>) -> Result<T, E> + Send + 'static,
    {
        self.transact(work, true).await
    }

    /// Like [`Store::write`], for rows that no decision depends on: counters, times of last use, attempts.
    pub async fn note<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&mut Db<'_>) -> Result<T, E> + Send + 'static,
    {
        self.transact(work, false).await
    }

    async fn transact<T, E, F>(&self, work: F, decides: bool) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&mut Db<'_>) -> Result<T, E> + Send + 'static,
    {
        let inner = Arc::clone(&self.0);
        blocking(move || {
            let mut writer = inner.writer.lock().unwrap_or_else(PoisonError::into_inner);
            let result = transaction(&mut writer, work);
            if decides {
                inner.epoch.fetch_add(1, Ordering::AcqRel);
            }
            result
        })
        .await
    }

    /// Reads or sets a named value of the installation itself.
    pub fn meta(db: &mut Db<'_>, name: &str) -> Result<Option<String>, Error> {
        use diesel::prelude::*;
        Ok(schema::meta::table.find(name).select(schema::meta::value).first(db.0).optional()?)
    }
    pub fn set_meta(db: &mut Db<'_>, name: &str, value: &str) -> Result<(), Error> {
        use diesel::prelude::*;
        diesel::delete(schema::meta::table.find(name)).execute(db.0)?;
        diesel::insert_into(schema::meta::table).values((schema::meta::name.eq(name), schema::meta::value.eq(value))).execute(db.0)?;
        Ok(())
    }
    /// Answers when the database does.
    pub fn ping(db: &mut Db<'_>) -> Result<(), Error> {
        diesel::sql_query("SELECT 1").execute(db.0)?;
        Ok(())
    }
}

/// Carries a caller's own error through diesel's transaction.
enum Outcome<E> {
    Own(E),
    Database(DieselError),
}
impl<E> From<DieselError> for Outcome<E> {
    fn from(error: DieselError) -> Self {
        Outcome::Database(error)
    }
}

fn transaction<T, E: From<Error>>(connection: &mut SqliteConnection, work: impl FnOnce(&mut Db<'_>) -> Result<T, E>) -> Result<T, E> {
    let result = connection.immediate_transaction::<T, Outcome<E>, _>(|connection| work(&mut Db(connection)).map_err(Outcome::Own));
    result.map_err(|outcome| match outcome {
        Outcome::Own(error) => error,
        Outcome::Database(error) => Error::from(error).into(),
    })
}

async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<Error> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::Other(format!("a database task ended early: {error}")).into()),
    }
}

/// An id column that does not hold an id: the row was written by something else.
fn id<T>(text: &str) -> Result<crate::domain::Id<T>, Error> {
    text.parse().map_err(|_| Error::Other(format!("damaged id in a row: {:?}", text.chars().take(40).collect::<String>())))
}
fn damaged(what: &str) -> Error {
    Error::Other(format!("damaged row: {what}"))
}
