//! Promise 57, and each template against its double in `demo::doubles`: connect, refresh, a dead
//! refresh token, a wrong secret, revocation, the account's name; service accounts against services
//! that verify this portal's tokens; checks that name what is wrong.

use crate::harness::{Answer, Browser, World, serve_raw, until};
use base64::Engine as _;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use valetkey::demo::{
    self,
    doubles::{CLIENT_SECRET, DIALECTS, Dialect, Doubles, Refusal},
};
use valetkey::service::grants::issuer::PortalToken;

const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const CONTENT_TOKEN: &str = "urn:posit:connect:content-session-token";

async fn world() -> (World, Arc<Doubles>) {
    let options = demo::Options {
        doubles: true,
        ..demo::Options::default()
    };
    let world = World::start_with_options(options).await;
    let doubles = world.doubles.clone().expect("doubles");
    (world, doubles)
}

async fn add(world: &World, template: &str, name: &str, mut config: Value, secret: &str) -> String {
    if !secret.is_empty() {
        config["client_secret"] = json!(secret);
    }
    let body = json!({"template": template, "name": name, "config": config}).to_string();
    let made = world
        .api(&world.key("ada"), "POST", "v1/oauth/integrations", &body)
        .await;
    assert_eq!(made.status, 200, "{name}: {}", made.body);
    made.json()["guid"].as_str().expect("a guid").to_owned()
}

/// Makes the first content item use these integrations only.
async fn attach(world: &World, integrations: &[&str]) {
    let path = format!(
        "v1/content/{}/oauth/integrations/associations",
        world.content(0)
    );
    let wanted: Vec<Value> = integrations
        .iter()
        .map(|guid| json!({"oauth_integration_guid": guid}))
        .collect();
    let body = Value::Array(wanted).to_string();
    let done = world.api(&world.key("bo"), "PUT", &path, &body).await;
    assert_eq!(done.status, 204, "{}", done.body);
}

/// Opens the first item and signs in at a double, as `name`.
async fn connect(world: &World, browser: &Browser, name: &str) -> Answer {
    let app = format!("/content/{}/", world.content(0));
    let page = browser.get(&app).await;
    assert!(
        page.url.contains("/consents/new"),
        "{}: {}",
        page.url,
        page.body
    );
    let answer = browser.submit(&page, "/consents/new", &[]).await;
    let sign_in = browser.follow(answer).await;
    assert!(sign_in.body.contains("id=accept"), "{}", sign_in.body);
    let form = [("username", name), ("accept", "yes")];
    let body: String = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(form)
        .finish();
    let kind = [("content-type", "application/x-www-form-urlencoded")];
    let answer = browser.send("POST", &sign_in.url, &kind, Some(body)).await;
    browser.follow(answer).await
}

async fn exchange(world: &World, token: &str) -> (u16, Value) {
    let answer = world.exchange(&world.key("bo"), token).await;
    (answer.status, answer.json())
}

/// Time goes by, longer than a browser session may be idle.
async fn pass(world: &World, viewer: &mut Browser, time: Duration) {
    world.pass(time);
    *viewer = world.signed_in("vera").await;
}

