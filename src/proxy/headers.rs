//! What passes between a browser and an app, and what does not. Names are compared in lower case
//! with `_` read as `-`, since WSGI, Rack and CGI make no difference between them.

use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// The header that carries the viewer's session token.
pub const SESSION_TOKEN: HeaderName = HeaderName::from_static("posit-connect-user-session-token");
pub const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
/// Connect's names for where the app stands and what was asked.
pub const APP_BASE_URL: HeaderName = HeaderName::from_static("rstudio-connect-app-base-url");
pub const REQUEST_URL: HeaderName = HeaderName::from_static("x-rsc-request");

/// RFC 9110 section 7.6.1, and what belongs to one connection only.
const HOP_BY_HOP: [&str; 11] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "expect",
];

/// Headers by which apps and proxies believe who somebody is or where a request came from.
const IDENTITY: [&str; 10] = [
    "authorization",
    "forwarded",
    "x-real-ip",
    "x-original-url",
    "x-rewrite-url",
    "remote-user",
    "x-remote-user",
    "x-streamlit-user",
    "shiny-server-credentials",
    "via",
];
const IDENTITY_PREFIXES: [&str; 7] = [
    "posit-connect-",
    "rstudio-connect-",
    "x-rsc-",
    "x-forwarded-",
    "x-auth-",
    "x-ms-client-principal",
    "x-accel-",
];

/// Answers of apps that would reach beyond their place.
const SITE_WIDE: [&str; 8] = [
    "clear-site-data",
    "service-worker-allowed",
    "strict-transport-security",
    "cross-origin-opener-policy",
    "public-key-pins",
    "alt-svc",
    "nel",
    "report-to",
];

/// Names that `Connection` headers list, but for the words that stand there in most requests.
pub fn connection_names<'a>(values: impl Iterator<Item = &'a HeaderValue>) -> Vec<String> {
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .filter(|name| !matches!(name.as_str(), "" | "close" | "keep-alive" | "upgrade"))
        .collect()
}

/// Whether a request header may reach an app. `cookie`, `host` and `content-length` are handled
/// apart.
pub fn request_passes(name: &str, listed: &[String]) -> bool {
    // Names of the http library are in lower case already.
    !name.contains('_')
        && !HOP_BY_HOP.contains(&name)
        && !IDENTITY.contains(&name)
        && !IDENTITY_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
        && !matches!(name, "cookie" | "host" | "content-length")
        && !listed.iter().any(|other| other == name)
}

/// Whether an app's answer header may reach the browser. `set-cookie`, `location` and
/// `content-length` are handled apart.
pub fn response_passes(name: &str, listed: &[String]) -> bool {
    !HOP_BY_HOP.contains(&name)
        && !SITE_WIDE.contains(&name)
        && !name.starts_with("x-accel-")
        && !matches!(
            name,
            "set-cookie" | "location" | "content-location" | "content-length" | "x-correlation-id"
        )
        && !listed.iter().any(|other| other == name)
}

/// Whether a field behind an app's body may reach the browser: none that a head has to decide
/// about.
pub fn trailer_passes(name: &str) -> bool {
    response_passes(name, &[])
        && !matches!(
            name,
            "host" | "content-type" | "content-encoding" | "cache-control" | "authorization"
        )
        && !name.starts_with("access-control-")
        && name != "content-security-policy"
}

/// The cookies of the portal itself; no app ever sees or sets them.
pub fn is_ours(name: impl AsRef<[u8]>) -> bool {
    let name = name.as_ref();
    name.strip_prefix(b"__Host-")
        .unwrap_or(name)
        .starts_with(b"valetkey")
}

