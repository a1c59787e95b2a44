//! `server_settings`, bootstrap of the first administrator, and the probes `/__ping__` (liveness)
//! and `/__health__` (readiness).

use crate::{
    http::{client_address::audit_origin, codes::Code},
    service::{Services, cluster::health::Health, people::bootstrap::BootstrapError},
    vault::proof::Proofs,
    web::api::{ApiError, ApiResult, key_of, ok},
};
use actix_web::{HttpRequest, HttpResponse, http::header, web};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use std::{convert::Infallible, time::Duration};

/// The version of Connect whose API this is; clients compare it.
const VERSION: &str = "2025.11.0";
/// The header with the challenge of `valetkey doctor`.
pub const DOCTOR: &str = "x-valetkey-doctor";
/// The query with which the doctor asks `/__health__` for events.
pub const EVENTS: &str = "events";
/// The pause between two events for the doctor.
pub const BETWEEN_EVENTS: Duration = Duration::from_secs(1);

/// `GET server_settings`. Works without a key, but a wrong key gets 401: clients test their key
/// with this call.
pub async fn settings(request: HttpRequest, service: web::Data<Services>) -> ApiResult {
    key_of(&request, &service).await?;
    Ok(ok(&json!({
        "version": VERSION,
        "build": "valetkey",
        "about": "Valetkey",
        "hostname": service.core.settings.public_url.host_str().unwrap_or_default(),
        "system_display_name": "Valetkey",
        "dashboard_path": "/connect",
        "authentication": {"name": "Password", "handles_credentials": true, "handles_login": true, "groups_enabled": true,
                           "external_user_data": false, "external_user_search": false, "external_user_id": false,
                           "external_group_search": false, "external_group_members": false, "external_group_id": false},
        "license": {"allow-apis": "1", "oauth-integrations": true},
        "runtimes": ["R", "Python", "Quarto"],
        "git_enabled": false,
        "git_available": false,
        "oauth_integrations_enabled": true,
        "execution_type": "external",
        "default_content_list_view": "compact",
        "maximum_app_image_size": 0
    })))
}

/// `POST v1/bootstrap`: creates the first administrator and returns an API key. Authenticated by
/// `Authorization: Connect-Bootstrap <JWT>`; 401 for a wrong token, 403 if an account exists.
pub async fn bootstrap(request: HttpRequest, service: web::Data<Services>) -> ApiResult {
    let header = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    let token = header.strip_prefix("Connect-Bootstrap ").unwrap_or("");
    match service
        .bootstrap
        .bootstrap(token, &audit_origin(&request, &service))
        .await
    {
        Ok(key) => Ok(ok(&json!({"api_key": key.expose_secret()}))),
        Err(BootstrapError::Token) => Err(ApiError::new(
            401,
            Code::UnknownKey,
            "This is not a bootstrap token of this server.",
        )),
        Err(BootstrapError::AccountExists) => Err(ApiError::new(
            403,
            Code::Forbidden,
            "Somebody has an account here already.",
        )),
        Err(BootstrapError::Service(error)) => Err(error.into()),
    }
}

/// Liveness: the node runs.
pub async fn ping() -> HttpResponse {
    HttpResponse::Ok().json(json!({}))
}

/// Readiness: a word for each thing that the node needs; 503 if one of them is missing.
pub async fn health(request: HttpRequest, service: web::Data<Services>) -> HttpResponse {
    let report = service.health.report().await;
    let is_ready = Health::is_ready(&report);
    let mut body = serde_json::Map::new();
    body.insert(
        "status".to_owned(),
        json!(if is_ready { "ok" } else { "not ready" }),
    );
    for (name, word) in report {
        body.insert(name.to_owned(), json!(word.as_str()));
    }
    if let Some(seen) = seen_by_doctor(&request, &service) {
        if request.query_string() == EVENTS {
            return two_events();
        }
        body.insert("doctor".to_owned(), seen);
    }
    let mut answer = if is_ready {
        HttpResponse::Ok()
    } else {
        HttpResponse::ServiceUnavailable()
    };
    answer.json(body)
}

/// Two events, a second apart: whether an outer proxy passes the first one on before the second.
fn two_events() -> HttpResponse {
    let event = |text: &'static str| Ok::<_, Infallible>(Bytes::from_static(text.as_bytes()));
    let first = stream::once(async move { event("data: first\n\n") });
    let second = stream::once(async move {
        tokio::time::sleep(BETWEEN_EVENTS).await;
        event("data: second\n\n")
    });
    HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .streaming(first.chain(second))
}

/// For `valetkey doctor` of this installation: who answers, and how the request arrived. `None` for
/// everybody else.
fn seen_by_doctor(request: &HttpRequest, service: &Services) -> Option<Value> {
    let headers = request.headers();
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let challenge = text(DOCTOR)?;
    let proof = Proofs::new(&service.core.root).answer(challenge, service.core.now())?;
    let forwarded = ["x-forwarded-for", "forwarded"];
    Some(json!({
        "proof": proof,
        "version": env!("CARGO_PKG_VERSION"),
        "host": text("host"),
        "peer": request.peer_addr().map(|peer| peer.ip()),
        "forwarded": forwarded.iter().any(|name| headers.contains_key(*name)),
    }))
}
