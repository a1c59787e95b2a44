//! The interface for programs: shapes and codes that clients branch on.

use crate::harness::World;

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_have_their_codes_and_name_the_field() {
    let world = World::start().await;
    let (ada, bo, vera) = (world.key("ada"), world.key("bo"), world.key("vera"));
    let azure = |extra: &str| {
        format!(
            r#"{{"template":"azure","config":{{"tenant_id":"t.example.org","client_id":"3f0c2a51-7e0b-4c7e-9b1e-0a5f7f3d2c11","client_secret":"s"{extra}}}}}"#
        )
    };
    let missing = "198667fd-393d-4905-873c-3a9abc1f37a6";
    let integrations = "v1/oauth/integrations";
    let associations = format!(
        "v1/content/{}/oauth/integrations/associations",
        world.content(1)
    );
    let own = world.integration();
    let cases: Vec<(&str, &str, String, String, u16, i64, &str)> = vec![
        (&ada, "POST", integrations.into(), "{".into(), 400, 2, "JSON"),
        (&ada, "POST", integrations.into(), "[]".into(), 400, 2, "object"),
        (&ada, "POST", integrations.into(), "{}".into(), 400, 227, "template"),
        (&ada, "POST", integrations.into(), r#"{"template":"confluence","config":{}}"#.into(), 400, 227, "template"),
        (&ada, "POST", integrations.into(), r#"{"template":"azure","config":5}"#.into(), 400, 228, "config"),
        (&ada, "POST", integrations.into(), r#"{"template":"azure","name":5}"#.into(), 400, 225, "name"),
        (&ada, "POST", integrations.into(), r#"{"template":"azure","config":{"client_secret":"s"}}"#.into(), 400, 228, "tenant_id"),
        (&ada, "POST", integrations.into(), azure(r#","tenant_id":"not a tenant""#), 400, 228, "tenant_id"),
        (&ada, "POST", integrations.into(), azure(r#","auth_mode":"Perhaps""#), 400, 228, "auth_mode"),
        (&ada, "POST", integrations.into(), azure(r#","colour":"red""#), 400, 228, "colour"),
        (&ada, "POST", integrations.into(), r#"{"template":"azure","config":{"tenant_id":"t.example.org","client_id":"3f0c2a51-7e0b-4c7e-9b1e-0a5f7f3d2c11"}}"#.into(), 400, 205, "client_secret"),
        (&ada, "POST", integrations.into(), r#"{"template":"custom","config":{"client_id":"c","client_secret":"s","authorization_uri":"http://10.0.0.1/a","token_uri":"https://x.example/t"}}"#.into(), 400, 228, "authorization_uri"),
        (&ada, "POST", integrations.into(), r#"{"client_id":"c","client_secret":"s","tenant_id":"t.example.org","default_scopes":5}"#.into(), 400, 228, "default_scopes"),
        (&bo, "POST", integrations.into(), azure(""), 403, 22, ""),
        (&vera, "GET", integrations.into(), String::new(), 403, 22, ""),
        (&ada, "GET", format!("{integrations}/nonsense"), String::new(), 400, 207, "nonsense"),
        (&ada, "GET", format!("{integrations}/{missing}"), String::new(), 404, 4, ""),
        (&ada, "PATCH", format!("{integrations}/{own}"), r#"{"template":"custom"}"#.into(), 400, 229, "template"),
        (&ada, "PATCH", format!("{integrations}/{own}"), r#"{"config":{"client_id":"{9B1E2A51-7E0B-4C7E-9B1E-0A5F7F3D2C99}"}}"#.into(), 400, 205, "client_secret"),
        (&bo, "PUT", associations.clone(), "{}".into(), 400, 208, "array"),
        (&bo, "PUT", associations.clone(), r#"[{"guid":"x"}]"#.into(), 400, 208, "oauth_integration_guid"),
        (&bo, "PUT", associations.clone(), r#"[{"oauth_integration_guid":"x"}]"#.into(), 400, 207, ""),
        (&bo, "PUT", associations.clone(), format!(r#"[{{"oauth_integration_guid":"{missing}"}}]"#), 400, 207, ""),
        (&bo, "PUT", associations.clone(), format!(r#"[{{"oauth_integration_guid":"{own}"}},{{"oauth_integration_guid":"{own}"}}]"#), 400, 258, "twice"),
        (&vera, "PUT", associations.clone(), "[]".into(), 403, 22, ""),
        (&bo, "POST", "v1/content".into(), r#"{"name":"a b"}"#.into(), 400, 2, "name"),
        (&bo, "POST", "v1/content".into(), r#"{"name":"sales-dashboard"}"#.into(), 409, 26, ""),
        (&bo, "POST", "v1/content".into(), r#"{"access_type":"me"}"#.into(), 400, 2, "access_type"),
        (&bo, "POST", "v1/content".into(), r#"{"upstream_url":"http://169.254.169.254"}"#.into(), 400, 2, "upstream_url"),
        (&bo, "GET", "v1/content/x".into(), String::new(), 400, 3, ""),
        (&vera, "PATCH", format!("v1/content/{}", world.content(0)), "{}".into(), 403, 22, ""),
        (&vera, "GET", "v1/oauth/sessions?all=True".into(), String::new(), 403, 22, ""),
        (&vera, "GET", "v1/oauth/sessions/x".into(), String::new(), 400, 218, ""),
        (&ada, "POST", "v1/users".into(), r#"{"username":"ADA","password":"long enough"}"#.into(), 409, 26, ""),
        (&ada, "POST", "v1/users".into(), r#"{"username":"new","password":"short"}"#.into(), 400, 2, "password"),
        (&ada, "GET", "v1/oauth/templates/confluence".into(), String::new(), 404, 4, ""),
        (&ada, "GET", "v1/nothing/here".into(), String::new(), 404, 4, ""),
        ("", "GET", "v1/nothing/here".into(), String::new(), 404, 4, ""),
        ("", "GET", "v1/user".into(), String::new(), 401, 24, ""),
        ("vk_nonsense", "GET", "server_settings".into(), String::new(), 401, 30, ""),
    ];
    for (key, method, path, body, status, code, word) in cases {
        let answer = world.api(key, method, &path, &body).await;
        assert_eq!(
            (answer.status, answer.json()["code"].as_i64()),
            (status, Some(code)),
            "{method} {path} {body}: {}",
            answer.body
        );
        assert!(
            answer.json()["error"]
                .as_str()
                .is_some_and(|error| error.contains(word)),
            "{method} {path}: {word} not in {}",
            answer.body
        );
        assert_eq!(answer.header("content-type"), "application/json");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_the_same_wherever_they_are_read() {
    let world = World::start().await;
    let (ada, bo) = (world.key("ada"), world.key("bo"));
    let made = world.api(&bo, "POST", "v1/content", "{}").await.json();
    let guid = made["guid"].as_str().expect("a guid");
    assert_eq!(
        world
            .api(&bo, "GET", &format!("v1/content/{guid}"), "")
            .await
            .json(),
        made
    );
    assert!(
        world
            .api(&bo, "GET", "v1/content", "")
            .await
            .json()
            .as_array()
            .is_some_and(|list| list.contains(&made))
    );
    assert_eq!(
        world
            .api(&bo, "PATCH", &format!("v1/content/{guid}"), "{}")
            .await
            .json(),
        made
    );
    assert!(
        made.get("tags").is_none()
            && made.get("vanity_url").is_none()
            && made["bundle_id"].is_null()
    );
    assert_eq!(
        world
            .api(
                &bo,
                "GET",
                &format!("v1/content/{guid}?include=owner%2Ctags%2Cvanity_url"),
                ""
            )
            .await
            .json()["owner"]["username"],
        "bo"
    );
    let user = world
        .api(
            &ada,
            "POST",
            "v1/users",
            r#"{"username":"cy","password":"long enough","first_name":"Cy"}"#,
        )
        .await
        .json();
    let path = format!("v1/users/{}", user["guid"].as_str().expect("a guid"));
    for locked in ["true", "false"] {
        assert_eq!(
            world
                .api(
                    &ada,
                    "POST",
                    &format!("{path}/lock"),
                    &format!(r#"{{"locked":{locked}}}"#)
                )
                .await
                .status,
            200
        );
    }
    assert_eq!(
        world.api(&ada, "GET", &path, "").await.json(),
        user,
        "locking touches nothing else"
    );
    let permission = format!(
        r#"{{"principal_guid":{},"principal_type":"user","role":"viewer"}}"#,
        user["guid"]
    );
    let entries = format!("v1/content/{guid}/permissions");
    assert_eq!(
        world.api(&bo, "POST", &entries, &permission).await.status,
        201
    );
    assert_eq!(
        world
            .api(
                &bo,
                "POST",
                &entries,
                &permission.replace("viewer", "owner")
            )
            .await
            .status,
        200
    );
    assert_eq!(
        world.api(&bo, "GET", &entries, "").await.json()[0]["role"],
        "owner"
    );
    let page = world
        .api(&ada, "GET", "v1/users?page_size=1&prefix=C", "")
        .await
        .json();
    assert_eq!(
        (
            page["total"].as_i64(),
            page["results"][0]["username"].as_str()
        ),
        (Some(1), Some("cy"))
    );
    // A content key is for exchanges of its own item only.
    assert_eq!(
        world.api(&bo, "GET", "server_settings", "").await.json()["version"],
        "2025.11.0"
    );
    assert_eq!(
        world
            .api(&bo, "DELETE", &format!("v1/content/{guid}"), "")
            .await
            .status,
        204
    );
}

/// The document that describes the API names every route, and no other.
#[tokio::test(flavor = "multi_thread")]
async fn the_openapi_document_has_every_route() {
    let routes = include_str!("../../src/web/routes.rs");
    let from = routes
        .find("pub fn programs")
        .expect("the routes of programs");
    let to = routes.find("pub fn open").expect("the end of them");
    let mut known: Vec<String> = routes[from..to]
        .split(".route(")
        .skip(1)
        .map(|route| {
            let mut parts = route.trim_start().splitn(3, '"');
            let path = parts.nth(1).expect("a path");
            let rest = parts
                .next()
                .expect("a method")
                .trim_start_matches([',', ' ', '\n']);
            let method = rest.split('(').next().expect("a method").trim();
            format!("{method} {path}")
        })
        .collect();
    // A hot path, registered before all others.
    known.push("post /v1/oauth/integrations/credentials".into());
    let world = World::start().await;
    let document = world
        .api(&world.key("vera"), "GET", "openapi.json", "")
        .await;
    assert_eq!(document.status, 200, "{}", document.body);
    let document = document.json();
    let mut described = Vec::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for method in methods.as_object().expect("methods").keys() {
            described.push(format!("{method} {path}"));
        }
    }
    known.sort_unstable();
    described.sort_unstable();
    assert_eq!(described, known);
    // Every schema that is named is there.
    let text = document.to_string();
    for name in text.split("#/components/schemas/").skip(1) {
        let name = name.split('"').next().expect("a name");
        assert!(
            document["components"]["schemas"][name].is_object(),
            "{name}"
        );
    }
}
