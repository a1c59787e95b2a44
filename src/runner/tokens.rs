//! The tokens that a process finds in files: its content session token, and for service accounts by
//! federation a token of this portal for the service, where SDKs read it by themselves. Each file is
//! replaced by a rename before its token ends; the folder is mounted read-only.
//!
//! Every ten seconds the portal looks whether the item may still act as each of them: a file whose service
//! account was paused, detached or deleted is deleted. What a process got in variables stays in it until
//! it ends; it is replaced by a new one as soon as its visitors leave.

use super::Context;
use crate::{
    domain::{Id, content::Content},
    service::{
        Error,
        grants::workload::{ProcessTokens, TokenFile},
    },
};
use secrecy::{ExposeSecret as _, SecretString};
use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::task::AbortOnDropHandle;

/// Where a process of a sandbox finds the files.
const INSIDE: &str = "/run/valetkey/tokens";
/// How often the files are written anew: half of a token's life.
const INTERVAL: Duration = Duration::from_secs(1800);
/// How often the portal looks what the item may still have.
const LOOK: Duration = Duration::from_secs(10);

/// A folder that is deleted with all files when it is dropped.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// The files of one process, until it is dropped.
pub struct TokenFiles {
    // Dropped first: nothing is written into a folder that is gone.
    _writing: AbortOnDropHandle<()>,
    _folder: Folder,
}

/// What a process gets besides its files.
pub struct Handed {
    pub files: TokenFiles,
    /// Outside, inside, writable.
    pub mount: (PathBuf, PathBuf, bool),
    /// Variables with secrets, and others.
    pub secrets: Vec<(String, SecretString)>,
    pub plain: Vec<(String, String)>,
}

/// Writes the files of a process; `None` if the item uses no service account. The error is a sentence
/// for the publisher.
pub async fn hand_out(
    context: &Arc<Context>,
    item: &Content,
    process: &str,
) -> Result<Option<Handed>, String> {
    let workload = &context.services.workload;
    let inner = |error: Error| {
        error.log("the tokens of a process");
        "The portal cannot make the tokens of this content. Try again.".to_owned()
    };
    let Some(tokens) = workload.tokens_of(item).await.map_err(inner)? else {
        return Ok(None);
    };
    let made = workload.sign(&tokens.files).await.map_err(inner)?;
    let folder = context.files().run().join(format!("{process}.tokens"));
    let disk = |error: io::Error| format!("The tokens of this content cannot be written: {error}.");
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&folder)
        .map_err(disk)?;
    let kept = Folder(folder.clone());
    write(&folder, &made).map_err(disk)?;
    let inside = context.launcher.place(&folder, INSIDE);
    let ProcessTokens {
        files,
        mut secrets,
        mut plain,
    } = tokens;
    for (file, token) in files.iter().zip(&made) {
        let path = inside.join(&file.name).to_string_lossy().into_owned();
        plain.push((file.path_variable.to_owned(), path));
        if let Some(variable) = file.value_variable {
            secrets.push((variable.to_owned(), token.1.clone()));
        }
    }
    let names: Vec<String> = files.into_iter().map(|file| file.name).collect();
    let (writing, at, id) = (Arc::clone(context), folder.clone(), item.id);
    let writing = tokio::spawn(async move { keep_fresh(&writing, &at, id, &names).await });
    Ok(Some(Handed {
        files: TokenFiles {
            _writing: AbortOnDropHandle::new(writing),
            _folder: kept,
        },
        mount: (folder, inside, false),
        secrets,
        plain,
    }))
}

/// Writes the files anew before their tokens end, as long as the item may have them.
async fn keep_fresh(context: &Context, folder: &Path, item: Id<Content>, names: &[String]) {
    let mut written_at = Instant::now();
    loop {
        tokio::time::sleep(LOOK).await;
        let allowed = match still_allowed(context, item, names).await {
            Ok(allowed) => allowed,
            Err(error) => {
                error.log("what a process may still have");
                continue;
            }
        };
        let is_gone = |name: &&String| !allowed.iter().any(|file| file.name == **name);
        for name in names.iter().filter(is_gone) {
            drop(fs::remove_file(folder.join(name)));
        }
        let is_missing = allowed.iter().any(|file| !folder.join(&file.name).exists());
        if !is_missing && written_at.elapsed() < INTERVAL {
            continue;
        }
        let written = match context.services.workload.sign(&allowed).await {
            Ok(made) => write(folder, &made).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match written {
            Ok(()) => written_at = Instant::now(),
            Err(reason) => {
                tracing::warn!(reason, "the tokens of a process could not be written anew");
            }
        }
    }
}

/// The files among these that the item may still have.
async fn still_allowed(
    context: &Context,
    item: Id<Content>,
    names: &[String],
) -> Result<Vec<TokenFile>, Error> {
    let Some(item) = context.bundles.item(item).await? else {
        return Ok(Vec::new());
    };
    let files = context.services.workload.files_of(&item).await?;
    Ok(files
        .into_iter()
        .filter(|file| names.contains(&file.name))
        .collect())
}

/// Replaces the files, each by a rename: a reader sees the old or the new one.
fn write(folder: &Path, tokens: &[(String, SecretString)]) -> io::Result<()> {
    for (name, token) in tokens {
        let new = folder.join(format!(".{name}"));
        drop(fs::remove_file(&new));
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o400)
            .open(&new)?;
        file.write_all(token.expose_secret().as_bytes())?;
        fs::rename(&new, folder.join(name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_replaced_and_only_its_owner_reads_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = std::env::temp_dir().join(format!("valetkey-tokens-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        for token in ["first", "second"] {
            write(&folder, &[("token".into(), token.into())]).unwrap();
            assert_eq!(fs::read_to_string(folder.join("token")).unwrap(), token);
        }
        let mode = fs::metadata(folder.join("token"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o400);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        fs::remove_dir_all(&folder).unwrap();
    }
}
