//! Attempts: the authorization code flow, from the viewer's click on the consent page to sealed
//! tokens (RFC 6749 section 4.1, RFC 7636, RFC 9207, RFC 9700).
//!
//! An attempt is stored before the browser is redirected. The callback consumes it before any other
//! parameter is used. Tokens, consent and audit record are committed in one transaction.

use crate::{
    domain::{
        Id, access,
        activity::Activity,
        attempt::{Attempt, LIFETIME, Mismatch},
        audit::Action,
        check::CheckResult,
        connection::{Account, Connection, IdentityVerdict, State},
        content::Content,
        integration::{AuthType, Integration},
        person::Person,
        return_path::ReturnPath,
    },
    measures,
    oauth::{
        AuthorizationRequest, Granted,
        errors::{self, ErrorCode, Failure, FailureClass, aadsts},
        identity,
        token_response::ProviderTokenResponse,
    },
    providers::{self, Profile},
    service::{
        core::{Actor, Core, event, must_manage_integrations, record},
        error::Error,
        grants::{
            activity::ActivityCounts,
            admission::{Admission, Admissions, IntegrationAccess},
            broker::lapses_at,
            checks::{self, Checks},
            clients::OauthClients,
            new_connections::{Issued, NewConnection, NewConnections, Seen},
            sign_in_grants::SignInGrants,
        },
    },
    store::{
        connections, content,
        integrations::{self, Secrets},
        people,
    },
    vault::{Sealed, api_key::digest, labels, random},
};
use secrecy::SecretString;
use std::{sync::Arc, time::Instant};
use url::Url;

/// What the consent page asks about: one integration, for one content item or for none (a
/// reconnect).
pub struct Question {
    pub content: Option<AskingItem>,
    pub integration: Integration,
    /// A live connection exists: allowing takes one click and no redirect.
    pub connected: bool,
    /// The account name of the live connection.
    pub account: Option<String>,
    /// The viewer agreed before, but to fewer scopes.
    pub asks_for_more: bool,
    /// The state of an existing connection: why the viewer is asked again.
    pub state: Option<State>,
    /// Position of the integration among the item's, from 1, and their number.
    pub step: (usize, usize),
}

/// The content item that asks, with its owner's display name.
pub struct AskingItem {
    pub content: Content,
    pub owner: String,
}

/// The identity provider's answer: the query parameters of the callback.
#[derive(Clone, Default)]
pub struct CallbackQuery {
    pub state: Option<String>,
    pub code: Option<String>,
    pub error: Option<String>,
    pub error_description: Option<String>,
    /// `iss` (RFC 9207).
    pub issuer: Option<String>,
}

/// The outcome of an authorization, for the page to show.
pub enum CallbackOutcome {
    /// The tokens are stored; the consent too, if a content item asked.
    Connected {
        back: ReturnPath,
        integration: Integration,
        /// The tokens can be refreshed, or have no end.
        lasts: bool,
        /// Scopes that were requested and not issued.
        missing_scopes: Vec<String>,
    },
    /// The account does not look like the viewer's. The tokens are stored, and unused until the
    /// viewer confirms the account.
    OtherAccount {
        connection: Id<Connection>,
        content: Option<Id<Content>>,
        back: ReturnPath,
    },
    /// The integration requires the viewer's own account, and this one is another or has no name.
    /// Nothing was stored.
    NotYourAccount {
        account: Option<String>,
        integration: Integration,
        content: Option<Id<Content>>,
        back: ReturnPath,
    },
    /// The existing connection belongs to another account and must be disconnected first. Nothing
    /// was stored.
    AccountChanged {
        integration: Integration,
        connection: Id<Connection>,
        before: Option<String>,
        now: Option<String>,
    },
    /// The provider has issued the tokens, and the database does not take them yet: they are stored
    /// as soon as it does.
    StoredLater { back: ReturnPath },
    /// The callback was handled before, and the app can be opened.
    AlreadyDone { back: ReturnPath },
    /// The callback does not fit a usable attempt of this browser session.
    Mismatch {
        why: Mismatch,
        back: Option<ReturnPath>,
    },
    /// The viewer declined at the provider.
    Declined {
        back: ReturnPath,
        integration: Integration,
    },
    /// An administrator of the organisation must approve at the provider first.
    NeedsApproval {
        back: ReturnPath,
        integration: Integration,
    },
    /// The end of a test sign-in.
    Tested {
        integration: Integration,
        result: CheckResult,
    },
    /// Any other error of the provider, or an unusable answer.
    Failed {
        failure: Failure,
        back: ReturnPath,
        integration: Integration,
    },
}

