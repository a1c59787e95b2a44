//! The record: filters, export, the chain, counts of exchanges, and what programs read of it.

use crate::harness::{Answer, World};
use serde_json::Value;
use std::time::Duration;

/// What the page's table says.
fn rows(page: &Answer) -> String {
    page.text("tbody")
}

/// What `audit verify` says, once every line is sealed.
fn verdict(world: &World) -> (bool, String) {
    let started = std::time::Instant::now();
    loop {
        let output = world.command(&["audit", "verify"]);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        if !output.status.success() || said.contains(" 0 not sealed") {
            return (output.status.success(), said);
        }
        assert!(started.elapsed() < Duration::from_secs(30), "{said}");
        std::thread::sleep(Duration::from_millis(300));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_record_is_found_out() {
    let world = World::start().await;
    drop(world.connected("vera").await);
    let (whole, said) = verdict(&world);
    assert!(whole && said.contains("The record is whole"), "{said}");
    // The same line changed, and changed back.
    world.sql("CREATE TABLE kept AS SELECT * FROM audit");
    world.sql("CREATE TABLE kept_blocks AS SELECT * FROM audit_blocks");
    for (harm, undo) in [
        (
            "UPDATE audit SET detail = 'nothing' WHERE number = 3",
            "UPDATE audit SET detail = (SELECT detail FROM kept WHERE number = 3) WHERE number = 3",
        ),
        (
            "UPDATE audit SET at = at + 1 WHERE number = 2",
            "UPDATE audit SET at = at - 1 WHERE number = 2",
        ),
        (
            "DELETE FROM audit WHERE number = 4",
            "INSERT INTO audit SELECT * FROM kept WHERE number = 4",
        ),
        (
            "DELETE FROM audit WHERE number = (SELECT max(number) FROM kept)",
            "INSERT INTO audit SELECT * FROM kept WHERE number = (SELECT max(number) FROM kept)",
        ),
        (
            "UPDATE audit SET subject = subject || detail, detail = '' WHERE number = 1",
            "UPDATE audit SET subject = (SELECT subject FROM kept WHERE number = 1), detail = (SELECT detail FROM kept WHERE number = 1) WHERE number = 1",
        ),
        (
            "UPDATE audit_blocks SET seal = '' WHERE number = 1",
            "UPDATE audit_blocks SET seal = (SELECT seal FROM kept_blocks WHERE number = 1) WHERE number = 1",
        ),
        (
            "DELETE FROM audit_blocks WHERE number = (SELECT max(number) FROM kept_blocks)",
            "INSERT INTO audit_blocks SELECT * FROM kept_blocks WHERE number = (SELECT max(number) FROM kept_blocks)",
        ),
        (
            // A line that was never written, put into a sealed block.
            "INSERT INTO audit SELECT 999999, at, action, actor, actor_name, subject, detail, address, correlation, outcome, proof, block FROM kept WHERE number = 1",
            "DELETE FROM audit WHERE number = 999999",
        ),
        (
            // One that waits to be sealed: the portal seals only what it wrote.
            "INSERT INTO audit SELECT 999999, at, action, actor, 'somebody', subject, detail, address, correlation, outcome, proof, NULL FROM kept WHERE number = 1",
            "DELETE FROM audit WHERE number = 999999",
        ),
    ] {
        world.sql(harm);
        let (whole, said) = verdict(&world);
        assert!(
            !whole && said.contains("the record was changed: line"),
            "{harm}: {said}"
        );
        world.sql(undo);
        assert!(verdict(&world).0, "{undo}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_is_filtered_exported_and_read_by_programs() {
    let world = World::start().await;
    drop(world.connected("vera").await);
    let ada = world.signed_in("ada").await;
    // Filters.
    let all = ada.get("/audit").await;
    assert!(
        all.body.contains("consent given") && all.body.contains("sign in"),
        "{}",
        all.body
    );
    let one = ada.get("/audit?action=consent_given&outcome=done").await;
    assert_eq!(one.count("tbody tr"), 1, "{}", one.body);
    assert!(
        ada.get("/audit?outcome=failed")
            .await
            .body
            .contains("Nothing matches.")
    );
    let vera = world
        .api(&world.key("vera"), "GET", "v1/user", "")
        .await
        .json()["guid"]
        .as_str()
        .expect("a guid")
        .to_owned();
    let hers = ada.get(&format!("/audit?person={vera}")).await;
    assert!(
        rows(&hers).contains("consent given") && !rows(&hers).contains("integration created"),
        "{}",
        hers.body
    );
    // A reference from an error page finds its line.
    let viewer = world.signed_in("vera").await;
    let refused = viewer.get("/integrations").await;
    assert_eq!(refused.status, 403);
    let reference = refused.header("x-correlation-id").to_owned();
    assert!(refused.body.contains(&reference));
    let found = ada.get(&format!("/audit?text={reference}")).await;
    assert!(
        found.body.contains("access refused")
            && found.body.contains("/integrations")
            && found.body.contains("vera"),
        "{}",
        found.body
    );
    // Asking again and again fills nothing.
    for _ in 0..20 {
        viewer.get("/integrations").await;
    }
    assert_eq!(
        ada.get("/audit?action=access_refused")
            .await
            .count("tbody tr"),
        1
    );
    world.pass(Duration::from_secs(61));
    viewer.get("/people").await;
    assert!(
        ada.get("/audit?action=access_refused")
            .await
            .body
            .contains("20 more before")
    );
    // Export.
    let export = ada.get("/audit/export?action=sign_in").await;
    assert_eq!(export.header("content-type"), "application/x-ndjson");
    assert!(
        export
            .header("content-disposition")
            .contains("attachment; filename=\"audit-"),
        "{}",
        export.header("content-disposition")
    );
    let lines: Vec<Value> = export
        .body
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert!(
        lines.len() >= 3
            && lines
                .iter()
                .all(|line| line["action"] == "sign_in" && line.get("block").is_some())
    );
    let whole = ada.get("/audit/export").await;
    let numbers: Vec<i64> = whole
        .body
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).expect("JSON")["number"]
                .as_i64()
                .expect("a number")
        })
        .collect();
    assert_eq!(
        numbers,
        (1..=numbers.len() as i64).collect::<Vec<_>>(),
        "whole, oldest first"
    );
    assert!(
        whole.body.contains("record_exported"),
        "an export is an event itself"
    );
    for path in ["/audit", "/audit/export", "/audit/uses"] {
        assert_eq!(viewer.get(path).await.status, 403, "{path}");
    }
    // Programs.
    let key = world.key("ada");
    let (mut cursor, mut seen) = (String::new(), Vec::new());
    loop {
        let answer = world
            .api(
                &key,
                "GET",
                &format!("v1/audit_logs?limit=5&ascOrder=true&next={cursor}"),
                "",
            )
            .await
            .json();
        seen.extend(
            answer["results"]
                .as_array()
                .expect("results")
                .iter()
                .map(|entry| entry["id"].as_str().expect("an id").to_owned()),
        );
        match answer["paging"]["cursors"]["next"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(
        seen,
        (1..=seen.len())
            .map(|number| number.to_string())
            .collect::<Vec<_>>()
    );
    let newest = world
        .api(&key, "GET", "v1/audit_logs?limit=2&ascOrder=false", "")
        .await
        .json();
    assert_eq!(
        newest["results"][0]["id"].as_str().map(str::to_owned),
        seen.last().cloned()
    );
    assert!(
        newest["paging"]["previous"].is_null()
            && newest["paging"]["next"]
                .as_str()
                .is_some_and(|link| link.starts_with("http"))
    );
    let older = world
        .api(
            &key,
            "GET",
            &format!(
                "v1/audit_logs?limit=2&ascOrder=false&next={}",
                newest["paging"]["cursors"]["next"]
                    .as_str()
                    .expect("a cursor")
            ),
            "",
        )
        .await
        .json();
    let back = world
        .api(
            &key,
            "GET",
            &format!(
                "v1/audit_logs?limit=2&ascOrder=false&previous={}",
                older["paging"]["cursors"]["previous"]
                    .as_str()
                    .expect("a cursor")
            ),
            "",
        )
        .await
        .json();
    assert_eq!(back["results"], newest["results"]);
    assert!(
        world
            .api(&key, "GET", "v1/audit/actions", "")
            .await
            .json()
            .as_array()
            .expect("names")
            .iter()
            .any(|name| name == "consent_given")
    );
    for bad in ["limit=0", "limit=501", "limit=x", "next=x"] {
        assert_eq!(
            world
                .api(&key, "GET", &format!("v1/audit_logs?{bad}"), "")
                .await
                .status,
            400,
            "{bad}"
        );
    }
    for path in ["v1/audit_logs", "v1/audit/actions"] {
        let refused = world.api(&world.key("bo"), "GET", path, "").await;
        assert_eq!(
            (refused.status, refused.json()["code"].as_i64()),
            (403, Some(22)),
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exchanges_are_counted_by_the_hour_and_refused_ones_are_lines() {
    let world = World::start().await;
    let (_, token) = world.connected("vera").await;
    // The first one notes that the key is in use. (The sample app made one before.)
    assert_eq!(world.exchange(&world.key("bo"), &token).await.status, 200);
    // The heartbeat writes now and then: in one of three rounds nothing does.
    let written =
        || std::fs::metadata(world.data_dir.join("valetkey.db-wal")).map_or(0, |file| file.len());
    let (mut rounds, mut is_silent) = (0, false);
    while rounds < 3 && !is_silent {
        let before = written();
        for _ in 0..7 {
            assert_eq!(world.exchange(&world.key("bo"), &token).await.status, 200);
        }
        is_silent = before == written();
        rounds += 1;
    }
    assert!(is_silent, "an exchange writes nothing");
    let ada = world.signed_in("ada").await;
    let page = ada.get("/audit/uses").await;
    assert!(
        page.body.contains("Vera Holm")
            && page.body.contains("Sales dashboard")
            && page.body.contains(&format!("{} times", 2 + 7 * rounds)),
        "{}",
        page.body
    );
    assert!(
        ada.get(&format!("/audit/uses?content={}", world.content(1)))
            .await
            .body
            .contains("Nothing matches.")
    );
    // Another hour, another row.
    world.pass(Duration::from_secs(3600));
    let vera = world.signed_in("vera").await;
    let token = world.token(&vera, &world.content(0)).await;
    assert_eq!(world.exchange(&world.key("bo"), &token).await.status, 200);
    let page = ada.get("/audit/uses").await;
    assert_eq!(page.count("tbody tr"), 2, "{}", page.body);
    // A key of somebody who does not run the content, and a token that nobody made.
    assert_eq!(world.exchange(&world.key("ada"), &token).await.status, 403);
    assert_eq!(
        world.exchange(&world.key("bo"), "nonsense").await.status,
        400
    );
    let refused = ada.get("/audit?action=exchange_refused").await;
    assert!(
        refused.body.contains("key may not act for this content")
            && refused.body.contains("Sales dashboard"),
        "{}",
        refused.body
    );
    assert!(refused.body.contains("session token not genuine"));
    assert!(!refused.body.contains(&token));
}
