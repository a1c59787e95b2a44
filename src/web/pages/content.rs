//! `/content`, `/content/new`, `/content-settings/{guid}` and below.

use super::{ConfirmPage, FormPage, Group, form_status, id, page, page_with, principal, principal_field, problems_of};
use crate::{
    domain::{
        Id, access, addresses,
        content::{AccessType, Content, ContentRole},
        group::Principal,
        integration::Integration,
        person::Role,
    },
    providers::{self, Problem},
    service::contents::{ContentInput, Seen},
    web::{
        confirmation::Confirmed,
        forms::{Choice, Field, Kind, Typed, refill},
        problems::WebError,
        shown_once::{self, Shown},
        view::{Chrome, Moment, count},
        visitor::{Me, Posted, see_other},
    },
};
use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use askama::Template;

struct Row {
    title: String,
    description: String,
    owner: String,
    href: String,
    settings: String,
    uses: String,
    changed: Moment,
    may_open: bool,
    may_edit: bool,
    has_upstream: bool,
}

#[derive(Template)]
#[template(path = "pages/content.html")]
struct ListPage {
    chrome: Chrome,
    rows: Vec<Row>,
    may_add: bool,
}

pub async fn list(me: Me) -> Result<HttpResponse, WebError> {
    let (service, now) = (me.service(), me.service().now());
    let mut seen = service.contents(&me.actor).await?;
    // Publishers see theirs first.
    seen.sort_by_key(|item| (std::cmp::Reverse(item.standing), item.content.display_title().to_lowercase()));
    let mut rows = Vec::new();
    for item in seen {
        let attached = service.associations(&me.actor, item.content.id).await?;
        let names: Vec<String> = attached.iter().map(|(_, integration)| providers::names(integration).service).collect();
        rows.push(Row {
            title: item.content.display_title().to_owned(),
            description: item.content.description.clone(),
            owner: item.owner.display_name(),
            href: addresses::app(item.content.id),
            settings: addresses::content_settings(item.content.id),
            uses: names.join(", "),
            changed: Moment::new(item.content.updated_at, now),
            may_open: access::may_open(item.standing),
            may_edit: item.may_edit,
            has_upstream: item.content.upstream.is_some(),
        });
    }
    page(&ListPage { chrome: me.visitor.chrome("content", "Content"), rows, may_add: access::may_create_content(me.actor.role) })
}

fn fields() -> Vec<Field> {
    vec![
        Field::text("title", "Title").hint("What people see in the list and on the consent page."),
        Field::new(Kind::Textarea, "description", "Description").hint("One or two sentences."),
        Field::text("upstream_url", "Address of the running app")
            .hint("Where this server reaches the app, such as http://10.0.0.5:8501. Private addresses must be allowed by the operator.")
            .mono(),
        Field::new(Kind::Radio, "access_type", "Who may open it").value("acl").options(vec![
            Choice::new("logged_in", "Everyone who is signed in", ""),
            Choice::new("acl", "Only people and groups on the list", "You add them on the settings page."),
        ]),
    ]
}

fn input(typed: &Typed) -> Result<ContentInput, Vec<Problem>> {
    let mut problems = Vec::new();
    let title = typed.text("title").to_owned();
    if title.is_empty() {
        problems.push(Problem::new("title", "Enter a title."));
    }
    let access = match typed.text("access_type") {
        // The old value of content made open to anyone by the API stays unless another one is chosen.
        "" => None,
        word => match AccessType::parse(word) {
            Some(access) => Some(access),
            None => {
                problems.push(Problem::new("access_type", "Choose who may open it."));
                None
            }
        },
    };
    let input = ContentInput {
        name: None,
        title: Some(Some(title)),
        description: Some(typed.text("description").to_owned()),
        access,
        upstream: Some(Some(typed.text("upstream_url").to_owned())),
        owner: None,
    };
    if problems.is_empty() { Ok(input) } else { Err(problems) }
}

fn draw_new(me: &Me, typed: Option<&Typed>, errors: Vec<Problem>) -> Result<HttpResponse, WebError> {
    if !access::may_create_content(me.actor.role) {
        return Err(crate::service::Error::Forbidden("Only publishers and administrators add content.").into());
    }
    let mut fields = fields();
    refill(&mut fields, typed, &errors);
    page_with(
        form_status(&errors),
        &FormPage {
            chrome: me.visitor.chrome("content", "Add content"),
            intro: "An app that is running somewhere. People open it through this portal.".into(),
            errors,
            fields,
            action: "/content/new".into(),
            submit: "Add content".into(),
            cancel: "/content".into(),
        },
    )
}

