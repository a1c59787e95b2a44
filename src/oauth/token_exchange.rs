//! The words of the exchange that we serve to content (RFC 8693), with the product's own token
//! types.

pub const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
pub const USER_SESSION_TOKEN: &str = "urn:posit:connect:user-session-token";
pub const CONTENT_SESSION_TOKEN: &str = "urn:posit:connect:content-session-token";
pub const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// Requested token types that other products of this kind know and we do not issue.
pub const FOREIGN_TYPES: [&str; 3] = [
    "urn:ietf:params:aws:token-type:credentials",
    "urn:posit:connect:api-key",
    "urn:ietf:params:oauth:token-type:id_token",
];
