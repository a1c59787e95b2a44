//! `POST /people/{guid}/lock`: locks and unlocks.

use crate::{
    domain::addresses,
    http::errors::WebError,
    service::core::must_manage_people,
    web::{confirmation::Confirmed, pages::id, visitor::SignedIn},
};
use actix_web::{HttpResponse, web};

/// `POST /people/{guid}/lock`: locks (`locked=yes`) or unlocks.
pub async fn lock(
    me: SignedIn,
    path: web::Path<String>,
    Confirmed(typed): Confirmed,
) -> Result<HttpResponse, WebError> {
    must_manage_people(&me.actor)?;
    let person = me.service().people.person(&me.actor, id(&path)?).await?;
    let locked = typed.text("locked") == "yes";
    me.service()
        .people
        .set_locked(&me.actor, person.id, locked)
        .await?;
    let message = if locked { "Locked" } else { "Unlocked" };
    Ok(me.done(
        &addresses::person(person.id),
        format!("{message} {}.", person.display_name()),
    ))
}
