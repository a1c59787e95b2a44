//! `POST /integrations/new`: creates an integration.

use crate::{
    domain::{Id, addresses, form::FieldError, integration::Availability},
    http::errors::WebError,
    providers,
    service::{Error, catalog::integrations::SAME_NAME, core::must_manage_integrations},
    web::{
        confirmation::Confirmed,
        pages::{
            integrations::{
                form::{Confirmation, FormTarget, draw_form, input},
                kept_secret,
            },
            problems_of,
        },
        visitor::SignedIn,
    },
};
use actix_web::HttpResponse;

/// `POST /integrations/new`.
pub async fn create(
    me: SignedIn,
    Confirmed(mut typed): Confirmed,
) -> Result<HttpResponse, WebError> {
    must_manage_integrations(&me.actor)?;
    kept_secret::take(&me, &mut typed).await?;
    let template = providers::template(typed.text("template")).ok_or(Error::NotFound)?;
    let (input, own) = input(template, &typed, None, *me.now());
    let guid = input.id.unwrap_or_else(Id::random);
    if !own.is_empty() {
        // Nothing is saved, but the remaining checks run as well, so that all errors are reported
        // together.
        let mut problems = own;
        problems.extend(
            template
                .validate(&input.config, &me.service().core.policy)
                .err()
                .unwrap_or_default(),
        );
        let needs_secret = template.client_authentication(&input.config).needs_secret();
        if input.client_secret.is_none() && needs_secret {
            problems.push(FieldError::new("client_secret", "Enter the client secret."));
        }
        return draw_form(
            &me,
            FormTarget::New(template, guid),
            Some(&typed),
            problems,
            None,
        )
        .await;
    }
    match me
        .service()
        .integrations
        .create_integration(&me.actor, input)
        .await
    {
        Ok(integration) => {
            let next = match integration.availability {
                Availability::Everyone => "Publishers can choose it now.",
                Availability::Listed => "Now name who may choose it.",
                Availability::Nobody => "Only administrators can choose it.",
            };
            Ok(me.done(
                &addresses::integration(integration.id),
                format!("Saved {}. {next}", integration.display_name()),
            ))
        }
        Err(Error::Invalid(problems)) if problems.iter().any(|one| one.key == SAME_NAME) => {
            let titles = problems.into_iter().map(|problem| problem.message);
            let ask = Confirmation {
                field: SAME_NAME,
                title: titles.collect(),
                text: "Publishers could not tell the two apart. Enter another name, or tick the box to have two of this name.".into(),
                items: Vec::new(),
                label: "Save it under the same name".into(),
            };
            draw_form(
                &me,
                FormTarget::New(template, guid),
                Some(&typed),
                Vec::new(),
                Some(ask),
            )
            .await
        }
        Err(error) => {
            draw_form(
                &me,
                FormTarget::New(template, guid),
                Some(&typed),
                problems_of(error)?,
                None,
            )
            .await
        }
    }
}
