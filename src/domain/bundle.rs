//! Deployed content: a bundle is one upload of an app, as `rsconnect` packs it. This module reads a
//! bundle's `manifest.json` and knows which kinds of app can run here. It touches no file.
//!
//! The manifest's format is that of Posit Connect's clients (`rsconnect-python`, `bundle.py`).

use super::{
    Id, Timestamp,
    content::Content,
    person::{Person, Role},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The kind of an app, in the words of a manifest (`metadata.appmode`). Only the kinds that run here.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, strum::EnumString, strum::IntoStaticStr, strum::EnumIter,
)]
pub enum AppMode {
    #[strum(serialize = "python-streamlit")]
    Streamlit,
    #[strum(serialize = "python-shiny")]
    Shiny,
    #[strum(serialize = "python-dash")]
    Dash,
    #[strum(serialize = "python-api")]
    Wsgi,
    #[strum(serialize = "python-fastapi")]
    Asgi,
    #[strum(serialize = "python-gradio")]
    Gradio,
    #[strum(serialize = "python-bokeh")]
    Bokeh,
    #[strum(serialize = "python-panel")]
    Panel,
    #[strum(serialize = "jupyter-voila")]
    Voila,
    /// A notebook that is executed once, at the deploy, and shown as a page.
    #[strum(serialize = "jupyter-static")]
    Notebook,
    /// Files that are served as they are.
    #[strum(serialize = "static")]
    Static,
}

impl AppMode {
    /// The word in manifests and in the API.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// What people call it.
    pub fn title(self) -> &'static str {
        match self {
            AppMode::Streamlit => "Streamlit",
            AppMode::Shiny => "Shiny for Python",
            AppMode::Dash => "Dash",
            AppMode::Wsgi => "Flask or another WSGI app",
            AppMode::Asgi => "FastAPI or another ASGI app",
            AppMode::Gradio => "Gradio",
            AppMode::Bokeh => "Bokeh",
            AppMode::Panel => "Panel",
            AppMode::Voila => "Voilà",
            AppMode::Notebook => "Notebook, rendered",
            AppMode::Static => "Static files",
        }
    }

    /// Whether it needs a Python environment.
    pub fn needs_python(self) -> bool {
        self != AppMode::Static
    }

    /// Whether an app gets the whole path, with the prefix, or the path below it.
    pub fn keeps_prefix(self) -> bool {
        matches!(self, AppMode::Bokeh | AppMode::Panel | AppMode::Voila)
    }

    /// Whether it is served from files, without a process.
    pub fn is_files(self) -> bool {
        matches!(self, AppMode::Static | AppMode::Notebook)
    }
}

/// What kinds of app exist elsewhere and do not run here: the reason, for people.
fn reason_against(mode: &str) -> String {
    let reason = match mode {
        "shiny" | "api" | "rmd-static" | "rmd-shiny" => {
            "it needs R, and this portal runs Python apps and static files"
        }
        "quarto-static" | "quarto-shiny" => {
            "it needs Quarto, and this portal runs Python apps and static files; render the document and deploy the result as HTML"
        }
        "nodejs" | "nodejs-api" => {
            "it needs Node.js, and this portal runs Python apps and static files"
        }
        _ => "this portal does not know that kind",
    };
    format!(
        "This content has the app mode “{mode}”, which cannot run here: {reason}. An app that runs elsewhere can be added by its address."
    )
}

/// The part of `manifest.json` that the portal uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    pub mode: AppMode,
    /// `module`, `module:object`, or a file, as the kind of app wants it. For static files the
    /// primary page.
    pub entrypoint: String,
    /// The version of Python that the publisher used, such as `3.11.7`.
    pub python: Option<String>,
    /// A range of versions (PEP 440) that the app accepts.
    pub requires: Option<String>,
    /// The file with the packages; `None` if the bundle wants no environment of its own.
    pub package_file: Option<String>,
    /// MD5 of each file, by path: 32 hex digits.
    pub checksums: BTreeMap<String, String>,
    pub hide_all_input: bool,
    pub hide_tagged_input: bool,
    pub integration_requests: Vec<IntegrationRequest>,
}

