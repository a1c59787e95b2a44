//! Integrations, their sealed client secrets, the lists of who may choose them, and their
//! associations with content.

use super::{
    Db, Error,
    changes::Subject,
    damaged_row,
    groups::{principal, principal_columns},
    id,
    schema::{associations, group_members, integration_list, integrations},
};
use crate::{
    domain::{
        Id, Timestamp,
        check::CheckResult,
        content::Content,
        group::Principal,
        integration::{
            Association, Availability, IdentityCheck, Integration, ListEntry, SecretHealth, Usage,
        },
        person::Person,
    },
    vault::Sealed,
};
use diesel::{dsl::count_star, prelude::*};
use std::collections::HashMap;

/// A row of the table `integrations`, without the secrets.
#[derive(Queryable, Selectable)]
#[diesel(table_name = integrations)]
pub(super) struct Row {
    number: i64,
    guid: String,
    name: Option<String>,
    description: Option<String>,
    template: String,
    auth_type: String,
    config: String,
    secret_set_at: Option<i64>,
    secret_set_by: Option<String>,
    secret_expires_at: Option<i64>,
    secret_state: String,
    secret_state_at: Option<i64>,
    secret_cause: Option<String>,
    endpoint_version: i64,
    availability: String,
    identity_check: String,
    paused_at: Option<i64>,
    created_at: i64,
    updated_at: i64,
}

impl Row {
    /// Converts the row; [`Error::Other`] if a column is damaged.
    pub(super) fn integration(self) -> Result<Integration, Error> {
        let at = Timestamp(self.secret_state_at.unwrap_or_default());
        Ok(Integration {
            number: self.number,
            id: id(&self.guid)?,
            config: serde_json::from_str(&self.config)
                .map_err(|_| damaged_row("configuration of an integration"))?,
            secret_health: match self.secret_state.as_str() {
                "not_needed" => SecretHealth::NotNeeded,
                "works" => SecretHealth::Works { at },
                "rejected" => SecretHealth::Rejected {
                    at,
                    cause: self.secret_cause.unwrap_or_default(),
                },
                _ => SecretHealth::Untried,
            },
            name: self.name,
            description: self.description,
            template: self.template,
            auth_type: self
                .auth_type
                .parse()
                .map_err(|_| damaged_row("type of an integration"))?,
            secret_set_at: self.secret_set_at.map(Timestamp),
            secret_set_by: self.secret_set_by,
            secret_expires_at: self.secret_expires_at.map(Timestamp),
            endpoint_version: self.endpoint_version,
            availability: Availability::parse(&self.availability)
                .ok_or_else(|| damaged_row("availability of an integration"))?,
            identity_check: IdentityCheck::parse(&self.identity_check)
                .ok_or_else(|| damaged_row("identity check"))?,
            paused_at: self.paused_at.map(Timestamp),
            created_at: Timestamp(self.created_at),
            updated_at: Timestamp(self.updated_at),
        })
    }
}

/// The columns `secret_state`, `secret_state_at` and `secret_cause`.
fn health_columns(health: &SecretHealth) -> (&'static str, Option<i64>, Option<&str>) {
    match health {
        SecretHealth::NotNeeded => ("not_needed", None, None),
        SecretHealth::Untried => ("untried", None, None),
        SecretHealth::Works { at } => ("works", Some(at.0), None),
        SecretHealth::Rejected { at, cause } => ("rejected", Some(at.0), Some(cause)),
    }
}

