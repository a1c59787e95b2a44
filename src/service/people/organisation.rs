//! Sign-in at the organisation's identity provider: which person, role and groups an identity maps
//! to. Accounts are matched by issuer and subject only, never by name or e-mail address. The
//! protocol is in `oauth::sign_in`.

use crate::{
    config::SignIn,
    domain::{
        Id, Timestamp,
        audit::{Action, Event, Origin},
        group::Group,
        person::{Person, Role, is_invisible},
    },
    oauth::sign_in::{Client, Identity, MetadataCache, SignInFailure, SignInSecrets},
    service::{
        auditing::audit::Audit,
        core::{Actor, Core, event, record},
        error::Error,
        grants::{end_reason::EndReason, revocations},
    },
    store::{Db, groups, identities, people, sessions},
    vault::{Sealed, labels, random},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use url::Url;

/// Time from the start of a sign-in to its callback, at most.
const LIFETIME: Duration = Duration::from_secs(600);

/// What a sign-in is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    SignIn,
    /// A signed-in person proves their identity again before a sensitive change.
    Confirm,
    /// A signed-in person links this identity to their account.
    Link,
}

/// A sign-in in progress. It is kept in the browser session and consumed by the first callback.
#[derive(Serialize, Deserialize)]
pub struct PendingSignIn {
    state: String,
    /// Nonce and PKCE verifier, separated by a blank, sealed.
    sealed: String,
    pub purpose: Purpose,
    /// The path to open afterwards.
    pub next: String,
    /// Deadline, in milliseconds since 1970.
    expires_at: i64,
}

impl std::fmt::Debug for PendingSignIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pending")
    }
}

/// The query parameters of the callback.
pub struct SignInCallback {
    pub state: String,
    pub code: Option<String>,
    /// `iss` (RFC 9207).
    pub issuer: Option<String>,
    pub error: Option<String>,
}

/// The outcome of a sign-in.
pub enum SignInOutcome {
    /// The person, and the refresh token if the provider issued one.
    SignedIn {
        person: Box<Person>,
        refresh_token: Option<SecretString>,
        /// What the claims did not say, and therefore stayed as it was.
        unchanged: Vec<&'static str>,
    },
    Confirmed,
    /// A signed-in person can link this identity to their account: its subject, and a label for it.
    Linkable(String, String),
    /// The callback does not belong to a sign-in of this browser, or came too late.
    Mismatch,
    /// The provider reported an error.
    Declined,
    /// The callback or the ID token failed a check.
    NotAccepted,
    /// The provider cannot be reached or does not work.
    Unavailable,
    /// The claims give no role, and there is no default role.
    NoRole,
    /// The account is locked.
    Locked,
    /// The identity belongs to another account, or the provider did not authenticate the person
    /// again.
    WrongIdentity,
}

/// How a sign-in starts.
pub enum SignInStart {
    /// Store the value in the browser session, then send the browser there.
    Redirect(PendingSignIn, Url),
    /// The provider cannot be used.
    Failed(SignInOutcome),
}

/// Longest return path of a sign-in, in bytes; a longer one leads to the list of content.
const MAX_NEXT: usize = 1500;

/// Sign-in at the organisation's provider. Owns what discovery found.
pub struct OrganisationSignIn {
    core: Arc<Core>,
    audit: Arc<Audit>,
    metadata: MetadataCache,
}

impl OrganisationSignIn {
    pub(in crate::service) fn new(core: Arc<Core>, audit: Arc<Audit>) -> Self {
        Self {
            core,
            audit,
            metadata: MetadataCache::default(),
        }
    }

    /// The provider's settings and the callback address; `NotFound` if none is configured.
    fn organisation(&self) -> Result<(&SignIn, String), Error> {
        let sign_in = self.core.settings.sign_in.as_ref().ok_or(Error::NotFound)?;
        Ok((
            sign_in,
            self.core.addresses.absolute("/login/organisation/callback"),
        ))
    }

