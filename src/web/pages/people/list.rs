//! `GET /people`: all people, with search and filters.

use crate::{
    domain::{
        Timestamp, addresses,
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
    guid: String,
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

/// The state of a person: the value of the filter, and a word.
pub(super) fn state_of(
    person: &Person,
    link: Option<Timestamp>,
    now: Timestamp,
) -> (&'static str, Status) {
    match (person.locked, person.active_at, link) {
        (true, ..) => ("locked", Status::negative("Locked")),
        (_, Some(_), _) => ("active", Status::positive("Active")),
        (_, None, Some(end)) if end > now => ("invited", Status::neutral("Invited")),
        (_, None, Some(_)) => ("expired", Status::warning("Invitation expired")),
        (_, None, None) => ("new", Status::neutral("Never signed in")),
    }
}

/// One row with its state.
struct Known {
    person: Person,
    word: &'static str,
    state: Status,
}

const COLUMNS: [ColumnSpec<Known>; 4] = [
    ColumnSpec::new("name", "Name", |known| {
        natural_key(&known.person.display_name())
    }),
    ColumnSpec::new("role", "Role", |known| known.person.role.label().to_owned()),
    ColumnSpec::new("state", "State", |known| known.word.to_owned()),
    ColumnSpec::greatest_first("seen", "Last signed in", |known| {
        number_key(known.person.active_at.map_or(0, |at| at.0))
    }),
];

/// `GET /people`.
pub async fn list(me: SignedIn) -> Result<HttpResponse, WebError> {
    must_manage_people(&me.actor)?;
    let now = me.now();
    let people = me.service().people.people(&me.actor).await?;
    let links = me.service().invitations.links(&me.actor).await?;
    let people = people
        .into_iter()
        .map(|person| {
            let link = links.get(&person.id).copied();
            let (word, state) = state_of(&person, link, *now);
            Known {
                person,
                word,
                state,
            }
        })
        .collect();
    let roles = Role::VARIANTS.iter();
    let roles = roles.map(|role| Choice::new(role.as_str(), role.label(), ""));
    let filters = [
        Filter {
            name: "role",
            label: "Role",
            choices: roles.collect(),
            passes: Box::new(|known: &Known, role| known.person.role.as_str() == role),
        },
        Filter {
            name: "state",
            label: "State",
            choices: vec![
                Choice::new("active", "Active", ""),
                Choice::new("locked", "Locked", ""),
                Choice::new("invited", "Invited", ""),
                Choice::new("expired", "Invitation expired", ""),
                Choice::new("new", "Never signed in", ""),
            ],
            passes: Box::new(|known: &Known, wanted| known.word == wanted),
        },
    ];
    let (list, people) = cut(
        &me.visitor.asked,
        &ListSpec {
            base: "/people",
            nouns: ("person", "people"),
            columns: &COLUMNS,
            filters: &filters,
            text: |Known { person, .. }| {
                format!(
                    "{} {} {}",
                    person.display_name(),
                    person.username,
                    person.email
                )
            },
            id: |known| known.person.id.to_string(),
        },
        people,
    );
    let rows = people
        .into_iter()
        .map(|Known { person, state, .. }| Row {
            guid: person.id.to_string(),
            href: addresses::person(person.id),
            name: person.display_name(),
            detail: if person.email.is_empty() {
                person.username.clone()
            } else {
                format!("{} · {}", person.username, person.email)
            },
            role: person.role.label(),
            state,
            seen: person.active_at.map(|at| Moment::new(at, now)),
        })
        .collect();
    page(&ListPage {
        chrome: me.visitor.chrome("people", "People"),
        list,
        rows,
    })
}
