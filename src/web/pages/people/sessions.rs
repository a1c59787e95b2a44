//! `POST /people/{guid}/sessions/end`: ends a person's browser sessions.

use crate::{
    domain::addresses,
    http::errors::WebError,
    service::core::must_manage_people,
    web::{confirmation::Confirmed, pages::id, visitor::SignedIn},
};
use actix_web::{HttpResponse, web};

/// `POST /people/{guid}/sessions/end`: ends one browser session, or all.
pub async fn end_sessions(
    me: SignedIn,
    path: web::Path<String>,
    Confirmed(typed): Confirmed,
) -> Result<HttpResponse, WebError> {
    must_manage_people(&me.actor)?;
    let person = me.service().people.person(&me.actor, id(&path)?).await?;
    let only = typed.non_empty("session").map(id).transpose()?;
    me.service()
        .sessions
        .end_sessions(&me.actor, person.id, only)
        .await?;
    let what = if only.is_some() {
        "from that browser"
    } else {
        "everywhere"
    };
    Ok(me.done(
        &addresses::person(person.id),
        format!("Signed {} out {what}.", person.display_name()),
    ))
}
