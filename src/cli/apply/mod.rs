//! `valetkey apply FILE` brings groups, integrations, lists and content of a portal to the state that a
//! file describes, through the API; `valetkey export` writes such a file.
//!
//! Everything is found by its name. What the file leaves out stays as it is; what it does not mention is
//! deleted only with `--delete`. Nothing is changed where nothing differs, so that a second run changes
//! nothing.

mod api;
mod described;

use self::{
    api::{Api, Found, FoundContent, FoundGroup, list_entry, text},
    described::{Content, Described, Group, Integration, SecretSource},
};
use reqwest::Method;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value, json};
use std::{collections::BTreeSet, path::PathBuf};
use url::Url;

// What both commands need to reach the portal. The names of the variables are those of Posit's clients.
#[derive(clap::Args)]
struct Portal {
    /// Address of the portal.
    #[arg(long, env = "CONNECT_SERVER", value_name = "URL")]
    server: Url,
    /// An administrator's API key. Better in the environment than here, where others of this machine
    /// can see it.
    #[arg(
        long,
        env = "CONNECT_API_KEY",
        hide_env_values = true,
        value_name = "KEY"
    )]
    api_key: String,
}

impl Portal {
    fn api(self) -> Result<Api, String> {
        Api::new(&self.server, self.api_key.into())
    }
}

// Arguments of `valetkey apply`.
#[derive(clap::Args)]
pub struct Apply {
    /// The file (TOML): `valetkey export` writes one to begin with.
    file: PathBuf,
    /// Only says what would change.
    #[arg(long)]
    dry_run: bool,
    /// Deletes groups, integrations and content that the file does not mention.
    #[arg(long)]
    delete: bool,
    #[command(flatten)]
    portal: Portal,
}

// Arguments of `valetkey export`.
#[derive(clap::Args)]
pub struct Export {
    #[command(flatten)]
    portal: Portal,
}

/// What one group, integration or item needs, printed and counted.
struct Report {
    is_dry: bool,
    added: usize,
    changed: usize,
    deleted: usize,
    same: usize,
}

/// The fields of one thing that differ, as lines.
#[derive(Default)]
struct Differences(Vec<String>);

impl Differences {
    fn field(&mut self, name: &str, before: &Value, after: &Value) {
        if before != after {
            self.0
                .push(format!("{name}: {} → {}", shown(before), shown(after)));
        }
    }

    /// A list whose order does not count; returns what is to be added and removed.
    fn list(
        &mut self,
        name: &str,
        before: &BTreeSet<String>,
        after: &BTreeSet<String>,
    ) -> (Vec<String>, Vec<String>) {
        let added: Vec<String> = after.difference(before).cloned().collect();
        let removed: Vec<String> = before.difference(after).cloned().collect();
        if !added.is_empty() || !removed.is_empty() {
            let signs = |sign: &str, names: &[String]| {
                let all = names.iter().map(|name| format!("{sign}{name}"));
                all.collect::<Vec<_>>()
            };
            let all = [signs("+", &added), signs("-", &removed)].concat();
            self.0.push(format!("{name}: {}", all.join(" ")));
        }
        (added, removed)
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        other => other.to_string(),
    }
}

impl Report {
    /// Prints what one thing needs; `true` if it is to be done.
    fn says(&mut self, is_new: bool, what: &str, differences: &Differences) -> bool {
        if !is_new && differences.0.is_empty() {
            self.same += 1;
            return false;
        }
        println!("{} {what}", if is_new { '+' } else { '~' });
        for line in &differences.0 {
            println!("    {line}");
        }
        if is_new {
            self.added += 1;
        } else {
            self.changed += 1;
        }
        !self.is_dry
    }

    fn deletes(&mut self, what: &str) -> bool {
        println!("- {what}");
        self.deleted += 1;
        !self.is_dry
    }
}

