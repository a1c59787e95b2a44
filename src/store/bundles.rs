//! Deployed content: bundles, the variables of their processes, and deploys. The files themselves
//! are below the data folder.

use super::{
    Db, Error,
    changes::Subject,
    content::Row as ContentRow,
    damaged_row, id,
    schema::{bundles, content, environment, tasks},
};
use crate::{
    domain::{
        Id, Timestamp,
        bundle::{Bundle, Outcome, Source, Task},
        content::Content,
        person::Role,
    },
    vault::Sealed,
};
use diesel::prelude::*;

#[derive(Queryable, Selectable)]
#[diesel(table_name = bundles)]
struct BundleRow {
    number: i64,
    content: String,
    created_at: i64,
    created_by: Option<String>,
    size: i64,
    app_mode: String,
    python: Option<String>,
    source: String,
}

impl BundleRow {
    fn bundle(self) -> Result<Bundle, Error> {
        Ok(Bundle {
            number: self.number,
            content: id(&self.content)?,
            created_at: Timestamp(self.created_at),
            created_by: self.created_by.as_deref().map(id).transpose()?,
            size: self.size,
            app_mode: self.app_mode,
            python: self.python,
            source: serde_json::from_str(&self.source)
                .map_err(|_| damaged_row("source of a bundle"))?,
        })
    }
}

/// Adds a bundle and returns its number; `bundle.number` is ignored.
pub fn insert(db: &mut Db<'_>, bundle: &Bundle) -> Result<i64, Error> {
    let source = |source: &Source| serde_json::to_string(source);
    Ok(diesel::insert_into(bundles::table)
        .values((
            bundles::content.eq(bundle.content.to_string()),
            bundles::created_at.eq(bundle.created_at.0),
            bundles::created_by.eq(bundle.created_by.map(|person| person.to_string())),
            bundles::size.eq(bundle.size),
            bundles::app_mode.eq(&bundle.app_mode),
            bundles::python.eq(&bundle.python),
            bundles::source
                .eq(source(&bundle.source).map_err(|_| damaged_row("source of a bundle"))?),
        ))
        .returning(bundles::number)
        .get_result(db.0)?)
}

/// An item's bundles, newest first.
pub fn of_content(db: &mut Db<'_>, item: Id<Content>) -> Result<Vec<Bundle>, Error> {
    let rows: Vec<BundleRow> = bundles::table
        .filter(bundles::content.eq(item.to_string()))
        .order(bundles::number.desc())
        .select(BundleRow::as_select())
        .load(db.0)?;
    rows.into_iter().map(BundleRow::bundle).collect()
}

/// One bundle of an item.
pub fn find(db: &mut Db<'_>, item: Id<Content>, number: i64) -> Result<Option<Bundle>, Error> {
    let row: Option<BundleRow> = bundles::table
        .find(number)
        .filter(bundles::content.eq(item.to_string()))
        .select(BundleRow::as_select())
        .first(db.0)
        .optional()?;
    row.map(BundleRow::bundle).transpose()
}

/// Deletes a bundle's row; `false` if there is none.
pub fn delete(db: &mut Db<'_>, item: Id<Content>, number: i64) -> Result<bool, Error> {
    let row = bundles::table
        .find(number)
        .filter(bundles::content.eq(item.to_string()));
    Ok(diesel::delete(row).execute(db.0)? == 1)
}

/// Makes a bundle the one that viewers get, with the item's kind of app and its version of Python.
/// `None`: the app runs elsewhere.
pub fn activate(
    db: &mut Db<'_>,
    item: Id<Content>,
    bundle: Option<i64>,
    app_mode: &str,
    python: Option<&str>,
) -> Result<(), Error> {
    db.changed(Subject::Content(item));
    diesel::update(content::table.filter(content::guid.eq(item.to_string())))
        .set((
            content::bundle.eq(bundle),
            content::app_mode.eq(app_mode),
            content::python.eq(python),
        ))
        .execute(db.0)?;
    Ok(())
}

/// The items whose app runs here. A damaged row is left out: it must not stop the apps of others.
pub fn active(db: &mut Db<'_>) -> Result<Vec<Content>, Error> {
    let rows: Vec<ContentRow> = content::table
        .filter(content::bundle.is_not_null())
        .select(ContentRow::as_select())
        .load(db.0)?;
    let items = rows.into_iter().filter_map(|row| row.content().ok());
    Ok(items.collect())
}

