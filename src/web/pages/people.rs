//! People, for administrators: `/people` and below. Roles, passwords, one-time links, locking,
//! ending sessions and connections. Every change needs confirmation ([`Confirmed`]).

use crate::{
    domain::{
        access, addresses,
        connection::{Connection, State},
        form::FieldError,
        integration::Integration,
        person::{Person, Role},
    },
    http::{errors::WebError, redirect::see_other},
    service::{Error, grants::revocations::Owner, people::accounts::PersonInput},
    web::{
        confirmation::Confirmed,
        forms::{Choice, Field, FieldKind, FormValues, refill},
        pages::{
            ConfirmPage, FormPage,
            account::{SessionRow, session_rows},
            form_status, id, page, page_with, problems_of,
        },
        shown_once::{self, SecretToShow},
        view::{Chrome, Moment, NavLink, Status, count_noun},
        visitor::SignedIn,
    },
};
use actix_web::{HttpResponse, web};
use askama::Template;
use secrecy::ExposeSecret as _;
use serde::Deserialize;

struct Row {
    href: String,
    name: String,
    detail: String,
    role: &'static str,
    state: Status,
    seen: Option<Moment>,
}

#[derive(Template)]
#[template(path = "pages/people.html")]
struct ListPage {
    chrome: Chrome,
    rows: Vec<Row>,
}

fn must_manage(me: &SignedIn) -> Result<(), WebError> {
    if access::may_manage_people(me.actor.role) {
        Ok(())
    } else {
        Err(Error::Forbidden("Only administrators manage people.").into())
    }
}

/// `GET /people`.
pub async fn list(me: SignedIn) -> Result<HttpResponse, WebError> {
    must_manage(&me)?;
    let now = me.service().core.now();
    let rows = me
        .service()
        .people
        .people(&me.actor)
        .await?
        .into_iter()
        .map(|person| Row {
            href: addresses::person(person.id),
            name: person.display_name(),
            detail: if person.email.is_empty() {
                person.username.clone()
            } else {
                format!("{} · {}", person.username, person.email)
            },
            role: person.role.label(),
            state: if person.locked {
                Status::negative("Locked")
            } else {
                Status::positive("Active")
            },
            seen: person.active_at.map(|at| Moment::new(at, now)),
        })
        .collect();
    page(&ListPage {
        chrome: me.visitor.chrome("people", "People"),
        rows,
    })
}

fn fields() -> Vec<Field> {
    vec![
        Field::text("username", "User name"),
        Field::new(FieldKind::Email, "email", "E-mail address")
            .hint("As the identity provider knows this person: sign-ins with another account are noticed."),
        Field::text("first_name", "First name"),
        Field::text("last_name", "Last name"),
        Field::new(FieldKind::Radio, "role", "Role").value("viewer").options(vec![
            Choice::new("viewer", "Viewer", "Opens content and decides about own consents."),
            Choice::new("publisher", "Publisher", "Also adds content and picks integrations."),
            Choice::new("administrator", "Administrator", "Also manages integrations and people, and reads the record."),
        ]),
    ]
}

fn password_field() -> Field {
    Field::new(FieldKind::Secret, "password", "Password")
        .hint("At least 8 characters. The person can change it under Account.")
        .autocomplete("new-password")
}

/// The posted fields, without a password. The error names the role if it is missing.
fn input(typed: &FormValues) -> Result<PersonInput, Error> {
    let text = |name: &str| Some(typed.text(name).to_owned());
    let role = Role::parse(typed.text("role"))
        .ok_or_else(|| crate::service::invalid("role", "Choose a role."))?;
    Ok(PersonInput {
        username: text("username"),
        email: text("email"),
        first_name: text("first_name"),
        last_name: text("last_name"),
        role: Some(role),
        password: None,
    })
}

/// Field errors; an error without a field (a name that is taken) goes to the user name.
fn problems(error: Error) -> Result<Vec<FieldError>, WebError> {
    let found = problems_of(error)?;
    Ok(found
        .into_iter()
        .map(|problem| {
            if problem.key.is_empty() {
                FieldError::new("username", problem.message)
            } else {
                problem
            }
        })
        .collect())
}

fn draw_new(
    me: &SignedIn,
    typed: Option<&FormValues>,
    errors: Vec<FieldError>,
) -> Result<HttpResponse, WebError> {
    let mut fields = fields();
    fields.push(password_field().hint("At least 8 characters. Leave it empty to get a one-time link by which the person chooses one."));
    refill(&mut fields, typed, &errors);
    page_with(
        form_status(&errors),
        &FormPage {
            chrome: me.visitor.chrome("people", "Add person"),
            intro: String::new(),
            errors,
            fields,
            action: "/people/new".into(),
            submit: "Add person".into(),
            cancel: "/people".into(),
        },
    )
}

