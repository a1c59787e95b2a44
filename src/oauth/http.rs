//! The HTTP client for identity providers: the only one that carries client secrets and refresh
//! tokens. It follows no redirects, uses no proxy, limits the size of responses, and connects only
//! to addresses that the egress policy allows.

use super::{
    errors::ErrorCode,
    http_error::{HttpError, retry_after},
};
use crate::{
    dns::Resolver,
    domain::egress::{Policy, Purpose},
    traces,
    trust::Trust,
};
use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tracing::Instrument as _;
use url::Url;

/// Timeout of a connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Timeout of a whole request. Long, since a late response still carries the only valid token.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// In effect no timeout: the caller of a patient request decides how long to wait.
const NO_TIMEOUT: Duration = Duration::from_secs(86_400);
/// Maximum bytes of a response body.
const MAX_RESPONSE_BYTES: usize = 1 << 20;

/// The HTTP client for identity providers.
#[derive(Clone)]
pub struct ProviderHttp {
    client: reqwest::Client,
    policy: Arc<Policy>,
    names: Resolver,
}

impl ProviderHttp {
    /// Connects to servers that have a certificate of one of these authorities.
    pub fn new(
        policy: Arc<Policy>,
        names: Resolver,
        trust: &Trust,
    ) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(trust.client_config())
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .no_proxy()
            .referer(false)
            .user_agent("valetkey")
            .dns_resolver(Arc::new(GuardedResolver {
                policy: Arc::clone(&policy),
                names: names.clone(),
            }))
            .build()?;
        Ok(Self {
            client,
            policy,
            names,
        })
    }

    /// Sends one request. 429 and 5xx become [`HttpError::Unavailable`], whatever the body says.
    pub async fn send(
        &self,
        request: oauth2::HttpRequest,
    ) -> Result<oauth2::HttpResponse, HttpError> {
        self.send_by(request, None).await
    }

    /// Sends a refresh, whose outcome must not be lost. The body is sent before `limit`, by this
    /// machine's monotonic clock, or never: after that another node may use the token. There is no
    /// response timeout: the caller waits, and drops the future to give up.
    pub async fn send_before(
        &self,
        request: oauth2::HttpRequest,
        limit: Instant,
    ) -> Result<oauth2::HttpResponse, HttpError> {
        self.send_by(request, Some(limit)).await
    }

    /// Whether the name of this address has an IP address.
    pub async fn knows_name(&self, url: &Url) -> bool {
        match url.host() {
            Some(url::Host::Domain(name)) => self
                .names
                .lookup(name)
                .await
                .is_ok_and(|found| !found.is_empty()),
            other => other.is_some(),
        }
    }

    /// Sends one request and returns the response as it is, whatever its status: for services that
    /// are no token endpoints, and for checks.
    pub async fn send_plainly(
        &self,
        request: ::http::Request<Vec<u8>>,
    ) -> Result<::http::Response<Vec<u8>>, HttpError> {
        let (head, body) = request.into_parts();
        let url = Url::parse(&head.uri.to_string()).map_err(|_| HttpError::Refused)?;
        self.policy
            .check(&url, Purpose::Provider)
            .map_err(|_| HttpError::Refused)?;
        let request = self.client.request(head.method, url).headers(head.headers);
        let sent = send_traced(request.body(body)).await;
        let response = sent.map_err(|error| classify(&error))?;
        let mut answer = ::http::Response::builder().status(response.status());
        if let Some(headers) = answer.headers_mut() {
            headers.clone_from(response.headers());
        }
        answer
            .body(read_body(response).await?)
            .map_err(|_| HttpError::Broken)
    }

    /// `limit` is the send deadline of a patient request; with it there is no total timeout.
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
            Some(limit) => request
                .timeout(NO_TIMEOUT)
                .body(reqwest::Body::wrap(DeadlineBody {
                    bytes: Some(body.into()),
                    limit,
                })),
            None => request.body(body),
        };
        let sent = send_traced(request).await;
        let response = sent.map_err(|error| classify(&error))?;
        let status = response.status();
        if status == 429 || status.is_server_error() {
            let retry_after = retry_after(response.headers());
            // 429 and 503 mean that the request was not processed; behind any other 5xx it may have
            // taken effect.
            let may_have_acted = !matches!(status.as_u16(), 429 | 503);
            return Err(HttpError::Unavailable {
                retry_after,
                may_have_acted,
            });
        }
        let bytes = read_body(response).await?;
        let mut answer = oauth2::HttpResponse::new(normalise_error_body(status, bytes));
        // The `oauth2` crate treats any success status but 200 as an error.
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

