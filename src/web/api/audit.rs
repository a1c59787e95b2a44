//! The audit log for programs, in the shape of Connect's `v1/audit_logs`.

use crate::{
    domain::{
        access,
        audit::{Action, Event},
    },
    http::{codes::Code, query::parameter},
    service::Error,
    store::audit::RecordFilter,
    web::api::{ApiError, ApiResult, PersonalKey, ok},
};
use actix_web::HttpRequest;
use serde_json::{Value, json};
use strum::VariantArray as _;

/// One audit record in Connect's shape.
fn entry(event: &Event) -> Value {
    let mut words = vec![event.subject.as_str(), event.detail.as_str()];
    words.retain(|text| !text.is_empty());
    json!({
        "id": event.number.to_string(),
        "time": event.at.rfc3339(),
        "user_id": event.actor.map(|actor| actor.to_string()).unwrap_or_default(),
        "user_guid": event.actor,
        "user_description": event.actor_name,
        "action": event.action.as_str(),
        "event_description": words.join(": "),
        // Fields that Connect does not have.
        "outcome": event.outcome.as_str(),
        "address": event.address,
        "correlation": event.correlation,
    })
}

/// `GET v1/audit_logs`: one page of audit records. Query: `limit` (1 to 500, default 20),
/// `ascOrder` (default true), and a cursor, `next` or `previous` (a record's number).
/// Administrators only.
pub async fn list(api: PersonalKey, request: HttpRequest) -> ApiResult {
    let number = |name: &str| -> Result<Option<i64>, ApiError> {
        let text = parameter(&request, name).filter(|text| !text.is_empty());
        text.map(|text| {
            text.parse().map_err(|_| {
                ApiError::bad(Code::Invalid, format!("{name}: must be a whole number."))
            })
        })
        .transpose()
    };
    let limit = number("limit")?.unwrap_or(20);
    if !(1..=500).contains(&limit) {
        return Err(ApiError::bad(
            Code::Invalid,
            "limit: must be a whole number from 1 to 500.",
        ));
    }
    let ascending =
        parameter(&request, "ascOrder").is_none_or(|text| crate::web::api::is_true(Some(&text)));
    let (next, previous) = (number("next")?, number("previous")?);
    // The page before a cursor is read in the opposite order, starting at the cursor, and then
    // reversed.
    let backwards = previous.is_some();
    let rising = ascending != backwards;
    let cursor = previous.or(next);
    let filter = RecordFilter {
        after: cursor.filter(|_| rising),
        before: cursor.filter(|_| !rising),
        oldest_first: rising,
        ..RecordFilter::default()
    };
    let mut events = api
        .service
        .audit
        .audit_page(&api.actor, filter, limit + 1)
        .await?;
    let more = i64::try_from(events.len()).unwrap_or(i64::MAX) > limit;
    events.truncate(usize::try_from(limit).unwrap_or(500));
    if backwards {
        events.reverse();
    }
    let (has_previous, has_next) = if backwards {
        (more, true)
    } else {
        (cursor.is_some(), more)
    };
    let first = events
        .first()
        .filter(|_| has_previous)
        .map(|event| event.number.to_string());
    let last = events
        .last()
        .filter(|_| has_next)
        .map(|event| event.number.to_string());
    let base = api.service.core.addresses.absolute(&format!(
        "/__api__/v1/audit_logs?limit={limit}&ascOrder={ascending}"
    ));
    let link = |name: &str, cursor: &Option<String>| {
        cursor
            .as_ref()
            .map(|cursor| format!("{base}&{name}={cursor}"))
    };
    let end = if ascending { i64::MAX } else { 0 };
    Ok(ok(&json!({
        "results": events.iter().map(entry).collect::<Vec<_>>(),
        "paging": {
            "cursors": {"previous": first, "next": last},
            "first": base,
            "previous": link("previous", &first),
            "next": link("next", &last),
            "last": format!("{base}&previous={end}"),
        },
    })))
}

/// `GET v1/audit/actions`: the names of all recorded actions.
pub async fn actions(api: PersonalKey) -> ApiResult {
    if !access::may_read_audit(api.actor.role) {
        return Err(Error::Forbidden("").into());
    }
    Ok(ok(&json!(
        Action::VARIANTS
            .iter()
            .copied()
            .map(Action::as_str)
            .collect::<Vec<_>>()
    )))
}
