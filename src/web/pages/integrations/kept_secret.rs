//! A client secret that was typed into a form with an error elsewhere: kept sealed for a few minutes,
//! so that it need not be typed again. The page gets a random name for it, never the secret.

use crate::{
    http::errors::WebError,
    web::{
        forms::{Field, FieldKind, FormValues},
        visitor::SignedIn,
    },
};
use secrecy::ExposeSecret as _;

/// The field of the secret.
const SECRET: &str = "client_secret";
/// The hidden field that stands for a secret that is kept.
const KEPT: &str = "kept_secret";

/// Keeps the secret that was typed, if its field is among `fields` and has no error, and says so at
/// the field.
pub(super) async fn keep(
    me: &SignedIn,
    typed: Option<&FormValues>,
    fields: &mut Vec<Field>,
) -> Result<(), WebError> {
    let Some(secret) = typed.and_then(|typed| typed.secret(SECRET)) else {
        return Ok(());
    };
    let found = fields.iter_mut().find(|field| field.name == SECRET);
    let Some(field) = found.filter(|field| field.error.is_none()) else {
        return Ok(());
    };
    field.hint = "Entered, not saved yet: it is kept for a few minutes. Leave this empty to use it, or enter another one.".into();
    let person = me.actor.person.id;
    let kept = me
        .service()
        .shown_once
        .store_shown_once(person, &secret)
        .await?;
    fields.push(Field::new(FieldKind::Hidden, KEPT, "").value(kept));
    Ok(())
}

/// Puts the secret that a form kept into what was typed, if none was typed again.
pub(super) async fn take(me: &SignedIn, typed: &mut FormValues) -> Result<(), WebError> {
    let Some(name) = typed.non_empty(KEPT).map(str::to_owned) else {
        return Ok(());
    };
    typed.0.retain(|(field, _)| field != KEPT);
    if typed.non_empty(SECRET).is_some() {
        return Ok(());
    }
    let person = me.actor.person.id;
    let kept = me
        .service()
        .shown_once
        .take_shown_once(person, &name)
        .await?;
    if let Some(secret) = kept {
        typed.0.retain(|(field, _)| field != SECRET);
        let secret = secret.expose_secret().to_owned();
        typed.0.push((SECRET.to_owned(), secret));
    }
    Ok(())
}
