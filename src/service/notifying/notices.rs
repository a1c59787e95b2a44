//! Notices: which are made, who is told, and webhooks as administrators manage them.
//!
//! A notice is made inside the transaction of what it tells of ([`notify`]), or by a look at a condition
//! (`conditions`). `deliveries` sends them.

use crate::{
    domain::{
        Id, Timestamp,
        audit::Action,
        egress::{EgressError, Purpose},
        form::FieldError,
        notice::{Audience, Delivery, Kind, Notice, Rule, Target, Webhook},
        person::Person,
    },
    service::{
        core::{Actor, Core, event, must_manage_integrations, record},
        error::{Error, invalid},
    },
    store::{self, Db, notices::WebhookSecrets},
    vault::{labels, random},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use lettre::Address;
use secrecy::SecretString;
use std::{collections::HashMap, sync::Arc};
use strum::VariantArray as _;
use url::Url;

/// Deliveries that the page shows.
const SHOWN_DELIVERIES: i64 = 50;
/// Webhooks, at most.
const MAX_WEBHOOKS: usize = 50;
/// Mail addresses of one rule, at most.
const MAX_ADDRESSES: usize = 20;

/// Makes a notice inside the transaction of what it tells of, unless one with the same `once` is kept.
pub(in crate::service) fn notify(
    db: &mut Db<'_>,
    notice: &Notice,
    now: Timestamp,
) -> Result<(), Error> {
    store::notices::insert(db, notice, now)?;
    Ok(())
}

/// What the page of notifications shows.
pub struct Overview {
    /// Every kind that can be chosen.
    pub rules: Vec<Rule>,
    pub webhooks: Vec<Webhook>,
    pub deliveries: Vec<Delivery>,
    /// Whether a mail server is configured.
    pub has_mail: bool,
}

/// The rules in effect: those that are stored, and the usual one for every other kind, which mails.
pub(super) fn all_rules(stored: Vec<Rule>) -> HashMap<Kind, Rule> {
    let mut rules: HashMap<Kind, Rule> = Kind::VARIANTS
        .iter()
        .map(|kind| {
            let usual = Rule {
                kind: *kind,
                mailed: true,
                addresses: Vec::new(),
            };
            (*kind, usual)
        })
        .collect();
    rules.extend(stored.into_iter().map(|rule| (rule.kind, rule)));
    rules
}

/// Notices, as administrators and people manage them.
pub struct Notices {
    core: Arc<Core>,
}

impl Notices {
    pub(in crate::service) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// Makes a notice outside any other transaction.
    pub async fn tell(&self, notice: Notice) -> Result<(), Error> {
        let now = self.core.now();
        if let Some(once) = notice.once.clone() {
            // Most conditions last: a look instead of a write.
            let is_known = self
                .core
                .store
                .read(move |db| Ok::<_, Error>(store::notices::is_known(db, &once)?));
            if is_known.await? {
                return Ok(());
            }
        }
        self.core
            .store
            .write(move |db| notify(db, &notice, now))
            .await
    }

    /// Rules, webhooks and the latest deliveries. Administrators only.
    pub async fn overview(&self, actor: &Actor) -> Result<Overview, Error> {
        must_manage_integrations(actor)?;
        let has_mail = self.core.settings.mail.is_some();
        self.core
            .store
            .read(move |db| {
                let mut rules = all_rules(store::notices::rules(db)?);
                let offered = Kind::VARIANTS.iter().filter(|kind| kind.is_offered());
                Ok(Overview {
                    rules: offered.filter_map(|kind| rules.remove(kind)).collect(),
                    webhooks: store::notices::webhooks(db)?
                        .into_iter()
                        .map(|(webhook, _)| webhook)
                        .collect(),
                    deliveries: store::notices::latest(db, None, SHOWN_DELIVERIES)?,
                    has_mail,
                })
            })
            .await
    }

    /// Stores who is told what by mail. Administrators only. Every address is checked.
    pub async fn set_rules(&self, actor: &Actor, rules: Vec<Rule>) -> Result<(), Error> {
        must_manage_integrations(actor)?;
        let mut problems = Vec::new();
        for rule in &rules {
            let key = format!("addresses_{}", rule.kind.as_str());
            for address in &rule.addresses {
                if address.parse::<Address>().is_err() {
                    problems.push(FieldError::new(
                        &key,
                        format!("{address} is no mail address. Separate several by blanks."),
                    ));
                }
            }
            if rule.addresses.len() > MAX_ADDRESSES {
                problems.push(FieldError::new(
                    &key,
                    format!("At most {MAX_ADDRESSES} addresses: use a mailing list."),
                ));
            }
        }
        if !problems.is_empty() {
            return Err(Error::Invalid(problems));
        }
        let line = event(
            actor,
            self.core.now(),
            Action::NotificationsChanged,
            "who is told what by mail",
            "",
        );
        self.core
            .store
            .write(move |db| {
                for rule in &rules {
                    store::notices::put_rule(db, rule)?;
                }
                record(db, &line)
            })
            .await
    }

    /// Adds a webhook and returns it with the key of its signatures, which is shown once.
    /// Administrators only.
    pub async fn add_webhook(
        &self,
        actor: &Actor,
        name: &str,
        url: &str,
        kinds: Vec<Kind>,
    ) -> Result<(Webhook, SecretString), Error> {
        must_manage_integrations(actor)?;
        let mut problems = Vec::new();
        let (name, url) = (name.trim(), url.trim());
        if name.is_empty() || name.chars().count() > 100 || name.chars().any(char::is_control) {
            problems.push(FieldError::new(
                "name",
                "Enter a name of at most 100 characters.",
            ));
        }
        let parsed = Url::parse(url).map_err(|_| EgressError::NotAnAddress);
        let allowed = parsed.and_then(|url| {
            self.core.policy.check(&url, Purpose::Provider)?;
            Ok(url)
        });
        if let Err(why) = &allowed {
            problems.push(FieldError::new("url", why.to_string()));
        }
        if kinds.is_empty() {
            problems.push(FieldError::new("kinds", "Choose at least one."));
        }
        let (true, Ok(url)) = (problems.is_empty(), allowed) else {
            return Err(Error::Invalid(problems));
        };
        let webhook = Webhook {
            id: Id::random(),
            name: name.to_owned(),
            host: url.origin().ascii_serialization(),
            kinds,
            created_at: self.core.now(),
        };
        // In the form of standardwebhooks.com.
        let secret =
            SecretString::from(format!("whsec_{}", STANDARD.encode(random::bytes::<32>())));
        let row = webhook.id.to_string();
        let url = SecretString::from(url.to_string());
        let sealed = WebhookSecrets {
            url: self.core.vault.seal(labels::webhook_url(&row), &url)?,
            key: self
                .core
                .vault
                .seal(labels::webhook_secret(&row), &secret)?,
        };
        let line = event(
            actor,
            webhook.created_at,
            Action::NotificationsChanged,
            webhook.name.clone(),
            format!("webhook added: {}", webhook.host),
        );
        let added = webhook.clone();
        self.core
            .store
            .write(move |db| {
                if store::notices::webhooks(db)?.len() >= MAX_WEBHOOKS {
                    return Err(invalid(
                        "name",
                        format!("There are {MAX_WEBHOOKS} webhooks already."),
                    ));
                }
                store::notices::insert_webhook(db, &added, &sealed)?;
                record(db, &line)
            })
            .await?;
        Ok((webhook, secret))
    }

    /// Deletes a webhook and what is on its way to it. Administrators only.
    pub async fn delete_webhook(&self, actor: &Actor, id: Id<Webhook>) -> Result<Webhook, Error> {
        must_manage_integrations(actor)?;
        let (now, actor) = (self.core.now(), actor.clone());
        self.core
            .store
            .write(move |db| {
                let known = store::notices::webhooks(db)?.into_iter();
                let found = known.map(|(webhook, _)| webhook).find(|one| one.id == id);
                let webhook = found.ok_or(Error::NotFound)?;
                store::notices::delete_webhook(db, id)?;
                let (action, name) = (Action::NotificationsChanged, webhook.name.clone());
                record(db, &event(&actor, now, action, name, "webhook deleted"))?;
                Ok(webhook)
            })
            .await
    }

    /// Sends a test: a mail to the actor, or a call of one webhook. Administrators only.
    pub async fn test(&self, actor: &Actor, webhook: Option<Id<Webhook>>) -> Result<(), Error> {
        must_manage_integrations(actor)?;
        let now = self.core.now();
        let notice = Notice {
            kind: Kind::Test,
            person: Some(actor.person.id),
            title: "A test of notifications".into(),
            body: format!(
                "{} asked for it. What is important reaches you the same way.",
                actor.person.display_name()
            ),
            path: "/notifications".into(),
            once: None,
        };
        if webhook.is_none() && self.core.settings.mail.is_none() {
            return Err(invalid(
                "",
                "No mail server is configured: smtp_host in the settings.",
            ));
        }
        let address = actor.person.email.clone();
        if webhook.is_none() && address.parse::<Address>().is_err() {
            return Err(invalid("", "Your account has no mail address."));
        }
        self.core
            .store
            .write(move |db| {
                let target = match webhook {
                    Some(webhook) => {
                        let known = store::notices::webhooks(db)?;
                        if !known.iter().any(|(known, _)| known.id == webhook) {
                            return Err(Error::NotFound);
                        }
                        Target::Webhook(webhook)
                    }
                    None => Target::Mail(address.clone()),
                };
                // Without `once` it is always made.
                if let Some(number) = store::notices::insert(db, &notice, now)? {
                    store::notices::spread(db, number, &[(target, None)], now)?;
                }
                Ok(())
            })
            .await
    }

    /// Whether the actor gets mail.
    pub async fn set_mail_off(&self, actor: &Actor, off: bool) -> Result<(), Error> {
        let (person, email) = (actor.person.id, actor.person.email.clone());
        let detail = if off {
            "mail switched off"
        } else {
            "mail switched on"
        };
        let name = actor.person.username.clone();
        let line = event(actor, self.core.now(), Action::PersonChanged, name, detail);
        self.core
            .store
            .write(move |db| {
                store::notices::set_mail_off(db, person, off)?;
                if off {
                    store::notices::drop_personal_mail_to(db, &email)?;
                }
                record(db, &line)
            })
            .await
    }

    /// Tells a person of a sign-in from a browser not seen before. Called in the transaction that
    /// starts the session.
    pub fn note_device(
        db: &mut Db<'_>,
        person: Id<Person>,
        client: &str,
        now: Timestamp,
    ) -> Result<(), Error> {
        if store::notices::is_new_device(db, person, client, now)? {
            let notice = Notice {
                kind: Kind::NewDevice,
                person: Some(person),
                title: format!("Signed in with {client}"),
                body: format!(
                    "Somebody signed in to your account with {client}, at {}. If that was not you: end that session, change your password, and tell your administrator.",
                    now.rfc3339()
                ),
                path: "/account".into(),
                once: None,
            };
            notify(db, &notice, now)?;
        }
        Ok(())
    }
}

/// Whether a notice of this kind goes to one person, whom it names.
pub(super) fn is_for_one(kind: Kind) -> bool {
    kind.audience() == Audience::OnePerson
}
