//! Re-authentication before secrets, keys, roles and addresses change (ASVS 7.5.3): the person must
//! have entered their password, or signed in again at the organisation's provider, within the last
//! 15 minutes. A fresh sign-in counts.
//!
//! [`Confirmed`] replaces [`Posted`] for such forms. If confirmation is missing, it answers with a
//! page that asks for the password and carries the posted values along, so that no typing is lost.

use crate::{
    domain::{Timestamp, addresses, form::FieldError, return_path::ReturnPath},
    http::{errors::WebError, sessions::CONFIRMED_AT},
    service::Error,
    web::{
        forms::{Field, FieldKind, FormValues, refill},
        pages::{ConfirmIdentityPage, form_status},
        visitor::{Posted, SignedIn, Visitor},
    },
};
use actix_web::{FromRequest, HttpRequest, dev::Payload, http::header};
use askama::Template as _;
use futures_util::future::LocalBoxFuture;
use std::time::Duration;

/// How long a confirmation allows a change.
const CONFIRMED_FOR_CHANGES: Duration = Duration::from_secs(15 * 60);
/// How old a confirmation may be when a form opens. Shorter than [`CONFIRMED_FOR_CHANGES`], so that
/// it is still valid when the form is posted.
const CONFIRMED_FOR_FORMS: Duration = Duration::from_secs(10 * 60);
/// Secret form fields: a page never repeats their values, so the confirmation page asks for them
/// again, with these labels.
const SECRET_FIELDS: [(&str, &str); 5] = [
    ("value", "Value of the variable, once more"),
    ("client_secret", "Client secret, once more"),
    ("password", "Password for the person, once more"),
    ("old_password", "Current password, once more"),
    ("new_password", "New password, once more"),
];

impl Visitor {
    /// Whether the session was confirmed less than `window` ago; `false` for a time in the future.
    fn confirmed_within(&self, window: Duration) -> bool {
        let at = self
            .session
            .get::<String>(CONFIRMED_AT)
            .ok()
            .flatten()
            .and_then(|text| text.parse().ok());
        let now = self.service.core.now();
        at.map(Timestamp)
            .is_some_and(|at| now >= at && now.since(at) < window)
    }

    /// For pages with a form that needs confirmation: redirects to `/account/confirm`, and from
    /// there back to this page, if the confirmation is too old.
    pub fn require_confirmation(&self, request: &HttpRequest) -> Result<(), WebError> {
        if self.confirmed_within(CONFIRMED_FOR_FORMS) {
            return Ok(());
        }
        let path = request
            .uri()
            .path_and_query()
            .map_or("/", |path| path.as_str());
        Err(WebError::Redirect(format!(
            "/account/confirm?next={}",
            addresses::query(path)
        )))
    }
}

impl SignedIn {
    /// Checks the posted `confirm_password` and notes the confirmation. `Some` is the error to show
    /// at the field; `Err` is a failure of the service, such as too many tries.
    pub async fn confirm(&self, typed: &FormValues) -> Result<Option<FieldError>, WebError> {
        let wrong = |message: &str| Ok(Some(FieldError::new("confirm_password", message)));
        let Some(given) = typed
            .get("confirm_password")
            .filter(|given| !given.is_empty())
        else {
            return wrong("Enter your password.");
        };
        if !self
            .service()
            .passwords
            .confirm_password(&self.actor, given.into())
            .await?
        {
            return wrong("This is not your password. Check it and try again.");
        }
        self.visitor.note_confirmed()?;
        Ok(None)
    }

    /// The confirmation page. People with a password get a form that posts to `action`, with the
    /// values of `typed` as hidden fields; people without one get a link to sign in again at their
    /// organisation, which returns to `next`.
    pub async fn confirm_page(
        &self,
        action: &str,
        next: &str,
        typed: Option<&FormValues>,
        errors: Vec<FieldError>,
    ) -> Result<ConfirmIdentityPage, WebError> {
        let has_password = self
            .service()
            .passwords
            .has_password(self.actor.person.id)
            .await?;
        let mut fields = Vec::new();
        for (name, value) in typed.map_or(&[][..], |typed| &typed.0) {
            match SECRET_FIELDS.iter().find(|(secret, _)| secret == name) {
                Some((_, label)) if !value.is_empty() => {
                    fields.push(Field::new(FieldKind::Secret, name, label))
                }
                Some(_) => {}
                None if name == "csrf" || name == "confirm_password" => {}
                None => fields.push(Field::new(FieldKind::Hidden, name, "").value(value)),
            }
        }
        let mut own = vec![
            Field::new(FieldKind::Secret, "confirm_password", "Your password")
                .autocomplete("current-password"),
        ];
        refill(&mut own, None, &errors);
        if has_password {
            fields.extend(own);
        }
        Ok(ConfirmIdentityPage {
            chrome: self.visitor.chrome("", "Confirm that it is you"),
            errors,
            who: self.actor.person.display_name(),
            has_password,
            organisation: self
                .service()
                .core
                .settings
                .sign_in
                .as_ref()
                .map(|sign_in| sign_in.name.clone()),
            again: format!(
                "/login/organisation?again=yes&next={}",
                addresses::query(next)
            ),
            action: action.to_owned(),
            fields,
        })
    }
}

/// A posted form, like [`Posted`], from a person who confirmed their identity within 15 minutes.
/// Other people get the confirmation page, which posts the same values again.
pub struct Confirmed(pub FormValues);

impl Confirmed {
    async fn of(request: HttpRequest, mut payload: Payload) -> Result<Self, WebError> {
        let me = SignedIn::from_request(&request, &mut Payload::None).await?;
        let Posted(typed) = Posted::from_request(&request, &mut payload).await?;
        Self::check(&me, &request, typed).await
    }

    /// The check itself, for forms where only some changes need confirmation. Without one it
    /// returns the drawn confirmation page as [`WebError::Rendered`]: 403, or 422 after a wrong
    /// password.
    pub async fn check(
        me: &SignedIn,
        request: &HttpRequest,
        typed: FormValues,
    ) -> Result<Self, WebError> {
        if me.visitor.confirmed_within(CONFIRMED_FOR_CHANGES) {
            return Ok(Self(typed));
        }
        let mut errors = Vec::new();
        if typed.get("confirm_password").is_some() {
            match me.confirm(&typed).await? {
                None => return Ok(Self(typed)),
                Some(problem) => errors.push(problem),
            }
        }
        let from = request
            .headers()
            .get(header::REFERER)
            .and_then(|value| url::Url::parse(value.to_str().ok()?).ok());
        let next = from
            .and_then(|url| ReturnPath::parse(url.path()))
            .map_or_else(|| "/content".to_owned(), |path| path.as_str().to_owned());
        let status = form_status(&errors);
        let page = me
            .confirm_page(request.path(), &next, Some(&typed), errors)
            .await?;
        let html = page
            .render()
            .map_err(|_| Error::Internal("a template failed"))?;
        Err(WebError::Rendered(
            if status.is_success() {
                actix_web::http::StatusCode::FORBIDDEN
            } else {
                status
            },
            html,
        ))
    }
}

impl FromRequest for Confirmed {
    type Error = WebError;
    type Future = LocalBoxFuture<'static, Result<Self, WebError>>;
    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        Box::pin(Self::of(request.clone(), payload.take()))
    }
}
