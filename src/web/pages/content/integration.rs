//! `POST /content-settings/{guid}/integration` and `/beside-viewers`: which integrations an item uses,
//! and whether it may act as itself where it acts for viewers.

use crate::{
    domain::{Id, addresses, form::FieldError, integration::Integration},
    http::errors::WebError,
    web::{
        forms::{Field, FieldKind},
        pages::{Question, ask_first, content::settings::draw_settings, id, is_sure, problems_of},
        view::count_noun,
        visitor::{Posted, SignedIn},
    },
};
use actix_web::{HttpResponse, web};

/// `POST /content-settings/{guid}/integration`: attaches the checked integrations. Of those that the
/// form did not show (`shown`), none is changed. Asks first if consents would end.
pub async fn save_integration(
    me: SignedIn,
    path: web::Path<String>,
    Posted(typed): Posted,
) -> Result<HttpResponse, WebError> {
    let guid = id(&path)?;
    let contents = &me.service().contents;
    let seen = contents.editable_content(&me.actor, guid).await?;
    let ids = |name: &str| -> Option<Vec<Id<Integration>>> {
        let texts = typed.all(name).filter(|text| !text.is_empty());
        texts.map(|text| text.parse().ok()).collect()
    };
    let (Some(checked), Some(shown)) = (ids("integration"), ids("shown")) else {
        let problem = FieldError::new("integration", "Choose among the integrations.");
        return draw_settings(&me, seen, None, vec![problem]).await;
    };
    let attached = contents.associations(&me.actor, guid).await?;
    let kept = attached.iter().map(|(_, integration)| integration.id);
    let mut wanted: Vec<_> = kept.filter(|id| !shown.contains(id)).collect();
    wanted.extend(checked.iter().copied());
    wanted.dedup();
    let settings = addresses::content_settings(guid);
    let consents = contents.consent_counts(&me.actor, guid).await?;
    let ending: i64 = consents
        .iter()
        .filter(|(integration, _)| !wanted.contains(integration))
        .map(|(_, count)| count)
        .sum();
    if ending > 0 && !is_sure(&typed) {
        let again = |name: &str, ids: &[Id<Integration>]| -> Vec<Field> {
            let values = ids.iter().map(ToString::to_string);
            values
                .map(|value| Field::new(FieldKind::Hidden, name, "").value(value))
                .collect()
        };
        let mut fields = again("integration", &checked);
        fields.extend(again("shown", &shown));
        let count = count_noun(ending, "consent ends", "consents end");
        return ask_first(
            &me,
            Question {
                area: "content",
                title: "Change what this content uses?".into(),
                consequences: &[
                    &format!(
                        "{count} at once. The app can no longer act for these people with the integrations that are taken away."
                    ),
                    "If you attach one of them again, each person is asked again.",
                ],
                action: format!("{settings}/integration"),
                fields,
                submit: "Save, and end them",
                cancel: settings,
            },
        );
    }
    let none = wanted.is_empty();
    match contents.set_associations(&me.actor, guid, wanted).await {
        Ok(()) => {
            let message = if none {
                "Saved. This content uses no integration now."
            } else {
                "Saved. Viewers are asked for their consent when they open this content."
            };
            Ok(me.done(&settings, message))
        }
        Err(error) => {
            let problems = problems_of(error)?
                .into_iter()
                .map(|problem| FieldError::new("integration", problem.message))
                .collect();
            draw_settings(&me, seen, None, problems).await
        }
    }
}

/// `POST /content-settings/{guid}/beside-viewers`: the field `allowed` is `yes` or `no`.
pub async fn beside_viewers(
    me: SignedIn,
    path: web::Path<String>,
    Posted(typed): Posted,
) -> Result<HttpResponse, WebError> {
    let guid = id(&path)?;
    let integration = id(typed.text("integration"))?;
    let allowed = typed.text("allowed") == "yes";
    me.service()
        .contents
        .allow_beside_viewers(&me.actor, guid, integration, allowed)
        .await?;
    let message = if allowed {
        "Saved. This content may act as itself there, too: what it shows may then be more than its viewer may see."
    } else {
        "Saved. This content acts there only for its viewers."
    };
    Ok(me.done(&addresses::content_settings(guid), message))
}
