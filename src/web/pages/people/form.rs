//! The fields of a person.

use crate::{
    domain::{form::FieldError, person::Role},
    http::errors::WebError,
    service::{Error, people::accounts::PersonInput},
    web::{
        forms::{Choice, Field, FieldKind, FormValues},
        pages::{problems_of, versions::based_on},
    },
};

pub(super) fn fields() -> Vec<Field> {
    vec![
        Field::text("username", "User name"),
        Field::new(FieldKind::Email, "email", "E-mail address")
            .hint("As the identity provider knows this person: sign-ins with another account are noticed."),
        Field::text("first_name", "First name"),
        Field::text("last_name", "Last name"),
        Field::new(FieldKind::Radio, "role", "Role").value("viewer").options(vec![
            Choice::new("viewer", "Viewer", "Opens content and decides about own consents."),
            Choice::new("publisher", "Publisher", "Also adds content and picks integrations."),
            Choice::new("administrator", "Administrator", "Also manages integrations and people, and reads the record."),
        ]),
    ]
}

pub(super) fn password_field() -> Field {
    Field::new(FieldKind::Secret, "password", "Password")
        .hint("At least 8 characters. The person can change it under Account.")
        .autocomplete("new-password")
}

/// The posted fields, without a password. The error names the role if it is missing.
pub(super) fn input(typed: &FormValues) -> Result<PersonInput, Error> {
    let text = |name: &str| Some(typed.text(name).to_owned());
    let role = Role::parse(typed.text("role"))
        .ok_or_else(|| crate::service::invalid("role", "Choose a role."))?;
    Ok(PersonInput {
        username: text("username"),
        email: text("email"),
        first_name: text("first_name"),
        last_name: text("last_name"),
        role: Some(role),
        password: None,
        based_on: based_on(typed),
    })
}

/// Field errors; an error without a field (a name that is taken) goes to the user name.
pub(super) fn problems(error: Error) -> Result<Vec<FieldError>, WebError> {
    let found = problems_of(error)?;
    Ok(found
        .into_iter()
        .map(|problem| {
            if problem.key.is_empty() {
                FieldError::new("username", problem.message)
            } else {
                problem
            }
        })
        .collect())
}
