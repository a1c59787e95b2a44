//! The origins between portal and content: one origin each, or one for all content, or none as the
//! operator says in words.

use crate::harness::{Browser, World, content_cookie};
use std::time::Duration;

/// What a browser that asks content's origin is sent to the portal with: the address, its nonce
/// already in the browser.
async fn asked(browser: &Browser, place: &str) -> String {
    let answer = browser
        .send("GET", place, &[("accept", "text/html")], None)
        .await;
    assert_eq!(answer.status, 303, "{}", answer.body);
    let address = answer.header("location").to_owned();
    assert!(address.contains("/enter/"), "{address}");
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_in_works_once_in_a_minute_and_only_in_the_browser_that_asked() {
    let world = World::start().await;
    let (vera, _) = world.connected("vera").await;
    let place = world.app(&world.content(0));
    let code_of = async |browser: &Browser, address: &str| {
        browser
            .send("GET", address, &[("accept", "text/html")], None)
            .await
            .header("location")
            .to_owned()
    };
    // In a second window of hers without content's cookie.
    let fresh = vera.only_cookies_of(&world.portal);
    let code = code_of(&fresh, &asked(&fresh, &place).await).await;
    assert!(
        code.starts_with(&place.split("/content/").next().unwrap_or("").to_owned())
            && code.contains("code="),
        "{code}"
    );
    // A code in another browser, which even asked for one itself: login CSRF.
    let viktor = world.signed_in("viktor").await;
    asked(&viktor, &place).await;
    let stolen = viktor.get(&code).await;
    assert_eq!(stolen.status, 400, "{}", stolen.body);
    assert!(stolen.body.contains("used up"), "{}", stolen.body);
    assert!(stolen.header("set-cookie").is_empty());
    // The failed try used it up for everybody.
    assert_eq!(fresh.get(&code).await.status, 400);
    // Too late.
    let code = code_of(&fresh, &asked(&fresh, &place).await).await;
    world.pass(Duration::from_secs(61));
    assert_eq!(fresh.get(&code).await.status, 400);
    // In time: once.
    let code = code_of(&fresh, &asked(&fresh, &place).await).await;
    let page = fresh.get(&code).await;
    assert!(page.body.contains("vera@example.org"), "{}", page.body);
    assert_eq!(fresh.clone_cookies().get(&code).await.status, 400);
    // The nonce of a browser that never asked is not there.
    let code = code_of(
        &vera,
        &asked(&vera.only_cookies_of(&world.portal), &place).await,
    )
    .await;
    assert_eq!(
        vera.only_cookies_of(&world.portal).get(&code).await.status,
        400
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn contents_cookie_opens_one_item_and_dies_with_the_portal_session() {
    let world = World::start().await;
    let (vera, _) = world.connected("vera").await;
    let place = world.app(&world.content(0));
    let cookies = vera.cookies_of(&place);
    let names: Vec<&String> = cookies.keys().collect();
    assert!(
        names
            .iter()
            .any(|name| **name == content_cookie(&world.content(0))),
        "{names:?}"
    );
    assert!(
        !cookies.contains_key("valetkey"),
        "the portal's cookie never goes to content's host"
    );
    // The key of one item under the name of another: nobody is there.
    let other = world.content(1);
    let key = cookies[&content_cookie(&world.content(0))].clone();
    let smuggled = Browser::new(&world.portal);
    let header = format!("{}={key}; valetkey={key}", content_cookie(&other));
    let answer = smuggled
        .send(
            "GET",
            &world.app(&other),
            &[("cookie", &header), ("accept", "application/json")],
            None,
        )
        .await;
    assert_eq!(answer.status, 401, "{}", answer.body);
    // The content key is no portal session, and the portal's is none of content's.
    let portal = vera.cookies_of(&world.portal)["valetkey"].clone();
    for (address, cookie) in [
        (
            format!("{}/consents", world.portal),
            format!("valetkey={key}"),
        ),
        (
            place.clone(),
            format!(
                "valetkey={portal}; {}={portal}",
                content_cookie(&world.content(0))
            ),
        ),
    ] {
        let answer = smuggled
            .send(
                "GET",
                &address,
                &[("cookie", &cookie), ("accept", "text/html")],
                None,
            )
            .await;
        assert_eq!(answer.status, 303, "{address}");
    }
    let page = vera.get("/content").await;
    vera.submit(&page, "/logout", &[]).await;
    let answer = vera
        .send("GET", &place, &[("accept", "application/json")], None)
        .await;
    assert_eq!(
        answer.status, 401,
        "signing out at the portal ends it at once"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_wildcard_each_item_has_an_origin_of_its_own() {
    let world = World::start_with(Some("http://*.apps.localhost:{port}")).await;
    let vera = world.signed_in("vera").await;
    let page = vera
        .open(
            &format!("/content/{}/echo?a=b", world.content(0)),
            "vera@example.org",
        )
        .await;
    let url = url::Url::parse(&page.url).expect("an address");
    let host = url.host_str().expect("a host").to_owned();
    assert!(
        host.starts_with("sales-dashboard-") && host.ends_with(".apps.localhost"),
        "{host}"
    );
    assert_eq!((url.path(), url.query()), ("/echo", Some("a=b")));
    let seen = page.json();
    let header = |name: &str| {
        let all = seen["headers"].as_array().expect("headers");
        all.iter()
            .find(|pair| pair[0] == name)
            .map(|pair| pair[1].as_str().unwrap_or("").to_owned())
    };
    assert_eq!(
        header("rstudio-connect-app-base-url"),
        Some(format!("http://{host}:{}", url.port().expect("a port")))
    );
    assert_eq!(
        (header("x-forwarded-prefix"), header("x-forwarded-host")),
        (
            None,
            Some(format!("{host}:{}", url.port().expect("a port")))
        )
    );
    assert!(
        header("cookie").is_none(),
        "no cookie of ours reaches the app"
    );
    // A cookie of this item is none of the next one's; a host that is no item's shows nothing.
    let other = format!(
        "http://no-such-item.apps.localhost:{}/",
        url.port().expect("a port")
    );
    assert_eq!(
        vera.send("GET", &other, &[("accept", "text/html")], None)
            .await
            .status,
        303,
        "to the portal's list"
    );
    assert_eq!(
        vera.send(
            "GET",
            &format!("{other}x"),
            &[("accept", "text/html")],
            None
        )
        .await
        .status,
        404
    );
    // The portal is not on content's hosts.
    for path in ["/login", "/consents", "/__api__/v1/user", "/account/keys"] {
        let answer = vera
            .send(
                "GET",
                &format!("http://{host}:{}{path}", url.port().expect("a port")),
                &[("accept", "text/html")],
                None,
            )
            .await;
        assert_eq!(
            answer.status, 404,
            "the app's own answer: {path} {}",
            answer.body
        );
        assert!(!answer.body.contains("Valetkey"));
    }
    // Leaving out the sign-in, an item's existence shows on neither host.
    let stranger = Browser::new(&world.portal);
    let unknown = stranger
        .send(
            "GET",
            "/content/198667fd-393d-4905-873c-3a9abc1f37a6/",
            &[("accept", "text/html")],
            None,
        )
        .await;
    let known = stranger
        .send(
            "GET",
            &format!("/content/{}/", world.content(0)),
            &[("accept", "text/html")],
            None,
        )
        .await;
    assert_eq!((unknown.status, known.status), (303, 303));
    assert!(
        unknown.header("location").starts_with("/login")
            && known.header("location").starts_with("/login")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn content_shares_the_portals_origin_only_by_the_operators_word() {
    let world = World::start_with(Some("same-origin")).await;
    let vera = world.signed_in("vera").await;
    let page = vera
        .open(
            &format!("/content/{}/", world.content(0)),
            "vera@example.org",
        )
        .await;
    assert!(
        page.url.starts_with(&world.portal) && page.body.contains("vera@example.org"),
        "{} {}",
        page.url,
        page.body
    );
    // Said where those look who should know.
    let ada = world.signed_in("ada").await;
    for path in ["/people", "/content"] {
        assert!(
            ada.get(path).await.body.contains("portal’s own address"),
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_portal_answers_to_its_own_name_only() {
    let world = World::start().await;
    let ada = world.signed_in("ada").await;
    for host in ["evil.example", "127.0.0.1", "portal.invalid:80", ""] {
        let answer = ada
            .send(
                "GET",
                "/account",
                &[("host", host), ("accept", "text/html")],
                None,
            )
            .await;
        assert_eq!(answer.status, 400, "{host}");
        assert!(
            !answer.body.contains(&format!("http://{host}/")),
            "{}",
            answer.body
        );
    }
    let port = world.portal.rsplit(':').next().unwrap_or("").to_owned();
    // On content's host the portal's pages are not there, whatever cookies come along.
    let cookie = format!("valetkey={}", ada.cookies_of(&world.portal)["valetkey"]);
    for path in [
        "/account",
        "/login",
        "/__api__/server_settings",
        "/integrations",
    ] {
        let answer = ada
            .send(
                "GET",
                &format!("http://localhost:{port}{path}"),
                &[("cookie", &cookie), ("accept", "text/html")],
                None,
            )
            .await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(!answer.body.contains("Ada"), "{}", answer.body);
    }
    for path in ["/__ping__", "/__health__"] {
        assert_eq!(
            ada.send("GET", path, &[("host", "10.0.0.7:8080")], None)
                .await
                .status,
            200,
            "probes ask by address"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_leads_back_to_the_portal_is_stopped() {
    let world = World::start().await;
    let port = world.portal.rsplit(':').next().unwrap_or("").to_owned();
    for address in [world.portal.clone(), format!("http://localhost:{port}")] {
        let body = serde_json::json!({"upstream_url": address}).to_string();
        let answer = world
            .api(
                &world.key("bo"),
                "PATCH",
                &format!("v1/content/{}", world.content(1)),
                &body,
            )
            .await;
        assert_eq!(answer.status, 400, "{}", answer.body);
        assert!(answer.body.contains("own address"), "{}", answer.body);
    }
}
