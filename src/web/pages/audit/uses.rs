//! `GET /audit/uses`: exchanges by hour.

use crate::{
    domain::Timestamp,
    http::errors::WebError,
    service::auditing::audit::PAGE_SIZE,
    store::audit::ExchangeFilter,
    web::{
        forms::{Choice, Field, FieldKind},
        listing::one_of,
        pages::{
            audit::list::{people, wanted},
            page,
        },
        view::{Chrome, Moment, count_noun},
        visitor::SignedIn,
    },
};
use actix_web::{HttpResponse, web};
use askama::Template;
use serde::Deserialize;

struct UseRow {
    hour: String,
    person: String,
    content: String,
    integration: String,
    times: String,
    last: Moment,
}

#[derive(Template)]
#[template(path = "pages/audit/uses.html")]
struct UsesPage {
    chrome: Chrome,
    fields: Vec<Field>,
    filtered: bool,
    rows: Vec<UseRow>,
    older: Option<String>,
}

/// The query of `/audit/uses`.
#[derive(Deserialize)]
pub struct UsesQuery {
    person: Option<String>,
    content: Option<String>,
    /// Only rows last used before this time, in Unix milliseconds.
    before: Option<i64>,
}

/// `GET /audit/uses`: who used whose access, in which content item, when and how often.
pub async fn uses(me: SignedIn, asked: web::Query<UsesQuery>) -> Result<HttpResponse, WebError> {
    let now = me.service().core.now();
    let contents = me.service().contents.contents(&me.actor).await?;
    let contents = contents.iter().map(|seen| {
        Choice::new(
            seen.content.id.to_string(),
            seen.content.display_title(),
            "",
        )
    });
    let contents = std::iter::once(Choice::new("", "All content", ""))
        .chain(contents)
        .collect();
    let (who, which_person) = people(&me, asked.person.as_deref().unwrap_or("")).await?;
    let (place, which_content) = one_of(
        Field::new(FieldKind::Select, "content", "In which content").options(contents),
        asked.content.as_deref().unwrap_or(""),
    );
    let wanted = ExchangeFilter {
        person: wanted(&which_person),
        content: wanted(&which_content),
        before: asked.before.map(Timestamp),
    };
    let mut uses = me
        .service()
        .usage
        .hourly_uses(&me.actor, wanted.clone())
        .await?;
    let most = usize::try_from(PAGE_SIZE).unwrap_or(usize::MAX);
    let more = uses.len() > most;
    uses.truncate(most);
    let (person, content) = (
        wanted.person.map(|id| id.to_string()).unwrap_or_default(),
        wanted.content.map(|id| id.to_string()).unwrap_or_default(),
    );
    let older = uses.last().filter(|_| more).map(|last| {
        format!(
            "/audit/uses?person={person}&content={content}&before={}",
            last.hour.last_at.0
        )
    });
    let fields = vec![who, place];
    let gone = |guid: &str| format!("deleted ({})", guid.get(..8).unwrap_or(guid));
    page(&UsesPage {
        chrome: me.visitor.chrome("audit", "Who used whose access"),
        fields,
        filtered: wanted.person.is_some() || wanted.content.is_some() || wanted.before.is_some(),
        rows: uses
            .into_iter()
            .map(|row| UseRow {
                hour: row.hour.hour.absolute(),
                person: row
                    .person
                    .map_or_else(|| gone(&row.hour.person), |person| person.display_name()),
                content: row.content.map_or_else(
                    || gone(&row.hour.content),
                    |content| content.display_title().to_owned(),
                ),
                integration: row.integration.map_or_else(
                    || gone(&row.hour.integration),
                    |found| found.display_name().to_owned(),
                ),
                times: count_noun(row.hour.exchanges, "time", "times"),
                last: Moment::new(row.hour.last_at, now),
            })
            .collect(),
        older,
    })
}