/// Everything that one template has to do with its provider.
async fn whole_life(world: &World, doubles: &Arc<Doubles>, dialect: &Dialect) {
    let key = dialect.key;
    let config = dialect.config(doubles.address(key));
    let guid = add(
        world,
        dialect.template(),
        key,
        config.clone(),
        CLIENT_SECRET,
    )
    .await;
    attach(world, &[&guid]).await;

    // The consent page says what it is about in the template's own words.
    let mut viewer = world.signed_in("vera").await;
    let app = format!("/content/{}/", world.content(0));
    let asked = viewer.get(&app).await;
    let words = asked.words();
    let template = valetkey::providers::template(dialect.template()).expect("a template");
    assert!(words.contains(template.short_title), "{key}: {words}");

    let page = connect(world, &viewer, "vera@example.org").await;
    assert!(
        page.url.contains(&world.content(0)),
        "{key}: {} {}",
        page.url,
        page.body
    );
    let token = world.token(&viewer, &world.content(0)).await;
    let (status, first) = exchange(world, &token).await;
    assert_eq!(status, 200, "{key}: {first}");
    let held = first["access_token"].as_str().expect("a token").to_owned();
    assert_eq!(
        doubles.holder(&held).as_deref(),
        Some("vera@example.org"),
        "{key}"
    );
    if dialect.template() == "salesforce" {
        assert_eq!(first["instance_url"], "https://example.my.salesforce.com");
        assert!(first.get("signature").is_none());
    }

    // The account is named where the viewer looks.
    let consents = viewer.get("/consents").await.words();
    let named = consents
        .to_ascii_lowercase()
        .contains("as vera@example.org");
    // HubSpot does not say.
    assert_eq!(named, key != "hubspot", "{key}: {consents}");

    let lifetime = first["expires_in"].as_u64();
    let refreshes = doubles.counts(key).0;
    match lifetime {
        None => {
            // A token without an end is not asked for again, however long it takes.
            pass(world, &mut viewer, Duration::from_secs(20 * 3600)).await;
            let (status, later) = exchange_anew(world, &viewer).await;
            assert_eq!(status, 200, "{key}: {later}");
            assert_eq!(later["access_token"], first["access_token"], "{key}");
        }
        Some(told) => {
            // Content may use the token for as long as it was told, although others ask meanwhile.
            pass(
                world,
                &mut viewer,
                // More than a busy machine takes for the next step, less than the usual lead.
                Duration::from_secs(told.saturating_sub(60)),
            )
            .await;
            let (status, _) = exchange_anew(world, &viewer).await;
            assert_eq!(status, 200, "{key}");
            if valetkey::providers::template(dialect.template()).is_some()
                && matches!(dialect.template(), "github" | "gitlab")
                || key == "snowflake single-use"
            {
                assert_eq!(
                    doubles.counts(key).0,
                    refreshes,
                    "{key}: refreshed ahead of need"
                );
                assert!(
                    doubles.holder(&held).is_some(),
                    "{key}: dead before its told end"
                );
            }
            pass(world, &mut viewer, Duration::from_secs(told + 200)).await;
            // Twenty at once, and one refresh.
            let token = world.token(&viewer, &world.content(0)).await;
            let before = doubles.counts(key).0;
            let asked = (0..20).map(|_| exchange(world, &token));
            for (status, body) in futures_util::future::join_all(asked).await {
                assert_eq!(status, 200, "{key}: {body}");
            }
            // None, if the job that refreshes ahead was faster.
            let made = doubles.counts(key).0 - before;
            assert!(made <= 1, "{key}: {made} refreshes, not one for all");
            let (status, later) = exchange_anew(world, &viewer).await;
            assert_eq!(status, 200, "{key}: {later}");
            let fresh = later["access_token"].as_str().unwrap_or("");
            assert_eq!(
                doubles.holder(fresh).as_deref(),
                Some("vera@example.org"),
                "{key}"
            );
            assert!(doubles.counts(key).0 > refreshes, "{key}: no refresh");

            // A dead refresh token is recognised at once, and its viewer is asked again.
            doubles.misbehave(
                DIALECTS.iter().find(|one| one.key == key).expect("it").key,
                Some(Refusal::RefreshToken),
            );
            pass(
                world,
                &mut viewer,
                Duration::from_secs(later["expires_in"].as_u64().unwrap_or(0) + 200),
            )
            .await;
            let (status, refused) = exchange_anew(world, &viewer).await;
            assert_eq!(
                (status, refused["code"].as_i64()),
                (400, Some(219)),
                "{key}: {refused}"
            );
            doubles.misbehave(
                DIALECTS.iter().find(|one| one.key == key).expect("it").key,
                None,
            );
            let page = connect(world, &viewer, "vera@example.org").await;
            assert!(page.url.contains(&world.content(0)), "{key}: {}", page.url);

            // A wrong secret is the administrator's, and ends nobody's connection.
            doubles.misbehave(
                DIALECTS.iter().find(|one| one.key == key).expect("it").key,
                Some(Refusal::Client),
            );
            pass(
                world,
                &mut viewer,
                Duration::from_secs(40_000.min(later["expires_in"].as_u64().unwrap_or(0) + 200)),
            )
            .await;
            let (status, refused) = exchange_anew(world, &viewer).await;
            assert_eq!(
                (status, refused["code"].as_i64()),
                (503, Some(241)),
                "{key}: {refused}"
            );
            assert_eq!(
                refused["payload"]["reason"], "integration_broken",
                "{key}: {refused}"
            );
            doubles.misbehave(
                DIALECTS.iter().find(|one| one.key == key).expect("it").key,
                None,
            );
            // After the pause that a failure brings, all is as before.
            pass(world, &mut viewer, Duration::from_secs(900)).await;
            let (status, mended) = exchange_anew(world, &viewer).await;
            assert_eq!(status, 200, "{key}: {mended}");
        }
    }

    // What a disconnect tells the provider.
    let revoked = doubles.counts(key).1;
    disconnect(world, &guid).await;
    if !dialect.revoke.is_empty() {
        for _ in 0..100 {
            if doubles.counts(key).1 > revoked {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(doubles.counts(key).1, revoked + 1, "{key}: not revoked");
    }
}

/// Vera disconnects an integration.
async fn disconnect(world: &World, guid: &str) {
    let key = world.key("vera");
    let sessions = world.api(&key, "GET", "v1/oauth/sessions", "").await.json();
    let sessions = sessions.as_array().expect("sessions");
    let of_it = |one: &&Value| one["oauth_integration_guid"] == json!(guid);
    let session = sessions.iter().find(of_it).expect("a session");
    let session = session["guid"].as_str().expect("a guid");
    let path = format!("v1/oauth/sessions/{session}");
    let ended = world.api(&key, "DELETE", &path, "").await;
    assert_eq!(ended.status, 204, "{}", ended.body);
}

/// An exchange with the token of a new request.
async fn exchange_anew(world: &World, viewer: &Browser) -> (u16, Value) {
    let token = world.token(viewer, &world.content(0)).await;
    exchange(world, &token).await
}

macro_rules! lives {
    ($($name:ident: $key:literal),* $(,)?) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            let (world, doubles) = world().await;
            let dialect = DIALECTS.iter().find(|one| one.key == $key).expect("a dialect");
            whole_life(&world, &doubles, dialect).await;
        })*
    };
}

lives! {
    databricks_from_consent_to_revoke: "databricks",
    github_app_from_consent_to_revoke: "github",
    github_oauth_app_from_consent_to_revoke: "github oauth-app",
    google_from_consent_to_revoke: "bigquery",
    salesforce_from_consent_to_revoke: "salesforce",
    snowflake_from_consent_to_revoke: "snowflake",
    snowflake_with_single_use_tokens_from_consent_to_revoke: "snowflake single-use",
    gitlab_from_consent_to_revoke: "gitlab",
    atlassian_from_consent_to_revoke: "atlassian",
    slack_from_consent_to_revoke: "slack",
    hubspot_from_consent_to_revoke: "hubspot",
    drive_from_consent_to_revoke: "drive",
    sheets_from_consent_to_revoke: "sheets",
    vertex_ai_from_consent_to_revoke: "vertex-ai",
    microsoft_graph_from_consent_to_revoke: "msgraph",
    azure_openai_from_consent_to_revoke: "azure-openai",
    sharepoint_from_consent_to_revoke: "sharepoint",
    bitbucket_from_consent_to_revoke: "bitbucket",
    linkedin_from_consent_to_revoke: "linkedin",
}

/// The content session token of an item, as a process of it would find it.
async fn content_token(world: &World) -> String {
    signed(world, content_claims(world, 0)).await
}

/// What the content session token of the n-th item says.
fn content_claims(world: &World, number: usize) -> PortalToken {
    let item = world.content(number);
    let owner = world
        .sql(&format!(
            "SELECT owner AS value FROM content WHERE guid = '{item}'"
        ))
        .remove(0)
        .parse()
        .expect("an owner");
    let item = item.parse().expect("a guid");
    world.services.issuer.content_token(item, owner)
}

