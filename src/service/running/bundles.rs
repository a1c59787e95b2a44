//! Deployed content from the publisher's side: uploads, deploys, and the variables of processes.
//! What is built and started for it is the runner's work (`runner`), which learns of a deploy
//! through [`RunBoard::wake`].
//!
//! A deploy is a row before its publisher hears of it, so an acknowledged deploy survives a crash.
//! The bundle that viewers get changes in the transaction that ends the deploy.

use crate::{
    archive::{self, Limits},
    disk,
    domain::{
        Id, Timestamp, access,
        audit::{Action, Origin},
        bundle::{Activated, AppMode, Bundle, Manifest, Outcome, Source, Task, is_variable_name},
        content::Content,
        form::FieldError,
        person::Person,
        running::Running,
    },
    service::{
        catalog::content::Contents,
        cluster::node::Nodes,
        core::{Actor, Core, event, record, require},
        error::{Error, invalid},
        running::{
            board::RunBoard,
            files::{self, Files},
        },
    },
    store::{Db, bundles, content, people},
    vault::labels,
};
use secrecy::{ExposeSecret as _, SecretString};
use std::{
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Variables of one item.
const MAX_VARIABLES: usize = 200;
/// Longest value of a variable, in bytes.
const MAX_VALUE: usize = 64 * 1024;
/// Largest part of a deploy's output that is read at once, in bytes.
const MAX_OUTPUT: u64 = 1 << 20;
/// How often a waiting request looks whether a deploy has gone on.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Names that publishers cannot set: the portal does.
const RESERVED: [&str; 7] = [
    "CONNECT_SERVER",
    "CONNECT_API_KEY",
    "CONNECT_CONTENT_GUID",
    "CONNECT_CONTENT_SESSION_TOKEN",
    "CONNECT_CONTENT_SESSION_TOKEN_FILE",
    "RSTUDIO_PRODUCT",
    "POSIT_PRODUCT",
];

/// An upload under way: a folder that is deleted with it.
#[derive(Debug)]
pub struct Upload {
    folder: PathBuf,
}

impl Upload {
    /// Where the archive is written to.
    pub fn archive(&self) -> PathBuf {
        self.folder.join("upload")
    }
    /// Where the files of a browser's upload are written to.
    pub fn files(&self) -> PathBuf {
        self.folder.join("files")
    }
    /// Where an archive is packed to.
    pub fn packed(&self) -> PathBuf {
        self.folder.join("packed.tar.gz")
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // What stays is deleted at the next start.
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

/// A deploy and a part of its output.
#[derive(Debug)]
pub struct TaskOutput {
    pub task: Task,
    pub lines: Vec<String>,
    /// Number of the last line.
    pub last: usize,
}

/// A variable of an item, for its processes.
pub type Variable = (String, SecretString);

/// Deployed content.
pub struct Bundles {
    core: Arc<Core>,
    contents: Arc<Contents>,
    nodes: Arc<Nodes>,
    board: Arc<RunBoard>,
    files: Files,
}

impl Bundles {
    pub(in crate::service) fn new(
        core: Arc<Core>,
        contents: Arc<Contents>,
        nodes: Arc<Nodes>,
        board: Arc<RunBoard>,
    ) -> Self {
        let files = Files::new(&core.settings.data_dir);
        Self {
            core,
            contents,
            nodes,
            board,
            files,
        }
    }

    /// Where the files are.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Why content cannot run on this portal; `None` if it can.
    pub async fn unavailable(&self) -> Result<Option<String>, Error> {
        match self.several_nodes().await? {
            Some(reason) => Ok(Some(reason)),
            None => Ok(self.board.unavailable()),
        }
    }

    /// Says that content does not run on several nodes, if there are several.
    pub async fn several_nodes(&self) -> Result<Option<String>, Error> {
        let several =
            self.core.store.database_url().is_shared() && self.nodes.nodes().await?.len() > 1;
        Ok(several.then(|| "Content does not run on a portal of several nodes. Run the app elsewhere and add its address.".into()))
    }

    async fn must_be_available(&self) -> Result<(), Error> {
        match self.unavailable().await? {
            // What is ordered while the runner begins is carried out soon.
            Some(reason) if !self.board.is_starting() => Err(Error::Conflict(reason)),
            _ => Ok(()),
        }
    }

    /// What a bundle may unpack to.
    pub fn limits(&self) -> Limits {
        Limits {
            bytes: self.core.settings.run.max_unpacked_bytes,
            entries: self.core.settings.run.max_entries,
        }
    }

    /// Largest upload in bytes.
    pub fn max_upload(&self) -> u64 {
        self.core.settings.run.max_upload_bytes
    }

    /// Begins an upload, for those who may edit the item. `Conflict` if content cannot run here.
    pub async fn begin_upload(&self, actor: &Actor, item: Id<Content>) -> Result<Upload, Error> {
        self.contents.editable_content(actor, item).await?;
        self.must_be_available().await?;
        self.upload_folder()
    }

    /// Begins an upload for an item that is yet to be added.
    pub async fn begin_new(&self, actor: &Actor) -> Result<Upload, Error> {
        require(
            access::may_create_content(actor.role),
            "Only publishers and administrators add content.",
        )?;
        self.must_be_available().await?;
        self.upload_folder()
    }

    fn upload_folder(&self) -> Result<Upload, Error> {
        let name = Id::<Upload>::random().to_string();
        let folder = self.files.incoming().join(name);
        std::fs::create_dir_all(&folder).map_err(|error| upload_error(&error))?;
        Ok(Upload { folder })
    }

    /// Makes a bundle of the archive in an upload.
    pub async fn add(
        &self,
        actor: &Actor,
        item: Id<Content>,
        upload: Upload,
        archive: PathBuf,
        source: Source,
    ) -> Result<Bundle, Error> {
        self.contents.editable_content(actor, item).await?;
        let (limits, path) = (self.limits(), archive.clone());
        let manifest = tokio::task::spawn_blocking(move || archive::read_manifest(&path, limits))
            .await
            .map_err(|_| Error::Internal("reading an archive panicked"))?
            .map_err(|sentence| invalid("archive", sentence))?
            .ok_or_else(|| invalid("archive", "The archive has no manifest.json at its root. Deploy with rsconnect-python, which writes it, or upload the files on the content's page."))?;
        let manifest =
            Manifest::parse(&manifest).map_err(|sentence| invalid("manifest.json", sentence))?;
        let size = std::fs::metadata(&archive)
            .and_then(|found| {
                std::fs::File::open(&archive)?.sync_all()?;
                Ok(found.len())
            })
            .map_err(|error| upload_error(&error))?;
        let mut bundle = Bundle {
            number: 0,
            content: item,
            created_at: self.core.now(),
            created_by: Some(actor.person.id),
            size: i64::try_from(size).unwrap_or(i64::MAX),
            app_mode: manifest.mode.as_str().to_owned(),
            python: manifest.python,
            source,
        };
        let row = bundle.clone();
        bundle.number = self
            .core
            .store
            .write(move |db| Ok::<_, Error>(bundles::insert(db, &row)?))
            .await?;
        let place = self.files.archive(item, bundle.number);
        let moved = place
            .parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| std::fs::rename(&archive, &place))
            .and_then(|()| {
                place
                    .parent()
                    .map_or(Ok(()), |folder| std::fs::File::open(folder)?.sync_all())
            });
        drop(upload);
        if let Err(error) = moved {
            let number = bundle.number;
            let gone = self
                .core
                .store
                .write(move |db| Ok::<_, Error>(bundles::delete(db, item, number)?));
            gone.await?;
            return Err(upload_error(&error));
        }
        self.drop_surplus(item, bundle.number).await?;
        Ok(bundle)
    }

    /// Deletes bundles beyond the number that is kept, oldest first: never the one that viewers get,
    /// `newest`, or one that is being deployed.
    async fn drop_surplus(&self, item: Id<Content>, newest: i64) -> Result<(), Error> {
        let keep = self.core.settings.run.kept_bundles;
        let dropped = self
            .core
            .store
            .write(move |db| {
                let Some(found) = content::find(db, item)? else {
                    return Ok(Vec::new());
                };
                let needed: Vec<i64> = found.bundle.into_iter().chain([newest]).collect();
                delete_surplus(db, item, &needed, keep)
            })
            .await?;
        for number in dropped {
            self.delete_files(item, number);
        }
        Ok(())
    }

    /// An item's bundles, newest first; for those who may edit it.
    pub async fn list(&self, actor: &Actor, item: Id<Content>) -> Result<Vec<Bundle>, Error> {
        self.contents.editable_content(actor, item).await?;
        self.core
            .store
            .read(move |db| Ok(bundles::of_content(db, item)?))
            .await
    }

    /// One bundle of an item.
    pub async fn bundle(
        &self,
        actor: &Actor,
        item: Id<Content>,
        number: i64,
    ) -> Result<Bundle, Error> {
        self.contents.editable_content(actor, item).await?;
        self.core
            .store
            .read(move |db| bundles::find(db, item, number)?.ok_or(Error::NotFound))
            .await
    }

    /// Deletes a bundle and its files; `Conflict` for the one that viewers get.
    pub async fn delete(&self, actor: &Actor, item: Id<Content>, number: i64) -> Result<(), Error> {
        self.contents.editable_content(actor, item).await?;
        let (now, actor) = (self.core.now(), actor.clone());
        self.core
            .store
            .write(move |db| {
                let found = content::find(db, item)?.ok_or(Error::NotFound)?;
                if found.bundle == Some(number) {
                    return Err(Error::Conflict(
                        "This is the bundle that viewers get. Deploy another one first.".into(),
                    ));
                }
                let open = bundles::open_tasks(db)?;
                if open
                    .iter()
                    .any(|task| (task.content, task.bundle) == (item, number))
                {
                    return Err(Error::Conflict(
                        "This bundle is being deployed. Wait until that has ended.".into(),
                    ));
                }
                if !bundles::delete(db, item, number)? {
                    return Err(Error::NotFound);
                }
                let detail = format!("bundle {number} deleted");
                record_change(db, &actor, now, &found, detail)
            })
            .await?;
        self.delete_files(item, number);
        Ok(())
    }

    /// Deletes a bundle's files. What stays is clutter.
    fn delete_files(&self, item: Id<Content>, number: i64) {
        drop(std::fs::remove_file(self.files.archive(item, number)));
        drop(std::fs::remove_dir_all(self.files.bundle(item, number)));
    }

    /// Orders a deploy of a bundle (`None`: the active one, else the newest). Without `activate` it
    /// is only built, and its publisher sees it as a draft.
    pub async fn deploy(
        &self,
        actor: &Actor,
        item: Id<Content>,
        bundle: Option<i64>,
        activate: bool,
    ) -> Result<Task, Error> {
        let found = self.contents.editable_content(actor, item).await?.content;
        self.must_be_available().await?;
        let (now, actor) = (self.core.now(), actor.clone());
        let files = self.files.clone();
        let task = self
            .core
            .store
            .write(move |db| {
                let number = match bundle.or(found.bundle) {
                    Some(number) => bundles::find(db, item, number)?.map(|bundle| bundle.number),
                    None => bundles::of_content(db, item)?
                        .first()
                        .map(|bundle| bundle.number),
                };
                let number = number.ok_or_else(|| {
                    invalid(
                        "bundle_id",
                        "There is no such bundle of this content. Upload one first.",
                    )
                })?;
                if !files.archive(item, number).exists() && !files.built(item, number).exists() {
                    return Err(invalid(
                        "bundle_id",
                        "The files of this bundle are gone. Upload it again.",
                    ));
                }
                let task = Task {
                    id: Id::random(),
                    content: item,
                    bundle: number,
                    created_by: actor.person.id,
                    role: actor.role,
                    activate,
                    created_at: now,
                    outcome: None,
                };
                bundles::insert_task(db, &task)?;
                if activate {
                    let detail = format!("bundle {number} deployed");
                    record(
                        db,
                        &event(
                            &actor,
                            now,
                            Action::ContentDeployed,
                            found.display_title(),
                            detail,
                        ),
                    )?;
                }
                Ok(task)
            })
            .await?;
        self.board.wake();
        Ok(task)
    }

    /// A deploy and its output from line `first` on; waits for `patience` at most until it has more
    /// to say. `NotFound` for others than those who may edit the item.
    pub async fn task(
        &self,
        actor: &Actor,
        task: Id<Task>,
        first: usize,
        patience: Duration,
    ) -> Result<TaskOutput, Error> {
        let until = tokio::time::Instant::now() + patience;
        loop {
            let found = self
                .core
                .store
                .read(move |db| bundles::find_task(db, task)?.ok_or(Error::NotFound))
                .await?;
            if self
                .contents
                .editable_content(actor, found.content)
                .await
                .is_err()
            {
                return Err(Error::NotFound);
            }
            let log = self.files.task_log(found.content, found.id);
            let text = tokio::task::spawn_blocking(move || files::tail(&log, MAX_OUTPUT))
                .await
                .map_err(|_| Error::Internal("reading a log panicked"))?
                .unwrap_or_default();
            let all: Vec<&str> = text.lines().collect();
            // A cut beginning is said by the line numbers only: programs read from the start.
            let lines: Vec<String> = all
                .iter()
                .skip(first)
                .map(|line| (*line).to_owned())
                .collect();
            if found.outcome.is_some() || !lines.is_empty() || tokio::time::Instant::now() >= until
            {
                return Ok(TaskOutput {
                    task: found,
                    last: all.len(),
                    lines,
                });
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// An item's latest deploys, newest first.
    pub async fn tasks_of(&self, actor: &Actor, item: Id<Content>) -> Result<Vec<Task>, Error> {
        self.contents.editable_content(actor, item).await?;
        self.core
            .store
            .read(move |db| Ok(bundles::tasks_of(db, item, 20)?))
            .await
    }

    /// The names of an item's variables; their values are never shown.
    pub async fn variable_names(
        &self,
        actor: &Actor,
        item: Id<Content>,
    ) -> Result<Vec<String>, Error> {
        self.contents.editable_content(actor, item).await?;
        self.core
            .store
            .read(move |db| Ok(bundles::variable_names(db, item)?))
            .await
    }

    /// Sets variables (`None` deletes one); with `replace` all others are deleted. Running processes
    /// are replaced by new ones. Returns the names after it.
    pub async fn set_variables(
        &self,
        actor: &Actor,
        item: Id<Content>,
        changes: Vec<(String, Option<SecretString>)>,
        replace: bool,
    ) -> Result<Vec<String>, Error> {
        let found = self.contents.editable_content(actor, item).await?.content;
        let problems = check_variables(&changes);
        if !problems.is_empty() {
            return Err(Error::Invalid(problems));
        }
        let mut sealed = Vec::new();
        for (name, value) in changes {
            let row = labels::variable_row(item, &name);
            let value = value
                .map(|value| self.core.vault.seal(labels::variable(&row), &value))
                .transpose()?;
            sealed.push((name, value));
        }
        let (now, actor) = (self.core.now(), actor.clone());
        let names = self
            .core
            .store
            .write(move |db| {
                if replace {
                    for name in bundles::variable_names(db, item)? {
                        bundles::set_variable(db, item, &name, None)?;
                    }
                }
                for (name, value) in &sealed {
                    bundles::set_variable(db, item, name, value.as_ref())?;
                }
                let names = bundles::variable_names(db, item)?;
                if names.len() > MAX_VARIABLES {
                    return Err(invalid(
                        "name",
                        format!("An item has at most {MAX_VARIABLES} variables."),
                    ));
                }
                let touched: Vec<&str> = sealed.iter().map(|(name, _)| name.as_str()).collect();
                let detail = format!("variables: {}", touched.join(", "));
                record_change(db, &actor, now, &found, detail)?;
                Ok::<_, Error>(names)
            })
            .await?;
        self.board.renew(item);
        Ok(names)
    }

    /// Replaces an item's processes by new ones, without interruption, and tries again after a
    /// failure.
    pub async fn restart(&self, actor: &Actor, item: Id<Content>) -> Result<(), Error> {
        self.contents.editable_content(actor, item).await?;
        self.must_be_available().await?;
        self.board.renew(item);
        Ok(())
    }

    /// The limits of an item's processes.
    pub async fn set_running(
        &self,
        actor: &Actor,
        item: Id<Content>,
        running: Running,
    ) -> Result<(), Error> {
        let found = self.contents.editable_content(actor, item).await?.content;
        let problems = check_running(&running);
        if !problems.is_empty() {
            return Err(Error::Invalid(problems));
        }
        if found.running == running {
            return Ok(());
        }
        let (now, actor) = (self.core.now(), actor.clone());
        self.core
            .store
            .write(move |db| {
                let mut item = content::find(db, item)?.ok_or(Error::NotFound)?;
                item.running = running.clone();
                item.updated_at = now;
                content::update(db, &item)?;
                record_change(db, &actor, now, &item, "process limits")
            })
            .await?;
        self.board.wake();
        Ok(())
    }

    /// Makes an item one whose app runs elsewhere again.
    pub async fn stop_running(&self, actor: &Actor, item: Id<Content>) -> Result<(), Error> {
        let found = self.contents.editable_content(actor, item).await?.content;
        let (now, actor) = (self.core.now(), actor.clone());
        self.core
            .store
            .write(move |db| {
                bundles::activate(db, item, None, "unknown", None)?;
                record_change(db, &actor, now, &found, "no longer runs here")
            })
            .await?;
        self.board.drain(item, None);
        Ok(())
    }
}

/// What the runner needs. It acts for nobody: each call concerns a deploy that somebody ordered, or
/// an item that is active.
impl Bundles {
    /// The deploys that are not finished, oldest first.
    pub async fn open_tasks(&self) -> Result<Vec<Task>, Error> {
        self.core
            .store
            .read(|db| Ok(bundles::open_tasks(db)?))
            .await
    }

    /// An item, if it still exists.
    pub async fn item(&self, item: Id<Content>) -> Result<Option<Content>, Error> {
        self.core
            .store
            .read(move |db| Ok(content::find(db, item)?))
            .await
    }

    /// Whether a bundle still exists.
    pub async fn exists(&self, item: Id<Content>, bundle: i64) -> Result<bool, Error> {
        self.core
            .store
            .read(move |db| Ok(bundles::find(db, item, bundle)?.is_some()))
            .await
    }

    /// The kind of app of a bundle; `NotFound` if there is none.
    pub async fn draft_mode(&self, item: Id<Content>, bundle: i64) -> Result<AppMode, Error> {
        self.core
            .store
            .read(move |db| {
                let found = bundles::find(db, item, bundle)?.ok_or(Error::NotFound)?;
                found
                    .app_mode
                    .parse()
                    .map_err(|_| Error::Internal("a stored bundle is of a kind that is not known"))
            })
            .await
    }

    /// Whether a deploy is still to be carried out. `false` if the database does not answer: the next
    /// round asks again.
    pub async fn is_waiting(&self, task: &Task) -> bool {
        let id = task.id;
        let found = self
            .core
            .store
            .read(move |db| Ok::<_, Error>(bundles::find_task(db, id)?))
            .await;
        matches!(found, Ok(Some(task)) if task.outcome.is_none())
    }

    /// The items whose app runs here.
    pub async fn active(&self) -> Result<Vec<Content>, Error> {
        self.core.store.read(|db| Ok(bundles::active(db)?)).await
    }

    /// The person for whom a deploy is carried out; `None` if they may no longer edit the item.
    pub async fn actor_of(&self, task: &Task) -> Result<Option<Actor>, Error> {
        let person = task.created_by;
        let found = self
            .core
            .store
            .read(move |db| Ok::<_, Error>(people::find(db, person)?));
        let Some(person) = found.await?.filter(|person| !person.locked) else {
            return Ok(None);
        };
        let actor = Actor {
            role: task.role.min(person.role),
            person,
            session: None,
            origin: Origin::default(),
        };
        match self.contents.editable_content(&actor, task.content).await {
            Ok(_) => Ok(Some(actor)),
            Err(Error::NotFound | Error::Forbidden(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Ends a deploy. After a success of one that activates, viewers get its bundle from now on, and
    /// older bundles than the ones that are kept are deleted.
    pub async fn finish(
        &self,
        task: &Task,
        error: Option<String>,
        activated: Option<Activated>,
    ) -> Result<(), Error> {
        let (task, outcome) = (
            task.clone(),
            Outcome {
                at: self.core.now(),
                error,
            },
        );
        let keep = self.core.settings.run.kept_bundles;
        let (item, finished) = (task.content, outcome.error.is_none());
        let dropped = self
            .core
            .store
            .write(move |db| {
                if !bundles::finish_task(db, task.id, &outcome)? {
                    return Ok(Vec::new());
                }
                let Some(activated) = activated.clone().filter(|_| finished) else {
                    return Ok(Vec::new());
                };
                let Some(mut item) = content::find(db, task.content)? else {
                    return Ok(Vec::new());
                };
                if item.proxying.keep_prefix != activated.keep_prefix {
                    item.proxying.keep_prefix = activated.keep_prefix;
                    content::update(db, &item)?;
                }
                bundles::activate(
                    db,
                    item.id,
                    Some(task.bundle),
                    activated.mode.as_str(),
                    activated.python.as_deref(),
                )?;
                delete_surplus(db, item.id, &[task.bundle], keep.saturating_sub(1))
            })
            .await?;
        for number in dropped {
            self.delete_files(item, number);
        }
        Ok(())
    }

    /// An item's variables, opened. One that does not open is left out and logged.
    pub async fn variables(&self, item: Id<Content>) -> Result<Vec<Variable>, Error> {
        let sealed = self
            .core
            .store
            .read(move |db| Ok::<_, Error>(bundles::variables(db, item)?))
            .await?;
        Ok(sealed
            .into_iter()
            .filter_map(|(name, value)| {
                let row = labels::variable_row(item, &name);
                let opened = self.core.vault.open(labels::variable(&row), &value);
                opened
                    .inspect_err(|error| tracing::error!(content = %item, name, reason = %error, "a stored variable does not open"))
                    .ok()
                    .map(|value| (name, value))
            })
            .collect())
    }

    /// Who owns an item, if they may still run content.
    pub async fn owner(&self, item: &Content) -> Result<Option<Person>, Error> {
        let owner = item.owner;
        let found = self
            .core
            .store
            .read(move |db| Ok::<_, Error>(people::find(db, owner)?))
            .await?;
        Ok(found.filter(|person| !person.locked && access::may_own_content(person)))
    }

    /// Now, by the portal's clock.
    pub fn now(&self) -> Timestamp {
        self.core.now()
    }
}

/// Writes the audit record of a change of an item.
fn record_change(
    db: &mut Db<'_>,
    actor: &Actor,
    now: Timestamp,
    item: &Content,
    detail: impl Into<String>,
) -> Result<(), Error> {
    let title = item.display_title();
    record(
        db,
        &event(actor, now, Action::ContentChanged, title, detail),
    )
}

/// The error of a publisher whose upload cannot be written.
pub fn upload_error(error: &std::io::Error) -> Error {
    if disk::is_full(error) {
        return invalid(
            "archive",
            "The portal's disk is full. The operator has to make room; then upload again.",
        );
    }
    tracing::error!(%error, "an upload cannot be stored");
    Error::Internal("an upload cannot be stored")
}

fn check_variables(changes: &[(String, Option<SecretString>)]) -> Vec<FieldError> {
    let mut problems = Vec::new();
    for (name, value) in changes {
        if !is_variable_name(name) {
            problems.push(FieldError::new(
                "name",
                format!(
                    "“{}” is no name of a variable: use letters, digits and _.",
                    name.chars().take(60).collect::<String>()
                ),
            ));
        } else if RESERVED.contains(&name.as_str()) {
            problems.push(FieldError::new(
                "name",
                format!("{name} is set by the portal."),
            ));
        }
        let value = value.as_ref().map_or("", |value| value.expose_secret());
        if value.len() > MAX_VALUE || value.contains('\0') {
            problems.push(FieldError::new(
                "value",
                format!("The value of {name} is too long (64 KiB at most) or holds a NUL."),
            ));
        }
    }
    problems
}

fn check_running(running: &Running) -> Vec<FieldError> {
    let mut problems = Vec::new();
    let mut check = |key: &str, value: Option<u32>, from: u32, to: u32| {
        if value.is_some_and(|value| !(from..=to).contains(&value)) {
            problems.push(FieldError::new(
                key,
                format!("Enter a number from {from} to {to}, or leave it empty."),
            ));
        }
    };
    check(
        "min_processes",
        running.min_processes,
        0,
        Running::MAX_PROCESSES,
    );
    check(
        "max_processes",
        running.max_processes,
        1,
        Running::MAX_PROCESSES,
    );
    check(
        "max_conns_per_process",
        running.max_conns_per_process,
        1,
        10_000,
    );
    check("load_factor", running.load_factor, 0, 100);
    check("idle_timeout", running.idle_timeout, 1, 2_592_000);
    check("start_timeout", running.start_timeout, 1, 3600);
    check("memory_mib", running.memory_mib, 64, 1_048_576);
    if let (Some(least), Some(most)) = (running.min_processes, running.max_processes)
        && least > most
    {
        problems.push(FieldError::new(
            "max_processes",
            "The most must not be less than the fewest.",
        ));
    }
    problems
}

/// Deletes an item's bundles but `needed`, those that are being deployed, and the `keep` newest of the
/// others. Returns their numbers.
fn delete_surplus(
    db: &mut Db<'_>,
    item: Id<Content>,
    needed: &[i64],
    keep: usize,
) -> Result<Vec<i64>, Error> {
    let open = bundles::open_tasks(db)?;
    let is_deployed = |number: i64| {
        open.iter()
            .any(|task| (task.content, task.bundle) == (item, number))
    };
    let surplus: Vec<i64> = bundles::of_content(db, item)?
        .into_iter()
        .map(|bundle| bundle.number)
        .filter(|number| !needed.contains(number) && !is_deployed(*number))
        .skip(keep)
        .collect();
    for number in &surplus {
        bundles::delete(db, item, *number)?;
    }
    Ok(surplus)
}

/// Bytes of a Python file that are read to find the kind of app.
const MAX_LOOKED_AT: u64 = 64 * 1024;

/// Makes a manifest for files that were uploaded without one. `folder` holds them; the manifest is
/// written there. `wanted`: the kind and entry point that the publisher chose, else they are
/// guessed. Returns the kind and the entry point; the error is a sentence.
pub fn write_manifest(
    folder: &Path,
    wanted: Option<(AppMode, String)>,
) -> Result<(AppMode, String), String> {
    let listed =
        list_files(folder).map_err(|error| format!("The files cannot be read: {error}."))?;
    // The kind is told by what a file at the top imports, near its beginning.
    let beginning = |name: &String| {
        let mut bytes = Vec::new();
        let file = std::fs::File::open(folder.join(name)).ok()?;
        file.take(MAX_LOOKED_AT).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    };
    let is_looked_at = |name: &String| name.ends_with(".py") && !name.contains('/');
    let texts: Vec<(String, Option<String>)> = listed
        .iter()
        .map(|name| {
            let text = is_looked_at(name).then(|| beginning(name)).flatten();
            (name.clone(), text)
        })
        .collect();
    let (mode, entrypoint) = wanted
        .filter(|(_, entrypoint)| !entrypoint.is_empty())
        .or_else(|| crate::domain::bundle::detect(&texts))
        .ok_or("The portal does not recognise the kind of app: no Python file at the top imports Streamlit, Shiny, Dash, Flask, FastAPI, Gradio, Panel or Bokeh, and there is no notebook and no HTML page. Choose the kind and the entry point below.")?;
    let mut manifest = serde_json::json!({
        "version": 1,
        "metadata": {"appmode": mode.as_str(), "entrypoint": entrypoint},
        "files": {},
    });
    if mode == AppMode::Static {
        manifest["metadata"]["primary_html"] = entrypoint.clone().into();
    } else {
        let has_packages = listed.iter().any(|name| name == "requirements.txt");
        manifest["python"] = serde_json::json!({"package_manager": {
            "name": if has_packages { "pip" } else { "none" }, "package_file": "requirements.txt",
        }});
    }
    std::fs::write(folder.join("manifest.json"), manifest.to_string())
        .map_err(|error| format!("The files cannot be written: {error}."))?;
    Ok((mode, entrypoint))
}

/// The files below a folder, by relative path.
fn list_files(folder: &Path) -> std::io::Result<Vec<String>> {
    let (mut found, mut open) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(part) = open.pop() {
        for entry in std::fs::read_dir(folder.join(&part))? {
            let entry = entry?;
            let name = part.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                open.push(name);
            } else if let Some(name) = name.to_str() {
                found.push(name.to_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}
