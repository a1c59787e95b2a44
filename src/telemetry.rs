//! Logging to standard error, as text or JSON; beside it, spans for a collector (`traces.rs`).
//!
//! Secrets never reach the log: their types do not print them, and no request body is logged.
//! A line that cannot be written is dropped; by default `tracing-subscriber` panics when the disk
//! is full.

use crate::{
    config::{LogFormat, Traces},
    trust::Trust,
};
use std::io::IsTerminal as _;
#[cfg(feature = "traces")]
use tracing_subscriber::Layer as _;
use tracing_subscriber::{
    EnvFilter, layer::SubscriberExt as _, registry, util::SubscriberInitExt as _,
};

/// Installs the global subscriber; a second call has no effect. An invalid `filter` (in the syntax
/// of [`EnvFilter`]) falls back to `info`. The error is a sentence for the user.
pub fn start(
    filter: &str,
    format: LogFormat,
    traces: Option<(&Traces, &Trust)>,
) -> Result<(), String> {
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
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        // Colours only for people: a file or a pipe would keep the escape sequences.
        .with_ansi(std::io::stderr().is_terminal())
        // The default reports a failed write on the same stream and panics when that fails, too: a
        // full disk must not stop the server.
        .log_internal_errors(false);
    // Each fails if a global subscriber is already installed; that one stays.
    #[cfg(feature = "traces")]
    if let Some((traces, trust)) = traces {
        let lines = match format {
            LogFormat::Text => lines.with_filter(filter).boxed(),
            LogFormat::Json => lines.json().with_filter(filter).boxed(),
        };
        let spans =
            crate::traces::layer(&traces.endpoint, traces.percent, trust.client_config())
                .map_err(|error| format!("Traces cannot be sent to traces_endpoint: {error}"))?;
        drop(registry().with(lines).with(spans).try_init());
        return Ok(());
    }
    #[cfg(not(feature = "traces"))]
    if traces.is_some() {
        return Err(
            "traces_endpoint is set, but this program was built without traces: build it with --features traces.".into(),
        );
    }
    drop(match format {
        LogFormat::Text => registry().with(lines).with(filter).try_init(),
        LogFormat::Json => registry().with(lines.json()).with(filter).try_init(),
    });
    Ok(())
}
