//! The events that are counted by hour, content item and integration. The plots show the counts, and
//! the head of a page tells from them whether the item or integration works. Exchanges of each person
//! are counted apart (`service::grants::usage`).

use super::{Id, Timestamp, content::Content, integration::Integration};

/// Something that is counted.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[strum(serialize_all = "snake_case")]
pub enum Activity {
    /// An exchange that handed out a token.
    Exchanged,

    // The funnel of consents, in its order.
    ConsentShown,
    ConsentAgreed,
    /// Back from the provider; at once where no sign-in there was needed.
    ConsentReturned,
    Connected,

    // How refreshes at the provider ended.
    Refreshed,
    /// The provider ended the connection: its viewer is needed.
    RefreshRefused,
    RefreshFailed,

    // Why exchanges are refused.
    KeyUnknown,
    KeyNotAllowed,
    TokenExpired,
    TokenInvalid,
    SessionEnded,
    ViewerNotAllowed,
    NoIntegration,
    WrongAudience,
    NotConsented,
    NotConnected,
    OtherAccount,
    ConnectionEnded,
    IntegrationPaused,
    IntegrationBroken,
    ProviderUnavailable,

    /// A level, not a count: people connected to an integration on that day.
    PeopleConnected,
}

/// Refusals of exchanges.
pub const REFUSALS: &[Activity] = &[
    Activity::KeyUnknown,
    Activity::KeyNotAllowed,
    Activity::TokenExpired,
    Activity::TokenInvalid,
    Activity::SessionEnded,
    Activity::ViewerNotAllowed,
    Activity::NoIntegration,
    Activity::WrongAudience,
    Activity::NotConsented,
    Activity::NotConnected,
    Activity::OtherAccount,
    Activity::ConnectionEnded,
    Activity::IntegrationPaused,
    Activity::IntegrationBroken,
    Activity::ProviderUnavailable,
];

/// The funnel of consents.
pub const FUNNEL: &[Activity] = &[
    Activity::ConsentShown,
    Activity::ConsentAgreed,
    Activity::ConsentReturned,
    Activity::Connected,
];

/// How refreshes ended.
pub const REFRESHES: &[Activity] = &[
    Activity::Refreshed,
    Activity::RefreshRefused,
    Activity::RefreshFailed,
];

impl Activity {
    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The inverse of [`Activity::as_str`]; `None` for any other text, such as that of a newer
    /// version.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    /// In words, for pages.
    pub const fn words(self) -> &'static str {
        match self {
            Activity::Exchanged => "exchanges",
            Activity::ConsentShown => "asked",
            Activity::ConsentAgreed => "agreed",
            Activity::ConsentReturned => "came back from the provider",
            Activity::Connected => "connected",
            Activity::Refreshed => "refreshed",
            Activity::RefreshRefused => "connection ended by the provider",
            Activity::RefreshFailed => "failed",
            Activity::KeyUnknown => "API key is unknown",
            Activity::KeyNotAllowed => "key may not act for this content",
            Activity::TokenExpired => "session token has expired",
            Activity::TokenInvalid => "session token is not genuine",
            Activity::SessionEnded => "viewer has signed out",
            Activity::ViewerNotAllowed => "viewer may not open this content",
            Activity::NoIntegration => "no integration is attached",
            Activity::WrongAudience => "asks for an integration that is not attached",
            Activity::NotConsented => "viewer has not consented",
            Activity::NotConnected => "viewer is not connected",
            Activity::OtherAccount => "another account than the viewer’s",
            Activity::ConnectionEnded => "connection has ended",
            Activity::IntegrationPaused => "integration is paused",
            Activity::IntegrationBroken => "integration does not work",
            Activity::ProviderUnavailable => "provider could not be reached",
            Activity::PeopleConnected => "people connected",
        }
    }

    /// For a refusal: whose turn it is, and what to do. Empty for all else.
    pub const fn advice(self) -> &'static str {
        match self {
            Activity::KeyUnknown => {
                "The app runs with a key that was replaced or deleted. Make a new content key in the content’s settings, put it into the app’s environment and restart the app."
            }
            Activity::KeyNotAllowed => {
                "The key belongs to somebody else, or to other content. Give the app a content key of this item."
            }
            Activity::TokenExpired => {
                "The app kept a session token for too long. It must read the header of each request, or renew the token while a page is open."
            }
            Activity::TokenInvalid => {
                "The app sends something else than the header Posit-Connect-User-Session-Token of the request, or that of another portal."
            }
            Activity::SessionEnded => {
                "Nothing to do: the viewer signs in again and reloads the page."
            }
            Activity::ViewerNotAllowed => {
                "Put the viewer on the content’s access list, if they should open it."
            }
            Activity::NoIntegration => "Choose an integration in the content’s settings.",
            Activity::WrongAudience => {
                "The app names an integration (audience) that this content does not use. Attach it in the content’s settings, or correct the app."
            }
            Activity::NotConsented | Activity::NotConnected => {
                "The viewer is asked when they open the content in a window of its own. An app in a frame of another page cannot ask."
            }
            Activity::OtherAccount => {
                "The viewer connected with an account that is not theirs. They disconnect it under Consents and connect again."
            }
            Activity::ConnectionEnded => {
                "The viewer reloads the page and signs in at the provider again."
            }
            Activity::IntegrationPaused => {
                "An administrator paused the integration, and can resume it."
            }
            Activity::IntegrationBroken => {
                "An administrator must repair the integration: its page says what is wrong."
            }
            Activity::ProviderUnavailable => {
                "Nothing to do here: the portal tries again by itself."
            }
            _ => "",
        }
    }
}

/// A count of one hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActivityCount {
    /// The start of the hour; of a level, the start of the day (UTC).
    pub hour: Timestamp,
    pub kind: Activity,
    /// `None`: about no item, such as a refresh.
    pub content: Option<Id<Content>>,
    pub integration: Option<Id<Integration>>,
    pub times: i64,
    pub last_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;
    use strum::VariantArray as _;

    #[test]
    fn every_kind_has_words_and_every_refusal_says_what_to_do() {
        for kind in Activity::VARIANTS {
            assert_eq!(Activity::parse(kind.as_str()), Some(*kind));
            assert!(!kind.words().is_empty());
            assert_eq!(
                kind.advice().is_empty(),
                !REFUSALS.contains(kind),
                "{kind:?}"
            );
        }
    }
}
