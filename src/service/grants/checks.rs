//! Checks of integrations. *Check* needs no person: names, certificates, clocks, a token request with
//! a code that does not exist, an authorization request that nobody answers; for a service account a
//! token. *Test sign-in* runs the real flow as the administrator and stores nothing (`attempts`).
//!
//! What a provider's refusal means is decided in `oauth::errors`; here it becomes a finding with the
//! setting to blame, and where that is mended.

use crate::{
    domain::{
        Id,
        audit::Action,
        check::{CheckResult, Finding, Verdict},
        integration::{AuthType, Integration},
    },
    oauth::{
        Granted, Registration,
        errors::{ErrorCode, Failure, FailureClass},
        http_error::HttpError,
        identity,
        probe::{AuthorizeAnswer, TokenAnswer},
    },
    providers::{self, ClientAuthentication},
    service::{
        core::{Actor, Core, event, must_manage_integrations, record},
        error::Error,
        grants::{clients::OauthClients, service_accounts::ServiceAccounts},
    },
    store::integrations::{self, Secrets},
    vault::random,
};
use futures_util::{StreamExt as _, stream};
use secrecy::{ExposeSecret as _, SecretString};
use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

/// How long a whole check may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long the refresh of a test sign-in may take; the text of `refresh_slow` names it.
const REFRESH_PATIENCE: Duration = Duration::from_secs(20);
/// Difference of clocks that some providers refuse.
const CLOCK_BAD: Duration = Duration::from_secs(300);
/// Difference of clocks that is worth a word.
const CLOCK_ODD: Duration = Duration::from_secs(30);

/// Checks integrations.
pub struct Checks {
    core: Arc<Core>,
    clients: Arc<OauthClients>,
    service_accounts: Arc<ServiceAccounts>,
}

impl Checks {
    pub(in crate::service) fn new(
        core: Arc<Core>,
        clients: Arc<OauthClients>,
        service_accounts: Arc<ServiceAccounts>,
    ) -> Self {
        Self {
            core,
            clients,
            service_accounts,
        }
    }

    /// Checks an integration without a person, stores the result and records the check.
    pub async fn check(&self, actor: &Actor, id: Id<Integration>) -> Result<CheckResult, Error> {
        must_manage_integrations(actor)?;
        let (integration, secrets) = self
            .core
            .store
            .read(move |db| {
                let found = integrations::find(db, id)?.ok_or(Error::NotFound)?;
                Ok::<_, Error>((found, integrations::secrets(db, id)?))
            })
            .await?;
        let findings = self.look_in_time(&integration, &secrets).await;
        self.store(actor, &integration, findings).await
    }

    /// Checks every integration, four at a time, and stores nothing. For the operator, who needs no
    /// account.
    pub async fn look_at_all(&self) -> Result<Vec<(Integration, Vec<Finding>)>, Error> {
        let all = self
            .core
            .store
            .read(|db| {
                let mut all = Vec::new();
                for integration in integrations::list(db)? {
                    let secrets = integrations::secrets(db, integration.id)?;
                    all.push((integration, secrets));
                }
                Ok::<_, Error>(all)
            })
            .await?;
        let looking = all.into_iter().map(|(integration, secrets)| async move {
            let findings = self.look_in_time(&integration, &secrets).await;
            (integration, findings)
        });
        Ok(stream::iter(looking).buffered(4).collect().await)
    }

    async fn look_in_time(&self, integration: &Integration, secrets: &Secrets) -> Vec<Finding> {
        tokio::time::timeout(PATIENCE, self.look(integration, secrets))
            .await
            .unwrap_or_else(|_| {
                vec![Finding::bad(
                    "slow",
                    format!("{} did not answer in time.", host_of(integration)),
                    "Try again; if it stays so, ask the operator whether this server may reach it.",
                )]
            })
    }

