//! Sends notices: mail, and webhooks in the form of standardwebhooks.com (`webhook-id`,
//! `webhook-timestamp`, `webhook-signature`: HMAC-SHA-256 of id, time and body).
//!
//! The leader makes the deliveries of new notices and sends those that are due. Each receiver has a task
//! of its own: one that hangs or fails delays nobody else. A failed delivery is tried again after longer
//! and longer times. If the leader ends in between, something may arrive twice: with the same
//! `webhook-id` or `Message-ID`.

use super::{
    mail::{Letter, Mailer},
    notices::{all_rules, is_for_one},
};
use crate::{
    domain::{
        Id, Timestamp,
        notice::{Delivery, DeliveryState, KeptNotice, Rule, Target, Webhook},
        person::Person,
    },
    service::{core::Core, error::Error},
    store::{self, Db, notices::WebhookSecrets},
    vault::labels,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use lettre::Address;
use parking_lot::Mutex;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

/// Notices whose deliveries one round makes.
const NOTICES_PER_ROUND: i64 = 100;
/// Deliveries of one receiver that are sent before it is looked again what is most urgent.
const DELIVERIES_PER_ROUND: i64 = 100;
/// Mails of one kind to one address within an hour, at most: beyond it they are given up, and the page
/// says so.
const MAILS_PER_HOUR: i64 = 30;
/// What the page says then.
const TOO_MANY: &str = "more mail of this kind than one address gets in an hour";
/// Time for one call of a webhook.
const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// Pauses after failed tries; after one more try a delivery is given up, a day and a half later.
const PAUSES: [Duration; 6] = [
    Duration::from_secs(60),
    Duration::from_secs(300),
    Duration::from_secs(1800),
    Duration::from_secs(2 * 3600),
    Duration::from_secs(8 * 3600),
    Duration::from_secs(24 * 3600),
];

/// What is sent to one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Receiver {
    MailServer,
    Webhook(Id<Webhook>),
}

impl Receiver {
    fn of(target: &Target) -> Self {
        match target {
            Target::Mail(_) => Self::MailServer,
            Target::Webhook(webhook) => Self::Webhook(*webhook),
        }
    }
}

/// A webhook with its secrets opened, for the duration of a task.
struct OpenWebhook {
    url: SecretString,
    key: SecretString,
}

/// A receiver that one task sends to; free again when dropped.
struct Claim {
    deliveries: Arc<Deliveries>,
    receiver: Receiver,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.deliveries.busy.lock().remove(&self.receiver);
    }
}

/// Why a try failed.
struct Trouble {
    why: String,
    /// Whether a later try may succeed.
    is_temporary: bool,
    /// Whether the receiver is at fault, and not this one delivery.
    concerns_receiver: bool,
}

/// Sends notices.
pub struct Deliveries {
    core: Arc<Core>,
    mailer: Option<Mailer>,
    /// Receivers that a task is sending to.
    busy: Mutex<HashSet<Receiver>>,
}

impl Deliveries {
    /// The error is a message for the operator.
    pub(in crate::service) fn new(core: Arc<Core>) -> Result<Self, String> {
        let mail = core.settings.mail.as_ref();
        let mailer = mail
            .map(|mail| Mailer::new(mail, &core.settings.trust))
            .transpose()?;
        Ok(Self {
            core,
            mailer,
            busy: Mutex::default(),
        })
    }

    /// The mail server; `None` if none is configured.
    pub fn mailer(&self) -> Option<&Mailer> {
        self.mailer.as_ref()
    }

    /// Each webhook with its last delivery that was tried.
    pub async fn last_calls(&self) -> Result<Vec<(Webhook, Option<Delivery>)>, Error> {
        self.core
            .store
            .read(|db| {
                let known = store::notices::webhooks(db)?.into_iter();
                known
                    .map(|(webhook, _)| {
                        let latest = store::notices::latest(db, Some(webhook.id), 20)?;
                        let tried = latest.into_iter().find(|one| one.tries > 0);
                        Ok((webhook, tried))
                    })
                    .collect()
            })
            .await
    }

