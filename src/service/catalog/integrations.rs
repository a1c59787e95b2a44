//! Integrations: what administrators configure. Owns the validation, the client secret with its
//! predecessor, the warnings before the secret expires, and the list of publishers who may choose
//! an integration.
//!
//! A change of where tokens come from ends all connections and requires the secret again: a stored
//! secret is never sent to a new address. Of a rotated secret the last working one is kept as the
//! previous secret until the new one works.

use crate::{
    domain::{
        Id, Timestamp, access, addresses,
        audit::{Action, Event},
        change::Change,
        check::CheckResult,
        consent::sorted_scopes,
        content::Content,
        form::FieldError,
        group::Principal,
        integration::{
            Association, AuthType, Availability, Config, IdentityCheck, Integration, ListEntry,
            SecretHealth, Usage,
        },
        notice::{self, Notice},
        person::Person,
    },
    oauth::{assertion, discovery},
    providers::{self, ClientAuthentication, Template},
    service::{
        core::{Actor, Core, event, must_manage_integrations, must_see_integrations, record},
        error::{Error, invalid, name_taken},
        grants::{
            backoff::Backoff, end_reason::EndReason, issuer::Issuer, revocations::Revocations,
        },
        notifying::notices::notify,
        running::board::RunBoard,
    },
    store::{
        Db,
        connections::{self, EndingOf},
        content, groups,
        integrations::{self, Secrets},
        people,
    },
    vault::{Sealed, labels},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use std::{collections::HashMap, sync::Arc, time::Duration};

/// The setting that holds the issuer, where a template has one.
const ISSUER: &str = "issuer";

/// The key of the problem that another integration has the same name.
pub const SAME_NAME: &str = "same_name";

/// An integration after a form, before it is saved.
struct Edited {
    after: Integration,
    /// Tokens come from another place: needs the secret, and ends all connections.
    leads_elsewhere: bool,
    /// The stored secret can still serve: a secret is no private key.
    same_kind_of_secret: bool,
}

/// The typed values of an integration. `None` keeps a value.
#[derive(Clone, Debug, Default)]
pub struct IntegrationInput {
    /// The GUID that the form announced, so that it could show the callback address before saving.
    pub id: Option<Id<Integration>>,
    pub name: Option<String>,
    pub description: Option<String>,
    pub template: Option<String>,
    /// Settings by their names in the API; `null` removes one. Never holds the secret.
    pub config: Config,
    pub client_secret: Option<SecretString>,
    /// [`Change::Clear`] removes the date.
    pub secret_expires_at: Change<Timestamp>,
    /// Everyone, the people and groups on its list, or nobody. A list whose last entry is removed
    /// stays closed.
    pub availability: Option<Availability>,
    pub identity_check: Option<IdentityCheck>,
    /// Replaces the list of people and groups who may choose it.
    pub listed: Option<Vec<Principal>>,
    /// The administrator has seen how many people lose their connection.
    pub confirmed: bool,
    /// The administrator wants a new integration to have the name of another one. Otherwise that is a
    /// problem, with [`SAME_NAME`] as its key.
    pub same_name: bool,
    /// Pauses or resumes it.
    pub paused: Option<bool>,
    /// The version on which the change is based ([`Integration::updated_at`]): refused with
    /// [`Error::ChangedMeanwhile`] if it has changed since. `None`: not checked.
    pub based_on: Option<Timestamp>,
}

/// The content items and connected people that a deletion or a change of addresses affects.
#[derive(Clone, Debug, Default)]
pub struct Impact {
    pub contents: Vec<Content>,
    pub people: Vec<Person>,
}

/// The outcome of a change.
#[derive(Debug)]
pub enum UpdateOutcome {
    Saved(Box<Integration>),
    /// Saving would end the connections of these people; nothing was changed. Ask, then send
    /// `confirmed`.
    NeedsConfirmation(Impact),
    /// Many connections are being ended; the settings are saved after the last one.
    GoesOn,
}

/// Integrations.
pub struct Integrations {
    core: Arc<Core>,
    backoff: Arc<Backoff>,
    revocations: Arc<Revocations>,
    issuer: Arc<Issuer>,
    runs: Arc<RunBoard>,
}

impl Integrations {
    pub(in crate::service) fn new(
        core: Arc<Core>,
        backoff: Arc<Backoff>,
        revocations: Arc<Revocations>,
        issuer: Arc<Issuer>,
        runs: Arc<RunBoard>,
    ) -> Self {
        Self {
            core,
            backoff,
            revocations,
            issuer,
            runs,
        }
    }

    /// Makes the key that signs this portal's tokens, if the integration needs one: services read it
    /// before the first token is used.
    async fn prepare_issuer(&self, integration: &Integration) -> Result<(), Error> {
        let federated =
            providers::client_authentication(integration) == ClientAuthentication::Federated;
        if federated || integration.auth_type == AuthType::ServiceAccount {
            self.issuer.ready().await?;
        }
        Ok(())
    }

    /// The integrations that the actor may choose: for administrators all.
    pub async fn integrations(&self, actor: &Actor) -> Result<Vec<Integration>, Error> {
        must_see_integrations(actor)?;
        let actor = actor.clone();
        self.core
            .store
            .read(move |db| {
                let listed = integrations::listed_for(db, actor.person.id)?;
                let mut all = integrations::list(db)?;
                all.retain(|found| {
                    access::may_choose_integration(
                        actor.role,
                        found.availability,
                        listed.contains(&found.id),
                    )
                });
                Ok(all)
            })
            .await
    }

    /// One integration; `NotFound` if the actor may not choose it.
    pub async fn integration(
        &self,
        actor: &Actor,
        id: Id<Integration>,
    ) -> Result<Integration, Error> {
        must_see_integrations(actor)?;
        let actor = actor.clone();
        self.core
            .store
            .read(move |db| {
                let found = integrations::find(db, id)?.ok_or(Error::NotFound)?;
                if may_choose(db, &actor, &found)? {
                    Ok(found)
                } else {
                    Err(Error::NotFound)
                }
            })
            .await
    }

    /// The people and groups who may choose one integration, or any.
    pub async fn listings(
        &self,
        actor: &Actor,
        of: Option<Id<Integration>>,
    ) -> Result<Vec<ListEntry>, Error> {
        must_see_integrations(actor)?;
        self.core
            .store
            .read(move |db| Ok(integrations::listings(db, of)?))
            .await
    }

    /// The people and groups who may choose an integration, with names, for administrators.
    pub async fn integration_list(
        &self,
        actor: &Actor,
        id: Id<Integration>,
    ) -> Result<Vec<(ListEntry, String)>, Error> {
        must_manage_integrations(actor)?;
        self.core
            .store
            .read(move |db| {
                let entries = integrations::listings(db, Some(id))?;
                entries
                    .into_iter()
                    .map(|entry| {
                        Ok((
                            entry.clone(),
                            groups::principal_name(db, entry.principal)?.unwrap_or_default(),
                        ))
                    })
                    .collect()
            })
            .await
    }

    /// How many content items and people use each integration, for administrators.
    pub async fn integration_usage(
        &self,
        actor: &Actor,
    ) -> Result<HashMap<Id<Integration>, Usage>, Error> {
        must_manage_integrations(actor)?;
        self.core
            .store
            .read(|db| Ok(integrations::usage(db)?))
            .await
    }

    /// What the last checks found, of all integrations or of one; for administrators.
    pub async fn last_checks(
        &self,
        actor: &Actor,
        of: Option<Id<Integration>>,
    ) -> Result<HashMap<Id<Integration>, CheckResult>, Error> {
        must_manage_integrations(actor)?;
        self.core
            .store
            .read(move |db| Ok(integrations::last_checks(db, of)?))
            .await
    }

    /// Whether this is the client secret of an integration. Administrators only, who can replace it
    /// anyway.
    pub async fn has_secret(
        &self,
        actor: &Actor,
        id: Id<Integration>,
        given: &SecretString,
    ) -> Result<bool, Error> {
        must_manage_integrations(actor)?;
        let secrets = self
            .core
            .store
            .read(move |db| {
                integrations::find(db, id)?.ok_or(Error::NotFound)?;
                Ok::<_, Error>(integrations::secrets(db, id)?)
            })
            .await?;
        let Some(sealed) = secrets.current else {
            return Ok(false);
        };
        let row = id.to_string();
        let Ok(stored) = self.core.vault.open(labels::client_secret(&row), &sealed) else {
            // Damaged: it is like none.
            return Ok(false);
        };
        Ok(subtle::ConstantTimeEq::ct_eq(
            stored.expose_secret().as_bytes(),
            given.expose_secret().trim().as_bytes(),
        )
        .into())
    }

    /// All integrations, with the end of their client secret where that is known.
    pub async fn secret_ends(&self) -> Result<Vec<(Id<Integration>, Option<Timestamp>)>, Error> {
        let all = self
            .core
            .store
            .read(|db| Ok::<_, Error>(integrations::list(db)?))
            .await?;
        Ok(all
            .iter()
            .map(|one| (one.id, one.secret_expires_at))
            .collect())
    }

    /// An integration with its associations, for administrators.
    pub async fn integration_associations(
        &self,
        actor: &Actor,
        id: Id<Integration>,
    ) -> Result<(Integration, Vec<Association>), Error> {
        must_manage_integrations(actor)?;
        self.core
            .store
            .read(move |db| {
                let integration = integrations::find(db, id)?.ok_or(Error::NotFound)?;
                Ok((
                    integration,
                    integrations::associations_of_integration(db, id)?,
                ))
            })
            .await
    }

    /// Creates an integration. `Invalid` names all problems at once.
    pub async fn create_integration(
        &self,
        actor: &Actor,
        input: IntegrationInput,
    ) -> Result<Integration, Error> {
        must_manage_integrations(actor)?;
        let key = input.template.as_deref().unwrap_or("");
        let Some(template) = providers::template(key) else {
            let known: Vec<&str> = providers::TEMPLATES
                .iter()
                .map(|template| template.key)
                .collect();
            return Err(invalid(
                "template",
                format!(
                    "There is no template of this name. Known are: {}.",
                    known.join(", ")
                ),
            ));
        };
        let now = self.core.now();
        let mut problems = Vec::new();
        let name = check_text("name", input.name.as_deref(), 100, &mut problems);
        let description = check_text(
            "description",
            input.description.as_deref(),
            500,
            &mut problems,
        );
        let config = template
            .validate(&input.config, &self.core.policy)
            .unwrap_or_else(|found| {
                problems.extend(found);
                Config::new()
            });
        // While the settings are invalid, those typed decide.
        let known = if problems.is_empty() {
            &config
        } else {
            &input.config
        };
        let method = template.client_authentication(known);
        problems.extend(check_secret(
            template,
            input.client_secret.as_ref(),
            method,
            false,
        ));
        if !problems.is_empty() {
            return Err(Error::Invalid(problems));
        }
        if !input.same_name
            && let Some(name) = name.clone()
        {
            let all = self
                .core
                .store
                .read(|db| Ok::<_, Error>(integrations::list(db)?));
            let same =
                |known: &Integration| known.display_name().to_lowercase() == name.to_lowercase();
            if all.await?.iter().any(same) {
                let message = format!("There is an integration called {name} already");
                return Err(invalid(SAME_NAME, message));
            }
        }
        let mut integration = Integration {
            number: 0,
            id: input.id.unwrap_or_else(Id::random),
            name,
            description,
            template: template.key.to_owned(),
            auth_type: template.auth_type(&config),
            config,
            secret_set_at: input.client_secret.as_ref().map(|_| now),
            secret_set_by: input
                .client_secret
                .as_ref()
                .map(|_| actor.person.display_name()),
            secret_expires_at: input.secret_expires_at.apply(None),
            secret_health: if input.client_secret.is_some() {
                SecretHealth::Untried
            } else {
                SecretHealth::NotNeeded
            },
            endpoint_version: 1,
            availability: input.availability.unwrap_or_default(),
            identity_check: input.identity_check.unwrap_or_default(),
            paused_at: input.paused.unwrap_or_default().then_some(now),
            created_at: now,
            updated_at: now,
        };
        self.learn_issuer(&mut integration).await?;
        self.prepare_issuer(&integration).await?;
        let sealed = self.seal_secret(integration.id, input.client_secret.as_ref())?;
        let (actor, listed) = (actor.clone(), input.listed);
        self.core
            .store
            .write(move |db| {
                let mut integration = integration.clone();
                let listed = listed.clone();
                integration.number = integrations::insert(db, &integration, sealed.as_ref())
                    .map_err(name_taken(
                        "This form was saved already. Open the list of integrations.",
                    ))?;
                let mut detail = format!(
                    "template {}, for {}",
                    integration.template,
                    integration.availability.as_str()
                );
                if let Some(listed) = listed {
                    detail.push_str(&replace_listing(db, integration.id, &listed)?);
                }
                record(
                    db,
                    &event(
                        &actor,
                        now,
                        Action::IntegrationCreated,
                        integration.display_name(),
                        detail,
                    ),
                )?;
                Ok(integration)
            })
            .await
    }

    /// Asks the server behind typed addresses who it is. If it names itself in its answers (RFC
    /// 9207), its name is stored as the issuer, and the answers of other servers are refused. An
    /// error if another issuer was typed.
    async fn learn_issuer(&self, integration: &mut Integration) -> Result<(), Error> {
        let asks_for_issuer = providers::template(&integration.template)
            .is_some_and(|template| template.fields.iter().any(|field| field.name == ISSUER));
        let Some(endpoints) = providers::endpoints(integration).filter(|_| asks_for_issuer) else {
            return Ok(());
        };
        let found = discovery::find_issuer(&self.core.http, &endpoints.authorize, &endpoints.token);
        let Some(found) = found.await else {
            return Ok(());
        };
        match integration.setting(ISSUER) {
            "" if found.is_sent => {
                integration
                    .config
                    .insert(ISSUER.to_owned(), Value::String(found.issuer));
                Ok(())
            }
            "" => Ok(()),
            typed if typed == found.issuer => Ok(()),
            _ => Err(invalid(
                ISSUER,
                format!(
                    "The server at these addresses names itself {}. Enter that, or leave the field empty.",
                    found.issuer
                ),
            )),
        }
    }

    /// Changes an integration. Settings are merged one by one. A change of where tokens come from
    /// requires the secret and ends all connections, after a confirmation if there are any. Saving
    /// also ends the pause that follows an error which only an administrator can repair.
    ///
    /// Waits for `patience` at most; the work goes on without its caller.
    pub async fn update_integration(
        self: &Arc<Self>,
        actor: &Actor,
        id: Id<Integration>,
        input: IntegrationInput,
        patience: Duration,
    ) -> Result<UpdateOutcome, Error> {
        must_manage_integrations(actor)?;
        let (service, actor) = (Arc::clone(self), actor.clone());
        let saving = async move { service.update_to_the_end(&actor, id, input).await };
        let saved = self.core.run_for(patience, saving).await?;
        Ok(saved.unwrap_or(UpdateOutcome::GoesOn))
    }

    async fn update_to_the_end(
        self: &Arc<Self>,
        actor: &Actor,
        id: Id<Integration>,
        input: IntegrationInput,
    ) -> Result<UpdateOutcome, Error> {
        let now = self.core.now();
        let before = self.integration(actor, id).await?;
        if let Some(known) = input.based_on {
            must_be_unchanged(&before, known)?;
        }
        let Edited {
            mut after,
            leads_elsewhere,
            same_kind_of_secret,
        } = self.apply_input(&before, &input)?;
        // Programs send the secret with each change. The one that is stored is no new one: its date
        // stays, and what is known of it.
        let new_secret = match input.client_secret.clone() {
            Some(given) if !leads_elsewhere && same_kind_of_secret => {
                let is_stored = self.has_secret(actor, id, &given).await?;
                (!is_stored).then_some(given)
            }
            given => given,
        };
        if new_secret.is_none() {
            after.secret_expires_at = input.secret_expires_at.apply(before.secret_expires_at);
        }
        let contents = self.contents_of_integration(actor, id).await?;
        must_act_as_before(&before, &after, &contents)?;
        if leads_elsewhere && !input.confirmed {
            let impact = self.integration_impact(actor, id).await?;
            if !impact.people.is_empty() {
                return Ok(UpdateOutcome::NeedsConfirmation(impact));
            }
        }
        if leads_elsewhere || before.setting(ISSUER) != after.setting(ISSUER) {
            self.learn_issuer(&mut after).await?;
        }
        self.prepare_issuer(&after).await?;
        if new_secret.is_some() {
            after.secret_set_at = Some(now);
            after.secret_set_by = Some(actor.person.display_name());
            after.secret_health = SecretHealth::Untried;
        } else if !matches!(before.secret_health, SecretHealth::Works { .. })
            && before.config != after.config
        {
            after.secret_health = if before.secret_set_at.is_some() && same_kind_of_secret {
                SecretHealth::Untried
            } else {
                SecretHealth::NotNeeded
            };
        }
        match input.paused {
            Some(true) => after.paused_at = before.paused_at.or(Some(now)),
            Some(false) => after.paused_at = None,
            None => {}
        }
        after.updated_at = now;
        let has_no_secret = !providers::client_authentication(&after).needs_secret();
        let sealed = self.seal_secret(id, new_secret.as_ref())?;
        let detail = describe_changes(&before, &after, new_secret.is_some());
        let (actor, listed, service) = (actor.clone(), input.listed, Arc::clone(self));
        let why = EndReason::of(&actor, now, "the integration leads elsewhere now");
        let (mut known, mut many) = (before.updated_at, 0);
        if leads_elsewhere {
            // Checks that the integration is as it was when its form was read, and marks it as
            // changed: a save that is rejected must not have ended any connection.
            let claim = move |db: &mut Db<'_>| {
                let current = integrations::find(db, id)?.ok_or(Error::NotFound)?;
                must_be_unchanged(&current, before.updated_at)?;
                let claimed = Integration {
                    updated_at: now,
                    ..current
                };
                Ok(integrations::update(db, &claimed)?)
            };
            many = self
                .revocations
                .end_many(EndingOf::Integration(id), &why, claim)
                .await?;
            if many > 0 {
                known = now;
            }
        }
        let (after, contents) = self
            .core
            .store
            .write(move |db| {
                let after = after.clone();
                let detail = detail.clone();
                let listed = listed.clone();
                let sealed = sealed.clone();
                let current = integrations::find(db, id)?.ok_or(Error::NotFound)?;
                must_be_unchanged(&current, known)?;
                let contents = contents_of(db, id)?;
                must_act_as_before(&current, &after, &contents)?;
                let contents: Vec<_> = contents.iter().map(|item| item.id).collect();
                // Viewers agreed to the old provider, so their connections end. This comes first,
                // since revocations must carry the old secret.
                let ended = many
                    + if leads_elsewhere {
                        service
                            .revocations
                            .end_all(db, EndingOf::Integration(id), &why)?
                    } else {
                        0
                    };
                if let Some(new) = sealed {
                    let kept = integrations::secrets(db, id)?;
                    // Keep as previous the last secret that worked: it may still be the valid one.
                    // Nothing is kept when tokens come from somewhere else.
                    let last = match (&current.secret_health, kept.previous) {
                        _ if leads_elsewhere || !same_kind_of_secret => None,
                        (SecretHealth::Works { .. }, _) | (_, None) => {
                            service.reseal_as_previous(id, kept.current.as_ref())?
                        }
                        (_, older) => older,
                    };
                    integrations::set_secrets(
                        db,
                        id,
                        &Secrets {
                            current: Some(new),
                            previous: last,
                        },
                    )?;
                } else if has_no_secret {
                    integrations::set_secrets(db, id, &Secrets::default())?;
                }
                integrations::update(db, &after)?;
                if current.secret_expires_at != after.secret_expires_at {
                    integrations::set_secret_warned(db, id, None)?;
                }
                let mut detail = if leads_elsewhere {
                    format!("{detail}; {ended} connection(s) ended")
                } else {
                    detail
                };
                if let Some(listed) = listed {
                    detail.push_str(&replace_listing(db, id, &listed)?);
                }
                record(
                    db,
                    &event(
                        &actor,
                        now,
                        Action::IntegrationChanged,
                        after.display_name(),
                        detail,
                    ),
                )?;
                Ok::<_, Error>((after, contents))
            })
            .await?;
        self.renew_processes(&after, &contents);
        self.backoff.forget(id);
        self.revocations.spawn_revocations();
        Ok(UpdateOutcome::Saved(Box::new(after)))
    }

    /// What an integration becomes with `input`. Errors: [`Error::Invalid`], with every problem.
    fn apply_input(&self, before: &Integration, input: &IntegrationInput) -> Result<Edited, Error> {
        let template = providers::template(&before.template)
            .ok_or(Error::Internal("the template of an integration is unknown"))?;
        let mut problems = Vec::new();
        let mut after = before.clone();
        if input.name.is_some() {
            after.name = check_text("name", input.name.as_deref(), 100, &mut problems);
        }
        if input.description.is_some() {
            after.description = check_text(
                "description",
                input.description.as_deref(),
                500,
                &mut problems,
            );
        }
        let mut merged = before.config.clone();
        for (key, value) in &input.config {
            match value {
                Value::Null => drop(merged.remove(key)),
                value => drop(merged.insert(key.clone(), value.clone())),
            }
        }
        match template.validate(&merged, &self.core.policy) {
            Ok(config) => {
                after.auth_type = template.auth_type(&config);
                after.config = config;
            }
            Err(found) => problems.extend(found),
        }
        let leads_elsewhere = before.config.keys().chain(after.config.keys()).any(|key| {
            template.moves_tokens(key) && before.config.get(key) != after.config.get(key)
        });
        let other_scopes = sorted_scopes(before) != sorted_scopes(&after);
        let method = providers::client_authentication(&after);
        // A stored secret cannot serve as a private key, nor the other way round.
        let is_key = |method| method == ClientAuthentication::PrivateKey;
        let same_kind_of_secret =
            is_key(method) == is_key(providers::client_authentication(before));
        problems.extend(check_secret(
            template,
            input.client_secret.as_ref(),
            method,
            before.secret_set_at.is_some() && same_kind_of_secret,
        ));
        if leads_elsewhere
            && input.client_secret.is_none()
            && method.needs_secret()
            && problems.is_empty()
        {
            problems.push(FieldError::new(
                "client_secret",
                "Enter the client secret again: tenant, client ID or an address changes, and the stored secret is never sent to a new place.",
            ));
        } else if other_scopes
            && input.client_secret.is_none()
            && method.needs_secret()
            && problems.is_empty()
        {
            problems.push(FieldError::new(
                "client_secret",
                "Enter the client secret again: other scopes decide what the tokens of all viewers can do.",
            ));
        }
        if !problems.is_empty() {
            return Err(Error::Invalid(problems));
        }
        // The date belongs to the secret.
        let expires = before
            .secret_expires_at
            .filter(|_| input.client_secret.is_none());
        after.secret_expires_at = input.secret_expires_at.apply(expires);
        after.availability = input.availability.unwrap_or(before.availability);
        after.identity_check = input.identity_check.unwrap_or(before.identity_check);
        // Attempts that began before asked for other things.
        if leads_elsewhere || other_scopes {
            after.endpoint_version += 1;
        }
        Ok(Edited {
            after,
            leads_elsewhere,
            same_kind_of_secret,
        })
    }

    /// The content items that use an integration, and the people connected through it.
    pub async fn integration_impact(
        &self,
        actor: &Actor,
        id: Id<Integration>,
    ) -> Result<Impact, Error> {
        must_manage_integrations(actor)?;
        self.core.store.read(move |db| impact(db, id)).await
    }

    /// The content items that use an integration.
    pub async fn contents_of_integration(
        &self,
        actor: &Actor,
        id: Id<Integration>,
    ) -> Result<Vec<Content>, Error> {
        must_manage_integrations(actor)?;
        self.core.store.read(move |db| contents_of(db, id)).await
    }

    /// Deletes an integration with its associations, connections and consents; the provider is told
    /// to revoke the tokens.
    ///
    /// `None` if that takes longer than `patience` and goes on in the background: from then on no
    /// exchange succeeds, and the integration is deleted with its last connection.
    pub async fn delete_integration(
        self: &Arc<Self>,
        actor: &Actor,
        id: Id<Integration>,
        patience: Duration,
    ) -> Result<Option<Integration>, Error> {
        must_manage_integrations(actor)?;
        let (service, actor) = (Arc::clone(self), actor.clone());
        let deleting = async move { service.delete_to_the_end(&actor, id).await };
        self.core.run_for(patience, deleting).await
    }

    async fn delete_to_the_end(
        self: &Arc<Self>,
        actor: &Actor,
        id: Id<Integration>,
    ) -> Result<Integration, Error> {
        let (now, actor, service) = (self.core.now(), actor.clone(), Arc::clone(self));
        let why = EndReason::of(&actor, now, "the integration was deleted");
        let many = self
            .revocations
            .end_many(EndingOf::Integration(id), &why, |_| Ok(()))
            .await?;
        let deleted = self
            .core
            .store
            .write(move |db| {
                let integration = integrations::find(db, id)?.ok_or(Error::NotFound)?;
                let impact = impact(db, id)?;
                service
                    .revocations
                    .end_all(db, EndingOf::Integration(id), &why)?;
                integrations::delete(db, id)?;
                let detail = format!(
                    "{} content item(s), {} connected",
                    impact.contents.len(),
                    many + impact.people.len()
                );
                record(
                    db,
                    &event(
                        &actor,
                        now,
                        Action::IntegrationDeleted,
                        integration.display_name(),
                        detail,
                    ),
                )?;
                let contents: Vec<_> = impact.contents.iter().map(|item| item.id).collect();
                Ok::<_, Error>((integration, contents))
            })
            .await?;
        let (deleted, contents) = deleted;
        self.renew_processes(&deleted, &contents);
        self.revocations.spawn_revocations();
        Ok(deleted)
    }

    /// Has the processes of these items replaced, if they got something of a service account when they
    /// started. Files with tokens follow by themselves, also on other nodes.
    fn renew_processes(&self, integration: &Integration, contents: &[Id<Content>]) {
        if integration.auth_type == AuthType::ServiceAccount {
            for item in contents {
                self.runs.renew(*item);
            }
        }
    }

    /// The current secret, sealed anew for the place of the previous one. `None` if it is damaged: then
    /// a new one is what mends it.
    fn reseal_as_previous(
        &self,
        id: Id<Integration>,
        current: Option<&Sealed>,
    ) -> Result<Option<Sealed>, Error> {
        let row = id.to_string();
        let opened = current.and_then(|sealed| {
            let opened = self.core.vault.open(labels::client_secret(&row), sealed);
            opened
                .inspect_err(|error| {
                    tracing::error!(%error, integration = %id, "the client secret that is replaced cannot be opened");
                })
                .ok()
        });
        Ok(opened
            .map(|secret| {
                self.core
                    .vault
                    .seal(labels::previous_client_secret(&row), &secret)
            })
            .transpose()?)
    }

    /// Records and logs a warning for each client secret that is about to expire, once per entry of
    /// `EXPIRY_WARNING_DAYS`.
    pub async fn warn_of_secrets(&self) -> Result<(), Error> {
        let now = self.core.now();
        let all = self
            .core
            .store
            .read(|db| Ok::<_, Error>(integrations::list(db)?))
            .await?;
        for integration in all {
            let Some(days) = integration
                .secret_expires_at
                .and_then(|end| due_expiry_warning(end, now))
            else {
                continue;
            };
            let detail = match days {
                0 => "the client secret has ended: nobody can connect or stay connected".to_owned(),
                1 => "the client secret ends within a day".to_owned(),
                days => format!("the client secret ends within {days} days"),
            };
            let line = Event::by_portal(
                now,
                Action::SecretExpiring,
                integration.display_name(),
                detail,
            );
            let id = integration.id;
            let notice = Notice {
                kind: notice::Kind::SecretExpiring,
                person: None,
                title: format!("{}: {}", integration.display_name(), line.detail),
                body: "Make a new secret at the provider and enter it on the integration's page: there is no gap, the former one stays until the new one has worked.".into(),
                path: addresses::integration(id),
                once: None,
            };
            let warned = self
                .core
                .store
                .write(move |db| {
                    let last = integrations::secret_warned_days(db, id)?;
                    if last.is_some_and(|last| last <= days) {
                        return Ok(false);
                    }
                    integrations::set_secret_warned(db, id, Some(days))?;
                    record(db, &line)?;
                    notify(db, &notice, now)?;
                    Ok::<_, Error>(true)
                })
                .await?;
            if warned {
                tracing::warn!(
                    integration = integration.display_name(),
                    days,
                    "a client secret ends soon"
                );
            }
        }
        Ok(())
    }

    /// Seals a typed secret for the place of the current one.
    fn seal_secret(
        &self,
        id: Id<Integration>,
        secret: Option<&SecretString>,
    ) -> Result<Option<Sealed>, Error> {
        let row = id.to_string();
        Ok(secret
            .map(|secret| self.core.vault.seal(labels::client_secret(&row), secret))
            .transpose()?)
    }
}

