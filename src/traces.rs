//! Traces for OpenTelemetry: the cargo feature `traces` and the setting `traces_endpoint`. Without
//! either, nothing here costs anything.
//!
//! Requests continue the trace that their client names (W3C Trace Context, `traceparent`), and the
//! portal names it to apps and providers. The program that began a trace decides whether it is
//! recorded. Spans carry methods, patterns of routes, status codes and correlation ids; no path, no
//! query, no item, no person and no token. A collector that does not answer delays nothing:
//! spans wait in a bounded queue, and those that find it full are dropped.

#[cfg(not(feature = "traces"))]
use tracing::Span;

/// The header of W3C Trace Context that names the trace and the caller's span.
pub const TRACEPARENT: &str = "traceparent";
/// The header for what tracing systems add to it.
pub const TRACESTATE: &str = "tracestate";

/// The span of a request; a part of the trace in its headers. `header`: the value of one.
#[cfg(not(feature = "traces"))]
#[inline]
pub fn request_span<'a>(correlation: &str, _header: impl Fn(&str) -> Option<&'a str>) -> Span {
    tracing::info_span!("request", correlation)
}

/// Records method, route and status of a request that has ended. `route`: the pattern, not the path.
#[cfg(not(feature = "traces"))]
#[inline]
pub fn end_request(
    _span: &Span,
    _method: &str,
    _route: impl FnOnce() -> Option<String>,
    _status: u16,
) {
}

/// The span of a request that this program sends to `host`.
#[cfg(not(feature = "traces"))]
#[inline]
pub const fn client_span(_method: &str, _host: &str) -> Span {
    Span::none()
}

/// The `traceparent` of requests that are sent within the current span; `None` outside of a trace.
#[cfg(not(feature = "traces"))]
#[inline]
pub const fn traceparent() -> Option<String> {
    None
}

/// Makes a span, created with `parent: None`, a part of the current trace. It must not have been
/// entered.
#[cfg(not(feature = "traces"))]
#[inline]
pub const fn set_trace_parent(_span: &Span) {}

/// Sends the spans that wait, and stops; blocks for at most ten seconds. Call it outside of an
/// asynchronous runtime.
#[cfg(not(feature = "traces"))]
#[inline]
pub const fn shutdown() {}

#[cfg(feature = "traces")]
pub use recorded::*;

#[cfg(feature = "traces")]
mod recorded {
    use super::{TRACEPARENT, TRACESTATE};
    use opentelemetry::{
        propagation::{Extractor, TextMapPropagator as _},
        trace::{Status, TraceContextExt as _, TracerProvider as _},
    };
    use opentelemetry_otlp::{WithExportConfig as _, WithHttpConfig as _};
    use opentelemetry_sdk::{
        Resource,
        propagation::TraceContextPropagator,
        trace::{Sampler, SdkTracerProvider},
    };
    use std::{sync::OnceLock, time::Duration};
    use tracing::{Level, Span};
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;
    use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};

    /// Longest request to the collector.
    const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

    static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

    fn is_on() -> bool {
        PROVIDER.get().is_some()
    }

    /// The layer that records this program's spans and sends them to the collector at `endpoint`
    /// (OTLP over HTTP; `/v1/traces` is appended). `percent`: how many of the traces that begin here
    /// are recorded.
    pub fn layer<S>(
        endpoint: &str,
        percent: u64,
        tls: rustls::ClientConfig,
    ) -> Result<impl Layer<S> + use<S>, String>
    where
        S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    {
        let url = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
        // The client has a runtime of its own, which must not begin within another one.
        let client = std::thread::spawn(|| {
            reqwest::blocking::Client::builder()
                .tls_backend_preconfigured(tls)
                .timeout(EXPORT_TIMEOUT)
                .no_proxy()
                .build()
        });
        let client = client
            .join()
            .map_err(|_| "its thread ended".to_owned())?
            .map_err(|error| error.to_string())?;
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_endpoint(url)
            .build()
            .map_err(|error| error.to_string())?;
        #[expect(clippy::cast_precision_loss, reason = "at most 100")]
        let ratio = percent as f64 / 100.0;
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(
                ratio,
            ))))
            .with_resource(Resource::builder().with_service_name("valetkey").build())
            .build();
        let tracer = provider.tracer("valetkey");
        drop(PROVIDER.set(provider));
        // Not the lines of the log: they name items and people.
        let ours = filter_fn(|found| {
            found.is_span()
                && found.target().starts_with("valetkey")
                && *found.level() <= Level::INFO
        });
        Ok(tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(ours))
    }

    /// The span of a request; a part of the trace in its headers. `header`: the value of one.
    pub fn request_span<'a>(correlation: &str, header: impl Fn(&str) -> Option<&'a str>) -> Span {
        struct Headers<'a>([Option<&'a str>; 2]);
        impl Extractor for Headers<'_> {
            fn get(&self, name: &str) -> Option<&str> {
                let [parent, state] = self.0;
                if name == TRACEPARENT { parent } else { state }
            }
            fn keys(&self) -> Vec<&str> {
                vec![TRACEPARENT, TRACESTATE]
            }
        }
        if !is_on() {
            return tracing::info_span!("request", correlation);
        }
        let span = tracing::info_span!("request", correlation, otel.kind = "server");
        let headers = Headers([header(TRACEPARENT), header(TRACESTATE)]);
        let parent = TraceContextPropagator::new().extract(&headers);
        // Fails only for a span that has begun.
        drop(span.set_parent(parent));
        span
    }

    /// Records method, route and status of a request that has ended. `route`: the pattern, not the
    /// path; asked only where traces are sent.
    pub fn end_request(
        span: &Span,
        method: &str,
        route: impl FnOnce() -> Option<String>,
        status: u16,
    ) {
        if !is_on() {
            return;
        }
        let route = route();
        let name = route
            .as_ref()
            .map_or_else(|| method.to_owned(), |route| format!("{method} {route}"));
        span.context().span().update_name(name);
        span.set_attribute("http.request.method", method.to_owned());
        span.set_attribute("http.response.status_code", i64::from(status));
        if let Some(route) = route {
            span.set_attribute("http.route", route);
        }
        if status >= 500 {
            span.set_status(Status::error(""));
        }
    }

    /// The span of a request that this program sends to `host`.
    pub fn client_span(method: &str, host: &str) -> Span {
        if !is_on() {
            return Span::none();
        }
        tracing::info_span!(
            "request to a provider",
            otel.kind = "client",
            http.request.method = method,
            server.address = host
        )
    }

    /// The `traceparent` of requests that are sent within the current span; `None` outside of a
    /// trace.
    pub fn traceparent() -> Option<String> {
        if !is_on() {
            return None;
        }
        let context = Span::current().context();
        let span = context.span().span_context().clone();
        span.is_valid().then(|| {
            let (trace, id, flags) = (span.trace_id(), span.span_id(), span.trace_flags());
            format!("00-{trace}-{id}-{:02x}", flags.to_u8())
        })
    }

    /// Makes a span, created with `parent: None`, a part of the current trace. It must not have been
    /// entered.
    pub fn set_trace_parent(span: &Span) {
        if is_on() {
            drop(span.set_parent(Span::current().context()));
        }
    }

    /// Sends the spans that wait, and stops; blocks for at most ten seconds. Call it outside of an
    /// asynchronous runtime.
    pub fn shutdown() {
        if let Some(provider) = PROVIDER.get() {
            // What a collector did not take is lost.
            drop(provider.shutdown_with_timeout(EXPORT_TIMEOUT));
        }
    }
}
