//! Providers that are not Microsoft's, as far as this portal speaks with them: each on a port of its
//! own, with the peculiarities that `providers` describes. For the demo and the tests only: all state
//! is in memory, and [`Doubles::misbehave`] makes one of them refuse.
//!
//! Anybody who types a name is signed in under it. The services for machines (AWS, Google, Vault,
//! Databricks' federation) verify this portal's tokens with the keys that it publishes.

use crate::{domain::time::Clock, providers, vault::random};
use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer, dev::ServerHandle, http::StatusCode, web,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::Digest as _;
use std::{
    collections::{HashMap, HashSet},
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

/// The client of every double.
/// In the form that Entra ID gives; the others take any.
pub const CLIENT_ID: &str = "1b2c3d4e-0000-4000-8000-1a2b3c4d5e6f";
/// Its secret.
pub const CLIENT_SECRET: &str = "a-secret-of-the-demo";

/// What refresh tokens do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refresh {
    /// There are none.
    None,
    /// The same one for good.
    Same,
    /// A new one each time; the old one stays valid.
    KeepsOld,
    /// A new one each time; the old one is dead.
    SingleUse,
    /// A new one each time, and all tokens before it are dead.
    EndsAll,
}

/// How errors of the token endpoint look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Errors {
    Standard,
    /// `invalid_request` that speaks of the refresh token.
    Databricks,
    /// Status 200, and words of its own.
    Github,
    Google,
    /// Status 403, and `access_denied` for a wrong secret.
    Atlassian,
    /// Status 200 and `ok: false`.
    Slack,
    /// The code in `status`.
    Hubspot,
}

