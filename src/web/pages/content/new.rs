//! `/content/new`: adds an item.

use crate::{
    domain::{access, addresses, form::FieldError},
    http::errors::WebError,
    web::{
        forms::{FormValues, refill},
        pages::{
            FormPage,
            content::form::{fields, input, with_address_problem},
            form_status, page_with, problems_of,
        },
        visitor::{Posted, SignedIn},
    },
};
use actix_web::HttpResponse;

fn draw_new(
    me: &SignedIn,
    typed: Option<&FormValues>,
    errors: Vec<FieldError>,
) -> Result<HttpResponse, WebError> {
    if !access::may_create_content(me.actor.role) {
        return Err(crate::service::Error::Forbidden(
            "Only publishers and administrators add content.",
        )
        .into());
    }
    let mut fields = fields(&me.service().core.settings);
    refill(&mut fields, typed, &errors);
    page_with(
        form_status(&errors),
        &FormPage {
            chrome: me.visitor.chrome("content", "Add content"),
            intro: "An app that is running somewhere. People open it through this portal.".into(),
            errors,
            fields,
            action: "/content/new".into(),
            submit: "Add content".into(),
            cancel: "/content".into(),
        },
    )
}

/// `GET /content/new`.
pub async fn new_page(me: SignedIn) -> Result<HttpResponse, WebError> {
    draw_new(&me, None, Vec::new())
}

/// `POST /content/new`.
pub async fn create(me: SignedIn, Posted(typed): Posted) -> Result<HttpResponse, WebError> {
    let created = match input(&typed, &[]) {
        Ok(mut input) => {
            // On for what is added on a page; publishers switch it off in the settings.
            input.proxying.portal_link = Some(true);
            me.service().contents.create_content(&me.actor, input).await
        }
        Err(problems) => {
            // The service was not asked: check the addresses here, so that all errors are reported
            // together.
            return draw_new(
                &me,
                Some(&typed),
                with_address_problem(&me, &typed, problems),
            );
        }
    };
    match created {
        Ok(seen) => {
            let message = format!(
                "Added {}. Pick an integration, and add the people who may open it.",
                seen.content.display_title()
            );
            Ok(me.done(&addresses::content_settings(seen.content.id), message))
        }
        Err(error) => draw_new(&me, Some(&typed), problems_of(error)?),
    }
}
