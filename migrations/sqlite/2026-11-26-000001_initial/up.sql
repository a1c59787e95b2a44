-- The first version of all tables. Changes come as further migrations: see ../../README.md.

-- The installation

-- Named values of the installation: keys in use, the root secret (sealed), the contract of the
-- schema.
CREATE TABLE meta (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

-- What deciding writes changed, for the caches of other processes (`src/store/changes.rs`). Rows are
-- kept for ten minutes.
CREATE TABLE changes (
    seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    at BIGINT NOT NULL DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)),
    process TEXT NOT NULL,
    subjects TEXT NOT NULL
);

-- Running processes and the keys that they hold. A row that is not renewed is a node that has
-- ended.
CREATE TABLE nodes (
    node TEXT NOT NULL PRIMARY KEY,
    version TEXT NOT NULL,
    keys TEXT NOT NULL,
    seen_at BIGINT NOT NULL
);

-- Work that only one process may do at a time. Abandoned when `beat` does not change for the
-- lease's life, by the clock of the process that looks: clocks of machines differ.
CREATE TABLE leases (
    name TEXT NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    node TEXT NOT NULL,
    generation BIGINT NOT NULL,
    beat BIGINT NOT NULL,
    taken_at BIGINT NOT NULL,
    until BIGINT NOT NULL
);
CREATE INDEX leases_by_end ON leases (until);

-- People

-- Times are milliseconds since 1970, in every table. `username_key` is the lower-cased user name.
CREATE TABLE people (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    guid TEXT NOT NULL UNIQUE,
    username TEXT NOT NULL,
    username_key TEXT NOT NULL UNIQUE,
    email TEXT NOT NULL,
    first_name TEXT NOT NULL,
    last_name TEXT NOT NULL,
    role TEXT NOT NULL,
    password_hash TEXT,
    locked BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    active_at BIGINT,
    -- The account at the organisation's provider, as its last sign-in named it.
    organisation_label TEXT,
    organisation_subject TEXT,
    -- What the person is told on every page until they dismiss it.
    notice TEXT
);

-- Who signs in with the organisation: issuer and subject of the ID token.
CREATE TABLE identities (
    issuer TEXT NOT NULL,
    subject TEXT NOT NULL,
    person TEXT NOT NULL REFERENCES people (guid) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (issuer, subject)
);
CREATE INDEX identities_by_person ON identities (person);

