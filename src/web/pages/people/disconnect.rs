//! `/people/{guid}/disconnect`: ends a person's connections.

use crate::{
    domain::{addresses, connection::Connection, integration::Integration, person::Person},
    http::errors::WebError,
    service::{Error, core::must_manage_people, grants::revocations::EndScope},
    web::{
        confirmation::Confirmed,
        forms::{Field, FieldKind},
        pages::{ConfirmPage, PATIENCE, id, page},
        view::count_noun,
        visitor::SignedIn,
    },
};
use actix_web::{HttpResponse, web};
use serde::Deserialize;

/// The query of the disconnect page.
#[derive(Deserialize)]
pub struct Only {
    /// Id of the only connection to end; all of them if absent.
    connection: Option<String>,
}

/// The connection with this id, if it is the person's; 404 otherwise. `None` if none was named.
pub(super) async fn only(
    me: &SignedIn,
    person: &Person,
    named: Option<&str>,
) -> Result<Option<(Connection, Integration)>, WebError> {
    let Some(named) = named.filter(|named| !named.is_empty()) else {
        return Ok(None);
    };
    let wanted = id(named)?;
    let all = me
        .service()
        .revocations
        .connections_of(&me.actor, person.id)
        .await?;
    let found = all
        .into_iter()
        .find(|(connection, _)| connection.id == wanted);
    found.map(Some).ok_or_else(|| Error::NotFound.into())
}

/// `GET /people/{guid}/disconnect`.
pub async fn disconnect_page(
    me: SignedIn,
    path: web::Path<String>,
    query: web::Query<Only>,
) -> Result<HttpResponse, WebError> {
    must_manage_people(&me.actor)?;
    let person = me.service().people.person(&me.actor, id(&path)?).await?;
    let only = only(&me, &person, query.connection.as_deref()).await?;
    let base = addresses::person(person.id);
    let from = only.as_ref().map_or("every service", |(_, integration)| {
        integration.display_name()
    });
    let mut fields = vec![crate::web::pages::integrations::disconnect::reason_field()];
    if let Some((connection, _)) = &only {
        fields
            .push(Field::new(FieldKind::Hidden, "connection", "").value(connection.id.to_string()));
    }
    page(&ConfirmPage {
        chrome: me.visitor.chrome(
            "people",
            &format!("Disconnect {} from {from}?", person.display_name()),
        ),
        errors: Vec::new(),
        groups: vec![crate::web::pages::integrations::disconnect::what_disconnecting_does()],
        link: None,
        action: format!("{base}/disconnect"),
        fields,
        submit: format!("Disconnect {}", person.display_name()),
        cancel: base,
    })
}

/// `POST /people/{guid}/disconnect`: ends one or all connections of a person.
pub async fn disconnect(
    me: SignedIn,
    path: web::Path<String>,
    Confirmed(typed): Confirmed,
) -> Result<HttpResponse, WebError> {
    must_manage_people(&me.actor)?;
    let person = me.service().people.person(&me.actor, id(&path)?).await?;
    let whose = match only(&me, &person, typed.get("connection")).await? {
        Some((connection, _)) => EndScope::One(connection.id),
        None => EndScope::Person(person.id),
    };
    let ended = me
        .service()
        .revocations
        .disconnect_all(&me.actor, whose, typed.text("reason"), PATIENCE)
        .await?
        .unwrap_or_default();
    let message = format!(
        "Ended {} of {}.",
        count_noun(ended, "connection", "connections"),
        person.display_name()
    );
    Ok(me.done(&addresses::person(person.id), message))
}
