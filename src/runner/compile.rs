//! Compiling packages after a deploy, so that later starts are faster: Python itself would compile
//! them at each start, since a process may not write its environment. For Streamlit these are three
//! seconds of four.
//!
//! An interpreter compiles them in the sandbox and runs no code of a package. Its output goes to a
//! folder of its own; the portal puts it into uv's cache, from where the next environment with the
//! same package gets it by link, as it gets the package. A bundle's own environment is compiled
//! where it is: packages that were built from source may have put anything there, and it goes no
//! further.

use super::{
    Context,
    builds::{TaskLog, Tool, base_variables, run_tool},
    folders,
    interpreters::Interpreter,
    process,
};
use crate::domain::{Id, bundle::Task, content::Content};
use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Compiles what a deployed bundle uses. A failure costs only time.
pub async fn after_deploy(context: Arc<Context>, item: Id<Content>, bundle: i64) {
    let folder = context.files().bundle(item, bundle);
    let (marker, env) = (folder.join("compiled"), folder.join("env"));
    if marker.exists() || !env.join("lib").exists() {
        return;
    }
    let Ok(prefix) = fs::read(folder.join("python")) else {
        return;
    };
    let prefix = PathBuf::from(String::from_utf8_lossy(&prefix).into_owned());
    let installed = context
        .interpreters
        .get(&context.settings().python, &context.uv)
        .await;
    let Some(interpreter) = installed.iter().find(|one| one.prefix == prefix) else {
        return;
    };
    let path = context.files().item(item).join("tasks").join("compile.log");
    let Ok(log) = TaskLog::open(&path) else {
        return;
    };
    let inside = context.launcher.place(&env, "/env");
    let compiled = compileall(
        &context,
        &log,
        interpreter,
        Compiling {
            options: Vec::new(),
            folders: vec![inside.join("lib")],
            mounts: vec![(env.clone(), inside, true)],
            written: env,
        },
    );
    if compiled.await {
        drop(File::create_new(marker));
    }
    compile_cache(&context, &log, interpreter).await;
}

/// One run of Python's `compileall`.
struct Compiling {
    options: Vec<OsString>,
    /// What is compiled, inside.
    folders: Vec<PathBuf>,
    mounts: Vec<(PathBuf, PathBuf, bool)>,
    /// Where the output goes, outside.
    written: PathBuf,
}

/// Whether everything could be compiled.
async fn compileall(
    context: &Context,
    log: &TaskLog,
    interpreter: &Interpreter,
    compiling: Compiling,
) -> bool {
    let mut mounts = compiling.mounts;
    process::mount_interpreter(&mut mounts, &interpreter.prefix);
    let mut command: Vec<OsString> = vec![interpreter.program.clone().into()];
    command.extend(["-I", "-S"].map(OsString::from));
    command.extend(compiling.options);
    command.extend(["-m", "compileall", "-q", "-j", "1"].map(OsString::from));
    command.extend(compiling.folders.into_iter().map(OsString::from));
    let tool = Tool {
        name: "compile",
        folder: "/".into(),
        command,
        mounts,
        variables: base_variables(),
    };
    run_tool(context, log, tool, &[compiling.written])
        .await
        .is_ok()
}

