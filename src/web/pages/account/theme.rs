//! `POST /account/theme`: the colour theme, kept in a cookie.

use crate::{
    domain::return_path::ReturnPath,
    http::redirect::see_other,
    web::visitor::{Posted, SignedIn, THEME},
};
use actix_web::{
    HttpRequest, HttpResponse,
    cookie::{Cookie, SameSite, time::Duration},
    http::header,
};

/// `POST /account/theme`: stores the colour theme in a cookie, or deletes it for that of the system;
/// then back to the page. A preference, not a credential.
pub async fn theme(_me: SignedIn, request: HttpRequest, Posted(typed): Posted) -> HttpResponse {
    let from = request
        .headers()
        .get(header::REFERER)
        .and_then(|from| url::Url::parse(from.to_str().ok()?).ok())
        .and_then(|from| ReturnPath::parse(from.path()));
    let mut response = see_other(from.as_ref().map_or("/content", ReturnPath::as_str));
    let cookie = |theme: &'static str, life: Duration| {
        Cookie::build(THEME, theme)
            .path("/")
            .http_only(true)
            .same_site(SameSite::Lax)
            .max_age(life)
            .finish()
    };
    let cookie = match typed.text("theme") {
        "dark" => cookie("dark", Duration::days(365)),
        "light" => cookie("light", Duration::days(365)),
        _ => cookie("", Duration::ZERO),
    };
    // Cannot fail: the cookie consists of fixed ASCII words.
    drop(response.add_cookie(&cookie));
    response
}
