//! API keys: people's own, content keys that act for one content item, and the keys of running
//! processes, which are content keys in memory. A key never grants more
//! than its person's role. The clear key is returned once, at creation; format and hash are in
//! `vault::api_key`.

use crate::{
    domain::{
        Id, Timestamp, access,
        api_key::ApiKey,
        audit::Action,
        content::Content,
        person::{Person, Role},
    },
    service::{
        cluster::cache::{DecisionCache, Validity},
        core::{Actor, CACHE_CAPACITY, Core, event, record, require},
        error::{Error, invalid},
        last_uses::LastUses,
    },
    store::{bookkeeping, changes::Subject, content, emergency, people},
    vault::api_key,
};
use parking_lot::Mutex;
use secrecy::SecretString;
use std::{collections::HashMap, sync::Arc, time::Duration};

/// The person behind a presented API key. `role` is the lower one of the key's and the person's.
#[derive(Clone, Debug)]
pub struct Caller {
    pub person: Person,
    pub role: Role,
    /// The key's number.
    pub key: i64,
    /// A visitor key: it makes no keys and exchanges no tokens, since those would outlive it.
    pub is_visitor: bool,
    /// Set for a content key: it acts for this item only.
    pub content: Option<Id<Content>>,
    active_at: Option<Timestamp>,
    /// When the key ends.
    pub expires_at: Option<Timestamp>,
}

impl Caller {
    /// The viewer of a content item behind a visitor key.
    pub(in crate::service) fn visitor(person: Person, at_most: Role, end: Timestamp) -> Self {
        Self {
            role: at_most.min(person.role),
            person,
            key: 0,
            is_visitor: true,
            content: None,
            active_at: None,
            expires_at: Some(end),
        }
    }
}

/// The key of one running process of deployed content, in memory only: it works until it is dropped.
pub struct ProcessKey {
    keys: Arc<ProcessKeys>,
    hash: String,
    secret: SecretString,
}

impl ProcessKey {
    /// The key itself.
    pub fn secret(&self) -> &SecretString {
        &self.secret
    }
}

impl Drop for ProcessKey {
    fn drop(&mut self) {
        self.keys.lock().remove(&self.hash);
    }
}

/// Items by the hash of a process's key, and when it was made.
type ProcessKeys = Mutex<HashMap<String, (Id<Content>, Timestamp)>>;

/// API keys. Owns the cache of their callers, and the times of last use that are not written yet.
pub struct ApiKeys {
    core: Arc<Core>,
    cache: DecisionCache<String, Arc<Caller>>,
    last_uses: Arc<LastUses<i64>>,
    process_keys: Arc<ProcessKeys>,
    /// Callers of processes' keys; used only while the key is in `process_keys`.
    process_callers: DecisionCache<String, Arc<Caller>>,
}

impl ApiKeys {
    pub(in crate::service) fn new(core: Arc<Core>) -> Self {
        Self {
            core,
            cache: DecisionCache::new(CACHE_CAPACITY),
            last_uses: Arc::default(),
            process_keys: Arc::default(),
            process_callers: DecisionCache::new(CACHE_CAPACITY),
        }
    }

    /// A content key for a process of an item that runs here. It acts as the item's owner, whoever
    /// that is at the time.
    pub fn add_process_key(&self, item: Id<Content>) -> ProcessKey {
        let secret = api_key::generate();
        let hash = api_key::hash(&secret);
        let made = (item, self.core.now());
        self.process_keys.lock().insert(hash.clone(), made);
        ProcessKey {
            keys: Arc::clone(&self.process_keys),
            hash,
            secret,
        }
    }

    /// The caller of a process's key; `None` if the item is gone, or all keys of its time were ended.
    async fn process_caller(
        &self,
        hash: String,
        (item, made_at): (Id<Content>, Timestamp),
    ) -> Result<Option<Arc<Caller>>, Error> {
        let start = self.core.load_start();
        if let Some(caller) = self
            .process_callers
            .fresh(hash.as_str(), &self.core.store, start)
        {
            return Ok(Some(caller).filter(|caller| !caller.person.locked));
        }
        let found = self
            .core
            .store
            .read(move |db| {
                if emergency::ended_at(db)?.is_some_and(|end| made_at <= end) {
                    return Ok(None);
                }
                let Some(item) = content::find(db, item)? else {
                    return Ok(None);
                };
                Ok::<_, Error>(people::find(db, item.owner)?)
            })
            .await?;
        let Some(person) = found.filter(|person| !person.locked) else {
            return Ok(None);
        };
        let caller = Arc::new(Caller {
            is_visitor: false,
            role: Role::Publisher.min(person.role),
            person,
            key: 0,
            content: Some(item),
            active_at: None,
            expires_at: None,
        });
        let subjects = [Subject::Content(item), Subject::Person(caller.person.id)];
        self.process_callers
            .insert(hash, Arc::clone(&caller), Validity::new(start, subjects));
        Ok(Some(caller))
    }

