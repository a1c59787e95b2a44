//! Promises 50 to 56, and what a late review found: pages of other sites, odd cookies, attributes
//! that identity checks compare, callbacks that anybody can write, odd paths and headers.

use crate::harness::{World, http_answer, raw, serve_raw};
use serde_json::json;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(5);

/// An item with an app that counts its requests, and the browser of a viewer who is connected.
struct Counted {
    world: World,
    vera: crate::harness::Browser,
    item: String,
    requests: Arc<AtomicUsize>,
}

impl Counted {
    /// `fields` are header lines of every response of the app.
    async fn new(fields: &'static str) -> Self {
        let world = World::start().await;
        let (vera, _) = world.connected("vera").await;
        let item = world.content(0);
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&requests);
        let app = serve_raw(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n{fields}Content-Length: 2\r\nConnection: close\r\n\r\nok"
            )
            .into_bytes()
        })
        .await;
        let made = Self {
            world,
            vera,
            item,
            requests,
        };
        made.set(json!({"upstream_url": app})).await;
        made
    }

    async fn set(&self, body: serde_json::Value) {
        let path = format!("v1/content/{}", self.item);
        let key = self.world.key("bo");
        let answer = self
            .world
            .api(&key, "PATCH", &path, &body.to_string())
            .await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    /// The status of a request with these headers, and whether the app got it.
    async fn send(&self, method: &str, headers: &[(&str, &str)]) -> (u16, bool) {
        let before = self.requests.load(Ordering::SeqCst);
        let body = (method == "POST").then(|| "run".to_owned());
        let place = self.world.app(&self.item);
        let answer = self.vera.send(method, &place, headers, body).await;
        let reached = self.requests.load(Ordering::SeqCst) > before;
        (answer.status, reached)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p50_a_page_of_another_site_cannot_make_an_app_act() {
    let app = Counted::new("").await;
    let navigation = |site, dest| {
        [
            ("sec-fetch-site", site),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", dest),
        ]
    };
    for site in ["same-site", "cross-site", "something-new"] {
        let simple = [("sec-fetch-site", site), ("sec-fetch-mode", "no-cors")];
        assert_eq!(app.send("POST", &simple).await, (403, false), "{site}");
        assert_eq!(app.send("GET", &simple).await, (403, false), "{site}");
        let form = navigation(site, "document");
        assert_eq!(app.send("POST", &form).await, (403, false), "{site}");
        assert_eq!(app.send("GET", &form).await, (200, true), "a link");
        let frame = navigation(site, "iframe");
        assert_eq!(app.send("GET", &frame).await, (403, false), "{site}");
    }
    for site in ["same-origin", "none"] {
        let own = [("sec-fetch-site", site), ("sec-fetch-mode", "cors")];
        assert_eq!(app.send("POST", &own).await, (200, true), "{site}");
    }
    // Browsers without Fetch Metadata, and programs.
    let elsewhere = [("origin", "https://elsewhere.example")];
    assert_eq!(app.send("POST", &elsewhere).await, (403, false));
    assert_eq!(app.send("POST", &[("origin", "null")]).await, (403, false));
    let place = app.world.app(&app.item);
    let own = url::Url::parse(&place).expect("an address").origin();
    let own = own.ascii_serialization();
    assert_eq!(app.send("POST", &[("origin", &own)]).await, (200, true));
    assert_eq!(app.send("POST", &[]).await, (200, true));
    // It stands in the record, with its viewer.
    let ada = app.world.signed_in("ada").await;
    let record = ada.get("/audit?action=access_refused").await;
    let words = record.words();
    assert!(words.contains("request of another site"), "{words}");
    assert!(words.contains("vera"), "{words}");
    // The publisher allows one origin.
    let allowed = json!({"proxy": {"allowed_origins": ["https://intranet.example/"]}});
    app.set(allowed).await;
    let from = |origin| {
        [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "cors"),
            ("origin", origin),
        ]
    };
    let intranet = from("https://intranet.example");
    assert_eq!(app.send("POST", &intranet).await, (200, true));
    let other = from("https://elsewhere.example");
    assert_eq!(app.send("POST", &other).await, (403, false));
    let wrong = json!({"proxy": {"allowed_origins": ["intranet"]}});
    let path = format!("v1/content/{}", app.item);
    let answer = app
        .world
        .api(&app.world.key("bo"), "PATCH", &path, &wrong.to_string())
        .await;
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("allowed_origins"), "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn p50_an_app_is_framed_by_its_own_pages_unless_it_says_otherwise() {
    let policy = async |app: &Counted| {
        let answer = app.vera.get(&app.world.app(&app.item)).await;
        let all = answer.headers.get_all("content-security-policy").iter();
        all.map(|value| value.to_str().expect("ASCII").to_owned())
            .collect::<Vec<_>>()
    };
    let app = Counted::new("").await;
    assert_eq!(policy(&app).await, ["frame-ancestors 'self'"]);
    let allowed = json!({"proxy": {"allowed_origins": ["https://intranet.example"]}});
    app.set(allowed).await;
    assert_eq!(
        policy(&app).await,
        ["frame-ancestors 'self' https://intranet.example"]
    );
    drop(app);
    let app = Counted::new("Content-Security-Policy: Frame-Ancestors *\r\n").await;
    assert_eq!(policy(&app).await, ["Frame-Ancestors *"]);
    drop(app);
    let app = Counted::new("Content-Security-Policy: default-src 'self'\r\n").await;
    assert_eq!(
        policy(&app).await,
        ["default-src 'self'", "frame-ancestors 'self'"]
    );
    drop(app);
    let app = Counted::new("X-Frame-Options: DENY\r\n").await;
    assert!(policy(&app).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn p51_no_bytes_of_a_cookie_change_who_asks() {
    let app = Counted::new("").await;
    let (portal, place) = (&app.world.portal, app.world.app(&app.item));
    let ask = async |host: &str, path: &str, cookies: Vec<(String, String)>| {
        let mut bytes =
            format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: text/html\r\nConnection: close\r\nCookie: ")
                .into_bytes();
        // Latin-1, a lone quote, a control-free byte soup, and then ours.
        bytes.extend_from_slice(b"name=J\xfcrgen; x=\"; \xff\xfe=\xfd; ");
        for (name, value) in cookies {
            bytes.extend_from_slice(format!("{name}={value}; ").as_bytes());
        }
        bytes.extend_from_slice("last=Größe\r\n\r\n".as_bytes());
        raw(portal, &bytes, PATIENCE).await
    };
    let host = portal.trim_start_matches("http://");
    let own = app.vera.cookies_of(portal).into_iter().collect();
    let answer = ask(host, "/account", own).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("Vera"), "{answer}");
    let (host, path) = place
        .trim_start_matches("http://")
        .split_once('/')
        .expect("a path");
    let before = app.requests.load(Ordering::SeqCst);
    let own = app.vera.cookies_of(&place).into_iter().collect();
    let answer = ask(host, &format!("/{path}"), own).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(app.requests.load(Ordering::SeqCst), before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn p52_only_administrators_change_what_an_identity_check_compares() {
    let world = World::start().await;
    let (vera, ada) = (world.key("vera"), world.key("ada"));
    let me = world.api(&vera, "GET", "v1/user", "").await.json();
    let path = format!("v1/users/{}", me["guid"].as_str().expect("a guid"));
    for body in [
        r#"{"email": "viktor@example.com"}"#,
        r#"{"username": "viktor2"}"#,
    ] {
        let answer = world.api(&vera, "PUT", &path, body).await;
        assert_eq!(answer.status, 403, "{body}: {}", answer.body);
    }
    let now = world.api(&vera, "GET", "v1/user", "").await.json();
    assert_eq!(
        (&now["email"], &now["username"]),
        (&me["email"], &me["username"])
    );
    // Names are one's own, and saying what is there already changes nothing.
    let own = json!({"first_name": "Verena", "email": me["email"]});
    let answer = world.api(&vera, "PUT", &path, &own.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let body = r#"{"email": "vera.new@example.com"}"#;
    assert_eq!(world.api(&ada, "PUT", &path, body).await.status, 200);
    let record = world
        .signed_in("ada")
        .await
        .get("/audit?action=person_changed")
        .await;
    let before = me["email"].as_str().expect("an address");
    let change = format!("e-mail address {before} to vera.new@example.com");
    assert!(record.words().contains(&change), "{}", record.words());
}

#[tokio::test(flavor = "multi_thread")]
async fn p53_more_scopes_need_a_new_consent_and_the_client_secret() {
    let world = World::start().await;
    let (vera, token) = world.connected("vera").await;
    let (ada, bo) = (world.key("ada"), world.key("bo"));
    assert_eq!(world.exchange(&bo, &token).await.status, 200);
    let path = format!("v1/oauth/integrations/{}", world.integration());
    let before = world.api(&ada, "GET", &path, "").await.json();
    let scopes = before["config"]["scopes"].as_str().expect("scopes");
    let more = format!("{scopes} openid");
    let change = json!({"config": {"scopes": more}});
    let refused = world.api(&ada, "PATCH", &path, &change.to_string()).await;
    assert_eq!(refused.status, 400, "{}", refused.body);
    assert!(refused.body.contains("client secret"), "{}", refused.body);
    assert_eq!(world.exchange(&bo, &token).await.status, 200);
    let secret = world.provider.client_secret().to_owned();
    let change = json!({"config": {"scopes": more, "client_secret": secret}});
    let saved = world.api(&ada, "PATCH", &path, &change.to_string()).await;
    assert_eq!(saved.status, 200, "{}", saved.body);
    // The tokens that the next refresh brings can do more than Vera agreed to.
    let refused = world.exchange(&bo, &token).await;
    assert_eq!(refused.status, 400, "{}", refused.body);
    let page = vera.get(&format!("/content/{}/", world.content(0))).await;
    assert!(page.words().contains("asks for more"), "{}", page.words());
    // What she agrees to is what she was shown.
    let old = [("scopes", scopes)];
    let again = vera.submit(&page, "/consents/new", &old).await;
    let again = vera.get(again.header("location")).await;
    assert!(again.words().contains("asks for more"), "{}", again.words());
    assert_ne!(world.exchange(&bo, &token).await.status, 200);
    vera.submit(&again, "/consents/new", &[]).await;
    assert_eq!(world.exchange(&bo, &token).await.status, 200);
    // Fewer scopes need no new consent, but the secret.
    let change = json!({"config": {"scopes": scopes, "client_secret": secret}});
    let saved = world.api(&ada, "PATCH", &path, &change.to_string()).await;
    assert_eq!(saved.status, 200, "{}", saved.body);
    assert_eq!(world.exchange(&bo, &token).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_that_anybody_can_write_says_nothing_about_the_integration() {
    for query in [
        "error=invalid_client&error_description=AADSTS7000222%3A+expired",
        "error=unauthorized_client",
        "error=access_denied&error_description=AADSTS7000222%3A+expired",
    ] {
        let world = World::start().await;
        let vera = world.signed_in("vera").await;
        let app = format!("/content/{}/", world.content(0));
        let answer = vera.up_to_callback(&app, "vera@example.org").await;
        let (address, given) = answer.split_once('?').expect("a query");
        let state = given.split("state=").nth(1).expect("a state");
        let failed = vera.get(&format!("{address}?{query}&state={state}")).await;
        assert!(!failed.url.contains("/content/"), "{}", failed.url);
        let page = world
            .signed_in("ada")
            .await
            .get(&format!("/integrations/{}", world.integration()))
            .await;
        assert!(
            !page.words().contains("Rejected"),
            "{query}: {}",
            page.words()
        );
        // The attempt is over.
        let again = vera.get(&answer).await;
        assert!(again.words().contains("used"), "{}", again.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dot_segments_in_any_disguise_never_reach_an_app() {
    let app = Counted::new("").await;
    let place = app.world.app(&app.item);
    let (host, base) = place
        .trim_start_matches("http://")
        .split_once('/')
        .expect("a path");
    let cookies = app.vera.cookies_of(&place);
    let cookies: Vec<String> = cookies
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let cookies = cookies.join("; ");
    let ask = async |path: &str| {
        let before = app.requests.load(Ordering::SeqCst);
        let request = format!(
            "GET /{base}{path} HTTP/1.1\r\nHost: {host}\r\nCookie: {cookies}\r\nConnection: close\r\n\r\n"
        );
        let answer = raw(&app.world.portal, request.as_bytes(), PATIENCE).await;
        let status = answer.split(' ').nth(1).unwrap_or("").to_owned();
        (status, app.requests.load(Ordering::SeqCst) > before)
    };
    for path in [
        "..;/admin",
        "a/..;x=1/admin",
        "a/..%3b/admin",
        "a/%2e%2e;/admin",
        "a/..%253b/admin",
        "a/..%252fadmin",
        "a/%252e%252e/admin",
        "a/%25252e%25252e/admin",
        "a/.;/admin",
        "a%5c..%5cadmin",
        "a%255c..%255cadmin",
    ] {
        assert_eq!(ask(path).await, ("400".to_owned(), false), "{path}");
    }
    for path in [
        "a;x=1/b",
        "a..b/c",
        "a/%2fb",
        "a%252fb",
        "caf%c3%a9",
        "..a/b",
    ] {
        assert_eq!(ask(path).await, ("200".to_owned(), true), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn head_and_options_are_answered_as_http_says() {
    let world = World::start().await;
    let ada = world.key("ada");
    let browser = world.signed_in("vera").await;
    for path in ["/__ping__", "/__health__", "/login", "/account"] {
        let get = browser
            .send("GET", path, &[("accept", "text/html")], None)
            .await;
        let head = browser
            .send("HEAD", path, &[("accept", "text/html")], None)
            .await;
        assert_eq!(head.status, get.status, "{path}");
        assert!(head.body.is_empty(), "{path}");
        assert_eq!(
            head.header("content-type"),
            get.header("content-type"),
            "{path}"
        );
        let options = browser.send("OPTIONS", path, &[], None).await;
        assert_eq!(options.status, 204, "{path}");
        assert!(options.header("allow").contains("HEAD"), "{path}");
    }
    let head = world.api(&ada, "HEAD", "v1/user", "").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(world.api(&ada, "HEAD", "v1/nothing", "").await.status, 404);
    assert_eq!(world.api(&ada, "OPTIONS", "v1/user", "").await.status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_without_words_end_no_connection() {
    let world = World::start().await;
    let bo = world.key("bo");
    let (vera, _) = world.connected("vera").await;
    world.pass(Duration::from_secs(3500));
    let mut token = world.token(&vera, &world.content(0)).await;
    world.pass(Duration::from_secs(150));
    // An HTML page, as a gateway on the way answers, for half an hour.
    world
        .provider
        .set_faults(|faults| faults.status = Some(400));
    for _ in 0..5 {
        let refused = world.exchange(&bo, &token).await;
        assert_eq!(refused.status, 503, "{}", refused.body);
        world.pass(Duration::from_secs(400));
        token = world.token(&vera, &world.content(0)).await;
    }
    world.provider.set_faults(|faults| faults.status = None);
    world.pass(Duration::from_secs(400));
    assert_eq!(world.exchange(&bo, &token).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_brings_another_kind_of_token_is_refused() {
    let world = World::start().await;
    let bo = world.key("bo");
    let (vera, _) = world.connected("vera").await;
    world.pass(Duration::from_secs(3500));
    let token = world.token(&vera, &world.content(0)).await;
    world.pass(Duration::from_secs(150));
    let body =
        r#"{"access_token": "proof-of-possession", "token_type": "pop", "expires_in": 3600}"#;
    world
        .provider
        .set_faults(|faults| faults.body = Some(body.to_owned()));
    let refused = world.exchange(&bo, &token).await;
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(
        !refused.body.contains("proof-of-possession"),
        "{}",
        refused.body
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_who_is_locked_while_the_code_is_redeemed_is_not_connected() {
    let world = Arc::new(World::start().await);
    let vera = world.signed_in("vera").await;
    let app = format!("/content/{}/", world.content(0));
    let callback = vera.up_to_callback(&app, "vera@example.org").await;
    world
        .provider
        .set_faults(|faults| faults.delay = Duration::from_secs(2));
    let redeeming = tokio::spawn(async move { vera.get(&callback).await.status });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let me = world
        .api(&world.key("vera"), "GET", "v1/user", "")
        .await
        .json();
    let lock = format!("v1/users/{}/lock", me["guid"].as_str().expect("a guid"));
    let locked = world
        .api(&world.key("ada"), "POST", &lock, r#"{"locked": true}"#)
        .await;
    assert_eq!(locked.status, 200, "{}", locked.body);
    let status = redeeming.await.expect("an answer");
    assert!(status >= 300, "{status}");
    assert_eq!(world.sql("SELECT guid AS value FROM connections").len(), 0);
    assert_eq!(world.sql("SELECT guid AS value FROM consents").len(), 0);
    // The tokens that came too late are revoked at the provider.
    let queued = world.sql("SELECT provider AS value FROM revocations");
    assert_eq!(queued.len(), 1, "{queued:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_ends_makes_none_that_outlives_it() {
    let world = World::start().await;
    let ada = world.key("ada");
    let me = world.api(&ada, "GET", "v1/user", "").await.json();
    let path = format!("v1/users/{}/keys", me["guid"].as_str().expect("a guid"));
    let end = "2030-01-31T08:00:00Z";
    let body = json!({"name": "ends", "expires_at": end}).to_string();
    let ends = world.api(&ada, "POST", &path, &body).await.json();
    let key = ends["key"].as_str().expect("the key").to_owned();
    for body in [
        json!({"name": "forever"}),
        json!({"name": "longer", "expires_at": "2031-01-01T00:00:00Z"}),
    ] {
        let made = world.api(&key, "POST", &path, &body.to_string()).await;
        assert_eq!(made.status, 200, "{}", made.body);
    }
    let ends = world.sql("SELECT CAST(expires_at AS TEXT) AS value FROM api_keys WHERE name IN ('ends', 'forever', 'longer')");
    assert_eq!(ends.len(), 3);
    assert!(ends.iter().all(|end| *end == ends[0]), "{ends:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn p52_a_person_is_told_what_others_changed_about_their_account() {
    let world = World::start().await;
    let vera = world.signed_in("vera").await;
    let me = world.api(&world.key("vera"), "GET", "v1/user", "").await;
    let me = me.json();
    let path = format!("v1/users/{}", me["guid"].as_str().expect("a guid"));
    let change = r#"{"email": "vera.new@example.com"}"#;
    let changed = world.api(&world.key("ada"), "PUT", &path, change).await;
    assert_eq!(changed.status, 200, "{}", changed.body);
    let page = vera.get("/content").await;
    let before = me["email"].as_str().expect("an address");
    let told = format!("e-mail address {before} to vera.new@example.com");
    assert!(page.words().contains(&told), "{}", page.words());
    vera.submit(&page, "/account/notice/dismiss", &[]).await;
    let page = vera.get("/content").await;
    assert!(!page.words().contains(&told), "{}", page.words());
    // One's own change is no news.
    let own = r#"{"first_name": "Verena"}"#;
    world.api(&world.key("vera"), "PUT", &path, own).await;
    assert_eq!(vera.get("/content").await.count(".note form"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_does_not_open_is_refreshed_and_stops_no_page() {
    let world = World::start().await;
    let (vera, token) = world.connected("vera").await;
    world.sql("UPDATE connections SET access_token = 'v1.damaged.value'");
    let app = world.app(&world.content(0));
    for page in ["/consents", "/content", app.as_str()] {
        assert_eq!(vera.get(page).await.status, 200, "{page}");
    }
    let answer = world.exchange(&world.key("bo"), &token).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let sealed = world.sql("SELECT access_token AS value FROM connections");
    assert_ne!(sealed, ["v1.damaged.value"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_issuer_of_a_custom_integration_comes_from_discovery() {
    let world = World::start().await;
    let ada = world.key("ada");
    let own = Arc::new(std::sync::OnceLock::new());
    let known = Arc::clone(&own);
    let server = serve_raw(move |request| {
        let base: &String = known.get().expect("an address");
        let metadata = json!({"issuer": format!("{base}/realm"),
            "authorization_endpoint": format!("{base}/realm/oauth/authorize"),
            "token_endpoint": format!("{base}/realm/oauth/token"),
            "authorization_response_iss_parameter_supported": true});
        if request.starts_with("GET /realm/.well-known/openid-configuration ") {
            http_answer(
                200,
                "Content-Type: application/json\r\n",
                &metadata.to_string(),
            )
        } else {
            http_answer(404, "", "")
        }
    })
    .await;
    own.set(server.clone()).expect("an address");
    let body = |issuer: &str| {
        let config = json!({"client_id": "c", "client_secret": "s3cret-of-the-test", "issuer": issuer,
            "authorization_uri": format!("{server}/realm/oauth/authorize"),
            "token_uri": format!("{server}/realm/oauth/token"), "scopes": "a"});
        json!({"name": "Found", "template": "custom", "config": config}).to_string()
    };
    let path = "v1/oauth/integrations";
    let wrong = world
        .api(&ada, "POST", path, &body("https://other.example"))
        .await;
    assert_eq!(wrong.status, 400, "{}", wrong.body);
    assert!(wrong.body.contains("/realm"), "{}", wrong.body);
    let made = world.api(&ada, "POST", path, &body("")).await;
    assert_eq!(made.status, 200, "{}", made.body);
    let issuer = made.json()["config"]["issuer"].clone();
    assert_eq!(issuer, json!(format!("{server}/realm")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_used_meanwhile_is_not_ended_as_unused() {
    let world = World::start().await;
    let _vera = world.connected("vera").await;
    let connection = world.sql("SELECT guid AS value FROM connections").remove(0);
    let id = connection.parse().expect("an id");
    let states = || world.sql("SELECT state AS value FROM connections");
    // The purge has found it; before it gets there the viewer comes.
    let found_before = world.now();
    world.pass(Duration::from_secs(60));
    world.sql(&format!(
        "UPDATE connections SET used_at = {}",
        world.now().0
    ));
    let revocations = &world.services.revocations;
    let ended = revocations.expire_unused(id, found_before).await;
    ended.expect("a look at it");
    assert_eq!(states(), ["active"]);
    world.pass(Duration::from_secs(60));
    let ended = revocations.expire_unused(id, world.now()).await;
    ended.expect("its end");
    assert_eq!(states(), ["needs_login"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspected_leak_of_a_deleted_item_is_dropped() {
    let world = World::start().await;
    let _vera = world.connected("vera").await;
    let viewer = "SELECT guid AS value FROM people WHERE username = 'vera'";
    let viewer = world.sql(viewer).remove(0);
    let items = [world.content(0), world.content(1)];
    let left = world.now().0 - 3_600_000;
    for item in &items {
        world.sql(&format!("INSERT INTO visits (content, process, person, node, here, since, seen_at) VALUES ('{item}', '', '{viewer}', 'n', FALSE, 1, {left})"));
        let now = world.now().0;
        world.sql(&format!("INSERT INTO token_uses (content, process, person, used_at) VALUES ('{item}', '', '{viewer}', {now})"));
    }
    let mut alarm = valetkey::service::auditing::leaks::Alarm::default();
    let mut look = async || world.services.leaks.look_for_leaks(&mut alarm).await;
    look().await.expect("a first look");
    let path = format!("v1/content/{}", items[0]);
    let gone = world.api(&world.key("bo"), "DELETE", &path, "").await;
    assert!(gone.status < 300, "{}", gone.body);
    // Reported when it is confirmed, and once only.
    for _ in 0..3 {
        world.pass(Duration::from_secs(26));
        look().await.expect("a look");
    }
    let leaks = world.sql("SELECT content AS value FROM leaks");
    assert_eq!(leaks, [items[1].clone()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_database_without_tables_is_new() {
    use valetkey::store::{DatabaseUrl, is_new};
    let Some(place) = crate::harness::database() else {
        return;
    };
    let (empty, used) = (place.clone(), World::start().await);
    let asked = tokio::task::spawn_blocking(move || {
        let unreachable = "postgres://nobody@127.0.0.1:1/none".to_owned().into();
        let used = used.database.as_ref().expect("a database");
        [
            is_new(&empty),
            is_new(used),
            is_new(&DatabaseUrl::Postgresql(unreachable)),
        ]
    });
    let [empty, used, unreachable] = asked.await.expect("three answers");
    assert!(empty.expect("an answer"));
    assert!(!used.expect("an answer"));
    assert!(unreachable.is_err(), "which is no new database");
}
