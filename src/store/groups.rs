//! Groups and their members. Names are compared in lower case.

use super::{
    Db, Error,
    changes::Subject,
    damaged_row, id,
    people::PersonRow,
    schema::{group_members, groups, people},
};
use crate::domain::{
    Id, Timestamp,
    group::{Group, Principal},
    person::Person,
};
use diesel::prelude::*;
use std::collections::HashMap;

/// A principal as the columns `person` and `group_guid` of an access list.
pub(super) fn principal_columns(principal: Principal) -> (Option<String>, Option<String>) {
    match principal {
        Principal::Person(person) => (Some(person.to_string()), None),
        Principal::Group(group) => (None, Some(group.to_string())),
    }
}

/// The inverse of [`principal_columns`].
pub(super) fn principal(person: Option<&str>, group: Option<&str>) -> Result<Principal, Error> {
    match (person, group) {
        (Some(person), None) => Ok(Principal::Person(id(person)?)),
        (None, Some(group)) => Ok(Principal::Group(id(group)?)),
        _ => Err(damaged_row("entry of a list")),
    }
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = groups)]
struct Row {
    number: i64,
    guid: String,
    name: String,
    owner: Option<String>,
    created_at: i64,
}

impl Row {
    fn group(self) -> Result<Group, Error> {
        Ok(Group {
            number: self.number,
            id: id(&self.guid)?,
            name: self.name,
            owner: self.owner.as_deref().map(id).transpose()?,
            created_at: Timestamp(self.created_at),
        })
    }
}

/// Adds a group; `group.number` is ignored. [`Error::Taken`] if the name exists.
pub fn insert(db: &mut Db<'_>, group: &Group) -> Result<(), Error> {
    diesel::insert_into(groups::table)
        .values((
            groups::guid.eq(group.id.to_string()),
            groups::name.eq(&group.name),
            groups::name_key.eq(group.name.to_lowercase()),
            groups::owner.eq(group.owner.map(|owner| owner.to_string())),
            groups::created_at.eq(group.created_at.0),
        ))
        .execute(db.0)?;
    Ok(())
}

/// Renames a group. [`Error::Taken`] if the name exists.
pub fn rename(db: &mut Db<'_>, group: Id<Group>, name: &str) -> Result<(), Error> {
    // Apps are told the names of their viewers' groups.
    for member in members(db, group)? {
        db.changed(Subject::Person(member.id));
    }
    diesel::update(groups::table.filter(groups::guid.eq(group.to_string())))
        .set((
            groups::name.eq(name),
            groups::name_key.eq(name.to_lowercase()),
        ))
        .execute(db.0)?;
    Ok(())
}

/// Deletes a group, its memberships and its entries in access lists; `false` if there is none.
pub fn delete(db: &mut Db<'_>, group: Id<Group>) -> Result<bool, Error> {
    for member in members(db, group)? {
        db.changed(Subject::Person(member.id));
    }
    Ok(
        diesel::delete(groups::table.filter(groups::guid.eq(group.to_string()))).execute(db.0)?
            == 1,
    )
}

/// Takes a group from its owner, and removes the members that came from no claim.
pub fn take_from_owner(db: &mut Db<'_>, group: Id<Group>) -> Result<(), Error> {
    db.changed(Subject::Everything);
    diesel::update(groups::table.filter(groups::guid.eq(group.to_string())))
        .set(groups::owner.eq(None::<String>))
        .execute(db.0)?;
    diesel::delete(
        group_members::table
            .filter(group_members::group_guid.eq(group.to_string()))
            .filter(group_members::by_claim.eq(false)),
    )
    .execute(db.0)?;
    Ok(())
}

/// The group with this id.
pub fn find(db: &mut Db<'_>, group: Id<Group>) -> Result<Option<Group>, Error> {
    let row = groups::table
        .filter(groups::guid.eq(group.to_string()))
        .select(Row::as_select())
        .first(db.0)
        .optional()?;
    row.map(Row::group).transpose()
}

/// The group with this name.
pub fn by_name(db: &mut Db<'_>, name: &str) -> Result<Option<Group>, Error> {
    let row = groups::table
        .filter(groups::name_key.eq(name.to_lowercase().replace('\0', "\u{fffd}")))
        .select(Row::as_select())
        .first(db.0)
        .optional()?;
    row.map(Row::group).transpose()
}

/// The number of members of each group that has any.
pub fn member_counts(db: &mut Db<'_>) -> Result<HashMap<Id<Group>, i64>, Error> {
    let rows: Vec<(String, i64)> = group_members::table
        .group_by(group_members::group_guid)
        .select((group_members::group_guid, diesel::dsl::count_star()))
        .load(db.0)?;
    rows.into_iter()
        .map(|(guid, count)| Ok((id(&guid)?, count)))
        .collect()
}

/// All groups, by name.
pub fn list(db: &mut Db<'_>) -> Result<Vec<Group>, Error> {
    let rows = groups::table
        .order(groups::name_key)
        .select(Row::as_select())
        .load(db.0)?;
    rows.into_iter().map(Row::group).collect()
}

/// The members of a group, by first name, last name and user name.
pub fn members(db: &mut Db<'_>, group: Id<Group>) -> Result<Vec<Person>, Error> {
    let rows = group_members::table
        .inner_join(people::table.on(people::guid.eq(group_members::person)))
        .filter(group_members::group_guid.eq(group.to_string()))
        .order((people::first_name, people::last_name, people::username_key))
        .select(PersonRow::as_select())
        .load(db.0)?;
    rows.into_iter().map(PersonRow::person).collect()
}

/// A person's groups, by name; `true` where the membership comes from a claim of the sign-in
/// provider.
pub fn of_person(db: &mut Db<'_>, person: Id<Person>) -> Result<Vec<(Group, bool)>, Error> {
    let rows: Vec<(Row, bool)> = group_members::table
        .inner_join(groups::table.on(groups::guid.eq(group_members::group_guid)))
        .filter(group_members::person.eq(person.to_string()))
        .order(groups::name_key)
        .select((Row::as_select(), group_members::by_claim))
        .load(db.0)?;
    rows.into_iter()
        .map(|(row, by_claim)| Ok((row.group()?, by_claim)))
        .collect()
}

/// Adds a member; `false` if the person already is one.
pub fn add_member(
    db: &mut Db<'_>,
    group: Id<Group>,
    person: Id<Person>,
    by_claim: bool,
) -> Result<bool, Error> {
    db.changed(Subject::Person(person));
    if of_person(db, person)?
        .iter()
        .any(|(known, _)| known.id == group)
    {
        return Ok(false);
    }
    diesel::insert_into(group_members::table)
        .values((
            group_members::group_guid.eq(group.to_string()),
            group_members::person.eq(person.to_string()),
            group_members::by_claim.eq(by_claim),
        ))
        .execute(db.0)?;
    Ok(true)
}

/// Removes a member; `false` if the person is none.
pub fn remove_member(db: &mut Db<'_>, group: Id<Group>, person: Id<Person>) -> Result<bool, Error> {
    db.changed(Subject::Person(person));
    Ok(
        diesel::delete(group_members::table.find((group.to_string(), person.to_string())))
            .execute(db.0)?
            == 1,
    )
}

/// Display name of a person or group on an access list; `None` if it does not exist.
pub fn principal_name(db: &mut Db<'_>, principal: Principal) -> Result<Option<String>, Error> {
    Ok(match principal {
        Principal::Person(person) => {
            super::people::find(db, person)?.map(|person| person.display_name())
        }
        Principal::Group(group) => find(db, group)?.map(|group| group.name),
    })
}
