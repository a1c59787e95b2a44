//! Starts a whole demo for one test, speaks HTTP to it as browsers and programs do, and checks
//! itself at the end.

use scraper::{Html, Selector};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};
use tokio::net::{TcpSocket, TcpStream};
use valetkey::{
    demo::{self, Demo, PASSWORD, provider::Provider},
    domain::{Timestamp, time::Clock},
    server::clock::SystemClock,
    service::Services,
    store::DatabaseUrl,
};

/// A PostgreSQL server to make each test a database on, instead of SQLite files.
fn server() -> Option<String> {
    std::env::var("TEST_POSTGRES")
        .ok()
        .filter(|address| !address.is_empty())
}

/// A new, empty database for one test; `None` for SQLite in the data directory.
pub fn database() -> Option<DatabaseUrl> {
    let server = server()?;
    let name = format!("test_{}", uuid::Uuid::new_v4().simple());
    sql(&server, &format!("CREATE DATABASE {name}"));
    Some(DatabaseUrl::Postgresql(SecretString::from(format!(
        "{}/{name}",
        server.rsplit_once('/').expect("a database").0
    ))))
}

fn drop_database(place: &DatabaseUrl) {
    let (Some(server), DatabaseUrl::Postgresql(address)) = (server(), place) else {
        return;
    };
    let name = address
        .expose_secret()
        .rsplit_once('/')
        .expect("a database")
        .1;
    sql(
        &server,
        &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
    );
}

fn variable(place: &DatabaseUrl) -> Option<(String, String)> {
    let DatabaseUrl::Postgresql(address) = place else {
        return None;
    };
    Some((
        "VALETKEY_DATABASE_URL".into(),
        address.expose_secret().into(),
    ))
}

#[derive(diesel::QueryableByName)]
struct Column {
    #[diesel(sql_type = diesel::sql_types::Text)]
    value: String,
}

/// No single wait of a test takes longer.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Waits, and fails with `what` instead of hanging.
pub async fn within<T>(what: &str, work: impl IntoFuture<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, work.into_future()).await {
        Ok(done) => done,
        Err(_) => panic!("waited {PATIENCE:?} for {what}"),
    }
}

/// Waits until something is so.
pub async fn until(what: &str, is_so: impl Fn() -> bool) {
    let seen = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(what, seen).await;
}

/// So that a running portal notices a change within a moment.
const NOTICED: &str = "INSERT INTO changes (process, subjects) VALUES ('test', 'everything')";

/// Looks into a portal's database, or changes it behind its back. A query names its one column
/// `value`.
fn query(folder: &std::path::Path, database: Option<&DatabaseUrl>, text: &str) -> Vec<String> {
    let rows = query_unnoticed(folder, database, text);
    if !text.starts_with("SELECT") {
        query_unnoticed(folder, database, NOTICED);
        std::thread::sleep(Duration::from_millis(400));
    }
    rows
}

/// Like [`query`], without a word to a running portal.
fn query_unnoticed(
    folder: &std::path::Path,
    database: Option<&DatabaseUrl>,
    text: &str,
) -> Vec<String> {
    use diesel::{Connection as _, RunQueryDsl as _, SqliteConnection, sql_query};
    if let Some(DatabaseUrl::Postgresql(address)) = database {
        return sql(address.expose_secret(), text)
            .lines()
            .map(str::to_owned)
            .collect();
    }
    let mut file =
        SqliteConnection::establish(folder.join("valetkey.db").to_str().expect("a path"))
            .expect("the database");
    sql_query("PRAGMA busy_timeout = 5000")
        .execute(&mut file)
        .expect("a timeout");
    if text.starts_with("SELECT") {
        let rows: Vec<Column> = sql_query(text)
            .load(&mut file)
            .unwrap_or_else(|error| panic!("{text}: {error}"));
        return rows.into_iter().map(|row| row.value).collect();
    }
    sql_query(text)
        .execute(&mut file)
        .unwrap_or_else(|error| panic!("{text}: {error}"));
    Vec::new()
}

/// Keeps everybody else from writing for a while; ends when it is over.
async fn lock_database(
    folder: &std::path::Path,
    database: Option<&DatabaseUrl>,
    time: Duration,
) -> tokio::task::JoinHandle<()> {
    let (folder, database) = (folder.to_owned(), database.cloned());
    let (send, receive) = tokio::sync::oneshot::channel();
    let locking = tokio::task::spawn_blocking(move || {
        use diesel::{Connection as _, SqliteConnection, connection::SimpleConnection as _};
        if let Some(DatabaseUrl::Postgresql(address)) = &database {
            let lock = format!(
                "BEGIN; DO $$ DECLARE name text; BEGIN \
                 FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1 \
                 LOOP EXECUTE format('LOCK TABLE %I IN EXCLUSIVE MODE', name); END LOOP; END $$; \
                 SELECT pg_sleep({}); ROLLBACK",
                time.as_secs()
            );
            let address = address.expose_secret();
            std::thread::scope(|threads| {
                threads.spawn(|| sql(address, &lock));
                until_it_sleeps(address);
                let _ = send.send(());
            });
            return;
        }
        let mut file =
            SqliteConnection::establish(folder.join("valetkey.db").to_str().expect("a path"))
                .expect("the database");
        file.batch_execute("PRAGMA busy_timeout = 5000; BEGIN IMMEDIATE")
            .expect("a lock");
        let _ = send.send(());
        std::thread::sleep(time);
        file.batch_execute("ROLLBACK").expect("unlocked");
    });
    within("the lock", receive).await.expect("locked");
    locking
}

