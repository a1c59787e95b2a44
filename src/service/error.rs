//! The error of every operation in `service`. An error keeps its source; it is logged once, where
//! it is answered: `web::error_pages` for requests, the caller that goes on without for the rest.

use crate::{domain::form::FieldError, store, vault};
use std::time::Duration;

/// Why an operation failed. All but the last three are written for the person who asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It does not exist, or the caller may not know that it does.
    #[error("not found")]
    NotFound,
    /// The caller may not do this; the sentence says who may.
    #[error("{0}")]
    Forbidden(&'static str),
    /// Invalid input: all problems at once.
    #[error("{} problem(s)", .0.len())]
    Invalid(Vec<FieldError>),
    /// A name is taken; the sentence says which.
    #[error("{0}")]
    Conflict(String),
    /// The change is based on an older version of what the word names.
    #[error("Somebody else changed this {0} meanwhile.")]
    ChangedMeanwhile(&'static str),
    /// Too many tries: retry after this time.
    #[error("too many tries")]
    TooMany(Duration),
    /// The portal does too much of this at the same time: retry after this time.
    #[error("overloaded")]
    Overloaded(Duration),
    /// The database failed; [`Error::is_busy`] tells whether a retry may help.
    #[error(transparent)]
    Store(store::Error),
    /// A sealed value does not open, or a value cannot be sealed.
    #[error(transparent)]
    Vault(#[from] vault::Error),
    /// A defect of this program, or a row that contradicts another one.
    #[error("{0}")]
    Internal(&'static str),
}

impl Error {
    /// Whether the database is locked, full or unreachable, so that the same call may succeed
    /// later.
    pub fn is_busy(&self) -> bool {
        matches!(self, Error::Store(store::Error::Busy(_)))
    }

    /// Logs a failure inside the portal, at the place that answers it: a warning for a busy
    /// database, an error for anything else that nobody outside can mend. `doing` says what failed.
    pub fn log(&self, doing: &'static str) {
        match self {
            Error::Store(store::Error::Busy(_)) => {
                tracing::warn!(reason = %self, "database busy: {doing}");
            }
            Error::Store(_) | Error::Vault(_) | Error::Internal(_) => {
                tracing::error!(reason = %self, "internal error: {doing}");
            }
            _ => {}
        }
    }
}

impl store::WriteError for Error {
    fn is_conflict(&self) -> bool {
        matches!(self, Error::Store(store::Error::Conflict))
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::NotFound => Error::NotFound,
            other => Error::Store(other),
        }
    }
}

/// An [`Error::Invalid`] with one problem; `key` names the field.
pub fn invalid(key: &str, message: impl Into<String>) -> Error {
    Error::Invalid(vec![FieldError::new(key, message)])
}

/// Says `sentence` if a unique constraint failed. For inserts and updates whose only unique value
/// is one that the caller chose.
pub(in crate::service) fn name_taken(sentence: &str) -> impl FnOnce(store::Error) -> Error + '_ {
    move |error| match error {
        store::Error::Taken => Error::Conflict(sentence.to_owned()),
        other => other.into(),
    }
}
