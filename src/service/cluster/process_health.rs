//! The upstream processes of content items: their health as this node sees it, and the choice of a
//! process for a viewer (sticky sessions).
//!
//! Knows nothing of how a check is made: `proxy::health_checks` makes them.
//!
//! The choice is a rendezvous hash plus a cookie, not a table: every node computes the same process
//! for a viewer without any coordination. Health is known only to this node.

use crate::{
    domain::{
        Timestamp,
        content::{Process, ProcessId},
    },
    vault::api_key::digest,
};
use parking_lot::{Mutex, MutexGuard};
use std::{collections::HashMap, sync::Arc};

/// The health of one process, as this node sees it. The default counts as up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// The last check or connection attempt failed.
    pub is_down: bool,
    /// When it last changed between up and down; `None` before the first check.
    pub since: Option<Timestamp>,
    /// Number of this node's open WebSockets to it.
    pub open_sockets: usize,
}

/// The health of all processes, by URL.
#[derive(Default)]
pub struct ProcessHealth(Mutex<HashMap<String, Health>>);

/// One open WebSocket to a process, counted in [`Health::open_sockets`] until this is dropped.
pub struct SocketCount {
    processes: Arc<ProcessHealth>,
    url: String,
}

impl Drop for SocketCount {
    fn drop(&mut self) {
        if let Some(health) = self.processes.lock().get_mut(&self.url) {
            health.open_sockets = health.open_sockets.saturating_sub(1);
        }
    }
}

impl ProcessHealth {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Health>> {
        self.0.lock()
    }

    /// The health of a process; the default for one that was never checked.
    pub fn health(&self, url: &str) -> Health {
        self.lock().get(url).copied().unwrap_or_default()
    }

    /// Counts one more open WebSocket to a process.
    pub fn count_socket(self: &Arc<Self>, url: &str) -> SocketCount {
        self.lock().entry(url.to_owned()).or_default().open_sockets += 1;
        SocketCount {
            processes: Arc::clone(self),
            url: url.to_owned(),
        }
    }

    /// Forgets processes that no item lists any more, except while WebSockets to them are open:
    /// [`SocketCount`] counts those down.
    pub fn forget_all_but(&self, urls: &[String]) {
        self.lock()
            .retain(|url, health| health.open_sockets > 0 || urls.contains(url));
    }

    /// Records whether a process accepted a connection; logs a change.
    pub fn note_health(&self, url: &str, is_up: bool, now: Timestamp) {
        let mut known = self.lock();
        let health = known.entry(url.to_owned()).or_default();
        let was_up = !health.is_down;
        let has_changed = was_up != is_up;
        if health.since.is_none() || has_changed {
            if has_changed {
                tracing::warn!(
                    process = url,
                    up = is_up,
                    "a process of an app went up or down"
                );
            }
            health.is_down = !is_up;
            health.since = Some(now);
        }
    }

    /// The processes to try for a viewer, best first: up before down; then the process of the
    /// cookie (`cookie_process`), even if it is draining; then those that are not draining; then by
    /// rendezvous hash of `viewer`, the same on every node. `viewer` is the person's id, or the IP
    /// address of an anonymous viewer.
    pub fn order<'a>(
        &self,
        processes: &'a [Process],
        viewer: &str,
        cookie_process: Option<ProcessId>,
    ) -> Vec<&'a Process> {
        if let [only] = processes {
            return vec![only];
        }
        let known = self.lock();
        let is_down =
            |process: &Process| known.get(&process.url).is_some_and(|health| health.is_down);
        let mut order: Vec<&Process> = processes.iter().collect();
        order.sort_by_cached_key(|process| {
            let is_cookie_process = cookie_process == Some(ProcessId::of(process));
            (
                is_down(process),
                !is_cookie_process,
                process.draining,
                digest(&format!("{viewer} {}", process.url)),
            )
        });
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        Id,
        content::{AccessType, Content, Proxying},
        running::Running,
    };

    fn item(urls: &[(&str, bool)]) -> Content {
        Content {
            number: 1,
            id: Id::random(),
            name: "x".into(),
            title: None,
            description: String::new(),
            owner: Id::random(),
            access: AccessType::Acl,
            app_mode: "unknown".into(),
            processes: urls
                .iter()
                .map(|(url, draining)| Process {
                    url: (*url).into(),
                    draining: *draining,
                })
                .collect(),
            proxying: Proxying::default(),
            bundle: None,
            python: None,
            running: Running::default(),
            slug: "x".into(),
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
        }
    }

    #[test]
    fn viewers_stay_at_their_process_spread_evenly_and_leave_one_that_is_down() {
        let processes = ProcessHealth::default();
        let app = item(&[
            ("http://a", false),
            ("http://b", false),
            ("http://c", false),
        ]);
        let mark = |url: &str| {
            ProcessId::of(&Process {
                url: url.into(),
                draining: false,
            })
        };
        let first = |viewer: &str, cookie_process: Option<ProcessId>| {
            processes.order(&app.processes, viewer, cookie_process)[0]
                .url
                .clone()
        };
        let mut counts = HashMap::new();
        for viewer in 0..300 {
            let viewer = viewer.to_string();
            assert_eq!(first(&viewer, None), first(&viewer, None));
            *counts.entry(first(&viewer, None)).or_insert(0) += 1;
        }
        assert!(
            counts.len() == 3 && counts.values().all(|count| *count > 60),
            "{counts:?}"
        );
        for url in ["http://a", "http://b", "http://c"] {
            assert_eq!(first("v", Some(mark(url))), url);
        }
        processes.note_health("http://a", false, Timestamp(1));
        assert_ne!(first("v", Some(mark("http://a"))), "http://a");
        assert_eq!(
            processes
                .order(&app.processes, "v", None)
                .last()
                .unwrap()
                .url,
            "http://a",
            "the last resort"
        );
        processes.note_health("http://a", true, Timestamp(2));
        assert_eq!(first("v", Some(mark("http://a"))), "http://a");
    }
    #[test]
    fn a_draining_process_keeps_its_viewers_and_gets_no_new_ones() {
        let processes = ProcessHealth::default();
        let app = item(&[("http://a", true), ("http://b", false)]);
        for viewer in 0..50 {
            assert_eq!(
                processes.order(&app.processes, &viewer.to_string(), None)[0].url,
                "http://b"
            );
        }
        let first = Some(ProcessId::of(&app.processes[0]));
        assert_eq!(
            processes.order(&app.processes, "v", first)[0].url,
            "http://a"
        );
        processes.note_health("http://b", false, Timestamp(1));
        assert_eq!(
            processes.order(&app.processes, "v", None)[0].url,
            "http://a",
            "better than none"
        );
    }
}
