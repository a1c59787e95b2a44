//! `/groups/{guid}`: one group; its name, members and end.

use crate::{
    domain::{Id, addresses, form::FieldError, group, person::Person},
    http::errors::WebError,
    service::core::must_manage_groups,
    web::{
        confirmation::Confirmed,
        forms::{Choice, Field, FieldKind, FormValues, refill},
        listing::{ChoiceSearch, ColumnSpec, ListFrame, ListSpec, Picker, cut, natural_key},
        pages::{
            Question, ask_first, choices, form_status, groups::list::named, id, is_sure, page_with,
        },
        view::{Chrome, count_noun},
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
    list: ListFrame,
    members: Vec<Member>,
    new_member: Picker,
    fields: Vec<Field>,
}

const COLUMNS: [ColumnSpec<Person>; 1] = [ColumnSpec::new("name", "Name", |person| {
    natural_key(&person.display_name())
})];

async fn draw(
    me: &SignedIn,
    group: Id<group::Group>,
    typed: Option<&FormValues>,
    errors: Vec<FieldError>,
) -> Result<HttpResponse, WebError> {
    must_manage_groups(&me.actor)?;
    let (group, members) = me.service().groups.group(&me.actor, group).await?;
    let people = me.service().people.people(&me.actor).await?;
    let others = people
        .iter()
        .filter(|person| !members.iter().any(|member| member.id == person.id));
    let options = std::iter::once(Choice::new("", "Choose a person", "")).chain(
        others.map(|person| Choice::new(person.id.to_string(), person.name_and_username(), "")),
    );
    let base = addresses::group(group.id);
    let mut field = [Field::new(FieldKind::Select, "person", "Person").options(options.collect())];
    refill(&mut field, None, &errors);
    let [field] = field;
    let search = ChoiceSearch::new(
        &me.visitor.asked,
        &base,
        "members",
        (choices::PEOPLE, "Search people"),
    );
    let new_member = Picker::new(search, field);
    let (list, members) = cut(
        &me.visitor.asked,
        &ListSpec {
            base: &base,
            nouns: ("member", "members"),
            columns: &COLUMNS,
            filters: &[],
            text: |person| {
                format!(
                    "{} {} {}",
                    person.display_name(),
                    person.username,
                    person.email
                )
            },
            id: |person| person.id.to_string(),
        },
        members,
    );
    let mut fields = vec![Field::text("name", "Name").value(group.name.clone())];
    refill(&mut fields, typed, &errors);
    page_with(
        form_status(&errors),
        &GroupPage {
            chrome: me.visitor.chrome("people", &group.name),
            errors,
            base,
            list,
            members: members
                .iter()
                .map(|person| Member {
                    guid: person.id.to_string(),
                    href: addresses::person(person.id),
                    name: person.display_name(),
                })
                .collect(),
            new_member,
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
    Confirmed(typed): Confirmed,
) -> Result<HttpResponse, WebError> {
    must_manage_groups(&me.actor)?;
    if !is_sure(&typed) {
        let (group, members) = me.service().groups.group(&me.actor, id(&path)?).await?;
        let base = addresses::group(group.id);
        let count = count_noun(members.len(), "person", "people");
        return ask_first(
            &me,
            Question {
                area: "people",
                title: format!("Delete {}?", group.name),
                consequences: &[
                    &format!("Members: {count}. Their accounts stay."),
                    "People who may open content or choose integrations only through this group no longer may, and their consents for that content end. That cannot be taken back: a new group of the same name starts empty.",
                ],
                action: format!("{base}/delete"),
                fields: Vec::new(),
                submit: &format!("Delete {}", group.name),
                cancel: base,
            },
        );
    }
    let gone = me
        .service()
        .groups
        .delete_group(&me.actor, id(&path)?)
        .await?;
    Ok(me.done("/groups", format!("Deleted {}.", gone.name)))
}
