//! Signing in with the organisation: OpenID Connect in Entra's shape, against the demo's identity
//! provider.

use crate::harness::{Answer, Browser, World};
use serde_json::json;
use std::time::Duration;
use valetkey::{
    demo::{Organisation, PASSWORD, openid::IdTokenFault},
    domain::person::Role,
};

fn mapped() -> Organisation {
    Organisation {
        roles: vec![
            ("Portal.Admin".into(), Role::Administrator),
            ("Portal.Publish".into(), Role::Publisher),
        ],
        groups: vec![(
            "11111111-aaaa-4bbb-8ccc-222222222222".into(),
            "Sales".into(),
        )],
        default_role: Some(Role::Viewer),
        ..Organisation::default()
    }
}

/// A portal at which people have only the roles that the organisation gives them.
async fn world_without_default_role() -> World {
    World::start_organisation(Organisation {
        default_role: None,
        ..mapped()
    })
    .await
}

/// Goes to the provider and signs in there; the answer that would go back to the portal.
async fn up_to_answer(browser: &Browser, address: &str, account: &str) -> String {
    let start = browser
        .send("GET", address, &[("accept", "text/html")], None)
        .await;
    assert_eq!(start.status, 303, "{}", start.body);
    let mut page = browser
        .send(
            "GET",
            start.header("location"),
            &[("accept", "text/html")],
            None,
        )
        .await;
    if page.status == 200 {
        page = browser
            .submit(
                &page,
                "signin",
                &[("username", account), ("password", PASSWORD)],
            )
            .await;
    }
    page.header("location").to_owned()
}

async fn sign_in(world: &World, account: &str) -> (Browser, Answer) {
    let browser = Browser::new(&world.portal);
    let answer = up_to_answer(&browser, "/login/organisation", account).await;
    let page = browser.get(&answer).await;
    (browser, page)
}

