//! A person's own pages: `/account` (password, browser sessions, theme, confirmation),
//! `/account/keys` (API keys) and `/account/shown/{name}` (a secret, shown once).

pub mod confirm;
pub mod keys;
pub mod overview;
pub mod secret;
pub mod theme;
