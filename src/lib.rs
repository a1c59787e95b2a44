//! Valetkey: hosted data apps act at outside services as the person looking at them.
//! `src/README.md` is the map.

pub mod app;
pub mod cli;
pub mod config;
pub mod demo;
pub mod domain;
pub mod faults;
pub mod front;
pub mod jobs;
pub mod oauth;
pub mod providers;
pub mod proxy;
pub mod service;
pub mod store;
pub mod telemetry;
pub mod vault;
pub mod web;
