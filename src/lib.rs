//! Valetkey: a portal that proxies data apps and lets each app exchange its viewer's session token
//! for that viewer's OAuth access token at a third-party service.
//! `src/README.md` maps the modules.

pub mod archive;
pub mod cli;
pub mod config;
pub mod demo;
pub mod disk;
pub mod dns;
pub mod domain;
pub mod faults;
pub mod http;
pub mod jobs;
pub mod measures;
pub mod oauth;
pub mod providers;
pub mod proxy;
#[cfg(target_os = "linux")]
pub mod runner;
pub mod server;
pub mod service;
pub mod store;
pub mod telemetry;
pub mod traces;
pub mod trust;
pub mod vault;
pub mod version;
pub mod web;
