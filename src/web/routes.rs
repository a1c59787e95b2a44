//! Every route of the portal. [`hot`] is registered first: actix tries patterns in order and each
//! costs microseconds, so proxied requests and exchanges must not wait behind a hundred pages.

use crate::{
    domain::origins::Origins,
    http::{
        assets,
        host::{is_content, is_content_by_key},
    },
    web::{
        api,
        pages::{
            access, account, audit, callback, choices, consents, content, enter, groups, help,
            integrations, notifications, organisation, people, sign_in,
        },
        visitor::CHOICES,
    },
};
use actix_web::{
    Route, guard,
    web::{self, ServiceConfig, delete, get, patch, post, put},
};

/// The two hot paths: proxied content and the token exchange. Content is recognized by its host; by
/// its path only where it shares the portal's origin. `content` is the route of the proxy, which
/// this module does not know.
pub fn hot(config: &mut ServiceConfig, origins: &Origins, content: Route) {
    let origins = origins.clone();
    let is_content = move |context: &guard::GuardContext<'_>| {
        let head = context.head();
        is_content(head, &origins) || is_content_by_key(head, &origins)
    };
    config
        .service(
            web::scope("")
                .guard(guard::fn_guard(is_content))
                .default_service(content),
        )
        .route(
            "/__api__/v1/oauth/integrations/credentials",
            post().to(api::exchange::exchange),
        );
}

/// Pages and the OAuth flow: every route with a browser session.
pub fn pages(config: &mut ServiceConfig) {
    config
        .configure(sign_in_pages)
        .configure(content_pages)
        .configure(integration_pages)
        .configure(consent_pages)
        .configure(people_pages)
        .configure(audit_and_help_pages)
        .configure(account_pages)
        // Must follow `/content/new`, which it would match.
        .route(
            "/content/{rest:.*}",
            web::route().to(enter::redirect_to_content),
        )
        .route("/enter/{guid}", get().to(enter::enter));
}

/// Home, signing in and out, invitations, and old dashboard links of Connect's clients.
fn sign_in_pages(config: &mut ServiceConfig) {
    config
        .route("/", get().to(sign_in::home))
        .route("/login", get().to(sign_in::login_page))
        .route("/login", post().to(sign_in::login))
        .route("/login/organisation", get().to(organisation::start))
        .route(
            "/login/organisation/callback",
            get().to(organisation::callback),
        )
        .route("/login/organisation/link", post().to(organisation::link))
        .route("/__login__", get().to(sign_in::login_page))
        .route("/logout", post().to(sign_in::logout))
        .route("/setup/{token}", get().to(sign_in::setup_page))
        .route("/setup/{token}", post().to(sign_in::setup))
        .route("/connect", get().to(sign_in::old_links))
        .route("/connect/{rest:.*}", get().to(sign_in::old_links));
}

/// The list of content and the pages of one item.
fn content_pages(config: &mut ServiceConfig) {
    config
        .route("/content", get().to(content::list::list))
        .route("/content/", get().to(content::list::list))
        .route("/access/{guid}", get().to(access::request_page))
        .route("/access/{guid}", post().to(access::request))
        .route("/content/bulk", get().to(content::bulk::bulk_page))
        .route("/content/bulk", post().to(content::bulk::bulk))
        .route("/content/new", get().to(content::new::new_page))
        .route("/content/new", post().to(content::new::create))
        .route("/content/upload", post().to(content::upload::create))
        .route(
            "/content-settings/{guid}",
            get().to(content::settings::settings_page),
        )
        .route(
            "/content-settings/{guid}",
            post().to(content::settings::save_settings),
        )
        .route(
            "/content-settings/{guid}/mended",
            post().to(content::leaks::clear_leaks),
        )
        .route(
            "/content-settings/{guid}/processes/{position}/drain",
            post().to(content::processes::drain),
        )
        .route(
            "/content-settings/{guid}/integration",
            post().to(content::integration::save_integration),
        )
        .route(
            "/content-settings/{guid}/beside-viewers",
            post().to(content::integration::beside_viewers),
        )
        .route(
            "/content-settings/{guid}/key",
            post().to(content::key::make_key),
        )
        .route(
            "/content-settings/{guid}/requests/{person}",
            post().to(content::people::answer_request),
        )
        .route(
            "/content-settings/{guid}/people",
            post().to(content::people::permit),
        )
        .route(
            "/content-settings/{guid}/people/{number}/remove",
            post().to(content::people::unpermit),
        )
        .route(
            "/content-settings/{guid}/consents",
            get().to(content::consents::list),
        )
        .route(
            "/content-settings/{guid}/consents",
            post().to(content::consents::end_chosen),
        )
        .route(
            "/content-settings/{guid}/activity",
            get().to(content::activity::activity),
        )
        .route(
            "/content-settings/{guid}/consents/end",
            get().to(content::consents::end_consents_page),
        )
        .route(
            "/content-settings/{guid}/consents/end",
            post().to(content::consents::end_consents),
        )
        .configure(run_pages)
        .route(
            "/content-settings/{guid}/delete",
            get().to(content::delete::delete_page),
        )
        .route(
            "/content-settings/{guid}/delete",
            post().to(content::delete::delete),
        );
}

