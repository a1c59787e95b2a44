//! `/content-settings/{guid}/consents`: who lets an item act for them; and ending all of that.

use crate::{
    domain::{addresses, consent::Consent, integration::Integration, person::Person},
    http::errors::WebError,
    web::{
        confirmation::Confirmed,
        forms::{Field, FieldKind},
        listing::{
            ColumnSpec, Filter, ListFrame, ListSpec, cut, distinct_choices, natural_key, number_key,
        },
        pages::{
            ConfirmPage, Group, Question, ask_first,
            content::tabs::{CONSENTS, content_tabs},
            id, is_sure, page,
        },
        view::{Chrome, Moment, Tab, count_noun, some_of},
        visitor::SignedIn,
    },
};
use actix_web::{HttpResponse, web};
use askama::Template;

struct Row {
    guid: String,
    person: String,
    integration: String,
    allowed: Moment,
    used: Option<Moment>,
    uses: String,
}

#[derive(Template)]
#[template(path = "pages/content/consents.html")]
struct ConsentsPage {
    chrome: Chrome,
    title: String,
    tabs: Vec<Tab>,
    list: ListFrame,
    rows: Vec<Row>,
    /// The page that ends all of them; empty for readers who may not.
    end: String,
}

/// A consent with its person and integration.
type Given = (Consent, Person, Integration);

const COLUMNS: [ColumnSpec<Given>; 4] = [
    ColumnSpec::new("person", "Person", |(_, person, _)| {
        natural_key(&person.display_name())
    }),
    ColumnSpec::new("integration", "Integration", |(.., integration)| {
        natural_key(integration.display_name())
    }),
    ColumnSpec::greatest_first("allowed", "Allowed", |(consent, ..)| {
        number_key(consent.created_at.0)
    }),
    ColumnSpec::greatest_first("used", "Used", |(consent, ..)| {
        number_key(consent.last_used_at.map_or(0, |at| at.0))
    }),
];

/// `GET /content-settings/{guid}/consents`.
pub async fn list(me: SignedIn, path: web::Path<String>) -> Result<HttpResponse, WebError> {
    let (contents, now) = (&me.service().contents, me.now());
    let item = contents.editable_content(&me.actor, id(&path)?).await?;
    let item = item.content;
    let given = contents.consenting_people(&me.actor, item.id).await?;
    let names: Vec<String> = given
        .iter()
        .map(|(.., integration)| integration.display_name().to_owned())
        .collect();
    let filters = [Filter {
        name: "integration",
        label: "Integration",
        choices: distinct_choices(&names),
        passes: Box::new(|(.., integration): &Given, wanted| integration.display_name() == wanted),
    }];
    let base = addresses::content_settings(item.id);
    let (list, given) = cut(
        &me.visitor.asked,
        &ListSpec {
            base: &format!("{base}{CONSENTS}"),
            nouns: ("consent", "consents"),
            columns: &COLUMNS,
            filters: &filters,
            text: |(_, person, integration)| {
                format!(
                    "{} {} {} {}",
                    person.display_name(),
                    person.username,
                    person.email,
                    integration.display_name()
                )
            },
            id: |(consent, ..)| consent.id.to_string(),
        },
        given,
    );
    let may_end = crate::domain::access::may_end_connections(me.actor.role);
    page(&ConsentsPage {
        chrome: me
            .visitor
            .chrome("content", &format!("Consents to {}", item.display_title())),
        title: item.display_title().to_owned(),
        tabs: content_tabs(item.id, CONSENTS),
        end: if may_end && !list.is_empty {
            format!("{base}{CONSENTS}/end")
        } else {
            String::new()
        },
        list,
        rows: given
            .into_iter()
            .map(|(consent, person, integration)| Row {
                guid: consent.id.to_string(),
                person: person.display_name(),
                integration: integration.display_name().to_owned(),
                allowed: Moment::new(consent.created_at, now),
                used: consent.last_used_at.map(|at| Moment::new(at, now)),
                uses: count_noun(consent.uses, "time", "times"),
            })
            .collect(),
    })
}

