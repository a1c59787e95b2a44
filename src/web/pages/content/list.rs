//! `GET /content`: the items that a person may open or edit, with search and filters.

use crate::{
    domain::{Id, access, addresses, integration::Integration},
    http::errors::WebError,
    providers,
    web::{
        forms::Choice,
        health::integration_trouble,
        listing::{
            ColumnSpec, Filter, ListFrame, ListSpec, cut, distinct_choices, natural_key, number_key,
        },
        pages::{
            content::checklist::{Step, checklist},
            page,
        },
        view::{Chrome, Moment},
        visitor::SignedIn,
    },
};
use actix_web::HttpResponse;
use askama::Template;
use std::collections::HashMap;

struct Row {
    guid: String,
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
    updated_at: i64,
    /// Sorts what the reader may change before what they may only open.
    rank: String,
    /// Of the integrations.
    services: Vec<String>,
    is_mine: bool,
    /// It has no app, or something is wrong with one of its integrations.
    needs_attention: bool,
    address: String,
}

const COLUMNS: [ColumnSpec<Row>; 4] = [
    ColumnSpec::new("title", "Title", |row| {
        format!("{} {}", row.rank, natural_key(&row.title))
    }),
    ColumnSpec::new("owner", "Published by", |row| natural_key(&row.owner)),
    ColumnSpec::new("uses", "Uses", |row| natural_key(&row.uses)),
    ColumnSpec::greatest_first("changed", "Changed", |row| number_key(row.updated_at)),
];

#[derive(Template)]
#[template(path = "pages/content/list.html")]
struct ListPage {
    chrome: Chrome,
    list: ListFrame,
    rows: Vec<Row>,
    may_add: bool,
    /// What an administrator has to do yet.
    steps: Vec<Step>,
}

/// `GET /content`: the items that the person may see, their own first.
pub async fn list(me: SignedIn) -> Result<HttpResponse, WebError> {
    let (service, now) = (me.service(), me.now());
    let seen = service.contents.contents(&me.actor).await?;
    let attached = service.contents.integrations_by_content(&seen).await?;
    // Many items share an integration.
    let mut in_trouble: HashMap<Id<Integration>, bool> = HashMap::new();
    let mut rows = Vec::new();
    for item in seen {
        let services: Vec<String> = attached
            .get(&item.content.id)
            .into_iter()
            .flatten()
            .map(|integration| providers::names(integration).service)
            .collect();
        let is_in_trouble = |integration: &Integration| {
            *in_trouble
                .entry(integration.id)
                .or_insert_with(|| integration_trouble(service, integration, now).is_some())
        };
        let integrations = attached.get(&item.content.id);
        rows.push(Row {
            needs_attention: !item.content.has_app()
                || integrations.into_iter().flatten().any(is_in_trouble),
            guid: item.content.id.to_string(),
            title: item.content.display_title().to_owned(),
            description: item.content.description.clone(),
            owner: item.owner.display_name(),
            href: addresses::app(item.content.id),
            settings: addresses::content_settings(item.content.id),
            uses: services.join(", "),
            services,
            changed: Moment::new(item.content.updated_at, now),
            may_open: access::may_open(item.standing),
            may_edit: item.may_edit,
            has_upstream: item.content.has_app(),
            updated_at: item.content.updated_at.0,
            // The highest standing first.
            rank: number_key(i64::from(u8::MAX - item.standing as u8)),
            is_mine: item.content.owner == me.actor.person.id,
            address: if item.may_edit {
                item.content.upstream().unwrap_or_default().to_owned()
            } else {
                String::new()
            },
        });
    }
    let may_add = access::may_create_content(me.actor.role);
    let filters = [
        Filter {
            name: "service",
            label: "Uses",
            choices: distinct_choices(rows.iter().flat_map(|row| &row.services)),
            passes: Box::new(|row: &Row, service| row.services.iter().any(|one| one == service)),
        },
        Filter {
            name: "show",
            label: "Show",
            choices: vec![
                Choice::new("mine", "Mine", ""),
                Choice::new("attention", "Needs attention", ""),
                Choice::new("no-app", "Without an app", ""),
                Choice::new("no-integration", "Without an integration", ""),
            ],
            passes: Box::new(|row: &Row, wanted| match wanted {
                "mine" => row.is_mine,
                "attention" => row.may_edit && row.needs_attention,
                "no-app" => !row.has_upstream,
                _ => row.services.is_empty(),
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
            id: |row| row.href.clone(),
        },
        rows,
    );
    page(&ListPage {
        steps: checklist(&me, !list.is_empty).await?,
        chrome: me.visitor.chrome("content", "Content"),
        list,
        rows,
        may_add,
    })
}
