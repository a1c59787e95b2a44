//! The audit log for administrators: `/audit` (list with filter), `/audit/export` (JSON lines) and
//! `/audit/uses` (exchanges by hour).

pub mod list;
pub mod uses;
