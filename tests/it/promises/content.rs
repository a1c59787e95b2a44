//! Promises 18–22: what content gets, and what it can trade.

use crate::harness::{Answer, Browser, World, http_answer, keeps_last_request, raw, serve_raw};
use serde_json::json;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const SUBJECT: &str = "urn:posit:connect:user-session-token";

async fn set_upstream(world: &World, content: usize, address: &str) {
    let body = json!({"upstream_url": address}).to_string();
    let answer = world
        .api(
            &world.key("bo"),
            "PATCH",
            &format!("v1/content/{}", world.content(content)),
            &body,
        )
        .await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// The cookie header of somebody who has opened a content item.
fn cookies(browser: &Browser, place: &str) -> String {
    browser
        .cookies_of(place)
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect::<Vec<_>>()
        .join("; ")
}

#[tokio::test(flavor = "multi_thread")]
async fn p18_content_gets_exactly_one_session_token_and_it_is_ours() {
    let world = World::start().await;
    let (vera, _) = world.connected("vera").await;
    let (app, seen) = keeps_last_request().await;
    set_upstream(&world, 0, &app).await;
    let place = world.app(&world.content(0));
    let (host, path) = place
        .trim_start_matches("http://")
        .split_once('/')
        .expect("a path");
    for forged in [
        "Posit-Connect-User-Session-Token: forged",
        "posit-connect-user-session-token: forged",
        "POSIT-CONNECT-USER-SESSION-TOKEN: forged\r\nPosit-Connect-User-Session-Token: forged-again",
        "Posit_Connect_User_Session_Token: forged",
        "posit-connect_user-session_token: forged",
        "Posit-Connect-User-Session-Token: forged\r\nConnection: Posit-Connect-User-Session-Token",
        "Connection: close, Posit-Connect-User-Session-Token, Cookie",
        "RStudio-Connect-Credentials: {\"user\":\"forged\"}\r\nShiny-Server-Credentials: forged\r\nX-RSC-Authorization: forged",
        "X-Forwarded-For: forged\r\nForwarded: for=forged\r\nX-Real-IP: forged\r\nX-Forwarded-User: forged\r\nX-Auth-Request-Email: forged",
        "X-Forwarded-Host: forged\r\nX-Forwarded-Proto: forged\r\nX-RSC-Request: forged\r\nX_Forwarded_For: forged\r\nRemote_User: forged",
        // Each name by itself: another rule must not be what drops it.
        "X-Original-URL: forged",
        "X-Rewrite-URL: forged",
        "Remote-User: forged",
        "X-Remote-User: forged",
        "X-MS-Client-Principal: forged",
        "X-MS-Client-Principal-Name: forged",
        "X-Streamlit-User: forged",
        "X-Auth-Request-User: forged",
        "X-Accel-Redirect: forged",
        "X-Real-IP: forged",
        "Forwarded: for=forged",
        "Via: forged",
        "Shiny-Server-Credentials: forged",
        "RStudio-Connect-Credentials: forged",
        "Proxy-Authorization: forged",
    ] {
        let request = format!(
            "GET /{path} HTTP/1.1\r\nHost: {host}\r\nCookie: {}\r\nAccept: application/json\r\n{forged}\r\n\r\n",
            cookies(&vera, &place)
        );
        let answer = raw(
            &world.portal,
            request.as_bytes(),
            Duration::from_millis(400),
        )
        .await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{forged}: {answer}");
        let got = seen.lock().expect("a request").to_ascii_lowercase();
        assert!(!got.contains("forged"), "{forged}: {got}");
        let tokens: Vec<&str> = got
            .lines()
            .filter(|line| {
                line.replace('_', "-")
                    .starts_with("posit-connect-user-session-token:")
            })
            .collect();
        assert!(
            tokens.len() == 1 && tokens[0].len() > 100,
            "{forged}: {tokens:?}"
        );
        assert!(
            got.lines()
                .filter(|line| line.starts_with("connection:"))
                .all(|line| !line.contains("posit")),
            "{got}"
        );
        let told: Vec<&str> = got
            .lines()
            .filter(|line| line.contains("-credentials:"))
            .collect();
        assert_eq!(
            told,
            [
                r#"rstudio-connect-credentials: {"groups":[],"user":"vera"}"#,
                r#"shiny-server-credentials: {"groups":[],"user":"vera"}"#
            ],
            "{forged}"
        );
        // Nobody's name is made of one with underscores.
        assert!(
            got.lines()
                .skip(1)
                .all(|line| !line.split(':').next().unwrap_or("").contains('_')),
            "{got}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_hears_of_the_viewers_groups_as_they_are_now() {
    let world = World::start().await;
    let (vera, _) = world.connected("vera").await;
    let (app, seen) = keeps_last_request().await;
    set_upstream(&world, 0, &app).await;
    let path = format!("/content/{}/", world.content(0));
    let groups = async || {
        let answer = vera.get(&path).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let got = seen.lock().expect("a request").clone();
        let told = got.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("rstudio-connect-credentials")
                .then(|| value.to_owned())
        });
        let told: serde_json::Value = serde_json::from_str(&told.expect("a header")).expect("JSON");
        told["groups"].clone()
    };
    assert_eq!(groups().await, json!([]));
    let ada = world.key("ada");
    let made = world
        .api(&ada, "POST", "v1/groups", r#"{"name": "Sales"}"#)
        .await
        .json();
    let group = format!("v1/groups/{}", made["guid"].as_str().expect("a guid"));
    let person = world.sql("SELECT guid AS value FROM people WHERE username = 'vera'");
    let member = json!({"user_guid": person[0]}).to_string();
    let joined = world
        .api(&ada, "POST", &format!("{group}/members"), &member)
        .await;
    assert!(joined.status < 300, "{}", joined.body);
    assert_eq!(groups().await, json!(["Sales"]));
    let gone = world.api(&ada, "DELETE", &group, "").await;
    assert!(gone.status < 300, "{}", gone.body);
    assert_eq!(groups().await, json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn p19_content_gets_nothing_of_the_portals_and_sets_nothing_there() {
    for content_url in [
        None,
        Some("same-origin"),
        Some("http://*.apps.localhost:{port}"),
    ] {
        let world = World::start_with(content_url).await;
        let seen: Arc<Mutex<String>> = Arc::default();
        let keep = Arc::clone(&seen);
        let app = serve_raw(move |request| {
            *keep.lock().expect("a request") = request;
            let headers = "Set-Cookie: valetkey=stolen; Path=/\r\nSet-Cookie: __Host-valetkey=stolen; Path=/; Secure\r\nSet-Cookie: VALETKEY=stolen\r\n\
                           Set-Cookie: valetkey-theme=stolen\r\nSet-Cookie: app=1; Path=/; Domain=localhost\r\nClear-Site-Data: \"cookies\"\r\n\
                           Service-Worker-Allowed: /\r\nStrict-Transport-Security: max-age=1\r\nX-Accel-Redirect: /secret\r\n\
                           Cross-Origin-Opener-Policy: same-origin\r\nAlt-Svc: h3=\":1\"\r\n";
            http_answer(200, headers, "ok")
        })
        .await;
        let (vera, _) = world.connected("vera").await;
        set_upstream(&world, 0, &app).await;
        let page = vera
            .open(
                &format!("/content/{}/", world.content(0)),
                "vera@example.org",
            )
            .await;
        let place = page.url.clone();
        let key = format!("Key {}", world.key("vera"));
        let secret = vera.cookies_of(&world.portal)["valetkey"].clone();
        // All of the browser's cookies, in one line and in several, with quotes that other parsers
        // take for one value.
        let all = format!(
            "{}; valetkey={secret}; a=\"b; __Host-valetkey={secret}; c=d\"; valetkey-theme=dark; theme=own",
            cookies(&vera, &place)
        );
        let headers = [
            ("cookie", all.as_str()),
            ("authorization", key.as_str()),
            ("x-rsc-authorization", key.as_str()),
            ("x-rsc-xsrf", "secret"),
        ];
        let answer = vera.send("GET", &place, &headers, None).await;
        assert_eq!(answer.status, 200, "{content_url:?}: {}", answer.body);
        let got = seen.lock().expect("a request").clone();
        let own: Vec<String> = vera
            .cookies_of(&place)
            .into_iter()
            .filter(|(name, _)| name.starts_with("valetkey"))
            .map(|(_, value)| value)
            .collect();
        for value in [
            secret.as_str(),
            world.key("vera").as_str(),
            "dark",
            "x-rsc-xsrf: secret",
        ]
        .into_iter()
        .chain(own.iter().map(String::as_str))
        {
            assert!(!got.contains(value), "{content_url:?}: {value} in {got}");
        }
        assert!(
            !got.to_ascii_lowercase().contains("authorization:"),
            "{got}"
        );
        for name in [
            "clear-site-data",
            "service-worker-allowed",
            "strict-transport-security",
            "x-accel-redirect",
            "cross-origin-opener-policy",
            "alt-svc",
        ] {
            assert!(answer.header(name).is_empty(), "{content_url:?}: {name}");
        }
        let set: Vec<&str> = answer
            .headers
            .get_all("set-cookie")
            .iter()
            .filter_map(|cookie| cookie.to_str().ok())
            .collect();
        assert!(
            set.iter()
                .all(|cookie| !cookie.contains("stolen") || cookie.starts_with("VALETKEY=")),
            "{content_url:?}: {set:?}"
        );
        let mine = set
            .iter()
            .find(|cookie| cookie.starts_with("app=1"))
            .expect("the app's own cookie");
        assert!(
            !mine.contains("Domain")
                && mine.contains(&format!(
                    "Path={}",
                    url::Url::parse(&place).expect("an address").path()
                )),
            "{mine}"
        );
    }
}

/// Opens a WebSocket through the portal; what came back, and the socket.
async fn upgrade(
    world: &World,
    place: &str,
    cookie: &str,
    origin: Option<&str>,
) -> (String, tokio::net::TcpStream) {
    let (host, path) = place
        .trim_start_matches("http://")
        .split_once('/')
        .expect("a path");
    let origin = origin
        .map(|origin| format!("Origin: {origin}\r\n"))
        .unwrap_or_default();
    let request = format!(
        "GET /{path} HTTP/1.1\r\nHost: {host}\r\n{origin}Cookie: {cookie}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let mut socket = tokio::net::TcpStream::connect(world.portal.trim_start_matches("http://"))
        .await
        .expect("a connection");
    socket
        .write_all(request.as_bytes())
        .await
        .expect("a request");
    let mut head = Vec::new();
    let mut byte = [0; 1];
    while !head.ends_with(b"\r\n\r\n") {
        match tokio::time::timeout(Duration::from_secs(5), socket.read(&mut byte)).await {
            Ok(Ok(1)) => head.push(byte[0]),
            _ => break,
        }
    }
    (String::from_utf8_lossy(&head).into_owned(), socket)
}

/// An app that accepts every WebSocket and keeps it open; the heads that it got.
async fn socket_app() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let heads: Arc<Mutex<Vec<String>>> = Arc::default();
    let keep = Arc::clone(&heads);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let keep = Arc::clone(&keep);
            tokio::spawn(async move {
                let mut head = vec![0; 65536];
                let read = socket.read(&mut head).await.unwrap_or(0);
                keep.lock()
                    .expect("heads")
                    .push(String::from_utf8_lossy(&head[..read]).into_owned());
                let accepted = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
                let _ = socket.write_all(accepted.as_bytes()).await;
                let mut rest = [0; 1024];
                while socket.read(&mut rest).await.is_ok_and(|read| read > 0) {}
            });
        }
    });
    (address, heads)
}

/// The code of the close frame that comes within a time, the last thing before the end.
async fn close_code(socket: &mut tokio::net::TcpStream, time: Duration) -> Option<u16> {
    let mut got = Vec::new();
    let mut piece = [0; 1024];
    let closed = async {
        while let Ok(read @ 1..) = socket.read(&mut piece).await {
            got.extend_from_slice(&piece[..read]);
            // The portal waits for a moment for the browser to have read it.
            if got.first() == Some(&0x88) && got.len() >= 4 {
                break;
            }
        }
    };
    tokio::time::timeout(time, closed).await.ok()?;
    (got.len() >= 4 && got[0] == 0x88).then(|| u16::from_be_bytes([got[2], got[3]]))
}

#[tokio::test(flavor = "multi_thread")]
async fn p33_sockets_open_from_their_own_pages_and_close_when_that_is_over() {
    let world = World::start().await;
    let (vera, _) = world.connected("vera").await;
    let (app, heads) = socket_app().await;
    set_upstream(&world, 0, &app).await;
    let place = world.app(&world.content(0));
    let (cookie, own) = (
        cookies(&vera, &place),
        place
            .split("/content/")
            .next()
            .expect("an origin")
            .to_owned(),
    );
    for origin in [
        None,
        Some("https://evil.example"),
        Some(world.portal.as_str()),
        Some("null"),
        Some(""),
    ] {
        let (answer, _) = upgrade(&world, &place, &cookie, origin).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{origin:?}: {answer}");
    }
    // Scripts see no status of a handshake: they hear by a close code that nobody is signed in.
    let (answer, mut socket) = upgrade(&world, &place, "valetkey=nobody", Some(&own)).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    assert_eq!(
        close_code(&mut socket, Duration::from_secs(2)).await,
        Some(4401)
    );
    assert!(
        heads.lock().expect("heads").is_empty(),
        "none of these reached the app"
    );
    // Access goes away.
    let (answer, mut socket) = upgrade(&world, &place, &cookie, Some(&own)).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    assert_eq!(
        close_code(&mut socket, Duration::from_millis(1500)).await,
        None,
        "open as long as nothing changes"
    );
    let access = |kind: &str| format!("{{\"access_type\":\"{kind}\"}}");
    let path = format!("v1/content/{}", world.content(0));
    world
        .api(&world.key("bo"), "PATCH", &path, &access("acl"))
        .await;
    assert_eq!(
        close_code(&mut socket, Duration::from_secs(2)).await,
        Some(4403),
        "access removed"
    );
    world
        .api(&world.key("bo"), "PATCH", &path, &access("logged_in"))
        .await;
    // The consent went with the access, and is given anew; then it is taken back.
    vera.open(&format!("/content/{}/", world.content(0)), "vera")
        .await;
    let (answer, mut socket) = upgrade(&world, &place, &cookie, Some(&own)).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    let consents = vera.get("/consents").await;
    vera.submit(&vera.get(&consents.link("/revoke")).await, "/revoke", &[])
        .await;
    assert_eq!(
        close_code(&mut socket, Duration::from_secs(2)).await,
        Some(4403),
        "consent taken back"
    );
    let (_, mut socket) = upgrade(&world, &place, &cookie, Some(&own)).await;
    assert_eq!(
        close_code(&mut socket, Duration::from_secs(2)).await,
        Some(4428),
        "the viewer has to be asked"
    );
    vera.open(&format!("/content/{}/", world.content(0)), "vera")
        .await;
    // The session ends.
    let (answer, mut socket) = upgrade(&world, &place, &cookie, Some(&own)).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    let page = vera.get("/content").await;
    vera.submit(&page, "/logout", &[]).await;
    assert_eq!(
        close_code(&mut socket, Duration::from_secs(2)).await,
        Some(4401),
        "signed out"
    );
    // The content goes away.
    let vera = world.signed_in("vera").await;
    vera.open(&format!("/content/{}/", world.content(0)), "vera")
        .await;
    let (_, mut socket) = upgrade(&world, &place, &cookies(&vera, &place), Some(&own)).await;
    let deleted = world.api(&world.key("bo"), "DELETE", &path, "").await;
    assert_eq!(deleted.status, 204, "{}", deleted.body);
    assert_eq!(
        close_code(&mut socket, Duration::from_secs(2)).await,
        Some(4404),
        "content deleted"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p20_a_session_token_dies_with_its_session_its_hour_and_its_access() {
    let world = World::start().await;
    let (browser, token) = world.connected("vera").await;
    let bo = world.key("bo");
    let page = browser.get("/content").await;
    browser.submit(&page, "/logout", &[]).await;
    assert_eq!(
        world.exchange(&bo, &token).await.json()["code"],
        215,
        "signed out"
    );
    let browser = world.signed_in("vera").await;
    let token = world.token(&browser, &world.content(0)).await;
    assert_eq!(world.exchange(&bo, &token).await.status, 200);
    // Consent is taken back: the token is as good as before, and gets nothing.
    world.revoke_consent(&browser).await;
    world.assert_not_consented(&token).await;
    browser
        .open(&format!("/content/{}/", world.content(0)), "vera")
        .await;
    assert_eq!(world.exchange(&bo, &token).await.status, 200);
    // The list closes: the viewer may no longer open the content.
    world
        .api(
            &bo,
            "PATCH",
            &format!("v1/content/{}", world.content(0)),
            r#"{"access_type":"acl"}"#,
        )
        .await;
    assert_eq!(world.exchange(&bo, &token).await.json()["code"], 22);
    world
        .api(
            &bo,
            "PATCH",
            &format!("v1/content/{}", world.content(0)),
            r#"{"access_type":"logged_in"}"#,
        )
        .await;
    world
        .api(
            &bo,
            "PUT",
            &format!(
                "v1/content/{}/oauth/integrations/associations",
                world.content(0)
            ),
            "[]",
        )
        .await;
    assert_eq!(
        world.exchange(&bo, &token).await.json()["code"],
        212,
        "no integration any more"
    );
    world.pass(Duration::from_secs(3601));
    assert_eq!(
        world.exchange(&bo, &token).await.json()["code"],
        215,
        "an hour has passed"
    );
    // Locking ends everything at once.
    let me = world
        .api(&world.key("vera"), "GET", "v1/user", "")
        .await
        .json();
    world
        .api(
            &world.key("ada"),
            "POST",
            &format!("v1/users/{}/lock", me["guid"].as_str().unwrap_or("")),
            r#"{"locked":true}"#,
        )
        .await;
    assert_eq!(
        world
            .api(&world.key("vera"), "GET", "v1/user", "")
            .await
            .json()["code"],
        30
    );
    assert!(browser.get("/consents").await.url.contains("/login"));
}

#[tokio::test(flavor = "multi_thread")]
async fn p20_a_token_lives_as_long_as_the_socket_it_was_made_for() {
    let world = World::start().await;
    let (vera, _) = world.connected("vera").await;
    let (app, heads) = socket_app().await;
    set_upstream(&world, 0, &app).await;
    let place = world.app(&world.content(0));
    let own = place
        .split("/content/")
        .next()
        .expect("an origin")
        .to_owned();
    let (answer, socket) = upgrade(&world, &place, &cookies(&vera, &place), Some(&own)).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    let head = heads.lock().expect("heads")[0].clone();
    let line = head
        .lines()
        .find(|line| {
            line.to_ascii_lowercase()
                .starts_with("posit-connect-user-session-token:")
        })
        .expect("a token");
    let token = line.split_once(':').expect("a value").1.trim().to_owned();
    // Hours later, with the socket open, its session kept alive by other requests.
    for _ in 0..3 {
        world.pass(Duration::from_secs(2 * 3600));
        assert_eq!(vera.get("/account").await.status, 200);
        let answer = world.exchange(&world.key("bo"), &token).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    drop(socket);
    for tries in 0.. {
        let answer = world.exchange(&world.key("bo"), &token).await;
        if answer.status == 400 && answer.json()["code"] == 215 {
            break;
        }
        assert!(tries < 40, "{}", answer.body);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p21_every_wrong_request_has_its_code_and_no_token() {
    let world = World::start().await;
    let (viktor, of_viktor) = world.connected("viktor").await;
    world.revoke_consent(&viktor).await;
    world.assert_not_consented(&of_viktor).await;
    let (_, token) = world.connected("vera").await;
    let bo = world.key("bo");
    type Case<'a> = (&'a [(&'a str, &'a str)], u16, i64);
    let cases: &[Case<'_>] = &[
        (&[], 400, 210),
        (
            &[
                ("grant_type", "password"),
                ("subject_token_type", SUBJECT),
                ("subject_token", &token),
            ],
            400,
            213,
        ),
        (
            &[
                (
                    "grant_type",
                    "urn:eitf:params:oauth:grant-type:token-exchange",
                ),
                ("subject_token_type", SUBJECT),
                ("subject_token", &token),
            ],
            400,
            213,
        ),
        (
            &[
                ("grant_type", GRANT),
                ("subject_token_type", "jwt"),
                ("subject_token", &token),
            ],
            400,
            214,
        ),
        (
            &[
                ("grant_type", GRANT),
                (
                    "subject_token_type",
                    "urn:posit:connect:content-session-token",
                ),
                ("subject_token", &token),
            ],
            400,
            236,
        ),
        (
            &[("grant_type", GRANT), ("subject_token_type", SUBJECT)],
            400,
            215,
        ),
        (
            &[
                ("grant_type", GRANT),
                ("subject_token_type", SUBJECT),
                ("subject_token", "rubbish"),
            ],
            400,
            215,
        ),
        (
            &[
                ("grant_type", GRANT),
                ("subject_token_type", SUBJECT),
                ("subject_token", &token[..token.len() - 3]),
            ],
            400,
            215,
        ),
        (
            &[
                ("grant_type", GRANT),
                ("subject_token_type", SUBJECT),
                ("subject_token", &token),
                ("requested_token_type", "urn:posit:connect:api-key"),
            ],
            400,
            242,
        ),
        (
            &[
                ("grant_type", GRANT),
                ("subject_token_type", SUBJECT),
                ("subject_token", &token),
                ("audience", "198667fd-393d-4905-873c-3a9abc1f37a6"),
            ],
            400,
            256,
        ),
        (
            &[
                ("grant_type", GRANT),
                ("subject_token_type", SUBJECT),
                ("subject_token", &token),
                ("subject_token", &token),
            ],
            400,
            211,
        ),
    ];
    for (form, status, code) in cases {
        let answer = world.exchange_form(&bo, form).await;
        assert_eq!(
            (answer.status, answer.json()["code"].as_i64()),
            (*status, Some(*code)),
            "{form:?} {}",
            answer.body
        );
        for key in [
            "error",
            "error_code",
            "error_message",
            "error_description",
            "payload",
        ] {
            assert!(
                answer.json().get(key).is_some(),
                "{key} is missing: {}",
                answer.body
            );
        }
        assert!(
            !answer.body.contains("eyJ"),
            "a token leaked: {}",
            answer.body
        );
    }
    // Who may ask: nobody without a key, no viewer, nobody who does not run the content, not even
    // the administrator.
    assert_eq!(world.exchange("", &token).await.json()["code"], 24);
    assert_eq!(world.exchange("vk_wrong", &token).await.json()["code"], 30);
    for name in ["vera", "viktor", "ada"] {
        assert_eq!(
            world.exchange(&world.key(name), &token).await.json()["code"],
            22,
            "{name}"
        );
    }
    let good = world.exchange(&bo, &token).await;
    assert_eq!(good.status, 200, "{}", good.body);
    assert_eq!(good.header("cache-control"), "no-store");
    assert_eq!(
        good.json()["issued_token_type"],
        "urn:ietf:params:oauth:token-type:access_token"
    );
    // `scope` and `resource` widen nothing.
    let wide = world
        .exchange_form(
            &bo,
            &[
                ("grant_type", GRANT),
                ("subject_token_type", SUBJECT),
                ("subject_token", &token),
                ("scope", "https://graph.microsoft.com/.default"),
                ("resource", "x"),
            ],
        )
        .await;
    assert_eq!(wide.json()["access_token"], good.json()["access_token"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn p22_an_exchange_gives_an_access_token_and_content_chooses_nothing_else() {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let keep = Arc::clone(&asked);
    let provider = serve_raw(move |request| {
        let mut asked = keep.lock().expect("a list");
        asked.push(request);
        let body = format!("{{\"access_token\":\"access-{}\",\"refresh_token\":\"CANARY-refresh\",\"id_token\":\"CANARY-id\",\"token_type\":\"Bearer\",\"expires_in\":2,\"scope\":\"a b\"}}", asked.len());
        http_answer(200, "Content-Type: application/json\r\n", &body)
    })
    .await;
    let world = World::start().await;
    let config = json!({"authorization_uri": format!("{provider}/authorize"), "token_uri": format!("{provider}/token"), "client_id": "c", "client_secret": "s", "scopes": "a b"});
    let made = world
        .api(
            &world.key("ada"),
            "POST",
            "v1/oauth/integrations",
            &json!({"name": "Custom", "template": "custom", "config": config}).to_string(),
        )
        .await;
    let guid = made.json()["guid"].as_str().expect("a guid").to_owned();
    let associations = format!(
        "v1/content/{}/oauth/integrations/associations",
        world.content(1)
    );
    world
        .api(
            &world.key("bo"),
            "PUT",
            &associations,
            &json!([{"oauth_integration_guid": guid}]).to_string(),
        )
        .await;
    let vera = world.signed_in("vera").await;
    let page = vera.get(&format!("/content/{}/", world.content(1))).await;
    let sent = vera.submit(&page, "/consents/new", &[]).await;
    let state = url::Url::parse(sent.header("location"))
        .expect("an address")
        .query_pairs()
        .find(|(key, _)| key == "state")
        .expect("a state")
        .1
        .into_owned();
    vera.get(&format!(
        "/__oauth__/integrations/{guid}/callback?code=c&state={state}"
    ))
    .await;
    let token = world.token(&vera, &world.content(1)).await;
    let form = |more: &[(&'static str, String)]| {
        let mut form = vec![
            ("grant_type", GRANT.to_owned()),
            ("subject_token_type", SUBJECT.to_owned()),
            ("subject_token", token.clone()),
        ];
        form.extend(more.iter().cloned());
        form
    };
    let exchange = async |more: &[(&'static str, String)]| -> Answer {
        let form = form(more);
        let pairs: Vec<(&str, &str)> = form
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        world.exchange_form(&world.key("bo"), &pairs).await
    };
    for more in [
        vec![],
        vec![(
            "scope",
            "https://graph.microsoft.com/.default EVIL".to_owned(),
        )],
        vec![("resource", "https://EVIL.example".to_owned())],
        vec![
            ("scope", "EVIL".to_owned()),
            ("resource", "EVIL".to_owned()),
            ("client_id", "EVIL".to_owned()),
            ("refresh_token", "EVIL".to_owned()),
        ],
        vec![("audience", guid.clone())],
    ] {
        // Each one needs a refresh.
        world.pass(Duration::from_secs(4));
        let answer = exchange(&more).await;
        assert_eq!(answer.status, 200, "{more:?}: {}", answer.body);
        let body = answer.json();
        let names: Vec<&String> = body.as_object().expect("an object").keys().collect();
        assert_eq!(
            names,
            [
                "access_token",
                "expires_in",
                "issued_token_type",
                "token_type"
            ],
            "{more:?}"
        );
        assert!(!answer.body.contains("CANARY"), "{}", answer.body);
    }
    let asked = asked.lock().expect("a list").clone();
    assert!(asked.len() >= 5, "{}", asked.len());
    for request in asked.iter() {
        assert!(
            !request.contains("EVIL") && !request.contains("graph.microsoft"),
            "{request}"
        );
        // And what the server says about itself, asked when it was saved.
        let is_discovery = request.starts_with("GET ") && request.contains("/.well-known/");
        assert!(
            request.starts_with("POST /token HTTP/1.1") || is_discovery,
            "{request}"
        );
    }
    // Another integration than the attached one, and what is no integration.
    for audience in [
        world.integration(),
        "https://EVIL.example".into(),
        "198667fd-393d-4905-873c-3a9abc1f37a6".into(),
    ] {
        assert_eq!(
            exchange(&[("audience", audience)]).await.json()["code"],
            256
        );
    }
    // Detached now: nothing, though the consent page was passed before.
    world
        .api(&world.key("bo"), "PUT", &associations, "[]")
        .await;
    assert_eq!(exchange(&[]).await.json()["code"], 212);
}
