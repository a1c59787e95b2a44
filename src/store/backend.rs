//! The two databases: SQLite by default, PostgreSQL if the database URL says so. What
//! differs between them is in this file, but for what only one module needs: `copy`, `changes` (how
//! other processes' changes are read), `endings` (a counter) and `personal_data` (rows as JSON).
//!
//! Transactions are serializable on both, so that one may read and then write: SQLite has one writer
//! by nature (`BEGIN IMMEDIATE`); PostgreSQL detects transactions that get in each other's way, and
//! [`super::Store::write`] runs one of them again. No lock is shared by all writers: with an advisory
//! lock in its place, about 500 small transactions a second were the most, and one long transaction
//! held up all others. Row locks would have to be thought of in every function; a conflict that is
//! detected by the database cannot be forgotten.
//!
//! Diesel's combined connection ([`AnyConnection`]) compiles neither `ON CONFLICT` nor `FOR
//! UPDATE`, batch inserts or `as_returning()`. So the rest of `store` updates and then inserts, and
//! compares and swaps on a column.

use super::Error;
use diesel::{
    AsChangeset, Connection as _, ConnectionError, QueryResult, QuerySource, RunQueryDsl,
    SqliteConnection,
    backend::Backend,
    connection::SimpleConnection as _,
    query_builder::{AstPass, QueryFragment, QueryId},
    r2d2::ManageConnection,
    result::{DatabaseErrorKind, Error as DieselError},
};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness as _, embed_migrations};
use secrecy::{ExposeSecret as _, SecretString};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

const SQLITE: EmbeddedMigrations = embed_migrations!("migrations/sqlite");
#[cfg(feature = "postgres")]
const POSTGRESQL: EmbeddedMigrations = embed_migrations!("migrations/postgresql");
/// Advisory lock of the migrating node. The number is arbitrary, but must be the same on all nodes.
#[cfg(feature = "postgres")]
const MIGRATION_LOCK_SQL: &str = "SELECT pg_advisory_lock(7310002)";

/// Attempts to migrate an SQLite file, 100 ms apart.
const MAX_MIGRATION_RETRIES: u32 = 20;

/// The newest contracting migration (one that removed something the previous version used) that
/// this program works with. See `migrations/README.md`.
const SUPPORTED_CONTRACT: i64 = 0;

/// The database URL.
#[derive(Clone, Debug)]
pub enum DatabaseUrl {
    /// A file.
    Sqlite(PathBuf),
    /// A URL such as `postgres://user:password@host/database`; secret because of the password.
    Postgresql(SecretString),
}

impl DatabaseUrl {
    /// Whether other machines can use the same database.
    pub fn is_shared(&self) -> bool {
        matches!(self, DatabaseUrl::Postgresql(_))
    }
}

/// How far a write transaction on PostgreSQL is isolated from others. SQLite has one writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Isolation {
    Serializable,
    ReadCommitted,
}

/// A connection to either database.
#[derive(diesel::MultiConnection)]
pub enum AnyConnection {
    #[cfg(feature = "postgres")]
    Postgresql(diesel::PgConnection),
    Sqlite(SqliteConnection),
}

/// An UPDATE that a connection prepares once. diesel has its own parsed anew each time, with one trip
/// more to PostgreSQL, since their columns may vary. Use it where they vary little: each combination
/// is kept, by its text.
pub(super) struct PreparedUpdate<T, V, W> {
    table: T,
    values: V,
    filter: W,
}

/// Sets `values` in the rows of `table` for which `filter` is true.
pub(super) fn prepared_update<T, V, W>(
    table: T,
    filter: W,
    values: V,
) -> PreparedUpdate<T::FromClause, V::Changeset, W>
where
    T: QuerySource,
    V: AsChangeset<Target = T>,
{
    PreparedUpdate {
        table: table.from_clause(),
        values: values.as_changeset(),
        filter,
    }
}

