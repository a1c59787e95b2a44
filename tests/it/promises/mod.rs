//! The promises of the design: one black-box attack on a running server for each, named by its number.
//!
//! 23, 24, 28 and 36–40 are about reliability and not here yet.

mod browser;
mod content;
mod edges;
mod identity;
mod oauth;
mod record;
mod secrets;
