//! `v1/users`: people and their API keys, in Connect's shapes.

use crate::{
    domain::{
        Id, Timestamp,
        api_key::ApiKey,
        person::{Person, Role},
    },
    http::{codes::Code, query::parameter},
    service::{Error, people::accounts::PersonInput},
    web::api::{AnyKey, ApiError, ApiResult, JsonObject, PersonalKey, guid, invalid, ok, page_of},
};
use actix_web::{HttpRequest, HttpResponse, web};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

/// A person in Connect's shape.
pub fn user(person: &Person) -> Value {
    json!({
        "guid": person.id,
        "username": person.username,
        "email": person.email,
        "first_name": person.first_name,
        "last_name": person.last_name,
        "user_role": person.role.as_str(),
        "created_time": person.created_at.rfc3339(),
        "updated_time": person.updated_at.rfc3339(),
        "active_time": person.active_at.map(Timestamp::rfc3339),
        "confirmed": true,
        "locked": person.locked,
    })
}

/// `GET v1/user`, `GET me`: the key's person. Content keys may ask, too.
pub async fn me(any: AnyKey) -> ApiResult {
    Ok(ok(&user(&any.caller.person)))
}

/// `GET v1/users`. Query: `prefix` of a name, `user_role` and `account_status` (alternatives
/// separated by `|`), and paging (default 20).
pub async fn list(api: PersonalKey, request: HttpRequest) -> ApiResult {
    let mut people = api.service.people.people(&api.actor).await?;
    if let Some(prefix) = parameter(&request, "prefix")
        .map(|text| text.to_lowercase())
        .filter(|text| !text.is_empty())
    {
        people.retain(|person| {
            [&person.username, &person.first_name, &person.last_name]
                .iter()
                .any(|name| name.to_lowercase().starts_with(&prefix))
        });
    }
    if let Some(roles) = parameter(&request, "user_role") {
        people.retain(|person| roles.split('|').any(|role| role == person.role.as_str()));
    }
    if let Some(states) = parameter(&request, "account_status") {
        people.retain(|person| {
            states
                .split('|')
                .any(|state| state == if person.locked { "locked" } else { "licensed" })
        });
    }
    page_of(&request, &people, 20, user)
}

fn person_input(body: &JsonObject) -> Result<PersonInput, ApiError> {
    Ok(PersonInput {
        username: body.text("username", Code::Invalid)?,
        email: body.text("email", Code::Invalid)?,
        first_name: body.text("first_name", Code::Invalid)?,
        last_name: body.text("last_name", Code::Invalid)?,
        role: body.role("user_role")?,
        password: body
            .text("password", Code::Invalid)?
            .map(SecretString::from),
        based_on: None,
    })
}

fn refused(error: Error) -> ApiError {
    match error {
        Error::Invalid(problems) => invalid(&problems, |_| Code::Invalid),
        other => other.into(),
    }
}

/// `POST v1/users`.
pub async fn create(api: PersonalKey, body: JsonObject) -> ApiResult {
    let input = person_input(&body)?;
    // A person without a password signs in by a one-time link or at the organisation. Without the
    // latter, the caller must ask for the former explicitly.
    if input.password.is_none()
        && body.0.get("user_must_set_password") != Some(&Value::Bool(true))
        && api.service.core.settings.sign_in.is_none()
    {
        return Err(ApiError::bad(
            Code::Invalid,
            "password: must be there, or user_must_set_password be true.",
        ));
    }
    let person = api
        .service
        .people
        .create_person(&api.actor, input)
        .await
        .map_err(refused)?;
    Ok(ok(&user(&person)))
}

/// `GET v1/users/{guid}`.
pub async fn get(api: PersonalKey, path: web::Path<String>) -> ApiResult {
    let person = api
        .service
        .people
        .person(&api.actor, guid(&path, Code::MalformedId)?)
        .await?;
    Ok(ok(&user(&person)))
}

/// `PUT v1/users/{guid}`. A `password` is ignored.
pub async fn update(api: PersonalKey, path: web::Path<String>, body: JsonObject) -> ApiResult {
    let input = PersonInput {
        password: None,
        ..person_input(&body)?
    };
    let person = api
        .service
        .people
        .update_person(&api.actor, guid(&path, Code::MalformedId)?, input)
        .await
        .map_err(refused)?;
    Ok(ok(&user(&person)))
}

