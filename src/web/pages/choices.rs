//! `POST /choices`: what a combobox offers for the letters typed so far, as JSON, for the script of
//! the portal's own pages. Scripts of other sites, and of apps that share the portal's origin, get
//! nothing: they do not know the anti-forgery token, since they cannot read the portal's pages.

use crate::{
    domain::{access, integration::Integration, person::Person},
    http::errors::WebError,
    providers,
    service::Error,
    web::{
        forms::Choice,
        listing::found_choices,
        pages::principal_choices,
        visitor::{Posted, SignedIn},
    },
};
use actix_web::HttpResponse;
use serde_json::{Value, json};

/// People and groups.
pub const PRINCIPALS: &str = "principals";
/// People only.
pub const PEOPLE: &str = "people";
/// Integrations that the reader may choose.
pub const INTEGRATIONS: &str = "integrations";

/// `POST /choices`: `what` is one of the words above, `find` the letters typed.
pub async fn choices(me: SignedIn, Posted(typed): Posted) -> Result<HttpResponse, WebError> {
    let all: Vec<Choice> = match typed.text("what") {
        PRINCIPALS => {
            let all = principal_choices(&me).await?.into_iter();
            all.map(|(_, choice)| choice).collect()
        }
        PEOPLE => {
            let people = me.service().people.people(&me.actor).await?;
            let choice = |person: &Person| {
                Choice::new(person.id.to_string(), person.name_and_username(), "")
            };
            people.iter().map(choice).collect()
        }
        INTEGRATIONS if access::may_see_integrations(me.actor.role) => {
            let all = me.service().integrations.integrations(&me.actor).await?;
            let choice = |found: &Integration| {
                let service = providers::names(found).service;
                Choice::new(found.id.to_string(), found.display_name(), service)
            };
            all.iter().map(choice).collect()
        }
        _ => return Err(Error::NotFound.into()),
    };
    let found: Vec<Value> = found_choices(all, typed.text("find"))
        .into_iter()
        .map(|choice| json!({"value": choice.value, "label": choice.label, "hint": choice.hint}))
        .collect();
    Ok(HttpResponse::Ok().json(found))
}
