//! The demo: an identity provider shaped like Microsoft Entra ID, a workspace shaped like
//! Databricks, and a sample app, beside the real portal in one process. Used by `valetkey demo`,
//! `valetkey dev` and the tests. Passwords and secrets here protect nothing but the demo.

mod deployed;
pub mod doubles;
pub mod openid;
pub mod provider;
pub mod sample;
pub mod workspace;

use self::doubles::{DIALECTS, Doubles};
use crate::{
    config::{
        LogFormat, Retention, Settings, SignIn,
        run::{Confinement, Run},
    },
    domain::{
        Id,
        audit::Origin,
        change::Change,
        content::{AccessType, Process},
        integration::{Config, Integration},
        origins::Origins,
        person::{Person, Role},
        time::Clock,
    },
    providers::azure,
    server::{Server, clock::SystemClock, installation},
    service::{
        Actor, Services,
        catalog::{
            content::{ContentInput, ProxyingInput},
            integrations::IntegrationInput,
        },
        people::accounts::PersonInput,
    },
    store::DatabaseUrl,
    trust::Trust,
    vault::{keyring::Source, random},
};
use actix_web::dev::ServerHandle;
use provider::Provider;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use std::{
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

/// The password of every account in the demo.
pub const PASSWORD: &str = "valetkey-demo";
/// Tenant id (directory) of the demo's identity provider.
pub const TENANT: &str = "5b1c2d3e-4f50-4617-8293-a4b5c6d7e8f9";
/// Client id of the application that is registered there.
pub const CLIENT_ID: &str = "3f0c2a51-7e0b-4c7e-9b1e-0a5f7f3d2c11";

/// User name, first name, last name and role of each account.
const PEOPLE: [(&str, &str, &str, Role); 4] = [
    ("ada", "Ada", "Berg", Role::Administrator),
    ("bo", "Bo", "Lind", Role::Publisher),
    ("vera", "Vera", "Holm", Role::Viewer),
    ("viktor", "Viktor", "Sand", Role::Viewer),
];

/// How to start the demo.
#[derive(Debug)]
pub struct Options {
    pub listen: SocketAddr,
    /// Folder for the portal's data.
    pub data_dir: PathBuf,
    /// The setting `content_url`, with `{port}` as the placeholder for the portal's port.
    pub content_url: Option<String>,
    /// Use this database instead of SQLite in the data directory.
    pub database: Option<DatabaseUrl>,
    /// The setting `upstream_sockets`.
    pub upstream_sockets: Vec<PathBuf>,
    /// The setting `trusted_proxies`.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// The settings of the section "Retention".
    pub retention: Retention,
    /// The setting `metrics_listen`.
    pub metrics_listen: Option<SocketAddr>,
    /// If set, people can also sign in at an OpenID provider.
    pub organisation: Option<Organisation>,
    /// An app of the caller's, instead of the sample.
    pub dev: Option<Dev>,
    /// Whether deployed content runs, and how.
    pub run: Run,
    /// Also other providers than Microsoft's, with an integration of each kind.
    pub doubles: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), 8080),
            data_dir: PathBuf::from("valetkey-demo"),
            content_url: None,
            database: None,
            upstream_sockets: Vec::new(),
            trusted_proxies: Vec::new(),
            retention: Retention::default(),
            metrics_listen: None,
            organisation: None,
            dev: None,
            run: Run {
                confinement: Confinement::Off,
                ..Run::default()
            },
            doubles: false,
        }
    }
}

/// The app of a developer who runs `valetkey dev`.
#[derive(Clone, Debug)]
pub struct Dev {
    /// Address of the app.
    pub upstream: String,
    /// Whether the app gets the whole path, with `/content/{guid}/`.
    pub keep_prefix: bool,
}

/// The organisation's sign-in, by default at the demo's identity provider.
#[derive(Clone, Debug, Default)]
pub struct Organisation {
    /// Another issuer, with the client id to use there.
    pub issuer: Option<(String, String)>,
    /// Value of the role claim, and the role it grants.
    pub roles: Vec<(String, Role)>,
    /// Value of the group claim, and the name of the group.
    pub groups: Vec<(String, String)>,
    /// The role of people without a matching role value; `None` refuses them.
    pub default_role: Option<Role>,
    /// Disables sign-in with passwords at the portal.
    pub no_passwords: bool,
}

