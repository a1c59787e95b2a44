//! Access rules: every "may X do Y to Z", as pure functions. Services ask here and nowhere else;
//! pages and API handlers never decide.

use super::{
    Id,
    content::{AccessType, Content, ContentRole},
    group::Group,
    integration::Availability,
    person::{Person, Role},
};

/// A person's relation to a content item, in ascending order of rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    None,
    Viewer,
    Collaborator,
    Owner,
}

/// Computes the relation; `listed` is the best role that the item's list gives the
/// person. A locked person has none.
pub fn standing(content: &Content, person: &Person, listed: Option<ContentRole>) -> Standing {
    if person.locked {
        return Standing::None;
    }
    if content.owner == person.id {
        return Standing::Owner;
    }
    match (listed, content.access) {
        (Some(ContentRole::Collaborator), _) if person.role >= Role::Publisher => {
            Standing::Collaborator
        }
        (Some(_), _) => Standing::Viewer,
        (None, AccessType::All | AccessType::LoggedIn) => Standing::Viewer,
        (None, AccessType::Acl) => Standing::None,
    }
}

/// Whether the item's list can change what [`standing`] says without it.
pub fn depends_on_list(content: &Content, person: &Person) -> bool {
    !person.locked
        && content.owner != person.id
        && (content.access == AccessType::Acl || person.role >= Role::Publisher)
}

/// May this person open the app?
pub fn may_open(standing: Standing) -> bool {
    standing >= Standing::Viewer
}

/// May this person see that the item exists, with its settings?
pub fn may_see_content(person: &Person, standing: Standing) -> bool {
    standing >= Standing::Viewer || person.role == Role::Administrator
}

/// May this person change the item, its list and its integrations?
pub fn may_edit_content(person: &Person, standing: Standing) -> bool {
    !person.locked
        && (person.role == Role::Administrator
            || (person.role >= Role::Publisher && standing >= Standing::Collaborator))
}

/// May this role add content items?
pub fn may_create_content(role: Role) -> bool {
    role >= Role::Publisher
}

/// May this role choose integrations and see their names?
pub fn may_see_integrations(role: Role) -> bool {
    role >= Role::Publisher
}

/// May this person choose the integration for content, and so see it? `listed`: its
/// list names the person or one of their groups.
pub fn may_choose_integration(role: Role, availability: Availability, listed: bool) -> bool {
    may_manage_integrations(role)
        || (may_see_integrations(role)
            && match availability {
                Availability::Everyone => true,
                Availability::Listed => listed,
                Availability::Nobody => false,
            })
}

/// May this role create, change and delete integrations?
pub fn may_manage_integrations(role: Role) -> bool {
    role == Role::Administrator
}

/// May this role see the list of people, to choose them for content?
pub fn may_see_people(role: Role) -> bool {
    role >= Role::Publisher
}

/// May this role give a content item to another owner?
pub fn may_give_content_away(role: Role) -> bool {
    role == Role::Administrator
}

/// May this person own content?
pub fn may_own_content(person: &Person) -> bool {
    person.role >= Role::Publisher && !person.locked
}

/// May this role create, change and lock people?
pub fn may_manage_people(role: Role) -> bool {
    role == Role::Administrator
}

/// May this role see groups, use them in lists and create new ones?
pub fn may_see_groups(role: Role) -> bool {
    role >= Role::Publisher
}

/// May this person rename or delete the group and change its members?
pub fn may_change_group(person: &Person, group: &Group) -> bool {
    !person.locked
        && (person.role == Role::Administrator
            || (person.role >= Role::Publisher && group.owner == Some(person.id)))
}

/// May this role read the audit log?
pub fn may_read_audit(role: Role) -> bool {
    role == Role::Administrator
}

/// May this role see and end the connections and consents of others?
pub fn may_end_connections(role: Role) -> bool {
    role == Role::Administrator
}

