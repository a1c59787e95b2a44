//! The journal of endings: an append-only file beside the database that a restore of an older backup
//! reads, so that nothing that ended since works again.
//!
//! A folder of files that are continued one after the other. Each line is an [`Entry`] as JSON behind
//! its seal: an HMAC-SHA-256 over the line and the seal of the line before, with a key derived from
//! the root secret. A line that was changed, removed or added by another hand ends what can be
//! trusted. A line without its end, as a crash leaves it, is cut off. The numbers of endings mean
//! something only within an epoch ([`Epochs`]), so the journal says whose they are. Never deletes an
//! entry before its time; never looks into the database.

use super::Root;
use crate::domain::{
    Timestamp,
    ending::{Ending, Epochs, NumberedEnding},
};
use serde::{Deserialize, Serialize};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Purpose of the derived key.
const PURPOSE: &str = "journal of endings";
/// Size in bytes after which another file is begun.
const MAX_FILE_BYTES: u64 = 8 << 20;
/// End of the name of a file; before it are eight digits.
const EXTENSION: &str = "journal";

/// A line of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Entry {
    /// The lines from here to the next entry of this kind are about a database with these epochs. Each
    /// file begins with one.
    Epochs {
        epochs: Epochs,
    },
    /// A node begins, or goes on, to write. It writes all endings since `since` that are not in the
    /// journal yet.
    Start {
        since: i64,
    },
    Ending {
        number: i64,
        ending: Ending,
    },
    /// All endings before this time are in the journal.
    Until {
        at: i64,
    },
}

/// The key of a journal.
#[derive(Clone)]
pub struct JournalKey(ring::hmac::Key);

impl JournalKey {
    pub fn new(root: &Root) -> Self {
        let key = root.derive(PURPOSE);
        Self(ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key))
    }

    /// The seal of a line, in hexadecimal.
    fn seal(&self, before: &str, text: &str) -> String {
        let mut context = ring::hmac::Context::with_key(&self.0);
        context.update(before.as_bytes());
        context.update(b"\n");
        context.update(text.as_bytes());
        let tag = context.sign();
        let hex = tag.as_ref().iter().map(|byte| format!("{byte:02x}"));
        hex.collect()
    }
}

/// A journal that is being written.
pub struct Journal {
    folder: PathBuf,
    key: JournalKey,
    epochs: Epochs,
    file: File,
    /// The number in the file's name.
    number: u32,
    /// Bytes in the file.
    length: u64,
    /// The seal of the last line.
    seal: String,
}

/// What a journal says.
#[derive(Debug, Default)]
pub struct Found {
    pub of_epochs: Vec<FoundEpoch>,
    /// What is wrong with the journal: one sentence for the operator per problem.
    pub problems: Vec<String>,
}

/// What a journal says of one epoch.
#[derive(Debug)]
pub struct FoundEpoch {
    pub epochs: Epochs,
    /// In the order of the files.
    pub endings: Vec<NumberedEnding>,
    /// From when to when the journal has all endings; `None` if that cannot be known.
    pub covers: Option<(Timestamp, Timestamp)>,
}

impl Found {
    /// What the journal says of a database with these epochs: of the last one.
    pub fn of(self, epochs: &Epochs) -> Option<FoundEpoch> {
        let mut all = self.of_epochs.into_iter();
        all.find(|found| found.epochs.current() == epochs.current())
    }

    /// The index in `of_epochs` of the last of these epochs, which is added if it is missing.
    fn place(&mut self, epochs: Epochs) -> usize {
        let known = self.of_epochs.iter();
        let mut known = known.map(|found| found.epochs.current());
        let place = known.position(|current| current == epochs.current());
        place.unwrap_or_else(|| {
            self.of_epochs.push(FoundEpoch {
                epochs,
                endings: Vec::new(),
                covers: None,
            });
            self.of_epochs.len() - 1
        })
    }

    /// A part of the journal cannot be trusted: only what a node begins to write later is complete.
    fn cover_nothing(&mut self) {
        for found in &mut self.of_epochs {
            found.covers = None;
        }
    }
}

