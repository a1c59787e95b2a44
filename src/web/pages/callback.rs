//! The redirect URIs of integrations, `/__oauth__/integrations/callback` (shared) and
//! `/__oauth__/integrations/{guid}/callback` (one integration's own), and the page for each way in
//! which an authorization can end.

use crate::{
    domain::{
        Id, addresses, attempt::Mismatch, check::Verdict, connection::Connection,
        integration::Integration, return_path::ReturnPath,
    },
    http::{errors::WebError, redirect::see_other},
    oauth::errors::{Failure, FailureClass},
    providers,
    service::grants::attempts::{CallbackOutcome, CallbackQuery},
    web::{error_pages::ProblemPage, pages::page_with, view::NavLink, visitor::SignedIn},
};
use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};

/// `GET /__oauth__/integrations/callback`.
pub async fn shared(me: SignedIn, request: HttpRequest) -> Result<HttpResponse, WebError> {
    let callback = me.service().core.addresses.shared_callback();
    finish(me, &request, &callback).await
}

/// `GET /__oauth__/integrations/{guid}/callback`.
pub async fn own(
    me: SignedIn,
    path: web::Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, WebError> {
    let callback = me
        .service()
        .core
        .addresses
        .own_callback(crate::web::pages::id(&path)?);
    finish(me, &request, &callback).await
}

/// The parameters of the authorization response. All are dropped if one occurs twice: parameters
/// must not be repeated (RFC 6749 section 3.1), and choosing one would be a guess.
pub fn answer(query: &str) -> CallbackQuery {
    let mut answer = CallbackQuery::default();
    for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let place = match key.as_ref() {
            "state" => &mut answer.state,
            "code" => &mut answer.code,
            "error" => &mut answer.error,
            "error_description" => &mut answer.error_description,
            "iss" => &mut answer.issuer,
            _ => continue,
        };
        if place.replace(value.into_owned()).is_some() {
            return CallbackQuery::default();
        }
    }
    answer
}

async fn finish(
    me: SignedIn,
    request: &HttpRequest,
    callback: &str,
) -> Result<HttpResponse, WebError> {
    let ending = me
        .service()
        .attempts
        .finish_authorization(&me.actor, callback, answer(request.query_string()))
        .await?;
    show(&me, ending)
}

/// The page, or the redirect, at the end of an authorization.
pub fn show(me: &SignedIn, ending: CallbackOutcome) -> Result<HttpResponse, WebError> {
    match ending {
        CallbackOutcome::Connected {
            back,
            integration,
            lasts,
            missing_scopes,
        } => connected(me, &back, &integration, lasts, &missing_scopes),
        CallbackOutcome::OtherAccount {
            connection,
            content,
            back,
        } => {
            let content = content
                .map(|content| format!("&content={content}"))
                .unwrap_or_default();
            Ok(see_other(&format!(
                "/consents/account?connection={connection}{content}&return={}",
                addresses::query(back.as_str())
            )))
        }
        CallbackOutcome::NotYourAccount {
            account,
            integration,
            content,
            back,
        } => {
            let content = content
                .map(|content| format!("content={content}&"))
                .unwrap_or_default();
            let again = format!(
                "/consents/new?{content}integration={}&other=yes&return={}",
                integration.id,
                addresses::query(back.as_str())
            );
            not_your_account(me, account, &integration, again)
        }
        CallbackOutcome::AccountChanged {
            integration,
            connection,
            before,
            now,
        } => account_changed(me, &integration, connection, before, now),
        CallbackOutcome::StoredLater { back } => problem(
            me,
            StatusCode::SERVICE_UNAVAILABLE,
            "The portal is busy",
            vec![
                "You agreed at the provider, and the portal's database does not answer at the moment. What the provider sent is kept, and is stored as soon as it does.".into(),
                "Open the app again in a minute. If it asks you once more, tell the operator.".into(),
            ],
            vec![NavLink::new(back.as_str(), "Open the app")],
        ),
        CallbackOutcome::AlreadyDone { back } => Ok(see_other(back.as_str())),
        CallbackOutcome::Mismatch { why, back } => mismatch(me, why, back.as_ref()),
        CallbackOutcome::Declined { back, integration } => declined(me, &back, &integration),
        CallbackOutcome::NeedsApproval { back, integration } => {
            needs_approval(me, &back, &integration)
        }
        CallbackOutcome::Tested {
            integration,
            result,
        } => {
            let message = match result.verdict() {
                Verdict::Good => "Test sign-in: all is well. Nothing was stored.",
                Verdict::Warning => {
                    "Test sign-in: it works, with something to improve. Nothing was stored."
                }
                Verdict::Bad => "Test sign-in: something has to be mended. Nothing was stored.",
            };
            Ok(me.done(&addresses::integration(integration.id), message))
        }
        CallbackOutcome::Failed {
            failure,
            back,
            integration,
        } => failed(me, &failure, &back, &integration),
    }
}

