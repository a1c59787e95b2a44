//! Sign-in with a password (`/login`), sign-out, one-time links (`/setup/{token}`: the first
//! administrator, or an invitation), `/help`, and redirects from old addresses.

use crate::{
    domain::{access, addresses::query, form::FieldError, return_path::ReturnPath},
    http::{errors::WebError, redirect::see_other},
    service::{
        Error,
        people::{accounts::PersonInput, invitations::LinkHolder},
    },
    web::{
        error_pages::{ProblemPage, allow_forms_to},
        forms::{Choice, Field, FieldKind, FormValues, refill},
        pages::{FormPage, form_status, page, page_with, problems_of},
        view::{Chrome, NavLink, count_noun},
        visitor::{Posted, SignedIn, Visitor},
    },
};
use actix_web::{HttpResponse, http::StatusCode, web};
use askama::Template;
use serde::Deserialize;

#[derive(Template)]
#[template(path = "pages/login.html")]
struct LoginPage {
    chrome: Chrome,
    errors: Vec<FieldError>,
    fields: Vec<Field>,
    next: String,
    /// Nobody has an account yet.
    is_empty: bool,
    /// Whether sign-in with a password is enabled.
    local: bool,
    /// The link that starts the organisation's sign-in, if one is configured.
    organisation: Option<NavLink>,
}

/// The query parameter `next`: where to go after sign-in.
#[derive(Deserialize)]
pub struct Next {
    next: Option<String>,
}

fn fields() -> Vec<Field> {
    vec![
        Field::text("username", "User name").autocomplete("username"),
        Field::new(FieldKind::Secret, "password", "Password").autocomplete("current-password"),
    ]
}

/// The sign-in page. If it leads to content, its form may redirect to content origins, too (see
/// [`allow_forms_to`]).
async fn draw(
    visitor: &Visitor,
    typed: Option<&FormValues>,
    next: &str,
    errors: Vec<FieldError>,
) -> Result<HttpResponse, WebError> {
    visitor.csrf()?;
    let mut fields = fields();
    refill(&mut fields, typed, &errors);
    let (status, settings) = (form_status(&errors), &visitor.service.core.settings);
    let mut response = page_with(
        status,
        &LoginPage {
            chrome: visitor.chrome("", "Sign in"),
            errors,
            fields,
            next: next.to_owned(),
            is_empty: visitor.service.invitations.is_empty().await?,
            local: settings.local_sign_in,
            organisation: settings.sign_in.as_ref().map(|sign_in| {
                NavLink::new(
                    format!("/login/organisation?next={}", query(next)),
                    format!("Sign in with {}", sign_in.name),
                )
            }),
        },
    )?;
    if next.starts_with("/content/") {
        allow_forms_to(
            &mut response,
            &visitor.service.core.settings.origins.form_targets(),
        );
    }
    Ok(response)
}

/// `next` as a path of this portal; `/content` if it is malformed.
fn after(next: &str) -> String {
    ReturnPath::parse(next).map_or_else(|| "/content".to_owned(), |path| path.as_str().to_owned())
}

/// `GET /login`. Signed-in people are redirected at once.
pub async fn login_page(
    visitor: Visitor,
    query: web::Query<Next>,
) -> Result<HttpResponse, WebError> {
    let next = query.next.as_deref().unwrap_or("");
    if visitor.actor.is_some() {
        return Ok(see_other(&after(next)));
    }
    draw(&visitor, None, next, Vec::new()).await
}

