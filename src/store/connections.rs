//! Connections with their sealed tokens, consents, and attempts.
//!
//! Tokens are replaced by compare-and-swap on the connection's generation. The previous refresh
//! token is not kept: with reuse detection at the provider, trying it would end the grant.

use super::{
    Db, Error,
    backend::prepared_update,
    bookkeeping,
    changes::Subject,
    damaged_row, id,
    schema::{attempts, connections, consents},
};
use crate::{
    domain::{
        Id, Timestamp,
        attempt::Attempt,
        connection::{Account, Cause, Connection, State},
        consent::Consent,
        content::Content,
        ending::Ending,
        integration::Integration,
        person::Person,
        return_path::ReturnPath,
    },
    vault::Sealed,
};
use diesel::{dsl::count_star, prelude::*, sql_types::Bool};
use std::collections::{BTreeMap, HashMap};

/// The backend of the combined connection.
type Backend = <super::backend::AnyConnection as diesel::Connection>::Backend;
/// A condition on connections.
pub(super) type Rows = Box<dyn BoxableExpression<connections::table, Backend, SqlType = Bool>>;

#[derive(Queryable, Selectable)]
#[diesel(table_name = connections)]
pub(super) struct Row {
    number: i64,
    guid: String,
    person: String,
    integration: String,
    state: String,
    cause: Option<String>,
    state_at: i64,
    account_label: Option<String>,
    account_subject: Option<String>,
    account_tenant: Option<String>,
    scopes: String,
    extra_fields: String,
    access_token: Option<String>,
    access_expires_at: Option<i64>,
    refresh_token: Option<String>,
    lapses_at: Option<i64>,
    generation: i64,
    connected_at: i64,
    created_at: i64,
    updated_at: i64,
    used_at: Option<i64>,
}

/// What [`put`] writes.
#[derive(Insertable, AsChangeset)]
#[diesel(table_name = connections, treat_none_as_null = true, treat_none_as_default_value = false)]
struct WrittenRow<'a> {
    guid: String,
    person: String,
    integration: String,
    state: &'a str,
    cause: Option<&'a str>,
    state_at: i64,
    account_label: Option<&'a str>,
    account_subject: Option<&'a str>,
    account_tenant: Option<&'a str>,
    scopes: &'a str,
    extra_fields: String,
    access_token: Option<&'a str>,
    access_expires_at: Option<i64>,
    refresh_token: Option<&'a str>,
    lapses_at: Option<i64>,
    generation: i64,
    connected_at: i64,
    created_at: i64,
    updated_at: i64,
    used_at: Option<i64>,
    ending: bool,
}

impl<'a> WrittenRow<'a> {
    fn new(connection: &'a Connection, tokens: &'a Tokens) -> Self {
        let (state, cause) = connection.state.columns();
        Self {
            guid: connection.id.to_string(),
            person: connection.person.to_string(),
            integration: connection.integration.to_string(),
            state,
            cause,
            state_at: connection.state_at.0,
            account_label: connection.account.label.as_deref(),
            account_subject: connection.account.subject.as_deref(),
            account_tenant: connection.account.tenant.as_deref(),
            scopes: &connection.scopes,
            extra_fields: object_text(&connection.extra_fields),
            access_token: tokens.access.as_ref().map(|sealed| sealed.0.as_str()),
            access_expires_at: connection.access_expires_at.map(|at| at.0),
            refresh_token: tokens.refresh.as_ref().map(|sealed| sealed.0.as_str()),
            lapses_at: connection.lapses_at.map(|at| at.0),
            generation: connection.generation,
            connected_at: connection.connected_at.0,
            created_at: connection.created_at.0,
            updated_at: connection.updated_at.0,
            used_at: connection.used_at.map(|at| at.0),
            ending: false,
        }
    }
}

/// The column `extra_fields`.
fn object_text(fields: &BTreeMap<String, String>) -> String {
    serde_json::to_string(fields).unwrap_or_else(|_| "{}".to_owned())
}

