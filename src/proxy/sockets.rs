//! The registry of this node's open WebSockets and event streams.
//!
//! They are grouped by browser session and item. Each group is re-authorized when something that it
//! depends on has changed, at least once a minute, and closed with a close code of the portal's once
//! its viewer may not stay, so that a revoke also ends what is already open. A graceful stop closes all of them instead of waiting for them. This
//! module only tells a socket to close; `websocket.rs` and `response.rs` do it.

use crate::{
    domain::{
        Id, access,
        content::{AccessType, Content},
        person::SignedIn,
    },
    service::{Error, Services, cluster::cache::Validity},
    store::changes::Subject,
};
use futures_util::StreamExt as _;
use parking_lot::{Mutex, MutexGuard};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// Pause between two rounds, in which the groups are found that must be re-authorized. A revoke
/// takes effect on open sockets within two seconds on every node.
const ROUND_INTERVAL: Duration = Duration::from_millis(250);
/// How long a group of which nothing has changed stays unchecked: browser sessions also expire by
/// time, without a change.
const MAX_CHECK_AGE: Duration = Duration::from_secs(60);
/// Maximum number of groups that are re-authorized concurrently.
const MAX_CONCURRENT_CHECKS: usize = 32;
/// How long a group stays open while its re-authorization fails with an error, such as a database
/// that does not answer.
const CHECK_FAILURE_GRACE: Duration = Duration::from_secs(4);

/// Why the portal closes a WebSocket: maps to the close code and reason that the page's script sees
/// (RFC 6455 section 7.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// The browser session has ended.
    SignedOut,
    /// The viewer must consent, or sign in at the provider again; only at the handshake.
    NeedsViewer,
    /// Access or consent was revoked.
    AccessEnded,
    /// The content item was deleted.
    ContentGone,
    /// This node stops; the client can reconnect to another one.
    Restart,
    /// Re-authorization has failed with an error for longer than `CHECK_FAILURE_GRACE`.
    CheckFailed,
    /// The app cannot be reached, or broke off the handshake.
    AppGone,
    /// The viewer has too much open at the app.
    TooMuchOpen,
    /// No bytes passed for longer than the item's idle limit.
    Idle,
}

impl Close {
    /// The close code: 44xx after the HTTP status that fits, the others as registered with IANA.
    pub const fn code(self) -> u16 {
        match self {
            Close::SignedOut => 4401,
            Close::AccessEnded => 4403,
            Close::ContentGone => 4404,
            Close::Idle => 4408,
            Close::NeedsViewer => 4428,
            Close::Restart => 1012,
            Close::CheckFailed | Close::TooMuchOpen => 1013,
            Close::AppGone => 1014,
        }
    }
    /// The close reason: at most 123 bytes, so that it fits into a control frame.
    pub const fn reason(self) -> &'static str {
        match self {
            Close::SignedOut => "signed out: sign in again",
            Close::NeedsViewer => "the viewer has to be asked: open the page again",
            Close::AccessEnded => "access or consent has ended",
            Close::ContentGone => "this content is gone",
            Close::Restart => "the portal restarts: connect again",
            Close::CheckFailed => "the portal is busy: connect again",
            Close::TooMuchOpen => "you have too much open here: close some windows",
            Close::AppGone => "the app does not answer",
            Close::Idle => "nothing was said for too long",
        }
    }
    /// The whole close frame, unmasked as a server sends it.
    pub fn frame(self) -> Vec<u8> {
        let reason = self.reason().as_bytes();
        let length = u8::try_from(reason.len() + 2).unwrap_or(2);
        [
            &[0x88, length],
            self.code().to_be_bytes().as_slice(),
            reason,
        ]
        .concat()
    }
}

/// The key of a group, and what is re-authorized while its sockets are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// The item that the socket leads to.
    pub content: Id<Content>,
    /// The viewer's browser session or API key; `None` for public content opened without signing
    /// in.
    pub session: Option<SignedIn>,
}

