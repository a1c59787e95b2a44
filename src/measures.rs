//! Measures of the running program (Prometheus), each declared once: name, meaning, labels. A function for each event; without a recorder (`server::metrics`) they cost next to nothing.
//!
//! No label names a person, a token or a title: integrations appear by their GUIDs.

use metrics::{counter, gauge, histogram};
use std::{fmt::Display, time::Duration};

const EXCHANGES: &str = "valetkey_exchanges_total";
const DECISIONS: &str = "valetkey_decisions_total";
const REFRESHES: &str = "valetkey_refreshes_total";
const PROVIDER_SECONDS: &str = "valetkey_provider_request_duration_seconds";
const LOST: &str = "valetkey_grants_lost_total";
const LEASE_WAIT: &str = "valetkey_lease_wait_seconds";
const DATABASE_WAIT: &str = "valetkey_database_wait_seconds";
const PROXIED: &str = "valetkey_proxied_requests_total";
const PROXIED_SECONDS: &str = "valetkey_proxied_first_byte_seconds";
const SPOOL: &str = "valetkey_spool_entries";
const HELD: &str = "valetkey_held_tokens";
const SOCKETS: &str = "valetkey_open_sockets";
const PROCESSES: &str = "valetkey_processes";
const READY: &str = "valetkey_ready";
const SECRET_EXPIRY: &str = "valetkey_integration_secret_expires_seconds";
const BUILD: &str = "valetkey_build_info";

/// Tells the recorder what each measure means.
pub fn describe() {
    metrics::describe_counter!(
        EXCHANGES,
        "Token exchanges, by outcome: ok, or why it was refused."
    );
    metrics::describe_counter!(DECISIONS, "Looks at who may do what, by cached or cold.");
    metrics::describe_counter!(
        REFRESHES,
        "Refreshes at providers, by integration and outcome: ok, person, administrator, wait or unknown."
    );
    metrics::describe_histogram!(
        PROVIDER_SECONDS,
        "How long providers took to answer a refresh, by integration."
    );
    metrics::describe_counter!(
        LOST,
        "Connections that ended because an answer of the provider was lost."
    );
    metrics::describe_histogram!(LEASE_WAIT, "How long a refresh waited for another node.");
    metrics::describe_histogram!(DATABASE_WAIT, "How long work waited for a database thread.");
    metrics::describe_counter!(
        PROXIED,
        "Requests to content, by outcome: passed, refused or failed."
    );
    metrics::describe_histogram!(
        PROXIED_SECONDS,
        "From a request to content to the first byte of its answer."
    );
    metrics::describe_gauge!(
        SPOOL,
        "Tokens that wait for the database on this node's disk."
    );
    metrics::describe_gauge!(HELD, "Session tokens kept for open sockets and streams.");
    metrics::describe_gauge!(SOCKETS, "Open WebSockets and event streams.");
    metrics::describe_gauge!(PROCESSES, "Processes of deployed content on this node.");
    metrics::describe_gauge!(READY, "1 while the node can serve, as /__health__ says.");
    metrics::describe_gauge!(
        SECRET_EXPIRY,
        "Time until the client secret of an integration expires, where it is known."
    );
    metrics::describe_gauge!(BUILD, "1, with the version as a label.");
    gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    // So that a rate can be computed from the first one on.
    counter!(LOST).increment(0);
}

/// An exchange ended.
pub fn exchange(outcome: &'static str) {
    counter!(EXCHANGES, "outcome" => outcome).increment(1);
}

/// A person's access to an item was decided, from memory or from the database.
pub fn decision(is_cached: bool) {
    let from = if is_cached { "cached" } else { "cold" };
    counter!(DECISIONS, "from" => from).increment(1);
}

/// A provider answered a refresh, or did not.
pub fn refresh(integration: &impl Display, outcome: &'static str, took: Duration) {
    let integration = integration.to_string();
    histogram!(PROVIDER_SECONDS, "integration" => integration.clone(), "kind" => "refresh")
        .record(took.as_secs_f64());
    counter!(REFRESHES, "integration" => integration, "outcome" => outcome).increment(1);
}

/// A connection ended because an answer was lost.
pub fn grant_lost() {
    counter!(LOST).increment(1);
}

/// A refresh waited for another node.
pub fn lease_wait(took: Duration) {
    histogram!(LEASE_WAIT).record(took.as_secs_f64());
}

/// Work waited for a database thread.
pub fn database_wait(took: Duration) {
    histogram!(DATABASE_WAIT).record(took.as_secs_f64());
}

/// The head of an answer to a request to content was ready.
pub fn proxied(outcome: &'static str, took: Duration) {
    counter!(PROXIED, "outcome" => outcome).increment(1);
    histogram!(PROXIED_SECONDS).record(took.as_secs_f64());
}

/// What is counted when somebody asks.
pub struct Levels {
    pub spool: usize,
    pub held_tokens: usize,
    pub sockets: usize,
    pub processes: usize,
    pub is_ready: bool,
}

/// Sets the levels.
pub fn levels(levels: &Levels) {
    let number = |count: usize| u32::try_from(count).map_or(f64::MAX, f64::from);
    gauge!(SPOOL).set(number(levels.spool));
    gauge!(HELD).set(number(levels.held_tokens));
    gauge!(SOCKETS).set(number(levels.sockets));
    gauge!(PROCESSES).set(number(levels.processes));
    gauge!(READY).set(if levels.is_ready { 1.0 } else { 0.0 });
}

/// Sets how long a client secret still lives.
pub fn secret_expiry(integration: &impl Display, left: f64) {
    gauge!(SECRET_EXPIRY, "integration" => integration.to_string()).set(left);
}