    /// One round, for the leader: makes the deliveries of new notices, and starts to send what is due.
    pub async fn round(self: &Arc<Self>) -> Result<(), Error> {
        let (now, has_mail) = (self.core.now(), self.mailer.is_some());
        // Before the look: what a task is sending now may be delivered by the time it is read.
        let busy = self.busy.lock().clone();
        let waiting = self
            .core
            .store
            .read(|db| Ok::<_, Error>(!store::notices::to_spread(db, 1)?.is_empty()))
            .await?;
        if waiting {
            self.core
                .store
                .write(move |db| spread_new(db, has_mail, now))
                .await?;
        }
        let (due, webhooks) = self
            .core
            .store
            .read(move |db| {
                let mut due = Vec::new();
                for webhook in store::notices::due_receivers(db, now)? {
                    let receiver = webhook.map_or(Receiver::MailServer, Receiver::Webhook);
                    // One that is slow holds up nobody else.
                    if !busy.contains(&receiver) {
                        let its = store::notices::due(db, webhook, now, DELIVERIES_PER_ROUND)?;
                        due.push((receiver, its));
                    }
                }
                let webhooks = if due.is_empty() {
                    Vec::new()
                } else {
                    store::notices::webhooks(db)?
                };
                Ok::<_, Error>((due, webhooks))
            })
            .await?;
        for (receiver, deliveries) in due {
            if !self.busy.lock().insert(receiver) {
                continue;
            }
            let claim = Claim {
                deliveries: Arc::clone(self),
                receiver,
            };
            let webhook = webhooks
                .iter()
                .find(|(webhook, _)| receiver == Receiver::Webhook(webhook.id));
            let opened = webhook.and_then(|(webhook, sealed)| self.open(webhook, sealed));
            self.core.tasks.spawn_on(
                async move {
                    let service = Arc::clone(&claim.deliveries);
                    service.send_all(deliveries, opened).await;
                    drop(claim);
                },
                &self.core.runtime,
            );
        }
        Ok(())
    }

    /// A webhook's address and key; `None` if they do not open.
    fn open(&self, webhook: &Webhook, sealed: &WebhookSecrets) -> Option<OpenWebhook> {
        let (row, vault) = (webhook.id.to_string(), &self.core.vault);
        Some(OpenWebhook {
            url: vault.open(labels::webhook_url(&row), &sealed.url).ok()?,
            key: vault.open(labels::webhook_secret(&row), &sealed.key).ok()?,
        })
    }

    /// Sends to one receiver, until it fails.
    async fn send_all(&self, deliveries: Vec<Delivery>, webhook: Option<OpenWebhook>) {
        for mut delivery in deliveries {
            let sent = match (&delivery.target, &webhook) {
                (Target::Mail(address), _) => self.mail(address, &delivery).await,
                (Target::Webhook(_), Some(webhook)) => self.call(webhook, &delivery).await,
                (Target::Webhook(_), None) => Err(Trouble {
                    why: "its address or key does not open: delete it, and add it again".into(),
                    is_temporary: false,
                    concerns_receiver: true,
                }),
            };
            let now = self.core.now();
            delivery.tries += 1;
            let stops = sent
                .as_ref()
                .is_err_and(|trouble| trouble.concerns_receiver);
            match sent {
                Ok(()) => {
                    delivery.state = DeliveryState::Delivered;
                    (delivery.ended_at, delivery.error) = (Some(now), None);
                }
                Err(trouble) => {
                    tracing::warn!(kind = delivery.notice.kind.as_str(), target = ?Receiver::of(&delivery.target), reason = trouble.why, "a notice could not be delivered");
                    delivery.error = Some(trouble.why);
                    let tried = usize::try_from(delivery.tries).unwrap_or(usize::MAX);
                    match PAUSES.get(tried.saturating_sub(1)) {
                        Some(pause) if trouble.is_temporary => delivery.next_at = now.plus(*pause),
                        _ => {
                            delivery.state = DeliveryState::Failed;
                            delivery.ended_at = Some(now);
                        }
                    }
                }
            }
            let webhook = match Receiver::of(&delivery.target) {
                Receiver::Webhook(webhook) => Some(webhook),
                Receiver::MailServer => None,
            };
            let noted = self
                .core
                .store
                .write_bookkeeping(move |db| {
                    store::notices::note_try(db, &delivery)?;
                    if stops {
                        // The rest would fail the same way, and keep others from being read.
                        store::notices::postpone(db, webhook, now.plus(PAUSES[0]))?;
                    }
                    Ok::<_, Error>(())
                })
                .await;
            if let Err(error) = noted {
                error.log("noting that a notice was delivered; it may be delivered again");
                return;
            }
            if stops {
                return;
            }
        }
    }

    async fn mail(&self, address: &str, delivery: &Delivery) -> Result<(), Trouble> {
        let Some(mailer) = &self.mailer else {
            return Err(Trouble {
                why: "no mail server is configured".into(),
                is_temporary: true,
                concerns_receiver: true,
            });
        };
        let (notice, addresses) = (&delivery.notice, &self.core.addresses);
        let mut text = format!("{}\n\n{}\n", notice.body, addresses.absolute(&notice.path));
        text.push_str(&format!("\n-- \nSent by {}. ", addresses.base()));
        text.push_str(&if is_for_one(notice.kind) {
            format!(
                "You can switch such mail off: {}",
                addresses.absolute("/account#mail")
            )
        } else {
            format!(
                "Administrators choose who is told what: {}",
                addresses.absolute("/notifications")
            )
        });
        let letter = Letter {
            to: address,
            // Names of people and items are in it.
            subject: notice.title.replace(char::is_control, " "),
            text,
            id: format!("{}.{}", delivery.number, notice.at.0),
        };
        mailer.send(letter).await.map_err(|error| Trouble {
            why: error.why,
            concerns_receiver: error.concerns_server,
            is_temporary: error.is_temporary,
        })
    }

