//! Settings: a TOML file, overridden by environment variables (`VALETKEY_…`), read and checked once
//! at start. [`declared`] lists every setting, [`reader`] reads them; this module decides what they
//! mean together. Secrets come from the environment or from a file of their own, never from the
//! TOML file.

pub mod declared;
pub mod mail;
pub mod reader;
pub mod run;

use crate::{
    domain::{origins::Origins, person::Role},
    store::DatabaseUrl,
    trust::Trust,
    vault::keyring::Source,
};
use actix_web::http::header::HeaderValue;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ipnet::IpNet;
use reader::Given;
use secrecy::{ExposeSecret as _, SecretString};
use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};
use url::Url;

/// All settings, checked and with defaults filled in.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// The portal's address, as browsers see it. Redirect URIs and links are built from it, never
    /// from the `Host` header.
    pub public_url: Url,
    /// Which hosts belong to the portal and which to content.
    pub origins: Origins,
    /// Folder of the SQLite database, the default keyring and other local files.
    pub data_dir: PathBuf,
    /// A second place for the journal of endings.
    pub journal_copy: Option<PathBuf>,
    /// Where the keys that seal stored secrets come from.
    pub keyring: Source,
    /// SQLite in the data directory, or the address of a PostgreSQL database.
    pub database: DatabaseUrl,
    /// Hosts that outgoing requests may reach on private addresses or over plain http: `host`,
    /// `host:port`, `*.suffix`.
    pub private_hosts: Vec<String>,
    /// Whose certificates are accepted on outgoing connections.
    pub trust: Trust,
    /// Folders in which apps may listen on Unix sockets; absolute paths.
    pub upstream_sockets: Vec<PathBuf>,
    /// Certificate chain and key (PEM files) for TLS at `listen`; `None` if an outer proxy
    /// terminates TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Outer proxies whose `X-Forwarded-For` (or `Forwarded`) is trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// The organisation's own sign-in (OpenID Connect).
    pub sign_in: Option<SignIn>,
    /// Base64 of at least 32 bytes. If set, a program that knows it can create the first
    /// administrator and get an API key (`v1/bootstrap`).
    pub bootstrap_secret: Option<SecretString>,
    /// Whether people can sign in with a password stored here.
    pub local_sign_in: bool,
    /// Connections that were not used for this long are ended; `None` keeps them until their
    /// provider ends them.
    pub connection_idle: Option<Duration>,
    /// Where `/metrics` is served; `None`: nowhere.
    pub metrics_listen: Option<SocketAddr>,
    /// Where traces are sent; `None`: nowhere.
    pub traces: Option<Traces>,
    /// `Strict-Transport-Security` of every response, on https.
    pub hsts: Option<HeaderValue>,
    /// Whom people ask for help.
    pub contact: Option<String>,
    /// How long other rows are kept.
    pub retention: Retention,
    /// Mail to people; `None`: none is sent.
    pub mail: Option<mail::Mail>,
    /// Deployed content.
    pub run: run::Run,
    /// Browser sessions end after this long without a request.
    pub session_idle: Duration,
    /// Browser sessions end this long after sign-in.
    pub session_lifetime: Duration,
    /// API keys of people end after this long; `None`: never.
    pub api_key_life: Option<Duration>,
    /// Lifetime of a session token.
    pub session_token_lifetime: Duration,
    /// What one viewer may have open at one process of an item, on this node.
    pub open_per_viewer: usize,
    /// What one client address may have open, on this node.
    pub open_per_address: usize,
    /// Number of worker threads of the server.
    pub workers: usize,
    /// Filter of the log, such as `info`.
    pub log: String,
    pub log_format: LogFormat,
}

