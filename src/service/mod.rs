//! The service layer: what the server does, one operation per function. Owns transactions, access
//! checks and audit records: pages and the API never decide. The access rules themselves are in
//! `domain::access`, the rows in `store`.
//!
//! Each part is a struct in a file of its own; all but `process_health` are built over one small
//! [`Core`]. A part owns its state and gets the few other parts that it calls; no part knows all of
//! them. The `use` list below says in which file each part is: `services.consents` is a
//! `grants::consents::Consents`.

pub mod core;
pub mod error;
mod last_uses;

/// Accounts, groups, passwords, API keys, sign-in.
pub mod people {
    pub mod accounts;
    pub mod api_keys;
    pub mod app_identity;
    pub mod bootstrap;
    pub mod browser_sessions;
    pub mod deletion;
    pub mod emergency;
    pub mod groups;
    mod hashing;
    pub mod invitations;
    pub mod limiter;
    pub mod organisation;
    pub mod passwords;
    pub mod personal_data;
    pub mod shown_once;
}

/// Integrations and content items, and who may choose what.
pub mod catalog {
    pub mod content;
    pub mod integrations;
    pub mod pasted;
}

/// Deployed content: uploads, deploys, and what runs.
pub mod running {
    pub mod board;
    pub mod bundles;
    pub mod files;
}

/// Everything about one viewer's tokens: consent, connection, refresh, exchange, revocation.
pub mod grants {
    pub mod activity;
    pub mod admission;
    pub mod attempts;
    pub mod backoff;
    pub mod broker;
    pub mod checks;
    pub mod clients;
    pub mod consents;
    pub mod end_reason;
    pub mod exchange;
    pub mod handover;
    pub mod issuer;
    pub mod new_connections;
    pub mod revocations;
    pub mod service_accounts;
    pub mod session_tokens;
    pub mod sign_in_grants;
    pub mod token_times;
    pub mod usage;
    pub mod workload;
}

/// What people are told by mail and webhooks.
pub mod notifying {
    pub mod conditions;
    pub mod deliveries;
    mod mail;
    pub mod notices;
}

/// The audit log and the leak alarm.
pub mod auditing {
    pub mod audit;
    pub mod leaks;
}

/// This process among those that share the database: nodes, presence, caches, keys.
pub mod cluster {
    pub mod app_sessions;
    pub mod cache;
    pub mod health;
    pub mod journal;
    pub mod keyring;
    pub mod node;
    pub mod presence;
    pub mod process_health;
}

use self::{
    auditing::{audit::Audit, leaks::LeakAlarm},
    catalog::{content::Contents, integrations::Integrations, pasted::PastedAddresses},
    cluster::{
        app_sessions::AppSessions, health::Health, journal::EndingsJournal, keyring::KeyringAdmin,
        node::Nodes, presence::PresenceBoard, process_health::ProcessHealth,
    },
    grants::{
        activity::ActivityCounts,
        admission::Admissions,
        attempts::Attempts,
        backoff::Backoff,
        broker::Broker,
        checks::Checks,
        clients::OauthClients,
        consents::Consents,
        exchange::{Exchange, TokenSources},
        handover::Handover,
        issuer::Issuer,
        new_connections::NewConnections,
        revocations::Revocations,
        service_accounts::ServiceAccounts,
        session_tokens::SessionTokens,
        sign_in_grants::SignInGrants,
        usage::Usage,
        workload::Workload,
    },
    notifying::{conditions::Conditions, deliveries::Deliveries, notices::Notices},
    people::{
        accounts::People, api_keys::ApiKeys, bootstrap::Bootstrap,
        browser_sessions::BrowserSessions, deletion::Deletion, emergency::Emergency,
        groups::Groups, invitations::Invitations, limiter::PasswordLimiter,
        organisation::OrganisationSignIn, passwords::Passwords, personal_data::PersonalData,
        shown_once::ShownOnce,
    },
    running::{board::RunBoard, bundles::Bundles},
};
pub use self::{
    core::{Actor, Core, Parts},
    error::{Error, invalid},
};
use std::sync::Arc;