/// May an API key of `caller` exchange session tokens of this item? Only for its owner and its
/// collaborators, with a role of publisher or higher. `caller_role` is the key's role;
/// `key_content` is the item that a content key is bound to.
pub fn may_exchange(
    caller: &Person,
    caller_role: Role,
    standing: Standing,
    key_content: Option<Id<Content>>,
    content: &Content,
) -> bool {
    !caller.locked
        && caller_role >= Role::Publisher
        && caller.role >= Role::Publisher
        && standing >= Standing::Collaborator
        && key_content.is_none_or(|bound| bound == content.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;

    fn person(role: Role) -> Person {
        Person {
            username: "p".into(),
            role,
            ..Person::new(Timestamp(0))
        }
    }
    fn content(owner: &Person, access: AccessType) -> Content {
        Content {
            number: 1,
            id: Id::random(),
            name: "c".into(),
            title: None,
            description: String::new(),
            owner: owner.id,
            access,
            app_mode: "unknown".into(),
            processes: Vec::new(),
            proxying: crate::domain::content::Proxying::default(),
            bundle: None,
            python: None,
            running: crate::domain::running::Running::default(),
            slug: "c".into(),
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
        }
    }

    #[test]
    fn a_closed_item_is_closed_even_to_administrators() {
        let (owner, administrator) = (person(Role::Publisher), person(Role::Administrator));
        let item = content(&owner, AccessType::Acl);
        assert!(!may_open(standing(&item, &administrator, None)));
        assert!(may_edit_content(
            &administrator,
            standing(&item, &administrator, None)
        ));
        assert!(may_open(standing(
            &item,
            &administrator,
            Some(ContentRole::Viewer)
        )));
        assert!(may_open(standing(&item, &owner, None)));
    }
    #[test]
    fn a_locked_person_has_no_rights() {
        let mut owner = person(Role::Administrator);
        owner.locked = true;
        let item = content(&owner, AccessType::LoggedIn);
        assert_eq!(
            standing(&item, &owner, Some(ContentRole::Collaborator)),
            Standing::None
        );
        assert!(!may_edit_content(&owner, Standing::Owner));
    }
    #[test]
    fn only_owners_and_collaborators_exchange_for_an_item() {
        let (owner, other) = (person(Role::Publisher), person(Role::Administrator));
        let item = content(&owner, AccessType::LoggedIn);
        assert!(may_exchange(
            &owner,
            Role::Publisher,
            standing(&item, &owner, None),
            Some(item.id),
            &item
        ));
        assert!(!may_exchange(
            &owner,
            Role::Publisher,
            standing(&item, &owner, None),
            Some(Id::random()),
            &item
        ));
        assert!(!may_exchange(
            &owner,
            Role::Viewer,
            standing(&item, &owner, None),
            None,
            &item
        ));
        assert!(!may_exchange(
            &other,
            Role::Administrator,
            standing(&item, &other, None),
            None,
            &item
        ));
    }
    #[test]
    fn a_listed_integration_is_closed_to_the_unlisted() {
        assert!(!may_choose_integration(
            Role::Publisher,
            Availability::Listed,
            false
        ));
        assert!(may_choose_integration(
            Role::Publisher,
            Availability::Listed,
            true
        ));
        assert!(!may_choose_integration(
            Role::Viewer,
            Availability::Everyone,
            true
        ));
        assert!(!may_choose_integration(
            Role::Publisher,
            Availability::Nobody,
            true
        ));
        assert!(may_choose_integration(
            Role::Administrator,
            Availability::Nobody,
            false
        ));
    }
    #[test]
    fn a_listed_collaborator_with_the_viewer_role_only_views() {
        let owner = person(Role::Publisher);
        let viewer = person(Role::Viewer);
        let item = content(&owner, AccessType::Acl);
        assert_eq!(
            standing(&item, &viewer, Some(ContentRole::Collaborator)),
            Standing::Viewer
        );
    }
}
