//! The portal's API as `valetkey apply` and `valetkey export` use it, and everything that they read from
//! it.

use futures_util::{StreamExt as _, TryStreamExt as _};
use reqwest::Method;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};
use url::Url;

/// Requests at the same time.
const CONCURRENT: usize = 8;
/// Time for one request.
const TIMEOUT: Duration = Duration::from_secs(330);
/// Entries of a page, as many as the API gives.
const PAGE_SIZE: usize = 500;

/// The API of one portal.
pub struct Api {
    client: reqwest::Client,
    base: String,
    key: SecretString,
}

impl Api {
    /// `server` is the portal's public URL. The error is a sentence for the user.
    pub fn new(server: &Url, key: SecretString) -> Result<Self, String> {
        // Certificates are checked as the system does: a portal may have one of a company's own authority.
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIMEOUT)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self {
            client,
            base: format!("{}/__api__/v1/", server.as_str().trim_end_matches('/')),
            key,
        })
    }

    /// Sends a request; null for an answer without a body. The error is a sentence with what the portal
    /// said.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, String> {
        let mut request = self
            .client
            .request(method.clone(), format!("{}{path}", self.base))
            .header("authorization", format!("Key {}", self.key.expose_secret()));
        if let Some(body) = body {
            request = request.json(body);
        }
        let failed = |error: reqwest::Error| {
            let error = error.without_url();
            format!("{}: {error}", self.base)
        };
        let answer = request.send().await.map_err(failed)?;
        let status = answer.status();
        let bytes = answer.bytes().await.map_err(failed)?;
        let value: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if status.is_success() {
            return Ok(value);
        }
        let said = value["error"].as_str().unwrap_or("no reason given");
        Err(match status.as_u16() {
            401 => "the portal does not know this API key".to_owned(),
            code => format!("{method} {path}: {said} ({code})"),
        })
    }

    /// Reads.
    pub async fn get(&self, path: &str) -> Result<Value, String> {
        self.call(Method::GET, path, None).await
    }

    /// Reads all pages of a list.
    async fn all(&self, path: &str) -> Result<Vec<Value>, String> {
        let mut all = Vec::new();
        for number in 1.. {
            let page = self
                .get(&format!(
                    "{path}?page_size={PAGE_SIZE}&page_number={number}"
                ))
                .await?;
            let results = array(&page["results"]);
            let total = page["total"].as_u64().unwrap_or(0);
            let is_last = results.is_empty();
            all.extend(results);
            if is_last || u64::try_from(all.len()).unwrap_or(u64::MAX) >= total {
                break;
            }
        }
        Ok(all)
    }
}

fn array(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

/// The text of a field; empty if it is null.
pub fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

/// What the portal has, by names.
pub struct Found {
    /// GUIDs by user name.
    pub people: BTreeMap<String, String>,
    pub groups: BTreeMap<String, FoundGroup>,
    pub integrations: Vec<Value>,
    pub content: Vec<FoundContent>,
}

/// A group with the user names of its members.
pub struct FoundGroup {
    pub guid: String,
    pub members: Vec<String>,
}

/// A content item.
pub struct FoundContent {
    pub item: Value,
    pub owner: String,
    /// Its list: names as in the file, role, and the number of the entry.
    pub list: Vec<(String, String, String)>,
    /// GUIDs of its integrations.
    pub integrations: Vec<String>,
}

impl Found {
    /// Reads all that there is. Lists of items are read for those that `wanted` says.
    pub async fn read(api: &Api, wanted: impl Fn(&str) -> bool) -> Result<Self, String> {
        let people: BTreeMap<String, String> = api
            .all("users")
            .await?
            .iter()
            .map(|person| (text(person, "username"), text(person, "guid")))
            .collect();
        let names: BTreeMap<&str, &str> = people
            .iter()
            .map(|(name, guid)| (guid.as_str(), name.as_str()))
            .collect();
        let groups = futures_util::stream::iter(api.all("groups").await?)
            .map(|group| async move {
                let guid = text(&group, "guid");
                let members = api.all(&format!("groups/{guid}/members")).await?;
                let members = members.iter().map(|one| text(one, "username")).collect();
                let found = FoundGroup { guid, members };
                Ok::<_, String>((text(&group, "name"), found))
            })
            .buffer_unordered(CONCURRENT)
            .try_collect::<BTreeMap<_, _>>()
            .await?;
        let group_names: BTreeMap<&str, &str> = groups
            .iter()
            .map(|(name, group)| (group.guid.as_str(), name.as_str()))
            .collect();
        let integrations = array(&api.get("oauth/integrations").await?);
        let items = array(&api.get("content").await?);
        let (names, group_names) = (&names, &group_names);
        let content = futures_util::stream::iter(items)
            .map(|item| {
                let is_wanted = wanted(&text(&item, "name"));
                async move {
                    let guid = text(&item, "guid");
                    let owner = names
                        .get(text(&item, "owner_guid").as_str())
                        .map(|name| (*name).to_owned())
                        .unwrap_or_default();
                    let (mut list, mut used) = (Vec::new(), Vec::new());
                    if is_wanted {
                        for entry in array(&api.get(&format!("content/{guid}/permissions")).await?)
                        {
                            let whom = text(&entry, "principal_guid");
                            let name = match entry["principal_type"].as_str() {
                                Some("group") => group_names
                                    .get(whom.as_str())
                                    .map(|name| format!("group:{name}")),
                                _ => names.get(whom.as_str()).map(|name| (*name).to_owned()),
                            };
                            let name = name.unwrap_or(whom);
                            list.push((name, text(&entry, "role"), text(&entry, "id")));
                        }
                        let path = format!("content/{guid}/oauth/integrations/associations");
                        used = array(&api.get(&path).await?)
                            .iter()
                            .map(|entry| text(entry, "oauth_integration_guid"))
                            .collect();
                    }
                    Ok::<_, String>(FoundContent {
                        item,
                        owner,
                        list,
                        integrations: used,
                    })
                }
            })
            .buffered(CONCURRENT)
            .try_collect()
            .await?;
        Ok(Self {
            people,
            groups,
            integrations,
            content,
        })
    }

    /// The principal behind a name of the file, as the API names it: type and GUID.
    pub fn principal(&self, name: &str) -> Result<(&'static str, String), String> {
        match name.strip_prefix("group:") {
            Some(group) => match self.groups.get(group) {
                Some(found) => Ok(("group", found.guid.clone())),
                None => Err(format!("there is no group {group}")),
            },
            None => match self.people.get(name) {
                Some(guid) => Ok(("user", guid.clone())),
                None => Err(format!("nobody has the user name {name}")),
            },
        }
    }

    /// The name of the file for an entry of an integration's list.
    pub fn name_of(&self, entry: &Value) -> String {
        let by_guid = |guid: &str| {
            let found = self.people.iter().find(|(_, known)| *known == guid);
            found.map(|(name, _)| name.clone())
        };
        match (entry["user_guid"].as_str(), entry["group_guid"].as_str()) {
            (Some(person), _) => by_guid(person).unwrap_or_else(|| person.to_owned()),
            (_, Some(guid)) => {
                let found = self.groups.iter().find(|(_, group)| group.guid == guid);
                found.map_or_else(|| guid.to_owned(), |(name, _)| format!("group:{name}"))
            }
            _ => String::new(),
        }
    }
}

/// An entry of an integration's list, for the API.
pub fn list_entry((kind, guid): (&str, String)) -> Value {
    match kind {
        "group" => json!({"group_guid": guid}),
        _ => json!({"user_guid": guid}),
    }
}
