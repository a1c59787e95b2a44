//! A viewer's token in use while its viewer is elsewhere: the sign of a connection that an app shares between its viewers.

use super::{Id, Timestamp, content::Content, person::Person};
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
        [Self::LongAfter, Self::WhileOthers].into_iter().find(|kind| kind.as_str() == text)
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
/// With others there, and nobody's own request behind it, a shorter time is enough. Presence is known to a minute.
const SHORT: Duration = Duration::from_secs(180);
const THERE: Duration = Duration::from_secs(90);

/// Judges one use of a viewer's token. `present`: who was at the item, and when last. Somebody of whom nothing is known is not
/// suspected.
pub fn judge(viewer: Id<Person>, used_at: Timestamp, present: &[(Id<Person>, Timestamp)]) -> Option<Kind> {
    let (_, seen_at) = present.iter().find(|(person, _)| *person == viewer)?;
    // `since` is zero for what lies ahead.
    let away = used_at.since(*seen_at);
    if away >= LONG {
        return Some(Kind::LongAfter);
    }
    let others = present.iter().any(|(person, at)| *person != viewer && used_at.since(*at) < THERE);
    (away >= SHORT && others).then_some(Kind::WhileOthers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_suspicious_only_without_its_viewer() {
        let (vera, viktor) = (Id::random(), Id::random());
        let at = |seconds: i64| Timestamp(seconds * 1000);
        let alone = |seen: i64| judge(vera, at(10_000), &[(vera, at(seen))]);
        assert_eq!(alone(10_000), None);
        assert_eq!(alone(9_500), None, "what a viewer began may end without them");
        assert_eq!(alone(9_400), Some(Kind::LongAfter));
        assert_eq!(alone(10_050), None, "seen after the use");
        let both = |seen: i64, other: i64| judge(vera, at(10_000), &[(viktor, at(other)), (vera, at(seen))]);
        assert_eq!(both(9_800, 9_990), Some(Kind::WhileOthers));
        assert_eq!(both(9_900, 9_990), None);
        assert_eq!(both(9_800, 9_700), None, "nobody else was there");
        assert_eq!(judge(vera, at(10_000), &[(viktor, at(9_990))]), None, "nothing is known of the viewer");
    }
}
