//! Secrets with known values go through the flows; then everything that was written or shown is searched for them.

use crate::harness::World;

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_stands_in_the_database_or_on_a_page() {
    let world = World::start().await;
    let (vera, token) = world.connected("vera").await;
    let exchanged = world.exchange(&world.key("bo"), &token).await.json();
    let access = exchanged["access_token"].as_str().expect("a token").to_owned();
    let secret = world.summary["registration"]["client_secret"].as_str().expect("a secret").to_owned();
    let (bo, data_dir) = (world.key("bo"), world.data_dir.clone());
    let mut pages = String::new();
    for path in ["/content", "/consents", "/account", "/account/keys"] {
        pages.push_str(&vera.get(path).await.body);
    }
    let ada = world.signed_in("ada").await;
    for path in ["/integrations", "/audit", "/people"] {
        pages.push_str(&ada.get(path).await.body);
    }
    let own = world.integration();
    pages.push_str(&ada.get(&format!("/integrations/{own}/edit")).await.body);
    pages.push_str(&world.api(&world.key("ada"), "GET", &format!("v1/oauth/integrations/{own}"), "").await.body);
    let mut stored = Vec::new();
    for name in ["valetkey.db", "valetkey.db-wal"] {
        stored.extend(std::fs::read(data_dir.join(name)).unwrap_or_default());
    }
    assert!(stored.len() > 10_000);
    for canary in [access.as_str(), secret.as_str(), bo.as_str(), token.as_str(), "demo-refresh.", valetkey::demo::PASSWORD] {
        assert!(!pages.contains(canary), "on a page: {}", &canary[..6]);
        assert!(!stored.windows(canary.len()).any(|window| window == canary.as_bytes()), "in the database: {}", &canary[..6]);
    }
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(data_dir.join("keyring")).expect("the keyring").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    world.stop().await;
}
