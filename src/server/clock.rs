//! The system's wall clock. This is the one place that reads it; all other code gets a [`Clock`].

use crate::domain::{Timestamp, time::Clock};
use actix_web::http::header::HeaderValue;

/// The system's wall clock.
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the clock"
    )]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// The current value of the `Date` header (RFC 9110 section 6.6.1).
pub fn http_date() -> HeaderValue {
    let since =
        std::time::Duration::from_millis(u64::try_from(SystemClock.now().0).unwrap_or_default());
    let text = httpdate::fmt_http_date(std::time::UNIX_EPOCH + since);
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"))
}
