//! `/help`: the handbook, by role. Its pages are the Markdown files in `templates/help`, which are
//! readable as files too; they are rendered once and link to each other.

use crate::{
    domain::person::Role,
    http::errors::WebError,
    service::Error,
    web::{listing::Search, pages::page, view::Chrome, visitor::Visitor},
};
use actix_web::{HttpResponse, web};
use askama::Template;
use pulldown_cmark::{CowStr, Event, Options, Parser, Tag, TagEnd, html};
use std::sync::LazyLock;

/// A page of the handbook.
struct Chapter {
    /// The last part of its address, and the name of its file.
    name: &'static str,
    /// What stands in the list of pages.
    title: &'static str,
    /// The lowest role whose list names it. Any page can be opened: none holds a secret.
    role: Role,
    markdown: &'static str,
}

/// All pages, in the order of the list.
static CHAPTERS: [Chapter; 9] = [
    Chapter {
        name: "viewer",
        title: "Using apps",
        role: Role::Viewer,
        markdown: include_str!("../../../templates/help/viewer.md"),
    },
    Chapter {
        name: "publisher",
        title: "Publishing apps",
        role: Role::Publisher,
        markdown: include_str!("../../../templates/help/publisher.md"),
    },
    Chapter {
        name: "administrator",
        title: "Administration",
        role: Role::Administrator,
        markdown: include_str!("../../../templates/help/administrator.md"),
    },
    Chapter {
        name: "providers",
        title: "Providers",
        role: Role::Administrator,
        markdown: include_str!("../../../templates/help/providers.md"),
    },
    Chapter {
        name: "operator",
        title: "Operation",
        role: Role::Administrator,
        markdown: include_str!("../../../templates/help/operator.md"),
    },
    Chapter {
        name: "settings",
        title: "Settings",
        role: Role::Administrator,
        markdown: include_str!("../../../templates/help/settings.md"),
    },
    Chapter {
        name: "security",
        title: "Security",
        role: Role::Publisher,
        markdown: include_str!("../../../templates/help/security.md"),
    },
    Chapter {
        name: "limits",
        title: "Limits",
        role: Role::Publisher,
        markdown: include_str!("../../../templates/help/limits.md"),
    },
    Chapter {
        name: "changelog",
        title: "Changes",
        role: Role::Publisher,
        markdown: include_str!("../../../templates/help/changelog.md"),
    },
];

/// Each page as HTML, in the order of [`CHAPTERS`].
static RENDERED: LazyLock<Vec<String>> = LazyLock::new(|| {
    let html = |chapter: &Chapter| render(chapter.markdown);
    CHAPTERS.iter().map(html).collect()
});

/// The anchor of a heading, as repositories make it: lower case, blanks become hyphens, punctuation
/// goes.
fn anchor(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter_map(|letter| match letter {
            ' ' => Some('-'),
            '-' | '_' => Some(letter),
            letter => letter.is_alphanumeric().then_some(letter),
        })
        .collect()
}

/// The address of a link: `operator.md#keys` is `/help/operator#keys`, others stay.
fn address(link: &str) -> String {
    let (file, rest) = link.split_once('#').map_or((link, ""), |parts| parts);
    match file.strip_suffix(".md") {
        Some(name) if rest.is_empty() => format!("/help/{name}"),
        Some(name) => format!("/help/{name}#{rest}"),
        None => link.to_owned(),
    }
}

