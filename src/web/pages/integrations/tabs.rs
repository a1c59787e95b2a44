//! The pages of one integration.

use crate::{
    domain::{Id, addresses, integration::Integration},
    web::view::{Tab, tabs},
};

/// Path of the page of connected people, below the integration's.
pub(super) const CONNECTED: &str = "/connected";
/// Path of the page of what happened.
pub(super) const ACTIVITY: &str = "/activity";

/// The tabs of an integration; `current` is a path below its page.
pub(super) fn integration_tabs(id: Id<Integration>, current: &str) -> Vec<Tab> {
    let pages = [
        ("", "Overview"),
        (CONNECTED, "Connected people"),
        (ACTIVITY, "Activity"),
    ];
    tabs(&addresses::integration(id), &pages, current)
}