/// Whether the actor may choose this integration, and so see it.
pub(in crate::service) fn may_choose(
    db: &mut Db<'_>,
    actor: &Actor,
    integration: &Integration,
) -> Result<bool, Error> {
    let listed = integration.availability == Availability::Listed
        && integrations::listed_for(db, actor.person.id)?.contains(&integration.id);
    Ok(access::may_choose_integration(
        actor.role,
        integration.availability,
        listed,
    ))
}

/// Replaces the list of who may choose it; returns a phrase for the audit record.
fn replace_listing(
    db: &mut Db<'_>,
    id: Id<Integration>,
    wanted: &[Principal],
) -> Result<String, Error> {
    let mut names = Vec::new();
    for principal in wanted {
        let name = groups::principal_name(db, *principal)?;
        names.push(name.ok_or_else(|| {
            invalid(
                "permissions",
                "There is no person or group with one of these GUIDs.",
            )
        })?);
    }
    integrations::set_list(db, id, wanted)?;
    Ok(if names.is_empty() {
        "; nobody on the list".into()
    } else {
        format!("; on the list: {}", names.join(", "))
    })
}

fn contents_of(db: &mut Db<'_>, id: Id<Integration>) -> Result<Vec<Content>, Error> {
    let mut contents = Vec::new();
    for association in integrations::associations_of_integration(db, id)? {
        contents.extend(content::find(db, association.content)?);
    }
    Ok(contents)
}

