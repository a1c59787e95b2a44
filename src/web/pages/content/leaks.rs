//! `POST /content-settings/{guid}/mended`: clears leak warnings.

use crate::{
    domain::addresses,
    http::errors::WebError,
    web::{
        pages::id,
        visitor::{Posted, SignedIn},
    },
};
use actix_web::{HttpResponse, web};

/// `POST /content-settings/{guid}/mended`: the publisher states that the app no longer shares
/// tokens between viewers, which clears the warnings.
pub async fn clear_leaks(
    me: SignedIn,
    path: web::Path<String>,
    _: Posted,
) -> Result<HttpResponse, WebError> {
    let guid = id(&path)?;
    me.service().leaks.forget_leaks(&me.actor, guid).await?;
    Ok(me.done(
        &addresses::content_settings(guid),
        "Warning put away. It comes back if a token is used without its viewer again.",
    ))
}
