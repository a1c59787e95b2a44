//! `POST /content-settings/{guid}/key`: a new content key, shown once with its environment.

use crate::{
    domain::{Id, addresses, content::Content},
    http::{errors::WebError, redirect::see_other},
    web::{
        confirmation::Confirmed,
        forms::{Choice, Field, FieldKind},
        pages::{Question, ask_first, id, is_sure},
        shown_once::{self, SecretToShow},
        visitor::SignedIn,
    },
};
use actix_web::{HttpResponse, web};
use std::time::Duration;

/// The environment variables that an app needs to exchange tokens, with `{key}` as the placeholder
/// for the content key.
pub fn environment(base: &str, content: Id<Content>) -> String {
    format!(
        "CONNECT_SERVER={base}\nCONNECT_API_KEY={{key}}\nCONNECT_CONTENT_GUID={content}\nPOSIT_PRODUCT=CONNECT\nRSTUDIO_PRODUCT=CONNECT"
    )
}

/// How long the key before may go on, in hours, and the words for it.
const OLD_STAYS: [(&str, u64, &str); 4] = [
    ("day", 24, "for a day"),
    ("hour", 1, "for an hour"),
    ("week", 168, "for a week"),
    ("none", 0, "not at all: programs that have it fail at once"),
];

/// `POST /content-settings/{guid}/key`: creates a content key and redirects to the page that shows it
/// once. If there is a key, it asks first how long that one works on.
pub async fn make_key(
    me: SignedIn,
    path: web::Path<String>,
    Confirmed(typed): Confirmed,
) -> Result<HttpResponse, WebError> {
    let guid = id(&path)?;
    let keys = me.service().api_keys.content_keys(&me.actor, guid).await?;
    let settings = addresses::content_settings(guid);
    if !keys.is_empty() && !is_sure(&typed) {
        let choices = OLD_STAYS.map(|(value, _, words)| Choice::new(value, words, ""));
        return ask_first(
            &me,
            Question {
                area: "content",
                title: "Replace the content key?".into(),
                consequences: &[
                    "You get a new key, once. Put it into the app's environment and restart the app.",
                    "The app runs with the old key until then: let that one work long enough.",
                ],
                action: format!("{settings}/key"),
                fields: vec![
                    Field::new(FieldKind::Radio, "old", "The old key goes on working")
                        .options(choices.into())
                        .value("day"),
                ],
                submit: "Replace key",
                cancel: settings,
            },
        );
    }
    let hours = OLD_STAYS
        .iter()
        .find(|(value, ..)| *value == typed.text("old"))
        .map_or(0, |(_, hours, _)| *hours);
    let (content, secret) = me
        .service()
        .api_keys
        .create_content_key(&me.actor, guid, Duration::from_secs(hours * 3600))
        .await?;
    let shown = SecretToShow {
        title: format!("Content key of {}", content.display_title()),
        intro: "Put it into the app's environment. It can exchange session tokens of this content and nothing else.".into(),
        label: "Content key".into(),
        secret,
        environment: environment(me.service().core.addresses.base(), guid),
        done: settings,
    };
    Ok(see_other(
        &shown_once::store(me.service(), me.actor.person.id, shown).await?,
    ))
}
