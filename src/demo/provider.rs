//! An identity provider in the shape of Microsoft Entra ID (v2 endpoints): authorization code with
//! PKCE, sign-in and consent pages, JWT access tokens, rotating refresh tokens, and Entra's error
//! bodies with AADSTS codes.
//!
//! For the demo and the tests only: all state is in memory, and [`Faults`] makes the provider
//! misbehave.

use super::openid::{self, IdTokenFault, IdTokenSubject};
use crate::{
    domain::time::Clock,
    providers::azure::DATABRICKS_RESOURCE,
    vault::{api_key::digest, random},
};
use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer,
    cookie::{Cookie, SameSite},
    dev::ServerHandle,
    http::header,
    web,
};
use askama::Template;
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use parking_lot::{Mutex, MutexGuard};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{collections::HashMap, net::TcpListener, sync::Arc, time::Duration};
use url::Url;

/// How the provider behaves; tests change it while it runs.
#[derive(Clone, Debug)]
pub struct Faults {
    /// Lifetime of an access token, in seconds.
    pub token_seconds: u64,
    /// Answers every token request with this status and an HTML page.
    pub status: Option<u16>,
    /// Answers every token request with this OAuth error and AADSTS code; 0 for a provider that has
    /// no such codes.
    pub error: Option<(String, u64)>,
    /// Delay before each answer to a token request.
    pub delay: Duration,
    /// Issues no refresh tokens.
    pub no_refresh_token: bool,
    /// A refresh token works once; a replay revokes its whole family.
    pub single_use: bool,
    /// Answers every token request with status 200 and this body.
    pub body: Option<String>,
    /// A refresh returns tokens of this account, whoever the refresh token belongs to.
    pub refresh_as: Option<String>,
    /// What is wrong with ID tokens.
    pub id_token: IdTokenFault,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            token_seconds: 3599,
            status: None,
            error: None,
            delay: Duration::ZERO,
            no_refresh_token: false,
            single_use: false,
            body: None,
            refresh_as: None,
            id_token: IdTokenFault::Nothing,
        }
    }
}

/// How many token requests the provider has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Authorization codes redeemed.
    pub redeemed: u32,
    /// Refresh requests, failed ones included.
    pub refreshed: u32,
    /// Refresh tokens used a second time while `Faults::single_use` was set.
    pub replays: u32,
}

/// An account in the directory.
struct DirectoryAccount {
    upn: String,
    name: String,
    password: String,
    oid: String,
    roles: Vec<String>,
    groups: Vec<String>,
}

/// An authorization request on its way through the pages, or bound to a code.
#[derive(Clone)]
struct AuthorizationRequest {
    redirect_uri: String,
    state: String,
    scope: String,
    nonce: String,
    challenge: Option<String>,
    /// `login_hint`: the account to sign in with.
    hint: String,
    person: Option<String>,
    /// In Unix seconds.
    expires: u64,
}

/// What a refresh token grants.
struct Grant {
    upn: String,
    scope: String,
    /// Shared by all refresh tokens that descend from one authorization code.
    family: String,
    used: bool,
}

/// Everything the provider remembers.
#[derive(Default)]
struct State {
    people: Vec<DirectoryAccount>,
    /// Session cookie to user principal name.
    sessions: HashMap<String, String>,
    consented: Vec<String>,
    /// Authorization requests in progress, by the id in the pages' forms.
    asked: HashMap<String, AuthorizationRequest>,
    /// Unredeemed authorization codes.
    codes: HashMap<String, AuthorizationRequest>,
    /// Refresh tokens, by digest.
    refresh: HashMap<String, Grant>,
    dead_families: Vec<String>,
    faults: Faults,
    counts: Counts,
}

/// The provider; see the module.
pub struct Provider {
    /// The provider's base URL.
    pub(super) base_url: String,
    /// The portal's origin: redirect URIs must be there.
    portal: String,
    client_secret: String,
    keys: Mutex<Keys>,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

/// The signing key, and every public key published so far, by key id; the last one is current.
struct Keys {
    signing: EncodingKey,
    published: Vec<(String, Vec<u8>)>,
}

impl Keys {
    /// A new P-256 key: the private key, and the key id with the public point.
    fn pair() -> Result<(EncodingKey, (String, Vec<u8>)), String> {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
            .map_err(|_| "no key")?;
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random)
                .map_err(|_| "no key")?;
        Ok((
            EncodingKey::from_ec_der(pkcs8.as_ref()),
            (random::label(), pair.public_key().as_ref().to_vec()),
        ))
    }
}

