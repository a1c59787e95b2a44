//! The log: to standard error, as text or JSON. Secrets have types that do not print, and no
//! request body is ever logged.

use crate::config::LogFormat;
use tracing_subscriber::EnvFilter;

/// Starts logging; a second call changes nothing.
pub fn start(filter: &str, format: LogFormat) {
    let asked = filter;
    let mut filter = EnvFilter::try_new(asked).unwrap_or_else(|_| EnvFilter::new("info"));
    // It calls every answer an error that ends early, also those that we cut on purpose;
    // `proxy/answer.rs` says what happened. Whoever asks for everything gets that, too.
    if !asked.contains("actix_http")
        && !asked.contains("trace")
        && let Ok(quiet) = "actix_http::h1::dispatcher=off".parse()
    {
        filter = filter.add_directive(quiet);
    }
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A log that cannot be written (its disk is full) must not stop the work: the default is to
        // complain on the same stream, and panic.
        .log_internal_errors(false);
    let result = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    // Somebody else's logger stays.
    drop(result);
}
