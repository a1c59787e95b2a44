//! `GET /integrations/{guid}/connected`: who is connected through an integration.

use crate::{
    domain::{
        addresses,
        connection::{Connection, State},
        person::Person,
    },
    http::errors::WebError,
    service::core::must_manage_integrations,
    web::{
        forms::Choice,
        listing::{ColumnSpec, Filter, ListFrame, ListSpec, cut, natural_key, number_key},
        pages::{
            id,
            integrations::tabs::{CONNECTED, integration_tabs},
            page,
        },
        view::{Chrome, Moment, Status, Tab},
        visitor::SignedIn,
    },
};
use actix_web::{HttpResponse, web};
use askama::Template;

struct Row {
    href: String,
    person: String,
    account: String,
    state: Status,
    since: Moment,
    used: Option<Moment>,
    disconnect: String,
}

#[derive(Template)]
#[template(path = "pages/integrations/connected.html")]
struct ConnectedPage {
    chrome: Chrome,
    title: String,
    tabs: Vec<Tab>,
    list: ListFrame,
    rows: Vec<Row>,
    /// The page that disconnects everybody.
    everybody: String,
}

type Connected = (Connection, Person);

/// The state of a connection as an administrator sees it: the value of the filter, and its words.
pub(in crate::web::pages) fn state(connection: &Connection) -> (&'static str, Status) {
    match connection.state {
        State::Active => ("active", Status::positive("Connected")),
        State::NeedsLogin(_) => ("needs-login", Status::warning("Needs them again")),
        State::Unconfirmed => ("unconfirmed", Status::warning("Account not confirmed")),
    }
}

const COLUMNS: [ColumnSpec<Connected>; 5] = [
    ColumnSpec::new("person", "Person", |(_, person)| {
        natural_key(&person.display_name())
    }),
    ColumnSpec::new("account", "As", |(connection, _)| {
        natural_key(connection.account.label.as_deref().unwrap_or(""))
    }),
    ColumnSpec::new("state", "State", |(connection, _)| {
        state(connection).0.to_owned()
    }),
    ColumnSpec::greatest_first("since", "Since", |(connection, _)| {
        number_key(connection.connected_at.0)
    }),
    ColumnSpec::greatest_first("used", "Used", |(connection, _)| {
        number_key(connection.used_at.map_or(0, |at| at.0))
    }),
];

/// `GET /integrations/{guid}/connected`.
pub async fn list(me: SignedIn, path: web::Path<String>) -> Result<HttpResponse, WebError> {
    must_manage_integrations(&me.actor)?;
    let (service, now) = (me.service(), me.now());
    let integration = service
        .integrations
        .integration(&me.actor, id(&path)?)
        .await?;
    let all = service
        .revocations
        .connections_through(&me.actor, integration.id)
        .await?;
    let filters = [Filter {
        name: "state",
        label: "State",
        choices: vec![
            Choice::new("active", "Connected", ""),
            Choice::new("needs-login", "Needs them again", ""),
            Choice::new("unconfirmed", "Account not confirmed", ""),
        ],
        passes: Box::new(|(connection, _): &Connected, wanted| state(connection).0 == wanted),
    }];
    let base = addresses::integration(integration.id);
    let (list, all) = cut(
        &me.visitor.asked,
        &ListSpec {
            base: &format!("{base}{CONNECTED}"),
            nouns: ("person", "people"),
            columns: &COLUMNS,
            filters: &filters,
            text: |(connection, person)| {
                format!(
                    "{} {} {} {}",
                    person.display_name(),
                    person.username,
                    person.email,
                    connection.account.label.as_deref().unwrap_or("")
                )
            },
            id: |(connection, _)| connection.id.to_string(),
        },
        all,
    );
    page(&ConnectedPage {
        chrome: me.visitor.chrome(
            "integrations",
            &format!("People connected to {}", integration.display_name()),
        ),
        title: integration.display_name().to_owned(),
        tabs: integration_tabs(integration.id, CONNECTED),
        list,
        rows: all
            .into_iter()
            .map(|(connection, person)| Row {
                href: addresses::person(person.id),
                person: person.display_name(),
                account: connection.account.label.clone().unwrap_or_default(),
                state: state(&connection).1,
                since: Moment::new(connection.connected_at, now),
                used: connection.used_at.map(|at| Moment::new(at, now)),
                disconnect: format!(
                    "{}/disconnect?connection={}",
                    addresses::person(person.id),
                    connection.id
                ),
            })
            .collect(),
        everybody: format!("{base}/disconnect"),
    })
}
