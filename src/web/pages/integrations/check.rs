//! `POST /integrations/{guid}/check` and `/test`: checks an integration without a person, or by a
//! sign-in of the administrator. Both end at the integration's page, which shows what was found.

use crate::{
    domain::{
        addresses,
        check::{CheckResult, Finding, Verdict},
        return_path::ReturnPath,
    },
    http::{errors::WebError, redirect::see_other},
    service::{core::must_manage_integrations, grants::attempts::AuthorizationStart},
    web::{
        health::HealthLine,
        pages::id,
        view::{Moment, Now, Status},
        visitor::{Posted, SignedIn},
    },
};
use actix_web::{HttpResponse, web};

/// `POST /integrations/{guid}/check`.
pub async fn check(
    me: SignedIn,
    path: web::Path<String>,
    Posted(_): Posted,
) -> Result<HttpResponse, WebError> {
    let guid = id(&path)?;
    let result = me.service().checks.check(&me.actor, guid).await?;
    let message = match result.verdict() {
        Verdict::Good => "Checked: all is well.",
        Verdict::Warning => "Checked: it works, with something to improve.",
        Verdict::Bad => "Checked: something has to be mended.",
    };
    Ok(me.done(&addresses::integration(guid), message))
}

/// `POST /integrations/{guid}/test`: sends the administrator to the provider.
pub async fn test(
    me: SignedIn,
    path: web::Path<String>,
    Posted(_): Posted,
) -> Result<HttpResponse, WebError> {
    must_manage_integrations(&me.actor)?;
    let guid = id(&path)?;
    let page = addresses::integration(guid);
    let back = ReturnPath::parse(&page).unwrap_or_else(ReturnPath::consents);
    let service = me.service();
    match service.attempts.start_test(&me.actor, guid, back).await? {
        AuthorizationStart::Redirect(address) => Ok(see_other(address.as_str())),
        AuthorizationStart::Failed(failure) => Ok(me.done(&page, failure.sentence)),
    }
}

/// What a check found, as lines of a page.
pub(super) fn lines(result: &CheckResult) -> Vec<HealthLine> {
    let line = |finding: &Finding| {
        let status = match finding.verdict {
            Verdict::Good => Status::positive("Works"),
            Verdict::Warning => Status::warning("Could be better"),
            Verdict::Bad => Status::negative("To be mended"),
        };
        HealthLine {
            advice: finding.fix.clone(),
            ..HealthLine::new(status, &finding.text)
        }
    };
    result.findings.iter().map(line).collect()
}

/// When an integration was last checked, and how that ended.
pub(super) struct LastCheck {
    pub(super) status: Status,
    pub(super) at: Moment,
}

impl LastCheck {
    pub(super) fn new(result: &CheckResult, now: Now) -> Self {
        let status = match result.verdict() {
            Verdict::Good => Status::positive("Check passed"),
            Verdict::Warning => Status::warning("Check: could be better"),
            Verdict::Bad => Status::negative("Check failed"),
        };
        Self {
            status,
            at: Moment::new(result.at, now),
        }
    }
}
