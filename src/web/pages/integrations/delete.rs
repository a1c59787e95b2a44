//! `/integrations/{guid}/delete`: deletes an integration; says first who is affected.

use crate::{
    domain::{addresses, form::FieldError, integration::Integration},
    http::errors::WebError,
    providers,
    service::{catalog::integrations::Impact, core::must_manage_integrations},
    web::{
        confirmation::Confirmed,
        forms::{Field, refill},
        pages::{ConfirmPage, Group, PATIENCE, form_status, id, page_with},
        view::count_noun,
        visitor::SignedIn,
    },
};
use actix_web::{HttpResponse, web};

/// The page that confirms deletion. If people are connected, the integration's name must be typed.
fn draw_delete(
    me: &SignedIn,
    integration: &Integration,
    impact: &Impact,
    errors: Vec<FieldError>,
) -> Result<HttpResponse, WebError> {
    let name = integration.display_name();
    let service = providers::names(integration).service;
    let mut groups = Vec::new();
    if impact.contents.is_empty() {
        groups.push(Group::new("", &["No content uses it."], Vec::new()));
    } else {
        let title = format!(
            "{} stop working with {service}",
            count_noun(
                impact.contents.len(),
                "content item will",
                "content items will"
            )
        );
        groups.push(Group::new(
            &title,
            &[],
            impact
                .contents
                .iter()
                .map(|item| item.display_title().to_owned())
                .collect(),
        ));
    }
    if !impact.people.is_empty() {
        let title = format!(
            "{} signed out of it",
            count_noun(impact.people.len(), "person is", "people are")
        );
        groups.push(Group::new(
            &title,
            &["Their connections and consents are deleted. A token already handed out works until it ends, for about an hour."],
            impact.people.iter().map(crate::domain::person::Person::display_name).collect(),
        ));
    }
    let mut fields = Vec::new();
    if !impact.people.is_empty() {
        fields.push(Field::text(
            "typed_name",
            &format!("To confirm, type {name}"),
        ));
    }
    refill(&mut fields, None, &errors);
    page_with(
        form_status(&errors),
        &ConfirmPage {
            chrome: me
                .visitor
                .chrome("integrations", &format!("Delete {name}?")),
            errors,
            groups,
            link: None,
            action: format!("{}/delete", addresses::integration(integration.id)),
            fields,
            submit: format!("Delete {name}"),
            cancel: addresses::integration(integration.id),
        },
    )
}

/// `GET /integrations/{guid}/delete`.
pub async fn delete_page(me: SignedIn, path: web::Path<String>) -> Result<HttpResponse, WebError> {
    must_manage_integrations(&me.actor)?;
    let integration = me
        .service()
        .integrations
        .integration(&me.actor, id(&path)?)
        .await?;
    let impact = me
        .service()
        .integrations
        .integration_impact(&me.actor, integration.id)
        .await?;
    draw_delete(&me, &integration, &impact, Vec::new())
}

/// `POST /integrations/{guid}/delete`.
pub async fn delete(
    me: SignedIn,
    path: web::Path<String>,
    Confirmed(typed): Confirmed,
) -> Result<HttpResponse, WebError> {
    must_manage_integrations(&me.actor)?;
    let integration = me
        .service()
        .integrations
        .integration(&me.actor, id(&path)?)
        .await?;
    let impact = me
        .service()
        .integrations
        .integration_impact(&me.actor, integration.id)
        .await?;
    if !impact.people.is_empty() && typed.text("typed_name") != integration.display_name().trim() {
        let problem = FieldError::new(
            "typed_name",
            format!("Type the name exactly: {}", integration.display_name()),
        );
        return draw_delete(&me, &integration, &impact, vec![problem]);
    }
    let gone = me
        .service()
        .integrations
        .delete_integration(&me.actor, integration.id, PATIENCE)
        .await?;
    Ok(match gone {
        Some(gone) => me.done("/integrations", format!("Deleted {}.", gone.display_name())),
        None => me.done(
            &addresses::integration(integration.id),
            "It is deleted as soon as all connections have ended. No content can use it any more.",
        ),
    })
}
