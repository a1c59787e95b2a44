//! Groups: their members, and who may change them. A person who loses access to content with a
//! group also loses the consents for it, in the same transaction. Memberships that come from the
//! identity provider's claims are set in `service::people::organisation`.

use crate::{
    domain::{
        Id, access,
        audit::Action,
        group::Group,
        person::{Person, Role},
    },
    service::{
        core::{Actor, Core, event, record, require},
        error::{Error, invalid, name_taken},
        grants::{end_reason::EndReason, revocations},
    },
    store::{content, groups, people},
};
use std::sync::Arc;

/// The trimmed name, or a problem for the form.
fn check_name(name: &str) -> Result<String, Error> {
    let name = name.trim();
    if name.is_empty() {
        return Err(invalid("name", "Enter a name."));
    }
    if name.chars().count() > 100 || name.chars().any(char::is_control) {
        return Err(invalid(
            "name",
            "Use at most 100 characters, without line breaks.",
        ));
    }
    Ok(name.to_owned())
}

/// What to say if a name is taken.
const NAME_TAKEN: &str = "There is a group of this name already. Choose another one.";

fn must_see_groups(actor: &Actor) -> Result<(), Error> {
    require(
        access::may_see_groups(actor.role),
        "Only publishers and administrators see groups.",
    )
}

/// Groups and their members.
pub struct Groups {
    core: Arc<Core>,
}

impl Groups {
    pub(in crate::service) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// All groups, for publishers and administrators.
    pub async fn groups(&self, actor: &Actor) -> Result<Vec<Group>, Error> {
        must_see_groups(actor)?;
        self.core.store.read(|db| Ok(groups::list(db)?)).await
    }

    /// All groups with the number of their members, for publishers and administrators.
    pub async fn groups_with_counts(&self, actor: &Actor) -> Result<Vec<(Group, i64)>, Error> {
        must_see_groups(actor)?;
        self.core
            .store
            .read(|db| {
                let counts = groups::member_counts(db)?;
                let all = groups::list(db)?.into_iter().map(|group| {
                    let count = counts.get(&group.id).copied().unwrap_or(0);
                    (group, count)
                });
                Ok(all.collect())
            })
            .await
    }

    /// A group with its members.
    pub async fn group(&self, actor: &Actor, id: Id<Group>) -> Result<(Group, Vec<Person>), Error> {
        must_see_groups(actor)?;
        self.core
            .store
            .read(move |db| {
                Ok((
                    groups::find(db, id)?.ok_or(Error::NotFound)?,
                    groups::members(db, id)?,
                ))
            })
            .await
    }

    /// The group, if the actor may change it.
    async fn changeable_group(&self, actor: &Actor, id: Id<Group>) -> Result<Group, Error> {
        let (group, _) = self.group(actor, id).await?;
        self.must_not_be_the_organisations(actor, &group.name)?;
        if access::may_change_group(&actor.with_effective_role(), &group) {
            Ok(group)
        } else {
            Err(Error::Forbidden(
                "Only the owner of a group and administrators change it.",
            ))
        }
    }

    /// Forbidden if the organisation's sign-in decides who is in a group of this name, and the actor is
    /// no administrator.
    fn must_not_be_the_organisations(&self, actor: &Actor, name: &str) -> Result<(), Error> {
        let sign_in = self.core.settings.sign_in.as_ref();
        let mut mapped = sign_in.into_iter().flat_map(|sign_in| &sign_in.groups);
        let is_mapped = mapped.any(|(_, mapped)| mapped.to_lowercase() == name.to_lowercase());
        require(
            !is_mapped || actor.role == Role::Administrator,
            "The organisation's sign-in decides who is in the group of this name.",
        )
    }

    /// Creates a group that the actor owns.
    pub async fn create_group(&self, actor: &Actor, name: &str) -> Result<Group, Error> {
        require(
            access::may_see_groups(actor.role),
            "Only publishers and administrators add groups.",
        )?;
        let name = check_name(name)?;
        self.must_not_be_the_organisations(actor, &name)?;
        let group = Group {
            number: 0,
            id: Id::random(),
            name,
            owner: Some(actor.person.id),
            created_at: self.core.now(),
        };
        let actor = actor.clone();
        self.core
            .store
            .write(move |db| {
                let group = group.clone();
                groups::insert(db, &group).map_err(name_taken(NAME_TAKEN))?;
                record(
                    db,
                    &event(
                        &actor,
                        group.created_at,
                        Action::GroupChanged,
                        group.name.clone(),
                        "created",
                    ),
                )?;
                Ok(group)
            })
            .await
    }

