//! Content items, their permissions and their associations, in Connect's shapes. Settings that only
//! Valetkey has are under the key `proxy`; Connect's fields for features that do not exist here are
//! always null.

use crate::{
    domain::{
        Id,
        access::{self, Standing},
        addresses,
        change::Change,
        content::{AccessType, Content, ContentRole, Permission, Process},
        group::Principal,
        integration::{Association, Integration},
        running::Running,
    },
    http::{codes::Code, query::parameter},
    service::{
        Error, Services,
        catalog::content::{ContentInput, ProxyingInput, VisibleContent},
    },
    web::api::{AnyKey, ApiError, ApiResult, JsonObject, PersonalKey, guid, invalid, ok},
};
use actix_web::{FromRequest, HttpRequest, HttpResponse, dev::Payload, web};
use futures_util::future::LocalBoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};

/// An item in Connect's shape. `include`: comma-separated; `owner` adds the owner's names.
fn content(service: &Services, seen: &VisibleContent, include: &str) -> Value {
    let item = &seen.content;
    let mut value = json!({
        "guid": item.id,
        "name": item.name,
        "title": item.title,
        "description": item.description,
        "access_type": item.access.as_str(),
        "locked": false,
        "locked_message": "",
        "created_time": item.created_at.rfc3339(),
        "last_deployed_time": item.updated_at.rfc3339(),
        "app_mode": item.app_mode,
        "content_category": "",
        "parameterized": false,
        "run_as_current_user": false,
        "owner_guid": item.owner,
        "content_url": service.core.addresses.absolute(&addresses::app(item.id)),
        "dashboard_url": service.core.addresses.absolute(&format!("/connect/#/apps/{}", item.id)),
        "app_role": match seen.standing {
            Standing::Owner => "owner",
            Standing::Collaborator => "editor",
            Standing::Viewer => "viewer",
            Standing::None => "none",
        },
        "id": item.number.to_string(),
        "upstream_url": item.upstream().filter(|_| seen.may_edit),
        // Connect's names for the proxy's timeouts, in seconds: to connect, to the first byte of
        // the response, and between two bytes.
        "connection_timeout": item.proxying.connect_seconds,
        "init_timeout": item.proxying.first_byte_seconds,
        "read_timeout": item.proxying.idle_seconds,
        // What runs here.
        "bundle_id": item.bundle.map(|bundle| bundle.to_string()),
        "py_version": item.python,
        "min_processes": item.running.min_processes,
        "max_processes": item.running.max_processes,
        "max_conns_per_process": item.running.max_conns_per_process,
        "load_factor": item.running.load_factor.map(|factor| f64::from(factor) / 100.0),
        "idle_timeout": item.running.idle_timeout,
        "start_timeout": item.running.start_timeout,
        "memory_limit": item.running.memory_mib.map(|mib| u64::from(mib) << 20),
        "isolation": item.bundle.and_then(|_| service.runs.isolation()).map(|(isolation, _)| isolation.as_str()),
    });
    let proxy = || {
        json!({
            "processes": item.processes,
            "keep_path_prefix": item.proxying.keep_prefix,
            "reconnect_bar": item.proxying.reconnect_bar,
            "portal_link": item.proxying.portal_link,
            "upstream_ca": item.proxying.ca,
            "allowed_origins": item.proxying.allowed_origins,
            "pass_headers": item.proxying.pass_headers,
        })
    };
    // Always present, null for readers who may not edit: clients build tables from these objects,
    // with the same columns for each item.
    value["proxy"] = if seen.may_edit { proxy() } else { Value::Null };
    for absent in [
        "memory_request",
        "cpu_request",
        "cpu_limit",
        "amd_gpu_limit",
        "nvidia_gpu_limit",
        "service_account_name",
        "default_image_name",
        "default_environment_guid",
        "environment_guid",
        "cluster_name",
        "image_name",
        "r_version",
        "quarto_version",
        "node_version",
        "r_environment_management",
        "default_r_environment_management",
        "py_environment_management",
        "default_py_environment_management",
        "run_as",
        "metrics_collection_enabled",
        "notify_on_share",
        "otel_enabled",
        "public_content_status",
    ] {
        value[absent] = Value::Null;
    }
    if include.split(',').any(|word| word.trim() == "owner") {
        let owner = &seen.owner;
        value["owner"] = json!({"guid": owner.id, "username": owner.username, "first_name": owner.first_name, "last_name": owner.last_name});
    }
    value
}

