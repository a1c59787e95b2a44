//! The egress policy: which outside addresses the server may connect to (SSRF protection).
//!
//! An address is checked when it is saved and again at each TCP connection, after name resolution,
//! so that DNS rebinding does not help. Private addresses and plain http work only for hosts that
//! the operator lists; link-local addresses and the IPv6 address of AWS's metadata service never work. This module resolves no
//! names and connects to nothing; it only asks which addresses this machine has.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
};
use url::{Host, Url};

/// What an address is for. Requests to providers carry secrets and need TLS; upstream apps may
/// speak plain http.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Provider,
    Upstream,
}

/// Why an address is refused. The messages are shown to the person who typed the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EgressError {
    #[error("This is not a web address. It starts with https:// and names a host.")]
    NotAnAddress,
    #[error(
        "The address must start with https://. Plain http works only for hosts that the setting private_hosts lists."
    )]
    NotHttps,
    #[error("Leave user name and password out of the address.")]
    Credentials,
    #[error("Leave out everything from the # sign on.")]
    Fragment,
    #[error(
        "This address lies in a private network. The operator can allow it with the setting private_hosts."
    )]
    Private,
    #[error(
        "This address is never allowed: it is link-local, where cloud machines keep their credentials."
    )]
    LinkLocal,
    /// The portal's own origin, or that of content.
    #[error("This is the portal's own address.")]
    OwnHost,
    /// A `unix:` address outside the listed folders.
    #[error(
        "A socket is reached only in a folder that the operator lists with the setting upstream_sockets. Write unix:/folder/name.sock."
    )]
    Socket,
}

/// The operator's lists, and the portal's own addresses.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Hosts that may be private and may use plain http.
    listed: Vec<HostPattern>,
    /// Hosts of the portal and of content: always refused.
    own: Vec<HostPattern>,
    /// The port of a listener on all addresses of this machine: with it, each of them is the
    /// portal's own.
    own_port: Option<u16>,
    /// Folders whose Unix sockets apps may listen on.
    sockets: Vec<PathBuf>,
}

/// One entry of a list: a lower-case host, or `*` and a suffix; without a port it covers all ports.
#[derive(Clone, Debug)]
struct HostPattern {
    host: String,
    port: Option<u16>,
}

impl HostPattern {
    /// Parses `host`, `host:port`, `[v6]`, `[v6]:port` or `*.suffix`.
    fn parse(entry: &str) -> Self {
        let entry = entry.trim().to_ascii_lowercase();
        match entry
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host, port.parse().ok()?)))
        {
            Some((host, port)) if !host.contains(':') || host.starts_with('[') => Self {
                host: host.to_owned(),
                port: Some(port),
            },
            _ => Self {
                host: entry,
                port: None,
            },
        }
    }
    /// Whether the entry covers this host and port.
    fn matches(&self, host: &str, port: u16) -> bool {
        let host = host.to_ascii_lowercase();
        let named = match self.host.strip_prefix('*') {
            Some(suffix) => host.ends_with(suffix) && host.len() > suffix.len(),
            None => host == self.host,
        };
        named && self.port.is_none_or(|listed| listed == port)
    }
}

impl Policy {
    /// `listed` and `own` hold `host`, `host:port`, `[v6]:port` or `*.suffix`. `own` are the hosts
    /// of the portal and of content; they are always refused.
    pub fn new(listed: &[String], own: &[String]) -> Self {
        Self {
            listed: listed
                .iter()
                .map(|entry| HostPattern::parse(entry))
                .collect(),
            own: own.iter().map(|entry| HostPattern::parse(entry)).collect(),
            own_port: None,
            sockets: Vec::new(),
        }
    }

    /// Adds the listener: one on all addresses (`0.0.0.0`, `[::]`) makes each address of this
    /// machine, with its port, the portal's own.
    #[must_use]
    pub fn with_listener(self, listen: SocketAddr) -> Self {
        let own_port = listen.ip().is_unspecified().then(|| listen.port());
        Self { own_port, ..self }
    }

    /// Adds the folders of Unix sockets that apps may listen on.
    #[must_use]
    pub fn with_sockets(self, folders: &[PathBuf]) -> Self {
        Self {
            sockets: folders.to_vec(),
            ..self
        }
    }

