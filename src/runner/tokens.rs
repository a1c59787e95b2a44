//! The tokens that a process finds in files: its content session token, and for service accounts by
//! federation a token of this portal for the service, where SDKs read it by themselves. Each file is
//! replaced by a rename before its token ends; the folder is mounted read-only.

use super::Context;
use crate::{
    domain::content::Content,
    service::grants::workload::{ProcessTokens, TokenFile},
};
use secrecy::{ExposeSecret as _, SecretString};
use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio_util::task::AbortOnDropHandle;

/// Where a process of a sandbox finds the files.
const INSIDE: &str = "/run/valetkey/tokens";
/// How often the files are written anew: half of a token's life.
const INTERVAL: Duration = Duration::from_secs(1800);
/// Pause after tokens could not be made.
const PAUSE: Duration = Duration::from_secs(30);

/// The files of one process. They are deleted when it is dropped.
pub struct TokenFiles {
    folder: PathBuf,
    _writing: AbortOnDropHandle<()>,
}

impl Drop for TokenFiles {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// What a process gets besides its files.
pub struct Handed {
    pub files: TokenFiles,
    /// Outside, inside, writable.
    pub mount: (PathBuf, PathBuf, bool),
    pub variables: Vec<(String, SecretString)>,
}

/// Writes the files of a process; `None` if the item uses no service account. The error is a sentence
/// for the publisher.
pub async fn hand_out(
    context: &Arc<Context>,
    item: &Content,
    process: &str,
) -> Result<Option<Handed>, String> {
    let workload = &context.services.workload;
    let inner = |error: crate::service::Error| {
        error.log("the tokens of a process");
        "The portal cannot make the tokens of this content. Try again.".to_owned()
    };
    let Some(tokens) = workload.tokens_of(item).await.map_err(inner)? else {
        return Ok(None);
    };
    let folder = context.files().run().join(format!("{process}.tokens"));
    let disk = |error: io::Error| format!("The tokens of this content cannot be written: {error}.");
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&folder)
        .map_err(disk)?;
    let inside = context.launcher.place(&folder, INSIDE);
    let made = workload.sign(&tokens.files).await.map_err(inner)?;
    write(&folder, &made).map_err(disk)?;
    let ProcessTokens { files, variables } = tokens;
    let path = |file: &str| inside.join(file).to_string_lossy().into_owned();
    let mut handed: Vec<(String, SecretString)> = variables;
    for (file, token) in files.iter().zip(&made) {
        handed.push((file.path_variable.to_owned(), path(&file.name).into()));
        if let Some(variable) = file.value_variable {
            handed.push((variable.to_owned(), token.1.clone()));
        }
    }
    let (writing, at) = (Arc::clone(context), folder.clone());
    let writing = tokio::spawn(async move { keep_fresh(&writing, &at, &files).await });
    Ok(Some(Handed {
        files: TokenFiles {
            folder: folder.clone(),
            _writing: AbortOnDropHandle::new(writing),
        },
        mount: (folder, inside, false),
        variables: handed,
    }))
}

async fn keep_fresh(context: &Context, folder: &Path, files: &[TokenFile]) {
    let mut wait = INTERVAL;
    loop {
        tokio::time::sleep(wait).await;
        let made = context.services.workload.sign(files).await;
        let written = match made {
            Ok(made) => write(folder, &made).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        wait = match written {
            Ok(()) => INTERVAL,
            Err(reason) => {
                tracing::warn!(reason, "the tokens of a process could not be written anew");
                PAUSE
            }
        };
    }
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
