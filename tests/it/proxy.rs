//! The proxy: who passes, what the app gets, what happens without an app.

use crate::harness::{Browser, World};

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_not_pass_hears_why_in_the_right_form() {
    let world = World::start().await;
    let app = format!("/content/{}/", world.content(0));
    let stranger = Browser::new(&world.portal);
    assert!(stranger.get(&app).await.url.contains("/login?next="));
    let place = world.app(&world.content(0));
    let script = stranger
        .send("GET", &place, &[("accept", "*/*")], None)
        .await;
    let login = script.json()["payload"]["login_url"]
        .as_str()
        .unwrap_or("")
        .to_owned();
    assert!(
        script.status == 401 && login.starts_with(&format!("{}/login", world.portal)),
        "{}",
        script.body
    );
    let vera = world.signed_in("vera").await;
    assert!(vera.get(&app).await.url.contains("/consents/new"));
    let script = vera
        .send(
            "GET",
            &place,
            &[("sec-fetch-mode", "cors"), ("accept", "text/html")],
            None,
        )
        .await;
    assert_eq!(script.status, 401, "nobody is let in before the consent");
    let (vera, _) = world.connected("vera").await;
    let consents = vera.get("/consents").await;
    vera.submit(&vera.get(&consents.link("/revoke")).await, "/revoke", &[])
        .await;
    let script = vera
        .send(
            "GET",
            &place,
            &[("sec-fetch-mode", "cors"), ("accept", "text/html")],
            None,
        )
        .await;
    assert_eq!(
        (script.status, script.json()["code"].as_i64()),
        (401, Some(220))
    );
    assert!(
        script.json()["payload"]["login_url"]
            .as_str()
            .is_some_and(|url| url.contains("/consents/new"))
    );
    let socket = vera
        .send(
            "GET",
            &place,
            &[("upgrade", "websocket"), ("connection", "upgrade")],
            None,
        )
        .await;
    assert_eq!(socket.status, 403, "a WebSocket without an Origin");
    world
        .api(
            &world.key("bo"),
            "PATCH",
            &format!("v1/content/{}", world.content(0)),
            r#"{"access_type":"acl"}"#,
        )
        .await;
    let closed = vera.get(&app).await;
    assert_eq!(closed.status, 403);
    assert!(closed.body.contains("You may not open this content"));
    assert_eq!(
        vera.get("/content/198667fd-393d-4905-873c-3a9abc1f37a6/")
            .await
            .status,
        404
    );
    assert_eq!(vera.get("/content/nonsense/").await.status, 404);
    assert_eq!(vera.send("TRACE", "/content", &[], None).await.status, 405);
    // Apps build the addresses of their sockets from the path of the page: it ends with a slash.
    let bare = format!("{}?q=1", world.app(&world.content(0)).trim_end_matches('/'));
    let answer = stranger.send("GET", &bare, &[], None).await;
    assert_eq!(
        (answer.status, answer.header("location").to_owned()),
        (303, format!("{}?q=1", world.app(&world.content(0))))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_is_down_is_named_with_its_publisher() {
    let world = World::start().await;
    let vera = world.signed_in("vera").await;
    let second = world.content(1);
    world
        .api(
            &world.key("bo"),
            "PATCH",
            &format!("v1/content/{second}"),
            r#"{"upstream_url":"http://127.0.0.1:1"}"#,
        )
        .await;
    let page = vera.get(&format!("/content/{second}/")).await;
    assert_eq!(page.status, 502, "{}", page.body);
    assert!(
        page.body.contains("Churn explorer") && page.body.contains("Bo Lind"),
        "{}",
        page.body
    );
    world
        .api(
            &world.key("bo"),
            "PATCH",
            &format!("v1/content/{second}"),
            r#"{"upstream_url":""}"#,
        )
        .await;
    assert_eq!(vera.get(&format!("/content/{second}/")).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_app_answers_passes_as_it_is() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let world = World::start().await;
    let vera = world.signed_in("vera").await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let upstream = serde_json::json!({"upstream_url": format!("http://{}", listener.local_addr().expect("an address"))});
    let second = world.content(1);
    world
        .api(
            &world.key("bo"),
            "PATCH",
            &format!("v1/content/{second}"),
            &upstream.to_string(),
        )
        .await;
    tokio::spawn(async move {
        for answer in [
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 302 Found\r\nLocation: /next?a=b\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        ] {
            let (mut socket, _) = listener.accept().await.expect("a request");
            let mut head = [0; 8192];
            let _ = socket.read(&mut head).await;
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    });
    let app = format!("{}x", world.app(&second));
    let missing = vera.get(&app).await;
    assert_eq!(
        (
            missing.status,
            missing.body.as_str(),
            missing.header("content-security-policy")
        ),
        (404, "", "")
    );
    let moved = vera.send("GET", &app, &[], None).await;
    assert_eq!(
        moved.header("location"),
        format!("/content/{second}/next?a=b")
    );
    // An app that dies in the middle: the browser sees a broken answer (in its head or in its
    // body), never a short success.
    let cut = match vera.try_send("GET", &app, &[], None).await {
        Ok(answer) => answer.text().await,
        Err(error) => Err(error),
    };
    assert!(cut.is_err(), "{cut:?}");
}
