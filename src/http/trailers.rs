//! Trailers of a response (RFC 9110 section 6.5). actix cannot send them; a response carries them
//! as an extension to `server::http2`, which can.

use actix_web::http::header::{HeaderName, HeaderValue};
use std::{cell::RefCell, rc::Rc};

/// Fields in the order in which they arrived; names may repeat.
type Fields = Vec<(HeaderName, HeaderValue)>;

/// The trailers of a response, filled in when its body has ended. Put into the response's
/// extensions for HTTP/2.
#[derive(Clone, Default)]
pub struct Trailers(pub Rc<RefCell<Fields>>);