/// Waits until a session of the database at `address` is in `pg_sleep`.
fn until_it_sleeps(address: &str) {
    let query = "SELECT count(*) FROM pg_stat_activity \
                 WHERE datname = current_database() AND wait_event = 'PgSleep'";
    for _ in 0..200 {
        if sql(address, query) != "0" {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("no session sleeps");
}

/// Runs statements with PostgreSQL's own client; what it prints.
fn sql(address: &str, text: &str) -> String {
    let output = std::process::Command::new("psql")
        .args([address, "-qAt", "-v", "ON_ERROR_STOP=1", "-c", text])
        .output()
        .expect("psql");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The origins clock, moved by the test.
#[derive(Default)]
pub struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(SystemClock.now().0 + self.0.load(Ordering::SeqCst))
    }
}

/// A portal of one test's own.
pub struct World {
    pub portal: String,
    pub provider: Arc<Provider>,
    /// Other providers, if the test asked for them.
    pub doubles: Option<Arc<demo::doubles::Doubles>>,
    pub summary: Value,
    pub data_dir: PathBuf,
    /// The PostgreSQL database, where the tests run on one.
    pub database: Option<DatabaseUrl>,
    http: reqwest::Client,
    clock: Arc<TestClock>,
    handle: actix_web::dev::ServerHandle,
    /// `None` once it was awaited.
    serving: Option<tokio::task::JoinHandle<Result<(), String>>>,
    pub services: Arc<Services>,
    /// The data is kept for another process.
    is_parked: bool,
}

impl World {
    /// The portal on one loopback name, content on the other.
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    /// With a `content_url` of the test's own; `{port}` stands for the portal's port.
    pub async fn start_with(content_url: Option<&str>) -> Self {
        Self::start_as(content_url, None).await
    }

    /// With the demo's identity provider as the organisation's sign-in.
    pub async fn start_organisation(organisation: demo::Organisation) -> Self {
        Self::start_as(None, Some(organisation)).await
    }

    /// In a file, whatever the other tests run on.
    pub async fn start_on_sqlite() -> Self {
        Self::start_on(None, None, None).await
    }

    /// With outer proxies that are believed.
    pub async fn start_trusting(proxies: &[&str]) -> Self {
        let proxies = proxies
            .iter()
            .map(|text| text.parse().expect("an address"))
            .collect();
        Self::start_by(demo::Options {
            database: database(),
            trusted_proxies: proxies,
            ..demo::Options::default()
        })
        .await
    }

    /// With options of the test's own, except for the database.
    pub async fn start_with_options(options: demo::Options) -> Self {
        Self::start_by(demo::Options {
            database: database(),
            ..options
        })
        .await
    }

    async fn start_as(content_url: Option<&str>, organisation: Option<demo::Organisation>) -> Self {
        Self::start_on(database(), content_url, organisation).await
    }

    async fn start_on(
        database: Option<DatabaseUrl>,
        content_url: Option<&str>,
        organisation: Option<demo::Organisation>,
    ) -> Self {
        let content_url = content_url.map(str::to_owned);
        Self::start_by(demo::Options {
            content_url,
            database,
            organisation,
            ..demo::Options::default()
        })
        .await
    }

    async fn start_by(options: demo::Options) -> Self {
        capture_log();
        #[cfg(feature = "faults")]
        valetkey::faults::hash_cheaply();
        let (http, clock) = (client(), Arc::new(TestClock::default()));
        let data_dir = std::env::temp_dir().join(format!("valetkey-test-{}", uuid::Uuid::new_v4()));
        let options = demo::Options {
            listen: "127.0.0.1:0".parse().expect("an address"),
            data_dir: data_dir.clone(),
            upstream_sockets: vec![std::env::temp_dir()],
            ..options
        };
        let place = options.database.clone();
        let demo: Demo = demo::start_with(options, Arc::clone(&clock) as Arc<dyn Clock>)
            .await
            .expect("the demo starts");
        let services = Arc::clone(&demo.service);
        let doubles = demo.doubles.clone();
        let (portal, provider, summary) = (
            demo.service.core.addresses.base().to_owned(),
            Arc::clone(&demo.provider),
            demo.summary(),
        );
        let (send, receive) = tokio::sync::oneshot::channel();
        let serving = tokio::spawn(demo.serve(move |handle| drop(send.send(handle))));
        let handle = within("the portal to serve", receive)
            .await
            .expect("the portal serves");
        Self {
            http,
            portal,
            provider,
            doubles,
            summary,
            data_dir,
            database: place,
            clock,
            handle,
            serving: Some(serving),
            services,
            is_parked: false,
        }
    }

    /// The wall clock of portal and provider.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Writes what is collected in memory, as the portal does every ten seconds.
    pub async fn write_bookkeeping(&self) {
        let services = &self.services;
        services.usage.flush_uses().await;
        services.sessions.flush_last_uses().await;
        services.api_keys.flush_last_uses().await;
        let shared = services.presence.share_presence().await;
        shared.expect("presence is written");
    }

    /// Deletes old rows, as the leader does every ten minutes.
    pub async fn purge(&self) {
        valetkey::jobs::purge::run(&self.services).await;
    }

    /// Moves the clock of portal and provider forward.
    pub fn pass(&self, time: Duration) {
        self.clock.0.fetch_add(
            i64::try_from(time.as_millis()).expect("a short time"),
            Ordering::SeqCst,
        );
    }

    pub fn key(&self, name: &str) -> String {
        let accounts = self.summary["accounts"].as_array().expect("accounts");
        let account = accounts
            .iter()
            .find(|account| account["username"] == name)
            .expect("an account");
        account["api_key"].as_str().expect("a key").to_owned()
    }

    pub fn content(&self, position: usize) -> String {
        self.summary["content"][position]["guid"]
            .as_str()
            .expect("a guid")
            .to_owned()
    }

    /// Where an item runs, with content on the other loopback name.
    pub fn app(&self, content: &str) -> String {
        format!(
            "{}/content/{content}/",
            self.portal.replace("127.0.0.1", "localhost")
        )
    }

    pub fn integration(&self) -> String {
        self.summary["integrations"][0]["guid"]
            .as_str()
            .expect("a guid")
            .to_owned()
    }

    pub async fn api(&self, key: &str, method: &str, path: &str, body: &str) -> Answer {
        let key = format!("Key {key}");
        let headers: &[(&str, &str)] = if key.len() > 4 {
            &[("authorization", &key)]
        } else {
            &[]
        };
        let program = Browser {
            base: self.portal.clone(),
            http: self.http.clone(),
            cookies: Mutex::default(),
        };
        program
            .send(
                method,
                &format!("/__api__/{path}"),
                headers,
                Some(body.to_owned()),
            )
            .await
    }

    pub async fn exchange(&self, key: &str, token: &str) -> Answer {
        self.exchange_form(
            key,
            &[
                (
                    "grant_type",
                    "urn:ietf:params:oauth:grant-type:token-exchange",
                ),
                ("subject_token_type", "urn:posit:connect:user-session-token"),
                ("subject_token", token),
            ],
        )
        .await
    }

    pub async fn exchange_form(&self, key: &str, pairs: &[(&str, &str)]) -> Answer {
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(pairs)
            .finish();
        self.api(key, "POST", "v1/oauth/integrations/credentials", &body)
            .await
    }

    /// A browser in which `name` has signed in.
    pub async fn signed_in(&self, name: &str) -> Browser {
        let browser = Browser::new(&self.portal);
        browser.sign_in(name).await;
        browser
    }

    /// A viewer who has consented to the first content item, with the token that its app saw.
    pub async fn connected(&self, name: &str) -> (Browser, String) {
        let browser = self.signed_in(name).await;
        let page = browser
            .open(&format!("/content/{}/", self.content(0)), name)
            .await;
        assert!(
            page.body.contains(&format!("{name}@example.org")),
            "{}",
            page.body
        );
        let token = self.token(&browser, &self.content(0)).await;
        (browser, token)
    }

    /// Revokes the viewer's consent through the pages; the connection stays.
    pub async fn revoke_consent(&self, viewer: &Browser) {
        let link = viewer.get("/consents").await.link("/revoke");
        let page = viewer.get(&link).await;
        let answer = viewer.submit(&page, "/revoke", &[]).await;
        assert_eq!(answer.status, 303, "{}", answer.body);
    }

    /// An exchange is refused because the viewer has not consented, although their connection is
    /// there.
    pub async fn assert_not_consented(&self, token: &str) {
        let answer = self.exchange(&self.key("bo"), token).await;
        assert_eq!(
            (answer.status, answer.json()["code"].as_i64()),
            (400, Some(220)),
            "{}",
            answer.body
        );
    }

    /// The session token that the proxy gives an app: seen by an app of the test's own.
    pub async fn token(&self, browser: &Browser, content: &str) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let upstream = format!("http://{}", listener.local_addr().expect("an address"));
        let before = self
            .api(
                &self.key("ada"),
                "GET",
                &format!("v1/content/{content}"),
                "",
            )
            .await
            .json()["upstream_url"]
            .clone();
        let patched = self
            .api(
                &self.key("ada"),
                "PATCH",
                &format!("v1/content/{content}"),
                &serde_json::json!({"upstream_url": upstream}).to_string(),
            )
            .await;
        assert_eq!(patched.status, 200, "{}", patched.body);
        let app = tokio::spawn(async move {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            let (mut socket, _) = within("a request at the test's app", listener.accept())
                .await
                .expect("a request");
            let mut head = vec![0; 65536];
            let read = within("the request's head", socket.read(&mut head))
                .await
                .expect("a head");
            socket
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
                .await
                .expect("an answer");
            String::from_utf8_lossy(&head[..read]).into_owned()
        });
        let page = browser
            .clone_cookies()
            .get(&format!("/content/{content}/"))
            .await;
        assert_eq!(page.status, 200, "{}", page.body);
        let head = within("the test's app", app).await.expect("the app");
        self.api(
            &self.key("ada"),
            "PATCH",
            &format!("v1/content/{content}"),
            &serde_json::json!({"upstream_url": before}).to_string(),
        )
        .await;
        let line = head
            .lines()
            .find(|line| {
                line.to_ascii_lowercase()
                    .starts_with("posit-connect-user-session-token:")
            })
            .expect("the header");
        line.split_once(':').expect("a value").1.trim().to_owned()
    }

    /// The settings with which the program works on the same data.
    pub fn settings(&self) -> Vec<(String, String)> {
        let mut settings = vec![
            (
                "VALETKEY_DATA_DIR".to_owned(),
                self.data_dir.to_string_lossy().into_owned(),
            ),
            (
                "VALETKEY_KEYRING_FILE".to_owned(),
                self.data_dir.join("keyring").to_string_lossy().into_owned(),
            ),
            ("VALETKEY_PUBLIC_URL".to_owned(), self.portal.clone()),
        ];
        settings.extend(self.database.iter().filter_map(variable));
        settings
    }

    /// Runs the program beside the server, on the same data; what it prints.
    pub fn command(&self, arguments: &[&str]) -> std::process::Output {
        command(arguments, &self.settings())
    }

    /// The same, with a text on its standard input.
    pub fn command_with(&self, arguments: &[&str], input: &str) -> std::process::Output {
        command_with(arguments, &self.settings(), input)
    }

    /// Tells the portal to stop, as a signal would, and does not wait.
    pub fn begin_stop(&self) {
        tokio::spawn(self.handle.stop(true));
    }

    /// Stops the portal and keeps what it stored, for the program to work on.
    pub async fn park(mut self) -> Served {
        let settings = self.settings();
        self.end().await;
        self.is_parked = true;
        let address = self
            .portal
            .trim_start_matches("http://")
            .parse()
            .expect("an address");
        Served {
            address,
            data_dir: self.data_dir.clone(),
            database: self.database.take(),
            child: None,
            files: None,
            settings,
        }
    }

    /// Stops the portal as a signal would. Not needed at the end of a test: dropping does it.
    pub async fn stop(mut self) {
        self.end().await;
    }

    async fn end(&mut self) {
        let Some(serving) = self.serving.take() else {
            return;
        };
        within("the portal to stop", self.handle.stop(true)).await;
        within("the portal's end", serving)
            .await
            .expect("no panic")
            .expect("a clean end");
    }

    /// What no test has to ask for: no task is left, no error was logged that no test provokes, and
    /// no secret of this portal stands in the log or, readable, in the database.
    fn verify(&self) {
        let tasks = self.services.core.tasks.len();
        assert_eq!(tasks, 0, "background tasks are left");
        let secrets = [
            self.provider.client_secret().to_owned(),
            self.key("ada"),
            self.key("vera"),
        ];
        let mut stored = Vec::new();
        for file in ["valetkey.db", "valetkey.db-wal"] {
            stored.extend(std::fs::read(self.data_dir.join(file)).unwrap_or_default());
        }
        for secret in &secrets {
            assert!(!logged().contains(secret), "a secret is in the log");
            let is_stored = stored
                .windows(secret.len())
                .any(|part| part == secret.as_bytes());
            assert!(!is_stored, "a secret is readable in the database");
        }
        let errors = unexpected_errors();
        assert!(errors.is_empty(), "errors were logged: {errors:#?}");
    }

    /// See [`lock_database`].
    pub async fn lock_database(&self, time: Duration) -> tokio::task::JoinHandle<()> {
        lock_database(&self.data_dir, self.database.as_ref(), time).await
    }

    /// See [`query`].
    pub fn sql(&self, text: &str) -> Vec<String> {
        query(&self.data_dir, self.database.as_ref(), text)
    }

    /// See [`query_unnoticed`].
    pub fn sql_unnoticed(&self, text: &str) -> Vec<String> {
        query_unnoticed(&self.data_dir, self.database.as_ref(), text)
    }

    /// Runs a statement on PostgreSQL and leaves its transaction open for a while.
    pub async fn in_open_transaction(
        &self,
        statement: &str,
        time: Duration,
    ) -> tokio::task::JoinHandle<()> {
        let Some(DatabaseUrl::Postgresql(address)) = &self.database else {
            panic!("only on PostgreSQL");
        };
        let text = format!(
            "BEGIN; {statement}; SELECT pg_sleep({}); ROLLBACK",
            time.as_secs()
        );
        let address = address.expose_secret().to_owned();
        let holder = address.clone();
        let holding = tokio::task::spawn_blocking(move || drop(sql(&holder, &text)));
        tokio::task::spawn_blocking(move || until_it_sleeps(&address))
            .await
            .expect("an open transaction");
        holding
    }

    /// A one-time link for somebody, made on the command line.
    pub fn link_from_command_line(&self, name: &str) -> String {
        let output = self.command(&["admin", "link", name]);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tokio::spawn(self.handle.stop(false));
        } else {
            tokio::task::block_in_place(|| {
                tokio::runtime::Handle::current().block_on(self.end());
            });
            self.verify();
        }
        if !self.is_parked {
            drop(std::fs::remove_dir_all(&self.data_dir));
            self.database.iter().for_each(drop_database);
        }
    }
}

