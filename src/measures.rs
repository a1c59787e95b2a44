//! Measures of the running program (Prometheus), each declared once: name, meaning, labels. A
//! function for each event; without a recorder (`server::metrics`) they cost next to nothing.
//!
//! What every exchange or proxied request counts goes through handles that are looked up once
//! ([`Frequent`]): a lookup by name and labels costs about as much as a tenth of an exchange.
//!
//! No label names a person, a token or a title: integrations appear by their GUIDs.

use metrics::{Counter, Histogram, counter, gauge, histogram};
use std::{fmt::Display, sync::OnceLock, time::Duration};

const EXCHANGES: &str = "valetkey_exchanges_total";
const DECISIONS: &str = "valetkey_decisions_total";
const PROVIDER_REQUESTS: &str = "valetkey_provider_requests_total";
const PROVIDER_SECONDS: &str = "valetkey_provider_request_duration_seconds";
const PROVIDER_PAUSED: &str = "valetkey_provider_paused";
const REFRESHES_IN_FLIGHT: &str = "valetkey_refreshes_in_flight";
const CONSENTS: &str = "valetkey_consents_total";
const LEAKS: &str = "valetkey_leak_alarms_total";
const LOST: &str = "valetkey_grants_lost_total";
const LEASE_WAIT: &str = "valetkey_lease_wait_seconds";
const DATABASE_WAIT: &str = "valetkey_database_wait_seconds";
const INVALIDATION: &str = "valetkey_invalidation_delay_seconds";
const HASHING: &str = "valetkey_password_checks";
const PROXIED: &str = "valetkey_proxied_requests_total";
const PROXIED_SECONDS: &str = "valetkey_proxied_first_byte_seconds";
const SPOOL: &str = "valetkey_spool_entries";
const HELD: &str = "valetkey_held_tokens";
const SOCKETS: &str = "valetkey_open_sockets";
const PROCESSES: &str = "valetkey_processes";
const PROCESS_STARTS: &str = "valetkey_process_starts_total";
const PROCESS_START_SECONDS: &str = "valetkey_process_start_seconds";
const READY: &str = "valetkey_ready";
const SECRET_EXPIRY: &str = "valetkey_integration_secret_expires_seconds";
const DISK_FREE: &str = "valetkey_disk_free_ratio";
const BACKUP_AGE: &str = "valetkey_backup_age_seconds";
const AUDIT_WHOLE: &str = "valetkey_audit_chain_whole";
const BUILD: &str = "valetkey_build_info";

/// Handles of the measures of hot paths. Absent without a recorder: a handle belongs to the recorder
/// that there was when it was made.
struct Frequent {
    exchanged: Counter,
    cached: Counter,
    cold: Counter,
    database_wait: Histogram,
    passed: Counter,
    first_byte: Histogram,
}

static FREQUENT: OnceLock<Frequent> = OnceLock::new();

/// Tells the recorder, which must be in place, what each measure means.
pub fn describe() {
    metrics::describe_counter!(
        EXCHANGES,
        "Token exchanges, by outcome: ok, or why it was refused."
    );
    metrics::describe_counter!(DECISIONS, "Looks at who may do what, by cached or cold.");
    metrics::describe_counter!(
        PROVIDER_REQUESTS,
        "Requests to providers, by integration, kind (code, refresh, service_account, revoke) and outcome: ok, or who can mend it (person, administrator, wait, unknown)."
    );
    metrics::describe_histogram!(
        PROVIDER_SECONDS,
        "How long providers took to answer, by integration and kind."
    );
    metrics::describe_gauge!(
        PROVIDER_PAUSED,
        "1 while this node asks the provider of an integration for nothing, after failures of several connections."
    );
    metrics::describe_gauge!(REFRESHES_IN_FLIGHT, "Refreshes under way on this node.");
    metrics::describe_counter!(CONSENTS, "Steps towards a consent, by step.");
    metrics::describe_counter!(
        LEAKS,
        "Viewers whose token was used by an app without them, seen for the first time."
    );
    metrics::describe_counter!(
        LOST,
        "Connections that ended because an answer of the provider was lost."
    );
    metrics::describe_histogram!(
        LEASE_WAIT,
        "From the start of a refresh until its lease is held."
    );
    metrics::describe_histogram!(DATABASE_WAIT, "How long work waited for a database thread.");
    metrics::describe_histogram!(
        INVALIDATION,
        "From a change by another process to its effect on what this one has cached."
    );
    metrics::describe_gauge!(HASHING, "Passwords being checked or waiting for it.");
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
    metrics::describe_counter!(
        PROCESS_STARTS,
        "Starts of processes of deployed content, by outcome: ready or failed."
    );
    metrics::describe_histogram!(
        PROCESS_START_SECONDS,
        "From the start of such a process to its first answer."
    );
    metrics::describe_gauge!(READY, "1 while the node can serve, as /__health__ says.");
    metrics::describe_gauge!(
        SECRET_EXPIRY,
        "Time until the client secret of an integration expires, where it is known."
    );
    metrics::describe_gauge!(
        DISK_FREE,
        "Free share of the disk that holds the data, from 0 to 1."
    );
    metrics::describe_gauge!(
        BACKUP_AGE,
        "Since `valetkey backup` last wrote one; missing if it never did."
    );
    metrics::describe_gauge!(
        AUDIT_WHOLE,
        "1 if the seals of the audit log are right, 0 if a record was changed or removed. Only on the node that looks, once a day."
    );
    metrics::describe_gauge!(BUILD, "1, with version and commit as labels.");
    // So that an increase is seen from the first one on.
    counter!(LOST).increment(0);
    counter!(LEAKS).increment(0);
    counter!(PROCESS_STARTS, "outcome" => "failed").increment(0);
    FREQUENT.get_or_init(|| Frequent {
        exchanged: counter!(EXCHANGES, "outcome" => "ok"),
        cached: counter!(DECISIONS, "from" => "cached"),
        cold: counter!(DECISIONS, "from" => "cold"),
        database_wait: histogram!(DATABASE_WAIT),
        passed: counter!(PROXIED, "outcome" => "passed"),
        first_byte: histogram!(PROXIED_SECONDS),
    });
}

