//! The promises of the design, one test each, named by its number: attacks on a running server.

use crate::harness::{Browser, World};
use std::time::Duration;

/// A try to sign in from a browser of its own, with whatever headers.
async fn try_password(world: &World, name: &str, password: &str, forwarded_for: &str) -> (u16, String, String) {
    let browser = Browser::new(&world.portal);
    let page = browser.get("/login").await;
    let csrf = page.csrf();
    let body = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs([("csrf", csrf.as_str()), ("username", name), ("password", password)])
        .finish();
    let answer = browser.send("POST", "/login", &[("accept", "text/html"), ("x-forwarded-for", forwarded_for)], Some(body)).await;
    let page = answer.body.replace(&csrf, "").replace(name, "NAME");
    (answer.status, answer.header("retry-after").to_owned(), page)
}

#[tokio::test(flavor = "multi_thread")]
async fn p05_guessing_is_slowed_down_for_one_name_and_for_nobody_else() {
    let world = World::start().await;
    for name in ["vera", "nobody-of-this-name"] {
        for number in 0..10 {
            let (status, ..) = try_password(&world, name, "wrong password", &format!("203.0.113.{number}")).await;
            assert_eq!(status, 422, "{name}, try {number}");
        }
        let (status, retry_after, page) = try_password(&world, name, "wrong password", "203.0.113.99").await;
        assert_eq!(status, 429, "{name}");
        assert!((1..=300).contains(&retry_after.parse::<u64>().expect("seconds")), "{retry_after}");
        assert!(page.contains("Try again in") && page.contains("not locked"), "{page}");
    }
    assert_eq!(try_password(&world, "vera", "valetkey-demo", "").await.0, 429, "a guesser who hits is not let in, either");
    assert_eq!(try_password(&world, "viktor", "valetkey-demo", "").await.0, 303, "another person is not held up");
    world.pass(Duration::from_secs(301));
    assert_eq!(try_password(&world, "vera", "valetkey-demo", "").await.0, 303, "never for good");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p06_wrong_password_unknown_name_and_locked_account_look_alike() {
    let world = World::start().await;
    let people = world.api(&world.key("ada"), "GET", "v1/users?prefix=viktor", "").await;
    let viktor = people.json()["results"][0]["guid"].as_str().expect("a guid").to_owned();
    let locked = world.api(&world.key("ada"), "POST", &format!("v1/users/{viktor}/lock"), "{\"locked\": true}").await;
    assert_eq!(locked.status, 200, "{}", locked.body);
    let wrong = try_password(&world, "vera", "wrong password", "").await;
    assert_eq!(wrong.0, 422);
    assert_eq!(wrong, try_password(&world, "nobody", "wrong password", "").await);
    assert_eq!(wrong, try_password(&world, "viktor", "valetkey-demo", "").await, "locked, with the right password");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p09_scripts_and_frames_get_no_page_of_the_portal() {
    let world = World::start().await;
    let ada = world.signed_in("ada").await;
    for path in ["/content", "/consents", "/integrations", "/people", "/account", "/account/keys", "/audit", "/no-such-page"] {
        for marks in [
            [("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty")],
            [("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "script")],
            [("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")],
            [("sec-fetch-site", "same-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "object")],
        ] {
            let answer = ada.send("GET", path, &marks, None).await;
            assert_eq!(answer.status, 403, "{path} {marks:?}");
            assert!(!answer.body.contains("csrf") && !answer.body.contains("Ada"), "{path}: {}", answer.body);
        }
    }
    let window = [("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document"), ("accept", "text/html")];
    assert_eq!(ada.send("GET", "/account", &window, None).await.status, 200);
    world.stop().await;
}
