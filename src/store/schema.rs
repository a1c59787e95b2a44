//! The tables, as diesel sees them; `migrations/` is authoritative.
//!
//! All times (`…_at`, `until`, `hour`, `at`) are milliseconds since 1970. References are GUIDs as
//! text. Columns named `…_hash` hold hashes of secrets; sealed columns are listed in `sealed`.

// Named values of the installation: keys in use, the root secret (sealed), the contract of the
// migrations.
diesel::table! {
    meta (name) {
        name -> Text,
        value -> Text,
    }
}

diesel::table! {
    people (number) {
        number -> BigInt,
        guid -> Text,
        username -> Text,
        username_key -> Text,
        email -> Text,
        first_name -> Text,
        last_name -> Text,
        role -> Text,
        password_hash -> Nullable<Text>,
        locked -> Bool,
        created_at -> BigInt,
        updated_at -> BigInt,
        active_at -> Nullable<BigInt>,
        organisation_label -> Nullable<Text>,
        organisation_subject -> Nullable<Text>,
        notice -> Nullable<Text>,
        time_zone -> Nullable<Text>,
        mail_off -> Bool,
    }
}

// One-time links for setting a password; without a person, for creating the first administrator.
diesel::table! {
    setup_links (token_hash) {
        token_hash -> Text,
        expires_at -> BigInt,
        person -> Nullable<Text>,
    }
}

// Browser sessions.
diesel::table! {
    sessions (key_hash) {
        key_hash -> Text,
        guid -> Nullable<Text>,
        person -> Nullable<Text>,
        state -> Text,
        address -> Text,
        created_at -> BigInt,
        seen_at -> BigInt,
        expires_at -> BigInt,
        client -> Nullable<Text>,
    }
}

diesel::table! {
    integrations (number) {
        number -> BigInt,
        guid -> Text,
        name -> Nullable<Text>,
        description -> Nullable<Text>,
        template -> Text,
        auth_type -> Text,
        config -> Text,
        client_secret -> Nullable<Text>,
        secret_set_at -> Nullable<BigInt>,
        secret_set_by -> Nullable<Text>,
        secret_expires_at -> Nullable<BigInt>,
        secret_state -> Text,
        secret_state_at -> Nullable<BigInt>,
        secret_cause -> Nullable<Text>,
        previous_client_secret -> Nullable<Text>,
        secret_warned -> Nullable<BigInt>,
        endpoint_version -> BigInt,
        availability -> Text,
        identity_check -> Text,
        created_at -> BigInt,
        updated_at -> BigInt,
        paused_at -> Nullable<BigInt>,
        last_check -> Nullable<Text>,
    }
}

diesel::table! {
    content (number) {
        number -> BigInt,
        guid -> Text,
        name -> Text,
        title -> Nullable<Text>,
        description -> Text,
        owner -> Text,
        access -> Text,
        app_mode -> Text,
        upstream -> Nullable<Text>,
        slug -> Text,
        created_at -> BigInt,
        updated_at -> BigInt,
        proxying -> Text,
        leaks_cleared_at -> Nullable<BigInt>,
        bundle -> Nullable<BigInt>,
        running -> Text,
        python -> Nullable<Text>,
    }
}

// Who was at which process of an item, through which node. `here`: since `since`, and still while
// the node is alive.
diesel::table! {
    visits (content, process, person, node) {
        content -> Text,
        process -> Text,
        person -> Text,
        node -> Text,
        here -> Bool,
        since -> BigInt,
        seen_at -> BigInt,
    }
}

// When a process last used a viewer's token.
diesel::table! {
    token_uses (content, process, person) {
        content -> Text,
        process -> Text,
        person -> Text,
        used_at -> BigInt,
    }
}

diesel::table! {
    leaks (content, person) {
        content -> Text,
        person -> Text,
        kind -> Text,
        first_at -> BigInt,
        last_at -> BigInt,
        times -> BigInt,
    }
}

// Which viewer an app gave an app session id to; an empty `person` is a viewer who is not signed
// in.
diesel::table! {
    app_sessions (id_hash) {
        id_hash -> Text,
        content -> Text,
        person -> Text,
        seen_at -> BigInt,
    }
}

diesel::table! {
    endings (number) {
        number -> BigInt,
        at -> BigInt,
        ending -> Text,
    }
}

diesel::table! {
    api_keys (number) {
        number -> BigInt,
        person -> Text,
        name -> Text,
        role -> Text,
        key_hash -> Text,
        content -> Nullable<Text>,
        created_at -> BigInt,
        active_at -> Nullable<BigInt>,
        expires_at -> Nullable<BigInt>,
    }
}