/// Renders Markdown with tables. Headings below the title get anchors; raw HTML is shown as text;
/// tables can be scrolled sideways.
fn render(markdown: &str) -> String {
    let events: Vec<Event<'_>> = Parser::new_ext(markdown, Options::ENABLE_TABLES).collect();
    let text_of = |from: usize| -> String {
        let inner = events.iter().skip(from + 1);
        inner
            .take_while(|event| !matches!(event, Event::End(TagEnd::Heading(_))))
            .filter_map(|event| match event {
                Event::Text(text) | Event::Code(text) => Some(text.as_ref()),
                _ => None,
            })
            .collect()
    };
    let out = events.iter().enumerate().flat_map(|(at, event)| {
        let scroll = |html: &'static str| Event::Html(CowStr::Borrowed(html));
        match event.clone() {
            Event::Start(Tag::Heading {
                level,
                classes,
                attrs,
                ..
            }) => vec![Event::Start(Tag::Heading {
                level,
                id: Some(anchor(&text_of(at)).into()),
                classes,
                attrs,
            })],
            Event::Start(Tag::Link {
                link_type,
                dest_url,
                title,
                id,
            }) => vec![Event::Start(Tag::Link {
                link_type,
                dest_url: address(&dest_url).into(),
                title,
                id,
            })],
            start @ Event::Start(Tag::Table(_)) => vec![
                scroll("<div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"Table\">"),
                start,
            ],
            end @ Event::End(TagEnd::Table) => vec![end, scroll("</div>")],
            start @ Event::Start(Tag::CodeBlock(_)) => vec![
                scroll("<div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"Code\">"),
                start,
            ],
            end @ Event::End(TagEnd::CodeBlock) => vec![end, scroll("</div>")],
            Event::Html(text) | Event::InlineHtml(text) => vec![Event::Text(text)],
            other => vec![other],
        }
    });
    let mut page = String::new();
    html::push_html(&mut page, out);
    page
}

/// A section of the handbook, for the search: where it is, and its words.
struct Section {
    chapter: &'static Chapter,
    heading: String,
    anchor: String,
    text: String,
}

/// All sections, in order.
static SECTIONS: LazyLock<Vec<Section>> = LazyLock::new(|| {
    let mut sections: Vec<Section> = Vec::new();
    for chapter in &CHAPTERS {
        let mut in_heading = false;
        for event in Parser::new_ext(chapter.markdown, Options::ENABLE_TABLES) {
            match event {
                Event::Start(Tag::Heading { .. }) => {
                    in_heading = true;
                    sections.push(Section {
                        chapter,
                        heading: String::new(),
                        anchor: String::new(),
                        text: String::new(),
                    });
                }
                Event::End(TagEnd::Heading(_)) => in_heading = false,
                Event::Text(text) | Event::Code(text) => {
                    if let Some(section) = sections.last_mut() {
                        if in_heading {
                            section.heading.push_str(&text);
                            section.anchor = anchor(&section.heading);
                        } else {
                            section.text.push_str(&text);
                        }
                    }
                }
                Event::SoftBreak | Event::HardBreak | Event::End(_) => {
                    if let Some(section) = sections.last_mut() {
                        section.text.push(' ');
                    }
                }
                _ => {}
            }
        }
    }
    sections
});

/// Sections that a search shows, at most.
const MAX_FOUND: usize = 30;
/// Characters of a section that a search shows.
const SNIPPET: usize = 160;

/// The sections in which the words are found, those with the words in their headings first.
fn search(find: &str) -> Vec<Found> {
    let words = Search::new(find);
    let mut found: Vec<(bool, &Section)> = SECTIONS
        .iter()
        .filter(|section| words.is_in(&format!("{} {}", section.heading, section.text)))
        .map(|section| (!words.is_in(&section.heading), section))
        .collect();
    found.sort_by_key(|(is_below, _)| *is_below);
    found
        .into_iter()
        .take(MAX_FOUND)
        .map(|(_, section)| Found {
            href: format!("/help/{}#{}", section.chapter.name, section.anchor),
            heading: section.heading.clone(),
            chapter: section.chapter.title,
            snippet: words.snippet(&section.text, SNIPPET),
        })
        .collect()
}

/// A section that was found.
struct Found {
    href: String,
    heading: String,
    chapter: &'static str,
    snippet: String,
}

struct Entry {
    href: String,
    title: &'static str,
    is_current: bool,
}