/// An attempt, its sealed PKCE verifier, its integration and that one's sealed secrets.
type FoundAttempt = (Attempt, Option<Sealed>, Integration, Secrets);

/// How an authorization starts.
pub enum AuthorizationStart {
    /// The attempt is stored; send the browser there.
    Redirect(Url),
    /// No address can be built: the integration's settings do not allow it.
    Failed(Failure),
}

/// Authorizations, from the click to the stored tokens.
pub struct Attempts {
    core: Arc<Core>,
    admissions: Arc<Admissions>,
    clients: Arc<OauthClients>,
    sign_in_grants: Arc<SignInGrants>,
    new_connections: Arc<NewConnections>,
    activity: Arc<ActivityCounts>,
    checks: Arc<Checks>,
}

impl Attempts {
    pub(in crate::service) fn new(
        core: Arc<Core>,
        admissions: Arc<Admissions>,
        clients: Arc<OauthClients>,
        sign_in_grants: Arc<SignInGrants>,
        new_connections: Arc<NewConnections>,
        activity: Arc<ActivityCounts>,
        checks: Arc<Checks>,
    ) -> Self {
        Self {
            core,
            admissions,
            clients,
            sign_in_grants,
            new_connections,
            activity,
            checks,
        }
    }

    /// The question about the item's first integration that needs the viewer; `None` if none does.
    /// `NotFound` if the viewer may not open the item.
    pub async fn consent_question_for_content(
        &self,
        actor: &Actor,
        item: Id<Content>,
    ) -> Result<Option<Question>, Error> {
        let admission = self.admissions.admission(item, actor.person.id).await?;
        if !access::may_open(admission.standing) {
            return Err(Error::NotFound);
        }
        let Some(position) = admission
            .integrations
            .iter()
            .position(IntegrationAccess::needs_viewer)
        else {
            return Ok(None);
        };
        let owner = admission.content.owner;
        let owner = self
            .core
            .store
            .read(move |db| {
                people::find(db, owner)?
                    .ok_or(Error::Internal("a row that another row names is missing"))
            })
            .await?;
        Ok(Some(question(&admission, position, owner.display_name())))
    }

    /// The question for a reconnect to an integration, for no content item.
    pub async fn question_for_integration(
        &self,
        actor: &Actor,
        id: Id<Integration>,
    ) -> Result<Question, Error> {
        let person = actor.person.id;
        let (integration, connection) = self
            .core
            .store
            .read(move |db| {
                let integration = integrations::find(db, id)?.ok_or(Error::NotFound)?;
                Ok::<_, Error>((
                    integration,
                    connections::find_of(db, person, id)?.map(|(connection, _)| connection),
                ))
            })
            .await?;
        Ok(Question {
            content: None,
            connected: false,
            account: None,
            asks_for_more: false,
            state: connection.map(|connection| connection.state),
            integration,
            step: (1, 1),
        })
    }

    /// Whether the actor may start an authorization at this integration. Publishers and
    /// administrators may; others only if an item visible to them uses it or they have a connection
    /// to it.
    pub async fn may_connect(&self, actor: &Actor, id: Id<Integration>) -> Result<bool, Error> {
        if access::may_see_integrations(actor.role) {
            return Ok(true);
        }
        let person = actor.with_effective_role();
        self.core
            .store
            .read(move |db| {
                for association in integrations::associations_of_integration(db, id)? {
                    let Some(item) = content::find(db, association.content)? else {
                        continue;
                    };
                    let listed = content::role_of(db, item.id, person.id)?;
                    let standing = access::standing(&item, &person, listed);
                    if access::may_see_content(&person, standing) {
                        return Ok(true);
                    }
                }
                Ok(connections::find_of(db, person.id, id)?.is_some())
            })
            .await
    }