impl Ticket {
    /// Why the socket must close; else until when the viewer may stay. An error says nothing about
    /// the viewer.
    async fn recheck(self, service: &Services) -> Result<Verdict, Error> {
        let start = service.core.load_start();
        let Some(signed_in) = self.session else {
            let open = service.contents.public_content(self.content).await?;
            return Ok(match open {
                Some(_) => {
                    Verdict::Stay(vec![Validity::new(start, [Subject::Content(self.content)])])
                }
                None => Verdict::Close(Close::AccessEnded),
            });
        };
        let (person, subject) = match signed_in {
            SignedIn::Browser(session) => (
                service.sessions.session_person(session).await?,
                Subject::Session(session),
            ),
            SignedIn::Key(number) => (
                service.sessions.key_holder(number).await?,
                Subject::ApiKey(number),
            ),
        };
        let Some(person) = person else {
            return Ok(Verdict::Close(Close::SignedOut));
        };
        let admission = match service.admissions.admission(self.content, person.id).await {
            Err(Error::NotFound) => return Ok(Verdict::Close(Close::ContentGone)),
            other => other?,
        };
        // A missing consent closes open sockets; a connection that needs the viewer to sign in at
        // the provider again does not.
        let consented = admission.content.access == AccessType::All
            || admission
                .integrations
                .iter()
                .all(|link| link.consent.is_some());
        if !access::may_open(admission.standing) || !consented {
            return Ok(Verdict::Close(Close::AccessEnded));
        }
        let subjects = [subject, Subject::Person(person.id)];
        Ok(Verdict::Stay(vec![
            Validity::new(start, subjects),
            admission.validity.clone(),
        ]))
    }
}

/// What re-authorization found.
enum Verdict {
    /// The viewer may stay while all of this is unchanged.
    Stay(Vec<Validity>),
    Close(Close),
}

/// The open sockets and event streams of one [`Ticket`].
struct Group {
    close: watch::Sender<Option<Close>>,
    open: usize,
    /// When the group was last re-authorized, and on what that depends.
    checked: Option<(Instant, Vec<Validity>)>,
    /// Since when re-authorization has failed with an error.
    failing_since: Option<Instant>,
    /// Set when the viewer sends a message: like a request, it keeps the browser session from
    /// expiring for lack of use.
    used: Arc<AtomicBool>,
    /// When the browser session was last marked as used.
    touched_at: Option<Instant>,
}

impl Group {
    /// Whether the group must be re-authorized. Marks its browser session as used, too.
    fn is_due(&mut self, ticket: Ticket, service: &Services) -> bool {
        if self
            .touched_at
            .is_none_or(|at| at.elapsed() > service.sessions.touch_interval())
            && self.used.swap(false, Ordering::Relaxed)
            && let Some(session) = ticket.session.and_then(SignedIn::browser)
        {
            self.touched_at = Some(Instant::now());
            service.sessions.touch_session(session);
        }
        self.checked.as_ref().is_none_or(|(at, depends)| {
            let store = &service.core.store;
            at.elapsed() > MAX_CHECK_AGE || !depends.iter().all(|part| part.is_unchanged(store))
        })
    }
}

/// All open WebSockets and event streams of this node.
#[derive(Default)]
pub struct Sockets {
    groups: Mutex<HashMap<Ticket, Group>>,
    /// Accessed under the lock only, so that a socket that opens during a stop is closed, too.
    stopping: AtomicBool,
}

/// One open socket or event stream; unregistered when dropped.
pub struct Registered {
    sockets: Arc<Sockets>,
    ticket: Ticket,
    closing: watch::Receiver<Option<Close>>,
    used: Arc<AtomicBool>,
}

impl Registered {
    /// A flag that the caller sets when the viewer sends a message.
    pub fn used(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.used)
    }

    /// Resolves when the portal wants this socket closed.
    pub async fn closed(&mut self) -> Close {
        match self
            .closing
            .wait_for(Option::is_some)
            .await
            .map(|close| *close)
        {
            Ok(Some(close)) => close,
            // The registry was dropped: the server stops.
            Ok(None) | Err(_) => Close::Restart,
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut groups = self.sockets.lock();
        if let Some(group) = groups.get_mut(&self.ticket)
            // `register` may have replaced a group that was told to close: count down only in the
            // group that this socket belongs to.
            && group.close.receiver_count() > 0
            && group.close.subscribe().same_channel(&self.closing)
        {
            group.open -= 1;
            if group.open == 0 {
                groups.remove(&self.ticket);
            }
        }
    }
}

