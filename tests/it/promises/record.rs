//! Promises 29–31: who may do what, and what is written down of it.

use crate::harness::{Browser, World};
use serde_json::{Value, json};

/// Methods and paths of THE list of addresses.
fn routes() -> Vec<(String, String)> {
    let list = include_str!("../../../src/web/routes.rs");
    // Each route in one line, however it is wrapped.
    let lines: Vec<&str> = list.lines().map(str::trim).collect();
    let list = lines
        .join("\n")
        .replace(".route(\n", ".route(")
        .replace("\",\n", "\", ");
    let mut found = Vec::new();
    let mut prefix = "";
    for line in list.lines() {
        if line.contains("fn programs") {
            prefix = "/__api__";
        } else if line.contains("fn pages") || line.contains("fn open") {
            prefix = "";
        }
        let Some(rest) = line.trim().strip_prefix(".route(\"") else {
            continue;
        };
        let (path, method) = rest.split_once("\", ").expect("a route");
        let method = method
            .split('(')
            .next()
            .expect("a method")
            .trim_start_matches("web::")
            .to_uppercase();
        // The exchange stands in the hot list with its whole path.
        let path = if path.starts_with("/__api__") {
            path.to_owned()
        } else {
            format!("{prefix}{path}")
        };
        found.push((
            if method == "ROUTE" {
                "GET".into()
            } else {
                method
            },
            path.replace("{rest:.*}", "{guid}"),
        ));
    }
    assert!(found.len() > 100, "{}", found.len());
    found
}

