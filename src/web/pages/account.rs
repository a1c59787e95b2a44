//! A person's own pages: `/account` (password, browser sessions, theme, confirmation),
//! `/account/keys` (API keys) and `/account/shown/{name}` (a secret, shown once).

use crate::{
    domain::{
        Id,
        form::FieldError,
        person::{Person, Role},
        return_path::ReturnPath,
    },
    http::{errors::WebError, redirect::see_other},
    web::{
        confirmation::Confirmed,
        forms::{Choice, Field, FieldKind, FormValues, refill},
        pages::{form_status, id, page, page_with, problems_of},
        shown_once::{self, SecretToShow},
        view::{Chrome, Moment},
        visitor::{Posted, SignedIn, THEME},
    },
};
use actix_web::{
    HttpResponse,
    cookie::{Cookie, SameSite, time::Duration},
    http::StatusCode,
    web,
};
use askama::Template;
use secrecy::ExposeSecret as _;
use serde::Deserialize;

/// One browser session, as a page lists it.
pub struct SessionRow {
    /// Id of the session, to end it.
    pub guid: String,
    /// IP address at sign-in.
    pub address: String,
    /// Whether this request belongs to it.
    pub current: bool,
    pub since: Moment,
    pub seen: Moment,
}

/// The browser sessions of a person.
pub async fn session_rows(me: &SignedIn, person: Id<Person>) -> Result<Vec<SessionRow>, WebError> {
    let now = me.service().core.now();
    let sessions = me.service().sessions.sessions_of(&me.actor, person).await?;
    Ok(sessions
        .into_iter()
        .map(|session| SessionRow {
            guid: session.id.to_string(),
            current: me.actor.session == Some(session.id),
            address: if session.address.is_empty() {
                "an unknown address".into()
            } else {
                session.address
            },
            since: Moment::new(session.created_at, now),
            seen: Moment::new(session.seen_at, now),
        })
        .collect())
}

#[derive(Template)]
#[template(path = "pages/account.html")]
struct AccountPage {
    chrome: Chrome,
    errors: Vec<FieldError>,
    who: String,
    fields: Vec<Field>,
    /// Name of the organisation's sign-in, if this account is not linked to it yet.
    organisation: Option<String>,
    has_password: bool,
    sessions: Vec<SessionRow>,
}

async fn draw(me: &SignedIn, errors: Vec<FieldError>) -> Result<HttpResponse, WebError> {
    let mut fields = vec![
        Field::new(FieldKind::Secret, "old_password", "Current password")
            .autocomplete("current-password"),
        Field::new(FieldKind::Secret, "new_password", "New password")
            .hint("At least 8 characters.")
            .autocomplete("new-password"),
    ];
    refill(&mut fields, None, &errors);
    let sessions = session_rows(me, me.actor.person.id).await?;
    let person = &me.actor.person;
    let view = AccountPage {
        chrome: me.visitor.chrome("", "Account"),
        who: format!(
            "{}, {}",
            person.display_name(),
            person.role.label().to_lowercase()
        ),
        fields,
        organisation: match &me.service().core.settings.sign_in {
            Some(sign_in)
                if !me
                    .service()
                    .organisation
                    .signs_in_at(person.id, &sign_in.issuer)
                    .await? =>
            {
                Some(sign_in.name.clone())
            }
            _ => None,
        },
        has_password: me.service().passwords.has_password(person.id).await?,
        sessions,
        errors,
    };
    page_with(form_status(&view.errors), &view)
}

/// `GET /account`.
pub async fn account(me: SignedIn) -> Result<HttpResponse, WebError> {
    draw(&me, Vec::new()).await
}

/// `POST /account/password`. Ends the person's other browser sessions.
pub async fn change_password(
    me: SignedIn,
    Posted(typed): Posted,
) -> Result<HttpResponse, WebError> {
    match me
        .service()
        .passwords
        .change_password(
            &me.actor,
            typed.password("old_password"),
            typed.password("new_password"),
        )
        .await
    {
        Ok(()) => Ok(me.done(
            "/account",
            "Changed your password. Your other browsers are signed out.",
        )),
        Err(error) => draw(&me, problems_of(error)?).await,
    }
}

/// `POST /account/sessions/end`: ends one session, or all but the current one.
pub async fn end_sessions(me: SignedIn, Posted(typed): Posted) -> Result<HttpResponse, WebError> {
    let only = typed.non_empty("session").map(id).transpose()?;
    me.service()
        .sessions
        .end_sessions(&me.actor, me.actor.person.id, only)
        .await?;
    Ok(me.done(
        "/account",
        if only.is_some() {
            "Signed out that browser."
        } else {
            "Signed out everywhere else."
        },
    ))
}

/// The query parameter `next`: where to go after the confirmation.
#[derive(Deserialize)]
pub struct Next {
    next: Option<String>,
}

/// `next` as a path of this portal; `/consents` if it is malformed.
fn after(next: &str) -> ReturnPath {
    ReturnPath::parse(next).unwrap_or_else(ReturnPath::consents)
}

/// `GET /account/confirm`: asks for confirmation before a page whose form needs it.
pub async fn confirm_page(me: SignedIn, query: web::Query<Next>) -> Result<HttpResponse, WebError> {
    let next = after(query.next.as_deref().unwrap_or(""));
    let typed = FormValues(vec![("next".into(), next.as_str().to_owned())]);
    page(
        &me.confirm_page("/account/confirm", next.as_str(), Some(&typed), Vec::new())
            .await?,
    )
}