/// All parts. Built once and shared by requests and jobs.
pub struct Services {
    pub core: Arc<Core>,
    /// Password tries.
    pub limiter: Arc<PasswordLimiter>,
    /// Passwords: sign-in, changes, confirmation.
    pub passwords: Arc<Passwords>,
    /// Browser sessions.
    pub sessions: Arc<BrowserSessions>,
    /// Groups and their members.
    pub groups: Arc<Groups>,
    /// API keys of people and content.
    pub api_keys: Arc<ApiKeys>,
    /// Sign-in at the organisation's identity provider.
    pub organisation: Arc<OrganisationSignIn>,
    /// Secrets that a page shows once.
    pub shown_once: Arc<ShownOnce>,
    /// This portal as an issuer of tokens.
    pub issuer: Arc<Issuer>,
    /// Tokens for content itself.
    pub service_accounts: Arc<ServiceAccounts>,
    /// What a pasted address belongs to.
    pub pasted: PastedAddresses,
    /// Checks of integrations.
    pub checks: Arc<Checks>,
    /// What processes of deployed content get of them before they start.
    pub workload: Arc<Workload>,
    /// OAuth clients of integrations.
    pub clients: Arc<OauthClients>,
    /// Pauses after failed refreshes.
    pub backoff: Arc<Backoff>,
    /// Session tokens for content.
    pub session_tokens: Arc<SessionTokens>,
    /// Counts of exchanges.
    pub usage: Arc<Usage>,
    /// What happens, by the hour.
    pub activity: Arc<ActivityCounts>,
    /// Content items.
    pub contents: Arc<Contents>,
    /// How connections and consents end.
    pub revocations: Arc<Revocations>,
    /// Accounts.
    pub people: Arc<People>,
    /// One-time links.
    pub invitations: Arc<Invitations>,
    /// Creates the first administrator for a program, for setup without a browser.
    pub bootstrap: Arc<Bootstrap>,
    /// Integrations.
    pub integrations: Arc<Integrations>,
    /// Consents and connections of viewers.
    pub consents: Arc<Consents>,
    /// Refresh tokens of organisation sign-ins.
    pub sign_in_grants: Arc<SignInGrants>,
    /// The audit log.
    pub audit: Arc<Audit>,
    /// The leak alarm.
    pub leaks: Arc<LeakAlarm>,
    /// This process among the others.
    pub nodes: Arc<Nodes>,
    /// Whether this node can serve.
    pub health: Health,
    /// Access tokens for exchanges; refreshes them when needed.
    pub broker: Arc<Broker>,
    /// Who is at which content.
    pub presence: Arc<PresenceBoard>,
    /// Whose the sessions of apps are.
    pub app_sessions: Arc<AppSessions>,
    /// Health of the processes of content items.
    pub process_health: Arc<ProcessHealth>,
    /// Decisions about one viewer and one item.
    pub admissions: Arc<Admissions>,
    /// The token exchange.
    pub exchange: Arc<Exchange>,
    /// Authorizations in flight.
    pub attempts: Arc<Attempts>,
    /// New connections on their way to the database.
    pub new_connections: Arc<NewConnections>,
    /// From the portal to a content origin.
    pub handover: Arc<Handover>,
    /// The journals of endings.
    pub journal: Arc<EndingsJournal>,
    /// The keys that seal secrets.
    pub keyring: Arc<KeyringAdmin>,
    /// Notices, and who gets them.
    pub notices: Arc<Notices>,
    /// Sends notices.
    pub deliveries: Arc<Deliveries>,
    /// Deletes people.
    pub deletion: Arc<Deletion>,
    /// What is stored about a person.
    pub personal_data: PersonalData,
    /// Ends everything.
    pub emergency: Emergency,
    /// What somebody must be told of.
    pub conditions: Conditions,
    /// Deployed content.
    pub bundles: Arc<Bundles>,
    /// Which processes of deployed content run.
    pub runs: Arc<RunBoard>,
}

