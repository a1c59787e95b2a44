//! Which headers, cookies and trailers pass between a browser and an app, and how `Set-Cookie` and
//! `Location` are rewritten. Pure functions on text, without I/O.
//!
//! Names arrive in lower case. Request headers with `_` in their name never pass: WSGI, Rack and
//! CGI do not distinguish `_` from `-`, so they would be a second spelling of a filtered header.

use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// The header that carries the viewer's session token.
pub const SESSION_TOKEN: HeaderName = HeaderName::from_static("posit-connect-user-session-token");
/// Who is looking, as apps for Posit Connect read it: JSON with user name and groups.
pub const CREDENTIALS: HeaderName = HeaderName::from_static("rstudio-connect-credentials");
/// The same, as Shiny reads it.
pub const SHINY_CREDENTIALS: HeaderName = HeaderName::from_static("shiny-server-credentials");
/// The addresses that a request came through, client first.
pub const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The scheme that the browser sees.
pub const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The host and port that the browser sees.
pub const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// The item's path prefix without its last slash; absent where the item has a host of its own.
pub const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
/// Posit Connect's name for the item's public base URL, without its last slash.
pub const APP_BASE_URL: HeaderName = HeaderName::from_static("rstudio-connect-app-base-url");
/// Posit Connect's name for the full URL that the browser requested.
pub const REQUEST_URL: HeaderName = HeaderName::from_static("x-rsc-request");

/// The trace that the request is part of (W3C Trace Context).
const TRACEPARENT: HeaderName = HeaderName::from_static(crate::traces::TRACEPARENT);

/// Hop-by-hop headers (RFC 9110 section 7.6.1), and others that concern one connection only.
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

/// Request headers that never pass, whatever an item's settings say: the portal writes them itself,
/// or the next hop would act on them. (`Authorization` passes by its value: [`is_for_app`].)
const NEVER: [&str; 5] = [
    "authorization",
    "forwarded",
    "shiny-server-credentials",
    "via",
    "proxy",
];
/// Prefixes of such names.
const NEVER_PREFIXES: [&str; 5] = [
    "posit-connect-",
    "rstudio-connect-",
    "x-rsc-",
    "x-forwarded-",
    "x-accel-",
];

/// Names of request headers that browsers and common libraries send by themselves and that identify
/// nobody; the most frequent ones first, since they are compared one by one. Of all other headers only
/// these pass: names with one of [`STANDARD_PREFIXES`], names that begin with `x-` and contain none of
/// [`IDENTITY_WORDS`], and names in the item's settings.
const STANDARD: [&str; 39] = [
    "user-agent",
    "accept",
    "referer",
    "origin",
    "cache-control",
    "upgrade-insecure-requests",
    "priority",
    "range",
    "pragma",
    "connect-protocol-version",
    "connect-timeout-ms",
    "date",
    "depth",
    "destination",
    "device-memory",
    "dnt",
    "downlink",
    "dpr",
    "ect",
    "idempotency-key",
    "last-event-id",
    "max-forwards",
    "prefer",
    "purpose",
    "rtt",
    "save-data",
    "service-worker",
    "traceparent",
    "tracestate",
    "viewport-width",
    "want-digest",
    "width",
    "x-csrf-token",
    "x-csrftoken",
    "x-grpc-web",
    "x-requested-with",
    "x-user-agent",
    "x-xsrf-token",
    "x-xsrftoken",
];
/// Prefixes of such names, the most frequent ones first.
const STANDARD_PREFIXES: [&str; 13] = [
    "sec-",
    "accept-",
    "content-",
    "if-",
    "access-control-request-",
    "apollo-",
    "graphql-",
    "grpc-",
    "hx-",
    "mcp-",
    "turbo-",
    "tus-",
    "upload-",
];
/// Words in the names of headers by which proxies tell apps who a user is or where a request came
/// from (`X-WEBAUTH-USER`, `Cf-Access-Authenticated-User-Email`, `X-Amzn-Oidc-Identity`,
/// `Tailscale-User-Login`, `True-Client-Ip`, `X-Original-Url`). Apps believe them, and nothing but
/// the portal stands in front of an app. A word is what stands between hyphens.
const IDENTITY_WORDS: [&str; 68] = [
    "aad",
    "account",
    "address",
    "amzn",
    "assertion",
    "auth",
    "authenticated",
    "authentication",
    "authorization",
    "cert",
    "certificate",
    "cf",
    "claims",
    "clientcert",
    "clientip",
    "cloudflare",
    "consumer",
    "credential",
    "credentials",
    "dn",
    "email",
    "entitlements",
    "eppn",
    "external",
    "from",
    "group",
    "groups",
    "host",
    "iap",
    "identity",
    "impersonate",
    "ip",
    "jwt",
    "login",
    "mail",
    "member",
    "name",
    "oidc",
    "okta",
    "org",
    "organization",
    "orgid",
    "original",
    "owner",
    "person",
    "principal",
    "profile",
    "proxy",
    "real",
    "remote",
    "rewrite",
    "role",
    "roles",
    "saml",
    "scopes",
    "ssl",
    "sso",
    "sub",
    "subject",
    "tailscale",
    "tenant",
    "uid",
    "upn",
    "user",
    "userid",
    "userinfo",
    "username",
    "webauth",
];

