//! Content that was deployed here, on the proxy's side: which processes serve a request, and files
//! that need no process. Pages while a process starts: [`starting`].
//!
//! A draft is a bundle that only its publishers see, below `_bundle{number}/` of the item.

use crate::{
    archive,
    domain::{
        access,
        bundle::{AppMode, Manifest},
        content::Content,
        origins::ContentLocation,
    },
    http::{
        errors::{FromContent, WebError},
        navigation::is_navigation,
    },
    proxy::{gate::Pass, starting, state::Proxy},
    service::{
        Error, Services,
        grants::admission::Admission,
        running::board::{Found, RunKey},
    },
};
use actix_files::NamedFile;
use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, StatusCode, header},
};
use std::{
    path::{Component, Path, PathBuf},
    time::Duration,
};

/// The number of a draft and the path below it, in a path below an item.
pub(super) fn draft_of(rest: &str) -> Option<(i64, &str)> {
    let (number, below) = rest.strip_prefix("_bundle")?.split_once('/')?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    Some((number.parse().ok().filter(|_| is_number)?, below))
}

/// Enters a draft, if the path leads to one and the viewer is one of its publishers: the place is
/// the draft's from then on. Returns its number and the path below it.
pub(super) fn enter_draft<'a>(
    pass: &Pass,
    place: &mut ContentLocation,
    rest: &'a str,
) -> Result<(Option<i64>, &'a str), WebError> {
    let Some((number, below)) = draft_of(rest) else {
        return Ok((None, rest));
    };
    let may_edit = |viewer: &Admission| access::may_edit_content(&viewer.person, viewer.standing);
    if !pass.viewer().is_some_and(may_edit) {
        return Err(Error::NotFound.into());
    }
    place
        .base
        .push_str(rest.strip_suffix(below).unwrap_or(rest));
    Ok((Some(number), below))
}

/// Finds what serves a request to an item whose app runs here: sets the pass's processes, or
/// returns the response. `draft`: the bundle of a draft, whose publisher the viewer is.
pub(super) async fn prepare(
    request: &HttpRequest,
    proxy: &Proxy,
    pass: &mut Pass,
    rest: &str,
    draft: Option<i64>,
) -> Result<Option<HttpResponse>, WebError> {
    let (service, item) = (&proxy.service, pass.content());
    let Some(bundle) = draft.or(item.bundle) else {
        return Ok(None);
    };
    let key = RunKey {
        content: item.id,
        bundle,
        is_draft: draft.is_some(),
    };
    let files = service.bundles.files();
    let drafted = kind_of_draft(service, item, draft).await?;
    if drafted
        .or(item.app_mode.parse().ok())
        .is_some_and(AppMode::is_files)
    {
        return files_response(request, proxy, item, bundle, rest)
            .await
            .map(Some);
    }
    if draft.is_some() && !files.built(item.id, bundle).exists() {
        return Err(Error::NotFound.into());
    }
    let found = match service.runs.visit(key) {
        // A program, or a script of the app's page, cannot be shown a page that waits.
        Found::Starting if !is_navigation(request) || *request.method() == Method::POST => {
            service
                .runs
                .wait(key, item.running.start() + Duration::from_secs(1))
                .await
        }
        found => found,
    };
    let may_edit = pass
        .viewer()
        .is_some_and(|admission| access::may_edit_content(&admission.person, admission.standing));
    match found {
        Found::Ready(processes) => {
            pass.run_by(key, processes, drafted);
            Ok(None)
        }
        Found::Starting => Ok(Some(starting::starting(service, item, key, may_edit))),
        Found::Failed(failure) => Ok(Some(starting::failed(service, item, &failure, may_edit))),
        Found::Unavailable(reason) => Err(WebError::Page(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("“{}” is not running", item.display_title()),
            reason,
        )),
    }
}

/// The kind of app of a draft; `None` without one. `NotFound` if its bundle is gone.
async fn kind_of_draft(
    service: &Services,
    item: &Content,
    draft: Option<i64>,
) -> Result<Option<AppMode>, Error> {
    match draft {
        Some(number) => service.bundles.draft_mode(item.id, number).await.map(Some),
        None => Ok(None),
    }
}

