//! Promises 11–17: this portal as an OAuth client.

use crate::harness::{Answer, Browser, World, http_answer, serve_raw};
use serde_json::json;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

/// An integration of any kind with addresses of the test's own, used by the second content item.
async fn custom(world: &World, authorize: &str, token: &str, more: serde_json::Value) -> String {
    let mut config = json!({"authorization_uri": authorize, "token_uri": token, "client_id": "c", "client_secret": "CANARY-secret", "scopes": "a offline_access"});
    for (key, value) in more.as_object().expect("settings") {
        config[key] = value.clone();
    }
    let made = world
        .api(
            &world.key("ada"),
            "POST",
            "v1/oauth/integrations",
            &json!({"name": "Custom", "template": "custom", "config": config}).to_string(),
        )
        .await;
    assert_eq!(made.status, 200, "{}", made.body);
    let guid = made.json()["guid"].as_str().expect("a guid").to_owned();
    let path = format!(
        "v1/content/{}/oauth/integrations/associations",
        world.content(1)
    );
    let attached = world
        .api(
            &world.key("bo"),
            "PUT",
            &path,
            &json!([{"oauth_integration_guid": guid}]).to_string(),
        )
        .await;
    assert_eq!(attached.status, 204, "{}", attached.body);
    guid
}

/// Clicks on our consent page; where the browser is sent.
async fn click(world: &World, browser: &Browser, content: usize) -> url::Url {
    let page = browser
        .get(&format!("/content/{}/", world.content(content)))
        .await;
    assert!(
        page.url.contains("/consents/new"),
        "{} {}",
        page.url,
        page.body
    );
    let answer = browser.submit(&page, "/consents/new", &[]).await;
    url::Url::parse(answer.header("location"))
        .unwrap_or_else(|_| panic!("{} {}", answer.status, answer.body))
}

fn pairs(url: &url::Url) -> BTreeMap<String, String> {
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let map: BTreeMap<_, _> = pairs.iter().cloned().collect();
    assert_eq!(map.len(), pairs.len(), "nothing twice: {url}");
    map
}

/// The provider's answer with a code comes back to where the request said.
async fn answer(browser: &Browser, asked: &url::Url, more: &str) -> Answer {
    let asked = pairs(asked);
    browser
        .get(&format!(
            "{}?code=CANARY-code&state={}{more}",
            asked["redirect_uri"], asked["state"]
        ))
        .await
}

