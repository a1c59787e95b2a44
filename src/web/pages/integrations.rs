//! Integrations, for administrators: `/integrations` and below. List, choice of a template, form,
//! detail page with the list of people who may choose the integration, and the pages that
//! disconnect or delete.
//!
//! The forms are drawn from the provider's template (`providers::Template`); the Azure template
//! gets its own wording and a choice of clouds. Secrets can be replaced and are never shown.

use crate::{
    domain::{
        Id, Timestamp, access, addresses,
        form::FieldError,
        group::Principal,
        integration::{Availability, Config, IdentityCheck, Integration, SecretHealth},
    },
    http::errors::WebError,
    providers::{self, Template as Kind_, azure},
    service::{
        Error,
        catalog::integrations::{Impact, IntegrationInput, UpdateOutcome},
        grants::revocations::Owner,
    },
    web::{
        confirmation::Confirmed,
        forms::{Choice, Field, FieldKind, FormValues, refill},
        pages::{
            ConfirmPage, Group, form_status, id, page, page_with, principal, principal_field,
            problems_of,
        },
        view::{Chrome, Moment, NavLink, Status, count_noun},
        visitor::{Posted, SignedIn},
    },
};
use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;
use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;

struct Column {
    label: &'static str,
    href: String,
    aria: &'static str,
}

/// One row of the list.
struct Row {
    href: String,
    name: String,
    description: String,
    service: String,
    provider: String,
    contents: String,
    people: String,
    secret: Status,
    secret_note: String,
    changed: Moment,
    /// Sort keys, one for each of [`COLUMNS`].
    sort: [String; 5],
}

#[derive(Template)]
#[template(path = "pages/integrations.html")]
struct ListPage {
    chrome: Chrome,
    columns: Vec<Column>,
    rows: Vec<Row>,
}

/// The query of the list: `sort` is the key of a column, `order` is `desc` or absent.
#[derive(Deserialize)]
pub struct Sort {
    sort: Option<String>,
    order: Option<String>,
}

/// The sortable columns: key in the query, and title.
const COLUMNS: [(&str, &str); 5] = [
    ("name", "Name"),
    ("service", "Service"),
    ("used", "Used by"),
    ("secret", "Client secret"),
    ("changed", "Changed"),
];
/// How long before its expiry a client secret is reported.
const SECRET_EXPIRY_NOTICE: Duration = Duration::from_secs(60 * 86_400);

fn must_manage(me: &SignedIn) -> Result<(), WebError> {
    if access::may_manage_integrations(me.actor.role) {
        Ok(())
    } else {
        Err(Error::Forbidden("Only administrators manage integrations.").into())
    }
}

/// The state of a client secret, with a note: its expiry date if near, else the result of its last
/// use.
fn secret_status(integration: &Integration, now: Timestamp) -> (Status, String) {
    let names = providers::names(integration);
    let set = match (integration.secret_set_at, &integration.secret_set_by) {
        (Some(at), Some(by)) => format!("set {} by {by}", at.relative(now)),
        (Some(at), None) => format!("set {}", at.relative(now)),
        (None, _) => String::new(),
    };
    match (&integration.secret_health, integration.secret_expires_at) {
        (SecretHealth::NotNeeded, _) => (Status::neutral("Not needed"), "public client".into()),
        (SecretHealth::Rejected { at, .. }, _) => (
            Status::negative(format!("Rejected by {}", names.provider)),
            format!("since {}", at.relative(now)),
        ),
        (_, Some(end)) if end <= now => (Status::negative("Expired"), format!("on {}", end.date())),
        (_, Some(end)) if end.since(now) <= SECRET_EXPIRY_NOTICE => {
            let days = end.since(now).as_secs() / 86_400;
            (
                Status::warning(if days == 0 {
                    "Expires today".into()
                } else {
                    format!(
                        "Expires in {}",
                        count_noun(i64::try_from(days).unwrap_or(0), "day", "days")
                    )
                }),
                set,
            )
        }
        (SecretHealth::Works { at }, _) => (
            Status::positive("Works"),
            format!("used {}", at.relative(now)),
        ),
        (SecretHealth::Untried, _) => (Status::neutral("Not used yet"), set),
    }
}