/// `POST /login`. The error never tells whether the user name or the password was wrong.
pub async fn login(visitor: Visitor, Posted(typed): Posted) -> Result<HttpResponse, WebError> {
    let next = typed.text("next").to_owned();
    if !visitor.service.core.settings.local_sign_in {
        return draw(
            &visitor,
            None,
            &next,
            vec![FieldError::new(
                "",
                "Passwords are switched off here. Sign in with your organisation.",
            )],
        )
        .await;
    }
    let mut problems = Vec::new();
    if typed.text("username").is_empty() {
        problems.push(FieldError::new("username", "Enter your user name."));
    }
    if typed.get("password").unwrap_or("").is_empty() {
        problems.push(FieldError::new("password", "Enter your password."));
    }
    if !problems.is_empty() {
        return draw(&visitor, Some(&typed), &next, problems).await;
    }
    match visitor
        .service
        .passwords
        .sign_in(
            typed.text("username"),
            typed.password("password"),
            &visitor.origin,
        )
        .await?
    {
        Some(person) => {
            visitor.sign_in(&person)?;
            Ok(see_other(&after(&next)))
        }
        None => {
            let problem = FieldError::new(
                "username",
                "User name and password do not fit together. Check both and try again.",
            );
            draw(&visitor, Some(&typed), &next, vec![problem]).await
        }
    }
}

/// `POST /logout`: ends the browser session.
pub async fn logout(me: SignedIn, _: Posted) -> Result<HttpResponse, WebError> {
    me.service().sessions.record_sign_out(&me.actor).await?;
    me.visitor.session.purge();
    Ok(see_other("/login"))
}

/// `GET /account/switch`, behind “Not you?”: offers to sign out, to sign in with another account.
pub async fn switch(me: SignedIn) -> Result<HttpResponse, WebError> {
    let chrome = me.visitor.chrome("", "Sign in as somebody else");
    page(&crate::web::pages::ConfirmPage {
        chrome,
        errors: Vec::new(),
        groups: vec![crate::web::pages::Group::new(
            "",
            &[&format!(
                "You are signed in as {}. Sign out, then sign in with the other account.",
                me.actor.person.display_name()
            )],
            Vec::new(),
        )],
        link: None,
        action: "/logout".into(),
        fields: Vec::new(),
        submit: "Sign out".into(),
        cancel: "/content".into(),
    })
}

fn setup_fields() -> Vec<Field> {
    vec![
        Field::text("username", "User name").autocomplete("username"),
        Field::new(FieldKind::Email, "email", "E-mail address")
            .hint("As your identity provider knows you.")
            .autocomplete("email"),
        Field::text("first_name", "First name").autocomplete("given-name"),
        Field::text("last_name", "Last name").autocomplete("family-name"),
        Field::new(FieldKind::Secret, "password", "Password")
            .hint("At least 8 characters.")
            .autocomplete("new-password"),
    ]
}

/// The field that says whether API keys end with an old password.
const END_KEYS: &str = "end_keys";

/// The form behind a one-time link, for its kind of holder.
fn draw_setup(
    visitor: &Visitor,
    token: &str,
    holder: &LinkHolder,
    typed: Option<&FormValues>,
    errors: Vec<FieldError>,
) -> Result<HttpResponse, WebError> {
    visitor.csrf()?;
    let (title, intro, submit, mut fields) = match holder {
        LinkHolder::FirstAdministrator => (
            "Set up Valetkey",
            "You become the first administrator. This link works once.".to_owned(),
            "Create administrator",
            setup_fields(),
        ),
        LinkHolder::Person(person, keys) => (
            "Choose a password",
            format!(
                "For {}, user name {}. This link works once; you are signed in afterwards.",
                person.display_name(),
                person.username
            ),
            "Set password and sign in",
            [
                Some(
                    Field::new(FieldKind::Secret, "password", "Password")
                        .hint("At least 8 characters. Your other browsers are signed out.")
                        .autocomplete("new-password"),
                ),
                (*keys > 0).then(|| keys_field(*keys)),
            ]
            .into_iter()
            .flatten()
            .collect(),
        ),
    };
    refill(&mut fields, typed, &errors);
    page_with(
        form_status(&errors),
        &FormPage {
            chrome: visitor.chrome("", title),
            intro,
            errors,
            fields,
            action: format!("/setup/{token}"),
            submit: submit.into(),
            cancel: String::new(),
        },
    )
}

/// Asks what becomes of the API keys of a person who gets a new password.
fn keys_field(keys: usize) -> Field {
    let label = format!("Your {}", count_noun(keys, "API key", "API keys"));
    Field::new(FieldKind::Radio, END_KEYS, &label)
        .hint("Programs sign in with them, whatever your password is. Keys that content uses are among them.")
        .value("no")
        .options(vec![
            Choice::new(
                "no",
                "Keep",
                "You forgot your password, or this is your first one.",
            ),
            Choice::new(
                "yes",
                "Delete",
                "Somebody else may know your password, or a key. Programs need new ones.",
            ),
        ])
}

