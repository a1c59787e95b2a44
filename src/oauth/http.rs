//! The only HTTP client that ever carries a client secret or a refresh token: no redirects, bounded
//! answers, checked addresses.

use super::errors::{Class, Failure};
use crate::domain::egress::{Policy, Purpose};
use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use url::Url;

const CONNECT: Duration = Duration::from_secs(3);
/// Long, since a late answer still carries the only valid token.
const TOTAL: Duration = Duration::from_secs(60);
/// The caller of a patient request decides how long.
const NEVER: Duration = Duration::from_secs(86_400);
const LARGEST_ANSWER: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("address refused")]
    Refused,
    #[error("could not connect")]
    Connect,
    #[error("no answer in time")]
    Timeout,
    #[error("the answer broke off")]
    Broken,
    #[error("the answer is too large")]
    TooLarge,
    #[error("throttled or failing")]
    Unavailable {
        retry_after: Option<Duration>,
        may_have_acted: bool,
    },
    #[error("too late to be sent")]
    TooLate,
}

impl From<HttpError> for Failure {
    fn from(error: HttpError) -> Self {
        let (sentence, may_have_acted) = match &error {
            HttpError::Refused => {
                return Failure::administrator(
                    "configuration",
                    "The address of the identity provider leads into a private network that the operator has not allowed.",
                );
            }
            HttpError::Connect => ("The identity provider cannot be reached.", false),
            HttpError::Timeout => ("The identity provider did not answer in time.", true),
            HttpError::Broken => ("The connection to the identity provider broke off.", true),
            HttpError::TooLarge => (
                "The identity provider sent something that is no answer.",
                true,
            ),
            HttpError::Unavailable { may_have_acted, .. } => (
                "The identity provider is not answering right now.",
                *may_have_acted,
            ),
            HttpError::TooLate => ("The request could not be sent in time.", false),
        };
        let retry_after = if let HttpError::Unavailable { retry_after, .. } = error {
            retry_after
        } else {
            None
        };
        Failure {
            class: Class::Wait { retry_after },
            ..Failure {
                may_have_acted,
                ..Failure::wait(sentence)
            }
        }
    }
}

/// How long to wait (RFC 9110 section 10.2.3): seconds, or a date, which is compared with the
/// answer's own.
fn retry_after(headers: &http::HeaderMap) -> Option<Duration> {
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

/// The HTTP client for identity providers.
#[derive(Clone)]
pub struct ProviderHttp {
    client: reqwest::Client,
    policy: Arc<Policy>,
}

impl ProviderHttp {
    pub fn new(policy: Arc<Policy>) -> Result<Self, reqwest::Error> {
        let roots = rustls::RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        };
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_root_certificates(roots).with_no_client_auth());
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .timeout(TOTAL)
            .no_proxy()
            .referer(false)
            .user_agent("valetkey")
            .dns_resolver(Arc::new(GuardedResolver {
                policy: Arc::clone(&policy),
            }));
        if let Ok(tls) = tls {
            builder = builder.tls_backend_preconfigured(tls);
        }
        Ok(Self {
            client: builder.build()?,
            policy,
        })
    }

    /// Sends one request. Answers of 429 and 5xx are failures to wait for, whatever their body
    /// says.
    pub async fn send(
        &self,
        request: oauth2::HttpRequest,
    ) -> Result<oauth2::HttpResponse, HttpError> {
        self.send_by(request, None).await
    }

    /// The client for a request whose outcome must not be lost: its body leaves before `limit` or
    /// never, by this machine's steady clock, and its answer is waited for until the caller drops
    /// it.
    pub fn patient(&self, limit: Instant) -> Patient<'_> {
        Patient { http: self, limit }
    }

    async fn send_by(
        &self,
        request: oauth2::HttpRequest,
        limit: Option<Instant>,
    ) -> Result<oauth2::HttpResponse, HttpError> {
        let (head, body) = request.into_parts();
        let url = Url::parse(&head.uri.to_string()).map_err(|_| HttpError::Refused)?;
        self.policy
            .check(&url, Purpose::Provider)
            .map_err(|_| HttpError::Refused)?;
        let mut headers = head.headers;
        headers.insert(
            http::header::ACCEPT,
            http::HeaderValue::from_static("application/json"),
        );
        let request = self.client.request(head.method, url).headers(headers);
        let request = match limit {
            Some(limit) => request.timeout(NEVER).body(reqwest::Body::wrap(InTime {
                bytes: Some(body.into()),
                limit,
            })),
            None => request.body(body),
        };
        let sent = request.send().await;
        let mut response = sent.map_err(|error| classify(&error))?;
        let status = response.status();
        if status == 429 || status.is_server_error() {
            let retry_after = retry_after(response.headers());
            // These two say that nothing was done; behind any other the request may have had its
            // effect.
            let may_have_acted = !matches!(status.as_u16(), 429 | 503);
            return Err(HttpError::Unavailable {
                retry_after,
                may_have_acted,
            });
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| classify(&error))? {
            if bytes.len() + chunk.len() > LARGEST_ANSWER {
                return Err(HttpError::TooLarge);
            }
            bytes.extend_from_slice(&chunk);
        }
        let mut answer = oauth2::HttpResponse::new(normalise(status, bytes));
        // The library takes any success but 200 for an error.
        *answer.status_mut() = if status.is_success() {
            http::StatusCode::OK
        } else {
            status
        };
        Ok(answer)
    }
}

