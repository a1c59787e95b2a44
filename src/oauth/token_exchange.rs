//! Names used by the exchange that the portal serves to apps (RFC 8693), with Posit Connect's own
//! token types. Constants only: the exchange is in `service::grants::exchange`.

/// The `grant_type` of the exchange.
pub const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// A viewer's session token: the subject token, or the requested type of a renewal.
pub const USER_SESSION_TOKEN: &str = "urn:posit:connect:user-session-token";
/// A token for the content item itself, as subject token; not supported.
pub const CONTENT_SESSION_TOKEN: &str = "urn:posit:connect:content-session-token";
/// The viewer's access token: issued unless another type is requested.
pub const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// Requested token types that products of this kind know and the portal does not issue.
pub const UNSUPPORTED_TOKEN_TYPES: [&str; 3] = [
    "urn:ietf:params:aws:token-type:credentials",
    "urn:posit:connect:api-key",
    "urn:ietf:params:oauth:token-type:id_token",
];
