//! Idle connections to apps, one pool per endpoint and worker.

use crate::proxy::wire::Transport;
use bytes::BytesMut;
use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

/// Buffer space reserved for each read, in bytes.
const READ_BYTES: usize = 16 * 1024;

/// A connection to an app.
pub struct Connection {
    /// The transport.
    pub wire: Transport,
    /// Bytes that were read and not yet consumed.
    pub buffer: BytesMut,
    /// When the connection became idle; meaningful in the pool only.
    idle_since: Instant,
}

impl Connection {
    /// A connection that nothing was sent on yet.
    pub(super) fn new(wire: Transport) -> Self {
        Self {
            wire,
            buffer: BytesMut::new(),
            idle_since: Instant::now(),
        }
    }

    /// Reads more into the buffer; `Ok(0)` at the end of the stream.
    pub(super) fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.buffer.reserve(READ_BYTES);
        tokio_util::io::poll_read_buf(Pin::new(&mut self.wire), context, &mut self.buffer)
    }
}

/// Idle connections, most recently used first. One pool per endpoint and worker.
#[derive(Default)]
pub struct Pool(std::cell::RefCell<VecDeque<Connection>>);

impl Pool {
    const MAX_IDLE: usize = 128;
    /// How long a connection stays in the pool.
    const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
    /// A request that must not be sent twice gets only connections that were idle for less than
    /// this: the app may be closing an older one at this moment.
    const MAX_IDLE_UNREPEATABLE: Duration = Duration::from_secs(1);

    /// Takes a usable connection; those found unusable on the way are closed.
    pub(super) fn take(&self, repeatable: bool) -> Option<Connection> {
        let longest = if repeatable {
            Self::IDLE_TIMEOUT
        } else {
            Self::MAX_IDLE_UNREPEATABLE
        };
        let mut resting = self.0.borrow_mut();
        while let Some(connection) = resting.pop_back() {
            if connection.idle_since.elapsed() < longest && !connection.wire.is_readable_or_closed()
            {
                return Some(connection);
            }
        }
        None
    }

    /// Closes connections that were idle for too long, or that the app has closed.
    pub fn sweep(&self) {
        self.0.borrow_mut().retain(|connection| {
            connection.idle_since.elapsed() < Self::IDLE_TIMEOUT
                && !connection.wire.is_readable_or_closed()
        });
    }

    /// Returns a connection to the pool; closes it if the pool is full.
    pub(super) fn put(&self, mut connection: Connection) {
        let mut resting = self.0.borrow_mut();
        if resting.len() < Self::MAX_IDLE {
            connection.idle_since = Instant::now();
            // Idle connections must not hold large buffers.
            connection.buffer = BytesMut::new();
            resting.push_back(connection);
        }
    }
}
