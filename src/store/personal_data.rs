//! All rows about one person, as JSON, without secrets: which columns of which tables they are. A new
//! table that names people must be listed in [`TABLES`]; `tests/it/lifecycle.rs` compares the list with
//! the database.

use super::{Db, Error, backend::AnyConnection};
use crate::domain::{Id, person::Person};
use diesel::{QueryableByName, RunQueryDsl as _, sql_query, sql_types::Text};
use serde_json::{Map, Value};

/// A table, the column that names the person, and the columns that are told.
pub struct Table {
    pub name: &'static str,
    pub person: &'static str,
    pub columns: &'static [&'static str],
}

const fn table(
    name: &'static str,
    person: &'static str,
    columns: &'static [&'static str],
) -> Table {
    Table {
        name,
        person,
        columns,
    }
}

/// Every table that names people.
pub const TABLES: &[Table] = &[
    table(
        "people",
        "guid",
        &[
            "guid",
            "username",
            "email",
            "first_name",
            "last_name",
            "role",
            "locked",
            "created_at",
            "updated_at",
            "active_at",
            "organisation_label",
            "organisation_subject",
            "notice",
            "time_zone",
            "mail_off",
        ],
    ),
    table("identities", "person", &["issuer", "subject", "created_at"]),
    table("group_members", "person", &["group_guid", "by_claim"]),
    table("groups", "owner", &["guid", "name", "created_at"]),
    table(
        "sessions",
        "person",
        &[
            "guid",
            "address",
            "client",
            "created_at",
            "seen_at",
            "expires_at",
        ],
    ),
    table("known_devices", "person", &["client", "seen_at"]),
    table("setup_links", "person", &["expires_at"]),
    table("shown_once", "person", &["expires_at"]),
    table(
        "api_keys",
        "person",
        &[
            "number",
            "name",
            "role",
            "content",
            "created_at",
            "active_at",
            "expires_at",
        ],
    ),
    table(
        "content",
        "owner",
        &["guid", "name", "title", "description", "created_at"],
    ),
    table("content_list", "person", &["content", "role"]),
    table("access_requests", "person", &["content", "at"]),
    table("integration_list", "person", &["integration"]),
    table(
        "bundles",
        "created_by",
        &["number", "content", "created_at", "source"],
    ),
    table(
        "tasks",
        "created_by",
        &["guid", "content", "created_at", "finished_at"],
    ),
    table(
        "connections",
        "person",
        &[
            "guid",
            "integration",
            "state",
            "cause",
            "account_label",
            "account_subject",
            "account_tenant",
            "scopes",
            "connected_at",
            "used_at",
        ],
    ),
    table(
        "consents",
        "person",
        &[
            "guid",
            "content",
            "integration",
            "scopes",
            "created_at",
            "last_used_at",
            "uses",
        ],
    ),
    table(
        "attempts",
        "person",
        &["guid", "integration", "content", "expires_at"],
    ),
    table(
        "revocations",
        "person",
        &[
            "integration_name",
            "provider",
            "account",
            "state",
            "ended_at",
            "told_at",
        ],
    ),
    table("handovers", "person", &["content", "expires_at"]),
    table("content_sessions", "person", &["content", "created_at"]),
    table("app_sessions", "person", &["content", "seen_at"]),
    table(
        "visits",
        "person",
        &["content", "process", "here", "since", "seen_at"],
    ),
    table("token_uses", "person", &["content", "process", "used_at"]),
    table(
        "leaks",
        "person",
        &["content", "kind", "first_at", "last_at", "times"],
    ),
    table(
        "exchange_hours",
        "person",
        &["hour", "content", "integration", "exchanges", "last_at"],
    ),
    table("notices", "person", &["at", "kind", "title", "body"]),
    table(
        "audit",
        "actor",
        &[
            "number", "at", "action", "subject", "detail", "address", "outcome",
        ],
    ),
];

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    row: String,
}

/// The rows about a person, by table; tables without any are left out.
pub fn tables(db: &mut Db<'_>, person: Id<Person>) -> Result<Map<String, Value>, Error> {
    let mut all = Map::new();
    for Table {
        name,
        person: column,
        columns,
    } in TABLES
    {
        let pairs: Vec<String> = columns
            .iter()
            .map(|column| format!("'{column}', {column}"))
            .collect();
        let pairs = pairs.join(", ");
        let object = match db.0 {
            AnyConnection::Sqlite(_) => format!("json_object({pairs})"),
            #[cfg(feature = "postgres")]
            AnyConnection::Postgresql(_) => format!("json_build_object({pairs})::text"),
        };
        let rows: Vec<Row> = sql_query(format!(
            "SELECT {object} AS row FROM \"{name}\" WHERE {column} = '{person}'"
        ))
        .load(db.0)?;
        let rows: Vec<Value> = rows
            .iter()
            .map(|row| serde_json::from_str(&row.row))
            .collect::<Result<_, _>>()
            .map_err(|error| Error::Other(format!("{name}: {error}")))?;
        if !rows.is_empty() {
            all.insert((*name).to_owned(), Value::Array(rows));
        }
    }
    Ok(all)
}