impl<T, V, W, DB: Backend> QueryFragment<DB> for PreparedUpdate<T, V, W>
where
    T: QueryFragment<DB>,
    V: QueryFragment<DB>,
    W: QueryFragment<DB>,
{
    fn walk_ast<'b>(&'b self, mut pass: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        pass.push_sql("UPDATE ");
        self.table.walk_ast(pass.reborrow())?;
        pass.push_sql(" SET ");
        self.values.walk_ast(pass.reborrow())?;
        pass.push_sql(" WHERE ");
        self.filter.walk_ast(pass.reborrow())
    }
}

impl<T, V, W> QueryId for PreparedUpdate<T, V, W> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<T, V, W, Conn> RunQueryDsl<Conn> for PreparedUpdate<T, V, W> {}

/// Creates the file with mode 0600 if it is missing. SQLite gives the `-wal` and `-shm` files the
/// same mode.
pub(super) fn create_private_file(file: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(file).map(drop)
}

/// Opens an SQLite file and sets its pragmas. Does not create tables.
pub(super) fn connect_file(file: &Path) -> Result<SqliteConnection, ConnectionError> {
    let address = file
        .to_str()
        .ok_or_else(|| ConnectionError::BadConnection("the path is not UTF-8".into()))?;
    let mut connection = SqliteConnection::establish(address)?;
    // `secure_delete`: deleted secrets are overwritten in the file.
    connection
        .batch_execute("PRAGMA busy_timeout = 5000; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA secure_delete = ON;")
        .map_err(ConnectionError::CouldntSetupConfiguration)?;
    Ok(connection)
}

/// Parameters of libpq that end a connection whose server is gone without a word: within 15 seconds
/// instead of hours.
#[cfg(feature = "postgres")]
const POSTGRES_TIMEOUTS: [(&str, u32); 5] = [
    ("connect_timeout", 5),
    ("tcp_user_timeout", 15_000),
    ("keepalives_idle", 5),
    ("keepalives_interval", 5),
    ("keepalives_count", 2),
];

/// The address with [`POSTGRES_TIMEOUTS`], except those that it sets itself.
#[cfg(feature = "postgres")]
fn with_timeouts(address: &str) -> SecretString {
    let mut address = address.to_owned();
    for (name, value) in POSTGRES_TIMEOUTS {
        if !address.contains(&format!("{name}=")) {
            let separator = if address.contains('?') { '&' } else { '?' };
            address.push_str(&format!("{separator}{name}={value}"));
        }
    }
    SecretString::from(address)
}

/// Opens one connection and sets its options.
pub fn connect(place: &DatabaseUrl) -> Result<AnyConnection, ConnectionError> {
    match place {
        DatabaseUrl::Sqlite(file) => connect_file(file).map(AnyConnection::Sqlite),
        #[cfg(feature = "postgres")]
        DatabaseUrl::Postgresql(address) => {
            let address = with_timeouts(address.expose_secret());
            let mut connection = diesel::PgConnection::establish(address.expose_secret())?;
            // The timeouts keep a node that hangs inside a transaction from blocking the others.
            connection
                .batch_execute(
                    "SET lock_timeout = '5s'; SET statement_timeout = '30s'; SET idle_in_transaction_session_timeout = '10s'; \
                     SET client_min_messages = warning; SET synchronous_commit = on; SET application_name = 'valetkey';",
                )
                .map_err(ConnectionError::CouldntSetupConfiguration)?;
            Ok(AnyConnection::Postgresql(connection))
        }
        #[cfg(not(feature = "postgres"))]
        DatabaseUrl::Postgresql(address) => {
            let _ = address.expose_secret();
            Err(ConnectionError::BadConnection(
                "this program was built without PostgreSQL: build it with `cargo build --release --features postgres`".into(),
            ))
        }
    }
}

/// Whether the database was never used: there is no file, or no table `meta`.
pub fn is_new(place: &DatabaseUrl) -> Result<bool, Error> {
    match place {
        DatabaseUrl::Sqlite(file) => Ok(!file.exists()),
        DatabaseUrl::Postgresql(_) => {
            let mut connection = connect(place).map_err(|error| {
                Error::Other(format!("cannot open the PostgreSQL database: {error}"))
            })?;
            // NULL if there is no such table; any other failure is one.
            let missing = diesel::sql_query("SELECT 1 WHERE to_regclass('meta') IS NULL")
                .execute(&mut connection)
                .map_err(|error| {
                    Error::Other(format!("cannot read the PostgreSQL database: {error}"))
                })?;
            Ok(missing == 1)
        }
    }
}

