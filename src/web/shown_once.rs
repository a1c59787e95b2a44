//! Secrets on their way from the POST that creates them to the page that shows them: sealed, bound
//! to one person, readable once, for five minutes. They are stored in a table of their own, not in
//! the session's row, so that any node can answer the next request and a session row holds no
//! secret.

use crate::{
    domain::{Id, person::Person},
    service::{Error, Services},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

/// A secret and the texts of the page that shows it.
pub struct SecretToShow {
    pub title: String,
    pub intro: String,
    pub label: String,
    pub secret: SecretString,
    /// Lines for the app's environment, with `{key}` as the placeholder for the secret.
    pub environment: String,
    /// Path of the page's “done” link.
    pub done: String,
}

/// The serialized form of [`SecretToShow`] that gets sealed.
#[derive(Serialize, Deserialize)]
struct StoredSecret {
    title: String,
    intro: String,
    label: String,
    secret: String,
    environment: String,
    done: String,
}

/// Stores a secret and returns the path of the page that shows it.
pub async fn store(
    service: &Services,
    person: Id<Person>,
    shown: SecretToShow,
) -> Result<String, Error> {
    let SecretToShow {
        title,
        intro,
        label,
        secret,
        environment,
        done,
    } = shown;
    let written = StoredSecret {
        title,
        intro,
        label,
        secret: secret.expose_secret().to_owned(),
        environment,
        done,
    };
    let text = SecretString::from(
        serde_json::to_string(&written)
            .map_err(|_| Error::Internal("a secret to show is damaged"))?,
    );
    Ok(format!(
        "/account/shown/{}",
        service.shown_once.store_shown_once(person, &text).await?
    ))
}

/// Reads and deletes a secret. `None` if it belongs to another person, was read before, or expired.
pub async fn take(
    service: &Services,
    person: Id<Person>,
    name: &str,
) -> Result<Option<SecretToShow>, Error> {
    let Some(text) = service.shown_once.take_shown_once(person, name).await? else {
        return Ok(None);
    };
    let written: StoredSecret = serde_json::from_str(text.expose_secret())
        .map_err(|_| Error::Internal("a secret to show is damaged"))?;
    let StoredSecret {
        title,
        intro,
        label,
        secret,
        environment,
        done,
    } = written;
    Ok(Some(SecretToShow {
        title,
        intro,
        label,
        secret: secret.into(),
        environment,
        done,
    }))
}
