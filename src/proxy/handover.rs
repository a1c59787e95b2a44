//! The handover of a sign-in from the portal's origin to the content's origin.
//!
//! The content's origin sets a nonce cookie and redirects the browser to `/enter` on the portal.
//! The portal, which knows the browser session, redirects back with a code that is bound to the
//! nonce's hash and works once, within a minute (`service/grants/handover.rs`). The content's origin
//! exchanges the code for a cookie of its own. No app sees any of these requests or cookies.
//! Whether the viewer may open the item is decided at each request by
//! [`crate::service::grants::admission`].

use crate::{
    domain::{Id, content::Content, origins::HostKind, return_path::ReturnPath},
    http::{
        assets, errors::WebError, host::requested_host, redirect::see_other, sessions::Sessions,
    },
    service::{Error, Services},
    vault::{api_key::digest, random},
};
use actix_web::{
    HttpRequest, HttpResponse,
    cookie::{Cookie, SameSite, time::Duration},
    http::{Method, StatusCode},
};

/// Path prefix that is reserved for the portal on the content's origins; apps never get such
/// requests.
pub const RESERVED_PREFIX: &str = "/__valetkey__/";

/// Serves the paths below [`RESERVED_PREFIX`] that belong to a content host as a whole: static
/// files and the handover. `None` for other paths, which belong to the item at this host (see
/// `bar.rs`).
pub async fn serve(
    request: &HttpRequest,
    own: &str,
    service: &Services,
    sessions: &Sessions,
) -> Result<Option<HttpResponse>, WebError> {
    if let Some(name) = own.strip_prefix("static/") {
        return Ok(Some(assets::answer(name)));
    }
    if own == "enter" && request.method() == Method::GET {
        return enter(request, service, sessions).await.map(Some);
    }
    Ok(None)
}

/// The response on a content host for a path without an item: `/` redirects to the portal, a path
/// without its slash to the item, everything else is 404.
pub fn no_item(request: &HttpRequest, service: &Services) -> Result<HttpResponse, WebError> {
    let path = request.uri().path();
    if path == "/" {
        return Ok(see_other(&service.core.addresses.absolute("/content")));
    }
    // `/content/{guid}` → `/content/{guid}/`: apps (Shiny) build their WebSocket URL from the path
    // of the page.
    let item: Option<Id<Content>> = path
        .strip_prefix("/content/")
        .and_then(|guid| guid.parse().ok());
    let place = item.filter(|_| {
        !matches!(
            service
                .core
                .settings
                .origins
                .host(requested_host(request.head())),
            HostKind::Item(_) | HostKind::Unknown
        )
    });
    match place.and_then(|item| service.core.settings.origins.location(item, "")) {
        Some(place) => Ok(see_other(&place.address(&query(request)))),
        None => Err(Error::NotFound.into()),
    }
}

/// The query with its `?`; empty without one.
fn query(request: &HttpRequest) -> String {
    request
        .uri()
        .query()
        .map(|query| format!("?{query}"))
        .unwrap_or_default()
}

/// A cookie of the portal's on a content host: `Path=/`, `HttpOnly`, `SameSite=Lax`, `Secure` on
/// https, no `Max-Age`.
pub fn cookie(name: String, value: String, service: &Services) -> Cookie<'static> {
    let secure = service.core.settings.is_https();
    Cookie::build(name, value)
        .path("/")
        .http_only(true)
        .secure(secure)
        .same_site(SameSite::Lax)
        .finish()
}

/// Redirects to the portal's `/enter`, with a nonce cookie that is valid for two minutes. A nonce
/// that the browser already has is reused, so that tabs opened together do not invalidate one
/// another's.
pub fn redirect_to_portal(
    request: &HttpRequest,
    service: &Services,
    sessions: &Sessions,
    item: Id<Content>,
    rest: &str,
) -> HttpResponse {
    let name = sessions.nonce_cookie(item);
    let nonce = sessions
        .cookie(request.head(), &name)
        .filter(|nonce| nonce.len() == 43)
        .map_or_else(random::token, str::to_owned);
    let path = if request.method() == Method::GET {
        format!("/{rest}{}", query(request))
    } else {
        "/".into()
    };
    let address = service.core.addresses.enter(item, &digest(&nonce), &path);
    let mut nonce = cookie(name, nonce, service);
    nonce.set_max_age(Duration::minutes(2));
    let mut response = see_other(&address);
    // Cannot fail: the cookie has only letters and digits.
    drop(response.add_cookie(&nonce));
    response
}

/// Exchanges the portal's code for the content cookie, and redirects to the page that the browser
/// asked for. An invalid code, or one for an item that is not at this host, is a 400 page.
async fn enter(
    request: &HttpRequest,
    service: &Services,
    sessions: &Sessions,
) -> Result<HttpResponse, WebError> {
    let parameter = |name: &str| crate::http::query::parameter(request, name).unwrap_or_default();
    let nonce = |item| {
        sessions
            .cookie(request.head(), &sessions.nonce_cookie(item))
            .map(str::to_owned)
    };
    let taken = service
        .handover
        .redeem_handover_code(&parameter("code"), nonce)
        .await?;
    let place = match &taken {
        Some((item, _)) => match service
            .core
            .settings
            .origins
            .host(requested_host(request.head()))
        {
            HostKind::Item(slug) if service.handover.item_by_slug(slug).await? == Some(*item) => {
                service.core.settings.origins.location(*item, slug)
            }
            HostKind::Content => service.core.settings.origins.location(*item, ""),
            _ => None,
        },
        None => None,
    };
    let (Some((item, key)), Some(place)) = (taken, place) else {
        return Err(WebError::Page(
            StatusCode::BAD_REQUEST,
            "This sign-in link is used up".into(),
            "It works once, for a minute, in the browser that asked for it. Open the content again from the portal; if this page comes back, let your browser keep cookies for this site.".into(),
        ));
    };
    let path = ReturnPath::parse(&parameter("path"));
    let rest = path
        .as_ref()
        .map_or("", |path| path.as_str().trim_start_matches('/'));
    let mut response = see_other(&place.address(rest));
    drop(response.add_cookie(&cookie(sessions.content_cookie(item), key, service)));
    Ok(response)
}
