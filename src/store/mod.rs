//! Persistence: rows in and out, on SQLite or PostgreSQL. The only module that uses diesel. It
//! never sees a clear-text secret (secrets arrive as [`crate::vault::Sealed`]) and makes no
//! decision.
//!
//! Transactions are serializable on both databases, so one may read and then write without `FOR
//! UPDATE` (see `backend`). An acknowledged write survives power loss (`synchronous=FULL`).
//!
//! A function that changes what a decision depends on names it with [`Db::changed`]; the transaction
//! stores that in the change log (see [`changes`]). So a revocation takes effect at once on its own
//! node and within [`changes::POLL_INTERVAL`] on others, without a query per request, and a write
//! invalidates nothing that does not depend on it.

pub mod activity;
pub mod admission;
pub mod audit;
mod backend;
pub mod bookkeeping;
pub mod bundles;
pub mod changes;
pub mod connections;
pub mod content;
pub mod copy;
pub mod emergency;
pub mod endings;
pub mod groups;
pub mod handovers;
pub mod identities;
pub mod integrations;
pub mod leaks;
pub mod leases;
pub mod notices;
pub mod people;
pub mod personal_data;
pub mod purge;
pub mod revocations;
mod schema;
pub mod sealed;
pub mod sessions;
pub mod short_lived;
mod threads;

use crate::{domain::ending::Ending, vault::audit_key::AuditKey};
use backend::{AnyConnection, ConnectionManager, Isolation};
pub use backend::{DatabaseUrl, database_clock, is_new, needs_migration};
use changes::{ChangeLog, Subject};
use diesel::{RunQueryDsl as _, r2d2::Pool};
use std::{
    sync::{Arc, OnceLock, atomic::AtomicU64},
    time::Duration,
};
use threads::Threads;

/// Size of the read pool on SQLite.
const SQLITE_READ_POOL: u32 = 4;
/// Size of the read pool on PostgreSQL: larger, since each query includes a network round trip.
const POSTGRES_READ_POOL: u32 = 8;
/// How often a transaction is tried again after a conflict.
const MAX_CONFLICTS: u32 = 20;
/// Writers of one process on PostgreSQL.
const POSTGRES_WRITERS: u32 = 4;

/// A database connection inside [`Store::read`] or [`Store::write`], the subjects that the
/// transaction changed, and the key that seals audit records.
pub struct Db<'a>(&'a mut AnyConnection, Vec<Subject>, Option<&'a AuditKey>);

impl Db<'_> {
    /// Names something that the transaction changed and that decisions depend on.
    pub(crate) fn changed(&mut self, subject: Subject) {
        self.1.push(subject);
    }

    /// Records that something ended, so that no restore brings it back.
    fn ended(&mut self, ending: &Ending) -> Result<(), Error> {
        endings::record(self, ending)
    }
}

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
    /// Another transaction changed the same rows at the same time. [`Store::write`] tries again.
    #[error("another transaction changed the same rows")]
    Conflict,
    /// A row that was expected is missing.
    #[error("no such row")]
    NotFound,
    /// Anything else: a failed query, a damaged row.
    #[error("database: {0}")]
    Other(String),
}

/// The error of a transaction's work.
pub trait WriteError: From<Error> {
    /// Whether another transaction got in the way, so that the work should run again.
    fn is_conflict(&self) -> bool;
}

impl WriteError for Error {
    fn is_conflict(&self) -> bool {
        matches!(self, Error::Conflict)
    }
}

/// A random pause of up to 4, 8, … 64 ms.
fn pause_after_conflict(tries: u32) -> Duration {
    let most = 2_u64 << tries.min(5);
    let random = u64::from_le_bytes(crate::vault::random::bytes::<8>());
    Duration::from_micros(random % (most * 1000))
}

