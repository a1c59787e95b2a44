//! `GET /metrics` on a listener of its own (the setting `metrics_listen`): what [`crate::measures`]
//! counts, in the form of Prometheus. Without sign-in: it belongs on a network of the operator's.

use super::application::Shared;
use crate::{
    domain::Timestamp,
    measures::{self, Levels},
    service::cluster::health::Health,
    version::COMMIT,
};
use actix_web::{App, HttpResponse, HttpServer, web};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// Upper bounds of the steps in which times are counted, in seconds.
const STEPS: [f64; 12] = [
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0,
];
/// A gauge that is not set for so long is told no more: its integration was deleted.
const GAUGE_LIFE: Duration = Duration::from_secs(60);
/// How often the recorder tidies up.
const UPKEEP: Duration = Duration::from_secs(5);

struct Exporter {
    handle: PrometheusHandle,
    shared: Arc<Shared>,
}

/// Starts to record, and listens. Aborting the task ends it. The error is a message for the operator.
pub fn start(
    shared: &Arc<Shared>,
    address: SocketAddr,
) -> Result<tokio::task::JoinHandle<()>, String> {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &STEPS)
        .map_err(|error| error.to_string())?
        .idle_timeout(MetricKindMask::GAUGE, Some(GAUGE_LIFE))
        .build_recorder();
    let handle = recorder.handle();
    // One process has one recorder; a second server in it (tests) records nothing of its own.
    if metrics::set_global_recorder(recorder).is_ok() {
        measures::describe();
    }
    let exporter = web::Data::new(Exporter {
        handle: handle.clone(),
        shared: Arc::clone(shared),
    });
    let server = HttpServer::new(move || {
        App::new()
            .app_data(exporter.clone())
            .route("/metrics", web::get().to(answer))
    })
    .workers(1)
    .disable_signals()
    .bind(address)
    .map_err(|error| format!("cannot listen on {address} for metrics: {error}"))?
    .run();
    Ok(tokio::spawn(async move {
        let upkeep = async {
            loop {
                tokio::time::sleep(UPKEEP).await;
                handle.run_upkeep();
            }
        };
        tokio::select! {
            ended = server => if let Err(error) = ended {
                tracing::error!(%error, "the listener for metrics ended");
            },
            () = upkeep => {}
        }
    }))
}

async fn answer(exporter: web::Data<Exporter>) -> HttpResponse {
    let services = &exporter.shared.services;
    let spool = services
        .nodes
        .spool()
        .and_then(|spool| spool.entries().ok());
    let report = services.health.report().await;
    let now = services.core.now();
    let backed_up = services.core.backed_up_at().await.ok().flatten();
    measures::build(COMMIT);
    measures::levels(&Levels {
        refreshes: services.broker.in_flight(),
        password_checks: services.passwords.being_checked(),
        disk_free: services.health.disk_free(),
        backup_age: backed_up.map(|at| now.since(at)),
        audit_is_whole: services.audit.is_whole(),
        spool: spool.map_or(0, |entries| entries.len()),
        held_tokens: services.session_tokens.held(),
        sockets: exporter.shared.sockets.count(),
        processes: services.runs.count(),
        is_ready: Health::is_ready(&report),
    });
    if let Ok(ends) = services.integrations.secret_ends().await {
        for (integration, end) in ends {
            let is_paused = services.backoff.pause_of_provider(integration).is_some();
            measures::provider_paused(&integration, is_paused);
            measures::integration(&integration);
            if let Some(end) = end {
                let left = |end: Timestamp| end.unix_seconds() - now.unix_seconds();
                let left = i32::try_from(left(end)).unwrap_or(i32::MAX);
                measures::secret_expiry(&integration, f64::from(left));
            }
        }
    }
    HttpResponse::Ok()
        .content_type("text/plain; version=0.0.4; charset=utf-8")
        .body(exporter.handle.render())
}
