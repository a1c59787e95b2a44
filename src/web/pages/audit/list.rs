//! `/audit`: the audit log, with filters and export.

use crate::{
    domain::{
        Id,
        addresses::query,
        audit::{Action, Event, Outcome},
    },
    http::errors::WebError,
    service::{Error, auditing::audit::PAGE_SIZE},
    store::audit::RecordFilter,
    web::{
        forms::{Choice, Field, FieldKind},
        listing::{OneOf, one_of},
        pages::page,
        view::{Chrome, Moment},
        visitor::SignedIn,
    },
};
use actix_web::{
    HttpResponse,
    http::header::{self, ContentDisposition, DispositionParam, DispositionType},
    web,
};
use askama::Template;
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use strum::VariantArray as _;

struct Row {
    at: Moment,
    actor: String,
    action: String,
    /// `content_error` or `record_failure`; empty if the action succeeded.
    outcome: &'static str,
    subject: String,
    detail: String,
    address: String,
    correlation: String,
}

#[derive(Template)]
#[template(path = "pages/audit/list.html")]
struct AuditPage {
    chrome: Chrome,
    fields: Vec<Field>,
    filtered: bool,
    export: String,
    rows: Vec<Row>,
    /// Address of the next, older page.
    older: Option<String>,
}

/// The filter, as the query holds it. Malformed values count as absent.
#[derive(Deserialize)]
pub struct AuditQuery {
    action: Option<String>,
    outcome: Option<String>,
    person: Option<String>,
    text: Option<String>,
    /// Only records with a smaller number.
    before: Option<i64>,
}

impl AuditQuery {
    fn filter(&self) -> RecordFilter {
        let text: Option<String> = self
            .text
            .as_deref()
            .map(|text| text.trim().chars().take(100).collect());
        RecordFilter {
            action: self.action.as_deref().and_then(Action::parse),
            outcome: self.outcome.as_deref().and_then(Outcome::parse),
            actor: self
                .person
                .as_deref()
                .and_then(|person| person.parse().ok()),
            text: text.filter(|text| !text.is_empty()),
            before: self.before,
            ..RecordFilter::default()
        }
    }
}

/// The filter as a query string, without the page position.
fn query_of(filter: &RecordFilter) -> String {
    format!(
        "action={}&outcome={}&person={}&text={}",
        filter.action.map_or("", Action::as_str),
        filter.outcome.map_or("", Outcome::as_str),
        filter
            .actor
            .map(|actor| actor.to_string())
            .unwrap_or_default(),
        query(filter.text.as_deref().unwrap_or(""))
    )
}

/// An action's name for people.
pub(in crate::web::pages) fn words(action: Action) -> String {
    action.as_str().replace('_', " ")
}

/// A filter by person, and what it means.
pub(super) async fn people(me: &SignedIn, typed: &str) -> Result<(Field, OneOf), WebError> {
    let people = me.service().people.people(&me.actor).await?;
    let people = people
        .iter()
        .map(|person| Choice::new(person.id.to_string(), person.name_and_username(), ""));
    let options = std::iter::once(Choice::new("", "Everybody", ""))
        .chain(people)
        .collect();
    let field = Field::new(FieldKind::Select, "person", "Who").options(options);
    Ok(one_of(field, typed))
}

/// The id that a filter names; for an unclear one, an id that nothing has.
pub(super) fn wanted<T>(which: &OneOf) -> Option<Id<T>> {
    match which {
        OneOf::All => None,
        OneOf::One(id) => id.parse().ok(),
        OneOf::Unclear => Some(Id::random()),
    }
}

