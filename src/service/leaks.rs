//! The leak alarm: which viewers' tokens an item trades while which viewers are there. A token that
//! is used without its viewer comes from a connection that the app shares between viewers (a module
//! global, a shared cache): then one person sees another one's rows, and nothing at the provider
//! tells.

use super::{Actor, Error, Service, record};
use crate::{
    domain::{
        Id, Timestamp,
        audit::{Action, Event},
        content::Content,
        leak::{Kind, Leak, Stay, away, judge},
        person::Person,
    },
    store::{Db, content, leaks, people},
};
use std::{
    collections::{HashMap, hash_map::Entry},
    time::Duration,
};

/// Uses are written down every ten seconds by each node; so far back is looked at first, and more
/// if the last look took longer.
const LOOKED_BACK: Duration = Duration::from_secs(30);
/// What looks like a leak is said only if its viewer still was not there after this time: then
/// every node has written down whom it saw before.
const THOUGHT_OVER: Duration = Duration::from_secs(25);

/// What the leader knows from one look to the next.
#[derive(Default)]
pub struct Alarm {
    looked_at: Option<Timestamp>,
    /// Uses that look like leaks, and since when they are known.
    doubts: Vec<(leaks::Use, Kind, Timestamp)>,
}

/// Asks something of each use and of who was at its item.
fn each<T>(
    db: &mut Db<'_>,
    uses: Vec<leaks::Use>,
    ask: impl Fn(&leaks::Use, &[Stay]) -> Option<T>,
) -> Result<Vec<(leaks::Use, T)>, Error> {
    let mut known: HashMap<Id<Content>, Vec<Stay>> = HashMap::new();
    let mut found = Vec::new();
    for used in uses {
        let stays = match known.entry(used.content) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(leaks::stays(db, used.content)?),
        };
        found.extend(ask(&used, stays).map(|answer| (used, answer)));
    }
    Ok(found)
}

impl Service {
    /// Looks for tokens that were used lately without their viewers, and says what still looks so
    /// later.
    pub async fn look_for_leaks(&self, alarm: &mut Alarm) -> Result<(), Error> {
        let now = self.now();
        let since = alarm.looked_at.unwrap_or(now).minus(LOOKED_BACK);
        let is_due = |since: Timestamp| now.since(since) >= THOUGHT_OVER;
        let due: Vec<(leaks::Use, Kind)> = alarm
            .doubts
            .iter()
            .filter(|(_, _, since)| is_due(*since))
            .map(|(used, kind, _)| (*used, *kind))
            .collect();
        let asked = due.iter().map(|(used, _)| *used).collect();
        let (fresh, still) = self
            .store
            .read(move |db| {
                let fresh = leaks::used_between(db, since, now)?;
                let fresh = each(db, fresh, |used, stays| {
                    judge(used.person, used.process, used.at, stays)
                })?;
                Ok::<_, Error>((
                    fresh,
                    each(db, asked, |used, stays| {
                        away(used.person, used.process, used.at, stays)
                    })?,
                ))
            })
            .await?;
        alarm.looked_at = Some(now);
        alarm.doubts.retain(|(_, _, since)| !is_due(*since));
        for (used, kind) in fresh {
            let same = |known: &leaks::Use| {
                (known.content, known.process, known.person)
                    == (used.content, used.process, used.person)
            };
            if !alarm.doubts.iter().any(|(known, ..)| same(known)) {
                alarm.doubts.push((used, kind, now));
            }
        }
        let mut said = Ok(());
        for (used, kind) in due {
            if still.iter().any(|(away, _)| *away == used)
                && let Err(error) = self.say_leak(used, kind).await
            {
                // Said at the next look.
                alarm.doubts.push((used, kind, now.minus(THOUGHT_OVER)));
                said = Err(error);
            }
        }
        said
    }

    async fn say_leak(&self, used: leaks::Use, kind: Kind) -> Result<(), Error> {
        self.store
            .note(move |db| {
                if !leaks::add(db, used, kind)? {
                    return Ok(());
                }
                let (Some(item), Some(person)) = (content::find(db, used.content)?, people::find(db, used.person)?) else { return Ok(()) };
                tracing::warn!(content = %item.id, "a viewer's token was used without its viewer");
                let process = item.processes.iter().find(|process| item.mark(process) == used.process);
                let at = process.filter(|_| !used.process.is_only()).map(|process| format!(" by {}", process.url)).unwrap_or_default();
                let detail = format!(
                    "token of {} used{at} {}; the app may share a connection between its viewers (a module global, @st.cache_resource): \
                     its publisher makes the client inside the request or session",
                    person.username,
                    kind.words()
                );
                record(db, &Event::by_portal(used.at, Action::LeakSuspected, item.display_title(), detail))
            })
            .await
    }

    /// What the alarm saw of an item, for those who may edit it: with the viewers' names.
    pub async fn leaks(
        &self,
        actor: &Actor,
        id: Id<Content>,
    ) -> Result<Vec<(Leak, Person)>, Error> {
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
                if leaks::forget(db, id, now)? > 0 {
                    record(
                        db,
                        &super::event(&actor, now, Action::LeakMended, item.display_title(), ""),
                    )?;
                }
                Ok(())
            })
            .await
    }
}
