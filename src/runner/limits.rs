//! Control groups: a limit of memory and of the number of processes for each process of an app,
//! where the portal may make groups. Version 2 needs a delegated subtree (systemd: `Delegate=yes`);
//! version 1 works where its hierarchies are writable.

use sha2::{Digest as _, Sha256};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Where the portal may make groups.
#[derive(Clone, Debug)]
pub struct Cgroups {
    place: Place,
    /// How the names of this portal's groups begin; others of the machine have other names.
    prefix: String,
}

#[derive(Clone, Debug)]
enum Place {
    /// One hierarchy.
    V2(PathBuf),
    /// One hierarchy for memory and one for processes.
    V1 { memory: PathBuf, pids: PathBuf },
}

impl Cgroups {
    /// Finds a place for the groups of the portal with this data directory; `None` if there is none.
    pub fn find(data_dir: &Path) -> Option<Self> {
        let folder = data_dir
            .canonicalize()
            .unwrap_or_else(|_| data_dir.to_owned());
        let digest = Sha256::digest(folder.as_os_str().as_encoded_bytes());
        let owner: String = digest.iter().take(6).map(|b| format!("{b:02x}")).collect();
        Some(Self {
            place: Place::find()?,
            prefix: format!("valetkey-{owner}-"),
        })
    }

    /// Makes a group with these limits.
    pub fn create(&self, name: &str, memory_mib: u64, tasks: u64) -> io::Result<Cgroup> {
        let memory_bytes = (memory_mib << 20).to_string();
        // Never the name of a group that is being deleted.
        let name = format!("{}{name}-{}", self.prefix, crate::vault::random::label());
        match &self.place {
            Place::V2(root) => {
                let folder = root.join(name);
                fs::create_dir_all(&folder)?;
                let group = Cgroup(vec![folder.clone()]);
                fs::write(folder.join("memory.max"), &memory_bytes)?;
                // No swap beyond it, and the whole process is killed together.
                drop(fs::write(folder.join("memory.swap.max"), "0"));
                drop(fs::write(folder.join("memory.oom.group"), "1"));
                fs::write(folder.join("pids.max"), tasks.to_string())?;
                Ok(group)
            }
            Place::V1 { memory, pids } => {
                let (memory, pids) = (memory.join(&name), pids.join(&name));
                fs::create_dir_all(&memory)?;
                let mut group = Cgroup(vec![memory.clone()]);
                fs::create_dir_all(&pids)?;
                group.0.push(pids.clone());
                fs::write(memory.join("memory.limit_in_bytes"), &memory_bytes)?;
                drop(fs::write(
                    memory.join("memory.memsw.limit_in_bytes"),
                    &memory_bytes,
                ));
                fs::write(pids.join("pids.max"), tasks.to_string())?;
                Ok(group)
            }
        }
    }

    /// Deletes the groups of this portal's earlier life; their processes have ended. Not those of
    /// other portals: an empty group may be one that a process is about to enter.
    pub fn sweep(&self) {
        let roots = match &self.place {
            Place::V2(root) => vec![root],
            Place::V1 { memory, pids } => vec![memory, pids],
        };
        for entry in roots
            .iter()
            .filter_map(|root| fs::read_dir(root).ok())
            .flatten()
            .flatten()
        {
            let name = entry.file_name();
            if name.to_string_lossy().starts_with(&self.prefix) {
                // Fails while a process is in it.
                drop(fs::remove_dir(entry.path()));
            }
        }
    }
}

impl Place {
    fn find() -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let below = |controller: &str| -> Option<PathBuf> {
            let line = own.lines().find(|line| {
                line.split(':')
                    .nth(1)
                    .is_some_and(|names| names.split(',').any(|name| name == controller))
            })?;
            let path = line
                .splitn(3, ':')
                .nth(2)?
                .trim_start_matches('/')
                .to_owned();
            Some(PathBuf::from(path))
        };
        let root = Path::new("/sys/fs/cgroup");
        if let Some(path) = below("").filter(|_| root.join("cgroup.controllers").exists()) {
            return v2(&root.join(path));
        }
        let place = |controller: &str| {
            let folder = root.join(controller).join(below(controller)?);
            let probe = folder.join(format!("valetkey-probe-{}", std::process::id()));
            fs::create_dir(&probe).ok()?;
            fs::remove_dir(&probe).ok()?;
            Some(folder)
        };
        Some(Self::V1 {
            memory: place("memory")?,
            pids: place("pids")?,
        })
    }
}

/// Prepares a delegated subtree: the portal moves into a group beside those of the apps, since a
/// group that gives controllers on holds no processes itself.
fn v2(own: &Path) -> Option<Place> {
    let portal = own.join("portal");
    fs::create_dir_all(&portal).ok()?;
    fs::write(portal.join("cgroup.procs"), std::process::id().to_string()).ok()?;
    fs::write(own.join("cgroup.subtree_control"), "+memory +pids").ok()?;
    // Where it may, the portal goes first however busy apps are.
    drop(fs::write(own.join("cgroup.subtree_control"), "+cpu"));
    drop(fs::write(portal.join("cpu.weight"), "10000"));
    Some(Place::V2(own.to_owned()))
}

/// A group of one process; deleted when dropped.
#[derive(Debug)]
pub struct Cgroup(Vec<PathBuf>);

impl Cgroup {
    /// The folders of the group, for [`enter`].
    pub fn entries(&self) -> &[PathBuf] {
        &self.0
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let folders = std::mem::take(&mut self.0);
        // Processes that were just killed may still be counted.
        std::thread::spawn(move || {
            for folder in folders {
                drop(fs::write(folder.join("cgroup.kill"), "1"));
                for _ in 0..50 {
                    match fs::remove_dir(&folder) {
                        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                            std::thread::sleep(std::time::Duration::from_millis(100));
                        }
                        _ => break,
                    }
                }
            }
        });
    }
}

/// Puts this process into the groups.
pub fn enter(folders: &[PathBuf]) -> io::Result<()> {
    folders
        .iter()
        .try_for_each(|folder| fs::write(folder.join("cgroup.procs"), "0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_portal_sweeps_its_own_groups_only() {
        let root = std::env::temp_dir().join(format!("valetkey-{}", crate::vault::random::label()));
        let of = |prefix: &str| Cgroups {
            place: Place::V2(root.clone()),
            prefix: prefix.to_owned(),
        };
        for name in ["valetkey-mine-app-1", "valetkey-theirs-app-1", "other"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        of("valetkey-mine-").sweep();
        assert!(!root.join("valetkey-mine-app-1").exists());
        assert!(root.join("valetkey-theirs-app-1").exists());
        assert!(root.join("other").exists());
        fs::remove_dir_all(root).unwrap();
    }
}
