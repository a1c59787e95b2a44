//! The rules of the leak alarm: a viewer's token that is used while its viewer is not at the app
//! suggests that the app shares one client between its viewers (a module global, a shared cache).
//!
//! Session tokens name the process that received them, where an item has several ([`ProcessId`]),
//! so presence is compared per process. This module judges; `service::auditing::leaks` collects
//! presence and uses, and reports.

use super::{
    Id, Timestamp,
    content::{Content, ProcessId},
    person::Person,
};
use std::time::Duration;

/// The kind of suspicious use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::EnumString, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum LeakKind {
    /// The token was exchanged long after its viewer had left.
    LongAfter,
    /// The token was exchanged while only other viewers were present.
    WhileOthers,
}

impl LeakKind {
    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
    /// The inverse of [`LeakKind::as_str`]; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
    /// Completes the sentence "X's token was used …".
    pub const fn words(self) -> &'static str {
        match self {
            LeakKind::LongAfter => "long after they had left",
            LeakKind::WhileOthers => "while only others were there",
        }
    }
}

/// Suspicious uses of one viewer's token at one item.
#[derive(Clone, Debug)]
pub struct Leak {
    pub content: Id<Content>,
    pub person: Id<Person>,
    pub kind: LeakKind,
    pub first_at: Timestamp,
    pub last_at: Timestamp,
    /// Number of uses.
    pub times: i64,
}

/// Absence that is suspicious by itself. Shorter is not: an app may finish work that its viewer
/// started.
const SUSPICIOUS_ABSENCE: Duration = Duration::from_secs(600);
/// Absence that is suspicious while other viewers are present. Larger than the resolution of
/// presence, one minute.
const SUSPICIOUS_ABSENCE_WITH_OTHERS: Duration = Duration::from_secs(180);
/// A viewer who was seen this recently counts as present.
const PRESENT_WITHIN: Duration = Duration::from_secs(90);

/// One viewer's last stay at one process of an item.
#[derive(Clone, Copy, Debug)]
pub struct Visit {
    pub person: Id<Person>,
    pub process: ProcessId,
    /// When the viewer came.
    pub since: Timestamp,
    pub seen_at: Timestamp,
}

/// The entries that may concern `process`. [`ProcessId::ONLY`] matches every process: if the item
/// gained or lost its other processes, older presence cannot be attributed.
fn visits_at(process: ProcessId, visits: &[Visit]) -> impl Iterator<Item = &Visit> {
    visits.iter().filter(move |visit| {
        visit.process == process || visit.process.is_only() || process.is_only()
    })
}

/// Judges one use of a viewer's token by a process, shortly after the use. `None` if it is not
/// suspicious, or if the viewer's presence at the process is unknown.
pub fn judge(
    viewer: Id<Person>,
    process: ProcessId,
    used_at: Timestamp,
    visits: &[Visit],
) -> Option<LeakKind> {
    let away = absence(viewer, process, used_at, visits)?;
    // Viewers who arrived after the use do not count.
    let others = visits_at(process, visits).any(|visit| {
        visit.person != viewer
            && used_at.since(visit.seen_at) < PRESENT_WITHIN
            && visit.since <= used_at
    });
    // No other viewer is at this process, and the token's viewer is at another process of the item:
    // the processes share their app sessions.
    let elsewhere = visits
        .iter()
        .any(|visit| visit.person == viewer && used_at.since(visit.seen_at) < PRESENT_WITHIN);
    match (others, elsewhere) {
        (false, true) => None,
        _ if away >= SUSPICIOUS_ABSENCE => Some(LeakKind::LongAfter),
        (true, _) => Some(LeakKind::WhileOthers),
        _ => None,
    }
}

