//! Settings: a TOML file, overridden by environment variables (`VALETKEY_…`), read and checked once
//! at start. The README's table lists each setting. Secrets come from the environment or from a
//! file of their own, never from the TOML file.

use crate::{
    domain::{origins::Origins, person::Role},
    store::DatabaseUrl,
    vault::keyring::Source,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ipnet::IpNet;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
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
    /// from the `HostKind` header.
    pub public_url: Url,
    /// Which hosts belong to the portal and which to content.
    pub origins: Origins,
    /// Folder of the SQLite database, the default keyring and other local files.
    pub data_dir: PathBuf,
    /// Where the keys that seal stored secrets come from.
    pub keyring: Source,
    /// SQLite in the data directory, or the address of a PostgreSQL database.
    pub database: DatabaseUrl,
    /// Hosts that outgoing requests may reach on private addresses or over plain http: `host`,
    /// `host:port`, `*.suffix`.
    pub private_hosts: Vec<String>,
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
    /// Browser sessions end after this long without a request.
    pub session_idle: Duration,
    /// Browser sessions end this long after sign-in.
    pub session_lifetime: Duration,
    /// Lifetime of a session token.
    pub session_token_lifetime: Duration,
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

/// Format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// The settings as given. Names are the same in the file and the environment: `listen = "…"`,
/// `VALETKEY_LISTEN`. Skipped fields come from the environment only.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawSettings {
    listen: Option<String>,
    public_url: Option<String>,
    content_url: Option<String>,
    data_dir: Option<PathBuf>,
    keyring_file: Option<PathBuf>,
    keyring_command: Option<String>,
    #[serde(skip)]
    keyring: Option<SecretString>,
    database_url_file: Option<PathBuf>,
    #[serde(skip)]
    database_url: Option<SecretString>,
    connection_idle_days: Option<u64>,
    private_hosts: Option<Vec<String>>,
    upstream_sockets: Option<Vec<PathBuf>>,
    tls_certificate_file: Option<PathBuf>,
    tls_key_file: Option<PathBuf>,
    trusted_proxies: Option<Vec<String>>,
    sign_in_issuer: Option<String>,
    sign_in_client_id: Option<String>,
    sign_in_client_secret_file: Option<PathBuf>,
    #[serde(skip)]
    sign_in_client_secret: Option<SecretString>,
    sign_in_name: Option<String>,
    sign_in_scopes: Option<String>,
    sign_in_role_claim: Option<String>,
    sign_in_roles: Option<Vec<String>>,
    sign_in_default_role: Option<String>,
    sign_in_group_claim: Option<String>,
    sign_in_groups: Option<Vec<String>>,
    local_sign_in: Option<bool>,
    bootstrap_secret_file: Option<PathBuf>,
    #[serde(skip)]
    bootstrap_secret: Option<SecretString>,
    session_idle_minutes: Option<u64>,
    session_lifetime_hours: Option<u64>,
    session_token_minutes: Option<u64>,
    workers: Option<usize>,
    log: Option<String>,
    log_format: Option<LogFormat>,
}

/// Why the settings are refused, as a sentence that names the setting.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(String);

