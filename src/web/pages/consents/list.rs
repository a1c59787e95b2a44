//! `GET /consents`: a viewer's connections, consents, and what ended lately.

use crate::{
    domain::{
        Timestamp, addresses,
        connection::{Cause, State},
        consent::Consent,
        revocation::{ProviderNotice, Revocation},
    },
    http::errors::WebError,
    providers,
    service::grants::consents::{ConsentedContent, Overview},
    web::{
        listing::{ColumnSpec, ListFrame, ListSpec, cut, natural_key, number_key},
        pages::page,
        view::{Chrome, Moment, Now, Status, count_noun},
        visitor::SignedIn,
    },
};
use actix_web::HttpResponse;
use askama::Template;
use std::time::Duration;

struct Item {
    /// The app; empty if it has none yet.
    open: String,
    title: String,
    owner: String,
    allowed: Moment,
    used: Option<Moment>,
    uses: String,
    revoke: String,
    /// The page of its uses.
    about: String,
}

/// One consent on its way to the page: the position of its connection, and what the list sorts by.
struct Listed {
    connection: usize,
    used_at: i64,
    created_at: i64,
    item: Item,
    guid: String,
}

struct Row {
    name: String,
    monogram: &'static str,
    about: String,
    state: Status,
    items: Vec<Item>,
    may: String,
    scopes: String,
    reconnect: Option<String>,
    reconnect_label: &'static str,
    disconnect: String,
}

#[derive(Template)]
#[template(path = "pages/consents/list.html")]
struct ListPage {
    chrome: Chrome,
    list: ListFrame,
    rows: Vec<Row>,
    /// Consents, and those among them that were not used for [`UNUSED_AFTER`].
    all: usize,
    unused: usize,
    ended: Vec<EndedConnection>,
}

/// A connection that ended recently, and whether its provider was told.
struct EndedConnection {
    name: String,
    at: Moment,
    told: String,
}

/// How to describe an ended connection, and the state of its revocation at the provider.
fn ended_connection(ended: &Revocation, now: Now) -> EndedConnection {
    let provider = &ended.provider;
    let told = match (ended.notice, ended.told_at) {
        (ProviderNotice::Told, Some(at)) => format!("{provider} was told {}.", at.relative(*now)),
        (ProviderNotice::Told, None) => format!("{provider} had nothing to end."),
        (ProviderNotice::Waiting, _) if ended.tries > 0 => {
            format!(
                "{provider} could not be told yet; it is tried again {}.",
                ended.next_at.max(*now).relative(*now)
            )
        }
        (ProviderNotice::Waiting, _) => format!("{provider} is being told."),
        (ProviderNotice::NotOffered, _) => format!(
            "{provider} keeps its own list of what you agreed to, and offers no way to be told."
        ),
        (ProviderNotice::GivenUp, _) => format!(
            "{provider} could not be told. Its own pages may still list this portal: end it there."
        ),
    };
    let account = ended
        .account
        .as_deref()
        .map(|label| format!(" as {label}"))
        .unwrap_or_default();
    EndedConnection {
        name: format!("{}{account}", ended.integration_name),
        at: Moment::new(ended.ended_at, now),
        told,
    }
}

/// Why a connection needs its viewer, as part of a sentence.
pub fn cause_words(cause: Cause, provider: &str) -> String {
    match cause {
        Cause::Expired => format!("{provider} ended the connection"),
        Cause::Policy => {
            format!("{provider} asks you to sign in again: your organisation's rules want it")
        }
        Cause::Refused => format!("{provider} refused three times, for a reason of its own"),
        Cause::RotationLost => "a new key got lost on its way; sign in once more".into(),
        Cause::RevokedByViewer => "you took it back".into(),
        Cause::RevokedByAdministrator => "an administrator ended the connection".into(),
        Cause::AccountChanged => format!("{provider} answered for another account"),
        Cause::Unused => "nothing used it for a long time, so this portal let it go".into(),
    }
}

