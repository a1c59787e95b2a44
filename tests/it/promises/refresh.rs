//! Promises 23, 24, 36 and 38 once more: what a refresh may not do while it is under way, and what
//! becomes of tokens that the database did not take.

use crate::harness::{Browser, Served, World, http_answer, keeps_last_request, serve_raw, within};
use serde_json::{Value, json};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

/// The portal refreshes connections ahead of need if they were used within an hour. After a longer
/// time it does not, so that on a slow machine it is not quicker than the test.
const HOUR: Duration = Duration::from_secs(3601);

/// A connected viewer whose access token has to be refreshed at the next exchange, with a session
/// token that is in time.
async fn due(world: &World) -> (Browser, String) {
    let (vera, _) = world.connected("vera").await;
    world.pass(HOUR);
    let token = world.token(&vera, &world.content(0)).await;
    world.pass(Duration::from_secs(49));
    (vera, token)
}

async fn until(what: &str, limit: Duration, mut is: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(limit, async {
        while !is().await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what} did not happen in {limit:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn p24_consent_revoked_during_a_refresh_stops_the_exchange_that_waits_for_it() {
    let world = World::start().await;
    let (vera, token) = due(&world).await;
    world
        .provider
        .set_faults(|faults| faults.delay = Duration::from_secs(3));
    let before = world.provider.counts().refreshed;
    let bo = world.key("bo");
    let revoking = async {
        until("the refresh", Duration::from_secs(10), async || {
            world.provider.counts().refreshed > before
        })
        .await;
        world.revoke_consent(&vera).await;
    };
    let (answer, ()) = tokio::join!(world.exchange(&bo, &token), revoking);
    assert_eq!(
        (answer.status, answer.json()["code"].as_i64()),
        (400, Some(220)),
        "{}",
        answer.body
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p38_no_token_is_handed_out_before_its_successor_is_stored() {
    let world = World::start().await;
    let (_, token) = due(&world).await;
    let bo = world.key("bo");
    world
        .provider
        .set_faults(|faults| (faults.delay, faults.single_use) = (Duration::from_secs(2), true));
    let before = world.provider.counts().refreshed;
    let locking = async {
        until("the refresh", Duration::from_secs(10), async || {
            world.provider.counts().refreshed > before
        })
        .await;
        let locked = world.lock_database(Duration::from_secs(9)).await;
        locked.await.expect("unlocked");
    };
    // The first one may have to give up waiting; what it gets, if anything, is stored.
    let (first, ()) = tokio::join!(world.exchange(&bo, &token), locking);
    assert!(matches!(first.status, 200 | 503), "{}", first.body);
    let mut last = first;
    until("an exchange", Duration::from_secs(20), async || {
        last = world.exchange(&bo, &token).await;
        last.status == 200
    })
    .await;
    let counts = world.provider.counts();
    assert_eq!(
        (counts.refreshed - before, counts.replays),
        (1, 0),
        "{}",
        last.body
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p23_a_late_refresh_does_not_overwrite_the_tokens_of_a_new_connection() {
    let world = World::start().await;
    let (vera, token) = due(&world).await;
    let bo = world.key("bo");
    let before = world.provider.counts().refreshed;
    world
        .provider
        .set_faults(|faults| faults.delay = Duration::from_secs(5));
    let stored = || world.sql("SELECT access_token AS value FROM connections");
    let reconnecting = async {
        until("the refresh", Duration::from_secs(10), async || {
            world.provider.counts().refreshed > before
        })
        .await;
        world
            .provider
            .set_faults(|faults| faults.delay = Duration::ZERO);
        let callback = vera
            .up_to_callback(
                &format!("/__oauth__/integrations/{}/login", world.integration()),
                "vera",
            )
            .await;
        let page = vera.get(&callback).await;
        assert!(!page.url.contains("callback"), "{} {}", page.url, page.body);
        stored()
    };
    let (answer, new) = tokio::join!(world.exchange(&bo, &token), reconnecting);
    assert_eq!(answer.status, 200, "{}", answer.body);
    // Until the late answer has come for sure.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(stored(), new, "the new connection's tokens stand");
}

#[tokio::test(flavor = "multi_thread")]
async fn p23_a_connection_in_use_is_refreshed_before_it_ends() {
    let world = World::start().await;
    let (_, token) = world.connected("vera").await;
    let answer = world.exchange(&world.key("bo"), &token).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let before = world.provider.counts().refreshed;
    // Near its end, and nothing asks for it.
    world.pass(Duration::from_secs(3300));
    until("a refresh ahead", Duration::from_secs(80), async || {
        world.provider.counts().refreshed > before
    })
    .await;
}

/// What [`rotating`] saw and does.
#[derive(Default)]
struct Rotation {
    refreshed: AtomicU32,
    /// Codes redeemed.
    redeemed: AtomicU32,
    /// The only refresh token that is good.
    live: Mutex<String>,
    /// The next refresh is answered by a closed connection; its token is used up all the same.
    lose: std::sync::atomic::AtomicBool,
    /// It answers when this is released.
    held: tokio::sync::Mutex<()>,
}

/// A provider whose refresh tokens work once. Its first access token is as good as over.
async fn rotating(state: Arc<Rotation>) -> String {
    serve_raw(move |request| {
        let number = state.refreshed.load(Ordering::SeqCst);
        let tokens = |number: u32, seconds: u32| {
            *state.live.lock().expect("a token") = format!("refresh-{number}");
            let body = json!({"access_token": format!("access-{number}"), "token_type": "Bearer",
                "expires_in": seconds, "refresh_token": format!("refresh-{number}")});
            http_answer(200, "Content-Type: application/json\r\n", &body.to_string())
        };
        let wait = || drop(state.held.blocking_lock());
        if request.contains("grant_type=authorization_code") {
            state.redeemed.fetch_add(1, Ordering::SeqCst);
            wait();
            return tokens(0, 2);
        }
        let live = state.live.lock().expect("a token").clone();
        if !request.contains(&format!("refresh_token={live}")) {
            return http_answer(
                400,
                "Content-Type: application/json\r\n",
                r#"{"error":"invalid_grant"}"#,
            );
        }
        state.refreshed.fetch_add(1, Ordering::SeqCst);
        wait();
        let answer = tokens(number + 1, 3600);
        if state.lose.swap(false, Ordering::SeqCst) {
            return Vec::new();
        }
        answer
    })
    .await
}

/// The body of an integration at `provider`.
fn integration(provider: &str) -> Value {
    let config = json!({"client_id": "c", "client_secret": "s3cret-of-the-test",
        "authorization_uri": format!("{provider}/authorize"),
        "token_uri": format!("{provider}/token"), "scopes": "a offline_access"});
    json!({"name": "Rotating", "template": "custom", "config": config})
}

/// Goes from our consent page to the callback, as if the provider had sent the browser back.
async fn connect(viewer: &Browser, page: &str, guid: &str) {
    let page = viewer.get(page).await;
    let away = viewer.submit(&page, "/consents/new", &[]).await;
    let address = url::Url::parse(away.header("location")).expect("an address");
    let state = address
        .query_pairs()
        .find(|(name, _)| name == "state")
        .expect("a state")
        .1
        .into_owned();
    let callback = format!("/__oauth__/integrations/{guid}/callback?code=any&state={state}");
    let back = viewer.get(&callback).await;
    assert!(!back.url.contains("callback"), "{} {}", back.url, back.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn p23_a_refusal_after_a_lost_answer_is_called_a_lost_rotation() {
    let world = World::start().await;
    let (ada, bo) = (world.key("ada"), world.key("bo"));
    let state = Arc::new(Rotation::default());
    let provider = rotating(Arc::clone(&state)).await;
    let body = integration(&provider).to_string();
    let made = world
        .api(&ada, "POST", "v1/oauth/integrations", &body)
        .await;
    assert_eq!(made.status, 200, "{}", made.body);
    let guid = made.json()["guid"].as_str().expect("a guid").to_owned();
    let item = world.content(1);
    let wanted = json!([{"oauth_integration_guid": guid}]).to_string();
    let path = format!("v1/content/{item}/oauth/integrations/associations");
    assert_eq!(world.api(&ada, "PUT", &path, &wanted).await.status, 204);
    let vera = world.signed_in("vera").await;
    connect(&vera, &format!("/content/{item}/"), &guid).await;
    let token = world.token(&vera, &item).await;
    world.pass(Duration::from_secs(5));
    state.lose.store(true, Ordering::SeqCst);
    let lost = world.exchange(&bo, &token).await;
    assert_eq!(lost.status, 503, "{}", lost.body);
    // After the pause that a failure brings.
    world.pass(Duration::from_secs(60));
    let refused = world.exchange(&bo, &token).await;
    assert_eq!(refused.status, 400, "{}", refused.body);
    let causes = world.sql(&format!(
        "SELECT cause AS value FROM connections WHERE integration = '{guid}'"
    ));
    assert_eq!(causes, ["rotation_lost"]);
    assert_eq!(state.refreshed.load(Ordering::SeqCst), 1);
}

/// A served portal with an item that uses an integration at a [`rotating`] provider, and its
/// administrator's browser.
struct Rotating {
    served: Served,
    state: Arc<Rotation>,
    key: String,
    /// The last head that the app got.
    heads: Arc<Mutex<String>>,
    item: String,
    guid: String,
    ada: Browser,
}

impl Rotating {
    async fn start() -> Self {
        let state = Arc::new(Rotation::default());
        let provider = rotating(Arc::clone(&state)).await;
        let served = Served::start(&[("VALETKEY_PRIVATE_HOSTS", "127.0.0.1")]).await;
        let key = served.administrator("ada");
        let body = integration(&provider).to_string();
        let made = served
            .api(&key, "POST", "v1/oauth/integrations", &body)
            .await;
        assert_eq!(made.status, 200, "{}", made.body);
        let guid = made.json()["guid"].as_str().expect("a guid").to_owned();
        let (app, heads) = keeps_last_request().await;
        let item = served
            .api(&key, "POST", "v1/content", r#"{"name": "app"}"#)
            .await
            .json();
        let item = item["guid"].as_str().expect("a guid").to_owned();
        let change = json!({"upstream_url": app}).to_string();
        let path = format!("v1/content/{item}");
        assert_eq!(served.api(&key, "PATCH", &path, &change).await.status, 200);
        let wanted = json!([{"oauth_integration_guid": guid}]).to_string();
        let path = format!("v1/content/{item}/oauth/integrations/associations");
        assert_eq!(served.api(&key, "PUT", &path, &wanted).await.status, 204);
        let ada = Browser::new(&served.url());
        ada.sign_in("ada").await;
        Self {
            served,
            state,
            key,
            heads,
            item,
            guid,
            ada,
        }
    }
}

fn has_spooled(served: &Served) -> bool {
    std::fs::read(served.data_dir.join("spool"))
        .is_ok_and(|bytes| bytes.iter().any(|byte| *byte != 0))
}

/// Locks the database once the provider was asked (`calls` is one), lets it answer, and waits until the
/// tokens are in the spool. Gives what ends with the lock.
async fn lock_until_spooled(
    served: &Served,
    what: &str,
    calls: &AtomicU32,
    held: tokio::sync::MutexGuard<'_, ()>,
) -> [Option<tokio::task::JoinHandle<()>>; 1] {
    until(what, Duration::from_secs(30), async || {
        calls.load(Ordering::SeqCst) == 1
    })
    .await;
    let locked = served.lock_database(Duration::from_secs(45)).await;
    drop(held);
    until("a spooled token", Duration::from_secs(40), async || {
        has_spooled(served)
    })
    .await;
    // In an array: a future must not be what a future gives.
    [Some(locked)]
}

impl Rotating {
    /// As [`HOUR`] does for a world whose clock a test can move: the portal must not refresh the
    /// connection before the test does.
    fn last_used_long_ago(&self) {
        self.served.sql(&format!(
            "UPDATE connections SET used_at = used_at - {}",
            2 * HOUR.as_millis()
        ));
    }

    /// Connects ada, and gives her session token when her access token has to be refreshed.
    async fn due(&self) -> String {
        let app = format!("/content/{}/", self.item);
        connect(&self.ada, &app, &self.guid).await;
        self.last_used_long_ago();
        self.ada.get(&app).await;
        let head = self.heads.lock().expect("a head").clone();
        let token = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("posit-connect-user-session-token")
                .then(|| value.trim().to_owned())
        });
        tokio::time::sleep(Duration::from_secs(2)).await;
        token.unwrap_or_else(|| panic!("no session token in {head}"))
    }

    /// Refreshes with a database that takes no tokens, and kills the server, whose spool has them.
    async fn refresh_and_kill(&mut self, token: &str) {
        let held = self.state.held.lock().await;
        let locking = lock_until_spooled(&self.served, "the refresh", &self.state.refreshed, held);
        let exchange = self.served.exchange(&self.key, token);
        let (answer, mut unlocking) = tokio::join!(exchange, locking);
        assert_eq!(answer.status, 503, "{}", answer.body);
        self.served.kill();
        within("the lock's end", unlocking[0].take().expect("a lock"))
            .await
            .expect("unlocked");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p37_tokens_that_the_database_did_not_take_survive_kill_9() {
    let mut rotating = Rotating::start().await;
    let token = rotating.due().await;
    rotating.refresh_and_kill(&token).await;
    rotating.restart().await;
    let Rotating {
        served, key, state, ..
    } = rotating;
    let answer = served.exchange(&key, &token).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.json()["access_token"], "access-1");
    assert_eq!(state.refreshed.load(Ordering::SeqCst), 1, "no second one");
}

#[tokio::test(flavor = "multi_thread")]
async fn p37_spooled_tokens_replace_no_newer_ones() {
    let mut rotating = Rotating::start().await;
    let token = rotating.due().await;
    rotating.refresh_and_kill(&token).await;
    // Meanwhile another node has stored tokens.
    let newer = "UPDATE connections SET generation = generation + 1, access_token = 'newer', refresh_token = 'newer'";
    rotating.served.sql(newer);
    assert_eq!(rotating.restart().await, ["active"]);
    let kept = "SELECT access_token || ' ' || refresh_token AS value FROM connections";
    assert_eq!(rotating.served.sql(kept), ["newer newer"]);
}

#[cfg(feature = "faults")]
#[tokio::test(flavor = "multi_thread")]
async fn p23_a_panic_within_a_refresh_stops_no_later_one() {
    let mut rotating = Rotating::start().await;
    rotating.served.set("VALETKEY_PANIC_AT", "attempt_written");
    // The lease of the refresh that panicked ends sooner, too.
    rotating.served.set("VALETKEY_HURRY", "25");
    rotating.served.kill();
    rotating.served.restart().await;
    let token = rotating.due().await;
    let panicked = rotating.served.exchange(&rotating.key, &token).await;
    assert_eq!(panicked.status, 503, "{}", panicked.body);
    let log = rotating.served.log();
    assert!(log.contains("as VALETKEY_PANIC_AT says"), "{log}");
    until("a refresh", Duration::from_secs(30), async || {
        let answer = rotating.served.exchange(&rotating.key, &token).await;
        answer.status == 200 && answer.json()["access_token"] == "access-1"
    })
    .await;
}

/// Starts a connection and returns the address to which the provider sends the browser back.
async fn callback_of(ada: &Browser, item: &str, guid: &str) -> String {
    let page = ada.get(&format!("/content/{item}/")).await;
    let away = ada.submit(&page, "/consents/new", &[]).await;
    let address = url::Url::parse(away.header("location")).expect("an address");
    let sent = address.query_pairs().find(|(name, _)| name == "state");
    let (_, sent) = sent.expect("a state");
    format!("/__oauth__/integrations/{guid}/callback?code=any&state={sent}")
}

impl Rotating {
    /// Connects ada, with a database that takes no tokens, and kills the server, whose spool has them.
    async fn connect_and_kill(&mut self) {
        let callback = callback_of(&self.ada, &self.item, &self.guid).await;
        // The attempt is used up before the provider is asked: lock the database only then.
        let held = self.state.held.lock().await;
        let locking = lock_until_spooled(
            &self.served,
            "the code's redemption",
            &self.state.redeemed,
            held,
        );
        let (answer, mut unlocking) = tokio::join!(self.ada.get(&callback), locking);
        assert_eq!(answer.status, 503, "{}", answer.body);
        assert!(answer.words().contains("is kept"), "{}", answer.words());
        self.served.kill();
        within("the lock's end", unlocking[0].take().expect("a lock"))
            .await
            .expect("unlocked");
    }

    /// Restarts the server; returns the states of all connections then.
    async fn restart(&mut self) -> Vec<String> {
        self.served.restart().await;
        assert!(!has_spooled(&self.served), "the spool is cleared");
        self.served.sql("SELECT state AS value FROM connections")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p37_a_new_connection_that_the_database_did_not_take_survives_kill_9() {
    let mut rotating = Rotating::start().await;
    rotating.connect_and_kill().await;
    assert_eq!(rotating.restart().await, ["active"]);
    let consents = "SELECT guid AS value FROM consents";
    assert_eq!(rotating.served.sql(consents).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_ended_since_is_not_brought_back_from_the_spool() {
    let mut rotating = Rotating::start().await;
    rotating.connect_and_kill().await;
    let ended = "INSERT INTO meta (name, value) VALUES ('everything_ended_at', '9999999999999')";
    rotating.served.sql(ended);
    assert!(rotating.restart().await.is_empty());

    let mut rotating = Rotating::start().await;
    let item = format!("/content/{}/", rotating.item);
    connect(&rotating.ada, &item, &rotating.guid).await;
    rotating.state.redeemed.store(0, Ordering::SeqCst);
    let asked_again = "UPDATE connections SET state = 'needs_login', cause = 'expired'";
    rotating.served.sql(asked_again);
    rotating.connect_and_kill().await;
    rotating.served.sql("DELETE FROM connections");
    assert!(rotating.restart().await.is_empty());
}
