//! The gate in the wall: how a browser that is signed in at the portal comes to content's own
//! origin.
//!
//! Content's origin leaves a nonce in the browser and asks the portal; the portal, which knows who
//! this is, answers with a code that works once and only where the nonce is; content's origin
//! trades it for a cookie of its own. No app ever sees any of it.

use crate::{
    domain::{Id, content::Content, return_path::ReturnPath, wall::Host},
    service::{Error, Service},
    vault::{api_key::digest, random},
    web::{
        assets,
        problems::WebError,
        sessions::Sessions,
        visitor::{asked_host, see_other},
    },
};
use actix_web::{
    HttpRequest, HttpResponse,
    cookie::{Cookie, SameSite, time::Duration},
    http::{Method, StatusCode},
};

/// What is ours on content's origins, and never an app's.
pub const RESERVED: &str = "/__valetkey__/";

/// Below [`RESERVED`] on a host of content's: what belongs to the host. The rest belongs to the
/// item that stands there.
pub async fn serve(
    request: &HttpRequest,
    own: &str,
    service: &Service,
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

/// On a host of content's, where no item stands.
pub fn nowhere(request: &HttpRequest, service: &Service) -> Result<HttpResponse, WebError> {
    let path = request.uri().path();
    if path == "/" {
        return Ok(see_other(&service.addresses.absolute("/content")));
    }
    // `/content/{guid}` → `/content/{guid}/`: apps build the addresses of their sockets from the path of the page.
    let item: Option<Id<Content>> = path
        .strip_prefix("/content/")
        .and_then(|guid| guid.parse().ok());
    let place = item.filter(|_| {
        !matches!(
            service.settings.wall.host(asked_host(request.head())),
            Host::Item(_) | Host::Unknown
        )
    });
    match place.and_then(|item| service.settings.wall.place(item, "")) {
        Some(place) => Ok(see_other(&place.address(&query(request)))),
        None => Err(Error::NotFound.into()),
    }
}

fn query(request: &HttpRequest) -> String {
    request
        .uri()
        .query()
        .map(|query| format!("?{query}"))
        .unwrap_or_default()
}

/// A cookie of ours on a host of content's.
pub fn cookie(name: String, value: String, service: &Service) -> Cookie<'static> {
    let secure = service.settings.is_https();
    Cookie::build(name, value)
        .path("/")
        .http_only(true)
        .secure(secure)
        .same_site(SameSite::Lax)
        .finish()
}

/// Asks the portal who this is. Tabs that open together share a nonce.
pub fn ask_portal(
    request: &HttpRequest,
    service: &Service,
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
    let address = service.addresses.enter(item, &digest(&nonce), &path);
    let mut nonce = cookie(name, nonce, service);
    nonce.set_max_age(Duration::minutes(2));
    let mut response = see_other(&address);
    // A cookie of letters and digits always fits into a header.
    drop(response.add_cookie(&nonce));
    response
}

/// Trades the portal's code for a cookie, and goes on to the page that was asked for.
async fn enter(
    request: &HttpRequest,
    service: &Service,
    sessions: &Sessions,
) -> Result<HttpResponse, WebError> {
    let parameter = |name: &str| crate::web::api::parameter(request, name).unwrap_or_default();
    let nonce = |item| {
        sessions
            .cookie(request.head(), &sessions.nonce_cookie(item))
            .map(str::to_owned)
    };
    let taken = service.take_over(&parameter("code"), nonce).await?;
    let place = match &taken {
        Some((item, _)) => match service.settings.wall.host(asked_host(request.head())) {
            Host::Item(slug) if service.by_slug(slug).await? == Some(*item) => {
                service.settings.wall.place(*item, slug)
            }
            Host::Content => service.settings.wall.place(*item, ""),
            _ => None,
        },
        None => None,
    };
    let (Some((item, key)), Some(place)) = (taken, place) else {
        return Err(WebError::Page(
            StatusCode::BAD_REQUEST,
            "This way in is used up".into(),
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
