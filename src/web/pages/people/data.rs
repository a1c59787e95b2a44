//! `/people/{guid}/data` and `/account/data`: everything that is stored about a person, to save.

use crate::{
    domain::{Id, person::Person},
    http::errors::WebError,
    web::{confirmation::Confirmed, pages::id, visitor::SignedIn},
};
use actix_web::{
    HttpResponse,
    http::header::{ContentDisposition, DispositionParam, DispositionType},
    web,
};

async fn saved(me: &SignedIn, whose: Id<Person>) -> Result<HttpResponse, WebError> {
    let (person, data) = me.service().personal_data.of(&me.actor, whose).await?;
    let name = format!("valetkey-{}.json", person.id);
    Ok(HttpResponse::Ok()
        .insert_header(ContentDisposition {
            disposition: DispositionType::Attachment,
            parameters: vec![DispositionParam::Filename(name)],
        })
        .json(data))
}

/// `POST /account/data`: of oneself.
pub async fn own(me: SignedIn, Confirmed(_): Confirmed) -> Result<HttpResponse, WebError> {
    saved(&me, me.actor.person.id).await
}

/// `POST /people/{guid}/data`: of anybody, for administrators.
pub async fn of_person(
    me: SignedIn,
    path: web::Path<String>,
    Confirmed(_): Confirmed,
) -> Result<HttpResponse, WebError> {
    saved(&me, id(&path)?).await
}
