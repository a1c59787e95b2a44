//! The life of data: a person is deleted, what is stored about somebody is handed out, everything is
//! ended, secrets are replaced, keys end.

use crate::harness::{Served, World, until};
use secrecy::ExposeSecret as _;
use std::time::Duration;
use valetkey::store::personal_data::TABLES;

/// One text column of a query, as `value`.
fn count(world: &World, from: &str) -> i64 {
    let found = world.sql(&format!(
        "SELECT CAST(count(*) AS TEXT) AS value FROM {from}"
    ));
    found[0].parse().expect("a number")
}

fn guid(world: &World, name: &str) -> String {
    let found = world.sql(&format!(
        "SELECT guid AS value FROM people WHERE username = '{name}'"
    ));
    found[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_person_is_nowhere_and_the_audit_log_stays_whole() {
    let world = World::start().await;
    let (viktor, _) = world.connected("viktor").await;
    let viktor_id = guid(&world, "viktor");
    let ada = world.signed_in("ada").await;
    // Other people's records name him, too.
    let page = ada.get(&format!("/people/{viktor_id}")).await;
    let locked = ada.submit(&page, "/lock", &[("sure", "yes")]).await;
    assert_eq!(locked.status, 303, "{}", locked.body);
    until("his events are sealed", || {
        count(
            &world,
            "audit WHERE block IS NOT NULL AND (actor_name = 'viktor' OR subject LIKE '%viktor%' OR detail LIKE '%viktor%')"
        ) >= 2
    })
    .await;
    // What is counted in memory and written later, the next day finds.
    world.write_bookkeeping().await;
    let page = ada.get(&format!("/people/{viktor_id}/delete")).await;
    assert!(page.body.contains("pseudonym"), "{}", page.body);
    let gone = ada.submit(&page, "/delete", &[]).await;
    assert_eq!(gone.status, 303, "{}", gone.body);
    let told = ada.get("/people").await;
    let short = format!("deleted-{}", &viktor_id[..8]);
    assert!(told.body.contains(&short), "{}", told.body);

    for table in TABLES
        .iter()
        .filter(|table| table.name != "audit" && table.name != "exchange_hours")
    {
        let left = count(
            &world,
            &format!("\"{}\" WHERE {} = '{viktor_id}'", table.name, table.person),
        );
        // A provider is told of the end of a connection for a while; without the name.
        let allowed = if table.name == "revocations" { left } else { 0 };
        assert_eq!(left, allowed, "{}", table.name);
    }
    for column in ["actor_name", "subject", "detail"] {
        assert_eq!(
            count(&world, &format!("audit WHERE {column} LIKE '%viktor%'")),
            0,
            "{column}"
        );
    }
    assert_eq!(count(&world, "revocations WHERE person_name = 'viktor'"), 0);
    // What other nodes still write is caught for an hour.
    assert_eq!(count(&world, "erasures"), 1);
    world.pass(Duration::from_secs(3700));
    world
        .services
        .deletion
        .finish()
        .await
        .expect("the last look");
    assert_eq!(count(&world, "erasures"), 0);
    assert_eq!(
        count(
            &world,
            &format!("audit WHERE actor = '{viktor_id}' AND address <> ''")
        ),
        0
    );
    assert!(count(&world, &format!("audit WHERE actor_name = '{short}'")) >= 2);
    let verified = world.command(&["audit", "verify"]);
    assert!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stderr)
    );
    let page = viktor.get("/content").await;
    assert!(
        page.url.contains("/login"),
        "his browser is signed out: {}",
        page.url
    );

    // A seal over a pseudonym is one that only the portal can make.
    world.sql_unnoticed(&format!("UPDATE audit SET subject = 'another' WHERE number = (SELECT min(number) FROM audit WHERE actor_name = '{short}')"));
    let verified = world.command(&["audit", "verify"]);
    assert!(!verified.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn content_of_a_deleted_person_needs_another_owner() {
    let world = World::start().await;
    let (_, token) = world.connected("vera").await;
    let (ada, bo) = (world.signed_in("ada").await, guid(&world, "bo"));
    let items = count(&world, &format!("content WHERE owner = '{bo}'"));
    assert!(items > 0);
    let page = ada.get(&format!("/people/{bo}/delete")).await;
    let refused = ada.submit(&page, "/delete", &[]).await;
    assert_eq!(refused.status, 422);
    assert!(
        refused.body.contains("Choose who gets their content"),
        "{}",
        refused.body
    );
    let viewer = guid(&world, "vera");
    let refused = ada.submit(&page, "/delete", &[("heir", &viewer)]).await;
    assert_eq!(refused.status, 422, "a viewer owns no content");
    assert_eq!(
        count(
            &world,
            &format!("people WHERE guid = '{bo}' AND NOT locked")
        ),
        1,
        "nothing was changed"
    );
    let heir = guid(&world, "ada");
    let gone = ada.submit(&page, "/delete", &[("heir", &heir)]).await;
    assert_eq!(gone.status, 303, "{}", gone.body);
    assert_eq!(count(&world, &format!("content WHERE owner = '{bo}'")), 0);
    assert!(count(&world, &format!("content WHERE owner = '{heir}'")) >= items);
    // Viewers go on using it.
    let key = world.key("ada");
    assert_eq!(world.exchange(&key, &token).await.status, 200);
    // Nobody deletes themselves, nor without the right to.
    let page = ada.get(&format!("/people/{heir}/delete")).await;
    let own = ada.submit(&page, "/delete", &[]).await;
    assert_eq!(own.status, 422, "{}", own.body);
    let vera = world.signed_in("vera").await;
    assert_ne!(
        vera.get(&format!("/people/{heir}/delete")).await.status,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_about_a_person_is_handed_out_without_secrets() {
    let world = World::start().await;
    let (vera, token) = world.connected("vera").await;
    let page = vera.get("/account").await;
    let mine = vera.submit(&page, "/account/data", &[]).await;
    assert_eq!(mine.status, 200, "{}", mine.body);
    let data = mine.json();
    let tables = &data["data"];
    assert_eq!(tables["people"][0]["username"], "vera");
    for table in ["consents", "connections", "sessions", "api_keys", "audit"] {
        assert!(tables[table][0].is_object(), "{table}: {tables}");
    }
    for secret in [
        token.as_str(),
        "v1.",
        "key_hash",
        "refresh_token",
        "access_token",
    ] {
        assert!(!mine.body.contains(secret), "{secret}");
    }
    // Others' is for administrators.
    let other = guid(&world, "viktor");
    let forged = vera
        .send(
            "POST",
            &format!("/people/{other}/data"),
            &[("accept", "text/html")],
            Some(format!("csrf={}", page.csrf())),
        )
        .await;
    assert_ne!(forged.status, 200);
    let ada = world.signed_in("ada").await;
    let page = ada.get(&format!("/people/{other}")).await;
    let theirs = ada.submit(&page, "/data", &[]).await;
    assert_eq!(theirs.json()["data"]["people"][0]["username"], "viktor");
    assert_eq!(
        count(&world, "audit WHERE action = 'personal_data_exported'"),
        2
    );
}

/// A table with a column that names a person is in the list, or holds nothing of a person.
#[tokio::test(flavor = "multi_thread")]
async fn no_table_that_names_people_is_forgotten() {
    let world = World::start_on_sqlite().await;
    let named = world.sql("SELECT m.name || '.' || p.name AS value FROM sqlite_master m JOIN pragma_table_info(m.name) p WHERE m.type = 'table' AND p.name IN ('person', 'owner', 'actor', 'created_by')");
    let known: Vec<String> = TABLES
        .iter()
        .map(|table| format!("{}.{}", table.name, table.person))
        .collect();
    for place in named {
        // Owners of leases are processes; names to be erased are gone in a moment.
        let is_none = place.starts_with("leases.")
            || place.starts_with("refresh_attempts.")
            || place.starts_with("erasures.");
        assert!(is_none || known.contains(&place), "{place}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_emergency_brake_ends_everything_beside_running_servers() {
    let world = World::start().await;
    let (vera, token) = world.connected("vera").await;
    let (bo, ada) = (world.key("bo"), world.key("ada"));
    assert_eq!(world.exchange(&bo, &token).await.status, 200);
    // An app that runs here, with the key that its process was given.
    let item = world.content(0);
    let process = {
        let id = item.parse().expect("a guid");
        world.services.api_keys.add_process_key(id)
    };
    let key_of_process = process.secret().expose_secret().to_owned();
    let own_item = format!("v1/content/{item}");
    let read = async || {
        world
            .api(&key_of_process, "GET", &own_item, "")
            .await
            .status
    };
    assert_eq!(read().await, 200);
    let asked = world.command(&["end-everything"]);
    assert!(!asked.status.success() && String::from_utf8_lossy(&asked.stderr).contains("--yes"));
    assert_eq!(world.exchange(&bo, &token).await.status, 200);
    let done = world.command(&["end-everything", "--yes", "--reason", "a stolen laptop"]);
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    assert!(said.contains("1 connection(s)"), "{said}");
    for _ in 0..50 {
        if world.api(&ada, "GET", "v1/content", "").await.status == 401 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(world.api(&ada, "GET", "v1/content", "").await.status, 401);
    assert_eq!(read().await, 401, "a running app's key still works");
    assert_ne!(world.exchange(&bo, &token).await.status, 200);
    let page = vera.get("/consents").await;
    assert!(page.url.contains("/login"), "{}", page.url);
    for table in [
        "connections",
        "api_keys",
        "sessions WHERE person IS NOT NULL",
        "consents",
    ] {
        assert_eq!(count(&world, table), 0, "{table}");
    }
    assert_eq!(
        count(
            &world,
            "audit WHERE action = 'everything_ended' AND detail = 'a stolen laptop'"
        ),
        1
    );
    // People and content stay, and people get in again.
    world.signed_in("vera").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_of_cookies_is_replaced_while_no_server_runs() {
    let mut served = Served::start(&[]).await;
    let key = served.administrator("ada");
    let cookie = async |served: &Served, cookie: Option<&str>| {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("a client");
        let mut request = client.get(format!("{}/login", served.url()));
        if let Some(cookie) = cookie {
            request = request.header("cookie", cookie);
        }
        let answer = request.send().await.expect("an answer");
        let set = answer.headers().get("set-cookie");
        set.map(|set| {
            set.to_str()
                .expect("text")
                .split(';')
                .next()
                .unwrap_or("")
                .to_owned()
        })
    };
    let first = cookie(&served, None).await.expect("a cookie");
    assert_eq!(cookie(&served, Some(&first)).await, None, "it is known");
    let refused = served.command(&["keys", "rotate-root"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains("a server runs"),
        "{said}"
    );
    served.terminate();
    let done = served.command(&["keys", "rotate-root"]);
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    served.restart().await;
    assert!(
        cookie(&served, Some(&first))
            .await
            .is_some_and(|new| new != first),
        "it is worthless"
    );
    assert_eq!(
        served.api(&key, "GET", "v1/content", "").await.status,
        200,
        "API keys stay"
    );
    assert!(served.command(&["audit", "verify"]).status.success());
    assert!(served.command(&["keys", "verify"]).status.success());
    served.terminate();
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_end_by_policy_and_with_a_password_that_was_reset() {
    let mut served = Served::start(&[]).await;
    let key = served.administrator("ada");
    let me = served.api(&key, "GET", "v1/user", "").await.json();
    let path = format!("v1/users/{}/keys", me["guid"].as_str().expect("a guid"));
    let made = served.api(&key, "POST", &path, r#"{"name": "old"}"#).await;
    assert_eq!(
        made.json()["expires_at"],
        serde_json::Value::Null,
        "{}",
        made.body
    );
    served.terminate();
    served.set("VALETKEY_API_KEY_DAYS", "30");
    served.restart().await;
    let made = served
        .api(
            &key,
            "POST",
            &path,
            r#"{"name": "new", "expires_at": "2099-01-01T00:00:00Z"}"#,
        )
        .await;
    let end = made.json()["expires_at"]
        .as_str()
        .expect("a time")
        .to_owned();
    assert!(!end.starts_with("2099"), "{end}");
    // The leader's first round.
    let without = "SELECT CAST(count(*) AS TEXT) AS value FROM api_keys WHERE expires_at IS NULL";
    for _ in 0..300 {
        if served.sql(without) == ["0"] {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(served.sql(without), ["0"]);

    // A new password asks about the keys.
    let link = served.command(&["admin", "link", "ada"]);
    let link = String::from_utf8_lossy(&link.stdout).trim().to_owned();
    let browser = crate::harness::Browser::new(&served.url());
    let page = browser.get(&link).await;
    assert!(page.body.contains("API keys"), "{}", page.body);
    let set = browser
        .submit(
            &page,
            "",
            &[("password", "another long password"), ("end_keys", "yes")],
        )
        .await;
    assert_eq!(set.status, 303, "{}", set.body);
    assert_eq!(served.api(&key, "GET", "v1/content", "").await.status, 401);
    served.terminate();
}
