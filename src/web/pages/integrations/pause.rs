//! `POST /integrations/{guid}/pause`: pauses an integration after a question, or resumes it.

use crate::{
    domain::addresses,
    http::errors::WebError,
    service::{
        catalog::integrations::{IntegrationInput, UpdateOutcome},
        core::must_manage_integrations,
    },
    web::{
        forms::{Field, FieldKind},
        pages::{PATIENCE, Question, ask_first, id, is_sure},
        view::count_noun,
        visitor::{Posted, SignedIn},
    },
};
use actix_web::{HttpResponse, web};

/// `POST /integrations/{guid}/pause`; the field `paused` is `yes` or `no`.
pub async fn pause(
    me: SignedIn,
    path: web::Path<String>,
    Posted(typed): Posted,
) -> Result<HttpResponse, WebError> {
    must_manage_integrations(&me.actor)?;
    let (integrations, guid) = (&me.service().integrations, id(&path)?);
    let integration = integrations.integration(&me.actor, guid).await?;
    let (base, name) = (addresses::integration(guid), integration.display_name());
    let paused = typed.text("paused") == "yes";
    if paused && !is_sure(&typed) {
        let usage = integrations.integration_usage(&me.actor).await?;
        let used = usage.get(&guid).cloned().unwrap_or_default();
        let affected = format!(
            "{} and {} at once get no more tokens. A token that was already handed out works until it ends.",
            count_noun(used.contents, "content item", "content items"),
            count_noun(used.people, "connected person", "connected people")
        );
        return ask_first(
            &me,
            Question {
                area: "integrations",
                title: format!("Pause {name}?"),
                consequences: &[
                    &affected,
                    "Nobody is asked for a consent meanwhile. All consents and connections are kept: after you resume, everything goes on where it was.",
                ],
                action: format!("{base}/pause"),
                fields: vec![Field::new(FieldKind::Hidden, "paused", "").value("yes")],
                submit: &format!("Pause {name}"),
                cancel: base,
            },
        );
    }
    let input = IntegrationInput {
        paused: Some(paused),
        ..IntegrationInput::default()
    };
    let saved = integrations
        .update_integration(&me.actor, guid, input, PATIENCE)
        .await?;
    let message = match saved {
        UpdateOutcome::GoesOn => {
            "The change is still being saved. Load this page again in a moment.".into()
        }
        _ if paused => format!("Paused {name}. It hands out no tokens until you resume it."),
        _ => format!("Resumed {name}."),
    };
    Ok(me.done(&base, message))
}