/// The query parameter `include`.
fn include(request: &HttpRequest) -> String {
    parameter(request, "include").unwrap_or_default()
}

/// `GET v1/content`: the items that the caller may see. Query: `name`, `owner_guid`, `include`.
pub async fn list(api: PersonalKey, request: HttpRequest) -> ApiResult {
    let mut seen = api.service.contents.contents(&api.actor).await?;
    if let Some(name) = parameter(&request, "name") {
        seen.retain(|item| item.content.name == name);
    }
    if let Some(owner) = parameter(&request, "owner_guid") {
        let owner = guid(&owner, Code::MalformedId)?;
        seen.retain(|item| item.content.owner == owner);
    }
    let include = include(&request);
    Ok(ok(&Value::Array(
        seen.iter()
            .map(|item| content(&api.service, item, &include))
            .collect(),
    )))
}

/// The key `proxy`, which Connect does not have. An absent key leaves the stored value unchanged.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ProxyBody {
    processes: Option<Vec<Process>>,
    keep_path_prefix: Option<bool>,
    reconnect_bar: Option<bool>,
    portal_link: Option<bool>,
    #[serde(deserialize_with = "change")]
    upstream_ca: Change<String>,
    allowed_origins: Option<Vec<String>>,
    pass_headers: Option<Vec<String>>,
}

/// Tells null, which clears, from an absent key, which keeps (by `serde(default)`).
fn change<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Change<String>, D::Error> {
    Option::deserialize(value).map(Change::to)
}

/// The body of POST and PATCH.
fn input(body: &JsonObject) -> Result<ContentInput, ApiError> {
    let access = match body.text("access_type", Code::Invalid)? {
        None => None,
        Some(text) => Some(AccessType::parse(&text).ok_or_else(|| {
            ApiError::bad(Code::Invalid, "access_type: must be all, logged_in or acl.")
        })?),
    };
    // Null removes the value; an absent key leaves it unchanged.
    let clearable = |key: &str| -> Result<Change<String>, ApiError> {
        Ok(if body.0.contains_key(key) {
            Change::to(body.text(key, Code::Invalid)?)
        } else {
            Change::Keep
        })
    };
    let seconds = |key: &str| -> Result<Change<u32>, ApiError> {
        match body.0.get(key) {
            None => Ok(Change::Keep),
            Some(Value::Null) => Ok(Change::Clear),
            Some(value) => {
                let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
                number.map(Change::Set).ok_or_else(|| {
                    ApiError::bad(
                        Code::Invalid,
                        format!("{key}: must be a number of seconds, or null."),
                    )
                })
            }
        }
    };
    let proxy: ProxyBody = match body.0.get("proxy") {
        None | Some(Value::Null) => ProxyBody::default(),
        Some(value) => serde_json::from_value(value.clone())
            .map_err(|error| ApiError::bad(Code::Invalid, format!("proxy: {error}.")))?,
    };
    Ok(ContentInput {
        name: body.text("name", Code::Invalid)?,
        title: clearable("title")?,
        description: body.text("description", Code::Invalid)?,
        access,
        processes: match (proxy.processes, clearable("upstream_url")?) {
            (Some(processes), _) => Some(processes),
            (None, Change::Set(url)) if !url.trim().is_empty() => Some(vec![Process {
                url,
                draining: false,
            }]),
            (None, Change::Set(_)) => Some(Vec::new()),
            // Null is what a client read where there are several processes, or where it may not
            // see them: sending it back changes nothing.
            (None, Change::Clear | Change::Keep) => None,
        },
        proxying: ProxyingInput {
            connect_seconds: seconds("connection_timeout")?,
            first_byte_seconds: seconds("init_timeout")?,
            idle_seconds: seconds("read_timeout")?,
            keep_prefix: proxy.keep_path_prefix,
            reconnect_bar: proxy.reconnect_bar,
            portal_link: proxy.portal_link,
            ca: proxy.upstream_ca,
            allowed_origins: proxy.allowed_origins,
            pass_headers: proxy.pass_headers,
        },
        owner: body
            .text("owner_guid", Code::MalformedId)?
            .map(|text| guid(&text, Code::MalformedId))
            .transpose()?,
        based_on: None,
    })
}

