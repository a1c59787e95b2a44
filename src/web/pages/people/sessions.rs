//! `POST /people/{guid}/sessions/end`: ends a person's browser sessions.

use crate::{
    domain::addresses,
    http::errors::WebError,
    service::core::must_manage_people,
    web::{
        confirmation::Confirmed,
        pages::{Question, ask_first, id, is_sure},
        visitor::SignedIn,
    },
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
    if only.is_none() && !is_sure(&typed) {
        let (name, base) = (person.display_name(), addresses::person(person.id));
        return ask_first(
            &me,
            Question {
                area: "people",
                title: format!("Sign {name} out everywhere?"),
                consequences: &[
                    "All their browsers are signed out at once, and open apps stop. They can sign in again. API keys and consents stay.",
                ],
                action: format!("{base}/sessions/end"),
                fields: Vec::new(),
                submit: &format!("Sign {name} out everywhere"),
                cancel: base,
            },
        );
    }
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