/// `POST v1/users/{guid}/lock` with `locked`, true or false.
pub async fn lock(api: PersonalKey, path: web::Path<String>, body: JsonObject) -> ApiResult {
    let Some(Value::Bool(locked)) = body.0.get("locked") else {
        return Err(ApiError::bad(
            Code::Invalid,
            "locked: must be true or false.",
        ));
    };
    api.service
        .people
        .set_locked(&api.actor, guid(&path, Code::MalformedId)?, *locked)
        .await
        .map_err(refused)?;
    Ok(ok(&json!({})))
}

/// An API key in Connect's shape, without the secret.
fn key(key: &ApiKey) -> Value {
    json!({
        "id": key.number.to_string(),
        "name": key.name,
        "user_role": key.role.as_str(),
        "created_time": key.created_at.rfc3339(),
        "active_time": key.active_at.map(Timestamp::rfc3339),
        "expires_at": key.expires_at.map(Timestamp::rfc3339),
    })
}

/// Refuses unless the path names the caller: only their own keys are created and deleted, and not by
/// content that acts for them.
fn must_be_caller(api: &PersonalKey, path: &str) -> Result<(), ApiError> {
    if api.is_visitor {
        return Err(Error::Forbidden("A visitor key makes and deletes no keys.").into());
    }
    let person: Id<Person> = guid(path, Code::MalformedId)?;
    if person == api.actor.person.id {
        return Ok(());
    }
    Err(Error::Forbidden("Keys belong to their person.").into())
}

/// `GET v1/users/{guid}/keys`.
pub async fn keys(api: PersonalKey, path: web::Path<String>) -> ApiResult {
    let person = guid(&path, Code::MalformedId)?;
    let keys = api.service.api_keys.keys_of(&api.actor, person).await?;
    Ok(ok(&Value::Array(keys.iter().map(key).collect())))
}

/// `POST v1/users/{guid}/keys`: own keys only. The response alone contains the secret (`key`).
/// Errors: 62 for the name, 234 for the role.
pub async fn create_key(api: PersonalKey, path: web::Path<String>, body: JsonObject) -> ApiResult {
    must_be_caller(&api, &path)?;
    let role = match body.text("user_role", Code::KeyRole)? {
        None => None,
        Some(text) => Some(Role::parse(&text).ok_or_else(|| {
            ApiError::bad(
                Code::KeyRole,
                "user_role: must be administrator, publisher or viewer.",
            )
        })?),
    };
    let expires_at = match body.text("expires_at", Code::Invalid)? {
        None => None,
        Some(text) => Some(Timestamp::parse_rfc3339(&text).ok_or_else(|| {
            ApiError::bad(
                Code::Invalid,
                "expires_at: must be a time such as 2026-01-31T08:00:00Z.",
            )
        })?),
    };
    let name = body.text("name", Code::KeyName)?.unwrap_or_default();
    // A key that ends makes none that outlives it.
    let expires_at = match (expires_at, api.ends_at) {
        (Some(asked), Some(end)) => Some(asked.min(end)),
        (asked, end) => asked.or(end),
    };
    let (made, secret) = api
        .service
        .api_keys
        .create_key(&api.actor, &name, role, expires_at)
        .await
        .map_err(|error| match error {
            Error::Invalid(problems) => invalid(&problems, |key| {
                if key == "name" {
                    Code::KeyName
                } else {
                    Code::KeyRole
                }
            }),
            other => other.into(),
        })?;
    let mut answer = key(&made);
    answer["key"] = json!(secret.expose_secret());
    Ok(ok(&answer))
}

/// A key's id in the path.
fn number(text: &str) -> Result<i64, ApiError> {
    text.parse()
        .map_err(|_| ApiError::bad(Code::MalformedId, "The id must be a number."))
}

/// `GET v1/users/{guid}/keys/{id}`.
pub async fn get_key(api: PersonalKey, path: web::Path<(String, String)>) -> ApiResult {
    let (person, wanted) = (guid(&path.0, Code::MalformedId)?, number(&path.1)?);
    let found = api
        .service
        .api_keys
        .keys_of(&api.actor, person)
        .await?
        .into_iter()
        .find(|key| key.number == wanted)
        .ok_or(Error::NotFound)?;
    Ok(ok(&key(&found)))
}

/// `DELETE v1/users/{guid}/keys/{id}`: own keys only; 204.
pub async fn delete_key(api: PersonalKey, path: web::Path<(String, String)>) -> ApiResult {
    must_be_caller(&api, &path.0)?;
    api.service
        .api_keys
        .delete_key(&api.actor, number(&path.1)?)
        .await?;
    Ok(HttpResponse::NoContent().finish())
}
