//! Session tokens for requests to apps, cached per worker.

use crate::{
    domain::{
        Id, Timestamp,
        content::{Content, ProcessId},
        person::{Person, SignedIn},
    },
    service::Services,
};
use actix_web::http::header::HeaderValue;
use std::{cell::RefCell, collections::HashMap};

/// Session tokens by browser session or key, item and process, with the time at which each was minted.
type TokenCache = HashMap<(SignedIn, Id<Content>, ProcessId), (HeaderValue, Timestamp)>;

thread_local! {
    static TOKENS: RefCell<TokenCache> = RefCell::default();
}

/// The session token for a request, cached per worker. It is minted anew after a twelfth of its
/// lifetime, so that each request carries one that is valid for most of it. It names the process
/// that gets it, so that the leak alarm knows which process of an item used it. `None` if no token
/// can be minted.
pub fn session_token(
    service: &Services,
    person: Id<Person>,
    content: Id<Content>,
    signed_in: SignedIn,
    process: ProcessId,
) -> Option<HeaderValue> {
    let fresh_for = service.core.settings.session_token_lifetime / 12;
    let now = service.core.now();
    let fresh = |at: &Timestamp| now >= *at && now.since(*at) < fresh_for;
    TOKENS.with_borrow_mut(|tokens| {
        if let Some((token, at)) = tokens.get(&(signed_in, content, process))
            && fresh(at)
        {
            return Some(token.clone());
        }
        if tokens.len() > 10_000 {
            tokens.retain(|_, (_, at)| fresh(at));
        }
        let token = HeaderValue::try_from(
            service
                .session_tokens
                .session_token(person, content, signed_in, process)?,
        )
        .ok()?;
        tokens.insert((signed_in, content, process), (token.clone(), now));
        Some(token)
    })
}
