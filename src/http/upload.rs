//! Writes an upload to a file while it arrives, within limits.

use crate::disk;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use std::{io, path::Path, time::Duration};
use tokio::io::AsyncWriteExt as _;

/// How long an upload may pause.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Why an upload was not stored. The texts are for the publisher.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The limit in MiB.
    #[error("The upload is larger than {0} MiB. Leave out what the app does not need.")]
    TooLarge(u64),
    #[error("The upload paused for too long. Upload again.")]
    Paused,
    #[error("The upload broke off. Upload again.")]
    BrokeOff,
    #[error("The upload cannot be stored.")]
    Disk(#[from] io::Error),
}

/// Writes a stream to a new file, at most `most` bytes. Returns their number.
pub async fn store<E>(
    mut parts: impl Stream<Item = Result<Bytes, E>> + Unpin,
    path: &Path,
    most: u64,
) -> Result<u64, UploadError> {
    let folder = path.parent().unwrap_or(path);
    disk::check_room(folder)?;
    let mut file = tokio::fs::File::create(path).await?;
    let (mut counted, mut written) = (disk::Writing::new(folder), 0);
    while let Some(part) = next_part(&mut parts).await? {
        written = counted.add(part.len())?;
        if written > most {
            return Err(UploadError::TooLarge(most >> 20));
        }
        file.write_all(&part).await?;
    }
    file.flush().await?;
    Ok(written)
}

/// Reads a short part of a form into memory, at most `most` bytes. Ends at the first error: a body that
/// breaks off within a part gives that error again and again.
pub async fn read_short<E>(
    mut parts: impl Stream<Item = Result<Bytes, E>> + Unpin,
    most: usize,
) -> Result<Vec<u8>, UploadError> {
    let mut bytes = Vec::new();
    while let Some(part) = next_part(&mut parts).await? {
        bytes.extend_from_slice(&part);
        if bytes.len() > most {
            return Err(UploadError::TooLarge((most >> 20) as u64));
        }
    }
    Ok(bytes)
}

/// The next part of an upload, which may pause for [`IDLE_TIMEOUT`]; `None` at its end.
async fn next_part<E>(
    parts: &mut (impl Stream<Item = Result<Bytes, E>> + Unpin),
) -> Result<Option<Bytes>, UploadError> {
    let part = tokio::time::timeout(IDLE_TIMEOUT, parts.next()).await;
    let part = part.map_err(|_| UploadError::Paused)?;
    part.transpose().map_err(|_| UploadError::BrokeOff)
}
