//! The separation of origins: which `Host` belongs to the portal and which to content, and at
//! which address each content item is served.
//!
//! Content is code of other people. On an origin of its own, its scripts cannot reach the portal's
//! pages; with one origin per item they cannot reach one another either (promise 9). Content shares
//! the portal's origin only if the operator sets `same-origin`.

use super::{Id, addresses, content::Content};
use url::Url;

/// Where content is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContentOrigin {
    /// Not configured: content is not served.
    Unset,
    /// On the portal's origin, below `/content/{guid}/`.
    Same,
    /// On one second origin, each item below `/content/{guid}/`.
    Shared { origin: String },
    /// On an origin per item: `{scheme}://{slug}{suffix}`.
    Wildcard { scheme: String, suffix: String },
}

/// What the host of a request stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostKind<'a> {
    Portal,
    /// The host that all content shares.
    Content,
    /// One item's own host; holds its slug.
    Item(&'a str),
    Unknown,
}

/// The public address of one content item.
#[derive(Clone, Debug)]
pub struct ContentLocation {
    pub content: Id<Content>,
    /// Scheme, host and port.
    pub origin: String,
    /// The path below which everything belongs to the app. Begins and ends with a slash.
    pub base: String,
}

impl ContentLocation {
    /// The full URL of an app path (`rest`, without a leading slash).
    pub fn address(&self, rest: &str) -> String {
        format!("{}{}{rest}", self.origin, self.base)
    }
}

/// Tells portal and content apart by host.
#[derive(Clone, Debug)]
pub struct Origins {
    /// The portal's origin.
    portal: String,
    /// The portal's host and port, as in the `Host` header of a browser.
    authority: String,
    /// The default port of the scheme that the portal and content share, with its colon.
    default_port: &'static str,
    pub content: ContentOrigin,
}

/// Why the setting `content_url` is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContentUrlError {
    #[error(
        "content_url must be an address such as https://*.apps.example.org or https://content.example.org, or the word same-origin"
    )]
    NotAnAddress,
    #[error(
        "content_url must have the scheme of public_url: the one's cookies would be lost or exposed on the other"
    )]
    Scheme,
    #[error(
        "content_url must name another host than public_url (another port does not separate cookies), or be the word same-origin"
    )]
    SameHost,
}

fn origin_of(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// Host and port of an origin on http or https.
fn authority_of(origin: &str) -> &str {
    let https = origin.strip_prefix("https://");
    https
        .or_else(|| origin.strip_prefix("http://"))
        .unwrap_or(origin)
}

/// With its colon.
fn default_port(origin: &str) -> &'static str {
    if origin.starts_with("https:") {
        ":443"
    } else {
        ":80"
    }
}

impl Origins {
    /// `setting` is the operator's `content_url`. Without one, a portal on `localhost` serves
    /// content on `127.0.0.1` and vice versa; any other portal serves none.
    pub fn new(public_url: &Url, setting: Option<&str>) -> Result<Self, ContentUrlError> {
        let portal = origin_of(public_url);
        let content = match setting.map(str::trim).filter(|text| !text.is_empty()) {
            Some("same-origin") => ContentOrigin::Same,
            Some(text) => parse(public_url, text)?,
            None => match other_loopback(public_url) {
                Some(origin) => ContentOrigin::Shared { origin },
                None => ContentOrigin::Unset,
            },
        };
        Ok(Self {
            authority: authority_of(&portal).to_owned(),
            default_port: default_port(&portal),
            portal,
            content,
        })
    }

