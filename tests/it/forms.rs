//! Every form against bad input: 422, the same page, all errors at once, typed values kept, never
//! the secret.

use crate::harness::World;

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_comes_back_with_all_errors_and_without_secrets() {
    let world = World::start().await;
    let ada = world.signed_in("ada").await;
    let long = "x".repeat(10_000);
    let id = "3f0c2a51-7e0b-4c7e-9b1e-0a5f7f3d2c11";
    type Case<'a> = (&'a str, &'a str, Vec<(&'a str, &'a str)>, Vec<&'a str>);
    let cases: Vec<Case<'_>> = vec![
        (
            "/integrations/new?template=azure",
            "/integrations/new",
            vec![
                ("name", ""),
                ("tenant_id", ""),
                ("client_id", ""),
                ("client_secret", ""),
            ],
            vec![
                "Enter a name",
                "Enter the directory (tenant) ID",
                "Enter the application (client) ID",
                "Enter the client secret",
            ],
        ),
        (
            "/integrations/new?template=azure",
            "/integrations/new",
            vec![
                ("name", "<i>n</i>"),
                ("tenant_id", " https://portal.azure.com/x "),
                ("client_id", id),
                ("client_secret", id),
            ],
            vec![
                "This is an address",
                "looks like the Secret ID",
                "&#60;i&#62;n&#60;/i&#62;",
            ],
        ),
        (
            "/integrations/new?template=azure",
            "/integrations/new",
            vec![
                ("name", &long),
                ("tenant_id", id),
                ("client_id", id),
                ("client_secret", "SEKRIT"),
                ("secret_expires", "2026-02-31"),
                ("authority_host", "http://10.0.0.1"),
            ],
            vec![
                "application ID you entered below",
                "Enter a date",
                "start with https",
            ],
        ),
        (
            "/integrations/new?template=custom",
            "/integrations/new",
            vec![
                ("name", "n"),
                ("authorization_uri", "nowhere"),
                ("token_uri", "https://user:SEKRIT2@x.example"),
                ("client_id", ""),
                ("client_secret", "SEKRIT"),
            ],
            vec![
                "not a web address",
                "Leave user name and password out",
                "Enter the client ID",
            ],
        ),
        (
            "/content/new",
            "/content/new",
            vec![
                ("title", ""),
                ("upstream_url", "http://169.254.169.254/"),
                ("access_type", "everyone"),
            ],
            vec!["Enter a title", "never allowed", "Choose who may open it"],
        ),
        (
            "/content/new",
            "/content/new",
            vec![
                ("title", &long),
                ("upstream_url", "file:///etc/passwd"),
                ("access_type", "acl"),
            ],
            vec!["at most 100 characters", "not a web address"],
        ),
        (
            "/people/new",
            "/people/new",
            vec![
                ("username", "a b"),
                ("email", "nobody"),
                ("first_name", &long),
                ("role", "viewer"),
                ("password", "SEKRIT"),
            ],
            vec![
                "in a user name",
                "Enter an e-mail address",
                "at most 100 characters",
                "at least 8 characters",
            ],
        ),
        (
            "/people/new",
            "/people/new",
            vec![
                ("username", "ADA"),
                ("role", "viewer"),
                ("password", "SEKRIT-long-enough"),
            ],
            vec!["Somebody has this user name already"],
        ),
        (
            "/account",
            "/account/password",
            vec![
                ("old_password", "SEKRIT-wrong"),
                ("new_password", "SEKRIT-long-enough"),
            ],
            vec!["not your current password"],
        ),
        (
            "/account/keys",
            "/account/keys",
            vec![("name", "  "), ("user_role", "administrator")],
            vec!["Give the key a name"],
        ),
    ];
    for (address, action, values, expected) in cases {
        let page = ada.get(address).await;
        let answer = ada.submit(&page, action, &values).await;
        assert_eq!(answer.status, 422, "{address}: {}", answer.body);
        for words in expected {
            assert!(
                answer.body.contains(words),
                "{address}: “{words}” is missing in {}",
                answer.body
            );
        }
        assert!(
            !answer.body.contains("SEKRIT\"") && !answer.body.contains("SEKRIT-"),
            "{address} shows a secret"
        );
        for (name, value) in values.iter().filter(|(name, value)| {
            !value.is_empty()
                && value.len() < 60
                && !name.contains("secret")
                && !name.contains("password")
                && !value.contains('<')
        }) {
            assert!(
                answer.body.contains(value.trim()) || *name == "access_type",
                "{address}: {name} was lost"
            );
        }
    }
}
