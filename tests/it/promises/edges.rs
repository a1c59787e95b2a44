//! Promises 32, 34 and 35: addresses outside, bytes from outside, and time. (33 stands with
//! content.)

use crate::harness::{Browser, Served, World, http_answer, raw, serve_raw};
use serde_json::json;
use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const SOON: Duration = Duration::from_millis(700);

#[tokio::test(flavor = "multi_thread")]
async fn p32_addresses_are_checked_when_saved_and_when_connected_to() {
    let served = Served::start(&[("VALETKEY_PRIVATE_HOSTS", "apps.internal")]).await;
    let key = served.administrator("ada");
    let own = served.address.port();
    let content = served
        .api(
            &key,
            "POST",
            "v1/content",
            "{\"name\":\"app\",\"access_type\":\"all\"}",
        )
        .await
        .json();
    let content = content["guid"].as_str().expect("a guid").to_owned();
    let never = [
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "https://169.254.169.254/".into(),
        "http://[fe80::1]/".into(),
        "http://[fd00:ec2::254]/".into(),
        "http://[::ffff:169.254.169.254]/".into(),
        "http://0xa9fea9fe/".into(),
        "http://2852039166/".into(),
        "http://0251.0376.0251.0376/".into(),
        format!("http://127.0.0.1:{own}/"),
        format!("http://localhost:{own}/"),
        format!("http://[::1]:{own}/"),
        format!("http://0.0.0.0:{own}/"),
        format!("http://127.1:{own}/"),
        "http://127.0.0.1:9/".into(),
        "http://localhost:9/".into(),
        "http://app.localhost:9/".into(),
        "http://10.0.0.1/".into(),
        "http://172.16.0.1/".into(),
        "http://192.168.1.1/".into(),
        "http://100.64.0.1/".into(),
        "http://[::1]/".into(),
        "http://[fc00::1]/".into(),
        "http://[64:ff9b::a9fe:a9fe]/".into(),
        "http://0.0.0.0/".into(),
        "http://224.0.0.1/".into(),
        "http://255.255.255.255/".into(),
        "http://user:password@apps.example/".into(),
        "http://user@apps.example/".into(),
        "file:///etc/passwd".into(),
        "gopher://apps.example/".into(),
        "javascript:alert(1)".into(),
        "//apps.example/".into(),
        "http://".into(),
        "http://apps.example/#x".into(),
        "nonsense".into(),
    ];
    for address in &never {
        let answer = served
            .api(
                &key,
                "PATCH",
                &format!("v1/content/{content}"),
                &json!({"upstream_url": address}).to_string(),
            )
            .await;
        assert_eq!(answer.status, 400, "{address}: {}", answer.body);
    }
    for good in [
        "https://apps.example/",
        "http://apps.example:8501/base",
        "http://apps.internal:8501/",
        "http://8.8.8.8/",
    ] {
        let answer = served
            .api(
                &key,
                "PATCH",
                &format!("v1/content/{content}"),
                &json!({"upstream_url": good}).to_string(),
            )
            .await;
        assert_eq!(answer.status, 200, "{good}: {}", answer.body);
    }
    // Providers: the same, and https unless the operator's list says otherwise.
    let provider = |address: &str| {
        json!({"name": "P", "template": "custom", "config": {"authorization_uri": "https://login.example/a", "token_uri": address, "client_id": "c", "client_secret": "s", "scopes": "a"}}).to_string()
    };
    for address in never
        .iter()
        .map(String::as_str)
        .chain(["http://login.example/token", "http://8.8.8.8/token"])
    {
        let answer = served
            .api(&key, "POST", "v1/oauth/integrations", &provider(address))
            .await;
        assert_eq!(
            (answer.status, answer.json()["code"].as_i64()),
            (400, Some(228)),
            "{address}: {}",
            answer.body
        );
    }
    for (name, value) in [
        ("tenant_id", "../../evil.example/"),
        ("tenant_id", "evil.example/x?y="),
        ("tenant_id", "a@evil.example"),
        ("authority_host", "http://169.254.169.254"),
    ] {
        let mut config = json!({"tenant_id": valetkey::demo::TENANT, "client_id": "3f0c2a51-7e0b-4c7e-9b1e-0a5f7f3d2c11", "client_secret": "s"});
        config[name] = value.into();
        let answer = served
            .api(
                &key,
                "POST",
                "v1/oauth/integrations",
                &json!({"template": "azure", "config": config}).to_string(),
            )
            .await;
        assert_eq!(answer.status, 400, "{name}={value}: {}", answer.body);
    }
    // At connecting: a name that was fine when it was saved leads into this machine now. The
    // container's own name does.
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .expect("a name")
        .trim()
        .to_owned();
    let resolves = tokio::net::lookup_host((name.as_str(), 0))
        .await
        .is_ok_and(|found| found.count() > 0);
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0")
        .await
        .expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let reached = Arc::new(Mutex::new(false));
    let note = Arc::clone(&reached);
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            *note.lock().expect("a note") = true;
        }
    });
    if resolves && !name.is_empty() {
        let saved = served
            .api(
                &key,
                "PATCH",
                &format!("v1/content/{content}"),
                &json!({"upstream_url": format!("http://{name}:{port}/")}).to_string(),
            )
            .await;
        assert_eq!(saved.status, 200, "{}", saved.body);
        let place = format!(
            "http://localhost:{}/content/{content}/",
            served.address.port()
        );
        let answer = Browser::new(&served.url())
            .send("GET", &place, &[("accept", "text/html")], None)
            .await;
        assert_eq!(answer.status, 502, "{}", answer.body);
        assert!(
            !*reached.lock().expect("a note"),
            "nothing was connected to"
        );
    }
}

