//! HTTP/2 at the front, with a client that shows its frames' effects: what a browser's streams mean
//! to apps.

use crate::{
    harness::Served,
    stage::{SOON, app, says, until},
};
use bytes::Bytes;
use h2::{
    Reason,
    client::{Connection, ResponseFuture, SendRequest},
};
use http::Request;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde_json::json;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// A portal with TLS, and one item that is open to anyone.
struct Front {
    served: Served,
    certificate: String,
    place: String,
    folder: std::path::PathBuf,
}

impl Front {
    async fn before(app: &str) -> Self {
        let made = rcgen::generate_simple_self_signed(vec![
            "localhost".to_owned(),
            "127.0.0.1".to_owned(),
        ])
        .expect("a certificate");
        let folder = std::env::temp_dir().join(format!("valetkey-h2-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let (chain, key) = (folder.join("chain.pem"), folder.join("key.pem"));
        std::fs::write(&chain, made.cert.pem()).expect("a chain");
        std::fs::write(&key, made.signing_key.serialize_pem()).expect("a key");
        let served = Served::start_tls(&chain.to_string_lossy(), &key.to_string_lossy()).await;
        let certificate = made.cert.pem();
        let client = reqwest::Client::builder()
            .tls_certs_only([
                reqwest::Certificate::from_pem(certificate.as_bytes()).expect("a certificate")
            ])
            .build()
            .expect("a client");
        let api = format!(
            "https://localhost:{}/__api__/v1/content",
            served.address.port()
        );
        let body = json!({"name": "open", "access_type": "all", "upstream_url": app}).to_string();
        let key = format!("Key {}", served.administrator("ada"));
        let made = client
            .post(&api)
            .header("authorization", key)
            .body(body)
            .send()
            .await
            .expect("an answer");
        let made: serde_json::Value =
            serde_json::from_str(&made.text().await.expect("a body")).expect("JSON");
        let place = format!(
            "https://127.0.0.1:{}/content/{}/",
            served.address.port(),
            made["guid"].as_str().expect("a guid")
        );
        Self {
            served,
            certificate,
            place,
            folder,
        }
    }

    /// A connection; the task ends with it.
    async fn connect(
        &self,
    ) -> (
        SendRequest<Bytes>,
        tokio::task::JoinHandle<Result<(), h2::Error>>,
    ) {
        let (send, connection) = self.open().await;
        (send, tokio::spawn(connection))
    }

    /// A connection that does nothing by itself.
    async fn open(&self) -> (SendRequest<Bytes>, Connection<TlsStream<TcpStream>, Bytes>) {
        h2::client::handshake(self.tls(b"h2").await)
            .await
            .expect("HTTP/2")
    }

    /// Bytes over TLS, with this protocol agreed on.
    async fn tls(&self, protocol: &[u8]) -> TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(
                CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("a certificate"),
            )
            .expect("a root");
        let mut config = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        let tcp = TcpStream::connect(self.served.address)
            .await
            .expect("a connection");
        let name = ServerName::try_from("localhost").expect("a name");
        TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await
            .expect("a handshake")
    }

    async fn get(
        &self,
        send: &SendRequest<Bytes>,
        path: &str,
        fields: &[(&'static str, &'static str)],
    ) -> ResponseFuture {
        let mut request = Request::get(format!("{}{path}", self.place));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let mut send = send.clone().ready().await.expect("room for a stream");
        send.send_request(request.body(()).expect("a request"), true)
            .expect("it is sent")
            .0
    }

    fn end(self) {
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_given_up_ends_at_its_app_and_a_broken_one_is_cut() {
    let open = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&open);
    let app = app(move |mut socket, _| {
        let open = Arc::clone(&counted);
        async move {
            let head = until(&mut socket, "\r\n\r\n").await;
            open.fetch_add(1, Ordering::SeqCst);
            let _ = match head.split(' ').nth(1).unwrap_or("") {
                "/broken" => {
                    socket
                        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
                        .await
                }
                "/quiet" => socket
                    .write_all(
                        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n",
                    )
                    .await,
                _ => Ok(()),
            };
            if !head.starts_with("GET /broken") {
                // Until the portal hangs up.
                while socket.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {}
            }
            open.fetch_sub(1, Ordering::SeqCst);
        }
    })
    .await;
    let front = Front::before(&app).await;
    let (send, connection) = front.connect().await;
    let gone = async |what: &str| {
        let since = Instant::now();
        while open.load(Ordering::SeqCst) > 0 {
            assert!(
                since.elapsed() < Duration::from_secs(3),
                "{what}: the app still works for nobody"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let begun = async |count: usize| {
        while open.load(Ordering::SeqCst) < count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // Given up before the app said anything.
    let thinking = front.get(&send, "slow", &[]).await;
    timeout(SOON, begun(1)).await.expect("the app has it");
    drop(thinking);
    gone("no answer yet").await;
    // Given up in the middle of a stream that says nothing.
    let answer = timeout(SOON, front.get(&send, "quiet", &[]).await)
        .await
        .expect("in time")
        .expect("an answer");
    let mut body = answer.into_body();
    assert_eq!(
        timeout(SOON, body.data())
            .await
            .expect("in time")
            .expect("a piece")
            .expect("good"),
        "data: 1\n\n"
    );
    drop(body);
    gone("a quiet stream").await;
    // Cut, and never a short success; the other streams of the connection go on. What came before
    // the cut may be lost with it.
    let cut = async {
        let mut body = front.get(&send, "broken", &[]).await.await?.into_body();
        while let Some(piece) = body.data().await {
            assert_eq!(piece?, "half");
        }
        Ok(())
    };
    let cut: Result<(), h2::Error> = timeout(SOON, cut).await.expect("in time");
    assert_eq!(
        cut.expect_err("it is not whole").reason(),
        Some(Reason::CANCEL)
    );
    // The whole connection is gone.
    let _quiet = timeout(SOON, front.get(&send, "quiet", &[]).await)
        .await
        .expect("in time")
        .expect("an answer");
    connection.abort();
    gone("a connection that broke").await;
    front.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_behind_a_body_come_behind_it_and_bodies_go_up_in_pieces() {
    let (app, heads) = says(
        b"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: abc\r\nSet-Cookie: valetkey=x\r\n\r\n",
    )
    .await;
    let front = Front::before(&app).await;
    let (send, _connection) = front.connect().await;
    for (fields, wanted) in [(&[("te", "trailers")][..], Some("abc")), (&[], None)] {
        let answer = timeout(SOON, front.get(&send, "", fields).await)
            .await
            .expect("in time")
            .expect("an answer");
        assert!(
            answer.headers().get("transfer-encoding").is_none()
                && answer.headers().get("date").is_some(),
            "{answer:?}"
        );
        let mut body = answer.into_body();
        let mut got = Vec::new();
        while let Some(piece) = timeout(SOON, body.data()).await.expect("in time") {
            got.extend_from_slice(&piece.expect("good"));
        }
        assert_eq!(got, b"hello");
        let trailers = body.trailers().await.expect("good");
        assert_eq!(
            trailers
                .as_ref()
                .and_then(|fields| fields.get("x-sum"))
                .map(|value| value.as_bytes()),
            wanted.map(str::as_bytes)
        );
        assert!(trailers.is_none_or(|fields| fields.get("set-cookie").is_none()));
    }
    // A body without a length, and a head without a body.
    let post = Request::post(format!("{}up", front.place))
        .body(())
        .expect("a request");
    let (answer, mut upload) = send
        .clone()
        .ready()
        .await
        .expect("room")
        .send_request(post, false)
        .expect("it is sent");
    upload
        .send_data(Bytes::from_static(b"x=1"), true)
        .expect("a piece");
    assert_eq!(
        timeout(SOON, answer)
            .await
            .expect("in time")
            .expect("an answer")
            .status(),
        200
    );
    assert!(heads.lock().expect("heads").iter().any(|head| head.starts_with("POST /up") && head.contains("transfer-encoding: chunked")));
    let head = Request::head(front.place.clone())
        .body(())
        .expect("a request");
    let answer = send
        .clone()
        .ready()
        .await
        .expect("room")
        .send_request(head, true)
        .expect("it is sent")
        .0;
    let answer = timeout(SOON, answer)
        .await
        .expect("in time")
        .expect("an answer");
    assert!(answer.status() == 200 && answer.into_body().is_end_stream());
    front.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_streams_finish_and_waits_for_no_idle_browser() {
    let slow = app(|mut socket, _| async move {
        until(&mut socket, "\r\n\r\n").await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let _ = socket
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")
            .await;
        while socket.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {}
    })
    .await;
    let mut front = Front::before(&slow).await;
    let (idle, _idle_connection) = front.connect().await;
    let (busy, _busy_connection) = front.connect().await;
    let ping = Request::get(format!(
        "https://localhost:{}/__ping__",
        front.served.address.port()
    ))
    .body(())
    .expect("a request");
    let pong = idle
        .clone()
        .ready()
        .await
        .expect("room")
        .send_request(ping, true)
        .expect("it is sent")
        .0;
    assert_eq!(
        timeout(SOON, pong)
            .await
            .expect("in time")
            .expect("an answer")
            .status(),
        200
    );
    let answer = front.get(&busy, "", &[]).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let since = Instant::now();
    let stopping = tokio::task::spawn_blocking(move || (front.served.terminate(), front));
    let answer = timeout(SOON, answer)
        .await
        .expect("in time")
        .expect("it finishes");
    let mut body = answer.into_body();
    assert_eq!(
        timeout(SOON, body.data())
            .await
            .expect("in time")
            .expect("a piece")
            .expect("good"),
        "late"
    );
    let (code, front) = timeout(Duration::from_secs(20), stopping)
        .await
        .expect("it ends soon")
        .expect("an end");
    assert_eq!(code, Some(0));
    assert!(
        since.elapsed() < Duration::from_secs(6),
        "{:?}",
        since.elapsed()
    );
    front.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_a_browser_that_sleeps() {
    let (app, _) = says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let mut front = Front::before(&app).await;
    // It says hello, asks for something, and then does nothing any more; its socket stays open.
    let (send, mut connection) = front.open().await;
    let answer = front.get(&send, "", &[]).await;
    let answer = async {
        tokio::select! { answer = answer => answer, _ = &mut connection => unreachable!("it stays") }
    };
    assert_eq!(
        timeout(SOON, answer)
            .await
            .expect("in time")
            .expect("an answer")
            .status(),
        200
    );
    let since = Instant::now();
    let (code, front) = tokio::task::spawn_blocking(move || (front.served.terminate(), front))
        .await
        .expect("an end");
    assert_eq!(code, Some(0));
    assert!(
        since.elapsed() < Duration::from_secs(12),
        "{:?}",
        since.elapsed()
    );
    drop(connection);
    front.end();
}

/// A frame: type, flags, stream, payload (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// What the portal says to raw frames after a good beginning: the frames' types, with the error
/// codes of GOAWAY and RST_STREAM.
async fn says_to(front: &Front, frames: &[u8]) -> Vec<(u8, Option<u32>)> {
    let mut tls = front.tls(b"h2").await;
    let beginning = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(),
        &frame(4, 0, 0, &[]),
        frames,
    ]
    .concat();
    let mut heard = Vec::new();
    // Whoever is cut off early cannot send all of it.
    let _ = timeout(SOON, tls.write_all(&beginning)).await;
    let _ = tls.flush().await;
    let reading = async {
        let mut head = [0; 9];
        while tls.read_exact(&mut head).await.is_ok() {
            let mut payload =
                vec![
                    0;
                    usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])
                ];
            if tls.read_exact(&mut payload).await.is_err() {
                break;
            }
            let code = match head[3] {
                3 => payload.first_chunk().map(|code| u32::from_be_bytes(*code)),
                7 => payload
                    .get(4..8)
                    .and_then(|code| code.first_chunk())
                    .map(|code| u32::from_be_bytes(*code)),
                _ => None,
            };
            heard.push((head[3], code));
            // An error, or the end of an answer.
            if code.is_some_and(|code| code != 0) || (head[3] < 2 && head[4] & 1 == 1) {
                break;
            }
        }
    };
    let _ = timeout(Duration::from_secs(3), reading).await;
    heard
}

/// The cases of h2spec that matter most to whoever stands in front: it is in none of the
/// registries.
#[tokio::test(flavor = "multi_thread")]
async fn frames_that_break_the_rules_end_their_connection_and_no_other() {
    let (app, heads) = says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let front = Front::before(&app).await;
    let authority = format!("127.0.0.1:{}", front.served.address.port());
    let path = front
        .place
        .split_once(&authority)
        .expect("a path")
        .1
        .to_owned();
    // Literal fields without indexing (RFC 7541 section 6.2.2).
    let field = |name: &str, value: &str| {
        let length = |text: &str| {
            let long = text.len();
            if long < 127 {
                vec![u8::try_from(long).expect("short")]
            } else {
                vec![127, u8::try_from(long - 127).expect("short")]
            }
        };
        [
            vec![0],
            length(name),
            name.as_bytes().to_vec(),
            length(value),
            value.as_bytes().to_vec(),
        ]
        .concat()
    };
    let pseudo = [
        field(":method", "GET"),
        field(":scheme", "https"),
        field(":authority", &authority),
        field(":path", &path),
    ]
    .concat();
    let get = |stream: u32, more: &[u8]| frame(1, 5, stream, &[&pseudo, more].concat());
    // Good ones, first and last.
    let answered = |heard: &[(u8, Option<u32>)]| {
        heard.iter().any(|(kind, _)| *kind == 1) && !heard.iter().any(|(_, code)| code.is_some())
    };
    let heard = says_to(&front, &get(1, &[])).await;
    assert!(answered(&heard), "{heard:?}");
    let heard = says_to(
        &front,
        &[
            frame(6, 0, 0, b"12345678"),
            frame(0xee, 0, 0, b"unknown"),
            frame(2, 0, 1, &[0, 0, 0, 0, 1]),
            get(1, &[]),
        ]
        .concat(),
    )
    .await;
    assert!(
        answered(&heard) && heard.iter().any(|(kind, _)| *kind == 6),
        "ping, unknown and priority: {heard:?}"
    );
    for (what, frames) in [
        ("data on stream 0", frame(0, 0, 0, b"x")),
        ("data on an idle stream", frame(0, 0, 1, b"x")),
        ("a head on an even stream", get(2, &[])),
        ("a head on stream 0", get(0, &[])),
        ("settings on a stream", frame(4, 0, 1, &[])),
        ("settings of a wrong length", frame(4, 0, 0, &[0; 5])),
        (
            "an answer to settings with a payload",
            frame(4, 1, 0, &[0; 6]),
        ),
        (
            "a window of more than may be",
            frame(4, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff]),
        ),
        ("a ping of a wrong length", frame(6, 0, 0, &[0; 7])),
        ("a ping on a stream", frame(6, 0, 1, &[0; 8])),
        ("no more window", frame(8, 0, 0, &[0; 4])),
        ("a frame that is too large", frame(0, 0, 1, &[0; 16_385])),
        ("a promise by a client", frame(5, 4, 1, &[0, 0, 0, 2])),
        ("a continuation of nothing", frame(9, 4, 1, &[])),
        (
            "something between the parts of a head",
            [frame(1, 1, 1, &pseudo), frame(6, 0, 0, &[0; 8])].concat(),
        ),
        (
            "a head that cannot be unpacked",
            frame(1, 5, 1, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ),
        (
            "a stream that depends on itself",
            [frame(2, 0, 1, &[0, 0, 0, 1, 1]), get(1, &[])].concat(),
        ),
        ("a capital in a name", get(1, &field("X-Big", "1"))),
        (
            "a field of a connection",
            get(1, &field("connection", "close")),
        ),
        (
            "a pseudo field behind others",
            get(1, &[field("x", "1"), field(":path", "/")].concat()),
        ),
        ("two paths", get(1, &field(":path", "/other"))),
        (
            "no path",
            frame(
                1,
                5,
                1,
                &[field(":method", "GET"), field(":scheme", "https")].concat(),
            ),
        ),
        ("te that is not trailers", get(1, &field("te", "gzip"))),
        (
            "a body shorter than it says",
            [
                frame(
                    1,
                    4,
                    1,
                    &[
                        field(":method", "POST"),
                        pseudo[field(":method", "GET").len()..].to_vec(),
                        field("content-length", "5"),
                    ]
                    .concat(),
                ),
                frame(0, 1, 1, b"xx"),
            ]
            .concat(),
        ),
        (
            "a body longer than it says",
            [
                frame(
                    1,
                    4,
                    1,
                    &[
                        field(":method", "POST"),
                        pseudo[field(":method", "GET").len()..].to_vec(),
                        field("content-length", "1"),
                    ]
                    .concat(),
                ),
                frame(0, 1, 1, b"xx"),
            ]
            .concat(),
        ),
    ] {
        let before = heads.lock().expect("heads").len();
        let heard = says_to(&front, &frames).await;
        // With a code of its stream's or its connection's, or cut off.
        let refused = heard
            .iter()
            .any(|(kind, code)| matches!(kind, 3 | 7) && *code != Some(0));
        assert!(
            refused || !heard.iter().any(|(kind, _)| *kind == 1),
            "{what}: {heard:?}"
        );
        let asked = heads.lock().expect("heads")[before..]
            .iter()
            .filter(|head| head.starts_with("GET"))
            .count();
        assert_eq!(asked, 0, "{what}: no app hears of it");
    }
    // A head without an end.
    let endless = [
        frame(1, 1, 1, &pseudo),
        frame(9, 0, 1, &field("x", &"y".repeat(200))).repeat(2000),
    ]
    .concat();
    let heard = says_to(&front, &endless).await;
    assert!(!answered(&heard), "{heard:?}");
    // Streams opened and given up without a pause.
    let storm: Vec<u8> = (0..4000_u32)
        .flat_map(|number| {
            [
                get(2 * number + 1, &[]),
                frame(3, 0, 2 * number + 1, &[0, 0, 0, 8]),
            ]
            .concat()
        })
        .collect();
    let heard = says_to(&front, &storm).await;
    assert!(
        heard
            .iter()
            .any(|(kind, code)| *kind == 7 && *code == Some(11))
            || heard.is_empty(),
        "enhance your calm: {heard:?}"
    );
    let heard = says_to(&front, &get(1, &[])).await;
    assert!(
        answered(&heard),
        "and the next browser is served: {heard:?}"
    );
    front.end();
}

/// Streams that are given up after their response began count as well: each cost an app a request.
#[tokio::test(flavor = "multi_thread")]
async fn responses_that_are_given_up_again_and_again_end_their_connection_and_no_other() {
    let (app, _) = says(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nok").await;
    let front = Front::before(&app).await;
    let (send, connection) = front.connect().await;
    // The count begins anew each minute: a busy machine needs more of them.
    for _ in 0..20_000 {
        let request = Request::get(&front.place).body(()).expect("a request");
        let Ok(mut ready) = send.clone().ready().await else {
            break;
        };
        let Ok((response, _)) = ready.send_request(request, true) else {
            break;
        };
        // The head has come: dropping the body resets the stream.
        match timeout(SOON, response).await {
            Ok(Ok(response)) => assert_eq!(response.status(), 200),
            Ok(Err(_)) => break,
            Err(_) => panic!("no response"),
        }
    }
    drop(send);
    let ended = timeout(SOON, connection)
        .await
        .expect("the connection ends")
        .expect("no panic")
        .expect_err("by an error");
    assert_eq!(ended.reason(), Some(Reason::ENHANCE_YOUR_CALM), "{ended}");
    let (mut other, _) = front.connect().await;
    let request = Request::get(&front.place).body(()).expect("a request");
    let (response, _) = other.send_request(request, true).expect("sent");
    let response = timeout(SOON, response)
        .await
        .expect("soon")
        .expect("an answer");
    assert_eq!(response.status(), 200, "the next browser is served");
    front.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn websockets_pass_over_tls() {
    let app = app(|mut socket, _| async move {
        until(&mut socket, "\r\n\r\n").await;
        let accepted = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n";
        let _ = socket.write_all(accepted.as_bytes()).await;
        let (mut read, mut write) = socket.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await;
    let front = Front::before(&app).await;
    let mut tls = front.tls(b"http/1.1").await;
    let (origin, path) = front.place.split_once("/content").expect("a path");
    let request = format!(
        "GET /content{path}ws HTTP/1.1\r\nHost: {}\r\nOrigin: {origin}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n\r\n",
        origin.trim_start_matches("https://")
    );
    tls.write_all(request.as_bytes()).await.expect("a request");
    tls.flush().await.expect("sent");
    let head = until(&mut tls, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    // Small ones, which wait for nothing, and one that fills every buffer on the way.
    for size in [1, 5, 64, 70_000, 3_000_000] {
        let sent = vec![b'x'; size];
        let mut back = vec![0; size];
        let (mut read, mut write) = tokio::io::split(&mut tls);
        let (wrote, read) = timeout(SOON, async {
            tokio::join!(
                async {
                    write.write_all(&sent).await?;
                    write.flush().await
                },
                read.read_exact(&mut back)
            )
        })
        .await
        .unwrap_or_else(|_| panic!("{size} bytes do not come back"));
        wrote.expect("sent");
        read.expect("everything");
        assert!(back == sent, "{size}");
    }
    front.end();
}
