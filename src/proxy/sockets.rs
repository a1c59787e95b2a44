//! The WebSockets and event streams that are open, by whose they are: closed with a code of ours as
//! soon as what let them in is over.

use super::Pass;
use crate::{
    domain::{
        Id, access,
        content::{AccessType, Content},
        person::Session,
    },
    service::{Error, Service},
};
use futures_util::StreamExt as _;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// How often it is asked whether sockets may stay. With it, an end counts within two seconds on
/// every node.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const AT_ONCE: usize = 32;
const TOUCH_EVERY: Duration = Duration::from_secs(60);
/// A database that does not answer proves nothing; but nobody stays for longer without an answer.
const DOUBT: Duration = Duration::from_secs(4);

/// Why a WebSocket is closed by the portal: the code and the word that its page's script sees (RFC
/// 6455 section 7.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// Nobody is signed in here any more.
    SignedOut,
    /// The viewer has to agree first, or to sign in at the provider again.
    NeedsViewer,
    /// Access or consent was taken away.
    AccessEnded,
    ContentGone,
    /// This node stops; another one takes the next connection.
    Restart,
    /// It cannot be found out whether the viewer may stay.
    Unknown,
    /// The app is not reached.
    AppGone,
    /// Nothing was said for longer than the item allows.
    Idle,
}

impl Close {
    pub const fn code(self) -> u16 {
        match self {
            Close::SignedOut => 4401,
            Close::AccessEnded => 4403,
            Close::ContentGone => 4404,
            Close::Idle => 4408,
            Close::NeedsViewer => 4428,
            Close::Restart => 1012,
            Close::Unknown => 1013,
            Close::AppGone => 1014,
        }
    }
    pub const fn reason(self) -> &'static str {
        match self {
            Close::SignedOut => "signed out: sign in again",
            Close::NeedsViewer => "the viewer has to be asked: open the page again",
            Close::AccessEnded => "access or consent has ended",
            Close::ContentGone => "this content is gone",
            Close::Restart => "the portal restarts: connect again",
            Close::Unknown => "the portal is busy: connect again",
            Close::AppGone => "the app does not answer",
            Close::Idle => "nothing was said for too long",
        }
    }
    /// The whole frame, as a server sends it.
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

/// What let a socket in: asked again while it stays open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    pub content: Id<Content>,
    /// `None` for content that is open to anyone.
    pub session: Option<Id<Session>>,
}

impl Ticket {
    pub fn new(pass: &Pass) -> Self {
        Self {
            content: pass.content().id,
            session: pass.session,
        }
    }

    /// Why this viewer may not stay; `None` while what let them in is still true.
    async fn verdict(self, service: &Service) -> Result<Option<Close>, Error> {
        let Some(session) = self.session else {
            return Ok(service
                .public_content(self.content)
                .await?
                .is_none()
                .then_some(Close::AccessEnded));
        };
        let Some(person) = service.session_person(session).await? else {
            return Ok(Some(Close::SignedOut));
        };
        let admission = match service.admission(self.content, person.id).await {
            Err(Error::NotFound) => return Ok(Some(Close::ContentGone)),
            other => other?,
        };
        // A connection that needs its viewer again leaves what is open open; a consent taken back
        // does not.
        let consented = admission.content.access == AccessType::All
            || admission.links.iter().all(|link| link.consent.is_some());
        Ok((!access::may_open(admission.standing) || !consented).then_some(Close::AccessEnded))
    }
}

/// The sockets of one viewer at one item.
struct Group {
    close: watch::Sender<Option<Close>>,
    open: usize,
    doubt: Option<Instant>,
    /// Set whenever the viewer says something: a tab in use keeps its session from idling out, like
    /// requests do.
    used: Arc<AtomicBool>,
    touched: Option<Instant>,
}

/// All open sockets of a process.
#[derive(Default)]
pub struct Sockets {
    groups: Mutex<HashMap<Ticket, Group>>,
    /// Set and read under the lock: whatever opens while the process stops is closed, too.
    stopping: AtomicBool,
}

/// One open socket; leaves the list when dropped.
pub struct Registered {
    sockets: Arc<Sockets>,
    ticket: Ticket,
    closing: watch::Receiver<Option<Close>>,
    used: Arc<AtomicBool>,
}

impl Registered {
    /// To be set when the viewer says something.
    pub fn used(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.used)
    }

    /// Waits until the portal wants it closed.
    pub async fn closed(&mut self) -> Close {
        match self
            .closing
            .wait_for(Option::is_some)
            .await
            .map(|close| *close)
        {
            Ok(Some(close)) => close,
            // The list is gone, and the process with it.
            Ok(None) | Err(_) => Close::Restart,
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut groups = self.sockets.lock();
        if let Some(group) = groups.get_mut(&self.ticket)
            // A group that was told to close is replaced by the next one that opens.
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
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Ticket, Group>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn register(self: &Arc<Self>, ticket: Ticket) -> Registered {
        let mut groups = self.lock();
        let close = self
            .stopping
            .load(Ordering::Relaxed)
            .then_some(Close::Restart);
        let fresh = || Group {
            close: watch::Sender::new(close),
            open: 0,
            doubt: None,
            used: Arc::default(),
            touched: None,
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

    /// How many are open.
    #[cfg(test)]
    fn count(&self) -> usize {
        self.lock().values().map(|group| group.open).sum()
    }

    /// Closes all of them: this process stops.
    pub fn close_all(&self) {
        let groups = self.lock();
        self.stopping.store(true, Ordering::Relaxed);
        for group in groups.values() {
            group.close.send_replace(Some(Close::Restart));
        }
    }

    /// Asks for ever, group by group, who may stay. However many sockets a viewer has open, they
    /// are asked for once.
    pub async fn watch(self: Arc<Self>, service: Arc<Service>) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let tickets: Vec<Ticket> = self.lock().keys().copied().collect();
            futures_util::stream::iter(tickets)
                .for_each_concurrent(AT_ONCE, |ticket| self.ask(ticket, &service))
                .await;
        }
    }

    async fn ask(&self, ticket: Ticket, service: &Service) {
        let verdict = ticket.verdict(service).await;
        let mut groups = self.lock();
        let Some(group) = groups.get_mut(&ticket) else {
            return;
        };
        let close = match verdict {
            Ok(close) => {
                group.doubt = None;
                if close.is_none()
                    && group.touched.is_none_or(|at| at.elapsed() > TOUCH_EVERY)
                    && group.used.swap(false, Ordering::Relaxed)
                    && let Some(session) = ticket.session
                {
                    group.touched = Some(Instant::now());
                    service.touch_session(session);
                }
                close
            }
            Err(_) => (group.doubt.get_or_insert_with(Instant::now).elapsed() > DOUBT)
                .then_some(Close::Unknown),
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
    async fn a_viewers_sockets_close_together_and_others_stay() {
        let sockets = Arc::new(Sockets::default());
        let (one, other) = (
            Ticket {
                content: Id::random(),
                session: Some(Id::random()),
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
            Close::Unknown,
            Close::AppGone,
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
