//! The sample app: shows who the viewer is at the workspace, and the rows that they may see. It
//! does what any app behind the portal does: it exchanges the session token of the request's header
//! for the viewer's access token, and queries the workspace as the viewer.

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, dev::ServerHandle, web};
use askama::Template;
use parking_lot::RwLock;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use std::{collections::HashMap, net::TcpListener, sync::Arc, time::Duration};

/// What an app would read from its environment, for each content item that this one plays.
#[derive(Clone)]
pub struct Sample {
    portal: String,
    workspace: String,
    /// Name of a content item to its content key.
    keys: Arc<RwLock<HashMap<String, SecretString>>>,
    http: reqwest::Client,
}

#[derive(Template)]
#[template(path = "pages/sample.html")]
struct Page {
    who: Option<String>,
    rows: Vec<Vec<String>>,
    problem: Option<String>,
    login: Option<String>,
}

impl Sample {
    /// An app without content items; both addresses are base URLs.
    pub fn new(portal: &str, workspace: &str) -> Result<Self, String> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(15))
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self {
            portal: portal.into(),
            workspace: workspace.into(),
            keys: Arc::default(),
            http,
        })
    }

    /// Plays another content item below `/{name}/`, with this content key.
    pub fn add(&self, name: &str, key: SecretString) {
        self.keys.write().insert(name.to_owned(), key);
    }

    /// The viewer's name at the workspace, and their rows. The error is a sentence, with the
    /// address where the viewer can connect if that helps.
    async fn fetch_rows(
        &self,
        request: &HttpRequest,
    ) -> Result<(String, Vec<Vec<String>>), (String, Option<String>)> {
        let header = |name: &str| {
            request
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
                .unwrap_or("")
        };
        let name = request.match_info().query("name");
        let key = self.keys.read().get(name).cloned();
        let key = key.ok_or_else(|| {
            (
                "This app does not know which content it is.".to_owned(),
                None,
            )
        })?;
        let token = header("posit-connect-user-session-token");
        let wrong = |what: &str| (what.to_owned(), None);
        let form = url::form_urlencoded::Serializer::new(String::new())
            .append_pair(
                "grant_type",
                "urn:ietf:params:oauth:grant-type:token-exchange",
            )
            .append_pair("subject_token_type", "urn:posit:connect:user-session-token")
            .append_pair("subject_token", token)
            .finish();
        let answer = self
            .http
            .post(format!(
                "{}/__api__/v1/oauth/integrations/credentials",
                self.portal
            ))
            .header("authorization", format!("Key {}", key.expose_secret()))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form)
            .send()
            .await
            .map_err(|_| wrong("The portal does not answer."))?;
        let exchanged: Value = answer
            .json()
            .await
            .map_err(|_| wrong("The portal sent no JSON."))?;
        let Some(access_token) = exchanged["access_token"].as_str() else {
            let login = exchanged["payload"]["login_url"]
                .as_str()
                .map(str::to_owned);
            return Err((
                exchanged["error"]
                    .as_str()
                    .unwrap_or("No token.")
                    .to_owned(),
                login,
            ));
        };
        let ask =
            async |request: reqwest::RequestBuilder| -> Result<Value, (String, Option<String>)> {
                let answer = request
                    .bearer_auth(access_token)
                    .send()
                    .await
                    .map_err(|_| wrong("The workspace does not answer."))?;
                answer
                    .json()
                    .await
                    .map_err(|_| wrong("The workspace sent no JSON."))
            };
        let me = ask(self
            .http
            .get(format!("{}/api/2.0/preview/scim/v2/Me", self.workspace)))
        .await?;
        let statement = json!({"statement": "SELECT region, amount, quarter FROM sales", "warehouse_id": "demo"});
        let rows = ask(self
            .http
            .post(format!("{}/api/2.0/sql/statements", self.workspace))
            .json(&statement))
        .await?;
        let cells = |row: &Value| {
            row.as_array()
                .map(|cells| {
                    cells
                        .iter()
                        .map(|cell| cell.as_str().unwrap_or("").to_owned())
                        .collect()
                })
                .unwrap_or_default()
        };
        let rows = rows["result"]["data_array"]
            .as_array()
            .map(|rows| rows.iter().map(cells).collect())
            .unwrap_or_default();
        Ok((
            me["userName"].as_str().unwrap_or("somebody").to_owned(),
            rows,
        ))
    }
}

async fn index(request: HttpRequest, sample: web::Data<Sample>) -> HttpResponse {
    let page = match sample.fetch_rows(&request).await {
        Ok((who, rows)) => Page {
            who: Some(who),
            rows,
            problem: None,
            login: None,
        },
        Err((problem, login)) => Page {
            who: None,
            rows: Vec::new(),
            problem: Some(problem),
            login,
        },
    };
    match page.render() {
        Ok(html) => HttpResponse::Ok()
            .content_type("text/html; charset=utf-8")
            .body(html),
        Err(_) => HttpResponse::InternalServerError().finish(),
    }
}

/// The request as it arrived, as JSON, for people who write apps. Of headers with `token` in their
/// names only the length is shown.
async fn echo(request: HttpRequest) -> HttpResponse {
    let headers: Vec<[String; 2]> = request
        .headers()
        .iter()
        .map(|(name, value)| {
            let shown = if name.as_str().contains("token") {
                format!("({} characters)", value.len())
            } else {
                String::from_utf8_lossy(value.as_bytes()).into_owned()
            };
            [name.as_str().to_owned(), shown]
        })
        .collect();
    HttpResponse::Ok().json(json!({"method": request.method().as_str(), "path": request.uri().to_string(), "headers": headers}))
}

/// Serves the app on `socket`, without signal handling. The handle stops it.
pub fn serve(sample: Sample, socket: TcpListener) -> Result<ServerHandle, String> {
    let data = web::Data::new(sample);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(data.clone())
            .route("/{name}/", web::get().to(index))
            .route("/{name}/echo", web::to(echo))
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
