//! Assembles the server from the settings: binds the listener, serves, and stops gracefully.
//!
//! It is built from actix's parts instead of by `HttpServer`, which does not expose the `upgrade`
//! hook. Through that hook a WebSocket gets the bare TCP or TLS connection and costs only a few
//! kilobytes while it is idle. HTTP/2 is served by [`http2`] instead of by actix's dispatcher.
//! This module has the one place that reads the system clock; all other code gets a [`Clock`].

use crate::{
    config::Settings,
    domain::{Timestamp, origins::ContentOrigin, time::Clock},
    front::{
        BrowserConnection, HEAD_TIMEOUT, KEEP_ALIVE, Protocol, TlsGreeter, http2, tls::Certificate,
    },
    http::sessions::Sessions,
    jobs,
    proxy::{Proxy, Upstreams, processes::Processes, sockets::Sockets, websocket},
    service::{Parts, Services, cluster::keyring as keys},
    store::{self, Store},
    vault::Vault,
    web::{error_pages, routes, visitor},
};
use actix_http::HttpService;
use actix_server::Server;
use actix_service::{
    IntoServiceFactory as _, Service as _, ServiceFactory as _, ServiceFactoryExt as _, fn_factory,
    fn_service, map_config,
};
use actix_session::{
    SessionMiddleware,
    config::{BrowserSession, CookieContentSecurity},
};
use actix_web::{
    App as Actix,
    cookie::{Key, SameSite, time::Duration},
    dev::{AppConfig, ServerHandle},
    http::header::HeaderValue,
    middleware::from_fn,
    web,
};
use std::{
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::{Arc, OnceLock},
};
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

/// Deadline of a graceful stop; requests and token refreshes share it.
const STOP_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);
/// How long actix waits for an HTTP/1.1 connection to shut down.
const DISCONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(1);

/// The system's wall clock.
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the clock"
    )]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// The current value of the `Date` header (RFC 9110 section 6.6.1).
fn http_date() -> HeaderValue {
    let since =
        std::time::Duration::from_millis(u64::try_from(SystemClock.now().0).unwrap_or_default());
    let text = httpdate::fmt_http_date(std::time::UNIX_EPOCH + since);
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"))
}

/// A server whose listener is bound and which does not serve yet.
pub struct App {
    /// Shared by all workers and jobs.
    pub service: Arc<Services>,
    listener: TcpListener,
}

/// Opens the data directory, keyring and database, for the server and for commands. The error is a
/// message for the operator.
pub async fn open(settings: Settings, clock: Arc<dyn Clock>) -> Result<Arc<Services>, String> {
    make_private_folder(&settings.data_dir)?;
    // A new keyring is created only together with a new database: no new key could open the
    // secrets that an existing database holds.
    let fresh = store::is_new(&settings.database).map_err(|error| error.to_string())?;
    let vault =
        Vault::open_ring(settings.keyring.clone(), fresh).map_err(|error| error.to_string())?;
    let store = Store::open(&settings.database).map_err(|error| error.to_string())?;
    let root = keys::check(&store, &vault).await?;
    Services::new(Parts {
        settings,
        store,
        vault,
        root,
        clock,
    })
    .map(Arc::new)
}

/// Creates the folder and its parents with mode 0700 if they do not exist; the mode of an existing
/// folder is left alone.
pub fn make_private_folder(path: &std::path::Path) -> Result<(), String> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
        .create(path)
        .map_err(|error| format!("cannot create {}: {error}", path.display()))
}

impl App {
    /// Combines a service with a listener that is already bound.
    pub fn new(service: Arc<Services>, listener: TcpListener) -> Self {
        Self { service, listener }
    }

    /// Binds to the configured address.
    pub fn bind(settings: &Settings) -> Result<TcpListener, String> {
        TcpListener::bind(settings.listen)
            .map_err(|error| format!("cannot listen on {}: {error}", settings.listen))
    }

