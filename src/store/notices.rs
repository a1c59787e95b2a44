//! Notices, their deliveries, webhooks, and the rules of who is told what.

use super::{
    Db, Error, damaged_row, id,
    schema::{
        api_keys, connections, consents, deliveries, exchange_hours, integrations, known_devices,
        notice_rules, notices, people, sessions, webhooks,
    },
};
use crate::{
    domain::{
        Id, Timestamp,
        connection::State,
        notice::{
            Audience, Delivery, DeliveryState, KeptNotice, Kind, Notice, Rule, Target, Webhook,
        },
        person::Person,
    },
    vault::Sealed,
};
use diesel::prelude::*;
use strum::VariantArray as _;

/// The words of these kinds.
fn words(which: impl Fn(Kind) -> bool) -> Vec<&'static str> {
    let chosen = Kind::VARIANTS.iter().filter(|kind| which(**kind));
    chosen.map(|kind| kind.as_str()).collect()
}

/// Makes a notice, and returns its number; `None` if one with the same `once` is kept.
pub fn insert(db: &mut Db<'_>, notice: &Notice, now: Timestamp) -> Result<Option<i64>, Error> {
    if let Some(once) = &notice.once
        && is_known(db, once)?
    {
        return Ok(None);
    }
    let number = diesel::insert_into(notices::table)
        .values((
            notices::at.eq(now.0),
            notices::kind.eq(notice.kind.as_str()),
            notices::person.eq(notice.person.map(|person| person.to_string())),
            notices::title.eq(&notice.title),
            notices::body.eq(&notice.body),
            notices::path.eq(&notice.path),
            notices::once.eq(&notice.once),
            notices::spread.eq(false),
        ))
        .returning(notices::number)
        .get_result(db.0)?;
    Ok(Some(number))
}

/// Whether a notice with this `once` is kept.
pub fn is_known(db: &mut Db<'_>, once: &str) -> Result<bool, Error> {
    let known = notices::table.filter(notices::once.eq(once));
    Ok(diesel::select(diesel::dsl::exists(known)).get_result(db.0)?)
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = notices)]
struct NoticeRow {
    number: i64,
    at: i64,
    kind: String,
    person: Option<String>,
    title: String,
    body: String,
    path: String,
}

impl NoticeRow {
    /// `None` for a kind that only a newer version knows: left to it.
    fn notice(self) -> Result<Option<KeptNotice>, Error> {
        let Some(kind) = Kind::parse(&self.kind) else {
            return Ok(None);
        };
        Ok(Some(KeptNotice {
            number: self.number,
            at: Timestamp(self.at),
            kind,
            person: self.person.as_deref().map(id).transpose()?,
            title: self.title,
            body: self.body,
            path: self.path,
        }))
    }
}

/// The notices whose deliveries are not made yet, oldest first.
pub fn to_spread(db: &mut Db<'_>, most: i64) -> Result<Vec<KeptNotice>, Error> {
    // Without the kinds that only a newer version knows: they would stand before all others.
    let rows = notices::table
        .filter(notices::spread.eq(false))
        .filter(notices::kind.eq_any(words(|_| true)))
        .order(notices::number)
        .limit(most)
        .select(NoticeRow::as_select())
        .load(db.0)?;
    rows.into_iter()
        .filter_map(|row| row.notice().transpose())
        .collect()
}