    /// Renames a group; `Conflict` if the name is taken.
    pub async fn rename_group(
        &self,
        actor: &Actor,
        id: Id<Group>,
        name: &str,
    ) -> Result<Group, Error> {
        let before = self.changeable_group(actor, id).await?;
        let name = check_name(name)?;
        self.must_not_be_the_organisations(actor, &name)?;
        let (now, actor) = (self.core.now(), actor.clone());
        self.core
            .store
            .write(move |db| {
                let name = name.clone();
                groups::rename(db, id, &name).map_err(name_taken(NAME_TAKEN))?;
                record(
                    db,
                    &event(
                        &actor,
                        now,
                        Action::GroupChanged,
                        name.clone(),
                        format!("was {}", before.name),
                    ),
                )?;
                Ok(Group { name, ..before })
            })
            .await
    }

    /// Deletes a group and its entries in access lists. Members who had access only through it lose
    /// it, and their consents end.
    pub async fn delete_group(&self, actor: &Actor, id: Id<Group>) -> Result<Group, Error> {
        let group = self.changeable_group(actor, id).await?;
        let (now, actor) = (self.core.now(), actor.clone());
        self.core
            .store
            .write(move |db| {
                let group = group.clone();
                let items = content::items_of_group(db, id)?;
                if !groups::delete(db, id)? {
                    return Err(Error::NotFound);
                }
                record(
                    db,
                    &event(
                        &actor,
                        now,
                        Action::GroupChanged,
                        group.name.clone(),
                        "deleted",
                    ),
                )?;
                let why = EndReason::of(&actor, now, "access went with a group");
                let ended = revocations::end_lost_consents(db, &items, &why)?;
                Ok::<_, Error>((group, ended))
            })
            .await
            .map(|(group, ended)| {
                ended.record_in_background(&self.core);
                group
            })
    }

    /// Adds a member; does nothing if the person is one already.
    pub async fn add_member(
        &self,
        actor: &Actor,
        id: Id<Group>,
        person: Id<Person>,
    ) -> Result<(), Error> {
        let group = self.changeable_group(actor, id).await?;
        let (now, actor) = (self.core.now(), actor.clone());
        self.core
            .store
            .write(move |db| {
                let group = group.clone();
                let who = people::find(db, person)?
                    .ok_or_else(|| invalid("user_guid", "There is no person with this GUID."))?;
                if groups::add_member(db, id, person, false)? {
                    record(
                        db,
                        &event(
                            &actor,
                            now,
                            Action::GroupChanged,
                            group.name,
                            format!("added {}", who.username),
                        ),
                    )?;
                }
                Ok(())
            })
            .await
    }

    /// Removes a member. Consents that need access through this group end.
    pub async fn remove_member(
        &self,
        actor: &Actor,
        id: Id<Group>,
        person: Id<Person>,
    ) -> Result<(), Error> {
        let group = self.changeable_group(actor, id).await?;
        let (now, actor) = (self.core.now(), actor.clone());
        self.core
            .store
            .write(move |db| {
                let group = group.clone();
                let who = people::find(db, person)?.ok_or(Error::NotFound)?;
                if !groups::remove_member(db, id, person)? {
                    return Err(Error::NotFound);
                }
                record(
                    db,
                    &event(
                        &actor,
                        now,
                        Action::GroupChanged,
                        group.name,
                        format!("removed {}", who.username),
                    ),
                )?;
                revocations::end_lost_consents_of(
                    db,
                    &who,
                    &EndReason::of(&actor, now, "access went with a group"),
                )?;
                Ok(())
            })
            .await
    }

    /// The groups of a person, for administrators. The flag: the membership comes from a claim of
    /// the identity provider.
    pub async fn groups_of(
        &self,
        actor: &Actor,
        person: Id<Person>,
    ) -> Result<Vec<(Group, bool)>, Error> {
        require(
            access::may_manage_people(actor.role),
            "Only administrators look at people's groups.",
        )?;
        self.core
            .store
            .read(move |db| Ok(groups::of_person(db, person)?))
            .await
    }
}
