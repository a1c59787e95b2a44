//! Logging to standard error, as text or JSON.
//!
//! Secrets never reach the log: their types do not print them, and no request body is logged.
//! A line that cannot be written is dropped; by default `tracing-subscriber` panics when the disk
//! is full.

use crate::config::LogFormat;
use std::io::IsTerminal as _;
use tracing_subscriber::EnvFilter;

/// Installs the global subscriber; a second call has no effect. An invalid `filter` (in the syntax
/// of [`EnvFilter`]) falls back to `info`.
pub fn start(filter: &str, format: LogFormat) {
    let asked = filter;
    let mut filter = EnvFilter::try_new(asked).unwrap_or_else(|_| EnvFilter::new("info"));
    // actix logs an error for every response that ends early, also for those that the portal cuts
    // on purpose; `proxy/response.rs` logs the real cause. A filter that names `actix_http` or
    // `trace` keeps these lines.
    if !asked.contains("actix_http")
        && !asked.contains("trace")
        && let Ok(quiet) = "actix_http::h1::dispatcher=off".parse()
    {
        filter = filter.add_directive(quiet);
    }
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // Colours only for people: a file or a pipe would keep the escape sequences.
        .with_ansi(std::io::stderr().is_terminal())
        // The default reports a failed write on the same stream and panics when that fails, too: a
        // full disk must not stop the server.
        .log_internal_errors(false);
    let result = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    // Fails if a global subscriber is already installed; that one stays.
    drop(result);
}