/// The organisation's OpenID provider, and what its claims mean here.
#[derive(Clone, Debug)]
pub struct SignIn {
    /// The issuer identifier, exactly as the provider writes it: compared byte by byte.
    pub issuer: String,
    pub client_id: String,
    /// `None` for a public client.
    pub client_secret: Option<SecretString>,
    /// The provider's name on the sign-in button.
    pub name: String,
    pub scopes: Vec<String>,
    /// Name of the claim that holds roles.
    pub role_claim: String,
    /// Value of the role claim, and the role it grants; the highest one counts.
    pub roles: Vec<(String, Role)>,
    /// The role of people without any of these values; `None` refuses them.
    pub default_role: Option<Role>,
    /// Name of the claim that holds groups.
    pub group_claim: String,
    /// Value of the group claim, and the name of the group here.
    pub groups: Vec<(String, String)>,
}

/// Where traces are sent.
#[derive(Clone, Debug)]
pub struct Traces {
    /// Address of the collector (OTLP over HTTP), without `/v1/traces`.
    pub endpoint: String,
    /// How many of a hundred traces that begin here are recorded.
    pub percent: u64,
}

impl Traces {
    fn check(given: &Given) -> Result<Option<Self>, SettingsError> {
        let Some(endpoint) = given.text("traces_endpoint") else {
            return Ok(None);
        };
        if !Url::parse(&endpoint).is_ok_and(|url| matches!(url.scheme(), "http" | "https")) {
            return Err(SettingsError(format!(
                "traces_endpoint must be an address such as http://127.0.0.1:4318, not {endpoint:?}"
            )));
        }
        Ok(Some(Self {
            endpoint,
            percent: given.number_or_default("traces_percent"),
        }))
    }
}

/// How long rows are kept.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Connections whose viewer did not confirm the account.
    pub unconfirmed_connections: Duration,
    /// Audit records; `None` keeps them forever.
    pub audit: Option<Duration>,
    /// Hourly counts of exchanges.
    pub exchange_counts: Duration,
    /// Leak warnings, from the last suspicious use on.
    pub leaks: Duration,
    /// One-time links, from their expiry on.
    pub setup_links: Duration,
}

impl Default for Retention {
    /// As without any setting.
    fn default() -> Self {
        Self::check(&Given::default())
    }
}

impl Retention {
    fn check(given: &Given) -> Self {
        let days = |name| Duration::from_secs(86_400 * given.number_or_default(name));
        Self {
            unconfirmed_connections: days("unconfirmed_connection_days"),
            audit: Some(days("audit_days")).filter(|kept| !kept.is_zero()),
            exchange_counts: days("exchange_count_days"),
            leaks: days("leak_days"),
            setup_links: days("setup_link_days"),
        }
    }
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Why the settings are refused, as a sentence that names the setting.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(String);

impl Settings {
    /// Reads `file`, if given, overrides it from the environment, and checks the result. The first
    /// problem is returned.
    pub fn load(
        file: Option<&Path>,
        variables: &[(String, String)],
    ) -> Result<Self, SettingsError> {
        Self::check(&Given::read(file, variables)?)
    }
}

impl SignIn {
    /// The organisation's sign-in; `None` without an issuer.
    fn check(given: &Given) -> Result<Option<Self>, SettingsError> {
        let Some(issuer) = given.text("sign_in_issuer") else {
            return Ok(None);
        };
        let url = Url::parse(&issuer)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.query().is_none());
        let url = url.ok_or_else(|| {
            SettingsError(format!(
                "sign_in_issuer must be the issuer's address, not {issuer:?}"
            ))
        })?;
        let client_id = given
            .text("sign_in_client_id")
            .ok_or_else(|| SettingsError("sign_in_client_id is missing".into()))?;
        let client_secret = given.secret("sign_in_client_secret")?;
        let pairs = |name: &str| -> Result<Vec<(String, String)>, SettingsError> {
            let entries = given.list(name).into_iter();
            entries
                .map(|entry| match entry.split_once('=') {
                    Some((value, meaning))
                        if !value.trim().is_empty() && !meaning.trim().is_empty() =>
                    {
                        Ok((value.trim().to_owned(), meaning.trim().to_owned()))
                    }
                    _ => Err(SettingsError(format!(
                        "{name}: write value=meaning, not {entry:?}"
                    ))),
                })
                .collect()
        };
        let role = |name: &str, word: &str| {
            Role::parse(word).ok_or_else(|| {
                SettingsError(format!(
                    "{name}: {word:?} is no role; roles are viewer, publisher, administrator"
                ))
            })
        };
        let roles = pairs("sign_in_roles")?;
        let roles = roles
            .into_iter()
            .map(|(value, word)| Ok((value, role("sign_in_roles", &word)?)))
            .collect::<Result<_, SettingsError>>()?;
        Ok(Some(SignIn {
            client_id,
            client_secret,
            name: given
                .text("sign_in_name")
                .unwrap_or_else(|| url.host_str().unwrap_or("your organisation").to_owned()),
            scopes: given
                .text_or_default("sign_in_scopes")
                .split_whitespace()
                .map(str::to_owned)
                .collect(),
            role_claim: given.text_or_default("sign_in_role_claim"),
            roles,
            default_role: match given.text_or_default("sign_in_default_role").as_str() {
                "none" => None,
                word => Some(role("sign_in_default_role", word)?),
            },
            group_claim: given.text_or_default("sign_in_group_claim"),
            groups: pairs("sign_in_groups")?,
            issuer,
        }))
    }
}

