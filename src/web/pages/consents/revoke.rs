//! `/consents/{guid}/revoke`: takes one consent back.

use crate::{
    domain::addresses,
    http::errors::WebError,
    providers,
    web::{
        pages::{ConfirmPage, Group, id, page},
        visitor::{Posted, SignedIn},
    },
};
use actix_web::{HttpResponse, web};

/// `GET /consents/{guid}/revoke`.
pub async fn revoke_page(me: SignedIn, path: web::Path<String>) -> Result<HttpResponse, WebError> {
    let (granted, integration) = me.service().consents.consent(&me.actor, id(&path)?).await?;
    let (title, service) = (
        granted.content.display_title(),
        providers::names(&integration).service,
    );
    page(&ConfirmPage {
        chrome: me.visitor.chrome("consents", &format!("Revoke {title}?")),
        errors: Vec::new(),
        groups: vec![
            Group::new(
                "What stops",
                &[&format!(
                    "“{title}” can no longer use {service} as you. From now on it gets no new token."
                )],
                Vec::new(),
            ),
            Group::new(
                "What stays",
                &[
                    "What it has already read stays read. A token that it holds already works until that token ends, for about an hour at most.",
                    &format!(
                        "You stay connected to {service} for your other content. The next visit to “{title}” asks you again."
                    ),
                ],
                Vec::new(),
            ),
        ],
        link: None,
        action: addresses::revoke(granted.consent.id),
        fields: Vec::new(),
        submit: format!("Revoke {title}"),
        cancel: "/consents".into(),
    })
}

/// `POST /consents/{guid}/revoke`: ends one consent; the connection stays.
pub async fn revoke(
    me: SignedIn,
    path: web::Path<String>,
    _: Posted,
) -> Result<HttpResponse, WebError> {
    let (granted, _) = me
        .service()
        .consents
        .revoke_consent(&me.actor, id(&path)?)
        .await?;
    Ok(me.done(
        "/consents",
        format!(
            "Revoked {}. It asks you again on the next visit.",
            granted.content.display_title()
        ),
    ))
}
