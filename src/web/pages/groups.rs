//! Groups and their members: `/groups` and below. Administrators only. Changes need confirmation
//! ([`Confirmed`]), since a group's members gain access.

use crate::{
    domain::{Id, access, addresses, form::FieldError, group::Group},
    http::errors::WebError,
    service::Error,
    web::{
        confirmation::Confirmed,
        forms::{Choice, Field, FieldKind, FormValues, refill},
        pages::{form_status, id, page_with, problems_of},
        view::{Chrome, count_noun},
        visitor::SignedIn,
    },
};
use actix_web::{HttpResponse, web};
use askama::Template;

struct Row {
    href: String,
    name: String,
    members: String,
}

#[derive(Template)]
#[template(path = "pages/groups.html")]
struct ListPage {
    chrome: Chrome,
    errors: Vec<FieldError>,
    rows: Vec<Row>,
    fields: Vec<Field>,
}

fn must_manage(me: &SignedIn) -> Result<(), WebError> {
    if access::may_manage_people(me.actor.role) {
        Ok(())
    } else {
        Err(Error::Forbidden("Only administrators manage groups.").into())
    }
}

async fn draw_list(
    me: &SignedIn,
    typed: Option<&FormValues>,
    errors: Vec<FieldError>,
) -> Result<HttpResponse, WebError> {
    must_manage(me)?;
    let mut rows = Vec::new();
    for group in me.service().groups.groups(&me.actor).await? {
        let (_, members) = me.service().groups.group(&me.actor, group.id).await?;
        let members = count_noun(
            i64::try_from(members.len()).unwrap_or(i64::MAX),
            "person",
            "people",
        );
        rows.push(Row {
            href: addresses::group(group.id),
            name: group.name,
            members,
        });
    }
    let mut fields = vec![Field::text("name", "Name")];
    refill(&mut fields, typed, &errors);
    page_with(
        form_status(&errors),
        &ListPage {
            chrome: me.visitor.chrome("people", "Groups"),
            errors,
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
fn named(error: Error) -> Result<Vec<FieldError>, WebError> {
    Ok(problems_of(error)?
        .into_iter()
        .map(|problem| FieldError::new("name", problem.message))
        .collect())
}

/// `POST /groups`.
pub async fn create(me: SignedIn, Confirmed(typed): Confirmed) -> Result<HttpResponse, WebError> {
    must_manage(&me)?;
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

struct Member {
    guid: String,
    href: String,
    name: String,
}

#[derive(Template)]
#[template(path = "pages/group.html")]
struct GroupPage {
    chrome: Chrome,
    errors: Vec<FieldError>,
    base: String,
    members: Vec<Member>,
    member_fields: Vec<Field>,
    fields: Vec<Field>,
}

async fn draw(
    me: &SignedIn,
    group: Id<Group>,
    typed: Option<&FormValues>,
    errors: Vec<FieldError>,
) -> Result<HttpResponse, WebError> {
    must_manage(me)?;
    let (group, members) = me.service().groups.group(&me.actor, group).await?;
    let people = me.service().people.people(&me.actor).await?;
    let others = people
        .iter()
        .filter(|person| !members.iter().any(|member| member.id == person.id));
    let options =
        std::iter::once(Choice::new("", "Choose a person", "")).chain(others.map(|person| {
            Choice::new(
                person.id.to_string(),
                format!("{} ({})", person.display_name(), person.username),
                "",
            )
        }));
    let mut member_fields =
        vec![Field::new(FieldKind::Select, "person", "Person").options(options.collect())];
    refill(&mut member_fields, None, &errors);
    let mut fields = vec![Field::text("name", "Name").value(group.name.clone())];
    refill(&mut fields, typed, &errors);
    page_with(
        form_status(&errors),
        &GroupPage {
            chrome: me.visitor.chrome("people", &group.name),
            errors,
            base: addresses::group(group.id),
            members: members
                .iter()
                .map(|person| Member {
                    guid: person.id.to_string(),
                    href: addresses::person(person.id),
                    name: person.display_name(),
                })
                .collect(),
            member_fields,
            fields,
        },
    )
}

/// `GET /groups/{guid}`.
pub async fn detail(me: SignedIn, path: web::Path<String>) -> Result<HttpResponse, WebError> {
    draw(&me, id(&path)?, None, Vec::new()).await
}

/// `POST /groups/{guid}`.
pub async fn rename(
    me: SignedIn,
    path: web::Path<String>,
    Confirmed(typed): Confirmed,
) -> Result<HttpResponse, WebError> {
    must_manage(&me)?;
    let group = id(&path)?;
    match me
        .service()
        .groups
        .rename_group(&me.actor, group, typed.text("name"))
        .await
    {
        Ok(saved) => Ok(me.done(&addresses::group(group), format!("Saved {}.", saved.name))),
        Err(error) => draw(&me, group, Some(&typed), named(error)?).await,
    }
}

/// `POST /groups/{guid}/members`.
pub async fn add_member(
    me: SignedIn,
    path: web::Path<String>,
    Confirmed(typed): Confirmed,
) -> Result<HttpResponse, WebError> {
    must_manage(&me)?;
    let group = id(&path)?;
    let Ok(person) = typed.text("person").parse() else {
        return draw(
            &me,
            group,
            None,
            vec![FieldError::new("person", "Choose a person.")],
        )
        .await;
    };
    me.service()
        .groups
        .add_member(&me.actor, group, person)
        .await?;
    Ok(me.done(&addresses::group(group), "Added to the group."))
}

/// `POST /groups/{guid}/members/remove`.
pub async fn remove_member(
    me: SignedIn,
    path: web::Path<String>,
    Confirmed(typed): Confirmed,
) -> Result<HttpResponse, WebError> {
    must_manage(&me)?;
    let group = id(&path)?;
    me.service()
        .groups
        .remove_member(&me.actor, group, id(typed.text("person"))?)
        .await?;
    Ok(me.done(&addresses::group(group), "Removed from the group."))
}

/// `POST /groups/{guid}/delete`.
pub async fn delete(
    me: SignedIn,
    path: web::Path<String>,
    _: Confirmed,
) -> Result<HttpResponse, WebError> {
    must_manage(&me)?;
    let gone = me
        .service()
        .groups
        .delete_group(&me.actor, id(&path)?)
        .await?;
    Ok(me.done("/groups", format!("Deleted {}.", gone.name)))
}