/// Adds an integration and returns its number; `integration.number` is ignored.
pub fn insert(
    db: &mut Db<'_>,
    integration: &Integration,
    secret: Option<&Sealed>,
) -> Result<i64, Error> {
    let (state, state_at, cause) = health_columns(&integration.secret_health);
    Ok(diesel::insert_into(integrations::table)
        .values((
            integrations::guid.eq(integration.id.to_string()),
            integrations::name.eq(&integration.name),
            integrations::description.eq(&integration.description),
            integrations::template.eq(&integration.template),
            integrations::auth_type.eq(integration.auth_type.as_str()),
            integrations::config.eq(config_text(integration)?),
            integrations::client_secret.eq(secret.map(|sealed| sealed.0.as_str())),
            integrations::secret_set_at.eq(integration.secret_set_at.map(|at| at.0)),
            integrations::secret_set_by.eq(&integration.secret_set_by),
            integrations::secret_expires_at.eq(integration.secret_expires_at.map(|at| at.0)),
            (
                integrations::secret_state.eq(state),
                integrations::secret_state_at.eq(state_at),
                integrations::secret_cause.eq(cause),
            ),
            integrations::endpoint_version.eq(integration.endpoint_version),
            integrations::availability.eq(integration.availability.as_str()),
            integrations::identity_check.eq(integration.identity_check.as_str()),
            integrations::paused_at.eq(integration.paused_at.map(|at| at.0)),
            integrations::created_at.eq(integration.created_at.0),
            integrations::updated_at.eq(integration.updated_at.0),
        ))
        .returning(integrations::number)
        .get_result(db.0)?)
}

/// Writes everything except the secrets.
pub fn update(db: &mut Db<'_>, integration: &Integration) -> Result<(), Error> {
    db.changed(Subject::Integration(integration.id));
    let (state, state_at, cause) = health_columns(&integration.secret_health);
    diesel::update(integrations::table.filter(integrations::guid.eq(integration.id.to_string())))
        .set((
            integrations::name.eq(&integration.name),
            integrations::description.eq(&integration.description),
            integrations::auth_type.eq(integration.auth_type.as_str()),
            integrations::config.eq(config_text(integration)?),
            integrations::secret_set_at.eq(integration.secret_set_at.map(|at| at.0)),
            integrations::secret_set_by.eq(&integration.secret_set_by),
            integrations::secret_expires_at.eq(integration.secret_expires_at.map(|at| at.0)),
            (
                integrations::secret_state.eq(state),
                integrations::secret_state_at.eq(state_at),
                integrations::secret_cause.eq(cause),
            ),
            integrations::endpoint_version.eq(integration.endpoint_version),
            integrations::availability.eq(integration.availability.as_str()),
            integrations::identity_check.eq(integration.identity_check.as_str()),
            integrations::paused_at.eq(integration.paused_at.map(|at| at.0)),
            integrations::updated_at.eq(integration.updated_at.0),
        ))
        .execute(db.0)?;
    Ok(())
}

/// The value of the column `config`.
fn config_text(integration: &Integration) -> Result<String, Error> {
    serde_json::to_string(&integration.config)
        .map_err(|_| damaged_row("configuration of an integration"))
}

/// Records what the last use of the secret showed; `false` if the integration was changed since
/// `updated_at`.
pub fn set_health(
    db: &mut Db<'_>,
    integration: Id<Integration>,
    updated_at: Timestamp,
    health: &SecretHealth,
) -> Result<bool, Error> {
    let (state, state_at, cause) = health_columns(health);
    let noted = diesel::update(
        integrations::table
            .filter(integrations::guid.eq(integration.to_string()))
            .filter(integrations::updated_at.eq(updated_at.0)),
    )
    .set((
        integrations::secret_state.eq(state),
        integrations::secret_state_at.eq(state_at),
        integrations::secret_cause.eq(cause),
    ))
    .execute(db.0)?;
    Ok(noted == 1)
}

/// The integration with this id.
pub fn find(db: &mut Db<'_>, integration: Id<Integration>) -> Result<Option<Integration>, Error> {
    let row = integrations::table
        .filter(integrations::guid.eq(integration.to_string()))
        .select(Row::as_select())
        .first(db.0)
        .optional()?;
    row.map(Row::integration).transpose()
}

/// An integration's sealed client secrets.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    pub current: Option<Sealed>,
    /// The secret before the current one; kept until the current one has worked.
    pub previous: Option<Sealed>,
}

