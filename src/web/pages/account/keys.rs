//! `/account/keys`: one's own API keys.

use crate::{
    domain::{api_key::ApiKey, form::FieldError, person::Role},
    http::{errors::WebError, redirect::see_other},
    service::Error,
    web::{
        confirmation::Confirmed,
        forms::{Choice, Field, FieldKind, FormValues, refill},
        listing::{ColumnSpec, ListFrame, ListSpec, cut, natural_key, number_key},
        pages::{Question, ask_first, form_status, is_sure, page_with, problems_of},
        shown_once::{self, SecretToShow},
        view::{Chrome, Moment},
        visitor::{Posted, SignedIn},
    },
};
use actix_web::{HttpResponse, web};
use askama::Template;
use strum::VariantArray as _;

struct KeyRow {
    number: i64,
    name: String,
    role: &'static str,
    made: Moment,
    used: Option<Moment>,
    ends: Option<Moment>,
}

#[derive(Template)]
#[template(path = "pages/account/keys.html")]
struct KeysPage {
    chrome: Chrome,
    errors: Vec<FieldError>,
    list: ListFrame,
    rows: Vec<KeyRow>,
    fields: Vec<Field>,
}

const COLUMNS: [ColumnSpec<ApiKey>; 4] = [
    ColumnSpec::new("name", "Name", |key| natural_key(&key.name)),
    ColumnSpec::new("role", "Role", |key| key.role.label().to_owned()),
    ColumnSpec::greatest_first("made", "Made", |key| number_key(key.created_at.0)),
    ColumnSpec::greatest_first("used", "Used", |key| {
        number_key(key.active_at.map_or(0, |at| at.0))
    }),
];

async fn draw_keys(
    me: &SignedIn,
    typed: Option<&FormValues>,
    errors: Vec<FieldError>,
) -> Result<HttpResponse, WebError> {
    let now = me.now();
    let roles = Role::VARIANTS
        .iter()
        .copied()
        .filter(|role| *role <= me.actor.role)
        .rev();
    let mut fields = vec![
        Field::text("name", "Name").hint("What the key is for, so that you recognise it later."),
        Field::new(FieldKind::Select, "user_role", "Role").options(
            roles
                .map(|role| Choice::new(role.as_str(), role.label(), ""))
                .collect(),
        ),
    ];
    refill(&mut fields, typed, &errors);
    let keys = me
        .service()
        .api_keys
        .keys_of(&me.actor, me.actor.person.id)
        .await?;
    let (list, keys) = cut(
        &me.visitor.asked,
        &ListSpec {
            base: "/account/keys",
            nouns: ("key", "keys"),
            columns: &COLUMNS,
            filters: &[],
            text: |key| key.name.clone(),
            id: |key| number_key(key.number),
        },
        keys,
    );
    let rows = keys
        .into_iter()
        .map(|key| KeyRow {
            number: key.number,
            name: key.name,
            role: key.role.label(),
            made: Moment::new(key.created_at, now),
            used: key.active_at.map(|at| Moment::new(at, now)),
            ends: key.expires_at.map(|at| Moment::new(at, now)),
        })
        .collect();
    let view = KeysPage {
        chrome: me.visitor.chrome("", "API keys"),
        list,
        rows,
        fields,
        errors,
    };
    page_with(form_status(&view.errors), &view)
}

/// `GET /account/keys`.
pub async fn keys(me: SignedIn) -> Result<HttpResponse, WebError> {
    draw_keys(&me, None, Vec::new()).await
}

/// `POST /account/keys`: creates a key and redirects to the page that shows it once.
pub async fn create_key(
    me: SignedIn,
    Confirmed(typed): Confirmed,
) -> Result<HttpResponse, WebError> {
    let role = Role::parse(typed.text("user_role"));
    match me
        .service()
        .api_keys
        .create_key(&me.actor, typed.text("name"), role, None)
        .await
    {
        Ok((key, secret)) => {
            let shown = SecretToShow {
                title: format!("API key {}", key.name),
                intro: "Copy the key now and keep it where the program finds it.".into(),
                label: "API key".into(),
                secret,
                environment: String::new(),
                done: "/account/keys".into(),
            };
            Ok(see_other(
                &shown_once::store(me.service(), me.actor.person.id, shown).await?,
            ))
        }
        Err(error) => draw_keys(&me, Some(&typed), problems_of(error)?).await,
    }
}

/// `POST /account/keys/{number}/delete`: after a question.
pub async fn delete_key(
    me: SignedIn,
    path: web::Path<i64>,
    Posted(typed): Posted,
) -> Result<HttpResponse, WebError> {
    if !is_sure(&typed) {
        let (own, now) = (me.actor.person.id, me.now());
        let keys = me.service().api_keys.keys_of(&me.actor, own).await?;
        let key = keys.into_iter().find(|key| key.number == *path);
        let key = key.ok_or(Error::NotFound)?;
        let used = match key.active_at {
            Some(at) => format!("It was last used {}.", at.relative(*now)),
            None => "It was never used.".to_owned(),
        };
        return ask_first(
            &me,
            Question {
                area: "",
                title: format!("Delete the key {}?", key.name),
                consequences: &[
                    &used,
                    "Programs that use it are refused from now on. That cannot be taken back: make a new key and give it to them first.",
                ],
                action: format!("/account/keys/{}/delete", key.number),
                fields: Vec::new(),
                submit: &format!("Delete {}", key.name),
                cancel: "/account/keys".into(),
            },
        );
    }
    me.service().api_keys.delete_key(&me.actor, *path).await?;
    Ok(me.done(
        "/account/keys",
        "Deleted the key. Programs that use it are refused from now on.",
    ))
}
