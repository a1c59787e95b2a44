//! Groups of people, and the principals that access lists name.

use super::{Id, Timestamp, person::Person};

/// A named group of people.
#[derive(Clone, Debug)]
pub struct Group {
    pub number: i64,
    pub id: Id<Group>,
    pub name: String,
    /// The person who created it and may change it, besides administrators.
    pub owner: Option<Id<Person>>,
    pub created_at: Timestamp,
}

/// An entry of an access list: a person, or all members of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Principal {
    Person(Id<Person>),
    Group(Id<Group>),
}
