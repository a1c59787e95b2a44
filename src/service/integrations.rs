//! Integrations: what an administrator configures.

use super::{Actor, Error, Service, event, groups::principal_name, invalid, record};
use crate::{
    domain::{
        Id, Timestamp, access,
        audit::Action,
        content::Content,
        group::Principal,
        integration::{Association, Availability, Config, IdentityCheck, Integration, Listing, SecretHealth, Usage},
        person::Person,
    },
    oauth::Registration,
    providers::{self, ClientAuthentication, Problem, Template},
    store::{Db, connections, content, integrations, people},
    vault::{Place, Sealed},
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use std::collections::HashMap;

/// What is typed about an integration. `None` leaves a value as it is.
#[derive(Clone, Debug, Default)]
pub struct IntegrationInput {
    /// A GUID that the form announced, so that its callback address could be shown before saving.
    pub id: Option<Id<Integration>>,
    pub name: Option<String>,
    pub description: Option<String>,
    pub template: Option<String>,
    /// Settings by their names in the API; `null` removes one. Never holds the secret.
    pub config: Config,
    pub client_secret: Option<SecretString>,
    /// `Some(None)` removes the date.
    pub secret_expires_at: Option<Option<Timestamp>>,
    pub availability: Option<Availability>,
    pub identity_check: Option<IdentityCheck>,
    /// The whole list of those who may choose it.
    pub listed: Option<Vec<Principal>>,
    /// The administrator has seen how many people will be signed out.
    pub confirmed: bool,
}

/// What a delete or a change of addresses breaks, and for whom.
#[derive(Clone, Debug, Default)]
pub struct Impact {
    pub contents: Vec<Content>,
    pub people: Vec<Person>,
}

/// The answer to a change.
#[derive(Debug)]
pub enum Updated {
    Saved(Box<Integration>),
    /// Saving would sign these people out; nothing was changed. Ask, then send `confirmed`.
    NeedsConfirmation(Impact),
}

pub(super) fn secret_place(row: &str) -> Place<'_> {
    Place { table: "integrations", column: "client_secret", row }
}

impl Service {
    /// The redirect address to register at the provider.
    pub fn redirect_uri(&self, integration: &Integration) -> String {
        match providers::endpoints(integration) {
            Some(endpoints) if endpoints.fixed_hosts => self.addresses.shared_callback(),
            _ => self.addresses.own_callback(integration.id),
        }
    }

    /// The OAuth client of an integration, with its secret opened.
    pub(super) fn registration(&self, integration: &Integration, secret: Option<&Sealed>) -> Result<Registration, Error> {
        let endpoints = providers::endpoints(integration).ok_or_else(|| {
            tracing::error!(integration = %integration.id, "the configuration of an integration is damaged");
            Error::Internal
        })?;
        let row = integration.id.to_string();
        let client_secret = secret.map(|sealed| self.vault.open(secret_place(&row), sealed)).transpose()?;
        Ok(Registration {
            endpoints,
            client_id: integration.setting("client_id").to_owned(),
            client_secret,
            authentication: providers::client_authentication(integration),
            scopes: integration.scopes().into_iter().map(str::to_owned).collect(),
            names_scopes_at_refresh: providers::template(&integration.template).is_some_and(|template| template.names_scopes_at_refresh),
        })
    }

    pub async fn integrations(&self, actor: &Actor) -> Result<Vec<Integration>, Error> {
        if !access::may_see_integrations(actor.role) {
            return Err(Error::Forbidden("Only publishers and administrators see integrations."));
        }
        let actor = actor.clone();
        self.store
            .read(move |db| {
                let listed = integrations::listed_for(db, actor.person.id)?;
                let mut all = integrations::list(db)?;
                all.retain(|found| access::may_choose_integration(actor.role, found.availability, listed.contains(&found.id)));
                Ok(all)
            })
            .await
    }

    pub async fn integration(&self, actor: &Actor, id: Id<Integration>) -> Result<Integration, Error> {
        if !access::may_see_integrations(actor.role) {
            return Err(Error::Forbidden("Only publishers and administrators see integrations."));
        }
        let actor = actor.clone();
        self.store
            .read(move |db| {
                let found = integrations::find(db, id)?.ok_or(Error::NotFound)?;
                if may_choose(db, &actor, &found)? { Ok(found) } else { Err(Error::NotFound) }
            })
            .await
    }

    /// Who may choose integrations: the entries of one list, or of all.
    pub async fn listings(&self, of: Option<Id<Integration>>) -> Result<Vec<Listing>, Error> {
        self.store.read(move |db| Ok(integrations::listings(db, of)?)).await
    }

