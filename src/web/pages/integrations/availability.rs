//! `POST /integrations/{guid}/availability` and `…/list`: who may choose an integration.

use crate::{
    domain::{
        Id, addresses,
        form::FieldError,
        group::Principal,
        integration::{Availability, Integration},
    },
    http::errors::WebError,
    service::{catalog::integrations::IntegrationInput, core::must_manage_integrations},
    web::{
        pages::{PATIENCE, id, integrations::show::draw_detail, principal, problems_of},
        visitor::{Posted, SignedIn},
    },
};
use actix_web::{HttpResponse, web};

/// `POST /integrations/{guid}/availability`: who may choose the integration for content.
pub async fn set_availability(
    me: SignedIn,
    path: web::Path<String>,
    Posted(typed): Posted,
) -> Result<HttpResponse, WebError> {
    must_manage_integrations(&me.actor)?;
    let guid = id(&path)?;
    let Some(availability) = Availability::parse(typed.text("availability")) else {
        return draw_detail(
            &me,
            guid,
            vec![FieldError::new("availability", "Choose one of the three.")],
        )
        .await;
    };
    change(
        &me,
        guid,
        IntegrationInput {
            availability: Some(availability),
            ..IntegrationInput::default()
        },
        "Saved who may choose it.",
    )
    .await
}

/// `POST /integrations/{guid}/people`: adds a person or group to the list of those who may choose
/// it.
pub async fn list_principal(
    me: SignedIn,
    path: web::Path<String>,
    Posted(typed): Posted,
) -> Result<HttpResponse, WebError> {
    must_manage_integrations(&me.actor)?;
    let guid = id(&path)?;
    let Some(new) = principal(typed.text("person")) else {
        return draw_detail(
            &me,
            guid,
            vec![FieldError::new("person", "Choose a person or a group.")],
        )
        .await;
    };
    let listed = me
        .service()
        .integrations
        .integration_list(&me.actor, guid)
        .await?
        .into_iter()
        .map(|(entry, _)| entry.principal);
    let listed: Vec<Principal> = listed.chain([new]).collect();
    change(
        &me,
        guid,
        IntegrationInput {
            listed: Some(listed),
            ..IntegrationInput::default()
        },
        "Added to the list.",
    )
    .await
}

/// `POST /integrations/{guid}/people/{number}/remove`.
pub async fn unlist(
    me: SignedIn,
    path: web::Path<(String, i64)>,
    _: Posted,
) -> Result<HttpResponse, WebError> {
    must_manage_integrations(&me.actor)?;
    let guid = id(&path.0)?;
    let entries = me
        .service()
        .integrations
        .integration_list(&me.actor, guid)
        .await?;
    let listed = entries
        .into_iter()
        .filter(|(entry, _)| entry.number != path.1)
        .map(|(entry, _)| entry.principal)
        .collect();
    change(
        &me,
        guid,
        IntegrationInput {
            listed: Some(listed),
            ..IntegrationInput::default()
        },
        "Removed from the list.",
    )
    .await
}

/// Saves a change from the detail page; errors appear at its list.
pub(super) async fn change(
    me: &SignedIn,
    guid: Id<Integration>,
    input: IntegrationInput,
    message: &str,
) -> Result<HttpResponse, WebError> {
    match me
        .service()
        .integrations
        .update_integration(&me.actor, guid, input, PATIENCE)
        .await
    {
        Ok(_) => Ok(me.done(&addresses::integration(guid), message)),
        Err(error) => {
            let problems = problems_of(error)?
                .into_iter()
                .map(|problem| FieldError::new("person", problem.message))
                .collect();
            draw_detail(me, guid, problems).await
        }
    }
}
