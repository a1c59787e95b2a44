//! `/content-settings/{guid}/delete`: deletes an item.

use crate::{
    domain::addresses,
    http::errors::WebError,
    web::{
        pages::{ConfirmPage, Group, id, page},
        visitor::{Posted, SignedIn},
    },
};
use actix_web::{HttpResponse, web};

/// `GET /content-settings/{guid}/delete`.
pub async fn delete_page(me: SignedIn, path: web::Path<String>) -> Result<HttpResponse, WebError> {
    let seen = me
        .service()
        .contents
        .editable_content(&me.actor, id(&path)?)
        .await?;
    let item = &seen.content;
    let consents = me
        .service()
        .contents
        .consenting_people(&me.actor, item.id)
        .await?;
    let people: Vec<String> = consents
        .iter()
        .map(|(_, person, _)| person.display_name())
        .collect();
    let mut groups = vec![Group::new(
        "",
        &["Its address stops working for everyone. The app itself goes on running where it is."],
        Vec::new(),
    )];
    if !people.is_empty() {
        groups.push(Group::new(
            "These people let it act for them; their consent ends",
            &[],
            people,
        ));
    }
    page(&ConfirmPage {
        chrome: me
            .visitor
            .chrome("content", &format!("Delete {}?", item.display_title())),
        errors: Vec::new(),
        groups,
        link: None,
        action: format!("{}/delete", addresses::content_settings(item.id)),
        fields: Vec::new(),
        submit: format!("Delete {}", item.display_title()),
        cancel: addresses::content_settings(item.id),
    })
}

/// `POST /content-settings/{guid}/delete`.
pub async fn delete(
    me: SignedIn,
    path: web::Path<String>,
    _: Posted,
) -> Result<HttpResponse, WebError> {
    let item = me
        .service()
        .contents
        .delete_content(&me.actor, id(&path)?)
        .await?;
    Ok(me.done("/content", format!("Deleted {}.", item.display_title())))
}
