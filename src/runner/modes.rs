//! How each kind of app is started, and how it is told where it is mounted.
//!
//! The portal configures port and path prefix, so that an app that was written for one server runs
//! unchanged on a host of its own and below a path.

use crate::domain::bundle::{AppMode, Manifest};
use std::{ffi::OsString, path::Path};

/// What a start depends on. Paths are those that the process sees.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    pub manifest: &'a Manifest,
    /// The file of the entry point, for kinds that are started by file ([`entry_file`]).
    pub file: &'a str,
    pub python: &'a str,
    /// The program that serves all Python apps without a server of their own ([`LAUNCH`]).
    pub launch: &'a str,
    pub port: u16,
    /// Where viewers see the app: begins and ends with a slash.
    pub prefix: &'a str,
}

/// A Python program that imports an app and serves it.
pub const LAUNCH: &str = include_str!("launch.py");

/// Packages of the portal's own, for [`LAUNCH`], used where a bundle does not bring its own. Without
/// `websockets`, uvicorn answers 404 to every WebSocket.
pub const SERVERS: [&str; 3] = ["waitress==3.0.2", "uvicorn==0.34.3", "websockets==15.0.1"];

/// Command and variables of a process.
#[derive(Debug, PartialEq, Eq)]
pub struct Command {
    pub words: Vec<OsString>,
    pub variables: Vec<(&'static str, String)>,
}

/// The path that is asked until it is answered, whatever the status, once an app listens; `None` for
/// kinds that listen only when they are loaded. It runs no code of the app.
pub fn probe(mode: AppMode, prefix: &str) -> Option<String> {
    match mode {
        AppMode::Streamlit => Some("/_stcore/health".into()),
        AppMode::Gradio => Some("/config".into()),
        AppMode::Bokeh | AppMode::Panel => Some(format!("{prefix}static/js/bokeh.min.js")),
        // Its first page executes a notebook.
        AppMode::Voila => Some(format!("{prefix}voila/static/voila.js")),
        _ => None,
    }
}

/// The file that an entry point names, below the folder of the app: `app`, `app.py`, `pages.app` or
/// `app:name`; or the folder that it names, if that has a `main.py`. `None` if there is neither.
/// (Clients write the module's name also where a file is wanted.)
pub fn entry_file(app: &Path, entry: &str) -> Option<String> {
    let entry = entry.split(':').next().unwrap_or(entry);
    if app.join(entry).is_file() || app.join(entry).join("main.py").is_file() {
        return Some(entry.to_owned());
    }
    let file = format!("{}.py", entry.replace('.', "/"));
    app.join(&file).is_file().then_some(file)
}

/// How to start an app; `None` for kinds that are served from files.
pub fn command(start: &Start<'_>) -> Option<Command> {
    let Start {
        manifest,
        file,
        python,
        launch,
        port,
        prefix,
    } = *start;
    let entry = manifest.entrypoint.as_str();
    let port = port.to_string();
    let module = |words: &[&str]| -> Vec<OsString> {
        [python, "-m"]
            .iter()
            .chain(words)
            .map(OsString::from)
            .collect()
    };
    let launched = |kind: &str| -> Vec<OsString> {
        [python, launch, kind, entry, &port, prefix]
            .map(OsString::from)
            .to_vec()
    };
    let (words, variables): (Vec<OsString>, Vec<(&'static str, String)>) = match manifest.mode {
        AppMode::Streamlit => (
            module(&[
                "streamlit",
                "run",
                file,
                "--server.port",
                &port,
                "--server.address",
                "127.0.0.1",
                "--server.headless",
                "true",
                "--browser.gatherUsageStats",
                "false",
                "--server.fileWatcherType",
                "none",
                "--client.toolbarMode",
                "viewer",
                // The portal compares Origin itself; Streamlit would ask the Internet for its address.
                "--server.enableCORS",
                "false",
            ]),
            Vec::new(),
        ),
        AppMode::Shiny | AppMode::Asgi => (launched("asgi"), Vec::new()),
        AppMode::Dash => (launched("dash"), Vec::new()),
        AppMode::Wsgi => (launched("wsgi"), Vec::new()),
        AppMode::Gradio => (
            launched("gradio"),
            vec![
                ("GRADIO_ANALYTICS_ENABLED", "False".into()),
                ("GRADIO_SSR_MODE", "False".into()),
            ],
        ),
        AppMode::Bokeh | AppMode::Panel => {
            let program = if manifest.mode == AppMode::Bokeh {
                "bokeh"
            } else {
                "panel"
            };
            (
                module(&[
                    program,
                    "serve",
                    file,
                    "--address",
                    "127.0.0.1",
                    "--port",
                    &port,
                    // The portal compares Origin itself.
                    "--allow-websocket-origin",
                    "*",
                    "--use-xheaders",
                    "--prefix",
                    prefix,
                ]),
                Vec::new(),
            )
        }
        AppMode::Voila => {
            let mut words = module(&["voila"]);
            if !entry.is_empty() {
                words.push(entry.into());
            }
            let (port, base) = (format!("--port={port}"), format!("--base_url={prefix}"));
            words.extend(
                [
                    "--no-browser",
                    "--Voila.ip=127.0.0.1",
                    &port,
                    &base,
                    // Kernels get these as HTTP_RSTUDIO_CONNECT_CREDENTIALS and so on.
                    "--VoilaConfiguration.http_header_envs=RStudio-Connect-Credentials",
                    "--VoilaConfiguration.http_header_envs=Posit-Connect-User-Session-Token",
                    "--MappingKernelManager.cull_idle_timeout=600",
                    "--MappingKernelManager.cull_interval=60",
                ]
                .map(OsString::from),
            );
            (words, Vec::new())
        }
        AppMode::Notebook | AppMode::Static => return None,
    };
    Some(Command { words, variables })
}

/// How a notebook is rendered into `output.html` in the folder `out`.
pub fn render_command(manifest: &Manifest, python: &str, out: &str) -> Vec<OsString> {
    let mut words: Vec<OsString> = [
        python,
        "-m",
        "nbconvert",
        "--to",
        "html",
        "--execute",
        "--output-dir",
        out,
        "--output",
        "output.html",
        // The kernel of the environment, whatever name the notebook has for it.
        "--ExecutePreprocessor.kernel_name=python3",
    ]
    .map(OsString::from)
    .to_vec();
    if manifest.hide_all_input {
        words.push("--no-input".into());
    }
    if manifest.hide_tagged_input {
        words.push("--TagRemovePreprocessor.remove_input_tags=hide_input".into());
    }
    words.push((&manifest.entrypoint).into());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(mode: &str, entry: &str, prefix: &str) -> Vec<String> {
        let text = format!(r#"{{"metadata": {{"appmode": "{mode}", "entrypoint": "{entry}"}}}}"#);
        let manifest = Manifest::parse(text.as_bytes()).unwrap();
        let start = Start {
            manifest: &manifest,
            file: "app.py",
            python: "python",
            launch: "/launch.py",
            port: 99,
            prefix,
        };
        let command = command(&start).unwrap();
        command
            .words
            .into_iter()
            .map(|word| word.into_string().unwrap())
            .collect()
    }

    #[test]
    fn each_kind_is_told_port_and_prefix() {
        assert!(
            words("python-streamlit", "app", "/c/x/")
                .join(" ")
                .starts_with("python -m streamlit run app.py --server.port 99")
        );
        assert_eq!(
            words("python-api", "app:app", "/c/x/"),
            ["python", "/launch.py", "wsgi", "app:app", "99", "/c/x/"]
        );
        assert!(words("python-bokeh", "app", "/c/x/").join(" ").ends_with("serve app.py --address 127.0.0.1 --port 99 --allow-websocket-origin * --use-xheaders --prefix /c/x/"));
        assert!(
            words("jupyter-voila", "", "/c/x/")
                .join(" ")
                .starts_with("python -m voila --no-browser")
        );
    }
}
