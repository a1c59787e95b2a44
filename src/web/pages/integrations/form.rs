//! The form of an integration, new or edited: fields from its template, and what was typed.

use crate::{
    domain::{
        Id, Timestamp, addresses,
        change::Change,
        form::FieldError,
        integration::{Availability, Config, IdentityCheck, Integration},
    },
    http::errors::WebError,
    providers::Template as ProviderTemplate,
    service::catalog::integrations::{IntegrationInput, SAME_NAME},
    web::{
        forms::{Choice, Field, FieldKind, FormValues, refill},
        pages::{
            form_status,
            integrations::{kept_secret, secret::expiry},
            page_with,
            versions::{based_on, version},
        },
        view::Chrome,
        visitor::SignedIn,
    },
};
use actix_web::HttpResponse;
use askama::Template;
use serde_json::Value;
use strum::VariantArray as _;

/// A question that must be answered to save: a change that ends connections, or a name that is taken.
pub(super) struct Confirmation {
    /// The name of its checkbox.
    pub(super) field: &'static str,
    pub(super) title: String,
    pub(super) text: String,
    pub(super) items: Vec<String>,
    pub(super) label: String,
}

#[derive(Template)]
#[template(path = "pages/integrations/form.html")]
struct FormPage {
    chrome: Chrome,
    summary: &'static str,
    errors: Vec<FieldError>,
    action: String,
    template: &'static str,
    guid: String,
    /// The version that is edited; empty for a new one.
    version: String,
    is_new: bool,
    first_title: &'static str,
    first_text: &'static str,
    redirect: String,
    /// The condition under which the integration's own redirect URI is needed, and that URI.
    own_redirect: Option<(&'static str, String)>,
    second_title: &'static str,
    second_text: &'static str,
    third_title: &'static str,
    fields: Vec<Field>,
    preset: Vec<Field>,
    /// What a pasted address told.
    said: Vec<String>,
    mistakes: &'static [(&'static str, &'static str)],
    /// People are sent to a provider, and back.
    has_redirect: bool,
    details_open: bool,
    pkce: &'static str,
    confirm: Option<Confirmation>,
    submit: &'static str,
    cancel: String,
}

/// What the form is for: a new integration, whose id is known before it is saved, or an existing one.
pub(super) enum FormTarget<'a> {
    New(&'static ProviderTemplate, Id<Integration>),
    Edit(&'static ProviderTemplate, &'a Integration),
}

/// Whether a setting is in the main list of fields; the others are under details.
fn is_main(template: &ProviderTemplate, name: &str) -> bool {
    !template.details.contains(&name)
}

/// The form of an integration. `confirm` adds a question that must be answered to save.
pub(super) async fn draw_form(
    me: &SignedIn,
    subject: FormTarget<'_>,
    typed: Option<&FormValues>,
    errors: Vec<FieldError>,
    confirm: Option<Confirmation>,
) -> Result<HttpResponse, WebError> {
    draw(me, subject, typed, errors, confirm, Vec::new()).await
}

/// The form of a new integration, filled in from a pasted address. `said`: what was found.
pub(super) async fn draw_form_with(
    me: &SignedIn,
    subject: FormTarget<'_>,
    found: &FormValues,
    said: Vec<String>,
) -> Result<HttpResponse, WebError> {
    draw(me, subject, Some(found), Vec::new(), None, said).await
}

async fn draw(
    me: &SignedIn,
    subject: FormTarget<'_>,
    typed: Option<&FormValues>,
    errors: Vec<FieldError>,
    confirm: Option<Confirmation>,
    said: Vec<String>,
) -> Result<HttpResponse, WebError> {
    let service = me.service();
    let (template, guid, existing) = match &subject {
        FormTarget::New(template, guid) => (*template, *guid, None),
        FormTarget::Edit(template, integration) => (*template, integration.id, Some(*integration)),
    };
    let (mut fields, mut preset) = (
        vec![
            Field::text("name", "Name")
                .hint("Publishers see this when they choose.")
                .value(if existing.is_none() && template.proposes_name {
                    template.short_title
                } else {
                    ""
                }),
            Field::new(FieldKind::Textarea, "description", "What is it for?")
                .hint("One sentence for publishers."),
        ],
        Vec::new(),
    );
    for field in typed_fields(template, existing, service.core.now())
        .into_iter()
        .chain(choice_fields(template, existing))
    {
        if is_main(template, &field.name) {
            fields.push(field)
        } else {
            preset.push(field)
        }
    }
    add_preset_lists(template, existing, &mut preset);
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
    if said.is_empty() {
        refill(&mut fields, typed, &errors);
        refill(&mut preset, typed, &errors);
        kept_secret::keep(me, typed, &mut fields).await?;
    } else {
        // Only what was found is filled in; the rest keeps what the template proposes.
        for field in fields.iter_mut().chain(&mut preset) {
            if let Some(value) = typed.and_then(|found| found.get(&field.name)) {
                field.value = value.to_owned();
            }
        }
    }
    let own = service.core.addresses.own_callback(guid);
    let title = match existing {
        Some(integration) => format!("Edit {}", integration.display_name()),
        None => format!("Add integration: {}", template.short_title),
    };
    let steps = &template.steps;
    let view = FormPage {
        chrome: me.visitor.chrome("integrations", &title),
        summary: template.summary,
        action: existing.map_or_else(
            || "/integrations/new".to_owned(),
            |integration| format!("{}/edit", addresses::integration(integration.id)),
        ),
        template: template.key,
        guid: guid.to_string(),
        version: existing.map_or_else(String::new, |known| version(typed, known.updated_at)),
        is_new: existing.is_none(),
        first_title: steps.register.0,
        first_text: steps.register.1,
        redirect: match existing {
            Some(integration) => service.clients.redirect_uri(integration),
            None if steps.shared_redirect.is_some() => service.core.addresses.shared_callback(),
            None => own.clone(),
        },
        own_redirect: match existing {
            Some(_) => None,
            None => steps.shared_redirect.map(|when| (when, own)),
        },
        second_title: steps.allow.0,
        second_text: steps.allow.1,
        third_title: steps.paste,
        said,
        mistakes: template.mistakes,
        has_redirect: template.has_redirect(
            existing.map_or(template.auth_types[0], |integration| integration.auth_type),
        ),
        details_open: preset.iter().any(|field| field.error.is_some())
            || template.presets.iter().any(|list| {
                existing.is_some_and(|integration| !integration.setting(list.fills).is_empty())
            }),
        pkce: steps.pkce,
        fields,
        preset,
        confirm,
        submit: if existing.is_some() {
            "Save changes"
        } else {
            "Save integration"
        },
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

/// The settings that are typed. The date on which a secret expires follows its field.
fn typed_fields(
    template: &ProviderTemplate,
    existing: Option<&Integration>,
    now: Timestamp,
) -> Vec<Field> {
    let mut fields = Vec::new();
    for field in template.fields {
        if !field.secret {
            fields.push(
                Field::text(field.name, field.label)
                    .hint(field.hint)
                    .mono()
                    .value(existing.map_or(field.default, |known| known.setting(field.name))),
            );
            continue;
        }
        let set = existing.and_then(|known| known.secret_set_at.map(|at| (known, at)));
        let hint = match set {
            Some((known, at)) => format!(
                "Secret set {} by {}. Leave empty to keep it.",
                at.relative(now),
                known.secret_set_by.as_deref().unwrap_or("somebody")
            ),
            None => field.hint.to_owned(),
        };
        let expires = existing
            .and_then(|known| known.secret_expires_at)
            .map(Timestamp::iso_date)
            .unwrap_or_default();
        fields.push(
            Field::new(FieldKind::Secret, field.name, field.label)
                .hint(hint)
                .mono()
                .autocomplete("off"),
        );
        fields.push(
            Field::new(FieldKind::Date, "secret_expires", "The secret expires on")
                .hint("Optional. The list of integrations warns you before.")
                .value(expires),
        );
    }
    fields
}

/// The settings with a fixed list of values. A choice with a single value is not shown.
fn choice_fields(template: &ProviderTemplate, existing: Option<&Integration>) -> Vec<Field> {
    let shown = template
        .choices
        .iter()
        .filter(|choice| choice.values.len() > 1);
    shown
        .map(|choice| {
            let options = choice
                .values
                .iter()
                .map(|(value, label)| Choice::new(*value, *label, ""))
                .collect();
            let stored = existing
                .and_then(|known| known.config.get(choice.name))
                .map(|value| match value {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                });
            Field::new(FieldKind::Radio, choice.name, choice.label)
                .hint(choice.hint)
                .options(options)
                .value(stored.unwrap_or_else(|| choice.default.into()))
        })
        .collect()
}

/// Puts the lists of usual values before the details. If the stored value is in
/// the list, the text field is empty.
fn add_preset_lists(
    template: &ProviderTemplate,
    existing: Option<&Integration>,
    preset: &mut Vec<Field>,
) {
    for list in template.presets {
        let options = list
            .values
            .iter()
            .map(|(value, label)| Choice::new(*value, *label, *value))
            .collect();
        let stored = existing.map_or("", |known| known.setting(list.fills));
        let listed = list.values.iter().any(|(value, _)| *value == stored);
        let default = list.values.first().map_or("", |(value, _)| value);
        preset.insert(
            0,
            Field::new(FieldKind::Radio, list.name, list.label)
                .options(options)
                .value(if listed { stored } else { default }),
        );
        if listed && let Some(field) = preset.iter_mut().find(|field| field.name == list.fills) {
            field.value.clear();
        }
    }
}

pub(super) fn availability_field() -> Field {
    let options = Availability::VARIANTS.iter().map(|known| match known {
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
    .options(options.collect())
}

fn identity_field() -> Field {
    let options = IdentityCheck::VARIANTS.iter().map(|known| match known {
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
        "If the connected account has a different name",
    )
    .options(options.collect())
}

/// The service's input from the posted text, with all errors found without the service. When
/// editing (`stored`), an empty text field removes its setting.
pub(super) fn input(
    template: &ProviderTemplate,
    typed: &FormValues,
    stored: Option<&Integration>,
    now: Timestamp,
) -> (IntegrationInput, Vec<FieldError>) {
    let editing = stored.is_some();
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
    for list in template.presets {
        // A typed value overrides the list. The default is not stored.
        let chosen = typed.text(list.name);
        if typed.non_empty(list.fills).is_none() && !chosen.is_empty() {
            match list.values.iter().position(|(value, _)| *value == chosen) {
                None => problems.push(FieldError::new(list.name, list.problem)),
                Some(0) => {}
                Some(_) => drop(config.insert(list.fills.into(), chosen.into())),
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
    let (expires, mut problem) = expiry(typed, now);
    if expires.is_some() && stored.is_some_and(|known| known.secret_expires_at == expires) {
        // It was entered before, when it was not past.
        problem.clear();
    }
    problems.extend(problem);
    let input = IntegrationInput {
        id: typed.text("guid").parse().ok(),
        name: Some(name),
        description: Some(typed.text("description").to_owned()),
        template: Some(template.key.to_owned()),
        config,
        client_secret: typed.secret("client_secret"),
        secret_expires_at: Change::to(expires),
        availability: Availability::parse(typed.text("availability")),
        identity_check: IdentityCheck::parse(typed.text("identity_check")),
        listed: None,
        confirmed: typed.text("confirmed") == "yes",
        same_name: typed.text(SAME_NAME) == "yes",
        paused: None,
        based_on: based_on(typed),
    };
    (input, problems)
}