fn filled(path: &str, guid: &str) -> String {
    let mut path = path.to_owned();
    while let (Some(start), Some(end)) = (path.find('{'), path.find('}')) {
        let with = if matches!(&path[start..=end], "{id}" | "{number}") {
            "1"
        } else {
            guid
        };
        path.replace_range(start..=end, with);
    }
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn p29_every_route_is_closed_unless_a_rule_opens_it() {
    let world = World::start().await;
    let guid = "198667fd-393d-4905-873c-3a9abc1f37a6";
    let open_pages = [
        "/",
        "/login",
        "/__login__",
        "/login/organisation",
        "/login/organisation/callback",
        "/help",
        "/help/{name}",
        "/setup/{token}",
        "/__ping__",
        "/__health__",
        "/__valetkey__/static/{name}",
        "/.well-known/openid-configuration",
        "/.well-known/jwks.json",
    ];
    let open_api = [
        "/__api__/server_settings",
        "/__api__/openapi.json",
        "/__api__/v1/bootstrap",
        "/__api__/v1/experimental/bootstrap",
    ];
    let stranger = Browser::new(&world.portal);
    let csrf = stranger.get("/login").await.csrf();
    for (method, path) in routes() {
        let address = filled(&path, guid);
        let body = (method != "GET").then(|| format!("csrf={csrf}"));
        let answer = stranger
            .send(&method, &address, &[("accept", "text/html")], body)
            .await;
        if path.starts_with("/__api__") {
            let expected = if open_api.contains(&path.as_str()) {
                [200, 401]
            } else {
                [401, 401]
            };
            assert!(
                expected.contains(&answer.status),
                "{method} {path}: {}",
                answer.status
            );
        } else if !open_pages.contains(&path.as_str()) {
            // An old link leads to content's own origin, whatever it names; that origin asks who is
            // there.
            let to_login = answer.status == 303
                && (answer.header("location").starts_with("/login")
                    || (path == "/content/{guid}" && answer.header("location") == world.app(guid)));
            assert!(
                to_login || answer.status == 403,
                "{method} {path}: {} {}",
                answer.status,
                answer.header("location")
            );
        }
    }
    // What is an administrator's is nobody else's, by page and by program.
    for name in ["vera", "bo"] {
        let browser = world.signed_in(name).await;
        let csrf = browser.get("/account").await.csrf();
        for (method, path) in routes() {
            // Publishers see the list of what they may choose.
            let may_choose = name == "bo" && path == "/integrations";
            let managed = ["/integrations", "/people", "/audit"]
                .iter()
                .any(|area| path.starts_with(area) && !may_choose)
                || (path.starts_with("/groups") && name == "vera");
            if managed {
                let body = (method != "GET").then(|| format!("csrf={csrf}"));
                let answer = browser
                    .send(
                        &method,
                        &filled(&path, &world.integration()),
                        &[("accept", "text/html")],
                        body,
                    )
                    .await;
                assert!(
                    matches!(answer.status, 403 | 404),
                    "{name} {method} {path}: {} {}",
                    answer.status,
                    answer.body
                );
            }
        }
        for (method, path, body) in [
            (
                "POST",
                "v1/oauth/integrations".to_owned(),
                "{\"template\":\"custom\",\"config\":{}}",
            ),
            (
                "PATCH",
                format!("v1/oauth/integrations/{}", world.integration()),
                "{\"name\":\"x\"}",
            ),
            (
                "DELETE",
                format!("v1/oauth/integrations/{}", world.integration()),
                "",
            ),
            (
                "GET",
                format!("v1/oauth/integrations/{}/associations", world.integration()),
                "",
            ),
            (
                "POST",
                format!("v1/oauth/integrations/{}/verify", world.integration()),
                "",
            ),
            (
                "POST",
                "v1/users".to_owned(),
                "{\"username\":\"x\",\"password\":\"long enough\"}",
            ),
            ("GET", "v1/oauth/sessions?all=true".to_owned(), ""),
            ("GET", "v1/audit_logs".to_owned(), ""),
        ] {
            let answer = world.api(&world.key(name), method, &path, body).await;
            assert_eq!(
                (answer.status, answer.json()["code"].as_i64()),
                (403, Some(22)),
                "{name} {method} {path}: {}",
                answer.body
            );
        }
    }
    // Another's object is like none: the same status, and the same page but for the reference.
    let (vera, _) = world.connected("vera").await;
    let consents = vera.get("/consents").await;
    let (revoke, disconnect) = (consents.link("/revoke"), consents.link("/disconnect"));
    let session = world
        .api(&world.key("vera"), "GET", "v1/oauth/sessions", "")
        .await
        .json()[0]["guid"]
        .as_str()
        .expect("a guid")
        .to_owned();
    let close = world
        .api(
            &world.key("bo"),
            "PATCH",
            &format!("v1/content/{}", world.content(0)),
            "{\"access_type\":\"acl\"}",
        )
        .await;
    assert_eq!(close.status, 200);
    let viktor = world.signed_in("viktor").await;
    let page = |answer: crate::harness::Answer| {
        let reference = answer.header("x-correlation-id").to_owned();
        (answer.status, answer.body.replace(&reference, ""))
    };
    for path in [
        revoke.clone(),
        disconnect.clone(),
        format!("/content-settings/{}", world.content(0)),
        format!("/people/{}", world.content(0)),
    ] {
        let real = path
            .split('/')
            .find(|part| part.len() == 36)
            .expect("a guid")
            .to_owned();
        let theirs = page(viktor.get(&path).await);
        assert_eq!(
            theirs,
            page(viktor.get(&path.replace(&real, guid)).await),
            "{path}"
        );
        assert!(matches!(theirs.0, 403 | 404), "{path}: {}", theirs.0);
    }
    for (method, path) in [
        ("GET", format!("v1/oauth/sessions/{session}")),
        ("DELETE", format!("v1/oauth/sessions/{session}")),
        ("GET", format!("v1/content/{}", world.content(0))),
        ("PATCH", format!("v1/content/{}", world.content(0))),
        ("DELETE", format!("v1/content/{}", world.content(0))),
        (
            "GET",
            format!("v1/content/{}/permissions", world.content(0)),
        ),
        (
            "GET",
            format!(
                "v1/content/{}/oauth/integrations/associations",
                world.content(0)
            ),
        ),
    ] {
        let real = path
            .split('/')
            .find(|part| part.len() == 36)
            .expect("a guid")
            .to_owned();
        let theirs = world.api(&world.key("viktor"), method, &path, "{}").await;
        let none = world
            .api(
                &world.key("viktor"),
                method,
                &path.replace(&real, guid),
                "{}",
            )
            .await;
        assert_eq!(
            (theirs.status, &theirs.body),
            (404, &none.body),
            "{method} {path}"
        );
        assert_eq!(theirs.json()["code"], 4);
    }
    assert_eq!(
        world
            .api(
                &world.key("vera"),
                "GET",
                &format!("v1/oauth/sessions/{session}"),
                ""
            )
            .await
            .status,
        200,
        "nothing was deleted"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p30_settings_secrets_and_content_belong_to_those_who_run_them() {
    let world = World::start().await;
    let secret = world.summary["registration"]["client_secret"]
        .as_str()
        .expect("a secret")
        .to_owned();
    // Nobody reads a stored secret, the administrator included.
    let ada = world.signed_in("ada").await;
    for path in [
        format!("/integrations/{}", world.integration()),
        format!("/integrations/{}/edit", world.integration()),
    ] {
        let page = ada.get(&path).await;
        assert!(page.status == 200 && !page.body.contains(&secret), "{path}");
        let values = page.attributes("[name=client_secret]", "value");
        assert!(values.iter().all(String::is_empty), "{path}");
    }
    for name in ["ada", "bo"] {
        let shown = world
            .api(
                &world.key(name),
                "GET",
                &format!("v1/oauth/integrations/{}", world.integration()),
                "",
            )
            .await;
        assert_eq!(shown.status, 200);
        assert!(
            shown.json()["config"].get("client_secret").is_none() && !shown.body.contains(&secret),
            "{}",
            shown.body
        );
    }
    // A publisher changes only their own content, whatever fields come along.
    let made = world
        .api(
            &world.key("ada"),
            "POST",
            "v1/content",
            "{\"name\":\"adas\",\"access_type\":\"logged_in\"}",
        )
        .await
        .json();
    let adas = made["guid"].as_str().expect("a guid").to_owned();
    for (method, path, body) in [
        (
            "PATCH",
            format!("v1/content/{adas}"),
            json!({"title": "mine"}),
        ),
        (
            "PATCH",
            format!("v1/content/{adas}"),
            json!({"upstream_url": "http://127.0.0.1:1"}),
        ),
        ("DELETE", format!("v1/content/{adas}"), Value::Null),
        (
            "POST",
            format!("v1/content/{adas}/permissions"),
            json!({"principal_guid": adas, "principal_type": "user", "role": "owner"}),
        ),
        (
            "PUT",
            format!("v1/content/{adas}/oauth/integrations/associations"),
            json!([{"oauth_integration_guid": world.integration()}]),
        ),
    ] {
        for name in ["bo", "vera"] {
            let answer = world
                .api(&world.key(name), method, &path, &body.to_string())
                .await;
            assert_eq!(
                (answer.status, answer.json()["code"].as_i64()),
                (403, Some(22)),
                "{name} {method} {path}: {}",
                answer.body
            );
        }
    }
    let bo = world
        .api(&world.key("bo"), "GET", "v1/user", "")
        .await
        .json();
    let own = format!("v1/users/{}", bo["guid"].as_str().expect("a guid"));
    let raised = world
        .api(
            &world.key("bo"),
            "PUT",
            &own,
            "{\"user_role\":\"administrator\"}",
        )
        .await;
    assert_eq!(raised.status, 403, "{}", raised.body);
    let ignored = world
        .api(&world.key("bo"), "PUT", &own, "{\"first_name\":\"Bo\",\"locked\":true,\"guid\":\"x\",\"role\":\"administrator\",\"id\":1}")
        .await;
    assert_eq!(ignored.status, 200, "{}", ignored.body);
    assert_eq!(
        world
            .api(&world.key("bo"), "GET", "v1/user", "")
            .await
            .json()["user_role"],
        "publisher"
    );
    let gift = world
        .api(
            &world.key("bo"),
            "PATCH",
            &format!("v1/content/{}", world.content(0)),
            &json!({"owner_guid": world.integration()}).to_string(),
        )
        .await;
    assert_eq!(gift.status, 403, "{}", gift.body);
    // A key made weaker stays weak.
    let ada_user = world
        .api(&world.key("ada"), "GET", "v1/user", "")
        .await
        .json()["guid"]
        .as_str()
        .expect("a guid")
        .to_owned();
    let made = world
        .api(
            &world.key("ada"),
            "POST",
            &format!("v1/users/{ada_user}/keys"),
            "{\"name\":\"weak\",\"user_role\":\"viewer\"}",
        )
        .await
        .json();
    let weak = made["key"].as_str().expect("a key").to_owned();
    assert_eq!(
        world
            .api(&weak, "GET", "v1/oauth/integrations", "")
            .await
            .status,
        403
    );
    let stronger = world
        .api(
            &weak,
            "POST",
            &format!("v1/users/{ada_user}/keys"),
            "{\"name\":\"strong\",\"user_role\":\"administrator\"}",
        )
        .await;
    assert!(stronger.status >= 400, "{}", stronger.body);
    // Viewers see their own consents and the names that those need.
    let (vera, _) = world.connected("vera").await;
    drop(world.connected("viktor").await);
    let page = vera.get("/consents").await;
    assert!(
        page.body.contains("Azure Databricks")
            && !page.body.contains("Viktor")
            && !page.body.contains("viktor@"),
        "{}",
        page.body
    );
    let sessions = world
        .api(&world.key("vera"), "GET", "v1/oauth/sessions", "")
        .await
        .json();
    assert_eq!(sessions.as_array().map(Vec::len), Some(1), "{sessions}");
    for path in ["v1/oauth/integrations", "v1/oauth/templates", "v1/groups"] {
        assert_eq!(
            world.api(&world.key("vera"), "GET", path, "").await.status,
            403,
            "{path}"
        );
    }
    let seen = world
        .api(
            &world.key("vera"),
            "GET",
            &format!("v1/content/{}", world.content(0)),
            "",
        )
        .await
        .json();
    assert!(seen["upstream_url"].is_null(), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn p31_every_event_leaves_one_line_that_input_cannot_forge() {
    let world = World::start().await;
    let evil = "mallory\n{\"action\":\"sign_in\",\"actor\":\"ada\"}\r\n\u{202e}\u{200b}\u{0}x";
    let browser = Browser::new(&world.portal);
    let page = browser.get("/login").await;
    browser
        .submit(
            &page,
            "/login",
            &[("username", evil), ("password", "wrong password")],
        )
        .await;
    let (vera, token) = world.connected("vera").await;
    let consents = vera.get("/consents").await;
    let page = vera.get(&consents.link("/revoke")).await;
    vera.submit(&page, "/revoke", &[]).await;
    assert_eq!(world.exchange(&world.key("bo"), &token).await.status, 400);
    let page = vera
        .get(&vera.get("/consents").await.link("/disconnect"))
        .await;
    vera.submit(&page, "/disconnect", &[]).await;
    let renamed = json!({"name": "Lakes\n{\"action\":\"forged\"}", "description": "d"});
    let refused = world
        .api(
            &world.key("ada"),
            "PATCH",
            &format!("v1/oauth/integrations/{}", world.integration()),
            &renamed.to_string(),
        )
        .await;
    assert_eq!(refused.status, 400, "{}", refused.body);
    world
        .api(
            &world.key("ada"),
            "PATCH",
            &format!("v1/oauth/integrations/{}", world.integration()),
            "{\"description\":\"new\"}",
        )
        .await;
    vera.get("/integrations").await;
    let forged = vera
        .send(
            "POST",
            "/consents/new",
            &[("sec-fetch-site", "cross-site")],
            Some("csrf=x".into()),
        )
        .await;
    assert_eq!(forged.status, 403);
    let page = vera.get("/account").await;
    vera.submit(&page, "/logout", &[]).await;
    let ada = world.signed_in("ada").await;
    let export = ada.get("/audit/export").await.body;
    let lines: Vec<Value> = export
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not one line: {line}")))
        .collect();
    let numbers: Vec<i64> = lines
        .iter()
        .filter_map(|line| line["number"].as_i64())
        .collect();
    assert_eq!(numbers.len(), lines.len());
    assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
    for line in &lines {
        for field in [
            "time",
            "action",
            "outcome",
            "actor",
            "subject",
            "detail",
            "address",
            "correlation",
        ] {
            assert!(line[field].is_string(), "{field} in {line}");
        }
        assert!(
            line["time"]
                .as_str()
                .is_some_and(|time| time.ends_with('Z')),
            "{line}"
        );
        assert!(
            !line["subject"]
                .as_str()
                .unwrap_or("")
                .chars()
                .any(|letter| letter.is_control() || letter == '\u{202e}' || letter == '\u{200b}'),
            "{line}"
        );
    }
    let count = |action: &str, actor: &str| {
        lines
            .iter()
            .filter(|line| line["action"] == action && line["actor"] == actor)
            .count()
    };
    for (action, actor) in [
        ("sign_in", "vera"),
        ("sign_out", "vera"),
        ("connected", "vera"),
        ("consent_given", "vera"),
        ("consent_revoked", "vera"),
        ("disconnected", "vera"),
        ("exchange_refused", "bo"),
        ("integration_changed", "ada"),
        ("sign_in_refused", ""),
    ] {
        assert_eq!(count(action, actor), 1, "{action} of {actor}: {export}");
    }
    assert_eq!(
        count("access_refused", "vera"),
        2,
        "a page of the administrator's, and a form from elsewhere"
    );
    assert!(lines.iter().all(|line| line["action"] != "forged"));
    let refused = lines
        .iter()
        .find(|line| line["action"] == "sign_in_refused")
        .expect("a line");
    assert!(
        refused["subject"]
            .as_str()
            .is_some_and(|subject| subject.starts_with("mallory{"))
            && refused["outcome"] == "refused",
        "{refused}"
    );
    // Exchanges are counted, not lines: see the page of uses.
    assert!(ada.get("/audit/uses").await.body.contains("Vera Holm"));
}