/// All that was logged in this process, at debug level.
static LOG: Mutex<String> = Mutex::new(String::new());

/// Lines at error level that some test provokes on purpose.
const PROVOKED: [&str; 13] = [
    "the audit log holds a record that this portal did not write",
    "the audit log was changed",
    "the newest blocks of the audit log",
    "new tokens could not be stored",
    "the spool",
    "database",
    "the stored value",
    "is not in the keyring",
    // A server that stops while connections arrive.
    "actix_server::accept: No workers",
    "a stored token does not open",
    "the sign-in provider cannot be used",
    "could not mark a connection",
    "the keyring",
];

fn logged() -> String {
    LOG.lock().expect("the log").clone()
}

fn unexpected_errors() -> Vec<String> {
    let log = logged();
    let errors = log.lines().filter(|line| line.contains(" ERROR "));
    errors
        .filter(|line| !PROVOKED.iter().any(|known| line.contains(known)))
        .map(str::to_owned)
        .collect()
}

/// Collects the log of all portals of this process. Which one wrote a line is not known, so a test
/// may report the error of another one that runs at the same time; the line says enough.
fn capture_log() {
    struct Writer;
    impl std::io::Write for Writer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            LOG.lock()
                .expect("the log")
                .push_str(&String::from_utf8_lossy(bytes));
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter("warn,valetkey=debug,actix_http::h1::dispatcher=off")
        .with_ansi(false)
        .with_writer(|| Writer);
    // Only the first portal of the process installs it.
    drop(subscriber.try_init());
}

