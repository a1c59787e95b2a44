//! Secrets that are shown once, such as a new API key. Until a page shows them they are kept
//! sealed, for five minutes, in a table of their own and not in the session's row.

use crate::{
    domain::{Id, person::Person},
    service::{core::Core, error::Error},
    store::short_lived,
    vault::{api_key::digest, labels, random},
};
use secrecy::SecretString;
use std::{sync::Arc, time::Duration};

/// How long a text waits to be shown.
const SHOWN_ONCE_TTL: Duration = Duration::from_secs(300);

/// Secrets that wait to be shown once.
pub struct ShownOnce {
    core: Arc<Core>,
}

impl ShownOnce {
    pub(in crate::service) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// Stores a text for one person. Returns the random name for [`Self::take_shown_once`].
    pub async fn store_shown_once(
        &self,
        person: Id<Person>,
        text: &SecretString,
    ) -> Result<String, Error> {
        let name = random::token();
        let hash = digest(&name);
        let sealed = self
            .core
            .vault
            .seal(labels::shown_once(&format!("{hash}/{person}")), text)?;
        let expires_at = self.core.now().plus(SHOWN_ONCE_TTL);
        self.core
            .store
            .write(move |db| {
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
        let (hash, now) = (digest(name), self.core.now());
        let row = format!("{hash}/{person}");
        let sealed = self
            .core
            .store
            .write(move |db| Ok::<_, Error>(short_lived::take_shown_once(db, &hash, person, now)?))
            .await?;
        Ok(sealed
            .map(|sealed| self.core.vault.open(labels::shown_once(&row), &sealed))
            .transpose()?)
    }
}
