//! Every URL that is written into a page, a response or a redirect, built in one place. The routes
//! themselves are in `web/routes.rs`.

use super::{
    Id, connection::Connection, consent::Consent, content::Content, group::Group,
    integration::Integration, person::Person, return_path::ReturnPath,
};
use url::form_urlencoded::byte_serialize;

/// Percent-encodes one query value.
pub fn query(value: &str) -> String {
    byte_serialize(value.as_bytes()).collect()
}

/// Absolute URLs, below the portal's public URL.
#[derive(Clone, Debug)]
pub struct Addresses {
    base: String,
}

impl Addresses {
    /// `base` is the public URL; a trailing slash is dropped.
    pub fn new(base: &str) -> Self {
        Self {
            base: base.trim_end_matches('/').to_owned(),
        }
    }
    /// The public URL, without a trailing slash.
    pub fn base(&self) -> &str {
        &self.base
    }
    /// The absolute URL of a path on the portal.
    pub fn absolute(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
    /// The portal page to which content's origin sends a browser without a content session.
    /// `nonce_hash` binds the answer to that browser; `path` is the app's own path.
    pub fn enter(&self, content: Id<Content>, nonce_hash: &str, path: &str) -> String {
        self.absolute(&format!(
            "/enter/{content}?nonce={nonce_hash}&path={}",
            query(path)
        ))
    }
    /// The OAuth callback that is shared by all integrations whose provider hosts are fixed by
    /// their template.
    pub fn shared_callback(&self) -> String {
        self.absolute("/__oauth__/integrations/callback")
    }
    /// The OAuth callback of one integration whose provider addresses were typed in (mix-up
    /// defence, RFC 9700 section 4.4).
    pub fn own_callback(&self, integration: Id<Integration>) -> String {
        self.absolute(&format!("/__oauth__/integrations/{integration}/callback"))
    }
}

/// The page on which a person asks to be let into an item.
pub fn request_access(content: Id<Content>) -> String {
    format!("/access/{content}")
}

/// The page of how often a consent was used.
pub fn consent_uses(consent: Id<Consent>) -> String {
    format!("/consents/{consent}/uses")
}

/// The sign-in page; `back` is where it leads afterwards.
pub fn login(back: Option<&ReturnPath>) -> String {
    match back {
        Some(path) => format!("/login?next={}", query(path.as_str())),
        None => "/login".into(),
    }
}
/// The app of a content item. Ends with a slash: apps build relative URLs from it.
pub fn app(content: Id<Content>) -> String {
    format!("/content/{content}/")
}
/// The settings of a content item.
pub fn content_settings(content: Id<Content>) -> String {
    format!("/content-settings/{content}")
}
/// The page of the processes, deploys and logs of a content item that runs here.
pub fn content_runs(content: Id<Content>) -> String {
    format!("/content-settings/{content}/runs")
}
/// The page of an integration.
pub fn integration(integration: Id<Integration>) -> String {
    format!("/integrations/{integration}")
}
/// The page of a person.
pub fn person(person: Id<Person>) -> String {
    format!("/people/{person}")
}
/// The page of a group.
pub fn group(group: Id<Group>) -> String {
    format!("/groups/{group}")
}
/// Where a form posts to revoke a consent.
pub fn revoke(consent: Id<Consent>) -> String {
    format!("/consents/{consent}/revoke")
}
/// Where a form posts to end a connection.
pub fn disconnect(connection: Id<Connection>) -> String {
    format!("/connections/{connection}/disconnect")
}
/// The consent page for a content item; `back` is where it leads afterwards.
pub fn consent(content: Id<Content>, back: &ReturnPath) -> String {
    format!(
        "/consents/new?content={content}&return={}",
        query(back.as_str())
    )
}
/// The consent page for renewing a connection, without a content item.
pub fn reconnect(integration: Id<Integration>) -> String {
    format!("/consents/new?integration={integration}")
}
