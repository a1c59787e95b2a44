//! What must hold for any bytes from outside. Tried by `tests/it/properties.rs` on each run, and by
//! the fuzz targets for as long as one likes.

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use std::{sync::LazyLock, time::Duration};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use valetkey::{
    domain::{Timestamp, return_path::ReturnPath},
    http::codes::Code,
    oauth::errors,
    proxy::{client, gate::is_plain, headers},
    vault::{Root, session_token::SessionTokenSigner},
    web::{api::exchange, pages::callback},
};

/// The query of a callback: no parameter of a query that names one twice counts, and none is made
/// up.
pub fn callback_query(bytes: &[u8]) {
    let Ok(query) = std::str::from_utf8(bytes) else {
        return;
    };
    let answer = callback::answer(query);
    let pairs: Vec<(String, String)> = url::form_urlencoded::parse(bytes).into_owned().collect();
    let mut found = 0;
    for (name, value) in [
        ("state", &answer.state),
        ("code", &answer.code),
        ("error", &answer.error),
        ("error_description", &answer.error_description),
        ("iss", &answer.issuer),
    ] {
        let Some(value) = value else { continue };
        found += 1;
        let sent: Vec<&String> = pairs
            .iter()
            .filter(|pair| pair.0 == name)
            .map(|pair| &pair.1)
            .collect();
        assert_eq!(sent, [value], "{name}");
    }
    let named = |pair: &&(String, String)| {
        ["state", "code", "error", "error_description", "iss"].contains(&pair.0.as_str())
    };
    let sent = pairs.iter().filter(named).count();
    assert!(found == 0 || found == sent, "{found} of {sent}");
    // What the provider said is sorted into words and sentences of ours.
    let (error, text) = (
        answer.error.unwrap_or_default(),
        answer.error_description.unwrap_or_default(),
    );
    let code = errors::aadsts(&text);
    assert!(code.is_none_or(|code| text.contains("AADSTS") && code < 1_000_000_000));
    let known = errors::ErrorCode::received(&error);
    assert!(match known {
        errors::ErrorCode::Other => true,
        errors::ErrorCode::Missing => error.is_empty(),
        known => known.to_string() == error,
    });
    errors::classify(known, code, &text);
}

/// The form of an exchange: a value that is taken stood there once, and no token that we did not
/// sign speaks for anybody.
pub fn exchange_form(bytes: &[u8]) {
    static TOKENS: LazyLock<SessionTokenSigner> = LazyLock::new(|| {
        SessionTokenSigner::new(
            &Root::parse(&Root::generate()).unwrap(),
            "https://portal".into(),
            Duration::from_secs(3600),
        )
    });
    match exchange::parse_form(bytes) {
        Ok(form) => {
            let pairs: Vec<(String, String)> =
                url::form_urlencoded::parse(bytes).into_owned().collect();
            for (name, value) in [
                ("grant_type", &form.grant_type),
                ("subject_token_type", &form.subject_token_type),
                ("subject_token", &form.subject_token),
                ("requested_token_type", &form.requested_token_type),
                ("audience", &form.audience),
            ] {
                let sent: Vec<&str> = pairs
                    .iter()
                    .filter(|pair| pair.0 == name)
                    .map(|pair| pair.1.as_str())
                    .collect();
                assert_eq!(
                    sent,
                    value.as_deref().into_iter().collect::<Vec<_>>(),
                    "{name}"
                );
            }
            assert!(
                TOKENS
                    .verify(form.subject_token.as_deref().unwrap_or(""), Timestamp(0))
                    .is_err()
            );
        }
        Err(error) => {
            assert!(
                error.status == 400 && matches!(error.code, Code::EmptyForm | Code::MalformedForm)
            );
            // A fault is named, what was sent is not echoed.
            assert!(error.error.len() < 100);
        }
    }
}

/// A response of an app: what we take for whole, hyper reads as the same status and the same body.
/// We refuse more than hyper does.
pub fn app_response(bytes: &[u8]) {
    let Some((status, body)) = client::parse_whole(bytes) else {
        return;
    };
    // hyper refuses a transfer coding in HTTP/1.0; we read it and close the connection.
    if bytes.trim_ascii_start().starts_with(b"HTTP/1.0") {
        return;
    }
    let read = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
        .block_on(read_by_hyper(bytes));
    let (theirs, read) = read.expect("hyper refuses what we accept");
    assert_eq!((theirs, read), (status.as_u16(), body));
}

/// Status and body of the response to a GET, as hyper reads them.
async fn read_by_hyper(bytes: &[u8]) -> Result<(u16, Vec<u8>), hyper::Error> {
    let (ours, app) = tokio::io::duplex(1 << 20);
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_headers(128)
        .handshake::<_, Empty<Bytes>>(TokioIo::new(ours))
        .await?;
    let app = async {
        let (mut reading, mut writing) = tokio::io::split(app);
        let mut request = [0; 1024];
        // hyper refuses a response that arrives before its request.
        drop(reading.read(&mut request).await);
        drop(writing.write_all(bytes).await);
        drop(writing.shutdown().await);
        reading
    };
    let asking = async {
        let request = hyper::Request::new(Empty::new());
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?;
        Ok((status, body.to_bytes().to_vec()))
    };
    tokio::select! {
        answer = asking => answer,
        _ = async { tokio::join!(connection, app, std::future::pending::<()>()) } => unreachable!(),
    }
}