struct Account {
    username: &'static str,
    role: Role,
    api_key: SecretString,
}

/// The demo: filled, listening, not serving yet.
pub struct Demo {
    pub service: Arc<Services>,
    app: Server,
    pub provider: Arc<Provider>,
    pub provider_url: String,
    pub workspace_url: String,
    /// Providers other than Microsoft's.
    pub doubles: Option<Arc<Doubles>>,
    /// Servers of the provider, the workspace and the sample app.
    others: Vec<ServerHandle>,
    accounts: Vec<Account>,
    /// Id, title and address of each content item; no address while content has no origin.
    contents: Vec<(String, String, Option<String>)>,
    /// Id and name of the integration.
    integration: (String, String),
    /// The environment of the caller's app, content key included.
    environment: Option<Vec<(String, String)>>,
    /// Who adds integrations.
    administrator: Actor,
    /// Who publishes, and the integration, for [`Demo::deploy_sample`].
    publisher: Actor,
    integration_id: Id<Integration>,
}

fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).map_err(|error| format!("cannot listen on {address}: {error}"))
}

fn url_of(listener: &TcpListener) -> Result<String, String> {
    Ok(format!(
        "http://{}",
        listener.local_addr().map_err(|error| error.to_string())?
    ))
}

/// Starts the provider, the workspace and the sample app, opens the portal and fills it. Fails if
/// the data folder was filled before. The portal serves only after [`Demo::serve`].
pub async fn start(options: Options) -> Result<Demo, String> {
    start_with(options, Arc::new(SystemClock)).await
}

/// Like [`start`], with the caller's clock for portal and provider.
pub async fn start_with(options: Options, clock: Arc<dyn Clock>) -> Result<Demo, String> {
    let portal = bind(options.listen)?;
    let listen = portal.local_addr().map_err(|error| error.to_string())?;
    let any = SocketAddr::new(listen.ip(), 0);
    let (provider_socket, workspace_socket, sample_socket) = (bind(any)?, bind(any)?, bind(any)?);
    let (provider_url, workspace_url, sample_url) = (
        url_of(&provider_socket)?,
        url_of(&workspace_socket)?,
        url_of(&sample_socket)?,
    );
    let portal_url = format!("http://{listen}");
    let client_secret = format!("demo~{}", random::token());
    let provider = Arc::new(Provider::new(
        &provider_url,
        &portal_url,
        &client_secret,
        Arc::clone(&clock),
    )?);
    for (username, first, last, _) in PEOPLE {
        provider.add_person(
            &format!("{username}@example.org"),
            &format!("{first} {last}"),
            PASSWORD,
        );
    }
    let (doubles, doubles_server) = if options.doubles {
        let (doubles, server) = Doubles::start(listen.ip(), &portal_url, Arc::clone(&clock))?;
        (Some(doubles), Some(server))
    } else {
        (None, None)
    };
    let host = |url: &str| url.trim_start_matches("http://").to_owned();
    let mut reached_by_apps = vec![host(&workspace_url)];
    reached_by_apps.extend(doubles.as_ref().map(|doubles| host(&doubles.machines)));
    let public_url = url::Url::parse(&portal_url).map_err(|error| error.to_string())?;
    let content_url = options
        .content_url
        .map(|url| url.replace("{port}", &listen.port().to_string()));
    let settings = Settings {
        mail: None,
        api_key_life: None,
        journal_copy: None,
        listen,
        origins: Origins::new(&public_url, content_url.as_deref())
            .map_err(|error| error.to_string())?,
        public_url,
        keyring: Source::File(options.data_dir.join("keyring")),
        database: options
            .database
            .unwrap_or_else(|| DatabaseUrl::Sqlite(options.data_dir.join("valetkey.db"))),
        connection_idle: None,
        retention: options.retention,
        run: Run {
            private_hosts: reached_by_apps,
            ..options.run
        },
        hsts: None,
        metrics_listen: options.metrics_listen,
        traces: None,
        contact: None,
        data_dir: options.data_dir,
        private_hosts: vec![
            host(&provider_url),
            host(&workspace_url),
            host(&sample_url),
            "127.0.0.1".into(),
            "localhost".into(),
        ],
        upstream_sockets: options.upstream_sockets,
        trust: Trust::default(),
        tls: None,
        trusted_proxies: options.trusted_proxies,
        local_sign_in: !options
            .organisation
            .as_ref()
            .is_some_and(|organisation| organisation.no_passwords),
        sign_in: options.organisation.map(|organisation| {
            let own = (
                format!("{provider_url}/{TENANT}/v2.0"),
                CLIENT_ID.to_owned(),
            );
            let (issuer, client_id) = organisation.issuer.unwrap_or(own);
            SignIn {
                issuer,
                client_id,
                client_secret: Some(client_secret.clone().into()),
                name: "Example Organisation".into(),
                scopes: ["openid", "profile", "email", "offline_access"]
                    .map(str::to_owned)
                    .to_vec(),
                role_claim: "roles".into(),
                roles: organisation.roles,
                default_role: organisation.default_role,
                group_claim: "groups".into(),
                groups: organisation.groups,
            }
        }),
        bootstrap_secret: None,
        session_idle: Duration::from_secs(8 * 3600),
        session_lifetime: Duration::from_secs(7 * 86_400),
        session_token_lifetime: Duration::from_secs(3600),
        // A benchmark opens thousands of WebSockets as one viewer.
        open_per_viewer: 100_000,
        open_per_address: 100_000,
        workers: 2,
        log: "info".into(),
        log_format: LogFormat::Text,
    };
    let service = installation::open(settings, Arc::clone(&clock)).await?;
    let sample = sample::Sample::new(&portal_url, &workspace_url)?;
    let seeded = seed(
        &service,
        &provider_url,
        &workspace_url,
        &sample_url,
        &client_secret,
        &sample,
        options.dev.as_ref(),
    )
    .await?;
    let others = vec![
        provider::serve(Arc::clone(&provider), provider_socket)?,
        workspace::serve(Arc::clone(&provider), workspace_socket)?,
        sample::serve(sample, sample_socket)?,
    ]
    .into_iter()
    .chain(doubles_server)
    .collect();
    let (accounts, contents, integration, environment, people) = seeded;
    let (administrator, publisher, integration_id) = people;
    Ok(Demo {
        app: Server::new(Arc::clone(&service), portal),
        service,
        provider,
        provider_url,
        workspace_url,
        doubles,
        others,
        accounts,
        contents,
        integration,
        environment,
        administrator,
        publisher,
        integration_id,
    })
}

