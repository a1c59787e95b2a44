//! Every way an authorization can end.

use crate::harness::World;

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_the_provider_have_pages_of_ours() {
    let world = World::start().await;
    let app = format!("/content/{}/", world.content(0));
    let vera = world.signed_in("vera").await;
    let state = |answer: &str| answer.split("state=").nth(1).unwrap_or("").to_owned();
    for (query, words) in [
        (
            "error=access_denied&error_description=AADSTS65004%3A+declined",
            "You chose not to connect",
        ),
        (
            "error=access_denied&error_description=AADSTS90094%3A+admin",
            "Your organisation must approve this app",
        ),
        (
            "error=interaction_required&error_description=AADSTS53003%3A+%3Cscript%3Ealert(1)%3C%2Fscript%3E",
            "policy blocked",
        ),
        (
            "error=invalid_scope&error_description=AADSTS70011",
            "An administrator must repair this",
        ),
        ("error=temporarily_unavailable", "is not answering"),
        ("error=%3Cb%3Enonsense", "is not answering"),
        ("nothing=here", "is not answering"),
    ] {
        let answer = vera.up_to_callback(&app, "vera@example.org").await;
        let address = format!(
            "{}?{query}&state={}",
            answer.split('?').next().unwrap_or(""),
            state(&answer)
        );
        let page = vera.get(&address).await;
        assert!(
            page.body.contains(words),
            "{query}: {} {}",
            page.status,
            page.body
        );
        assert!(!page.body.contains("<script>alert") && !page.body.contains("<b>nonsense"));
    }
    // At the token endpoint.
    for (fault, words) in [
        (
            Some(("invalid_client", 7_000_215)),
            "An administrator must repair this",
        ),
        (
            Some(("invalid_grant", 501_481)),
            "did not accept the sign-in",
        ),
        (None, "is not answering"),
    ] {
        world.provider.set_faults(|faults| match fault {
            Some((word, code)) => faults.error = Some((word.into(), code)),
            None => (faults.error, faults.status) = (None, Some(502)),
        });
        let answer = vera.up_to_callback(&app, "vera@example.org").await;
        let page = vera.get(&answer).await;
        assert!(page.body.contains(words), "{fault:?}: {}", page.body);
        assert!(
            vera.get("/consents")
                .await
                .body
                .contains("No content acts for you"),
            "nothing half-made is stored"
        );
    }
    world
        .provider
        .set_faults(|faults| (faults.status, faults.no_refresh_token) = (None, true));
    let answer = vera.up_to_callback(&app, "vera@example.org").await;
    assert!(
        vera.get(&answer)
            .await
            .body
            .contains("Connected for about an hour")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn another_account_is_held_back_until_the_viewer_decides() {
    let world = World::start().await;
    let app = format!("/content/{}/", world.content(0));
    let vera = world.signed_in("vera").await;
    let answer = vera.up_to_callback(&app, "viktor@example.org").await;
    let page = vera.get(&answer).await;
    assert!(
        page.body.contains("viktor@example.org") && page.url.contains("/consents/account"),
        "{}",
        page.body
    );
    assert!(
        vera.get(&app).await.url.contains("/consents/new"),
        "not used before the decision"
    );
    let kept = vera
        .submit(&page, "/consents/account", &[("choice", "keep")])
        .await;
    let app_page = vera.follow(kept).await;
    assert!(
        app_page.body.contains("viktor@example.org"),
        "{}",
        app_page.body
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_content_item_costs_one_click() {
    let world = World::start().await;
    let (vera, _) = world.connected("vera").await;
    let second = world.content(1);
    world
        .api(
            &world.key("bo"),
            "PUT",
            &format!("v1/content/{second}/oauth/integrations/associations"),
            &format!(
                r#"[{{"oauth_integration_guid":"{}"}}]"#,
                world.integration()
            ),
        )
        .await;
    let page = vera.get(&format!("/content/{second}/?a=b")).await;
    assert!(
        page.body.contains(">Allow<") && page.body.contains("Churn explorer"),
        "{}",
        page.body
    );
    let policy = page.header("content-security-policy");
    let origin = world.summary["identity_provider"].as_str().unwrap_or("-");
    assert!(
        policy.contains(&format!("form-action 'self' {origin}")),
        "{policy}"
    );
    let answer = vera.submit(&page, "/consents/new", &[]).await;
    assert!(
        answer
            .header("location")
            .ends_with(&format!("/content/{second}/?a=b"))
    );
    assert_eq!(world.provider.counts().redeemed, 1);
}