/// Whether a header is one of those that browsers and common libraries send.
fn is_standard(name: &str) -> bool {
    let has_prefix = |prefix: &&str| name.starts_with(*prefix);
    STANDARD_PREFIXES.iter().any(has_prefix) || STANDARD.contains(&name)
}

/// Whether a header of another name says nothing of an identity or an origin, as far as its name tells.
fn names_nobody(name: &str) -> bool {
    name.strip_prefix("x-").is_some_and(|rest| {
        !rest
            .split('-')
            .any(|word| IDENTITY_WORDS.binary_search(&word).is_ok())
    })
}

/// Response headers that would affect more than the item itself: its whole host or site.
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

/// The header names that `Connection` headers list, in lower case, without the usual options
/// `close`, `keep-alive` and `upgrade`.
pub fn connection_names<'a>(values: impl Iterator<Item = &'a HeaderValue>) -> Vec<String> {
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .filter(|name| !matches!(name.as_str(), "" | "close" | "keep-alive" | "upgrade"))
        .collect()
}

/// Whether a request header may reach an app. `listed`: names from `Connection`
/// (see [`connection_names`]). `extra`: names that the item's publisher lets pass although they may
/// carry an identity. `cookie`, `host` and `content-length` are handled separately.
pub fn request_passes(name: &str, listed: &[String], extra: &[String]) -> bool {
    // Names of the http library are in lower case.
    let is_for_hop = || {
        HOP_BY_HOP.contains(&name)
            || NEVER.contains(&name)
            || NEVER_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    };
    let may_pass = || names_nobody(name) || extra.iter().any(|passes| passes == name);
    !name.contains('_')
        && !matches!(name, "cookie" | "host" | "content-length")
        && !listed.iter().any(|other| other == name)
        && (is_standard(name) || (!is_for_hop() && may_pass()))
}

/// Whether an `Authorization` is meant for the app: any but an API key or a bootstrap token, which
/// are for the portal. `listed`: as in [`request_passes`].
fn is_for_app(authorization: &HeaderValue, listed: &[String]) -> bool {
    let is_for_portal = authorization.to_str().map_or(true, |text| {
        let scheme = text
            .split(|letter: char| !letter.is_ascii_alphanumeric())
            .next();
        scheme.is_some_and(|scheme| {
            scheme.eq_ignore_ascii_case("key") || scheme.eq_ignore_ascii_case("connect")
        })
    });
    !is_for_portal && !listed.iter().any(|other| other == "authorization")
}

/// Whether a response header of an app may reach the browser. `listed`: as in
/// [`request_passes`].
/// `set-cookie`, `location`, `content-location` and `content-length` are handled separately.
pub fn response_passes(name: &str, listed: &[String]) -> bool {
    !HOP_BY_HOP.contains(&name)
        && !SITE_WIDE.contains(&name)
        // An app that repeats its request's headers must not tell the session token.
        && !NEVER_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
        && !matches!(name, "x-sendfile" | "x-lighttpd-send-file" | "x-reproxy-url")
        && !matches!(
            name,
            "set-cookie" | "location" | "content-location" | "content-length" | "x-correlation-id"
        )
        && !listed.iter().any(|other| other == name)
}

/// Whether a trailer of an app may reach the browser: no field that belongs into the header section
/// (RFC 9110 section 6.5.1).
pub fn trailer_passes(name: &str) -> bool {
    response_passes(name, &[])
        && !matches!(
            name,
            "host" | "content-type" | "content-encoding" | "cache-control" | "authorization"
        )
        && !name.starts_with("access-control-")
        && name != "content-security-policy"
}

