//! Accepts connections: TCP or TLS, then HTTP/1.1 (spoken by actix), HTTP/2 ([`http2`]), or a
//! WebSocket.
//!
//! The server is built from actix's parts instead of by `HttpServer`, which does not expose the
//! `upgrade` hook. Through that hook a WebSocket gets the bare TCP or TLS connection and costs only
//! a few kilobytes while it is idle.

use super::{
    application::Shared,
    clock::http_date,
    connection::{BrowserConnection, HEAD_TIMEOUT, Protocol, TlsGreeter},
    http2,
    requests::{KEEP_ALIVE, Requests, counted},
    stop::STOP_TIMEOUT,
    tls::Certificate,
};
use crate::proxy::websocket;
use actix_http::{HttpService, Request};
use actix_server::{GracefulShutdownSignal, Server};
use actix_service::{
    IntoServiceFactory as _, Service as _, ServiceFactory as _, ServiceFactoryExt as _, fn_factory,
    fn_service, map_config,
};
use actix_web::dev::AppConfig;
use std::{net::TcpListener, rc::Rc, sync::Arc, time::Duration};
use tokio::net::TcpStream;

/// How long actix waits for an HTTP/1.1 connection to shut down.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Starts the workers on a bound listener. Also returns the signal of a graceful stop.
pub fn listen(
    listener: TcpListener,
    shared: &Arc<Shared>,
) -> Result<(Server, GracefulShutdownSignal), String> {
    let builder = Server::build()
        .workers(shared.services.core.settings.workers)
        .shutdown_timeout(STOP_TIMEOUT.as_secs())
        // actix would stop accepting, for everybody. `ConnectionCounts` refuses those that are too many.
        .max_concurrent_connections(usize::MAX)
        .disable_signals();
    let stopping = builder.graceful_shutdown_signal();
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let (stop, shared) = (stopping.clone(), Arc::clone(shared));
    let tls = shared.certificate.as_ref().map(Certificate::acceptor);
    // The same as actix-web's `HttpServer`, except for WebSockets, which get the bare connection,
    // and for HTTP/2.
    let server = builder.listen("portal", listener, move || {
        let (stop, tls, proxy) = (
            stop.clone(),
            tls.clone().map(|tls| Rc::new(TlsGreeter::new(tls))),
            shared.proxy(),
        );
        let app = || {
            map_config(
                shared
                    .application(&proxy)
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
            .on_connect_ext(|browser: &BrowserConnection, data| {
                if let Some(requests) = browser.requests() {
                    data.insert(Rc::clone(requests));
                }
            })
            .upgrade(move |(request, framed): (Request, _)| {
                if let Some(requests) = request.conn_data::<Rc<Requests>>() {
                    requests.upgraded();
                }
                websocket::upgrade(request, framed, upgraded.clone())
            })
            .h1(counted(app()));
        let http2 = tls.is_some().then(app);
        let counts = Arc::clone(&shared.connections);
        fn_factory(move || {
            let (http1, http2) = (
                http1.new_service(()),
                http2.as_ref().map(|app| app.new_service(())),
            );
            let (stop, tls, counts) = (stop.clone(), tls.clone(), Arc::clone(&counts));
            async move {
                let http1 = Rc::new(http1.await?);
                let http2 = match http2 {
                    Some(app) => Some(Rc::new(app.await?)),
                    None => None,
                };
                Ok::<_, ()>(fn_service(move |tcp: TcpStream| {
                    let (http1, http2, tls, stop) =
                        (Rc::clone(&http1), http2.clone(), tls.clone(), stop.clone());
                    let counts = Arc::clone(&counts);
                    async move {
                        match (
                            BrowserConnection::accept(tcp, tls.as_deref(), &counts).await,
                            http2,
                        ) {
                            (Some((browser, Protocol::Http2, peer)), Some(app)) => {
                                // Boxed, so that the future of an HTTP/1.1 connection is not as
                                // large.
                                let stopped = stop.notified();
                                Box::pin(http2::serve(browser, peer, app, stopped, http_date))
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
    Ok((server.map_err(|error| error.to_string())?.run(), stopping))
}