/// The head of a proxied request: nothing that says who somebody is, nothing of one connection, no
/// cookie of ours; and a path that is let through names what it says.
pub fn request_head(bytes: &[u8]) {
    let mut fields = [httparse::EMPTY_HEADER; 96];
    let mut request = httparse::Request::new(&mut fields);
    if !matches!(request.parse(bytes), Ok(httparse::Status::Complete(_))) {
        return;
    }
    let mut incoming = HeaderMap::new();
    for field in request.headers.iter() {
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(field.name.as_bytes()),
            HeaderValue::from_bytes(field.value),
        ) {
            incoming.append(name, value);
        }
    }
    let mut written = Vec::new();
    headers::append_line(&mut written, &headers::SESSION_TOKEN, b"ours");
    headers::append_request_headers(&incoming, &mut written, &[], &[], None);
    // As an app reads it: line by line.
    let mut head = HeaderMap::new();
    let lines = written.strip_suffix(b"\r\n").expect("whole lines");
    for line in lines
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
    {
        let colon = line.iter().position(|byte| *byte == b':').expect("a colon");
        let (name, value) = (&line[..colon], &line[colon + 2..]);
        head.append(
            HeaderName::from_bytes(name).expect("a name"),
            HeaderValue::from_bytes(value).expect("a value"),
        );
    }
    assert_eq!(
        head.get_all(headers::SESSION_TOKEN).collect::<Vec<_>>(),
        ["ours"]
    );
    for (name, value) in &head {
        let plain = name.as_str().to_ascii_lowercase().replace('_', "-");
        // An app's own token passes, an API key never.
        if plain == "authorization" {
            let value = value.as_bytes().to_ascii_lowercase();
            assert!(!value.starts_with(b"key "), "{name}: {value:?}");
        }
        let is_ours = name == headers::SESSION_TOKEN && value == "ours";
        for word in [
            "posit-connect-",
            "rstudio-connect-",
            "x-rsc-",
            "x-forwarded-",
            "forwarded",
            "shiny-server-credentials",
        ] {
            // A family of names, or one name.
            let is_meant = if word.ends_with('-') {
                plain.starts_with(word)
            } else {
                plain == word
            };
            assert!(is_ours || !is_meant, "{plain}");
        }
        for word in [
            "connection",
            "transfer-encoding",
            "content-length",
            "upgrade",
            "trailer",
            "host",
            "keep-alive",
            "expect",
        ] {
            assert_ne!(plain, word);
        }
        assert!(plain != "te" || value == "trailers");
        assert!(
            !value
                .as_bytes()
                .iter()
                .any(|byte| matches!(byte, b'\r' | b'\n' | 0)),
            "{plain}"
        );
    }
    let cookies = head
        .get("cookie")
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .unwrap_or_default();
    for cookie in cookies.split(';') {
        let name = cookie.split('=').next().unwrap_or("").trim();
        assert!(
            !name.starts_with("valetkey") && !name.starts_with("__Host-valetkey"),
            "{cookie}"
        );
    }
    let path = request.path.and_then(|path| path.split('?').next());
    if let Some(path) = path.filter(|path| is_plain(path)) {
        let plain = percent_decoded(path);
        assert!(
            !plain
                .split(['/', '\\'])
                .any(|part| part == "." || part == ".."),
            "{path}"
        );
        assert!(!plain.contains('\0'), "{path}");
    }
}

/// Where to go afterwards: on this origin, by the parser that browsers share, and below the same
/// path.
pub fn return_path(text: &str) {
    let Some(path) = ReturnPath::parse(text) else {
        return;
    };
    let base = url::Url::parse("https://portal.example:8443/deep/er?x").unwrap();
    let joined = base.join(path.as_str()).unwrap();
    assert_eq!(joined.origin(), base.origin(), "{text:?}");
    assert!(
        joined.username().is_empty() && joined.password().is_none(),
        "{text:?}"
    );
    assert!(!joined.path().starts_with("//"), "{text:?}");
    // A header of ours takes it as it is.
    assert!(
        HeaderValue::from_str(path.as_str()).is_ok() || !text.is_ascii(),
        "{text:?}"
    );
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut plain = Vec::new();
    while let Some(byte) = bytes.next() {
        let mut rest = bytes.clone();
        let digits = (byte == b'%')
            .then(|| Some([rest.next()?, rest.next()?]))
            .flatten()
            // `from_str_radix` takes a sign, too.
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let decoded = digits
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok());
        if decoded.is_some() {
            bytes = rest;
        }
        plain.push(decoded.unwrap_or(byte));
    }
    String::from_utf8_lossy(&plain).into_owned()
}