impl Settings {
    /// Checks every setting and fills in defaults.
    pub fn check(given: &Given) -> Result<Self, SettingsError> {
        let sign_in = SignIn::check(given)?;
        let bootstrap_secret = given.secret("bootstrap_secret")?;
        let too_short = |text: &SecretString| {
            STANDARD
                .decode(text.expose_secret())
                .map_or(0, |bytes| bytes.len())
                < 32
        };
        if bootstrap_secret.as_ref().is_some_and(too_short) {
            return Err(SettingsError(
                "bootstrap_secret must be base64 of at least 32 random bytes".into(),
            ));
        }
        let local_sign_in = given.flag("local_sign_in");
        if sign_in.is_none() && !local_sign_in {
            return Err(SettingsError(
                "local_sign_in = false leaves nobody a way in: set sign_in_issuer, too".into(),
            ));
        }
        let listen = given.text_or_default("listen");
        let listen: SocketAddr = listen.parse().map_err(|_| {
            SettingsError(format!(
                "listen must be an address and a port such as 127.0.0.1:8080, not {listen:?}"
            ))
        })?;
        let metrics_listen = given
            .text("metrics_listen")
            .map(|text| {
                text.parse::<SocketAddr>().map_err(|_| {
                    SettingsError(format!(
                        "metrics_listen must be an address and a port such as 127.0.0.1:9100, not {text:?}"
                    ))
                })
            })
            .transpose()?;
        let public_url = given
            .text("public_url")
            .unwrap_or_else(|| format!("http://{listen}"));
        let public_url = check_public_url(&public_url)?;
        let hsts = hsts(&public_url, given.number_or_default("hsts_seconds"));
        let origins = Origins::new(&public_url, given.text("content_url").as_deref())
            .map_err(|problem| SettingsError(problem.to_string()))?;
        let data_dir = PathBuf::from(given.text_or_default("data_dir"));
        let keyring = match (
            given.lines("keyring"),
            given.text("keyring_command"),
            given.path("keyring_file"),
        ) {
            (Some(lines), _, _) => Source::Text(lines),
            (None, Some(command), None) => Source::Command(command),
            (None, None, file) => Source::File(file.unwrap_or_else(|| data_dir.join("keyring"))),
            (None, Some(_), Some(_)) => {
                return Err(SettingsError(
                    "keyring_command and keyring_file are both set: keep one".into(),
                ));
            }
        };
        let database = match given.secret("database_url")? {
            None => DatabaseUrl::Sqlite(data_dir.join("valetkey.db")),
            Some(url)
                if ["postgres://", "postgresql://"]
                    .iter()
                    .any(|scheme| url.expose_secret().starts_with(scheme)) =>
            {
                DatabaseUrl::Postgresql(url)
            }
            // The error must not repeat the value, which may contain a password.
            Some(_) => {
                return Err(SettingsError("database_url must start with postgres://; leave it out for SQLite in the data directory".into()));
            }
        };
        let trusted_proxies = given
            .list("trusted_proxies")
            .iter()
            .map(|text| {
                // Peer addresses are compared in canonical form, so an IPv4-mapped IPv6 address
                // becomes IPv4 here; a mapped network could never match and is refused.
                let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(|ip| IpNet::from(ip.to_canonical())));
                let network = network.ok().filter(|network| !matches!(network, IpNet::V6(six) if six.addr().to_ipv4_mapped().is_some()));
                network
                    .ok_or_else(|| SettingsError(format!("trusted_proxies: {text:?} is neither an IP address nor a network such as 10.0.5.0/28")))
            })
            .collect::<Result<_, _>>()?;
        let upstream_sockets: Vec<PathBuf> = given
            .list("upstream_sockets")
            .into_iter()
            .map(PathBuf::from)
            .collect();
        if let Some(folder) = upstream_sockets.iter().find(|folder| !folder.is_absolute()) {
            return Err(SettingsError(format!(
                "upstream_sockets: {} must be the whole path of a folder",
                folder.display()
            )));
        }
        let tls = match (
            given.path("tls_certificate_file"),
            given.path("tls_key_file"),
        ) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => {
                return Err(SettingsError(
                    "tls_certificate_file and tls_key_file belong together: set both, or none"
                        .into(),
                ));
            }
        };
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Ok(Settings {
            listen,
            public_url,
            origins,
            data_dir,
            journal_copy: given.path("journal_copy"),
            keyring,
            database,
            connection_idle: match given.number_or_default("connection_idle_days") {
                0 => None,
                days => Some(Duration::from_secs(86_400 * days)),
            },
            metrics_listen,
            traces: Traces::check(given)?,
            hsts,
            contact: given.text("contact"),
            retention: Retention::check(given),
            mail: mail::Mail::check(given)?,
            run: run::Run::check(given),
            private_hosts: given.list("private_hosts"),
            trust: match given.path("ca_file") {
                Some(file) => Trust::with_file(&file)
                    .map_err(|problem| SettingsError(format!("ca_file: {problem}")))?,
                None => Trust::default(),
            },
            upstream_sockets,
            tls,
            trusted_proxies,
            sign_in,
            local_sign_in,
            bootstrap_secret,
            session_idle: Duration::from_secs(60 * given.number_or_default("session_idle_minutes")),
            session_lifetime: Duration::from_secs(
                3600 * given.number_or_default("session_lifetime_hours"),
            ),
            api_key_life: match given.number_or_default("api_key_days") {
                0 => None,
                days => Some(Duration::from_secs(86_400 * days)),
            },
            session_token_lifetime: Duration::from_secs(
                60 * given.number_or_default("session_token_minutes"),
            ),
            open_per_viewer: usize::try_from(given.number_or_default("open_per_viewer"))
                .unwrap_or(usize::MAX),
            open_per_address: usize::try_from(given.number_or_default("open_per_address"))
                .unwrap_or(usize::MAX),
            workers: given
                .number("workers")
                .and_then(|count| usize::try_from(count).ok())
                .unwrap_or(cores),
            log: given.text_or_default("log"),
            log_format: match given.text_or_default("log_format").as_str() {
                "json" => LogFormat::Json,
                _ => LogFormat::Text,
            },
        })
    }
}