/// Compiles the packages in uv's cache that no earlier call compiled for this version of Python.
async fn compile_cache(context: &Context, log: &TaskLog, interpreter: &Interpreter) {
    let store = context.files().store();
    let markers = store.join("compiled").join(interpreter.short_version());
    let packages = uncompiled(&store.join("cache"), &markers);
    let Some(shelf) = packages.first().and_then(|first| first.parent()) else {
        return;
    };
    // Named as that of a build: the next start clears what a killed portal leaves.
    let out = store.join(Id::<Task>::random().to_string());
    if folders::clear(&out).is_err() || fs::create_dir_all(&markers).is_err() {
        return;
    }
    let inside = context.launcher.place(shelf, "/packages");
    let out_inside = context.launcher.place(&out, "/out");
    let mut prefix = OsString::from("pycache_prefix=");
    prefix.push(&out_inside);
    let names = packages.iter().filter_map(|one| one.file_name());
    // Files that Python cannot read, such as templates, are left out; the rest counts.
    compileall(
        context,
        log,
        interpreter,
        Compiling {
            options: vec!["-X".into(), prefix],
            folders: names.map(|name| inside.join(name)).collect(),
            mounts: vec![
                (shelf.to_owned(), inside.clone(), false),
                (out.clone(), out_inside, true),
            ],
            written: out.clone(),
        },
    )
    .await;
    // Below its prefix, Python names the whole path of the source.
    let compiled = out.join(inside.strip_prefix("/").unwrap_or(&inside));
    let linked = folders::blocking(move || {
        for package in &packages {
            let Some(name) = package.file_name() else {
                continue;
            };
            if let Err(error) = link_compiled(&compiled.join(name), package) {
                tracing::warn!(%error, "a compiled package cannot be kept");
            }
            drop(File::create_new(markers.join(name)));
        }
        folders::remove(&out)
    });
    drop(linked.await);
}

/// The folders of packages in uv's cache without a marker.
fn uncompiled(cache: &Path, markers: &Path) -> Vec<PathBuf> {
    let shelves = fs::read_dir(cache).into_iter().flatten().flatten();
    let shelf = shelves.map(|entry| entry.path()).find(|path| {
        path.file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"archive-"))
    });
    let packages = shelf.and_then(|shelf| fs::read_dir(shelf).ok());
    let packages = packages.into_iter().flatten().flatten();
    packages
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter(|entry| !markers.join(entry.file_name()).exists())
        .map(|entry| entry.path())
        .collect()
}

/// Links compiled files, which lie as their sources do, to where Python looks for them: at once
/// whole, since another build may read the package meanwhile.
fn link_compiled(compiled: &Path, package: &Path) -> io::Result<()> {
    let mut open = vec![PathBuf::new()];
    while let Some(part) = open.pop() {
        let entries = match fs::read_dir(compiled.join(&part)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        let place = package.join(&part).join("__pycache__");
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                open.push(part.join(entry.file_name()));
            } else if kind.is_file() {
                fs::create_dir_all(&place)?;
                // Python followed no links to get here; a package may hold this one.
                if !fs::symlink_metadata(&place)?.is_dir() {
                    break;
                }
                match fs::hard_link(entry.path(), place.join(entry.file_name())) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(error);
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiled_files_lie_where_python_looks_for_them() {
        let root = std::env::temp_dir().join(crate::vault::random::label());
        let (cache, markers, out) = (root.join("cache"), root.join("markers"), root.join("out"));
        let package = cache.join("archive-v0/a");
        for folder in [
            &package.join("p/q"),
            &cache.join("simple-v1"),
            &markers,
            &out.join("p/q"),
        ] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(package.join("p/q/m.py"), "").unwrap();
        fs::write(out.join("p/q/m.cpython-311.pyc"), "compiled").unwrap();
        assert_eq!(uncompiled(&cache, &markers), std::slice::from_ref(&package));
        link_compiled(&out, &package).unwrap();
        // What is there already stays.
        fs::write(out.join("p/q/n.cpython-311.pyc"), "compiled").unwrap();
        link_compiled(&out, &package).unwrap();
        for name in ["m", "n"] {
            let place = package.join(format!("p/q/__pycache__/{name}.cpython-311.pyc"));
            assert_eq!(fs::read_to_string(place).unwrap(), "compiled");
        }
        link_compiled(&root.join("nothing"), &package).unwrap();
        // A package with a link in the place of that folder gets nothing.
        let odd = cache.join("archive-v0/odd");
        fs::create_dir_all(odd.join("p/q")).unwrap();
        std::os::unix::fs::symlink(&markers, odd.join("p/q/__pycache__")).unwrap();
        link_compiled(&out, &odd).unwrap();
        assert_eq!(fs::read_dir(&markers).unwrap().count(), 0);
        fs::remove_dir_all(odd).unwrap();
        fs::write(markers.join("a"), "").unwrap();
        assert!(uncompiled(&cache, &markers).is_empty());
        fs::remove_dir_all(root).unwrap();
    }
}
