//! `POST /people/bulk`: signs several people out, or locks them, after a question.

use crate::{
    domain::person::Person,
    http::errors::WebError,
    service::core::must_manage_people,
    web::{
        confirmation::Confirmed,
        forms::{Field, FieldKind},
        pages::{Question, ask_first, id, is_sure},
        view::{count_noun, some_of},
        visitor::SignedIn,
    },
};
use actix_web::HttpResponse;

/// `POST /people/bulk`: `person` once for each, `action` is `sign-out` or `lock`.
pub async fn bulk(me: SignedIn, Confirmed(typed): Confirmed) -> Result<HttpResponse, WebError> {
    must_manage_people(&me.actor)?;
    let service = me.service();
    let mut people: Vec<Person> = Vec::new();
    for guid in typed.all("person") {
        people.push(service.people.person(&me.actor, id(guid)?).await?);
    }
    let lock = typed.text("action") == "lock";
    if people.is_empty() {
        return Ok(me.done("/people", "Nobody was chosen: tick the people first."));
    }
    let own = me.actor.person.id;
    if lock && people.iter().any(|person| person.id == own) {
        return Ok(me.done("/people", "You cannot lock yourself: nothing was changed."));
    }
    let count = count_noun(people.len(), "person", "people");
    if !is_sure(&typed) {
        let names = some_of(people.iter().map(Person::display_name).collect()).join(", ");
        let (title, what) = if lock {
            (
                format!("Lock {count}?"),
                "They are signed out everywhere and cannot sign in. Their connections end, and with them their consents; unlocking does not bring them back. Content that they own stays.",
            )
        } else {
            (
                format!("Sign out {count}?"),
                "All their browsers are signed out at once, and open apps stop. They can sign in again. API keys and consents stay.",
            )
        };
        let mut fields: Vec<Field> = people
            .iter()
            .map(|person| Field::new(FieldKind::Hidden, "person", "").value(person.id.to_string()))
            .collect();
        let action = if lock { "lock" } else { "sign-out" };
        fields.push(Field::new(FieldKind::Hidden, "action", "").value(action));
        return ask_first(
            &me,
            Question {
                area: "people",
                title,
                consequences: &[&format!("{names}."), what],
                action: "/people/bulk".into(),
                fields,
                submit: &format!("{} {count}", if lock { "Lock" } else { "Sign out" }),
                cancel: "/people".into(),
            },
        );
    }
    for person in &people {
        if lock {
            service
                .people
                .set_locked(&me.actor, person.id, true)
                .await?;
        } else {
            let sessions = &service.sessions;
            sessions.end_sessions(&me.actor, person.id, None).await?;
        }
    }
    let done = if lock { "Locked" } else { "Signed out" };
    Ok(me.done("/people", format!("{done} {count}.")))
}