    /// Stores what a check or a test sign-in found.
    pub(in crate::service) async fn store(
        &self,
        actor: &Actor,
        integration: &Integration,
        findings: Vec<Finding>,
    ) -> Result<CheckResult, Error> {
        let now = self.core.now();
        let result = CheckResult { at: now, findings };
        let detail = match result.worst() {
            Some(worst) if worst.verdict != Verdict::Good => worst.code.clone(),
            _ => "all is well".to_owned(),
        };
        let name = integration.display_name();
        let line = event(actor, now, Action::IntegrationChecked, name, detail);
        let (id, stored) = (integration.id, result.clone());
        self.core
            .store
            .write(move |db| {
                integrations::set_last_check(db, id, &stored)?;
                record(db, &line)
            })
            .await?;
        Ok(result)
    }

    async fn look(&self, integration: &Integration, secrets: &Secrets) -> Vec<Finding> {
        let mut findings = Vec::new();
        if integration.auth_type == AuthType::VisitorApiKey {
            findings.push(Finding::good(
                "nothing_to_check",
                "This portal is the provider: nothing can be misconfigured.",
            ));
            return findings;
        }
        let Some(endpoints) = providers::endpoints(integration) else {
            if integration.auth_type == AuthType::ServiceAccount {
                findings.extend(self.look_at_service_account(integration).await);
            } else {
                findings.push(damaged());
            }
            return findings;
        };
        if !self.core.http.knows_name(&endpoints.token).await {
            findings.push(unknown_name(integration));
            return findings;
        }
        self.clients.ready(integration).await;
        let registration = match self.clients.registration(integration, secrets) {
            Ok(registration) => registration,
            Err(error) => {
                error.log("checking an integration");
                findings.push(damaged());
                return findings;
            }
        };
        if integration.auth_type == AuthType::ServiceAccount {
            findings.extend(self.look_at_service_account(integration).await);
            return findings;
        }
        findings.extend(self.look_at_settings(integration, &registration));
        let pkce = providers::uses_pkce(integration);
        let verifier = pkce.then(|| SecretString::from(random::token()));
        match registration
            .redeem_nothing(&self.core.http, verifier.as_ref())
            .await
        {
            Ok(answer) => {
                findings.extend(self.read_token_answer(integration, &registration, answer))
            }
            Err(error) => {
                findings.push(unreachable(integration, &error));
                return findings;
            }
        }
        let asked = registration
            .authorize_nobody(&self.core.http, verifier.as_ref())
            .await;
        findings.extend(match asked {
            Ok(answer) => read_authorize_answer(integration, &registration, answer),
            Err(_) => None,
        });
        findings
    }

    /// What the settings themselves tell.
    fn look_at_settings(
        &self,
        integration: &Integration,
        registration: &Registration,
    ) -> Vec<Finding> {
        let mut findings = Vec::new();
        if let Some(end) = integration.secret_expires_at
            && end <= self.core.now()
        {
            findings.push(
                Finding::bad(
                    "client_secret_expired",
                    "By the date that was entered, the client secret has expired.",
                    "Make a new secret at the provider and replace it here.",
                )
                .of("client_secret"),
            );
        }
        if let (Some(template), Some(secret)) = (
            providers::template(&integration.template),
            registration.secrets.first(),
        ) && registration.authentication != ClientAuthentication::PrivateKey
            && let Some(problem) = (template.secret_problem)(secret.expose_secret())
        {
            let wrong = Finding::bad(
                "client_secret_kind",
                "The client secret is something else.",
                problem,
            );
            findings.push(wrong.of("client_secret"));
        }
        if !providers::scopes_bring_refresh_token(integration) {
            findings.push(
                Finding::warning(
                    "no_offline_access",
                    "The scopes ask for no refresh token: people are asked again when each token ends.",
                    "Add the provider's scope for it, often offline_access.",
                )
                .of("scopes"),
            );
        }
        findings
    }