/// The value of `Strict-Transport-Security` (RFC 6797); `None` on plain http, or if it is switched
/// off. Without `includeSubDomains`: other hosts of the domain are not the portal's.
fn hsts(public_url: &Url, seconds: u64) -> Option<HeaderValue> {
    (public_url.scheme() == "https" && seconds > 0)
        .then(|| HeaderValue::try_from(format!("max-age={seconds}")).ok())
        .flatten()
}

/// Parses the public address: scheme, host and port only.
fn check_public_url(text: &str) -> Result<Url, SettingsError> {
    let url = Url::parse(text).map_err(|_| {
        SettingsError(format!(
            "public_url must be an address such as https://portal.example.org, not {text:?}"
        ))
    })?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(SettingsError(format!(
            "public_url must start with https:// and name a host, not {text:?}"
        )));
    }
    if url.path() != "/"
        || url.query().is_some()
        || url.fragment().is_some()
        || !url.username().is_empty()
    {
        return Err(SettingsError(format!(
            "public_url is only scheme, host and port, not {text:?}"
        )));
    }
    Ok(url)
}

impl Settings {
    /// The public address without a trailing slash.
    pub fn base(&self) -> &str {
        self.public_url.as_str().trim_end_matches('/')
    }
    /// Whether browsers use TLS: then cookies are Secure and have the `__Host-` prefix.
    pub fn is_https(&self) -> bool {
        self.public_url.scheme() == "https"
    }
    /// Whether the addresses that this TCP peer forwards are trusted.
    pub fn is_trusted_proxy(&self, peer: IpAddr) -> bool {
        self.trusted_proxies
            .iter()
            .any(|network| network.contains(&peer))
    }
}

