//! `/access/{guid}`: a person who may not open an item asks its publisher to be let in.

use crate::{
    domain::{Id, addresses, content::Content},
    http::{errors::WebError, redirect::see_other},
    web::{
        pages::{FormPage, id, page},
        visitor::{Posted, SignedIn},
    },
};
use actix_web::{HttpResponse, web};

/// `GET /access/{guid}`. Says nothing about the item: the reader may not see it.
pub async fn request_page(me: SignedIn, path: web::Path<String>) -> Result<HttpResponse, WebError> {
    let item: Id<Content> = id(&path)?;
    page(&FormPage {
        chrome: me.visitor.chrome("content", "Request access"),
        intro: "The publisher of this content is shown your name, and decides. Nobody sends you a message: open its address again later.".into(),
        errors: Vec::new(),
        fields: Vec::new(),
        action: addresses::request_access(item),
        submit: "Request access".into(),
        cancel: "/content".into(),
    })
}

/// `POST /access/{guid}`.
pub async fn request(
    me: SignedIn,
    path: web::Path<String>,
    Posted(_): Posted,
) -> Result<HttpResponse, WebError> {
    let item = id(&path)?;
    if me
        .service()
        .contents
        .request_access(&me.actor, item)
        .await?
    {
        let message = "Asked. The publisher sees your name and decides.";
        Ok(me.done("/content", message))
    } else {
        Ok(see_other(&addresses::app(item)))
    }
}
