//! `/content-settings/{guid}/logs`: the output of an item's processes: search, follow, download.

use crate::{
    domain::addresses,
    http::errors::WebError,
    service::{Error, running::files},
    web::{
        pages::{
            content::{
                runs::{bytes_text, editable},
                tabs::{LOGS, content_tabs},
            },
            page,
        },
        view::{Chrome, Moment, Tab},
        visitor::SignedIn,
    },
};
use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, ContentDisposition, DispositionParam, DispositionType},
    web,
};
use askama::Template;
use std::path::Path;

/// Output that the page reads, in bytes.
const MAX_SHOWN: u64 = 256 * 1024;
/// Lines that the page shows.
const MAX_LINES: usize = 400;

/// The log of a process, running or ended.
struct LogRow {
    name: String,
    at: Moment,
    size: String,
    runs: bool,
    is_current: bool,
}

#[derive(Template)]
#[template(path = "pages/content/logs.html")]
struct LogsPage {
    chrome: Chrome,
    base: String,
    title: String,
    tabs: Vec<Tab>,
    logs: Vec<LogRow>,
    current: String,
    find: String,
    /// The same, for an address.
    find_query: String,
    /// Whether the page asks for itself again.
    follows: bool,
    lines: Vec<String>,
    /// How many lines were left out, in words.
    note: String,
}

/// Whether a text can be the name of a process.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// The logs in a folder, the newest first, with time of the last line (milliseconds) and size.
fn list(folder: &Path) -> Vec<(String, i64, u64)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let name = entry.file_name().to_str()?.strip_suffix(".log")?.to_owned();
            let about = entry.metadata().ok()?;
            let at = about
                .modified()
                .ok()?
                .duration_since(std::time::UNIX_EPOCH)
                .ok()?;
            Some((name, i64::try_from(at.as_millis()).ok()?, about.len()))
        })
        .filter(|(name, ..)| is_name(name))
        .collect();
    found.sort_by_key(|(_, at, _)| std::cmp::Reverse(*at));
    found
}

/// `GET /content-settings/{guid}/logs`. Query: `process`, `find`, `follow`.
pub async fn logs(me: SignedIn, path: web::Path<String>) -> Result<HttpResponse, WebError> {
    let item = editable(&me, &path).await?;
    let (service, now) = (me.service(), me.now());
    let folder = service.bundles.files().logs(item.id);
    let reading = folder.clone();
    let found = web::block(move || list(&reading)).await.unwrap_or_default();
    let running = service.runs.processes_of(item.id);
    let asked = me.visitor.asked.text("process").to_owned();
    let current = found
        .iter()
        .map(|(name, ..)| name)
        .find(|name| **name == asked)
        .or_else(|| found.first().map(|(name, ..)| name))
        .cloned()
        .unwrap_or_default();
    let text = if current.is_empty() {
        String::new()
    } else {
        let log = folder.join(format!("{current}.log"));
        let read = web::block(move || files::tail(&log, MAX_SHOWN)).await;
        read.ok().and_then(Result::ok).unwrap_or_default()
    };
    let find = me.visitor.asked.text("find").trim().to_owned();
    let wanted = find.to_lowercase();
    let matching: Vec<&str> = text
        .lines()
        .filter(|line| wanted.is_empty() || line.to_lowercase().contains(&wanted))
        .collect();
    let left_out = matching.len().saturating_sub(MAX_LINES);
    let lines = matching
        .iter()
        .skip(left_out)
        .map(|line| (*line).to_owned())
        .collect();
    let follows = me.visitor.asked.text("follow") == "yes";
    let view = LogsPage {
        chrome: me
            .visitor
            .chrome("content", &format!("Logs of {}", item.display_title())),
        base: addresses::content_settings(item.id),
        title: item.display_title().to_owned(),
        tabs: content_tabs(item.id, LOGS),
        logs: found
            .iter()
            .map(|(name, at, size)| LogRow {
                at: Moment::new(crate::domain::Timestamp(*at), now),
                size: bytes_text(*size),
                runs: running.iter().any(|process| process.name == *name),
                is_current: *name == current,
                name: name.clone(),
            })
            .collect(),
        current,
        note: if left_out > 0 {
            format!("The last {MAX_LINES} lines. Download the log for the {left_out} before them.")
        } else {
            String::new()
        },
        find_query: addresses::query(&find),
        find,
        follows,
        lines,
    };
    let mut response = page(&view)?;
    if follows {
        response
            .headers_mut()
            .insert(header::REFRESH, header::HeaderValue::from_static("2"));
    }
    Ok(response)
}

/// `GET /content-settings/{guid}/logs/{process}`: the whole log as a file.
pub async fn download(
    me: SignedIn,
    request: HttpRequest,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, WebError> {
    let item = editable(&me, &path.0).await?;
    if !is_name(&path.1) {
        return Err(Error::NotFound.into());
    }
    let log = me
        .service()
        .bundles
        .files()
        .logs(item.id)
        .join(format!("{}.log", path.1));
    let file = actix_files::NamedFile::open_async(log)
        .await
        .map_err(|_| Error::NotFound)?;
    let name = DispositionParam::Filename(format!("{}.log", path.1));
    let disposition = ContentDisposition {
        disposition: DispositionType::Attachment,
        parameters: vec![name],
    };
    Ok(file
        .set_content_disposition(disposition)
        .into_response(&request))
}
