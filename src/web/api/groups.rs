//! `v1/groups`: groups and their members, in Connect's shapes.

use crate::{
    domain::group::Group,
    http::{codes::Code, query::parameter},
    web::api::{ApiError, ApiResult, JsonObject, PersonalKey, guid, ok, page_of, users::user},
};
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Value, json};

fn group(group: &Group) -> Value {
    json!({"guid": group.id, "name": group.name, "owner_guid": group.owner})
}

/// `GET v1/groups`. Query: `prefix` of the name, and paging (default 20).
pub async fn list(api: PersonalKey, request: HttpRequest) -> ApiResult {
    let mut groups = api.service.groups.groups(&api.actor).await?;
    if let Some(prefix) = parameter(&request, "prefix").map(|text| text.to_lowercase()) {
        groups.retain(|group| group.name.to_lowercase().starts_with(&prefix));
    }
    page_of(&request, &groups, 20, group)
}

/// The required field `name`.
fn name(body: &JsonObject) -> Result<String, ApiError> {
    body.text("name", Code::Invalid)?
        .ok_or_else(|| ApiError::bad(Code::Invalid, "name: must be there, as a text."))
}

/// `POST v1/groups`.
pub async fn create(api: PersonalKey, body: JsonObject) -> ApiResult {
    Ok(ok(&group(
        &api.service
            .groups
            .create_group(&api.actor, &name(&body)?)
            .await?,
    )))
}

/// `GET v1/groups/{guid}`.
pub async fn get(api: PersonalKey, path: web::Path<String>) -> ApiResult {
    let (found, _) = api
        .service
        .groups
        .group(&api.actor, guid(&path, Code::MalformedId)?)
        .await?;
    Ok(ok(&group(&found)))
}

/// `PATCH v1/groups/{guid}`: renames the group.
pub async fn update(api: PersonalKey, path: web::Path<String>, body: JsonObject) -> ApiResult {
    Ok(ok(&group(
        &api.service
            .groups
            .rename_group(&api.actor, guid(&path, Code::MalformedId)?, &name(&body)?)
            .await?,
    )))
}

/// `DELETE v1/groups/{guid}`: 204.
pub async fn delete(api: PersonalKey, path: web::Path<String>) -> ApiResult {
    api.service
        .groups
        .delete_group(&api.actor, guid(&path, Code::MalformedId)?)
        .await?;
    Ok(HttpResponse::NoContent().finish())
}

/// `GET v1/groups/{guid}/members`, with paging (default 10).
pub async fn members(api: PersonalKey, path: web::Path<String>, request: HttpRequest) -> ApiResult {
    let (_, members) = api
        .service
        .groups
        .group(&api.actor, guid(&path, Code::MalformedId)?)
        .await?;
    page_of(&request, &members, 10, user)
}

/// `POST v1/groups/{guid}/members` with `user_guid`: 204.
pub async fn add_member(api: PersonalKey, path: web::Path<String>, body: JsonObject) -> ApiResult {
    let person = guid(
        &body
            .text("user_guid", Code::MalformedId)?
            .unwrap_or_default(),
        Code::MalformedId,
    )?;
    api.service
        .groups
        .add_member(&api.actor, guid(&path, Code::MalformedId)?, person)
        .await?;
    Ok(HttpResponse::NoContent().finish())
}

/// `DELETE v1/groups/{guid}/members/{person}`: 204.
pub async fn remove_member(api: PersonalKey, path: web::Path<(String, String)>) -> ApiResult {
    api.service
        .groups
        .remove_member(
            &api.actor,
            guid(&path.0, Code::MalformedId)?,
            guid(&path.1, Code::MalformedId)?,
        )
        .await?;
    Ok(HttpResponse::NoContent().finish())
}
