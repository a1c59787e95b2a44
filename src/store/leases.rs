//! Leases, for work that only one process of the cluster may do at a time, and pending refresh
//! attempts.
//!
//! A lease is not abandoned when `until` has passed, since clocks of nodes differ and jump: it is
//! abandoned when an observer sees no heartbeat (`owner` and `beat` unchanged) for its whole life
//! by the observer's own clock. `service::node` decides that; this module compares and swaps.

use super::{
    Db, Error,
    schema::{leases, refresh_attempts},
};
use crate::domain::{Id, Timestamp, connection::Connection};
use diesel::prelude::*;

/// A lease, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = leases)]
pub struct Lease {
    pub name: String,
    /// Random, new for each acquisition; renewing and releasing require it.
    pub owner: String,
    /// The process that holds the lease: see `service::node`.
    pub node: String,
    /// Of the connection's tokens that are being refreshed; 0 for other work.
    pub generation: i64,
    /// Heartbeat counter: incremented with each renewal.
    pub beat: i64,
    /// When the lease was acquired, by the owner's clock.
    pub taken_at: i64,
    /// Intended end, by the owner's clock. Informational: never used to decide whether the lease is
    /// abandoned.
    pub until: i64,
}

/// The name of the lease for refreshing a connection.
pub fn connection_lease_name(connection: Id<Connection>) -> String {
    format!("connection:{connection}")
}

/// The lease of this name.
pub fn find(db: &mut Db<'_>, name: &str) -> Result<Option<Lease>, Error> {
    Ok(leases::table
        .find(name)
        .select(Lease::as_select())
        .first(db.0)
        .optional()?)
}

/// Acquires a lease. Compare-and-swap: `false` unless the stored lease equals `abandoned` (`None`:
/// there is none).
pub fn acquire(db: &mut Db<'_>, lease: &Lease, abandoned: Option<&Lease>) -> Result<bool, Error> {
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

/// Renews a lease; `false` if another owner took it.
pub fn renew(db: &mut Db<'_>, name: &str, owner: &str, until: Timestamp) -> Result<bool, Error> {
    let row = leases::table.find(name).filter(leases::owner.eq(owner));
    Ok(diesel::update(row)
        .set((leases::beat.eq(leases::beat + 1), leases::until.eq(until.0)))
        .execute(db.0)?
        == 1)
}

/// Releases a lease, if this owner still holds it.
pub fn release(db: &mut Db<'_>, name: &str, owner: &str) -> Result<(), Error> {
    diesel::delete(leases::table.find(name).filter(leases::owner.eq(owner))).execute(db.0)?;
    Ok(())
}

/// Records that a refresh with these tokens is about to be sent. `true` if an earlier refresh of
/// the same generation has an unknown outcome.
pub fn record_refresh_attempt(
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

/// Deletes the record of [`record_refresh_attempt`]: the outcome is known.
pub fn delete_refresh_attempt(db: &mut Db<'_>, connection: Id<Connection>) -> Result<(), Error> {
    diesel::delete(refresh_attempts::table.find(connection.to_string())).execute(db.0)?;
    Ok(())
}
