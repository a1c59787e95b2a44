//! `/content/bulk`: lets a person or a group into several items at once.

use crate::{
    domain::{
        Id,
        content::{Content, ContentRole},
        group::Principal,
    },
    http::errors::WebError,
    service::Error,
    web::{
        forms::{Field, FieldKind, FormValues},
        listing::Picker,
        pages::{id, page, principal, principal_picker},
        view::{Chrome, count_noun, some_of},
        visitor::{Posted, SignedIn},
    },
};
use actix_web::HttpResponse;
use askama::Template;

#[derive(Template)]
#[template(path = "pages/content/bulk.html")]
struct BulkPage {
    chrome: Chrome,
    /// The titles of the items, the first of them.
    titles: String,
    permit: Picker,
}

/// The items that were ticked, all of which the actor may edit.
async fn chosen(me: &SignedIn, typed: &FormValues) -> Result<Vec<Content>, WebError> {
    let mut items = Vec::new();
    for guid in typed.all("content") {
        let item: Id<Content> = id(guid)?;
        let seen = me.service().contents.editable_content(&me.actor, item);
        items.push(seen.await?.content);
    }
    Ok(items)
}

async fn draw(items: &[Content], me: &SignedIn) -> Result<HttpResponse, WebError> {
    let mut permit = principal_picker(me, "/content/bulk", "who", &[], &[]).await?;
    let item =
        |item: &Content| Field::new(FieldKind::Hidden, "content", "").value(item.id.to_string());
    permit.more = items.iter().map(item).collect();
    if let Some(search) = &mut permit.search {
        search.kept = items.iter().map(item).collect();
    }
    let titles = items.iter().map(|item| item.display_title().to_owned());
    let count = count_noun(items.len(), "content item", "content items");
    page(&BulkPage {
        chrome: me
            .visitor
            .chrome("content", &format!("Let somebody into {count}")),
        titles: some_of(titles.collect()).join(", "),
        permit,
    })
}

/// `GET /content/bulk`: the same page with what was searched for.
pub async fn bulk_page(me: SignedIn) -> Result<HttpResponse, WebError> {
    let typed = FormValues(me.visitor.asked.all("content"));
    let items = chosen(&me, &typed).await?;
    if items.is_empty() {
        return Err(Error::NotFound.into());
    }
    draw(&items, &me).await
}

/// `POST /content/bulk`: `content` once for each item; with `person`, lets them in.
pub async fn bulk(me: SignedIn, Posted(typed): Posted) -> Result<HttpResponse, WebError> {
    let items = chosen(&me, &typed).await?;
    if items.is_empty() {
        return Ok(me.done("/content", "Nothing was chosen: tick the content first."));
    }
    let Some(person) = typed.non_empty("person") else {
        return draw(&items, &me).await;
    };
    let principal = principal(person).ok_or(Error::NotFound)?;
    let mut count = 0;
    for item in &items {
        if principal == Principal::Person(item.owner) {
            continue;
        }
        me.service()
            .contents
            .set_permission(&me.actor, item.id, principal, ContentRole::Viewer)
            .await?;
        count += 1;
    }
    let count = count_noun(count, "content item", "content items");
    Ok(me.done("/content", format!("Let in to {count}.")))
}