// Uploads of deployed content.
diesel::table! {
    bundles (number) {
        number -> BigInt,
        content -> Text,
        created_at -> BigInt,
        created_by -> Nullable<Text>,
        size -> BigInt,
        app_mode -> Text,
        python -> Nullable<Text>,
        source -> Text,
    }
}

// Variables of the processes of deployed content; the values are sealed.
diesel::table! {
    environment (content, name) {
        content -> Text,
        name -> Text,
        value -> Text,
    }
}

// Deploys.
diesel::table! {
    tasks (guid) {
        guid -> Text,
        content -> Text,
        bundle -> BigInt,
        created_by -> Text,
        activate -> Bool,
        created_at -> BigInt,
        finished_at -> Nullable<BigInt>,
        error -> Nullable<Text>,
        role -> Text,
    }
}

diesel::table! {
    content_list (number) {
        number -> BigInt,
        content -> Text,
        person -> Nullable<Text>,
        group_guid -> Nullable<Text>,
        role -> Text,
    }
}

// People who ask to be put on the list of an item.
diesel::table! {
    access_requests (content, person) {
        content -> Text,
        person -> Text,
        at -> BigInt,
    }
}

diesel::table! {
    integration_list (number) {
        number -> BigInt,
        guid -> Text,
        integration -> Text,
        person -> Nullable<Text>,
        group_guid -> Nullable<Text>,
    }
}

diesel::table! {
    groups (number) {
        number -> BigInt,
        guid -> Text,
        name -> Text,
        name_key -> Text,
        owner -> Nullable<Text>,
        created_at -> BigInt,
    }
}

diesel::table! {
    group_members (group_guid, person) {
        group_guid -> Text,
        person -> Text,
        by_claim -> Bool,
    }
}

diesel::table! {
    identities (issuer, subject) {
        issuer -> Text,
        subject -> Text,
        person -> Text,
        created_at -> BigInt,
    }
}

// The sealed refresh token of a sign-in, by browser session.
diesel::table! {
    sign_in_grants (session) {
        session -> Text,
        refresh_token -> Text,
    }
}

// Single-use codes that take a browser from the portal's origin to content's.
diesel::table! {
    handovers (code_hash) {
        code_hash -> Text,
        nonce_hash -> Text,
        session -> Text,
        person -> Text,
        content -> Text,
        expires_at -> BigInt,
    }
}

// Sessions on content's origin; each depends on a browser session of the portal.
diesel::table! {
    content_sessions (key_hash) {
        key_hash -> Text,
        session -> Text,
        person -> Text,
        content -> Text,
        created_at -> BigInt,
    }
}

// Number of exchanges per hour, viewer, content item and integration.
diesel::table! {
    exchange_hours (hour, person, content, integration) {
        hour -> BigInt,
        person -> Text,
        content -> Text,
        integration -> Text,
        exchanges -> BigInt,
        last_at -> BigInt,
    }
}

// The seals of the audit log.
diesel::table! {
    audit_blocks (number) {
        number -> BigInt,
        lines -> BigInt,
        seal -> Text,
        sealed_at -> BigInt,
        reseal -> Nullable<Text>,
    }
}

diesel::table! {
    associations (number) {
        number -> BigInt,
        content -> Text,
        integration -> Text,
        created_at -> BigInt,
        beside_viewers -> Bool,
    }
}

diesel::table! {
    connections (number) {
        number -> BigInt,
        guid -> Text,
        person -> Text,
        integration -> Text,
        state -> Text,
        cause -> Nullable<Text>,
        state_at -> BigInt,
        account_label -> Nullable<Text>,
        account_subject -> Nullable<Text>,
        account_tenant -> Nullable<Text>,
        scopes -> Text,
        extra_fields -> Text,
        access_token -> Nullable<Text>,
        access_expires_at -> Nullable<BigInt>,
        refresh_token -> Nullable<Text>,
        lapses_at -> Nullable<BigInt>,
        generation -> BigInt,
        connected_at -> BigInt,
        created_at -> BigInt,
        updated_at -> BigInt,
        used_at -> Nullable<BigInt>,
        ending -> Bool,
    }
}

diesel::table! {
    leases (name) {
        name -> Text,
        owner -> Text,
        node -> Text,
        generation -> BigInt,
        beat -> BigInt,
        taken_at -> BigInt,
        until -> BigInt,
    }
}

// Refreshes that were sent and whose outcome is not recorded yet.
diesel::table! {
    refresh_attempts (connection) {
        connection -> Text,
        generation -> BigInt,
        owner -> Text,
        started_at -> BigInt,
    }
}

