//! `/people/{guid}`: one person; saves their fields and sets a password.

use crate::{
    domain::{addresses, form::FieldError, person::Person},
    http::errors::WebError,
    service::{Error, core::must_manage_people},
    web::{
        confirmation::Confirmed,
        forms::{Field, FormValues, refill},
        pages::{
            account::overview::{SessionRow, session_rows},
            form_status, id,
            integrations::connected::state,
            page_with,
            people::{
                form::{fields, input, password_field, problems},
                list::state_of,
            },
            versions::{differences, version},
        },
        view::{Chrome, Moment, NavLink, Status},
        visitor::SignedIn,
    },
};
use actix_web::{HttpResponse, web};
use askama::Template;

#[derive(Template)]
#[template(path = "pages/people/show.html")]
struct PersonPage {
    chrome: Chrome,
    errors: Vec<FieldError>,
    base: String,
    /// What stands beside the name: the state, and its details.
    state: Status,
    about: String,
    version: String,
    fields: Vec<Field>,
    password_fields: Vec<Field>,
    sessions: Vec<SessionRow>,
    groups: Vec<NavLink>,
    connections: Vec<ConnectionRow>,
    own: bool,
    locked: bool,
}

/// A person's connection, with what an administrator may see of it.
struct ConnectionRow {
    name: String,
    account: String,
    state: Status,
    since: Moment,
    disconnect: String,
}

async fn connection_rows(me: &SignedIn, person: &Person) -> Result<Vec<ConnectionRow>, WebError> {
    let now = me.now();
    let all = me
        .service()
        .revocations
        .connections_of(&me.actor, person.id)
        .await?;
    Ok(all
        .into_iter()
        .map(|(connection, integration)| ConnectionRow {
            name: integration.display_name().to_owned(),
            account: connection.account.label.clone().unwrap_or_default(),
            state: state(&connection).1,
            since: Moment::new(connection.connected_at, now),
            disconnect: format!(
                "{}/disconnect?connection={}",
                addresses::person(person.id),
                connection.id
            ),
        })
        .collect())
}

/// What the fields show before anything is typed.
fn stored_values(person: &Person) -> FormValues {
    FormValues(vec![
        ("username".into(), person.username.clone()),
        ("email".into(), person.email.clone()),
        ("first_name".into(), person.first_name.clone()),
        ("last_name".into(), person.last_name.clone()),
        ("role".into(), person.role.as_str().into()),
    ])
}

async fn draw(
    me: &SignedIn,
    person: &Person,
    typed: Option<&FormValues>,
    errors: Vec<FieldError>,
) -> Result<HttpResponse, WebError> {
    let now = me.now();
    let mut fields = fields();
    let stored = stored_values(person);
    let link = me
        .service()
        .invitations
        .link_of(&me.actor, person.id)
        .await?;
    let (_, state) = state_of(person, link, *now);
    let about = match (link, person.active_at) {
        (Some(end), _) if end > *now => {
            format!("The one-time link works until {}.", now.absolute(end))
        }
        (Some(end), None) => format!("The one-time link ended on {}.", now.date(end)),
        (_, Some(at)) => format!("Last signed in {}.", at.relative(*now)),
        (None, None) => String::new(),
    };
    refill(&mut fields, Some(typed.unwrap_or(&stored)), &errors);
    let mut password_fields = vec![password_field()];
    refill(&mut password_fields, None, &errors);
    page_with(
        form_status(&errors),
        &PersonPage {
            chrome: me.visitor.chrome("people", &person.display_name()),
            base: addresses::person(person.id),
            state,
            about,
            version: version(typed, person.updated_at),
            fields,
            password_fields,
            sessions: session_rows(me, person.id).await?,
            groups: me
                .service()
                .groups
                .groups_of(&me.actor, person.id)
                .await?
                .into_iter()
                .map(|(group, by_claim)| {
                    let label = if by_claim {
                        format!("{} (set by the sign-in)", group.name)
                    } else {
                        group.name
                    };
                    NavLink::new(addresses::group(group.id), label)
                })
                .collect(),
            connections: connection_rows(me, person).await?,
            own: person.id == me.actor.person.id,
            locked: person.locked,
            errors,
        },
    )
}

/// `GET /people/{guid}`.
pub async fn detail(me: SignedIn, path: web::Path<String>) -> Result<HttpResponse, WebError> {
    must_manage_people(&me.actor)?;
    let person = me.service().people.person(&me.actor, id(&path)?).await?;
    draw(&me, &person, None, Vec::new()).await
}

/// `POST /people/{guid}`.
pub async fn save(
    me: SignedIn,
    path: web::Path<String>,
    Confirmed(mut typed): Confirmed,
) -> Result<HttpResponse, WebError> {
    must_manage_people(&me.actor)?;
    let person = me.service().people.person(&me.actor, id(&path)?).await?;
    let saved = match input(&typed) {
        Ok(input) => {
            me.service()
                .people
                .update_person(&me.actor, person.id, input)
                .await
        }
        Err(error) => Err(error),
    };
    match saved {
        Ok(after) => {
            if after.id == me.actor.person.id && after.role != person.role {
                // A change of one's own role also renews this session's key.
                me.visitor.session.renew();
            }
            Ok(me.done(
                &addresses::person(after.id),
                format!("Saved {}.", after.display_name()),
            ))
        }
        Err(changed @ Error::ChangedMeanwhile(_)) => {
            let now = me.service().people.person(&me.actor, person.id).await?;
            let problem = differences(&changed, &stored_values(&now), &mut typed);
            draw(&me, &now, Some(&typed), vec![problem]).await
        }
        Err(error) => draw(&me, &person, Some(&typed), problems(error)?).await,
    }
}

/// `POST /people/{guid}/password`.
pub async fn set_password(
    me: SignedIn,
    path: web::Path<String>,
    Confirmed(typed): Confirmed,
) -> Result<HttpResponse, WebError> {
    must_manage_people(&me.actor)?;
    let person = me.service().people.person(&me.actor, id(&path)?).await?;
    match me
        .service()
        .passwords
        .reset_password(&me.actor, person.id, typed.password("password"))
        .await
    {
        Ok(()) => Ok(me.done(
            &addresses::person(person.id),
            format!("Set a new password for {}.", person.display_name()),
        )),
        Err(error) => draw(&me, &person, None, problems(error)?).await,
    }
}