/// An item whose app runs here.
fn run_pages(config: &mut ServiceConfig) {
    config
        .route(
            "/content-settings/{guid}/runs",
            get().to(content::runs::runs),
        )
        .route(
            "/content-settings/{guid}/restart",
            post().to(content::runs::restart),
        )
        .route(
            "/content-settings/{guid}/upload",
            post().to(content::upload::upload),
        )
        .route(
            "/content-settings/{guid}/bundles/{number}",
            get().to(content::runs::download),
        )
        .route(
            "/content-settings/{guid}/bundles/{number}/deploy",
            post().to(content::runs::deploy),
        )
        .route(
            "/content-settings/{guid}/bundles/{number}/delete",
            post().to(content::runs::delete_bundle),
        )
        .route(
            "/content-settings/{guid}/variables",
            post().to(content::runs::set_variable),
        )
        .route(
            "/content-settings/{guid}/limits",
            post().to(content::runs::set_limits),
        )
        .route(
            "/content-settings/{guid}/elsewhere",
            post().to(content::runs::run_elsewhere),
        )
        .route(
            "/content-settings/{guid}/logs",
            get().to(content::logs::logs),
        )
        .route(
            "/content-settings/{guid}/logs/{process}",
            get().to(content::logs::download),
        );
}

/// Integrations.
fn integration_pages(config: &mut ServiceConfig) {
    config
        .route("/integrations", get().to(integrations::list::list))
        .route(
            "/integrations/new",
            get().to(integrations::choose::new_page),
        )
        .route("/integrations/new", post().to(integrations::new::create))
        .route("/integrations/{guid}", get().to(integrations::show::detail))
        .route(
            "/integrations/{guid}/edit",
            get().to(integrations::edit::edit_page),
        )
        .route(
            "/integrations/{guid}/edit",
            post().to(integrations::edit::edit),
        )
        .route(
            "/integrations/{guid}/secret",
            get().to(integrations::secret::secret_page),
        )
        .route(
            "/integrations/{guid}/secret",
            post().to(integrations::secret::replace_secret),
        )
        .route(
            "/integrations/{guid}/check",
            post().to(integrations::check::check),
        )
        .route(
            "/integrations/{guid}/test",
            post().to(integrations::check::test),
        )
        .route(
            "/integrations/{guid}/pause",
            post().to(integrations::pause::pause),
        )
        .route(
            "/integrations/{guid}/connected",
            get().to(integrations::connected::list),
        )
        .route(
            "/integrations/{guid}/activity",
            get().to(integrations::activity::activity),
        )
        .route(
            "/integrations/{guid}/availability",
            post().to(integrations::availability::set_availability),
        )
        .route(
            "/integrations/{guid}/people",
            post().to(integrations::availability::list_principal),
        )
        .route(
            "/integrations/{guid}/people/{number}/remove",
            post().to(integrations::availability::unlist),
        )
        .route(
            "/integrations/{guid}/disconnect",
            get().to(integrations::disconnect::disconnect_page),
        )
        .route(
            "/integrations/{guid}/disconnect",
            post().to(integrations::disconnect::disconnect),
        )
        .route(
            "/integrations/{guid}/delete",
            get().to(integrations::delete::delete_page),
        )
        .route(
            "/integrations/{guid}/delete",
            post().to(integrations::delete::delete),
        );
}

