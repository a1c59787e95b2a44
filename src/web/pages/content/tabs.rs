//! The pages of one item.

use crate::{
    domain::{Id, addresses, content::Content},
    web::view::{Tab, tabs},
};

/// Path of the page of consents, below the item's settings.
pub(super) const CONSENTS: &str = "/consents";
/// Path of the page of what happened.
pub(super) const ACTIVITY: &str = "/activity";

/// Path of the page of what runs here.
pub(super) const RUNS: &str = "/runs";
/// Path of the page of output.
pub(super) const LOGS: &str = "/logs";

/// The tabs of an item; `current` is a path below its settings.
pub(super) fn content_tabs(id: Id<Content>, current: &str) -> Vec<Tab> {
    let pages = [
        ("", "Settings"),
        (CONSENTS, "Consents"),
        (ACTIVITY, "Activity"),
        (RUNS, "Runs"),
        (LOGS, "Logs"),
    ];
    tabs(&addresses::content_settings(id), &pages, current)
}