/// `GET /people/new`.
pub async fn new_page(me: SignedIn) -> Result<HttpResponse, WebError> {
    must_manage(&me)?;
    draw_new(&me, None, Vec::new())
}

/// `POST /people/new`. Without a password, redirects to a page that shows a one-time link.
pub async fn create(me: SignedIn, Confirmed(typed): Confirmed) -> Result<HttpResponse, WebError> {
    must_manage(&me)?;
    let password =
        Some(typed.password("password")).filter(|password| !password.expose_secret().is_empty());
    let invited = password.is_none();
    let created = match input(&typed) {
        Ok(input) => {
            me.service()
                .people
                .create_person(&me.actor, PersonInput { password, ..input })
                .await
        }
        Err(error) => Err(error),
    };
    match created {
        Ok(person) if invited => show_link(&me, &person).await,
        Ok(person) => Ok(me.done("/people", format!("Added {}.", person.display_name()))),
        Err(error) => draw_new(&me, Some(&typed), problems(error)?),
    }
}

/// Creates a one-time link for a person and redirects to the page that shows it once.
async fn show_link(me: &SignedIn, person: &Person) -> Result<HttpResponse, WebError> {
    let (person, token) = me
        .service()
        .invitations
        .invite(&me.actor, person.id)
        .await?;
    let address = me
        .service()
        .core
        .addresses
        .absolute(&format!("/setup/{}", token.expose_secret()));
    let shown = SecretToShow {
        title: format!("One-time link for {}", person.display_name()),
        intro:
            "Send it to the person by a way that only they read. It works once, for three days: they choose a password and are signed in."
                .into(),
        label: "Link".into(),
        secret: address.into(),
        environment: String::new(),
        done: addresses::person(person.id),
    };
    Ok(see_other(
        &shown_once::store(me.service(), me.actor.person.id, shown).await?,
    ))
}

#[derive(Template)]
#[template(path = "pages/person.html")]
struct PersonPage {
    chrome: Chrome,
    errors: Vec<FieldError>,
    base: String,
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
    let now = me.service().core.now();
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
            state: match connection.state {
                State::Active => Status::positive("Connected"),
                State::NeedsLogin(_) => Status::warning("Needs them again"),
                State::Unconfirmed => Status::warning("Account not confirmed"),
            },
            since: Moment::new(connection.connected_at, now),
            disconnect: format!(
                "{}/disconnect?connection={}",
                addresses::person(person.id),
                connection.id
            ),
        })
        .collect())
}