/// The limits of processes in a body, applied to those before; `None` if it names none.
fn running(body: &JsonObject, before: &Running) -> Result<Option<Running>, ApiError> {
    let mut after = before.clone();
    let mut names_one = false;
    let mut number = |key: &str, scale: f64, field: &mut Option<u32>| -> Result<(), ApiError> {
        let Some(value) = body.0.get(key) else {
            return Ok(());
        };
        names_one = true;
        *field = match value {
            Value::Null => None,
            value => {
                let scaled = value.as_f64().map(|number| (number * scale).round());
                let fits = scaled.filter(|number| (0.0..=f64::from(u32::MAX)).contains(number));
                // Checked just before.
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                let whole = fits.map(|number| number as u32);
                Some(whole.ok_or_else(|| {
                    ApiError::bad(Code::Invalid, format!("{key}: must be a number, or null."))
                })?)
            }
        };
        Ok(())
    };
    number("min_processes", 1.0, &mut after.min_processes)?;
    number("max_processes", 1.0, &mut after.max_processes)?;
    number(
        "max_conns_per_process",
        1.0,
        &mut after.max_conns_per_process,
    )?;
    number("load_factor", 100.0, &mut after.load_factor)?;
    number("idle_timeout", 1.0, &mut after.idle_timeout)?;
    number("start_timeout", 1.0, &mut after.start_timeout)?;
    number(
        "memory_limit",
        1.0 / f64::from(1 << 20),
        &mut after.memory_mib,
    )?;
    Ok(names_one.then_some(after))
}

/// Sets the limits of processes that a body names; returns the item after it.
async fn set_running(
    api: &PersonalKey,
    mut seen: VisibleContent,
    body: &JsonObject,
) -> Result<VisibleContent, ApiError> {
    if let Some(running) = running(body, &seen.content.running)? {
        let bundles = &api.service.bundles;
        let set = bundles.set_running(&api.actor, seen.content.id, running);
        set.await.map_err(content_error)?;
        seen = api
            .service
            .contents
            .content(&api.actor, seen.content.id)
            .await?;
    }
    Ok(seen)
}

/// Field errors with Connect's numbers: 3 for ids, 2 otherwise.
fn content_error(error: Error) -> ApiError {
    match error {
        Error::Invalid(problems) => invalid(&problems, |key| {
            if key.ends_with("guid") {
                Code::MalformedId
            } else {
                Code::Invalid
            }
        }),
        other => other.into(),
    }
}

/// `POST v1/content`. The caller becomes the owner, unless an administrator names another one.
pub async fn create(api: PersonalKey, body: JsonObject) -> ApiResult {
    let seen = api
        .service
        .contents
        .create_content(&api.actor, input(&body)?)
        .await
        .map_err(content_error)?;
    let seen = set_running(&api, seen, &body).await?;
    Ok(ok(&content(&api.service, &seen, "")))
}

/// `GET v1/content/{guid}`. A content key may read its own item only.
pub async fn get(any: AnyKey, path: web::Path<String>, request: HttpRequest) -> ApiResult {
    let id = guid(&path, Code::MalformedId)?;
    own_item(&any, id)?;
    let seen = any.service.contents.content(&any.actor(), id).await?;
    Ok(ok(&content(&any.service, &seen, &include(&request))))
}

/// 404 if a content key is used for another item than its own.
fn own_item(any: &AnyKey, id: Id<Content>) -> Result<(), ApiError> {
    if any.caller.content.is_none_or(|bound| bound == id) {
        Ok(())
    } else {
        Err(Error::NotFound.into())
    }
}

/// `PATCH v1/content/{guid}`.
pub async fn update(api: PersonalKey, path: web::Path<String>, body: JsonObject) -> ApiResult {
    let seen = api
        .service
        .contents
        .update_content(&api.actor, guid(&path, Code::MalformedId)?, input(&body)?)
        .await
        .map_err(content_error)?;
    let seen = set_running(&api, seen, &body).await?;
    Ok(ok(&content(&api.service, &seen, "")))
}

