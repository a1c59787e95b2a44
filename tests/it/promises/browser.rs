//! Promises 7–10: the portal in the browser.

use crate::harness::{Browser, World};
use valetkey::demo::PASSWORD;

#[tokio::test(flavor = "multi_thread")]
async fn p07_nothing_changes_without_this_sessions_token_from_our_own_pages() {
    let world = World::start().await;
    let ada = world.signed_in("ada").await;
    let page = ada.get("/people/new").await;
    let values = [
        ("username", "mallory"),
        ("role", "administrator"),
        ("password", "long enough"),
    ];
    let body = |csrf: &str| {
        url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(values)
            .append_pair("csrf", csrf)
            .finish()
    };
    let token = page.csrf();
    for (headers, csrf) in [
        (vec![], ""),
        (vec![], "wrong"),
        (vec![("origin", "https://evil.example")], token.as_str()),
        (vec![("sec-fetch-site", "cross-site")], token.as_str()),
        (vec![("sec-fetch-site", "same-site")], token.as_str()),
    ] {
        let answer = ada
            .send("POST", "/people/new", &headers, Some(body(csrf)))
            .await;
        assert_eq!(answer.status, 403, "{headers:?} {}", answer.body);
    }
    let huge = format!("csrf={token}&username={}", "x".repeat(70_000));
    assert_eq!(
        ada.send("POST", "/people/new", &[], Some(huge))
            .await
            .status,
        413
    );
    assert!(!ada.get("/people").await.body.contains("mallory"));
    // A viewer's page of the administrator's area is refused, not hidden behind a login.
    let vera = world.signed_in("vera").await;
    for path in [
        "/integrations",
        "/integrations/new",
        "/people",
        "/audit",
        "/content/new",
    ] {
        assert_eq!(vera.get(path).await.status, 403, "{path}");
    }
    // Nobody is sent to another site after signing in.
    let stranger = Browser::new(&world.portal);
    let page = stranger.get("/login?next=//evil.example").await;
    let answer = stranger
        .submit(
            &page,
            "/login",
            &[("username", "vera"), ("password", "valetkey-demo")],
        )
        .await;
    assert_eq!(answer.header("location"), "/content");
    // Cookies alone authenticate nothing for programs.
    let answer = ada
        .send(
            "GET",
            "/__api__/v1/user",
            &[("accept", "application/json")],
            None,
        )
        .await;
    assert_eq!(answer.json()["code"], 24);
    let answer = ada
        .send(
            "POST",
            "/__api__/v1/groups",
            &[("sec-fetch-site", "same-origin")],
            Some("{\"name\":\"x\"}".into()),
        )
        .await;
    assert_eq!(answer.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn p08_every_answer_carries_the_browser_policy_and_tells_nothing() {
    let world = World::start().await;
    let ada = world.signed_in("ada").await;
    let vera = world.signed_in("vera").await;
    let mut answers = Vec::new();
    for path in [
        "/login",
        "/content",
        "/integrations",
        "/audit",
        "/nothing",
        "/people/nonsense",
        "/integrations/new",
        "/__api__/server_settings",
        "/__ping__",
        "/__health__",
    ] {
        answers.push(ada.get(path).await);
    }
    answers.push(vera.get("/integrations").await);
    answers.push(
        vera.send(
            "GET",
            "/account",
            &[("host", "evil.example"), ("accept", "text/html")],
            None,
        )
        .await,
    );
    answers.push(vera.send("TRACE", "/account", &[], None).await);
    answers.push(vera.send("POST", "/login", &[], Some("x=1".into())).await);
    answers.push(
        vera.send(
            "POST",
            "/people/new",
            &[],
            Some(format!("csrf=x&a={}", "x".repeat(70_000))),
        )
        .await,
    );
    answers.push(vera.send("GET", "/__api__/v1/nothing", &[], None).await);
    answers.push(vera.send("GET", "/__api__/v1/users/%00", &[], None).await);
    answers.push(vera.send("GET", "/content?before=%ff%fe", &[], None).await);
    answers.push(
        vera.send("GET", "/audit?before=x", &[("accept", "text/html")], None)
            .await,
    );
    answers.push(world.api(&world.key("ada"), "POST", "v1/users", "{").await);
    answers.push(world.api("vk_wrong", "GET", "v1/user", "").await);
    let mut statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    statuses.dedup();
    for wanted in [200, 400, 401, 403, 404, 405, 413] {
        assert!(statuses.contains(&wanted), "{wanted} in {statuses:?}");
    }
    for answer in &answers {
        for (name, value) in [
            ("content-security-policy", "frame-ancestors 'none'"),
            ("content-security-policy", "default-src 'none'"),
            ("content-security-policy", "script-src 'self';"),
            ("content-security-policy", "base-uri 'none'"),
            ("x-content-type-options", "nosniff"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
            ("referrer-policy", "same-origin"),
            ("cache-control", "no-store"),
        ] {
            assert!(
                answer.header(name).contains(value),
                "{}: {name} is {:?}",
                answer.url,
                answer.header(name)
            );
        }
        assert!(!answer.header("content-security-policy").contains("unsafe"));
        assert!(answer.header("server").is_empty() && answer.header("x-powered-by").is_empty());
        assert!(
            !answer.body.contains("<script>")
                && !answer.body.contains(" style=")
                && !answer.body.contains(" onclick="),
            "{}",
            answer.url
        );
        for word in [
            "SELECT ",
            "sqlite",
            "diesel",
            "actix",
            "panicked",
            "/src/",
            "stack backtrace",
            env!("CARGO_PKG_VERSION"),
        ] {
            assert!(!answer.body.contains(word), "{}: {word}", answer.url);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p09_scripts_and_frames_get_no_page_of_the_portal() {
    for content_url in [None, Some("same-origin")] {
        let world = World::start_with(content_url).await;
        let ada = world.signed_in("ada").await;
        for path in [
            "/content",
            "/consents",
            "/integrations",
            "/people",
            "/account",
            "/account/keys",
            "/audit",
            "/no-such-page",
        ] {
            for marks in [
                [
                    ("sec-fetch-site", "same-origin"),
                    ("sec-fetch-mode", "cors"),
                    ("sec-fetch-dest", "empty"),
                ],
                [
                    ("sec-fetch-site", "same-origin"),
                    ("sec-fetch-mode", "no-cors"),
                    ("sec-fetch-dest", "script"),
                ],
                [
                    ("sec-fetch-site", "same-origin"),
                    ("sec-fetch-mode", "navigate"),
                    ("sec-fetch-dest", "iframe"),
                ],
                [
                    ("sec-fetch-site", "same-site"),
                    ("sec-fetch-mode", "navigate"),
                    ("sec-fetch-dest", "object"),
                ],
            ] {
                let answer = ada.send("GET", path, &marks, None).await;
                assert_eq!(answer.status, 403, "{path} {marks:?}");
                assert!(
                    !answer.body.contains("csrf") && !answer.body.contains("Ada"),
                    "{path}: {}",
                    answer.body
                );
            }
        }
        let window = [
            ("sec-fetch-site", "none"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
            ("accept", "text/html"),
        ];
        assert_eq!(ada.send("GET", "/account", &window, None).await.status, 200);
        // And by origin: no answer of the portal may be read by another one.
        for path in ["/account", "/__api__/v1/user", "/login"] {
            let answer = ada
                .send(
                    "GET",
                    path,
                    &[("origin", "http://localhost:1"), ("accept", "text/html")],
                    None,
                )
                .await;
            assert!(
                answer.header("access-control-allow-origin").is_empty(),
                "{path}"
            );
        }
        let preflight = [
            ("origin", "http://localhost:1"),
            ("access-control-request-method", "POST"),
        ];
        let answer = ada.send("OPTIONS", "/people/new", &preflight, None).await;
        assert!(answer.status >= 400 && answer.header("access-control-allow-origin").is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p10_no_parameter_sends_a_browser_to_another_site() {
    let world = World::start().await;
    let ours = [
        world.portal.clone(),
        world.portal.replace("127.0.0.1", "localhost"),
        world.summary["identity_provider"]
            .as_str()
            .expect("an address")
            .to_owned(),
    ];
    let vera = world.signed_in("vera").await;
    let content = world.content(0);
    for evil in [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example/",
        "/%09/evil.example",
        "/\t/evil.example",
        "/%2f/evil.example",
        "/..//evil.example",
        "/.//evil.example",
        "/content/..//evil.example",
        "\\\\evil.example",
        "javascript:alert(1)",
        "/x\r\nLocation: https://evil.example",
        "http:evil.example",
        "///evil.example",
        "/@evil.example",
        "@evil.example",
    ] {
        let query: String = url::form_urlencoded::byte_serialize(evil.as_bytes()).collect();
        let lands = |answer: &crate::harness::Answer| {
            let location = answer.header("location").to_owned();
            if location.is_empty() {
                return;
            }
            let target = url::Url::parse(&answer.url)
                .and_then(|base| base.join(&location))
                .expect("an address");
            assert!(
                ours.iter()
                    .any(|origin| target.origin().ascii_serialization() == *origin),
                "{evil:?} led to {target}"
            );
            assert!(answer.headers.get_all("location").iter().count() == 1);
        };
        // After a sign-in.
        let stranger = Browser::new(&world.portal);
        let page = stranger.get(&format!("/login?next={query}")).await;
        lands(
            &stranger
                .submit(
                    &page,
                    "/login",
                    &[("username", "vera"), ("password", PASSWORD), ("next", evil)],
                )
                .await,
        );
        lands(
            &vera
                .send(
                    "GET",
                    &format!("/login?next={query}"),
                    &[("accept", "text/html")],
                    None,
                )
                .await,
        );
        lands(
            &stranger
                .send(
                    "GET",
                    &format!("/login/organisation?next={query}"),
                    &[("accept", "text/html")],
                    None,
                )
                .await,
        );
        // Before, during and after a consent.
        for path in [
            format!("/consents/new?content={content}&return={query}"),
            format!("/enter/{content}?nonce=x&path={query}"),
            format!("/account/confirm?next={query}"),
            format!("/content/{content}/{query}"),
            format!(
                "/__oauth__/integrations/{}/login?return={query}&next={query}",
                world.integration()
            ),
        ] {
            lands(
                &vera
                    .send("GET", &path, &[("accept", "text/html")], None)
                    .await,
            );
        }
        let page = vera.get(&format!("/content/{content}/")).await;
        let integration = world.integration();
        if page.url.contains("/consents/new") {
            lands(
                &vera
                    .submit(
                        &page,
                        "/consents/new",
                        &[
                            ("content", &content),
                            ("integration", &integration),
                            ("return", evil),
                        ],
                    )
                    .await,
            );
        }
        let page = vera.get("/account/confirm").await;
        lands(
            &vera
                .submit(
                    &page,
                    "/account/confirm",
                    &[("confirm_password", PASSWORD), ("next", evil)],
                )
                .await,
        );
        let page = vera.get("/account").await;
        lands(
            &vera
                .submit(
                    &page,
                    "/account/theme",
                    &[("theme", "dark"), ("next", evil), ("return", evil)],
                )
                .await,
        );
    }
}