/// `POST /account/confirm`: checks the password and returns to `next`.
pub async fn confirm(me: SignedIn, Posted(typed): Posted) -> Result<HttpResponse, WebError> {
    let next = after(typed.text("next"));
    match me.confirm(&typed).await? {
        None => Ok(see_other(next.as_str())),
        Some(problem) => {
            let view = me
                .confirm_page(
                    "/account/confirm",
                    next.as_str(),
                    Some(&typed),
                    vec![problem],
                )
                .await?;
            page_with(form_status(&view.errors), &view)
        }
    }
}

/// `POST /account/theme`: stores the colour theme in a cookie. A preference, not a credential.
pub async fn theme(_me: SignedIn, Posted(typed): Posted) -> HttpResponse {
    let theme = if typed.text("theme") == "dark" {
        "dark"
    } else {
        "light"
    };
    let cookie = Cookie::build(THEME, theme)
        .path("/")
        .http_only(true)
        .same_site(SameSite::Lax)
        .max_age(Duration::days(365))
        .finish();
    let mut response = see_other("/content");
    // Cannot fail: the cookie consists of fixed ASCII words.
    drop(response.add_cookie(&cookie));
    response
}

struct KeyRow {
    number: i64,
    name: String,
    role: &'static str,
    made: Moment,
    used: Option<Moment>,
}

#[derive(Template)]
#[template(path = "pages/keys.html")]
struct KeysPage {
    chrome: Chrome,
    errors: Vec<FieldError>,
    rows: Vec<KeyRow>,
    fields: Vec<Field>,
}

async fn draw_keys(
    me: &SignedIn,
    typed: Option<&FormValues>,
    errors: Vec<FieldError>,
) -> Result<HttpResponse, WebError> {
    let now = me.service().core.now();
    let roles = Role::ALL
        .into_iter()
        .filter(|role| *role <= me.actor.role)
        .rev();
    let mut fields = vec![
        Field::text("name", "Name").hint("What the key is for, so that you recognise it later."),
        Field::new(FieldKind::Select, "user_role", "Role").options(
            roles
                .map(|role| Choice::new(role.as_str(), role.label(), ""))
                .collect(),
        ),
    ];
    refill(&mut fields, typed, &errors);
    let rows = me
        .service()
        .api_keys
        .own_keys(me.actor.person.id)
        .await?
        .into_iter()
        .map(|key| KeyRow {
            number: key.number,
            name: key.name,
            role: key.role.label(),
            made: Moment::new(key.created_at, now),
            used: key.active_at.map(|at| Moment::new(at, now)),
        })
        .collect();
    let view = KeysPage {
        chrome: me.visitor.chrome("", "API keys"),
        rows,
        fields,
        errors,
    };
    page_with(form_status(&view.errors), &view)
}

/// `GET /account/keys`.
pub async fn keys(me: SignedIn) -> Result<HttpResponse, WebError> {
    draw_keys(&me, None, Vec::new()).await
}

/// `POST /account/keys`: creates a key and redirects to the page that shows it once.
pub async fn create_key(
    me: SignedIn,
    Confirmed(typed): Confirmed,
) -> Result<HttpResponse, WebError> {
    let role = Role::parse(typed.text("user_role"));
    match me
        .service()
        .api_keys
        .create_key(&me.actor, typed.text("name"), role, None)
        .await
    {
        Ok((key, secret)) => {
            let shown = SecretToShow {
                title: format!("API key {}", key.name),
                intro: "Copy the key now and keep it where the program finds it.".into(),
                label: "API key".into(),
                secret,
                environment: String::new(),
                done: "/account/keys".into(),
            };
            Ok(see_other(
                &shown_once::store(me.service(), me.actor.person.id, shown).await?,
            ))
        }
        Err(error) => draw_keys(&me, Some(&typed), problems_of(error)?).await,
    }
}

/// `POST /account/keys/{number}/delete`.
pub async fn delete_key(
    me: SignedIn,
    path: web::Path<i64>,
    _: Posted,
) -> Result<HttpResponse, WebError> {
    me.service().api_keys.delete_key(&me.actor, *path).await?;
    Ok(me.done(
        "/account/keys",
        "Deleted the key. Programs that use it are refused from now on.",
    ))
}

#[derive(Template)]
#[template(path = "pages/secret.html")]
struct SecretPage {
    chrome: Chrome,
    intro: String,
    label: String,
    secret: Option<String>,
    environment: String,
    done: String,
}

/// `GET /account/shown/{name}`: shows a secret once; 410 afterwards.
pub async fn shown(me: SignedIn, path: web::Path<String>) -> Result<HttpResponse, WebError> {
    let view = match shown_once::take(me.service(), me.actor.person.id, &path).await? {
        Some(shown) => SecretPage {
            chrome: me.visitor.chrome("", &shown.title),
            intro: shown.intro.clone(),
            label: shown.label.clone(),
            secret: Some(shown.secret.expose_secret().to_owned()),
            environment: shown
                .environment
                .replace("{key}", shown.secret.expose_secret()),
            done: shown.done.clone(),
        },
        None => SecretPage {
            chrome: me.visitor.chrome("", "This key is no longer visible"),
            intro: String::new(),
            label: String::new(),
            secret: None,
            environment: String::new(),
            done: "/account/keys".into(),
        },
    };
    if view.secret.is_none() {
        return page_with(StatusCode::GONE, &view);
    }
    page(&view)
}