async fn person(world: &World, prefix: &str) -> Vec<serde_json::Value> {
    let found = world
        .api(
            &world.key("ada"),
            "GET",
            &format!("v1/users?prefix={prefix}"),
            "",
        )
        .await
        .json();
    found["results"].as_array().expect("people").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_give_role_and_groups_and_names_match_nobody() {
    let world = World::start_organisation(mapped()).await;
    world
        .provider
        .add_person("nora@example.org", "Nora Falk", PASSWORD);
    world.provider.set_claims(
        "nora@example.org",
        &["Portal.Publish", "Unknown"],
        &["11111111-aaaa-4bbb-8ccc-222222222222"],
    );
    let login = Browser::new(&world.portal)
        .get("/login?next=/consents")
        .await;
    assert!(
        login.body.contains("Sign in with Example Organisation"),
        "{}",
        login.body
    );
    let (nora, page) = sign_in(&world, "nora@example.org").await;
    assert!(
        page.url.ends_with("/content") && page.body.contains("Nora Falk"),
        "{}",
        page.body
    );
    let found = person(&world, "nora").await;
    assert_eq!(
        (found.len(), found[0]["user_role"].as_str()),
        (1, Some("publisher")),
        "{found:?}"
    );
    let groups = world
        .api(&world.key("ada"), "GET", "v1/groups", "")
        .await
        .json();
    assert_eq!(groups["results"][0]["name"], "Sales");
    let members = world
        .api(
            &world.key("ada"),
            "GET",
            &format!(
                "v1/groups/{}/members",
                groups["results"][0]["guid"].as_str().expect("a guid")
            ),
            "",
        )
        .await;
    assert_eq!(members.json()["total"], 1);
    // What the organisation takes back is gone at the next sign-in, and older sessions with the old
    // role end.
    world.provider.set_claims("nora@example.org", &[], &[]);
    let (_, page) = sign_in(&world, "nora@example.org").await;
    assert!(page.url.ends_with("/content"));
    assert_eq!(person(&world, "nora").await[0]["user_role"], "viewer");
    assert!(
        nora.get("/account").await.url.contains("/login"),
        "the session of the old role"
    );
    // Vera has an account here already; the organisation's vera is somebody else until she ties the
    // two together.
    let (_, page) = sign_in(&world, "vera@example.org").await;
    assert!(page.url.ends_with("/content"));
    let veras = person(&world, "vera").await;
    assert_eq!(veras.len(), 2, "{veras:?}");
    assert!(veras.iter().all(|vera| vera["user_role"] == "viewer"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_tied_by_its_owner_and_then_matches_by_subject() {
    let world = World::start_organisation(mapped()).await;
    let vera = world.signed_in("vera").await;
    assert!(
        vera.get("/account")
            .await
            .body
            .contains("Tie Example Organisation")
    );
    // Half an hour later the password comes first.
    world.pass(Duration::from_secs(1800));
    let asked = vera.get("/login/organisation?link=yes").await;
    assert!(asked.url.contains("/account/confirm"), "{}", asked.url);
    vera.submit(
        &asked,
        "/account/confirm",
        &[("confirm_password", PASSWORD)],
    )
    .await;
    let answer = up_to_answer(&vera, "/login/organisation?link=yes", "vera@example.org").await;
    let page = vera.get(&answer).await;
    assert!(
        page.body.contains("Tie vera@example.org to your account?"),
        "{}",
        page.body
    );
    let tied = vera.submit(&page, "/login/organisation/link", &[]).await;
    assert!(
        vera.follow(tied)
            .await
            .body
            .contains("From now on you can sign in with Example Organisation")
    );
    let (again, page) = sign_in(&world, "vera@example.org").await;
    assert!(page.body.contains("Vera Holm"));
    assert_eq!(person(&world, "vera").await.len(), 1);
    // Nobody else can take the same identity.
    let viktor = world.signed_in("viktor").await;
    let answer = up_to_answer(&viktor, "/login/organisation?link=yes", "vera@example.org").await;
    assert!(
        viktor
            .get(&answer)
            .await
            .body
            .contains("That is another account")
    );
    // Confirming goes by the identity, too: another person's sign-in confirms nothing.
    let answer = up_to_answer(
        &again,
        "/login/organisation?again=yes&next=/account",
        "viktor@example.org",
    )
    .await;
    assert_eq!(again.get(&answer).await.status, 403);
    let answer = up_to_answer(
        &again,
        "/login/organisation?again=yes&next=/account",
        "vera@example.org",
    )
    .await;
    assert!(answer.contains("code="));
    assert!(again.get(&answer).await.url.ends_with("/account"));
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_and_stale_id_tokens_sign_nobody_in() {
    let world = World::start_organisation(mapped()).await;
    for wrong in [
        IdTokenFault::AlgNone,
        IdTokenFault::Audience,
        IdTokenFault::Issuer,
        IdTokenFault::Nonce,
        IdTokenFault::Subject,
        IdTokenFault::Key,
        IdTokenFault::Symmetric,
        IdTokenFault::Missing,
        IdTokenFault::Clock(-3600 - 301),
        IdTokenFault::Clock(301),
    ] {
        world.provider.set_faults(|faults| faults.id_token = wrong);
        let (browser, page) = sign_in(&world, "viktor@example.org").await;
        assert_eq!(page.status, 400, "{wrong:?}: {}", page.body);
        assert!(
            page.body.contains("This sign-in is not accepted"),
            "{wrong:?}: {}",
            page.body
        );
        assert!(
            browser.get("/account").await.url.contains("/login"),
            "{wrong:?}"
        );
    }
    assert_eq!(person(&world, "viktor").await.len(), 1, "nobody was made");
    let lines = world.signed_in("ada").await.get("/audit").await.body;
    assert!(
        lines.contains("organisation: answer not accepted"),
        "{lines}"
    );
    // Clocks that differ by less than five minutes do not matter.
    for seconds in [-290, 290] {
        world
            .provider
            .set_faults(|faults| faults.id_token = IdTokenFault::Clock(seconds));
        assert!(
            sign_in(&world, "viktor@example.org")
                .await
                .1
                .url
                .ends_with("/content"),
            "{seconds}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_count_once_in_the_browser_that_asked_and_keys_may_rotate() {
    let world = World::start_organisation(mapped()).await;
    let browser = Browser::new(&world.portal);
    let answer = up_to_answer(&browser, "/login/organisation", "vera@example.org").await;
    let stranger = Browser::new(&world.portal);
    assert_eq!(stranger.get(&answer).await.status, 400, "another browser");
    let foreign = up_to_answer(&stranger, "/login/organisation", "viktor@example.org").await;
    assert_eq!(
        browser.get(&foreign).await.status,
        400,
        "the state of another browser"
    );
    assert_eq!(
        browser.get(&answer).await.status,
        400,
        "a failed answer uses the attempt up"
    );
    let answer = up_to_answer(&browser, "/login/organisation", "vera@example.org").await;
    for bent in [
        format!("{answer}&code=another"),
        format!("{answer}&state=another"),
        format!("{answer}&iss=https%3A%2F%2Fevil.example"),
    ] {
        let other = Browser::new(&world.portal);
        drop(up_to_answer(&other, "/login/organisation", "vera@example.org").await);
        assert_eq!(other.get(&bent).await.status, 400, "{bent}");
    }
    assert_eq!(browser.get(&answer).await.status, 200);
    assert_eq!(
        Browser::new(&world.portal).get(&answer).await.status,
        400,
        "twice"
    );
    // Late.
    let late = Browser::new(&world.portal);
    let answer = up_to_answer(&late, "/login/organisation", "vera@example.org").await;
    world.pass(Duration::from_secs(601));
    assert_eq!(late.get(&answer).await.status, 400);
    // A new key is fetched when it is first met; at most once a minute.
    world.provider.rotate_key().expect("a key");
    assert!(
        sign_in(&world, "vera@example.org")
            .await
            .1
            .url
            .ends_with("/content"),
        "a key that was not known"
    );
    // The provider says no.
    let refused = Browser::new(&world.portal);
    let answer = up_to_answer(&refused, "/login/organisation", "vera@example.org").await;
    let state = answer.split("state=").nth(1).unwrap_or("");
    let page = refused.get(&format!("/login/organisation/callback?error=access_denied&error_description=%3Cb%3Ex&state={state}")).await;
    assert!(
        page.body.contains("You are not signed in") && !page.body.contains("<b>x"),
        "{}",
        page.body
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p54_absent_claims_change_nothing_and_no_role_ends_what_the_role_gave() {
    let world = world_without_default_role().await;
    let sales = "11111111-aaaa-4bbb-8ccc-222222222222";
    world
        .provider
        .add_person("nora@example.org", "Nora Falk", PASSWORD);
    world
        .provider
        .set_claims("nora@example.org", &["Portal.Publish"], &[sales]);
    let (nora, _) = sign_in(&world, "nora@example.org").await;
    let members = async || {
        let ada = world.key("ada");
        let groups = world.api(&ada, "GET", "v1/groups", "").await.json();
        let guid = groups["results"][0]["guid"]
            .as_str()
            .expect("a group")
            .to_owned();
        let path = format!("v1/groups/{guid}/members");
        world.api(&ada, "GET", &path, "").await.json()["total"].clone()
    };
    assert_eq!(person(&world, "nora").await[0]["user_role"], "publisher");
    assert_eq!(members().await, 1);
    // The provider says nothing about roles and groups: nothing changes, and it is said.
    world
        .provider
        .set_faults(|faults| faults.id_token = IdTokenFault::SilentClaims);
    let (_, page) = sign_in(&world, "nora@example.org").await;
    assert!(page.url.ends_with("/content"), "{}", page.url);
    assert!(
        page.words()
            .contains("did not say which role and groups you have"),
        "{}",
        page.words()
    );
    assert_eq!(person(&world, "nora").await[0]["user_role"], "publisher");
    assert_eq!(members().await, 1);
    assert!(!nora.get("/account").await.url.contains("/login"));
    let record = world
        .signed_in("ada")
        .await
        .get("/audit?action=sign_in")
        .await;
    assert!(
        record
            .words()
            .contains("no claim of role and groups: unchanged"),
        "{}",
        record.words()
    );
    // Somebody new gets in only with a role.
    let (_, page) = sign_in(&world, "viktor@example.org").await;
    assert_eq!(page.status, 403);
    // It says that there is no role: what the old one gave ends.
    world
        .provider
        .set_faults(|faults| faults.id_token = IdTokenFault::Nothing);
    world.provider.set_claims("nora@example.org", &[], &[]);
    let page = nora.get("/account/keys").await;
    let made = nora.submit(&page, "/account/keys", &[("name", "mine")]);
    let shown = nora.follow(made.await).await.body;
    let key = shown.split("vk_").nth(1).expect("a key");
    let is_of_key = |letter: &char| letter.is_ascii_alphanumeric() || "-_".contains(*letter);
    let key = format!(
        "vk_{}",
        key.chars().take_while(is_of_key).collect::<String>()
    );
    let status = async || world.api(&key, "GET", "v1/user", "").await.status;
    assert_eq!(status().await, 200);
    let (_, page) = sign_in(&world, "nora@example.org").await;
    assert_eq!(page.status, 403);
    assert_eq!(person(&world, "nora").await[0]["user_role"], "viewer");
    assert!(nora.get("/account").await.url.contains("/login"));
    assert_eq!(status().await, 401, "the key has ended, too");
}

#[tokio::test(flavor = "multi_thread")]
async fn p54_the_last_administrator_stays_one_whatever_the_claims_say() {
    let world = world_without_default_role().await;
    let account = "nora@example.org";
    world.provider.add_person(account, "Nora Falk", PASSWORD);
    world.provider.set_claims(account, &["Portal.Admin"], &[]);
    let (nora, _) = sign_in(&world, account).await;
    let name = person(&world, "nora").await[0]["username"].clone();
    let name = name.as_str().expect("a name");
    world.sql(&format!(
        "UPDATE people SET role = 'viewer' WHERE username <> '{name}'"
    ));
    let role = || {
        world.sql(&format!(
            "SELECT role AS value FROM people WHERE username = '{name}'"
        ))
    };
    // Another role, and then none.
    world.provider.set_claims(account, &["Portal.Publish"], &[]);
    let (_, page) = sign_in(&world, account).await;
    assert_eq!(page.status, 200, "{}", page.body);
    assert_eq!(role(), ["administrator"]);
    let recorded = nora.get("/audit?action=sign_in").await;
    let said = "the last administrator stays one";
    assert!(recorded.words().contains(said), "{}", recorded.words());
    world.provider.set_claims(account, &[], &[]);
    sign_in(&world, account).await;
    assert_eq!(role(), ["administrator"]);
    assert_eq!(
        nora.get("/audit").await.status,
        200,
        "nor has a session ended"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn people_without_a_role_stay_outside_and_locked_ones_too() {
    let world = world_without_default_role().await;
    let (browser, page) = sign_in(&world, "viktor@example.org").await;
    assert_eq!(page.status, 403);
    assert!(
        page.body.contains("You have no place here yet"),
        "{}",
        page.body
    );
    assert!(browser.get("/account").await.url.contains("/login"));
    world
        .provider
        .set_claims("viktor@example.org", &["Portal.Publish"], &[]);
    let (browser, page) = sign_in(&world, "viktor@example.org").await;
    assert!(page.url.ends_with("/content"));
    let made = person(&world, "viktor")
        .await
        .into_iter()
        .find(|found| found["user_role"] == "publisher")
        .expect("the new account");
    let lock = format!("v1/users/{}/lock", made["guid"].as_str().expect("a guid"));
    assert_eq!(
        world
            .api(&world.key("ada"), "POST", &lock, "{\"locked\": true}")
            .await
            .status,
        200
    );
    assert!(browser.get("/account").await.url.contains("/login"));
    assert!(
        sign_in(&world, "viktor@example.org")
            .await
            .1
            .body
            .contains("Your account here is locked")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sign_in_brings_the_connection_after_our_consent_page_alone() {
    let world = World::start_organisation(mapped()).await;
    let (vera, _) = sign_in(&world, "vera@example.org").await;
    let redeemed = world.provider.counts().redeemed;
    let app = format!("/content/{}/", world.content(0));
    let asked = vera.get(&app).await;
    assert!(
        asked.url.contains("/consents/new") && asked.body.contains(">Allow<"),
        "{}",
        asked.body
    );
    let answer = vera.submit(&asked, "/consents/new", &[]).await;
    let identity_provider = world.summary["identity_provider"]
        .as_str()
        .expect("an address");
    assert!(
        !answer.header("location").starts_with(identity_provider),
        "no way to the provider"
    );
    let page = vera.follow(answer).await;
    assert!(page.body.contains("vera@example.org"), "{}", page.body);
    assert_eq!(world.provider.counts().redeemed, redeemed);
    // Somebody with a password goes the long way.
    let viktor = world.signed_in("viktor").await;
    assert!(viktor.get(&app).await.body.contains("Continue to"));
    // When the provider will not do it silently, the long way is taken, too.
    world
        .provider
        .add_person("nora@example.org", "Nora Falk", PASSWORD);
    let (nora, _) = sign_in(&world, "nora@example.org").await;
    let asked = nora.get(&app).await;
    world.provider.revoke_refresh_tokens();
    let answer = nora.submit(&asked, "/consents/new", &[]).await;
    assert!(
        answer.header("location").starts_with(identity_provider),
        "{}",
        answer.header("location")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_can_be_off_and_a_link_still_lets_in() {
    let world = World::start_organisation(Organisation {
        no_passwords: true,
        ..mapped()
    })
    .await;
    let browser = Browser::new(&world.portal);
    let page = browser.get("/login").await;
    assert!(
        !page.body.contains("type=\"password\"")
            && page.body.contains("Sign in with Example Organisation"),
        "{}",
        page.body
    );
    let csrf = browser.get("/setup/no-such-link").await;
    assert_eq!(csrf.status, 404);
    let body = format!("csrf={}&username=ada&password={PASSWORD}", "x");
    assert_eq!(
        browser
            .send("POST", "/login", &[("accept", "text/html")], Some(body))
            .await
            .status,
        403
    );
    assert!(browser.get("/account").await.url.contains("/login"));
    // The operator's way in: one line on the command line, one link, once.
    let link = world.link_from_command_line("ada");
    let page = browser.get(&link).await;
    assert!(page.body.contains("Choose a password"), "{}", page.body);
    let done = browser
        .submit(
            &page,
            link.split("/setup").nth(1).unwrap_or("-"),
            &[("password", "a new password")],
        )
        .await;
    assert!(browser.follow(done).await.body.contains("Ada Berg"));
    assert_eq!(
        Browser::new(&world.portal).get(&link).await.status,
        404,
        "once"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_does_not_decide_who_is_in_a_group_of_the_organisation() {
    let world = World::start_organisation(mapped()).await;
    let (ada, bo) = (world.key("ada"), world.key("bo"));
    let refused = world
        .api(&bo, "POST", "v1/groups", r#"{"name": "sales"}"#)
        .await;
    assert_eq!(refused.status, 403, "{}", refused.body);
    // One that bo made, and is in, before its name was the organisation's.
    let made = world
        .api(&bo, "POST", "v1/groups", r#"{"name": "Others"}"#)
        .await;
    assert_eq!(made.status, 200, "{}", made.body);
    let group = made.json()["guid"].as_str().expect("a guid").to_owned();
    let me = world.api(&bo, "GET", "v1/user", "").await.json();
    let member = json!({"user_guid": me["guid"]}).to_string();
    let members = format!("v1/groups/{group}/members");
    assert_eq!(world.api(&bo, "POST", &members, &member).await.status, 204);
    world.sql("UPDATE groups SET name = 'Sales', name_key = 'sales'");

    world
        .provider
        .add_person("nora@example.org", "Nora Falk", PASSWORD);
    world.provider.set_claims(
        "nora@example.org",
        &["Portal.Publish"],
        &["11111111-aaaa-4bbb-8ccc-222222222222"],
    );
    sign_in(&world, "nora@example.org").await;
    let names = world.api(&ada, "GET", &members, "").await.json();
    let names: Vec<&str> = names["results"]
        .as_array()
        .expect("members")
        .iter()
        .filter_map(|member| member["username"].as_str())
        .collect();
    assert_eq!(names.len(), 1, "{names:?}");
    assert!(names[0].starts_with("nora"), "{names:?}");
    let again = world.api(&bo, "POST", &members, &member).await;
    assert_eq!(again.status, 403, "{}", again.body);
}