    /// Writes the times of last use: every ten seconds and at a stop.
    pub async fn flush_last_uses(&self) {
        self.last_uses
            .flush(
                &self.core,
                "when API keys were last used",
                bookkeeping::touch_keys,
            )
            .await;
    }

    /// Resolves a presented API key; `None` unless it is an unexpired key of an unlocked person. A found
    /// key is cached until it or its person changes.
    pub async fn caller(&self, presented: &str) -> Result<Option<Arc<Caller>>, Error> {
        let Some(hash) = api_key::lookup(presented) else {
            return Ok(None);
        };
        let process = self.process_keys.lock().get(&hash).copied();
        if let Some(process) = process {
            return self.process_caller(hash, process).await;
        }
        let (start, now) = (self.core.load_start(), self.core.now());
        let caller = match self.cache.fresh(hash.as_str(), &self.core.store, start) {
            Some(caller) => caller,
            None => {
                let wanted = hash.clone();
                let found = self
                    .core
                    .store
                    .read(move |db| Ok::<_, Error>(people::by_key(db, &wanted)?))
                    .await?;
                let Some((key, person)) = found else {
                    return Ok(None);
                };
                let caller = Arc::new(Caller {
                    is_visitor: false,
                    role: key.role.min(person.role),
                    person,
                    key: key.number,
                    content: key.content,
                    active_at: key.active_at,
                    expires_at: key.expires_at,
                });
                let subjects = [
                    Subject::ApiKey(key.number),
                    Subject::Person(caller.person.id),
                ];
                let item = key.content.map(Subject::Content);
                self.cache.insert(
                    hash,
                    Arc::clone(&caller),
                    Validity::new(start, subjects.into_iter().chain(item)),
                );
                // Written at most once an hour: the last use is shown to people, and no decision
                // depends on it.
                if caller
                    .active_at
                    .is_none_or(|at| now.since(at).as_secs() > 3600)
                {
                    self.last_uses.note(key.number, now);
                }
                caller
            }
        };
        let live = !caller.person.locked && caller.expires_at.is_none_or(|end| now < end);
        Ok(live.then_some(caller))
    }

    /// All API keys of a person: their own, or anyone's for an administrator.
    pub async fn keys_of(&self, actor: &Actor, person: Id<Person>) -> Result<Vec<ApiKey>, Error> {
        require(
            person == actor.person.id || access::may_manage_people(actor.role),
            "Keys belong to their person.",
        )?;
        let mut keys: Vec<ApiKey> = self
            .core
            .store
            .read(move |db| Ok::<_, Error>(people::keys(db, person)?))
            .await?;
        for key in &mut keys {
            key.active_at = key.active_at.max(self.last_uses.pending(&key.number));
        }
        Ok(keys)
    }

    /// Creates a key for the actor, by default with the actor's role. The clear key is returned
    /// once. `Invalid` if the name is unusable or the role is above the actor's.
    pub async fn create_key(
        &self,
        actor: &Actor,
        name: &str,
        role: Option<Role>,
        expires_at: Option<Timestamp>,
    ) -> Result<(ApiKey, SecretString), Error> {
        let name = name.trim();
        if name.is_empty() || name.chars().count() > 100 || name.chars().any(char::is_control) {
            return Err(invalid(
                "name",
                "Give the key a name of up to 100 characters, so that you recognise it later.",
            ));
        }
        let role = role.unwrap_or(actor.role);
        if role > actor.role {
            return Err(invalid(
                "user_role",
                "A key cannot do more than its person.",
            ));
        }
        let key = ApiKey {
            number: 0,
            person: actor.person.id,
            name: name.to_owned(),
            role,
            content: None,
            created_at: self.core.now(),
            active_at: None,
            expires_at: match self.core.settings.api_key_life {
                Some(life) => {
                    let latest = self.core.now().plus(life);
                    Some(expires_at.map_or(latest, |end| end.min(latest)))
                }
                None => expires_at,
            },
        };
        self.store_key(actor, key, String::new(), Duration::ZERO)
            .await
    }