/// What a publisher's tool says about the integration that an app wants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct IntegrationRequest {
    pub guid: Option<String>,
    pub name: Option<String>,
    /// The template.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub auth_type: Option<String>,
}

#[derive(Deserialize)]
struct File {
    metadata: Metadata,
    python: Option<Python>,
    environment: Option<Environment>,
    jupyter: Option<Jupyter>,
    #[serde(default)]
    files: BTreeMap<String, FileEntry>,
    #[serde(default)]
    integration_requests: Vec<IntegrationRequest>,
}
#[derive(Deserialize)]
struct Metadata {
    appmode: String,
    entrypoint: Option<String>,
    primary_html: Option<String>,
    primary_rmd: Option<String>,
}
#[derive(Deserialize)]
struct Python {
    version: Option<String>,
    package_manager: Option<PackageManager>,
}
#[derive(Deserialize)]
struct PackageManager {
    name: Option<String>,
    package_file: Option<String>,
}
#[derive(Default, Deserialize)]
#[serde(default)]
struct Environment {
    environment_management: Management,
    python: PythonRange,
}
#[derive(Default, Deserialize)]
#[serde(default)]
struct Management {
    python: Option<bool>,
}
#[derive(Default, Deserialize)]
#[serde(default)]
struct PythonRange {
    requires: Option<String>,
}
#[derive(Default, Deserialize)]
#[serde(default)]
struct Jupyter {
    hide_all_input: bool,
    hide_tagged_input: bool,
}
#[derive(Deserialize)]
struct FileEntry {
    checksum: Option<String>,
}

impl Manifest {
    /// Reads `manifest.json`. The error is a sentence for the publisher.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let file: File = serde_json::from_slice(text).map_err(|error| {
            format!("manifest.json cannot be read: {error}. Write it anew with “rsconnect write-manifest”.")
        })?;
        let mode: AppMode = file
            .metadata
            .appmode
            .parse()
            .map_err(|_| reason_against(&file.metadata.appmode))?;
        let Metadata {
            entrypoint,
            primary_html,
            primary_rmd,
            ..
        } = file.metadata;
        let entrypoint = match mode {
            AppMode::Static => primary_html.or(entrypoint).or(primary_rmd),
            _ => entrypoint.or(primary_html),
        }
        .unwrap_or_default();
        if entrypoint.is_empty() && mode != AppMode::Voila {
            return Err("manifest.json names no entry point (metadata.entrypoint): the file or module that starts the app.".into());
        }
        if !is_plain(&entrypoint) {
            return Err(format!(
                "manifest.json: the entry point “{entrypoint}” must name a file or module of the bundle."
            ));
        }
        let environment = file.environment.unwrap_or_default();
        let python = file.python;
        let manager = python
            .as_ref()
            .and_then(|python| python.package_manager.as_ref());
        let unmanaged = environment.environment_management.python == Some(false)
            || manager.is_some_and(|manager| manager.name.as_deref() == Some("none"));
        let package_file = (mode.needs_python() && !unmanaged).then(|| {
            manager
                .and_then(|manager| manager.package_file.clone())
                .unwrap_or_else(|| "requirements.txt".into())
        });
        if let Some(name) = &package_file
            && !is_plain(name)
        {
            return Err(format!(
                "manifest.json: the package file “{name}” must be a file of the bundle."
            ));
        }
        let jupyter = file.jupyter.unwrap_or_default();
        Ok(Self {
            mode,
            entrypoint,
            python: python.and_then(|python| python.version),
            requires: environment.python.requires,
            package_file,
            checksums: file
                .files
                .into_iter()
                .filter_map(|(path, entry)| Some((path, entry.checksum?)))
                .collect(),
            hide_all_input: jupyter.hide_all_input,
            hide_tagged_input: jupyter.hide_tagged_input,
            integration_requests: file.integration_requests,
        })
    }
}

/// Whether a text from a manifest stays inside the bundle when it is used as a path, and cannot be
/// taken for an option of a command.
fn is_plain(text: &str) -> bool {
    !text.starts_with(['/', '-', '~'])
        && !text.contains(['\\', '\0', '\n', '\r'])
        && !text.split('/').any(|part| part == "..")
        && text.len() <= 512
}

