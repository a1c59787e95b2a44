//! Promises 41 to 49: what one user, app or visitor does costs the others nothing. Each test has a
//! noisy neighbour and a quiet one on the same server. Rates are measured by
//! `tests/bench/unrelated.py`.

use crate::harness::{Answer, Browser, Served, World, database, within};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use valetkey::demo::PASSWORD;

/// The portal refreshes connections ahead of need if they were used within an hour. After a longer
/// time it does not, so that on a slow machine it is not quicker than the test.
const HOUR: Duration = Duration::from_secs(3601);

/// Session tokens of two viewers of one item, whose access tokens must both be refreshed at the
/// next exchange.
async fn two_due(world: &World) -> (String, String) {
    let (vera, _) = world.connected("vera").await;
    let (viktor, _) = world.connected("viktor").await;
    world.pass(HOUR);
    let vera = world.token(&vera, &world.content(0)).await;
    let viktor = world.token(&viktor, &world.content(0)).await;
    world.pass(Duration::from_secs(49));
    (vera, viktor)
}

#[tokio::test(flavor = "multi_thread")]
async fn p41_a_write_invalidates_only_what_depends_on_it() {
    let world = World::start().await;
    let (vera, token) = world.connected("vera").await;
    let (ada, bo) = (world.key("ada"), world.key("bo"));
    let status = async || world.exchange(&bo, &token).await.status;
    assert_eq!(status().await, 200);
    // What the cached decision stands on is taken away behind the portal's back. The entry lives
    // for a while of the portal's clock, which only the test moves.
    world.sql_unnoticed("DELETE FROM consents");
    assert_eq!(status().await, 200, "the decision is cached");
    // Noise: another item, a wrong password, a page with a message, another person's account.
    let renamed = format!("v1/content/{}", world.content(1));
    let body = r#"{"title": "another title"}"#;
    assert_eq!(world.api(&ada, "PATCH", &renamed, body).await.status, 200);
    let browser = Browser::new(&world.portal);
    let page = browser.get("/login").await;
    let wrong = [("username", "vera"), ("password", "wrong")];
    assert_eq!(browser.submit(&page, "/login", &wrong).await.status, 422);
    world.signed_in("viktor").await;
    let person = r#"{"username": "noise", "password": "long enough password"}"#;
    assert_eq!(
        world.api(&ada, "POST", "v1/users", person).await.status,
        200
    );
    vera.get("/account").await;
    assert_eq!(status().await, 200, "nothing of this concerns vera's item");
    // A change of the item itself counts at once.
    let renamed = format!("v1/content/{}", world.content(0));
    assert_eq!(world.api(&ada, "PATCH", &renamed, body).await.status, 200);
    assert_eq!(status().await, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn p41_what_another_process_changed_counts_within_a_moment() {
    let world = World::start().await;
    let (_, token) = world.connected("vera").await;
    let bo = world.key("bo");
    assert_eq!(world.exchange(&bo, &token).await.status, 200);
    let person = world.sql("SELECT guid AS value FROM people WHERE username = 'vera'");
    assert_eq!(world.exchange(&bo, &token).await.status, 200);
    world.sql_unnoticed("DELETE FROM consents");
    world.sql_unnoticed(&format!(
        "INSERT INTO changes (process, subjects) VALUES ('another', 'person:{}')",
        person[0]
    ));
    let refused = async {
        while world.exchange(&bo, &token).await.status == 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let started = std::time::Instant::now();
    within("the refusal", refused).await;
    // 100 ms between two looks; a busy machine gets more.
    assert!(started.elapsed() < Duration::from_secs(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn p42_a_request_of_somebody_who_is_not_signed_in_writes_nothing() {
    let world = World::start().await;
    let tables = ["sessions", "audit", "sign_in_tries", "changes", "attempts"];
    let rows = || {
        tables.map(|table| {
            let found = world.sql_unnoticed(&format!(
                "SELECT CAST(count(*) AS TEXT) AS value FROM {table}"
            ));
            (table, found[0].clone())
        })
    };
    let before = rows();
    for _ in 0..30 {
        // A client without cookies, and one that keeps them.
        for browser in [Browser::new(&world.portal), Browser::new(&world.portal)] {
            let page = browser.get("/login").await;
            assert_eq!(page.status, 200);
            assert!(!page.csrf().is_empty());
            browser.get("/login?next=%2Fconsents").await;
            browser.get("/").await;
            browser
                .get("/login/organisation/callback?state=a&code=b")
                .await;
            browser
                .get(&format!("/content/{}/", world.content(0)))
                .await;
            browser.get("/consents/new").await;
            let forged = browser
                .send(
                    "POST",
                    &format!("{}/login", world.portal),
                    &[("accept", "text/html")],
                    Some("username=vera&password=x&csrf=forged".into()),
                )
                .await;
            assert_ne!(forged.status, 303);
        }
    }
    // Longer than anything is collected before it is written.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let after = rows();
    for ((table, before), (_, after)) in before.iter().zip(&after) {
        let (before, after): (i64, i64) = (before.parse().unwrap(), after.parse().unwrap());
        // Refusals are recorded once a minute for each address and reason.
        let allowed = if *table == "audit" { 5 } else { 0 };
        assert!(
            after - before <= allowed,
            "{table}: {before} rows before, {after} after"
        );
    }
    // The form that was kept in the browser works.
    world.signed_in("vera").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p43_a_refused_refresh_of_one_viewer_delays_no_other_viewer() {
    for (name, error, status) in [
        ("not assigned", Some(("invalid_grant", 50105)), None),
        ("a loop", Some(("invalid_grant", 50196)), None),
        ("a rate limit", None, Some(429)),
        ("a failure", None, Some(502)),
    ] {
        let world = World::start().await;
        let (vera, viktor) = two_due(&world).await;
        let bo = world.key("bo");
        world.provider.set_faults(|faults| {
            faults.error = error.map(|(word, code)| (word.to_owned(), code));
            faults.status = status;
        });
        let noisy = world.exchange(&bo, &vera).await;
        assert_eq!(noisy.status, 503, "{name}: {}", noisy.body);
        world
            .provider
            .set_faults(|faults| (faults.error, faults.status) = (None, None));
        let quiet = world.exchange(&bo, &viktor).await;
        assert_eq!(quiet.status, 200, "{name}: {}", quiet.body);
        // The provider gave tokens to another viewer; vera's own pause goes on, and ends.
        let noisy = world.exchange(&bo, &vera).await;
        assert_eq!(noisy.status, 503, "{name}: {}", noisy.body);
        world.pass(Duration::from_secs(320));
        let noisy = world.exchange(&bo, &vera).await;
        assert_ne!(noisy.status, 503, "{name}: {}", noisy.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p43_a_breaker_opens_after_three_connections_and_any_of_them_may_probe() {
    let world = World::start().await;
    let mut tokens = Vec::new();
    for name in ["vera", "viktor", "bo", "ada"] {
        let (browser, _) = world.connected(name).await;
        tokens.push(browser);
    }
    world.pass(HOUR);
    let mut due = Vec::new();
    for browser in &tokens {
        due.push(world.token(browser, &world.content(0)).await);
    }
    world.pass(Duration::from_secs(49));
    let bo = world.key("bo");
    let asked = || world.provider.counts().refreshed;
    world
        .provider
        .set_faults(|faults| faults.status = Some(502));
    let start = asked();
    for token in &due[..3] {
        assert_eq!(world.exchange(&bo, token).await.status, 503);
    }
    assert_eq!(asked() - start, 3, "each of the three asked the provider");
    assert_eq!(world.exchange(&bo, &due[3]).await.status, 503);
    assert_eq!(asked() - start, 3, "the breaker is open");
    // After the pause the connection that never failed is the probe.
    world.provider.set_faults(|faults| faults.status = None);
    world.pass(Duration::from_secs(31));
    assert_eq!(world.exchange(&bo, &due[3]).await.status, 200);
    for token in &due[..3] {
        assert_eq!(world.exchange(&bo, token).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p43_an_unknown_refusal_seen_three_times_asks_the_viewer() {
    let world = World::start().await;
    let (vera, _) = two_due(&world).await;
    let bo = world.key("bo");
    world
        .provider
        .set_faults(|faults| faults.error = Some(("grant_has_moved".into(), 0)));
    let mut statuses = Vec::new();
    for _ in 0..3 {
        let answer = world.exchange(&bo, &vera).await;
        statuses.push((answer.status, answer.json()["payload"]["cause"].clone()));
        world.pass(Duration::from_secs(301));
    }
    assert_eq!(statuses[0].0, 503);
    assert_eq!(statuses[1].0, 503);
    assert_eq!(
        (statuses[2].0, statuses[2].1.as_str()),
        (400, Some("refused"))
    );
    let page = world.signed_in("ada").await.get("/audit").await;
    assert!(page.body.contains("grant_has_moved"), "{}", page.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn p44_a_flood_of_passwords_delays_a_sign_in_from_elsewhere_by_little_more_than_one_hash() {
    #[cfg(feature = "faults")]
    let _cost = valetkey::faults::FullCost::new();
    let world = World::start_trusting(&["127.0.0.1/32"]).await;
    let with_form = async || {
        let browser = Browser::new(&world.portal);
        let page = browser.get("/login").await;
        (browser, page)
    };
    let send =
        async |(browser, page): (Browser, Answer), address: &str, name: &str, password: &str| {
            let body = url::form_urlencoded::Serializer::new(String::new())
                .extend_pairs([
                    ("csrf", page.csrf().as_str()),
                    ("next", ""),
                    ("username", name),
                    ("password", password),
                ])
                .finish();
            let headers = [("accept", "text/html"), ("x-forwarded-for", address)];
            let login = format!("{}/login", world.portal);
            browser
                .send("POST", &login, &headers, Some(body))
                .await
                .status
        };
    let attempt = async |address: &str, name: &str, password: &str| {
        send(with_form().await, address, name, password).await
    };
    // Not counted: a busy machine may take its time for the form.
    let form = with_form().await;
    let done = Arc::new(AtomicUsize::new(0));
    let flood = async {
        let tries = (0..30).map(|number| {
            let (attempt, done) = (&attempt, Arc::clone(&done));
            async move {
                let status = attempt("203.0.113.5", &format!("name-{number}"), "wrong").await;
                done.fetch_add(1, Ordering::Relaxed);
                status
            }
        });
        futures_util::future::join_all(tries).await
    };
    let quiet = async {
        // The flood fills its queue first.
        while done.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let before = done.load(Ordering::Relaxed);
        let status = send(form, "203.0.113.6", "vera", PASSWORD).await;
        (status, done.load(Ordering::Relaxed) - before)
    };
    let (statuses, (status, passed)) = tokio::join!(flood, quiet);
    assert_eq!(status, 303);
    assert!(
        passed <= 6,
        "{passed} attempts of the flood were served before the sign-in"
    );
    assert!(statuses.iter().all(|status| *status == 422), "{statuses:?}");
    // The network's budget ends; that of others does not.
    let mut refused = 0;
    for number in 0..40 {
        let name = format!("more-{number}");
        refused += usize::from(attempt("203.0.113.5", &name, "wrong").await == 429);
    }
    assert!(refused >= 5, "{refused}");
    assert_eq!(attempt("203.0.113.7", "viktor", PASSWORD).await, 303);
}

/// Adds this many people, each with a connection and a consent for the first item.
fn add_connected_people(world: &World, count: u32) {
    let (item, integration, now) = (world.content(0), world.integration(), world.now().0);
    let rows = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}), \
         g(i, guid) AS (SELECT i, substr('00000000-0000-4000-8000-000000000000', 1, 36 - length(CAST(i AS TEXT))) || CAST(i AS TEXT) FROM n)"
    );
    world.sql(&format!(
        "{rows} INSERT INTO people (guid, username, username_key, email, first_name, last_name, role, locked, created_at, updated_at) \
         SELECT guid, guid, guid, '', '', '', 'viewer', FALSE, {now}, {now} FROM g"
    ));
    world.sql(&format!(
        "{rows} INSERT INTO connections (guid, person, integration, state, state_at, scopes, generation, connected_at, created_at, updated_at) \
         SELECT guid, guid, '{integration}', 'active', {now}, '', 1, {now}, {now}, {now} FROM g"
    ));
    world.sql(&format!(
        "{rows} INSERT INTO consents (guid, person, content, integration, scopes, created_at, uses) \
         SELECT guid, guid, '{item}', '{integration}', '', {now}, 0 FROM g"
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn p47_thousands_of_connections_end_at_once_and_others_go_on() {
    const MANY: u32 = 3000;
    let world = Arc::new(World::start().await);
    let (_vera, token) = world.connected("vera").await;
    let (ada, bo, integration) = (world.key("ada"), world.key("bo"), world.integration());
    assert_eq!(world.exchange(&bo, &token).await.status, 200);
    add_connected_people(&world, MANY);
    let count = |rows: &str| {
        let query = format!("SELECT CAST(count(*) AS TEXT) AS value FROM {rows}");
        world.sql(&query)[0].parse::<u32>().expect("a count")
    };
    // Signed in before: a password is slow beside the ending.
    let administrator = world.signed_in("ada").await;
    let deleting = {
        let (world, ada) = (Arc::clone(&world), ada.clone());
        let path = format!("v1/oauth/integrations/{integration}");
        tokio::spawn(async move { world.api(&ada, "DELETE", &path, "").await.status })
    };
    let refused = async {
        while world.exchange(&bo, &token).await.status == 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within("the first refused exchange", refused).await;
    let left = count("connections");
    assert!(
        left > MANY / 2,
        "all were unusable at once; {left} are left"
    );
    // The page says how far it is, and renews itself.
    let page = administrator
        .get(&format!("/integrations/{integration}"))
        .await;
    if page.status == 200 {
        assert!(
            page.words().contains("are still being ended"),
            "{}",
            page.body
        );
        assert_eq!(page.header("refresh"), "2");
    }
    // Others go on meanwhile.
    let other = format!("v1/content/{}", world.content(1));
    let mut number = 0;
    while !deleting.is_finished() {
        number += 1;
        let body = format!(r#"{{"title": "title {number}"}}"#);
        let edit = world.api(&ada, "PATCH", &other, &body);
        let edited = within("an edit of somebody else", edit).await;
        assert_eq!(edited.status, 200, "{}", edited.body);
    }
    assert!(number > 3, "{number} edits meanwhile");
    assert_eq!(deleting.await.expect("an answer"), 204);
    for rows in ["connections", "consents", "integrations WHERE guid = 'x'"] {
        assert_eq!(count(rows), 0, "{rows}");
    }
    assert_eq!(count("audit WHERE action = 'disconnected'"), MANY + 1);
    let path = format!("v1/oauth/integrations/{integration}");
    assert_eq!(world.api(&ada, "GET", &path, "").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn p47_what_a_crash_left_is_ended_later() {
    let world = World::start().await;
    drop(world.connected("vera").await);
    add_connected_people(&world, 250);
    // As a node leaves it that marked the connections and died.
    let integration = world.integration();
    world.sql(&format!("UPDATE connections SET ending = TRUE, state = 'needs_login', cause = 'revoked_by_administrator' WHERE integration = '{integration}'"));
    world.pass(Duration::from_secs(120));
    let ended = async {
        while world
            .sql("SELECT guid AS value FROM connections LIMIT 1")
            .len()
            == 1
        {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    within("another node to end them", ended).await;
    let told = world.sql("SELECT state AS value FROM revocations WHERE account IS NOT NULL");
    assert_eq!(told.len(), 1, "vera's tokens are revoked at the provider");
}

#[tokio::test(flavor = "multi_thread")]
async fn p48_a_copied_data_directory_gets_an_identity_of_its_own() {
    // Two nodes share a database only on PostgreSQL; the rest is a test of `cluster::node`.
    if database().is_none() {
        return;
    }
    let mut first = Served::start(&[]).await;
    let keyring = first.data_dir.join("keyring");
    let mut second =
        Served::prepare(&[("VALETKEY_KEYRING_FILE", keyring.to_str().expect("a path"))]);
    second.use_database(first.database.clone().expect("a database"));
    std::fs::copy(first.data_dir.join("node"), second.data_dir.join("node")).expect("a copy");
    second.restart_patiently(Duration::from_secs(40)).await;
    let identity = |served: &Served| {
        let text = std::fs::read_to_string(served.data_dir.join("node")).expect("the identity");
        text.lines().next().unwrap_or("").to_owned()
    };
    assert_ne!(identity(&first), identity(&second));
    assert!(
        second.log().contains("takes a new identity"),
        "{}",
        second.log()
    );
    // The original keeps its identity over a restart.
    let before = identity(&first);
    first.kill();
    first.restart_patiently(Duration::from_secs(40)).await;
    assert_eq!(identity(&first), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn p49_on_postgresql_a_long_transaction_holds_up_nobody_else() {
    let world = World::start().await;
    if world.database.is_none() {
        return;
    }
    let ada = world.key("ada");
    let held = world.content(0);
    let holding = world
        .in_open_transaction(
            &format!("UPDATE content SET title = 'held' WHERE guid = '{held}'"),
            Duration::from_secs(8),
        )
        .await;
    for number in 0..20 {
        let path = format!("v1/content/{}", world.content(1));
        let body = format!(r#"{{"title": "title {number}"}}"#);
        let answer = world.api(&ada, "PATCH", &path, &body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    world.signed_in("vera").await;
    assert!(
        !holding.is_finished(),
        "all of this while a transaction is open"
    );
    holding.await.expect("rolled back");
}
