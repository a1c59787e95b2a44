//! `GET /integrations`: all integrations, sortable.

use crate::{
    domain::{
        Timestamp, addresses,
        integration::{Integration, SecretHealth},
    },
    http::errors::WebError,
    providers,
    service::core::must_manage_integrations,
    web::{
        pages::page,
        view::{Chrome, Moment, Status, count_noun},
        visitor::SignedIn,
    },
};
use actix_web::{HttpResponse, web};
use askama::Template;
use serde::Deserialize;
use std::time::Duration;

struct Column {
    label: &'static str,
    href: String,
    aria: &'static str,
}

/// One row of the list.
struct Row {
    href: String,
    name: String,
    description: String,
    service: String,
    provider: String,
    contents: String,
    people: String,
    secret: Status,
    secret_note: String,
    changed: Moment,
    /// Sort keys, one for each of [`COLUMNS`].
    sort: [String; 5],
}

#[derive(Template)]
#[template(path = "pages/integrations/list.html")]
struct ListPage {
    chrome: Chrome,
    columns: Vec<Column>,
    rows: Vec<Row>,
}

/// The query of the list: `sort` is the key of a column, `order` is `desc` or absent.
#[derive(Deserialize)]
pub struct Sort {
    sort: Option<String>,
    order: Option<String>,
}

/// The sortable columns: key in the query, and title.
const COLUMNS: [(&str, &str); 5] = [
    ("name", "Name"),
    ("service", "Service"),
    ("used", "Used by"),
    ("secret", "Client secret"),
    ("changed", "Changed"),
];

/// How long before its expiry a client secret is reported.
const SECRET_EXPIRY_NOTICE: Duration = Duration::from_secs(60 * 86_400);

/// The state of a client secret, with a note: its expiry date if near, else the result of its last
/// use.
pub(super) fn secret_status(integration: &Integration, now: Timestamp) -> (Status, String) {
    let names = providers::names(integration);
    let set = match (integration.secret_set_at, &integration.secret_set_by) {
        (Some(at), Some(by)) => format!("set {} by {by}", at.relative(now)),
        (Some(at), None) => format!("set {}", at.relative(now)),
        (None, _) => String::new(),
    };
    match (&integration.secret_health, integration.secret_expires_at) {
        (SecretHealth::NotNeeded, _) => (Status::neutral("Not needed"), "public client".into()),
        (SecretHealth::Rejected { at, .. }, _) => (
            Status::negative(format!("Rejected by {}", names.provider)),
            format!("since {}", at.relative(now)),
        ),
        (_, Some(end)) if end <= now => (Status::negative("Expired"), format!("on {}", end.date())),
        (_, Some(end)) if end.since(now) <= SECRET_EXPIRY_NOTICE => {
            let days = end.since(now).as_secs() / 86_400;
            (
                Status::warning(if days == 0 {
                    "Expires today".into()
                } else {
                    format!(
                        "Expires in {}",
                        count_noun(i64::try_from(days).unwrap_or(0), "day", "days")
                    )
                }),
                set,
            )
        }
        (SecretHealth::Works { at }, _) => (
            Status::positive("Works"),
            format!("used {}", at.relative(now)),
        ),
        (SecretHealth::Untried, _) => (Status::neutral("Not used yet"), set),
    }
}

/// `GET /integrations`.
pub async fn list(me: SignedIn, query: web::Query<Sort>) -> Result<HttpResponse, WebError> {
    must_manage_integrations(&me.actor)?;
    let (service, now) = (me.service(), me.service().core.now());
    let usage = service.integrations.integration_usage(&me.actor).await?;
    let mut rows: Vec<Row> = service
        .integrations
        .integrations(&me.actor)
        .await?
        .iter()
        .map(|integration| {
            let used = usage.get(&integration.id).cloned().unwrap_or_default();
            let names = providers::names(integration);
            let (secret, secret_note) = secret_status(integration, now);
            Row {
                sort: [
                    integration.display_name().to_lowercase(),
                    names.service.to_lowercase(),
                    format!("{:012}", used.contents),
                    secret.word.to_lowercase(),
                    format!("{:016}", integration.updated_at.0),
                ],
                href: addresses::integration(integration.id),
                name: integration.display_name().to_owned(),
                description: integration.description.clone().unwrap_or_default(),
                service: names.service,
                provider: names.provider_full,
                contents: count_noun(used.contents, "content item", "content items"),
                people: if used.people == 0 {
                    "nobody connected".into()
                } else {
                    count_noun(used.people, "person connected", "people connected")
                },
                secret,
                secret_note,
                changed: Moment::new(integration.updated_at, now),
            }
        })
        .collect();
    let by = query
        .sort
        .as_deref()
        .and_then(|wanted| COLUMNS.iter().position(|(key, _)| *key == wanted))
        .unwrap_or(0);
    let descending = query.order.as_deref() == Some("desc");
    rows.sort_by(|left, right| left.sort[by].cmp(&right.sort[by]));
    if descending {
        rows.reverse();
    }
    let columns = COLUMNS
        .iter()
        .enumerate()
        .map(|(position, (key, label))| {
            let current = position == by;
            let turn = if current && !descending {
                "&order=desc"
            } else {
                ""
            };
            Column {
                label,
                href: format!("/integrations?sort={key}{turn}"),
                aria: match (current, descending) {
                    (false, _) => "",
                    (true, false) => "ascending",
                    (true, true) => "descending",
                },
            }
        })
        .collect();
    page(&ListPage {
        chrome: me.visitor.chrome("integrations", "Integrations"),
        columns,
        rows,
    })
}
