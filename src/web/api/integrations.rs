//! Integrations, templates and connections, in Connect's shapes; Connect calls connections
//! “sessions”.
//!
//! `availability` is an extension of `permissions`: `everyone`, `listed` or `nobody`. So an empty
//! list never opens an integration that was restricted: when its last entry is removed, it means
//! nobody.

use crate::{
    domain::{
        change::Change,
        check::Verdict,
        connection::Connection,
        form::FieldError,
        group::Principal,
        integration::{AuthType, Availability, Config, IdentityCheck, Integration, ListEntry},
    },
    http::{codes::Code, query::parameter},
    providers::{self, Field, Template},
    service::{
        Error,
        catalog::integrations::{IntegrationInput, UpdateOutcome},
    },
    web::api::{AnyKey, ApiError, ApiResult, JsonObject, PersonalKey, guid, invalid, is_true, ok},
};
use actix_web::{HttpRequest, HttpResponse, web};
use secrecy::SecretString;
use serde_json::{Value, json};
use std::time::Duration;

/// How long a request waits until many connections have ended. Beyond it the work goes on, and the
/// request is answered with 503 and [`TRY_AGAIN`].
const PATIENCE: Duration = Duration::from_secs(300);
const TRY_AGAIN: Duration = Duration::from_secs(30);

/// A list entry in Connect's shape.
fn permission(entry: &ListEntry) -> Value {
    let (person, group) = match entry.principal {
        Principal::Person(person) => (Some(person), None),
        Principal::Group(group) => (None, Some(group)),
    };
    json!({
        "id": entry.number.to_string(),
        "guid": entry.id,
        "integration_guid": entry.integration,
        "user_guid": person,
        "group_guid": group,
    })
}

/// An integration in Connect's shape, with its entries from `listings`. Never contains the secret.
fn integration(integration: &Integration, listings: &[ListEntry]) -> Value {
    json!({
        "id": integration.number.to_string(),
        "guid": integration.id,
        "created_time": integration.created_at.rfc3339(),
        "updated_time": integration.updated_at.rfc3339(),
        "name": integration.name,
        "description": integration.description,
        "template": integration.template,
        "auth_type": integration.auth_type,
        "config": integration.config,
        "permissions": listings.iter().filter(|entry| entry.integration == integration.id).map(permission).collect::<Vec<_>>(),
        "environment_variables": providers::environment_variables(integration),
        // Fields that Connect does not have. `availability` makes an empty `permissions`
        // unambiguous: it alone does not mean that everyone may choose the integration.
        "availability": integration.availability.as_str(),
        "identity_check": integration.identity_check.as_str(),
        "paused": integration.paused_at.is_some(),
    })
}

/// `GET v1/oauth/integrations`: the integrations that the caller may see.
pub async fn list(api: PersonalKey) -> ApiResult {
    let all = api.service.integrations.integrations(&api.actor).await?;
    let listings = api.service.integrations.listings(&api.actor, None).await?;
    Ok(ok(&Value::Array(
        all.iter()
            .map(|found| integration(found, &listings))
            .collect(),
    )))
}

/// `GET v1/oauth/integrations/{guid}`. A content key reads those of its own item, without their
/// lists.
pub async fn get(any: AnyKey, path: web::Path<String>) -> ApiResult {
    let (actor, id) = (any.actor(), guid(&path, Code::IntegrationId)?);
    let service = &any.service;
    if let Some(item) = any.caller.content {
        let attached = service.contents.associations(&actor, item).await?;
        let mut own = attached.into_iter().map(|(_, integration)| integration);
        let found = own.find(|integration| integration.id == id);
        return Ok(ok(&integration(&found.ok_or(Error::NotFound)?, &[])));
    }
    let found = service.integrations.integration(&actor, id).await?;
    let listings = service.integrations.listings(&actor, Some(id)).await?;
    Ok(ok(&integration(&found, &listings)))
}

/// 200 with the integration and its list.
async fn integration_response(api: &PersonalKey, found: &Integration) -> ApiResult {
    Ok(ok(&integration(
        found,
        &api.service
            .integrations
            .listings(&api.actor, Some(found.id))
            .await?,
    )))
}