    fn read_token_answer(
        &self,
        integration: &Integration,
        registration: &Registration,
        answer: TokenAnswer,
    ) -> Vec<Finding> {
        let mut findings = vec![Finding::good(
            "reachable",
            format!(
                "{} answers, and its certificate is trusted.",
                host_of(integration)
            ),
        )];
        let own = SystemTime::UNIX_EPOCH
            + Duration::from_secs(
                self.core
                    .now()
                    .unix_seconds()
                    .try_into()
                    .unwrap_or_default(),
            );
        findings.extend(answer.date.and_then(|date| clock(date, own)));
        let Some(failure) = answer.failure else {
            findings.push(
                Finding::bad(
                    "not_a_token_endpoint",
                    format!(
                        "Something else answers at the token address (status {}, no JSON).",
                        answer.status
                    ),
                    "Compare the address. A proxy between this server and the provider may also answer in its place: ask the operator.",
                )
                .of(token_setting(integration)),
            );
            return findings;
        };
        if answer.is_about_pkce
            && failure.class != FailureClass::Viewer(crate::domain::connection::Cause::Expired)
        {
            findings.push(
                Finding::bad(
                    "pkce_refused",
                    "The provider refuses requests with PKCE.",
                    "Switch Use PKCE off for this integration.",
                )
                .of("use_pkce"),
            );
            return findings;
        }
        if answer.is_about_redirect && failure.class == FailureClass::Administrator {
            findings.push(redirect_missing(registration));
            return findings;
        }
        // The code does not exist, which the provider says only to a client that it accepts.
        match failure.class {
            FailureClass::Viewer(_) => findings.push(Finding::good(
                "client_accepted",
                "The provider accepts the client ID and how it proves itself.",
            )),
            FailureClass::Administrator if is_about_code(&failure) => {
                findings.push(Finding::good(
                    "client_accepted",
                    "The provider accepts the client ID and how it proves itself.",
                ));
            }
            FailureClass::Administrator
            | FailureClass::Temporary { .. }
            | FailureClass::Unknown => {
                findings.push(explain(integration, registration, &failure));
            }
        }
        findings
    }

    async fn look_at_service_account(&self, integration: &Integration) -> Vec<Finding> {
        match self.service_accounts.fetch_once(integration).await {
            Ok(token) => {
                let left = token.life.left(self.core.now());
                let life = left.map_or_else(String::new, |life| {
                    format!(" It lives for {} minutes.", life.as_secs() / 60)
                });
                vec![Finding::good(
                    "token_issued",
                    format!("The service gave a token, which was thrown away.{life}"),
                )]
            }
            Err(failure) => {
                let setting = match failure.error_code {
                    ErrorCode::InvalidClient => "client_secret",
                    ErrorCode::InvalidScope => "scopes",
                    _ => "auth_mode",
                };
                vec![
                    Finding::bad("token_refused", failure.sentence, mend_at(integration))
                        .of(setting),
                ]
            }
        }
    }

    /// What a test sign-in found: the account, scopes, lifetimes, and whether a refresh works. The
    /// tokens are dropped.
    pub(in crate::service) async fn read_sign_in(
        &self,
        integration: &Integration,
        registration: &Registration,
        granted: &Granted,
    ) -> Vec<Finding> {
        let profile = &registration.profile;
        let answer = &granted.answer;
        let mut findings = Vec::new();
        if !answer.is_bearer() {
            findings.push(Finding::bad(
                "token_type",
                "The provider issued a kind of token that this portal cannot use.",
                "Only Bearer tokens are supported: choose them at the provider.",
            ));
            return findings;
        }
        if profile.keeps_id_token && !answer.has_id_token() {
            findings.push(
                Finding::bad(
                    "no_id_token",
                    "The provider sent no ID token.",
                    "Add the scope openid.",
                )
                .of("scopes"),
            );
        }
        let endpoints = &registration.endpoints;
        let found = identity::identify(&self.core.http, answer, profile, endpoints).await;
        if found.is_silent {
            findings.push(Finding::warning(
                "no_identity",
                "The service does not say whose account it is.",
                "Consents will show no account name. Give the application the permission to read the person's profile.",
            ));
        }
        if let Some(label) = &found.account.label {
            findings.push(Finding::good(
                "account",
                format!("You signed in as {label}."),
            ));
        }
        findings.push(scopes_finding(integration, &answer.issued_scopes()));
        let refresh = answer.refresh();
        findings.push(match answer.lifetime(profile, refresh.is_some()) {
            Some(life) => Finding::good(
                "lifetime",
                format!("An access token lives for {} minutes.", life.as_secs() / 60),
            ),
            None => Finding::good("lifetime", "Access tokens have no end of their own."),
        });
        let Some(refresh) = refresh else {
            if answer.lifetime(profile, false).is_some() {
                findings.push(
                    Finding::warning(
                        "no_refresh_token",
                        "The provider gave no refresh token: people are asked again when each token ends.",
                        "Add the scope for it (often offline_access) here, and allow it at the provider.",
                    )
                    .of("scopes"),
                );
            }
            return findings;
        };
        let limit = Instant::now() + REFRESH_PATIENCE;
        let asking = registration.refresh(&self.core.http, refresh, limit);
        match tokio::time::timeout(REFRESH_PATIENCE, asking).await {
            Ok(Ok(_)) => findings.push(Finding::good("refresh", "A refresh works.")),
            Err(_) => findings.push(Finding::bad(
                "refresh_slow",
                "The provider did not answer a refresh within 20 seconds.",
                "Try again. If it stays so, look at the provider's status page, or at the proxy between.",
            )),
            Ok(Err(failure)) => {
                let mut found = explain(integration, registration, &failure);
                found.text = format!("A refresh does not work. {}", found.text);
                findings.push(found);
            }
        }
        findings
    }
}

