//! The structure of the source: which module may import which. Reads the `use` lines (and other
//! `crate::…` paths) of every file, and fails on an import that points upwards and on any cycle,
//! between modules and among the files of one module. The levels are those of `src/README.md`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// The modules, from the top level down. Modules of one level do not know each other.
const LEVELS: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["demo"],
    &["server"],
    &["web", "proxy", "runner", "jobs"],
    &["http"],
    &["service"],
    &["telemetry"],
    &["config"],
    &["store", "oauth"],
    &["vault", "providers", "archive"],
    &[
        "disk", "domain", "faults", "dns", "measures", "traces", "trust", "version",
    ],
];

/// A file's imports: files (relative to `src`) by the file that names them.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// Removes comments, strings and everything from the unit tests on.
fn code_of(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap_or("");
    let lines = text.lines().map(|line| {
        let line = line.split("//").next().unwrap_or("");
        line.split('"').step_by(2).collect::<Vec<_>>().join("\"\"")
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The paths that a file names, as segments: from `use` declarations, expanded, and inline.
fn paths_of(code: &str, module: &[String]) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(start) = rest.find("use ") {
        let boundary = rest[..start].chars().next_back();
        let body = &rest[start + 4..];
        let end = body.find(';').unwrap_or(body.len());
        if boundary.is_none_or(|letter| letter.is_whitespace() || letter == ')') {
            let text: String = body[..end].split_whitespace().collect();
            expand("", &text, &mut found);
        }
        rest = &body[end..];
    }
    let mut inline = code;
    while let Some(start) = inline.find("crate::") {
        // `pub(in crate::…)` is a visibility.
        let is_visibility = inline[..start].ends_with("in ");
        let path: String = inline[start..]
            .chars()
            .take_while(|letter| letter.is_alphanumeric() || "_:".contains(*letter))
            .collect();
        inline = &inline[start + path.len()..];
        if !is_visibility {
            found.push(path);
        }
    }
    found
        .into_iter()
        .filter_map(|path| absolute(&path, module))
        .collect()
}

/// `a::{b, c::{d, e}}` is `a::b`, `a::c::d` and `a::c::e`.
fn expand(prefix: &str, text: &str, found: &mut Vec<String>) {
    let Some(open) = text.find('{') else {
        found.push(format!("{prefix}{text}"));
        return;
    };
    let prefix = format!("{prefix}{}", &text[..open]);
    let inner = &text[open + 1..text.rfind('}').unwrap_or(text.len())];
    let (mut depth, mut from) = (0, 0);
    for (at, letter) in inner.char_indices().chain([(inner.len(), ',')]) {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if from < at {
                    expand(&prefix, &inner[from..at], found);
                }
                from = at + 1;
            }
            _ => {}
        }
    }
}

/// The segments below the crate's root; `None` for other crates.
fn absolute(path: &str, module: &[String]) -> Option<Vec<String>> {
    let mut segments: Vec<String> = path
        .split("::")
        .filter(|part| !part.is_empty() && *part != "*")
        .map(str::to_owned)
        .collect();
    let mut base = match segments.first()?.as_str() {
        "crate" | "valetkey" => Vec::new(),
        "self" => module.to_vec(),
        "super" => {
            let ups = segments.iter().take_while(|part| *part == "super").count();
            segments.drain(..ups - 1);
            module[..module.len().checked_sub(ups)?].to_vec()
        }
        _ => return None,
    };
    base.extend(segments.into_iter().skip(1));
    Some(base)
}

/// The module of a file, as segments.
fn module_of(file: &str) -> Vec<String> {
    let path = file.trim_end_matches(".rs").trim_end_matches("/mod");
    path.split('/').map(str::to_owned).collect()
}

/// The file that holds what a path names: that of its longest prefix which is a module.
fn file_of(path: &[String], files: &BTreeSet<String>) -> Option<String> {
    (1..=path.len()).rev().find_map(|length| {
        let stem = path[..length].join("/");
        [format!("{stem}.rs"), format!("{stem}/mod.rs")]
            .into_iter()
            .find(|file| files.contains(file))
    })
}

fn imports(sources: &BTreeMap<String, String>) -> Imports {
    let files: BTreeSet<String> = sources.keys().cloned().collect();
    let of = |file: &String, text: &String| {
        let named = paths_of(&code_of(text), &module_of(file));
        let named = named.iter().filter_map(|path| file_of(path, &files));
        (file.clone(), named.filter(|other| other != file).collect())
    };
    sources.iter().map(|(file, text)| of(file, text)).collect()
}

