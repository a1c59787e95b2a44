//! The keyring and the database it belongs to: the check at start, and the commands that rotate,
//! retire and verify keys. The table `meta` holds a check value, the root secret, the id of the
//! sealing key and the ids of all keys in use. Values are sealed anew while servers run, one batch
//! per transaction.

use crate::{
    domain::audit::Action,
    service::{
        cluster::node::Nodes,
        core::{Core, record},
        error::Error,
        people::accounts::by_command_line,
    },
    store::{
        Db, Store,
        sealed::{self, COLUMNS, Column},
    },
    vault::{
        Root, SealContext, Sealed, Vault,
        keyring::{Keyring, Source},
        labels,
    },
};
use std::{sync::Arc, time::Duration};

/// Name of a sealed constant, by which the keyring of this database is recognised.
const KEY_CHECK: &str = "keyring_check";
/// Name of the sealed secret of cookies and session tokens, once it was rotated; before, they are derived
/// from [`ROOT`].
const SESSION_ROOT: &str = "session_root";
/// Name of the sealed root secret: see [`Root`].
const ROOT: &str = "root";
/// Name of the id of the sealing key. Absent: the first key of the ring.
const SEALING: &str = "sealing_key";
/// Name of the ids, separated by blanks, of all keys that may have sealed a stored value.
const IN_USE: &str = "keys_in_use";
/// Maximum values per transaction.
const BATCH_SIZE: i64 = 200;
/// Running nodes use a new sealing key within this time: see [`crate::jobs`].
const KEY_CHANGE_DELAY: Duration = Duration::from_millis(1500);

/// Checks at start that the keyring belongs to this database, or sets up a new database. Returns
/// the root secret of cookies and session tokens. The error is a sentence for the operator.
pub async fn check(store: &Store, vault: &Vault) -> Result<Root, String> {
    let text = |error: Error| error.to_string();
    let [sealing, kept, in_use] = store
        .read(|db| {
            Ok::<_, Error>([
                Store::meta(db, SEALING)?,
                Store::meta(db, KEY_CHECK)?,
                Store::meta(db, IN_USE)?,
            ])
        })
        .await
        .map_err(text)?;
    let ring = vault.keyring();
    if let Some(missing) = in_use
        .iter()
        .flat_map(|ids| ids.split(' '))
        .find(|id| ring.get(id).is_none())
    {
        return Err(format!(
            "the key {missing} is not in the keyring, and values in this database are sealed with it. Put the key back, or the keyring that belongs to this database. Nothing was changed."
        ));
    }
    if let Some(id) = sealing
        && !vault.set_sealing_key(&id)
    {
        return Err(format!(
            "the key {id} is not in the keyring, and this database is sealed with it. Nothing was changed."
        ));
    }
    if let Some(kept) = kept {
        let opened = vault.open(labels::meta(KEY_CHECK), &Sealed(kept));
        opened.map_err(|error| {
            format!("the keyring does not fit this database: {error}. Nothing was changed.")
        })?;
    } else {
        let sealed = vault
            .seal(labels::meta(KEY_CHECK), &"valetkey".into())
            .map_err(|error| error.to_string())?;
        // If several nodes start together, one writes the value, and the keyring of the others has
        // to open it.
        let first = store
            .write(move |db| {
                let first = Store::meta(db, KEY_CHECK)?;
                if first.is_none() {
                    Store::set_meta(db, KEY_CHECK, &sealed.0)?;
                }
                Ok::<_, Error>(first)
            })
            .await
            .map_err(text)?;
        if let Some(first) = first {
            let opened = vault.open(labels::meta(KEY_CHECK), &Sealed(first));
            opened.map_err(|error| {
                format!("the keyring does not fit this database: {error}. Nothing was changed.")
            })?;
        }
    }
    if in_use.is_none() {
        // A new database, or one from before this entry existed.
        let ids = ring.ids().collect::<Vec<_>>().join(" ");
        store
            .write(move |db| Ok::<_, Error>(Store::set_meta(db, IN_USE, &ids)?))
            .await
            .map_err(text)?;
    }
    let new = vault
        .seal(labels::meta(ROOT), &Root::generate())
        .map_err(|error| error.to_string())?;
    let root = store
        .write(move |db| match Store::meta(db, ROOT)? {
            Some(root) => Ok::<_, Error>(Sealed(root)),
            None => {
                Store::set_meta(db, ROOT, &new.0)?;
                Ok(new.clone())
            }
        })
        .await
        .map_err(text)?;
    let root = vault
        .open(labels::meta(ROOT), &root)
        .map_err(|error| format!("the keyring does not fit this database: {error}"))?;
    Root::parse(&root).ok_or_else(|| "the row “root” of the table meta is damaged".to_owned())
}

