//! HTTP for people and programs: turns a request into a service call, and the result into a page or
//! JSON. Access rules come from `domain::access`, transactions belong to `service`; no diesel type
//! appears here. Content is served by `proxy`, which this module does not know.

pub mod activity_plots;
pub mod api;
pub mod confirmation;
pub mod error_pages;
pub mod forms;
pub mod health;
pub mod listing;
pub mod pages;
pub mod plot;
pub mod routes;
pub mod shown_once;
pub mod view;
pub mod visitor;