/// Consents, connections and the OAuth flow.
fn consent_pages(config: &mut ServiceConfig) {
    config
        .route("/consents", get().to(consents::list::list))
        .route("/consents/new", get().to(consents::new::consent_page))
        .route("/consents/new", post().to(consents::new::consent))
        .route(
            "/consents/account",
            get().to(consents::other_account::other_account_page),
        )
        .route(
            "/consents/account",
            post().to(consents::other_account::other_account),
        )
        .route("/consents/end", post().to(consents::end::end))
        .route("/consents/{guid}/uses", get().to(consents::uses::uses))
        .route(
            "/consents/{guid}/revoke",
            get().to(consents::revoke::revoke_page),
        )
        .route(
            "/consents/{guid}/revoke",
            post().to(consents::revoke::revoke),
        )
        .route(
            "/connections/{guid}/disconnect",
            get().to(consents::disconnect::disconnect_page),
        )
        .route(
            "/connections/{guid}/disconnect",
            post().to(consents::disconnect::disconnect),
        )
        .route(
            "/__oauth__/integrations/callback",
            get().to(callback::shared),
        )
        .route(
            "/__oauth__/integrations/{guid}/callback",
            get().to(callback::own),
        )
        .route(
            "/__oauth__/integrations/{guid}/login",
            get().to(consents::new::login),
        );
}

/// People and groups.
fn people_pages(config: &mut ServiceConfig) {
    config
        .route("/people", get().to(people::list::list))
        .route("/people/bulk", post().to(people::bulk::bulk))
        .route("/people/import", get().to(people::import::import_page))
        .route("/people/import", post().to(people::import::import))
        .route("/people/new", get().to(people::new::new_page))
        .route("/people/new", post().to(people::new::create))
        .route("/people/{guid}", get().to(people::show::detail))
        .route("/people/{guid}", post().to(people::show::save))
        .route(
            "/people/{guid}/password",
            post().to(people::show::set_password),
        )
        .route("/people/{guid}/lock", post().to(people::lock::lock))
        .route("/people/{guid}/delete", get().to(people::delete::ask))
        .route("/people/{guid}/delete", post().to(people::delete::delete))
        .route("/people/{guid}/data", post().to(people::data::of_person))
        .route("/people/{guid}/invite", post().to(people::invite::invite))
        .route(
            "/people/{guid}/disconnect",
            get().to(people::disconnect::disconnect_page),
        )
        .route(
            "/people/{guid}/disconnect",
            post().to(people::disconnect::disconnect),
        )
        .route(
            "/people/{guid}/sessions/end",
            post().to(people::sessions::end_sessions),
        )
        .route("/groups", get().to(groups::list::list))
        .route("/groups", post().to(groups::list::create))
        .route("/groups/{guid}", get().to(groups::show::detail))
        .route("/groups/{guid}", post().to(groups::show::rename))
        .route(
            "/groups/{guid}/members",
            post().to(groups::show::add_member),
        )
        .route(
            "/groups/{guid}/members/remove",
            post().to(groups::show::remove_member),
        )
        .route("/groups/{guid}/delete", post().to(groups::show::delete));
}

/// The audit log and the handbook.
fn audit_and_help_pages(config: &mut ServiceConfig) {
    config
        .route("/notifications", get().to(notifications::show::show))
        .route("/notifications", post().to(notifications::show::save))
        .route("/notifications/test", post().to(notifications::show::test))
        .route(
            "/notifications/webhooks",
            post().to(notifications::webhooks::add),
        )
        .route(
            "/notifications/webhooks/{guid}/test",
            post().to(notifications::webhooks::test),
        )
        .route(
            "/notifications/webhooks/{guid}/delete",
            post().to(notifications::webhooks::delete),
        )
        .route(CHOICES, post().to(choices::choices))
        .route("/help", get().to(help::index))
        .route("/help/{name}", get().to(help::chapter))
        .route("/audit", get().to(audit::list::list))
        .route("/audit/export", get().to(audit::list::export))
        .route("/audit/uses", get().to(audit::uses::uses))
        .route("/audit/uses/export", get().to(audit::uses::export));
}

