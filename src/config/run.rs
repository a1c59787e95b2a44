//! The settings of deployed content: whether it runs here, and within which limits.

use super::{SettingsError, reader::Given};
use std::{path::PathBuf, time::Duration};

/// How processes of deployed content are kept apart. Never lowered by the program itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confinement {
    Sandbox,
    /// Ordinary processes of the portal's user: for development.
    None,
    /// Content does not run here.
    Off,
}

/// The settings of deployed content.
#[derive(Clone, Debug)]
pub struct Run {
    pub confinement: Confinement,
    /// Name or path of uv.
    pub uv: PathBuf,
    /// Name or path of bubblewrap.
    pub bubblewrap: PathBuf,
    /// The interpreters that apps may use; empty: those that uv finds.
    pub python: Vec<PathBuf>,
    /// Whether apps reach anything outside the portal.
    pub reaches_outside: bool,
    /// Hosts on private networks that apps may reach.
    pub private_hosts: Vec<String>,
    /// Whether packages may be built from source.
    pub build_from_source: bool,
    pub build_timeout: Duration,
    /// Most that a build may have on the disk.
    pub max_build_bytes: u64,
    /// Most memory of one process, in MiB.
    pub memory_mib: u64,
    /// Most processes and threads of one process of an app, with its children.
    pub tasks: u64,
    pub max_upload_bytes: u64,
    pub max_unpacked_bytes: u64,
    /// Most files and folders of a bundle.
    pub max_entries: usize,
    /// Bundles of an item that are kept.
    pub kept_bundles: usize,
}

impl Default for Run {
    /// As without any setting.
    fn default() -> Self {
        Self::check(&Given::default())
    }
}

impl Run {
    /// As the variables of the environment say.
    pub fn from_environment(variables: &[(String, String)]) -> Result<Self, SettingsError> {
        Given::read(None, variables).map(|given| Self::check(&given))
    }

    pub(super) fn check(given: &Given) -> Self {
        let number = |name: &str| given.number_or_default(name);
        let count = |name: &str| usize::try_from(number(name)).unwrap_or(usize::MAX);
        Self {
            confinement: match given.text_or_default("run_content").as_str() {
                "none" => Confinement::None,
                "off" => Confinement::Off,
                _ => Confinement::Sandbox,
            },
            uv: given.text_or_default("run_uv").into(),
            bubblewrap: given.text_or_default("run_bubblewrap").into(),
            python: given
                .list("run_python")
                .into_iter()
                .map(PathBuf::from)
                .collect(),
            reaches_outside: given.text_or_default("run_network") == "web",
            private_hosts: given.list("run_private_hosts"),
            build_from_source: given.flag("run_build_from_source"),
            build_timeout: Duration::from_secs(60 * number("run_build_minutes")),
            max_build_bytes: number("run_build_mib") << 20,
            memory_mib: number("run_memory_mib"),
            tasks: number("run_tasks"),
            max_upload_bytes: number("run_max_upload_mib") << 20,
            max_unpacked_bytes: number("run_max_unpacked_mib") << 20,
            max_entries: count("run_max_files"),
            kept_bundles: count("run_kept_bundles"),
        }
    }
}
