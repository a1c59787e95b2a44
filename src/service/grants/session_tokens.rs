//! Session tokens: short-lived signed tokens that the proxy puts into requests to content, and that
//! content exchanges. Owns which tokens are held: a token stays exchangeable beyond its lifetime
//! while the WebSocket or event stream that it was made for is open, here or on another node.

use crate::{
    domain::{
        Id,
        content::{Content, ProcessId},
        person::{Person, Session},
    },
    service::{core::Core, error::Error},
    store::short_lived,
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

/// How long the other nodes treat a shared token as held; renewed every 10 s.
const HELD_TOKEN_TTL: Duration = Duration::from_secs(40);

/// Mints, verifies and holds session tokens.
pub struct SessionTokens {
    core: Arc<Core>,
    signer: SessionTokenSigner,
    /// Tokens, with the number of open WebSockets and streams that hold each.
    held_tokens: Mutex<HashMap<String, usize>>,
    /// Hashes of those that were last shared with the other nodes.
    shared_held_tokens: Mutex<HashSet<String>>,
}

impl SessionTokens {
    pub(in crate::service) fn new(core: Arc<Core>) -> Self {
        let signer = SessionTokenSigner::new(
            &core.root,
            core.settings.base().to_owned(),
            core.settings.session_token_lifetime,
        );
        Self {
            signer,
            core,
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
        session: Id<Session>,
        process: ProcessId,
    ) -> Option<String> {
        self.signer
            .mint(person, content, session, process, self.core.now())
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
                    let (hash, now) = (digest(token), self.core.now());
                    if !self
                        .core
                        .store
                        .read(move |db| Ok::<_, Error>(short_lived::is_token_held(db, &hash, now)?))
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
    /// (in 40 s), and withdraws those that are no longer held. Called every 10 s.
    pub async fn share_held_tokens(&self) -> Result<(), Error> {
        let now = self.core.now();
        let held: Vec<String> = self.held_tokens.lock().keys().cloned().collect();
        let soon = now.plus(HELD_TOKEN_TTL);
        let late = held
            .into_iter()
            .filter(|token| self.signer.verify(token, soon) == Err(InvalidToken::Expired));
        let shared: HashSet<String> = late.map(|token| digest(&token)).collect();
        let before = std::mem::replace(&mut *self.shared_held_tokens.lock(), shared.clone());
        if shared.is_empty() && before.is_empty() {
            return Ok(());
        }
        self.core
            .store
            .write(move |db| {
                for hash in &shared {
                    short_lived::hold(db, hash, soon)?;
                }
                for hash in before.difference(&shared) {
                    short_lived::release_token(db, hash)?;
                }
                Ok::<_, Error>(())
            })
            .await
    }

    /// The claims of a genuine token, expired or not: for audit records only.
    pub(in crate::service) fn claims_of_any_age(&self, token: &str) -> Option<Arc<Claims>> {
        self.signer.read_any_age(token).ok()
    }
}