impl Services {
    /// Must be called inside the runtime that provider calls are to run on. The error is a sentence
    /// for the operator.
    pub fn new(parts: Parts) -> Result<Self, String> {
        let core = Arc::new(Core::new(parts)?);
        let limiter = Arc::new(PasswordLimiter::new(Arc::clone(&core)));
        let audit = Arc::new(Audit::new(Arc::clone(&core)));
        let passwords = Arc::new(Passwords::new(
            Arc::clone(&core),
            Arc::clone(&limiter),
            Arc::clone(&audit),
        )?);
        let sessions = Arc::new(BrowserSessions::new(Arc::clone(&core)));
        let groups = Arc::new(Groups::new(Arc::clone(&core)));
        let api_keys = Arc::new(ApiKeys::new(Arc::clone(&core)));
        let organisation = Arc::new(OrganisationSignIn::new(
            Arc::clone(&core),
            Arc::clone(&audit),
        ));
        let shown_once = Arc::new(ShownOnce::new(Arc::clone(&core)));
        let issuer = Arc::new(Issuer::new(Arc::clone(&core)));
        let clients = Arc::new(OauthClients::new(Arc::clone(&core), Arc::clone(&issuer)));
        let service_accounts = Arc::new(ServiceAccounts::new(
            Arc::clone(&core),
            Arc::clone(&clients),
            Arc::clone(&issuer),
        ));
        let checks = Arc::new(Checks::new(
            Arc::clone(&core),
            Arc::clone(&clients),
            Arc::clone(&service_accounts),
        ));
        let workload = Arc::new(Workload::new(Arc::clone(&core), Arc::clone(&issuer)));
        let backoff = Arc::new(Backoff::new(Arc::clone(&core)));
        let nodes = Arc::new(Nodes::new(Arc::clone(&core)));
        let session_tokens = Arc::new(SessionTokens::new(Arc::clone(&core), Arc::clone(&nodes)));
        let usage = Arc::new(Usage::new(Arc::clone(&core)));
        let activity = Arc::new(ActivityCounts::new(Arc::clone(&core), Arc::clone(&usage)));
        let runs = Arc::new(RunBoard::default());
        let contents = Arc::new(Contents::new(
            Arc::clone(&core),
            Arc::clone(&usage),
            Arc::clone(&activity),
            Arc::clone(&runs),
        ));
        let revocations = Arc::new(Revocations::new(Arc::clone(&core), Arc::clone(&clients)));
        let people = Arc::new(People::new(
            Arc::clone(&core),
            Arc::clone(&passwords),
            Arc::clone(&revocations),
        ));
        let invitations = Arc::new(Invitations::new(
            Arc::clone(&core),
            Arc::clone(&people),
            Arc::clone(&passwords),
        ));
        let bootstrap = Arc::new(Bootstrap::new(
            Arc::clone(&core),
            Arc::clone(&people),
            Arc::clone(&api_keys),
        ));
        let integrations = Arc::new(Integrations::new(
            Arc::clone(&core),
            Arc::clone(&backoff),
            Arc::clone(&revocations),
            Arc::clone(&issuer),
            Arc::clone(&runs),
        ));
        let consents = Arc::new(Consents::new(
            Arc::clone(&core),
            Arc::clone(&usage),
            Arc::clone(&revocations),
        ));
        let sign_in_grants = Arc::new(SignInGrants::new(Arc::clone(&core)));
        let leaks = Arc::new(LeakAlarm::new(Arc::clone(&core), Arc::clone(&contents)));
        let broker = Arc::new(Broker::new(
            Arc::clone(&core),
            Arc::clone(&clients),
            Arc::clone(&backoff),
            Arc::clone(&revocations),
            Arc::clone(&nodes),
            Arc::clone(&activity),
        ));
        let presence = Arc::new(PresenceBoard::new(Arc::clone(&core), Arc::clone(&nodes)));
        let app_sessions = Arc::new(AppSessions::new(Arc::clone(&core)));
        let admissions = Arc::new(Admissions::new(Arc::clone(&core), Arc::clone(&presence)));
        let exchange = Arc::new(Exchange::new(
            Arc::clone(&core),
            Arc::clone(&sessions),
            Arc::clone(&admissions),
            TokenSources {
                session_tokens: Arc::clone(&session_tokens),
                broker: Arc::clone(&broker),
                service_accounts: Arc::clone(&service_accounts),
            },
            Arc::clone(&activity),
            Arc::clone(&audit),
        ));
        let new_connections = Arc::new(NewConnections::new(
            Arc::clone(&core),
            Arc::clone(&nodes),
            Arc::clone(&revocations),
        ));
        let attempts = Arc::new(Attempts::new(
            Arc::clone(&core),
            Arc::clone(&admissions),
            Arc::clone(&clients),
            Arc::clone(&sign_in_grants),
            Arc::clone(&new_connections),
            Arc::clone(&activity),
            Arc::clone(&checks),
        ));
        let handover = Arc::new(Handover::new(
            Arc::clone(&core),
            Arc::clone(&sessions),
            Arc::clone(&admissions),
        ));
        let bundles = Arc::new(Bundles::new(
            Arc::clone(&core),
            Arc::clone(&contents),
            Arc::clone(&nodes),
            Arc::clone(&runs),
        ));
        let keyring = Arc::new(KeyringAdmin::new(Arc::clone(&core), Arc::clone(&nodes)));
        let journal = Arc::new(EndingsJournal::new(Arc::clone(&core)));
        let pasted = PastedAddresses::new(Arc::clone(&core));
        let health = Health::new(Arc::clone(&core));
        let notices = Arc::new(Notices::new(Arc::clone(&core)));
        let deliveries = Arc::new(Deliveries::new(Arc::clone(&core))?);
        let deletion = Arc::new(Deletion::new(
            Arc::clone(&core),
            Arc::clone(&people),
            Arc::clone(&audit),
        ));
        let personal_data = PersonalData::new(Arc::clone(&core));
        let emergency = Emergency::new(Arc::clone(&core), Arc::clone(&revocations));
        let conditions = Conditions::new(
            Arc::clone(&core),
            Arc::clone(&notices),
            Arc::clone(&backoff),
            Arc::clone(&nodes),
        );
        Ok(Self {
            core,
            limiter,
            passwords,
            sessions,
            groups,
            api_keys,
            organisation,
            shown_once,
            issuer,
            service_accounts,
            pasted,
            checks,
            workload,
            clients,
            backoff,
            session_tokens,
            usage,
            activity,
            contents,
            revocations,
            people,
            invitations,
            bootstrap,
            integrations,
            consents,
            sign_in_grants,
            audit,
            leaks,
            nodes,
            health,
            broker,
            presence,
            app_sessions,
            process_health: Arc::default(),
            admissions,
            exchange,
            attempts,
            new_connections,
            handover,
            journal,
            keyring,
            notices,
            deliveries,
            deletion,
            personal_data,
            emergency,
            conditions,
            bundles,
            runs,
        })
    }
}