/// Whether an existing database waits for migrations of this version. Changes nothing.
pub fn needs_migration(place: &DatabaseUrl) -> Result<bool, Error> {
    let explain =
        |error: &dyn std::fmt::Display| Error::Other(format!("cannot read the database: {error}"));
    let pending = match &mut connect(place).map_err(|error| explain(&error))? {
        AnyConnection::Sqlite(connection) => connection.has_pending_migration(SQLITE),
        #[cfg(feature = "postgres")]
        AnyConnection::Postgresql(connection) => connection.has_pending_migration(POSTGRESQL),
    };
    pending.map_err(|error| explain(&error))
}

/// The database's clock, in seconds since 1970; `None` for SQLite, which has this machine's.
pub fn database_clock(db: &mut super::Db<'_>) -> Result<Option<i64>, Error> {
    #[derive(diesel::QueryableByName)]
    struct Clock {
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        now: i64,
    }
    if matches!(db.0, AnyConnection::Sqlite(_)) {
        return Ok(None);
    }
    let query = "SELECT floor(extract(epoch FROM clock_timestamp()))::bigint AS now";
    let clock: Clock = RunQueryDsl::get_result(diesel::sql_query(query), db.0)?;
    Ok(Some(clock.now))
}

/// Runs the pending migrations; creates a missing SQLite file. Refuses a database that a newer
/// version made unusable for this one ([`SUPPORTED_CONTRACT`]).
pub fn migrate(place: &DatabaseUrl) -> Result<(), Error> {
    let explain = |error: &dyn std::fmt::Display| match place {
        DatabaseUrl::Sqlite(file) => {
            Error::Other(format!("cannot open {}: {error}", file.display()))
        }
        DatabaseUrl::Postgresql(_) => {
            Error::Other(format!("cannot open the PostgreSQL database: {error}"))
        }
    };
    if let DatabaseUrl::Sqlite(file) = place {
        create_private_file(file).map_err(|error| explain(&error))?;
    }
    let mut connection = connect(place).map_err(|error| explain(&error))?;
    let migrated = match &mut connection {
        AnyConnection::Sqlite(connection) => {
            // A command may run the same migrations beside the server: retry, since what the other
            // process did is no longer pending. Before the pool exists, since the busy timeout does
            // not cover the switch to WAL.
            let mut tries = 0;
            loop {
                let switched = connection
                    .batch_execute("PRAGMA journal_mode = WAL;")
                    .map_err(Into::into);
                match switched.and_then(|()| connection.run_pending_migrations(SQLITE)) {
                    Err(_) if tries < MAX_MIGRATION_RETRIES => tries += 1,
                    other => break other.map(drop),
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        #[cfg(feature = "postgres")]
        AnyConnection::Postgresql(connection) => {
            // If several nodes start together, one migrates and the others wait for its lock.
            connection
                .batch_execute("SET lock_timeout = '120s'; SET statement_timeout = '0';")
                .map_err(|error| explain(&error))?;
            diesel::sql_query(MIGRATION_LOCK_SQL)
                .execute(connection)
                .map_err(|error| explain(&error))?;
            connection.run_pending_migrations(POSTGRESQL).map(drop)
        }
    };
    migrated.map_err(|error| Error::Other(format!("migration failed: {error}")))?;
    let contract: Option<String> = {
        use diesel::prelude::*;
        let row = super::schema::meta::table
            .find("contract")
            .select(super::schema::meta::value);
        row.first(&mut connection).optional()?
    };
    if contract
        .and_then(|text| text.parse::<i64>().ok())
        .is_some_and(|contract| contract > SUPPORTED_CONTRACT)
    {
        return Err(Error::Other(
            "a newer version of this program changed the database in a way that this version cannot work with: start the newer one".into(),
        ));
    }
    Ok(())
}

impl AnyConnection {
    /// The placeholder of the nth value in hand-written SQL, counted from 1.
    #[cfg_attr(
        not(feature = "postgres"),
        expect(unused_variables, reason = "SQLite does not count them")
    )]
    pub(super) fn placeholder(&self, number: usize) -> String {
        match self {
            AnyConnection::Sqlite(_) => "?".into(),
            #[cfg(feature = "postgres")]
            AnyConnection::Postgresql(_) => format!("${number}"),
        }
    }

    /// Runs `work` in a transaction. Rolls back if `work` or the commit fails.
    pub(super) fn in_write_transaction<T, E: From<Error>>(
        &mut self,
        isolation: Isolation,
        work: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        self.begin(isolation).map_err(Error::from)?;
        match work(self) {
            Ok(value) => match self.commit() {
                Ok(()) => Ok(value),
                Err(error) => {
                    self.roll_back();
                    Err(Error::from(error).into())
                }
            },
            Err(error) => {
                self.roll_back();
                Err(error)
            }
        }
    }

    /// Runs `work` on one snapshot. Rolls back: `work` only reads.
    pub(super) fn in_snapshot<T, E: From<Error>>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let begin = match self {
            AnyConnection::Sqlite(_) => "BEGIN",
            #[cfg(feature = "postgres")]
            AnyConnection::Postgresql(_) => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        };
        self.batch_execute(begin).map_err(Error::from)?;
        let read = work(self);
        self.roll_back();
        read
    }

    fn begin(&mut self, isolation: Isolation) -> Result<(), DieselError> {
        match (self, isolation) {
            (AnyConnection::Sqlite(connection), _) => connection.batch_execute("BEGIN IMMEDIATE"),
            #[cfg(feature = "postgres")]
            (AnyConnection::Postgresql(connection), Isolation::Serializable) => {
                connection.batch_execute("BEGIN ISOLATION LEVEL SERIALIZABLE")
            }
            #[cfg(feature = "postgres")]
            (AnyConnection::Postgresql(connection), Isolation::ReadCommitted) => {
                connection.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED")
            }
        }
    }

    fn commit(&mut self) -> Result<(), DieselError> {
        match self {
            AnyConnection::Sqlite(connection) => connection.batch_execute("COMMIT"),
            // After a failed statement, PostgreSQL silently turns COMMIT into a rollback. The
            // SELECT makes that an error.
            #[cfg(feature = "postgres")]
            AnyConnection::Postgresql(connection) => connection.batch_execute("SELECT 1; COMMIT"),
        }
    }

    fn roll_back(&mut self) {
        // An error means that there is no transaction or no connection any more: nothing to do.
        drop(self.batch_execute("ROLLBACK"));
    }
}

