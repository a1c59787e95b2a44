//! `POST /content-settings/{guid}/integration`: which integration an item uses.

use crate::{
    domain::{addresses, form::FieldError},
    http::errors::WebError,
    web::{
        pages::{content::settings::draw_settings, id, problems_of},
        visitor::{Posted, SignedIn},
    },
};
use actix_web::{HttpResponse, web};

/// `POST /content-settings/{guid}/integration`: attaches one integration, or none.
pub async fn save_integration(
    me: SignedIn,
    path: web::Path<String>,
    Posted(typed): Posted,
) -> Result<HttpResponse, WebError> {
    let guid = id(&path)?;
    let seen = me
        .service()
        .contents
        .editable_content(&me.actor, guid)
        .await?;
    let wanted = match typed.text("integration") {
        "" => Vec::new(),
        text => match text.parse() {
            Ok(integration) => vec![integration],
            Err(_) => {
                return draw_settings(
                    &me,
                    seen,
                    None,
                    vec![FieldError::new(
                        "integration",
                        "Choose one of the integrations.",
                    )],
                )
                .await;
            }
        },
    };
    let none = wanted.is_empty();
    match me
        .service()
        .contents
        .set_associations(&me.actor, guid, wanted)
        .await
    {
        Ok(()) => {
            let message = if none {
                "Saved. This content uses no integration now."
            } else {
                "Saved. Viewers are asked for their consent when they open this content."
            };
            Ok(me.done(&addresses::content_settings(guid), message))
        }
        Err(error) => {
            let problems = problems_of(error)?
                .into_iter()
                .map(|problem| FieldError::new("integration", problem.message))
                .collect();
            draw_settings(&me, seen, None, problems).await
        }
    }
}
