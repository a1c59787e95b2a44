//! `GET /integrations/new`: which template; with one chosen, its empty form.

use crate::{
    domain::Id,
    http::errors::WebError,
    providers,
    service::core::must_manage_integrations,
    web::{
        pages::{
            integrations::form::{FormTarget, draw_form},
            page,
        },
        view::Chrome,
        visitor::SignedIn,
    },
};
use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;
use serde::Deserialize;

struct Tile {
    href: String,
    monogram: &'static str,
    title: &'static str,
    summary: &'static str,
}

#[derive(Template)]
#[template(path = "pages/integrations/choose.html")]
struct ChoosePage {
    chrome: Chrome,
    options: Vec<Tile>,
}

/// The query of `/integrations/new`: the key of a template.
#[derive(Deserialize)]
pub struct Chosen {
    template: Option<String>,
}

/// `GET /integrations/new`: the choice of a template or, with `template`, its form.
pub async fn new_page(
    me: SignedIn,
    request: HttpRequest,
    query: web::Query<Chosen>,
) -> Result<HttpResponse, WebError> {
    must_manage_integrations(&me.actor)?;
    me.visitor.require_confirmation(&request)?;
    match query.template.as_deref().and_then(providers::template) {
        Some(template) => {
            draw_form(
                &me,
                FormTarget::New(template, Id::random()),
                None,
                Vec::new(),
                None,
            )
            .await
        }
        None => page(&ChoosePage {
            chrome: me.visitor.chrome("integrations", "Add integration"),
            options: providers::TEMPLATES
                .into_iter()
                .map(|template| Tile {
                    href: format!("/integrations/new?template={}", template.key),
                    monogram: template.monogram,
                    title: template.title,
                    summary: template.summary,
                })
                .collect(),
        }),
    }
}
