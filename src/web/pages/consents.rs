//! A viewer's consents and connections: `/consents` (list), `/consents/new` (the consent page),
//! `/consents/account` (decide about an unexpected account), revoking, disconnecting, and Connect's
//! login address `/__oauth__/integrations/{guid}/login`.
//!
//! A consent is always given by a POST from a page that names content item, integration and
//! account; no GET starts an authorization.

use crate::{
    domain::{
        Id, access, addresses,
        connection::{Cause, Connection, State},
        content::Content,
        integration::Integration,
        return_path::ReturnPath,
        revocation::{ProviderNotice, Revocation},
    },
    http::{errors::WebError, redirect::see_other},
    providers,
    service::{
        Error,
        grants::{attempts::Question, consents::Overview},
    },
    web::{
        error_pages::allow_forms_to,
        pages::{ConfirmPage, Group, callback, id, page},
        view::{Chrome, Moment, NavLink, Status, count_noun, monogram},
        visitor::{Posted, SignedIn},
    },
};
use actix_web::{HttpResponse, web};
use askama::Template;
use serde::Deserialize;

struct Item {
    title: String,
    owner: String,
    allowed: Moment,
    used: Option<Moment>,
    uses: String,
    revoke: String,
}

struct Row {
    name: String,
    monogram: &'static str,
    about: String,
    state: Status,
    items: Vec<Item>,
    may: String,
    scopes: String,
    reconnect: Option<String>,
    reconnect_label: &'static str,
    disconnect: String,
}

#[derive(Template)]
#[template(path = "pages/consents.html")]
struct ListPage {
    chrome: Chrome,
    rows: Vec<Row>,
    ended: Vec<EndedConnection>,
}

/// A connection that ended recently, and whether its provider was told.
struct EndedConnection {
    name: String,
    at: Moment,
    told: String,
}

/// How to describe an ended connection, and the state of its revocation at the provider.
fn ended_connection(ended: &Revocation, now: crate::domain::Timestamp) -> EndedConnection {
    let provider = &ended.provider;
    let told = match (ended.notice, ended.told_at) {
        (ProviderNotice::Told, Some(at)) => format!("{provider} was told {}.", at.relative(now)),
        (ProviderNotice::Told, None) => format!("{provider} had nothing to end."),
        (ProviderNotice::Waiting, _) if ended.tries > 0 => {
            format!(
                "{provider} could not be told yet; it is tried again {}.",
                ended.next_at.max(now).relative(now)
            )
        }
        (ProviderNotice::Waiting, _) => format!("{provider} is being told."),
        (ProviderNotice::NotOffered, _) => format!(
            "{provider} keeps its own list of what you agreed to, and offers no way to be told."
        ),
        (ProviderNotice::GivenUp, _) => format!(
            "{provider} could not be told. Its own pages may still list this portal: end it there."
        ),
    };
    let account = ended
        .account
        .as_deref()
        .map(|label| format!(" as {label}"))
        .unwrap_or_default();
    EndedConnection {
        name: format!("{}{account}", ended.integration_name),
        at: Moment::new(ended.ended_at, now),
        told,
    }
}

/// Why a connection needs its viewer, as part of a sentence.
pub fn cause_words(cause: Cause, provider: &str) -> String {
    match cause {
        Cause::Expired => format!("{provider} ended the connection"),
        Cause::Policy => {
            format!("{provider} asks you to sign in again: your organisation's rules want it")
        }
        Cause::RotationLost => "a new key got lost on its way; sign in once more".into(),
        Cause::RevokedByViewer => "you took it back".into(),
        Cause::RevokedByAdministrator => "an administrator ended the connection".into(),
        Cause::AccountChanged => format!("{provider} answered for another account"),
        Cause::Unused => "nothing used it for a long time, so this portal let it go".into(),
    }
}

