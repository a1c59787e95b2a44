//! `/integrations/{guid}/secret`: replaces the client secret, and nothing else. The one before is kept
//! until the new one has worked, so nobody is signed out.

use crate::{
    domain::{Timestamp, addresses, change::Change, form::FieldError, integration::Integration},
    http::errors::WebError,
    providers,
    service::{Error, catalog::integrations::IntegrationInput, core::must_manage_integrations},
    web::{
        confirmation::Confirmed,
        forms::{Field, FieldKind, FormValues, refill},
        pages::{
            FormPage, PATIENCE, form_status, id, integrations::kept_secret, page_with, problems_of,
        },
        visitor::SignedIn,
    },
};
use actix_web::{HttpRequest, HttpResponse, web};

async fn draw(
    me: &SignedIn,
    integration: &Integration,
    typed: Option<&FormValues>,
    errors: Vec<FieldError>,
) -> Result<HttpResponse, WebError> {
    let template = providers::template(&integration.template).ok_or(Error::Internal(
        "the configuration of an integration is damaged",
    ))?;
    let secret = template.fields.iter().find(|field| field.secret);
    let (label, hint) = secret.map_or(("Client secret", ""), |field| (field.label, field.hint));
    let mut fields = vec![
        Field::new(FieldKind::Secret, "client_secret", label)
            .hint(hint)
            .mono(),
        Field::new(FieldKind::Date, "secret_expires", "The secret expires on")
            .hint("Optional. The list of integrations warns you before."),
    ];
    refill(&mut fields, typed, &errors);
    kept_secret::keep(me, typed, &mut fields).await?;
    let base = addresses::integration(integration.id);
    let title = format!("Replace the secret of {}", integration.display_name());
    let view = FormPage {
        chrome: me.visitor.chrome("integrations", &title),
        intro: "Make a new one at the provider, then enter it here. The old one goes on being used where the new one is refused, until the new one has worked once: nobody is signed out.".into(),
        action: format!("{base}/secret"),
        submit: "Replace secret".into(),
        cancel: base,
        fields,
        errors,
    };
    page_with(form_status(&view.errors), &view)
}

/// `GET /integrations/{guid}/secret`.
pub async fn secret_page(
    me: SignedIn,
    request: HttpRequest,
    path: web::Path<String>,
) -> Result<HttpResponse, WebError> {
    must_manage_integrations(&me.actor)?;
    me.visitor.require_confirmation(&request)?;
    let integrations = &me.service().integrations;
    let integration = integrations.integration(&me.actor, id(&path)?).await?;
    draw(&me, &integration, None, Vec::new()).await
}

/// `POST /integrations/{guid}/secret`.
pub async fn replace_secret(
    me: SignedIn,
    path: web::Path<String>,
    Confirmed(mut typed): Confirmed,
) -> Result<HttpResponse, WebError> {
    must_manage_integrations(&me.actor)?;
    kept_secret::take(&me, &mut typed).await?;
    let integrations = &me.service().integrations;
    let integration = integrations.integration(&me.actor, id(&path)?).await?;
    let (expires, mut problems) = expiry(&typed, *me.now());
    let secret = typed.secret("client_secret");
    if secret.is_none() {
        problems.push(FieldError::new("client_secret", "Enter the new secret."));
    }
    if !problems.is_empty() {
        return draw(&me, &integration, Some(&typed), problems).await;
    }
    let input = IntegrationInput {
        client_secret: secret,
        secret_expires_at: Change::to(expires),
        ..IntegrationInput::default()
    };
    match integrations
        .update_integration(&me.actor, integration.id, input, PATIENCE)
        .await
    {
        Ok(_) => Ok(me.done(
            &addresses::integration(integration.id),
            format!(
                "Replaced the secret of {}. Whether it works shows at the next sign-in or refresh.",
                integration.display_name()
            ),
        )),
        Err(error) => draw(&me, &integration, Some(&typed), problems_of(error)?).await,
    }
}

/// The typed date on which a secret expires, and what is wrong with it.
pub(super) fn expiry(typed: &FormValues, now: Timestamp) -> (Option<Timestamp>, Vec<FieldError>) {
    const FIELD: &str = "secret_expires";
    let text = typed.text(FIELD);
    if text.is_empty() {
        return (None, Vec::new());
    }
    let problem = |message: &str| vec![FieldError::new(FIELD, message)];
    match Timestamp::from_iso_date(text) {
        None => (
            None,
            problem("Enter a date as year-month-day, such as 2027-01-31, or leave it empty."),
        ),
        Some(date) if date < now => (
            Some(date),
            problem(
                "This date is in the past: a secret that has expired does not work. Enter the date on which the new one ends, or leave it empty.",
            ),
        ),
        Some(date) => (Some(date), Vec::new()),
    }
}
