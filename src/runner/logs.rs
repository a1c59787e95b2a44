//! Output of processes and deploys: files of limited size, with secrets replaced.

use parking_lot::Mutex;
use secrecy::{ExposeSecret as _, SecretString};
use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Longest line, in bytes; the rest of it is cut off.
const MAX_LINE: usize = 8 * 1024;
/// Lines that are kept in memory, for the page of a process that does not start.
const KEPT_LINES: usize = 60;
/// Secrets shorter than this are not replaced: too much else would be.
const MIN_SECRET: usize = 8;

/// How every JSON Web Token begins: `{"` in base64.
const JWT_START: &str = "eyJ";

/// The text without JSON Web Tokens: those of viewers, and the newer ones of a process, which nobody
/// could list when the log was opened.
fn without_jwts(text: &str) -> String {
    let is_inside = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(JWT_START) {
        let (before, found) = rest.split_at(start);
        let end = found
            .find(|letter| !is_inside(letter))
            .unwrap_or(found.len());
        let (token, after) = found.split_at(end);
        kept.push_str(before);
        kept.push_str(if token.matches('.').count() >= 2 {
            "…"
        } else {
            token
        });
        rest = after;
    }
    kept.push_str(rest);
    kept
}

/// A log file with an older half: together at most twice its limit.
pub struct Log {
    path: PathBuf,
    file: File,
    written: u64,
    limit: u64,
    secrets: Vec<SecretString>,
    last: VecDeque<String>,
}

impl Log {
    /// Appends to the file at `path`, whose folder is made. `limit`: bytes after which it becomes
    /// the older half. `secrets` of at least `MIN_SECRET` bytes never reach it: shorter ones would hide
    /// ordinary words.
    pub fn open(path: &Path, limit: u64, secrets: Vec<SecretString>) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let mut log = Self {
            written: file.metadata()?.len(),
            path: path.to_owned(),
            file,
            limit,
            secrets: Vec::new(),
            last: VecDeque::new(),
        };
        log.hide(secrets);
        Ok(log)
    }

    /// Keeps more secrets out of what is written from now on.
    pub fn hide(&mut self, secrets: Vec<SecretString>) {
        for secret in secrets {
            // A key in PEM form, say, is written line by line.
            let lines = secret.expose_secret().lines().map(str::trim);
            let lines = lines.filter(|line| line.len() >= MIN_SECRET);
            self.secrets.extend(lines.map(SecretString::from));
            if secret.expose_secret().len() >= MIN_SECRET {
                self.secrets.push(secret);
            }
        }
        // A whole value before a part of it.
        self.secrets
            .sort_by_key(|secret| std::cmp::Reverse(secret.expose_secret().len()));
    }

    /// Appends one line. A full disk loses it: the app must not stop for its log.
    pub fn line(&mut self, bytes: &[u8]) {
        let bytes = bytes.get(..MAX_LINE).unwrap_or(bytes);
        // Control characters would let an app write into the terminal of whoever reads the file.
        let mut text: String = String::from_utf8_lossy(bytes)
            .chars()
            .filter(|letter| !letter.is_control() || *letter == '\t')
            .collect();
        for secret in &self.secrets {
            if text.contains(secret.expose_secret()) {
                text = text.replace(secret.expose_secret(), "…");
            }
        }
        if text.contains(JWT_START) {
            text = without_jwts(&text);
        }
        if self.written > self.limit {
            self.rotate();
        }
        let written = self
            .file
            .write_all(text.as_bytes())
            .and_then(|()| self.file.write_all(b"\n"));
        if written.is_ok() {
            self.written += text.len() as u64 + 1;
        }
        if self.last.len() == KEPT_LINES {
            self.last.pop_front();
        }
        self.last.push_back(text);
    }

    fn rotate(&mut self) {
        let older = older_half(&self.path);
        drop(fs::rename(&self.path, older));
        if let Ok(file) = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path)
        {
            self.file = file;
        }
        self.written = 0;
    }

    /// Forgets the last lines.
    pub fn forget_tail(&mut self) {
        self.last.clear();
    }
    /// The last lines.
    pub fn tail(&self) -> String {
        self.last
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// The file with the older half of a log.
fn older_half(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    PathBuf::from(name)
}

/// Copies what a process writes into a log, line by line, until it ends.
pub async fn copy_lines(stream: Option<impl AsyncRead + Unpin>, log: &Mutex<Log>) {
    let Some(mut stream) = stream else { return };
    let (mut lines, mut buffer) = (Lines::default(), vec![0; 16 * 1024]);
    while let Ok(read) = stream.read(&mut buffer).await {
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else {
            break;
        };
        lines.feed(part, |line| log.lock().line(line));
        // Output without end must not keep the others from running.
        tokio::task::yield_now().await;
    }
    lines.finish(|line| log.lock().line(line));
}

/// Splits a stream of bytes into lines, without keeping more than [`MAX_LINE`] of one.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    /// Hands each complete line of what was read to `take`.
    fn feed(&mut self, bytes: &[u8], mut take: impl FnMut(&[u8])) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = MAX_LINE.saturating_sub(self.0.len());
            self.0
                .extend_from_slice(part.get(..room.min(part.len())).unwrap_or(part));
            if part.ends_with(b"\n") {
                take(self.0.trim_ascii_end());
                self.0.clear();
            }
        }
    }
    /// Hands over what is left.
    fn finish(&mut self, take: impl FnOnce(&[u8])) {
        if !self.0.is_empty() {
            take(&self.0);
            self.0.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split_and_cut() {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        let mut take = |line: &[u8]| out.push(line.len());
        lines.feed(b"ab\nc", &mut take);
        lines.feed(b"d\r\n", &mut take);
        lines.feed(&[b'x'; 3 * MAX_LINE], &mut take);
        lines.feed(b"\ny", &mut take);
        lines.finish(&mut take);
        assert_eq!(out, [2, 2, MAX_LINE, 1]);
    }

    #[test]
    fn a_log_is_bounded_and_tells_no_secret() {
        let folder = std::env::temp_dir().join(format!("valetkey-log-{}", std::process::id()));
        let path = folder.join("a.log");
        let mut log = Log::open(&path, 1000, vec!["hidden-value".to_owned().into()]).unwrap();
        for _ in 0..500 {
            log.line(b"key=hidden-value \x1b[31mred");
        }
        let size = |path: &Path| fs::metadata(path).unwrap().len();
        assert!(size(&path) < 1100 && size(&older_half(&path)) < 1100);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("key=… [31mred\n"), "{text}");
        assert!(!log.tail().contains("hidden"));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn json_web_tokens_are_replaced_wherever_they_stand() {
        assert_eq!(
            without_jwts("got eyJhbGciOi.eyJzdWIi.c2ln-_ from eyJx, eyJa.b.c"),
            "got … from eyJx, …"
        );
    }
}
