//! `/content/new`: adds an item. Three ways: an upload, the command line, or an app that runs
//! elsewhere.

use crate::{
    domain::{access, addresses, form::FieldError},
    http::errors::WebError,
    web::{
        forms::{Field, FormValues, refill},
        pages::{
            content::{
                form::{elsewhere_fields, input, upload_fields, with_address_problem},
                runs::{commands, kind_fields},
            },
            form_status, page_with, problems_of,
        },
        view::{Chrome, Tab},
        visitor::{Posted, SignedIn},
    },
};
use actix_web::HttpResponse;
use askama::Template;

#[derive(Template)]
#[template(path = "pages/content/new.html")]
struct NewPage {
    chrome: Chrome,
    errors: Vec<FieldError>,
    /// `upload`, `command` or `elsewhere`.
    way: &'static str,
    ways: Vec<Tab>,
    commands: Vec<(&'static str, &'static str, String)>,
    action: &'static str,
    fields: Vec<Field>,
    kinds: Field,
    entry: Field,
}

/// The ways, with their titles.
const WAYS: [(&str, &str); 3] = [
    ("upload", "Upload"),
    ("command", "From the command line"),
    ("elsewhere", "It runs elsewhere"),
];

/// The page. The way is that of the posted form, else the one that is asked for, else the first
/// that works on this portal.
pub(super) async fn draw_new(
    me: &SignedIn,
    typed: Option<&FormValues>,
    errors: Vec<FieldError>,
) -> Result<HttpResponse, WebError> {
    if !access::may_create_content(me.actor.role) {
        return Err(crate::service::Error::Forbidden(
            "Only publishers and administrators add content.",
        )
        .into());
    }
    let runs_here = me.service().bundles.unavailable().await?.is_none();
    let posted = typed.map(|typed| match typed.get("upstream_url") {
        Some(_) => "elsewhere",
        None => "upload",
    });
    let asked = posted.unwrap_or(me.visitor.asked.text("way"));
    let way = WAYS
        .iter()
        .map(|(way, _)| *way)
        .find(|way| *way == asked)
        .unwrap_or("upload");
    let way = if runs_here { way } else { "elsewhere" };
    let mut fields = match way {
        "elsewhere" => elsewhere_fields(&me.service().core.settings),
        _ => upload_fields(),
    };
    let [mut kinds, mut entry] = kind_fields();
    refill(&mut fields, typed, &errors);
    for field in [&mut kinds, &mut entry] {
        refill(std::slice::from_mut(field), typed, &errors);
    }
    let ways = WAYS.iter().filter(|_| runs_here).map(|(key, title)| Tab {
        href: format!("/content/new?way={key}"),
        label: title,
        is_current: *key == way,
    });
    page_with(
        form_status(&errors),
        &NewPage {
            chrome: me.visitor.chrome("content", "Add content"),
            errors,
            way,
            ways: ways.collect(),
            commands: commands(me.service().core.addresses.base()),
            action: if way == "upload" {
                "/content/upload"
            } else {
                "/content/new"
            },
            fields,
            kinds,
            entry,
        },
    )
}

/// `GET /content/new`. Query: `way`.
pub async fn new_page(me: SignedIn) -> Result<HttpResponse, WebError> {
    draw_new(&me, None, Vec::new()).await
}

/// `POST /content/new`: an app that runs elsewhere.
pub async fn create(me: SignedIn, Posted(typed): Posted) -> Result<HttpResponse, WebError> {
    let created = match input(&typed, &[]) {
        Ok(mut input) => {
            // On for what is added on a page; publishers switch it off in the settings.
            input.proxying.portal_link = Some(true);
            me.service().contents.create_content(&me.actor, input).await
        }
        Err(problems) => {
            // The service was not asked: check the addresses here, so that all errors are reported
            // together.
            let problems = with_address_problem(&me, &typed, problems);
            return draw_new(&me, Some(&typed), problems).await;
        }
    };
    match created {
        Ok(seen) => {
            let message = format!(
                "Added {}. Pick an integration, and add the people who may open it.",
                seen.content.display_title()
            );
            Ok(me.done(&addresses::content_settings(seen.content.id), message))
        }
        Err(error) => draw_new(&me, Some(&typed), problems_of(error)?).await,
    }
}
