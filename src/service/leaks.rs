//! The leak alarm: which viewers' tokens an item trades while which viewers are there. A token that is used without its viewer
//! comes from a connection that the app shares between viewers (a module global, a shared cache): then one person sees another
//! one's rows, and nothing at the provider tells.

use super::{Actor, Error, Service, record};
use crate::{
    domain::{
        Id,
        audit::{Action, Event, Outcome},
        content::Content,
        leak::{Leak, judge},
        person::Person,
    },
    store::{content, leaks, people},
};
use std::time::Duration;

/// How often presence is written down while somebody stays.
const NOTED_EVERY: Duration = Duration::from_secs(60);
/// Uses since then are looked at. Counts are written every ten seconds by each node; a look more does no harm.
const LOOKED_BACK: Duration = Duration::from_secs(30);

impl Service {
    /// Writes down who is where, for all nodes.
    pub async fn share_presence(&self) -> Result<(), Error> {
        let news = self.presence_news(NOTED_EVERY);
        if news.is_empty() {
            return Ok(());
        }
        self.store
            .note(move |db| {
                for (item, person, at) in news {
                    leaks::note_presence(db, item, person, at)?;
                }
                Ok::<_, Error>(())
            })
            .await
    }

    /// Looks for tokens that were used lately without their viewers.
    pub async fn look_for_leaks(&self) -> Result<(), Error> {
        let since = self.now().minus(LOOKED_BACK);
        let found = self
            .store
            .read(move |db| {
                let mut found = Vec::new();
                for leaks::Use { content: item, person, at } in leaks::used_since(db, since)? {
                    if let Some(kind) = judge(person, at, &leaks::presences(db, item)?) {
                        found.push((item, person, at, kind));
                    }
                }
                Ok::<_, Error>(found)
            })
            .await?;
        for (item, person, at, kind) in found {
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
                    record(
                        db,
                        &Event {
                            number: 0,
                            at,
                            action: Action::LeakSuspected,
                            actor: None,
                            actor_name: "portal".into(),
                            subject: item.display_title().to_owned(),
                            detail,
                            address: String::new(),
                            correlation: String::new(),
                            outcome: Outcome::of(Action::LeakSuspected),
                            hash: String::new(),
                        },
                    )
                })
                .await?;
        }
        Ok(())
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