/// A new secret for [`put_session_root`].
pub fn new_session_root(vault: &Vault) -> Result<Sealed, crate::vault::Error> {
    vault.seal(labels::meta(SESSION_ROOT), &Root::generate())
}

/// Replaces the secret of cookies, session tokens and visitor keys.
pub fn put_session_root(db: &mut Db<'_>, sealed: &Sealed) -> Result<(), crate::store::Error> {
    Store::write_meta(db, SESSION_ROOT, &sealed.0)
}

/// The secret from which the keys of cookies, session tokens and visitor keys are derived: the root
/// secret, until [`KeyringAdmin::rotate_session_root`] replaced it. The error is a sentence for the
/// operator.
pub async fn session_root(store: &Store, vault: &Vault) -> Result<Root, String> {
    let names = [SESSION_ROOT, ROOT];
    let sealed = store
        .read(move |db| {
            for name in names {
                if let Some(sealed) = Store::meta(db, name)? {
                    return Ok::<_, Error>(Some((name, Sealed(sealed))));
                }
            }
            Ok(None)
        })
        .await
        .map_err(|error| error.to_string())?;
    let (name, sealed) = sealed.ok_or("the row “root” of the table meta is missing")?;
    let root = vault
        .open(labels::meta(name), &sealed)
        .map_err(|error| format!("the keyring does not fit this database: {error}"))?;
    Root::parse(&root).ok_or_else(|| format!("the row “{name}” of the table meta is damaged"))
}

/// Why a key command failed, in words for the command line.
#[derive(Debug, thiserror::Error)]
pub enum KeyCommandError {
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Vault(#[from] crate::vault::Error),
    #[error(transparent)]
    Service(#[from] Error),
}

fn refuse<T>(text: impl Into<String>) -> Result<T, KeyCommandError> {
    Err(KeyCommandError::Refused(text.into()))
}

/// One key of the keyring.
pub struct Key {
    pub id: String,
    /// Whether it seals new values.
    pub seals: bool,
    /// Number of stored values that it sealed.
    pub values: i64,
}

/// Result of [`KeyringAdmin::verify_keys`].
#[derive(Default)]
pub struct VerifyReport {
    pub opened: u64,
    /// The location of each value that does not open, and the reason.
    pub damaged: Vec<String>,
}

/// Result of [`KeyringAdmin::rotate_keys`].
#[derive(Default)]
pub struct RotateReport {
    /// Number of values that were sealed anew.
    pub resealed: u64,
    /// The location of each value that does not open, and the reason. These stay as they are.
    pub damaged: Vec<String>,
}

/// Progress of a long command, in values: the total first, then each batch.
pub enum Progress {
    Total(u64),
    Done(u64),
}

/// Number of stored values that this key sealed.
fn count_of(db: &mut Db<'_>, id: &str) -> Result<i64, Error> {
    let mut all = 0;
    for column in &COLUMNS {
        all += sealed::count(db, column, Some(id))?;
    }
    Ok(all)
}

/// Where a value is that does not open, and why.
fn location(column: &Column, key: &str, error: &crate::vault::Error) -> String {
    format!("{}.{} of {key}: {error}", column.table, column.column)
}

/// When [`KeyringAdmin::sync_keyring`] reads the keyring again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// If it lacks the key that seals.
    IfKeyIsMissing,
    /// A keyring file in any case: it may have new keys.
    Always,
}

/// Keys of the ring: rotation, retirement, verification.
pub struct KeyringAdmin {
    core: Arc<Core>,
    nodes: Arc<Nodes>,
}

impl KeyringAdmin {
    pub(in crate::service) fn new(core: Arc<Core>, nodes: Arc<Nodes>) -> Self {
        Self { core, nodes }
    }