impl From<DieselError> for Error {
    fn from(error: DieselError) -> Self {
        match error {
            DieselError::NotFound => Error::NotFound,
            DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, _) => Error::Taken,
            DieselError::DatabaseError(DatabaseErrorKind::SerializationFailure, _) => {
                Error::Conflict
            }
            DieselError::DatabaseError(
                DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand,
                info,
            ) => Error::Busy(info.message().to_owned()),
            DieselError::DatabaseError(_, info) if info.message().contains("deadlock") => {
                Error::Conflict
            }
            DieselError::DatabaseError(_, info) => {
                let text = info.message().to_owned();
                if TRANSIENT_ERROR_WORDS.iter().any(|word| text.contains(word)) {
                    Error::Busy(text)
                } else {
                    Error::Other(text)
                }
            }
            other => Error::Other(other.to_string()),
        }
    }
}

/// Substrings of the messages of temporary errors: locks, a full disk, a restarting server.
const TRANSIENT_ERROR_WORDS: [&str; 15] = [
    "locked",
    "busy",
    "full",
    "disk I/O",
    "readonly database",
    "unable to open database file",
    "lock timeout",
    "statement timeout",
    "No space left",
    "server closed the connection",
    "terminating connection",
    "connection to server",
    "shutting down",
    "starting up",
    "no connection to the server",
];

/// How long a checked connection is trusted. A check costs PostgreSQL a round trip.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A connection of a pool.
pub struct PooledConnection {
    connection: AnyConnection,
    checked_at: Instant,
}

impl std::ops::Deref for PooledConnection {
    type Target = AnyConnection;
    fn deref(&self) -> &AnyConnection {
        &self.connection
    }
}
impl std::ops::DerefMut for PooledConnection {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        &mut self.connection
    }
}

