//! `POST /people/{guid}/lock`: locks, after a question, and unlocks.

use crate::{
    domain::addresses,
    http::errors::WebError,
    service::core::must_manage_people,
    web::{
        confirmation::Confirmed,
        forms::{Field, FieldKind},
        pages::{Question, ask_first, id, is_sure},
        visitor::SignedIn,
    },
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
    let base = addresses::person(person.id);
    if locked && !is_sure(&typed) {
        let name = person.display_name();
        return ask_first(
            &me,
            Question {
                area: "people",
                title: format!("Lock {name}?"),
                consequences: &[
                    "They are signed out everywhere, and cannot sign in until they are unlocked. Their API keys stop working meanwhile.",
                    "Their connections end, and with them their consents: tokens are deleted here, and providers that can be told are told. Unlocking does not bring them back.",
                    "Content that they own stays, and goes on for others.",
                ],
                action: format!("{base}/lock"),
                fields: vec![Field::new(FieldKind::Hidden, "locked", "").value("yes")],
                submit: &format!("Lock {name}"),
                cancel: base,
            },
        );
    }
    me.service()
        .people
        .set_locked(&me.actor, person.id, locked)
        .await?;
    let message = if locked { "Locked" } else { "Unlocked" };
    Ok(me.done(&base, format!("{message} {}.", person.display_name())))
}