/// One connection with the content items that may use it.
fn row(overview: &Overview, now: crate::domain::Timestamp) -> Row {
    let (connection, integration) = (&overview.connection, &overview.integration);
    let names = providers::names(integration);
    let account = connection
        .account
        .label
        .as_deref()
        .map(|label| format!("as {label} · "))
        .unwrap_or_default();
    let (state, about, reconnect) = match connection.state {
        State::Active => {
            let connected = connection.connected_at.relative(now);
            let again = match connection.lapses_at {
                _ if !connection.has_refresh_token => {
                    let end = connection
                        .access_expires_at
                        .map(crate::domain::Timestamp::absolute)
                        .unwrap_or_default();
                    format!(
                        " · asks you again at {end}, since {} gave no lasting permission",
                        names.provider
                    )
                }
                // A fixed time, if the provider ends every sign-in after a maximum age, however
                // often it is used.
                Some(at) if providers::max_sign_in_lifetime(integration).is_some() => {
                    format!(" · needs you again by {}", at.absolute())
                }
                Some(at) => format!(
                    " · needs you again by {}, if nothing uses it until then",
                    at.date()
                ),
                None => String::new(),
            };
            (
                Status::positive("Connected"),
                format!("{account}connected {connected}{again}"),
                None,
            )
        }
        State::Unconfirmed => (
            Status::warning("Needs you"),
            format!("{account}another account than expected: keep it, or connect again"),
            Some(format!("/consents/account?connection={}", connection.id)),
        ),
        State::NeedsLogin(cause) => (
            Status::warning("Needs you again"),
            format!(
                "{account}{} on {}",
                cause_words(cause, &names.provider),
                connection.state_at.date()
            ),
            Some(addresses::reconnect(integration.id)),
        ),
    };
    let mut may: Vec<String> = providers::capabilities(integration)
        .iter()
        .map(|line| line.to_lowercase())
        .collect();
    if connection.has_refresh_token {
        may.push("stay connected while you are away".into());
    }
    Row {
        name: integration.display_name().to_owned(),
        monogram: names.monogram,
        about,
        state,
        items: overview
            .consents
            .iter()
            .map(|granted| Item {
                title: granted.content.display_title().to_owned(),
                owner: granted.owner.display_name(),
                allowed: Moment::new(granted.consent.created_at, now),
                used: granted.consent.last_used_at.map(|at| Moment::new(at, now)),
                uses: count_noun(granted.consent.uses, "time", "times"),
                revoke: addresses::revoke(granted.consent.id),
            })
            .collect(),
        may: format!("May: {}", may.join(" · ")),
        scopes: connection.scopes.clone(),
        reconnect_label: if connection.state == State::Unconfirmed {
            "Decide"
        } else {
            "Reconnect"
        },
        reconnect,
        disconnect: addresses::disconnect(connection.id),
    }
}

/// `GET /consents`.
pub async fn list(me: SignedIn) -> Result<HttpResponse, WebError> {
    let now = me.service().core.now();
    let rows = me
        .service()
        .consents
        .consents(&me.actor)
        .await?
        .iter()
        .map(|overview| row(overview, now))
        .collect();
    let ended = me
        .service()
        .revocations
        .recent_revocations(&me.actor)
        .await?
        .iter()
        .map(|ended| ended_connection(ended, now))
        .collect();
    page(&ListPage {
        chrome: me.visitor.chrome("consents", "Consents"),
        rows,
        ended,
    })
}

#[derive(Template)]
#[template(path = "pages/consent.html")]
struct ConsentPage {
    chrome: Chrome,
    content_monogram: String,
    monogram: &'static str,
    why: Option<String>,
    who: String,
    content: String,
    owner: String,
    workspace: String,
    integration: String,
    provider_host: String,
    account: Option<String>,
    capabilities: Vec<String>,
    offline: bool,
    content_guid: String,
    integration_guid: String,
    back: String,
    /// Whether the provider is to ask which account to use.
    other: bool,
    submit: String,
    not_now: String,
    several: bool,
    /// Position of this question among all that the item needs answered, from 1.
    step: usize,
    steps: usize,
    scopes: String,
}

/// The query of `/consents/new`: a content item, or an integration alone to reconnect.
#[derive(Deserialize)]
pub struct ConsentQuery {
    content: Option<String>,
    integration: Option<String>,
    #[serde(rename = "return")]
    back: Option<String>,
    /// Present to choose another account at the provider.
    other: Option<String>,
}

/// `GET /consents/new`. With `content`: the item's next open question, or a redirect back if there
/// is none. With `integration` alone: connect again.
pub async fn consent_page(
    me: SignedIn,
    query: web::Query<ConsentQuery>,
) -> Result<HttpResponse, WebError> {
    let back = query.back.as_deref().and_then(ReturnPath::parse);
    if let Some(content) = query.content.as_deref().filter(|text| !text.is_empty()) {
        let content: Id<Content> = id(content)?;
        let back = back
            .or_else(|| ReturnPath::parse(&addresses::app(content)))
            .unwrap_or_else(ReturnPath::consents);
        return match me
            .service()
            .attempts
            .consent_question_for_content(&me.actor, content)
            .await
        {
            Ok(Some(question)) => draw(&me, &question, &back, query.other.is_some()).await,
            Ok(None) => Ok(see_other(back.as_str())),
            Err(error) => Err(error.into()),
        };
    }
    let integration: Id<Integration> = id(query.integration.as_deref().unwrap_or(""))?;
    if !me
        .service()
        .attempts
        .may_connect(&me.actor, integration)
        .await?
    {
        return Err(Error::NotFound.into());
    }
    let question = me
        .service()
        .attempts
        .question_for_integration(&me.actor, integration)
        .await?;
    draw(
        &me,
        &question,
        &back.unwrap_or_else(ReturnPath::consents),
        query.other.is_some(),
    )
    .await
}