/// Publishers attached an integration and viewers agreed to it for the identity it has: that stays while
/// content uses it.
fn must_act_as_before(
    before: &Integration,
    after: &Integration,
    contents: &[Content],
) -> Result<(), Error> {
    if before.auth_type == after.auth_type || contents.is_empty() {
        return Ok(());
    }
    let text = format!(
        "{} content item(s) use this integration: whom it acts as cannot change. Add another integration for that.",
        contents.len()
    );
    Err(invalid("auth_type", text))
}

fn impact(db: &mut Db<'_>, id: Id<Integration>) -> Result<Impact, Error> {
    let people = people::by_id(db)?;
    Ok(Impact {
        contents: contents_of(db, id)?,
        people: connections::of_integration(db, id)?
            .iter()
            .filter_map(|connection| people.get(&connection.person).cloned())
            .collect(),
    })
}

/// The trimmed text. Adds to `problems` if it is too long or has invisible characters.
fn check_text(
    key: &str,
    typed: Option<&str>,
    longest: usize,
    problems: &mut Vec<FieldError>,
) -> Option<String> {
    let text = typed?.trim();
    if text.chars().count() > longest {
        problems.push(FieldError::new(
            key,
            format!("Use at most {longest} characters."),
        ));
    } else if text
        .chars()
        .any(|letter| letter.is_control() && letter != '\n' && letter != '\r')
        || (key == "name" && text.contains('\n'))
    {
        problems.push(FieldError::new(
            key,
            "Leave out line breaks and other invisible characters.",
        ));
    }
    Some(text.to_owned())
}

