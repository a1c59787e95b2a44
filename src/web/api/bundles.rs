//! Deployed content, on Connect's paths: variables of processes, bundles, deploys and their output
//! (tasks), processes and their output (jobs), and which versions of Python there are.

use crate::{
    domain::{
        Id,
        bundle::{Bundle, Source, Task},
        content::Content,
    },
    http::{
        codes::Code,
        query::parameter,
        upload::{UploadError, read_short, store},
    },
    service::{
        Error,
        running::{
            board::{Phase, RunningProcess},
            bundles::{TaskOutput, Upload, upload_error},
            files,
        },
    },
    web::api::{ApiError, ApiResult, JsonObject, PersonalKey, guid, invalid, ok, read_body},
};
use actix_multipart::Multipart;
use actix_web::{FromRequest, HttpRequest, HttpResponse, dev::Payload, http::header, web};
use futures_util::{StreamExt as _, future::LocalBoxFuture};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// Longest time for which a request for a task's output is held.
const MAX_WAIT: u64 = 30;
/// Output of a process that is returned at once, in bytes.
const MAX_LOG: u64 = 1 << 20;

/// A bundle in Connect's shape.
fn bundle(bundle: &Bundle, active: Option<i64>) -> Value {
    let mut metadata = serde_json::to_value(&bundle.source).unwrap_or_default();
    for key in [
        "source",
        "source_repo",
        "source_branch",
        "source_commit",
        "archive_md5",
        "archive_sha1",
    ] {
        if metadata.get(key).is_none() {
            metadata[key] = Value::Null;
        }
    }
    json!({
        "id": bundle.number.to_string(),
        "content_guid": bundle.content,
        "created_time": bundle.created_at.rfc3339(),
        "cluster_name": null,
        "image_name": null,
        "r_version": null,
        "r_environment_management": null,
        "py_version": bundle.python,
        "py_environment_management": true,
        "quarto_version": null,
        "active": active == Some(bundle.number),
        "size": bundle.size,
        "metadata": metadata,
    })
}

/// The number of a bundle in a path or a body.
fn bundle_number(text: &str) -> Result<i64, ApiError> {
    text.parse()
        .map_err(|_| ApiError::bad(Code::MalformedId, "The id of a bundle is a number."))
}

/// Errors whose sentences are for the publisher.
fn bundle_error(error: Error) -> ApiError {
    match error {
        Error::Invalid(problems) => invalid(&problems, |_| Code::Invalid),
        other => other.into(),
    }
}

/// `GET v1/content/{guid}/environment`: the names only.
pub async fn variables(api: PersonalKey, path: web::Path<String>) -> ApiResult {
    let item = guid(&path, Code::MalformedId)?;
    let names = api.service.bundles.variable_names(&api.actor, item).await?;
    Ok(ok(&json!(names)))
}

/// The body of PATCH and PUT environment: an array of objects with `name` and `value`.
pub struct Variables(Vec<(String, Option<SecretString>)>);

impl FromRequest for Variables {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;
    fn from_request(_: &HttpRequest, payload: &mut Payload) -> Self::Future {
        #[derive(Deserialize)]
        struct Entry {
            name: String,
            value: Option<String>,
        }
        let payload = payload.take();
        Box::pin(async move {
            let bytes = read_body(payload).await?;
            let entries: Vec<Entry> = serde_json::from_slice(&bytes).map_err(|_| {
                ApiError::bad(Code::Invalid, "The body must be an array of objects with name and value; a value of null deletes the variable.")
            })?;
            Ok(Self(
                entries
                    .into_iter()
                    .map(|entry| (entry.name, entry.value.map(Into::into)))
                    .collect(),
            ))
        })
    }
}

/// `PATCH v1/content/{guid}/environment`: sets and deletes some.
pub async fn patch_variables(
    api: PersonalKey,
    path: web::Path<String>,
    body: Variables,
) -> ApiResult {
    set_variables(&api, &path, body, false).await
}

/// `PUT v1/content/{guid}/environment`: replaces all.
pub async fn put_variables(
    api: PersonalKey,
    path: web::Path<String>,
    body: Variables,
) -> ApiResult {
    set_variables(&api, &path, body, true).await
}

async fn set_variables(api: &PersonalKey, path: &str, body: Variables, replace: bool) -> ApiResult {
    let item = guid(path, Code::MalformedId)?;
    let names = api
        .service
        .bundles
        .set_variables(&api.actor, item, body.0, replace)
        .await;
    Ok(ok(&json!(names.map_err(bundle_error)?)))
}

