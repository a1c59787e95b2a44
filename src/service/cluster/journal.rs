//! Copies endings from the database into this node's journals (`vault::journal`): one in the data
//! directory, and one in another place if the operator names one. Every node has all endings of the
//! installation, a second or two after they were committed.

use crate::{
    config::Settings,
    domain::{
        Timestamp,
        ending::{Epochs, NumberedEnding},
    },
    service::{core::Core, error::Error},
    store::endings,
    vault::journal::{Journal, JournalKey},
};
use std::{
    collections::{BTreeMap, HashSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::Mutex;

/// Endings read at a time.
const BATCH: i64 = 1000;
/// Numbers before the last one that are looked for once more after a start.
const LOOK_BACK: i64 = 1000;
/// A number that is missing for this long belongs to a transaction that was rolled back.
const MISSING_FOR: Duration = Duration::from_secs(60);
/// A transaction takes its number before it commits: endings may appear this long after later ones.
const COMMIT_DELAY: Duration = Duration::from_secs(10);
/// How often the journal says that nothing more has ended.
const SAY_UNTIL_INTERVAL: Duration = Duration::from_secs(60);
/// How long files of the journal are kept: no older backup can be restored without new consents.
const RETENTION: Duration = Duration::from_secs(400 * 86_400);

/// The folders that a node with these settings writes its journals to.
pub fn folders(settings: &Settings) -> Vec<PathBuf> {
    let first = settings.data_dir.join("journal");
    std::iter::once(first)
        .chain(settings.journal_copy.clone())
        .collect()
}

/// What is written to one folder.
struct Tail {
    folder: PathBuf,
    open: Option<OpenTail>,
    /// The last try failed, and that was logged.
    is_failing: bool,
}

struct OpenTail {
    journal: Journal,
    /// The highest number in the journal.
    highest: i64,
    /// Numbers below it that are not in the journal, and since when that is known.
    missing: BTreeMap<i64, Timestamp>,
    said_until: Timestamp,
}

impl OpenTail {
    /// Opens the journal of a folder, which is made if it is missing. After a restore all endings of
    /// the database are written once more, under the numbers of its new epoch.
    fn open(
        folder: &Path,
        key: JournalKey,
        epochs: Epochs,
        since: Timestamp,
        now: Timestamp,
    ) -> io::Result<Self> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(folder)?;
        let found = Journal::read(folder, &key)?.of(&epochs);
        let endings = found.iter().flat_map(|found| &found.endings);
        let numbers: HashSet<i64> = endings.map(|one| one.number).collect();
        let highest = numbers.iter().copied().max().unwrap_or(0);
        let looked_for = (highest - LOOK_BACK).max(1)..highest;
        let mut journal = Journal::open(folder, key, epochs)?;
        journal.start(since)?;
        Ok(Self {
            journal,
            highest,
            missing: looked_for
                .filter(|number| !numbers.contains(number))
                .map(|number| (number, now))
                .collect(),
            said_until: Timestamp(0),
        })
    }

    /// The number after which endings are to be read.
    fn after(&self) -> i64 {
        let first = self.missing.keys().next();
        first.map_or(self.highest, |number| number - 1)
    }

    /// Writes those that are not there yet. `until`: all endings before are among `read`, or there.
    fn write(
        &mut self,
        read: Vec<NumberedEnding>,
        until: Option<Timestamp>,
        now: Timestamp,
    ) -> io::Result<()> {
        let new: Vec<NumberedEnding> = read
            .into_iter()
            .filter(|one| one.number > self.highest || self.missing.contains_key(&one.number))
            .collect();
        let says_until = !new.is_empty() || now.since(self.said_until) >= SAY_UNTIL_INTERVAL;
        let until = until.filter(|_| says_until);
        if new.is_empty() && until.is_none() {
            return Ok(());
        }
        self.journal.write(&new, until)?;
        if until.is_some() {
            self.said_until = now;
        }
        for one in &new {
            self.missing.remove(&one.number);
            let between = (self.highest + 1).max(one.number - LOOK_BACK)..one.number;
            self.missing.extend(between.map(|number| (number, now)));
            self.highest = self.highest.max(one.number);
        }
        self.missing
            .retain(|_, since| now.since(*since) < MISSING_FOR);
        Ok(())
    }
}

/// The journals of this node.
pub struct EndingsJournal {
    core: Arc<Core>,
    tails: Mutex<Vec<Tail>>,
}

impl EndingsJournal {
    pub(in crate::service) fn new(core: Arc<Core>) -> Self {
        let tails = folders(&core.settings)
            .into_iter()
            .map(|folder| Tail {
                folder,
                open: None,
                is_failing: false,
            })
            .collect();
        Self {
            core,
            tails: Mutex::new(tails),
        }
    }

    /// Copies what ended since the last call: every second and at a stop. What fails is logged once
    /// and tried again by the next call.
    pub async fn follow(&self) {
        let mut tails = self.tails.lock().await;
        for tail in tails.iter_mut() {
            match self.follow_one(tail).await {
                Ok(()) => tail.is_failing = false,
                Err(reason) if !tail.is_failing => {
                    tail.is_failing = true;
                    tracing::error!(folder = %tail.folder.display(), reason, "the journal of endings cannot be written: a restore would ask all viewers for new consents");
                }
                Err(_) => {}
            }
        }
    }

    async fn follow_one(&self, tail: &mut Tail) -> Result<(), String> {
        let text = |error: Error| error.to_string();
        let (store, now) = (&self.core.store, self.core.now());
        let mut open = match tail.open.take() {
            Some(open) => open,
            None => {
                let read = store
                    .read(|db| Ok::<_, Error>((endings::epochs(db)?, endings::kept_since(db)?)));
                let (mut epochs, since) = read.await.map_err(text)?;
                if epochs.current().is_none() {
                    let begin = store.write(|db| Ok::<_, Error>(endings::first_epoch(db)?));
                    epochs = begin.await.map_err(text)?;
                }
                let (folder, key) = (tail.folder.clone(), JournalKey::new(&self.core.root));
                blocking(move || OpenTail::open(&folder, key, epochs, since, now)).await?
            }
        };
        let mut after = open.after();
        loop {
            let read = store
                .read(move |db| Ok::<_, Error>(endings::after(db, after, BATCH)?))
                .await;
            let read = match read {
                Ok(read) => read,
                Err(error) => {
                    tail.open = Some(open);
                    return Err(text(error));
                }
            };
            let last = read.last().map_or(after, |last| last.number);
            let is_all = read.len() < usize::try_from(BATCH).unwrap_or(usize::MAX);
            let until = is_all.then(|| now.minus(COMMIT_DELAY));
            let (returned, written) = blocking(move || {
                let written = open.write(read, until, now);
                Ok((open, written))
            })
            .await?;
            (open, after) = (returned, last);
            if let Err(error) = written {
                tail.open = Some(open);
                return Err(error.to_string());
            }
            if is_all {
                tail.open = Some(open);
                return Ok(());
            }
        }
    }

    /// Deletes files of the journals that are kept no longer.
    pub async fn delete_old_files(&self) {
        let before = self.core.now().minus(RETENTION);
        let tails = self.tails.lock().await;
        for open in tails.iter().filter_map(|tail| tail.open.as_ref()) {
            if let Err(error) = open.journal.delete_before(before) {
                tracing::warn!(%error, "old files of the journal of endings could not be deleted");
            }
        }
    }
}

/// Runs work with files on a blocking thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())
}
