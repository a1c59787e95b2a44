//! The form of an integration, new or edited: fields from its template, and what was typed.

use crate::{
    domain::{
        Id, Timestamp, addresses,
        form::FieldError,
        integration::{Availability, Config, IdentityCheck, Integration},
    },
    http::errors::WebError,
    providers::{Template as Kind_, azure},
    service::catalog::integrations::IntegrationInput,
    web::{
        forms::{Choice, Field, FieldKind, FormValues, refill},
        pages::{form_status, page_with},
        view::Chrome,
        visitor::SignedIn,
    },
};
use actix_web::HttpResponse;
use askama::Template;
use serde_json::Value;

/// The question before a change that signs people out.
pub(super) struct Confirmation {
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
pub(super) enum Subject<'a> {
    New(&'static Kind_, Id<Integration>),
    Edit(&'static Kind_, &'a Integration),
}

/// Whether a setting is in the main list of fields; the others are under details.
fn is_main(template: &Kind_, name: &str) -> bool {
    !(template.key == "azure" && matches!(name, "scopes" | "authority_host" | "auth_mode"))
        && name != "auth_type"
}

/// The form of an integration. `confirm` adds a question that must be answered to save.
pub(super) fn draw_form(
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

pub(super) fn availability_field() -> Field {
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
pub(super) fn input(
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