/// How long the viewer had been away from the process when it used their token. `None` if that is
/// less than three minutes, or if the viewer's presence there is unknown.
pub fn absence(
    viewer: Id<Person>,
    process: ProcessId,
    used_at: Timestamp,
    visits: &[Visit],
) -> Option<Duration> {
    let seen_at = visits_at(process, visits)
        .filter(|visit| visit.person == viewer)
        .map(|visit| visit.seen_at)
        .max()?;
    // `since` is zero if the viewer was seen after the use.
    Some(used_at.since(seen_at)).filter(|away| *away >= SUSPICIOUS_ABSENCE_WITH_OTHERS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::content::Process;

    #[test]
    fn a_use_is_suspicious_only_while_its_viewer_is_absent() {
        let (vera, viktor) = (Id::random(), Id::random());
        let at = |seconds: i64| Timestamp(seconds * 1000);
        let visit = |person, seen: i64| Visit {
            person,
            process: ProcessId::ONLY,
            since: at(seen).minus(Duration::from_secs(30)),
            seen_at: at(seen),
        };
        let alone = |seen: i64| judge(vera, ProcessId::ONLY, at(10_000), &[visit(vera, seen)]);
        assert_eq!(alone(10_000), None);
        assert_eq!(
            alone(9_500),
            None,
            "what a viewer began may end without them"
        );
        assert_eq!(alone(9_400), Some(LeakKind::LongAfter));
        assert_eq!(alone(10_050), None, "seen after the use");
        let both = |seen: i64, other: i64| {
            judge(
                vera,
                ProcessId::ONLY,
                at(10_000),
                &[visit(viktor, other), visit(vera, seen)],
            )
        };
        assert_eq!(both(9_800, 9_990), Some(LeakKind::WhileOthers));
        assert_eq!(both(9_900, 9_990), None);
        assert_eq!(both(9_800, 9_700), None, "nobody else was there");
        assert_eq!(
            both(9_800, 10_010),
            Some(LeakKind::WhileOthers),
            "seen again since"
        );
        assert_eq!(both(9_800, 10_060), None, "the other one came later");
        assert_eq!(
            judge(vera, ProcessId::ONLY, at(10_000), &[visit(viktor, 9_990)]),
            None,
            "nothing is known of the viewer"
        );
    }
    #[test]
    fn presence_at_one_process_does_not_excuse_another() {
        let (vera, viktor) = (Id::random(), Id::random());
        let [one, two] = ["http://a", "http://b"].map(|url| {
            ProcessId::of(&Process {
                url: url.into(),
                draining: false,
            })
        });
        let at = |seconds: i64| Timestamp(seconds * 1000);
        let visit = |person, process, seen: i64| Visit {
            person,
            process,
            since: at(seen).minus(Duration::from_secs(30)),
            seen_at: at(seen),
        };
        let moved = [
            visit(vera, one, 9_000),
            visit(vera, two, 9_999),
            visit(viktor, one, 9_999),
        ];
        assert_eq!(
            judge(vera, one, at(10_000), &moved),
            Some(LeakKind::LongAfter)
        );
        assert_eq!(judge(vera, two, at(10_000), &moved), None);
        assert_eq!(judge(viktor, one, at(10_000), &moved), None);
        let alone = [visit(vera, one, 9_000), visit(vera, two, 9_999)];
        assert_eq!(
            judge(vera, one, at(10_000), &alone),
            None,
            "nobody is at the other process: they share their sessions"
        );
        let apart = [visit(vera, one, 9_800), visit(viktor, two, 9_999)];
        assert_eq!(
            judge(vera, one, at(10_000), &apart),
            None,
            "the others are elsewhere"
        );
        assert_eq!(
            judge(
                vera,
                one,
                at(10_000),
                &[visit(vera, one, 9_800), visit(viktor, one, 9_999)]
            ),
            Some(LeakKind::WhileOthers)
        );
        assert_eq!(
            judge(
                vera,
                one,
                at(10_000),
                &[visit(vera, one, 9_000), visit(vera, ProcessId::ONLY, 9_999)]
            ),
            None,
            "the item had one process"
        );
        assert_eq!(
            judge(
                vera,
                ProcessId::ONLY,
                at(10_000),
                &[visit(vera, one, 9_999)]
            ),
            None
        );
    }
}
