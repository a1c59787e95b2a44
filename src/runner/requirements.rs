//! The packages that a bundle asks for, as a file of the portal's own.
//!
//! uv runs code of a bundle for some lines even where it must not build: editable packages and local
//! folders. And it reads files by absolute path and by address. Where it fills the cache that all
//! content shares, it therefore never sees the publisher's file, but the lines that are written here:
//! names with versions, and options that say where packages come from. A line of any other kind
//! ([`Wanted::Code`]) needs a build, with a cache of its own. When in doubt, a line is of another kind.

use std::{
    collections::HashSet,
    fs::File,
    io::Read as _,
    path::{Component, Path, PathBuf},
};

/// Files that include one another.
const MAX_FILES: usize = 20;
/// Bytes of all of them.
const MAX_BYTES: usize = 1 << 20;

/// What a bundle asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Packages that are installed without running any code: the lines of a file of requirements, and
    /// of one of constraints.
    Plain(Lines),
    /// Something that may run code of the bundle, or read its files.
    Code,
}

/// The lines of the portal's own files.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Lines {
    pub requirements: String,
    pub constraints: String,
}

/// Reads the text of a package file of a bundle. The error is a sentence for the publisher.
pub fn read(app: &Path, file: &Path) -> Result<String, String> {
    let shown = file.display();
    let missing = |_| {
        format!(
            "The package file {shown} is missing in the bundle, or is no text. List the packages that the app needs, one a line, in requirements.txt."
        )
    };
    let mut text = String::new();
    let opened = File::open(app.join(file)).map_err(missing)?;
    opened
        .take(MAX_BYTES as u64 + 1)
        .read_to_string(&mut text)
        .map_err(missing)?;
    if text.len() > MAX_BYTES {
        return Err(format!("{shown} is larger than a megabyte."));
    }
    Ok(text)
}

/// What a file of requirements asks for, with all that it includes. The error is a sentence for the
/// publisher.
pub fn wanted(app: &Path, file: &str) -> Result<Wanted, String> {
    // uv also reads projects and lock files, whose contents are not lines.
    if !file.ends_with(".txt") && !file.ends_with(".in") {
        return Ok(Wanted::Code);
    }
    let mut open = vec![(PathBuf::from(file), false)];
    let (mut seen, mut bytes) = (HashSet::new(), 0);
    let mut lines = Lines::default();
    let mut needs_code = false;
    while let Some((path, is_constraint)) = open.pop() {
        if !seen.insert((path.clone(), is_constraint)) {
            continue;
        }
        if seen.len() > MAX_FILES {
            return Err(format!("{file} includes more than {MAX_FILES} files."));
        }
        let text = read(app, &path)?;
        bytes += text.len();
        if bytes > MAX_BYTES {
            return Err(format!(
                "{file} and what it includes are larger than a megabyte."
            ));
        }
        let Some(logical) = logical_lines(&text) else {
            return Ok(Wanted::Code);
        };
        for (number, line) in logical.iter().enumerate() {
            match line_of(line) {
                Line::Empty => {}
                Line::Package if is_constraint => push(&mut lines.constraints, line),
                Line::Package => push(&mut lines.requirements, line),
                Line::Option if !is_constraint => push(&mut lines.requirements, line),
                Line::Option | Line::Code => needs_code = true,
                Line::Include { other, constrains } => {
                    let other = path.parent().unwrap_or(Path::new("")).join(&other);
                    let stays = other
                        .components()
                        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
                    if !stays || other.to_string_lossy().contains("://") {
                        return Err(format!(
                            "{}, line {}: another file is named by a relative path in the bundle, not as “{}”.",
                            path.display(),
                            number + 1,
                            other.display()
                        ));
                    }
                    open.push((other, is_constraint || constrains));
                }
            }
        }
    }
    Ok(if needs_code {
        Wanted::Code
    } else {
        Wanted::Plain(lines)
    })
}