/// Back to the app; with a page in between if the provider gave less than was asked for.
fn connected(
    me: &SignedIn,
    back: &ReturnPath,
    integration: &Integration,
    lasts: bool,
    missing_scopes: &[String],
) -> Result<HttpResponse, WebError> {
    let names = providers::names(integration);
    if !missing_scopes.is_empty() {
        return problem(
            me,
            StatusCode::OK,
            "Connected, with less than was asked for",
            vec![format!(
                "{} did not give: {}. Some parts of the app may not work.",
                names.provider,
                missing_scopes.join(", ")
            )],
            vec![
                NavLink::new(back.as_str(), "Continue"),
                NavLink::new(addresses::reconnect(integration.id), "Review permissions"),
            ],
        );
    }
    if !lasts && providers::asks_for_refresh_token(integration) {
        return problem(
            me,
            StatusCode::OK,
            "Connected for about an hour",
            vec![
                format!("{} gave no lasting permission (no refresh token), so you are asked again when this one ends.", names.provider),
                "The administrator of this portal can mend that: the scope offline_access, or the provider's equivalent, must be allowed.".into(),
            ],
            vec![NavLink::new(back.as_str(), "Continue")],
        );
    }
    if *back == ReturnPath::consents() {
        me.visitor
            .flash(format!("Connected {}.", integration.display_name()));
    }
    Ok(see_other(back.as_str()))
}

/// The integration requires the viewer's own account. `again` is the link for another try.
fn not_your_account(
    me: &SignedIn,
    account: Option<String>,
    integration: &Integration,
    again: String,
) -> Result<HttpResponse, WebError> {
    let names = providers::names(integration);
    let person = &me.actor.person;
    let own = match &person.organisation_label {
        Some(label) => label,
        None => person.login_hint(),
    };
    let line = match account {
        Some(account) => format!(
            "You signed in to {} as {account}. This integration takes only your own account, {own}.",
            names.provider
        ),
        None => format!(
            "{} does not say which account you signed in with. This integration takes only your own account, {own}.",
            names.provider
        ),
    };
    problem(
        me,
        StatusCode::FORBIDDEN,
        "That is not your account",
        vec![
            line,
            "Nothing was stored. If your address here is wrong, an administrator can correct it."
                .into(),
        ],
        vec![
            NavLink::new(again, "Choose another account"),
            NavLink::new("/content", "Back to Content"),
        ],
    )
}

/// The viewer is connected with the account `before`; the provider answered for `now`.
fn account_changed(
    me: &SignedIn,
    integration: &Integration,
    connection: Id<Connection>,
    before: Option<String>,
    now: Option<String>,
) -> Result<HttpResponse, WebError> {
    let words = |label: Option<String>| label.unwrap_or_else(|| "an account without a name".into());
    problem(
        me,
        StatusCode::CONFLICT,
        "You are connected with another account",
        vec![
            format!(
                "{} answered for {}. Your connection here belongs to {}, so nothing was stored.",
                providers::names(integration).provider,
                words(now),
                words(before)
            ),
            "Connect again with the account you had, or disconnect first and then connect with the new one.".into(),
        ],
        vec![
            NavLink::new(addresses::disconnect(connection), "Disconnect"),
            NavLink::new("/consents", "Go to Consents"),
        ],
    )
}

/// The viewer refused at the provider: nothing went wrong, so the page shows no reference.
fn declined(
    me: &SignedIn,
    back: &ReturnPath,
    integration: &Integration,
) -> Result<HttpResponse, WebError> {
    let title = "You chose not to connect";
    page_with(
        StatusCode::OK,
        &ProblemPage {
            chrome: me.visitor.chrome("consents", title),
            lines: vec![format!(
                "The app cannot show your data from {} until you do. Nothing was stored.",
                providers::names(integration).service
            )],
            copy: None,
            links: retry(back),
            reference: String::new(),
        },
    )
}

