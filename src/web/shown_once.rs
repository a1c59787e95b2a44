//! Secrets between the POST that makes them and the page that shows them: sealed, for one person,
//! once, for five minutes. In the database, since another node may answer the next request.

use crate::{
    domain::{Id, person::Person},
    service::{Error, Service},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

/// What the page shows.
pub struct Shown {
    pub title: String,
    pub intro: String,
    pub label: String,
    pub secret: SecretString,
    /// Lines for the app's environment, with `{key}` where the secret goes.
    pub environment: String,
    pub done: String,
}

/// The same as text, to be sealed.
#[derive(Serialize, Deserialize)]
struct Written {
    title: String,
    intro: String,
    label: String,
    secret: String,
    environment: String,
    done: String,
}

/// Keeps a secret and returns the address that shows it.
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

/// The secret, if it is this person's and was not shown before.
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