    /// Starts a sign-in: what to store in the browser session, and where to send the browser.
    pub async fn begin_sign_in(&self, purpose: Purpose, next: &str) -> Result<SignInStart, Error> {
        let (sign_in, redirect_uri) = self.organisation()?;
        let proofs = SignInSecrets {
            state: random::token(),
            nonce: random::token().into(),
            verifier: random::token().into(),
        };
        let client = Client {
            issuer: &sign_in.issuer,
            client_id: &sign_in.client_id,
            client_secret: sign_in.client_secret.as_ref(),
            redirect_uri: &redirect_uri,
        };
        let now = self.core.now();
        let again = purpose == Purpose::Confirm;
        match self
            .metadata
            .authorize_url(
                &client,
                &self.core.http,
                &proofs,
                &sign_in.scopes,
                again,
                now,
            )
            .await
        {
            Ok(address) => {
                let both = format!(
                    "{} {}",
                    proofs.nonce.expose_secret(),
                    proofs.verifier.expose_secret()
                );
                let sealed = self
                    .core
                    .vault
                    .seal(labels::pending_sign_in(&proofs.state), &both.into())?
                    .0;
                Ok(SignInStart::Redirect(
                    PendingSignIn {
                        state: proofs.state,
                        sealed,
                        purpose,
                        // The browser keeps it in a cookie.
                        next: if next.len() <= MAX_NEXT {
                            next
                        } else {
                            "/content"
                        }
                        .to_owned(),
                        expires_at: now.plus(LIFETIME).0,
                    },
                    address,
                ))
            }
            Err(failure) => Ok(SignInStart::Failed(self.not_accepted(failure))),
        }
    }

    /// Logs a failure and turns it into an outcome.
    fn not_accepted(&self, failure: SignInFailure) -> SignInOutcome {
        match failure {
            SignInFailure::Unavailable(reason) => {
                tracing::error!(reason, "the sign-in provider cannot be used");
                SignInOutcome::Unavailable
            }
            SignInFailure::Refused(reason) => {
                tracing::warn!(reason, "a sign-in was not accepted");
                SignInOutcome::NotAccepted
            }
        }
    }

    /// Handles the callback. The caller has removed `pending` from the session, so that it works
    /// once. A sign-in that fails is recorded, like other refusals.
    pub async fn finish_sign_in(
        &self,
        actor: Option<&Actor>,
        pending: Option<PendingSignIn>,
        answer: SignInCallback,
        origin: &Origin,
    ) -> Result<SignInOutcome, Error> {
        let ending = self.check_callback(actor, pending, answer, origin).await?;
        let why = match &ending {
            SignInOutcome::SignedIn { .. }
            | SignInOutcome::Confirmed
            | SignInOutcome::Linkable(..) => return Ok(ending),
            SignInOutcome::Mismatch => "organisation: answer of another session",
            SignInOutcome::Declined => "organisation: declined",
            SignInOutcome::NotAccepted => "organisation: answer not accepted",
            SignInOutcome::Unavailable => "organisation: not answering",
            SignInOutcome::NoRole => "organisation: no role",
            SignInOutcome::Locked => "organisation: locked",
            SignInOutcome::WrongIdentity => "organisation: another identity",
        };
        self.audit
            .note_refusal(Action::SignInRefused, None, origin, why, why.to_owned());
        Ok(ending)
    }

    /// An audit record for this origin.
    fn sign_in_event(
        &self,
        action: Action,
        person: Option<&Person>,
        subject: &str,
        origin: &Origin,
    ) -> Event {
        Event {
            actor: person.map(|person| person.id),
            actor_name: person
                .map(|person| person.username.clone())
                .unwrap_or_default(),
            address: origin.address.clone(),
            correlation: origin.correlation.clone(),
            ..Event::by_portal(self.core.now(), action, subject, "")
        }
    }

