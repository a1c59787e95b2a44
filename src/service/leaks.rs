//! The leak alarm: which viewers' tokens an item trades while which viewers are there. A token that is used without its viewer
//! comes from a connection that the app shares between viewers (a module global, a shared cache): then one person sees another
//! one's rows, and nothing at the provider tells.

use super::{Actor, Error, Service, record};
use crate::{
    domain::{
        Id, Timestamp,
        audit::{Action, Event},
        content::Content,
        leak::{Kind, Leak, judge},
        person::Person,
    },
    store::{Db, content, leaks, people},
};
use std::time::Duration;

/// How often presence is written down while somebody stays.
pub(super) const NOTED_EVERY: Duration = Duration::from_secs(60);
/// Uses since then are looked at. Counts are written every ten seconds by each node; a look more does no harm.
const LOOKED_BACK: Duration = Duration::from_secs(30);
/// What looks like a leak is said only if it still does after this time: then every node has written down whom it saw before.
const THOUGHT_OVER: Duration = Duration::from_secs(25);

/// Uses that look like leaks, and since when they are known.
pub type Doubts = Vec<(leaks::Use, Timestamp)>;

fn suspected(db: &mut Db<'_>, uses: Vec<leaks::Use>) -> Result<Vec<(leaks::Use, Kind)>, Error> {
    let mut found = Vec::new();
    for used in uses {
        let stays = leaks::stays(db, used.content)?;
        found.extend(judge(used.person, used.process, used.at, &stays).map(|kind| (used, kind)));
    }
    Ok(found)
}

impl Service {
    /// Looks for tokens that were used lately without their viewers, and says which of `doubts` were.
    pub async fn look_for_leaks(&self, doubts: &mut Doubts) -> Result<(), Error> {
        let now = self.now();
        let due: Vec<leaks::Use> = doubts.iter().filter(|(_, since)| now.since(*since) >= THOUGHT_OVER).map(|(used, _)| *used).collect();
        let (since, asked) = (now.minus(LOOKED_BACK), due.clone());
        let (fresh, still) = self
            .store
            .read(move |db| {
                let fresh = leaks::used_since(db, since)?;
                Ok::<_, Error>((suspected(db, fresh)?, suspected(db, asked)?))
            })
            .await?;
        doubts.retain(|(used, _)| !due.contains(used));
        for (used, _) in fresh {
            let same = |known: &leaks::Use| (known.content, known.process, known.person) == (used.content, used.process, used.person);
            if !doubts.iter().any(|(known, _)| same(known)) {
                doubts.push((used, now));
            }
        }
        for (used, kind) in still {
            self.say_leak(used, kind).await?;
        }
        Ok(())
    }

    async fn say_leak(&self, leaks::Use { content: item, person, at, .. }: leaks::Use, kind: Kind) -> Result<(), Error> {
        self.store
            .note(move |db| {
                if !leaks::add(db, item, person, kind, at)? {
                    return Ok(());
                }
                let (Some(item), Some(person)) = (content::find(db, item)?, people::find(db, person)?) else { return Ok(()) };
                tracing::warn!(content = %item.id, "a viewer's token was used without its viewer");
                let detail = format!(
                    "token of {} used {}; the app may share a connection between its viewers (a module global, a shared cache)",
                    person.username,
                    kind.words()
                );
                record(db, &Event::by_portal(at, Action::LeakSuspected, item.display_title(), detail))
            })
            .await
    }

    /// What the alarm saw of an item, for those who may edit it: with the viewers' names.
    pub async fn leaks(&self, actor: &Actor, id: Id<Content>) -> Result<Vec<(Leak, Person)>, Error> {
        self.editable_content(actor, id).await?;
        self.store
            .read(move |db| {
                let mut rows = Vec::new();
                for leak in leaks::of_content(db, id)? {
                    if let Some(person) = people::find(db, leak.person)? {
                        rows.push((leak, person));
                    }
                }
                Ok(rows)
            })
            .await
    }

    /// The publisher mended the app: what was seen is forgotten, and the alarm begins anew.
    pub async fn forget_leaks(&self, actor: &Actor, id: Id<Content>) -> Result<(), Error> {
        let item = self.editable_content(actor, id).await?.content;
        let (now, actor) = (self.now(), actor.clone());
        self.store
            .write(move |db| {
                if leaks::forget(db, id)? > 0 {
                    record(db, &super::event(&actor, now, Action::LeakMended, item.display_title(), ""))?;
                }
                Ok(())
            })
            .await
    }
}
