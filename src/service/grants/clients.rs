//! The OAuth clients of integrations as the flows use them: redirect URI, credentials with their
//! secrets opened, and what using a secret showed about it. Never changes an integration's
//! settings.

use crate::{
    domain::{
        Timestamp, addresses,
        integration::{Integration, SecretHealth},
        notice::{Kind, Notice},
    },
    oauth::{Registration, errors::Failure},
    providers::{self, ClientAuthentication},
    service::{
        core::Core,
        error::Error,
        grants::issuer::{Issuer, PortalToken},
        notifying::notices::notify,
    },
    store::integrations::{self, Secrets},
    vault::labels,
};
use std::sync::Arc;

/// OAuth clients of integrations.
pub struct OauthClients {
    core: Arc<Core>,
    issuer: Arc<Issuer>,
}

impl OauthClients {
    pub(in crate::service) fn new(core: Arc<Core>, issuer: Arc<Issuer>) -> Self {
        Self { core, issuer }
    }

    /// The redirect URI to register at the provider: shared if the provider's hosts are fixed,
    /// otherwise one per integration.
    pub fn redirect_uri(&self, integration: &Integration) -> String {
        match providers::endpoints(integration) {
            Some(endpoints) if endpoints.has_known_host => self.core.addresses.shared_callback(),
            _ => self.core.addresses.own_callback(integration.id),
        }
    }

    /// Makes sure that this portal can sign, if the integration needs that. A failure is only logged:
    /// the request to the provider then fails as temporary.
    pub(in crate::service) async fn ready(&self, integration: &Integration) {
        if providers::client_authentication(integration) == ClientAuthentication::Federated
            && let Err(error) = self.issuer.ready().await
        {
            error.log("the keys that sign this portal's tokens");
        }
    }

    /// The OAuth client of an integration, with its secrets opened. Call [`Self::ready`] before, if
    /// requests are to be sent.
    pub(in crate::service) fn registration(
        &self,
        integration: &Integration,
        secrets: &Secrets,
    ) -> Result<Registration, Error> {
        let endpoints = providers::endpoints(integration).ok_or_else(|| {
            tracing::error!(integration = %integration.id, "the configuration of an integration is damaged");
            Error::Internal("the configuration of an integration is damaged")
        })?;
        let row = integration.id.to_string();
        let mut opened = Vec::new();
        if let Some(sealed) = &secrets.current {
            opened.push(self.core.vault.open(labels::client_secret(&row), sealed)?);
        }
        if let Some(sealed) = &secrets.previous {
            let label = labels::previous_client_secret(&row);
            // The current one may do without it.
            match self.core.vault.open(label, sealed) {
                Ok(previous) => opened.push(previous),
                Err(error) => {
                    tracing::error!(%error, integration = %integration.id, "the previous client secret cannot be opened");
                }
            }
        }
        let authentication = providers::client_authentication(integration);
        let portal_token = if authentication == ClientAuthentication::Federated {
            self.issuer.token_if_ready(&PortalToken::of(integration))
        } else {
            None
        };
        Ok(Registration {
            endpoints,
            client_id: integration.setting("client_id").to_owned(),
            secrets: opened,
            authentication,
            scopes: integration
                .scopes()
                .into_iter()
                .map(str::to_owned)
                .collect(),
            profile: providers::profile(integration),
            redirect_uri: self.redirect_uri(integration),
            portal_token,
        })
    }

    /// Records which secret the provider accepted. If it was the current one, the previous one is
    /// deleted; otherwise the current one is marked as rejected.
    pub(in crate::service) async fn record_accepted_secret(
        &self,
        integration: &Integration,
        by_previous_secret: bool,
        at: Timestamp,
    ) {
        if by_previous_secret {
            let cause = "The identity provider refuses the new client secret. The one before still works, and is used until the new one does.";
            return self
                .record_secret_health(
                    integration,
                    SecretHealth::Rejected {
                        at,
                        cause: cause.into(),
                    },
                    false,
                )
                .await;
        }
        self.record_secret_health(integration, SecretHealth::Works { at }, true)
            .await;
    }

    /// Records that the provider refuses the client, for the reason of this failure.
    pub(in crate::service) async fn record_refused_client(
        &self,
        integration: &Integration,
        failure: &Failure,
        at: Timestamp,
    ) {
        let cause = failure.sentence.clone();
        self.record_secret_health(integration, SecretHealth::Rejected { at, cause }, false)
            .await;
    }

    /// Stores what a use of the secret showed, if that is news and the integration was not changed
    /// meanwhile. A failure to store it is only logged.
    async fn record_secret_health(
        &self,
        integration: &Integration,
        health: SecretHealth,
        drop_previous: bool,
    ) {
        let worth_it = match (&integration.secret_health, &health) {
            (SecretHealth::Works { at }, SecretHealth::Works { at: now }) => {
                now.since(*at).as_secs() > 60
            }
            (
                SecretHealth::Rejected { cause: old, .. },
                SecretHealth::Rejected { cause: new, .. },
            ) => old != new,
            (SecretHealth::NotNeeded, SecretHealth::Works { .. }) => false,
            _ => true,
        };
        if worth_it {
            let (id, updated_at) = (integration.id, integration.updated_at);
            let (named, now) = (integration.clone(), self.core.now());
            let written = self
                .core
                .store
                .write(move |db| {
                    let noted = integrations::set_health(db, id, updated_at, &health)?;
                    if let SecretHealth::Rejected { cause, .. } = &health
                        && noted
                    {
                        notify(db, &rejected(&named, cause, now), now)?;
                    }
                    if noted && drop_previous {
                        integrations::drop_previous_secret(db, id)?;
                    }
                    Ok::<_, Error>(())
                })
                .await;
            if let Err(error) = written {
                tracing::warn!(reason = %error, integration = %id, "could not note the state of the client secret");
            }
        }
    }
}

/// The notice that a provider rejects a client secret.
fn rejected(integration: &Integration, cause: &str, now: Timestamp) -> Notice {
    let id = integration.id;
    Notice {
        kind: Kind::SecretRejected,
        person: None,
        title: format!(
            "{}: the provider rejects the client secret",
            integration.display_name()
        ),
        body: format!(
            "{cause} Until it is replaced, nobody can connect, and content gets no new tokens."
        ),
        path: addresses::integration(id),
        once: Some(format!("secret_rejected {id} {}", now.day())),
    }
}
