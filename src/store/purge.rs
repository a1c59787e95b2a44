//! Deletes rows that nobody needs any more, table by table, by an index, and at most [`BATCH`] with
//! one statement, so that no other write waits for long. What is kept how long is decided by the
//! caller; the audit log has rules of its own (`audit::cut`).

use super::{Db, Error, changes};
use crate::domain::{Timestamp, revocation::ProviderNotice};
use diesel::{RunQueryDsl as _, sql_query};
use std::time::Duration;

/// Rows that one call of [`Purge::run`] deletes, at most.
pub const BATCH: usize = 1000;

/// Rows older than these times are deleted.
#[derive(Clone, Copy, Debug)]
pub struct Cutoffs {
    pub now: Timestamp,
    /// Browser sessions that were last used before.
    pub idle_sessions: Timestamp,
    /// Content sessions that were made before: their browser session has reached its lifetime.
    pub content_sessions: Timestamp,
    /// Password attempts before.
    pub password_attempts: Timestamp,
    /// Attempts that expired before, and leases, nodes and app sessions that were in use last
    /// before.
    pub attempts: Timestamp,
    pub leases: Timestamp,
    pub app_sessions: Timestamp,
    /// Presence and uses of tokens by processes.
    pub presence: Timestamp,
    /// Ended connections whose provider was told.
    pub revocations: Timestamp,
    /// Endings, which are in the journal, too.
    pub endings: Timestamp,
    /// Counts of exchanges.
    pub exchange_counts: Timestamp,
    /// Leaks that were last noticed before.
    pub leaks: Timestamp,
    /// Notices, with their deliveries, and devices that were seen last, before.
    pub notices: Timestamp,
    pub devices: Timestamp,
    /// One-time links that expired before.
    pub setup_links: Timestamp,
}

/// The rule for one table.
#[derive(Clone, Debug)]
pub struct Purge {
    pub table: &'static str,
    /// The columns of the primary key.
    key: &'static str,
    /// Numbers and column names only.
    condition: String,
}

impl Purge {
    fn new(table: &'static str, key: &'static str, condition: String) -> Self {
        Self {
            table,
            key,
            condition,
        }
    }

    /// Deletes up to [`BATCH`] rows; returns how many. The condition stands twice: a row that was
    /// renewed meanwhile stays.
    pub fn run(&self, db: &mut Db<'_>) -> Result<usize, Error> {
        let Self {
            table,
            key,
            condition,
        } = self;
        let statement = format!(
            "DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} WHERE {condition} LIMIT {BATCH}) AND {condition}"
        );
        Ok(sql_query(statement).execute(db.0)?)
    }
}

/// All rules. A session that expired needs no entry in the change log: its end is part of what is
/// cached.
pub fn rules(cutoffs: &Cutoffs) -> Vec<Purge> {
    let before = |column: &str, at: Timestamp| format!("{column} < {}", at.0);
    let waiting = ProviderNotice::Waiting.as_str();
    let old_changes = cutoffs.now.minus(changes::RETENTION);
    vec![
        Purge::new("sessions", "key_hash", before("expires_at", cutoffs.now)),
        Purge::new(
            "sessions",
            "key_hash",
            before("seen_at", cutoffs.idle_sessions),
        ),
        Purge::new(
            "content_sessions",
            "key_hash",
            before("created_at", cutoffs.content_sessions),
        ),
        Purge::new("handovers", "code_hash", before("expires_at", cutoffs.now)),
        Purge::new(
            "sign_in_grants",
            "session",
            "NOT EXISTS (SELECT 1 FROM sessions WHERE sessions.guid = sign_in_grants.session)"
                .into(),
        ),
        Purge::new("attempts", "guid", before("expires_at", cutoffs.attempts)),
        Purge::new(
            "sign_in_tries",
            "number",
            before("at", cutoffs.password_attempts),
        ),
        Purge::new("shown_once", "name_hash", before("expires_at", cutoffs.now)),
        Purge::new(
            "setup_links",
            "token_hash",
            before("expires_at", cutoffs.setup_links),
        ),
        Purge::new("leases", "name", before("until", cutoffs.leases)),
        Purge::new(
            "app_sessions",
            "id_hash",
            before("seen_at", cutoffs.app_sessions),
        ),
        Purge::new(
            "visits",
            "content, process, person, node",
            format!("NOT here AND {}", before("seen_at", cutoffs.presence)),
        ),
        Purge::new(
            "token_uses",
            "content, process, person",
            before("used_at", cutoffs.presence),
        ),
        Purge::new("leaks", "content, person", before("last_at", cutoffs.leaks)),
        Purge::new("notices", "number", before("at", cutoffs.notices)),
        Purge::new(
            "known_devices",
            "person, client",
            before("seen_at", cutoffs.devices),
        ),
        Purge::new(
            "revocations",
            "guid",
            format!(
                "{} AND state <> '{waiting}'",
                before("ended_at", cutoffs.revocations)
            ),
        ),
        Purge::new(
            "exchange_hours",
            "hour, person, content, integration",
            before("hour", cutoffs.exchange_counts),
        ),
        Purge::new(
            "activity_hours",
            "hour, kind, content, integration",
            before("hour", cutoffs.exchange_counts),
        ),
        // The newest ending stays: a table without any means that none was ever purged.
        Purge::new(
            "endings",
            "number",
            format!(
                "{} AND number < (SELECT max(number) FROM endings)",
                before("at", cutoffs.endings)
            ),
        ),
        // The newest change stays: it is how a process notices that rows are missing.
        Purge::new(
            "changes",
            "seq",
            format!(
                "{} AND seq < (SELECT max(seq) FROM changes)",
                before("at", old_changes)
            ),
        ),
    ]
}

/// The age at which a node without a heartbeat is forgotten, with what it kept for others.
pub const FORGET_NODE_AFTER: Duration = Duration::from_secs(3600);

/// Removes the nodes without a heartbeat since `before`. A stay whose node is unknown has ended.
pub fn forget_nodes(db: &mut Db<'_>, before: Timestamp) -> Result<(), Error> {
    for node in super::short_lived::nodes_before(db, before)? {
        super::short_lived::delete_node(db, &node)?;
    }
    for statement in [
        "UPDATE visits SET here = FALSE WHERE here AND NOT EXISTS (SELECT 1 FROM nodes WHERE nodes.node = visits.node)",
        "DELETE FROM held_tokens WHERE NOT EXISTS (SELECT 1 FROM nodes WHERE nodes.node = held_tokens.node)",
    ] {
        sql_query(statement).execute(db.0)?;
    }
    Ok(())
}