impl Settings {
    /// Reads `file`, if given, overrides it from the environment, and checks the result.
    /// `environment` looks up a variable. The first problem is returned.
    pub fn load(
        file: Option<&Path>,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, SettingsError> {
        let mut given = match file {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| {
                    SettingsError(format!("cannot read {}: {error}", path.display()))
                })?;
                toml::from_str(&text)
                    .map_err(|error| SettingsError(format!("{}: {error}", path.display())))?
            }
            None => RawSettings::default(),
        };
        let variable = |name: &str| {
            environment(&format!("VALETKEY_{name}")).filter(|value| !value.trim().is_empty())
        };
        let list = |text: String| {
            text.split([',', ' '])
                .filter(|part| !part.is_empty())
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        // Separated by commas only: names of groups may contain spaces.
        let comma = |text: String| {
            text.split(',')
                .map(|part| part.trim().to_owned())
                .filter(|part| !part.is_empty())
                .collect::<Vec<_>>()
        };
        let number = |name: &str| -> Result<Option<u64>, SettingsError> {
            variable(name)
                .map(|text| {
                    text.trim().parse().map_err(|_| {
                        SettingsError(format!(
                            "VALETKEY_{name} must be a whole number, not {text:?}"
                        ))
                    })
                })
                .transpose()
        };
        given.listen = variable("LISTEN").or(given.listen);
        given.public_url = variable("PUBLIC_URL").or(given.public_url);
        given.content_url = variable("CONTENT_URL").or(given.content_url);
        given.data_dir = variable("DATA_DIR").map(PathBuf::from).or(given.data_dir);
        given.keyring_file = variable("KEYRING_FILE")
            .map(PathBuf::from)
            .or(given.keyring_file);
        given.keyring_command = variable("KEYRING_COMMAND").or(given.keyring_command);
        given.keyring = variable("KEYRING").map(SecretString::from);
        given.database_url_file = variable("DATABASE_URL_FILE")
            .map(PathBuf::from)
            .or(given.database_url_file);
        given.database_url = variable("DATABASE_URL").map(SecretString::from);
        given.connection_idle_days = number("CONNECTION_IDLE_DAYS")?.or(given.connection_idle_days);
        given.private_hosts = variable("PRIVATE_HOSTS").map(list).or(given.private_hosts);
        given.upstream_sockets = variable("UPSTREAM_SOCKETS")
            .map(|text| comma(text).into_iter().map(PathBuf::from).collect())
            .or(given.upstream_sockets);
        given.tls_certificate_file = variable("TLS_CERTIFICATE_FILE")
            .map(PathBuf::from)
            .or(given.tls_certificate_file);
        given.tls_key_file = variable("TLS_KEY_FILE")
            .map(PathBuf::from)
            .or(given.tls_key_file);
        given.trusted_proxies = variable("TRUSTED_PROXIES")
            .map(list)
            .or(given.trusted_proxies);
        given.sign_in_issuer = variable("SIGN_IN_ISSUER").or(given.sign_in_issuer);
        given.sign_in_client_id = variable("SIGN_IN_CLIENT_ID").or(given.sign_in_client_id);
        given.sign_in_client_secret_file = variable("SIGN_IN_CLIENT_SECRET_FILE")
            .map(PathBuf::from)
            .or(given.sign_in_client_secret_file);
        given.sign_in_client_secret = variable("SIGN_IN_CLIENT_SECRET").map(SecretString::from);
        given.sign_in_name = variable("SIGN_IN_NAME").or(given.sign_in_name);
        given.sign_in_scopes = variable("SIGN_IN_SCOPES").or(given.sign_in_scopes);
        given.sign_in_role_claim = variable("SIGN_IN_ROLE_CLAIM").or(given.sign_in_role_claim);
        given.sign_in_roles = variable("SIGN_IN_ROLES").map(comma).or(given.sign_in_roles);
        given.sign_in_default_role =
            variable("SIGN_IN_DEFAULT_ROLE").or(given.sign_in_default_role);
        given.sign_in_group_claim = variable("SIGN_IN_GROUP_CLAIM").or(given.sign_in_group_claim);
        given.sign_in_groups = variable("SIGN_IN_GROUPS")
            .map(comma)
            .or(given.sign_in_groups);
        given.local_sign_in = match variable("LOCAL_SIGN_IN").as_deref() {
            None => given.local_sign_in,
            Some("true") => Some(true),
            Some("false") => Some(false),
            Some(other) => {
                return Err(SettingsError(format!(
                    "VALETKEY_LOCAL_SIGN_IN must be true or false, not {other:?}"
                )));
            }
        };
        given.bootstrap_secret_file = variable("BOOTSTRAP_SECRET_FILE")
            .map(PathBuf::from)
            .or(given.bootstrap_secret_file);
        given.bootstrap_secret = variable("BOOTSTRAP_SECRET").map(SecretString::from);
        given.session_idle_minutes = number("SESSION_IDLE_MINUTES")?.or(given.session_idle_minutes);
        given.session_lifetime_hours =
            number("SESSION_LIFETIME_HOURS")?.or(given.session_lifetime_hours);
        given.session_token_minutes =
            number("SESSION_TOKEN_MINUTES")?.or(given.session_token_minutes);
        given.workers = number("WORKERS")?
            .and_then(|count| usize::try_from(count).ok())
            .or(given.workers);
        given.log = variable("LOG").or(given.log);
        given.log_format = match variable("LOG_FORMAT").as_deref() {
            Some("json") => Some(LogFormat::Json),
            Some("text") => Some(LogFormat::Text),
            Some(other) => {
                return Err(SettingsError(format!(
                    "VALETKEY_LOG_FORMAT must be text or json, not {other:?}"
                )));
            }
            None => given.log_format,
        };
        given.check()
    }
}

