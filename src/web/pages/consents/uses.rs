//! `GET /consents/{guid}/uses`: how often an app acted as the reader, in a plot.

use crate::{
    http::errors::WebError,
    web::{
        activity_plots::range_links,
        pages::{content::activity::ActivityPage, id, page},
        plot::{Range, Values, bars},
        view::NavLink,
        visitor::SignedIn,
    },
};
use actix_web::{HttpResponse, web};

/// `GET /consents/{guid}/uses`.
pub async fn uses(me: SignedIn, path: web::Path<String>) -> Result<HttpResponse, WebError> {
    let (service, now) = (me.service(), me.now());
    let (granted, integration) = service.consents.consent(&me.actor, id(&path)?).await?;
    let range = Range::parse(me.visitor.asked.text("range"));
    let counts = service
        .usage
        .uses_of_consent(&me.actor, &granted.consent, range.since(*now))
        .await?;
    let mut values = Values::new();
    for (hour, times) in counts {
        *values.entry(hour.start_of(range.step())).or_default() += times;
    }
    let title = format!(
        "{} as you in {}",
        granted.content.display_title(),
        integration.display_name()
    );
    page(&ActivityPage {
        chrome: me.visitor.chrome("consents", &title),
        crumb: NavLink::new("/consents", "Consents"),
        title,
        tabs: Vec::new(),
        base: crate::domain::addresses::consent_uses(granted.consent.id),
        ranges: range_links(range),
        plots: vec![bars("Uses", "accent", range, ("use", "uses"), &values, now)],
        shares: Vec::new(),
        records: Vec::new(),
        all_records: String::new(),
    })
}
