//! `/account`: one's own password and browser sessions.

use crate::{
    domain::{Id, form::FieldError, person::Person},
    http::{errors::WebError, redirect::see_other},
    web::{
        confirmation::Confirmed,
        forms::{Field, FieldKind, FormValues, refill},
        pages::{form_status, id, page_with, problems_of},
        view::{Chrome, Moment},
        visitor::{Posted, SignedIn},
    },
};
use actix_web::HttpResponse;
use askama::Template;

/// One browser session, as a page lists it.
pub struct SessionRow {
    /// Id of the session, to end it.
    pub guid: String,
    /// Browser and system, and the IP address, at sign-in.
    pub client: String,
    pub address: String,
    /// Whether this request belongs to it.
    pub current: bool,
    pub since: Moment,
    pub seen: Moment,
}

/// The browser sessions of a person.
pub async fn session_rows(me: &SignedIn, person: Id<Person>) -> Result<Vec<SessionRow>, WebError> {
    let now = me.now();
    let sessions = me.service().sessions.sessions_of(&me.actor, person).await?;
    Ok(sessions
        .into_iter()
        .map(|session| SessionRow {
            guid: session.id.to_string(),
            current: me.actor.session == Some(session.id),
            client: session
                .client
                .unwrap_or_else(|| "an unknown browser".to_owned()),
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
#[template(path = "pages/account/overview.html")]
struct AccountPage {
    chrome: Chrome,
    errors: Vec<FieldError>,
    who: String,
    fields: Vec<Field>,
    /// Name of the organisation's sign-in, if this account is not linked to it yet.
    organisation: Option<String>,
    has_password: bool,
    zone: Vec<Field>,
    mail_is_off: bool,
    sessions: Vec<SessionRow>,
}

async fn draw(
    me: &SignedIn,
    typed: Option<&FormValues>,
    errors: Vec<FieldError>,
) -> Result<HttpResponse, WebError> {
    let mut fields = vec![
        Field::new(FieldKind::Secret, "old_password", "Current password")
            .autocomplete("current-password"),
        Field::new(FieldKind::Secret, "new_password", "New password")
            .hint("At least 8 characters.")
            .autocomplete("new-password"),
    ];
    refill(&mut fields, None, &errors);
    let person = &me.actor.person;
    let mut zone = vec![
        Field::text("time_zone", "Time zone")
            .hint("Such as Europe/Berlin. Empty: times are told in UTC.")
            .value(person.time_zone.clone().unwrap_or_default()),
    ];
    refill(&mut zone, typed, &errors);
    let sessions = session_rows(me, person.id).await?;
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
        zone,
        mail_is_off: person.mail_off,
        sessions,
        errors,
    };
    page_with(form_status(&view.errors), &view)
}

/// `GET /account`.
pub async fn account(me: SignedIn) -> Result<HttpResponse, WebError> {
    draw(&me, None, Vec::new()).await
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
        Err(error) => draw(&me, None, problems_of(error)?).await,
    }
}

/// `POST /account/mail`: whether this person gets mail.
pub async fn set_mail(me: SignedIn, Confirmed(typed): Confirmed) -> Result<HttpResponse, WebError> {
    let off = typed.text("mail") == "off";
    me.service().notices.set_mail_off(&me.actor, off).await?;
    Ok(me.done(
        "/account",
        if off {
            "You get no mail any more."
        } else {
            "You get mail again."
        },
    ))
}

/// `POST /account/time-zone`: the zone in which pages tell times to this person.
pub async fn set_time_zone(me: SignedIn, Posted(typed): Posted) -> Result<HttpResponse, WebError> {
    let zone = typed.non_empty("time_zone");
    match me.service().people.set_time_zone(&me.actor, zone).await {
        Ok(()) => Ok(me.done(
            "/account",
            match zone {
                Some(zone) => format!("Times are told in {zone} now."),
                None => "Times are told in UTC now.".to_owned(),
            },
        )),
        Err(error) => draw(&me, Some(&typed), problems_of(error)?).await,
    }
}

/// `POST /account/notice/dismiss`: the person has read what others changed about their account.
pub async fn dismiss_notice(me: SignedIn, Posted(_): Posted) -> Result<HttpResponse, WebError> {
    me.service().people.dismiss_notice(&me.actor).await?;
    Ok(see_other("/account"))
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
