//! `/audit`

use super::page;
use crate::{
    domain::{addresses::query, audit::Action},
    service::audit::PAGE,
    store::audit::Filter,
    web::{
        forms::{Choice, Field, Kind},
        problems::WebError,
        view::{Chrome, Moment},
        visitor::Me,
    },
};
use actix_web::{HttpResponse, web};
use askama::Template;
use serde::Deserialize;

struct Row {
    at: Moment,
    actor: String,
    action: String,
    subject: String,
    detail: String,
    address: String,
    correlation: String,
}

#[derive(Template)]
#[template(path = "pages/audit.html")]
struct AuditPage {
    chrome: Chrome,
    fields: Vec<Field>,
    filtered: bool,
    rows: Vec<Row>,
    older: Option<String>,
}

#[derive(Deserialize)]
pub struct Wanted {
    action: Option<String>,
    text: Option<String>,
    before: Option<i64>,
}

fn words(action: Action) -> String {
    action.as_str().replace('_', " ")
}

pub async fn list(me: Me, wanted: web::Query<Wanted>) -> Result<HttpResponse, WebError> {
    let now = me.service().now();
    let action = wanted.action.as_deref().and_then(Action::parse);
    let text: Option<String> =
        wanted.text.as_deref().map(|text| text.trim().chars().take(100).collect()).filter(|text: &String| !text.is_empty());
    let filter = Filter { action, actor: None, text: text.clone(), before: wanted.before, ..Filter::default() };
    let mut events = me.service().audit_events(&me.actor, filter).await?;
    let more = events.len() > usize::try_from(PAGE).unwrap_or(usize::MAX);
    events.truncate(usize::try_from(PAGE).unwrap_or(usize::MAX));
    let older = events.last().filter(|_| more).map(|last| {
        format!("/audit?action={}&text={}&before={}", action.map_or("", Action::as_str), query(text.as_deref().unwrap_or("")), last.number)
    });
    let options = std::iter::once(Choice::new("", "Everything", ""))
        .chain(Action::ALL.into_iter().map(|action| Choice::new(action.as_str(), words(action), "")));
    let fields = vec![
        Field::new(Kind::Select, "action", "What").options(options.collect()).value(action.map_or("", Action::as_str)),
        Field::text("text", "Who or on what").value(text.clone().unwrap_or_default()),
    ];
    page(&AuditPage {
        chrome: me.visitor.chrome("audit", "Audit"),
        fields,
        filtered: action.is_some() || text.is_some() || wanted.before.is_some(),
        rows: events
            .into_iter()
            .map(|event| Row {
                at: Moment::new(event.at, now),
                actor: if event.actor_name.is_empty() { "somebody not signed in".into() } else { event.actor_name },
                action: words(event.action),
                subject: event.subject,
                detail: event.detail,
                address: event.address,
                correlation: event.correlation,
            })
            .collect(),
        older,
    })
}
