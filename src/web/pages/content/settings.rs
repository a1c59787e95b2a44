//! `/content-settings/{guid}`: everything about one item; saves its own fields.

use crate::{
    domain::{
        access, addresses,
        content::{AccessType, Content, ContentRole, Permission},
        form::FieldError,
        group::Principal,
        integration::{Association, AuthType, Integration},
    },
    http::errors::WebError,
    providers,
    service::{Error, catalog::content::VisibleContent},
    web::{
        confirmation::Confirmed,
        forms::{Choice, Field, FieldKind, FormValues, refill},
        health::{HealthLine, integration_trouble},
        listing::{ChoiceSearch, PICKER_ROWS, Picker},
        pages::{
            choices,
            content::{
                form::{
                    addresses_text, checkbox_value, deployed_fields, elsewhere_fields, input,
                    number, processes, proxy_fields, with_address_problem,
                },
                health::content_health,
                key::environment,
                processes::{ProcessRow, process_rows, viewers_at_removed_processes},
                tabs::content_tabs,
            },
            form_status, id, page_with, principal_picker, problems_of,
            versions::{differences, version},
        },
        view::{Chrome, Moment, Tab, count_noun},
        visitor::{Posted, SignedIn},
    },
};
use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;

struct Attached {
    service: String,
    provider: String,
    capabilities: Vec<String>,
    offline: bool,
}

/// A service account at a service at which the item also acts for viewers.
struct BesideViewers {
    guid: String,
    name: String,
    service: String,
    allowed: bool,
}

/// An integration that can be chosen.
struct IntegrationChoice {
    guid: String,
    name: String,
    service: String,
    description: String,
    /// Attached, but no longer available to this reader: once another one is saved, it cannot be
    /// chosen again.
    kept_only: bool,
    is_attached: bool,
    /// What is wrong with it.
    trouble: Option<HealthLine>,
}

/// A person who asks to be let in.
struct RequestRow {
    person: String,
    href: String,
    at: Moment,
}

struct Listed {
    number: i64,
    person: String,
    role: &'static str,
}

#[derive(Template)]
#[template(path = "pages/content/settings.html")]
struct SettingsPage {
    chrome: Chrome,
    errors: Vec<FieldError>,
    base: String,
    title: String,
    owner: String,
    description: String,
    may_open: bool,
    /// The app runs here, and gets its environment from the portal.
    runs_here: bool,
    open: String,
    choices: Vec<IntegrationChoice>,
    /// There are too many integrations to show them all.
    integration_search: Option<ChoiceSearch>,
    attached: Vec<Attached>,
    attached_names: String,
    beside_viewers: Vec<BesideViewers>,
    several: bool,
    environment: String,
    key_made: Option<Moment>,
    tabs: Vec<Tab>,
    health: Vec<HealthLine>,
    /// How many people have consented.
    consents: String,
    access: &'static str,
    listed: Vec<Listed>,
    requests: Vec<RequestRow>,
    permit: Picker,
    /// The version that the form is based on.
    version: String,
    fields: Vec<Field>,
    proxy_fields: Vec<Field>,
    /// The proxy settings are unfolded, since a field in them has an error.
    proxy_open: bool,
    /// See [`viewers_at_removed_processes`].
    unplaced: Option<String>,
    processes: Vec<ProcessRow>,
    several_processes: bool,
    leaks: Vec<LeakRow>,
}

/// A viewer whose session token was used while they were absent.
struct LeakRow {
    person: String,
    words: &'static str,
    first: Moment,
    last: Moment,
    times: String,
}

