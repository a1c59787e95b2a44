//! The reconnect bar and the link to the portal: a script (`static/bar.js`) that the proxy appends to
//! an app's HTML pages where the publisher enabled one of them. The script polls the viewer's
//! standing; when the app needs its viewer, it offers to sign in or reconnect in a window of its own,
//! and hides itself afterwards.
//!
//! Everything it loads is served from the content's own origin, below [`RESERVED_PREFIX`], so the
//! app's page can load it like a file of the app. The app is never asked for these paths.

use crate::{
    domain::{addresses, origins::ContentLocation, return_path::ReturnPath},
    http::{assets, errors::WebError, navigation::SEC_FETCH_SITE},
    proxy::{
        gate::{Decision, GateError, admit, refuse},
        handover::RESERVED_PREFIX,
        state::Proxy,
    },
    service::{Error, Services, catalog::content::Additions},
};
use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, HeaderName},
};
use bytes::Bytes;
use serde_json::json;

/// Request headers that are not sent to the app for a page that gets the bar: the response must be
/// complete (not 304) and uncompressed.
pub const DROPPED_REQUEST_HEADERS: [HeaderName; 3] = [
    header::ACCEPT_ENCODING,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
];
/// Response headers that are removed from a page with the bar: they describe the page without it.
pub const VALIDATORS: [HeaderName; 2] = [header::ETAG, header::LAST_MODIFIED];

/// The path of one of the bar's files below an item.
fn bar_path(place: &ContentLocation, name: &str) -> String {
    format!("{}{}{name}", place.base, &RESERVED_PREFIX[1..])
}

/// The script element that is appended to a page, after its `</html>`: HTML parsers treat it as the
/// last element of the body.
pub fn tag(place: &ContentLocation) -> Bytes {
    format!(
        "\n<script src=\"{}\" defer></script>\n",
        bar_path(place, "bar.js")
    )
    .into()
}

/// Serves the bar's own paths below an item. `rest` is the path below the item, `own` the path
/// below [`RESERVED_PREFIX`]. Everything is 404 where the bar is not enabled.
pub async fn serve(
    request: &HttpRequest,
    proxy: &Proxy,
    place: &ContentLocation,
    rest: &str,
    own: &str,
) -> Result<HttpResponse, WebError> {
    let additions = proxy.service.contents.additions(place.content).await?;
    if !additions.bar && !additions.link {
        return Err(Error::NotFound.into());
    }
    match own {
        "bar.js" => Ok(script()),
        // An open tab polls this for ever, so it does not count as use of the browser session,
        // which would never expire otherwise.
        "standing" => {
            let admitted = admit(request.head(), proxy, place).await?;
            if let Decision::Admitted(pass) = &admitted
                && let Some(admission) = pass.viewer()
            {
                // An open page counts as presence for the leak alarm, at the process that the
                // browser's cookie names.
                let process = pass.stays_at(request.head(), proxy, place);
                proxy
                    .service
                    .presence
                    .note_seen(&admission.presence, process.unwrap_or_default());
            }
            let refusal = match &admitted {
                Decision::Admitted(_) => None,
                Decision::Refused(refusal) => Some(refusal),
            };
            Ok(standing(request, &proxy.service, place, additions, refusal))
        }
        "connected" => match admit(request.head(), proxy, place).await? {
            Decision::Admitted(_) => Ok(connected(place)),
            Decision::Refused(refusal) => refuse(request, proxy, place, rest, refusal).await,
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

/// JSON: whether the app may still act for its viewer (`standing`) and, if not, the page where the
/// viewer can change that (`login_url`); and where the link leads. A refusal is also a 200.
fn standing(
    request: &HttpRequest,
    service: &Services,
    place: &ContentLocation,
    additions: Additions,
    refusal: Option<&GateError>,
) -> HttpResponse {
    // Scripts of other origins get 403. Items that share a host share an origin and pass.
    let site = request
        .headers()
        .get(SEC_FETCH_SITE)
        .and_then(|value| value.to_str().ok());
    if site.is_some_and(|site| site != "same-origin" && site != "none") {
        return HttpResponse::Forbidden().finish();
    }
    let id = place.content;
    let back = ReturnPath::parse(&format!(
        "{}{}connected",
        addresses::app(id),
        &RESERVED_PREFIX[1..]
    ));
    let (word, page) = match (refusal, &back) {
        (None, _) => ("good", None),
        (Some(GateError::SignIn | GateError::BadKey), _) => {
            ("signed_out", Some(addresses::login(back.as_ref())))
        }
        (Some(GateError::NeedsViewer(_)), Some(back)) => {
            ("needs_viewer", Some(addresses::consent(id, back)))
        }
        (Some(GateError::NeedsViewer(_) | GateError::MayNot(_)), _) => ("may_not", None),
    };
    HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(json!({
            // Without the bar, only the link is shown.
            "standing": if additions.bar { word } else { "good" },
            "login_url": page.filter(|_| additions.bar).map(|page| service.core.addresses.absolute(&page)),
            "portal_url": additions.link.then(|| service.core.addresses.absolute("/content")),
            "consents_url": additions.link.then(|| service.core.addresses.absolute("/consents")),
        }))
}

/// The last page of the bar's window: its script tells the bar in the app's page, and closes the
/// window.
fn connected(place: &ContentLocation) -> HttpResponse {
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Connected</title><meta name=\"viewport\" content=\"width=device-width\">\
         <meta name=\"color-scheme\" content=\"light dark\"><h1>Connected</h1><p>The app goes on by itself. You can close this window.</p>\
         <script src=\"{}\"></script></html>",
        bar_path(place, "bar.js"),
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
