//! The keyring and the database it belongs to.

use super::{Error, Service};
use crate::{
    store::Store,
    vault::{Place, Root, Sealed, Vault, keyring::Source},
};
use std::sync::Arc;

const KEY_CHECK: &str = "keyring_check";
const ROOT: &str = "root";
/// Which key of the ring seals. Absent: the first.
const SEALING: &str = "sealing_key";

fn place(row: &str) -> Place<'_> {
    Place { table: "meta", column: "value", row }
}

/// Refuses a keyring that is not this database's; the secret that cookies and session tokens are signed with.
pub async fn check(store: &Store, vault: &Vault) -> Result<Root, String> {
    let text = |error: Error| error.to_string();
    let [sealing, kept] = store.read(|db| Ok::<_, Error>([Store::meta(db, SEALING)?, Store::meta(db, KEY_CHECK)?])).await.map_err(text)?;
    if let Some(id) = sealing
        && !vault.seal_with(&id)
    {
        return Err(format!("the key {id} is not in the keyring, and this database is sealed with it. Nothing was changed."));
    }
    if let Some(kept) = kept {
        let opened = vault.open(place(KEY_CHECK), &Sealed(kept));
        opened.map_err(|error| format!("the keyring does not fit this database: {error}. Nothing was changed."))?;
    } else {
        let sealed = vault.seal(place(KEY_CHECK), &"valetkey".into()).map_err(|error| error.to_string())?;
        // Of nodes that start together one is first; the others' keyring has to fit.
        let first = store
            .note(move |db| {
                let first = Store::meta(db, KEY_CHECK)?;
                if first.is_none() {
                    Store::set_meta(db, KEY_CHECK, &sealed.0)?;
                }
                Ok::<_, Error>(first)
            })
            .await
            .map_err(text)?;
        if let Some(first) = first {
            let opened = vault.open(place(KEY_CHECK), &Sealed(first));
            opened.map_err(|error| format!("the keyring does not fit this database: {error}. Nothing was changed."))?;
        }
    }
    let new = vault.seal(place(ROOT), &Root::generate()).map_err(|error| error.to_string())?;
    let root = store
        .note(move |db| match Store::meta(db, ROOT)? {
            Some(root) => Ok::<_, Error>(Sealed(root)),
            None => {
                Store::set_meta(db, ROOT, &new.0)?;
                Ok(new)
            }
        })
        .await
        .map_err(text)?;
    let root = vault.open(place(ROOT), &root).map_err(|error| format!("the keyring does not fit this database: {error}"))?;
    Root::parse(&root).ok_or_else(|| "the row “root” of the table meta is damaged".to_owned())
}

impl Service {
    /// Takes up keys that were added to the ring, and seals with the one that the database names. `Err` says what is missing.
    pub async fn follow_keyring(&self) -> Result<(), String> {
        let named = self.store.read(|db| Ok::<_, Error>(Store::meta(db, SEALING)?)).await.map_err(|error| error.to_string())?;
        let wanted = named.unwrap_or_else(|| self.vault.sealing());
        let from_file = matches!(self.vault.source(), Source::File(_));
        if from_file || self.vault.keyring().get(&wanted).is_none() {
            let vault = Arc::clone(&self.vault);
            let reloaded = tokio::task::spawn_blocking(move || vault.reload()).await.map_err(|error| error.to_string())?;
            reloaded.map_err(|error| format!("cannot be read again: {error}"))?;
        }
        if self.vault.seal_with(&wanted) {
            Ok(())
        } else {
            Err(format!("the key {wanted} seals new values, and it is not in this node's keyring: put it there"))
        }
    }
}
