//! Plots, drawn on the server as SVG: bars for counts, a line for levels, and shares of a whole. No
//! script and nothing that only shows on hover: each has a caption that says the finding in words,
//! and a table of the same numbers.
//!
//! The drawing is stretched to the width of the page, so its text is HTML beside it.

use crate::{
    domain::Timestamp,
    web::view::{Now, grouped},
};
use std::{collections::BTreeMap, time::Duration};

/// Height of a drawing, in its own units; a step is [`STEP`] wide.
const HEIGHT: i64 = 100;
const STEP: usize = 10;
/// Space between two bars.
const GAP: usize = 2;

/// A plot over time.
pub struct Plot {
    pub title: &'static str,
    /// The finding, in words.
    pub caption: String,
    /// `accent` or `negative`.
    pub tone: &'static str,
    /// Width of the drawing in its own units.
    pub width: usize,
    /// The bars, as the data of a path; empty for none.
    pub bars: String,
    /// The points of the line, if it is a level.
    pub line: Option<String>,
    /// The greatest value, and the first and last step: the words on the axes.
    pub most: String,
    pub first: String,
    pub last: String,
    /// The heading of the table's first column.
    pub unit: &'static str,
    /// The steps with a value, and their numbers.
    pub rows: Vec<(String, String)>,
}

/// A stretch of time that plots cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    Day,
    Month,
    Year,
}

impl Range {
    /// All of them: the value in the address, and the words of the link.
    pub const ALL: [(Range, &'static str, &'static str); 3] = [
        (Range::Day, "day", "Last 24 hours"),
        (Range::Month, "month", "Last 30 days"),
        (Range::Year, "year", "Last 400 days"),
    ];

    /// The one that an address asks for.
    pub fn parse(text: &str) -> Self {
        let found = Self::ALL.iter().find(|(_, word, _)| *word == text);
        found.map_or(Range::Day, |(range, ..)| *range)
    }

    /// The length of a step.
    pub const fn step(self) -> Duration {
        match self {
            Range::Day => Duration::from_secs(3600),
            Range::Month | Range::Year => Duration::from_secs(86_400),
        }
    }

    /// The number of steps, the current one included.
    const fn steps(self) -> u32 {
        match self {
            Range::Day => 24,
            Range::Month => 30,
            Range::Year => 400,
        }
    }

    /// The start of the first step, in whole hours or days of UTC.
    pub fn since(self, now: Timestamp) -> Timestamp {
        now.start_of(self.step())
            .minus(self.step() * (self.steps() - 1))
    }

    /// In words, as the end of a sentence.
    pub const fn words(self) -> &'static str {
        match self {
            Range::Day => "in the last 24 hours",
            Range::Month => "in the last 30 days",
            Range::Year => "in the last 400 days",
        }
    }

    const fn unit(self) -> &'static str {
        match self {
            Range::Day => "Hour",
            Range::Month | Range::Year => "Day (UTC)",
        }
    }

    /// The label of the step that starts at `start`.
    fn label(self, start: Timestamp, now: Now) -> String {
        match self {
            Range::Day => now.hour(start),
            // Days are those of UTC, whatever the reader's zone is.
            Range::Month | Range::Year => start.date(),
        }
    }

    /// The starts of all steps.
    fn starts(self, now: Timestamp) -> impl Iterator<Item = Timestamp> {
        let (since, step) = (self.since(now), self.step());
        (0..self.steps()).map(move |number| since.plus(step * number))
    }
}

/// The values of a plot, by the start of their step.
pub type Values = BTreeMap<Timestamp, i64>;

/// Counts as bars. `nouns`: one and many of what is counted.
pub fn bars(
    title: &'static str,
    tone: &'static str,
    range: Range,
    nouns: (&str, &str),
    values: &Values,
    now: Now,
) -> Plot {
    let mut plot = frame(title, tone, range, values, now);
    let total: i64 = values.values().sum();
    let peak = values.iter().max_by_key(|(_, times)| **times);
    plot.caption = match peak {
        Some((at, times)) if total > 0 => format!(
            "{} {} {}; most ({}) {} {}.",
            grouped(total),
            if total == 1 { nouns.0 } else { nouns.1 },
            range.words(),
            grouped(*times),
            if range == Range::Day { "at" } else { "on" },
            range.label(*at, now)
        ),
        _ => format!("No {} {}.", nouns.1, range.words()),
    };
    let most = greatest(values).max(1);
    plot.bars = range
        .starts(*now)
        .enumerate()
        .filter_map(|(place, start)| {
            let times = values.get(&start).copied().filter(|times| *times > 0)?;
            let height = (times * HEIGHT / most).max(2);
            let (x, width) = (place * STEP, STEP - GAP);
            Some(format!("M{x} {HEIGHT}v-{height}h{width}v{height}z"))
        })
        .collect();
    plot
}