/// Which availability the body asks for; `None` leaves it unchanged. Without the field it follows
/// from `permissions`: entries mean `listed`; an empty list means `nobody` for an
/// integration that is listed now, and no change otherwise (a new one is then open, as clients of
/// Connect expect).
fn availability(
    body: &JsonObject,
    listed: Option<&[Principal]>,
    stored: Option<Availability>,
) -> Result<Option<Availability>, ApiError> {
    let given = match body.text("availability", Code::Invalid)? {
        None => None,
        Some(text) => {
            let known = Availability::parse(&text);
            Some(known.ok_or_else(|| {
                ApiError::bad(
                    Code::Invalid,
                    "availability: must be everyone, listed or nobody.",
                )
            })?)
        }
    };
    match (given, listed, stored) {
        (Some(Availability::Everyone | Availability::Nobody), Some([_, ..]), _) => {
            Err(ApiError::bad(
                Code::Invalid,
                "availability: with permissions it must be listed, or be left out.",
            ))
        }
        (Some(given), ..) => Ok(Some(given)),
        (None, Some([_, ..]), _) => Ok(Some(Availability::Listed)),
        (None, Some([]), Some(Availability::Listed)) => Ok(Some(Availability::Nobody)),
        _ => Ok(None),
    }
}

/// The field `permissions`; `None` if absent or null. Duplicates are dropped.
fn principals(value: Option<&Value>) -> Result<Option<Vec<Principal>>, ApiError> {
    let list = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(list)) => list,
        Some(_) => {
            return Err(ApiError::bad(
                Code::Invalid,
                "permissions: must be an array.",
            ));
        }
    };
    let mut principals = Vec::new();
    for entry in list {
        let text = |key: &str| entry.get(key).and_then(Value::as_str);
        let principal = match (text("user_guid"), text("group_guid")) {
            (Some(person), None) => Principal::Person(guid(person, Code::MalformedId)?),
            (None, Some(group)) => Principal::Group(guid(group, Code::MalformedId)?),
            _ => {
                return Err(ApiError::bad(
                    Code::Invalid,
                    "permissions: each entry needs user_guid or group_guid, and not both.",
                ));
            }
        };
        if !principals.contains(&principal) {
            principals.push(principal);
        }
    }
    Ok(Some(principals))
}

/// The body of POST and PATCH: `template` and `config`. POST also accepts the first published
/// shape, with the settings of an Azure integration at the top level.
fn input(body: &JsonObject, stored: Option<&Integration>) -> Result<IntegrationInput, ApiError> {
    let creating = stored.is_none();
    let mut config = match body.0.get("config") {
        None | Some(Value::Null) => Config::new(),
        Some(Value::Object(config)) => config.clone(),
        Some(_) => {
            return Err(ApiError::bad(
                Code::IntegrationConfig,
                "config: must be an object.",
            ));
        }
    };
    let mut template = body.text("template", Code::Template)?;
    if creating
        && template.is_none()
        && !body.0.contains_key("config")
        && body.0.contains_key("client_id")
    {
        template = Some(providers::UNNAMED.into());
        for key in [
            "client_id",
            "client_secret",
            "tenant_id",
            "authority_host",
            "workspace_url",
        ] {
            if let Some(value) = body.0.get(key) {
                config.insert(key.into(), value.clone());
            }
        }
        let scopes = match body.0.get("default_scopes") {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(Value::Array(list)) if list.iter().all(Value::is_string) => Some(
                list.iter()
                    .filter_map(Value::as_str)
                    .collect::<Vec<_>>()
                    .join(" "),
            ),
            Some(_) => {
                return Err(ApiError::bad(
                    Code::IntegrationConfig,
                    "default_scopes: must be an array of texts.",
                ));
            }
        };
        if let Some(scopes) = scopes {
            config.insert("scopes".into(), scopes.into());
        }
    }
    let client_secret = match config.remove("client_secret") {
        None | Some(Value::Null) => None,
        Some(Value::String(secret)) => Some(secret.trim().to_owned())
            .filter(|secret| !secret.is_empty())
            .map(SecretString::from),
        Some(_) => {
            return Err(ApiError::bad(
                Code::ClientSecret,
                "client_secret: must be a text.",
            ));
        }
    };
    let listed = principals(body.0.get("permissions"))?;
    let identity_check = match body.text("identity_check", Code::Invalid)? {
        None => None,
        Some(text) => Some(IdentityCheck::parse(&text).ok_or_else(|| {
            ApiError::bad(
                Code::Invalid,
                "identity_check: must be off, warn or require.",
            )
        })?),
    };
    Ok(IntegrationInput {
        id: None,
        name: body.text("name", Code::IntegrationName)?,
        description: body.text("description", Code::IntegrationDescription)?,
        template,
        config,
        client_secret,
        secret_expires_at: Change::Keep,
        availability: availability(
            body,
            listed.as_deref(),
            stored.map(|stored| stored.availability),
        )?,
        identity_check,
        listed,
        paused: match body.0.get("paused") {
            None | Some(Value::Null) => None,
            Some(Value::Bool(paused)) => Some(*paused),
            Some(_) => {
                return Err(ApiError::bad(
                    Code::Invalid,
                    "paused: must be true or false.",
                ));
            }
        },
        based_on: None,
        // The API does not ask back: a change that signs people out must carry the client secret in
        // the same request.
        confirmed: true,
        same_name: true,
    })
}