/// `GET /integrations`.
pub async fn list(me: SignedIn, query: web::Query<Sort>) -> Result<HttpResponse, WebError> {
    must_manage(&me)?;
    let (service, now) = (me.service(), me.service().core.now());
    let usage = service.integrations.integration_usage().await?;
    let mut rows: Vec<Row> = service
        .integrations
        .integrations(&me.actor)
        .await?
        .iter()
        .map(|integration| {
            let used = usage.get(&integration.id).cloned().unwrap_or_default();
            let names = providers::names(integration);
            let (secret, secret_note) = secret_status(integration, now);
            Row {
                sort: [
                    integration.display_name().to_lowercase(),
                    names.service.to_lowercase(),
                    format!("{:012}", used.contents),
                    secret.word.to_lowercase(),
                    format!("{:016}", integration.updated_at.0),
                ],
                href: addresses::integration(integration.id),
                name: integration.display_name().to_owned(),
                description: integration.description.clone().unwrap_or_default(),
                service: names.service,
                provider: if integration.template == "azure" {
                    "Microsoft Entra ID".into()
                } else {
                    names.provider
                },
                contents: count_noun(used.contents, "content item", "content items"),
                people: if used.people == 0 {
                    "nobody connected".into()
                } else {
                    count_noun(used.people, "person connected", "people connected")
                },
                secret,
                secret_note,
                changed: Moment::new(integration.updated_at, now),
            }
        })
        .collect();
    let by = query
        .sort
        .as_deref()
        .and_then(|wanted| COLUMNS.iter().position(|(key, _)| *key == wanted))
        .unwrap_or(0);
    let descending = query.order.as_deref() == Some("desc");
    rows.sort_by(|left, right| left.sort[by].cmp(&right.sort[by]));
    if descending {
        rows.reverse();
    }
    let columns = COLUMNS
        .iter()
        .enumerate()
        .map(|(position, (key, label))| {
            let current = position == by;
            let turn = if current && !descending {
                "&order=desc"
            } else {
                ""
            };
            Column {
                label,
                href: format!("/integrations?sort={key}{turn}"),
                aria: match (current, descending) {
                    (false, _) => "",
                    (true, false) => "ascending",
                    (true, true) => "descending",
                },
            }
        })
        .collect();
    page(&ListPage {
        chrome: me.visitor.chrome("integrations", "Integrations"),
        columns,
        rows,
    })
}

struct Tile {
    href: String,
    monogram: &'static str,
    title: &'static str,
    summary: &'static str,
}

#[derive(Template)]
#[template(path = "pages/integration_choose.html")]
struct ChoosePage {
    chrome: Chrome,
    options: Vec<Tile>,
}

/// The query of `/integrations/new`: the key of a template.
#[derive(Deserialize)]
pub struct Chosen {
    template: Option<String>,
}

/// `GET /integrations/new`: the choice of a template or, with `template`, its form.
pub async fn new_page(
    me: SignedIn,
    request: HttpRequest,
    query: web::Query<Chosen>,
) -> Result<HttpResponse, WebError> {
    must_manage(&me)?;
    me.visitor.require_confirmation(&request)?;
    match query.template.as_deref().and_then(providers::template) {
        Some(template) => draw_form(
            &me,
            Subject::New(template, Id::random()),
            None,
            Vec::new(),
            None,
        ),
        None => page(&ChoosePage {
            chrome: me.visitor.chrome("integrations", "Add integration"),
            options: providers::TEMPLATES
                .into_iter()
                .map(|template| Tile {
                    href: format!("/integrations/new?template={}", template.key),
                    monogram: template.monogram,
                    title: template.title,
                    summary: template.summary,
                })
                .collect(),
        }),
    }
}

/// The question before a change that signs people out.
struct Confirmation {
    title: String,
    text: String,
    items: Vec<String>,
    label: String,
}

#[derive(Template)]
#[template(path = "pages/integration_form.html")]
struct FormPage {
    chrome: Chrome,
    summary: &'static str,
    errors: Vec<FieldError>,
    action: String,
    template: &'static str,
    guid: String,
    first_title: &'static str,
    first_text: &'static str,
    redirect: String,
    own_redirect: Option<String>,
    second_title: &'static str,
    second_text: &'static str,
    third_title: &'static str,
    fields: Vec<Field>,
    preset: Vec<Field>,
    details_open: bool,
    pkce: &'static str,
    confirm: Option<Confirmation>,
    submit: &'static str,
    cancel: String,
}

/// What the form is for: a new integration, whose id is known before it is saved, or an old one.
enum Subject<'a> {
    New(&'static Kind_, Id<Integration>),
    Edit(&'static Kind_, &'a Integration),
}

/// Whether a setting is in the main list of fields; the others are under details.
fn is_main(template: &Kind_, name: &str) -> bool {
    !(template.key == "azure" && matches!(name, "scopes" | "authority_host" | "auth_mode"))
        && name != "auth_type"
}

