//! Who is told what by mail and webhooks: `/notifications` and below. Administrators only.

pub mod show;
pub mod webhooks;
