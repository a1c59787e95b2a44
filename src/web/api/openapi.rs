//! The API as an OpenAPI 3.1 document, at `/__api__/openapi.json`: what each address takes and answers.
//!
//! A table beside the routes: handlers read and answer JSON in Connect's shapes by hand, so there are no
//! types to derive it from. `tests/it/api.rs` compares it with the routes, and
//! `tests/clients/test_openapi.py` has schemathesis send what it permits and what it forbids.

use crate::{service::Services, version::VERSION};
use actix_web::{HttpResponse, web};
use serde_json::{Map, Value, json};

/// One method at one path.
pub struct Operation {
    pub method: &'static str,
    /// Below `/__api__`.
    pub path: &'static str,
    area: &'static str,
    summary: &'static str,
    queries: &'static [&'static str],
    /// Name of the schema of the body; empty: none.
    takes: &'static str,
    status: u16,
    /// Name of the schema of the answer; empty: no body.
    answers: &'static str,
}

const fn operation(
    method: &'static str,
    path: &'static str,
    area: &'static str,
    summary: &'static str,
) -> Operation {
    Operation {
        method,
        path,
        area,
        summary,
        queries: &[],
        takes: "",
        status: 200,
        answers: "",
    }
}

impl Operation {
    const fn queries(mut self, queries: &'static [&'static str]) -> Self {
        self.queries = queries;
        self
    }
    const fn takes(mut self, takes: &'static str) -> Self {
        self.takes = takes;
        self
    }
    const fn answers(mut self, status: u16, answers: &'static str) -> Self {
        self.status = status;
        self.answers = answers;
        self
    }
}