/// The form of an integration. `confirm` adds a question that must be answered to save.
fn draw_form(
    me: &SignedIn,
    subject: Subject<'_>,
    typed: Option<&FormValues>,
    errors: Vec<FieldError>,
    confirm: Option<Confirmation>,
) -> Result<HttpResponse, WebError> {
    let service = me.service();
    let (template, guid, existing) = match &subject {
        Subject::New(template, guid) => (*template, *guid, None),
        Subject::Edit(template, integration) => (*template, integration.id, Some(*integration)),
    };
    let azure_kind = template.key == "azure";
    let mut fields = vec![
        Field::text("name", "Name")
            .hint("Publishers see this when they choose.")
            .value(if existing.is_none() && azure_kind {
                "Azure Databricks"
            } else {
                ""
            }),
        Field::new(FieldKind::Textarea, "description", "What is it for?")
            .hint("One sentence for publishers."),
    ];
    let mut preset = Vec::new();
    for field in template.fields {
        let mut drawn = if field.secret {
            let hint = match existing
                .and_then(|integration| integration.secret_set_at.map(|at| (integration, at)))
            {
                Some((integration, at)) => format!(
                    "Secret set {} by {}. Leave empty to keep it.",
                    at.relative(service.core.now()),
                    integration.secret_set_by.as_deref().unwrap_or("somebody")
                ),
                None => field.hint.to_owned(),
            };
            Field::new(FieldKind::Secret, field.name, field.label)
                .hint(hint)
                .mono()
                .autocomplete("off")
        } else {
            Field::text(field.name, field.label)
                .hint(field.hint)
                .value(field.default)
                .mono()
        };
        if let Some(integration) = existing.filter(|_| !field.secret) {
            drawn.value = integration.setting(field.name).to_owned();
        }
        if is_main(template, field.name) {
            fields.push(drawn)
        } else {
            preset.push(drawn)
        }
        if field.secret {
            let expires = existing
                .and_then(|integration| integration.secret_expires_at)
                .map(Timestamp::iso_date)
                .unwrap_or_default();
            fields.push(
                Field::new(FieldKind::Date, "secret_expires", "The secret expires on")
                    .hint("Optional. The list of integrations warns you before.")
                    .value(expires),
            );
        }
    }
    if azure_kind {
        let options = azure::CLOUDS
            .iter()
            .map(|(host, label)| Choice::new(*host, *label, *host))
            .collect();
        let stored = existing
            .map(|integration| integration.setting("authority_host"))
            .unwrap_or("");
        let known = azure::CLOUDS.iter().any(|(host, _)| *host == stored);
        preset.insert(
            0,
            Field::new(FieldKind::Radio, "cloud", "Cloud")
                .options(options)
                .value(if known { stored } else { azure::PUBLIC_CLOUD }),
        );
        if known
            && let Some(field) = preset
                .iter_mut()
                .find(|field| field.name == "authority_host")
        {
            field.value.clear();
        }
    }
    for choice in template
        .choices
        .iter()
        .filter(|choice| choice.values.len() > 1)
    {
        let options = choice
            .values
            .iter()
            .map(|(value, label)| Choice::new(*value, *label, ""))
            .collect();
        let stored = existing
            .and_then(|integration| integration.config.get(choice.name))
            .map(|value| match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            });
        let field = Field::new(FieldKind::Radio, choice.name, choice.label)
            .hint(choice.hint)
            .options(options)
            .value(stored.unwrap_or_else(|| choice.default.into()));
        if is_main(template, choice.name) {
            fields.push(field)
        } else {
            preset.push(field)
        }
    }
    let check = existing.map_or_else(IdentityCheck::default, |integration| {
        integration.identity_check
    });
    preset.push(identity_field().value(check.as_str()));
    if existing.is_none() {
        fields.push(availability_field().value(Availability::default().as_str()));
    }
    if let Some(integration) = existing {
        let stored = FormValues(vec![
            ("name".into(), integration.name.clone().unwrap_or_default()),
            (
                "description".into(),
                integration.description.clone().unwrap_or_default(),
            ),
        ]);
        refill(&mut fields[..2], Some(&stored), &[]);
    }
    refill(&mut fields, typed, &errors);
    refill(&mut preset, typed, &errors);
    let own = service.core.addresses.own_callback(guid);
    let title = match existing {
        Some(integration) => format!("Edit {}", integration.display_name()),
        None => format!(
            "Add integration: {}",
            if azure_kind {
                "Azure Databricks"
            } else {
                template.title
            }
        ),
    };
    let view = FormPage {
        chrome: me.visitor.chrome("integrations", &title),
        summary: template.summary,
        action: existing.map_or_else(
            || "/integrations/new".to_owned(),
            |integration| format!("{}/edit", addresses::integration(integration.id)),
        ),
        template: template.key,
        guid: guid.to_string(),
        first_title: if azure_kind {
            "Register an application in Microsoft Entra ID"
        } else {
            "Register an application at the provider"
        },
        first_text: if azure_kind {
            "As its Web redirect URI, enter exactly:"
        } else {
            "As its redirect URI (callback address), enter exactly:"
        },
        redirect: if azure_kind {
            service.core.addresses.shared_callback()
        } else {
            own.clone()
        },
        own_redirect: azure_kind.then_some(own),
        second_title: if azure_kind {
            "Give it the permission AzureDatabricks / user_impersonation"
        } else {
            "Allow the authorization code flow"
        },
        second_text: if azure_kind {
            "API permissions → Add a permission → APIs my organization uses → AzureDatabricks → Delegated. Then Certificates & secrets → New client secret."
        } else {
            "With refresh tokens, so that people are not asked every hour. PKCE (S256) is used unless you switch it off."
        },
        third_title: if azure_kind {
            "Paste what Entra ID shows you"
        } else {
            "Enter what the provider shows you"
        },
        details_open: preset.iter().any(|field| field.error.is_some())
            || existing
                .is_some_and(|integration| !integration.setting("authority_host").is_empty()),
        pkce: if azure_kind {
            "always, with S256."
        } else {
            "as chosen above, with S256."
        },
        fields,
        preset,
        confirm,
        submit: "Save integration",
        cancel: existing.map_or_else(
            || "/integrations".to_owned(),
            |integration| addresses::integration(integration.id),
        ),
        errors,
    };
    let status = if view.confirm.is_some() {
        actix_web::http::StatusCode::UNPROCESSABLE_ENTITY
    } else {
        form_status(&view.errors)
    };
    page_with(status, &view)
}