/// `GET /audit`: one page of records, newest first.
pub async fn list(me: SignedIn, asked: web::Query<AuditQuery>) -> Result<HttpResponse, WebError> {
    let now = me.now();
    let (who, which) = people(&me, asked.person.as_deref().unwrap_or("")).await?;
    let filter = RecordFilter {
        actor: wanted(&which),
        ..asked.filter()
    };
    let mut events = me
        .service()
        .audit
        .audit_events(&me.actor, filter.clone())
        .await?;
    let (most, asked) = (
        usize::try_from(PAGE_SIZE).unwrap_or(usize::MAX),
        query_of(&filter),
    );
    let more = events.len() > most;
    events.truncate(most);
    let older = events
        .last()
        .filter(|_| more)
        .map(|last| format!("/audit?{asked}&before={}", last.number));
    let actions = std::iter::once(Choice::new("", "Everything", "")).chain(
        Action::VARIANTS
            .iter()
            .copied()
            .map(|action| Choice::new(action.as_str(), words(action), "")),
    );
    let outcomes = std::iter::once(Choice::new("", "Any", "")).chain(
        [Outcome::Done, Outcome::Refused, Outcome::Failed]
            .map(|outcome| Choice::new(outcome.as_str(), outcome.as_str(), "")),
    );
    let fields = vec![
        who,
        Field::new(FieldKind::Select, "action", "What")
            .options(actions.collect())
            .value(filter.action.map_or("", Action::as_str)),
        Field::new(FieldKind::Select, "outcome", "How it ended")
            .options(outcomes.collect())
            .value(filter.outcome.map_or("", Outcome::as_str)),
        Field::text("text", "Name, object or reference")
            .value(filter.text.clone().unwrap_or_default()),
    ];
    page(&AuditPage {
        chrome: me.visitor.chrome("audit", "Audit"),
        fields,
        filtered: asked != query_of(&RecordFilter::default()) || filter.before.is_some(),
        export: format!("/audit/export?{asked}"),
        rows: events
            .into_iter()
            .map(|event| Row {
                at: Moment::new(event.at, now),
                actor: if event.actor_name.is_empty() {
                    "somebody not signed in".into()
                } else {
                    event.actor_name
                },
                action: words(event.action),
                outcome: if event.outcome == Outcome::Done {
                    ""
                } else {
                    event.outcome.as_str()
                },
                subject: event.subject,
                detail: event.detail,
                address: event.address,
                correlation: event.correlation,
            })
            .collect(),
        older,
    })
}

/// One line of an export. It holds every field that the seal covers, and the block that
/// seals the line.
fn line(event: &Event) -> Value {
    json!({
        "number": event.number,
        "time": event.at.rfc3339(),
        "at_ms": event.at.0,
        "action": event.action.as_str(),
        "outcome": event.outcome.as_str(),
        "actor_guid": event.actor,
        "actor": event.actor_name,
        "subject": event.subject,
        "detail": event.detail,
        "address": event.address,
        "correlation": event.correlation,
        "block": event.block,
    })
}

/// `GET /audit/export`: the audit log, or the records that pass the filter, as JSON lines, oldest
/// first. Streamed, since it may be long. The export itself is recorded.
pub async fn export(me: SignedIn, asked: web::Query<AuditQuery>) -> Result<HttpResponse, WebError> {
    me.service().audit.note_export(&me.actor).await?;
    let (service, actor, filter) = (
        me.service().clone(),
        me.actor.clone(),
        RecordFilter {
            before: None,
            ..asked.filter()
        },
    );
    let name = format!("audit-{}.jsonl", service.core.now().iso_date());
    let lines = stream::try_unfold(
        (service, actor, filter, 0),
        |(service, actor, filter, after)| async move {
            let events = service.audit.export_batch(&actor, &filter, after).await?;
            let Some(last) = events.last().map(|event| event.number) else {
                return Ok::<_, Error>(None);
            };
            let text: String = events
                .iter()
                .map(|event| format!("{}\n", line(event)))
                .collect();
            Ok(Some((
                web::Bytes::from(text),
                (service, actor, filter, last),
            )))
        },
    );
    Ok(HttpResponse::Ok()
        .content_type("application/x-ndjson")
        .insert_header((
            header::CONTENT_DISPOSITION,
            ContentDisposition {
                disposition: DispositionType::Attachment,
                parameters: vec![DispositionParam::Filename(name)],
            },
        ))
        .streaming(lines))
}