/// Every operation, in the order of the routes.
pub const OPERATIONS: &[Operation] = &[
    operation("get", "/me", "people", "The person of the API key.").answers(200, "Person"),
    operation("get", "/v1/user", "people", "The person of the API key.").answers(200, "Person"),
    operation("get", "/v1/users", "people", "People, by pages.").queries(&["prefix", "user_role", "account_status", "page_number", "page_size"]).answers(200, "PageOfPeople"),
    operation("post", "/v1/users", "people", "Adds a person.").takes("NewPerson").answers(200, "Person"),
    operation("get", "/v1/users/{guid}", "people", "One person.").answers(200, "Person"),
    operation("put", "/v1/users/{guid}", "people", "Changes a person.").takes("PersonChange").answers(200, "Person"),
    operation("post", "/v1/users/{guid}/lock", "people", "Locks or unlocks a person.").takes("Lock").answers(200, ""),
    operation("get", "/v1/users/{guid}/keys", "people", "A person's API keys.").answers(200, "ApiKeys"),
    operation("post", "/v1/users/{guid}/keys", "people", "Makes an API key of one's own; only this answer holds its secret.").takes("NewApiKey").answers(200, "ApiKey"),
    operation("get", "/v1/users/{guid}/keys/{id}", "people", "One API key.").answers(200, "ApiKey"),
    operation("delete", "/v1/users/{guid}/keys/{id}", "people", "Deletes an API key of one's own.").answers(204, ""),
    operation("get", "/v1/groups", "groups", "Groups, by pages.").queries(&["prefix", "page_number", "page_size"]).answers(200, "PageOfGroups"),
    operation("post", "/v1/groups", "groups", "Adds a group.").takes("Name").answers(200, "Group"),
    operation("get", "/v1/groups/{guid}", "groups", "One group.").answers(200, "Group"),
    operation("patch", "/v1/groups/{guid}", "groups", "Renames a group.").takes("Name").answers(200, "Group"),
    operation("delete", "/v1/groups/{guid}", "groups", "Deletes a group.").answers(204, ""),
    operation("get", "/v1/groups/{guid}/members", "groups", "Members of a group, by pages.").queries(&["page_number", "page_size"]).answers(200, "PageOfPeople"),
    operation("post", "/v1/groups/{guid}/members", "groups", "Adds a member.").takes("Member").answers(204, ""),
    operation("delete", "/v1/groups/{guid}/members/{person}", "groups", "Removes a member.").answers(204, ""),
    operation("get", "/v1/content", "content", "The items that the caller may see.").queries(&["name", "owner_guid", "include"]).answers(200, "ContentItems"),
    operation("post", "/v1/content", "content", "Adds an item, which the caller owns.").takes("ContentChange").answers(200, "ContentItem"),
    operation("get", "/v1/content/{guid}", "content", "One item.").queries(&["include"]).answers(200, "ContentItem"),
    operation("patch", "/v1/content/{guid}", "content", "Changes an item.").takes("ContentChange").answers(200, "ContentItem"),
    operation("delete", "/v1/content/{guid}", "content", "Deletes an item.").answers(204, ""),
    operation("get", "/v1/content/{guid}/permissions", "content", "Who may open or edit an item.").answers(200, "Permissions"),
    operation("post", "/v1/content/{guid}/permissions", "content", "Puts a person or group on the list: 201, or 200 if they were on it.").takes("NewPermission").answers(201, "Permission"),
    operation("get", "/v1/content/{guid}/permissions/{id}", "content", "One entry of the list.").answers(200, "Permission"),
    operation("put", "/v1/content/{guid}/permissions/{id}", "content", "Changes the role of an entry.").takes("NewPermission").answers(200, "Permission"),
    operation("delete", "/v1/content/{guid}/permissions/{id}", "content", "Removes an entry.").answers(204, ""),
    operation("get", "/v1/content/{guid}/oauth/integrations/associations", "content", "The integrations of an item.").answers(200, "Associations"),
    operation("put", "/v1/content/{guid}/oauth/integrations/associations", "content", "Replaces the integrations of an item.").takes("NewAssociations").answers(204, ""),
    operation("get", "/v1/content/{guid}/environment", "deployed content", "Names of the variables of an item's processes.").answers(200, "Names"),
    operation("patch", "/v1/content/{guid}/environment", "deployed content", "Sets and deletes some variables.").takes("Variables").answers(200, "Names"),
    operation("put", "/v1/content/{guid}/environment", "deployed content", "Replaces all variables.").takes("Variables").answers(200, "Names"),
    operation("get", "/v1/content/{guid}/bundles", "deployed content", "Bundles of an item, newest first.").answers(200, "Bundles"),
    operation("post", "/v1/content/{guid}/bundles", "deployed content", "Uploads a bundle: the archive itself, or a form with it.").takes("Archive").answers(200, "Bundle"),
    operation("get", "/v1/content/{guid}/bundles/{id}", "deployed content", "One bundle.").answers(200, "Bundle"),
    operation("delete", "/v1/content/{guid}/bundles/{id}", "deployed content", "Deletes a bundle that is not active.").answers(204, ""),
    operation("get", "/v1/content/{guid}/bundles/{id}/download", "deployed content", "The archive as it was uploaded.").answers(200, "Archive"),
    operation("post", "/v1/content/{guid}/deploy", "deployed content", "Deploys a bundle; the task says how that goes.").takes("Deploy").answers(202, "TaskId"),
    operation("post", "/v1/content/{guid}/build", "deployed content", "Builds a bundle only.").takes("Deploy").answers(200, "TaskId"),
    operation("post", "/v1/content/{guid}/restart", "deployed content", "Replaces the processes by new ones.").answers(204, ""),
    operation("get", "/v1/content/{guid}/jobs", "deployed content", "The running processes.").answers(200, "Jobs"),
    operation("get", "/v1/content/{guid}/jobs/{key}/log", "deployed content", "The end of a process's output.").answers(200, "Log"),
    operation("get", "/v1/tasks/{id}", "deployed content", "A deploy and its output.").queries(&["first", "wait"]).answers(200, "Task"),
    operation("get", "/v1/server_settings/python", "deployed content", "The versions of Python that content may use.").answers(200, "Installations"),
    operation("get", "/v1/server_settings/r", "deployed content", "R does not run here.").answers(200, "Installations"),
    operation("get", "/v1/server_settings/quarto", "deployed content", "Quarto does not run here.").answers(200, "Installations"),
    operation("get", "/v1/oauth/integrations", "integrations", "The integrations that the caller may see.").answers(200, "Integrations"),
    operation("post", "/v1/oauth/integrations", "integrations", "Adds an integration.").takes("NewIntegration").answers(200, "Integration"),
    operation("get", "/v1/oauth/integrations/{guid}", "integrations", "One integration.").answers(200, "Integration"),
    operation("patch", "/v1/oauth/integrations/{guid}", "integrations", "Changes an integration, except its template.").takes("IntegrationChange").answers(200, "Integration"),
    operation("delete", "/v1/oauth/integrations/{guid}", "integrations", "Deletes an integration, with its connections and consents.").answers(204, ""),
    operation("get", "/v1/oauth/integrations/{guid}/associations", "integrations", "The items that use an integration.").answers(200, "Associations"),
    operation("post", "/v1/oauth/integrations/{guid}/secret", "integrations", "Whether this is the client secret that is stored.").takes("ClientSecret").answers(200, "Same"),
    operation("post", "/v1/oauth/integrations/{guid}/verify", "integrations", "Checks an integration. One that acts for viewers answers 400 with what was found.").answers(200, "CheckResult"),
    operation("post", "/v1/oauth/integrations/credentials", "integrations", "The token exchange (RFC 8693): a session token for the viewer's or the content's access token.").takes("Exchange").answers(200, "Token"),
    operation("get", "/v1/oauth/templates", "integrations", "The templates of integrations.").answers(200, "Templates"),
    operation("get", "/v1/oauth/templates/{key}", "integrations", "One template.").answers(200, "Template"),
    operation("get", "/v1/oauth/sessions", "integrations", "Connections: one's own, or with all=true everybody's.").queries(&["all"]).answers(200, "Connections"),
    operation("get", "/v1/oauth/sessions/{guid}", "integrations", "One connection.").answers(200, "Connection"),
    operation("delete", "/v1/oauth/sessions/{guid}", "integrations", "Ends a connection.").answers(204, ""),
    operation("get", "/v1/audit_logs", "audit", "Audit records, by pages.").queries(&["limit", "ascOrder", "next", "previous"]).answers(200, "AuditPage"),
    operation("get", "/v1/audit/actions", "audit", "The names of all recorded actions.").answers(200, "Names"),
    operation("get", "/server_settings", "server", "What this server is; version only with a key.").answers(200, "ServerSettings"),
    operation("post", "/v1/bootstrap", "server", "Makes the first administrator, with the bootstrap secret.").answers(200, "BootstrapKey"),
    operation("post", "/v1/experimental/bootstrap", "server", "The same, at its older address.").answers(200, "BootstrapKey"),
    operation("get", "/openapi.json", "server", "This document.").answers(200, "Document"),
];

