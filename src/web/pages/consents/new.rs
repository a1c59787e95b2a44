//! `/consents/new`: the consent page, and the start of an authorization.

use crate::{
    domain::{
        Id, access,
        activity::Activity,
        addresses,
        connection::State,
        consent::sorted_scopes,
        content::Content,
        integration::{AuthType, Integration},
        return_path::ReturnPath,
    },
    http::{errors::WebError, redirect::see_other},
    providers,
    service::{
        Error,
        grants::{
            attempts::{AuthorizationStart, Question},
            consents::Allowed,
        },
    },
    web::{
        error_pages::allow_forms_to,
        pages::{callback, consents::list::cause_words, id, page},
        view::{Chrome, monogram},
        visitor::{Posted, SignedIn},
    },
};
use actix_web::{HttpResponse, http::StatusCode, web};
use askama::Template;
use serde::Deserialize;

#[derive(Template)]
#[template(path = "pages/consents/new.html")]
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
    /// The scopes in the form that a consent stores.
    shown_scopes: String,
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

/// Refuses while an administrator has paused the integration.
fn refuse_paused(integration: &Integration) -> Result<(), WebError> {
    if integration.paused_at.is_none() {
        return Ok(());
    }
    Err(WebError::Page(
        StatusCode::SERVICE_UNAVAILABLE,
        format!("{} is paused", providers::names(integration).service),
        format!(
            "An administrator has paused the use of {} here for a while. Nobody can connect meanwhile, and what you allowed before is kept. Try again later, or ask the administrator.",
            integration.display_name()
        ),
    ))
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
    refuse_paused(integration)?;
    me.service().activity.count(
        Activity::ConsentShown,
        question.content.as_ref().map(|asking| asking.content.id),
        Some(integration.id),
    );
    let endpoints = providers::endpoints(integration);
    if endpoints.is_none() && integration.auth_type == AuthType::Viewer {
        return Err(Error::Internal("the configuration of an integration is damaged").into());
    }
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
        _ if question.asks_for_more => Some(format!(
            "You allowed this content before. Now it asks for more at {}: see Scopes under the details below.",
            names.service
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
            .as_ref()
            .and_then(|found| found.authorize.host_str())
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
        shown_scopes: sorted_scopes(integration),
    };
    let mut response = page(&view)?;
    allow_form_to(
        &mut response,
        me,
        endpoints.as_ref(),
        question.content.as_ref().map(|asking| asking.content.id),
    )
    .await?;
    Ok(response)
}

/// Extends the page's `form-action` by the provider's origin and, where content has its own origin,
/// by the item's: the chain of redirects that starts with this form ends at the item, and Chromium
/// applies `form-action` to all of it.
pub(super) async fn allow_form_to(
    response: &mut HttpResponse,
    me: &SignedIn,
    endpoints: Option<&providers::Endpoints>,
    item: Option<Id<Content>>,
) -> Result<(), WebError> {
    let provider = endpoints.map(|found| found.authorize.origin().ascii_serialization());
    let mut origins = Vec::from_iter(provider);
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
            .integrations
            .iter()
            .find(|link| link.integration.id == integration)
            .filter(|_| access::may_open(admission.standing))
            .ok_or(Error::NotFound)?;
        refuse_paused(&asked.integration)?;
        let count = |kind| {
            service
                .activity
                .count(kind, Some(content), Some(integration))
        };
        count(Activity::ConsentAgreed);
        match service
            .consents
            .allow_content(&me.actor, content, integration, typed.text("scopes"))
            .await?
        {
            Allowed::Given => {
                // Without a sign-in at the provider.
                count(Activity::ConsentReturned);
                count(Activity::Connected);
                return Ok(see_other(back.as_str()));
            }
            Allowed::AskAgain => return Ok(see_other(&addresses::consent(content, &back))),
            Allowed::NeedsSignIn => {}
        }
    } else if !service.attempts.may_connect(&me.actor, integration).await? {
        return Err(Error::NotFound.into());
    } else {
        let question = service
            .attempts
            .question_for_integration(&me.actor, integration)
            .await?;
        refuse_paused(&question.integration)?;
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
pub(super) async fn begin(
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
        AuthorizationStart::Redirect(address) => Ok(see_other(address.as_str())),
        AuthorizationStart::Failed(failure) => {
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
