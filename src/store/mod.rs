//! Rows in and out. The only place that knows diesel; never sees a clear secret, decides nothing.
//!
//! One writer at a time, on SQLite as on PostgreSQL; an acknowledged write survives power loss
//! (`synchronous=FULL`). Every write that can change a decision moves [`Store::epoch`], by which
//! the caches of all processes know that they are old.

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
pub mod moments;
pub mod people;
pub mod revocations;
mod schema;
pub mod sealed;
pub mod sessions;

use backend::{Either, Manager};
pub use backend::{Place, is_new};
use diesel::{RunQueryDsl as _, r2d2::Pool};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

const READERS: u32 = 4;
/// On PostgreSQL a look takes longer, since it travels.
const READERS_AFAR: u32 = 8;
/// How often the epoch in the database is looked at, for what other processes wrote.
pub const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Nothing remembered counts if the epoch was not looked at for so long.
const TRUSTED_FOR: Duration = Duration::from_secs(1);
/// An epoch at which nothing remembered counts.
const NEVER: u64 = 0;

/// A database connection inside [`Store::read`] or [`Store::write`].
pub struct Db<'a>(&'a mut Either);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process holds the database, it cannot be reached, or the disk is full: worth trying
    /// again.
    #[error("the database is busy: {0}")]
    Busy(String),
    #[error("a row with this value exists")]
    Taken,
    #[error("no such row")]
    NotFound,
    #[error("database: {0}")]
    Other(String),
}

struct Inner {
    place: Place,
    readers: Pool<Manager>,
    /// One connection: one writer at a time.
    writer: Pool<Manager>,
    epoch: AtomicU64,
    /// When the epoch was last known to be the database's, in milliseconds since `started`.
    looked: AtomicU64,
    started: Instant,
}

/// The database.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

fn pool(place: &Place, size: u32) -> Result<Pool<Manager>, Error> {
    Pool::builder()
        .max_size(size)
        .min_idle(Some(1))
        .connection_timeout(Duration::from_secs(5))
        .test_on_check_out(true)
        .error_handler(Box::new(diesel::r2d2::NopErrorHandler))
        .build(Manager(place.clone()))
        .map_err(|error| Error::Other(format!("cannot open the database: {error}")))
}

impl Store {
    /// Opens the database and brings its tables up to date; an SQLite file is made if need be.
    pub fn open(place: &Place) -> Result<Self, Error> {
        backend::prepare(place)?;
        let readers = if place.is_shared() {
            READERS_AFAR
        } else {
            READERS
        };
        let inner = Inner {
            place: place.clone(),
            readers: pool(place, readers)?,
            writer: pool(place, 1)?,
            epoch: AtomicU64::new(NEVER),
            looked: AtomicU64::new(0),
            started: Instant::now(),
        };
        let store = Self(Arc::new(inner));
        store.look_now()?;
        Ok(store)
    }

    /// Where the rows are.
    pub fn place(&self) -> &Place {
        &self.0.place
    }

    /// Moves with every write that can change a decision, by whichever process. Read it before
    /// loading what is to be remembered; what was loaded at another epoch, or at 0, does not count.
    /// Late by [`LOOK_EVERY`] for other processes' writes, and 0 once it could be late by more than
    /// a second.
    pub fn epoch(&self) -> u64 {
        let inner = &self.0;
        let looked = Duration::from_millis(inner.looked.load(Ordering::Acquire));
        if inner.started.elapsed().saturating_sub(looked) < TRUSTED_FOR {
            inner.epoch.load(Ordering::Acquire)
        } else {
            NEVER
        }
    }

    /// Learns what other processes wrote. Called every [`LOOK_EVERY`] while the server runs.
    pub async fn look(&self) -> Result<(), Error> {
        let store = self.clone();
        blocking(move || store.look_now()).await
    }

    fn look_now(&self) -> Result<(), Error> {
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
        self.learn(found, asked);
        Ok(())
    }

    /// The epoch was this one at least, at that time.
    fn learn(&self, epoch: i64, at: Duration) {
        self.0
            .epoch
            .fetch_max(u64::try_from(epoch).unwrap_or(NEVER), Ordering::AcqRel);
        self.0
            .looked
            .fetch_max(u64::try_from(at.as_millis()).unwrap_or(0), Ordering::AcqRel);
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
            let mut connection = inner
                .readers
                .get()
                .map_err(|error| Error::Busy(error.to_string()))?;
            work(&mut Db(&mut connection))
        })
        .await
    }

    /// Runs `work` in one transaction, on a blocking thread; it commits when `work` succeeds. Makes
    /// caches forget.
    pub async fn write<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&mut Db<'_>) -> Result<T, E> + Send + 'static,
    {
        self.transact(work, true).await
    }

    /// Like [`Store::write`], for rows that no decision depends on: counters, times of last use,
    /// attempts.
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
        let store = self.clone();
        blocking(move || {
            let mut writer = store
                .0
                .writer
                .get()
                .map_err(|error| Error::Busy(error.to_string()))?;
            let (value, epoch) = writer.exclusively(|connection| {
                let value = work(&mut Db(connection))?;
                let epoch = if decides {
                    Some(next_epoch(connection)?)
                } else {
                    None
                };
                Ok::<_, E>((value, epoch))
            })?;
            if let Some(epoch) = epoch {
                store
                    .0
                    .epoch
                    .fetch_max(u64::try_from(epoch).unwrap_or(NEVER), Ordering::AcqRel);
            }
            Ok(value)
        })
        .await
    }

    /// Reads or sets a named value of the installation itself.
    pub fn meta(db: &mut Db<'_>, name: &str) -> Result<Option<String>, Error> {
        use diesel::prelude::*;
        Ok(schema::meta::table
            .find(name)
            .select(schema::meta::value)
            .first(db.0)
            .optional()?)
    }
    pub fn set_meta(db: &mut Db<'_>, name: &str, value: &str) -> Result<(), Error> {
        use diesel::prelude::*;
        diesel::delete(schema::meta::table.find(name)).execute(db.0)?;
        diesel::insert_into(schema::meta::table)
            .values((schema::meta::name.eq(name), schema::meta::value.eq(value)))
            .execute(db.0)?;
        Ok(())
    }
    /// Answers when the database does.
    pub fn ping(db: &mut Db<'_>) -> Result<(), Error> {
        diesel::sql_query("SELECT 1").execute(db.0)?;
        Ok(())
    }
}

fn next_epoch(connection: &mut Either) -> Result<i64, Error> {
    use diesel::prelude::*;
    let row = schema::epoch::table.find(1);
    diesel::update(row)
        .set(schema::epoch::number.eq(schema::epoch::number + 1))
        .execute(connection)?;
    Ok(row.select(schema::epoch::number).first(connection)?)
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
    text.parse().map_err(|_| {
        Error::Other(format!(
            "damaged id in a row: {:?}",
            text.chars().take(40).collect::<String>()
        ))
    })
}
fn damaged(what: &str) -> Error {
    Error::Other(format!("damaged row: {what}"))
}