/// Waits until a process answers, if the app runs here, and sets the pass's processes. `false` if
/// none does.
pub(super) async fn wait_for_process(proxy: &Proxy, pass: &mut Pass, draft: Option<i64>) -> bool {
    let (service, item) = (&proxy.service, pass.content());
    let Some(bundle) = draft.or(item.bundle) else {
        return true;
    };
    let key = RunKey {
        content: item.id,
        bundle,
        is_draft: draft.is_some(),
    };
    let patience = item.running.start() + Duration::from_secs(1);
    let Found::Ready(processes) = service.runs.wait(key, patience).await else {
        return false;
    };
    let Ok(drafted) = kind_of_draft(service, item, draft).await else {
        return false;
    };
    pass.run_by(key, processes, drafted);
    true
}

/// Answers with a file of the bundle, or the rendered notebook.
async fn files_response(
    request: &HttpRequest,
    proxy: &Proxy,
    item: &Content,
    bundle: i64,
    rest: &str,
) -> Result<HttpResponse, WebError> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(WebError::Page(
            StatusCode::METHOD_NOT_ALLOWED,
            "This method is not allowed".into(),
            "This content is files: it takes GET and HEAD.".into(),
        ));
    }
    let files = proxy.service.bundles.files();
    let folder = files.bundle(item.id, bundle);
    let rendered = files.rendered(item.id, bundle);
    let path = if rendered.exists() && rest.is_empty() {
        rendered
    } else {
        file_of(&files.app(item.id, bundle), rest).ok_or(Error::NotFound)?
    };
    let below = path.strip_prefix(&folder).map_err(|_| Error::NotFound)?;
    let opened = archive::open_below(&folder, below).map_err(|_| Error::NotFound)?;
    let file = NamedFile::from_file(opened, &path).map_err(|_| Error::NotFound)?;
    let mut response = file
        .disable_content_disposition()
        .prefer_utf8(true)
        .into_response(request);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        header::HeaderValue::from_static("frame-ancestors 'self'"),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        header::HeaderValue::from_static("nosniff"),
    );
    // Who may see it is decided at each request.
    headers.insert(
        header::CACHE_CONTROL,
        header::HeaderValue::from_static("private, no-cache"),
    );
    response.extensions_mut().insert(FromContent);
    Ok(response)
}

/// The file for a path below the item, percent-encoded; `None` if it may not be shown.
fn file_of(app: &Path, rest: &str) -> Option<PathBuf> {
    if rest.is_empty() {
        let manifest = Manifest::parse(&std::fs::read(app.join("manifest.json")).ok()?).ok()?;
        return Some(app.join(manifest.entrypoint));
    }
    let decoded = crate::http::query::percent_decoded(rest)?;
    let path = Path::new(&decoded);
    let is_plain = path.components().all(|part| match part {
        Component::Normal(name) => name.to_str().is_some_and(|name| !name.starts_with('.')),
        _ => false,
    });
    if !is_plain || decoded == "manifest.json" {
        return None;
    }
    let found = app.join(path);
    Some(if found.is_dir() {
        found.join("index.html")
    } else {
        found
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drafts_are_recognised() {
        assert_eq!(draft_of("_bundle12/a/b"), Some((12, "a/b")));
        assert_eq!(draft_of("_bundle12/"), Some((12, "")));
        for other in [
            "_bundle12",
            "_bundle/x",
            "_bundle1a/",
            "x/_bundle1/",
            "_bundle-1/",
        ] {
            assert_eq!(draft_of(other), None, "{other}");
        }
    }

    #[test]
    fn hidden_files_and_the_manifest_are_not_shown() {
        let app = Path::new("/app");
        assert_eq!(file_of(app, "a%20b.html"), Some("/app/a b.html".into()));
        for hidden in [
            ".git/config",
            "a/.env",
            "manifest.json",
            "../x",
            "a/%2e%2e/x",
            "/etc/passwd",
            "a%00",
        ] {
            assert!(
                file_of(app, hidden).is_none_or(|path| path.to_str().unwrap().contains('\0')),
                "{hidden}"
            );
        }
    }
}