    /// The file of `unix:/folder/name.sock`; it must lie directly in a listed folder, else
    /// [`EgressError::Socket`].
    pub fn socket(&self, url: &Url) -> Result<PathBuf, EgressError> {
        let path = url.path();
        let plain = url.scheme() == "unix"
            && url.host().is_none()
            && !path.contains('%')
            && url.query().is_none()
            && url.fragment().is_none();
        let path = Path::new(path);
        let listed = path
            .parent()
            .is_some_and(|folder| self.sockets.iter().any(|listed| listed == folder));
        if plain && path.is_absolute() && path.file_name().is_some() && listed {
            Ok(path.to_owned())
        } else {
            Err(EgressError::Socket)
        }
    }

    /// Whether the operator's list covers this host and port.
    pub fn is_listed(&self, host: &str, port: u16) -> bool {
        self.listed.iter().any(|entry| entry.matches(host, port))
    }

    /// Parses and checks an address as typed; a bare host gets https. Resolves no names.
    pub fn parse(&self, text: &str, purpose: Purpose) -> Result<Url, EgressError> {
        let text = text.trim();
        let url = if is_bare_host(text) {
            Url::parse(&format!("https://{text}"))
        } else {
            Url::parse(text)
        };
        let url = url.map_err(|_| EgressError::NotAnAddress)?;
        self.check(&url, purpose)?;
        Ok(url)
    }

    /// Checks scheme, shape, and literal IP addresses. Resolves no names.
    pub fn check(&self, url: &Url, purpose: Purpose) -> Result<(), EgressError> {
        if url.scheme() == "unix" && purpose == Purpose::Upstream {
            return self.socket(url).map(drop);
        }
        if !matches!(url.scheme(), "http" | "https") {
            return Err(EgressError::NotAnAddress);
        }
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return Err(EgressError::NotAnAddress);
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(EgressError::Credentials);
        }
        if url.fragment().is_some() {
            return Err(EgressError::Fragment);
        }
        let name = host.to_string();
        if self.own.iter().any(|own| own.matches(&name, port)) {
            return Err(EgressError::OwnHost);
        }
        if url.scheme() == "http" && purpose == Purpose::Provider && !self.is_listed(&name, port) {
            return Err(EgressError::NotHttps);
        }
        match host {
            Host::Ipv4(ip) => self.check_ip(&name, port, IpAddr::V4(ip)),
            Host::Ipv6(ip) => self.check_ip(&name, port, IpAddr::V6(ip)),
            Host::Domain(domain) if domain == "localhost" || domain.ends_with(".localhost") => {
                if self.is_listed(&name, port) {
                    Ok(())
                } else {
                    Err(EgressError::Private)
                }
            }
            Host::Domain(_) => Ok(()),
        }
    }

    /// Like [`Policy::check_ip`], for a resolver that does not know the port: the address may be
    /// private if the host is listed with any port.
    pub fn check_ip_of_host(&self, host: &str, ip: IpAddr) -> Result<(), EgressError> {
        let listed = self
            .listed
            .iter()
            .find(|entry| entry.port.is_some_and(|port| self.is_listed(host, port)));
        self.check_ip(host, listed.and_then(|entry| entry.port).unwrap_or(0), ip)
    }

    /// Checks an IP address that `host` resolved to. IPv4-mapped IPv6 addresses are checked as
    /// IPv4.
    pub fn check_ip(&self, host: &str, port: u16, ip: IpAddr) -> Result<(), EgressError> {
        let ip = match ip {
            IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4),
            v4 => v4,
        };
        if is_never_allowed(ip) {
            return Err(EgressError::LinkLocal);
        }
        if self.own_port == Some(port) && is_of_this_machine(ip) {
            return Err(EgressError::OwnHost);
        }
        // What listens on this machine may rely on a firewall, which a connection from here passes.
        if self.is_listed(host, port) || (is_public(ip) && !is_of_this_machine(ip)) {
            Ok(())
        } else {
            Err(EgressError::Private)
        }
    }
}

/// Whether an address belongs to this machine: then a socket can be bound to it.
fn is_of_this_machine(ip: IpAddr) -> bool {
    ip.is_unspecified() || UdpSocket::bind((ip, 0)).is_ok()
}

/// Link-local addresses, and the IPv6 metadata address of AWS (`fd00:ec2::254`).
fn is_never_allowed(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => {
            v6.segments()[0] & 0xffc0 == 0xfe80
                || v6 == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)
        }
    }
}