/// Runs `valetkey apply`. The error is a sentence for the user.
pub async fn run(arguments: Apply) -> Result<(), String> {
    let shown = arguments.file.display().to_string();
    let file =
        std::fs::read_to_string(&arguments.file).map_err(|error| format!("{shown}: {error}"))?;
    let described = Described::parse(&file).map_err(|error| format!("{shown}: {error}"))?;
    let api = arguments.portal.api()?;
    let names: BTreeSet<&str> = described
        .content
        .iter()
        .map(|item| item.name.as_str())
        .collect();
    let mut found = Found::read(&api, |name| names.contains(name)).await?;
    let mut report = Report {
        is_dry: arguments.dry_run,
        added: 0,
        changed: 0,
        deleted: 0,
        same: 0,
    };
    for group in &described.groups {
        apply_group(&api, &mut found, &mut report, group)
            .await
            .map_err(|error| format!("group {}: {error}", group.name))?;
    }
    for integration in &described.integrations {
        apply_integration(&api, &mut found, &mut report, integration)
            .await
            .map_err(|error| format!("integration {}: {error}", integration.name))?;
    }
    for item in &described.content {
        apply_content(&api, &found, &mut report, item)
            .await
            .map_err(|error| format!("content {}: {error}", item.name))?;
    }
    if arguments.delete {
        delete_others(&api, &found, &mut report, &described).await?;
    }
    println!(
        "{}{} added, {} changed, {} deleted, {} as described.",
        if report.is_dry { "Would be: " } else { "" },
        report.added,
        report.changed,
        report.deleted,
        report.same
    );
    Ok(())
}

/// Stands for what a dry run does not make.
const NOT_MADE: &str = "(new)";

async fn apply_group(
    api: &Api,
    found: &mut Found,
    report: &mut Report,
    group: &Group,
) -> Result<(), String> {
    let known = found.groups.get(&group.name);
    let before: BTreeSet<String> = known.map_or_else(BTreeSet::new, |known| {
        known.members.iter().cloned().collect()
    });
    let mut differences = Differences::default();
    let (mut added, mut removed) = (Vec::new(), Vec::new());
    if let Some(members) = &group.members {
        for name in members {
            found.principal(name)?;
        }
        let after = members.iter().cloned().collect();
        (added, removed) = differences.list("members", &before, &after);
    }
    let mut guid = known.map(|known| known.guid.clone());
    if report.says(
        guid.is_none(),
        &format!("group {}", group.name),
        &differences,
    ) {
        let id = match &guid {
            Some(guid) => guid.clone(),
            None => {
                let body = json!({"name": group.name});
                text(
                    &api.call(Method::POST, "groups", Some(&body)).await?,
                    "guid",
                )
            }
        };
        for name in added {
            let (_, person) = found.principal(&name)?;
            let body = json!({"user_guid": person});
            let path = format!("groups/{id}/members");
            api.call(Method::POST, &path, Some(&body)).await?;
        }
        for name in removed {
            let (_, person) = found.principal(&name)?;
            let path = format!("groups/{id}/members/{person}");
            api.call(Method::DELETE, &path, None).await?;
        }
        guid = Some(id);
    }
    let members = group.members.clone().unwrap_or_default();
    found
        .groups
        .entry(group.name.clone())
        .or_insert(FoundGroup {
            guid: guid.unwrap_or_else(|| NOT_MADE.to_owned()),
            members,
        });
    Ok(())
}

