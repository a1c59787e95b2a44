//! What administrators decide: who may choose an integration, and whose account it takes.

use crate::harness::{Answer, World};
use serde_json::json;
use std::time::Duration;

async fn patch(world: &World, change: serde_json::Value) -> Answer {
    world
        .api(
            &world.key("ada"),
            "PATCH",
            &format!("v1/oauth/integrations/{}", world.integration()),
            &change.to_string(),
        )
        .await
}

async fn attach(world: &World, content: &str) -> Answer {
    let body = json!([{"oauth_integration_guid": world.integration()}]).to_string();
    world
        .api(
            &world.key("bo"),
            "PUT",
            &format!("v1/content/{content}/oauth/integrations/associations"),
            &body,
        )
        .await
}

async fn seen_by_bo(world: &World) -> bool {
    let all = world
        .api(&world.key("bo"), "GET", "v1/oauth/integrations", "")
        .await
        .json();
    let one = world
        .api(
            &world.key("bo"),
            "GET",
            &format!("v1/oauth/integrations/{}", world.integration()),
            "",
        )
        .await;
    let page = world
        .signed_in("bo")
        .await
        .get(&format!("/content-settings/{}", world.content(1)))
        .await;
    let listed = all.as_array().expect("integrations").len() == 1;
    assert_eq!(one.status, if listed { 200 } else { 404 }, "{}", one.body);
    if !listed {
        assert_eq!(one.json()["code"], 4);
    }
    assert_eq!(
        page.body.contains(&world.integration()),
        listed,
        "page and API agree"
    );
    listed
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_choose_an_integration_is_said_and_an_empty_list_is_closed() {
    let world = World::start().await;
    let (used, free) = (world.content(0), world.content(1));
    let bo = world
        .api(&world.key("bo"), "GET", "v1/user", "")
        .await
        .json()["guid"]
        .as_str()
        .expect("a guid")
        .to_owned();
    let vera = world
        .api(&world.key("vera"), "GET", "v1/user", "")
        .await
        .json()["guid"]
        .as_str()
        .expect("a guid")
        .to_owned();
    let now = patch(&world, json!({"permissions": []})).await.json();
    assert_eq!(
        (&now["availability"], &now["permissions"]),
        (&json!("everyone"), &json!([]))
    );
    assert!(seen_by_bo(&world).await);
    // Somebody else alone.
    let now = patch(
        &world,
        json!({"permissions": [{"user_guid": vera, "group_guid": null}]}),
    )
    .await
    .json();
    assert_eq!(
        (&now["availability"], &now["permissions"][0]["user_guid"]),
        (&json!("listed"), &json!(vera)),
        "{now}"
    );
    assert!(!seen_by_bo(&world).await);
    let refused = attach(&world, &free).await;
    assert_eq!(
        (refused.status, refused.json()["code"].as_i64()),
        (400, Some(207)),
        "as for one that does not exist"
    );
    // Emptied: still closed, and it says so.
    let now = patch(&world, json!({"permissions": []})).await.json();
    assert_eq!(
        (&now["availability"], &now["permissions"]),
        (&json!("nobody"), &json!([]))
    );
    assert!(!seen_by_bo(&world).await);
    // What uses it already keeps it, and its page says so.
    let settings = world
        .signed_in("bo")
        .await
        .get(&format!("/content-settings/{used}"))
        .await;
    assert!(
        settings.words().contains("no longer offers it to you"),
        "{}",
        settings.body
    );
    assert_eq!(
        attach(&world, &used).await.status,
        204,
        "saving what is there"
    );
    let (_, token) = world.connected("vera").await;
    assert_eq!(world.exchange(&world.key("bo"), &token).await.status, 200);
    // A group; then the group goes away, and with it the entry: closed, not open.
    let group = world
        .api(
            &world.key("ada"),
            "POST",
            "v1/groups",
            "{\"name\": \"Builders\"}",
        )
        .await
        .json()["guid"]
        .as_str()
        .expect("a guid")
        .to_owned();
    world
        .api(
            &world.key("ada"),
            "POST",
            &format!("v1/groups/{group}/members"),
            &json!({"user_guid": bo}).to_string(),
        )
        .await;
    let now = patch(&world, json!({"permissions": [{"group_guid": group}]})).await;
    assert_eq!(
        now.json()["permissions"][0]["group_guid"],
        json!(group),
        "{}",
        now.body
    );
    assert!(seen_by_bo(&world).await);
    assert_eq!(
        world
            .api(
                &world.key("ada"),
                "DELETE",
                &format!("v1/groups/{group}"),
                ""
            )
            .await
            .status,
        204
    );
    assert!(!seen_by_bo(&world).await);
    // Opened again, in words.
    patch(&world, json!({"availability": "everyone"})).await;
    assert!(seen_by_bo(&world).await);
    for bad in [
        json!({"permissions": [{"user_guid": bo, "group_guid": group}]}),
        json!({"permissions": [{}]}),
        json!({"permissions": "all"}),
        json!({"permissions": [{"user_guid": "nonsense"}]}),
        json!({"permissions": [{"user_guid": world.integration()}]}),
        json!({"availability": "everyone", "permissions": [{"user_guid": bo}]}),
        json!({"availability": "some"}),
    ] {
        assert_eq!(patch(&world, bad.clone()).await.status, 400, "{bad}");
    }
    assert!(seen_by_bo(&world).await, "nothing was changed");
    for key in ["bo", "vera"] {
        let tried = world
            .api(
                &world.key(key),
                "PATCH",
                &format!("v1/oauth/integrations/{}", world.integration()),
                "{\"availability\":\"nobody\"}",
            )
            .await;
        assert_eq!(
            (tried.status, tried.json()["code"].as_i64()),
            (403, Some(22)),
            "{key}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_an_integration_keeps_its_list() {
    let world = World::start().await;
    let ada = world.signed_in("ada").await;
    let address = format!("/integrations/{}", world.integration());
    let page = ada.get(&address).await;
    let done = ada
        .submit(&page, "/availability", &[("availability", "listed")])
        .await;
    let page = ada.follow(done).await;
    assert!(page.body.contains("Nobody is on the list"), "{}", page.body);
    assert!(!seen_by_bo(&world).await);
    let bo = world
        .api(&world.key("bo"), "GET", "v1/user", "")
        .await
        .json()["guid"]
        .as_str()
        .expect("a guid")
        .to_owned();
    let done = ada
        .submit(&page, "/people", &[("person", &format!("user:{bo}"))])
        .await;
    let page = ada.follow(done).await;
    assert!(
        page.body.contains("Added to the list.") && seen_by_bo(&world).await,
        "{}",
        page.body
    );
    let done = ada.submit(&page, "/remove", &[]).await;
    assert!(
        ada.follow(done)
            .await
            .body
            .contains("Nobody is on the list")
    );
    assert!(!seen_by_bo(&world).await);
    let empty = ada.submit(&page, "/people", &[("person", "")]).await;
    assert_eq!(empty.status, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_account_at_the_provider_is_compared_as_the_administrator_wants_it() {
    let world = World::start().await;
    let app = format!("/content/{}/", world.content(0));
    // Required: another account stores nothing, and the right one can be chosen.
    assert_eq!(
        patch(&world, json!({"identity_check": "require"}))
            .await
            .json()["identity_check"],
        "require"
    );
    let vera = world.signed_in("vera").await;
    let answer = vera.up_to_callback(&app, "viktor@example.org").await;
    let page = vera.get(&answer).await;
    assert!(
        page.status == 403
            && page.body.contains("That is not your account")
            && page.body.contains("vera@example.org"),
        "{}",
        page.body
    );
    assert!(
        vera.get("/consents")
            .await
            .body
            .contains("No content acts for you"),
        "nothing is stored"
    );
    let links = page.attributes("a[href*='other=yes']", "href");
    let page = vera
        .open(links.first().expect("a link"), "vera@example.org")
        .await;
    assert!(
        page.body.contains("vera@example.org")
            && page.url.starts_with(&world.app(&world.content(0))),
        "{} {}",
        page.url,
        page.body
    );
    // Not compared at all.
    patch(&world, json!({"identity_check": "off"})).await;
    let viktor = world.signed_in("viktor").await;
    let page = viktor.open(&app, "vera@example.org").await;
    assert!(
        page.body.contains("vera@example.org") && !page.url.contains("/consents"),
        "{}",
        page.url
    );
    let token = world.token(&viktor, &world.content(0)).await;
    assert_eq!(world.exchange(&world.key("bo"), &token).await.status, 200);
    // Required from now on: the connection that is there no longer counts.
    patch(&world, json!({"identity_check": "require"})).await;
    let refused = world.exchange(&world.key("bo"), &token).await;
    assert_eq!(
        (refused.status, refused.json()["payload"]["reason"].as_str()),
        (400, Some("identity_mismatch")),
        "{}",
        refused.body
    );
    assert!(
        viktor.get(&app).await.url.contains("/consents/new"),
        "asked at the next visit"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_whose_account_changes_is_stopped() {
    let world = World::start().await;
    patch(&world, json!({"identity_check": "off"})).await;
    let (vera, token) = world.connected("vera").await;
    // On the way back from the provider, with a live connection of another account.
    let start = vera
        .send(
            "GET",
            &format!("/__oauth__/integrations/{}/login", world.integration()),
            &[("accept", "text/html")],
            None,
        )
        .await;
    let asked = vera.follow(start).await;
    assert!(asked.url.contains("/consents/new"), "{}", asked.url);
    let begun = vera
        .submit(&asked, "/consents/new", &[("other", "yes")])
        .await;
    let page = vera
        .send(
            "GET",
            begun.header("location"),
            &[("accept", "text/html")],
            None,
        )
        .await;
    let done = vera
        .submit(
            &page,
            "signin",
            &[
                ("username", "viktor@example.org"),
                ("password", valetkey::demo::PASSWORD),
            ],
        )
        .await;
    let mut page = vera.follow(done).await;
    if page.body.contains("id=\"accept\"") {
        let done = vera.submit(&page, "consent", &[("choice", "accept")]).await;
        page = vera.follow(done).await;
    }
    assert!(
        page.status == 409 && page.body.contains("You are connected with another account"),
        "{}",
        page.body
    );
    assert_eq!(
        world.exchange(&world.key("bo"), &token).await.status,
        200,
        "the old connection stands"
    );
    // In a refreshed token: stopped, and the token is handed to nobody.
    world
        .provider
        .set_faults(|faults| faults.refresh_as = Some("viktor@example.org".into()));
    world.pass(Duration::from_secs(3590));
    let token = world.token(&vera, &world.content(0)).await;
    let refused = world.exchange(&world.key("bo"), &token).await;
    assert_eq!(
        (
            refused.json()["code"].as_i64(),
            refused.json()["payload"]["reason"].as_str()
        ),
        (Some(219), Some("identity_mismatch")),
        "{}",
        refused.body
    );
    assert!(
        vera.get("/consents")
            .await
            .body
            .contains("answered for another account")
    );
    let record = world
        .signed_in("ada")
        .await
        .get("/audit?action=connection_account_changed")
        .await;
    assert_eq!(record.count("tbody tr"), 2, "{}", record.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_of_somebody_elses_app_is_not_taken() {
    let world = World::start().await;
    let (ada, bo) = (world.key("ada"), world.key("bo"));
    let of_ada = "http://127.0.0.1:9/";
    let hers = json!({"name": "hers", "upstream_url": of_ada}).to_string();
    let made = world.api(&ada, "POST", "v1/content", &hers).await;
    assert_eq!(made.status, 200, "{}", made.body);
    let others = json!({"name": "others", "upstream_url": "http://127.0.0.1:9/below"});
    let refused = world
        .api(&bo, "POST", "v1/content", &others.to_string())
        .await;
    assert_eq!(refused.status, 400, "{}", refused.body);
    assert!(
        refused.body.contains("somebody else's content"),
        "{}",
        refused.body
    );
    let item = format!("v1/content/{}", world.content(0));
    let change = json!({"upstream_url": of_ada}).to_string();
    let refused = world.api(&bo, "PATCH", &item, &change).await;
    assert_eq!(refused.status, 400, "{}", refused.body);
    // An address of his own he may enter again, and an administrator any.
    let item = world.api(&bo, "GET", &item, "").await;
    let address = item.json()["proxy"]["processes"][0]["url"].clone();
    let copy = json!({"name": "copy", "upstream_url": address}).to_string();
    for key in [&bo, &ada] {
        let made = world.api(key, "POST", "v1/content", &copy).await;
        assert_eq!(made.status, 200, "{}", made.body);
    }
}