/// `DELETE v1/content/{guid}`: 204.
pub async fn delete(api: PersonalKey, path: web::Path<String>) -> ApiResult {
    api.service
        .contents
        .delete_content(&api.actor, guid(&path, Code::MalformedId)?)
        .await?;
    Ok(HttpResponse::NoContent().finish())
}

/// A permission in Connect's shape.
fn permission(entry: &Permission) -> Value {
    json!({
        "id": entry.number.to_string(),
        "content_guid": entry.content,
        "principal_guid": match entry.principal {
            Principal::Person(person) => json!(person),
            Principal::Group(group) => json!(group),
        },
        "principal_type": if matches!(entry.principal, Principal::Person(_)) { "user" } else { "group" },
        "role": entry.role.as_str(),
    })
}

/// `GET v1/content/{guid}/permissions`.
pub async fn permissions(api: PersonalKey, path: web::Path<String>) -> ApiResult {
    let entries = api
        .service
        .contents
        .permissions(&api.actor, guid(&path, Code::MalformedId)?)
        .await?;
    Ok(ok(&Value::Array(entries.iter().map(permission).collect())))
}

/// The required field `role`: `viewer` or `owner`.
fn role(body: &JsonObject) -> Result<ContentRole, ApiError> {
    body.text("role", Code::Invalid)?
        .as_deref()
        .and_then(ContentRole::parse)
        .ok_or_else(|| ApiError::bad(Code::Invalid, "role: must be viewer or owner."))
}

/// `POST v1/content/{guid}/permissions`: 201, or 200 if the person or group was on the list
/// already.
pub async fn add_permission(
    api: PersonalKey,
    path: web::Path<String>,
    body: JsonObject,
) -> ApiResult {
    let id = guid(&path, Code::MalformedId)?;
    let principal = body
        .text("principal_guid", Code::MalformedId)?
        .unwrap_or_default();
    let principal = match body.text("principal_type", Code::Invalid)?.as_deref() {
        None | Some("user") => Principal::Person(guid(&principal, Code::MalformedId)?),
        Some("group") => Principal::Group(guid(&principal, Code::MalformedId)?),
        Some(_) => {
            return Err(ApiError::bad(
                Code::Invalid,
                "principal_type: must be user or group.",
            ));
        }
    };
    let (entry, new) = api
        .service
        .contents
        .set_permission(&api.actor, id, principal, role(&body)?)
        .await
        .map_err(content_error)?;
    let mut answer = if new {
        HttpResponse::Created()
    } else {
        HttpResponse::Ok()
    };
    Ok(answer.json(permission(&entry)))
}

/// The permission with the number in the path; 404 if the item has none.
async fn entry(api: &PersonalKey, path: &(String, String)) -> Result<Permission, ApiError> {
    let number: i64 = path
        .1
        .parse()
        .map_err(|_| ApiError::bad(Code::MalformedId, "The id must be a number."))?;
    let entries = api
        .service
        .contents
        .permissions(&api.actor, guid(&path.0, Code::MalformedId)?)
        .await?;
    Ok(entries
        .into_iter()
        .find(|entry| entry.number == number)
        .ok_or(Error::NotFound)?)
}

/// `GET v1/content/{guid}/permissions/{id}`.
pub async fn get_permission(api: PersonalKey, path: web::Path<(String, String)>) -> ApiResult {
    Ok(ok(&permission(&entry(&api, &path).await?)))
}

/// `PUT v1/content/{guid}/permissions/{id}`: changes the role.
pub async fn set_permission(
    api: PersonalKey,
    path: web::Path<(String, String)>,
    body: JsonObject,
) -> ApiResult {
    let found = entry(&api, &path).await?;
    let (changed, _) = api
        .service
        .contents
        .set_permission(&api.actor, found.content, found.principal, role(&body)?)
        .await
        .map_err(content_error)?;
    Ok(ok(&permission(&changed)))
}

/// `DELETE v1/content/{guid}/permissions/{id}`: 204.
pub async fn delete_permission(api: PersonalKey, path: web::Path<(String, String)>) -> ApiResult {
    let found = entry(&api, &path).await?;
    api.service
        .contents
        .remove_permission(&api.actor, found.content, found.number)
        .await?;
    Ok(HttpResponse::NoContent().finish())
}

