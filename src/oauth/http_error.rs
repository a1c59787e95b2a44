//! Why a request to a provider brought no usable response, below any meaning of OAuth.

use std::time::Duration;

/// Why a request brought no usable response.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("address refused")]
    Refused,
    #[error("could not connect")]
    Connect,
    /// The certificate is not trusted, or belongs to another name or time.
    #[error("no trusted certificate")]
    Tls,
    #[error("no answer in time")]
    Timeout,
    #[error("the answer broke off")]
    Broken,
    #[error("the answer is too large")]
    TooLarge,
    /// 429 or 5xx.
    #[error("throttled or failing")]
    Unavailable {
        retry_after: Option<Duration>,
        may_have_acted: bool,
    },
    /// The send deadline of a patient request passed before its body was sent.
    #[error("too late to be sent")]
    TooLate,
}

/// `Retry-After` (RFC 9110 section 10.2.3): seconds, or a date, which is compared with the
/// response's own `Date`. At most one hour.
pub fn retry_after(headers: &http::HeaderMap) -> Option<Duration> {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &http::HeaderValue| value.to_str().ok())
            .map(str::trim)
    };
    let asked = text(http::header::RETRY_AFTER)?;
    let wait = match asked.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let (until, now) = (
                httpdate::parse_http_date(asked).ok()?,
                httpdate::parse_http_date(text(http::header::DATE)?).ok()?,
            );
            until.duration_since(now).unwrap_or_default()
        }
    };
    Some(wait.min(Duration::from_secs(3600)))
}
