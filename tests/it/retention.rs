//! How long rows are kept: the purges, and the audit log where the operator limits it.

use crate::harness::{World, within};
use std::time::Duration;
use valetkey::{config::Retention, demo};

/// The first value of a query, as a number.
fn number(world: &World, query: &str) -> i64 {
    let rows = world.sql(&format!("SELECT CAST(({query}) AS TEXT) AS value"));
    rows[0].parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn old_rows_are_deleted_from_every_table_and_new_ones_stay() {
    let world = World::start().await;
    drop(world.connected("vera").await);
    let (item, vera) = (
        world.content(0),
        world
            .sql("SELECT guid AS value FROM people WHERE username = 'vera'")
            .remove(0),
    );
    let (new, old) = (world.now().0, 1000);
    // More than one batch, of one table.
    world.sql(&format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500) \
         INSERT INTO sign_in_tries (who, at) SELECT 'x', {old} FROM n"
    ));
    let inserts = |at: i64, name: &str| {
        vec![
            format!("INSERT INTO sign_in_tries (who, at) VALUES ('{name}', {at})"),
            format!("INSERT INTO setup_links (token_hash, expires_at) VALUES ('{name}', {at})"),
            format!(
                "INSERT INTO leases (name, owner, node, generation, beat, taken_at, until) VALUES ('{name}', 'o', 'n', 1, 1, 1, {at})"
            ),
            format!(
                "INSERT INTO app_sessions (id_hash, content, person, seen_at) VALUES ('{name}', 'c', 'p', {at})"
            ),
            format!(
                "INSERT INTO visits (content, process, person, node, here, since, seen_at) VALUES ('c', '{name}', 'p', 'n', FALSE, 1, {at})"
            ),
            format!(
                "INSERT INTO token_uses (content, process, person, used_at) VALUES ('c', '{name}', 'p', {at})"
            ),
            format!(
                "INSERT INTO leaks (content, person, kind, first_at, last_at, times) VALUES ('{item}', '{vera}', 'long_after', 1, {at}, 1)"
            ),
            format!(
                "INSERT INTO revocations (guid, person, person_name, integration, integration_name, provider, correlation, state, tries, next_at, ended_at) VALUES ('{name}', 'p', 'p', 'i', 'i', 'p', 'c', 'told', 1, 1, {at})"
            ),
            format!(
                "INSERT INTO exchange_hours (hour, person, content, integration, exchanges, last_at) VALUES ({at}, '{name}', 'c', 'i', 1, {at})"
            ),
            format!(
                "INSERT INTO shown_once (name_hash, person, shown, expires_at) VALUES ('{name}', '{vera}', 'x', {at})"
            ),
            format!(
                "INSERT INTO content_sessions (key_hash, session, person, content, created_at) VALUES ('{name}', 's', '{vera}', '{item}', {at})"
            ),
            format!(
                "INSERT INTO handovers (code_hash, nonce_hash, session, person, content, expires_at) VALUES ('{name}', 'n', 's', '{vera}', '{item}', {at})"
            ),
        ]
    };
    let kept = [
        "FROM sign_in_tries WHERE who IN ('x', 'old', 'new')",
        "FROM setup_links WHERE token_hash IN ('old', 'new')",
        "FROM leases WHERE name IN ('old', 'new')",
        "FROM app_sessions WHERE id_hash IN ('old', 'new')",
        "FROM visits WHERE process IN ('old', 'new')",
        "FROM token_uses WHERE process IN ('old', 'new')",
        "FROM leaks",
        "FROM revocations WHERE guid IN ('old', 'new')",
        "FROM exchange_hours WHERE person IN ('old', 'new')",
        "FROM shown_once WHERE name_hash IN ('old', 'new')",
        "FROM content_sessions WHERE key_hash IN ('old', 'new')",
        "FROM handovers WHERE code_hash IN ('old', 'new')",
    ];
    for insert in inserts(old, "old") {
        world.sql(&insert);
    }
    world.sql("INSERT INTO revocations (guid, person, person_name, integration, integration_name, provider, correlation, state, tries, next_at, ended_at) VALUES ('waiting', 'p', 'p', 'i', 'i', 'p', 'c', 'waiting', 1, 9999999999999, 1000)");
    world.purge().await;
    for rows in kept {
        assert_eq!(
            number(&world, &format!("SELECT count(*) {rows}")),
            0,
            "{rows}"
        );
    }
    let waiting = "SELECT count(*) FROM revocations WHERE guid = 'waiting'";
    assert_eq!(
        number(&world, waiting),
        1,
        "its provider is still to be told"
    );
    for insert in inserts(new + 60_000, "new") {
        world.sql(&insert);
    }
    world.purge().await;
    for rows in kept {
        assert_eq!(
            number(&world, &format!("SELECT count(*) {rows}")),
            1,
            "{rows}"
        );
    }
    // What a node that ended kept for others goes with it.
    world.sql("INSERT INTO nodes (node, version, keys, seen_at) VALUES ('gone/1', '1', '', 5000)");
    world.sql("INSERT INTO held_tokens (node, token_hash) VALUES ('gone/1', 'h')");
    world.sql(&format!("INSERT INTO visits (content, process, person, node, here, since, seen_at) VALUES ('c', 'here', 'p', 'gone/1', TRUE, 1, {new})"));
    world.purge().await;
    assert_eq!(number(&world, "SELECT count(*) FROM held_tokens"), 0);
    let still_here = "SELECT count(*) FROM visits WHERE process = 'here' AND here";
    assert_eq!(number(&world, still_here), 0);
    // The viewer is still connected and may still exchange.
    let viewer = world.signed_in("vera").await;
    let token = world.token(&viewer, &item).await;
    assert_eq!(world.exchange(&world.key("bo"), &token).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_is_cut_at_whole_blocks_and_stays_verifiable() {
    let world = World::start_with_options(demo::Options {
        retention: Retention {
            audit: Some(Duration::from_secs(86_400)),
            ..Retention::default()
        },
        ..demo::Options::default()
    })
    .await;
    drop(world.connected("vera").await);
    let sealed = async {
        while number(&world, "SELECT count(*) FROM audit WHERE block IS NULL") > 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    within("the records to be sealed", sealed).await;
    let before = number(&world, "SELECT count(*) FROM audit");
    world.purge().await;
    assert_eq!(
        number(&world, "SELECT count(*) FROM audit"),
        before,
        "not old enough"
    );
    world.pass(Duration::from_secs(2 * 86_400));
    world.purge().await;
    assert_eq!(
        world.sql("SELECT action AS value FROM audit ORDER BY number LIMIT 1"),
        ["record_cut"]
    );
    let verify = || world.command(&["audit", "verify"]);
    let whole = |output: &std::process::Output| {
        String::from_utf8_lossy(&output.stdout).contains("The record is whole")
    };
    let output = verify();
    assert!(whole(&output), "{output:?}");
    // New records go on from there.
    drop(world.signed_in("viktor").await);
    let output = verify();
    assert!(whole(&output), "{output:?}");
    // Nobody without the key can move the place of the cut.
    let cut = world
        .sql("SELECT value FROM meta WHERE name = 'audit_cut'")
        .remove(0);
    world.sql("UPDATE meta SET value = '1' || value WHERE name = 'audit_cut'");
    assert!(!whole(&verify()));
    world.sql(&format!(
        "UPDATE meta SET value = '{cut}' WHERE name = 'audit_cut'"
    ));
    let output = verify();
    assert!(whole(&output), "{output:?}");
}