/// Accounts, content items, integration, app environment, publisher; see [`Demo`].
type Seeded = (
    Vec<Account>,
    Vec<(String, String, Option<String>)>,
    (String, String),
    Option<Vec<(String, String)>>,
    (Actor, Actor, Id<Integration>),
);

/// Creates people with API keys, an integration, and content items with content keys. Fails if the
/// people exist already.
async fn seed(
    service: &Arc<Services>,
    provider_url: &str,
    workspace_url: &str,
    sample_url: &str,
    client_secret: &str,
    sample: &sample::Sample,
    dev: Option<&Dev>,
) -> Result<Seeded, String> {
    let fail = |error: crate::service::Error| format!("cannot fill the demo: {error}");
    let mut actors: Vec<Actor> = Vec::new();
    let mut accounts = Vec::new();
    for (username, first, last, role) in PEOPLE {
        let input = PersonInput {
            username: Some(username.into()),
            email: Some(format!("{username}@example.org")),
            first_name: Some(first.into()),
            last_name: Some(last.into()),
            role: Some(role),
            password: Some(PASSWORD.into()),
            based_on: None,
        };
        let person: Person = service
            .people
            .insert_person(input, None)
            .await
            .map_err(|error| match error {
                crate::service::Error::Conflict(_) => {
                    "the data folder was filled by an earlier demo; choose another one".to_owned()
                }
                other => fail(other),
            })?;
        let actor = Actor {
            role,
            person,
            session: None,
            origin: Origin {
                address: "demo".into(),
                correlation: String::new(),
            },
        };
        let (_, api_key) = service
            .api_keys
            .create_key(&actor, "demo", None, None)
            .await
            .map_err(fail)?;
        accounts.push(Account {
            username,
            role,
            api_key,
        });
        actors.push(actor);
    }
    let [administrator, publisher, ..] = actors.as_slice() else {
        return Err("nobody in the demo".into());
    };
    let mut config = Config::new();
    for (key, value) in [
        ("tenant_id", TENANT),
        ("client_id", CLIENT_ID),
        ("scopes", azure::DATABRICKS_SCOPES),
        ("authority_host", provider_url),
        ("workspace_url", workspace_url),
    ] {
        config.insert(key.into(), value.into());
    }
    let integration = service
        .integrations
        .create_integration(
            administrator,
            IntegrationInput {
                name: Some("Azure Databricks".into()),
                description: Some("Use for dashboards on the sales catalog.".into()),
                template: Some("azure".into()),
                config,
                client_secret: Some(client_secret.into()),
                ..IntegrationInput::default()
            },
        )
        .await
        .map_err(fail)?;
    let mut contents = Vec::new();
    let mut environment = None;
    let samples = [
        (
            "sales-dashboard",
            "Sales dashboard",
            "Who am I at Databricks, and which rows are mine?",
        ),
        (
            "churn-explorer",
            "Churn explorer",
            "The same app, waiting for its publisher to pick an integration.",
        ),
    ];
    let own = [("app", "My app", "The app that you are writing.")];
    for (position, (name, title, description)) in (if dev.is_some() { &own[..] } else { &samples })
        .iter()
        .copied()
        .enumerate()
    {
        let upstream = dev.map_or_else(
            || format!("{sample_url}/{name}"),
            |dev| dev.upstream.clone(),
        );
        let seen = service
            .contents
            .create_content(
                publisher,
                ContentInput {
                    name: Some(name.into()),
                    title: Change::Set(title.into()),
                    description: Some(description.into()),
                    access: Some(AccessType::LoggedIn),
                    processes: Some(vec![Process {
                        url: upstream,
                        draining: false,
                    }]),
                    proxying: ProxyingInput {
                        keep_prefix: dev.map(|dev| dev.keep_prefix),
                        ..ProxyingInput::default()
                    },
                    ..ContentInput::default()
                },
            )
            .await
            .map_err(fail)?;
        if position == 0 {
            service
                .contents
                .set_associations(publisher, seen.content.id, vec![integration.id])
                .await
                .map_err(fail)?;
        }
        let (_, key) = service
            .api_keys
            .create_content_key(publisher, seen.content.id, Duration::ZERO)
            .await
            .map_err(fail)?;
        if dev.is_some() {
            let (base, guid) = (
                service.core.addresses.base().to_owned(),
                seen.content.id.to_string(),
            );
            let pairs = [
                ("CONNECT_SERVER", base),
                ("CONNECT_API_KEY", key.expose_secret().to_owned()),
                ("CONNECT_CONTENT_GUID", guid),
                ("POSIT_PRODUCT", "CONNECT".to_owned()),
                ("RSTUDIO_PRODUCT", "CONNECT".to_owned()),
                ("DATABRICKS_HOST", workspace_url.to_owned()),
                ("DATABRICKS_WAREHOUSE_ID", "demo".to_owned()),
            ];
            environment = Some(pairs.map(|(name, value)| (name.to_owned(), value)).to_vec());
        }
        sample.add(name, key);
        let place = service
            .handover
            .location_of(&seen.content)
            .map(|place| place.address(""));
        contents.push((seen.content.id.to_string(), title.to_owned(), place));
    }
    Ok((
        accounts,
        contents,
        (
            integration.id.to_string(),
            integration.display_name().to_owned(),
        ),
        environment,
        (administrator.clone(), publisher.clone(), integration.id),
    ))
}

