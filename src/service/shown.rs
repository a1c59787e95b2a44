//! Secrets that are shown once, such as a new API key. Until a page shows them they are kept
//! sealed, for five minutes, in a table of their own and not in the session's row.

use super::{Error, Service};
use crate::{
    domain::{Id, person::Person},
    store::short_lived,
    vault::{SealContext, api_key::digest, random},
};
use secrecy::SecretString;
use std::time::Duration;

/// How long a text waits to be shown.
const SHOWN_ONCE_TTL: Duration = Duration::from_secs(300);

fn place(row: &str) -> SealContext<'_> {
    SealContext {
        table: "shown_once",
        column: "shown",
        row,
    }
}

impl Service {
    /// Stores a text for one person. Returns the random name for [`Service::take_shown_once`].
    pub async fn store_shown_once(
        &self,
        person: Id<Person>,
        text: &SecretString,
    ) -> Result<String, Error> {
        let name = random::token();
        let hash = digest(&name);
        let sealed = self.vault.seal(place(&format!("{hash}/{person}")), text)?;
        let expires_at = self.now().plus(SHOWN_ONCE_TTL);
        self.store
            .write_untracked(move |db| {
                Ok::<_, Error>(short_lived::put_shown_once(
                    db, &hash, person, &sealed, expires_at,
                )?)
            })
            .await?;
        Ok(name)
    }

    /// Returns the text of this name and deletes it. `None` if it is another person's, has expired,
    /// or was taken before.
    pub async fn take_shown_once(
        &self,
        person: Id<Person>,
        name: &str,
    ) -> Result<Option<SecretString>, Error> {
        let (hash, now) = (digest(name), self.now());
        let row = format!("{hash}/{person}");
        let sealed = self
            .store
            .write_untracked(move |db| {
                Ok::<_, Error>(short_lived::take_shown_once(db, &hash, person, now)?)
            })
            .await?;
        Ok(sealed
            .map(|sealed| self.vault.open(place(&row), &sealed))
            .transpose()?)
    }
}
