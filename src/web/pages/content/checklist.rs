//! What an administrator still has to do before people can work: the head of `/content` until all of
//! it is done.

use crate::domain::person::Role;
use crate::{domain::integration::SecretHealth, http::errors::WebError, web::visitor::SignedIn};

/// One step.
pub(super) struct Step {
    pub(super) is_done: bool,
    pub(super) words: &'static str,
    pub(super) href: &'static str,
}

/// The steps; empty once all are done, and for everybody but administrators.
pub(super) async fn checklist(me: &SignedIn, has_content: bool) -> Result<Vec<Step>, WebError> {
    if me.actor.role != Role::Administrator {
        return Ok(Vec::new());
    }
    let (service, settings) = (me.service(), &me.service().core.settings);
    let integrations = service.integrations.integrations(&me.actor).await?;
    let is_tested = integrations
        .iter()
        .any(|known| matches!(known.secret_health, SecretHealth::Works { .. }));
    let steps = vec![
        Step {
            is_done: settings.public_url.scheme() == "https",
            words: "Give the portal its public address, with https (public_url)",
            href: "/help/operator",
        },
        Step {
            is_done: !settings.origins.is_same_origin(),
            words: "Give content an address of its own (content_url)",
            href: "/help/operator",
        },
        Step {
            is_done: !integrations.is_empty(),
            words: "Add the first integration",
            href: "/integrations/new",
        },
        Step {
            is_done: is_tested,
            words: "Connect through it once yourself, to see that it works",
            href: "/help/administrator",
        },
        Step {
            is_done: has_content,
            words: "Add the first content",
            href: "/content/new",
        },
        Step {
            is_done: service.core.backed_up_at().await?.is_some(),
            words: "Make a backup (valetkey backup), and keep the keyring in another place",
            href: "/help/operator",
        },
    ];
    let is_open = steps.iter().any(|step| !step.is_done);
    Ok(if is_open { steps } else { Vec::new() })
}