/// Connect's error number for a field.
fn code(problem: &str) -> Code {
    match problem {
        "template" => Code::Template,
        "name" => Code::IntegrationName,
        "description" => Code::IntegrationDescription,
        "client_secret" => Code::ClientSecret,
        "permissions" => Code::MalformedId,
        _ => Code::IntegrationConfig,
    }
}

fn refused(error: Error) -> ApiError {
    match error {
        Error::Invalid(problems) => invalid(&problems, code),
        other => other.into(),
    }
}

/// `POST v1/oauth/integrations`.
pub async fn create(api: PersonalKey, body: JsonObject) -> ApiResult {
    let made = api
        .service
        .integrations
        .create_integration(&api.actor, input(&body, None)?)
        .await
        .map_err(refused)?;
    integration_response(&api, &made).await
}

/// `PATCH v1/oauth/integrations/{guid}`. Error 229 if the template would change.
pub async fn update(api: PersonalKey, path: web::Path<String>, body: JsonObject) -> ApiResult {
    let id = guid(&path, Code::IntegrationId)?;
    let stored = api.service.integrations.integration(&api.actor, id).await?;
    let input = input(&body, Some(&stored))?;
    if input
        .template
        .as_ref()
        .is_some_and(|template| *template != stored.template)
    {
        return Err(ApiError::bad(
            Code::TemplateChange,
            "template: cannot be changed. Make a new integration instead.",
        ));
    }
    match api
        .service
        .integrations
        .update_integration(&api.actor, id, input, PATIENCE)
        .await
        .map_err(refused)?
    {
        UpdateOutcome::Saved(saved) => integration_response(&api, &saved).await,
        UpdateOutcome::GoesOn => Err(Error::Overloaded(TRY_AGAIN).into()),
        UpdateOutcome::NeedsConfirmation(_) => Err(invalid(
            &[FieldError::new(
                "client_secret",
                "Send it with this change.",
            )],
            code,
        )),
    }
}

/// `POST …/secret` with `client_secret`: whether it is the one that is stored, in `same`. For programs
/// that describe integrations (`valetkey apply`).
pub async fn compare_secret(
    api: PersonalKey,
    path: web::Path<String>,
    body: JsonObject,
) -> ApiResult {
    let id = guid(&path, Code::IntegrationId)?;
    let given = body.text("client_secret", Code::ClientSecret)?;
    let given = given.ok_or_else(|| {
        ApiError::bad(
            Code::ClientSecret,
            "client_secret: must be there, as a text.",
        )
    })?;
    let integrations = &api.service.integrations;
    let same = integrations
        .has_secret(&api.actor, id, &given.into())
        .await?;
    Ok(ok(&json!({"same": same})))
}

/// `POST …/verify`: checks an integration as far as that is possible without a person. As in Connect,
/// a service account is tried by getting a token and throwing it away (error 241 if that fails), and
/// one that acts for viewers is refused with error 240. In both cases the payload holds what was found.
pub async fn verify(api: PersonalKey, path: web::Path<String>) -> ApiResult {
    let id = guid(&path, Code::IntegrationId)?;
    let result = api.service.checks.check(&api.actor, id).await?;
    let found = api.service.integrations.integration(&api.actor, id).await?;
    let payload = json!({
        "verdict": result.verdict(),
        "checked_time": result.at.rfc3339(),
        "findings": result.findings,
    });
    let (code, text) = match (found.auth_type, result.worst()) {
        (AuthType::ServiceAccount, Some(worst)) if worst.verdict == Verdict::Bad => {
            (Code::ProviderFailed, worst.text.clone())
        }
        (AuthType::ServiceAccount, _) => return Ok(ok(&payload)),
        _ => (
            Code::VerifyAuthType,
            format!(
                "“{}” acts for viewers: only a sign-in tries all of it. What was found without one is in the payload.",
                found.display_name()
            ),
        ),
    };
    Err(ApiError {
        payload,
        ..ApiError::bad(code, text)
    })
}

/// `DELETE v1/oauth/integrations/{guid}`: 204.
pub async fn delete(api: PersonalKey, path: web::Path<String>) -> ApiResult {
    let deleted = api
        .service
        .integrations
        .delete_integration(&api.actor, guid(&path, Code::IntegrationId)?, PATIENCE)
        .await?;
    match deleted {
        Some(_) => Ok(HttpResponse::NoContent().finish()),
        None => Err(Error::Overloaded(TRY_AGAIN).into()),
    }
}

