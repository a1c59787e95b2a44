//! The portal's side of the handover to a content origin. `/content/{guid}/…` redirects to where
//! the item runs; `/enter/{guid}` tells a content origin who the viewer is, with a one-time code
//! that is bound to a nonce in the viewer's browser. The other side is `proxy/handover.rs`.
//!
//! The chain of redirects is: content host → `/enter` (nonce hash) → content host (code) → the
//! item.

use crate::{
    domain::{
        Id, addresses,
        content::{AccessType, Content},
        origins::ContentOrigin,
        return_path::ReturnPath,
    },
    http::{
        errors::WebError,
        navigation::return_path_of,
        presented_key::{PresentedKey, presented_key},
        redirect::see_other,
    },
    service::{Error, grants::admission::IntegrationAccess},
    web::{pages::id, visitor::Visitor},
};
use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, StatusCode},
    web,
};
use serde::Deserialize;

/// `/content/{guid}/…` on the portal: the stable address of an item, which people bookmark and
/// share. It redirects to where the item runs. Other methods than GET and HEAD get 421: the body
/// would be lost.
pub async fn redirect_to_content(
    visitor: Visitor,
    request: HttpRequest,
    path: web::Path<String>,
) -> Result<HttpResponse, WebError> {
    let (guid, rest) = path.split_once('/').unwrap_or((&path, ""));
    let item: Id<Content> = id(guid)?;
    // A program stays here with its key: see `http::host::is_content_by_key`.
    if matches!(presented_key(request.headers()), PresentedKey::Key(_)) && !path.contains('/') {
        return Ok(see_other(&addresses::app(item)));
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(WebError::Page(
            StatusCode::MISDIRECTED_REQUEST,
            "Content runs at another address".into(),
            "Open this page in a browser once: it leads to where the app stands.".into(),
        ));
    }
    let origins = &visitor.service.core.settings.origins;
    if origins.content == ContentOrigin::Unset {
        return Err(WebError::Page(
            StatusCode::SERVICE_UNAVAILABLE,
            "Content has no address yet".into(),
            "The operator of this portal says where content runs, with the setting content_url: a host of its own, so that apps cannot reach the portal's pages.".into(),
        ));
    }
    // The rest of the path as sent, still percent-encoded: decoding and encoding could change it.
    let sent = request
        .uri()
        .path_and_query()
        .map_or("", |path| path.as_str());
    let rest = if rest.is_empty() {
        sent.find('?').and_then(|at| sent.get(at..)).unwrap_or("")
    } else {
        sent.get(addresses::app(item).len()..).unwrap_or("")
    };
    if let ContentOrigin::Shared { .. } = origins.content {
        return origins
            .location(item, "")
            .map(|place| see_other(&place.address(rest)))
            .ok_or_else(|| Error::NotFound.into());
    }
    match &visitor.actor {
        Some(actor) => {
            if !visitor.service.handover.may_enter(actor, item).await? {
                return Err(WebError::MayNotOpen(item));
            }
        }
        None if visitor
            .service
            .contents
            .public_content(item)
            .await?
            .is_some() => {}
        None => return Err(WebError::SignIn(return_path_of(&request))),
    }
    let place = visitor
        .service
        .handover
        .location(item)
        .await?
        .ok_or(Error::NotFound)?;
    Ok(see_other(&place.address(rest)))
}

/// The query of `/enter/{guid}`.
#[derive(Deserialize)]
pub struct EnterQuery {
    /// SHA-256 of the nonce in the browser's cookie, in hex.
    nonce: Option<String>,
    /// The path on the content origin to return to.
    path: Option<String>,
}

/// `GET /enter/{guid}`: a content origin asks who this browser belongs to. Sign-in, access and
/// consent are settled first; then the browser returns to the content origin with a one-time code.
pub async fn enter(
    visitor: Visitor,
    path: web::Path<String>,
    asked: web::Query<EnterQuery>,
) -> Result<HttpResponse, WebError> {
    let item: Id<Content> = id(&path)?;
    let own = asked.path.as_deref().and_then(ReturnPath::parse);
    let own = own.as_ref().map_or("/", ReturnPath::as_str);
    let back = ReturnPath::parse(&format!("/content/{item}{own}"));
    let Some(actor) = visitor.actor.clone() else {
        return Err(WebError::SignIn(back));
    };
    let nonce = asked
        .nonce
        .as_deref()
        .filter(|hash| hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let (Some(nonce), Some(place)) = (nonce, visitor.service.handover.location(item).await?) else {
        return Err(Error::NotFound.into());
    };
    if !visitor.service.handover.may_enter(&actor, item).await? {
        return Err(WebError::MayNotOpen(item));
    }
    let admission = visitor
        .service
        .admissions
        .admission(item, actor.person.id)
        .await?;
    if admission.content.access != AccessType::All
        && admission
            .integrations
            .iter()
            .any(IntegrationAccess::needs_viewer)
    {
        return Ok(see_other(&addresses::consent(
            item,
            &back.ok_or(Error::Internal("an address that cannot be returned to"))?,
        )));
    }
    let code = visitor
        .service
        .handover
        .issue_handover_code(&actor, item, nonce)
        .await?;
    Ok(see_other(&format!(
        "{}/__valetkey__/enter?code={code}&path={}",
        place.origin,
        addresses::query(own)
    )))
}