async fn signed(world: &World, claims: PortalToken) -> String {
    use secrecy::ExposeSecret as _;
    let token = world.services.issuer.token(&claims).await.expect("a token");
    token.expose_secret().to_owned()
}

async fn exchange_as_content(world: &World, token: &str, wanted: &str, audience: &str) -> Answer {
    let mut form = vec![
        ("grant_type", GRANT),
        ("subject_token_type", CONTENT_TOKEN),
        ("subject_token", token),
    ];
    if !wanted.is_empty() {
        form.push(("requested_token_type", wanted));
    }
    if !audience.is_empty() {
        form.push(("audience", audience));
    }
    world.exchange_form(&world.key("bo"), &form).await
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_verify_the_portals_tokens_and_no_secret_is_stored() {
    let (world, doubles) = world().await;
    let token = content_token(&world).await;
    let access = "";
    let aws = "urn:ietf:params:aws:token-type:credentials";
    for (name, template, config) in demo::doubles::service_accounts(&doubles.machines) {
        if template == "connect" {
            continue;
        }
        let guid = add(&world, template, name, config, "").await;
        attach(&world, &[&guid]).await;
        let stored = world.sql(&format!(
            "SELECT coalesce(client_secret, 'none') AS value FROM integrations WHERE guid = '{guid}'"
        ));
        assert_eq!(stored, ["none"], "{name}");
        // Nobody is asked for a service account.
        let viewer = world.signed_in("vera").await;
        let page = viewer.get(&format!("/content/{}/", world.content(0))).await;
        assert!(!page.url.contains("/consents/new"), "{name}: {}", page.url);
        let wanted = if template == "aws" { aws } else { access };
        let answer = exchange_as_content(&world, &token, wanted, "").await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.body);
        let given = answer.json();
        let text = given["access_token"].as_str().expect("a token");
        match template {
            "aws" => {
                assert_eq!(given["token_type"], "aws_credentials");
                let keys = base64::engine::general_purpose::STANDARD
                    .decode(text)
                    .expect("base64");
                let keys: Value = serde_json::from_slice(&keys).expect("JSON");
                assert_eq!(keys["accessKeyId"], "ASIADEMO");
                // The form that Posit's clients parse.
                assert_eq!(keys["expiration"], "2099-01-02T03:04:05Z");
            }
            "databricks" => {
                assert_eq!(text, format!("databricks-for-principal-integration:{guid}"))
            }
            "vertex-ai" => assert_eq!(text, "google-service-account"),
            _ => assert_eq!(text, "vault-token"),
        }
        // A viewer's token brings nothing here.
        let session = world.token(&viewer, &world.content(0)).await;
        let (status, refused) = exchange(&world, &session).await;
        assert_eq!(
            (status, refused["code"].as_i64()),
            (400, Some(252)),
            "{name}: {refused}"
        );
        // The check tries it, too.
        let checked = world
            .api(
                &world.key("ada"),
                "POST",
                &format!("v1/oauth/integrations/{guid}/verify"),
                "",
            )
            .await;
        assert_eq!(checked.status, 200, "{name}: {}", checked.body);
        assert_eq!(checked.json()["verdict"], "good");
    }
    // A role whose trust policy does not match is the administrator's.
    let config = json!({"auth_type": "Service Account", "role_arn": "arn:aws:iam::123456789012:role/forbidden", "sts_address": doubles.machines});
    let guid = add(&world, "aws", "Forbidden", config, "").await;
    attach(&world, &[&guid]).await;
    let refused = exchange_as_content(&world, &token, aws, "").await;
    assert_eq!(
        (refused.status, refused.json()["code"].as_i64()),
        (503, Some(241))
    );
    assert!(refused.body.contains("trust policy"), "{}", refused.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn p57_content_acts_as_itself_only_where_its_owner_allowed_it() {
    let (world, doubles) = world().await;
    let token = content_token(&world).await;
    let viewers = add(
        &world,
        "databricks",
        "For viewers",
        DIALECTS[0].config(doubles.address("databricks")),
        CLIENT_SECRET,
    )
    .await;
    let (_, _, config) = demo::doubles::service_accounts(&doubles.machines).remove(1);
    let own = add(&world, "databricks", "For itself", config, "").await;

    // Other integrations may open the same: Microsoft's tokens open Azure Databricks.
    attach(&world, &[&world.integration(), &own]).await;
    let refused = exchange_as_content(&world, &token, "", &own).await;
    assert_eq!(
        (refused.status, refused.json()["code"].as_i64()),
        (403, Some(22)),
        "{}",
        refused.body
    );
    attach(&world, &[&viewers, &own]).await;

    // The viewers' integration is never the content's own.
    let refused = exchange_as_content(&world, &token, "", &viewers).await;
    assert_eq!(
        (refused.status, refused.json()["code"].as_i64()),
        (400, Some(252)),
        "{}",
        refused.body
    );
    // Nor is its own account, unless the owner said so.
    let refused = exchange_as_content(&world, &token, "", &own).await;
    assert_eq!(
        (refused.status, refused.json()["code"].as_i64()),
        (403, Some(22)),
        "{}",
        refused.body
    );
    assert!(
        refused.body.contains("may act for its viewers"),
        "{}",
        refused.body
    );
    world.write_bookkeeping().await;

    let owner = world.signed_in("bo").await;
    let settings = format!("/content-settings/{}", world.content(0));
    let page = owner.get(&settings).await;
    assert!(
        page.words()
            .contains("would show them what an account of its own may see"),
        "{}",
        page.words()
    );
    let saved = owner
        .submit(&page, "/beside-viewers", &[("allowed", "yes")])
        .await;
    assert_eq!(saved.status, 303, "{}", saved.body);
    let allowed = exchange_as_content(&world, &token, "", &own).await;
    assert_eq!(allowed.status, 200, "{}", allowed.body);
    let lines = world.sql("SELECT detail AS value FROM audit WHERE detail LIKE '%act as itself%'");
    assert_eq!(lines.len(), 1, "{lines:?}");

    // A token of another portal, for another audience, of another item, or no longer valid.
    let other: Vec<&str> = token.split('.').collect();
    let unsigned = format!("{}.{}.{}", other[0], other[1], "AAAA");
    let stranger = self::world().await.0;
    let strange = content_token(&stranger).await;
    let elsewhere = PortalToken {
        audience: "https://elsewhere.example.org".into(),
        ..content_claims(&world, 0)
    };
    let elsewhere = signed(&world, elsewhere).await;
    let of_other_item = signed(&world, content_claims(&world, 1)).await;
    let refused = exchange_as_content(&world, &of_other_item, "", &own).await;
    assert!(
        matches!(refused.status, 400 | 403),
        "{}: {}",
        refused.status,
        refused.body
    );
    for wrong in ["", "rubbish", &unsigned, &strange, &elsewhere] {
        let refused = exchange_as_content(&world, wrong, "", &own).await;
        assert_eq!(
            (refused.status, refused.json()["code"].as_i64()),
            (400, Some(236)),
            "{}",
            refused.body
        );
    }
    world.pass(Duration::from_secs(3700));
    let refused = exchange_as_content(&world, &token, "", &own).await;
    assert_eq!(
        (refused.status, refused.json()["code"].as_i64()),
        (400, Some(236)),
        "{}",
        refused.body
    );
    assert!(refused.body.contains("expired"), "{}", refused.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn content_with_a_service_account_may_be_open_to_anyone_and_the_account_stays_one() {
    let (world, doubles) = world().await;
    let (_, _, config) = demo::doubles::service_accounts(&doubles.machines).remove(1);
    let own = add(&world, "databricks", "For itself", config, "").await;
    attach(&world, &[&own]).await;
    let item = format!("v1/content/{}", world.content(0));
    for change in [r#"{"access_type":"all"}"#, r#"{"title":"Open"}"#] {
        let saved = world.api(&world.key("bo"), "PATCH", &item, change).await;
        assert_eq!(saved.status, 200, "{}", saved.body);
    }
    let mut config = DIALECTS[0].config(doubles.address("databricks"));
    config["auth_type"] = json!("Viewer");
    config["auth_mode"] = json!("Confidential");
    config["client_secret"] = json!(CLIENT_SECRET);
    let body = json!({"config": config}).to_string();
    let path = format!("v1/oauth/integrations/{own}");
    let refused = world.api(&world.key("ada"), "PATCH", &path, &body).await;
    assert_eq!(refused.status, 400, "{}", refused.body);
    assert!(
        refused.body.contains("whom it acts as cannot change"),
        "{}",
        refused.body
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_key_acts_as_the_viewer_with_a_capped_role_until_the_consent_ends() {
    let world = World::start().await;
    let guid = add(
        &world,
        "connect",
        "Portal",
        json!({"max_role": "Viewer"}),
        "",
    )
    .await;
    let read = world
        .api(
            &world.key("ada"),
            "GET",
            &format!("v1/oauth/integrations/{guid}"),
            "",
        )
        .await
        .json();
    // Clients test for exactly this one key.
    assert_eq!(read["config"], json!({"max_role": "Viewer"}));
    assert_eq!(read["auth_type"], "Visitor API Key");
    attach(&world, &[&guid]).await;
    // A publisher looks at the content.
    let viewer = world.signed_in("bo").await;
    let app = format!("/content/{}/", world.content(0));
    let page = viewer.get(&app).await;
    assert!(
        page.words().contains("at most the role of a viewer"),
        "{}",
        page.words()
    );
    let answer = viewer.submit(&page, "/consents/new", &[]).await;
    let page = viewer.follow(answer).await;
    assert!(page.url.contains(&world.content(0)), "{}", page.url);
    let token = world.token(&viewer, &world.content(0)).await;
    let form = [
        ("grant_type", GRANT),
        ("subject_token_type", "urn:posit:connect:user-session-token"),
        ("subject_token", &token),
        ("requested_token_type", "urn:posit:connect:api-key"),
    ];
    let given = world.exchange_form(&world.key("bo"), &form).await;
    assert_eq!(given.status, 200, "{}", given.body);
    assert_eq!(given.json()["token_type"], "Key");
    let key = given.json()["access_token"]
        .as_str()
        .expect("a key")
        .to_owned();
    let me = world.api(&key, "GET", "v1/user", "").await;
    assert_eq!(
        (me.status, me.json()["username"].as_str()),
        (200, Some("bo")),
        "{}",
        me.body
    );
    // Less than the person has.
    let refused = world
        .api(&key, "POST", "v1/content", r#"{"name":"mine"}"#)
        .await;
    assert_eq!(refused.status, 403, "{}", refused.body);
    // Nothing that outlives it.
    let keys = format!("v1/users/{}/keys", me.json()["guid"].as_str().unwrap());
    let made = world.api(&key, "POST", &keys, r#"{"name":"mine"}"#).await;
    assert_eq!(made.status, 403, "{}", made.body);
    let again = world.exchange_form(&key, &form).await;
    assert_eq!(again.status, 403, "{}", again.body);
    // It ends with the consent.
    let consents = viewer.get("/consents").await;
    let page = viewer.get(&consents.link("/revoke")).await;
    let answer = viewer.submit(&page, "/revoke", &[]).await;
    assert_eq!(answer.status, 303);
    let ended = world.api(&key, "GET", "v1/user", "").await;
    assert_eq!(ended.status, 401, "{}", ended.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_key_for_a_model_is_content_s_own() {
    let world = World::start().await;
    let guid = add(
        &world,
        "anthropic",
        "Claude",
        json!({}),
        "sk-ant-of-the-test",
    )
    .await;
    attach(&world, &[&guid]).await;
    let token = content_token(&world).await;
    let given = exchange_as_content(&world, &token, "", "").await;
    assert_eq!(
        given.json()["access_token"],
        "sk-ant-of-the-test",
        "{}",
        given.body
    );
    let wrong = json!({"template": "openai", "config": {"client_secret": "something"}}).to_string();
    let refused = world
        .api(&world.key("ada"), "POST", "v1/oauth/integrations", &wrong)
        .await;
    assert_eq!(refused.status, 400);
    assert!(refused.body.contains("begin with sk-"), "{}", refused.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_portal_publishes_who_it_is_and_no_private_part() {
    let world = World::start().await;
    let browser = Browser::new(&world.portal);
    let before = browser.get("/.well-known/jwks.json").await;
    assert_eq!(
        before.json(),
        json!({"keys": []}),
        "nobody's request makes a key"
    );
    content_token(&world).await;
    let document = browser
        .get("/.well-known/openid-configuration")
        .await
        .json();
    assert_eq!(document["issuer"], world.portal);
    let keys = browser.get("/.well-known/jwks.json").await;
    let key = keys.json()["keys"][0].clone();
    assert_eq!(
        (key["kty"].as_str(), key["alg"].as_str()),
        (Some("RSA"), Some("RS256"))
    );
    for private in ["d", "p", "q", "dp", "dq", "qi"] {
        assert!(key.get(private).is_none());
    }
    let stored = world.sql("SELECT value FROM meta WHERE name = 'signing_keys'");
    assert!(stored[0].starts_with("v1."), "sealed");
}

/// The codes that a check found, with those that are no trouble left out.
async fn check(world: &World, guid: &str) -> Vec<String> {
    let path = format!("v1/oauth/integrations/{guid}/verify");
    let answer = world.api(&world.key("ada"), "POST", &path, "").await.json();
    let body = if answer.get("findings").is_some() {
        answer
    } else {
        answer["payload"].clone()
    };
    body["findings"]
        .as_array()
        .unwrap_or_else(|| panic!("{body}"))
        .iter()
        .filter(|finding| finding["verdict"] != "good")
        .map(|finding| finding["code"].as_str().unwrap_or("").to_owned())
        .collect()
}

/// A provider that answers its token endpoint with `token`, and its authorization endpoint with
/// `authorize`: status, headers and body.
async fn fixed(token: (u16, &'static str, String), authorize: (u16, String, String)) -> String {
    serve_raw(move |request| {
        if request.starts_with("POST") {
            crate::harness::http_answer(token.0, token.1, &token.2)
        } else {
            crate::harness::http_answer(authorize.0, &authorize.1, &authorize.2)
        }
    })
    .await
}

/// What Entra ID answers: an OAuth error and an AADSTS number.
fn entra(error: &str, number: u64) -> String {
    json!({"error": error, "error_description": format!("AADSTS{number}: no."), "error_codes": [number]})
        .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_misconfiguration_is_named() {
    let world = World::start().await;
    let tenant = "3f0c2a51-7e0b-4c7e-9b1e-0a5f7f3d2c11";
    let client = "0d2b8f54-54b6-4a6e-8b1c-0a5f7f3d2c11";
    let json_type = "Content-Type: application/json\r\n";
    let good = || (400, json_type, entra("invalid_grant", 9_002_313));
    let nothing = || (200, String::new(), "sign in".to_owned());
    let back = |error: &str, number: u64| {
        let text = format!("AADSTS{number}: no.");
        url::form_urlencoded::Serializer::new(String::new())
            .append_pair("error", error)
            .append_pair("error_description", &text)
            .finish()
    };
    let mut named = 0;
    // By the token endpoint, or the page of the authorization endpoint.
    let by_token = [
        (
            "wrong secret",
            entra("invalid_client", 7_000_215),
            401,
            "client_secret_wrong",
        ),
        (
            "expired secret",
            entra("invalid_client", 7_000_222),
            401,
            "client_secret_expired",
        ),
        (
            "wrong tenant",
            entra("invalid_request", 90002),
            400,
            "tenant_unknown",
        ),
        (
            "unknown client",
            entra("unauthorized_client", 700_016),
            400,
            "client_unknown",
        ),
        (
            "secret not sent",
            entra("invalid_client", 7_000_218),
            401,
            "client_secret_missing",
        ),
        (
            "public client with a secret",
            entra("invalid_client", 700_025),
            401,
            "client_is_public",
        ),
        (
            "redirect URI of type SPA",
            entra("invalid_request", 9_002_327),
            400,
            "redirect_is_spa",
        ),
        (
            "wrong client authentication",
            json!({"error": "invalid_client"}).to_string(),
            401,
            "client_secret_wrong",
        ),
        (
            "PKCE refused",
            json!({"error": "invalid_request", "error_description": "PKCE is not supported"})
                .to_string(),
            400,
            "pkce_refused",
        ),
        (
            "certificate of another key",
            entra("invalid_client", 700_027),
            401,
            "certificate_unknown",
        ),
        (
            "federated credential missing",
            entra("invalid_client", 700_211),
            401,
            "federation_unknown",
        ),
        (
            "proxy answering HTML",
            "<html>Access denied by proxy</html>".to_owned(),
            200,
            "not_a_token_endpoint",
        ),
    ];
    let config = |address: &str| json!({"tenant_id": tenant, "client_id": client, "authority_host": address});
    for (name, body, status, code) in by_token {
        let address = fixed((status, json_type, body), nothing()).await;
        let guid = add(&world, "azure", name, config(&address), "a~secret").await;
        let found = check(&world, &guid).await;
        assert!(found.contains(&code.to_owned()), "{name}: {found:?}");
        named += 1;
    }
    let by_page = [
        ("redirect URI missing", 50011, "redirect_missing"),
        ("single-tenant guest", 50020, "guest_of_another_tenant"),
        ("scopes of two resources", 28002, "scopes_refused"),
    ];
    for (name, number, code) in by_page {
        let address = fixed(
            good(),
            (400, String::new(), format!("<p>AADSTS{number}: no</p>")),
        )
        .await;
        let guid = add(&world, "azure", name, config(&address), "a~secret").await;
        let found = check(&world, &guid).await;
        assert_eq!(found, [code], "{name}");
        named += 1;
    }
    // By a person's sign-in only: the callback of a test sign-in.
    let ada = world.signed_in("ada").await;
    let by_sign_in = [
        (
            "permission missing",
            "invalid_client",
            650_057,
            "Add a permission",
        ),
        (
            "admin consent missing",
            "access_denied",
            90094,
            "Grant admin consent",
        ),
        (
            "assignment required",
            "access_denied",
            50105,
            "Users and groups",
        ),
        (
            "conditional access",
            "interaction_required",
            53003,
            "Conditional Access",
        ),
    ];
    for (name, error, number, fix) in by_sign_in {
        let address = fixed(good(), nothing()).await;
        let guid = add(&world, "azure", name, config(&address), "a~secret").await;
        let page = ada.get(&format!("/integrations/{guid}")).await;
        let answer = ada.submit(&page, "/test", &[]).await;
        let sent = url::Url::parse(answer.header("location")).expect("an address");
        let value = |key: &str| {
            let found = sent.query_pairs().find(|(known, _)| known == key);
            found
                .map(|(_, value)| value.into_owned())
                .unwrap_or_default()
        };
        let callback = format!(
            "{}?{}&state={}",
            value("redirect_uri"),
            back(error, number),
            value("state")
        );
        let answer = ada.get(&callback).await;
        let page = ada.follow(answer).await;
        assert!(page.words().contains(fix), "{name}: {}", page.words());
        named += 1;
    }
    // By the settings alone.
    let address = fixed(good(), nothing()).await;
    let mut scopes = config(&address);
    scopes["scopes"] = json!("2ff814a6-3304-4ab8-85cb-cd0e6f879c1d/.default");
    let guid = add(&world, "azure", "no offline_access", scopes, "a~secret").await;
    assert_eq!(check(&world, &guid).await, ["no_offline_access"]);
    named += 1;
    let id = json!({"template": "azure", "config": {"tenant_id": tenant, "client_id": client, "client_secret": client}});
    let refused = world
        .api(
            &world.key("ada"),
            "POST",
            "v1/oauth/integrations",
            &id.to_string(),
        )
        .await;
    assert!(refused.body.contains("Secret ID"), "{}", refused.body);
    named += 1;
    let late = "Content-Type: application/json\r\nDate: Thu, 01 Jan 2015 00:00:00 GMT\r\n";
    let address = fixed((400, late, entra("invalid_grant", 70000)), nothing()).await;
    let guid = add(&world, "azure", "clock", config(&address), "a~secret").await;
    assert_eq!(check(&world, &guid).await, ["clock"]);
    named += 1;
    let guid = add(
        &world,
        "azure",
        "no such server",
        config("http://127.0.0.1:1"),
        "a~secret",
    )
    .await;
    assert_eq!(check(&world, &guid).await, ["unreachable"]);
    named += 1;
    assert!(named >= 20, "{named} misconfigurations");

    // What is right is not blamed: the demo's own.
    let guid = world.integration();
    assert_eq!(check(&world, &guid).await, [""; 0]);
    let list = ada.get("/integrations").await;
    assert!(list.words().contains("Check failed") && list.words().contains("Check passed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_sign_in_shows_what_it_brought_and_stores_nothing() {
    let (world, doubles) = world().await;
    let dialect = &DIALECTS[0];
    let guid = add(
        &world,
        "databricks",
        "Tested",
        dialect.config(doubles.address("databricks")),
        CLIENT_SECRET,
    )
    .await;
    let ada = world.signed_in("ada").await;
    let page = ada.get(&format!("/integrations/{guid}")).await;
    let answer = ada.submit(&page, "/test", &[]).await;
    let sign_in = ada.follow(answer).await;
    let body = "username=ada%40example.org&accept=yes".to_owned();
    let kind = [("content-type", "application/x-www-form-urlencoded")];
    let answer = ada.send("POST", &sign_in.url, &kind, Some(body)).await;
    let page = ada.follow(answer).await;
    let words = page.words();
    for part in [
        "You signed in as ada@example.org",
        "lives for 60 minutes",
        "A refresh works",
        "Nothing was stored",
    ] {
        assert!(words.contains(part), "{part}: {words}");
    }
    assert_eq!(doubles.counts("databricks").0, 1, "it refreshes once");
    let stored = world.sql(&format!(
        "SELECT guid AS value FROM connections WHERE integration = '{guid}'"
    ));
    assert!(stored.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pasted_address_chooses_the_template_and_says_what_it_found() {
    let (world, doubles) = world().await;
    let ada = world.signed_in("ada").await;
    let path = |address: &str| {
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("address", address)
            .finish();
        format!("/integrations/new?{query}")
    };
    let page = ada
        .get(&path("https://app.snowflake.com/myorg/acc/#/"))
        .await;
    assert!(
        page.words().contains("Add integration: Snowflake"),
        "{}",
        page.words()
    );
    let filled = page.attributes("input[name=account_url]", "value");
    assert_eq!(filled, ["https://myorg-acc.snowflakecomputing.com"]);
    assert!(
        page.words().contains("Still to be entered: Client ID"),
        "{}",
        page.words()
    );
    // The template's own proposals stay.
    assert_eq!(
        page.attributes("input[name=scopes]", "value"),
        ["refresh_token"]
    );

    // An issuer tells its endpoints.
    let issuer = serve_raw(|request| {
        let body = if request.starts_with("GET /realms/main/.well-known/openid-configuration") {
            json!({"issuer": "x", "authorization_endpoint": "https://idp.example.org/a", "token_endpoint": "https://idp.example.org/t", "scopes_supported": ["openid", "offline_access"]}).to_string()
        } else {
            String::new()
        };
        let status = if body.is_empty() { 404 } else { 200 };
        crate::harness::http_answer(status, "Content-Type: application/json\r\n", &body)
    })
    .await;
    let page = ada
        .get(&path(&format!("{issuer}/realms/main/account")))
        .await;
    assert_eq!(
        page.attributes("input[name=token_uri]", "value"),
        ["https://idp.example.org/t"]
    );
    assert_eq!(
        page.attributes("input[name=scopes]", "value"),
        ["openid offline_access"]
    );

    // One that leads into this machine's network is not asked.
    let page = ada.get(&path("http://169.254.169.254/latest/")).await;
    assert!(
        page.words().contains("could not be asked"),
        "{}",
        page.words()
    );
    let page = ada.get(&path("no address at all")).await;
    assert!(
        page.words().contains("This is no address"),
        "{}",
        page.words()
    );
    drop(doubles);
}

/// Agrees on the consent page, and comes back from a provider that shows no page: with a code.
async fn come_back(world: &World, viewer: &Browser) -> Answer {
    let page = viewer.get(&format!("/content/{}/", world.content(0))).await;
    let sent = viewer.submit(&page, "/consents/new", &[]).await;
    let sent = url::Url::parse(sent.header("location")).expect("an address");
    let value = |key: &str| {
        let found = sent.query_pairs().find(|(known, _)| known == key);
        found
            .map(|(_, value)| value.into_owned())
            .unwrap_or_default()
    };
    let callback = format!("{}?code=c&state={}", value("redirect_uri"), value("state"));
    viewer.get(&callback).await
}

/// The fields of a form that was posted.
fn posted(request: &str) -> HashMap<String, String> {
    let (_, body) = request.split_once("\r\n\r\n").unwrap_or_default();
    url::form_urlencoded::parse(body.as_bytes())
        .into_owned()
        .collect()
}

/// A JWT that nobody signed, as a token endpoint sends it over TLS.
fn id_token(claims: &Value) -> String {
    let part =
        |value: &Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.AAAA", part(&json!({"alg": "RS256"})), part(claims))
}

fn answered(value: &Value) -> Vec<u8> {
    crate::harness::http_answer(
        200,
        "Content-Type: application/json\r\n",
        &value.to_string(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_federated_credential_takes_the_place_of_the_secret_for_viewers() {
    let world = World::start().await;
    let forms: Arc<Mutex<Vec<HashMap<String, String>>>> = Arc::default();
    let kept = Arc::clone(&forms);
    let claims = json!({"oid": "1", "tid": "2", "preferred_username": "vera@example.org"});
    let id = id_token(&claims);
    let address = serve_raw(move |request| {
        if request.starts_with("POST") {
            kept.lock().expect("a lock").push(posted(&request));
        }
        answered(&json!({"access_token": "t", "token_type": "Bearer", "expires_in": 3600, "refresh_token": "r", "id_token": id}))
    })
    .await;
    let tenant = "0c0a6e3e-6b1f-4f8f-9d6a-1f2b3c4d5e6f";
    let config = json!({"tenant_id": tenant, "client_id": "7a1b2c3d-0000-4000-8000-000000000001", "auth_mode": "Federated", "authority_host": address, "scopes": "offline_access"});
    let guid = add(&world, "azure", "Without a secret", config, "").await;
    attach(&world, &[&guid]).await;
    let mut viewer = world.signed_in("vera").await;
    let page = come_back(&world, &viewer).await;
    assert!(page.status < 400, "{}", page.words());
    let (status, first) = exchange_anew(&world, &viewer).await;
    assert_eq!(status, 200, "{first}");
    pass(&world, &mut viewer, Duration::from_secs(3600)).await;
    let (status, later) = exchange_anew(&world, &viewer).await;
    assert_eq!(status, 200, "{later}");

    let keys = viewer.get("/.well-known/jwks.json").await.json();
    let keys: jsonwebtoken::jwk::JwkSet = serde_json::from_value(keys).expect("keys");
    let forms = forms.lock().expect("a lock").clone();
    let kinds: Vec<&str> = forms.iter().map(|form| &*form["grant_type"]).collect();
    assert_eq!(kinds, ["authorization_code", "refresh_token"]);
    for form in forms {
        assert!(!form.contains_key("client_secret"), "{form:?}");
        assert_eq!(
            form["client_assertion_type"],
            "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        );
        let proof = &form["client_assertion"];
        let head = jsonwebtoken::decode_header(proof).expect("a header");
        let key = keys
            .find(&head.kid.expect("a key's name"))
            .expect("the key");
        let key = jsonwebtoken::DecodingKey::from_jwk(key).expect("a key");
        let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::RS256);
        rules.set_audience(&["api://AzureADTokenExchange"]);
        rules.set_issuer(&[&world.portal]);
        // The clock of the test has gone on.
        rules.validate_exp = false;
        let claims = jsonwebtoken::decode::<Value>(proof, &key, &rules).expect("genuine");
        assert_eq!(claims.claims["sub"], format!("integration:{guid}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn aws_keys_of_a_viewer_belong_to_the_connection() {
    let world = World::start().await;
    let (asked, without_id) = (
        Arc::new(Mutex::new(Vec::new())),
        Arc::new(AtomicBool::new(false)),
    );
    let (kept, omits) = (Arc::clone(&asked), Arc::clone(&without_id));
    let made = AtomicUsize::new(0);
    let address = serve_raw(move |request| {
        let form = posted(&request);
        if form.get("Action").is_some_and(|it| it == "AssumeRoleWithWebIdentity") {
            let mut asked = kept.lock().expect("a lock");
            asked.push(form["WebIdentityToken"].clone());
            let keys = format!("<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASIA{}</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>2099-01-02T03:04:05Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>", asked.len());
            return crate::harness::http_answer(200, "Content-Type: text/xml\r\n", &keys);
        }
        let number = made.fetch_add(1, Ordering::Relaxed);
        let mut answer = json!({"access_token": "an-access-token", "token_type": "Bearer", "expires_in": 3600, "refresh_token": format!("r{number}")});
        if !omits.load(Ordering::Relaxed) {
            let claims = json!({"sub": "vera", "email": "vera@example.org", "nonce": number, "iat": 1000, "exp": 4600});
            answer["id_token"] = json!(id_token(&claims));
        }
        answered(&answer)
    })
    .await;
    let config = json!({"auth_type": "Viewer", "role_arn": "arn:aws:iam::123456789012:role/content", "authorization_uri": format!("{address}/a"), "token_uri": format!("{address}/t"), "client_id": "c", "sts_address": address});
    let guid = add(&world, "aws", "AWS for viewers", config, "s").await;
    attach(&world, &[&guid]).await;
    let keys = async |viewer: &Browser| {
        let token = world.token(viewer, &world.content(0)).await;
        let form = [
            ("grant_type", GRANT),
            ("subject_token_type", "urn:posit:connect:user-session-token"),
            ("subject_token", &*token),
            (
                "requested_token_type",
                "urn:ietf:params:aws:token-type:credentials",
            ),
        ];
        let answer = world.exchange_form(&world.key("bo"), &form).await;
        let given = answer.json()["access_token"]
            .as_str()
            .unwrap_or("")
            .to_owned();
        let given = base64::engine::general_purpose::STANDARD.decode(given);
        let given: Value = serde_json::from_slice(&given.unwrap_or_default()).unwrap_or_default();
        (
            answer.status,
            given["accessKeyId"]
                .as_str()
                .unwrap_or(&answer.body)
                .to_owned(),
        )
    };
    let mut viewer = world.signed_in("vera").await;
    let page = come_back(&world, &viewer).await;
    assert!(page.status < 400, "{}", page.words());
    for _ in 0..2 {
        assert_eq!(keys(&viewer).await, (200, "ASIA1".to_owned()));
    }
    // Another connection of the same person has other keys.
    disconnect(&world, &guid).await;
    let page = come_back(&world, &viewer).await;
    assert!(page.status < 400, "{}", page.words());
    assert_eq!(keys(&viewer).await, (200, "ASIA2".to_owned()));
    // A refresh brings another ID token, and with it other keys.
    pass(&world, &mut viewer, Duration::from_secs(3700)).await;
    assert_eq!(keys(&viewer).await, (200, "ASIA3".to_owned()));
    // An access token never goes to AWS in its place.
    without_id.store(true, Ordering::Relaxed);
    pass(&world, &mut viewer, Duration::from_secs(3700)).await;
    let (status, body) = keys(&viewer).await;
    assert_eq!(status, 400, "{body}");
    assert!(body.contains("login_url"), "{body}");
    let asked = asked.lock().expect("a lock").clone();
    assert_eq!(asked.len(), 3);
    assert!(
        asked.iter().all(|token| token.starts_with("eyJ")),
        "{asked:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_answers_leave_nothing_half_made() {
    let world = World::start().await;
    let viewer = world.signed_in("vera").await;
    let json_type = "Content-Type: application/json\r\n";
    let answers = [
        (r#"{"error":"something"}"#.to_owned(), 200),
        (
            r#"{"refresh_token":"r","token_type":"Bearer"}"#.to_owned(),
            200,
        ),
        (
            "{\"access_token\":\"t\u{f6}ken\",\"token_type\":\"Bearer\"}".to_owned(),
            200,
        ),
        (
            format!(
                "{{\"access_token\":\"a\",\"x\":\"{}\"}}",
                "x".repeat(3 << 20)
            ),
            200,
        ),
    ];
    for (body, status) in answers {
        let answer = body.clone();
        let address = serve_raw(move |request| {
            if request.starts_with("POST") {
                crate::harness::http_answer(status, json_type, &answer)
            } else {
                crate::harness::http_answer(200, "", "sign in")
            }
        })
        .await;
        let config = json!({"client_id": "c", "authorization_uri": format!("{address}/a"), "token_uri": format!("{address}/t"), "scopes": "b a"});
        let guid = add(&world, "custom", "Odd", config, "s").await;
        attach(&world, &[&guid]).await;
        let page = come_back(&world, &viewer).await;
        assert_ne!(page.status, 500, "{}", page.body);
        let stored = world.sql(&format!(
            "SELECT guid AS value FROM connections WHERE integration = '{guid}'"
        ));
        assert!(stored.is_empty(), "{}", &body[..body.len().min(80)]);
    }
}

/// Ended connections whose provider was told, or asked in vain and is asked again.
fn ended(world: &World, state: &str) -> usize {
    let tried =
        format!("SELECT guid AS value FROM revocations WHERE state = '{state}' AND tries > 0");
    world.sql(&tried).len()
}

/// An integration at the double of a template, and vera, who is connected there.
async fn connected_at(world: &World, doubles: &Doubles, template: &str) -> (String, Browser) {
    let dialect = DIALECTS.iter().find(|one| one.key == template);
    let config = dialect.expect("it").config(doubles.address(template));
    let guid = add(world, template, template, config, CLIENT_SECRET).await;
    attach(world, &[&guid]).await;
    let viewer = world.signed_in("vera").await;
    connect(world, &viewer, "vera@example.org").await;
    (guid, viewer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_revocation_spares_what_came_after_it() {
    let (world, doubles) = world().await;
    let (guid, viewer) = connected_at(&world, &doubles, "github").await;

    doubles.fail_revocations("github", true);
    disconnect(&world, &guid).await;
    until("a try", || ended(&world, "waiting") == 1).await;
    connect(&world, &viewer, "vera@example.org").await;
    let (status, new) = exchange_anew(&world, &viewer).await;
    assert_eq!(status, 200, "{new}");
    doubles.fail_revocations("github", false);
    world.pass(Duration::from_secs(120));
    until("telling the provider", || ended(&world, "told") == 1).await;

    // GitHub's usual request ends whatever its person agreed to.
    assert_eq!(doubles.counts("github").1, 1);
    let token = new["access_token"].as_str().expect("a token");
    assert!(
        doubles.holder(token).is_some(),
        "the new connection has ended"
    );
    disconnect(&world, &guid).await;
    until("the end of the grant", || {
        ended(&world, "told") == 2 && doubles.holder(token).is_none()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_withdrawn_at_the_provider_counts_as_told() {
    let (world, doubles) = world().await;
    let (guid, _) = connected_at(&world, &doubles, "bigquery").await;
    doubles.withdraw_all("bigquery");
    disconnect(&world, &guid).await;
    until("telling the provider", || ended(&world, "told") == 1).await;
}
