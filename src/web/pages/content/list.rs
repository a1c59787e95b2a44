//! `GET /content`: the items that a person may open or edit.

use crate::{
    domain::{access, addresses},
    http::errors::WebError,
    providers,
    web::{
        pages::page,
        view::{Chrome, Moment},
        visitor::SignedIn,
    },
};
use actix_web::HttpResponse;
use askama::Template;

struct Row {
    title: String,
    description: String,
    owner: String,
    href: String,
    settings: String,
    uses: String,
    changed: Moment,
    may_open: bool,
    may_edit: bool,
    has_upstream: bool,
}

#[derive(Template)]
#[template(path = "pages/content/list.html")]
struct ListPage {
    chrome: Chrome,
    rows: Vec<Row>,
    may_add: bool,
}

/// `GET /content`: the items that the person may see, their own first.
pub async fn list(me: SignedIn) -> Result<HttpResponse, WebError> {
    let (service, now) = (me.service(), me.service().core.now());
    let mut seen = service.contents.contents(&me.actor).await?;
    // A publisher's own items come first.
    seen.sort_by_key(|item| {
        (
            std::cmp::Reverse(item.standing),
            item.content.display_title().to_lowercase(),
        )
    });
    let attached = service.contents.integrations_by_content(&seen).await?;
    let mut rows = Vec::new();
    for item in seen {
        let names: Vec<String> = attached
            .get(&item.content.id)
            .into_iter()
            .flatten()
            .map(|integration| providers::names(integration).service)
            .collect();
        rows.push(Row {
            title: item.content.display_title().to_owned(),
            description: item.content.description.clone(),
            owner: item.owner.display_name(),
            href: addresses::app(item.content.id),
            settings: addresses::content_settings(item.content.id),
            uses: names.join(", "),
            changed: Moment::new(item.content.updated_at, now),
            may_open: access::may_open(item.standing),
            may_edit: item.may_edit,
            has_upstream: item.content.upstream().is_some(),
        });
    }
    page(&ListPage {
        chrome: me.visitor.chrome("content", "Content"),
        rows,
        may_add: access::may_create_content(me.actor.role),
    })
}
