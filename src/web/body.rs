//! Request bodies that take their time. actix times heads only, so whoever reads a body reads it
//! through here.

use actix_web::{error::PayloadError, web::Bytes};
use futures_util::{Stream, StreamExt as _, stream};
use std::{cell::Cell, rc::Rc, time::Duration};
use tokio::time::timeout;

/// A form or a JSON body is here within this time, or its sender is gone.
pub const WHOLE: Duration = Duration::from_secs(30);
/// A body on its way to an app may take long, but never rests for longer.
pub const PAUSE: Duration = Duration::from_secs(30);

/// The same body, ended with an error once it rests for too long; `stalled` then says why.
pub fn impatient<S>(
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
            match timeout(PAUSE, body.next()).await {
                Ok(chunk) => chunk.map(|chunk| (chunk, (body, stalled, false))),
                Err(_) => {
                    stalled.set(true);
                    Some((Err(PayloadError::Incomplete(None)), (body, stalled, true)))
                }
            }
        },
    ))
}