/// The sealed secrets; both `None` if there is no such integration.
pub fn secrets(db: &mut Db<'_>, integration: Id<Integration>) -> Result<Secrets, Error> {
    let row: Option<(Option<String>, Option<String>)> = integrations::table
        .filter(integrations::guid.eq(integration.to_string()))
        .select((
            integrations::client_secret,
            integrations::previous_client_secret,
        ))
        .first(db.0)
        .optional()?;
    let (current, previous) = row.unwrap_or_default();
    Ok(Secrets {
        current: current.map(Sealed),
        previous: previous.map(Sealed),
    })
}

/// Replaces both secrets, and resets the warning about their expiry.
pub fn set_secrets(
    db: &mut Db<'_>,
    integration: Id<Integration>,
    secrets: &Secrets,
) -> Result<(), Error> {
    diesel::update(integrations::table.filter(integrations::guid.eq(integration.to_string())))
        .set((
            integrations::client_secret
                .eq(secrets.current.as_ref().map(|sealed| sealed.0.as_str())),
            integrations::previous_client_secret
                .eq(secrets.previous.as_ref().map(|sealed| sealed.0.as_str())),
            integrations::secret_warned.eq(None::<i64>),
        ))
        .execute(db.0)?;
    Ok(())
}

/// Deletes the previous secret: the current one has worked.
pub fn drop_previous_secret(db: &mut Db<'_>, integration: Id<Integration>) -> Result<(), Error> {
    diesel::update(integrations::table.filter(integrations::guid.eq(integration.to_string())))
        .set(integrations::previous_client_secret.eq(None::<String>))
        .execute(db.0)?;
    Ok(())
}

/// Stores what the last check found. No decision depends on it.
pub fn set_last_check(
    db: &mut Db<'_>,
    integration: Id<Integration>,
    result: &CheckResult,
) -> Result<(), Error> {
    let text = serde_json::to_string(result).map_err(|_| damaged_row("check of an integration"))?;
    diesel::update(integrations::table.filter(integrations::guid.eq(integration.to_string())))
        .set(integrations::last_check.eq(text))
        .execute(db.0)?;
    Ok(())
}

/// What the last checks found, of those integrations that were checked, or of one.
pub fn last_checks(
    db: &mut Db<'_>,
    of: Option<Id<Integration>>,
) -> Result<HashMap<Id<Integration>, CheckResult>, Error> {
    let mut query = integrations::table
        .filter(integrations::last_check.is_not_null())
        .select((integrations::guid, integrations::last_check))
        .into_boxed();
    if let Some(integration) = of {
        query = query.filter(integrations::guid.eq(integration.to_string()));
    }
    let rows: Vec<(String, Option<String>)> = query.load(db.0)?;
    let mut found = HashMap::new();
    for (guid, text) in rows {
        // A result that cannot be read counts as none.
        if let Some(result) = text.and_then(|text| serde_json::from_str(&text).ok()) {
            found.insert(id(&guid)?, result);
        }
    }
    Ok(found)
}

/// For which number of days before its expiry the secret was last warned about.
pub fn secret_warned_days(
    db: &mut Db<'_>,
    integration: Id<Integration>,
) -> Result<Option<i64>, Error> {
    let row: Option<Option<i64>> = integrations::table
        .filter(integrations::guid.eq(integration.to_string()))
        .select(integrations::secret_warned)
        .first(db.0)
        .optional()?;
    Ok(row.flatten())
}

/// Records a warning about the secret's expiry; `None` resets it.
pub fn set_secret_warned(
    db: &mut Db<'_>,
    integration: Id<Integration>,
    days: Option<i64>,
) -> Result<(), Error> {
    diesel::update(integrations::table.filter(integrations::guid.eq(integration.to_string())))
        .set(integrations::secret_warned.eq(days))
        .execute(db.0)?;
    Ok(())
}

/// All integrations by their id.
pub fn by_id(db: &mut Db<'_>) -> Result<HashMap<Id<Integration>, Integration>, Error> {
    let all = list(db)?.into_iter();
    Ok(all.map(|found| (found.id, found)).collect())
}

