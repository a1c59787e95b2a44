//! Content items from the publisher's side: settings, processes, access list and integrations. When
//! a change takes access away, the consents that depended on it end in the same transaction. What a
//! viewer may open is in `service::admission`.

use super::integrations::may_choose;
use crate::{
    domain::{
        Id, Timestamp,
        access::{self, Standing},
        addresses,
        audit::Action,
        bundle::IntegrationRequest,
        change::Change,
        content::{AccessType, Content, ContentRole, Permission, Process, Proxying},
        egress::{Policy, Purpose},
        form::FieldError,
        group::Principal,
        integration::{Association, AuthType, Integration},
        notice::{Kind, Notice},
        origins,
        person::{Person, Role},
        running::Running,
    },
    service::{
        cluster::cache::{DecisionCache, Validity},
        core::{Actor, CACHE_CAPACITY, Core, event, record, require},
        error::{Error, invalid, name_taken},
        grants::{
            activity::ActivityCounts,
            end_reason::EndReason,
            revocations::{self, EndedConsents},
            usage::Usage,
        },
        notifying::notices::notify,
        running::board::RunBoard,
    },
    store::{
        Db,
        activity::{About, ActivitySum},
        changes::Subject,
        connections, content, groups, integrations, people,
    },
    trust,
    vault::random,
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

/// The typed values of a content item. `None` keeps a value.
#[derive(Clone, Debug, Default)]
pub struct ContentInput {
    pub name: Option<String>,
    pub title: Change<String>,
    pub description: Option<String>,
    pub access: Option<AccessType>,
    /// An empty list removes all addresses.
    pub processes: Option<Vec<Process>>,
    pub proxying: ProxyingInput,
    pub owner: Option<Id<Person>>,
    /// The version on which the change is based ([`Content::updated_at`]): refused with
    /// [`Error::ChangedMeanwhile`] if it has changed since. `None`: not checked.
    pub based_on: Option<Timestamp>,
}

/// Who may change an item.
const EDITORS: &str = "Only the owner, collaborators and administrators change a content item.";
/// Longest title of an item, in characters.
const MAX_TITLE: usize = 100;
/// Maximum processes of one item.
const MAX_PROCESSES: usize = 32;

fn addresses_of(item: &Content) -> Vec<&str> {
    item.processes
        .iter()
        .map(|process| process.url.as_str())
        .collect()
}

/// Entries of a list in an item's proxy settings.
const MAX_LISTED: usize = 20;

/// Validates the settings of an item's proxy.
fn check_proxying(typed: &Proxying) -> Vec<FieldError> {
    let mut problems = Vec::new();
    for (key, seconds) in [
        ("connection_timeout", typed.connect_seconds),
        ("init_timeout", typed.first_byte_seconds),
        ("read_timeout", typed.idle_seconds),
    ] {
        if seconds.is_some_and(|seconds| !(1..=Proxying::MAX_SECONDS).contains(&seconds)) {
            problems.push(FieldError::new(
                key,
                "Enter a number of seconds from 1 to 86,400, or leave it empty.",
            ));
        }
    }
    let is_origin = |text: &String| {
        url::Url::parse(text).is_ok_and(|url| {
            matches!(url.scheme(), "http" | "https") && url.origin().ascii_serialization() == *text
        })
    };
    if !typed.allowed_origins.iter().all(is_origin) || typed.allowed_origins.len() > MAX_LISTED {
        problems.push(FieldError::new(
            "allowed_origins",
            "Enter one origin a line, scheme, host and port only, such as https://intranet.example.org. Twenty at most.",
        ));
    }
    let is_header = |name: &String| {
        let bytes = name.as_bytes();
        (1..=64).contains(&bytes.len())
            && bytes
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
    };
    if !typed.pass_headers.iter().all(is_header) || typed.pass_headers.len() > MAX_LISTED {
        problems.push(FieldError::new(
            "pass_headers",
            "Enter one header name a line: letters, digits and hyphens. Twenty at most.",
        ));
    }
    if let Some(text) = &typed.ca
        && (trust::authorities(text.as_bytes()).is_none() || text.len() > 64 * 1024)
    {
        problems.push(FieldError::new(
            "upstream_ca",
            "Paste certificates in PEM form: they begin with -----BEGIN CERTIFICATE-----.",
        ));
    }
    problems
}

/// The typed proxy settings of an item. `None` keeps a value.
/// They are stored as one JSON column, since they are read and written as a whole and never
/// searched.
#[derive(Clone, Debug, Default)]
pub struct ProxyingInput {
    pub connect_seconds: Change<u32>,
    pub first_byte_seconds: Change<u32>,
    pub idle_seconds: Change<u32>,
    pub keep_prefix: Option<bool>,
    pub reconnect_bar: Option<bool>,
    pub portal_link: Option<bool>,
    pub ca: Change<String>,
    pub allowed_origins: Option<Vec<String>>,
    pub pass_headers: Option<Vec<String>>,
}

impl ProxyingInput {
    /// The settings `before`, with the typed ones applied.
    fn apply(&self, before: &Proxying) -> Proxying {
        Proxying {
            connect_seconds: self.connect_seconds.apply(before.connect_seconds),
            first_byte_seconds: self.first_byte_seconds.apply(before.first_byte_seconds),
            idle_seconds: self.idle_seconds.apply(before.idle_seconds),
            keep_prefix: self.keep_prefix.unwrap_or(before.keep_prefix),
            reconnect_bar: self.reconnect_bar.unwrap_or(before.reconnect_bar),
            portal_link: self.portal_link.unwrap_or(before.portal_link),
            ca: self
                .ca
                .clone()
                .apply(before.ca.clone())
                .map(|text| text.trim().to_owned())
                .filter(|text| !text.is_empty()),
            allowed_origins: self
                .allowed_origins
                .as_deref()
                .map_or_else(|| before.allowed_origins.clone(), plain_origins),
            pass_headers: self
                .pass_headers
                .as_deref()
                .map_or_else(|| before.pass_headers.clone(), lower_case),
        }
    }
}

/// Origins as browsers write them, where they can be read; others stay, for the check.
fn plain_origins(typed: &[String]) -> Vec<String> {
    let typed = typed
        .iter()
        .map(|text| text.trim())
        .filter(|text| !text.is_empty());
    typed
        .map(|text| match url::Url::parse(text) {
            Ok(url) if matches!(url.path(), "" | "/") && url.query().is_none() => {
                url.origin().ascii_serialization()
            }
            _ => text.to_owned(),
        })
        .collect()
}

fn lower_case(typed: &[String]) -> Vec<String> {
    typed
        .iter()
        .map(|name| name.trim().to_ascii_lowercase())
        .filter(|name| !name.is_empty())
        .collect()
}

/// A content item, and what the actor is to it.
#[derive(Clone, Debug)]
pub struct VisibleContent {
    pub content: Content,
    pub owner: Person,
    pub standing: Standing,
    pub may_edit: bool,
}

/// What the portal adds to pages of an item.
#[derive(Clone, Copy, Debug)]
pub struct Additions {
    pub bar: bool,
    pub link: bool,
}

/// Content items.
pub struct Contents {
    core: Arc<Core>,
    usage: Arc<Usage>,
    activity: Arc<ActivityCounts>,
    runs: Arc<RunBoard>,
    /// Items that are open to everyone.
    public: DecisionCache<Id<Content>, Arc<Content>>,
}

impl Contents {
    pub(in crate::service) fn new(
        core: Arc<Core>,
        usage: Arc<Usage>,
        activity: Arc<ActivityCounts>,
        runs: Arc<RunBoard>,
    ) -> Self {
        Self {
            core,
            usage,
            activity,
            runs,
            public: DecisionCache::new(CACHE_CAPACITY),
        }
    }

    /// The integrations of the items that the actor may see, with one query for all.
    pub async fn integrations_by_content(
        &self,
        seen: &[VisibleContent],
    ) -> Result<HashMap<Id<Content>, Vec<Integration>>, Error> {
        let mut all = self
            .core
            .store
            .read(|db| Ok::<_, Error>(integrations::by_content(db)?))
            .await?;
        let seen: HashSet<_> = seen.iter().map(|item| item.content.id).collect();
        all.retain(|item, _| seen.contains(item));
        Ok(all)
    }

    /// The items that the actor may see, in order of creation.
    pub async fn contents(&self, actor: &Actor) -> Result<Vec<VisibleContent>, Error> {
        let person = actor.with_effective_role();
        self.core
            .store
            .read(move |db| {
                let roles: HashMap<_, _> = content::roles_of(db, person.id)?.into_iter().collect();
                let owners = people::owners_of_content(db)?;
                let mut seen = Vec::new();
                for item in content::list(db)? {
                    let standing = access::standing(&item, &person, roles.get(&item.id).copied());
                    if access::may_see_content(&person, standing) {
                        let owner = owners
                            .get(&item.owner)
                            .cloned()
                            .ok_or(Error::Internal("a row that another row names is missing"))?;
                        seen.push(VisibleContent {
                            may_edit: access::may_edit_content(&person, standing),
                            content: item,
                            owner,
                            standing,
                        });
                    }
                }
                Ok(seen)
            })
            .await
    }

    /// One item; `NotFound` if the actor may not see it.
    pub async fn content(&self, actor: &Actor, id: Id<Content>) -> Result<VisibleContent, Error> {
        let person = actor.with_effective_role();
        self.core
            .store
            .read(move |db| visible_content(db, &person, id))
            .await
    }

    /// The item, if it is open to anyone without sign-in.
    pub async fn public_content(&self, id: Id<Content>) -> Result<Option<Arc<Content>>, Error> {
        let (store, start) = (&self.core.store, self.core.load_start());
        if let Some(known) = self.public.fresh(&id, store, start) {
            return Ok(Some(known));
        }
        let found = store
            .read(move |db| Ok::<_, Error>(content::find(db, id)?))
            .await?;
        let found = found.filter(|item| item.access == AccessType::All);
        Ok(found.map(|item| {
            let item = Arc::new(item);
            let validity = Validity::new(start, [Subject::Content(id)]);
            self.public.insert(id, Arc::clone(&item), validity);
            item
        }))
    }

    /// What the portal adds to pages of the item: its reconnect bar, and its link.
    pub async fn additions(&self, id: Id<Content>) -> Result<Additions, Error> {
        self.core
            .store
            .read(move |db| {
                let found = content::find(db, id)?.map(|item| item.proxying);
                let found = found.unwrap_or_default();
                Ok(Additions {
                    bar: found.reconnect_bar,
                    link: found.portal_link,
                })
            })
            .await
    }

    /// The display name of an item's owner, for pages shown to all who may open the item.
    pub async fn owner_name(&self, owner: Id<Person>) -> Option<String> {
        let found = self
            .core
            .store
            .read(move |db| Ok::<_, Error>(people::find(db, owner)?))
            .await
            .inspect_err(|error| error.log("the name of an owner"))
            .ok()?;
        found.map(|person| person.display_name())
    }

    /// One item; `Forbidden` if the actor may see but not edit it.
    pub async fn editable_content(
        &self,
        actor: &Actor,
        id: Id<Content>,
    ) -> Result<VisibleContent, Error> {
        let seen = self.content(actor, id).await?;
        if seen.may_edit {
            Ok(seen)
        } else {
            Err(Error::Forbidden(EDITORS))
        }
    }

    /// Creates an item that the actor owns.
    pub async fn create_content(
        &self,
        actor: &Actor,
        input: ContentInput,
    ) -> Result<VisibleContent, Error> {
        require(
            access::may_create_content(actor.role),
            "Only publishers and administrators add content.",
        )?;
        let now = self.core.now();
        let mut item = Content {
            number: 0,
            id: Id::random(),
            name: String::new(),
            title: None,
            description: String::new(),
            owner: actor.person.id,
            access: AccessType::Acl,
            app_mode: "unknown".into(),
            processes: Vec::new(),
            proxying: Proxying::default(),
            bundle: None,
            python: None,
            running: Running::default(),
            slug: String::new(),
            created_at: now,
            updated_at: now,
        };
        let problems = apply_content(&self.core.policy, &mut item, &input);
        if !problems.is_empty() {
            return Err(Error::Invalid(problems));
        }
        if item.name.is_empty() {
            item.name = format!("content-{}", &item.id.to_string()[..8]);
        }
        item.slug = origins::slug(item.display_title(), &random::label());
        let (actor, person) = (actor.clone(), actor.with_effective_role());
        self.core
            .store
            .write(move |db| {
                let mut item = item.clone();
                if let Some(owner) = input.owner.filter(|owner| *owner != item.owner) {
                    must_be_fit_to_own(db, &person, owner)?;
                    item.owner = owner;
                }
                must_be_own_address(db, &person, &item)?;
                item.number = content::insert(db, &item).map_err(name_taken(NAME_TAKEN))?;
                record(
                    db,
                    &event(
                        &actor,
                        now,
                        Action::ContentCreated,
                        item.display_title(),
                        item.id.to_string(),
                    ),
                )?;
                visible_content(db, &person, item.id)
            })
            .await
    }

    /// Changes an item. A new owner (administrators only) deletes its content keys. A change of
    /// access or owner ends the consents of people who lost access.
    pub async fn update_content(
        &self,
        actor: &Actor,
        id: Id<Content>,
        input: ContentInput,
    ) -> Result<VisibleContent, Error> {
        // Apart from the transaction: what it reads can make others repeat theirs.
        let seen = self.editable_content(actor, id).await?;
        let (now, actor) = (self.core.now(), actor.clone());
        let (person, policy) = (actor.with_effective_role(), Arc::clone(&self.core.policy));
        self.core.store
            .write(move |db| {
                let before = content::find(db, id)?.ok_or(Error::NotFound)?;
                if input.based_on.is_some_and(|known| known != before.updated_at) {
                    return Err(Error::ChangedMeanwhile("content item"));
                }
                let mut after = before.clone();
                let problems = apply_content(&policy, &mut after, &input);
                if !problems.is_empty() {
                    return Err(Error::Invalid(problems));
                }
                if let Some(owner) = input.owner.filter(|owner| *owner != before.owner) {
                    must_be_fit_to_own(db, &person, owner)?;
                    after.owner = owner;
                    people::delete_content_keys(db, id)?;
                    content::drop_entry_of_owner(db, &after)?;
                }
                if addresses_of(&before) != addresses_of(&after) {
                    must_be_own_address(db, &person, &after)?;
                }
                if after.access == AccessType::All && acts_for_viewers(db, id)? {
                    return Err(invalid(
                        "access_type",
                        "Content whose integration acts for its viewers cannot be open to anyone: its viewers must be signed in.",
                    ));
                }
                let mut words = Vec::new();
                for (word, changed) in [
                    ("name", before.name != after.name),
                    ("title", before.title != after.title),
                    ("description", before.description != after.description),
                    ("access", before.access != after.access),
                    ("address", addresses_of(&before) != addresses_of(&after)),
                    ("draining", addresses_of(&before) == addresses_of(&after) && before.processes != after.processes),
                    ("proxy settings", before.proxying != after.proxying),
                    ("owner", before.owner != after.owner),
                ] {
                    if changed {
                        words.push(word);
                    }
                }
                if !words.is_empty() {
                    after.updated_at = now;
                    content::update(db, &after).map_err(name_taken(NAME_TAKEN))?;
                    record(db, &event(&actor, now, Action::ContentChanged, after.display_title(), words.join(", ")))?;
                }
                if before.access != after.access || before.owner != after.owner {
                    let why = EndReason::of(&actor, now, "access was taken away");
                    let ended = revocations::end_lost_consents(db, &[id], &why)?;
                    return Ok((visible_content(db, &person, id)?, Some(ended)));
                }
                let seen = VisibleContent {
                    content: after,
                    ..seen.clone()
                };
                Ok((seen, None))
            })
            .await
            .map(|(item, ended)| {
                if let Some(ended) = ended {
                    ended.record_in_background(&self.core);
                }
                item
            })
    }

    /// Deletes an item and ends all its consents.
    pub async fn delete_content(&self, actor: &Actor, id: Id<Content>) -> Result<Content, Error> {
        let found = self.editable_content(actor, id).await?.content;
        let (now, actor) = (self.core.now(), actor.clone());
        let why = EndReason::of(&actor, now, "the content was deleted");
        let (ended, deleted) = self
            .core
            .store
            .write(move |db| {
                let found = found.clone();
                let ended = revocations::end_consents_of_content(db, &found, &[], &why)?;
                if !content::delete(db, id)? {
                    return Err(Error::NotFound);
                }
                record(
                    db,
                    &event(
                        &actor,
                        now,
                        Action::ContentDeleted,
                        found.display_title(),
                        id.to_string(),
                    ),
                )?;
                Ok::<_, Error>((ended, found))
            })
            .await?;
        ended.record_in_background(&self.core);
        Ok(deleted)
    }

    /// Validates typed process addresses against the egress policy and normalises them.
    pub fn check_processes(&self, typed: &[Process]) -> Result<Vec<Process>, FieldError> {
        check_processes(&self.core.policy, typed)
    }

    /// The access list of an item.
    pub async fn permissions(
        &self,
        actor: &Actor,
        id: Id<Content>,
    ) -> Result<Vec<Permission>, Error> {
        self.editable_content(actor, id).await?;
        self.core
            .store
            .read(move |db| Ok(content::permissions(db, id)?))
            .await
    }

    /// The access list of an item, with the names of the people and groups on it.
    pub async fn permissions_with_names(
        &self,
        actor: &Actor,
        id: Id<Content>,
    ) -> Result<Vec<(Permission, String)>, Error> {
        self.editable_content(actor, id).await?;
        self.core
            .store
            .read(move |db| {
                content::permissions(db, id)?
                    .into_iter()
                    .map(|entry| {
                        Ok((
                            entry.clone(),
                            groups::principal_name(db, entry.principal)?.unwrap_or_default(),
                        ))
                    })
                    .collect()
            })
            .await
    }

    /// Puts a person or group on the access list, or changes their role there. `true` if they were
    /// not on it before.
    pub async fn set_permission(
        &self,
        actor: &Actor,
        id: Id<Content>,
        principal: Principal,
        role: ContentRole,
    ) -> Result<(Permission, bool), Error> {
        let item = self.editable_content(actor, id).await?.content;
        if principal == Principal::Person(item.owner) {
            return Err(invalid(
                "principal_guid",
                "The owner needs no entry in the list.",
            ));
        }
        let (now, actor) = (self.core.now(), actor.clone());
        self.core
            .store
            .write(move |db| {
                let who = groups::principal_name(db, principal)?;
                let who = who.ok_or_else(|| {
                    invalid(
                        "principal_guid",
                        "There is no person or group with this GUID.",
                    )
                })?;
                let new = content::set_permission(db, id, principal, role)?;
                let detail = format!(
                    "{who} may {}",
                    if role == ContentRole::Viewer {
                        "open"
                    } else {
                        "edit"
                    }
                );
                record_access(db, &actor, now, &item, detail)?;
                let entry = content::permissions(db, id)?
                    .into_iter()
                    .find(|entry| entry.principal == principal)
                    .ok_or(Error::Internal("a row that another row names is missing"))?;
                Ok((entry, new))
            })
            .await
    }

    /// Asks the publisher of an item to be let in; `false` if the actor may open it already.
    pub async fn request_access(&self, actor: &Actor, id: Id<Content>) -> Result<bool, Error> {
        let (now, actor) = (self.core.now(), actor.clone());
        let person = actor.with_effective_role();
        self.core
            .store
            .write(move |db| {
                let item = content::find(db, id)?.ok_or(Error::NotFound)?;
                let listed = content::role_of(db, id, person.id)?;
                if access::may_open(access::standing(&item, &person, listed)) {
                    return Ok(false);
                }
                if content::put_access_request(db, id, person.id, now)? {
                    let action = Action::AccessRequested;
                    record(db, &event(&actor, now, action, item.display_title(), ""))?;
                    let notice = Notice {
                        kind: Kind::AccessRequested,
                        person: Some(item.owner),
                        title: format!(
                            "{} asks to open {}",
                            person.display_name(),
                            item.display_title()
                        ),
                        body: "Let them in, or leave it: they are not told of a refusal.".into(),
                        path: addresses::content_settings(item.id),
                        once: None,
                    };
                    notify(db, &notice, now)?;
                }
                Ok(true)
            })
            .await
    }

    /// Who asks to be let into an item, and since when; for those who may edit it.
    pub async fn access_requests(
        &self,
        actor: &Actor,
        id: Id<Content>,
    ) -> Result<Vec<(Person, Timestamp)>, Error> {
        self.editable_content(actor, id).await?;
        self.core
            .store
            .read(move |db| Ok(content::access_requests(db, id)?))
            .await
    }

    /// Grants or declines a person's request. `NotFound` if there is none.
    pub async fn answer_access_request(
        &self,
        actor: &Actor,
        id: Id<Content>,
        person: Id<Person>,
        granted: bool,
    ) -> Result<(), Error> {
        let item = self.editable_content(actor, id).await?.content;
        let (now, actor) = (self.core.now(), actor.clone());
        self.core
            .store
            .write(move |db| {
                if !content::delete_access_request(db, id, person)? {
                    return Err(Error::NotFound);
                }
                let principal = Principal::Person(person);
                let who = groups::principal_name(db, principal)?.unwrap_or_default();
                let detail = if granted {
                    content::set_permission(db, id, principal, ContentRole::Viewer)?;
                    format!("{who} may open, as they asked")
                } else {
                    format!("{who} asked, and was declined")
                };
                record_access(db, &actor, now, &item, detail)
            })
            .await
    }

    /// Removes an entry from the access list. The consents of people who lost access end.
    pub async fn remove_permission(
        &self,
        actor: &Actor,
        id: Id<Content>,
        number: i64,
    ) -> Result<(), Error> {
        let item = self.editable_content(actor, id).await?.content;
        let (now, actor) = (self.core.now(), actor.clone());
        self.core
            .store
            .write(move |db| {
                let entry = content::permissions(db, id)?
                    .into_iter()
                    .find(|entry| entry.number == number)
                    .ok_or(Error::NotFound)?;
                content::delete_permission(db, id, number)?;
                let who = groups::principal_name(db, entry.principal)?.unwrap_or_default();
                record_access(db, &actor, now, &item, format!("{who} removed"))?;
                let why = EndReason::of(&actor, now, "access was taken away");
                match entry.principal {
                    Principal::Person(person) => {
                        if let Some(person) = people::find(db, person)? {
                            revocations::end_lost_consents_of(db, &person, &why)?;
                        }
                        Ok(None)
                    }
                    Principal::Group(_) => {
                        Ok(Some(revocations::end_lost_consents(db, &[id], &why)?))
                    }
                }
            })
            .await
            .map(|ended: Option<EndedConsents>| {
                if let Some(ended) = ended {
                    ended.record_in_background(&self.core);
                }
            })
    }

    /// The integrations of an item, in the order in which they were attached.
    pub async fn associations(
        &self,
        actor: &Actor,
        id: Id<Content>,
    ) -> Result<Vec<(Association, Integration)>, Error> {
        self.content(actor, id).await?;
        self.core
            .store
            .read(move |db| Ok(integrations::attached(db, id)?))
            .await
    }

    /// Attaches the integrations that a bundle asks for, beside those that are attached. A request
    /// names an integration by its id, else by template, kind and name, of which only one may match.
    /// Returns lines for the output of the deploy.
    pub async fn attach_requested(
        &self,
        actor: &Actor,
        id: Id<Content>,
        requests: &[IntegrationRequest],
    ) -> Vec<String> {
        if requests.is_empty() {
            return Vec::new();
        }
        let choosing = actor.clone();
        let found = self
            .core
            .store
            .read(move |db| {
                let attached = integrations::associations_of_content(db, id)?;
                let mut offered = Vec::new();
                for integration in integrations::list(db)? {
                    if may_choose(db, &choosing, &integration)? {
                        offered.push(integration);
                    }
                }
                Ok::<_, Error>((attached, offered))
            })
            .await;
        let (attached, offered) = match found {
            Ok(found) => found,
            Err(error) => {
                error.log("the integrations that a bundle asks for");
                return vec![
                    "Warning: the integrations that the bundle asks for cannot be looked up."
                        .into(),
                ];
            }
        };
        let mut wanted: Vec<_> = attached.iter().map(|entry| entry.integration).collect();
        let mut lines = Vec::new();
        for request in requests {
            let name = request
                .name
                .as_deref()
                .or(request.guid.as_deref())
                .unwrap_or("without a name");
            let by_id = request.guid.as_deref().and_then(|guid| {
                offered
                    .iter()
                    .find(|one| one.id.to_string().eq_ignore_ascii_case(guid))
            });
            let is_like = |one: &&Integration| {
                request
                    .kind
                    .as_deref()
                    .is_none_or(|kind| one.template == kind)
                    && request
                        .auth_type
                        .as_deref()
                        .is_none_or(|kind| one.auth_type.as_str() == kind)
                    && request
                        .name
                        .as_deref()
                        .is_none_or(|name| one.display_name() == name)
            };
            let matching: Vec<&Integration> = offered.iter().filter(is_like).collect();
            match (by_id, matching.as_slice()) {
                (Some(one), _) | (None, &[one]) => {
                    if !wanted.contains(&one.id) {
                        wanted.push(one.id);
                        lines.push(format!("Attached the integration {}.", one.display_name()));
                    }
                }
                (None, []) => lines.push(format!("Warning: no integration matches the request {name}. Choose one on the content's page.")),
                (None, _) => lines.push(format!("Warning: several integrations match the request {name}. Choose one on the content's page.")),
            }
        }
        if let Err(error) = self.set_associations(actor, id, wanted).await {
            let reason = match error {
                Error::Invalid(problems) => problems
                    .into_iter()
                    .map(|problem| problem.message)
                    .collect::<Vec<_>>()
                    .join(" "),
                other => other.to_string(),
            };
            return vec![format!(
                "Warning: the integrations that the bundle asks for were not attached. {reason}"
            )];
        }
        lines
    }

    /// Allows an item to act as itself through a service account beside acting for its viewers at the
    /// same service, or forbids it again. `NotFound` if the item does not use the integration.
    pub async fn allow_beside_viewers(
        &self,
        actor: &Actor,
        id: Id<Content>,
        integration: Id<Integration>,
        allowed: bool,
    ) -> Result<(), Error> {
        let item = self.editable_content(actor, id).await?.content;
        let (now, actor) = (self.core.now(), actor.clone());
        self.core
            .store
            .write(move |db| {
                let found = integrations::find(db, integration)?.ok_or(Error::NotFound)?;
                if !integrations::set_beside_viewers(db, id, integration, allowed)? {
                    return Err(Error::NotFound);
                }
                let detail = format!(
                    "may {}act as itself through {} beside acting for viewers",
                    if allowed { "" } else { "no longer " },
                    found.display_name()
                );
                let title = item.display_title();
                record(
                    db,
                    &event(&actor, now, Action::AssociationsChanged, title, detail),
                )
            })
            .await?;
        self.runs.renew(id);
        Ok(())
    }

    /// Makes `wanted` the whole set of integrations of an item. Consents for removed ones end.
    pub async fn set_associations(
        &self,
        actor: &Actor,
        id: Id<Content>,
        wanted: Vec<Id<Integration>>,
    ) -> Result<(), Error> {
        let item = self.editable_content(actor, id).await?.content;
        let (now, actor) = (self.core.now(), actor.clone());
        let why = EndReason::of(&actor, now, "the content uses another integration now");
        let ended = self
            .core
            .store
            .write(move |db| {
                let before: Vec<_> = integrations::associations_of_content(db, id)?
                    .into_iter()
                    .map(|entry| entry.integration)
                    .collect();
                let (mut names, mut has_service_account) = (Vec::new(), false);
                for integration in &wanted {
                    let mut found = integrations::find(db, *integration)?;
                    // An integration that is already attached may stay; a new one must be offered
                    // to the actor.
                    if let Some(known) = &found
                        && !before.contains(integration)
                        && !may_choose(db, &actor, known)?
                    {
                        found = None;
                    }
                    let found = found.ok_or_else(|| {
                        invalid(
                            "oauth_integration_guid",
                            format!("There is no integration {integration}."),
                        )
                    })?;
                    if found.auth_type == AuthType::ServiceAccount {
                        has_service_account = true;
                    } else {
                        // As it is now: it may have been opened to everyone meanwhile.
                        may_act_for_viewers(&content::find(db, id)?.ok_or(Error::NotFound)?)?;
                    }
                    names.push(found.display_name().to_owned());
                }
                if before == wanted {
                    return Ok::<_, Error>(None);
                }
                for integration in before.iter().filter(|gone| !wanted.contains(gone)) {
                    let found = integrations::find(db, *integration)?;
                    has_service_account |=
                        found.is_some_and(|found| found.auth_type == AuthType::ServiceAccount);
                }
                integrations::set_associations(db, id, &wanted, now)?;
                let ended = revocations::end_consents_of_content(db, &item, &wanted, &why)?;
                let detail = if names.is_empty() {
                    "none".to_owned()
                } else {
                    names.join(", ")
                };
                let detail = if ended.count() > 0 {
                    format!("{detail}; {} consent(s) ended", ended.count())
                } else {
                    detail
                };
                record(
                    db,
                    &event(
                        &actor,
                        now,
                        Action::AssociationsChanged,
                        item.display_title(),
                        detail,
                    ),
                )?;
                Ok(Some((ended, has_service_account)))
            })
            .await?;
        if let Some((ended, has_service_account)) = ended {
            ended.record_in_background(&self.core);
            // Processes get tokens of service accounts when they start.
            if has_service_account {
                self.runs.renew(id);
            }
        }
        Ok(())
    }

    /// What happened with this item in steps of `step` since `since`; for those who may edit it.
    pub async fn activity(
        &self,
        actor: &Actor,
        id: Id<Content>,
        since: Timestamp,
        step: Duration,
    ) -> Result<Vec<ActivitySum>, Error> {
        self.editable_content(actor, id).await?;
        self.activity.sums(About::Content(id), since, step).await
    }

    /// How many consents there are for this item, by integration.
    pub async fn consent_counts(
        &self,
        actor: &Actor,
        id: Id<Content>,
    ) -> Result<HashMap<Id<Integration>, i64>, Error> {
        self.editable_content(actor, id).await?;
        self.core
            .store
            .read(move |db| Ok(connections::count_consents(db, id)?))
            .await
    }

    /// The consents for this item. Counted uses are written first, so that the times of last use
    /// are current.
    pub async fn consenting_people(
        &self,
        actor: &Actor,
        id: Id<Content>,
    ) -> Result<Vec<(crate::domain::consent::Consent, Person, Integration)>, Error> {
        self.editable_content(actor, id).await?;
        self.usage.flush_uses_of(|uses| uses.content == id).await;
        self.core
            .store
            .read(move |db| {
                let people = people::by_id(db)?;
                let integrations = integrations::by_id(db)?;
                let rows = connections::consents_of_content(db, id)?
                    .into_iter()
                    .filter_map(|consent| {
                        let person = people.get(&consent.person)?.clone();
                        let integration = integrations.get(&consent.integration)?.clone();
                        Some((consent, person, integration))
                    })
                    .collect();
                Ok(rows)
            })
            .await
    }
}

/// Administrators only may name another owner, and only somebody who may own content.
fn must_be_fit_to_own(db: &mut Db<'_>, giver: &Person, owner: Id<Person>) -> Result<(), Error> {
    require(
        access::may_give_content_away(giver.role),
        "Only administrators give content to another owner.",
    )?;
    match people::find(db, owner)?.filter(access::may_own_content) {
        Some(_) => Ok(()),
        None => Err(invalid(
            "owner_guid",
            "The new owner must be a publisher or administrator.",
        )),
    }
}

/// Refuses the address of an app that belongs to somebody else's item, unless the person may edit that,
/// too, or is an administrator: whoever may open the new item would open the app past the list of the
/// other one.
fn must_be_own_address(db: &mut Db<'_>, person: &Person, item: &Content) -> Result<(), Error> {
    if item.processes.is_empty() || person.role == Role::Administrator {
        return Ok(());
    }
    let server = |url: &str| match url::Url::parse(url) {
        Ok(url) if url.scheme() != "unix" => url.origin().ascii_serialization(),
        _ => url.to_owned(),
    };
    let wanted: HashSet<String> = addresses_of(item).into_iter().map(server).collect();
    for other in content::list(db)? {
        let others = addresses_of(&other).into_iter().map(server);
        let Some(shared) = others.into_iter().find(|address| wanted.contains(address)) else {
            continue;
        };
        let is_free = other.id == item.id
            || other.owner == person.id
            || matches!(visible_content(db, person, other.id), Ok(seen) if seen.may_edit);
        if !is_free {
            return Err(invalid(
                "upstream_url",
                format!(
                    "{shared} is the address of somebody else's content. Whoever may edit that, or an administrator, can enter it here."
                ),
            ));
        }
    }
    Ok(())
}

/// Applies typed values to `item`; returns all problems at once.
fn apply_content(policy: &Policy, item: &mut Content, input: &ContentInput) -> Vec<FieldError> {
    let mut problems = Vec::new();
    if let Some(name) = &input.name {
        let name = name.trim();
        let legal = !name.is_empty()
            && name.len() <= 64
            && name
                .chars()
                .all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_'));
        if legal {
            item.name = name.to_owned();
        } else {
            problems.push(FieldError::new(
                "name",
                "Use 1 to 64 letters, digits, dots, hyphens and underscores.",
            ));
        }
    }
    if input.title != Change::Keep {
        let title = input.title.clone().apply(None);
        let title = title
            .map(|title| title.trim().to_owned())
            .filter(|title| !title.is_empty());
        if title.as_ref().is_some_and(|title| {
            title.chars().count() > MAX_TITLE || title.chars().any(char::is_control)
        }) {
            problems.push(FieldError::new(
                "title",
                format!("Use at most {MAX_TITLE} characters, without line breaks."),
            ));
        } else {
            item.title = title;
        }
    }
    if let Some(description) = &input.description {
        if description.contains('\0') {
            problems.push(FieldError::new(
                "description",
                "Leave out invisible characters.",
            ));
        } else if description.chars().count() > 4000 {
            problems.push(FieldError::new(
                "description",
                "Use at most 4,000 characters.",
            ));
        } else {
            item.description = description.trim().to_owned();
        }
    }
    if let Some(access) = input.access {
        item.access = access;
    }
    if let Some(processes) = &input.processes {
        match check_processes(policy, processes) {
            Ok(checked) => item.processes = checked,
            Err(problem) => problems.push(problem),
        }
    }
    let proxying = input.proxying.apply(&item.proxying);
    problems.extend(check_proxying(&proxying));
    item.proxying = proxying;
    problems
}

/// Validates typed process addresses against the egress policy and normalises them.
fn check_processes(policy: &Policy, typed: &[Process]) -> Result<Vec<Process>, FieldError> {
    let problem = |sentence: String| FieldError::new("upstream_url", sentence);
    if typed.len() > MAX_PROCESSES {
        return Err(problem(format!("Use at most {MAX_PROCESSES} addresses.")));
    }
    let mut checked: Vec<Process> = Vec::new();
    for process in typed {
        let address = process.url.trim();
        if address.len() > 1000 {
            return Err(problem(
                "Use at most 1,000 characters for an address.".into(),
            ));
        }
        let url = policy
            .parse(address, Purpose::Upstream)
            .map_err(|refused| {
                problem(if typed.len() > 1 {
                    format!("{address}: {refused}")
                } else {
                    refused.to_string()
                })
            })?;
        if url.query().is_some() {
            return Err(problem("Leave out everything from the ? on.".into()));
        }
        if checked.iter().any(|other| other.url == url.as_str()) {
            return Err(problem(format!("{address} is given twice.")));
        }
        checked.push(Process {
            url: url.into(),
            draining: process.draining,
        });
    }
    Ok(checked)
}

/// The item as this person sees it; `NotFound` if they may not.
fn visible_content(
    db: &mut Db<'_>,
    person: &Person,
    id: Id<Content>,
) -> Result<VisibleContent, Error> {
    let (item, owner) = content::find_with_owner(db, id)?.ok_or(Error::NotFound)?;
    let listed = if access::depends_on_list(&item, person) {
        content::role_of(db, id, person.id)?
    } else {
        None
    };
    let standing = access::standing(&item, person, listed);
    if !access::may_see_content(person, standing) {
        return Err(Error::NotFound);
    }
    Ok(VisibleContent {
        may_edit: access::may_edit_content(person, standing),
        content: item,
        owner,
        standing,
    })
}

/// Records a change of an item's access list.
fn record_access(
    db: &mut Db<'_>,
    actor: &Actor,
    now: Timestamp,
    item: &Content,
    detail: String,
) -> Result<(), Error> {
    let action = Action::AccessChanged;
    record(db, &event(actor, now, action, item.display_title(), detail))
}

/// What to say if a name is taken.
const NAME_TAKEN: &str = "The owner has content with this name already. Choose another one.";
/// Refuses content that has no viewers to act for: open to anyone, or static.
/// Whether an integration of this item acts for the viewer.
fn acts_for_viewers(db: &mut Db<'_>, id: Id<Content>) -> Result<bool, Error> {
    for entry in integrations::associations_of_content(db, id)? {
        let found = integrations::find(db, entry.integration)?;
        if found.is_some_and(|found| found.auth_type != AuthType::ServiceAccount) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn may_act_for_viewers(item: &Content) -> Result<(), Error> {
    if item.access == AccessType::All {
        return Err(invalid(
            "access_type",
            "This content is open to anyone. An integration acts for people who are signed in: change who may open it first.",
        ));
    }
    if item.is_interactive() == Some(false) {
        return Err(invalid(
            "app_mode",
            "This content is static: it cannot use an integration.",
        ));
    }
    Ok(())
}