impl<'c> oauth2::AsyncHttpClient<'c> for ProviderHttp {
    type Error = HttpError;
    type Future = futures_util::future::BoxFuture<'c, Result<oauth2::HttpResponse, HttpError>>;
    fn call(&'c self, request: oauth2::HttpRequest) -> Self::Future {
        Box::pin(self.send(request))
    }
}

/// See [`ProviderHttp::patient`].
pub struct Patient<'a> {
    http: &'a ProviderHttp,
    limit: Instant,
}

impl<'c> oauth2::AsyncHttpClient<'c> for Patient<'_> {
    type Error = HttpError;
    type Future = futures_util::future::BoxFuture<'c, Result<oauth2::HttpResponse, HttpError>>;
    fn call(&'c self, request: oauth2::HttpRequest) -> Self::Future {
        Box::pin(self.http.send_by(request, Some(self.limit)))
    }
}

/// A body that is asked for its bytes only once they can be written, and refuses when that is too
/// late: somebody else may have used the refresh token meanwhile. It cannot be repeated, so the
/// client never sends it twice.
struct InTime {
    bytes: Option<bytes::Bytes>,
    limit: Instant,
}

#[derive(Debug, thiserror::Error)]
#[error("too late to be sent")]
struct Late;

impl http_body::Body for InTime {
    type Data = bytes::Bytes;
    type Error = Late;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, Late>>> {
        if Instant::now() > self.limit {
            return Poll::Ready(Some(Err(Late)));
        }
        Poll::Ready(
            self.bytes
                .take()
                .map(|bytes| Ok(http_body::Frame::data(bytes))),
        )
    }
    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }
    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

/// Some servers refuse with an empty body or a page (RFC 6749 section 5.2 asks for JSON): the
/// status then speaks alone.
fn normalise(status: http::StatusCode, body: Vec<u8>) -> Vec<u8> {
    let is_object =
        || serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&body).is_ok();
    if status.is_success() || status.is_redirection() || is_object() {
        return body;
    }
    let word = match (status.as_u16(), body.is_empty()) {
        (401, _) => "invalid_client",
        // Seen in the wild: a replayed refresh token is answered with 400 and nothing else.
        (400, true) => "invalid_grant",
        _ => "temporarily_unavailable",
    };
    format!(r#"{{"error":"{word}"}}"#).into_bytes()
}

fn classify(error: &reqwest::Error) -> HttpError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = source {
        if inner.is::<crate::domain::egress::Refused>() {
            return HttpError::Refused;
        }
        if inner.is::<Late>() {
            return HttpError::TooLate;
        }
        source = inner.source();
    }
    if error.is_connect() {
        HttpError::Connect
    } else if error.is_timeout() {
        HttpError::Timeout
    } else {
        HttpError::Broken
    }
}

/// Resolves names and drops addresses that the policy refuses: what is checked is what is connected
/// to.
struct GuardedResolver {
    policy: Arc<Policy>,
}

impl reqwest::dns::Resolve for GuardedResolver {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let policy = Arc::clone(&self.policy);
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            // The port is not known here: a host listed with any port passes, and `check` compared
            // the port before.
            let mut refused = None;
            let allowed: Vec<SocketAddr> = found
                .into_iter()
                .filter(
                    |address| match policy.check_ip_of_host(&host, address.ip()) {
                        Ok(()) => true,
                        Err(why) => {
                            refused = Some(why);
                            false
                        }
                    },
                )
                .collect();
            match (allowed.is_empty(), refused) {
                (true, Some(why)) => Err(Box::new(why) as Box<dyn std::error::Error + Send + Sync>),
                _ => Ok(Box::new(allowed.into_iter()) as reqwest::dns::Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_says_in_seconds_or_by_a_date_when_to_come_back() {
        let wait = |asked: &str, date: Option<&str>| {
            let mut headers = http::HeaderMap::new();
            headers.insert(http::header::RETRY_AFTER, asked.parse().unwrap());
            if let Some(date) = date {
                headers.insert(http::header::DATE, date.parse().unwrap());
            }
            retry_after(&headers).map(|wait| wait.as_secs())
        };
        assert_eq!(wait("7", None), Some(7));
        assert_eq!(wait("999999", None), Some(3600));
        assert_eq!(
            wait(
                "Wed, 25 Nov 2026 10:00:30 GMT",
                Some("Wed, 25 Nov 2026 10:00:00 GMT")
            ),
            Some(30)
        );
        assert_eq!(
            wait(
                "Wed, 25 Nov 2026 09:00:00 GMT",
                Some("Wed, 25 Nov 2026 10:00:00 GMT")
            ),
            Some(0)
        );
        assert_eq!(wait("soon", None), None);
    }
}
