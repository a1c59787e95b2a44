//! Idle connections to apps, one pool per endpoint and worker.

use crate::proxy::wire::Transport;
use bytes::BytesMut;
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    pin::Pin,
    rc::Rc,
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

/// Idle connections, most recently used first, and the count of requests in flight. One pool per
/// endpoint and worker.
#[derive(Default)]
pub struct Pool {
    idle: RefCell<VecDeque<Connection>>,
    in_flight: Cell<usize>,
}

/// A request in flight, until it is dropped.
pub struct InFlight(Rc<Pool>);

impl InFlight {
    /// `None` if too many requests of this worker are in flight at this process: an app that does
    /// not answer must not use up memory and connections of the others.
    pub(super) fn begin(pool: &Rc<Pool>) -> Option<Self> {
        let count = pool.in_flight.get();
        (count < Pool::MAX_IN_FLIGHT).then(|| {
            pool.in_flight.set(count + 1);
            Self(Rc::clone(pool))
        })
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}

impl Pool {
    const MAX_IDLE: usize = 128;
    const MAX_IN_FLIGHT: usize = 1000;
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
        let mut resting = self.idle.borrow_mut();
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
        self.idle.borrow_mut().retain(|connection| {
            connection.idle_since.elapsed() < Self::IDLE_TIMEOUT
                && !connection.wire.is_readable_or_closed()
        });
    }

    /// Returns a connection to the pool; closes it if the pool is full.
    pub(super) fn put(&self, mut connection: Connection) {
        let mut resting = self.idle.borrow_mut();
        if resting.len() < Self::MAX_IDLE {
            connection.idle_since = Instant::now();
            // Idle connections must not hold large buffers.
            connection.buffer = BytesMut::new();
            resting.push_back(connection);
        }
    }
}