/// A connection's sealed tokens.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    pub access: Option<Sealed>,
    pub refresh: Option<Sealed>,
}

impl Row {
    /// Converts the row into the connection and its tokens.
    pub(super) fn into_parts(self) -> Result<(Connection, Tokens), Error> {
        let connection = Connection {
            number: self.number,
            id: id(&self.guid)?,
            person: id(&self.person)?,
            integration: id(&self.integration)?,
            state: State::parse(&self.state, self.cause.as_deref())
                .ok_or_else(|| damaged_row("state of a connection"))?,
            account: Account {
                label: self.account_label,
                subject: self.account_subject,
                tenant: self.account_tenant,
            },
            scopes: self.scopes,
            // Damaged, it counts as empty: the tokens are worth more.
            extra_fields: serde_json::from_str(&self.extra_fields).unwrap_or_default(),
            has_refresh_token: self.refresh_token.is_some(),
            access_expires_at: self.access_expires_at.map(Timestamp),
            lapses_at: self.lapses_at.map(Timestamp),
            generation: self.generation,
            connected_at: Timestamp(self.connected_at),
            created_at: Timestamp(self.created_at),
            updated_at: Timestamp(self.updated_at),
            state_at: Timestamp(self.state_at),
            used_at: self.used_at.map(Timestamp),
        };
        Ok((
            connection,
            Tokens {
                access: self.access_token.map(Sealed),
                refresh: self.refresh_token.map(Sealed),
            },
        ))
    }
}

/// Adds a connection, or replaces the one with the same id. Deletes another connection of the same
/// person and integration.
pub fn put(db: &mut Db<'_>, connection: &Connection, tokens: &Tokens) -> Result<(), Error> {
    db.changed(Subject::Person(connection.person));
    diesel::delete(
        connections::table
            .filter(connections::person.eq(connection.person.to_string()))
            .filter(connections::integration.eq(connection.integration.to_string()))
            .filter(connections::guid.ne(connection.id.to_string())),
    )
    .execute(db.0)?;
    let row = WrittenRow::new(connection, tokens);
    let changed = diesel::update(connections::table.filter(connections::guid.eq(&row.guid)))
        .set(&row)
        .execute(db.0)?;
    if changed == 0 {
        diesel::insert_into(connections::table)
            .values(&row)
            .execute(db.0)?;
    }
    Ok(())
}

/// The result of a refresh.
pub struct RefreshedTokens<'a> {
    pub access: &'a Sealed,
    /// `None` keeps the stored refresh token (RFC 6749 section 6).
    pub refresh: Option<&'a Sealed>,
    /// `None`: it has no end.
    pub access_expires_at: Option<Timestamp>,
    pub lapses_at: Option<Timestamp>,
    /// `None` keeps those stored.
    pub extra_fields: Option<&'a BTreeMap<String, String>>,
    /// The time of this write.
    pub now: Timestamp,
}

/// Stores the result of a refresh of these tokens. Compare-and-swap on `generation`: `false` if the
/// connection was refreshed, changed or ended meanwhile.
pub fn store_refreshed(
    db: &mut Db<'_>,
    connection: Id<Connection>,
    generation: i64,
    new: &RefreshedTokens<'_>,
) -> Result<bool, Error> {
    let row = connections::guid
        .eq(connection.to_string())
        .and(connections::generation.eq(generation))
        .and(connections::state.eq("active"));
    let changes = (
        connections::access_token.eq(&new.access.0),
        connections::access_expires_at.eq(new.access_expires_at.map(|at| at.0)),
        connections::lapses_at.eq(new.lapses_at.map(|at| at.0)),
        connections::updated_at.eq(new.now.0),
        connections::generation.eq(generation + 1),
        // Unchanged without a value.
        new.refresh
            .map(|sealed| connections::refresh_token.eq(&sealed.0)),
        new.extra_fields
            .map(|fields| connections::extra_fields.eq(object_text(fields))),
    );
    let changed = prepared_update(connections::table, row, changes).execute(db.0)?;
    Ok(changed == 1)
}

