//! `POST /account/theme`: the colour theme, kept in a cookie.

use crate::{
    http::redirect::see_other,
    web::visitor::{Posted, SignedIn, THEME},
};
use actix_web::{
    HttpResponse,
    cookie::{Cookie, SameSite, time::Duration},
};

/// `POST /account/theme`: stores the colour theme in a cookie. A preference, not a credential.
pub async fn theme(_me: SignedIn, Posted(typed): Posted) -> HttpResponse {
    let theme = if typed.text("theme") == "dark" {
        "dark"
    } else {
        "light"
    };
    let cookie = Cookie::build(THEME, theme)
        .path("/")
        .http_only(true)
        .same_site(SameSite::Lax)
        .max_age(Duration::days(365))
        .finish();
    let mut response = see_other("/content");
    // Cannot fail: the cookie consists of fixed ASCII words.
    drop(response.add_cookie(&cookie));
    response
}
