//! Settings: a TOML file, then the environment (`VALETKEY_…`), read once at start. README's table lists each of them.

use crate::domain::wall::Wall;
use secrecy::SecretString;
use serde::Deserialize;
use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};
use url::Url;

/// All that an operator can set.
#[derive(Clone, Debug)]
pub struct Settings {
    pub listen: SocketAddr,
    /// What browsers type. Redirect addresses are built from it, never from the Host header.
    pub public_url: Url,
    /// Which hosts are the portal's and which are content's.
    pub wall: Wall,
    pub data_dir: PathBuf,
    pub keyring_file: PathBuf,
    /// Hosts that may be private or speak plain http: `host`, `host:port`, `*.suffix`.
    pub private_hosts: Vec<String>,
    /// Outer proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpAddr>,
    pub session_idle: Duration,
    pub session_lifetime: Duration,
    pub session_token_lifetime: Duration,
    pub workers: usize,
    pub log: String,
    pub log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// What the file and the environment may hold. Names are the same in both: `VALETKEY_LISTEN`, `listen = "…"`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    listen: Option<String>,
    public_url: Option<String>,
    content_url: Option<String>,
    data_dir: Option<PathBuf>,
    keyring_file: Option<PathBuf>,
    private_hosts: Option<Vec<String>>,
    trusted_proxies: Option<Vec<String>>,
    session_idle_minutes: Option<u64>,
    session_lifetime_hours: Option<u64>,
    session_token_minutes: Option<u64>,
    workers: Option<usize>,
    log: Option<String>,
    log_format: Option<LogFormat>,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Problem(String);

impl Settings {
    /// Reads `file` if given, then lets the environment win. `environment` looks a variable up; tests pass their own.
    pub fn load(file: Option<&Path>, environment: &dyn Fn(&str) -> Option<String>) -> Result<Self, Problem> {
        let mut given = match file {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| Problem(format!("cannot read {}: {error}", path.display())))?;
                toml::from_str(&text).map_err(|error| Problem(format!("{}: {error}", path.display())))?
            }
            None => File::default(),
        };
        let variable = |name: &str| environment(&format!("VALETKEY_{name}")).filter(|value| !value.trim().is_empty());
        let list = |text: String| text.split([',', ' ']).filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        let number = |name: &str| -> Result<Option<u64>, Problem> {
            variable(name)
                .map(|text| text.trim().parse().map_err(|_| Problem(format!("VALETKEY_{name} must be a whole number, not {text:?}"))))
                .transpose()
        };
        given.listen = variable("LISTEN").or(given.listen);
        given.public_url = variable("PUBLIC_URL").or(given.public_url);
        given.content_url = variable("CONTENT_URL").or(given.content_url);
        given.data_dir = variable("DATA_DIR").map(PathBuf::from).or(given.data_dir);
        given.keyring_file = variable("KEYRING_FILE").map(PathBuf::from).or(given.keyring_file);
        given.private_hosts = variable("PRIVATE_HOSTS").map(list).or(given.private_hosts);
        given.trusted_proxies = variable("TRUSTED_PROXIES").map(list).or(given.trusted_proxies);
        given.session_idle_minutes = number("SESSION_IDLE_MINUTES")?.or(given.session_idle_minutes);
        given.session_lifetime_hours = number("SESSION_LIFETIME_HOURS")?.or(given.session_lifetime_hours);
        given.session_token_minutes = number("SESSION_TOKEN_MINUTES")?.or(given.session_token_minutes);
        given.workers = number("WORKERS")?.and_then(|count| usize::try_from(count).ok()).or(given.workers);
        given.log = variable("LOG").or(given.log);
        given.log_format = match variable("LOG_FORMAT").as_deref() {
            Some("json") => Some(LogFormat::Json),
            Some("text") => Some(LogFormat::Text),
            Some(other) => return Err(Problem(format!("VALETKEY_LOG_FORMAT must be text or json, not {other:?}"))),
            None => given.log_format,
        };
        given.check()
    }
}