    /// The list of an integration with names, for administrators.
    pub async fn integration_list(&self, actor: &Actor, id: Id<Integration>) -> Result<Vec<(Listing, String)>, Error> {
        must_manage(actor)?;
        self.store
            .read(move |db| {
                let entries = integrations::listings(db, Some(id))?;
                entries.into_iter().map(|entry| Ok((entry.clone(), principal_name(db, entry.principal)?.unwrap_or_default()))).collect()
            })
            .await
    }

    pub async fn integration_usage(&self) -> Result<HashMap<Id<Integration>, Usage>, Error> {
        self.store.read(|db| Ok(integrations::usage(db)?)).await
    }

    pub async fn integration_associations(&self, actor: &Actor, id: Id<Integration>) -> Result<(Integration, Vec<Association>), Error> {
        must_manage(actor)?;
        self.store
            .read(move |db| {
                let integration = integrations::find(db, id)?.ok_or(Error::NotFound)?;
                Ok((integration, integrations::associations_of_integration(db, id)?))
            })
            .await
    }

    pub async fn create_integration(&self, actor: &Actor, input: IntegrationInput) -> Result<Integration, Error> {
        must_manage(actor)?;
        let key = input.template.as_deref().unwrap_or("");
        let Some(template) = providers::template(key) else {
            let known: Vec<&str> = providers::TEMPLATES.iter().map(|template| template.key).collect();
            return Err(invalid("template", format!("There is no template of this name. Known are: {}.", known.join(", "))));
        };
        let now = self.now();
        let mut problems = Vec::new();
        let name = check_text("name", input.name.as_deref(), 100, &mut problems);
        let description = check_text("description", input.description.as_deref(), 500, &mut problems);
        let config = template.complete(&input.config, &self.policy).unwrap_or_else(|found| {
            problems.extend(found);
            Config::new()
        });
        // While other settings are wrong the client type is still known from what was typed.
        let is_public = |config: &Config| config.get("auth_mode").and_then(Value::as_str) == Some("Public");
        let public = is_public(&config) || is_public(&input.config);
        problems.extend(check_secret(template, input.client_secret.as_ref(), public, false));
        if !problems.is_empty() {
            return Err(Error::Invalid(problems));
        }
        let mut integration = Integration {
            number: 0,
            id: input.id.unwrap_or_else(Id::random),
            name,
            description,
            template: template.key.to_owned(),
            auth_type: "Viewer".into(),
            config,
            secret_set_at: input.client_secret.as_ref().map(|_| now),
            secret_set_by: input.client_secret.as_ref().map(|_| actor.person.display_name()),
            secret_expires_at: input.secret_expires_at.flatten(),
            secret_health: if input.client_secret.is_some() { SecretHealth::Untried } else { SecretHealth::NotNeeded },
            era: 1,
            availability: input.availability.unwrap_or_default(),
            identity_check: input.identity_check.unwrap_or_default(),
            created_at: now,
            updated_at: now,
        };
        let sealed = self.seal_secret(integration.id, input.client_secret.as_ref())?;
        let (actor, listed) = (actor.clone(), input.listed);
        self.store
            .write(move |db| {
                integration.number = integrations::insert(db, &integration, sealed.as_ref()).map_err(|error| match error {
                    crate::store::Error::Taken => Error::Conflict("This form was saved already. Open the list of integrations.".into()),
                    other => other.into(),
                })?;
                let mut detail = format!("template {}, for {}", integration.template, integration.availability.as_str());
                if let Some(listed) = listed {
                    detail.push_str(&set_list(db, integration.id, &listed)?);
                }
                record(db, &event(&actor, now, Action::IntegrationCreated, integration.display_name(), detail))?;
                Ok(integration)
            })
            .await
    }

