//! `GET /integrations/{guid}`: one integration with its facts, and who may choose it.

use crate::{
    domain::{
        Id, addresses,
        form::FieldError,
        group::Principal,
        integration::{AuthType, Availability, IdentityCheck, Integration, SecretHealth},
    },
    http::errors::WebError,
    providers::{self, ClientAuthentication},
    service::{Error, Services, core::must_manage_integrations, grants::issuer::PortalToken},
    web::{
        error_pages::allow_forms_to,
        forms::Field,
        health::{HealthLine, exchange_lines, integration_trouble, sort},
        listing::Picker,
        pages::{
            form_status, id,
            integrations::{
                check::{self, LastCheck},
                form::availability_field,
                list::secret_status,
                tabs::integration_tabs,
            },
            page_with, principal_picker,
        },
        plot::Range,
        view::{Chrome, NavLink, Status, Tab, count_noun},
        visitor::SignedIn,
    },
};
use actix_web::{
    HttpResponse,
    http::header::{self, HeaderValue},
    web,
};
use askama::Template;

struct Fact {
    label: String,
    value: String,
    mono: bool,
}

#[derive(Template)]
#[template(path = "pages/integrations/show.html")]
struct DetailPage {
    chrome: Chrome,
    base: String,
    description: String,
    service: String,
    tabs: Vec<Tab>,
    health: Vec<HealthLine>,
    is_paused: bool,
    /// There is a client secret that can be replaced.
    has_secret: bool,
    secret: Status,
    secret_note: String,
    /// What the last check found.
    check: Vec<HealthLine>,
    checked: Option<LastCheck>,
    /// There is a provider to sign in at.
    may_test: bool,
    facts: Vec<Fact>,
    identifier: String,
    /// Empty where nobody is sent to a provider.
    redirect: String,
    /// What the service has to be told to trust this portal: label and value.
    federation: Vec<(&'static str, &'static str, String)>,
    contents: Vec<NavLink>,
    /// Connections that are unusable and still to be deleted.
    ending: i64,
    people: String,
    errors: Vec<FieldError>,
    availability: Field,
    /// Whether the list applies; under other availabilities it has no effect.
    is_listed: bool,
    /// Number and name of each list entry.
    listed: Vec<(i64, String)>,
    permit: Picker,
}

/// `GET /integrations/{guid}`.
pub async fn detail(me: SignedIn, path: web::Path<String>) -> Result<HttpResponse, WebError> {
    must_manage_integrations(&me.actor)?;
    draw_detail(&me, id(&path)?, Vec::new()).await
}

