//! `/audit/uses`: exchanges by hour, with totals; and the same as a download.

use crate::{
    domain::{Timestamp, addresses::query},
    http::errors::WebError,
    service::{Error, auditing::audit::PAGE_SIZE, grants::usage::HourlyUse},
    store::audit::ExchangeFilter,
    web::{
        forms::{Choice, Field, FieldKind},
        listing::one_of,
        pages::{
            audit::list::{people, wanted},
            page,
        },
        view::{Chrome, Moment, Now, count_noun},
        visitor::SignedIn,
    },
};
use actix_web::{
    HttpResponse,
    http::header::{self, ContentDisposition, DispositionParam, DispositionType},
    web,
};
use askama::Template;
use serde::Deserialize;
use std::time::Duration;

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
    totals: String,
    export: String,
    rows: Vec<UseRow>,
    older: Option<String>,
}

/// The query of `/audit/uses`.
#[derive(Deserialize)]
pub struct UsesQuery {
    person: Option<String>,
    content: Option<String>,
    /// First and last day (UTC), as `YYYY-MM-DD`.
    from: Option<String>,
    to: Option<String>,
    /// Only rows last used before this time, in Unix milliseconds.
    before: Option<i64>,
}

/// A day in the filter, and its field.
fn day(name: &str, label: &str, typed: Option<&str>) -> (Field, Option<Timestamp>) {
    let typed = typed.unwrap_or("").trim();
    let mut field = Field::new(FieldKind::Date, name, label).value(typed);
    let date = Timestamp::from_iso_date(typed);
    if date.is_none() && !typed.is_empty() {
        field.error = Some("Enter a date as year-month-day.".into());
    }
    (field, date)
}

/// The filter of an address, and its fields.
async fn filter(
    me: &SignedIn,
    asked: &UsesQuery,
) -> Result<(Vec<Field>, ExchangeFilter), WebError> {
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
    let (who, which_person) = people(me, asked.person.as_deref().unwrap_or("")).await?;
    let (place, which_content) = one_of(
        Field::new(FieldKind::Select, "content", "In which content").options(contents),
        asked.content.as_deref().unwrap_or(""),
    );
    let (from, since) = day("from", "From (UTC)", asked.from.as_deref());
    let (to, last_day) = day("to", "To, that day included", asked.to.as_deref());
    let wanted = ExchangeFilter {
        person: wanted(&which_person),
        content: wanted(&which_content),
        since,
        until: last_day.map(|day| day.plus(Duration::from_secs(86_400))),
        before: asked.before.map(Timestamp),
    };
    Ok((vec![who, place, from, to], wanted))
}

/// The filter as a query string, without the place.
fn query_of(asked: &UsesQuery, wanted: &ExchangeFilter) -> String {
    let id = |id: Option<String>| id.unwrap_or_default();
    format!(
        "person={}&content={}&from={}&to={}",
        id(wanted.person.map(|id| id.to_string())),
        id(wanted.content.map(|id| id.to_string())),
        query(asked.from.as_deref().unwrap_or("")),
        query(asked.to.as_deref().unwrap_or(""))
    )
}

/// The names of a row: person, content and integration; a GUID for what is deleted.
fn names(row: &HourlyUse) -> [String; 3] {
    let gone = |guid: &str| format!("deleted ({})", guid.get(..8).unwrap_or(guid));
    [
        row.person
            .as_ref()
            .map_or_else(|| gone(&row.hour.person), |person| person.display_name()),
        row.content.as_ref().map_or_else(
            || gone(&row.hour.content),
            |content| content.display_title().to_owned(),
        ),
        row.integration.as_ref().map_or_else(
            || gone(&row.hour.integration),
            |found| found.display_name().to_owned(),
        ),
    ]
}

fn row(used: &HourlyUse, now: Now) -> UseRow {
    let [person, content, integration] = names(used);
    UseRow {
        hour: now.absolute(used.hour.hour),
        person,
        content,
        integration,
        times: count_noun(used.hour.exchanges, "time", "times"),
        last: Moment::new(used.hour.last_at, now),
    }
}

/// `GET /audit/uses`: who used whose access, in which content item, when and how often.
pub async fn uses(me: SignedIn, asked: web::Query<UsesQuery>) -> Result<HttpResponse, WebError> {
    let (usage, now) = (&me.service().usage, me.now());
    let (fields, wanted) = filter(&me, &asked).await?;
    let mut uses = usage.hourly_uses(&me.actor, wanted.clone()).await?;
    let totals = usage.totals(&me.actor, wanted.clone()).await?;
    let most = usize::try_from(PAGE_SIZE).unwrap_or(usize::MAX);
    let more = uses.len() > most;
    uses.truncate(most);
    let query = query_of(&asked, &wanted);
    let older = uses
        .last()
        .filter(|_| more)
        .map(|last| format!("/audit/uses?{query}&before={}", last.hour.last_at.0));
    page(&UsesPage {
        chrome: me.visitor.chrome("audit", "Who used whose access"),
        fields,
        filtered: wanted.person.is_some()
            || wanted.content.is_some()
            || wanted.since.is_some()
            || wanted.until.is_some()
            || wanted.before.is_some(),
        totals: match totals.exchanges {
            0 => "No exchanges.".into(),
            exchanges => format!(
                "{}, by {} in {}.",
                count_noun(exchanges, "exchange", "exchanges"),
                count_noun(totals.people, "person", "people"),
                count_noun(totals.contents, "content item", "content items")
            ),
        },
        export: format!("/audit/uses/export?{query}"),
        rows: uses.iter().map(|used| row(used, now)).collect(),
        older,
    })
}

/// A cell that no spreadsheet takes for a formula (OWASP, “CSV injection”).
fn plain_cell(text: String) -> String {
    match text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        true => format!("'{text}"),
        false => text,
    }
}

/// `GET /audit/uses/export`: the same as CSV (RFC 4180), with times in UTC.
pub async fn export(me: SignedIn, asked: web::Query<UsesQuery>) -> Result<HttpResponse, WebError> {
    let (_, wanted) = filter(&me, &asked).await?;
    let uses = me.service().usage.exported_uses(&me.actor, wanted).await?;
    me.service().audit.note_export(&me.actor).await?;
    let failed = |_| Error::Internal("a table could not be written");
    let mut table = csv::Writer::from_writer(Vec::new());
    table
        .write_record([
            "hour",
            "person",
            "person_guid",
            "content",
            "content_guid",
            "integration",
            "integration_guid",
            "exchanges",
            "last_at",
        ])
        .map_err(failed)?;
    for used in &uses {
        let [person, content, integration] = names(used).map(plain_cell);
        table
            .write_record([
                used.hour.hour.rfc3339(),
                person,
                used.hour.person.clone(),
                content,
                used.hour.content.clone(),
                integration,
                used.hour.integration.clone(),
                used.hour.exchanges.to_string(),
                used.hour.last_at.rfc3339(),
            ])
            .map_err(failed)?;
    }
    let body = table
        .into_inner()
        .map_err(|_| Error::Internal("a table could not be written"))?;
    let name = format!("uses-{}.csv", me.now().iso_date());
    Ok(HttpResponse::Ok()
        .content_type("text/csv; charset=utf-8")
        .insert_header((
            header::CONTENT_DISPOSITION,
            ContentDisposition {
                disposition: DispositionType::Attachment,
                parameters: vec![DispositionParam::Filename(name)],
            },
        ))
        .body(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_is_a_formula() {
        assert_eq!(plain_cell("=1+1".into()), "'=1+1");
        assert_eq!(plain_cell("Ann".into()), "Ann");
    }
}