    /// The keys of the ring, each with the number of values it sealed.
    pub async fn keys_of_ring(&self) -> Result<Vec<Key>, KeyCommandError> {
        let (ring, sealing) = (self.core.vault.keyring(), self.core.vault.sealing_key_id());
        let ids: Vec<String> = ring.ids().map(str::to_owned).collect();
        let counted = self.core.store.read(move |db| {
            ids.into_iter()
                .map(|id| Ok::<_, Error>((count_of(db, &id)?, id)))
                .collect::<Result<Vec<_>, _>>()
        });
        Ok(counted
            .await?
            .into_iter()
            .map(|(values, id)| Key {
                seals: id == sealing,
                id,
                values,
            })
            .collect())
    }

    /// Replaces the secret of cookies, session tokens and visitor keys: everybody is signed out, and what
    /// content holds is worthless. Refuses while a server runs: it would go on with the old one.
    pub async fn rotate_session_root(&self) -> Result<(), KeyCommandError> {
        if !self.nodes.nodes().await?.is_empty() {
            return refuse(
                "a server runs on this database: stop all of them first (one that was killed counts for 35 seconds). Nothing was changed",
            );
        }
        let sealed = new_session_root(&self.core.vault)?;
        let line = by_command_line(
            self.core.now(),
            Action::RootRotated,
            "cookies and session tokens".into(),
            String::new(),
        );
        self.core
            .store
            .write(move |db| {
                put_session_root(db, &sealed)?;
                record(db, &line)
            })
            .await?;
        Ok(())
    }

    /// Makes `to` (by default the last key of the ring) the sealing key, then seals anew the values
    /// of all other keys, while servers run; returns how many. Fails, without a change, if a live
    /// node does not hold the key. It may be interrupted and repeated. A value that changed
    /// meanwhile is skipped (compare-and-swap), and so is a value that does not open.
    pub async fn rotate_keys(
        &self,
        to: Option<String>,
        mut progress: impl FnMut(Progress),
    ) -> Result<RotateReport, KeyCommandError> {
        let ring = self.core.vault.keyring();
        let newest = ring.ids().last().unwrap_or_default().to_owned();
        let to = to.unwrap_or(newest);
        if ring.get(&to).is_none() {
            return refuse(format!(
                "there is no key {to} in the keyring: add one with `valetkey keys add`"
            ));
        }
        let nodes = self.nodes.nodes().await?;
        if let Some(node) = nodes.iter().find(|node| !node.keys.contains(&to)) {
            return refuse(format!(
                "the node {} does not hold the key {to} yet: put the keyring there and wait ten seconds. Nothing was changed.",
                node.node
            ));
        }
        let (wanted, in_use) = (to.clone(), to.clone());
        self.core
            .store
            .write(move |db| {
                let in_use = in_use.clone();
                Store::set_meta(db, SEALING, &wanted)?;
                let mut ids: Vec<String> = Store::meta(db, IN_USE)?
                    .unwrap_or_default()
                    .split(' ')
                    .map(str::to_owned)
                    .collect();
                if !ids.contains(&in_use) {
                    ids.push(in_use);
                }
                Ok::<_, Error>(Store::set_meta(db, IN_USE, &ids.join(" "))?)
            })
            .await?;
        self.core.vault.set_sealing_key(&to);
        if !nodes.is_empty() {
            tokio::time::sleep(KEY_CHANGE_DELAY).await;
        }
        let wanted = to.clone();
        let todo = self
            .core
            .store
            .read(move |db| {
                let mut all = 0;
                for column in &COLUMNS {
                    all += sealed::count(db, column, None)?
                        - sealed::count(db, column, Some(&wanted))?;
                }
                Ok::<_, Error>(all)
            })
            .await?;
        progress(Progress::Total(u64::try_from(todo).unwrap_or(0)));
        let mut report = RotateReport::default();
        for column in &COLUMNS {
            let mut after = String::new();
            loop {
                let (wanted, from) = (to.clone(), after);
                let found = self
                    .core
                    .store
                    .read(move |db| {
                        Ok::<_, Error>(sealed::sealed_with_other_keys(
                            db, column, &wanted, &from, BATCH_SIZE,
                        )?)
                    })
                    .await?;
                let Some(last) = found.last() else { break };
                after = last.key.clone();
                let mut anew = Vec::new();
                for value in found {
                    let place = SealContext {
                        table: column.table,
                        column: column.column,
                        row: &value.row,
                    };
                    match self.core.vault.open(place, &value.sealed) {
                        Ok(opened) => {
                            let new = self.core.vault.seal(place, &opened)?;
                            anew.push((value, new));
                        }
                        Err(error) => report.damaged.push(location(column, &value.key, &error)),
                    }
                }
                let changed = self
                    .core
                    .store
                    .write(move |db| {
                        let mut changed = 0;
                        for (value, new) in &anew {
                            changed += u64::from(sealed::compare_and_swap(
                                db,
                                column,
                                &value.key,
                                &value.sealed,
                                new,
                            )?);
                        }
                        Ok::<_, Error>(changed)
                    })
                    .await?;
                report.resealed += changed;
                progress(Progress::Done(changed));
            }
        }
        Ok(report)
    }

