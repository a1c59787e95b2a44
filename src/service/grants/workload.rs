//! What a process of deployed content gets for the service accounts of its item before it starts: its
//! content session token, tokens of this portal for services that trust it, in files that SDKs read by
//! themselves, and keys that are handed out as variables. Follows the same rule as the exchange: where
//! the item acts for viewers at a service, its owner must have allowed it to act as itself there.

use super::issuer::{self, Issuer, PortalToken};
use crate::{
    domain::{
        content::Content,
        integration::{AuthType, Integration},
    },
    providers,
    service::{core::Core, error::Error},
    store::integrations,
    vault::labels,
};
use secrecy::SecretString;
use std::sync::Arc;

/// The name of the file with the content session token.
const CONTENT_TOKEN: &str = "content-session-token";

/// A token in a file.
pub struct TokenFile {
    pub name: String,
    /// The variable that names the file.
    pub path_variable: &'static str,
    /// The variable that holds the token itself, for clients that read no file. It is not replaced
    /// while the process runs.
    pub value_variable: Option<&'static str>,
    token: PortalToken,
}

/// What one process gets.
pub struct ProcessTokens {
    pub files: Vec<TokenFile>,
    /// Variables with secrets, and others.
    pub secrets: Vec<(String, SecretString)>,
    pub plain: Vec<(String, String)>,
}

/// The tokens of processes.
pub struct Workload {
    core: Arc<Core>,
    issuer: Arc<Issuer>,
}

impl Workload {
    pub(in crate::service) fn new(core: Arc<Core>, issuer: Arc<Issuer>) -> Self {
        Self { core, issuer }
    }

    /// What a process of this item gets; `None` if it uses no service account.
    pub async fn tokens_of(&self, item: &Content) -> Result<Option<ProcessTokens>, Error> {
        let id = item.id;
        let attached = self
            .core
            .store
            .read(move |db| {
                let mut attached = Vec::new();
                for entry in integrations::associations_of_content(db, id)? {
                    let found = integrations::find(db, entry.integration)?;
                    let secrets = integrations::secrets(db, entry.integration)?;
                    attached.extend(found.map(|found| (found, entry.beside_viewers, secrets)));
                }
                Ok::<_, Error>(attached)
            })
            .await?;
        let viewer: Vec<Integration> = attached
            .iter()
            .map(|(integration, ..)| integration)
            .filter(|integration| integration.auth_type == AuthType::Viewer)
            .cloned()
            .collect();
        let allowed: Vec<_> = attached
            .into_iter()
            .filter(|(integration, beside_viewers, _)| {
                integration.auth_type == AuthType::ServiceAccount
                    && integration.paused_at.is_none()
                    && (*beside_viewers || !viewer.iter().any(|one| same_service(one, integration)))
            })
            .collect();
        if allowed.is_empty() {
            return Ok(None);
        }
        let mut found = ProcessTokens {
            files: vec![TokenFile {
                name: CONTENT_TOKEN.to_owned(),
                path_variable: "CONNECT_CONTENT_SESSION_TOKEN_FILE",
                value_variable: Some("CONNECT_CONTENT_SESSION_TOKEN"),
                token: self.issuer.content_token(item.id, item.owner),
            }],
            secrets: Vec::new(),
            plain: Vec::new(),
        };
        for (integration, _, secrets) in allowed {
            let Some(template) = providers::template(&integration.template) else {
                continue;
            };
            if let (false, Some(sealed)) = (template.secret_variable.is_empty(), secrets.current) {
                let row = integration.id.to_string();
                let opened = self.core.vault.open(labels::client_secret(&row), &sealed)?;
                let name = template.secret_variable.to_owned();
                found.secrets.push((name, opened));
            }
            let Some(files) = providers::workload_files(&integration) else {
                continue;
            };
            for (name, value) in files.variables {
                found.plain.push((name.to_owned(), value));
            }
            found.files.push(TokenFile {
                name: integration.id.to_string(),
                path_variable: files.path_variable,
                value_variable: None,
                token: PortalToken {
                    content: Some((item.id, item.owner)),
                    lifetime: issuer::FOR_CONTENT,
                    ..PortalToken::of(&integration)
                },
            });
        }
        Ok(Some(found))
    }

    /// Tokens for these files, by the names of the files.
    pub async fn sign(&self, files: &[TokenFile]) -> Result<Vec<(String, SecretString)>, Error> {
        let mut signed = Vec::new();
        for file in files {
            signed.push((file.name.clone(), self.issuer.token(&file.token).await?));
        }
        Ok(signed)
    }
}

/// Whether two integrations lead to the same service.
pub(super) fn same_service(one: &Integration, other: &Integration) -> bool {
    one.template == other.template
        || providers::names(one).service == providers::names(other).service
}
