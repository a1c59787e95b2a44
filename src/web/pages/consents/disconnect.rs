//! `/connections/{guid}/disconnect`: ends a connection and its consents.

use crate::{
    domain::{addresses, connection::State},
    http::errors::WebError,
    providers,
    web::{
        pages::{ConfirmPage, Group, id, page},
        view::NavLink,
        visitor::{Posted, SignedIn},
    },
};
use actix_web::{HttpResponse, web};

/// `GET /connections/{guid}/disconnect`.
pub async fn disconnect_page(
    me: SignedIn,
    path: web::Path<String>,
) -> Result<HttpResponse, WebError> {
    let overview = me
        .service()
        .consents
        .connection(&me.actor, id(&path)?)
        .await?;
    let name = overview.integration.display_name();
    let names = providers::names(&overview.integration);
    let titles: Vec<String> = overview
        .consents
        .iter()
        .map(|granted| granted.content.display_title().to_owned())
        .collect();
    let stops = if titles.is_empty() {
        "No content uses it."
    } else {
        "These can no longer act as you:"
    };
    let is_endless = overview.connection.access_expires_at.is_none()
        && overview.connection.state == State::Active;
    let token = match overview.connection.access_expires_at {
        None if is_endless => format!(
            "A token already handed out has no end: it works until {} ends it.",
            names.provider
        ),
        Some(end) if end > *me.now() => {
            format!(
                "A token already handed out works until {}.",
                me.now().absolute(end)
            )
        }
        _ => "No token that was handed out is still valid.".to_owned(),
    };
    let told = providers::endpoints(&overview.integration)
        .is_some_and(|endpoints| endpoints.revoke.is_some());
    let elsewhere = if told {
        format!("{} is told that the connection ended.", names.provider)
    } else {
        format!(
            "{} keeps its own list of what you agreed to; this page cannot change it.",
            names.provider
        )
    };
    page(&ConfirmPage {
        chrome: me
            .visitor
            .chrome("consents", &format!("Disconnect {name}?")),
        errors: Vec::new(),
        groups: vec![
            Group::new("What stops working", &[stops], titles),
            Group::new(
                "What does not happen",
                &[
                    "Data that was already read stays where it is.",
                    &token,
                    &elsewhere,
                ],
                Vec::new(),
            ),
        ],
        link: providers::consents_link(&overview.integration)
            .map(|(href, label)| NavLink::new(href, label)),
        action: addresses::disconnect(overview.connection.id),
        fields: Vec::new(),
        submit: format!("Disconnect {name}"),
        cancel: "/consents".into(),
    })
}

/// `POST /connections/{guid}/disconnect`: ends a connection and all consents on it.
pub async fn disconnect(
    me: SignedIn,
    path: web::Path<String>,
    _: Posted,
) -> Result<HttpResponse, WebError> {
    let overview = me
        .service()
        .consents
        .connection(&me.actor, id(&path)?)
        .await?;
    let integration = me
        .service()
        .consents
        .disconnect(&me.actor, overview.connection.id)
        .await?;
    Ok(me.done(
        "/consents",
        format!(
            "Disconnected {}. Nothing reconnects by itself.",
            integration.display_name()
        ),
    ))
}
