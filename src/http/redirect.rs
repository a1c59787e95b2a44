//! Redirects.

use actix_web::{HttpResponse, http::header};

/// A 303 redirect to `path`.
pub fn see_other(path: &str) -> HttpResponse {
    HttpResponse::SeeOther()
        .insert_header((header::LOCATION, path))
        .finish()
}
