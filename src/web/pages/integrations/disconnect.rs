//! `/integrations/{guid}/disconnect`: ends all its connections.

use crate::{
    domain::addresses,
    http::errors::WebError,
    service::{core::must_manage_integrations, grants::revocations::EndScope},
    web::{
        confirmation::Confirmed,
        forms::Field,
        pages::{ConfirmPage, Group, PATIENCE, id, page},
        view::count_noun,
        visitor::SignedIn,
    },
};
use actix_web::{HttpResponse, web};

/// `GET /integrations/{guid}/disconnect`.
pub async fn disconnect_page(
    me: SignedIn,
    path: web::Path<String>,
) -> Result<HttpResponse, WebError> {
    must_manage_integrations(&me.actor)?;
    let integration = me
        .service()
        .integrations
        .integration(&me.actor, id(&path)?)
        .await?;
    let impact = me
        .service()
        .integrations
        .integration_impact(&me.actor, integration.id)
        .await?;
    let people: Vec<String> = impact
        .people
        .iter()
        .map(crate::domain::person::Person::display_name)
        .collect();
    let who = if people.is_empty() {
        "Nobody is connected."
    } else {
        "These are disconnected:"
    };
    let base = addresses::integration(integration.id);
    page(&ConfirmPage {
        chrome: me.visitor.chrome(
            "integrations",
            &format!("Disconnect everybody from {}?", integration.display_name()),
        ),
        errors: Vec::new(),
        groups: vec![Group::new("Who", &[who], people), what_disconnecting_does()],
        link: None,
        action: format!("{base}/disconnect"),
        fields: vec![reason_field()],
        submit: "Disconnect everybody".into(),
        cancel: base,
    })
}

/// `POST /integrations/{guid}/disconnect`: ends every connection at this integration.
pub async fn disconnect(
    me: SignedIn,
    path: web::Path<String>,
    Confirmed(typed): Confirmed,
) -> Result<HttpResponse, WebError> {
    must_manage_integrations(&me.actor)?;
    let integration = me
        .service()
        .integrations
        .integration(&me.actor, id(&path)?)
        .await?;
    let ended = me
        .service()
        .revocations
        .disconnect_all(
            &me.actor,
            EndScope::Integration(integration.id),
            typed.text("reason"),
            PATIENCE,
        )
        .await?;
    let message = match ended {
        Some(ended) => format!("Disconnected {}.", count_noun(ended, "person", "people")),
        None => "No content can use these connections any more. They are being deleted.".into(),
    };
    Ok(me.done(&addresses::integration(integration.id), message))
}

/// What happens to people whom an administrator disconnects; also used by the people pages.
pub(in crate::web::pages) fn what_disconnecting_does() -> Group {
    Group::new(
        "What happens",
        &[
            "Their tokens are deleted here, and no content can act for them any more. Each provider that can be told is told.",
            "A token that content already holds works until it ends, an hour at most in most cases.",
            "They are asked again the next time they open content.",
        ],
        Vec::new(),
    )
}

/// The optional reason for ending other people's connections, for the audit record.
pub(in crate::web::pages) fn reason_field() -> Field {
    Field::text("reason", "Why").hint("Optional. It stands in the record.")
}