    /// Starts an authorization: stores the attempt, then returns the address to redirect the
    /// browser to. `other_account` asks the provider for its account picker.
    pub async fn start_authorization(
        &self,
        actor: &Actor,
        integration: Id<Integration>,
        item: Option<Id<Content>>,
        back: ReturnPath,
        other_account: bool,
    ) -> Result<AuthorizationStart, Error> {
        let prompt = other_account.then_some("select_account");
        self.start(actor, integration, item, back, prompt, false)
            .await
    }

    /// Starts a test sign-in of an administrator: the same flow, whose tokens are not stored.
    pub async fn start_test(
        &self,
        actor: &Actor,
        integration: Id<Integration>,
        back: ReturnPath,
    ) -> Result<AuthorizationStart, Error> {
        must_manage_integrations(actor)?;
        self.start(actor, integration, None, back, None, true).await
    }

    async fn start(
        &self,
        actor: &Actor,
        integration: Id<Integration>,
        item: Option<Id<Content>>,
        back: ReturnPath,
        prompt: Option<&str>,
        is_test: bool,
    ) -> Result<AuthorizationStart, Error> {
        let session = actor
            .session
            .ok_or(Error::Internal("this operation needs a browser session"))?;
        let (found, secrets) = self
            .core
            .store
            .read(move |db| {
                Ok::<_, Error>((
                    integrations::find(db, integration)?.ok_or(Error::NotFound)?,
                    integrations::secrets(db, integration)?,
                ))
            })
            .await?;
        let (state, verifier) = (random::token(), SecretString::from(random::token()));
        let pkce = providers::uses_pkce(&found);
        let attempt = Attempt {
            id: Id::random(),
            person: actor.person.id,
            session,
            integration,
            endpoint_version: found.endpoint_version,
            content: item,
            return_path: back,
            redirect_uri: self.clients.redirect_uri(&found),
            expires_at: self.core.now().plus(LIFETIME),
            is_test,
            used_at: None,
        };
        let registration = self.clients.registration(&found, &secrets)?;
        let address = registration.authorize_url(&AuthorizationRequest {
            redirect_uri: &attempt.redirect_uri,
            state: &state,
            verifier: pkce.then_some(&verifier),
            login_hint: prompt.is_none().then(|| actor.person.login_hint()),
            prompt,
        });
        let address = match address {
            Ok(address) => address,
            Err(failure) => return Ok(AuthorizationStart::Failed(failure)),
        };
        let row = attempt.id.to_string();
        let sealed = if pkce {
            Some(
                self.core
                    .vault
                    .seal(labels::attempt_verifier(&row), &verifier)?,
            )
        } else {
            None
        };
        let hash = digest(&state);
        self.core
            .store
            .write(move |db| {
                Ok::<_, Error>(connections::insert_attempt(
                    db,
                    &attempt,
                    &hash,
                    sealed.as_ref(),
                )?)
            })
            .await?;
        Ok(AuthorizationStart::Redirect(address))
    }

    /// Whether this browser session signed in through the same OAuth client (tenant and client id)
    /// that the integration uses. Then the sign-in's token yields this connection without a second
    /// redirect to the provider.
    pub async fn sign_in_suffices(
        &self,
        actor: &Actor,
        integration: &Integration,
    ) -> Result<bool, Error> {
        Ok(self.sign_in_token(actor, integration).await?.is_some())
    }

    /// The refresh token of the session's sign-in, if it was issued to the integration's OAuth
    /// client.
    async fn sign_in_token(
        &self,
        actor: &Actor,
        integration: &Integration,
    ) -> Result<Option<SecretString>, Error> {
        let (Some(sign_in), Some(session)) = (&self.core.settings.sign_in, actor.session) else {
            return Ok(None);
        };
        if providers::sign_in_suffices(integration, &sign_in.issuer, &sign_in.client_id) {
            self.sign_in_grants.sign_in_grant(session).await
        } else {
            Ok(None)
        }
    }

