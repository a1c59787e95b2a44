//! `/people` and below.

use super::{FormPage, form_status, id, page, page_with, problems_of};
use crate::{
    domain::{
        access, addresses,
        person::{Person, Role},
    },
    providers::Problem,
    service::{Error, people::PersonInput},
    web::{
        forms::{Choice, Field, Kind, Typed, refill},
        problems::WebError,
        view::{Chrome, Moment, Status},
        visitor::{Me, Posted},
    },
};
use actix_web::{HttpResponse, web};
use askama::Template;

struct Row {
    href: String,
    name: String,
    detail: String,
    role: &'static str,
    state: Status,
    seen: Option<Moment>,
}

#[derive(Template)]
#[template(path = "pages/people.html")]
struct ListPage {
    chrome: Chrome,
    rows: Vec<Row>,
}

fn must_manage(me: &Me) -> Result<(), WebError> {
    if access::may_manage_people(me.actor.role) { Ok(()) } else { Err(Error::Forbidden("Only administrators manage people.").into()) }
}

pub async fn list(me: Me) -> Result<HttpResponse, WebError> {
    must_manage(&me)?;
    let now = me.service().now();
    let rows = me
        .service()
        .people(&me.actor)
        .await?
        .into_iter()
        .map(|person| Row {
            href: addresses::person(person.id),
            name: person.display_name(),
            detail: if person.email.is_empty() { person.username.clone() } else { format!("{} · {}", person.username, person.email) },
            role: person.role.label(),
            state: if person.locked { Status::negative("Locked") } else { Status::positive("Active") },
            seen: person.active_at.map(|at| Moment::new(at, now)),
        })
        .collect();
    page(&ListPage { chrome: me.visitor.chrome("people", "People"), rows })
}

fn fields() -> Vec<Field> {
    vec![
        Field::text("username", "User name"),
        Field::new(Kind::Email, "email", "E-mail address")
            .hint("As the identity provider knows this person: sign-ins with another account are noticed."),
        Field::text("first_name", "First name"),
        Field::text("last_name", "Last name"),
        Field::new(Kind::Radio, "role", "Role").value("viewer").options(vec![
            Choice::new("viewer", "Viewer", "Opens content and decides about own consents."),
            Choice::new("publisher", "Publisher", "Also adds content and picks integrations."),
            Choice::new("administrator", "Administrator", "Also manages integrations and people, and reads the record."),
        ]),
    ]
}

fn password_field() -> Field {
    Field::new(Kind::Secret, "password", "Password")
        .hint("At least 8 characters. The person can change it under Account.")
        .autocomplete("new-password")
}

fn input(typed: &Typed) -> Result<PersonInput, Error> {
    let text = |name: &str| Some(typed.text(name).to_owned());
    let role = Role::parse(typed.text("role")).ok_or_else(|| crate::service::invalid("role", "Choose a role."))?;
    Ok(PersonInput {
        username: text("username"),
        email: text("email"),
        first_name: text("first_name"),
        last_name: text("last_name"),
        role: Some(role),
        password: None,
    })
}

/// A taken name belongs to the name's field.
fn problems(error: Error) -> Result<Vec<Problem>, WebError> {
    let found = problems_of(error)?;
    Ok(found.into_iter().map(|problem| if problem.key.is_empty() { Problem::new("username", problem.message) } else { problem }).collect())
}

fn draw_new(me: &Me, typed: Option<&Typed>, errors: Vec<Problem>) -> Result<HttpResponse, WebError> {
    let mut fields = fields();
    fields.push(password_field());
    refill(&mut fields, typed, &errors);
    page_with(
        form_status(&errors),
        &FormPage {
            chrome: me.visitor.chrome("people", "Add person"),
            intro: String::new(),
            errors,
            fields,
            action: "/people/new".into(),
            submit: "Add person".into(),
            cancel: "/people".into(),
        },
    )
}

pub async fn new_page(me: Me) -> Result<HttpResponse, WebError> {
    must_manage(&me)?;
    draw_new(&me, None, Vec::new())
}

pub async fn create(me: Me, Posted(typed): Posted) -> Result<HttpResponse, WebError> {
    must_manage(&me)?;
    let created = match input(&typed) {
        Ok(input) => me.service().create_person(&me.actor, PersonInput { password: Some(typed.password("password")), ..input }).await,
        Err(error) => Err(error),
    };
    match created {
        Ok(person) => Ok(me.done("/people", format!("Added {}.", person.display_name()))),
        Err(error) => draw_new(&me, Some(&typed), problems(error)?),
    }
}

#[derive(Template)]
#[template(path = "pages/person.html")]
struct PersonPage {
    chrome: Chrome,
    errors: Vec<Problem>,
    base: String,
    fields: Vec<Field>,
    password_fields: Vec<Field>,
    own: bool,
    locked: bool,
}

fn draw(me: &Me, person: &Person, typed: Option<&Typed>, errors: Vec<Problem>) -> Result<HttpResponse, WebError> {
    let mut fields = fields();
    let stored = Typed(vec![
        ("username".into(), person.username.clone()),
        ("email".into(), person.email.clone()),
        ("first_name".into(), person.first_name.clone()),
        ("last_name".into(), person.last_name.clone()),
        ("role".into(), person.role.as_str().into()),
    ]);
    refill(&mut fields, Some(typed.unwrap_or(&stored)), &errors);
    let mut password_fields = vec![password_field()];
    refill(&mut password_fields, None, &errors);
    page_with(
        form_status(&errors),
        &PersonPage {
            chrome: me.visitor.chrome("people", &person.display_name()),
            base: addresses::person(person.id),
            fields,
            password_fields,
            own: person.id == me.actor.person.id,
            locked: person.locked,
            errors,
        },
    )
}

pub async fn detail(me: Me, path: web::Path<String>) -> Result<HttpResponse, WebError> {
    must_manage(&me)?;
    let person = me.service().person(&me.actor, id(&path)?).await?;
    draw(&me, &person, None, Vec::new())
}

pub async fn save(me: Me, path: web::Path<String>, Posted(typed): Posted) -> Result<HttpResponse, WebError> {
    must_manage(&me)?;
    let person = me.service().person(&me.actor, id(&path)?).await?;
    let saved = match input(&typed) {
        Ok(input) => me.service().update_person(&me.actor, person.id, input).await,
        Err(error) => Err(error),
    };
    match saved {
        Ok(person) => Ok(me.done(&addresses::person(person.id), format!("Saved {}.", person.display_name()))),
        Err(error) => draw(&me, &person, Some(&typed), problems(error)?),
    }
}

pub async fn set_password(me: Me, path: web::Path<String>, Posted(typed): Posted) -> Result<HttpResponse, WebError> {
    must_manage(&me)?;
    let person = me.service().person(&me.actor, id(&path)?).await?;
    match me.service().reset_password(&me.actor, person.id, typed.password("password")).await {
        Ok(()) => Ok(me.done(&addresses::person(person.id), format!("Set a new password for {}.", person.display_name()))),
        Err(error) => draw(&me, &person, None, problems(error)?),
    }
}

pub async fn lock(me: Me, path: web::Path<String>, Posted(typed): Posted) -> Result<HttpResponse, WebError> {
    must_manage(&me)?;
    let person = me.service().person(&me.actor, id(&path)?).await?;
    let locked = typed.text("locked") == "yes";
    me.service().set_locked(&me.actor, person.id, locked).await?;
    let message = if locked { "Locked" } else { "Unlocked" };
    Ok(me.done(&addresses::person(person.id), format!("{message} {}.", person.display_name())))
}
