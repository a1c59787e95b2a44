//! `/notifications`: which notices are mailed, the webhooks, and what became of the latest deliveries.

use crate::{
    domain::{
        Id,
        form::FieldError,
        notice::{Audience, Delivery, DeliveryState, Kind, Rule, Target, Webhook},
    },
    http::errors::WebError,
    service::notifying::notices::Overview,
    web::{
        confirmation::Confirmed,
        forms::{Field, FormValues, refill},
        pages::{form_status, page_with, problems_of},
        view::{Chrome, Moment, Now},
        visitor::SignedIn,
    },
};
use actix_web::HttpResponse;
use askama::Template;
use std::collections::HashMap;

/// One kind of notice: whether it is mailed, and to whom else.
struct RuleRow {
    kind: &'static str,
    label: &'static str,
    mailed: bool,
    addresses: Field,
}

/// The kinds for one audience.
struct RuleGroup {
    title: &'static str,
    /// The heading of the boxes.
    mailed_to: &'static str,
    rows: Vec<RuleRow>,
}

struct WebhookRow {
    guid: String,
    name: String,
    address: String,
    kinds: String,
}

struct DeliveryRow {
    at: Moment,
    title: String,
    to: String,
    state: String,
    error: String,
    is_wrong: bool,
}

/// A box that is checked or not.
struct CheckBox {
    value: &'static str,
    label: &'static str,
    checked: bool,
}

#[derive(Template)]
#[template(path = "pages/notifications/show.html")]
struct NotificationsPage {
    chrome: Chrome,
    errors: Vec<FieldError>,
    mail_server: Option<String>,
    groups: Vec<RuleGroup>,
    webhooks: Vec<WebhookRow>,
    fields: Vec<Field>,
    kinds: Vec<CheckBox>,
    kinds_error: Option<String>,
    deliveries: Vec<DeliveryRow>,
}

/// The page, with what was typed into one of its forms and what is wrong with it.
pub(super) async fn draw(
    me: &SignedIn,
    typed: Option<&FormValues>,
    errors: Vec<FieldError>,
) -> Result<HttpResponse, WebError> {
    let Overview {
        rules,
        webhooks,
        deliveries,
        ..
    } = me.service().notices.overview(&me.actor).await?;
    let group = |audience, title, mailed_to| RuleGroup {
        title,
        mailed_to,
        rows: rules
            .iter()
            .filter(|rule| rule.kind.audience() == audience)
            .map(|rule| rule_row(rule, typed, &errors))
            .collect(),
    };
    let groups = vec![
        group(
            Audience::Administrators,
            "About the installation",
            "Administrators",
        ),
        group(Audience::OnePerson, "About one person", "That person"),
    ];
    let mut fields = vec![
        Field::text("name", "Name").hint("Such as the channel that it leads to."),
        Field::text("url", "Address")
            .hint("https. It may hold a secret: pages show only its host.")
            .mono(),
    ];
    refill(&mut fields, typed, &errors);
    let chosen = |kind: Kind| {
        typed.map_or(kind.audience() == Audience::Administrators, |typed| {
            typed.all("kinds").any(|word| word == kind.as_str())
        })
    };
    let names: HashMap<_, _> = webhooks
        .iter()
        .map(|webhook| (webhook.id, webhook.name.clone()))
        .collect();
    let now = me.now();
    let settings = &me.service().core.settings;
    let view = NotificationsPage {
        chrome: me.visitor.chrome("audit", "Notifications"),
        mail_server: settings
            .mail
            .as_ref()
            .map(|mail| format!("{}, from {}", mail.host, mail.from)),
        groups,
        webhooks: webhooks
            .iter()
            .map(|webhook| WebhookRow {
                guid: webhook.id.to_string(),
                name: webhook.name.clone(),
                address: webhook.host.clone(),
                kinds: webhook
                    .kinds
                    .iter()
                    .map(|kind| kind.label())
                    .collect::<Vec<_>>()
                    .join("; "),
            })
            .collect(),
        fields,
        kinds: rules
            .iter()
            .map(|rule| CheckBox {
                value: rule.kind.as_str(),
                label: rule.kind.label(),
                checked: chosen(rule.kind),
            })
            .collect(),
        kinds_error: errors
            .iter()
            .find(|problem| problem.key == "kinds")
            .map(|problem| problem.message.clone()),
        deliveries: deliveries
            .iter()
            .map(|delivery| delivery_row(delivery, &names, now))
            .collect(),
        errors,
    };
    page_with(form_status(&view.errors), &view)
}

