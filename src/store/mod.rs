//! Persistence: rows in and out, on SQLite or PostgreSQL. The only module that uses diesel. It
//! never sees a clear-text secret (secrets arrive as [`crate::vault::Sealed`]) and makes no
//! decision.
//!
//! Writes are serialized on both databases, so a transaction may read and then write without `FOR
//! UPDATE` (see `backend`). An acknowledged write survives power loss (`synchronous=FULL`).
//!
//! Every transaction that can change a decision increments the epoch, a number in the database.
//! Caches keep it with each entry ([`Store::epoch`]): so a revocation takes effect at once on its
//! own node and within [`EPOCH_POLL_INTERVAL`] on others, without a query per request.

pub mod audit;
mod backend;
pub mod connections;
pub mod content;
pub mod copy;
pub mod groups;
pub mod handovers;
pub mod identities;
pub mod integrations;
pub mod leaks;
pub mod leases;
pub mod people;
pub mod revocations;
mod schema;
pub mod sealed;
pub mod sessions;
pub mod short_lived;

use backend::{AnyConnection, ConnectionManager};
pub use backend::{DatabaseUrl, is_new};
use diesel::{RunQueryDsl as _, r2d2::Pool};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Size of the read pool on SQLite.
const SQLITE_READ_POOL: u32 = 4;
/// Size of the read pool on PostgreSQL: larger, since each query includes a network round trip.
const POSTGRES_READ_POOL: u32 = 8;
/// How often the epoch is read from the database, to learn of writes by other processes.
pub const EPOCH_POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Maximum age of the last reading of the epoch. Beyond it, no cache entry is valid.
const MAX_EPOCH_AGE: Duration = Duration::from_secs(1);
/// The epoch that no cache entry is valid for.
const INVALID_EPOCH: u64 = 0;

/// A database connection inside [`Store::read`], [`Store::write`] or
/// [`Store::write_untracked`].
pub struct Db<'a>(&'a mut AnyConnection);

/// Errors of the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Temporary: another process holds the lock, the database is unreachable, or the disk is full.
    /// Worth a retry.
    #[error("the database is busy: {0}")]
    Busy(String),
    /// A unique constraint failed.
    #[error("a row with this value exists")]
    Taken,
    /// A row that was expected is missing.
    #[error("no such row")]
    NotFound,
    /// Anything else: a failed query, a damaged row.
    #[error("database: {0}")]
    Other(String),
}

struct Inner {
    place: DatabaseUrl,
    readers: Pool<ConnectionManager>,
    /// A pool of one connection: one writer at a time.
    writer: Pool<ConnectionManager>,
    /// The last known epoch.
    epoch: AtomicU64,
    /// When `epoch` was last read from the database, in milliseconds since `started`.
    looked: AtomicU64,
    started: Instant,
}

/// A handle to the database; cheap to clone.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

/// A connection pool; waits at most 5 s for a free connection.
fn pool(place: &DatabaseUrl, size: u32) -> Result<Pool<ConnectionManager>, Error> {
    Pool::builder()
        .max_size(size)
        .min_idle(Some(1))
        .connection_timeout(Duration::from_secs(5))
        .test_on_check_out(true)
        .error_handler(Box::new(diesel::r2d2::NopErrorHandler))
        .build(ConnectionManager(place.clone()))
        .map_err(|error| Error::Other(format!("cannot open the database: {error}")))
}

impl Store {
    /// Opens the database and migrates it; creates a missing SQLite file.
    pub fn open(place: &DatabaseUrl) -> Result<Self, Error> {
        backend::migrate(place)?;
        let readers = if place.is_shared() {
            POSTGRES_READ_POOL
        } else {
            SQLITE_READ_POOL
        };
        let inner = Inner {
            place: place.clone(),
            readers: pool(place, readers)?,
            writer: pool(place, 1)?,
            epoch: AtomicU64::new(INVALID_EPOCH),
            looked: AtomicU64::new(0),
            started: Instant::now(),
        };
        let store = Self(Arc::new(inner));
        store.read_epoch_blocking()?;
        Ok(store)
    }

    /// The database that this store uses.
    pub fn database_url(&self) -> &DatabaseUrl {
        &self.0.place
    }

    /// The epoch: it changes with every write that can change a decision, by any process. Read it
    /// before loading what is to be cached; an entry that was loaded at another epoch, or at 0, is
    /// invalid.
    ///
    /// Lags by at most [`EPOCH_POLL_INTERVAL`] behind writes of other processes while the server
    /// runs; returns 0 once the lag could exceed one second.
    pub fn epoch(&self) -> u64 {
        let inner = &self.0;
        let looked = Duration::from_millis(inner.looked.load(Ordering::Acquire));
        if inner.started.elapsed().saturating_sub(looked) < MAX_EPOCH_AGE {
            inner.epoch.load(Ordering::Acquire)
        } else {
            INVALID_EPOCH
        }
    }

