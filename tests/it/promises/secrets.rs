//! Promises 25–27: secrets at rest, keys, and a canary run through every flow.

use crate::harness::{Browser, Served, World, http_answer, serve_raw};
use serde_json::json;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use valetkey::demo::PASSWORD;

#[tokio::test(flavor = "multi_thread")]
async fn p25_a_sealed_value_opens_only_in_its_own_row_and_column() {
    let world = World::start().await;
    let (_, token) = world.connected("vera").await;
    let (_, other) = world.connected("viktor").await;
    let folder = &world.data_dir;
    let bo = world.key("bo");
    for column in ["access_token", "refresh_token"] {
        for sealed in world.sql(&format!("SELECT {column} AS value FROM connections")) {
            // Version and key id in front, then what nobody can read. Three letters would come up
            // by chance.
            assert!(
                !sealed.contains("eyJhbGciOi")
                    && !sealed.contains("eyJ0eXAi")
                    && !sealed.contains("demo-refresh")
                    && sealed.len() > 60,
                "{sealed}"
            );
        }
    }
    let key_id = std::fs::read_to_string(folder.join("keyring")).expect("the keyring");
    let sealed = world
        .sql("SELECT client_secret AS value FROM integrations")
        .remove(0);
    let id = sealed
        .split([':', '.', '$'])
        .find(|part| !part.is_empty() && key_id.contains(part))
        .unwrap_or("");
    assert!(!id.is_empty(), "the key's id stands in front of {sealed}");
    world.sql("CREATE TABLE kept AS SELECT * FROM connections");
    let restore = |column: &str| {
        format!(
            "UPDATE connections SET {column} = (SELECT {column} FROM kept WHERE kept.guid = connections.guid)"
        )
    };
    let swapped = |column: &str| {
        format!(
            "UPDATE connections SET {column} = (SELECT {column} FROM kept WHERE kept.guid <> connections.guid LIMIT 1)"
        )
    };
    let flip = "UPDATE connections SET access_token = substr(access_token, 1, length(access_token) - 4) || CASE substr(access_token, length(access_token) - 3, 1) WHEN 'A' THEN 'B' ELSE 'A' END || substr(access_token, length(access_token) - 2)";
    for (harm, mend) in [
        (swapped("access_token"), restore("access_token")),
        (
            "UPDATE connections SET access_token = refresh_token".to_owned(),
            restore("access_token"),
        ),
        (flip.to_owned(), restore("access_token")),
        (
            "UPDATE connections SET access_token = 'plain'".to_owned(),
            restore("access_token"),
        ),
    ] {
        assert_eq!(
            world.exchange(&bo, &token).await.status,
            200,
            "before {harm}"
        );
        world.sql(&harm);
        world.pass(Duration::from_secs(2));
        for token in [&token, &other] {
            let before = world.provider.counts().refreshed;
            let answer = world.exchange(&bo, token).await;
            assert_eq!(answer.status, 200, "{harm}: {}", answer.body);
            assert_eq!(
                world.provider.counts().refreshed,
                before + 1,
                "{harm}: what is stored is not used, but replaced"
            );
        }
        world.sql(&mend);
        world.pass(Duration::from_secs(2));
    }
    // The client secret of one integration in the row of another.
    let config = json!({"tenant_id": valetkey::demo::TENANT, "client_id": "3f0c2a51-7e0b-4c7e-9b1e-0a5f7f3d2c11", "client_secret": "CANARY-other", "authority_host": world.summary["identity_provider"]});
    let made = world
        .api(
            &world.key("ada"),
            "POST",
            "v1/oauth/integrations",
            &json!({"name": "Other", "template": "azure", "config": config}).to_string(),
        )
        .await;
    assert_eq!(made.status, 200, "{}", made.body);
    let guid = world.integration();
    world.sql(&format!(
        "UPDATE integrations SET client_secret = (SELECT client_secret FROM integrations WHERE guid <> '{guid}') WHERE guid = '{guid}'"
    ));
    world.pass(Duration::from_secs(3500));
    let vera = world.signed_in("vera").await;
    let token = world.token(&vera, &world.content(0)).await;
    let before = world.provider.counts().refreshed;
    let answer = world.exchange(&bo, &token).await;
    assert!(answer.status >= 500, "{} {}", answer.status, answer.body);
    assert_eq!(
        world.provider.counts().refreshed,
        before,
        "no secret of another row was sent anywhere"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p26_api_keys_are_shown_once_kept_as_hashes_and_taken_from_one_header() {
    let world = World::start().await;
    let vera = world.signed_in("vera").await;
    let page = vera.get("/account/keys").await;
    let made = vera
        .submit(&page, "/account/keys", &[("name", "mine")])
        .await;
    assert_eq!(made.status, 303, "{}", made.body);
    let address = made.header("location").to_owned();
    let shown = vera.get(&address).await;
    let key: String = shown
        .body
        .split("vk_")
        .nth(1)
        .expect("a key")
        .chars()
        .take_while(char::is_ascii_graphic)
        .take(49)
        .collect();
    let key = format!("vk_{key}");
    assert_eq!(
        key.len(),
        52,
        "prefix, 43 letters for 256 bits, 6 of checksum: {key}"
    );
    for again in [vera.get(&address).await, vera.get("/account/keys").await] {
        assert!(!again.body.contains(&key), "shown once");
    }
    assert!(
        !world
            .api(
                &key,
                "GET",
                &format!(
                    "v1/users/{}/keys",
                    world.api(&key, "GET", "v1/user", "").await.json()["guid"]
                        .as_str()
                        .expect("a guid")
                ),
                ""
            )
            .await
            .body
            .contains(&key)
    );
    for stored in world.sql("SELECT key_hash AS value FROM api_keys") {
        assert!(stored.len() == 64 && !key.contains(&stored), "{stored}");
    }
    let try_with = async |headers: &[(&str, &str)], query: &str| {
        Browser::new(&world.portal)
            .send("GET", &format!("/__api__/v1/user{query}"), headers, None)
            .await
            .status
    };
    let right = format!("Key {key}");
    assert_eq!(try_with(&[("authorization", &right)], "").await, 200);
    assert_eq!(
        try_with(&[("x-rsc-authorization", &right)], "").await,
        200,
        "the name for callers behind a gateway"
    );
    let other = if &key[20..21] == "x" { "y" } else { "x" };
    let mistyped = format!("Key {}{other}{}", &key[..20], &key[21..]);
    for (headers, query) in [
        (
            vec![("authorization", format!("Bearer {key}"))],
            String::new(),
        ),
        (vec![("authorization", key.clone())], String::new()),
        (
            vec![("authorization", format!("Basic {key}"))],
            String::new(),
        ),
        (
            vec![
                ("authorization", right.clone()),
                ("authorization", right.clone()),
            ],
            String::new(),
        ),
        (vec![("authorization", mistyped)], String::new()),
        (
            vec![("authorization", format!("Key {}", key.to_uppercase()))],
            String::new(),
        ),
        (
            vec![("cookie", format!("key={key}; authorization={right}"))],
            String::new(),
        ),
        (
            vec![],
            format!("?key={key}&api_key={key}&authorization={key}"),
        ),
        (vec![("x-api-key", key.clone())], String::new()),
    ] {
        let headers: Vec<(&str, &str)> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        assert_eq!(try_with(&headers, &query).await, 401, "{headers:?} {query}");
    }
}

/// What a browser and programs see, all of it.
#[derive(Default)]
struct Seen(Mutex<String>);

impl Seen {
    /// Without the page's own anti-forgery token, which stands in its forms, where it belongs.
    fn keep(&self, text: &str) {
        let mut parts = text.split("name=\"csrf\" value=\"");
        let mut kept = parts.next().unwrap_or("").to_owned();
        for part in parts {
            kept.push_str(part.split_once('"').map_or("", |(_, rest)| rest));
        }
        self.0.lock().expect("a text").push_str(&kept);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p27_a_canary_run_finds_no_secret_anywhere() {
    // A provider whose every secret is known.
    let number = Arc::new(Mutex::new(0));
    let count = Arc::clone(&number);
    let provider = serve_raw(move |request| {
        if request.contains("fail-on-purpose") {
            // Providers repeat what they were sent.
            let echo = format!("{{\"error\":\"invalid_request\",\"error_description\":{}}}", serde_json::Value::from(request));
            return http_answer(400, "Content-Type: application/json\r\n", &echo);
        }
        let mut number = count.lock().expect("a number");
        *number += 1;
        let body = format!("{{\"access_token\":\"CANARY-access-{number}\",\"refresh_token\":\"CANARY-refresh-{number}\",\"token_type\":\"Bearer\",\"expires_in\":4}}");
        http_answer(200, "Content-Type: application/json\r\n", &body)
    })
    .await;
    let tokens: Arc<Mutex<Vec<String>>> = Arc::default();
    let keep = Arc::clone(&tokens);
    let app = serve_raw(move |request| {
        let line = request.lines().find(|line| {
            line.to_ascii_lowercase()
                .starts_with("posit-connect-user-session-token:")
        });
        keep.lock().expect("a list").extend(
            line.and_then(|line| line.split_once(':'))
                .map(|(_, token)| token.trim().to_owned()),
        );
        http_answer(200, "", "the app")
    })
    .await;
    let bootstrap = base64_of(b"CANARY-bootstrap-CANARY-bootstrap-CANARY");
    let served = Served::start(&[
        ("VALETKEY_LOG", "trace"),
        ("VALETKEY_LOG_FORMAT", "json"),
        ("VALETKEY_PRIVATE_HOSTS", "127.0.0.1"),
        ("VALETKEY_BOOTSTRAP_SECRET", &bootstrap),
        ("VALETKEY_SIGN_IN_ISSUER", "https://login.example.invalid/"),
        ("VALETKEY_SIGN_IN_CLIENT_ID", "portal"),
        ("VALETKEY_SIGN_IN_CLIENT_SECRET", "CANARY-sign-in-secret"),
    ])
    .await;
    let seen = Seen::default();
    let key = served.administrator("ada");
    let api = async |key: &str, method: &str, path: &str, body: &str| {
        let answer = served.api(key, method, path, body).await;
        seen.keep(&answer.body);
        answer
    };
    let browser = Browser::new(&served.url());
    let mut canaries: Vec<String> = vec![
        PASSWORD.into(),
        key.clone(),
        bootstrap.clone(),
        "CANARY-bootstrap".into(),
        "CANARY-sign-in-secret".into(),
        "CANARY-client-secret".into(),
        "CANARY-new-secret".into(),
        "CANARY-wrong-password".into(),
        "CANARY-new-password".into(),
        "CANARY-code".into(),
        "CANARY-error-code".into(),
        "CANARY-access".into(),
        "CANARY-refresh".into(),
        "CANARY-state".into(),
    ];
    // Signing in, wrongly and rightly.
    let page = browser.get("/login").await;
    let wrong = browser
        .submit(
            &page,
            "/login",
            &[("username", "ada"), ("password", "CANARY-wrong-password")],
        )
        .await;
    seen.keep(&wrong.body);
    browser
        .submit(
            &page,
            "/login",
            &[("username", "ada"), ("password", PASSWORD)],
        )
        .await;
    canaries.push(
        browser.cookies_of(&served.url())["valetkey"]
            .split('=')
            .next_back()
            .unwrap_or("")
            .to_owned(),
    );
    let csrf = browser.get("/account").await.csrf();
    canaries.push(csrf.clone());
    // An integration: refused with its secret typed, then made, then changed.
    let config = |secret: &str, token: &str| json!({"authorization_uri": format!("{provider}/authorize"), "token_uri": token, "client_id": "c", "client_secret": secret, "scopes": "a offline_access"});
    let create = |config: serde_json::Value| {
        json!({"name": "Canary", "template": "custom", "config": config}).to_string()
    };
    api(
        &key,
        "POST",
        "v1/oauth/integrations",
        &create(config("CANARY-client-secret", "not an address")),
    )
    .await;
    let made = api(
        &key,
        "POST",
        "v1/oauth/integrations",
        &create(config("CANARY-client-secret", &format!("{provider}/token"))),
    )
    .await;
    let guid = made.json()["guid"].as_str().expect("a guid").to_owned();
    let form = browser.get(&format!("/integrations/{guid}/edit")).await;
    let sent = browser
        .submit(
            &form,
            "/edit",
            &[("name", ""), ("client_secret", "CANARY-new-secret")],
        )
        .await;
    seen.keep(&sent.body);
    api(
        &key,
        "PATCH",
        &format!("v1/oauth/integrations/{guid}"),
        &json!({"config": {"client_secret": "CANARY-new-secret"}}).to_string(),
    )
    .await;
    // Content, its key, a person with a one-time link, a password change, an API key.
    let content = api(
        &key,
        "POST",
        "v1/content",
        &json!({"name": "app", "access_type": "logged_in", "upstream_url": app}).to_string(),
    )
    .await;
    let content = content.json()["guid"].as_str().expect("a guid").to_owned();
    api(
        &key,
        "PUT",
        &format!("v1/content/{content}/oauth/integrations/associations"),
        &json!([{"oauth_integration_guid": guid}]).to_string(),
    )
    .await;
    let page = browser.get(&format!("/content-settings/{content}")).await;
    let made = browser.submit(&page, "/key", &[]).await;
    let content_key: String = vk(&browser.get(made.header("location")).await.body);
    canaries.push(content_key.clone());
    canaries.push(
        made.header("location")
            .rsplit('/')
            .next()
            .unwrap_or("-")
            .to_owned(),
    );
    api(
        &key,
        "POST",
        "v1/users",
        &json!({"username": "vera", "password": "CANARY-new-password"}).to_string(),
    )
    .await;
    let people = browser.get("/people").await;
    let vera_page = browser
        .get(
            &people
                .attributes("a[href^='/people/']", "href")
                .into_iter()
                .find(|link| {
                    let guid = &link["/people/".len()..];
                    guid.len() == 36 && !ada_is(&people.body, guid)
                })
                .expect("vera"),
        )
        .await;
    let made = browser.submit(&vera_page, "/invite", &[]).await;
    let link = browser.get(made.header("location")).await;
    let link = link
        .body
        .split("/setup/")
        .nth(1)
        .map(|rest| {
            rest.chars()
                .take_while(|letter| letter.is_ascii_alphanumeric() || "-_".contains(*letter))
                .collect::<String>()
        })
        .expect("a link");
    canaries.push(link.clone());
    let vera = Browser::new(&served.url());
    let page = vera.get(&format!("/setup/{link}")).await;
    vera.submit(
        &page,
        &format!("/setup/{link}"),
        &[("password", "CANARY-new-password")],
    )
    .await;
    let page = vera.get("/account").await;
    let refused = vera
        .submit(
            &page,
            "/account/password",
            &[
                ("old_password", "CANARY-wrong-password"),
                ("new_password", "CANARY-new-password"),
            ],
        )
        .await;
    seen.keep(&refused.body);
    // Consent, a failing callback, a good one.
    for code in ["CANARY-error-code-fail-on-purpose", "CANARY-code"] {
        let page = vera.get(&format!("/content/{content}/")).await;
        seen.keep(&page.body);
        let sent = vera.submit(&page, "/consents/new", &[]).await;
        let state = url::Url::parse(sent.header("location"))
            .expect("an address")
            .query_pairs()
            .find(|(key, _)| key == "state")
            .expect("a state")
            .1
            .into_owned();
        canaries.push(state.clone());
        let done = vera
            .get(&format!(
                "/__oauth__/integrations/{guid}/callback?code={code}&state={state}"
            ))
            .await;
        seen.keep(&done.body);
        seen.keep(
            &vera
                .get(&format!(
                    "/__oauth__/integrations/{guid}/callback?code={code}&state=CANARY-state"
                ))
                .await
                .body,
        );
    }
    vera.get(&format!("/content/{content}/")).await;
    let token = tokens
        .lock()
        .expect("a list")
        .last()
        .cloned()
        .expect("a session token");
    canaries.push(
        token
            .split('.')
            .next_back()
            .expect("a signature")
            .to_owned(),
    );
    canaries.extend(
        vera.cookies_of(&format!("http://localhost:{}", served.address.port()))
            .into_values(),
    );
    // Exchanges: good ones, one with a refresh, refused ones.
    let trade = async |key: &str, token: &str| {
        let body = format!(
            "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token_type=urn:posit:connect:user-session-token&subject_token={token}"
        );
        served
            .api(key, "POST", "v1/oauth/integrations/credentials", &body)
            .await
    };
    let good = trade(&content_key, &token).await;
    assert!(
        good.status == 200 && good.body.contains("CANARY-access"),
        "{}",
        good.body
    );
    tokio::time::sleep(Duration::from_millis(4200)).await;
    assert_eq!(trade(&content_key, &token).await.status, 200);
    for (key, token) in [
        (content_key.as_str(), "CANARY-state"),
        (key.as_str(), &token[..token.len() - 2]),
        ("vk_CANARY-state", token.as_str()),
    ] {
        seen.keep(&trade(key, token).await.body);
    }
    api(&content_key, "GET", "v1/user", "").await;
    // Everything that can be looked at.
    for path in [
        "/content",
        "/consents",
        "/integrations",
        "/people",
        "/audit",
        "/audit/export",
        "/audit/uses",
        "/account",
        "/account/keys",
        "/groups",
    ] {
        seen.keep(&browser.get(path).await.body);
    }
    for path in [
        "v1/oauth/integrations",
        &format!("v1/oauth/integrations/{guid}"),
        "v1/oauth/sessions?all=true",
        "v1/users",
        "v1/content",
        "v1/audit_logs?limit=500",
        "server_settings",
        "v1/oauth/templates",
    ] {
        api(&key, "GET", path, "").await;
    }
    seen.keep(&browser.get(&format!("/integrations/{guid}")).await.body);
    let consents = vera.get("/consents").await;
    seen.keep(&consents.body);
    let page = vera.get(&consents.link("/disconnect")).await;
    vera.submit(&page, "/disconnect", &[]).await;
    // The search.
    let mut places: Vec<(String, Vec<u8>)> = vec![
        (
            "an answer".into(),
            seen.0.lock().expect("a text").clone().into_bytes(),
        ),
        ("the log".into(), served.log().into_bytes()),
        (
            "the command line".into(),
            std::fs::read(format!("/proc/{}/cmdline", served.pid())).expect("the command line"),
        ),
    ];
    places.push(("the database".into(), served.dump()));
    assert!(
        places[0].1.len() > 50_000 && places[1].1.len() > 50_000,
        "{} {}",
        places[0].1.len(),
        places[1].1.len()
    );
    for canary in &canaries {
        assert!(canary.len() >= 8, "{canary}");
        // Worth nothing without its session's cookie, of which only a hash is kept.
        for (place, bytes) in places
            .iter()
            .filter(|(place, _)| *canary != csrf || place != "the database")
        {
            let at = bytes
                .windows(canary.len())
                .position(|window| window == canary.as_bytes());
            let around = at.map(|at| {
                String::from_utf8_lossy(&bytes[at.saturating_sub(200)..(at + 60).min(bytes.len())])
                    .into_owned()
            });
            assert!(at.is_none(), "{place} holds {canary}: {around:?}");
        }
    }
    use std::os::unix::fs::PermissionsExt as _;
    for file in ["keyring", "valetkey.db"] {
        // On PostgreSQL there is no such file.
        let mode = std::fs::metadata(served.data_dir.join(file))
            .map(|found| found.permissions().mode() & 0o777);
        assert!(
            mode.as_ref()
                .map_or(file == "valetkey.db", |mode| *mode == 0o600),
            "{file}: {mode:?}"
        );
    }
}

fn base64_of(bytes: &[u8]) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    STANDARD.encode(bytes)
}

fn vk(page: &str) -> String {
    let rest: String = page
        .split("vk_")
        .nth(1)
        .expect("a key")
        .chars()
        .take_while(|letter| letter.is_ascii_alphanumeric() || "-_".contains(*letter))
        .collect();
    format!("vk_{rest}")
}

/// Whether the row of a person on the people page is ada's.
fn ada_is(page: &str, guid: &str) -> bool {
    page.split(guid)
        .nth(1)
        .is_some_and(|rest| rest.get(..80).unwrap_or(rest).contains("ada"))
}
