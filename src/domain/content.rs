//! Content items: apps that viewers open through the portal.

use super::{Id, Timestamp, group::Principal, person::Person};

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
        [Self::All, Self::LoggedIn, Self::Acl].into_iter().find(|access| access.as_str() == text)
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
    /// Where the app runs; `None` until a publisher says so.
    pub upstream: Option<String>,
    /// Its label in addresses of its own; kept for life.
    pub slug: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Content {
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
        [Self::Viewer, Self::Collaborator].into_iter().find(|role| role.as_str() == text)
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