fn availability_field() -> Field {
    let options = Availability::ALL.map(|known| match known {
        Availability::Everyone => Choice::new(known.as_str(), "Every publisher", ""),
        Availability::Listed => Choice::new(
            known.as_str(),
            "Only these people and groups",
            "You name them on the integration's page.",
        ),
        Availability::Nobody => Choice::new(
            known.as_str(),
            "Nobody yet",
            "Administrators can choose it, for a trial.",
        ),
    });
    Field::new(
        FieldKind::Radio,
        "availability",
        "Who may choose it for content",
    )
    .options(options.to_vec())
}

fn identity_field() -> Field {
    let options = IdentityCheck::ALL.map(|known| match known {
        IdentityCheck::Warn => {
            Choice::new(known.as_str(), "Ask the person whether it is theirs", "")
        }
        IdentityCheck::Require => Choice::new(
            known.as_str(),
            "Refuse it",
            "Also refuses accounts whose name the provider does not tell.",
        ),
        IdentityCheck::Off => Choice::new(
            known.as_str(),
            "Use it",
            "For services where people have other names.",
        ),
    });
    Field::new(
        FieldKind::Radio,
        "identity_check",
        "When somebody connects with an account of another name",
    )
    .options(options.to_vec())
}

/// The service's input from the posted text, with all errors of the form itself. When `editing`, an
/// empty field removes its setting.
fn input(
    template: &Kind_,
    typed: &FormValues,
    editing: bool,
) -> (IntegrationInput, Vec<FieldError>) {
    let mut problems = Vec::new();
    let mut config = Config::new();
    for field in template.fields.iter().filter(|field| !field.secret) {
        match typed.get(field.name).map(str::trim) {
            Some("") if editing => drop(config.insert(field.name.to_owned(), Value::Null)),
            Some("") | None => {}
            Some(text) => drop(config.insert(field.name.to_owned(), text.into())),
        }
    }
    for choice in template.choices {
        if let Some(text) = typed.non_empty(choice.name) {
            config.insert(choice.name.to_owned(), text.into());
        }
    }
    if template.key == "azure" {
        // A typed authority host wins over the choice of cloud; the public cloud needs no setting.
        let cloud = typed.text("cloud");
        if typed.non_empty("authority_host").is_none() && !cloud.is_empty() {
            if !azure::CLOUDS.iter().any(|(host, _)| *host == cloud) {
                problems.push(FieldError::new("cloud", "Choose one of the clouds."));
            } else if cloud != azure::PUBLIC_CLOUD {
                config.insert("authority_host".into(), cloud.into());
            }
        }
    }
    let name = typed.text("name").to_owned();
    if name.is_empty() {
        problems.push(FieldError::new(
            "name",
            "Enter a name. Publishers see it when they choose.",
        ));
    }
    let expires = match typed.text("secret_expires") {
        "" => None,
        text => {
            let date = Timestamp::from_iso_date(text);
            if date.is_none() {
                problems.push(FieldError::new(
                    "secret_expires",
                    "Enter a date as year-month-day, such as 2027-01-31, or leave it empty.",
                ));
            }
            date
        }
    };
    let input = IntegrationInput {
        id: typed.text("guid").parse().ok(),
        name: Some(name),
        description: Some(typed.text("description").to_owned()),
        template: Some(template.key.to_owned()),
        config,
        client_secret: typed.secret("client_secret"),
        secret_expires_at: Some(expires),
        availability: Availability::parse(typed.text("availability")),
        identity_check: IdentityCheck::parse(typed.text("identity_check")),
        listed: None,
        confirmed: typed.text("confirmed") == "yes",
    };
    (input, problems)
}

