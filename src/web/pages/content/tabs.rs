//! The pages of one item.

use crate::{
    domain::{Id, addresses, content::Content},
    web::view::{Tab, tabs},
};

/// Path of the page of consents, below the item's settings.
pub(super) const CONSENTS: &str = "/consents";
/// Path of the page of what happened.
pub(super) const ACTIVITY: &str = "/activity";

/// The tabs of an item; `current` is a path below its settings.
pub(super) fn content_tabs(id: Id<Content>, current: &str) -> Vec<Tab> {
    let pages = [
        ("", "Settings"),
        (CONSENTS, "Consents"),
        (ACTIVITY, "Activity"),
    ];
    tabs(&addresses::content_settings(id), &pages, current)
}
