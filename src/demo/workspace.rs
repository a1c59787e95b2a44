//! A workspace in the shape of Databricks: SCIM “Me”, and SQL statements whose result depends on
//! the person behind the access token.

use super::provider::Provider;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, dev::ServerHandle, web};
use serde_json::json;
use std::{net::TcpListener, sync::Arc};

/// The rows that a person may see: region, amount, quarter.
pub fn rows(upn: &str) -> Vec<[&'static str; 3]> {
    match upn {
        "vera@example.org" => vec![["North", "1204", "Q3"], ["North", "1377", "Q4"]],
        "viktor@example.org" => vec![
            ["South", "880", "Q3"],
            ["South", "912", "Q4"],
            ["South", "41", "returns"],
        ],
        "bo@example.org" => vec![["North", "1204", "Q3"], ["South", "880", "Q3"]],
        _ => Vec::new(),
    }
}

/// 401 in Databricks' shape.
fn refused() -> HttpResponse {
    HttpResponse::Unauthorized()
        .json(json!({"error_code": 401, "message": "Credential was not sent or was of an unsupported type for this API."}))
}

/// User principal name and name of the person behind the bearer token.
fn person(request: &HttpRequest, provider: &Provider) -> Option<(String, String)> {
    let header = request.headers().get("authorization")?.to_str().ok()?;
    provider.person_of(header.strip_prefix("Bearer ")?)
}

/// `GET /api/2.0/preview/scim/v2/Me`.
async fn me(request: HttpRequest, provider: web::Data<Provider>) -> HttpResponse {
    match person(&request, &provider) {
        Some((upn, name)) => HttpResponse::Ok().json(json!({
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
            "id": upn.len().to_string(), "userName": upn, "displayName": name, "active": true,
            "emails": [{"type": "work", "value": upn, "primary": true}],
        })),
        None => refused(),
    }
}

/// `POST /api/2.0/sql/statements`: the same rows for every statement.
async fn statements(request: HttpRequest, provider: web::Data<Provider>) -> HttpResponse {
    let Some((upn, _)) = person(&request, &provider) else {
        return refused();
    };
    let rows = rows(&upn);
    let column = |name: &str, position: usize| json!({"name": name, "type_text": "STRING", "type_name": "STRING", "position": position});
    HttpResponse::Ok().json(json!({
        "statement_id": "01f0-demo",
        "status": {"state": "SUCCEEDED"},
        "manifest": {"format": "JSON_ARRAY", "schema": {"column_count": 3, "columns": [column("region", 0), column("amount", 1), column("quarter", 2)]},
                     "total_row_count": rows.len()},
        "result": {"chunk_index": 0, "row_offset": 0, "row_count": rows.len(), "data_array": rows},
    }))
}

/// Serves the workspace on `socket`, without signal handling. The handle stops it.
pub fn serve(provider: Arc<Provider>, socket: TcpListener) -> Result<ServerHandle, String> {
    let data = web::Data::from(provider);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(data.clone())
            .route("/api/2.0/preview/scim/v2/Me", web::get().to(me))
            .route("/api/2.0/sql/statements", web::post().to(statements))
            .route("/api/2.0/sql/statements/", web::post().to(statements))
    })
    .workers(1)
    .disable_signals()
    .listen(socket)
    .map_err(|error| error.to_string())?
    .run();
    let handle = server.handle();
    tokio::spawn(server);
    Ok(handle)
}