async fn apply_integration(
    api: &Api,
    found: &mut Found,
    report: &mut Report,
    wanted: &Integration,
) -> Result<(), String> {
    let known = one_of_name(&found.integrations, &wanted.name)?;
    let nothing = Value::Null;
    let before = known.as_ref().unwrap_or(&nothing);
    if known.is_some() && before["template"] != json!(wanted.template) {
        return Err(format!(
            "its template is {}, and cannot be changed to {}: delete it, or choose another name",
            shown(&before["template"]),
            wanted.template
        ));
    }
    let mut differences = Differences::default();
    let mut body = Map::new();
    let fields = [
        ("description", wanted.description.clone().map(Value::from)),
        ("availability", wanted.availability.clone().map(Value::from)),
        (
            "identity_check",
            wanted.identity_check.clone().map(Value::from),
        ),
        ("paused", wanted.paused.map(Value::from)),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            differences.field(name, &before[name], &value);
            body.insert(name.to_owned(), value);
        }
    }
    let stored = before["config"].as_object().cloned().unwrap_or_default();
    let mut config = stored.clone();
    for (name, value) in &wanted.config {
        let value = json!(value);
        differences.field(name, stored.get(name).unwrap_or(&Value::Null), &value);
        config.insert(name.clone(), value);
    }
    if let Some(list) = &wanted.may_choose {
        let entries = before["permissions"].as_array();
        let known = entries.into_iter().flatten();
        let known = known.map(|entry| found.name_of(entry)).collect();
        let mut wanted_entries = Vec::new();
        for name in list {
            wanted_entries.push(list_entry(found.principal(name)?));
        }
        differences.list("may_choose", &known, &list.iter().cloned().collect());
        body.insert("permissions".to_owned(), wanted_entries.into());
        if !list.is_empty() && wanted.availability.is_none() {
            body.insert("availability".to_owned(), "listed".into());
        }
    }
    if let Some(source) = &wanted.client_secret {
        let secret = read_secret(source)?;
        let is_same = match before["guid"].as_str() {
            Some(guid) => {
                let path = format!("oauth/integrations/{guid}/secret");
                let body = json!({"client_secret": secret.expose_secret()});
                api.call(Method::POST, &path, Some(&body)).await?["same"] == json!(true)
            }
            None => false,
        };
        if !is_same {
            differences.0.push("client_secret: changed".to_owned());
        }
        // Along with every change: one that redirects tokens needs it.
        config.insert("client_secret".to_owned(), secret.expose_secret().into());
    }
    body.insert("name".to_owned(), wanted.name.clone().into());
    body.insert("config".to_owned(), config.into());
    let what = format!("integration {}", wanted.name);
    if report.says(known.is_none(), &what, &differences) {
        let saved = match before["guid"].as_str() {
            Some(guid) => {
                let path = format!("oauth/integrations/{guid}");
                api.call(Method::PATCH, &path, Some(&Value::from(body)))
                    .await?
            }
            None => {
                body.insert("template".to_owned(), wanted.template.clone().into());
                let body = Value::from(body);
                api.call(Method::POST, "oauth/integrations", Some(&body))
                    .await?
            }
        };
        if known.is_none() {
            found.integrations.push(saved);
        }
    } else if known.is_none() {
        found
            .integrations
            .push(json!({"name": wanted.name, "guid": NOT_MADE}));
    }
    Ok(())
}

/// The integration of this name; an error if there are several.
fn one_of_name(all: &[Value], name: &str) -> Result<Option<Value>, String> {
    let mut found = all.iter().filter(|one| one["name"] == json!(name));
    let first = found.next().cloned();
    match found.next() {
        None => Ok(first),
        Some(_) => Err(format!(
            "the portal has several integrations called {name}: rename all but one"
        )),
    }
}

fn read_secret(source: &SecretSource) -> Result<SecretString, String> {
    let read = match source {
        SecretSource::Env(name) => std::env::var(name)
            .map_err(|_| format!("client_secret: the variable {name} is not set"))?,
        SecretSource::File(path) => std::fs::read_to_string(path)
            .map_err(|error| format!("client_secret: {}: {error}", path.display()))?,
        SecretSource::Command(words) => {
            let (program, rest) = words
                .split_first()
                .ok_or("client_secret: the command is empty")?;
            let output = std::process::Command::new(program)
                .args(rest)
                .stderr(std::process::Stdio::inherit())
                .output()
                .map_err(|error| format!("client_secret: {program}: {error}"))?;
            if !output.status.success() {
                return Err(format!("client_secret: {program} failed"));
            }
            String::from_utf8(output.stdout)
                .map_err(|_| format!("client_secret: {program} printed no text"))?
        }
    };
    let secret = read.trim();
    if secret.is_empty() {
        return Err("client_secret: it is empty".to_owned());
    }
    Ok(SecretString::from(secret))
}

