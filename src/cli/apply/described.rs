//! The file of `valetkey apply` and `valetkey export` (TOML): groups, integrations and content by
//! their names. What is left out stays as it is. A list in the file replaces the portal's list.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// Everything that a file describes.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Described {
    #[serde(default, rename = "group", skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
    #[serde(default, rename = "integration", skip_serializing_if = "Vec::is_empty")]
    pub integrations: Vec<Integration>,
    #[serde(default, rename = "content", skip_serializing_if = "Vec::is_empty")]
    pub content: Vec<Content>,
}

/// A group; members by their user names.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<String>>,
}

/// An integration. `config` holds the fields of its template, as in the API.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Integration {
    pub name: String,
    pub template: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// `everyone`, `listed` or `nobody`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub availability: Option<String>,
    /// Who may choose it: user names, and `group:` with a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub may_choose: Option<Vec<String>>,
    /// `off`, `warn` or `require`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity_check: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<SecretSource>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, toml::Value>,
}

/// Where a secret is read from: never from the file itself. Blanks at its ends do not count.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum SecretSource {
    /// A variable of the environment.
    Env(String),
    /// A file.
    File(PathBuf),
    /// What a command prints.
    Command(Vec<String>),
}

/// A content item.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    pub name: String,
    /// A user name; left out: whoever owns the item of that name, and for a new one the key's person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// `all`, `logged_in` or `acl`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_type: Option<String>,
    /// Addresses of the app's processes, where it runs elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<Vec<String>>,
    /// Who may open it: user names, and `group:` with a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub viewers: Option<Vec<String>>,
    /// Who may also edit it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub editors: Option<Vec<String>>,
    /// Names of its integrations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub integrations: Option<Vec<String>>,
}

impl Described {
    /// Reads a file. The error is a sentence that names the place.
    pub fn parse(text: &str) -> Result<Self, String> {
        let read: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        let mut names: Vec<String> = Vec::new();
        names.extend(read.groups.iter().map(|one| format!("group {}", one.name)));
        names.extend(
            read.integrations
                .iter()
                .map(|one| format!("integration {}", one.name)),
        );
        names.extend(read.content.iter().map(|one| match &one.owner {
            Some(owner) => format!("content {} of {owner}", one.name),
            None => format!("content {}", one.name),
        }));
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("{} is described twice", twice[0]));
        }
        Ok(read)
    }
}
