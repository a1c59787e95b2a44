//! `POST /people/{guid}/invite`: a one-time link, shown once.

use crate::{
    domain::{addresses, person::Person},
    http::{errors::WebError, redirect::see_other},
    service::core::must_manage_people,
    web::{
        confirmation::Confirmed,
        pages::id,
        shown_once::{self, SecretToShow},
        visitor::SignedIn,
    },
};
use actix_web::{HttpResponse, web};
use secrecy::ExposeSecret as _;

/// Creates a one-time link for a person and redirects to the page that shows it once.
pub(super) async fn show_link(me: &SignedIn, person: &Person) -> Result<HttpResponse, WebError> {
    let (person, token) = me
        .service()
        .invitations
        .invite(&me.actor, person.id)
        .await?;
    let address = me
        .service()
        .core
        .addresses
        .absolute(&format!("/setup/{}", token.expose_secret()));
    let shown = SecretToShow {
        title: format!("One-time link for {}", person.display_name()),
        intro:
            "Send it to the person by a way that only they read. It works once, for three days: they choose a password and are signed in."
                .into(),
        label: "Link".into(),
        secret: address.into(),
        environment: String::new(),
        done: addresses::person(person.id),
    };
    Ok(see_other(
        &shown_once::store(me.service(), me.actor.person.id, shown).await?,
    ))
}

/// `POST /people/{guid}/invite`: a new one-time link.
pub async fn invite(
    me: SignedIn,
    path: web::Path<String>,
    _: Confirmed,
) -> Result<HttpResponse, WebError> {
    must_manage_people(&me.actor)?;
    let person = me.service().people.person(&me.actor, id(&path)?).await?;
    show_link(&me, &person).await
}
