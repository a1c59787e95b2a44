//! The process that gets a request: the next one to try for a viewer, resolved, with the session
//! token that it will be given.

use crate::{
    domain::{content::Process, origins::ContentLocation},
    http::open_counts::OpenGuard,
    proxy::{gate::Pass, pool::InFlight, state::Proxy, tokens, upstream::Target},
    service::{
        Services,
        cluster::presence::PresenceGuard,
        grants::session_tokens::HeldToken,
        running::board::{ConnectionCount, Full},
    },
};
use actix_web::{dev::RequestHead, http::header::HeaderValue};
use std::{rc::Rc, sync::Arc};

/// The next process to try.
pub(super) struct Candidate<'a> {
    pub(super) process: &'a Process,
    pub(super) target: Rc<Target>,
    /// The session token for this process; `None` for an anonymous viewer.
    pub(super) token: Option<HeaderValue>,
    /// The count of requests at the process; set for a request, not for a WebSocket.
    pub(super) in_flight: Option<InFlight>,
    /// The viewer's presence; `None` for an anonymous viewer.
    pub(super) here: Option<PresenceGuard>,
    /// The count of what the client's network has open.
    pub(super) open: Option<OpenGuard>,
    /// The count of what is open at a process that runs here.
    pub(super) run: Option<ConnectionCount>,
}

impl Candidate<'_> {
    /// Keeps the session token exchangeable past its expiry, until the guard is dropped: for a
    /// WebSocket or event stream that stays open. All other checks of an exchange stay.
    pub(super) fn hold_token(&self, service: &Arc<Services>) -> Option<HeldToken> {
        self.token
            .as_ref()?
            .to_str()
            .ok()
            .map(|token| service.session_tokens.hold_token(token))
    }
}

/// The processes that were tried for one request.
#[derive(Default)]
pub(super) struct Tried<'a> {
    urls: Vec<&'a str>,
    /// One of them had as many connections as it may have.
    pub(super) one_was_full: bool,
}

/// The next process to try for a viewer, best first; its URL is added to `tried`. Skips processes
/// that are full, or whose address cannot be resolved or is not allowed. `None` when all were tried,
/// or no session token can be made.
pub(super) async fn next_process<'a>(
    head: &RequestHead,
    proxy: &Proxy,
    pass: &'a Pass,
    place: &ContentLocation,
    tried: &mut Tried<'a>,
) -> Option<Candidate<'a>> {
    let (service, item) = (&proxy.service, pass.content());
    let viewer = match (pass.processes().len() > 1, pass.person()) {
        (false, _) => String::new(),
        (true, Some(person)) => person.to_string(),
        (true, None) => pass.client.map(|ip| ip.to_string()).unwrap_or_default(),
    };
    let stays_at = pass.stays_at(head, proxy, place);
    let mut order = service
        .process_health
        .order(pass.processes(), &viewer, stays_at);
    if let Some(key) = pass.run_key()
        && stays_at.is_none()
    {
        // Viewers who have no process yet go where there is most room.
        let by_load = service.runs.by_load(key);
        order.sort_by_key(|process| by_load.iter().position(|url| *url == process.url));
    }
    for process in order {
        if tried.urls.contains(&process.url.as_str()) {
            continue;
        }
        tried.urls.push(&process.url);
        let run = match pass.run_key() {
            None => None,
            Some(key) => {
                let most = item.running.connections_per_process();
                match service.runs.connect(key, &process.url, most) {
                    Ok(run) => run,
                    Err(Full) => {
                        tried.one_was_full = true;
                        continue;
                    }
                }
            }
        };
        match proxy
            .upstreams
            .target(
                &process.url,
                item.proxying.ca.as_ref(),
                &service.core.policy,
                &service.core.names,
            )
            .await
        {
            Ok(target) => {
                let mark = pass.process_id(process);
                let token = match (pass.person(), pass.session) {
                    (Some(person), Some(session)) => Some(tokens::session_token(
                        service, person, item.id, session, mark,
                    )?),
                    _ => None,
                };
                return Some(Candidate {
                    process,
                    target,
                    token,
                    in_flight: None,
                    here: None,
                    open: None,
                    run,
                });
            }
            Err(reason) => {
                tracing::warn!(content = %item.id, %reason, "a process has no address that may be used")
            }
        }
    }
    None
}
