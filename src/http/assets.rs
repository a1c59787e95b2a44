//! Static assets of the portal: one style sheet, one script, one icon, joined at build time. File
//! names contain a digest of the content, so responses are cacheable for a year (`immutable`).

use crate::vault::api_key::digest;
use actix_web::{HttpResponse, http::header, web};
use std::sync::LazyLock;

const CSS: &str = concat!(
    include_str!("../../static/css/reset.css"),
    include_str!("../../static/css/tokens.css"),
    include_str!("../../static/css/base.css"),
    include_str!("../../static/css/bar.css"),
    include_str!("../../static/css/form.css"),
    include_str!("../../static/css/parts.css"),
    include_str!("../../static/css/pages.css"),
    include_str!("../../static/css/plots.css"),
);
const JS: &str = include_str!("../../static/portal.js");
/// The reconnect bar's script, which `proxy/bar.rs` adds to an app's pages.
pub const BAR: &str = include_str!("../../static/bar.js");
const ICON: &str = include_str!("../../static/key.svg");

/// URL paths of the assets, digest included.
pub struct Assets {
    pub css: String,
    pub js: String,
    pub icon: String,
}

/// Computed once: each name holds the first 16 hex digits of the content's SHA-256.
static ASSETS: LazyLock<Assets> = LazyLock::new(|| {
    let name =
        |text: &str, ending: &str| format!("/__valetkey__/static/{}.{ending}", &digest(text)[..16]);
    Assets {
        css: name(CSS, "css"),
        js: name(JS, "js"),
        icon: name(ICON, "svg"),
    }
});

/// The asset paths, for templates.
pub fn assets() -> &'static Assets {
    &ASSETS
}

/// `GET /__valetkey__/static/{name}`, on the portal and on every content host.
pub async fn serve(path: web::Path<String>) -> HttpResponse {
    answer(&path)
}

/// The asset with this file name, or 404.
pub fn answer(name: &str) -> HttpResponse {
    let wanted = format!("/__valetkey__/static/{name}");
    let (kind, body) = match wanted {
        wanted if wanted == ASSETS.css => ("text/css; charset=utf-8", CSS),
        wanted if wanted == ASSETS.js => ("text/javascript; charset=utf-8", JS),
        wanted if wanted == ASSETS.icon => ("image/svg+xml", ICON),
        _ => return HttpResponse::NotFound().finish(),
    };
    HttpResponse::Ok()
        .content_type(kind)
        .insert_header((header::CACHE_CONTROL, "public, max-age=31536000, immutable"))
        .body(body)
}
