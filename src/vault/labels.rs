//! The places of all sealed values: table, column, and what identifies the row. They are the
//! associated data of the encryption. `store::sealed` lists the same columns for re-sealing.

use super::SealContext;
use crate::domain::{
    Id, connection::Connection, content::Content, integration::Integration, person::Person,
};

fn place<'a>(table: &'a str, column: &'a str, row: &'a str) -> SealContext<'a> {
    SealContext { table, column, row }
}

/// A named value of the installation.
pub fn meta(name: &str) -> SealContext<'_> {
    place("meta", "value", name)
}

/// The current client secret of an integration; `row` is its GUID.
pub fn client_secret(row: &str) -> SealContext<'_> {
    place("integrations", "client_secret", row)
}

/// The previous client secret of an integration; `row` is its GUID.
pub fn previous_client_secret(row: &str) -> SealContext<'_> {
    place("integrations", "previous_client_secret", row)
}

/// `access_token` or `refresh_token` of a connection; `row` is a [`connection_row`].
pub fn connection_token<'a>(column: &'a str, row: &'a str) -> SealContext<'a> {
    place("connections", column, row)
}

/// The identity of a connection's row, with its owners: moving a token to another person or
/// integration makes it unreadable.
pub fn connection_row(
    connection: Id<Connection>,
    person: Id<Person>,
    integration: Id<Integration>,
) -> String {
    format!("{connection}/{person}/{integration}")
}

/// The PKCE verifier of an attempt; `row` is its GUID.
pub fn attempt_verifier(row: &str) -> SealContext<'_> {
    place("attempts", "verifier", row)
}

/// The address of a webhook; `row` is its GUID.
pub fn webhook_url(row: &str) -> SealContext<'_> {
    place("webhooks", "url", row)
}

/// The key of a webhook's signatures; `row` is its GUID.
pub fn webhook_secret(row: &str) -> SealContext<'_> {
    place("webhooks", "secret", row)
}

/// The request that revokes a token at its provider; `row` is the revocation's GUID.
pub fn revocation_request(row: &str) -> SealContext<'_> {
    place("revocations", "request", row)
}

/// The refresh token of an organisation sign-in; `row` is the browser session's id.
pub fn sign_in_grant(row: &str) -> SealContext<'_> {
    place("sign_in_grants", "refresh_token", row)
}

/// Nonce and PKCE verifier of a sign-in in flight; `row` is its `state`.
pub fn pending_sign_in(row: &str) -> SealContext<'_> {
    place("sessions", "sign_in", row)
}

/// A secret that waits to be shown; `row` is the hash of its name and its person.
pub fn shown_once(row: &str) -> SealContext<'_> {
    place("shown_once", "shown", row)
}

/// The value of a variable of an item's processes; `row` is a [`variable_row`].
pub fn variable(row: &str) -> SealContext<'_> {
    place("environment", "value", row)
}

/// The identity of a variable's row, with its item: moving a value to another item makes it
/// unreadable.
pub fn variable_row(item: Id<Content>, name: &str) -> String {
    format!("{item}/{name}")
}