/// What is wrong with the typed secret. `stored`: there is one that may be kept.
fn check_secret(
    template: &Template,
    secret: Option<&SecretString>,
    method: ClientAuthentication,
    stored: bool,
) -> Option<FieldError> {
    let is_key = method == ClientAuthentication::PrivateKey;
    let wrong = |message: &str| Some(FieldError::new("client_secret", message));
    match (secret, method) {
        (None, method) if !method.needs_secret() => None,
        (None, _) if stored => None,
        (None, _) if is_key => wrong("Enter the private key, and its certificate below it."),
        (None, _) => wrong("Enter the client secret."),
        (Some(_), ClientAuthentication::None) => {
            wrong("A public client has no secret. Leave this empty, or choose Confidential.")
        }
        (Some(_), ClientAuthentication::Federated) => wrong(
            "With a federated credential there is no secret. Leave this empty, or choose another client type.",
        ),
        (Some(key), ClientAuthentication::PrivateKey) => {
            let text = key.expose_secret();
            if text.len() > 20_000 {
                return wrong("This is longer than any key: at most 20,000 characters.");
            }
            assertion::key_problem(text).and_then(wrong)
        }
        (Some(secret), _) => {
            let text = secret.expose_secret();
            if text.len() > 2000 {
                return wrong("This is longer than any client secret: at most 2,000 characters.");
            }
            if text
                .chars()
                .any(|letter| letter.is_control() || letter.is_whitespace())
            {
                return wrong(
                    "The secret holds a blank or a line break in its middle. Copy it again.",
                );
            }
            (template.secret_problem)(text).and_then(wrong)
        }
    }
}