/// The files of a journal, in order.
fn files(folder: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let is_ours = path.extension().is_some_and(|end| end == EXTENSION);
        let number = path
            .file_stem()
            .and_then(|stem| stem.to_str()?.parse().ok());
        if let Some(number) = number.filter(|_| is_ours) {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}

fn open_file(folder: &Path, number: u32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(folder.join(format!("{number:08}.{EXTENSION}")))
}

/// The good lines of one file.
struct ReadFile {
    entries: Vec<Entry>,
    /// The seal of the last good line.
    seal: String,
    /// Bytes up to the end of the last good line.
    good: u64,
    /// What follows the last good line.
    rest: Rest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    Nothing,
    /// A line without its end: a crash.
    Torn,
    /// A line with another seal.
    Foreign,
}

/// Reads a file whose first line follows a line with the seal `before`.
fn read_file(path: &Path, key: &JournalKey, before: &str) -> io::Result<ReadFile> {
    let mut text = Vec::new();
    File::open(path)?.read_to_end(&mut text)?;
    let mut read = ReadFile {
        entries: Vec::new(),
        seal: before.to_owned(),
        good: 0,
        rest: Rest::Nothing,
    };
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let Some(whole) = line.strip_suffix(b"\n") else {
            read.rest = Rest::Torn;
            break;
        };
        let parsed = std::str::from_utf8(whole)
            .ok()
            .and_then(|line| line.split_once(' '))
            .filter(|(seal, json)| *seal == key.seal(&read.seal, json))
            .and_then(|(seal, json)| Some((seal, serde_json::from_str(json).ok()?)));
        let Some((seal, entry)) = parsed else {
            read.rest = Rest::Foreign;
            break;
        };
        read.entries.push(entry);
        seal.clone_into(&mut read.seal);
        read.good += line.len() as u64;
    }
    Ok(read)
}

/// The seal before the first line of a file: files are sealed one by one, so that old ones can be
/// deleted.
fn first_seal(number: u32) -> String {
    format!("file {number}")
}

impl Journal {
    /// Opens the journal of a folder, or begins one. Goes on in a new file if the last one cannot be
    /// trusted to its end.
    pub fn open(folder: &Path, key: JournalKey, epochs: Epochs) -> io::Result<Self> {
        let (mut number, mut seal, mut length) = (1, first_seal(1), 0);
        if let Some((last, path)) = files(folder)?.pop() {
            let read = read_file(&path, &key, &first_seal(last))?;
            if read.rest == Rest::Foreign {
                tracing::error!(file = %path.display(), "the journal of endings was changed, or belongs to another installation");
                (number, seal) = (last + 1, first_seal(last + 1));
            } else {
                (number, seal, length) = (last, read.seal, read.good);
            }
        }
        let file = open_file(folder, number)?;
        file.set_len(length)?;
        Ok(Self {
            folder: folder.to_owned(),
            key,
            epochs,
            file,
            number,
            length,
            seal,
        })
    }

    /// Begins to write: all endings since `since` that are not there yet will follow.
    pub fn start(&mut self, since: Timestamp) -> io::Result<()> {
        let epochs = self.epochs.clone();
        self.append(vec![
            Entry::Epochs { epochs },
            Entry::Start { since: since.0 },
        ])
    }

    /// Writes endings, then, if it is given, the time before which all are there.
    pub fn write(
        &mut self,
        endings: &[NumberedEnding],
        until: Option<Timestamp>,
    ) -> io::Result<()> {
        let mut entries: Vec<Entry> = endings
            .iter()
            .map(|numbered| Entry::Ending {
                number: numbered.number,
                ending: numbered.ending.clone(),
            })
            .collect();
        entries.extend(until.map(|at| Entry::Until { at: at.0 }));
        self.append(entries)
    }

