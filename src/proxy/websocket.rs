//! WebSockets (RFC 6455): the handshake is checked and rewritten, then bytes pass as they are, whatever frames they hold.

use super::{
    Ticket, copy_answer, headers,
    upstream::{Target, Upstreams},
};
use crate::{
    domain::wall::Place,
    service::{Error, Service},
    web::problems::{FromContent, WebError},
};
use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        StatusCode, Uri,
        header::{self, HeaderMap, HeaderName, HeaderValue},
    },
    web,
};
use futures_util::{StreamExt as _, future::Either, stream};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
    time::timeout,
};

const CONNECT: Duration = Duration::from_secs(5);
const HANDSHAKE: Duration = Duration::from_secs(30);
const LARGEST_HEAD: usize = 64 * 1024;
/// How often an open socket is asked whether it may stay.
const RECHECK: Duration = Duration::from_secs(1);

trait Wire: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Wire for T {}

#[expect(clippy::too_many_arguments, reason = "one call, from the handler")]
pub(super) async fn tunnel(
    request: &HttpRequest,
    payload: web::Payload,
    service: &web::Data<Service>,
    upstreams: &Upstreams,
    target: &Target,
    uri: &Uri,
    ours: &HeaderMap,
    ticket: Ticket,
    place: &Place,
) -> Result<HttpResponse, WebError> {
    let text = |name: HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    if !text(header::UPGRADE).eq_ignore_ascii_case("websocket") {
        return Err(WebError::Page(
            StatusCode::BAD_REQUEST,
            "Only WebSockets can be upgraded to".into(),
            "Nothing else is offered here.".into(),
        ));
    }
    // Cross-site WebSocket hijacking: apps accept any Origin, so it is compared here. A missing one is refused, too.
    if text(header::ORIGIN) != place.origin {
        return Err(WebError::Page(
            StatusCode::FORBIDDEN,
            "Another site may not open this".into(),
            "A WebSocket opens only from the pages of its own app.".into(),
        ));
    }
    let bad = |what: &str| WebError::Page(StatusCode::BAD_GATEWAY, "The app does not answer".into(), format!("Its WebSocket {what}."));
    let tcp =
        timeout(CONNECT, TcpStream::connect(target.socket)).await.ok().and_then(Result::ok).ok_or_else(|| bad("cannot be reached"))?;
    // Small frames must not wait for more.
    drop(tcp.set_nodelay(true));
    let mut wire: Box<dyn Wire> = if target.url.scheme() == "https" {
        let name =
            target.url.host_str().and_then(|host| rustls::pki_types::ServerName::try_from(host.to_owned()).ok()).ok_or(Error::Internal)?;
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&upstreams.tls));
        let tls = timeout(CONNECT, connector.connect(name, tcp)).await.ok().and_then(Result::ok).ok_or_else(|| bad("cannot be trusted"))?;
        Box::new(tls)
    } else {
        Box::new(tcp)
    };
    let mut head = ours.clone();
    headers::for_app(request.headers(), &mut head);
    let head = handshake(uri, &head);
    let answered = timeout(HANDSHAKE, async {
        wire.write_all(&head).await.ok()?;
        read_head(&mut wire).await
    });
    let (status, answer, early) = answered.await.ok().flatten().ok_or_else(|| bad("broke off"))?;
    if status != StatusCode::SWITCHING_PROTOCOLS {
        tracing::warn!(content = %ticket.content, status = status.as_u16(), "an app refused a WebSocket");
        let mut response =
            HttpResponse::new(if status.is_server_error() || status.is_client_error() { status } else { StatusCode::BAD_GATEWAY });
        response.extensions_mut().insert(FromContent);
        return Ok(response);
    }
    let mut response = HttpResponse::build(StatusCode::SWITCHING_PROTOCOLS);
    copy_answer(&mut response, &answer, target, place);
    let (end, ended) = watch::channel(false);
    let (from_app, mut to_app) = tokio::io::split(wire);
    let service = Arc::clone(service);
    let held = ours.get(headers::SESSION_TOKEN).and_then(|token| token.to_str().ok()).map(|token| service.hold_token(token));
    actix_web::rt::spawn(async move {
        let _held = held;
        let mut payload = payload;
        let mut recheck = tokio::time::interval(RECHECK);
        let mut closed = end.subscribe();
        loop {
            tokio::select! {
                chunk = payload.next() => match chunk {
                    Some(Ok(bytes)) => if to_app.write_all(&bytes).await.is_err() { break },
                    _ => break,
                },
                _ = recheck.tick() => if end.receiver_count() < 2 || !ticket.holds(&service).await { break },
                _ = closed.changed() => break,
            }
        }
        // Ends the other direction, too; whoever is gone does not hear it.
        let _ = end.send(true);
        drop(to_app.shutdown().await);
    });
    let body = stream::unfold((from_app, ended, Some(early)), |(mut reader, mut ended, early)| async move {
        if let Some(bytes) = early.filter(|bytes| !bytes.is_empty()) {
            return Some((Ok::<_, std::io::Error>(web::Bytes::from(bytes)), (reader, ended, None)));
        }
        let mut buffer = web::BytesMut::with_capacity(16 * 1024);
        let read = {
            let reading = std::pin::pin!(reader.read_buf(&mut buffer));
            let stopping = std::pin::pin!(ended.changed());
            match futures_util::future::select(reading, stopping).await {
                Either::Left((read, _)) => read.unwrap_or(0),
                Either::Right(_) => 0,
            }
        };
        (read > 0).then(|| (Ok(buffer.freeze()), (reader, ended, None)))
    });
    let mut response = response.upgrade("websocket").streaming(body);
    response.extensions_mut().insert(FromContent);
    Ok(response)
}

fn handshake(uri: &Uri, head: &HeaderMap) -> Vec<u8> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = format!("GET {path} HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n").into_bytes();
    for (name, value) in head {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            request.extend_from_slice(part);
        }
    }
    request.extend_from_slice(b"\r\n");
    request
}

/// Reads the head of the app's answer, and what came right behind it.
async fn read_head(wire: &mut (impl AsyncRead + Unpin)) -> Option<(StatusCode, HeaderMap, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let read = wire.read(&mut chunk).await.ok()?;
        if read == 0 || bytes.len() + read > LARGEST_HEAD {
            return None;
        }
        bytes.extend_from_slice(chunk.get(..read)?);
        let mut fields = [httparse::EMPTY_HEADER; 96];
        let mut answer = httparse::Response::new(&mut fields);
        if let httparse::Status::Complete(length) = answer.parse(&bytes).ok()? {
            let status = StatusCode::from_u16(answer.code?).ok()?;
            let mut headers = HeaderMap::new();
            for field in answer.headers.iter() {
                headers.append(HeaderName::from_bytes(field.name.as_bytes()).ok()?, HeaderValue::from_bytes(field.value).ok()?);
            }
            let early = bytes.split_off(length);
            return Some((status, headers, early));
        }
    }
}
