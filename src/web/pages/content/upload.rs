//! `POST /content-settings/{guid}/upload` and `POST /content/upload`: an app that a publisher uploads
//! in the browser: a folder, a .zip or a .tar.gz. Without a manifest, one is made.

use crate::{
    archive,
    domain::{
        addresses,
        bundle::{AppMode, Source},
        change::Change,
        content::{AccessType, Content},
        form::FieldError,
    },
    http::{
        errors::WebError,
        upload::{UploadError, read_short, store},
    },
    service::{
        Error,
        catalog::content::{ContentInput, ProxyingInput},
        running::bundles::{Upload, upload_error, write_manifest},
    },
    web::{
        forms::FormValues,
        pages::{
            content::{
                new::draw_new,
                runs::{draw_runs, editable},
            },
            problems_of,
        },
        visitor::{SignedIn, UploadForm},
    },
};
use actix_multipart::Field;
use actix_web::{HttpResponse, web};
use std::path::{Component, Path, PathBuf};

/// Largest text field of an upload, in bytes.
const MAX_TEXT: usize = 16 * 1024;
/// Text fields of the form.
const MAX_FIELDS: usize = 50;

/// What a browser sent.
struct Received {
    typed: FormValues,
    /// The uploaded archive, if it is one; else there are files.
    archive_name: Option<String>,
    files: usize,
}

fn problem(sentence: impl Into<String>) -> Vec<FieldError> {
    vec![FieldError::new("files", sentence)]
}

/// The path of a file of a folder, as the browser names it (`folder/app.py`); `None` if it leaves
/// the folder.
fn relative(name: &str) -> Option<PathBuf> {
    let path = Path::new(name);
    let plain = path
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    (plain && !name.is_empty()).then(|| path.to_owned())
}

/// Whether a file name is that of an archive.
fn is_archive(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    [".zip", ".tar.gz", ".tgz"]
        .iter()
        .any(|end| name.ends_with(end))
}