/// The cookies that an app gets: all of the browser's but ours. Split on `;` only, no quote is
/// interpreted.
pub fn cookies_for_app(headers: &HeaderMap) -> Option<Vec<u8>> {
    let mut kept: Vec<u8> = Vec::new();
    for line in headers.get_all("cookie") {
        for part in line.as_bytes().split(|byte| *byte == b';') {
            let part = part.trim_ascii();
            let name = part
                .split(|byte| *byte == b'=')
                .next()
                .unwrap_or(part)
                .trim_ascii();
            if part.is_empty() || is_ours(name) {
                continue;
            }
            if !kept.is_empty() {
                kept.extend_from_slice(b"; ");
            }
            kept.extend_from_slice(part);
        }
    }
    (!kept.is_empty()).then_some(kept)
}

/// Adds a line to a request's head. Names and values come out of checked types, so neither holds a
/// line break.
pub fn add(head: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    for part in [name.as_str().as_bytes(), b": ", value, b"\r\n"] {
        head.extend_from_slice(part);
    }
}

/// A value as text, byte for byte a letter (RFC 9110 section 5.5: bytes above ASCII mean nothing to
/// us), and back.
pub fn as_text(value: &HeaderValue) -> String {
    value.as_bytes().iter().copied().map(char::from).collect()
}
pub fn from_text(text: &str) -> Option<HeaderValue> {
    let bytes: Result<Vec<u8>, _> = text
        .chars()
        .map(|letter| u8::try_from(u32::from(letter)))
        .collect();
    HeaderValue::from_bytes(&bytes.ok()?).ok()
}

