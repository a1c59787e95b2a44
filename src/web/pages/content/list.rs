//! `GET /content`: the items that a person may open or edit, with search and filters.

use crate::{
    domain::{access, addresses},
    http::errors::WebError,
    providers,
    web::{
        forms::Choice,
        listing::{ColumnSpec, Filter, ListFrame, ListSpec, cut, natural_key},
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
    id: String,
    updated_at: i64,
    /// The reader's own come first.
    rank: String,
    is_mine: bool,
    address: String,
}

const COLUMNS: [ColumnSpec<Row>; 4] = [
    ColumnSpec {
        name: "title",
        label: "Title",
        key: Some(|row| format!("{} {}", row.rank, natural_key(&row.title))),
        is_descending: false,
    },
    ColumnSpec {
        name: "owner",
        label: "Published by",
        key: Some(|row| natural_key(&row.owner)),
        is_descending: false,
    },
    ColumnSpec {
        name: "uses",
        label: "Uses",
        key: Some(|row| natural_key(&row.uses)),
        is_descending: false,
    },
    ColumnSpec {
        name: "changed",
        label: "Changed",
        key: Some(|row| format!("{:016}", row.updated_at)),
        is_descending: true,
    },
];

#[derive(Template)]
#[template(path = "pages/content/list.html")]
struct ListPage {
    chrome: Chrome,
    list: ListFrame,
    rows: Vec<Row>,
    may_add: bool,
}

/// `GET /content`: the items that the person may see, their own first.
pub async fn list(me: SignedIn) -> Result<HttpResponse, WebError> {
    let (service, now) = (me.service(), me.service().core.now());
    let seen = service.contents.contents(&me.actor).await?;
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
            id: item.content.id.to_string(),
            updated_at: item.content.updated_at.0,
            // The highest standing first.
            rank: format!("{}", u8::MAX - item.standing as u8),
            is_mine: item.content.owner == me.actor.person.id,
            address: if item.may_edit {
                item.content.upstream().unwrap_or_default().to_owned()
            } else {
                String::new()
            },
        });
    }
    let mut services: Vec<String> = rows.iter().map(|row| row.uses.clone()).collect();
    services.sort_by_cached_key(|service| natural_key(service));
    services.dedup();
    services.retain(|service| !service.is_empty());
    let services = services
        .into_iter()
        .map(|service| Choice::new(service.clone(), service, ""));
    let may_add = access::may_create_content(me.actor.role);
    let mut shows = vec![Choice::new("", "All", "")];
    if may_add {
        shows.extend([
            Choice::new("mine", "Mine", ""),
            Choice::new("attention", "Without an app", ""),
            Choice::new("unused", "Without an integration", ""),
        ]);
    }
    let filters = [
        Filter {
            name: "service",
            label: "Uses",
            choices: std::iter::once(Choice::new("", "All", ""))
                .chain(services)
                .collect(),
            passes: Box::new(|row: &Row, service| row.uses == service),
        },
        Filter {
            name: "show",
            label: "Show",
            choices: shows,
            passes: Box::new(|row: &Row, wanted| match wanted {
                "mine" => row.is_mine,
                "attention" => !row.has_upstream,
                _ => row.uses.is_empty(),
            }),
        },
    ];
    let (list, rows) = cut(
        &me.visitor.asked,
        &ListSpec {
            base: "/content",
            nouns: ("content item", "content items"),
            columns: &COLUMNS,
            filters: if may_add { &filters } else { &filters[..1] },
            text: |row| {
                format!(
                    "{} {} {} {} {}",
                    row.title, row.description, row.owner, row.uses, row.address
                )
            },
            id: |row| row.id.clone(),
        },
        rows,
    );
    page(&ListPage {
        chrome: me.visitor.chrome("content", "Content"),
        list,
        rows,
        may_add,
    })
}
