//! Integrations, for administrators: `/integrations` and below. List, choice of a template, form,
//! detail page with the list of people who may choose the integration, and the pages that
//! disconnect or delete.
//!
//! The forms are drawn from the provider's template (`providers::Template`); the Azure template
//! gets its own wording and a choice of clouds. Secrets can be replaced and are never shown.

pub mod activity;
pub mod availability;
pub mod check;
pub mod choose;
pub mod connected;
pub mod delete;
pub mod disconnect;
pub mod edit;
pub mod form;
mod kept_secret;
pub mod list;
pub mod new;
pub mod pause;
pub mod secret;
pub mod show;
mod tabs;