    /// What a host (`Host` or `:authority`, as sent) stands for.
    pub fn host<'a>(&self, host: &'a str) -> HostKind<'a> {
        let host = host.strip_suffix(self.default_port).unwrap_or(host);
        if host.eq_ignore_ascii_case(&self.authority) {
            return HostKind::Portal;
        }
        match &self.content {
            ContentOrigin::Shared { origin } if host.eq_ignore_ascii_case(authority_of(origin)) => {
                HostKind::Content
            }
            ContentOrigin::Wildcard { suffix, .. } => match split_label(host, suffix) {
                Some(slug) => HostKind::Item(slug),
                None => HostKind::Unknown,
            },
            _ => HostKind::Unknown,
        }
    }

    /// An item's public address; `None` while content is not served.
    pub fn location(&self, content: Id<Content>, slug: &str) -> Option<ContentLocation> {
        let (origin, base) = match &self.content {
            ContentOrigin::Unset => return None,
            ContentOrigin::Same => (self.portal.clone(), addresses::app(content)),
            ContentOrigin::Shared { origin } => (origin.clone(), addresses::app(content)),
            ContentOrigin::Wildcard { scheme, suffix } => {
                (format!("{scheme}://{slug}{suffix}"), "/".to_owned())
            }
        };
        Some(ContentLocation {
            content,
            origin,
            base,
        })
    }

    /// Whether content shares the portal's origin.
    pub fn is_same_origin(&self) -> bool {
        self.content == ContentOrigin::Same
    }

    /// CSP source expressions of content's origins, for `form-action`. Chromium applies
    /// `form-action` to the whole redirect chain after a form post, and that chain ends at the
    /// content item.
    pub fn form_targets(&self) -> Vec<String> {
        match &self.content {
            ContentOrigin::Shared { origin } => vec![origin.clone()],
            ContentOrigin::Wildcard { scheme, suffix } => vec![format!("{scheme}://*{suffix}")],
            ContentOrigin::Same | ContentOrigin::Unset => Vec::new(),
        }
    }

    /// `host:port` of the portal and of content, for the egress policy; `*` stands for any first
    /// label.
    pub fn own_hosts(&self) -> Vec<String> {
        let mut own = vec![with_port(&self.portal)];
        match &self.content {
            ContentOrigin::Shared { origin } => own.push(with_port(origin)),
            ContentOrigin::Wildcard { scheme, suffix } => {
                own.push(with_port(&format!("{scheme}://*{suffix}")))
            }
            ContentOrigin::Same | ContentOrigin::Unset => {}
        }
        own
    }
}

/// The authority of an origin, with the default port if it names none.
fn with_port(origin: &str) -> String {
    let authority = authority_of(origin);
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| {
        !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
    });
    if has_port {
        authority.to_owned()
    } else {
        format!("{authority}{}", default_port(origin))
    }
}

/// The slug in `{slug}{suffix}`: exactly one lower-case DNS label.
fn split_label<'a>(host: &'a str, suffix: &str) -> Option<&'a str> {
    let (label, rest) = host.split_at_checked(host.len().checked_sub(suffix.len())?)?;
    let legal = !label.is_empty()
        && label
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    (legal && rest.eq_ignore_ascii_case(suffix)).then_some(label)
}

/// Parses and checks `content_url`, except for `same-origin`.
fn parse(public_url: &Url, text: &str) -> Result<ContentOrigin, ContentUrlError> {
    let wildcard = text.contains("://*.");
    let url = Url::parse(&text.replacen("://*.", "://wildcard.", 1))
        .map_err(|_| ContentUrlError::NotAnAddress)?;
    let bare = url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    if !matches!(url.scheme(), "http" | "https")
        || !bare
        || url.host_str().is_none()
        || text.matches('*').count() > usize::from(wildcard)
    {
        return Err(ContentUrlError::NotAnAddress);
    }
    if url.scheme() != public_url.scheme() {
        return Err(ContentUrlError::Scheme);
    }
    let origin = origin_of(&url);
    if wildcard {
        let suffix = authority_of(&origin)
            .trim_start_matches("wildcard")
            .to_owned();
        // The portal's host must not match the wildcard.
        if split_label(authority_of(&origin_of(public_url)), &suffix).is_some() {
            return Err(ContentUrlError::SameHost);
        }
        return Ok(ContentOrigin::Wildcard {
            scheme: url.scheme().to_owned(),
            suffix,
        });
    }
    if url.host_str() == public_url.host_str() {
        return Err(ContentUrlError::SameHost);
    }
    Ok(ContentOrigin::Shared { origin })
}

