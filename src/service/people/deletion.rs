//! Deleting a person: everything about them goes, and the audit log keeps a pseudonym.
//!
//! First the account is locked, which ends sessions and connections as ever (providers are told, the
//! journal of endings notes it). Then one transaction gives their content to somebody else and deletes
//! the rest. Then their names are taken out of the audit log, block by block, so that no other write
//! waits; the leader repeats that for an hour ([`Deletion::finish`]), since other nodes and requests to
//! providers that were under way may still write a name. A restore of an
//! older backup brings the account back, locked: delete it again.

use super::accounts::People;
use crate::{
    domain::{
        Id,
        audit::Action,
        content::Content,
        person::{Person, Role},
    },
    service::{
        auditing::audit::Audit,
        core::{Actor, Core, event, must_manage_people, record},
        error::{Error, invalid},
    },
    store::{audit, audit::Pseudonym, content, notices, people},
    vault::random,
};
use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

/// How long a caller waits for the names to be out of the audit log.
const PATIENCE: Duration = Duration::from_secs(5);
/// For how long names that are still written are taken out.
const KEPT_OUT: Duration = Duration::from_secs(3600);
/// Records that one read looks at.
const RECORDS_PER_READ: i64 = 2000;

/// Deletes people.
pub struct Deletion {
    core: Arc<Core>,
    people: Arc<People>,
    audit: Arc<Audit>,
}

impl Deletion {
    pub(in crate::service) fn new(core: Arc<Core>, people: Arc<People>, audit: Arc<Audit>) -> Self {
        Self {
            core,
            people,
            audit,
        }
    }

    /// The content that a person owns, which needs another owner. Administrators only.
    pub async fn content_of(&self, actor: &Actor, id: Id<Person>) -> Result<Vec<Content>, Error> {
        must_manage_people(actor)?;
        self.core
            .store
            .read(move |db| Ok(content::of_owner(db, id)?))
            .await
    }

    /// Deletes a person and gives their content to `heir`, who is needed if there is any. Returns what
    /// stands for them in the audit log. Administrators only; nobody deletes themselves.
    pub async fn delete(
        self: &Arc<Self>,
        actor: &Actor,
        id: Id<Person>,
        heir: Option<Id<Person>>,
    ) -> Result<String, Error> {
        must_manage_people(actor)?;
        if actor.person.id == id {
            return Err(invalid("", "You cannot delete yourself."));
        }
        let person = self.people.person(actor, id).await?;
        let owned = !self.content_of(actor, id).await?.is_empty();
        if owned {
            let heir = heir.ok_or_else(|| invalid("heir", "Choose who gets their content."))?;
            let heir = self.people.person(actor, heir).await?;
            if heir.id == id || heir.locked || heir.role < Role::Publisher {
                return Err(invalid(
                    "heir",
                    "Choose a publisher or administrator who is not locked.",
                ));
            }
        }
        if !person.locked {
            self.people.set_locked(actor, id, true).await?;
        }
        let whom = Pseudonym::new(&person);
        let (name, names) = (whom.text(), whom.clone());
        let (now, actor) = (self.core.now(), actor.clone());
        let pseudonym = name.clone();
        self.core
            .store
            .write(move |db| {
                people::find(db, id)?.ok_or(Error::NotFound)?;
                let mut given = 0;
                let owned = content::of_owner(db, id)?;
                if !owned.is_empty() {
                    let heir = heir.ok_or_else(|| {
                        invalid("heir", "They own content since: choose who gets it.")
                    })?;
                    let theirs = content::of_owner(db, heir)?.into_iter();
                    let taken: HashSet<String> = theirs.map(|item| item.name).collect();
                    given = owned.len();
                    for mut item in owned {
                        if taken.contains(&item.name) {
                            item.name = format!("{}-{}", item.name, random::label());
                        }
                        item.owner = heir;
                        content::give(db, &item)?;
                    }
                }
                people::delete_keys_of(db, id)?;
                people::delete(db, id, &pseudonym)?;
                audit::put_erasure(db, &names, now.plus(KEPT_OUT))?;
                let heir = match heir.filter(|_| given > 0) {
                    Some(heir) => people::find(db, heir)?.map(|heir| heir.username),
                    None => None,
                };
                let detail = heir.map_or_else(String::new, |heir| {
                    format!("{given} content item(s) went to {heir}")
                });
                let line = event(
                    &actor,
                    now,
                    Action::PersonDeleted,
                    pseudonym.clone(),
                    detail,
                );
                record(db, &line)
            })
            .await?;
        let service = Arc::clone(self);
        // The rest goes on if the page is left.
        let finishing = async move { service.finish().await };
        if let Err(error) = self.core.run_for(PATIENCE, finishing).await {
            error.log(
                "taking the names of a deleted person out of the audit log; it is tried again",
            );
        }
        Ok(name)
    }

    /// Takes the names of deleted people out of the audit log, where that is left to do.
    pub async fn finish(self: &Arc<Self>) -> Result<(), Error> {
        let left = self
            .core
            .store
            .read(|db| Ok::<_, Error>(audit::erasures(db)?))
            .await?;
        self.audit.flush_refusals().await;
        for (whom, until) in left {
            let is_last = self.core.now() >= until;
            // One person's damaged records do not keep others' names in the log.
            if let Err(error) = self.erase(&whom, is_last).await {
                error.log("taking the names of a deleted person out of the audit log");
            }
        }
        Ok(())
    }

    /// `is_last`: nothing more is expected, and the names are forgotten here, too.
    async fn erase(&self, whom: &Pseudonym, is_last: bool) -> Result<(), Error> {
        let mut after = 0;
        let mut blocks = BTreeSet::new();
        loop {
            let names = whom.clone();
            let found = self
                .core
                .store
                .read(move |db| {
                    Ok::<_, Error>(audit::blocks_naming(db, &names, after, RECORDS_PER_READ)?)
                })
                .await?;
            let Some((more, last)) = found else { break };
            blocks.extend(more);
            after = last;
        }
        for block in blocks.into_iter().map(Some).chain([None]) {
            let names = whom.clone();
            let changed = self
                .core
                .store
                .write(move |db| Ok::<_, Error>(audit::pseudonymise(db, &names, block)?))
                .await;
            // A block that is not as it was sealed stays as it is: it is evidence.
            match changed {
                Err(error) if error.is_busy() => return Err(error),
                Err(error) => error.log("putting a pseudonym into a block of the audit log"),
                Ok(_) => {}
            }
        }
        let names = whom.clone();
        self.core
            .store
            .write(move |db| {
                notices::replace_names(db, |text| names.in_notice(text))?;
                if is_last {
                    audit::end_erasure(db, &names)?;
                }
                Ok::<_, Error>(())
            })
            .await
    }
}