/// `GET openapi.json`. Works without a key.
pub async fn document(service: web::Data<Services>) -> HttpResponse {
    HttpResponse::Ok().json(describe(service.core.addresses.base()))
}

/// The document, for a portal at this public URL.
pub fn describe(base: &str) -> Value {
    let mut paths = Map::new();
    for operation in OPERATIONS {
        let path = paths
            .entry(operation.path)
            .or_insert_with(|| Value::Object(Map::new()));
        path[operation.method] = describe_operation(operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Valetkey",
            "version": VERSION,
            "description": "The Connect-compatible API. Errors are objects with code and error; code is Connect's number.",
        },
        "servers": [{"url": format!("{base}/__api__")}],
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "Authorization", "description": "Key and the API key, separated by a blank."}
            },
            "schemas": schemas(),
        },
    })
}

fn describe_operation(operation: &Operation) -> Value {
    let in_path = operation.path.split(['{', '}']).skip(1).step_by(2);
    let in_path = in_path.map(|name| {
        let schema = match name {
            "guid" | "person" => json!({"type": "string", "format": "uuid"}),
            _ => json!({"type": "string", "minLength": 1}),
        };
        json!({"name": name, "in": "path", "required": true, "schema": schema})
    });
    let in_query = operation.queries.iter().map(|name| {
        let schema = match *name {
            "page_number" => json!({"type": "integer", "minimum": 1}),
            "page_size" | "limit" => json!({"type": "integer", "minimum": 1, "maximum": 500}),
            "wait" => json!({"type": "integer", "minimum": 0, "maximum": 1}),
            "first" => json!({"type": "integer", "minimum": 0}),
            "all" | "ascOrder" => json!({"type": "boolean"}),
            _ => json!({"type": "string"}),
        };
        json!({"name": name, "in": "query", "schema": schema})
    });
    let parameters: Vec<Value> = in_path.chain(in_query).collect();
    let content = |schema: &str| {
        let media = match schema {
            "Archive" => "application/octet-stream",
            "Exchange" => "application/x-www-form-urlencoded",
            _ => "application/json",
        };
        json!({media: {"schema": {"$ref": format!("#/components/schemas/{schema}")}}})
    };
    let mut answer = json!({"description": operation.summary});
    if !operation.answers.is_empty() {
        answer["content"] = content(operation.answers);
    }
    let mut described = json!({
        "tags": [operation.area],
        "summary": operation.summary,
        "parameters": parameters,
        "responses": {
            operation.status.to_string(): answer,
            "4XX": {"description": "Refused: error says why.", "content": content("Error")},
            "503": {"description": "The portal is busy: Retry-After says when to come back.", "content": content("Error")},
        },
    });
    if !operation.takes.is_empty() {
        described["requestBody"] = json!({"required": true, "content": content(operation.takes)});
    }
    described
}

