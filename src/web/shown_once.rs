//! Secrets between the POST that makes them and the page that shows them: in memory, for one person, once, for five minutes.

use crate::{
    domain::{Id, person::Person},
    vault::random,
};
use moka::sync::Cache;
use secrecy::SecretString;
use std::{sync::Arc, time::Duration};

/// What the page shows.
pub struct Shown {
    pub person: Id<Person>,
    pub title: String,
    pub intro: String,
    pub label: String,
    pub secret: SecretString,
    /// Lines for the app's environment, with `{key}` where the secret goes.
    pub environment: String,
    pub done: String,
}

pub struct ShownOnce(Cache<String, Arc<Shown>>);

impl Default for ShownOnce {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(1000).time_to_live(Duration::from_secs(300)).build())
    }
}

impl ShownOnce {
    /// Keeps a secret and returns the address that shows it.
    pub fn keep(&self, shown: Shown) -> String {
        let name = random::token();
        self.0.insert(name.clone(), Arc::new(shown));
        format!("/account/shown/{name}")
    }
    /// The secret, if it is this person's and was not shown before.
    pub fn take(&self, name: &str, person: Id<Person>) -> Option<Arc<Shown>> {
        let found = self.0.get(name).filter(|shown| shown.person == person)?;
        self.0.remove(name);
        Some(found)
    }
}