    /// Connects with the refresh token of the sign-in, if it was issued to the same OAuth client.
    /// `None` if the viewer must go to the provider: there is no such token, or it yields no usable
    /// tokens.
    pub async fn connect_by_sign_in(
        self: &Arc<Self>,
        actor: &Actor,
        id: Id<Integration>,
        item: Option<Id<Content>>,
        back: ReturnPath,
    ) -> Result<Option<CallbackOutcome>, Error> {
        let (found, secrets) = self
            .core
            .store
            .read(move |db| {
                Ok::<_, Error>((
                    integrations::find(db, id)?.ok_or(Error::NotFound)?,
                    integrations::secrets(db, id)?,
                ))
            })
            .await?;
        let Some(token) = self.sign_in_token(actor, &found).await? else {
            return Ok(None);
        };
        self.clients.ready(&found).await;
        let mut registration = self.clients.registration(&found, &secrets)?;
        registration.profile.sends_scopes_at_refresh = true;
        // Never stored: no browser is redirected, so no callback can arrive.
        let attempt = Attempt {
            id: Id::random(),
            person: actor.person.id,
            session: actor
                .session
                .ok_or(Error::Internal("this operation needs a browser session"))?,
            integration: id,
            endpoint_version: found.endpoint_version,
            content: item,
            return_path: back,
            redirect_uri: String::new(),
            expires_at: self.core.now().plus(LIFETIME),
            is_test: false,
            used_at: None,
        };
        let (service, actor) = (Arc::clone(self), actor.clone());
        let task = self.core.tasks.spawn_on(
            async move {
                match registration
                    .refresh(&service.core.http, token, Instant::now() + LIFETIME)
                    .await
                {
                    Ok(granted) if granted.answer.is_bearer() => service
                        .store_granted_tokens(&actor, &attempt, found, secrets, &granted)
                        .await
                        .map(Some),
                    Ok(_) => Ok(None),
                    Err(failure) => {
                        tracing::info!(
                            error_code = %failure.error_code,
                            aadsts = failure.aadsts,
                            "the sign-in brings no connection; the viewer goes to the provider"
                        );
                        Ok(None)
                    }
                }
            },
            &self.core.runtime,
        );
        task.await
            .map_err(|_| Error::Internal("a background task ended early"))?
    }