/// Whether a client takes fields behind a body (RFC 9110 section 10.1.4).
pub fn takes_trailers(headers: &HeaderMap) -> bool {
    let mut words = headers
        .get_all(header::TE)
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    words.any(|word| word.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// Whether a content type is that of an event stream; capitals and parameters make no difference.
pub fn is_event_stream(kind: &[u8]) -> bool {
    kind.split(|byte| *byte == b';')
        .next()
        .is_some_and(|kind| kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream"))
}

/// Adds what an app gets of a browser's request, but for the names in `leave_out`.
pub fn for_app(incoming: &HeaderMap, head: &mut Vec<u8>, leave_out: &[HeaderName]) {
    let listed = connection_names(incoming.get_all(header::CONNECTION));
    for (name, value) in incoming {
        if request_passes(name.as_str(), &listed) && !leave_out.contains(name) {
            add(head, name, value.as_bytes());
        }
    }
    // RFC 9110 section 10.1.4: for the next hop, which is ours, too.
    if takes_trailers(incoming) {
        add(head, &header::TE, b"trailers");
    }
    if let Some(cookies) = cookies_for_app(incoming) {
        add(head, &header::COOKIE, &cookies);
    }
}

/// A path of an app's, as browsers see it: `prefix` is what stands before its paths where it runs,
/// `base` where the item stands. An app that knows its place names it itself.
fn placed(path: &str, prefix: &str, base: &str) -> String {
    let below = |path: &'_ str, place: &str| {
        path.strip_prefix(place)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']))
    };
    let knows = |path: &str| base != "/" && below(path, base.trim_end_matches('/'));
    let rest = if !knows(path) && below(path, prefix) {
        &path[prefix.len()..]
    } else {
        path
    };
    if knows(rest) {
        rest.to_owned()
    } else {
        format!("{base}{}", rest.trim_start_matches('/'))
    }
}

/// An app's cookie, bound to its own place: no Domain, a Path below the item; `None` if it may not
/// be set at all.
/// `__Host-` speaks for a whole host, so only an app that has one sets it.
pub fn cookie_from_app(cookie: &str, prefix: &str, base: &str) -> Option<String> {
    let mut parts = cookie.split(';');
    let pair = parts.next()?.trim();
    let name = pair.split('=').next()?.trim();
    let for_host = name
        .get(..7)
        .is_some_and(|start| start.eq_ignore_ascii_case("__Host-"));
    if name.is_empty() || is_ours(name) || (for_host && base != "/") {
        return None;
    }
    let mut path = base.to_owned();
    let mut kept = vec![pair.to_owned()];
    for part in parts.map(str::trim).filter(|part| !part.is_empty()) {
        let (key, value) = part
            .split_once('=')
            .map_or((part, ""), |(key, value)| (key.trim(), value.trim()));
        match key.to_ascii_lowercase().as_str() {
            "domain" => {}
            "path" if value.starts_with('/') => path = placed(value, prefix, base),
            "path" => {}
            _ => kept.push(part.to_owned()),
        }
    }
    kept.push(format!("Path={path}"));
    Some(kept.join("; "))
}

/// Where an app's redirect leads, seen from the browser: its own addresses become ours. `upstream`
/// is the app's origin,
/// `prefix` the path that stands before its paths there.
pub fn location_from_app(
    location: &str,
    upstream: &str,
    prefix: &str,
    base: &str,
    public: &str,
) -> String {
    // An origin ends where a path, a query or a fragment begins, and not in the middle of a name or
    // a port.
    let behind = |origin: &str| {
        location
            .strip_prefix(origin)
            .filter(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']))
    };
    let path = match behind(upstream).or_else(|| behind(public)) {
        Some("") => "/",
        Some(rest) if !rest.starts_with('/') => return format!("{base}{rest}"),
        Some(rest) => rest,
        None => location,
    };
    // Elsewhere, or relative to the page.
    if !path.starts_with('/') || path.starts_with("//") {
        path.to_owned()
    } else {
        placed(path, prefix, base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_never_passes_in_any_spelling() {
        for name in [
            "posit-connect-user-session-token",
            "posit_connect_user_session_token",
            "rstudio-connect-credentials",
            "shiny-server-credentials",
            "shiny_server_credentials",
            "x-forwarded-for",
            "x-forwarded-user",
            "x_forwarded_for",
            "authorization",
            "x-rsc-authorization",
            "x-rsc-request",
            "forwarded",
            "connection",
            "upgrade",
            "x-streamlit-user",
            "cookie",
        ] {
            assert!(!request_passes(name, &[]), "{name}");
        }
        assert!(request_passes("accept", &[]));
        assert!(request_passes("sec-websocket-protocol", &[]));
        assert!(!request_passes("x-special", &["x-special".into()]));
    }
    #[test]
    fn our_cookies_never_reach_an_app() {
        let mut headers = HeaderMap::new();
        for line in [
            "a=1; valetkey=secret; b=\"x; __Host-valetkey=secret\"",
            "valetkey=again;valetkey-theme=dark",
            "_streamlit_xsrf=2|a|b",
        ] {
            headers.append(
                HeaderName::from_static("cookie"),
                HeaderValue::from_static(line),
            );
        }
        let kept = String::from_utf8(cookies_for_app(&headers).unwrap()).unwrap();
        assert_eq!(kept, "a=1; b=\"x; _streamlit_xsrf=2|a|b");
    }
    #[test]
    fn an_apps_cookie_stays_in_its_place() {
        let base = "/content/g/";
        let cookie_from_app =
            |cookie: &str, base: &str| super::cookie_from_app(cookie, "/base", base);
        assert_eq!(
            cookie_from_app("a=1; Path=/base/x", base).as_deref(),
            Some("a=1; Path=/content/g/x")
        );
        assert_eq!(
            cookie_from_app("a=1; Path=/base", base).as_deref(),
            Some("a=1; Path=/content/g/")
        );
        assert_eq!(
            cookie_from_app("a=1; Path=/basement", base).as_deref(),
            Some("a=1; Path=/content/g/basement")
        );
        assert_eq!(
            cookie_from_app("a=1; Path=/content/g", base).as_deref(),
            Some("a=1; Path=/content/g")
        );
        assert_eq!(
            cookie_from_app("a=1; Path=/content/gg", base).as_deref(),
            Some("a=1; Path=/content/g/content/gg")
        );
        assert_eq!(
            cookie_from_app("a=1; Path=/base/content/g/x", base).as_deref(),
            Some("a=1; Path=/content/g/x"),
            "kept prefix"
        );
        assert_eq!(
            cookie_from_app("a=1; Path=/base/x", "/").as_deref(),
            Some("a=1; Path=/x")
        );
        assert_eq!(
            cookie_from_app("a=1; Path=/; Domain=example.org; HttpOnly", base).as_deref(),
            Some("a=1; HttpOnly; Path=/content/g/")
        );
        assert_eq!(
            cookie_from_app("a=1; path=/content/g/x", base).as_deref(),
            Some("a=1; Path=/content/g/x")
        );
        assert_eq!(
            cookie_from_app("a=1; Path=/sub", base).as_deref(),
            Some("a=1; Path=/content/g/sub")
        );
        assert_eq!(
            cookie_from_app("a=1", base).as_deref(),
            Some("a=1; Path=/content/g/")
        );
        assert_eq!(cookie_from_app("valetkey=x", base), None);
        assert_eq!(cookie_from_app("__Host-valetkey=x; Path=/", base), None);
        assert_eq!(cookie_from_app("__host-a=x; Path=/", base), None);
        assert_eq!(
            cookie_from_app("__Host-a=x; Secure; Path=/", "/").as_deref(),
            Some("__Host-a=x; Secure; Path=/")
        );
        assert_eq!(
            cookie_from_app("__Host-valetkey-enter=x; Path=/", "/"),
            None
        );
    }
    #[test]
    fn bytes_above_ascii_pass_as_they_are() {
        for bytes in [
            &b"plain"[..],
            b"caf\xe9",
            "caf\u{e9}".as_bytes(),
            &[0x80, 0xff],
        ] {
            let value = HeaderValue::from_bytes(bytes).unwrap();
            assert_eq!(from_text(&as_text(&value)).unwrap().as_bytes(), bytes);
        }
    }
    #[test]
    fn words_of_headers_are_compared_as_the_rfc_says() {
        let te = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.append(header::TE, HeaderValue::from_static(text));
            takes_trailers(&headers)
        };
        assert!(
            te("trailers") && te("deflate;q=0.5, Trailers") && !te("trailersx") && !te("deflate")
        );
        assert!(
            is_event_stream(b"Text/Event-Stream; charset=utf-8")
                && is_event_stream(b"text/event-stream")
        );
        assert!(!is_event_stream(b"text/event-streamx") && !is_event_stream(b""));
    }
    #[test]
    fn redirects_of_an_app_stay_with_it() {
        let to = |location: &str| {
            location_from_app(
                location,
                "http://127.0.0.1:8501",
                "/base",
                "/content/g/",
                "https://portal",
            )
        };
        assert_eq!(to("/x?y"), "/content/g/x?y");
        assert_eq!(to("/base/x"), "/content/g/x");
        assert_eq!(to("http://127.0.0.1:8501/base/x"), "/content/g/x");
        assert_eq!(to("https://portal/x"), "/content/g/x");
        assert_eq!(to("/content/g/x"), "/content/g/x");
        assert_eq!(to("/content/g?x"), "/content/g?x");
        assert_eq!(to("/base?x"), "/content/g/?x");
        assert_eq!(
            to("/base//elsewhere.example/"),
            "/content/g/elsewhere.example/"
        );
        assert_eq!(to("x/y"), "x/y");
        assert_eq!(
            to("https://elsewhere.example/"),
            "https://elsewhere.example/"
        );
        assert_eq!(
            to("https://portal.evil.example/x"),
            "https://portal.evil.example/x"
        );
        assert_eq!(to("http://127.0.0.1:85011/x"), "http://127.0.0.1:85011/x");
        assert_eq!(to("http://127.0.0.1:8501?x"), "/content/g/?x");
        assert_eq!(
            location_from_app("/base/x", "http://h", "/base", "/", "https://own"),
            "/x"
        );
    }
}
