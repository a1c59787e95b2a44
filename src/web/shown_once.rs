//! Secrets on their way from the POST that creates them to the page that shows them: sealed, bound
//! to one person, readable once, for five minutes. They are stored in a table of their own, not in
//! the session's row, so that any node can answer the next request and a session row holds no
//! secret.

use crate::{
    domain::{Id, person::Person},
    service::{Error, Service},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

/// A secret and the texts of the page that shows it.
pub struct Shown {
    pub title: String,
    pub intro: String,
    pub label: String,
    pub secret: SecretString,
    /// Lines for the app's environment, with `{key}` as the placeholder for the secret.
    pub environment: String,
    /// Path of the page's “done” link.
    pub done: String,
}

/// The serialized form of [`Shown`] that gets sealed.
#[derive(Serialize, Deserialize)]
struct Written {
    title: String,
    intro: String,
    label: String,
    secret: String,
    environment: String,
    done: String,
}

/// Stores a secret and returns the path of the page that shows it.
pub async fn keep(service: &Service, person: Id<Person>, shown: Shown) -> Result<String, Error> {
    let Shown {
        title,
        intro,
        label,
        secret,
        environment,
        done,
    } = shown;
    let written = Written {
        title,
        intro,
        label,
        secret: secret.expose_secret().to_owned(),
        environment,
        done,
    };
    let text = SecretString::from(serde_json::to_string(&written).map_err(|_| Error::Internal)?);
    Ok(format!(
        "/account/shown/{}",
        service.keep_shown(person, &text).await?
    ))
}

/// Reads and deletes a secret. `None` if it belongs to another person, was read before, or expired.
pub async fn take(
    service: &Service,
    person: Id<Person>,
    name: &str,
) -> Result<Option<Shown>, Error> {
    let Some(text) = service.take_shown(person, name).await? else {
        return Ok(None);
    };
    let written: Written =
        serde_json::from_str(text.expose_secret()).map_err(|_| Error::Internal)?;
    let Written {
        title,
        intro,
        label,
        secret,
        environment,
        done,
    } = written;
    Ok(Some(Shown {
        title,
        intro,
        label,
        secret: secret.into(),
        environment,
        done,
    }))
}