    /// Handles the provider's callback. Checks and consumes the state before any other parameter.
    /// `callback` is the address at which the answer arrived.
    pub async fn finish_authorization(
        self: &Arc<Self>,
        actor: &Actor,
        callback: &str,
        answer: CallbackQuery,
    ) -> Result<CallbackOutcome, Error> {
        let now = self.core.now();
        let found = self.find_attempt(answer.state.as_deref()).await?;
        let Some((attempt, verifier, integration, secrets)) = found else {
            return self.record_mismatch(actor, Mismatch::Unknown, None).await;
        };
        let session = actor
            .session
            .ok_or(Error::Internal("this operation needs a browser session"))?;
        if let Err(why) = attempt.check_callback(
            actor.person.id,
            session,
            callback,
            integration.endpoint_version,
            now,
        ) {
            return self.refuse_callback(actor, why, attempt).await;
        }
        let attempt = attempt.consume(now);
        let consumed = attempt.clone();
        if !self
            .core
            .store
            .write(move |db| Ok::<_, Error>(connections::save_consumed(db, &consumed)?))
            .await?
        {
            return self
                .record_mismatch(actor, Mismatch::Used, Some(attempt.return_path))
                .await;
        }
        // Mix-up defence (RFC 9207): the issuer is compared as plain text.
        if !providers::issuer_matches(&integration, answer.issuer.as_deref()) {
            return self
                .record_mismatch(actor, Mismatch::OtherIssuer, Some(attempt.return_path))
                .await;
        }
        self.activity.count(
            Activity::ConsentReturned,
            attempt.content,
            Some(integration.id),
        );
        let back = attempt.return_path.clone();
        if attempt.is_test {
            return self
                .finish_test(actor, attempt, verifier, integration, secrets, answer)
                .await;
        }
        if let Some(word) = &answer.error {
            let description = answer.error_description.as_deref().unwrap_or("");
            return self
                .handle_error_callback(actor, word, aadsts(description), integration, back)
                .await;
        }
        let Some(code) = answer
            .code
            .filter(|code| !code.is_empty() && code.len() <= 8192)
        else {
            let failure = Failure::wait("The identity provider sent an answer without a code.");
            return self.record_failure(actor, failure, integration, back).await;
        };
        let verifier = self.open_verifier(attempt.id, verifier)?;
        self.clients.ready(&integration).await;
        let registration = self.clients.registration(&integration, &secrets)?;
        let (http, redirect_uri) = (self.core.http.clone(), attempt.redirect_uri.clone());
        // A separate task: tokens must be stored even if the browser disconnects meanwhile.
        let service = Arc::clone(self);
        let finishing = actor.clone();
        let task = self.core.tasks.spawn_on(
            async move {
                let asked = Instant::now();
                let answer = registration.redeem(&http, code, &redirect_uri, verifier).await;
                measures::provider_request(&integration.id, "code", errors::outcome(&answer), asked.elapsed());
                match answer {
                    Ok(granted) if !granted.answer.is_bearer() => {
                        let failure = Failure::administrator(
                            ErrorCode::Other,
                            "The identity provider issued a kind of token that this portal cannot use.",
                        );
                        service.record_failure(&finishing, failure, integration, back).await
                    }
                    Ok(granted)
                        if registration.profile.keeps_id_token
                            && !granted.answer.has_id_token() =>
                    {
                        let failure = Failure::administrator(
                            ErrorCode::Other,
                            "The identity provider sent no ID token. Add the scope openid.",
                        );
                        service.record_failure(&finishing, failure, integration, back).await
                    }
                    Ok(granted) => {
                        service
                            .store_granted_tokens(&finishing, &attempt, integration, secrets, &granted)
                            .await
                    }
                    Err(failure) => {
                        service.record_failure(&finishing, failure, integration, back).await
                    }
                }
            },
            &self.core.runtime,
        );
        let ending = task
            .await
            .map_err(|_| Error::Internal("a background task ended early"))?;
        if let Err(error) = &ending {
            error.log("finishing an authorization");
        }
        ending
    }

    /// The end of a test sign-in: looks at what the provider sent, stores the findings and no token.
    async fn finish_test(
        &self,
        actor: &Actor,
        attempt: Attempt,
        verifier: Option<Sealed>,
        integration: Integration,
        secrets: Secrets,
        answer: CallbackQuery,
    ) -> Result<CallbackOutcome, Error> {
        must_manage_integrations(actor)?;
        self.clients.ready(&integration).await;
        let registration = self.clients.registration(&integration, &secrets)?;
        let failed = |failure: &Failure| {
            vec![
                checks::explain(&integration, &registration, failure),
                checks::viewer_reads(&integration, failure),
            ]
        };
        let findings = if let Some(word) = &answer.error {
            let number = aadsts(answer.error_description.as_deref().unwrap_or(""));
            failed(&Failure::of_code(ErrorCode::received(word), number))
        } else {
            let verifier = self.open_verifier(attempt.id, verifier)?;
            let code = answer.code.unwrap_or_default();
            let redeeming =
                registration.redeem(&self.core.http, code, &attempt.redirect_uri, verifier);
            match redeeming.await {
                Ok(granted) => {
                    self.checks
                        .read_sign_in(&integration, &registration, &granted)
                        .await
                }
                Err(failure) => failed(&failure),
            }
        };
        let result = self.checks.store(actor, &integration, findings).await?;
        Ok(CallbackOutcome::Tested {
            integration,
            result,
        })
    }

