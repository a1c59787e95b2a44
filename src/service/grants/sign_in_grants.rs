//! Refresh tokens of organisation sign-ins, sealed, one per browser session. They let a viewer
//! whose organisation signs in at the very application of an integration connect without a second
//! redirect.

use crate::{
    domain::{Id, person::Session},
    service::{core::Core, error::Error},
    store::identities,
    vault::labels,
};
use secrecy::SecretString;
use std::sync::Arc;

/// Refresh tokens of organisation sign-ins.
pub struct SignInGrants {
    core: Arc<Core>,
}

impl SignInGrants {
    pub(in crate::service) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// Stores the refresh token of a sign-in, sealed, for as long as its browser session lives. It
    /// spares the viewer a second redirect to the same provider.
    pub async fn store_sign_in_grant(
        &self,
        session: Id<Session>,
        token: &SecretString,
    ) -> Result<(), Error> {
        let row = session.to_string();
        let sealed = self.core.vault.seal(labels::sign_in_grant(&row), token)?;
        self.core
            .store
            .write(move |db| Ok(identities::put_sign_in_refresh_token(db, session, &sealed)?))
            .await
    }

    /// The refresh token stored by [`Self::store_sign_in_grant`].
    pub(in crate::service) async fn sign_in_grant(
        &self,
        session: Id<Session>,
    ) -> Result<Option<SecretString>, Error> {
        let sealed = self
            .core
            .store
            .read(move |db| Ok::<_, Error>(identities::sign_in_refresh_token(db, session)?))
            .await?;
        let row = session.to_string();
        let place = labels::sign_in_grant(&row);
        Ok(sealed
            .map(|sealed| self.core.vault.open(place, &sealed))
            .transpose()?)
    }
}
