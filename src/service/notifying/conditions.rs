//! What nobody does, and somebody must know: a provider that does not work, a disk that fills, a backup
//! that is missing, a changed audit log, keys that nobody uses; and the week in numbers.
//!
//! A condition that lasts is told once a day ([`Notice::once`]), a missing backup and an unused key less
//! often.

use super::notices::Notices;
use crate::{
    domain::{
        Timestamp, addresses,
        notice::{Kind, Notice},
    },
    service::{
        cluster::{health::Health, node::Nodes},
        core::Core,
        error::Error,
        grants::backoff::Backoff,
    },
    store::{self, notices::WeekInNumbers},
};
use std::{sync::Arc, time::Duration};

const DAY: Duration = Duration::from_secs(86_400);
/// How long a provider has not worked before somebody is told.
const UNREACHABLE_FOR: Duration = Duration::from_secs(600);
/// Age of the last backup that is too old.
const BACKUP_WITHIN: Duration = Duration::from_secs(2 * 86_400);
/// An API key that was not used for so long may go.
const KEY_UNUSED_FOR: Duration = Duration::from_secs(180 * 86_400);
/// Keys that one round tells of.
const KEYS_PER_ROUND: i64 = 100;

/// Looks at conditions.
pub struct Conditions {
    core: Arc<Core>,
    notices: Arc<Notices>,
    backoff: Arc<Backoff>,
    nodes: Arc<Nodes>,
}

impl Conditions {
    pub(in crate::service) fn new(
        core: Arc<Core>,
        notices: Arc<Notices>,
        backoff: Arc<Backoff>,
        nodes: Arc<Nodes>,
    ) -> Self {
        Self {
            core,
            notices,
            backoff,
            nodes,
        }
    }

    /// What this node knows of itself and of providers. Every node looks each minute.
    pub async fn look_at_node(&self, health: &Health) -> Result<(), Error> {
        let now = self.core.now();
        let day = now.day();
        for (id, sentence) in self.backoff.broken_for(UNREACHABLE_FOR) {
            let found = self
                .core
                .store
                .read(move |db| Ok::<_, Error>(store::integrations::find(db, id)?));
            let Some(integration) = found.await? else {
                continue;
            };
            self.notices
                .tell(Notice {
                    kind: Kind::ProviderUnreachable,
                    person: None,
                    title: format!("{} has not worked for ten minutes", integration.display_name()),
                    body: format!("{sentence} Consents are kept; content gets tokens again as soon as the provider works."),
                    path: addresses::integration(id),
                    once: Some(format!("provider_unreachable {id} {day}")),
                })
                .await?;
        }
        if health.is_disk_low() {
            let node = self.nodes.name();
            self.notices
                .tell(Notice {
                    kind: Kind::DiskLow,
                    person: None,
                    title: "Less than 10 % of the disk is free".into(),
                    body: format!(
                        "On the node {node}, where {} is. Below 64 MiB it takes no more requests.",
                        self.core.settings.data_dir.display()
                    ),
                    path: "/help/operator#health-and-logs".into(),
                    once: Some(format!("disk_low {node} {day}")),
                })
                .await?;
        }
        Ok(())
    }

    /// What concerns the whole installation. The leader looks every ten minutes.
    pub async fn look_at_installation(&self, audit_is_whole: Option<bool>) -> Result<(), Error> {
        let now = self.core.now();
        let day = now.day();
        if audit_is_whole == Some(false) {
            self.notices
                .tell(Notice {
                    kind: Kind::AuditLogChanged,
                    person: None,
                    title: "The audit log was changed".into(),
                    body: "A sealed record is not what was written, or one is missing. `valetkey audit verify` says which. Find out who can write to the database.".into(),
                    path: "/audit".into(),
                    once: Some(format!("audit_log_changed {day}")),
                })
                .await?;
        }
        let backed_up = self.core.backed_up_at().await?;
        let since = match backed_up {
            Some(at) => Some(at),
            None => {
                self.core
                    .store
                    .read(|db| Ok::<_, Error>(store::people::first_created(db)?))
                    .await?
            }
        };
        if since.is_some_and(|since| now.since(since) > BACKUP_WITHIN) {
            let said = backed_up.map_or_else(
                || "`valetkey backup` has never written one.".to_owned(),
                |at| format!("`valetkey backup` last wrote one on {}.", at.rfc3339()),
            );
            self.notices
                .tell(Notice {
                    kind: Kind::BackupOverdue,
                    person: None,
                    title: "There is no backup of the last two days".into(),
                    body: format!(
                        "{said} Without one, what is stored since then is lost with the disk."
                    ),
                    path: "/help/operator#backups".into(),
                    once: Some(format!("backup_overdue {}", now.day() / 3)),
                })
                .await?;
        }
        self.look_at_keys(now).await?;
        self.send_digest(now).await
    }

    async fn look_at_keys(&self, now: Timestamp) -> Result<(), Error> {
        let before = now.minus(KEY_UNUSED_FOR);
        let unused = self
            .core
            .store
            .read(move |db| {
                Ok::<_, Error>(store::notices::unused_keys(db, before, KEYS_PER_ROUND)?)
            })
            .await?;
        for key in unused {
            self.notices
                .tell(Notice {
                    kind: Kind::ApiKeyUnused,
                    person: Some(key.person),
                    title: format!("Your API key {} was not used for 180 days", key.name),
                    body: "If nothing needs it any more, delete it: a key that nobody misses is one that nobody guards.".into(),
                    path: "/account/keys".into(),
                    once: Some(store::notices::unused_key_once(key.number)),
                })
                .await?;
        }
        Ok(())
    }

    /// The week in numbers, on Mondays from seven o'clock on (UTC).
    async fn send_digest(&self, now: Timestamp) -> Result<(), Error> {
        let at = time::OffsetDateTime::from_unix_timestamp(now.unix_seconds());
        let Some(at) = at
            .ok()
            .filter(|at| at.weekday() == time::Weekday::Monday && at.hour() >= 7)
        else {
            return Ok(());
        };
        let since = now.minus(DAY.saturating_mul(7));
        let soon = now.plus(DAY.saturating_mul(30));
        let week = self
            .core
            .store
            .read(move |db| Ok::<_, Error>(store::notices::week_in_numbers(db, since, soon, now)?))
            .await?;
        let date = at.date();
        self.notices
            .tell(Notice {
                kind: Kind::WeeklyDigest,
                person: None,
                title: format!("The week until {date}"),
                body: digest(&week),
                path: "/audit/uses".into(),
                once: Some(format!("weekly_digest {date}")),
            })
            .await
    }
}

fn digest(week: &WeekInNumbers) -> String {
    let mut lines = vec![
        format!(
            "{} people have an account, {} signed in this week.",
            week.people, week.active
        ),
        format!(
            "{} consents, {} of them given this week.",
            week.consents, week.new_consents
        ),
        format!(
            "{} connections work, {} need their viewer.",
            week.connections, week.need_viewer
        ),
        format!("{} tokens were handed to content.", week.exchanges),
    ];
    if week.secrets_ending > 0 {
        lines.push(format!(
            "{} client secrets expire within 30 days.",
            week.secrets_ending
        ));
    }
    lines.join("\n")
}