/// One upload of an app.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The `id` of the API; unique in the whole portal.
    pub number: i64,
    pub content: Id<Content>,
    pub created_at: Timestamp,
    /// Who uploaded it; `None` if their account is gone.
    pub created_by: Option<Id<Person>>,
    /// Size of the archive in bytes.
    pub size: i64,
    /// The kind of app, in the words of the manifest.
    pub app_mode: String,
    /// The version of Python that the manifest names.
    pub python: Option<String>,
    pub source: Source,
}

/// A bundle that viewers get from now on.
#[derive(Clone, Debug)]
pub struct Activated {
    pub mode: AppMode,
    /// Whether the app sees the whole path.
    pub keep_prefix: bool,
    /// The version of Python that it runs with.
    pub python: Option<String>,
}

/// Where a bundle comes from, as its publisher's tool says. All of it is unverified.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Source {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_repo: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_branch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_commit: Option<String>,
}

/// A deploy: builds a bundle's environment and, unless it is a draft, makes it the one that viewers
/// get. Stored before the publisher hears of it, so it survives a crash.
#[derive(Clone, Debug)]
pub struct Task {
    pub id: Id<Task>,
    pub content: Id<Content>,
    pub bundle: i64,
    pub created_by: Id<Person>,
    /// The role with which it was ordered: less than the person's, if their API key had less.
    pub role: Role,
    /// Whether the bundle becomes the one that viewers get.
    pub activate: bool,
    pub created_at: Timestamp,
    /// `None` while it waits or runs.
    pub outcome: Option<Outcome>,
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub at: Timestamp,
    /// A sentence for the publisher; `None` if it succeeded.
    pub error: Option<String>,
}

/// How well processes are kept apart from the portal and from one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::EnumString, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Isolation {
    /// Namespaces of their own for users, processes, files and network.
    Sandbox,
    /// Ordinary processes of the portal's user. Only by an explicit setting.
    None,
}

