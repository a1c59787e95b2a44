//! The plots of an item or an integration, from its counts.

use crate::{
    domain::activity::{Activity, FUNNEL, REFRESHES, REFUSALS},
    store::activity::ActivitySum,
    web::{
        plot::{Plot, Range, Shares, Values, bars, line},
        view::{Now, count_noun, grouped},
    },
};

/// The links to other ranges: value, words, and whether it is the current one.
pub fn range_links(current: Range) -> Vec<(&'static str, &'static str, bool)> {
    Range::ALL
        .iter()
        .map(|(range, value, words)| (*value, *words, *range == current))
        .collect()
}

/// The values of the kinds, by step.
fn values(sums: &[ActivitySum], is_meant: impl Fn(Activity) -> bool) -> Values {
    let mut values = Values::new();
    for sum in sums.iter().filter(|sum| is_meant(sum.kind)) {
        *values.entry(sum.start).or_default() += sum.times;
    }
    values
}

fn total(sums: &[ActivitySum], kind: Activity) -> i64 {
    let meant = sums.iter().filter(|sum| sum.kind == kind);
    meant.map(|sum| sum.times).sum()
}

/// Exchanges over time.
pub fn exchanges(sums: &[ActivitySum], range: Range, now: Now) -> Plot {
    let values = values(sums, |kind| kind == Activity::Exchanged);
    let nouns = ("exchange", "exchanges");
    bars("Exchanges", "accent", range, nouns, &values, now)
}

/// Refusals over time.
pub fn refusals(sums: &[ActivitySum], range: Range, now: Now) -> Plot {
    let values = values(sums, |kind| REFUSALS.contains(&kind));
    let nouns = ("refusal", "refusals");
    bars("Refused exchanges", "negative", range, nouns, &values, now)
}

/// People connected, by day.
pub fn connected(sums: &[ActivitySum], range: Range, now: Now) -> Plot {
    let values = values(sums, |kind| kind == Activity::PeopleConnected);
    line("Connected people", range, "people", &values, now)
}

/// Refusals by their reason, the most frequent first.
pub fn reasons(sums: &[ActivitySum], range: Range) -> Shares {
    let mut parts: Vec<_> = REFUSALS
        .iter()
        .map(|kind| (kind.words().to_owned(), kind.advice(), total(sums, *kind)))
        .filter(|part| part.2 > 0)
        .collect();
    parts.sort_by_key(|part| std::cmp::Reverse(part.2));
    let caption = match parts.first() {
        Some((words, _, times)) => {
            format!(
                "Most often {}: {words} ({}).",
                range.words(),
                grouped(*times)
            )
        }
        None => format!("Nothing was refused {}.", range.words()),
    };
    Shares::new("Reasons of refusals", "negative", "Reason", caption, parts)
}

/// How far viewers came on the way to a consent.
pub fn funnel(sums: &[ActivitySum], range: Range) -> Shares {
    let (shown, connected) = (
        total(sums, Activity::ConsentShown),
        total(sums, Activity::Connected),
    );
    let caption = match (shown, connected) {
        (0, 0) => format!("Nobody was asked {}.", range.words()),
        _ => format!(
            "Asked {} {}; {} ended with a connection.",
            count_noun(shown, "time", "times"),
            range.words(),
            grouped(connected)
        ),
    };
    let parts = match shown + connected {
        0 => Vec::new(),
        _ => FUNNEL
            .iter()
            .map(|kind| (kind.words().to_owned(), "", total(sums, *kind)))
            .collect(),
    };
    Shares::new(
        "From question to connection",
        "accent",
        "Step",
        caption,
        parts,
    )
}

/// How refreshes at the provider ended.
pub fn refreshes(sums: &[ActivitySum], range: Range) -> Shares {
    let counts: Vec<i64> = REFRESHES.iter().map(|kind| total(sums, *kind)).collect();
    let all: i64 = counts.iter().sum();
    let caption = match all {
        0 => format!("No token was refreshed {}.", range.words()),
        _ => format!(
            "{} of {all} refreshes succeeded {}.",
            counts[0],
            range.words()
        ),
    };
    let parts = match all {
        0 => Vec::new(),
        _ => REFRESHES
            .iter()
            .zip(counts)
            .map(|(kind, times)| (kind.words().to_owned(), "", times))
            .collect(),
    };
    Shares::new("Refreshes", "accent", "Outcome", caption, parts)
}