/// Not in a special-purpose range. IPv4: private, loopback, CGNAT, benchmarking, documentation,
/// multicast, reserved, and Azure's platform address 168.63.129.16. IPv6: unique local, link-local,
/// multicast, documentation, and NAT64 and 6to4, which embed an IPv4 address.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_broadcast()
                || v4.is_documentation()
                || v4.is_multicast()
                || a == 0
                || (a == 100 && (64..128).contains(&b))
                || (a == 192 && b == 0 && c == 0)
                || (a == 198 && (b == 18 || b == 19))
                || a >= 240
                || v4 == Ipv4Addr::new(168, 63, 129, 16))
        }
        IpAddr::V6(v6) => {
            let head = v6.segments();
            !(v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || head[0] & 0xfe00 == 0xfc00
                || head[0] & 0xffc0 == 0xfe80
                || (head[0] == 0x64 && head[1] == 0xff9b)
                || (head[0] == 0x2001 && head[1] == 0xdb8)
                // Teredo, discard-only, site-local, and IPv4-compatible addresses.
                || (head[0] == 0x2001 && head[1] == 0)
                || (head[0] == 0x100 && head[1..4] == [0, 0, 0])
                || head[0] & 0xffc0 == 0xfec0
                || head[..6] == [0; 6]
                || head[0] == 0x2002)
        }
    }
}

/// Whether a text begins with a host name instead of a scheme, as people copy it from the bar of a
/// browser: `adb-1.azuredatabricks.net/`.
fn is_bare_host(text: &str) -> bool {
    let host = text.split('/').next().unwrap_or("");
    host.contains('.')
        && host.starts_with(|letter: char| letter.is_ascii_alphanumeric())
        && host
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(listed: &[&str]) -> Policy {
        Policy::new(
            &listed
                .iter()
                .map(|entry| (*entry).to_owned())
                .collect::<Vec<_>>(),
            &["portal.example:443".into()],
        )
    }

    #[test]
    fn private_hosts_work_only_when_listed() {
        for text in [
            "https://127.0.0.1:9",
            "https://10.1.2.3",
            "https://[::1]/",
            "https://localhost/x",
            "https://0x7f.1/",
            "https://2130706433/",
            "https://[::ffff:10.0.0.1]/",
        ] {
            assert_eq!(
                policy(&[]).parse(text, Purpose::Provider).unwrap_err(),
                EgressError::Private,
                "{text}"
            );
        }
        assert!(
            policy(&["127.0.0.1:9"])
                .parse("http://127.0.0.1:9/x", Purpose::Provider)
                .is_ok()
        );
        assert_eq!(
            policy(&["127.0.0.1:9"])
                .parse("http://127.0.0.1:8/x", Purpose::Provider)
                .unwrap_err(),
            EgressError::NotHttps
        );
        assert!(
            policy(&["*.corp.example"])
                .parse("http://a.corp.example", Purpose::Provider)
                .is_ok()
        );
        assert!(
            policy(&["[::1]:9"])
                .parse("http://[::1]:9/x", Purpose::Upstream)
                .is_ok()
        );
    }
    #[test]
    fn metadata_addresses_are_refused_even_when_listed() {
        for host in ["169.254.169.254", "[fe80::1]"] {
            assert_eq!(
                policy(&[host])
                    .parse(&format!("http://{host}/"), Purpose::Upstream)
                    .unwrap_err(),
                EgressError::LinkLocal
            );
        }
    }
    #[test]
    fn credentials_fragments_other_schemes_and_own_hosts_are_refused() {
        let open = policy(&[]);
        assert_eq!(
            open.parse("https://user:pw@example.org", Purpose::Upstream)
                .unwrap_err(),
            EgressError::Credentials
        );
        assert_eq!(
            open.parse("ftp://example.org", Purpose::Upstream)
                .unwrap_err(),
            EgressError::NotAnAddress
        );
        assert_eq!(
            open.parse("https://portal.example/x", Purpose::Upstream)
                .unwrap_err(),
            EgressError::OwnHost
        );
        assert_eq!(
            open.parse("https://example.org/#x", Purpose::Upstream)
                .unwrap_err(),
            EgressError::Fragment
        );
        assert_eq!(
            open.parse("http://example.org/", Purpose::Provider)
                .unwrap_err(),
            EgressError::NotHttps
        );
        assert!(open.parse("http://example.org/", Purpose::Upstream).is_ok());
    }
    #[test]
    fn the_resolved_address_is_checked_too() {
        assert_eq!(
            policy(&[]).check_ip("rebind.example", 443, "10.0.0.1".parse().unwrap()),
            Err(EgressError::Private)
        );
        assert_eq!(
            policy(&["rebind.example"]).check_ip(
                "rebind.example",
                443,
                "169.254.1.1".parse().unwrap()
            ),
            Err(EgressError::LinkLocal)
        );
        assert!(
            policy(&[])
                .check_ip("example.org", 443, "93.184.216.34".parse().unwrap())
                .is_ok()
        );
    }
}