    /// Removes a key from the ring once no stored value needs it. `Ok(false)` if the operator has
    /// to remove its line.
    pub async fn retire_key(&self, id: &str) -> Result<bool, KeyCommandError> {
        if self.core.vault.keyring().get(id).is_none() {
            return refuse(format!("there is no key {id} in the keyring"));
        }
        if self.core.vault.sealing_key_id() == id {
            return refuse(format!(
                "the key {id} seals new values: make another one with `valetkey keys add`, then run `valetkey keys rotate`"
            ));
        }
        let wanted = id.to_owned();
        let needed = self
            .core
            .store
            .write(move |db| {
                let needed = count_of(db, &wanted)?;
                if needed == 0 {
                    let ids = Store::meta(db, IN_USE)?.unwrap_or_default();
                    let left: Vec<&str> = ids.split(' ').filter(|id| *id != wanted).collect();
                    Store::set_meta(db, IN_USE, &left.join(" "))?;
                }
                Ok::<_, Error>(needed)
            })
            .await?;
        if needed > 0 {
            return refuse(format!(
                "{needed} value(s) are sealed with the key {id}: run `valetkey keys rotate` first. It names those that do not open. Nothing was changed."
            ));
        }
        Ok(Keyring::remove(self.core.vault.source(), id)?)
    }

    /// Opens every sealed value and reports those that do not open.
    pub async fn verify_keys(
        &self,
        mut progress: impl FnMut(Progress),
    ) -> Result<VerifyReport, KeyCommandError> {
        let all = self
            .core
            .store
            .read(|db| {
                COLUMNS
                    .iter()
                    .map(|column| Ok::<_, Error>(sealed::count(db, column, None)?))
                    .sum::<Result<i64, Error>>()
            })
            .await?;
        progress(Progress::Total(u64::try_from(all).unwrap_or(0)));
        let mut verified = VerifyReport::default();
        for column in &COLUMNS {
            let mut after = String::new();
            loop {
                let from = after;
                let found = self
                    .core
                    .store
                    .read(move |db| {
                        Ok::<_, Error>(sealed::sealed_with_other_keys(
                            db, column, "", &from, BATCH_SIZE,
                        )?)
                    })
                    .await?;
                let Some(last) = found.last() else { break };
                after = last.key.clone();
                progress(Progress::Done(found.len() as u64));
                for value in found {
                    let place = SealContext {
                        table: column.table,
                        column: column.column,
                        row: &value.row,
                    };
                    match self.core.vault.open(place, &value.sealed) {
                        Ok(_) => verified.opened += 1,
                        Err(error) => {
                            verified.damaged.push(location(column, &value.key, &error));
                        }
                    }
                }
            }
        }
        Ok(verified)
    }

    /// Makes this node seal with the key that the database names. The error says what is missing.
    pub async fn sync_keyring(&self, reload: Reload) -> Result<(), String> {
        let named = self
            .core
            .store
            .read(|db| Ok::<_, Error>(Store::meta(db, SEALING)?))
            .await
            .map_err(|error| error.to_string())?;
        let wanted = named.unwrap_or_else(|| self.core.vault.sealing_key_id());
        let from_file =
            reload == Reload::Always && matches!(self.core.vault.source(), Source::File(_));
        if from_file || self.core.vault.keyring().get(&wanted).is_none() {
            let vault = Arc::clone(&self.core.vault);
            let reloaded = tokio::task::spawn_blocking(move || vault.reload())
                .await
                .map_err(|error| error.to_string())?;
            reloaded.map_err(|error| format!("cannot be read again: {error}"))?;
        }
        if self.core.vault.set_sealing_key(&wanted) {
            Ok(())
        } else {
            Err(format!(
                "the key {wanted} seals new values, and it is not in this node's keyring: put it there"
            ))
        }
    }
}