async fn draw(
    me: &SignedIn,
    person: &Person,
    typed: Option<&FormValues>,
    errors: Vec<FieldError>,
) -> Result<HttpResponse, WebError> {
    let mut fields = fields();
    let stored = FormValues(vec![
        ("username".into(), person.username.clone()),
        ("email".into(), person.email.clone()),
        ("first_name".into(), person.first_name.clone()),
        ("last_name".into(), person.last_name.clone()),
        ("role".into(), person.role.as_str().into()),
    ]);
    refill(&mut fields, Some(typed.unwrap_or(&stored)), &errors);
    let mut password_fields = vec![password_field()];
    refill(&mut password_fields, None, &errors);
    page_with(
        form_status(&errors),
        &PersonPage {
            chrome: me.visitor.chrome("people", &person.display_name()),
            base: addresses::person(person.id),
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
    must_manage(&me)?;
    let person = me.service().people.person(&me.actor, id(&path)?).await?;
    draw(&me, &person, None, Vec::new()).await
}

/// `POST /people/{guid}`.
pub async fn save(
    me: SignedIn,
    path: web::Path<String>,
    Confirmed(typed): Confirmed,
) -> Result<HttpResponse, WebError> {
    must_manage(&me)?;
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
        Err(error) => draw(&me, &person, Some(&typed), problems(error)?).await,
    }
}

/// `POST /people/{guid}/password`.
pub async fn set_password(
    me: SignedIn,
    path: web::Path<String>,
    Confirmed(typed): Confirmed,
) -> Result<HttpResponse, WebError> {
    must_manage(&me)?;
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

/// The query of the disconnect page.
#[derive(Deserialize)]
pub struct Only {
    /// Id of the only connection to end; all of them if absent.
    connection: Option<String>,
}

/// The connection with this id, if it is the person's; 404 otherwise. `None` if none was named.
async fn only(
    me: &SignedIn,
    person: &Person,
    named: Option<&str>,
) -> Result<Option<(Connection, Integration)>, WebError> {
    let Some(named) = named.filter(|named| !named.is_empty()) else {
        return Ok(None);
    };
    let wanted = id(named)?;
    let all = me
        .service()
        .revocations
        .connections_of(&me.actor, person.id)
        .await?;
    let found = all
        .into_iter()
        .find(|(connection, _)| connection.id == wanted);
    found.map(Some).ok_or_else(|| Error::NotFound.into())
}

/// `GET /people/{guid}/disconnect`.
pub async fn disconnect_page(
    me: SignedIn,
    path: web::Path<String>,
    query: web::Query<Only>,
) -> Result<HttpResponse, WebError> {
    must_manage(&me)?;
    let person = me.service().people.person(&me.actor, id(&path)?).await?;
    let only = only(&me, &person, query.connection.as_deref()).await?;
    let base = addresses::person(person.id);
    let from = only.as_ref().map_or("every service", |(_, integration)| {
        integration.display_name()
    });
    let mut fields = vec![crate::web::pages::integrations::reason_field()];
    if let Some((connection, _)) = &only {
        fields
            .push(Field::new(FieldKind::Hidden, "connection", "").value(connection.id.to_string()));
    }
    page(&ConfirmPage {
        chrome: me.visitor.chrome(
            "people",
            &format!("Disconnect {} from {from}?", person.display_name()),
        ),
        errors: Vec::new(),
        groups: vec![crate::web::pages::integrations::what_disconnecting_does()],
        link: None,
        action: format!("{base}/disconnect"),
        fields,
        submit: format!("Disconnect {}", person.display_name()),
        cancel: base,
    })
}

/// `POST /people/{guid}/disconnect`: ends one or all connections of a person.
pub async fn disconnect(
    me: SignedIn,
    path: web::Path<String>,
    Confirmed(typed): Confirmed,
) -> Result<HttpResponse, WebError> {
    must_manage(&me)?;
    let person = me.service().people.person(&me.actor, id(&path)?).await?;
    let whose = match only(&me, &person, typed.get("connection")).await? {
        Some((connection, _)) => Owner::One(connection.id),
        None => Owner::Person(person.id),
    };
    let ended = me
        .service()
        .revocations
        .disconnect_all(&me.actor, whose, typed.text("reason"))
        .await?;
    let message = format!(
        "Ended {} of {}.",
        count_noun(
            i64::try_from(ended).unwrap_or(0),
            "connection",
            "connections"
        ),
        person.display_name()
    );
    Ok(me.done(&addresses::person(person.id), message))
}

/// `POST /people/{guid}/lock`: locks (`locked=yes`) or unlocks.
pub async fn lock(
    me: SignedIn,
    path: web::Path<String>,
    Confirmed(typed): Confirmed,
) -> Result<HttpResponse, WebError> {
    must_manage(&me)?;
    let person = me.service().people.person(&me.actor, id(&path)?).await?;
    let locked = typed.text("locked") == "yes";
    me.service()
        .people
        .set_locked(&me.actor, person.id, locked)
        .await?;
    let message = if locked { "Locked" } else { "Unlocked" };
    Ok(me.done(
        &addresses::person(person.id),
        format!("{message} {}.", person.display_name()),
    ))
}

/// `POST /people/{guid}/invite`: a new one-time link.
pub async fn invite(
    me: SignedIn,
    path: web::Path<String>,
    _: Confirmed,
) -> Result<HttpResponse, WebError> {
    must_manage(&me)?;
    let person = me.service().people.person(&me.actor, id(&path)?).await?;
    show_link(&me, &person).await
}

/// `POST /people/{guid}/sessions/end`: ends one browser session, or all.
pub async fn end_sessions(
    me: SignedIn,
    path: web::Path<String>,
    Confirmed(typed): Confirmed,
) -> Result<HttpResponse, WebError> {
    must_manage(&me)?;
    let person = me.service().people.person(&me.actor, id(&path)?).await?;
    let only = typed.non_empty("session").map(id).transpose()?;
    me.service()
        .sessions
        .end_sessions(&me.actor, person.id, only)
        .await?;
    let what = if only.is_some() {
        "from that browser"
    } else {
        "everywhere"
    };
    Ok(me.done(
        &addresses::person(person.id),
        format!("Signed {} out {what}.", person.display_name()),
    ))
}
