//! The reverse proxy in front of content items, in the order in which a request passes: [`gate`]
//! (which item, who, may they pass) → [`candidate`] (which process) → [`request`] (what the app is
//! told) → [`client`] (HTTP/1.1 to the app) → [`response`] (what the browser is told). A WebSocket
//! takes the same gate, candidate and request, then [`websocket`].
//!
//! A request to an app carries exactly one session token, the portal's, and none for anonymous
//! viewers. Bodies are streamed in both directions.

use crate::{
    domain::{origins::ContentLocation, person::SignedIn},
    http::{body::with_idle_timeout, errors::WebError, navigation::is_navigation},
    measures::{self, Proxied},
    proxy::{
        candidate::{Candidate, Tried, next_process},
        client::{ClientError, Upload},
        gate::{
            Audience, Decision, Pass, Rejection, admit, check_request, is_from_elsewhere, locate,
            refuse,
        },
        pool::InFlight,
        request::{add_portal_headers, request_line},
        response::{app_error, not_reached, sticky_cookie},
        state::Proxy,
    },
    service::Services,
    traces,
};
use actix_web::ResponseError as _;
use actix_web::{
    HttpRequest, HttpResponse,
    dev::RequestHead,
    error::PayloadError,
    http::{Method, StatusCode, header},
    web,
};
use bytes::Bytes;
use futures_util::{
    FutureExt as _, StreamExt as _,
    stream::{self, LocalBoxStream},
};
use std::{cell::Cell, rc::Rc, time::Instant};

mod app_sessions;
mod bar;
mod candidate;
pub mod client;
mod deployed;
pub mod gate;
mod handover;
pub mod headers;
pub mod health_checks;
mod pool;
mod request;
mod response;
pub mod sockets;
mod starting;
pub mod state;
mod tokens;
pub mod upstream;
pub mod websocket;
mod wire;

/// Handler of every request on a content host, and of `/content/{guid}/…` where content shares the
/// portal's origin.
pub async fn serve(
    request: HttpRequest,
    payload: web::Payload,
    proxy: web::Data<Proxy>,
) -> Result<HttpResponse, WebError> {
    let asked = Instant::now();
    let answer = serve_content(request, payload, proxy).await;
    let status = match &answer {
        Ok(answer) => answer.status(),
        Err(error) => error.status_code(),
    };
    // An app that does not answer is an error of ours, too.
    let outcome = match &answer {
        _ if status.is_server_error() => Proxied::Failed,
        Ok(_) => Proxied::Passed,
        Err(_) => Proxied::Refused,
    };
    measures::proxied(outcome, asked.elapsed());
    answer
}

async fn serve_content(
    request: HttpRequest,
    payload: web::Payload,
    proxy: web::Data<Proxy>,
) -> Result<HttpResponse, WebError> {
    let (service, sessions, head) = (&proxy.service, &proxy.sessions, request.head());
    if !service.core.settings.origins.is_same_origin()
        && let Some(own) = head.uri.path().strip_prefix(handover::RESERVED_PREFIX)
        && let Some(answer) = Box::pin(handover::serve(&request, own, service, sessions)).await?
    {
        return Ok(answer);
    }
    let Some(mut place) = locate(head, service).await? else {
        return handover::no_item(&request, service);
    };
    let rest = check_request(head, &proxy, &place).map_err(|Rejection(status, title, line)| {
        WebError::Page(status, title.into(), line.into())
    })?;
    if let Some(own) = rest.strip_prefix(&handover::RESERVED_PREFIX[1..]) {
        return Box::pin(bar::serve(&request, &proxy, &place, rest, own)).await;
    }
    match admit(head, &proxy, &place).await? {
        Decision::Admitted(mut pass) => {
            if !pass.is_by_key() && is_from_elsewhere(head, &place, pass.content()) {
                gate::audit_foreign_request(service, &pass, &request, &place);
                return Err(WebError::from_elsewhere());
            }
            proxy
                .sessions
                .touch(pass.session.and_then(SignedIn::browser));
            let (draft, rest) = deployed::enter_draft(&pass, &mut place, rest)?;
            if let Some(response) =
                deployed::prepare(&request, &proxy, &mut pass, rest, draft).await?
            {
                return Ok(response);
            }
            forward(&request, payload, &proxy, &pass, &place, rest).await
        }
        Decision::Refused(refusal) => refuse(&request, &proxy, &place, rest, refusal).await,
    }
}

