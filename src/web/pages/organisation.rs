//! Sign-in at the organisation's OpenID provider: `/login/organisation` starts it, the callback
//! finishes it. The same flow confirms a signed-in person (re-authentication) and links an identity
//! to their account, after a click on a page that names it. The protocol is in `service::sign_in`
//! and `oauth::sign_in`.

use crate::{
    domain::return_path::ReturnPath,
    http::{errors::WebError, redirect::see_other},
    service::{
        Error,
        people::organisation::{
            PendingSignIn, Purpose, SignInCallback, SignInOutcome, SignInStart,
        },
    },
    web::{
        error_pages::ProblemPage,
        pages::{ConfirmPage, Group, page, page_with},
        view::NavLink,
        visitor::{Posted, SignedIn, Visitor},
    },
};
use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use serde::Deserialize;

/// Session key of the sign-in in progress.
const PENDING: &str = "sign_in";
/// Session key of the identity that the person may link to their account.
const LINKABLE: &str = "linkable";

/// The query of `/login/organisation`.
#[derive(Deserialize)]
pub struct StartQuery {
    next: Option<String>,
    /// Present to re-authenticate a signed-in person.
    again: Option<String>,
    /// Present to link an identity to a signed-in person's account.
    link: Option<String>,
}

/// `GET /login/organisation`: redirects to the organisation's provider.
pub async fn start(
    visitor: Visitor,
    wanted: web::Query<StartQuery>,
    request: HttpRequest,
) -> Result<HttpResponse, WebError> {
    let next = wanted
        .next
        .as_deref()
        .and_then(ReturnPath::parse)
        .map_or_else(|| "/content".to_owned(), |path| path.as_str().to_owned());
    let purpose = match (
        &visitor.actor,
        wanted.again.is_some(),
        wanted.link.is_some(),
    ) {
        (Some(_), true, _) => Purpose::Confirm,
        (Some(_), _, true) => Purpose::Link,
        (Some(_), ..) => return Ok(see_other(&next)),
        (None, ..) => Purpose::SignIn,
    };
    if purpose == Purpose::Link {
        visitor.require_confirmation(&request)?;
    }
    match visitor
        .service
        .organisation
        .begin_sign_in(purpose, &next)
        .await?
    {
        SignInStart::Redirect(pending, address) => {
            visitor
                .session
                .insert(PENDING, pending)
                .map_err(|_| Error::Internal("the browser session cannot be read or written"))?;
            Ok(see_other(address.as_str()))
        }
        SignInStart::Failed(ending) => explain(&visitor, &ending),
    }
}

/// `GET /login/organisation/callback`: the provider's authorization response.
pub async fn callback(visitor: Visitor, request: HttpRequest) -> Result<HttpResponse, WebError> {
    let parameter = |name: &str| {
        let mut found = url::form_urlencoded::parse(request.query_string().as_bytes())
            .filter(|(key, _)| key == name);
        match (found.next(), found.next()) {
            (Some((_, value)), None) => Some(value.into_owned()),
            // A duplicate parameter counts as absent.
            _ => None,
        }
    };
    let pending: Option<PendingSignIn> = visitor.session.get(PENDING).ok().flatten();
    visitor.session.remove(PENDING);
    let next = pending
        .as_ref()
        .map_or_else(|| "/content".to_owned(), |pending| pending.next.clone());
    let answer = SignInCallback {
        state: parameter("state").unwrap_or_default(),
        code: parameter("code"),
        issuer: parameter("iss"),
        error: parameter("error"),
    };
    match visitor
        .service
        .organisation
        .finish_sign_in(visitor.actor.as_ref(), pending, answer, &visitor.origin)
        .await?
    {
        SignInOutcome::SignedIn {
            person,
            refresh_token,
            unchanged,
        } => {
            let session = visitor.sign_in(&person)?;
            if !unchanged.is_empty() {
                visitor.flash(format!(
                    "{} did not say which {} you have, so nothing about that changed here. If it is wrong, tell an administrator.",
                    name(&visitor),
                    unchanged.join(" and ")
                ));
            }
            if let Some(token) = refresh_token {
                visitor
                    .service
                    .sign_in_grants
                    .store_sign_in_grant(session, &token)
                    .await?;
            }
            Ok(see_other(&next))
        }
        SignInOutcome::Confirmed => {
            visitor.note_confirmed()?;
            Ok(see_other(&next))
        }
        SignInOutcome::Linkable(subject, label) => {
            visitor
                .session
                .insert(LINKABLE, subject)
                .map_err(|_| Error::Internal("the browser session cannot be read or written"))?;
            let name = name(&visitor);
            let lines = [
                format!(
                    "From then on whoever signs in at {name} as {label} is signed in here as you."
                ),
                "Your password here stays as it is.".to_owned(),
            ];
            page(&ConfirmPage {
                chrome: visitor.chrome("", &format!("Tie {label} to your account?")),
                errors: Vec::new(),
                groups: vec![Group::new("", &[&lines[0], &lines[1]], Vec::new())],
                link: None,
                action: "/login/organisation/link".into(),
                fields: Vec::new(),
                submit: format!("Tie {label} to this account"),
                cancel: "/account".into(),
            })
        }
        ending => explain(&visitor, &ending),
    }
}

