//! The pages: one file for each group of pages, mirrored by `templates/pages`. Here: rendering, and
//! the page types that several files share. A failed POST answers 422 with the same page, the
//! posted values and the errors; secrets are never sent back.

pub mod access;
pub mod account;
pub mod audit;
pub mod callback;
pub mod choices;
pub mod consents;
pub mod content;
pub mod enter;
pub mod groups;
pub mod help;
pub mod integrations;
pub mod notifications;
pub mod organisation;
pub mod people;
pub mod sign_in;
mod versions;

use crate::{
    domain::{Id, form::FieldError, group::Principal},
    http::errors::WebError,
    service::Error,
    web::{
        forms::{Choice, Field, FieldKind, FormValues, refill},
        listing::{ChoiceSearch, Picker},
        view::{Chrome, NavLink},
        visitor::SignedIn,
    },
};
use actix_web::{HttpResponse, http::StatusCode};
use askama::Template;
use std::time::Duration;

/// How long a page waits for work that may go on in the background.
const PATIENCE: Duration = Duration::from_secs(3);

/// Renders a page with status 200.
pub fn page(template: &impl Template) -> Result<HttpResponse, WebError> {
    page_with(StatusCode::OK, template)
}

/// Renders a page with this status.
pub fn page_with(status: StatusCode, template: &impl Template) -> Result<HttpResponse, WebError> {
    let html = template.render().map_err(|error| {
        tracing::error!(reason = %error, "a template failed");
        Error::Internal("a template failed")
    })?;
    Ok(HttpResponse::build(status)
        .content_type("text/html; charset=utf-8")
        .body(html))
}

/// 200 for a form without errors, 422 for one that was refused.
pub fn form_status(problems: &[FieldError]) -> StatusCode {
    if problems.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::UNPROCESSABLE_ENTITY
    }
}

/// The field errors of a service error; any other kind of error is passed on as `Err`.
pub fn problems_of(error: Error) -> Result<Vec<FieldError>, WebError> {
    match error {
        Error::Invalid(problems) => Ok(problems),
        Error::Conflict(_) | Error::ChangedMeanwhile(_) => {
            Ok(vec![FieldError::new("", error.to_string())])
        }
        other => Err(other.into()),
    }
}

/// An id in an address; 404 if it is malformed.
pub fn id<T>(text: &str) -> Result<Id<T>, WebError> {
    text.parse().map_err(|_| Error::NotFound.into())
}

/// Parses `user:{guid}` or `group:{guid}`, the values of [`principal_field`].
pub fn principal(text: &str) -> Option<Principal> {
    match text.split_once(':')? {
        ("user", guid) => guid.parse().ok().map(Principal::Person),
        ("group", guid) => guid.parse().ok().map(Principal::Group),
        _ => None,
    }
}

/// All people and groups as choices, for [`principal`].
pub async fn principal_choices(me: &SignedIn) -> Result<Vec<(Principal, Choice)>, WebError> {
    let people = me.service().people.people(&me.actor).await?;
    let groups = me.service().groups.groups(&me.actor).await?;
    let people = people.iter().map(|person| {
        let label = person.name_and_username();
        (
            Principal::Person(person.id),
            Choice::new(format!("user:{}", person.id), label, ""),
        )
    });
    let groups = groups.iter().map(|group| {
        let label = format!("Group {}", group.name);
        (
            Principal::Group(group.id),
            Choice::new(format!("group:{}", group.id), label, ""),
        )
    });
    Ok(people.chain(groups).collect())
}

/// Chooses a person or a group, without those in `known`: a field `person` on the page at `action`.
pub async fn principal_picker(
    me: &SignedIn,
    action: &str,
    anchor: &'static str,
    known: &[Principal],
    problems: &[FieldError],
) -> Result<Picker, WebError> {
    let all = principal_choices(me).await?.into_iter();
    let offered = all.filter(|(principal, _)| !known.contains(principal));
    let options = std::iter::once(Choice::new("", "Choose a person or a group", ""))
        .chain(offered.map(|(_, choice)| choice))
        .collect();
    let mut field = [Field::new(FieldKind::Select, "person", "Person or group").options(options)];
    refill(&mut field, None, problems);
    let [field] = field;
    let what = (choices::PRINCIPALS, "Search people and groups");
    let search = ChoiceSearch::new(&me.visitor.asked, action, anchor, what);
    Ok(Picker::new(search, field))
}

/// A page that consists of one form.
#[derive(Template)]
#[template(path = "pages/form.html")]
pub struct FormPage {
    pub chrome: Chrome,
    pub intro: String,
    pub errors: Vec<FieldError>,
    pub fields: Vec<Field>,
    pub action: String,
    pub submit: String,
    pub cancel: String,
}

/// Confirmation of a destructive step: what stops, what does not happen, and one red button.
#[derive(Template)]
#[template(path = "pages/confirm.html")]
pub struct ConfirmPage {
    pub chrome: Chrome,
    pub errors: Vec<FieldError>,
    pub groups: Vec<Group>,
    pub link: Option<NavLink>,
    pub action: String,
    pub fields: Vec<Field>,
    pub submit: String,
    pub cancel: String,
}

/// “Confirm that it is you”. Its form posts to `action` with the values of the interrupted form as
/// hidden fields, so that the interrupted step completes.
#[derive(Template)]
#[template(path = "pages/confirm_identity.html")]
pub struct ConfirmIdentityPage {
    pub chrome: Chrome,
    pub errors: Vec<FieldError>,
    pub who: String,
    pub has_password: bool,
    /// The name of the organisation's sign-in, if one is configured.
    pub organisation: Option<String>,
    /// Address that starts a new sign-in at the organisation.
    pub again: String,
    pub action: String,
    pub fields: Vec<Field>,
}

/// A question before a step that cannot be taken back: its page sends the same form once more.
pub struct Question<'a> {
    /// The current entry of the navigation bar.
    pub area: &'static str,
    pub title: String,
    /// What happens, in sentences.
    pub consequences: &'a [&'a str],
    pub action: String,
    /// What was typed, to be sent again; and what else is asked.
    pub fields: Vec<Field>,
    pub submit: &'a str,
    pub cancel: String,
}

/// The field that says that the question was answered.
const SURE: &str = "sure";

/// Whether the question of [`ask_first`] was answered.
pub fn is_sure(typed: &FormValues) -> bool {
    typed.get(SURE).is_some()
}

/// The page of a question.
pub fn ask_first(me: &SignedIn, question: Question<'_>) -> Result<HttpResponse, WebError> {
    let mut fields = question.fields;
    fields.push(Field::new(FieldKind::Hidden, SURE, "").value("yes"));
    page(&ConfirmPage {
        chrome: me.visitor.chrome(question.area, &question.title),
        errors: Vec::new(),
        groups: vec![Group::new(
            "What happens",
            question.consequences,
            Vec::new(),
        )],
        link: None,
        action: question.action,
        fields,
        submit: question.submit.to_owned(),
        cancel: question.cancel,
    })
}

/// A heading with sentences and a list.
#[derive(Default)]
pub struct Group {
    pub title: String,
    pub lines: Vec<String>,
    pub items: Vec<String>,
}

impl Group {
    /// A heading (may be empty), its sentences, and its list (may be empty).
    pub fn new(title: &str, lines: &[&str], items: Vec<String>) -> Self {
        Self {
            title: title.into(),
            lines: lines.iter().map(|line| (*line).to_owned()).collect(),
            items,
        }
    }
}