pub async fn new_page(me: Me) -> Result<HttpResponse, WebError> {
    draw_new(&me, None, Vec::new())
}

pub async fn create(me: Me, Posted(typed): Posted) -> Result<HttpResponse, WebError> {
    let created = match input(&typed) {
        Ok(input) => me.service().create_content(&me.actor, input).await,
        Err(problems) => {
            // Name every problem at once: let the service look at the rest, too.
            return draw_new(&me, Some(&typed), with_address_problem(&me, &typed, problems));
        }
    };
    match created {
        Ok(seen) => {
            let message = format!("Added {}. Pick an integration, and add the people who may open it.", seen.content.display_title());
            Ok(me.done(&addresses::content_settings(seen.content.id), message))
        }
        Err(error) => draw_new(&me, Some(&typed), problems_of(error)?),
    }
}

fn with_address_problem(me: &Me, typed: &Typed, mut problems: Vec<Problem>) -> Vec<Problem> {
    if let Some(address) = typed.filled("upstream_url")
        && let Err(refused) = me.service().policy.parse(address, crate::domain::egress::Purpose::Upstream)
    {
        problems.push(Problem::new("upstream_url", refused.to_string()));
    }
    problems
}

struct Attached {
    service: String,
    provider: String,
    capabilities: Vec<String>,
    offline: bool,
}

struct Option_ {
    guid: String,
    name: String,
    service: String,
    description: String,
    /// In use here, and no longer offered to whoever looks: once left, it cannot be chosen again.
    kept_only: bool,
}

struct Consenting {
    person: String,
    integration: String,
    allowed: Moment,
    used: Option<Moment>,
    uses: String,
}

struct Listed {
    number: i64,
    person: String,
    role: &'static str,
}

#[derive(Template)]
#[template(path = "pages/content_settings.html")]
struct SettingsPage {
    chrome: Chrome,
    errors: Vec<Problem>,
    base: String,
    title: String,
    owner: String,
    description: String,
    may_open: bool,
    open: String,
    choices: Vec<Option_>,
    selected: String,
    attached: Vec<Attached>,
    attached_names: String,
    several: bool,
    environment: String,
    key_made: Option<Moment>,
    may_end_consents: bool,
    consenting: Vec<Consenting>,
    access: &'static str,
    listed: Vec<Listed>,
    permit_fields: Vec<Field>,
    fields: Vec<Field>,
}

/// The lines an app needs in its environment.
pub fn environment(base: &str, content: Id<Content>) -> String {
    format!(
        "CONNECT_SERVER={base}\nCONNECT_API_KEY={{key}}\nCONNECT_CONTENT_GUID={content}\nPOSIT_PRODUCT=CONNECT\nRSTUDIO_PRODUCT=CONNECT"
    )
}

