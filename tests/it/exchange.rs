//! The exchange: what it refuses, and what it survives.

use crate::harness::World;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3500);

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_exchanges_on_an_expired_token_make_one_refresh() {
    let world = World::start().await;
    world.provider.set_faults(|faults| faults.single_use = true);
    let (_, token) = world.connected("vera").await;
    world.pass(HOUR);
    let (_, token) = (
        token,
        world
            .token(&world.signed_in("vera").await, &world.content(0))
            .await,
    );
    world
        .provider
        .set_faults(|faults| faults.delay = Duration::from_millis(400));
    let before = world.provider.counts();
    let bo = world.key("bo");
    let answers =
        futures_util::future::join_all((0..200).map(|_| world.exchange(&bo, &token))).await;
    let after = world.provider.counts();
    assert!(
        answers.iter().all(|answer| answer.status == 200),
        "{}",
        answers[0].body
    );
    let tokens: std::collections::BTreeSet<String> = answers
        .iter()
        .map(|answer| answer.json()["access_token"].to_string())
        .collect();
    assert_eq!(tokens.len(), 1);
    assert_eq!((after.refreshed - before.refreshed, after.replays), (1, 0));
    assert!(
        answers
            .iter()
            .all(|answer| answer.json()["expires_in"].as_i64() >= Some(120))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_falls_back_to_acting_as_the_content_itself() {
    let world = World::start().await;
    let (_, token) = world.connected("vera").await;
    let bo = world.key("bo");
    let exchange = "urn:ietf:params:oauth:grant-type:token-exchange";
    for token in ["", "anything", &token] {
        let form = [
            ("grant_type", exchange),
            (
                "subject_token_type",
                "urn:posit:connect:content-session-token",
            ),
            ("subject_token", token),
        ];
        let refused = world.exchange_form(&bo, &form).await;
        assert_eq!(
            (refused.status, refused.json()["code"].as_i64()),
            (400, Some(236)),
            "{}",
            refused.body
        );
        assert!(refused.json()["access_token"].is_null());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_provider_ends_no_connection() {
    let world = World::start().await;
    let (vera, token) = world.connected("vera").await;
    let bo = world.key("bo");
    world
        .provider
        .set_faults(|faults| faults.status = Some(503));
    assert_eq!(
        world.exchange(&bo, &token).await.status,
        200,
        "a live token needs no provider"
    );
    world.pass(HOUR);
    // Nearly expired, yet still valid: served while the provider is down.
    assert_eq!(world.exchange(&bo, &token).await.status, 200);
    let token = world.token(&vera, &world.content(0)).await;
    world.pass(Duration::from_secs(150));
    for body in [
        None,
        Some("<html>".to_owned()),
        Some("{}".to_owned()),
        Some("[1]".to_owned()),
    ] {
        world.provider.set_faults(|faults| {
            faults.status = if body.is_none() { Some(500) } else { None };
            faults.body = body;
        });
        let refused = world.exchange(&bo, &token).await;
        assert_eq!(
            (refused.status, refused.json()["code"].as_i64()),
            (503, Some(241)),
            "{}",
            refused.body
        );
        assert_eq!(
            refused.json()["payload"]["reason"],
            "identity_provider_unavailable"
        );
        assert!(!refused.header("retry-after").is_empty());
    }
    world
        .provider
        .set_faults(|faults| (faults.status, faults.body) = (None, None));
    world.pass(Duration::from_secs(31));
    let token = world
        .token(&world.signed_in("vera").await, &world.content(0))
        .await;
    assert_eq!(
        world.exchange(&bo, &token).await.status,
        200,
        "it comes back by itself"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_refresh_token_asks_the_viewer_and_the_same_session_token_works_again() {
    let world = World::start().await;
    let (browser, _) = world.connected("vera").await;
    world.pass(HOUR);
    let token = world.token(&browser, &world.content(0)).await;
    let bo = world.key("bo");
    world.provider.revoke_refresh_tokens();
    world.pass(Duration::from_secs(60));
    let refused = world.exchange(&bo, &token).await;
    assert_eq!(
        (refused.status, refused.json()["code"].as_i64()),
        (400, Some(219)),
        "{}",
        refused.body
    );
    assert_eq!(refused.json()["payload"]["reason"], "needs_reauthorization");
    assert!(
        refused.json()["payload"]["login_url"]
            .as_str()
            .is_some_and(|url| url.contains("/consents/new"))
    );
    let page = browser.get("/consents").await;
    assert!(
        page.body.contains("Needs you again") && page.body.contains("Reconnect"),
        "{}",
        page.body
    );
    browser
        .open(&format!("/content/{}/", world.content(0)), "vera")
        .await;
    assert_eq!(world.exchange(&bo, &token).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_client_secret_is_the_administrators_business() {
    let world = World::start().await;
    let (_, _) = world.connected("vera").await;
    world.pass(HOUR);
    let token = world
        .token(&world.signed_in("vera").await, &world.content(0))
        .await;
    world.pass(Duration::from_secs(120));
    world
        .provider
        .set_faults(|faults| faults.error = Some(("invalid_client".into(), 7_000_222)));
    let refused = world.exchange(&world.key("bo"), &token).await;
    assert_eq!(
        refused.json()["payload"]["reason"],
        "integration_broken",
        "{}",
        refused.body
    );
    assert_eq!(
        refused.json()["payload"]["login_url"],
        serde_json::Value::Null
    );
    let page = world.signed_in("ada").await.get("/integrations").await;
    assert!(page.body.contains("Rejected by Microsoft"), "{}", page.body);
    // Asking again at each exchange mends nothing, so the provider is left alone for a moment.
    world.provider.set_faults(|faults| faults.error = None);
    assert_eq!(
        world.exchange(&world.key("bo"), &token).await.json()["payload"]["reason"],
        "integration_broken"
    );
    world.pass(Duration::from_secs(20));
    assert_eq!(
        world.exchange(&world.key("bo"), &token).await.status,
        200,
        "the connection was kept"
    );
}
