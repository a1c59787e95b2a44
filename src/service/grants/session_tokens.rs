//! Session tokens: short-lived signed tokens that the proxy puts into requests to content, and that
//! content exchanges. Owns which tokens are held: a token stays exchangeable beyond its lifetime
//! while the WebSocket or event stream that it was made for is open, here or on another node.

use crate::{
    domain::{
        Id,
        content::{Content, ProcessId},
        person::{Person, SignedIn},
    },
    service::{
        cluster::node::{HEARTBEAT_TIMEOUT, Nodes},
        core::Core,
        error::Error,
    },
    store::{
        self, Db,
        bookkeeping::{self, MAX_ROWS},
        short_lived,
    },
    vault::{
        api_key::digest,
        session_token::{Claims, InvalidToken, SessionTokenSigner},
    },
};
use parking_lot::Mutex;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

/// Guard that keeps a session token exchangeable past its expiry, for one open WebSocket or event
/// stream. Dropping it ends this hold; other holds on the same token remain.
pub struct HeldToken {
    tokens: Arc<SessionTokens>,
    token: String,
}

impl Drop for HeldToken {
    fn drop(&mut self) {
        let mut held = self.tokens.held_tokens.lock();
        if let Some(open) = held.get_mut(&self.token) {
            *open -= 1;
            if *open == 0 {
                held.remove(&self.token);
            }
        }
    }
}

/// Why a session token gives no claims.
#[derive(Debug)]
pub(in crate::service) enum ClaimsError {
    Invalid(InvalidToken),
    /// Whether it is held could not be looked up.
    Service(Error),
}

impl From<Error> for ClaimsError {
    fn from(error: Error) -> Self {
        ClaimsError::Service(error)
    }
}

/// Tokens are shared with the other nodes this long before they expire.
const SHARE_BEFORE_EXPIRY: Duration = Duration::from_secs(40);

/// A function that writes the hashes of tokens that a node holds.
type WriteHashes = fn(&mut Db<'_>, &str, &[String]) -> Result<(), store::Error>;

/// Mints, verifies and holds session tokens.
pub struct SessionTokens {
    core: Arc<Core>,
    nodes: Arc<Nodes>,
    signer: SessionTokenSigner,
    /// Tokens, with the number of open WebSockets and streams that hold each.
    held_tokens: Mutex<HashMap<String, usize>>,
    /// Hashes of those that the other nodes know of.
    shared_held_tokens: Mutex<HashSet<String>>,
}

impl SessionTokens {
    pub(in crate::service) fn new(core: Arc<Core>, nodes: Arc<Nodes>) -> Self {
        let signer = SessionTokenSigner::new(
            &core.session_root,
            core.settings.base().to_owned(),
            core.settings.session_token_lifetime,
        );
        Self {
            signer,
            core,
            nodes,
            held_tokens: Mutex::default(),
            shared_held_tokens: Mutex::default(),
        }
    }

    /// Mints the session token that the proxy puts into requests to an app. It names the process
    /// that gets it, so that the leak alarm knows which process used it. `None` if signing fails.
    pub fn session_token(
        &self,
        person: Id<Person>,
        content: Id<Content>,
        signed_in: SignedIn,
        process: ProcessId,
    ) -> Option<String> {
        self.signer
            .mint(person, content, signed_in, process, self.core.now())
    }

    /// Keeps a session token exchangeable past its expiry, until the returned guard is dropped: for
    /// as long as the WebSocket or event stream that it was minted for is open. Every exchange
    /// still checks session, access and consent.
    pub fn hold_token(self: &Arc<Self>, token: &str) -> HeldToken {
        *self.held_tokens.lock().entry(token.to_owned()).or_default() += 1;
        HeldToken {
            tokens: Arc::clone(self),
            token: token.to_owned(),
        }
    }

    /// How many tokens are held on this node.
    pub fn held(&self) -> usize {
        self.held_tokens.lock().len()
    }

    /// The claims of a genuine session token that is either unexpired or held, on this node or
    /// another one.
    pub(in crate::service) async fn session_claims(
        &self,
        token: &str,
    ) -> Result<Arc<Claims>, ClaimsError> {
        match self.signer.verify(token, self.core.now()) {
            Err(InvalidToken::Expired) => {
                let claims = self
                    .signer
                    .read_any_age(token)
                    .map_err(ClaimsError::Invalid)?;
                if !self.held_tokens.lock().contains_key(token) {
                    let hash = digest(token);
                    let alive_since = self.core.now().minus(HEARTBEAT_TIMEOUT);
                    if !self
                        .core
                        .store
                        .read(move |db| {
                            Ok::<_, Error>(short_lived::is_token_held(db, &hash, alive_since)?)
                        })
                        .await?
                    {
                        return Err(ClaimsError::Invalid(InvalidToken::Expired));
                    }
                }
                Ok(claims)
            }
            other => other.map_err(ClaimsError::Invalid),
        }
    }

    /// Shares with the other nodes, as hashes, the held tokens that are expired or about to expire
    /// (in 40 s), and withdraws those that are no longer held. Called every 10 s, and writes only
    /// what changed: a shared token is valid for as long as this node sends heartbeats.
    pub async fn share_held_tokens(&self) -> Result<(), Error> {
        let soon = self.core.now().plus(SHARE_BEFORE_EXPIRY);
        let held: Vec<String> = self.held_tokens.lock().keys().cloned().collect();
        let late = held
            .into_iter()
            .filter(|token| self.signer.verify(token, soon) == Err(InvalidToken::Expired));
        let wanted: HashSet<String> = late.map(|token| digest(&token)).collect();
        let (added, dropped): (Vec<String>, Vec<String>) = {
            let shared = self.shared_held_tokens.lock();
            (
                wanted.difference(&shared).cloned().collect(),
                shared.difference(&wanted).cloned().collect(),
            )
        };
        for (hashes, write) in [
            (added, bookkeeping::hold_tokens as WriteHashes),
            (dropped, bookkeeping::release_tokens),
        ] {
            for part in hashes.chunks(MAX_ROWS) {
                let (node, hashes) = (self.nodes.name(), part.to_vec());
                self.core
                    .store
                    .write_bookkeeping(move |db| Ok::<_, Error>(write(db, &node, &hashes)?))
                    .await?;
                let mut shared = self.shared_held_tokens.lock();
                for hash in part {
                    if wanted.contains(hash) {
                        shared.insert(hash.clone());
                    } else {
                        shared.remove(hash);
                    }
                }
            }
        }
        Ok(())
    }

    /// Forgets what the other nodes knew: the next [`Self::share_held_tokens`] shares all of it.
    pub fn forget_shared(&self) {
        self.shared_held_tokens.lock().clear();
    }

    /// The claims of a genuine token, expired or not: for audit records only.
    pub(in crate::service) fn claims_of_any_age(&self, token: &str) -> Option<Arc<Claims>> {
        self.signer.read_any_age(token).ok()
    }
}