/// The consent page for one question.
async fn draw(
    me: &SignedIn,
    question: &Question,
    back: &ReturnPath,
    other: bool,
) -> Result<HttpResponse, WebError> {
    let integration = &question.integration;
    let names = providers::names(integration);
    let endpoints = providers::endpoints(integration).ok_or(Error::Internal(
        "the configuration of an integration is damaged",
    ))?;
    let host = |text: &str| {
        url::Url::parse(text)
            .ok()
            .and_then(|url| url.host_str().map(str::to_owned))
            .unwrap_or_default()
    };
    let title = match &question.content {
        Some(asking) => format!(
            "Let “{}” use {} as you?",
            asking.content.display_title(),
            names.service
        ),
        None => format!("Connect {} again?", names.service),
    };
    let why = match question.state {
        Some(State::NeedsLogin(cause)) => Some(format!(
            "You are asked again: {}.",
            cause_words(cause, &names.provider)
        )),
        _ => None,
    };
    let person = &me.actor.person;
    let view = ConsentPage {
        chrome: me.visitor.chrome("consents", &title),
        content_monogram: question
            .content
            .as_ref()
            .map(|asking| monogram(asking.content.display_title()))
            .unwrap_or_default(),
        monogram: names.monogram,
        why,
        who: if person.email.is_empty() {
            person.username.clone()
        } else {
            person.email.clone()
        },
        content: question
            .content
            .as_ref()
            .map(|asking| asking.content.display_title().to_owned())
            .unwrap_or_default(),
        owner: question
            .content
            .as_ref()
            .map(|asking| asking.owner.clone())
            .unwrap_or_default(),
        workspace: host(integration.setting("workspace_url")),
        integration: integration.display_name().to_owned(),
        provider_host: endpoints
            .authorize
            .host_str()
            .unwrap_or_default()
            .to_owned(),
        account: question.account.clone(),
        capabilities: providers::capabilities(integration),
        offline: providers::asks_for_refresh_token(integration),
        content_guid: question
            .content
            .as_ref()
            .map(|asking| asking.content.id.to_string())
            .unwrap_or_default(),
        integration_guid: integration.id.to_string(),
        back: back.as_str().to_owned(),
        other,
        submit: if question.connected
            || !other
                && me
                    .service()
                    .attempts
                    .sign_in_suffices(&me.actor, integration)
                    .await?
        {
            "Allow".into()
        } else {
            format!("Continue to {}", names.provider)
        },
        not_now: if question.content.is_some() {
            "/content".into()
        } else {
            "/consents".into()
        },
        several: question.step.1 > 1,
        step: question.step.0,
        steps: question.step.1,
        scopes: integration.setting("scopes").to_owned(),
    };
    let mut response = page(&view)?;
    allow_form_to(
        &mut response,
        me,
        &endpoints,
        question.content.as_ref().map(|asking| asking.content.id),
    )
    .await?;
    Ok(response)
}

/// Extends the page's `form-action` by the provider's origin and, where content has its own origin,
/// by the item's: the chain of redirects that starts with this form ends at the item, and Chromium
/// applies `form-action` to all of it.
async fn allow_form_to(
    response: &mut HttpResponse,
    me: &SignedIn,
    endpoints: &providers::Endpoints,
    item: Option<Id<Content>>,
) -> Result<(), WebError> {
    let mut origins = vec![endpoints.authorize.origin().ascii_serialization()];
    if let Some(item) = item.filter(|_| !me.service().core.settings.origins.is_same_origin()) {
        origins.extend(
            me.service()
                .handover
                .location(item)
                .await?
                .map(|place| place.origin),
        );
    }
    allow_forms_to(response, &origins);
    Ok(())
}