    /// Checks the callback, redeems the code, and acts by the purpose of the sign-in.
    async fn check_callback(
        &self,
        actor: Option<&Actor>,
        pending: Option<PendingSignIn>,
        answer: SignInCallback,
        origin: &Origin,
    ) -> Result<SignInOutcome, Error> {
        let (sign_in, redirect_uri) = self.organisation()?;
        let now = self.core.now();
        let Some(pending) = pending.filter(|pending| {
            pending.state == answer.state && !answer.state.is_empty() && now.0 < pending.expires_at
        }) else {
            return Ok(SignInOutcome::Mismatch);
        };
        // Mix-up defence (RFC 9207): if the callback names its issuer, it must be exactly ours.
        if answer.issuer.is_some_and(|issuer| issuer != sign_in.issuer) {
            return Ok(SignInOutcome::NotAccepted);
        }
        if let Some(error) = answer.error {
            tracing::info!(error = %error.chars().filter(|letter| letter.is_ascii_alphanumeric() || *letter == '_').take(60).collect::<String>(), "sign-in declined");
            return Ok(SignInOutcome::Declined);
        }
        let Some(code) = answer
            .code
            .filter(|code| !code.is_empty() && code.len() <= 8192)
        else {
            return Ok(SignInOutcome::NotAccepted);
        };
        let both = self.core.vault.open(
            labels::pending_sign_in(&pending.state),
            &Sealed(pending.sealed),
        )?;
        let (nonce, verifier) = both.expose_secret().split_once(' ').ok_or(Error::Internal(
            "the sealed values of a sign-in have another form",
        ))?;
        let proofs = SignInSecrets {
            state: pending.state,
            nonce: nonce.into(),
            verifier: verifier.into(),
        };
        let client = Client {
            issuer: &sign_in.issuer,
            client_id: &sign_in.client_id,
            client_secret: sign_in.client_secret.as_ref(),
            redirect_uri: &redirect_uri,
        };
        let identity = match self
            .metadata
            .redeem(&client, &self.core.http, code, proofs, now)
            .await
        {
            Ok(identity) => identity,
            Err(failure) => return Ok(self.not_accepted(failure)),
        };
        match pending.purpose {
            Purpose::SignIn => self.provision_person(sign_in, identity, origin).await,
            Purpose::Confirm => self.confirm_identity(actor, &identity).await,
            Purpose::Link => self.linkable(actor, &identity).await,
        }
    }

    /// Whether the identity is the actor's, for [`Purpose::Confirm`].
    async fn confirm_identity(
        &self,
        actor: Option<&Actor>,
        identity: &Identity,
    ) -> Result<SignInOutcome, Error> {
        let Some(actor) = actor.cloned() else {
            return Ok(SignInOutcome::Mismatch);
        };
        let (issuer, subject) = (identity.issuer.clone(), identity.subject.clone());
        let known = self
            .core
            .store
            .read(move |db| Ok::<_, Error>(identities::person(db, &issuer, &subject)?))
            .await?;
        let now = self.core.now();
        // If the ID token has `auth_time`, it must be within the last ten minutes.
        let recent = identity
            .auth_time()
            .is_none_or(|at| at >= now.unix_seconds() - 600);
        if known != Some(actor.person.id) || !recent {
            return Ok(SignInOutcome::WrongIdentity);
        }
        let line = event(
            &actor,
            now,
            Action::Confirmed,
            actor.person.username.clone(),
            "at the organisation",
        );
        self.core.store.write(move |db| record(db, &line)).await?;
        Ok(SignInOutcome::Confirmed)
    }

    /// Whether the actor may link the identity, for [`Purpose::Link`]: it must not be another
    /// account's.
    async fn linkable(
        &self,
        actor: Option<&Actor>,
        identity: &Identity,
    ) -> Result<SignInOutcome, Error> {
        let Some(me) = actor.map(|actor| actor.person.id) else {
            return Ok(SignInOutcome::Mismatch);
        };
        let (issuer, subject) = (identity.issuer.clone(), identity.subject.clone());
        let known = self
            .core
            .store
            .read(move |db| Ok::<_, Error>(identities::person(db, &issuer, &subject)?))
            .await?;
        if known.is_some_and(|known| known != me) {
            return Ok(SignInOutcome::WrongIdentity);
        }
        let label = ["preferred_username", "email", "name"]
            .into_iter()
            .map(|claim| identity.text(claim))
            .find(|text| !text.is_empty());
        Ok(SignInOutcome::Linkable(
            identity.subject.clone(),
            clean(label.unwrap_or(&identity.subject), 100),
        ))
    }