/// An answer with its body read.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub url: String,
    pub headers: reqwest::header::HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|_| panic!("not JSON: {} {}", self.status, self.body))
    }
    /// The page, parsed as a browser parses it.
    pub fn html(&self) -> Html {
        Html::parse_document(&self.body)
    }
    /// An attribute of all elements that a CSS selector finds.
    pub fn attributes(&self, selector: &str, attribute: &str) -> Vec<String> {
        self.html()
            .select(&css(selector))
            .filter_map(|element| element.attr(attribute).map(str::to_owned))
            .collect()
    }
    /// The text of all elements that a CSS selector finds.
    pub fn text(&self, selector: &str) -> String {
        self.html()
            .select(&css(selector))
            .flat_map(|element| element.text().map(str::to_owned).collect::<Vec<_>>())
            .collect()
    }
    /// What the page says, with single blanks between words.
    pub fn words(&self) -> String {
        let text = self.text("body");
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
    /// How many elements a CSS selector finds.
    pub fn count(&self, selector: &str) -> usize {
        self.html().select(&css(selector)).count()
    }
    /// The anti-forgery token that the page's forms carry.
    pub fn csrf(&self) -> String {
        self.attributes("form input[name=csrf]", "value")
            .into_iter()
            .next()
            .unwrap_or_else(|| panic!("no form in {} {}", self.status, self.body))
    }
    /// The first link of the page whose address ends like this.
    pub fn link(&self, end: &str) -> String {
        self.attributes("a[href]", "href")
            .into_iter()
            .find(|link| link.ends_with(end))
            .unwrap_or_else(|| panic!("no link {end} in {}", self.body))
    }
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("")
    }
}