/// `POST /consents/new`: the viewer's consent. With a live connection, or a token from the
/// organisation's sign-in for the same application, that is all; otherwise redirects to the
/// identity provider.
pub async fn consent(me: SignedIn, Posted(typed): Posted) -> Result<HttpResponse, WebError> {
    let integration: Id<Integration> = id(typed.text("integration"))?;
    let content: Option<Id<Content>> = typed.non_empty("content").map(id).transpose()?;
    let back = ReturnPath::parse(typed.text("return")).unwrap_or_else(ReturnPath::consents);
    let service = me.service();
    if let Some(content) = content {
        let admission = service
            .admissions
            .admission(content, me.actor.person.id)
            .await?;
        let asked = admission
            .links
            .iter()
            .any(|link| link.integration.id == integration);
        if !access::may_open(admission.standing) || !asked {
            return Err(Error::NotFound.into());
        }
        if service
            .consents
            .allow_content(&me.actor, content, integration)
            .await?
        {
            return Ok(see_other(back.as_str()));
        }
    } else if !service.attempts.may_connect(&me.actor, integration).await? {
        return Err(Error::NotFound.into());
    }
    let other = typed.non_empty("other").is_some();
    if !other
        && let Some(ending) = service
            .attempts
            .connect_by_sign_in(&me.actor, integration, content, back.clone())
            .await?
    {
        return callback::show(&me, ending);
    }
    begin(&me, integration, content, back, other).await
}

/// Starts an attempt and redirects to the provider.
async fn begin(
    me: &SignedIn,
    integration: Id<Integration>,
    content: Option<Id<Content>>,
    back: ReturnPath,
    other: bool,
) -> Result<HttpResponse, WebError> {
    match me
        .service()
        .attempts
        .start_authorization(&me.actor, integration, content, back.clone(), other)
        .await?
    {
        Ok(address) => Ok(see_other(address.as_str())),
        Err(failure) => {
            let integration = me
                .service()
                .attempts
                .question_for_integration(&me.actor, integration)
                .await?
                .integration;
            callback::failed(me, &failure, &back, &integration)
        }
    }
}

/// `GET /__oauth__/integrations/{guid}/login`: the login address that clients of Connect know.
/// Redirects to the portal's own consent page, since a GET must not start an authorization.
pub async fn login(_me: SignedIn, path: web::Path<String>) -> Result<HttpResponse, WebError> {
    Ok(see_other(&addresses::reconnect(id(&path)?)))
}

#[derive(Template)]
#[template(path = "pages/other_account.html")]
struct OtherAccountPage {
    chrome: Chrome,
    here: String,
    there: String,
    provider: String,
    service: String,
    connection: String,
    content: String,
    back: String,
}

/// The query of `/consents/account`.
#[derive(Deserialize)]
pub struct Unconfirmed {
    connection: Option<String>,
    content: Option<String>,
    #[serde(rename = "return")]
    back: Option<String>,
}

/// `GET /consents/account`: the viewer connected with an account of another name; asks whether to
/// keep it.
pub async fn other_account_page(
    me: SignedIn,
    query: web::Query<Unconfirmed>,
) -> Result<HttpResponse, WebError> {
    let connection: Id<Connection> = id(query.connection.as_deref().unwrap_or(""))?;
    let (connection, integration) = me
        .service()
        .consents
        .unconfirmed_connection(&me.actor, connection)
        .await?;
    let names = providers::names(&integration);
    let person = &me.actor.person;
    let back = query
        .back
        .as_deref()
        .and_then(ReturnPath::parse)
        .unwrap_or_else(ReturnPath::consents);
    let endpoints = providers::endpoints(&integration).ok_or(Error::Internal(
        "the configuration of an integration is damaged",
    ))?;
    let mut response = page(&OtherAccountPage {
        chrome: me
            .visitor
            .chrome("consents", "You connected with another account"),
        here: if person.email.is_empty() {
            person.username.clone()
        } else {
            person.email.clone()
        },
        there: connection.account.label.clone().unwrap_or_default(),
        provider: names.provider,
        service: names.service,
        connection: connection.id.to_string(),
        content: query.content.clone().unwrap_or_default(),
        back: back.as_str().to_owned(),
    })?;
    let content: Option<Id<Content>> = query.content.as_deref().and_then(|text| text.parse().ok());
    allow_form_to(&mut response, &me, &endpoints, content).await?;
    Ok(response)
}

/// `POST /consents/account`: `choice` is `keep`, `other` (choose another account) or anything else
/// (drop the tokens).
pub async fn other_account(me: SignedIn, Posted(typed): Posted) -> Result<HttpResponse, WebError> {
    let connection: Id<Connection> = id(typed.text("connection"))?;
    let content: Option<Id<Content>> = typed.non_empty("content").map(id).transpose()?;
    let back = ReturnPath::parse(typed.text("return")).unwrap_or_else(ReturnPath::consents);
    let choice = typed.text("choice");
    let decided = me
        .service()
        .consents
        .confirm_account(&me.actor, connection, choice == "keep", content)
        .await?;
    match choice {
        "keep" => Ok(see_other(back.as_str())),
        "other" => begin(&me, decided.integration, content, back, true).await,
        _ => Ok(me.done("/content", "Nothing was kept of that sign-in.")),
    }
}

