//! Promises 1–6: who gets in, and for how long.

use crate::harness::{Browser, Served, World};
use std::time::Duration;
use valetkey::demo::PASSWORD;

fn session(browser: &Browser, world: &World) -> String {
    browser.cookies_of(&world.portal)["valetkey"].clone()
}

/// Whether a session cookie alone still opens a page.
async fn opens(world: &World, cookie: &str) -> bool {
    let header = format!("valetkey={cookie}");
    Browser::new(&world.portal)
        .send(
            "GET",
            "/account",
            &[("cookie", &header), ("accept", "text/html")],
            None,
        )
        .await
        .status
        == 200
}

async fn guid(world: &World, name: &str) -> String {
    world
        .api(&world.key(name), "GET", "v1/user", "")
        .await
        .json()["guid"]
        .as_str()
        .expect("a guid")
        .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn p01_signing_in_out_or_changing_role_gives_a_new_session() {
    let world = World::start().await;
    // In: what the browser had before is nobody's, and an attacker who planted it gains nothing.
    let browser = Browser::new(&world.portal);
    let page = browser.get("/login").await;
    let planted = session(&browser, &world);
    browser
        .submit(
            &page,
            "/login",
            &[("username", "bo"), ("password", PASSWORD)],
        )
        .await;
    let first = session(&browser, &world);
    assert_ne!(planted, first);
    assert!(opens(&world, &first).await && !opens(&world, &planted).await);
    // Role: somebody else's change ends it; one's own gives a new one.
    let change = format!("v1/users/{}", guid(&world, "bo").await);
    assert_eq!(
        world
            .api(
                &world.key("ada"),
                "PUT",
                &change,
                "{\"user_role\": \"administrator\"}"
            )
            .await
            .status,
        200
    );
    assert!(!opens(&world, &first).await);
    let ada = world.signed_in("ada").await;
    let before = session(&ada, &world);
    let page = ada
        .get(&format!("/people/{}", guid(&world, "ada").await))
        .await;
    let path = format!("/people/{}", guid(&world, "ada").await);
    let saved = ada
        .submit(
            &page,
            &path,
            &[
                ("username", "ada"),
                ("email", "ada@example.org"),
                ("role", "publisher"),
            ],
        )
        .await;
    assert_eq!(saved.status, 303, "{}", saved.body);
    let after = session(&ada, &world);
    assert_ne!(before, after);
    assert!(opens(&world, &after).await && !opens(&world, &before).await);
    // Out.
    let page = ada.get("/account").await;
    ada.submit(&page, "/logout", &[]).await;
    assert!(!opens(&world, &after).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn p02_one_cookie_carries_authority_and_only_this_host_over_tls_gets_it() {
    let served = Served::start(&[("VALETKEY_PUBLIC_URL", "https://portal.example.org")]).await;
    served.administrator("ada");
    let browser = Browser::new(&served.url());
    let host = ("host", "portal.example.org");
    let page = browser
        .send("GET", "/login", &[host, ("accept", "text/html")], None)
        .await;
    let body = format!("csrf={}&username=ada&password={PASSWORD}", page.csrf());
    let answer = browser
        .send(
            "POST",
            "/login",
            &[host, ("accept", "text/html")],
            Some(body),
        )
        .await;
    assert_eq!(answer.status, 303, "{}", answer.body);
    let cookies: Vec<&str> = answer
        .headers
        .get_all("set-cookie")
        .iter()
        .filter_map(|cookie| cookie.to_str().ok())
        .collect();
    assert_eq!(cookies.len(), 1, "{cookies:?}");
    let parts: Vec<String> = cookies[0]
        .split(';')
        .map(|part| part.trim().to_ascii_lowercase())
        .collect();
    assert!(parts[0].starts_with("__host-valetkey="), "{cookies:?}");
    for wanted in ["secure", "httponly", "samesite=lax", "path=/"] {
        assert!(
            parts.iter().any(|part| part == wanted),
            "{wanted} in {cookies:?}"
        );
    }
    assert!(
        !parts.iter().any(|part| part.starts_with("domain")),
        "{cookies:?}"
    );
    // At least 128 random bits: two sessions share nothing but their form.
    let value = parts[0].split_once('=').expect("a value").1.to_owned();
    assert!(value.len() >= 43, "{value}");
    // No other cookie carries authority: without this one nobody is there.
    let header = format!("__Host-valetkey-x={value}; valetkey={value}; valetkey-theme=dark");
    let answer = browser
        .send(
            "GET",
            "/account",
            &[host, ("cookie", &header), ("accept", "text/html")],
            None,
        )
        .await;
    assert_eq!(answer.status, 303);
}

#[tokio::test(flavor = "multi_thread")]
async fn p03_sessions_end_and_locking_ends_everything_at_once() {
    let world = World::start().await;
    // Eight hours idle.
    let idle = world.signed_in("viktor").await;
    world.pass(Duration::from_secs(8 * 3600 - 60));
    assert!(opens(&world, &session(&idle, &world)).await);
    world.pass(Duration::from_secs(8 * 3600 + 60));
    assert!(!opens(&world, &session(&idle, &world)).await);
    // Seven days, however busy.
    let busy = world.signed_in("viktor").await;
    for _ in 0..27 {
        world.pass(Duration::from_secs(6 * 3600));
        assert!(opens(&world, &session(&busy, &world)).await);
        // The last use is written every ten seconds.
        let used = world.now().minus(Duration::from_secs(60)).0;
        world.write_bookkeeping().await;
        let query = "SELECT CAST(max(seen_at) AS TEXT) AS value FROM sessions";
        assert!(world.sql(query)[0].parse::<i64>().unwrap_or(0) >= used);
    }
    world.pass(Duration::from_secs(6 * 3600 + 60));
    assert!(!opens(&world, &session(&busy, &world)).await);
    // Locked: session, API key and session token, within a second.
    let (vera, token) = world.connected("vera").await;
    let (cookie, key) = (session(&vera, &world), world.key("vera"));
    assert_eq!(world.exchange(&world.key("bo"), &token).await.status, 200);
    let lock = format!("v1/users/{}/lock", guid(&world, "vera").await);
    let started = std::time::Instant::now();
    assert_eq!(
        world
            .api(&world.key("ada"), "POST", &lock, "{\"locked\": true}")
            .await
            .status,
        200
    );
    assert!(!opens(&world, &cookie).await);
    assert_eq!(world.api(&key, "GET", "v1/user", "").await.status, 401);
    assert_eq!(
        world.exchange(&world.key("bo"), &token).await.json()["code"],
        215
    );
    assert_eq!(
        vera.send(
            "GET",
            &world.app(&world.content(0)),
            &[("accept", "application/json")],
            None
        )
        .await
        .status,
        401
    );
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p04_passwords_are_argon2id_renewed_at_sign_in_and_never_hashed_all_at_once() {
    let served = Served::start(&[]).await;
    let key = served.administrator("ada");
    let stored = |name: &str| {
        let query = format!("SELECT password_hash AS value FROM people WHERE username = '{name}'");
        served.sql(&query).remove(0)
    };
    assert!(
        stored("ada").starts_with("$argon2id$v=19$m=65536,t=3,p=1$"),
        "{}",
        stored("ada")
    );
    // An older, weaker hash works once more, and is then replaced.
    let weak = {
        use argon2::{Algorithm, Argon2, Params, Version, password_hash::PasswordHasher as _};
        let hasher = Argon2::new(
            Algorithm::Argon2id,
            Version::V0x13,
            Params::new(19 * 1024, 2, 1, None).expect("parameters"),
        );
        hasher
            .hash_password(PASSWORD.as_bytes())
            .expect("a hash")
            .to_string()
    };
    served.sql(&format!(
        "UPDATE people SET password_hash = '{weak}' WHERE username = 'ada'"
    ));
    let browser = Browser::new(&served.url());
    let page = browser.get("/login").await;
    assert_eq!(
        browser
            .submit(
                &page,
                "/login",
                &[("username", "ada"), ("password", PASSWORD)]
            )
            .await
            .status,
        303
    );
    assert!(
        stored("ada").starts_with("$argon2id$v=19$m=65536,t=3,p=1$"),
        "{}",
        stored("ada")
    );
    // Many at once need the memory of as many hashes as there are cores. Not too many: hashes wait
    // for a busy machine.
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let many = 6 * cores;
    let peak = || -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", served.pid()))
            .expect("the state of the process");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmHWM"))
            .expect("its peak");
        line.split_whitespace()
            .nth(1)
            .and_then(|kilobytes| kilobytes.parse().ok())
            .expect("a number")
    };
    let before = peak();
    let tries = (0..many).map(|number| {
        let url = served.url();
        async move {
            let browser = Browser::new(&url);
            let page = browser.get("/login").await;
            browser
                .submit(
                    &page,
                    "/login",
                    &[
                        ("username", &format!("name{number}")),
                        ("password", "wrong password"),
                    ],
                )
                .await
                .status
        }
    });
    let answers = futures_util::future::join_all(tries).await;
    assert!(answers.iter().all(|status| *status == 422), "{answers:?}");
    let grown = peak() - before;
    assert!(
        grown < cores as u64 * 64 * 1024 + 48 * 1024,
        "{grown} kB more for {many} sign-ins on {cores} cores"
    );
    assert_eq!(served.api(&key, "GET", "v1/user", "").await.status, 200);
}

/// A try to sign in from a browser of its own, with whatever headers.
async fn try_password(
    world: &World,
    name: &str,
    password: &str,
    forwarded_for: &str,
) -> (u16, String, String) {
    let browser = Browser::new(&world.portal);
    let page = browser.get("/login").await;
    let csrf = page.csrf();
    let body = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs([
            ("csrf", csrf.as_str()),
            ("username", name),
            ("password", password),
        ])
        .finish();
    let answer = browser
        .send(
            "POST",
            "/login",
            &[("accept", "text/html"), ("x-forwarded-for", forwarded_for)],
            Some(body),
        )
        .await;
    let page = answer.body.replace(&csrf, "").replace(name, "NAME");
    (answer.status, answer.header("retry-after").to_owned(), page)
}

#[tokio::test(flavor = "multi_thread")]
async fn p05_guessing_is_slowed_down_for_one_name_and_for_nobody_else() {
    let world = World::start().await;
    for name in ["vera", "nobody-of-this-name"] {
        for number in 0..10 {
            let (status, ..) = try_password(
                &world,
                name,
                "wrong password",
                &format!("203.0.113.{number}"),
            )
            .await;
            assert_eq!(status, 422, "{name}, try {number}");
        }
        let (status, retry_after, page) =
            try_password(&world, name, "wrong password", "203.0.113.99").await;
        assert_eq!(status, 429, "{name}");
        assert!(
            (1..=300).contains(&retry_after.parse::<u64>().expect("seconds")),
            "{retry_after}"
        );
        assert!(
            page.contains("Try again in") && page.contains("not locked"),
            "{page}"
        );
    }
    assert_eq!(
        try_password(&world, "vera", "valetkey-demo", "").await.0,
        429,
        "a guesser who hits is not let in, either"
    );
    assert_eq!(
        try_password(&world, "viktor", "valetkey-demo", "").await.0,
        303,
        "another person is not held up"
    );
    world.pass(Duration::from_secs(301));
    assert_eq!(
        try_password(&world, "vera", "valetkey-demo", "").await.0,
        303,
        "never for good"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p06_wrong_password_unknown_name_and_locked_account_look_alike() {
    let world = World::start().await;
    let people = world
        .api(&world.key("ada"), "GET", "v1/users?prefix=viktor", "")
        .await;
    let viktor = people.json()["results"][0]["guid"]
        .as_str()
        .expect("a guid")
        .to_owned();
    let locked = world
        .api(
            &world.key("ada"),
            "POST",
            &format!("v1/users/{viktor}/lock"),
            "{\"locked\": true}",
        )
        .await;
    assert_eq!(locked.status, 200, "{}", locked.body);
    let wrong = try_password(&world, "vera", "wrong password", "").await;
    assert_eq!(wrong.0, 422);
    assert_eq!(
        wrong,
        try_password(&world, "nobody", "wrong password", "").await
    );
    assert_eq!(
        wrong,
        try_password(&world, "viktor", "valetkey-demo", "").await,
        "locked, with the right password"
    );
}