/// Claims of an access token.
#[derive(Serialize, Deserialize)]
struct Claims {
    aud: String,
    iss: String,
    tid: String,
    oid: String,
    upn: String,
    unique_name: String,
    name: String,
    scp: String,
    iat: u64,
    exp: u64,
    /// Unique per token, so that two tokens of the same second differ.
    uti: String,
}

#[derive(Template)]
#[template(path = "pages/demo_provider.html")]
struct Page {
    title: String,
    lines: Vec<String>,
    wrong: Option<String>,
    request: String,
    sign_in: Option<String>,
    consent: bool,
}

impl Provider {
    /// A provider at base URL `base_url`, with one registered client whose redirect URIs are at
    /// `portal`.
    pub fn new(
        base_url: &str,
        portal: &str,
        client_secret: &str,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, String> {
        let (signing, public) = Keys::pair()?;
        Ok(Self {
            base_url: base_url.to_owned(),
            portal: portal.to_owned(),
            client_secret: client_secret.to_owned(),
            keys: Mutex::new(Keys {
                signing,
                published: vec![public],
            }),
            clock,
            state: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Adds an account with a random object id.
    pub fn add_person(&self, upn: &str, name: &str, password: &str) {
        let oid = uuid::Uuid::new_v4().to_string();
        self.lock().people.push(DirectoryAccount {
            upn: upn.into(),
            name: name.into(),
            password: password.into(),
            oid,
            roles: Vec::new(),
            groups: Vec::new(),
        });
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock()
    }

    /// Signs with a new key from now on. Old public keys stay published.
    pub fn rotate_key(&self) -> Result<(), String> {
        let (signing, public) = Keys::pair()?;
        let mut keys = self.keys();
        keys.signing = signing;
        keys.published.push(public);
        Ok(())
    }

    /// Sets the app roles and groups in a person's ID tokens.
    pub fn set_claims(&self, upn: &str, roles: &[&str], groups: &[&str]) {
        let mut state = self.lock();
        if let Some(person) = state.people.iter_mut().find(|person| person.upn == upn) {
            person.roles = roles.iter().map(|role| (*role).to_owned()).collect();
            person.groups = groups.iter().map(|group| (*group).to_owned()).collect();
        }
    }

    /// The client secret. The demo's introduction shows it: it protects nothing but the demo.
    pub fn client_secret(&self) -> &str {
        &self.client_secret
    }

    /// Changes how the provider behaves from now on.
    pub fn set_faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.lock().faults);
    }

    /// The token requests so far.
    pub fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// Revokes every refresh token, as an administrator of the directory could.
    pub fn revoke_refresh_tokens(&self) {
        self.lock().refresh.clear();
    }

    /// Now, in Unix seconds.
    fn seconds(&self) -> u64 {
        u64::try_from(self.clock.now().unix_seconds()).unwrap_or(0)
    }

    /// User principal name and name of the person to whom a Databricks access token of this
    /// provider belongs; `None` if it is invalid or expired.
    pub fn person_of(&self, token: &str) -> Option<(String, String)> {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_audience(&[DATABRICKS_RESOURCE]);
        validation.validate_exp = false;
        let keys = self.keys().published.clone();
        let decode = |(_, point): &(String, Vec<u8>)| {
            jsonwebtoken::decode::<Claims>(token, &DecodingKey::from_ec_der(point), &validation)
                .ok()
        };
        let claims = keys.iter().find_map(decode)?.claims;
        (claims.exp > self.seconds()).then_some((claims.upn, claims.name))
    }

    /// The response to a successful token request. `family` is that of the grant; `nonce` goes into
    /// the ID token.
    fn tokens(&self, upn: &str, scope: &str, family: &str, nonce: &str) -> HttpResponse {
        let mut state = self.lock();
        let Some(person) = state.people.iter().find(|person| person.upn == upn) else {
            return entra_error("invalid_grant", 50034, "no such user");
        };
        let now = self.seconds();
        let lifetime = state.faults.token_seconds;
        let claims = Claims {
            aud: DATABRICKS_RESOURCE.into(),
            iss: format!("https://sts.windows.net/{}/", super::TENANT),
            tid: super::TENANT.into(),
            oid: person.oid.clone(),
            upn: upn.into(),
            unique_name: upn.into(),
            name: person.name.clone(),
            scp: "user_impersonation".into(),
            iat: now,
            exp: now + lifetime,
            uti: random::token(),
        };
        let Ok(access_token) = jsonwebtoken::encode(
            &Header::new(Algorithm::ES256),
            &claims,
            &self.keys().signing,
        ) else {
            return entra_error("server_error", 90033, "no key");
        };
        let mut body = json!({
            "token_type": "Bearer", "scope": format!("{DATABRICKS_RESOURCE}/user_impersonation {DATABRICKS_RESOURCE}/.default"),
            "expires_in": lifetime, "ext_expires_in": lifetime, "access_token": access_token,
        });
        if scope.split(' ').any(|word| word == "offline_access") && !state.faults.no_refresh_token {
            let token = format!("demo-refresh.{}", random::token());
            state.refresh.insert(
                digest(&token),
                Grant {
                    upn: upn.into(),
                    scope: scope.into(),
                    family: family.into(),
                    used: false,
                },
            );
            body["refresh_token"] = token.into();
        }
        if scope.split(' ').any(|word| word == "openid") {
            let keys = self.keys();
            let key_id = keys
                .published
                .last()
                .map(|(id, _)| id.clone())
                .unwrap_or_default();
            let Some(person) = state.people.iter().find(|person| person.upn == upn) else {
                return entra_error("invalid_grant", 50034, "no such user");
            };
            let about = IdTokenSubject {
                upn,
                name: &person.name,
                oid: &person.oid,
                roles: &person.roles,
                groups: &person.groups,
                nonce,
            };
            let now = i64::try_from(now).unwrap_or(0);
            let token = openid::id_token(
                &self.base_url,
                now,
                &about,
                state.faults.id_token,
                &keys.signing,
                &key_id,
                &self.client_secret,
            );
            body["id_token"] = json!(token);
            if token.is_none() {
                body.as_object_mut().map(|body| body.remove("id_token"));
            }
        }
        HttpResponse::Ok()
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .json(body)
    }
}

/// An error body in Entra's shape.
fn entra_error(error: &str, code: u64, text: &str) -> HttpResponse {
    if code == 0 {
        return HttpResponse::BadRequest().json(json!({ "error": error }));
    }
    let status = if error == "invalid_client" { 401 } else { 400 };
    HttpResponse::build(actix_web::http::StatusCode::from_u16(status).unwrap_or_default()).json(json!({
        "error": error, "error_description": format!("AADSTS{code}: {text} Trace ID: 00000000-0000-0000-0000-000000000000"),
        "error_codes": [code], "timestamp": "2026-01-01 00:00:00Z", "trace_id": "00000000-0000-0000-0000-000000000000",
        "correlation_id": "00000000-0000-0000-0000-000000000000", "error_uri": format!("https://login.microsoftonline.com/error?code={code}"),
    }))
}

fn draw(page: &Page) -> HttpResponse {
    match page.render() {
        Ok(html) => HttpResponse::Ok()
            .content_type("text/html; charset=utf-8")
            .body(html),
        Err(_) => HttpResponse::InternalServerError().finish(),
    }
}

/// An error page of the provider, for errors that must not be redirected to the client.
fn error_page(code: u64, text: &str) -> HttpResponse {
    let page = Page {
        title: "Sorry, we could not sign you in".into(),
        lines: vec![format!("AADSTS{code}: {text}")],
        wrong: None,
        request: String::new(),
        sign_in: None,
        consent: false,
    };
    draw(&page)
}

/// Redirects to the client with these parameters and the `state`.
fn redirect_to_client(asked: &AuthorizationRequest, pairs: &[(&str, &str)]) -> HttpResponse {
    let Ok(mut url) = Url::parse(&asked.redirect_uri) else {
        return error_page(50011, "The redirect URI is not an address.");
    };
    url.query_pairs_mut()
        .extend_pairs(pairs)
        .append_pair("state", &asked.state);
    HttpResponse::Found()
        .insert_header((header::LOCATION, url.as_str()))
        .finish()
}

/// `GET /{tenant}/oauth2/v2.0/authorize`.
async fn authorize(
    request: HttpRequest,
    tenant: web::Path<String>,
    provider: web::Data<Provider>,
) -> HttpResponse {
    let query: HashMap<String, String> =
        url::form_urlencoded::parse(request.query_string().as_bytes())
            .into_owned()
            .collect();
    let text = |key: &str| query.get(key).map(String::as_str).unwrap_or("");
    if *tenant != super::TENANT {
        return error_page(90002, "Tenant not found.");
    }
    if text("client_id") != super::CLIENT_ID {
        return error_page(700_016, "The application was not found in the directory.");
    }
    let registered = Url::parse(text("redirect_uri")).is_ok_and(|url| {
        let path = url.path();
        url.origin().ascii_serialization() == provider.portal
            && (path.starts_with("/__oauth__/integrations/")
                || path == "/login/organisation/callback")
            && path.ends_with("callback")
    });
    if !registered {
        return error_page(
            50011,
            "The redirect URI in the request does not match the ones registered.",
        );
    }
    let challenge = query.get("code_challenge").cloned();
    let asked = AuthorizationRequest {
        redirect_uri: text("redirect_uri").into(),
        state: text("state").into(),
        scope: text("scope").into(),
        nonce: text("nonce").into(),
        hint: text("login_hint").into(),
        person: None,
        expires: provider.seconds() + 600,
        challenge,
    };
    if text("response_type") != "code"
        || (asked.challenge.is_some() && text("code_challenge_method") != "S256")
    {
        return redirect_to_client(
            &asked,
            &[
                ("error", "invalid_request"),
                (
                    "error_description",
                    "AADSTS900144: The request is malformed.",
                ),
            ],
        );
    }
    if !asked
        .scope
        .split(' ')
        .any(|scope| scope.starts_with(DATABRICKS_RESOURCE) || scope == "openid")
    {
        return redirect_to_client(
            &asked,
            &[
                ("error", "invalid_scope"),
                ("error_description", "AADSTS70011: The scope is not valid."),
            ],
        );
    }
    let signed_in = request
        .cookie("ESTSDEMO")
        .and_then(|cookie| provider.lock().sessions.get(cookie.value()).cloned());
    let known = signed_in.filter(|upn| {
        !matches!(text("prompt"), "select_account" | "login")
            && (asked.hint.is_empty() || asked.hint.eq_ignore_ascii_case(upn))
    });
    let id = random::token();
    let hint = if text("prompt") == "select_account" {
        String::new()
    } else {
        asked.hint.clone()
    };
    provider.lock().asked.insert(
        id.clone(),
        AuthorizationRequest {
            person: known.clone(),
            ..asked
        },
    );
    match known {
        Some(_) => after_sign_in(&provider, &id),
        None => draw(&Page {
            title: "Sign in".into(),
            lines: Vec::new(),
            wrong: None,
            request: id,
            sign_in: Some(hint),
            consent: false,
        }),
    }
}

#[derive(Deserialize)]
struct SignIn {
    request: String,
    username: String,
    password: String,
}

/// `POST /{tenant}/oauth2/v2.0/signin`: checks the password.
async fn sign_in(provider: web::Data<Provider>, form: web::Form<SignIn>) -> HttpResponse {
    let name = form.username.trim();
    let found = {
        let mut state = provider.lock();
        let upn = state
            .people
            .iter()
            .find(|person| {
                (person.upn.eq_ignore_ascii_case(name)
                    || person.upn.split('@').next() == Some(name))
                    && person.password == form.password
            })
            .map(|person| person.upn.clone());
        let Some(asked) = state.asked.get_mut(&form.request) else {
            return error_page(54005, "This request was used before.");
        };
        if let Some(upn) = &upn {
            asked.person = Some(upn.clone());
        }
        upn
    };
    match found {
        Some(upn) => {
            let id = random::token();
            provider.lock().sessions.insert(id.clone(), upn);
            let mut response = after_sign_in(&provider, &form.request);
            let cookie = Cookie::build("ESTSDEMO", id)
                .path("/")
                .http_only(true)
                .same_site(SameSite::Lax)
                .finish();
            drop(response.add_cookie(&cookie));
            response
        }
        None => draw(&Page {
            title: "Sign in".into(),
            lines: Vec::new(),
            wrong: Some("Your account or password is incorrect (AADSTS50126).".into()),
            request: form.request.clone(),
            sign_in: Some(form.username.clone()),
            consent: false,
        }),
    }
}

/// Asks for consent, unless the person has given it or the request is for sign-in only.
fn after_sign_in(provider: &Provider, id: &str) -> HttpResponse {
    let asked = provider.lock().asked.get(id).cloned();
    let Some(AuthorizationRequest {
        person: Some(upn), ..
    }) = asked
    else {
        return error_page(54005, "This request was used before.");
    };
    let signs_in_only = provider
        .lock()
        .asked
        .get(id)
        .is_some_and(|asked| !asked.scope.contains(DATABRICKS_RESOURCE));
    // Like Entra, the provider asks each person for consent only once.
    if signs_in_only || provider.lock().consented.contains(&upn) {
        return grant(provider, id);
    }
    draw(&Page {
        title: "Permissions requested".into(),
        lines: vec![format!(
            "{upn}: Valetkey demo would like to access Azure Databricks as you, and keep that access."
        )],
        wrong: None,
        request: id.to_owned(),
        sign_in: None,
        consent: true,
    })
}

/// Issues an authorization code.
fn grant(provider: &Provider, id: &str) -> HttpResponse {
    let mut state = provider.lock();
    let Some(asked) = state.asked.remove(id) else {
        return error_page(54005, "This request was used before.");
    };
    let code = random::token();
    state.codes.insert(code.clone(), asked.clone());
    redirect_to_client(&asked, &[("code", &code)])
}

#[derive(Deserialize)]
struct Consent {
    request: String,
    choice: String,
}

/// `POST /{tenant}/oauth2/v2.0/consent`: the person accepts or declines.
async fn consent(provider: web::Data<Provider>, form: web::Form<Consent>) -> HttpResponse {
    if form.choice != "accept" {
        let Some(asked) = provider.lock().asked.remove(&form.request) else {
            return error_page(54005, "This request was used before.");
        };
        return redirect_to_client(
            &asked,
            &[
                ("error", "access_denied"),
                ("error_subcode", "cancel"),
                (
                    "error_description",
                    "AADSTS65004: User declined to consent to access the app.",
                ),
            ],
        );
    }
    {
        let mut state = provider.lock();
        let person = state
            .asked
            .get(&form.request)
            .and_then(|asked| asked.person.clone());
        let Some(person) = person else {
            return error_page(54005, "This request was used before.");
        };
        state.consented.push(person);
    }
    grant(&provider, &form.request)
}

/// Client id and secret of an `Authorization: Basic` header (RFC 6749 section 2.3.1).
fn basic_pair(header: &str) -> Option<(String, String)> {
    let text = String::from_utf8(STANDARD.decode(header.strip_prefix("Basic ")?).ok()?).ok()?;
    let decode = |part: &str| {
        url::form_urlencoded::parse(part.as_bytes())
            .next()
            .map(|(text, _)| text.into_owned())
    };
    let (id, secret) = text.split_once(':')?;
    Some((decode(id)?, decode(secret)?))
}

/// `POST /{tenant}/oauth2/v2.0/token`. Faults come first, then the client's credentials, then the
/// grant.
async fn token(
    request: HttpRequest,
    tenant: web::Path<String>,
    provider: web::Data<Provider>,
    body: web::Bytes,
) -> HttpResponse {
    let form: HashMap<String, String> = url::form_urlencoded::parse(&body).into_owned().collect();
    let text = |key: &str| form.get(key).map(String::as_str).unwrap_or("");
    let faults = {
        let mut state = provider.lock();
        if text("grant_type") == "refresh_token" {
            state.counts.refreshed += 1;
        }
        state.faults.clone()
    };
    if !faults.delay.is_zero() {
        tokio::time::sleep(faults.delay).await;
    }
    if let Some(status) = faults.status {
        return HttpResponse::build(
            actix_web::http::StatusCode::from_u16(status).unwrap_or_default(),
        )
        .content_type("text/html")
        .body("<h1>Service unavailable</h1>");
    }
    if let Some((error, code)) = &faults.error {
        return entra_error(error, *code, "as the test wants it.");
    }
    if let Some(body) = faults.body {
        return HttpResponse::Ok()
            .content_type("application/json")
            .body(body);
    }
    if *tenant != super::TENANT {
        return entra_error("invalid_request", 90002, "Tenant not found.");
    }
    let basic = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| basic_pair(value.to_str().ok()?));
    let (client, secret) = basic.unwrap_or_else(|| {
        (
            text("client_id").to_owned(),
            text("client_secret").to_owned(),
        )
    });
    if client != super::CLIENT_ID {
        return entra_error("unauthorized_client", 700_016, "Application not found.");
    }
    if secret != provider.client_secret {
        return entra_error(
            "invalid_client",
            7_000_215,
            "Invalid client secret provided.",
        );
    }
    match text("grant_type") {
        "authorization_code" => {
            let asked = provider.lock().codes.remove(text("code"));
            let Some(asked) = asked else {
                return entra_error("invalid_grant", 54005, "The code was already redeemed.");
            };
            let proof = URL_SAFE_NO_PAD.encode(ring::digest::digest(
                &ring::digest::SHA256,
                text("code_verifier").as_bytes(),
            ));
            if asked.expires < provider.seconds() || asked.redirect_uri != text("redirect_uri") {
                return entra_error(
                    "invalid_grant",
                    70008,
                    "The code has expired or belongs to another redirect URI.",
                );
            }
            if asked
                .challenge
                .as_deref()
                .is_some_and(|challenge| challenge != proof)
            {
                return entra_error(
                    "invalid_grant",
                    501_481,
                    "The code verifier does not match.",
                );
            }
            provider.lock().counts.redeemed += 1;
            provider.tokens(
                asked.person.as_deref().unwrap_or(""),
                &asked.scope,
                &random::token(),
                &asked.nonce,
            )
        }
        "refresh_token" => {
            let (upn, scope, family) = {
                let mut guard = provider.lock();
                let state = &mut *guard;
                let Some(grant) = state.refresh.get_mut(&digest(text("refresh_token"))) else {
                    return entra_error(
                        "invalid_grant",
                        700_082,
                        "The refresh token has expired due to inactivity.",
                    );
                };
                if state.dead_families.contains(&grant.family) {
                    return entra_error("invalid_grant", 50173, "The grant was revoked.");
                }
                if grant.used && state.faults.single_use {
                    state.counts.replays += 1;
                    state.dead_families.push(grant.family.clone());
                    return entra_error(
                        "invalid_grant",
                        50173,
                        "The refresh token was used before.",
                    );
                }
                grant.used = true;
                // As at Entra, a refresh token is not bound to a resource: the request may name
                // another one.
                let scope = if text("scope").is_empty() {
                    grant.scope.clone()
                } else {
                    text("scope").to_owned()
                };
                (grant.upn.clone(), scope, grant.family.clone())
            };
            provider.tokens(
                faults.refresh_as.as_deref().unwrap_or(&upn),
                &scope,
                &family,
                "",
            )
        }
        _ => entra_error(
            "unsupported_grant_type",
            70003,
            "The grant type is not supported.",
        ),
    }
}

async fn discovery(provider: web::Data<Provider>) -> HttpResponse {
    openid::discovery(&provider.base_url)
}

async fn keys(provider: web::Data<Provider>) -> HttpResponse {
    openid::keys(&provider.keys().published)
}

/// Serves the provider on `socket`, without signal handling. The handle stops it.
pub fn serve(provider: Arc<Provider>, socket: TcpListener) -> Result<ServerHandle, String> {
    let data = web::Data::from(provider);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(data.clone())
            .route(
                "/{tenant}/v2.0/.well-known/openid-configuration",
                web::get().to(discovery),
            )
            .route("/{tenant}/discovery/v2.0/keys", web::get().to(keys))
            .route("/{tenant}/oauth2/v2.0/authorize", web::get().to(authorize))
            .route("/{tenant}/oauth2/v2.0/signin", web::post().to(sign_in))
            .route("/{tenant}/oauth2/v2.0/consent", web::post().to(consent))
            .route("/{tenant}/oauth2/v2.0/token", web::post().to(token))
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
