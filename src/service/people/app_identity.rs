//! What apps are told of who is looking at them, beside the session token: user name and groups, in
//! the headers that apps written for Posit Connect read.

use serde_json::{Value, json};

/// Longest value of the header, in bytes: common servers refuse a longer one.
const MAX_HEADER: usize = 8 * 1024;

/// `{"user": "ada", "groups": ["data"]}` in ASCII; at most 8 KiB, then without the last groups.
pub(in crate::service) fn header_value(user: &str, mut groups: Vec<String>) -> String {
    let all = groups.len();
    loop {
        let text = to_ascii(&json!({"user": user, "groups": groups}));
        if text.len() <= MAX_HEADER || groups.is_empty() {
            if groups.len() < all {
                tracing::warn!(
                    user,
                    all,
                    told = groups.len(),
                    "apps are not told all groups of a person: they do not fit into a header"
                );
            }
            return text;
        }
        // A group adds at least its quotes and a comma.
        let surplus = (text.len() - MAX_HEADER)
            .div_ceil(text.len() / groups.len() + 1)
            .max(1);
        groups.truncate(groups.len().saturating_sub(surplus));
    }
}

/// JSON in ASCII: everything else is escaped (RFC 8259 section 7).
fn to_ascii(value: &Value) -> String {
    let mut text = String::new();
    for letter in value.to_string().chars() {
        if letter.is_ascii() && letter != '\x7f' {
            text.push(letter);
        } else {
            let mut units = [0; 2];
            for unit in letter.encode_utf16(&mut units) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_and_read_back() {
        let text = header_value("jürgen", vec!["Größe 😀".into(), "a\"b".into()]);
        assert!(text.is_ascii(), "{text}");
        let back: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            back,
            json!({"user": "jürgen", "groups": ["Größe 😀", "a\"b"]})
        );
    }

    #[test]
    fn groups_that_do_not_fit_are_left_out() {
        let groups: Vec<String> = (0..2000).map(|number| format!("group-{number}")).collect();
        let text = header_value("ada", groups);
        assert!(
            text.len() <= MAX_HEADER && text.len() > MAX_HEADER - 200,
            "{}",
            text.len()
        );
        let back: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(back["groups"][0], "group-0");
    }
}
