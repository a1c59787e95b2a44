//! `POST /content-settings/{guid}/key`: a new content key, shown once with its environment.

use crate::{
    domain::{Id, addresses, content::Content},
    http::{errors::WebError, redirect::see_other},
    web::{
        confirmation::Confirmed,
        pages::id,
        shown_once::{self, SecretToShow},
        visitor::SignedIn,
    },
};
use actix_web::{HttpResponse, web};

/// The environment variables that an app needs to exchange tokens, with `{key}` as the placeholder
/// for the content key.
pub fn environment(base: &str, content: Id<Content>) -> String {
    format!(
        "CONNECT_SERVER={base}\nCONNECT_API_KEY={{key}}\nCONNECT_CONTENT_GUID={content}\nPOSIT_PRODUCT=CONNECT\nRSTUDIO_PRODUCT=CONNECT"
    )
}

/// `POST /content-settings/{guid}/key`: creates a content key, which replaces the old one, and
/// redirects to the page that shows it once.
pub async fn make_key(
    me: SignedIn,
    path: web::Path<String>,
    _: Confirmed,
) -> Result<HttpResponse, WebError> {
    let guid = id(&path)?;
    let (content, secret) = me
        .service()
        .api_keys
        .create_content_key(&me.actor, guid)
        .await?;
    let shown = SecretToShow {
        title: format!("Content key of {}", content.display_title()),
        intro: "Put it into the app's environment. It can exchange session tokens of this content and nothing else.".into(),
        label: "Content key".into(),
        secret,
        environment: environment(me.service().core.addresses.base(), guid),
        done: addresses::content_settings(guid),
    };
    Ok(see_other(
        &shown_once::store(me.service(), me.actor.person.id, shown).await?,
    ))
}