struct Inner {
    place: DatabaseUrl,
    readers: Pool<ConnectionManager>,
    read_threads: Threads,
    /// On SQLite a pool of one connection: one writer at a time.
    writer: Pool<ConnectionManager>,
    write_threads: Threads,
    changes: ChangeLog,
    /// Set once the root secret is known.
    audit_key: OnceLock<AuditKey>,
    /// The number of the follower that is in charge (see [`changes`]).
    turn: changes::Count,
    /// Followers that have not ended.
    followers: changes::Count,
    /// When a follower was last replaced, in milliseconds since the start.
    replaced: AtomicU64,
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
        let (readers, writers) = if place.is_shared() {
            (POSTGRES_READ_POOL, POSTGRES_WRITERS)
        } else {
            (SQLITE_READ_POOL, 1)
        };
        let inner = Inner {
            place: place.clone(),
            readers: pool(place, readers)?,
            read_threads: Threads::new("db-read", readers)?,
            writer: pool(place, writers)?,
            write_threads: Threads::new("db-write", writers)?,
            changes: ChangeLog::new(),
            audit_key: OnceLock::new(),
            turn: changes::Count::default(),
            followers: changes::Count::default(),
            replaced: AtomicU64::new(0),
        };
        Ok(Self(Arc::new(inner)))
    }

    /// Sets the key that seals audit records. None can be written or verified before.
    pub fn set_audit_key(&self, key: AuditKey) {
        drop(self.0.audit_key.set(key));
    }

    /// The database that this store uses.
    pub fn database_url(&self) -> &DatabaseUrl {
        &self.0.place
    }

    /// What this process knows of changes, for caches. Nothing cached is valid before
    /// [`Store::follow_changes`].
    pub fn changes(&self) -> &ChangeLog {
        &self.0.changes
    }

    /// Starts to follow the changes of other processes. Call [`Store::supervise_followers`] every
    /// second from then on.
    pub fn follow_changes(&self) -> std::io::Result<()> {
        changes::follow(&self.0)
    }

    /// Replaces the connection that follows changes if it hangs.
    pub fn supervise_followers(&self) {
        changes::supervise(&self.0);
    }

    /// Runs `work` on a connection of the read pool, on a database thread. No transaction.
    pub async fn read<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&mut Db<'_>) -> Result<T, E> + Send + 'static,
    {
        let inner = Arc::clone(&self.0);
        let reading = self.0.read_threads.run(move || {
            let mut connection = inner
                .readers
                .get()
                .map_err(|error| Error::Busy(error.to_string()))?;
            work(&mut Db(&mut connection, Vec::new(), inner.audit_key.get()))
        });
        reading.await
    }

    /// Runs `work` on one snapshot of the database, read only.
    pub async fn read_snapshot<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&mut Db<'_>) -> Result<T, E> + Send + 'static,
    {
        let inner = Arc::clone(&self.0);
        let reading = self.0.read_threads.run(move || {
            let mut connection = inner
                .readers
                .get()
                .map_err(|error| Error::Busy(error.to_string()))?;
            connection.in_snapshot(|connection| {
                work(&mut Db(connection, Vec::new(), inner.audit_key.get()))
            })
        });
        reading.await
    }

    /// Runs `work` in one transaction, on a database thread; commits if `work` succeeds. Concurrent
    /// transactions have the effect of one after the other (see `backend`), so `work` may read and
    /// then write. If another transaction got in the way, `work` runs again: it must have no effect
    /// outside the transaction.
    ///
    /// Invalidates what is cached about the subjects that `work` changed.
    pub async fn write<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: WriteError + Send + 'static,
        F: Fn(&mut Db<'_>) -> Result<T, E> + Send + 'static,
    {
        self.write_isolated(Isolation::Serializable, work).await
    }

    /// Like [`Store::write`], for the functions of [`bookkeeping`]: on PostgreSQL the transaction is
    /// not serializable, so it makes no other transaction run again.
    pub async fn write_bookkeeping<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: WriteError + Send + 'static,
        F: Fn(&mut Db<'_>) -> Result<T, E> + Send + 'static,
    {
        self.write_isolated(Isolation::ReadCommitted, work).await
    }

    async fn write_isolated<T, E, F>(&self, isolation: Isolation, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: WriteError + Send + 'static,
        F: Fn(&mut Db<'_>) -> Result<T, E> + Send + 'static,
    {
        let inner = Arc::clone(&self.0);
        let writing = self.0.write_threads.run(move || {
            let mut writer = inner
                .writer
                .get()
                .map_err(|error| Error::Busy(error.to_string()))?;
            let mut tries = 0;
            loop {
                let mut changed = Vec::new();
                let written = writer.in_write_transaction(isolation, |connection| {
                    let mut db = Db(connection, Vec::new(), inner.audit_key.get());
                    let value = work(&mut db)?;
                    changed = db.1;
                    if !changed.is_empty() {
                        inner.changes.record(connection, &changed)?;
                    }
                    Ok::<_, E>(value)
                });
                // After a failed commit, too: the database may have committed all the same.
                if !changed.is_empty() {
                    inner.changes.note(&changed);
                    if written.as_ref().is_err_and(|error| !error.is_conflict()) {
                        inner.changes.doubt();
                    }
                }
                match written {
                    Err(error) if error.is_conflict() && tries < MAX_CONFLICTS => {
                        tries += 1;
                        std::thread::sleep(pause_after_conflict(tries));
                    }
                    Err(error) if error.is_conflict() => {
                        return Err(Error::Busy("other transactions got in the way".into()).into());
                    }
                    written => return written,
                }
            }
        });
        writing.await
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
    /// Sets a named value of the installation; all of them belong to the keyring.
    pub fn set_meta(db: &mut Db<'_>, name: &str, value: &str) -> Result<(), Error> {
        db.changed(Subject::Keyring);
        Self::write_meta(db, name, value)
    }
    /// Like [`Store::set_meta`], for a value that nothing cached depends on.
    pub fn write_meta(db: &mut Db<'_>, name: &str, value: &str) -> Result<(), Error> {
        use diesel::prelude::*;
        diesel::delete(schema::meta::table.find(name)).execute(db.0)?;
        diesel::insert_into(schema::meta::table)
            .values((schema::meta::name.eq(name), schema::meta::value.eq(value)))
            .execute(db.0)?;
        Ok(())
    }
    /// Deletes a named value of the installation.
    pub fn delete_meta(db: &mut Db<'_>, name: &str) -> Result<(), Error> {
        use diesel::prelude::*;
        db.changed(Subject::Keyring);
        diesel::delete(schema::meta::table.find(name)).execute(db.0)?;
        Ok(())
    }
    /// Succeeds if the database answers.
    pub fn ping(db: &mut Db<'_>) -> Result<(), Error> {
        diesel::sql_query("SELECT 1").execute(db.0)?;
        Ok(())
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