    /// Lets the keys that were made before the operator limited their life end in time, too. For the
    /// leader.
    pub async fn apply_policy(&self) -> Result<(), Error> {
        let Some(life) = self.core.settings.api_key_life else {
            return Ok(());
        };
        let beyond = self
            .core
            .store
            .read(move |db| Ok::<_, Error>(people::keys_that_outlive(db, life)?))
            .await?;
        if beyond.is_empty() {
            return Ok(());
        }
        self.core
            .store
            .write(move |db| {
                for (number, end) in &beyond {
                    people::end_key_at(db, *number, *end)?;
                }
                Ok(())
            })
            .await
    }

    /// Inserts a key and writes the audit record. A content key replaces the one before, which works
    /// for `old_stays_for` longer.
    async fn store_key(
        &self,
        actor: &Actor,
        key: ApiKey,
        detail: String,
        old_stays_for: Duration,
    ) -> Result<(ApiKey, SecretString), Error> {
        let secret = api_key::generate();
        let hash = api_key::hash(&secret);
        let actor = actor.clone();
        let key = self
            .core
            .store
            .write(move |db| {
                let detail = detail.clone();
                let mut key = key.clone();
                match key.content {
                    Some(item) if old_stays_for.is_zero() => {
                        people::delete_content_keys(db, item)?;
                    }
                    Some(item) => {
                        let now = key.created_at;
                        people::end_content_keys(db, item, now, now.plus(old_stays_for))?;
                    }
                    None => {}
                }
                key.number = people::insert_key(db, &key, &hash)?;
                record(
                    db,
                    &event(
                        &actor,
                        key.created_at,
                        Action::KeyCreated,
                        key.name.clone(),
                        detail,
                    ),
                )?;
                Ok::<_, Error>(key)
            })
            .await?;
        Ok((key, secret))
    }

    /// Deletes one of the actor's keys; `NotFound` if it is not theirs.
    pub async fn delete_key(&self, actor: &Actor, number: i64) -> Result<(), Error> {
        let (now, actor) = (self.core.now(), actor.clone());
        self.core
            .store
            .write(move |db| {
                let name = people::keys(db, actor.person.id)?
                    .into_iter()
                    .find(|key| key.number == number)
                    .map(|key| key.name);
                if !people::delete_key(db, actor.person.id, number)? {
                    return Err(Error::NotFound);
                }
                record(
                    db,
                    &event(
                        &actor,
                        now,
                        Action::KeyDeleted,
                        name.unwrap_or_default(),
                        "",
                    ),
                )
            })
            .await
    }

    /// Creates the key that an app presents when it exchanges session tokens; replaces the item's
    /// older one.
    pub async fn create_content_key(
        &self,
        actor: &Actor,
        item: Id<Content>,
        old_stays_for: Duration,
    ) -> Result<(Content, SecretString), Error> {
        let found = self
            .core
            .store
            .read(move |db| content::find(db, item)?.ok_or(Error::NotFound))
            .await?;
        // The key acts as its creator, so the creator must be allowed to exchange for this item.
        let listed = {
            let person = actor.person.id;
            self.core
                .store
                .read(move |db| Ok::<_, Error>(content::role_of(db, item, person)?))
                .await?
        };
        let standing = access::standing(&found, &actor.person, listed);
        require(
            access::may_exchange(&actor.person, actor.role, standing, None, &found),
            "Only the owner and collaborators of a content item make its key.",
        )?;
        let key = ApiKey {
            number: 0,
            person: actor.person.id,
            name: format!("Content key of {}", found.display_title()),
            role: Role::Publisher,
            content: Some(item),
            created_at: self.core.now(),
            active_at: None,
            expires_at: None,
        };
        let (_, secret) = self
            .store_key(actor, key, format!("for content {item}"), old_stays_for)
            .await?;
        Ok((found, secret))
    }

    /// The content keys of an item, for those who may edit it.
    pub async fn content_keys(
        &self,
        actor: &Actor,
        item: Id<Content>,
    ) -> Result<Vec<ApiKey>, Error> {
        let person = actor.with_effective_role();
        self.core
            .store
            .read(move |db| {
                let found = content::find(db, item)?.ok_or(Error::NotFound)?;
                let listed = content::role_of(db, item, person.id)?;
                require(
                    access::may_edit_content(&person, access::standing(&found, &person, listed)),
                    "Only those who may edit a content item see its keys.",
                )?;
                Ok(people::content_keys(db, item)?)
            })
            .await
    }
}