/// Whether a cookie name is one of the portal's own; apps neither get nor set these.
pub fn is_portal_cookie(name: impl AsRef<[u8]>) -> bool {
    let name = name.as_ref();
    name.strip_prefix(b"__Host-")
        .unwrap_or(name)
        .starts_with(b"valetkey")
}

/// The `Cookie` header for an app: all cookies of the request except the portal's; `None` if none
/// is left. Split on `;` only, quotes are not interpreted.
pub fn cookies_for_app(headers: &HeaderMap) -> Option<Vec<u8>> {
    let mut kept: Vec<u8> = Vec::new();
    for line in headers.get_all(header::COOKIE) {
        for part in line.as_bytes().split(|byte| *byte == b';') {
            let part = part.trim_ascii();
            let name = part
                .split(|byte| *byte == b'=')
                .next()
                .unwrap_or(part)
                .trim_ascii();
            if part.is_empty() || is_portal_cookie(name) {
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

/// Appends one header line to a message head. `value` must come from a checked type: it must hold
/// no line break.
pub fn append_line(head: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    for part in [name.as_str().as_bytes(), b": ", value, b"\r\n"] {
        head.extend_from_slice(part);
    }
}

/// A header value as text, one `char` per byte (Latin-1), so that bytes above ASCII, which are
/// opaque (RFC 9110 section 5.5), survive the way back through [`from_latin1`].
pub fn to_latin1(value: &HeaderValue) -> String {
    value.as_bytes().iter().copied().map(char::from).collect()
}
/// The inverse of [`to_latin1`]; `None` for a character above U+00FF or one that no header may
/// hold.
pub fn from_latin1(text: &str) -> Option<HeaderValue> {
    let bytes: Result<Vec<u8>, _> = text
        .chars()
        .map(|letter| u8::try_from(u32::from(letter)))
        .collect();
    HeaderValue::from_bytes(&bytes.ok()?).ok()
}

/// Whether a client accepts trailers: `TE: trailers` (RFC 9110 section 10.1.4).
pub fn takes_trailers(headers: &HeaderMap) -> bool {
    let mut words = headers
        .get_all(header::TE)
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    words.any(|word| word.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// Whether a `Content-Type` value is `text/event-stream`; case and parameters are ignored.
pub fn is_event_stream(kind: &[u8]) -> bool {
    kind.split(|byte| *byte == b';')
        .next()
        .is_some_and(|kind| kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream"))
}

/// Appends the headers of a browser's request that an app gets, except the names in `leave_out`.
///
/// `extra`: see [`request_passes`]. `trace`: the portal's own `traceparent`, instead of the
/// browser's.
pub fn append_request_headers(
    incoming: &HeaderMap,
    head: &mut Vec<u8>,
    leave_out: &[HeaderName],
    extra: &[String],
    trace: Option<&str>,
) {
    if let Some(trace) = trace {
        append_line(head, &TRACEPARENT, trace.as_bytes());
    }
    let listed = connection_names(incoming.get_all(header::CONNECTION));
    for (name, value) in incoming {
        let passes = request_passes(name.as_str(), &listed, extra)
            || (name == header::AUTHORIZATION && is_for_app(value, &listed));
        let is_replaced = trace.is_some() && name == TRACEPARENT;
        if passes && !is_replaced && !leave_out.contains(name) {
            append_line(head, name, value.as_bytes());
        }
    }
    // TE is hop-by-hop (RFC 9110 section 10.1.4): it is sent anew, since the portal takes trailers,
    // too.
    if takes_trailers(incoming) {
        append_line(head, &header::TE, b"trailers");
    }
    if let Some(cookies) = cookies_for_app(incoming) {
        append_line(head, &header::COOKIE, &cookies);
    }
}

/// Maps a path of an app to the path that browsers use: removes the upstream `prefix` (no slash at
/// its end) and prepends the item's `base` (slash at both ends). A path that already begins with
/// `base` stays: the app knows where it is mounted.
fn to_public_path(path: &str, prefix: &str, base: &str) -> String {
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

/// Rewrites an app's `Set-Cookie` value so that it applies to the item only: `Domain` is removed
/// and `Path` is placed below `base` (see `to_public_path`). `None` if the app may not set this
/// cookie: one of the portal's, or a `__Host-` or `__Secure-` cookie, by which an app could speak
/// for its whole host, unless the item has a host of its own (`base` is `/`).
pub fn cookie_from_app(cookie: &str, prefix: &str, base: &str) -> Option<String> {
    let mut parts = cookie.split(';');
    let pair = parts.next()?.trim();
    let name = pair.split('=').next()?.trim();
    let starts = |prefix: &str| {
        name.get(..prefix.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    let for_host = starts("__Host-") || starts("__Secure-");
    if name.is_empty() || is_portal_cookie(name) || (for_host && base != "/") {
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
            "path" if value.starts_with('/') => path = to_public_path(value, prefix, base),
            "path" => {}
            _ => kept.push(part.to_owned()),
        }
    }
    kept.push(format!("Path={path}"));
    Some(kept.join("; "))
}

/// Rewrites an app's `Location` for the browser. Paths, and URLs at the app's own origin
/// (`upstream`) or at the item's public origin (`public`), become paths below `base` (see
/// `to_public_path`); other URLs and relative references stay.
pub fn location_from_app(
    location: &str,
    upstream: &str,
    prefix: &str,
    base: &str,
    public: &str,
) -> String {
    // An origin must be followed by a path, a query or a fragment: `http://h:80` is no prefix of
    // `http://h:8080` here.
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
    // Another origin, or relative to the page.
    if !path.starts_with('/') || path.starts_with("//") {
        path.to_owned()
    } else {
        to_public_path(path, prefix, base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_headers_never_pass_in_any_spelling() {
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
            assert!(!request_passes(name, &[], &[]), "{name}");
        }
        for name in [
            "accept",
            "accept-language",
            "if-none-match",
            "sec-websocket-protocol",
            "sec-ch-ua-platform",
            "user-agent",
            "x-requested-with",
            "x-csrf-token",
            "x-api-key",
            "x-my-app-version",
            "hx-current-url",
            "hx-trigger-name",
        ] {
            assert!(request_passes(name, &[], &[]), "{name}");
        }
        assert!(!request_passes("x-special", &["x-special".into()], &[]));
    }
    #[test]
    fn headers_that_may_carry_an_identity_pass_only_where_the_item_says_so() {
        for name in [
            "x-user-id",
            "x-webauth-user",
            "cf-access-authenticated-user-email",
            "cf-connecting-ip",
            "x-amzn-oidc-identity",
            "x-amzn-oidc-data",
            "tailscale-user-login",
            "x-client-ip",
            "true-client-ip",
            "x-real-ip",
            "x-original-url",
            "x-rewrite-url",
            "remote-user",
            "x-auth-request-email",
            "x-ms-client-principal",
            "x-ms-client-principal-name",
            "x-goog-iap-jwt-assertion",
            "impersonate-user",
            "x-ssl-client-cert",
            "from",
        ] {
            assert!(!request_passes(name, &[], &[]), "{name}");
            assert!(request_passes(name, &[], &[name.to_owned()]), "{name}");
        }
        for name in ["proxy", "authorization", "posit-connect-user-session-token"] {
            assert!(!request_passes(name, &[], &[name.to_owned()]), "{name}");
        }
        assert!(IDENTITY_WORDS.is_sorted());
        let apart = HOP_BY_HOP.iter().chain(&NEVER).chain(&NEVER_PREFIXES);
        assert!(apart.into_iter().all(|name| !is_standard(name)));
    }
    #[test]
    fn an_app_cannot_give_away_its_session_token_or_command_a_proxy() {
        for name in [
            "posit-connect-user-session-token",
            "rstudio-connect-app-base-url",
            "x-sendfile",
            "x-accel-redirect",
        ] {
            assert!(!response_passes(name, &[]), "{name}");
        }
    }
    #[test]
    fn the_portals_cookies_never_reach_an_app() {
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
    fn an_apps_cookie_is_bound_to_its_item() {
        let base = "/content/g/";
        let cookie_from_app = |cookie: &str, base: &str| cookie_from_app(cookie, "/base", base);
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
        assert_eq!(cookie_from_app("__Secure-a=x; Secure", base), None);
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
    fn header_bytes_above_ascii_pass_unchanged() {
        for bytes in [
            &b"plain"[..],
            b"caf\xe9",
            "caf\u{e9}".as_bytes(),
            &[0x80, 0xff],
        ] {
            let value = HeaderValue::from_bytes(bytes).unwrap();
            assert_eq!(from_latin1(&to_latin1(&value)).unwrap().as_bytes(), bytes);
        }
    }
    #[test]
    fn te_and_content_type_are_compared_without_regard_to_case() {
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
    fn redirects_of_an_app_stay_below_its_item() {
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
