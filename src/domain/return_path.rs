//! Where to go after signing in or consenting: only ever a path of ours (no open redirector, RFC
//! 9700 section 4.11).

/// A path and query on this portal, parsed as a browser would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReturnPath(String);

impl ReturnPath {
    /// Accepts `/` followed by anything that cannot leave this origin; refuses `//`, `/\`, control
    /// characters and dot segments.
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
        // The last word has the parser that browsers share.
        let base = url::Url::parse("https://portal.invalid/").ok()?;
        let joined = base.join(text).ok()?;
        (ours && joined.host_str() == Some("portal.invalid") && joined.scheme() == "https")
            .then(|| Self(text.to_owned()))
    }
    /// The consents page, for when there is nowhere else to go back to.
    pub fn consents() -> Self {
        Self("/consents".to_owned())
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_ours_come_back_unchanged() {
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
    fn nothing_leads_to_another_site() {
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