async fn apply_content(
    api: &Api,
    found: &Found,
    report: &mut Report,
    wanted: &Content,
) -> Result<(), String> {
    if let Some(owner) = &wanted.owner {
        found.principal(owner)?;
    }
    let same_name = |one: &&FoundContent| {
        one.item["name"] == json!(wanted.name)
            && wanted
                .owner
                .as_ref()
                .is_none_or(|owner| *owner == one.owner)
    };
    let mut all = found.content.iter().filter(same_name);
    let known = all.next();
    if all.next().is_some() {
        return Err("several people own an item of this name: say which owner is meant".to_owned());
    }
    let nothing = Value::Null;
    let before = known.map_or(&nothing, |known| &known.item);
    let mut differences = Differences::default();
    let mut body = Map::new();
    let fields = [
        ("title", &wanted.title),
        ("description", &wanted.description),
        ("access_type", &wanted.access_type),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            let value = Value::from(value.clone());
            differences.field(name, &before[name], &value);
            body.insert(name.to_owned(), value);
        }
    }
    if let Some(processes) = &wanted.processes {
        let stored = before["proxy"]["processes"].as_array();
        let stored = stored.into_iter().flatten();
        let stored: Vec<Value> = stored.map(|process| process["url"].clone()).collect();
        // As the portal writes addresses: with a slash at the end.
        let written = |text: &String| Url::parse(text).map_or_else(|_| text.clone(), String::from);
        let urls: Vec<Value> = processes.iter().map(written).map(Value::from).collect();
        if known.is_none() || stored != urls {
            let stored = if known.is_some() {
                stored.into()
            } else {
                Value::Null
            };
            differences.field("processes", &stored, &urls.clone().into());
            let processes: Vec<Value> = urls.iter().map(|url| json!({"url": url})).collect();
            body.insert("proxy".to_owned(), json!({"processes": processes}));
        }
    }
    // Lists of people, by role.
    let empty = Vec::new();
    let entries = known.map_or(&empty, |known| &known.list);
    let mut puts = Vec::new();
    let mut removals = Vec::new();
    for (field, role, list) in [
        ("viewers", "viewer", &wanted.viewers),
        ("editors", "owner", &wanted.editors),
    ] {
        let Some(list) = list else { continue };
        for name in list {
            found.principal(name)?;
        }
        let before = entries.iter().filter(|(_, known, _)| known == role);
        let before = before.map(|(name, ..)| name.clone()).collect();
        let (added, removed) = differences.list(field, &before, &list.iter().cloned().collect());
        puts.extend(added.into_iter().map(|name| (name, role)));
        removals.extend(removed);
    }
    // Whoever changes from one list to the other is not removed.
    removals.retain(|name| !puts.iter().any(|(put, _)| put == name));
    let mut associations = None;
    if let Some(names) = &wanted.integrations {
        let mut guids = Vec::new();
        for name in names {
            let integration = one_of_name(&found.integrations, name)?
                .ok_or_else(|| format!("there is no integration called {name}"))?;
            guids.push(text(&integration, "guid"));
        }
        let name_of = |guid: &String| {
            let mut all = found.integrations.iter();
            let known = all.find(|one| one["guid"] == json!(guid));
            known.map_or_else(|| guid.clone(), |known| text(known, "name"))
        };
        let before = known.map(|known| known.integrations.iter().map(name_of).collect());
        let after = names.iter().cloned().collect();
        let before = before.unwrap_or_default();
        let (added, removed) = differences.list("integrations", &before, &after);
        if !added.is_empty() || !removed.is_empty() {
            associations = Some(guids);
        }
    }
    let what = format!("content {}", wanted.name);
    if !report.says(known.is_none(), &what, &differences) {
        return Ok(());
    }
    let attach = async |guid: &str, integrations: &[String]| {
        let body: Vec<Value> = integrations
            .iter()
            .map(|guid| json!({"oauth_integration_guid": guid}))
            .collect();
        let path = format!("content/{guid}/oauth/integrations/associations");
        api.call(Method::PUT, &path, Some(&body.into())).await
    };
    let guid = match known {
        Some(known) => {
            let guid = text(&known.item, "guid");
            let path = format!("content/{guid}");
            // Content that is open to anyone must not act for viewers: that ends first.
            if wanted.access_type.as_deref() == Some("all")
                && let Some(integrations) = associations.take()
            {
                attach(&guid, &integrations).await?;
            }
            if !body.is_empty() {
                api.call(Method::PATCH, &path, Some(&body.into())).await?;
            }
            guid
        }
        None => {
            body.insert("name".to_owned(), wanted.name.clone().into());
            if let Some(owner) = &wanted.owner {
                let (_, owner) = found.principal(owner)?;
                body.insert("owner_guid".to_owned(), owner.into());
            }
            let body = Value::from(body);
            let made = api.call(Method::POST, "content", Some(&body)).await?;
            text(&made, "guid")
        }
    };
    for (name, role) in puts {
        let (kind, whom) = found.principal(&name)?;
        let body = json!({"principal_type": kind, "principal_guid": whom, "role": role});
        let path = format!("content/{guid}/permissions");
        api.call(Method::POST, &path, Some(&body)).await?;
    }
    for name in removals {
        let entry = entries.iter().find(|(known, ..)| *known == name);
        if let Some((_, _, number)) = entry {
            let path = format!("content/{guid}/permissions/{number}");
            api.call(Method::DELETE, &path, None).await?;
        }
    }
    if let Some(integrations) = associations {
        attach(&guid, &integrations).await?;
    }
    Ok(())
}