/// `POST /login/organisation/link`: links the identity that the page before has named.
pub async fn link(me: SignedIn, _: Posted) -> Result<HttpResponse, WebError> {
    let subject: Option<String> = me.visitor.session.get(LINKABLE).ok().flatten();
    me.visitor.session.remove(LINKABLE);
    me.service()
        .organisation
        .link_identity(&me.actor, subject.ok_or(Error::NotFound)?)
        .await?;
    Ok(me.done(
        "/account",
        format!(
            "From now on you can sign in with {}, too.",
            name(&me.visitor)
        ),
    ))
}

/// What to call the organisation's sign-in.
fn name(visitor: &Visitor) -> &str {
    visitor
        .service
        .core
        .settings
        .sign_in
        .as_ref()
        .map_or("your organisation", |sign_in| sign_in.name.as_str())
}

/// The page for a sign-in that did not succeed.
fn explain(visitor: &Visitor, ending: &SignInOutcome) -> Result<HttpResponse, WebError> {
    let name = name(visitor);
    let (status, title, line) = match ending {
        SignInOutcome::Declined => (
            StatusCode::OK,
            "You are not signed in",
            format!("{name} did not sign you in, or you stopped it there."),
        ),
        SignInOutcome::Unavailable => (
            StatusCode::SERVICE_UNAVAILABLE,
            "The sign-in does not answer",
            format!(
                "{name} cannot be reached right now, or is not set up right. Try again in a moment; if it stays like this, tell the operator the reference below."
            ),
        ),
        SignInOutcome::NoRole => (
            StatusCode::FORBIDDEN,
            "You have no place here yet",
            format!(
                "{name} knows you, but has not given you access to this portal. Ask your administrator to assign you to it."
            ),
        ),
        SignInOutcome::Locked => (
            StatusCode::FORBIDDEN,
            "Your account here is locked",
            "An administrator of this portal can unlock it.".to_owned(),
        ),
        SignInOutcome::WrongIdentity => (
            StatusCode::FORBIDDEN,
            "That is another account",
            format!(
                "The account at {name} is not the one that you use here, or it was not asked for its password. Nothing was changed."
            ),
        ),
        SignInOutcome::NotAccepted => (
            StatusCode::BAD_REQUEST,
            "This sign-in is not accepted",
            format!(
                "What {name} answered could not be checked. Start again; if it stays like this, tell the operator the reference below."
            ),
        ),
        _ => (
            StatusCode::BAD_REQUEST,
            "This sign-in does not belong to your browser",
            "It was started elsewhere, was used before, or took too long. Start again.".to_owned(),
        ),
    };
    page_with(
        status,
        &ProblemPage {
            chrome: visitor.chrome("", title),
            lines: vec![line],
            copy: None,
            links: vec![if visitor.actor.is_some() {
                NavLink::new("/content", "Go to Content")
            } else {
                NavLink::new("/login", "Sign in")
            }],
            reference: visitor.origin.correlation.clone(),
        },
    )
}
