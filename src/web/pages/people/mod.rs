//! People, for administrators: `/people` and below. Roles, passwords, one-time links, locking,
//! ending sessions and connections. Every change needs confirmation (`web::confirmation`).

pub mod bulk;
pub mod data;
pub mod delete;
pub mod disconnect;
pub mod form;
pub mod import;
pub mod invite;
pub mod list;
pub mod lock;
pub mod new;
pub mod sessions;
pub mod show;