    /// The PKCE verifier of an attempt, if it has one.
    fn open_verifier(
        &self,
        attempt: Id<Attempt>,
        sealed: Option<Sealed>,
    ) -> Result<Option<SecretString>, Error> {
        let row = attempt.to_string();
        let open = |sealed: Sealed| {
            self.core
                .vault
                .open(labels::attempt_verifier(&row), &sealed)
        };
        Ok(sealed.map(open).transpose()?)
    }

    /// The attempt that `state` names, with its sealed verifier and its integration.
    async fn find_attempt(&self, state: Option<&str>) -> Result<Option<FoundAttempt>, Error> {
        let hash = state
            .filter(|state| !state.is_empty() && state.len() <= 200)
            .map(digest)
            .unwrap_or_default();
        self.core
            .store
            .read(move |db| {
                let Some((attempt, verifier)) = connections::attempt(db, &hash)? else {
                    return Ok(None);
                };
                let integration =
                    integrations::find(db, attempt.integration)?.ok_or(Error::NotFound)?;
                let secrets = integrations::secrets(db, integration.id)?;
                Ok::<_, Error>(Some((attempt, verifier, integration, secrets)))
            })
            .await
    }

    /// Refuses a callback that does not fit its attempt. A callback that arrives twice (the browser
    /// went back) leads on to the app if the first one was enough to open it.
    async fn refuse_callback(
        &self,
        actor: &Actor,
        why: Mismatch,
        attempt: Attempt,
    ) -> Result<CallbackOutcome, Error> {
        if why == Mismatch::Used {
            let done = match attempt.content {
                Some(item) => matches!(
                    self.consent_question_for_content(actor, item).await,
                    Ok(None)
                ),
                None => true,
            };
            if done {
                return Ok(CallbackOutcome::AlreadyDone {
                    back: attempt.return_path,
                });
            }
        }
        let back = (why != Mismatch::OtherSession).then_some(attempt.return_path);
        self.record_mismatch(actor, why, back).await
    }