/// Sends an admitted request to a process and returns its response. If a process does not accept
/// the connection, the next one is tried; after that the request is never sent to another process.
async fn forward(
    request: &HttpRequest,
    payload: web::Payload,
    proxy: &web::Data<Proxy>,
    pass: &Pass,
    place: &ContentLocation,
    rest: &str,
) -> Result<HttpResponse, WebError> {
    let (service, item, head) = (&proxy.service, pass.content(), request.head());
    if pass.processes().is_empty() {
        let mine = matches!(&pass.content, Audience::Viewer(admission) if admission.person.id == admission.content.owner);
        return Err(WebError::no_app_yet(mine));
    }
    // The response of a page that gets the bar must be uncompressed and complete.
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let has_bar = item.proxying.reconnect_bar || item.proxying.portal_link;
    let with_bar = has_bar && is_read && is_navigation(request);
    let length = content_length(head);
    let has_body = length.is_some() || head.headers().contains_key(header::TRANSFER_ENCODING);
    let stalled = Rc::new(Cell::new(false));
    let mut body = has_body.then(|| with_idle_timeout(payload, Rc::clone(&stalled)).boxed_local());
    if let (Some(chunked), None) = (&mut body, length) {
        peek(chunked).await?;
    }
    let idempotent = matches!(
        head.method,
        Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS
    );
    let mut tried = Tried::default();
    let (answer, next) = loop {
        let Some(mut next) = next_process(head, proxy, pass, place, &mut tried).await else {
            return Err(if tried.one_was_full {
                WebError::app_busy()
            } else {
                not_reached(service, pass).await
            });
        };
        // Counted before it is compared: requests that arrive together must not pass together.
        next.here = pass.arrive(service, next.process);
        next.open = pass.open_from_client(proxy);
        if pass.has_too_much_open(service, next.process) || next.open.is_none() {
            return Err(WebError::too_much_open());
        }
        let Some(in_flight) = InFlight::begin(&next.target.pool) else {
            return Err(WebError::app_busy());
        };
        next.in_flight = Some(in_flight);
        let head_bytes = request_head(request, proxy, pass, place, rest, &next, with_bar);
        // The body is not sent before the connection is established, so it is still complete for
        // the next process.
        let repeatable = idempotent && !has_body;
        let sent = match client::connect(&next.target, &item.proxying, repeatable).await {
            Ok(connected) => {
                let upload = body.take().map(|body| Upload::new(body, length));
                let to_head = head.method == Method::HEAD;
                client::send(
                    connected,
                    &next.target,
                    &item.proxying,
                    &head_bytes,
                    upload,
                    to_head,
                )
                .await
            }
            Err(error) => Err(error),
        };
        match sent {
            Err(error) if error.is_local() => {
                tracing::error!(reason = %error, "this machine has no connection left for apps");
                return Err(WebError::app_busy());
            }
            // Nothing was sent, or a repeatable request on a pooled connection that broke.
            Err(error @ ClientError::Connect(_)) => {
                tracing::warn!(content = %item.id, reason = %error, "app not reached");
                service
                    .process_health
                    .note_health(&next.process.url, false, service.core.now());
            }
            // The request had no `Upgrade` header.
            Ok(answer) if answer.head.status == StatusCode::SWITCHING_PROTOCOLS => {
                return Err(app_error(service, pass, StatusCode::BAD_GATEWAY, "broke off").await);
            }
            Ok(answer) => break (answer, next),
            Err(ClientError::Upload) if stalled.get() => return Err(WebError::BodyTimeout),
            Err(ClientError::Upload) => return Err(WebError::malformed_body()),
            Err(error) => return Err(no_response(service, pass, error).await),
        }
    };
    let process = next.process;
    let mut response = response::to_browser(request, proxy, pass, place, next, answer, with_bar);
    if let Some(cookie) = sticky_cookie(head, proxy, pass, place, process) {
        // Cannot fail: the cookie has only letters and digits.
        drop(response.add_cookie(&cookie));
    }
    Ok(response)
}

/// Reads the part of a chunked body that has arrived already. An error if that part is malformed: then
/// the request is not sent to the app at all. Never waits.
async fn peek(
    body: &mut LocalBoxStream<'static, Result<Bytes, PayloadError>>,
) -> Result<(), WebError> {
    // actix calls the application with a head before it parses what it has read of the body.
    actix_web::rt::task::yield_now().await;
    match body.next().now_or_never() {
        Some(Some(Ok(first))) => {
            let rest = std::mem::replace(body, stream::empty().boxed_local());
            *body = stream::iter([Ok(first)]).chain(rest).boxed_local();
            Ok(())
        }
        Some(Some(Err(_))) => Err(WebError::malformed_body()),
        Some(None) => {
            *body = stream::empty().boxed_local();
            Ok(())
        }
        None => Ok(()),
    }
}

/// The request's length; `None` if it has no body or a chunked one.
fn content_length(head: &RequestHead) -> Option<u64> {
    head.headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok())
}

/// The head of the request to the app, with the empty line.
fn request_head(
    request: &HttpRequest,
    proxy: &Proxy,
    pass: &Pass,
    place: &ContentLocation,
    rest: &str,
    next: &Candidate<'_>,
    with_bar: bool,
) -> Vec<u8> {
    let head = request.head();
    let mut out = Vec::with_capacity(2048);
    request_line(
        &mut out,
        &head.method,
        &next.target,
        pass,
        place,
        rest,
        head.uri.query(),
    );
    add_portal_headers(
        &mut out,
        head,
        proxy,
        pass,
        place,
        rest,
        next.token.as_ref(),
    );
    let dropped: &[_] = if with_bar {
        &bar::DROPPED_REQUEST_HEADERS
    } else {
        &[]
    };
    headers::append_request_headers(
        head.headers(),
        &mut out,
        dropped,
        &pass.content().proxying.pass_headers,
        traces::traceparent().as_deref(),
    );
    if let Some(length) = content_length(head) {
        headers::append_line(
            &mut out,
            &header::CONTENT_LENGTH,
            length.to_string().as_bytes(),
        );
    } else if head.headers().contains_key(header::TRANSFER_ENCODING) {
        headers::append_line(&mut out, &header::TRANSFER_ENCODING, b"chunked");
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// The error page for an app that took the connection and gave no response.
async fn no_response(service: &Services, pass: &Pass, error: ClientError) -> WebError {
    tracing::warn!(content = %pass.content().id, reason = %error, "an app did not answer");
    match error {
        ClientError::FirstByteTimeout => {
            app_error(
                service,
                pass,
                StatusCode::GATEWAY_TIMEOUT,
                "does not answer",
            )
            .await
        }
        ClientError::Protocol(_) | ClientError::Io(_) => {
            app_error(service, pass, StatusCode::BAD_GATEWAY, "broke off").await
        }
        ClientError::Connect(_) | ClientError::Upload => not_reached(service, pass).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_future_of_a_proxied_request_is_small() {
        crate::http::assert_small(|(request, payload, proxy)| serve(request, payload, proxy));
    }
}
