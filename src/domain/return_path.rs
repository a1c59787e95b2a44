//! The path to which the browser returns after signing in or consenting. Always a path on this
//! portal: no open redirector (RFC 9700 section 4.11).

/// A path on this portal, with its query and fragment; at most 2048 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReturnPath(String);

impl ReturnPath {
    /// Accepts a path that cannot leave this origin. `None` for `//`, backslashes, blanks and
    /// control characters, dot segments (`%2e` included), and for more than 2048 bytes.
    pub fn parse(text: &str) -> Option<Self> {
        let path = text.split(['?', '#']).next().unwrap_or("");
        let ours = text.len() <= 2048
            && text.starts_with('/')
            && !path.contains("//")
            && !text.contains('\\')
            && text.bytes().all(|byte| byte > 0x20 && byte != 0x7f)
            && !path
                .to_ascii_lowercase()
                .replace("%2e", ".")
                .split('/')
                .any(|part| part == "." || part == "..")
            && !path.to_ascii_lowercase().contains("%5c");
        // Finally the WHATWG URL parser, which browsers implement, must stay on the origin.
        let base = url::Url::parse("https://portal.invalid/").ok()?;
        let joined = base.join(text).ok()?;
        (ours && joined.host_str() == Some("portal.invalid") && joined.scheme() == "https")
            .then(|| Self(text.to_owned()))
    }
    /// The consents page: where the browser goes if no path was given.
    pub fn consents() -> Self {
        Self("/consents".to_owned())
    }
    /// The path as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_paths_are_accepted_unchanged() {
        for path in [
            "/",
            "/content/1/?a=b%20c#d",
            "/consents",
            "/content/x/a//b".replace("//", "/").as_str(),
            "/x?u=http://y//z",
        ] {
            assert_eq!(
                ReturnPath::parse(path)
                    .map(|parsed| parsed.as_str().to_owned())
                    .as_deref(),
                Some(path)
            );
        }
    }
    #[test]
    fn paths_that_could_leave_the_origin_are_refused() {
        for path in [
            "",
            "evil.example",
            "//evil.example",
            "/\\evil.example",
            "/\t/evil.example",
            "/a//evil",
            "https://evil.example",
            "/..//evil",
            "/%2e%2e/x",
            "/a/../b",
            "/a\n",
            "javascript:alert(1)",
            "/%5cevil.example",
            "\\\\evil",
        ] {
            assert_eq!(ReturnPath::parse(path), None, "{path:?}");
        }
    }
}
