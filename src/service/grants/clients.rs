//! The OAuth clients of integrations as the flows use them: redirect URI, credentials with their
//! secrets opened, and what using a secret showed about it. Never changes an integration's
//! settings.

use crate::{
    domain::{
        Timestamp,
        integration::{Integration, SecretHealth},
    },
    oauth::Registration,
    providers,
    service::{core::Core, error::Error},
    store::integrations::{self, Secrets},
    vault::labels,
};
use std::sync::Arc;

/// OAuth clients of integrations.
pub struct OauthClients {
    core: Arc<Core>,
}

impl OauthClients {
    pub(in crate::service) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// The redirect URI to register at the provider: shared if the provider's hosts are fixed,
    /// otherwise one per integration.
    pub fn redirect_uri(&self, integration: &Integration) -> String {
        match providers::endpoints(integration) {
            Some(endpoints) if endpoints.has_known_host => self.core.addresses.shared_callback(),
            _ => self.core.addresses.own_callback(integration.id),
        }
    }

    /// The OAuth client of an integration, with its secrets opened.
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
            opened.push(
                self.core
                    .vault
                    .open(labels::previous_client_secret(&row), sealed)?,
            );
        }
        let template = providers::template(&integration.template);
        Ok(Registration {
            endpoints,
            client_id: integration.setting("client_id").to_owned(),
            secrets: opened,
            authentication: providers::client_authentication(integration),
            scopes: integration
                .scopes()
                .into_iter()
                .map(str::to_owned)
                .collect(),
            names_scopes_at_refresh: template
                .is_some_and(|template| template.sends_scopes_at_refresh),
            refusals: template.map_or(&[], |template| template.refresh_refusal_codes),
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

    /// Stores what a use of the secret showed, if that is news and the integration was not changed
    /// meanwhile. A failure to store it is only logged.
    pub(in crate::service) async fn record_secret_health(
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
            let written = self
                .core
                .store
                .write(move |db| {
                    let noted = integrations::set_health(db, id, updated_at, &health)?;
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