/// `GET /content-settings/{guid}/consents/end`.
pub async fn end_consents_page(
    me: SignedIn,
    path: web::Path<String>,
) -> Result<HttpResponse, WebError> {
    let item = me
        .service()
        .contents
        .editable_content(&me.actor, id(&path)?)
        .await?
        .content;
    let consents = me
        .service()
        .contents
        .consenting_people(&me.actor, item.id)
        .await?;
    let people: Vec<String> = consents
        .iter()
        .map(|(_, person, _)| person.display_name())
        .collect();
    page(&ConfirmPage {
        chrome: me.visitor.chrome(
            "content",
            &format!("End every consent for {}?", item.display_title()),
        ),
        errors: Vec::new(),
        groups: vec![
            Group::new(
                "Who",
                &["For these people the content stops acting at once, in open windows, too:"],
                some_of(people),
            ),
            Group::new(
                "What does not happen",
                &[
                    "Their connections stay, and other content goes on using them. The next time they open this content they are asked again.",
                ],
                Vec::new(),
            ),
        ],
        link: None,
        action: format!("{}/consents/end", addresses::content_settings(item.id)),
        fields: Vec::new(),
        submit: "End every consent".into(),
        cancel: format!("{}{CONSENTS}", addresses::content_settings(item.id)),
    })
}

/// `POST /content-settings/{guid}/consents/end`: ends every viewer's consent for this item.
pub async fn end_consents(
    me: SignedIn,
    path: web::Path<String>,
    _: Confirmed,
) -> Result<HttpResponse, WebError> {
    let guid = id(&path)?;
    let ended = me
        .service()
        .revocations
        .revoke_consents_of_content(&me.actor, guid)
        .await?;
    let message = format!("Ended {}.", count_noun(ended, "consent", "consents"));
    let list = format!("{}{CONSENTS}", addresses::content_settings(guid));
    Ok(me.done(&list, message))
}

/// `POST /content-settings/{guid}/consents`: ends the consents that were ticked (`consent`), after a
/// question.
pub async fn end_chosen(
    me: SignedIn,
    path: web::Path<String>,
    Confirmed(typed): Confirmed,
) -> Result<HttpResponse, WebError> {
    let (contents, guid) = (&me.service().contents, id(&path)?);
    let given = contents.consenting_people(&me.actor, guid).await?;
    let chosen: Vec<Given> = given
        .into_iter()
        .filter(|(consent, ..)| {
            typed
                .all("consent")
                .any(|one| one == consent.id.to_string())
        })
        .collect();
    let list = format!("{}{CONSENTS}", addresses::content_settings(guid));
    if chosen.is_empty() {
        return Ok(me.done(&list, "Nothing was chosen: tick the consents first."));
    }
    let count = count_noun(chosen.len(), "consent", "consents");
    if !is_sure(&typed) {
        let names = chosen.iter().map(|(_, person, _)| person.display_name());
        let names = some_of(names.collect()).join(", ");
        let fields = chosen.iter().map(|(consent, ..)| {
            Field::new(FieldKind::Hidden, "consent", "").value(consent.id.to_string())
        });
        return ask_first(
            &me,
            Question {
                area: "content",
                title: format!("End {count}?"),
                consequences: &[
                    &format!("For {names} the content stops acting at once, in open windows, too."),
                    "Their connections stay, and other content goes on using them. The next time they open this content they are asked again.",
                ],
                action: list.clone(),
                fields: fields.collect(),
                submit: &format!("End {count}"),
                cancel: list,
            },
        );
    }
    let ids = chosen.iter().map(|(consent, ..)| consent.id).collect();
    let ended = me
        .service()
        .consents
        .end_consents_of_others(&me.actor, ids)
        .await?;
    let count = count_noun(ended, "consent", "consents");
    Ok(me.done(&list, format!("Ended {count}.")))
}