    /// Links an identity to the account of the actor, who has just proved that it is theirs.
    /// `Conflict` if it belongs to another account.
    pub async fn link_identity(&self, actor: &Actor, subject: String) -> Result<(), Error> {
        let issuer = self.organisation()?.0.issuer.clone();
        let (actor, now) = (actor.clone(), self.core.now());
        self.core
            .store
            .write(move |db| match identities::person(db, &issuer, &subject)? {
                Some(known) if known == actor.person.id => Ok(()),
                Some(_) => Err(Error::Conflict(
                    "Somebody else signs in with this account.".into(),
                )),
                None => {
                    identities::insert(db, &issuer, &subject, actor.person.id, now)?;
                    let detail = "organisation's sign-in tied";
                    record(
                        db,
                        &event(
                            &actor,
                            now,
                            Action::PersonChanged,
                            actor.person.username.clone(),
                            detail,
                        ),
                    )
                }
            })
            .await
    }

    /// Finds or creates the person, and applies the role and groups that the claims map to.
    /// Consents that need access through a lost group end.
    ///
    /// A claim that is absent, or too long to be in the token, changes nothing about a known person:
    /// it is no statement. A role claim that says "none of the roles" does: where there is no default
    /// role, the person becomes a viewer and loses browser sessions and API keys. The last
    /// administrator stays one.
    async fn provision_person(
        &self,
        sign_in: &SignIn,
        identity: Identity,
        origin: &Origin,
    ) -> Result<SignInOutcome, Error> {
        let mapped = sign_in
            .roles
            .iter()
            .filter(|(value, _)| identity.list(&sign_in.role_claim).contains(&value.as_str()));
        let claimed = mapped.map(|(_, role)| *role).max();
        let says_role = identity.says(&sign_in.role_claim);
        let (role, sets_role) = match (claimed, sign_in.default_role) {
            (Some(role), _) => (Some(role), true),
            // Without a role mapping, the role that an administrator set on the people's page
            // stays.
            (None, Some(role)) => (Some(role), says_role && !sign_in.roles.is_empty()),
            (None, None) if says_role && !sign_in.roles.is_empty() => {
                return self.end_role(&identity, origin).await;
            }
            (None, None) => (None, false),
        };
        let values = identity.list(&sign_in.group_claim);
        let says_groups = identity.says(&sign_in.group_claim);
        let wanted: Vec<(String, bool)> = sign_in
            .groups
            .iter()
            .filter(|_| says_groups)
            .map(|(value, name)| (name.clone(), values.contains(&value.as_str())))
            .collect();
        let mut unchanged = Vec::new();
        if !sign_in.roles.is_empty() && !says_role {
            unchanged.push("role");
        }
        if !sign_in.groups.is_empty() && !says_groups {
            unchanged.push("groups");
        }
        let silent = unchanged.clone();
        let (label, object_id) = organisation_account(&identity);
        // Only for a role that is known; without one nobody new gets in.
        let fresh = role.map(|role| self.new_person(&identity, role));
        let (issuer, subject, now) = (
            identity.issuer.clone(),
            identity.subject.clone(),
            self.core.now(),
        );
        let line = self.sign_in_event(Action::SignIn, None, "organisation", origin);
        let person = self
            .core
            .store
            .write(move |db| {
                let fresh = fresh.clone();
                let line = line.clone();
                let wanted = wanted.clone();
                let known = match identities::person(db, &issuer, &subject)? {
                    Some(id) => people::find(db, id)?,
                    None => None,
                };
                let mut person = match known {
                    Some(person) if person.locked => return Ok(Err(SignInOutcome::Locked)),
                    Some(person) => person,
                    None => {
                        let Some(fresh) = fresh else {
                            return Ok(Err(SignInOutcome::NoRole));
                        };
                        let person = with_unique_username(db, fresh)?;
                        people::insert(db, &person, None)?;
                        identities::insert(db, &issuer, &subject, person.id, now)?;
                        person
                    }
                };
                let is_known = person.created_at != now;
                let keeps_last = sets_role
                    && person.role == Role::Administrator
                    && role != Some(Role::Administrator)
                    && people::count_administrators(db)? == 1;
                if keeps_last {
                    tracing::warn!(person = %person.username, "the organisation says that the last administrator is none; the role stays");
                }
                let new_role = role.filter(|role| sets_role && person.role != *role && !keeps_last);
                if let Some(role) = new_role {
                    person.role = role;
                    person.updated_at = now;
                    people::update(db, &person)?;
                    sessions::delete_all_of_person(db, person.id, None)?;
                }
                apply_groups(db, &person, &wanted, now)?;
                revocations::end_lost_consents_of(
                    db,
                    &person,
                    &EndReason::of_portal(now, "access went with a group"),
                )?;
                people::set_active(db, person.id, now)?;
                if (&person.organisation_label, &person.organisation_subject) != (&label, &object_id) {
                    people::set_organisation_account(db, person.id, label.as_deref(), object_id.as_deref())?;
                    (person.organisation_label, person.organisation_subject) =
                        (label.clone(), object_id.clone());
                }
                let mut detail = line.detail.clone();
                if keeps_last {
                    detail.push_str("; the last administrator stays one");
                }
                if is_known && !silent.is_empty() {
                    let claims = silent.join(" and ");
                    detail.push_str(&format!("; no claim of {claims}: unchanged"));
                }
                record(
                    db,
                    &Event {
                        actor: Some(person.id),
                        actor_name: person.username.clone(),
                        detail,
                        ..line
                    },
                )?;
                Ok::<_, Error>(Ok(person))
            })
            .await?;
        Ok(match person {
            Ok(person) => SignInOutcome::SignedIn {
                person: Box::new(person),
                refresh_token: identity.refresh_token,
                unchanged,
            },
            Err(outcome) => outcome,
        })
    }