fn css(selector: &str) -> Selector {
    Selector::parse(selector).expect("a selector")
}

/// A browser without script: cookies for each origin, redirects, forms.
pub struct Browser {
    base: String,
    http: reqwest::Client,
    cookies: Mutex<BTreeMap<(String, String), String>>,
}

impl Browser {
    pub fn new(base: &str) -> Self {
        Self {
            base: base.to_owned(),
            http: client(),
            cookies: Mutex::default(),
        }
    }

    pub fn clone_cookies(&self) -> Self {
        let copy = Self::new(&self.base);
        *copy.cookies.lock().expect("cookies") = self.cookies.lock().expect("cookies").clone();
        copy
    }

    /// The same browser as if it had been to one origin only.
    pub fn only_cookies_of(&self, address: &str) -> Self {
        let origin = url::Url::parse(address)
            .expect("an address")
            .origin()
            .ascii_serialization();
        let copy = self.clone_cookies();
        copy.cookies
            .lock()
            .expect("cookies")
            .retain(|(of, _), _| *of == origin);
        copy
    }

    /// The cookies that an address gets.
    pub fn cookies_of(&self, address: &str) -> BTreeMap<String, String> {
        let origin = url::Url::parse(address)
            .expect("an address")
            .origin()
            .ascii_serialization();
        let cookies = self.cookies.lock().expect("cookies");
        cookies
            .iter()
            .filter(|((of, _), _)| *of == origin)
            .map(|((_, name), value)| (name.clone(), value.clone()))
            .collect()
    }

    /// One request, no redirect followed.
    pub async fn send(
        &self,
        method: &str,
        address: &str,
        headers: &[(&str, &str)],
        body: Option<String>,
    ) -> Answer {
        let response = self
            .try_send(method, address, headers, body)
            .await
            .expect("an answer");
        Answer {
            status: response.status().as_u16(),
            url: response.url().to_string(),
            headers: response.headers().clone(),
            body: response.text().await.unwrap_or_default(),
        }
    }

    /// Like [`Browser::send`], with the body still to be read: for answers that break.
    pub async fn try_send(
        &self,
        method: &str,
        address: &str,
        headers: &[(&str, &str)],
        body: Option<String>,
    ) -> reqwest::Result<reqwest::Response> {
        let url = if address.starts_with("http") {
            address.to_owned()
        } else {
            format!("{}{address}", self.base)
        };
        let origin = url::Url::parse(&url)
            .expect("an address")
            .origin()
            .ascii_serialization();
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let mut request = self.http.request(method, &url);
        let cookies: Vec<String> = self
            .cookies
            .lock()
            .expect("cookies")
            .iter()
            .filter(|((of, _), _)| *of == origin)
            .map(|((_, name), value)| format!("{name}={value}"))
            .collect();
        if !cookies.is_empty() && !headers.iter().any(|(name, _)| *name == "cookie") {
            request = request.header("cookie", cookies.join("; "));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request
                .header("content-type", "application/x-www-form-urlencoded")
                .body(body);
        }
        let response = request.send().await?;
        for cookie in response.headers().get_all("set-cookie") {
            let pair = cookie
                .to_str()
                .expect("text")
                .split(';')
                .next()
                .unwrap_or("")
                .to_owned();
            if let Some((name, value)) = pair.split_once('=') {
                self.cookies
                    .lock()
                    .expect("cookies")
                    .insert((origin.clone(), name.to_owned()), value.to_owned());
            }
        }
        Ok(response)
    }

