//! `/content-settings/{guid}/consents/end`: ends all consents for an item.

use crate::{
    domain::addresses,
    http::errors::WebError,
    web::{
        confirmation::Confirmed,
        pages::{ConfirmPage, Group, id, page},
        view::count_noun,
        visitor::SignedIn,
    },
};
use actix_web::{HttpResponse, web};

/// `GET /content-settings/{guid}/consents/end`.
pub async fn end_consents_page(
    me: SignedIn,
    path: web::Path<String>,
) -> Result<HttpResponse, WebError> {
    let item = me
        .service()
        .contents
        .editable_content(&me.actor, id(&path)?)
        .await?
        .content;
    let consents = me
        .service()
        .contents
        .consenting_people(&me.actor, item.id)
        .await?;
    let people: Vec<String> = consents
        .iter()
        .map(|(_, person, _)| person.display_name())
        .collect();
    page(&ConfirmPage {
        chrome: me.visitor.chrome(
            "content",
            &format!("End every consent for {}?", item.display_title()),
        ),
        errors: Vec::new(),
        groups: vec![
            Group::new(
                "Who",
                &["For these people the content stops acting at once, in open windows, too:"],
                people,
            ),
            Group::new(
                "What does not happen",
                &[
                    "Their connections stay, and other content goes on using them. The next time they open this content they are asked again.",
                ],
                Vec::new(),
            ),
        ],
        link: None,
        action: format!("{}/consents/end", addresses::content_settings(item.id)),
        fields: Vec::new(),
        submit: "End every consent".into(),
        cancel: addresses::content_settings(item.id),
    })
}

/// `POST /content-settings/{guid}/consents/end`: ends every viewer's consent for this item.
pub async fn end_consents(
    me: SignedIn,
    path: web::Path<String>,
    _: Confirmed,
) -> Result<HttpResponse, WebError> {
    let guid = id(&path)?;
    let ended = me
        .service()
        .revocations
        .revoke_consents_of_content(&me.actor, guid)
        .await?;
    let message = format!("Ended {}.", count_noun(ended, "consent", "consents"));
    Ok(me.done(&addresses::content_settings(guid), message))
}
