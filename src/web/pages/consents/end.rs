//! `POST /consents/end`: revokes all of one's consents, or those that were not used for long.

use crate::{
    domain::{Id, consent::Consent},
    http::errors::WebError,
    web::{
        forms::{Field, FieldKind},
        pages::{Question, ask_first, consents::list::is_unused, is_sure},
        view::{count_noun, some_of},
        visitor::{Posted, SignedIn},
    },
};
use actix_web::HttpResponse;

/// `POST /consents/end`: after a question; `which` is `all` or `unused`.
pub async fn end(me: SignedIn, Posted(typed): Posted) -> Result<HttpResponse, WebError> {
    let (consents, now) = (&me.service().consents, me.now());
    let only_unused = typed.text("which") != "all";
    let overviews = consents.consents(&me.actor).await?;
    let meant: Vec<_> = overviews
        .iter()
        .flat_map(|overview| &overview.consents)
        .filter(|granted| !only_unused || is_unused(&granted.consent, *now))
        .collect();
    if !is_sure(&typed) {
        let titles: Vec<String> = meant
            .iter()
            .map(|granted| granted.content.display_title().to_owned())
            .collect();
        let names = some_of(titles).join(", ");
        let which = if only_unused { "unused" } else { "all" };
        return ask_first(
            &me,
            Question {
                area: "consents",
                title: format!("Revoke {}?", count_noun(meant.len(), "consent", "consents")),
                consequences: &[
                    &format!("These apps can no longer act as you: {names}."),
                    "Your connections stay. The next time you open one of these apps it asks you again. What it has read is not taken back, and a token that it already holds works until it ends, within an hour or so.",
                ],
                action: "/consents/end".into(),
                fields: vec![Field::new(FieldKind::Hidden, "which", "").value(which)],
                submit: "Revoke them",
                cancel: "/consents".into(),
            },
        );
    }
    let ids: Vec<Id<Consent>> = meant.iter().map(|granted| granted.consent.id).collect();
    let ended = consents.revoke_many(&me.actor, ids).await?;
    let message = format!("Revoked {}.", count_noun(ended, "consent", "consents"));
    Ok(me.done("/consents", message))
}