    /// Checks the account of a successful token answer; then stores tokens, consent and audit
    /// record in one transaction.
    async fn store_granted_tokens(
        &self,
        actor: &Actor,
        attempt: &Attempt,
        integration: Integration,
        secrets: Secrets,
        granted: &Granted,
    ) -> Result<CallbackOutcome, Error> {
        let answer = &granted.answer;
        let profile = providers::profile(&integration);
        let now = self.core.now();
        let (person, item, back) = (
            actor.person.id,
            attempt.content,
            attempt.return_path.clone(),
        );
        let account = self.account_of(answer, &integration, &profile).await;
        let verdict = account.verdict(&actor.person, integration.identity_check);
        if verdict == IdentityVerdict::Refuse {
            let words = account.label.as_deref().unwrap_or("without a name");
            let detail = format!("another account: {words}");
            self.record_about(actor, Action::ConnectionFailed, &integration, detail)
                .await?;
            return Ok(CallbackOutcome::NotYourAccount {
                account: account.label,
                integration,
                content: item,
                back,
            });
        }
        let other = verdict == IdentityVerdict::Ask;
        let scopes = answer
            .issued_scopes()
            .unwrap_or_else(|| integration.setting("scopes").to_owned());
        let id = integration.id;
        let found = self
            .core
            .store
            .read(move |db| Ok::<_, Error>(connections::find_of(db, person, id)?))
            .await;
        let (existing, seen) = match found {
            Ok(Some(existing)) => (Some(existing), Seen::Connection),
            Ok(None) => (None, Seen::Nothing),
            // The code is used up: its tokens wait until the database answers.
            Err(error) if error.is_busy() => (None, Seen::NotAsked),
            Err(error) => return Err(error),
        };
        // Tokens of another account never replace a connection silently: the viewer must disconnect
        // it first.
        let replaced = existing.as_ref().map(|(known, _)| known).filter(|known| {
            let was_theirs = known.state != State::Unconfirmed
                && known
                    .account
                    .verdict(&actor.person, integration.identity_check)
                    != IdentityVerdict::Refuse;
            was_theirs && account.certainly_differs_from(&known.account)
        });
        if let Some(known) = replaced {
            let detail = format!("{} instead of {}", account.name(), known.account.name());
            self.record_about(actor, Action::AccountChanged, &integration, detail)
                .await?;
            return Ok(CallbackOutcome::AccountChanged {
                integration,
                connection: known.id,
                before: known.account.label.clone(),
                now: account.label,
            });
        }
        let (id, created_at, generation) = existing
            .map_or((Id::random(), now, 0), |(connection, _)| {
                (connection.id, connection.created_at, connection.generation)
            });
        let token = answer
            .token(&profile)
            .ok_or(Error::Internal("the token that content needs is missing"))?;
        let tokens = self.seal_tokens(
            id,
            person,
            integration.id,
            &token,
            answer.refresh().as_ref(),
        )?;
        let refreshable = tokens.refresh.is_some();
        let life = answer.lifetime(&profile, refreshable);
        let expires_at = life.map(|life| now.plus(life));
        let connection = Connection {
            number: 0,
            id,
            person,
            integration: integration.id,
            state: if other {
                State::Unconfirmed
            } else {
                State::Active
            },
            account,
            scopes: scopes.clone(),
            has_refresh_token: refreshable,
            extra_fields: answer.extra_fields(&profile),
            access_expires_at: expires_at,
            lapses_at: if refreshable {
                let stated = answer.refresh_token_lifetime(&profile);
                stated
                    .map(|life| now.plus(life))
                    .or_else(|| lapses_at(&integration, now, now))
            } else {
                expires_at
            },
            generation: generation + 1,
            connected_at: now,
            created_at,
            updated_at: now,
            state_at: now,
            used_at: Some(now),
        };
        let issued = Issued {
            integration: integration.clone(),
            secrets,
            access: answer.access(),
            refresh: answer.refresh(),
        };
        let new = NewConnection::new(
            actor,
            connection,
            tokens,
            item,
            attempt.endpoint_version,
            seen,
        );
        if !self.new_connections.store(new, issued).await? {
            return Ok(CallbackOutcome::StoredLater { back });
        }
        self.activity
            .count(Activity::Connected, item, Some(integration.id));
        self.clients
            .record_accepted_secret(&integration, granted.by_previous_secret, now)
            .await;
        if other {
            return Ok(CallbackOutcome::OtherAccount {
                connection: id,
                content: item,
                back,
            });
        }
        let missing_scopes = providers::missing_scopes(&integration, &scopes);
        Ok(CallbackOutcome::Connected {
            back,
            integration,
            lasts: refreshable || expires_at.is_none(),
            missing_scopes,
        })
    }

    /// The account behind new tokens. Where only an API of the provider names it, that is asked, for
    /// five seconds at most, and before anything is stored: so tokens of another account never take
    /// the place of a connection. If it does not answer, the account has no name.
    async fn account_of(
        &self,
        answer: &ProviderTokenResponse,
        integration: &Integration,
        profile: &Profile,
    ) -> Account {
        let Some(endpoints) = providers::endpoints(integration) else {
            return answer.account(profile);
        };
        let found = identity::identify(&self.core.http, answer, profile, &endpoints).await;
        if found.is_silent {
            tracing::warn!(integration = %integration.id, "the provider did not say whose account it is");
        }
        found.account
    }

    /// Writes one audit record about `integration`.
    async fn record_about(
        &self,
        actor: &Actor,
        action: Action,
        integration: &Integration,
        detail: String,
    ) -> Result<(), Error> {
        let name = integration.display_name();
        let line = event(actor, self.core.now(), action, name, detail);
        self.core.store.write(move |db| record(db, &line)).await
    }

