//! Secrets between the POST that makes them and the page that shows them: in memory, for one person, once, for five minutes.

use crate::{
    domain::{Id, person::Person},
    vault::random,
};
use quick_cache::sync::Cache;
use secrecy::SecretString;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

const KEPT_FOR: Duration = Duration::from_secs(300);

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

pub struct ShownOnce(Cache<String, (Arc<Shown>, Instant)>);

impl Default for ShownOnce {
    fn default() -> Self {
        Self(Cache::new(1000))
    }
}

impl ShownOnce {
    /// Keeps a secret and returns the address that shows it.
    pub fn keep(&self, shown: Shown) -> String {
        let name = random::token();
        self.0.insert(name.clone(), (Arc::new(shown), Instant::now()));
        format!("/account/shown/{name}")
    }
    /// The secret, if it is this person's and was not shown before.
    pub fn take(&self, name: &str, person: Id<Person>) -> Option<Arc<Shown>> {
        self.0.get(name).filter(|(shown, _)| shown.person == person)?;
        // Whoever removes it has it: two requests at once never both do.
        self.0.remove(name).and_then(|(_, (shown, at))| (at.elapsed() < KEPT_FOR).then_some(shown))
    }
}