impl Demo {
    /// Adds an integration of each kind that the doubles play.
    pub async fn add_doubles(&self) -> Result<(), String> {
        let Some(doubles) = &self.doubles else {
            return Ok(());
        };
        let fail = |error: crate::service::Error| format!("cannot fill the demo: {error}");
        let viewers = DIALECTS.iter().map(|dialect| {
            let config = dialect.config(doubles.address(dialect.key));
            (dialect.title(), dialect.template(), config, true)
        });
        let machines = doubles::service_accounts(&doubles.machines)
            .into_iter()
            .map(|(name, template, config)| (name.to_owned(), template, config, false));
        for (name, template, config, has_secret) in viewers.chain(machines) {
            let secret = has_secret.then(|| doubles::CLIENT_SECRET.to_owned().into());
            let input = IntegrationInput {
                name: Some(name),
                description: Some(
                    "A double of the demo: anybody who types a name is signed in.".into(),
                ),
                template: Some(template.to_owned()),
                config: config.as_object().cloned().unwrap_or_default(),
                client_secret: secret,
                ..IntegrationInput::default()
            };
            let integrations = &self.service.integrations;
            integrations
                .create_integration(&self.administrator, input)
                .await
                .map_err(fail)?;
        }
        Ok(())
    }

    /// Addresses, accounts and ids as JSON, for scripts and tests. Contains the demo's secrets.
    pub fn summary(&self) -> Value {
        let base = self.service.core.addresses.base();
        json!({
            "portal": base,
            "identity_provider": self.provider_url,
            "workspace": self.workspace_url,
            "accounts": self.accounts.iter().map(|account| json!({
                "username": account.username, "password": PASSWORD, "role": account.role.as_str(), "api_key": account.api_key.expose_secret(),
            })).collect::<Vec<_>>(),
            "content": self.contents.iter().map(|(guid, title, place)| json!({
                "guid": guid, "title": title, "url": format!("{base}/content/{guid}/"), "place": place,
            })).collect::<Vec<_>>(),
            "machines": self.doubles.as_ref().map(|doubles| &doubles.machines),
            "integrations": [{"guid": self.integration.0, "name": self.integration.1}],
            "registration": {"tenant_id": TENANT, "client_id": CLIENT_ID, "client_secret": self.provider.client_secret(), "authority_host": self.provider_url},
        })
    }