async fn nothing_is_stored(browser: &Browser) {
    let page = browser.get("/consents").await;
    assert!(
        page.body.contains("No content acts for you"),
        "{}",
        page.body
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p11_authorization_requests_are_fresh_and_ask_for_what_is_configured() {
    let world = World::start().await;
    let vera = world.signed_in("vera").await;
    let (first, second) = (
        pairs(&click(&world, &vera, 0).await),
        pairs(&click(&world, &vera, 0).await),
    );
    for asked in [&first, &second] {
        let names: Vec<&str> = asked.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "client_id",
                "code_challenge",
                "code_challenge_method",
                "login_hint",
                "redirect_uri",
                "response_mode",
                "response_type",
                "scope",
                "state"
            ]
        );
        assert_eq!(
            (
                asked["response_type"].as_str(),
                asked["code_challenge_method"].as_str()
            ),
            ("code", "S256")
        );
        assert_eq!(asked["response_mode"], "query");
        assert_eq!(
            asked["scope"],
            "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d/.default offline_access"
        );
        // 256 bits each, in base64url.
        assert!(
            asked["state"].len() == 43 && asked["code_challenge"].len() == 43,
            "{asked:?}"
        );
        assert!(
            asked["redirect_uri"].starts_with(&format!("{}/__oauth__/integrations/", world.portal))
        );
    }
    assert_ne!(first["state"], second["state"]);
    assert_ne!(first["code_challenge"], second["code_challenge"]);
    // Another Host builds no other address: it is not even answered.
    let page = vera
        .get(&format!("/consents/new?content={}", world.content(0)))
        .await;
    let body = format!(
        "csrf={}&content={}&integration={}&return=%2Fconsents",
        page.csrf(),
        world.content(0),
        world.integration()
    );
    let forged = vera
        .send(
            "POST",
            "/consents/new",
            &[
                ("host", "evil.example"),
                ("x-forwarded-host", "evil.example"),
            ],
            Some(body.clone()),
        )
        .await;
    assert_eq!(forged.status, 400);
    let forwarded = vera
        .send(
            "POST",
            "/consents/new",
            &[
                ("x-forwarded-host", "evil.example"),
                ("forwarded", "host=evil.example"),
            ],
            Some(body),
        )
        .await;
    assert!(
        !forwarded.header("location").contains("evil"),
        "{}",
        forwarded.header("location")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p12_an_answer_is_taken_once_in_time_and_only_where_it_began() {
    let world = World::start().await;
    let app = format!("/content/{}/", world.content(0));
    let vera = world.signed_in("vera").await;
    let answer = vera.up_to_callback(&app, "vera@example.org").await;
    assert!(
        answer.contains(&format!(
            "/__oauth__/integrations/{}/callback",
            world.integration()
        )),
        "typed-in addresses have a callback of their own"
    );
    // Another browser, somebody else, another callback, a forged state: nothing happens, and
    // nothing is asked of the provider.
    let viktor = world.signed_in("viktor").await;
    let elsewhere = answer.replace(&format!("/{}/callback", world.integration()), "/callback");
    let forged = format!(
        "{}&state=forged",
        answer.split("state=").next().unwrap_or("")
    );
    for (browser, address) in [
        (&viktor, &answer),
        (&world.signed_in("vera").await, &answer),
        (&vera, &elsewhere),
        (&vera, &forged),
    ] {
        let page = browser.get(address).await;
        assert_eq!(page.status, 400, "{}", page.body);
        assert!(
            page.body.contains("does not belong to your session"),
            "{}",
            page.body
        );
    }
    assert_eq!(world.provider.counts().redeemed, 0);
    assert_eq!(vera.get(&answer).await.status, 200);
    assert_eq!(world.provider.counts().redeemed, 1);
    // A reload with everything in place goes on silently; after a disconnect it explains itself.
    assert!(vera.get(&answer).await.url.ends_with(&app));
    let page = vera.get("/consents").await;
    let page = vera.get(&page.link("/disconnect")).await;
    vera.submit(&page, "/disconnect", &[]).await;
    let again = vera.get(&answer).await;
    assert!(again.body.contains("already used"), "{}", again.body);
    // Ten minutes.
    let late = vera.up_to_callback(&app, "vera@example.org").await;
    world.pass(Duration::from_secs(601));
    let page = vera.get(&late).await;
    assert!(page.body.contains("took too long"), "{}", page.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn p13_an_answer_from_another_provider_than_the_one_asked_is_refused() {
    let seen = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&seen);
    let provider = serve_raw(move |_| {
        *counted.lock().expect("a count") += 1;
        http_answer(
            200,
            "Content-Type: application/json\r\n",
            "{\"access_token\":\"x\",\"token_type\":\"Bearer\"}",
        )
    })
    .await;
    let world = World::start().await;
    let vera = world.signed_in("vera").await;
    let one = custom(
        &world,
        &format!("{provider}/authorize"),
        &format!("{provider}/token"),
        json!({"issuer": "https://one.example"}),
    )
    .await;
    // What it says about itself is asked when it is saved.
    let asked_before = *seen.lock().expect("a count");
    // It says its name in each answer (RFC 9207): another name, and none, are refused.
    for more in [
        "&iss=https%3A%2F%2Fother.example",
        "&iss=https%3A%2F%2Fone.example%2F",
        "&iss=HTTPS%3A%2F%2Fone.example",
        "",
        "&iss=",
    ] {
        let page = answer(&vera, &click(&world, &vera, 1).await, more).await;
        assert_eq!(page.status, 400, "{more}: {}", page.body);
        assert!(
            page.body.contains("Another provider answered"),
            "{more}: {}",
            page.body
        );
    }
    // An answer at the callback of another integration, or at the shared one.
    let asked = pairs(&click(&world, &vera, 1).await);
    let elsewhere = asked["redirect_uri"].replace(&one, &world.integration());
    let shared = asked["redirect_uri"].replace(&format!("{one}/"), "");
    assert!(asked["redirect_uri"].contains(&one) && elsewhere != shared);
    for callback in [elsewhere, shared] {
        let page = vera
            .get(&format!(
                "{callback}?code=x&state={}&iss=https%3A%2F%2Fone.example",
                asked["state"]
            ))
            .await;
        assert_eq!(page.status, 400, "{callback}");
    }
    assert_eq!(
        *seen.lock().expect("a count"),
        asked_before,
        "no request to any provider"
    );
    nothing_is_stored(&vera).await;
    // The right one.
    answer(
        &vera,
        &click(&world, &vera, 1).await,
        "&iss=https%3A%2F%2Fone.example",
    )
    .await;
    assert_eq!(*seen.lock().expect("a count"), asked_before + 1);
    // Microsoft, if it names somebody else.
    let page = answer(
        &vera,
        &click(&world, &vera, 0).await,
        "&iss=https%3A%2F%2Flogin.microsoftonline.com%2Fother%2Fv2.0",
    )
    .await;
    assert!(
        page.body.contains("Another provider answered"),
        "{}",
        page.body
    );
    assert_eq!(world.provider.counts().redeemed, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn p14_consent_starts_only_with_a_click_on_our_page_that_names_what_is_asked() {
    let world = World::start().await;
    let vera = world.signed_in("vera").await;
    let provider = world.summary["identity_provider"]
        .as_str()
        .expect("an address")
        .to_owned();
    // Whatever is opened, nothing leads to the provider by itself.
    for path in [
        format!("/content/{}/", world.content(0)),
        format!(
            "/consents/new?content={}&integration={}&csrf=x",
            world.content(0),
            world.integration()
        ),
        format!("/__oauth__/integrations/{}/login", world.integration()),
    ] {
        let mut answer = vera
            .send("GET", &path, &[("accept", "text/html")], None)
            .await;
        for _ in 0..6 {
            assert!(!answer.header("location").starts_with(&provider), "{path}");
            if !(300..400).contains(&answer.status) {
                break;
            }
            let next = url::Url::parse(&answer.url)
                .and_then(|base| base.join(answer.header("location")))
                .expect("an address");
            answer = vera
                .send("GET", next.as_str(), &[("accept", "text/html")], None)
                .await;
        }
        assert_eq!(answer.status, 200, "{path}");
    }
    let page = vera.get(&format!("/content/{}/", world.content(0))).await;
    let host = url::Url::parse(&provider)
        .expect("an address")
        .host_str()
        .expect("a host")
        .to_owned();
    for word in [
        "Azure Databricks",
        &host,
        "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d/.default",
        "offline_access",
        "Sales dashboard",
        "Bo Lind",
    ] {
        assert!(page.body.contains(word), "{word} in {}", page.body);
    }
    // A connection alone hands out nothing: the click is what counts.
    let (viktor, token) = world.connected("viktor").await;
    world.revoke_consent(&viktor).await;
    world.assert_not_consented(&token).await;
    let asked = viktor.get(&format!("/content/{}/", world.content(0))).await;
    assert!(asked.url.contains("/consents/new"), "{}", asked.url);
    world.assert_not_consented(&token).await;
    viktor.submit(&asked, "/consents/new", &[]).await;
    let answer = world.exchange(&world.key("bo"), &token).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    // A click of somebody else's page, or one without this session's token.
    let body = |csrf: &str| {
        format!(
            "csrf={csrf}&content={}&integration={}&return=%2Fconsents",
            world.content(0),
            world.integration()
        )
    };
    for (headers, csrf) in [
        (vec![("sec-fetch-site", "cross-site")], page.csrf()),
        (vec![("sec-fetch-site", "same-site")], page.csrf()),
        (vec![("origin", "http://localhost:1")], page.csrf()),
        (vec![], "wrong".to_owned()),
        (
            vec![],
            world.signed_in("viktor").await.get("/account").await.csrf(),
        ),
    ] {
        assert_eq!(
            vera.send("POST", "/consents/new", &headers, Some(body(&csrf)))
                .await
                .status,
            403,
            "{headers:?}"
        );
    }
    // For content that does not use the integration, or that this person may not open.
    let other = format!(
        "csrf={}&content={}&integration={}&return=%2Fconsents",
        page.csrf(),
        world.content(1),
        world.integration()
    );
    assert_eq!(
        vera.send(
            "POST",
            "/consents/new",
            &[("accept", "text/html")],
            Some(other)
        )
        .await
        .status,
        404
    );
    nothing_is_stored(&vera).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p15_secrets_travel_to_their_token_address_and_nowhere_else() {
    let stolen = Arc::new(Mutex::new(Vec::<String>::new()));
    let keep = Arc::clone(&stolen);
    let thief = serve_raw(move |request| {
        keep.lock().expect("a list").push(request);
        http_answer(
            200,
            "Content-Type: application/json\r\n",
            "{\"access_token\":\"x\",\"token_type\":\"Bearer\"}",
        )
    })
    .await;
    let (asked, moving) = (
        Arc::new(Mutex::new(Vec::<String>::new())),
        Arc::new(Mutex::new(Some(307))),
    );
    let (seen, now, to) = (Arc::clone(&asked), Arc::clone(&moving), thief.clone());
    let provider = serve_raw(move |request| {
        seen.lock().expect("a list").push(request);
        match *now.lock().expect("a status") {
            Some(status) => http_answer(status, &format!("Location: {to}/steal\r\n"), ""),
            None => http_answer(
                200,
                "Content-Type: application/json\r\n",
                "{\"access_token\":\"a\",\"refresh_token\":\"CANARY-refresh\",\"token_type\":\"Bearer\",\"expires_in\":1}",
            ),
        }
    })
    .await;
    let world = World::start().await;
    let vera = world.signed_in("vera").await;
    custom(
        &world,
        &format!("{thief}/authorize"),
        &format!("{provider}/token"),
        json!({"token_endpoint_auth_method": "client_secret_basic"}),
    )
    .await;
    for status in [301, 302, 303, 307, 308] {
        *moving.lock().expect("a status") = Some(status);
        let page = answer(&vera, &click(&world, &vera, 1).await, "").await;
        assert!(
            page.status != 303 && page.body.contains("<h1>"),
            "{status}: {}",
            page.body
        );
        nothing_is_stored(&vera).await;
    }
    // Connected; then the refresh is sent elsewhere.
    *moving.lock().expect("a status") = None;
    answer(&vera, &click(&world, &vera, 1).await, "").await;
    let token = world.token(&vera, &world.content(1)).await;
    *moving.lock().expect("a status") = Some(307);
    world.pass(Duration::from_secs(5));
    let refused = world.exchange(&world.key("bo"), &token).await;
    assert!(
        refused.status >= 400 && !refused.body.contains("access_token"),
        "{}",
        refused.body
    );
    let asked = asked.lock().expect("a list").join("\n");
    assert!(
        asked.contains("CANARY-code") && asked.contains("CANARY-refresh"),
        "the right place got them"
    );
    // The client secret goes into a header, never into an address.
    assert!(
        asked
            .lines()
            .all(|line| !line.starts_with("POST") || line == "POST /token HTTP/1.1"),
        "{asked}"
    );
    assert!(
        stolen
            .lock()
            .expect("a list")
            .iter()
            // The authorization address was asked for its metadata when it was saved.
            .all(|request| request.starts_with("GET /.well-known/") && !request.contains("CANARY")),
        "{:?}",
        stolen.lock()
    );
    // A server that nobody vouches for.
    let port = tls_server().await;
    custom(
        &world,
        &format!("{thief}/authorize"),
        &format!("https://127.0.0.1:{port}/token"),
        json!({}),
    )
    .await;
    let viktor = world.signed_in("viktor").await;
    let page = answer(&viktor, &click(&world, &viktor, 1).await, "").await;
    assert!(page.body.contains("is not answering"), "{}", page.body);
    nothing_is_stored(&viktor).await;
}

/// A server with a certificate of its own making.
async fn tls_server() -> u16 {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
    use tokio::io::AsyncReadExt as _;
    let certificate =
        CertificateDer::from_pem_slice(include_bytes!("self_signed.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("self_signed.key")).expect("a key");
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a server");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            if let Ok(mut tls) = acceptor.accept(socket).await {
                let mut request = Vec::new();
                let _ = tls.read_to_end(&mut request).await;
                assert!(
                    request.is_empty(),
                    "a server that nobody vouches for was told: {}",
                    String::from_utf8_lossy(&request)
                );
            }
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn p16_repointing_an_integration_asks_demands_the_secret_and_signs_everyone_out() {
    let world = World::start().await;
    let (_, token) = world.connected("vera").await;
    let ada = world.signed_in("ada").await;
    let address = format!("/integrations/{}/edit", world.integration());
    let page = ada.get(&address).await;
    let (tenant, client) = (
        "5b1c2d3e-4f50-4617-8293-a4b5c6d7e8f0",
        "3f0c2a51-7e0b-4c7e-9b1e-0a5f7f3d2c11",
    );
    let authority = world.summary["identity_provider"]
        .as_str()
        .expect("an address")
        .to_owned();
    let scopes = "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d/.default offline_access";
    let mut values = vec![
        ("name", "Azure Databricks"),
        ("tenant_id", tenant),
        ("client_id", client),
        ("authority_host", authority.as_str()),
        ("scopes", scopes),
    ];
    let answer = ada.submit(&page, "/edit", &values).await;
    assert_eq!(answer.status, 422);
    assert!(
        answer.body.contains("Enter the client secret again"),
        "{}",
        answer.body
    );
    values.push(("client_secret", "a-new-one"));
    let answer = ada.submit(&page, "/edit", &values).await;
    assert!(
        answer.body.contains("This signs out 1 person") && answer.body.contains("Vera Holm"),
        "{}",
        answer.body
    );
    assert!(!answer.body.contains("a-new-one"));
    assert_eq!(
        world.exchange(&world.key("bo"), &token).await.status,
        200,
        "nothing happened yet"
    );
    values.push(("confirmed", "yes"));
    assert_eq!(ada.submit(&page, "/edit", &values).await.status, 303);
    assert_eq!(
        world.exchange(&world.key("bo"), &token).await.json()["code"],
        220
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p17_whatever_a_provider_answers_the_flow_ends_on_a_page_of_ours() {
    let said: Arc<Mutex<Vec<u8>>> = Arc::default();
    let next = Arc::clone(&said);
    let provider = serve_raw(move |_| next.lock().expect("an answer").clone()).await;
    let world = World::start().await;
    let vera = world.signed_in("vera").await;
    custom(
        &world,
        &format!("{provider}/authorize"),
        &format!("{provider}/token"),
        json!({}),
    )
    .await;
    let json = "Content-Type: application/json\r\n";
    let deep = format!(
        "{{\"access_token\":{}1{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let endless = {
        let mut bytes =
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 268435456\r\n\r\n{\"access_token\":\"".to_vec();
        bytes.extend(vec![b'x'; 8 << 20]);
        bytes
    };
    let cases: Vec<Vec<u8>> = vec![
        http_answer(
            200,
            "Content-Type: text/html\r\n",
            "<script>alert('provider')</script>",
        ),
        http_answer(500, "Content-Type: text/html\r\n", "<h1>provider</h1>"),
        http_answer(403, "", ""),
        http_answer(200, json, ""),
        http_answer(200, json, "null"),
        http_answer(200, json, "[1,2]"),
        http_answer(200, json, "{}"),
        http_answer(
            200,
            json,
            "{\"access_token\":\"\",\"token_type\":\"Bearer\"}",
        ),
        http_answer(200, json, "{\"access_token\":5,\"token_type\":\"Bearer\"}"),
        http_answer(
            200,
            json,
            "{\"access_token\":\"a\\r\\nX-Evil: 1\",\"token_type\":\"Bearer\"}",
        ),
        http_answer(200, json, "{\"access_token\":\"a\",\"token_type\":\"mac\"}"),
        http_answer(200, json, &deep),
        http_answer(
            400,
            json,
            "{\"error\":\"<b>provider</b>\",\"error_description\":\"<script>provider</script>\"}",
        ),
        http_answer(
            400,
            json,
            "{\"error\":\"invalid_grant\",\"error_description\":\"AADSTS54005: provider\"}",
        ),
        http_answer(401, json, "{\"error\":\"invalid_client\"}"),
        http_answer(200, json, "\u{202e}{\"access_token\""),
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n\xff\xfe"
            .to_vec(),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense".to_vec(),
        b"SSH-2.0-OpenSSH\r\n".to_vec(),
        Vec::new(),
        endless,
    ];
    for (number, case) in cases.into_iter().enumerate() {
        *said.lock().expect("an answer") = case;
        let asked = click(&world, &vera, 1).await;
        let page = answer(&vera, &asked, "").await;
        assert!(
            page.url.starts_with(&world.portal) && page.body.contains("Valetkey"),
            "case {number}: {} {}",
            page.status,
            page.url
        );
        assert!(
            matches!(page.status, 200 | 400..=499 | 502 | 503),
            "case {number}: {}",
            page.status
        );
        assert!(
            !page.body.contains("provider</") && !page.body.contains("alert("),
            "case {number}: {}",
            page.body
        );
        assert!(
            page.body.contains("href=\"/content"),
            "a way on, case {number}: {}",
            page.body
        );
        nothing_is_stored(&vera).await;
        assert_eq!(
            answer(&vera, &asked, "").await.status,
            400,
            "the flow has ended, case {number}"
        );
    }
}
