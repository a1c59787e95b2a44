//! `GET /integrations/new`: which template, or an address that tells; with one chosen, its empty form.

use crate::{
    domain::Id,
    http::errors::WebError,
    providers::{self, Group},
    service::core::must_manage_integrations,
    web::{
        forms::FormValues,
        pages::{
            integrations::form::{FormTarget, draw_form, draw_form_with},
            page,
        },
        view::Chrome,
        visitor::SignedIn,
    },
};
use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;
use serde::Deserialize;
use serde_json::Value;
use strum::VariantArray as _;

/// Longest address or search that is read.
const MAX_TYPED: usize = 2000;

struct Tile {
    href: String,
    monogram: &'static str,
    title: &'static str,
    summary: &'static str,
}

struct TileGroup {
    title: &'static str,
    tiles: Vec<Tile>,
}

#[derive(Template)]
#[template(path = "pages/integrations/choose.html")]
struct ChoosePage {
    chrome: Chrome,
    groups: Vec<TileGroup>,
    searched: String,
    pasted: String,
    /// Nothing could be read from what was pasted.
    problem: Option<&'static str>,
}

/// The query of `/integrations/new`.
#[derive(Deserialize)]
pub struct Chosen {
    /// The key of a template.
    template: Option<String>,
    /// A pasted address.
    address: Option<String>,
    /// Words to search for.
    search: Option<String>,
}

/// `GET /integrations/new`: the choice of a template or, with `template` or an `address` that tells
/// it, its form.
pub async fn new_page(
    me: SignedIn,
    request: HttpRequest,
    query: web::Query<Chosen>,
) -> Result<HttpResponse, WebError> {
    must_manage_integrations(&me.actor)?;
    me.visitor.require_confirmation(&request)?;
    if let Some(template) = query.template.as_deref().and_then(providers::template) {
        let target = FormTarget::New(template, Id::random());
        return draw_form(&me, target, None, Vec::new(), None).await;
    }
    let typed = |text: &Option<String>| -> String {
        let text = text.as_deref().unwrap_or("").trim();
        text.chars().take(MAX_TYPED).collect()
    };
    let (pasted, searched) = (typed(&query.address), typed(&query.search));
    let mut problem = None;
    if !pasted.is_empty() {
        match me.service().pasted.find(&me.actor, &pasted).await? {
            Some(found) => {
                let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
                let settings = found.settings.iter();
                let values = settings.map(|(name, value)| (name.clone(), text(value)));
                let values = FormValues(values.collect());
                let target = FormTarget::New(found.template, Id::random());
                return draw_form_with(&me, target, &values, found.said).await;
            }
            None => {
                problem = Some(
                    "This is no address. Paste one from the browser, such as https://adb-1234567890123456.7.azuredatabricks.net.",
                );
            }
        }
    }
    page(&ChoosePage {
        chrome: me.visitor.chrome("integrations", "Add integration"),
        groups: groups(&searched),
        searched,
        pasted,
        problem,
    })
}

/// The templates below their headings that have all of these words.
fn groups(searched: &str) -> Vec<TileGroup> {
    let words: Vec<String> = searched.split_whitespace().map(str::to_lowercase).collect();
    let fits = |template: &providers::Template| {
        let text = format!(
            "{} {} {}",
            template.title, template.summary, template.keywords
        );
        let text = text.to_lowercase();
        words.iter().all(|word| text.contains(word.as_str()))
    };
    let tile = |template: &'static providers::Template| Tile {
        href: format!("/integrations/new?template={}", template.key),
        monogram: template.monogram,
        title: template.title,
        summary: template.summary,
    };
    let mut groups: Vec<TileGroup> = Group::VARIANTS
        .iter()
        .map(|group| TileGroup {
            title: group.title(),
            tiles: providers::TEMPLATES
                .into_iter()
                .filter(|template| template.group == *group && fits(template))
                .map(tile)
                .collect(),
        })
        .collect();
    groups.retain(|group| !group.tiles.is_empty());
    groups
}
