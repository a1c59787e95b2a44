//! Integrations, their sealed client secrets and their associations with content.

use super::{
    Db, Error, damaged, id,
    schema::{associations, connections, integrations},
};
use crate::{
    domain::{
        Id, Timestamp,
        content::Content,
        integration::{Association, Integration, SecretHealth, Usage},
    },
    vault::Sealed,
};
use diesel::{dsl::count_star, prelude::*};
use std::collections::HashMap;

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
    era: i64,
    created_at: i64,
    updated_at: i64,
}

impl Row {
    pub(super) fn integration(self) -> Result<Integration, Error> {
        let at = Timestamp(self.secret_state_at.unwrap_or_default());
        Ok(Integration {
            number: self.number,
            id: id(&self.guid)?,
            config: serde_json::from_str(&self.config).map_err(|_| damaged("configuration of an integration"))?,
            secret_health: match self.secret_state.as_str() {
                "not_needed" => SecretHealth::NotNeeded,
                "works" => SecretHealth::Works { at },
                "rejected" => SecretHealth::Rejected { at, cause: self.secret_cause.unwrap_or_default() },
                _ => SecretHealth::Untried,
            },
            name: self.name,
            description: self.description,
            template: self.template,
            auth_type: self.auth_type,
            secret_set_at: self.secret_set_at.map(Timestamp),
            secret_set_by: self.secret_set_by,
            secret_expires_at: self.secret_expires_at.map(Timestamp),
            era: self.era,
            created_at: Timestamp(self.created_at),
            updated_at: Timestamp(self.updated_at),
        })
    }
}

fn health_words(health: &SecretHealth) -> (&'static str, Option<i64>, Option<&str>) {
    match health {
        SecretHealth::NotNeeded => ("not_needed", None, None),
        SecretHealth::Untried => ("untried", None, None),
        SecretHealth::Works { at } => ("works", Some(at.0), None),
        SecretHealth::Rejected { at, cause } => ("rejected", Some(at.0), Some(cause)),
    }
}

/// Adds an integration and returns its number; `integration.number` is ignored.
pub fn insert(db: &mut Db<'_>, integration: &Integration, secret: Option<&Sealed>) -> Result<i64, Error> {
    let (state, state_at, cause) = health_words(&integration.secret_health);
    Ok(diesel::insert_into(integrations::table)
        .values((
            integrations::guid.eq(integration.id.to_string()),
            integrations::name.eq(&integration.name),
            integrations::description.eq(&integration.description),
            integrations::template.eq(&integration.template),
            integrations::auth_type.eq(&integration.auth_type),
            integrations::config.eq(config_text(integration)?),
            integrations::client_secret.eq(secret.map(|sealed| sealed.0.as_str())),
            integrations::secret_set_at.eq(integration.secret_set_at.map(|at| at.0)),
            integrations::secret_set_by.eq(&integration.secret_set_by),
            integrations::secret_expires_at.eq(integration.secret_expires_at.map(|at| at.0)),
            (integrations::secret_state.eq(state), integrations::secret_state_at.eq(state_at), integrations::secret_cause.eq(cause)),
            integrations::era.eq(integration.era),
            integrations::created_at.eq(integration.created_at.0),
            integrations::updated_at.eq(integration.updated_at.0),
        ))
        .returning(integrations::number)
        .get_result(db.0)?)
}

/// Writes everything but the secret, which is replaced only when one is given.
pub fn update(db: &mut Db<'_>, integration: &Integration, secret: Option<&Sealed>) -> Result<(), Error> {
    let (state, state_at, cause) = health_words(&integration.secret_health);
    let row = || integrations::table.filter(integrations::guid.eq(integration.id.to_string()));
    diesel::update(row())
        .set((
            integrations::name.eq(&integration.name),
            integrations::description.eq(&integration.description),
            integrations::config.eq(config_text(integration)?),
            integrations::secret_set_at.eq(integration.secret_set_at.map(|at| at.0)),
            integrations::secret_set_by.eq(&integration.secret_set_by),
            integrations::secret_expires_at.eq(integration.secret_expires_at.map(|at| at.0)),
            (integrations::secret_state.eq(state), integrations::secret_state_at.eq(state_at), integrations::secret_cause.eq(cause)),
            integrations::era.eq(integration.era),
            integrations::updated_at.eq(integration.updated_at.0),
        ))
        .execute(db.0)?;
    if let Some(sealed) = secret {
        diesel::update(row()).set(integrations::client_secret.eq(&sealed.0)).execute(db.0)?;
    }
    Ok(())
}