/// Makes the deliveries of a notice; one with a reason is given up at once.
pub fn spread(
    db: &mut Db<'_>,
    notice: i64,
    targets: &[(Target, Option<&str>)],
    now: Timestamp,
) -> Result<(), Error> {
    for (target, refused) in targets {
        let (webhook, address) = match target {
            Target::Webhook(webhook) => (Some(webhook.to_string()), None),
            Target::Mail(address) => (None, Some(address)),
        };
        diesel::insert_into(deliveries::table)
            .values((
                deliveries::notice.eq(notice),
                deliveries::webhook.eq(webhook),
                deliveries::address.eq(address),
                deliveries::state.eq(match refused {
                    Some(_) => DeliveryState::Failed.as_str(),
                    None => DeliveryState::Waiting.as_str(),
                }),
                deliveries::tries.eq(0),
                deliveries::next_at.eq(now.0),
                deliveries::ended_at.eq(refused.map(|_| now.0)),
                deliveries::error.eq(refused),
            ))
            .execute(db.0)?;
    }
    diesel::update(notices::table.find(notice))
        .set(notices::spread.eq(true))
        .execute(db.0)?;
    Ok(())
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = deliveries)]
struct DeliveryRow {
    number: i64,
    webhook: Option<String>,
    address: Option<String>,
    state: String,
    tries: i64,
    next_at: i64,
    ended_at: Option<i64>,
    error: Option<String>,
}

fn delivery((row, notice): (DeliveryRow, NoticeRow)) -> Result<Option<Delivery>, Error> {
    let Some(notice) = notice.notice()? else {
        return Ok(None);
    };
    Ok(Some(Delivery {
        number: row.number,
        notice,
        target: match (row.webhook, row.address) {
            (Some(webhook), None) => Target::Webhook(id(&webhook)?),
            (None, Some(address)) => Target::Mail(address),
            _ => return Err(damaged_row("target of a delivery")),
        },
        state: DeliveryState::parse(&row.state)
            .ok_or_else(|| damaged_row("state of a delivery"))?,
        tries: row.tries,
        next_at: Timestamp(row.next_at),
        ended_at: row.ended_at.map(Timestamp),
        error: row.error,
    }))
}

/// A receiver failed: what else waits for it is not tried before `until`.
pub fn postpone(
    db: &mut Db<'_>,
    webhook: Option<Id<Webhook>>,
    until: Timestamp,
) -> Result<(), Error> {
    let waiting = deliveries::table
        .filter(deliveries::state.eq(DeliveryState::Waiting.as_str()))
        .filter(deliveries::next_at.lt(until.0));
    let later = deliveries::next_at.eq(until.0);
    match webhook {
        Some(webhook) => {
            diesel::update(waiting.filter(deliveries::webhook.eq(webhook.to_string())))
                .set(later)
                .execute(db.0)?
        }
        None => diesel::update(waiting.filter(deliveries::address.is_not_null()))
            .set(later)
            .execute(db.0)?,
    };
    Ok(())
}

/// Drops the mail to an address that is still to be sent, of the kinds that are for one person: those
/// of administrators are not one person's to switch off.
pub fn drop_personal_mail_to(db: &mut Db<'_>, address: &str) -> Result<(), Error> {
    let personal = words(|kind| kind.audience() == Audience::OnePerson);
    let personal = notices::table
        .filter(notices::kind.eq_any(personal))
        .select(notices::number);
    diesel::delete(
        deliveries::table
            .filter(deliveries::address.eq(address))
            .filter(deliveries::state.eq(DeliveryState::Waiting.as_str()))
            .filter(deliveries::notice.eq_any(personal)),
    )
    .execute(db.0)?;
    Ok(())
}

/// The webhooks for which a delivery is due; `None` stands for the mail server.
pub fn due_receivers(db: &mut Db<'_>, now: Timestamp) -> Result<Vec<Option<Id<Webhook>>>, Error> {
    let found: Vec<Option<String>> = deliveries::table
        .filter(deliveries::state.eq(DeliveryState::Waiting.as_str()))
        .filter(deliveries::next_at.le(now.0))
        .select(deliveries::webhook)
        .distinct()
        .load(db.0)?;
    let parsed = |webhook: Option<String>| webhook.as_deref().map(id).transpose();
    found.into_iter().map(parsed).collect()
}

