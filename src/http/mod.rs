//! What pages, the API and the proxy all need of a request and of an answer: the client's address,
//! the requested host, whether it is a navigation, whose browser session it belongs to, limits of
//! bodies, and errors with their reference. Knows neither pages nor apps.

pub mod assets;
pub mod body;
pub mod client_address;
pub mod client_words;
pub mod codes;
pub mod correlation;
pub mod endpoint;
pub mod errors;
pub mod host;
pub mod navigation;
pub mod open_counts;
pub mod presented_key;
pub mod query;
pub mod redirect;
pub mod sessions;
pub mod trailers;
pub mod upload;

/// Fails if the future of a handler is large: actix moves it several times before it runs. Rare and
/// large parts of it are to be boxed.
#[cfg(test)]
pub fn assert_small<Arguments, Handling: Future>(_: impl Fn(Arguments) -> Handling) {
    let bytes = size_of::<Handling>();
    assert!(bytes < 3072, "{bytes} bytes");
}