    /// Appends lines with one write, and syncs. After an error the file ends where it ended before.
    fn append(&mut self, mut entries: Vec<Entry>) -> io::Result<()> {
        if self.length >= MAX_FILE_BYTES {
            let file = open_file(&self.folder, self.number + 1)?;
            self.number += 1;
            (self.file, self.length, self.seal) = (file, 0, first_seal(self.number));
            let epochs = self.epochs.clone();
            entries.insert(0, Entry::Epochs { epochs });
        }
        let (mut seal, mut text) = (self.seal.clone(), String::new());
        for entry in &entries {
            let json = serde_json::to_string(entry)?;
            seal = self.key.seal(&seal, &json);
            text.push_str(&seal);
            text.push(' ');
            text.push_str(&json);
            text.push('\n');
        }
        let written = self
            .file
            .write_all(text.as_bytes())
            .and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            self.file.set_len(self.length)?;
            return Err(error);
        }
        self.length += text.len() as u64;
        self.seal = seal;
        Ok(())
    }

    /// Deletes files that were last written before `before`; never the newest.
    pub fn delete_before(&self, before: Timestamp) -> io::Result<()> {
        let since_1970 = Duration::from_millis(u64::try_from(before.0).unwrap_or(0));
        let before = SystemTime::UNIX_EPOCH + since_1970;
        for (number, path) in files(&self.folder)? {
            if number < self.number && std::fs::metadata(&path)?.modified()? < before {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Reads a journal and checks every seal.
    pub fn read(folder: &Path, key: &JournalKey) -> io::Result<Found> {
        let mut found = Found::default();
        let mut last_number = None;
        for (number, path) in files(folder)? {
            if last_number.is_some_and(|last| last + 1 != number) {
                found.cover_nothing();
                found.problems.push(format!(
                    "a file of the journal is missing before {}",
                    path.display()
                ));
            }
            last_number = Some(number);
            let read = read_file(&path, key, &first_seal(number))?;
            let mut place = None;
            for entry in read.entries {
                let of_epoch = place.and_then(|place| found.of_epochs.get_mut(place));
                match (entry, of_epoch) {
                    (Entry::Epochs { epochs }, _) => place = Some(found.place(epochs)),
                    // A line whose epoch is not known says nothing.
                    (_, None) => {}
                    (Entry::Start { since }, Some(FoundEpoch { covers, .. })) => {
                        let goes_on = covers.is_some_and(|(_, until)| since <= until.0);
                        if !goes_on {
                            *covers = Some((Timestamp(since), Timestamp(since)));
                        }
                    }
                    (Entry::Ending { number, ending }, Some(FoundEpoch { endings, .. })) => {
                        endings.push(NumberedEnding { number, ending });
                    }
                    (Entry::Until { at }, Some(FoundEpoch { covers, .. })) => {
                        if let Some((_, until)) = covers {
                            *until = Timestamp(at.max(until.0));
                        }
                    }
                }
            }
            if read.rest == Rest::Foreign {
                found.cover_nothing();
                found.problems.push(format!(
                    "{} was changed, or belongs to another installation",
                    path.display()
                ));
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Id;

    fn key() -> JournalKey {
        JournalKey::new(&Root::parse(&Root::generate()).unwrap())
    }

    fn ending(number: i64) -> NumberedEnding {
        NumberedEnding {
            number,
            ending: Ending::ApiKeysOfPerson {
                person: Id::random(),
            },
        }
    }

    fn folder() -> PathBuf {
        let path = std::env::temp_dir().join(format!("valetkey-journal-{}", Id::<()>::random()));
        std::fs::create_dir(&path).unwrap();
        path
    }

    fn new_epochs() -> Epochs {
        let mut epochs = Epochs::default();
        epochs.begin();
        epochs
    }

    fn begin(folder: &Path, key: &JournalKey, epochs: &Epochs, since: i64) -> Journal {
        let mut journal = Journal::open(folder, key.clone(), epochs.clone()).unwrap();
        journal.start(Timestamp(since)).unwrap();
        journal
    }

    /// What a journal says of a database with these epochs: the numbers of endings, and from when to
    /// when it has all.
    fn read(
        folder: &Path,
        key: &JournalKey,
        epochs: &Epochs,
    ) -> (Vec<i64>, Option<(Timestamp, Timestamp)>) {
        let found = Journal::read(folder, key).unwrap().of(epochs).unwrap();
        let numbers = found.endings.iter().map(|one| one.number);
        (numbers.collect(), found.covers)
    }

    #[test]
    fn what_was_written_is_read_whole_also_after_a_crash() {
        let (folder, key, epochs) = (folder(), key(), new_epochs());
        let mut journal = begin(&folder, &key, &epochs, 0);
        let (one, two) = (ending(1), ending(2));
        journal
            .write(std::slice::from_ref(&one), Some(Timestamp(1000)))
            .unwrap();
        drop(journal);
        let file = folder.join("00000001.journal");
        let mut torn = OpenOptions::new().append(true).open(&file).unwrap();
        torn.write_all(b"0123 {\"kind\":").unwrap();
        let mut journal = begin(&folder, &key, &epochs, 500);
        journal
            .write(std::slice::from_ref(&two), Some(Timestamp(2000)))
            .unwrap();
        let found = Journal::read(&folder, &key).unwrap();
        assert!(found.problems.is_empty(), "{:?}", found.problems);
        let found = found.of(&epochs).unwrap();
        assert_eq!(found.endings, [one, two]);
        assert_eq!(found.covers, Some((Timestamp(0), Timestamp(2000))));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_gap_or_a_changed_line_ends_what_is_covered() {
        let (folder, key, epochs) = (folder(), key(), new_epochs());
        let mut journal = begin(&folder, &key, &epochs, 0);
        journal.write(&[ending(1)], Some(Timestamp(1000))).unwrap();
        // Away for longer than the database keeps endings.
        journal.start(Timestamp(5000)).unwrap();
        journal.write(&[ending(9)], Some(Timestamp(6000))).unwrap();
        let covers = Some((Timestamp(5000), Timestamp(6000)));
        assert_eq!(read(&folder, &key, &epochs), (vec![1, 9], covers));
        let file = folder.join("00000001.journal");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replacen("\"number\":1", "\"number\":7", 1)).unwrap();
        assert_eq!(read(&folder, &key, &epochs), (vec![], None));
        assert_eq!(Journal::read(&folder, &key).unwrap().problems.len(), 1);
        // Another installation's.
        let found = Journal::read(&folder, &self::key()).unwrap();
        assert!(found.of_epochs.is_empty());
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_full_file_is_followed_by_another_and_old_ones_can_be_deleted() {
        let (folder, key, epochs) = (folder(), key(), new_epochs());
        let mut journal = begin(&folder, &key, &epochs, 0);
        let ids: Vec<_> = (0..1000).map(|_| Id::random()).collect();
        let many = |number| NumberedEnding {
            number,
            ending: Ending::Consents { ids: ids.clone() },
        };
        let full: Vec<_> = (1..=300).map(many).collect();
        journal.write(&full, Some(Timestamp(1000))).unwrap();
        journal
            .write(&[ending(301)], Some(Timestamp(2000)))
            .unwrap();
        let count = || files(&folder).unwrap().len();
        assert_eq!(count(), 2);
        let (numbers, covers) = read(&folder, &key, &epochs);
        assert!(numbers.into_iter().eq(1..=301));
        assert_eq!(covers, Some((Timestamp(0), Timestamp(2000))));
        // Only what was written before goes, and never the file that is being written.
        journal.delete_before(Timestamp(1000)).unwrap();
        assert_eq!(count(), 2);
        journal.delete_before(Timestamp(i64::MAX)).unwrap();
        assert_eq!(count(), 1);
        assert_eq!(read(&folder, &key, &epochs), (vec![301], None));
        // What a node writes from then on is complete again.
        let mut journal = begin(&folder, &key, &epochs, 1500);
        journal
            .write(&[ending(302)], Some(Timestamp(3000)))
            .unwrap();
        let covers = Some((Timestamp(1500), Timestamp(3000)));
        assert_eq!(read(&folder, &key, &epochs), (vec![301, 302], covers));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_same_number_in_another_epoch_is_another_ending() {
        let (folder, key, first) = (folder(), key(), new_epochs());
        let mut second = first.clone();
        second.begin();
        assert!(second.continues(&first) && !first.continues(&second));
        assert!(!first.continues(&Epochs::default()));
        for epochs in [&first, &second] {
            let mut journal = begin(&folder, &key, epochs, 0);
            journal.write(&[ending(1)], Some(Timestamp(1000))).unwrap();
        }
        for epochs in [&first, &second] {
            let covers = Some((Timestamp(0), Timestamp(1000)));
            assert_eq!(read(&folder, &key, epochs), (vec![1], covers));
        }
        std::fs::remove_dir_all(folder).unwrap();
    }
}
