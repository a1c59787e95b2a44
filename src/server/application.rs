//! The actix application of each worker: middleware, browser sessions and routes. The routes
//! themselves are listed in `web::routes`.

use crate::{
    domain::origins::ContentOrigin,
    http::{open_counts::OpenCounts, sessions::Sessions},
    proxy::{self, sockets::Sockets, state::Proxy, upstream::Upstreams},
    service::Services,
    web::{error_pages, routes, visitor},
};
use actix_session::{
    SessionMiddleware,
    config::{BrowserSession, CookieContentSecurity},
};
use actix_web::{
    App,
    body::BoxBody,
    cookie::{Key, SameSite, time::Duration},
    dev::{ServiceFactory, ServiceRequest, ServiceResponse},
    middleware::from_fn,
    web,
};
use std::sync::Arc;

use super::{connection::ConnectionCounts, tls::Certificate};

/// What all workers share.
pub struct Shared {
    pub services: Arc<Services>,
    sessions: Sessions,
    key: Key,
    /// Open WebSockets and event streams.
    pub sockets: Arc<Sockets>,
    /// What each network has open at apps.
    open: Arc<OpenCounts>,
    /// The connections of each network, and its TLS handshakes under way.
    pub connections: Arc<ConnectionCounts>,
    /// For TLS at the listener.
    pub certificate: Option<Arc<Certificate>>,
    /// For TLS to apps without certificates of their own.
    app_tls: Arc<rustls::ClientConfig>,
}

impl Shared {
    /// The error is a message for the operator: a certificate that cannot be read.
    pub fn new(services: &Arc<Services>) -> Result<Self, String> {
        let settings = &services.core.settings;
        match settings.origins.content {
            ContentOrigin::Unset => tracing::warn!("content is not served: content_url is not set"),
            ContentOrigin::Same => tracing::warn!(
                "content runs on the portal's own origin: items can reach one another as the viewer"
            ),
            ContentOrigin::Shared { .. } | ContentOrigin::Wildcard { .. } => {}
        }
        let certificate = match &settings.tls {
            Some((certificate, key)) => Some(Certificate::open(certificate, key)?),
            None => None,
        };
        let key = cookie_key(services);
        Ok(Self {
            services: Arc::clone(services),
            sessions: Sessions::new(Arc::clone(services), key.clone()),
            key,
            sockets: Arc::default(),
            open: Arc::default(),
            connections: Arc::new(ConnectionCounts::new(Arc::clone(services))),
            certificate,
            app_tls: Arc::new(settings.trust.client_config()),
        })
    }

    /// The proxy of one worker: its connection pools are not `Send`. Must be called in the worker.
    pub fn proxy(&self) -> web::Data<Proxy> {
        let services = web::Data::from(Arc::clone(&self.services));
        web::Data::new(Proxy {
            upstreams: Upstreams::new(
                services.core.addresses.base(),
                services.bundles.files().clone(),
                Arc::clone(&self.app_tls),
            ),
            service: services,
            sessions: web::Data::new(self.sessions.clone()),
            sockets: Arc::clone(&self.sockets),
            open: Arc::clone(&self.open),
        })
    }

    /// The application of one worker.
    pub fn application(
        &self,
        proxy: &web::Data<Proxy>,
    ) -> App<
        impl ServiceFactory<
            ServiceRequest,
            Config = (),
            Response = ServiceResponse<BoxBody>,
            Error = actix_web::Error,
            InitError = (),
        > + use<>,
    > {
        let settings = &self.services.core.settings;
        let (secure, lifetime) = (settings.is_https(), settings.session_lifetime.as_secs());
        let lifetime = Duration::seconds(i64::try_from(lifetime).unwrap_or(i64::MAX));
        let session = SessionMiddleware::builder(self.sessions.clone(), self.key.clone())
            .cookie_name(Sessions::cookie_name(secure).to_owned())
            .cookie_secure(secure)
            .cookie_http_only(true)
            .cookie_same_site(SameSite::Lax)
            .cookie_path("/".to_owned())
            .cookie_content_security(CookieContentSecurity::Signed)
            .session_lifecycle(BrowserSession::default().state_ttl(lifetime))
            .build();
        App::new()
            .app_data(proxy.service.clone())
            .app_data(proxy.clone())
            .app_data(proxy.sessions.clone())
            .configure(|config| {
                routes::hot(config, &settings.origins, web::route().to(proxy::serve));
            })
            .configure(routes::open)
            .service(web::scope("/__api__").configure(routes::programs))
            .service(
                web::scope("")
                    .configure(routes::pages)
                    .wrap(session)
                    .wrap(from_fn(visitor::navigations_only))
                    .wrap(from_fn(visitor::readable_cookies)),
            )
            .wrap(from_fn(error_pages::finish_response))
    }
}

/// The key of the session cookie, derived from the database's root secret: rotating the keyring
/// signs nobody out.
fn cookie_key(service: &Services) -> Key {
    let halves = ["cookie-signing-1", "cookie-signing-2"]
        .map(|purpose| service.core.session_root.derive(purpose));
    Key::from(&[halves[0].as_slice(), halves[1].as_slice()].concat())
}
