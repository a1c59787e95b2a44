//! Reading the record.

use super::{Actor, Error, Service};
use crate::{
    domain::{access, audit::Event},
    store::audit::{Filter, list},
};

pub const PAGE: i64 = 50;

impl Service {
    /// The newest events that pass the filter, one more than a page if there are more.
    pub async fn audit_events(&self, actor: &Actor, filter: Filter) -> Result<Vec<Event>, Error> {
        if !access::may_read_audit(actor.role) {
            return Err(Error::Forbidden("Only administrators read the record."));
        }
        self.store.read(move |db| Ok(list(db, &filter, PAGE + 1)?)).await
    }
}
