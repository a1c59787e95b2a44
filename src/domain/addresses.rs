//! Every address that is written into a page, an answer or a redirect, built in one place.

use super::{
    Id, connection::Connection, consent::Consent, content::Content, group::Group,
    integration::Integration, person::Person, return_path::ReturnPath,
};
use url::form_urlencoded::byte_serialize;

/// Escapes one query value.
pub fn query(value: &str) -> String {
    byte_serialize(value.as_bytes()).collect()
}

/// Addresses that begin with the public address of the portal.
#[derive(Clone, Debug)]
pub struct Addresses {
    base: String,
}

impl Addresses {
    pub fn new(base: &str) -> Self {
        Self {
            base: base.trim_end_matches('/').to_owned(),
        }
    }
    pub fn base(&self) -> &str {
        &self.base
    }
    /// A path of ours as a full address.
    pub fn absolute(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
    /// Where content's origin asks who a browser belongs to; `path` is the app's own.
    pub fn enter(&self, content: Id<Content>, nonce_hash: &str, path: &str) -> String {
        self.absolute(&format!(
            "/enter/{content}?nonce={nonce_hash}&path={}",
            query(path)
        ))
    }
    /// The callback that all integrations with fixed hosts share.
    pub fn shared_callback(&self) -> String {
        self.absolute("/__oauth__/integrations/callback")
    }
    /// The callback of one integration whose addresses somebody typed (mix-up defence, RFC 9700
    /// section 4.4).
    pub fn own_callback(&self, integration: Id<Integration>) -> String {
        self.absolute(&format!("/__oauth__/integrations/{integration}/callback"))
    }
}

pub fn login(back: Option<&ReturnPath>) -> String {
    match back {
        Some(path) => format!("/login?next={}", query(path.as_str())),
        None => "/login".into(),
    }
}
pub fn app(content: Id<Content>) -> String {
    format!("/content/{content}/")
}
pub fn content_settings(content: Id<Content>) -> String {
    format!("/content-settings/{content}")
}
pub fn integration(integration: Id<Integration>) -> String {
    format!("/integrations/{integration}")
}
pub fn person(person: Id<Person>) -> String {
    format!("/people/{person}")
}
pub fn group(group: Id<Group>) -> String {
    format!("/groups/{group}")
}
pub fn revoke(consent: Id<Consent>) -> String {
    format!("/consents/{consent}/revoke")
}
pub fn disconnect(connection: Id<Connection>) -> String {
    format!("/connections/{connection}/disconnect")
}
/// Our consent page for a content item.
pub fn consent(content: Id<Content>, back: &ReturnPath) -> String {
    format!(
        "/consents/new?content={content}&return={}",
        query(back.as_str())
    )
}
/// Our page for connecting again, for no content in particular.
pub fn reconnect(integration: Id<Integration>) -> String {
    format!("/consents/new?integration={integration}")
}
