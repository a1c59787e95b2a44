//! Groups of people, and lists that name people or groups.

use super::{Id, Timestamp, person::Person};

/// People under one name.
#[derive(Clone, Debug)]
pub struct Group {
    pub number: i64,
    pub id: Id<Group>,
    pub name: String,
    /// Who made it and may change it, besides administrators.
    pub owner: Option<Id<Person>>,
    pub created_at: Timestamp,
}

/// Somebody on a list: a person, or all members of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Principal {
    Person(Id<Person>),
    Group(Id<Group>),
}