fn list_of(schema: &str) -> Value {
    json!({"type": "array", "items": {"$ref": format!("#/components/schemas/{schema}")}})
}

fn page_of(schema: &str) -> Value {
    json!({"type": "object", "required": ["results", "total", "current_page"], "properties": {"results": list_of(schema), "total": {"type": "integer"}, "current_page": {"type": "integer"}}})
}

/// An object; the first `required` fields are always there.
fn object(required: usize, fields: &[(&str, &str)]) -> Value {
    let mut properties = Map::new();
    for (name, kind) in fields {
        let schema = match *kind {
            "guid" => json!({"type": "string", "format": "uuid"}),
            "time" => json!({"type": "string", "format": "date-time"}),
            "text" => json!({"type": "string"}),
            "text?" => json!({"type": ["string", "null"]}),
            "number" => json!({"type": "integer"}),
            "number?" => json!({"type": ["number", "null"]}),
            "flag" => json!({"type": "boolean"}),
            "texts" => json!({"type": "array", "items": {"type": "string"}}),
            "any" => json!({}),
            "object" => json!({"type": "object"}),
            other => match other.split_once(':') {
                Some(("one of", words)) => {
                    json!({"type": "string", "enum": words.split('|').collect::<Vec<_>>()})
                }
                Some(("list", schema)) => list_of(schema),
                _ => json!({"$ref": format!("#/components/schemas/{other}")}),
            },
        };
        properties.insert((*name).to_owned(), schema);
    }
    let names: Vec<&str> = fields
        .iter()
        .take(required)
        .map(|(name, _)| *name)
        .collect();
    json!({"type": "object", "required": names, "properties": properties})
}

