//! The proxy's state in one worker.

use crate::{
    http::{open_counts::OpenCounts, sessions::Sessions},
    proxy::{sockets::Sockets, upstream::Upstreams},
    service::Services,
};
use actix_web::web;
use std::sync::Arc;

/// The proxy's state in one worker. `upstreams` belongs to the worker, the rest is shared.
pub struct Proxy {
    /// Access decisions, session tokens, settings.
    pub service: web::Data<Services>,
    /// Reads the cookies of the portal and of content.
    pub sessions: web::Data<Sessions>,
    /// Resolved upstream addresses and their connection pools.
    pub upstreams: Upstreams,
    /// Open WebSockets and event streams.
    pub sockets: Arc<Sockets>,
    /// What each network has open at apps.
    pub open: Arc<OpenCounts>,
}