/// Stores a new state of a connection: the result of [`Connection::confirm`] or
/// [`Connection::require_login`], which deletes the tokens. Compare-and-swap on the generation:
/// `false` if the connection was changed meanwhile.
pub fn save_state(db: &mut Db<'_>, connection: &Connection) -> Result<bool, Error> {
    db.changed(Subject::Connection(connection.id));
    let (word, cause) = connection.state.columns();
    let row = |generation: i64| {
        connections::table
            .filter(connections::guid.eq(connection.id.to_string()))
            .filter(connections::generation.eq(generation))
    };
    let changed = diesel::update(row(connection.generation - 1))
        .set((
            connections::state.eq(word),
            connections::cause.eq(cause),
            connections::state_at.eq(connection.state_at.0),
            connections::updated_at.eq(connection.updated_at.0),
            connections::generation.eq(connection.generation),
        ))
        .execute(db.0)?;
    if changed == 1 && matches!(connection.state, State::NeedsLogin(_)) {
        db.ended(&Ending::Connection { id: connection.id })?;
        diesel::update(row(connection.generation))
            .set((
                connections::access_token.eq(None::<String>),
                connections::refresh_token.eq(None::<String>),
                connections::access_expires_at.eq(None::<i64>),
            ))
            .execute(db.0)?;
    }
    Ok(changed == 1)
}

/// Deletes a connection with its tokens.
pub fn delete(db: &mut Db<'_>, connection: Id<Connection>) -> Result<(), Error> {
    db.changed(Subject::Connection(connection));
    db.ended(&Ending::Connection { id: connection })?;
    diesel::delete(connections::table.filter(connections::guid.eq(connection.to_string())))
        .execute(db.0)?;
    Ok(())
}

/// Whose connections end together.
#[derive(Clone, Copy, Debug)]
pub enum EndingOf {
    Person(Id<Person>),
    Integration(Id<Integration>),
}

impl EndingOf {
    /// What caches depend on.
    fn subject(self) -> Subject {
        match self {
            EndingOf::Person(person) => Subject::Person(person),
            EndingOf::Integration(integration) => Subject::Integration(integration),
        }
    }

    /// The rows, as a condition.
    pub(super) fn rows(self) -> Rows {
        match self {
            EndingOf::Person(person) => Box::new(connections::person.eq(person.to_string())),
            EndingOf::Integration(integration) => {
                Box::new(connections::integration.eq(integration.to_string()))
            }
        }
    }
}

/// Makes these connections unusable in one statement, and marks them for [`ending`]. Their tokens
/// stay until each is deleted.
pub fn mark_ending(
    db: &mut Db<'_>,
    which: EndingOf,
    cause: Cause,
    now: Timestamp,
) -> Result<usize, Error> {
    db.changed(which.subject());
    db.ended(&match which {
        EndingOf::Person(person) => Ending::ConnectionsOfPerson { person },
        EndingOf::Integration(integration) => Ending::ConnectionsOfIntegration { integration },
    })?;
    let (word, cause) = State::NeedsLogin(cause).columns();
    Ok(diesel::update(connections::table.filter(which.rows()))
        .set((
            connections::state.eq(word),
            connections::cause.eq(cause),
            connections::state_at.eq(now.0),
            connections::updated_at.eq(now.0),
            connections::generation.eq(connections::generation + 1),
            connections::ending.eq(true),
        ))
        .execute(db.0)?)
}

/// At most `most` of these connections that are marked, oldest first.
pub fn ending(db: &mut Db<'_>, which: EndingOf, most: i64) -> Result<Vec<Id<Connection>>, Error> {
    let rows: Vec<String> = connections::table
        .filter(which.rows())
        .filter(connections::ending)
        .order(connections::number)
        .limit(most)
        .select(connections::guid)
        .load(db.0)?;
    rows.iter().map(|guid| id(guid)).collect()
}

