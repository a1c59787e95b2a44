//! `/people/import`: adds many people from a table, all or none, after a preview.

use crate::{
    domain::{form::FieldError, person::Role},
    http::errors::WebError,
    service::{Error, core::must_manage_people, people::accounts::PersonInput},
    vault::api_key::digest,
    web::{
        confirmation::Confirmed,
        pages::{form_status, is_sure, page_with},
        view::{Chrome, count_noun},
        visitor::SignedIn,
    },
};
use actix_web::HttpResponse;
use askama::Template;

/// The columns, in the words of the first line.
const COLUMNS: [&str; 5] = ["username", "email", "first_name", "last_name", "role"];
/// People of one import, at most.
const MAX_PEOPLE: usize = 5000;
/// Rows that the preview shows, and errors that the page lists, at most.
const MAX_SHOWN: usize = 20;

#[derive(Template)]
#[template(path = "pages/people/import.html")]
struct ImportPage {
    chrome: Chrome,
    errors: Vec<FieldError>,
    text: String,
    /// Stands for the text of the preview.
    previewed: String,
    /// How many would be added; empty before a preview.
    count: String,
    /// The first of them, in the order of [`COLUMNS`].
    preview: Vec<[String; 5]>,
    submit: &'static str,
}

/// The people of a table (RFC 4180; also with semicolons, as spreadsheets of many countries write
/// it), each with the number of its line. The errors name the line.
fn parse(text: &str) -> Result<Vec<(u64, PersonInput)>, Vec<FieldError>> {
    let problem = |message: String| FieldError::new("text", message);
    let first = text.trim_start().lines().next().unwrap_or("");
    let delimiter = if first.contains(';') { b';' } else { b',' };
    let mut table = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .trim(csv::Trim::All)
        .flexible(true)
        .from_reader(text.trim_start().as_bytes());
    let heads: Vec<String> = match table.headers() {
        Ok(heads) => heads.iter().map(str::to_lowercase).collect(),
        Err(error) => return Err(vec![problem(format!("The table cannot be read: {error}."))]),
    };
    let mut problems: Vec<FieldError> = heads
        .iter()
        .filter(|head| !COLUMNS.contains(&head.as_str()))
        .map(|head| {
            problem(format!(
                "Line 1: there is no column “{head}”. Known are {}.",
                COLUMNS.join(", ")
            ))
        })
        .collect();
    if !heads.iter().any(|head| head == "username") {
        problems.push(problem(
            "Line 1: name the columns there; one of them must be username.".into(),
        ));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut people = Vec::new();
    let mut names = std::collections::HashMap::new();
    for row in table.records() {
        let row = match row {
            Ok(row) => row,
            Err(error) => {
                problems.push(problem(format!("The table cannot be read: {error}.")));
                break;
            }
        };
        let line = row.position().map_or(0, csv::Position::line);
        let cell = |name: &str| {
            let at = heads.iter().position(|head| head == name)?;
            row.get(at).map(str::to_owned)
        };
        let role = match cell("role").as_deref().unwrap_or("") {
            "" => Some(Role::Viewer),
            word => Role::parse(&word.to_lowercase()),
        };
        if role.is_none() {
            problems.push(problem(format!(
                "Line {line}: the role must be viewer, publisher or administrator."
            )));
        }
        let username = cell("username").unwrap_or_default();
        if let Some(before) = names.insert(username.to_lowercase(), line) {
            problems.push(problem(format!(
                "Line {line}: the user name {username} stands in line {before} already."
            )));
        }
        people.push((
            line,
            PersonInput {
                username: Some(username),
                email: cell("email"),
                first_name: cell("first_name"),
                last_name: cell("last_name"),
                role,
                ..PersonInput::default()
            },
        ));
    }
    if people.len() > MAX_PEOPLE {
        problems.push(problem(format!(
            "At most {MAX_PEOPLE} people at once: split the table."
        )));
    }
    if people.is_empty() && problems.is_empty() {
        problems.push(problem(
            "The table has no people below its first line.".into(),
        ));
    }
    if problems.is_empty() {
        Ok(people)
    } else {
        Err(problems)
    }
}

fn draw(
    me: &SignedIn,
    text: String,
    found: Option<&[(u64, PersonInput)]>,
    mut errors: Vec<FieldError>,
) -> Result<HttpResponse, WebError> {
    let more = errors.len().saturating_sub(MAX_SHOWN);
    errors.truncate(MAX_SHOWN);
    if more > 0 {
        errors.push(FieldError::new("text", format!("And {more} more.")));
    }
    let cells = |input: &PersonInput| {
        [
            input.username.clone().unwrap_or_default(),
            input.email.clone().unwrap_or_default(),
            input.first_name.clone().unwrap_or_default(),
            input.last_name.clone().unwrap_or_default(),
            input.role.map_or("", Role::label).to_owned(),
        ]
    };
    let shown = found.unwrap_or(&[]);
    let view = ImportPage {
        chrome: me.visitor.chrome("people", "Import people"),
        count: match found {
            Some(found) => count_noun(found.len(), "person", "people"),
            None => String::new(),
        },
        preview: shown
            .iter()
            .take(MAX_SHOWN)
            .map(|(_, input)| cells(input))
            .collect(),
        previewed: digest(&text),
        submit: if found.is_some() {
            "Add them"
        } else {
            "Preview"
        },
        text,
        errors,
    };
    page_with(form_status(&view.errors), &view)
}

/// `GET /people/import`.
pub async fn import_page(me: SignedIn) -> Result<HttpResponse, WebError> {
    must_manage_people(&me.actor)?;
    draw(&me, String::new(), None, Vec::new())
}

/// `POST /people/import`: previews the table in `text`; adds its people once the preview was
/// confirmed.
pub async fn import(me: SignedIn, Confirmed(typed): Confirmed) -> Result<HttpResponse, WebError> {
    must_manage_people(&me.actor)?;
    // As browsers send it: the lines would be counted wrongly.
    let text = typed.get("text").unwrap_or("").replace("\r\n", "\n");
    let people = match parse(&text) {
        Ok(people) => people,
        Err(problems) => return draw(&me, text, None, problems),
    };
    // What changed in the text since the preview is previewed again.
    let is_previewed = is_sure(&typed) && typed.get("previewed") == Some(&digest(&text));
    let lines: Vec<u64> = people.iter().map(|(line, _)| *line).collect();
    let inputs: Vec<PersonInput> = people.iter().map(|(_, input)| input.clone()).collect();
    let added = me
        .service()
        .people
        .create_people(&me.actor, inputs, !is_previewed)
        .await;
    match added {
        Ok(_) if !is_previewed => draw(&me, text, Some(&people), Vec::new()),
        Ok(count) => {
            let count = count_noun(count, "person", "people");
            let message = format!(
                "Added {count}. Whoever does not sign in with the organisation needs a one-time link: make it on their page."
            );
            Ok(me.done("/people", message))
        }
        // The key of each problem is the position in the list.
        Err(Error::Invalid(problems)) => {
            let named = problems.into_iter().map(|problem| {
                let at = problem.key.parse().unwrap_or(0);
                let line = lines.get::<usize>(at).copied().unwrap_or(0);
                FieldError::new("text", format!("Line {line}: {}", problem.message))
            });
            draw(&me, text, None, named.collect())
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_spreadsheets_are_read_and_errors_name_the_line() {
        let people = parse("username,email,role\nann,ann@example.org,Publisher\n\"bo\",,\n")
            .expect("people");
        let names: Vec<_> = people
            .iter()
            .map(|(line, input)| (*line, input.username.as_deref(), input.role))
            .collect();
        assert_eq!(
            names,
            [
                (2, Some("ann"), Some(Role::Publisher)),
                (3, Some("bo"), Some(Role::Viewer))
            ]
        );
        assert_eq!(
            parse("username;first_name\nann;Änn\n")
                .expect("semicolons")
                .len(),
            1
        );
        let messages = |text: &str| -> Vec<String> {
            let problems = parse(text).err().unwrap_or_default();
            problems
                .into_iter()
                .map(|problem| problem.message)
                .collect()
        };
        assert!(messages("name\nann\n")[0].contains("no column “name”"));
        assert!(messages("")[0].contains("one of them must be username"));
        let twice = messages("username,role\nann,chief\nANN,\n");
        assert!(twice[0].starts_with("Line 2: the role"), "{twice:?}");
        assert!(twice[1].contains("line 2 already"), "{twice:?}");
    }
}
