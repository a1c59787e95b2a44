//! Correlation ids. One per request; it appears in the log, in audit records, in error pages and in
//! the header `X-Correlation-Id`.

use crate::{traces, vault::random};
use actix_web::HttpMessage as _;
use actix_web::{
    HttpRequest,
    http::header::{HeaderMap, HeaderName, HeaderValue},
};
use std::cell::Cell;
use tracing::Span;

/// The header of the correlation id, in requests and responses.
pub const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");

/// The correlation id: ties a request to its log lines, audit records and error page.
pub struct Correlation(HeaderValue);

impl Correlation {
    /// `X-Correlation-Id` of the request, if it has 8 to 64 letters, digits or hyphens; otherwise a
    /// new id. New ids only have to be distinct, not unpredictable: a per-thread sequence with a
    /// random start, stepped by the odd constant of the 64-bit golden ratio.
    pub fn of(headers: &HeaderMap) -> Self {
        let given = headers.get(CORRELATION_ID);
        let good = |id: &[u8]| {
            (8..=64).contains(&id.len())
                && id
                    .iter()
                    .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
        };
        if let Some(given) = given.filter(|value| good(value.as_bytes())) {
            return Self(given.clone());
        }
        thread_local! {
            static LAST: Cell<u64> = Cell::new(u64::from_ne_bytes(random::bytes()));
        }
        let next = LAST.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        LAST.set(next);
        Self(HeaderValue::try_from(format!("{next:016x}")).unwrap_or(HeaderValue::from_static("")))
    }
    /// The id as a header value.
    pub fn value(&self) -> &HeaderValue {
        &self.0
    }

    /// The id as text; empty if it cannot be printed.
    pub fn text(&self) -> &str {
        self.0.to_str().unwrap_or("")
    }
}

/// The span of a request, with its correlation id; a part of the trace that its headers name.
pub fn request_span(correlation: &str, headers: &HeaderMap) -> Span {
    traces::request_span(correlation, |name| headers.get(name)?.to_str().ok())
}

/// The correlation id of a request; empty outside `web::error_pages`.
pub fn correlation(request: &HttpRequest) -> String {
    request
        .extensions()
        .get::<Correlation>()
        .map(|found| found.text().to_owned())
        .unwrap_or_default()
}