/// The reader's own account.
fn account_pages(config: &mut ServiceConfig) {
    config
        .route("/account", get().to(account::overview::account))
        .route(
            "/account/password",
            post().to(account::overview::change_password),
        )
        .route(
            "/account/sessions/end",
            post().to(account::overview::end_sessions),
        )
        .route(
            "/account/time-zone",
            post().to(account::overview::set_time_zone),
        )
        .route("/account/mail", post().to(account::overview::set_mail))
        .route("/account/data", post().to(people::data::own))
        .route("/account/confirm", get().to(account::confirm::confirm_page))
        .route("/account/confirm", post().to(account::confirm::confirm))
        .route("/account/theme", post().to(account::theme::theme))
        .route(
            "/account/notice/dismiss",
            post().to(account::overview::dismiss_notice),
        )
        .route("/account/switch", get().to(sign_in::switch))
        .route("/account/keys", get().to(account::keys::keys))
        .route("/account/keys", post().to(account::keys::create_key))
        .route(
            "/account/keys/{number}/delete",
            post().to(account::keys::delete_key),
        )
        .route("/account/shown/{name}", get().to(account::secret::shown));
}

/// The Connect-compatible API, below `/__api__`. Authenticated by API key.
pub fn programs(config: &mut ServiceConfig) {
    config
        .configure(people_api)
        .configure(content_api)
        .configure(oauth_api)
        .route("/server_settings", get().to(api::server::settings))
        .route("/openapi.json", get().to(api::openapi::document))
        .route("/v1/audit_logs", get().to(api::audit::list))
        .route("/v1/audit/actions", get().to(api::audit::actions))
        .route("/v1/bootstrap", post().to(api::server::bootstrap))
        .route(
            "/v1/experimental/bootstrap",
            post().to(api::server::bootstrap),
        )
        .default_service(web::route().to(api::unknown));
}

/// Users, their API keys, and groups.
fn people_api(config: &mut ServiceConfig) {
    config
        .route("/me", get().to(api::users::me))
        .route("/v1/user", get().to(api::users::me))
        .route("/v1/users", get().to(api::users::list))
        .route("/v1/users", post().to(api::users::create))
        .route("/v1/users/{guid}", get().to(api::users::get))
        .route("/v1/users/{guid}", put().to(api::users::update))
        .route("/v1/users/{guid}/lock", post().to(api::users::lock))
        .route("/v1/users/{guid}/keys", get().to(api::users::keys))
        .route("/v1/users/{guid}/keys", post().to(api::users::create_key))
        .route("/v1/users/{guid}/keys/{id}", get().to(api::users::get_key))
        .route(
            "/v1/users/{guid}/keys/{id}",
            delete().to(api::users::delete_key),
        )
        .route("/v1/groups", get().to(api::groups::list))
        .route("/v1/groups", post().to(api::groups::create))
        .route("/v1/groups/{guid}", get().to(api::groups::get))
        .route("/v1/groups/{guid}", patch().to(api::groups::update))
        .route("/v1/groups/{guid}", delete().to(api::groups::delete))
        .route("/v1/groups/{guid}/members", get().to(api::groups::members))
        .route(
            "/v1/groups/{guid}/members",
            post().to(api::groups::add_member),
        )
        .route(
            "/v1/groups/{guid}/members/{person}",
            delete().to(api::groups::remove_member),
        );
}

/// Content, its permissions and its associations.
fn content_api(config: &mut ServiceConfig) {
    config
        .route("/v1/content", get().to(api::content::list))
        .route("/v1/content", post().to(api::content::create))
        .route("/v1/content/{guid}", get().to(api::content::get))
        .route("/v1/content/{guid}", patch().to(api::content::update))
        .route("/v1/content/{guid}", delete().to(api::content::delete))
        .route(
            "/v1/content/{guid}/permissions",
            get().to(api::content::permissions),
        )
        .route(
            "/v1/content/{guid}/permissions",
            post().to(api::content::add_permission),
        )
        .route(
            "/v1/content/{guid}/permissions/{id}",
            get().to(api::content::get_permission),
        )
        .route(
            "/v1/content/{guid}/permissions/{id}",
            put().to(api::content::set_permission),
        )
        .route(
            "/v1/content/{guid}/permissions/{id}",
            delete().to(api::content::delete_permission),
        )
        .configure(deployed_api)
        .route(
            "/v1/content/{guid}/oauth/integrations/associations",
            get().to(api::content::associations),
        )
        .route(
            "/v1/content/{guid}/oauth/integrations/associations",
            put().to(api::content::set_associations),
        );
}

