//! Properties: what must hold for every header, return path, session token, callback and form,
//! tried with made-up ones.

#[path = "../fuzz/checks.rs"]
mod checks;

use proptest::prelude::*;
use std::time::Duration;
use valetkey::{
    domain::{Id, Timestamp, content::ProcessId, person::SignedIn},
    proxy::headers,
    vault::{
        Root,
        session_token::{InvalidToken, SessionTokenSigner},
    },
};

/// A word, written as somebody would who wants to get past a filter.
fn spelled(word: &'static str) -> impl Strategy<Value = String> {
    prop::collection::vec(any::<(bool, bool)>(), word.len()).prop_map(move |choices| {
        let letters = word.chars().zip(choices);
        letters
            .map(|(letter, (upper, underscore))| match letter {
                '-' if underscore => '_',
                letter if upper => letter.to_ascii_uppercase(),
                letter => letter,
            })
            .collect()
    })
}

fn field() -> impl Strategy<Value = String> {
    prop_oneof![
        spelled("posit-connect-user-session-token"),
        spelled("shiny-server-credentials"),
        spelled("x-rsc-authorization"),
        spelled("x-forwarded-for"),
        spelled("authorization"),
        spelled("connection"),
        spelled("transfer-encoding"),
        spelled("cookie"),
        spelled("accept"),
        "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,40}",
    ]
}

/// Text that is made of the pieces which parsers disagree about.
fn path() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "/",
            "//",
            "\\",
            ".",
            "..",
            "%2e",
            "%2E",
            "%252e",
            "%5c",
            "%2f",
            "%00",
            "?",
            "#",
            "@",
            ":",
            "https:",
            "evil.example",
            "\t",
            "\n",
            " ",
            "\u{2028}"
        ])
        .prop_map(str::to_owned),
        "[a-z0-9]{1,4}",
        any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_request_head_brings_an_identity_to_an_app(
        path in path(),
        fields in prop::collection::vec((field(), "[ -~]{0,30}|(valetkey|__Host-valetkey-1|theme|a)=[a-z\";]{0,9}(; ?valetkey=x)?"), 0..9),
    ) {
        let mut head = format!("GET {path} HTTP/1.1\r\n");
        for (name, value) in &fields {
            head += &format!("{name}: {value}\r\n");
        }
        checks::request_head(format!("{head}\r\n").as_bytes());
    }

    #[test]
    fn no_cookie_of_an_app_leaves_its_place(
        name in "[A-Za-z_-]{0,12}|(__Host-|__host-)?valetkey[a-z]{0,3}|theme|__Host-x",
        attributes in prop::collection::vec("(;|; | ;)(Domain|domain|DOMAIN)=[a-z.]{0,9}|; ?(Path|path|PATH)=/?[a-z/.]{0,30}|; HttpOnly|; Secure|[ -~]{0,12}", 0..5),
        base in "/|/content/g/",
    ) {
        let cookie = format!("{name}=1{}", attributes.concat());
        if let Some(kept) = headers::cookie_from_app(&cookie, "/prefix", &base) {
            let mut parts = kept.split(';').map(|part| part.trim().to_ascii_lowercase());
            let pair = parts.next().unwrap();
            prop_assert!(!headers::is_portal_cookie(pair.split('=').next().unwrap().trim()) || pair.starts_with("__host-"), "{kept}");
            prop_assert!(base == "/" || !pair.starts_with("__host-"), "{kept}");
            let parts: Vec<String> = parts.collect();
            prop_assert!(!parts.iter().any(|part| part.split('=').next().unwrap().trim() == "domain"), "{kept}");
            let paths: Vec<&str> = parts.iter().filter_map(|part| part.strip_prefix("path=")).collect();
            prop_assert_eq!(paths.len(), 1, "{}", kept);
            prop_assert!(paths[0].starts_with(&base), "{kept}");
        }
    }

    #[test]
    fn no_return_path_leads_away(path in path(), text in any::<String>()) {
        checks::return_path(&path);
        checks::return_path(&text);
    }

    #[test]
    fn no_altered_session_token_is_taken(at in any::<prop::sample::Index>(), flip in 1u8.., seconds in 0u64..7200, text in any::<String>()) {
        let tokens = SessionTokenSigner::new(&Root::parse(&Root::generate()).unwrap(), "https://portal".into(), Duration::from_secs(3600));
        let (person, content, session, made) = (Id::random(), Id::random(), SignedIn::Browser(Id::random()), Timestamp(1_000_000_000_000));
        let token = tokens.mint(person, content, session, ProcessId::ONLY, made).unwrap();
        let read = tokens.verify(&token, made.plus(Duration::from_secs(seconds)));
        if seconds < 3600 {
            let claims = read.unwrap();
            prop_assert_eq!((claims.sub, claims.content, claims.sid), (person, content, session));
        } else {
            prop_assert_eq!(read, Err(InvalidToken::Expired));
        }
        let mut bytes = token.clone().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        if let Ok(altered) = String::from_utf8(bytes) {
            prop_assert!(tokens.verify(&altered, made).is_err(), "{}", altered);
        }
        prop_assert!(tokens.verify(&text, made).is_err());
        prop_assert!(tokens.verify(&token[..at], made).is_err());
    }

    #[test]
    fn no_callback_and_no_form_is_misread(bytes in any::<Vec<u8>>(), words in prop::collection::vec("(state|code|error|error_description|iss|grant_type|subject_token|audience|%73tate|x)=?[a-z%+0-9]{0,8}", 0..6)) {
        checks::callback_query(&bytes);
        checks::exchange_form(&bytes);
        checks::request_head(&bytes);
        let query = words.join("&");
        checks::callback_query(query.as_bytes());
        checks::exchange_form(query.as_bytes());
    }
}

