//! Promises 23, 24, 28 and 36–40: one refresh, revocation, keys, and what survives. The storms,
//! crashes, full disks and stopped nodes are in `tests/faults`.

use crate::harness::{Answer, Browser, Served, World, http_answer, keeps_last_request, serve_raw};
use serde_json::json;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

const HOUR: Duration = Duration::from_secs(3500);

#[tokio::test(flavor = "multi_thread")]
async fn p23_one_refresh_is_in_flight_its_outcome_is_shared_and_only_a_refusal_ends_a_connection() {
    let world = World::start().await;
    let bo = world.key("bo");
    let (vera, _) = world.connected("vera").await;
    world.pass(HOUR);
    let token = world.token(&vera, &world.content(0)).await;
    world.pass(Duration::from_secs(150));
    // A failure is shared, too: nobody queues behind it to fail again.
    world.provider.set_faults(|faults| {
        (faults.status, faults.delay) = (Some(500), Duration::from_millis(300))
    });
    let asked = Instant::now();
    let answers =
        futures_util::future::join_all((0..50).map(|_| world.exchange(&bo, &token))).await;
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == 503 && !answer.header("retry-after").is_empty())
    );
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "{:?}",
        asked.elapsed()
    );
    // A token that keeps none back: the old refresh token stays.
    world.provider.set_faults(|faults| {
        (faults.status, faults.delay, faults.no_refresh_token) = (None, Duration::ZERO, true)
    });
    world.pass(Duration::from_secs(40));
    for _ in 0..2 {
        let token = world.token(&vera, &world.content(0)).await;
        let answer = world.exchange(&bo, &token).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        world.pass(HOUR);
        world.pass(Duration::from_secs(150));
    }
}

/// A provider of the test's own: `revoke` is the status that its revocation address answers with.
async fn provider(revoke: Arc<AtomicU16>, told: Arc<AtomicU32>) -> String {
    serve_raw(move |request| {
        if request.starts_with("POST /revoke") {
            if revoke.load(Ordering::SeqCst) == 200 {
                told.fetch_add(1, Ordering::SeqCst);
            }
            return http_answer(revoke.load(Ordering::SeqCst), "", "");
        }
        let body = r#"{"access_token":"an-access-token","token_type":"Bearer","expires_in":3600,"refresh_token":"a-refresh-token"}"#;
        http_answer(200, "Content-Type: application/json\r\n", body)
    })
    .await
}

/// Attaches an integration of the custom template at `provider` to the second content item, and
/// connects vera.
async fn connected_to(world: &World, provider: &str) -> (Browser, String) {
    let ada = world.key("ada");
    let config = json!({"client_id": "c", "client_secret": "s3cret-of-the-test", "authorization_uri": format!("{provider}/authorize"), "token_uri": format!("{provider}/token"), "revocation_uri": format!("{provider}/revoke"), "scopes": "a offline_access"});
    let made = world
        .api(
            &ada,
            "POST",
            "v1/oauth/integrations",
            &json!({"name": "Own", "template": "custom", "config": config}).to_string(),
        )
        .await;
    assert_eq!(made.status, 200, "{}", made.body);
    let guid = made.json()["guid"].as_str().expect("a guid").to_owned();
    let second = world.content(1);
    let wanted = json!([{"oauth_integration_guid": guid}]).to_string();
    let attached = world
        .api(
            &ada,
            "PUT",
            &format!("v1/content/{second}/oauth/integrations/associations"),
            &wanted,
        )
        .await;
    assert_eq!(attached.status, 204, "{}", attached.body);
    let vera = world.signed_in("vera").await;
    let page = vera.get(&format!("/content/{second}/")).await;
    let away = vera.submit(&page, "/consents/new", &[]).await;
    let address = url::Url::parse(away.header("location")).expect("an address");
    let state = address
        .query_pairs()
        .find(|(name, _)| name == "state")
        .expect("a state")
        .1
        .into_owned();
    let back = vera
        .get(&format!(
            "/__oauth__/integrations/{guid}/callback?code=any&state={state}"
        ))
        .await;
    assert!(!back.url.contains("callback"), "{} {}", back.url, back.body);
    (vera, guid)
}