impl RawSettings {
    /// The organisation's sign-in; `None` without an issuer.
    fn sign_in(&self) -> Result<Option<SignIn>, SettingsError> {
        let Some(issuer) = &self.sign_in_issuer else {
            return Ok(None);
        };
        let url = Url::parse(issuer)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.query().is_none());
        let url = url.ok_or_else(|| {
            SettingsError(format!(
                "sign_in_issuer must be the issuer's address, not {issuer:?}"
            ))
        })?;
        let client_id = self
            .sign_in_client_id
            .clone()
            .ok_or_else(|| SettingsError("sign_in_client_id is missing".into()))?;
        let client_secret = secret(
            &self.sign_in_client_secret,
            self.sign_in_client_secret_file.as_deref(),
        )?;
        let pairs = |name: &str,
                     entries: &Option<Vec<String>>|
         -> Result<Vec<(String, String)>, SettingsError> {
            let entries = entries.iter().flatten();
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
        let roles = pairs("sign_in_roles", &self.sign_in_roles)?;
        let roles = roles
            .into_iter()
            .map(|(value, word)| Ok((value, role("sign_in_roles", &word)?)))
            .collect::<Result<_, SettingsError>>()?;
        Ok(Some(SignIn {
            client_id,
            client_secret,
            name: self
                .sign_in_name
                .clone()
                .unwrap_or_else(|| url.host_str().unwrap_or("your organisation").to_owned()),
            scopes: self
                .sign_in_scopes
                .as_deref()
                .unwrap_or("openid profile email")
                .split_whitespace()
                .map(str::to_owned)
                .collect(),
            role_claim: self
                .sign_in_role_claim
                .clone()
                .unwrap_or_else(|| "roles".into()),
            roles,
            default_role: match self.sign_in_default_role.as_deref().unwrap_or("viewer") {
                "none" => None,
                word => Some(role("sign_in_default_role", word)?),
            },
            group_claim: self
                .sign_in_group_claim
                .clone()
                .unwrap_or_else(|| "groups".into()),
            groups: pairs("sign_in_groups", &self.sign_in_groups)?,
            issuer: issuer.clone(),
        }))
    }

