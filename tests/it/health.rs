//! What the pages of an item and an integration say first, and what pausing does.

use crate::harness::{Browser, Served, World};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn an_item_says_why_its_app_gets_no_tokens_and_what_to_do() {
    let world = World::start().await;
    let (vera, token) = world.connected("vera").await;
    let bo = world.signed_in("bo").await;
    let settings = format!("/content-settings/{}", world.content(0));
    assert_eq!(world.exchange(&world.key("bo"), &token).await.status, 200);
    // The demo's app made one as well.
    let page = bo.get(&settings).await;
    assert!(
        page.text(".health").contains("in the last 24 hours"),
        "{}",
        page.text(".health")
    );
    // A key that was replaced, and a token that is not one of ours: only the first names the item.
    let unknown = "vk_0000000000000000000000000000000000000000000000000000000000000000";
    for key in [unknown, "nonsense"] {
        let refused = world.exchange(key, &token).await;
        assert_eq!(refused.status, 401, "{}", refused.body);
        assert_eq!(world.exchange(key, "forged").await.status, 401);
    }
    let page = bo.get(&settings).await;
    let health = page.text(".health");
    assert!(
        health.contains("2 refused") && health.contains("API key is unknown"),
        "{health}"
    );
    assert!(health.contains("Make a new content key"), "{health}");
    world.revoke_consent(&vera).await;
    world.assert_not_consented(&token).await;
    let health = bo.get(&settings).await.text(".health");
    assert!(health.contains("Viewer has not consented"), "{health}");
    // The same in plots, with numbers that need no picture.
    let activity = bo.get(&format!("{settings}/activity")).await;
    assert!(
        activity.body.contains("3 refusals in the last 24 hours"),
        "{}",
        activity.text("main")
    );
    assert!(activity.text("main").contains("API key is unknown"));
    let ada = world.signed_in("ada").await;
    let integration = format!("/integrations/{}", world.integration());
    let activity = ada
        .get(&format!("{integration}/activity?range=month"))
        .await;
    assert!(
        activity.text("main").contains("viewer has not consented"),
        "{}",
        activity.text("main")
    );
    // Others see none of it.
    for (name, path) in [("vera", settings.as_str()), ("bo", integration.as_str())] {
        let reader = world.signed_in(name).await;
        let refused = reader.get(&format!("{path}/activity")).await;
        assert!(
            matches!(refused.status, 403 | 404),
            "{name}: {}",
            refused.status
        );
    }
    let counted = world.sql("SELECT kind AS value FROM activity_hours WHERE kind IN ('consent_shown', 'consent_agreed', 'consent_returned', 'connected') ORDER BY kind");
    assert_eq!(
        counted,
        [
            "connected",
            "consent_agreed",
            "consent_returned",
            "consent_shown"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_integration_hands_out_nothing_asks_nobody_and_keeps_everything() {
    let world = World::start().await;
    let (_, token) = world.connected("vera").await;
    let (ada, bo) = (world.key("ada"), world.key("bo"));
    let path = format!("v1/oauth/integrations/{}", world.integration());
    let viktor = world.signed_in("viktor").await;
    let asked = viktor.get(&format!("/content/{}/", world.content(0))).await;
    let paused = world.api(&ada, "PATCH", &path, r#"{"paused": true}"#).await;
    assert_eq!(
        (paused.status, &paused.json()["paused"]),
        (200, &json!(true)),
        "{}",
        paused.body
    );
    let refused = world.exchange(&bo, &token).await;
    assert_eq!(
        (refused.status, refused.json()["payload"]["reason"].as_str()),
        (503, Some("integration_paused")),
        "{}",
        refused.body
    );
    // Who was asked before is refused now, and who comes now is told.
    let sent = viktor.submit(&asked, "/consents/new", &[]).await;
    assert_eq!(
        sent.status,
        503,
        "{} {}",
        sent.header("location"),
        sent.body
    );
    let told = viktor.get(&format!("/content/{}/", world.content(0))).await;
    assert!(told.body.contains("is paused"), "{}", told.body);
    let resumed = world
        .api(&ada, "PATCH", &path, r#"{"paused": false}"#)
        .await;
    assert_eq!(resumed.json()["paused"], false, "{}", resumed.body);
    assert_eq!(
        world.exchange(&bo, &token).await.status,
        200,
        "everything was kept"
    );
    let wrong = world
        .api(&ada, "PATCH", &path, r#"{"paused": "yes"}"#)
        .await;
    assert_eq!(wrong.status, 400, "{}", wrong.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_installation_says_where_its_link_is_and_errors_name_whom_to_ask() {
    let served = Served::start(&[("VALETKEY_CONTACT", "help@example.org")]).await;
    let browser = Browser::new(&served.url());
    let page = browser.get("/login").await;
    assert!(
        page.body.contains("Nobody has an account yet"),
        "{}",
        page.body
    );
    let page = browser.get("/setup/nonsense").await;
    assert!(
        page.body.contains("mailto:help@example.org"),
        "{}",
        page.body
    );
    served.administrator("ada");
    let page = browser.get("/login").await;
    assert!(
        !page.body.contains("Nobody has an account"),
        "{}",
        page.body
    );
    assert!(
        page.body.contains("mailto:help@example.org"),
        "{}",
        page.body
    );
    let nowhere = browser.get("/nowhere").await;
    assert_eq!(nowhere.status, 404);
    assert!(
        nowhere.body.contains("mailto:help@example.org"),
        "{}",
        nowhere.body
    );
}