/// Reads one line with a secret from standard input, without its line end.
pub fn read_secret_line() -> std::io::Result<SecretString> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let length = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(length);
    Ok(SecretString::from(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, variables: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        let dir = std::env::temp_dir().join(format!("valetkey-config-{}", uuid::Uuid::new_v4()));
        std::fs::write(&dir, text).unwrap();
        let variables: Vec<(String, String)> = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let result = Settings::load(Some(&dir), &variables);
        std::fs::remove_file(&dir).unwrap();
        result
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let settings = load(
            "listen = '127.0.0.1:1'\nsession_idle_minutes = 5",
            &[("VALETKEY_LISTEN", "127.0.0.1:2")],
        )
        .unwrap();
        assert_eq!(settings.listen.port(), 2);
        assert_eq!(settings.session_idle, Duration::from_secs(300));
        assert_eq!(settings.base(), "http://127.0.0.1:2");
    }
    #[test]
    fn wrong_settings_say_what_is_wrong() {
        for (text, word) in [
            ("lissten = 'x'", "did you mean listen?"),
            ("database_url = 'postgres://u:hunter2@h/d'", "secret"),
            ("listen = 5", "a text"),
            ("listen = 'x'", "listen"),
            ("public_url = 'ftp://x'", "public_url"),
            ("public_url = 'https://x/y'", "public_url"),
            ("content_url = 'http://127.0.0.1:9000'", "content_url"),
            ("workers = 0", "workers"),
            ("local_sign_in = false", "local_sign_in"),
            ("sign_in_issuer = 'https://x.example'", "sign_in_client_id"),
            (
                "sign_in_issuer = 'https://x.example'\nsign_in_client_id = 'c'\nsign_in_roles = ['a=king']",
                "king",
            ),
            (
                "sign_in_issuer = 'https://x.example'\nsign_in_client_id = 'c'\nsign_in_groups = ['a']",
                "sign_in_groups",
            ),
            ("bootstrap_secret_file = '/dev/null'", "bootstrap_secret"),
            ("trusted_proxies = ['x']", "trusted_proxies"),
            (
                "trusted_proxies = ['::ffff:10.0.0.0/104']",
                "trusted_proxies",
            ),
            (
                "keyring_file = 'a'\nkeyring_command = 'b'",
                "keyring_command",
            ),
        ] {
            let problem = load(text, &[]).unwrap_err().to_string();
            assert!(problem.contains(word), "{problem}");
        }
        let problem = load("", &[("VALETKEY_DATABASE_URL", "mysql://root:hunter2@x/y")])
            .unwrap_err()
            .to_string();
        assert!(
            problem.contains("database_url") && !problem.contains("hunter2"),
            "{problem}"
        );
        assert!(
            load("", &[("VALETKEY_WORKERS", "many")])
                .unwrap_err()
                .to_string()
                .contains("VALETKEY_WORKERS")
        );
    }
}
