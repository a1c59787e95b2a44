//! The emergency brake: ends all browser sessions, one-time links, API keys and connections at once, on
//! every node. Apps that run here are started again, with new keys; tokens that this portal signed end
//! within a minute, when each node finds that their keys are gone. For a portal that may be in somebody
//! else's hands. Settings, content and people stay.

use crate::{
    domain::{
        Timestamp,
        audit::{Action, Event},
    },
    service::{
        core::{Core, record},
        error::Error,
        grants::{end_reason::EndReason, issuer, revocations::Revocations},
    },
    store::{Store, emergency, integrations},
};
use std::sync::Arc;

/// What was ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ended {
    pub sessions: usize,
    pub keys: usize,
    pub connections: usize,
    /// Integrations whose connections could not be ended.
    pub failed: usize,
}

/// Ends everything.
pub struct Emergency {
    core: Arc<Core>,
    revocations: Arc<Revocations>,
}

impl Emergency {
    pub(in crate::service) fn new(core: Arc<Core>, revocations: Arc<Revocations>) -> Self {
        Self { core, revocations }
    }

    /// When everything was ended last; `None`: never.
    pub async fn ended_at(&self) -> Result<Option<Timestamp>, Error> {
        self.core
            .store
            .read(|db| Ok::<_, Error>(emergency::ended_at(db)?))
            .await
    }

    /// Ends everything. For the command line: `reason` becomes part of the audit log. Providers that can
    /// be told are told by this process meanwhile, and by the servers later.
    pub async fn end_everything(&self, reason: &str) -> Result<Ended, Error> {
        let now = self.core.now();
        let reason: String = reason
            .chars()
            .filter(|letter| !letter.is_control())
            .take(200)
            .collect();
        let line = Event {
            actor_name: "command line".into(),
            ..Event::by_portal(now, Action::EverythingEnded, "everything", reason)
        };
        // Sessions and keys first: whoever holds one must not make new connections.
        let (sessions, keys, all) = self
            .core
            .store
            .write(move |db| {
                let (sessions, keys) = emergency::end_sessions_and_keys(db, now)?;
                Store::delete_meta(db, issuer::STORED_AS)?;
                record(db, &line)?;
                Ok::<_, Error>((sessions, keys, integrations::list(db)?))
            })
            .await?;
        let mut ended = Ended {
            sessions,
            keys,
            connections: 0,
            failed: 0,
        };
        for integration in all {
            let why = EndReason::of_portal(now, "everything was ended");
            // One that fails does not keep the others.
            match self
                .revocations
                .end_of_integration(integration.id, why)
                .await
            {
                Ok(count) => ended.connections += count,
                Err(Error::NotFound) => {}
                Err(error) => {
                    tracing::error!(reason = %error, integration = %integration.id, "its connections were not ended");
                    ended.failed += 1;
                }
            }
        }
        Ok(ended)
    }

    /// Waits until the requests to providers that this process has begun are over.
    pub async fn wait_for_providers(&self) {
        self.core.tasks.close();
        self.core.tasks.wait().await;
    }
}