fn room_of(file: &str) -> &str {
    file.split('/').next().unwrap_or("").trim_end_matches(".rs")
}

/// What is wrong with these sources, a line each.
fn violations(sources: &BTreeMap<String, String>) -> Vec<String> {
    let imports = imports(sources);
    let level = |file: &str| {
        let room = room_of(file);
        LEVELS.iter().position(|level| level.contains(&room))
    };
    let mut wrong = Vec::new();
    for (file, others) in &imports {
        if file == "lib.rs" {
            continue;
        }
        let Some(own) = level(file) else {
            wrong.push(format!("{file}: its module is on no level"));
            continue;
        };
        for other in others
            .iter()
            .filter(|other| room_of(other) != room_of(file))
        {
            match level(other) {
                Some(theirs) if theirs > own => {}
                Some(theirs) if theirs == own => {
                    wrong.push(format!("{file} imports its neighbour {other}"));
                }
                _ => wrong.push(format!("{file} imports upwards from {other}")),
            }
        }
    }
    wrong.extend(cycle(&imports).map(|files| format!("cycle: {}", files.join(" → "))));
    wrong
}

/// A cycle of files, if there is one. Depth first; a file being visited that is met again closes it.
fn cycle(imports: &Imports) -> Option<Vec<String>> {
    fn visit(
        file: &str,
        imports: &Imports,
        path: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> Option<Vec<String>> {
        if let Some(at) = path.iter().position(|known| known == file) {
            return Some([&path[at..], &[file.to_owned()]].concat());
        }
        if done.contains(file) {
            return None;
        }
        path.push(file.to_owned());
        for other in imports.get(file).into_iter().flatten() {
            if let Some(found) = visit(other, imports, path, done) {
                return Some(found);
            }
        }
        path.pop();
        done.insert(file.to_owned());
        None
    }
    let mut done = BTreeSet::new();
    imports
        .keys()
        .find_map(|file| visit(file, imports, &mut Vec::new(), &mut done))
}

fn read(folder: &Path, below: &Path, sources: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path: PathBuf = entry.expect("an entry").path();
        if path.is_dir() {
            read(&path, below, sources);
        } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("build.rs") {
            let name = path.strip_prefix(below).expect("below").to_string_lossy();
            let text = std::fs::read_to_string(&path).expect("a source");
            sources.insert(name.into_owned(), text);
        }
    }
}

#[test]
fn imports_point_down_and_never_in_a_circle() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = BTreeMap::new();
    read(&source, &source, &mut sources);
    assert!(sources.len() > 100, "{} files", sources.len());
    let found: usize = imports(&sources).values().map(BTreeSet::len).sum();
    assert!(found > 500, "only {found} imports were read");
    let wrong = violations(&sources);
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn wrong_imports_are_found() {
    let check = |files: &[(&str, &str)]| {
        let sources = files
            .iter()
            .map(|(file, text)| ((*file).to_owned(), (*text).to_owned()))
            .collect();
        violations(&sources)
    };
    let good: &[(&str, &str)] = &[
        (
            "web/mod.rs",
            "use crate::{domain::{Id, person::Person}, service};\n",
        ),
        ("service/mod.rs", "use crate::domain::Id;\n"),
        ("domain/mod.rs", "pub mod person;\n"),
        (
            "domain/person.rs",
            "// use crate::web;\nlet text = \"crate::web\";\n",
        ),
    ];
    assert_eq!(check(good), [""; 0]);
    for (change, complaint) in [
        (
            ("domain/person.rs", "use crate::web::Page;\n"),
            "imports upwards",
        ),
        (
            ("service/mod.rs", "fn f() { crate::web::x(); }\n"),
            "imports upwards",
        ),
        (("proxy/mod.rs", "use crate::web::Page;\n"), "neighbour"),
        (("shed/mod.rs", "\n"), "on no level"),
        (
            ("domain/person.rs", "use super::Id;\nuse super::pet;\n"),
            "",
        ),
    ] {
        let mut files = good.to_vec();
        files.retain(|(file, _)| *file != change.0);
        files.push(change);
        let wrong = check(&files);
        if complaint.is_empty() {
            assert_eq!(wrong, [""; 0]);
        } else {
            assert!(
                wrong.iter().any(|line| line.contains(complaint)),
                "{change:?}: {wrong:?}"
            );
        }
    }
    // A circle among the files of one module, through `super` and through a nested list.
    let circle = check(&[
        ("store/mod.rs", ""),
        ("store/a.rs", "use super::{b::B, c};\n"),
        ("store/b.rs", "pub(super) use crate::store::{c::{C, D}};\n"),
        ("store/c.rs", "use super::a::A;\n"),
    ]);
    assert_eq!(circle.len(), 1, "{circle:?}");
    assert!(circle[0].starts_with("cycle: store/a.rs"), "{circle:?}");
    // A circle between modules is an import upwards as well.
    let modules = check(&[
        ("oauth/mod.rs", "use crate::vault;\n"),
        ("vault/mod.rs", "use crate::oauth;\n"),
    ]);
    assert!(
        modules.iter().any(|line| line.contains("upwards")),
        "{modules:?}"
    );
}