/// One provider.
#[derive(Debug)]
pub struct Dialect {
    /// The key of the template that leads here, and what tells apart several of one template.
    pub key: &'static str,
    /// The template's setting that holds the address of the double.
    pub host_setting: &'static str,
    authorize: &'static str,
    token: &'static str,
    /// Path and the member that holds the name.
    identity: Option<(&'static str, &'static str, &'static str)>,
    /// The path of the revocation endpoint; empty: there is none.
    pub revoke: &'static str,
    /// Settings besides the client and the address.
    settings: &'static [(&'static str, &'static str)],
    /// Seconds; `None`: not said.
    lifetime: Option<u64>,
    refresh: Refresh,
    errors: Errors,
}

const fn dialect(key: &'static str, host_setting: &'static str) -> Dialect {
    Dialect {
        key,
        host_setting,
        authorize: "/oauth/authorize",
        token: "/oauth/token",
        identity: None,
        revoke: "/oauth/revoke",
        settings: &[],
        lifetime: Some(3600),
        refresh: Refresh::SingleUse,
        errors: Errors::Standard,
    }
}

/// Google, for each of its templates.
const GOOGLE: Dialect = Dialect {
    authorize: "/o/oauth2/v2/auth",
    token: "/token",
    revoke: "/revoke",
    refresh: Refresh::Same,
    errors: Errors::Google,
    ..dialect("bigquery", "google_host")
};

/// Microsoft Entra ID, for each template behind it. The demo's own provider plays it, too.
const MICROSOFT: Dialect = Dialect {
    authorize: "/demo.example/oauth2/v2.0/authorize",
    token: "/demo.example/oauth2/v2.0/token",
    revoke: "",
    settings: &[("tenant_id", "demo.example")],
    refresh: Refresh::KeepsOld,
    ..dialect("msgraph", "authority_host")
};

/// All doubles with a sign-in.
pub const DIALECTS: [Dialect; 19] = [
    Dialect {
        authorize: "/oidc/v1/authorize",
        token: "/oidc/v1/token",
        identity: Some(("/api/2.0/preview/scim/v2/Me", "id", "userName")),
        revoke: "",
        errors: Errors::Databricks,
        ..dialect("databricks", "databricks_host")
    },
    Dialect {
        authorize: "/login/oauth/authorize",
        token: "/login/oauth/access_token",
        identity: Some(("/api/v3/user", "id", "login")),
        revoke: "/api/v3/applications/1b2c3d4e-0000-4000-8000-1a2b3c4d5e6f/grant",
        lifetime: Some(28_800),
        refresh: Refresh::EndsAll,
        errors: Errors::Github,
        ..dialect("github", "github_host")
    },
    Dialect {
        authorize: "/login/oauth/authorize",
        token: "/login/oauth/access_token",
        identity: Some(("/api/v3/user", "id", "login")),
        revoke: "/api/v3/applications/1b2c3d4e-0000-4000-8000-1a2b3c4d5e6f/grant",
        lifetime: None,
        refresh: Refresh::None,
        errors: Errors::Github,
        ..dialect("github oauth-app", "github_host")
    },
    GOOGLE,
    Dialect {
        key: "drive",
        ..GOOGLE
    },
    Dialect {
        key: "sheets",
        ..GOOGLE
    },
    Dialect {
        key: "vertex-ai",
        ..GOOGLE
    },
    MICROSOFT,
    Dialect {
        key: "azure-openai",
        ..MICROSOFT
    },
    Dialect {
        key: "sharepoint",
        settings: &[
            ("tenant_id", "demo.example"),
            (
                "scopes",
                "https://contoso.sharepoint.com/.default offline_access",
            ),
        ],
        ..MICROSOFT
    },
    Dialect {
        authorize: "/site/oauth2/authorize",
        token: "/site/oauth2/access_token",
        identity: Some(("/2.0/user", "account_id", "nickname")),
        revoke: "",
        lifetime: Some(7200),
        ..dialect("bitbucket", "bitbucket_host")
    },
    Dialect {
        authorize: "/oauth/v2/authorization",
        token: "/oauth/v2/accessToken",
        revoke: "",
        refresh: Refresh::Same,
        ..dialect("linkedin", "linkedin_host")
    },
    Dialect {
        authorize: "/services/oauth2/authorize",
        token: "/services/oauth2/token",
        identity: Some(("/services/oauth2/userinfo", "user_id", "preferred_username")),
        revoke: "/services/oauth2/revoke",
        lifetime: None,
        refresh: Refresh::Same,
        ..dialect("salesforce", "sf_host_domain")
    },
    Dialect {
        token: "/oauth/token-request",
        revoke: "",
        lifetime: Some(600),
        refresh: Refresh::Same,
        ..dialect("snowflake", "account_url")
    },
    Dialect {
        token: "/oauth/token-request",
        revoke: "",
        lifetime: Some(600),
        refresh: Refresh::EndsAll,
        ..dialect("snowflake single-use", "account_url")
    },
    Dialect {
        identity: Some(("/api/v4/user", "id", "username")),
        lifetime: Some(7200),
        refresh: Refresh::EndsAll,
        ..dialect("gitlab", "gitlab_host")
    },
    Dialect {
        authorize: "/authorize",
        identity: Some(("/me", "account_id", "email")),
        revoke: "",
        errors: Errors::Atlassian,
        ..dialect("atlassian", "atlassian_host")
    },
    Dialect {
        authorize: "/oauth/v2/authorize",
        token: "/api/oauth.v2.access",
        identity: Some(("/api/auth.test", "user_id", "user")),
        revoke: "",
        lifetime: None,
        refresh: Refresh::None,
        errors: Errors::Slack,
        ..dialect("slack", "slack_host")
    },
    Dialect {
        token: "/oauth/v1/token",
        revoke: "",
        lifetime: Some(1800),
        refresh: Refresh::Same,
        errors: Errors::Hubspot,
        ..dialect("hubspot", "hubspot_host")
    },
];

impl Dialect {
    /// The key of the template.
    pub fn template(&self) -> &'static str {
        self.key.split(' ').next().unwrap_or("")
    }
    /// The name of the demo's integration.
    pub fn title(&self) -> String {
        let title =
            providers::template(self.template()).map_or("", |template| template.short_title);
        match self.key.split_once(' ') {
            Some((_, kind)) => format!("{title} ({kind})"),
            None => title.to_owned(),
        }
    }
    /// The settings of an integration that leads to the double at `address`, without the secret.
    pub fn config(&self, address: &str) -> Value {
        let mut config = json!({"client_id": CLIENT_ID, self.host_setting: address});
        for (name, value) in self.settings {
            config[*name] = json!(value);
        }
        if self.key == "snowflake single-use" {
            config["refresh_tokens"] = json!("single_use");
        }
        config
    }
}

