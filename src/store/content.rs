//! Content items and their access lists.
//!
//! How the proxy treats an item is one JSON column (`content.proxying`): it is read and written as
//! a whole, and never searched.

use super::{
    Db, Error,
    backend::prepared_update,
    changes::Subject,
    damaged_row,
    groups::{principal, principal_columns},
    id,
    people::PersonRow,
    schema::{access_requests, content, content_list, group_members, people},
};
use crate::domain::{
    Id, Timestamp,
    content::{AccessType, Content, ContentRole, Permission, Process, Proxying},
    group::{Group, Principal},
    person::Person,
};
use diesel::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// A row of the table `content`.
#[derive(Queryable, Selectable)]
#[diesel(table_name = content)]
pub(super) struct Row {
    number: i64,
    guid: String,
    name: String,
    title: Option<String>,
    description: String,
    owner: String,
    access: String,
    app_mode: String,
    upstream: Option<String>,
    slug: String,
    created_at: i64,
    updated_at: i64,
    proxying: String,
    bundle: Option<i64>,
    running: String,
    python: Option<String>,
}

/// The JSON of the column `proxying`. The URL of the first process is also in the column
/// `upstream`, which earlier versions read.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct ProxyingColumn {
    processes: Vec<Process>,
    #[serde(flatten)]
    proxying: Proxying,
}

/// The value of the column `proxying`.
fn proxying_json(item: &Content) -> Result<String, Error> {
    let carried = ProxyingColumn {
        processes: item.processes.clone(),
        proxying: item.proxying.clone(),
    };
    serde_json::to_string(&carried).map_err(|_| damaged_row("proxying"))
}

impl Row {
    /// Converts the row; [`Error::Other`] if a column is damaged.
    pub(super) fn content(self) -> Result<Content, Error> {
        let ProxyingColumn {
            mut processes,
            proxying,
        } = serde_json::from_str(&self.proxying).map_err(|_| damaged_row("proxying"))?;
        // `upstream` differs: an earlier version changed the URL, and does not know `processes`.
        if processes.first().map(|process| &process.url) != self.upstream.as_ref() {
            processes = self
                .upstream
                .into_iter()
                .map(|url| Process {
                    url,
                    draining: false,
                })
                .collect();
        }
        Ok(Content {
            number: self.number,
            id: id(&self.guid)?,
            owner: id(&self.owner)?,
            access: AccessType::parse(&self.access).ok_or_else(|| damaged_row("access"))?,
            name: self.name,
            title: self.title,
            description: self.description,
            app_mode: self.app_mode,
            processes,
            proxying,
            bundle: self.bundle,
            python: self.python,
            running: serde_json::from_str(&self.running).map_err(|_| damaged_row("running"))?,
            slug: self.slug,
            created_at: Timestamp(self.created_at),
            updated_at: Timestamp(self.updated_at),
        })
    }
}

/// Adds an item and returns its number; `item.number` is ignored.
pub fn insert(db: &mut Db<'_>, item: &Content) -> Result<i64, Error> {
    db.changed(Subject::Contents);
    Ok(diesel::insert_into(content::table)
        .values((
            content::guid.eq(item.id.to_string()),
            content::name.eq(&item.name),
            content::title.eq(&item.title),
            content::description.eq(&item.description),
            content::owner.eq(item.owner.to_string()),
            content::access.eq(item.access.as_str()),
            content::app_mode.eq(&item.app_mode),
            content::upstream.eq(item.upstream()),
            content::proxying.eq(proxying_json(item)?),
            content::slug.eq(&item.slug),
            content::created_at.eq(item.created_at.0),
            content::updated_at.eq(item.updated_at.0),
        ))
        .returning(content::number)
        .get_result(db.0)?)
}

/// Writes everything except the item's slug and what a deploy sets: bundle, app mode, Python.
pub fn update(db: &mut Db<'_>, item: &Content) -> Result<(), Error> {
    db.changed(Subject::Content(item.id));
    let running = serde_json::to_string(&item.running).map_err(|_| damaged_row("running"))?;
    let changes = (
        content::name.eq(&item.name),
        content::title.eq(&item.title),
        content::description.eq(&item.description),
        content::owner.eq(item.owner.to_string()),
        content::access.eq(item.access.as_str()),
        content::upstream.eq(item.upstream()),
        content::proxying.eq(proxying_json(item)?),
        content::running.eq(running),
        content::updated_at.eq(item.updated_at.0),
    );
    let row = content::guid.eq(item.id.to_string());
    prepared_update(content::table, row, changes).execute(db.0)?;
    Ok(())
}

/// The items that a person owns.
pub fn of_owner(db: &mut Db<'_>, owner: Id<Person>) -> Result<Vec<Content>, Error> {
    let rows = content::table
        .filter(content::owner.eq(owner.to_string()))
        .order(content::number)
        .select(Row::as_select())
        .load(db.0)?;
    rows.into_iter().map(Row::content).collect()
}