async fn until(what: &str, mut is: impl AsyncFnMut() -> bool) {
    for _ in 0..200 {
        if is().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{what} did not happen");
}

#[tokio::test(flavor = "multi_thread")]
async fn p24_revoking_stops_exchanges_at_once_and_tells_the_provider_when_it_can() {
    let world = World::start().await;
    let (viktor, of_viktor) = world.connected("viktor").await;
    world.revoke_consent(&viktor).await;
    world.assert_not_consented(&of_viktor).await;
    let (revoke, told) = (Arc::new(AtomicU16::new(503)), Arc::new(AtomicU32::new(0)));
    let provider = provider(Arc::clone(&revoke), Arc::clone(&told)).await;
    let (vera, guid) = connected_to(&world, &provider).await;
    let token = world.token(&vera, &world.content(1)).await;
    let ada = world.key("ada");
    let exchange = async || world.exchange(&world.key("bo"), &token).await;
    assert_eq!(exchange().await.status, 200, "{}", exchange().await.body);
    let sealed = world.sql(&format!(
        "SELECT refresh_token AS value FROM connections WHERE integration = '{guid}'"
    ));
    assert_eq!(sealed.len(), 1);
    // While the provider is down.
    let page = vera.get("/consents").await;
    let link = page.link("/disconnect");
    vera.submit(&vera.get(&link).await, "/disconnect", &[])
        .await;
    assert_eq!(
        exchange().await.json()["code"],
        220,
        "the next exchange is refused"
    );
    assert!(
        world
            .sql(&format!(
                "SELECT guid AS value FROM connections WHERE integration = '{guid}'"
            ))
            .is_empty(),
        "the tokens are deleted"
    );
    until("saying that the provider could not be told", async || {
        let page = vera.get("/consents").await;
        page.body.contains("Ended lately") && page.body.contains("could not be told yet")
    })
    .await;
    revoke.store(200, Ordering::SeqCst);
    world.pass(Duration::from_secs(60));
    until("telling the provider", async || {
        told.load(Ordering::SeqCst) == 1
    })
    .await;
    until("writing it down", async || {
        vera.get("/consents").await.body.contains("was told")
    })
    .await;
    assert_eq!(
        world.sql("SELECT state AS value FROM revocations WHERE request IS NULL"),
        ["told"],
        "what was sent is gone"
    );
    // One correlation ties the act to what followed.
    let lines = world
        .api(&ada, "GET", "v1/audit_logs?limit=100", "")
        .await
        .json();
    let lines = lines["results"].as_array().expect("lines").clone();
    let of = |action: &str| {
        lines
            .iter()
            .find(|line| {
                line["event_description"].to_string().contains(action) || line["action"] == action
            })
            .cloned()
    };
    assert!(
        of("disconnected").is_some() || !lines.is_empty(),
        "{lines:?}"
    );
    let rows = world.sql("SELECT correlation AS value FROM audit WHERE action IN ('disconnected', 'provider_told', 'provider_not_told')");
    assert!(
        rows.len() == 3 && rows.iter().all(|row| *row == rows[0] && !row.is_empty()),
        "{rows:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p24_whatever_ends_a_connection_tells_the_provider() {
    let world = World::start().await;
    let (revoke, told) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicU32::new(0)));
    let provider = provider(Arc::clone(&revoke), Arc::clone(&told)).await;
    let ada = world.signed_in("ada").await;
    let key = world.key("ada");
    let vera = world
        .api(&world.key("vera"), "GET", "v1/user", "")
        .await
        .json()["guid"]
        .as_str()
        .expect("a guid")
        .to_owned();
    for (round, way) in ["person", "integration", "locked", "deleted"]
        .into_iter()
        .enumerate()
    {
        let (_, guid) = connected_to(&world, &provider).await;
        match way {
            "person" => {
                let page = ada.get(&format!("/people/{vera}/disconnect")).await;
                ada.submit(&page, "/disconnect", &[]).await;
            }
            "integration" => {
                let page = ada.get(&format!("/integrations/{guid}/disconnect")).await;
                ada.submit(&page, "/disconnect", &[]).await;
            }
            "locked" => {
                for locked in [true, false] {
                    world
                        .api(
                            &key,
                            "POST",
                            &format!("v1/users/{vera}/lock"),
                            &json!({"locked": locked}).to_string(),
                        )
                        .await;
                }
            }
            _ => {
                world
                    .api(&key, "DELETE", &format!("v1/oauth/integrations/{guid}"), "")
                    .await;
            }
        }
        let left = world.sql(&format!("SELECT guid AS value FROM connections WHERE person = '{vera}' AND integration = '{guid}'"));
        assert!(left.is_empty(), "{way}");
        until(way, async || {
            told.load(Ordering::SeqCst) as usize == round + 1
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p28_keys_rotate_online_and_nothing_starts_without_those_it_needs() {
    let world = World::start().await;
    let (vera, token) = world.connected("vera").await;
    let bo = world.key("bo");
    let say = |arguments: &[&str]| {
        let output = world.command(arguments);
        (
            output.status.success(),
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        )
    };
    let ring = world.data_dir.join("keyring");
    let before = std::fs::read_to_string(&ring).expect("the keyring");
    let old = before.split(' ').next().expect("an id").to_owned();
    let (done, said) = say(&["keys", "retire", &old]);
    assert!(!done && said.contains("seals new values"), "{said}");
    assert!(say(&["keys", "add"]).0);
    let failed = Arc::new(Mutex::new(Vec::<Answer>::new()));
    let exchanging = async {
        for _ in 0..60 {
            let answer = world.exchange(&bo, &token).await;
            if answer.status != 200 {
                failed.lock().expect("a list").push(answer);
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    };
    let rotating = async {
        // The server takes the new key up within ten seconds; until then the order is refused.
        let mut said = String::new();
        for _ in 0..30 {
            let (arguments, settings) = (["keys", "rotate"], world.settings());
            let output =
                tokio::task::spawn_blocking(move || crate::harness::command(&arguments, &settings))
                    .await
                    .expect("no panic");
            said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            if output.status.success() {
                return said;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        panic!("{said}");
    };
    let (_, said) = tokio::join!(exchanging, rotating);
    assert!(said.contains("Re-sealed"), "{said}");
    assert!(
        failed.lock().expect("a list").is_empty(),
        "{:?}",
        failed.lock().expect("a list")
    );
    assert_eq!(
        vera.get("/account").await.status,
        200,
        "nobody was signed out"
    );
    for value in world.sql("SELECT access_token AS value FROM connections") {
        assert!(!value.starts_with(&format!("v1.{old}.")), "sealed anew");
    }
    let (done, said) = say(&["keys", "verify"]);
    assert!(done && said.contains("open."), "{said}");
    let (done, said) = say(&["keys", "retire", &old]);
    assert!(done, "{said}");
    // The keyring of before, or none: refused, and nothing is changed.
    let after = std::fs::read_to_string(&ring).expect("the keyring");
    std::fs::write(&ring, &before).expect("written");
    let (done, said) = say(&["keys", "list"]);
    assert!(!done && said.contains("Nothing was changed"), "{said}");
    std::fs::remove_file(&ring).expect("removed");
    let (done, said) = say(&["keys", "list"]);
    assert!(
        !done && said.contains("is missing") && !ring.exists(),
        "{said}"
    );
    std::fs::write(&ring, &after).expect("written");
    std::fs::set_permissions(&ring, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .expect("private");
    assert!(say(&["keys", "list"]).0);
}

#[tokio::test(flavor = "multi_thread")]
async fn p28_a_damaged_value_stops_no_rotation_and_is_named() {
    let world = World::start().await;
    let (vera, _) = world.connected("vera").await;
    let (_, token) = world.connected("viktor").await;
    let vera_id = world
        .sql("SELECT guid AS value FROM people WHERE username = 'vera'")
        .remove(0);
    world.sql(&format!(
        "UPDATE connections SET refresh_token = 'v1.damaged.AAAA' WHERE person = '{vera_id}'"
    ));
    let ring = std::fs::read_to_string(world.data_dir.join("keyring")).expect("the keyring");
    let old = ring.split(' ').next().expect("an id").to_owned();
    assert!(world.command(&["keys", "add"]).status.success());
    let mut said = String::new();
    // The server takes the new key up within ten seconds; until then the order is refused.
    until("the rotation", async || {
        let (arguments, settings) = (["keys", "rotate"], world.settings());
        let output =
            tokio::task::spawn_blocking(move || crate::harness::command(&arguments, &settings))
                .await
                .expect("no panic");
        said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(
            !output.status.success(),
            "it says that something is damaged: {said}"
        );
        said.contains("Re-sealed")
    })
    .await;
    assert!(
        said.contains("1 value(s) do not open") && said.contains("refresh_token"),
        "{said}"
    );
    for value in world.sql("SELECT access_token AS value FROM connections") {
        assert!(!value.starts_with(&format!("v1.{old}.")), "sealed anew");
    }
    assert_eq!(world.exchange(&world.key("bo"), &token).await.status, 200);
    assert_eq!(vera.get("/consents").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn p36_a_slow_provider_costs_only_its_own_requests_and_its_late_answer_counts() {
    let world = World::start().await;
    let bo = world.key("bo");
    let (vera, _) = world.connected("vera").await;
    world.pass(HOUR);
    let token = world.token(&vera, &world.content(0)).await;
    world.pass(Duration::from_secs(150));
    world
        .provider
        .set_faults(|faults| faults.delay = Duration::from_secs(12));
    let (before, asked) = (world.provider.counts().refreshed, Instant::now());
    let (refused, page) = tokio::join!(world.exchange(&bo, &token), vera.get("/content"));
    assert_eq!(
        (refused.status, page.status),
        (503, 200),
        "{}",
        refused.body
    );
    assert!(
        !refused.header("retry-after").is_empty() && asked.elapsed() < Duration::from_secs(12),
        "{:?}",
        asked.elapsed()
    );
    tokio::time::sleep(Duration::from_secs(13).saturating_sub(asked.elapsed())).await;
    let answer = world.exchange(&bo, &token).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(world.provider.counts().refreshed - before, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn p37_acknowledged_writes_survive_kill_9() {
    let mut served = Served::start(&[]).await;
    let key = served.administrator("ada");
    let me = served.api(&key, "GET", "v1/user", "").await.json()["guid"]
        .as_str()
        .expect("a guid")
        .to_owned();
    let mut acknowledged = Vec::new();
    for round in 0..4 {
        for number in 0..8 {
            let name = format!("{round}-{number}");
            let made = served
                .api(
                    &key,
                    "POST",
                    &format!("v1/users/{me}/keys"),
                    &json!({"name": name}).to_string(),
                )
                .await;
            assert!(made.status < 300, "{}", made.body);
            acknowledged.push(name);
        }
        served.kill();
        served.restart().await;
        let keys = served
            .api(&key, "GET", &format!("v1/users/{me}/keys"), "")
            .await
            .body;
        assert!(
            acknowledged
                .iter()
                .all(|name| keys.contains(&format!("\"{name}\""))),
            "{keys}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p38_a_locked_database_is_503_with_retry_after_and_then_all_is_well() {
    let world = World::start().await;
    let ada = world.key("ada");
    let locked = world.lock_database(Duration::from_secs(13)).await;
    let asked = Instant::now();
    let refused = world
        .api(&ada, "POST", "v1/content", r#"{"name": "while-locked"}"#)
        .await;
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(
        !refused.header("retry-after").is_empty() && asked.elapsed() < Duration::from_secs(12),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(
        world.api(&ada, "GET", "v1/content", "").await.status,
        200,
        "reading goes on"
    );
    locked.await.expect("unlocked");
    let made = world
        .api(&ada, "POST", "v1/content", r#"{"name": "after"}"#)
        .await;
    assert_eq!(made.status, 200, "{}", made.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn p39_a_refresh_in_flight_is_stored_before_the_end() {
    let world = World::start().await;
    let bo = world.key("bo");
    let (vera, _) = world.connected("vera").await;
    world.pass(HOUR);
    let token = world.token(&vera, &world.content(0)).await;
    world.pass(Duration::from_secs(150));
    let before = world.sql("SELECT refresh_token AS value FROM connections");
    world
        .provider
        .set_faults(|faults| (faults.delay, faults.single_use) = (Duration::from_secs(3), true));
    let refreshing = world.exchange(&bo, &token);
    let stopping = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        world.begin_stop();
    };
    let (answer, ()) = tokio::join!(refreshing, stopping);
    assert_eq!(
        answer.status, 200,
        "requests in flight finish: {}",
        answer.body
    );
    let after = world.sql("SELECT refresh_token AS value FROM connections");
    assert_ne!(before, after, "and are stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn p39_the_program_ends_with_0_when_asked() {
    let mut served = Served::start(&[]).await;
    assert_eq!(served.terminate(), Some(0));
}

/// An app that keeps the session token of its last request.
struct TokenApp {
    address: String,
    head: Arc<Mutex<String>>,
}

impl TokenApp {
    async fn start() -> Self {
        let (address, head) = keeps_last_request().await;
        Self { address, head }
    }

    async fn stands_behind(&self, world: &World, item: &str) {
        let change = json!({"upstream_url": self.address}).to_string();
        let path = format!("v1/content/{item}");
        let key = world.key("ada");
        let set = world.api(&key, "PATCH", &path, &change).await;
        assert_eq!(set.status, 200, "{}", set.body);
    }

    fn token(&self) -> String {
        let head = self.head.lock().expect("a head").clone();
        let token = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("posit-connect-user-session-token")
                .then(|| value.trim().to_owned())
        });
        token.unwrap_or_else(|| panic!("no session token in {head}"))
    }
}

/// A new machine with the keyring of `world`.
fn new_machine(world: &World) -> Served {
    let other = Served::prepare(&[
        ("VALETKEY_PUBLIC_URL", &world.portal),
        ("VALETKEY_PRIVATE_HOSTS", "127.0.0.1"),
    ]);
    let keyring = other.data_dir.join("keyring");
    std::fs::copy(world.data_dir.join("keyring"), keyring).expect("copied");
    other
}

fn said(output: &std::process::Output) -> String {
    let streams = [&output.stdout, &output.stderr];
    streams.map(|text| String::from_utf8_lossy(text)).join("\n")
}

/// What the journal in this folder says, as text.
fn text_of_journal(folder: &std::path::Path) -> String {
    std::fs::read_to_string(folder.join("00000001.journal")).unwrap_or_default()
}

/// Waits until the journal has this word so many times.
async fn journal_has(folder: &std::path::Path, word: &str, count: usize) {
    until(word, async || {
        text_of_journal(folder).matches(word).count() >= count
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p55_a_restore_brings_back_nothing_that_was_ended() {
    let world = World::start().await;
    let (vera, _) = world.connected("vera").await;
    let (viktor, _) = world.connected("viktor").await;
    let _ada = world.connected("ada").await;
    let (item, app) = (world.content(0), TokenApp::start().await);
    app.stands_behind(&world, &item).await;
    let (ada, bo) = (world.key("ada"), world.key("bo"));
    let guid = async |key: &str| {
        let me = world.api(key, "GET", "v1/user", "").await.json();
        me["guid"].as_str().expect("a guid").to_owned()
    };
    let (her, his, own) = (
        guid(&world.key("vera")).await,
        guid(&world.key("viktor")).await,
        guid(&bo).await,
    );
    let keys = format!("v1/users/{own}/keys");
    let made = world.api(&bo, "POST", &keys, r#"{"name": "leaves"}"#).await;
    let leaves = made.json();
    let journal = world.data_dir.join("journal");
    // Long ago Bo changed his password: the journal knows it, the database no longer does.
    for ending in [
        format!(r#"{{"what": "password", "person": "{own}"}}"#),
        r#"{"what": "api_key", "number": 987654}"#.to_owned(),
    ] {
        world.sql(&format!("INSERT INTO endings (ending) VALUES ('{ending}')"));
    }
    journal_has(&journal, "987654", 1).await;
    world.sql("DELETE FROM endings WHERE number < (SELECT max(number) FROM endings)");
    let file = world.data_dir.join("a-backup.db");
    let path = file.to_string_lossy().into_owned();
    let backed_up = world.command(&["backup", &path]);
    assert!(backed_up.status.success(), "{}", said(&backed_up));
    // What ends now must stay ended.
    world.revoke_consent(&vera).await;
    let lock = format!("v1/users/{his}/lock");
    let locked = world.api(&ada, "POST", &lock, r#"{"locked": true}"#).await;
    assert_eq!(locked.status, 200, "{}", locked.body);
    let key = leaves["key"].as_str().expect("a key").to_owned();
    let number = &leaves["id"];
    let number = number.as_str().map_or(number.to_string(), str::to_owned);
    let gone = world
        .api(&bo, "DELETE", &format!("{keys}/{number}"), "")
        .await;
    assert!(gone.status < 300, "{}", gone.body);
    assert_eq!(world.api(&key, "GET", "v1/user", "").await.status, 401);
    for (word, count) in [(his.as_str(), 1), ("\"api_key\"", 2), ("consent", 1)] {
        journal_has(&journal, word, count).await;
    }
    let folder = journal.to_string_lossy().into_owned();
    let consents = |served: &Served| served.sql("SELECT person AS value FROM consents");
    let recorded =
        |served: &Served| served.sql("SELECT detail AS value FROM audit WHERE action = 'restored'");
    // Without the journal everybody is asked again; unless the operator trusts the backup.
    let forgetful = new_machine(&world);
    let restored = forgetful.command(&["restore", &path]);
    assert!(restored.status.success(), "{}", said(&restored));
    assert!(
        said(&restored).contains("no journal"),
        "{}",
        said(&restored)
    );
    assert!(consents(&forgetful).is_empty());
    assert_eq!(recorded(&forgetful).len(), 1);
    let trusting = new_machine(&world);
    let restored = trusting.command(&["restore", &path, "--trust-backup"]);
    assert!(restored.status.success(), "{}", said(&restored));
    assert_eq!(consents(&trusting).len(), 3);
    assert!(recorded(&trusting)[0].contains("trusted"));
    // A journal that was changed is none.
    let changed = world.data_dir.join("changed");
    std::fs::create_dir(&changed).expect("a folder");
    let text = text_of_journal(&journal).replace(&his, &her);
    std::fs::write(changed.join("00000001.journal"), text).expect("written");
    let suspicious = new_machine(&world);
    let changed = changed.to_string_lossy().into_owned();
    let restored = suspicious.command(&["restore", &path, "--journal", &changed]);
    assert!(
        said(&restored).contains("was changed"),
        "{}",
        said(&restored)
    );
    assert!(consents(&suspicious).is_empty());
    // With the journal: what ended is ended, and nothing else.
    let other = new_machine(&world);
    let restored = other.command(&["restore", &path, "--journal", &folder]);
    assert!(restored.status.success(), "{}", said(&restored));
    assert!(said(&restored).contains("up to 20"), "{}", said(&restored));
    let left = guid(&ada).await;
    assert_eq!(consents(&other), [left], "ada's stays");
    let with_password = other.sql(&format!(
        "SELECT username AS value FROM people WHERE guid = '{own}' AND password_hash IS NOT NULL"
    ));
    assert_eq!(with_password, ["bo"]);
    assert_eq!(other.sql("SELECT key_hash AS value FROM sessions").len(), 0);
    let portal = world.portal.clone();
    let served = other.serve_at(&portal, world).await;
    assert_eq!(served.api(&key, "GET", "v1/user", "").await.status, 401);
    assert_eq!(served.api(&bo, "GET", "v1/user", "").await.status, 200);
    for old in [&vera, &viktor] {
        let page = old
            .send("GET", "/account", &[("accept", "text/html")], None)
            .await;
        assert_eq!(page.status, 303, "the old session is over");
    }
    let again = Browser::new(&portal);
    again.sign_in("vera").await;
    let page = again.get(&format!("/content/{item}/")).await;
    assert_eq!(
        page.count("form[action='/consents/new']"),
        1,
        "{}",
        page.body
    );
    let locked = served.sql(&format!(
        "SELECT username AS value FROM people WHERE guid = '{his}' AND locked"
    ));
    assert_eq!(locked, ["viktor"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn p55_endings_after_a_trusted_restore_are_not_taken_for_older_ones() {
    let world = World::start().await;
    let (vera, _) = world.connected("vera").await;
    let (viktor, _) = world.connected("viktor").await;
    let (ada, bo) = (world.key("ada"), world.key("bo"));
    let keys = async |served: &Served| {
        let me = served.api(&bo, "GET", "v1/user", "").await.json();
        format!("v1/users/{}/keys", me["guid"].as_str().expect("a guid"))
    };
    // Where the last restore will be; this installation's own folder goes with it.
    let third = new_machine(&world);
    let file = third.data_dir.join("a-backup.db");
    let path = file.to_string_lossy().into_owned();
    let backed_up = world.command(&["backup", &path]);
    assert!(backed_up.status.success(), "{}", said(&backed_up));
    world.revoke_consent(&vera).await;
    world.revoke_consent(&viktor).await;
    let old = world.data_dir.join("journal");
    journal_has(&old, "\"what\":\"consents\"", 2).await;
    // Another machine with a journal that knows of the endings; the backup is trusted there. The
    // numbers of what ends from then on were given out once already.
    let mut trusting = new_machine(&world);
    let own = trusting.data_dir.join("journal");
    let copy = third.data_dir.join("copy");
    for folder in [&own, &copy] {
        std::fs::create_dir(folder).expect("a folder");
        let name = "00000001.journal";
        std::fs::copy(old.join(name), folder.join(name)).expect("copied");
    }
    let restored = trusting.command(&["restore", &path, "--trust-backup"]);
    assert!(restored.status.success(), "{}", said(&restored));
    // As on a node that the restore did not see.
    trusting.set("VALETKEY_JOURNAL_COPY", &copy.to_string_lossy());
    let portal = world.portal.clone();
    let served = trusting.serve_at(&portal, world).await;
    let at = keys(&served).await;
    let made = served.api(&bo, "POST", &at, r#"{"name": "leaves"}"#).await;
    let number = made.json()["id"].to_string().replace('"', "");
    let gone = served
        .api(&bo, "DELETE", &format!("{at}/{number}"), "")
        .await;
    assert!(gone.status < 300, "{}", gone.body);
    let me = at.trim_start_matches("v1/users/").trim_end_matches("/keys");
    let lock = format!("v1/users/{me}/lock");
    let locked = served.api(&ada, "POST", &lock, r#"{"locked": true}"#).await;
    assert_eq!(locked.status, 200, "{}", locked.body);
    // Both folders have it, and one is enough.
    for folder in [&own, &copy] {
        journal_has(folder, "\"api_key\"", 1).await;
        journal_has(folder, "\"locked\":true", 1).await;
    }
    let restored = third.command(&["restore", &path, "--journal", &copy.to_string_lossy()]);
    assert!(restored.status.success(), "{}", said(&restored));
    let locked = third.sql(&format!(
        "SELECT username AS value FROM people WHERE guid = '{me}' AND locked"
    ));
    assert_eq!(locked, ["bo"], "{}", said(&restored));
    let consents = third.sql("SELECT person AS value FROM consents");
    assert_eq!(consents.len(), 2, "they were trusted: {}", said(&restored));
}

#[tokio::test(flavor = "multi_thread")]
async fn p40_a_backup_under_load_restores_to_working_consents_with_the_key_alone() {
    let world = World::start().await;
    let _vera = world.connected("vera").await;
    let item = world.content(0);
    let app = TokenApp::start().await;
    app.stands_behind(&world, &item).await;
    let (ada, bo) = (world.key("ada"), world.key("bo"));
    let me = world.api(&ada, "GET", "v1/user", "").await.json()["guid"]
        .as_str()
        .expect("a guid")
        .to_owned();
    let file = world.data_dir.join("a-backup.db");
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let writing = async {
        for number in 0..60 {
            let name = format!("load-{number}");
            let made = world
                .api(
                    &ada,
                    "POST",
                    &format!("v1/users/{me}/keys"),
                    &json!({"name": name}).to_string(),
                )
                .await;
            assert!(made.status < 300, "{}", made.body);
            acknowledged.lock().expect("a list").push(name);
        }
    };
    let backing = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let before = acknowledged.lock().expect("a list").clone();
        let (file, settings) = (file.to_string_lossy().into_owned(), world.settings());
        let output = tokio::task::spawn_blocking(move || {
            crate::harness::command(&["backup", &file], &settings)
        })
        .await
        .expect("no panic");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        before
    };
    let ((), before) = tokio::join!(writing, backing);
    assert!(!before.is_empty());
    let bytes = std::fs::read(&file).expect("the backup");
    assert!(
        !bytes.windows(8).any(|window| window == b"eyJ0eXAi"),
        "no token stands in it"
    );
    // On a new machine: refused without the key, and nothing is left there.
    let other = Served::prepare(&[
        ("VALETKEY_PUBLIC_URL", &world.portal),
        ("VALETKEY_PRIVATE_HOSTS", "127.0.0.1"),
    ]);
    let path = file.to_string_lossy().into_owned();
    let refused = other.command(&["restore", &path]);
    assert!(!refused.status.success(), "without the keyring");
    std::fs::write(
        other.data_dir.join("keyring"),
        "0badcafe AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n",
    )
    .expect("written");
    std::fs::set_permissions(
        other.data_dir.join("keyring"),
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .expect("private");
    let refused = other.command(&["restore", &path]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains("not in the keyring"),
        "{said}"
    );
    assert!(!other.data_dir.join("valetkey.db").exists());
    std::fs::copy(
        world.data_dir.join("keyring"),
        other.data_dir.join("keyring"),
    )
    .expect("copied");
    let journal = world.data_dir.join("journal");
    let journal = journal.to_string_lossy().into_owned();
    let restored = other.command(&["restore", &path, "--journal", &journal]);
    assert!(
        restored.status.success(),
        "{}",
        String::from_utf8_lossy(&restored.stderr)
    );
    let again = other.command(&["restore", &path]);
    assert!(
        !again.status.success(),
        "what is there is not replaced unasked"
    );
    // The old one is gone; the new one works with the same keys and consents.
    let portal = world.portal.clone();
    let served = other.serve_at(&portal, world).await;
    let vera = Browser::new(&portal);
    vera.sign_in("vera").await;
    let page = vera.get(&format!("/content/{item}/")).await;
    assert_eq!((page.status, page.body.as_str()), (200, "ok"), "{page:?}");
    let answer = served.exchange(&bo, &app.token()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let keys = served
        .api(&ada, "GET", &format!("v1/users/{me}/keys"), "")
        .await
        .body;
    assert!(
        before
            .iter()
            .all(|name| keys.contains(&format!("\"{name}\""))),
        "{keys}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p40_an_installation_moves_to_postgresql_and_is_compared() {
    let Some(target) = crate::harness::database() else {
        return;
    };
    let world = World::start_on_sqlite().await;
    let (_, token) = world.connected("vera").await;
    let (bo, portal) = (world.key("bo"), world.portal.clone());
    let address = crate::harness::address(&target);
    let refused = world.command_with(&["migrate-database"], &address);
    assert!(
        !refused.status.success()
            && String::from_utf8_lossy(&refused.stderr).contains("stop it first"),
        "{refused:?}"
    );
    let mut old = world.park().await;
    let moved = old.command_with(&["migrate-database"], &address);
    let said = String::from_utf8_lossy(&[moved.stdout, moved.stderr].concat()).into_owned();
    assert!(
        moved.status.success()
            && said.contains("every table was compared")
            && said.contains("connections"),
        "{said}"
    );
    let twice = old.command_with(&["migrate-database"], &address);
    assert!(
        !twice.status.success() && String::from_utf8_lossy(&twice.stderr).contains("not empty"),
        "{twice:?}"
    );
    old.use_database(target);
    let served = old.serve(&portal).await;
    let answer = served.exchange(&bo, &token).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let made = served
        .api(
            &bo,
            "POST",
            "v1/content",
            r#"{"name": "made-after-the-move"}"#,
        )
        .await;
    assert_eq!(
        made.status, 200,
        "numbers go on behind those that came along: {}",
        made.body
    );
}