/// How a token request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The refresh token is not accepted.
    RefreshToken,
    /// The organisation asks for a new sign-in (Google's `invalid_rapt`).
    Policy,
    /// The client secret is not accepted.
    Client,
}

/// A token that was issued.
struct Issued {
    dialect: usize,
    name: String,
    scope: String,
    /// Of one sign-in.
    family: String,
    expires: Option<u64>,
    is_refresh: bool,
}

/// An authorization code.
struct Code {
    dialect: usize,
    name: String,
    scope: String,
    challenge: String,
    redirect_uri: String,
}

#[derive(Default)]
struct State {
    codes: HashMap<String, Code>,
    tokens: HashMap<String, Issued>,
    refusals: HashMap<&'static str, Refusal>,
    /// Refreshes by dialect.
    refreshes: HashMap<&'static str, u32>,
    /// Revocations by dialect.
    revocations: HashMap<&'static str, u32>,
    /// Those that cannot revoke for now.
    without_revocation: HashSet<&'static str>,
}

/// All doubles.
pub struct Doubles {
    clock: Arc<dyn Clock>,
    portal: String,
    ports: HashMap<u16, usize>,
    addresses: Vec<String>,
    /// Address of the services for machines.
    pub machines: String,
    /// Reads the portal's public keys.
    http: reqwest::Client,
    state: Mutex<State>,
}

/// Binds a port for each double.
fn bind(ip: std::net::IpAddr) -> Result<TcpListener, String> {
    let any = SocketAddr::new(ip, 0);
    TcpListener::bind(any).map_err(|error| format!("cannot listen on {any}: {error}"))
}

impl Doubles {
    /// Starts all doubles on ports of this address. `portal`: whose tokens machines present.
    pub fn start(
        ip: std::net::IpAddr,
        portal: &str,
        clock: Arc<dyn Clock>,
    ) -> Result<(Arc<Self>, ServerHandle), String> {
        let mut sockets = Vec::new();
        for _ in 0..=DIALECTS.len() {
            sockets.push(bind(ip)?);
        }
        let port = |socket: &TcpListener| socket.local_addr().map(|at| at.port());
        let mut ports = HashMap::new();
        let mut addresses = Vec::new();
        for (position, socket) in sockets.iter().enumerate() {
            let port = port(socket).map_err(|error| error.to_string())?;
            ports.insert(port, position);
            addresses.push(format!("http://{}", SocketAddr::new(ip, port)));
        }
        let machines = addresses.pop().unwrap_or_default();
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(5))
            .build()
            .map_err(|error| error.to_string())?;
        let doubles = Arc::new(Self {
            http,
            clock,
            portal: portal.to_owned(),
            ports,
            addresses,
            machines,
            state: Mutex::default(),
        });
        let data = web::Data::from(Arc::clone(&doubles));
        let mut server = HttpServer::new(move || {
            App::new()
                .app_data(data.clone())
                .default_service(web::to(answer))
        })
        .workers(1)
        .disable_signals();
        for socket in sockets {
            server = server.listen(socket).map_err(|error| error.to_string())?;
        }
        let running = server.run();
        let handle = running.handle();
        tokio::spawn(running);
        Ok((doubles, handle))
    }

    /// The address of a double.
    pub fn address(&self, key: &str) -> &str {
        let position = DIALECTS.iter().position(|dialect| dialect.key == key);
        position.map_or("", |position| &self.addresses[position])
    }

    /// Makes a double refuse token requests, or answer them again.
    pub fn misbehave(&self, key: &'static str, refusal: Option<Refusal>) {
        let refusals = &mut self.state.lock().refusals;
        match refusal {
            Some(refusal) => drop(refusals.insert(key, refusal)),
            None => drop(refusals.remove(key)),
        }
    }

    /// Makes the revocation endpoint of a double fail, or work again.
    pub fn fail_revocations(&self, key: &'static str, fails: bool) {
        let failing = &mut self.state.lock().without_revocation;
        if fails {
            failing.insert(key);
        } else {
            failing.remove(key);
        }
    }

    /// Ends everything at a double, as people can on its own pages.
    pub fn withdraw_all(&self, key: &str) {
        let is_its = |issued: &Issued| DIALECTS[issued.dialect].key == key;
        self.state.lock().tokens.retain(|_, issued| !is_its(issued));
    }

    /// Refreshes and revocations that a double carried out.
    pub fn counts(&self, key: &str) -> (u32, u32) {
        let state = self.state.lock();
        let count = |of: &HashMap<&'static str, u32>| of.get(key).copied().unwrap_or_default();
        (count(&state.refreshes), count(&state.revocations))
    }

    /// Whom an access token of a double belongs to; `None` if it is not valid now.
    pub fn holder(&self, token: &str) -> Option<String> {
        let now = self.now();
        let state = self.state.lock();
        let issued = state.tokens.get(token)?;
        let lives = issued.expires.is_none_or(|end| now < end);
        (lives && !issued.is_refresh).then(|| issued.name.clone())
    }

    fn now(&self) -> u64 {
        u64::try_from(self.clock.now().unix_seconds()).unwrap_or_default()
    }
}

