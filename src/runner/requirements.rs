//! What a file of requirements asks for, before uv reads it: which lines make uv run code of the
//! bundle or read files outside of it.
//!
//! uv builds editable packages and local folders even where it must not build, and reads files by
//! absolute path and by address.

use std::{
    collections::HashSet,
    fs,
    path::{Component, Path, PathBuf},
};

/// Files that include one another.
const MAX_FILES: usize = 20;
/// Options that only say where packages come from, or which of them to take.
const HARMLESS: [&str; 9] = [
    "-i",
    "--index-url",
    "--extra-index-url",
    "--no-binary",
    "--only-binary",
    "--pre",
    "--prefer-binary",
    "--hash",
    "--require-hashes",
];

/// Whether the requirements can only be installed by running code of a package. The error is a
/// sentence for the publisher.
pub fn check(app: &Path, file: &str) -> Result<bool, String> {
    let (mut open, mut seen) = (vec![PathBuf::from(file)], HashSet::new());
    let mut needs_code = false;
    while let Some(path) = open.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        if seen.len() > MAX_FILES {
            return Err(format!("{file} includes more than {MAX_FILES} files."));
        }
        let text = fs::read_to_string(app.join(&path)).map_err(|_| {
            format!(
                "{} is missing in the bundle, or is no text.",
                path.display()
            )
        })?;
        for (number, line) in text.replace("\\\n", " ").lines().enumerate() {
            match line_of(line) {
                Line::Plain => {}
                Line::Code => needs_code = true,
                Line::Include(other) => {
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
                    open.push(other);
                }
            }
        }
    }
    Ok(needs_code)
}

#[derive(Debug, PartialEq, Eq)]
enum Line {
    Plain,
    /// uv may run code of the bundle for it.
    Code,
    /// Another file of requirements or constraints.
    Include(String),
}

fn line_of(line: &str) -> Line {
    let line = line.split(" #").next().unwrap_or(line).trim();
    if line.is_empty() || line.starts_with('#') {
        return Line::Plain;
    }
    for option in ["--requirement", "--constraint", "-r", "-c"] {
        if let Some(rest) = line.strip_prefix(option) {
            return Line::Include(
                rest.trim_start_matches([' ', '=', '\t'])
                    .trim_matches(['"', '\''])
                    .to_owned(),
            );
        }
    }
    if line.starts_with('-') {
        let option = line.split([' ', '=']).next().unwrap_or(line);
        return if HARMLESS.contains(&option) {
            Line::Plain
        } else {
            Line::Code
        };
    }
    // A name with versions and markers; everything else names a place.
    let name = line.split(';').next().unwrap_or(line);
    let name = name.split(" --").next().unwrap_or(name);
    let is_place = name.contains(['/', '\\', '@']) || name.starts_with('.') || name.contains(':');
    let is_file = [".whl", ".zip", ".tar.gz", ".tar.bz2", ".tgz"]
        .iter()
        .any(|end| name.trim_end().ends_with(end));
    if is_place || is_file {
        Line::Code
    } else {
        Line::Plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_run_code_or_leave_the_bundle_are_recognised() {
        for plain in [
            "",
            "# x",
            "flask",
            "flask==3.1 # web",
            "uvicorn[standard]>=0.3; python_version < '3.12'",
            "--index-url https://x/simple",
            "a==1 --hash=sha256:00",
        ] {
            assert_eq!(line_of(plain), Line::Plain, "{plain}");
        }
        for code in [
            "-e ./ed",
            "--editable=.",
            "./src",
            ".",
            "x @ file:///etc",
            "x @ git+https://h/r",
            "git+https://h/r",
            "https://h/x.whl",
            "a.whl",
            "--find-links /x",
            "-f x",
        ] {
            assert_eq!(line_of(code), Line::Code, "{code}");
        }
        assert_eq!(line_of("-r more.txt"), Line::Include("more.txt".into()));
        assert_eq!(line_of("-c=c.txt"), Line::Include("c.txt".into()));
    }

    #[test]
    fn included_files_stay_in_the_bundle() {
        let folder =
            std::env::temp_dir().join(format!("valetkey-requirements-{}", std::process::id()));
        fs::create_dir_all(folder.join("a")).unwrap();
        let with = |text: &str| {
            fs::write(folder.join("requirements.txt"), text).unwrap();
            check(&folder, "requirements.txt")
        };
        fs::write(folder.join("a/more.txt"), "-r ../requirements.txt\n-e .").unwrap();
        assert_eq!(with("flask\n"), Ok(false));
        assert!(
            with("-r a/more.txt\n")
                .unwrap_err()
                .contains("a/more.txt, line 1")
        );
        fs::write(folder.join("a/more.txt"), "-e .").unwrap();
        assert_eq!(with("-r a/more.txt\n"), Ok(true));
        for bad in [
            "-r /proc/self/environ",
            "-r http://127.0.0.1/x",
            "-c ../../x",
            "-r missing.txt",
            "-r\\\n /etc/passwd",
        ] {
            assert!(with(bad).is_err(), "{bad}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