/// One connection with the content items that may use it.
fn row(overview: &Overview, now: Now) -> Row {
    let (connection, integration) = (&overview.connection, &overview.integration);
    let names = providers::names(integration);
    let account = connection
        .account
        .label
        .as_deref()
        .map(|label| format!("as {label} · "))
        .unwrap_or_default();
    let (state, about, reconnect) = match connection.state {
        State::Active => {
            let connected = connection.connected_at.relative(*now);
            let again = match connection.lapses_at {
                _ if !connection.has_refresh_token => match connection.access_expires_at {
                    Some(end) => format!(
                        " · asks you again at {}, since {} gave no lasting permission",
                        now.absolute(end),
                        names.provider
                    ),
                    None => " · has no end of its own".to_owned(),
                },
                // A fixed time, if the provider ends every sign-in after a maximum age, however
                // often it is used.
                Some(at) if providers::max_sign_in_lifetime(integration).is_some() => {
                    format!(" · needs you again by {}", now.absolute(at))
                }
                Some(at) => format!(
                    " · needs you again by {}, if nothing uses it until then",
                    now.date(at)
                ),
                None => String::new(),
            };
            (
                Status::positive("Connected"),
                format!("{account}connected {connected}{again}"),
                None,
            )
        }
        State::Unconfirmed => (
            Status::warning("Needs you"),
            format!("{account}another account than expected: keep it, or connect again"),
            Some(format!("/consents/account?connection={}", connection.id)),
        ),
        State::NeedsLogin(cause) => (
            Status::warning("Needs you again"),
            format!(
                "{account}{} on {}",
                cause_words(cause, &names.provider),
                now.date(connection.state_at)
            ),
            Some(addresses::reconnect(integration.id)),
        ),
    };
    let mut may: Vec<String> = providers::capabilities(integration)
        .iter()
        .map(|line| lower_first(line))
        .collect();
    if connection.has_refresh_token {
        may.push("stay connected while you are away".into());
    }
    Row {
        name: integration.display_name().to_owned(),
        monogram: names.monogram,
        about,
        state,
        items: Vec::new(),
        may: format!("May: {}", may.join(" · ")),
        scopes: connection.scopes.clone(),
        reconnect_label: if connection.state == State::Unconfirmed {
            "Decide"
        } else {
            "Reconnect"
        },
        reconnect,
        disconnect: addresses::disconnect(connection.id),
    }
}

/// A sentence as part of another one.
fn lower_first(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => String::new(),
    }
}

/// A consent that was not used for this long may be one that its person forgot.
pub(super) const UNUSED_AFTER: Duration = Duration::from_secs(90 * 86_400);

/// Whether a consent was neither used nor given within [`UNUSED_AFTER`].
pub(super) fn is_unused(consent: &Consent, now: Timestamp) -> bool {
    let last = consent.last_used_at.unwrap_or(consent.created_at);
    now.since(last) >= UNUSED_AFTER
}

fn item(granted: &ConsentedContent, now: Now) -> Item {
    Item {
        open: match granted.content.upstream() {
            Some(_) => addresses::app(granted.content.id),
            None => String::new(),
        },
        title: granted.content.display_title().to_owned(),
        owner: granted.owner.display_name(),
        allowed: Moment::new(granted.consent.created_at, now),
        used: granted.consent.last_used_at.map(|at| Moment::new(at, now)),
        uses: count_noun(granted.consent.uses, "time", "times"),
        revoke: addresses::revoke(granted.consent.id),
        about: addresses::consent_uses(granted.consent.id),
    }
}

/// Within each connection by these: the order of connections stays.
const COLUMNS: [ColumnSpec<Listed>; 3] = [
    ColumnSpec::new("app", "App", |row| {
        format!("{:04} {}", row.connection, natural_key(&row.item.title))
    }),
    ColumnSpec::new("used", "Last used", |row| {
        format!(
            "{:04} {}",
            row.connection,
            number_key(i64::MAX - row.used_at)
        )
    }),
    ColumnSpec::new("allowed", "Allowed", |row| {
        format!(
            "{:04} {}",
            row.connection,
            number_key(i64::MAX - row.created_at)
        )
    }),
];

/// `GET /consents`.
pub async fn list(me: SignedIn) -> Result<HttpResponse, WebError> {
    let now = me.now();
    let overviews = me.service().consents.consents(&me.actor).await?;
    let consents = overviews.iter().flat_map(|overview| &overview.consents);
    let unused = consents
        .clone()
        .filter(|granted| is_unused(&granted.consent, *now))
        .count();
    let all = consents.count();
    let flat = overviews
        .iter()
        .enumerate()
        .flat_map(|(connection, overview)| {
            overview.consents.iter().map(move |granted| Listed {
                connection,
                used_at: granted.consent.last_used_at.map_or(0, |at| at.0),
                created_at: granted.consent.created_at.0,
                item: item(granted, now),
                guid: granted.consent.id.to_string(),
            })
        })
        .collect();
    let (list, shown) = cut(
        &me.visitor.asked,
        &ListSpec {
            base: "/consents",
            nouns: ("consent", "consents"),
            columns: &COLUMNS,
            filters: &[],
            text: |row| format!("{} {}", row.item.title, row.item.owner),
            id: |row| row.guid.clone(),
        },
        flat,
    );
    let mut rows: Vec<Row> = overviews
        .iter()
        .map(|overview| row(overview, now))
        .collect();
    let is_part = list.is_filtered || list.first.is_some();
    for listed in shown {
        if let Some(row) = rows.get_mut(listed.connection) {
            row.items.push(listed.item);
        }
    }
    // A connection without consents stands on the first page; one whose consents are on other pages
    // stands there.
    let mut place = 0;
    rows.retain(|row| {
        let has_none = overviews[place].consents.is_empty();
        place += 1;
        !row.items.is_empty() || (has_none && !is_part)
    });
    let ended = me
        .service()
        .revocations
        .recent_revocations(&me.actor)
        .await?
        .iter()
        .map(|ended| ended_connection(ended, now))
        .collect();
    page(&ListPage {
        chrome: me.visitor.chrome("consents", "Consents"),
        list,
        rows,
        all,
        unused,
        ended,
    })
}