/// A failed token or authorization request, with the setting to blame and where it is mended.
pub(in crate::service) fn explain(
    integration: &Integration,
    registration: &Registration,
    failure: &Failure,
) -> Finding {
    let number = failure
        .aadsts
        .map(|number| format!(" (AADSTS{number})"))
        .unwrap_or_default();
    let text = format!("{}{number}", failure.sentence);
    let bad = |code: &str, fix: &str| Finding::bad(code, text.clone(), fix);
    match (failure.aadsts, failure.error_code) {
        (Some(7_000_222), _) => bad(
            "client_secret_expired",
            "In Microsoft Entra ID: Certificates & secrets → New client secret. Enter its Value here.",
        )
        .of("client_secret"),
        (Some(7_000_215 | 70002), _) => bad(
            "client_secret_wrong",
            "In Microsoft Entra ID: Certificates & secrets. Enter the Value of a current secret, not its Secret ID.",
        )
        .of("client_secret"),
        (Some(7_000_218), _) => bad(
            "client_secret_missing",
            "Enter a client secret, and choose Confidential as client type.",
        )
        .of("client_secret"),
        (Some(700_025), _) => bad(
            "client_is_public",
            "In Microsoft Entra ID: Authentication → Allow public client flows: No. Or choose Public here.",
        )
        .of("auth_mode"),
        (Some(700_016 | 7_000_112), _) => bad(
            "client_unknown",
            "Compare the application ID and the directory ID with the application's Overview page.",
        )
        .of("client_id"),
        (Some(90002 | 90038 | 900_023), _) => bad(
            "tenant_unknown",
            "Compare the directory (tenant) ID with the application's Overview page, and the cloud.",
        )
        .of("tenant_id"),
        (Some(50020 | 50034 | 90072), _) => bad(
            "guest_of_another_tenant",
            "The application takes people of one directory only. Invite the person as a guest, or sign in with an account of that directory.",
        )
        .of("tenant_id"),
        (Some(50011 | 500_113), _) => redirect_missing(registration),
        (Some(9_002_325 | 9_002_326 | 9_002_327 | 700_084), _) => Finding::bad(
            "redirect_is_spa",
            "The redirect address is registered as a single-page application.",
            format!(
                "In Microsoft Entra ID: Authentication. Remove it under Single-page application and add it under Web: {}",
                registration.redirect_uri
            ),
        ),
        (Some(65001 | 65004 | 90094 | 90095), _) => bad(
            "admin_consent_missing",
            "In Microsoft Entra ID: API permissions → Grant admin consent.",
        ),
        (Some(650_052 | 650_056 | 650_057 | 500_011), _) => bad(
            "permission_missing",
            "In Microsoft Entra ID: API permissions → Add a permission. For Databricks: AzureDatabricks / user_impersonation.",
        ),
        (Some(50105), _) => bad(
            "assignment_required",
            "In Microsoft Entra ID: Enterprise applications → Users and groups. Assign the people, or switch Assignment required off.",
        ),
        (Some(53000..=53003 | 530_032 | 50131 | 50076 | 50079 | 50074 | 50072), _) => bad(
            "conditional_access",
            "A Conditional Access policy of your organisation asks for more. Try from a device that fulfils it; whoever manages the policies can make an exception.",
        ),
        (Some(70011 | 28000 | 28002 | 28003 | 700_022), _) => bad(
            "scopes_refused",
            "Microsoft takes scopes of one resource only, such as …/.default and offline_access. Make one integration for each service.",
        )
        .of("scopes"),
        (Some(700_024 | 500_133 | 700_021), _) => bad(
            "clock",
            "A signed request was refused because of its time. Set this server's clock.",
        ),
        (Some(700_027 | 700_030), _) => bad(
            "certificate_unknown",
            "In Microsoft Entra ID: Certificates & secrets → Certificates. Upload the certificate that belongs to this key.",
        )
        .of("client_secret"),
        (Some(70021 | 700_211..=700_213), _) => bad(
            "federation_unknown",
            "In Microsoft Entra ID: Certificates & secrets → Federated credentials. Issuer, subject and audience are shown on the integration's page.",
        )
        .of("auth_mode"),
        (_, ErrorCode::InvalidClient) => bad(
            "client_secret_wrong",
            "Compare client ID and client secret with the provider's page, and how the secret is sent.",
        )
        .of("client_secret"),
        (_, ErrorCode::UnauthorizedClient | ErrorCode::UnsupportedGrantType) => bad(
            "client_not_allowed",
            "Allow the application the authorization code flow with refresh tokens at the provider.",
        ),
        (_, ErrorCode::InvalidScope | ErrorCode::InvalidTarget | ErrorCode::InvalidResource) => {
            bad(
                "scopes_refused",
                "Compare the scopes with those that the application has at the provider.",
            )
            .of("scopes")
        }
        (_, ErrorCode::AccessDenied) => bad(
            "declined",
            "The provider, or the person, declined. Start again and agree.",
        ),
        (_, ErrorCode::Configuration) => bad("address_refused", "Ask the operator to allow this address (private_hosts)."),
        _ => match failure.class {
            FailureClass::Temporary { .. } => bad("unavailable", "Try again in a minute."),
            _ => bad("refused", &mend_at(integration)),
        },
    }
}

