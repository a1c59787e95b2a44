//! Every "may X do Y to Z", as pure functions. Handlers and services ask here and nowhere else.

use super::{
    Id,
    content::{AccessType, Content, ContentRole},
    group::Group,
    integration::Availability,
    person::{Person, Role},
};

/// What a person is to a content item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    None,
    Viewer,
    Collaborator,
    Owner,
}

/// Where a person stands with a content item, given their entry in its list.
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

pub fn may_create_content(role: Role) -> bool {
    role >= Role::Publisher
}

/// May this role choose integrations and see their names?
pub fn may_see_integrations(role: Role) -> bool {
    role >= Role::Publisher
}

/// May this person choose an integration for content, and so see it? `listed`: they or a group of
/// theirs are on its list.
pub fn may_choose_integration(role: Role, availability: Availability, listed: bool) -> bool {
    may_manage_integrations(role)
        || (may_see_integrations(role)
            && match availability {
                Availability::Everyone => true,
                Availability::Listed => listed,
                Availability::Nobody => false,
            })
}

pub fn may_manage_integrations(role: Role) -> bool {
    role == Role::Administrator
}

pub fn may_manage_people(role: Role) -> bool {
    role == Role::Administrator
}

/// May this role see groups, use them in lists and make new ones?
pub fn may_see_groups(role: Role) -> bool {
    role >= Role::Publisher
}

pub fn may_change_group(person: &Person, group: &Group) -> bool {
    !person.locked
        && (person.role == Role::Administrator
            || (person.role >= Role::Publisher && group.owner == Some(person.id)))
}

pub fn may_read_audit(role: Role) -> bool {
    role == Role::Administrator
}

/// May a key of `caller` exchange session tokens of this content? Only those who run the content
/// may.
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
            id: Id::random(),
            username: "p".into(),
            email: String::new(),
            first_name: String::new(),
            last_name: String::new(),
            role,
            locked: false,
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
            active_at: None,
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
    fn a_locked_person_stands_nowhere() {
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
    fn only_those_who_run_content_exchange_for_it() {
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
    fn an_empty_list_is_closed() {
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
    fn a_listed_collaborator_without_the_role_only_views() {
        let owner = person(Role::Publisher);
        let viewer = person(Role::Viewer);
        let item = content(&owner, AccessType::Acl);
        assert_eq!(
            standing(&item, &viewer, Some(ContentRole::Collaborator)),
            Standing::Viewer
        );
    }
}