    /// A sign-in of somebody of whom the claim says that there is no role, where there is no default
    /// role either: a known person loses what the old role gave.
    async fn end_role(&self, identity: &Identity, origin: &Origin) -> Result<SignInOutcome, Error> {
        let (issuer, subject, now) = (
            identity.issuer.clone(),
            identity.subject.clone(),
            self.core.now(),
        );
        let line = self.sign_in_event(Action::PersonChanged, None, "organisation", origin);
        self.core
            .store
            .write(move |db| {
                let Some(id) = identities::person(db, &issuer, &subject)? else {
                    return Ok(());
                };
                let Some(mut person) = people::find(db, id)? else {
                    return Ok(());
                };
                if person.role == Role::Administrator && people::count_administrators(db)? == 1 {
                    tracing::warn!(person = %person.username, "the organisation says that the last administrator has no role; the role stays");
                    return Ok(());
                }
                let before = person.role;
                if before != Role::Viewer {
                    person.role = Role::Viewer;
                    person.updated_at = now;
                    people::update(db, &person)?;
                }
                let sessions = sessions::delete_all_of_person(db, person.id, None)?;
                let keys = people::delete_keys_of(db, person.id)?;
                if before == Role::Viewer && sessions == 0 && keys == 0 {
                    return Ok(());
                }
                let detail = format!(
                    "no role at the organisation: role {} to viewer, {sessions} session(s) and {keys} key(s) ended",
                    before.as_str()
                );
                record(
                    db,
                    &Event {
                        subject: person.username.clone(),
                        detail,
                        ..line.clone()
                    },
                )
            })
            .await?;
        Ok(SignInOutcome::NoRole)
    }