    async fn call(&self, webhook: &OpenWebhook, delivery: &Delivery) -> Result<(), Trouble> {
        let trouble = |why: String, is_temporary| Trouble {
            why,
            is_temporary,
            concerns_receiver: true,
        };
        let (notice, addresses) = (&delivery.notice, &self.core.addresses);
        let body = json!({
            "type": notice.kind.as_str(),
            "timestamp": notice.at.rfc3339(),
            "data": {
                "title": notice.title,
                "text": notice.body,
                "url": addresses.absolute(&notice.path),
                "person": notice.person.map(|person| person.to_string()),
                "portal": addresses.base(),
            },
        })
        .to_string();
        let id = format!("notice_{}_{}", notice.number, delivery.number);
        let now = self.core.now().unix_seconds();
        let Some(signature) = sign(&webhook.key, &id, now, &body) else {
            return Err(trouble(
                "the key of its signatures is damaged".into(),
                false,
            ));
        };
        let request = ::http::Request::builder()
            .method("POST")
            .uri(webhook.url.expose_secret())
            .header("content-type", "application/json")
            .header("webhook-id", &id)
            .header("webhook-timestamp", now.to_string())
            .header("webhook-signature", signature)
            .body(body.into_bytes())
            .map_err(|error| trouble(error.to_string(), false))?;
        let asking = tokio::time::timeout(WEBHOOK_TIMEOUT, self.core.http.send_plainly(request));
        match asking.await {
            Err(_) => Err(trouble("no answer within 10 s".into(), true)),
            Ok(Err(error)) => Err(trouble(error.to_string(), true)),
            Ok(Ok(answer)) if answer.status().is_success() => Ok(()),
            // RFC 9110 section 15.5.11: it will not come back.
            Ok(Ok(answer)) => Err(trouble(
                format!("it answered {}", answer.status().as_u16()),
                answer.status() != ::http::StatusCode::GONE,
            )),
        }
    }
}

/// The signature of a call: `v1,` and base64 of the HMAC. `None` if the key is not base64.
fn sign(secret: &SecretString, id: &str, at: i64, body: &str) -> Option<String> {
    let key = secret.expose_secret().strip_prefix("whsec_")?;
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &STANDARD.decode(key).ok()?);
    let tag = ring::hmac::sign(&key, format!("{id}.{at}.{body}").as_bytes());
    Some(format!("v1,{}", STANDARD.encode(tag)))
}

/// Makes the deliveries of new notices.
fn spread_new(db: &mut Db<'_>, has_mail: bool, now: Timestamp) -> Result<(), Error> {
    let rules = all_rules(store::notices::rules(db)?);
    let webhooks = store::notices::webhooks(db)?;
    let administrators = store::people::administrators(db)?;
    for notice in store::notices::to_spread(db, NOTICES_PER_ROUND)? {
        let mut targets: Vec<(Target, Option<&str>)> = webhooks
            .iter()
            .filter(|(webhook, _)| webhook.kinds.contains(&notice.kind))
            .map(|(webhook, _)| (Target::Webhook(webhook.id), None))
            .collect();
        if let Some(rule) = rules.get(&notice.kind)
            && has_mail
        {
            for address in addresses(db, &notice, rule, &administrators)? {
                let since = now.minus(Duration::from_secs(3600));
                let made = store::notices::mails_since(db, &address, notice.kind, since)?;
                let refused = (made >= MAILS_PER_HOUR).then_some(TOO_MANY);
                targets.push((Target::Mail(address), refused));
            }
        }
        store::notices::spread(db, notice.number, &targets, now)?;
    }
    Ok(())
}

/// Whom a notice is mailed to, each address once.
fn addresses(
    db: &mut Db<'_>,
    notice: &KeptNotice,
    rule: &Rule,
    administrators: &[Person],
) -> Result<BTreeSet<String>, Error> {
    let mut found: BTreeSet<String> = rule.addresses.iter().cloned().collect();
    if !rule.mailed {
        return Ok(found);
    }
    // What concerns the installation is not for one administrator to switch off.
    let is_chosen = is_for_one(notice.kind);
    let mut add = |person: &Person| {
        if !(is_chosen && person.mail_off) && person.email.parse::<Address>().is_ok() {
            found.insert(person.email.clone());
        }
    };
    if is_for_one(notice.kind) {
        let person = match notice.person {
            Some(person) => store::people::find(db, person)?,
            None => None,
        };
        if let Some(person) = person.filter(|person| !person.locked) {
            add(&person);
        }
    } else {
        administrators.iter().for_each(add);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::notice::Kind;

    /// The example of the specification, standardwebhooks.com.
    #[test]
    fn a_signature_is_the_one_that_the_specification_gives() {
        let secret = SecretString::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned());
        let body = r#"{"test": 2432232314}"#;
        let signed = sign(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(
            signed.as_deref(),
            Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
        );
        assert!(sign(&SecretString::from("other".to_owned()), "a", 1, body).is_none());
    }

    #[test]
    fn every_kind_is_for_somebody() {
        assert!(is_for_one(Kind::ConsentGiven) && !is_for_one(Kind::DiskLow));
    }
}
