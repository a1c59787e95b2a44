//! HTTP for browsers and programs: turns a request into a service call, and the result into a page
//! or JSON. Access rules come from `domain::access`, transactions belong to `service`; no diesel
//! type appears here. Content is served by `proxy`, which shares [`visitor`],
//! `sessions`,
//! [`body`] and [`problems`] with this module.

pub mod api;
pub mod assets;
pub mod body;
pub mod confirmation;
pub mod forms;
pub mod pages;
pub mod problems;
pub mod routes;
pub mod sessions;
pub mod shown_once;
pub mod view;
pub mod visitor;