/// Whether a connection is marked by [`mark_ending`]: a viewer may have connected again meanwhile.
pub fn is_ending(db: &mut Db<'_>, connection: Id<Connection>) -> Result<bool, Error> {
    let row = connections::table
        .filter(connections::guid.eq(connection.to_string()))
        .filter(connections::ending);
    Ok(diesel::select(diesel::dsl::exists(row)).get_result(db.0)?)
}

/// How many of these connections are marked.
pub fn count_ending(db: &mut Db<'_>, which: EndingOf) -> Result<i64, Error> {
    Ok(connections::table
        .filter(which.rows())
        .filter(connections::ending)
        .count()
        .get_result(db.0)?)
}

/// How many consents an item has, by integration; those without any are missing.
pub fn count_consents(
    db: &mut Db<'_>,
    item: Id<Content>,
) -> Result<HashMap<Id<Integration>, i64>, Error> {
    let rows: Vec<(String, i64)> = consents::table
        .filter(consents::content.eq(item.to_string()))
        .group_by(consents::integration)
        .select((consents::integration, count_star()))
        .load(db.0)?;
    rows.into_iter()
        .map(|(guid, count)| Ok((id(&guid)?, count)))
        .collect()
}

/// How many people are connected to each integration; those without any are missing.
pub fn count_active(db: &mut Db<'_>) -> Result<Vec<(Id<Integration>, i64)>, Error> {
    let rows: Vec<(String, i64)> = connections::table
        .filter(connections::state.eq("active"))
        .group_by(connections::integration)
        .select((connections::integration, count_star()))
        .load(db.0)?;
    rows.into_iter()
        .map(|(guid, people)| Ok((id(&guid)?, people)))
        .collect()
}

/// The integrations with connections that were marked before `before`.
pub fn integrations_ending(
    db: &mut Db<'_>,
    before: Timestamp,
) -> Result<Vec<Id<Integration>>, Error> {
    let rows: Vec<String> = connections::table
        .filter(connections::ending)
        .filter(connections::state_at.lt(before.0))
        .select(connections::integration)
        .distinct()
        .load(db.0)?;
    rows.iter().map(|guid| id(guid)).collect()
}

/// How many connections there are.
pub fn count(db: &mut Db<'_>, which: EndingOf) -> Result<i64, Error> {
    Ok(connections::table
        .filter(which.rows())
        .count()
        .get_result(db.0)?)
}

/// The ids of these connections, oldest first.
pub fn ids(db: &mut Db<'_>, which: EndingOf) -> Result<Vec<Id<Connection>>, Error> {
    let rows: Vec<String> = connections::table
        .filter(which.rows())
        .order(connections::number)
        .select(connections::guid)
        .load(db.0)?;
    rows.iter().map(|guid| id(guid)).collect()
}

/// The connection with this id.
pub fn find(
    db: &mut Db<'_>,
    connection: Id<Connection>,
) -> Result<Option<(Connection, Tokens)>, Error> {
    let row = connections::table
        .filter(connections::guid.eq(connection.to_string()))
        .select(Row::as_select())
        .first(db.0)
        .optional()?;
    row.map(Row::into_parts).transpose()
}

/// The connection of a person at an integration.
pub fn find_of(
    db: &mut Db<'_>,
    person: Id<Person>,
    integration: Id<Integration>,
) -> Result<Option<(Connection, Tokens)>, Error> {
    let row = connections::table
        .filter(connections::person.eq(person.to_string()))
        .filter(connections::integration.eq(integration.to_string()))
        .select(Row::as_select())
        .first(db.0)
        .optional()?;
    row.map(Row::into_parts).transpose()
}

fn without_tokens(rows: Vec<Row>) -> Result<Vec<Connection>, Error> {
    rows.into_iter()
        .map(|row| row.into_parts().map(|(connection, _)| connection))
        .collect()
}

/// A person's connections, oldest first.
pub fn of_person(db: &mut Db<'_>, person: Id<Person>) -> Result<Vec<Connection>, Error> {
    let query = connections::table.filter(connections::person.eq(person.to_string()));
    without_tokens(
        query
            .order(connections::number)
            .select(Row::as_select())
            .load(db.0)?,
    )
}

