//! Groups and their members: `/groups` and below. Administrators only. Changes need confirmation
//! (`web::confirmation`), since a group's members gain access.

pub mod list;
pub mod show;
