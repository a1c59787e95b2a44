//! `/notifications/webhooks`: adds, tests and deletes a webhook.

use crate::{
    domain::notice::Kind,
    http::{errors::WebError, redirect::see_other},
    web::{
        confirmation::Confirmed,
        pages::{Question, ask_first, id, is_sure, notifications::show, problems_of},
        shown_once::{self, SecretToShow},
        visitor::SignedIn,
    },
};
use actix_web::{HttpResponse, web};

/// `POST /notifications/webhooks`: redirects to the page that shows the key of its signatures once.
pub async fn add(me: SignedIn, Confirmed(typed): Confirmed) -> Result<HttpResponse, WebError> {
    let kinds = typed.all("kinds").filter_map(Kind::parse);
    let kinds = kinds.filter(|kind| kind.is_offered()).collect();
    let (name, url) = (typed.text("name"), typed.text("url"));
    let added = me
        .service()
        .notices
        .add_webhook(&me.actor, name, url, kinds);
    match added.await {
        Ok((webhook, secret)) => {
            let shown = SecretToShow {
                title: format!("Key of {}", webhook.name),
                intro: "Calls are signed with it, as standardwebhooks.com describes: the receiver checks webhook-signature before it believes one.".into(),
                label: "Key".into(),
                secret,
                environment: String::new(),
                done: "/notifications".into(),
            };
            let place = shown_once::store(me.service(), me.actor.person.id, shown).await?;
            Ok(see_other(&place))
        }
        Err(error) => show::draw(&me, Some(&typed), problems_of(error)?).await,
    }
}

/// `POST /notifications/webhooks/{guid}/test`.
pub async fn test(
    me: SignedIn,
    path: web::Path<String>,
    Confirmed(_): Confirmed,
) -> Result<HttpResponse, WebError> {
    let webhook = id(&path)?;
    me.service().notices.test(&me.actor, Some(webhook)).await?;
    Ok(me.done(
        "/notifications",
        "A test is on its way. Below you see what becomes of it: load the page again.",
    ))
}

/// `POST /notifications/webhooks/{guid}/delete`.
pub async fn delete(
    me: SignedIn,
    path: web::Path<String>,
    Confirmed(typed): Confirmed,
) -> Result<HttpResponse, WebError> {
    let webhook = id(&path)?;
    if !is_sure(&typed) {
        let known = me.service().notices.overview(&me.actor).await?.webhooks;
        let found = known.into_iter().find(|one| one.id == webhook);
        let found = found.ok_or(crate::service::Error::NotFound)?;
        return ask_first(
            &me,
            Question {
                area: "audit",
                title: format!("Delete {}?", found.name),
                consequences: &[
                    "It is called no more, and what is on its way to it is dropped.",
                    "A new webhook with the same address gets another key.",
                ],
                action: format!("/notifications/webhooks/{webhook}/delete"),
                fields: Vec::new(),
                submit: &format!("Delete {}", found.name),
                cancel: "/notifications".into(),
            },
        );
    }
    let gone = me
        .service()
        .notices
        .delete_webhook(&me.actor, webhook)
        .await?;
    Ok(me.done("/notifications", format!("Deleted {}.", gone.name)))
}
