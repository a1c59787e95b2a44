//! `GET /people`: all people, with search and filters.

use crate::{
    domain::{
        addresses,
        person::{Person, Role},
    },
    http::errors::WebError,
    service::core::must_manage_people,
    web::{
        forms::Choice,
        listing::{ColumnSpec, Filter, ListFrame, ListSpec, cut, natural_key, number_key},
        pages::page,
        view::{Chrome, Moment, Status},
        visitor::SignedIn,
    },
};
use actix_web::HttpResponse;
use askama::Template;
use strum::VariantArray as _;

struct Row {
    href: String,
    name: String,
    detail: String,
    role: &'static str,
    state: Status,
    seen: Option<Moment>,
}

#[derive(Template)]
#[template(path = "pages/people/list.html")]
struct ListPage {
    chrome: Chrome,
    list: ListFrame,
    rows: Vec<Row>,
}

/// The state of a person: a word that is also the value of the filter.
fn state(person: &Person) -> (&'static str, Status) {
    match person {
        Person { locked: true, .. } => ("locked", Status::negative("Locked")),
        Person {
            active_at: None, ..
        } => ("new", Status::neutral("Never signed in")),
        _ => ("active", Status::positive("Active")),
    }
}

const COLUMNS: [ColumnSpec<Person>; 4] = [
    ColumnSpec::new("name", "Name", |person| natural_key(&person.display_name())),
    ColumnSpec::new("role", "Role", |person| person.role.label().to_owned()),
    ColumnSpec::new("state", "State", |person| state(person).0.to_owned()),
    ColumnSpec::greatest_first("seen", "Last signed in", |person| {
        number_key(person.active_at.map_or(0, |at| at.0))
    }),
];

/// `GET /people`.
pub async fn list(me: SignedIn) -> Result<HttpResponse, WebError> {
    must_manage_people(&me.actor)?;
    let now = me.service().core.now();
    let people = me.service().people.people(&me.actor).await?;
    let roles = Role::VARIANTS.iter();
    let roles = roles.map(|role| Choice::new(role.as_str(), role.label(), ""));
    let filters = [
        Filter {
            name: "role",
            label: "Role",
            choices: roles.collect(),
            passes: Box::new(|person: &Person, role| person.role.as_str() == role),
        },
        Filter {
            name: "state",
            label: "State",
            choices: vec![
                Choice::new("active", "Active", ""),
                Choice::new("locked", "Locked", ""),
                Choice::new("new", "Never signed in", ""),
            ],
            passes: Box::new(|person: &Person, wanted| state(person).0 == wanted),
        },
    ];
    let (list, people) = cut(
        &me.visitor.asked,
        &ListSpec {
            base: "/people",
            nouns: ("person", "people"),
            columns: &COLUMNS,
            filters: &filters,
            text: |person| {
                format!(
                    "{} {} {}",
                    person.display_name(),
                    person.username,
                    person.email
                )
            },
            id: |person| person.id.to_string(),
        },
        people,
    );
    let rows = people
        .into_iter()
        .map(|person| Row {
            href: addresses::person(person.id),
            name: person.display_name(),
            detail: if person.email.is_empty() {
                person.username.clone()
            } else {
                format!("{} · {}", person.username, person.email)
            },
            role: person.role.label(),
            state: state(&person).1,
            seen: person.active_at.map(|at| Moment::new(at, now)),
        })
        .collect();
    page(&ListPage {
        chrome: me.visitor.chrome("people", "People"),
        list,
        rows,
    })
}
