//! Which notices are made, and how often. How they are sent: `tests/clients/test_notifications.py`.

use crate::harness::World;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

fn made(world: &World, kind: &str) -> usize {
    world
        .sql(&format!(
            "SELECT title AS value FROM notices WHERE kind = '{kind}'"
        ))
        .len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_has_not_worked_for_ten_minutes_is_told_once_a_day() {
    let world = World::start().await;
    let mut browsers = Vec::new();
    for name in ["vera", "viktor", "bo"] {
        browsers.push(world.connected(name).await.0);
    }
    assert_eq!(
        made(&world, "consent_given"),
        3,
        "each viewer is told of the consent"
    );
    world.pass(HOUR);
    let bo = world.key("bo");
    world
        .provider
        .set_faults(|faults| faults.status = Some(502));
    // A viewer's token is good for an hour; the times of the breaker's pauses pass in between.
    for minutes in [0, 4, 7] {
        world.pass(Duration::from_secs(60 * minutes));
        let look = world
            .services
            .conditions
            .look_at_node(&world.services.health);
        look.await.expect("a look");
        assert_eq!(
            made(&world, "provider_unreachable"),
            0,
            "after {minutes} more minutes"
        );
        for browser in &browsers {
            let token = world.token(browser, &world.content(0)).await;
            assert_eq!(world.exchange(&bo, &token).await.status, 503);
        }
    }
    for _ in 0..2 {
        let look = world
            .services
            .conditions
            .look_at_node(&world.services.health);
        look.await.expect("a look");
        assert_eq!(made(&world, "provider_unreachable"), 1);
    }
    // It works again: nobody is told any more.
    world.provider.set_faults(|faults| faults.status = None);
    world.pass(Duration::from_secs(301));
    for browser in &browsers {
        let token = world.token(browser, &world.content(0)).await;
        assert_eq!(world.exchange(&bo, &token).await.status, 200);
    }
    world.pass(DAY);
    let look = world
        .services
        .conditions
        .look_at_node(&world.services.health);
    look.await.expect("a look");
    assert_eq!(made(&world, "provider_unreachable"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_whose_connection_ended_is_told_and_the_installation_is_looked_at() {
    let world = World::start().await;
    let (vera, _) = world.connected("vera").await;
    let bo = world.key("bo");
    world.pass(HOUR + Duration::from_secs(60));
    world
        .provider
        .set_faults(|faults| faults.error = Some(("invalid_grant".to_owned(), 70_008)));
    let token = world.token(&vera, &world.content(0)).await;
    let ended = world.exchange(&bo, &token).await;
    assert_ne!(ended.status, 200);
    assert_eq!(made(&world, "connection_needs_viewer"), 1);
    let told = world.sql("SELECT CAST(count(*) AS TEXT) AS value FROM notices JOIN people ON people.guid = notices.person WHERE kind = 'connection_needs_viewer' AND username = 'vera'");
    assert_eq!(told, ["1"]);

    let look = async |is_whole| {
        let look = world.services.conditions.look_at_installation(is_whole);
        look.await.expect("a look");
    };
    look(None).await;
    for kind in ["backup_overdue", "audit_log_changed", "api_key_unused"] {
        assert_eq!(made(&world, kind), 0, "{kind}");
    }
    world.pass(DAY * 3);
    look(Some(false)).await;
    look(Some(false)).await;
    assert_eq!(made(&world, "backup_overdue"), 1);
    assert_eq!(made(&world, "audit_log_changed"), 1);
    // Within a week there is a Monday; half a year later nobody had used a key.
    for _ in 0..28 {
        world.pass(HOUR * 6);
        look(None).await;
        assert!(made(&world, "weekly_digest") <= 2);
    }
    assert!(made(&world, "weekly_digest") >= 1);
    let digest = world.sql("SELECT body AS value FROM notices WHERE kind = 'weekly_digest'");
    assert!(digest.join("\n").contains("1 consents"), "{digest:?}");
    world.pass(DAY * 181);
    look(None).await;
    let keys = made(&world, "api_key_unused");
    assert!(keys >= 1);
    look(None).await;
    assert_eq!(made(&world, "api_key_unused"), keys, "once for each key");
    // Notices are kept for 30 days. The portal itself may look, and make new ones, at any moment.
    let before = world.now().0;
    let old = || {
        let count = "SELECT CAST(count(*) AS TEXT) AS value FROM notices";
        world.sql(&format!("{count} WHERE at <= {before}"))
    };
    assert_ne!(old(), ["0"]);
    world.pass(DAY * 31);
    world.purge().await;
    assert_eq!(old(), ["0"]);
}