/// `GET v1/oauth/integrations/{guid}/associations`.
pub async fn associations(api: PersonalKey, path: web::Path<String>) -> ApiResult {
    let (found, entries) = api
        .service
        .integrations
        .integration_associations(&api.actor, guid(&path, Code::IntegrationId)?)
        .await?;
    Ok(ok(&Value::Array(
        entries
            .iter()
            .map(|entry| crate::web::api::content::association(entry, &found))
            .collect(),
    )))
}

/// A template's field in Connect's shape. A secret is shown for confidential clients only.
fn field(order: usize, field: &Field) -> Value {
    let shown = if field.secret {
        json!({"name": "auth_mode", "value": "Confidential"})
    } else {
        Value::Null
    };
    json!({
        "name": field.name,
        "description": field.hint,
        "order": order,
        "label": field.label,
        "visibility_expression": shown,
        "default": field.default,
        "validation": field.pattern,
        "validation_description": if field.required { format!("{} is required.", field.label) } else { String::new() },
        "secret": field.secret,
        "multiline": false,
    })
}

/// A template in Connect's shape.
fn template(template: &Template) -> Value {
    let own_variable: Vec<&str> = template.own_variable().into_iter().collect();
    let options: Vec<Value> = template
        .choices
        .iter()
        .enumerate()
        .map(|(order, choice)| {
            let values: Vec<&str> = choice.values.iter().map(|(value, _)| *value).collect();
            json!({
                "name": choice.name,
                "description": choice.hint,
                "order": order,
                "label": choice.label,
                "visibility_expression": Value::Null,
                "type": if choice.is_bool { "bool" } else { "select" },
                "values": values,
                "default": choice.default,
            })
        })
        .collect();
    let fields: Vec<Value> = template
        .fields
        .iter()
        .enumerate()
        .map(|(order, known)| field(order, known))
        .collect();
    json!({
        "id": template.key,
        "name": template.title,
        "description": template.summary,
        "sections": [{"id": 1, "order": 1, "name": "Settings", "description": ""}],
        "options": options,
        "fields": fields,
        "environment_variables": own_variable,
    })
}

/// 403 unless the caller may see integrations (publishers and administrators).
fn must_see(api: &PersonalKey) -> Result<(), ApiError> {
    if crate::domain::access::may_see_integrations(api.actor.role) {
        Ok(())
    } else {
        Err(Error::Forbidden("").into())
    }
}

/// `GET v1/oauth/templates`.
pub async fn templates(api: PersonalKey) -> ApiResult {
    must_see(&api)?;
    Ok(ok(&Value::Array(
        providers::TEMPLATES.into_iter().map(template).collect(),
    )))
}

/// `GET v1/oauth/templates/{key}`.
pub async fn get_template(api: PersonalKey, path: web::Path<String>) -> ApiResult {
    must_see(&api)?;
    Ok(ok(&template(
        providers::template(&path).ok_or(Error::NotFound)?,
    )))
}

/// A connection in the shape of Connect's OAuth session.
fn oauth_session(connection: &Connection) -> Value {
    json!({
        "id": connection.number.to_string(),
        "guid": connection.id,
        "user_guid": connection.person,
        "oauth_integration_guid": connection.integration,
        "has_refresh_token": connection.has_refresh_token,
        "created_time": connection.created_at.rfc3339(),
        "updated_time": connection.updated_at.rfc3339(),
    })
}

/// `GET v1/oauth/sessions`: the caller's connections; `all=true` asks for everyone's.
pub async fn sessions(api: PersonalKey, request: HttpRequest) -> ApiResult {
    let all = is_true(parameter(&request, "all").as_deref());
    let rows = api
        .service
        .consents
        .connections_for_api(&api.actor, all)
        .await?;
    Ok(ok(&Value::Array(rows.iter().map(oauth_session).collect())))
}

/// `GET v1/oauth/sessions/{guid}`.
pub async fn get_session(api: PersonalKey, path: web::Path<String>) -> ApiResult {
    Ok(ok(&oauth_session(
        &api.service
            .consents
            .connection_for_api(&api.actor, guid(&path, Code::SessionId)?)
            .await?,
    )))
}

/// `DELETE v1/oauth/sessions/{guid}`: disconnects; 204.
pub async fn delete_session(api: PersonalKey, path: web::Path<String>) -> ApiResult {
    api.service
        .consents
        .disconnect(&api.actor, guid(&path, Code::SessionId)?)
        .await?;
    Ok(HttpResponse::NoContent().finish())
}
