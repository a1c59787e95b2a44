//! The log: to standard error, as text or JSON. Secrets have types that do not print, and no request body is ever logged.

use crate::config::LogFormat;
use tracing_subscriber::EnvFilter;

/// Starts logging; a second call changes nothing.
pub fn start(filter: &str, format: LogFormat) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A log that cannot be written (its disk is full) must not stop the work: the default is to complain on the same stream, and panic.
        .log_internal_errors(false);
    let result = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    // Somebody else's logger stays.
    drop(result);
}