fn values(text: &str) -> HashMap<String, String> {
    url::form_urlencoded::parse(text.as_bytes())
        .into_owned()
        .collect()
}

async fn answer(
    request: HttpRequest,
    body: web::Bytes,
    doubles: web::Data<Doubles>,
) -> HttpResponse {
    let port = request.app_config().local_addr().port();
    let form = values(&String::from_utf8_lossy(&body));
    let query = values(request.query_string());
    let position = doubles.ports.get(&port).copied().unwrap_or_default();
    let Some(dialect) = DIALECTS.get(position) else {
        return machines(&request, &doubles, &form, &body).await;
    };
    let path = request.path();
    let is_post = request.method() == actix_web::http::Method::POST;
    if path == dialect.authorize {
        return if is_post {
            doubles.accept(position, &query, &form)
        } else {
            sign_in_page(dialect, &query)
        };
    }
    if path == dialect.token && is_post {
        return doubles.token(position, &request, &form);
    }
    // GitHub revokes one token beside the place where it revokes the whole grant.
    let of_one_token = path
        .strip_suffix("/token")
        .is_some_and(|start| dialect.revoke.strip_suffix("/grant") == Some(start));
    if path == dialect.revoke || of_one_token {
        return doubles.revoke(position, &request, &form, &body);
    }
    if let Some((at, id, name)) = dialect.identity
        && path == at
    {
        let presented = bearer(&request);
        return match presented.and_then(|token| doubles.holder(&token)) {
            Some(holder) => {
                HttpResponse::Ok().json(json!({id: format!("id-of-{holder}"), name: holder}))
            }
            None => HttpResponse::Unauthorized().finish(),
        };
    }
    HttpResponse::NotFound().finish()
}

fn bearer(request: &HttpRequest) -> Option<String> {
    let header = request.headers().get("authorization")?.to_str().ok()?;
    header.strip_prefix("Bearer ").map(str::to_owned)
}

/// A sign-in page that takes any name, without a password.
fn sign_in_page(dialect: &Dialect, query: &HashMap<String, String>) -> HttpResponse {
    if query.get("client_id").map(String::as_str) != Some(CLIENT_ID) {
        return HttpResponse::BadRequest().body("unknown client");
    }
    let hint = query.get("login_hint").map_or("", String::as_str);
    let escaped = hint.replace(['<', '>', '"', '&'], "");
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .body(format!(
            "<!doctype html><html lang=en><title>Sign in</title><h1>{} (a double of the demo)</h1><form method=post><label>Sign in as <input name=username id=username value=\"{escaped}\"></label><button id=accept name=accept value=yes>Agree</button><button name=accept value=no>Decline</button></form>",
            dialect.key
        ))
}

