//! What the page of an item or an integration says first: whether it works, since when it does not,
//! and whose turn it is. One line for each finding, the worst first.

use crate::{
    domain::{
        activity::{Activity, REFUSALS},
        integration::{Integration, SecretHealth},
    },
    providers,
    service::Services,
    store::activity::ActivitySum,
    web::view::{Moment, Now, Status, count_noun},
};
use std::{collections::HashMap, time::Duration};

/// How long before its expiry a client secret is reported.
const SECRET_EXPIRY_NOTICE: Duration = Duration::from_secs(60 * 86_400);

/// One finding.
pub struct HealthLine {
    pub status: Status,
    pub text: String,
    /// Since when, or when last; printed behind the text.
    pub at: Option<Moment>,
    /// Whose turn it is, and what to do; empty for nothing.
    pub advice: String,
}

impl HealthLine {
    /// A finding without time and advice.
    pub fn new(status: Status, text: impl Into<String>) -> Self {
        Self {
            status,
            text: text.into(),
            at: None,
            advice: String::new(),
        }
    }

    /// With its time.
    pub fn at(self, at: Moment) -> Self {
        Self {
            at: Some(at),
            ..self
        }
    }

    /// With what to do about it.
    pub fn advice(self, advice: impl Into<String>) -> Self {
        Self {
            advice: advice.into(),
            ..self
        }
    }
}

/// Sorts the worst first.
pub fn sort(lines: &mut [HealthLine]) {
    lines.sort_by_key(|line| match line.status.tone {
        "negative" => 0,
        "warning" => 1,
        "positive" => 2,
        _ => 3,
    });
}

/// What is wrong with an integration, or will be soon; `None` if nothing is known to be.
pub fn integration_trouble(
    service: &Services,
    integration: &Integration,
    now: Now,
) -> Option<HealthLine> {
    if let Some(since) = integration.paused_at {
        let line = HealthLine::new(Status::warning("Paused"), "by an administrator");
        return Some(
            line.at(Moment::new(since, now))
                .advice("Hands out no tokens and asks nobody; consents and connections are kept. An administrator can resume it on its page."),
        );
    }
    let is_rejected = matches!(integration.secret_health, SecretHealth::Rejected { .. });
    match service.backoff.pause_of_provider(integration.id) {
        Some(sentence) if !is_rejected => Some(
            HealthLine::new(Status::negative("Provider unreachable"), sentence).advice(
                "The portal tries again by itself. Tokens that are still valid go on working.",
            ),
        ),
        _ => secret_trouble(integration, now),
    }
}

/// What is wrong with a client secret, or will be within [`SECRET_EXPIRY_NOTICE`].
pub fn secret_trouble(integration: &Integration, now: Now) -> Option<HealthLine> {
    match &integration.secret_health {
        SecretHealth::NotNeeded => return None,
        SecretHealth::Rejected { at, cause } => {
            let provider = providers::names(integration).provider;
            let status = Status::negative(format!("Rejected by {provider}"));
            return Some(
                HealthLine::new(status, cause.clone())
                    .at(Moment::new(*at, now))
                    .advice(
                        "An administrator replaces the client secret on the integration’s page.",
                    ),
            );
        }
        SecretHealth::Works { .. } | SecretHealth::Untried => {}
    }
    let end = integration.secret_expires_at?;
    if end <= *now {
        return Some(
            HealthLine::new(Status::negative("Expired"), "The client secret ended")
                .at(Moment::new(end, now))
                .advice("An administrator replaces the client secret on the integration’s page."),
        );
    }
    if end.since(*now) > SECRET_EXPIRY_NOTICE {
        return None;
    }
    let days = end.since(*now).as_secs() / 86_400;
    let word = match days {
        0 => "Expires today".to_owned(),
        days => format!("Expires in {}", count_noun(days, "day", "days")),
    };
    Some(
        HealthLine::new(
            Status::warning(word),
            format!("The client secret ends on {}.", now.date(end)),
        )
        .advice("Then nobody can connect or stay connected. An administrator replaces it before."),
    )
}

/// Refusals that belong to daily life: viewers who leave, or have not been asked yet.
const USUAL: [Activity; 4] = [
    Activity::SessionEnded,
    Activity::TokenExpired,
    Activity::NotConsented,
    Activity::NotConnected,
];

/// Kinds of refusals that are shown, at most.
const MAX_REFUSALS: usize = 3;

/// The last exchange and the refusals of the last 24 hours, of which `sums` are.
pub fn exchange_lines(sums: &[ActivitySum], now: Now) -> Vec<HealthLine> {
    let mut by_kind: HashMap<Activity, ActivitySum> = HashMap::new();
    for sum in sums {
        let known = by_kind
            .entry(sum.kind)
            .or_insert(ActivitySum { times: 0, ..*sum });
        known.times += sum.times;
        known.last_at = known.last_at.max(sum.last_at);
    }
    let exchanged = by_kind.get(&Activity::Exchanged);
    let mut lines = vec![match exchanged {
        Some(sum) => HealthLine::new(
            Status::positive("Works"),
            format!(
                "{} in the last 24 hours, the last one",
                count_noun(sum.times, "exchange", "exchanges")
            ),
        )
        .at(Moment::new(sum.last_at, now)),
        None => HealthLine::new(
            Status::neutral("Quiet"),
            "No exchange in the last 24 hours.",
        ),
    }];
    let mut refused: Vec<&ActivitySum> = REFUSALS
        .iter()
        .filter_map(|kind| by_kind.get(kind))
        .collect();
    refused.sort_by_key(|sum| std::cmp::Reverse((!USUAL.contains(&sum.kind), sum.last_at)));
    for sum in refused.into_iter().take(MAX_REFUSALS) {
        // Since the last refusal of this kind it may have been mended.
        let is_over = exchanged.is_some_and(|exchanged| exchanged.last_at > sum.last_at);
        let word = format!("{} refused", sum.times);
        let status = if USUAL.contains(&sum.kind) || is_over {
            Status::warning(word)
        } else {
            Status::negative(word)
        };
        lines.push(
            HealthLine::new(status, format!("{}; last", capitalised(sum.kind.words())))
                .at(Moment::new(sum.last_at, now))
                .advice(sum.kind.advice()),
        );
    }
    lines
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}
