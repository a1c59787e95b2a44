//! Who does something that only one process may do at a time, and refreshes that were begun and not
//! settled.

use super::{
    Db, Error,
    schema::{leases, refresh_attempts},
};
use crate::domain::{Id, Timestamp, connection::Connection};
use diesel::prelude::*;

/// A lease as it stands in the database.
#[derive(Clone, Debug, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = leases)]
pub struct Lease {
    pub name: String,
    /// Random: whoever knows it holds the lease.
    pub owner: String,
    /// The process that holds it.
    pub node: String,
    /// Of what the lease is for: a connection's tokens.
    pub generation: i64,
    /// Grows with each renewal.
    pub beat: i64,
    pub taken_at: i64,
    /// Of the owner's clock, for people who look.
    pub until: i64,
}

/// The name of the lease on a connection's refresh.
pub fn of_connection(connection: Id<Connection>) -> String {
    format!("connection:{connection}")
}

pub fn find(db: &mut Db<'_>, name: &str) -> Result<Option<Lease>, Error> {
    Ok(leases::table
        .find(name)
        .select(Lease::as_select())
        .first(db.0)
        .optional()?)
}

/// Takes a lease that nobody holds, or that stands in the database exactly as `abandoned`. `false`
/// if somebody was faster.
pub fn take(db: &mut Db<'_>, lease: &Lease, abandoned: Option<&Lease>) -> Result<bool, Error> {
    if find(db, &lease.name)?.as_ref() != abandoned {
        return Ok(false);
    }
    diesel::delete(leases::table.find(&lease.name)).execute(db.0)?;
    diesel::insert_into(leases::table)
        .values((
            leases::name.eq(&lease.name),
            leases::owner.eq(&lease.owner),
            leases::node.eq(&lease.node),
            leases::generation.eq(lease.generation),
            leases::beat.eq(lease.beat),
            leases::taken_at.eq(lease.taken_at),
            leases::until.eq(lease.until),
        ))
        .execute(db.0)?;
    Ok(true)
}

/// Holds it for longer; `false` if it is somebody else's by now.
pub fn renew(db: &mut Db<'_>, name: &str, owner: &str, until: Timestamp) -> Result<bool, Error> {
    let row = leases::table.find(name).filter(leases::owner.eq(owner));
    Ok(diesel::update(row)
        .set((leases::beat.eq(leases::beat + 1), leases::until.eq(until.0)))
        .execute(db.0)?
        == 1)
}

/// Lets it go, if it is still this owner's.
pub fn release(db: &mut Db<'_>, name: &str, owner: &str) -> Result<(), Error> {
    diesel::delete(leases::table.find(name).filter(leases::owner.eq(owner))).execute(db.0)?;
    Ok(())
}

/// Forgets leases that ended long ago: of connections that nobody asks for any more.
pub fn purge(db: &mut Db<'_>, before: Timestamp) -> Result<(), Error> {
    diesel::delete(leases::table.filter(leases::until.lt(before.0))).execute(db.0)?;
    Ok(())
}

/// Notes that a refresh of these tokens is about to be sent. `true` if one was sent before whose
/// outcome nobody knows.
pub fn begin_attempt(
    db: &mut Db<'_>,
    connection: Id<Connection>,
    generation: i64,
    owner: &str,
    now: Timestamp,
) -> Result<bool, Error> {
    let row = || refresh_attempts::table.find(connection.to_string());
    let before: Option<i64> = row()
        .select(refresh_attempts::generation)
        .first(db.0)
        .optional()?;
    diesel::delete(row()).execute(db.0)?;
    diesel::insert_into(refresh_attempts::table)
        .values((
            refresh_attempts::connection.eq(connection.to_string()),
            refresh_attempts::generation.eq(generation),
            refresh_attempts::owner.eq(owner),
            refresh_attempts::started_at.eq(now.0),
        ))
        .execute(db.0)?;
    Ok(before == Some(generation))
}

/// The outcome is known.
pub fn settle_attempt(db: &mut Db<'_>, connection: Id<Connection>) -> Result<(), Error> {
    diesel::delete(refresh_attempts::table.find(connection.to_string())).execute(db.0)?;
    Ok(())
}
