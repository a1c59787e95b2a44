//! `/consents/account`: the provider signed in another account than expected.

use crate::{
    domain::{Id, connection::Connection, content::Content, return_path::ReturnPath},
    http::{errors::WebError, redirect::see_other},
    providers,
    service::Error,
    web::{
        pages::{
            consents::new::{allow_form_to, begin},
            id, page,
        },
        view::Chrome,
        visitor::{Posted, SignedIn},
    },
};
use actix_web::{HttpResponse, web};
use askama::Template;
use serde::Deserialize;

#[derive(Template)]
#[template(path = "pages/consents/other_account.html")]
struct OtherAccountPage {
    chrome: Chrome,
    here: String,
    there: String,
    provider: String,
    service: String,
    connection: String,
    content: String,
    back: String,
}

/// The query of `/consents/account`.
#[derive(Deserialize)]
pub struct Unconfirmed {
    connection: Option<String>,
    content: Option<String>,
    #[serde(rename = "return")]
    back: Option<String>,
}

/// `GET /consents/account`: the viewer connected with an account of another name; asks whether to
/// keep it.
pub async fn other_account_page(
    me: SignedIn,
    query: web::Query<Unconfirmed>,
) -> Result<HttpResponse, WebError> {
    let connection: Id<Connection> = id(query.connection.as_deref().unwrap_or(""))?;
    let (connection, integration) = me
        .service()
        .consents
        .unconfirmed_connection(&me.actor, connection)
        .await?;
    let names = providers::names(&integration);
    let person = &me.actor.person;
    let back = query
        .back
        .as_deref()
        .and_then(ReturnPath::parse)
        .unwrap_or_else(ReturnPath::consents);
    let endpoints = providers::endpoints(&integration).ok_or(Error::Internal(
        "the configuration of an integration is damaged",
    ))?;
    let mut response = page(&OtherAccountPage {
        chrome: me
            .visitor
            .chrome("consents", "You connected with another account"),
        here: if person.email.is_empty() {
            person.username.clone()
        } else {
            person.email.clone()
        },
        there: connection.account.label.clone().unwrap_or_default(),
        provider: names.provider,
        service: names.service,
        connection: connection.id.to_string(),
        content: query.content.clone().unwrap_or_default(),
        back: back.as_str().to_owned(),
    })?;
    let content: Option<Id<Content>> = query.content.as_deref().and_then(|text| text.parse().ok());
    allow_form_to(&mut response, &me, Some(&endpoints), content).await?;
    Ok(response)
}

/// `POST /consents/account`: `choice` is `keep`, `other` (choose another account) or anything else
/// (drop the tokens).
pub async fn other_account(me: SignedIn, Posted(typed): Posted) -> Result<HttpResponse, WebError> {
    let connection: Id<Connection> = id(typed.text("connection"))?;
    let content: Option<Id<Content>> = typed.non_empty("content").map(id).transpose()?;
    let back = ReturnPath::parse(typed.text("return")).unwrap_or_else(ReturnPath::consents);
    let choice = typed.text("choice");
    let decided = me
        .service()
        .consents
        .confirm_account(&me.actor, connection, choice == "keep", content)
        .await?;
    match choice {
        "keep" => Ok(see_other(back.as_str())),
        "other" => begin(&me, decided.integration, content, back, true).await,
        _ => Ok(me.done("/content", "Nothing was kept of that sign-in.")),
    }
}