/// `POST v1/content/{guid}/bundles`: the archive itself, of any content type or none, or a form with
/// the parts `archive` and `metadata`.
pub async fn upload(
    api: PersonalKey,
    path: web::Path<String>,
    request: HttpRequest,
    payload: web::Payload,
) -> ApiResult {
    let item: Id<Content> = guid(&path, Code::MalformedId)?;
    let bundles = &api.service.bundles;
    let upload = bundles
        .begin_upload(&api.actor, item)
        .await
        .map_err(bundle_error)?;
    let most = bundles.max_upload();
    let kind = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let source =
        if kind.is_some_and(|kind| kind.to_ascii_lowercase().starts_with("multipart/form-data")) {
            read_form(&upload, Multipart::new(request.headers(), payload), most).await?
        } else {
            store(payload, &upload.archive(), most)
                .await
                .map_err(not_stored)?;
            Source::default()
        };
    let archive = upload.archive();
    let added = bundles
        .add(&api.actor, item, upload, archive, source)
        .await
        .map_err(bundle_error)?;
    Ok(ok(&bundle(&added, None)))
}

/// Bytes of a part that is no archive.
const MAX_SHORT_PART: usize = 64 * 1024;

/// Reads the parts of a form with an archive.
async fn read_form(upload: &Upload, mut form: Multipart, most: u64) -> Result<Source, ApiError> {
    let broken = || {
        ApiError::bad(
            Code::Invalid,
            "The form cannot be read. It has the parts archive and metadata.",
        )
    };
    let (mut source, mut found) = (Source::default(), false);
    while let Some(field) = form.next().await {
        let mut field = field.map_err(|_| broken())?;
        match field.name() {
            Some("archive") => {
                store(field, &upload.archive(), most)
                    .await
                    .map_err(not_stored)?;
                found = true;
            }
            name => {
                let is_metadata = name == Some("metadata");
                let text = read_short(&mut field, MAX_SHORT_PART)
                    .await
                    .map_err(|_| broken())?;
                if is_metadata {
                    source = serde_json::from_slice(&text).unwrap_or_default();
                }
            }
        }
    }
    if found { Ok(source) } else { Err(broken()) }
}

/// What was wrong with an upload, as an error of the API.
fn not_stored(error: UploadError) -> ApiError {
    let status = match error {
        UploadError::TooLarge(_) => 413,
        UploadError::Paused => 408,
        UploadError::BrokeOff => 400,
        UploadError::Disk(error) => return bundle_error(upload_error(&error)),
    };
    ApiError::new(status, Code::Invalid, error.to_string())
}

/// The active bundle of an item that the caller may edit.
async fn active(api: &PersonalKey, item: Id<Content>) -> Result<Option<i64>, ApiError> {
    Ok(api
        .service
        .contents
        .editable_content(&api.actor, item)
        .await?
        .content
        .bundle)
}

/// `GET v1/content/{guid}/bundles`: newest first.
pub async fn list(api: PersonalKey, path: web::Path<String>) -> ApiResult {
    let item = guid(&path, Code::MalformedId)?;
    let active = active(&api, item).await?;
    let all = api.service.bundles.list(&api.actor, item).await?;
    Ok(ok(&Value::Array(
        all.iter().map(|one| bundle(one, active)).collect(),
    )))
}

/// `GET v1/content/{guid}/bundles/{id}`.
pub async fn get(api: PersonalKey, path: web::Path<(String, String)>) -> ApiResult {
    let item = guid(&path.0, Code::MalformedId)?;
    let active = active(&api, item).await?;
    let found = api
        .service
        .bundles
        .bundle(&api.actor, item, bundle_number(&path.1)?)
        .await?;
    Ok(ok(&bundle(&found, active)))
}

/// `GET v1/content/{guid}/bundles/{id}/download`: the archive as it was uploaded.
pub async fn download(
    api: PersonalKey,
    request: HttpRequest,
    path: web::Path<(String, String)>,
) -> ApiResult {
    let item = guid(&path.0, Code::MalformedId)?;
    let found = api
        .service
        .bundles
        .bundle(&api.actor, item, bundle_number(&path.1)?)
        .await?;
    let archive = api.service.bundles.files().archive(item, found.number);
    let file = actix_files::NamedFile::open_async(archive)
        .await
        .map_err(|_| Error::NotFound)?;
    let mut response = file.disable_content_disposition().into_response(&request);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/gzip"),
    );
    let name = format!("attachment; filename=\"bundle-{}.tar.gz\"", found.number);
    if let Ok(name) = header::HeaderValue::try_from(name) {
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    Ok(response)
}

/// `DELETE v1/content/{guid}/bundles/{id}`: 204; 409 for the active one.
pub async fn delete(api: PersonalKey, path: web::Path<(String, String)>) -> ApiResult {
    let item = guid(&path.0, Code::MalformedId)?;
    api.service
        .bundles
        .delete(&api.actor, item, bundle_number(&path.1)?)
        .await?;
    Ok(HttpResponse::NoContent().finish())
}

/// `POST v1/content/{guid}/deploy`: 202 with the id of the task. `activate: false` makes a draft.
pub async fn deploy(api: PersonalKey, path: web::Path<String>, body: JsonObject) -> ApiResult {
    let task = order(&api, &path, &body).await?;
    Ok(HttpResponse::Accepted().json(json!({"task_id": task.id})))
}