/// `POST /integrations/new`.
pub async fn create(me: SignedIn, Confirmed(typed): Confirmed) -> Result<HttpResponse, WebError> {
    must_manage(&me)?;
    let template = providers::template(typed.text("template")).ok_or(Error::NotFound)?;
    let (input, own) = input(template, &typed, false);
    let guid = input.id.unwrap_or_else(Id::random);
    if !own.is_empty() {
        // Nothing is saved, but the remaining checks run as well, so that all errors are reported
        // together.
        let mut problems = own;
        problems.extend(
            template
                .validate(&input.config, &me.service().core.policy)
                .err()
                .unwrap_or_default(),
        );
        if input.client_secret.is_none() && typed.text("auth_mode") != "Public" {
            problems.push(FieldError::new("client_secret", "Enter the client secret."));
        }
        return draw_form(
            &me,
            Subject::New(template, guid),
            Some(&typed),
            problems,
            None,
        );
    }
    match me
        .service()
        .integrations
        .create_integration(&me.actor, input)
        .await
    {
        Ok(integration) => {
            let next = match integration.availability {
                Availability::Everyone => "Publishers can choose it now.",
                Availability::Listed => "Now name who may choose it.",
                Availability::Nobody => "Only administrators can choose it.",
            };
            Ok(me.done(
                &addresses::integration(integration.id),
                format!("Saved {}. {next}", integration.display_name()),
            ))
        }
        Err(error) => draw_form(
            &me,
            Subject::New(template, guid),
            Some(&typed),
            problems_of(error)?,
            None,
        ),
    }
}

/// `GET /integrations/{guid}/edit`.
pub async fn edit_page(
    me: SignedIn,
    request: HttpRequest,
    path: web::Path<String>,
) -> Result<HttpResponse, WebError> {
    must_manage(&me)?;
    me.visitor.require_confirmation(&request)?;
    let integration = me
        .service()
        .integrations
        .integration(&me.actor, id(&path)?)
        .await?;
    let template = providers::template(&integration.template).ok_or(Error::Internal(
        "the configuration of an integration is damaged",
    ))?;
    draw_form(
        &me,
        Subject::Edit(template, &integration),
        None,
        Vec::new(),
        None,
    )
}

/// `POST /integrations/{guid}/edit`. A change that ends connections asks back first.
pub async fn edit(
    me: SignedIn,
    path: web::Path<String>,
    Confirmed(typed): Confirmed,
) -> Result<HttpResponse, WebError> {
    must_manage(&me)?;
    let guid = id(&path)?;
    let integration = me
        .service()
        .integrations
        .integration(&me.actor, guid)
        .await?;
    let template = providers::template(&integration.template).ok_or(Error::Internal(
        "the configuration of an integration is damaged",
    ))?;
    let (input, own) = input(template, &typed, true);
    if !own.is_empty() {
        return draw_form(
            &me,
            Subject::Edit(template, &integration),
            Some(&typed),
            own,
            None,
        );
    }
    match me
        .service()
        .integrations
        .update_integration(&me.actor, guid, input)
        .await
    {
        Ok(UpdateOutcome::Saved(saved)) => Ok(me.done(
            &addresses::integration(guid),
            format!("Saved {}.", saved.display_name()),
        )),
        Ok(UpdateOutcome::NeedsConfirmation(impact)) => {
            let ask = Confirmation {
                title: format!("This signs out {}", count_noun(impact.people.len() as i64, "person", "people")),
                text: "Their connections were made with the old values and end. Each is asked again on the next visit. Enter the client secret again, tick the box, and save.".into(),
                items: impact.people.iter().map(crate::domain::person::Person::display_name).collect(),
                label: "Yes, sign them out".into(),
            };
            draw_form(
                &me,
                Subject::Edit(template, &integration),
                Some(&typed),
                Vec::new(),
                Some(ask),
            )
        }
        Err(error) => draw_form(
            &me,
            Subject::Edit(template, &integration),
            Some(&typed),
            problems_of(error)?,
            None,
        ),
    }
}

