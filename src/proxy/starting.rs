//! Pages of the portal at the place of an app that cannot be shown: it is starting, it does not
//! start, or it stands in a frame of another site. They bring their own style: the portal's is not
//! reached from content's origin.

use crate::{
    domain::{Id, addresses, content::Content},
    http::errors::FromContent,
    service::{
        Services,
        running::{
            board::{Failure, RunKey},
            files,
        },
    },
};
use actix_web::{
    HttpResponse,
    http::{StatusCode, header},
};
use askama::Template;

/// Lines of output that a page shows.
const SHOWN_LINES: usize = 14;

/// What is being started, or why it cannot be.
#[derive(Template)]
#[template(path = "pages/starting.html")]
struct StartingPage<'a> {
    title: &'a str,
    heading: String,
    lines: Vec<String>,
    /// The app's output, for those who may change the item.
    output: String,
    /// Seconds until the page is asked for again.
    again: Option<u32>,
    /// The page of the portal that helps.
    link: Option<(String, &'static str)>,
}

impl StartingPage<'_> {
    fn respond(&self, status: StatusCode) -> HttpResponse {
        let mut response = HttpResponse::build(status)
            .content_type("text/html; charset=utf-8")
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .insert_header((
                header::CONTENT_SECURITY_POLICY,
                "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'; base-uri 'none'; form-action 'none'",
            ))
            .body(self.render().unwrap_or_default());
        response.extensions_mut().insert(FromContent);
        response
    }
}

/// The end of an output: what a page shows without scrolling.
fn last_lines(output: &str) -> String {
    let lines: Vec<&str> = output.lines().collect();
    let last = lines
        .get(lines.len().saturating_sub(SHOWN_LINES)..)
        .unwrap_or(&lines);
    last.join("\n")
}

/// The page while a process starts; it asks for itself again.
pub(super) fn starting(
    service: &Services,
    item: &Content,
    key: RunKey,
    may_edit: bool,
) -> HttpResponse {
    let process = service.runs.processes(key).into_iter().next_back();
    let output = match process.filter(|_| may_edit) {
        Some(process) => {
            let log = service
                .bundles
                .files()
                .logs(item.id)
                .join(format!("{}.log", process.name));
            last_lines(&files::tail(&log, 4096).unwrap_or_default())
        }
        None => String::new(),
    };
    StartingPage {
        title: item.display_title(),
        heading: format!("“{}” is starting", item.display_title()),
        lines: vec!["This page turns into the app as soon as it answers.".into()],
        output,
        again: Some(1),
        link: None,
    }
    .respond(StatusCode::ACCEPTED)
}

/// The page after the portal has given up starting.
pub(super) fn failed(
    service: &Services,
    item: &Content,
    failure: &Failure,
    may_edit: bool,
) -> HttpResponse {
    let settings = service
        .core
        .addresses
        .absolute(&addresses::content_runs(item.id));
    let (lines, output, link) = if may_edit {
        (
            vec![failure.reason.clone(), "The portal has given up after several tries. Deploy a version that works, or try again on the content's page.".into()],
            last_lines(&failure.output),
            Some((settings, "Processes and logs")),
        )
    } else {
        (
            vec!["The portal works, but the app behind this address does not start. Its publisher can see why.".into()],
            String::new(),
            Some((service.core.addresses.absolute("/content"), "All content")),
        )
    };
    StartingPage {
        title: item.display_title(),
        heading: format!("“{}” does not start", item.display_title()),
        lines,
        output,
        again: None,
        link,
    }
    .respond(StatusCode::SERVICE_UNAVAILABLE)
}

/// A small page for a foreign frame, where the viewer's session does not reach: it offers the
/// content in a window of its own.
pub(super) fn open_in_new_window(service: &Services, item: Id<Content>) -> HttpResponse {
    let page = StartingPage {
        title: "Open in a new window",
        heading: "Open in a new window".into(),
        lines: vec!["Inside another site's page you cannot be signed in to this content, or be asked for your consent.".into()],
        output: String::new(),
        again: None,
        link: Some((service.core.addresses.absolute(&addresses::app(item)), "Open in a new window")),
    };
    let mut response = page.respond(StatusCode::UNAUTHORIZED);
    // Shows a link and nothing else: any site may frame it.
    response.headers_mut().insert(
        header::CONTENT_SECURITY_POLICY,
        header::HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors *; base-uri 'none'; form-action 'none'"),
    );
    response
}