/// For a portal on a loopback name: the same origin under the other loopback name.
fn other_loopback(public_url: &Url) -> Option<String> {
    let other = match public_url.host_str()? {
        "127.0.0.1" => "localhost",
        "localhost" => "127.0.0.1",
        _ => return None,
    };
    let mut url = public_url.clone();
    url.set_host(Some(other)).ok()?;
    Some(origin_of(&url))
}

/// The DNS label of an item's own host: at most 40 characters of its name, and `unlike`, which
/// makes it unique.
pub fn slug(name: &str, unlike: &str) -> String {
    let mut label = String::new();
    for letter in name.to_ascii_lowercase().chars() {
        if letter.is_ascii_alphanumeric() {
            label.push(letter);
        } else if !label.is_empty() && !label.ends_with('-') {
            label.push('-');
        }
    }
    label.truncate(40);
    let label = label.trim_matches('-');
    if label.is_empty() {
        format!("app-{unlike}")
    } else {
        format!("{label}-{unlike}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(public: &str, setting: Option<&str>) -> Result<Origins, ContentUrlError> {
        Origins::new(&Url::parse(public).unwrap(), setting)
    }

    #[test]
    fn hosts_are_told_apart() {
        let shared = origins(
            "https://portal.example.org",
            Some("https://content.example.org"),
        )
        .unwrap();
        assert_eq!(shared.host("portal.example.org"), HostKind::Portal);
        assert_eq!(shared.host("Portal.Example.org:443"), HostKind::Portal);
        assert_eq!(shared.host("content.example.org"), HostKind::Content);
        for other in [
            "",
            "example.org",
            "portal.example.org:8443",
            "portal.example.org.evil.example",
            "x.content.example.org",
        ] {
            assert_eq!(shared.host(other), HostKind::Unknown, "{other}");
        }
        let each = origins(
            "https://portal.example.org",
            Some("https://*.apps.example.org:8443"),
        )
        .unwrap();
        assert_eq!(
            each.host("sales-1.apps.example.org:8443"),
            HostKind::Item("sales-1")
        );
        for other in [
            "sales-1.apps.example.org",
            ".apps.example.org:8443",
            "a.b.apps.example.org:8443",
            "SALES.apps.example.org:8443",
        ] {
            assert_eq!(each.host(other), HostKind::Unknown, "{other}");
        }
        let place = each.location(Id::random(), "sales-1").unwrap();
        assert_eq!(
            place.address("x?y"),
            "https://sales-1.apps.example.org:8443/x?y"
        );
    }
    #[test]
    fn content_shares_the_portals_origin_only_if_the_operator_says_so() {
        assert_eq!(
            origins("https://portal.example.org", None).unwrap().content,
            ContentOrigin::Unset
        );
        assert_eq!(
            origins("http://127.0.0.1:8080", None).unwrap().content,
            ContentOrigin::Shared {
                origin: "http://localhost:8080".into()
            }
        );
        assert!(
            origins("https://portal.example.org", Some("same-origin"))
                .unwrap()
                .is_same_origin()
        );
        for (setting, problem) in [
            ("https://portal.example.org", ContentUrlError::SameHost),
            ("https://portal.example.org:8443", ContentUrlError::SameHost),
            ("https://*.example.org", ContentUrlError::SameHost),
            ("http://content.example.org", ContentUrlError::Scheme),
            (
                "https://content.example.org/path",
                ContentUrlError::NotAnAddress,
            ),
            ("https://*.*.example.org", ContentUrlError::NotAnAddress),
            ("https://apps.*.example.org", ContentUrlError::NotAnAddress),
            ("same origin", ContentUrlError::NotAnAddress),
        ] {
            assert_eq!(
                origins("https://portal.example.org", Some(setting)).unwrap_err(),
                problem,
                "{setting}"
            );
        }
    }
    #[test]
    fn slugs_are_dns_labels() {
        assert_eq!(
            slug("Sales dashboard (EU)", "k3v9"),
            "sales-dashboard-eu-k3v9"
        );
        assert_eq!(slug("売上", "k3v9"), "app-k3v9");
        assert!(slug(&"x".repeat(300), "k3v9").len() < 63);
    }
}