/// Deliveries of one webhook, or to the mail server, whose time has come: first those for
/// administrators, of whom a thousand people's notices would otherwise stand before one alarm.
pub fn due(
    db: &mut Db<'_>,
    webhook: Option<Id<Webhook>>,
    now: Timestamp,
    most: i64,
) -> Result<Vec<Delivery>, Error> {
    let due = deliveries::table
        .inner_join(notices::table)
        .filter(deliveries::state.eq(DeliveryState::Waiting.as_str()))
        .filter(deliveries::next_at.le(now.0))
        .filter(notices::kind.eq_any(words(|_| true)))
        .order((
            notices::person.is_not_null(),
            deliveries::next_at,
            deliveries::number,
        ))
        .limit(most)
        .select((DeliveryRow::as_select(), NoticeRow::as_select()))
        .into_boxed();
    let due = match webhook {
        Some(webhook) => due.filter(deliveries::webhook.eq(webhook.to_string())),
        None => due.filter(deliveries::webhook.is_null()),
    };
    let rows: Vec<(DeliveryRow, NoticeRow)> = due.load(db.0)?;
    rows.into_iter()
        .filter_map(|row| delivery(row).transpose())
        .collect()
}

/// The newest deliveries; those of one webhook if it is named.
pub fn latest(db: &mut Db<'_>, of: Option<Id<Webhook>>, most: i64) -> Result<Vec<Delivery>, Error> {
    let mut query = deliveries::table
        .inner_join(notices::table)
        .order(deliveries::number.desc())
        .limit(most)
        .select((DeliveryRow::as_select(), NoticeRow::as_select()))
        .into_boxed();
    if let Some(webhook) = of {
        query = query.filter(deliveries::webhook.eq(webhook.to_string()));
    }
    let rows: Vec<(DeliveryRow, NoticeRow)> = query.load(db.0)?;
    rows.into_iter()
        .filter_map(|row| delivery(row).transpose())
        .collect()
}

/// Writes how a try ended.
pub fn note_try(db: &mut Db<'_>, tried: &Delivery) -> Result<(), Error> {
    diesel::update(deliveries::table.find(tried.number))
        .set((
            deliveries::state.eq(tried.state.as_str()),
            deliveries::tries.eq(tried.tries),
            deliveries::next_at.eq(tried.next_at.0),
            deliveries::ended_at.eq(tried.ended_at.map(|at| at.0)),
            deliveries::error.eq(&tried.error),
        ))
        .execute(db.0)?;
    Ok(())
}

/// The rules that an administrator changed.
pub fn rules(db: &mut Db<'_>) -> Result<Vec<Rule>, Error> {
    let rows: Vec<(String, bool, String)> = notice_rules::table
        .select((
            notice_rules::kind,
            notice_rules::mailed,
            notice_rules::addresses,
        ))
        .load(db.0)?;
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
    // A kind that this version does not know has no notices here.
    Ok(rows
        .into_iter()
        .filter_map(|(kind, mailed, addresses)| {
            Some(Rule {
                kind: Kind::parse(&kind)?,
                mailed,
                addresses: words(&addresses),
            })
        })
        .collect())
}

/// Writes a rule.
pub fn put_rule(db: &mut Db<'_>, rule: &Rule) -> Result<(), Error> {
    diesel::delete(notice_rules::table.find(rule.kind.as_str())).execute(db.0)?;
    diesel::insert_into(notice_rules::table)
        .values((
            notice_rules::kind.eq(rule.kind.as_str()),
            notice_rules::mailed.eq(rule.mailed),
            notice_rules::addresses.eq(rule.addresses.join(" ")),
        ))
        .execute(db.0)?;
    Ok(())
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = webhooks)]
struct WebhookRow {
    guid: String,
    name: String,
    url: String,
    host: String,
    secret: String,
    kinds: String,
    created_at: i64,
}

/// What is sealed of a webhook.
#[derive(Clone, Debug)]
pub struct WebhookSecrets {
    pub url: Sealed,
    /// The key of its signatures.
    pub key: Sealed,
}