/// An integration's connections, oldest first.
pub fn of_integration(
    db: &mut Db<'_>,
    integration: Id<Integration>,
) -> Result<Vec<Connection>, Error> {
    let query = connections::table.filter(connections::integration.eq(integration.to_string()));
    without_tokens(
        query
            .order(connections::number)
            .select(Row::as_select())
            .load(db.0)?,
    )
}

/// All connections, oldest first.
pub fn all(db: &mut Db<'_>) -> Result<Vec<Connection>, Error> {
    without_tokens(
        connections::table
            .order(connections::number)
            .select(Row::as_select())
            .load(db.0)?,
    )
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = consents)]
pub(super) struct ConsentRow {
    guid: String,
    person: String,
    content: String,
    integration: String,
    scopes: String,
    created_at: i64,
    last_used_at: Option<i64>,
    uses: i64,
}

impl ConsentRow {
    pub(super) fn consent(self) -> Result<Consent, Error> {
        Ok(Consent {
            id: id(&self.guid)?,
            person: id(&self.person)?,
            content: id(&self.content)?,
            integration: id(&self.integration)?,
            scopes: self.scopes,
            created_at: Timestamp(self.created_at),
            last_used_at: self.last_used_at.map(Timestamp),
            uses: self.uses,
        })
    }
}

/// Adds a consent, or moves the one that is there to other scopes; `false` if there is one for the
/// same scopes already.
pub fn give_consent(db: &mut Db<'_>, consent: &Consent) -> Result<bool, Error> {
    db.changed(Subject::Person(consent.person));
    let known = consent_for(db, consent.person, consent.content, consent.integration)?;
    if let Some(known) = known {
        if known.scopes == consent.scopes {
            return Ok(false);
        }
        diesel::update(consents::table.find(known.id.to_string()))
            .set((
                consents::scopes.eq(&consent.scopes),
                consents::created_at.eq(consent.created_at.0),
            ))
            .execute(db.0)?;
        return Ok(true);
    }
    diesel::insert_into(consents::table)
        .values((
            consents::guid.eq(consent.id.to_string()),
            consents::person.eq(consent.person.to_string()),
            consents::content.eq(consent.content.to_string()),
            consents::integration.eq(consent.integration.to_string()),
            consents::scopes.eq(&consent.scopes),
            consents::created_at.eq(consent.created_at.0),
            consents::uses.eq(0),
        ))
        .execute(db.0)?;
    Ok(true)
}

/// The consent of a person for a content item and an integration.
pub fn consent_for(
    db: &mut Db<'_>,
    person: Id<Person>,
    content: Id<Content>,
    integration: Id<Integration>,
) -> Result<Option<Consent>, Error> {
    let row = consents::table
        .filter(consents::person.eq(person.to_string()))
        .filter(consents::content.eq(content.to_string()))
        .filter(consents::integration.eq(integration.to_string()))
        .select(ConsentRow::as_select())
        .first(db.0)
        .optional()?;
    row.map(ConsentRow::consent).transpose()
}

/// The consent with this id.
pub fn consent(db: &mut Db<'_>, consent: Id<Consent>) -> Result<Option<Consent>, Error> {
    let row = consents::table
        .find(consent.to_string())
        .select(ConsentRow::as_select())
        .first(db.0)
        .optional()?;
    row.map(ConsentRow::consent).transpose()
}

/// A person's consents, oldest first.
pub fn consents_of_person(db: &mut Db<'_>, person: Id<Person>) -> Result<Vec<Consent>, Error> {
    let query = consents::table
        .filter(consents::person.eq(person.to_string()))
        .order(consents::created_at);
    query
        .select(ConsentRow::as_select())
        .load(db.0)?
        .into_iter()
        .map(ConsentRow::consent)
        .collect()
}

