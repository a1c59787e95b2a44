//! Names used by the exchange that the portal serves to apps (RFC 8693), with Posit Connect's own
//! token types. Constants only: the exchange is in `service::grants::exchange`.

/// The `grant_type` of the exchange.
pub const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// A viewer's session token: the subject token, or the requested type of a renewal.
pub const USER_SESSION_TOKEN: &str = "urn:posit:connect:user-session-token";
/// A token for the content item itself, as subject token.
pub const CONTENT_SESSION_TOKEN: &str = "urn:posit:connect:content-session-token";
/// The provider's access token: issued unless another type is requested.
pub const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// Temporary AWS keys, as base64 of a JSON object.
pub const AWS_CREDENTIALS: &str = "urn:ietf:params:aws:token-type:credentials";
/// A key of the portal's own API.
pub const API_KEY: &str = "urn:posit:connect:api-key";
/// A token of this portal, for a service that trusts it.
pub const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
/// Requested token types that are known, and do not fit every subject token.
pub const OTHER_TOKEN_TYPES: [&str; 4] = [AWS_CREDENTIALS, API_KEY, ID_TOKEN, USER_SESSION_TOKEN];