/// `GET /consents/{guid}/revoke`.
pub async fn revoke_page(me: SignedIn, path: web::Path<String>) -> Result<HttpResponse, WebError> {
    let (granted, integration) = me.service().consents.consent(&me.actor, id(&path)?).await?;
    let (title, service) = (
        granted.content.display_title(),
        providers::names(&integration).service,
    );
    page(&ConfirmPage {
        chrome: me.visitor.chrome("consents", &format!("Revoke {title}?")),
        errors: Vec::new(),
        groups: vec![
            Group::new(
                "What stops",
                &[&format!(
                    "“{title}” can no longer use {service} as you. From now on it gets no new token."
                )],
                Vec::new(),
            ),
            Group::new(
                "What stays",
                &[
                    "What it has already read stays read. A token that it holds already works until that token ends, for about an hour at most.",
                    &format!(
                        "You stay connected to {service} for your other content. The next visit to “{title}” asks you again."
                    ),
                ],
                Vec::new(),
            ),
        ],
        link: None,
        action: addresses::revoke(granted.consent.id),
        fields: Vec::new(),
        submit: format!("Revoke {title}"),
        cancel: "/consents".into(),
    })
}

/// `POST /consents/{guid}/revoke`: ends one consent; the connection stays.
pub async fn revoke(
    me: SignedIn,
    path: web::Path<String>,
    _: Posted,
) -> Result<HttpResponse, WebError> {
    let (granted, _) = me
        .service()
        .consents
        .revoke_consent(&me.actor, id(&path)?)
        .await?;
    Ok(me.done(
        "/consents",
        format!(
            "Revoked {}. It asks you again on the next visit.",
            granted.content.display_title()
        ),
    ))
}

/// `GET /connections/{guid}/disconnect`.
pub async fn disconnect_page(
    me: SignedIn,
    path: web::Path<String>,
) -> Result<HttpResponse, WebError> {
    let overview = me
        .service()
        .consents
        .connection(&me.actor, id(&path)?)
        .await?;
    let name = overview.integration.display_name();
    let names = providers::names(&overview.integration);
    let titles: Vec<String> = overview
        .consents
        .iter()
        .map(|granted| granted.content.display_title().to_owned())
        .collect();
    let stops = if titles.is_empty() {
        "No content uses it."
    } else {
        "These can no longer act as you:"
    };
    let token = match overview.connection.access_expires_at {
        Some(end) if end > me.service().core.now() => {
            format!("A token already handed out works until {}.", end.absolute())
        }
        _ => "No token that was handed out is still valid.".to_owned(),
    };
    let microsoft = overview.integration.template == "azure";
    let elsewhere = match (
        microsoft,
        overview.integration.setting("revocation_uri").is_empty(),
    ) {
        (true, _) => {
            "Microsoft keeps its own list of what you agreed to; this page cannot change it."
                .to_owned()
        }
        (false, false) => format!("{} is told that the connection ended.", names.provider),
        (false, true) => format!(
            "{} keeps its own list of what you agreed to; this page cannot change it.",
            names.provider
        ),
    };
    page(&ConfirmPage {
        chrome: me
            .visitor
            .chrome("consents", &format!("Disconnect {name}?")),
        errors: Vec::new(),
        groups: vec![
            Group::new("What stops working", &[stops], titles),
            Group::new(
                "What does not happen",
                &[
                    "Data that was already read stays where it is.",
                    &token,
                    &elsewhere,
                ],
                Vec::new(),
            ),
        ],
        link: microsoft.then(|| {
            NavLink::new(
                "https://myapps.microsoft.com",
                "Open Microsoft's list (My Apps)",
            )
        }),
        action: addresses::disconnect(overview.connection.id),
        fields: Vec::new(),
        submit: format!("Disconnect {name}"),
        cancel: "/consents".into(),
    })
}

/// `POST /connections/{guid}/disconnect`: ends a connection and all consents on it.
pub async fn disconnect(
    me: SignedIn,
    path: web::Path<String>,
    _: Posted,
) -> Result<HttpResponse, WebError> {
    let overview = me
        .service()
        .consents
        .connection(&me.actor, id(&path)?)
        .await?;
    let integration = me
        .service()
        .consents
        .disconnect(&me.actor, overview.connection.id)
        .await?;
    Ok(me.done(
        "/consents",
        format!(
            "Disconnected {}. Nothing reconnects by itself.",
            integration.display_name()
        ),
    ))
}