/// Deployed content.
fn deployed_api(config: &mut ServiceConfig) {
    config
        .route(
            "/v1/content/{guid}/environment",
            get().to(api::bundles::variables),
        )
        .route(
            "/v1/content/{guid}/environment",
            patch().to(api::bundles::patch_variables),
        )
        .route(
            "/v1/content/{guid}/environment",
            put().to(api::bundles::put_variables),
        )
        .route("/v1/content/{guid}/bundles", get().to(api::bundles::list))
        .route(
            "/v1/content/{guid}/bundles",
            post().to(api::bundles::upload),
        )
        .route(
            "/v1/content/{guid}/bundles/{id}",
            get().to(api::bundles::get),
        )
        .route(
            "/v1/content/{guid}/bundles/{id}",
            delete().to(api::bundles::delete),
        )
        .route(
            "/v1/content/{guid}/bundles/{id}/download",
            get().to(api::bundles::download),
        )
        .route("/v1/content/{guid}/deploy", post().to(api::bundles::deploy))
        .route("/v1/content/{guid}/build", post().to(api::bundles::build))
        .route(
            "/v1/content/{guid}/restart",
            post().to(api::bundles::restart),
        )
        .route("/v1/content/{guid}/jobs", get().to(api::bundles::jobs))
        .route(
            "/v1/content/{guid}/jobs/{key}/log",
            get().to(api::bundles::job_log),
        )
        .route("/v1/tasks/{id}", get().to(api::bundles::task))
        .route("/v1/server_settings/python", get().to(api::bundles::python))
        .route(
            "/v1/server_settings/r",
            get().to(api::bundles::no_installations),
        )
        .route(
            "/v1/server_settings/quarto",
            get().to(api::bundles::no_installations),
        );
}

/// Integrations, templates and connections (`oauth/sessions`).
fn oauth_api(config: &mut ServiceConfig) {
    config
        .route("/v1/oauth/integrations", get().to(api::integrations::list))
        .route(
            "/v1/oauth/integrations",
            post().to(api::integrations::create),
        )
        .route(
            "/v1/oauth/integrations/{guid}",
            get().to(api::integrations::get),
        )
        .route(
            "/v1/oauth/integrations/{guid}",
            patch().to(api::integrations::update),
        )
        .route(
            "/v1/oauth/integrations/{guid}",
            delete().to(api::integrations::delete),
        )
        .route(
            "/v1/oauth/integrations/{guid}/associations",
            get().to(api::integrations::associations),
        )
        .route(
            "/v1/oauth/integrations/{guid}/secret",
            post().to(api::integrations::compare_secret),
        )
        .route(
            "/v1/oauth/integrations/{guid}/verify",
            post().to(api::integrations::verify),
        )
        .route(
            "/v1/oauth/templates",
            get().to(api::integrations::templates),
        )
        .route(
            "/v1/oauth/templates/{key}",
            get().to(api::integrations::get_template),
        )
        .route("/v1/oauth/sessions", get().to(api::integrations::sessions))
        .route(
            "/v1/oauth/sessions/{guid}",
            get().to(api::integrations::get_session),
        )
        .route(
            "/v1/oauth/sessions/{guid}",
            delete().to(api::integrations::delete_session),
        );
}

/// Routes without session or key: liveness, readiness, static assets.
pub fn open(config: &mut ServiceConfig) {
    config
        .route("/__ping__", get().to(api::server::ping))
        .route("/__health__", get().to(api::server::health))
        .route(
            "/.well-known/openid-configuration",
            get().to(api::issuer::discovery),
        )
        .route("/.well-known/jwks.json", get().to(api::issuer::public_keys))
        .route("/__valetkey__/static/{name}", get().to(assets::serve));
}
