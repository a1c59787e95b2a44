//! The only HTTP client that ever carries a client secret or a refresh token: no redirects, bounded answers, checked addresses.

use super::errors::{Class, Failure};
use crate::domain::egress::{Policy, Purpose};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use url::Url;

const CONNECT: Duration = Duration::from_secs(3);
/// Long, since a late answer still carries the only valid token.
const TOTAL: Duration = Duration::from_secs(60);
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
    Unavailable { retry_after: Option<Duration> },
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
            HttpError::TooLarge => ("The identity provider sent something that is no answer.", true),
            HttpError::Unavailable { .. } => ("The identity provider is not answering right now.", false),
        };
        let retry_after = if let HttpError::Unavailable { retry_after } = error { retry_after } else { None };
        Failure { class: Class::Wait { retry_after }, ..Failure { may_have_acted, ..Failure::wait(sentence) } }
    }
}

/// The HTTP client for identity providers.
#[derive(Clone)]
pub struct ProviderHttp {
    client: reqwest::Client,
    policy: Arc<Policy>,
}

impl ProviderHttp {
    pub fn new(policy: Arc<Policy>) -> Result<Self, reqwest::Error> {
        let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map(|builder| builder.with_root_certificates(roots).with_no_client_auth());
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .timeout(TOTAL)
            .no_proxy()
            .referer(false)
            .user_agent("valetkey")
            .dns_resolver(Arc::new(GuardedResolver { policy: Arc::clone(&policy) }));
        if let Ok(tls) = tls {
            builder = builder.tls_backend_preconfigured(tls);
        }
        Ok(Self { client: builder.build()?, policy })
    }

    /// Sends one request. Answers of 429 and 5xx are failures to wait for, whatever their body says.
    pub async fn send(&self, request: oauth2::HttpRequest) -> Result<oauth2::HttpResponse, HttpError> {
        let (head, body) = request.into_parts();
        let url = Url::parse(&head.uri.to_string()).map_err(|_| HttpError::Refused)?;
        self.policy.check(&url, Purpose::Provider).map_err(|_| HttpError::Refused)?;
        let mut headers = head.headers;
        headers.insert(http::header::ACCEPT, http::HeaderValue::from_static("application/json"));
        let sent = self.client.request(head.method, url).headers(headers).body(body).send().await;
        let mut response = sent.map_err(|error| classify(&error))?;
        let status = response.status();
        if status == 429 || status.is_server_error() {
            let retry_after = response
                .headers()
                .get(http::header::RETRY_AFTER)
                .and_then(|value| value.to_str().ok()?.trim().parse().ok())
                .map(|seconds: u64| Duration::from_secs(seconds.min(3600)));
            return Err(HttpError::Unavailable { retry_after });
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
        *answer.status_mut() = if status.is_success() { http::StatusCode::OK } else { status };
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

/// Some servers refuse with an empty body or a page (RFC 6749 section 5.2 asks for JSON): the status then speaks alone.
fn normalise(status: http::StatusCode, body: Vec<u8>) -> Vec<u8> {
    let is_object = || serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&body).is_ok();
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

/// Resolves names and drops addresses that the policy refuses: what is checked is what is connected to.
struct GuardedResolver {
    policy: Arc<Policy>,
}

impl reqwest::dns::Resolve for GuardedResolver {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let policy = Arc::clone(&self.policy);
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            // The port is not known here: a host listed with any port passes, and `check` compared the port before.
            let mut refused = None;
            let allowed: Vec<SocketAddr> = found
                .into_iter()
                .filter(|address| match policy.check_ip_of_host(&host, address.ip()) {
                    Ok(()) => true,
                    Err(why) => {
                        refused = Some(why);
                        false
                    }
                })
                .collect();
            match (allowed.is_empty(), refused) {
                (true, Some(why)) => Err(Box::new(why) as Box<dyn std::error::Error + Send + Sync>),
                _ => Ok(Box::new(allowed.into_iter()) as reqwest::dns::Addrs),
            }
        })
    }
}