pub(super) async fn draw_detail(
    me: &SignedIn,
    guid: Id<Integration>,
    errors: Vec<FieldError>,
) -> Result<HttpResponse, WebError> {
    let (service, now) = (me.service(), me.now());
    let integration = service.integrations.integration(&me.actor, guid).await?;
    let listed = service
        .integrations
        .integration_list(&me.actor, guid)
        .await?;
    let known: Vec<Principal> = listed.iter().map(|(entry, _)| entry.principal).collect();
    let base = addresses::integration(integration.id);
    let permit = principal_picker(me, &base, "who-title", &known, &errors).await?;
    let contents = service
        .integrations
        .contents_of_integration(&me.actor, integration.id)
        .await?;
    let ending = service.revocations.connections_ending(guid).await?;
    let template = providers::template(&integration.template).ok_or(Error::Internal(
        "the configuration of an integration is damaged",
    ))?;
    let fact = |label: &str, value: String, mono: bool| Fact {
        label: label.into(),
        value,
        mono,
    };
    let mut facts = vec![fact("Template", template.title.into(), false)];
    let shown = template
        .fields
        .iter()
        .filter(|field| !field.secret && field.applies(integration.auth_type));
    for field in shown {
        let value = integration.setting(field.name);
        if !value.is_empty() {
            facts.push(fact(field.label, value.to_owned(), true));
        }
    }
    let for_people = template.has_redirect(integration.auth_type);
    if let Some(endpoints) =
        providers::endpoints(&integration).filter(|_| !template.types_addresses())
    {
        if for_people {
            facts.push(fact(
                "Authorization address",
                endpoints.authorize.to_string(),
                true,
            ));
        }
        facts.push(fact("Token address", endpoints.token.to_string(), true));
    }
    facts.push(fact(
        "Acts as",
        acts_as(integration.auth_type).into(),
        false,
    ));
    if for_people {
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
    }
    facts.push(fact("Added", now.absolute(integration.created_at), false));
    facts.push(fact("Changed", now.absolute(integration.updated_at), false));
    let range = Range::Day;
    let sums = service
        .activity
        .of_integration(&me.actor, guid, range.since(*now), range.step())
        .await?;
    let mut health = exchange_lines(&sums, now);
    health.extend(integration_trouble(service, &integration, now));
    sort(&mut health);
    let used = service.integrations.integration_usage(&me.actor).await?;
    let used = used.get(&guid).cloned().unwrap_or_default();
    let (secret, note) = secret_status(&integration, now);
    let secret_note = match (&integration.secret_health, integration.secret_expires_at) {
        (SecretHealth::Rejected { at, cause }, _) => {
            format!("{cause} Since {}.", now.absolute(*at))
        }
        (_, Some(end)) => format!("{note}. Expires on {}.", now.date(end)),
        _ => format!("{note}."),
    };
    let checks = service
        .integrations
        .last_checks(&me.actor, Some(guid))
        .await?;
    let found = checks.get(&guid);
    let may_test = for_people;
    let view = DetailPage {
        check: found.map(check::lines).unwrap_or_default(),
        checked: found.map(|result| LastCheck::new(result, now)),
        may_test,
        federation: federation(service, &integration),
        chrome: me
            .visitor
            .chrome("integrations", integration.display_name()),
        base,
        description: integration.description.clone().unwrap_or_default(),
        service: providers::names(&integration).service,
        tabs: integration_tabs(guid, ""),
        health,
        is_paused: integration.paused_at.is_some(),
        has_secret: integration.secret_set_at.is_some(),
        identifier: integration.id.to_string(),
        secret,
        secret_note,
        facts,
        redirect: if may_test {
            service.clients.redirect_uri(&integration)
        } else {
            String::new()
        },
        contents: contents
            .iter()
            .map(|item| NavLink::new(addresses::content_settings(item.id), item.display_title()))
            .collect(),
        ending,
        people: match used.people {
            0 => "Nobody is connected.".into(),
            number => format!(
                "{} connected.",
                count_noun(number, "person is", "people are")
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
        permit,
        errors,
    };
    let mut response = page_with(form_status(&view.errors), &view)?;
    if may_test && let Some(endpoints) = providers::endpoints(&integration) {
        // The test sign-in is a form that leads there.
        allow_forms_to(
            &mut response,
            &[endpoints.authorize.origin().ascii_serialization()],
        );
    }
    if ending > 0 {
        // Shows the progress, with or without JavaScript.
        let refresh = HeaderValue::from_static("2");
        response.headers_mut().insert(header::REFRESH, refresh);
    }
    Ok(response)
}

/// What the service has to be told to trust this portal, where the integration proves itself by that.
fn federation(
    service: &Services,
    integration: &Integration,
) -> Vec<(&'static str, &'static str, String)> {
    if providers::client_authentication(integration) != ClientAuthentication::Federated {
        return Vec::new();
    }
    let token = PortalToken::of(integration);
    vec![
        ("issuer", "Issuer", service.issuer.name().to_owned()),
        ("subject", "Subject", token.subject),
        ("audience", "Audience", token.audience),
    ]
}

fn acts_as(auth_type: AuthType) -> &'static str {
    match auth_type {
        AuthType::Viewer => "the person who looks at the content",
        AuthType::ServiceAccount => "a service account: everybody sees the same",
        AuthType::VisitorApiKey => "the person who looks at the content, at this portal",
    }
}

fn identity_words(check: IdentityCheck) -> &'static str {
    match check {
        IdentityCheck::Off => "is used",
        IdentityCheck::Warn => "is used after the person said it is theirs",
        IdentityCheck::Require => "is refused",
    }
}
