//! Everything that is stored about one person, as one JSON object (Article 15 and 20 of the GDPR): for
//! that person, and for administrators who answer a request. No secret is in it.

use crate::{
    domain::{Id, audit::Action, person::Person},
    service::{
        core::{Actor, Core, event, must_manage_people, record},
        error::Error,
    },
    store::{self, personal_data},
};
use serde_json::{Value, json};
use std::sync::Arc;

/// Tells people what is stored about them.
pub struct PersonalData {
    core: Arc<Core>,
}

impl PersonalData {
    pub(in crate::service) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// Everything about `id`: the actor, or for administrators anyone. Recorded.
    pub async fn of(&self, actor: &Actor, id: Id<Person>) -> Result<(Person, Value), Error> {
        if actor.person.id != id {
            must_manage_people(actor)?;
        }
        let (now, portal) = (self.core.now(), self.core.addresses.base().to_owned());
        let (person, tables) = self
            .core
            .store
            .read_snapshot(move |db| {
                let person = store::people::find(db, id)?.ok_or(Error::NotFound)?;
                Ok::<_, Error>((person, personal_data::tables(db, id)?))
            })
            .await?;
        let line = event(
            actor,
            now,
            Action::PersonalDataExported,
            person.username.clone(),
            "",
        );
        self.core.store.write(move |db| record(db, &line)).await?;
        let data = json!({
            "portal": portal,
            "made_at": now.rfc3339(),
            "about": "Everything that this portal stores about the person. Secrets (tokens, passwords, keys) are stored sealed or as hashes, and are left out. Times are milliseconds since 1970, UTC.",
            "data": tables,
        });
        Ok((person, data))
    }
}