/// All webhooks with what is sealed of them, oldest first.
pub fn webhooks(db: &mut Db<'_>) -> Result<Vec<(Webhook, WebhookSecrets)>, Error> {
    let rows: Vec<WebhookRow> = webhooks::table
        .order(webhooks::number)
        .select(WebhookRow::as_select())
        .load(db.0)?;
    rows.into_iter()
        .map(|row| {
            let webhook = Webhook {
                id: id(&row.guid)?,
                name: row.name,
                host: row.host,
                kinds: row.kinds.split(' ').filter_map(Kind::parse).collect(),
                created_at: Timestamp(row.created_at),
            };
            let secrets = WebhookSecrets {
                url: Sealed(row.url),
                key: Sealed(row.secret),
            };
            Ok((webhook, secrets))
        })
        .collect()
}

/// Adds a webhook.
pub fn insert_webhook(
    db: &mut Db<'_>,
    webhook: &Webhook,
    secrets: &WebhookSecrets,
) -> Result<(), Error> {
    let kinds: Vec<&str> = webhook.kinds.iter().map(|kind| kind.as_str()).collect();
    diesel::insert_into(webhooks::table)
        .values((
            webhooks::guid.eq(webhook.id.to_string()),
            webhooks::name.eq(&webhook.name),
            webhooks::url.eq(&secrets.url.0),
            webhooks::host.eq(&webhook.host),
            webhooks::secret.eq(&secrets.key.0),
            webhooks::kinds.eq(kinds.join(" ")),
            webhooks::created_at.eq(webhook.created_at.0),
        ))
        .execute(db.0)?;
    Ok(())
}

/// Deletes a webhook and its deliveries; `false` if there is none.
pub fn delete_webhook(db: &mut Db<'_>, webhook: Id<Webhook>) -> Result<bool, Error> {
    let gone = diesel::delete(webhooks::table.filter(webhooks::guid.eq(webhook.to_string())))
        .execute(db.0)?;
    Ok(gone == 1)
}

/// Notes that a person signed in with this browser and system. `true` if others are known of the
/// person, and not this one. Call it before the session of this sign-in is stored.
pub fn is_new_device(
    db: &mut Db<'_>,
    person: Id<Person>,
    client: &str,
    now: Timestamp,
) -> Result<bool, Error> {
    let mut known: Vec<String> = known_devices::table
        .filter(known_devices::person.eq(person.to_string()))
        .select(known_devices::client)
        .load(db.0)?;
    if known.is_empty() {
        // Before anything was noted of the person, their open sessions say it.
        let open: Vec<Option<String>> = sessions::table
            .filter(sessions::person.eq(person.to_string()))
            .select(sessions::client)
            .load(db.0)?;
        known = open.into_iter().flatten().collect();
    }
    let is_noted: i64 = known_devices::table
        .filter(known_devices::person.eq(person.to_string()))
        .filter(known_devices::client.eq(client))
        .count()
        .get_result(db.0)?;
    let is_known = known.iter().any(|known| known == client);
    if is_noted > 0 {
        diesel::update(known_devices::table.find((person.to_string(), client)))
            .set(known_devices::seen_at.eq(now.0))
            .execute(db.0)?;
    } else {
        diesel::insert_into(known_devices::table)
            .values((
                known_devices::person.eq(person.to_string()),
                known_devices::client.eq(client),
                known_devices::seen_at.eq(now.0),
            ))
            .execute(db.0)?;
    }
    Ok(!known.is_empty() && !is_known)
}

/// Whether a person wants no mail.
pub fn set_mail_off(db: &mut Db<'_>, person: Id<Person>, off: bool) -> Result<(), Error> {
    db.changed(super::changes::Subject::Person(person));
    diesel::update(people::table.filter(people::guid.eq(person.to_string())))
        .set(people::mail_off.eq(off))
        .execute(db.0)?;
    Ok(())
}

/// Mails of one kind to one address that were made since.
pub fn mails_since(
    db: &mut Db<'_>,
    address: &str,
    kind: Kind,
    since: Timestamp,
) -> Result<i64, Error> {
    Ok(deliveries::table
        .inner_join(notices::table)
        .filter(deliveries::address.eq(address))
        .filter(notices::kind.eq(kind.as_str()))
        .filter(notices::at.ge(since.0))
        .count()
        .get_result(db.0)?)
}

