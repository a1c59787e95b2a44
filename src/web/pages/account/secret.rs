//! `GET /account/shown/{name}`: a secret that is shown once.

use crate::{
    http::errors::WebError,
    web::{
        pages::{page, page_with},
        shown_once,
        view::Chrome,
        visitor::SignedIn,
    },
};
use actix_web::{HttpResponse, http::StatusCode, web};
use askama::Template;
use secrecy::ExposeSecret as _;

#[derive(Template)]
#[template(path = "pages/account/secret.html")]
struct SecretPage {
    chrome: Chrome,
    intro: String,
    label: String,
    secret: Option<String>,
    environment: String,
    done: String,
}

/// `GET /account/shown/{name}`: shows a secret once; 410 afterwards.
pub async fn shown(me: SignedIn, path: web::Path<String>) -> Result<HttpResponse, WebError> {
    let view = match shown_once::take(me.service(), me.actor.person.id, &path).await? {
        Some(shown) => SecretPage {
            chrome: me.visitor.chrome("", &shown.title),
            intro: shown.intro.clone(),
            label: shown.label.clone(),
            secret: Some(shown.secret.expose_secret().to_owned()),
            environment: shown
                .environment
                .replace("{key}", shown.secret.expose_secret()),
            done: shown.done.clone(),
        },
        None => SecretPage {
            chrome: me.visitor.chrome("", "This key is no longer visible"),
            intro: String::new(),
            label: String::new(),
            secret: None,
            environment: String::new(),
            done: "/account/keys".into(),
        },
    };
    if view.secret.is_none() {
        return page_with(StatusCode::GONE, &view);
    }
    page(&view)
}
