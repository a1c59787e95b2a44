//! App sessions that can be resumed by their id alone (Streamlit).
//!
//! On a reconnect, Streamlit's client offers the subprotocols `streamlit, <token>, <previous
//! session id>`, and the server hands that app session, with all that its viewer sees, to any
//! client that names its id. So the portal records the viewer to whom an app sent an id, and drops
//! the id from a handshake of anyone else. Streamlit does not check the first subprotocol, so
//! neither does this module. Ids are stored as hashes only.

use crate::{
    service::{Services, cluster::app_sessions::AppSessionOwner},
    vault::api_key::digest,
};
use std::sync::Arc;

/// Length of a UUID as text, in bytes.
const UUID_LENGTH: usize = 36;
/// The search for ids covers the first [`MAX_SNIFFED_BYTES`] bytes that an app sends on a
/// WebSocket, and ends after [`MAX_IDS`] ids.
const MAX_SNIFFED_BYTES: usize = 256 * 1024;
const MAX_IDS: usize = 8;

/// The id of the app session that a client wants to resume.
pub struct ResumeId<'a>(&'a str);

impl<'a> ResumeId<'a> {
    /// Finds the id among the subprotocols that the client offers, in their order.
    pub fn from_protocols(offered: &[&'a str]) -> Option<Self> {
        // By position alone: Streamlit does not check the first subprotocol.
        match offered {
            [_, _, id, ..] if uuids(id.as_bytes()).next().is_some() => Some(Self(id)),
            _ => None,
        }
    }

    /// The hash by which the id is known.
    pub fn hash(&self) -> String {
        digest(self.0)
    }
}

/// Searches the first bytes that an app sends on one WebSocket for app session ids, and records
/// them as this viewer's.
pub struct Sniffer {
    service: Arc<Services>,
    owner: AppSessionOwner,
    /// The last bytes of the previous piece: an id may be split across two reads.
    tail: Vec<u8>,
    sniffed_bytes: usize,
    found: Vec<String>,
}

impl Sniffer {
    /// For one WebSocket of the owner.
    pub fn new(service: Arc<Services>, owner: AppSessionOwner) -> Self {
        Self {
            service,
            owner,
            tail: Vec::new(),
            sniffed_bytes: 0,
            found: Vec::new(),
        }
    }

    /// Searches the next bytes; `false` once no more are needed.
    pub fn feed(&mut self, bytes: &[u8]) -> bool {
        self.sniffed_bytes += bytes.len();
        let mut text = std::mem::take(&mut self.tail);
        text.extend_from_slice(bytes);
        for id in uuids(&text) {
            if self.found.len() < MAX_IDS && !self.found.iter().any(|known| known == id) {
                self.found.push(id.to_owned());
                self.service.app_sessions.note(digest(id), self.owner);
            }
        }
        self.tail = text.split_off(text.len().saturating_sub(UUID_LENGTH - 1));
        self.sniffed_bytes < MAX_SNIFFED_BYTES && self.found.len() < MAX_IDS
    }
}

/// All substrings that have the form of a UUID, overlapping ones included.
fn uuids(bytes: &[u8]) -> impl Iterator<Item = &str> {
    bytes.windows(UUID_LENGTH).filter_map(|window| {
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
    fn session_ids_are_found_among_other_bytes() {
        let message = b"\x82\x7e\x00\x50\x0a$198667fd-393d-4905-873c-3a9abc1f37a6\x12\x05hello-world-0000-1111";
        assert_eq!(
            uuids(message).collect::<Vec<_>>(),
            ["198667fd-393d-4905-873c-3a9abc1f37a6"]
        );
        assert_eq!(uuids(b"198667fd-393d-4905-873c-3a9abc1f37a").count(), 0);
    }
    #[test]
    fn an_id_in_third_position_resumes_an_app_session() {
        let id = "198667fd-393d-4905-873c-3a9abc1f37a6";
        assert!(ResumeId::from_protocols(&["streamlit", "x", id]).is_some());
        assert!(
            ResumeId::from_protocols(&["anything", "x", id]).is_some(),
            "the server looks at the place, not at the name"
        );
        assert!(ResumeId::from_protocols(&["anything", "x", &format!("x{id}")]).is_some());
        assert!(ResumeId::from_protocols(&["streamlit", "x"]).is_none());
        assert!(ResumeId::from_protocols(&["mqtt", "x", "y"]).is_none());
    }
}
