//! Forms that know on which version of a row they are based: nobody overwrites unseen what somebody
//! else saved meanwhile. The version is the time of the row's last change, in a hidden field.

use crate::{
    domain::{Timestamp, form::FieldError},
    service::Error,
    web::forms::FormValues,
};

/// The name of the hidden field.
const VERSION: &str = "version";

/// The version on which a posted form is based; `None` if it does not say.
pub(super) fn based_on(typed: &FormValues) -> Option<Timestamp> {
    typed.text(VERSION).parse().ok().map(Timestamp)
}

/// The value of the hidden field: that of the posted form if it is shown again, since what was typed
/// is based on it; else that of the row, last changed at `stored`.
pub(super) fn version(typed: Option<&FormValues>, stored: Timestamp) -> String {
    let posted = typed.and_then(|typed| typed.non_empty(VERSION));
    posted.map_or_else(|| stored.0.to_string(), str::to_owned)
}

/// What a form says that was refused with [`Error::ChangedMeanwhile`]: what is stored now where it
/// differs from what was typed. Makes the next save one that is based on what is stored now, since
/// whoever saves again has seen it.
pub(super) fn differences(
    changed: &Error,
    stored: &FormValues,
    typed: &mut FormValues,
) -> FieldError {
    typed.0.retain(|(name, _)| name != VERSION);
    let differs = |(name, now): &&(String, String)| {
        let text = typed.get(name).map(|text| text.replace("\r\n", "\n"));
        text.is_some_and(|text| text.trim() != now.trim())
    };
    let words: Vec<String> = stored
        .0
        .iter()
        .filter(differs)
        .map(|(name, now)| format!("{}: “{now}”", name.replace('_', " ")))
        .collect();
    let what = match words.len() {
        0 => "What you typed is what is stored now.".to_owned(),
        _ => format!(
            "Stored now, and different from what you typed: {}. Save again to replace it by what you typed.",
            words.join("; ")
        ),
    };
    FieldError::new("", format!("{changed} {what}"))
}