/// All integrations, oldest first.
pub fn list(db: &mut Db<'_>) -> Result<Vec<Integration>, Error> {
    let rows = integrations::table
        .order(integrations::number)
        .select(Row::as_select())
        .load(db.0)?;
    rows.into_iter().map(Row::integration).collect()
}

type ListRow = (i64, String, String, Option<String>, Option<String>);

/// The lists of those who may choose, of one integration or of all, oldest entry first.
pub fn listings(db: &mut Db<'_>, of: Option<Id<Integration>>) -> Result<Vec<ListEntry>, Error> {
    let mut query = integration_list::table
        .order(integration_list::number)
        .into_boxed();
    if let Some(integration) = of {
        query = query.filter(integration_list::integration.eq(integration.to_string()));
    }
    let rows: Vec<ListRow> = query.load(db.0)?;
    rows.into_iter()
        .map(|(number, guid, integration, person, group)| {
            let principal = principal(person.as_deref(), group.as_deref())?;
            Ok(ListEntry {
                number,
                id: id(&guid)?,
                integration: id(&integration)?,
                principal,
            })
        })
        .collect()
}

/// Replaces the whole list; entries that stay keep their id.
pub fn set_list(
    db: &mut Db<'_>,
    integration: Id<Integration>,
    wanted: &[Principal],
) -> Result<(), Error> {
    let present = listings(db, Some(integration))?;
    for gone in present
        .iter()
        .filter(|entry| !wanted.contains(&entry.principal))
    {
        diesel::delete(integration_list::table.find(gone.number)).execute(db.0)?;
    }
    for new in wanted
        .iter()
        .filter(|wanted| !present.iter().any(|entry| entry.principal == **wanted))
    {
        let (person, group) = principal_columns(*new);
        diesel::insert_into(integration_list::table)
            .values((
                integration_list::guid.eq(Id::<ListEntry>::random().to_string()),
                integration_list::integration.eq(integration.to_string()),
                integration_list::person.eq(person),
                integration_list::group_guid.eq(group),
            ))
            .execute(db.0)?;
    }
    Ok(())
}

/// The integrations whose list contains this person or one of their groups.
pub fn listed_for(db: &mut Db<'_>, person: Id<Person>) -> Result<Vec<Id<Integration>>, Error> {
    let person = person.to_string();
    let theirs = group_members::table
        .filter(group_members::person.eq(&person))
        .select(group_members::group_guid.nullable());
    let rows: Vec<String> = integration_list::table
        .filter(
            integration_list::person
                .eq(&person)
                .or(integration_list::group_guid.eq_any(theirs)),
        )
        .select(integration_list::integration)
        .load(db.0)?;
    rows.iter().map(|guid| id(guid)).collect()
}

/// Deletes an integration; `false` if there is none.
pub fn delete(db: &mut Db<'_>, integration: Id<Integration>) -> Result<bool, Error> {
    db.changed(Subject::Integration(integration));
    Ok(
        diesel::delete(integrations::table.filter(integrations::guid.eq(integration.to_string())))
            .execute(db.0)?
            == 1,
    )
}

/// How much each integration is used; unused ones are missing.
pub fn usage(db: &mut Db<'_>) -> Result<HashMap<Id<Integration>, Usage>, Error> {
    let contents: Vec<(String, i64)> = associations::table
        .group_by(associations::integration)
        .select((associations::integration, count_star()))
        .load(db.0)?;
    let people = super::connections::count_active(db)?;
    let mut usage: HashMap<Id<Integration>, Usage> = HashMap::new();
    for (guid, count) in contents {
        usage.entry(id(&guid)?).or_default().contents = count;
    }
    for (integration, count) in people {
        usage.entry(integration).or_default().people = count;
    }
    Ok(usage)
}

type AssociationRow = (String, String, i64, bool);

