//! The proxy: who passes, what the app gets, what happens without an app.

use crate::harness::{Browser, World};

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_not_pass_hears_why_in_the_right_form() {
    let world = World::start().await;
    let app = format!("/content/{}/", world.content(0));
    let stranger = Browser::new(&world.portal);
    assert!(stranger.get(&app).await.url.contains("/login?next="));
    let script = stranger.send("GET", &app, &[("accept", "*/*")], None).await;
    assert_eq!((script.status, script.json()["payload"]["login_url"].as_str().is_some()), (401, true), "{}", script.body);
    let mut vera = Browser::new(&world.portal);
    vera.sign_in("vera").await;
    let script = vera.send("GET", &app, &[("sec-fetch-mode", "cors"), ("accept", "text/html")], None).await;
    assert_eq!((script.status, script.json()["code"].as_i64()), (401, Some(220)));
    assert!(script.json()["payload"]["login_url"].as_str().is_some_and(|url| url.contains("/consents/new")));
    let socket = vera.send("GET", &app, &[("upgrade", "websocket"), ("connection", "upgrade")], None).await;
    assert_eq!(socket.status, 401);
    world.api(&world.key("bo"), "PATCH", &format!("v1/content/{}", world.content(0)), r#"{"access_type":"acl"}"#).await;
    let closed = vera.get(&app).await;
    assert_eq!(closed.status, 403);
    assert!(closed.body.contains("You may not open this content"));
    assert_eq!(vera.get("/content/198667fd-393d-4905-873c-3a9abc1f37a6/").await.status, 404);
    assert_eq!(vera.get("/content/nonsense/").await.status, 404);
    assert_eq!(vera.send("TRACE", "/content", &[], None).await.status, 405);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_is_down_is_named_with_its_publisher() {
    let world = World::start().await;
    let mut vera = Browser::new(&world.portal);
    vera.sign_in("vera").await;
    let second = world.content(1);
    world.api(&world.key("bo"), "PATCH", &format!("v1/content/{second}"), r#"{"upstream_url":"http://127.0.0.1:1"}"#).await;
    let page = vera.get(&format!("/content/{second}/")).await;
    assert_eq!(page.status, 502, "{}", page.body);
    assert!(page.body.contains("Churn explorer") && page.body.contains("Bo Lind"), "{}", page.body);
    world.api(&world.key("bo"), "PATCH", &format!("v1/content/{second}"), r#"{"upstream_url":null}"#).await;
    assert_eq!(vera.get(&format!("/content/{second}/")).await.status, 404);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_portal_answer_carries_the_browser_policy() {
    let world = World::start().await;
    let mut ada = Browser::new(&world.portal);
    ada.sign_in("ada").await;
    for path in ["/login", "/content", "/nothing", "/integrations", "/__api__/server_settings", "/__ping__"] {
        let answer = ada.get(path).await;
        for (name, value) in [
            ("content-security-policy", "frame-ancestors 'none'"),
            ("x-content-type-options", "nosniff"),
            ("cross-origin-opener-policy", "same-origin"),
            ("referrer-policy", "same-origin"),
            ("cache-control", "no-store"),
        ] {
            assert!(answer.header(name).contains(value), "{path}: {name} is {:?}", answer.header(name));
        }
        assert!(answer.header("server").is_empty());
    }
    world.stop().await;
}