/// Service accounts that lead to the services for machines: name, template and settings.
pub fn service_accounts(machines: &str) -> Vec<(&'static str, &'static str, Value)> {
    let provider = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/demo/providers/portal";
    vec![
        (
            "AWS role",
            "aws",
            json!({"auth_type": "Service Account", "role_arn": "arn:aws:iam::123456789012:role/content", "sts_address": machines}),
        ),
        (
            "Databricks service principal",
            "databricks",
            json!({"auth_type": "Service Account", "auth_mode": "Federated", "client_id": "principal", "databricks_host": machines}),
        ),
        (
            "Vertex AI service account",
            "vertex-ai",
            json!({"auth_type": "Service Account", "workload_provider": provider, "service_account": "content@demo.iam.gserviceaccount.com", "google_host": machines}),
        ),
        (
            "Vault",
            "vault",
            json!({"vault_address": machines, "vault_role": "content"}),
        ),
        ("This portal", "connect", json!({"max_role": "Viewer"})),
    ]
}

impl Doubles {
    fn accept(
        &self,
        dialect: usize,
        query: &HashMap<String, String>,
        form: &HashMap<String, String>,
    ) -> HttpResponse {
        let text =
            |from: &HashMap<String, String>, key: &str| from.get(key).cloned().unwrap_or_default();
        let Ok(mut back) = url::Url::parse(&text(query, "redirect_uri")) else {
            return HttpResponse::BadRequest().finish();
        };
        if text(form, "accept") == "no" {
            back.query_pairs_mut()
                .append_pair("error", "access_denied")
                .append_pair("state", &text(query, "state"));
        } else {
            let code = random::token();
            // Google gives a refresh token only if it is asked for it.
            let google = DIALECTS[dialect].errors == Errors::Google
                && text(query, "access_type") != "offline";
            let scope = if text(query, "scope").is_empty() {
                text(query, "user_scope").replace(',', " ")
            } else {
                text(query, "scope")
            };
            self.state.lock().codes.insert(
                code.clone(),
                Code {
                    dialect,
                    name: text(form, "username"),
                    scope: if google { "no-refresh".into() } else { scope },
                    challenge: text(query, "code_challenge"),
                    redirect_uri: text(query, "redirect_uri"),
                },
            );
            back.query_pairs_mut()
                .append_pair("code", &code)
                .append_pair("state", &text(query, "state"));
        }
        HttpResponse::Found()
            .insert_header(("location", back.to_string()))
            .finish()
    }