impl File {
    fn check(self) -> Result<Settings, Problem> {
        let listen = self.listen.unwrap_or_else(|| "127.0.0.1:8080".into());
        let listen: SocketAddr =
            listen.parse().map_err(|_| Problem(format!("listen must be an address and a port such as 127.0.0.1:8080, not {listen:?}")))?;
        let public_url = self.public_url.unwrap_or_else(|| format!("http://{listen}"));
        let public_url = check_public_url(&public_url)?;
        let wall = Wall::new(&public_url, self.content_url.as_deref()).map_err(|problem| Problem(problem.to_string()))?;
        let data_dir = self.data_dir.unwrap_or_else(|| "valetkey-data".into());
        let keyring_file = self.keyring_file.unwrap_or_else(|| data_dir.join("keyring"));
        let trusted_proxies = self
            .trusted_proxies
            .unwrap_or_default()
            .iter()
            .map(|text| text.parse().map_err(|_| Problem(format!("trusted_proxies: {text:?} is no IP address"))))
            .collect::<Result<_, _>>()?;
        let within = |name: &str, value: Option<u64>, default: u64, most: u64| match value.unwrap_or(default) {
            value if (1..=most).contains(&value) => Ok(value),
            value => Err(Problem(format!("{name} must lie between 1 and {most}, not {value}"))),
        };
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Ok(Settings {
            listen,
            public_url,
            wall,
            data_dir,
            keyring_file,
            private_hosts: self.private_hosts.unwrap_or_default(),
            trusted_proxies,
            session_idle: Duration::from_secs(60 * within("session_idle_minutes", self.session_idle_minutes, 480, 43_200)?),
            session_lifetime: Duration::from_secs(3600 * within("session_lifetime_hours", self.session_lifetime_hours, 168, 8760)?),
            session_token_lifetime: Duration::from_secs(60 * within("session_token_minutes", self.session_token_minutes, 60, 1440)?),
            workers: usize::try_from(within("workers", self.workers.and_then(|count| count.try_into().ok()), cores as u64, 256)?)
                .unwrap_or(cores),
            log: self.log.unwrap_or_else(|| "info".into()),
            log_format: self.log_format.unwrap_or_default(),
        })
    }
}

fn check_public_url(text: &str) -> Result<Url, Problem> {
    let url =
        Url::parse(text).map_err(|_| Problem(format!("public_url must be an address such as https://portal.example.org, not {text:?}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(Problem(format!("public_url must start with https:// and name a host, not {text:?}")));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() {
        return Err(Problem(format!("public_url is only scheme, host and port, not {text:?}")));
    }
    Ok(url)
}

impl Settings {
    /// The public address without a slash at its end.
    pub fn base(&self) -> &str {
        self.public_url.as_str().trim_end_matches('/')
    }
    /// Whether browsers reach us over TLS: then cookies are `__Host-` and Secure.
    pub fn is_https(&self) -> bool {
        self.public_url.scheme() == "https"
    }
    pub fn database_file(&self) -> PathBuf {
        self.data_dir.join("valetkey.db")
    }
}

/// Reads one secret line from standard input, without its line end.
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

    fn load(text: &str, variables: &[(&str, &str)]) -> Result<Settings, Problem> {
        let dir = std::env::temp_dir().join(format!("valetkey-config-{}", uuid::Uuid::new_v4()));
        std::fs::write(&dir, text).unwrap();
        let result =
            Settings::load(Some(&dir), &|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()));
        std::fs::remove_file(&dir).unwrap();
        result
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let settings = load("listen = '127.0.0.1:1'\nsession_idle_minutes = 5", &[("VALETKEY_LISTEN", "127.0.0.1:2")]).unwrap();
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
            ("trusted_proxies = ['x']", "trusted_proxies"),
        ] {
            let problem = load(text, &[]).unwrap_err().to_string();
            assert!(problem.contains(word), "{problem}");
        }
        assert!(load("", &[("VALETKEY_WORKERS", "many")]).unwrap_err().to_string().contains("VALETKEY_WORKERS"));
    }
}
