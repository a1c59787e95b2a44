//! How a provider's token endpoint and tokens behave, where that differs from the standard (RFC 6749)
//! or is left open by it: data only, one [`Profile`] for each template. `oauth` reads it when it
//! speaks to the provider, the broker when it decides about a token.
//!
//! Sources are named beside the values in the templates; what could not be confirmed is listed in the
//! handbook (*Providers*).

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What a provider does with refresh tokens when they are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// Each refresh returns a new token; the old one stays valid (Microsoft Entra ID).
    KeepsOld,
    /// A token may be invalid after one use. Assumed if nothing else is known.
    SingleUse,
    /// The token stays the same for as long as the person's sign-in lasts.
    Never,
}

/// The lifetime of an access token whose response has no usable `expires_in`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnstatedLifetime {
    /// This long, if there is a refresh token. Without one nothing fresher can be had, so the token
    /// is taken to have no end: asking its viewer again every few minutes would bring the same one.
    Assumed(Duration),
    /// It has no end (OAuth Apps of GitHub, Slack without rotation).
    Unlimited,
}

/// When a refresh token ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshTokenLife {
    Unknown,
    /// This many days after its last use.
    Sliding(u64),
    /// This many days after the sign-in, however often it is used.
    Fixed(u64),
    /// The response says so, in seconds, in the field of this name.
    Stated(&'static str),
}

/// How a token is revoked at the provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RevocationKind {
    /// RFC 7009: a form with `token` to the revocation endpoint.
    #[default]
    Standard,
    /// GitHub's: `DELETE` with the client's credentials in the header and the access token as JSON
    /// ends everything that the person granted to the application.
    GithubGrant,
}

/// A refusal of the token endpoint that means something else than the standard says.
#[derive(Clone, Copy, Debug)]
pub struct Refusal {
    /// The value of `error`.
    pub code: &'static str,
    /// The value of `error_subtype` or `suberror`; empty: any.
    pub subtype: &'static str,
    /// Words that the description has to contain, in lower case and with blanks for underscores;
    /// empty: any description.
    pub about: &'static str,
    pub meaning: Meaning,
}

/// Who can mend what a [`Refusal`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The refresh token or code is not accepted: its viewer signs in again.
    TokenRefused,
    /// A policy of the organisation asks the viewer to sign in again.
    Policy,
    /// The client ID or secret is not accepted: an administrator.
    ClientRefused,
    /// A setting of the integration: an administrator.
    Misconfigured,
    /// Nobody: it passes.
    Retry,
}

/// Where the account behind new tokens is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// In the claims of the ID token or of the access token.
    Claims,
    /// In the answer of an API that the access token opens, a JSON object.
    Request(IdentityRequest),
}

/// A GET with the access token that names its account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdentityRequest {
    pub address: IdentityAddress,
    /// The member that identifies the account for good, and the first of these that names it.
    pub subject: &'static str,
    pub labels: &'static [&'static str],
}

/// The address of an [`IdentityRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityAddress {
    Fixed(&'static str),
    /// A path on the host of the token endpoint.
    OnTokenHost(&'static str),
    /// The host of the token endpoint with `api.` before it; on a host of their own, the path
    /// `/api/v3` before the last part (GitHub and GitHub Enterprise Server).
    Github(&'static str),
}

/// How a provider's token endpoint and tokens behave.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    /// Parameters of every authorization request.
    pub authorize_parameters: &'static [(&'static str, &'static str)],
    /// The parameter of the authorization request that holds the scopes.
    pub scope_parameter: &'static str,
    /// What stands between two scopes in requests. Responses are read with either.
    pub scope_separator: char,
    pub rotation: Rotation,
    /// A refresh ends the access token before it at once. Such tokens are never refreshed ahead of
    /// need, and content is told a lifetime that ends when the portal refreshes.
    pub refresh_ends_access_token: bool,
    pub unstated_lifetime: UnstatedLifetime,
    pub refresh_token_life: RefreshTokenLife,
    /// Whether refresh requests repeat the scopes. Without them the granted ones stay (RFC 6749
    /// section 6). Servers that granted fewer than were requested refuse the whole list (seen with
    /// `oidc-provider`); Microsoft wants it.
    pub sends_scopes_at_refresh: bool,
    /// Whether refresh requests repeat the redirect URI.
    pub sends_redirect_uri_at_refresh: bool,
    /// The field of an error response that holds the error code.
    pub error_field: &'static str,
    pub refusals: &'static [Refusal],
    /// The member of a token response that holds the person's tokens; empty: the response itself.
    pub tokens_within: &'static str,
    /// The ID token is what content needs, and is kept in place of the access token.
    pub keeps_id_token: bool,
    /// Fields of a token response that content needs besides the token.
    pub extra_fields: &'static [&'static str],
    pub revocation: RevocationKind,
    pub identity: Identity,
    /// The field of a token response that names the account, where its tokens are no JWTs; empty:
    /// none.
    pub account_field: &'static str,
    /// Whether the provider knows PKCE. Some refuse or ignore it.
    pub uses_pkce: bool,
    /// There are no public clients: a secret is always needed.
    pub confidential_only: bool,
}

impl Profile {
    /// As RFC 6749 describes it, careful where it leaves something open.
    pub const STANDARD: Self = Self {
        authorize_parameters: &[],
        scope_parameter: "scope",
        scope_separator: ' ',
        rotation: Rotation::SingleUse,
        refresh_ends_access_token: false,
        unstated_lifetime: UnstatedLifetime::Assumed(Duration::from_secs(3600)),
        refresh_token_life: RefreshTokenLife::Unknown,
        sends_scopes_at_refresh: false,
        sends_redirect_uri_at_refresh: false,
        error_field: "error",
        refusals: &[],
        tokens_within: "",
        keeps_id_token: false,
        extra_fields: &[],
        revocation: RevocationKind::Standard,
        identity: Identity::Claims,
        account_field: "",
        uses_pkce: true,
        confidential_only: false,
    };
}

impl Refusal {
    /// A refusal that its code alone tells.
    pub const fn by_code(code: &'static str, meaning: Meaning) -> Self {
        Self {
            code,
            subtype: "",
            about: "",
            meaning,
        }
    }
}
