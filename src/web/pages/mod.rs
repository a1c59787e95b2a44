//! One file a group of pages; `templates/pages` mirrors them.

pub mod account;
pub mod audit;
pub mod callback;
pub mod consents;
pub mod content;
pub mod enter;
pub mod groups;
pub mod integrations;
pub mod organisation;
pub mod people;
pub mod sign_in;

use super::{
    forms::{Choice, Field, Kind},
    problems::WebError,
    view::{Chrome, Link},
    visitor::Me,
};
use crate::{
    domain::{Id, group::Principal},
    providers::Problem,
    service::Error,
};
use actix_web::{HttpResponse, http::StatusCode};
use askama::Template;

/// Draws a page.
pub fn page(template: &impl Template) -> Result<HttpResponse, WebError> {
    page_with(StatusCode::OK, template)
}

pub fn page_with(status: StatusCode, template: &impl Template) -> Result<HttpResponse, WebError> {
    let html = template.render().map_err(|error| {
        tracing::error!(reason = %error, "a template failed");
        Error::Internal
    })?;
    Ok(HttpResponse::build(status)
        .content_type("text/html; charset=utf-8")
        .body(html))
}

/// 200 for a fresh form, 422 for one that comes back.
pub fn form_status(problems: &[Problem]) -> StatusCode {
    if problems.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::UNPROCESSABLE_ENTITY
    }
}

/// What is wrong with a form, if that is what the error says.
pub fn problems_of(error: Error) -> Result<Vec<Problem>, WebError> {
    match error {
        Error::Invalid(problems) => Ok(problems),
        Error::Conflict(message) => Ok(vec![Problem::new("", message)]),
        other => Err(other.into()),
    }
}

/// An id in an address; anything else leads nowhere.
pub fn id<T>(text: &str) -> Result<Id<T>, WebError> {
    text.parse().map_err(|_| Error::NotFound.into())
}

/// `user:{guid}` or `group:{guid}`, as a list of choices sends it.
pub fn principal(text: &str) -> Option<Principal> {
    match text.split_once(':')? {
        ("user", guid) => guid.parse().ok().map(Principal::Person),
        ("group", guid) => guid.parse().ok().map(Principal::Group),
        _ => None,
    }
}

/// A list to choose a person or a group from, without those that are `known`.
pub async fn principal_field(me: &Me, label: &str, known: &[Principal]) -> Result<Field, WebError> {
    let people = me.service().people(&me.actor).await?;
    let groups = me.service().groups(&me.actor).await?;
    let people = people
        .iter()
        .filter(|person| !known.contains(&Principal::Person(person.id)))
        .map(|person| {
            Choice::new(
                format!("user:{}", person.id),
                format!("{} ({})", person.display_name(), person.username),
                "",
            )
        });
    let groups = groups
        .iter()
        .filter(|group| !known.contains(&Principal::Group(group.id)))
        .map(|group| {
            Choice::new(
                format!("group:{}", group.id),
                format!("Group {}", group.name),
                "",
            )
        });
    let options = std::iter::once(Choice::new("", "Choose a person or a group", ""))
        .chain(people)
        .chain(groups)
        .collect();
    Ok(Field::new(Kind::Select, "person", label).options(options))
}

/// A page with one form and nothing else.
#[derive(Template)]
#[template(path = "pages/form.html")]
pub struct FormPage {
    pub chrome: Chrome,
    pub intro: String,
    pub errors: Vec<Problem>,
    pub fields: Vec<Field>,
    pub action: String,
    pub submit: String,
    pub cancel: String,
}

/// A step that takes something away: what stops, what does not happen, one red button.
#[derive(Template)]
#[template(path = "pages/confirm.html")]
pub struct ConfirmPage {
    pub chrome: Chrome,
    pub errors: Vec<Problem>,
    pub groups: Vec<Group>,
    pub link: Option<Link>,
    pub action: String,
    pub fields: Vec<Field>,
    pub submit: String,
    pub cancel: String,
}

/// "Confirm that it is you": whatever was being done goes on from here.
#[derive(Template)]
#[template(path = "pages/confirm_identity.html")]
pub struct ConfirmIdentityPage {
    pub chrome: Chrome,
    pub errors: Vec<Problem>,
    pub who: String,
    pub has_password: bool,
    /// The name of the organisation's sign-in, if there is one.
    pub organisation: Option<String>,
    pub again: String,
    pub action: String,
    pub fields: Vec<Field>,
}

/// A heading with sentences and a list.
#[derive(Default)]
pub struct Group {
    pub title: String,
    pub lines: Vec<String>,
    pub items: Vec<String>,
}

impl Group {
    pub fn new(title: &str, lines: &[&str], items: Vec<String>) -> Self {
        Self {
            title: title.into(),
            lines: lines.iter().map(|line| (*line).to_owned()).collect(),
            items,
        }
    }
}