async fn draw_settings(me: &Me, seen: Seen, typed: Option<&Typed>, errors: Vec<Problem>) -> Result<HttpResponse, WebError> {
    let (service, now) = (me.service(), me.service().now());
    let item = &seen.content;
    let choices = if access::may_see_integrations(me.actor.role) { service.integrations(&me.actor).await? } else { Vec::new() };
    let attached = service.associations(&me.actor, item.id).await?;
    let keys = service.content_keys(item.id).await?;
    let consenting = service.consenting_people(&me.actor, item.id).await?;
    let listed = service.listed(&me.actor, item.id).await?;
    let mut fields = fields();
    let stored = Typed(vec![
        ("title".into(), item.title.clone().unwrap_or_else(|| item.name.clone())),
        ("description".into(), item.description.clone()),
        ("upstream_url".into(), item.upstream.clone().unwrap_or_default()),
        ("access_type".into(), item.access.as_str().into()),
    ]);
    refill(&mut fields, Some(typed.unwrap_or(&stored)), &errors);
    let known: Vec<Principal> = listed.iter().map(|(entry, _)| entry.principal).chain([Principal::Person(item.owner)]).collect();
    let mut permit_fields = vec![
        principal_field(me, "Person or group", &known).await?,
        Field::new(Kind::Select, "role", "May")
            .options(vec![Choice::new("viewer", "open it", ""), Choice::new("owner", "open and edit it (publishers)", "")]),
    ];
    refill(&mut permit_fields, None, &errors);
    let describe = |integration: &Integration| {
        let names = providers::names(integration);
        Attached {
            service: names.service,
            provider: names.provider,
            capabilities: providers::capabilities(integration),
            offline: providers::asks_for_refresh_token(integration),
        }
    };
    let base = addresses::content_settings(item.id);
    let view = SettingsPage {
        chrome: me.visitor.chrome("content", item.display_title()),
        title: item.display_title().to_owned(),
        owner: seen.owner.display_name(),
        description: item.description.clone(),
        may_open: access::may_open(seen.standing) && item.upstream.is_some(),
        open: addresses::app(item.id),
        choices: choices
            .iter()
            // What is attached stays on offer here, even if nobody may choose it any more.
            .chain(attached.iter().map(|(_, integration)| integration).filter(|kept| !choices.iter().any(|choice| choice.id == kept.id)))
            .map(|integration| Option_ {
                guid: integration.id.to_string(),
                name: integration.display_name().to_owned(),
                service: providers::names(integration).service,
                description: integration.description.clone().unwrap_or_default(),
                kept_only: !choices.iter().any(|choice| choice.id == integration.id),
            })
            .collect(),
        selected: attached.first().map(|(_, integration)| integration.id.to_string()).unwrap_or_default(),
        attached_names: attached.iter().map(|(_, integration)| integration.display_name().to_owned()).collect::<Vec<_>>().join(", "),
        several: attached.len() > 1,
        attached: attached.iter().map(|(_, integration)| describe(integration)).collect(),
        environment: environment(service.addresses.base(), item.id).replace("{key}", "<the content key>"),
        may_end_consents: me.actor.role == Role::Administrator,
        key_made: keys.first().map(|key| Moment::new(key.created_at, now)),
        consenting: consenting
            .iter()
            .map(|(consent, person, integration)| Consenting {
                person: person.display_name(),
                integration: integration.display_name().to_owned(),
                allowed: Moment::new(consent.created_at, now),
                used: consent.last_used_at.map(|at| Moment::new(at, now)),
                uses: count(consent.uses, "time", "times"),
            })
            .collect(),
        access: match item.access {
            AccessType::All => "Anyone, even without signing in.",
            AccessType::LoggedIn => "Everyone who is signed in. Whoever is on the list may do more if it says so.",
            AccessType::Acl => "Only the owner and the people and groups on this list.",
        },
        listed: listed
            .iter()
            .map(|(permission, name)| Listed {
                number: permission.number,
                person: match permission.principal {
                    Principal::Person(_) => name.clone(),
                    Principal::Group(_) => format!("Group {name}"),
                },
                role: if permission.role == ContentRole::Viewer { "open it" } else { "open and edit it" },
            })
            .collect(),
        permit_fields,
        fields,
        base,
        errors,
    };
    page_with(form_status(&view.errors), &view)
}

pub async fn settings_page(me: Me, path: web::Path<String>) -> Result<HttpResponse, WebError> {
    let seen = me.service().editable_content(&me.actor, id(&path)?).await?;
    draw_settings(&me, seen, None, Vec::new()).await
}

pub async fn save_settings(
    me: Me,
    request: HttpRequest,
    path: web::Path<String>,
    Posted(mut typed): Posted,
) -> Result<HttpResponse, WebError> {
    let guid = id(&path)?;
    let seen = me.service().editable_content(&me.actor, guid).await?;
    if typed.text("upstream_url") != seen.content.upstream.as_deref().unwrap_or("") {
        // Viewers' tokens go to whatever answers there.
        Confirmed(typed) = Confirmed::check(&me, &request, typed).await?;
    }
    let input = match input(&typed) {
        Ok(input) => input,
        Err(problems) => {
            let problems = with_address_problem(&me, &typed, problems);
            return draw_settings(&me, seen, Some(&typed), problems).await;
        }
    };
    match me.service().update_content(&me.actor, guid, input).await {
        Ok(seen) => Ok(me.done(&addresses::content_settings(guid), format!("Saved {}.", seen.content.display_title()))),
        Err(error) => draw_settings(&me, seen, Some(&typed), problems_of(error)?).await,
    }
}

pub async fn save_integration(me: Me, path: web::Path<String>, Posted(typed): Posted) -> Result<HttpResponse, WebError> {
    let guid = id(&path)?;
    let seen = me.service().editable_content(&me.actor, guid).await?;
    let wanted = match typed.text("integration") {
        "" => Vec::new(),
        text => match text.parse() {
            Ok(integration) => vec![integration],
            Err(_) => return draw_settings(&me, seen, None, vec![Problem::new("integration", "Choose one of the integrations.")]).await,
        },
    };
    let none = wanted.is_empty();
    match me.service().set_associations(&me.actor, guid, wanted).await {
        Ok(()) => {
            let message = if none {
                "Saved. This content uses no integration now."
            } else {
                "Saved. Viewers are asked for their consent when they open this content."
            };
            Ok(me.done(&addresses::content_settings(guid), message))
        }
        Err(error) => {
            let problems = problems_of(error)?.into_iter().map(|problem| Problem::new("integration", problem.message)).collect();
            draw_settings(&me, seen, None, problems).await
        }
    }
}