/// Days before a secret expires at which administrators are warned; 0 once it has expired.
const EXPIRY_WARNING_DAYS: [i64; 6] = [0, 1, 7, 14, 30, 60];

/// The warning that is due, in days: the smallest number of days within which the secret expires.
pub fn due_expiry_warning(end: Timestamp, now: Timestamp) -> Option<i64> {
    let left = end.0 - now.0;
    EXPIRY_WARNING_DAYS
        .into_iter()
        .find(|days| left <= days * 86_400_000)
}

/// What changed, in words for the audit record; never a secret's value.
fn describe_changes(before: &Integration, after: &Integration, secret: bool) -> String {
    let mut words: Vec<String> = Vec::new();
    if before.name != after.name {
        words.push("name".into());
    }
    if before.description != after.description {
        words.push("description".into());
    }
    for key in after.config.keys().chain(
        before
            .config
            .keys()
            .filter(|key| !after.config.contains_key(*key)),
    ) {
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
    match (before.paused_at, after.paused_at) {
        (None, Some(_)) => words.push("paused".into()),
        (Some(_), None) => words.push("resumed".into()),
        _ => {}
    }
    if before.identity_check != after.identity_check {
        words.push(format!("identity check {}", after.identity_check.as_str()));
    }
    if words.is_empty() {
        "nothing".into()
    } else {
        words.join(", ")
    }
}

/// Refuses a change that is based on an older version of the integration.
fn must_be_unchanged(current: &Integration, known: Timestamp) -> Result<(), Error> {
    if current.updated_at == known {
        return Ok(());
    }
    Err(Error::ChangedMeanwhile("integration"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_warning_due_is_the_smallest_threshold_that_applies() {
        let now = Timestamp(1_800_000_000_000);
        let in_days = |days: i64| due_expiry_warning(Timestamp(now.0 + days * 86_400_000), now);
        assert_eq!(
            [61, 60, 59, 31, 30, 15, 14, 8, 7, 2, 1, 0].map(in_days),
            [
                None,
                Some(60),
                Some(60),
                Some(60),
                Some(30),
                Some(30),
                Some(14),
                Some(14),
                Some(7),
                Some(7),
                Some(1),
                Some(0)
            ]
        );
        assert_eq!(in_days(-5), Some(0));
    }
}