/// Sends a request, as a part of the trace that is under way.
async fn send_traced(request: reqwest::RequestBuilder) -> reqwest::Result<reqwest::Response> {
    let (client, request) = request.build_split();
    let mut request = request?;
    let host = request.url().host_str().unwrap_or("");
    let span = traces::client_span(request.method().as_str(), host);
    let sent = async move {
        let trace = traces::traceparent();
        if let Some(trace) = trace.and_then(|trace| http::HeaderValue::try_from(trace).ok()) {
            request.headers_mut().insert(traces::TRACEPARENT, trace);
        }
        client.execute(request).await
    };
    sent.instrument(span).await
}

async fn read_body(mut response: reqwest::Response) -> Result<Vec<u8>, HttpError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| classify(&error))? {
        if bytes.len() + chunk.len() > MAX_RESPONSE_BYTES {
            return Err(HttpError::TooLarge);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// A request body that yields its bytes only when they can be written, and fails if `limit` has
/// passed by then: another node may have used the refresh token meanwhile. It cannot be replayed,
/// so the HTTP client never sends it twice.
struct DeadlineBody {
    bytes: Option<bytes::Bytes>,
    limit: Instant,
}

#[derive(Debug, thiserror::Error)]
#[error("too late to be sent")]
struct SendDeadlinePassed;

impl http_body::Body for DeadlineBody {
    type Data = bytes::Bytes;
    type Error = SendDeadlinePassed;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, SendDeadlinePassed>>> {
        if Instant::now() > self.limit {
            return Poll::Ready(Some(Err(SendDeadlinePassed)));
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

/// Some servers send errors with an empty body or an HTML page, although RFC 6749 section 5.2
/// requires JSON. Their body is replaced by an error word derived from the status.
fn normalise_error_body(status: http::StatusCode, body: Vec<u8>) -> Vec<u8> {
    let is_object =
        || serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&body).is_ok();
    // Other statuses come from gateways on the way, whatever their body says.
    let may_be_refusal = matches!(status.as_u16(), 400..=403 | 409 | 422 | 429);
    if status.is_success()
        || status.is_redirection()
        || ((may_be_refusal || status.is_server_error()) && is_object())
    {
        return body;
    }
    let word = match status.as_u16() {
        401 => ErrorCode::InvalidClient.to_string(),
        // Seen in practice in response to a replayed refresh token; but a gateway on the way answers
        // like this, too. So it ends nothing, unless the template knows it as a refusal.
        400 => ErrorCode::UnreadableRefusal.to_string(),
        _ => ErrorCode::TemporarilyUnavailable.to_string(),
    };
    format!(r#"{{"error":"{word}"}}"#).into_bytes()
}

/// Searches the error's sources for our own errors first; the rest is classified by kind.
fn classify(error: &reqwest::Error) -> HttpError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = source {
        if inner.is::<crate::domain::egress::EgressError>() {
            return HttpError::Refused;
        }
        if inner.is::<SendDeadlinePassed>() {
            return HttpError::TooLate;
        }
        let within = inner
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        if inner.is::<rustls::Error>() || within.is_some_and(|within| within.is::<rustls::Error>())
        {
            return HttpError::Tls;
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

/// Resolves host names and drops addresses that the policy refuses. Checking here ensures that the
/// checked address is the one connected to.
struct GuardedResolver {
    policy: Arc<Policy>,
    names: Resolver,
}

impl reqwest::dns::Resolve for GuardedResolver {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let (policy, names) = (Arc::clone(&self.policy), self.names.clone());
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found = names.lookup(&host).await?;
            let found = found.iter().map(|address| SocketAddr::new(*address, 0));
            // The port is not known here: a host allowed with any port passes. `Policy::check`
            // compared the port before.
            let mut refused = None;
            let allowed: Vec<SocketAddr> = found
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
    fn retry_after_is_read_as_seconds_or_as_a_date() {
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
