//! Deadlines for reading request bodies. actix limits only the time to read a head, so every body
//! must be read through this module or within [`BODY_TIMEOUT`]; otherwise a slow client could hold
//! a request open without limit.

use actix_web::{error::PayloadError, web::Bytes};
use futures_util::{Stream, StreamExt as _, stream};
use std::{cell::Cell, rc::Rc, time::Duration};
use tokio::time::timeout;

/// Deadline for receiving a complete form or JSON body; the answer is then 408.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Idle timeout between two chunks of an upload to an app; its total time is not limited.
pub const UPLOAD_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

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
