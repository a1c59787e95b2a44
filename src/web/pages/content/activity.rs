//! `GET /content-settings/{guid}/activity`: what happened with an item, in plots.

use crate::{
    domain::addresses,
    http::errors::WebError,
    web::{
        activity_plots::{exchanges, funnel, range_links, reasons, refusals},
        pages::{
            content::tabs::{ACTIVITY, content_tabs},
            id, page,
        },
        plot::{Plot, Range, Shares},
        view::{Chrome, NavLink, Tab},
        visitor::SignedIn,
    },
};
use actix_web::{HttpResponse, web};
use askama::Template;

/// What happened with one item or integration.
#[derive(Template)]
#[template(path = "pages/activity.html")]
pub(in crate::web::pages) struct ActivityPage {
    pub chrome: Chrome,
    pub crumb: NavLink,
    pub title: String,
    pub tabs: Vec<Tab>,
    /// The address without its range, and the links to all ranges.
    pub base: String,
    pub ranges: Vec<(&'static str, &'static str, bool)>,
    pub plots: Vec<Plot>,
    pub shares: Vec<Shares>,
    /// The newest records about it.
    pub records: Vec<(crate::web::view::Moment, String)>,
    /// All records; empty where there is no link to them.
    pub all_records: String,
}

/// `GET /content-settings/{guid}/activity`.
pub async fn activity(me: SignedIn, path: web::Path<String>) -> Result<HttpResponse, WebError> {
    let (contents, now) = (&me.service().contents, me.now());
    let item = contents.editable_content(&me.actor, id(&path)?).await?;
    let item = item.content;
    let range = Range::parse(me.visitor.asked.text("range"));
    let sums = contents
        .activity(&me.actor, item.id, range.since(*now), range.step())
        .await?;
    page(&ActivityPage {
        chrome: me
            .visitor
            .chrome("content", &format!("Activity of {}", item.display_title())),
        crumb: NavLink::new("/content", "Content"),
        title: item.display_title().to_owned(),
        tabs: content_tabs(item.id, ACTIVITY),
        base: format!("{}{ACTIVITY}", addresses::content_settings(item.id)),
        ranges: range_links(range),
        plots: vec![exchanges(&sums, range, now), refusals(&sums, range, now)],
        shares: vec![reasons(&sums, range), funnel(&sums, range)],
        records: Vec::new(),
        all_records: String::new(),
    })
}