CREATE TABLE "groups" (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    guid TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    name_key TEXT NOT NULL UNIQUE,
    owner TEXT REFERENCES people (guid) ON DELETE SET NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE group_members (
    group_guid TEXT NOT NULL REFERENCES "groups" (guid) ON DELETE CASCADE,
    person TEXT NOT NULL REFERENCES people (guid) ON DELETE CASCADE,
    -- Set by a claim at sign-in, and taken away by one.
    by_claim BOOLEAN NOT NULL,
    PRIMARY KEY (group_guid, person)
);
CREATE INDEX group_members_by_person ON group_members (person);

-- Browser sessions, signed in or not. Only a hash of the key is stored.
CREATE TABLE sessions (
    key_hash TEXT NOT NULL PRIMARY KEY,
    guid TEXT,
    person TEXT REFERENCES people (guid) ON DELETE CASCADE,
    state TEXT NOT NULL,
    address TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX sessions_by_guid ON sessions (guid);
CREATE INDEX sessions_by_person ON sessions (person);
CREATE INDEX sessions_by_expiry ON sessions (expires_at);
CREATE INDEX sessions_by_use ON sessions (seen_at);

-- One-time links: for the first administrator (`person` is NULL) or an invitation.
CREATE TABLE setup_links (
    token_hash TEXT NOT NULL PRIMARY KEY,
    expires_at BIGINT NOT NULL,
    person TEXT REFERENCES people (guid) ON DELETE CASCADE
);
CREATE INDEX setup_links_by_expiry ON setup_links (expires_at);

-- Refresh tokens of organisation sign-ins, sealed.
CREATE TABLE sign_in_grants (
    session TEXT NOT NULL PRIMARY KEY,
    refresh_token TEXT NOT NULL
);

-- Password attempts. `who` is a hash of name and address.
CREATE TABLE sign_in_tries (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    who TEXT NOT NULL,
    at BIGINT NOT NULL
);
CREATE INDEX sign_in_tries_by_who ON sign_in_tries (who, at);
CREATE INDEX sign_in_tries_by_time ON sign_in_tries (at);

-- Secrets that wait, sealed, for the one page that shows them.
CREATE TABLE shown_once (
    name_hash TEXT NOT NULL PRIMARY KEY,
    person TEXT NOT NULL REFERENCES people (guid) ON DELETE CASCADE,
    shown TEXT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX shown_once_by_expiry ON shown_once (expires_at);

-- Integrations and content

-- `endpoint_version` grows when tokens go to another place; attempts that began before are
-- refused.
CREATE TABLE integrations (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    guid TEXT NOT NULL UNIQUE,
    name TEXT,
    description TEXT,
    template TEXT NOT NULL,
    auth_type TEXT NOT NULL,
    config TEXT NOT NULL,
    client_secret TEXT,
    secret_set_at BIGINT,
    secret_set_by TEXT,
    secret_expires_at BIGINT,
    secret_state TEXT NOT NULL,
    secret_state_at BIGINT,
    secret_cause TEXT,
    endpoint_version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    availability TEXT NOT NULL,
    identity_check TEXT NOT NULL,
    previous_client_secret TEXT,
    secret_warned BIGINT
);

-- Who may choose an integration whose availability is "listed".
CREATE TABLE integration_list (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    guid TEXT NOT NULL UNIQUE,
    integration TEXT NOT NULL REFERENCES integrations (guid) ON DELETE CASCADE,
    person TEXT REFERENCES people (guid) ON DELETE CASCADE,
    group_guid TEXT REFERENCES "groups" (guid) ON DELETE CASCADE,
    CHECK ((person IS NULL) <> (group_guid IS NULL)),
    UNIQUE (integration, person),
    UNIQUE (integration, group_guid)
);
CREATE INDEX integration_list_by_person ON integration_list (person);
CREATE INDEX integration_list_by_group ON integration_list (group_guid);

-- `proxying` is JSON: it is read and written as a whole and never searched.
CREATE TABLE content (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    guid TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    title TEXT,
    description TEXT NOT NULL,
    owner TEXT NOT NULL REFERENCES people (guid),
    access TEXT NOT NULL,
    app_mode TEXT NOT NULL,
    upstream TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    slug TEXT NOT NULL,
    proxying TEXT NOT NULL,
    -- Uses of tokens up to this time raise no leak alarm: the publisher mended the app.
    leaks_cleared_at BIGINT,
    UNIQUE (owner, name)
);
CREATE UNIQUE INDEX content_by_slug ON content (slug);

-- Who may open or edit an item.
CREATE TABLE content_list (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    content TEXT NOT NULL REFERENCES content (guid) ON DELETE CASCADE,
    person TEXT REFERENCES people (guid) ON DELETE CASCADE,
    group_guid TEXT REFERENCES "groups" (guid) ON DELETE CASCADE,
    role TEXT NOT NULL,
    CHECK ((person IS NULL) <> (group_guid IS NULL)),
    UNIQUE (content, person),
    UNIQUE (content, group_guid)
);
CREATE INDEX content_list_by_person ON content_list (person);
CREATE INDEX content_list_by_group ON content_list (group_guid);

-- A key with `content` is a content key: it acts for that item only.
CREATE TABLE api_keys (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    person TEXT NOT NULL REFERENCES people (guid) ON DELETE CASCADE,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    key_hash TEXT NOT NULL UNIQUE,
    content TEXT REFERENCES content (guid) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    active_at BIGINT,
    expires_at BIGINT
);
CREATE INDEX api_keys_by_person ON api_keys (person);
CREATE INDEX api_keys_by_content ON api_keys (content);

CREATE TABLE associations (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    content TEXT NOT NULL REFERENCES content (guid) ON DELETE CASCADE,
    integration TEXT NOT NULL REFERENCES integrations (guid) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    UNIQUE (content, integration)
);
CREATE INDEX associations_by_integration ON associations (integration);

-- Grants: everything about one viewer's tokens

-- One viewer's tokens at one integration, sealed. `generation` is compared and swapped at each
-- refresh.
CREATE TABLE connections (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    guid TEXT NOT NULL UNIQUE,
    person TEXT NOT NULL REFERENCES people (guid) ON DELETE CASCADE,
    integration TEXT NOT NULL REFERENCES integrations (guid) ON DELETE CASCADE,
    state TEXT NOT NULL,
    cause TEXT,
    state_at BIGINT NOT NULL,
    account_label TEXT,
    account_subject TEXT,
    account_tenant TEXT,
    scopes TEXT NOT NULL,
    access_token TEXT,
    access_expires_at BIGINT,
    refresh_token TEXT,
    lapses_at BIGINT,
    generation BIGINT NOT NULL,
    connected_at BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    used_at BIGINT,
    -- Many connections are being ended: this one is unusable, and the next to be deleted.
    ending BOOLEAN NOT NULL DEFAULT FALSE,
    UNIQUE (person, integration)
);
CREATE INDEX connections_by_integration ON connections (integration);
CREATE INDEX connections_by_expiry ON connections (access_expires_at);
CREATE INDEX connections_by_use ON connections (used_at);
CREATE INDEX connections_ending ON connections (integration, number) WHERE ending;

-- One viewer's permission for one item to use one connection.
CREATE TABLE consents (
    guid TEXT NOT NULL PRIMARY KEY,
    person TEXT NOT NULL REFERENCES people (guid) ON DELETE CASCADE,
    content TEXT NOT NULL REFERENCES content (guid) ON DELETE CASCADE,
    integration TEXT NOT NULL REFERENCES integrations (guid) ON DELETE CASCADE,
    -- The scopes that the viewer was shown, sorted.
    scopes TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    last_used_at BIGINT,
    uses BIGINT NOT NULL,
    UNIQUE (person, content, integration)
);
CREATE INDEX consents_by_content ON consents (content);
CREATE INDEX consents_by_integration ON consents (integration);

-- Authorizations in flight. Used once.
CREATE TABLE attempts (
    guid TEXT NOT NULL PRIMARY KEY,
    state_hash TEXT NOT NULL UNIQUE,
    person TEXT NOT NULL REFERENCES people (guid) ON DELETE CASCADE,
    session TEXT NOT NULL,
    integration TEXT NOT NULL REFERENCES integrations (guid) ON DELETE CASCADE,
    endpoint_version BIGINT NOT NULL,
    content TEXT REFERENCES content (guid) ON DELETE CASCADE,
    return_path TEXT NOT NULL,
    redirect_uri TEXT NOT NULL,
    verifier TEXT,
    expires_at BIGINT NOT NULL,
    used_at BIGINT
);
CREATE INDEX attempts_by_expiry ON attempts (expires_at);

-- Written before a refresh is sent and deleted with its outcome: a row that is left may have
-- reached the provider.
CREATE TABLE refresh_attempts (
    connection TEXT NOT NULL PRIMARY KEY REFERENCES connections (guid) ON DELETE CASCADE,
    generation BIGINT NOT NULL,
    owner TEXT NOT NULL,
    started_at BIGINT NOT NULL
);

-- Ended connections whose provider is to be told. No foreign keys: they outlive what they name.
CREATE TABLE revocations (
    guid TEXT NOT NULL PRIMARY KEY,
    person TEXT NOT NULL,
    person_name TEXT NOT NULL,
    integration TEXT NOT NULL,
    integration_name TEXT NOT NULL,
    provider TEXT NOT NULL,
    account TEXT,
    correlation TEXT NOT NULL,
    -- Sealed: the token and the client that may revoke it; gone once nothing more is tried.
    request TEXT,
    state TEXT NOT NULL,
    tries BIGINT NOT NULL,
    next_at BIGINT NOT NULL,
    ended_at BIGINT NOT NULL,
    told_at BIGINT
);
CREATE INDEX revocations_by_next ON revocations (state, next_at);
CREATE INDEX revocations_by_person ON revocations (person);
CREATE INDEX revocations_by_end ON revocations (ended_at);

-- Content sessions

-- Codes that carry a browser from the portal to a content origin.
CREATE TABLE handovers (
    code_hash TEXT NOT NULL PRIMARY KEY,
    nonce_hash TEXT NOT NULL,
    session TEXT NOT NULL,
    person TEXT NOT NULL REFERENCES people (guid) ON DELETE CASCADE,
    content TEXT NOT NULL REFERENCES content (guid) ON DELETE CASCADE,
    expires_at BIGINT NOT NULL
);
CREATE INDEX handovers_by_expiry ON handovers (expires_at);

CREATE TABLE content_sessions (
    key_hash TEXT NOT NULL PRIMARY KEY,
    session TEXT NOT NULL,
    person TEXT NOT NULL REFERENCES people (guid) ON DELETE CASCADE,
    content TEXT NOT NULL REFERENCES content (guid) ON DELETE CASCADE,
    created_at BIGINT NOT NULL
);
CREATE INDEX content_sessions_by_session ON content_sessions (session);
CREATE INDEX content_sessions_by_time ON content_sessions (created_at);

-- Session tokens that stay exchangeable because their socket or stream is open on a node, for as
-- long as that node sends heartbeats.
CREATE TABLE held_tokens (
    node TEXT NOT NULL,
    token_hash TEXT NOT NULL,
    PRIMARY KEY (node, token_hash)
);
CREATE INDEX held_tokens_by_hash ON held_tokens (token_hash);

-- Whose a Streamlit session is; only its viewer may resume it.
CREATE TABLE app_sessions (
    id_hash TEXT NOT NULL PRIMARY KEY,
    content TEXT NOT NULL,
    person TEXT NOT NULL,
    seen_at BIGINT NOT NULL
);
CREATE INDEX app_sessions_by_use ON app_sessions (seen_at);

-- What ended: a copy of each row is in the journal beside the database, so that a restore of an older
-- backup does not bring it back.
CREATE TABLE endings (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    at BIGINT NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000 AS INTEGER)),
    ending TEXT NOT NULL
);
CREATE INDEX endings_by_age ON endings (at);

-- Who was at which process of an item, through which node. `here`: since `since` and still, for as
-- long as the node sends heartbeats; so a tab that stays open costs no writes.
CREATE TABLE visits (
    content TEXT NOT NULL,
    process TEXT NOT NULL,
    person TEXT NOT NULL,
    node TEXT NOT NULL,
    here BOOLEAN NOT NULL,
    since BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    PRIMARY KEY (content, process, person, node)
);
CREATE INDEX visits_by_node ON visits (node);
CREATE INDEX visits_by_time ON visits (seen_at);

-- When a process last used a viewer's token.
CREATE TABLE token_uses (
    content TEXT NOT NULL,
    process TEXT NOT NULL,
    person TEXT NOT NULL,
    used_at BIGINT NOT NULL,
    PRIMARY KEY (content, process, person)
);
CREATE INDEX token_uses_by_time ON token_uses (used_at);

CREATE TABLE leaks (
    content TEXT NOT NULL REFERENCES content (guid) ON DELETE CASCADE,
    person TEXT NOT NULL REFERENCES people (guid) ON DELETE CASCADE,
    kind TEXT NOT NULL,
    first_at BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    times BIGINT NOT NULL,
    PRIMARY KEY (content, person)
);
CREATE INDEX leaks_by_time ON leaks (last_at);

-- Audit record

CREATE TABLE audit (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    at BIGINT NOT NULL,
    action TEXT NOT NULL,
    actor TEXT,
    actor_name TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL,
    address TEXT NOT NULL,
    correlation TEXT NOT NULL,
    outcome TEXT NOT NULL,
    -- Seals the line by itself: whoever can write to the database cannot add one.
    proof TEXT NOT NULL,
    -- The block that seals the line; NULL for about a second.
    block BIGINT
);
CREATE INDEX audit_by_action ON audit (action, number);
CREATE INDEX audit_by_actor ON audit (actor, number);
CREATE INDEX audit_by_outcome ON audit (outcome, number);
CREATE INDEX audit_by_block ON audit (block, number);

-- The seals of the audit log: each covers the seal before and its lines, in order.
CREATE TABLE audit_blocks (
    number BIGINT NOT NULL PRIMARY KEY,
    lines BIGINT NOT NULL,
    seal TEXT NOT NULL,
    sealed_at BIGINT NOT NULL
);

-- Exchanges by hour. No foreign keys: counts outlive what they name.
CREATE TABLE exchange_hours (
    hour BIGINT NOT NULL,
    person TEXT NOT NULL,
    content TEXT NOT NULL,
    integration TEXT NOT NULL,
    exchanges BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    PRIMARY KEY (hour, person, content, integration)
);
CREATE INDEX exchange_hours_by_last ON exchange_hours (last_at);
CREATE INDEX exchange_hours_by_person ON exchange_hours (person, last_at);
CREATE INDEX exchange_hours_by_content ON exchange_hours (content, last_at);