#[derive(Template)]
#[template(path = "pages/help.html")]
struct HelpPage {
    chrome: Chrome,
    entries: Vec<Entry>,
    find: String,
    /// What was found, while something is searched for.
    found: Vec<Found>,
    /// HTML of our own files; empty while something is searched for.
    text: &'static str,
}

/// `GET /help`: the page for the visitor's own role.
pub async fn index(visitor: Visitor) -> Result<HttpResponse, WebError> {
    let role = role_of(&visitor);
    let name = match role {
        Role::Viewer => "viewer",
        Role::Publisher => "publisher",
        Role::Administrator => "administrator",
    };
    draw(&visitor, name)
}

/// `GET /help/{name}`: one page.
pub async fn chapter(visitor: Visitor, path: web::Path<String>) -> Result<HttpResponse, WebError> {
    draw(&visitor, &path)
}

fn role_of(visitor: &Visitor) -> Role {
    let actor = visitor.actor.as_ref();
    actor.map_or(Role::Viewer, |actor| actor.role)
}

fn draw(visitor: &Visitor, name: &str) -> Result<HttpResponse, WebError> {
    let (role, mut chapters) = (role_of(visitor), CHAPTERS.iter().zip(RENDERED.iter()));
    let found = chapters.find(|(chapter, _)| chapter.name == name);
    let (current, text) = found.ok_or(Error::NotFound)?;
    let find: String = visitor
        .asked
        .text("find")
        .trim()
        .chars()
        .take(100)
        .collect();
    page(&HelpPage {
        chrome: visitor.chrome("", &format!("Help: {}", current.title)),
        found: if find.is_empty() {
            Vec::new()
        } else {
            search(&find)
        },
        entries: CHAPTERS
            .iter()
            .filter(|chapter| role >= chapter.role)
            .map(|chapter| Entry {
                href: format!("/help/{}", chapter.name),
                title: chapter.title,
                is_current: chapter.name == name,
            })
            .collect(),
        text: if find.is_empty() { text } else { "" },
        find,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_link_to_each_other_and_to_headings_that_exist() {
        let anchors = |html: &str| -> Vec<String> {
            let parts = html.split(" id=\"").skip(1);
            parts
                .filter_map(|part| Some(part.split('"').next()?.to_owned()))
                .collect()
        };
        for (chapter, html) in CHAPTERS.iter().zip(RENDERED.iter()) {
            for part in html.split("href=\"").skip(1) {
                let href = part.split('"').next().unwrap();
                let (path, wanted) = href.split_once('#').unwrap_or((href, ""));
                if href.starts_with("http") || !(path.is_empty() || path.starts_with("/help")) {
                    continue;
                }
                let name = path.strip_prefix("/help/").unwrap_or(chapter.name);
                let position = CHAPTERS.iter().position(|other| other.name == name);
                let target = position.and_then(|position| RENDERED.get(position));
                let target = target.unwrap_or_else(|| panic!("{}: no page {href}", chapter.name));
                assert!(
                    wanted.is_empty() || anchors(target).iter().any(|anchor| anchor == wanted),
                    "{}: no heading {href}",
                    chapter.name
                );
            }
        }
    }

    #[test]
    fn the_handbook_is_searched_by_section() {
        let found = search("hsts_seconds");
        assert!(
            found
                .iter()
                .any(|one| one.href.starts_with("/help/settings#")),
            "{}",
            found.len()
        );
        assert!(search("zzzz nothing").is_empty());
    }

    #[test]
    fn raw_html_is_text_and_links_to_files_lead_to_pages() {
        let html = render("# A\n\n<script>x</script>\n\nA <b>[b](operator.md#keys)</b>\n");
        assert!(
            html.contains("&lt;script&gt;") && html.contains("&lt;b&gt;"),
            "{html}"
        );
        assert!(html.contains("href=\"/help/operator#keys\""), "{html}");
        assert!(html.contains("<h1 id=\"a\">"), "{html}");
    }
}