impl Isolation {
    /// The word in the API and in the settings.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Whether a text is a legal name of an environment variable that publishers may set: letters,
/// digits and `_`, not beginning with a digit.
pub fn is_variable_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Guesses the kind of an app that was uploaded without a manifest, from its files and the modules
/// that they import. `files`: paths relative to the app's folder, with the text of Python files.
/// Returns the kind and the entry point; `None` if nothing is recognised.
pub fn detect(files: &[(String, Option<String>)]) -> Option<(AppMode, String)> {
    let top = |name: &str| !name.contains('/');
    let stem = |name: &str| name.strip_suffix(".py").unwrap_or(name).to_owned();
    let python: Vec<(&str, &str)> = files
        .iter()
        .filter(|(name, _)| top(name) && name.ends_with(".py"))
        .filter_map(|(name, text)| Some((name.as_str(), text.as_deref()?)))
        .collect();
    // The usual names first, as rsconnect-python looks for them.
    let rank = |name: &str| {
        [
            "app.py",
            "application.py",
            "main.py",
            "api.py",
            "streamlit_app.py",
        ]
        .iter()
        .position(|known| *known == name)
        .unwrap_or(99)
    };
    let mut python = python;
    python.sort_by_key(|(name, _)| (rank(name), name.len()));
    let imports = |text: &str, module: &str| {
        text.lines().map(str::trim_start).any(|line| {
            let named = line
                .strip_prefix("import ")
                .or_else(|| line.strip_prefix("from "));
            named.is_some_and(|rest| rest.split([',', ' ', '.']).next() == Some(module))
        })
    };
    let kinds = [
        ("streamlit", AppMode::Streamlit),
        ("shiny", AppMode::Shiny),
        ("dash", AppMode::Dash),
        ("gradio", AppMode::Gradio),
        ("panel", AppMode::Panel),
        ("bokeh", AppMode::Bokeh),
        ("fastapi", AppMode::Asgi),
        ("starlette", AppMode::Asgi),
        ("flask", AppMode::Wsgi),
    ];
    for (name, text) in &python {
        for (module, mode) in kinds {
            if imports(text, module) {
                let is_file = matches!(
                    mode,
                    AppMode::Streamlit | AppMode::Panel | AppMode::Bokeh | AppMode::Gradio
                );
                let entrypoint = if is_file {
                    (*name).to_owned()
                } else if mode == AppMode::Shiny && text.contains("shiny.express") {
                    format!("shiny.express.app:{}", express_name(name))
                } else {
                    stem(name)
                };
                return Some((mode, entrypoint));
            }
        }
    }
    let named = |suffix: &str| {
        files
            .iter()
            .map(|(name, _)| name)
            .find(|name| top(name) && name.ends_with(suffix))
            .cloned()
    };
    if let Some(notebook) = named(".ipynb") {
        return Some((AppMode::Notebook, notebook));
    }
    let index = files
        .iter()
        .map(|(name, _)| name)
        .find(|name| *name == "index.html")
        .cloned();
    index
        .or_else(|| named(".html"))
        .map(|page| (AppMode::Static, page))
}

/// How Shiny Express names a file in an entry point: letters and digits stay, others become
/// `_` and two hex digits and `_` (`shiny.express`, `escape_to_var_name`).
fn express_name(file: &str) -> String {
    let mut name = String::new();
    for byte in file.bytes() {
        if byte.is_ascii_alphabetic() || (byte.is_ascii_digit() && !name.is_empty()) {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("_{byte:x}_"));
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAMLIT: &str = r#"{"version": 1, "locale": "en_US.UTF-8",
        "metadata": {"appmode": "python-streamlit", "entrypoint": "app.py"},
        "python": {"version": "3.11.7", "package_manager": {"name": "pip", "version": "23.2", "package_file": "requirements.txt"}},
        "files": {"app.py": {"checksum": "d41d8cd98f00b204e9800998ecf8427e"}}}"#;

    #[test]
    fn a_manifest_of_rsconnect_is_read() {
        let manifest = Manifest::parse(STREAMLIT.as_bytes()).unwrap();
        assert_eq!(manifest.mode, AppMode::Streamlit);
        assert_eq!(manifest.entrypoint, "app.py");
        assert_eq!(manifest.package_file.as_deref(), Some("requirements.txt"));
        assert_eq!(manifest.checksums.len(), 1);
    }

    #[test]
    fn what_cannot_run_here_is_refused_with_the_reason() {
        let of = |mode: &str| {
            Manifest::parse(STREAMLIT.replace("python-streamlit", mode).as_bytes()).unwrap_err()
        };
        assert!(of("rmd-shiny").contains("needs R"), "{}", of("rmd-shiny"));
        assert!(of("quarto-static").contains("Quarto"));
        assert!(of("nodejs").contains("Node.js"));
        assert!(of("what").contains("does not know"));
        assert!(
            Manifest::parse(b"{")
                .unwrap_err()
                .contains("write-manifest")
        );
    }

    #[test]
    fn an_entry_point_stays_in_the_bundle_and_is_no_option() {
        for bad in ["/etc/passwd", "../x.py", "a/../../x", "--config=x", "a\\nb"] {
            let text = STREAMLIT.replace("\"app.py\"}", &format!("\"{bad}\"}}"));
            assert!(Manifest::parse(text.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn kinds_are_recognised_by_imports() {
        let app =
            |text: &str| detect(&[("app.py".into(), Some(text.into())), ("x.md".into(), None)]);
        assert_eq!(
            app("import streamlit as st"),
            Some((AppMode::Streamlit, "app.py".into()))
        );
        assert_eq!(
            app("from dash import Dash"),
            Some((AppMode::Dash, "app".into()))
        );
        assert_eq!(
            app("from shiny import App"),
            Some((AppMode::Shiny, "app".into()))
        );
        assert_eq!(
            app("from shiny.express import ui"),
            Some((AppMode::Shiny, "shiny.express.app:app_2e_py".into()))
        );
        assert_eq!(app("print(1)"), None);
        let page = [
            ("index.html".to_owned(), None),
            ("a/b.py".to_owned(), Some("import dash".into())),
        ];
        assert_eq!(detect(&page), Some((AppMode::Static, "index.html".into())));
    }
}