/// A name of this machine that is no spelling of `localhost` and leads to a loopback or private
/// address.
async fn private_name() -> String {
    let own = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("a name");
    for name in [own.trim(), "ip6-localhost", "ip6-loopback", "localhost4"] {
        if !name.is_empty()
            && let Ok(mut found) = tokio::net::lookup_host((name, 0)).await
            && found.next().is_some()
        {
            return name.to_owned();
        }
    }
    panic!("this machine's own name does not resolve: add it to /etc/hosts");
}

#[tokio::test(flavor = "multi_thread")]
async fn p32_a_provider_whose_name_leads_into_this_machine_is_not_connected_to() {
    let world = World::start().await;
    let name = private_name().await;
    let listener = tokio::net::TcpListener::bind("[::]:0")
        .await
        .expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let reached = Arc::new(Mutex::new(0));
    let note = Arc::clone(&reached);
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            *note.lock().expect("a note") += 1;
        }
    });
    let ada = world.key("ada");
    let config = json!({"authorization_uri": "https://login.example/a", "client_id": "c",
        "token_uri": format!("https://{name}:{port}/token"), "client_secret": "s", "scopes": "a"});
    let body = json!({"name": "P", "template": "custom", "config": config}).to_string();
    let made = world
        .api(&ada, "POST", "v1/oauth/integrations", &body)
        .await;
    assert_eq!(made.status, 200, "{}", made.body);
    let guid = made.json()["guid"].as_str().expect("a guid").to_owned();
    let vera = world.signed_in("vera").await;
    let item = world.content(1);
    let wanted = json!([{"oauth_integration_guid": guid}]).to_string();
    let path = format!("v1/content/{item}/oauth/integrations/associations");
    assert_eq!(world.api(&ada, "PUT", &path, &wanted).await.status, 204);
    let page = vera.get(&format!("/content/{item}/")).await;
    let away = vera.submit(&page, "/consents/new", &[]).await;
    let address = url::Url::parse(away.header("location")).expect("an address");
    let state = address
        .query_pairs()
        .find(|(key, _)| key == "state")
        .expect("a state")
        .1
        .into_owned();
    let page = vera
        .get(&format!(
            "/__oauth__/integrations/{guid}/callback?code=any&state={state}"
        ))
        .await;
    assert!(page.status >= 400, "{} {}", page.status, page.body);
    assert_eq!(
        *reached.lock().expect("a note"),
        0,
        "nothing was connected to"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p34_odd_requests_are_refused_and_never_reach_an_app() {
    let world = World::start().await;
    let (vera, _) = world.connected("vera").await;
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let keep = Arc::clone(&seen);
    let app = serve_raw(move |request| {
        // A connection on which nothing came is no request.
        if !request.is_empty() {
            keep.lock().expect("a list").push(request);
        }
        http_answer(200, "", "reached")
    })
    .await;
    let body = json!({"upstream_url": app}).to_string();
    world
        .api(
            &world.key("bo"),
            "PATCH",
            &format!("v1/content/{}", world.content(0)),
            &body,
        )
        .await;
    let place = world.app(&world.content(0));
    let (host, path) = place
        .trim_start_matches("http://")
        .split_once('/')
        .expect("a path");
    let cookie: String = vera
        .cookies_of(&place)
        .iter()
        .map(|(name, value)| format!("{name}={value}; "))
        .collect();
    let common = format!("Host: {host}\r\nCookie: {cookie}x=y\r\nAccept: application/json\r\n");
    let many: String = (0..1000)
        .map(|number| format!("X-{number}: y\r\n"))
        .collect();
    let wide = format!("X: {}\r\n", "y".repeat(200_000));
    let cookies = format!("Cookie: a={}\r\n", "y".repeat(65_536));
    let cases: Vec<(&str, Vec<u8>)> = vec![
        (
            "both lengths",
            format!("POST /{path} HTTP/1.1\r\n{common}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\n")
                .into_bytes(),
        ),
        ("two lengths", format!("POST /{path} HTTP/1.1\r\n{common}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!").into_bytes()),
        ("a length list", format!("POST /{path} HTTP/1.1\r\n{common}Content-Length: 5, 5\r\n\r\nhello").into_bytes()),
        ("a negative length", format!("POST /{path} HTTP/1.1\r\n{common}Content-Length: -1\r\n\r\n").into_bytes()),
        ("a signed length", format!("POST /{path} HTTP/1.1\r\n{common}Content-Length: +5\r\n\r\nhello").into_bytes()),
        ("an odd coding", format!("POST /{path} HTTP/1.1\r\n{common}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n").into_bytes()),
        (
            "two codings",
            format!("POST /{path} HTTP/1.1\r\n{common}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n")
                .into_bytes(),
        ),
        ("a bad chunk", format!("POST /{path} HTTP/1.1\r\n{common}Transfer-Encoding: chunked\r\n\r\nxyz\r\n").into_bytes()),
        ("a folded line", format!("GET /{path} HTTP/1.1\r\n{common}X: a\r\n b\r\n\r\n").into_bytes()),
        ("a blank in a name", format!("GET /{path} HTTP/1.1\r\n{common}X y: a\r\n\r\n").into_bytes()),
        ("a blank before the colon", format!("GET /{path} HTTP/1.1\r\n{common}X : a\r\n\r\n").into_bytes()),
        ("NUL in a value", format!("GET /{path} HTTP/1.1\r\n{common}X: a\0b\r\n\r\n").into_bytes()),
        ("NUL in the path", format!("GET /{path}\0 HTTP/1.1\r\n{common}\r\n").into_bytes()),
        ("NUL, encoded", format!("GET /{path}%00 HTTP/1.1\r\n{common}\r\n").into_bytes()),
        ("invalid UTF-8 in the path", [format!("GET /{path}").as_bytes(), b"\xff\xfe HTTP/1.1\r\n", common.as_bytes(), b"\r\n"].concat()),
        ("dots", format!("GET /{path}../x HTTP/1.1\r\n{common}\r\n").into_bytes()),
        ("dots, encoded", format!("GET /{path}%2e%2e/x HTTP/1.1\r\n{common}\r\n").into_bytes()),
        ("dots, half encoded", format!("GET /{path}.%2E/x HTTP/1.1\r\n{common}\r\n").into_bytes()),
        ("dots, twice encoded", format!("GET /{path}%252e%252e/x HTTP/1.1\r\n{common}\r\n").into_bytes()),
        ("a backslash", format!("GET /{path}..\\x HTTP/1.1\r\n{common}\r\n").into_bytes()),
        ("a backslash, encoded", format!("GET /{path}%5c..%5cx HTTP/1.1\r\n{common}\r\n").into_bytes()),
        ("TRACE", format!("TRACE /{path} HTTP/1.1\r\n{common}\r\n").into_bytes()),
        ("CONNECT", format!("CONNECT {host} HTTP/1.1\r\n{common}\r\n").into_bytes()),
        ("an invented method", format!("BREW /{path} HTTP/1.1\r\n{common}\r\n").into_bytes()),
        ("another Host in the target", format!("GET http://evil.example/{path} HTTP/1.1\r\n{common}\r\n").into_bytes()),
        ("two Hosts", format!("GET /{path} HTTP/1.1\r\nHost: evil.example\r\n{common}\r\n").into_bytes()),
        ("no version", format!("GET /{path}\r\n{common}\r\n").into_bytes()),
        ("another version", format!("GET /{path} HTTP/3.0\r\n{common}\r\n").into_bytes()),
        ("a thousand headers", format!("GET /{path} HTTP/1.1\r\n{common}{many}\r\n").into_bytes()),
        ("a wide header", format!("GET /{path} HTTP/1.1\r\n{common}{wide}\r\n").into_bytes()),
        ("a 64 kB cookie", format!("GET /{path} HTTP/1.1\r\n{common}{cookies}\r\n").into_bytes()),
        ("a long path", format!("GET /{path}{} HTTP/1.1\r\n{common}\r\n", "y".repeat(140_000)).into_bytes()),
        ("TLS on a plain port", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()),
    ];
    for (what, bytes) in cases {
        let answer = raw(&world.portal, &bytes, SOON).await;
        let status = answer.split(' ').nth(1).unwrap_or("closed").to_owned();
        assert!(
            status.starts_with('4') || status == "closed" || answer.is_empty(),
            "{what}: {answer}"
        );
        assert!(
            answer.matches("HTTP/1.1 ").count() <= 1,
            "{what}: answered twice: {answer}"
        );
        let seen = seen.lock().expect("a list");
        assert!(seen.is_empty(), "{what} reached the app: {seen:?}");
    }
    // An upgrade to something else is no offer for the app (RFC 9110 section 7.8): the request is
    // answered as if it were not there.
    let upgrade = format!(
        "GET /{path} HTTP/1.1\r\n{common}Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n"
    );
    let answer = raw(&world.portal, upgrade.as_bytes(), SOON).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && !answer.to_ascii_lowercase().contains("upgrade"),
        "{answer}"
    );
    let got = seen.lock().expect("a list").concat().to_ascii_lowercase();
    assert!(
        !got.contains("h2c") && !got.contains("http2-settings"),
        "{got}"
    );
    // The portal's own pages: invalid UTF-8 and duplicates wherever something can be typed.
    let ada = world.signed_in("ada").await;
    let session = ada.cookies_of(&world.portal)["valetkey"].clone();
    let csrf = ada.get("/account").await.csrf();
    let portal = world.portal.trim_start_matches("http://");
    for target in [
        "/people/%ff",
        "/content-settings/%ff%fe",
        "/audit?text=%ff%00&before=9",
        "/consents/new?content=%ff&content=%fe",
        "/login?next=%ff",
        "/people/%e2%80%ae",
    ] {
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: {portal}\r\nCookie: valetkey={session}\r\nAccept: text/html\r\nConnection: close\r\n\r\n"
        );
        let answer = raw(&world.portal, request.as_bytes(), SOON).await;
        let status = answer.split(' ').nth(1).unwrap_or("closed").to_owned();
        assert!(
            matches!(status.as_str(), "200" | "303" | "400" | "403" | "404"),
            "{target}: {answer}"
        );
    }
    for form in [
        "username=%ff%fe&role=viewer",
        "username=a%00b&role=viewer",
        "username=%e2%80%aeadmin&role=viewer",
        "username=a&first_name=%e2%80%aeada&role=viewer&password=long+enough",
    ] {
        let answer = ada
            .send(
                "POST",
                "/people/new",
                &[("accept", "text/html")],
                Some(format!("csrf={csrf}&{form}")),
            )
            .await;
        assert_eq!(answer.status, 422, "{form}: {}", answer.body);
    }
    let twice = ada
        .send(
            "POST",
            "/people/new",
            &[("accept", "text/html")],
            Some(format!(
                "csrf=wrong&csrf={csrf}&username=twice&role=viewer&password=long+enough"
            )),
        )
        .await;
    assert_eq!(twice.status, 403, "of two tokens the first one counts");
    assert_eq!(
        world
            .api(&world.key("ada"), "GET", "v1/users?prefix=twice", "")
            .await
            .json()["total"],
        0
    );
}