async fn text_of(field: &mut Field) -> Result<String, WebError> {
    let text = read_short(field, MAX_TEXT)
        .await
        .map_err(|error| match error {
            UploadError::TooLarge(_) => WebError::TooLarge,
            _ => broken(),
        })?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn broken() -> WebError {
    WebError::Page(
        actix_web::http::StatusCode::BAD_REQUEST,
        "The upload broke off".into(),
        "Send it again.".into(),
    )
}

/// Reads the rest of the form: text fields and files. `Ok(Err)` holds what is wrong with the files.
async fn receive(
    form: &mut UploadForm,
    upload: &Upload,
    most: u64,
    most_files: usize,
) -> Result<Result<Received, Vec<FieldError>>, WebError> {
    let mut received = Received {
        typed: FormValues(Vec::new()),
        archive_name: None,
        files: 0,
    };
    let mut left = most;
    while let Some(field) = form.next().await {
        let mut field = field.map_err(|_| broken())?;
        let name = field.name().unwrap_or_default().to_owned();
        if name != "files" {
            if received.typed.0.len() >= MAX_FIELDS {
                return Err(WebError::TooLarge);
            }
            let text = text_of(&mut field).await?;
            received.typed.0.push((name, text));
            continue;
        }
        let file = field
            .content_disposition()
            .and_then(|said| said.get_filename())
            .unwrap_or_default()
            .to_owned();
        if file.is_empty() {
            // A file field that was left empty.
            text_of(&mut field).await?;
            continue;
        }
        let target = if is_archive(&file) && received.files == 0 && received.archive_name.is_none()
        {
            received.archive_name = Some(file);
            upload.archive()
        } else {
            let Some(path) = relative(&file) else {
                return Ok(Err(problem(format!(
                    "The file name “{file}” cannot be used."
                ))));
            };
            received.files += 1;
            if received.files > most_files {
                return Ok(Err(problem(format!(
                    "More than {most_files} files. Leave out what the app does not need, such as virtual environments."
                ))));
            }
            let target = upload.files().join(path);
            if let Some(folder) = target.parent() {
                tokio::fs::create_dir_all(folder)
                    .await
                    .map_err(|error| WebError::Service(upload_error(&error)))?;
            }
            target
        };
        match store(field, &target, left).await {
            Ok(written) => left = left.saturating_sub(written),
            Err(UploadError::Disk(error)) => return Ok(Err(problems_of(upload_error(&error))?)),
            Err(error) => return Ok(Err(problem(error.to_string()))),
        }
    }
    if received.archive_name.is_none() && received.files == 0 {
        return Ok(Err(problem(
            "Choose a folder, a .zip or a .tar.gz with the app's files.",
        )));
    }
    Ok(Ok(received))
}

/// Makes a bundle's archive of what was received. Returns its path; the error is a sentence.
fn pack(upload: &Upload, received: &Received, limits: archive::Limits) -> Result<PathBuf, String> {
    let files = upload.files();
    match &received.archive_name {
        Some(name) if name.to_ascii_lowercase().ends_with(".zip") => {
            archive::unzip(&upload.archive(), &files, limits)?
        }
        Some(_) => {
            archive::unpack(&upload.archive(), &files, limits)?;
        }
        None => {}
    }
    let root = single_folder(&files).unwrap_or(files);
    if !root.join("manifest.json").exists() {
        let mode = received.typed.text("app_mode").parse::<AppMode>().ok();
        let entry = received.typed.text("entrypoint").trim().to_owned();
        write_manifest(&root, mode.map(|mode| (mode, entry)))?;
    }
    let packed = upload.packed();
    archive::pack(&root, &packed)
        .map_err(|error| format!("The files cannot be packed: {error}."))?;
    Ok(packed)
}

/// The only folder in a folder: browsers and archives of web sites put everything into one.
fn single_folder(folder: &Path) -> Option<PathBuf> {
    let mut entries = std::fs::read_dir(folder).ok()?.flatten();
    let only = entries.next()?;
    let alone = entries.next().is_none() && only.file_type().is_ok_and(|kind| kind.is_dir());
    alone.then(|| only.path())
}

/// Adds a bundle to an item and deploys it.
async fn add_and_deploy(
    me: &SignedIn,
    item: &Content,
    upload: Upload,
    received: Received,
) -> Result<Result<(), Vec<FieldError>>, WebError> {
    let bundles = &me.service().bundles;
    let limits = bundles.limits();
    let packed =
        tokio::task::spawn_blocking(move || (pack(&upload, &received, limits), upload)).await;
    let (packed, upload) = packed.map_err(|_| Error::Internal("packing an upload panicked"))?;
    let packed = match packed {
        Ok(packed) => packed,
        Err(sentence) => return Ok(Err(problem(sentence))),
    };
    let source = Source {
        source: Some("browser".into()),
        ..Source::default()
    };
    let added = match bundles
        .add(&me.actor, item.id, upload, packed, source)
        .await
    {
        Ok(added) => added,
        Err(error) => {
            return Ok(Err(problems_of(error)?
                .into_iter()
                .map(|one| FieldError::new("files", one.message))
                .collect()));
        }
    };
    match bundles
        .deploy(&me.actor, item.id, Some(added.number), true)
        .await
    {
        Ok(_) => Ok(Ok(())),
        Err(error) => Ok(Err(problems_of(error)?)),
    }
}

/// `POST /content-settings/{guid}/upload`: a new version of an item.
pub async fn upload(
    me: SignedIn,
    path: web::Path<String>,
    mut form: UploadForm,
) -> Result<HttpResponse, WebError> {
    let item = editable(&me, &path).await?;
    let bundles = &me.service().bundles;
    let upload = match bundles.begin_upload(&me.actor, item.id).await {
        Ok(upload) => upload,
        Err(error) => return draw_runs(&me, &item, None, problems_of(error)?).await,
    };
    let received = match receive(
        &mut form,
        &upload,
        bundles.max_upload(),
        bundles.limits().entries,
    )
    .await?
    {
        Ok(received) => received,
        Err(problems) => return draw_runs(&me, &item, None, problems).await,
    };
    let typed = FormValues(received.typed.0.clone());
    match add_and_deploy(&me, &item, upload, received).await? {
        Ok(()) => Ok(me.done(
            &addresses::content_runs(item.id),
            "Uploaded. Building it now.",
        )),
        Err(problems) => draw_runs(&me, &item, Some(&typed), problems).await,
    }
}

/// `POST /content/upload`: a new item of what was uploaded.
pub async fn create(me: SignedIn, mut form: UploadForm) -> Result<HttpResponse, WebError> {
    let bundles = &me.service().bundles;
    let upload = match bundles.begin_new(&me.actor).await {
        Ok(upload) => upload,
        Err(error) => return draw_new(&me, None, problems_of(error)?).await,
    };
    let received = match receive(
        &mut form,
        &upload,
        bundles.max_upload(),
        bundles.limits().entries,
    )
    .await?
    {
        Ok(received) => received,
        Err(problems) => return draw_new(&me, None, problems).await,
    };
    let typed = FormValues(received.typed.0.clone());
    let title = typed.text("title").trim().to_owned();
    if title.is_empty() {
        return draw_new(
            &me,
            Some(&typed),
            vec![FieldError::new(
                "title",
                "Enter a title, and choose the files again.",
            )],
        )
        .await;
    }
    let input = ContentInput {
        title: Change::Set(title),
        access: AccessType::parse(typed.text("access_type")),
        proxying: ProxyingInput {
            portal_link: Some(true),
            ..ProxyingInput::default()
        },
        ..ContentInput::default()
    };
    let item = match me.service().contents.create_content(&me.actor, input).await {
        Ok(seen) => seen.content,
        Err(error) => return draw_new(&me, Some(&typed), problems_of(error)?).await,
    };
    match add_and_deploy(&me, &item, upload, received).await? {
        Ok(()) => Ok(me.done(
            &addresses::content_runs(item.id),
            format!("Added {}. Building it now.", item.display_title()),
        )),
        // The item is there; the page of its runs says what to do.
        Err(problems) => draw_runs(&me, &item, Some(&typed), problems).await,
    }
}