/// An association in Connect's shape.
pub fn association(entry: &Association, integration: &Integration) -> Value {
    json!({
        "content_guid": entry.content,
        "app_guid": entry.content,
        "oauth_integration_guid": integration.id,
        "oauth_integration_name": integration.name,
        "oauth_integration_description": integration.description,
        "oauth_integration_template": integration.template,
        "oauth_integration_auth_type": integration.auth_type,
        // A field that Connect does not have.
        "beside_viewers": entry.beside_viewers,
        "created_time": entry.created_at.rfc3339(),
    })
}

/// `GET v1/content/{guid}/oauth/integrations/associations`. Content keys: their own item only.
pub async fn associations(any: AnyKey, path: web::Path<String>) -> ApiResult {
    let id = guid(&path, Code::MalformedId)?;
    own_item(&any, id)?;
    let rows = any.service.contents.associations(&any.actor(), id).await?;
    Ok(ok(&Value::Array(
        rows.iter()
            .map(|(entry, integration)| association(entry, integration))
            .collect(),
    )))
}

/// The body of PUT associations: an array of objects with `oauth_integration_guid`, and optionally
/// `beside_viewers`: whether content may act as itself there although it acts for viewers at the same
/// service. Errors: 208 for another shape, 207 for a malformed id, 258 for a duplicate.
pub struct Wanted {
    integrations: Vec<Id<Integration>>,
    beside_viewers: Vec<(Id<Integration>, bool)>,
}

impl FromRequest for Wanted {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;
    fn from_request(_: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let payload = payload.take();
        Box::pin(async move {
            let bytes = crate::web::api::read_body(payload).await?;
            let Ok(Value::Array(entries)) = serde_json::from_slice::<Value>(&bytes) else {
                return Err(ApiError::bad(
                    Code::AssociationShape,
                    "The body must be an array of objects with oauth_integration_guid.",
                ));
            };
            let (mut wanted, mut beside_viewers) = (Vec::new(), Vec::new());
            for entry in &entries {
                let text = entry.get("oauth_integration_guid").and_then(Value::as_str);
                let text = text.ok_or_else(|| {
                    ApiError::bad(
                        Code::AssociationShape,
                        "oauth_integration_guid: must be there in each entry, as a text.",
                    )
                })?;
                let id = guid(text, Code::IntegrationId)?;
                if wanted.contains(&id) {
                    return Err(ApiError::bad(
                        Code::DuplicateAssociation,
                        format!("oauth_integration_guid: {id} is given twice."),
                    ));
                }
                wanted.push(id);
                match entry.get("beside_viewers") {
                    None | Some(Value::Null) => {}
                    Some(Value::Bool(allowed)) => beside_viewers.push((id, *allowed)),
                    Some(_) => {
                        return Err(ApiError::bad(
                            Code::AssociationShape,
                            "beside_viewers: must be true or false.",
                        ));
                    }
                }
            }
            Ok(Self {
                integrations: wanted,
                beside_viewers,
            })
        })
    }
}

/// `PUT v1/content/{guid}/oauth/integrations/associations`: replaces all associations; 204.
pub async fn set_associations(
    api: PersonalKey,
    path: web::Path<String>,
    wanted: Wanted,
) -> ApiResult {
    let id = guid(&path, Code::MalformedId)?;
    if !access::may_see_integrations(api.actor.role) {
        return Err(Error::Forbidden("Only publishers attach integrations.").into());
    }
    api.service
        .contents
        .set_associations(&api.actor, id, wanted.integrations)
        .await
        .map_err(|error| match error {
            Error::Invalid(problems) => invalid(&problems, |key| {
                if key == "oauth_integration_guid" {
                    Code::IntegrationId
                } else {
                    Code::AssociationUnknown
                }
            }),
            other => other.into(),
        })?;
    let contents = &api.service.contents;
    for (integration, allowed) in wanted.beside_viewers {
        contents
            .allow_beside_viewers(&api.actor, id, integration, allowed)
            .await?;
    }
    Ok(HttpResponse::NoContent().finish())
}
