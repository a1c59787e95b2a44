//! Content items: `/content` (list), `/content/new`, and `/content-settings/{guid}` with everything
//! below it (settings, integration, processes, access list, content key, consents, leak warnings).
//! Below `/content/{guid}/` everything belongs to the app.

pub mod activity;
pub mod bulk;
mod checklist;
pub mod consents;
pub mod delete;
pub mod form;
mod health;
pub mod integration;
pub mod key;
pub mod leaks;
pub mod list;
pub mod logs;
pub mod new;
pub mod people;
pub mod processes;
pub mod runs;
pub mod settings;
mod tabs;
pub mod upload;