/// Tables that decisions are based on.
const DECISION_TABLES: [&str; 12] = [
    "people",
    "sessions",
    "api_keys",
    "content",
    "content_list",
    "groups",
    "group_members",
    "integrations",
    "associations",
    "connections",
    "consents",
    "content_sessions",
];

/// Functions of `store` that write to such a table without changing a decision.
const NO_DECISION: &[(&str, &str)] = &[
    (
        "notices.rs:is_new_device",
        "reads sessions, and writes what no decision depends on",
    ),
    ("integrations.rs:set_health", "a state that is only shown"),
    (
        "integrations.rs:set_secrets",
        "secrets are read at each use",
    ),
    (
        "integrations.rs:drop_previous_secret",
        "secrets are read at each use",
    ),
    (
        "integrations.rs:set_secret_warned",
        "a time that is only shown",
    ),
    (
        "endings.rs:repeat",
        "a restore: no process has cached anything",
    ),
    (
        "endings.rs:end_all_consents",
        "a restore: no process has cached anything",
    ),
    ("leaks.rs:clear", "a time that only the leak alarm reads"),
    ("people.rs:insert", "nothing is cached about a new person"),
    ("people.rs:replace_hash", "its sessions are deleted apart"),
    ("people.rs:set_active", "a time that is only shown"),
    ("people.rs:insert_key", "nothing is cached about a new key"),
    (
        "sessions.rs:insert",
        "nothing is cached about a new session",
    ),
    ("sessions.rs:update", "only the state, which is not cached"),
    ("groups.rs:insert", "a new group has no members"),
    (
        "integrations.rs:insert",
        "nothing is cached about a new one",
    ),
    ("integrations.rs:set_last_check", "only shown"),
    (
        "connections.rs:store_refreshed",
        "tokens; an expired one is refreshed",
    ),
    (
        "handovers.rs:insert_session",
        "nothing is cached about a new one",
    ),
];

#[test]
fn every_write_that_changes_a_decision_says_so() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store");
    let mut silent = Vec::new();
    let mut known = BTreeSet::new();
    for entry in std::fs::read_dir(folder).expect("the store") {
        let path = entry.expect("a file").path();
        let file = path
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a name");
        if ["schema.rs", "copy.rs", "sealed.rs"].contains(&file) {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a source");
        for part in text.split("\npub fn ").skip(1) {
            let name = part.split(['(', '<']).next().unwrap_or("");
            let body = part.split("\n}\n").next().unwrap_or("");
            let writes = [
                "diesel::insert_into(",
                "diesel::update(",
                "diesel::delete(",
                "prepared_update(",
            ]
            .iter()
            .any(|verb| body.contains(verb));
            let decides = DECISION_TABLES.iter().any(|table| {
                let named = format!("{table}::table");
                body.match_indices(&named).any(|(at, _)| {
                    !body[..at].ends_with(|letter: char| letter.is_alphanumeric() || letter == '_')
                })
            });
            let name = format!("{file}:{name}");
            if !writes || !decides || body.contains("db.changed(") {
                continue;
            }
            known.insert(name.clone());
            if !NO_DECISION.iter().any(|(exempt, _)| *exempt == name) {
                silent.push(name);
            }
        }
    }
    assert!(
        silent.is_empty(),
        "these change what decisions depend on and do not call `Db::changed`: {silent:?}"
    );
    for (exempt, reason) in NO_DECISION {
        assert!(
            known.contains(*exempt),
            "{exempt} ({reason}) is gone or says so now"
        );
    }
}
