//! Texts shown once, sealed until then.

use super::{Error, Service};
use crate::{
    domain::{Id, person::Person},
    store::moments,
    vault::{Place, api_key::digest, random},
};
use secrecy::SecretString;
use std::time::Duration;

const KEPT_FOR: Duration = Duration::from_secs(300);

fn place(row: &str) -> Place<'_> {
    Place {
        table: "shown_once",
        column: "shown",
        row,
    }
}

impl Service {
    /// Keeps a text for one person; the name to take it by.
    pub async fn keep_shown(
        &self,
        person: Id<Person>,
        text: &SecretString,
    ) -> Result<String, Error> {
        let name = random::token();
        let hash = digest(&name);
        let sealed = self.vault.seal(place(&format!("{hash}/{person}")), text)?;
        let expires_at = self.now().plus(KEPT_FOR);
        self.store
            .note(move |db| {
                Ok::<_, Error>(moments::keep_shown(db, &hash, person, &sealed, expires_at)?)
            })
            .await?;
        Ok(name)
    }

    /// The text of this name, if it is this person's and was not taken before.
    pub async fn take_shown(
        &self,
        person: Id<Person>,
        name: &str,
    ) -> Result<Option<SecretString>, Error> {
        let (hash, now) = (digest(name), self.now());
        let row = format!("{hash}/{person}");
        let sealed = self
            .store
            .note(move |db| Ok::<_, Error>(moments::take_shown(db, &hash, person, now)?))
            .await?;
        Ok(sealed
            .map(|sealed| self.vault.open(place(&row), &sealed))
            .transpose()?)
    }
}