impl Sockets {
    fn lock(&self) -> MutexGuard<'_, HashMap<Ticket, Group>> {
        self.groups.lock()
    }

    /// Registers one more socket; during a stop it is told to close immediately.
    pub fn register(self: &Arc<Self>, ticket: Ticket) -> Registered {
        let mut groups = self.lock();
        let close = self
            .stopping
            .load(Ordering::Relaxed)
            .then_some(Close::Restart);
        let fresh = || Group {
            close: watch::Sender::new(close),
            open: 0,
            checked: None,
            failing_since: None,
            used: Arc::default(),
            touched_at: None,
        };
        let group = groups.entry(ticket).or_insert_with(fresh);
        if group.close.borrow().is_some() {
            *group = fresh();
        }
        group.open += 1;
        Registered {
            sockets: Arc::clone(self),
            ticket,
            closing: group.close.subscribe(),
            used: Arc::clone(&group.used),
        }
    }

    /// Number of registered sockets.
    pub fn count(&self) -> usize {
        self.lock().values().map(|group| group.open).sum()
    }

    /// Tells all sockets to close with [`Close::Restart`], and all that register from now on.
    pub fn close_all(&self) {
        let groups = self.lock();
        self.stopping.store(true, Ordering::Relaxed);
        for group in groups.values() {
            group.close.send_replace(Some(Close::Restart));
        }
    }

    /// Re-authorizes the groups that need it, in rounds; never returns. One check per group, however
    /// many sockets it has.
    pub async fn watch(self: Arc<Self>, service: Arc<Services>) {
        loop {
            tokio::time::sleep(ROUND_INTERVAL).await;
            let due: Vec<Ticket> = self
                .lock()
                .iter_mut()
                .filter_map(|(ticket, group)| group.is_due(*ticket, &service).then_some(*ticket))
                .collect();
            futures_util::stream::iter(due)
                .for_each_concurrent(MAX_CONCURRENT_CHECKS, |ticket| self.check(ticket, &service))
                .await;
        }
    }

    /// Re-authorizes one group and closes it if need be.
    async fn check(&self, ticket: Ticket, service: &Services) {
        let verdict = ticket.recheck(service).await;
        let mut groups = self.lock();
        let Some(group) = groups.get_mut(&ticket) else {
            return;
        };
        let close = match verdict {
            Ok(Verdict::Close(close)) => Some(close),
            Ok(Verdict::Stay(depends)) => {
                group.failing_since = None;
                group.checked = Some((Instant::now(), depends));
                None
            }
            Err(error) => {
                error.log("checking whether a WebSocket may stay open");
                (group
                    .failing_since
                    .get_or_insert_with(Instant::now)
                    .elapsed()
                    > CHECK_FAILURE_GRACE)
                    .then_some(Close::CheckFailed)
            }
        };
        if close.is_some() {
            group.close.send_replace(close);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sockets_of_one_session_and_item_close_together_and_others_stay() {
        let sockets = Arc::new(Sockets::default());
        let (one, other) = (
            Ticket {
                content: Id::random(),
                session: Some(SignedIn::Browser(Id::random())),
            },
            Ticket {
                content: Id::random(),
                session: None,
            },
        );
        let (mut first, second, third) = (
            sockets.register(one),
            sockets.register(one),
            sockets.register(other),
        );
        assert_eq!(sockets.count(), 3);
        sockets.lock()[&one]
            .close
            .send_replace(Some(Close::AccessEnded));
        assert_eq!(first.closed().await, Close::AccessEnded);
        let again = sockets.register(one);
        drop((first, second));
        assert_eq!(
            sockets.count(),
            2,
            "the late leaving of the old ones does not count against the new one"
        );
        drop((again, third));
        assert_eq!(sockets.count(), 0);
        sockets.close_all();
        assert_eq!(
            sockets.register(one).closed().await,
            Close::Restart,
            "the process stops"
        );
    }
    #[test]
    fn close_frames_fit_into_a_control_frame() {
        for close in [
            Close::SignedOut,
            Close::NeedsViewer,
            Close::AccessEnded,
            Close::ContentGone,
            Close::Restart,
            Close::CheckFailed,
            Close::AppGone,
            Close::TooMuchOpen,
            Close::Idle,
        ] {
            let frame = close.frame();
            assert!(
                frame.len() <= 127 && usize::from(frame[1]) == frame.len() - 2,
                "{close:?}"
            );
        }
    }
}