fn rule_row(rule: &Rule, typed: Option<&FormValues>, errors: &[FieldError]) -> RuleRow {
    let word = rule.kind.as_str();
    let name = format!("addresses_{word}");
    // Another form of the page may have been sent.
    let own = typed.filter(|typed| typed.get(&name).is_some());
    let label = format!("More mail addresses: {}", rule.kind.label());
    let mut field = [Field::text(&name, &label).value(rule.addresses.join(" "))];
    refill(&mut field, own, errors);
    let [addresses] = field;
    RuleRow {
        kind: word,
        label: rule.kind.label(),
        mailed: own.map_or(rule.mailed, |typed| {
            typed.all("mailed").any(|kind| kind == word)
        }),
        addresses,
    }
}

fn delivery_row(
    delivery: &Delivery,
    names: &HashMap<Id<Webhook>, String>,
    now: Now,
) -> DeliveryRow {
    let error = delivery.error.clone().unwrap_or_default();
    DeliveryRow {
        at: Moment::new(delivery.notice.at, now),
        title: delivery.notice.title.clone(),
        to: match &delivery.target {
            Target::Mail(address) => address.clone(),
            Target::Webhook(id) => names.get(id).cloned().unwrap_or_default(),
        },
        state: match delivery.state {
            DeliveryState::Delivered => "Delivered".into(),
            DeliveryState::Failed => "Given up".into(),
            DeliveryState::Waiting if delivery.tries == 0 => "On its way".into(),
            DeliveryState::Waiting => format!(
                "Tried {} times; again {}",
                delivery.tries,
                Moment::new(delivery.next_at, now).phrase
            ),
        },
        is_wrong: !error.is_empty(),
        error,
    }
}

/// `GET /notifications`.
pub async fn show(me: SignedIn) -> Result<HttpResponse, WebError> {
    draw(&me, None, Vec::new()).await
}

/// `POST /notifications`: who is told what by mail.
pub async fn save(me: SignedIn, Confirmed(typed): Confirmed) -> Result<HttpResponse, WebError> {
    let known = me.service().notices.overview(&me.actor).await?.rules;
    let rules = known
        .iter()
        .map(|rule| {
            let word = rule.kind.as_str();
            Rule {
                kind: rule.kind,
                mailed: typed.all("mailed").any(|kind| kind == word),
                addresses: typed
                    .text(&format!("addresses_{word}"))
                    .split([' ', ',', ';'])
                    .filter(|address| !address.is_empty())
                    .map(str::to_owned)
                    .collect(),
            }
        })
        .collect();
    match me.service().notices.set_rules(&me.actor, rules).await {
        Ok(()) => Ok(me.done("/notifications", "Saved who is told what.")),
        Err(error) => draw(&me, Some(&typed), problems_of(error)?).await,
    }
}

/// `POST /notifications/test`: a mail to oneself.
pub async fn test(me: SignedIn, Confirmed(_): Confirmed) -> Result<HttpResponse, WebError> {
    match me.service().notices.test(&me.actor, None).await {
        Ok(()) => Ok(me.done(
            "/notifications",
            format!(
                "A test goes to {}. Below you see what becomes of it: load the page again.",
                me.actor.person.email
            ),
        )),
        Err(error) => draw(&me, None, problems_of(error)?).await,
    }
}
