//! When an access token may be handed out, and until when content may use it. Pure functions of the
//! times of a connection and the provider's profile.

use crate::{
    domain::{Timestamp, connection::Connection, integration::Integration},
    providers,
};
use secrecy::SecretString;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Least remaining lifetime of a token that is handed out; half of its whole lifetime, if that is
/// shorter.
pub const MIN_REMAINING_LIFE: Duration = Duration::from_secs(120);
/// Least remaining lifetime while no fresher token is available; an eighth of its whole lifetime,
/// if that is shorter.
const MIN_REMAINING_LIFE_FALLBACK: Duration = Duration::from_secs(30);
/// Longest lead of a background refresh over the time at which the token stops being handed out.
pub const MAX_REFRESH_LEAD: Duration = Duration::from_secs(300);
/// Longest lead of a background refresh over the token's expiry.
pub const MAX_LEAD_BEFORE_EXPIRY: Duration =
    Duration::from_secs(MIN_REMAINING_LIFE.as_secs() + MAX_REFRESH_LEAD.as_secs());

/// An access token that may be handed out.
#[derive(Clone, Debug)]
pub struct FreshToken {
    pub token: Arc<SecretString>,
    /// Until when it may be used; `None` if it has no end.
    pub usable_until: Option<Timestamp>,
    /// What content gets besides the token.
    pub extra_fields: BTreeMap<String, String>,
}

impl FreshToken {
    /// The stored token of a connection.
    pub fn stored(
        connection: &Connection,
        integration: &Integration,
        token: Arc<SecretString>,
    ) -> Self {
        Self {
            token,
            usable_until: usable_until(
                integration,
                connection.updated_at,
                connection.access_expires_at,
            ),
            extra_fields: connection.extra_fields.clone(),
        }
    }
}

/// Until when content may use a token: until its end. Where a refresh ends the token before it, only
/// until the portal refreshes.
pub fn usable_until(
    integration: &Integration,
    issued_at: Timestamp,
    expires_at: Option<Timestamp>,
) -> Option<Timestamp> {
    let expires_at = expires_at?;
    Some(
        if providers::profile(integration).refresh_ends_access_token {
            expires_at.minus(margin(issued_at, expires_at))
        } else {
            expires_at
        },
    )
}

/// Remaining lifetime below which a token is not handed out any more.
fn margin(issued_at: Timestamp, expires_at: Timestamp) -> Duration {
    MIN_REMAINING_LIFE.min(expires_at.since(issued_at) / 2)
}

/// Whether a stored access token may be handed out. Not if the clock is more than 300 s behind the
/// time of issue. One without an end always may.
pub fn is_usable(issued_at: Timestamp, expires_at: Option<Timestamp>, now: Timestamp) -> bool {
    let Some(expires_at) = expires_at else {
        return true;
    };
    is_not_before(issued_at, now) && now.plus(margin(issued_at, expires_at)) < expires_at
}

/// Whether a stored access token may be handed out while no fresher one is available.
pub fn is_usable_as_fallback(
    issued_at: Timestamp,
    expires_at: Option<Timestamp>,
    now: Timestamp,
) -> bool {
    let Some(expires_at) = expires_at else {
        return true;
    };
    let margin = MIN_REMAINING_LIFE_FALLBACK.min(expires_at.since(issued_at) / 8);
    is_not_before(issued_at, now) && now.plus(margin) < expires_at
}

fn is_not_before(issued_at: Timestamp, now: Timestamp) -> bool {
    now >= issued_at.minus(Duration::from_secs(300))
}

/// Whether a background refresh is due: some time before the token stops being handed out, with
/// jitter.
pub fn is_due_ahead(connection: &Connection, now: Timestamp) -> bool {
    let Some(expires_at) = connection.access_expires_at else {
        return false;
    };
    let life = expires_at.since(connection.updated_at);
    let lead = (life / 4).min(MAX_REFRESH_LEAD);
    // Jitter from the connection's number: connections made at the same time must not all be
    // refreshed at the same time.
    let jitter = lead
        .mul_f64(f64::from(u32::try_from(connection.number.rem_euclid(97)).unwrap_or(0)) / 194.0);
    now.plus(margin(connection.updated_at, expires_at) + lead)
        .minus(jitter)
        >= expires_at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_about_to_expire_is_not_handed_out() {
        let at = |seconds: i64| Timestamp(seconds * 1000);
        assert!(is_usable(at(0), Some(at(3600)), at(3400)));
        assert!(!is_usable(at(0), Some(at(3600)), at(3490)));
        // Short-lived tokens are handed out for the first half of their lifetime.
        assert!(is_usable(at(0), Some(at(20)), at(9)));
        assert!(!is_usable(at(0), Some(at(20)), at(10)));
        assert!(is_usable(at(0), None, at(10_000_000)));
        // A clock that jumped back does not make an old token young.
        assert!(!is_usable(at(1000), Some(at(4600)), at(0)));
        // A token close to expiry passes only where no fresher one is available.
        assert!(
            is_usable_as_fallback(at(0), Some(at(3600)), at(3560))
                && !is_usable_as_fallback(at(0), Some(at(3600)), at(3580))
        );
    }
}
