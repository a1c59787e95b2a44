//! `GET /people`: all people.

use crate::{
    domain::addresses,
    http::errors::WebError,
    service::core::must_manage_people,
    web::{
        pages::page,
        view::{Chrome, Moment, Status},
        visitor::SignedIn,
    },
};
use actix_web::HttpResponse;
use askama::Template;

struct Row {
    href: String,
    name: String,
    detail: String,
    role: &'static str,
    state: Status,
    seen: Option<Moment>,
}

#[derive(Template)]
#[template(path = "pages/people/list.html")]
struct ListPage {
    chrome: Chrome,
    rows: Vec<Row>,
}

/// `GET /people`.
pub async fn list(me: SignedIn) -> Result<HttpResponse, WebError> {
    must_manage_people(&me.actor)?;
    let now = me.service().core.now();
    let rows = me
        .service()
        .people
        .people(&me.actor)
        .await?
        .into_iter()
        .map(|person| Row {
            href: addresses::person(person.id),
            name: person.display_name(),
            detail: if person.email.is_empty() {
                person.username.clone()
            } else {
                format!("{} · {}", person.username, person.email)
            },
            role: person.role.label(),
            state: if person.locked {
                Status::negative("Locked")
            } else {
                Status::positive("Active")
            },
            seen: person.active_at.map(|at| Moment::new(at, now)),
        })
        .collect();
    page(&ListPage {
        chrome: me.visitor.chrome("people", "People"),
        rows,
    })
}
