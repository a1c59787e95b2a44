//! `/groups`: all groups, with search; adds one.

use crate::{
    domain::{addresses, form::FieldError},
    http::errors::WebError,
    service::{Error, core::must_manage_groups},
    web::{
        confirmation::Confirmed,
        forms::{Field, FormValues, refill},
        listing::{ColumnSpec, ListFrame, ListSpec, cut, natural_key, number_key},
        pages::{form_status, page_with, problems_of},
        view::{Chrome, count_noun},
        visitor::SignedIn,
    },
};
use actix_web::HttpResponse;
use askama::Template;

struct Row {
    href: String,
    name: String,
    members: String,
    count: i64,
}

const COLUMNS: [ColumnSpec<Row>; 2] = [
    ColumnSpec::new("name", "Name", |row| natural_key(&row.name)),
    ColumnSpec::greatest_first("members", "Members", |row| number_key(row.count)),
];

#[derive(Template)]
#[template(path = "pages/groups/list.html")]
struct ListPage {
    chrome: Chrome,
    errors: Vec<FieldError>,
    list: ListFrame,
    rows: Vec<Row>,
    fields: Vec<Field>,
}

async fn draw_list(
    me: &SignedIn,
    typed: Option<&FormValues>,
    errors: Vec<FieldError>,
) -> Result<HttpResponse, WebError> {
    must_manage_groups(&me.actor)?;
    let mut rows = Vec::new();
    for (group, members) in me.service().groups.groups_with_counts(&me.actor).await? {
        rows.push(Row {
            count: members,
            href: addresses::group(group.id),
            name: group.name,
            members: count_noun(members, "person", "people"),
        });
    }
    let (list, rows) = cut(
        &me.visitor.asked,
        &ListSpec {
            base: "/groups",
            nouns: ("group", "groups"),
            columns: &COLUMNS,
            filters: &[],
            text: |row| row.name.clone(),
            id: |row| row.href.clone(),
        },
        rows,
    );
    let mut fields = vec![Field::text("name", "Name")];
    refill(&mut fields, typed, &errors);
    page_with(
        form_status(&errors),
        &ListPage {
            chrome: me.visitor.chrome("people", "Groups"),
            errors,
            list,
            rows,
            fields,
        },
    )
}

/// `GET /groups`.
pub async fn list(me: SignedIn) -> Result<HttpResponse, WebError> {
    draw_list(&me, None, Vec::new()).await
}

/// Errors of creating or renaming, moved to the name's field.
pub(super) fn named(error: Error) -> Result<Vec<FieldError>, WebError> {
    Ok(problems_of(error)?
        .into_iter()
        .map(|problem| FieldError::new("name", problem.message))
        .collect())
}

/// `POST /groups`.
pub async fn create(me: SignedIn, Confirmed(typed): Confirmed) -> Result<HttpResponse, WebError> {
    must_manage_groups(&me.actor)?;
    match me
        .service()
        .groups
        .create_group(&me.actor, typed.text("name"))
        .await
    {
        Ok(group) => Ok(me.done(
            &addresses::group(group.id),
            format!("Added {}. Add its members.", group.name),
        )),
        Err(error) => draw_list(&me, Some(&typed), named(error)?).await,
    }
}