    /// The bound address; with port 0 in the settings, it has the real port.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// Serves until the handle given to `started` stops the server, then waits up to 30 s for
    /// requests and refreshes to finish. The error is a message for the operator.
    pub async fn serve(self, started: impl FnOnce(ServerHandle)) -> Result<(), String> {
        let service = self.service;
        service.nodes.claim_node()?;
        service.broker.drain_spool().await?;
        service
            .nodes
            .write_heartbeat()
            .await
            .map_err(|error| error.to_string())?;
        let data = web::Data::from(Arc::clone(&service));
        let key = cookie_key(&service);
        let sessions = Sessions::new(Arc::clone(&service), key.clone());
        let secure = service.core.settings.is_https();
        let lifetime = Duration::seconds(
            i64::try_from(service.core.settings.session_lifetime.as_secs()).unwrap_or(i64::MAX),
        );
        match service.core.settings.origins.content {
            ContentOrigin::Unset => tracing::warn!("content is not served: content_url is not set"),
            ContentOrigin::Same => tracing::warn!(
                "content runs on the portal's own origin: items can reach one another as the viewer"
            ),
            ContentOrigin::Shared { .. } | ContentOrigin::Wildcard { .. } => {}
        }
        let certificate = match &service.core.settings.tls {
            Some((certificate, key)) => Some(Certificate::open(certificate, key)?),
            None => None,
        };
        let (processes, sockets) = (Arc::new(Processes::default()), Arc::new(Sockets::default()));
        let builder = Server::build()
            .workers(service.core.settings.workers)
            .shutdown_timeout(STOP_TIMEOUT.as_secs())
            .disable_signals();
        let stopping = builder.graceful_shutdown_signal();
        let address = self
            .listener
            .local_addr()
            .map_err(|error| error.to_string())?;
        let worker = {
            let (processes, sockets, data) =
                (Arc::clone(&processes), Arc::clone(&sockets), data.clone());
            // Built once per worker: its connection pools are not `Send`.
            move || {
                web::Data::new(Proxy {
                    service: data.clone(),
                    sessions: web::Data::new(sessions.clone()),
                    upstreams: Upstreams::new(data.core.addresses.base()),
                    processes: Arc::clone(&processes),
                    sockets: Arc::clone(&sockets),
                })
            }
        };
        let pages = move |proxy: &web::Data<Proxy>| {
            let (data, sessions) = (&proxy.service, &proxy.sessions);
            let session = SessionMiddleware::builder(sessions.get_ref().clone(), key.clone())
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
                .app_data(proxy.clone())
                .app_data(sessions.clone())
                .configure(|config| routes::hot(config, &data.core.settings.origins))
                .configure(routes::open)
                .service(web::scope("/__api__").configure(routes::programs))
                .service(
                    web::scope("")
                        .configure(routes::pages)
                        .wrap(session)
                        .wrap(from_fn(visitor::navigations_only)),
                )
                .wrap(from_fn(error_pages::finish_response))
        };
        // The same as actix-web's `HttpServer`, except for WebSockets, which get the bare
        // connection, and for HTTP/2.
        let (stop, tls) = (
            stopping.clone(),
            certificate.as_ref().map(Certificate::acceptor),
        );
        let server = builder.listen("portal", self.listener, move || {
            let (stop, tls, proxy) = (
                stop.clone(),
                tls.clone().map(|tls| Rc::new(TlsGreeter::new(tls))),
                worker(),
            );
            let app = || {
                map_config(
                    pages(&proxy)
                        .into_factory()
                        .map_err(|error: actix_web::Error| error.error_response()),
                    |()| AppConfig::default(),
                )
            };
            let upgraded = proxy.clone();
            let stopped = stop.clone();
            let http1 = HttpService::build()
                .graceful_shutdown_signal(move || {
                    let stop = stopped.clone();
                    async move { stop.notified().await }
                })
                .keep_alive(KEEP_ALIVE)
                .client_request_timeout(HEAD_TIMEOUT)
                .client_disconnect_timeout(DISCONNECT_TIMEOUT)
                .local_addr(address)
                .upgrade(move |(request, framed)| {
                    websocket::upgrade(request, framed, upgraded.clone())
                })
                .h1(app());
            let http2 = tls.is_some().then(app);
            fn_factory(move || {
                let (http1, http2) = (
                    http1.new_service(()),
                    http2.as_ref().map(|app| app.new_service(())),
                );
                let (stop, tls) = (stop.clone(), tls.clone());
                async move {
                    let http1 = Rc::new(http1.await?);
                    let http2 = match http2 {
                        Some(app) => Some(Rc::new(app.await?)),
                        None => None,
                    };
                    Ok::<_, ()>(fn_service(move |tcp: TcpStream| {
                        let (http1, http2, tls, stop) =
                            (Rc::clone(&http1), http2.clone(), tls.clone(), stop.clone());
                        async move {
                            match (BrowserConnection::accept(tcp, tls.as_deref()).await, http2) {
                                (Some((browser, Protocol::Http2, peer)), Some(app)) => {
                                    // Boxed, so that the future of an HTTP/1.1 connection is not
                                    // as large.
                                    Box::pin(http2::serve(
                                        browser,
                                        peer,
                                        app,
                                        stop.notified(),
                                        http_date,
                                    ))
                                    .await;
                                }
                                (Some((browser, _, peer)), _) => {
                                    drop(http1.call((browser, peer)).await)
                                }
                                (None, _) => {}
                            }
                            Ok::<_, ()>(())
                        }
                    }))
                }
            })
        });
        let server = server.map_err(|error| error.to_string())?.run();
        let stopped_at = Arc::new(OnceLock::new());
        let stopping_since = Arc::clone(&stopped_at);
        let mut beside = vec![
            tokio::spawn(Arc::clone(&processes).watch(Arc::clone(&service))),
            tokio::spawn(Arc::clone(&sockets).watch(Arc::clone(&service))),
            tokio::spawn(async move {
                stopping.notified().await;
                let _ = stopping_since.set(std::time::Instant::now());
                // Clients reconnect, to a node that keeps running.
                sockets.close_all();
            }),
        ];
        beside.extend(certificate.map(|certificate| tokio::spawn(certificate.watch())));
        let beside: Vec<_> = beside.into_iter().map(AbortOnDropHandle::new).collect();
        started(server.handle());
        let jobs = jobs::start(&service);
        let result = server.await.map_err(|error| error.to_string());
        jobs.abort();
        drop(beside);
        service.core.tasks.close();
        // Refreshes matter most: the provider's response may carry the only valid token.
        let left = STOP_TIMEOUT.saturating_sub(
            stopped_at
                .get()
                .map_or_else(Default::default, std::time::Instant::elapsed),
        );
        if tokio::time::timeout(left, service.core.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("stopped while a provider had not answered yet");
        }
        if service.presence.share_presence().await.is_err() {
            tracing::warn!("could not write down who was where at the end");
        }
        service.usage.flush_uses().await;
        service.nodes.delete_heartbeat().await;
        result
    }
}

/// The key of the session cookie, derived from the database's root secret: rotating the keyring
/// signs nobody out.
fn cookie_key(service: &Services) -> Key {
    let halves =
        ["cookie-signing-1", "cookie-signing-2"].map(|purpose| service.core.root.derive(purpose));
    Key::from(&[halves[0].as_slice(), halves[1].as_slice()].concat())
}