/// `POST /integrations/{guid}/availability`: who may choose the integration for content.
pub async fn set_availability(
    me: SignedIn,
    path: web::Path<String>,
    Posted(typed): Posted,
) -> Result<HttpResponse, WebError> {
    must_manage(&me)?;
    let guid = id(&path)?;
    let Some(availability) = Availability::parse(typed.text("availability")) else {
        return draw_detail(
            &me,
            guid,
            vec![FieldError::new("availability", "Choose one of the three.")],
        )
        .await;
    };
    change(
        &me,
        guid,
        IntegrationInput {
            availability: Some(availability),
            ..IntegrationInput::default()
        },
        "Saved who may choose it.",
    )
    .await
}

/// `POST /integrations/{guid}/people`: adds a person or group to the list of those who may choose
/// it.
pub async fn list_principal(
    me: SignedIn,
    path: web::Path<String>,
    Posted(typed): Posted,
) -> Result<HttpResponse, WebError> {
    must_manage(&me)?;
    let guid = id(&path)?;
    let Some(new) = principal(typed.text("person")) else {
        return draw_detail(
            &me,
            guid,
            vec![FieldError::new("person", "Choose a person or a group.")],
        )
        .await;
    };
    let listed = me
        .service()
        .integrations
        .integration_list(&me.actor, guid)
        .await?
        .into_iter()
        .map(|(entry, _)| entry.principal);
    let listed: Vec<Principal> = listed.chain([new]).collect();
    change(
        &me,
        guid,
        IntegrationInput {
            listed: Some(listed),
            ..IntegrationInput::default()
        },
        "Added to the list.",
    )
    .await
}

/// `POST /integrations/{guid}/people/{number}/remove`.
pub async fn unlist(
    me: SignedIn,
    path: web::Path<(String, i64)>,
    _: Posted,
) -> Result<HttpResponse, WebError> {
    must_manage(&me)?;
    let guid = id(&path.0)?;
    let entries = me
        .service()
        .integrations
        .integration_list(&me.actor, guid)
        .await?;
    let listed = entries
        .into_iter()
        .filter(|(entry, _)| entry.number != path.1)
        .map(|(entry, _)| entry.principal)
        .collect();
    change(
        &me,
        guid,
        IntegrationInput {
            listed: Some(listed),
            ..IntegrationInput::default()
        },
        "Removed from the list.",
    )
    .await
}

/// Saves a change from the detail page; errors appear at its list.
async fn change(
    me: &SignedIn,
    guid: Id<Integration>,
    input: IntegrationInput,
    message: &str,
) -> Result<HttpResponse, WebError> {
    match me
        .service()
        .integrations
        .update_integration(&me.actor, guid, input)
        .await
    {
        Ok(_) => Ok(me.done(&addresses::integration(guid), message)),
        Err(error) => {
            let problems = problems_of(error)?
                .into_iter()
                .map(|problem| FieldError::new("person", problem.message))
                .collect();
            draw_detail(me, guid, problems).await
        }
    }
}

struct Fact {
    label: String,
    value: String,
    mono: bool,
}

#[derive(Template)]
#[template(path = "pages/integration.html")]
struct DetailPage {
    chrome: Chrome,
    base: String,
    description: String,
    service: String,
    secret: Status,
    secret_note: String,
    facts: Vec<Fact>,
    redirect: String,
    contents: Vec<NavLink>,
    people: String,
    errors: Vec<FieldError>,
    availability: Field,
    /// Whether the list applies; under other availabilities it has no effect.
    is_listed: bool,
    /// Number and name of each list entry.
    listed: Vec<(i64, String)>,
    list_fields: Vec<Field>,
}

/// `GET /integrations/{guid}`.
pub async fn detail(me: SignedIn, path: web::Path<String>) -> Result<HttpResponse, WebError> {
    must_manage(&me)?;
    draw_detail(&me, id(&path)?, Vec::new()).await
}

