//! Who ends connections and consents, when and why. It becomes part of each audit record.

use crate::{
    domain::{
        Id, Timestamp,
        audit::{Action, Event},
        person::Person,
    },
    service::core::Actor,
};

/// Who ends connections, when and why: shared by everything that one action ends.
#[derive(Clone)]
pub(in crate::service) struct EndReason {
    pub now: Timestamp,
    pub(in crate::service) actor: Option<Id<Person>>,
    actor_name: String,
    address: String,
    pub(in crate::service) correlation: String,
    /// A phrase for the audit record.
    pub(in crate::service) reason: String,
}

impl EndReason {
    /// An end caused by a person.
    pub fn of(actor: &Actor, now: Timestamp, reason: impl Into<String>) -> Self {
        Self {
            now,
            actor: Some(actor.person.id),
            actor_name: actor.person.username.clone(),
            address: actor.origin.address.clone(),
            correlation: actor.origin.correlation.clone(),
            reason: reason.into(),
        }
    }

    /// An end caused by the portal itself, by a rule of the operator's.
    pub fn of_portal(now: Timestamp, reason: &str) -> Self {
        Self {
            now,
            actor: None,
            actor_name: "portal".into(),
            address: String::new(),
            correlation: uuid::Uuid::new_v4().simple().to_string(),
            reason: reason.into(),
        }
    }

    /// An audit event of this end.
    pub(in crate::service) fn event(&self, action: Action, subject: &str, detail: String) -> Event {
        Event {
            actor: self.actor,
            actor_name: self.actor_name.clone(),
            address: self.address.clone(),
            correlation: self.correlation.clone(),
            ..Event::by_portal(self.now, action, subject, detail)
        }
    }
}