    /// Reads the epoch from the database. Called every [`EPOCH_POLL_INTERVAL`] while the server
    /// runs.
    pub async fn refresh_epoch(&self) -> Result<(), Error> {
        let store = self.clone();
        blocking(move || store.read_epoch_blocking()).await
    }

    /// [`Store::refresh_epoch`], blocking. The time is taken before the query, so that the age is
    /// never underestimated.
    fn read_epoch_blocking(&self) -> Result<(), Error> {
        use diesel::prelude::*;
        let asked = self.0.started.elapsed();
        let mut connection = self
            .0
            .readers
            .get()
            .map_err(|error| Error::Busy(error.to_string()))?;
        let found: i64 = schema::epoch::table
            .find(1)
            .select(schema::epoch::number)
            .first(&mut *connection)?;
        self.observe_epoch(found, asked);
        Ok(())
    }

    /// Takes over an epoch that was read at `at` or later; never goes back.
    fn observe_epoch(&self, epoch: i64, at: Duration) {
        self.0.epoch.fetch_max(
            u64::try_from(epoch).unwrap_or(INVALID_EPOCH),
            Ordering::AcqRel,
        );
        self.0
            .looked
            .fetch_max(u64::try_from(at.as_millis()).unwrap_or(0), Ordering::AcqRel);
    }

    /// Runs `work` on a connection of the read pool, on a blocking thread. No transaction.
    pub async fn read<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&mut Db<'_>) -> Result<T, E> + Send + 'static,
    {
        let inner = Arc::clone(&self.0);
        blocking(move || {
            let mut connection = inner
                .readers
                .get()
                .map_err(|error| Error::Busy(error.to_string()))?;
            work(&mut Db(&mut connection))
        })
        .await
    }

    /// Runs `work` in one exclusive transaction, on a blocking thread; commits if `work` succeeds.
    /// Increments the epoch, which invalidates all caches.
    pub async fn write<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&mut Db<'_>) -> Result<T, E> + Send + 'static,
    {
        self.transact(work, true).await
    }

    /// Like [`Store::write`], without incrementing the epoch: for rows that no cached decision
    /// depends on (counters, times of last use, attempts).
    pub async fn write_untracked<T, E, F>(&self, work: F) -> Result<T, E>
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
        let store = self.clone();
        blocking(move || {
            let mut writer = store
                .0
                .writer
                .get()
                .map_err(|error| Error::Busy(error.to_string()))?;
            let (value, epoch) = writer.in_write_transaction(|connection| {
                let value = work(&mut Db(connection))?;
                let epoch = if decides {
                    Some(next_epoch(connection)?)
                } else {
                    None
                };
                Ok::<_, E>((value, epoch))
            })?;
            if let Some(epoch) = epoch {
                store.0.epoch.fetch_max(
                    u64::try_from(epoch).unwrap_or(INVALID_EPOCH),
                    Ordering::AcqRel,
                );
            }
            Ok(value)
        })
        .await
    }

    /// A named value of the installation; `None` if it is not set.
    pub fn meta(db: &mut Db<'_>, name: &str) -> Result<Option<String>, Error> {
        use diesel::prelude::*;
        Ok(schema::meta::table
            .find(name)
            .select(schema::meta::value)
            .first(db.0)
            .optional()?)
    }
    /// Sets a named value of the installation.
    pub fn set_meta(db: &mut Db<'_>, name: &str, value: &str) -> Result<(), Error> {
        use diesel::prelude::*;
        diesel::delete(schema::meta::table.find(name)).execute(db.0)?;
        diesel::insert_into(schema::meta::table)
            .values((schema::meta::name.eq(name), schema::meta::value.eq(value)))
            .execute(db.0)?;
        Ok(())
    }
    /// Succeeds if the database answers.
    pub fn ping(db: &mut Db<'_>) -> Result<(), Error> {
        diesel::sql_query("SELECT 1").execute(db.0)?;
        Ok(())
    }
}

/// Increments the epoch in the database and returns it.
fn next_epoch(connection: &mut AnyConnection) -> Result<i64, Error> {
    use diesel::prelude::*;
    let row = schema::epoch::table.find(1);
    diesel::update(row)
        .set(schema::epoch::number.eq(schema::epoch::number + 1))
        .execute(connection)?;
    Ok(row.select(schema::epoch::number).first(connection)?)
}

/// Runs `work` on a blocking thread. A panic there becomes [`Error::Other`].
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

/// Parses an id column; [`Error::Other`] if another program wrote something else there.
fn id<T>(text: &str) -> Result<crate::domain::Id<T>, Error> {
    text.parse().map_err(|_| {
        Error::Other(format!(
            "damaged id in a row: {:?}",
            text.chars().take(40).collect::<String>()
        ))
    })
}
/// The error for a column with an unknown value.
fn damaged_row(what: &str) -> Error {
    Error::Other(format!("damaged row: {what}"))
}
