//! Content items and the lists of who may open and edit them.

use super::{
    Db, Error, damaged, id,
    schema::{content, content_permissions},
};
use crate::domain::{
    Id, Timestamp,
    content::{AccessType, Content, ContentRole, Permission},
    person::Person,
};
use diesel::prelude::*;

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
    created_at: i64,
    updated_at: i64,
}

impl Row {
    pub(super) fn content(self) -> Result<Content, Error> {
        Ok(Content {
            number: self.number,
            id: id(&self.guid)?,
            owner: id(&self.owner)?,
            access: AccessType::parse(&self.access).ok_or_else(|| damaged("access"))?,
            name: self.name,
            title: self.title,
            description: self.description,
            app_mode: self.app_mode,
            upstream: self.upstream,
            created_at: Timestamp(self.created_at),
            updated_at: Timestamp(self.updated_at),
        })
    }
}

/// Adds an item and returns its number; `item.number` is ignored.
pub fn insert(db: &mut Db<'_>, item: &Content) -> Result<i64, Error> {
    Ok(diesel::insert_into(content::table)
        .values((
            content::guid.eq(item.id.to_string()),
            content::name.eq(&item.name),
            content::title.eq(&item.title),
            content::description.eq(&item.description),
            content::owner.eq(item.owner.to_string()),
            content::access.eq(item.access.as_str()),
            content::app_mode.eq(&item.app_mode),
            content::upstream.eq(&item.upstream),
            content::created_at.eq(item.created_at.0),
            content::updated_at.eq(item.updated_at.0),
        ))
        .returning(content::number)
        .get_result(db.0)?)
}

pub fn update(db: &mut Db<'_>, item: &Content) -> Result<(), Error> {
    diesel::update(content::table.filter(content::guid.eq(item.id.to_string())))
        .set((
            content::name.eq(&item.name),
            content::title.eq(&item.title),
            content::description.eq(&item.description),
            content::owner.eq(item.owner.to_string()),
            content::access.eq(item.access.as_str()),
            content::upstream.eq(&item.upstream),
            content::updated_at.eq(item.updated_at.0),
        ))
        .execute(db.0)?;
    Ok(())
}

pub fn find(db: &mut Db<'_>, item: Id<Content>) -> Result<Option<Content>, Error> {
    let row = content::table.filter(content::guid.eq(item.to_string())).select(Row::as_select()).first(db.0).optional()?;
    row.map(Row::content).transpose()
}

pub fn list(db: &mut Db<'_>) -> Result<Vec<Content>, Error> {
    let rows = content::table.order(content::number).select(Row::as_select()).load(db.0)?;
    rows.into_iter().map(Row::content).collect()
}

pub fn delete(db: &mut Db<'_>, item: Id<Content>) -> Result<bool, Error> {
    Ok(diesel::delete(content::table.filter(content::guid.eq(item.to_string()))).execute(db.0)? == 1)
}

type PermissionRow = (i64, String, String, String);

fn permission((number, item, principal, role): PermissionRow) -> Result<Permission, Error> {
    Ok(Permission {
        number,
        content: id(&item)?,
        principal: id(&principal)?,
        role: ContentRole::parse(&role).ok_or_else(|| damaged("role of a permission"))?,
    })
}

const PERMISSION: (content_permissions::number, content_permissions::content, content_permissions::principal, content_permissions::role) =
    (content_permissions::number, content_permissions::content, content_permissions::principal, content_permissions::role);

pub fn permissions(db: &mut Db<'_>, item: Id<Content>) -> Result<Vec<Permission>, Error> {
    let rows: Vec<PermissionRow> = content_permissions::table
        .filter(content_permissions::content.eq(item.to_string()))
        .order(content_permissions::number)
        .select(PERMISSION)
        .load(db.0)?;
    rows.into_iter().map(permission).collect()
}

/// The roles of one person on every item that lists them.
pub fn roles_of(db: &mut Db<'_>, person: Id<Person>) -> Result<Vec<(Id<Content>, ContentRole)>, Error> {
    let rows: Vec<PermissionRow> =
        content_permissions::table.filter(content_permissions::principal.eq(person.to_string())).select(PERMISSION).load(db.0)?;
    rows.into_iter().map(|row| permission(row).map(|entry| (entry.content, entry.role))).collect()
}

pub fn role_of(db: &mut Db<'_>, item: Id<Content>, person: Id<Person>) -> Result<Option<ContentRole>, Error> {
    let row: Option<PermissionRow> = content_permissions::table
        .filter(content_permissions::content.eq(item.to_string()))
        .filter(content_permissions::principal.eq(person.to_string()))
        .select(PERMISSION)
        .first(db.0)
        .optional()?;
    row.map(|row| permission(row).map(|entry| entry.role)).transpose()
}

/// Lists a person with a role; `true` if they were not listed before.
pub fn set_permission(db: &mut Db<'_>, item: Id<Content>, person: Id<Person>, role: ContentRole) -> Result<bool, Error> {
    let changed = diesel::update(
        content_permissions::table
            .filter(content_permissions::content.eq(item.to_string()))
            .filter(content_permissions::principal.eq(person.to_string())),
    )
    .set(content_permissions::role.eq(role.as_str()))
    .execute(db.0)?;
    if changed == 0 {
        diesel::insert_into(content_permissions::table)
            .values((
                content_permissions::content.eq(item.to_string()),
                content_permissions::principal.eq(person.to_string()),
                content_permissions::role.eq(role.as_str()),
            ))
            .execute(db.0)?;
    }
    Ok(changed == 0)
}

pub fn delete_permission(db: &mut Db<'_>, item: Id<Content>, number: i64) -> Result<bool, Error> {
    let gone =
        diesel::delete(content_permissions::table.find(number).filter(content_permissions::content.eq(item.to_string()))).execute(db.0)?;
    Ok(gone == 1)
}
