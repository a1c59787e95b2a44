//! Copies of the whole database: backup, restore, and moving from SQLite to PostgreSQL.
//!
//! Rows are transferred as JSON objects, which both databases produce and accept themselves, so
//! that no table has to be listed column by column. Sealed values stay sealed.

use super::{
    DatabaseUrl, Db, Error,
    backend::{AnyConnection, Isolation, connect, connect_file, migrate},
};
use crate::{domain::Timestamp, vault::audit_key::AuditKey};
use diesel::{
    RunQueryDsl as _,
    connection::SimpleConnection as _,
    sql_query,
    sql_types::{BigInt, Text},
};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::{
    io::{Error as IoError, ErrorKind},
    path::{Path, PathBuf},
};

/// All tables that are copied, each after those that it references. Leases, nodes and changes
/// belong to processes and are not copied; nor are presence, password attempts, held session tokens and app
/// sessions, which are short-lived.
const TABLES: [&str; 39] = [
    "meta",
    "people",
    "setup_links",
    "sessions",
    "integrations",
    "content",
    "bundles",
    "environment",
    "tasks",
    "api_keys",
    "groups",
    "group_members",
    "content_list",
    "access_requests",
    "integration_list",
    "identities",
    "sign_in_grants",
    "handovers",
    "content_sessions",
    "associations",
    "connections",
    "consents",
    "attempts",
    "refresh_attempts",
    "revocations",
    "shown_once",
    "exchange_hours",
    "activity_hours",
    "token_uses",
    "leaks",
    "notices",
    "notice_rules",
    "webhooks",
    "deliveries",
    "known_devices",
    "erasures",
    "audit",
    "audit_blocks",
    "endings",
];
/// Rows per batch.
const ROWS_PER_BATCH: usize = 500;

/// One text value of a hand-written query.
#[derive(diesel::QueryableByName)]
struct TextRow {
    #[diesel(sql_type = Text)]
    value: String,
}

/// One number and one text value of a hand-written query.
#[derive(diesel::QueryableByName)]
struct NumberAndText {
    #[diesel(sql_type = BigInt)]
    number: i64,
    #[diesel(sql_type = Text)]
    value: String,
}

/// Number of rows and checksum of a table; equal for equal content in either database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub table: &'static str,
    pub rows: u64,
    /// Sum of the rows' hashes modulo 2^128, so that their order does not matter.
    sum: [u8; 16],
}

impl Summary {
    fn of(table: &'static str) -> Self {
        Self {
            table,
            rows: 0,
            sum: [0; 16],
        }
    }
    /// Adds a row to the sum.
    fn add(&mut self, row: &Map<String, Value>) {
        // SQLite has no booleans, only 0 and 1. The keys of a `Map` are sorted.
        let plain: Map<String, Value> = row
            .iter()
            .map(|(name, value)| {
                (
                    name.clone(),
                    value
                        .as_bool()
                        .map_or_else(|| value.clone(), |truth| Value::from(u8::from(truth))),
                )
            })
            .collect();
        let hash = Sha256::digest(Value::Object(plain).to_string().as_bytes());
        let mut carry = 0;
        for (place, byte) in self.sum.iter_mut().zip(hash.iter()) {
            let sum = u16::from(*place) + u16::from(*byte) + carry;
            *place = u8::try_from(sum & 0xff).unwrap_or(0);
            carry = sum >> 8;
        }
        self.rows += 1;
    }
}

/// A consistent view of a database: one read transaction from [`Snapshot::open`] until drop.
pub struct Snapshot(AnyConnection);