/// An exchange ended with a token.
pub fn exchanged() {
    if let Some(frequent) = FREQUENT.get() {
        frequent.exchanged.increment(1);
    }
}

/// An exchange was refused.
pub fn exchange_refused(why: &'static str) {
    counter!(EXCHANGES, "outcome" => why).increment(1);
}

/// A person's access to an item was decided, from memory or from the database.
pub fn decision(is_cached: bool) {
    if let Some(frequent) = FREQUENT.get() {
        let decided = if is_cached {
            &frequent.cached
        } else {
            &frequent.cold
        };
        decided.increment(1);
    }
}

/// A provider answered a request, or did not.
pub fn provider_request(
    integration: &impl Display,
    kind: &'static str,
    outcome: &'static str,
    took: Duration,
) {
    let integration = integration.to_string();
    histogram!(PROVIDER_SECONDS, "integration" => integration.clone(), "kind" => kind)
        .record(took.as_secs_f64());
    counter!(PROVIDER_REQUESTS, "integration" => integration, "kind" => kind, "outcome" => outcome)
        .increment(1);
}

/// A step towards a consent.
pub fn consent(step: &'static str) {
    counter!(CONSENTS, "step" => step).increment(1);
}

/// A viewer's token was used without its viewer, for the first time at that item.
pub fn leak() {
    counter!(LEAKS).increment(1);
}

/// A change of another process took effect here.
pub fn invalidation(delay: Duration) {
    histogram!(INVALIDATION).record(delay.as_secs_f64());
}

/// A process of deployed content answered for the first time, or ended before that.
pub fn process_start(took: Option<Duration>) {
    if let Some(took) = took {
        histogram!(PROCESS_START_SECONDS).record(took.as_secs_f64());
    }
    let outcome = if took.is_some() { "ready" } else { "failed" };
    counter!(PROCESS_STARTS, "outcome" => outcome).increment(1);
}

/// A connection ended because an answer was lost.
pub fn grant_lost() {
    counter!(LOST).increment(1);
}

/// A refresh holds its lease, so long after it began.
pub fn lease_wait(took: Duration) {
    histogram!(LEASE_WAIT).record(took.as_secs_f64());
}

/// Work waited for a database thread.
pub fn database_wait(took: Duration) {
    if let Some(frequent) = FREQUENT.get() {
        frequent.database_wait.record(took.as_secs_f64());
    }
}

/// What became of a request to content.
#[derive(Clone, Copy)]
pub enum Proxied {
    Passed,
    /// By this program.
    Refused,
    Failed,
}

/// The head of an answer to a request to content was ready.
pub fn proxied(outcome: Proxied, took: Duration) {
    let Some(frequent) = FREQUENT.get() else {
        return;
    };
    match outcome {
        Proxied::Passed => frequent.passed.increment(1),
        Proxied::Refused => counter!(PROXIED, "outcome" => "refused").increment(1),
        Proxied::Failed => counter!(PROXIED, "outcome" => "failed").increment(1),
    }
    frequent.first_byte.record(took.as_secs_f64());
}

/// What is counted when somebody asks: a gauge that is not set for a while disappears, such as those
/// of integrations that were deleted.
pub struct Levels {
    pub refreshes: usize,
    pub password_checks: usize,
    /// `None`: not known.
    pub disk_free: Option<f64>,
    pub backup_age: Option<Duration>,
    pub audit_is_whole: Option<bool>,
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
    gauge!(REFRESHES_IN_FLIGHT).set(number(levels.refreshes));
    gauge!(HASHING).set(number(levels.password_checks));
    gauge!(READY).set(yes(levels.is_ready));
    if let Some(free) = levels.disk_free {
        gauge!(DISK_FREE).set(free);
    }
    if let Some(age) = levels.backup_age {
        gauge!(BACKUP_AGE).set(age.as_secs_f64());
    }
    if let Some(is_whole) = levels.audit_is_whole {
        gauge!(AUDIT_WHOLE).set(yes(is_whole));
    }
}

/// Says which build this is.
pub fn build(commit: &'static str) {
    gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION"), "commit" => commit).set(1.0);
}

fn yes(is: bool) -> f64 {
    if is { 1.0 } else { 0.0 }
}

/// Makes the counters of an integration's failures begin at 0, so that the first one is an increase.
pub fn integration(integration: &impl Display) {
    let integration = integration.to_string();
    for kind in ["code", "refresh", "service_account"] {
        counter!(PROVIDER_REQUESTS, "integration" => integration.clone(), "kind" => kind, "outcome" => "administrator")
            .increment(0);
    }
}

/// Sets whether this node asks the provider of an integration for nothing.
pub fn provider_paused(integration: &impl Display, is_paused: bool) {
    gauge!(PROVIDER_PAUSED, "integration" => integration.to_string()).set(yes(is_paused));
}

/// Sets how long a client secret still lives.
pub fn secret_expiry(integration: &impl Display, left: f64) {
    gauge!(SECRET_EXPIRY, "integration" => integration.to_string()).set(left);
}