/// Gives an item to `item.owner`, under `item.name`.
pub fn give(db: &mut Db<'_>, item: &Content) -> Result<(), Error> {
    db.changed(Subject::Content(item.id));
    diesel::update(content::table.filter(content::guid.eq(item.id.to_string())))
        .set((
            content::owner.eq(item.owner.to_string()),
            content::name.eq(&item.name),
        ))
        .execute(db.0)?;
    drop_entry_of_owner(db, item)
}

/// Takes the owner off the list of an item: a new owner may have stood on it, and needs no entry.
pub fn drop_entry_of_owner(db: &mut Db<'_>, item: &Content) -> Result<(), Error> {
    db.changed(Subject::Content(item.id));
    diesel::delete(
        content_list::table
            .filter(content_list::content.eq(item.id.to_string()))
            .filter(content_list::person.eq(item.owner.to_string())),
    )
    .execute(db.0)?;
    Ok(())
}

/// The item with this id.
pub fn find(db: &mut Db<'_>, item: Id<Content>) -> Result<Option<Content>, Error> {
    let row = content::table
        .filter(content::guid.eq(item.to_string()))
        .select(Row::as_select())
        .first(db.0)
        .optional()?;
    row.map(Row::content).transpose()
}

/// Like [`find`], with the item's owner. [`Error::Other`] if the owner's row is missing.
pub fn find_with_owner(
    db: &mut Db<'_>,
    item: Id<Content>,
) -> Result<Option<(Content, Person)>, Error> {
    let found: Option<(Row, Option<PersonRow>)> = content::table
        .left_join(people::table.on(people::guid.eq(content::owner)))
        .filter(content::guid.eq(item.to_string()))
        .select((Row::as_select(), Option::<PersonRow>::as_select()))
        .first(db.0)
        .optional()?;
    let Some((item, owner)) = found else {
        return Ok(None);
    };
    let owner = owner.ok_or_else(|| damaged_row("owner"))?.person()?;
    Ok(Some((item.content()?, owner)))
}

/// The item whose own host starts with this label.
pub fn by_slug(db: &mut Db<'_>, slug: &str) -> Result<Option<Id<Content>>, Error> {
    let guid: Option<String> = content::table
        .filter(content::slug.eq(slug))
        .select(content::guid)
        .first(db.0)
        .optional()?;
    guid.as_deref().map(id).transpose()
}

/// All items, oldest first.
pub fn list(db: &mut Db<'_>) -> Result<Vec<Content>, Error> {
    let rows = content::table
        .order(content::number)
        .select(Row::as_select())
        .load(db.0)?;
    rows.into_iter().map(Row::content).collect()
}

/// Deletes an item; `false` if there is none.
pub fn delete(db: &mut Db<'_>, item: Id<Content>) -> Result<bool, Error> {
    db.changed(Subject::Content(item));
    Ok(
        diesel::delete(content::table.filter(content::guid.eq(item.to_string()))).execute(db.0)?
            == 1,
    )
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = content_list)]
struct ListRow {
    number: i64,
    content: String,
    person: Option<String>,
    group_guid: Option<String>,
    role: String,
}

impl ListRow {
    fn permission(self) -> Result<Permission, Error> {
        Ok(Permission {
            number: self.number,
            content: id(&self.content)?,
            principal: principal(self.person.as_deref(), self.group_guid.as_deref())?,
            role: ContentRole::parse(&self.role)
                .ok_or_else(|| damaged_row("role of a permission"))?,
        })
    }
}

/// The item's list, oldest entry first.
pub fn permissions(db: &mut Db<'_>, item: Id<Content>) -> Result<Vec<Permission>, Error> {
    let rows = content_list::table
        .filter(content_list::content.eq(item.to_string()))
        .order(content_list::number)
        .select(ListRow::as_select())
        .load(db.0)?;
    rows.into_iter().map(ListRow::permission).collect()
}

/// The roles that lists give a person, by name or by group. An item may occur several times.
pub fn roles_of(
    db: &mut Db<'_>,
    person: Id<Person>,
) -> Result<Vec<(Id<Content>, ContentRole)>, Error> {
    let person = person.to_string();
    let theirs = group_members::table
        .filter(group_members::person.eq(&person))
        .select(group_members::group_guid.nullable());
    let rows: Vec<ListRow> = content_list::table
        .filter(
            content_list::person
                .eq(&person)
                .or(content_list::group_guid.eq_any(theirs)),
        )
        .select(ListRow::as_select())
        .load(db.0)?;
    rows.into_iter()
        .map(|row| row.permission().map(|entry| (entry.content, entry.role)))
        .collect()
}

/// The highest role that an item's list gives a person, by name or by group.
pub fn role_of(
    db: &mut Db<'_>,
    item: Id<Content>,
    person: Id<Person>,
) -> Result<Option<ContentRole>, Error> {
    let person = person.to_string();
    let theirs = group_members::table
        .filter(group_members::person.eq(&person))
        .select(group_members::group_guid.nullable());
    let rows: Vec<ListRow> = content_list::table
        .filter(content_list::content.eq(item.to_string()))
        .filter(
            content_list::person
                .eq(&person)
                .or(content_list::group_guid.eq_any(theirs)),
        )
        .select(ListRow::as_select())
        .load(db.0)?;
    let roles = rows
        .into_iter()
        .map(|row| row.permission().map(|entry| entry.role))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(roles.into_iter().max())
}