impl Snapshot {
    /// Opens a connection and starts the transaction.
    pub fn open(place: &DatabaseUrl) -> Result<Self, Error> {
        let mut connection = connect(place).map_err(|error| Error::Other(error.to_string()))?;
        match &mut connection {
            AnyConnection::Sqlite(file) => file.batch_execute("BEGIN")?,
            #[cfg(feature = "postgres")]
            AnyConnection::Postgresql(server) => {
                server.batch_execute("SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
            }
        }
        Ok(Self(connection))
    }

    /// The number of rows in all tables.
    pub fn rows(&mut self) -> Result<u64, Error> {
        let mut all = 0;
        for table in TABLES {
            let rows: Vec<NumberAndText> = sql_query(format!(
                "SELECT count(*) AS number, '' AS value FROM {}",
                quoted(table)
            ))
            .load(&mut self.0)?;
            all += rows
                .first()
                .and_then(|row| u64::try_from(row.number).ok())
                .unwrap_or(0);
        }
        Ok(all)
    }

    /// Passes every row of a table to `take`, in batches.
    fn for_each_batch(
        &mut self,
        table: &'static str,
        mut take: impl FnMut(Vec<Map<String, Value>>) -> Result<(), Error>,
    ) -> Result<Summary, Error> {
        let mut summary = Summary::of(table);
        let mut hand_over = |lines: Vec<String>, summary: &mut Summary| {
            let rows = lines
                .iter()
                .map(|line| parse(line))
                .collect::<Result<Vec<_>, _>>()?;
            rows.iter().for_each(|row| summary.add(row));
            take(rows)
        };
        match &mut self.0 {
            AnyConnection::Sqlite(file) => {
                let columns = columns(file, table)?;
                if columns.is_empty() {
                    // A backup that was made before this table existed.
                    return Ok(summary);
                }
                let pairs: Vec<String> = columns
                    .iter()
                    .map(|column| format!("'{column}', {}", quoted(column)))
                    .collect();
                let object = format!("json_object({})", pairs.join(", "));
                let mut after = -1;
                loop {
                    let query = format!(
                        "SELECT rowid AS number, {object} AS value FROM {} WHERE rowid > {after} ORDER BY rowid LIMIT {ROWS_PER_BATCH}",
                        quoted(table)
                    );
                    let rows: Vec<NumberAndText> = sql_query(query).load(file)?;
                    let Some(last) = rows.last() else { break };
                    after = last.number;
                    hand_over(
                        rows.into_iter().map(|row| row.value).collect(),
                        &mut summary,
                    )?;
                }
            }
            #[cfg(feature = "postgres")]
            AnyConnection::Postgresql(server) => {
                server.batch_execute(&format!(
                    "DECLARE rows CURSOR FOR SELECT row_to_json(t)::text AS value FROM {} t",
                    quoted(table)
                ))?;
                loop {
                    let rows: Vec<TextRow> =
                        sql_query(format!("FETCH {ROWS_PER_BATCH} FROM rows")).load(server)?;
                    if rows.is_empty() {
                        break;
                    }
                    hand_over(
                        rows.into_iter().map(|row| row.value).collect(),
                        &mut summary,
                    )?;
                }
                server.batch_execute("CLOSE rows")?;
            }
        }
        Ok(summary)
    }

    /// The summaries of all tables. `progress` gets the number of rows of each batch.
    pub fn summaries(&mut self, mut progress: impl FnMut(u64)) -> Result<Vec<Summary>, Error> {
        TABLES
            .into_iter()
            .map(|table| {
                self.for_each_batch(table, |rows| {
                    progress(rows.len() as u64);
                    Ok(())
                })
            })
            .collect()
    }
}

/// Parses a row; replaces NUL, which PostgreSQL cannot store.
fn parse(line: &str) -> Result<Map<String, Value>, Error> {
    let mut row: Map<String, Value> = serde_json::from_str(line)
        .map_err(|error| Error::Other(format!("a row is no JSON: {error}")))?;
    for value in row.values_mut() {
        if let Value::String(text) = value
            && text.contains('\0')
        {
            *text = text.replace('\0', "\u{fffd}");
        }
    }
    Ok(row)
}

/// A quoted SQL identifier.
fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

/// The column names of a table in SQLite.
fn columns(file: &mut diesel::SqliteConnection, table: &str) -> Result<Vec<String>, Error> {
    let rows: Vec<TextRow> = sql_query(format!(
        "SELECT name AS value FROM pragma_table_info('{table}')"
    ))
    .load(file)?;
    Ok(rows.into_iter().map(|row| row.value).collect())
}

/// Copies everything into a database without people, in one transaction, then compares the
/// checksums of both.
///
/// An error before the commit leaves the target unchanged. A checksum that differs is found after
/// the commit.
pub fn copy(
    from: &mut Snapshot,
    to: &DatabaseUrl,
    mut progress: impl FnMut(u64),
) -> Result<Vec<Summary>, Error> {
    migrate(to)?;
    let mut target = connect(to).map_err(|error| Error::Other(error.to_string()))?;
    #[cfg(feature = "postgres")]
    if let AnyConnection::Postgresql(server) = &mut target {
        server.batch_execute(
            "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0",
        )?;
    }
    let people: Vec<NumberAndText> =
        sql_query("SELECT count(*) AS number, '' AS value FROM people").load(&mut target)?;
    if people.first().is_some_and(|row| row.number > 0) {
        return Err(Error::Other(
            "the database to copy into is not empty: nothing was changed".into(),
        ));
    }
    let copied = target.in_write_transaction(Isolation::Serializable, |target| {
        sql_query("DELETE FROM meta").execute(target)?;
        let mut copied = Vec::new();
        for table in TABLES {
            copied.push(from.for_each_batch(table, |rows| {
                progress(rows.len() as u64);
                insert(target, table, rows)
            })?);
        }
        advance_sequences(target)?;
        Ok::<_, Error>(copied)
    })?;
    let mut written = Snapshot::open(to)?;
    let found = written.summaries(|_| ())?;
    match copied
        .iter()
        .zip(&found)
        .find(|(wanted, found)| wanted != found)
    {
        Some((wanted, found)) => Err(Error::Other(format!(
            "table {} differs after copying: {} rows, {} found",
            wanted.table, wanted.rows, found.rows
        ))),
        None => Ok(copied),
    }
}

/// Inserts one batch of rows.
fn insert(
    target: &mut AnyConnection,
    table: &str,
    rows: Vec<Map<String, Value>>,
) -> Result<(), Error> {
    let text = Value::Array(rows.into_iter().map(Value::Object).collect()).to_string();
    match target {
        AnyConnection::Sqlite(file) => {
            let columns = columns(file, table)?;
            let names: Vec<String> = columns.iter().map(|column| quoted(column)).collect();
            let values: Vec<String> = columns
                .iter()
                .map(|column| format!("json_extract(value, '$.{column}')"))
                .collect();
            let query = format!(
                "INSERT INTO {} ({}) SELECT {} FROM json_each(?)",
                quoted(table),
                names.join(", "),
                values.join(", ")
            );
            sql_query(query).bind::<Text, _>(text).execute(file)?;
        }
        #[cfg(feature = "postgres")]
        AnyConnection::Postgresql(server) => {
            let query = format!(
                "INSERT INTO {t} SELECT * FROM json_populate_recordset(NULL::{t}, $1::json)",
                t = quoted(table)
            );
            sql_query(query).bind::<Text, _>(text).execute(server)?;
        }
    }
    Ok(())
}

/// Moves PostgreSQL's identity sequences past the copied numbers; SQLite does so by itself.
fn advance_sequences(target: &mut AnyConnection) -> Result<(), Error> {
    #[cfg(feature = "postgres")]
    if let AnyConnection::Postgresql(server) = target {
        for table in TABLES {
            let numbered: Vec<NumberAndText> = sql_query(format!(
                "SELECT count(*) AS number, '' AS value FROM information_schema.columns WHERE table_name = '{table}' AND is_identity = 'YES'"
            ))
            .load(server)?;
            if numbered.first().is_some_and(|row| row.number > 0) {
                let t = quoted(table);
                sql_query(format!(
                    "SELECT setval(pg_get_serial_sequence('{t}', 'number'), (SELECT coalesce(max(number), 0) + 1 FROM {t}), false)"
                ))
                .execute(server)?;
            }
        }
    }
    let _ = target;
    Ok(())
}

/// Writes the whole database into a new SQLite file: consistent, also while the server runs. Fails
/// if the file exists.
pub fn backup(from: &DatabaseUrl, file: &Path, now: Timestamp) -> Result<(), Error> {
    let explain =
        |error: IoError| Error::Other(format!("cannot write {}: {error}", file.display()));
    if file.exists() {
        return Err(explain(IoError::from(ErrorKind::AlreadyExists)));
    }
    let target = DatabaseUrl::Sqlite(file.to_owned());
    match from {
        DatabaseUrl::Sqlite(live) => {
            // Created beforehand with mode 0600; SQLite fills it.
            super::backend::create_private_file(file).map_err(explain)?;
            let mut source = connect_file(live).map_err(|error| Error::Other(error.to_string()))?;
            let name = file
                .to_str()
                .ok_or_else(|| explain(IoError::from(ErrorKind::InvalidInput)))?;
            sql_query("VACUUM INTO ?")
                .bind::<Text, _>(name)
                .execute(&mut source)?;
        }
        DatabaseUrl::Postgresql(_) => {
            copy(&mut Snapshot::open(from)?, &target, |_| ())?;
        }
    }
    let mut written = connect_file(file).map_err(|error| Error::Other(error.to_string()))?;
    // Leave WAL mode, so that the backup is one file without `-wal` and `-shm`.
    written.batch_execute(&format!(
        "PRAGMA journal_mode = DELETE; INSERT INTO meta (name, value) VALUES ('{BACKUP_AT}', '{}')",
        now.0
    ))?;
    drop(written);
    std::fs::File::open(file)
        .and_then(|written| written.sync_all())
        .map_err(explain)
}

/// The name in `meta` of the time at which the last backup was written, for the page that reminds of
/// it.
pub const BACKED_UP_AT: &str = "backed_up_at";

/// Records in the live database that a backup was written.
pub fn note_backup(of: &DatabaseUrl, now: Timestamp) -> Result<(), Error> {
    let mut live = connect(of).map_err(|error| Error::Other(error.to_string()))?;
    sql_query(format!(
        "INSERT INTO meta (name, value) VALUES ('{BACKED_UP_AT}', '{}') \
         ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        now.0
    ))
    .execute(&mut live)?;
    Ok(())
}

/// Verifies a backup: page integrity, foreign keys, and that every row can be read. Returns the
/// summaries of its tables.
pub fn check(file: &Path) -> Result<Vec<Summary>, Error> {
    let mut connection = connect_file(file).map_err(|error| Error::Other(error.to_string()))?;
    let found: Vec<TextRow> =
        sql_query("SELECT integrity_check AS value FROM pragma_integrity_check")
            .load(&mut connection)?;
    if let Some(wrong) = found.iter().find(|row| row.value != "ok") {
        return Err(Error::Other(format!(
            "{} is damaged: {}",
            file.display(),
            wrong.value
        )));
    }
    let broken: Vec<TextRow> = sql_query("SELECT \"table\" AS value FROM pragma_foreign_key_check")
        .load(&mut connection)?;
    if let Some(table) = broken.first() {
        return Err(Error::Other(format!(
            "{} is damaged: rows of {} refer to nothing",
            file.display(),
            table.value
        )));
    }
    drop(connection);
    Snapshot::open(&DatabaseUrl::Sqlite(file.to_owned()))?.summaries(|_| ())
}

/// Name of the row in `meta` with the time of a backup, in milliseconds since 1970.
const BACKUP_AT: &str = "backup_at";
/// Name of the row in `meta` of a restored database that is not prepared yet.
const RESTORING: &str = "restoring";

/// Whether a restore into this database stopped half-way: what ended since its backup works again.
pub fn is_half_restored(db: &mut Db<'_>) -> Result<bool, Error> {
    Ok(super::Store::meta(db, RESTORING)?.is_some())
}

/// When a backup was made; `None` if it does not say so.
pub fn backup_time(db: &mut Db<'_>) -> Result<Option<Timestamp>, Error> {
    let text = super::Store::meta(db, BACKUP_AT)?;
    Ok(text.and_then(|text| text.parse().ok()).map(Timestamp))
}

/// Restores a backup and migrates it. Returns the summaries of the backup. A PostgreSQL database
/// must be empty; an existing SQLite file is renamed ([`replaced_name`]) at the very end, once the
/// new one is complete, so that an earlier error leaves it as it was.
///
/// Sessions, one-time links, codes and attempts are not restored. `prepare` runs in the transaction
/// that removes them; before it the restored database is not used ([`is_half_restored`]).
///
/// Refreshes since the backup are unknown to it, so every refresh token is marked as possibly used:
/// a viewer whose token the provider refuses is told that a rotation was lost.
pub fn restore(
    file: &Path,
    to: &DatabaseUrl,
    now: Timestamp,
    audit_key: &AuditKey,
    prepare: impl Fn(&mut Db<'_>) -> Result<(), Error>,
) -> Result<Vec<Summary>, Error> {
    let whole = check(file)?;
    match to {
        DatabaseUrl::Sqlite(target) => {
            let explain = |error: IoError| {
                Error::Other(format!("cannot write {}: {error}", target.display()))
            };
            let beside = target.with_extension("restoring");
            drop(std::fs::remove_file(&beside));
            super::backend::create_private_file(&beside).map_err(explain)?;
            std::fs::copy(file, &beside).map_err(explain)?;
            let place = DatabaseUrl::Sqlite(beside.clone());
            migrate(&place)?;
            mark_as_restoring(&place)?;
            finish(&place, now, audit_key, prepare)?;
            std::fs::File::open(&beside)
                .and_then(|copied| copied.sync_all())
                .map_err(explain)?;
            let aside = rename_replaced(target, now).map_err(explain)?;
            if let Err(error) = std::fs::rename(&beside, target) {
                for (from, to) in &aside {
                    // Undo; the returned error is that of the first rename.
                    drop(std::fs::rename(to, from));
                }
                return Err(explain(error));
            }
            if let Some(folder) = target
                .parent()
                .and_then(|folder| std::fs::File::open(folder).ok())
            {
                folder.sync_all().map_err(explain)?;
            }
        }
        DatabaseUrl::Postgresql(_) => {
            // A backup of an older version is migrated in a temporary copy first.
            let beside = file.with_extension("restoring");
            std::fs::copy(file, &beside).map_err(|error| {
                Error::Other(format!("cannot write {}: {error}", beside.display()))
            })?;
            let copied = migrate(&DatabaseUrl::Sqlite(beside.clone()))
                .and_then(|()| mark_as_restoring(&DatabaseUrl::Sqlite(beside.clone())))
                .and_then(|()| Snapshot::open(&DatabaseUrl::Sqlite(beside.clone())))
                .and_then(|mut snapshot| copy(&mut snapshot, to, |_| ()));
            for end in ["restoring", "restoring-wal", "restoring-shm"] {
                drop(std::fs::remove_file(file.with_extension(end)));
            }
            copied?;
            finish(to, now, audit_key, prepare)?;
        }
    }
    Ok(whole)
}

/// The name to which a replaced database file is renamed.
pub fn replaced_name(target: &Path, now: Timestamp) -> String {
    format!("{}.before-{}", target.display(), now.unix_seconds())
}

/// Renames a database file with its `-wal` and `-shm` files; returns the pairs of old and new name.
fn rename_replaced(target: &Path, now: Timestamp) -> Result<Vec<(PathBuf, PathBuf)>, IoError> {
    let mut moved = Vec::new();
    for end in ["", "-wal", "-shm"] {
        let from = PathBuf::from(format!("{}{end}", target.display()));
        let to = PathBuf::from(format!("{}{end}", replaced_name(target, now)));
        if from.exists() {
            std::fs::rename(&from, &to)?;
            moved.push((from, to));
        }
    }
    Ok(moved)
}

fn mark_as_restoring(place: &DatabaseUrl) -> Result<(), Error> {
    let mut connection = connect(place).map_err(|error| Error::Other(error.to_string()))?;
    sql_query(format!(
        "INSERT INTO meta (name, value) VALUES ('{RESTORING}', 'yes')"
    ))
    .execute(&mut connection)?;
    Ok(())
}

/// What no restore brings back: what belonged to processes, and what is short-lived.
const NEVER_RESTORED: [&str; 12] = [
    // What people were told, or would be told once more.
    "deliveries",
    "notices",
    "leases",
    "nodes",
    "changes",
    "refresh_attempts",
    "sessions",
    "content_sessions",
    "setup_links",
    "sign_in_grants",
    "handovers",
    "attempts",
];

/// Finishes a restored database: removes what is not restored, marks the outcome of every refresh as
/// unknown, and lets the caller prepare the rest.
fn finish(
    place: &DatabaseUrl,
    now: Timestamp,
    audit_key: &AuditKey,
    prepare: impl Fn(&mut Db<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut connection = connect(place).map_err(|error| Error::Other(error.to_string()))?;
    connection.in_write_transaction(Isolation::Serializable, |target| {
        for table in NEVER_RESTORED {
            sql_query(format!("DELETE FROM {table}")).execute(target)?;
        }
        let connections = "SELECT guid, generation, 'restore', ";
        sql_query(format!(
            "INSERT INTO refresh_attempts (connection, generation, owner, started_at) {connections}{} FROM connections WHERE refresh_token IS NOT NULL",
            now.0
        ))
        .execute(target)?;
        prepare(&mut Db(target, Vec::new(), Some(audit_key)))?;
        sql_query(format!(
            "DELETE FROM meta WHERE name IN ('{RESTORING}', '{BACKUP_AT}')"
        ))
        .execute(target)?;
        Ok::<_, Error>(())
    })?;
    drop(connection);
    if let DatabaseUrl::Sqlite(file) = place {
        // Checkpoint and leave WAL mode: the database must be one file before it is renamed.
        let mut connection = connect_file(file).map_err(|error| Error::Other(error.to_string()))?;
        connection
            .batch_execute("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA journal_mode = DELETE")?;
    }
    Ok(())
}
