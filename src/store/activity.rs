//! Counts by the hour, item and integration: what the plots show. They are written with the other
//! bookkeeping ([`super::bookkeeping::add_activity`]).

use super::{Db, Error};
use crate::domain::{
    Id, Timestamp, activity::Activity, content::Content, integration::Integration,
};
use diesel::{
    QueryableByName, RunQueryDsl as _, sql_query,
    sql_types::{BigInt, Text},
};
use std::time::Duration;

/// What the counts are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    Content(Id<Content>),
    Integration(Id<Integration>),
}

/// The sum of one kind within one step of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActivitySum {
    /// The start of the step.
    pub start: Timestamp,
    pub kind: Activity,
    pub times: i64,
    pub last_at: Timestamp,
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = BigInt)]
    start: i64,
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = BigInt)]
    times: i64,
    #[diesel(sql_type = BigInt)]
    last_at: i64,
}

/// The sums in steps of `step` (whole hours or days in UTC) since `since`, by time and kind. A kind
/// that this version does not know is left out.
pub fn sums(
    db: &mut Db<'_>,
    about: About,
    since: Timestamp,
    step: Duration,
) -> Result<Vec<ActivitySum>, Error> {
    let (column, guid) = match about {
        About::Content(id) => ("content", id.to_string()),
        About::Integration(id) => ("integration", id.to_string()),
    };
    let (step, since) = (step.as_millis().max(1), since.0);
    // Numbers and a GUID only.
    let rows: Vec<Row> = sql_query(format!(
        "SELECT (hour / {step}) * {step} AS start, kind, CAST(SUM(times) AS BIGINT) AS times, MAX(last_at) AS last_at \
         FROM activity_hours WHERE {column} = '{guid}' AND hour >= {since} \
         GROUP BY (hour / {step}) * {step}, kind ORDER BY start, kind"
    ))
    .load(db.0)?;
    Ok(rows
        .into_iter()
        .filter_map(|row| {
            Some(ActivitySum {
                start: Timestamp(row.start),
                kind: Activity::parse(&row.kind)?,
                times: row.times,
                last_at: Timestamp(row.last_at),
            })
        })
        .collect())
}
