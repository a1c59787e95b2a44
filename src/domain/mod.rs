//! The domain model: value types and pure functions.
//!
//! It does no I/O: no async, no database, no HTTP. It depends on no other module of the crate, and
//! every other module may depend on it.

pub mod access;
pub mod activity;
pub mod addresses;
pub mod api_key;
pub mod attempt;
pub mod audit;
pub mod bundle;
pub mod change;
pub mod check;
pub mod connection;
pub mod consent;
pub mod content;
pub mod egress;
pub mod ending;
pub mod form;
pub mod group;
pub mod ids;
pub mod integration;
pub mod leak;
pub mod notice;
pub mod origins;
pub mod person;
pub mod return_path;
pub mod revocation;
pub mod running;
pub mod time;

pub use ids::Id;
pub use time::Timestamp;