    /// Changes an integration. Settings are merged one by one; a change of where tokens come from demands the secret again.
    pub async fn update_integration(&self, actor: &Actor, id: Id<Integration>, input: IntegrationInput) -> Result<Updated, Error> {
        must_manage(actor)?;
        let now = self.now();
        let before = self.integration(actor, id).await?;
        let template = providers::template(&before.template).ok_or(Error::Internal)?;
        let mut problems = Vec::new();
        let mut after = before.clone();
        if input.name.is_some() {
            after.name = check_text("name", input.name.as_deref(), 100, &mut problems);
        }
        if input.description.is_some() {
            after.description = check_text("description", input.description.as_deref(), 500, &mut problems);
        }
        let mut merged = before.config.clone();
        for (key, value) in &input.config {
            match value {
                Value::Null => drop(merged.remove(key)),
                value => drop(merged.insert(key.clone(), value.clone())),
            }
        }
        match template.complete(&merged, &self.policy) {
            Ok(config) => after.config = config,
            Err(found) => problems.extend(found),
        }
        let moved: Vec<&str> = after
            .config
            .iter()
            .filter(|(key, value)| template.moves_tokens(key) && before.config.get(*key) != Some(value))
            .map(|(key, _)| key.as_str())
            .chain(before.config.keys().filter(|key| template.moves_tokens(key) && !after.config.contains_key(*key)).map(String::as_str))
            .collect();
        let public = providers::client_authentication(&after) == ClientAuthentication::None;
        let has_secret = before.secret_set_at.is_some();
        problems.extend(check_secret(template, input.client_secret.as_ref(), public, has_secret));
        if !moved.is_empty() && input.client_secret.is_none() && !public && problems.is_empty() {
            problems.push(Problem::new(
                "client_secret",
                "Enter the client secret again: tenant, client ID or an address changes, and the stored secret is never sent to a new place.",
            ));
        }
        if !problems.is_empty() {
            return Err(Error::Invalid(problems));
        }
        if !moved.is_empty() && !input.confirmed {
            let impact = self.integration_impact(actor, id).await?;
            if !impact.people.is_empty() {
                return Ok(Updated::NeedsConfirmation(impact));
            }
        }
        if input.client_secret.is_some() {
            after.secret_set_at = Some(now);
            after.secret_set_by = Some(actor.person.display_name());
            after.secret_health = SecretHealth::Untried;
            after.secret_expires_at = None;
        } else if !matches!(before.secret_health, SecretHealth::Works { .. }) && before.config != after.config {
            after.secret_health = if has_secret { SecretHealth::Untried } else { SecretHealth::NotNeeded };
        }
        if let Some(date) = input.secret_expires_at {
            after.secret_expires_at = date;
        }
        after.availability = input.availability.unwrap_or(before.availability);
        after.identity_check = input.identity_check.unwrap_or(before.identity_check);
        after.updated_at = now;
        let repointed = !moved.is_empty();
        if repointed {
            after.era += 1;
        }
        let sealed = self.seal_secret(id, input.client_secret.as_ref())?;
        let detail = change_words(&before, &after, input.client_secret.is_some());
        let (actor, listed) = (actor.clone(), input.listed);
        let after = self
            .store
            .write(move |db| {
                let current = integrations::find(db, id)?.ok_or(Error::NotFound)?;
                if current.updated_at != before.updated_at {
                    return Err(Error::Conflict(
                        "Somebody else changed this integration meanwhile. Look at it again, then repeat your change.".into(),
                    ));
                }
                integrations::update(db, &after, sealed.as_ref())?;
                // What people allowed was the old place: they are asked anew.
                let ended = if repointed { connections::delete_of_integration(db, id)? } else { 0 };
                let mut detail = if repointed { format!("{detail}; {ended} connection(s) ended") } else { detail };
                if let Some(listed) = listed {
                    detail.push_str(&set_list(db, id, &listed)?);
                }
                record(db, &event(&actor, now, Action::IntegrationChanged, after.display_name(), detail))?;
                Ok(after)
            })
            .await?;
        Ok(Updated::Saved(Box::new(after)))
    }

    /// Which contents use an integration, and who is connected through it.
    pub async fn integration_impact(&self, actor: &Actor, id: Id<Integration>) -> Result<Impact, Error> {
        must_manage(actor)?;
        self.store.read(move |db| impact(db, id)).await
    }

    /// Deletes an integration with its associations, connections and consents.
    pub async fn delete_integration(&self, actor: &Actor, id: Id<Integration>) -> Result<Integration, Error> {
        must_manage(actor)?;
        let (now, actor) = (self.now(), actor.clone());
        self.store
            .write(move |db| {
                let integration = integrations::find(db, id)?.ok_or(Error::NotFound)?;
                let impact = impact(db, id)?;
                integrations::delete(db, id)?;
                let detail = format!("{} content item(s), {} connected", impact.contents.len(), impact.people.len());
                record(db, &event(&actor, now, Action::IntegrationDeleted, integration.display_name(), detail))?;
                Ok(integration)
            })
            .await
    }

    fn seal_secret(&self, id: Id<Integration>, secret: Option<&SecretString>) -> Result<Option<Sealed>, Error> {
        let row = id.to_string();
        Ok(secret.map(|secret| self.vault.seal(secret_place(&row), secret)).transpose()?)
    }