    /// The environment variables of the caller's app; `None` without [`Options::dev`].
    pub fn dev_environment(&self) -> Option<Vec<(String, String)>> {
        self.environment.clone()
    }

    /// What a developer needs to know, as text. `environment`: the app runs already, so list the
    /// variables that it must be started with.
    pub fn dev_introduction(&self, upstream: &str, environment: bool) -> String {
        let base = self.service.core.addresses.base();
        let guid = self.contents.first().map_or("", |(guid, ..)| guid.as_str());
        let mut text = format!(
            "Your app at {upstream} is behind the portal: open {base}/content/{guid}/ (Ctrl-C ends it and forgets everything)\n\
             Sign in as vera or viktor (viewers), password {PASSWORD}, at the identity provider, too. bo publishes, ada administrates.\n"
        );
        if environment {
            text.push_str("Start the app with these lines in its environment:\n");
            for (name, value) in self.environment.iter().flatten() {
                text.push_str(&format!("   {name}={value}\n"));
            }
        }
        text.push_str("The session token is in each request and WebSocket handshake, as in production: Posit-Connect-User-Session-Token.");
        text
    }

    /// The text that `valetkey demo` prints: addresses, accounts, and what to try.
    pub fn introduction(&self) -> String {
        let base = self.service.core.addresses.base();
        format!(
            "Valetkey demo: open {base} (Ctrl-C ends it and forgets everything)\n\
             People: ada (administrator), bo (publisher), vera and viktor (viewers); password {PASSWORD}, at the identity provider, too\n\
             1. As vera, open “Sales dashboard”: consent, sign in, see her rows. As viktor, see other rows.\n\
             2. As vera, take it back under Consents. As bo, let “Churn explorer” use Azure Databricks.\n\
             3. As ada, add an integration: directory {TENANT}, application {CLIENT_ID},\n   \
             secret {}, authority {}",
            self.provider.client_secret(),
            self.provider_url,
        )
    }

    /// Deploys a sample app once the portal serves. Resolves to a line for whoever started the demo.
    pub fn deploy_sample(&self) -> impl Future<Output = String> + use<> {
        deployed::deploy(
            Arc::clone(&self.service),
            self.publisher.clone(),
            self.integration_id,
            self.workspace_url.clone(),
        )
    }

    /// Serves the portal until it is stopped, then stops the other servers. `started` gets the
    /// portal's handle.
    pub async fn serve(self, started: impl FnOnce(ServerHandle)) -> Result<(), String> {
        let result = self.app.serve(started).await;
        for other in self.others {
            other.stop(false).await;
        }
        result
    }
}
