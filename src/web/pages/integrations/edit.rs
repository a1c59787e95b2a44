//! `/integrations/{guid}/edit`: changes an integration; asks first if connections would end.

use crate::{
    domain::addresses,
    http::errors::WebError,
    providers,
    service::{Error, catalog::integrations::UpdateOutcome, core::must_manage_integrations},
    web::{
        confirmation::Confirmed,
        pages::{
            PATIENCE, id,
            integrations::form::{Confirmation, FormTarget, draw_form, input},
            problems_of,
        },
        view::count_noun,
        visitor::SignedIn,
    },
};
use actix_web::{HttpRequest, HttpResponse, web};

/// `GET /integrations/{guid}/edit`.
pub async fn edit_page(
    me: SignedIn,
    request: HttpRequest,
    path: web::Path<String>,
) -> Result<HttpResponse, WebError> {
    must_manage_integrations(&me.actor)?;
    me.visitor.require_confirmation(&request)?;
    let integration = me
        .service()
        .integrations
        .integration(&me.actor, id(&path)?)
        .await?;
    let template = providers::template(&integration.template).ok_or(Error::Internal(
        "the configuration of an integration is damaged",
    ))?;
    draw_form(
        &me,
        FormTarget::Edit(template, &integration),
        None,
        Vec::new(),
        None,
    )
}

/// `POST /integrations/{guid}/edit`. A change that ends connections asks back first.
pub async fn edit(
    me: SignedIn,
    path: web::Path<String>,
    Confirmed(typed): Confirmed,
) -> Result<HttpResponse, WebError> {
    must_manage_integrations(&me.actor)?;
    let guid = id(&path)?;
    let integration = me
        .service()
        .integrations
        .integration(&me.actor, guid)
        .await?;
    let template = providers::template(&integration.template).ok_or(Error::Internal(
        "the configuration of an integration is damaged",
    ))?;
    let (input, own) = input(template, &typed, true);
    if !own.is_empty() {
        return draw_form(
            &me,
            FormTarget::Edit(template, &integration),
            Some(&typed),
            own,
            None,
        );
    }
    match me
        .service()
        .integrations
        .update_integration(&me.actor, guid, input, PATIENCE)
        .await
    {
        Ok(UpdateOutcome::Saved(saved)) => Ok(me.done(
            &addresses::integration(guid),
            format!("Saved {}.", saved.display_name()),
        )),
        Ok(UpdateOutcome::GoesOn) => Ok(me.done(
            &addresses::integration(guid),
            "The new settings are saved as soon as all connections have ended.",
        )),
        Ok(UpdateOutcome::NeedsConfirmation(impact)) => {
            let ask = Confirmation {
                title: format!("This signs out {}", count_noun(impact.people.len(), "person", "people")),
                text: "Their connections were made with the old values and end. Each is asked again on the next visit. Enter the client secret again, tick the box, and save.".into(),
                items: impact.people.iter().map(crate::domain::person::Person::display_name).collect(),
                label: "Yes, sign them out".into(),
            };
            draw_form(
                &me,
                FormTarget::Edit(template, &integration),
                Some(&typed),
                Vec::new(),
                Some(ask),
            )
        }
        Err(error) => draw_form(
            &me,
            FormTarget::Edit(template, &integration),
            Some(&typed),
            problems_of(error)?,
            None,
        ),
    }
}
