//! What a process of deployed content gets for the service accounts of its item before it starts: its
//! content session token, tokens of this portal for services that trust it, in files that SDKs read by
//! themselves, and keys that are handed out as variables. Follows the same rule as the exchange: where
//! the item acts for viewers at a service, its owner must have allowed it to act as itself there.

use super::issuer::{Issuer, PortalToken};
use crate::{
    domain::{
        Id,
        content::Content,
        integration::{AuthType, Integration},
    },
    providers,
    service::{core::Core, error::Error},
    store::integrations::{self, Secrets},
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
        let allowed = self.allowed(item.id).await?;
        let Some(files) = self.files(item, &allowed) else {
            return Ok(None);
        };
        let mut found = ProcessTokens {
            files,
            secrets: Vec::new(),
            plain: Vec::new(),
        };
        for (integration, sealed) in allowed {
            let template = providers::template(&integration.template);
            let variable = template.map_or("", |template| template.secret_variable);
            if let (false, Some(sealed)) = (variable.is_empty(), sealed.current) {
                let row = integration.id.to_string();
                let opened = self.core.vault.open(labels::client_secret(&row), &sealed)?;
                found.secrets.push((variable.to_owned(), opened));
            }
            let files = providers::workload_files(&integration);
            for (name, value) in files.map(|files| files.variables).unwrap_or_default() {
                found.plain.push((name.to_owned(), value));
            }
        }
        Ok(Some(found))
    }

    /// The files that a process of this item may have now.
    pub async fn files_of(&self, item: &Content) -> Result<Vec<TokenFile>, Error> {
        let allowed = self.allowed(item.id).await?;
        Ok(self.files(item, &allowed).unwrap_or_default())
    }

    /// The service accounts that an item may act as now, with their sealed secrets.
    async fn allowed(&self, id: Id<Content>) -> Result<Vec<(Integration, Secrets)>, Error> {
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
        let all: Vec<Integration> = attached.iter().map(|(found, ..)| found.clone()).collect();
        let may_have = |integration: &Integration, beside_viewers: bool| {
            integration.auth_type == AuthType::ServiceAccount
                && integration.paused_at.is_none()
                && (beside_viewers
                    || !providers::may_act_for_viewers_there(all.iter(), integration))
        };
        Ok(attached
            .into_iter()
            .filter(|(found, beside_viewers, _)| may_have(found, *beside_viewers))
            .map(|(found, _, secrets)| (found, secrets))
            .collect())
    }

    /// The files for these service accounts; `None` if there are none.
    fn files(&self, item: &Content, allowed: &[(Integration, Secrets)]) -> Option<Vec<TokenFile>> {
        let of_content = TokenFile {
            name: CONTENT_TOKEN.to_owned(),
            path_variable: "CONNECT_CONTENT_SESSION_TOKEN_FILE",
            value_variable: Some("CONNECT_CONTENT_SESSION_TOKEN"),
            token: self.issuer.content_token(item.id, item.owner),
        };
        let of_services = allowed.iter().filter_map(|(integration, _)| {
            let files = providers::workload_files(integration)?;
            Some(TokenFile {
                name: integration.id.to_string(),
                path_variable: files.path_variable,
                value_variable: None,
                token: PortalToken::for_content(integration, item),
            })
        });
        (!allowed.is_empty()).then(|| std::iter::once(of_content).chain(of_services).collect())
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