/// An administrator of the organisation must approve at the provider; offers a text to send them.
fn needs_approval(
    me: &SignedIn,
    back: &ReturnPath,
    integration: &Integration,
) -> Result<HttpResponse, WebError> {
    let names = providers::names(integration);
    let text = format!(
        "Please approve the application {} for {} {}.\nI need it for {} through {}.",
        integration.setting("client_id"),
        names.service,
        providers::template(&integration.template).map_or("", |template| template.approval),
        names.service,
        me.service().core.addresses.base(),
    );
    page_with(
        StatusCode::OK,
        &ProblemPage {
            chrome: me
                .visitor
                .chrome("consents", "Your organisation must approve this app"),
            lines: vec![format!(
                "{} lets an administrator of your organisation decide. Send them this request, then try again.",
                names.provider
            )],
            copy: Some(text),
            links: retry(back),
            reference: me.visitor.origin.correlation.clone(),
        },
    )
}

fn retry(back: &ReturnPath) -> Vec<NavLink> {
    vec![
        NavLink::new(back.as_str(), "Try again"),
        NavLink::new("/content", "Back to Content"),
    ]
}

/// The provider returned no tokens: says who can repair it, and how. Only administrators see the
/// reason of a misconfigured integration.
pub fn failed(
    me: &SignedIn,
    failure: &Failure,
    back: &ReturnPath,
    integration: &Integration,
) -> Result<HttpResponse, WebError> {
    let names = providers::names(integration);
    let code = failure
        .aadsts
        .map(|code| format!(" (AADSTS{code})"))
        .unwrap_or_default();
    match failure.class {
        FailureClass::Temporary { .. } | FailureClass::Unknown => problem(
            me,
            StatusCode::BAD_GATEWAY,
            &format!("{} is not answering", names.provider),
            vec![format!(
                "{}{code} Nothing was stored. Try again in a minute.",
                failure.sentence
            )],
            retry(back),
        ),
        FailureClass::Viewer(_) => problem(
            me,
            StatusCode::OK,
            &format!("{} did not accept the sign-in", names.provider),
            vec![
                format!("{}{code}", failure.sentence),
                "Start again. If it stays like this, send the reference to your administrator."
                    .into(),
            ],
            retry(back),
        ),
        FailureClass::Administrator => {
            let mut lines = vec!["This integration is misconfigured. You cannot mend it; the administrator of this portal sees the reason under Integrations.".to_owned()];
            if crate::domain::access::may_manage_integrations(me.actor.role) {
                lines.push(format!("{}{code}", failure.sentence));
            }
            problem(
                me,
                StatusCode::BAD_GATEWAY,
                "An administrator must repair this",
                lines,
                vec![
                    NavLink::new("/content", "Back to Content"),
                    NavLink::new(back.as_str(), "Try again"),
                ],
            )
        }
    }
}

/// The response does not belong to an attempt of this session, or the attempt is no longer valid.
fn mismatch(
    me: &SignedIn,
    why: Mismatch,
    back: Option<&ReturnPath>,
) -> Result<HttpResponse, WebError> {
    let again = back.map_or_else(
        || NavLink::new("/content", "Go to Content"),
        |path| NavLink::new(path.as_str(), "Open the app"),
    );
    let (title, line) = match why {
        Mismatch::Used => (
            "This sign-in link was already used",
            "Each link works once. Open the app to start again.",
        ),
        Mismatch::Expired => (
            "This sign-in took too long",
            "Ten minutes have passed since it began. Open the app to start again.",
        ),
        Mismatch::Superseded => (
            "The integration was changed meanwhile",
            "An administrator changed it while you were signing in. Open the app to start again.",
        ),
        Mismatch::OtherIssuer => (
            "Another provider answered",
            "The answer does not come from the provider that was asked, so nothing was stored. Open the app to start again; if it stays like this, tell your administrator.",
        ),
        Mismatch::Unknown | Mismatch::OtherSession | Mismatch::WrongCallback => (
            "This sign-in does not belong to your session",
            "It could not be matched to what you started here, so nothing was stored. Open the app to start again.",
        ),
    };
    problem(
        me,
        StatusCode::BAD_REQUEST,
        title,
        vec![line.into()],
        vec![again],
    )
}

/// A page of `lines` and `links` with the reference of this request.
fn problem(
    me: &SignedIn,
    status: StatusCode,
    title: &str,
    lines: Vec<String>,
    links: Vec<NavLink>,
) -> Result<HttpResponse, WebError> {
    page_with(
        status,
        &ProblemPage {
            chrome: me.visitor.chrome("consents", title),
            lines,
            copy: None,
            links,
            reference: me.visitor.origin.correlation.clone(),
        },
    )
}
