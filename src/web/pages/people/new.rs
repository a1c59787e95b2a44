//! `/people/new`: adds a person.

use crate::{
    domain::form::FieldError,
    http::errors::WebError,
    service::{core::must_manage_people, people::accounts::PersonInput},
    web::{
        confirmation::Confirmed,
        forms::{FormValues, refill},
        pages::{
            FormPage, form_status, page_with,
            people::{
                form::{fields, input, password_field, problems},
                invite::show_link,
            },
        },
        visitor::SignedIn,
    },
};
use actix_web::HttpResponse;
use secrecy::ExposeSecret as _;

fn draw_new(
    me: &SignedIn,
    typed: Option<&FormValues>,
    errors: Vec<FieldError>,
) -> Result<HttpResponse, WebError> {
    let mut fields = fields();
    fields.push(password_field().hint("At least 8 characters. Leave it empty to get a one-time link by which the person chooses one."));
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

/// `GET /people/new`.
pub async fn new_page(me: SignedIn) -> Result<HttpResponse, WebError> {
    must_manage_people(&me.actor)?;
    draw_new(&me, None, Vec::new())
}

/// `POST /people/new`. Without a password, redirects to a page that shows a one-time link.
pub async fn create(me: SignedIn, Confirmed(typed): Confirmed) -> Result<HttpResponse, WebError> {
    must_manage_people(&me.actor)?;
    let password =
        Some(typed.password("password")).filter(|password| !password.expose_secret().is_empty());
    let invited = password.is_none();
    let created = match input(&typed) {
        Ok(input) => {
            me.service()
                .people
                .create_person(&me.actor, PersonInput { password, ..input })
                .await
        }
        Err(error) => Err(error),
    };
    match created {
        Ok(person) if invited => show_link(&me, &person).await,
        Ok(person) => Ok(me.done("/people", format!("Added {}.", person.display_name()))),
        Err(error) => draw_new(&me, Some(&typed), problems(error)?),
    }
}