    /// Handles an `error` callback: a refusal by the viewer, a missing approval, or a failure.
    /// `code` is the AADSTS number.
    async fn handle_error_callback(
        &self,
        actor: &Actor,
        word: &str,
        code: Option<u64>,
        integration: Integration,
        back: ReturnPath,
    ) -> Result<CallbackOutcome, Error> {
        let approval = matches!(code, Some(90094 | 90095)) || word == "admin_consent_required";
        if word == "access_denied" || approval {
            let detail = if approval {
                "needs approval"
            } else {
                "declined"
            };
            self.record_about(
                actor,
                Action::ConsentRefused,
                &integration,
                detail.to_owned(),
            )
            .await?;
            return Ok(if approval {
                CallbackOutcome::NeedsApproval { back, integration }
            } else {
                CallbackOutcome::Declined { back, integration }
            });
        }
        let failure = Failure::of_code(ErrorCode::received(word), code);
        // The query of a callback can be written by anybody: it ends this attempt, and says nothing
        // about the integration.
        self.record_failed_attempt(actor, failure, integration, back)
            .await
    }

    /// Records that the provider refused our own request. A failure that an administrator must
    /// repair also marks the integration's secret as rejected.
    async fn record_failure(
        &self,
        actor: &Actor,
        failure: Failure,
        integration: Integration,
        back: ReturnPath,
    ) -> Result<CallbackOutcome, Error> {
        tracing::warn!(integration = %integration.id, error_code = %failure.error_code, aadsts = failure.aadsts, "connecting failed");
        if failure.class == FailureClass::Administrator {
            self.clients
                .record_refused_client(&integration, &failure, self.core.now())
                .await;
        }
        self.record_failed_attempt(actor, failure, integration, back)
            .await
    }

    /// Records a failed authorization.
    async fn record_failed_attempt(
        &self,
        actor: &Actor,
        failure: Failure,
        integration: Integration,
        back: ReturnPath,
    ) -> Result<CallbackOutcome, Error> {
        let detail = match failure.aadsts {
            Some(code) => format!("{} AADSTS{code}", failure.error_code),
            None => failure.error_code.to_string(),
        };
        self.record_about(actor, Action::ConnectionFailed, &integration, detail)
            .await?;
        Ok(CallbackOutcome::Failed {
            failure,
            back,
            integration,
        })
    }

    /// Records a refused callback.
    async fn record_mismatch(
        &self,
        actor: &Actor,
        why: Mismatch,
        back: Option<ReturnPath>,
    ) -> Result<CallbackOutcome, Error> {
        let line = event(
            actor,
            self.core.now(),
            Action::CallbackRefused,
            "",
            why.words().to_owned(),
        );
        self.core.store.write(move |db| record(db, &line)).await?;
        Ok(CallbackOutcome::Mismatch { why, back })
    }

    /// Seals an access token and an optional refresh token for the row of their connection.
    pub fn seal_tokens(
        &self,
        connection: Id<Connection>,
        person: Id<Person>,
        integration: Id<Integration>,
        access: &SecretString,
        refresh: Option<&SecretString>,
    ) -> Result<connections::Tokens, Error> {
        let row = labels::connection_row(connection, person, integration);
        let access = self
            .core
            .vault
            .seal(labels::connection_token("access_token", &row), access)?;
        let refresh = refresh
            .map(|token| {
                self.core
                    .vault
                    .seal(labels::connection_token("refresh_token", &row), token)
            })
            .transpose()?;
        Ok(connections::Tokens {
            access: Some(access),
            refresh,
        })
    }
}

/// The question about the link at `position` (from 0).
fn question(admission: &Admission, position: usize, owner: String) -> Question {
    let link = &admission.integrations[position];
    let connection = link.connection.as_ref();
    // At this portal itself nobody has to sign in once more.
    let connected = link.integration.auth_type == AuthType::VisitorApiKey
        || !link.is_other_account
            && connection.is_some_and(|connection| connection.state == State::Active);
    Question {
        content: Some(AskingItem {
            content: admission.content.clone(),
            owner,
        }),
        integration: link.integration.clone(),
        connected,
        account: connection
            .filter(|_| connected)
            .and_then(|connection: &Connection| {
                let Account { label, .. } = &connection.account;
                label.clone()
            }),
        asks_for_more: link.asks_for_more,
        state: connection.map(|connection| connection.state),
        step: (position + 1, admission.integrations.len()),
    }
}
