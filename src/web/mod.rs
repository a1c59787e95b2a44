//! HTTP for people and programs. Turns a request into a service call and the result into a page or
//! JSON; never names diesel.

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