/// The consents for a content item, oldest first.
pub fn consents_of_content(db: &mut Db<'_>, content: Id<Content>) -> Result<Vec<Consent>, Error> {
    let query = consents::table
        .filter(consents::content.eq(content.to_string()))
        .order(consents::created_at);
    query
        .select(ConsentRow::as_select())
        .load(db.0)?
        .into_iter()
        .map(ConsentRow::consent)
        .collect()
}

/// Deletes a consent; `false` if there is none.
pub fn delete_consent(db: &mut Db<'_>, consent: Id<Consent>) -> Result<bool, Error> {
    let row = || consents::table.find(consent.to_string());
    let person: Option<String> = row().select(consents::person).first(db.0).optional()?;
    if let Some(person) = person {
        db.changed(Subject::Person(id(&person)?));
        let ids = vec![consent];
        db.ended(&Ending::Consents { ids })?;
    }
    Ok(diesel::delete(row()).execute(db.0)? == 1)
}

/// Deletes the consents for an item, except those for the integrations `kept`; returns them. One
/// statement for each integration, however many people consented.
pub fn delete_consents_of_content(
    db: &mut Db<'_>,
    content: Id<Content>,
    kept: &[Id<Integration>],
) -> Result<Vec<Consent>, Error> {
    db.changed(Subject::Content(content));
    let mut ended = consents_of_content(db, content)?;
    ended.retain(|consent| !kept.contains(&consent.integration));
    if !ended.is_empty() {
        db.ended(&Ending::ConsentsOfContent {
            content,
            kept: kept.to_vec(),
        })?;
    }
    let mut integrations: Vec<String> = ended
        .iter()
        .map(|consent| consent.integration.to_string())
        .collect();
    integrations.sort();
    integrations.dedup();
    for integration in integrations {
        let rows = consents::table
            .filter(consents::content.eq(content.to_string()))
            .filter(consents::integration.eq(integration));
        diesel::delete(rows).execute(db.0)?;
    }
    Ok(ended)
}

/// Deletes these consents for one item, with one statement for each [`bookkeeping::MAX_ROWS`].
pub fn delete_consents(
    db: &mut Db<'_>,
    content: Id<Content>,
    ended: &[Consent],
) -> Result<(), Error> {
    if !ended.is_empty() {
        db.changed(Subject::Content(content));
    }
    for part in ended.chunks(bookkeeping::MAX_ROWS) {
        let ids = part.iter().map(|consent| consent.id).collect();
        db.ended(&Ending::Consents { ids })?;
        bookkeeping::delete_consents(db, part)?;
    }
    Ok(())
}

/// Deletes a person's consents for all content items that use the integration; returns their
/// number.
pub fn delete_consents_of_connection(
    db: &mut Db<'_>,
    person: Id<Person>,
    integration: Id<Integration>,
) -> Result<usize, Error> {
    db.changed(Subject::Person(person));
    let rows = consents::table
        .filter(consents::person.eq(person.to_string()))
        .filter(consents::integration.eq(integration.to_string()));
    let ended = diesel::delete(rows).execute(db.0)?;
    if ended > 0 {
        db.ended(&Ending::ConsentsOfConnection {
            person,
            integration,
        })?;
    }
    Ok(ended)
}

/// At most `most` active connections with a refresh token whose access token expires after `from`,
/// up to `to`, and that were used since `used_since`. First to expire first.
pub fn expiring(
    db: &mut Db<'_>,
    from: Timestamp,
    to: Timestamp,
    used_since: Timestamp,
    most: i64,
) -> Result<Vec<Connection>, Error> {
    let query = connections::table
        .filter(connections::state.eq("active"))
        .filter(connections::refresh_token.is_not_null())
        .filter(connections::access_expires_at.gt(from.0))
        .filter(connections::access_expires_at.le(to.0))
        .filter(connections::used_at.gt(used_since.0))
        .order(connections::access_expires_at)
        .limit(most);
    without_tokens(query.select(Row::as_select()).load(db.0)?)
}

