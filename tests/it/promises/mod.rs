//! The promises of the design: one black-box attack on a running server for each, named by its
//! number.
//!
//! What takes storms, crashes and several processes is in `tests/faults`.

mod browser;
mod content;
mod edges;
mod hardening;
mod identity;
mod isolation;
mod neighbours;
mod oauth;
mod record;
mod refresh;
mod reliability;
mod secrets;