    /// The account for a first sign-in, filled from the claims.
    fn new_person(&self, identity: &Identity, role: Role) -> Person {
        let name = ["preferred_username", "upn", "email"]
            .into_iter()
            .map(|claim| identity.text(claim))
            .find(|text| !text.is_empty());
        let legal = |letter: &char| {
            letter.is_alphanumeric() || matches!(letter, '.' | '-' | '_' | '@' | '+')
        };
        let username: String = name
            .unwrap_or(&identity.subject)
            .chars()
            .filter(legal)
            .take(60)
            .collect();
        let email = [identity.text("email"), identity.text("preferred_username")]
            .into_iter()
            .find(|text| text.contains('@'))
            .unwrap_or("");
        let (mut first, mut last) = (
            clean(identity.text("given_name"), 100),
            clean(identity.text("family_name"), 100),
        );
        if first.is_empty() && last.is_empty() {
            let whole = clean(identity.text("name"), 100);
            (first, last) = whole
                .rsplit_once(' ')
                .map_or((whole.clone(), String::new()), |(first, last)| {
                    (first.to_owned(), last.to_owned())
                });
        }
        Person {
            username: if username.is_empty() {
                format!("person-{}", random::label())
            } else {
                username
            },
            email: clean(email, 254),
            first_name: first,
            last_name: last,
            role,
            ..Person::new(self.core.now())
        }
    }

    /// Whether an identity at this provider is linked to the person.
    pub async fn signs_in_at(&self, person: Id<Person>, issuer: &str) -> Result<bool, Error> {
        let issuer = issuer.to_owned();
        self.core
            .store
            .read(move |db| Ok(identities::is_known_at(db, &issuer, person)?))
            .await
    }
}

/// What identity checks compare: the name of the account, and its object id (Microsoft Entra ID).
fn organisation_account(identity: &Identity) -> (Option<String>, Option<String>) {
    let text = |names: &[&str]| {
        let found = names.iter().map(|name| identity.text(name));
        found
            .map(|text| clean(text, 200))
            .find(|text| !text.is_empty())
    };
    (
        text(&["upn", "preferred_username", "email"]),
        text(&["oid"]).map(|id| format!("oid:{id}")),
    )
}

/// Makes the person a member of the groups that the claims name, by name, and ends memberships that
/// came from a claim. Missing groups are made; one that a publisher made is taken from them.
fn apply_groups(
    db: &mut Db<'_>,
    person: &Person,
    wanted: &[(String, bool)],
    now: Timestamp,
) -> Result<(), Error> {
    for (name, is_member) in wanted {
        let group = match groups::by_name(db, name)? {
            Some(group) => group,
            None => {
                let new = Group {
                    number: 0,
                    id: Id::random(),
                    name: name.clone(),
                    owner: None,
                    created_at: now,
                };
                groups::insert(db, &new)?;
                groups::by_name(db, name)?
                    .ok_or(Error::Internal("a row that another row names is missing"))?
            }
        };
        // Somebody may have made a group of this name before it was the organisation's: it would be
        // theirs to decide who gets what its members get.
        if let Some(owner) = group.owner
            && people::find(db, owner)?.is_none_or(|owner| owner.role != Role::Administrator)
        {
            groups::take_from_owner(db, group.id)?;
            let detail = "taken from its owner: the organisation decides who is in it";
            record(
                db,
                &Event::by_portal(now, Action::GroupChanged, name.clone(), detail),
            )?;
        }
        let known = groups::of_person(db, person.id)?
            .into_iter()
            .find(|(known, _)| known.id == group.id);
        match known {
            None if *is_member => {
                groups::add_member(db, group.id, person.id, true)?;
            }
            Some((_, true)) if !is_member => {
                groups::remove_member(db, group.id, person.id)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// A provider's text, safe for pages and audit records: at most `most` characters, no invisible
/// ones.
fn clean(text: &str, most: usize) -> String {
    text.chars()
        .filter(|letter| !is_invisible(*letter))
        .take(most)
        .collect::<String>()
        .trim()
        .to_owned()
}

/// Adds a suffix to a user name that is taken: it belongs to another account, since names and
/// e-mail addresses never match accounts.
fn with_unique_username(db: &mut Db<'_>, mut person: Person) -> Result<Person, Error> {
    if people::by_username(db, &person.username)?.is_some() {
        person.username = format!("{}-{}", person.username, &random::label()[..4]);
    }
    Ok(person)
}