/// What a viewer reads who meets this failure: the title of the page.
pub(in crate::service) fn viewer_reads(integration: &Integration, failure: &Failure) -> Finding {
    let provider = providers::names(integration).provider;
    let title = match failure.class {
        FailureClass::Administrator => "An administrator must repair this".to_owned(),
        FailureClass::Viewer(_) => format!("{provider} did not accept the sign-in"),
        FailureClass::Temporary { .. } | FailureClass::Unknown => {
            format!("{provider} is not answering")
        }
    };
    Finding::warning("viewer_reads", format!("A viewer reads: “{title}”."), "")
}

/// Whether an administrator's failure is only about the code that does not exist.
fn is_about_code(failure: &Failure) -> bool {
    matches!(
        failure.aadsts,
        Some(9_002_313 | 70000 | 70008 | 54005 | 501_481 | 900_144 | 7_000_014)
    )
}

fn read_authorize_answer(
    integration: &Integration,
    registration: &Registration,
    answer: AuthorizeAnswer,
) -> Option<Finding> {
    let registered = || {
        Some(Finding::good(
            "redirect_registered",
            "The provider knows the redirect address.",
        ))
    };
    match answer {
        AuthorizeAnswer::Back(
            ErrorCode::LoginRequired | ErrorCode::InteractionRequired | ErrorCode::ConsentRequired,
            _,
        ) => registered(),
        AuthorizeAnswer::Back(code, number) => {
            let failure = Failure::of_code(code, number);
            Some(explain(integration, registration, &failure))
        }
        AuthorizeAnswer::Page(number) => {
            let failure = Failure::of_code(ErrorCode::Other, Some(number));
            Some(explain(integration, registration, &failure))
        }
        AuthorizeAnswer::Refused => Some(redirect_missing(registration)),
        // It asks whoever comes for a sign-in, which says nothing.
        AuthorizeAnswer::SignIn => None,
    }
}