    /// Goes to an address as a person does, following redirects.
    pub async fn get(&self, address: &str) -> Answer {
        let answer = self
            .send("GET", address, &[("accept", "text/html")], None)
            .await;
        self.follow(answer).await
    }

    pub async fn follow(&self, mut answer: Answer) -> Answer {
        for _ in 0..10 {
            if !(300..400).contains(&answer.status) {
                break;
            }
            let next = url::Url::parse(&answer.url)
                .expect("an address")
                .join(answer.header("location"))
                .expect("a location");
            answer = self
                .send("GET", next.as_str(), &[("accept", "text/html")], None)
                .await;
        }
        answer
    }

    /// Sends a form of a page with its hidden fields, redirects not followed.
    pub async fn submit(
        &self,
        page: &Answer,
        action_part: &str,
        values: &[(&str, &str)],
    ) -> Answer {
        let html = page.html();
        let form = html
            .select(&css("form[action]"))
            .find(|form| {
                form.attr("action")
                    .is_some_and(|it| it.ends_with(action_part))
            })
            .unwrap_or_else(|| panic!("no form {action_part} in {} {}", page.status, page.body));
        let mut pairs: Vec<(String, String)> = values
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        for input in form.select(&css("input[type=hidden][name]")) {
            let name = input.attr("name").unwrap_or("");
            if !pairs.iter().any(|(known, _)| *known == name) {
                pairs.push((name.into(), input.attr("value").unwrap_or("").into()));
            }
        }
        let action = url::Url::parse(&page.url)
            .expect("an address")
            .join(form.attr("action").unwrap_or(""))
            .expect("an action");
        // The parsed page is not `Send`.
        drop(html);
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(&pairs)
            .finish();
        self.send(
            "POST",
            action.as_str(),
            &[("accept", "text/html")],
            Some(body),
        )
        .await
    }

    pub async fn sign_in(&self, name: &str) {
        let page = self.get("/login").await;
        let answer = self
            .submit(
                &page,
                "/login",
                &[("username", name), ("password", PASSWORD)],
            )
            .await;
        assert_eq!(answer.status, 303, "{}", answer.body);
    }

    /// Opens content, agreeing to whatever is asked on the way, as `account` at the identity
    /// provider.
    pub async fn open(&self, address: &str, account: &str) -> Answer {
        let mut page = self.get(address).await;
        for _ in 0..8 {
            page = if page.url.contains("/consents/new") {
                let answer = self.submit(&page, "/consents/new", &[]).await;
                self.follow(answer).await
            } else if page.body.contains("id=\"signin\"") {
                let answer = self
                    .submit(
                        &page,
                        "signin",
                        &[("username", account), ("password", PASSWORD)],
                    )
                    .await;
                self.follow(answer).await
            } else if page.body.contains("id=\"accept\"") {
                let answer = self.submit(&page, "consent", &[("choice", "accept")]).await;
                self.follow(answer).await
            } else {
                return page;
            };
        }
        page
    }

    /// Goes on our consent page and signs in at the provider; stops at the answer that would go
    /// back to the portal.
    pub async fn up_to_callback(&self, address: &str, account: &str) -> String {
        let page = self.get(address).await;
        let answer = self.submit(&page, "/consents/new", &[]).await;
        let mut answer = self
            .send(
                "GET",
                answer.header("location"),
                &[("accept", "text/html")],
                None,
            )
            .await;
        for (marker, form, values) in [
            (
                "id=\"signin\"",
                "signin",
                vec![("username", account), ("password", PASSWORD)],
            ),
            ("id=\"accept\"", "consent", vec![("choice", "accept")]),
        ] {
            if answer.body.contains(marker) {
                answer = self.submit(&answer, form, &values).await;
            }
        }
        answer.header("location").to_owned()
    }
}

fn client() -> reqwest::Client {
    // A second call finds it there.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(PATIENCE)
        .dns_resolver(Arc::new(Loopback))
        .build()
        .expect("a client")
}

/// Every name under `localhost` is this machine, as browsers have it.
struct Loopback;

impl reqwest::dns::Resolve for Loopback {
    fn resolve(&self, _: reqwest::dns::Name) -> reqwest::dns::Resolving {
        Box::pin(async {
            Ok(
                Box::new(std::iter::once(SocketAddr::from(([127, 0, 0, 1], 0))))
                    as reqwest::dns::Addrs,
            )
        })
    }
}

/// Runs the program; what it prints.
pub fn command(arguments: &[&str], settings: &[(String, String)]) -> std::process::Output {
    command_with(arguments, settings, "")
}