/// The items whose lists contain a group.
pub fn items_of_group(db: &mut Db<'_>, group: Id<Group>) -> Result<Vec<Id<Content>>, Error> {
    let rows: Vec<String> = content_list::table
        .filter(content_list::group_guid.eq(group.to_string()))
        .select(content_list::content)
        .load(db.0)?;
    rows.iter().map(|guid| id(guid)).collect()
}

/// The highest role that an item's list gives each person, by name or by group.
pub fn roles_at(
    db: &mut Db<'_>,
    item: Id<Content>,
) -> Result<HashMap<Id<Person>, ContentRole>, Error> {
    let members: Vec<(String, String)> = content_list::table
        .inner_join(
            group_members::table.on(group_members::group_guid
                .nullable()
                .eq(content_list::group_guid)),
        )
        .filter(content_list::content.eq(item.to_string()))
        .select((group_members::person, content_list::role))
        .load(db.0)?;
    let named: Vec<(Option<String>, String)> = content_list::table
        .filter(content_list::content.eq(item.to_string()))
        .filter(content_list::person.is_not_null())
        .select((content_list::person, content_list::role))
        .load(db.0)?;
    let named = named
        .into_iter()
        .filter_map(|(person, role)| Some((person?, role)));
    let mut roles: HashMap<Id<Person>, ContentRole> = HashMap::new();
    for (person, role) in members.into_iter().chain(named) {
        let role = ContentRole::parse(&role).ok_or_else(|| damaged_row("role of a permission"))?;
        let known = roles.entry(id(&person)?).or_insert(role);
        *known = role.max(*known);
    }
    Ok(roles)
}

/// Adds an entry to the item's list or changes its role; `true` if it is new.
pub fn set_permission(
    db: &mut Db<'_>,
    item: Id<Content>,
    principal: Principal,
    role: ContentRole,
) -> Result<bool, Error> {
    db.changed(Subject::Content(item));
    let (person, group) = principal_columns(principal);
    let listed = permissions(db, item)?
        .into_iter()
        .find(|entry| entry.principal == principal);
    match &listed {
        Some(entry) => {
            diesel::update(content_list::table.find(entry.number))
                .set(content_list::role.eq(role.as_str()))
                .execute(db.0)?;
        }
        None => {
            diesel::insert_into(content_list::table)
                .values((
                    content_list::content.eq(item.to_string()),
                    content_list::person.eq(person),
                    content_list::group_guid.eq(group),
                    content_list::role.eq(role.as_str()),
                ))
                .execute(db.0)?;
        }
    }
    Ok(listed.is_none())
}

/// Deletes an entry of the item's list; `false` if there is none.
pub fn delete_permission(db: &mut Db<'_>, item: Id<Content>, number: i64) -> Result<bool, Error> {
    db.changed(Subject::Content(item));
    let gone = diesel::delete(
        content_list::table
            .find(number)
            .filter(content_list::content.eq(item.to_string())),
    )
    .execute(db.0)?;
    Ok(gone == 1)
}

/// Records that a person asks to be let in; `false` if they asked before.
pub fn put_access_request(
    db: &mut Db<'_>,
    item: Id<Content>,
    person: Id<Person>,
    now: Timestamp,
) -> Result<bool, Error> {
    let known = access_requests::table.find((item.to_string(), person.to_string()));
    if diesel::select(diesel::dsl::exists(known)).get_result(db.0)? {
        return Ok(false);
    }
    diesel::insert_into(access_requests::table)
        .values((
            access_requests::content.eq(item.to_string()),
            access_requests::person.eq(person.to_string()),
            access_requests::at.eq(now.0),
        ))
        .execute(db.0)?;
    Ok(true)
}

/// Who asks to be let in, and since when; the oldest first.
pub fn access_requests(
    db: &mut Db<'_>,
    item: Id<Content>,
) -> Result<Vec<(Person, Timestamp)>, Error> {
    let rows: Vec<(PersonRow, i64)> = access_requests::table
        .inner_join(people::table.on(people::guid.eq(access_requests::person)))
        .filter(access_requests::content.eq(item.to_string()))
        .order(access_requests::at)
        .select((
            <PersonRow as SelectableHelper<_>>::as_select(),
            access_requests::at,
        ))
        .load(db.0)?;
    rows.into_iter()
        .map(|(row, at)| Ok((row.person()?, Timestamp(at))))
        .collect()
}

/// Ends a person's request; `false` if there is none.
pub fn delete_access_request(
    db: &mut Db<'_>,
    item: Id<Content>,
    person: Id<Person>,
) -> Result<bool, Error> {
    let row = access_requests::table.find((item.to_string(), person.to_string()));
    Ok(diesel::delete(row).execute(db.0)? == 1)
}