/// `POST v1/content/{guid}/build`: builds only; 200 with the id of the task.
pub async fn build(api: PersonalKey, path: web::Path<String>, mut body: JsonObject) -> ApiResult {
    body.0.insert("activate".into(), Value::Bool(false));
    let task = order(&api, &path, &body).await?;
    Ok(ok(&json!({"task_id": task.id})))
}

async fn order(api: &PersonalKey, path: &str, body: &JsonObject) -> Result<Task, ApiError> {
    let item = guid(path, Code::MalformedId)?;
    let number = match body.0.get("bundle_id") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(bundle_number(text)?),
        Some(Value::Number(number)) => number.as_i64(),
        Some(_) => {
            return Err(ApiError::bad(
                Code::Invalid,
                "bundle_id: must be the id of a bundle.",
            ));
        }
    };
    let activate = body
        .0
        .get("activate")
        .and_then(Value::as_bool)
        .unwrap_or(true);
    api.service
        .bundles
        .deploy(&api.actor, item, number, activate)
        .await
        .map_err(bundle_error)
}

/// `GET v1/tasks/{id}`: a deploy and its output. Query: `first`, the number of lines already seen;
/// `wait`, for how many seconds the request may be held until there is more.
pub async fn task(api: PersonalKey, request: HttpRequest, path: web::Path<String>) -> ApiResult {
    let id: Id<Task> = guid(&path, Code::MalformedId)?;
    let number = |name| {
        parameter(&request, name)
            .and_then(|text| text.parse::<u64>().ok())
            .unwrap_or(0)
    };
    let first = usize::try_from(number("first")).unwrap_or(usize::MAX);
    let wait = Duration::from_secs(number("wait").min(MAX_WAIT));
    let TaskOutput { task, lines, last } = api
        .service
        .bundles
        .task(&api.actor, id, first, wait)
        .await?;
    let error = task
        .outcome
        .as_ref()
        .and_then(|outcome| outcome.error.clone());
    Ok(ok(&json!({
        "id": task.id,
        "output": lines,
        "result": null,
        "finished": task.outcome.is_some(),
        "code": i32::from(error.is_some()),
        "error": error.unwrap_or_default(),
        "last": last,
    })))
}

/// `POST v1/content/{guid}/restart`: replaces the processes by new ones; 204.
pub async fn restart(api: PersonalKey, path: web::Path<String>) -> ApiResult {
    let item = guid(&path, Code::MalformedId)?;
    api.service.bundles.restart(&api.actor, item).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// A process in the shape of Connect's jobs.
fn job(process: &RunningProcess) -> Value {
    json!({
        "id": process.name,
        "key": process.name,
        "bundle_id": process.key.bundle.to_string(),
        "tag": "run_app",
        "start_time": process.started_at.rfc3339(),
        "end_time": null,
        "status": 0,
        "exit_code": null,
        "draft": process.key.is_draft,
        "state": match process.phase() {
            Phase::Starting => "starting",
            Phase::Ready => "ready",
            Phase::Draining => "draining",
        },
        "connections": process.connections(),
        "memory": process.usage().memory,
        "cpu": process.usage().cpu,
    })
}

/// `GET v1/content/{guid}/jobs`: the running processes.
pub async fn jobs(api: PersonalKey, path: web::Path<String>) -> ApiResult {
    let item = guid(&path, Code::MalformedId)?;
    api.service
        .contents
        .editable_content(&api.actor, item)
        .await?;
    let running = api.service.runs.processes_of(item);
    Ok(ok(&Value::Array(
        running.iter().map(|process| job(process)).collect(),
    )))
}

/// `GET v1/content/{guid}/jobs/{key}/log`: the end of a process's output, also after it has ended.
pub async fn job_log(api: PersonalKey, path: web::Path<(String, String)>) -> ApiResult {
    let item = guid(&path.0, Code::MalformedId)?;
    api.service
        .contents
        .editable_content(&api.actor, item)
        .await?;
    if !path.1.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(Error::NotFound.into());
    }
    let log = api
        .service
        .bundles
        .files()
        .logs(item)
        .join(format!("{}.log", path.1));
    let text = web::block(move || files::tail(&log, MAX_LOG)).await;
    let text = text.ok().and_then(Result::ok).unwrap_or_default();
    let entries: Vec<Value> = text
        .lines()
        .map(|line| json!({"source": "stdout", "timestamp": null, "data": line}))
        .collect();
    Ok(ok(&json!({"entries": entries, "terminated": false})))
}

/// `GET v1/server_settings/python`.
pub async fn python(api: PersonalKey) -> ApiResult {
    let versions = api.service.runs.interpreters();
    let installations: Vec<Value> = versions
        .iter()
        .map(|version| json!({"version": version, "cluster_name": "Local", "image_name": "Local"}))
        .collect();
    Ok(ok(
        &json!({"installations": installations, "api_enabled": true}),
    ))
}

/// `GET v1/server_settings/r` and `…/quarto`: none of them runs here.
pub async fn no_installations(_: PersonalKey) -> ApiResult {
    Ok(ok(&json!({"installations": [], "api_enabled": true})))
}