/// What a client gets that sends `first` and then dawdles, and when.
async fn dawdle(address: &str, first: &str, drip: bool) -> (String, Duration) {
    let started = Instant::now();
    let mut socket = tokio::net::TcpStream::connect(address.trim_start_matches("http://"))
        .await
        .expect("a connection");
    socket.write_all(first.as_bytes()).await.expect("a start");
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if drip {
            let _ = socket.write_all(b"x").await;
        }
        match tokio::time::timeout(Duration::from_secs(1), socket.read(&mut buffer)).await {
            Ok(Ok(read)) if read > 0 => answer.extend_from_slice(&buffer[..read]),
            Ok(_) => break,
            Err(_) if started.elapsed() > Duration::from_secs(60) => break,
            Err(_) => {}
        }
    }
    (
        String::from_utf8_lossy(&answer).into_owned(),
        started.elapsed(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn p35_dawdlers_are_gone_in_time_and_hold_nobody_up() {
    let world = World::start().await;
    let (vera, _) = world.connected("vera").await;
    let app = serve_raw(|_| http_answer(200, "", "ok")).await;
    let body = json!({"upstream_url": app}).to_string();
    world
        .api(
            &world.key("bo"),
            "PATCH",
            &format!("v1/content/{}", world.content(0)),
            &body,
        )
        .await;
    let place = world.app(&world.content(0));
    let (content_host, path) = place
        .trim_start_matches("http://")
        .split_once('/')
        .expect("a path");
    let cookie: String = vera
        .cookies_of(&place)
        .iter()
        .map(|(name, value)| format!("{name}={value}; "))
        .collect();
    let portal = world.portal.trim_start_matches("http://");
    let head = "GET / HTTP/1.1\r\nHost: ".to_owned();
    let form = format!(
        "POST /login HTTP/1.1\r\nHost: {portal}\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 60000\r\n\r\n"
    );
    let json = format!(
        "POST /__api__/v1/users HTTP/1.1\r\nHost: {portal}\r\nAuthorization: Key {}\r\nContent-Length: 60000\r\n\r\n",
        world.key("ada")
    );
    let upload = format!(
        "POST /{path} HTTP/1.1\r\nHost: {content_host}\r\nCookie: {cookie}x=y\r\nContent-Length: 60000\r\n\r\n"
    );
    let mut dawdlers = Vec::new();
    for number in 0..60 {
        let address = world.portal.clone();
        let (first, drip, most, status) = match number % 6 {
            0 => (head.clone(), false, 10, "408"),
            1 => (String::new(), false, 10, ""),
            2 => (form.clone(), false, 40, "408"),
            3 => (form.clone(), true, 40, "408"),
            4 => (json.clone(), true, 40, "408"),
            _ => (upload.clone(), false, 40, "408"),
        };
        dawdlers.push(tokio::spawn(async move {
            let (answer, took) = dawdle(&address, &first, drip).await;
            assert!(
                took < Duration::from_secs(most),
                "{number}: {took:?} {answer}"
            );
            assert!(
                status.is_empty() || answer.contains(&format!("HTTP/1.1 {status}")),
                "{number}: {answer}"
            );
        }));
    }
    // Meanwhile everybody else is served.
    let mut times = Vec::new();
    let until = Instant::now() + Duration::from_secs(12);
    while Instant::now() < until {
        let started = Instant::now();
        let answer = vera
            .send("GET", &place, &[("accept", "application/json")], None)
            .await;
        assert_eq!(answer.status, 200);
        times.push(started.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    times.sort();
    let p95 = times[times.len() * 95 / 100];
    assert!(p95 < Duration::from_secs(1), "{p95:?}");
    for dawdler in dawdlers {
        dawdler.await.expect("a dawdler that was sent away");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p32_a_portal_that_listens_everywhere_knows_all_of_its_addresses() {
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("0.0.0.0:0").and_then(|socket| socket.local_addr());
    let port = free.expect("a port").port();
    let mut served = Served::prepare(&[
        ("VALETKEY_PRIVATE_HOSTS", "127.0.0.9,127.0.0.1"),
        ("VALETKEY_LISTEN", &format!("0.0.0.0:{port}")),
        ("VALETKEY_PUBLIC_URL", &format!("http://127.0.0.1:{port}")),
    ]);
    served.address.set_port(port);
    served.restart().await;
    let key = served.administrator("ada");
    for host in ["127.0.0.9", "127.0.0.1"] {
        let item = json!({"name": format!("own-{host}"), "access_type": "all", "upstream_url": format!("http://{host}:{port}/")});
        let made = served
            .api(&key, "POST", "v1/content", &item.to_string())
            .await;
        if made.status == 400 {
            assert!(made.body.contains("own address"), "{}", made.body);
            continue;
        }
        assert_eq!(made.status, 200, "{}", made.body);
        let browser = Browser::new(&format!("http://127.0.0.1:{port}"));
        let guid = made.json()["guid"].as_str().expect("a guid").to_owned();
        let page = browser.get(&format!("/content/{guid}/__ping__")).await;
        assert_eq!(page.status, 502, "{host}: {}", page.body);
    }
}
