//! Secrets that are shown once, such as a new API key. Until a page shows them they are kept
//! sealed, for five minutes, in a table of their own and not in the session's row.

use super::{Error, Service};
use crate::{
    domain::{Id, person::Person},
    store::moments,
    vault::{Place, api_key::digest, random},
};
use secrecy::SecretString;
use std::time::Duration;

/// How long a text waits to be shown.
const KEPT_FOR: Duration = Duration::from_secs(300);

fn place(row: &str) -> Place<'_> {
    Place {
        table: "shown_once",
        column: "shown",
        row,
    }
}

impl Service {
    /// Stores a text for one person. Returns the random name for [`Service::take_shown`].
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

    /// Returns the text of this name and deletes it. `None` if it is another person's, has expired,
    /// or was taken before.
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
