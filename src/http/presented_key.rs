//! The API key that a request presents: `Authorization: Key …`, or `X-RSC-Authorization` where
//! something in between uses `Authorization` itself.

use actix_web::http::header::{AUTHORIZATION, HeaderMap, HeaderName};

/// For keys, where something in between uses `Authorization` itself.
const X_RSC_AUTHORIZATION: HeaderName = HeaderName::from_static("x-rsc-authorization");

/// What a request says about an API key.
#[derive(Debug, PartialEq, Eq)]
pub enum PresentedKey<'a> {
    None,
    Key(&'a str),
    /// Several headers of one name.
    Several,
    /// Another scheme only.
    OtherScheme,
}

/// Whether the header's scheme is `Key`.
fn starts_with_key(text: &str) -> bool {
    text.get(..4)
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("key "))
}

/// The key in `Authorization` or, if that holds none, in `X-RSC-Authorization`.
pub fn presented_key(headers: &HeaderMap) -> PresentedKey<'_> {
    let mut has_other = false;
    for name in [AUTHORIZATION, X_RSC_AUTHORIZATION] {
        let mut values = headers.get_all(name);
        let Some(first) = values.next() else { continue };
        if values.next().is_some() {
            return PresentedKey::Several;
        }
        let text = first.to_str().unwrap_or("");
        if starts_with_key(text) {
            return PresentedKey::Key(text.get(4..).unwrap_or("").trim());
        }
        has_other = true;
    }
    if has_other {
        PresentedKey::OtherScheme
    } else {
        PresentedKey::None
    }
}
