//! `/account/confirm`: asks for the password again before a change.

use crate::{
    domain::return_path::ReturnPath,
    http::{errors::WebError, redirect::see_other},
    web::{
        forms::FormValues,
        pages::{form_status, page, page_with},
        visitor::{Posted, SignedIn},
    },
};
use actix_web::{HttpResponse, web};
use serde::Deserialize;

/// The query parameter `next`: where to go after the confirmation.
#[derive(Deserialize)]
pub struct Next {
    next: Option<String>,
}

/// `next` as a path of this portal; `/consents` if it is malformed.
fn after(next: &str) -> ReturnPath {
    ReturnPath::parse(next).unwrap_or_else(ReturnPath::consents)
}

/// `GET /account/confirm`: asks for confirmation before a page whose form needs it.
pub async fn confirm_page(me: SignedIn, query: web::Query<Next>) -> Result<HttpResponse, WebError> {
    let next = after(query.next.as_deref().unwrap_or(""));
    let typed = FormValues(vec![("next".into(), next.as_str().to_owned())]);
    page(
        &me.confirm_page("/account/confirm", next.as_str(), Some(&typed), Vec::new())
            .await?,
    )
}

/// `POST /account/confirm`: checks the password and returns to `next`.
pub async fn confirm(me: SignedIn, Posted(typed): Posted) -> Result<HttpResponse, WebError> {
    let next = after(typed.text("next"));
    match me.confirm(&typed).await? {
        None => Ok(see_other(next.as_str())),
        Some(problem) => {
            let view = me
                .confirm_page(
                    "/account/confirm",
                    next.as_str(),
                    Some(&typed),
                    vec![problem],
                )
                .await?;
            page_with(form_status(&view.errors), &view)
        }
    }
}
