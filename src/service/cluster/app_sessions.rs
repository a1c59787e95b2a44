//! Whose app sessions are (`proxy::app_sessions` finds their ids). Collected in memory and written
//! twice a second, many with one statement: when an app restarts, all its viewers connect at the
//! same time, and refreshes must not wait for them.
//!
//! The first viewer to whom an app sent an id keeps it. What is not written yet is known to this
//! node only: a viewer who reconnects to another one within that time starts a new app session.

pub use crate::store::short_lived::AppSessionOwner;
use crate::{
    service::{core::Core, error::Error},
    store::{
        bookkeeping::{self, MAX_ROWS},
        short_lived::{self, AppSession},
    },
};
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc};

/// Owners that wait to be written, at most. Beyond it an id is not remembered, and its viewer starts
/// a new app session after a reconnect.
const MAX_UNWRITTEN: usize = 100_000;

/// The owners of app sessions.
pub struct AppSessions {
    core: Arc<Core>,
    /// By the hash of the app session's id.
    unwritten: Mutex<HashMap<String, AppSession>>,
}

impl AppSessions {
    pub(in crate::service) fn new(core: Arc<Core>) -> Self {
        Self {
            core,
            unwritten: Mutex::default(),
        }
    }

    /// Notes that an app sent this id to its owner.
    pub fn note(&self, id_hash: String, owner: AppSessionOwner) {
        let since = self.core.now();
        let mut unwritten = self.unwritten.lock();
        if unwritten.len() < MAX_UNWRITTEN {
            unwritten.entry(id_hash.clone()).or_insert(AppSession {
                id_hash,
                owner,
                since,
            });
        }
    }

    /// Whether the app was seen to send this id to this viewer. `false` for an unknown id, and if
    /// the database cannot be read.
    pub async fn belongs_to(&self, id_hash: String, owner: AppSessionOwner) -> bool {
        let noted = self.unwritten.lock().get(&id_hash).map(|noted| noted.owner);
        // What the database says comes first: the id may be another viewer's since long.
        let written = self
            .core
            .store
            .read(move |db| Ok::<_, Error>(short_lived::app_session_owner(db, &id_hash)?))
            .await;
        match written {
            Ok(written) => written.or(noted) == Some(owner),
            Err(error) => {
                error.log("the owner of an app session");
                false
            }
        }
    }

    /// Writes what was noted: twice a second and at a stop. What cannot be written waits for the
    /// next call.
    pub async fn flush(self: &Arc<Self>) {
        if self.unwritten.lock().is_empty() {
            return;
        }
        let this = Arc::clone(self);
        let writing = async move { this.write().await };
        if let Err(error) = self.core.run_to_end(writing).await {
            error.log("the owners of app sessions");
        }
    }

    async fn write(&self) -> Result<(), Error> {
        let noted: Vec<AppSession> = self.unwritten.lock().values().cloned().collect();
        for rows in noted.chunks(MAX_ROWS) {
            let sessions = rows.to_vec();
            self.core
                .store
                .write_bookkeeping(move |db| {
                    Ok::<_, Error>(bookkeeping::record_app_sessions(db, &sessions)?)
                })
                .await?;
            let mut unwritten = self.unwritten.lock();
            for session in rows {
                unwritten.remove(&session.id_hash);
            }
        }
        Ok(())
    }
}
