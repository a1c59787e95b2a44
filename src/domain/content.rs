//! Content items: apps that viewers open through the portal.

use super::{Id, Timestamp, group::Principal, person::Person};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::time::Duration;

/// Who may open a content item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessType {
    /// Anyone, even without signing in. Cannot use integrations.
    All,
    /// Everyone who is signed in.
    LoggedIn,
    /// Only the people and groups listed.
    Acl,
}

impl AccessType {
    pub const fn as_str(self) -> &'static str {
        match self {
            AccessType::All => "all",
            AccessType::LoggedIn => "logged_in",
            AccessType::Acl => "acl",
        }
    }
    pub fn parse(text: &str) -> Option<Self> {
        [Self::All, Self::LoggedIn, Self::Acl]
            .into_iter()
            .find(|access| access.as_str() == text)
    }
}

/// One process of an app: where it answers, and whether it takes new viewers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub url: String,
    /// On its way out: who is there stays there, nobody else comes.
    #[serde(default)]
    pub draining: bool,
}

/// Which process of an item, in cookies and session tokens: a short hash of its address, which
/// tells it to nobody who does not guess it. The default stands for the only one that an item has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Mark(u64);

impl Mark {
    pub const ONLY: Self = Self(0);

    pub fn of(process: &Process) -> Self {
        let hash = Sha256::digest(&process.url);
        Self(
            hash.first_chunk()
                .map_or(1, |first| u64::from_be_bytes(*first))
                .max(1),
        )
    }
    pub fn is_only(&self) -> bool {
        *self == Self::ONLY
    }
}

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_only() {
            Ok(())
        } else {
            write!(f, "{:016x}", self.0)
        }
    }
}

impl From<Mark> for String {
    fn from(mark: Mark) -> Self {
        mark.to_string()
    }
}

impl TryFrom<String> for Mark {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl std::str::FromStr for Mark {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.len() {
            0 => Ok(Self::ONLY),
            16 => u64::from_str_radix(text, 16)
                .map(Self)
                .map_err(|_| "not the mark of a process"),
            _ => Err("not the mark of a process"),
        }
    }
}

/// How the portal carries an item. Limits are in seconds; `None` is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Proxying {
    /// Until a process accepts the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_seconds: Option<u32>,
    /// Until the first byte of an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_byte_seconds: Option<u32>,
    /// How long an answer or a WebSocket may rest, both ways. By default sockets may rest for days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_seconds: Option<u32>,
    /// The app gets the whole path, `/content/{guid}/…`, instead of what stands behind it.
    pub keep_prefix: bool,
    /// Pages of the app get our small bar, which offers to connect again.
    pub reconnect_bar: bool,
    /// The certificates (PEM) that an app's own must lead to, instead of the public ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
}

impl Proxying {
    pub const MOST_SECONDS: u32 = 86_400;
    pub const CONNECT: u32 = 5;
    pub const FIRST_BYTE: u32 = 300;
    pub const IDLE: u32 = 3600;

    pub fn connect(&self) -> Duration {
        Duration::from_secs(self.connect_seconds.unwrap_or(Self::CONNECT).into())
    }
    pub fn first_byte(&self) -> Duration {
        Duration::from_secs(self.first_byte_seconds.unwrap_or(Self::FIRST_BYTE).into())
    }
    pub fn idle(&self) -> Duration {
        Duration::from_secs(self.idle_seconds.unwrap_or(Self::IDLE).into())
    }
    /// For WebSockets: only if somebody said so. A tab may stay open for days.
    pub fn socket_idle(&self) -> Option<Duration> {
        self.idle_seconds
            .map(|seconds| Duration::from_secs(seconds.into()))
    }
}

/// An app that viewers open through the portal.
#[derive(Clone, Debug)]
pub struct Content {
    pub number: i64,
    pub id: Id<Content>,
    /// The short name; unique for one owner.
    pub name: String,
    pub title: Option<String>,
    pub description: String,
    pub owner: Id<Person>,
    pub access: AccessType,
    pub app_mode: String,
    /// Where the app runs; empty until a publisher says so. Several for an app of several
    /// processes.
    pub processes: Vec<Process>,
    pub proxying: Proxying,
    /// Its label in addresses of its own; kept for life.
    pub slug: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Content {
    /// The mark of one of its processes.
    pub fn mark(&self, process: &Process) -> Mark {
        if self.processes.len() < 2 {
            Mark::ONLY
        } else {
            Mark::of(process)
        }
    }
    pub fn display_title(&self) -> &str {
        match &self.title {
            Some(title) if !title.trim().is_empty() => title,
            _ => &self.name,
        }
    }
    /// Whether an integration for viewers makes sense here: `None` while unknown.
    pub fn is_interactive(&self) -> Option<bool> {
        match self.app_mode.as_str() {
            "unknown" => None,
            "static" | "rmd-static" | "quarto-static" | "jupyter-static" => Some(false),
            _ => Some(true),
        }
    }
    /// The address of the first process.
    pub fn upstream(&self) -> Option<&str> {
        self.processes.first().map(|process| process.url.as_str())
    }
}

/// What a listed principal may do with a content item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ContentRole {
    Viewer,
    /// `owner` in the API: may edit.
    Collaborator,
}

impl ContentRole {
    pub const fn as_str(self) -> &'static str {
        match self {
            ContentRole::Viewer => "viewer",
            ContentRole::Collaborator => "owner",
        }
    }
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Viewer, Self::Collaborator]
            .into_iter()
            .find(|role| role.as_str() == text)
    }
}

/// One entry of a content item's list.
#[derive(Clone, Debug)]
pub struct Permission {
    pub number: i64,
    pub content: Id<Content>,
    pub principal: Principal,
    pub role: ContentRole,
}