    fn token(
        &self,
        position: usize,
        request: &HttpRequest,
        form: &HashMap<String, String>,
    ) -> HttpResponse {
        let dialect = &DIALECTS[position];
        let text = |key: &str| form.get(key).map(String::as_str).unwrap_or("");
        let style = dialect.errors;
        let now = self.now();
        let mut state = self.state.lock();
        let refusal = state.refusals.get(dialect.key).copied();
        if refusal == Some(Refusal::Client) || !knows_client(request, form) {
            return refuse(style, Refusal::Client);
        }
        let (name, scope, family) = match text("grant_type") {
            "authorization_code" => {
                let Some(code) = state.codes.remove(text("code")) else {
                    return refuse_code(style);
                };
                let proof = sha2::Sha256::digest(text("code_verifier").as_bytes());
                let proof = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(proof);
                if code.dialect != position
                    || code.redirect_uri != text("redirect_uri")
                    || (!code.challenge.is_empty() && code.challenge != proof)
                {
                    return refuse_code(style);
                }
                (code.name, code.scope, random::token())
            }
            "refresh_token" => {
                let presented = text("refresh_token");
                let known = state
                    .tokens
                    .get(presented)
                    .filter(|issued| issued.is_refresh && issued.dialect == position)
                    .map(|issued| {
                        (
                            issued.name.clone(),
                            issued.scope.clone(),
                            issued.family.clone(),
                        )
                    });
                let (None, Some(known)) = (refusal, known) else {
                    return refuse(style, refusal.unwrap_or(Refusal::RefreshToken));
                };
                *state.refreshes.entry(dialect.key).or_default() += 1;
                match dialect.refresh {
                    Refresh::SingleUse => drop(state.tokens.remove(presented)),
                    Refresh::EndsAll => state.tokens.retain(|_, issued| issued.family != known.2),
                    Refresh::None | Refresh::Same | Refresh::KeepsOld => {}
                }
                known
            }
            "client_credentials" => (
                "the service itself".into(),
                text("scope").into(),
                random::token(),
            ),
            _ => {
                return HttpResponse::BadRequest().json(json!({"error": "unsupported_grant_type"}));
            }
        };
        let mut issue = |is_refresh: bool| {
            let token = random::token();
            state.tokens.insert(
                token.clone(),
                Issued {
                    dialect: position,
                    name: name.clone(),
                    scope: scope.clone(),
                    family: family.clone(),
                    expires: dialect
                        .lifetime
                        .filter(|_| !is_refresh)
                        .map(|life| now + life),
                    is_refresh,
                },
            );
            token
        };
        let mut answer = json!({"access_token": issue(false), "token_type": "Bearer"});
        if let Some(life) = dialect.lifetime {
            answer["expires_in"] = json!(life);
        }
        let is_refresh = text("grant_type") == "refresh_token";
        let gives_refresh = match dialect.refresh {
            Refresh::None => false,
            Refresh::Same => !is_refresh && scope != "no-refresh",
            Refresh::KeepsOld | Refresh::SingleUse | Refresh::EndsAll => true,
        };
        if gives_refresh && text("grant_type") != "client_credentials" {
            answer["refresh_token"] = json!(issue(true));
        }
        answer["scope"] = json!(match style {
            Errors::Github => scope.replace(' ', ","),
            _ => scope,
        });
        match dialect.template() {
            "salesforce" => {
                answer["instance_url"] = json!("https://example.my.salesforce.com");
                answer["signature"] = json!("not for anybody");
            }
            "snowflake" => answer["username"] = json!(name.to_uppercase()),
            "slack" => {
                answer["token_type"] = json!("user");
                answer["ok"] = json!(true);
                // A sign-in brings the application's own token, too.
                if !is_refresh {
                    answer = json!({"ok": true, "team": {"id": "T1"}, "authed_user": answer,
                        "access_token": "xoxb-of-the-application", "token_type": "bot", "scope": "chat:write"});
                }
            }
            "github" if dialect.lifetime.is_some() => {
                answer["refresh_token_expires_in"] = json!(15_897_600);
            }
            "linkedin" => answer["refresh_token_expires_in"] = json!(31_536_000),
            _ => {}
        }
        let id = format!("id-of-{name}");
        let claims = match dialect.host_setting {
            "google_host" | "linkedin_host" => Some(json!({"sub": id, "email": name})),
            "authority_host" => Some(json!({"oid": id, "preferred_username": name})),
            _ => None,
        };
        if let Some(claims) = claims {
            let part = |value: &Value| {
                base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string())
            };
            answer["id_token"] = json!(format!("{}.{}.x", part(&json!({})), part(&claims)));
        }
        HttpResponse::Ok().json(answer)
    }

    fn revoke(
        &self,
        position: usize,
        request: &HttpRequest,
        form: &HashMap<String, String>,
        body: &[u8],
    ) -> HttpResponse {
        let dialect = &DIALECTS[position];
        let is_github = dialect.errors == Errors::Github;
        let presented = if is_github {
            serde_json::from_slice::<Value>(body)
                .ok()
                .and_then(|body| Some(body["access_token"].as_str()?.to_owned()))
        } else {
            form.get("token").cloned()
        };
        let now = self.now();
        let mut state = self.state.lock();
        if state.without_revocation.contains(dialect.key) {
            return HttpResponse::ServiceUnavailable().finish();
        }
        if is_github && !knows_client(request, form) {
            return HttpResponse::NotFound().finish();
        }
        let found = presented
            .and_then(|token| state.tokens.get(&token))
            .filter(|issued| !is_github || issued.expires.is_none_or(|end| now < end))
            .map(|issued| (issued.family.clone(), issued.name.clone()));
        let Some((family, name)) = found else {
            return match dialect.template() {
                "github" => HttpResponse::NotFound().finish(),
                "bigquery" | "drive" | "sheets" | "vertex-ai" | "salesforce" => {
                    HttpResponse::BadRequest().json(json!({"error": "invalid_token"}))
                }
                _ => HttpResponse::Ok().finish(),
            };
        };
        // GitHub ends all that a person agreed to, or one token.
        let whole_grant = is_github && request.path().ends_with("/grant");
        state.tokens.retain(|_, issued| {
            issued.family != family
                && !(whole_grant && issued.dialect == position && issued.name == name)
        });
        *state.revocations.entry(dialect.key).or_default() += 1;
        HttpResponse::NoContent().finish()
    }
}