/// Opens and checks the connections of an r2d2 pool.
pub struct ConnectionManager(pub DatabaseUrl);

impl ManageConnection for ConnectionManager {
    type Connection = PooledConnection;
    type Error = diesel::r2d2::Error;

    fn connect(&self) -> Result<PooledConnection, Self::Error> {
        let connection = connect(&self.0).map_err(diesel::r2d2::Error::ConnectionError)?;
        Ok(PooledConnection {
            connection,
            checked_at: Instant::now(),
        })
    }

    /// Checks PostgreSQL only: the server may have gone away; a file cannot.
    fn is_valid(&self, pooled: &mut PooledConnection) -> Result<(), Self::Error> {
        let is_file = matches!(pooled.connection, AnyConnection::Sqlite(_));
        if is_file || pooled.checked_at.elapsed() < CHECK_INTERVAL {
            return Ok(());
        }
        pooled
            .connection
            .batch_execute("SELECT 1")
            .map_err(diesel::r2d2::Error::QueryError)?;
        pooled.checked_at = Instant::now();
        Ok(())
    }

    fn has_broken(&self, _: &mut PooledConnection) -> bool {
        std::thread::panicking()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "postgres")]
    #[test]
    fn timeouts_are_added_to_the_address_unless_it_sets_them() {
        let added = with_timeouts("postgres://ada:pw@db/portal?sslmode=require&connect_timeout=2");
        let added = added.expose_secret();
        assert!(
            added.starts_with("postgres://ada:pw@db/portal?sslmode=require&connect_timeout=2&")
        );
        assert!(added.ends_with("&keepalives_count=2"), "{added}");
        assert!(
            with_timeouts("postgres://db/portal")
                .expose_secret()
                .contains("portal?connect_timeout=5&")
        );
    }

    #[test]
    fn processes_that_start_together_migrate_once() {
        let folder =
            std::env::temp_dir().join(format!("valetkey-migrate-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&folder).unwrap();
        let place = DatabaseUrl::Sqlite(folder.join("valetkey.db"));
        std::thread::scope(|scope| {
            let starting: Vec<_> = (0..4).map(|_| scope.spawn(|| migrate(&place))).collect();
            for started in starting {
                started.join().unwrap().unwrap();
            }
        });
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn sqlite_syncs_each_commit_and_overwrites_what_was_deleted() {
        use diesel::{QueryableByName, RunQueryDsl as _, sql_query, sql_types::BigInt};
        #[derive(QueryableByName)]
        struct Number {
            #[diesel(sql_type = BigInt)]
            value: i64,
        }
        let folder = std::env::temp_dir().join(format!("valetkey-pragma-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("valetkey.db");
        migrate(&DatabaseUrl::Sqlite(file.clone())).unwrap();
        let mut connection = connect_file(&file).unwrap();
        let mut pragma = |name: &str| {
            let text = format!("SELECT {name} AS value FROM pragma_{name}");
            sql_query(text)
                .get_result::<Number>(&mut connection)
                .unwrap()
                .value
        };
        assert_eq!(pragma("synchronous"), 2, "FULL");
        assert_eq!(pragma("secure_delete"), 1);
        assert_eq!(pragma("foreign_keys"), 1);
        let canary = "canary-of-a-deleted-secret";
        let statements = [
            format!("INSERT INTO meta (name, value) VALUES ('canary', '{canary}')"),
            "PRAGMA wal_checkpoint(TRUNCATE)".into(),
            "DELETE FROM meta WHERE name = 'canary'".into(),
            "PRAGMA wal_checkpoint(TRUNCATE)".into(),
        ];
        let holds_canary = || {
            let bytes = std::fs::read(&file).unwrap();
            bytes
                .windows(canary.len())
                .any(|part| part == canary.as_bytes())
        };
        for statement in &statements[..2] {
            connection.batch_execute(statement).unwrap();
        }
        assert!(holds_canary(), "the search works");
        for statement in &statements[2..] {
            connection.batch_execute(statement).unwrap();
        }
        assert!(!holds_canary());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
