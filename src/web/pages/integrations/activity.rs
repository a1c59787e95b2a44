//! `GET /integrations/{guid}/activity`: what happened with an integration, in plots and records.

use crate::{
    domain::{addresses, addresses::query},
    http::errors::WebError,
    service::core::must_manage_integrations,
    store::audit::RecordFilter,
    web::{
        activity_plots::{connected, exchanges, funnel, range_links, reasons, refreshes, refusals},
        pages::{
            audit::list::words,
            content::activity::ActivityPage,
            id,
            integrations::tabs::{ACTIVITY, integration_tabs},
            page,
        },
        plot::Range,
        view::{Moment, NavLink},
        visitor::SignedIn,
    },
};
use actix_web::{HttpResponse, web};

/// Records on the page, at most.
const MAX_RECORDS: i64 = 10;

/// `GET /integrations/{guid}/activity`.
pub async fn activity(me: SignedIn, path: web::Path<String>) -> Result<HttpResponse, WebError> {
    must_manage_integrations(&me.actor)?;
    let (service, now) = (me.service(), me.now());
    let integration = service
        .integrations
        .integration(&me.actor, id(&path)?)
        .await?;
    let range = Range::parse(me.visitor.asked.text("range"));
    let sums = service
        .activity
        .of_integration(&me.actor, integration.id, range.since(*now), range.step())
        .await?;
    let name = integration.display_name();
    let filter = RecordFilter {
        text: Some(name.to_owned()),
        ..RecordFilter::default()
    };
    let records = service
        .audit
        .audit_page(&me.actor, filter, MAX_RECORDS)
        .await?;
    let mut plots = vec![exchanges(&sums, range, now), refusals(&sums, range, now)];
    if range != Range::Day {
        // It is counted once a day.
        plots.push(connected(&sums, range, now));
    }
    page(&ActivityPage {
        chrome: me
            .visitor
            .chrome("integrations", &format!("Activity of {name}")),
        crumb: NavLink::new("/integrations", "Integrations"),
        title: name.to_owned(),
        tabs: integration_tabs(integration.id, ACTIVITY),
        base: format!("{}{ACTIVITY}", addresses::integration(integration.id)),
        ranges: range_links(range),
        plots,
        shares: vec![
            reasons(&sums, range),
            funnel(&sums, range),
            refreshes(&sums, range),
        ],
        records: records
            .into_iter()
            .map(|event| {
                let action = words(event.action);
                let by = if event.actor_name.is_empty() {
                    String::new()
                } else {
                    format!(", by {}", event.actor_name)
                };
                let detail = if event.detail.is_empty() {
                    String::new()
                } else {
                    format!(": {}", event.detail)
                };
                (Moment::new(event.at, now), format!("{action}{detail}{by}"))
            })
            .collect(),
        all_records: format!("/audit?text={}", query(name)),
    })
}
