//! Sessions that an app takes up again by their id alone. Streamlit's browser offers `streamlit,
//! <token>, <id of the session before>` when it connects again, and the server hands that session,
//! with all that its viewer sees, to whoever names it. So the portal remembers whom an id was given
//! to, and lets nobody else name it.

use crate::{
    domain::{Id, content::Content, person::Person},
    service::{Error, Service},
    store::moments,
    vault::api_key::digest,
};
use std::sync::Arc;

const LENGTH: usize = 36;
/// Where the id stands in what the app says first, and how many such texts are remembered of one
/// socket.
const LOOKED_AT: usize = 256 * 1024;
const MOST: usize = 8;

/// The id under which a browser wants to go on.
pub struct Resumes<'a>(&'a str);

impl<'a> Resumes<'a> {
    pub fn of(offered: &[&'a str]) -> Option<Self> {
        // By its place alone: Streamlit does not look at the first word.
        match offered {
            [_, _, id, ..] if ids(id.as_bytes()).next().is_some() => Some(Self(id)),
            _ => None,
        }
    }

    /// Whether the app gave this id to this viewer. What nobody was seen to get is nobody's.
    pub async fn belongs_to(
        &self,
        service: &Service,
        item: Id<Content>,
        viewer: Option<Id<Person>>,
    ) -> bool {
        let hash = digest(self.0);
        let found = service
            .store
            .read(move |db| Ok::<_, Error>(moments::app_session(db, &hash, item)?))
            .await;
        found.ok().flatten().is_some_and(|owner| owner == viewer)
    }
}

/// Looks for ids in what an app says first.
pub struct Sniffer {
    service: Arc<Service>,
    item: Id<Content>,
    viewer: Option<Id<Person>>,
    /// The last bytes: an id may be cut in two.
    tail: Vec<u8>,
    looked_at: usize,
    found: Vec<String>,
}

impl Sniffer {
    pub fn new(service: Arc<Service>, item: Id<Content>, viewer: Option<Id<Person>>) -> Self {
        Self {
            service,
            item,
            viewer,
            tail: Vec::new(),
            looked_at: 0,
            found: Vec::new(),
        }
    }

    /// `false` once it has seen enough.
    pub fn feed(&mut self, bytes: &[u8]) -> bool {
        self.looked_at += bytes.len();
        let mut text = std::mem::take(&mut self.tail);
        text.extend_from_slice(bytes);
        for id in ids(&text) {
            if self.found.len() < MOST && !self.found.iter().any(|known| known == id) {
                self.found.push(id.to_owned());
                let (hash, item, viewer, now) =
                    (digest(id), self.item, self.viewer, self.service.now());
                self.service
                    .note_later("whose session of an app this is", move |db| {
                        moments::keep_app_session(db, &hash, item, viewer, now)
                    });
            }
        }
        self.tail = text.split_off(text.len().saturating_sub(LENGTH - 1));
        self.looked_at < LOOKED_AT && self.found.len() < MOST
    }
}

/// Texts of the form of a UUID.
fn ids(bytes: &[u8]) -> impl Iterator<Item = &str> {
    bytes.windows(LENGTH).filter_map(|window| {
        let fits = window.iter().enumerate().all(|(place, byte)| match place {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
        if fits {
            std::str::from_utf8(window).ok()
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_among_other_bytes() {
        let message = b"\x82\x7e\x00\x50\x0a$198667fd-393d-4905-873c-3a9abc1f37a6\x12\x05hello-world-0000-1111";
        assert_eq!(
            ids(message).collect::<Vec<_>>(),
            ["198667fd-393d-4905-873c-3a9abc1f37a6"]
        );
        assert_eq!(ids(b"198667fd-393d-4905-873c-3a9abc1f37a").count(), 0);
    }
    #[test]
    fn an_id_in_the_third_place_goes_on_with_a_session() {
        let id = "198667fd-393d-4905-873c-3a9abc1f37a6";
        assert!(Resumes::of(&["streamlit", "x", id]).is_some());
        assert!(
            Resumes::of(&["anything", "x", id]).is_some(),
            "the server looks at the place, not at the name"
        );
        assert!(Resumes::of(&["anything", "x", &format!("x{id}")]).is_some());
        assert!(Resumes::of(&["streamlit", "x"]).is_none());
        assert!(Resumes::of(&["mqtt", "x", "y"]).is_none());
    }
}
