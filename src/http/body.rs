//! Deadlines for reading request bodies. actix limits only the time to read a head, so every body
//! must be read through this module or within [`BODY_TIMEOUT`]; otherwise a slow client could hold
//! a request open without limit.

use actix_web::{
    body::{BodySize, MessageBody},
    error::PayloadError,
    web::Bytes,
};
use futures_util::{Stream, StreamExt as _, stream};
use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::timeout;

/// Deadline for receiving a complete form or JSON body; the answer is then 408.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Idle timeout between two chunks of an upload to an app; its total time is not limited.
pub const UPLOAD_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// An empty body that reports a length in bytes, for the response to HEAD (RFC 9110 section 9.3.2).
pub struct LengthOnly(pub u64);

impl LengthOnly {
    /// Reports the length of this body; 0 if that is not known.
    pub fn of(body: &impl MessageBody) -> Self {
        match body.size() {
            BodySize::Sized(length) => Self(length),
            BodySize::None | BodySize::Stream => Self(0),
        }
    }
}

impl MessageBody for LengthOnly {
    type Error = io::Error;
    fn size(&self) -> BodySize {
        BodySize::Sized(self.0)
    }
    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        Poll::Ready(None)
    }
}

/// The same body with an idle timeout of [`UPLOAD_IDLE_TIMEOUT`] per chunk. On expiry the stream
/// yields one
/// `PayloadError::Incomplete` and ends, and `stalled` is set, so that the caller can tell a timeout
/// from a broken connection.
pub fn with_idle_timeout<S>(
    body: S,
    stalled: Rc<Cell<bool>>,
) -> impl Stream<Item = Result<Bytes, PayloadError>> + Unpin
where
    S: Stream<Item = Result<Bytes, PayloadError>> + Unpin,
{
    Box::pin(stream::unfold(
        (body, stalled, false),
        |(mut body, stalled, over)| async move {
            if over {
                return None;
            }
            match timeout(UPLOAD_IDLE_TIMEOUT, body.next()).await {
                Ok(chunk) => chunk.map(|chunk| (chunk, (body, stalled, false))),
                Err(_) => {
                    stalled.set(true);
                    Some((Err(PayloadError::Incomplete(None)), (body, stalled, true)))
                }
            }
        },
    ))
}
