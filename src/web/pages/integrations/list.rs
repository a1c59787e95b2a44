//! `GET /integrations`: all integrations, with search and filters; for publishers those that they may
//! choose.

use crate::{
    domain::{
        access, addresses,
        integration::{AuthType, Integration, SecretHealth},
    },
    http::errors::WebError,
    providers::{self, ClientAuthentication},
    service::core::must_see_integrations,
    web::{
        forms::Choice,
        health::{integration_trouble, secret_trouble},
        listing::{
            ColumnSpec, Filter, ListFrame, ListSpec, cut, distinct_choices, natural_key, number_key,
        },
        pages::{integrations::check::LastCheck, page},
        view::{Chrome, Moment, Now, Status, count_noun},
        visitor::SignedIn,
    },
};
use actix_web::HttpResponse;
use askama::Template;
use std::collections::HashMap;

/// One row of the list.
struct Row {
    href: String,
    name: String,
    description: String,
    service: String,
    provider: String,
    contents: String,
    people: String,
    /// Paused, or its provider cannot be reached; to publishers also a secret that does not work.
    trouble: Option<Status>,
    secret: Status,
    secret_note: String,
    /// The last check.
    checked: Option<LastCheck>,
    changed: Moment,
    updated_at: i64,
    content_count: i64,
    people_count: i64,
}

#[derive(Template)]
#[template(path = "pages/integrations/list.html")]
struct ListPage {
    chrome: Chrome,
    /// For publishers the page names what they may choose, and nothing else.
    may_manage: bool,
    list: ListFrame,
    rows: Vec<Row>,
}

const COLUMNS: [ColumnSpec<Row>; 5] = [
    ColumnSpec::new("name", "Name", |row| natural_key(&row.name)),
    ColumnSpec::new("service", "Service", |row| natural_key(&row.service)),
    ColumnSpec::greatest_first("used", "Used by", |row| number_key(row.content_count)),
    ColumnSpec::new("secret", "Client secret", |row| {
        natural_key(&row.secret.word)
    }),
    ColumnSpec::greatest_first("changed", "Changed", |row| number_key(row.updated_at)),
];

/// The state of a client secret, with a note: its expiry date if near, else the result of its last
/// use.
pub(super) fn secret_status(integration: &Integration, now: Now) -> (Status, String) {
    let set = match (integration.secret_set_at, &integration.secret_set_by) {
        (Some(at), Some(by)) => format!("set {} by {by}", at.relative(*now)),
        (Some(at), None) => format!("set {}", at.relative(*now)),
        (None, _) => String::new(),
    };
    if let Some(trouble) = secret_trouble(integration, now) {
        let note = match (&integration.secret_health, integration.secret_expires_at) {
            (SecretHealth::Rejected { at, .. }, _) => format!("since {}", at.relative(*now)),
            (_, Some(end)) if end <= *now => format!("on {}", now.date(end)),
            _ => set,
        };
        return (trouble.status, note);
    }
    match &integration.secret_health {
        SecretHealth::NotNeeded => {
            let why = match providers::client_authentication(integration) {
                ClientAuthentication::Federated => "the service trusts this portal",
                _ if integration.auth_type == AuthType::Viewer => "public client",
                _ => "nobody signs in",
            };
            (Status::neutral("Not needed"), why.into())
        }
        SecretHealth::Works { at } => (
            Status::positive("Works"),
            format!("used {}", at.relative(*now)),
        ),
        _ => (Status::neutral("Not used yet"), set),
    }
}

/// `GET /integrations`.
pub async fn list(me: SignedIn) -> Result<HttpResponse, WebError> {
    must_see_integrations(&me.actor)?;
    let (service, now) = (me.service(), me.now());
    let may_manage = access::may_manage_integrations(me.actor.role);
    let usage = if may_manage {
        service.integrations.integration_usage(&me.actor).await?
    } else {
        HashMap::new()
    };
    let checks = if may_manage {
        service.integrations.last_checks(&me.actor, None).await?
    } else {
        HashMap::new()
    };
    let rows: Vec<Row> = service
        .integrations
        .integrations(&me.actor)
        .await?
        .iter()
        .map(|integration| {
            let used = usage.get(&integration.id).cloned().unwrap_or_default();
            let names = providers::names(integration);
            let (secret, secret_note) = secret_status(integration, now);
            Row {
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
                trouble: integration_trouble(service, integration, now)
                    .map(|line| line.status)
                    // Administrators see it in a column of its own.
                    .filter(|status| !may_manage || status.word != secret.word),
                secret,
                secret_note,
                checked: checks
                    .get(&integration.id)
                    .map(|result| LastCheck::new(result, now)),
                changed: Moment::new(integration.updated_at, now),
                updated_at: integration.updated_at.0,
                content_count: used.contents,
                people_count: used.people,
            }
        })
        .collect();
    let filters = [
        Filter {
            name: "service",
            label: "Service",
            choices: distinct_choices(rows.iter().map(|row| &row.service)),
            passes: Box::new(|row: &Row, service| row.service == service),
        },
        Filter {
            name: "show",
            label: "Show",
            choices: vec![
                Choice::new("attention", "Needs attention", ""),
                Choice::new("unused", "Unused", ""),
            ],
            passes: Box::new(|row: &Row, wanted| match wanted {
                "attention" => {
                    row.trouble.is_some()
                        || matches!(row.secret.tone, "negative" | "warning")
                        || row
                            .checked
                            .as_ref()
                            .is_some_and(|last| last.status.tone == "negative")
                }
                _ => row.content_count == 0 && row.people_count == 0,
            }),
        },
    ];
    let (list, rows) = cut(
        &me.visitor.asked,
        &ListSpec {
            base: "/integrations",
            nouns: ("integration", "integrations"),
            // What publishers may know of an integration that they may choose.
            columns: if may_manage { &COLUMNS } else { &COLUMNS[..2] },
            filters: if may_manage { &filters } else { &filters[..1] },
            text: |row| {
                format!(
                    "{} {} {} {}",
                    row.name, row.description, row.service, row.provider
                )
            },
            id: |row| row.href.clone(),
        },
        rows,
    );
    page(&ListPage {
        chrome: me.visitor.chrome("integrations", "Integrations"),
        may_manage,
        list,
        rows,
    })
}