fn schemas() -> Value {
    let role = "one of:viewer|publisher|administrator";
    let content = [
        ("name", "text"),
        ("title", "text?"),
        ("description", "text"),
        ("access_type", "one of:all|logged_in|acl"),
        ("owner_guid", "guid"),
        ("upstream_url", "text?"),
        ("connection_timeout", "number?"),
        ("init_timeout", "number?"),
        ("read_timeout", "number?"),
        ("min_processes", "number?"),
        ("max_processes", "number?"),
        ("max_conns_per_process", "number?"),
        ("load_factor", "number?"),
        ("idle_timeout", "number?"),
        ("start_timeout", "number?"),
        ("memory_limit", "number?"),
        ("proxy", "any"),
    ];
    let with = |first: &[(&'static str, &'static str)]| [first, &content].concat();
    let integration = [
        ("name", "text?"),
        ("template", "text"),
        ("config", "object"),
        ("description", "text?"),
        ("permissions", "list:IntegrationPermission"),
        ("availability", "one of:everyone|listed|nobody"),
        ("identity_check", "one of:off|warn|require"),
        ("paused", "flag"),
    ];
    let all = [
        (
            "Error",
            object(
                2,
                &[("code", "number"), ("error", "text"), ("payload", "any")],
            ),
        ),
        ("Name", object(1, &[("name", "text")])),
        (
            "Names",
            json!({"type": "array", "items": {"type": "string"}}),
        ),
        (
            "Person",
            object(
                6,
                &[
                    ("guid", "guid"),
                    ("username", "text"),
                    ("email", "text"),
                    ("first_name", "text"),
                    ("last_name", "text"),
                    ("user_role", role),
                    ("created_time", "time"),
                    ("updated_time", "time"),
                    ("active_time", "text?"),
                    ("confirmed", "flag"),
                    ("locked", "flag"),
                ],
            ),
        ),
        (
            "NewPerson",
            object(
                1,
                &[
                    ("username", "text"),
                    ("email", "text"),
                    ("first_name", "text"),
                    ("last_name", "text"),
                    ("user_role", role),
                    ("password", "text"),
                    ("user_must_set_password", "flag"),
                ],
            ),
        ),
        (
            "PersonChange",
            object(
                0,
                &[
                    ("username", "text"),
                    ("email", "text"),
                    ("first_name", "text"),
                    ("last_name", "text"),
                    ("user_role", role),
                ],
            ),
        ),
        ("PageOfPeople", page_of("Person")),
        ("Lock", object(1, &[("locked", "flag")])),
        (
            "ApiKey",
            object(
                2,
                &[
                    ("id", "text"),
                    ("name", "text"),
                    ("user_role", role),
                    ("created_time", "time"),
                    ("last_used_time", "text?"),
                    ("expires_at", "text?"),
                    ("key", "text"),
                ],
            ),
        ),
        ("ApiKeys", list_of("ApiKey")),
        (
            "NewApiKey",
            object(
                1,
                &[
                    ("name", "text"),
                    ("user_role", role),
                    ("expires_at", "text?"),
                ],
            ),
        ),
        (
            "Group",
            object(
                2,
                &[("guid", "guid"), ("name", "text"), ("owner_guid", "text?")],
            ),
        ),
        ("PageOfGroups", page_of("Group")),
        ("Member", object(1, &[("user_guid", "guid")])),
        ("ContentItem", object(2, &with(&[("guid", "guid")]))),
        ("ContentItems", list_of("ContentItem")),
        ("ContentChange", object(0, &content)),
        (
            "Permission",
            object(
                5,
                &[
                    ("id", "text"),
                    ("content_guid", "guid"),
                    ("principal_guid", "guid"),
                    ("principal_type", "one of:user|group"),
                    ("role", "one of:viewer|owner"),
                ],
            ),
        ),
        ("Permissions", list_of("Permission")),
        (
            "NewPermission",
            object(
                2,
                &[
                    ("principal_guid", "guid"),
                    ("role", "one of:viewer|owner"),
                    ("principal_type", "one of:user|group"),
                ],
            ),
        ),
        (
            "Association",
            object(
                2,
                &[
                    ("app_guid", "guid"),
                    ("oauth_integration_guid", "guid"),
                    ("oauth_integration_name", "text?"),
                    ("oauth_integration_template", "text"),
                    ("created_time", "time"),
                ],
            ),
        ),
        ("Associations", list_of("Association")),
        (
            "NewAssociation",
            object(
                1,
                &[
                    ("oauth_integration_guid", "guid"),
                    ("beside_viewers", "flag"),
                ],
            ),
        ),
        ("NewAssociations", list_of("NewAssociation")),
        (
            "Variable",
            object(1, &[("name", "text"), ("value", "text?")]),
        ),
        ("Variables", list_of("Variable")),
        ("Archive", json!({"type": "string", "format": "binary"})),
        (
            "Bundle",
            object(
                3,
                &[
                    ("id", "text"),
                    ("content_guid", "guid"),
                    ("created_time", "time"),
                    ("active", "flag"),
                    ("size", "number"),
                    ("py_version", "text?"),
                    ("metadata", "object"),
                ],
            ),
        ),
        ("Bundles", list_of("Bundle")),
        (
            "Deploy",
            object(0, &[("bundle_id", "text"), ("activate", "flag")]),
        ),
        ("TaskId", object(1, &[("task_id", "text")])),
        (
            "Task",
            object(
                1,
                &[
                    ("id", "text"),
                    ("output", "texts"),
                    ("finished", "flag"),
                    ("code", "number"),
                    ("error", "text"),
                    ("last", "number"),
                ],
            ),
        ),
        (
            "Job",
            object(
                1,
                &[
                    ("key", "text"),
                    ("status", "number"),
                    ("start_time", "text?"),
                ],
            ),
        ),
        ("Jobs", list_of("Job")),
        ("Log", json!({"type": "object"})),
        ("Installations", object(1, &[("installations", "any")])),
        (
            "IntegrationPermission",
            object(0, &[("user_guid", "text?"), ("group_guid", "text?")]),
        ),
        (
            "Integration",
            object(
                2,
                &[
                    &[
                        ("guid", "guid"),
                        ("template", "text"),
                        ("id", "text"),
                        ("auth_type", "text"),
                        ("created_time", "time"),
                        ("updated_time", "time"),
                    ],
                    &integration[..1],
                    &integration[2..],
                ]
                .concat(),
            ),
        ),
        ("Integrations", list_of("Integration")),
        ("NewIntegration", object(3, &integration)),
        ("IntegrationChange", object(0, &integration)),
        ("ClientSecret", object(1, &[("client_secret", "text")])),
        ("Same", object(1, &[("same", "flag")])),
        (
            "CheckResult",
            object(
                2,
                &[
                    ("verdict", "text"),
                    ("findings", "any"),
                    ("checked_time", "time"),
                ],
            ),
        ),
        (
            "Exchange",
            object(
                3,
                &[
                    ("grant_type", "text"),
                    ("subject_token", "text"),
                    ("subject_token_type", "text"),
                    ("requested_token_type", "text"),
                    ("audience", "text"),
                ],
            ),
        ),
        (
            "Token",
            object(
                3,
                &[
                    ("access_token", "text"),
                    ("issued_token_type", "text"),
                    ("token_type", "text"),
                    ("expires_in", "number"),
                ],
            ),
        ),
        (
            "Template",
            object(
                2,
                &[
                    ("id", "text"),
                    ("name", "text"),
                    ("description", "text"),
                    ("options", "any"),
                    ("fields", "any"),
                ],
            ),
        ),
        ("Templates", list_of("Template")),
        (
            "Connection",
            object(
                4,
                &[
                    ("id", "text"),
                    ("guid", "guid"),
                    ("user_guid", "guid"),
                    ("oauth_integration_guid", "guid"),
                    ("has_refresh_token", "flag"),
                    ("created_time", "time"),
                    ("updated_time", "time"),
                ],
            ),
        ),
        ("Connections", list_of("Connection")),
        (
            "AuditPage",
            object(1, &[("results", "any"), ("paging", "any")]),
        ),
        ("ServerSettings", json!({"type": "object"})),
        ("BootstrapKey", object(1, &[("api_key", "text")])),
        ("Document", json!({"type": "object"})),
    ];
    let all = all
        .into_iter()
        .map(|(name, schema)| (name.to_owned(), schema));
    Value::Object(all.collect())
}