/// Deletes what the file does not mention: items first, which use the rest.
async fn delete_others(
    api: &Api,
    found: &Found,
    report: &mut Report,
    described: &Described,
) -> Result<(), String> {
    let mut gone = Vec::new();
    for one in &found.content {
        let name = text(&one.item, "name");
        let is_described = described.content.iter().any(|item| {
            item.name == name && item.owner.as_ref().is_none_or(|owner| *owner == one.owner)
        });
        if !is_described {
            let guid = text(&one.item, "guid");
            gone.push((
                format!("content {name} of {}", one.owner),
                format!("content/{guid}"),
            ));
        }
    }
    for one in &found.integrations {
        let name = text(one, "name");
        if !described
            .integrations
            .iter()
            .any(|known| known.name == name)
        {
            let guid = text(one, "guid");
            gone.push((
                format!("integration {name}, with its connections and consents"),
                format!("oauth/integrations/{guid}"),
            ));
        }
    }
    for (name, group) in &found.groups {
        if !described.groups.iter().any(|known| known.name == *name) {
            gone.push((format!("group {name}"), format!("groups/{}", group.guid)));
        }
    }
    for (what, path) in gone {
        if report.deletes(&what) {
            api.call(Method::DELETE, &path, None)
                .await
                .map_err(|error| format!("{what}: {error}"))?;
        }
    }
    Ok(())
}

/// Runs `valetkey export`. The error is a sentence for the user.
pub async fn export(arguments: Export) -> Result<(), String> {
    let api = arguments.portal.api()?;
    let found = Found::read(&api, |_| true).await?;
    let by_guid = |guid: &String| {
        let mut all = found.integrations.iter();
        let known = all.find(|one| one["guid"] == json!(guid));
        known.map_or_else(|| guid.clone(), |known| text(known, "name"))
    };
    let described = Described {
        groups: found
            .groups
            .iter()
            .map(|(name, group)| Group {
                name: name.clone(),
                members: Some(sorted(group.members.clone())),
            })
            .collect(),
        integrations: found
            .integrations
            .iter()
            .map(|one| exported_integration(&found, one))
            .collect(),
        content: found
            .content
            .iter()
            .map(|one| {
                let of_role = |role: &str| {
                    let entries = one.list.iter().filter(|(_, known, _)| known == role);
                    sorted(entries.map(|(name, ..)| name.clone()).collect())
                };
                let processes = one.item["proxy"]["processes"].as_array();
                let processes = processes.into_iter().flatten();
                let processes: Vec<String> =
                    processes.map(|process| text(process, "url")).collect();
                Content {
                    name: text(&one.item, "name"),
                    owner: Some(one.owner.clone()),
                    title: one.item["title"].as_str().map(str::to_owned),
                    description: Some(text(&one.item, "description")),
                    access_type: Some(text(&one.item, "access_type")),
                    // What runs here has none.
                    processes: Some(processes).filter(|all| !all.is_empty()),
                    viewers: Some(of_role("viewer")),
                    editors: Some(of_role("owner")),
                    integrations: Some(sorted(one.integrations.iter().map(by_guid).collect())),
                }
            })
            .collect(),
    };
    let text = toml::to_string_pretty(&described).map_err(|error| error.to_string())?;
    println!(
        "# Written by valetkey export. Client secrets are not in it; add, for example, to an integration:\n#   client_secret = {{ env = \"DATABRICKS_SECRET\" }}\n"
    );
    print!("{text}");
    Ok(())
}

fn exported_integration(found: &Found, one: &Value) -> Integration {
    let entries = one["permissions"].as_array().into_iter().flatten();
    let list = sorted(entries.map(|entry| found.name_of(entry)).collect());
    let config = one["config"].as_object().into_iter().flatten();
    Integration {
        name: text(one, "name"),
        template: text(one, "template"),
        description: one["description"].as_str().map(str::to_owned),
        availability: Some(text(one, "availability")),
        // The list is kept while another choice is in force, and means nothing then.
        may_choose: Some(list)
            .filter(|list| !list.is_empty() && one["availability"] == json!("listed")),
        identity_check: Some(text(one, "identity_check")),
        paused: one["paused"].as_bool(),
        client_secret: None,
        config: config
            .filter_map(|(name, value)| Some((name.clone(), toml::Value::try_from(value).ok()?)))
            .collect(),
    }
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort_unstable();
    names
}
