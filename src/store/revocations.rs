//! Ended connections, and the revocation requests that their providers are still to receive (an
//! outbox; requests are sealed, since they contain tokens).

use super::{Db, Error, damaged_row, id, schema::revocations};
use crate::{
    domain::{
        Id, Timestamp,
        integration::Integration,
        person::Person,
        revocation::{ProviderNotice, Revocation},
    },
    vault::Sealed,
};
use diesel::prelude::*;
use std::collections::HashMap;

#[derive(Queryable, Selectable)]
#[diesel(table_name = revocations)]
struct Row {
    guid: String,
    person: String,
    person_name: String,
    integration: String,
    integration_name: String,
    provider: String,
    account: Option<String>,
    correlation: String,
    request: Option<String>,
    state: String,
    tries: i64,
    next_at: i64,
    ended_at: i64,
    told_at: Option<i64>,
}

impl Row {
    /// Converts the row into the revocation and its sealed request.
    fn into_parts(self) -> Result<(Revocation, Option<Sealed>), Error> {
        let revocation = Revocation {
            id: id(&self.guid)?,
            person: id(&self.person)?,
            person_name: self.person_name,
            integration: id(&self.integration)?,
            integration_name: self.integration_name,
            provider: self.provider,
            account: self.account,
            correlation: self.correlation,
            notice: ProviderNotice::parse(&self.state)
                .ok_or_else(|| damaged_row("state of a revocation"))?,
            tries: self.tries,
            next_at: Timestamp(self.next_at),
            ended_at: Timestamp(self.ended_at),
            told_at: self.told_at.map(Timestamp),
        };
        Ok((revocation, self.request.map(Sealed)))
    }
}

/// Records the end of a connection; `request` is the revocation request to send, if any.
pub fn insert(
    db: &mut Db<'_>,
    revocation: &Revocation,
    request: Option<&Sealed>,
) -> Result<(), Error> {
    diesel::insert_into(revocations::table)
        .values((
            revocations::guid.eq(revocation.id.to_string()),
            revocations::person.eq(revocation.person.to_string()),
            revocations::person_name.eq(&revocation.person_name),
            revocations::integration.eq(revocation.integration.to_string()),
            revocations::integration_name.eq(&revocation.integration_name),
            revocations::provider.eq(&revocation.provider),
            revocations::account.eq(&revocation.account),
            revocations::correlation.eq(&revocation.correlation),
            revocations::request.eq(request.map(|sealed| sealed.0.as_str())),
            revocations::state.eq(revocation.notice.as_str()),
            revocations::tries.eq(revocation.tries),
            revocations::next_at.eq(revocation.next_at.0),
            revocations::ended_at.eq(revocation.ended_at.0),
            revocations::told_at.eq(revocation.told_at.map(|at| at.0)),
        ))
        .execute(db.0)?;
    Ok(())
}

/// At most `most` revocations that are due, and `most_of_one` of one integration, oldest first, with
/// their requests. Postpones them to `busy_until`, so that no other caller gets them before.
pub fn claim_due(
    db: &mut Db<'_>,
    now: Timestamp,
    busy_until: Timestamp,
    most: usize,
    most_of_one: usize,
) -> Result<Vec<(Revocation, Option<Sealed>)>, Error> {
    let due: Vec<(String, String)> = revocations::table
        .filter(revocations::state.eq(ProviderNotice::Waiting.as_str()))
        .filter(revocations::next_at.le(now.0))
        .order(revocations::next_at)
        .limit(MAX_LOOKED_AT)
        .select((revocations::guid, revocations::integration))
        .load(db.0)?;
    let mut taken: HashMap<String, usize> = HashMap::new();
    let mut claimed = Vec::new();
    for (guid, integration) in due {
        let of_one = taken.entry(integration).or_default();
        if claimed.len() >= most || *of_one >= most_of_one {
            continue;
        }
        *of_one += 1;
        let row = || revocations::table.find(&guid);
        diesel::update(row())
            .set(revocations::next_at.eq(busy_until.0))
            .execute(db.0)?;
        let row: Row = row().select(Row::as_select()).first(db.0)?;
        claimed.push(row.into_parts()?);
    }
    Ok(claimed)
}

/// Due revocations that are looked at, to find some of each integration.
const MAX_LOOKED_AT: i64 = 1000;

/// Postpones what is due at `now` for an integration.
pub fn postpone(
    db: &mut Db<'_>,
    integration: Id<Integration>,
    now: Timestamp,
    until: Timestamp,
) -> Result<(), Error> {
    let due = revocations::table
        .filter(revocations::integration.eq(integration.to_string()))
        .filter(revocations::state.eq(ProviderNotice::Waiting.as_str()))
        .filter(revocations::next_at.le(now.0));
    diesel::update(due)
        .set(revocations::next_at.eq(until.0))
        .execute(db.0)?;
    Ok(())
}

/// Records the result of a revocation request. Deletes the request once it will not be retried.
pub fn update(db: &mut Db<'_>, revocation: &Revocation) -> Result<(), Error> {
    let row = || revocations::table.find(revocation.id.to_string());
    diesel::update(row())
        .set((
            revocations::state.eq(revocation.notice.as_str()),
            revocations::tries.eq(revocation.tries),
            revocations::next_at.eq(revocation.next_at.0),
            revocations::told_at.eq(revocation.told_at.map(|at| at.0)),
        ))
        .execute(db.0)?;
    if revocation.notice != ProviderNotice::Waiting {
        diesel::update(row())
            .set(revocations::request.eq(None::<String>))
            .execute(db.0)?;
    }
    Ok(())
}

/// A person's last `most` revocations, newest first.
pub fn of_person(db: &mut Db<'_>, person: Id<Person>, most: i64) -> Result<Vec<Revocation>, Error> {
    let rows: Vec<Row> = revocations::table
        .filter(revocations::person.eq(person.to_string()))
        .order(revocations::ended_at.desc())
        .limit(most)
        .select(Row::as_select())
        .load(db.0)?;
    rows.into_iter()
        .map(|row| row.into_parts().map(|(revocation, _)| revocation))
        .collect()
}