fn push(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

/// The lines of a file without comments, and with those joined that end in a backslash. `None` where
/// uv might see other lines than these: it ends lines at a lone carriage return, too, and a comment at
/// the end of its own line whatever stands there.
fn logical_lines(text: &str) -> Option<Vec<String>> {
    let text = text.replace("\r\n", "\n");
    let mut lines = Vec::new();
    let mut joined = String::new();
    for line in text.split('\n') {
        if line
            .chars()
            .any(|letter| letter.is_control() && letter != '\t')
        {
            return None;
        }
        let comment = line.match_indices('#').map(|(at, _)| at).find(|at| {
            line[..*at]
                .chars()
                .next_back()
                .is_none_or(char::is_whitespace)
        });
        match (comment, line.strip_suffix('\\')) {
            (Some(_), Some(_)) => return None,
            (None, Some(begun)) => {
                joined.push_str(begun);
                continue;
            }
            (comment, None) => {
                // Inside a joined line a comment would end at another place.
                if comment.is_some() && !joined.is_empty() {
                    return None;
                }
                joined.push_str(&line[..comment.unwrap_or(line.len())]);
            }
        }
        lines.push(std::mem::take(&mut joined).trim().to_owned());
    }
    // The file ends within a joined line.
    joined.is_empty().then_some(lines)
}

#[derive(Debug, PartialEq, Eq)]
enum Line {
    Empty,
    /// A name with versions and markers.
    Package,
    /// Where packages come from, or which of them to take.
    Option,
    /// uv may run code of the bundle for it.
    Code,
    /// Another file, of requirements or constraints.
    Include {
        other: String,
        constrains: bool,
    },
}

fn line_of(line: &str) -> Line {
    if line.is_empty() {
        return Line::Empty;
    }
    for (option, constrains) in [
        ("--requirement", false),
        ("--constraint", true),
        ("-r", false),
        ("-c", true),
    ] {
        if let Some(rest) = line.strip_prefix(option) {
            let other = rest.trim_start_matches([' ', '=', '\t']);
            return Line::Include {
                other: other.trim_matches(['"', '\'']).to_owned(),
                constrains,
            };
        }
    }
    let is_fine = if line.starts_with('-') {
        is_option(line).then_some(Line::Option)
    } else {
        is_package(line).then_some(Line::Package)
    };
    is_fine.unwrap_or(Line::Code)
}

/// Whether a whole line is one option that is harmless, with its value.
fn is_option(line: &str) -> bool {
    let (option, value) = line
        .split_once([' ', '=', '\t'])
        .map_or((line, ""), |(option, value)| (option, value.trim()));
    let is_name = |value: &str| {
        !value.is_empty()
            && value
                .chars()
                .all(|letter| letter.is_ascii_alphanumeric() || "._-,:".contains(letter))
    };
    match option {
        "-i" | "--index-url" | "--extra-index-url" => {
            let rest = value
                .strip_prefix("https://")
                .or_else(|| value.strip_prefix("http://"));
            rest.is_some_and(|rest| {
                !rest.is_empty()
                    && rest
                        .chars()
                        .all(|letter| letter.is_ascii_graphic() && !"\"'\\#$".contains(letter))
            })
        }
        "--no-binary" | "--only-binary" => is_name(value),
        "--pre" | "--prefer-binary" | "--require-hashes" => value.is_empty(),
        _ => false,
    }
}

/// Whether a whole line is a name with versions, a marker and hashes (PEP 508), and names no place.
fn is_package(line: &str) -> bool {
    let mut parts = line.split_whitespace().peekable();
    let mut specifier = String::new();
    while let Some(part) = parts.next_if(|part| !part.starts_with("--")) {
        specifier.push_str(part);
        specifier.push(' ');
    }
    let are_hashes = parts.all(|part| {
        part.strip_prefix("--hash=")
            .and_then(|hash| hash.split_once(':'))
            .is_some_and(|(kind, hash)| {
                kind.starts_with("sha")
                    && kind.chars().all(|letter| letter.is_ascii_alphanumeric())
                    && hash.chars().all(|letter| letter.is_ascii_hexdigit())
            })
    });
    let (package, marker) = specifier.split_once(';').unwrap_or((&specifier, ""));
    let package = package.trim();
    let is_file = [".whl", ".zip", ".gz", ".bz2", ".tgz", ".xz", ".tar", ".egg"]
        .iter()
        .any(|end| package.ends_with(end));
    are_hashes
        && !is_file
        && package.starts_with(|first: char| first.is_ascii_alphanumeric())
        && package
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || "._-[]<>=!~*+,() ".contains(letter))
        && marker
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || "._-<>=!~*+,() '\"".contains(letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_and_harmless_options_are_plain() {
        for package in [
            "flask",
            "flask==3.1",
            "uvicorn[standard]>=0.3; python_version < '3.12'",
            "zope.interface (>=5.0,<6)",
            "a==1 --hash=sha256:00 --hash=sha512:ff",
        ] {
            assert_eq!(line_of(package), Line::Package, "{package}");
        }
        for option in [
            "--index-url https://x/simple",
            "--extra-index-url=https://user:word@x/simple?a=b",
            "-i http://x",
            "--pre",
            "--only-binary :all:",
            "--require-hashes",
        ] {
            assert_eq!(line_of(option), Line::Option, "{option}");
        }
        for code in [
            "-e ./ed",
            "--editable=.",
            "./src",
            ".",
            "..",
            "x @ file:///etc",
            "x@./y",
            "x @ git+https://h/r",
            "git+https://h/r",
            "https://h/x.whl",
            "a.whl",
            "a-1.tar.gz",
            "a/b",
            "--find-links /x",
            "-f x",
            "--require-hashes -e .",
            "--pre -e .",
            "--index-url https://x -e .",
            "--index-url file:///x",
            "flask --editable .",
            "flask --config-settings x=y",
            "$HOME",
            "fläsk",
        ] {
            assert_eq!(line_of(code), Line::Code, "{code}");
        }
        let include = |other: &str, constrains| Line::Include {
            other: other.into(),
            constrains,
        };
        assert_eq!(line_of("-r more.txt"), include("more.txt", false));
        assert_eq!(line_of("-c=c.txt"), include("c.txt", true));
    }

    #[test]
    fn lines_are_those_that_uv_sees_or_none() {
        let lines = |text: &str| logical_lines(text);
        let list = |lines: &[&str]| Some(lines.iter().map(|line| (*line).to_owned()).collect());
        assert_eq!(lines("a\r\n b # x\n# -e .\n"), list(&["a", "b", "", ""]));
        assert_eq!(lines("a \\\n>=1\nb#c"), list(&["a >=1", "b#c"]));
        for odd in [
            "# x \\\n-e .",
            "# x\r-e .",
            "a \\\n# x\nb",
            "a\\",
            "a\u{b}-e .",
            "a # b\\\nc",
        ] {
            assert_eq!(lines(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn included_files_stay_in_the_bundle() {
        use std::fs;
        let folder = std::env::temp_dir().join(crate::vault::random::label());
        fs::create_dir_all(folder.join("a")).unwrap();
        let with = |text: &str| {
            fs::write(folder.join("requirements.txt"), text).unwrap();
            wanted(&folder, "requirements.txt")
        };
        let plain = |requirements: &str, constraints: &str| {
            Ok(Wanted::Plain(Lines {
                requirements: requirements.into(),
                constraints: constraints.into(),
            }))
        };
        fs::write(folder.join("a/more.txt"), "-r ../requirements.txt\n-e .").unwrap();
        assert_eq!(with("flask # web\n"), plain("flask\n", ""));
        assert!(
            with("-r a/more.txt\n")
                .unwrap_err()
                .contains("a/more.txt, line 1")
        );
        fs::write(folder.join("a/more.txt"), "-e .").unwrap();
        assert_eq!(with("-r a/more.txt\n"), Ok(Wanted::Code));
        fs::write(folder.join("a/more.txt"), "dash<3").unwrap();
        assert_eq!(with("dash\n-c a/more.txt\n"), plain("dash\n", "dash<3\n"));
        assert_eq!(with("dash\n-r a/more.txt\n"), plain("dash\ndash<3\n", ""));
        assert_eq!(with("# x \\\n-e .\n"), Ok(Wanted::Code));
        assert_eq!(wanted(&folder, "pyproject.toml"), Ok(Wanted::Code));
        for bad in [
            "-r /proc/self/environ",
            "-r http://127.0.0.1/x",
            "-c ../../x",
            "-r missing.txt",
            "-r\\\n /etc/passwd",
        ] {
            assert!(with(bad).is_err(), "{bad}");
        }
        let large = "#".repeat(MAX_BYTES + 1);
        assert!(with(&large).unwrap_err().contains("megabyte"));
        fs::remove_dir_all(&folder).unwrap();
    }
}
