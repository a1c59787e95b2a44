//! Every column that holds sealed values, for what touches all of them: changing the key, checking,
//! counting.

use super::{Db, Error};
use crate::vault::Sealed;
use diesel::{prelude::*, sql_query, sql_types::BigInt, sql_types::Text};

/// A column of sealed values. All parts are SQL.
#[derive(Debug)]
pub struct Column {
    pub table: &'static str,
    pub column: &'static str,
    key: &'static str,
    /// The row's identity as it was sealed with: see [`crate::vault::Place`].
    row: &'static str,
}

/// All of them. A new one belongs here, or its values are lost with their key.
pub const COLUMNS: [Column; 9] = [
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
];

/// One sealed value with where it lives.
#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    key: String,
    #[diesel(sql_type = Text)]
    identity: String,
    #[diesel(sql_type = Text)]
    sealed: String,
}

/// A value with the key of its row and the identity that it was sealed with.
pub struct Found {
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
    fn is_sealed(&self) -> String {
        format!("substr({}, 1, 3) = 'v1.'", self.column)
    }
}

/// Values that another key than this one sealed, in the order of their rows, behind `after`. An
/// empty id finds all.
pub fn others(
    db: &mut Db<'_>,
    column: &Column,
    key_id: &str,
    after: &str,
    most: i64,
) -> Result<Vec<Found>, Error> {
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
        .map(|row| Found {
            key: row.key,
            row: row.identity,
            sealed: Sealed(row.sealed),
        })
        .collect())
}

/// How many values there are; with a key's id, how many it sealed.
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

/// Puts the same secret, sealed anew, where the old value still stands; `false` if it was replaced
/// meanwhile.
pub fn swap(
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