fn association(
    (content, integration, created_at, beside_viewers): AssociationRow,
) -> Result<Association, Error> {
    Ok(Association {
        content: id(&content)?,
        integration: id(&integration)?,
        created_at: Timestamp(created_at),
        beside_viewers,
    })
}

/// A content item's associations, oldest first.
pub fn associations_of_content(
    db: &mut Db<'_>,
    content: Id<Content>,
) -> Result<Vec<Association>, Error> {
    let rows: Vec<AssociationRow> = associations::table
        .filter(associations::content.eq(content.to_string()))
        .order(associations::number)
        .select((
            associations::content,
            associations::integration,
            associations::created_at,
            associations::beside_viewers,
        ))
        .load(db.0)?;
    rows.into_iter().map(association).collect()
}

/// An integration's associations, oldest first.
pub fn associations_of_integration(
    db: &mut Db<'_>,
    integration: Id<Integration>,
) -> Result<Vec<Association>, Error> {
    let rows: Vec<AssociationRow> = associations::table
        .filter(associations::integration.eq(integration.to_string()))
        .order(associations::number)
        .select((
            associations::content,
            associations::integration,
            associations::created_at,
            associations::beside_viewers,
        ))
        .load(db.0)?;
    rows.into_iter().map(association).collect()
}

/// Replaces a content item's associations; those that stay keep their `created_at`.
pub fn set_associations(
    db: &mut Db<'_>,
    content: Id<Content>,
    wanted: &[Id<Integration>],
    now: Timestamp,
) -> Result<(), Error> {
    db.changed(Subject::Content(content));
    let present = associations_of_content(db, content)?;
    for gone in present
        .iter()
        .filter(|association| !wanted.contains(&association.integration))
    {
        diesel::delete(
            associations::table
                .filter(associations::content.eq(content.to_string()))
                .filter(associations::integration.eq(gone.integration.to_string())),
        )
        .execute(db.0)?;
    }
    for new in wanted.iter().filter(|wanted| {
        !present
            .iter()
            .any(|association| association.integration == **wanted)
    }) {
        diesel::insert_into(associations::table)
            .values((
                associations::content.eq(content.to_string()),
                associations::integration.eq(new.to_string()),
                associations::created_at.eq(now.0),
            ))
            .execute(db.0)?;
    }
    Ok(())
}

/// Sets whether an item may act as itself through an integration beside acting for viewers; `false`
/// if the item does not use it.
pub fn set_beside_viewers(
    db: &mut Db<'_>,
    content: Id<Content>,
    integration: Id<Integration>,
    allowed: bool,
) -> Result<bool, Error> {
    db.changed(Subject::Content(content));
    let row = associations::table
        .filter(associations::content.eq(content.to_string()))
        .filter(associations::integration.eq(integration.to_string()));
    let changed = diesel::update(row)
        .set(associations::beside_viewers.eq(allowed))
        .execute(db.0)?;
    Ok(changed == 1)
}

/// The integrations of all items, in the order in which they were attached.
pub fn by_content(db: &mut Db<'_>) -> Result<HashMap<Id<Content>, Vec<Integration>>, Error> {
    let rows: Vec<(String, Row)> = associations::table
        .inner_join(integrations::table.on(integrations::guid.eq(associations::integration)))
        .order(associations::number)
        .select((associations::content, Row::as_select()))
        .load(db.0)?;
    let mut found: HashMap<Id<Content>, Vec<Integration>> = HashMap::new();
    for (item, row) in rows {
        found
            .entry(id(&item)?)
            .or_default()
            .push(row.integration()?);
    }
    Ok(found)
}

/// The integrations of an item, in the order in which they were attached.
pub fn attached(
    db: &mut Db<'_>,
    id: Id<Content>,
) -> Result<Vec<(Association, Integration)>, Error> {
    let mut rows = Vec::new();
    for association in associations_of_content(db, id)? {
        if let Some(integration) = find(db, association.integration)? {
            rows.push((association, integration));
        }
    }
    Ok(rows)
}