async fn draw_detail(
    me: &SignedIn,
    guid: Id<Integration>,
    errors: Vec<FieldError>,
) -> Result<HttpResponse, WebError> {
    let (service, now) = (me.service(), me.service().core.now());
    let integration = service.integrations.integration(&me.actor, guid).await?;
    let listed = service
        .integrations
        .integration_list(&me.actor, guid)
        .await?;
    let known: Vec<Principal> = listed.iter().map(|(entry, _)| entry.principal).collect();
    let mut list_fields = vec![principal_field(me, "Person or group", &known).await?];
    refill(&mut list_fields, None, &errors);
    let impact = service
        .integrations
        .integration_impact(&me.actor, integration.id)
        .await?;
    let template = providers::template(&integration.template).ok_or(Error::Internal(
        "the configuration of an integration is damaged",
    ))?;
    let fact = |label: &str, value: String, mono: bool| Fact {
        label: label.into(),
        value,
        mono,
    };
    let mut facts = vec![fact("Template", template.title.into(), false)];
    for field in template.fields.iter().filter(|field| !field.secret) {
        let value = integration.setting(field.name);
        if !value.is_empty() {
            facts.push(fact(field.label, value.to_owned(), true));
        }
    }
    if let Some(endpoints) = providers::endpoints(&integration).filter(|_| template.key == "azure")
    {
        facts.push(fact(
            "Authorization address",
            endpoints.authorize.to_string(),
            true,
        ));
        facts.push(fact("Token address", endpoints.token.to_string(), true));
    }
    facts.push(fact(
        "PKCE",
        if providers::uses_pkce(&integration) {
            "yes, S256".into()
        } else {
            "no".into()
        },
        false,
    ));
    facts.push(fact(
        "Another account",
        identity_words(integration.identity_check).into(),
        false,
    ));
    facts.push(fact("Identifier", integration.id.to_string(), true));
    facts.push(fact("Added", integration.created_at.absolute(), false));
    facts.push(fact("Changed", integration.updated_at.absolute(), false));
    let (secret, note) = secret_status(&integration, now);
    let secret_note = match (&integration.secret_health, integration.secret_expires_at) {
        (SecretHealth::Rejected { at, cause }, _) => format!("{cause} Since {}.", at.absolute()),
        (_, Some(end)) => format!("{note}. Expires on {}.", end.date()),
        _ => format!("{note}."),
    };
    let view = DetailPage {
        chrome: me
            .visitor
            .chrome("integrations", integration.display_name()),
        base: addresses::integration(integration.id),
        description: integration.description.clone().unwrap_or_default(),
        service: providers::names(&integration).service,
        secret,
        secret_note,
        facts,
        redirect: service.clients.redirect_uri(&integration),
        contents: impact
            .contents
            .iter()
            .map(|item| NavLink::new(addresses::content_settings(item.id), item.display_title()))
            .collect(),
        people: match impact.people.len() {
            0 => "Nobody is connected.".into(),
            number => format!(
                "{} connected.",
                count_noun(number as i64, "person is", "people are")
            ),
        },
        availability: availability_field().value(integration.availability.as_str()),
        is_listed: integration.availability == Availability::Listed,
        listed: listed
            .into_iter()
            .map(|(entry, name)| match entry.principal {
                Principal::Person(_) => (entry.number, name),
                Principal::Group(_) => (entry.number, format!("Group {name}")),
            })
            .collect(),
        list_fields,
        errors,
    };
    page_with(form_status(&view.errors), &view)
}

fn identity_words(check: IdentityCheck) -> &'static str {
    match check {
        IdentityCheck::Off => "is used",
        IdentityCheck::Warn => "is used after the person said it is theirs",
        IdentityCheck::Require => "is refused",
    }
}

/// The page that confirms deletion. If people are connected, the integration's name must be typed.
fn draw_delete(
    me: &SignedIn,
    integration: &Integration,
    impact: &Impact,
    errors: Vec<FieldError>,
) -> Result<HttpResponse, WebError> {
    let name = integration.display_name();
    let service = providers::names(integration).service;
    let mut groups = Vec::new();
    if impact.contents.is_empty() {
        groups.push(Group::new("", &["No content uses it."], Vec::new()));
    } else {
        let title = format!(
            "{} stop working with {service}",
            count_noun(
                impact.contents.len() as i64,
                "content item will",
                "content items will"
            )
        );
        groups.push(Group::new(
            &title,
            &[],
            impact
                .contents
                .iter()
                .map(|item| item.display_title().to_owned())
                .collect(),
        ));
    }
    if !impact.people.is_empty() {
        let title = format!(
            "{} signed out of it",
            count_noun(impact.people.len() as i64, "person is", "people are")
        );
        groups.push(Group::new(
            &title,
            &["Their connections and consents are deleted. A token already handed out works until it ends, for about an hour."],
            impact.people.iter().map(crate::domain::person::Person::display_name).collect(),
        ));
    }
    let mut fields = Vec::new();
    if !impact.people.is_empty() {
        fields.push(Field::text(
            "typed_name",
            &format!("To confirm, type {name}"),
        ));
    }
    refill(&mut fields, None, &errors);
    page_with(
        form_status(&errors),
        &ConfirmPage {
            chrome: me
                .visitor
                .chrome("integrations", &format!("Delete {name}?")),
            errors,
            groups,
            link: None,
            action: format!("{}/delete", addresses::integration(integration.id)),
            fields,
            submit: format!("Delete {name}"),
            cancel: addresses::integration(integration.id),
        },
    )
}