/// An API key of a person that is not used.
pub struct UnusedKey {
    pub number: i64,
    pub person: Id<Person>,
    pub name: String,
}

/// The text that keeps the notice about an unused key from being made again.
pub fn unused_key_once(number: i64) -> String {
    format!("api_key_unused {number}")
}

/// Keys of people (not of content) that were not used since `before`, and of which nobody was told.
pub fn unused_keys(db: &mut Db<'_>, before: Timestamp, most: i64) -> Result<Vec<UnusedKey>, Error> {
    let told: Vec<Option<String>> = notices::table
        .filter(notices::kind.eq(Kind::ApiKeyUnused.as_str()))
        .select(notices::once)
        .load(db.0)?;
    let told: std::collections::HashSet<String> = told.into_iter().flatten().collect();
    let rows: Vec<(i64, String, String)> = api_keys::table
        .filter(api_keys::content.is_null())
        .filter(api_keys::created_at.lt(before.0))
        .filter(
            api_keys::active_at
                .is_null()
                .or(api_keys::active_at.lt(before.0)),
        )
        .order(api_keys::number)
        .select((api_keys::number, api_keys::person, api_keys::name))
        .load(db.0)?;
    rows.into_iter()
        .filter(|(number, ..)| !told.contains(&unused_key_once(*number)))
        .take(usize::try_from(most).unwrap_or(0))
        .map(|(number, person, name)| {
            Ok(UnusedKey {
                number,
                person: id(&person)?,
                name,
            })
        })
        .collect()
}

/// What the weekly digest tells.
pub struct WeekInNumbers {
    pub people: i64,
    pub active: i64,
    pub consents: i64,
    pub new_consents: i64,
    pub connections: i64,
    pub need_viewer: i64,
    pub exchanges: i64,
    pub secrets_ending: i64,
}

/// Counts for the digest: of the time since `since`, and of secrets that end between `now` and `soon`.
pub fn week_in_numbers(
    db: &mut Db<'_>,
    since: Timestamp,
    soon: Timestamp,
    now: Timestamp,
) -> Result<WeekInNumbers, Error> {
    let (active, _) = State::Active.columns();
    Ok(WeekInNumbers {
        people: people::table.count().get_result(db.0)?,
        active: people::table
            .filter(people::active_at.ge(since.0))
            .count()
            .get_result(db.0)?,
        consents: consents::table.count().get_result(db.0)?,
        new_consents: consents::table
            .filter(consents::created_at.ge(since.0))
            .count()
            .get_result(db.0)?,
        connections: connections::table
            .filter(connections::state.eq(active))
            .count()
            .get_result(db.0)?,
        need_viewer: connections::table
            .filter(connections::state.ne(active))
            .count()
            .get_result(db.0)?,
        exchanges: exchange_hours::table
            .filter(exchange_hours::last_at.ge(since.0))
            .select(diesel::dsl::sql::<diesel::sql_types::BigInt>(
                "CAST(COALESCE(SUM(exchanges), 0) AS BIGINT)",
            ))
            .first(db.0)?,
        secrets_ending: integrations::table
            .filter(integrations::secret_expires_at.between(now.0, soon.0))
            .count()
            .get_result(db.0)?,
    })
}

/// Replaces the name of a person who was deleted since in the notices about their requests.
pub fn replace_names(db: &mut Db<'_>, replaced: impl Fn(&str) -> String) -> Result<(), Error> {
    let all: Vec<(i64, String, String)> = notices::table
        .filter(notices::kind.eq(Kind::AccessRequested.as_str()))
        .select((notices::number, notices::title, notices::body))
        .load(db.0)?;
    for (number, title, body) in all {
        let (new_title, new_body) = (replaced(&title), replaced(&body));
        if new_title != title || new_body != body {
            diesel::update(notices::table.find(number))
                .set((notices::title.eq(new_title), notices::body.eq(new_body)))
                .execute(db.0)?;
        }
    }
    Ok(())
}
