//! The small bar that an open page of an app gets, where its publisher switched it on: when the app
//! needs its viewer, it offers to connect again in a window of its own, and goes away by itself.
//! Everything of it stands on content's own origin, below the reserved path, so the app's page may
//! load it like a file of its own.

use super::{Proxy, Refusal, admit, entrance::RESERVED, explain};
use crate::{
    domain::{addresses, return_path::ReturnPath, wall::Place},
    service::{Error, Service},
    web::{assets, problems::WebError},
};
use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, HeaderName},
};
use bytes::Bytes;
use serde_json::json;

/// Fields of a request for a page that gets the bar which the app does not hear of: it has to come
/// anew, and as text.
pub const UNWANTED: [HeaderName; 3] = [
    header::ACCEPT_ENCODING,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
];
pub const VALIDATORS: [HeaderName; 2] = [header::ETAG, header::LAST_MODIFIED];

fn own(place: &Place, name: &str) -> String {
    format!("{}{}{name}", place.base, &RESERVED[1..])
}

/// What stands behind a page of the app. Behind its end: every parser of HTML takes it for the last
/// thing in the body.
pub fn tag(place: &Place) -> Bytes {
    format!(
        "\n<script src=\"{}\" defer></script>\n",
        own(place, "bar.js")
    )
    .into()
}

/// What is ours below an item's place (`rest` of its path, `own` of ours), where the bar is
/// switched on; no app is ever asked for it.
pub async fn serve(
    request: &HttpRequest,
    proxy: &Proxy,
    place: &Place,
    rest: &str,
    own: &str,
) -> Result<HttpResponse, WebError> {
    if !proxy.service.has_bar(place.content).await? {
        return Err(Error::NotFound.into());
    }
    match own {
        "bar.js" => Ok(script()),
        // An open tab asks this for ever: it keeps no session from idling out.
        "standing" => {
            let admitted = admit(request.head(), proxy, place).await?;
            if let Ok(pass) = &admitted
                && let Some(admission) = pass.viewer()
            {
                // Their page is open, wherever their browser was last.
                proxy
                    .service
                    .see(admission, pass.stays_at.unwrap_or_default());
            }
            Ok(standing(
                request,
                &proxy.service,
                place,
                admitted.as_ref().err(),
            ))
        }
        "connected" => match admit(request.head(), proxy, place).await? {
            Ok(_) => Ok(connected(place)),
            Err(refusal) => explain(request, proxy, place, rest, refusal).await,
        },
        _ => Err(Error::NotFound.into()),
    }
}

fn script() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/javascript; charset=utf-8"))
        .insert_header((header::CACHE_CONTROL, "public, max-age=3600"))
        .body(assets::BAR)
}

/// Whether the app may go on acting for its viewer; if not, where the viewer mends it. Always 200:
/// a refusal is an answer here.
fn standing(
    request: &HttpRequest,
    service: &Service,
    place: &Place,
    refusal: Option<&Refusal>,
) -> HttpResponse {
    // Pages of other origins learn nothing; items that share a host share an origin.
    let site = request
        .headers()
        .get("sec-fetch-site")
        .and_then(|value| value.to_str().ok());
    if site.is_some_and(|site| site != "same-origin" && site != "none") {
        return HttpResponse::Forbidden().finish();
    }
    let id = place.content;
    let back = ReturnPath::parse(&format!(
        "{}{}connected",
        addresses::app(id),
        &RESERVED[1..]
    ));
    let (word, page) = match (refusal, &back) {
        (None, _) => ("good", None),
        (Some(Refusal::SignIn), _) => ("signed_out", Some(addresses::login(back.as_ref()))),
        (Some(Refusal::NeedsViewer(_)), Some(back)) => {
            ("needs_viewer", Some(addresses::consent(id, back)))
        }
        (Some(Refusal::NeedsViewer(_) | Refusal::MayNot(_)), _) => ("may_not", None),
    };
    HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(json!({"standing": word, "login_url": page.map(|page| service.addresses.absolute(&page))}))
}

/// Where the window of the bar ends: tells the bar, and closes itself.
fn connected(place: &Place) -> HttpResponse {
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Connected</title><meta name=\"viewport\" content=\"width=device-width\">\
         <meta name=\"color-scheme\" content=\"light dark\"><h1>Connected</h1><p>The app goes on by itself. You can close this window.</p>\
         <script src=\"{}\"></script></html>",
        own(place, "bar.js"),
    );
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((
            HeaderName::from_static("content-security-policy"),
            "default-src 'none'; script-src 'self'; frame-ancestors 'none'; base-uri 'none'",
        ))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(html)
}