    /// Checks every setting and fills in defaults.
    fn check(self) -> Result<Settings, SettingsError> {
        let sign_in = self.sign_in()?;
        let bootstrap_secret = secret(
            &self.bootstrap_secret,
            self.bootstrap_secret_file.as_deref(),
        )?;
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
        let local_sign_in = self.local_sign_in.unwrap_or(true);
        if sign_in.is_none() && !local_sign_in {
            return Err(SettingsError(
                "local_sign_in = false leaves nobody a way in: set sign_in_issuer, too".into(),
            ));
        }
        let listen = self.listen.unwrap_or_else(|| "127.0.0.1:8080".into());
        let listen: SocketAddr = listen.parse().map_err(|_| {
            SettingsError(format!(
                "listen must be an address and a port such as 127.0.0.1:8080, not {listen:?}"
            ))
        })?;
        let public_url = self
            .public_url
            .unwrap_or_else(|| format!("http://{listen}"));
        let public_url = check_public_url(&public_url)?;
        let origins = Origins::new(&public_url, self.content_url.as_deref())
            .map_err(|problem| SettingsError(problem.to_string()))?;
        let data_dir = self.data_dir.unwrap_or_else(|| "valetkey-data".into());
        let keyring = match (self.keyring, self.keyring_command, self.keyring_file) {
            (Some(lines), _, _) => Source::Text(lines),
            (None, Some(command), None) => Source::Command(command),
            (None, None, file) => Source::File(file.unwrap_or_else(|| data_dir.join("keyring"))),
            (None, Some(_), Some(_)) => {
                return Err(SettingsError(
                    "keyring_command and keyring_file are both set: keep one".into(),
                ));
            }
        };
        let database = match secret(&self.database_url, self.database_url_file.as_deref())? {
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
        let trusted_proxies = self
            .trusted_proxies
            .unwrap_or_default()
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
        let upstream_sockets = self.upstream_sockets.unwrap_or_default();
        if let Some(folder) = upstream_sockets.iter().find(|folder| !folder.is_absolute()) {
            return Err(SettingsError(format!(
                "upstream_sockets: {} must be the whole path of a folder",
                folder.display()
            )));
        }
        let tls = match (self.tls_certificate_file, self.tls_key_file) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => {
                return Err(SettingsError(
                    "tls_certificate_file and tls_key_file belong together: set both, or none"
                        .into(),
                ));
            }
        };
        let within = |name: &str, value: Option<u64>, default: u64, most: u64| match value
            .unwrap_or(default)
        {
            value if (1..=most).contains(&value) => Ok(value),
            value => Err(SettingsError(format!(
                "{name} must lie between 1 and {most}, not {value}"
            ))),
        };
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Ok(Settings {
            listen,
            public_url,
            origins,
            data_dir,
            keyring,
            database,
            connection_idle: match self.connection_idle_days.unwrap_or(0) {
                0 => None,
                days => Some(Duration::from_secs(
                    86_400 * within("connection_idle_days", Some(days), 0, 3650)?,
                )),
            },
            private_hosts: self.private_hosts.unwrap_or_default(),
            upstream_sockets,
            tls,
            trusted_proxies,
            sign_in,
            local_sign_in,
            bootstrap_secret,
            session_idle: Duration::from_secs(
                60 * within(
                    "session_idle_minutes",
                    self.session_idle_minutes,
                    480,
                    43_200,
                )?,
            ),
            session_lifetime: Duration::from_secs(
                3600 * within(
                    "session_lifetime_hours",
                    self.session_lifetime_hours,
                    168,
                    8760,
                )?,
            ),
            session_token_lifetime: Duration::from_secs(
                60 * within(
                    "session_token_minutes",
                    self.session_token_minutes,
                    60,
                    1440,
                )?,
            ),
            workers: usize::try_from(within(
                "workers",
                self.workers.and_then(|count| count.try_into().ok()),
                cores as u64,
                256,
            )?)
            .unwrap_or(cores),
            log: self.log.unwrap_or_else(|| "info".into()),
            log_format: self.log_format.unwrap_or_default(),
        })
    }
}

/// A secret from the environment or, failing that, from its file, trimmed.
fn secret(
    given: &Option<SecretString>,
    file: Option<&Path>,
) -> Result<Option<SecretString>, SettingsError> {
    match (given, file) {
        (Some(secret), _) => Ok(Some(secret.clone())),
        (None, Some(path)) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                SettingsError(format!("cannot read {}: {error}", path.display()))
            })?;
            Ok(Some(SecretString::from(text.trim())))
        }
        (None, None) => Ok(None),
    }
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
        let result = Settings::load(Some(&dir), &|name| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        });
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
            ("lissten = 'x'", "lissten"),
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