fn redirect_missing(registration: &Registration) -> Finding {
    Finding::bad(
        "redirect_missing",
        "The redirect address is not registered at the provider, or not for this application.",
        format!(
            "Register exactly this one there, as a web application's: {}",
            registration.redirect_uri
        ),
    )
}

fn scopes_finding(integration: &Integration, issued: &Option<String>) -> Finding {
    let Some(issued) = issued else {
        return Finding::good(
            "scopes",
            "The provider does not say which scopes it granted: those that were asked for (RFC 6749 section 5.1).",
        );
    };
    let asked = match integration.setting("scopes") {
        "" => "no scopes".to_owned(),
        asked => asked.to_owned(),
    };
    let granted = if issued.is_empty() {
        "no scopes; what the application may do is decided at the provider"
    } else {
        issued
    };
    let text = format!("Asked for: {asked}. Granted: {granted}.");
    let missing = providers::missing_scopes(integration, issued);
    if missing.is_empty() {
        return Finding::good("scopes", text);
    }
    Finding::warning(
        "scopes_missing",
        format!("{text} Not granted: {}.", missing.join(", ")),
        "Allow them at the provider, or leave them out here.",
    )
    .of("scopes")
}

fn clock(date: SystemTime, now: SystemTime) -> Option<Finding> {
    let difference = now
        .duration_since(date)
        .unwrap_or_else(|behind| behind.duration());
    if difference < CLOCK_ODD {
        return Some(Finding::good(
            "clock",
            "The clocks of this server and the provider agree.",
        ));
    }
    let direction = if date < now { "ahead of" } else { "behind" };
    let text = format!(
        "This server's clock is {} s {direction} the provider's.",
        difference.as_secs()
    );
    let fix = "Set this server's clock: ask the operator to run a time service (NTP).";
    Some(if difference < CLOCK_BAD {
        Finding::warning("clock", text, fix)
    } else {
        Finding::bad("clock", text, fix)
    })
}

fn host_of(integration: &Integration) -> String {
    providers::endpoints(integration)
        .and_then(|endpoints| endpoints.token.host_str().map(str::to_owned))
        .unwrap_or_else(|| "The provider".to_owned())
}

/// The setting that holds the token address, as far as there is one.
fn token_setting(integration: &Integration) -> &'static str {
    let template = providers::template(&integration.template);
    let has = |name: &str| template.is_some_and(|template| template.field(name).is_some());
    [
        "token_uri",
        "authority_host",
        "databricks_host",
        "account_url",
        "sf_host_domain",
    ]
    .into_iter()
    .find(|name| has(name))
    .unwrap_or("client_id")
}

fn unknown_name(integration: &Integration) -> Finding {
    Finding::bad(
        "name_unknown",
        format!("There is no server called {}.", host_of(integration)),
        "Compare the address. If it is right, this server's name service does not know it: ask the operator.",
    )
    .of(token_setting(integration))
}

fn unreachable(integration: &Integration, error: &HttpError) -> Finding {
    let host = host_of(integration);
    match error {
        HttpError::Tls => Finding::bad(
            "certificate",
            format!("The certificate of {host} is not trusted, or belongs to another name."),
            "Compare the address. Your organisation may have an authority of its own, or a proxy that opens connections: ask the operator to trust it (ca_file).",
        ),
        HttpError::Refused => Finding::bad(
            "address_refused",
            format!("{host} leads into a private network that the operator has not allowed."),
            "Ask the operator to allow it (private_hosts).",
        ),
        _ => Finding::bad(
            "unreachable",
            format!("{host} cannot be reached from this server."),
            "Ask the operator whether a firewall lets this server out.",
        ),
    }
    .of(token_setting(integration))
}

fn damaged() -> Finding {
    Finding::bad(
        "damaged",
        "The settings of this integration cannot be read.",
        "Save them again, with the secret.",
    )
}

fn mend_at(integration: &Integration) -> String {
    let names = providers::names(integration);
    format!(
        "Compare the settings with the application's page at {}.",
        names.provider_full
    )
}
