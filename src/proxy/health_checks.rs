//! Health checks of processes: whether each accepts a connection, as this node sees it. Only items
//! with several processes are checked; for the others nothing depends on it.

use crate::{
    http::endpoint::is_up,
    service::{Error, Services, cluster::cache::Validity},
    store::{self, changes::Subject},
};
use std::{sync::Arc, time::Duration};

/// Pause between two health checks.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// Checks the processes of all items that have more than one, every `CHECK_INTERVAL`; never
/// returns. The list of items is read again only when an item has changed.
pub async fn watch(service: Arc<Services>) {
    let (mut read, mut urls): (Option<Validity>, _) = (None, Vec::new());
    loop {
        tokio::time::sleep(CHECK_INTERVAL).await;
        let known = read.as_ref();
        if !known.is_some_and(|read| read.is_unchanged(&service.core.store)) {
            let validity = Validity::new(service.core.load_start(), [Subject::Contents]);
            let listed = service
                .core
                .store
                .read(|db| Ok::<_, Error>(store::content::list(db)?))
                .await;
            let items = match listed {
                Ok(items) => items,
                Err(error) => {
                    error.log("reading the processes to check");
                    continue;
                }
            };
            let several = items.into_iter().filter(|item| item.processes.len() > 1);
            urls = several
                .flat_map(|item| item.processes)
                .map(|process| process.url)
                .collect();
            read = Some(validity);
            service.process_health.forget_all_but(&urls);
        }
        let service = &service;
        let checks = urls.iter().map(|url| async move {
            (
                url,
                is_up(url, &service.core.policy, &service.core.names).await,
            )
        });
        for (url, is_up) in futures_util::future::join_all(checks).await {
            service
                .process_health
                .note_health(url, is_up, service.core.now());
        }
    }
}