/// Whether the client proves itself, in the body or in a header.
fn knows_client(request: &HttpRequest, form: &HashMap<String, String>) -> bool {
    let text = |key: &str| form.get(key).map(String::as_str).unwrap_or("");
    let header = request.headers().get("authorization");
    let pair = header
        .and_then(|value| value.to_str().ok()?.strip_prefix("Basic "))
        .and_then(|encoded| String::from_utf8(STANDARD.decode(encoded).ok()?).ok());
    pair == Some(format!("{CLIENT_ID}:{CLIENT_SECRET}"))
        || (text("client_id") == CLIENT_ID && text("client_secret") == CLIENT_SECRET)
}

fn refuse_code(style: Errors) -> HttpResponse {
    match style {
        Errors::Github => HttpResponse::Ok().json(json!({"error": "bad_verification_code"})),
        Errors::Slack => HttpResponse::Ok().json(json!({"ok": false, "error": "invalid_code"})),
        Errors::Hubspot => HttpResponse::BadRequest()
            .json(json!({"status": "BAD_AUTH_CODE", "message": "missing or unknown auth code"})),
        _ => HttpResponse::BadRequest().json(json!({"error": "invalid_grant"})),
    }
}

/// A refusal in the provider's own words.
fn refuse(style: Errors, refusal: Refusal) -> HttpResponse {
    let (status, body) = match (style, refusal) {
        (Errors::Github, Refusal::Client) => {
            (200, json!({"error": "incorrect_client_credentials"}))
        }
        (Errors::Github, _) => (
            200,
            json!({"error": "bad_refresh_token", "error_description": "The refresh token passed is incorrect or expired."}),
        ),
        (Errors::Slack, Refusal::Client) => {
            (200, json!({"ok": false, "error": "bad_client_secret"}))
        }
        (Errors::Slack, _) => (200, json!({"ok": false, "error": "invalid_refresh_token"})),
        (Errors::Hubspot, Refusal::Client) => (
            400,
            json!({"status": "BAD_CLIENT_SECRET", "message": "missing or unknown client secret"}),
        ),
        (Errors::Hubspot, _) => (
            400,
            json!({"status": "BAD_REFRESH_TOKEN", "message": "missing or unknown refresh token"}),
        ),
        (Errors::Atlassian, Refusal::Client) => (
            403,
            json!({"error": "access_denied", "error_description": "Unauthorized"}),
        ),
        (Errors::Atlassian, _) => (
            403,
            json!({"error": "invalid_grant", "error_description": "Unknown or invalid refresh token."}),
        ),
        (Errors::Databricks, Refusal::RefreshToken | Refusal::Policy) => (
            400,
            json!({"error": "invalid_request", "error_description": "Refresh token is invalid"}),
        ),
        (Errors::Google, Refusal::Policy) => (
            400,
            json!({"error": "invalid_grant", "error_description": "reauth related error", "error_subtype": "invalid_rapt"}),
        ),
        (Errors::Google, Refusal::RefreshToken) => (
            400,
            json!({"error": "invalid_grant", "error_description": "Token has been expired or revoked."}),
        ),
        (_, Refusal::Client) => (401, json!({"error": "invalid_client"})),
        (Errors::Standard, _) => (
            400,
            json!({"error": "invalid_grant", "error_description": "expired access/refresh token"}),
        ),
    };
    HttpResponse::build(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST)).json(body)
}

/// The claims of a token that the portal signed for this audience, by the keys that it publishes.
async fn verified(doubles: &Doubles, token: &str, audience: &str) -> Option<Value> {
    let address = format!("{}/.well-known/jwks.json", doubles.portal);
    let keys: Value = doubles
        .http
        .get(address)
        .send()
        .await
        .ok()?
        .json()
        .await
        .ok()?;
    let wanted = jsonwebtoken::decode_header(token).ok()?.kid?;
    let keys = keys["keys"].as_array()?;
    let key = keys.iter().find(|key| key["kid"] == json!(wanted))?;
    let key: jsonwebtoken::jwk::Jwk = serde_json::from_value(key.clone()).ok()?;
    let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::RS256);
    rules.set_audience(&[audience]);
    rules.set_issuer(&[&doubles.portal]);
    // The clock of tests stands elsewhere; what counts here is the signature.
    rules.validate_exp = false;
    rules.validate_nbf = false;
    let key = jsonwebtoken::DecodingKey::from_jwk(&key).ok()?;
    Some(
        jsonwebtoken::decode::<Value>(token, &key, &rules)
            .ok()?
            .claims,
    )
}