/// What happens to people whom an administrator disconnects; also used by the people pages.
pub(super) fn what_disconnecting_does() -> Group {
    Group::new(
        "What happens",
        &[
            "Their tokens are deleted here, and no content can act for them any more. Each provider that can be told is told.",
            "A token that content already holds works until it ends, an hour at most in most cases.",
            "They are asked again the next time they open content.",
        ],
        Vec::new(),
    )
}

/// `GET /integrations/{guid}/disconnect`.
pub async fn disconnect_page(
    me: SignedIn,
    path: web::Path<String>,
) -> Result<HttpResponse, WebError> {
    must_manage(&me)?;
    let integration = me
        .service()
        .integrations
        .integration(&me.actor, id(&path)?)
        .await?;
    let impact = me
        .service()
        .integrations
        .integration_impact(&me.actor, integration.id)
        .await?;
    let people: Vec<String> = impact
        .people
        .iter()
        .map(crate::domain::person::Person::display_name)
        .collect();
    let who = if people.is_empty() {
        "Nobody is connected."
    } else {
        "These are disconnected:"
    };
    let base = addresses::integration(integration.id);
    page(&ConfirmPage {
        chrome: me.visitor.chrome(
            "integrations",
            &format!("Disconnect everybody from {}?", integration.display_name()),
        ),
        errors: Vec::new(),
        groups: vec![Group::new("Who", &[who], people), what_disconnecting_does()],
        link: None,
        action: format!("{base}/disconnect"),
        fields: vec![reason_field()],
        submit: "Disconnect everybody".into(),
        cancel: base,
    })
}

/// The optional reason for ending other people's connections, for the audit record.
pub(super) fn reason_field() -> Field {
    Field::text("reason", "Why").hint("Optional. It stands in the record.")
}

/// `POST /integrations/{guid}/disconnect`: ends every connection at this integration.
pub async fn disconnect(
    me: SignedIn,
    path: web::Path<String>,
    Confirmed(typed): Confirmed,
) -> Result<HttpResponse, WebError> {
    must_manage(&me)?;
    let integration = me
        .service()
        .integrations
        .integration(&me.actor, id(&path)?)
        .await?;
    let ended = me
        .service()
        .revocations
        .disconnect_all(
            &me.actor,
            Owner::Integration(integration.id),
            typed.text("reason"),
        )
        .await?;
    let message = format!(
        "Disconnected {}.",
        count_noun(i64::try_from(ended).unwrap_or(0), "person", "people")
    );
    Ok(me.done(&addresses::integration(integration.id), message))
}

/// `GET /integrations/{guid}/delete`.
pub async fn delete_page(me: SignedIn, path: web::Path<String>) -> Result<HttpResponse, WebError> {
    must_manage(&me)?;
    let integration = me
        .service()
        .integrations
        .integration(&me.actor, id(&path)?)
        .await?;
    let impact = me
        .service()
        .integrations
        .integration_impact(&me.actor, integration.id)
        .await?;
    draw_delete(&me, &integration, &impact, Vec::new())
}

/// `POST /integrations/{guid}/delete`.
pub async fn delete(
    me: SignedIn,
    path: web::Path<String>,
    Confirmed(typed): Confirmed,
) -> Result<HttpResponse, WebError> {
    must_manage(&me)?;
    let integration = me
        .service()
        .integrations
        .integration(&me.actor, id(&path)?)
        .await?;
    let impact = me
        .service()
        .integrations
        .integration_impact(&me.actor, integration.id)
        .await?;
    if !impact.people.is_empty() && typed.text("typed_name") != integration.display_name().trim() {
        let problem = FieldError::new(
            "typed_name",
            format!("Type the name exactly: {}", integration.display_name()),
        );
        return draw_delete(&me, &integration, &impact, vec![problem]);
    }
    let gone = me
        .service()
        .integrations
        .delete_integration(&me.actor, integration.id)
        .await?;
    Ok(me.done("/integrations", format!("Deleted {}.", gone.display_name())))
}
