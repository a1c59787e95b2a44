//! Black-box tests against the portal on a real port, with the demo's identity provider, workspace
//! and app beside it.

mod api;
mod audit;
mod callback;
mod conformance;
mod exchange;
mod forms;
mod harness;
mod health;
mod http2;
mod lifecycle;
mod notices;
mod operation;
mod organisation;
mod origins;
mod policy;
mod promises;
mod properties;
mod providers;
mod proxy;
mod proxy_limits;
mod retention;
mod stage;
mod structure;
