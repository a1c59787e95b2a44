//! All that a request may need, built once from the settings; bind, serve, stop gracefully.

use crate::{
    config::Settings,
    domain::{Timestamp, time::Clock, wall::ContentOrigin},
    jobs,
    proxy::Upstreams,
    service::{Parts, Service, keyring as keys},
    store::{self, Store},
    vault::Vault,
    web::{problems, routes, sessions::Sessions, visitor},
};
use actix_session::{
    SessionMiddleware,
    config::{BrowserSession, CookieContentSecurity},
};
use actix_web::{
    App as Actix, HttpServer,
    cookie::{Key, SameSite, time::Duration},
    dev::ServerHandle,
    middleware::from_fn,
    web,
};
use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

/// The clock on the wall.
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// A server that is bound and not yet serving.
pub struct App {
    pub service: Arc<Service>,
    listener: TcpListener,
}

/// Opens data directory, keyring and database, for the server and for commands.
pub async fn open(settings: Settings, clock: Arc<dyn Clock>) -> Result<Arc<Service>, String> {
    make_private_folder(&settings.data_dir)?;
    // A database without its keyring is never given a new one: what it holds could not be opened.
    let fresh = store::is_new(&settings.database).map_err(|error| error.to_string())?;
    let vault = Vault::open_ring(settings.keyring.clone(), fresh).map_err(|error| error.to_string())?;
    let store = Store::open(&settings.database).map_err(|error| error.to_string())?;
    let root = keys::check(&store, &vault).await?;
    Service::new(Parts { settings, store, vault, root, clock }).map(Arc::new)
}

/// Makes the folder if need be, for its owner only; one that is there stays as the operator made it.
pub fn make_private_folder(path: &std::path::Path) -> Result<(), String> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|error| format!("cannot create {}: {error}", path.display()))
}

impl App {
    pub fn new(service: Arc<Service>, listener: TcpListener) -> Self {
        Self { service, listener }
    }

    /// Binds to the configured address.
    pub fn bind(settings: &Settings) -> Result<TcpListener, String> {
        TcpListener::bind(settings.listen).map_err(|error| format!("cannot listen on {}: {error}", settings.listen))
    }

    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// Serves until the handle stops it; then lets requests and refreshes finish, for thirty seconds at most.
    pub async fn serve(self, started: impl FnOnce(ServerHandle)) -> Result<(), String> {
        let service = self.service;
        service.claim_node()?;
        service.drain_spool().await?;
        service.say_alive().await.map_err(|error| error.to_string())?;
        let data = web::Data::from(Arc::clone(&service));
        let key = cookie_key(&service);
        let sessions = Sessions::new(Arc::clone(&service), key.clone());
        let secure = service.settings.is_https();
        let lifetime = Duration::seconds(i64::try_from(service.settings.session_lifetime.as_secs()).unwrap_or(i64::MAX));
        match service.settings.wall.content {
            ContentOrigin::Unset => tracing::warn!("content is not served: content_url is not set"),
            ContentOrigin::Same => tracing::warn!("content runs on the portal's own origin: items can reach one another as the viewer"),
            ContentOrigin::Shared { .. } | ContentOrigin::Wildcard { .. } => {}
        }
        let workers = service.settings.workers;
        let server = HttpServer::new(move || {
            let session = SessionMiddleware::builder(sessions.clone(), key.clone())
                .cookie_name(Sessions::cookie_name(secure).to_owned())
                .cookie_secure(secure)
                .cookie_http_only(true)
                .cookie_same_site(SameSite::Lax)
                .cookie_path("/".to_owned())
                .cookie_content_security(CookieContentSecurity::Signed)
                .session_lifecycle(BrowserSession::default().state_ttl(lifetime))
                .build();
            Actix::new()
                .app_data(data.clone())
                .app_data(web::Data::new(Upstreams::new(data.addresses.base())))
                .app_data(web::Data::new(sessions.clone()))
                .configure(|config| routes::hot(config, &data.settings.wall))
                .configure(routes::open)
                .service(web::scope("/__api__").configure(routes::programs))
                .service(web::scope("").configure(routes::pages).wrap(session).wrap(from_fn(visitor::windows_only)))
                .wrap(from_fn(problems::finish))
        })
        .workers(workers)
        .shutdown_timeout(30)
        .disable_signals()
        .listen(self.listener)
        .map_err(|error| error.to_string())?
        .run();
        started(server.handle());
        let jobs = jobs::start(&service);
        let result = server.await.map_err(|error| error.to_string());
        jobs.abort();
        service.tasks.close();
        // Above all a refresh: its answer may carry the only valid token.
        if tokio::time::timeout(std::time::Duration::from_secs(30), service.tasks.wait()).await.is_err() {
            tracing::warn!("stopped while a provider had not answered yet");
        }
        service.flush_uses().await;
        service.say_goodbye().await;
        result
    }
}

fn cookie_key(service: &Service) -> Key {
    let halves = ["cookie-signing-1", "cookie-signing-2"].map(|purpose| service.root.derive(purpose));
    Key::from(&[halves[0].as_slice(), halves[1].as_slice()].concat())
}
