//! Content items: the apps that viewers open through the portal, their upstream processes, and how
//! the proxy treats them.
//!
//! There is no setting for falling back to a service account: the portal has none, so every token
//! belongs to a viewer.

use super::{Id, Timestamp, group::Principal, person::Person, running::Running};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::time::Duration;

/// Who may open a content item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::EnumString, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum AccessType {
    /// Anyone, without signing in. Such an item cannot use integrations.
    All,
    /// Everyone who is signed in.
    LoggedIn,
    /// Only the people and groups on its list.
    Acl,
}

impl AccessType {
    /// The word in the API and in the database.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
    /// The inverse of [`AccessType::as_str`]; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

/// One upstream process of an item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The upstream address: `http:`, `https:` or `unix:`.
    pub url: String,
    /// Draining: viewers who are assigned to the process stay; it gets no new ones.
    #[serde(default)]
    pub draining: bool,
}

/// Identifies one process of an item, in the stickiness cookie and in the session token: so the
/// leak alarm knows which process used a token.
///
/// Truncated SHA-256 of the process's URL (64 bits, 16 hex digits): it hides the URL, but a guessed
/// URL can be confirmed. The default, [`ProcessId::ONLY`], stands for the single process of an item
/// and is written as the empty string.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ProcessId(u64);

impl ProcessId {
    /// The process of an item that has only one.
    pub const ONLY: Self = Self(0);

    /// The identifier of a process; never [`ProcessId::ONLY`].
    pub fn of(process: &Process) -> Self {
        let hash = Sha256::digest(&process.url);
        Self(
            hash.first_chunk()
                .map_or(1, |first| u64::from_be_bytes(*first))
                .max(1),
        )
    }
    /// The identifier of one of an app's processes: [`ProcessId::ONLY`] unless it has several.
    pub fn among(processes: &[Process], process: &Process) -> Self {
        if processes.len() < 2 {
            Self::ONLY
        } else {
            Self::of(process)
        }
    }
    /// Whether this is [`ProcessId::ONLY`].
    pub fn is_only(&self) -> bool {
        *self == Self::ONLY
    }
}

impl std::fmt::Display for ProcessId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_only() {
            Ok(())
        } else {
            write!(f, "{:016x}", self.0)
        }
    }
}

impl From<ProcessId> for String {
    fn from(mark: ProcessId) -> Self {
        mark.to_string()
    }
}

impl TryFrom<String> for ProcessId {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl std::str::FromStr for ProcessId {
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

/// How the proxy treats an item. Limits are in seconds; `None` means the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Proxying {
    /// Timeout for connecting to the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_seconds: Option<u32>,
    /// Timeout from the request to the first byte of the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_byte_seconds: Option<u32>,
    /// Idle timeout of a response or a WebSocket, both directions. By default WebSockets have none:
    /// a tab may stay open for days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_seconds: Option<u32>,
    /// The app gets the full path, `/content/{guid}/…`, instead of the path below that prefix.
    pub keep_prefix: bool,
    /// The proxy inserts a small bar into the app's pages that offers to reconnect.
    pub reconnect_bar: bool,
    /// The proxy inserts a small link into the app's pages, back to the portal and to the viewer's
    /// consents.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub portal_link: bool,
    /// CA certificates (PEM) that the app's certificate must chain to, instead of the public ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Other origins whose pages may send requests to the app and show it in a frame, as browsers
    /// write them: `https://intranet.example.org`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_origins: Vec<String>,
    /// Request headers, in lower case, that the app gets although they may carry an identity.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pass_headers: Vec<String>,
}

impl Proxying {
    /// Upper bound of every limit, in seconds (one day).
    pub const MAX_SECONDS: u32 = 86_400;
    /// Default connect timeout, in seconds.
    pub const DEFAULT_CONNECT_SECONDS: u32 = 5;
    /// Default first-byte timeout, in seconds.
    pub const DEFAULT_FIRST_BYTE_SECONDS: u32 = 300;
    /// Default idle timeout of a response, in seconds.
    pub const DEFAULT_IDLE_SECONDS: u32 = 3600;

    /// The connect timeout.
    pub fn connect(&self) -> Duration {
        Duration::from_secs(
            self.connect_seconds
                .unwrap_or(Self::DEFAULT_CONNECT_SECONDS)
                .into(),
        )
    }
    /// The first-byte timeout.
    pub fn first_byte(&self) -> Duration {
        Duration::from_secs(
            self.first_byte_seconds
                .unwrap_or(Self::DEFAULT_FIRST_BYTE_SECONDS)
                .into(),
        )
    }
    /// The idle timeout of responses.
    pub fn idle(&self) -> Duration {
        Duration::from_secs(
            self.idle_seconds
                .unwrap_or(Self::DEFAULT_IDLE_SECONDS)
                .into(),
        )
    }
    /// The idle timeout of WebSockets; `None` unless it was set, since a tab may stay open for
    /// days.
    pub fn socket_idle(&self) -> Option<Duration> {
        self.idle_seconds
            .map(|seconds| Duration::from_secs(seconds.into()))
    }
}

/// A content item.
#[derive(Clone, Debug)]
pub struct Content {
    /// The database's row number; the `id` of the API.
    pub number: i64,
    pub id: Id<Content>,
    /// The short name; unique per owner.
    pub name: String,
    pub title: Option<String>,
    pub description: String,
    pub owner: Id<Person>,
    pub access: AccessType,
    /// The kind of app, in the API's words: `unknown` until a bundle is deployed.
    pub app_mode: String,
    /// Its upstream processes, usually one; empty until a publisher sets an address.
    pub processes: Vec<Process>,
    pub proxying: Proxying,
    /// The bundle that viewers get; `None` if the app runs elsewhere.
    pub bundle: Option<i64>,
    /// The version of Python that the app runs with here, such as `3.11.7`; `None` if it needs none.
    pub python: Option<String>,
    /// Limits of the processes of deployed content.
    pub running: Running,
    /// The DNS label of the item's own host; never changes.
    pub slug: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Content {
    /// The title, or the name if the title is empty.
    pub fn display_title(&self) -> &str {
        match &self.title {
            Some(title) if !title.trim().is_empty() => title,
            _ => &self.name,
        }
    }
    /// Whether the app runs code for its viewers, so that an integration makes sense; `None` if the
    /// kind of app is unknown.
    pub fn is_interactive(&self) -> Option<bool> {
        match self.app_mode.as_str() {
            "unknown" => None,
            "static" | "rmd-static" | "quarto-static" | "jupyter-static" => Some(false),
            _ => Some(true),
        }
    }
    /// Whether there is something to open: an app that runs here, or the address of one.
    pub fn has_app(&self) -> bool {
        self.bundle.is_some() || !self.processes.is_empty()
    }
    /// The URL of the first process.
    pub fn upstream(&self) -> Option<&str> {
        self.processes.first().map(|process| process.url.as_str())
    }
}

/// What a person or group on an item's list may do with it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, strum::EnumString, strum::IntoStaticStr,
)]
#[strum(serialize_all = "snake_case")]
pub enum ContentRole {
    Viewer,
    /// `owner` in the API: may edit the item.
    #[strum(serialize = "owner")]
    Collaborator,
}

impl ContentRole {
    /// The word in the API and in the database.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
    /// The inverse of [`ContentRole::as_str`]; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

/// One entry of an item's list.
#[derive(Clone, Debug)]
pub struct Permission {
    /// The database's row number; the `id` of the API.
    pub number: i64,
    pub content: Id<Content>,
    pub principal: Principal,
    pub role: ContentRole,
}