fn command_with(
    arguments: &[&str],
    settings: &[(String, String)],
    input: &str,
) -> std::process::Output {
    use std::{io::Write as _, process::Stdio};
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_valetkey"));
    command.args(arguments).envs(settings.iter().cloned());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    // A program that reads nothing has closed its end.
    let _ = writeln!(child.stdin.take().expect("its input"), "{input}");
    child.wait_with_output().expect("its output")
}

/// The address of a PostgreSQL database.
pub fn address(place: &DatabaseUrl) -> String {
    variable(place).expect("PostgreSQL").1
}

/// The program itself, with settings of the test's own, as an operator starts it.
pub struct Served {
    /// Where it listens.
    pub address: SocketAddr,
    pub data_dir: PathBuf,
    pub database: Option<DatabaseUrl>,
    child: Option<std::process::Child>,
    settings: Vec<(String, String)>,
    /// How many files it may have open.
    files: Option<u32>,
}

impl Served {
    /// Serving; nobody has an account yet.
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        let mut served = Self::prepare(settings);
        served.restart().await;
        served
    }

    /// Serving over TLS with these files, content on the portal's own origin.
    pub async fn start_tls(certificate: &str, key: &str) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let mut served = Self::prepare(&[
            ("VALETKEY_TLS_CERTIFICATE_FILE", certificate),
            ("VALETKEY_TLS_KEY_FILE", key),
            ("VALETKEY_PRIVATE_HOSTS", "127.0.0.1"),
        ]);
        let port = served.address.port();
        served.settings.push((
            "VALETKEY_PUBLIC_URL".to_owned(),
            format!("https://localhost:{port}"),
        ));
        served.launch();
        for _ in 0..200 {
            if TcpStream::connect(served.address).await.is_ok() {
                return served;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it does not listen: {}", served.log());
    }

    /// Serving over TLS with a self-signed certificate.
    pub async fn start_self_signed() -> Self {
        let file = |ending: &str| {
            format!(
                "{}/tests/it/promises/self_signed.{ending}",
                env!("CARGO_MANIFEST_DIR")
            )
        };
        Self::start_tls(&file("pem"), &file("key")).await
    }

    /// A folder and settings; nothing runs yet.
    pub fn prepare(settings: &[(&str, &str)]) -> Self {
        // A port that was free a moment ago.
        let address = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|socket| socket.local_addr())
            .expect("a port");
        let data_dir =
            std::env::temp_dir().join(format!("valetkey-served-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&data_dir).expect("a folder");
        let mut all = vec![
            ("VALETKEY_LISTEN".to_owned(), address.to_string()),
            (
                "VALETKEY_PUBLIC_URL".to_owned(),
                format!("http://{address}"),
            ),
            (
                "VALETKEY_DATA_DIR".to_owned(),
                data_dir.to_string_lossy().into_owned(),
            ),
        ];
        let database = database();
        all.extend(database.iter().filter_map(variable));
        all.extend(
            settings
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        Self {
            address,
            data_dir,
            database,
            child: None,
            settings: all,
            files: None,
        }
    }

    /// Starts the program and waits until it answers.
    pub async fn restart(&mut self) {
        self.restart_patiently(Duration::from_secs(10)).await;
    }

    /// Like [`Served::restart`], for a start that takes long.
    pub async fn restart_patiently(&mut self, patience: Duration) {
        self.launch();
        for _ in 0..patience.as_millis() / 50 {
            if client()
                .get(format!("http://{}/__ping__", self.address))
                .send()
                .await
                .is_ok_and(|answer| answer.status() == 200)
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it does not answer: {}", self.log());
    }

    fn launch(&mut self) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.data_dir.join("log"))
            .expect("a log");
        let program = env!("CARGO_BIN_EXE_valetkey");
        let mut command = match self.files {
            None => std::process::Command::new(program),
            Some(files) => {
                let mut shell = std::process::Command::new("sh");
                shell.args([
                    "-c",
                    &format!("ulimit -n {files}; exec \"$0\" serve"),
                    program,
                ]);
                shell
            }
        };
        let child = command
            .arg("serve")
            .envs(self.settings.iter().cloned())
            .stdout(std::process::Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the program starts");
        self.child = Some(child);
    }

    /// Serves at a portal's address; nobody else may be there any more.
    pub async fn serve(mut self, portal: &str) -> Self {
        self.address = portal
            .trim_start_matches("http://")
            .parse()
            .expect("an address");
        self.settings
            .push(("VALETKEY_LISTEN".to_owned(), self.address.to_string()));
        self.restart().await;
        self
    }

    /// Takes a portal's place.
    pub async fn serve_at(self, portal: &str, old: World) -> Self {
        old.stop().await;
        self.serve(portal).await
    }

    /// Works on this database from now on.
    pub fn use_database(&mut self, place: DatabaseUrl) {
        self.settings.extend(variable(&place));
        self.database = Some(place);
    }

    pub fn command(&self, arguments: &[&str]) -> std::process::Output {
        command(arguments, &self.settings)
    }

    /// Starts with these settings from the next start on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    /// From the next start on, it may have so many files open.
    pub fn limit_files(&mut self, files: u32) {
        self.files = Some(files);
    }

    /// Its settings with these, for a command.
    pub fn settings_with(&self, more: &[(&str, &str)]) -> Vec<(String, String)> {
        let more = more.iter();
        let more = more.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.settings.iter().cloned().chain(more).collect()
    }

    pub fn command_with(&mut self, arguments: &[&str], input: &str) -> std::process::Output {
        command_with(arguments, &self.settings, input)
    }

    /// Ends the program as power loss of the process does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Asks the program to end; its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let mut child = self.child.take()?;
        let asked = std::process::Command::new("kill")
            .arg(child.id().to_string())
            .status()
            .expect("kill");
        assert!(asked.success());
        child.wait().expect("its end").code()
    }

    /// See [`lock_database`].
    pub async fn lock_database(&self, time: Duration) -> tokio::task::JoinHandle<()> {
        lock_database(&self.data_dir, self.database.as_ref(), time).await
    }

    pub async fn exchange(&self, key: &str, token: &str) -> Answer {
        let form = [
            (
                "grant_type",
                "urn:ietf:params:oauth:grant-type:token-exchange",
            ),
            ("subject_token_type", "urn:posit:connect:user-session-token"),
            ("subject_token", token),
        ];
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        self.api(key, "POST", "v1/oauth/integrations/credentials", &body)
            .await
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.data_dir.join("log")).unwrap_or_default()
    }

    /// See [`query`].
    pub fn sql(&self, text: &str) -> Vec<String> {
        query(&self.data_dir, self.database.as_ref(), text)
    }

    /// All that the database holds, as bytes.
    pub fn dump(&self) -> Vec<u8> {
        let Some(DatabaseUrl::Postgresql(address)) = &self.database else {
            let files = ["valetkey.db", "valetkey.db-wal"]
                .map(|file| std::fs::read(self.data_dir.join(file)).unwrap_or_default());
            return files.concat();
        };
        std::process::Command::new("pg_dump")
            .arg(address.expose_secret())
            .output()
            .expect("pg_dump")
            .stdout
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a program that runs").id()
    }

    /// Makes an administrator on the command line; the API key.
    pub fn administrator(&self, name: &str) -> String {
        use std::io::Write as _;
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_valetkey"));
        command
            .args(["admin", "create", name, "--password-stdin", "--api-key"])
            .envs(self.settings.iter().cloned());
        let mut child = command
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("the program");
        writeln!(child.stdin.take().expect("its input"), "{PASSWORD}").expect("a password");
        let output = child.wait_with_output().expect("its output");
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub async fn api(&self, key: &str, method: &str, path: &str, body: &str) -> Answer {
        let key = format!("Key {key}");
        Browser::new(&self.url())
            .send(
                method,
                &format!("/__api__/{path}"),
                &[("authorization", &key)],
                Some(body.to_owned()),
            )
            .await
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.kill();
        drop(std::fs::remove_dir_all(&self.data_dir));
        self.database.iter().for_each(drop_database);
    }
}

/// Sends bytes as they are and reads what comes back, until the other side closes or `patience` is
/// over.
pub async fn raw(address: &str, bytes: &[u8], patience: Duration) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut socket = TcpStream::connect(address.trim_start_matches("http://"))
        .await
        .expect("a connection");
    let _ = socket.write_all(bytes).await;
    let mut answer = Vec::new();
    let mut buffer = [0; 8192];
    while let Ok(Ok(read)) = tokio::time::timeout(patience, socket.read(&mut buffer)).await {
        if read == 0 {
            break;
        }
        answer.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// An app, or a provider, of the test's own: gets each request's bytes, answers with bytes.
pub async fn serve_raw(answer: impl Fn(String) -> Vec<u8> + Send + Sync + 'static) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                let mut request = Vec::new();
                let mut buffer = vec![0; 65536];
                loop {
                    let read = socket.read(&mut buffer).await.unwrap_or(0);
                    request.extend_from_slice(&buffer[..read]);
                    let text = String::from_utf8_lossy(&request).into_owned();
                    let length = text
                        .to_ascii_lowercase()
                        .split("content-length: ")
                        .nth(1)
                        .and_then(|rest| rest.lines().next()?.trim().parse().ok());
                    let whole = text
                        .split_once("\r\n\r\n")
                        .is_some_and(|(_, body)| body.len() >= length.unwrap_or(0));
                    if read == 0 || whole {
                        break;
                    }
                }
                // It may sleep, as a slow one does.
                let said = tokio::task::block_in_place(|| {
                    answer(String::from_utf8_lossy(&request).into_owned())
                });
                let _ = socket.write_all(&said).await;
                let _ = socket.shutdown().await;
            });
        }
    });
    address
}

/// The name of an item's session cookie: see `http::sessions`.
pub fn content_cookie(guid: &str) -> String {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let guid = uuid::Uuid::parse_str(guid).expect("a guid");
    format!(
        "valetkey-s{}",
        URL_SAFE_NO_PAD.encode(&guid.as_bytes()[10..])
    )
}

/// The address of an app that answers `ok`, and the last request that it got.
pub async fn keeps_last_request() -> (String, Arc<Mutex<String>>) {
    let seen: Arc<Mutex<String>> = Arc::default();
    let keep = Arc::clone(&seen);
    let address = serve_raw(move |request| {
        *keep.lock().expect("a request") = request;
        http_answer(200, "", "ok")
    })
    .await;
    (address, seen)
}

/// A connection from this address of the machine.
pub async fn connect_from(from: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    let from = format!("{from}:0").parse().expect("an address");
    socket.bind(from).expect("an address of this machine");
    socket.connect(to).await.expect("a connection")
}

/// An answer in HTTP/1.1 that ends its connection.
pub fn http_answer(status: u16, headers: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n{body}",
        body.len()
    )
    .into_bytes()
}