fn config_text(integration: &Integration) -> Result<String, Error> {
    serde_json::to_string(&integration.config).map_err(|_| damaged("configuration of an integration"))
}

/// Records what using the secret showed, unless the integration changed meanwhile.
pub fn set_health(db: &mut Db<'_>, integration: Id<Integration>, updated_at: Timestamp, health: &SecretHealth) -> Result<(), Error> {
    let (state, state_at, cause) = health_words(health);
    diesel::update(
        integrations::table.filter(integrations::guid.eq(integration.to_string())).filter(integrations::updated_at.eq(updated_at.0)),
    )
    .set((integrations::secret_state.eq(state), integrations::secret_state_at.eq(state_at), integrations::secret_cause.eq(cause)))
    .execute(db.0)?;
    Ok(())
}

pub fn find(db: &mut Db<'_>, integration: Id<Integration>) -> Result<Option<Integration>, Error> {
    let row = integrations::table.filter(integrations::guid.eq(integration.to_string())).select(Row::as_select()).first(db.0).optional()?;
    row.map(Row::integration).transpose()
}

pub fn secret(db: &mut Db<'_>, integration: Id<Integration>) -> Result<Option<Sealed>, Error> {
    let row: Option<Option<String>> = integrations::table
        .filter(integrations::guid.eq(integration.to_string()))
        .select(integrations::client_secret)
        .first(db.0)
        .optional()?;
    Ok(row.flatten().map(Sealed))
}

/// All integrations, in the order they were made.
pub fn list(db: &mut Db<'_>) -> Result<Vec<Integration>, Error> {
    let rows = integrations::table.order(integrations::number).select(Row::as_select()).load(db.0)?;
    rows.into_iter().map(Row::integration).collect()
}

pub fn delete(db: &mut Db<'_>, integration: Id<Integration>) -> Result<bool, Error> {
    Ok(diesel::delete(integrations::table.filter(integrations::guid.eq(integration.to_string()))).execute(db.0)? == 1)
}

/// How much each integration is used.
pub fn usage(db: &mut Db<'_>) -> Result<HashMap<Id<Integration>, Usage>, Error> {
    let contents: Vec<(String, i64)> =
        associations::table.group_by(associations::integration).select((associations::integration, count_star())).load(db.0)?;
    let people: Vec<(String, i64)> = connections::table
        .filter(connections::state.eq("active"))
        .group_by(connections::integration)
        .select((connections::integration, count_star()))
        .load(db.0)?;
    let mut usage: HashMap<Id<Integration>, Usage> = HashMap::new();
    for (guid, count) in contents {
        usage.entry(id(&guid)?).or_default().contents = count;
    }
    for (guid, count) in people {
        usage.entry(id(&guid)?).or_default().people = count;
    }
    Ok(usage)
}

type AssociationRow = (String, String, i64);

fn association((content, integration, created_at): AssociationRow) -> Result<Association, Error> {
    Ok(Association { content: id(&content)?, integration: id(&integration)?, created_at: Timestamp(created_at) })
}

pub fn associations_of_content(db: &mut Db<'_>, content: Id<Content>) -> Result<Vec<Association>, Error> {
    let rows: Vec<AssociationRow> = associations::table
        .filter(associations::content.eq(content.to_string()))
        .order(associations::number)
        .select((associations::content, associations::integration, associations::created_at))
        .load(db.0)?;
    rows.into_iter().map(association).collect()
}

pub fn associations_of_integration(db: &mut Db<'_>, integration: Id<Integration>) -> Result<Vec<Association>, Error> {
    let rows: Vec<AssociationRow> = associations::table
        .filter(associations::integration.eq(integration.to_string()))
        .order(associations::number)
        .select((associations::content, associations::integration, associations::created_at))
        .load(db.0)?;
    rows.into_iter().map(association).collect()
}

/// Makes `wanted` the whole set; associations that stay keep their time.
pub fn set_associations(db: &mut Db<'_>, content: Id<Content>, wanted: &[Id<Integration>], now: Timestamp) -> Result<(), Error> {
    let present = associations_of_content(db, content)?;
    for gone in present.iter().filter(|association| !wanted.contains(&association.integration)) {
        diesel::delete(
            associations::table
                .filter(associations::content.eq(content.to_string()))
                .filter(associations::integration.eq(gone.integration.to_string())),
        )
        .execute(db.0)?;
    }
    for new in wanted.iter().filter(|wanted| !present.iter().any(|association| association.integration == **wanted)) {
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
