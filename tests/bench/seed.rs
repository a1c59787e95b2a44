//! Fills a portal's database with connections: people, each with a connection through one
//! integration and a consent for one content item, sealed as the portal does it. For benchmarks and
//! the fault harness; settings as for the server.
//!
//!   seed INTEGRATION CONTENT COUNT [TOKENS]
//!
//! Signs the first TOKENS of them in and prints their session tokens, a line each.

use std::sync::Arc;
use valetkey::{
    config::Settings,
    domain::{
        Id, Timestamp,
        connection::{Account, Connection, State},
        consent::{Consent, sorted_scopes},
        content::ProcessId,
        person::{Person, SignedIn},
        time::Clock as _,
    },
    server::{clock::SystemClock, installation},
    service::Error,
    store::{connections, integrations, people, sessions},
};

const AT_ONCE: usize = 1000;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [integration, content, count, tokens @ ..] = arguments.as_slice() else {
        panic!("usage: seed INTEGRATION CONTENT COUNT [TOKENS]")
    };
    let (integration, content) = (
        integration.parse().expect("a guid"),
        content.parse().expect("a guid"),
    );
    let count: usize = count.parse().expect("a number");
    let tokens: usize = tokens
        .first()
        .map_or(0, |text| text.parse().expect("a number"));
    drop(rustls::crypto::ring::default_provider().install_default());
    let settings = Settings::load(None, &std::env::vars().collect::<Vec<_>>()).expect("settings");
    let service = installation::open(settings, Arc::new(SystemClock))
        .await
        .expect("the database");
    let now = SystemClock.now();
    let asked = service
        .core
        .store
        .read(move |db| Ok::<_, Error>(integrations::find(db, integration)?))
        .await
        .expect("the database");
    let scopes = sorted_scopes(&asked.expect("the integration"));
    for start in (0..count).step_by(AT_ONCE) {
        let rows: Vec<_> = (start..(start + AT_ONCE).min(count))
            .map(|number| row(&service, number, integration, now))
            .collect();
        let sessions: Vec<_> = rows
            .iter()
            .take(tokens.saturating_sub(start))
            .map(|(person, ..)| (person.id, Id::random()))
            .collect();
        for (person, session) in &sessions {
            println!(
                "{}",
                service
                    .session_tokens
                    .session_token(
                        *person,
                        content,
                        SignedIn::Browser(*session),
                        ProcessId::ONLY
                    )
                    .expect("a token")
            );
        }
        let scopes = scopes.clone();
        service
            .core
            .store
            .write(move |db| {
                for (person, connection, tokens) in rows.clone() {
                    people::insert(db, &person, None)?;
                    connections::put(db, &connection, &tokens)?;
                    let consent = Consent {
                        id: Id::random(),
                        person: person.id,
                        content,
                        integration,
                        scopes: scopes.clone(),
                        created_at: now,
                        last_used_at: None,
                        uses: 0,
                    };
                    connections::give_consent(db, &consent)?;
                }
                for (person, session) in sessions.clone() {
                    let (person, guid, hash) = (
                        person.to_string(),
                        session.to_string(),
                        Id::<Person>::random().to_string(),
                    );
                    let row = sessions::SessionRow {
                        key_hash: &hash,
                        guid: Some(&guid),
                        person: Some(&person),
                        state: "{}",
                        address: "",
                        client: None,
                    };
                    sessions::insert(
                        db,
                        &row,
                        now,
                        now.plus(std::time::Duration::from_secs(86_400)),
                    )?;
                }
                Ok::<_, Error>(())
            })
            .await
            .expect("rows");
    }
    eprintln!("{count} connections");
}

fn row(
    service: &valetkey::service::Services,
    number: usize,
    integration: Id<valetkey::domain::integration::Integration>,
    now: Timestamp,
) -> (Person, Connection, connections::Tokens) {
    let name = format!(
        "seeded{number}-{}",
        &Id::<Person>::random().to_string()[..8]
    );
    let person = Person {
        email: format!("{name}@example.org"),
        username: name,
        ..Person::new(now)
    };
    let id = Id::random();
    let tokens = service.attempts.seal_tokens(
        id,
        person.id,
        integration,
        &format!("seeded-access-{number}").into(),
        Some(&format!("seeded-refresh-{number}").into()),
    );
    let connection = Connection {
        number: 0,
        id,
        person: person.id,
        integration,
        state: State::Active,
        account: Account {
            label: Some(person.email.clone()),
            ..Account::default()
        },
        scopes: "openid offline_access".into(),
        has_refresh_token: true,
        extra_fields: Default::default(),
        access_expires_at: Some(now.plus(std::time::Duration::from_secs(86_400))),
        lapses_at: None,
        generation: 1,
        connected_at: now,
        created_at: now,
        updated_at: now,
        state_at: now,
        used_at: None,
    };
    (person, connection, tokens.expect("sealed"))
}
