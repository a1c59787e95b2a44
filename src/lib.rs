//! Valetkey: hosted data apps act at outside services as the person looking at them. `src/README.md` is the map.

pub mod config;
pub mod domain;
pub mod oauth;
pub mod providers;
pub mod service;
pub mod store;
pub mod vault;