    /// Writes down what using the secret showed. Quietly: nothing else changes.
    pub(super) async fn note_health(&self, integration: &Integration, health: SecretHealth) {
        let worth_it = match (&integration.secret_health, &health) {
            (SecretHealth::Works { at }, SecretHealth::Works { at: now }) => now.since(*at).as_secs() > 60,
            (SecretHealth::Rejected { cause: old, .. }, SecretHealth::Rejected { cause: new, .. }) => old != new,
            (SecretHealth::NotNeeded, SecretHealth::Works { .. }) => false,
            _ => true,
        };
        if worth_it {
            let (id, updated_at) = (integration.id, integration.updated_at);
            let written = self.store.write(move |db| Ok::<_, Error>(integrations::set_health(db, id, updated_at, &health)?)).await;
            if written.is_err() {
                tracing::warn!(integration = %id, "could not note the state of the client secret");
            }
        }
    }
}

fn must_manage(actor: &Actor) -> Result<(), Error> {
    if access::may_manage_integrations(actor.role) { Ok(()) } else { Err(Error::Forbidden("Only administrators manage integrations.")) }
}

/// Whether the actor may choose this integration, and so see it.
pub(super) fn may_choose(db: &mut Db<'_>, actor: &Actor, integration: &Integration) -> Result<bool, Error> {
    let listed =
        integration.availability == Availability::Listed && integrations::listed_for(db, actor.person.id)?.contains(&integration.id);
    Ok(access::may_choose_integration(actor.role, integration.availability, listed))
}

/// Makes these the whole list; in words for the record.
fn set_list(db: &mut Db<'_>, id: Id<Integration>, wanted: &[Principal]) -> Result<String, Error> {
    let mut names = Vec::new();
    for principal in wanted {
        let name = principal_name(db, *principal)?;
        names.push(name.ok_or_else(|| invalid("permissions", "There is no person or group with one of these GUIDs."))?);
    }
    integrations::set_list(db, id, wanted)?;
    Ok(if names.is_empty() { "; nobody on the list".into() } else { format!("; on the list: {}", names.join(", ")) })
}

fn impact(db: &mut Db<'_>, id: Id<Integration>) -> Result<Impact, Error> {
    let mut impact = Impact::default();
    for association in integrations::associations_of_integration(db, id)? {
        impact.contents.extend(content::find(db, association.content)?);
    }
    for connection in connections::of_integration(db, id)? {
        impact.people.extend(people::find(db, connection.person)?);
    }
    Ok(impact)
}

fn check_text(key: &str, typed: Option<&str>, longest: usize, problems: &mut Vec<Problem>) -> Option<String> {
    let text = typed?.trim();
    if text.chars().count() > longest {
        problems.push(Problem::new(key, format!("Use at most {longest} characters.")));
    } else if text.chars().any(|letter| letter.is_control() && letter != '\n' && letter != '\r') || (key == "name" && text.contains('\n')) {
        problems.push(Problem::new(key, "Leave out line breaks and other invisible characters."));
    }
    Some(text.to_owned())
}

fn check_secret(template: &Template, secret: Option<&SecretString>, public: bool, stored: bool) -> Option<Problem> {
    match secret {
        None if !public && !stored => Some(Problem::new("client_secret", "Enter the client secret.")),
        None => None,
        Some(_) if public => {
            Some(Problem::new("client_secret", "A public client has no secret. Leave this empty, or choose Confidential."))
        }
        Some(secret) => {
            let text = secret.expose_secret();
            if text.len() > 2000 {
                return Some(Problem::new("client_secret", "This is longer than any client secret: at most 2,000 characters."));
            }
            if text.chars().any(|letter| letter.is_control() || letter.is_whitespace()) {
                return Some(Problem::new("client_secret", "The secret holds a blank or a line break in its middle. Copy it again."));
            }
            let known = (template.key == "azure").then(|| providers::azure::secret_problem(text)).flatten();
            known.map(|message| Problem::new("client_secret", message))
        }
    }
}

/// What changed, in words for the record; never values of secrets.
fn change_words(before: &Integration, after: &Integration, secret: bool) -> String {
    let mut words: Vec<String> = Vec::new();
    if before.name != after.name {
        words.push("name".into());
    }
    if before.description != after.description {
        words.push("description".into());
    }
    for key in after.config.keys().chain(before.config.keys().filter(|key| !after.config.contains_key(*key))) {
        if before.config.get(key) != after.config.get(key) {
            words.push(key.clone());
        }
    }
    if secret {
        words.push("client secret".into());
    }
    if before.availability != after.availability {
        words.push(format!("for {}", after.availability.as_str()));
    }
    if before.identity_check != after.identity_check {
        words.push(format!("identity check {}", after.identity_check.as_str()));
    }
    if words.is_empty() { "nothing".into() } else { words.join(", ") }
}