/// At most `most` active connections that were last used, or if never used made, before `since`.
pub fn unused(db: &mut Db<'_>, since: Timestamp, most: i64) -> Result<Vec<Connection>, Error> {
    let never = connections::used_at
        .is_null()
        .and(connections::connected_at.lt(since.0));
    let query = connections::table
        .filter(connections::state.eq("active"))
        .filter(connections::used_at.lt(since.0).or(never.assume_not_null()));
    without_tokens(query.limit(most).select(Row::as_select()).load(db.0)?)
}

/// At most `most` connections whose account was not confirmed since `since`.
pub fn unconfirmed(db: &mut Db<'_>, since: Timestamp, most: i64) -> Result<Vec<Connection>, Error> {
    let query = connections::table
        .filter(connections::state.eq("unconfirmed"))
        .filter(connections::state_at.lt(since.0));
    without_tokens(query.limit(most).select(Row::as_select()).load(db.0)?)
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = attempts)]
struct AttemptRow {
    guid: String,
    person: String,
    session: String,
    integration: String,
    endpoint_version: i64,
    content: Option<String>,
    return_path: String,
    redirect_uri: String,
    verifier: Option<String>,
    expires_at: i64,
    used_at: Option<i64>,
    is_test: bool,
}

/// Stores an attempt before the browser is redirected. `state` is stored as a hash, the PKCE
/// verifier sealed.
pub fn insert_attempt(
    db: &mut Db<'_>,
    attempt: &Attempt,
    state_hash: &str,
    verifier: Option<&Sealed>,
) -> Result<(), Error> {
    diesel::insert_into(attempts::table)
        .values((
            attempts::guid.eq(attempt.id.to_string()),
            attempts::state_hash.eq(state_hash),
            attempts::person.eq(attempt.person.to_string()),
            attempts::session.eq(attempt.session.to_string()),
            attempts::integration.eq(attempt.integration.to_string()),
            attempts::endpoint_version.eq(attempt.endpoint_version),
            attempts::content.eq(attempt.content.map(|content| content.to_string())),
            attempts::return_path.eq(attempt.return_path.as_str()),
            attempts::redirect_uri.eq(&attempt.redirect_uri),
            attempts::verifier.eq(verifier.map(|sealed| sealed.0.as_str())),
            attempts::expires_at.eq(attempt.expires_at.0),
            attempts::is_test.eq(attempt.is_test),
        ))
        .execute(db.0)?;
    Ok(())
}

/// The attempt of a `state`, with its sealed PKCE verifier.
pub fn attempt(
    db: &mut Db<'_>,
    state_hash: &str,
) -> Result<Option<(Attempt, Option<Sealed>)>, Error> {
    let row = attempts::table
        .filter(attempts::state_hash.eq(state_hash))
        .select(AttemptRow::as_select())
        .first(db.0)
        .optional()?;
    row.map(|row: AttemptRow| {
        let attempt = Attempt {
            is_test: row.is_test,
            id: id(&row.guid)?,
            person: id(&row.person)?,
            session: id(&row.session)?,
            integration: id(&row.integration)?,
            endpoint_version: row.endpoint_version,
            content: row.content.as_deref().map(id).transpose()?,
            return_path: ReturnPath::parse(&row.return_path)
                .ok_or_else(|| damaged_row("return path"))?,
            redirect_uri: row.redirect_uri,
            expires_at: Timestamp(row.expires_at),
            used_at: row.used_at.map(Timestamp),
        };
        Ok((attempt, row.verifier.map(Sealed)))
    })
    .transpose()
}

/// Stores that an attempt was used ([`Attempt::consume`]) and deletes its PKCE verifier; `false` if
/// it was used before.
pub fn save_consumed(db: &mut Db<'_>, attempt: &Attempt) -> Result<bool, Error> {
    let row = attempts::table
        .find(attempt.id.to_string())
        .filter(attempts::used_at.is_null());
    Ok(diesel::update(row)
        .set((
            attempts::used_at.eq(attempt.used_at.map(|at| at.0)),
            attempts::verifier.eq(None::<String>),
        ))
        .execute(db.0)?
        == 1)
}