/// The settings page, with the posted values and errors if there are any.
pub(super) async fn draw_settings(
    me: &SignedIn,
    seen: VisibleContent,
    typed: Option<&FormValues>,
    errors: Vec<FieldError>,
) -> Result<HttpResponse, WebError> {
    let (service, now) = (me.service(), me.now());
    let item = &seen.content;
    let visits = service.presence.visits(item.id).await?;
    let choices = if access::may_see_integrations(me.actor.role) {
        service.integrations.integrations(&me.actor).await?
    } else {
        Vec::new()
    };
    let associations = service.contents.associations(&me.actor, item.id).await?;
    let keys = service.api_keys.content_keys(&me.actor, item.id).await?;
    let consents = service.contents.consent_counts(&me.actor, item.id).await?;
    let processes = process_rows(service, item, &visits, now).await;
    let health = content_health(me, item, &associations, &processes).await?;
    let listed = service
        .contents
        .permissions_with_names(&me.actor, item.id)
        .await?;
    let mut fields = match item.bundle {
        Some(_) => deployed_fields(),
        None => elsewhere_fields(&service.core.settings),
    };
    let mut proxy_fields = proxy_fields();
    let stored = stored_values(item);
    refill(&mut fields, Some(typed.unwrap_or(&stored)), &errors);
    refill(&mut proxy_fields, Some(typed.unwrap_or(&stored)), &errors);
    let known: Vec<Principal> = listed
        .iter()
        .map(|(entry, _)| entry.principal)
        .chain([Principal::Person(item.owner)])
        .collect();
    let base = addresses::content_settings(item.id);
    let (integration_search, offered) = offered_integrations(
        ChoiceSearch::new(
            &me.visitor.asked,
            &base,
            "integration-title",
            (choices::INTEGRATIONS, "Search integrations"),
        ),
        choice_list(me, &choices, &associations),
    );
    let mut permit = principal_picker(me, &base, "access-title", &known, &errors).await?;
    permit.more = vec![Field::new(FieldKind::Select, "role", "May").options(vec![
        Choice::new("viewer", "open it", ""),
        Choice::new("owner", "open and edit it (publishers)", ""),
    ])];
    refill(&mut permit.more, None, &errors);
    let view = SettingsPage {
        chrome: me.visitor.chrome("content", item.display_title()),
        title: item.display_title().to_owned(),
        owner: seen.owner.display_name(),
        description: item.description.clone(),
        may_open: access::may_open(seen.standing) && item.has_app(),
        runs_here: item.bundle.is_some(),
        open: addresses::app(item.id),
        integration_search,
        choices: offered,
        attached_names: associations
            .iter()
            .map(|(_, integration)| integration.display_name().to_owned())
            .collect::<Vec<_>>()
            .join(", "),
        beside_viewers: beside_viewers(&associations),
        several: associations.len() > 1,
        attached: associations
            .iter()
            .map(|(_, integration)| attached(integration))
            .collect(),
        environment: environment(service.core.addresses.base(), item.id)
            .replace("{key}", "<the content key>"),
        key_made: keys.last().map(|key| Moment::new(key.created_at, now)),
        tabs: content_tabs(item.id, ""),
        health,
        consents: match consents.values().sum::<i64>() {
            0 => "Nobody yet. Viewers are asked when they open this content.".into(),
            count => format!("{}.", count_noun(count, "consent", "consents")),
        },
        access: access_sentence(item.access),
        listed: listed.iter().map(listed_row).collect(),
        requests: service
            .contents
            .access_requests(&me.actor, item.id)
            .await?
            .into_iter()
            .map(|(person, at)| RequestRow {
                person: person.name_and_username(),
                href: format!("{base}/requests/{}", person.id),
                at: Moment::new(at, now),
            })
            .collect(),
        permit,
        version: version(typed, item.updated_at),
        fields,
        proxy_open: proxy_fields.iter().any(|field| field.error.is_some()),
        proxy_fields,
        unplaced: viewers_at_removed_processes(item, &visits, *now),
        processes,
        several_processes: item.processes.len() > 1,
        leaks: service
            .leaks
            .leaks(&me.actor, item.id)
            .await?
            .into_iter()
            .map(|(leak, person)| LeakRow {
                person: person.display_name(),
                words: leak.kind.words(),
                first: Moment::new(leak.first_at, now),
                last: Moment::new(leak.last_at, now),
                times: count_noun(leak.times, "time", "times"),
            })
            .collect(),
        base,
        errors,
    };
    page_with(form_status(&view.errors), &view)
}

/// What the fields show before anything is typed.
fn stored_values(item: &Content) -> FormValues {
    FormValues(vec![
        (
            "title".into(),
            item.title.clone().unwrap_or_else(|| item.name.clone()),
        ),
        ("description".into(), item.description.clone()),
        ("upstream_url".into(), addresses_text(&item.processes)),
        (
            "connection_timeout".into(),
            number(item.proxying.connect_seconds),
        ),
        (
            "init_timeout".into(),
            number(item.proxying.first_byte_seconds),
        ),
        ("read_timeout".into(), number(item.proxying.idle_seconds)),
        (
            "keep_prefix".into(),
            checkbox_value(item.proxying.keep_prefix),
        ),
        (
            "reconnect_bar".into(),
            checkbox_value(item.proxying.reconnect_bar),
        ),
        (
            "portal_link".into(),
            checkbox_value(item.proxying.portal_link),
        ),
        (
            "upstream_ca".into(),
            item.proxying.ca.clone().unwrap_or_default(),
        ),
        (
            "allowed_origins".into(),
            item.proxying.allowed_origins.join("\n"),
        ),
        ("pass_headers".into(), item.proxying.pass_headers.join("\n")),
        ("access_type".into(), item.access.as_str().into()),
    ])
}

/// What an attached integration lets the app do.
fn attached(integration: &Integration) -> Attached {
    let names = providers::names(integration);
    Attached {
        service: names.service,
        provider: names.provider,
        capabilities: providers::capabilities(integration),
        offline: providers::asks_for_refresh_token(integration),
    }
}

