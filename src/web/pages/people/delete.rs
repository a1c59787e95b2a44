//! `/people/{guid}/delete`: deletes a person, after a question that also asks who gets their content.

use crate::{
    domain::{addresses, form::FieldError, person::Role},
    http::errors::WebError,
    service::core::must_manage_people,
    web::{
        confirmation::Confirmed,
        forms::{Choice, Field, FieldKind, FormValues, refill},
        pages::{ConfirmPage, Group, form_status, id, page_with, problems_of},
        view::count_noun,
        visitor::SignedIn,
    },
};
use actix_web::{HttpResponse, web};

async fn draw(
    me: &SignedIn,
    path: &str,
    typed: Option<&FormValues>,
    errors: Vec<FieldError>,
) -> Result<HttpResponse, WebError> {
    must_manage_people(&me.actor)?;
    let person = me.service().people.person(&me.actor, id(path)?).await?;
    let owned = me
        .service()
        .deletion
        .content_of(&me.actor, person.id)
        .await?;
    let name = person.display_name();
    let mut fields = Vec::new();
    if !owned.is_empty() {
        let people = me.service().people.people(&me.actor).await?;
        let may_own = people.iter().filter(|other| {
            other.id != person.id && !other.locked && other.role >= Role::Publisher
        });
        let options = std::iter::once(Choice::new("", "Choose a person", "")).chain(
            may_own.map(|other| Choice::new(other.id.to_string(), other.name_and_username(), "")),
        );
        fields.push(
            Field::new(FieldKind::Select, "heir", "Who gets their content")
                .hint(count_noun(owned.len(), "item", "items"))
                .options(options.collect()),
        );
    }
    refill(&mut fields, typed, &errors);
    page_with(
        form_status(&errors),
        &ConfirmPage {
            chrome: me.visitor.chrome("people", &format!("Delete {name}?")),
            errors,
            groups: vec![
                Group::new(
                    "What happens",
                    &[
                        "Their sessions, consents, connections and API keys end, those of their content included: programs that use one need a new one. Providers that can be told are told.",
                        "Everything that is stored about them here is deleted. In the audit log a pseudonym takes the place of their names, and their network addresses go.",
                    ],
                    Vec::new(),
                ),
                Group::new(
                    "What does not happen",
                    &[
                        "Backups keep what they hold. After a restore of one the account is there again, locked: delete it once more.",
                        "If they sign in with the organisation again and may, they get a new account.",
                    ],
                    Vec::new(),
                ),
            ],
            link: None,
            action: format!("{}/delete", addresses::person(person.id)),
            fields,
            submit: format!("Delete {name}"),
            cancel: addresses::person(person.id),
        },
    )
}

/// `GET /people/{guid}/delete`.
pub async fn ask(me: SignedIn, path: web::Path<String>) -> Result<HttpResponse, WebError> {
    draw(&me, &path, None, Vec::new()).await
}

/// `POST /people/{guid}/delete`.
pub async fn delete(
    me: SignedIn,
    path: web::Path<String>,
    Confirmed(typed): Confirmed,
) -> Result<HttpResponse, WebError> {
    must_manage_people(&me.actor)?;
    let person = id(&path)?;
    let heir = typed.non_empty("heir").map(id).transpose()?;
    match me.service().deletion.delete(&me.actor, person, heir).await {
        Ok(pseudonym) => Ok(me.done(
            "/people",
            format!("Deleted. The audit log calls them {pseudonym}."),
        )),
        Err(error) => draw(&me, &path, Some(&typed), problems_of(error)?).await,
    }
}
