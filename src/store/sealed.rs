//! All columns that hold sealed values, and the queries over them: re-sealing after a change of the
//! key, checking, counting. This module neither seals nor opens a value: to the store a [`Sealed`]
//! is opaque text.

use super::{Db, Error};
use crate::vault::Sealed;
use diesel::{prelude::*, sql_query, sql_types::BigInt, sql_types::Text};

/// A column of sealed values. All parts are SQL.
#[derive(Debug)]
pub struct Column {
    pub table: &'static str,
    pub column: &'static str,
    /// The column that identifies the row.
    key: &'static str,
    /// The row identity that is authenticated with the value: see [`crate::vault::SealContext`].
    row: &'static str,
}

/// All columns of sealed values. Every new one must be listed, else its values are lost when their
/// key is retired.
pub const COLUMNS: [Column; 12] = [
    Column {
        table: "meta",
        column: "value",
        key: "name",
        row: "name",
    },
    Column {
        table: "integrations",
        column: "client_secret",
        key: "guid",
        row: "guid",
    },
    Column {
        table: "integrations",
        column: "previous_client_secret",
        key: "guid",
        row: "guid",
    },
    Column {
        table: "connections",
        column: "access_token",
        key: "guid",
        row: "guid || '/' || person || '/' || integration",
    },
    Column {
        table: "connections",
        column: "refresh_token",
        key: "guid",
        row: "guid || '/' || person || '/' || integration",
    },
    Column {
        table: "attempts",
        column: "verifier",
        key: "guid",
        row: "guid",
    },
    Column {
        table: "sign_in_grants",
        column: "refresh_token",
        key: "session",
        row: "session",
    },
    Column {
        table: "revocations",
        column: "request",
        key: "guid",
        row: "guid",
    },
    Column {
        table: "shown_once",
        column: "shown",
        key: "name_hash",
        row: "name_hash || '/' || person",
    },
    Column {
        table: "webhooks",
        column: "url",
        key: "guid",
        row: "guid",
    },
    Column {
        table: "webhooks",
        column: "secret",
        key: "guid",
        row: "guid",
    },
    Column {
        table: "environment",
        column: "value",
        key: "content || '/' || name",
        row: "content || '/' || name",
    },
];

/// One row of [`sealed_with_other_keys`].
#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    key: String,
    #[diesel(sql_type = Text)]
    identity: String,
    #[diesel(sql_type = Text)]
    sealed: String,
}

/// A sealed value, with its row's key and the row identity that it was sealed with.
pub struct SealedValue {
    pub key: String,
    pub row: String,
    pub sealed: Sealed,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

impl Column {
    /// The SQL condition for a sealed value; the table `meta` also holds others.
    fn is_sealed(&self) -> String {
        format!("substr({}, 1, 3) = 'v1.'", self.column)
    }
}

/// At most `most` values that were not sealed with the key `key_id`, by row key, starting after
/// `after`. An empty `key_id` finds all values.
pub fn sealed_with_other_keys(
    db: &mut Db<'_>,
    column: &Column,
    key_id: &str,
    after: &str,
    most: i64,
) -> Result<Vec<SealedValue>, Error> {
    let prefix = Sealed::prefix(key_id);
    let (first, second) = (db.0.placeholder(1), db.0.placeholder(2));
    let (name, key, row, table, sealed) = (
        column.column,
        column.key,
        column.row,
        column.table,
        column.is_sealed(),
    );
    let query = format!(
        "SELECT {key} AS key, {row} AS identity, {name} AS sealed FROM {table} WHERE {sealed} AND substr({name}, 1, {}) <> {first} AND {key} > {second} ORDER BY {key} LIMIT {most}",
        prefix.len()
    );
    let rows: Vec<Row> = sql_query(query)
        .bind::<Text, _>(prefix)
        .bind::<Text, _>(after)
        .load(db.0)?;
    Ok(rows
        .into_iter()
        .map(|row| SealedValue {
            key: row.key,
            row: row.identity,
            sealed: Sealed(row.sealed),
        })
        .collect())
}

/// The number of sealed values; with a `key_id`, of those sealed with that key.
pub fn count(db: &mut Db<'_>, column: &Column, key_id: Option<&str>) -> Result<i64, Error> {
    let prefix = key_id.map_or_else(|| "v1.".to_owned(), Sealed::prefix);
    let first = db.0.placeholder(1);
    let query = format!(
        "SELECT count(*) AS count FROM {} WHERE substr({}, 1, {}) = {first}",
        column.table,
        column.column,
        prefix.len()
    );
    let rows: Vec<Count> = sql_query(query).bind::<Text, _>(prefix).load(db.0)?;
    Ok(rows.first().map_or(0, |row| row.count))
}

/// Replaces a value by the same secret, sealed with another key. Compare-and-swap: `false` if the
/// value changed meanwhile.
pub fn compare_and_swap(
    db: &mut Db<'_>,
    column: &Column,
    key: &str,
    old: &Sealed,
    new: &Sealed,
) -> Result<bool, Error> {
    let (first, second, third) = (
        db.0.placeholder(1),
        db.0.placeholder(2),
        db.0.placeholder(3),
    );
    let query = format!(
        "UPDATE {} SET {c} = {first} WHERE {} = {second} AND {c} = {third}",
        column.table,
        column.key,
        c = column.column
    );
    let changed = sql_query(query)
        .bind::<Text, _>(&new.0)
        .bind::<Text, _>(key)
        .bind::<Text, _>(&old.0)
        .execute(db.0)?;
    Ok(changed == 1)
}