/// A level as a line. A step without a value has that of the step before.
pub fn line(title: &'static str, range: Range, noun: &str, values: &Values, now: Now) -> Plot {
    let mut plot = frame(title, "accent", range, values, now);
    let most = greatest(values).max(1);
    let (mut points, mut level, mut first) = (Vec::new(), 0, None);
    for (place, start) in range.starts(*now).enumerate() {
        if let Some(value) = values.get(&start) {
            level = *value;
            first.get_or_insert(level);
        }
        points.push(format!(
            "{},{}",
            place * STEP + STEP / 2,
            HEIGHT - level * HEIGHT / most
        ));
    }
    plot.line = (!values.is_empty()).then(|| points.join(" "));
    plot.caption = match first {
        Some(first) => format!(
            "{level} {noun} now; {first} at first, {} at most.",
            plot.most
        ),
        None => format!("Nothing is known yet about {noun}: it is counted once a day."),
    };
    plot
}

fn greatest(values: &Values) -> i64 {
    values.values().copied().max().unwrap_or(0)
}

/// A plot without a drawing.
fn frame(title: &'static str, tone: &'static str, range: Range, values: &Values, now: Now) -> Plot {
    let first = range.since(*now);
    Plot {
        title,
        caption: String::new(),
        tone,
        width: range.starts(*now).count() * STEP,
        bars: String::new(),
        line: None,
        most: grouped(greatest(values)),
        first: range.label(first, now),
        last: "now".to_owned(),
        unit: range.unit(),
        rows: values
            .iter()
            .rev()
            .map(|(start, times)| (range.label(*start, now), grouped(*times)))
            .collect(),
    }
}

/// Parts of a whole, or the steps of a funnel: a bar and a number for each.
pub struct Shares {
    pub title: &'static str,
    pub caption: String,
    pub tone: &'static str,
    /// The heading of the first column.
    pub unit: &'static str,
    pub rows: Vec<Share>,
}

/// One part of [`Shares`].
pub struct Share {
    pub label: String,
    /// What to do about it; empty for nothing.
    pub advice: &'static str,
    pub times: String,
    /// Per cent of the greatest one.
    pub percent: i64,
}

impl Shares {
    /// Shares in the order given.
    pub fn new(
        title: &'static str,
        tone: &'static str,
        unit: &'static str,
        caption: String,
        parts: Vec<(String, &'static str, i64)>,
    ) -> Self {
        let most = parts.iter().map(|part| part.2).max().unwrap_or(0).max(1);
        Self {
            title,
            caption,
            tone,
            unit,
            rows: parts
                .into_iter()
                .map(|(label, advice, times)| Share {
                    label,
                    advice,
                    times: grouped(times),
                    percent: times * 100 / most,
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Timestamp = Timestamp(1_769_860_800_000);

    #[test]
    fn bars_stand_at_their_hour_and_the_caption_says_what_they_show() {
        let now = Now::utc(NOON.plus(Duration::from_secs(600)));
        let hour = Duration::from_secs(3600);
        let values = Values::from([(NOON, 4), (NOON.minus(hour * 2), 8)]);
        let plot = bars(
            "Exchanges",
            "accent",
            Range::Day,
            ("exchange", "exchanges"),
            &values,
            now,
        );
        assert_eq!(plot.bars, "M210 100v-100h8v100zM230 100v-50h8v50z");
        assert_eq!(
            plot.caption,
            "12 exchanges in the last 24 hours; most (8) at 10:00 UTC."
        );
        assert_eq!(plot.rows[0], ("12:00 UTC".into(), "4".into()));
        let empty = bars(
            "Exchanges",
            "accent",
            Range::Month,
            ("a", "exchanges"),
            &Values::new(),
            now,
        );
        assert_eq!(empty.caption, "No exchanges in the last 30 days.");
        assert!(empty.bars.is_empty());
    }

    #[test]
    fn a_level_holds_until_the_next_value() {
        let now = Now::utc(NOON);
        let day = Duration::from_secs(86_400);
        let today = Range::Month.since(NOON).plus(day * 29);
        let values = Values::from([(today.minus(day * 3), 2), (today, 4)]);
        let plot = line("People", Range::Month, "people", &values, now);
        let points = plot.line.expect("a line");
        let heights: Vec<&str> = points.split(' ').rev().take(5).collect();
        let ends: Vec<&str> = heights
            .iter()
            .filter_map(|point| point.split_once(','))
            .map(|(_, y)| y)
            .collect();
        assert_eq!(ends, ["0", "50", "50", "50", "100"]);
        assert_eq!(plot.caption, "4 people now; 2 at first, 4 at most.");
    }

    #[test]
    fn shares_are_measured_by_the_greatest() {
        let parts = vec![("a".to_owned(), "", 8), ("b".to_owned(), "", 2)];
        let shares = Shares::new("t", "accent", "u", String::new(), parts);
        let percents: Vec<i64> = shares.rows.iter().map(|row| row.percent).collect();
        assert_eq!(percents, [100, 25]);
    }
}