pub async fn permit(me: Me, path: web::Path<String>, Posted(typed): Posted) -> Result<HttpResponse, WebError> {
    let guid = id(&path)?;
    let seen = me.service().editable_content(&me.actor, guid).await?;
    let (Some(principal), Some(role)) = (principal(typed.text("person")), ContentRole::parse(typed.text("role"))) else {
        return draw_settings(&me, seen, None, vec![Problem::new("person", "Choose a person or a group.")]).await;
    };
    match me.service().permit(&me.actor, guid, principal, role).await {
        Ok(_) => Ok(me.done(&addresses::content_settings(guid), "Added to the list.")),
        Err(error) => {
            let problems = problems_of(error)?.into_iter().map(|problem| Problem::new("person", problem.message)).collect();
            draw_settings(&me, seen, None, problems).await
        }
    }
}

pub async fn unpermit(me: Me, path: web::Path<(String, i64)>, _: Posted) -> Result<HttpResponse, WebError> {
    let guid = id(&path.0)?;
    me.service().unpermit(&me.actor, guid, path.1).await?;
    Ok(me.done(&addresses::content_settings(guid), "Removed from the list."))
}

pub async fn make_key(me: Me, path: web::Path<String>, _: Confirmed) -> Result<HttpResponse, WebError> {
    let guid = id(&path)?;
    let (content, secret) = me.service().create_content_key(&me.actor, guid).await?;
    let shown = Shown {
        title: format!("Content key of {}", content.display_title()),
        intro: "Put it into the app's environment. It can exchange session tokens of this content and nothing else.".into(),
        label: "Content key".into(),
        secret,
        environment: environment(me.service().addresses.base(), guid),
        done: addresses::content_settings(guid),
    };
    Ok(see_other(&shown_once::keep(me.service(), me.actor.person.id, shown).await?))
}

pub async fn end_consents_page(me: Me, path: web::Path<String>) -> Result<HttpResponse, WebError> {
    let item = me.service().editable_content(&me.actor, id(&path)?).await?.content;
    let consents = me.service().consenting_people(&me.actor, item.id).await?;
    let people: Vec<String> = consents.iter().map(|(_, person, _)| person.display_name()).collect();
    page(&ConfirmPage {
        chrome: me.visitor.chrome("content", &format!("End every consent for {}?", item.display_title())),
        errors: Vec::new(),
        groups: vec![
            Group::new("Who", &["For these people the content stops acting at once, in open windows, too:"], people),
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
        cancel: addresses::content_settings(item.id),
    })
}

pub async fn end_consents(me: Me, path: web::Path<String>, _: Confirmed) -> Result<HttpResponse, WebError> {
    let guid = id(&path)?;
    let ended = me.service().revoke_consents_of_content(&me.actor, guid).await?;
    let message = format!("Ended {}.", count(i64::try_from(ended).unwrap_or(0), "consent", "consents"));
    Ok(me.done(&addresses::content_settings(guid), message))
}

pub async fn delete_page(me: Me, path: web::Path<String>) -> Result<HttpResponse, WebError> {
    let seen = me.service().editable_content(&me.actor, id(&path)?).await?;
    let item = &seen.content;
    let consents = me.service().consenting_people(&me.actor, item.id).await?;
    let people: Vec<String> = consents.iter().map(|(_, person, _)| person.display_name()).collect();
    let mut groups =
        vec![Group::new("", &["Its address stops working for everyone. The app itself goes on running where it is."], Vec::new())];
    if !people.is_empty() {
        groups.push(Group::new("These people let it act for them; their consent ends", &[], people));
    }
    page(&ConfirmPage {
        chrome: me.visitor.chrome("content", &format!("Delete {}?", item.display_title())),
        errors: Vec::new(),
        groups,
        link: None,
        action: format!("{}/delete", addresses::content_settings(item.id)),
        fields: Vec::new(),
        submit: format!("Delete {}", item.display_title()),
        cancel: addresses::content_settings(item.id),
    })
}

pub async fn delete(me: Me, path: web::Path<String>, _: Posted) -> Result<HttpResponse, WebError> {
    let item = me.service().delete_content(&me.actor, id(&path)?).await?;
    Ok(me.done("/content", format!("Deleted {}.", item.display_title())))
}

/// For content that nobody can reach yet.
pub fn nothing_behind(may_edit: bool) -> WebError {
    let line = if may_edit {
        "Enter the address of the running app on its settings page."
    } else {
        "Its publisher has not said yet where the app runs."
    };
    WebError::Page(StatusCode::NOT_FOUND, "There is no app here yet".into(), line.into())
}