/// AWS' and Google's token services, Vault, and Databricks' federation.
async fn machines(
    request: &HttpRequest,
    doubles: &Doubles,
    form: &HashMap<String, String>,
    body: &[u8],
) -> HttpResponse {
    let text = |key: &str| form.get(key).map(String::as_str).unwrap_or("");
    match request.path() {
        "/" if text("Action") == "AssumeRoleWithWebIdentity" => {
            let Some(claims) = verified(doubles, text("WebIdentityToken"), "sts.amazonaws.com").await
            else {
                return HttpResponse::BadRequest().content_type("text/xml").body("<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type><Code>InvalidIdentityToken</Code><Message>no</Message></Error></ErrorResponse>");
            };
            if text("RoleArn").ends_with("/forbidden") {
                return HttpResponse::Forbidden().content_type("text/xml").body("<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>");
            }
            HttpResponse::Ok().content_type("text/xml").body(format!(
                "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleWithWebIdentityResult><SubjectFromWebIdentityToken>{}</SubjectFromWebIdentityToken><Credentials><AccessKeyId>ASIADEMO</AccessKeyId><SecretAccessKey>of/the+demo=</SecretAccessKey><SessionToken>{}</SessionToken><Expiration>2099-01-02T03:04:05Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>",
                claims["sub"].as_str().unwrap_or(""),
                text("RoleSessionName"),
            ))
        }
        // What the Databricks SDK asks first (its `config.py`).
        "/.well-known/databricks-config" => HttpResponse::Ok()
            .json(json!({"oidc_endpoint": format!("{}/oidc", doubles.machines), "workspace_id": "1"})),
        "/oidc/.well-known/oauth-authorization-server" => {
            let base = format!("{}/oidc/v1", doubles.machines);
            HttpResponse::Ok().json(json!({"authorization_endpoint": format!("{base}/authorize"), "token_endpoint": format!("{base}/token")}))
        }
        "/oidc/v1/token" => {
            let audience = format!("{}/oidc/v1/token", doubles.machines);
            match verified(doubles, text("subject_token"), &audience).await {
                Some(claims) => HttpResponse::Ok().json(json!({"access_token": format!("databricks-for-{}-{}", text("client_id"), claims["sub"].as_str().unwrap_or("")), "token_type": "Bearer", "expires_in": 3600})),
                None => HttpResponse::BadRequest().json(json!({"error": "invalid_grant"})),
            }
        }
        "/v1/token" => {
            let audience = format!("https:{}", text("audience"));
            match verified(doubles, text("subject_token"), &audience).await {
                Some(_) => HttpResponse::Ok().json(json!({"access_token": "federated", "token_type": "Bearer", "expires_in": 3600})),
                None => HttpResponse::BadRequest().json(json!({"error": "invalid_grant"})),
            }
        }
        path if path.ends_with(":generateAccessToken") => match bearer(request).as_deref() {
            Some("federated") => HttpResponse::Ok().json(json!({"accessToken": "google-service-account", "expireTime": "2099-01-02T03:04:05Z"})),
            _ => HttpResponse::Forbidden().json(json!({"error": {"code": 403}})),
        },
        "/v1/auth/jwt/login" => {
            let login: Value = serde_json::from_slice(body).unwrap_or_default();
            match verified(doubles, login["jwt"].as_str().unwrap_or(""), "vault").await {
                Some(_) if login["role"] == "content" => HttpResponse::Ok().json(json!({"auth": {"client_token": "vault-token", "lease_duration": 900}})),
                _ => HttpResponse::BadRequest().json(json!({"errors": ["no"]})),
            }
        }
        _ => HttpResponse::NotFound().finish(),
    }
}
