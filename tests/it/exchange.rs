//! The exchange: what it refuses, and what it survives.

use crate::harness::World;
use std::time::Duration;

const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const SUBJECT: &str = "urn:posit:connect:user-session-token";
const HOUR: Duration = Duration::from_secs(3500);

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_request_has_its_code_and_no_token() {
    let world = World::start().await;
    let (_, token) = world.connected("vera").await;
    let bo = world.key("bo");
    type Case<'a> = (&'a [(&'a str, &'a str)], u16, i64);
    let cases: &[Case<'_>] = &[
        (&[], 400, 210),
        (&[("grant_type", "password"), ("subject_token_type", SUBJECT), ("subject_token", &token)], 400, 213),
        (
            &[
                ("grant_type", "urn:eitf:params:oauth:grant-type:token-exchange"),
                ("subject_token_type", SUBJECT),
                ("subject_token", &token),
            ],
            400,
            213,
        ),
        (&[("grant_type", GRANT), ("subject_token_type", "jwt"), ("subject_token", &token)], 400, 214),
        (&[("grant_type", GRANT), ("subject_token_type", "urn:posit:connect:content-session-token"), ("subject_token", &token)], 400, 252),
        (&[("grant_type", GRANT), ("subject_token_type", SUBJECT)], 400, 215),
        (&[("grant_type", GRANT), ("subject_token_type", SUBJECT), ("subject_token", "rubbish")], 400, 215),
        (&[("grant_type", GRANT), ("subject_token_type", SUBJECT), ("subject_token", &token[..token.len() - 3])], 400, 215),
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
        (&[("grant_type", GRANT), ("subject_token_type", SUBJECT), ("subject_token", &token), ("subject_token", &token)], 400, 211),
    ];
    for (form, status, code) in cases {
        let answer = world.exchange_form(&bo, form).await;
        assert_eq!((answer.status, answer.json()["code"].as_i64()), (*status, Some(*code)), "{form:?} {}", answer.body);
        for key in ["error", "error_code", "error_message", "error_description", "payload"] {
            assert!(answer.json().get(key).is_some(), "{key} is missing: {}", answer.body);
        }
        assert!(!answer.body.contains("eyJ"), "a token leaked: {}", answer.body);
    }
    // Who may ask: nobody without a key, no viewer, nobody who does not run the content, not even the administrator.
    assert_eq!(world.exchange("", &token).await.json()["code"], 24);
    assert_eq!(world.exchange("vk_wrong", &token).await.json()["code"], 30);
    for name in ["vera", "viktor", "ada"] {
        assert_eq!(world.exchange(&world.key(name), &token).await.json()["code"], 22, "{name}");
    }
    let good = world.exchange(&bo, &token).await;
    assert_eq!(good.status, 200, "{}", good.body);
    assert_eq!(good.header("cache-control"), "no-store");
    assert_eq!(good.json()["issued_token_type"], "urn:ietf:params:oauth:token-type:access_token");
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
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_exchanges_on_an_expired_token_make_one_refresh() {
    let world = World::start().await;
    world.provider.set_faults(|faults| faults.single_use = true);
    let (_, token) = world.connected("vera").await;
    world.pass(HOUR);
    let (_, token) = (token, world.token(&world.signed_in("vera").await, &world.content(0)).await);
    world.provider.set_faults(|faults| faults.delay = Duration::from_millis(400));
    let before = world.provider.counts();
    let bo = world.key("bo");
    let answers = futures_util::future::join_all((0..200).map(|_| world.exchange(&bo, &token))).await;
    let after = world.provider.counts();
    assert!(answers.iter().all(|answer| answer.status == 200), "{}", answers[0].body);
    let tokens: std::collections::BTreeSet<String> = answers.iter().map(|answer| answer.json()["access_token"].to_string()).collect();
    assert_eq!(tokens.len(), 1);
    assert_eq!((after.refreshed - before.refreshed, after.replays), (1, 0));
    assert!(answers.iter().all(|answer| answer.json()["expires_in"].as_i64() >= Some(120)));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_provider_ends_no_connection() {
    let world = World::start().await;
    let (vera, token) = world.connected("vera").await;
    let bo = world.key("bo");
    world.provider.set_faults(|faults| faults.status = Some(503));
    assert_eq!(world.exchange(&bo, &token).await.status, 200, "a live token needs no provider");
    world.pass(HOUR);
    // Nearly expired, yet still valid: served while the provider is down.
    assert_eq!(world.exchange(&bo, &token).await.status, 200);
    let token = world.token(&vera, &world.content(0)).await;
    world.pass(Duration::from_secs(150));
    for body in [None, Some("<html>".to_owned()), Some("{}".to_owned()), Some("[1]".to_owned())] {
        world.provider.set_faults(|faults| {
            faults.status = if body.is_none() { Some(500) } else { None };
            faults.body = body;
        });
        let refused = world.exchange(&bo, &token).await;
        assert_eq!((refused.status, refused.json()["code"].as_i64()), (503, Some(241)), "{}", refused.body);
        assert_eq!(refused.json()["payload"]["reason"], "identity_provider_unavailable");
        assert!(!refused.header("retry-after").is_empty());
    }
    world.provider.set_faults(|faults| (faults.status, faults.body) = (None, None));
    world.pass(Duration::from_secs(31));
    let token = world.token(&world.signed_in("vera").await, &world.content(0)).await;
    assert_eq!(world.exchange(&bo, &token).await.status, 200, "it comes back by itself");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_refresh_token_asks_the_viewer_and_the_same_session_token_works_again() {
    let world = World::start().await;
    let (browser, _) = world.connected("vera").await;
    world.pass(HOUR);
    let token = world.token(&browser, &world.content(0)).await;
    let bo = world.key("bo");
    world.provider.end_everything();
    world.pass(Duration::from_secs(60));
    let refused = world.exchange(&bo, &token).await;
    assert_eq!((refused.status, refused.json()["code"].as_i64()), (400, Some(219)), "{}", refused.body);
    assert_eq!(refused.json()["payload"]["reason"], "needs_reauthorization");
    assert!(refused.json()["payload"]["login_url"].as_str().is_some_and(|url| url.contains("/consents/new")));
    let page = browser.get("/consents").await;
    assert!(page.body.contains("Needs you again") && page.body.contains("Reconnect"), "{}", page.body);
    browser.open(&format!("/content/{}/", world.content(0)), "vera").await;
    assert_eq!(world.exchange(&bo, &token).await.status, 200);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_client_secret_is_the_administrators_business() {
    let world = World::start().await;
    let (_, _) = world.connected("vera").await;
    world.pass(HOUR);
    let token = world.token(&world.signed_in("vera").await, &world.content(0)).await;
    world.pass(Duration::from_secs(120));
    world.provider.set_faults(|faults| faults.error = Some(("invalid_client".into(), 7_000_222)));
    let refused = world.exchange(&world.key("bo"), &token).await;
    assert_eq!(refused.json()["payload"]["reason"], "integration_broken", "{}", refused.body);
    assert_eq!(refused.json()["payload"]["login_url"], serde_json::Value::Null);
    let page = world.signed_in("ada").await.get("/integrations").await;
    assert!(page.body.contains("Rejected by Microsoft"), "{}", page.body);
    world.provider.set_faults(|faults| faults.error = None);
    assert_eq!(world.exchange(&world.key("bo"), &token).await.status, 200, "the connection was kept");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_token_dies_with_its_session_its_hour_and_its_access() {
    let world = World::start().await;
    let (browser, token) = world.connected("vera").await;
    let bo = world.key("bo");
    let page = browser.get("/content").await;
    browser.submit(&page, "/logout", &[]).await;
    assert_eq!(world.exchange(&bo, &token).await.json()["code"], 215, "signed out");
    let browser = world.signed_in("vera").await;
    let token = world.token(&browser, &world.content(0)).await;
    assert_eq!(world.exchange(&bo, &token).await.status, 200);
    // The list closes: the viewer may no longer open the content.
    world.api(&bo, "PATCH", &format!("v1/content/{}", world.content(0)), r#"{"access_type":"acl"}"#).await;
    assert_eq!(world.exchange(&bo, &token).await.json()["code"], 22);
    world.api(&bo, "PATCH", &format!("v1/content/{}", world.content(0)), r#"{"access_type":"logged_in"}"#).await;
    world.api(&bo, "PUT", &format!("v1/content/{}/oauth/integrations/associations", world.content(0)), "[]").await;
    assert_eq!(world.exchange(&bo, &token).await.json()["code"], 212, "no integration any more");
    world.pass(Duration::from_secs(3601));
    assert_eq!(world.exchange(&bo, &token).await.json()["code"], 215, "an hour has passed");
    // Locking ends everything at once.
    let me = world.api(&world.key("vera"), "GET", "v1/user", "").await.json();
    world.api(&world.key("ada"), "POST", &format!("v1/users/{}/lock", me["guid"].as_str().unwrap_or("")), r#"{"locked":true}"#).await;
    assert_eq!(world.api(&world.key("vera"), "GET", "v1/user", "").await.json()["code"], 30);
    assert!(browser.get("/consents").await.url.contains("/login"));
    world.stop().await;
}
