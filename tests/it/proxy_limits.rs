//! The proxy against clients and apps that stop half-way, contradict themselves, or do several
//! things at once.

use crate::{
    harness::{Served, connect_from, raw, within},
    stage::{SOON, Stage, app, says, socket, socket_app, until},
};
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

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test(flavor = "multi_thread")]
async fn p46_half_a_head_after_the_first_request_ends_its_connection() {
    let stage = Stage::new().await;
    let (address, _) = says(OK).await;
    stage.behind(&address).await;
    // Alone, behind a whole request in one piece, and after a pause.
    for (together, pause) in [(false, 0), (true, 0), (false, 2)] {
        let mut client = stage.connect().await;
        let whole = format!("{}\r\n", stage.head("GET", "", ""));
        let half = "GET /half HTTP/1.1\r\nHost: exa";
        let first = if together {
            format!("{whole}{half}")
        } else {
            whole
        };
        client.write_all(first.as_bytes()).await.expect("sent");
        let answer = until(&mut client, "\r\n\r\nok").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        if together {
            // Its deadline is that of keep-alive and a little more: not waited for here.
            continue;
        }
        tokio::time::sleep(Duration::from_secs(pause)).await;
        client.write_all(half.as_bytes()).await.expect("sent");
        let started = Instant::now();
        let mut rest = Vec::new();
        let ended = timeout(Duration::from_secs(25), client.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "the connection was still open after 25 s");
        assert!(started.elapsed() > Duration::from_secs(8), "{started:?}");
        assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    }
    // A response that takes longer than the deadline is not cut, nor is the connection after it.
    let slow = app(|mut socket, _| async move {
        loop {
            if until(&mut socket, "\r\n\r\n").await.is_empty() {
                return;
            }
            let head = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok";
            let _ = socket.write_all(head).await;
            tokio::time::sleep(Duration::from_secs(12)).await;
            let _ = socket.write_all(b"ok").await;
        }
    })
    .await;
    stage.behind(&slow).await;
    let mut client = stage.connect().await;
    for _ in 0..2 {
        let whole = format!("{}\r\n", stage.head("GET", "", ""));
        client.write_all(whole.as_bytes()).await.expect("sent");
        let reading = timeout(Duration::from_secs(25), async {
            let mut got = Vec::new();
            while !got.ends_with(b"\r\n\r\nokok") {
                let byte = client.read_u8().await.expect("more of the response");
                got.push(byte);
            }
        });
        assert!(reading.await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_chunk_is_the_clients_error_and_its_head_stays_here() {
    let stage = Stage::new().await;
    let (address, heads) = says(OK).await;
    stage.behind(&address).await;
    let chunked = "Transfer-Encoding: chunked\r\n";
    for body in [
        "xyz\r\nhello\r\n",
        "5\r\nhelloooo\r\n0\r\n\r\n",
        "-1\r\n\r\n",
    ] {
        let head = format!("{}{chunked}\r\n{body}", stage.head("POST", "", ""));
        let answer = raw(&stage.world.portal, head.as_bytes(), SOON).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{body:?}: {answer}");
        // The first chunk of the second one is well-formed: the app may have got its head.
        if !body.starts_with('5') {
            assert!(heads.lock().expect("heads").is_empty(), "{body:?}");
        }
    }
    // Later, when the head has been sent.
    let mut client = stage.connect().await;
    let sent = heads.lock().expect("heads").len();
    let head = format!("{}{chunked}\r\n5\r\nhello\r\n", stage.head("POST", "", ""));
    let app = app(|mut socket, _| async move {
        until(&mut socket, "hello\r\n").await;
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest).await;
    })
    .await;
    stage.behind(&app).await;
    client.write_all(head.as_bytes()).await.expect("sent");
    tokio::time::sleep(Duration::from_millis(300)).await;
    client.write_all(b"nonsense\r\n").await.expect("sent");
    let answer = until(&mut client, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(heads.lock().expect("heads").len(), sent);
    // It says nothing about the app.
    let (address, _) = says(OK).await;
    stage.behind(&address).await;
    let whole = stage.ask("POST", "", chunked, "2\r\nhi\r\n0\r\n\r\n").await;
    assert!(whole.starts_with("HTTP/1.1 200"), "{whole}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeatable_request_moves_on_when_its_process_has_gone() {
    let stage = Stage::new().await;
    // Answers once, keeps the connection open for the pool, and dies with the next request.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let dying = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.expect("a connection");
        drop(listener);
        until(&mut socket, "\r\n\r\n").await;
        let _ = socket.write_all(OK).await;
        until(&mut socket, "\r\n\r\n").await;
    });
    stage.behind(&dying).await;
    let first = stage.ask("GET", "", "", "").await;
    assert!(first.starts_with("HTTP/1.1 200"), "{first}");
    let (other, _) = says(OK).await;
    let processes = json!([{"url": dying}, {"url": other}]);
    stage.set(json!({"proxy": {"processes": processes}})).await;
    for _ in 0..4 {
        let next = stage.ask("GET", "", "", "").await;
        assert!(next.starts_with("HTTP/1.1 200"), "{next}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_while_its_client_reads_nothing() {
    const SIZE: usize = 24 << 20;
    let stage = Stage::new().await;
    let received = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&received);
    // Answers at once, with as much as it gets.
    let app = app(move |mut socket, _| {
        let counted = Arc::clone(&counted);
        async move {
            until(&mut socket, "\r\n\r\n").await;
            let (mut read, mut write) = socket.split();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
            let answering = async {
                let _ = write.write_all(head.as_bytes()).await;
                let _ = write.write_all(&vec![b'a'; SIZE]).await;
            };
            let reading = async {
                let mut buffer = vec![0; 65536];
                while counted.load(Ordering::SeqCst) < SIZE {
                    match read.read(&mut buffer).await {
                        Ok(read @ 1..) => counted.fetch_add(read, Ordering::SeqCst),
                        _ => return,
                    };
                }
            };
            tokio::join!(answering, reading);
        }
    })
    .await;
    stage.behind(&app).await;
    let mut client = stage.connect().await;
    let length = format!("Content-Length: {SIZE}\r\nConnection: close\r\n\r\n");
    let head = stage.head("POST", "", &length);
    let sending = async {
        client.write_all(head.as_bytes()).await.expect("the head");
        client.write_all(&vec![b'u'; SIZE]).await.expect("the body");
    };
    assert!(
        timeout(Duration::from_secs(30), sending).await.is_ok(),
        "the upload stopped after {} bytes",
        received.load(Ordering::SeqCst)
    );
    let mut answer = Vec::new();
    let reading = client.read_to_end(&mut answer);
    within("the response", reading).await.expect("the response");
    assert!(answer.len() > SIZE, "{}", answer.len());
    assert_eq!(received.load(Ordering::SeqCst), SIZE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_name_that_is_too_long_is_refused() {
    let stage = Stage::new().await;
    let name = "x".repeat(66_000);
    let request = format!("GET / HTTP/1.1\r\nHost: x\r\n{name}: 1\r\nConnection: close\r\n\r\n");
    let answer = raw(&stage.world.portal, request.as_bytes(), SOON).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    // Also behind a request with a body.
    let host = stage.world.portal.trim_start_matches("http://");
    let first = format!("POST /login HTTP/1.1\r\nHost: {host}\r\nContent-Length: 2\r\n\r\nhi");
    let answers = raw(
        &stage.world.portal,
        format!("{first}{request}").as_bytes(),
        SOON,
    )
    .await;
    assert!(answers.contains("HTTP/1.1 431"), "{answers}");
    let again = stage.world.signed_in("vera").await.get("/content").await;
    assert_eq!(again.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_to_everyone_is_decided_from_cache() {
    let stage = Stage::new().await;
    let (address, _) = says(OK).await;
    stage.behind(&address).await;
    let path = format!("v1/content/{}/oauth/integrations/associations", stage.guid);
    let key = stage.world.key("bo");
    let none = stage.world.api(&key, "PUT", &path, "[]").await;
    assert_eq!(none.status, 204, "{}", none.body);
    stage.set(json!({"access_type": "all"})).await;
    let anonymous = || async {
        let (host, path) = stage
            .place
            .trim_start_matches("http://")
            .split_once('/')
            .expect("a path");
        let request = format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        raw(&stage.world.portal, request.as_bytes(), SOON).await
    };
    assert!(anonymous().await.starts_with("HTTP/1.1 200"));
    // A change that no process is told of: the cache does not see it.
    let closed = format!(
        "UPDATE content SET access = 'acl' WHERE guid = '{}'",
        stage.guid
    );
    stage.world.sql_unnoticed(&closed);
    assert!(anonymous().await.starts_with("HTTP/1.1 200"));
    stage.set(json!({"access_type": "logged_in"})).await;
    let refused = anonymous().await;
    assert!(!refused.starts_with("HTTP/1.1 200"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn cookies_of_eighty_items_fit_into_four_kibibytes() {
    let stage = Stage::new().await;
    let (one, _) = says(OK).await;
    let (two, _) = says(OK).await;
    let processes = json!([{"url": one}, {"url": two}]);
    stage.set(json!({"proxy": {"processes": processes}})).await;
    stage.vera.get(&stage.place).await;
    // What the browser sends to all items of the shared host.
    let (origin, _) = stage.place.split_once("/content/").expect("a path");
    let cookies = stage.vera.cookies_of(&format!("{origin}/"));
    let length: usize = cookies
        .iter()
        .filter(|(name, _)| name.starts_with("valetkey-s"))
        .map(|(name, value)| "__Host-".len() + name.len() + value.len() + "=; ".len())
        .sum();
    // The nonce of the way from the portal lives for two minutes, and the process is said only to
    // its own item.
    assert!(length > 0 && length * 80 < 4096, "{length}: {cookies:?}");
    let session = cookies
        .iter()
        .find(|(name, _)| name.starts_with("valetkey-s"))
        .map(|(name, value)| format!("{name}={value}"));
    let header = session.expect("a session");
    let fresh = crate::harness::Browser::new(&stage.world.portal);
    let answer = fresh
        .send("GET", &stage.place, &[("cookie", &header)], None)
        .await;
    let said = answer.header("set-cookie");
    let path = format!("Path=/content/{}/", stage.guid);
    assert!(
        said.starts_with("valetkey-p") && said.contains(&path),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_cookies_are_refused_also_in_a_handshake() {
    let stage = Stage::new().await;
    let (address, heads) = socket_app(b"").await;
    stage.behind(&address).await;
    let odd = |count: usize| {
        let pairs: Vec<_> = (0..count).map(|number| format!("c{number}=1")).collect();
        format!("Cookie: {}\r\n", pairs.join("; "))
    };
    let (head, _) = socket(&stage, &stage.vera, &odd(390)).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    let (head, _) = socket(&stage, &stage.vera, &odd(400)).await;
    assert!(head.starts_with("HTTP/1.1 431"), "{head}");
    let mut client = stage.connect().await;
    let request = stage.head_of(&stage.vera, "GET", "", &odd(400));
    client
        .write_all(format!("{request}\r\n").as_bytes())
        .await
        .expect("a request");
    let head = until(&mut client, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 431"), "{head}");
    assert_eq!(heads.lock().expect("heads").len(), 1);
}

/// How many of `count` connections from this address of the machine are admitted: they are answered, and
/// stay open.
async fn admitted(from: &str, to: std::net::SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for _ in 0..count {
        let mut client = connect_from(from, to).await;
        let asked = b"GET /__ping__ HTTP/1.1\r\nHost: x\r\n\r\n";
        let _ = client.write_all(asked).await;
        let mut start = [0; 12];
        let read = timeout(SOON, client.read_exact(&mut start)).await;
        if read.expect("an answer or the end").is_ok() {
            assert_eq!(&start, b"HTTP/1.1 200");
            open.push(client);
        }
    }
    open
}

#[tokio::test(flavor = "multi_thread")]
async fn p46_connections_are_limited_by_address_and_in_total() {
    let mut served = Served::prepare(&[("VALETKEY_TRUSTED_PROXIES", "127.0.0.2/32")]);
    // A reserve of an eighth, and for each of 175 connections another one to an app.
    served.limit_files(400);
    served.restart().await;
    let to = served.address;
    let one = admitted("127.0.0.3", to, 100).await;
    assert_eq!(one.len(), 87, "half of the room");
    assert_eq!(admitted("127.0.0.4", to, 3).await.len(), 3, "another one");
    // A proxy speaks for many; what it has open is limited in total.
    let proxy = admitted("127.0.0.2", to, 100).await;
    assert_eq!(proxy.len(), 88);
    assert_eq!(admitted("127.0.0.2", to, 1).await.len(), 0);
    assert_eq!(admitted("127.0.0.1", to, 3).await.len(), 3, "the operator");
    drop(one);
    for _ in 0..50 {
        if admitted("127.0.0.2", to, 1).await.len() == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("what was closed leaves no room");
}

#[tokio::test(flavor = "multi_thread")]
async fn p46_tls_handshakes_that_are_only_begun_hold_up_no_other() {
    // All wait together, unless the machine is so busy that the deadline (5 s) of the first ends it.
    const BEGUN: usize = 1000;
    let served = Served::start_self_signed().await;
    let to = served.address;
    let url = format!("https://localhost:{}/__ping__", to.port());
    let client = reqwest::Client::builder()
        .tls_danger_accept_invalid_certs(true)
        .no_proxy()
        .build()
        .expect("a client");
    for _ in 0..5 {
        let begin = (0..BEGUN).map(|number| async move {
            // Each address may have 128.
            let from = format!("127.0.0.{}", 10 + number / 100);
            let mut client = connect_from(&from, to).await;
            // The head of a record with a ClientHello of 512 bytes.
            let _ = client.write_all(&[22, 3, 1, 2, 0, 1]).await;
            client
        });
        let begun = futures_util::future::join_all(begin).await;
        let waiting = begun.iter().filter(|client| {
            let read = client.try_read(&mut [0; 1]);
            read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
        });
        if waiting.count() > BEGUN * 9 / 10 {
            let started = Instant::now();
            let answer = client.get(&url).send().await.expect("an answer");
            assert_eq!(answer.status(), 200);
            let took = started.elapsed();
            assert!(took < Duration::from_secs(3), "{took:?}");
            return;
        }
    }
    panic!("they never waited together");
}

#[tokio::test(flavor = "multi_thread")]
async fn p46_the_kernel_asks_whether_a_silent_browser_is_still_there() {
    let stage = Stage::new().await;
    let client = stage.connect().await;
    let local = client.local_addr().expect("an address").port();
    let portal: u16 = stage
        .world
        .portal
        .rsplit(':')
        .next()
        .expect("a port")
        .parse()
        .expect("one");
    // The portal's end: `local remote state tx:rx timer:jiffies`; timer 2 is the keep-alive.
    let timer = || {
        let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel's table");
        let of_portal = table.lines().find_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let is_ours = fields.get(1)?.ends_with(&format!(":{portal:04X}"))
                && fields.get(2)?.ends_with(&format!(":{local:04X}"));
            is_ours.then(|| fields[5].to_owned())
        });
        of_portal.unwrap_or_default()
    };
    for _ in 0..50 {
        if timer().starts_with("02:") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{}", timer());
}

#[tokio::test(flavor = "multi_thread")]
async fn null_for_an_address_changes_nothing() {
    let stage = Stage::new().await;
    let (one, _) = says(OK).await;
    let (two, _) = says(OK).await;
    let processes = json!([{"url": one}, {"url": two}]);
    stage.set(json!({"proxy": {"processes": processes}})).await;
    let path = format!("v1/content/{}", stage.guid);
    let key = stage.world.key("bo");
    let read = stage.world.api(&key, "GET", &path, "").await.json();
    stage
        .set(json!({"title": "new", "upstream_url": null}))
        .await;
    let after = stage.world.api(&key, "GET", &path, "").await.json();
    assert_eq!(after["proxy"]["processes"], read["proxy"]["processes"]);
    stage.set(json!({"upstream_url": ""})).await;
    let after = stage.world.api(&key, "GET", &path, "").await.json();
    assert_eq!(after["proxy"]["processes"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_that_reconnect_together_hold_up_no_write() {
    const SOCKETS: usize = 2000;
    let stage = Arc::new(Stage::new().await);
    // Eight ids each, as Streamlit sends one.
    let greeting: &'static str = Box::leak(
        (0..8)
            .map(|_| uuid::Uuid::new_v4().to_string())
            .collect::<Vec<_>>()
            .join(" ")
            .into_boxed_str(),
    );
    let (address, _) = socket_app(greeting.as_bytes()).await;
    stage.behind(&address).await;
    let offers = "Sec-WebSocket-Protocol: streamlit, token\r\n";
    let opening = async {
        let all = (0..SOCKETS).map(|_| socket(&stage, &stage.vera, offers));
        futures_util::future::join_all(all).await
    };
    let editing = async || {
        let (key, mut longest) = (stage.world.key("ada"), Duration::ZERO);
        for number in 0..10 {
            let path = format!("v1/content/{}", stage.world.content(1));
            let body = json!({"title": format!("title {number}")}).to_string();
            let asked = Instant::now();
            let edited = stage.world.api(&key, "PATCH", &path, &body).await;
            assert_eq!(edited.status, 200, "{}", edited.body);
            longest = longest.max(asked.elapsed());
        }
        longest
    };
    // What the machine does besides, it does before, too.
    let alone = editing().await;
    let (opened, longest) = tokio::join!(opening, editing());
    assert!(
        opened
            .iter()
            .all(|(head, _)| head.starts_with("HTTP/1.1 101"))
    );
    // A second, and what the machine needs for so many handshakes in a program that is not optimised:
    // the edit waits for its turn among them. Were they written one by one, it would be far more.
    assert!(
        longest < Duration::from_secs(5) + 10 * alone,
        "{longest:?}, without sockets {alone:?}"
    );
    let count = || {
        let rows = "SELECT CAST(count(*) AS TEXT) AS value FROM app_sessions";
        stage.world.sql(rows)[0].clone()
    };
    let written = async {
        while count() != "8" {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    within("the owners of the app sessions", written).await;
}
