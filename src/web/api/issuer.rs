//! This portal as an OpenID issuer, for services that trust its tokens: discovery and public keys.
//! Without sign-in, and answered from memory.

use super::ApiError;
use crate::service::Services;
use actix_web::{HttpResponse, http::header, web};

/// How long clients may keep both documents: far less than a key is published before it signs.
const KEPT: &str = "public, max-age=300";

/// `GET /.well-known/openid-configuration`.
pub async fn discovery(service: web::Data<Services>) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, KEPT))
        .json(service.issuer.discovery())
}

/// `GET /.well-known/jwks.json`: no key before the first token was needed.
pub async fn public_keys(service: web::Data<Services>) -> Result<HttpResponse, ApiError> {
    let keys = service.issuer.public_keys().await?;
    Ok(HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, KEPT))
        .json(keys))
}