/// A line of a response's head, right or nearly so.
fn response_line() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("Transfer-Encoding: chunked".to_owned()),
        Just("transfer-encoding: gzip, chunked".to_owned()),
        Just("Connection: close".to_owned()),
        "Content-Length: [0-9]{1,2}(, [0-9])?",
        "[A-Za-z-]{1,8}:[ a-z0-9]{0,8}",
    ]
}

/// A piece of a chunked body, right or nearly so.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::collection::vec("[a-z]", 1..20).prop_map(|letters| format!("{:x}\r\n{}\r\n", letters.len(), letters.concat())),
        1 => "[ \t]{0,1}[0-9a-f]{1,2}[ \t]{0,1}(;[a-z=\r]{0,4})?\r{0,2}\n[a-z]{0,6}(\r\n)?",
        1 => "0\r\n([A-Za-z-]{1,6}: [a-z]{0,4}\r{0,1}\n){0,2}\r{0,1}\n",
    ]
}

proptest! {
    #[test]
    fn hyper_reads_the_same_response(status in prop_oneof![Just(200), Just(204), Just(304), Just(404), 200..600], lines in prop::collection::vec(response_line(), 0..4), pieces in prop::collection::vec(piece(), 0..4), ended: bool, raw in any::<Vec<u8>>()) {
        let mut text = format!("HTTP/1.1 {status} OK\r\n");
        for line in lines {
            text += &line;
            text += "\r\n";
        }
        text += "\r\n";
        text += &pieces.concat();
        if ended {
            text += "0\r\n\r\n";
        }
        checks::app_response(text.as_bytes());
        checks::app_response(&raw);
    }
}

/// Inputs that the fuzzers start from, and what they found once.
#[test]
fn the_seeds_of_the_fuzzers_hold() {
    let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds");
    let targets = [
        ("app_response", checks::app_response as fn(&[u8])),
        ("callback_query", checks::callback_query),
        ("exchange_form", checks::exchange_form),
        ("request_head", checks::request_head),
    ];
    for (name, check) in targets {
        for seed in std::fs::read_dir(seeds.join(name)).unwrap() {
            check(&std::fs::read(seed.unwrap().path()).unwrap());
        }
    }
}
