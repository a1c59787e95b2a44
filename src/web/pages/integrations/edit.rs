//! `/integrations/{guid}/edit`: changes an integration; asks first if connections would end.

use crate::{
    domain::{addresses, integration::Integration},
    http::errors::WebError,
    providers,
    service::{Error, catalog::integrations::UpdateOutcome, core::must_manage_integrations},
    web::{
        confirmation::Confirmed,
        forms::FormValues,
        pages::{
            PATIENCE, id,
            integrations::{
                form::{Confirmation, FormTarget, draw_form, input},
                kept_secret,
            },
            problems_of,
            versions::differences,
        },
        view::{count_noun, some_of},
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
    .await
}

/// `POST /integrations/{guid}/edit`. A change that ends connections asks back first.
pub async fn edit(
    me: SignedIn,
    path: web::Path<String>,
    Confirmed(mut typed): Confirmed,
) -> Result<HttpResponse, WebError> {
    must_manage_integrations(&me.actor)?;
    kept_secret::take(&me, &mut typed).await?;
    let guid = id(&path)?;
    let integration = me
        .service()
        .integrations
        .integration(&me.actor, guid)
        .await?;
    let template = providers::template(&integration.template).ok_or(Error::Internal(
        "the configuration of an integration is damaged",
    ))?;
    let (input, own) = input(template, &typed, Some(&integration), *me.now());
    if !own.is_empty() {
        return draw_form(
            &me,
            FormTarget::Edit(template, &integration),
            Some(&typed),
            own,
            None,
        )
        .await;
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
                field: "confirmed",
                title: format!("This signs out {}", count_noun(impact.people.len(), "person", "people")),
                text: "Their connections were made with the old values and end. Each is asked again on the next visit. Tick the box, and save.".into(),
                items: some_of(impact.people.iter().map(crate::domain::person::Person::display_name).collect()),
                label: "Yes, sign them out".into(),
            };
            draw_form(
                &me,
                FormTarget::Edit(template, &integration),
                Some(&typed),
                Vec::new(),
                Some(ask),
            )
            .await
        }
        Err(changed @ Error::ChangedMeanwhile(_)) => {
            let now = me
                .service()
                .integrations
                .integration(&me.actor, guid)
                .await?;
            let problem = differences(&changed, &stored_values(&now, template), &mut typed);
            draw_form(
                &me,
                FormTarget::Edit(template, &now),
                Some(&typed),
                vec![problem],
                None,
            )
            .await
        }
        Err(error) => {
            draw_form(
                &me,
                FormTarget::Edit(template, &integration),
                Some(&typed),
                problems_of(error)?,
                None,
            )
            .await
        }
    }
}

/// What the form shows before anything is typed, without what a list of usual values stands for.
fn stored_values(stored: &Integration, template: &providers::Template) -> FormValues {
    let mut values = vec![
        ("name".to_owned(), stored.name.clone().unwrap_or_default()),
        (
            "description".to_owned(),
            stored.description.clone().unwrap_or_default(),
        ),
    ];
    let shown = template.fields.iter().filter(|field| {
        !field.secret && !template.presets.iter().any(|list| list.fills == field.name)
    });
    values.extend(shown.map(|field| {
        let value = stored.setting(field.name).to_owned();
        (field.name.to_owned(), value)
    }));
    FormValues(values)
}
