//! `/groups/{guid}`: one group; its name, members and end.

use crate::{
    domain::{Id, addresses, form::FieldError, group::Group},
    http::errors::WebError,
    service::core::must_manage_groups,
    web::{
        confirmation::Confirmed,
        forms::{Choice, Field, FieldKind, FormValues, refill},
        pages::{form_status, groups::list::named, id, page_with},
        view::Chrome,
        visitor::SignedIn,
    },
};
use actix_web::{HttpResponse, web};
use askama::Template;

struct Member {
    guid: String,
    href: String,
    name: String,
}

#[derive(Template)]
#[template(path = "pages/groups/show.html")]
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
    must_manage_groups(&me.actor)?;
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
    must_manage_groups(&me.actor)?;
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
    must_manage_groups(&me.actor)?;
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
    must_manage_groups(&me.actor)?;
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
    must_manage_groups(&me.actor)?;
    let gone = me
        .service()
        .groups
        .delete_group(&me.actor, id(&path)?)
        .await?;
    Ok(me.done("/groups", format!("Deleted {}.", gone.name)))
}