diesel::table! {
    revocations (guid) {
        guid -> Text,
        person -> Text,
        person_name -> Text,
        integration -> Text,
        integration_name -> Text,
        provider -> Text,
        account -> Nullable<Text>,
        correlation -> Text,
        request -> Nullable<Text>,
        state -> Text,
        tries -> BigInt,
        next_at -> BigInt,
        ended_at -> BigInt,
        told_at -> Nullable<BigInt>,
    }
}

// Password attempts; `who` is a hash of name and address.
diesel::table! {
    sign_in_tries (number) {
        number -> BigInt,
        who -> Text,
        at -> BigInt,
    }
}

// Session tokens that stay valid beyond their hour while a WebSocket or event stream is open at a
// live node.
diesel::table! {
    held_tokens (node, token_hash) {
        node -> Text,
        token_hash -> Text,
    }
}

// Sealed texts that are shown once.
diesel::table! {
    shown_once (name_hash) {
        name_hash -> Text,
        person -> Text,
        shown -> Text,
        expires_at -> BigInt,
    }
}

// Portal processes that serve; `keys` are the ids in their keyring, separated by blanks.
diesel::table! {
    nodes (node) {
        node -> Text,
        version -> Text,
        keys -> Text,
        seen_at -> BigInt,
    }
}

// One row; its number changes with every write that can change a decision.
diesel::table! {
    changes (seq) {
        seq -> BigInt,
        at -> BigInt,
        process -> Text,
        subjects -> Text,
    }
}

diesel::table! {
    consents (guid) {
        guid -> Text,
        person -> Text,
        content -> Text,
        integration -> Text,
        scopes -> Text,
        created_at -> BigInt,
        last_used_at -> Nullable<BigInt>,
        uses -> BigInt,
    }
}

// OAuth authorizations in flight.
diesel::table! {
    attempts (guid) {
        guid -> Text,
        state_hash -> Text,
        person -> Text,
        session -> Text,
        integration -> Text,
        endpoint_version -> BigInt,
        content -> Nullable<Text>,
        return_path -> Text,
        redirect_uri -> Text,
        verifier -> Nullable<Text>,
        expires_at -> BigInt,
        used_at -> Nullable<BigInt>,
        is_test -> Bool,
    }
}

diesel::table! {
    audit (number) {
        number -> BigInt,
        at -> BigInt,
        action -> Text,
        actor -> Nullable<Text>,
        actor_name -> Text,
        subject -> Text,
        detail -> Text,
        address -> Text,
        correlation -> Text,
        outcome -> Text,
        proof -> Text,
        block -> Nullable<BigInt>,
    }
}

diesel::table! {
    erasures (person) {
        person -> Text,
        names -> Text,
        until -> BigInt,
    }
}

diesel::table! {
    notices (number) {
        number -> BigInt,
        at -> BigInt,
        kind -> Text,
        person -> Nullable<Text>,
        title -> Text,
        body -> Text,
        path -> Text,
        once -> Nullable<Text>,
        spread -> Bool,
    }
}

diesel::table! {
    notice_rules (kind) {
        kind -> Text,
        mailed -> Bool,
        addresses -> Text,
    }
}

diesel::table! {
    webhooks (number) {
        number -> BigInt,
        guid -> Text,
        name -> Text,
        url -> Text,
        host -> Text,
        secret -> Text,
        kinds -> Text,
        created_at -> BigInt,
    }
}

diesel::table! {
    deliveries (number) {
        number -> BigInt,
        notice -> BigInt,
        webhook -> Nullable<Text>,
        address -> Nullable<Text>,
        state -> Text,
        tries -> BigInt,
        next_at -> BigInt,
        ended_at -> Nullable<BigInt>,
        error -> Nullable<Text>,
    }
}

diesel::table! {
    known_devices (person, client) {
        person -> Text,
        client -> Text,
        seen_at -> BigInt,
    }
}

diesel::joinable!(deliveries -> notices (notice));

diesel::allow_tables_to_appear_in_same_query!(
    erasures,
    notices,
    notice_rules,
    webhooks,
    deliveries,
    known_devices,
    meta,
    people,
    setup_links,
    sessions,
    integrations,
    content,
    bundles,
    environment,
    tasks,
    api_keys,
    content_list,
    access_requests,
    integration_list,
    groups,
    group_members,
    identities,
    handovers,
    sign_in_grants,
    content_sessions,
    exchange_hours,
    audit_blocks,
    associations,
    connections,
    consents,
    attempts,
    audit,
    leases,
    refresh_attempts,
    revocations,
    sign_in_tries,
    held_tokens,
    token_uses,
    visits,
    shown_once,
    nodes,
    changes
);
