//! A viewer's token in use while its viewer is elsewhere: the sign of a connection that an app
//! shares between its viewers.

use super::{
    Id, Timestamp,
    content::{Content, Mark},
    person::Person,
};
use std::time::Duration;

/// What was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Traded long after its viewer had left.
    LongAfter,
    /// Traded while only others were there.
    WhileOthers,
}

impl Kind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::LongAfter => "long_after",
            Kind::WhileOthers => "while_others",
        }
    }
    pub fn parse(text: &str) -> Option<Self> {
        [Self::LongAfter, Self::WhileOthers]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }
    /// In words, behind "X's token was used".
    pub const fn words(self) -> &'static str {
        match self {
            Kind::LongAfter => "long after they had left",
            Kind::WhileOthers => "while only others were there",
        }
    }
}

/// What was seen of one viewer's token at one item.
#[derive(Clone, Debug)]
pub struct Leak {
    pub content: Id<Content>,
    pub person: Id<Person>,
    pub kind: Kind,
    pub first_at: Timestamp,
    pub last_at: Timestamp,
    pub times: i64,
}

/// An app may finish what its viewer began.
const LONG: Duration = Duration::from_secs(600);
/// With others there, and nobody's own request behind it, a shorter time is enough. Presence is
/// known to a minute.
const SHORT: Duration = Duration::from_secs(180);
const THERE: Duration = Duration::from_secs(90);
/// A use is looked at within this time, and who is there goes on being seen.
const AFTER: Duration = Duration::from_secs(15);

/// Who was at an item, at which of its processes, and when last.
#[derive(Clone, Copy, Debug)]
pub struct Stay {
    pub person: Id<Person>,
    pub process: Mark,
    pub seen_at: Timestamp,
}

/// Who was at a process. Where an item got or lost its other processes, people of the time before
/// are at none of them, or at any.
fn here(process: Mark, stays: &[Stay]) -> impl Iterator<Item = &Stay> {
    stays
        .iter()
        .filter(move |stay| stay.process == process || stay.process.is_only() || process.is_only())
}

/// Judges one use of a viewer's token by a process, soon after it. Somebody of whom nothing is
/// known is not suspected.
pub fn judge(
    viewer: Id<Person>,
    process: Mark,
    used_at: Timestamp,
    stays: &[Stay],
) -> Option<Kind> {
    let away = away(viewer, process, used_at, stays)?;
    // Not those who came after it.
    let others = here(process, stays).any(|stay| {
        stay.person != viewer
            && used_at.since(stay.seen_at) < THERE
            && stay.seen_at.since(used_at) < AFTER
    });
    // With others nowhere near, and its viewer at another process, that one uses the token: they
    // keep their sessions together.
    let elsewhere = stays
        .iter()
        .any(|stay| stay.person == viewer && used_at.since(stay.seen_at) < THERE);
    match (others, elsewhere) {
        (false, true) => None,
        _ if away >= LONG => Some(Kind::LongAfter),
        (true, _) => Some(Kind::WhileOthers),
        _ => None,
    }
}

/// How long a viewer was away from a process when it used their token, if so long that it is odd;
/// `None` as well for somebody of whom nothing is known.
pub fn away(
    viewer: Id<Person>,
    process: Mark,
    used_at: Timestamp,
    stays: &[Stay],
) -> Option<Duration> {
    let seen_at = here(process, stays)
        .filter(|stay| stay.person == viewer)
        .map(|stay| stay.seen_at)
        .max()?;
    // `since` is zero for what lies ahead.
    Some(used_at.since(seen_at)).filter(|away| *away >= SHORT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::content::Process;

    #[test]
    fn a_token_is_suspicious_only_without_its_viewer() {
        let (vera, viktor) = (Id::random(), Id::random());
        let at = |seconds: i64| Timestamp(seconds * 1000);
        let stay = |person, seen: i64| Stay {
            person,
            process: Mark::ONLY,
            seen_at: at(seen),
        };
        let alone = |seen: i64| judge(vera, Mark::ONLY, at(10_000), &[stay(vera, seen)]);
        assert_eq!(alone(10_000), None);
        assert_eq!(
            alone(9_500),
            None,
            "what a viewer began may end without them"
        );
        assert_eq!(alone(9_400), Some(Kind::LongAfter));
        assert_eq!(alone(10_050), None, "seen after the use");
        let both = |seen: i64, other: i64| {
            judge(
                vera,
                Mark::ONLY,
                at(10_000),
                &[stay(viktor, other), stay(vera, seen)],
            )
        };
        assert_eq!(both(9_800, 9_990), Some(Kind::WhileOthers));
        assert_eq!(both(9_900, 9_990), None);
        assert_eq!(both(9_800, 9_700), None, "nobody else was there");
        assert_eq!(
            both(9_800, 10_010),
            Some(Kind::WhileOthers),
            "seen again since"
        );
        assert_eq!(both(9_800, 10_060), None, "the other one came later");
        assert_eq!(
            judge(vera, Mark::ONLY, at(10_000), &[stay(viktor, 9_990)]),
            None,
            "nothing is known of the viewer"
        );
    }
    #[test]
    fn a_viewer_at_one_process_is_no_excuse_for_another() {
        let (vera, viktor) = (Id::random(), Id::random());
        let [one, two] = ["http://a", "http://b"].map(|url| {
            Mark::of(&Process {
                url: url.into(),
                draining: false,
            })
        });
        let at = |seconds: i64| Timestamp(seconds * 1000);
        let stay = |person, process, seen: i64| Stay {
            person,
            process,
            seen_at: at(seen),
        };
        let moved = [
            stay(vera, one, 9_000),
            stay(vera, two, 9_999),
            stay(viktor, one, 9_999),
        ];
        assert_eq!(judge(vera, one, at(10_000), &moved), Some(Kind::LongAfter));
        assert_eq!(judge(vera, two, at(10_000), &moved), None);
        assert_eq!(judge(viktor, one, at(10_000), &moved), None);
        let alone = [stay(vera, one, 9_000), stay(vera, two, 9_999)];
        assert_eq!(
            judge(vera, one, at(10_000), &alone),
            None,
            "nobody is at the other process: they share their sessions"
        );
        let apart = [stay(vera, one, 9_800), stay(viktor, two, 9_999)];
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
                &[stay(vera, one, 9_800), stay(viktor, one, 9_999)]
            ),
            Some(Kind::WhileOthers)
        );
        assert_eq!(
            judge(
                vera,
                one,
                at(10_000),
                &[stay(vera, one, 9_000), stay(vera, Mark::ONLY, 9_999)]
            ),
            None,
            "the item had one process"
        );
        assert_eq!(
            judge(vera, Mark::ONLY, at(10_000), &[stay(vera, one, 9_999)]),
            None
        );
    }
}
