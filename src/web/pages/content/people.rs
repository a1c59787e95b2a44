//! `POST /content-settings/{guid}/people`: who may open or edit an item.

use crate::{
    domain::{addresses, content::ContentRole, form::FieldError},
    http::errors::WebError,
    web::{
        pages::{content::settings::draw_settings, id, principal, problems_of},
        visitor::{Posted, SignedIn},
    },
};
use actix_web::{HttpResponse, web};

/// `POST /content-settings/{guid}/people`: adds a person or group to the access list.
pub async fn permit(
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
    let (Some(principal), Some(role)) = (
        principal(typed.text("person")),
        ContentRole::parse(typed.text("role")),
    ) else {
        return draw_settings(
            &me,
            seen,
            None,
            vec![FieldError::new("person", "Choose a person or a group.")],
        )
        .await;
    };
    match me
        .service()
        .contents
        .set_permission(&me.actor, guid, principal, role)
        .await
    {
        Ok(_) => Ok(me.done(&addresses::content_settings(guid), "Added to the list.")),
        Err(error) => {
            let problems = problems_of(error)?
                .into_iter()
                .map(|problem| FieldError::new("person", problem.message))
                .collect();
            draw_settings(&me, seen, None, problems).await
        }
    }
}

/// `POST /content-settings/{guid}/people/{number}/remove`.
pub async fn unpermit(
    me: SignedIn,
    path: web::Path<(String, i64)>,
    _: Posted,
) -> Result<HttpResponse, WebError> {
    let guid = id(&path.0)?;
    me.service()
        .contents
        .remove_permission(&me.actor, guid, path.1)
        .await?;
    Ok(me.done(&addresses::content_settings(guid), "Removed from the list."))
}

/// `POST /content-settings/{guid}/requests/{person}`: lets in a person who asked (`grant` is `yes`),
/// or declines.
pub async fn answer_request(
    me: SignedIn,
    path: web::Path<(String, String)>,
    Posted(typed): Posted,
) -> Result<HttpResponse, WebError> {
    let (guid, person) = (id(&path.0)?, id(&path.1)?);
    let granted = typed.text("grant") == "yes";
    me.service()
        .contents
        .answer_access_request(&me.actor, guid, person, granted)
        .await?;
    let message = if granted {
        "They may open it now."
    } else {
        "Declined. They can ask again."
    };
    Ok(me.done(&addresses::content_settings(guid), message))
}