/// The names of an item's variables, in order.
pub fn variable_names(db: &mut Db<'_>, item: Id<Content>) -> Result<Vec<String>, Error> {
    Ok(environment::table
        .filter(environment::content.eq(item.to_string()))
        .order(environment::name)
        .select(environment::name)
        .load(db.0)?)
}

/// An item's variables with their sealed values.
pub fn variables(db: &mut Db<'_>, item: Id<Content>) -> Result<Vec<(String, Sealed)>, Error> {
    let rows: Vec<(String, String)> = environment::table
        .filter(environment::content.eq(item.to_string()))
        .select((environment::name, environment::value))
        .load(db.0)?;
    Ok(rows
        .into_iter()
        .map(|(name, value)| (name, Sealed(value)))
        .collect())
}

/// Sets a variable, or deletes it (`None`).
pub fn set_variable(
    db: &mut Db<'_>,
    item: Id<Content>,
    name: &str,
    value: Option<&Sealed>,
) -> Result<(), Error> {
    let row = environment::table.find((item.to_string(), name.to_owned()));
    diesel::delete(row).execute(db.0)?;
    if let Some(value) = value {
        diesel::insert_into(environment::table)
            .values((
                environment::content.eq(item.to_string()),
                environment::name.eq(name),
                environment::value.eq(&value.0),
            ))
            .execute(db.0)?;
    }
    Ok(())
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = tasks)]
struct TaskRow {
    guid: String,
    content: String,
    bundle: i64,
    created_by: String,
    activate: bool,
    created_at: i64,
    finished_at: Option<i64>,
    error: Option<String>,
    role: String,
}

impl TaskRow {
    fn task(self) -> Result<Task, Error> {
        Ok(Task {
            id: id(&self.guid)?,
            content: id(&self.content)?,
            bundle: self.bundle,
            created_by: id(&self.created_by)?,
            role: Role::parse(&self.role).ok_or_else(|| damaged_row("role of a task"))?,
            activate: self.activate,
            created_at: Timestamp(self.created_at),
            outcome: self.finished_at.map(|at| Outcome {
                at: Timestamp(at),
                error: self.error,
            }),
        })
    }
}

/// Adds a deploy.
pub fn insert_task(db: &mut Db<'_>, task: &Task) -> Result<(), Error> {
    diesel::insert_into(tasks::table)
        .values((
            tasks::guid.eq(task.id.to_string()),
            tasks::content.eq(task.content.to_string()),
            tasks::bundle.eq(task.bundle),
            tasks::created_by.eq(task.created_by.to_string()),
            tasks::activate.eq(task.activate),
            tasks::created_at.eq(task.created_at.0),
            tasks::role.eq(task.role.as_str()),
        ))
        .execute(db.0)?;
    Ok(())
}

/// A deploy.
pub fn find_task(db: &mut Db<'_>, task: Id<Task>) -> Result<Option<Task>, Error> {
    let row: Option<TaskRow> = tasks::table
        .find(task.to_string())
        .select(TaskRow::as_select())
        .first(db.0)
        .optional()?;
    row.map(TaskRow::task).transpose()
}

/// An item's latest deploys, newest first.
pub fn tasks_of(db: &mut Db<'_>, item: Id<Content>, most: i64) -> Result<Vec<Task>, Error> {
    let rows: Vec<TaskRow> = tasks::table
        .filter(tasks::content.eq(item.to_string()))
        .order((tasks::created_at.desc(), tasks::guid))
        .limit(most)
        .select(TaskRow::as_select())
        .load(db.0)?;
    rows.into_iter().map(TaskRow::task).collect()
}

/// The deploys that have not ended, oldest first.
pub fn open_tasks(db: &mut Db<'_>) -> Result<Vec<Task>, Error> {
    let rows: Vec<TaskRow> = tasks::table
        .filter(tasks::finished_at.is_null())
        .order((tasks::created_at, tasks::guid))
        .select(TaskRow::as_select())
        .load(db.0)?;
    rows.into_iter().map(TaskRow::task).collect()
}

/// Ends a deploy; `false` if it has ended or is gone.
pub fn finish_task(db: &mut Db<'_>, task: Id<Task>, outcome: &Outcome) -> Result<bool, Error> {
    let row = tasks::table
        .find(task.to_string())
        .filter(tasks::finished_at.is_null());
    Ok(diesel::update(row)
        .set((
            tasks::finished_at.eq(outcome.at.0),
            tasks::error.eq(&outcome.error),
        ))
        .execute(db.0)?
        == 1)
}
