//! A viewer's consents and connections: `/consents` (list), `/consents/new` (the consent page),
//! `/consents/account` (decide about an unexpected account), revoking, disconnecting, and Connect's
//! login address `/__oauth__/integrations/{guid}/login`.
//!
//! A consent is always given by a POST from a page that names content item, integration and
//! account; no GET starts an authorization.

pub mod disconnect;
pub mod end;
pub mod list;
pub mod new;
pub mod other_account;
pub mod revoke;
pub mod uses;
