//! What an admission is based on, with one query: the item, the person, and for each integration of
//! the item the person's consent and connection. (The role from the item's list, where it matters,
//! is a second one: `content::role_of`.)

use super::{
    Db, Error,
    connections::{ConsentRow, Row as ConnectionRow, Tokens},
    content::Row as ContentRow,
    integrations::Row as IntegrationRow,
    people::PersonRow,
    schema::{associations, connections, consents, content, integrations, people},
};
use crate::domain::{
    Id, connection::Connection, consent::Consent, content::Content, integration::Integration,
    person::Person,
};
use diesel::prelude::*;

/// An integration of an item, with one person's consent and connection.
pub struct AttachedIntegration {
    pub integration: Integration,
    pub beside_viewers: bool,
    pub consent: Option<Consent>,
    pub connection: Option<(Connection, Tokens)>,
}

type Joined = (
    ContentRow,
    PersonRow,
    Option<bool>,
    Option<IntegrationRow>,
    Option<ConsentRow>,
    Option<ConnectionRow>,
);

/// The item, the person and the integrations, in the order in which they were attached. `None` if
/// the item or the person is gone.
pub fn load(
    db: &mut Db<'_>,
    item: Id<Content>,
    person: Id<Person>,
) -> Result<Option<(Content, Person, Vec<AttachedIntegration>)>, Error> {
    let (item, person) = (item.to_string(), person.to_string());
    let rows: Vec<Joined> = content::table
        .inner_join(people::table.on(people::guid.eq(person)))
        .left_join(associations::table.on(associations::content.eq(content::guid)))
        .left_join(integrations::table.on(integrations::guid.eq(associations::integration)))
        .left_join(
            consents::table.on(consents::person
                .eq(people::guid)
                .and(consents::content.eq(content::guid))
                .and(consents::integration.eq(associations::integration))),
        )
        .left_join(
            connections::table.on(connections::person
                .eq(people::guid)
                .and(connections::integration.eq(associations::integration))),
        )
        .filter(content::guid.eq(&item))
        .order(associations::number)
        .select((
            ContentRow::as_select(),
            PersonRow::as_select(),
            associations::beside_viewers.nullable(),
            Option::<IntegrationRow>::as_select(),
            Option::<ConsentRow>::as_select(),
            Option::<ConnectionRow>::as_select(),
        ))
        .load(db.0)?;
    let mut found = None;
    let mut attached = Vec::new();
    for (content, person, beside_viewers, integration, consent, connection) in rows {
        if found.is_none() {
            found = Some((content.content()?, person.person()?));
        }
        if let Some(integration) = integration {
            attached.push(AttachedIntegration {
                integration: integration.integration()?,
                beside_viewers: beside_viewers.unwrap_or_default(),
                consent: consent.map(ConsentRow::consent).transpose()?,
                connection: connection.map(ConnectionRow::into_parts).transpose()?,
            });
        }
    }
    Ok(found.map(|(content, person)| (content, person, attached)))
}