/// The service accounts that content may use only if its owner allows it.
fn beside_viewers(associations: &[(Association, Integration)]) -> Vec<BesideViewers> {
    let attached = || associations.iter().map(|(_, integration)| integration);
    associations
        .iter()
        .filter(|(_, integration)| {
            integration.auth_type == AuthType::ServiceAccount
                && providers::may_act_for_viewers_there(attached(), integration)
        })
        .map(|(entry, integration)| BesideViewers {
            guid: integration.id.to_string(),
            name: integration.display_name().to_owned(),
            service: providers::names(integration).service,
            allowed: entry.beside_viewers,
        })
        .collect()
}

/// The integrations to choose from. An attached one stays in the list, even if the reader may not
/// choose it any more.
fn choice_list(
    me: &SignedIn,
    choices: &[Integration],
    associations: &[(Association, Integration)],
) -> Vec<IntegrationChoice> {
    let offered =
        |integration: &Integration| choices.iter().any(|choice| choice.id == integration.id);
    let kept = associations
        .iter()
        .map(|(_, integration)| integration)
        .filter(|integration| !offered(integration));
    choices
        .iter()
        .chain(kept)
        .map(|integration| IntegrationChoice {
            guid: integration.id.to_string(),
            name: integration.display_name().to_owned(),
            service: providers::names(integration).service,
            description: integration.description.clone().unwrap_or_default(),
            trouble: integration_trouble(me.service(), integration, me.now()),
            kept_only: !offered(integration),
            is_attached: associations.iter().any(|(_, one)| one.id == integration.id),
        })
        .collect()
}

/// All integrations, if they are few; else the attached ones and those that are found, with the
/// search.
fn offered_integrations(
    mut search: ChoiceSearch,
    all: Vec<IntegrationChoice>,
) -> (Option<ChoiceSearch>, Vec<IntegrationChoice>) {
    if all.len() <= PICKER_ROWS {
        return (None, all);
    }
    let (mut offered, others): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|choice| choice.is_attached);
    offered.extend(search.run(others, |choice| {
        format!("{} {} {}", choice.name, choice.service, choice.description)
    }));
    (Some(search), offered)
}

fn access_sentence(access: AccessType) -> &'static str {
    match access {
        AccessType::All => "Anyone, even without signing in.",
        AccessType::LoggedIn => {
            "Everyone who is signed in. Whoever is on the list may do more if it says so."
        }
        AccessType::Acl => "Only the owner and the people and groups on this list.",
    }
}

fn listed_row((permission, name): &(Permission, String)) -> Listed {
    Listed {
        number: permission.number,
        person: match permission.principal {
            Principal::Person(_) => name.clone(),
            Principal::Group(_) => format!("Group {name}"),
        },
        role: if permission.role == ContentRole::Viewer {
            "open it"
        } else {
            "open and edit it"
        },
    }
}

/// `GET /content-settings/{guid}`.
pub async fn settings_page(
    me: SignedIn,
    path: web::Path<String>,
) -> Result<HttpResponse, WebError> {
    let seen = me
        .service()
        .contents
        .editable_content(&me.actor, id(&path)?)
        .await?;
    draw_settings(&me, seen, None, Vec::new()).await
}

/// `POST /content-settings/{guid}`. Needs confirmation only if the processes change.
pub async fn save_settings(
    me: SignedIn,
    request: HttpRequest,
    path: web::Path<String>,
    Posted(mut typed): Posted,
) -> Result<HttpResponse, WebError> {
    let guid = id(&path)?;
    let seen = me
        .service()
        .contents
        .editable_content(&me.actor, guid)
        .await?;
    if typed.get("upstream_url").is_some()
        && processes(&typed, &seen.content.processes) != seen.content.processes
    {
        // Viewers' session tokens are sent to these addresses.
        Confirmed(typed) = Confirmed::check(&me, &request, typed).await?;
    }
    let input = match input(&typed, &seen.content.processes) {
        Ok(input) => input,
        Err(problems) => {
            let problems = with_address_problem(&me, &typed, problems);
            return draw_settings(&me, seen, Some(&typed), problems).await;
        }
    };
    match me
        .service()
        .contents
        .update_content(&me.actor, guid, input)
        .await
    {
        Ok(seen) => Ok(me.done(
            &addresses::content_settings(guid),
            format!("Saved {}.", seen.content.display_title()),
        )),
        Err(changed @ Error::ChangedMeanwhile(_)) => {
            let now = me
                .service()
                .contents
                .editable_content(&me.actor, guid)
                .await?;
            let problem = differences(&changed, &stored_values(&now.content), &mut typed);
            draw_settings(&me, now, Some(&typed), vec![problem]).await
        }
        Err(error) => draw_settings(&me, seen, Some(&typed), problems_of(error)?).await,
    }
}