/// 404 for a used, expired or replaced one-time link.
fn dead_link(visitor: &Visitor) -> Result<HttpResponse, WebError> {
    page_with(
        StatusCode::NOT_FOUND,
        &ProblemPage {
            chrome: visitor.chrome("", "This link does not work"),
            lines: vec![
                "It was used before, is too old, or a newer one replaced it. An administrator can make a new one for you.".into(),
                "Nobody has an account yet? Restart the server: it prints a new link.".into(),
            ],
            copy: None,
            links: vec![NavLink::new("/login", "Sign in")],
            reference: String::new(),
        },
    )
}

/// `GET /setup/{token}`: shows the form without using the link up.
pub async fn setup_page(
    visitor: Visitor,
    token: web::Path<String>,
) -> Result<HttpResponse, WebError> {
    match visitor.service.invitations.link_holder(&token).await {
        Ok(holder) => draw_setup(&visitor, &token, &holder, None, Vec::new()),
        Err(Error::NotFound) => dead_link(&visitor),
        Err(error) => Err(error.into()),
    }
}

/// `POST /setup/{token}`: creates the first administrator, or sets the invited person's password.
/// Uses the link up and signs the person in.
pub async fn setup(
    visitor: Visitor,
    token: web::Path<String>,
    Posted(typed): Posted,
) -> Result<HttpResponse, WebError> {
    let holder = match visitor.service.invitations.link_holder(&token).await {
        Ok(holder) => holder,
        Err(Error::NotFound) => return dead_link(&visitor),
        Err(error) => return Err(error.into()),
    };
    let text = |name: &str| Some(typed.text(name).to_owned());
    let (done, next, message) = match &holder {
        LinkHolder::FirstAdministrator => {
            let input = PersonInput {
                username: text("username"),
                email: text("email"),
                first_name: text("first_name"),
                last_name: text("last_name"),
                role: None,
                password: Some(typed.password("password")),
                based_on: None,
            };
            (
                visitor
                    .service
                    .invitations
                    .complete_setup(&token, input)
                    .await,
                "/integrations",
                "Created your account. Add an integration next.",
            )
        }
        LinkHolder::Person(..) => {
            let done = visitor
                .service
                .invitations
                .accept_invitation(
                    &token,
                    typed.password("password"),
                    typed.text(END_KEYS) == "yes",
                    &visitor.origin,
                )
                .await;
            let next_time = match visitor.service.core.settings.local_sign_in {
                true => "Set your password. Use it with your user name the next time.",
                false => "You are signed in. The next time, sign in with your organisation.",
            };
            (done, "/content", next_time)
        }
    };
    match done {
        Ok(person) => {
            visitor.sign_in(&person)?;
            visitor.flash(message);
            Ok(see_other(next))
        }
        Err(Error::NotFound) => dead_link(&visitor),
        Err(error) => draw_setup(&visitor, &token, &holder, Some(&typed), problems_of(error)?),
    }
}

/// `GET /`: redirects to `/content`.
pub async fn home() -> HttpResponse {
    see_other("/content")
}

/// `/connect/`: old dashboard links of Connect. The fragment (`#/…`) never reaches a server, so
/// this page lists the possible targets instead of redirecting.
pub async fn old_links(me: SignedIn) -> Result<HttpResponse, WebError> {
    let mut links = vec![
        NavLink::new("/content", "Content"),
        NavLink::new("/consents", "Consents"),
    ];
    if access::may_manage_integrations(me.actor.role) {
        links.push(NavLink::new("/integrations", "Integrations"));
    }
    page(&ProblemPage {
        chrome: me.visitor.chrome("", "This is an old dashboard address"),
        lines: vec!["The pages have moved. Choose where you want to go.".into()],
        copy: None,
        links,
        reference: String::new(),
    })
}
